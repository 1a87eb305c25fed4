//! Who works: the lease in the control database, with the file lock of this host and, where several hosts share the control database,
//! the heartbeat and the fence.

use chrono::TimeDelta;

use super::heartbeat::Heartbeat;
use super::work_lock::WorkLock;
use super::{Installation, LEASE_SECONDS, WORK_LEASE, clock_check, state_folder};
use crate::clock::Clock;
use crate::config::{Configuration, StateLocation};
use crate::control::{Control, ControlError, Lease};
use crate::error::{Result, TaskError};
use crate::random::uuid7;

/// Who works with a control database that several hosts share, seen from a process that would; `None` when it could, or when the
/// control database is not shared.
///
/// # Errors
/// When the control database cannot be read.
pub async fn who_works(config: &Configuration, clock: &dyn Clock) -> Result<Option<String>> {
    if !matches!(config.agent.state, StateLocation::Postgres(_)) {
        return Ok(None);
    }
    let control = Control::open_at(&config.agent.state).await?;
    let mut tx = control.read().await?;
    let holder = tx.lease_holder(WORK_LEASE, clock.now()).await?;
    drop(tx);
    control.close().await;
    let here = WorkLock::is_held(&state_folder(config))?;
    Ok(holder.map(|holder| holder.to_string()).or_else(|| here.then(|| "another process".to_owned())))
}

impl Installation {
    pub(super) async fn take_lease(&mut self) -> Result<()> {
        let now = self.clock.now();
        let lock = WorkLock::take(&state_folder(&self.config)).await?;
        let mut tx = self.control.begin().await?;
        let Some(lock) = lock else {
            let holder = tx.lease_holder(WORK_LEASE, now).await?;
            return Err(busy(&holder.map_or_else(|| "another process".to_owned(), |holder| holder.to_string())));
        };
        match tx.take_lease(WORK_LEASE, &self.holder, now, now + TimeDelta::seconds(LEASE_SECONDS)).await? {
            Lease::Taken { token } => {
                tx.cancel_running_snapshots().await?;
                tx.commit().await?;
                self.token = token;
                self.work_lock = Some(lock);
                if self.control.is_shared() {
                    self.control.set_fence(Some((WORK_LEASE, token)));
                    self.heartbeat = Some(Heartbeat::start(self.control.clone(), self.clock.clone(), token));
                }
            }
            Lease::HeldBy(holder) => return Err(busy(&holder.to_string())),
        }
        clock_check::note_time(&self.control, now).await
    }

    /// Says that this process reads a chain of snapshots, so that nothing destroys its key meanwhile; for a day at most, and no longer
    /// than the process lives. Returns a name for [`Installation::release_chain`].
    ///
    /// # Errors
    /// Refused when the key is about to be destroyed, or is.
    pub async fn use_chain(&self, chain: u32) -> Result<String> {
        let now = self.clock.now();
        let name = format!("chain-{chain}-{}", uuid7(now, self.random.as_ref())?);
        let mut tx = self.control.begin().await?;
        if tx.chain_state(chain).await?.as_deref() != Some("active") {
            return Err(TaskError::refused(
                "the key of that snapshot is destroyed, or about to be: it is not kept any more",
                "choose a newer snapshot: `wangchuan backup list`",
            ));
        }
        tx.take_lease(&name, &self.holder, now, now + TimeDelta::days(1)).await?;
        tx.commit().await?;
        Ok(name)
    }

    /// Ends [`Installation::use_chain`].
    ///
    /// # Errors
    /// When the control database fails.
    pub async fn release_chain(&self, name: &str) -> Result<()> {
        let mut tx = self.control.begin().await?;
        tx.release_lease(name, &self.holder).await?;
        Ok(tx.commit().await?)
    }

    /// Keeps the lease; called between pieces of work. A lease that is lost stays lost. Does nothing without one.
    ///
    /// # Errors
    /// When another process has taken it.
    pub async fn renew_lease(&self) -> Result<()> {
        if self.token == 0 {
            return Ok(());
        }
        let now = self.clock.now();
        let mut tx = self.control.begin().await?;
        tx.extend_lease(WORK_LEASE, self.token, now, now + TimeDelta::seconds(LEASE_SECONDS)).await?;
        clock_check::note_in(&mut tx, now).await?;
        Ok(tx.commit().await?)
    }

    /// Gives the lease back, if it is held.
    pub(super) async fn release_lease(&mut self) -> Result<()> {
        drop(self.heartbeat.take());
        if self.token == 0 {
            return Ok(());
        }
        match self.control.begin().await {
            Ok(mut tx) => {
                tx.release_lease(WORK_LEASE, &self.holder).await?;
                Ok(tx.commit().await?)
            }
            // Another process works by now: there is nothing to give back.
            Err(ControlError::LeaseLost { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn busy(who: &str) -> TaskError {
    TaskError::refused(
        format!("{who} is working on this installation already"),
        "wait for it, or let the running agent do it: it works on requests and jobs by itself",
    )
}
