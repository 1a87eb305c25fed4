//! `outbox`: files certificates with the audit service, oldest first, for as long as it takes.

use chrono::TimeDelta;
use serde::Serialize;

use crate::audit::receipt::{self, LogOperator};
use crate::audit::{FiledOutcome, Grown, backoff};
use crate::certify::evidence::verify_evidence;
use crate::certify::signer::TrustedKeys;
use crate::certify::{Said, roll_up};
use crate::control::OutboxRow;
use crate::crash_point;
use crate::installation::Installation;
use crate::log::checkpoint::{Checkpoint, CheckpointKey};

use super::Result;
use super::trust::{GivenReceipt, trust, verify_with};

/// What a round of filing did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FilingReport {
    /// Certificates with a verified receipt.
    pub receipted: Vec<String>,
    /// Certificates that wait, with the reason.
    pub waiting: Vec<(String, String)>,
    /// Certificates that the service refuses, with the reason; a person must look.
    pub quarantined: Vec<(String, String)>,
    /// What shows that the log was rolled back or has two faces; a person must look at once.
    pub doubt: Option<String>,
}

/// Files everything whose time has come; `now_all` tries waiting ones at once.
///
/// # Errors
/// When the control database fails. An unreachable service is not an error: certificates wait.
pub async fn file_due(installation: &Installation, now_all: bool) -> Result<FilingReport> {
    let mut report = FilingReport::default();
    let mut tx = installation.control.read().await?;
    let waiting = tx.outbox(Some("pending")).await?;
    drop(tx);
    let connection = installation.audit()?;
    let now = installation.clock.now();
    if waiting.iter().any(|row| now_all || row.next_at <= now) {
        // What was filed must not be unknown to a recovered site: it would use the number again.
        let sealed = installation.keyring.seal_state(&installation.control, installation.clock.as_ref()).await;
        if let Err(error) = sealed {
            if !error.is_retryable() {
                return Err(error.into());
            }
            report.waiting.extend(waiting.into_iter().map(|row| (row.certificate, error.to_string())));
            return Ok(report);
        }
    }
    let mut before = proved_head(installation, &connection.log).await?;
    let mut down: Option<String> = None;
    let mut after: Option<Checkpoint> = None;
    for mut row in waiting {
        let now = installation.clock.now();
        if let Some(reason) = &down {
            // One try tells that the service is away; the others need not wait for it, and keep their turn.
            report.waiting.push((row.certificate.clone(), reason.clone()));
            continue;
        }
        if !now_all && row.next_at > now {
            report.waiting.push((row.certificate.clone(), row.problem.clone().unwrap_or_default()));
            continue;
        }
        let mut tx = installation.control.read().await?;
        let certificate = tx.certificate(&row.certificate).await?;
        drop(tx);
        let Some(certificate) = certificate else { continue };
        let outcome = connection.sink.file(&certificate.id, &certificate.envelope).await;
        crash_point::reached("outbox.filed");
        if let FiledOutcome::Retry { reason, .. } = &outcome
            && reason.is_of_service()
        {
            down = Some(reason.to_string());
        }
        if let FiledOutcome::Receipted(filed) = &outcome {
            before.get_or_insert_with(|| filed.verified.head());
            after = Some(filed.verified.head());
        }
        enter(installation, connection.operator, &mut row, outcome, &mut report)?;
        let mut tx = installation.control.begin().await?;
        tx.set_outbox(&row).await?;
        tx.commit().await?;
        crash_point::reached("outbox.receipted");
    }
    report.doubt = watch_growth(installation, before, after).await?;
    Ok(report)
}

/// The `meta` entry with the newest head that was proved to extend those before it.
const PROVED: &str = "audit_log_proved";

fn head_text(log: &CheckpointKey, head: &Checkpoint) -> String {
    format!("{} {} {}", hex::encode(log.log_id()), head.size, hex::encode(head.root))
}

fn head_of_text(log: &CheckpointKey, text: &str) -> Option<Checkpoint> {
    let (size, root) = text.strip_prefix(&hex::encode(log.log_id()))?.trim_start().split_once(' ')?;
    let root = hex::decode(root).ok()?.try_into().ok()?;
    Some(Checkpoint { origin: log.origin().to_owned(), size: size.parse().ok()?, root })
}

/// The head from which the service is asked to prove that its log grew; before the first proof, the newest that is known.
pub(super) async fn proved_head(installation: &Installation, log: &CheckpointKey) -> Result<Option<Checkpoint>> {
    let kept = installation.control.read().await?.meta(PROVED).await?;
    match kept.and_then(|text| head_of_text(log, &text)) {
        Some(head) => Ok(Some(head)),
        None => newest_head(installation, log).await,
    }
}

/// Asks whether the log grew from the head that was proved last to the newest one, and remembers the newest once that is proved.
/// Until there is an answer every round asks from the same head, so that nothing is forgotten meanwhile. Returns the doubt.
pub(super) async fn watch_growth(
    installation: &Installation,
    before: Option<Checkpoint>,
    after: Option<Checkpoint>,
) -> Result<Option<String>> {
    let connection = installation.audit()?;
    let Some(before) = before else { return Ok(None) };
    let after = match after {
        Some(after) => after,
        // With nothing filed in this round, there may be a head for which there was no answer yet.
        None => match newest_head(installation, &connection.log).await? {
            Some(newest) if newest.size > before.size => newest,
            _ => before.clone(),
        },
    };
    let grown = if before == after { Grown::Proved } else { connection.sink.grew(&before, &after).await };
    let (known, doubt) = match grown {
        Grown::Proved => (after, None),
        Grown::Unanswered => (before, None),
        Grown::Refuted => {
            let doubt = two_histories(&before, &after);
            (before, Some(doubt))
        }
    };
    let text = head_text(&connection.log, &known);
    if installation.control.read().await?.meta(PROVED).await?.as_deref() != Some(&text) {
        let mut tx = installation.control.begin().await?;
        tx.set_meta(PROVED, &text).await?;
        tx.commit().await?;
    }
    Ok(doubt)
}

/// The head with the most leaves under which any receipt of this log was given.
async fn newest_head(installation: &Installation, log: &CheckpointKey) -> Result<Option<Checkpoint>> {
    let mut tx = installation.control.read().await?;
    let rows = tx.outbox(Some("receipted")).await?;
    drop(tx);
    let heads = rows.iter().filter_map(|row| receipt::head(row.receipt.as_deref()?, log).ok());
    Ok(heads.max_by_key(|head| head.size))
}

/// Said of a log that does not extend what it showed before. Receipts prove that each certificate was in *a* log; only proofs of
/// growth show that it is one and the same.
fn two_histories(before: &Checkpoint, after: &Checkpoint) -> String {
    let what = format!(
        "the audit log's head of {} entries does not extend that of {}: it was rolled back, or shows others another history; \
         the receipts with both heads are kept as evidence",
        after.size, before.size
    );
    tracing::error!(origin = %after.origin, earlier = before.size, later = after.size, "the audit log has two histories");
    what
}

fn enter(
    installation: &Installation,
    operator: LogOperator,
    row: &mut OutboxRow,
    outcome: FiledOutcome,
    report: &mut FilingReport,
) -> Result<()> {
    let now = installation.clock.now();
    row.attempts += 1;
    match outcome {
        FiledOutcome::Receipted(receipt) => {
            "receipted".clone_into(&mut row.state);
            row.problem = None;
            let grade = receipt.verified.witnessed_by(&installation.config.audit.quorum).grade;
            row.grade = Some(format!("{grade:?}: {}", grade.describe(operator)));
            row.receipt = Some(receipt.bytes);
            row.receipted_at = Some(now);
            report.receipted.push(row.certificate.clone());
        }
        FiledOutcome::Quarantine(reason) => {
            "quarantined".clone_into(&mut row.state);
            row.problem = Some(reason.to_string());
            report.quarantined.push((row.certificate.clone(), reason.to_string()));
        }
        FiledOutcome::Retry { after, reason, .. } => {
            let delay = match after {
                Some(after) => after,
                None => backoff(u32::try_from(row.attempts).unwrap_or(u32::MAX), installation.random.as_ref())?,
            };
            row.next_at = now + TimeDelta::from_std(delay).unwrap_or(TimeDelta::minutes(15));
            row.problem = Some(reason.to_string());
            report.waiting.push((row.certificate.clone(), reason.to_string()));
        }
    }
    Ok(())
}

/// A certificate's offline verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateVerdict {
    /// `valid` or `invalid`.
    pub result: &'static str,
    /// What was checked, and how it ended, one line each.
    pub checks: Vec<(String, bool, String)>,
}

/// Verifies a stored certificate, its evidence and its receipt, with nothing but public keys. Neither the audit service
/// nor the lease is needed.
///
/// # Errors
/// When there is no such certificate.
pub async fn verify_certificate(installation: &Installation, id: &str) -> Result<CertificateVerdict> {
    let mut tx = installation.control.read().await?;
    let certificate = tx.certificate(id).await?.ok_or_else(|| super::TaskError::Unknown {
        what: format!("there is no certificate {id}"),
        advice: "see `wangchuan certificate list`".to_owned(),
    })?;
    let receipt = tx.outbox(None).await?.into_iter().find(|row| row.certificate == id).and_then(|row| row.receipt);
    drop(tx);
    let trust = trust(installation).await?;
    let given = receipt.map_or(GivenReceipt::Missing, GivenReceipt::Entry);
    Ok(verify_with(&trust, &certificate.envelope, &given, Some(&certificate.evidence), installation.clock.now()).0)
}

impl CertificateVerdict {
    /// Valid when every check is good, and there was one.
    #[must_use]
    pub fn of(checks: Vec<(String, bool, String)>) -> Self {
        let valid = !checks.is_empty() && checks.iter().all(|(_, good, _)| *good);
        Self { result: if valid { "valid" } else { "invalid" }, checks }
    }
}

/// Checks an envelope's signature and, if it is given, the evidence file that it is about.
#[must_use]
pub fn check_envelope(envelope: &[u8], evidence: Option<&[u8]>, trusted: &TrustedKeys) -> Vec<(String, bool, String)> {
    let verified = crate::certify::verify(envelope, trusted);
    let mut checks = vec![line("signature", &verified.as_ref().map(|found| found.key_id.clone()))];
    if let (Ok(found), Some(evidence)) = (&verified, evidence) {
        let said = match &found.said {
            Said::Erasure(statement) => verify_evidence(evidence, statement)
                .map(|totals| format!("{} rows absent", totals.absent.values().sum::<u64>())),
            Said::RollUp(statement) => roll_up::verify(evidence, statement)
                .map(|_| format!("{} certificates listed", statement.predicate.certificate_totals.issued)),
        };
        checks.push(line("evidence", &said));
    }
    checks
}

fn line<E: std::fmt::Display>(what: &str, outcome: &std::result::Result<String, E>) -> (String, bool, String) {
    match outcome {
        Ok(text) => (what.to_owned(), true, text.clone()),
        Err(error) => (what.to_owned(), false, error.to_string()),
    }
}
