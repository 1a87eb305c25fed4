//! The bytes of a root-key file.

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::super::{Generation, InstallationId, Key};

/// The length of every root-key file.
pub(super) const FILE_BYTES: usize = KEY_AT + 32 + CHECK_BYTES;

const MAGIC: &[u8; 8] = b"wangroot";
const FORMAT: u8 = 1;
const FORMAT_AT: usize = 8;
const KEY_AT: usize = 8 + 1 + 8 + 16;
const CHECK_BYTES: usize = 32;

/// What every file with this generation's root begins with.
pub(super) fn mark(generation: Generation, installation: &InstallationId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FILE_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.push(FORMAT);
    bytes.extend_from_slice(&generation.to_be_bytes());
    bytes.extend_from_slice(installation);
    bytes
}

pub(super) fn encode(generation: Generation, installation: &InstallationId, key: &Key) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(mark(generation, installation));
    bytes.extend_from_slice(key.dangerous_bytes());
    let check = digest(&SHA256, &bytes);
    bytes.extend_from_slice(check.as_ref());
    bytes
}

/// The root key in a file, or what is wrong with it.
pub(super) fn decode(bytes: &[u8], generation: Generation, installation: &InstallationId) -> Result<Key, &'static str> {
    if !bytes.starts_with(MAGIC) {
        return Err("not a root-key file, or overwritten by a destruction that did not finish");
    }
    match bytes.get(FORMAT_AT) {
        Some(&FORMAT) => {}
        Some(&newer) if newer > FORMAT => return Err("written by a newer version of the program"),
        _ => return Err("unknown format"),
    }
    if bytes.len() != FILE_BYTES {
        return Err("cut short or too long");
    }
    let (content, check) = bytes.split_at(FILE_BYTES - CHECK_BYTES);
    if digest(&SHA256, content).as_ref() != check {
        return Err("its checksum does not match");
    }
    if !content.starts_with(&mark(generation, installation)) {
        return Err("it belongs to another generation or installation");
    }
    let key = content[KEY_AT..].first_chunk().ok_or("cut short or too long")?;
    Ok(Key::dangerous_from_bytes(key))
}
