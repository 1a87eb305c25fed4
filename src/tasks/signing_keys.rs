//! `audit key`: another signing key takes the place of the one in use, and a lost one is revoked.
//!
//! The next key is made first, where the configuration says; then one commit puts it into use, with a record of what the key before it
//! had signed by then. Before the commit nothing has changed, and a repeated call takes the key that was made. Behind it the private
//! half of a key that lay in a file is removed.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, SubsecRound as _, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::oplog::{KEY_RECORD, NEXT_KEY_RECORD};
use super::{Result, TaskError};
use crate::audit::key_history::{Ended, EndedBy, HeldKey, LastCertificate, LoggedBefore};
use crate::audit::{acknowledgement, receipt, stamp};
use crate::certify::dsse::Envelope;
use crate::control::{CertificateRow, OutboxRow, Tx};
use crate::crash_point;
use crate::installation::{Installation, ManifestSigner, Operation, audit_log_keys, stamp_trust};
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
    let (ended, unfiled) = all_there(installation, &mut tx, &old.key_id).await?;
    drop(tx);
    let next = installation.signer.next(&installation.config, installation.id(), now, ended).await?;
    crash_point::reached("signing.made");
    put(installation, next, Change { operation: "signing.rotate", ended: &old.key_id, since: None }).await?;
    let new = in_use(&installation.signer)?;
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
    let ended = shown_by(installation, &mut tx, &meant.key_id, at).await?;
    drop(tx);
    let next = installation.signer.revoking(&meant.key_id, since, ended)?;
    put(installation, next, Change { operation: "signing.revoke", ended: &meant.key_id, since: Some(since) }).await?;
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

/// A change of the record, as the operation log tells it.
#[derive(Clone, Copy)]
struct Change<'c> {
    operation: &'static str,
    /// The key that ends.
    ended: &'c str,
    /// From when on, if it is revoked.
    since: Option<DateTime<Utc>>,
}

impl Change<'_> {
    /// Logs it, with the ids of both keys (SHA-256 of their public halves) and the number of the record.
    async fn log(self, installation: &Installation, next: &ManifestSigner, outcome: &str) -> Result<()> {
        // A record that is only to come is named otherwise: `audit verify` misses those that were put into use.
        let record = if outcome == "success" { KEY_RECORD } else { NEXT_KEY_RECORD };
        let mut references = vec![
            (record.to_owned(), next.history().number.to_string()),
            ("ended".to_owned(), self.ended.to_owned()),
            ("in_use".to_owned(), next.key_id().to_owned()),
        ];
        references.extend(self.since.map(|since| ("since".to_owned(), crate::control::time_text(since))));
        let object = self.ended.get(..16).unwrap_or(self.ended);
        let changed = Operation { name: self.operation, object, outcome, ..Operation::default() };
        installation.log(Operation { references, ..changed }).await
    }
}

/// Signs the record with the key in use, lets it count, and lets the rest follow, with entries in the operation log around it: what
/// cannot be logged is not done.
async fn put(installation: &mut Installation, signer: ManifestSigner, change: Change<'_>) -> Result<()> {
    change.log(installation, &signer, "intent").await?;
    let entered = enter(installation, &signer).await;
    let signer = match entered {
        Ok(signer) => signer,
        Err(error) => {
            // That it failed is told first.
            if let Err(unlogged) = change.log(installation, &signer, "failure").await {
                tracing::warn!(error = %unlogged, "the end of a change of signing keys could not be logged");
            }
            return Err(error);
        }
    };
    // It counts from the commit on, and that is logged, whatever becomes of the rest: the next start settles it.
    let settled = signer.settle(&installation.config);
    let taken = installation.sign_with(signer.clone()).await;
    change.log(installation, &signer, "success").await?;
    settled?;
    taken?;
    // A recovered site must not sign with the key before; while the bucket is out of reach, the next pass seals it.
    match installation.keyring.seal_state(&installation.control, installation.clock.as_ref()).await {
        Err(error) if error.is_retryable() => {
            tracing::warn!(error = %error, "the new record of signing keys is not in the second place yet");
            Ok(())
        }
        sealed => Ok(sealed.map(|_| ())?),
    }
}

/// Puts the record into the control database; with the commit it counts.
async fn enter(installation: &Installation, signer: &ManifestSigner) -> Result<ManifestSigner> {
    let record = signer.signed_record().await?;
    let now = installation.clock.now();
    let mut tx = installation.control.begin().await?;
    let signer = signer.clone().enter(&mut tx, &record, now).await?;
    tx.commit().await?;
    crash_point::reached("signing.recorded");
    Ok(signer)
}

/// What is there of a key that ends now, and how many of its certificates are still to be filed.
async fn all_there(installation: &Installation, tx: &mut Tx, key_id: &str) -> Result<(Ended, u64)> {
    let certificates = tx.certificates(None).await?;
    let outbox = tx.outbox(None).await?;
    let known: HashMap<&str, &OutboxRow> = outbox.iter().map(|row| (row.certificate.as_str(), row)).collect();
    let state = |row: &CertificateRow| known.get(row.id.as_str());
    let without_receipt = certificates.iter().filter(|row| state(row).is_none_or(|known| !is_in_log(known)));
    let without_receipt: Vec<_> = without_receipt.filter(|row| is_of(row, key_id)).collect();
    let waits = |row: &&&CertificateRow| state(row).is_none_or(|known| known.receipted_at.is_none());
    let waiting = without_receipt.iter().filter(waits).count() as u64;
    let ended = Ended {
        by: EndedBy::Retired,
        since: None,
        last_certificate: certificates.last().map(last),
        logged_before: logged_before(installation, &outbox, None),
        unfiled: without_receipt.into_iter().map(|row| row.digest.clone()).collect(),
    };
    Ok((ended, waiting))
}

/// What is known to have been there of a key by a time, as receipts, acknowledgements and time stamps show; not as certificates
/// say, for who has the key writes any date.
async fn shown_by(installation: &Installation, tx: &mut Tx, key_id: &str, at: DateTime<Utc>) -> Result<Ended> {
    let certificates = tx.certificates(None).await?;
    let outbox = tx.outbox(None).await?;
    let by_then = |filed: Option<DateTime<Utc>>| filed.is_some_and(|filed| filed <= at);
    let filed = outbox.iter().filter(|row| by_then(row.receipted_at));
    let acknowledged: HashSet<&str> =
        filed.clone().filter(|row| !is_in_log(row)).map(|row| row.certificate.as_str()).collect();
    let mut shown: HashSet<&str> = filed.map(|row| row.certificate.as_str()).collect();
    let stamps = tx.time_stamps().await?;
    let authorities = stamp_trust(installation)?;
    let replies: HashMap<&str, &[u8]> =
        stamps.iter().map(|kept| (kept.certificate.as_str(), kept.reply.as_slice())).collect();
    for row in &certificates {
        // By the time that the authority signed, not by what stands beside it.
        let stamped = replies.get(row.id.as_str()).and_then(|reply| {
            let envelope = Envelope::parse(&row.envelope).ok()?;
            stamp::verify(reply, envelope.signature(), &authorities, None).ok()
        });
        if stamped.is_some_and(|stamped| stamped.at <= at) {
            shown.insert(&row.id);
        }
    }
    let taken = certificates.iter().filter(|row| acknowledged.contains(row.id.as_str()) && is_of(row, key_id));
    Ok(Ended {
        by: EndedBy::Retired,
        since: None,
        // Each names the one before: with one all before it were there.
        last_certificate: certificates.iter().rev().find(|row| shown.contains(row.id.as_str())).map(last),
        logged_before: logged_before(installation, &outbox, Some(at)),
        unfiled: taken.map(|row| row.digest.clone()).collect(),
    })
}

fn last(row: &CertificateRow) -> LastCertificate {
    LastCertificate { sequence: row.sequence.unsigned_abs(), digest: row.digest.clone() }
}

/// Whether a receipt shows a place in a log; what a webhook took, signed for or not, shows none.
fn is_in_log(row: &OutboxRow) -> bool {
    row.receipt.as_deref().is_some_and(|receipt| !acknowledgement::is_one(receipt))
}

fn is_of(row: &CertificateRow, key_id: &str) -> bool {
    Envelope::parse(&row.envelope).is_ok_and(|found| found.key_id() == key_id)
}

/// How far each log had grown with certificates of ours, by a time or by now, as their receipts show.
fn logged_before(installation: &Installation, outbox: &[OutboxRow], at: Option<DateTime<Utc>>) -> Vec<LoggedBefore> {
    let logs = audit_log_keys(installation).unwrap_or_default();
    let is_by_then = |filed: DateTime<Utc>| at.is_none_or(|at| filed <= at);
    let by_then = || outbox.iter().filter(|row| row.receipted_at.is_some_and(is_by_then));
    let size = |log: &_| {
        let receipts = by_then().filter_map(|row| row.receipt.as_deref());
        receipts.filter_map(|receipt| receipt::place(receipt, log).ok()).max().map(|index| index + 1)
    };
    let known = |log: &crate::log::checkpoint::CheckpointKey| {
        Some(LoggedBefore { log_id: hex::encode(log.log_id()), tree_size: size(log)? })
    };
    logs.iter().filter_map(known).collect()
}
