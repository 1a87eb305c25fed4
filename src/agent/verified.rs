//! The job `verify`: bucket, second place and locks, and what was erased.

use super::backups::verify_part;
use super::{Done, chosen};
use crate::installation::{Installation, lock_horizons};
use crate::tasks::certify::certify_or_wait;
use crate::tasks::key_check::check_keys;
use crate::tasks::recheck::look_for_erased;
use crate::tasks::{Result, TaskError};

/// What was found, as sentences.
#[derive(Default)]
pub(super) struct Verified {
    /// What is as it should be.
    pub good: Vec<String>,
    /// What is not.
    pub problems: Vec<String>,
    /// What could not be looked at.
    pub skipped: Vec<String>,
    /// What needs somebody, some day.
    pub late: Vec<String>,
}

impl Verified {
    /// Notes an error as a problem, unless the agent is to stop.
    pub(super) fn note_failed(&mut self, what: &str, looked: Result<()>) -> Result<()> {
        match looked {
            Err(TaskError::Stopping) => return Err(TaskError::Stopping),
            Err(error) => self.problems.push(format!("{what} could not be verified: {}", error.with_causes())),
            Ok(()) => {}
        }
        Ok(())
    }

    /// How it ended.
    pub(super) fn ended(self) -> Done {
        let (state, mut lines) = match (self.problems.is_empty(), self.skipped.is_empty()) {
            (false, _) => ("failed", self.problems),
            (true, false) => ("partial", Vec::new()),
            (true, true) => ("done", self.good),
        };
        lines.extend(self.skipped);
        Done { state, details: self.late, ..Done::good("verify", lines.join("; ")) }
    }

    /// Opens all nodes of the key tree, and tries again what was destroyed.
    pub(super) async fn verify_keys(&mut self, installation: &Installation) -> Result<()> {
        let check = check_keys(installation).await?;
        self.good.push(format!("{} key nodes open", check.nodes_opened));
        self.problems.extend(check.problems);
        if check.outside_keys_replaced > 0 {
            self.late.push(format!(
                "{} destroyed outside keys were not looked at: their entries name other keys by now",
                check.outside_keys_replaced
            ));
        }
        Ok(())
    }

    /// Reads the bucket of every store that is backed up, or a share of it, and the second place; looks at the locks.
    pub(super) async fn verify_bucket(&mut self, installation: &Installation, percent: Option<u8>) -> Result<()> {
        let mut objects = 0;
        for store in chosen(installation, &[]) {
            let (found, coverage) = verify_part(installation, &store, percent).await?;
            if percent.is_some() {
                let (covered, all) = (coverage.objects_covered, coverage.objects);
                self.good.push(format!("store {store}: {covered} of {all} objects were read back at some time"));
            }
            objects += found.objects_read;
            let uncommitted = found.uncommitted.iter();
            self.late.extend(uncommitted.map(|name| format!("{name}: of a cancelled snapshot; nothing reads it")));
            let problems = found.problems.into_iter();
            self.problems.extend(problems.map(|problem| format!("{}: {}", problem.object, problem.what)));
        }
        if let Some(state) = installation.keyring.check_state(&installation.control).await? {
            objects += state.objects_read;
            self.problems.extend(state.problems.iter().map(|(object, what)| format!("{object}: {what}")));
            if !state.unneeded.is_empty() {
                self.late.push(format!(
                    "second place: {} objects, {} bytes, are needed no more; `wangchuan backup unneeded` names them",
                    state.unneeded.len(),
                    state.unneeded_bytes()
                ));
            }
        }
        self.good.push(format!("{objects} objects are as they were written"));
        let Some(locker) = &installation.backup()?.locker else { return Ok(()) };
        let now = installation.clock.now();
        let horizons = lock_horizons(installation, locker.as_ref()).await?.into_iter();
        self.problems.extend(horizons.filter(|horizon| horizon.is_near(now)).map(|near| {
            format!("the lock of the newest snapshots of store {} ends within a week, or is not there", near.store)
        }));
        Ok(())
    }

    /// Looks in the stores for what was erased.
    pub(super) async fn look_for_erased(&mut self, installation: &Installation) -> Result<()> {
        let looked = look_for_erased(installation).await?;
        if looked.is_news {
            let (replaced, waiting) = certify_or_wait(installation).await?;
            if !replaced.is_empty() {
                self.late.push(format!("{} certificates were replaced by what is so now", replaced.len()));
            }
            self.late.extend(waiting);
        }
        let resurrected = looked.resurrected();
        if resurrected > 0 {
            self.problems.push(format!(
                "resurrected: {resurrected} rows that were erased are there again; `wangchuan verify erased --keys` tells which"
            ));
        }
        let unregistered = looked.unregistered.iter().map(|(store, collection)| format!("{store}.{collection}"));
        self.late.extend(unregistered.map(|place| {
            format!("{place} was not looked at: rows of it were erased, and it is not registered any more")
        }));
        if looked.returned() > 0 {
            self.late.push(format!("{} rows are new in the place of erased ones", looked.returned()));
        }
        let rows: u64 = looked.collections.iter().map(|collection| collection.rows).sum();
        self.good.push(format!("nothing erased among {rows} rows"));
        let skipped = looked.skipped.into_iter();
        self.skipped.extend(skipped.map(|(store, why)| format!("store {store} was not looked at: {why}")));
        Ok(())
    }
}
