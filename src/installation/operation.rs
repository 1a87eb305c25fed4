//! Writing to the operation log: who, from where, what, on which object, about which customer, with what outcome.

use std::net::IpAddr;

use chrono::{DateTime, Utc};

use super::{Installation, host_name, services};
use crate::error::{Result, TaskError};
use crate::keyring::Purpose;
use crate::keys::cell::pseudonym;
use crate::log::record::{Activity, Actor, Change, Outcome, Record, Resource};
use crate::plan::Subject;
use crate::random::uuid7;

/// One thing to be logged.
#[derive(Default)]
pub struct Operation<'a> {
    /// The command or step, `run.begin`.
    pub name: &'a str,
    /// The id of what it is done to.
    pub object: &'a str,
    /// `intent`, `success` or `failure`.
    pub outcome: &'a str,
    /// A code of the outcome.
    pub detail: Option<String>,
    /// Whom it is about; only the log's pseudonym is written.
    pub subject: Option<&'a Subject>,
    /// Further identifiers and counts.
    pub references: Vec<(String, String)>,
    /// What changed.
    pub changes: Vec<Change>,
    /// When, where the installation's clock only pretends a time (`--at`).
    pub at: Option<DateTime<Utc>>,
    /// The address of somebody over the network of whom nothing else is known; none for whoever runs this process.
    pub peer: Option<IpAddr>,
}

impl Installation {
    /// Writes a record to the operation log; what cannot be logged is not done.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub async fn log_operation(&self, operation: &str, object: &str, outcome: &str) -> Result<()> {
        self.log(Operation { name: operation, object, outcome, ..Operation::default() }).await
    }

    /// Logs a look at what is kept, before anything of it is shown, or the wish to destroy nothing. In a control database that was found to
    /// be an old copy it may go on without.
    ///
    /// # Errors
    /// As [`Self::log`]; what cannot be logged is not shown.
    pub async fn log_look(&self, operation: Operation<'_>) -> Result<()> {
        let name = operation.name.to_owned();
        match self.log(operation).await {
            Err(TaskError::OldCopy { .. }) => {
                tracing::warn!(operation = name, "what happens in an old copy of the state is not logged");
                Ok(())
            }
            logged => logged,
        }
    }

    /// The same with everything that is known. Never in a control database that was found to be an old copy: one more entry would give
    /// the log a second history.
    ///
    /// # Errors
    /// When the log cannot be written, or there is no key for the customer's pseudonym; [`TaskError::OldCopy`] there.
    pub async fn log(&self, operation: Operation<'_>) -> Result<()> {
        let erased = erased_by(&operation).map(|rows| (operation.name.to_owned(), operation.object.to_owned(), rows));
        self.append(operation).await?;
        if let Some((name, run, rows)) = erased {
            self.note_bulk(&name, &run, rows).await;
        }
        Ok(())
    }

    /// The same without asking whether it is worth an alert.
    pub(super) async fn append(&self, operation: Operation<'_>) -> Result<()> {
        self.refuse_old_copy().await?;
        let activity = Activity::of_operation(operation.name);
        debug_assert!(activity != Activity::Unknown, "operation {} has no place", operation.name);
        let customer = match operation.subject {
            Some(subject) => Some(self.log_pseudonym(subject).await?),
            None => None,
        };
        let outcome = match operation.outcome {
            "intent" => Outcome::Intent,
            "success" => Outcome::Success,
            _ => Outcome::Failure,
        };
        let (uid, ip) = match operation.peer {
            Some(peer) => ("unknown".to_owned(), Some(peer.to_string())),
            None => (self.operator.clone(), address_of(std::env::var("SSH_CONNECTION").ok().as_deref())),
        };
        let kind = operation.name.split('.').next().unwrap_or(operation.name);
        let time = operation.at.unwrap_or_else(|| self.clock.now());
        let record = Record {
            id: uuid7(time, self.random.as_ref())?,
            time,
            actor: Actor { uid },
            ip,
            host: host_name(),
            activity,
            operation: operation.name.to_owned(),
            resources: vec![Resource { kind: kind.to_owned(), uid: operation.object.to_owned() }],
            customer,
            outcome,
            detail: operation.detail,
            changes: operation.changes,
            references: operation.references,
        };
        services::append_operation(self, record).await
    }

    /// The pseudonym of a customer in the operation log, also of one who was erased: it comes from the id alone.
    ///
    /// # Errors
    /// When the control database or the key tree fails.
    pub async fn log_pseudonym(&self, subject: &Subject) -> Result<String> {
        let mut tx = self.control.begin().await?;
        let key = self.keyring.work_key(&mut tx, Purpose::Log, "").await?;
        tx.commit().await?;
        Ok(hex::encode(pseudonym(&key, "log", &[subject.dangerous_text().as_bytes()])))
    }
}

/// How many rows a run erased or anonymised, by the entry of its end.
fn erased_by(operation: &Operation<'_>) -> Option<u64> {
    if operation.name != "run.end" || operation.outcome != "success" {
        return None;
    }
    let of = |name: &str| operation.references.iter().find(|(known, _)| known == name)?.1.parse::<u64>().ok();
    Some(of("erased").unwrap_or(0) + of("anonymised").unwrap_or(0))
}

/// The client's address of an SSH session (`CLIENT PORT SERVER PORT`), when it is one.
fn address_of(connection: Option<&str>) -> Option<String> {
    let first = connection?.split_whitespace().next()?;
    first.parse::<IpAddr>().ok().map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_that_of_the_session_or_none() {
        assert_eq!(address_of(Some("10.8.0.5 51144 10.8.0.1 22")).as_deref(), Some("10.8.0.5"));
        assert_eq!(address_of(Some("fe80::1 51144 fe80::2 22")).as_deref(), Some("fe80::1"));
        for none in [None, Some(""), Some("nonsense 1 2 3")] {
            assert_eq!(address_of(none), None);
        }
    }
}
