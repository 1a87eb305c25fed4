//! `audit key`: another signing key takes the place of the one in use, and a lost one is revoked.
//!
//! The next key is made first, where the configuration says; then one commit puts it into use, with a record of what the key before it
//! had signed by then. Before the commit nothing has changed, and a repeated call takes the key that was made. Behind it the private
//! half of a key that lay in a file is removed.

use chrono::{DateTime, SubsecRound as _, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::oplog::KEY_RECORD;
use super::{Result, TaskError};
use crate::audit::key_history::{Ended, EndedBy, HeldKey, LastCertificate, LoggedBefore};
use crate::audit::receipt;
use crate::certify::dsse::Envelope;
use crate::control::{CertificateRow, OutboxRow, Tx};
use crate::crash_point;
use crate::installation::{Installation, ManifestSigner, Operation, audit_log_keys};
use crate::keys::signing::SigningKind;

/// What a change of the signing key did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KeyChange {
    /// The id of the key that ended.
    pub ended: String,
    /// Where it lies or lay.
    pub from: SigningKind,
    /// The id of the key in use.
    pub key_id: String,
    /// Where that lies.
    pub to: SigningKind,
    /// Certificates of the key that ended which were still to be filed.
    pub unfiled: u64,
}

/// Makes the next signing key and puts it into use.
///
/// # Errors
/// When its place cannot be reached or is not fit, or the control database fails. Nothing has changed then.
pub async fn rotate(installation: &mut Installation) -> Result<KeyChange> {
    working(installation)?;
    let now = installation.clock.now().trunc_subsecs(3);
    let old = in_use(&installation.signer)?;
    let mut tx = installation.control.read().await?;
    let mut ended = known(installation, &mut tx, &old.key_id, now).await?;
    drop(tx);
    let next = installation.signer.next(&installation.config, installation.id(), now, ended.clone()).await?;
    crash_point::reached("signing.made");
    put(installation, next, "signing.rotate").await?;
    let new = in_use(&installation.signer)?;
    let unfiled = std::mem::take(&mut ended.unfiled).len() as u64;
    Ok(KeyChange { ended: old.key_id, from: old.kind, key_id: new.key_id, to: new.kind, unfiled })
}

/// Revokes a key from a time on; one that is in use is replaced first.
///
/// # Errors
/// As [`rotate`], and when there is no such key or the time is to come.
pub async fn revoke(installation: &mut Installation, key: &str, since: DateTime<Utc>) -> Result<KeyChange> {
    working(installation)?;
    if since > installation.clock.now() {
        return Err(TaskError::refused(
            "a key cannot be revoked from a time to come",
            "name the earliest time from which somebody else may have had it, or leave --since out",
        ));
    }
    let meant = installation.signer.history().find(key).cloned().map_err(|_| TaskError::Unknown {
        what: format!("no signing key, or more than one, has an id that begins with {key}"),
        advice: "see `wangchuan audit key list`".to_owned(),
    })?;
    if meant.ended.is_none() {
        rotate(installation).await?;
    }
    let since = since.trunc_subsecs(3);
    // What came behind the key's end was not believed before, and is not now.
    let end = installation.signer.history().find(&meant.key_id).ok().and_then(|key| key.valid_for.end);
    let at = end.map_or(since, |end| end.min(since));
    let mut tx = installation.control.read().await?;
    let ended = known(installation, &mut tx, &meant.key_id, at).await?;
    drop(tx);
    let next = installation.signer.revoking(&meant.key_id, since, ended)?;
    put(installation, next, "signing.revoke").await?;
    let new = in_use(&installation.signer)?;
    Ok(KeyChange { ended: meant.key_id, from: meant.kind, key_id: new.key_id, to: new.kind, unfiled: 0 })
}

/// Only whoever holds the lease: another process would go on signing with the key before.
fn working(installation: &Installation) -> Result<()> {
    if installation.token == 0 {
        return Err(TaskError::refused(
            "this process does not hold the work lease, and another may be signing",
            "stop the agent, and run the command while none runs",
        ));
    }
    Ok(())
}

fn in_use(signer: &ManifestSigner) -> Result<HeldKey> {
    let held = signer.history().in_use().cloned();
    held.ok_or_else(|| TaskError::Inconsistent("the record of signing keys is empty".to_owned()))
}

/// Signs the record with the key in use, lets it count, and lets the rest follow.
async fn put(installation: &mut Installation, signer: ManifestSigner, operation: &str) -> Result<()> {
    let record = signer.signed_record().await?;
    let now = installation.clock.now();
    let mut tx = installation.control.begin().await?;
    let signer = signer.enter(&mut tx, &record, now).await?;
    tx.commit().await?;
    crash_point::reached("signing.recorded");
    signer.settle(&installation.config)?;
    let key_id = signer.key_id().to_owned();
    installation.sign_with(signer).await?;
    let object = key_id.get(..16).unwrap_or(&key_id);
    let references = vec![(KEY_RECORD.to_owned(), installation.signer.history().number.to_string())];
    installation
        .log(Operation { name: operation, object, outcome: "success", references, ..Operation::default() })
        .await?;
    // A recovered site must not sign with the key before; while the bucket is out of reach, the next pass seals it.
    match installation.keyring.seal_state(&installation.control, installation.clock.as_ref()).await {
        Err(error) if error.is_retryable() => {
            tracing::warn!(error = %error, "the new record of signing keys is not in the second place yet");
            Ok(())
        }
        sealed => Ok(sealed.map(|_| ())?),
    }
}

/// What a key had signed by a time, as a retired one.
async fn known(installation: &Installation, tx: &mut Tx, key_id: &str, at: DateTime<Utc>) -> Result<Ended> {
    let certificates = tx.certificates(None).await?;
    let outbox = tx.outbox(None).await?;
    let last = certificates.iter().rev().find(|row| row.issued_at <= at);
    Ok(Ended {
        by: EndedBy::Retired,
        since: None,
        last_certificate: last
            .map(|row| LastCertificate { sequence: row.sequence.unsigned_abs(), digest: row.digest.clone() }),
        logged_before: logged_before(installation, &outbox, at),
        unfiled: unfiled(&certificates, &outbox, key_id),
    })
}

/// How far each log had grown with certificates of ours by a time, as their receipts show.
fn logged_before(installation: &Installation, outbox: &[OutboxRow], at: DateTime<Utc>) -> Vec<LoggedBefore> {
    let logs = audit_log_keys(installation).unwrap_or_default();
    let by_then = || outbox.iter().filter(|row| row.receipted_at.is_some_and(|filed| filed <= at));
    let size = |log: &_| {
        let receipts = by_then().filter_map(|row| row.receipt.as_deref());
        receipts.filter_map(|receipt| receipt::place(receipt, log).ok()).max().map(|index| index + 1)
    };
    let known = |log: &crate::log::checkpoint::CheckpointKey| {
        Some(LoggedBefore { log_id: hex::encode(log.log_id()), tree_size: size(log)? })
    };
    logs.iter().filter_map(known).collect()
}

/// Digests of a key's certificates that are still to be filed.
fn unfiled(certificates: &[CertificateRow], outbox: &[OutboxRow], key_id: &str) -> Vec<String> {
    let waits = |row: &CertificateRow| {
        let state = outbox.iter().find(|known| known.certificate == row.id).map(|known| known.state.as_str());
        matches!(state, None | Some("pending" | "quarantined"))
    };
    let is_of_key = |row: &CertificateRow| Envelope::parse(&row.envelope).is_ok_and(|found| found.key_id() == key_id);
    let found = certificates.iter().filter(|row| waits(row) && is_of_key(row));
    found.map(|row| row.digest.clone()).collect()
}
