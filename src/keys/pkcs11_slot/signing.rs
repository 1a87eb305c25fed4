//! Keys that sign certificates, in a PKCS#11 token: pairs on P-256 whose private halves were made there and cannot leave it.
//!
//! A pair is named by its label. Without a label of the operator's the agent makes one for each key, numbered; a pair that an
//! interrupted call made is taken by the next one. The token signs a SHA-256 (`CKM_ECDSA`); its answer, two numbers of 32 bytes, becomes
//! ASN.1 DER here.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};

use super::pin::Notes;
use super::token::{Opened, Token, unfit};
use super::{Pkcs11Setup, module, on_a_thread};
use crate::keys::InstallationId;
use crate::keys::signing::{PlacedKey, PublicHalf, SigningError, SigningKind, SigningPlace};
use crate::keys::slot::{Shortcoming, SlotError};

type Result<T, E = SigningError> = std::result::Result<T, E>;

/// The curve P-256 (`prime256v1`) as an object identifier in DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Bytes of an uncompressed point, and of each number of a signature.
const POINT_BYTES: usize = 65;
const NUMBER_BYTES: usize = 32;

/// The signing keys of one token.
pub struct Pkcs11Signing {
    inner: Arc<Inner>,
}

struct Inner {
    setup: Pkcs11Setup,
    installation: InstallationId,
    label: Option<String>,
}

impl Pkcs11Signing {
    /// The keys of the token of a setup; its folder, which must exist, takes the note of a refused PIN. `label` names a pair that the
    /// operator made; without it the agent makes pairs. The token is not asked yet.
    #[must_use]
    pub fn new(setup: &Pkcs11Setup, installation: InstallationId, label: Option<String>) -> Self {
        Self { inner: Arc::new(Inner { setup: setup.clone(), installation, label }) }
    }

    async fn in_token<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &Token<'_>, &Opened<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        let run = move || {
            let mut said = None;
            let done = module::with(&inner.setup.module, |library| {
                let token = Token::find(library, &inner.setup)?;
                let opened = token.session(&inner.notes())?;
                match work(&inner, &token, &opened) {
                    Ok(done) => Ok(Some(done)),
                    // The module is only told what concerns its connection.
                    Err(SigningError::Slot(error)) => Err(error),
                    Err(other) => {
                        said = Some(other);
                        Ok(None)
                    }
                }
            });
            Ok::<_, SlotError>((done, said))
        };
        match on_a_thread(&self.inner.setup.place(), run).await? {
            (_, Some(error)) => Err(error),
            (done, None) => done?.ok_or_else(|| self.inner.unfit("the module broke off")),
        }
    }
}

impl Inner {
    fn notes(&self) -> Notes<'_> {
        Notes { folder: &self.setup.folder, installation: &self.installation, pin: &self.setup.pin }
    }

    fn unfit(&self, what: &'static str) -> SigningError {
        unfit(&self.setup.place(), what).into()
    }

    /// The label for the next key.
    fn next_label(&self, taken: &[String]) -> Result<String> {
        if let Some(label) = &self.label {
            return if taken.contains(label) {
                Err(self.unfit("the pair that `key_label` names was in use before: make another, and name that"))
            } else {
                Ok(label.clone())
            };
        }
        let mut number = taken.len() + 1;
        loop {
            let label = format!("wangchuan {} signing {number}", hex::encode(self.installation));
            if !taken.contains(&label) {
                return Ok(label);
            }
            number += 1;
        }
    }

    fn make(&self, token: &Token<'_>, opened: &Opened<'_>, taken: &[String]) -> Result<PlacedKey> {
        let has = token.mechanisms()?;
        if !has.contains(&MechanismType::ECDSA) {
            return Err(self.unfit("it has no ECDSA"));
        }
        let label = self.next_label(taken)?;
        let key = match (&opened.signing_keys(&label)?[..], &self.label) {
            ([key], _) => *key,
            ([], Some(_)) => return Err(self.unfit("there is no private key with the label that `key_label` names")),
            ([], None) if has.contains(&MechanismType::ECC_KEY_PAIR_GEN) => opened.make_pair(&label)?,
            ([], None) => return Err(self.unfit("it makes no key pairs on curves")),
            _ => return Err(self.unfit("it has several private keys with this label")),
        };
        if !opened.marks(key)?.never_left() {
            return Err(self.unfit("it does not say of its key that it was made there and can never leave it"));
        }
        Ok(PlacedKey { public: PublicHalf::Point(self.point(opened, &label)?), name: label })
    }

    /// The public half of a pair.
    fn point(&self, opened: &Opened<'_>, label: &str) -> Result<Vec<u8>> {
        match &opened.points(label)?[..] {
            [point] => point_in(point).ok_or_else(|| self.unfit("its key is not on the curve P-256")),
            [] => Err(SigningError::KeyGone { name: label.to_owned(), place: self.setup.place() }),
            _ => Err(self.unfit("it has several public keys with this label")),
        }
    }

    fn sign(&self, opened: &Opened<'_>, label: &str, digest: &[u8]) -> Result<Vec<u8>> {
        let key = match opened.signing_keys(label)?[..] {
            [key] => key,
            [] => return Err(SigningError::KeyGone { name: label.to_owned(), place: self.setup.place() }),
            _ => return Err(self.unfit("it has several private keys with this label")),
        };
        let raw = opened.sign(key, digest)?;
        der_signature(&raw).ok_or_else(|| self.unfit("its signature is not one on P-256"))
    }
}

impl Opened<'_> {
    fn of_class(&self, class: ObjectClass, label: &str) -> Result<Vec<ObjectHandle>, SlotError> {
        let template = [Attribute::Class(class), Attribute::Token(true), Attribute::Label(label.as_bytes().to_vec())];
        self.session.find_objects(&template).map_err(|error| self.fault(&error))
    }

    fn signing_keys(&self, label: &str) -> Result<Vec<ObjectHandle>, SlotError> {
        self.of_class(ObjectClass::PRIVATE_KEY, label)
    }

    /// The points of the public keys with a label.
    fn points(&self, label: &str) -> Result<Vec<Vec<u8>>, SlotError> {
        let mut found = Vec::new();
        for key in self.of_class(ObjectClass::PUBLIC_KEY, label)? {
            let told =
                self.session.get_attributes(key, &[AttributeType::EcPoint]).map_err(|error| self.fault(&error))?;
            found.extend(told.into_iter().filter_map(|attribute| match attribute {
                Attribute::EcPoint(point) => Some(point),
                _ => None,
            }));
        }
        Ok(found)
    }

    /// Makes a pair in the token whose private half can neither be read nor taken out.
    fn make_pair(&self, label: &str) -> Result<ObjectHandle, SlotError> {
        let label = label.as_bytes().to_vec();
        let names = [Attribute::Token(true), Attribute::Id(label.clone()), Attribute::Label(label)];
        let mut public = vec![Attribute::EcParams(P256.to_vec()), Attribute::Private(false), Attribute::Verify(true)];
        public.extend(names.clone());
        let mut private = vec![
            Attribute::KeyType(KeyType::EC),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ];
        private.extend(names);
        // Nor doubled in the token; this attribute came late (PKCS#11 2.40), so a token may not know it.
        private.push(Attribute::Copyable(false));
        let made = match self.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private) {
            Err(Error::Pkcs11(RvError::AttributeTypeInvalid | RvError::TemplateInconsistent, _)) => {
                private.pop();
                self.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
            }
            made => made,
        };
        made.map(|(_, private)| private).map_err(|error| self.fault(&error))
    }

    fn sign(&self, key: ObjectHandle, digest: &[u8]) -> Result<Vec<u8>, SlotError> {
        self.session.sign(&Mechanism::Ecdsa, key, digest).map_err(|error| self.fault(&error))
    }
}

/// The uncompressed point out of `CKA_EC_POINT`: an octet string in DER, by some tokens the bare point.
fn point_in(value: &[u8]) -> Option<Vec<u8>> {
    let inside = match value {
        [0x04, 0x41, rest @ ..] if rest.len() == POINT_BYTES => rest,
        bare => bare,
    };
    (inside.len() == POINT_BYTES && inside.first() == Some(&0x04)).then(|| inside.to_vec())
}

/// A signature as two numbers one behind the other, in ASN.1 DER.
fn der_signature(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() != 2 * NUMBER_BYTES {
        return None;
    }
    let number = |bytes: &[u8]| {
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
        let mut digits = bytes[first..].to_vec();
        if digits[0] >= 0x80 {
            digits.insert(0, 0);
        }
        let length = u8::try_from(digits.len()).unwrap_or_default();
        [&[0x02, length][..], &digits].concat()
    };
    let both = [number(&raw[..NUMBER_BYTES]), number(&raw[NUMBER_BYTES..])].concat();
    Some([&[0x30, u8::try_from(both.len()).ok()?][..], &both].concat())
}

#[async_trait]
impl SigningPlace for Pkcs11Signing {
    fn kind(&self) -> SigningKind {
        SigningKind::Pkcs11
    }

    fn place(&self) -> String {
        self.inner.setup.place()
    }

    async fn make(&self, taken: &[String]) -> Result<PlacedKey> {
        let taken = taken.to_vec();
        self.in_token(move |inner, token, opened| inner.make(token, opened, &taken)).await
    }

    async fn public(&self, name: &str) -> Result<PublicHalf> {
        let name = name.to_owned();
        let look = move |inner: &Inner, _: &Token<'_>, opened: &Opened<'_>| {
            if opened.signing_keys(&name)?.is_empty() {
                return Err(SigningError::KeyGone { name, place: inner.setup.place() });
            }
            inner.point(opened, &name).map(PublicHalf::Point)
        };
        self.in_token(look).await
    }

    async fn sign(&self, name: &str, message: &[u8]) -> Result<Vec<u8>> {
        let (name, hash) = (name.to_owned(), digest(&SHA256, message));
        self.in_token(move |inner, _, opened| inner.sign(opened, &name, hash.as_ref())).await
    }

    async fn shortcomings(&self) -> Result<Vec<Shortcoming>> {
        self.in_token(|inner, token, _| {
            let has_ecdsa = token.mechanisms()?.contains(&MechanismType::ECDSA);
            if has_ecdsa { Ok(Vec::new()) } else { Err(inner.unfit("it has no ECDSA")) }
        })
        .await
    }

    async fn allow_another_try(&self) -> Result<()> {
        let inner = self.inner.clone();
        Ok(on_a_thread(&self.place(), move || inner.notes().forget()).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_der_with_no_more_and_no_fewer_bytes_than_they_need() {
        let mut raw = [0; 64];
        raw[0] = 0x80;
        raw[63] = 7;
        let der = der_signature(&raw).unwrap();
        assert_eq!(&der[..6], &[0x30, 38, 0x02, 33, 0x00, 0x80]);
        assert_eq!(&der[37..], &[0x02, 1, 7]);
        assert_eq!(der_signature(&[0; 64]).unwrap(), [0x30, 6, 2, 1, 0, 2, 1, 0]);
        assert_eq!(der_signature(&raw[..63]), None);
    }

    #[test]
    fn a_point_is_taken_bare_or_in_der_and_no_other_length() {
        let bare = [&[0x04][..], &[9; 64]].concat();
        let der = [&[0x04, 0x41][..], &bare].concat();
        assert_eq!((point_in(&bare), point_in(&der)), (Some(bare.clone()), Some(bare.clone())));
        for bad in [&bare[..64], &der[..66], &[0x02; 65], &[]] {
            assert_eq!(point_in(bad), None);
        }
    }
}
