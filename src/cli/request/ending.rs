//! `request cancel`: a request is withdrawn, or turned down.

use super::super::CommandResult;
use super::super::context::{Context, certify_now, task_error};
use super::super::output::{Exit, Words};
use super::super::run::{UndoDocument, show_undo};
use crate::certify::codes::RefusalReason;
use crate::installation::Needs;
use crate::tasks::TaskError;
use crate::tasks::request::{WAITING, cancel};
use crate::tasks::undo::undo_request;

/// Why a request is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EndReason {
    /// Whoever asked withdrew it.
    Withdrawn,
    /// Nobody could tell who asked.
    NotIdentified,
    /// It is manifestly unfounded or excessive (GDPR Art. 12(5)).
    Unfounded,
    /// An exception of the law lets the company keep the data (GDPR Art. 17(3), PIPL Art. 47 para. 2).
    Exempt,
    /// The same was asked for before.
    Duplicate,
}

impl EndReason {
    /// The code that certificates have.
    pub fn code(self) -> RefusalReason {
        match self {
            Self::Withdrawn => RefusalReason::Withdrawn,
            Self::NotIdentified => RefusalReason::NotIdentified,
            Self::Unfounded => RefusalReason::Unfounded,
            Self::Exempt => RefusalReason::Exempt,
            Self::Duplicate => RefusalReason::Duplicate,
        }
    }
}

/// Ends it: undone while that is possible, otherwise closed, with the certificate of a request of which nothing was carried out.
pub async fn end(context: &mut Context<'_>, number: i64, reason: RefusalReason) -> CommandResult {
    context.only_now()?;
    let (_, control) = context.control().await?;
    let look = async { control.read().await?.request(number).await };
    let found = look.await.map_err(|error| task_error(TaskError::Control(error)))?;
    let is_waiting = found.as_ref().is_some_and(|request| [WAITING, "received"].contains(&request.state.as_str()));
    let installation = if found.is_some_and(|request| request.run.is_some()) {
        let installation = context.open(Needs::ALL).await?;
        match undo_request(&installation, number).await {
            Ok(report) => {
                if reason != RefusalReason::Withdrawn {
                    let code = reason.name();
                    context.output.note(&Words::new(
                        format!("`{code}` stands in no certificate: what had been erased is there again, and that is what it says"),
                        format!("事由 `{code}` 不载入证书：已擦除的内容已恢复，证书仅载明此事"),
                    ))?;
                }
                return show_undo(context, installation, &report, Some(number)).await;
            }
            Err(TaskError::Refused { .. }) if is_waiting => installation,
            Err(error) => return Err(task_error(error)),
        }
    } else {
        context.open(Needs::STATE).await?
    };
    cancel(&installation, number, reason).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    context.output.say(&match reason {
        RefusalReason::Withdrawn => {
            Words::new(format!("Request {number} is withdrawn."), format!("请求 {number} 已撤回。"))
        }
        _ => Words::new(
            format!("Request {number} is turned down: {}.", reason.name()),
            format!("请求 {number} 已驳回：{}。", reason.name()),
        ),
    })?;
    let certificates = certify_now(context).await?;
    context.output.document(&UndoDocument::of_waiting(number, certificates))?;
    Ok(Exit::Done)
}
