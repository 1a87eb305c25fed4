//! One key's way to its end: looked at, intended, destroyed, read back, recorded.
//!
//! The intent is a row in state `destroying` together with what the service said of the key. While it stands, a hold waits for
//! it. A call that fails leaves the state `doubtful`; as after a crash, the next pass asks the service: a key that is gone was
//! destroyed; one that is there is judged from the beginning, and what had been prepared is taken back if it must stay.
//!
//! Where the service deletes only at a date the key is `doomed` until it is read back as gone, at or after it (`doomed.rs`).

use std::sync::Arc;

use chrono::{TimeDelta, Utc};

use crate::config::OutsideKey;
use crate::control::{OutsideKeyRow, Tx};
use crate::crash_point;
use crate::installation::{Installation, LEASE_SECONDS, WORK_LEASE};
use crate::keyring::Purpose;
use crate::keys::Key;
use crate::keys::cell::pseudonym;
use crate::keys::outside::{KeyFacts, OutsideDone, OutsideEvidence, OutsideKeys, OutsideStep};
use crate::keys::slot::SlotError;

use super::super::{Result, TaskError};
use super::judge::{judge, what_stops};
use super::record::{Declared, Named, OutsideBody, OutsideWait, Waiting, open, place_mac};
use super::spec_of;

/// What became of a key in a pass.
#[derive(Debug)]
pub(super) enum Tended {
    Waits(Waiting),
    Destroyed,
}

/// A key in the hands of a pass.
pub(super) struct Work<'w> {
    pub(super) installation: &'w Installation,
    pub(super) lookup: &'w Key,
    pub(super) spec: &'w OutsideKey,
    pub(super) service: Arc<dyn OutsideKeys>,
    pub(super) named: Named,
    pub(super) row: OutsideKeyRow,
    pub(super) body: OutsideBody,
}

/// Looks after one key: it stays as it is, waits, or is destroyed.
///
/// # Errors
/// When the control database or the key tree fails. What the key service or a store answers is a reason to wait.
pub(super) async fn tend(installation: &Installation, lookup: &Key, row: OutsideKeyRow) -> Result<Tended> {
    let body = OutsideBody::of(&row)?;
    let unconfigured = |name: &str| {
        Waiting::new(OutsideWait::Unconfigured, format!("[[outside_key]] {name} is not configured as it was"))
    };
    let Some(spec) = spec_of(&installation.config, &row) else {
        let waiting = unconfigured(&row.name);
        return remember(installation, row, body, waiting).await;
    };
    let named = match open(installation, &row, spec).await {
        Ok(named) => named,
        // Nobody can destroy a key whose name is lost; the others are looked after all the same.
        Err(TaskError::Inconsistent(what)) => {
            return remember(installation, row, body, Waiting::new(OutsideWait::NameLost, what)).await;
        }
        Err(error) => return Err(error),
    };
    if place_mac(lookup, spec, &named.key) != row.place_mac {
        let waiting = unconfigured(&row.name);
        return remember(installation, row, body, waiting).await;
    }
    let service = match installation.outside_keys(spec) {
        Ok(service) => service,
        Err(error) => {
            let waiting = Waiting::new(OutsideWait::ServiceRefuses, error.to_string());
            return remember(installation, row, body, waiting).await;
        }
    };
    Work { installation, lookup, spec, service, named, row, body }.tend().await
}

/// Stores why a key waits, without a change of its state.
async fn remember(
    installation: &Installation,
    mut row: OutsideKeyRow,
    mut body: OutsideBody,
    waiting: Waiting,
) -> Result<Tended> {
    body.wait = Some(waiting.clone());
    body.looked_at = Some(installation.clock.now());
    body.put(&mut row)?;
    let state = row.state.clone();
    let mut tx = installation.control.begin().await?;
    step(&mut tx, &row, &state).await?;
    tx.commit().await?;
    Ok(Tended::Waits(waiting))
}

async fn step(tx: &mut Tx, row: &OutsideKeyRow, from: &str) -> Result<()> {
    if tx.step_outside_key(row, from).await? {
        return Ok(());
    }
    Err(TaskError::Inconsistent(format!("outside key {} is not in state {from} any more", row.id)))
}

/// What the service answered, as a reason to wait.
fn refused(error: &SlotError) -> Waiting {
    Waiting::new(OutsideWait::ServiceRefuses, error.to_string())
}

impl Work<'_> {
    async fn tend(mut self) -> Result<Tended> {
        let was_intended = matches!(self.row.state.as_str(), "destroying" | "doubtful" | "doomed");
        let present = if was_intended || self.body.facts.is_none() {
            match self.service.look(&self.named.key, self.body.facts.as_ref()).await {
                Ok(present) => present,
                Err(error) => return self.wait(refused(&error)).await,
            }
        } else {
            None
        };
        if was_intended && !self.is_same(present.as_ref()) {
            if let Some(waiting) = self.gone_too_early() {
                return self.wait(waiting).await;
            }
            // The deletion got through before this process, or the one before it, could write that down.
            let steps = std::mem::take(&mut self.body.steps);
            return self.record(steps).await;
        }
        if was_intended {
            if let Some(at) = present.as_ref().and_then(|facts| facts.deleted_at) {
                let relies = self.is_relied_on().await?;
                return self.doom(at, Vec::new(), relies).await;
            }
            if self.row.state == "doomed" && self.body.irrevocable_at().is_some() {
                self.note_called_off().await?;
            }
        }
        if self.body.facts.is_none() {
            let Some(facts) = present else {
                let what = "the key service has no such key, and never had it since it was registered";
                return self.wait(Waiting::new(OutsideWait::NoSuchKey, what)).await;
            };
            self.body.facts = Some(facts.remembered());
        }
        if let Some(waiting) = self.look_after(was_intended).await? {
            return self.wait(waiting).await;
        }
        self.destroy().await
    }

    /// Whether what is there is the key that the intent was about.
    fn is_same(&self, present: Option<&KeyFacts>) -> bool {
        match (&self.body.facts, present) {
            (Some(known), Some(now)) => known.is_continued_by(now),
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }

    /// Judges the key and brings its row to `active` or `ended`; why it must not die now.
    async fn look_after(&mut self, was_intended: bool) -> Result<Option<Waiting>> {
        let ground = self.installation.ground()?;
        let judged = judge(&ground, self.spec, self.service.as_ref(), &self.named, (&self.row, &mut self.body)).await?;
        self.row.due_at = judged.due_at;
        let mut wait = judged.wait;
        if judged.is_ended {
            let ended = *self.row.ended_at.get_or_insert(self.installation.clock.now());
            let mut tx = self.installation.control.read().await?;
            let whose = (self.spec, self.named.subject.as_ref());
            wait = what_stops(&ground, &mut tx, self.lookup, whose, ended).await?;
            let until = wait.as_ref().and_then(|wait| wait.until.as_deref());
            let until = until.map(crate::control::parse_time).transpose()?;
            self.row.due_at = until.or(Some(ended)).max(judged.due_at);
        } else if wait.as_ref().is_some_and(|wait| wait.code.is_in_use()) {
            self.row.ended_at = None;
        }
        if was_intended
            && wait.is_some()
            && let Err(error) = self.service.spare(&self.named.key).await
        {
            return Ok(Some(refused(&error)));
        }
        if !was_intended || wait.is_some() {
            let from = self.row.state.clone();
            let state = if self.row.ended_at.is_some() { "ended" } else { "active" };
            state.clone_into(&mut self.row.state);
            self.store(&from).await?;
        }
        Ok(wait)
    }

    pub(super) async fn store(&mut self, from: &str) -> Result<()> {
        self.body.looked_at = Some(self.installation.clock.now());
        self.body.put(&mut self.row)?;
        let mut tx = self.installation.control.begin().await?;
        step(&mut tx, &self.row, from).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Stores why it waits. An intent whose outcome is not known stays one.
    pub(super) async fn wait(mut self, waiting: Waiting) -> Result<Tended> {
        let from = self.row.state.clone();
        if from == "destroying" {
            "doubtful".clone_into(&mut self.row.state);
        }
        self.body.wait = Some(waiting.clone());
        self.store(&from).await?;
        Ok(Tended::Waits(waiting))
    }

    async fn destroy(mut self) -> Result<Tended> {
        let before = match self.service.look(&self.named.key, self.body.facts.as_ref()).await {
            Ok(before) => before,
            Err(error) => return self.wait(refused(&error)).await,
        };
        if before.is_some() && !self.is_same(before.as_ref()) {
            let what = "another key has its name in the service now; unregister it, and register that one if it is to be \
                        destroyed too";
            return self.wait(Waiting::new(OutsideWait::Replaced, what)).await;
        }
        let whole = self.installation.begin_piece()?;
        self.installation.log_operation("key.outside", &self.row.id, "intent").await?;
        if let Some(waiting) = self.intend(before).await? {
            self.installation.log_operation("key.outside", &self.row.id, "failure").await?;
            return self.wait(waiting).await;
        }
        crash_point::reached("outside.intended");
        let done = self.carry_out().await;
        crash_point::reached("outside.deleted");
        let tended = match done {
            Ok(OutsideDone { steps, deleted_at: None }) => self.record(steps).await,
            Ok(OutsideDone { steps, deleted_at: Some(at) }) => self.doom(at, steps, false).await,
            Err(error) => {
                self.installation.log_operation("key.outside", &self.row.id, "failure").await?;
                self.wait(refused(&error)).await
            }
        };
        drop(whole);
        tended
    }

    /// One transaction under the lease: holds read again, the intent with what the service said.
    async fn intend(&mut self, before: Option<KeyFacts>) -> Result<Option<Waiting>> {
        let ground = self.installation.ground()?;
        let now = self.installation.clock.now();
        let mut tx = self.installation.control.begin().await?;
        let until = now + TimeDelta::seconds(LEASE_SECONDS);
        tx.extend_lease(WORK_LEASE, self.installation.token, now, until).await?;
        if let Some(since) = tx.meta("agent_hold").await? {
            let what = format!("all destruction is held since {since}");
            return Ok(Some(Waiting::new(OutsideWait::Hold, what)));
        }
        let whose = (self.spec, self.named.subject.as_ref());
        let ended = self.row.ended_at.unwrap_or(now);
        if let Some(waiting) = what_stops(&ground, &mut tx, self.lookup, whose, ended).await? {
            return Ok(Some(waiting));
        }
        let from = std::mem::replace(&mut self.row.state, "destroying".to_owned());
        let gone = before.is_none();
        self.body.facts = before.map(KeyFacts::remembered).or(self.body.facts.take());
        self.body.gone_before |= gone;
        self.body.begun_at = Some(now);
        self.body.wait = None;
        self.body.put(&mut self.row)?;
        step(&mut tx, &self.row, &from).await?;
        tx.commit().await?;
        Ok(None)
    }

    /// Tells the service, and looks with a call of its own whether the key is gone. A deletion at a date is looked at by every
    /// pass from the next one on.
    async fn carry_out(&self) -> std::result::Result<OutsideDone, SlotError> {
        let done = self.service.destroy(&self.named.key).await?;
        if done.deleted_at.is_some() {
            return Ok(done);
        }
        match self.service.look(&self.named.key, self.body.facts.as_ref()).await? {
            Some(now) if self.is_same(Some(&now)) => Err(SlotError::Unavailable {
                place: format!("of outside key {}", self.row.name),
                what: "it says that it deleted the key, and still has it".to_owned(),
            }),
            _ => Ok(done),
        }
    }

    /// One transaction: the outcome with its evidence, and nothing left that names the key or its subject.
    async fn record(mut self, steps: Vec<OutsideStep>) -> Result<Tended> {
        let now = self.installation.clock.now();
        let mut tx = self.installation.control.begin().await?;
        tx.extend_lease(WORK_LEASE, self.installation.token, now, now + TimeDelta::seconds(LEASE_SECONDS)).await?;
        let certificate = self.installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
        let reference = |domain: &str, parts: &[&[u8]]| hex::encode(pseudonym(&certificate, domain, parts));
        let [address, within] = self.spec.access.place();
        let parts = [address, within, self.named.key.dangerous_text()].map(str::as_bytes);
        self.body.key_ref = Some(reference("outside-key", &parts));
        let subject = self.named.subject.as_ref();
        self.body.subject_ref = subject.map(|subject| reference("certificate", &[subject.dangerous_text().as_bytes()]));
        let irrevocable_at = self.body.irrevocable_at();
        let before = self.body.facts.clone().filter(|_| !self.body.gone_before);
        let evidence = OutsideEvidence::new(self.service.claim(), before, steps);
        self.body.evidence = Some(OutsideEvidence { irrevocable_at, ..evidence });
        self.body.declared = Some(Declared::of(self.spec));
        (self.body.wait, self.body.looked_at) = (None, Some(now));
        self.row.destroyed_at = Some(now.max(self.body.begun_at.unwrap_or(chrono::DateTime::<Utc>::MIN_UTC)));
        self.row.lookup = None;
        if !self.row.sealed.is_empty() {
            // Not empty, so that it is known for a subject's: the leaf that opened it dies.
            tx.retire_work(Purpose::OutsideKey.name(), &self.row.id).await?;
        }
        let from = std::mem::replace(&mut self.row.state, "destroyed".to_owned());
        self.body.put(&mut self.row)?;
        step(&mut tx, &self.row, &from).await?;
        tx.commit().await?;
        crash_point::reached("outside.recorded");
        let operation = if from == "doomed" { "key.outside-gone" } else { "key.outside" };
        self.installation.log_operation(operation, &self.row.id, "success").await?;
        Ok(Tended::Destroyed)
    }
}
