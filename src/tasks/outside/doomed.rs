//! Keys whose service deletes them only at a date. Until then whoever has the right calls that off, so such a key is looked at by
//! every pass; it counts as destroyed only when the service, at or after the date, does not know it any more.
//!
//! A deletion that was called off is told and counted, and the key is judged as if nothing had been ordered: it is ordered again only
//! when no row relies on the key and nothing holds it. So a hold that comes too late for the agent still counts when somebody who
//! may do so calls the deletion off.

use chrono::{DateTime, TimeDelta, Utc};

use super::super::Result;
use super::destroy::{Tended, Work};
use super::judge::{covering_hold, whose_of};
use super::record::{OutsideWait, Waiting};
use super::rows::find_rows;
use crate::crash_point;
use crate::keys::outside::OutsideStep;

/// The answers of a service may round the same date differently.
const SAME_DATE: TimeDelta = TimeDelta::minutes(1);

/// What is said of a doomed key on which rows rely.
const RELIED_ON: &str =
    "living rows hold fields that it seals; until its date somebody who may do so can call the deletion off";

impl Work<'_> {
    /// The service has the order to delete the key at this date. One that moved was called off and given anew by somebody.
    /// `relies`: whether living rows hold fields that it seals.
    pub(super) async fn doom(mut self, at: DateTime<Utc>, steps: Vec<OutsideStep>, relies: bool) -> Result<Tended> {
        let from = self.row.state.clone();
        let known = self.body.irrevocable_at().filter(|_| from == "doomed");
        let is_moved = known.is_some_and(|known| (known - at).abs() >= SAME_DATE);
        if is_moved {
            self.tell_called_off().await?;
        }
        let at = known.filter(|_| !is_moved).unwrap_or(at);
        if let Some(facts) = &mut self.body.facts {
            facts.deleted_at = Some(at);
        }
        if !steps.is_empty() {
            self.body.steps = steps;
        }
        let waiting = self.what_waits(relies).await?.until(at);
        self.body.wait = Some(waiting.clone());
        "doomed".clone_into(&mut self.row.state);
        self.store(&from).await?;
        crash_point::reached("outside.doomed");
        if from != "doomed" {
            self.installation.log_operation("key.outside", &self.row.id, "success").await?;
        }
        Ok(Tended::Waits(waiting))
    }

    /// What a doomed key waits for, and whether rows or a hold came too late for it.
    async fn what_waits(&self, relies: bool) -> Result<Waiting> {
        if relies {
            return Ok(Waiting::new(OutsideWait::Needed, RELIED_ON));
        }
        let ground = self.installation.ground()?;
        let mut tx = self.installation.control.read().await?;
        let whose = (self.spec, self.named.subject.as_ref());
        let ended = self.row.ended_at.unwrap_or(self.installation.clock.now());
        Ok(match covering_hold(&ground, &mut tx, self.lookup, whose, ended).await? {
            None => Waiting::new(
                OutsideWait::Irrevocable,
                "it opens nothing any more; until its date somebody could call its deletion off",
            ),
            Some(hold) => Waiting::new(
                OutsideWait::Needed,
                format!(
                    "hold {hold} came behind the order to delete it; until its date somebody who may do so can call that off, and \
                     the agent does not repeat it while the hold stands"
                ),
            ),
        })
    }

    /// Whether living rows rely on a key that is to be deleted: they came, or came back, behind the order. As long as that cannot be
    /// told, what was found last stands.
    pub(super) async fn is_relied_on(&mut self) -> Result<bool> {
        let ground = self.installation.ground()?;
        let Some(whose) = whose_of(self.spec, &self.named) else { return Ok(false) };
        let Ok(found) = find_rows(&ground, self.spec, self.service.as_ref(), whose).await? else {
            return Ok(self.body.wait.as_ref().is_some_and(|wait| wait.what == RELIED_ON));
        };
        self.body.clear_seen |= found.in_clear;
        Ok(found.relies)
    }

    /// The service works with the key again, or would when it is switched on.
    pub(super) async fn note_called_off(&mut self) -> Result<()> {
        self.tell_called_off().await?;
        if let Some(facts) = &mut self.body.facts {
            facts.deleted_at = None;
        }
        let state = self.row.state.clone();
        self.store(&state).await
    }

    async fn tell_called_off(&mut self) -> Result<()> {
        tracing::error!(key = %self.row.id, "somebody called off the deletion of an outside key");
        self.installation.log_operation("key.destruction-called-off", &self.row.id, "failure").await?;
        self.body.called_off += 1;
        Ok(())
    }

    /// Why a key that is not there any more is not gone for good: nothing deletes it before its date.
    pub(super) fn gone_too_early(&self) -> Option<Waiting> {
        let at = self
            .body
            .irrevocable_at()
            .filter(|at| self.row.state == "doomed" && self.installation.clock.now() < *at)?;
        let what = "the key service does not know it although its date is still to come";
        Some(Waiting::new(OutsideWait::ServiceRefuses, what).until(at))
    }
}
