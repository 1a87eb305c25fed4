//! Which commands are looks at customers, their requests, or what is proved of them, and are logged as such.
//!
//! Commands that change something log it themselves. What names nobody and is asked by monitoring every minute (`status`, `doctor`,
//! lists of jobs, stores, snapshots and keys) is not logged: entries of that kind would hide the others.

use chrono::{DateTime, Utc};

use super::Command;
use super::certificate::CertificateCommand;
use super::context::{Context, task_error};
use super::hold::HoldCommand;
use super::output::UserError;
use super::request::RequestCommand;
use super::run::RunCommand;
use crate::clock::{Clock as _, SystemClock};
use crate::installation::{Needs, Operation};

/// A look: its name in the log, and at what.
struct Look {
    name: &'static str,
    object: String,
}

/// The look that a command is; none for one that names nobody or logs by itself.
fn look_of(command: &Command) -> Option<Look> {
    let (name, object) = match command {
        Command::Request(RequestCommand::List) => ("request.list", "requests".to_owned()),
        Command::Request(RequestCommand::Show { number }) => ("request.show", format!("request-{number}")),
        Command::Hold(HoldCommand::List) => ("hold.list", "holds".to_owned()),
        Command::Run(RunCommand::List) => ("run.list", "runs".to_owned()),
        Command::Run(RunCommand::Show { id }) => ("run.show", typed(id)),
        Command::Certificate(CertificateCommand::List) => ("certificate.list", "certificates".to_owned()),
        Command::Certificate(CertificateCommand::Show { id }) => ("certificate.show", typed(id)),
        Command::Certificate(CertificateCommand::Export(args)) => ("certificate.export", typed(args.id())),
        _ => return None,
    };
    Some(Look { name, object })
}

/// An id as it was typed, unless it is none: who mistakes the place for a customer's number must not have it logged. Ids are
/// hexadecimal and begin with the time; a short number is a certificate's.
fn typed(id: &str) -> String {
    let is_number = id.len() <= 7 && id.bytes().all(|byte| byte.is_ascii_digit());
    let is_id =
        id.len() <= 36 && id.starts_with("01") && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if is_number || is_id || id == "latest" { id.to_owned() } else { "unknown".to_owned() }
}

/// Logs a look before anything is shown; with `--at` under the real time.
pub async fn note_look(context: &Context<'_>, command: &Command) -> Result<(), UserError> {
    let Some(look) = look_of(command) else { return Ok(()) };
    let installation = context.open(Needs::STATE).await?;
    let at: DateTime<Utc> = SystemClock.now();
    let operation =
        Operation { name: look.name, object: &look.object, outcome: "success", at: Some(at), ..Operation::default() };
    let logged = installation.log_look(operation).await;
    installation.close().await.map_err(task_error)?;
    logged.map_err(task_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_an_id_is_logged() {
        for id in ["3", "latest", "01a200dd", "01a200dd-ae98-7942-a219-b5ae24273a9e"] {
            assert_eq!(typed(id), id);
        }
        for other in ["13912345678", "C-1001", "110101199003074258", "张三", ""] {
            assert_eq!(typed(other), if other.is_empty() { "" } else { "unknown" });
        }
    }
}
