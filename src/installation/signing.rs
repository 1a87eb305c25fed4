//! The key that signs certificates, manifests and drill records, where the record of signing keys says that it is.
//!
//! As long as there is no record, the one key is that of the file. With one, the key in use is the last of it; the configuration only
//! says how its place is reached, and where the next one is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{cannot, root_slot, state_folder};
use crate::audit::key_history::{Ended, EndedBy, HeldKey, KeyHistory};
use crate::certify::Draft;
use crate::certify::dsse::Envelope;
use crate::certify::signer::{CertificateSigner, PublicKey, SignerError, TrustedKeys};
use crate::config::{Configuration, SigningSettings};
use crate::control::{Control, Tx};
use crate::error::Result;
use crate::keys::InstallationId;
use crate::keys::pkcs11_slot::{Pkcs11Setup, Pkcs11Signing};
use crate::keys::signing::{PlacedKey, PublicHalf, SigningError, SigningKind, SigningPlace};
use crate::keys::transit_slot::TransitSigning;

/// The file of the key in use, where it lies in one, and of the next one until that is in use.
pub(super) const KEY_FILE: &str = "signing-key.pem";
const NEXT_FILE: &str = "signing-key.next.pem";

/// Who makes signatures.
#[derive(Clone)]
enum Hand {
    /// This process.
    Here(Arc<CertificateSigner>),
    /// A key service or token, with a key of this name.
    There { place: Arc<dyn SigningPlace>, name: String },
    /// Nobody: the configuration does not lead to the key in use.
    Nobody,
}

/// Signs manifests, certificates and drill records with the installation's signing key.
#[derive(Clone)]
pub struct ManifestSigner {
    hand: Hand,
    public: PublicKey,
    history: KeyHistory,
    trusted: TrustedKeys,
}

impl ManifestSigner {
    /// The signer of an installation. A key service or token is not asked yet.
    ///
    /// # Errors
    /// When the key file or the record cannot be used.
    pub(super) async fn open(config: &Configuration, control: &Control, id: InstallationId) -> Result<Self> {
        let folder = state_folder(config);
        let record = control.read().await?.signing_keys().await?;
        let Some(record) = record else {
            return Ok(Self::of_file(
                CertificateSigner::open(&folder.join(KEY_FILE)).map_err(|error| in_file(&error))?,
            ));
        };
        let history = KeyHistory::open(&record).map_err(|error| in_record(&error))?;
        settle_files(&folder, &history)?;
        let hand = match history.in_use() {
            Some(key) if key.kind == SigningKind::File => {
                Hand::Here(Arc::new(CertificateSigner::open(&folder.join(KEY_FILE)).map_err(|error| in_file(&error))?))
            }
            Some(key) => match place(config, id)?.filter(|place| place.kind() == key.kind) {
                Some(place) => Hand::There { place, name: key.name.clone() },
                None => Hand::Nobody,
            },
            None => Hand::Nobody,
        };
        Self::new(hand, history)
    }

    /// The first key, in a file.
    fn of_file(signer: CertificateSigner) -> Self {
        let public = signer.public().clone();
        let history = KeyHistory::of(HeldKey::new(&public, SigningKind::File, KEY_FILE, None));
        let trusted = TrustedKeys::from_iter([public.clone()]);
        Self { hand: Hand::Here(Arc::new(signer)), public, history, trusted }
    }

    fn new(hand: Hand, history: KeyHistory) -> Result<Self> {
        let in_use = history.in_use().and_then(HeldKey::public);
        let public = in_use.ok_or_else(|| SigningError::Record("it holds no key".to_owned()))?;
        if let Hand::Here(signer) = &hand
            && signer.public() != &public
        {
            let what = format!("{KEY_FILE} is not the signing key that the control database says is in use");
            return Err(SigningError::File(what).into());
        }
        let trusted = history.keys.iter().filter_map(HeldKey::public).collect();
        Ok(Self { hand, public, history, trusted })
    }

    /// The key of a new installation: made where the configuration wants it, unless there is one.
    ///
    /// # Errors
    /// When its place cannot be reached, or is not fit.
    pub(super) async fn found(
        config: &Configuration,
        control: &Control,
        id: InstallationId,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let path = state_folder(config).join(KEY_FILE);
        if path.exists() || control.read().await?.signing_keys().await?.is_some() {
            return Self::open(config, control, id).await.map(|_| ());
        }
        let Some(place) = place(config, id)? else {
            CertificateSigner::create(&path).map_err(|error| in_file(&error))?;
            return Ok(());
        };
        let made = place.make(&[]).await?;
        let key = HeldKey::new(&public_of(&made, place.as_ref())?, place.kind(), &made.name, None);
        let history = KeyHistory { number: 1, ..KeyHistory::of(key) };
        let signer = Self::new(Hand::There { place, name: made.name }, history)?;
        let record = signer.record().await?;
        let mut tx = control.begin().await?;
        tx.add_signing_keys(1, &record, now).await?;
        Ok(tx.commit().await?)
    }

    /// The key's id.
    #[must_use]
    pub fn key_id(&self) -> &str {
        self.public.key_id()
    }

    /// The public half of the key in use.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs; the signature is ASN.1 DER. What comes from elsewhere is checked before anybody gets it.
    ///
    /// # Errors
    /// When the place of the key cannot be reached or refuses. Nothing is lost by that: what is to be signed waits.
    pub async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        match &self.hand {
            Hand::Here(signer) => signer.sign(message).map_err(|error| in_file(&error)),
            Hand::There { place, name } => {
                let signature = place.sign(name, message).await?;
                if self.public.verifies(message, &signature) {
                    Ok(signature)
                } else {
                    Err(SigningError::OtherKey { place: place.place() })
                }
            }
            Hand::Nobody => {
                let key = self.history.in_use();
                let (kind, name) = key.map(|key| (key.kind, key.name.clone())).unwrap_or_default();
                Err(SigningError::Elsewhere { kind, name })
            }
        }
    }

    /// Signs a certificate that says it is issued at `at`.
    ///
    /// # Errors
    /// As [`ManifestSigner::sign`], and when the key does not count yet at that time.
    pub async fn issue(&self, draft: Draft, at: DateTime<Utc>) -> Result<Envelope, SigningError> {
        match self.history.in_use().and_then(|key| key.valid_for.start) {
            Some(start) if at < start => return Err(SigningError::TooEarly(start)),
            _ => {}
        }
        let signature = self.sign(&draft.message()).await?;
        Ok(draft.signed(signature, self.key_id()))
    }

    /// Whether the signature is by a key that this installation trusts, of whatever time.
    #[must_use]
    pub fn verifies(&self, key_id: &str, message: &[u8], signature: &[u8]) -> bool {
        self.trusted.get(key_id).is_some_and(|key| key.verifies(message, signature))
    }

    /// All keys whose signatures count or counted. When they did is in [`ManifestSigner::history`].
    #[must_use]
    pub fn trusted(&self) -> &TrustedKeys {
        &self.trusted
    }

    /// All signing keys with their times.
    #[must_use]
    pub fn history(&self) -> &KeyHistory {
        &self.history
    }

    /// The place of the key in use, where it is not a file and the configuration leads to it, and its name there.
    #[must_use]
    pub fn place(&self) -> Option<(&dyn SigningPlace, &str)> {
        match &self.hand {
            Hand::There { place, name } => Some((place.as_ref(), name)),
            Hand::Here(_) | Hand::Nobody => None,
        }
    }

    /// The record of the keys, signed by the one in use.
    async fn record(&self) -> Result<Vec<u8>, SigningError> {
        let (payload, message) = self.history.to_sign().map_err(|error| in_record(&error))?;
        let signature = self.sign(&message).await?;
        Ok(KeyHistory::signed(payload, signature, self.key_id()))
    }

    /// A signer with a new key, which takes the place of this one's from `at` on. It is made where the configuration says; nothing
    /// is recorded yet. An interrupted call's key is taken.
    ///
    /// # Errors
    /// When the place of the new key cannot be reached, or is not fit.
    pub(crate) async fn next(
        &self,
        config: &Configuration,
        id: InstallationId,
        at: DateTime<Utc>,
        ended: Ended,
    ) -> Result<Self> {
        let (key, hand) = match place(config, id)? {
            None => {
                let path = state_folder(config).join(NEXT_FILE);
                let made =
                    if path.exists() { CertificateSigner::open(&path) } else { CertificateSigner::create(&path) };
                let made = made.map_err(|error| in_file(&error))?;
                (HeldKey::new(made.public(), SigningKind::File, KEY_FILE, None), Hand::Here(Arc::new(made)))
            }
            Some(place) => {
                let made = place.make(&self.history.names(place.kind())).await?;
                let key = HeldKey::new(&public_of(&made, place.as_ref())?, place.kind(), &made.name, None);
                (key, Hand::There { place, name: made.name })
            }
        };
        Self::new(hand, self.history.rotated(key, at, ended).map_err(|error| in_record(&error))?)
    }

    /// The same key with a record in which another one is revoked.
    ///
    /// # Errors
    /// When there is no such key, or it did not end.
    pub(crate) fn revoking(&self, key: &str, since: DateTime<Utc>, ended: Ended) -> Result<Self> {
        let history = self.history.revoked(key, since, ended).map_err(|error| in_record(&error))?;
        Ok(Self { history, ..self.clone() })
    }

    /// Puts the record into the control database; with the commit it counts.
    ///
    /// # Errors
    /// When the key cannot sign, or the database fails.
    pub(crate) async fn enter(mut self, tx: &mut Tx, record: &[u8], now: DateTime<Utc>) -> Result<Self> {
        tx.add_signing_keys(self.history.number, record, now).await?;
        self.history = KeyHistory::open(record).map_err(|error| in_record(&error))?;
        Ok(self)
    }

    /// The signed record, to be put into the control database.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub(crate) async fn signed_record(&self) -> Result<Vec<u8>, SigningError> {
        self.record().await
    }

    /// Lets the files follow a record that counts now.
    ///
    /// # Errors
    /// When they cannot be moved.
    pub(crate) fn settle(&self, config: &Configuration) -> Result<()> {
        settle_files(&state_folder(config), &self.history)
    }
}

/// Where the configuration wants keys that lie outside of a file.
fn place(config: &Configuration, id: InstallationId) -> Result<Option<Arc<dyn SigningPlace>>> {
    Ok(match &config.signing {
        SigningSettings::File => None,
        SigningSettings::Transit { setup, ca } => {
            let setup = root_slot::with_authorities(setup, ca.as_deref())?;
            Some(Arc::new(TransitSigning::new(&setup)?))
        }
        SigningSettings::Pkcs11 { setup, key_label } => {
            let setup = Pkcs11Setup { folder: notes_folder(config, setup), ..setup.as_ref().clone() };
            Some(Arc::new(Pkcs11Signing::new(&setup, id, key_label.clone())))
        }
    })
}

/// Where a refused PIN is noted: with the root slot, if that is in the same token, so that one try is one try.
fn notes_folder(config: &Configuration, setup: &Pkcs11Setup) -> PathBuf {
    match &config.root.slot {
        crate::config::SlotSettings::Pkcs11 { setup: root }
            if root.module == setup.module && root.token_label == setup.token_label =>
        {
            root.folder.clone()
        }
        _ => state_folder(config),
    }
}

fn public_of(made: &PlacedKey, place: &dyn SigningPlace) -> Result<PublicKey, SigningError> {
    let key = match &made.public {
        PublicHalf::Pem(text) => PublicKey::from_pem(text),
        PublicHalf::Point(point) => PublicKey::from_point(point),
    };
    key.map_err(|_| SigningError::Unfit { place: place.place(), what: "its public key is not one on P-256" })
}

/// The id of a key as its place has it now.
///
/// # Errors
/// When the place cannot be reached or does not have it.
pub async fn placed_key_id(place: &dyn SigningPlace, name: &str) -> Result<String, SigningError> {
    let public = place.public(name).await?;
    Ok(public_of(&PlacedKey { name: name.to_owned(), public }, place)?.key_id().to_owned())
}

/// Lets the files follow the record: the next key takes its name once it is in use, and the private half of a key that has ended goes.
fn settle_files(folder: &Path, history: &KeyHistory) -> Result<()> {
    let (current, next) = (folder.join(KEY_FILE), folder.join(NEXT_FILE));
    let Some(in_use) = history.in_use() else { return Ok(()) };
    let is = |path: &Path, wanted: &dyn Fn(&str) -> bool| {
        path.exists() && CertificateSigner::open(path).is_ok_and(|signer| wanted(signer.public().key_id()))
    };
    let has_ended = |id: &str| history.keys.iter().any(|key| key.key_id == id && key.ended.is_some());
    if is(&next, &|id| id == in_use.key_id) {
        std::fs::rename(&next, &current).map_err(|error| cannot("move", &next, &error))?;
    } else if is(&current, &has_ended) {
        std::fs::remove_file(&current).map_err(|error| cannot("remove", &current, &error))?;
    } else {
        return Ok(());
    }
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| cannot("flush", folder, &error))
}

/// How a key of this installation ended, for people and documents.
#[must_use]
pub fn end_of(key: &HeldKey) -> Option<(EndedBy, DateTime<Utc>)> {
    Some((key.ended_by()?, key.valid_for.end?))
}

fn in_file(error: &SignerError) -> SigningError {
    SigningError::File(crate::error::with_causes(error))
}

fn in_record(error: &crate::audit::key_history::HistoryError) -> SigningError {
    SigningError::Record(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended() -> Ended {
        Ended {
            by: EndedBy::Retired,
            since: None,
            last_certificate: None,
            logged_before: Vec::new(),
            unfiled: Vec::new(),
        }
    }

    #[test]
    fn files_follow_the_record_and_a_key_that_ended_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (current, next) = (folder.path().join(KEY_FILE), folder.path().join(NEXT_FILE));
        let first = CertificateSigner::create(&current).unwrap();
        let second = CertificateSigner::create(&next).unwrap();
        let held = |signer: &CertificateSigner| HeldKey::new(signer.public(), SigningKind::File, KEY_FILE, None);
        let alone = KeyHistory::of(held(&first));
        settle_files(folder.path(), &alone).unwrap();
        assert!(current.exists() && next.exists(), "not in use yet");
        let now = "2026-03-01T00:00:00Z".parse().unwrap();
        let rotated = alone.rotated(held(&second), now, ended()).unwrap();
        for _ in 0..2 {
            settle_files(folder.path(), &rotated).unwrap();
            assert_eq!(CertificateSigner::open(&current).unwrap().public(), second.public());
            assert!(!next.exists());
        }
        let third = CertificateSigner::in_memory().unwrap();
        let there = HeldKey::new(third.public(), SigningKind::Transit, "k/1", None);
        settle_files(folder.path(), &rotated.rotated(there, now, ended()).unwrap()).unwrap();
        assert!(!current.exists(), "its key has ended");
    }
}
