//! The way back for certificates that the audit service refused, once a person has mended why.

use crate::control::OutboxRow;
use crate::installation::{Installation, Operation};

use super::super::{Result, TaskError};

/// Lets certificates that the service refused wait to be filed again: the one with this id, or all. Each is logged before, with the
/// reason for which it was refused. Returns their ids.
///
/// # Errors
/// When the one is not refused, or the operation log or the control database cannot be written; those before it wait then.
pub async fn release_refused(installation: &Installation, only: Option<&str>) -> Result<Vec<String>> {
    let mut tx = installation.control.read().await?;
    let refused = match only {
        None => tx.outbox(Some("quarantined")).await?,
        Some(id) => tx.outbox(None).await?.into_iter().filter(|row| row.certificate == id).collect(),
    };
    drop(tx);
    if let Some(id) = only
        && refused.iter().all(|row| row.state != "quarantined")
    {
        return Err(not_refused(id, refused.first()));
    }
    let mut released = Vec::with_capacity(refused.len());
    for row in refused {
        log_release(installation, &row, "intent").await?;
        let mut tx = installation.control.begin().await?;
        let is_released = tx.release_refused(&row.certificate, installation.clock.now()).await?;
        tx.commit().await?;
        log_release(installation, &row, if is_released { "success" } else { "failure" }).await?;
        if is_released {
            released.push(row.certificate);
        }
    }
    Ok(released)
}

fn not_refused(id: &str, row: Option<&OutboxRow>) -> TaskError {
    let stands = match row.map(|row| row.state.as_str()) {
        Some("pending") => "it waits to be filed",
        Some("receipted") => "it is filed",
        Some(_) => "it was taken without a receipt",
        None => "there is no such certificate",
    };
    let advice = "see `wangchuan audit status`; without an id all that were refused are filed again";
    TaskError::refused(format!("the audit service has not refused certificate {id}: {stands}"), advice)
}

async fn log_release(installation: &Installation, row: &OutboxRow, outcome: &str) -> Result<()> {
    let refiled = Operation { name: "certificate.refile", object: &row.certificate, outcome, ..Operation::default() };
    let reason = row.problem.clone().map(|problem| ("refused_for".to_owned(), problem));
    installation.log(Operation { references: reason.into_iter().collect(), ..refiled }).await
}
