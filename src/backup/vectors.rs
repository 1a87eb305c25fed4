//! Golden vectors: files under `tests/vectors/backup`, good and malformed, that every later version must read alike.
//!
//! `WANGCHUAN_UPDATE_VECTORS=1 cargo test --lib write_the_vectors` writes files that are missing; existing ones are never touched.

#[cfg(test)]
mod whole;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::codec::{Id128, Sha256, wrap_content};
use super::directory::{CapturedCollection, CapturedSchema, CellRef, DirectoryBuilder, FrameEntry, open_part};
use super::envelope;
use super::frame::{FrameContent, FrameContext, FrameError, FrameKey, open_frame, seal_frame};
use super::manifest::{Manifest, PackRef, PartRef, SignerError, SnapshotKind};
use super::pack::{PackBuilder, read_pack};
use super::removed::{RemovedRows, open_removed, seal_removed};
use crate::keys::Key;
use crate::keys::suite::{Suite, derive_key, mac};
use crate::random::{Random, RandomUnavailable};
use crate::stores::{Column, ColumnKind, Definitions, Engine, Table};
use crate::value::Value;

const REPOSITORY: Id128 = Id128([0x11; 16]);
const PACK: Id128 = Id128([0x22; 16]);
const SNAPSHOT: Id128 = Id128([0x33; 16]);
const STORE: Id128 = Id128([0x44; 16]);
const INTL_FRAME: Id128 = Id128([0x55; 16]);
const GM_FRAME: Id128 = Id128([0x66; 16]);

/// What reading a vector must lead to; the last is the error's text.
enum Expected {
    Good,
    Error(&'static str),
}

struct Vector {
    file: &'static str,
    expected: Expected,
    make: fn() -> Vec<u8>,
    read: fn(&[u8]) -> Result<(), String>,
}

/// Not how the program derives its keys: only so that the vectors have different ones.
fn key(id: &Id128) -> FrameKey {
    let secret = Key::dangerous_from_bytes(&[0x77; 32]);
    FrameKey {
        encryption: derive_key(Suite::Intl, &secret, &[b"vector key", &id.0]),
        commitment: mac(Suite::Intl, &secret, &[b"vector commitment", &id.0]),
    }
}

fn place(ordinal: u32) -> FrameContext {
    FrameContext { repository: REPOSITORY, pack: PACK, ordinal }
}

fn intl_content() -> FrameContent {
    let row = |number: i64, text: &str| {
        vec![Value::Integer(number), Value::Text(text.to_owned()), Value::Real(-0.5), Value::Null]
    };
    let rows = vec![row(1, "忘川"), row(-2, ""), row(i64::MAX, &"compressible ".repeat(40))];
    FrameContent { collection: 1, chunk: 7, columns: vec![0, 1, 3, 4], rows }
}

fn gm_content() -> FrameContent {
    let row = |byte: u8| vec![Value::Blob(vec![byte; usize::from(byte)])];
    FrameContent { collection: 1, chunk: 7, columns: vec![2], rows: vec![row(0), row(1), row(2)] }
}

fn intl_frame() -> Vec<u8> {
    seal_frame(&intl_content(), Suite::Intl, INTL_FRAME, &key(&INTL_FRAME), &place(0)).unwrap()
}

fn gm_frame() -> Vec<u8> {
    seal_frame(&gm_content(), Suite::Gm, GM_FRAME, &key(&GM_FRAME), &place(1)).unwrap()
}

fn removed_rows() -> RemovedRows {
    RemovedRows { collection: 1, chunk: 8, rows: vec![[0xaa; 16], [0xab; 16]] }
}

fn removed_frame() -> Vec<u8> {
    seal_removed(&removed_rows(), Suite::Intl, INTL_FRAME, &key(&INTL_FRAME), &place(0)).unwrap()
}

fn read_removed(bytes: &[u8]) -> Result<(), String> {
    let opened = open_removed(bytes, &key(&INTL_FRAME), &place(0)).map_err(|error| error.to_string())?;
    assert_eq!(opened, removed_rows());
    Ok(())
}

/// A frame that is sealed well around content that is not.
fn frame_around(plain: Vec<u8>) -> Vec<u8> {
    let context = [&REPOSITORY.0[..], &PACK.0, &0u32.to_be_bytes()].concat();
    envelope::seal(*b"WCFR", Suite::Intl, INTL_FRAME, &key(&INTL_FRAME), &context, plain).unwrap()
}

fn changed(mut bytes: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    bytes[at] = byte;
    bytes
}

fn read_intl(bytes: &[u8]) -> Result<(), String> {
    same(open_frame(bytes, &key(&INTL_FRAME), &place(0)), &intl_content())
}

fn same(opened: Result<FrameContent, FrameError>, expected: &FrameContent) -> Result<(), String> {
    let opened = opened.map_err(|error| error.to_string())?;
    assert_eq!(opened, *expected);
    Ok(())
}

fn pack() -> super::pack::Pack {
    let mut builder = PackBuilder::new(PACK);
    builder.append(&intl_frame()).unwrap();
    builder.append(&gm_frame()).unwrap();
    builder.finish()
}

fn read_pack_vector(bytes: &[u8]) -> Result<(), String> {
    let (id, frames) = read_pack(bytes, &Sha256::of(bytes)).map_err(|error| error.to_string())?;
    assert_eq!((id, frames.len()), (PACK, 2));
    let open = |index: usize| open_frame(frames[index].bytes, &key(&frames[index].header.id), &place(index as u32));
    same(open(0), &intl_content())?;
    same(open(1), &gm_content())
}

struct Sevens;

impl Random for Sevens {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomUnavailable> {
        out.fill(7);
        Ok(())
    }
}

fn schema() -> CapturedSchema {
    let column = |name: &str, type_name: &str, kind| Column {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        kind: Some(kind),
        nullable: false,
        default: None,
        generated: false,
        numbered: false,
    };
    let table = Table {
        name: "orders".to_owned(),
        columns: vec![column("id", "INTEGER", ColumnKind::Integer), column("note", "TEXT", ColumnKind::Text)],
        key: vec!["id".to_owned()],
        unique: Vec::new(),
        foreign_keys: Vec::new(),
        triggers: Vec::new(),
        rows_may_be_hidden: false,
        index_statements: Vec::new(),
    };
    let collections = vec![CapturedCollection { number: 1, table: "orders".to_owned(), rows: 3 }];
    CapturedSchema {
        engine: Engine::Sqlite,
        server_version: "3.50".to_owned(),
        tables: vec![table],
        collections,
        definitions: Definitions::default(),
    }
}

fn entries() -> Vec<FrameEntry> {
    let intl = FrameEntry {
        pack: 0,
        ordinal: 0,
        offset: 24,
        length: intl_frame().len() as u32,
        cell: CellRef { subject: Some(0xdead_beef), bucket: 12, pin: None },
        collection: 1,
        chunk: 7,
        group: 0,
        suite: Suite::Intl,
        rows: 3,
        removed: false,
    };
    let gm_length = gm_frame().len() as u32;
    let gm = FrameEntry { ordinal: 1, offset: 24 + intl.length, length: gm_length, group: 1, suite: Suite::Gm, ..intl };
    vec![intl, FrameEntry { cell: CellRef { subject: None, bucket: 12, pin: Some(0) }, ..gm }]
}

fn removed_entry() -> FrameEntry {
    FrameEntry { chunk: 8, rows: 2, removed: true, ..entries()[0] }
}

fn increment_directory() -> Vec<u8> {
    directory_of(&[removed_entry()])
}

fn directory() -> Vec<u8> {
    directory_of(&entries())
}

fn directory_of(entries: &[FrameEntry]) -> Vec<u8> {
    let mut builder = DirectoryBuilder::new(REPOSITORY, SNAPSHOT, &key, &Sevens);
    for entry in entries.iter().copied() {
        assert!(builder.push(entry).unwrap().is_none());
    }
    builder.finish(schema()).unwrap().remove(0).bytes
}

fn read_directory(bytes: &[u8]) -> Result<(), String> {
    read_directory_of(bytes, &entries())
}

fn read_directory_of(bytes: &[u8], entries: &[FrameEntry]) -> Result<(), String> {
    let part = open_part(bytes, REPOSITORY, SNAPSHOT, 0, &key).map_err(|error| error.to_string())?;
    assert_eq!(part.entries, entries);
    let end = part.end.expect("the only part is the last");
    assert_eq!((end.parts, end.frames), (1, entries.len() as u64));
    assert_eq!(end.schema, schema());
    Ok(())
}

/// An increment that calls itself a full snapshot's version, signed all the same.
fn increment_of_version_1() -> Vec<u8> {
    signed_as(&Manifest { format_version: 1, ..increment() })
}

/// A manifest that the program itself would not sign.
fn signed_as(manifest: &Manifest) -> Vec<u8> {
    let payload = serde_json::to_vec(manifest).unwrap();
    let signature = sign(&super::manifest::pre_authentication_encoding(&payload)).unwrap();
    let (payload, sig) = (STANDARD.encode(payload), STANDARD.encode(signature));
    let payload_type = super::manifest::PAYLOAD_TYPE;
    let signatures = [serde_json::json!({"keyid": "vector", "sig": sig})];
    serde_json::json!({"payloadType": payload_type, "payload": payload, "signatures": signatures})
        .to_string()
        .into_bytes()
}

/// Stands in for a signature, so that the vectors need no key file.
#[expect(clippy::unnecessary_wraps, reason = "the signature that is asked for")]
fn sign(pae: &[u8]) -> Result<Vec<u8>, SignerError> {
    Ok(Sha256::of_parts(&[b"vector signature", pae]).0.to_vec())
}

fn trust(key_id: &str, pae: &[u8], signature: &[u8]) -> bool {
    key_id == "vector" && Sha256::of_parts(&[b"vector signature", pae]).0 == *signature
}

fn manifest() -> Manifest {
    let (pack, directory) = (pack(), directory());
    let time = |second: i64| chrono::DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap();
    Manifest {
        format_version: 1,
        installation: REPOSITORY,
        store: STORE,
        snapshot: SNAPSHOT,
        kind: SnapshotKind::Full,
        chain: 5,
        sequence: 2,
        previous: Some(Sha256([0x88; 32])),
        parent: None,
        ledger_position: 41,
        begun: time(0),
        committed: time(90),
        packs: vec![PackRef { sha256: pack.sha256, bytes: pack.bytes.len() as u64, frames: pack.frames }],
        directory: vec![PartRef { sha256: Sha256::of(&directory), bytes: directory.len() as u64 }],
        frames: 2,
    }
}

fn increment() -> Manifest {
    let (format_version, kind) = (2, SnapshotKind::Incremental);
    Manifest { format_version, kind, parent: Some(Sha256([0x88; 32])), ..manifest() }
}

fn signed_manifest(key_id: &str) -> Vec<u8> {
    manifest().sign(key_id, &sign).unwrap().bytes
}

fn read_manifest(bytes: &[u8]) -> Result<(), String> {
    read_as(bytes, &manifest())
}

fn read_increment(bytes: &[u8]) -> Result<(), String> {
    read_as(bytes, &increment())
}

fn read_as(bytes: &[u8], expected: &Manifest) -> Result<(), String> {
    let name = super::manifest::manifest_name(&STORE, 2, &Sha256::of(bytes));
    let opened = Manifest::open(&name, bytes, &trust).map_err(|error| error.to_string())?;
    // Digests of packs depend on the compressor's version; everything else does not.
    assert_eq!(Manifest { packs: expected.packs.clone(), directory: expected.directory.clone(), ..opened }, *expected);
    Ok(())
}

fn vector(
    file: &'static str,
    expected: Expected,
    make: fn() -> Vec<u8>,
    read: fn(&[u8]) -> Result<(), String>,
) -> Vector {
    Vector { file, expected, make, read }
}

fn vectors() -> Vec<Vector> {
    frame_vectors().into_iter().chain(pack_vectors()).chain(object_vectors()).collect()
}

fn frame_vectors() -> Vec<Vector> {
    use Expected::{Error, Good};
    vec![
        vector("frame-removed.bin", Good, removed_frame, read_removed),
        vector(
            "frame-removed-bad-kind.bin",
            Error("the frame has unknown content kind 1; a newer version of the program may know it"),
            intl_frame,
            read_removed,
        ),
        vector("frame-intl.bin", Good, intl_frame, read_intl),
        vector("frame-gm.bin", Good, gm_frame, |bytes| {
            same(open_frame(bytes, &key(&GM_FRAME), &place(1)), &gm_content())
        }),
        vector(
            "frame-bad-version.bin",
            Error("the frame has unknown format version 2; a newer version of the program may know it"),
            || changed(intl_frame(), 4, 2),
            read_intl,
        ),
        vector(
            "frame-bad-suite.bin",
            Error("the frame has unknown cipher suite 3; a newer version of the program may know it"),
            || changed(intl_frame(), 5, 3),
            read_intl,
        ),
        vector(
            "frame-bad-commitment.bin",
            Error("the frame is sealed under another key than the one given"),
            || changed(intl_frame(), 24, 0),
            read_intl,
        ),
        vector(
            "frame-bad-place.bin",
            Error("the frame is corrupt: malformed at byte 60: changed bytes, or not the place it was sealed for"),
            || seal_frame(&intl_content(), Suite::Intl, INTL_FRAME, &key(&INTL_FRAME), &place(1)).unwrap(),
            read_intl,
        ),
        vector(
            "frame-bad-padding.bin",
            Error("the frame is corrupt: malformed at byte 64: wrong padding"),
            || frame_around(changed(wrap_content(b"x"), 63, 1)),
            read_intl,
        ),
        vector(
            "frame-bad-bomb.bin",
            Error("the frame is corrupt: malformed at byte 9: content longer than the format allows"),
            || frame_around(wrap_content(&vec![0; 64 << 20])),
            read_intl,
        ),
        vector(
            "frame-bad-kind.bin",
            Error("the frame has unknown content kind 9; a newer version of the program may know it"),
            || frame_around(wrap_content(&[9; 60])),
            read_intl,
        ),
    ]
}

fn pack_vectors() -> Vec<Vector> {
    use Expected::{Error, Good};
    vec![
        vector("pack.bin", Good, || pack().bytes, read_pack_vector),
        vector(
            "pack-bad-cut.bin",
            Error("at byte 24 of the pack: the frame is corrupt: malformed at byte 176: cut short"),
            || pack().bytes[..200].to_vec(),
            read_pack_vector,
        ),
        vector(
            "pack-bad-magic.bin",
            Error("the pack is corrupt: malformed at byte 0: wrong magic"),
            || changed(pack().bytes, 3, b'X'),
            read_pack_vector,
        ),
        vector(
            "pack-bad-version.bin",
            Error("the pack has unknown format version 2; a newer version of the program may know it"),
            || changed(pack().bytes, 4, 2),
            read_pack_vector,
        ),
    ]
}

fn object_vectors() -> Vec<Vector> {
    use Expected::{Error, Good};
    vec![
        vector("directory.bin", Good, directory, read_directory),
        vector(
            "directory-bad-version.bin",
            Error(
                "the directory part has an unknown format version or suite: unknown format version 2; a newer version of the program may know it",
            ),
            || changed(directory(), 4, 2),
            read_directory,
        ),
        vector(
            "directory-bad-byte.bin",
            Error(
                "the directory part is corrupt: malformed at byte 60: changed bytes, or not the place it was sealed for",
            ),
            || changed(directory(), 70, 0),
            read_directory,
        ),
        vector("manifest.json", Good, || signed_manifest("vector"), read_manifest),
        vector("manifest-increment.json", Good, || increment().sign("vector", &sign).unwrap().bytes, read_increment),
        vector(
            "manifest-bad-version.json",
            Error("the manifest has unknown format version 3; a newer version of the program may know it"),
            || signed_as(&Manifest { format_version: 3, ..manifest() }),
            read_manifest,
        ),
        vector(
            "manifest-bad-increment.json",
            Error("the manifest is corrupt: its kind is not one of its format version"),
            increment_of_version_1,
            read_increment,
        ),
        vector("directory-increment.bin", Good, increment_directory, |bytes| {
            read_directory_of(bytes, &[removed_entry()])
        }),
        vector(
            "manifest-bad-signer.json",
            Error("the manifest is not signed by a trusted key"),
            || signed_manifest("stranger"),
            read_manifest,
        ),
        vector(
            "manifest-bad-json.json",
            Error("the manifest is corrupt: not a DSSE envelope"),
            || signed_manifest("vector")[1..].to_vec(),
            read_manifest,
        ),
    ]
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/backup").join(file)
}

fn check(vector: &Vector, bytes: &[u8]) {
    match (&vector.expected, (vector.read)(bytes)) {
        (Expected::Good, read) => assert_eq!(read, Ok(()), "{}", vector.file),
        (Expected::Error(text), read) => assert_eq!(read, Err((*text).to_owned()), "{}", vector.file),
    }
}

#[test]
fn the_stored_vectors_are_read_as_ever() {
    for vector in vectors() {
        check(&vector, &std::fs::read(path(vector.file)).unwrap());
    }
}

#[test]
fn what_is_written_today_is_read_alike() {
    for vector in vectors() {
        check(&vector, &(vector.make)());
    }
}

#[test]
fn write_the_vectors() {
    // By hand, after a new vector was added; existing files are never touched.
    if std::env::var_os("WANGCHUAN_UPDATE_VECTORS").is_none() {
        return;
    }
    for vector in vectors() {
        let path = path(vector.file);
        if !path.exists() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, (vector.make)()).unwrap();
        }
    }
}
