use super::*;
use proptest::prelude::*;

const ZONE: Tz = chrono_tz::Asia::Shanghai;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn chain(begun: &[&str]) -> ChainFacts {
    ChainFacts { begun: begun.iter().map(|text| at(text)).collect(), needs: BTreeSet::new() }
}

fn some(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

fn reasons(chains: &[ChainFacts], keep: Keep) -> Vec<Vec<Stays>> {
    let found = judge(chains, &keep, ZONE, at("2026-03-15T02:00:00Z"));
    found.into_iter().map(|of| of.into_iter().collect()).collect()
}

#[test]
fn every_rule_names_the_newest_of_its_periods() {
    let chains = [
        chain(&["2024-12-31T15:59:00Z"]),
        // Already 2025 in Shanghai.
        chain(&["2024-12-31T16:01:00Z"]),
        chain(&["2026-01-20T00:00:00Z"]),
        chain(&["2026-03-02T00:00:00Z"]),
        chain(&["2026-03-08T00:00:00Z"]),
        chain(&["2026-03-14T01:00:00Z", "2026-03-14T20:00:00Z"]),
        chain(&["2026-03-14T21:00:00Z"]),
    ];
    let found = reasons(&chains, Keep { yearly: some(3), ..Keep::default() });
    assert_eq!(found[0], [Stays::Yearly]);
    assert_eq!(found[1], [Stays::Yearly]);
    assert_eq!(found[6], [Stays::Newest, Stays::Yearly]);
    assert!(found[2..6].iter().all(Vec::is_empty));
    let found = reasons(&chains, Keep { monthly: some(2), ..Keep::default() });
    assert_eq!((&found[2], &found[6]), (&vec![Stays::Monthly], &vec![Stays::Newest, Stays::Monthly]));
    assert!([0, 1, 3, 4, 5].iter().all(|number| found[*number].is_empty()));
    // Weeks begin on Monday: 2 March is one, 8 March is its Sunday.
    let found = reasons(&chains, Keep { weekly: some(2), ..Keep::default() });
    assert_eq!((&found[3], &found[4]), (&vec![], &vec![Stays::Weekly]));
    // 20:00 and 21:00 UTC are the same day, the 15th, in Shanghai; 01:00 UTC is the 14th, of the same chain.
    let found = reasons(&chains, Keep { daily: some(2), ..Keep::default() });
    assert_eq!((&found[5], &found[6]), (&vec![Stays::Daily], &vec![Stays::Newest, Stays::Daily]));
    let found = reasons(&chains, Keep { last: some(2), ..Keep::default() });
    assert_eq!((&found[4], &found[5]), (&vec![], &vec![Stays::Last]));
    let found = reasons(&chains, Keep { days: some(7), ..Keep::default() });
    assert_eq!((&found[3], &found[4]), (&vec![], &vec![]));
    let found = reasons(&chains, Keep { days: some(8), ..Keep::default() });
    assert_eq!((&found[3], &found[4]), (&vec![], &vec![Stays::Days]));
}

#[test]
fn no_rule_keeps_all() {
    let found = reasons(&[chain(&["2001-01-01T00:00:00Z"]), chain(&["2026-01-01T00:00:00Z"])], Keep::default());
    assert_eq!(found, [vec![Stays::NoRule], vec![Stays::NoRule, Stays::Newest]]);
}

fn any_rule() -> impl Strategy<Value = Option<NonZeroU32>> {
    prop_oneof![Just(None), (1..6u32).prop_map(NonZeroU32::new)]
}

fn any_keep() -> impl Strategy<Value = Keep> {
    (any_rule(), any_rule(), any_rule(), any_rule(), any_rule(), any_rule())
        .prop_map(|(last, days, daily, weekly, monthly, yearly)| Keep { last, days, daily, weekly, monthly, yearly })
}

fn any_chains() -> impl Strategy<Value = Vec<ChainFacts>> {
    let instant = (0..900i64 * 24).prop_map(|hours| at("2024-01-01T00:30:00Z") + TimeDelta::hours(hours));
    let needs = prop_oneof![4 => Just(None), 1 => Just(Some(Stays::Hold)), 1 => Just(Some(Stays::Pin))];
    let chain = (proptest::collection::vec(instant, 1..5), needs)
        .prop_map(|(begun, need)| ChainFacts { begun, needs: need.into_iter().collect() });
    proptest::collection::vec(chain, 0..12)
}

fn staying(chains: &[ChainFacts], keep: &Keep, now: DateTime<Utc>) -> Vec<usize> {
    let found = judge(chains, keep, ZONE, now);
    (0..chains.len()).filter(|number| !found[*number].is_empty()).collect()
}

proptest! {
    #[test]
    fn what_must_stay_stays(chains in any_chains(), keep in any_keep(), hours in 0..1000i64 * 24) {
        let now = at("2024-01-01T00:00:00Z") + TimeDelta::hours(hours);
        let stays = staying(&chains, &keep, now);
        for (number, chain) in chains.iter().enumerate() {
            let is_newest = chains.iter().all(|other| other.begun.iter().max() <= chain.begun.iter().max());
            let is_last = chains.iter().rposition(|other| other.begun.iter().max() == chain.begun.iter().max());
            if !chain.needs.is_empty() || (is_newest && is_last == Some(number)) || keep.is_empty() {
                prop_assert!(stays.contains(&number));
            }
        }
    }

    #[test]
    fn more_rules_and_needs_never_make_a_chain_go(
        chains in any_chains(), keep in any_keep(), more in any_keep(), needed in any::<prop::sample::Index>(), hours in 0..1000i64 * 24
    ) {
        let now = at("2024-01-01T00:00:00Z") + TimeDelta::hours(hours);
        prop_assume!(!keep.is_empty());
        let before = staying(&chains, &keep, now);
        let larger = Keep {
            last: keep.last.max(more.last),
            days: keep.days.max(more.days),
            daily: keep.daily.max(more.daily),
            weekly: keep.weekly.max(more.weekly),
            monthly: keep.monthly.max(more.monthly),
            yearly: keep.yearly.max(more.yearly),
        };
        let mut richer = chains.clone();
        if !richer.is_empty() {
            let number = needed.index(richer.len());
            richer[number].needs.insert(Stays::InUse);
        }
        let after = staying(&richer, &larger, now);
        prop_assert!(before.iter().all(|number| after.contains(number)));
    }

    #[test]
    fn deciding_again_on_what_is_left_leaves_it(chains in any_chains(), keep in any_keep(), hours in 0..1000i64 * 24) {
        let now = at("2024-01-01T00:00:00Z") + TimeDelta::hours(hours);
        let left: Vec<ChainFacts> = staying(&chains, &keep, now).into_iter().map(|number| chains[number].clone()).collect();
        prop_assert_eq!(staying(&left, &keep, now).len(), left.len());
    }

    #[test]
    fn each_rule_keeps_a_snapshot_of_each_of_its_newest_periods(chains in any_chains(), months in 1..6u32) {
        let keep = Keep { monthly: some(months), ..Keep::default() };
        let stays = staying(&chains, &keep, at("2026-06-01T00:00:00Z"));
        let month = |begun: &DateTime<Utc>| {
            let day = begun.with_timezone(&ZONE).date_naive();
            (day.year(), day.month())
        };
        let all: BTreeSet<_> = chains.iter().flat_map(|chain| &chain.begun).map(month).collect();
        let left: BTreeSet<_> = stays.iter().flat_map(|number| &chains[*number].begun).map(month).collect();
        for wanted in all.iter().rev().take(months as usize) {
            prop_assert!(left.contains(wanted));
        }
    }
}
