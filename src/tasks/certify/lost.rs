//! The certificate of a lost medium: which of the chains that could lie on it open no more. Another one follows when more do not.

use chrono::{DateTime, Utc};

use super::predicate::{REFERENCE_KEY, privacy};
use super::root::{key_evidence, root_end};
use super::{Number, announced, begin_issue, issuer, log_issue, next_reserved, proof, result_name, sign, told};
use crate::certify::Draft;
use crate::certify::check::{as_id, location};
use crate::certify::codes::{
    Action, BackupState, CopyState, ErasureResult, Limitation, Sanitization, SlotClass, SupersedesReason, System,
    TriggerKind, VerificationMethod,
};
use crate::certify::evidence::{After, EvidenceRow, EvidenceWriter};
use crate::certify::statement::{
    Backups, ClockQuality, DeclaredCopy, Digest, KeyEvidence, LostMedium, Media, Predicate, RootSlot, Scope, Statement,
    Supersedes, Target, Timestamp, Trigger, Verification,
};
use crate::control::{CertificateRow, MediaRow, PrunedChain, Tx};
use crate::installation::Installation;
use crate::keyring::Purpose;
use crate::keys::Key;
use crate::keys::suite::{Suite, mac};
use crate::random::uuid7;
use crate::tasks::media::{LOST, Loss, MediaBody, SETTLED, SHREDDING};
use crate::tasks::{Result, TaskError};

/// The name of the one target.
const TARGET: &str = "lost-medium";

/// A lost medium of which more is gone than its newest certificate says.
pub(super) struct Lost {
    pub row: MediaRow,
    body: MediaBody,
    dead: Vec<PrunedChain>,
    chains: usize,
    key: KeyEvidence,
    slot: RootSlot,
    destroyed: DateTime<Utc>,
}

impl Lost {
    /// What its certificate tells.
    fn claim(&self) -> String {
        format!("{} of {} chains", self.dead.len(), self.chains)
    }

    fn is_all(&self) -> bool {
        self.dead.len() == self.chains
    }
}

/// Lost media of which a certificate is owed.
pub(super) async fn uncertified(installation: &Installation) -> Result<Vec<Lost>> {
    let mut tx = installation.control.read().await?;
    let mut due = Vec::new();
    for row in tx.media().await?.into_iter().filter(|row| row.event == LOST && row.state == SHREDDING) {
        if let Some(lost) = gather(installation, &mut tx, row).await?
            && lost.row.certified.as_deref() != Some(lost.claim().as_str())
        {
            due.push(lost);
        }
    }
    Ok(due)
}

/// What is gone of a lost medium; none while no root that opened it is shown to be destroyed.
async fn gather(installation: &Installation, tx: &mut Tx, row: MediaRow) -> Result<Option<Lost>> {
    let body = MediaBody::of(&row)?;
    let Some(Loss { chains, .. }) = &body.loss else { return Ok(None) };
    let mut dead = tx.pruned_chains(None).await?;
    dead.retain(|pruned| pruned.generation.is_some() && chains.iter().any(|chain| chain.chain == pruned.chain));
    let Some(generation) = dead.iter().filter_map(|pruned| pruned.generation).max() else { return Ok(None) };
    let since = dead.iter().map(|pruned| pruned.marked_at).max().unwrap_or(row.recorded_at);
    let claim = installation.keyring.slot().claim();
    let Some((Some((at, kind)), slot)) = root_end(tx, since, generation, &claim).await? else { return Ok(None) };
    let key = key_evidence(&installation.id(), generation - 1, at, &kind);
    let destroyed = dead.iter().filter_map(|pruned| pruned.destroyed_at).fold(at, DateTime::max);
    let chains = chains.len();
    Ok(Some(Lost { row, body, dead, chains, key, slot, destroyed }))
}

/// Issues the certificate of one lost medium, with entries in the operation log around it.
pub(super) async fn certify_lost(installation: &Installation, lost: &Lost) -> Result<String> {
    let announced = begin_issue(installation, &lost.row.id).await?;
    let issued = issue(installation, lost).await;
    let outcome = if issued.is_ok() { "success" } else { "failure" };
    let logged = log_issue(installation, &lost.row.id, &announced, outcome).await;
    let issued = issued?;
    logged?;
    Ok(issued)
}

async fn issue(installation: &Installation, lost: &Lost) -> Result<String> {
    let row = &lost.row;
    let now = installation.clock.now().max(lost.destroyed);
    let mut tx = installation.control.begin().await?;
    let earlier = tx.certificates(Some(&row.id)).await?.pop().map(|last| last.id);
    let (sequence, previous) = next_reserved(&mut tx).await?;
    let id = announced(&mut tx).await?;
    let key = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
    let mut writer = EvidenceWriter::default();
    let mut file = String::new();
    for chain in &lost.dead {
        let name = format!("{}/chain/{}", chain.store, chain.chain);
        let line = EvidenceRow {
            target_id: TARGET.to_owned(),
            reference: hex::encode(mac(Suite::Intl, &key, &[b"chain", name.as_bytes()])),
            content_before: hex::encode(mac(Suite::Intl, &key, &[b"medium-record", row.body.as_bytes()])),
            action: Action::CryptoShred,
            at: Timestamp::from(chain.destroyed_at.unwrap_or(lost.destroyed)),
            after: After::Absent,
            check: VerificationMethod::KeyAbsence,
        };
        file.push_str(&writer.line(&line).map_err(proof)?);
    }
    let (digest, _) = writer.finish();
    let number = Number { sequence, previous, id: id.clone() };
    let mut predicate = predicate(installation, lost, &key, &number, now)?;
    predicate.supersedes =
        earlier.clone().map(|certificate_id| Supersedes { certificate_id, reason: SupersedesReason::Completion });
    let result = result_name(predicate.result);
    let statement = Statement::new(&digest, predicate);
    let draft = Draft::of(&statement).map_err(|error| proof(told(&error)))?;
    // The reference key may be new.
    tx.commit().await?;
    let (envelope, mut tx) = sign(installation, draft, now, &number).await?;
    let stored = number.row(&row.id, result, &envelope, file, now);
    tx.add_certificate(&CertificateRow { supersedes: earlier, ..stored }).await?;
    tx.announce_certificate(&uuid7(now, installation.random.as_ref())?).await?;
    let state = if lost.is_all() { SETTLED } else { SHREDDING }.to_owned();
    let certified = MediaRow { certified: Some(lost.claim()), state, ..row.clone() };
    if !tx.step_medium(&certified, row).await? {
        return Err(TaskError::Inconsistent(format!("the record of medium {} changed while it was certified", row.id)));
    }
    tx.commit().await?;
    Ok(id)
}

/// Complete only when no chain on it opens, and nothing else lay there.
fn predicate(
    installation: &Installation,
    lost: &Lost,
    key: &Key,
    number: &Number,
    now: DateTime<Utc>,
) -> Result<Predicate> {
    let damaged = || TaskError::Inconsistent(format!("the record of medium {} is damaged", lost.row.id));
    let (row, body, all) = (&lost.row, &lost.body, lost.is_all());
    let loss = body.loss.as_ref().ok_or_else(damaged)?;
    let undated = !all || !body.copies.is_empty();
    let digest = hex::encode(mac(Suite::Intl, key, &[b"actor", loss.reported_by.as_bytes()]));
    let residual_date = lost.slot.reopenable_until.filter(|_| !undated).map(|date| date.max(now.date_naive()));
    Ok(Predicate {
        certificate_id: number.id.clone(),
        sequence: number.sequence as u64,
        previous_certificate: number.previous.clone().map(|sha256| Digest { sha256 }),
        issuer: issuer(installation),
        started_at: Timestamp::from(row.recorded_at.min(lost.destroyed)),
        finished_at: Timestamp::from(lost.destroyed),
        issued_at: Timestamp::from(now),
        absence_checked_at: Some(Timestamp::from(lost.destroyed)),
        absence_valid_until: None,
        clock: ClockQuality { source: "host".to_owned(), max_error_ms: 300_000 },
        result: if undated { ErasureResult::Partial } else { ErasureResult::Complete },
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
        targets: vec![target(lost)],
        retained: Vec::new(),
        recipients: Vec::new(),
        root_slot: Some(lost.slot.clone()),
        outside_key: None,
        medium: None,
        backup_copies: Vec::new(),
        lost_medium: Some(LostMedium {
            version: 1,
            record_id: row.id.clone(),
            kind: body.medium.kind,
            lost_at: Timestamp::from(row.happened_at),
            of_stores: body.stores.iter().map(|store| as_id(store)).collect(),
            copies: body.copies.iter().map(|name| location(&name.store, &name.copy)).collect(),
            reported_by: format!("hmac-sha256:{REFERENCE_KEY}:{digest}"),
            chains: lost.chains as u64,
            chains_destroyed: lost.dead.len() as u64,
        }),
        refusal: None,
        final_since: None,
        residual_date,
        limitations: limitations(installation, lost),
        supersedes: None,
        privacy: privacy(),
    })
}

fn limitations(installation: &Installation, lost: &Lost) -> Vec<Limitation> {
    let class = match lost.slot.class {
        SlotClass::A => Limitation::RootSlotClassA,
        SlotClass::B => Limitation::RootSlotClassB,
        SlotClass::C => Limitation::RootSlotClassC,
        SlotClass::D => Limitation::RootSlotClassD,
    };
    let mut codes = vec![Limitation::ClockUnverified, Limitation::MediumDeclared, class];
    if !lost.is_all() {
        codes.push(Limitation::BackupNotCovered);
    }
    if !lost.body.copies.is_empty() {
        codes.extend([Limitation::CopyDeclared, Limitation::CopyUnread]);
    }
    codes.extend(installation.audit_limitation());
    codes.sort_unstable();
    codes
}

fn target(lost: &Lost) -> Target {
    let medium = &lost.body.medium;
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "unknown".to_owned(), as_id);
    let state = if lost.is_all() { BackupState::Erased } else { BackupState::Chain };
    let copies = lost.body.copies.iter().map(|name| DeclaredCopy {
        copy_ref: as_id(&name.copy),
        state: CopyState::Unread,
        dies_by: None,
        destroyed_at: None,
        media_record: None,
    });
    Target {
        target_id: TARGET.to_owned(),
        system: System::Media,
        location: format!("media/{}", medium.kind.name()),
        data_category: "registered".to_owned(),
        action: Action::CryptoShred,
        sanitization: Sanitization::None,
        technique: "key-tree-generation".to_owned(),
        tool: format!("wangchuan/{}", env!("CARGO_PKG_VERSION")),
        records_selected: 0,
        records_erased: 0,
        records_anonymized: 0,
        records_retained: 0,
        records_failed: 0,
        objects_erased: lost.dead.len() as u64,
        bytes_erased: 0,
        duration_ms: 0,
        keys: vec![lost.key.clone()],
        anonymization: None,
        verification: Verification {
            method: VerificationMethod::KeyAbsence,
            sample_percent: 100.0,
            checked_at: Some(Timestamp::from(lost.destroyed)),
            residual_found: 0,
            independent: true,
            evidence_sha256: None,
        },
        backups: Backups { state, expires_by: None },
        copies: copies.collect(),
        media: Some(Media {
            make: text(&medium.make),
            model: text(&medium.model),
            serial: text(&medium.serial),
            asset_tag: text(&medium.asset),
            kind: medium.kind.name().to_owned(),
        }),
    }
}
