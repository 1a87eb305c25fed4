//! The root slot in the transit engine of OpenBao or Vault: class B, because the live service destroys, and copies of it do not.
//!
//! Every generation has a version of one key of its own. The slot draws the root key, lets the service wrap it under the
//! newest version, and keeps the wrapped form on the shelf (`slot_shelf.rs`). The associated data of the wrapping is
//! installation, generation and format, so that a wrapped root opens as nothing else.
//!
//! Destroying the root of a generation means that no version up to its own is left in the service: `min_decryption_version` is
//! raised (reversible by itself, never evidence), then `trim` destroys, then `min_available_version` is read back. The service
//! refuses an old version in the same words before and after a trim, so only that number is evidence, together with the
//! switches `exportable` and `allow_plaintext_backup`: they only go one way, so finding them off shows that they always were.
//!
//! A version can only be trimmed together with all below it. A root that was made and never used lies above the one in force:
//! its wrapped form is wiped, its version stays until the next trim, and until then nobody says that it is gone.
//!
//! What this does not reach: copies of the service's storage together with its unseal keys, and its own log until that is
//! cut. The operator declares for how many days such copies live; the date stands in certificates. The key must belong to this
//! installation alone: trimming would destroy what others wrapped. A key that was used before is refused for a first root.

mod client;
mod outside;
mod signing;
#[cfg(test)]
mod tests;
mod wire;
mod wrapping;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use self::client::TransitClient;
pub use self::outside::TransitKeys;
pub use self::signing::TransitSigning;
use self::wire::KeyState;
use super::slot::{
    ClaimSentence, DestroyEvidence, DestroyStep, Destroys, GoneCheck, GoneEvidence, Presence, PresentGeneration,
    ReadBack, Residual, RootSlot, Shortcoming, SlotAbilities, SlotClaim, SlotClass, SlotError, SlotKind,
};
use super::slot_shelf::{Kind, Record, Shelf, damaged};
use super::wrapped_root::WrappingSlot;
use super::{Generation, InstallationId, Key};
use crate::policy::registry::SecretText;
use crate::random::Random;

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// How the agent shows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransitAuth {
    /// A token, which is renewed while it can be.
    Token(SecretText),
    /// A role; the agent logs in by itself and again when its token ends.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// The role.
        role_id: SecretText,
        /// Its secret.
        secret_id: SecretText,
    },
}

/// Which key to use, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransitSetup {
    /// `https://…`, or `http://` on a loopback address.
    pub address: String,
    /// Where the transit engine is mounted.
    pub mount: String,
    /// The name of the key; this installation's alone.
    pub key: String,
    /// The namespace, if any.
    pub namespace: Option<String>,
    /// Certificate authorities in PEM to trust instead of the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Who the agent is.
    pub auth: TransitAuth,
    /// The folder of wrapped roots.
    pub folder: PathBuf,
    /// For how many days copies of the service's storage are kept, its snapshots above all.
    pub snapshot_retention_days: u32,
    /// Time for a whole exchange, if not the usual.
    pub timeout: Option<Duration>,
}

impl TransitSetup {
    /// Where the key is, in words.
    fn place(&self) -> String {
        format!("{} {}/keys/{}", self.address, self.mount, self.key)
    }
}

/// The slot.
pub struct TransitSlot {
    client: TransitClient,
    shelf: Shelf,
    installation: InstallationId,
    snapshot_retention_days: u32,
}

impl TransitSlot {
    /// The slot with its folder, which is made, with mode 0700, if it is missing. The service is not asked yet.
    ///
    /// # Errors
    /// [`SlotError::Setup`], or what is wrong with the folder.
    pub fn prepare(setup: &TransitSetup, installation: InstallationId) -> Result<Self> {
        let slot = Self::new(setup, installation)?;
        slot.shelf.files.prepare()?;
        Ok(slot)
    }

    /// The slot on an existing folder; nothing is written, the service is not asked yet.
    ///
    /// # Errors
    /// As [`TransitSlot::prepare`].
    pub fn at(setup: &TransitSetup, installation: InstallationId) -> Result<Self> {
        let slot = Self::new(setup, installation)?;
        slot.shelf.files.check()?;
        Ok(slot)
    }

    fn new(setup: &TransitSetup, installation: InstallationId) -> Result<Self> {
        let client = TransitClient::new(setup)?;
        let shelf = Shelf::new(&setup.folder, &installation, &setup.mount, &setup.key);
        Ok(Self { client, shelf, installation, snapshot_retention_days: setup.snapshot_retention_days })
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
    fn associated_data(&self, generation: Generation) -> Vec<u8> {
        [b"wangchuan root 1".as_slice(), &self.installation, &generation.to_be_bytes(), b"aes256-gcm96"].concat()
    }

    fn unfit(&self, what: &'static str) -> SlotError {
        SlotError::Unfit { place: self.client.place().to_owned(), what }
    }

    /// The key's state; a key that is not there is an error, for it never goes by itself.
    async fn key_state(&self) -> Result<KeyState> {
        self.client.key_state().await?.ok_or_else(|| self.unfit("there is no such key"))
    }

    /// The version for a new generation: one that no other generation had. The intent is durable before the version is made,
    /// so that a repeated call uses the version of the call before.
    async fn make_version(&self, generation: Generation, state: &KeyState) -> Result<u64> {
        let intent = self.on_shelf(move |shelf| shelf.get(generation, Kind::Intent)).await?;
        let first = intent.as_ref().map_or(state.latest_version + 1, |intent| intent.version);
        if intent.is_none() {
            self.on_shelf(move |shelf| shelf.put(generation, Kind::Intent, first, None)).await?;
        }
        if state.latest_version >= first { Ok(state.latest_version) } else { self.client.rotate().await }
    }

    /// A wrapped root that the service does not open: why.
    async fn explain(&self, record: &Record) -> SlotError {
        let state = match self.key_state().await {
            Ok(state) => state,
            Err(error) => return error,
        };
        let (generation, version, place) = (record.generation, record.version, self.client.place().to_owned());
        if state.soft_deleted {
            self.unfit("it is deleted for now")
        } else if version < state.lowest() {
            SlotError::VersionGone { generation, place, version, lowest: state.lowest() }
        } else if version < state.min_decryption_version {
            SlotError::VersionDisabled { generation, place, version, lowest: state.min_decryption_version }
        } else {
            damaged(&self.shelf.files.path(generation, Kind::Wrapped), "the key service does not open it")
        }
    }

    /// Destroys every version below `floor` and reads back that they are gone.
    async fn trim_below(&self, floor: u64) -> Result<()> {
        let state = self.key_state().await?;
        if state.min_available_version < floor {
            // Never lowered: whoever raised it further meant it.
            let least = floor.max(state.min_decryption_version).max(state.min_encryption_version);
            self.client.forbid_below(least).await?;
            self.client.trim(floor).await?;
        }
        let state = self.key_state().await?;
        if state.min_available_version < floor {
            let what = "it says that it destroyed old versions of the key, and still has them".to_owned();
            return Err(SlotError::Unavailable { place: self.client.place().to_owned(), what });
        }
        Ok(())
    }

    /// The lowest version that must stay. The service decides which of the other roots still live: what it trimmed is nothing
    /// to be kept, whatever lies on the shelf.
    async fn floor(&self, plan: &Plan) -> Result<u64> {
        let state = self.key_state().await?;
        let live = plan.others.iter().map(|(_, version)| *version).filter(|version| *version >= state.lowest());
        match live.min() {
            Some(lowest) => Ok(lowest),
            // The last root of this slot: a version that nothing rests on takes the place of all that were used.
            None => match plan.version {
                Some(version) if state.latest_version > version => Ok(version + 1),
                _ => self.client.rotate().await,
            },
        }
    }

    fn evidence(&self, generation: Generation, was_present: bool, steps: Vec<DestroyStep>) -> DestroyEvidence {
        DestroyEvidence { generation, claim: self.claim(), was_present, steps, irrevocable_at: None }
    }

    /// Removes what this host has of a generation and remembers which version it had. The whole of what can be done to a root
    /// that was never used.
    async fn clear_shelf(&self, generation: Generation, version: Option<u64>) -> Result<bool> {
        self.on_shelf(move |shelf| {
            if let Some(version) = version {
                shelf.put(generation, Kind::Gone, version, None)?;
            }
            shelf.files.remove_draft(generation)?;
            let was_there = shelf.files.remove(generation, Kind::Wrapped)?;
            Ok(shelf.files.remove(generation, Kind::Intent)? || was_there)
        })
        .await
    }
}

/// What the shelf says about a generation that is to be destroyed, and about all others.
struct Plan {
    /// The version of its root, if that can be told.
    version: Option<u64>,
    /// Whether a wrapped form of it, readable or not, is there.
    is_there: bool,
    /// Generation and version of every other wrapped root.
    others: Vec<(Generation, u64)>,
    /// Whether a root that was not destroyed belongs to an older generation: then this one was never used.
    is_unused: bool,
}

impl Plan {
    /// A record of another generation that cannot be read makes it unknown what must be kept: nothing is destroyed then.
    fn read(shelf: &Shelf, generation: Generation) -> Result<Self> {
        let present = shelf.files.generations(Kind::Wrapped)?;
        let record = match shelf.get(generation, Kind::Wrapped) {
            // Its version is unknown then, and not needed: all below the others goes.
            Err(SlotError::Damaged { .. }) => None,
            record => record?,
        };
        let version = record.or(shelf.get(generation, Kind::Gone)?).map(|record| record.version);
        let (mut others, mut is_unused) = (Vec::new(), false);
        for other in present.iter().copied().filter(|other| *other != generation) {
            others.extend(shelf.get(other, Kind::Wrapped)?.map(|record| (other, record.version)));
            is_unused |= other < generation && shelf.get(other, Kind::Gone)?.is_none();
        }
        Ok(Self { version, is_there: present.contains(&generation), others, is_unused })
    }
}

#[async_trait]
impl RootSlot for TransitSlot {
    fn claim(&self) -> SlotClaim {
        SlotClaim {
            kind: SlotKind::Transit,
            class: SlotClass::B,
            sentence: ClaimSentence::DestroyedInLiveService,
            residuals: vec![Residual::ServiceBackups, Residual::ServiceLog, Residual::MemoryCapture],
            residual_days: Some(self.snapshot_retention_days),
        }
    }

    fn abilities(&self) -> SlotAbilities {
        SlotAbilities {
            destroys: Destroys::Immediately,
            is_cancellable: false,
            proves_not_exported: true,
            has_rollback_counter: false,
            minimum_interval: Duration::ZERO,
            residual_days: Some(self.snapshot_retention_days),
        }
    }

    async fn create(&self, generation: Generation, random: &dyn Random) -> Result<Key> {
        let _lock = self.on_shelf(|shelf| shelf.files.lock()).await?;
        match self.open(generation).await {
            Err(SlotError::Missing { .. }) => {}
            present => return present,
        }
        let state = self.key_state().await?;
        if let Some(why) = state.unfit() {
            return Err(self.unfit(why));
        }
        let is_first = self.on_shelf(Shelf::is_new).await?;
        if is_first && (state.latest_version > 1 || state.min_available_version > 1) {
            return Err(
                self.unfit("it was used before, perhaps by another installation: destroying here would destroy there")
            );
        }
        let version = self.make_version(generation, &state).await?;
        let root = Key::make(random)?;
        let bound_to = self.associated_data(generation);
        let wrapped = self.client.wrap(&root, &bound_to, version).await?;
        match self.client.unwrap_root(&wrapped, &bound_to).await? {
            Some(opened) if opened.is_same(&root) => {}
            _ => return Err(self.unfit("it does not open what it has just wrapped")),
        }
        self.on_shelf(move |shelf| {
            shelf.put(generation, Kind::Wrapped, version, Some(wrapped))?;
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
        self.open_wrapped(&record.await?.ok_or_else(missing)?).await
    }

    async fn list(&self) -> Result<Vec<PresentGeneration>> {
        let state = self.key_state().await?;
        let lowest = state.lowest();
        self.on_shelf(move |shelf| {
            let mut present = Vec::new();
            for generation in shelf.files.generations(Kind::Wrapped)? {
                let is_trimmed = match shelf.get(generation, Kind::Wrapped) {
                    Ok(record) => record.is_none_or(|record| record.version < lowest),
                    // Damaged: there in some form.
                    Err(SlotError::Damaged { .. }) => false,
                    Err(error) => return Err(error),
                };
                if !is_trimmed {
                    present.push(PresentGeneration { generation, presence: Presence::Usable });
                }
            }
            Ok(present)
        })
        .await
    }

    async fn destroy(&self, generation: Generation) -> Result<DestroyEvidence> {
        let _lock = self.on_shelf(|shelf| shelf.files.lock()).await?;
        let plan = self.on_shelf(move |shelf| Plan::read(shelf, generation)).await?;
        let (mut version, mut steps) = (plan.version, Vec::new());
        let was_used = (version.is_some() || plan.is_there) && !plan.is_unused;
        if was_used {
            let floor = self.floor(&plan).await?;
            if version.is_none_or(|version| version < floor) {
                self.trim_below(floor).await?;
                steps.push(DestroyStep::ServiceDestroyed);
                version = version.or(Some(floor.saturating_sub(1).max(1)));
            }
        }
        let was_present = self.clear_shelf(generation, version).await?;
        if was_present {
            steps.extend([DestroyStep::Overwritten, DestroyStep::Flushed, DestroyStep::Unlinked]);
        }
        steps.push(DestroyStep::DirectoryFlushed);
        Ok(self.evidence(generation, was_present, steps))
    }

    async fn verify_gone(&self, generation: Generation) -> Result<GoneEvidence> {
        let state = self.key_state().await?;
        let gone = self
            .on_shelf(move |shelf| {
                for kind in [Kind::Wrapped, Kind::Intent] {
                    if shelf.files.generations(kind)?.contains(&generation) {
                        return Err(SlotError::StillThere { generation, what: "its wrapped form is on this host" });
                    }
                }
                shelf.get(generation, Kind::Gone)
            })
            .await?;
        let mut checks = vec![GoneCheck::NameAbsent, GoneCheck::ContentAbsent];
        let Some(gone) = gone else {
            // Nothing says which version it had, so nothing is said about the service.
            return Ok(GoneEvidence { generation, checks, read_back: None, token: None });
        };
        if state.min_available_version <= gone.version {
            return Err(SlotError::StillThere {
                generation,
                what: "the service still has the version that wrapped it",
            });
        }
        checks.push(GoneCheck::ServiceReadBack);
        if !state.exportable && !state.allow_plaintext_backup {
            checks.push(GoneCheck::NeverExportable);
        }
        let read_back = ReadBack {
            key_version: gone.version,
            min_available_version: state.min_available_version,
            exportable: state.exportable,
            allow_plaintext_backup: state.allow_plaintext_backup,
            deletion_allowed: state.deletion_allowed,
        };
        Ok(GoneEvidence { generation, checks, read_back: Some(read_back), token: None })
    }

    fn wrapping(&self) -> Option<&dyn WrappingSlot> {
        Some(self)
    }

    async fn shortcomings(&self) -> Result<Vec<Shortcoming>> {
        let mut found = Vec::new();
        let state = self.key_state().await?;
        for (switch, on) in [
            ("exportable", state.exportable),
            ("allow_plaintext_backup", state.allow_plaintext_backup),
            ("deletion_allowed", state.deletion_allowed),
        ] {
            if on {
                found.push(Shortcoming::SwitchOn { switch });
            }
        }
        let wrapped = self.on_shelf(|shelf| {
            let records =
                shelf.files.generations(Kind::Wrapped)?.into_iter().map(|found| shelf.get(found, Kind::Wrapped));
            Ok(records.filter_map(|record| record.ok().flatten()).map(|record| record.version).collect::<Vec<_>>())
        });
        let (lowest, enabled) = (state.lowest(), state.min_decryption_version);
        let off = wrapped.await?.into_iter().filter(|version| (lowest..enabled).contains(version));
        found.extend(off.map(|version| Shortcoming::VersionOff { version }));
        found.extend(self.wrong_rights().await?);
        Ok(found)
    }
}

/// What the agent must be able to do in the service, and what it must not.
struct Rights {
    /// Paths with the capability that is needed.
    needed: Vec<(String, &'static str)>,
    /// Paths with capabilities that nothing needs.
    unwanted: Vec<(String, Vec<&'static str>)>,
}

impl TransitSlot {
    /// Lets the service open a wrapped root.
    async fn open_wrapped(&self, record: &Record) -> Result<Key> {
        let wrapped = record.root.as_deref().unwrap_or_default();
        match self.client.unwrap_root(wrapped, &self.associated_data(record.generation)).await? {
            Some(root) => Ok(root),
            None => Err(self.explain(record).await),
        }
    }

    /// Rights that the agent lacks, and those that nothing needs.
    async fn wrong_rights(&self) -> Result<Vec<Shortcoming>> {
        let key = self.client.key_path("");
        let (mount, name) = key.split_once("/keys/").unwrap_or_default();
        let needed = vec![
            (key.clone(), "read"),
            (format!("{key}/rotate"), "update"),
            (format!("{key}/config"), "update"),
            (format!("{key}/trim"), "update"),
            (format!("{mount}/encrypt/{name}"), "update"),
            (format!("{mount}/decrypt/{name}"), "update"),
        ];
        let unwanted = vec![
            (key.clone(), vec!["delete", "create", "update"]),
            (format!("{mount}/export/encryption-key/{name}"), vec!["read"]),
            (format!("{mount}/backup/{name}"), vec!["read"]),
            (format!("{mount}/restore/{name}"), vec!["create", "update"]),
        ];
        Self::rights_of(&self.client, &Rights { needed, unwanted }).await
    }

    /// Where the service's word differs from what is wanted.
    async fn rights_of(client: &TransitClient, wanted: &Rights) -> Result<Vec<Shortcoming>> {
        let mut found = Vec::new();
        let needed = wanted.needed.iter().map(|(path, _)| path);
        let paths: Vec<String> = needed.chain(wanted.unwanted.iter().map(|(path, _)| path)).cloned().collect();
        let rights = client.rights(&paths).await?;
        let (has, has_not) = rights.split_at(wanted.needed.len().min(rights.len()));
        for ((path, capability), granted) in wanted.needed.iter().zip(has) {
            if !granted.iter().any(|right| right == capability || right == "root") {
                found.push(Shortcoming::MissingRight { path: path.clone(), capability });
            }
        }
        for ((path, refused), granted) in wanted.unwanted.iter().zip(has_not) {
            let excess = granted.iter().find(|right| *right == "root" || refused.contains(&right.as_str()));
            if let Some(capability) = excess.cloned() {
                found.push(Shortcoming::ExcessRight { path: path.clone(), capability });
            }
        }
        Ok(found)
    }
}
