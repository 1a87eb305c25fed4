//! Runs that stopped on their way: gone on with as soon as somebody asks for it, and otherwise now and then.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::control::RunRow;
use crate::installation::Installation;
use crate::tasks::certify::certify_or_wait;
use crate::tasks::erasure::{RunBody, resume_run};
use crate::tasks::{Result, TaskError};

use super::filing::Before;
use super::{Done, note, state_of};

/// A run that could not go on is tried again after this.
const RETRY: TimeDelta = TimeDelta::minutes(5);

/// When the agent last tried to go on with which run.
pub(super) struct GoingOn {
    started: DateTime<Utc>,
    tried: HashMap<String, DateTime<Utc>>,
}

impl GoingOn {
    /// At the start all of them were tried.
    pub(super) fn since(started: DateTime<Utc>) -> Self {
        Self { started, tried: HashMap::new() }
    }

    /// Goes on with the runs whose turn it is.
    pub(super) async fn look(&mut self, installation: &mut Installation) -> Vec<Done> {
        let done = match self.due(installation).await {
            Ok(due) if due.is_empty() => return Vec::new(),
            Ok(due) => {
                let before = Before::work(installation).await;
                let done = self.go_on(installation, due).await;
                before.file_issued(installation).await;
                done
            }
            Err(error) => vec![Done::of("resume", Err(error))],
        };
        note(installation, &done).await;
        done
    }

    async fn due(&mut self, installation: &Installation) -> Result<Vec<RunRow>> {
        let now = installation.clock.now();
        let mut tx = installation.control.read().await?;
        let mut due = Vec::new();
        for state in ["approved", "deleted", "verified"] {
            for run in tx.runs(Some(state)).await? {
                let order = tx.order(&run.id).await?;
                if state == "approved" && order.as_ref().is_some_and(|order| order.wish == "pause") {
                    continue;
                }
                // One that a job left just now is tried again later, unless somebody asks.
                let first = if run.begun_at < self.started { self.started } else { now };
                let tried = *self.tried.entry(run.id.clone()).or_insert(first);
                if order.is_some_and(|order| order.asked_at > tried) || now - tried >= RETRY {
                    due.push(run);
                }
            }
        }
        Ok(due)
    }

    async fn go_on(&mut self, installation: &mut Installation, due: Vec<RunRow>) -> Vec<Done> {
        let mut all = Vec::new();
        if let Err(error) = installation.refresh().await {
            return vec![Done::of("resume", Err(error))];
        }
        for run in due {
            self.tried.insert(run.id.clone(), installation.clock.now());
            match one(installation, run).await {
                Err(TaskError::Paused { .. }) => {}
                result => all.push(Done::of("resume", result)),
            }
        }
        all
    }
}

async fn one(installation: &Installation, run: RunRow) -> Result<Done> {
    let run = resume_run(installation, run).await?;
    let body = RunBody::of(&run)?;
    let (_, waiting) = certify_or_wait(installation).await?;
    let (due, erased, kept, failed) = (body.due, body.erased, body.kept + body.stripped, body.failed);
    let summary = format!("run {}: {due} due, {erased} erased, {kept} kept, {failed} failed", run.id);
    Ok(Done { state: state_of(&body), ..Done::good("resume", summary) }.with_certificate(waiting))
}
