//! The composition root: an installation opened from its configuration. Builds adapters; decides nothing.
//!
//! One live process holds the work lease and may destroy, back up and run the embedded services; others read status and
//! write rows beside it.

mod alerts;
mod clock_check;
mod founding;
mod heartbeat;
mod lease;
mod lock_horizon;
mod operation;
mod outside;
mod recovery;
mod root_slot;
mod second_place;
mod serve;
mod services;
mod signing;
mod stamps;
#[cfg(test)]
mod tests;
mod witness_notes;
mod work_lock;

pub use alerts::BulkAlert;
pub use clock_check::{MAX_CLOCK_DIFFERENCE, MAX_CLOCK_LEAP};
pub use lease::who_works;
pub use lock_horizon::{LEAST_LOCK, LockHorizon, lock_horizons};
pub use operation::Operation;
pub use recovery::{Recovered, rebuild, rebuild_apart, recover_site};
pub use serve::{LogService, log_refusals, serve_embedded, start_service};
pub use services::{
    AuditConnection, BackupConnection, LogView, acknowledgement_keys, audit_log_key, audit_log_keys,
    audit_log_operator, operation_log, prove_bucket, settle_interrupted, view_certificate_log, view_operation_log,
};
pub use stamps::{StampConnection, stamp_connection, stamp_trust};
pub use witness_notes::{WitnessNote, witness_notes};

pub use signing::{ManifestSigner, end_of, placed_key_id};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::audit::receipt::LogOperator;
use crate::backup::object_store::RepositoryError;
use crate::certify::statement::Limitation;
use crate::clock::Clock;
use crate::config::{AuditService, Configuration, StateLocation};
use crate::control::{Control, shared_holder};
use crate::erase::{Ground, Replica, Site};
use crate::error::{Result, TaskError};
use crate::keyring::Keyring;
use crate::plan::model::resolve;
use crate::policy::registry::StoreSpec;
use crate::policy::statute::rules::PolicyRule;
use crate::random::{Random, uuid7};
use crate::stop::{InHand, Stop};
use crate::stores::{DataStore, Limits, StoreAddress};
use heartbeat::Heartbeat;
use work_lock::WorkLock;

/// The lease under which everything that destroys, backs up or serves runs.
pub const WORK_LEASE: &str = "work";
/// How long the lease lasts without being renewed.
pub const LEASE_SECONDS: i64 = 600;
/// Tenths of a second that the hold barrier waits: longer than a batch may run.
const BARRIER_TRIES: u32 = 1200;

/// An opened installation.
pub struct Installation {
    /// Its configuration.
    pub config: Configuration,
    /// Its control database.
    pub control: Control,
    /// Its key tree.
    pub keyring: Keyring,
    /// Its signing key.
    pub signer: ManifestSigner,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// The fencing token of the work lease, 0 without it.
    pub token: i64,
    /// Who acts, for the operation log.
    pub operator: String,
    /// Whether it is the agent that acts, by its calendar.
    pub is_scheduled: bool,
    sites: Vec<Site>,
    skipped: Vec<(String, String)>,
    misfits: Vec<String>,
    policy_digest: String,
    backup: Option<BackupConnection>,
    audit: Option<AuditConnection>,
    holder: String,
    work_lock: Option<WorkLock>,
    heartbeat: Option<Heartbeat>,
    id: [u8; 16],
    stop: Arc<Stop>,
    bucket_fault: Option<RepositoryError>,
    /// Why neither the second place nor the audit log could confirm that this control database is the newest.
    doubt: std::sync::Mutex<Option<String>>,
}

/// What to open beyond the control database and the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four things, each needed or not, in any combination")]
pub struct Needs {
    /// The stores, with their catalogues.
    pub stores: bool,
    /// The bucket.
    pub backup: bool,
    /// The audit service.
    pub audit: bool,
    /// The work lease.
    pub lease: bool,
}

impl Needs {
    /// Only state.
    pub const STATE: Self = Self { stores: false, backup: false, audit: false, lease: false };
    /// Everything, and the lease.
    pub const ALL: Self = Self { stores: true, backup: true, audit: true, lease: true };
}

/// The folder of signing keys, the log's anchor and the work lock; that of the control database where it is a file.
#[must_use]
pub fn state_folder(config: &Configuration) -> PathBuf {
    match &config.agent.state {
        StateLocation::Sqlite(path) => path.parent().map(Path::to_path_buf).unwrap_or_default(),
        StateLocation::Postgres(_) => config.agent.folder.clone(),
    }
}

impl Installation {
    /// Opens an installation.
    ///
    /// # Errors
    /// When something needed is missing or another process holds the lease.
    pub async fn open(
        config: Configuration,
        needs: Needs,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self> {
        let control = Control::open_at(&config.agent.state).await?;
        let installation = control.read().await?.installation().await?;
        let slot = root_slot::open(&config.root, installation)?;
        let keyring = Keyring::new(installation, slot, random.clone());
        let signer = ManifestSigner::open(&config, &control, installation).await?;
        let mut holder = uuid7(clock.now(), random.as_ref())?;
        if control.is_shared() {
            holder = shared_holder(&holder, &host_name());
        }
        let policy_digest = policy_digest(&config);
        let operator =
            std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "agent".to_owned());
        let mut opened = Self {
            config,
            control,
            keyring,
            signer,
            clock,
            random,
            token: 0,
            operator,
            is_scheduled: false,
            sites: Vec::new(),
            skipped: Vec::new(),
            misfits: Vec::new(),
            policy_digest,
            backup: None,
            audit: None,
            holder,
            work_lock: None,
            heartbeat: None,
            id: installation,
            stop: Arc::new(Stop::default()),
            bucket_fault: None,
            doubt: std::sync::Mutex::new(None),
        };
        match opened.open_needed(needs).await {
            Ok(()) => Ok(opened),
            Err(error) => {
                // What was opened so far is given back at once, the lease above all; the first error is the one to report.
                let _ = opened.close().await;
                Err(error)
            }
        }
    }

    async fn open_needed(&mut self, needs: Needs) -> Result<()> {
        if needs.lease {
            self.take_lease().await?;
            // Whoever held the lease before may have put another key into use since it was read.
            self.signer = ManifestSigner::open(&self.config, &self.control, self.id).await?;
        }
        if needs.stores {
            self.connect_stores().await?;
        }
        if needs.audit {
            self.audit = Some(AuditConnection::open(self).await?);
        }
        self.open_second_place(needs).await
    }

    /// The installation's random id.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The adapter of a store.
    ///
    /// # Errors
    /// When its URL is of no known kind.
    pub fn adapter(&self, spec: &StoreSpec) -> Result<Arc<dyn DataStore>> {
        Ok(crate::stores::open(&StoreAddress {
            name: spec.name.clone(),
            url: spec.url.clone(),
            read_url: spec.read_url.clone(),
            base: self.config.base_dir.clone(),
            create: false,
            limits: limits_of(spec),
        })?)
    }

    /// The replicas of a store.
    fn replicas(&self, spec: &StoreSpec) -> Result<Vec<Replica>> {
        let mut replicas = Vec::new();
        for replica in &spec.replicas {
            let store = crate::stores::open(&StoreAddress {
                name: format!("{} (replica {})", spec.name, replica.name),
                url: replica.url.clone(),
                read_url: None,
                base: self.config.base_dir.clone(),
                create: false,
                limits: limits_of(spec),
            })?;
            replicas.push(Replica { spec: replica.clone(), store });
        }
        Ok(replicas)
    }

    async fn connect_stores(&mut self) -> Result<()> {
        for spec in &self.config.registry.stores {
            let store = self.adapter(spec)?;
            let catalogue = match store.catalogue().await {
                Ok(catalogue) => catalogue,
                Err(error) => {
                    self.skipped.push((spec.name.clone(), error.to_string()));
                    continue;
                }
            };
            // A registry that does not fit this database stops this store only; what does not fit is said with it.
            match resolve(spec, &catalogue, &self.config.registry.policies, &self.config.catalogue) {
                Ok(model) => {
                    let replicas = self.replicas(spec)?;
                    self.sites.push(Site { model: Arc::new(model), store, replicas });
                }
                Err(sentences) => {
                    self.skipped.push((spec.name.clone(), sentences.join("; ")));
                    self.misfits.extend(sentences);
                }
            }
        }
        Ok(())
    }

    /// Looks at the stores again: their catalogues may have changed since.
    ///
    /// # Errors
    /// When a store's URL is of no known kind. A store that cannot be reached, or that the registry does not fit any more,
    /// is among [`Installation::skipped`] then.
    pub async fn refresh(&mut self) -> Result<()> {
        self.sites.clear();
        self.skipped.clear();
        self.misfits.clear();
        self.connect_stores().await?;
        if self.bucket_fault.is_some() {
            self.open_second_place(Needs { stores: false, ..Needs::ALL }).await?;
        }
        Ok(())
    }

    /// Puts this installation under a process's switch.
    #[must_use]
    pub fn under(mut self, stop: &Arc<Stop>) -> Self {
        self.stop = Arc::clone(stop);
        self
    }

    /// The switch that, once set, lets no further batch begin.
    #[must_use]
    pub fn stop_switch(&self) -> &Arc<Stop> {
        &self.stop
    }

    /// [`TaskError::Stopping`] once a stop was asked for.
    pub(crate) fn goes_on(&self) -> Result<()> {
        if self.stop.is_asked() { Err(TaskError::Stopping) } else { Ok(()) }
    }

    /// Begins a piece of work that a stop does not cut off; [`TaskError::Stopping`] once one was asked for, or a job is out of time.
    pub(crate) fn begin_piece(&self) -> Result<InHand> {
        self.stop.begin().ok_or(TaskError::Stopping)
    }

    /// The stores that could be reached.
    #[must_use]
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The stores that could not, or that the registry does not fit, with the reasons.
    #[must_use]
    pub fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    /// Where the registry does not fit a database, as sentences for the operator.
    #[must_use]
    pub fn misfits(&self) -> &[String] {
        &self.misfits
    }

    /// Whether the configured bucket stands on this host.
    #[must_use]
    pub fn is_bucket_on_this_host(&self) -> bool {
        self.config
            .backup
            .as_ref()
            .is_some_and(|backup| matches!(backup.endpoint, crate::config::Endpoint::Embedded { .. }))
    }

    /// What the way of filing cannot prove, as certificates say: whether the audited party runs the log itself, or there is none.
    #[must_use]
    pub fn audit_limitation(&self) -> Option<Limitation> {
        if let AuditService::Webhook { acknowledged_by, .. } = &self.config.audit.service {
            let is_signed = acknowledged_by.is_some();
            return Some(if is_signed { Limitation::FiledWithoutLog } else { Limitation::FiledWithoutReceipt });
        }
        let is_self_hosted = match audit_log_key(self) {
            Ok(key) => audit_log_operator(self, &key) == LogOperator::SelfHosted,
            Err(_) => services::is_audit_here(&self.config),
        };
        is_self_hosted.then_some(Limitation::SelfHostedUnwitnessed)
    }

    /// The ground that the eraser works on.
    ///
    /// # Errors
    /// Never at present.
    pub fn ground(&self) -> Result<Ground<'_>> {
        Ok(Ground {
            control: &self.control,
            keyring: &self.keyring,
            clock: self.clock.as_ref(),
            random: self.random.as_ref(),
            sites: &self.sites,
            skipped: &self.skipped,
            policy_digest: &self.policy_digest,
            catalogue: self.config.catalogue.version,
        })
    }

    /// The bucket.
    ///
    /// # Errors
    /// When no backup is configured.
    pub fn backup(&self) -> Result<&BackupConnection> {
        if let Some(fault) = &self.bucket_fault {
            return Err(fault.clone().into());
        }
        self.backup.as_ref().ok_or_else(|| TaskError::Unknown {
            what: "no backup is configured".to_owned(),
            advice: "add a [backup] section to the configuration".to_owned(),
        })
    }

    /// The audit service.
    ///
    /// # Errors
    /// When it was not asked for.
    pub fn audit(&self) -> Result<&AuditConnection> {
        self.audit.as_ref().ok_or_else(|| TaskError::Proof("the audit service was not opened".to_owned()))
    }

    /// Whether destruction is allowed now (P8): not held, lease kept, this control database the newest, clock believable.
    ///
    /// # Errors
    /// Refused, with what to do.
    pub async fn may_destroy(&self) -> Result<()> {
        self.goes_on()?;
        if self.token == 0 {
            return Err(TaskError::refused(
                "this process does not hold the work lease, and nothing is destroyed without it",
                "let the agent do it, or run the command while no agent runs",
            ));
        }
        self.renew_lease().await?;
        check_hold(&mut self.control.read().await?).await?;
        self.leave_no_doubt().await?;
        clock_check::check(&self.control, self.clock.as_ref(), &self.sites).await
    }

    /// Whether destruction is still allowed shortly after [`Installation::may_destroy`] said so: not held, no stop asked for. The clock and the
    /// lease do not change so fast.
    ///
    /// # Errors
    /// Refused, with what to do.
    pub async fn may_still_destroy(&self) -> Result<()> {
        self.goes_on()?;
        check_hold(&mut self.control.read().await?).await
    }

    /// Confirms, on a person's word, that the clock is right: a leap up to now is accepted.
    ///
    /// # Errors
    /// When the control database fails.
    pub async fn confirm_clock(&self) -> Result<()> {
        clock_check::confirm(&self.control, self.clock.now()).await
    }

    /// Returns once no batch or shred that began earlier can still be running (the hold barrier, P1): a batch ends with its
    /// transaction and reads holds inside it, so it is enough to wait until a running chunk or generation change has ended.
    ///
    /// What counts is what the control database says is running. It is disregarded only when it must be a dead process's
    /// leftover: nobody holds the file lock that a working process has, and the lease has run out or its holder is dead.
    ///
    /// # Errors
    /// When the control database fails, or the work did not end within a batch's longest time.
    pub async fn wait_for_destruction(&self) -> Result<()> {
        // What begins from now on sees the hold, and need not be waited for: where batches go beside each other, one always runs.
        let begun = self.control.read().await?.destroying().await?;
        for _ in 0..BARRIER_TRIES {
            let mut tx = self.control.read().await?;
            let working = !tx.destroying().await?.is_disjoint(&begun)
                && (self.token != 0
                    || WorkLock::is_held(&state_folder(&self.config))?
                    || tx.lease_holder(WORK_LEASE, self.clock.now()).await?.is_some());
            if !working {
                return Ok(());
            }
            drop(tx);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        Err(TaskError::refused(
            "the hold is in force, but a batch that began before it is still running",
            "look at `wangchuan run list`; rows of that batch may be gone",
        ))
    }

    /// Signs with another key from now on; what files certificates must know it too.
    ///
    /// # Errors
    /// When the audit service cannot be opened again.
    pub(crate) async fn sign_with(&mut self, signer: ManifestSigner) -> Result<()> {
        self.signer = signer;
        if let Some(audit) = self.audit.take() {
            audit.close().await?;
            self.audit = Some(AuditConnection::open(self).await?);
        }
        Ok(())
    }

    /// Stops embedded services, gives the lease back and closes the control database.
    ///
    /// # Errors
    /// When the lease cannot be given back; it then runs out by itself.
    pub async fn close(mut self) -> Result<()> {
        // Also while a stop is asked for: the command has said its result.
        let _whole = self.stop.begin();
        if let Some(audit) = self.audit.take() {
            audit.close().await?;
        }
        if let Some(backup) = self.backup.take() {
            backup.close().await;
        }
        self.release_lease().await?;
        // After the lease: nobody may find the lock free and the lease taken by a process that is just leaving.
        drop(self.work_lock.take());
        self.control.close().await;
        Ok(())
    }
}

/// Refuses while an operator holds all destruction.
async fn check_hold(tx: &mut crate::control::Tx) -> Result<()> {
    match tx.meta("agent_hold").await? {
        None => Ok(()),
        Some(since) => Err(TaskError::refused(
            format!("all destruction is held since {since}"),
            "`wangchuan agent resume` ends the hold",
        )),
    }
}

/// SHA-256 of everything in the configuration that decides what is erased, hex: policies, what the statutes that they name
/// demand, and of each store its zone and its collections.
fn policy_digest(config: &Configuration) -> String {
    let registry = &config.registry;
    let rules: Vec<PolicyRule> =
        registry.policies.iter().map(|policy| PolicyRule::under(policy, &config.catalogue)).collect();
    let stores: Vec<_> =
        registry.stores.iter().map(|store| (store.name.as_str(), store.timezone, &store.collections)).collect();
    let text = format!("{:?}", (&registry.policies, rules, stores));
    hex::encode(digest(&SHA256, text.as_bytes()))
}

/// The limits of a store's batches.
fn limits_of(spec: &StoreSpec) -> Limits {
    let lock_wait = std::time::Duration::from_millis(u64::from(spec.budget.lock_ms));
    Limits { lock_wait, ..Limits::default() }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> TaskError {
    TaskError::Unknown {
        what: format!("cannot {what} {}: {error}", path.display()),
        advice: "check the path and its permissions".to_owned(),
    }
}
