//! Requests that somebody ends: withdrawn by whoever asked, or turned down. One of which nothing was carried out gets a certificate
//! that says so, by a code; what is needed for it is kept with the request, whom it was about is forgotten.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::certify::codes::RefusalReason;
use crate::control::{RequestRow, Tx};
use crate::crash_point;
use crate::erase::EraseError;
use crate::installation::{Installation, Operation};
use crate::keyring::Purpose;
use crate::keys::cell::pseudonym;
use crate::keys::sealed::open_column;
use crate::tasks::erasure::RunBody;
use crate::tasks::{Result, TaskError};

use super::{WAITING, request_name};

/// Why a request was ended, kept as JSON beside it. It names no customer: the pseudonym is that of certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub reason: RefusalReason,
    /// When.
    pub at: DateTime<Utc>,
    /// Which operator ended it.
    pub by: String,
    /// The customer's pseudonym for certificates, hex; none when the key of the request was gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_ref: Option<String>,
    /// Whether its certificate is issued.
    pub certified: bool,
}

impl Refused {
    /// What is kept of a request; none of one that nobody ended so.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn of(request: &RequestRow) -> Result<Option<Self>> {
        let damaged = |_| TaskError::Inconsistent(format!("why request {} was ended is damaged", request.number));
        request.refusal.as_deref().map(|text| serde_json::from_str(text).map_err(damaged)).transpose()
    }

    /// The stored form.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn text(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|_| TaskError::Inconsistent("why a request was ended cannot be written".to_owned()))
    }
}

/// Ends a request that was not begun, or the rest of one that waits: withdrawn, or turned down for another reason. If nothing of it was
/// carried out, its certificate (`refused`) is due.
///
/// # Errors
/// Refused when it was begun: what is gone cannot be withdrawn; and for a reason that is no decision of anybody.
pub async fn cancel(installation: &Installation, number: i64, reason: RefusalReason) -> Result<()> {
    if !RefusalReason::DECISIONS.contains(&reason) {
        return Err(TaskError::refused(
            format!("`{}` is not why somebody ends a request", reason.name()),
            "see `wangchuan request cancel --help`",
        ));
    }
    installation.refuse_old_copy().await?;
    let now = installation.clock.now();
    let mut tx = installation.control.begin().await?;
    let Some(request) = tx.request(number).await? else {
        return Err(TaskError::Unknown {
            what: format!("there is no request {number}"),
            advice: "see `wangchuan request list`".to_owned(),
        });
    };
    // What a waiting request erased stays erased unless it was undone, also of one that is open again; what is left of it will
    // not go by it any more.
    let run = match &request.run {
        Some(id) => tx.run(id).await?,
        None => None,
    };
    let end = if run.is_some_and(|run| run.state != "undone") { "partly-kept" } else { "cancelled" };
    let is_withdrawn = tx.step_request(number, "received", end, None, Some(now)).await?
        || tx.step_request(number, WAITING, "partly-kept", None, Some(now)).await?;
    if !is_withdrawn {
        return Err(TaskError::refused(format!("request {number} was begun already"), "see `wangchuan request show`"));
    }
    if is_untouched(&mut tx, number).await? {
        let subject_ref = subject_ref(installation, &mut tx, &request).await?;
        let by = installation.operator.clone();
        let refused = Refused { reason, at: now, by, subject_ref, certified: false };
        tx.set_request_refusal(number, request.refusal.as_deref(), &refused.text()?).await?;
    }
    tx.retire_work(Purpose::Request.name(), &number.to_string()).await?;
    tx.void_plans("request", Some(number)).await?;
    tx.commit().await?;
    crash_point::reached("request.cancelled");
    let references = vec![("reason".to_owned(), reason.name().to_owned())];
    let object = request_name(number);
    let ended =
        Operation { name: "request.cancel", object: &object, outcome: "success", references, ..Operation::default() };
    installation.log(ended).await
}

/// Whether no run of a request took anything, or was undone: that one has a certificate which says so.
async fn is_untouched(tx: &mut Tx, number: i64) -> Result<bool> {
    for run in tx.runs_of_request(number).await? {
        if run.state == "undone" || RunBody::of(&run)?.gone() > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The pseudonym of a request's customer, while the request still knows whom it is about.
async fn subject_ref(installation: &Installation, tx: &mut Tx, request: &RequestRow) -> Result<Option<String>> {
    let number = request.number;
    let key = installation.keyring.find_work_key(tx, Purpose::Request, &number.to_string()).await?;
    let Some(key) = key else { return Ok(None) };
    let id = open_column(&key, &[b"request", &number.to_be_bytes()], &request.sealed).map_err(EraseError::from)?;
    let key = installation.keyring.work_key(tx, Purpose::Certificate, "").await?;
    Ok(Some(hex::encode(pseudonym(&key, "certificate", &[&id]))))
}
