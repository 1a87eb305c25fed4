//! The certificate of an outside key that is gone: one key, one certificate. It claims the end of the key, and of no row.

use chrono::{DateTime, NaiveDate, Utc};

use super::predicate::copies::copies;
use super::predicate::{AskedFor, REFERENCE_KEY, privacy};
use super::root::reopenable_until;
use super::{Number, announced, begin_issue, log_issue, next_reserved, proof, request_of, result_name, sign, told};
use crate::certify::Draft;
use crate::certify::check::{as_id, location};
use crate::certify::codes::{
    Action, BackupState, CopyState, ErasureResult, Limitation, OutsideBinding, Sanitization, SlotClass, System,
    TriggerKind, VerificationMethod,
};
use crate::certify::evidence::{After, EvidenceRow, EvidenceWriter};
use crate::certify::statement::{
    Backups, ClockQuality, Digest, Issuer, KeyEvidence, OutsideKeyEnd, OutsideReadBack, Predicate, Scope, Statement,
    Target, Timestamp, Trigger, Verification,
};
use crate::control::OutsideKeyRow;
use crate::installation::Installation;
use crate::keyring::Purpose;
use crate::keys::outside::OutsideEvidence;
use crate::keys::slot;
use crate::keys::suite::{Suite, mac};
use crate::policy::registry::StoreSpec;
use crate::random::uuid7;
use crate::tasks::media::{GoneCopy, gone_copies};
use crate::tasks::outside::{Declared, OutsideBody};
use crate::tasks::{Result, TaskError};

/// The name of the one target.
const TARGET: &str = "outside-key";

/// Keys that are gone and have no certificate yet.
pub(super) async fn uncertified(installation: &Installation) -> Result<Vec<OutsideKeyRow>> {
    let mut due = Vec::new();
    for row in installation.control.read().await?.outside_keys().await? {
        if row.state == "destroyed" && !OutsideBody::of(&row)?.certified {
            due.push(row);
        }
    }
    Ok(due)
}

/// Everything that such a certificate is made of.
struct Facts<'f> {
    row: &'f OutsideKeyRow,
    body: &'f OutsideBody,
    declared: &'f Declared,
    evidence: &'f OutsideEvidence,
    key_ref: &'f str,
    destroyed: DateTime<Utc>,
    now: DateTime<Utc>,
    controller: String,
    environment: String,
    agent: String,
    stores: &'f [StoreSpec],
    gone: Vec<GoneCopy>,
    audit_limitation: Option<Limitation>,
    request: Option<AskedFor>,
    id: String,
    sequence: u64,
    previous: Option<String>,
}

/// Issues the certificate of one key, with entries in the operation log around it.
pub(super) async fn certify_key(installation: &Installation, row: &OutsideKeyRow) -> Result<String> {
    let announced = begin_issue(installation, &row.id).await?;
    let issued = issue_for_key(installation, row).await;
    let logged = log_issue(installation, &row.id, &announced, if issued.is_ok() { "success" } else { "failure" }).await;
    let issued = issued?;
    logged?;
    Ok(issued)
}

async fn issue_for_key(installation: &Installation, row: &OutsideKeyRow) -> Result<String> {
    let body = OutsideBody::of(row)?;
    let lost = || TaskError::Inconsistent(format!("the evidence of outside key {} is missing", row.id));
    let (declared, evidence) = body.declared.as_ref().zip(body.evidence.as_ref()).ok_or_else(lost)?;
    let (key_ref, destroyed) = body.key_ref.as_deref().zip(row.destroyed_at).ok_or_else(lost)?;
    let now = installation.clock.now().max(destroyed);
    let mut tx = installation.control.begin().await?;
    let (sequence, previous) = next_reserved(&mut tx).await?;
    let id = announced(&mut tx).await?;
    let request = request_of(&mut tx, body.request).await?;
    let facts = Facts {
        row,
        body: &body,
        declared,
        evidence,
        key_ref,
        destroyed,
        now,
        controller: installation.config.agent.name.clone(),
        environment: installation.config.agent.environment.clone(),
        agent: hex::encode(installation.id()),
        stores: &installation.config.registry.stores,
        gone: gone_copies(&mut tx).await?,
        audit_limitation: installation.audit_limitation(),
        request,
        id: id.clone(),
        sequence: sequence as u64,
        previous: previous.clone(),
    };
    let reference_key = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
    let said = serde_json::to_vec(&evidence.before).map_err(proof)?;
    let mut writer = EvidenceWriter::default();
    let line = EvidenceRow {
        target_id: TARGET.to_owned(),
        reference: key_ref.to_owned(),
        content_before: hex::encode(mac(Suite::Intl, &reference_key, &[b"outside-key", &said])),
        action: Action::CryptoShred,
        at: Timestamp::from(destroyed),
        after: After::Absent,
        check: VerificationMethod::KeyAbsence,
    };
    let file = writer.line(&line).map_err(proof)?;
    let (digest, _) = writer.finish();
    let predicate = predicate(&facts);
    let result = result_name(predicate.result);
    let statement = Statement::new(&digest, predicate);
    let draft = Draft::of(&statement).map_err(|error| proof(told(&error)))?;
    // The reference key may be new.
    tx.commit().await?;
    let number = Number { sequence, previous, id: id.clone() };
    let (envelope, mut tx) = sign(installation, draft, now, &number).await?;
    if tx.outside_key(&row.id).await?.as_ref() != Some(row) {
        return Err(TaskError::Inconsistent(format!("outside key {} changed while it was certified", row.id)));
    }
    tx.add_certificate(&number.row(&row.id, result, &envelope, file, now)).await?;
    tx.announce_certificate(&uuid7(now, installation.random.as_ref())?).await?;
    let mut certified = row.clone();
    OutsideBody { certified: true, ..body.clone() }.put(&mut certified)?;
    if !tx.step_outside_key(&certified, &row.state).await? {
        return Err(TaskError::Inconsistent(format!("outside key {} changed while it was certified", row.id)));
    }
    tx.commit().await?;
    Ok(id)
}

/// Complete only for a key that the agent destroyed itself and whose fields never were in clear.
fn predicate(facts: &Facts<'_>) -> Predicate {
    let ever_in_clear = facts.declared.ever_in_clear || facts.body.clear_seen;
    let until = reopenable_until(facts.destroyed, &facts.evidence.claim);
    let target = target(facts, ever_in_clear);
    let limitations = limitations(facts, &target, ever_in_clear);
    let undated = target.copies.iter().any(|copy| copy.state == CopyState::Unread);
    let dates = target.copies.iter().filter_map(|copy| copy.dies_by).chain(until);
    let residual_date = dates.max().filter(|_| !undated).map(|date| date.max(facts.now.date_naive()));
    let result =
        if ever_in_clear || facts.evidence.before.is_none() { ErasureResult::Partial } else { ErasureResult::Complete };
    let begun = facts.body.begun_at.unwrap_or(facts.destroyed).min(facts.destroyed);
    let pseudonym = |digest: &str| format!("hmac-sha256:{REFERENCE_KEY}:{digest}");
    Predicate {
        certificate_id: facts.id.clone(),
        sequence: facts.sequence,
        previous_certificate: facts.previous.clone().map(|sha256| Digest { sha256 }),
        issuer: Issuer {
            controller: as_id(&facts.controller),
            agent_id: facts.agent.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            environment: facts.environment.clone(),
        },
        started_at: Timestamp::from(begun),
        finished_at: Timestamp::from(facts.destroyed),
        issued_at: Timestamp::from(facts.now),
        absence_checked_at: Some(Timestamp::from(facts.destroyed)),
        absence_valid_until: None,
        clock: ClockQuality { source: "host".to_owned(), max_error_ms: 300_000 },
        result,
        trigger: trigger(facts),
        policy: None,
        legal_basis: Vec::new(),
        approvals: Vec::new(),
        scope: Scope {
            targets_declared: 1,
            targets_reached: 1,
            subjects_count: u64::from(facts.body.subject_ref.is_some()),
            subject_refs: facts.body.subject_ref.iter().map(|digest| pseudonym(digest)).collect(),
            data_categories: Vec::new(),
        },
        targets: vec![target],
        retained: Vec::new(),
        recipients: Vec::new(),
        root_slot: None,
        outside_key: Some(end(facts, ever_in_clear, until)),
        medium: None,
        backup_copies: Vec::new(),
        lost_medium: None,
        refusal: None,
        final_since: None,
        residual_date,
        limitations,
        supersedes: None,
        privacy: privacy(),
    }
}

fn trigger(facts: &Facts<'_>) -> Trigger {
    let nothing = Trigger { kind: TriggerKind::RetentionExpiry, request_ref: None, received_at: None, due_at: None };
    match facts.request {
        Some(AskedFor { number, reason, received, due }) => Trigger {
            kind: reason,
            request_ref: Some(format!("request-{number}")),
            received_at: Some(Timestamp::from(received)),
            due_at: Some(Timestamp::from(due)),
        },
        None => nothing,
    }
}

/// What the key itself was, and what its end is worth.
fn end(facts: &Facts<'_>, ever_in_clear: bool, until: Option<NaiveDate>) -> OutsideKeyEnd {
    let (declared, evidence) = (facts.declared, facts.evidence);
    let is_provider = evidence.claim.kind == slot::SlotKind::AwsKms;
    let field = |(store, collection, field): &(String, String, String)| {
        as_id(&format!("{}/{}", location(store, collection), as_id(field)))
    };
    OutsideKeyEnd {
        version: 1,
        key_id: facts.row.id.clone(),
        name: as_id(&facts.row.name),
        key_ref: format!("hmac-sha256:{REFERENCE_KEY}:{}", facts.key_ref),
        bound_to: if declared.policy.is_some() { OutsideBinding::Policy } else { OutsideBinding::Subject },
        policy: declared.policy.as_deref().map(as_id),
        period: declared.period.as_deref().map(as_id),
        fields: declared.fields.iter().map(field).collect(),
        encrypted_since: declared.encrypted_since,
        ever_in_clear,
        in_clear_until: declared.in_clear_until,
        kind: evidence.claim.kind.name().to_owned(),
        class: class_of(evidence),
        checks: evidence.checks.iter().map(|check| check.code().to_owned()).collect(),
        read_back: evidence.before.as_ref().map(|said| OutsideReadBack {
            latest_version: said.latest_version,
            exportable: said.exportable,
            allow_plaintext_backup: said.plaintext_backup,
            imported: said.imported,
        }),
        // Of a provider, nobody declares it.
        snapshot_retention_days: evidence.claim.residual_days.filter(|_| !is_provider).map(u64::from),
        reopenable_until: until,
        irrevocable_at: evidence.irrevocable_at.map(Timestamp::from),
    }
}

fn class_of(evidence: &OutsideEvidence) -> SlotClass {
    match evidence.claim.class {
        slot::SlotClass::A => SlotClass::A,
        slot::SlotClass::B => SlotClass::B,
        slot::SlotClass::C => SlotClass::C,
        slot::SlotClass::D => SlotClass::D,
    }
}

/// The service. What was once in clear may lie in declared copies of the stores; what never was, opens in none of them.
fn target(facts: &Facts<'_>, ever_in_clear: bool) -> Target {
    let kind = facts.evidence.claim.kind.name();
    let holds = |spec: &&StoreSpec| facts.declared.fields.iter().any(|(store, _, _)| *store == spec.name);
    let stores = facts.stores.iter().filter(|_| ever_in_clear).filter(holds);
    let name = format!("{}/outside-key/{}", facts.agent, facts.row.id);
    let begun = facts.body.begun_at.unwrap_or(facts.destroyed);
    Target {
        target_id: TARGET.to_owned(),
        system: System::Kms,
        location: format!("{kind}/{}", as_id(&facts.row.name)),
        data_category: "registered".to_owned(),
        action: Action::CryptoShred,
        sanitization: Sanitization::None,
        technique: "key-deletion".to_owned(),
        tool: format!("wangchuan/{}", env!("CARGO_PKG_VERSION")),
        records_selected: 0,
        records_erased: 0,
        records_anonymized: 0,
        records_retained: 0,
        records_failed: 0,
        objects_erased: 1,
        bytes_erased: 0,
        duration_ms: u64::try_from((facts.destroyed - begun).num_milliseconds()).unwrap_or(0),
        keys: vec![KeyEvidence {
            key_id_sha256: hex::encode(crate::log::tree::sha256(name.as_bytes())),
            kms: kind.to_owned(),
            algorithm: "as-declared".to_owned(),
            destroyed_at: Some(Timestamp::from(facts.destroyed)),
            copies_known: 0,
            escrow: false,
        }],
        anonymization: None,
        verification: Verification {
            method: VerificationMethod::KeyAbsence,
            sample_percent: 100.0,
            checked_at: Some(Timestamp::from(facts.destroyed)),
            residual_found: 0,
            independent: true,
            evidence_sha256: None,
        },
        backups: Backups { state: BackupState::None, expires_by: None },
        copies: stores.flat_map(|spec| copies(spec, facts.destroyed, &facts.gone)).collect(),
        media: None,
    }
}

fn limitations(facts: &Facts<'_>, target: &Target, ever_in_clear: bool) -> Vec<Limitation> {
    let class = class_of(facts.evidence);
    let told = [
        (true, Limitation::ClockUnverified),
        (true, Limitation::LookupKeyNotRotated),
        (true, Limitation::OutsideKeyDeclared),
        (class == SlotClass::B, Limitation::OutsideKeyClassB),
        (class == SlotClass::C, Limitation::OutsideKeyClassC),
        (class == SlotClass::D, Limitation::OutsideKeyClassD),
        (facts.evidence.before.is_none(), Limitation::OutsideKeyGoneBefore),
        (ever_in_clear, Limitation::FieldOnceInClear),
        (facts.request.is_some(), Limitation::IdentityNotChecked),
        (!target.copies.is_empty(), Limitation::CopyDeclared),
        (target.copies.iter().any(|copy| copy.state == CopyState::Unread), Limitation::CopyUnread),
    ];
    let told = told.into_iter().filter_map(|(holds, code)| holds.then_some(code));
    let mut codes: Vec<_> = told.chain(facts.audit_limitation).collect();
    codes.sort_unstable();
    codes
}
