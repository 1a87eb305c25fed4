//! Certificates of requests of which nothing was carried out: because rules keep every row, which is what a run found, or because
//! somebody ended the request before a run took anything.

use chrono::{DateTime, Utc};

use super::predicate::kept::reason_of;
use super::predicate::{AskedFor, REFERENCE_KEY, privacy};
use super::{
    FINAL, Number, SHRED_PENDING, SHREDDED, announced, begin_issue, issuer, log_issue, next_reserved, proof,
    request_of, result_name, sign, told,
};
use crate::certify::Draft;
use crate::certify::codes::{ErasureResult, Limitation, RefusalReason, SupersedesReason};
use crate::certify::evidence::EvidenceWriter;
use crate::certify::statement::{
    ClockQuality, Digest, Predicate, Refusal, Scope, Statement, Supersedes, Timestamp, Trigger,
};
use crate::control::{CertificateRow, RequestRow, RunRow, Tx};
use crate::erase::waits::Waits;
use crate::installation::Installation;
use crate::keyring::Purpose;
use crate::keys::Key;
use crate::keys::suite::{Suite, mac};
use crate::plan::PlanBody;
use crate::random::uuid7;
use crate::tasks::erasure::RunBody;
use crate::tasks::request::{Refused, request_name};
use crate::tasks::{Result, TaskError};

/// What the certificate of a run tells of whose rows all stay.
pub(in crate::tasks) const REFUSED: &str = "refused";

/// Whether the run of a request ended, reached everything, and left every row where it was.
pub(super) fn keeps_all(run: &RunRow, body: &RunBody) -> bool {
    let is_ended = matches!(run.state.as_str(), SHRED_PENDING | SHREDDED | FINAL) && body.undone.is_none();
    let is_kept = body.due > 0 && body.kept == body.due && body.residual == 0;
    run.request.is_some() && is_ended && is_kept && body.skipped.is_empty() && body.stopped == 0
}

/// Why every row of a request stays, by the run that looked for them; none when something went, failed, was not reached, changed under
/// the run's hands, or another run of the request took something before.
pub(super) async fn reasons_of_run(tx: &mut Tx, run: &RunRow, body: &RunBody) -> Result<Vec<RefusalReason>> {
    let Some(number) = run.request.filter(|_| keeps_all(run, body)) else { return Ok(Vec::new()) };
    let plan = tx.plan(run.plan.as_deref().unwrap_or_default()).await?;
    let plan = plan.ok_or_else(|| TaskError::Inconsistent(format!("run {} has no plan", run.id)))?;
    let plan: PlanBody = serde_json::from_str(&plan.body)
        .map_err(|_| TaskError::Inconsistent("a plan's public part is damaged".to_owned()))?;
    let kept = plan.collections.iter().flat_map(|counts| &counts.keep);
    if kept.clone().map(|(_, rows)| rows).sum::<u64>() != u64::try_from(body.due).unwrap_or(0) {
        return Ok(Vec::new());
    }
    // Their ids are in the order of time.
    for before in tx.runs(None).await?.into_iter().filter(|before| before.request == Some(number) && before.id < run.id)
    {
        // Of one that was undone too: what could not be put back is gone.
        if RunBody::of(&before)?.gone() > 0 {
            return Ok(Vec::new());
        }
    }
    let mut reasons: Vec<RefusalReason> =
        kept.filter_map(|(code, _)| RefusalReason::of_kept(reason_of(code).0)).collect();
    reasons.sort_unstable();
    reasons.dedup();
    Ok(reasons)
}

/// What the certificate of a run says whose rows all stay; none without reasons.
pub(super) async fn refusal_of_run(
    tx: &mut Tx,
    run: &RunRow,
    reasons: Vec<RefusalReason>,
    now: DateTime<Utc>,
) -> Result<Option<Refusal>> {
    if reasons.is_empty() {
        return Ok(None);
    }
    let request = match run.request {
        Some(number) => tx.request(number).await?,
        None => None,
    };
    let is_open = |request: &&RequestRow| matches!(request.state.as_str(), "waiting" | "received" | "running");
    let waits = request.as_ref().filter(is_open).map(|request| Waits::of(request.waits.as_deref()));
    let until = waits.as_ref().and_then(|waits| waits.until).filter(|_| reasons.contains(&RefusalReason::Statute));
    Ok(Some(Refusal {
        version: 1,
        reasons,
        decided_at: Timestamp::from(run.ended_at.unwrap_or(now).min(now)),
        decided_by: None,
        waits: waits.is_some(),
        looked_at_again: until.map(|until| until.date_naive()),
    }))
}

/// Requests that somebody ended before anything was carried out, and that have no certificate of that yet.
pub(super) async fn uncertified(installation: &Installation) -> Result<Vec<RequestRow>> {
    let mut due = Vec::new();
    for request in installation.control.read().await?.refused_requests().await? {
        if Refused::of(&request)?.is_some_and(|refused| !refused.certified) {
            due.push(request);
        }
    }
    Ok(due)
}

/// Issues the certificate of one such request, with entries in the operation log around it.
pub(super) async fn certify_request(installation: &Installation, request: &RequestRow) -> Result<String> {
    let about = request_name(request.number);
    let announced = begin_issue(installation, &about).await?;
    let issued = issue(installation, request, &about).await;
    let outcome = if issued.is_ok() { "success" } else { "failure" };
    let logged = log_issue(installation, &about, &announced, outcome).await;
    let issued = issued?;
    logged?;
    Ok(issued)
}

async fn issue(installation: &Installation, request: &RequestRow, about: &str) -> Result<String> {
    let lost = || TaskError::Inconsistent(format!("why request {} was ended is missing", request.number));
    let refused = Refused::of(request)?.ok_or_else(lost)?;
    let now = installation.clock.now().max(refused.at);
    let mut tx = installation.control.begin().await?;
    // A run that found every row kept has a certificate of its own, which says that the request waits. One of another kind goes on to tell of
    // its run.
    let earlier = match &request.run {
        Some(run) => tx.newest_certificate_of(run).await?,
        None => None,
    };
    let earlier = earlier.filter(|row| row.result == result_name(ErasureResult::Refused)).map(|row| row.id);
    let asked = request_of(&mut tx, Some(request.number)).await?.ok_or_else(lost)?;
    let (sequence, previous) = next_reserved(&mut tx).await?;
    let id = announced(&mut tx).await?;
    let key = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
    let (digest, _) = EvidenceWriter::default().finish();
    let number = Number { sequence, previous, id: id.clone() };
    let supersedes =
        earlier.clone().map(|certificate_id| Supersedes { certificate_id, reason: SupersedesReason::Completion });
    let predicate = Predicate { supersedes, ..predicate(installation, (&refused, &asked), &key, &number, now) };
    let statement = Statement::new(&digest, predicate);
    let draft = Draft::of(&statement).map_err(|error| proof(told(&error)))?;
    // The reference key may be new.
    tx.commit().await?;
    let (envelope, mut tx) = sign(installation, draft, now, &number).await?;
    let stored = number.row(about, result_name(ErasureResult::Refused), &envelope, String::new(), now);
    tx.add_certificate(&CertificateRow { supersedes: earlier, ..stored }).await?;
    tx.announce_certificate(&uuid7(now, installation.random.as_ref())?).await?;
    let certified = Refused { certified: true, ..refused }.text()?;
    if !tx.set_request_refusal(request.number, request.refusal.as_deref(), &certified).await? {
        return Err(TaskError::Inconsistent(format!("request {} changed while it was certified", request.number)));
    }
    tx.commit().await?;
    Ok(id)
}

/// Nothing was looked for, so no place is named and nothing counted.
fn predicate(
    installation: &Installation,
    (refused, asked): (&Refused, &AskedFor),
    key: &Key,
    number: &Number,
    now: DateTime<Utc>,
) -> Predicate {
    let at = Timestamp::from(refused.at);
    let keyed = |digest: &str| format!("hmac-sha256:{REFERENCE_KEY}:{digest}");
    let by = hex::encode(mac(Suite::Intl, key, &[b"actor", refused.by.as_bytes()]));
    let mut limitations = vec![Limitation::ClockUnverified, Limitation::LookupKeyNotRotated];
    limitations.push(Limitation::IdentityNotChecked);
    limitations.extend(installation.audit_limitation());
    limitations.sort_unstable();
    Predicate {
        certificate_id: number.id.clone(),
        sequence: number.sequence as u64,
        previous_certificate: number.previous.clone().map(|sha256| Digest { sha256 }),
        issuer: issuer(installation),
        started_at: at,
        finished_at: at,
        issued_at: Timestamp::from(now),
        absence_checked_at: None,
        absence_valid_until: None,
        clock: ClockQuality { source: "host".to_owned(), max_error_ms: 300_000 },
        result: ErasureResult::Refused,
        trigger: Trigger {
            kind: asked.reason,
            request_ref: Some(request_name(asked.number)),
            received_at: Some(Timestamp::from(asked.received)),
            due_at: Some(Timestamp::from(asked.due)),
        },
        policy: None,
        legal_basis: Vec::new(),
        approvals: Vec::new(),
        scope: Scope {
            targets_declared: 0,
            targets_reached: 0,
            subjects_count: 1,
            subject_refs: refused.subject_ref.iter().map(|digest| keyed(digest)).collect(),
            data_categories: Vec::new(),
        },
        targets: Vec::new(),
        retained: Vec::new(),
        recipients: Vec::new(),
        root_slot: None,
        outside_key: None,
        medium: None,
        backup_copies: Vec::new(),
        lost_medium: None,
        refusal: Some(Refusal {
            version: 1,
            reasons: vec![refused.reason],
            decided_at: at,
            decided_by: Some(keyed(&by)),
            waits: false,
            looked_at_again: None,
        }),
        residual_date: None,
        final_since: None,
        limitations,
        supersedes: None,
        privacy: privacy(),
    }
}
