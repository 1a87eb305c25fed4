//! `audit`: whether what was certified is all filed, and whether the log still holds what it signed.

mod key_record;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::audit::FiledOutcome;
use crate::audit::acknowledgement;
use crate::audit::circuit::{Circuit, Position};
use crate::audit::receipt::{self, Grade, LogOperator};
use crate::certify::Said;
use crate::certify::dsse::Envelope;
use crate::control::{CertificateRow, OutboxRow};
use crate::installation::{
    Installation, LogView, acknowledgement_keys, audit_log_keys, audit_log_operator, view_certificate_log,
    view_operation_log,
};
use crate::log::checkpoint::{Checkpoint, CheckpointKey};
use crate::log::cosignature::Quorum;
use crate::log::proofs::ProofReader;
use crate::log::store::{LeafStore, LeafStoreError};
use crate::log::tree::Hash;
use crate::log::verify::verify_log;

use self::key_record::key_record;
use super::certify::{ROLL_UP, wrong_with};
use super::outbox::{CertificateVerdict, filing_circuit, proved_head, watch_growth};
use super::stamps::{StampStatus, stamp_status};
use super::trust::{Given, GivenReceipt, anchor, trust, verify_with};
use super::witnesses::witness_check;
use super::{Result, TaskError};

/// How filing stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditStatus {
    /// All certificates.
    pub issued: u64,
    /// Those with a verified receipt.
    pub receipted: u64,
    /// Those that were taken without a receipt.
    pub acknowledged: u64,
    /// Those that wait.
    pub pending: u64,
    /// Those that the service refuses.
    pub quarantined: u64,
    /// When the oldest waiting one was issued.
    pub oldest_pending: Option<DateTime<Utc>>,
    /// Receipts by grade and by who runs the log that gave them, best first.
    pub grades: Vec<(Grade, LogOperator, u64)>,
    /// Reasons of waiting and refused ones: certificate and reason.
    pub problems: Vec<(String, String)>,
    /// Leaves of the embedded service's log, if it was ever started.
    pub log_leaves: Option<u64>,
    /// What is known of the service's failures.
    pub circuit: Circuit,
    /// Whether it is left alone because of them.
    pub position: Position,
    /// How time stamps stand; none where no authority is configured and none ever stamped.
    pub stamps: Option<StampStatus>,
}

/// Looks at the outbox and at the embedded log, beside whatever process works.
///
/// # Errors
/// When the control database cannot be read.
pub async fn audit_status(installation: &Installation) -> Result<AuditStatus> {
    let mut tx = installation.control.read().await?;
    let certificates = tx.certificates(None).await?;
    let outbox = tx.outbox(None).await?;
    let circuit = filing_circuit(&mut tx, &installation.config.audit.service).await?;
    let stamps = stamp_status(&installation.config, &mut tx).await?;
    drop(tx);
    let issued: HashMap<&str, DateTime<Utc>> =
        certificates.iter().map(|known| (known.id.as_str(), known.issued_at)).collect();
    let mut status = AuditStatus {
        issued: certificates.len() as u64,
        receipted: 0,
        acknowledged: 0,
        pending: 0,
        quarantined: 0,
        oldest_pending: None,
        grades: Vec::new(),
        problems: Vec::new(),
        log_leaves: None,
        position: circuit.position(installation.clock.now()),
        circuit,
        stamps,
    };
    let logs = audit_log_keys(installation).unwrap_or_default();
    let logs: Vec<_> = logs.iter().map(|log| (log, audit_log_operator(installation, log))).collect();
    let operator = |row: &OutboxRow| {
        let of_log = |(log, _): &&(&CheckpointKey, LogOperator)| {
            row.receipt.as_deref().is_some_and(|receipt| receipt::head(receipt, log).is_ok())
        };
        logs.iter().find(of_log).map_or(LogOperator::SelfHosted, |(_, operator)| *operator)
    };
    let mut grades: HashMap<(Grade, LogOperator), u64> = HashMap::new();
    for row in &outbox {
        match row.state.as_str() {
            "receipted" | "acknowledged" => {
                let counter = if row.state == "receipted" { &mut status.receipted } else { &mut status.acknowledged };
                *counter += 1;
                *grades.entry((grade_of(row), operator(row))).or_default() += 1;
            }
            state => {
                let counter = if state == "quarantined" { &mut status.quarantined } else { &mut status.pending };
                *counter += 1;
                let issued = issued.get(row.certificate.as_str()).copied();
                if state != "quarantined" {
                    status.oldest_pending = status.oldest_pending.into_iter().chain(issued).min();
                }
                let reason = row.problem.clone().unwrap_or_else(|| "not tried yet".to_owned());
                status.problems.push((row.certificate.clone(), reason));
            }
        }
    }
    status.grades = grades.into_iter().map(|((grade, operator), receipts)| (grade, operator, receipts)).collect();
    status.grades.sort_unstable_by_key(|(grade, operator, _)| (*grade, Reverse(*operator)));
    if let Ok(Some(view)) = view_certificate_log(installation).await {
        let size = view.store.size().await.unwrap_or_default();
        status.log_leaves = Some(size);
        view.store.close().await;
    }
    Ok(status)
}

/// The grade that was found when the receipt came; nothing better than what stands there.
fn grade_of(row: &OutboxRow) -> Grade {
    match row.grade.as_deref().and_then(|grade| grade.chars().next()) {
        Some('A') => Grade::A,
        Some('B') => Grade::B,
        Some('C') => Grade::C,
        _ => Grade::D,
    }
}

/// Verifies everything: certificates without a gap and chained, each with a receipt that is good, and the embedded log replayed
/// leaf by leaf, with every receipted certificate at its place.
///
/// # Errors
/// When the control database cannot be read.
pub async fn verify_all(installation: &Installation) -> Result<CertificateVerdict> {
    let mut tx = installation.control.read().await?;
    let certificates = tx.certificates(None).await?;
    let outbox: HashMap<String, OutboxRow> =
        tx.outbox(None).await?.into_iter().map(|row| (row.certificate.clone(), row)).collect();
    let mut stamps: HashMap<String, Vec<u8>> =
        tx.time_stamps().await?.into_iter().map(|row| (row.certificate, row.reply)).collect();
    drop(tx);
    let mut checks = vec![sequence(&certificates), chain(installation, &certificates)];
    let trust = trust(installation).await?;
    let (mut receipted, mut acknowledged, mut waiting, mut stamped) = (0, 0, 0, 0);
    let mut bad: Vec<String> = Vec::new();
    for row in &certificates {
        let given = match filed(outbox.get(&row.id)) {
            Ok(Standing::Receipted(receipt)) => {
                receipted += 1;
                GivenReceipt::kept(receipt)
            }
            Ok(Standing::Acknowledged) => {
                acknowledged += 1;
                GivenReceipt::Acknowledged
            }
            Ok(Standing::Waits) => {
                waiting += 1;
                GivenReceipt::NotInThisForm
            }
            Err(wrong) => {
                bad.push(format!("no. {}, filing: {wrong}", row.sequence));
                GivenReceipt::NotInThisForm
            }
        };
        let stamps: Vec<Vec<u8>> = stamps.remove(&row.id).into_iter().collect();
        stamped += stamps.len();
        // That each names the one before is a check of its own.
        let is_chained = anchor(installation, &certificates, row).is_some();
        let evidence = Some(row.evidence.as_slice());
        let given = Given { envelope: &row.envelope, receipt: given, stamps, evidence, is_chained };
        let (verdict, _) = verify_with(&trust, &given, installation.clock.now());
        let wrong = verdict.checks.iter().filter(|(_, good, _)| !good);
        bad.extend(wrong.map(|(check, _, said)| format!("no. {}, {check}: {said}", row.sequence)));
    }
    let taken = if acknowledged > 0 { format!(", {acknowledged} taken without a receipt") } else { String::new() };
    checks.push(match bad.first() {
        None => line("certificates", true, format!("{receipted} with good receipts{taken}, {waiting} not filed yet")),
        Some(first) => line("certificates", false, format!("{} wrong, first {first}", bad.len())),
    });
    // One that is wrong was counted among the certificates.
    if !trust.stamps.is_empty() {
        let without = certificates.len() - stamped;
        checks.push(line("timestamps", true, format!("{stamped} certificates with a time stamp, {without} without")));
    }
    checks.extend(roll_ups(installation, &certificates).await?);
    checks.extend(key_record(installation).await?);
    checks.push(heads(installation, outbox.values()));
    let mut tx = installation.control.read().await?;
    checks.extend(witness_check(&mut tx, &installation.config.audit, installation.clock.now()).await?);
    drop(tx);
    match view_certificate_log(installation).await {
        Ok(Some(view)) => {
            checks.extend(log_checks(installation, &view, &certificates, &outbox).await);
            view.store.close().await;
        }
        Ok(None) => {}
        Err(error) => checks.push(line("log", false, error.with_causes())),
    }
    Ok(CertificateVerdict::of(checks))
}

/// How a certificate stands in the outbox, when that is as it should be.
#[derive(Debug, PartialEq, Eq)]
enum Standing<'r> {
    /// Filed, with this receipt.
    Receipted(&'r [u8]),
    /// Taken without a receipt.
    Acknowledged,
    /// Not filed yet.
    Waits,
}

/// How a certificate stands in the outbox; what is wrong with that.
fn filed(row: Option<&OutboxRow>) -> std::result::Result<Standing<'_>, String> {
    let Some(row) = row else { return Err("it is not waiting to be filed, and was not filed".to_owned()) };
    match (row.state.as_str(), &row.receipt) {
        ("pending", None) => Ok(Standing::Waits),
        ("acknowledged", None) => Ok(Standing::Acknowledged),
        ("receipted", Some(receipt)) => Ok(Standing::Receipted(receipt)),
        ("receipted", None) => Err("it counts as filed, and its receipt is missing".to_owned()),
        ("quarantined", _) => {
            Err(format!("the audit service refuses it: {}", row.problem.as_deref().unwrap_or("no reason given")))
        }
        (state, _) => Err(format!("it has a receipt, and counts as {state}")),
    }
}

fn line(check: &str, good: bool, said: String) -> (String, bool, String) {
    (check.to_owned(), good, said)
}

/// The numbers 1, 2, 3, … without a gap.
fn sequence(certificates: &[CertificateRow]) -> (String, bool, String) {
    match certificates.iter().zip(1..).find(|(row, number)| row.sequence != *number) {
        None => line("sequence", true, format!("{} certificates, no number missing", certificates.len())),
        Some((row, number)) => line("sequence", false, format!("no. {} stands where {number} should", row.sequence)),
    }
}

/// Each certificate names the digest of the one before, under its own signature.
fn chain(installation: &Installation, certificates: &[CertificateRow]) -> (String, bool, String) {
    let mut before: Option<String> = None;
    for row in certificates {
        let verified = match crate::certify::verify(&row.envelope, installation.signer.trusted()) {
            Ok(verified) => verified,
            Err(error) => return line("chain", false, format!("no. {}: {error}", row.sequence)),
        };
        if verified.previous() != before.as_deref() {
            return line("chain", false, format!("no. {} does not name the certificate before it", row.sequence));
        }
        before = Some(hex::encode(verified.digest));
    }
    line("chain", true, "each names the one before".to_owned())
}

/// Each roll-up counts what is there, and saw the operation log that is there.
async fn roll_ups(
    installation: &Installation,
    certificates: &[CertificateRow],
) -> Result<Option<(String, bool, String)>> {
    let mut checked = 0;
    let unreadable = |error: LeafStoreError| TaskError::Proof(crate::error::with_causes(&error));
    let view = view_operation_log(installation).await?;
    for row in certificates.iter().filter(|row| row.run == ROLL_UP) {
        let verified = crate::certify::verify(&row.envelope, installation.signer.trusted());
        let wrong = match verified.map(|found| found.said) {
            Ok(Said::RollUp(statement)) => {
                let size = statement.predicate.operation_log.size;
                let root = match view.store.size().await.map_err(unreadable)? {
                    there if there < size => None,
                    _ => Some(ProofReader::new(&view.store).frontier(size).await.map_err(unreadable)?.root()),
                };
                wrong_with(&statement, &row.evidence, certificates, root)
            }
            Ok(Said::Erasure(_)) => Some("it is none".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(wrong) = wrong {
            return Ok(Some(line("roll-ups", false, format!("no. {}: {wrong}", row.sequence))));
        }
        checked += 1;
    }
    Ok((checked > 0).then(|| line("roll-ups", true, format!("{checked}, what they count is there"))))
}

/// No two receipts show different roots for one size of one log.
fn heads<'r>(installation: &Installation, rows: impl Iterator<Item = &'r OutboxRow>) -> (String, bool, String) {
    let logs = audit_log_keys(installation).unwrap_or_default();
    // By key: a log that was lost and begun anew has the origin of the one before.
    let mut roots: HashMap<(Hash, u64), Hash> = HashMap::new();
    for receipt in rows.filter_map(|row| row.receipt.as_deref()) {
        let opened = logs.iter().find_map(|log| Some((log.log_id(), receipt::head(receipt, log).ok()?)));
        let Some((log, head)) = opened else { continue };
        let known = roots.entry((log, head.size)).or_insert(head.root);
        if *known != head.root {
            return line(
                "heads",
                false,
                format!("the log {} has shown two histories of {} entries", head.origin, head.size),
            );
        }
    }
    line("heads", true, format!("{} heads, none contradicts another", roots.len()))
}

async fn log_checks(
    installation: &Installation,
    view: &LogView,
    certificates: &[CertificateRow],
    outbox: &HashMap<String, OutboxRow>,
) -> Vec<(String, bool, String)> {
    let trusted = installation.signer.trusted();
    let check = |leaf: &_| receipt::check_content(leaf, trusted);
    let replayed = verify_log(&view.store, &view.key, view.head.as_deref(), &check).await;
    let mut checks = vec![match replayed {
        Ok(report) if report.leaves > 0 && view.head.is_none() => {
            line("log", false, format!("{} entries, but the head kept outside the database is missing", report.leaves))
        }
        Ok(report) => line("log", true, format!("{} entries, {} signed heads", report.leaves, report.checkpoints)),
        Err(error) => line("log", false, crate::error::with_causes(&error)),
    }];
    checks.push(match filed_check(installation, view, certificates, outbox).await {
        Ok(Ok(filed)) => line("filed", true, format!("{filed} receipted certificates stand in the log")),
        Ok(Err(wrong)) => line("filed", false, wrong),
        Err(error) => line("filed", false, error.with_causes()),
    });
    checks
}

/// How many receipted certificates stand in the log, or what is wrong: one does not, or the log holds others.
async fn filed_check(
    installation: &Installation,
    view: &LogView,
    certificates: &[CertificateRow],
    outbox: &HashMap<String, OutboxRow>,
) -> Result<std::result::Result<usize, String>> {
    let trusted = installation.signer.trusted();
    // What a webhook signed for stands in no log.
    let is_entry = |row: &OutboxRow| row.receipt.as_deref().is_some_and(|receipt| !acknowledgement::is_one(receipt));
    let filed = certificates.iter().filter(|row| outbox.get(&row.id).is_some_and(is_entry));
    let filed: Vec<&CertificateRow> = filed.collect();
    let stored = all_entries(view).await.map_err(|error| TaskError::Proof(crate::error::with_causes(&error)))?;
    let is_there = |row: &CertificateRow| {
        let envelope = Envelope::parse(&row.envelope).ok();
        let body = envelope
            .as_ref()
            .and_then(|envelope| trusted.get(envelope.key_id()).map(|key| receipt::leaf_body(envelope, key)));
        body.is_some_and(|body| stored.get(&row.id) == Some(&body))
    };
    if let Some(row) = filed.iter().find(|row| !is_there(row)) {
        return Ok(Err(format!("no. {} has a receipt and is not in the log", row.sequence)));
    }
    // Nobody else files here: what is not known was taken out of the control database, or this is an old copy of it. Read again,
    // for some may have been issued and filed since.
    let mut tx = installation.control.read().await?;
    let known: HashSet<String> = tx.certificates(None).await?.into_iter().map(|row| row.id).collect();
    match stored.keys().filter(|id| !known.contains(*id)).count() {
        0 => Ok(Ok(filed.len())),
        unknown => Ok(Err(format!("{unknown} certificates stand in the log and are not known here"))),
    }
}

/// What the log holds, by id.
async fn all_entries(view: &LogView) -> std::result::Result<HashMap<String, Vec<u8>>, LeafStoreError> {
    let mut all = HashMap::new();
    let mut start = 0;
    loop {
        let page = view.store.leaves(start..start + PAGE_LEAVES).await?;
        start += page.len() as u64;
        let is_last = (page.len() as u64) < PAGE_LEAVES;
        all.extend(page.into_iter().map(|leaf| (leaf.id, leaf.entry)));
        if is_last {
            return Ok(all);
        }
    }
}

/// Leaves read at once.
const PAGE_LEAVES: u64 = 1024;

/// What filing again changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refiled {
    /// Certificates whose receipt is better now.
    pub better: Vec<String>,
    /// Certificates that were filed again with nothing gained.
    pub same: u64,
    /// Certificates that the service did not take, with the reason.
    pub failed: Vec<(String, String)>,
    /// What shows that the log was rolled back or has two faces; a person must look at once.
    pub doubt: Option<String>,
}

/// Files receipted certificates once more: a receipt may be better by now (more witnesses), and a log that lost them takes them
/// again. A grade never falls; but a receipt that verifies under no trusted log or key any more is worse than any. A webhook that signs
/// for what it takes gives nothing better than an acknowledgement, so what stands in a log is not sent there.
///
/// # Errors
/// When the control database fails.
pub async fn file_again(installation: &Installation) -> Result<Refiled> {
    let mut tx = installation.control.read().await?;
    let mut rows = tx.outbox(Some("receipted")).await?;
    rows.extend(tx.outbox(Some("acknowledged")).await?);
    drop(tx);
    let connection = installation.audit()?;
    let keys = acknowledgement_keys(installation)?;
    let (logs, mut before) = match &connection.log {
        Some(log) => (audit_log_keys(installation)?, proved_head(installation, log).await?),
        None if keys.is_empty() => {
            return Err(TaskError::refused(
                "a webhook gives no receipts, so that filing again gains none",
                "set `adapter = \"native\"` and the address of an audit service in [audit], or `acknowledged_by`",
            ));
        }
        None => {
            rows.retain(|row| grade_of(row) >= Grade::C);
            (Vec::new(), None)
        }
    };
    let is_stale = |row: &OutboxRow| {
        let verifies = |receipt: &[u8]| {
            logs.iter().any(|log| receipt::head(receipt, log).is_ok()) || acknowledgement::is_by(receipt, &keys)
        };
        !row.receipt.as_deref().is_some_and(verifies)
    };
    let mut after = None;
    let mut refiled = Refiled::default();
    for mut row in rows {
        let mut tx = installation.control.read().await?;
        let certificate = tx.certificate(&row.certificate).await?;
        drop(tx);
        let Some(certificate) = certificate else { continue };
        let outcome = connection.sink.file(&certificate.id, &certificate.envelope).await;
        let Gained { bytes, grade, head } = match Gained::of(outcome, &installation.config.audit.quorum) {
            Ok(Some(gained)) => gained,
            Ok(None) => {
                refiled.same += 1;
                continue;
            }
            Err(problem) => {
                refiled.failed.push((certificate.id, problem));
                continue;
            }
        };
        before = before.or_else(|| head.clone());
        after = head.or(after);
        if grade >= grade_of(&row) && !is_stale(&row) {
            refiled.same += 1;
            continue;
        }
        row.grade = Some(format!("{grade:?}: {}", grade.describe(connection.operator)));
        row.receipted_at = Some(since_when(&row, &bytes, &logs, installation.clock.now()));
        row.receipt = Some(bytes);
        let mut tx = installation.control.begin().await?;
        let replaced = tx.better_receipt(&row).await?;
        tx.commit().await?;
        if replaced {
            refiled.better.push(certificate.id);
        }
    }
    refiled.doubt = watch_growth(installation, before, after).await?;
    Ok(refiled)
}

/// A receipt that another filing brought.
struct Gained {
    bytes: Vec<u8>,
    grade: Grade,
    /// The head of the log that it was given under, if there is a log.
    head: Option<Checkpoint>,
}

impl Gained {
    /// What a filing brought, if anything; why it was not taken.
    fn of(outcome: FiledOutcome, quorum: &Quorum) -> std::result::Result<Option<Self>, String> {
        match outcome {
            FiledOutcome::Receipted(filed) => {
                let head = Some(filed.verified.head());
                let grade = filed.verified.witnessed_by(quorum).grade;
                Ok(Some(Self { bytes: filed.bytes, grade, head }))
            }
            FiledOutcome::Signed(bytes) => Ok(Some(Self { bytes, grade: Grade::C, head: None })),
            FiledOutcome::Acknowledged => Ok(None),
            FiledOutcome::Quarantine(reason) => Err(reason.to_string()),
            FiledOutcome::Retry { reason, .. } => Err(reason.to_string()),
        }
    }
}

/// Since when a certificate is known to have stood where a new receipt shows it: as long as before, when the one before shows the same
/// place of the same log. A revocation relies on that time.
fn since_when(row: &OutboxRow, receipt: &[u8], logs: &[CheckpointKey], now: DateTime<Utc>) -> DateTime<Utc> {
    let is_there = |log: &CheckpointKey| {
        let before = row.receipt.as_deref().and_then(|before| receipt::place(before, log).ok());
        before.is_some() && before == receipt::place(receipt, log).ok()
    };
    row.receipted_at.filter(|_| logs.iter().any(is_there)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(sequence: i64) -> CertificateRow {
        CertificateRow {
            id: sequence.to_string(),
            sequence,
            run: String::new(),
            result: "complete".to_owned(),
            digest: String::new(),
            envelope: Vec::new(),
            evidence: Vec::new(),
            issued_at: DateTime::UNIX_EPOCH,
            supersedes: None,
        }
    }

    #[test]
    fn what_is_neither_filed_nor_waiting_is_wrong() {
        let row = |state: &str, receipt: Option<&[u8]>| OutboxRow {
            certificate: "c".to_owned(),
            state: state.to_owned(),
            attempts: 1,
            next_at: DateTime::UNIX_EPOCH,
            problem: Some("409".to_owned()),
            receipt: receipt.map(<[u8]>::to_vec),
            grade: None,
            receipted_at: None,
            alarm: false,
        };
        assert_eq!(filed(Some(&row("receipted", Some(b"r")))), Ok(Standing::Receipted(b"r")));
        assert_eq!(filed(Some(&row("pending", None))), Ok(Standing::Waits));
        assert_eq!(filed(Some(&row("acknowledged", None))), Ok(Standing::Acknowledged));
        let (pending, acknowledged) = (row("pending", Some(b"r")), row("acknowledged", Some(b"r")));
        for wrong in [row("receipted", None), row("quarantined", None), pending, acknowledged] {
            assert!(filed(Some(&wrong)).is_err(), "{wrong:?}");
        }
        assert!(filed(None).is_err());
    }

    #[test]
    fn a_better_receipt_of_the_same_place_keeps_the_time_of_the_first() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/proof");
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let logs = [CheckpointKey::parse(&text("checkpoint.vkey")).unwrap()];
        let receipt = text("receipt.json").into_bytes();
        let place = receipt::place(&receipt, &logs[0]).unwrap();
        let moved = text("receipt.json").replacen(&format!("\"logIndex\":\"{place}\""), "\"logIndex\":\"999\"", 1);
        assert_eq!(receipt::place(moved.as_bytes(), &logs[0]).unwrap(), 999);
        let (first, now) = (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(1));
        let mut row = OutboxRow {
            certificate: "c".to_owned(),
            state: "receipted".to_owned(),
            attempts: 1,
            next_at: first,
            problem: None,
            receipt: Some(receipt.clone()),
            grade: None,
            receipted_at: Some(first),
            alarm: false,
        };
        assert_eq!(since_when(&row, &receipt, &logs, now), first);
        assert_eq!(since_when(&row, moved.as_bytes(), &logs, now), now, "another place of the log");
        assert_eq!(since_when(&row, &receipt, &[], now), now, "a log that nobody knows");
        row.receipt = None;
        assert_eq!(since_when(&row, &receipt, &logs, now), now, "it was taken without a receipt");
    }

    #[test]
    fn a_missing_number_shows() {
        let rows = |numbers: &[i64]| numbers.iter().map(|number| certificate(*number)).collect::<Vec<_>>();
        assert!(sequence(&rows(&[])).1);
        assert!(sequence(&rows(&[1, 2, 3])).1);
        for bad in [&[2, 3][..], &[1, 3], &[1, 2, 2], &[0, 1]] {
            assert!(!sequence(&rows(bad)).1, "{bad:?}");
        }
    }
}
