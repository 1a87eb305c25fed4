//! The rule that combines retention and statutes, and the checks of a policy against its statutes.

#[cfg(test)]
mod book;
#[cfg(test)]
mod changes;

use std::sync::LazyLock;

use super::check::{contradiction, retention_too_long, retention_too_short};
use super::rules::{PolicyRule, StatuteRule};
use super::*;
use crate::policy::calendar::BucketWidth;
use crate::policy::registry::{Action, Approval, Cap, Policy};
use proptest::prelude::*;

static BOOK: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::built_in().unwrap());

const SHANGHAI: Tz = Tz::Asia__Shanghai;

fn shanghai(day: &str) -> DateTime<Utc> {
    let text = format!("{day}+08:00");
    let text = if day.contains('T') { text } else { format!("{day}T00:00:00+08:00") };
    DateTime::parse_from_rfc3339(&text).unwrap().with_timezone(&Utc)
}

fn statutes(keys: &[&str]) -> Vec<Arc<Statute>> {
    keys.iter().map(|key| BOOK.find(key).unwrap().clone()).collect()
}

fn decided_by(key: &str) -> DecidedBy {
    DecidedBy::Statute(BOOK.find(key).unwrap().clone())
}

/// A statute that differs from `cn.ecl.31` in what it demands.
fn demanding(bound: LegalBound, start: StartRule, status: Status) -> Arc<Statute> {
    Arc::new(Statute { bound, start, status, ..Statute::clone(BOOK.find("cn.ecl.31").unwrap()) })
}

fn bounds_of(start: &str, retention: &str, keys: &[&str]) -> Bounds {
    bounds(shanghai(start), retention.parse().unwrap(), &statutes(keys), SHANGHAI).unwrap()
}

fn policy(retention: &str, keys: &[&str]) -> Policy {
    Policy {
        id: "orders-3y".to_owned(),
        collections: vec!["orders".to_owned()],
        retention: retention.parse().unwrap(),
        start: "completed_at".to_owned(),
        action: Action::Delete,
        anonymise: std::collections::BTreeMap::new(),
        quasi: Vec::new(),
        k: Policy::default_k(),
        small_groups: crate::policy::anonymise::SmallGroups::Keep,
        basis: "contract".to_owned(),
        statutes: keys.iter().map(|key| (*key).to_owned()).collect(),
        profile: None,
        records: None,
        grace: crate::policy::calendar::Grace::default(),
        bucket: BucketWidth::Quarter,
        max: Cap::default(),
        approval: Approval::None,
        canary: crate::policy::registry::Canary::default(),
    }
}

#[test]
fn voucher_counts_from_the_day_after_the_fiscal_year() {
    let bounds = bounds_of("2026-05-10T09:00:00", "1 day", &["cn.acct.voucher"]);
    assert_eq!(bounds.earliest, Earliest::At(shanghai("2057-01-01")));
    assert_eq!(bounds.decided_by, decided_by("cn.acct.voucher"));
    assert_eq!(bounds.verdict(shanghai("2056-12-31T23:59:59")), Verdict::Keep);
    assert_eq!(bounds.verdict(shanghai("2057-01-01")), Verdict::MayErase);
    let last_day = bounds_of("2026-12-31T23:59:59", "1 day", &["cn.acct.voucher"]);
    assert_eq!(last_day.earliest, Earliest::At(shanghai("2057-01-01")));
    let next_day = bounds_of("2027-01-01", "1 day", &["cn.acct.voucher"]);
    assert_eq!(next_day.earliest, Earliest::At(shanghai("2058-01-01")));
}

#[test]
fn order_of_2023_05_10_is_due_three_years_later() {
    let bounds = bounds_of("2023-05-10T14:30:00", "3 years", &["cn.ecl.31"]);
    assert_eq!(bounds.earliest, Earliest::At(shanghai("2026-05-10")));
    assert_eq!(bounds.decided_by, DecidedBy::Policy, "the policy decides when both end together");
    assert_eq!(bounds.verdict(shanghai("2026-05-09")), Verdict::Keep);
    assert_eq!(bounds.verdict(shanghai("2026-05-10")), Verdict::MayErase);
}

#[test]
fn the_longest_minimum_decides() {
    let bounds = bounds_of("2023-05-10", "3 years", &["cn.ecl.31", "cn.aml.tx", "cn.csl.log"]);
    assert_eq!(bounds.earliest, Earliest::At(shanghai("2033-05-10")));
    assert_eq!(bounds.decided_by, decided_by("cn.aml.tx"));
    let bounds = bounds_of("2023-05-10", "40 years", &["cn.med.in"]);
    assert_eq!((bounds.earliest, bounds.decided_by), (Earliest::At(shanghai("2063-05-10")), DecidedBy::Policy));
}

#[test]
fn permanent_records_never_go() {
    let bounds = bounds_of("1990-05-10", "3 years", &["cn.acct.annual"]);
    assert_eq!(bounds.earliest, Earliest::Never);
    assert_eq!(bounds.verdict(shanghai("9000-01-01")), Verdict::Keep);
}

#[test]
fn maxima_make_erasure_a_duty() {
    let bounds = bounds_of("2020-02-29", "3 years", &["cn.credit.16"]);
    assert_eq!(bounds.latest, Some((shanghai("2025-02-28"), statutes(&["cn.credit.16"])[0].clone())));
    assert!(!bounds.conflict());
    assert_eq!(bounds.verdict(shanghai("2023-02-28")), Verdict::Keep);
    assert_eq!(bounds.verdict(shanghai("2023-03-01")), Verdict::MayErase);
    assert_eq!(bounds.verdict(shanghai("2025-02-28")), Verdict::MayErase);
    assert_eq!(bounds.verdict(shanghai("2025-03-01")), Verdict::MustErase);
}

#[test]
fn a_contradiction_restricts() {
    let bounds = bounds_of("2020-05-10", "1 year", &["cn.credit.16", "cn.aml.tx"]);
    assert!(bounds.conflict());
    assert_eq!(bounds.verdict(shanghai("2026-01-01")), Verdict::Restrict);
    assert_eq!(bounds.verdict(shanghai("2030-05-09")), Verdict::Restrict);
    assert_eq!(bounds.verdict(shanghai("2030-05-11")), Verdict::MustErase);
}

#[test]
fn doubtful_entries_keep_but_never_destroy() {
    for status in [Status::Unconfirmed, Status::Partly, Status::Confirmed] {
        let maximum = demanding(LegalBound::Maximum(Period::of_years(1)), StartRule::Event, status);
        let minimum = demanding(LegalBound::Minimum(Period::of_years(9)), StartRule::Event, status);
        let found = bounds(shanghai("2020-01-01"), Period::of_years(3), &[maximum, minimum], SHANGHAI).unwrap();
        assert_eq!(found.earliest, Earliest::At(shanghai("2029-01-01")));
        let binds = status == Status::Confirmed;
        assert_eq!(found.latest.map(|(latest, _)| latest), binds.then(|| shanghai("2021-01-01")), "{status}");
    }
}

#[test]
fn short_retention_is_told_with_both_names() {
    let error = retention_too_short(&policy("2 years", &[]), &statutes(&["cn.ecl.31"])).unwrap();
    let text = error.to_string();
    for part in ["orders-3y", "2 years", "cn.ecl.31", "E-commerce Law 31", "at least 3 years"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    let cases = [
        ("3 years", "cn.ecl.31", false),
        ("36 months", "cn.ecl.31", false),
        ("35 months", "cn.ecl.31", true),
        ("1095 days", "cn.ecl.31", true),
        ("1096 days", "cn.ecl.31", false),
        ("35 months 31 days", "cn.ecl.31", false),
        ("35 months 30 days", "cn.ecl.31", true),
        ("183 days", "cn.csl.log", true),
        ("184 days", "cn.csl.log", false),
        ("9000 years", "cn.acct.annual", true),
        ("1 day", "cn.credit.16", false),
        ("1 day", "cn.pipl.19", false),
        ("10 years", "cn.tax.29", false),
        ("9 years", "cn.tax.29", true),
        ("1 year", "cn.wage.6", true),
    ];
    for (retention, key, too_short) in cases {
        let found = retention_too_short(&policy(retention, &[]), &statutes(&["cn.pipl.19", key]));
        let found = found.map(|found| found.statute.key.clone());
        assert_eq!(found.as_deref(), too_short.then_some(key), "{retention} against {key}");
    }
}

#[test]
fn a_retention_beyond_a_confirmed_maximum_is_found() {
    let cases = [("5 years", false), ("61 months", true), ("1825 days", false), ("1826 days", true), ("6 years", true)];
    for (retention, too_long) in cases {
        let found = retention_too_long(&policy(retention, &[]), &statutes(&["cn.ecl.31", "cn.credit.16"]));
        assert_eq!(found.map(|found| found.statute.key.clone()).is_some(), too_long, "{retention}");
    }
    let error = retention_too_long(&policy("6 years", &[]), &statutes(&["cn.credit.16"])).unwrap().to_string();
    for part in ["orders-3y", "6 years", "cn.credit.16", "Credit Reporting", "at most 5 years"] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    // Nobody confirmed the cap of evidence, so no retention is too long for it.
    assert_eq!(retention_too_long(&policy("90 years", &[]), &statutes(&["cn.proof.188.cap", "cn.pipl.19"])), None);
}

#[test]
fn statutes_that_contradict_each_other_are_found() {
    let pair = |keys: &[&str]| {
        contradiction(&policy("1 day", &[]), &statutes(keys))
            .map(|found| (found.minimum.key.clone(), found.maximum.key.clone()))
    };
    let both = |minimum: &str| Some((minimum.to_owned(), "cn.credit.16".to_owned()));
    assert_eq!(pair(&["cn.ecl.31", "cn.credit.16"]), None);
    assert_eq!(pair(&["cn.credit.16", "cn.aml.tx"]), both("cn.aml.tx"));
    assert_eq!(pair(&["cn.acct.annual", "cn.credit.16"]), both("cn.acct.annual"));
    assert_eq!(pair(&["cn.proof.188.cap", "cn.acct.voucher"]), None, "an unconfirmed maximum contradicts nothing");
    // Five years from the end of the year are more than five years from the event.
    let minimum = demanding(LegalBound::Minimum(Period::of_years(5)), StartRule::AfterFiscalYear, Status::Confirmed);
    let maximum = statutes(&["cn.credit.16"])[0].clone();
    assert!(contradiction(&policy("1 day", &[]), &[minimum, maximum]).is_some());
}

#[test]
fn buckets_wait_for_their_statutes() {
    let due = |bucket: &str, keys: &[&str]| {
        bucket_due_with(bucket.parse().unwrap(), Period::of_years(3), &statutes(keys), SHANGHAI).unwrap()
    };
    assert_eq!(due("2023Q2", &[]), Earliest::At(shanghai("2026-06-30")));
    assert_eq!(due("2023Q2", &["cn.acct.report"]), Earliest::At(shanghai("2034-01-01")));
    assert_eq!(due("2023Q2", &["cn.acct.annual"]), Earliest::Never);
    assert_eq!(due("open", &[]), Earliest::Never);
    let at_once = bucket_due_with("2023Q2".parse().unwrap(), Period::of_days(0), &[], SHANGHAI);
    assert_eq!(at_once, Ok(Earliest::At(shanghai("2023-07-01"))), "not before the bucket is over");
}

#[test]
fn a_date_beyond_the_calendar_is_an_error() {
    let start = shanghai("9990-01-01");
    assert_eq!(bounds(start, Period::of_days(1), &statutes(&["cn.med.in"]), SHANGHAI), Err(CalendarError::OutOfRange));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_bound_is_the_exact_inverse(
        cutoff in 0..4_000_000_000_i64, start in -500_000_000..3_000_000_000_i64, near in -40_000_000..40_000_000_i64,
        years in 0..40_u32, zone in proptest::sample::select(&chrono_tz::TZ_VARIANTS[..]),
        chosen in proptest::sample::subsequence(BOOK.statutes.clone(), 0..4),
    ) {
        let instant = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let cutoff = instant(cutoff);
        let retention = Period::of_years(years);
        let statutes = chosen.iter().map(|statute| StatuteRule::of(statute)).collect();
        let rule = PolicyRule { policy: "p".to_owned(), retention, statutes };
        let bound = rule.due_before(cutoff, zone).unwrap();
        let mut starts = vec![instant(start)];
        if bound != DueBound::nothing() {
            starts.extend([0, -1, near].map(|seconds| bound.instant + chrono::TimeDelta::seconds(seconds)));
        }
        for start in starts {
            let due = bounds(start, retention, &chosen, zone).unwrap().earliest <= Earliest::At(cutoff);
            prop_assert_eq!(due, start < bound.instant, "start {} bound {}", start, bound.instant);
        }
    }

    #[test]
    fn more_statutes_never_shorten(
        start in 0..2_000_000_000_i64, years in 0..40_u32,
        chosen in proptest::sample::subsequence(BOOK.statutes.clone(), 1..6),
    ) {
        let start = DateTime::from_timestamp(start, 0).unwrap();
        let with = bounds(start, Period::of_years(years), &chosen, SHANGHAI).unwrap();
        let without = bounds(start, Period::of_years(years), &chosen[1..], SHANGHAI).unwrap();
        prop_assert!(with.earliest >= without.earliest);
        prop_assert!(with.earliest >= Earliest::At(start));
    }

    #[test]
    fn the_span_is_the_latest_minimum_and_the_earliest_confirmed_maximum(
        start in 0..2_000_000_000_i64, now in 0..4_000_000_000_i64, retention in 0..40_u32,
        chosen in proptest::collection::vec((0..5_u8, 1..40_u32, any::<bool>(), 0..3_u8), 0..6),
    ) {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let (start, now) = (at(start), at(now));
        let statutes: Vec<Arc<Statute>> = chosen.into_iter().map(|(kind, years, fiscal, status)| {
            let period = Period::of_years(years);
            let bound = [LegalBound::Minimum(period), LegalBound::Maximum(period), LegalBound::Permanent, LegalBound::Necessary,
                LegalBound::Duty][usize::from(kind)];
            let start = if fiscal { StartRule::AfterFiscalYear } else { StartRule::Event };
            demanding(bound, start, [Status::Confirmed, Status::Partly, Status::Unconfirmed][usize::from(status)])
        }).collect();
        let found = bounds(start, Period::of_years(retention), &statutes, SHANGHAI).unwrap();
        let own = Earliest::At(end_of_period(start, Period::of_years(retention), SHANGHAI, Bias::Minimum).unwrap());
        let mut earliest = own;
        let mut latest = None;
        for statute in &statutes {
            match limit(start, statute, SHANGHAI).unwrap() {
                Some(Limit::Minimum(end)) => earliest = earliest.max(end),
                Some(Limit::Maximum(end)) if statute.status == Status::Confirmed => {
                    latest = Some(latest.map_or(end, |latest: DateTime<Utc>| latest.min(end)));
                }
                _ => {}
            }
        }
        prop_assert_eq!(found.earliest, earliest);
        prop_assert_eq!(found.latest.as_ref().map(|(latest, _)| *latest), latest);
        prop_assert_eq!(found.conflict(), latest.is_some_and(|latest| earliest > Earliest::At(latest)));
        let expected = match (earliest <= Earliest::At(now), latest) {
            (false, Some(latest)) if earliest > Earliest::At(latest) => Verdict::Restrict,
            (false, _) => Verdict::Keep,
            (true, Some(latest)) if now > latest => Verdict::MustErase,
            (true, _) => Verdict::MayErase,
        };
        prop_assert_eq!(found.verdict(now), expected);
        // Whatever is decided, no record goes before a minimum.
        prop_assert!(matches!(expected, Verdict::Keep | Verdict::Restrict) || own <= Earliest::At(now));
    }
}
