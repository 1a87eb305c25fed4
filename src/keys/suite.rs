//! The two cipher suites and their raw primitives; nothing else in the program names an algorithm.
//!
//! `intl` = AES-256-GCM with HMAC-SHA-256 (FIPS 197, SP 800-38D, FIPS 198-1).
//! `gm` = SM4-GCM with HMAC-SM3 (GB/T 32907, GB/T 32905, RFC 8998). SM4 takes the first 128 bits of a key.

pub mod gcm;
pub mod sm4;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use thiserror::Error;

use super::Key;
use crate::memory;

/// Bytes of an authentication tag, in both suites.
pub const TAG_BYTES: usize = 16;

/// A cipher suite; the number is what stands in headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Suite {
    /// AES-256-GCM and HMAC-SHA-256.
    Intl = 1,
    /// SM4-GCM and HMAC-SM3.
    Gm = 2,
}

/// What can go wrong with a sealed message. None of these is cured by trying again.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SealError {
    /// The message does not open: another key, another context, or changed bytes.
    #[error("the sealed message does not open with this key and context")]
    DoesNotOpen,
    /// The header names a suite that this version does not know.
    #[error("unknown cipher suite {0}; a newer version of the program may know it")]
    UnknownSuite(u8),
    /// The primitive refused its input, for example a message beyond its length limit.
    #[error("the cipher refused the message")]
    Refused,
}

impl TryFrom<u8> for Suite {
    type Error = SealError;

    fn try_from(number: u8) -> Result<Self, SealError> {
        match number {
            1 => Ok(Self::Intl),
            2 => Ok(Self::Gm),
            other => Err(SealError::UnknownSuite(other)),
        }
    }
}

impl Suite {
    /// The algorithm's common name, for people.
    #[must_use]
    pub fn cipher_name(self) -> &'static str {
        match self {
            Self::Intl => "AES-256-GCM",
            Self::Gm => "SM4-GCM",
        }
    }
}

/// HMAC of the suite over the concatenation of length-prefixed `parts` (so that different splits differ).
#[must_use]
pub fn mac(suite: Suite, key: &Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    mac_into(suite, key, parts, &mut out);
    out
}

fn mac_into(suite: Suite, key: &Key, parts: &[&[u8]], out: &mut [u8; 32]) {
    let lengths: Vec<[u8; 8]> = parts.iter().map(|part| (part.len() as u64).to_be_bytes()).collect();
    raw_mac(suite, key, lengths.iter().zip(parts).flat_map(|(length, part)| [&length[..], part]), out);
}

/// HMAC of the suite over the concatenation of `chunks`, as the standards define it.
fn raw_mac<'c>(suite: Suite, key: &Key, chunks: impl Iterator<Item = &'c [u8]>, out: &mut [u8; 32]) {
    match suite {
        Suite::Intl => intl_mac(key, chunks, out),
        Suite::Gm => gm_mac(key, chunks, out),
    }
    // Hash states and results are copied about in there.
    memory::wipe_stack();
}

#[inline(never)]
fn intl_mac<'c>(key: &Key, chunks: impl Iterator<Item = &'c [u8]>, out: &mut [u8; 32]) {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.dangerous_bytes());
    let mut context = aws_lc_rs::hmac::Context::with_key(&key);
    chunks.for_each(|chunk| context.update(chunk));
    out.copy_from_slice(context.sign().as_ref());
}

#[inline(never)]
fn gm_mac<'c>(key: &Key, chunks: impl Iterator<Item = &'c [u8]>, out: &mut [u8; 32]) {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    // HMAC pads its key with zeros to one block of the hash; a block-sized key cannot be refused.
    let mut block = [0; 64];
    block[..32].copy_from_slice(key.dangerous_bytes());
    let mut context = Hmac::<sm3::Sm3>::new((&block).into());
    zeroize::Zeroize::zeroize(&mut block);
    chunks.for_each(|chunk| context.update(chunk));
    out.copy_from_slice(&context.finalize().into_bytes());
}

/// Derives a key of the suite from `key` for the use that `parts` name.
#[must_use]
pub fn derive_key(suite: Suite, key: &Key, parts: &[&[u8]]) -> Key {
    let mut derived = Key::zero();
    mac_into(suite, key, parts, &mut derived.0);
    derived
}

/// Seals `plain` in place: encrypts it and appends the tag. A (key, nonce) pair must never be used twice.
///
/// # Errors
/// [`SealError::Refused`] when the message is too long for the cipher.
pub fn seal(suite: Suite, key: &Key, nonce: [u8; 12], aad: &[u8], plain: &mut Vec<u8>) -> Result<(), SealError> {
    match suite {
        Suite::Intl => aes(key)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), plain)
            .map_err(|_| SealError::Refused),
        Suite::Gm => {
            let tag = gm_message(key, nonce, aad).seal(plain);
            memory::wipe_stack();
            let tag = tag?;
            plain.extend_from_slice(&tag);
            Ok(())
        }
    }
}

/// Opens what [`seal`] made, in place; `sealed` then holds the plain text.
///
/// # Errors
/// [`SealError::DoesNotOpen`]; `sealed` then holds nothing useful.
pub fn open(suite: Suite, key: &Key, nonce: [u8; 12], aad: &[u8], sealed: &mut Vec<u8>) -> Result<(), SealError> {
    let length = sealed.len().checked_sub(TAG_BYTES).ok_or(SealError::DoesNotOpen)?;
    match suite {
        Suite::Intl => {
            aes(key)?
                .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed)
                .map_err(|_| SealError::DoesNotOpen)?;
        }
        Suite::Gm => {
            let tag: [u8; TAG_BYTES] = sealed[length..].try_into().map_err(|_| SealError::DoesNotOpen)?;
            let opened = gm_message(key, nonce, aad).open(&mut sealed[..length], &tag);
            memory::wipe_stack();
            opened?;
        }
    }
    sealed.truncate(length);
    Ok(())
}

fn aes(key: &Key) -> Result<LessSafeKey, SealError> {
    let key = UnboundKey::new(&AES_256_GCM, key.dangerous_bytes()).map_err(|_| SealError::Refused)?;
    Ok(LessSafeKey::new(key))
}

/// SM4 takes the first half of a key.
fn gm_message<'m>(key: &'m Key, nonce: [u8; 12], aad: &'m [u8]) -> gcm::Message<'m> {
    let [key, _] = key.halves();
    gcm::Message { engine: sm4::Engine::best(), key, nonce, aad }
}

#[cfg(test)]
mod tests;
