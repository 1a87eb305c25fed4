//! Requests that wait: rows of theirs were kept by a hold or a statute, or could not be reached or erased. They are carried out again, by
//! themselves, once the hold is released, the statute's period is over or a day has passed since something failed, and once whenever policies,
//! statutes or registry are others.

use crate::control::{RequestRow, Tx};
use crate::erase::waits::Waits;
use crate::installation::Installation;

use super::super::{Result, TaskError};

/// The state of a request of which a part, or everything, waits.
pub const WAITING: &str = "waiting";

/// Makes every waiting request open again for which what it waited for has come; returns their numbers.
///
/// # Errors
/// When the control database fails.
pub async fn reopen_waiting(installation: &Installation) -> Result<Vec<i64>> {
    let mut tx = installation.control.begin().await?;
    let mut reopened = Vec::new();
    for request in tx.requests(Some(WAITING)).await? {
        if reopen(installation, &mut tx, &request, false).await? {
            reopened.push(request.number);
        }
    }
    tx.commit().await?;
    for number in &reopened {
        installation.log_operation("request.resume", &format!("request-{number}"), "success").await?;
    }
    Ok(reopened)
}

/// Makes one waiting request open again, if what it waited for has come; or if somebody asks, where it was to be tried again later.
async fn reopen(installation: &Installation, tx: &mut Tx, request: &RequestRow, is_asked: bool) -> Result<bool> {
    let ground = installation.ground()?;
    let active: Vec<String> = tx.holds(true).await?.into_iter().map(|hold| hold.id).collect();
    let waits = Waits::of(request.waits.as_deref());
    let is_over = waits.is_over(&active, ground.policy_digest, ground.clock.now());
    Ok((is_over || is_asked && waits.again.is_some())
        && tx.step_request(request.number, WAITING, "received", None, None).await?)
}

/// Opens a request again that somebody asks for by its number.
///
/// # Errors
/// Refused while what it waits for has not come; the words name it.
pub(super) async fn reopen_or_refuse(installation: &Installation, request: &RequestRow) -> Result<()> {
    let mut tx = installation.control.begin().await?;
    if reopen(installation, &mut tx, request, true).await? {
        tx.commit().await?;
        return installation.log_operation("request.resume", &format!("request-{}", request.number), "success").await;
    }
    let waits = Waits::of(request.waits.as_deref());
    let mut what = Vec::new();
    if !waits.holds.is_empty() {
        what.push(format!("the release of hold {}", waits.holds.join(" or ")));
    }
    what.extend(waits.until.map(|until| format!("{}, when a statute ends", until.format("%Y-%m-%d"))));
    if what.is_empty() {
        return Err(TaskError::refused(
            format!(
                "request {} waits for somebody to decide: it is about rows in collections that are registered no more, or there are \
                 rows in collections that are registered since, and nobody knows whether they came after it",
                request.number
            ),
            "ask again for the customer (`wangchuan request new`: about everything they own now), register the collections as they \
             were, or withdraw it (`wangchuan request cancel`)",
        ));
    }
    Err(TaskError::refused(
        format!("request {} waits for {}", request.number, what.join(" or for ")),
        "nothing needs to be done: it is carried out by itself then",
    ))
}
