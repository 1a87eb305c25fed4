use chrono::TimeZone as _;
use proptest::prelude::*;

use super::*;
use crate::plan::PlannedRow;
use crate::plan::model::Reach;
use crate::stores::{ColumnKind, ColumnRef};
use crate::value::{RowKey, Value};

fn policy(more: &str) -> Policy {
    let text = format!(
        "id = \"p\"\ncollections = [\"a\", \"b\"]\nretention = \"3 years\"\nstart = \"ended\"\naction = \"delete\"\n\
         basis = \"contract\"\n{more}"
    );
    toml::from_str(&text).unwrap()
}

fn governed(policy: Policy) -> Governed {
    let column = ColumnRef::own("ended");
    Governed {
        policy,
        statutes: Vec::new(),
        start: Reach { path: Vec::new(), column, kind: ColumnKind::Date, when: Vec::new() },
        follows: None,
    }
}

fn at(hours: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_800_000_000 + hours * 3600, 0).unwrap()
}

fn place() -> (String, String) {
    ("shop".to_owned(), "a".to_owned())
}

/// Runs, newest first, that did something in a collection under these definitions.
fn past(runs: &[(i64, &str)]) -> Vec<Past> {
    let run = |(hours, name): &(i64, &str)| {
        let definitions = if name.is_empty() { vec![] } else { vec![(place(), (*name).to_owned())] };
        Past { ended_at: at(*hours), definitions: definitions.into_iter().collect() }
    };
    runs.iter().map(run).collect()
}

#[test]
fn only_what_decides_which_rows_go_makes_another_definition() {
    let one = definition(&governed(policy(""))).unwrap();
    for same in [
        "max = { rows = 5, percent = 1 }",
        "approval = \"two\"",
        "grace = \"0\"",
        "bucket = \"month\"",
        "canary = { percent = 100 }",
    ] {
        assert_eq!(definition(&governed(policy(same))).unwrap(), one, "{same}");
    }
    let mut renamed = policy("");
    (renamed.id, renamed.collections) = ("other".to_owned(), vec!["a".to_owned()]);
    assert_eq!(definition(&governed(renamed)).unwrap(), one);
    let edits: [fn(&mut Policy); 3] = [
        |policy| policy.retention = "2 years".parse().unwrap(),
        |policy| policy.start = "begun".to_owned(),
        |policy| policy.action = crate::policy::registry::Action::Anonymise,
    ];
    for edit in edits {
        let mut other = policy("");
        edit(&mut other);
        assert_ne!(definition(&governed(other)).unwrap(), one);
    }
}

#[test]
fn an_edit_begins_with_a_share_and_counts_when_that_was_there_for_long_enough() {
    let canary = Canary::default();
    let standing = |runs: &[(i64, &str)], now| super::standing((canary, "new"), &place(), &past(runs), at(now));
    let tried = |hours| Standing::Tried { until: at(hours) };
    // A policy that never did anything there is new; its first backlog is what the cap is for.
    assert_eq!(standing(&[], 100), Standing::Established);
    assert_eq!(standing(&[(90, "new"), (0, "new")], 100), Standing::Established);
    assert_eq!(standing(&[(90, "old")], 100), Standing::Edited);
    assert_eq!(standing(&[(90, "new"), (60, "old")], 100), tried(110));
    assert_eq!(standing(&[(90, "new"), (60, "old")], 110), Standing::Established);
    // It counts from the first run under the new definition; runs that did nothing by the policy say nothing.
    assert_eq!(standing(&[(99, ""), (95, "new"), (90, "new"), (70, ""), (60, "old")], 109), tried(110));
    // What was taken back to an earlier definition is another edit.
    assert_eq!(standing(&[(90, "old"), (60, "new")], 100), Standing::Edited);
    let at_once = Canary { percent: 100, ..canary };
    let past = past(&[(90, "old")]);
    assert_eq!(super::standing((at_once, "new"), &place(), &past, at(100)), Standing::Established);
    // Another collection of the policy has a history of its own.
    let other = ("shop".to_owned(), "b".to_owned());
    assert_eq!(super::standing((canary, "new"), &other, &past, at(100)), Standing::Established);
}

fn candidates(owners: &[u8]) -> Vec<Candidate> {
    let candidate = |(at, owner): (usize, &u8)| {
        let key = RowKey(vec![Value::Integer(at as i64)]);
        let row = PlannedRow { key, subject: None, start: None, period: owner.to_string() };
        Candidate { collection: usize::from(owner % 2), row, end: End::Erase, keep: None, follows: None }
    };
    owners.iter().enumerate().map(candidate).collect()
}

fn rank(candidate: &Candidate) -> [u8; 32] {
    [candidate.row.period.parse().unwrap(); 32]
}

proptest! {
    #[test]
    fn the_first_share_takes_whole_customers_and_no_more_than_it_may(
        owners in prop::collection::vec(0_u8..40, 0..400), rows in 0_u64..60, percent in 0_u8..99,
    ) {
        prop_assume!(rows > 0 || percent > 0);
        let canary = Canary { rows, percent, hours: 20 };
        // Every customer with an even number has rows in collection 0, which is the policy's; others are no business of it.
        let mut held = candidates(&owners);
        hold_back(&mut held, (canary, Standing::Edited), |row| row.collection == 0, rank);
        let (own, others): (Vec<_>, Vec<_>) = held.iter().partition(|candidate| candidate.collection == 0);
        prop_assert!(others.iter().all(|candidate| candidate.keep.is_none()));
        let going = own.iter().filter(|candidate| candidate.keep.is_none()).count() as u64;
        let share = rows.max(own.len() as u64 * u64::from(percent) / 100).max(1);
        let mut by_owner: BTreeMap<[u8; 32], Vec<bool>> = BTreeMap::new();
        for candidate in &own {
            by_owner.entry(rank(candidate)).or_default().push(candidate.keep.is_none());
        }
        prop_assert!(by_owner.values().all(|goes| goes.iter().all(|one| *one == goes[0])), "customers go whole");
        let first = by_owner.values().next().map_or(0, Vec::len) as u64;
        prop_assert!(going <= share.max(first) && (own.is_empty() || going > 0), "{going} of {}", own.len());
        if own.len() as u64 <= share {
            prop_assert_eq!(going, own.len() as u64);
        }
        // Behind it nothing goes until the time is there.
        let until = at(5);
        let mut later = candidates(&owners);
        hold_back(&mut later, (canary, Standing::Tried { until }), |row| row.collection == 0, rank);
        let kept = Some(Reason::Canary { until: Some(until) });
        prop_assert!(later.iter().all(|candidate| candidate.collection == 1 || candidate.keep == kept));
    }
}

#[test]
fn what_stays_for_another_reason_keeps_that_and_does_not_count() {
    let mut rows = candidates(&[0, 2, 4, 6]);
    rows[0].keep = Some(Reason::KeptParent);
    rows[1].end = End::Settled;
    hold_back(&mut rows, (Canary { rows: 1, percent: 0, hours: 1 }, Standing::Edited), |_| true, rank);
    let kept: Vec<Option<Reason>> = rows.into_iter().map(|row| row.keep).collect();
    assert_eq!(kept, [Some(Reason::KeptParent), None, None, Some(Reason::Canary { until: None })]);
}
