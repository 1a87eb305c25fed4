//! The rules for a certificate about the end of a storage medium, and for copies that ended with one.

use std::collections::BTreeSet;

use super::{CheckError, Result, is_sha256_hex, is_uuid, require};
use crate::certify::statement::{
    Action, CopyState, ErasureResult, Limitation, MediumEnd, Predicate, Sanitization, System, Target,
    VerificationMethod,
};
use crate::policy::media::{Checked, Claim, Method};

/// The version of the members that is known here.
const VERSION: u64 = 1;

pub(super) fn check_medium(predicate: &Predicate) -> Result {
    let told = |code| predicate.limitations.contains(&code);
    for (number, target) in predicate.targets.iter().enumerate() {
        check_copies(target, predicate, &format!("targets/{number}/copies"))?;
    }
    if let Some(lost) = &predicate.lost_medium {
        return super::lost::check_lost(lost, predicate);
    }
    let Some(medium) = &predicate.medium else {
        let own = told(Limitation::MediumDeclared) || told(Limitation::MediumUnverified);
        require(!own, "limitations", "are about a medium, and there is none")?;
        let is_medium = |target: &Target| target.system == System::Media || target.action == Action::SanitizeMedium;
        return require(!predicate.targets.iter().any(is_medium), "medium", "is missing");
    };
    require(medium.version == VERSION, "medium/version", "is none that is known")?;
    require(is_uuid(&medium.record_id), "medium/recordId", "is not a UUID")?;
    require(predicate.outside_key.is_none(), "outsideKey", "stands beside a medium")?;
    require(!medium.of_stores.is_empty(), "medium/ofStores", "name no store")?;
    let evidence = medium.evidence_sha256.as_deref();
    require(evidence.is_none_or(is_sha256_hex), "medium/evidenceSha256", "is not a SHA-256 in hex")?;
    require(medium.sanitized_at == predicate.finished_at, "medium/sanitizedAt", "is not the end of the erasure")?;
    let witnesses = check_people(medium, predicate)?;
    check_target(medium, witnesses, predicate)?;
    require(told(Limitation::MediumDeclared), "limitations", "do not say that the medium is declared")?;
    let unverified = medium.checked == Checked::Nobody;
    require(told(Limitation::MediumUnverified) == unverified, "limitations", "do not say whether somebody looked")?;
    let claims = predicate.result == ErasureResult::Complete;
    require(!(claims && unverified), "result", "is complete although nobody looked")
}

/// A copy that is gone with its medium names the record and its time, which is behind the erasure; any other names none.
fn check_copies(target: &Target, predicate: &Predicate, place: &str) -> Result {
    for copy in &target.copies {
        let named = (copy.media_record.as_deref().is_some_and(is_uuid), copy.destroyed_at.is_some());
        match copy.state {
            CopyState::Destroyed => {
                require(named == (true, true), place, "are destroyed without the record of a medium")?;
                require(copy.dies_by.is_none(), place, "are destroyed and still to die")?;
                let checked = predicate.absence_checked_at;
                let since = checked.is_none_or(|checked| copy.destroyed_at.is_some_and(|at| at >= checked));
                require(since, place, "were destroyed before the rows were gone, and could be made again")?;
            }
            _ => require(copy.media_record.is_none() && copy.destroyed_at.is_none(), place, "name a medium")?,
        }
    }
    Ok(())
}

/// Keyed pseudonyms, all different. How many saw it.
fn check_people(medium: &MediumEnd, predicate: &Predicate) -> std::result::Result<usize, CheckError> {
    let prefix = format!("hmac-sha256:{}:", predicate.privacy.ref_key_id);
    let people: BTreeSet<&String> = medium.witnesses.iter().chain([&medium.performed_by]).collect();
    let keyed = people.iter().all(|person| person.strip_prefix(&prefix).is_some_and(is_sha256_hex));
    require(keyed, "medium/witnesses", "are not keyed pseudonyms under privacy/refKeyId")?;
    let different = people.len() == medium.witnesses.len() + 1;
    require(different, "medium/witnesses", "are one person twice, or who did it")?;
    Ok(medium.witnesses.len())
}

/// One target: the medium. No row is counted as erased by its end.
fn check_target(medium: &MediumEnd, witnesses: usize, predicate: &Predicate) -> Result {
    let [target] = &predicate.targets[..] else {
        return Err(CheckError::new("targets", "must be exactly the medium"));
    };
    let is_medium = target.system == System::Media && target.action == Action::SanitizeMedium && target.media.is_some();
    require(is_medium, "targets/0", "is not the medium")?;
    require(target.objects_erased == 1 && target.records_selected == 0, "targets/0", "counts more than the medium")?;
    require(target.keys.is_empty() && target.copies.is_empty(), "targets/0", "is more than the medium")?;
    let method = match target.sanitization {
        Sanitization::Clear => Method::Clear,
        Sanitization::Purge => Method::Purge,
        Sanitization::Destroy => Method::Destroy,
        Sanitization::None => return Err(CheckError::new("targets/0/sanitization", "is none")),
    };
    let claim = Claim {
        kind: medium.kind,
        method,
        technique: medium.technique,
        always_encrypted: medium.always_encrypted,
        checked: medium.checked,
        witnesses,
        has_evidence: medium.evidence_sha256.is_some(),
    };
    claim.judge().map_err(|misfit| CheckError::new("medium", &format!("claims what cannot be: {misfit}")))?;
    require(target.technique == medium.technique.name(), "targets/0/technique", "is another one")?;
    let looked = match medium.checked {
        Checked::Inspection => VerificationMethod::Inspection,
        Checked::FullRead => VerificationMethod::FullReadback,
        Checked::Nobody => VerificationMethod::None,
    };
    require(target.verification.method == looked, "targets/0/verification", "is another one")
}
