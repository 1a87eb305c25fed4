//! Verdicts: from surveyed rows to what will become of each.

use std::collections::{HashMap, HashSet};

use super::graph::components;
use super::{Decision, PlannedRow, Reason, Verdict};
use crate::value::encode_values;

/// A due row with what its own policy, statutes and holds say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Index of the collection in the model.
    pub collection: usize,
    /// The row.
    pub row: PlannedRow,
    /// What its policy does with it.
    pub end: End,
    /// Why it must stay on its own account, if it must.
    pub keep: Option<Reason>,
    /// The row it follows (collection index, encoded key): what stays there stays here.
    pub follows: Option<(usize, Vec<u8>)>,
}

/// What a policy does with a due row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// It goes.
    #[default]
    Erase,
    /// It stays, without anything that leads to its subject.
    Anonymise,
    /// Nothing: it was anonymised before, and is as that left it.
    Settled,
}

/// A row that refers to a candidate from below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The parent: collection index and encoded key.
    pub parent: (usize, Vec<u8>),
    /// The child.
    pub child: ReferringRow,
    /// Whether the child leads to its subject that way, so that the parent cannot be anonymised without it.
    pub leads: bool,
    /// Whether anonymising the child cuts the reference.
    pub is_cut: bool,
}

/// Which row refers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferringRow {
    /// A row of a registered collection: its index and encoded key.
    Registered(usize, Vec<u8>),
    /// Some row of a table that is not registered.
    Unregistered(String),
}

/// The largest circle of rows that goes together in one transaction; rows of a larger one stay.
pub const MAX_CIRCLE_ROWS: usize = 5000;

/// Decides all candidates. A row that is due but that a row which stays refers to stays too, stripped to its minimum: nothing
/// but the reference needs it. Collections are numbered children before parents, and the result keeps that order.
/// `groups` are the numbers of the groups that collections whose foreign keys form a circle share; one that is not in it is
/// its own. Rows come children first, those of a circle next to each other and with one component number.
/// A row to be anonymised stays as it is when one that leads to its subject over it does, and when the row that it follows does.
#[must_use]
pub fn decide(mut candidates: Vec<Candidate>, references: &[Reference], groups: &[usize]) -> Vec<Decision> {
    while candidates.iter().any(|candidate| candidate.end == End::Anonymise && candidate.follows.is_some()) {
        let decisions = decide_once(candidates.clone(), references, groups);
        let staying = following_what_stays(&candidates, &decisions);
        if staying.is_empty() {
            return decisions;
        }
        for at in staying {
            candidates[at].keep = Some(Reason::KeptParent);
        }
    }
    decide_once(candidates, references, groups)
}

/// Rows to be anonymised whose anchor is not.
fn following_what_stays(candidates: &[Candidate], decisions: &[Decision]) -> Vec<usize> {
    let verdicts: HashMap<(usize, Vec<u8>), &Verdict> =
        decisions.iter().map(|decision| ((decision.collection, row_id(&decision.row)), &decision.verdict)).collect();
    let goes = |id: &(usize, Vec<u8>)| {
        matches!(verdicts.get(id), Some(Verdict::Anonymise | Verdict::Settled | Verdict::Erase))
    };
    let stays = |(at, candidate): (usize, &Candidate)| {
        let anchor = candidate.follows.as_ref().filter(|_| candidate.keep.is_none())?;
        let own = (candidate.collection, row_id(&candidate.row));
        (verdicts.get(&own) == Some(&&Verdict::Anonymise) && !goes(anchor)).then_some(at)
    };
    candidates.iter().enumerate().filter_map(stays).collect()
}

/// What went before the group that is being decided.
#[derive(Default)]
struct Gone {
    erased: HashSet<(usize, Vec<u8>)>,
    anonymised: HashSet<(usize, Vec<u8>)>,
}

fn decide_once(candidates: Vec<Candidate>, references: &[Reference], groups: &[usize]) -> Vec<Decision> {
    let own: HashMap<(usize, Vec<u8>), Option<Reason>> = candidates
        .iter()
        .map(|candidate| ((candidate.collection, row_id(&candidate.row)), candidate.keep.clone()))
        .collect();
    let mut by_parent: HashMap<&(usize, Vec<u8>), Vec<&Reference>> = HashMap::new();
    for reference in references {
        by_parent.entry(&reference.parent).or_default().push(reference);
    }
    let group_of = |candidate: &Candidate| groups.get(candidate.collection).copied().unwrap_or(candidate.collection);
    let mut order: Vec<Candidate> = candidates;
    order.sort_by_key(|candidate| candidate.collection);
    let mut gone = Gone::default();
    let mut decisions = Vec::with_capacity(order.len());
    let mut component = 0;
    for group in order.chunk_by(|one, next| group_of(one) == group_of(next)) {
        let (mut verdicts, parents) = verdicts_of(group, &own, &by_parent, &gone);
        let children = children_within(&parents, &verdicts);
        let mut parts = components(&children);
        let too_large: Vec<usize> =
            parts.iter().filter(|part| part.len() > MAX_CIRCLE_ROWS).flatten().copied().collect();
        if !too_large.is_empty() {
            for at in &too_large {
                verdicts[*at] = Verdict::Keep(Reason::Circle);
            }
            stay_with(too_large, &parents, &mut verdicts);
            parts = components(&children_within(&parents, &verdicts));
        }
        for part in parts {
            for at in part {
                let Candidate { collection, row, .. } = group[at].clone();
                match verdicts[at] {
                    Verdict::Erase => drop(gone.erased.insert((collection, row_id(&row)))),
                    Verdict::Anonymise | Verdict::Settled => drop(gone.anonymised.insert((collection, row_id(&row)))),
                    Verdict::Strip(_) | Verdict::Keep(_) => {}
                }
                decisions.push(Decision { collection, row, verdict: verdicts[at].clone(), component });
            }
            component += 1;
        }
    }
    decisions
}

/// A row of the group that another of it refers to.
#[derive(Clone, Copy)]
struct Above {
    parent: usize,
    leads: bool,
    is_cut: bool,
}

/// The verdicts of one group's candidates, and for each the rows of the group that it refers to. Rows of the group may refer
/// to each other in any order: those that go together do not hold each other, and one that stays holds the one it refers to.
fn verdicts_of(
    group: &[Candidate],
    own: &HashMap<(usize, Vec<u8>), Option<Reason>>,
    by_parent: &HashMap<&(usize, Vec<u8>), Vec<&Reference>>,
    gone: &Gone,
) -> (Vec<Verdict>, Vec<Vec<Above>>) {
    let ids: Vec<(usize, Vec<u8>)> =
        group.iter().map(|candidate| (candidate.collection, row_id(&candidate.row))).collect();
    let index: HashMap<&(usize, Vec<u8>), usize> = ids.iter().enumerate().map(|(at, id)| (id, at)).collect();
    let mut verdicts = vec![Verdict::Erase; group.len()];
    let mut parents: Vec<Vec<Above>> = vec![Vec::new(); group.len()];
    for (at, candidate) in group.iter().enumerate() {
        let inherited = candidate.follows.as_ref().and_then(|anchor| own.get(anchor).cloned().flatten());
        verdicts[at] = match (candidate.end, candidate.keep.clone().or(inherited)) {
            (End::Settled, _) => Verdict::Settled,
            (_, Some(reason)) => Verdict::Keep(reason),
            (End::Anonymise, None) => Verdict::Anonymise,
            (End::Erase, None) => Verdict::Erase,
        };
        for reference in by_parent.get(&ids[at]).into_iter().flatten() {
            let (leads, is_cut) = (reference.leads, reference.is_cut);
            let reason = match &reference.child {
                ReferringRow::Unregistered(table) => Reason::UnregisteredChild(table.clone()),
                ReferringRow::Registered(collection, key) => {
                    let id = (*collection, key.clone());
                    if let Some(child) = index.get(&id) {
                        parents[*child].push(Above { parent: at, leads, is_cut });
                        continue;
                    }
                    let lets_go = is_cut || verdicts[at] == Verdict::Anonymise;
                    if gone.erased.contains(&id) || (lets_go && gone.anonymised.contains(&id)) {
                        continue;
                    }
                    Reason::KeptChild
                }
            };
            hold_back(&mut verdicts[at], leads, reason);
        }
    }
    let staying = (0..group.len()).filter(|at| verdicts[*at] != Verdict::Erase).collect();
    stay_with(staying, &parents, &mut verdicts);
    (verdicts, parents)
}

/// What becomes of a row because a row that refers to it stays; whether it changed.
fn hold_back(verdict: &mut Verdict, leads: bool, reason: Reason) -> bool {
    *verdict = match verdict {
        Verdict::Erase => Verdict::Strip(reason),
        Verdict::Anonymise if leads => Verdict::Keep(reason),
        _ => return false,
    };
    true
}

/// Rows that those which stay refer to stay as well.
fn stay_with(mut staying: Vec<usize>, parents: &[Vec<Above>], verdicts: &mut [Verdict]) {
    while let Some(child) = staying.pop() {
        let is_anonymised = matches!(verdicts[child], Verdict::Anonymise | Verdict::Settled);
        for above in &parents[child] {
            let lets_go = is_anonymised && (above.is_cut || verdicts[above.parent] == Verdict::Anonymise);
            if !lets_go && hold_back(&mut verdicts[above.parent], above.leads, Reason::KeptChild) {
                staying.push(above.parent);
            }
        }
    }
}

/// For each row of a group, the rows that refer to it and go with it: a batch must not meet a row whose referring row goes
/// only later.
fn children_within(parents: &[Vec<Above>], verdicts: &[Verdict]) -> Vec<Vec<usize>> {
    let mut children = vec![Vec::new(); parents.len()];
    for (child, above) in parents.iter().enumerate().filter(|(child, _)| verdicts[*child] == Verdict::Erase) {
        for above in above.iter().filter(|above| verdicts[above.parent] == Verdict::Erase) {
            children[above.parent].push(child);
        }
    }
    children
}

fn row_id(row: &PlannedRow) -> Vec<u8> {
    encode_values(&row.key.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{RowKey, Value};
    use proptest::prelude::*;

    const LINES: usize = 0;
    const ORDERS: usize = 1;
    const CUSTOMERS: usize = 2;

    fn candidate(collection: usize, key: i64, keep: Option<Reason>) -> Candidate {
        let row = PlannedRow {
            key: RowKey(vec![Value::Integer(key)]),
            subject: None,
            start: None,
            period: "open".to_owned(),
        };
        Candidate { collection, row, end: End::Erase, keep, follows: None }
    }

    fn id(collection: usize, key: i64) -> (usize, Vec<u8>) {
        (collection, encode_values(&[Value::Integer(key)]))
    }

    fn refers(parent: (usize, Vec<u8>), child: (usize, Vec<u8>)) -> Reference {
        Reference { parent, child: ReferringRow::Registered(child.0, child.1), leads: true, is_cut: false }
    }

    fn verdict(decisions: &[Decision], collection: usize, key: i64) -> &Verdict {
        let wanted = RowKey(vec![Value::Integer(key)]);
        &decisions.iter().find(|d| d.collection == collection && d.row.key == wanted).unwrap().verdict
    }

    #[test]
    fn a_kept_order_keeps_its_lines_and_strips_its_customer() {
        let statute = Reason::Statute("cn.ecl.31".to_owned());
        let mut line = candidate(LINES, 7, None);
        line.follows = Some(id(ORDERS, 1));
        let candidates = vec![
            candidate(CUSTOMERS, 5, None),
            candidate(ORDERS, 1, Some(statute.clone())),
            candidate(ORDERS, 2, None),
            line,
        ];
        let references = [
            refers(id(CUSTOMERS, 5), id(ORDERS, 1)),
            refers(id(CUSTOMERS, 5), id(ORDERS, 2)),
            refers(id(ORDERS, 1), id(LINES, 7)),
        ];
        let decisions = decide(candidates, &references, &[]);
        assert_eq!(verdict(&decisions, LINES, 7), &Verdict::Keep(statute));
        assert_eq!(verdict(&decisions, ORDERS, 2), &Verdict::Erase);
        assert_eq!(verdict(&decisions, CUSTOMERS, 5), &Verdict::Strip(Reason::KeptChild));
    }

    #[test]
    fn a_child_that_is_not_due_or_not_registered_leaves_its_parent_stripped() {
        let not_due = [refers(id(CUSTOMERS, 5), id(ORDERS, 9))];
        let decisions = decide(vec![candidate(CUSTOMERS, 5, None)], &not_due, &[]);
        assert_eq!(verdict(&decisions, CUSTOMERS, 5), &Verdict::Strip(Reason::KeptChild));
        // What must stay on its own account stays whole.
        let held = Reason::Hold("h".to_owned());
        let decisions = decide(vec![candidate(CUSTOMERS, 5, Some(held.clone()))], &not_due, &[]);
        assert_eq!(verdict(&decisions, CUSTOMERS, 5), &Verdict::Keep(held));
        let child = ReferringRow::Unregistered("loyalty".to_owned());
        let unknown = [Reference { parent: id(CUSTOMERS, 5), child, leads: true, is_cut: false }];
        let decisions = decide(vec![candidate(CUSTOMERS, 5, None)], &unknown, &[]);
        assert_eq!(verdict(&decisions, CUSTOMERS, 5), &Verdict::Strip(Reason::UnregisteredChild("loyalty".to_owned())));
    }

    #[test]
    fn a_thread_goes_together_children_first_or_stays_from_the_kept_reply_up() {
        let thread = |kept: Option<i64>| {
            let keep = |key| (kept == Some(key)).then(|| Reason::Hold("h".to_owned()));
            let rows = (1..=4).map(|key| candidate(LINES, key, keep(key))).collect();
            // 1 <- 2 <- 3, and 4 stands for itself.
            let references =
                [(1, 2), (2, 3), (4, 4)].map(|(parent, child)| refers(id(LINES, parent), id(LINES, child)));
            decide(rows, &references, &[])
        };
        let decisions = thread(None);
        assert!(decisions.iter().all(|d| d.verdict == Verdict::Erase));
        let place = |key| decisions.iter().position(|d| d.row.key == RowKey(vec![Value::Integer(key)])).unwrap();
        assert!(place(3) < place(2) && place(2) < place(1));
        let decisions = thread(Some(2));
        assert_eq!(verdict(&decisions, LINES, 1), &Verdict::Strip(Reason::KeptChild));
        assert_eq!(verdict(&decisions, LINES, 3), &Verdict::Erase);
        assert_eq!(verdict(&decisions, LINES, 4), &Verdict::Erase);
    }

    #[test]
    fn a_circle_over_two_collections_goes_as_one_and_stays_as_one() {
        let kept = |kept: Option<i64>| {
            let keep = |key| (kept == Some(key)).then(|| Reason::Hold("h".to_owned()));
            // orders 1 -> customers 1 -> orders 1; lines 1 -> orders 1; customers 2 -> orders 1.
            let rows = vec![
                candidate(LINES, 1, keep(10)),
                candidate(ORDERS, 1, None),
                candidate(CUSTOMERS, 1, None),
                candidate(CUSTOMERS, 2, keep(2)),
            ];
            let references = [
                refers(id(ORDERS, 1), id(LINES, 1)),
                refers(id(CUSTOMERS, 1), id(ORDERS, 1)),
                refers(id(ORDERS, 1), id(CUSTOMERS, 1)),
                refers(id(ORDERS, 1), id(CUSTOMERS, 2)),
            ];
            decide(rows, &references, &[0, 1, 1])
        };
        let gone = kept(None);
        assert!(gone.iter().all(|d| d.verdict == Verdict::Erase));
        let component = |collection, key: i64| {
            let found = |d: &&Decision| d.collection == collection && d.row.key == RowKey(vec![Value::Integer(key)]);
            gone.iter().find(found).unwrap().component
        };
        assert_eq!(component(ORDERS, 1), component(CUSTOMERS, 1));
        assert!(component(LINES, 1) < component(ORDERS, 1) && component(CUSTOMERS, 2) < component(ORDERS, 1));
        for one in [2, 10] {
            let stays = kept(Some(one));
            assert_eq!(verdict(&stays, ORDERS, 1), &Verdict::Strip(Reason::KeptChild));
            assert_eq!(verdict(&stays, CUSTOMERS, 1), &Verdict::Strip(Reason::KeptChild));
        }
    }

    #[test]
    fn a_circle_that_is_too_large_for_one_transaction_stays() {
        let size = MAX_CIRCLE_ROWS as i64 + 1;
        let rows = (0..size).map(|key| candidate(LINES, key, None)).chain([candidate(LINES, size, None)]).collect();
        let references: Vec<Reference> =
            (0..size).map(|key| refers(id(LINES, key), id(LINES, (key + 1) % size))).collect();
        let decisions = decide(rows, &references, &[]);
        assert_eq!(verdict(&decisions, LINES, 7), &Verdict::Keep(Reason::Circle));
        assert_eq!(verdict(&decisions, LINES, size), &Verdict::Erase);
    }

    #[test]
    fn a_row_is_anonymised_only_with_all_that_leads_to_its_subject_over_it() {
        let of = |end, keep| {
            let line = Candidate { end, follows: Some(id(ORDERS, 1)), ..candidate(LINES, 1, keep) };
            let other = Candidate { end: End::Anonymise, follows: Some(id(ORDERS, 1)), ..candidate(LINES, 2, None) };
            vec![line, other, Candidate { end: End::Anonymise, ..candidate(ORDERS, 1, None) }]
        };
        let references = [refers(id(ORDERS, 1), id(LINES, 1)), refers(id(ORDERS, 1), id(LINES, 2))];
        for end in [End::Anonymise, End::Settled, End::Erase] {
            let together = decide(of(end, None), &references, &[]);
            assert_eq!(verdict(&together, ORDERS, 1), &Verdict::Anonymise, "{end:?}");
            assert_eq!(verdict(&together, LINES, 2), &Verdict::Anonymise, "{end:?}");
        }
        // A held line keeps its order as it is, and so the other line, which would lead to its subject over the order.
        let held = decide(of(End::Anonymise, Some(Reason::Hold("h".to_owned()))), &references, &[]);
        assert_eq!(verdict(&held, ORDERS, 1), &Verdict::Keep(Reason::KeptChild));
        assert_eq!(verdict(&held, LINES, 2), &Verdict::Keep(Reason::KeptParent));
        // What does not lead to its subject over the order holds nothing back.
        let aside = references.clone().map(|reference| Reference { leads: false, ..reference });
        let held = decide(of(End::Anonymise, Some(Reason::Hold("h".to_owned()))), &aside, &[]);
        assert_eq!(verdict(&held, ORDERS, 1), &Verdict::Anonymise);
    }

    #[test]
    fn an_erased_row_lets_go_of_an_anonymised_one_only_when_that_cuts_the_reference() {
        for (is_cut, expected) in [(true, Verdict::Erase), (false, Verdict::Strip(Reason::KeptChild))] {
            for groups in [&[0, 1, 2], &[0, 0, 0]] {
                let rows = vec![
                    Candidate { end: End::Anonymise, ..candidate(ORDERS, 1, None) },
                    candidate(CUSTOMERS, 1, None),
                ];
                let references = [Reference { is_cut, ..refers(id(CUSTOMERS, 1), id(ORDERS, 1)) }];
                let decided = decide(rows, &references, groups);
                assert_eq!(verdict(&decided, CUSTOMERS, 1), &expected, "{groups:?}");
                assert_eq!(verdict(&decided, ORDERS, 1), &Verdict::Anonymise);
            }
        }
    }

    proptest! {
        #[test]
        fn no_erased_parent_has_a_staying_child(
            kept in proptest::collection::vec(any::<bool>(), 12),
            links in proptest::collection::vec((0usize..2, 0usize..2, 0i64..4, 0i64..5), 0..24),
        ) {
            let mut candidates = Vec::new();
            for collection in 0..3 {
                for key in 0..4 {
                    let keep = kept[collection * 4 + key as usize].then(|| Reason::Hold("h".to_owned()));
                    candidates.push(candidate(collection, key, keep));
                }
            }
            let references: Vec<Reference> =
                links.iter().map(|(child, up, parent_key, child_key)| refers(id(child + up, *parent_key), id(*child, *child_key))).collect();
            let decisions = decide(candidates, &references, &[]);
            prop_assert_eq!(decisions.len(), 12);
            let erased: HashSet<_> = decisions
                .iter()
                .filter(|d| d.verdict == Verdict::Erase)
                .map(|d| (d.collection, encode_values(&d.row.key.0)))
                .collect();
            for reference in &references {
                let ReferringRow::Registered(collection, key) = &reference.child else { unreachable!() };
                prop_assert!(!erased.contains(&reference.parent) || erased.contains(&(*collection, key.clone())));
            }
        }
    }
}
