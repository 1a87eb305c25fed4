//! An audit service in a process of its own: the installation's embedded one for others to read, or one for several agents
//! that no installation belongs to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::services::{
    AUDIT_DATABASE, AUDIT_HEAD, AUDIT_KEY, add_audit_keys, checkpoint_key, log_origin, proof, witnesses,
};
use super::{Installation, Operation, state_folder};
use crate::audit::BearerToken;
use crate::audit::receipt::LogOperator;
use crate::audit::service::{Refusals, ServiceHandle, ServiceSetup, start};
use crate::audit::trust::Signers;
use crate::audit::witness::Witnesses;
use crate::clock::Clock;
use crate::config::AuditService;
use crate::control::log_store::SqlLogStore;
use crate::error::{Result, TaskError, with_causes};
use crate::log::checkpoint::CheckpointKey;
use crate::log::sequencer::{FileAnchor, Sequencer, SequencerError};
use crate::random::Random;

/// What an audit service is made of.
pub struct LogService {
    /// The folder of its log.
    pub data: PathBuf,
    /// The log's origin; it never changes.
    pub origin: String,
    /// Where it listens.
    pub bind: SocketAddr,
    /// The keys whose certificates it takes, with their times.
    pub signers: Signers,
    /// What it demands of those who file.
    pub token: BearerToken,
    /// Who runs it.
    pub operator: LogOperator,
    /// Who witnesses its log.
    pub witnesses: Witnesses,
}

/// Starts an audit service; makes its folder and its key when they are not there yet.
///
/// # Errors
/// When the folder cannot be used, the address is taken, or the log was rolled back: then nothing is signed.
pub async fn start_service(
    setup: LogService,
    clock: Arc<dyn Clock>,
    random: &dyn Random,
) -> Result<(ServiceHandle, CheckpointKey)> {
    std::fs::create_dir_all(&setup.data).map_err(|error| super::cannot("make", &setup.data, &error))?;
    let signer = checkpoint_key(&setup.data.join(AUDIT_KEY), &setup.origin, random)?;
    let key = signer.key().clone();
    let store = SqlLogStore::open(&setup.data.join(AUDIT_DATABASE), "certificates").await.map_err(proof)?;
    let anchor = FileAnchor(setup.data.join(AUDIT_HEAD));
    let opened = Sequencer::open(Arc::new(store), signer, Some(Box::new(anchor))).await;
    let sequencer = opened.map_err(|error| not_opened(&setup.data, error))?;
    let service = start(ServiceSetup {
        bind: setup.bind,
        sequencer,
        signers: setup.signers,
        token: Some(setup.token),
        operator: setup.operator,
        witnesses: setup.witnesses,
        clock,
    })
    .await
    .map_err(proof)?;
    Ok((service, key))
}

/// A log that was rolled back is a matter for people: whoever signed it on would show two histories under one key.
fn not_opened(data: &Path, error: SequencerError) -> TaskError {
    match error {
        SequencerError::RolledBack { .. } | SequencerError::Checkpoint(_) => TaskError::refused(
            format!("{}; nothing is signed any more", with_causes(&error)),
            format!(
                "put a copy of {} back that holds all that {AUDIT_HEAD} has signed, and leave {AUDIT_HEAD} as it is. Where \
                 there is none, move the folder away as it is and begin a new log: receipts of the old one stay good under its \
                 key, agents still hold what they filed, and `wangchuan audit flush --again` files it in the new log too",
                data.join(AUDIT_DATABASE).display()
            ),
        ),
        error => proof(error),
    }
}

/// A random token, which nobody but this process knows.
pub(super) fn private_token(random: &dyn Random) -> Result<String> {
    let mut bytes = [0; 24];
    random.fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}

/// Serves the installation's embedded log at an address, beside the agent: its checkpoint, tiles and proofs are for everyone, and
/// filing wants the configured token (without one nobody but the agent files).
///
/// # Errors
/// When the audit service is another one, and as [`start_service`].
pub async fn serve_embedded(installation: &Installation, bind: SocketAddr) -> Result<(ServiceHandle, CheckpointKey)> {
    let config = &installation.config.audit;
    let AuditService::Embedded { data } = &config.service else {
        return Err(TaskError::refused(
            "the configured audit service is run by others",
            "give --data, --origin and --signer for a service without an installation",
        ));
    };
    let token = match &config.token {
        Some(token) => token.dangerous_text().to_owned(),
        None => private_token(installation.random.as_ref())?,
    };
    let setup = LogService {
        data: data.clone(),
        origin: log_origin(installation.id(), "certificates"),
        bind,
        signers: installation.signer.history().signers(),
        token: BearerToken::new(&token).map_err(proof)?,
        operator: LogOperator::SelfHosted,
        witnesses: witnesses(installation)?,
    };
    let started = start_service(setup, installation.clock.clone(), installation.random.as_ref()).await?;
    add_audit_keys(&state_folder(&installation.config), &started.1.verifier_key())?;
    Ok(started)
}

/// Writes who was refused for the lack of a token to the installation's operation log: an entry for each peer, with the number of
/// tries. They stay refused when that fails, and are counted on.
pub async fn log_refusals(installation: &Installation, refusals: &Refusals) {
    for (peer, tries) in refusals.take() {
        let refused = Operation {
            name: "audit.refused",
            object: "certificates",
            outcome: "failure",
            detail: Some("NO_VALID_TOKEN".to_owned()),
            references: vec![("tries".to_owned(), tries.to_string())],
            peer: Some(peer),
            ..Operation::default()
        };
        if let Err(error) = installation.log(refused).await {
            tracing::warn!(error = with_causes(&error), tries, "requests without a valid token could not be logged");
            refusals.add(peer, tries);
        }
    }
}
