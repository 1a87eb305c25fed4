//! One whole snapshot as golden files, with the keys that open two of its three frames: what a reader that shares no code with the
//! program is tried on (`tests/interop/read_backup.py`).

use serde_json::json;

use super::*;
use crate::keys::cell::{CellSecret, derive_chain_part_key, derive_frame_key};

const PURPOSE: &str = "directory";

fn chain() -> Key {
    Key::dangerous_from_bytes(&[0x91; 32])
}

fn secret(byte: u8) -> CellSecret {
    CellSecret::from_pin(&Key::dangerous_from_bytes(&[byte; 32]))
}

/// The cell whose key is given, and one whose key is not.
const GIVEN: u8 = 0x92;
const WITHHELD: u8 = 0x93;

fn key_of(cell: u8, suite: Suite) -> impl Fn(&Id128) -> FrameKey {
    move |id| derive_frame_key(suite, &secret(cell), &chain(), &id.0)
}

struct Sealed {
    suite: Suite,
    id: u8,
    cell: u8,
    chunk: u32,
    group: u8,
}

const FRAMES: [Sealed; 3] = [
    Sealed { suite: Suite::Intl, id: 0xa1, cell: GIVEN, chunk: 7, group: 0 },
    Sealed { suite: Suite::Gm, id: 0xa2, cell: GIVEN, chunk: 7, group: 1 },
    Sealed { suite: Suite::Intl, id: 0xa3, cell: WITHHELD, chunk: 9, group: 0 },
];

/// Pack and directory part.
fn objects() -> (super::super::pack::Pack, Vec<u8>) {
    let directory_key = |id: &Id128| derive_chain_part_key(Suite::Intl, &chain(), PURPOSE, &id.0);
    let mut directory = DirectoryBuilder::new(REPOSITORY, SNAPSHOT, &directory_key, &Sevens);
    let mut builder = PackBuilder::new(PACK);
    for Sealed { suite, id, cell, chunk, group } in FRAMES {
        let content = match suite {
            Suite::Intl => FrameContent { chunk, ..intl_content() },
            Suite::Gm => gm_content(),
        };
        let id = Id128([id; 16]);
        let frame =
            seal_frame(&content, suite, id, &key_of(cell, suite)(&id), &builder.next_context(REPOSITORY)).unwrap();
        let at = builder.append(&frame).unwrap();
        let cell = CellRef { subject: Some(u32::from(cell)), bucket: 12, pin: None };
        let (ordinal, offset, length, rows) = (at.ordinal, at.offset, at.length, 3);
        let (pack, collection, removed) = (0, 1, false);
        let entry = FrameEntry { pack, ordinal, offset, length, cell, collection, chunk, group, suite, rows, removed };
        assert!(directory.push(entry).unwrap().is_none());
    }
    (builder.finish(), directory.finish(schema()).unwrap().remove(0).bytes)
}

fn manifest_of(pack: &super::super::pack::Pack, directory: &[u8]) -> Vec<u8> {
    let packs = vec![PackRef { sha256: pack.sha256, bytes: pack.bytes.len() as u64, frames: pack.frames }];
    let directory = vec![PartRef { sha256: Sha256::of(directory), bytes: directory.len() as u64 }];
    Manifest { packs, directory, frames: 3, ..manifest() }.sign("vector", &sign).unwrap().bytes
}

/// The files by name. Digests of packs depend on the compressor's version, so they are made together.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let (pack, directory) = objects();
    let manifest = manifest_of(&pack, &directory);
    let keys = json!({
        "installation": REPOSITORY, "chain_key": hex::encode([0x91; 32]), "cell_secrets": [hex::encode([GIVEN; 32])],
    });
    vec![
        ("whole-pack.bin", pack.bytes),
        ("whole-directory.bin", directory),
        ("whole-manifest.json", manifest),
        ("whole-keys.json", format!("{keys:#}\n").into_bytes()),
    ]
}

#[test]
fn the_whole_snapshot_is_read_as_ever() {
    let read = |name: &str| std::fs::read(path(name)).unwrap();
    let (pack, directory, bytes) = (read("whole-pack.bin"), read("whole-directory.bin"), read("whole-manifest.json"));
    let name = super::super::manifest::manifest_name(&STORE, 2, &Sha256::of(&bytes));
    let manifest = Manifest::open(&name, &bytes, &trust).unwrap();
    assert_eq!((manifest.packs[0].sha256, manifest.directory[0].sha256), (Sha256::of(&pack), Sha256::of(&directory)));
    let directory_key = |id: &Id128| derive_chain_part_key(Suite::Intl, &chain(), PURPOSE, &id.0);
    let part = open_part(&directory, REPOSITORY, SNAPSHOT, 0, &directory_key).unwrap();
    let (_, frames) = read_pack(&pack, &manifest.packs[0].sha256).unwrap();
    for (sealed, entry) in FRAMES.iter().zip(&part.entries) {
        let frame = &frames[entry.ordinal as usize];
        let opened =
            open_frame(frame.bytes, &key_of(sealed.cell, sealed.suite)(&frame.header.id), &place(entry.ordinal));
        let expected = if sealed.suite == Suite::Gm { gm_content() } else { intl_content() };
        assert_eq!(opened.unwrap(), FrameContent { chunk: sealed.chunk, ..expected });
    }
}

#[test]
fn write_the_whole_snapshot() {
    // By hand; existing files are never touched, so all go together or none.
    if std::env::var_os("WANGCHUAN_UPDATE_VECTORS").is_none() || path("whole-pack.bin").exists() {
        return;
    }
    for (name, bytes) in files() {
        std::fs::write(path(name), bytes).unwrap();
    }
}
