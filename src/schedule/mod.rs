//! When: the declared jobs, their times, and what is due now.
//!
//! A wake-up is not a due time. Something wakes the agent ([`waker`]); what is due is then computed from the declarations
//! and from what was recorded to have run, by pure functions ([`cron`], [`due`], [`calendar`]). The caller stores each
//! (job, scheduled time) under a unique key before it runs it: that gives catch-up after an outage, no overlap and one
//! runner among several agents.

pub mod calendar;
pub mod cron;
pub mod declaration;
pub mod due;
mod references;
pub mod waker;

pub use calendar::{Preview, Upcoming, preview};
pub use cron::{Cron, CronError};
pub use declaration::{BackupKind, Job, Missed, ScheduleError, Task, VerifyTarget, job_schema, load_folder, parse_job};
pub use due::{Agenda, ClockState, Due, Look, Lost, agenda, judge_clock};
pub use references::check_references;
pub use waker::{Waker, WakerError};
