//! Keeps the work lease on a control database that several hosts share, whatever the process is busy with.
//!
//! On an SQLite file the work lock proves that a process lives, and the lease is renewed between pieces of work. Another host sees no
//! such lock: there a lease that ran out during a long piece would let it begin the same work. A process that is stopped, or cut
//! off, does not beat; when it comes back, its fence lets it write nothing.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::task::JoinHandle;

use super::{LEASE_SECONDS, WORK_LEASE};
use crate::clock::Clock;
use crate::control::{Control, ControlError};

/// Six beats fit into a lease.
const BEAT: Duration = Duration::from_secs(LEASE_SECONDS.unsigned_abs() / 6);
/// After a beat that failed.
const RETRY: Duration = Duration::from_secs(10);

/// The task that renews the lease until this is dropped.
pub(super) struct Heartbeat(JoinHandle<()>);

impl Heartbeat {
    /// Starts it for the holder of `token`.
    pub(super) fn start(control: Control, clock: Arc<dyn Clock>, token: i64) -> Self {
        Self(tokio::spawn(async move {
            let mut pause = BEAT;
            loop {
                tokio::time::sleep(pause).await;
                pause = match beat(&control, clock.as_ref(), token).await {
                    Ok(()) => BEAT,
                    Err(error @ ControlError::LeaseLost { .. }) => {
                        tracing::error!(error = %error, "this process writes nothing more");
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(error = %error, "the work lease was not renewed; it is tried again");
                        RETRY
                    }
                };
            }
        }))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn beat(control: &Control, clock: &dyn Clock, token: i64) -> Result<(), ControlError> {
    let now = clock.now();
    let mut tx = control.begin().await?;
    tx.extend_lease(WORK_LEASE, token, now, now + TimeDelta::seconds(LEASE_SECONDS)).await?;
    tx.commit().await
}
