//! The roll-up: once a day, what was certified and filed since the one before, under one signature and in the same sequence. What
//! counts as the period is the sequence itself, from the roll-up before on; so no clock decides what is in it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{
    Number, announced, begin_issue, issuer, log_issue, lost, medium, next_reserved, outside, proof, refusal, reserve,
    result_name, sign, told, uncertified_runs,
};
use crate::certify::Draft;
use crate::certify::codes::ErasureResult;
use crate::certify::roll_up::{Filed, ListLine, ListedCertificate, totals, write};
use crate::certify::statement::{Digest, EarlierRollUp, LogHead, RollUp, RollUpStatement, Timestamp};
use crate::control::{CertificateRow, OutboxRow, Tx};
use crate::crash_point;
use crate::installation::{Installation, operation_log};
use crate::random::uuid7;
use crate::tasks::Result;
use crate::tasks::request::request_name;

/// What stands in the place of a run in the row of a roll-up.
pub const ROLL_UP: &str = "roll-up";

/// Issues the roll-up, when the last one is not of this day of the agent's zone; returns its id. One from a clock that was ahead keeps no
/// other back.
///
/// # Errors
/// When the second place, the operation log or the control database fails.
pub async fn roll_up_due(installation: &Installation) -> Result<Option<String>> {
    let zone = installation.config.agent.timezone;
    let today = installation.clock.now().with_timezone(&zone).date_naive();
    let last = installation.control.read().await?.newest_certificate_of(ROLL_UP).await?;
    if last.is_some_and(|last| last.issued_at.with_timezone(&zone).date_naive() == today) {
        return Ok(None);
    }
    roll_up(installation).await.map(Some)
}

/// Issues one, with entries in the operation log around it.
async fn roll_up(installation: &Installation) -> Result<String> {
    let owed = owed(installation).await?;
    reserve(installation, 1).await?;
    let announced = begin_issue(installation, ROLL_UP).await?;
    let issued = issue(installation, owed).await;
    let outcome = if issued.is_ok() { "success" } else { "failure" };
    let logged = log_issue(installation, ROLL_UP, &announced, outcome).await;
    // Why it failed is told first.
    let id = issued?;
    logged?;
    Ok(id)
}

async fn issue(installation: &Installation, owed: Vec<String>) -> Result<String> {
    let head = operation_log(installation).await?.sequencer().checkpoint().await.checkpoint;
    let mut tx = installation.control.begin().await?;
    let now = installation.clock.now();
    let before = tx.newest_certificate_of(ROLL_UP).await?;
    let (lines, waiting_before) = lines(&mut tx, before.as_ref().map_or(1, |row| row.sequence), owed).await?;
    let (list, list_digest) = write(&lines).map_err(proof)?;
    let found = totals(&lines, waiting_before);
    let (sequence, previous) = next_reserved(&mut tx).await?;
    let id = announced(&mut tx).await?;
    let receipts = &found.receipts;
    let missing = [found.runs.without_certificate, receipts.waiting, receipts.refused, waiting_before];
    let is_whole = missing.iter().all(|count| *count == 0);
    let result = if is_whole { ErasureResult::Complete } else { ErasureResult::Partial };
    let from = before.as_ref().map(|row| row.issued_at);
    let from = from.or(lines_begin(&mut tx).await?).unwrap_or(now).min(now);
    let statement = RollUpStatement::new(
        &list_digest,
        RollUp {
            certificate_id: id.clone(),
            sequence: sequence as u64,
            previous_certificate: previous.clone().map(|sha256| Digest { sha256 }),
            issuer: issuer(installation),
            from: Timestamp::from(from),
            until: Timestamp::from(now),
            issued_at: Timestamp::from(now),
            result,
            run_totals: found.runs,
            certificate_totals: found.certificates,
            receipt_totals: found.receipts,
            operation_log: LogHead { size: head.size, root_hash: hex::encode(head.root) },
            previous_roll_up: before.map(|row| EarlierRollUp { certificate_id: row.id, sequence: row.sequence as u64 }),
        },
    );
    let draft = Draft::of_roll_up(&statement).map_err(|error| proof(told(&error)))?;
    drop(tx);
    let number = Number { sequence, previous, id: id.clone() };
    let (envelope, mut tx) = sign(installation, draft, now, &number).await?;
    tx.add_certificate(&number.row(ROLL_UP, result_name(result), &envelope, list, now)).await?;
    tx.announce_certificate(&uuid7(now, installation.random.as_ref())?).await?;
    tx.commit().await?;
    crash_point::reached("roll-up.issued");
    Ok(id)
}

async fn lines_begin(tx: &mut Tx) -> Result<Option<DateTime<Utc>>> {
    Ok(tx.runs(None).await?.iter().map(|run| run.begun_at).min())
}

/// Runs, outside keys, media and refused requests without the certificate that their present state wants.
async fn owed(installation: &Installation) -> Result<Vec<String>> {
    let runs = uncertified_runs(installation).await?.into_iter().map(|run| run.id);
    let keys = outside::uncertified(installation).await?.into_iter().map(|key| key.id);
    let media = medium::uncertified(installation).await?.into_iter().map(|row| row.id);
    let lost = lost::uncertified(installation).await?.into_iter().map(|lost| lost.row.id);
    let requests = refusal::uncertified(installation).await?.into_iter().map(|row| request_name(row.number));
    Ok(runs.chain(keys).chain(media).chain(lost).chain(requests).collect())
}

/// The certificates from a number on and what has none, and how many certificates before that number wait.
async fn lines(tx: &mut Tx, first: i64, owed: Vec<String>) -> Result<(Vec<ListLine>, u64)> {
    let outbox: BTreeMap<String, OutboxRow> =
        tx.outbox(None).await?.into_iter().map(|row| (row.certificate.clone(), row)).collect();
    let (mut lines, mut waiting_before) = (Vec::new(), 0);
    for row in tx.certificates(None).await? {
        let filed = filed(outbox.get(&row.id));
        if row.sequence < first {
            waiting_before += u64::from(matches!(filed, Filed::Waiting | Filed::Refused));
            continue;
        }
        let certificate =
            ListedCertificate { certificate: row.id, sequence: row.sequence as u64, digest: row.digest, filed };
        let about = (row.run != ROLL_UP).then_some(row.run);
        lines.push(ListLine { about, certificate: Some(certificate) });
    }
    lines.extend(owed.into_iter().map(|about| ListLine { about: Some(about), certificate: None }));
    Ok((lines, waiting_before))
}

/// How a certificate stands; one that the outbox does not know waits for somebody.
fn filed(row: Option<&OutboxRow>) -> Filed {
    match row.map(|row| (row.state.as_str(), row.grade.as_deref().and_then(|grade| grade.chars().next()))) {
        Some(("receipted", Some('A'))) => Filed::GradeA,
        Some(("receipted", Some('B'))) => Filed::GradeB,
        Some(("receipted", Some('C'))) => Filed::GradeC,
        Some(("receipted" | "acknowledged", _)) => Filed::GradeD,
        Some(("quarantined", _)) => Filed::Refused,
        _ => Filed::Waiting,
    }
}

/// What is wrong with a roll-up, compared with what is known now: the rows of its certificates and the operation log.
#[must_use]
pub fn wrong_with(
    statement: &RollUpStatement,
    list: &[u8],
    certificates: &[CertificateRow],
    root_at: Option<[u8; 32]>,
) -> Option<String> {
    let lines = match crate::certify::roll_up::verify(list, statement) {
        Ok(lines) => lines,
        Err(error) => return Some(error.to_string()),
    };
    for line in lines.iter().filter_map(|line| line.certificate.as_ref()) {
        let is_same = |row: &&CertificateRow| {
            row.sequence as u64 == line.sequence && row.id == line.certificate && row.digest == line.digest
        };
        if !certificates.iter().any(|row| is_same(&row)) {
            return Some(format!("certificate no. {}, which it counts, is not there as it was", line.sequence));
        }
    }
    let said = &statement.predicate.operation_log;
    let is_extended = root_at.is_some_and(|root| hex::encode(root) == said.root_hash);
    (!is_extended).then(|| format!("the operation log is not the one whose first {} entries it saw", said.size))
}
