//! Backups: what stands in the bucket, how it gets there, and how anybody can check it.
//!
//! Invariants:
//! * Outside sealed parts nothing is readable but magic, version, suite, random ids, lengths, key commitments and digests.
//! * Ids are random or digests of ciphertext; nothing in a name, header or manifest comes from customer data.
//! * Nothing is overwritten or deleted on the write path, and verification needs no decryption key. `removal` is for the retention of
//!   backups alone, and takes only what no key opens any more.
//! * Compression sees the content of one frame (one cell) or one directory part, never more; sealed lengths are padded.
//! * The pure files (`codec`, `envelope`, `frame`, `removed`, `group`, `pack`, `schema`, `directory`, `manifest`, `state_record`) do no I/O and know no
//!   clock; `repository` alone names the AWS SDK, `embedded` alone names s3s.
//!
//! # Format version 1
//!
//! Precise enough to write a reader. All integers are unsigned and big-endian. `u8 u16 u32 u64` are widths, `[n]` is n
//! bytes, `x ‖ y` is concatenation. A reader refuses what is longer, shorter or other than stated here.
//!
//! ## Objects
//!
//! Names below the repository's prefix; hexadecimal is lower case.
//!
//! | name | content |
//! |---|---|
//! | `installation.json` | `{"format_version":1,"installation":"<32 hex>"}`: whose prefix it is |
//! | `packs/<sha256>` | a pack, named after the SHA-256 of its bytes |
//! | `directories/<sha256>` | one part of a directory, named likewise |
//! | `manifests/<store>/<sequence>-<sha256>` | a signed manifest: the store's 128-bit opaque id in hex, 10 decimal digits, SHA-256 of the object |
//! | `state/<number>-<generation>-<sha256>`, `state-parts/<sha256>` | the agent's own state: [`state_record`] |
//! | `probes/<id>` | left by the proof of the endpoint's abilities; means nothing |
//!
//! A snapshot exists when its manifest does. Order of writing: a directory part behind the packs that it names, the manifest behind
//! all of them.
//!
//! ## Envelope (a frame, or a part of a directory)
//!
//! | offset | field | |
//! |---|---|---|
//! | 0 | `[4]` magic | `WCFR` for a frame, `WCDR` for a directory part |
//! | 4 | `u8` version | 1 |
//! | 5 | `u8` suite | 1 = AES-256-GCM, 2 = SM4-GCM (the first 16 bytes of the key are SM4's) |
//! | 6 | `u16` | 0 |
//! | 8 | `[16]` id | random; never used twice, not even for a retry |
//! | 24 | `[32]` key commitment | derived with the key, for this id |
//! | 56 | `u32` n | bytes that follow, at least 16 |
//! | 60 | `[n]` sealed | ciphertext ‖ 16-byte tag |
//!
//! The key is derived for the id and seals this one message, hence the nonce is twelve zero bytes. Additional authenticated
//! data = the 60 header bytes ‖ the context:
//! frame: installation `[16]` ‖ pack id `[16]` ‖ position in the pack `u32`, from 0;
//! directory part: installation `[16]` ‖ snapshot id `[16]` ‖ part number `u32`, from 0.
//!
//! A commitment other than the one derived for the id means another key; a tag that does not fit under the right commitment
//! means changed bytes or another place.
//!
//! ## Keys
//!
//! `MAC_s(key; a, b, …)` is HMAC of the suite (1: SHA-256, 2: SM3) over each part behind its length as `u64`; texts are ASCII without an
//! end, `⊕` is XOR. A cell (a subject's rows of one bucket) has one secret of 32 bytes, a chain one key; without either a frame stays shut.
//! With `n` the suite as `u8` and `id` the envelope's:
//!
//! * base of a frame = `MAC_s(secret; "wangchuan.frame", "cell", n, id)` ⊕ `MAC_s(chain key; "wangchuan.frame", "chain", n, id)`
//! * base of a directory part = `MAC_1(chain key; "wangchuan.chain-part", 1, "directory", id)`
//! * encryption key = `MAC_s(base; "wangchuan.frame", "encrypt")`, commitment = `MAC_s(base; "wangchuan.frame", "commit")`
//!
//! The secret of a cell = `MAC_1(bucket key; "wangchuan.cell", "bucket", owner, bucket slot)`, with a subject ⊕ `MAC_1(subject key;
//! "wangchuan.cell", "subject", owner, bucket slot)`; owner is `01` ‖ subject slot, or five zeros without one; slots are `u32`. Where a
//! directory names a pin, the secret is what lies in the pin's slot. How slots are kept is [`crate::keys::tree`]'s.
//!
//! The opened plain text is `u8` compression (0 none, 1 zstd, one frame without dictionary) ‖ `u32` content length ‖ `u32`
//! stored length ‖ stored bytes ‖ zeros up to the padded length. The writer compresses (level 3) only when that is
//! shorter. Padded length of L: 64 when L ≤ 64; otherwise L rounded up to a multiple of max(64, 2^(E − S)), with
//! E = ⌊log₂ L⌋ and S = ⌊log₂ E⌋ + 1 (Padmé, with 64 bytes as the finest step).
//!
//! ## Frame content
//!
//! `u8` kind (1 = rows) ‖ `u32` collection number ‖ `u32` chunk ‖ `u32` rows ‖ `u16` columns ‖ `u16` column ordinal, for each
//! column, strictly ascending ‖ `[32]` SHA-256 of the content without these 32 bytes ‖ values.
//!
//! A frame of removed rows is sealed alike and has another content: `u8` kind (2) ‖ `u32` collection number ‖ `u32` chunk ‖ `u32`
//! rows, 1 to 65,536 ‖ `[32]` SHA-256 of the content without these 32 bytes ‖ the 16-byte digests of the rows, strictly ascending.
//! A row's digest is the first half of HMAC-SHA-256, under the installation's suppression key, over store, collection and key
//! ([`crate::plan::digest::row_mac`]).
//!
//! Values stand column by column, within a column in row order: `00` NULL; `01` and 8 bytes, integer, two's complement;
//! `02` and 8 bytes, IEEE 754 double; `03` `u32` length and UTF-8 text; `04` `u32` length and bytes.
//! Limits: 1 to 65,536 rows, 1 to 4,096 columns, 1 MiB of content (48 MiB for a single row).
//!
//! Rows whose columns belong to two suites are written as one frame per suite, the column groups of a chunk: same
//! collection, same chunk, same rows in the same order, different columns. They are joined by position, the columns
//! sorted by ordinal; another number of rows in one of them is corruption.
//!
//! ## Pack
//!
//! `[4]` magic `WCPK` ‖ `u8` version 1 ‖ `[3]` zeros ‖ `[16]` random pack id ‖ frames, one behind the other, to the end.
//! A pack is closed at 16 MiB or 65,536 frames at the latest, so it has less than 16 MiB plus one frame.
//!
//! ## Directory part content
//!
//! `[16]` snapshot id ‖ `u32` part number ‖ `u8` 1 in the last part, else 0 ‖ `u32` entries (131,072 at most) ‖ the entries,
//! columnar ‖ in the last part: `u32` parts ‖ `u64` frames in all parts ‖ `u32` length ‖ the captured schema, JSON.
//!
//! Entry columns in this order, each a `u32` per entry; "from p" is the difference to field p of the entry before, modulo
//! 2³² (all fields before a part's first entry count as 0): pack index (from pack index), position in the pack (from
//! position), offset (from offset + length), length, subject slot or 0, bucket slot, pin slot or 0, collection number (from
//! collection number), chunk (from chunk), rows. Then three columns of a `u8` each: column group, suite, flags (1 = has a
//! subject, 2 = has a pin, 4 = names removed rows). At most 7 MiB of content per part; suite 1 always.
//!
//! The schema's JSON: `engine` (`sqlite`, `postgres`, `mysql`), `server_version`, `tables` (as [`crate::stores::Table`], a
//! column's type as `type`, kinds and actions in snake case), `collections` (`number`, `table`, `rows`), and, unless empty, `definitions`
//! ([`crate::stores::Definitions`]: `objects`, `tables`, `positions`).
//!
//! ## Manifest
//!
//! A DSSE envelope `{"payloadType","payload","signatures":[{"keyid","sig"}]}`, base64 with padding, type
//! `application/vnd.wangchuan.manifest+json`; at least one signature (ECDSA P-256 with SHA-256, in DER) must be of a trusted key over
//! `DSSEv1 <type length> <type> <payload length> <payload>`.
//!
//! The payload is a JSON object of 14 members, and in an increment `parent`; unknown ones are refused. Ids are 32 hex digits, digests 64,
//! times RFC 3339 in UTC: `format_version` (1 for a full snapshot, 2 for an increment), `installation`, `store`, `snapshot`, `kind`
//! (`full` or `incremental`), `chain` (its slot), `sequence` (from 1 without gaps), `previous` (SHA-256 of the previous manifest's object,
//! null in the first), `parent`, `ledger_position`, `begun`, `committed`, `packs` (`sha256`, `bytes`, `frames`; a directory's pack index
//! counts them from 0), `directory` (the parts in order: `sha256`, `bytes`), `frames` (the sum over `packs`).
//!
//! A reader that shares no code with the program: `tests/interop/read_backup.py`.
//!
//! ## Chain
//!
//! A full snapshot begins a chain; an increment continues it, `parent` being the SHA-256 of the manifest before it in the chain. All
//! of a chain share one chain key, captured tables and collection numbers; `rows` of a captured collection counts the rows that
//! the store held. What a snapshot stands for is read from it back to its full one: of each row the newest version counts, and
//! none that a newer snapshot names as removed. A version that moves to another cell is named as removed under the old one, and
//! sealed anew under the other; one whose cell is dead needs no mention.

pub mod codec;
pub mod directory;
pub mod embedded;
pub mod envelope;
pub mod frame;
pub mod group;
pub mod lock;
pub mod manifest;
pub mod memory;
pub mod object_store;
pub mod pack;
pub mod removal;
pub mod removed;
pub mod repository;
pub mod schema;
pub mod state_record;
pub mod verify;

#[cfg(test)]
mod vectors;
