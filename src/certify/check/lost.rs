//! The rules for a certificate about the keys of what lay on a lost medium.

use super::{CheckError, Result, is_sha256_hex, is_uuid, require};
use crate::certify::statement::{
    Action, BackupState, ErasureResult, Limitation, LostMedium, Predicate, Sanitization, System, VerificationMethod,
};

/// The version of the members that is known here.
const VERSION: u64 = 1;

pub(super) fn check_lost(lost: &LostMedium, predicate: &Predicate) -> Result {
    require(lost.version == VERSION, "lostMedium/version", "is none that is known")?;
    require(is_uuid(&lost.record_id), "lostMedium/recordId", "is not a UUID")?;
    let alone = predicate.outside_key.is_none() && predicate.medium.is_none();
    require(alone, "lostMedium", "stands beside another object")?;
    let prefix = format!("hmac-sha256:{}:", predicate.privacy.ref_key_id);
    let is_keyed = lost.reported_by.strip_prefix(&prefix).is_some_and(is_sha256_hex);
    require(is_keyed, "lostMedium/reportedBy", "is not a keyed pseudonym under privacy/refKeyId")?;
    let [target] = &predicate.targets[..] else {
        return Err(CheckError::new("targets", "must be exactly the medium"));
    };
    let is_medium = target.system == System::Media && target.action == Action::CryptoShred && target.media.is_some();
    require(is_medium, "targets/0", "is not the medium")?;
    let counts = target.objects_erased == lost.chains_destroyed && target.records_selected == 0;
    require(counts && lost.chains_destroyed <= lost.chains, "targets/0", "counts more than the chains")?;
    // Who has the medium has what lies on it: without its keys, and no other way.
    require(target.sanitization == Sanitization::None, "targets/0/sanitization", "claims the end of a medium")?;
    let shown = !target.keys.is_empty() && target.keys.iter().all(|key| key.destroyed_at.is_some());
    require(shown, "targets/0/keys", "do not show the end of the keys")?;
    let checked = target.verification.method == VerificationMethod::KeyAbsence;
    require(checked, "targets/0/verification", "is not the absence of the keys")?;
    let all = lost.chains_destroyed == lost.chains;
    let fits = (target.backups.state == BackupState::Erased) == all;
    require(fits, "targets/0/backups", "do not fit the number of chains that open")?;
    require(target.copies.len() == lost.copies.len(), "targets/0/copies", "are not those on the medium")?;
    let told = predicate.limitations.contains(&Limitation::MediumDeclared);
    require(told, "limitations", "do not say that the medium is declared")?;
    let claims = predicate.result == ErasureResult::Complete;
    require(!claims || (all && lost.copies.is_empty()), "result", "is complete although something on the medium opens")
}
