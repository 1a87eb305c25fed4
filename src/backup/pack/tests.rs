use super::*;
use crate::backup::frame::{FrameContent, FrameKey, open_frame, seal_frame};
use crate::keys::Key;
use crate::keys::suite::Suite;
use crate::value::Value;
use proptest::prelude::*;

const REPOSITORY: Id128 = Id128([9; 16]);

fn key(number: u8) -> FrameKey {
    FrameKey { encryption: Key::dangerous_from_bytes(&[number; 32]), commitment: [number; 32] }
}

fn content(number: u8, bytes: usize) -> FrameContent {
    let value = Value::Blob((0..bytes).map(|at| (at as u8).wrapping_mul(number)).collect());
    FrameContent { collection: 1, chunk: u32::from(number), columns: vec![0], rows: vec![vec![value]] }
}

fn build(sizes: &[usize]) -> (Pack, Vec<FramePlace>) {
    let mut builder = PackBuilder::new(Id128([4; 16]));
    let mut places = Vec::new();
    for (number, bytes) in sizes.iter().enumerate() {
        let number = number as u8;
        let place = builder.next_context(REPOSITORY);
        let frame = seal_frame(&content(number, *bytes), Suite::Intl, Id128([number; 16]), &key(number), &place);
        places.push(builder.append(&frame.unwrap()).unwrap());
    }
    (builder.finish(), places)
}

proptest! {
    #[test]
    fn frames_come_back(sizes in proptest::collection::vec(0usize..2000, 0..8)) {
        let (pack, places) = build(&sizes);
        prop_assert_eq!(pack.name(), format!("packs/{}", Sha256::of(&pack.bytes)));
        let (id, frames) = read_pack(&pack.bytes, &pack.sha256).unwrap();
        prop_assert_eq!(id, pack_id(&pack.bytes[..PACK_HEADER_BYTES]).unwrap());
        prop_assert_eq!(frames.iter().map(|frame| frame.place).collect::<Vec<_>>(), places);
        for (number, frame) in frames.iter().enumerate() {
            let number = number as u8;
            let place = FrameContext { repository: REPOSITORY, pack: id, ordinal: frame.place.ordinal };
            let range = frame.place.offset as usize..(frame.place.offset + frame.place.length) as usize;
            prop_assert_eq!(&pack.bytes[range], frame.bytes);
            prop_assert_eq!(open_frame(frame.bytes, &key(number), &place).unwrap(), content(number, sizes[number as usize]));
        }
    }

    #[test]
    fn any_changed_byte_is_found(at in any::<prop::sample::Index>(), with in 1u8..) {
        let (pack, _) = build(&[10, 300]);
        let mut bytes = pack.bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        prop_assert_eq!(read_pack(&bytes, &pack.sha256), Err(PackError::OtherDigest));
    }

    #[test]
    fn walking_random_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = walk(&bytes);
        let mut plausible = build(&[]).0.bytes;
        plausible.extend_from_slice(&bytes);
        let _ = walk(&plausible);
    }
}

#[test]
fn structure_is_checked_besides_the_digest() {
    let (pack, places) = build(&[10, 300]);
    let cut = &pack.bytes[..pack.bytes.len() - 1];
    let offset = places[1].offset as usize;
    assert!(matches!(read_pack(cut, &Sha256::of(cut)), Err(PackError::Frame { offset: at, .. }) if at == offset));
    let mut other = pack.bytes.clone();
    other[offset] = b'X';
    assert!(matches!(read_pack(&other, &Sha256::of(&other)), Err(PackError::Frame { offset: at, .. }) if at == offset));
    let mut newer = pack.bytes.clone();
    newer[4] = 2;
    assert_eq!(read_pack(&newer, &Sha256::of(&newer)), Err(PackError::UnknownVersion(2)));
    assert!(matches!(pack_id(b"WCP"), Err(PackError::Corrupt(_))));
}

#[test]
fn counts_are_compared_with_the_manifest() {
    let (pack, _) = build(&[10, 300]);
    let bytes = pack.bytes.len() as u64;
    assert_eq!(verify_pack(&pack.bytes, &pack.sha256, bytes, 2), Ok(()));
    let frames = verify_pack(&pack.bytes, &pack.sha256, bytes, 3);
    assert_eq!(frames, Err(PackError::OtherCount { what: "frames", found: 2, expected: 3 }));
    let length = verify_pack(&pack.bytes, &pack.sha256, bytes + 1, 2);
    assert!(matches!(length, Err(PackError::OtherCount { what: "bytes", .. })));
}

#[test]
fn a_pack_is_full_at_its_limit_and_takes_whole_frames_only() {
    let mut builder = PackBuilder::new(Id128([4; 16]));
    assert!(builder.is_empty());
    let half = FULL_AT_BYTES / 2;
    for number in 0..2 {
        assert!(!builder.is_full());
        let mut block = content(number, 0);
        block.rows = vec![vec![Value::Blob(pseudo_random(half))]];
        let place = builder.next_context(REPOSITORY);
        assert_eq!(place.ordinal, u32::from(number));
        let frame = seal_frame(&block, Suite::Intl, Id128([number; 16]), &key(number), &place).unwrap();
        assert!(builder.append(&frame[..frame.len() - 1]).is_err());
        builder.append(&frame).unwrap();
    }
    assert!(builder.is_full());
    assert_eq!(builder.append(&[]), Err(PackError::Full));
    assert!(builder.finish().bytes.len() <= max_pack_bytes());
}

fn pseudo_random(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}
