//! The root slot in a PKCS#11 token.
//!
//! Every generation has a key of its own in the token: AES-256, made there, sensitive, not extractable, not to be copied, named by
//! installation and generation. It wraps the root (`pkcs11_slot/wrapping.rs`), and the wrapped form lies on the shelf
//! (`slot_shelf.rs`). So destroying the root of a generation is destroying one object of the token, whatever other generations
//! need, and every root goes by itself.
//!
//! Evidence: the marks that the token keeps of the key and nobody can set (never extractable, always sensitive, made here) are read
//! and written down *before* the key is destroyed; afterwards a session opened for that finds no object of the generation's id or
//! label, and a handle from before leads nowhere.
//!
//! What this is worth depends on what stands behind the module, and no function of PKCS#11 tells. So the operator declares it
//! (`device`), and without that it is a software token: class D, for any copy of its storage brings the key back together with
//! the wrapped root. SoftHSM is known by its name and never believed to be more.
//!
//! | call | interrupted, and made again |
//! |---|---|
//! | create | a key without a wrapped root wraps nothing yet: it is taken; two of them are refused |
//! | destroy | the marks stand on the shelf before the key goes, the wrapped root goes last |
//!
//! Calls block, and a module may hang: each runs on a thread of its own, under the module's lock, and is given up after a minute.

mod fault;
mod module;
mod pin;
mod signing;
#[cfg(test)]
mod tests;
mod token;
mod wrapped;
mod wrapping;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cryptoki::object::ObjectHandle;

use self::pin::Notes;
pub use self::signing::Pkcs11Signing;
use self::token::{Names, Opened, Token, unfit};
use super::slot::{
    ClaimSentence, DestroyEvidence, DestroyStep, Destroys, Device, GoneCheck, GoneEvidence, Presence,
    PresentGeneration, Residual, RootSlot, Shortcoming, SlotAbilities, SlotClaim, SlotClass, SlotError, SlotKind,
    TokenError, TokenMarks, TokenReadBack,
};
use super::slot_shelf::{Kind, Record, Shelf, damaged};
use super::wrapped_root::WrappingSlot;
use super::{Generation, InstallationId, Key};
use crate::policy::registry::SecretText;
use crate::random::Random;

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// The longest wait for a token, queueing for its module included.
const PATIENCE: Duration = Duration::from_mins(1);

/// Which token to use, and how to open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11Setup {
    /// The module: a library of the token's maker.
    pub module: PathBuf,
    /// The label of the token. Numbers of slots change, labels do not.
    pub token_label: String,
    /// The user PIN.
    pub pin: SecretText,
    /// What stands behind the module, as the operator declares it.
    pub device: Device,
    /// For how many days backups of the device are kept, where it has them.
    pub snapshot_retention_days: Option<u32>,
    /// The folder of wrapped roots.
    pub folder: PathBuf,
}

impl Pkcs11Setup {
    /// Where the token is, in words.
    fn place(&self) -> String {
        format!("{} of {}", self.token_label, self.module.display())
    }

    /// What may be claimed for a destruction in this token.
    fn claim(&self) -> SlotClaim {
        let (class, sentence, residual) = match self.device {
            Device::Software => (SlotClass::D, ClaimSentence::LogicalRemovalOnly, Residual::TokenCopies),
            Device::HardwareWithBackup => (SlotClass::B, ClaimSentence::DestroyedInLiveService, Residual::TokenCopies),
            Device::HardwareWithoutBackup => (SlotClass::A, ClaimSentence::DestroyedNoCopyKnown, Residual::MakerWord),
        };
        SlotClaim {
            kind: SlotKind::Pkcs11,
            class,
            sentence,
            residuals: vec![residual, Residual::MemoryCapture],
            residual_days: self.snapshot_retention_days,
        }
    }
}

/// The slot.
pub struct Pkcs11Slot {
    inner: Arc<Inner>,
}

struct Inner {
    setup: Pkcs11Setup,
    installation: InstallationId,
    shelf: Shelf,
    /// Handles of keys that this process destroyed; they must lead nowhere.
    destroyed: Mutex<BTreeMap<Generation, Vec<ObjectHandle>>>,
}

impl Pkcs11Slot {
    /// The slot with its folder, which is made, with mode 0700, if it is missing. The token is not asked yet.
    ///
    /// # Errors
    /// What is wrong with the folder.
    pub fn prepare(setup: &Pkcs11Setup, installation: InstallationId) -> Result<Self> {
        let slot = Self::new(setup, installation);
        slot.inner.shelf.files.prepare()?;
        Ok(slot)
    }

    /// The slot on an existing folder; nothing is written, the token is not asked yet.
    ///
    /// # Errors
    /// As [`Pkcs11Slot::prepare`].
    pub fn at(setup: &Pkcs11Setup, installation: InstallationId) -> Result<Self> {
        let slot = Self::new(setup, installation);
        slot.inner.shelf.files.check()?;
        Ok(slot)
    }

    fn new(setup: &Pkcs11Setup, installation: InstallationId) -> Self {
        let shelf = Shelf::of_token(&setup.folder, &installation, &setup.token_label);
        Self { inner: Arc::new(Inner { setup: setup.clone(), installation, shelf, destroyed: Mutex::default() }) }
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.inner.clone();
        on_a_thread(&self.inner.setup.place(), move || work(&inner)).await
    }
}

/// Runs blocking work. Whoever stops waiting for it does not stop the work, nor does work that hangs keep the process.
async fn on_a_thread<T: Send + 'static>(place: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let run = move || {
        // Nobody listens any more: the caller was dropped.
        let _ = tell.send(work());
    };
    let lost = |what: &str| TokenError::Lost { place: place.to_owned(), what: what.to_owned() };
    std::thread::Builder::new()
        .name("pkcs11".to_owned())
        .spawn(run)
        .map_err(|_| lost("this host gives no thread for it"))?;
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(lost("the module broke off").into()),
        Err(_) => Err(lost("no answer within a minute").into()),
    }
}

/// What a wrapped root is bound to, where the wrapping can bind.
fn associated_data(installation: &InstallationId, generation: Generation) -> Vec<u8> {
    [b"wangchuan root 1".as_slice(), installation, &generation.to_be_bytes(), b"aes256-gcm"].concat()
}

impl Inner {
    fn notes(&self) -> Notes<'_> {
        Notes { folder: self.shelf.files.directory(), installation: &self.installation, pin: &self.setup.pin }
    }

    fn names(&self, generation: Generation) -> Names {
        Names::of(&self.installation, generation)
    }

    /// Works in a session of its own.
    fn in_token<T>(&self, work: impl FnOnce(&Token<'_>, &Opened<'_>) -> Result<T>) -> Result<T> {
        module::with(&self.setup.module, |library| {
            let token = Token::find(library, &self.setup)?;
            let opened = token.session(&self.notes())?;
            work(&token, &opened)
        })
    }

    fn unfit(&self, what: &'static str) -> SlotError {
        unfit(&self.setup.place(), what)
    }

    fn create(&self, generation: Generation, root: Key, nonce: [u8; wrapping::NONCE_BYTES]) -> Result<Key> {
        let _lock = self.shelf.files.lock()?;
        if self.shelf.get(generation, Kind::Wrapped)?.is_some() {
            return self.open(generation);
        }
        let bound_to = associated_data(&self.installation, generation);
        let names = self.names(generation);
        let wrapped = self.in_token(|token, opened| {
            let wrapping = token.wrapping()?;
            let key = match *opened.keys(&names)? {
                [] => opened.make(&names, wrapping)?,
                // Of a call that was interrupted: it never wrapped a root that anything rests on.
                [key] => key,
                _ => return Err(self.unfit("it has several keys for the generation that is to be made")),
            };
            if !opened.marks(key)?.never_left() {
                return Err(self.unfit("it does not say of its key that it was made there and can never leave it"));
            }
            let wrapped = opened.wrap(key, wrapping, &root, &bound_to, nonce)?;
            let parsed = wrapping::parse(&wrapped).ok_or_else(|| self.unfit("it wraps keys in a form of its own"))?;
            match opened.unwrap(key, &parsed, &bound_to)? {
                Some(same) if same.is_same(&root) => Ok(wrapped),
                _ => Err(self.unfit("it does not open what it has just wrapped")),
            }
        })?;
        self.shelf.put(generation, Kind::Wrapped, 1, Some(wrapped))?;
        // Of an earlier attempt at this generation, which was given up.
        self.shelf.files.remove(generation, Kind::Gone)?;
        Ok(root)
    }

    fn open(&self, generation: Generation) -> Result<Key> {
        self.shelf.files.check()?;
        let record = self.shelf.get(generation, Kind::Wrapped)?;
        let missing = || SlotError::Missing { generation, place: self.shelf.files.directory().display().to_string() };
        let record = record.ok_or_else(missing)?;
        self.open_record(&record, &self.shelf.files.path(generation, Kind::Wrapped))
    }

    /// Opens the wrapped root of a record that was read from `path`.
    fn open_record(&self, record: &Record, path: &Path) -> Result<Key> {
        let generation = record.generation;
        let broken = |what| damaged(path, what);
        let text = record.root.as_deref().unwrap_or_default();
        let wrapped = wrapping::parse(text).ok_or_else(|| broken("not a root that a token wrapped"))?;
        let bound_to = associated_data(&self.installation, generation);
        self.in_token(|_, opened| {
            let keys = opened.keys(&self.names(generation))?;
            if keys.is_empty() {
                return Err(TokenError::KeyGone { generation, place: self.setup.place() }.into());
            }
            for key in keys {
                if let Some(root) = opened.unwrap(key, &wrapped, &bound_to)? {
                    return Ok(root);
                }
            }
            Err(broken("the token does not open it"))
        })
    }

    /// A wrapped root whose key is gone is nothing that could still be opened; a key without a wrapped root is there in a form.
    fn list(&self) -> Result<Vec<PresentGeneration>> {
        self.shelf.files.check()?;
        let mut found = self.in_token(|_, opened| opened.generations(&self.installation))?;
        found.dedup();
        let usable = |generation| PresentGeneration { generation, presence: Presence::Usable };
        Ok(found.into_iter().map(usable).collect())
    }

    fn destroy(&self, generation: Generation) -> Result<DestroyEvidence> {
        let _lock = self.shelf.files.lock()?;
        let names = self.names(generation);
        let mut steps = Vec::new();
        self.in_token(|_, opened| {
            let keys = opened.keys(&names)?;
            if keys.is_empty() {
                return Ok(());
            }
            let mut marks: Option<TokenMarks> = None;
            for key in &keys {
                let of_this = opened.marks(*key)?;
                marks = Some(marks.map_or(of_this, |known| known.common(of_this)));
            }
            self.shelf.put_gone(generation, marks)?;
            for key in &keys {
                opened.destroy(*key)?;
            }
            let mut destroyed = self.destroyed.lock().unwrap_or_else(PoisonError::into_inner);
            destroyed.entry(generation).or_default().extend(keys);
            steps.push(DestroyStep::ServiceDestroyed);
            Ok(())
        })?;
        self.shelf.files.remove_draft(generation)?;
        let was_wrapped = self.shelf.files.remove(generation, Kind::Wrapped)?;
        if was_wrapped {
            steps.extend([DestroyStep::Overwritten, DestroyStep::Flushed, DestroyStep::Unlinked]);
        }
        let was_present = !steps.is_empty();
        steps.push(DestroyStep::DirectoryFlushed);
        Ok(DestroyEvidence { generation, claim: self.setup.claim(), was_present, steps, irrevocable_at: None })
    }

    fn verify_gone(&self, generation: Generation) -> Result<GoneEvidence> {
        let still_there = |what| SlotError::StillThere { generation, what };
        if self.shelf.files.generations(Kind::Wrapped)?.contains(&generation) {
            return Err(still_there("its wrapped form is on this host"));
        }
        let names = self.names(generation);
        let destroyed = self.destroyed.lock().unwrap_or_else(PoisonError::into_inner).get(&generation).cloned();
        self.in_token(|_, opened| {
            if !opened.keys(&names)?.is_empty() {
                return Err(still_there("the token still has its key"));
            }
            for handle in destroyed.iter().flatten() {
                if opened.still_leads_to(*handle, &names)? {
                    return Err(still_there("a handle from before its destruction still leads to its key"));
                }
            }
            Ok(())
        })?;
        let mut checks = vec![GoneCheck::NameAbsent, GoneCheck::ContentAbsent, GoneCheck::ServiceReadBack];
        let marks = self.shelf.get(generation, Kind::Gone)?.and_then(|record| record.token);
        // Of a key that somebody else removed nothing is known.
        if marks.is_some_and(TokenMarks::never_left) {
            checks.push(GoneCheck::NeverExportable);
        }
        let token = marks.map(|marks| TokenReadBack { marks, objects_left: 0 });
        Ok(GoneEvidence { generation, checks, read_back: None, token })
    }

    fn shortcomings(&self) -> Result<Vec<Shortcoming>> {
        let wrapped = self.shelf.files.generations(Kind::Wrapped)?;
        self.in_token(|token, opened| {
            token.wrapping()?;
            let mut generations = opened.generations(&self.installation)?;
            let all = generations.clone();
            generations.dedup();
            let mut found = Vec::new();
            for generation in generations {
                if !wrapped.contains(&generation) {
                    found.push(Shortcoming::WrappedRootMissing { generation });
                }
                if all.iter().filter(|other| **other == generation).count() > 1 {
                    found.push(Shortcoming::SeveralKeys { generation });
                }
                for key in opened.keys(&self.names(generation))? {
                    if !opened.marks(key)?.never_left() {
                        found.push(Shortcoming::WeakMarks { generation });
                    }
                }
            }
            Ok(found)
        })
    }
}

#[async_trait]
impl RootSlot for Pkcs11Slot {
    fn claim(&self) -> SlotClaim {
        self.inner.setup.claim()
    }

    fn abilities(&self) -> SlotAbilities {
        let destroys = match self.inner.setup.device {
            Device::Software => Destroys::BestEffort,
            Device::HardwareWithBackup | Device::HardwareWithoutBackup => Destroys::Immediately,
        };
        SlotAbilities {
            destroys,
            is_cancellable: false,
            proves_not_exported: true,
            has_rollback_counter: false,
            minimum_interval: Duration::ZERO,
            residual_days: self.inner.setup.snapshot_retention_days,
        }
    }

    async fn create(&self, generation: Generation, random: &dyn Random) -> Result<Key> {
        let root = Key::make(random)?;
        let mut nonce = [0; wrapping::NONCE_BYTES];
        random.fill(&mut nonce)?;
        self.blocking(move |inner| inner.create(generation, root, nonce)).await
    }

    async fn open(&self, generation: Generation) -> Result<Key> {
        self.blocking(move |inner| inner.open(generation)).await
    }

    async fn list(&self) -> Result<Vec<PresentGeneration>> {
        self.blocking(Inner::list).await
    }

    async fn destroy(&self, generation: Generation) -> Result<DestroyEvidence> {
        self.blocking(move |inner| inner.destroy(generation)).await
    }

    async fn verify_gone(&self, generation: Generation) -> Result<GoneEvidence> {
        self.blocking(move |inner| inner.verify_gone(generation)).await
    }

    fn wrapping(&self) -> Option<&dyn WrappingSlot> {
        Some(self)
    }

    async fn allow_another_try(&self) -> Result<()> {
        self.blocking(|inner| inner.notes().forget()).await
    }

    async fn shortcomings(&self) -> Result<Vec<Shortcoming>> {
        self.blocking(Inner::shortcomings).await
    }
}
