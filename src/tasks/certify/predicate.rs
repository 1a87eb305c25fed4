//! What a certificate says about a run: from stored facts to the predicate. Pure.
//!
//! Nothing is said that the facts do not show: a date only where one is known, `erased` only with the destroyed key, `clear`
//! only where the store says that its own files are clean.

pub(super) mod basis;
pub(super) mod copies;
pub(super) mod kept;

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Days, NaiveDate, Utc};

use crate::certify::check::{MAX_TARGETS, as_id, location};
use crate::certify::codes::{
    Action, AnonymizationTechnique, BackupState, CopyState, ErasureResult, Limitation, Sanitization, SlotClass, System,
    TriggerKind, VerificationMethod,
};
use crate::certify::evidence::OTHERS;
use crate::certify::statement::{
    Anonymization, AnonymizedField, Approval, Backups, ClockQuality, DeclaredCopy, Digest, Issuer, KeyEvidence,
    Predicate, Privacy, PrivacyScan, Refusal, Retained, RootSlot, Scope, Supersedes, Target, Timestamp, Verification,
};
use crate::control::{ChunkRow, FoundAgain, RunRow, SnapshotRow};
use crate::plan::{CollectionCounts, PlanBody, Technique};
use crate::policy::registry::{BackupMode, StoreSpec};
use crate::stores::Engine;
use crate::stores::PhysicalStage;

use self::basis::{data_categories, legal_basis, policy, trigger};
use self::copies::{all_copies, backup_copies, weakness};
use self::kept::retained;
use super::{FINAL, SHREDDED, UNDONE, proof};
use crate::tasks::erasure::RunBody;
use crate::tasks::media::GoneCopy;
use crate::tasks::{Result, TaskError};

/// The version of the personal-data scan in [`crate::certify::lint`].
const LINT_RULES: &str = "v1";

/// The name of the key that the pseudonyms are made with.
pub(super) const REFERENCE_KEY: &str = "certificate";
/// How many bytes of JSON the targets may take of the 256 KiB of a certificate; the rest is for everything else.
const TARGET_BYTES: usize = 160 * 1024;

/// What a certificate tells of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskedFor {
    /// Its number.
    pub number: i64,
    /// Why it was to be erased.
    pub reason: TriggerKind,
    /// When it was received.
    pub received: DateTime<Utc>,
    /// When it must be answered.
    pub due: DateTime<Utc>,
}

/// Everything a certificate is made of.
pub(super) struct Facts {
    /// The controller's name.
    pub controller: String,
    /// What it is about: `prod`, `demo`, …
    pub environment: String,
    /// The installation's id, hex.
    pub agent: String,
    /// Registered stores.
    pub stores: Vec<StoreSpec>,
    /// Engines of the stores that can be reached.
    pub engines: HashMap<String, Engine>,
    /// Whether the bucket stands on this host.
    pub is_bucket_on_this_host: bool,
    /// What the way of filing cannot prove.
    pub audit_limitation: Option<Limitation>,
    /// The run.
    pub run: RunRow,
    /// Its public part.
    pub body: RunBody,
    /// Until when rows of it open that its shred does not close: a day, or text where there is no date.
    pub open_until: Option<String>,
    /// Until when the end of what was sealed for the run itself can be called off in a slot that destroys at a date; `None` once it
    /// was read back as gone.
    pub lists_irrevocable_at: Option<DateTime<Utc>>,
    /// Its plan's chunks.
    pub chunks: Vec<ChunkRow>,
    /// Snapshots whose view was opened before the rows were read back as gone, and whose chain has its key; oldest first.
    pub snapshots: Vec<SnapshotRow>,
    /// Its plan's public part.
    pub plan: PlanBody,
    /// The request that it answers.
    pub request: Option<AskedFor>,
    /// Declared copies that ended with their medium, of all stores.
    pub gone: Vec<GoneCopy>,
    /// Who agreed to the plan.
    pub approvals: Vec<Approval>,
    /// Why nothing of a request was carried out, if that is how it ended.
    pub refusal: Option<Refusal>,
    /// Rows of it that later looks found again.
    pub again: Vec<FoundAgain>,
    /// Stores with snapshots of the time in which rows of it were there again: they open under keys that live.
    pub sealed_again: BTreeSet<String>,
    /// The time of issue.
    pub now: DateTime<Utc>,
    /// The destroyed root, once its destruction is on record.
    pub key_evidence: Option<KeyEvidence>,
    /// The slot that it was destroyed in, otherwise the one that is configured.
    pub root_slot: RootSlot,
    /// The certificate's id.
    pub id: String,
    /// Its number.
    pub sequence: u64,
    /// The digest of the one before it.
    pub previous: Option<String>,
    /// What it replaces.
    pub supersedes: Option<Supersedes>,
}

/// Times in an order that a clock set back in between cannot break: none is before the one it follows.
struct Times {
    finished: DateTime<Utc>,
    checked: Option<DateTime<Utc>>,
    issued: DateTime<Utc>,
}

impl Facts {
    fn times(&self) -> Times {
        let begun = self.run.begun_at;
        let finished = self.run.ended_at.unwrap_or(self.now).max(begun);
        let looked = self.again.iter().map(|found| found.looked_at).max();
        let checked = self.run.verified_at.map(|at| at.max(looked.unwrap_or(at)).max(begun));
        Times { finished, checked, issued: self.now.max(finished).max(checked.unwrap_or(finished)) }
    }

    /// Rows that are there again, in one place when given.
    fn rows_again(&self, place: Option<(&str, &str)>) -> u64 {
        let here =
            |found: &&FoundAgain| place.is_none_or(|(store, table)| found.store == store && found.collection == table);
        self.again.iter().filter(here).map(|found| u64::try_from(found.rows).unwrap_or(0)).sum()
    }

    /// The day of issue.
    pub(super) fn today(&self) -> NaiveDate {
        self.times().issued.date_naive()
    }

    fn is_undone(&self) -> bool {
        self.run.state == UNDONE
    }

    fn is_shredded(&self) -> bool {
        self.run.state == SHREDDED || self.is_final()
    }

    fn is_final(&self) -> bool {
        self.run.state == FINAL
    }

    /// Rows are gone whose keys were not shown to be destroyed. A shredded run without a generation had nothing sealed.
    fn is_shred_pending(&self) -> bool {
        let proven = self.is_shredded() && (self.run.generation.is_none() || self.key_evidence.is_some());
        self.body.gone() > 0 && !proven && (!self.is_shredded() || self.has_backed_up_losses())
    }

    /// The day by which a destruction that can still be called off is irrevocable: the whole day behind its date, which is as
    /// late as a provider may be.
    fn irrevocable_by(&self) -> Option<NaiveDate> {
        let at = self.body.irrevocable_at.filter(|_| !self.is_shredded())?;
        at.date_naive().checked_add_days(Days::new(1))
    }

    fn has_backed_up_losses(&self) -> bool {
        let lost = |chunk: &&ChunkRow| chunk.counts.gone() > 0;
        let is_backed_up =
            |chunk: &ChunkRow| self.spec(&chunk.store).is_some_and(|spec| spec.backup != BackupMode::None);
        self.chunks.iter().filter(lost).any(is_backed_up)
    }

    /// What the period of a store's declared copies counts from: the checked end of the erasure, or later, when nothing that passes by
    /// itself kept the rows in its files any more. Copies that were made until then hold them.
    pub(super) fn copied_until(&self, store: &str) -> DateTime<Utc> {
        let times = self.times();
        let checked = times.checked.unwrap_or(times.issued);
        let own = self.body.physical.iter().find(|files| files.store == store);
        own.map_or(checked, |files| files.copied_until().max(checked))
    }

    /// A store that is registered.
    pub(super) fn spec(&self, store: &str) -> Option<&StoreSpec> {
        self.stores.iter().find(|spec| spec.name == store)
    }
}

/// The predicate of a run's certificate.
///
/// # Errors
/// When a store of the plan is not registered any more.
pub(super) fn predicate(facts: &Facts) -> Result<Predicate> {
    let times = facts.times();
    let (targets, retained) = fit(targets(facts)?, retained(facts))?;
    let limitations = limitations(facts, &targets);
    let backup_copies = backup_copies(facts, &targets);
    let declared = facts.plan.collections.len() + facts.plan.skipped.len();
    Ok(Predicate {
        certificate_id: facts.id.clone(),
        sequence: facts.sequence,
        previous_certificate: facts.previous.clone().map(|sha256| Digest { sha256 }),
        issuer: Issuer {
            controller: as_id(&facts.controller),
            agent_id: facts.agent.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            environment: facts.environment.clone(),
        },
        started_at: Timestamp::from(facts.run.begun_at),
        finished_at: Timestamp::from(times.finished),
        issued_at: Timestamp::from(times.issued),
        absence_checked_at: times.checked.map(Timestamp::from),
        absence_valid_until: None,
        clock: ClockQuality { source: "host".to_owned(), max_error_ms: 300_000 },
        result: result_of(facts),
        trigger: trigger(facts),
        policy: policy(facts),
        legal_basis: legal_basis(facts),
        approvals: facts.approvals.clone(),
        scope: Scope {
            targets_declared: declared as u64,
            targets_reached: facts.plan.collections.len() as u64,
            subjects_count: if facts.run.request.is_some() { 1 } else { facts.plan.subjects },
            subject_refs: facts
                .body
                .subject_ref
                .iter()
                .map(|digest| format!("hmac-sha256:{REFERENCE_KEY}:{digest}"))
                .collect(),
            data_categories: data_categories(facts),
        },
        residual_date: residual_date(facts, &targets, &limitations),
        final_since: facts
            .body
            .final_at
            .filter(|_| facts.is_final() && facts.rows_again(None) == 0 && facts.sealed_again.is_empty())
            .map(Timestamp::from),
        targets,
        backup_copies,
        retained,
        recipients: Vec::new(),
        root_slot: Some(facts.root_slot.clone()),
        outside_key: None,
        medium: None,
        lost_medium: None,
        refusal: facts.refusal.clone(),
        limitations,
        supersedes: facts.supersedes.clone(),
        privacy: privacy(),
    })
}

/// How pseudonyms end. One key makes them all, and no end of it is fixed: a date here would be a promise that nobody keeps.
pub(super) fn privacy() -> Privacy {
    Privacy {
        ref_key_id: REFERENCE_KEY.to_owned(),
        ref_key_destroy_at: None,
        scan: PrivacyScan { rules: LINT_RULES.to_owned(), hits: 0 },
    }
}

/// Complete only when rows are gone, none failed, everything was reached and the keys are destroyed.
fn result_of(facts: &Facts) -> ErasureResult {
    let body = &facts.body;
    if facts.refusal.is_some() {
        ErasureResult::Refused
    } else if body.due == 0 && body.skipped.is_empty() {
        ErasureResult::NothingFound
    } else if body.failed > 0 && body.gone() == 0 {
        ErasureResult::Failed
    } else if facts.is_shredded()
        && !facts.is_shred_pending()
        && body.erased + body.anonymised > 0
        && body.failed == 0
        && body.residual == 0
        && facts.rows_again(None) == 0
        && facts.sealed_again.is_empty()
        && body.skipped.is_empty()
        && body.stopped == 0
        && !body.is_residue_pending()
    {
        ErasureResult::Complete
    } else {
        ErasureResult::Partial
    }
}

/// What became of the rows of one collection.
#[derive(Default, Clone, Copy)]
struct Sums {
    erased: u64,
    anonymised: u64,
    stripped: u64,
    kept: u64,
    failed: u64,
}

fn sums(facts: &Facts, store: &str, collection: &str) -> Sums {
    let of = |number: i64| u64::try_from(number).unwrap_or(0);
    let own = facts.chunks.iter().filter(|chunk| chunk.store == store && chunk.collection == collection);
    own.fold(Sums::default(), |sums, chunk| Sums {
        erased: sums.erased + of(chunk.counts.erased),
        anonymised: sums.anonymised + of(chunk.counts.anonymised),
        stripped: sums.stripped + of(chunk.counts.stripped),
        kept: sums.kept + if chunk.verdict == "keep" { of(chunk.rows) } else { of(chunk.counts.kept) },
        failed: sums.failed + of(chunk.counts.failed),
    })
}

fn targets(facts: &Facts) -> Result<Vec<Target>> {
    let times = facts.times();
    let mut targets = Vec::new();
    for counts in &facts.plan.collections {
        let spec = facts
            .spec(&counts.store)
            .ok_or_else(|| TaskError::Inconsistent(format!("store {} is not registered any more", counts.store)))?;
        let sums = sums(facts, &counts.store, &counts.collection);
        let backups = if facts.sealed_again.contains(&counts.store) {
            Backups { state: BackupState::Chain, expires_by: None }
        } else {
            backups(facts, spec.backup, sums.erased + sums.anonymised + sums.stripped > 0)
        };
        let again = facts.rows_again(Some((&counts.store, &counts.collection)));
        let clean = facts.body.is_settled(&counts.store) && again == 0;
        let place = location(&counts.store, &counts.collection);
        targets.push(Target {
            target_id: place.clone(),
            system: match facts.engines.get(&counts.store) {
                Some(Engine::Postgres) => System::Postgresql,
                Some(Engine::Mysql) => System::Mysql,
                _ => System::Sqlite,
            },
            location: place,
            data_category: "registered".to_owned(),
            action: if sums.anonymised > 0 && sums.erased == 0 { Action::Anonymize } else { Action::Delete },
            sanitization: if clean && sums.erased > 0 { Sanitization::Clear } else { Sanitization::None },
            technique: technique(sums).to_owned(),
            tool: format!("wangchuan/{}", env!("CARGO_PKG_VERSION")),
            records_selected: sums.erased + sums.anonymised + sums.stripped + sums.kept + sums.failed,
            records_erased: sums.erased,
            records_anonymized: sums.anonymised,
            records_retained: sums.stripped + sums.kept,
            records_failed: sums.failed,
            objects_erased: 0,
            bytes_erased: 0,
            duration_ms: u64::try_from((times.finished - facts.run.begun_at).num_milliseconds()).unwrap_or(0),
            keys: if backups.state == BackupState::Erased {
                facts.key_evidence.iter().cloned().collect()
            } else {
                Vec::new()
            },
            anonymization: anonymization(facts, counts, sums.anonymised),
            verification: verification(facts, &times, again),
            backups,
            copies: all_copies(facts, spec, sums.erased + sums.anonymised + sums.stripped > 0),
            media: None,
        });
    }
    Ok(targets)
}

/// How rows were done away with.
fn technique(sums: Sums) -> &'static str {
    match (sums.erased > 0, sums.anonymised > 0) {
        (true, true) => "sql-delete-and-update",
        (false, true) => "sql-update",
        _ => "sql-delete",
    }
}

/// What was changed in the anonymised rows of a target, if there are any.
fn anonymization(facts: &Facts, counts: &CollectionCounts, rows: u64) -> Option<Anonymization> {
    let how = |technique: Technique| match technique {
        Technique::Null => AnonymizationTechnique::Null,
        Technique::Fixed => AnonymizationTechnique::Fixed,
        Technique::Mask => AnonymizationTechnique::Mask,
        Technique::Generalise => AnonymizationTechnique::Generalize,
        Technique::Surrogate => AnonymizationTechnique::Random,
    };
    let changed = counts.changes.iter();
    let changed = changed.map(|(field, technique)| AnonymizedField { field: as_id(field), how: how(*technique) });
    let smallest = facts.body.smallest_groups.iter();
    let own = smallest.filter(|group| (&group.store, &group.collection) == (&counts.store, &counts.collection));
    let k_min = own.map(|group| group.rows).min().unwrap_or(0);
    (rows > 0).then(|| Anonymization { changed: changed.collect(), k_min, reversible: false })
}

/// `again`: rows of the target that a later look found again.
fn verification(facts: &Facts, times: &Times, again: u64) -> Verification {
    Verification {
        method: if times.checked.is_some() { VerificationMethod::FullReadback } else { VerificationMethod::None },
        sample_percent: if times.checked.is_some() { 100.0 } else { 0.0 },
        checked_at: times.checked.map(Timestamp::from),
        residual_found: facts.body.residual + again,
        independent: true,
        evidence_sha256: None,
    }
}

/// `touched`: rows of the target were erased or stripped. Of others there is nothing in backups to be erased.
fn backups(facts: &Facts, mode: BackupMode, touched: bool) -> Backups {
    let today = facts.today();
    let undated = |state| Backups { state, expires_by: None };
    let expires = |date| Backups { state: BackupState::Expires, expires_by: Some(date) };
    if mode == BackupMode::None || !touched || (facts.is_shredded() && facts.run.generation.is_none()) {
        return undated(BackupState::None);
    }
    if facts.is_shredded() {
        // A generation without its evidence: the keys are not shown to be gone, and nothing says when they will be.
        return undated(if facts.key_evidence.is_some() { BackupState::Erased } else { BackupState::Chain });
    }
    if facts.is_undone() {
        // What was not put back lives in backups until the keys of its cells die some other day.
        return undated(BackupState::Chain);
    }
    if let Some(date) = facts.irrevocable_by() {
        return expires(date.max(today));
    }
    let grace = facts.run.grace_until.map_or(today, |until| until.date_naive().max(today));
    match &facts.open_until {
        Some(until) => match until.parse::<NaiveDate>() {
            Ok(date) if date >= today => expires(date.max(grace)),
            _ => undated(BackupState::Chain),
        },
        None => expires(grace),
    }
}

/// Targets and reasons as they fit into one certificate: the first ones by themselves, the rest as one target with their
/// sums and the weakest of their claims.
fn fit(targets: Vec<Target>, mut retained: Vec<Retained>) -> Result<(Vec<Target>, Vec<Retained>)> {
    let mut bytes = 0;
    let mut own = Vec::new();
    let mut others: Option<Target> = None;
    let count = targets.len();
    for (number, target) in targets.into_iter().enumerate() {
        bytes += serde_json::to_vec(&target).map_err(proof)?.len();
        // One place is kept for the sum, unless this is the last and there is none.
        let has_place = own.len() + 1 < MAX_TARGETS || (number + 1 == count && others.is_none());
        if bytes <= TARGET_BYTES && has_place && others.is_none() {
            own.push(target);
            continue;
        }
        for entry in retained.iter_mut().filter(|entry| entry.target_id == target.target_id) {
            OTHERS.clone_into(&mut entry.target_id);
        }
        others = Some(match others {
            Some(sum) => joined(sum, target),
            None => Target { target_id: OTHERS.to_owned(), location: OTHERS.to_owned(), ..target },
        });
    }
    own.extend(others);
    let mut merged: Vec<Retained> = Vec::new();
    for entry in retained {
        let same = |known: &&mut Retained| {
            (&known.target_id, known.reason_code, &known.provision)
                == (&entry.target_id, entry.reason_code, &entry.provision)
        };
        match merged.iter_mut().find(same) {
            Some(known) => known.records += entry.records,
            None => merged.push(entry),
        }
    }
    Ok((own, merged))
}

/// Two targets as one: sums, and of every claim the weaker one.
fn joined(mut sum: Target, other: Target) -> Target {
    let rank = weakness;
    sum.records_selected += other.records_selected;
    sum.records_erased += other.records_erased;
    sum.records_anonymized += other.records_anonymized;
    sum.anonymization = match (sum.anonymization.take(), other.anonymization) {
        (Some(mut both), Some(more)) => {
            for field in more.changed.into_iter().filter(|field| !both.changed.contains(field)).collect::<Vec<_>>() {
                both.changed.push(field);
            }
            // 0 where no fields were declared that could tell people apart.
            both.k_min = both.k_min.min(more.k_min);
            both.reversible |= more.reversible;
            Some(both)
        }
        (one, other) => one.or(other),
    };
    sum.records_retained += other.records_retained;
    sum.records_failed += other.records_failed;
    if sum.sanitization != other.sanitization {
        sum.sanitization = Sanitization::None;
    }
    if (rank(&other.backups), other.backups.expires_by) > (rank(&sum.backups), sum.backups.expires_by) {
        sum.backups = other.backups;
    }
    let found = sum.verification.residual_found.max(other.verification.residual_found);
    sum.verification.residual_found = found;
    sum.keys.extend(other.keys);
    sum.keys.dedup();
    for copy in other.copies {
        if !sum.copies.contains(&copy) {
            sum.copies.push(copy);
        }
    }
    sum
}

/// The last date of everything that is dated; none when something is not.
fn residual_date(facts: &Facts, targets: &[Target], limitations: &[Limitation]) -> Option<NaiveDate> {
    if facts.is_final() {
        return None;
    }
    if [Limitation::CopyUnread, Limitation::BackupNotCovered, Limitation::FoundAgain]
        .iter()
        .any(|code| limitations.contains(code))
    {
        return None;
    }
    let today = facts.today();
    let backups = targets.iter().filter_map(|target| target.backups.expires_by);
    let copies = targets.iter().flat_map(|target| target.copies.iter().filter_map(|copy| copy.dies_by));
    // Without backups and copies a pending run still waits for the end of its grace.
    let grace = limitations
        .contains(&Limitation::KeyShredPending)
        .then(|| facts.run.grace_until.map_or(today, |until| until.date_naive()));
    // What is shredded is gone for whoever has not kept a copy of the key service.
    let service = facts.root_slot.reopenable_until;
    backups.chain(copies).chain(grace).chain(service).chain(facts.irrevocable_by()).max().map(|date| date.max(today))
}

fn limitations(facts: &Facts, targets: &[Target]) -> Vec<Limitation> {
    let body = &facts.body;
    let mut codes = vec![Limitation::ClockUnverified, Limitation::LookupKeyNotRotated];
    let mut when = |condition: bool, code| {
        if condition {
            codes.push(code);
        }
    };
    let any_copy = |state| targets.iter().any(|target| target.copies.iter().any(|copy| copy.state == state));
    when(facts.root_slot.class == SlotClass::D, Limitation::RootSlotClassD);
    when(facts.root_slot.class == SlotClass::B, Limitation::RootSlotClassB);
    when(facts.root_slot.class == SlotClass::C, Limitation::RootSlotClassC);
    when(facts.root_slot.class == SlotClass::A, Limitation::RootSlotClassA);
    when(facts.is_shred_pending(), Limitation::KeyShredPending);
    when(facts.is_undone(), Limitation::ErasureUndone);
    when(facts.rows_again(None) > 0, Limitation::FoundAgain);
    when(facts.run.request.is_some(), Limitation::IdentityNotChecked);
    when(targets.iter().any(|target| target.records_retained > 0), Limitation::RowsRetained);
    when(body.failed > 0, Limitation::RowsFailed);
    when(!body.skipped.is_empty() || !facts.plan.skipped.is_empty(), Limitation::TargetsUnreached);
    when(!facts.plan.unregistered.is_empty(), Limitation::TablesNotRegistered);
    let is_left = body.physical.iter().any(|files| files.stage() != PhysicalStage::Settled);
    when(is_left, Limitation::ResidualInDatabaseLog);
    when(body.is_residue_pending(), Limitation::ResiduePending);
    let is_declared = |copy: &DeclaredCopy| copy.state != CopyState::Absent;
    when(targets.iter().any(|target| target.copies.iter().any(is_declared)), Limitation::CopyDeclared);
    when(any_copy(CopyState::Unread), Limitation::CopyUnread);
    when(targets.iter().any(|target| target.backups.state == BackupState::Chain), Limitation::BackupNotCovered);
    when(facts.stores.iter().any(|store| store.backup == BackupMode::None), Limitation::NoBackup);
    when(facts.is_bucket_on_this_host, Limitation::NotOffSite);
    codes.extend(facts.audit_limitation);
    codes.sort_unstable();
    codes.dedup();
    codes
}
