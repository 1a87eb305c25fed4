//! Roots whose slot destroys them only at a date.
//!
//! A generation change does not wait for that date: it notes the root as doomed and ends, so that the next one can begin. Until
//! the slot reads the root back as gone, at or after the date, nothing that only it could open counts as shredded. Whoever has the
//! right can call the destruction off meanwhile; that is noticed at every look, and it is begun again with a new date.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Fence, Keyring, KeyringError, Result};
use crate::control::{Control, DoomedRoot, Tx};
use crate::crash_point;
use crate::keys::slot::{DestroyEvidence, DestroyStep, GoneCheck, GoneEvidence, RootEvidence, SlotError};

/// What the slot says of a doomed root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It is read back as gone, and its date is past.
    Gone(GoneEvidence),
    /// It waits for this date.
    Waits(DateTime<Utc>),
    /// Somebody called its destruction off: it can be used again, or could be after being switched on.
    CalledOff,
    /// The slot cannot speak for it: the service that holds it is not configured any more, or it vanished before its date.
    Unknown(&'static str),
}

/// The answers of a service may round the same date differently.
const SAME_DATE: TimeDelta = TimeDelta::minutes(1);

fn is_same(date: DateTime<Utc>, other: DateTime<Utc>) -> bool {
    (date - other).abs() < SAME_DATE
}

/// Looks at one doomed root. Changes nothing.
///
/// # Errors
/// When the slot cannot be asked.
pub async fn look(keyring: &Keyring, root: &DoomedRoot, now: DateTime<Utc>) -> Result<Look> {
    match keyring.slot.verify_gone(root.generation).await {
        // Another slot than the one that destroys it never had it, and knows nothing.
        Ok(gone) if !gone.checks.contains(&GoneCheck::ServiceReadBack) => Ok(Look::Unknown(
            "the configured slot is not the one that destroys it; describe that one under [root.previous]",
        )),
        Ok(_) if now < root.irrevocable_at => Ok(Look::Unknown("the service lost it before its date")),
        Ok(gone) => Ok(Look::Gone(gone)),
        Err(SlotError::NotYet { at, .. }) if is_same(at, root.irrevocable_at) => Ok(Look::Waits(root.irrevocable_at)),
        Err(SlotError::NotYet { at, .. }) => Ok(Look::Waits(at)),
        Err(SlotError::StillThere { .. }) => Ok(Look::CalledOff),
        Err(error) => Err(error.into()),
    }
}

/// Begins the destruction of a root again that somebody called off.
///
/// # Errors
/// When the slot or the control database fails; a repeated call finishes.
pub async fn begin_again(
    keyring: &Keyring,
    control: &Control,
    fence: &Fence<'_>,
    generation: i64,
    now: DateTime<Utc>,
) -> Result<()> {
    let done = keyring.slot.destroy(generation).await?;
    crash_point::reached("rekey.root-doomed-again");
    let mut tx = control.begin().await?;
    fence.require(&mut tx, now).await?;
    // Gone at once: the next look reads that back.
    if done.irrevocable_at.is_some() {
        doom(&mut tx, &done, now).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Notes that the date of a doomed root is another one now: somebody called it off and began it again with another period.
///
/// # Errors
/// When the control database fails.
pub async fn note_date(
    control: &Control,
    fence: &Fence<'_>,
    root: &DoomedRoot,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<()> {
    let mut tx = control.begin().await?;
    fence.require(&mut tx, now).await?;
    tx.put_doomed_root(&DoomedRoot { irrevocable_at: at, called_off: root.called_off + 1, ..root.clone() }).await?;
    tx.commit().await?;
    Ok(())
}

/// Stores the evidence that a doomed root is gone. Only from here on is what it alone could open shredded.
///
/// # Errors
/// When the control database fails or its record is damaged.
pub async fn note_gone(
    control: &Control,
    fence: &Fence<'_>,
    root: &DoomedRoot,
    gone: GoneEvidence,
    now: DateTime<Utc>,
) -> Result<()> {
    let damaged = || KeyringError::Contradiction(format!("the record of doomed root {} is damaged", root.generation));
    let destroyed: DestroyEvidence = serde_json::from_str(&root.destroyed).map_err(|_| damaged())?;
    let evidence = serde_json::to_string(&RootEvidence::new(destroyed, gone)).map_err(|_| damaged())?;
    let mut tx = control.begin().await?;
    fence.require(&mut tx, now).await?;
    tx.put_doomed_root(&DoomedRoot { gone_at: Some(now), evidence: Some(evidence), ..root.clone() }).await?;
    tx.commit().await?;
    crash_point::reached("rekey.doomed-root-gone");
    Ok(())
}

/// Notes a root whose destruction was begun. One that was noted before and had to be begun anew was called off meanwhile.
pub(super) async fn doom(tx: &mut Tx, done: &DestroyEvidence, now: DateTime<Utc>) -> Result<()> {
    let Some(irrevocable_at) = done.irrevocable_at else { return Ok(()) };
    let known = tx.doomed_roots().await?.into_iter().find(|root| root.generation == done.generation);
    let begun_anew = done.steps.contains(&DestroyStep::ServiceScheduled);
    let damaged = |_| KeyringError::Contradiction("the evidence of a destruction cannot be written".to_owned());
    let destroyed = serde_json::to_string(done).map_err(damaged)?;
    let root = match known {
        None => DoomedRoot {
            generation: done.generation,
            begun_at: now,
            irrevocable_at,
            called_off: 0,
            told: 0,
            destroyed,
            gone_at: None,
            evidence: None,
        },
        Some(known) => {
            let is_called_off = begun_anew || !is_same(known.irrevocable_at, irrevocable_at) || known.gone_at.is_some();
            let called_off = known.called_off + i64::from(is_called_off);
            // The first evidence tells more: what was on this host is wiped by now.
            let destroyed = if is_called_off { with_date(&known.destroyed, done) } else { known.destroyed };
            let irrevocable_at = if is_called_off { irrevocable_at } else { known.irrevocable_at };
            DoomedRoot { irrevocable_at, called_off, destroyed, gone_at: None, evidence: None, ..known }
        }
    };
    tx.put_doomed_root(&root).await?;
    Ok(())
}

/// The evidence of the first destruction with the date of the newest.
fn with_date(first: &str, newest: &DestroyEvidence) -> String {
    let evidence = match serde_json::from_str::<DestroyEvidence>(first) {
        Ok(first) => DestroyEvidence { irrevocable_at: newest.irrevocable_at, ..first },
        Err(_) => newest.clone(),
    };
    serde_json::to_string(&evidence).unwrap_or_else(|_| first.to_owned())
}
