//! Outside keys: an application seals single fields with keys of a key service, and the agent destroys those keys when their
//! time is over, with evidence and a certificate.
//!
//! A key falls due only when no living row relies on it: the eraser has deleted the rows first, so the end of a key is never
//! the only thing that is done to a field (`outside/rows.rs`). From then on it waits as long as anything that was erased can be
//! put back, and while a hold covers its fields or its subject (`outside/judge.rs`). Destroying it is a small saga of its own
//! (`outside/destroy.rs`): an intent with what the service said of the key, the deletion, a look that finds it absent, the
//! outcome. After a failure or a crash the next pass asks the service which of the two happened. A service that deletes only at a
//! date is asked by every pass until it does not know the key any more (`outside/doomed.rs`).
//!
//! One key that cannot be looked after does not keep back the others: it says why it waits.

mod destroy;
mod doomed;
mod judge;
mod record;
mod register;
mod rows;

use chrono::{DateTime, Utc};

use crate::config::{BoundTo, OutsideKey};
use crate::control::OutsideKeyRow;
use crate::erase::EraseError;
use crate::installation::Installation;
use crate::keyring::Purpose;
use crate::keys::Key;
use crate::keys::outside::KeyFacts;
use crate::random::uuid7;

use super::undo::expire_pre_images;
use super::{Result, TaskError};
use destroy::Tended;
use record::place_mac;

pub use record::{Declared, OutsideBody, OutsideWait, Waiting};
pub use register::{Registered, register, unregister};

/// What a pass over all outside keys did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutsideReport {
    /// Keys that were read back as gone, by id.
    pub destroyed: Vec<String>,
    /// Keys that wait: id, name of their entry, why. Those that are in use are left out.
    pub waiting: Vec<(String, String, Waiting)>,
}

/// Looks after every outside key, and destroys what is due.
///
/// # Errors
/// Refused when destruction is held or the clock is doubtful; when the control database fails. What fails with one key is in
/// the report.
pub async fn destroy_outside_keys(installation: &Installation) -> Result<OutsideReport> {
    let mut report = OutsideReport::default();
    if installation.config.outside_keys.is_empty()
        && installation.control.read().await?.outside_keys().await?.is_empty()
    {
        return Ok(report);
    }
    installation.may_destroy().await?;
    expire_pre_images(installation).await?;
    let lookup = adopt(installation).await?;
    let rows = installation.control.read().await?.outside_keys().await?;
    for row in rows.into_iter().filter(|row| !matches!(row.state.as_str(), "destroyed" | "released")) {
        installation.may_destroy().await?;
        let (id, name) = (row.id.clone(), row.name.clone());
        match destroy::tend(installation, &lookup, row).await? {
            Tended::Destroyed => report.destroyed.push(id),
            Tended::Waits(waiting) if waiting.code.is_in_use() => {}
            Tended::Waits(waiting) => report.waiting.push((id, name, waiting)),
        }
    }
    Ok(report)
}

/// Registers the keys that the configuration binds to policies and that are not known yet. Returns the key of digests.
async fn adopt(installation: &Installation) -> Result<Key> {
    let mut tx = installation.control.begin().await?;
    let known = tx.outside_keys().await?;
    let lookup = installation.keyring.work_key(&mut tx, Purpose::Lookup, "").await?;
    for spec in &installation.config.outside_keys {
        let BoundTo::Policy { key, .. } = &spec.bound else { continue };
        let mac = place_mac(&lookup, spec, key);
        if known.iter().any(|row| row.name == spec.name && row.place_mac == mac && row.state != "released") {
            continue;
        }
        let now = installation.clock.now();
        tx.add_outside_key(&OutsideKeyRow {
            id: uuid7(now, installation.random.as_ref())?,
            name: spec.name.clone(),
            lookup: None,
            place_mac: mac,
            sealed: Vec::new(),
            state: "active".to_owned(),
            registered_at: now,
            ended_at: None,
            due_at: None,
            destroyed_at: None,
            body: OutsideBody::default().text()?,
        })
        .await?;
    }
    tx.commit().await?;
    Ok(lookup)
}

/// What asking again for keys that policies ended came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GoneKeys {
    /// Keys that are still gone.
    pub gone: u64,
    /// Destroyed keys that were not looked at: their entries name other keys by now, which are registered.
    pub replaced: u64,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Why a key was not looked at.
enum Unseen {
    /// Its entry names another key by now, which is registered: nobody knows the name of this one any more.
    Replaced,
    /// It should have been.
    Problem(String),
}

/// Asks the services again for keys that policies ended: how many are still gone, and what is wrong. Of a subject's key that is gone
/// nobody knows the name any more, nor of one whose entry names another key by now. Of keys that are deleted at a date: whether
/// somebody called that off. A key that cannot be looked at otherwise is a problem, and keeps back no other.
///
/// # Errors
/// When the control database or the key tree fails.
pub async fn check_gone(installation: &Installation) -> Result<GoneKeys> {
    let rows = installation.control.read().await?.outside_keys().await?;
    let mut found = GoneKeys::default();
    if rows.is_empty() {
        return Ok(found);
    }
    let mut tx = installation.control.begin().await?;
    let lookup = installation.keyring.find_work_key(&mut tx, Purpose::Lookup, "").await?;
    drop(tx);
    for row in rows.iter().filter(|row| matches!(row.state.as_str(), "destroyed" | "doomed")) {
        let Some(spec) = spec_of(&installation.config, row) else { continue };
        let is_doomed = row.state == "doomed";
        if !is_doomed && matches!(spec.bound, BoundTo::Subjects) {
            continue;
        }
        let (name, id) = (&row.name, &row.id);
        let (facts, now) = match look_again(installation, lookup.as_ref(), spec, row, &rows).await? {
            Ok(seen) => seen,
            Err(Unseen::Replaced) => {
                found.replaced += 1;
                continue;
            }
            Err(Unseen::Problem(why)) => {
                found.problems.push(format!("outside key {name} ({id}) {why}"));
                continue;
            }
        };
        match now {
            Some(now) if is_doomed && now.deleted_at.is_none() => found.problems.push(format!(
                "somebody called off the deletion of outside key {name} ({id}); the next shred looks whether to order it again"
            )),
            _ if is_doomed => {}
            // Another key of the same name is nothing that was destroyed.
            Some(now) if facts.is_none_or(|then| then.is_continued_by(&now)) => {
                found.problems.push(format!("outside key {name} ({id}), which was destroyed, is there again"));
            }
            _ => found.gone += 1,
        }
    }
    Ok(found)
}

/// What the service said of a key when it ended, and what it says now. The inner error says why it was not looked at.
async fn look_again(
    installation: &Installation,
    lookup: Option<&Key>,
    spec: &OutsideKey,
    row: &OutsideKeyRow,
    all: &[OutsideKeyRow],
) -> Result<std::result::Result<(Option<KeyFacts>, Option<KeyFacts>), Unseen>> {
    let not_looked_at = |error: &dyn std::fmt::Display| {
        let why = format!("was not looked at: {error}");
        Ok(Err(Unseen::Problem(why)))
    };
    let facts = match OutsideBody::of(row) {
        Ok(body) => body.facts,
        Err(error) => return not_looked_at(&error),
    };
    let key = match record::open(installation, row, spec).await {
        Ok(named) => named.key,
        Err(error @ (TaskError::Inconsistent(_) | TaskError::Erase(EraseError::Column(_)))) => {
            return not_looked_at(&error);
        }
        Err(error) => return Err(error),
    };
    let mac = lookup.map(|lookup| place_mac(lookup, spec, &key));
    if mac.is_none_or(|mac| mac != row.place_mac) {
        let is_configured = |other: &&OutsideKeyRow| other.name == row.name && mac == Some(other.place_mac);
        let is_replaced = row.state == "destroyed" && all.iter().any(|other| is_configured(&other));
        let why = "is not configured as it was; it was not looked at".to_owned();
        return Ok(Err(if is_replaced { Unseen::Replaced } else { Unseen::Problem(why) }));
    }
    let service = match installation.outside_keys(spec) {
        Ok(service) => service,
        Err(error) => return not_looked_at(&error),
    };
    match service.look(&key, facts.as_ref()).await {
        Ok(now) => Ok(Ok((facts, now))),
        Err(error) => not_looked_at(&error),
    }
}

/// The entry of the configuration that a registered key belongs to.
#[must_use]
pub fn spec_of<'c>(config: &'c crate::config::Configuration, row: &OutsideKeyRow) -> Option<&'c OutsideKey> {
    config.outside_keys.iter().find(|spec| {
        let is_subjects = matches!(spec.bound, BoundTo::Subjects);
        spec.name == row.name && is_subjects != row.sealed.is_empty()
    })
}

/// What `key list` shows of a key, from the control database alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideState {
    /// Its row.
    pub row: OutsideKeyRow,
    /// Its public part.
    pub body: OutsideBody,
}

/// All outside keys as they were when last looked at.
///
/// # Errors
/// When the control database fails.
pub async fn list_outside_keys(tx: &mut crate::control::Tx) -> Result<Vec<OutsideState>> {
    let rows = tx.outside_keys().await?;
    rows.into_iter()
        .map(|row| {
            let body = OutsideBody::of(&row)?;
            Ok(OutsideState { row, body })
        })
        .collect()
}

impl OutsideState {
    /// When nobody can call its deletion off any more, for a key that is deleted at a date and not gone yet.
    #[must_use]
    pub fn irrevocable_at(&self) -> Option<DateTime<Utc>> {
        self.body.irrevocable_at().filter(|_| self.row.state == "doomed")
    }

    /// Whether it should have been destroyed: its time was over so long ago, and nothing that must be respected holds it.
    #[must_use]
    pub fn is_overdue(&self, now: DateTime<Utc>, patience: chrono::TimeDelta) -> bool {
        if let Some(at) = self.irrevocable_at() {
            return now - at > patience;
        }
        let stopped = self.body.wait.as_ref().is_some_and(|wait| wait.code == OutsideWait::Hold);
        let waits = matches!(self.row.state.as_str(), "ended" | "destroying" | "doubtful");
        waits && !stopped && self.row.due_at.or(self.row.ended_at).is_some_and(|due| now - due > patience)
    }
}
