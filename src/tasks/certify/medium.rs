//! The certificate of a storage medium that was destroyed: one record, one certificate. It claims what people saw, and says so.

use chrono::{DateTime, Utc};

use super::predicate::{REFERENCE_KEY, privacy};
use super::{Number, announced, begin_issue, issuer, log_issue, next_reserved, proof, result_name, sign, told};
use crate::certify::Draft;
use crate::certify::check::{as_id, location};
use crate::certify::codes::{
    Action, BackupState, ErasureResult, Limitation, Sanitization, System, TriggerKind, VerificationMethod,
};
use crate::certify::evidence::{After, EvidenceRow, EvidenceWriter};
use crate::certify::statement::{
    Backups, ClockQuality, Digest, Media, MediumEnd, Predicate, Scope, Statement, Target, Timestamp, Trigger,
    Verification,
};
use crate::control::MediaRow;
use crate::installation::Installation;
use crate::keyring::Purpose;
use crate::keys::Key;
use crate::keys::suite::{Suite, mac};
use crate::policy::media::{Checked, Method};
use crate::random::uuid7;
use crate::tasks::media::{DESTROYED, Destruction, MediaBody, Medium};
use crate::tasks::{Result, TaskError};

/// The name of the one target.
const TARGET: &str = "medium";

/// Media that were destroyed and have no certificate yet.
pub(super) async fn uncertified(installation: &Installation) -> Result<Vec<MediaRow>> {
    let rows = installation.control.read().await?.media().await?;
    Ok(rows.into_iter().filter(|row| row.event == DESTROYED && row.certified.is_none()).collect())
}

/// Issues the certificate of one medium, with entries in the operation log around it.
pub(super) async fn certify_medium(installation: &Installation, row: &MediaRow) -> Result<String> {
    let announced = begin_issue(installation, &row.id).await?;
    let issued = issue(installation, row).await;
    let outcome = if issued.is_ok() { "success" } else { "failure" };
    let logged = log_issue(installation, &row.id, &announced, outcome).await;
    let issued = issued?;
    logged?;
    Ok(issued)
}

async fn issue(installation: &Installation, row: &MediaRow) -> Result<String> {
    let body = MediaBody::of(row)?;
    let lost = || TaskError::Inconsistent(format!("the record of medium {} is damaged", row.id));
    let how = body.destruction.as_ref().ok_or_else(lost)?;
    let now = installation.clock.now().max(row.happened_at);
    let mut tx = installation.control.begin().await?;
    let (sequence, previous) = next_reserved(&mut tx).await?;
    let id = announced(&mut tx).await?;
    let key = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
    let at = Timestamp::from(row.happened_at);
    let mut writer = EvidenceWriter::default();
    let line = EvidenceRow {
        target_id: TARGET.to_owned(),
        reference: hex::encode(mac(Suite::Intl, &key, &[b"medium", row.id.as_bytes()])),
        content_before: hex::encode(mac(Suite::Intl, &key, &[b"medium-record", row.body.as_bytes()])),
        action: Action::SanitizeMedium,
        at,
        after: After::Absent,
        check: verification_of(how.checked),
    };
    let file = writer.line(&line).map_err(proof)?;
    let (digest, _) = writer.finish();
    let number = Number { sequence, previous, id: id.clone() };
    let predicate = predicate(installation, row, &body, how, &key, &number, now);
    let result = result_name(predicate.result);
    let statement = Statement::new(&digest, predicate);
    let draft = Draft::of(&statement).map_err(|error| proof(told(&error)))?;
    // The reference key may be new.
    tx.commit().await?;
    let (envelope, mut tx) = sign(installation, draft, now, &number).await?;
    tx.add_certificate(&number.row(&row.id, result, &envelope, file, now)).await?;
    tx.announce_certificate(&uuid7(now, installation.random.as_ref())?).await?;
    let certified = MediaRow { certified: Some(DESTROYED.to_owned()), ..row.clone() };
    if !tx.step_medium(&certified, row).await? {
        return Err(TaskError::Inconsistent(format!("the record of medium {} changed while it was certified", row.id)));
    }
    tx.commit().await?;
    Ok(id)
}

fn verification_of(checked: Checked) -> VerificationMethod {
    match checked {
        Checked::Inspection => VerificationMethod::Inspection,
        Checked::FullRead => VerificationMethod::FullReadback,
        Checked::Nobody => VerificationMethod::None,
    }
}

/// Complete only when somebody looked.
fn predicate(
    installation: &Installation,
    row: &MediaRow,
    body: &MediaBody,
    how: &Destruction,
    key: &Key,
    number: &Number,
    now: DateTime<Utc>,
) -> Predicate {
    let at = Timestamp::from(row.happened_at);
    let looked = how.checked != Checked::Nobody;
    let mut limitations = vec![Limitation::ClockUnverified, Limitation::MediumDeclared];
    limitations.extend((!looked).then_some(Limitation::MediumUnverified));
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
        absence_checked_at: looked.then_some(at),
        absence_valid_until: None,
        clock: ClockQuality { source: "host".to_owned(), max_error_ms: 300_000 },
        result: if looked { ErasureResult::Complete } else { ErasureResult::Partial },
        trigger: Trigger { kind: TriggerKind::Manual, request_ref: None, received_at: None, due_at: None },
        policy: None,
        legal_basis: Vec::new(),
        approvals: Vec::new(),
        scope: Scope {
            targets_declared: 1,
            targets_reached: 1,
            subjects_count: 0,
            subject_refs: Vec::new(),
            data_categories: Vec::new(),
        },
        targets: vec![target(&body.medium, how, at)],
        retained: Vec::new(),
        recipients: Vec::new(),
        root_slot: None,
        outside_key: None,
        medium: Some(end(row, body, how, key)),
        backup_copies: Vec::new(),
        lost_medium: None,
        refusal: None,
        final_since: None,
        residual_date: None,
        limitations,
        supersedes: None,
        privacy: privacy(),
    }
}

/// What the medium was, and its end.
fn end(row: &MediaRow, body: &MediaBody, how: &Destruction, key: &Key) -> MediumEnd {
    let pseudonym = |name: &str| {
        let digest = hex::encode(mac(Suite::Intl, key, &[b"actor", name.as_bytes()]));
        format!("hmac-sha256:{REFERENCE_KEY}:{digest}")
    };
    MediumEnd {
        version: 1,
        record_id: row.id.clone(),
        kind: body.medium.kind,
        technique: how.technique,
        standard: how.standard.clone(),
        always_encrypted: how.always_encrypted,
        sanitized_at: Timestamp::from(row.happened_at),
        of_stores: body.stores.iter().map(|store| as_id(store)).collect(),
        copies: body.copies.iter().map(|name| location(&name.store, &name.copy)).collect(),
        performed_by: pseudonym(&how.performed_by),
        witnesses: how.witnesses.iter().map(|name| pseudonym(name)).collect(),
        checked: how.checked,
        evidence_sha256: how.evidence_sha256.clone(),
    }
}

fn target(medium: &Medium, how: &Destruction, at: Timestamp) -> Target {
    let method = verification_of(how.checked);
    let looked = method != VerificationMethod::None;
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "unknown".to_owned(), as_id);
    Target {
        target_id: TARGET.to_owned(),
        system: System::Media,
        location: format!("media/{}", medium.kind.name()),
        data_category: "registered".to_owned(),
        action: Action::SanitizeMedium,
        sanitization: match how.method {
            Method::Clear => Sanitization::Clear,
            Method::Purge => Sanitization::Purge,
            Method::Destroy => Sanitization::Destroy,
        },
        technique: how.technique.name().to_owned(),
        tool: "declared".to_owned(),
        records_selected: 0,
        records_erased: 0,
        records_anonymized: 0,
        records_retained: 0,
        records_failed: 0,
        objects_erased: 1,
        bytes_erased: 0,
        duration_ms: 0,
        keys: Vec::new(),
        anonymization: None,
        verification: Verification {
            method,
            sample_percent: if looked { 100.0 } else { 0.0 },
            checked_at: looked.then_some(at),
            residual_found: 0,
            independent: looked,
            evidence_sha256: how.evidence_sha256.clone(),
        },
        backups: Backups { state: BackupState::None, expires_by: None },
        copies: Vec::new(),
        media: Some(Media {
            make: text(&medium.make),
            model: text(&medium.model),
            serial: text(&medium.serial),
            asset_tag: text(&medium.asset),
            kind: medium.kind.name().to_owned(),
        }),
    }
}
