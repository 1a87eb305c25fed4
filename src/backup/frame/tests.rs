use super::*;
use crate::keys::Key;
use proptest::prelude::*;

fn key(byte: u8) -> FrameKey {
    FrameKey { encryption: Key::dangerous_from_bytes(&[byte; 32]), commitment: [byte ^ 0x5a; 32] }
}

fn place() -> FrameContext {
    FrameContext { repository: Id128([1; 16]), pack: Id128([2; 16]), ordinal: 3 }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        any::<u64>().prop_map(|bits| Value::Real(f64::from_bits(bits))),
        ".{0,12}".prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..24).prop_map(Value::Blob),
    ]
}

fn any_content() -> impl Strategy<Value = FrameContent> {
    let columns = proptest::collection::btree_set(any::<u16>(), 1..6);
    columns.prop_flat_map(|columns| {
        let row = proptest::collection::vec(any_value(), columns.len());
        let columns: Vec<u16> = columns.into_iter().collect();
        (any::<u32>(), any::<u32>(), Just(columns), proptest::collection::vec(row, 1..12))
            .prop_map(|(collection, chunk, columns, rows)| FrameContent { collection, chunk, columns, rows })
    })
}

fn any_suite() -> impl Strategy<Value = Suite> {
    prop_oneof![Just(Suite::Intl), Just(Suite::Gm)]
}

fn small() -> FrameContent {
    let row = |number: i64| vec![Value::Integer(number), Value::Text(format!("name {number}"))];
    FrameContent { collection: 4, chunk: 9, columns: vec![0, 2], rows: vec![row(1), row(2)] }
}

proptest! {
    #[test]
    fn content_round_trips(content in any_content(), suite in any_suite()) {
        let frame = seal_frame(&content, suite, Id128([7; 16]), &key(1), &place()).unwrap();
        let header = frame_header(&frame).unwrap();
        prop_assert_eq!((header.suite, header.id, header.envelope_bytes()), (suite, Id128([7; 16]), frame.len()));
        prop_assert_eq!(open_frame(&frame, &key(1), &place()).unwrap(), content);
    }

    #[test]
    fn any_changed_byte_is_found(content in any_content(), suite in any_suite(), at in any::<prop::sample::Index>(), with in 1u8..) {
        let mut frame = seal_frame(&content, suite, Id128([7; 16]), &key(1), &place()).unwrap();
        let at = at.index(frame.len());
        frame[at] ^= with;
        prop_assert!(open_frame(&frame, &key(1), &place()).is_err());
    }

    #[test]
    fn reading_random_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = open_frame(&bytes, &key(1), &place());
        let _ = decode_content(&bytes);
        let mut plausible = b"WCFR\x01\x01\0\0".to_vec();
        plausible.extend_from_slice(&bytes);
        let _ = open_frame(&plausible, &key(1), &place());
        let mut content = vec![KIND_ROWS];
        content.extend_from_slice(&bytes);
        let _ = decode_content(&content);
    }

    #[test]
    fn every_truncation_is_found(content in any_content(), cut in any::<prop::sample::Index>()) {
        let frame = seal_frame(&content, Suite::Intl, Id128([7; 16]), &key(1), &place()).unwrap();
        prop_assert!(open_frame(&frame[..cut.index(frame.len())], &key(1), &place()).is_err());
    }

    #[test]
    fn sizes_are_predicted(content in any_content()) {
        let predicted = overhead_bytes(content.columns.len())
            + content.rows.iter().flatten().map(value_bytes).sum::<usize>();
        prop_assert_eq!(encode_content(&content).unwrap().len(), predicted);
    }
}

#[test]
fn every_single_bit_of_a_frame_counts() {
    for suite in [Suite::Intl, Suite::Gm] {
        let frame = seal_frame(&small(), suite, Id128([7; 16]), &key(1), &place()).unwrap();
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut changed = frame.clone();
                changed[at] ^= 1 << bit;
                assert!(open_frame(&changed, &key(1), &place()).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn another_key_is_told_from_changed_bytes() {
    let frame = seal_frame(&small(), Suite::Gm, Id128([7; 16]), &key(1), &place()).unwrap();
    assert_eq!(open_frame(&frame, &key(2), &place()), Err(FrameError::WrongKey));
    // The commitment fits, but the key is another one: somebody lies.
    let liar = FrameKey { encryption: Key::dangerous_from_bytes(&[3; 32]), commitment: key(1).commitment };
    assert!(matches!(open_frame(&frame, &liar, &place()), Err(FrameError::Corrupt(_))));
}

#[test]
fn a_frame_opens_only_where_it_was_sealed_for() {
    let frame = seal_frame(&small(), Suite::Intl, Id128([7; 16]), &key(1), &place()).unwrap();
    let elsewhere = [
        FrameContext { repository: Id128([9; 16]), ..place() },
        FrameContext { pack: Id128([9; 16]), ..place() },
        FrameContext { ordinal: 4, ..place() },
    ];
    for place in elsewhere {
        assert!(matches!(open_frame(&frame, &key(1), &place), Err(FrameError::Corrupt(_))));
    }
}

#[test]
fn unknown_numbers_are_named() {
    let frame = seal_frame(&small(), Suite::Intl, Id128([7; 16]), &key(1), &place()).unwrap();
    let with = |at: usize, byte: u8| {
        let mut changed = frame.clone();
        changed[at] = byte;
        open_frame(&changed, &key(1), &place()).unwrap_err()
    };
    assert_eq!(with(4, 2), FrameError::UnknownVersion(2));
    assert_eq!(with(5, 9), FrameError::UnknownSuite(9));
    let mut content = encode_content(&small()).unwrap();
    content[0] = 7;
    assert_eq!(decode_content(&content), Err(FrameError::UnknownKind(7)));
}

#[test]
fn nothing_of_the_rows_is_readable_without_the_key() {
    let text = "张三 13800138000 zhang@example.com";
    let content = FrameContent { rows: vec![vec![Value::Null, Value::Text(text.to_owned())]], ..small() };
    for suite in [Suite::Intl, Suite::Gm] {
        let frame = seal_frame(&content, suite, Id128([7; 16]), &key(1), &place()).unwrap();
        assert!(!frame.windows(11).any(|window| window == b"13800138000"));
    }
}

#[test]
fn lengths_are_padded() {
    let of = |length: usize| {
        let rows = vec![vec![Value::Null, Value::Blob((0..length).map(|byte| (byte * 251 % 256) as u8).collect())]];
        seal_frame(&FrameContent { rows, ..small() }, Suite::Intl, Id128([7; 16]), &key(1), &place()).unwrap().len()
    };
    assert_eq!(of(10), of(40));
    assert_eq!((of(10) - super::envelope::HEADER_BYTES - TAG_BYTES) % 64, 0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let seal = |content: &FrameContent| seal_frame(content, Suite::Intl, Id128([7; 16]), &key(1), &place());
    let large = |rows: usize, bytes: usize| FrameContent {
        columns: vec![0],
        rows: vec![vec![Value::Blob(vec![0; bytes])]; rows],
        ..small()
    };
    assert!(seal(&large(1, 2 << 20)).is_ok());
    assert!(matches!(seal(&large(2, 1 << 20)), Err(FrameError::TooLarge { rows: 2, .. })));
    assert!(matches!(seal(&large(1, MAX_SINGLE_ROW_BYTES)), Err(FrameError::TooLarge { rows: 1, .. })));
    let unsealable = [
        FrameContent { rows: Vec::new(), ..small() },
        FrameContent { columns: Vec::new(), ..small() },
        FrameContent { columns: vec![2, 0], ..small() },
        FrameContent { columns: vec![0, 1, 2], ..small() },
    ];
    for content in unsealable {
        assert!(matches!(seal(&content), Err(FrameError::NotSealable(_))));
    }
}

#[test]
fn counts_cannot_ask_for_more_memory_than_there_is_content() {
    let mut content = encode_content(&small()).unwrap();
    content[9..13].copy_from_slice(&60_000u32.to_be_bytes());
    assert!(matches!(decode_content(&content), Err(FrameError::Corrupt(Malformed { what: "impossible counts", .. }))));
}

#[test]
fn a_changed_value_is_found_by_the_digest_inside() {
    let mut content = encode_content(&small()).unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    assert!(matches!(decode_content(&content), Err(FrameError::Corrupt(_))));
}
