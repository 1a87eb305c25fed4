//! `certify`: issues the certificate of every run that has none for its present state, and of every outside key that is gone.
//!
//! A run gets one certificate when its rows are gone and keys are still to die (`partial`, `KEY_SHRED_PENDING`), superseding ones
//! when they are destroyed, when the date changes until which rows still open in backups, and when it is final; a run that is
//! certified after its shred gets only those that are left. The state with the numbers
//! to be used lies in the second place before anything is signed. What a certificate says is put together in `predicate.rs`;
//! what is certified already stands in the run itself, so that no clock decides it.

mod outside;
mod predicate;
mod residual;
mod roll_up;

use chrono::{DateTime, Days, NaiveDate, Utc};

use self::predicate::{Facts, predicate};
use self::residual::residuals;
pub use self::roll_up::{ROLL_UP, roll_up_due, wrong_with};
use crate::certify::check::location;
use crate::certify::codes::{Action, ErasureResult, SlotClass, SupersedesReason, VerificationMethod};
use crate::certify::evidence::{After, EvidenceRow, EvidenceWriter};
use crate::certify::issue;
use crate::certify::statement::{KeyEvidence, RootSlot, SlotReadBack, SlotToken, Statement, Supersedes, Timestamp};
use crate::control::{CertificateRow, LedgerEntry, LedgerKind, RunRow, Tx};
use crate::crash_point;
use crate::installation::Installation;
use crate::keyring::{KeyringError, Purpose};
use crate::keys::Key;
use crate::keys::slot::{self, GoneEvidence, RootEvidence, SlotClaim};
use crate::keys::suite::{Suite, mac};
use crate::random::uuid7;

use super::erasure::RunBody;
use super::finality::{Residual, forgotten_by};
use super::shred::still_open_behind_shred;
use super::{Result, TaskError};

/// The `meta` entry with the highest certificate number that may be signed.
const RESERVED: &str = "certificates_reserved";
/// The state of a run whose keys are gone.
pub(super) const SHREDDED: &str = "shredded";
/// The state of a run whose every residual date is past as well.
pub(super) const FINAL: &str = "final";
/// The state of a run whose rows were put back.
const UNDONE: &str = "undone";
/// The state of a run of which every row failed.
const FAILED: &str = "failed";
/// The state of a run whose keys are still to die.
const SHRED_PENDING: &str = "shred-pending";
/// What stands in a shredded run that could not show the destruction of its keys when it was certified.
const UNPROVEN: &str = "shredded-unproven";

fn proof(error: impl std::fmt::Display) -> TaskError {
    TaskError::Proof(error.to_string())
}

/// Issues what is missing; returns the ids of new certificates. A run or key whose certificate cannot be issued does not keep those
/// of other runs back: it is logged and tried again the next time.
///
/// # Errors
/// When the control database fails; the first failure, when nothing at all could be issued.
pub async fn certify_due(installation: &Installation) -> Result<Vec<String>> {
    let due = uncertified_runs(installation).await?;
    let keys = outside::uncertified(installation).await?;
    if due.is_empty() && keys.is_empty() {
        return Ok(Vec::new());
    }
    reserve(installation, due.len() + keys.len()).await?;
    let mut ids = Vec::new();
    let mut first_error = None;
    for run in due {
        match certify_run(installation, &run).await {
            Ok(Some(id)) => {
                ids.push(id);
                crash_point::reached("certificate.issued");
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(run = %run.id, error = %error, "a certificate could not be issued");
                first_error.get_or_insert(error);
            }
        }
    }
    for key in keys {
        match outside::certify_key(installation, &key).await {
            Ok(id) => {
                ids.push(id);
                crash_point::reached("outside.certified");
            }
            Err(error) => {
                tracing::error!(key = %key.id, error = %error, "the certificate of an outside key could not be issued");
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) if ids.is_empty() => Err(error),
        _ => Ok(ids),
    }
}

/// The runs that have no certificate for their present state.
async fn uncertified_runs(installation: &Installation) -> Result<Vec<RunRow>> {
    let mut tx = installation.control.read().await?;
    let mut waiting = tx.runs(Some("shred-pending")).await?;
    for state in [SHREDDED, FINAL, UNDONE] {
        waiting.extend(tx.runs(Some(state)).await?);
    }
    // What was given up half-way has no certificate; that nothing at all went has one.
    for run in tx.runs(Some(FAILED)).await? {
        if RunBody::of(&run)?.is_failed() {
            waiting.push(run);
        }
    }
    drop(tx);
    let mut due = Vec::new();
    let is_blind = !installation.ground()?.skipped.is_empty();
    for run in waiting {
        let body = RunBody::of(&run)?;
        if is_blind && run.state == SHRED_PENDING && body.irrevocable_at.is_none() && body.certified.is_some() {
            // Without its store no date can be computed; what was said of it stands until it is reached.
            continue;
        }
        let until = open_until(installation, &run, &body).await?;
        if body.certified.as_deref() != Some(claim_of(&run, &body, until.as_deref()).as_str()) {
            due.push(run);
        }
    }
    Ok(due)
}

/// The same, but certificates wait while the second place cannot be reached: what was erased is erased, and every pass tries
/// again. Returns the ids, and why others wait.
///
/// # Errors
/// As [`certify_due`] where trying again does not help.
pub async fn certify_or_wait(installation: &Installation) -> Result<(Vec<String>, Option<String>)> {
    match certify_due(installation).await {
        Ok(ids) => Ok((ids, None)),
        Err(TaskError::Keyring(KeyringError::SecondPlace(error))) if error.is_retryable() => {
            Ok((Vec::new(), Some(format!("the certificate waits: {error}"))))
        }
        Err(error) => Err(error),
    }
}

/// Reserves the next numbers, and seals the state with the reservation into the second place before any is used. A number that
/// was reserved and not used is used by the next certificate: the sequence has no gap.
async fn reserve(installation: &Installation, count: usize) -> Result<()> {
    let mut tx = installation.control.begin().await?;
    let (next, _) = tx.next_certificate().await?;
    let wanted = next - 1 + i64::try_from(count).unwrap_or(i64::MAX - next);
    let is_announced = tx.announced_certificate().await?.is_some();
    if !is_announced {
        tx.announce_certificate(&uuid7(installation.clock.now(), installation.random.as_ref())?).await?;
    }
    let reserved = reserved(&mut tx).await?;
    if reserved < wanted || !is_announced {
        tx.set_meta(RESERVED, &wanted.max(reserved).to_string()).await?;
        tx.commit().await?;
    } else {
        drop(tx);
    }
    installation.keyring.seal_state(&installation.control, installation.clock.as_ref()).await?;
    crash_point::reached("certificate.reserved");
    Ok(())
}

/// The next number, which must have been reserved, and the digest of the certificate before it.
async fn next_reserved(tx: &mut Tx) -> Result<(i64, Option<String>)> {
    let (sequence, previous) = tx.next_certificate().await?;
    if sequence > reserved(tx).await? {
        return Err(TaskError::Inconsistent(format!("certificate number {sequence} was not reserved")));
    }
    Ok((sequence, previous))
}

/// The id that the next certificate was announced with.
async fn announced(tx: &mut Tx) -> Result<String> {
    let id = tx.announced_certificate().await?;
    id.ok_or_else(|| TaskError::Inconsistent("the next certificate has no id".to_owned()))
}

async fn reserved(tx: &mut Tx) -> Result<i64> {
    Ok(tx.meta(RESERVED).await?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Issues the certificate of a run if one is due for its state.
async fn certify_run(installation: &Installation, run: &RunRow) -> Result<Option<String>> {
    let mut body = RunBody::of(run)?;
    let until = open_until(installation, run, &body).await?;
    let claim = claim_of(run, &body, until.as_deref());
    if body.certified.as_deref() == Some(claim.as_str()) {
        return Ok(None);
    }
    let mut tx = installation.control.begin().await?;
    let earlier = tx.certificates(Some(&run.id)).await?.pop().map(|last| last.id);
    let mut run = run.clone();
    if run.state == SHREDDED && body.forgotten.is_none() {
        body.forgotten = forgotten_by(&mut tx, &run).await?;
        body.put(&mut run)?;
    }
    let run = &run;
    let mut facts = gather(installation, &mut tx, run).await?;
    let unproven = is_unproven(run, facts.key_evidence.as_ref());
    if unproven && body.certified.as_deref() == Some(UNPROVEN) {
        return Ok(None);
    }
    let now = facts.now;
    let reference_key = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
    let checked_at = Timestamp::from(run.verified_at.unwrap_or(now));
    let (evidence, evidence_digest) = evidence(&tx.ledger_of_run(&run.id).await?, checked_at, &reference_key)?;
    let (sequence, previous) = next_reserved(&mut tx).await?;
    let id = announced(&mut tx).await?;
    facts.id.clone_from(&id);
    facts.open_until = until;
    (facts.sequence, facts.previous) = (sequence as u64, previous);
    facts.supersedes =
        earlier.clone().map(|certificate_id| Supersedes { certificate_id, reason: supersedes_reason(run) });
    let predicate = predicate(&facts)?;
    let left = residuals(&facts, std::slice::from_ref(&predicate));
    let statement = Statement::new(&evidence_digest, predicate);
    let envelope = issue(&statement, installation.signer.certificates()).map_err(|error| proof(told(&error)))?;
    let row = CertificateRow {
        id: id.clone(),
        sequence,
        run: run.id.clone(),
        result: result_name(statement.predicate.result).to_owned(),
        digest: hex::encode(envelope.digest()),
        envelope: envelope.as_bytes().to_vec(),
        evidence: evidence.into_bytes(),
        issued_at: now,
        supersedes: earlier,
    };
    tx.add_certificate(&row).await?;
    tx.announce_certificate(&uuid7(now, installation.random.as_ref())?).await?;
    let mut certified = run.clone();
    let mut body = facts.body;
    if run.state == SHREDDED {
        body.residuals = Some(left);
    }
    let certified_now = if unproven { UNPROVEN.to_owned() } else { claim };
    RunBody { certified: Some(certified_now), ..body }.put(&mut certified)?;
    if !tx.step_run(&certified, &run.state).await? {
        return Err(TaskError::Inconsistent(format!("run {} changed while it was certified", run.id)));
    }
    tx.commit().await?;
    Ok(Some(id))
}

/// Everything that is known of a run, without the number of a certificate.
async fn gather(installation: &Installation, tx: &mut Tx, run: &RunRow) -> Result<Facts> {
    let body = RunBody::of(run)?;
    let (key_evidence, root_slot, lists_irrevocable_at) = root_facts(installation, tx, run, body.forgotten).await?;
    let plan = tx.plan(run.plan.as_deref().unwrap_or_default()).await?;
    let plan = plan.ok_or_else(|| TaskError::Inconsistent(format!("run {} has no plan", run.id)))?;
    let chunks = tx.chunks(&plan.id).await?;
    let plan = serde_json::from_str(&plan.body)
        .map_err(|_| TaskError::Inconsistent("a plan's public part is damaged".to_owned()))?;
    Ok(Facts {
        controller: installation.config.agent.name.clone(),
        agent: hex::encode(installation.id()),
        stores: installation.config.registry.stores.clone(),
        engines: installation.sites().iter().map(|site| (site.model.spec.name.clone(), site.store.engine())).collect(),
        is_bucket_on_this_host: installation.is_bucket_on_this_host(),
        audit_limitation: installation.audit_limitation(),
        run: run.clone(),
        body,
        chunks,
        plan,
        request: request_of(tx, run.request).await?,
        now: installation.clock.now(),
        key_evidence,
        root_slot,
        id: String::new(),
        sequence: 0,
        previous: None,
        supersedes: None,
        open_until: None,
        lists_irrevocable_at,
    })
}

/// Whether a shredded run cannot show the destruction of its keys.
fn is_unproven(run: &RunRow, key_evidence: Option<&KeyEvidence>) -> bool {
    run.state == SHREDDED && run.generation.is_some() && key_evidence.is_none()
}

/// What keeps a shredded run from being final, by what is registered now and what its certificates said; holds apart.
pub(super) async fn residuals_of(installation: &Installation, tx: &mut Tx, run: &RunRow) -> Result<Vec<Residual>> {
    let facts = gather(installation, tx, run).await?;
    let mut earlier = Vec::new();
    for row in tx.certificates(Some(&run.id)).await? {
        let verified = crate::certify::verify(&row.envelope, installation.signer.trusted()).map_err(proof)?;
        earlier.extend(verified.into_erasure().map(|statement| statement.predicate));
    }
    Ok(residuals(&facts, &earlier))
}

/// An error with its cause: which rule a certificate breaks, and where.
fn told(error: &crate::certify::IssueError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
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

fn supersedes_reason(run: &RunRow) -> SupersedesReason {
    match run.state.as_str() {
        UNDONE => SupersedesReason::Undone,
        SHREDDED | FINAL => SupersedesReason::Completion,
        _ => SupersedesReason::Correction,
    }
}

/// Until when rows of a run still open in backups behind its shred: as the last shred found, or as the marked keys say before.
async fn open_until(installation: &Installation, run: &RunRow, body: &RunBody) -> Result<Option<String>> {
    match &body.pending {
        // Once its keys died no key that is left opens them, whatever a destruction that is called off brings back.
        _ if run.state != SHRED_PENDING || body.irrevocable_at.is_some() => Ok(None),
        Some((_, until)) => Ok(Some(until.clone())),
        None => still_open_behind_shred(installation, run).await,
    }
}

/// What of a run its certificate tells that can change: another claim needs another certificate. A run whose keys are destroyed
/// irrevocably only at a date has one that names it, and another when the date had to be moved.
fn claim_of(run: &RunRow, body: &RunBody, until: Option<&str>) -> String {
    if let Some(at) = body.irrevocable_at.filter(|_| run.state == SHRED_PENDING) {
        return format!("{} irrevocable at {}", run.state, crate::control::time_text(at));
    }
    until.map_or_else(|| run.state.clone(), |until| format!("{} until {until}", run.state))
}

/// Number, receipt and due date of a request.
async fn request_of(tx: &mut Tx, number: Option<i64>) -> Result<Option<(i64, DateTime<Utc>, DateTime<Utc>)>> {
    let Some(number) = number else { return Ok(None) };
    Ok(tx.request(number).await?.map(|request| (number, request.received_at, request.due_at)))
}

/// The destroyed root of the run's own generation change, and the slot that it was destroyed in. Without one, before the change
/// is finished, or when the destruction on record is older than the run and so cannot be of its keys, the slot is the
/// configured one.
///
/// What was sealed for the run itself may have gone with a later generation, `forgotten`: then the slot answers for that as well,
/// once it can no longer be called off; until then only the date of that is told.
async fn root_facts(
    installation: &Installation,
    tx: &mut Tx,
    run: &RunRow,
    forgotten: Option<i64>,
) -> Result<(Option<KeyEvidence>, RootSlot, Option<DateTime<Utc>>)> {
    let claim = installation.keyring.slot().claim();
    let (mut destroyed, mut slot) = match run.generation {
        Some(generation) => root_end(tx, run, generation, &claim).await?.unzip(),
        None => (None, None),
    };
    let mut lists_irrevocable_at = None;
    if let Some(forgotten) =
        forgotten.filter(|forgotten| run.generation.is_none_or(|generation| *forgotten > generation))
    {
        match root_end(tx, run, forgotten, &claim).await? {
            Some((Some((at, _)), later)) => {
                // What is said of that slot holds of the keys no sooner than its date.
                if let (true, Some(Some((own, _)))) = (later.irrevocable_at.is_some(), destroyed.as_mut()) {
                    *own = at.max(*own);
                }
                slot = Some(later);
            }
            Some((None, later)) => lists_irrevocable_at = later.irrevocable_at.map(Timestamp::instant),
            None => {}
        }
    }
    let slot = slot.unwrap_or_else(|| slot_of(&claim, None));
    let key = destroyed.flatten().zip(run.generation).map(|((at, kind), generation)| {
        // The root that the change to this generation destroyed is the one before.
        key_evidence(&installation.id(), generation - 1, at, &kind)
    });
    Ok((key, slot, lists_irrevocable_at))
}

/// When a root was destroyed and in what kind of slot, if it is, and the slot.
type RootEnd = (Option<(DateTime<Utc>, String)>, RootSlot);

/// When the root before a generation was destroyed and in what kind of slot, and what the weakest destruction so far is worth.
/// While one of them can be called off, only until when: in the slot that is configured, with its `claim`.
async fn root_end(tx: &mut Tx, run: &RunRow, generation: i64, claim: &SlotClaim) -> Result<Option<RootEnd>> {
    let Some((at, _)) = tx.rekey_evidence(generation).await? else { return Ok(None) };
    let at: DateTime<Utc> = crate::control::parse_time(&at)?;
    if at < run.begun_at {
        return Ok(None);
    }
    if let Some(irrevocable) = tx.irrevocable_before(generation).await? {
        let mut slot = slot_of(claim, None);
        slot.irrevocable_at = Some(Timestamp::from(irrevocable));
        return Ok(Some((None, slot)));
    }
    let past = destructions(tx, generation).await?;
    let damaged = || TaskError::Inconsistent(format!("the evidence of key generation {generation} is missing"));
    // Every root under which something was sealed opened the destroyed keys, with the control database of its time. So the
    // weakest of their destructions decides, and the longest-lived copies of a service.
    let (_, weakest) = past.iter().max_by_key(|(_, found)| found.claim.class).ok_or_else(damaged)?;
    let is_shown = |found: &RootEvidence| found.claim.class == weakest.claim.class;
    let (_, shown) = past.iter().rev().find(|(_, found)| is_shown(found)).ok_or_else(damaged)?;
    let mut slot = slot_of(&shown.claim, Some(&shown.gone));
    slot.reopenable_until = past.iter().filter_map(|(at, found)| reopenable_until(*at, &found.claim)).max();
    // A root that was destroyed at a date is gone from there on, and not since the change of generation.
    slot.irrevocable_at =
        past.iter().filter_map(|(_, found)| found.destroyed.irrevocable_at).max().map(Timestamp::from);
    let at = past.iter().map(|(at, _)| *at).fold(at, DateTime::max);
    Ok(Some((Some((at, slot.kind.clone())), slot)))
}

/// The destructions of roots up to a generation, oldest first, from the first chain on and always with that generation's own.
async fn destructions(tx: &mut Tx, generation: i64) -> Result<Vec<(DateTime<Utc>, RootEvidence)>> {
    let first = tx.first_chain_at().await?.map(|at| crate::control::parse_time(&at)).transpose()?;
    let changes = tx.rekeys_until(generation).await?;
    let mut past = Vec::new();
    for (number, (at, text)) in changes.iter().enumerate() {
        let at: DateTime<Utc> = crate::control::parse_time(at)?;
        if number + 1 < changes.len() && first.is_none_or(|first| at < first) {
            continue;
        }
        let found: Vec<RootEvidence> = serde_json::from_str(text)
            .map_err(|_| TaskError::Inconsistent("the evidence of a generation change is damaged".to_owned()))?;
        past.extend(found.into_iter().map(|found| (at, found)));
    }
    past.extend(delayed(tx, generation, first).await?);
    past.sort_by_key(|(at, _)| *at);
    Ok(past)
}

/// The same for roots that were destroyed at a date, each with the time when it was read back as gone.
async fn delayed(
    tx: &mut Tx,
    generation: i64,
    first: Option<DateTime<Utc>>,
) -> Result<Vec<(DateTime<Utc>, RootEvidence)>> {
    let mut past = Vec::new();
    for root in tx.doomed_roots().await?.into_iter().filter(|root| root.generation < generation) {
        let is_last = root.generation + 1 == generation;
        let (Some(at), Some(text)) = (root.gone_at, root.evidence) else { continue };
        if is_last || first.is_some_and(|first| root.begun_at >= first) {
            let found = serde_json::from_str(&text)
                .map_err(|_| TaskError::Inconsistent("the evidence of a doomed root is damaged".to_owned()))?;
            past.push((at, found));
        }
    }
    Ok(past)
}

/// Until when a copy of the service could bring the key back. A destruction of class D has no date after which it would be
/// more than it is.
fn reopenable_until(at: DateTime<Utc>, claim: &SlotClaim) -> Option<NaiveDate> {
    // Neither has a provider that keeps nothing.
    let days = claim.residual_days.filter(|_| !matches!(claim.class, slot::SlotClass::C | slot::SlotClass::D))?;
    // The day on which the last hour of it falls counts as a whole.
    at.date_naive().checked_add_days(Days::new(u64::from(days) + 1))
}

/// A slot as certificates show it, with the read-back of a destruction in it.
fn slot_of(claim: &SlotClaim, gone: Option<&GoneEvidence>) -> RootSlot {
    let class = match claim.class {
        slot::SlotClass::A => SlotClass::A,
        slot::SlotClass::B => SlotClass::B,
        slot::SlotClass::C => SlotClass::C,
        slot::SlotClass::D => SlotClass::D,
    };
    let mut shown = RootSlot::new(class, claim.kind.name());
    // Of a provider, nobody declares it.
    shown.snapshot_retention_days = claim.residual_days.filter(|_| claim.class != slot::SlotClass::C).map(u64::from);
    let Some(gone) = gone else { return shown };
    shown.checks = gone.checks.iter().map(|check| check.code().to_owned()).collect();
    shown.read_back = gone.read_back.map(|found| SlotReadBack {
        key_version: found.key_version,
        min_available_version: found.min_available_version,
        exportable: found.exportable,
        allow_plaintext_backup: found.allow_plaintext_backup,
        deletion_allowed: found.deletion_allowed,
    });
    shown.token = gone.token.map(|found| SlotToken {
        never_extractable: found.marks.never_extractable,
        always_sensitive: found.marks.always_sensitive,
        local: found.marks.local,
        objects_left: found.objects_left,
    });
    shown
}

fn key_evidence(installation: &[u8; 16], generation: i64, destroyed_at: DateTime<Utc>, kms: &str) -> KeyEvidence {
    let name = format!("{}/root-generation/{generation}", hex::encode(installation));
    KeyEvidence {
        key_id_sha256: hex::encode(crate::log::tree::sha256(name.as_bytes())),
        kms: kms.to_owned(),
        algorithm: "AES-256-GCM".to_owned(),
        destroyed_at: Some(Timestamp::from(destroyed_at)),
        copies_known: 0,
        escrow: false,
    }
}

/// The evidence file and its digest. Stripped rows stand in it as present: they are counted as retained, and the digest of
/// what they held before shows later what was taken from them.
fn evidence(entries: &[LedgerEntry], at: Timestamp, key: &Key) -> Result<(String, String)> {
    let mut writer = EvidenceWriter::default();
    let mut file = String::new();
    for entry in entries {
        let (action, after) = match entry.kind {
            LedgerKind::Erased => (Action::Delete, After::Absent),
            LedgerKind::Anonymised | LedgerKind::Stripped => (Action::Anonymize, After::Present),
        };
        let row = EvidenceRow {
            target_id: location(&entry.store, &entry.collection),
            reference: hex::encode(mac(Suite::Intl, key, &[b"row", &entry.row_mac])),
            content_before: hex::encode(entry.content_mac),
            action,
            at,
            after,
            check: VerificationMethod::FullReadback,
        };
        file.push_str(&writer.line(&row).map_err(proof)?);
    }
    let (digest, _) = writer.finish();
    Ok((file, digest))
}

#[cfg(test)]
mod tests;
