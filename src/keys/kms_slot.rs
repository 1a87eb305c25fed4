//! The root slot in AWS KMS: class C, because the service deletes a key only at a date, and until then that can be called off.
//!
//! Every generation has a key of its own in the service, made by the agent: symmetric, of one region, drawn in the service's own
//! hardware, without rotation (a rotated key keeps all its old material). The slot draws the root key, lets the service wrap it,
//! and keeps the wrapped form on the shelf (`kms_slot/shelf.rs`). The encryption context of the wrapping is installation,
//! generation and suite, so that a wrapped root opens as nothing else. The name `alias/wangchuan/<installation>/<generation>/<key>`
//! says in the service whose key it is; by these names a slot whose folder was lost still finds what is to be destroyed.
//!
//! Destroying the root of a generation orders the deletion of its keys. From then on they open nothing; after the waiting time the
//! service does not know them any more, and only that is evidence. It must be the right service that does not: account and region
//! of its answers are compared with those of the key.
//!
//! The service's answers may be some seconds old. An order is what counts: that a key was called back is only believed when
//! ordering its deletion again succeeds.

pub mod client;
mod doom;
mod outside;
mod shelf;
#[cfg(test)]
mod tests;
pub mod wire;
mod wrapping;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use self::client::{AccessKey, KmsClient, Refusal};
use self::doom::Doomed;
pub use self::outside::KmsKeys;
use self::shelf::{Record, Shelf, ShelvedKey, place_of};
use self::wire::{Alias, KeyMetadata, KeyState};
use super::shelf_files::{Kind, damaged};
use super::slot::{
    DestroyEvidence, DestroyStep, Destroys, GoneCheck, GoneEvidence, KeyTrouble, Presence, PresentGeneration, RootSlot,
    SlotAbilities, SlotClaim, SlotError,
};
use super::wrapped_root::WrappingSlot;
use super::{Generation, InstallationId, Key};
use crate::random::Random;

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// The shortest and the longest waiting time that the service knows, in days.
pub const DELETION_WINDOW_DAYS: std::ops::RangeInclusive<u8> = 7..=30;
/// What the names of all keys of the agent begin with in the service.
const ALIAS: &str = "alias/wangchuan/";
/// The tags of its keys: the policy that is shipped lets the agent touch no others.
const INSTALLATION_TAG: &str = "wangchuan-installation";
const GENERATION_TAG: &str = "wangchuan-generation";
/// After a crash so many keys of the account are looked at for one that was made and not named. One that is not found costs money
/// and protects nothing.
const SEARCHED_KEYS: usize = 1000;
/// Tries of a call on a key that the service does not know yet, or knows in an older state.
const STALE_TRIES: u32 = 6;

/// Where the keys are, and how to reach them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsSetup {
    /// The region.
    pub region: String,
    /// `https://…`, or `http://` on a loopback address; otherwise the region's own.
    pub endpoint: Option<String>,
    /// Explicit keys; otherwise the AWS default chain.
    pub keys: Option<AccessKey>,
    /// The folder of wrapped roots.
    pub folder: PathBuf,
    /// For how many days the deletion of a key can be called off.
    pub deletion_window_days: u8,
    /// The least time between two generations: each has a key, which costs money.
    pub minimum_interval: Duration,
    /// Time for a whole exchange, if not the usual.
    pub timeout: Option<Duration>,
    /// The pause before a stale answer is asked for again; it doubles with each.
    pub stale_pause: Duration,
}

impl KmsSetup {
    /// The address of the service.
    #[must_use]
    pub fn place(&self) -> String {
        let suffix = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        self.endpoint.clone().unwrap_or_else(|| format!("https://kms.{}.{suffix}", self.region))
    }
}

/// The slot.
pub struct KmsSlot {
    client: KmsClient,
    shelf: Shelf,
    installation: InstallationId,
    deletion_window_days: u8,
    minimum_interval: Duration,
    stale_pause: Duration,
}

impl KmsSlot {
    /// The slot with its folder, which is made, with mode 0700, if it is missing. The service is not asked yet.
    ///
    /// # Errors
    /// [`SlotError::Setup`], or what is wrong with the folder.
    pub fn prepare(setup: &KmsSetup, installation: InstallationId) -> Result<Self> {
        let slot = Self::new(setup, installation)?;
        slot.shelf.files.prepare()?;
        Ok(slot)
    }

    /// The slot on an existing folder; nothing is written, the service is not asked yet.
    ///
    /// # Errors
    /// As [`KmsSlot::prepare`].
    pub fn at(setup: &KmsSetup, installation: InstallationId) -> Result<Self> {
        let slot = Self::new(setup, installation)?;
        slot.shelf.files.check()?;
        Ok(slot)
    }

    fn new(setup: &KmsSetup, installation: InstallationId) -> Result<Self> {
        Ok(Self {
            client: KmsClient::new(setup)?,
            shelf: Shelf::new(&setup.folder, &installation),
            installation,
            deletion_window_days: setup.deletion_window_days,
            minimum_interval: setup.minimum_interval,
            stale_pause: setup.stale_pause,
        })
    }

    /// Runs file work where it may block.
    async fn on_shelf<T: Send + 'static>(&self, work: impl FnOnce(&Shelf) -> Result<T> + Send + 'static) -> Result<T> {
        let shelf = self.shelf.clone();
        let path = shelf.files.directory().to_owned();
        tokio::task::spawn_blocking(move || work(&shelf)).await.map_err(|fault| SlotError::Io {
            what: "work in",
            path,
            source: std::io::Error::other(fault),
        })?
    }

    /// What a wrapped root is bound to.
    fn context(&self, generation: Generation) -> [(&'static str, String); 3] {
        [
            (INSTALLATION_TAG, hex::encode(self.installation)),
            (GENERATION_TAG, generation.to_string()),
            ("wangchuan-suite", "aws-kms-symmetric-default".to_owned()),
        ]
    }

    /// The tags of a generation's key.
    fn tags(&self, generation: Generation) -> [(&'static str, String); 2] {
        let [installation, generation, _] = self.context(generation);
        [installation, generation]
    }

    fn alias(&self, generation: Generation, key_id: &str) -> String {
        format!("{ALIAS}{}/{generation}/{key_id}", hex::encode(self.installation))
    }

    /// The generation and key that a name says, if it is a name of this installation's.
    fn named(&self, alias: &Alias) -> Option<(Generation, String)> {
        let key = alias.target_key_id.as_ref()?;
        let rest = alias.alias_name.strip_prefix(ALIAS)?.strip_prefix(&hex::encode(self.installation))?;
        let (generation, _) = rest.strip_prefix('/')?.split_once('/')?;
        let generation = generation.parse().ok().filter(|generation| *generation > 0)?;
        // A name that was put on another key is no name of ours.
        (alias.alias_name == self.alias(generation, key)).then(|| (generation, key.clone()))
    }

    fn unusable(&self, generation: Generation, key: &str, state: KeyTrouble) -> SlotError {
        let (place, key) = (self.client.place().to_owned(), key.to_owned());
        SlotError::KeyUnusable { generation, place, key, state }
    }

    fn unfit(&self, what: &'static str) -> SlotError {
        SlotError::Unfit { place: self.client.place().to_owned(), what }
    }

    /// A call on a key that the service may not know yet.
    async fn patiently<T, F>(&self, call: impl Fn() -> F + Send + Sync) -> client::Answer<T>
    where
        F: Future<Output = client::Answer<T>> + Send,
    {
        let mut pause = self.stale_pause;
        for _ in 1..STALE_TRIES {
            match call().await? {
                Err(Refusal::Absent | Refusal::State) => tokio::time::sleep(pause).await,
                answer => return Ok(answer),
            }
            pause *= 2;
        }
        call().await
    }

    /// A key for a new generation: the one that an earlier call made before it stopped, otherwise a new one.
    async fn make_key(&self, generation: Generation) -> Result<KeyMetadata> {
        let had_begun = self.on_shelf(move |shelf| shelf.get(generation, Kind::Intent)).await?.is_some();
        if had_begun && let Some(found) = self.left_key(generation).await? {
            return Ok(found);
        }
        self.on_shelf(move |shelf| shelf.put(generation, Kind::Intent, Vec::new(), None)).await?;
        let description = format!("wangchuan root of generation {generation}");
        self.client.create_key(&description, &self.tags(generation)).await
    }

    /// A key that an earlier call made for a generation and that still works.
    async fn left_key(&self, generation: Generation) -> Result<Option<KeyMetadata>> {
        let named = self.client.aliases().await?.into_iter().filter_map(|alias| self.named(&alias));
        let mut candidates: Vec<String> = named.filter(|(of, _)| *of == generation).map(|(_, key)| key).collect();
        for key in self.client.keys(SEARCHED_KEYS).await? {
            let tags = self.client.tags(&key).await?;
            let wanted = self.tags(generation).map(|(name, value)| (name.to_owned(), value));
            if wanted.iter().all(|tag| tags.contains(tag)) {
                candidates.push(key);
            }
        }
        for key in candidates {
            if let Ok(found) = self.client.describe(&key).await?
                && found.state() == KeyState::Enabled
                && found.unfit().is_none()
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The keys that may have wrapped the root of each generation: those on the shelf, and those that the names in the service
    /// say.
    async fn keys_by_generation(&self, aliases: &[Alias]) -> Result<BTreeMap<Generation, BTreeSet<String>>> {
        let mut found: BTreeMap<Generation, BTreeSet<String>> = BTreeMap::new();
        for (generation, key) in aliases.iter().filter_map(|alias| self.named(alias)) {
            found.entry(generation).or_default().insert(key);
        }
        let records = self.on_shelf(|shelf| {
            let mut records = Vec::new();
            for generation in shelf.files.generations(Kind::Wrapped)? {
                match shelf.get(generation, Kind::Wrapped) {
                    Ok(record) => records.push((generation, record)),
                    // There in some form; which key it was under is known by its name in the service.
                    Err(SlotError::Damaged { .. }) => records.push((generation, None)),
                    Err(error) => return Err(error),
                }
            }
            Ok(records)
        });
        for (generation, record) in records.await? {
            let keys = found.entry(generation).or_default();
            keys.extend(record.iter().flat_map(Record::key_ids));
        }
        Ok(found)
    }

    /// What the shelf and the names in the service know about the keys of one generation: those on the shelf, and the ids of all.
    /// It is made sure that the service which answers is the one that has them.
    async fn keys_of(&self, generation: Generation) -> Result<(Vec<ShelvedKey>, BTreeSet<String>)> {
        let records = self.on_shelf(move |shelf| {
            // A damaged record cannot say which key it was; its name in the service does.
            let wrapped = match shelf.get(generation, Kind::Wrapped) {
                Err(SlotError::Damaged { .. }) => None,
                record => record?,
            };
            Ok([shelf.get(generation, Kind::Gone)?, wrapped])
        });
        let mut shelved: Vec<ShelvedKey> = Vec::new();
        for key in records.await?.into_iter().flatten().flat_map(|record| record.keys) {
            if shelved.iter().all(|known| known.arn != key.arn) {
                shelved.push(key);
            }
        }
        let aliases = self.client.aliases().await?;
        self.check_place(&shelved, &aliases)?;
        let named = aliases.iter().filter_map(|alias| self.named(alias));
        let mut ids: BTreeSet<String> = named.filter(|(of, _)| *of == generation).map(|(_, key)| key).collect();
        ids.extend(shelved.iter().map(|key| key_id(&key.arn).to_owned()));
        Ok((shelved, ids))
    }

    /// Opens the wrapped root of a record that was read from `path`.
    async fn open_record(&self, record: &Record, path: &Path) -> Result<Key> {
        let generation = record.generation;
        let (Some(key), Some(wrapped)) = (record.keys.first(), &record.root) else {
            return Err(damaged(path, "not the record of a wrapped root"));
        };
        let refusal = match self.client.unwrap_root(&key.arn, wrapped, &self.context(generation)).await? {
            Ok(root) => return Ok(root),
            Err(refusal) => refusal,
        };
        let trouble = match self.client.describe(&key.arn).await? {
            Err(Refusal::Absent) => {
                self.check_place(&record.keys, &self.client.aliases().await?)?;
                KeyTrouble::Deleted
            }
            Ok(found) => match found.state() {
                KeyState::PendingDeletion(at) => KeyTrouble::Doomed(at),
                KeyState::Disabled => KeyTrouble::Disabled,
                KeyState::Enabled if refusal == Refusal::Ciphertext => {
                    return Err(damaged(path, "the key service does not open it"));
                }
                KeyState::Enabled => return Err(self.client.odd("it says that a key works, and does not use it")),
                KeyState::Other => KeyTrouble::Other,
            },
            Err(_) => KeyTrouble::Other,
        };
        Err(self.unusable(generation, key_id(&key.arn), trouble))
    }

    /// Orders the deletion of one key.
    async fn doom(&self, key: &str) -> Result<(Option<ShelvedKey>, Doomed)> {
        let doomed = self.client.doom(key, self.deletion_window_days, self.stale_pause).await?;
        let shelved =
            |found: &KeyMetadata| ShelvedKey { arn: found.arn.clone(), never_exportable: found.never_exportable() };
        Ok((doomed.key.as_ref().map(shelved), doomed))
    }

    /// Whether the service that answers is the one that held these keys.
    fn check_place(&self, keys: &[ShelvedKey], aliases: &[Alias]) -> Result<()> {
        self.client.check_place(keys.iter().map(|key| place_of(&key.arn)), aliases)
    }
}

impl Record {
    fn key_ids(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|key| key_id(&key.arn).to_owned())
    }
}

/// The id of a key in its full name.
fn key_id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

#[async_trait]
impl RootSlot for KmsSlot {
    fn claim(&self) -> SlotClaim {
        doom::claim()
    }

    fn abilities(&self) -> SlotAbilities {
        let days = u16::from(self.deletion_window_days);
        SlotAbilities {
            // The service may be a day later than it says.
            destroys: Destroys::Delayed { at_least_days: days, at_most_days: days + 1 },
            is_cancellable: true,
            proves_not_exported: true,
            has_rollback_counter: false,
            minimum_interval: self.minimum_interval,
            residual_days: Some(0),
        }
    }

    async fn create(&self, generation: Generation, random: &dyn Random) -> Result<Key> {
        let _lock = self.on_shelf(|shelf| shelf.files.lock()).await?;
        match self.open(generation).await {
            Err(SlotError::Missing { .. }) => {}
            present => return present,
        }
        let made = self.make_key(generation).await?;
        self.client.create_alias(&self.alias(generation, &made.key_id), &made.key_id).await?;
        if let Some(why) = made.unfit() {
            return Err(self.unfit(why));
        }
        let root = Key::make(random)?;
        let context = self.context(generation);
        let wrapped = self.patiently(|| self.client.wrap(&made.arn, &root, &context)).await?;
        let wrapped = wrapped.map_err(|_| self.client.odd("it does not know the key that it has just made"))?;
        let opened = self.patiently(|| self.client.unwrap_root(&made.arn, &wrapped, &context)).await?;
        if !opened.is_ok_and(|opened| opened.is_same(&root)) {
            return Err(self.unfit("it does not open what it has just wrapped"));
        }
        let key = ShelvedKey { arn: made.arn.clone(), never_exportable: made.never_exportable() };
        self.on_shelf(move |shelf| {
            shelf.put(generation, Kind::Wrapped, vec![key], Some(wrapped))?;
            shelf.files.remove(generation, Kind::Intent)?;
            // Of an earlier attempt at this generation, which was given up.
            shelf.files.remove(generation, Kind::Gone).map(|_| ())
        })
        .await?;
        Ok(root)
    }

    async fn open(&self, generation: Generation) -> Result<Key> {
        let record = self.on_shelf(move |shelf| {
            shelf.files.check()?;
            shelf.get(generation, Kind::Wrapped)
        });
        let missing = || SlotError::Missing { generation, place: self.client.place().to_owned() };
        let record = record.await?.ok_or_else(missing)?;
        self.open_record(&record, &self.shelf.files.path(generation, Kind::Wrapped)).await
    }

    fn wrapping(&self) -> Option<&dyn WrappingSlot> {
        Some(self)
    }

    async fn list(&self) -> Result<Vec<PresentGeneration>> {
        let aliases = self.client.aliases().await?;
        let mut present = Vec::new();
        for (generation, keys) in self.keys_by_generation(&aliases).await? {
            let mut presence = None;
            for key in keys {
                let Ok(found) = self.client.describe(&key).await? else { continue };
                presence = Some(match (found.state(), presence) {
                    (KeyState::PendingDeletion(at), Some(Presence::Doomed(other))) => Presence::Doomed(at.max(other)),
                    (KeyState::PendingDeletion(at), None) => Presence::Doomed(at),
                    // Switched off is not gone.
                    _ => Presence::Usable,
                });
            }
            present.extend(presence.map(|presence| PresentGeneration { generation, presence }));
        }
        Ok(present)
    }

    async fn destroy(&self, generation: Generation) -> Result<DestroyEvidence> {
        let _lock = self.on_shelf(|shelf| shelf.files.lock()).await?;
        let (mut shelved, keys) = self.keys_of(generation).await?;
        let (mut steps, mut irrevocable_at) = (Vec::new(), None);
        for key in keys {
            let (known, doomed) = self.doom(&key).await?;
            if doomed.is_ordered {
                steps.push(DestroyStep::ServiceScheduled);
            }
            irrevocable_at = irrevocable_at.max(doomed.at);
            // What was known of a key before is kept: it may be gone by now.
            shelved.extend(known.filter(|key| shelved.iter().all(|known| known.arn != key.arn)));
        }
        let was_present = self
            .on_shelf(move |shelf| {
                if !shelved.is_empty() {
                    shelf.put(generation, Kind::Gone, shelved, None)?;
                }
                shelf.files.remove_draft(generation)?;
                let was_there = shelf.files.remove(generation, Kind::Wrapped)?;
                Ok(shelf.files.remove(generation, Kind::Intent)? || was_there)
            })
            .await?;
        if was_present {
            steps.extend([DestroyStep::Overwritten, DestroyStep::Flushed, DestroyStep::Unlinked]);
        }
        steps.push(DestroyStep::DirectoryFlushed);
        Ok(DestroyEvidence { generation, claim: self.claim(), was_present, steps, irrevocable_at })
    }

    async fn verify_gone(&self, generation: Generation) -> Result<GoneEvidence> {
        self.on_shelf(move |shelf| {
            for kind in [Kind::Wrapped, Kind::Intent] {
                if shelf.files.generations(kind)?.contains(&generation) {
                    return Err(SlotError::StillThere { generation, what: "its wrapped form is on this host" });
                }
            }
            Ok(())
        })
        .await?;
        let (shelved, keys) = self.keys_of(generation).await?;
        let mut waits = None;
        for key in keys {
            let Ok(found) = self.client.describe(&key).await? else { continue };
            let KeyState::PendingDeletion(at) = found.state() else {
                let what = "the service has a key that wrapped it, and it is not to be deleted";
                return Err(SlotError::StillThere { generation, what });
            };
            waits = waits.max(Some(at));
        }
        if let Some(at) = waits {
            return Err(SlotError::NotYet { generation, at });
        }
        let mut checks = vec![GoneCheck::NameAbsent, GoneCheck::ContentAbsent];
        if !shelved.is_empty() {
            checks.push(GoneCheck::ServiceReadBack);
            if shelved.iter().all(|key| key.never_exportable) {
                checks.push(GoneCheck::NeverExportable);
            }
        }
        // Without a record nothing says which keys it had, so nothing is said about the service.
        Ok(GoneEvidence { generation, checks, read_back: None, token: None })
    }
}
