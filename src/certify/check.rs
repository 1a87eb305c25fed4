//! What must hold before a statement is signed, and again when one is read. Pure.
//!
//! A certificate whose numbers do not add up, or whose result says more than its parts, is worse than none.

mod lost;
mod medium;
mod outside;
mod refusal;
mod roll_up;

pub use roll_up::check_roll_up;
use thiserror::Error;

use super::statement::{
    Action, BackupState, CopyState, Digest, ErasureResult, Limitation, PREDICATE_TYPE, Predicate, RootSlot,
    STATEMENT_TYPE, Sanitization, SlotClass, Statement, Target, VerificationMethod, evidence_name,
};

/// The largest signed payload, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;
/// The most targets in one certificate; more go to the evidence file, with totals here.
pub const MAX_TARGETS: usize = 200;
/// Snapshots that a certificate names.
pub const MAX_BACKUP_COPIES: usize = 200;
/// Numbers stay below 2^53, so that every JSON reader keeps them exact.
const MAX_NUMBER: u64 = (1 << 53) - 1;
/// The longest string.
const MAX_ID_BYTES: usize = 256;

/// A rule that a statement breaks. Trying again does not help.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{place} {what}")]
pub struct CheckError {
    /// Where in the statement (a JSON pointer, or a member's name).
    pub place: String,
    /// What is wrong there; never the content.
    pub what: String,
}

impl CheckError {
    pub(super) fn new(place: &str, what: &str) -> Self {
        Self { place: if place.is_empty() { "/".to_owned() } else { place.to_owned() }, what: what.to_owned() }
    }
}

type Result = std::result::Result<(), CheckError>;

fn require(holds: bool, place: &str, what: &str) -> Result {
    if holds { Ok(()) } else { Err(CheckError::new(place, what)) }
}

/// Whether the text is 64 lower-case hex digits.
#[must_use]
pub fn is_sha256_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the text is a UUID in lower case with hyphens.
#[must_use]
pub fn is_uuid(text: &str) -> bool {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => hex(byte),
        })
}

/// Whether the text can be an id: not empty, at most 256 bytes, ASCII letters, digits and `. _ : / + - ( ) % { } *`.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/+-()%{}*".contains(&byte);
    !text.is_empty() && text.len() <= MAX_ID_BYTES && text.bytes().all(allowed)
}

/// A name as an id: other characters than id characters percent-encoded (UTF-8), so that a copy called 月度 can be named. A
/// name that is too long for an id, or empty, becomes `sha256-` and its digest.
#[must_use]
pub fn as_id(name: &str) -> String {
    if is_id(name) { name.to_owned() } else { fitting(encode(name, b"._:/+-()"), name) }
}

/// A target's location: registered names of the store and the collection, other characters than id characters
/// percent-encoded (UTF-8), so that a table called 客户 can be named. Too long a one becomes `sha256-` and its digest.
#[must_use]
pub fn location(store: &str, collection: &str) -> String {
    let place = format!("{}/{}", encode(store, b"._-"), encode(collection, b"._-"));
    let long = place.clone();
    fitting(place, &long)
}

fn encode(name: &str, plain: &[u8]) -> String {
    name.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([byte]));
        }
        out
    })
}

fn fitting(encoded: String, name: &str) -> String {
    if is_id(&encoded) { encoded } else { format!("sha256-{}", hex::encode(crate::log::tree::sha256(name.as_bytes()))) }
}

/// The payload's size.
pub(super) fn check_size(bytes: usize) -> Result {
    require(bytes <= MAX_PAYLOAD_BYTES, "/", "is larger than 256 KiB")
}

/// All rules but the size and the scan for personal data.
pub fn check(statement: &Statement) -> Result {
    require(statement.statement_type == STATEMENT_TYPE, "_type", "is not in-toto Statement v1")?;
    require(statement.predicate_type == PREDICATE_TYPE, "predicateType", "is not erasure v1")?;
    let predicate = &statement.predicate;
    let [subject] = &statement.subject[..] else {
        return Err(CheckError::new("subject", "must be exactly the evidence file"));
    };
    require(is_uuid(&predicate.certificate_id), "certificateId", "is not a UUID")?;
    require(subject.name == evidence_name(&predicate.certificate_id), "subject", "names another evidence file")?;
    check_digest(&subject.digest, "subject/digest")?;
    check_identity(predicate)?;
    check_times(predicate)?;
    require(predicate.targets.len() <= MAX_TARGETS, "targets", "are more than 200")?;
    for (number, target) in predicate.targets.iter().enumerate() {
        check_target(target, &format!("targets/{number}"))?;
    }
    check_scope(predicate)?;
    check_retained(predicate)?;
    check_undated(predicate)?;
    check_backup_copies(predicate)?;
    check_root_slot(predicate)?;
    check_final(predicate)?;
    outside::check_outside_key(predicate)?;
    medium::check_medium(predicate)?;
    check_result(predicate)?;
    refusal::check_refusal(predicate)
}

fn check_digest(digest: &Digest, place: &str) -> Result {
    require(is_sha256_hex(&digest.sha256), place, "is not a SHA-256 in hex")
}

/// A number from 1 on, and the certificate before it.
fn check_place(sequence: u64, previous: Option<&Digest>) -> Result {
    require((1..=MAX_NUMBER).contains(&sequence), "sequence", "is not a number from 1")?;
    match previous {
        None => require(sequence == 1, "previousCertificate", "is missing"),
        Some(digest) => {
            require(sequence > 1, "previousCertificate", "stands in the first certificate")?;
            check_digest(digest, "previousCertificate")
        }
    }
}

fn check_identity(predicate: &Predicate) -> Result {
    check_place(predicate.sequence, predicate.previous_certificate.as_ref())?;
    if let Some(policy) = &predicate.policy {
        check_digest(&policy.digest, "policy/digest")?;
        let period = policy.retention_period.as_deref();
        require(period.is_none_or(is_iso_duration), "policy/retentionPeriod", "is not an ISO 8601 duration")?;
    }
    if let Some(supersedes) = &predicate.supersedes {
        let other = supersedes.certificate_id != predicate.certificate_id && is_uuid(&supersedes.certificate_id);
        require(other, "supersedes", "does not name another certificate")?;
    }
    require(predicate.privacy.scan.hits == 0, "privacy/scan", "found personal data")?;
    let mut limitations = predicate.limitations.clone();
    limitations.sort_unstable();
    limitations.dedup();
    require(limitations.len() == predicate.limitations.len(), "limitations", "name a code twice")
}

/// `P`, then years, months, weeks, days in this order, or hours, minutes, seconds after `T`.
fn is_iso_duration(text: &str) -> bool {
    let parts = |text: &str, units: &str| {
        let mut left = units;
        let mut digits = 0;
        for c in text.chars() {
            if c.is_ascii_digit() {
                digits += 1;
            } else {
                let Some(at) = left.find(c) else { return false };
                if digits == 0 {
                    return false;
                }
                left = &left[at + 1..];
                digits = 0;
            }
        }
        digits == 0
    };
    let Some(rest) = text.strip_prefix('P').filter(|rest| !rest.is_empty()) else { return false };
    match rest.split_once('T') {
        None => parts(rest, "YMWD"),
        Some((date, time)) => parts(date, "YMWD") && !time.is_empty() && parts(time, "HMS"),
    }
}

fn check_times(predicate: &Predicate) -> Result {
    let (started, finished, issued) = (predicate.started_at, predicate.finished_at, predicate.issued_at);
    require(started <= finished, "finishedAt", "is before startedAt")?;
    require(finished <= issued, "issuedAt", "is before finishedAt")?;
    if let Some(checked) = predicate.absence_checked_at {
        require(started <= checked && checked <= issued, "absenceCheckedAt", "is not between start and issue")?;
    }
    if let Some(until) = predicate.absence_valid_until {
        let checked = predicate.absence_checked_at.is_some_and(|checked| checked <= until);
        require(checked, "absenceValidUntil", "is before the check, or there was none")?;
    }
    let residual = predicate.residual_date;
    let today = issued.instant().date_naive();
    require(residual.is_none_or(|date| date >= today), "residualDate", "is before the issue")
}

fn check_target(target: &Target, place: &str) -> Result {
    let at = |member: &str| format!("{place}/{member}");
    let counts = [target.records_erased, target.records_anonymized, target.records_retained, target.records_failed];
    let numbers = [target.records_selected, target.objects_erased, target.bytes_erased, target.duration_ms];
    let small = counts.iter().chain(&numbers).all(|number| *number <= MAX_NUMBER);
    require(small, place, "has a number beyond 2^53")?;
    let reconciled = counts.iter().sum::<u64>() == target.records_selected;
    require(reconciled, &at("recordsSelected"), "is not the sum of erased, anonymized, retained and failed")?;
    for key in &target.keys {
        require(is_sha256_hex(&key.key_id_sha256), &at("keys"), "have an id that is not a SHA-256 in hex")?;
    }
    // NIST SP 800-88 Rev. 2 §3.2: a destroyed key purges only when no copy of it is left.
    let no_key_left = !target.keys.is_empty()
        && target.keys.iter().all(|key| key.destroyed_at.is_some() && key.copies_known == 0 && !key.escrow);
    let purge = target.action == Action::CryptoShred && target.sanitization == Sanitization::Purge;
    require(!purge || no_key_left, &at("sanitization"), "claims a purge although a key may be left")?;
    let irreversible = target.anonymization.as_ref().is_some_and(|done| !done.reversible);
    require(target.records_anonymized == 0 || irreversible, &at("anonymization"), "is missing or reversible")?;
    let verification = &target.verification;
    let percent = (0.0..=100.0).contains(&verification.sample_percent);
    require(percent, &at("verification/samplePercent"), "is not between 0 and 100")?;
    let checked = (verification.method == VerificationMethod::None) == verification.checked_at.is_none();
    require(checked, &at("verification/checkedAt"), "does not fit the method")?;
    let evidence = verification.evidence_sha256.as_deref();
    require(evidence.is_none_or(is_sha256_hex), &at("verification/evidenceSha256"), "is not a SHA-256 in hex")?;
    let dated = target.backups.state != BackupState::Expires || target.backups.expires_by.is_some();
    require(dated, &at("backups/expiresBy"), "is missing")?;
    let undated = target.backups.state != BackupState::Chain || target.backups.expires_by.is_none();
    require(undated, &at("backups/expiresBy"), "promises an end that the state does not know")?;
    let shown = target.backups.state != BackupState::Erased || target.keys.iter().any(|key| key.destroyed_at.is_some());
    require(shown, &at("keys"), "do not show the destruction that the state of the backups claims")?;
    let copies_dated = target.copies.iter().all(|copy| copy.state != CopyState::Expires || copy.dies_by.is_some());
    require(copies_dated, &at("copies"), "have no date by which they die")
}

fn has_undated_backup(target: &Target) -> bool {
    target.backups.state == BackupState::Chain
}

fn has_undated_copy(target: &Target) -> bool {
    target.copies.iter().any(|copy| copy.state == CopyState::Unread && copy.dies_by.is_none())
}

/// What may stay readable without an end is admitted, and no residual date stands beside it.
fn check_undated(predicate: &Predicate) -> Result {
    let told = |code| predicate.limitations.contains(&code);
    let unread = |target: &Target| target.copies.iter().any(|copy| copy.state == CopyState::Unread);
    let copies = predicate.targets.iter().any(unread);
    require(!copies || told(Limitation::CopyUnread), "limitations", "do not say that copies were not read")?;
    let backups = predicate.targets.iter().any(has_undated_backup);
    let admitted = told(Limitation::BackupNotCovered);
    require(!backups || admitted, "limitations", "do not say that backups stay readable without a known end")?;
    let promised = predicate.residual_date.is_some() && is_undated(predicate);
    require(!promised, "residualDate", "is promised although something has no known end")
}

/// Whether something may stay readable for which no date can be given.
fn is_undated(predicate: &Predicate) -> bool {
    predicate.targets.iter().any(|target| has_undated_backup(target) || has_undated_copy(target))
}

/// Of no snapshot more is claimed than of the backups of its store.
fn check_backup_copies(predicate: &Predicate) -> Result {
    let copies = &predicate.backup_copies;
    require(copies.len() <= MAX_BACKUP_COPIES, "backupCopies", "are more than 200")?;
    for (number, copy) in copies.iter().enumerate() {
        let place = format!("backupCopies/{number}");
        let ids = [&copy.store, &copy.snapshot, &copy.kind];
        require(ids.into_iter().all(|id| is_id(id)), &place, "is not named by ids")?;
        let twice = copies[..number].iter().any(|other| other.snapshot == copy.snapshot);
        require(!twice, &place, "stands twice")?;
        let is_claimed =
            |target: &Target| (target.backups.state, target.backups.expires_by) == (copy.state, copy.expires_by);
        require(predicate.targets.iter().any(is_claimed), &place, "claims what no target does")?;
    }
    Ok(())
}

fn check_scope(predicate: &Predicate) -> Result {
    let scope = &predicate.scope;
    require(scope.targets_reached <= scope.targets_declared, "scope/targetsReached", "is more than declared")?;
    let small = scope.targets_declared <= MAX_NUMBER && scope.subjects_count <= MAX_NUMBER;
    require(small, "scope", "has a number beyond 2^53")?;
    let keyed = |reference: &String| {
        let parts = reference.strip_prefix("hmac-sha256:").and_then(|rest| rest.split_once(':'));
        parts.is_some_and(|(key, digest)| key == predicate.privacy.ref_key_id && is_sha256_hex(digest))
    };
    let all_keyed = scope.subject_refs.iter().all(keyed);
    require(all_keyed, "scope/subjectRefs", "are not keyed pseudonyms under privacy/refKeyId")
}

fn check_retained(predicate: &Predicate) -> Result {
    for target in &predicate.targets {
        let entries = predicate.retained.iter().filter(|kept| kept.target_id == target.target_id);
        let explained = entries.fold(0, |sum: u64, kept| sum.saturating_add(kept.records));
        let place = format!("retained/{}", if is_id(&target.target_id) { &target.target_id } else { "?" });
        require(explained == target.records_retained, &place, "does not explain the target's retained rows")?;
    }
    let known = |id: &str| predicate.targets.iter().any(|target| target.target_id == id);
    let all_known = predicate.retained.iter().all(|kept| known(&kept.target_id));
    require(all_known, "retained", "names a target that is not there")
}

/// A file slot destroys only on this host, a service only in itself; whoever relies on it must read that.
fn check_root_slot(predicate: &Predicate) -> Result {
    let relies = |target: &Target| {
        target.action == Action::CryptoShred || target.backups.state == BackupState::Erased || !target.keys.is_empty()
    };
    // An outside key rests on a service of its own.
    if predicate.outside_key.is_some() || !predicate.targets.iter().any(relies) {
        return Ok(());
    }
    let slot = predicate.root_slot.as_ref().ok_or_else(|| CheckError::new("rootSlot", "is missing"))?;
    let told = predicate.limitations.contains(&Limitation::RootSlotClassD);
    require((slot.class == SlotClass::D) == told, "limitations", "do not fit the class of the root slot")?;
    let told = predicate.limitations.contains(&Limitation::RootSlotClassB);
    require((slot.class == SlotClass::B) == told, "limitations", "do not fit the class of the root slot")?;
    let told = predicate.limitations.contains(&Limitation::RootSlotClassA);
    require((slot.class == SlotClass::A) == told, "limitations", "do not fit the class of the root slot")?;
    let told = predicate.limitations.contains(&Limitation::RootSlotClassC);
    require((slot.class == SlotClass::C) == told, "limitations", "do not fit the class of the root slot")?;
    check_read_back(slot, predicate)?;
    check_irrevocable(slot, predicate)
}

/// A destruction that can be called off until a date counts only behind that date, and with the service's word that the key is gone.
fn check_irrevocable(slot: &RootSlot, predicate: &Predicate) -> Result {
    let mut keys = predicate.targets.iter().flat_map(|target| &target.keys).peekable();
    if slot.class != SlotClass::C || keys.peek().is_none() {
        return Ok(());
    }
    let shown =
        ["service-read-back", "never-exportable"].iter().all(|code| slot.checks.iter().any(|check| check == code));
    require(shown, "rootSlot/checks", "do not show that the key is gone and never left the service")?;
    let at = slot.irrevocable_at.as_ref().ok_or_else(|| CheckError::new("rootSlot/irrevocableAt", "is missing"))?;
    let is_past = keys.all(|key| key.destroyed_at.as_ref().is_some_and(|destroyed| destroyed >= at));
    require(is_past, "rootSlot/irrevocableAt", "is later than the destruction that is claimed")
}

/// The class of a service or token needs its word: the key is gone, it never left, and when copies of the service end.
fn check_read_back(slot: &RootSlot, predicate: &Predicate) -> Result {
    let destroyed = predicate.targets.iter().any(|target| !target.keys.is_empty());
    if !matches!(slot.class, SlotClass::A | SlotClass::B) || !destroyed {
        return Ok(());
    }
    let by_token = slot.token.as_ref().is_some_and(|found| {
        found.never_extractable && found.always_sensitive && found.local && found.objects_left == 0
    });
    let by_service = slot.read_back.as_ref().is_some_and(|found| {
        found.min_available_version > found.key_version && !found.exportable && !found.allow_plaintext_backup
    });
    let (shown, place) = match slot.token {
        Some(_) => (by_token, "rootSlot/token"),
        None => (by_service, "rootSlot/readBack"),
    };
    require(shown, place, "does not show that the key is gone and never left the service")?;
    if slot.class == SlotClass::A {
        return Ok(());
    }
    let until = slot.reopenable_until;
    require(until.is_some(), "rootSlot/reopenableUntil", "is missing: copies of the service may still hold the key")?;
    // What is final has no date to come; that this one is past is checked there.
    let undated = is_undated(predicate) || predicate.limitations.contains(&Limitation::FoundAgain);
    let covered = predicate.residual_date.map_or(undated, |date| until.is_none_or(|until| date >= until));
    require(covered || predicate.final_since.is_some(), "residualDate", "is before copies of the key service end")
}

/// What may not be said beside `finalSince`: each means that something opens still, or has no end.
const NOT_FINAL: [Limitation; 7] = [
    Limitation::KeyShredPending,
    Limitation::ResiduePending,
    Limitation::ErasureUndone,
    Limitation::FoundAgain,
    Limitation::RootSlotClassD,
    Limitation::CopyUnread,
    Limitation::BackupNotCovered,
];

/// Final is more than any other claim: the date of everything that is dated is past, and nothing is without a date.
fn check_final(predicate: &Predicate) -> Result {
    let Some(since) = predicate.final_since else { return Ok(()) };
    require(since <= predicate.issued_at, "finalSince", "is after the issue")?;
    require(predicate.finished_at <= since, "finalSince", "is before the erasure ended")?;
    let told = NOT_FINAL.into_iter().any(|code| predicate.limitations.contains(&code));
    require(!told && !is_undated(predicate), "finalSince", "is said although something opens or has no known end")?;
    require(predicate.residual_date.is_none(), "finalSince", "stands beside a residual date that is to come")?;
    let day = since.instant().date_naive();
    let copies = predicate.targets.iter().flat_map(|target| &target.copies).map(|copy| copy.dies_by);
    let slot = predicate.root_slot.as_ref().and_then(|slot| slot.reopenable_until);
    let past = copies.flatten().chain(slot).all(|date| date < day);
    require(past, "finalSince", "is said before the date of a copy is past")?;
    let destroyed = |target: &Target| {
        matches!(target.backups.state, BackupState::Erased | BackupState::None)
            && target.keys.iter().all(|key| key.destroyed_at.is_some())
    };
    require(predicate.targets.iter().all(destroyed), "finalSince", "is said although backups still open")
}

fn check_result(predicate: &Predicate) -> Result {
    let sum = |of: fn(&Target) -> u64| predicate.targets.iter().map(of).fold(0, u64::saturating_add);
    let rows = sum(|target| target.records_erased).saturating_add(sum(|target| target.records_anonymized));
    // The end of an outside key or a medium erases no row: it is the object itself.
    let objects = if predicate.is_of_object() { sum(|target| target.objects_erased) } else { 0 };
    let done = rows.saturating_add(objects);
    let failed = sum(|target| target.records_failed);
    let kept = sum(|target| target.records_retained);
    let told = |code| predicate.limitations.contains(&code);
    let unreached = predicate.scope.targets_reached < predicate.scope.targets_declared;
    let pending = told(Limitation::KeyShredPending);
    let again = told(Limitation::FoundAgain);
    let dated = predicate.residual_date.is_some() || is_undated(predicate) || again;
    let found = sum(|target| target.verification.residual_found) > 0;
    require(!again || found, "limitations", "say that rows were found again, and none is counted")?;
    let lives = again && predicate.residual_date.is_some();
    require(!lives, "residualDate", "is promised although rows are there again")?;
    require(kept == 0 || told(Limitation::RowsRetained), "limitations", "do not say that rows were retained")?;
    require(failed == 0 || told(Limitation::RowsFailed), "limitations", "do not say that rows failed")?;
    require(!unreached || told(Limitation::TargetsUnreached), "limitations", "do not say that targets were missed")?;
    require(!pending || dated, "residualDate", "is missing although keys are still to be destroyed")?;
    match predicate.result {
        ErasureResult::Complete => {
            require(done > 0, "result", "is complete although nothing was erased")?;
            check_complete(predicate)
        }
        ErasureResult::Partial => {
            // What a device is worth is no reason why something was left.
            let why = predicate.limitations.iter().any(|code| *code != Limitation::RootSlotClassA);
            require(why, "result", "is partial without a limitation that says why")
        }
        ErasureResult::NothingFound => {
            let empty = sum(|target| target.records_selected) == 0 && !unreached;
            require(empty, "result", "is nothing-found although something was due, or was not looked at")
        }
        ErasureResult::Refused => require(done == 0, "result", "is refused although rows were erased"),
        ErasureResult::Failed => require(failed > 0 || unreached, "result", "is failed although nothing failed"),
    }
}

fn check_complete(predicate: &Predicate) -> Result {
    let told = |code| predicate.limitations.contains(&code);
    let unfinished = [
        Limitation::KeyShredPending,
        Limitation::ResiduePending,
        Limitation::FoundAgain,
        Limitation::RowsFailed,
        Limitation::TargetsUnreached,
    ];
    let finished = unfinished.into_iter().all(|code| !told(code));
    require(finished, "result", "is complete although something is pending, failed or unreached")?;
    require(!predicate.targets.is_empty(), "result", "is complete without a target")?;
    let dated = predicate.residual_date.is_some() || predicate.final_since.is_some() || is_undated(predicate);
    for (number, target) in predicate.targets.iter().enumerate() {
        let place = format!("targets/{number}");
        let verification = &target.verification;
        require(target.records_failed == 0, &place, "has failed rows in a complete erasure")?;
        let checked = verification.method != VerificationMethod::None && verification.residual_found == 0;
        require(checked, &place, "was not checked, or something was found, in a complete erasure")?;
        let destroyed = target.keys.iter().all(|key| key.destroyed_at.is_some());
        require(destroyed, &place, "has keys that are not destroyed in a complete erasure")?;
        require(!has_undated_backup(target), &place, "has backups without a known end in a complete erasure")?;
        let readable = matches!(target.backups.state, BackupState::Expires | BackupState::ReplayedOnRestore);
        let admitted = told(Limitation::BackupNotCovered) && predicate.residual_date.is_some();
        require(!readable || admitted, &place, "has readable backups in a complete erasure without saying so")?;
        let copies = target.copies.iter().any(|copy| !matches!(copy.state, CopyState::Absent | CopyState::Destroyed));
        let admitted = told(Limitation::CopyDeclared) && dated;
        require(!copies || admitted, &place, "has living copies in a complete erasure without saying so")?;
    }
    Ok(())
}
