//! The task `backup`.

use super::{Done, chosen};
use crate::installation::Installation;
use crate::schedule::BackupKind;
use crate::tasks::backup::Wanted;
use crate::tasks::locks::take_and_lock;
use crate::tasks::{Result, TaskError};

pub(super) async fn back_up(installation: &Installation, stores: &[String], kind: BackupKind) -> Result<Done> {
    let wanted = match kind {
        BackupKind::Full => Wanted::Full,
        BackupKind::Incremental => Wanted::increment(&installation.config),
    };
    let mut lines = Vec::new();
    let (mut taken, mut first_error) = (0, None);
    for store in chosen(installation, stores) {
        // One store that cannot be backed up does not spare the others.
        match take_and_lock(installation, &store, wanted).await {
            Ok((row, unlocked)) => {
                taken += 1;
                if let Some(why) = &row.why_full {
                    tracing::info!(store, snapshot = row.id, why, "a full snapshot was taken instead of an increment");
                }
                let why = row.why_full.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
                lines.push(format!("{store}: {}{why}, {} rows, {} bytes", row.kind, row.rows, row.bytes));
                if let Some(error) = unlocked {
                    let why = error.with_causes();
                    lines.push(format!("{store}: earlier objects of its chain are not locked as long: {why}"));
                    first_error.get_or_insert(error);
                }
            }
            Err(TaskError::Stopping) => return Err(TaskError::Stopping),
            Err(error) => {
                lines.push(format!("{store} was not backed up: {}", error.with_causes()));
                first_error.get_or_insert(error);
            }
        }
        installation.renew_lease().await?;
    }
    match first_error {
        Some(error) if taken == 0 => Err(error),
        Some(_) => Ok(Done { state: "partial", ..Done::good("backup", lines.join("; ")) }),
        None => Ok(Done::good("backup", lines.join("; "))),
    }
}
