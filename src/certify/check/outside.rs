//! The rules for a certificate about the end of an outside key.

use super::{CheckError, Result, is_sha256_hex, is_uuid, require};
use crate::certify::statement::{
    Action, ErasureResult, Limitation, OutsideKeyEnd, Predicate, Sanitization, SlotClass, System, VerificationMethod,
};

/// The codes that are about outside keys only.
const OWN: [Limitation; 6] = [
    Limitation::OutsideKeyClassB,
    Limitation::OutsideKeyClassC,
    Limitation::OutsideKeyClassD,
    Limitation::OutsideKeyDeclared,
    Limitation::OutsideKeyGoneBefore,
    Limitation::FieldOnceInClear,
];

/// The version of the members that is known here.
const VERSION: u64 = 1;

pub(super) fn check_outside_key(predicate: &Predicate) -> Result {
    let told = |code| predicate.limitations.contains(&code);
    let Some(key) = &predicate.outside_key else {
        return require(!OWN.into_iter().any(told), "limitations", "are about an outside key, and there is none");
    };
    require(key.version == VERSION, "outsideKey/version", "is none that is known")?;
    require(is_uuid(&key.key_id), "outsideKey/keyId", "is not a UUID")?;
    let prefix = format!("hmac-sha256:{}:", predicate.privacy.ref_key_id);
    let is_keyed = key.key_ref.strip_prefix(&prefix).is_some_and(is_sha256_hex);
    require(is_keyed, "outsideKey/keyRef", "is not a keyed pseudonym under privacy/refKeyId")?;
    require(!key.fields.is_empty(), "outsideKey/fields", "name no field")?;
    check_target(predicate)?;
    require(told(Limitation::OutsideKeyDeclared), "limitations", "do not say that the fields are declared")?;
    let fits = told(Limitation::OutsideKeyClassB) == (key.class == SlotClass::B)
        && told(Limitation::OutsideKeyClassC) == (key.class == SlotClass::C)
        && told(Limitation::OutsideKeyClassD) == (key.class == SlotClass::D);
    require(fits, "limitations", "do not fit the class of the outside key")?;
    let gone_before = key.read_back.is_none();
    let fits = told(Limitation::OutsideKeyGoneBefore) == gone_before;
    require(fits, "limitations", "do not fit what the service said of the outside key")?;
    let fits = told(Limitation::FieldOnceInClear) == key.ever_in_clear;
    require(fits, "limitations", "do not say whether the fields were once in clear")?;
    // The end of a key erases nothing that was stored without it, and what others did was not shown here.
    let open = key.ever_in_clear || gone_before;
    let claims = predicate.result == ErasureResult::Complete;
    require(!(claims && open), "result", "is complete although the key is not all that the fields rested on")?;
    check_class(key, predicate)
}

/// One target: the service. No row is counted as erased by the end of a key.
fn check_target(predicate: &Predicate) -> Result {
    let [target] = &predicate.targets[..] else {
        return Err(CheckError::new("targets", "must be exactly the service of the outside key"));
    };
    let is_service = target.system == System::Kms && target.action == Action::CryptoShred;
    require(is_service, "targets/0", "is not the service of the outside key")?;
    let is_one = target.objects_erased == 1 && target.records_selected == 0;
    require(is_one, "targets/0", "counts rows as erased by the end of a key")?;
    let claims = target.sanitization != Sanitization::None;
    require(!claims, "targets/0/sanitization", "claims more than the end of a key in a service")?;
    let shown = target.keys.len() == 1 && target.keys.iter().all(|key| key.destroyed_at.is_some());
    require(shown, "targets/0/keys", "do not show the end of the outside key")?;
    let checked = target.verification.method == VerificationMethod::KeyAbsence;
    require(checked, "targets/0/verification", "is not the absence of the key")
}

/// A service's class needs its word that the key never could leave it, and when copies of the service end.
fn check_class(key: &OutsideKeyEnd, predicate: &Predicate) -> Result {
    require(key.checks.iter().any(|check| check == "key-absent"), "outsideKey/checks", "do not show that it is gone")?;
    if key.class == SlotClass::D {
        return Ok(());
    }
    let said = key.read_back.as_ref();
    let never = said.is_some_and(|said| !said.exportable && !said.allow_plaintext_backup && !said.imported);
    let shown = never && key.checks.iter().any(|check| check == "never-exportable");
    require(shown, "outsideKey/readBack", "does not show that the key never could leave the service")?;
    if key.class == SlotClass::C {
        return check_date(key, predicate);
    }
    let Some(until) = key.reopenable_until else {
        return Err(CheckError::new(
            "outsideKey/reopenableUntil",
            "is missing: copies of the service may hold the key",
        ));
    };
    let covered = match predicate.residual_date {
        Some(date) => date >= until,
        None => super::is_undated(predicate),
    };
    require(covered, "residualDate", "is before copies of the key service end")
}

/// A key that a provider deletes at a date is gone from there on, and no sooner.
fn check_date(key: &OutsideKeyEnd, predicate: &Predicate) -> Result {
    let Some(date) = key.irrevocable_at else {
        return Err(CheckError::new("outsideKey/irrevocableAt", "is missing: until then it could be called off"));
    };
    let mut ends = predicate.targets.iter().flat_map(|target| &target.keys).filter_map(|key| key.destroyed_at);
    require(ends.all(|at| at >= date), "targets/0/keys", "are gone before the date from which on that is irrevocable")
}
