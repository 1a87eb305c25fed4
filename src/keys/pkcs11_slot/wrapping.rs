//! How a key of the token wraps a root: AES-GCM (NIST SP 800-38D) with installation, generation and suite as associated data where
//! the token can, otherwise AES key wrap (RFC 3394), whose binding to a generation rests on the key alone, for every generation
//! has a key of its own. A token that can do neither is refused.
//!
//! A wrapped root is a text, `aes-gcm:` or `aes-key-wrap:` and base64; in the first case of the nonce (12 bytes) before the
//! sealed root and its tag. The nonce is read back from the token's answer, because some tokens make their own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cryptoki::error::{Error, Result};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use zeroize::{Zeroize as _, Zeroizing};

use crate::keys::Key;

/// The length of a GCM nonce, in bytes.
pub(super) const NONCE_BYTES: usize = 12;
const TAG_BITS: u64 = 128;
const KEY_BYTES: usize = 32;

/// A way of wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// AES-GCM.
    Gcm,
    /// AES key wrap.
    KeyWrap,
}

impl Wrapping {
    /// The best one of a token with these mechanisms.
    pub(super) fn of(mechanisms: &[MechanismType]) -> Option<Self> {
        let has = |wanted| mechanisms.contains(&wanted);
        match has(MechanismType::AES_KEY_GEN) {
            true if has(MechanismType::AES_GCM) => Some(Self::Gcm),
            true if has(MechanismType::AES_KEY_WRAP) => Some(Self::KeyWrap),
            _ => None,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Gcm => "aes-gcm",
            Self::KeyWrap => "aes-key-wrap",
        }
    }

    /// What its key may do; everything else is switched off.
    pub(super) fn uses(self) -> [Attribute; 4] {
        let (crypts, wraps) = (self == Self::Gcm, self == Self::KeyWrap);
        [Attribute::Encrypt(crypts), Attribute::Decrypt(crypts), Attribute::Wrap(wraps), Attribute::Unwrap(wraps)]
    }
}

/// A wrapped root as its text says it; `None` when the text is not one.
pub(super) fn parse(text: &str) -> Option<(Wrapping, Vec<u8>)> {
    let (prefix, rest) = text.split_once(':')?;
    let wrapping = [Wrapping::Gcm, Wrapping::KeyWrap].into_iter().find(|one| one.prefix() == prefix)?;
    let bytes = STANDARD.decode(rest).ok()?;
    let length = match wrapping {
        Wrapping::Gcm => NONCE_BYTES + KEY_BYTES + TAG_BITS as usize / 8,
        Wrapping::KeyWrap => KEY_BYTES + 8,
    };
    (bytes.len() == length).then_some((wrapping, bytes))
}

/// Wraps a root with a key of the token. `nonce` is used once.
pub(super) fn wrap(
    session: &Session,
    key: ObjectHandle,
    wrapping: Wrapping,
    root: &Key,
    bound_to: &[u8],
    mut nonce: [u8; NONCE_BYTES],
) -> Result<String> {
    let bytes = match wrapping {
        Wrapping::Gcm => {
            let sealing = Mechanism::AesGcm(GcmParams::new(&mut nonce, bound_to, TAG_BITS.into())?);
            let sealed = session.encrypt(&sealing, key, root.dangerous_bytes())?;
            [&nonce[..], &sealed].concat()
        }
        Wrapping::KeyWrap => {
            let inside = put_in(session, root)?;
            let wrapped = session.wrap_key(&Mechanism::AesKeyWrap, key, inside);
            // An object of the session, which ends in a moment anyway.
            let _ = session.destroy_object(inside);
            wrapped?
        }
    };
    Ok(format!("{}:{}", wrapping.prefix(), STANDARD.encode(bytes)))
}

/// Opens a wrapped root with a key of the token.
pub(super) fn unwrap(
    session: &Session,
    key: ObjectHandle,
    (wrapping, bytes): &(Wrapping, Vec<u8>),
    bound_to: &[u8],
) -> Result<Key> {
    let opened = match wrapping {
        Wrapping::Gcm => {
            let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(Error::InvalidValue)?;
            let mut nonce = *nonce;
            let opening = Mechanism::AesGcm(GcmParams::new(&mut nonce, bound_to, TAG_BITS.into())?);
            Zeroizing::new(session.decrypt(&opening, key, sealed)?)
        }
        Wrapping::KeyWrap => {
            let inside = session.unwrap_key(&Mechanism::AesKeyWrap, key, bytes, &inside_template())?;
            let value = session.get_attributes(inside, &[AttributeType::Value]);
            let _ = session.destroy_object(inside);
            Zeroizing::new(value?.into_iter().find_map(value_of).unwrap_or_default())
        }
    };
    let opened = opened.first_chunk::<KEY_BYTES>().filter(|_| opened.len() == KEY_BYTES);
    opened.map(Key::dangerous_from_bytes).ok_or(Error::InvalidValue)
}

fn value_of(attribute: Attribute) -> Option<Vec<u8>> {
    match attribute {
        Attribute::Value(value) => Some(value),
        _ => None,
    }
}

/// A root as an object of the session, for mechanisms that only wrap objects.
fn put_in(session: &Session, root: &Key) -> Result<ObjectHandle> {
    let mut template = inside_template();
    template.push(Attribute::Value(root.dangerous_bytes().to_vec()));
    let made = session.create_object(&template);
    for attribute in &mut template {
        if let Attribute::Value(value) = attribute {
            value.zeroize();
        }
    }
    made
}

/// Never kept in the token, and readable only because the agent is to have it.
fn inside_template() -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gcm_is_chosen_where_it_is_and_nothing_without_a_way_to_make_keys() {
        use MechanismType as M;
        assert_eq!(Wrapping::of(&[M::AES_KEY_WRAP, M::AES_GCM, M::AES_KEY_GEN]), Some(Wrapping::Gcm));
        assert_eq!(Wrapping::of(&[M::AES_KEY_WRAP, M::AES_KEY_GEN]), Some(Wrapping::KeyWrap));
        assert_eq!(Wrapping::of(&[M::AES_GCM, M::AES_KEY_WRAP]), None);
        assert_eq!(Wrapping::of(&[M::AES_CBC, M::AES_KEY_GEN]), None);
    }

    #[test]
    fn only_texts_of_the_right_length_are_wrapped_roots() {
        let text = |prefix: &str, length: usize| format!("{prefix}:{}", STANDARD.encode(vec![1; length]));
        assert_eq!(parse(&text("aes-gcm", 60)), Some((Wrapping::Gcm, vec![1; 60])));
        assert_eq!(parse(&text("aes-key-wrap", 40)), Some((Wrapping::KeyWrap, vec![1; 40])));
        for bad in [text("aes-gcm", 59), text("aes-gcm", 61), text("aes-key-wrap", 60), text("vault", 60)] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
        assert_eq!(parse("aes-gcm"), None);
        assert_eq!(parse("aes-gcm:?"), None);
    }
}
