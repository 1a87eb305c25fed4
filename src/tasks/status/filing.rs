//! Certificates that are not filed: for how long, and how much of the time for the request is over that they answer.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::config::AuditService;
use crate::control::{OutboxRow, RequestRow, Tx};
use crate::tasks::Result;
use crate::tasks::outbox::filing_circuit;
use crate::tasks::request::request_number;

use super::{FILING_AGE, Status};

/// A certificate that waits so long is late.
const FILING_LATE: TimeDelta = TimeDelta::hours(1);
/// Within this a certificate is filed behind its issue by itself, however little time is left for its request.
const FILED_BY_ITSELF: TimeDelta = TimeDelta::minutes(5);

/// What is known of a certificate without reading it.
struct Issued {
    at: DateTime<Utc>,
    about: String,
    is_first: bool,
}

/// The counts, and what of them needs a person.
pub(super) async fn look_at_certificates(
    tx: &mut Tx,
    service: &AuditService,
    now: DateTime<Utc>,
    status: &mut Status,
) -> Result<()> {
    let circuit = filing_circuit(tx, service).await?;
    if circuit.alarm {
        let reason = circuit.reason.unwrap_or_default();
        status.add("filing-alarm", format!("certificates are not filed: {reason}"), circuit.since);
    }
    let certificates = tx.certificates(None).await?;
    status.certificates[0] = certificates.len() as u64;
    let issued = certificates.into_iter().map(|row| {
        let is_first = row.supersedes.is_none();
        (row.id, Issued { at: row.issued_at, about: row.run, is_first })
    });
    let issued: HashMap<String, Issued> = issued.collect();
    let (filed, not_filed): (Vec<_>, Vec<_>) = (tx.outbox(None).await?.into_iter())
        .partition(|row| matches!(row.state.as_str(), "receipted" | "acknowledged"));
    status.certificates[1] = filed.len() as u64;
    let deadlines = if not_filed.is_empty() { Deadlines::default() } else { Deadlines::read(tx).await? };
    let mut late = Vec::new();
    for row in &not_filed {
        let issued = issued.get(&row.certificate);
        if row.state == "quarantined" {
            status.certificates[3] += 1;
            let reason = row.problem.as_deref().map_or_else(String::new, |problem| format!(": {problem}"));
            let what = format!("the audit service refuses certificate {}{reason}", row.certificate);
            status.add("certificate-quarantined", what, issued.map(|issued| issued.at));
        } else {
            status.certificates[2] += 1;
            add_wait(row, issued, now, status);
            late.extend(issued.filter(|issued| is_late(issued.at, now)).map(|issued| (issued.at, &row.certificate)));
        }
        if let Some((code, what, due)) = issued.and_then(|issued| deadlines.judge(&row.certificate, issued, now)) {
            status.add(code, what, Some(due));
        }
    }
    if let Some((since, oldest)) = late.iter().min() {
        let what = format!("{} certificates wait to be filed for more than an hour, first {oldest}", late.len());
        status.add("filing-late", what, Some(*since));
    }
    Ok(())
}

/// Late, and not overdue yet.
fn is_late(issued: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    let age = now - issued;
    age > FILING_LATE && age <= FILING_AGE
}

fn add_wait(row: &OutboxRow, issued: Option<&Issued>, now: DateTime<Utc>, status: &mut Status) {
    if row.alarm {
        let reason = row.problem.as_deref().unwrap_or_default();
        status.add("filing-alarm", format!("certificate {}: {reason}", row.certificate), None);
    }
    if let Some(issued) = issued.filter(|issued| now - issued.at > FILING_AGE) {
        status.add("filing-overdue", format!("certificate {} is not filed yet", row.certificate), Some(issued.at));
    }
}

/// By when which requests are to be answered.
#[derive(Default)]
struct Deadlines {
    requests: HashMap<i64, RequestRow>,
    /// The requests of runs.
    of_runs: HashMap<String, i64>,
}

impl Deadlines {
    async fn read(tx: &mut Tx) -> Result<Self> {
        let requests = tx.requests(None).await?.into_iter().map(|row| (row.number, row)).collect();
        let runs = tx.runs(None).await?.into_iter();
        Ok(Self { requests, of_runs: runs.filter_map(|run| Some((run.id, run.request?))).collect() })
    }

    /// What is to be said of a certificate that is not filed, and the date of its request, once half or nine tenths of its time are over.
    /// One that replaces another behind the date is no answer to the request any more.
    fn judge(
        &self,
        certificate: &str,
        issued: &Issued,
        now: DateTime<Utc>,
    ) -> Option<(&'static str, String, DateTime<Utc>)> {
        let number = self.of_runs.get(&issued.about).copied().or_else(|| request_number(&issued.about))?;
        let request = self.requests.get(&number)?;
        let (from, due) = (request.received_at, request.due_at);
        if now - issued.at <= FILED_BY_ITSELF || (issued.at >= due && !issued.is_first) {
            return None;
        }
        let (code, share) = match ((now - from).num_seconds(), (due - from).num_seconds()) {
            (passed, whole) if passed * 10 >= whole * 9 => ("filing-due-soon", "90 %"),
            (passed, whole) if passed * 2 >= whole => ("filing-due-half", "half"),
            _ => return None,
        };
        let what =
            format!("certificate {certificate} is not filed yet, and {share} of the time for request {number} is over");
        Some((code, what, due))
    }
}
