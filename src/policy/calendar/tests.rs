use super::*;
use chrono::FixedOffset;
use chrono_tz::TZ_VARIANTS;
use proptest::prelude::*;

fn utc(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
}

fn date(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn period(text: &str) -> Period {
    text.parse().unwrap()
}

const SHANGHAI: Tz = Tz::Asia__Shanghai;

/// The end of a period in Shanghai as a local date.
fn end_day(start: &str, length: &str, bias: Bias) -> String {
    let start = utc(&format!("{start}T12:00:00+08:00"));
    let end = end_of_period(start, period(length), SHANGHAI, bias).unwrap();
    end.with_timezone(&SHANGHAI).format("%Y-%m-%d %H:%M").to_string()
}

#[test]
fn three_years_end_with_the_beginning_of_the_corresponding_day() {
    let completed = utc("2023-05-10T23:59:59+08:00");
    let end = end_of_period(completed, period("3 years"), SHANGHAI, Bias::Minimum).unwrap();
    assert_eq!(end, utc("2026-05-10T00:00:00+08:00"));
    assert!(end > utc("2026-05-09T23:59:59+08:00"), "kept on the last day before");
}

#[test]
fn log_entry_of_march_may_go_after_three_years() {
    assert_eq!(end_day("2023-03-06", "3 years", Bias::Minimum), "2026-03-06 00:00");
    assert_eq!(end_day("2024-02-29", "3 years", Bias::Minimum), "2027-03-01 00:00");
}

#[test]
fn missing_days_go_forward_for_minima_and_back_for_maxima() {
    assert_eq!(end_day("2024-02-29", "1 year", Bias::Minimum), "2025-03-01 00:00");
    assert_eq!(end_day("2024-02-29", "1 year", Bias::Maximum), "2025-02-28 00:00");
    assert_eq!(end_day("2024-02-29", "4 years", Bias::Minimum), "2028-02-29 00:00");
    assert_eq!(end_day("2024-02-29", "4 years", Bias::Maximum), "2028-02-29 00:00");
    assert_eq!(end_day("2026-01-31", "1 month", Bias::Minimum), "2026-03-01 00:00");
    assert_eq!(end_day("2026-01-31", "1 month", Bias::Maximum), "2026-02-28 00:00");
    assert_eq!(end_day("2026-10-31", "1 month", Bias::Minimum), "2026-12-01 00:00");
    assert_eq!(end_day("2026-10-31", "1 month", Bias::Maximum), "2026-11-30 00:00");
    assert_eq!(end_day("2026-01-31", "1 month 2 days", Bias::Minimum), "2026-03-03 00:00");
    assert_eq!(end_day("2026-12-31", "2 months", Bias::Minimum), "2027-03-01 00:00");
    assert_eq!(end_day("2026-01-01", "180 days", Bias::Minimum), "2026-06-30 00:00");
}

#[test]
fn a_skipped_midnight_is_the_moment_after_the_gap() {
    // Brazil's clocks went from 2018-11-03 24:00 to 2018-11-04 01:00.
    let start = utc("2017-11-04T12:00:00-02:00");
    for bias in [Bias::Minimum, Bias::Maximum] {
        let end = end_of_period(start, period("1 year"), Tz::America__Sao_Paulo, bias).unwrap();
        assert_eq!(end, utc("2018-11-04T01:00:00-02:00"));
    }
}

#[test]
fn a_repeated_midnight_is_the_second_for_minima_and_the_first_for_maxima() {
    // Cuba's clocks went from 2018-11-04 01:00 back to 00:00.
    let start = utc("2017-11-04T12:00:00-04:00");
    let end = |bias| end_of_period(start, period("1 year"), Tz::America__Havana, bias).unwrap();
    assert_eq!(end(Bias::Minimum), utc("2018-11-04T00:00:00-05:00"));
    assert_eq!(end(Bias::Maximum), utc("2018-11-04T00:00:00-04:00"));
}

#[test]
fn a_day_left_and_entered_again_counts_as_the_later_day_for_minima() {
    // In St John's the clocks went from 2008-11-02 00:01 back to 2008-11-01 23:01.
    let between = utc("2008-11-01T23:30:00-03:30");
    let zone = Tz::America__St_Johns;
    assert_eq!(local_day(between, zone, Bias::Minimum).unwrap(), date("2008-11-02"));
    let first_pass = utc("2008-11-02T00:00:30-02:30");
    assert_eq!(local_day(first_pass, zone, Bias::Maximum).unwrap(), date("2008-11-01"));
}

#[test]
fn a_skipped_day_ends_periods_on_the_next() {
    // Samoa had no 2011-12-30.
    let start = utc("2010-12-30T12:00:00-10:00");
    let end = end_of_period(start, period("1 year"), Tz::Pacific__Apia, Bias::Minimum).unwrap();
    assert_eq!(end, utc("2011-12-31T00:00:00+14:00"));
}

#[test]
fn the_zone_decides_the_day() {
    let start = utc("2023-05-09T20:00:00Z");
    let end = |zone| end_of_period(start, period("3 years"), zone, Bias::Minimum).unwrap();
    assert_eq!(end(SHANGHAI), utc("2026-05-10T00:00:00+08:00"));
    assert_eq!(end(Tz::UTC), utc("2026-05-09T00:00:00Z"));
}

#[test]
fn a_period_of_nothing_ends_at_its_start() {
    let start = utc("2026-05-10T15:00:00+08:00");
    assert_eq!(end_of_period(start, period("0 days"), SHANGHAI, Bias::Minimum), Ok(start));
    let bound = latest_due_start(start, period("0 days"), SHANGHAI).unwrap();
    assert_eq!(bound.instant, start + TimeDelta::nanoseconds(1), "nothing of the future is due");
}

#[test]
fn what_cannot_be_computed_is_an_error() {
    let start = utc("2023-05-10T00:00:00Z");
    for months in [9000 * 12, u32::MAX] {
        let end = end_of_period(start, Period { months, days: u32::MAX }, SHANGHAI, Bias::Minimum);
        assert_eq!(end, Err(CalendarError::OutOfRange));
    }
    for outside in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
        for bias in [Bias::Minimum, Bias::Maximum] {
            assert_eq!(end_of_period(outside, period("1 day"), SHANGHAI, bias), Err(CalendarError::OutOfRange));
        }
        assert_eq!(latest_due_start(outside, period("1 day"), SHANGHAI), Err(CalendarError::OutOfRange));
        assert_eq!(bucket_of(outside, BucketWidth::Year, SHANGHAI), Err(CalendarError::OutOfRange));
    }
}

#[test]
fn too_long_a_period_makes_nothing_due() {
    let cutoff = utc("2026-05-10T00:00:00Z");
    assert_eq!(latest_due_start(cutoff, period("2100 years"), SHANGHAI), Ok(DueBound::nothing()));
    let longest = Period { months: u32::MAX, days: u32::MAX };
    assert_eq!(latest_due_start(cutoff, longest, SHANGHAI), Ok(DueBound::nothing()));
}

#[test]
fn the_bound_of_the_example_order() {
    let bound = |at: &str| latest_due_start(utc(at), period("3 years"), SHANGHAI).unwrap();
    let due = bound("2026-05-10T00:00:00+08:00");
    assert_eq!(due.instant, utc("2023-05-11T00:00:00+08:00"));
    assert_eq!(due.local, date("2023-05-11").and_time(NaiveTime::MIN));
    assert_eq!(bound("2026-05-09T23:59:59+08:00").local, date("2023-05-10").and_time(NaiveTime::MIN));
}

#[test]
fn local_bounds_stand_before_gaps_and_folds() {
    // Due through 2018-11-03: the next day begins with a gap in Brazil; times inside it are read as after it.
    let bound = bound_after(date("2018-11-03"), utc("2026-01-01T00:00:00Z"), Tz::America__Sao_Paulo).unwrap();
    assert_eq!(bound.instant, utc("2018-11-04T01:00:00-02:00"));
    assert_eq!(bound.local, date("2018-11-04").and_time(NaiveTime::MIN));
    // In St John's 23:01 to 24:00 of the day before is read as its second pass, after the next day's first minute.
    let bound = bound_after(date("2008-11-01"), utc("2026-01-01T00:00:00Z"), Tz::America__St_Johns).unwrap();
    assert_eq!(bound.instant, utc("2008-11-02T00:00:00-02:30"));
    assert_eq!(bound.local, date("2008-11-01").and_hms_opt(23, 1, 0).unwrap());
}

#[test]
fn between_two_midnights_the_day_has_not_surely_begun() {
    let zone = Tz::America__Havana;
    let start = utc("2017-11-04T12:00:00-04:00");
    let is_due = |cutoff: &str| start < latest_due_start(utc(cutoff), period("1 year"), zone).unwrap().instant;
    assert!(!is_due("2018-11-04T00:30:00-04:00"), "the first of the two midnights has passed");
    assert!(is_due("2018-11-04T00:00:00-05:00"), "the second one has");
}

#[test]
fn periods_are_read_in_every_accepted_form() {
    let accepted = [
        ("3 years", 36, 0),
        ("36 months", 36, 0),
        ("1 year", 12, 0),
        ("1 year 6 months", 18, 0),
        ("180 days", 0, 180),
        ("180days", 0, 180),
        ("2 weeks", 0, 14),
        ("  3  Years ", 36, 0),
        ("P3Y", 36, 0),
        ("P1Y6M", 18, 0),
        ("P180D", 0, 180),
        ("p2w", 0, 14),
        ("P1Y2M3D", 14, 3),
        ("3年", 36, 0),
        ("3 年", 36, 0),
        ("6个月", 6, 0),
        ("1年6个月", 18, 0),
        ("180天", 0, 180),
        ("0 days", 0, 0),
    ];
    for (text, months, days) in accepted {
        assert_eq!(text.parse(), Ok(Period { months, days }), "{text}");
    }
}

#[test]
fn other_texts_are_no_periods() {
    let refused = [
        "",
        " ",
        "3",
        "years",
        "3 yeers",
        "3 hours",
        "-3 years",
        "1.5 years",
        "P",
        "PT",
        "PT3H",
        "P3",
        "P3YT",
        "3 years,",
        "Y3",
        "6 months 1 year",
        "1 year 1 year",
        "P6M1Y",
        "P1Y 6M",
        "３ years",
        "3 y",
        "99999999999999999999 days",
        "0",
    ];
    for text in refused {
        let error = text.parse::<Period>().unwrap_err();
        assert_eq!(error, PeriodError::Malformed(text.to_owned()));
        assert!(
            error.to_string().contains("\"3 years\"") && error.to_string().contains("\"P3Y\""),
            "says what is accepted"
        );
    }
    for text in ["10000 years", "4294967296 months", "9999999 days", "18446744073709551615 years"] {
        assert_eq!(text.parse::<Period>(), Err(PeriodError::TooLong(text.to_owned())));
    }
}

#[test]
fn periods_are_shown_shortest() {
    for (text, shown) in [("36 months", "3 years"), ("P18M", "1 year 6 months"), ("14天", "14 days"), ("P0D", "0 days")]
    {
        assert_eq!(period(text).to_string(), shown);
    }
    assert_eq!(serde_json::to_string(&period("P1Y1M1D")).unwrap(), "\"1 year 1 month 1 day\"");
    assert_eq!(serde_json::from_str::<Period>("\"3年\"").unwrap(), Period::of_years(3));
    let message = serde_json::from_str::<Period>("\"soon\"").unwrap_err().to_string();
    assert!(message.contains("\"soon\" is not a period"), "{message}");
}

#[test]
fn grace_is_read_and_shown() {
    let accepted = [
        ("72 hours", 259_200, "72 hours"),
        ("0", 0, "0"),
        ("0 hours", 0, "0"),
        ("3 days", 259_200, "72 hours"),
        ("PT72H", 259_200, "72 hours"),
        ("P3D", 259_200, "72 hours"),
        ("P1DT12H", 129_600, "36 hours"),
        ("PT1M", 60, "1 minute"),
        ("90 minutes", 5400, "90 minutes"),
        ("45 seconds", 45, "45 seconds"),
        ("1 hour 30 minutes", 5400, "90 minutes"),
        ("72小时", 259_200, "72 hours"),
        ("30分钟", 1800, "30 minutes"),
    ];
    for (text, seconds, shown) in accepted {
        let grace: Grace = text.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((grace.seconds, grace.to_string().as_str()), (seconds, shown), "{text}");
    }
    for text in ["", "72", "1 month", "P1M", "P1Y", "P72H", "-1 hours", "00", "1h", "PT", "P1DT"] {
        assert_eq!(text.parse::<Grace>(), Err(GraceError::Malformed(text.to_owned())), "{text}");
    }
    assert_eq!("3651 days".parse::<Grace>(), Err(GraceError::TooLong("3651 days".to_owned())));
    assert_eq!(Grace::default().to_string(), "72 hours");
}

#[test]
fn buckets_have_one_text_each() {
    let start = utc("2023-05-10T03:00:00+08:00");
    let shown = |width| bucket_of(start, width, SHANGHAI).unwrap().to_string();
    assert_eq!(shown(BucketWidth::Day), "2023-05-10");
    assert_eq!(shown(BucketWidth::Month), "2023-05");
    assert_eq!(shown(BucketWidth::Quarter), "2023Q2");
    assert_eq!(shown(BucketWidth::Year), "2023");
    assert_eq!(BucketPeriod::Open.to_string(), "open");
    let refused = [
        "",
        "Open",
        "2023Q0",
        "2023Q5",
        "2023-13",
        "2023-5",
        "2023-02-30",
        "2023/05",
        "23",
        "0000",
        "20230510",
        "2023q2",
    ];
    for text in refused {
        assert_eq!(text.parse::<BucketPeriod>(), Err(MalformedBucket(text.to_owned())));
    }
}

#[test]
fn a_bucket_is_due_with_its_last_day() {
    let quarter: BucketPeriod = "2023Q2".parse().unwrap();
    assert_eq!(bucket_end(quarter, SHANGHAI), Ok(Some(utc("2023-07-01T00:00:00+08:00"))));
    assert_eq!(bucket_due(quarter, period("3 years"), SHANGHAI), Ok(Some(utc("2026-06-30T00:00:00+08:00"))));
    assert_eq!(bucket_due(quarter, period("0 days"), SHANGHAI), Ok(Some(utc("2023-07-01T00:00:00+08:00"))));
    // The last day of February is due on 1 March for a leap year's start.
    let month: BucketPeriod = "2024-02".parse().unwrap();
    assert_eq!(bucket_due(month, period("1 year"), SHANGHAI), Ok(Some(utc("2025-03-01T00:00:00+08:00"))));
    assert_eq!(bucket_due(BucketPeriod::Open, period("3 years"), SHANGHAI), Ok(None));
    assert_eq!(bucket_end("9999".parse().unwrap(), SHANGHAI), Err(CalendarError::OutOfRange));
}

/// Every zone of the database, the awkward ones more often.
fn any_zone() -> impl Strategy<Value = Tz> {
    prop_oneof![
        proptest::sample::select(&TZ_VARIANTS[..]),
        proptest::sample::select(vec![
            Tz::America__Sao_Paulo,
            Tz::America__Havana,
            Tz::America__St_Johns,
            Tz::Pacific__Apia,
            Tz::Australia__Lord_Howe,
            Tz::Africa__Casablanca,
            Tz::Asia__Shanghai,
            Tz::Asia__Tehran,
            Tz::Europe__Dublin,
            Tz::Pacific__Kwajalein,
            Tz::America__Scoresbysund,
        ]),
    ]
}

fn any_instant() -> impl Strategy<Value = DateTime<Utc>> {
    // 1900 to 2100, to the nanosecond; half of them within a day of a change of the clocks or of a leap day.
    let anywhere = (-2_208_988_800_i64..4_102_444_800, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| DateTime::from_timestamp(seconds, nanos).unwrap());
    let awkward = (
        1975..2035,
        proptest::sample::select(vec![(2, 27), (2, 28), (3, 1), (3, 31), (11, 1), (11, 4), (12, 30)]),
        -86_400..172_800_i64,
    )
        .prop_map(|(year, (month, day), seconds)| {
            let midnight = NaiveDate::from_ymd_opt(year, month, day).unwrap().and_time(NaiveTime::MIN).and_utc();
            midnight + TimeDelta::seconds(seconds)
        });
    prop_oneof![anywhere, awkward]
}

fn any_period() -> impl Strategy<Value = Period> {
    prop_oneof![
        (0..50_u32, 0..800_u32).prop_map(|(months, days)| Period { months, days }),
        (0..40_u32).prop_map(Period::of_years),
        (0..400_u32).prop_map(Period::of_days),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(7), cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_bound_is_the_exact_inverse(
        cutoff in any_instant(), length in any_period(), zone in any_zone(), near in -100_000_i64..100_000, far in any_instant(),
    ) {
        let bound = latest_due_start(cutoff, length, zone).unwrap();
        let is_due = |start| end_of_period(start, length, zone, Bias::Minimum).unwrap() <= cutoff;
        let close = [0, -1, near, near * 1_000_000_000].map(|nanos| bound.instant + TimeDelta::nanoseconds(nanos));
        for start in close.into_iter().chain([far, cutoff, cutoff + TimeDelta::nanoseconds(1)]) {
            prop_assert_eq!(is_due(start), start < bound.instant, "start {} bound {}", start, bound.instant);
            prop_assert!(!is_due(start) || start <= cutoff, "nothing of the future is due");
        }
    }

    #[test]
    fn the_local_bound_agrees_with_the_instant(
        cutoff in any_instant(), length in any_period(), zone in any_zone(), near in -200_000_i64..200_000, far in any_instant(),
    ) {
        let bound = latest_due_start(cutoff, length, zone).unwrap();
        let close = [0, -1, near * 1_000_000_000].map(|nanos| bound.local + TimeDelta::nanoseconds(nanos));
        for local in close.into_iter().chain([far.naive_utc()]) {
            let instant = resolve_local(local, zone, Bias::Minimum).unwrap();
            prop_assert_eq!(local < bound.local, instant < bound.instant, "local {} is {}", local, instant);
        }
    }

    #[test]
    fn a_start_is_due_from_its_end_on(start in any_instant(), length in any_period(), zone in any_zone()) {
        let end = end_of_period(start, length, zone, Bias::Minimum).unwrap();
        prop_assert!(start < latest_due_start(end, length, zone).unwrap().instant);
        let before = end - TimeDelta::nanoseconds(1);
        prop_assert!(start >= latest_due_start(before, length, zone).unwrap().instant);
    }

    #[test]
    fn ends_never_decrease(start in any_instant(), later in 0..200_000_i64, length in any_period(), zone in any_zone()) {
        for bias in [Bias::Minimum, Bias::Maximum] {
            let end = |start| end_of_period(start, length, zone, bias).unwrap();
            prop_assert!(end(start) <= end(start + TimeDelta::seconds(later)));
            prop_assert!(end(start) >= start);
        }
        let least = end_of_period(start, length, zone, Bias::Maximum).unwrap();
        prop_assert!(least <= end_of_period(start, length, zone, Bias::Minimum).unwrap());
    }

    #[test]
    fn buckets_partition_time(start in any_instant(), zone in any_zone(), length in any_period(), before in 0..40_000_000_i64) {
        for width in [BucketWidth::Day, BucketWidth::Month, BucketWidth::Quarter, BucketWidth::Year] {
            let bucket = bucket_of(start, width, zone).unwrap();
            prop_assert_eq!(bucket.to_string().parse::<BucketPeriod>().unwrap(), bucket);
            let end = bucket_end(bucket, zone).unwrap().unwrap();
            prop_assert!(start < end);
            prop_assert_ne!(bucket_of(end, width, zone).unwrap(), bucket);
            prop_assert_eq!(bucket_of(end - TimeDelta::nanoseconds(1), width, zone).unwrap(), bucket);
            let due = bucket_due(bucket, length, zone).unwrap().unwrap();
            let other = end - TimeDelta::seconds(before);
            if bucket_of(other, width, zone).unwrap() == bucket {
                prop_assert!(end_of_period(other, length, zone, Bias::Minimum).unwrap() <= due);
            }
            prop_assert!(due >= end);
        }
    }

    #[test]
    fn shown_periods_read_back(months in 0..=9999 * 12_u32, days in 0..=9999 * 366_u32) {
        let length = Period { months, days };
        prop_assert_eq!(length.to_string().parse::<Period>().unwrap(), length);
    }

    #[test]
    fn shown_grace_reads_back(seconds in 0..=3650 * 86_400_u64) {
        prop_assert_eq!(Grace { seconds }.to_string().parse::<Grace>().unwrap(), Grace { seconds });
    }

    #[test]
    fn reading_never_panics(text in "[0-9PpTtYMDHWS年月天 -]{0,12}|\\PC{0,12}") {
        let _ = (text.parse::<Period>(), text.parse::<Grace>(), text.parse::<BucketPeriod>());
    }

    #[test]
    fn fixed_offsets_need_no_special_case(seconds in 0..4_000_000_000_i64, hours in -11..=12_i32, years in 1..30_u32) {
        // The calendar rule worked out by hand in a zone without changes of the clocks.
        let name = format!("Etc/GMT{:+}", -hours);
        let zone: Tz = if hours == 0 { Tz::UTC } else { name.parse().unwrap() };
        let start = DateTime::from_timestamp(seconds, 0).unwrap();
        let local = start.with_timezone(&FixedOffset::east_opt(hours * 3600).unwrap()).date_naive();
        let year = local.year() + years as i32;
        let expected = local.with_year(year).unwrap_or_else(|| NaiveDate::from_ymd_opt(year, 3, 1).unwrap());
        let expected = expected.and_time(NaiveTime::MIN).and_utc() - TimeDelta::hours(i64::from(hours));
        prop_assert_eq!(end_of_period(start, Period::of_years(years), zone, Bias::Minimum).unwrap(), expected);
    }
}
