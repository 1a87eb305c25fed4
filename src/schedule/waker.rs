//! The wake-up source: tokio-cron-scheduler, and nothing else of it.
//!
//! Its own due times are not used: it keeps no zone across a change of the clock, catches nothing up after a restart and
//! starts a job again while it runs. So it only says "look again", and [`super::due`] decides. Wake-ups that nobody has
//! taken yet merge into one.

use tokio::sync::mpsc::{self, Receiver};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use thiserror::Error;

/// The wake-up source could not be started. Retrying may help.
#[derive(Debug, Error)]
#[error("cannot start the wake-up source")]
pub struct WakerError(#[source] JobSchedulerError);

/// Wakes the agent until it is stopped.
pub struct Waker {
    scheduler: JobScheduler,
}

impl Waker {
    /// Starts waking at every second that `every_seconds` divides (1 to 59). The receiver gets an empty message each time.
    ///
    /// # Errors
    /// When the scheduler does not start.
    pub async fn start(every_seconds: u8) -> Result<(Self, Receiver<()>), WakerError> {
        let (sender, receiver) = mpsc::channel(1);
        let schedule = format!("*/{} * * * * *", every_seconds.clamp(1, 59));
        let job = Job::new_async(schedule, move |_, _| {
            let sender = sender.clone();
            Box::pin(async move {
                // A full channel means that a wake-up is waiting already.
                let _ = sender.try_send(());
            })
        });
        let scheduler = JobScheduler::new().await.map_err(WakerError)?;
        scheduler.add(job.map_err(WakerError)?).await.map_err(WakerError)?;
        scheduler.start().await.map_err(WakerError)?;
        Ok((Self { scheduler }, receiver))
    }

    /// Stops waking. Runs are not its business: the caller waits for them.
    ///
    /// # Errors
    /// When the scheduler does not answer.
    pub async fn stop(mut self) -> Result<(), WakerError> {
        self.scheduler.shutdown().await.map_err(WakerError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn wakes_until_stopped_and_merges_what_is_not_taken() {
        let (waker, mut receiver) = Waker::start(1).await.unwrap();
        receiver.recv().await.unwrap();
        // Several seconds without anybody taking them: one message waits, and no more.
        tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
        assert_eq!(receiver.len(), 1);
        waker.stop().await.unwrap();
    }
}
