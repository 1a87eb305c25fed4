//! The bucket, the audit service and the operation log of an installation, embedded or elsewhere.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use zeroize::Zeroizing;

use super::lock_horizon::{LockHorizon, lock_horizons};
use super::serve::{LogService, private_token, start_service};
use super::witness_notes::KeptWitnesses;
use super::{Installation, cannot, state_folder};
use crate::audit::acknowledgement::read_keys;
use crate::audit::client::webhook::{WebhookClient, WebhookSetup};
use crate::audit::client::witness::HttpWitness;
use crate::audit::client::{self, Access, AuditClient, ClientIdentity, ClientSetup, leads_to_this_host};
use crate::audit::receipt::LogOperator;
use crate::audit::service::ServiceHandle;
use crate::audit::webhook::WebhookSecret;
use crate::audit::witness::{Witness, Witnesses};
use crate::audit::{AuditSink, BearerToken};
use crate::backup::codec::Id128;
use crate::backup::embedded::{EmbeddedServer, EmbeddedSettings};
use crate::backup::lock::ObjectLocker;
use crate::backup::object_store::ObjectStore;
use crate::backup::removal::ObjectRemover;
use crate::backup::repository::abilities::Abilities;
use crate::backup::repository::{Patience, RepositoryCredentials, RepositorySettings, S3Repository, StoredLock};
use crate::certify::signer::TrustedKeys;
use crate::clock::Clock;
use crate::config::{Audit, AuditService, Configuration, Credentials, Endpoint, LockMode, PruneMode};
use crate::control::Control;
use crate::control::log_store::SqlLogStore;
use crate::error::{Result, TaskError, with_causes};
use crate::log::checkpoint::{CheckpointKey, CheckpointSigner};
use crate::log::key_file::{create_checkpoint_key, open_checkpoint_key, replace_durably};
use crate::log::operations::{OperationLog, OperationLogError, salted};
use crate::log::record::Record;
use crate::log::sequencer::{CheckpointAnchor, FileAnchor, Sequencer};
use crate::policy::registry::SecretText;
use crate::random::Random;

/// With the causes: the outer text alone says which file, and not why. None of these errors carries a value.
pub(super) fn proof(error: impl std::error::Error) -> TaskError {
    TaskError::Proof(with_causes(&error))
}

/// The bucket, and the embedded server when there is one.
pub struct BackupConnection {
    /// Objects under the configured prefix.
    pub repository: Arc<dyn ObjectStore>,
    /// Locks objects; only where the configuration asks for locks.
    pub locker: Option<Arc<dyn ObjectLocker>>,
    /// Who may remove objects; only where the configuration says that the agent does.
    pub remover: Option<Arc<dyn ObjectRemover>>,
    /// Whether the bucket is on this host.
    pub embedded: bool,
    server: Option<EmbeddedServer>,
}

impl BackupConnection {
    pub(super) async fn open(installation: &Installation) -> Result<Option<Self>> {
        let found =
            connect_bucket(&installation.config, installation.random.as_ref(), Some(&installation.clock)).await?;
        let Some((repository, settings, server)) = found else { return Ok(None) };
        crate::backup::object_store::claim_installation(&repository, Id128(installation.id())).await?;
        let repository = Arc::new(repository);
        let remover = remover(&installation.config, &repository, settings).await?;
        let is_locked = installation.config.backup.as_ref().is_some_and(|backup| backup.lock.is_some());
        let locker = is_locked.then(|| Arc::clone(&repository) as Arc<dyn ObjectLocker>);
        Ok(Some(Self { repository, locker, remover, embedded: server.is_some(), server }))
    }

    pub(super) async fn close(self) {
        if let Some(server) = self.server {
            server.stop().await;
        }
    }
}

impl BackupConnection {
    /// The bucket as it is, whosever it is; nothing is written to it.
    pub(super) async fn look(config: &Configuration, random: &dyn Random) -> Result<Option<Self>> {
        let Some((repository, _, server)) = connect_bucket(config, random, None).await? else { return Ok(None) };
        Ok(Some(Self {
            repository: Arc::new(repository),
            locker: None,
            remover: None,
            embedded: server.is_some(),
            server,
        }))
    }
}

/// The rights to remove: keys of their own where the configuration has such, otherwise those that store.
async fn remover(
    config: &Configuration,
    repository: &Arc<S3Repository>,
    settings: RepositorySettings,
) -> Result<Option<Arc<dyn ObjectRemover>>> {
    let Some(backup) = config.backup.as_ref().filter(|backup| backup.prune == PruneMode::Delete) else {
        return Ok(None);
    };
    let Some(keys) = &backup.prune_credentials else {
        return Ok(Some(Arc::clone(repository) as Arc<dyn ObjectRemover>));
    };
    let settings = RepositorySettings { credentials: keys_of(keys), ..settings };
    Ok(Some(Arc::new(S3Repository::connect(&settings).await?)))
}

fn keys_of(keys: &Credentials) -> RepositoryCredentials {
    RepositoryCredentials::Keys {
        access_key: keys.access_key_id.dangerous_text().to_owned(),
        secret_key: keys.secret_access_key.clone(),
        session_token: None,
    }
}

/// Connects. Whoever stores anything gives the clock that locks are dated by.
async fn connect_bucket(
    config: &Configuration,
    random: &dyn Random,
    clock: Option<&Arc<dyn Clock>>,
) -> Result<Option<(S3Repository, RepositorySettings, Option<EmbeddedServer>)>> {
    let Some(backup) = &config.backup else { return Ok(None) };
    let (endpoint, credentials, server) = match &backup.endpoint {
        Endpoint::Embedded { data } => {
            let secret = embedded_secret(random)?;
            let server = EmbeddedServer::start(EmbeddedSettings {
                root: data.clone(),
                port: 0,
                access_key: ACCESS_KEY.to_owned(),
                secret_key: secret.clone(),
                bucket: backup.bucket.clone(),
            })
            .await
            .map_err(|error| TaskError::refused(error.to_string(), "wait for the process that serves it"))?;
            let credentials = RepositoryCredentials::Keys {
                access_key: ACCESS_KEY.to_owned(),
                secret_key: secret,
                session_token: None,
            };
            (Some(server.endpoint()), credentials, Some(server))
        }
        Endpoint::Url(url) => {
            let credentials = backup.credentials.as_ref().map_or(RepositoryCredentials::DefaultChain, keys_of);
            (Some(url.clone()), credentials, None)
        }
    };
    let settings = RepositorySettings {
        endpoint,
        region: backup.region.clone(),
        bucket: backup.bucket.clone(),
        prefix: backup.prefix.clone(),
        path_style: true,
        credentials,
        ca_pem: read_optional(backup.ca.as_deref())?,
        patience: Patience::default(),
        lock: backup.lock.zip(clock).map(|(lock, clock)| StoredLock {
            compliance: lock.mode == LockMode::Compliance,
            lasts: TimeDelta::days(i64::from(lock.days.get())),
            clock: Arc::clone(clock),
        }),
    };
    let repository = S3Repository::connect(&settings).await?;
    repository.check_bucket().await?;
    Ok(Some((repository, settings, server)))
}

/// What was found out about the configured bucket.
pub struct ProvedBucket {
    /// What it can really do.
    pub abilities: Abilities,
    /// Until when the newest snapshots are locked; empty where no lock is configured.
    pub horizons: Vec<LockHorizon>,
}

/// Tries what the configured bucket can really do; `None` when no backup is configured. Leaves a few small probe objects.
///
/// # Errors
/// When the bucket cannot be reached or written.
pub async fn prove_bucket(installation: &Installation) -> Result<Option<ProvedBucket>> {
    let found = connect_bucket(&installation.config, installation.random.as_ref(), Some(&installation.clock)).await?;
    let Some((repository, settings, server)) = found else { return Ok(None) };
    crate::backup::object_store::claim_installation(&repository, Id128(installation.id())).await?;
    // With the keys that may delete, where there are any: without that right a lock cannot be told from a refusal.
    let remover = match installation.config.backup.as_ref().and_then(|backup| backup.prune_credentials.as_ref()) {
        Some(keys) => {
            Some(S3Repository::connect(&RepositorySettings { credentials: keys_of(keys), ..settings }).await?)
        }
        None => None,
    };
    let remover = remover.as_ref().unwrap_or(&repository);
    let proved = repository.prove_abilities(remover, installation.random.as_ref(), installation.clock.now()).await;
    let is_locked = installation.config.backup.as_ref().is_some_and(|backup| backup.lock.is_some());
    let horizons = if is_locked { lock_horizons(installation, &repository).await } else { Ok(Vec::new()) };
    if let Some(server) = server {
        server.stop().await;
    }
    Ok(Some(ProvedBucket { abilities: proved?, horizons: horizons? }))
}

const ACCESS_KEY: &str = "wangchuan";

/// The embedded server's secret key: random per process, for only this process uses the server that it started.
fn embedded_secret(random: &dyn Random) -> Result<SecretText> {
    let mut bytes = [0; 24];
    random.fill(&mut bytes)?;
    Ok(SecretText::new(hex::encode(bytes)))
}

fn read_optional(path: Option<&Path>) -> Result<Option<Vec<u8>>> {
    path.map(|path| std::fs::read(path).map_err(|error| cannot("read", path, &error))).transpose()
}

/// How the audit service at this address is reached.
fn access(config: &Audit, url: String) -> Result<Access> {
    let identity = match &config.client {
        Some(files) => Some(ClientIdentity {
            certificate: std::fs::read(&files.certificate)
                .map_err(|error| cannot("read the client certificate", &files.certificate, &error))?,
            key: Zeroizing::new(files.key.dangerous_text().as_bytes().to_vec()),
        }),
        None => None,
    };
    Ok(Access { url, ca_pem: read_optional(config.ca.as_deref())?, identity, patience: client::Patience::default() })
}

/// The audit service, and the embedded one when there is one.
pub struct AuditConnection {
    /// Where certificates are filed.
    pub sink: Arc<dyn AuditSink>,
    /// The same, for looking at the service itself; none where it is a webhook, which answers no questions.
    pub client: Option<Arc<AuditClient>>,
    /// The key of its log; none where there is no log.
    pub log: Option<CheckpointKey>,
    /// Who runs it.
    pub operator: LogOperator,
    service: Option<ServiceHandle>,
}

impl AuditConnection {
    pub(super) async fn open(installation: &Installation) -> Result<Self> {
        let config = &installation.config.audit;
        let configured = config.token.as_ref().map(|token| BearerToken::new(token.dangerous_text()));
        let configured = configured.transpose().map_err(proof)?;
        let (url, log, token, service) = match &config.service {
            AuditService::Embedded { data } => {
                let (service, log, token) = start_embedded(installation, data).await?;
                (service.url(), log, Some(token), Some(service))
            }
            AuditService::Url(url) => (url.clone(), audit_log_key(installation)?, configured, None),
            AuditService::Webhook { url, secrets, .. } => return Self::webhook(installation, url, secrets, configured),
        };
        let client = AuditClient::new(ClientSetup {
            access: access(config, url)?,
            log: log.clone(),
            signers: installation.signer.trusted().clone(),
            token,
            clock: installation.clock.clone(),
        })
        .map_err(proof)?;
        let client = Arc::new(client);
        let operator = audit_log_operator(installation, &log);
        Ok(Self { sink: client.clone(), client: Some(client), log: Some(log), operator, service })
    }

    fn webhook(
        installation: &Installation,
        url: &str,
        secrets: &[SecretText],
        token: Option<BearerToken>,
    ) -> Result<Self> {
        let secrets: std::result::Result<Vec<_>, _> =
            secrets.iter().map(|secret| WebhookSecret::parse(secret.dangerous_text())).collect();
        let client = WebhookClient::new(WebhookSetup {
            access: access(&installation.config.audit, url.to_owned())?,
            secrets: secrets.map_err(proof)?,
            signers: installation.signer.trusted().clone(),
            token,
            acknowledgers: acknowledgement_keys(installation)?,
            clock: installation.clock.clone(),
        });
        let sink = Arc::new(client.map_err(proof)?);
        Ok(Self { sink, client: None, log: None, operator: LogOperator::SelfHosted, service: None })
    }

    pub(super) async fn close(self) -> Result<()> {
        match self.service {
            Some(service) => service.stop().await.map_err(proof),
            None => Ok(()),
        }
    }
}

/// The public key of the audit log, from its file alone: works beside the process that serves the log.
///
/// # Errors
/// When the file is missing or damaged; the embedded service makes it when it is first started.
pub fn audit_log_key(installation: &Installation) -> Result<CheckpointKey> {
    match &installation.config.audit.service {
        AuditService::Embedded { data } => {
            let signer = open_checkpoint_key(&data.join(AUDIT_KEY), &log_origin(installation.id(), "certificates"));
            Ok(signer.map_err(proof)?.key().clone())
        }
        AuditService::Url(_) => {
            let vkey = state_folder(&installation.config).join("audit-log.vkey");
            let text = std::fs::read_to_string(&vkey)
                .map_err(|error| cannot("read the audit log's public key", &vkey, &error))?;
            CheckpointKey::parse(text.trim()).map_err(proof)
        }
        AuditService::Webhook { .. } => {
            Err(TaskError::Proof("a webhook keeps no log, so there is no log key".to_owned()))
        }
    }
}

/// The keys whose receipts count: the audit log's own first, then those of embedded logs that this installation ever had, which
/// may have been lost with a site or with their folder.
///
/// # Errors
/// When there is none.
pub fn audit_log_keys(installation: &Installation) -> Result<Vec<CheckpointKey>> {
    let former = own_audit_keys(&installation.config);
    match audit_log_key(installation) {
        Ok(key) => {
            let others = former.into_iter().filter(|former| *former != key).collect::<Vec<_>>();
            Ok(std::iter::once(key).chain(others).collect())
        }
        Err(error) if former.is_empty() => Err(error),
        Err(_) => Ok(former),
    }
}

/// The keys of the logs that were ever embedded in this installation.
fn own_audit_keys(config: &Configuration) -> Vec<CheckpointKey> {
    let text = std::fs::read_to_string(state_folder(config).join(FORMER_AUDIT_KEYS)).unwrap_or_default();
    text.lines().filter_map(|line| CheckpointKey::parse(line.trim()).ok()).collect()
}

/// The keys with which the webhook signs for what it took; none where it gives no receipts.
///
/// # Errors
/// When the file cannot be read, or holds anything but P-256 public keys.
pub fn acknowledgement_keys(installation: &Installation) -> Result<TrustedKeys> {
    let AuditService::Webhook { acknowledged_by: Some(path), .. } = &installation.config.audit.service else {
        return Ok(TrustedKeys::default());
    };
    let pem = std::fs::read(path).map_err(|error| cannot("read the keys of `acknowledged_by`", path, &error))?;
    read_keys(&pem).map_err(|error| {
        let what = format!("{}: {error}", path.display());
        TaskError::refused(
            what,
            "put the public keys there with which the webhook signs acknowledgements, P-256 in PEM",
        )
    })
}

/// Whether the audit service runs in this installation, or on its host.
pub(super) fn is_audit_here(config: &Configuration) -> bool {
    match &config.audit.service {
        AuditService::Embedded { .. } => true,
        AuditService::Url(url) | AuditService::Webhook { url, .. } => leads_to_this_host(url),
    }
}

/// Who runs the log with this key. Independent is only one on another host whose key was never that of an embedded log.
#[must_use]
pub fn audit_log_operator(installation: &Installation, log: &CheckpointKey) -> LogOperator {
    let config = &installation.config;
    let is_own = is_audit_here(config) || own_audit_keys(config).contains(log);
    if is_own { LogOperator::SelfHosted } else { LogOperator::Independent }
}

/// The file with the public keys of embedded audit logs, one a line: the present one from its first start on, since nothing else
/// remembers it once the log's folder is lost, and lost ones.
pub(super) const FORMER_AUDIT_KEYS: &str = "audit-log-former.vkeys";

/// Adds public keys, one a line, to those whose receipts count.
pub(super) fn add_audit_keys(folder: &Path, keys: &str) -> Result<()> {
    let path = folder.join(FORMER_AUDIT_KEYS);
    let mut text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| cannot("read", &path, &error))?,
    };
    let before = text.len();
    for key in keys.lines().map(str::trim).filter(|key| !key.is_empty()) {
        if !text.lines().any(|line| line.trim() == key) {
            text.push_str(key);
            text.push('\n');
        }
    }
    if text.len() == before {
        return Ok(());
    }
    replace_durably(&path, text.as_bytes()).map_err(|error| cannot("write", &path, &error))
}

/// A log as a verification needs it; opened beside the process that writes it.
pub struct LogView {
    /// Its leaves and checkpoints.
    pub store: SqlLogStore,
    /// Its public key.
    pub key: CheckpointKey,
    /// The newest head kept outside the database, if there is one.
    pub head: Option<String>,
}

/// The operation log, for verifying it.
///
/// # Errors
/// When its key or the control database cannot be read.
pub async fn view_operation_log(installation: &Installation) -> Result<LogView> {
    let folder = state_folder(&installation.config);
    let origin = log_origin(installation.id(), "operations");
    let key = open_checkpoint_key(&operation_key_path(&folder), &origin).map_err(proof)?.key().clone();
    // The head is read first: the log may grow meanwhile, but never behind it.
    let head = kept_head(&folder.join(OPERATION_HEAD)).await?;
    Ok(LogView { store: installation.control.log_store("operations").await?, key, head })
}

/// The certificate log of the embedded audit service, for verifying it; `None` without one, or before it was first started.
///
/// # Errors
/// When its key or its database cannot be read.
pub async fn view_certificate_log(installation: &Installation) -> Result<Option<LogView>> {
    let AuditService::Embedded { data } = &installation.config.audit.service else { return Ok(None) };
    let file = data.join(AUDIT_DATABASE);
    if !file.exists() {
        return Ok(None);
    }
    let key = audit_log_key(installation)?;
    let head = kept_head(&data.join(AUDIT_HEAD)).await?;
    let store = SqlLogStore::open(&file, "certificates").await.map_err(proof)?;
    Ok(Some(LogView { store, key, head }))
}

async fn kept_head(path: &Path) -> Result<Option<String>> {
    FileAnchor(path.to_owned()).last().await.map_err(|error| cannot("read", path, &error))
}

/// The file in the state folder with the newest signed head of the operation log.
pub(super) const OPERATION_HEAD: &str = "operation-log-head.txt";
pub(super) const AUDIT_KEY: &str = "log-key.pem";
pub(super) const AUDIT_DATABASE: &str = "audit.db";
pub(super) const AUDIT_HEAD: &str = "log-head.txt";

/// A log's origin must never change, so it comes from the installation's random id and not from a name that people edit.
pub(super) fn log_origin(installation: [u8; 16], log: &str) -> String {
    format!("{}.wangchuan.invalid/{log}", &hex::encode(installation)[..12])
}

pub(super) fn checkpoint_key(path: &Path, origin: &str, random: &dyn Random) -> Result<CheckpointSigner> {
    if path.exists() { open_checkpoint_key(path, origin) } else { create_checkpoint_key(path, origin, random) }
        .map_err(proof)
}

async fn start_embedded(
    installation: &Installation,
    data: &Path,
) -> Result<(ServiceHandle, CheckpointKey, BearerToken)> {
    let token = private_token(installation.random.as_ref())?;
    let setup = LogService {
        data: data.to_owned(),
        origin: log_origin(installation.id(), "certificates"),
        bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        signers: installation.signer.history().signers(),
        token: BearerToken::new(&token).map_err(proof)?,
        operator: LogOperator::SelfHosted,
        witnesses: witnesses(installation)?,
    };
    let (service, key) = start_service(setup, installation.clock.clone(), installation.random.as_ref()).await?;
    add_audit_keys(&state_folder(&installation.config), &key.verifier_key())?;
    Ok((service, key, BearerToken::new(&token).map_err(proof)?))
}

/// The witnesses that the embedded service asks, and where it is noted how they answer.
pub(super) fn witnesses(installation: &Installation) -> Result<Witnesses> {
    let config = &installation.config.audit;
    let mut clients: Vec<Arc<dyn Witness>> = Vec::new();
    for url in &config.witness_urls {
        clients.push(Arc::new(HttpWitness::new(url).map_err(proof)?));
    }
    let notes = KeptWitnesses::new(installation.control.clone(), installation.clock.clone());
    Ok(Witnesses { quorum: config.quorum.clone(), clients, notes: Some(Arc::new(notes)) })
}

fn operation_key_path(folder: &Path) -> PathBuf {
    folder.join("operation-log-key.pem")
}

pub(super) fn create_operation_log_key(folder: &Path, installation: [u8; 16], random: &dyn Random) -> Result<()> {
    checkpoint_key(&operation_key_path(folder), &log_origin(installation, "operations"), random).map(|_| ())
}

/// Opens the operation log, which lies in the control database.
pub async fn operation_log(installation: &Installation) -> Result<OperationLog> {
    let folder = state_folder(&installation.config);
    let signer = open_checkpoint_key(&operation_key_path(&folder), &log_origin(installation.id(), "operations"))
        .map_err(proof)?;
    let store = installation.control.log_store("operations").await?;
    let anchor = FileAnchor(folder.join(OPERATION_HEAD));
    let sequencer = Sequencer::open(Arc::new(store), signer, Some(Box::new(anchor))).await.map_err(proof)?;
    Ok(OperationLog::new(sequencer, installation.random.clone()))
}

/// Tries of an append when another process appends at the same time.
const APPEND_TRIES: u32 = 8;
/// The pause before the second try; it grows with each.
const APPEND_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

pub(super) async fn append_operation(installation: &Installation, record: Record) -> Result<()> {
    let unsalted = |error: OperationLogError| TaskError::Proof(with_causes(&error));
    let leaf = salted(&record, installation.random.as_ref()).map_err(unsalted)?;
    let mut last = String::new();
    for attempt in 0..APPEND_TRIES {
        if attempt > 0 {
            tokio::time::sleep(APPEND_PAUSE * attempt).await;
        }
        // Opened anew each time: another process may have appended since, even between the reads of the opening. A record
        // that was stored by a try that failed later is found by its id and salt.
        let tried = match operation_log(installation).await {
            Ok(log) => {
                log.append_salted(std::slice::from_ref(&leaf)).await.map(|_| ()).map_err(|error| with_causes(&error))
            }
            Err(error) => Err(error.to_string()),
        };
        match tried {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(TaskError::Proof(format!("the operation log cannot be written, so nothing is done: {last}")))
}

/// Ends snapshots that were interrupted after their manifest was announced: committed when it was stored, else cancelled.
/// Only the holder of the work lease may call it, and while it takes no snapshot.
///
/// # Errors
/// When the bucket or the control database fails.
pub async fn settle_interrupted(control: &Control, repository: &dyn ObjectStore, now: DateTime<Utc>) -> Result<()> {
    let mut tx = control.read().await?;
    let running = tx.running_snapshot_rows().await?;
    drop(tx);
    for row in running {
        let stored = match &row.manifest {
            Some(name) => repository.head(name).await?.is_some(),
            None => false,
        };
        let mut tx = control.begin().await?;
        if !(stored && tx.commit_snapshot(row.number, now).await?) {
            tx.cancel_snapshot(row.number).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}
