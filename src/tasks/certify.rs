//! `certify`: issues the certificate of every run that has none for its present state, of every outside key that is gone, and of every
//! storage medium that was recorded as destroyed.
//!
//! A run gets one certificate when its rows are gone and keys are still to die (`partial`, `KEY_SHRED_PENDING`), superseding ones
//! when they are destroyed, when the date changes until which rows still open in backups, when a declared copy ends with its medium,
//! and when it is final; a run that is
//! certified after its shred gets only those that are left. The state with the numbers
//! to be used lies in the second place before anything is signed. What a certificate says is put together in `predicate.rs`;
//! what is certified already stands in the run itself, so that no clock decides it.

mod lost;
mod medium;
mod outside;
mod predicate;
mod refusal;
mod residual;
mod roll_up;
mod root;
mod rows;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use self::predicate::{AskedFor, Facts, predicate};
pub(super) use self::refusal::REFUSED;
use self::refusal::{keeps_all, reasons_of_run, refusal_of_run};
use self::residual::residuals;
pub use self::roll_up::{ROLL_UP, roll_up_due, wrong_with};
use self::root::root_facts;
use self::rows::evidence;
use crate::certify::Draft;
use crate::certify::check::{as_id, location};
use crate::certify::codes::{ErasureResult, SupersedesReason, TriggerKind};
use crate::certify::dsse::Envelope;
use crate::certify::statement::{Approval, Issuer, KeyEvidence, Statement, Supersedes, Timestamp};
use crate::control::{CertificateRow, FoundAgain, RunRow, SnapshotRow, Tx};
use crate::crash_point;
use crate::installation::{Installation, Operation};
use crate::keyring::{KeyringError, Purpose};
use crate::keys::Key;
use crate::keys::signing::SigningError;
use crate::keys::suite::{Suite, mac};
use crate::random::uuid7;

use super::erasure::RunBody;
use super::finality::{Residual, forgotten_by};
use super::media::{GoneCopy, gone_copies};
use super::request::request_name;
use super::shred::still_open_behind_shred;
use super::{Result, TaskError};

/// The `meta` entry with the highest certificate number that may be signed.
const RESERVED: &str = "certificates_reserved";
/// The state of a run whose keys are gone.
pub(super) const SHREDDED: &str = "shredded";
/// The state of a run whose every residual date is past as well.
pub(super) const FINAL: &str = "final";
/// What stands behind the state that a certificate tells of, while the files of a store still hold rows because of something that
/// passes.
pub(super) const UNSETTLED: &str = " unsettled";
/// The state of a run whose rows were put back.
const UNDONE: &str = "undone";
/// The state of a run of which every row failed.
const FAILED: &str = "failed";
/// The state of a run whose keys are still to die.
const SHRED_PENDING: &str = "shred-pending";
/// What stands in a claim before the places in which rows of the run are there again.
const AGAIN: &str = " found-again ";
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
    let media = medium::uncertified(installation).await?;
    let lost = lost::uncertified(installation).await?;
    let requests = refusal::uncertified(installation).await?;
    let count = due.len() + keys.len() + media.len() + lost.len() + requests.len();
    if count == 0 {
        return Ok(Vec::new());
    }
    reserve(installation, count).await?;
    let mut pass = Pass::default();
    // First, for certificates of runs name the records.
    for record in media {
        let issued = medium::certify_medium(installation, &record).await.map(Some);
        pass.note("media.certified", &record.id, issued);
    }
    for medium in lost {
        pass.note("media.certified", &medium.row.id, lost::certify_lost(installation, &medium).await.map(Some));
    }
    for run in due {
        pass.note("certificate.issued", &run.id, certify_run(installation, &run).await);
    }
    for key in keys {
        pass.note("outside.certified", &key.id, outside::certify_key(installation, &key).await.map(Some));
    }
    // Last, for they replace certificates of runs.
    for request in requests {
        let issued = refusal::certify_request(installation, &request).await.map(Some);
        pass.note("request.certified", &request_name(request.number), issued);
    }
    match pass.first_error {
        Some(error) if pass.ids.is_empty() => Err(error),
        _ => Ok(pass.ids),
    }
}

/// What a pass issued, and the first that it could not.
#[derive(Default)]
struct Pass {
    ids: Vec<String>,
    first_error: Option<TaskError>,
}

impl Pass {
    /// Notes what became of the certificate about something; one that fails does not keep back the others.
    fn note(&mut self, point: &str, about: &str, issued: Result<Option<String>>) {
        match issued {
            Ok(Some(id)) => {
                self.ids.push(id);
                crash_point::reached(point);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(about, error = %error, "a certificate could not be issued");
                self.first_error.get_or_insert(error);
            }
        }
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
    let gone = gone_copies(&mut tx).await?;
    let again = tx.found_again(None).await?;
    drop(tx);
    let mut due = Vec::new();
    let is_blind = !installation.ground()?.skipped.is_empty();
    for run in waiting {
        let body = RunBody::of(&run)?;
        // Nothing of it changes any more: what it was refused for stands in its one certificate.
        if body.certified.as_deref() == Some(REFUSED) && keeps_all(&run, &body) {
            continue;
        }
        if keeps_all(&run, &body)
            && !reasons_of_run(&mut installation.control.read().await?, &run, &body).await?.is_empty()
        {
            due.push(run);
            continue;
        }
        if is_blind && run.state == SHRED_PENDING && body.irrevocable_at.is_none() && body.certified.is_some() {
            // Without its store no date can be computed; what was said of it stands until it is reached.
            continue;
        }
        let until = open_until(installation, &run, &body).await?;
        let own: Vec<FoundAgain> = again.iter().filter(|found| found.run == run.id).cloned().collect();
        let sealed = sealed_again(&mut installation.control.read().await?, &run, &own).await?;
        let claim = claim_of(&run, &body, until.as_deref(), &again_text(&own, &sealed));
        let is_told = body.certified.as_deref() == Some(claim.as_str());
        if !is_told || has_untold_media(installation, &run, &body, &gone).await? {
            due.push(run);
        }
    }
    Ok(due)
}

/// Whether a declared copy that could hold rows of a certified run ended with its medium, and no certificate of the run says so.
async fn has_untold_media(
    installation: &Installation,
    run: &RunRow,
    body: &RunBody,
    gone: &[GoneCopy],
) -> Result<bool> {
    let is_news = |copy: &GoneCopy| {
        !copy.is_lost
            && !body.media.contains(&copy.record)
            && run.verified_at.is_none_or(|verified| copy.at >= verified)
    };
    let can_hold = matches!(run.state.as_str(), SHRED_PENDING | SHREDDED) && body.certified.as_deref() != Some(REFUSED);
    if !can_hold || !gone.iter().any(is_news) {
        return Ok(false);
    }
    let facts = gather(installation, &mut installation.control.read().await?, run).await?;
    Ok(facts.media().iter().any(|record| !body.media.contains(record)))
}

/// The same, but certificates wait while the second place or the place of the signing key cannot be reached: what was erased is erased, and every pass tries
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
        Err(TaskError::Signing(error)) if error.is_retryable() => {
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

/// The number of the certificate that is being issued.
struct Number {
    sequence: i64,
    previous: Option<String>,
    id: String,
}

impl Number {
    /// What is kept of the certificate with this number.
    fn row(&self, run: &str, result: &str, envelope: &Envelope, evidence: String, at: DateTime<Utc>) -> CertificateRow {
        CertificateRow {
            id: self.id.clone(),
            sequence: self.sequence,
            run: run.to_owned(),
            result: result.to_owned(),
            digest: hex::encode(envelope.digest()),
            envelope: envelope.as_bytes().to_vec(),
            evidence: evidence.into_bytes(),
            issued_at: at,
            supersedes: None,
        }
    }
}

/// Signs a certificate, in no transaction: the key may lie in a service or a token that takes its time, and a hold must not wait for
/// it. Returns a transaction in which the number is still the next one.
async fn sign(installation: &Installation, draft: Draft, at: DateTime<Utc>, number: &Number) -> Result<(Envelope, Tx)> {
    let envelope = installation.signer.issue(draft, at).await?;
    let mut tx = installation.control.begin().await?;
    if tx.signing_keys_number().await? != installation.signer.history().number {
        return Err(SigningError::Replaced.into());
    }
    let next = next_reserved(&mut tx).await?;
    if next != (number.sequence, number.previous.clone()) || announced(&mut tx).await? != number.id {
        return Err(TaskError::Inconsistent(format!("certificate number {} was issued meanwhile", number.sequence)));
    }
    Ok((envelope, tx))
}

/// The id that the next certificate was announced with.
async fn announced(tx: &mut Tx) -> Result<String> {
    let id = tx.announced_certificate().await?;
    id.ok_or_else(|| TaskError::Inconsistent("the next certificate has no id".to_owned()))
}

async fn reserved(tx: &mut Tx) -> Result<i64> {
    Ok(tx.meta(RESERVED).await?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Logs that a certificate is issued, and about what: before with `intent`, for what cannot be logged is not issued.
async fn log_issue(installation: &Installation, about: &str, id: &str, outcome: &str) -> Result<()> {
    let issued = Operation { name: "certificate.issue", object: id, outcome, ..Operation::default() };
    let mut references = vec![("about".to_owned(), about.to_owned())];
    if outcome == "success" {
        // So that nobody who can sign puts another in its place.
        let row = installation.control.read().await?.certificate(id).await?;
        references.extend(row.map(|row| ("digest".to_owned(), row.digest)));
    }
    installation.log(Operation { references, ..issued }).await
}

/// Logs the intent to issue the certificate whose id was announced; returns that id.
async fn begin_issue(installation: &Installation, about: &str) -> Result<String> {
    let id = announced(&mut installation.control.read().await?).await?;
    log_issue(installation, about, &id, "intent").await?;
    Ok(id)
}

/// Issues the certificate of a run if one is due for its state, with entries in the operation log around it.
async fn certify_run(installation: &Installation, run: &RunRow) -> Result<Option<String>> {
    let body = RunBody::of(run)?;
    if body.certified.as_deref().is_some_and(|claim| claim.starts_with(UNPROVEN)) {
        let facts = gather(installation, &mut installation.control.read().await?, run).await?;
        let again = again_text(&facts.again, &facts.sealed_again);
        if is_unproven(run, facts.key_evidence.as_ref()) && body.certified == Some(format!("{UNPROVEN}{again}")) {
            return Ok(None);
        }
    }
    let announced = begin_issue(installation, &run.id).await?;
    let issued = issue_for_run(installation, run).await;
    let outcome = if matches!(issued, Ok(Some(_))) { "success" } else { "failure" };
    let logged = log_issue(installation, &run.id, &announced, outcome).await;
    let issued = issued?;
    logged?;
    Ok(issued)
}

async fn issue_for_run(installation: &Installation, run: &RunRow) -> Result<Option<String>> {
    let mut body = RunBody::of(run)?;
    let reasons = reasons_of_run(&mut installation.control.read().await?, run, &body).await?;
    let (until, claim) =
        if reasons.is_empty() { claim_now(installation, run, &body).await? } else { (None, REFUSED.to_owned()) };
    let gone = gone_copies(&mut installation.control.read().await?).await?;
    if body.certified.as_deref() == Some(claim.as_str()) && !has_untold_media(installation, run, &body, &gone).await? {
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
    let now = facts.now;
    let taken_from = tx.run(&run.id).await?;
    let reference_key = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
    let checked_at = Timestamp::from(run.verified_at.unwrap_or(now));
    let (evidence, evidence_digest) = evidence(&mut tx, &run.id, checked_at, &reference_key).await?;
    let (sequence, previous) = next_reserved(&mut tx).await?;
    let id = announced(&mut tx).await?;
    facts.id.clone_from(&id);
    facts.approvals = approvals(&mut tx, run, &reference_key).await?;
    facts.refusal = refusal_of_run(&mut tx, run, reasons, now).await?;
    facts.open_until = until;
    (facts.sequence, facts.previous) = (sequence as u64, previous);
    let reason = supersedes_reason(run, body.certified.as_deref(), &again_text(&facts.again, &facts.sealed_again));
    facts.supersedes = earlier.clone().map(|certificate_id| Supersedes { certificate_id, reason });
    let predicate = predicate(&facts)?;
    let told_media = facts.media();
    let left = residuals(&facts, std::slice::from_ref(&predicate));
    let statement = Statement::new(&evidence_digest, predicate);
    let draft = Draft::of(&statement).map_err(|error| proof(told(&error)))?;
    // The reference key may be new.
    tx.commit().await?;
    let number = Number { sequence, previous: facts.previous.clone(), id: id.clone() };
    let (envelope, mut tx) = sign(installation, draft, now, &number).await?;
    let result = result_name(statement.predicate.result);
    let row = CertificateRow { supersedes: earlier, ..number.row(&run.id, result, &envelope, evidence, now) };
    if tx.run(&run.id).await? != taken_from || tx.found_again(Some(&run.id)).await? != facts.again {
        return Err(TaskError::Inconsistent(format!("run {} changed while it was certified", run.id)));
    }
    tx.add_certificate(&row).await?;
    tx.announce_certificate(&uuid7(now, installation.random.as_ref())?).await?;
    let mut certified = run.clone();
    let mut body = facts.body;
    if run.state == SHREDDED {
        body.residuals = Some(left);
    }
    body.media = told_media;
    let certified_now =
        if unproven { format!("{UNPROVEN}{}", again_text(&facts.again, &facts.sealed_again)) } else { claim };
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
    let again = tx.found_again(Some(&run.id)).await?;
    let plan = serde_json::from_str(&plan.body)
        .map_err(|_| TaskError::Inconsistent("a plan's public part is damaged".to_owned()))?;
    Ok(Facts {
        controller: installation.config.agent.name.clone(),
        environment: installation.config.agent.environment.clone(),
        agent: hex::encode(installation.id()),
        stores: installation.config.registry.stores.clone(),
        engines: installation.sites().iter().map(|site| (site.model.spec.name.clone(), site.store.engine())).collect(),
        is_bucket_on_this_host: installation.is_bucket_on_this_host(),
        audit_limitation: installation.audit_limitation(),
        run: run.clone(),
        snapshots: sealed_before(tx, run).await?,
        body,
        chunks,
        plan,
        request: request_of(tx, run.request).await?,
        gone: gone_copies(tx).await?,
        approvals: Vec::new(),
        refusal: None,
        sealed_again: sealed_again(tx, run, &again).await?,
        again,
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

/// Stores of which snapshots sealed rows of a run anew, while they were there again, under keys that live.
async fn sealed_again(tx: &mut Tx, run: &RunRow, again: &[FoundAgain]) -> Result<BTreeSet<String>> {
    match run.verified_snapshot {
        Some(last) if !again.is_empty() => Ok(tx.stores_sealed_again(&run.id, last).await?),
        _ => Ok(BTreeSet::new()),
    }
}

/// The committed snapshots that may hold rows of a run.
async fn sealed_before(tx: &mut Tx, run: &RunRow) -> Result<Vec<SnapshotRow>> {
    let mut snapshots = tx.snapshots(None).await?;
    snapshots.retain(|row| row.state == "committed" && run.verified_at.is_none_or(|gone| row.begun_at <= gone));
    Ok(snapshots)
}

/// Who agreed to the plan of a run, in that order: no names, but pseudonyms under the key of the certificates.
async fn approvals(tx: &mut Tx, run: &RunRow, key: &Key) -> Result<Vec<Approval>> {
    let given = tx.approvals(run.plan.as_deref().unwrap_or_default()).await?;
    let pseudonym = |name: &str| hex::encode(mac(Suite::Intl, key, &[b"actor", name.as_bytes()]));
    Ok(given
        .into_iter()
        .map(|approval| Approval {
            role: "operator".to_owned(),
            actor_ref: format!("hmac-sha256:{}:{}", predicate::REFERENCE_KEY, pseudonym(&approval.operator)),
            approved_at: Timestamp::from(approval.at),
        })
        .collect())
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

/// Who certifies.
pub(super) fn issuer(installation: &Installation) -> Issuer {
    Issuer {
        controller: as_id(&installation.config.agent.name),
        agent_id: hex::encode(installation.id()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        environment: installation.config.agent.environment.clone(),
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

/// `before`: what the certificate tells that is replaced.
fn supersedes_reason(run: &RunRow, before: Option<&str>, now: &str) -> SupersedesReason {
    let told = before.and_then(|claim| claim.split_once(AGAIN)).map_or("", |(_, told)| told);
    match run.state.as_str() {
        _ if now.strip_prefix(AGAIN).unwrap_or_default() != told => SupersedesReason::Recheck,
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
fn claim_of(run: &RunRow, body: &RunBody, until: Option<&str>, again: &str) -> String {
    if let Some(at) = body.irrevocable_at.filter(|_| run.state == SHRED_PENDING) {
        return format!("{} irrevocable at {}{again}", run.state, crate::control::time_text(at));
    }
    let mut claim = until.map_or_else(|| run.state.clone(), |until| format!("{} until {until}", run.state));
    if body.is_residue_pending() {
        claim.push_str(UNSETTLED);
    }
    claim + again
}

/// Until when rows of a run open in backups, and what its certificate has to tell now.
async fn claim_now(installation: &Installation, run: &RunRow, body: &RunBody) -> Result<(Option<String>, String)> {
    let until = open_until(installation, run, body).await?;
    let mut tx = installation.control.read().await?;
    let again = tx.found_again(Some(&run.id)).await?;
    let sealed = sealed_again(&mut tx, run, &again).await?;
    let claim = claim_of(run, body, until.as_deref(), &again_text(&again, &sealed));
    Ok((until, claim))
}

/// What a claim says of rows that are there again; of those that are gone again only in which stores snapshots still have them.
fn again_text(again: &[FoundAgain], sealed: &BTreeSet<String>) -> String {
    let there = again.iter().filter(|found| found.rows > 0);
    let there = there.map(|found| format!("{}={}", location(&found.store, &found.collection), found.rows));
    let places: Vec<String> = there.chain(sealed.iter().map(|store| format!("{store} sealed"))).collect();
    if places.is_empty() { String::new() } else { format!("{AGAIN}{}", places.join(",")) }
}

/// What is told of a request.
async fn request_of(tx: &mut Tx, number: Option<i64>) -> Result<Option<AskedFor>> {
    let Some(number) = number else { return Ok(None) };
    let Some(request) = tx.request(number).await? else { return Ok(None) };
    let reason = TriggerKind::of_request(request.reason.as_deref())
        .ok_or_else(|| TaskError::Inconsistent(format!("the reason of request {number} is damaged")))?;
    Ok(Some(AskedFor { number, reason, received: request.received_at, due: request.due_at }))
}

#[cfg(test)]
mod tests;
