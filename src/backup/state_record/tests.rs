use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::keys::testing::SeededRandom;

const HOME: Id128 = Id128([9; 16]);

fn root(byte: u8) -> Key {
    Key::dangerous_from_bytes(&[byte; 32])
}

fn piece(content: &[u8]) -> Piece {
    let place = PiecePlace::Inline(Zeroizing::new(content.to_vec()));
    Piece { digest: Sha256::of(content), place }
}

fn record(random: &SeededRandom) -> (StateRecord, Vec<u8>) {
    let (part, object) = seal_part(&b"a longer piece ".repeat(40), HOME, random).unwrap();
    let digest = Sha256::of(&b"a longer piece ".repeat(40));
    let made = StateRecord {
        number: 12,
        generation: 3,
        previous: Some(Sha256([5; 32])),
        at: DateTime::from_timestamp_millis(1_772_000_000_123).unwrap(),
        heads: StateHeads { ledger: 70, snapshots: 2, certificates: 4, lease_token: 9 },
        counted: Sha256([6; 32]),
        files: vec![StateFile { name: "signing-key.pem".to_owned(), bytes: Zeroizing::new(b"pem".to_vec()) }],
        pieces: vec![piece(b"small"), Piece { digest, place: PiecePlace::Part(part) }],
    };
    (made, object)
}

fn check(found: &StateRecord, object: &[u8]) {
    assert_eq!((found.number, found.generation, found.previous), (12, 3, Some(Sha256([5; 32]))));
    assert_eq!(found.at.timestamp_millis(), 1_772_000_000_123);
    assert_eq!(found.heads, StateHeads { ledger: 70, snapshots: 2, certificates: 4, lease_token: 9 });
    assert_eq!(found.counted, Sha256([6; 32]));
    assert_eq!((found.files[0].name.as_str(), found.files[0].bytes.as_slice()), ("signing-key.pem", &b"pem"[..]));
    let [Piece { place: PiecePlace::Inline(small), .. }, Piece { place: PiecePlace::Part(part), digest }] =
        &found.pieces[..]
    else {
        panic!("two pieces of two kinds")
    };
    assert_eq!(small.as_slice(), b"small");
    let content = open_part(object, part, HOME).unwrap();
    assert_eq!((content.as_slice(), Sha256::of(&content)), (&b"a longer piece ".repeat(40)[..], *digest));
    assert_eq!(part.bytes as usize, object.len());
}

#[test]
fn a_record_opens_only_with_the_root_of_its_generation_at_its_name_and_home() {
    let random = SeededRandom::new(1);
    let (made, object) = record(&random);
    let sealed = made.seal(HOME, &root(1), &random).unwrap();
    check(&StateRecord::open(&sealed.bytes, &sealed.name, HOME, &root(1)).unwrap(), &object);
    let fault = |name: &RecordName, home, key| StateRecord::open(&sealed.bytes, name, home, &root(key)).err().unwrap();
    assert!(matches!(fault(&sealed.name, HOME, 2), StateRecordError::WrongKey));
    fault(&sealed.name, Id128([8; 16]), 1);
    fault(&RecordName { generation: 2, ..sealed.name }, HOME, 1);
    fault(&RecordName { sha256: Sha256([0; 32]), ..sealed.name }, HOME, 1);
    let PiecePlace::Part(part) = &made.pieces[1].place else { panic!("a part") };
    assert!(open_part(&object, part, Id128([8; 16])).is_err());
    let other = PartRef { object: part.object, bytes: part.bytes, key: root(7) };
    assert!(open_part(&object, &other, HOME).is_err());
}

#[test]
fn names_are_read_back_and_nothing_else_is() {
    let name = RecordName { number: 42, generation: 7, sha256: Sha256([0xab; 32]) };
    assert_eq!(name.text(), format!("state/0000000042-0000000007-{}", "ab".repeat(32)));
    assert_eq!(RecordName::parse(&name.text()), Some(name));
    assert!(name.text().starts_with(&prefix_of(42)) && !name.text().starts_with(&prefix_of(4)));
    let text = name.text();
    for bad in [
        text.replace("state/", "packs/"),
        text.replace("0000000042", "+000000042"),
        text.replace("0000000042", "42"),
        text.to_uppercase(),
        format!("{text}-1"),
        text[..text.len() - 1].to_owned(),
    ] {
        assert_eq!(RecordName::parse(&bad), None, "{bad}");
    }
}

#[test]
fn numbers_that_do_not_fit_and_strange_file_names_are_refused() {
    let random = SeededRandom::new(1);
    for (number, generation) in [(0, 1), (1, 0), (10_000_000_000, 1), (1, 10_000_000_000)] {
        let made = StateRecord { number, generation, ..record(&random).0 };
        assert!(made.seal(HOME, &root(1), &random).is_err(), "{number} {generation}");
    }
    for name in ["", "../x", "a/b", ".hidden", "a\\b"] {
        let files = vec![StateFile { name: name.to_owned(), bytes: Zeroizing::new(Vec::new()) }];
        let sealed = StateRecord { files, ..record(&random).0 }.seal(HOME, &root(1), &random).unwrap();
        assert!(StateRecord::open(&sealed.bytes, &sealed.name, HOME, &root(1)).is_err(), "{name}");
    }
}

/// The stored record and its part, which every later version must read alike. `WANGCHUAN_UPDATE_VECTORS=1` writes files that
/// are missing.
#[test]
fn the_golden_vectors_are_read_as_ever() {
    let random = SeededRandom::new(1);
    let (made, object) = record(&random);
    let sealed = made.seal(HOME, &root(1), &random).unwrap();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/backup");
    for (file, bytes) in [("state-record.bin", &sealed.bytes), ("state-part.bin", &object)] {
        let path = folder.join(file);
        if !path.exists() && std::env::var_os("WANGCHUAN_UPDATE_VECTORS").is_some() {
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let stored = std::fs::read(folder.join("state-record.bin")).unwrap();
    let stored_part = std::fs::read(folder.join("state-part.bin")).unwrap();
    let name = RecordName { sha256: Sha256::of(&stored), ..sealed.name };
    check(&StateRecord::open(&stored, &name, HOME, &root(1)).unwrap(), &stored_part);
    let newer = [&stored[..4], &[2], &stored[5..]].concat();
    let name = RecordName { sha256: Sha256::of(&newer), ..sealed.name };
    let error = StateRecord::open(&newer, &name, HOME, &root(1)).err().unwrap();
    assert!(matches!(error, StateRecordError::UnknownVersion(2)), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changed_byte_is_noticed(at in 0_usize..400, bit in 0_u8..8) {
        let random = SeededRandom::new(1);
        let sealed = record(&random).0.seal(HOME, &root(1), &random).unwrap();
        let mut bytes = sealed.bytes;
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        // As if the name had been changed with it: the seal alone must notice.
        let name = RecordName { sha256: Sha256::of(&bytes), ..sealed.name };
        prop_assert!(StateRecord::open(&bytes, &name, HOME, &root(1)).is_err());
    }

    #[test]
    fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), prefixed: bool) {
        let bytes = if prefixed { [b"WCST\x01\x01\0\0".to_vec(), bytes].concat() } else { bytes };
        let name = RecordName { number: 1, generation: 1, sha256: Sha256::of(&bytes) };
        prop_assert!(StateRecord::open(&bytes, &name, HOME, &root(1)).is_err());
        let part = PartRef { object: Sha256::of(&bytes), bytes: 0, key: root(1) };
        prop_assert!(open_part(&bytes, &part, HOME).is_err());
        // What stands inside the seal as well.
        let header = Header {
            number: 1, generation: 1, previous: [0; 32], id: [0; 16], commitment: [0; 32], sealed_bytes: 16,
        };
        let _ = StateRecord::decode(&header, &bytes);
    }
}
