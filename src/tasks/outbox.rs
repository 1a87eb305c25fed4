//! `outbox`: files certificates with the audit service, oldest first, for as long as it takes.
//!
//! Each round begins with one certificate alone. When the service takes it the others follow, some at a time; when it fails, nothing
//! more is tried in this round, and behind several such rounds not before some time is over ([`crate::audit::circuit`]).

mod growth;
mod refused;

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use crate::audit::circuit::{Circuit, Position};
use crate::audit::receipt::{Grade, LogOperator};
use crate::audit::{FiledOutcome, RetryReason, backoff};
use crate::certify::evidence::verify_evidence;
use crate::certify::signer::TrustedKeys;
use crate::certify::{Said, roll_up};
use crate::config::AuditService;
use crate::control::{OutboxRow, Tx, Unfiled};
use crate::crash_point;
use crate::installation::{AuditConnection, Installation};
use crate::log::checkpoint::Checkpoint;

use super::trust::{Given, GivenReceipt, is_chained, trust, verify_with};
use super::{Result, TaskError};

use self::growth::{contradiction, note_seen};
pub(super) use self::growth::{proved_head, watch_growth};
pub use self::refused::release_refused;

/// Filings at the same time: how many to begin with, and at most. A service that commits many together answers 32 of them in the
/// time of a few.
const IN_FLIGHT: RangeInclusive<usize> = 8..=32;
/// A service that answers each within this time is given more at once, any other fewer.
const QUICK: Duration = Duration::from_millis(200);
/// Filings whose outcomes are stored together.
const GROUP: usize = 128;
/// The `meta` entry with what is known of the service's failures.
const CIRCUIT: &str = "audit_circuit";

/// What a round of filing did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FilingReport {
    /// Certificates with a verified receipt.
    pub receipted: Vec<String>,
    /// Certificates that were taken without a receipt.
    pub acknowledged: Vec<String>,
    /// Certificates that wait, with the reason.
    pub waiting: Vec<(String, String)>,
    /// Certificates that the service refuses, with the reason; a person must look.
    pub quarantined: Vec<(String, String)>,
    /// What only a person mends, although filing is tried on.
    pub alarm: Option<String>,
    /// What shows that the log was rolled back or has two faces; a person must look at once.
    pub doubt: Option<String>,
}

/// Files everything whose time has come; `now_all` tries waiting ones at once, whatever the service did before.
///
/// # Errors
/// When the control database fails. An unreachable service is not an error: certificates wait.
pub async fn file_due(installation: &Installation, now_all: bool) -> Result<FilingReport> {
    let mut report = FilingReport::default();
    let mut tx = installation.control.read().await?;
    let waiting = tx.unfiled().await?;
    let circuit = filing_circuit(&mut tx, &installation.config.audit.service).await?;
    drop(tx);
    let now = installation.clock.now();
    let (due, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|row| now_all || row.next_at <= now);
    report.waiting.extend(later.into_iter().map(|row| (row.certificate, row.problem.unwrap_or_default())));
    if let (Position::Open { .. }, false) = (circuit.position(now), now_all) {
        wait_with(&mut report, due, circuit.reason.as_deref().unwrap_or_default());
        report.alarm = circuit.alarm.then(|| circuit.reason.unwrap_or_default());
        return Ok(report);
    }
    if !due.is_empty() {
        // What was filed must not be unknown to a recovered site: it would use the number again.
        let sealed = installation.keyring.seal_state(&installation.control, installation.clock.as_ref()).await;
        if let Err(error) = sealed {
            if !error.is_retryable() {
                return Err(error.into());
            }
            wait_with(&mut report, due, &error.to_string());
            return Ok(report);
        }
    }
    let connection = installation.audit()?;
    let before = match &connection.log {
        Some(log) => proved_head(installation, log).await?,
        None => None,
    };
    Round { installation, connection, circuit, before, in_flight: *IN_FLIGHT.start(), report }.run(due).await
}

/// How many to file at once after so many took so long.
fn next_in_flight(now: usize, filed: usize, took: Duration) -> usize {
    let each = took * now as u32 / filed.max(1) as u32;
    let wanted = if each <= QUICK { now * 2 } else { now / 2 };
    wanted.clamp(*IN_FLIGHT.start(), *IN_FLIGHT.end())
}

fn wait_with(report: &mut FilingReport, rows: Vec<Unfiled>, reason: &str) {
    report.waiting.extend(rows.into_iter().map(|row| (row.certificate, reason.to_owned())));
}

/// What stands in the `meta` entry.
#[derive(Serialize, Deserialize)]
struct KeptCircuit {
    /// The service that it is about; the configuration may name another one by now.
    service: String,
    circuit: Circuit,
}

fn place_of(service: &AuditService) -> &str {
    match service {
        AuditService::Embedded { .. } => "embedded",
        AuditService::Url(url) | AuditService::Webhook { url, .. } => url,
    }
}

/// What is known of the failures of the service that is configured.
///
/// # Errors
/// When the control database cannot be read.
pub async fn filing_circuit(tx: &mut Tx, service: &AuditService) -> Result<Circuit> {
    let kept = tx.meta(CIRCUIT).await?.and_then(|text| serde_json::from_str::<KeptCircuit>(&text).ok());
    Ok(kept.filter(|kept| kept.service == place_of(service)).map(|kept| kept.circuit).unwrap_or_default())
}

/// One round.
struct Round<'i> {
    installation: &'i Installation,
    connection: &'i AuditConnection,
    circuit: Circuit,
    /// The head from which the log's growth is to be proved.
    before: Option<Checkpoint>,
    in_flight: usize,
    report: FilingReport,
}

/// One try.
struct Tried {
    row: OutboxRow,
    outcome: FiledOutcome,
}

impl Round<'_> {
    async fn run(mut self, due: Vec<Unfiled>) -> Result<FilingReport> {
        let mut rest = due.into_iter();
        let mut group: Vec<Unfiled> = rest.by_ref().take(1).collect();
        let mut head = None;
        while !group.is_empty() {
            let (count, begun) = (group.len(), Instant::now());
            let is_full = count == GROUP;
            head = self.file_group(group).await?.or(head);
            if is_full {
                self.in_flight = next_in_flight(self.in_flight, count, begun.elapsed());
            }
            group = rest.by_ref().take(GROUP).collect();
            // A long round asks on the way, too.
            if is_full && !group.is_empty() {
                self.watch(head.clone()).await?;
            }
            let why = self.circuit.reason.clone().or_else(|| self.report.doubt.clone());
            if let Some(why) = why {
                wait_with(&mut self.report, std::mem::take(&mut group), &why);
                wait_with(&mut self.report, rest.by_ref().collect(), &why);
            }
        }
        self.watch(head).await?;
        Ok(self.report)
    }

    /// Whether the log has grown to its newest head; with none from this round, to one for which there was no answer yet.
    async fn watch(&mut self, head: Option<Checkpoint>) -> Result<()> {
        if self.report.doubt.is_some() {
            return Ok(());
        }
        let from = self.before.clone().or_else(|| head.clone());
        self.report.doubt = watch_growth(self.installation, from, head.clone()).await?;
        if let Some(head) = &head {
            self.before = self.proved(head).await?;
        }
        Ok(())
    }

    /// The head to ask from next: the one that was proved, or still the earlier one when there was no answer.
    async fn proved(&self, head: &Checkpoint) -> Result<Option<Checkpoint>> {
        match &self.connection.log {
            Some(log) => Ok(proved_head(self.installation, log).await?.or_else(|| Some(head.clone()))),
            None => Ok(None),
        }
    }

    /// Files some at the same time and stores what came of it. Returns the newest head that was shown.
    async fn file_group(&mut self, group: Vec<Unfiled>) -> Result<Option<Checkpoint>> {
        let mut tx = self.installation.control.read().await?;
        let mut sent = Vec::with_capacity(group.len());
        for row in group {
            sent.extend(tx.to_file(&row.certificate).await?);
        }
        drop(tx);
        let down = std::sync::atomic::AtomicBool::new(false);
        let sink = &self.connection.sink;
        let tried: Vec<Result<Tried, OutboxRow>> = futures_util::stream::iter(sent)
            .map(|(row, envelope)| {
                let down = &down;
                async move {
                    if down.load(std::sync::atomic::Ordering::Relaxed) {
                        return Err(row);
                    }
                    let outcome = sink.file(&row.certificate, &envelope).await;
                    crash_point::reached("outbox.filed");
                    if matches!(&outcome, FiledOutcome::Retry { reason, .. } if reason.is_of_service()) {
                        down.store(true, std::sync::atomic::Ordering::Relaxed);
                    }
                    Ok(Tried { row, outcome })
                }
            })
            .buffer_unordered(self.in_flight)
            .collect()
            .await;
        let number = tried.len();
        let head = self.settle(tried).await?;
        (0..number).for_each(|_| crash_point::reached("outbox.receipted"));
        Ok(head)
    }

    async fn settle(&mut self, tried: Vec<Result<Tried, OutboxRow>>) -> Result<Option<Checkpoint>> {
        let (mut rows, mut heads, mut left) = (Vec::new(), Vec::new(), Vec::new());
        let mut failure = None;
        let mut worked = false;
        for tried in tried {
            match tried {
                Err(row) => left.push(row.certificate),
                Ok(Tried { mut row, outcome }) => {
                    if let FiledOutcome::Receipted(filed) = &outcome {
                        heads.push(filed.verified.head());
                    }
                    match &outcome {
                        FiledOutcome::Retry { after, alarm, reason } if reason.is_of_service() => {
                            failure = Some((*after, *alarm, *reason));
                        }
                        _ => worked = true,
                    }
                    self.enter(&mut row, outcome)?;
                    rows.push(row);
                }
            }
        }
        self.judge_service(worked, failure)?;
        let reason = self.circuit.reason.clone().unwrap_or_default();
        self.report.waiting.extend(left.into_iter().map(|certificate| (certificate, reason.clone())));
        self.report.doubt = contradiction(&heads);
        let head = heads.into_iter().max_by_key(|head| head.size);
        let mut tx = self.installation.control.begin().await?;
        for row in &rows {
            tx.set_outbox(row).await?;
        }
        if let (Some(head), Some(log)) = (&head, &self.connection.log) {
            note_seen(&mut tx, log, head).await?;
        }
        let service = place_of(&self.installation.config.audit.service).to_owned();
        let kept = KeptCircuit { service, circuit: self.circuit.clone() };
        let text = serde_json::to_string(&kept).map_err(|error| TaskError::Proof(error.to_string()))?;
        if tx.meta(CIRCUIT).await?.as_deref() != Some(&text) {
            tx.set_meta(CIRCUIT, &text).await?;
        }
        tx.commit().await?;
        Ok(head)
    }

    /// An answer of whatever kind closes the circuit; a failure counts against the service.
    fn judge_service(&mut self, worked: bool, failure: Option<(Option<Duration>, bool, RetryReason)>) -> Result<()> {
        if worked {
            self.circuit = Circuit::default();
        }
        if let Some((asked, alarm, reason)) = failure {
            let own = backoff(self.circuit.failures + 1, self.installation.random.as_ref())?;
            let now = self.installation.clock.now();
            self.circuit.failed(now, asked, own, &reason.to_string(), alarm);
            if alarm {
                self.report.alarm = Some(reason.to_string());
            }
        }
        Ok(())
    }

    fn enter(&mut self, row: &mut OutboxRow, outcome: FiledOutcome) -> Result<()> {
        let now = self.installation.clock.now();
        row.attempts += 1;
        row.alarm = false;
        match outcome {
            FiledOutcome::Receipted(receipt) => {
                let grade = receipt.verified.witnessed_by(&self.installation.config.audit.quorum).grade;
                filed(row, "receipted", grade, self.connection.operator, now);
                row.receipt = Some(receipt.bytes);
                self.report.receipted.push(row.certificate.clone());
            }
            FiledOutcome::Signed(bytes) => {
                filed(row, "receipted", Grade::C, self.connection.operator, now);
                row.receipt = Some(bytes);
                self.report.receipted.push(row.certificate.clone());
            }
            FiledOutcome::Acknowledged => {
                filed(row, "acknowledged", Grade::D, self.connection.operator, now);
                self.report.acknowledged.push(row.certificate.clone());
            }
            FiledOutcome::Quarantine(reason) => {
                "quarantined".clone_into(&mut row.state);
                row.problem = Some(reason.to_string());
                self.report.quarantined.push((row.certificate.clone(), reason.to_string()));
            }
            FiledOutcome::Retry { after, alarm, reason } => {
                // What the service cannot do now, it can do for all of them later: the circuit knows when. Only not again at once.
                let is_of_service = reason.is_of_service();
                let attempt = if is_of_service { 1 } else { u32::try_from(row.attempts).unwrap_or(u32::MAX) };
                let own = || backoff(attempt, self.installation.random.as_ref());
                let delay = after.filter(|_| !is_of_service).map_or_else(own, Ok)?;
                row.next_at = now + TimeDelta::from_std(delay).unwrap_or(TimeDelta::minutes(15));
                if !is_of_service {
                    row.alarm = alarm;
                    if alarm {
                        self.report.alarm = Some(reason.to_string());
                    }
                }
                row.problem = Some(reason.to_string());
                self.report.waiting.push((row.certificate.clone(), reason.to_string()));
            }
        }
        Ok(())
    }
}

fn filed(row: &mut OutboxRow, state: &str, grade: Grade, operator: LogOperator, now: DateTime<Utc>) {
    state.clone_into(&mut row.state);
    row.problem = None;
    row.grade = Some(format!("{grade:?}: {}", grade.describe(operator)));
    row.receipted_at = Some(now);
}

/// A certificate's offline verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateVerdict {
    /// `valid` or `invalid`.
    pub result: &'static str,
    /// What was checked, and how it ended, one line each.
    pub checks: Vec<(String, bool, String)>,
}

/// Verifies a stored certificate, its evidence, its receipt and its time stamp, with nothing but public keys. Neither the audit service
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
    let row = tx.outbox(None).await?.into_iter().find(|row| row.certificate == id);
    let stamps = tx.time_stamp(id).await?.map(|row| row.reply).into_iter().collect();
    drop(tx);
    let trust = trust(installation).await?;
    let receipt = match row {
        Some(OutboxRow { receipt: Some(receipt), .. }) => GivenReceipt::kept(&receipt),
        Some(row) if row.state == "acknowledged" => GivenReceipt::Acknowledged,
        _ => GivenReceipt::Missing,
    };
    let is_chained = is_chained(installation, &certificate).await?;
    let (envelope, evidence) = (certificate.envelope.as_slice(), Some(certificate.evidence.as_slice()));
    let given = Given { envelope, receipt, stamps, evidence, is_chained };
    Ok(verify_with(&trust, &given, installation.clock.now()).0)
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

#[cfg(test)]
mod pace_tests {
    use super::*;

    #[test]
    fn a_quick_service_is_given_more_at_once_and_a_slow_one_fewer() {
        let milliseconds = Duration::from_millis;
        assert_eq!(next_in_flight(8, 128, milliseconds(16 * 50)), 16, "50 ms each");
        assert_eq!(next_in_flight(32, 128, milliseconds(4 * 50)), 32);
        assert_eq!(next_in_flight(32, 128, milliseconds(4 * 900)), 16, "900 ms each");
        assert_eq!(next_in_flight(8, 128, milliseconds(16 * 900)), 8);
        assert_eq!(next_in_flight(8, 0, milliseconds(0)), 16);
    }
}
