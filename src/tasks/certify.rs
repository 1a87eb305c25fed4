//! `certify`: issues the certificate of every run that has none for its present state.
//!
//! A run gets one certificate when its rows are gone and keys are still to die (`partial`, `KEY_SHRED_PENDING`), and a
//! superseding one when they are destroyed; a run that is certified after its shred gets only that.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, NaiveDate, Utc};

use crate::certify::check::location;
use crate::certify::codes::{
    Action, BackupState, CopyState, ErasureResult, Limitation, RetainedReason, Sanitization, SlotClass,
    SupersedesReason, System, TriggerKind, VerificationMethod,
};
use crate::certify::evidence::{After, EvidenceRow, EvidenceWriter};
use crate::certify::issue;
use crate::certify::statement::{
    Backups, ClockQuality, DeclaredCopy, Digest, Issuer, KeyEvidence, Predicate, Privacy, PrivacyScan, Retained,
    RootSlot, Scope, Statement, Supersedes, Target, Timestamp, Trigger, Verification,
};
use crate::control::{CertificateRow, ChunkRow, LedgerKind, RunRow};
use crate::crash_point;
use crate::erase::Site;
use crate::installation::Installation;
use crate::keyring::Purpose;
use crate::keys::Key;
use crate::keys::suite::{Suite, mac};
use crate::plan::{PlanBody, Reason};
use crate::policy::registry::BackupMode;
use crate::random::uuid7;
use crate::stores::Engine;

use super::erasure::RunBody;
use super::{Result, TaskError};

/// The version of the personal-data scan in [`crate::certify::lint`].
const LINT_RULES: &str = "v1";
/// Certificates and request files are kept for at least three years; their pseudonyms die after twenty at the latest.
const REFERENCE_YEARS: u64 = 20;
/// What stands for a date that cannot be computed: the day until which rows sealed in an open bucket may be readable.
const NO_DATE_DAYS: u64 = 3650;

fn proof(error: impl std::fmt::Display) -> TaskError {
    TaskError::Proof(error.to_string())
}

/// Issues what is missing; returns the ids of new certificates.
///
/// # Errors
/// When a certificate breaks its own rules, cannot be signed, or the control database fails.
pub async fn certify_due(installation: &Installation) -> Result<Vec<String>> {
    let mut tx = installation.control.read().await?;
    let mut waiting = Vec::new();
    for state in ["shred-pending", "shredded"] {
        for run in tx.runs(Some(state)).await? {
            let issued = tx.certificates(Some(&run.id)).await?;
            // The superseding certificate is due once the state that the first one told of has passed.
            let done = !issued.is_empty() && RunBody::of(&run)?.certified.as_deref() == Some(run.state.as_str());
            if !done {
                waiting.push((run, issued.last().map(|last| last.id.clone())));
            }
        }
    }
    drop(tx);
    let mut ids = Vec::new();
    for (run, earlier) in waiting {
        ids.push(certify_run(installation, &run, earlier).await?);
        crash_point::reached("certificate.issued");
    }
    Ok(ids)
}

struct Facts<'a> {
    installation: &'a Installation,
    run: &'a RunRow,
    body: RunBody,
    chunks: Vec<ChunkRow>,
    plan: PlanBody,
    now: DateTime<Utc>,
    key_evidence: Option<KeyEvidence>,
}

async fn certify_run(installation: &Installation, run: &RunRow, earlier: Option<String>) -> Result<String> {
    let now = installation.clock.now();
    let mut tx = installation.control.begin().await?;
    let plan = tx.plan(run.plan.as_deref().unwrap_or_default()).await?;
    let plan = plan.ok_or_else(|| TaskError::Inconsistent(format!("run {} has no plan", run.id)))?;
    let facts = Facts {
        installation,
        run,
        body: RunBody::of(run)?,
        chunks: tx.chunks(&plan.id).await?,
        plan: serde_json::from_str(&plan.body)
            .map_err(|_| TaskError::Inconsistent("a plan's public part is damaged".to_owned()))?,
        now,
        key_evidence: destroyed_generation(installation, &mut tx, run).await?,
    };
    let reference_key = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
    let (evidence, evidence_digest) = evidence(&facts, &mut tx, &reference_key).await?;
    let (sequence, previous) = tx.next_certificate().await?;
    let id = uuid7(now, installation.random.as_ref())?;
    let supersedes =
        earlier.clone().map(|certificate_id| Supersedes { certificate_id, reason: SupersedesReason::Completion });
    let predicate = predicate(&facts, &id, sequence as u64, previous, supersedes, request_times(&mut tx, run).await?)?;
    let result = result_name(predicate.result);
    let statement = Statement::new(&evidence_digest, predicate);
    let envelope = issue(&statement, installation.signer.certificates()).map_err(proof)?;
    let row = CertificateRow {
        id: id.clone(),
        sequence,
        run: run.id.clone(),
        result: result.to_owned(),
        digest: hex::encode(envelope.digest()),
        envelope: envelope.as_bytes().to_vec(),
        evidence: evidence.into_bytes(),
        issued_at: now,
        supersedes: earlier,
    };
    tx.add_certificate(&row).await?;
    let mut certified = run.clone();
    RunBody { certified: Some(run.state.clone()), ..facts.body }.put(&mut certified)?;
    if !tx.step_run(&certified, &run.state).await? {
        return Err(TaskError::Inconsistent(format!("run {} changed while it was certified", run.id)));
    }
    tx.commit().await?;
    Ok(id)
}

/// The kebab-case name of a result.
#[must_use]
pub fn result_name(result: ErasureResult) -> &'static str {
    match result {
        ErasureResult::Complete => "complete",
        ErasureResult::Partial => "partial",
        ErasureResult::NothingFound => "nothing-found",
        ErasureResult::Refused => "refused",
        ErasureResult::Failed => "failed",
    }
}

async fn request_times(
    tx: &mut crate::control::Tx,
    run: &RunRow,
) -> Result<Option<(i64, DateTime<Utc>, DateTime<Utc>)>> {
    let Some(number) = run.request else { return Ok(None) };
    Ok(tx.request(number).await?.map(|request| (number, request.received_at, request.due_at)))
}

async fn destroyed_generation(
    installation: &Installation,
    tx: &mut crate::control::Tx,
    run: &RunRow,
) -> Result<Option<KeyEvidence>> {
    let Some(generation) = run.generation else { return Ok(None) };
    let Some((at, _)) = tx.rekey_evidence(generation).await? else { return Ok(None) };
    let at: DateTime<Utc> = crate::control::parse_time(&at)?;
    let name = format!("{}/root/{}", hex::encode(installation.id()), generation - 1);
    Ok(Some(KeyEvidence {
        key_id_sha256: hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes())),
        kms: "file".to_owned(),
        algorithm: "AES-256-GCM".to_owned(),
        destroyed_at: Some(Timestamp::from(at)),
        copies_known: 0,
        escrow: false,
    }))
}

async fn evidence(facts: &Facts<'_>, tx: &mut crate::control::Tx, key: &Key) -> Result<(String, String)> {
    let mut writer = EvidenceWriter::default();
    let mut file = String::new();
    let at = Timestamp::from(facts.run.verified_at.unwrap_or(facts.now));
    for entry in tx.ledger_of_run(&facts.run.id).await? {
        let row = EvidenceRow {
            target_id: location(&entry.store, &entry.collection),
            reference: hex::encode(mac(Suite::Intl, key, &[b"row", &entry.row_mac])),
            content_before: hex::encode(entry.content_mac),
            action: if entry.kind == LedgerKind::Erased { Action::Delete } else { Action::Anonymize },
            at,
            after: After::Absent,
            check: VerificationMethod::FullReadback,
        };
        file.push_str(&writer.line(&row).map_err(proof)?);
    }
    let (digest, _) = writer.finish();
    Ok((file, digest))
}

fn predicate(
    facts: &Facts<'_>,
    id: &str,
    sequence: u64,
    previous: Option<String>,
    supersedes: Option<Supersedes>,
    request: Option<(i64, DateTime<Utc>, DateTime<Utc>)>,
) -> Result<Predicate> {
    let run = facts.run;
    let targets = targets(facts)?;
    let retained = retained(facts);
    let limitations = limitations(facts, &targets);
    let declared = facts.plan.collections.len() + facts.plan.skipped.len();
    let residual_date = residual_date(facts, &targets);
    let reference_key_id = "certificate".to_owned();
    let finished = run.ended_at.unwrap_or(facts.now);
    Ok(Predicate {
        certificate_id: id.to_owned(),
        sequence,
        previous_certificate: previous.map(|sha256| Digest { sha256 }),
        issuer: Issuer {
            controller: facts.installation.config.agent.name.clone(),
            agent_id: hex::encode(facts.installation.id()),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            environment: "prod".to_owned(),
        },
        started_at: Timestamp::from(run.begun_at),
        finished_at: Timestamp::from(finished),
        issued_at: Timestamp::from(facts.now),
        absence_checked_at: run.verified_at.map(Timestamp::from),
        absence_valid_until: None,
        clock: ClockQuality { source: "host".to_owned(), max_error_ms: 300_000 },
        result: result_of(facts),
        trigger: trigger(request),
        policy: None,
        legal_basis: Vec::new(),
        approvals: Vec::new(),
        scope: Scope {
            targets_declared: declared as u64,
            targets_reached: facts.plan.collections.len() as u64,
            subjects_count: u64::from(run.request.is_some()),
            subject_refs: facts
                .body
                .subject_ref
                .iter()
                .map(|digest| format!("hmac-sha256:{reference_key_id}:{digest}"))
                .collect(),
            data_categories: Vec::new(),
        },
        targets,
        retained,
        recipients: Vec::new(),
        root_slot: Some(RootSlot { class: SlotClass::D, kind: "file".to_owned() }),
        residual_date,
        limitations,
        supersedes,
        privacy: Privacy {
            ref_key_id: reference_key_id,
            ref_key_destroy_at: after_days(facts.now, REFERENCE_YEARS * 365),
            scan: PrivacyScan { rules: LINT_RULES.to_owned(), hits: 0 },
        },
    })
}

fn trigger(request: Option<(i64, DateTime<Utc>, DateTime<Utc>)>) -> Trigger {
    match request {
        Some((number, received, due)) => Trigger {
            kind: TriggerKind::SubjectRequest,
            request_ref: Some(format!("request-{number}")),
            received_at: Some(Timestamp::from(received)),
            due_at: Some(Timestamp::from(due)),
        },
        None => Trigger { kind: TriggerKind::RetentionExpiry, request_ref: None, received_at: None, due_at: None },
    }
}

fn after_days(from: DateTime<Utc>, days: u64) -> NaiveDate {
    from.date_naive().checked_add_days(Days::new(days)).unwrap_or(NaiveDate::MAX)
}

fn result_of(facts: &Facts<'_>) -> ErasureResult {
    let body = &facts.body;
    if body.due == 0 && body.skipped.is_empty() {
        ErasureResult::NothingFound
    } else if body.failed > 0 && body.erased + body.stripped == 0 {
        ErasureResult::Failed
    } else if facts.run.state == "shredded" && body.failed == 0 && body.skipped.is_empty() {
        ErasureResult::Complete
    } else {
        ErasureResult::Partial
    }
}

fn site_of<'a>(facts: &'a Facts<'_>, store: &str) -> Option<&'a Site> {
    facts.installation.sites().iter().find(|site| site.model.spec.name == store)
}

fn targets(facts: &Facts<'_>) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for counts in &facts.plan.collections {
        let sums = facts
            .chunks
            .iter()
            .filter(|chunk| chunk.store == counts.store && chunk.collection == counts.collection)
            .fold((0, 0, 0), |(erased, retained, failed), chunk| {
                let kept = if chunk.verdict == "keep" { chunk.rows } else { chunk.counts.kept + chunk.counts.stripped };
                (erased + chunk.counts.erased, retained + kept, failed + chunk.counts.failed)
            });
        let spec = facts.installation.config.registry.store(&counts.store);
        let spec =
            spec.ok_or_else(|| TaskError::Inconsistent(format!("store {} is not registered any more", counts.store)))?;
        let touched = sums.0 > 0 || facts.body.stripped > 0;
        targets.push(Target {
            target_id: location(&counts.store, &counts.collection),
            system: match site_of(facts, &counts.store).map(|site| site.store.engine()) {
                Some(Engine::Postgres) => System::Postgresql,
                Some(Engine::Mysql) => System::Mysql,
                _ => System::Sqlite,
            },
            location: location(&counts.store, &counts.collection),
            data_category: "registered".to_owned(),
            action: Action::Delete,
            sanitization: Sanitization::Clear,
            technique: "sql-delete".to_owned(),
            tool: format!("wangchuan/{}", env!("CARGO_PKG_VERSION")),
            records_selected: (sums.0 + sums.1 + sums.2) as u64,
            records_erased: sums.0 as u64,
            records_anonymized: 0,
            records_retained: sums.1 as u64,
            records_failed: sums.2 as u64,
            objects_erased: 0,
            bytes_erased: 0,
            duration_ms: u64::try_from(
                (facts.run.ended_at.unwrap_or(facts.now) - facts.run.begun_at).num_milliseconds(),
            )
            .unwrap_or(0),
            keys: if touched && facts.run.state == "shredded" {
                facts.key_evidence.iter().cloned().collect()
            } else {
                Vec::new()
            },
            anonymization: None,
            verification: Verification {
                method: VerificationMethod::FullReadback,
                sample_percent: 100.0,
                checked_at: Some(Timestamp::from(facts.run.verified_at.unwrap_or(facts.now))),
                residual_found: facts.body.residual,
                independent: true,
                evidence_sha256: None,
            },
            backups: backups(facts, spec.backup, touched),
            copies: spec
                .copies
                .iter()
                .map(|copy| DeclaredCopy {
                    copy_ref: copy.name.clone(),
                    state: CopyState::Expires,
                    dies_by: Some(copy_end(facts.run.verified_at.unwrap_or(facts.now), &copy.dies)),
                })
                .collect(),
            media: None,
        });
    }
    Ok(targets)
}

/// The day by which a declared copy is gone.
fn copy_end(from: DateTime<Utc>, dies: &str) -> NaiveDate {
    use crate::policy::calendar::{Bias, Period, end_of_period};
    let period = Period::try_from(dies.to_owned()).ok();
    period
        .and_then(|period| end_of_period(from, period, chrono_tz::Tz::UTC, Bias::Minimum).ok())
        .map_or_else(|| after_days(from, NO_DATE_DAYS), |end| end.date_naive())
}

fn backups(facts: &Facts<'_>, mode: BackupMode, touched: bool) -> Backups {
    match (mode, touched, &facts.body.pending) {
        (BackupMode::None, _, _) | (_, false, _) => Backups { state: BackupState::None, expires_by: None },
        _ if facts.run.state == "shredded" => Backups { state: BackupState::Erased, expires_by: None },
        (_, _, Some((_, until))) => {
            Backups { state: BackupState::Expires, expires_by: Some(date_or_far(facts.now, until)) }
        }
        _ => Backups {
            state: BackupState::Expires,
            expires_by: Some(facts.run.grace_until.unwrap_or(facts.now).date_naive().max(facts.now.date_naive())),
        },
    }
}

fn date_or_far(now: DateTime<Utc>, text: &str) -> NaiveDate {
    text.parse().unwrap_or_else(|_| after_days(now, NO_DATE_DAYS))
}

fn retained(facts: &Facts<'_>) -> Vec<Retained> {
    let mut by_reason: BTreeMap<(String, RetainedReason, Option<String>), u64> = BTreeMap::new();
    for counts in &facts.plan.collections {
        let target = location(&counts.store, &counts.collection);
        for (code, rows) in &counts.keep {
            let (reason, statute) = reason_of(code);
            *by_reason.entry((target.clone(), reason, statute)).or_default() += rows;
        }
    }
    for chunk in facts.chunks.iter().filter(|chunk| chunk.verdict != "keep") {
        let target = location(&chunk.store, &chunk.collection);
        if chunk.counts.stripped > 0 {
            *by_reason.entry((target.clone(), RetainedReason::Referenced, None)).or_default() +=
                chunk.counts.stripped as u64;
        }
        if chunk.counts.kept > 0 {
            *by_reason.entry((target, RetainedReason::Renewed, None)).or_default() += chunk.counts.kept as u64;
        }
    }
    by_reason
        .into_iter()
        .map(|((target_id, reason_code, statute), records)| Retained {
            target_id,
            records,
            reason_code,
            regime: statute.as_ref().map(|_| "statute".to_owned()),
            provision: statute,
            until: None,
            restricted: false,
        })
        .collect()
}

fn reason_of(code: &str) -> (RetainedReason, Option<String>) {
    match code.split_once(':') {
        Some(("hold", _)) => (RetainedReason::Litigation, None),
        Some(("statute", key)) => (RetainedReason::StatutoryPeriod, Some(key.to_owned())),
        _ if code == Reason::UnknownStart.code() => (RetainedReason::StartUnknown, None),
        _ => (RetainedReason::Referenced, None),
    }
}

fn residual_date(facts: &Facts<'_>, targets: &[Target]) -> Option<NaiveDate> {
    let backups = targets.iter().filter_map(|target| target.backups.expires_by);
    let copies = targets.iter().flat_map(|target| target.copies.iter().filter_map(|copy| copy.dies_by));
    backups.chain(copies).max().map(|date| date.max(facts.now.date_naive()))
}

fn limitations(facts: &Facts<'_>, targets: &[Target]) -> Vec<Limitation> {
    let body = &facts.body;
    let mut codes = vec![Limitation::RootSlotClassD, Limitation::ClockUnverified, Limitation::LookupKeyNotRotated];
    let mut when = |condition: bool, code| {
        if condition {
            codes.push(code);
        }
    };
    let retained = targets.iter().map(|target| target.records_retained).sum::<u64>();
    when(facts.run.state != "shredded" && body.erased + body.stripped > 0, Limitation::KeyShredPending);
    when(facts.run.request.is_some(), Limitation::IdentityNotChecked);
    when(retained > 0, Limitation::RowsRetained);
    when(body.failed > 0, Limitation::RowsFailed);
    when(!body.skipped.is_empty(), Limitation::TargetsUnreached);
    when(body.physical.iter().any(|(_, clean, _)| !clean), Limitation::ResidualInDatabaseLog);
    when(targets.iter().any(|target| !target.copies.is_empty()), Limitation::CopyDeclared);
    let stores = &facts.installation.config.registry.stores;
    when(stores.iter().any(|store| store.backup == BackupMode::None), Limitation::NoBackup);
    when(facts.installation.is_bucket_on_this_host(), Limitation::NotOffSite);
    when(facts.installation.is_audit_self_hosted(), Limitation::SelfHostedUnwitnessed);
    codes.sort_unstable();
    codes.dedup();
    codes
}
