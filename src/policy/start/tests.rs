use super::*;
use proptest::prelude::*;

fn utc(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
}

fn now() -> DateTime<Utc> {
    utc("2026-05-10T12:00:00Z")
}

const SHANGHAI: Tz = Tz::Asia__Shanghai;

fn read(text: &str, kind: StartKind) -> StartEvent {
    read_start(&Value::Text(text.to_owned()), kind, SHANGHAI, now())
}

fn at(text: &str) -> StartEvent {
    StartEvent::At(utc(text))
}

#[test]
fn local_texts_are_read_in_the_store_zone() {
    for kind in [StartKind::Text, StartKind::Local] {
        assert_eq!(read("2023-05-10", kind), at("2023-05-10T00:00:00+08:00"));
        assert_eq!(read("2023-05-10 14:30", kind), at("2023-05-10T14:30:00+08:00"));
        assert_eq!(read("2023-05-10 14:30:05", kind), at("2023-05-10T14:30:05+08:00"));
        assert_eq!(read("2023-05-10T14:30:05", kind), at("2023-05-10T14:30:05+08:00"));
        assert_eq!(read(" 2023-05-10 14:30:05.123456 ", kind), at("2023-05-10T14:30:05.123456+08:00"));
        assert_eq!(read("2023-05-10 14:30:05.1234567891", kind), at("2023-05-10T14:30:05.123456789+08:00"));
    }
}

#[test]
fn offsets_in_the_text_count() {
    for kind in [StartKind::Text, StartKind::Local, StartKind::Instant] {
        assert_eq!(read("2024-01-01 00:00:00+00", kind), at("2024-01-01T00:00:00Z"));
        assert_eq!(read("2024-01-01T00:00:00Z", kind), at("2024-01-01T00:00:00Z"));
        assert_eq!(read("2024-01-01 00:00:00 UTC", kind), at("2024-01-01T00:00:00Z"));
        assert_eq!(read("2024-01-01 00:00:00.5-0330", kind), at("2024-01-01T00:00:00.5-03:30"));
        assert_eq!(read("2024-01-01 00:00 +05:30", kind), at("2024-01-01T00:00:00+05:30"));
        assert_eq!(read("1900-12-31 23:54:17+08:05:43", kind), at("1900-12-31T15:48:34Z"));
    }
}

#[test]
fn instants_without_an_offset_are_utc() {
    assert_eq!(read("2024-01-01 00:00:00", StartKind::Instant), at("2024-01-01T00:00:00Z"));
}

#[test]
fn unix_seconds_are_read_as_number_and_as_digits() {
    for kind in [StartKind::Integer, StartKind::Text, StartKind::Local, StartKind::Instant] {
        let value = Value::Integer(1_683_700_200);
        assert_eq!(read_start(&value, kind, SHANGHAI, now()), at("2023-05-10T06:30:00Z"));
    }
    assert_eq!(read("1683700200", StartKind::Integer), at("2023-05-10T06:30:00Z"));
    assert_eq!(
        read("1683700200", StartKind::Text),
        StartEvent::Unreadable,
        "digits in a text column could be anything"
    );
}

#[test]
fn numbers_that_are_hardly_unix_seconds_keep_the_record() {
    // Unset, a flag, days, a year and month, a date as a number, milliseconds, extremes.
    for number in [0, -1, 1, 19_000, 202_305, 20_230_510, 1_683_700_200_000, 20_230_510_143_000, i64::MIN, i64::MAX] {
        let read = read_start(&Value::Integer(number), StartKind::Integer, SHANGHAI, now());
        assert_eq!(read, StartEvent::Unreadable, "{number}");
    }
}

#[test]
fn nothing_is_missing_and_nonsense_is_unreadable() {
    assert_eq!(read_start(&Value::Null, StartKind::Local, SHANGHAI, now()), StartEvent::Missing);
    assert_eq!(read_start(&Value::Null, StartKind::Unsuitable, SHANGHAI, now()), StartEvent::Missing);
    assert_eq!(read("", StartKind::Text), StartEvent::Missing);
    assert_eq!(read("  ", StartKind::Text), StartEvent::Missing);
    let nonsense = [
        "infinity",
        "-infinity",
        "unknown",
        "0044-03-15 BC",
        "0000-00-00",
        "0000-00-00 00:00:00",
        "2024-00-10",
        "2023-02-29",
        "2023-02-30 10:00",
        "0001-01-01",
        "0001-01-01 00:00:00",
        "1753-01-01",
        "1899-12-30",
        "10000-01-01",
        "2023-5-1",
        "2023/05/10",
        "20230510",
        "10.05.2023",
        "05/10/2023",
        "2023-05-10x",
        "2023-05-10 25:00",
        "2023-05-10 24:00:00",
        "2023-05-10 14",
        "2023-05-10 14:30:60",
        "2023-05-10 14:30:05.",
        "2023-05-10 14:30:05 CST",
        "2023-05-10 14:30+19",
        "2023-05-10 14:30+08:60",
        "2023-05-10 14:30:05+8",
        "2023-05-10  14:30",
        "-2023-05-10",
        "+2023-05-10",
        "２０２３-05-10",
        "2023-05-10Z",
        "2023-05-10 14:30 下午",
    ];
    for text in nonsense {
        for kind in [StartKind::Text, StartKind::Local, StartKind::Instant, StartKind::Integer] {
            if text == "20230510" && kind == StartKind::Integer {
                continue;
            }
            assert_eq!(read(text, kind), StartEvent::Unreadable, "{text}");
        }
    }
    for value in [Value::Real(1_683_700_200.0), Value::Blob(b"2023-05-10".to_vec())] {
        assert_eq!(read_start(&value, StartKind::Local, SHANGHAI, now()), StartEvent::Unreadable);
    }
    assert_eq!(read("2023-05-10", StartKind::Unsuitable), StartEvent::Unreadable);
}

#[test]
fn what_has_not_happened_is_future() {
    assert_eq!(read("2026-05-10 20:00:00", StartKind::Local), StartEvent::At(now()), "this very moment");
    assert_eq!(read("2026-05-10 20:00:01", StartKind::Local), StartEvent::Future(now() + TimeDelta::seconds(1)));
    assert_eq!(read("2026-05-11", StartKind::Local), StartEvent::Future(utc("2026-05-11T00:00:00+08:00")));
    assert_eq!(read("9999-12-30 23:59:59", StartKind::Local), StartEvent::Future(utc("9999-12-30T23:59:59+08:00")));
}

#[test]
fn gaps_and_folds_give_the_later_moment() {
    let read = |text: &str, zone| read_start(&Value::Text(text.to_owned()), StartKind::Local, zone, now());
    assert_eq!(read("2024-03-31 02:30:00", Tz::Europe__Berlin), at("2024-03-31T03:00:00+02:00"));
    assert_eq!(read("2024-10-27 02:30:00", Tz::Europe__Berlin), at("2024-10-27T02:30:00+01:00"));
    assert_eq!(read("2018-11-04", Tz::America__Sao_Paulo), at("2018-11-04T01:00:00-02:00"));
    assert_eq!(read("2018-11-04", Tz::America__Havana), at("2018-11-04T00:00:00-05:00"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(7), cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn instants_read_back_from_every_form(
        seconds in -2_208_988_800_i64..1_770_000_000, nanos in 0..1_000_000_000_u32, offset in -18 * 3600..=18 * 3600_i32,
    ) {
        let instant = DateTime::from_timestamp(seconds, nanos).unwrap();
        let local = instant.with_timezone(&FixedOffset::east_opt(offset / 60 * 60).unwrap());
        for form in ["%Y-%m-%d %H:%M:%S%.9f%:z", "%Y-%m-%dT%H:%M:%S%.9f%z", "%Y-%m-%d %H:%M:%S%.9f %:z"] {
            prop_assert_eq!(read(&local.format(form).to_string(), StartKind::Text), StartEvent::At(instant));
        }
        let text = instant.format("%Y-%m-%d %H:%M:%S%.9f").to_string();
        prop_assert_eq!(read(&text, StartKind::Instant), StartEvent::At(instant));
    }

    #[test]
    fn reading_never_panics(text in "[0-9:+. TZ-]{0,30}|\\PC{0,20}", number in any::<i64>()) {
        for kind in [StartKind::Text, StartKind::Local, StartKind::Instant, StartKind::Integer, StartKind::Unsuitable] {
            let _ = (read(&text, kind), read_start(&Value::Integer(number), kind, SHANGHAI, now()));
        }
    }
}
