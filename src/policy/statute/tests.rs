use super::*;
use crate::policy::calendar::BucketWidth;
use crate::policy::registry::{Action, Approval, Cap};
use proptest::prelude::*;

const SHANGHAI: Tz = Tz::Asia__Shanghai;

fn shanghai(day: &str) -> DateTime<Utc> {
    let text = format!("{day}+08:00");
    let text = if day.contains('T') { text } else { format!("{day}T00:00:00+08:00") };
    DateTime::parse_from_rfc3339(&text).unwrap().with_timezone(&Utc)
}

fn statutes(keys: &[&str]) -> Vec<&'static Statute> {
    keys.iter().map(|key| find(key).unwrap()).collect()
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
        basis: "contract".to_owned(),
        statutes: keys.iter().map(|key| (*key).to_owned()).collect(),
        grace: crate::policy::calendar::Grace::default(),
        bucket: BucketWidth::Quarter,
        max: Cap::default(),
        approval: Approval::None,
    }
}

#[test]
fn voucher_counts_from_the_day_after_the_fiscal_year() {
    let bounds = bounds_of("2026-05-10T09:00:00", "1 day", &["cn.acct.voucher"]);
    assert_eq!(bounds.earliest, Earliest::At(shanghai("2057-01-01")));
    assert_eq!(bounds.decided_by, DecidedBy::Statute("cn.acct.voucher"));
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
    assert_eq!(bounds.decided_by, DecidedBy::Statute("cn.aml.tx"));
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
    assert_eq!(bounds.latest, Some((shanghai("2025-02-28"), "cn.credit.16")));
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
    let doubtful = |bound| Statute { bound, status: Status::Unconfirmed, ..*find_static() };
    let maximum: &'static Statute = Box::leak(Box::new(doubtful(LegalBound::Maximum(Period::of_years(1)))));
    let minimum: &'static Statute = Box::leak(Box::new(doubtful(LegalBound::Minimum(Period::of_years(9)))));
    let bounds = bounds(shanghai("2020-01-01"), Period::of_years(3), &[maximum, minimum], SHANGHAI).unwrap();
    assert_eq!(bounds.latest, None);
    assert_eq!(bounds.earliest, Earliest::At(shanghai("2029-01-01")));
}

fn find_static() -> &'static Statute {
    find("cn.ecl.31").unwrap()
}

#[test]
fn short_retention_is_told_with_both_names() {
    let error = retention_shorter_than_statute(&policy("2 years", &["cn.ecl.31"])).unwrap();
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
        let found = retention_shorter_than_statute(&policy(retention, &["cn.pipl.19", key]));
        assert_eq!(found.map(|found| found.statute.key), too_short.then_some(key), "{retention} against {key}");
    }
}

#[test]
fn the_catalogue_is_complete_and_sound() {
    let mut keys: Vec<&str> = CATALOGUE.iter().map(|statute| statute.key).collect();
    assert_eq!(keys.len(), 34);
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 34, "keys are unique");
    for statute in CATALOGUE {
        let prefix = statute.key.split('.').next().unwrap().to_uppercase();
        assert!(statute.jurisdiction.starts_with(&prefix), "{}", statute.key);
        let texts = [statute.applies_to, statute.start_event, statute.source];
        assert!(texts.iter().all(|text| !text.trim().is_empty()), "{}", statute.key);
    }
    let used = "cn.ecl.31 cn.tax.29 cn.acct.voucher cn.csl.log cn.aml.kyc cn.aml.tx cn.med.out cn.med.in cn.labour.50 cn.pipl.19";
    let used: Vec<String> = used.split(' ').map(str::to_owned).collect();
    assert_eq!(find_all(&used).unwrap().len(), 10);
    assert_eq!(find_all(&["cn.ecl.32".to_owned()]), Err(UnknownStatute("cn.ecl.32".to_owned())));
}

#[test]
fn industries_differ_for_the_same_record() {
    let ends = |industry: Industry| {
        industry.statutes().iter().map(|key| bounds_of("2020-01-01", "1 day", &[key]).earliest).collect::<Vec<_>>()
    };
    let at = |day| Earliest::At(shanghai(day));
    assert_eq!(ends(Industry::Finance), [at("2030-01-01"), at("2030-01-01")]);
    assert_eq!(ends(Industry::Ecommerce), [at("2023-01-01")]);
    assert_eq!(ends(Industry::Medical), [at("2035-01-01"), at("2050-01-01")]);
    assert_eq!(ends(Industry::Consulting), []);
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
        chosen in proptest::sample::subsequence(CATALOGUE.iter().collect::<Vec<_>>(), 0..4),
    ) {
        let instant = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let cutoff = instant(cutoff);
        let retention = Period::of_years(years);
        let bound = latest_due_start_with(cutoff, retention, &chosen, zone).unwrap();
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
        chosen in proptest::sample::subsequence(CATALOGUE.iter().collect::<Vec<_>>(), 1..6),
    ) {
        let start = DateTime::from_timestamp(start, 0).unwrap();
        let with = bounds(start, Period::of_years(years), &chosen, SHANGHAI).unwrap();
        let without = bounds(start, Period::of_years(years), &chosen[1..], SHANGHAI).unwrap();
        prop_assert!(with.earliest >= without.earliest);
        prop_assert!(with.earliest >= Earliest::At(start));
    }
}
