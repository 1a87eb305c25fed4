//! What a certificate says of the root slot: which root a run's keys lay under, when it was destroyed, and what that is worth.

use chrono::{DateTime, Days, NaiveDate, Utc};

use crate::certify::codes::SlotClass;
use crate::certify::statement::{KeyEvidence, RootSlot, SlotReadBack, SlotToken, Timestamp};
use crate::control::{RunRow, Tx};
use crate::installation::Installation;
use crate::keys::slot::{self, GoneEvidence, RootEvidence, SlotClaim};
use crate::tasks::{Result, TaskError};

/// The destroyed root of the run's own generation change, and the slot that it was destroyed in. Without one, before the change
/// is finished, or when the destruction on record is older than the run and so cannot be of its keys, the slot is the
/// configured one.
///
/// What was sealed for the run itself may have gone with a later generation, `forgotten`: then the slot answers for that as well,
/// once it can no longer be called off; until then only the date of that is told.
pub(super) async fn root_facts(
    installation: &Installation,
    tx: &mut Tx,
    run: &RunRow,
    forgotten: Option<i64>,
) -> Result<(Option<KeyEvidence>, RootSlot, Option<DateTime<Utc>>)> {
    let claim = installation.keyring.slot().claim();
    let (mut destroyed, mut slot) = match run.generation {
        Some(generation) => root_end(tx, run.begun_at, generation, &claim).await?.unzip(),
        None => (None, None),
    };
    let mut lists_irrevocable_at = None;
    if let Some(forgotten) =
        forgotten.filter(|forgotten| run.generation.is_none_or(|generation| *forgotten > generation))
    {
        match root_end(tx, run.begun_at, forgotten, &claim).await? {
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
pub(super) type RootEnd = (Option<(DateTime<Utc>, String)>, RootSlot);

/// When the root before a generation was destroyed and in what kind of slot, and what the weakest destruction so far is worth; none for a
/// destruction before `since`. While one of them can be called off, only until when: in the slot that is configured, with its `claim`.
pub(super) async fn root_end(
    tx: &mut Tx,
    since: DateTime<Utc>,
    generation: i64,
    claim: &SlotClaim,
) -> Result<Option<RootEnd>> {
    let Some((at, _)) = tx.rekey_evidence(generation).await? else { return Ok(None) };
    let at: DateTime<Utc> = crate::control::parse_time(&at)?;
    if at < since {
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
pub(super) fn reopenable_until(at: DateTime<Utc>, claim: &SlotClaim) -> Option<NaiveDate> {
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

pub(super) fn key_evidence(
    installation: &[u8; 16],
    generation: i64,
    destroyed_at: DateTime<Utc>,
    kms: &str,
) -> KeyEvidence {
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
