//! Verdicts: from surveyed rows to what will become of each.

use std::collections::{HashMap, HashSet};

use super::{Decision, PlannedRow, Reason, Verdict};
use crate::value::encode_values;

/// A due row with what its own policy, statutes and holds say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Index of the collection in the model.
    pub collection: usize,
    /// The row.
    pub row: PlannedRow,
    /// Why it must stay on its own account, if it must.
    pub keep: Option<Reason>,
    /// The row it follows (collection index, encoded key): what stays there stays here.
    pub follows: Option<(usize, Vec<u8>)>,
}

/// A row that refers to a candidate from below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The parent: collection index and encoded key.
    pub parent: (usize, Vec<u8>),
    /// The child.
    pub child: ReferringRow,
}

/// Which row refers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferringRow {
    /// A row of a registered collection: its index and encoded key.
    Registered(usize, Vec<u8>),
    /// Some row of a table that is not registered.
    Unregistered(String),
}

/// Decides all candidates. A row that is due but that a row which stays refers to stays too, stripped to its minimum: nothing
/// but the reference needs it. Collections are numbered children before parents, and the result keeps that order.
#[must_use]
pub fn decide(candidates: Vec<Candidate>, references: &[Reference]) -> Vec<Decision> {
    let own: HashMap<(usize, Vec<u8>), Option<Reason>> = candidates
        .iter()
        .map(|candidate| ((candidate.collection, row_id(&candidate.row)), candidate.keep.clone()))
        .collect();
    let mut by_parent: HashMap<&(usize, Vec<u8>), Vec<&ReferringRow>> = HashMap::new();
    for reference in references {
        by_parent.entry(&reference.parent).or_default().push(&reference.child);
    }
    let mut order: Vec<Candidate> = candidates;
    order.sort_by_key(|candidate| candidate.collection);
    let mut erased: HashSet<(usize, Vec<u8>)> = HashSet::new();
    let mut decisions = Vec::with_capacity(order.len());
    for group in order.chunk_by(|one, next| one.collection == next.collection) {
        let verdicts = verdicts_of(group, &own, &by_parent, &erased);
        for (candidate, verdict) in group.iter().zip(&verdicts) {
            if *verdict == Verdict::Erase {
                erased.insert((candidate.collection, row_id(&candidate.row)));
            }
        }
        for at in children_first(group, &by_parent) {
            let Candidate { collection, row, .. } = group[at].clone();
            decisions.push(Decision { collection, row, verdict: verdicts[at].clone() });
        }
    }
    decisions
}

/// The verdicts of one collection's candidates. Rows of the collection may refer to each other in any order: those that go
/// together do not hold each other, and one that stays holds the one it refers to.
fn verdicts_of(
    group: &[Candidate],
    own: &HashMap<(usize, Vec<u8>), Option<Reason>>,
    by_parent: &HashMap<&(usize, Vec<u8>), Vec<&ReferringRow>>,
    erased: &HashSet<(usize, Vec<u8>)>,
) -> Vec<Verdict> {
    let ids: Vec<(usize, Vec<u8>)> =
        group.iter().map(|candidate| (candidate.collection, row_id(&candidate.row))).collect();
    let index: HashMap<&(usize, Vec<u8>), usize> = ids.iter().enumerate().map(|(at, id)| (id, at)).collect();
    let mut verdicts = vec![Verdict::Erase; group.len()];
    let mut parents: Vec<Vec<usize>> = vec![Vec::new(); group.len()];
    for (at, candidate) in group.iter().enumerate() {
        let inherited = candidate.follows.as_ref().and_then(|anchor| own.get(anchor).cloned().flatten());
        if let Some(reason) = candidate.keep.clone().or(inherited) {
            verdicts[at] = Verdict::Keep(reason);
            continue;
        }
        for child in by_parent.get(&ids[at]).into_iter().flatten() {
            let reason = match child {
                ReferringRow::Unregistered(table) => Reason::UnregisteredChild(table.clone()),
                ReferringRow::Registered(collection, key) => {
                    let id = (*collection, key.clone());
                    if let Some(child) = index.get(&id) {
                        parents[*child].push(at);
                        continue;
                    }
                    if erased.contains(&id) {
                        continue;
                    }
                    Reason::KeptChild
                }
            };
            if verdicts[at] == Verdict::Erase {
                verdicts[at] = Verdict::Strip(reason);
            }
        }
    }
    let mut staying: Vec<usize> = (0..group.len()).filter(|at| verdicts[*at] != Verdict::Erase).collect();
    while let Some(child) = staying.pop() {
        for parent in &parents[child] {
            if verdicts[*parent] == Verdict::Erase {
                verdicts[*parent] = Verdict::Strip(Reason::KeptChild);
                staying.push(*parent);
            }
        }
    }
    verdicts
}

/// The order in which one collection's rows go: those that refer to others first, so that a batch never meets a row whose
/// referring row goes only later. Rows in a circle come last.
fn children_first(group: &[Candidate], by_parent: &HashMap<&(usize, Vec<u8>), Vec<&ReferringRow>>) -> Vec<usize> {
    let ids: Vec<(usize, Vec<u8>)> =
        group.iter().map(|candidate| (candidate.collection, row_id(&candidate.row))).collect();
    let index: HashMap<&(usize, Vec<u8>), usize> = ids.iter().enumerate().map(|(at, id)| (id, at)).collect();
    let mut waits_for = vec![0usize; group.len()];
    let mut parents: Vec<Vec<usize>> = vec![Vec::new(); group.len()];
    for (at, id) in ids.iter().enumerate() {
        for child in by_parent.get(id).into_iter().flatten() {
            if let ReferringRow::Registered(collection, key) = child
                && let Some(child) = index.get(&(*collection, key.clone()))
                && *child != at
            {
                waits_for[at] += 1;
                parents[*child].push(at);
            }
        }
    }
    let mut order: Vec<usize> = (0..group.len()).filter(|at| waits_for[*at] == 0).collect();
    let mut next = 0;
    while let Some(child) = order.get(next).copied() {
        next += 1;
        for parent in &parents[child] {
            waits_for[*parent] -= 1;
            if waits_for[*parent] == 0 {
                order.push(*parent);
            }
        }
    }
    order.extend((0..group.len()).filter(|at| waits_for[*at] > 0));
    order
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
        Candidate { collection, row, keep, follows: None }
    }

    fn id(collection: usize, key: i64) -> (usize, Vec<u8>) {
        (collection, encode_values(&[Value::Integer(key)]))
    }

    fn refers(parent: (usize, Vec<u8>), child: (usize, Vec<u8>)) -> Reference {
        Reference { parent, child: ReferringRow::Registered(child.0, child.1) }
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
        let decisions = decide(candidates, &references);
        assert_eq!(verdict(&decisions, LINES, 7), &Verdict::Keep(statute));
        assert_eq!(verdict(&decisions, ORDERS, 2), &Verdict::Erase);
        assert_eq!(verdict(&decisions, CUSTOMERS, 5), &Verdict::Strip(Reason::KeptChild));
    }

    #[test]
    fn a_child_that_is_not_due_or_not_registered_leaves_its_parent_stripped() {
        let not_due = [refers(id(CUSTOMERS, 5), id(ORDERS, 9))];
        let decisions = decide(vec![candidate(CUSTOMERS, 5, None)], &not_due);
        assert_eq!(verdict(&decisions, CUSTOMERS, 5), &Verdict::Strip(Reason::KeptChild));
        // What must stay on its own account stays whole.
        let held = Reason::Hold("h".to_owned());
        let decisions = decide(vec![candidate(CUSTOMERS, 5, Some(held.clone()))], &not_due);
        assert_eq!(verdict(&decisions, CUSTOMERS, 5), &Verdict::Keep(held));
        let unknown = [Reference { parent: id(CUSTOMERS, 5), child: ReferringRow::Unregistered("loyalty".to_owned()) }];
        let decisions = decide(vec![candidate(CUSTOMERS, 5, None)], &unknown);
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
            decide(rows, &references)
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
            let decisions = decide(candidates, &references);
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
