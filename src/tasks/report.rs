//! `report`: totals of a period from the operation log and the certificates alone, signed.

use chrono::{DateTime, NaiveDate, Utc};

use super::evidence_pack::Period;
use super::oplog::entries;
use super::{Result, TaskError};
use crate::certify::VerifiedCertificate;
use crate::certify::report::{Report, Totals, signed_report, totals};
use crate::installation::{Installation, view_operation_log};

/// What the operation log calls the making of a report.
const OPERATION: &str = "report.make";

/// A report that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeReport {
    /// What it says.
    pub report: Report,
    /// The signed file.
    pub file: Vec<u8>,
    /// Whether the period is over.
    pub is_over: bool,
}

/// Counts and signs the report of these days, both included. Logged before.
///
/// # Errors
/// When the log or a certificate cannot be read or believed, or the report cannot be signed.
pub async fn make_report(installation: &Installation, from: NaiveDate, to: NaiveDate) -> Result<MadeReport> {
    let period = Period::of(from, to, installation.config.agent.timezone)?;
    let object = format!("{from}/{to}");
    let made_at = installation.clock.now();
    installation.log_operation(OPERATION, &object, "success").await?;
    let all = entries(&view_operation_log(installation).await?).await?;
    let rows = installation.control.read().await?.certificates(None).await?;
    let mut certificates: Vec<VerifiedCertificate> = Vec::new();
    for row in rows.iter().filter(|row| period.contains(row.issued_at)) {
        let read = crate::certify::verify(&row.envelope, installation.signer.trusted());
        certificates.push(read.map_err(|error| {
            TaskError::Proof(format!("certificate no. {}: {}", row.sequence, crate::error::with_causes(&error)))
        })?);
    }
    let records = all.iter().map(|entry| (entry.time, entry.text.as_deref()));
    let counted = (period.since, period.until.min(made_at));
    let counted = totals(records, &certificates.iter().collect::<Vec<_>>(), counted);
    let (report, file) = sign_report(installation, &period, made_at, counted).await?;
    Ok(MadeReport { report, file, is_over: made_at >= period.until })
}

/// A report with these totals, and its file.
pub(super) async fn sign_report(
    installation: &Installation,
    period: &Period,
    made_at: DateTime<Utc>,
    totals: Totals,
) -> Result<(Report, Vec<u8>)> {
    let report = Report {
        format_version: Report::version(),
        agent_id: hex::encode(installation.id()),
        from: period.from,
        to: period.to,
        timezone: period.zone.name().to_owned(),
        since: period.since.into(),
        until: period.until.into(),
        made_at: made_at.into(),
        totals,
    };
    let (payload, message) = report.to_sign().map_err(|error| TaskError::Inconsistent(error.to_string()))?;
    let signature = installation.signer.sign(&message).await?;
    let file = signed_report(payload, signature, installation.signer.key_id());
    Ok((report, file))
}
