//! C2SP verifier keys, `NAME+HASH+BASE64`, and the key hashes that stand before signatures on a note. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::tree::{Hash, sha256};

/// The hash of a key: over its name, a line end, its type and its 32 bytes. Notes carry the first four bytes.
pub(super) fn key_hash(name: &str, kind: u8, public: &[u8; 32]) -> Hash {
    let mut bytes = name.as_bytes().to_vec();
    bytes.extend_from_slice(&[b'\n', kind]);
    bytes.extend_from_slice(public);
    sha256(&bytes)
}

/// The first four bytes of a key's hash.
pub(super) fn short_hash(name: &str, kind: u8, public: &[u8; 32]) -> [u8; 4] {
    let hash = key_hash(name, kind, public);
    [hash[0], hash[1], hash[2], hash[3]]
}

/// A key as text.
pub(super) fn to_text(name: &str, kind: u8, public: &[u8; 32]) -> String {
    let key = [&[kind][..], public].concat();
    format!("{name}+{}+{}", hex::encode(short_hash(name, kind, public)), STANDARD.encode(key))
}

/// Name and bytes of a key of this type; `None` when the text is not one, or its hash is not that of the key.
pub(super) fn parse(text: &str, kind: u8) -> Option<(&str, [u8; 32])> {
    let mut parts = text.trim().splitn(3, '+');
    let (name, hash, key) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = STANDARD.decode(key).ok()?;
    let (found, public) = bytes.split_first()?;
    let public = public.try_into().ok()?;
    (*found == kind && hash == hex::encode(short_hash(name, kind, &public))).then_some((name, public))
}
