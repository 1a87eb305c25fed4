//! Which commands are looks at customers, their requests, what is proved of them, or people who witnessed, and are logged as such.
//!
//! Commands that change something log it themselves. What names nobody and is asked by monitoring every minute (`status`, `doctor`,
//! lists of jobs, stores, snapshots and keys) is not logged: entries of that kind would hide the others.

use super::Command;
use super::certificate::CertificateCommand;
use super::context::{Context, task_error};
use super::hold::HoldCommand;
use super::incident::IncidentCommand;
use super::media::MediaCommand;
use super::output::UserError;
use super::request::RequestCommand;
use super::run::RunCommand;
use crate::clock::{Clock as _, SystemClock};
use crate::control::{CertificateRow, ControlError, RunRow};
use crate::installation::{Installation, Needs, Operation};
use crate::tasks::media::find as find_medium;

/// The name in the log of the look that a command is, and at what if that is always the same; none for one that names nobody or logs
/// by itself.
pub(super) fn look_of(command: &Command) -> Option<(&'static str, Option<&'static str>)> {
    Some(match command {
        Command::Request(RequestCommand::List) => ("request.list", Some("requests")),
        Command::Request(RequestCommand::Show { .. }) => ("request.show", None),
        Command::Hold(HoldCommand::List) => ("hold.list", Some("holds")),
        Command::Incident(IncidentCommand::List) => ("incident.list", Some("incidents")),
        Command::Run(RunCommand::List) => ("run.list", Some("runs")),
        Command::Run(RunCommand::Show { .. }) => ("run.show", None),
        Command::Media(MediaCommand::List) => ("media.list", Some("media")),
        Command::Media(MediaCommand::Show { .. }) => ("media.show", None),
        Command::Certificate(CertificateCommand::List) => ("certificate.list", Some("certificates")),
        Command::Certificate(CertificateCommand::Show { .. }) => ("certificate.show", None),
        Command::Certificate(CertificateCommand::Trace { .. }) => ("certificate.trace", None),
        Command::Certificate(CertificateCommand::Export(_)) => ("certificate.export", None),
        _ => return None,
    })
}

/// What was typed, if it names something that there is: who mistakes the place for a customer's number must not have that logged.
async fn known(installation: &Installation, command: &Command) -> Result<Option<String>, ControlError> {
    let mut tx = installation.control.read().await?;
    let certificate = match command {
        Command::Request(RequestCommand::Show { number }) => {
            return Ok(tx.request(*number).await?.map(|_| format!("request-{number}")));
        }
        Command::Run(RunCommand::Show { id }) => {
            let is_meant = |run: &RunRow| !id.is_empty() && run.id.starts_with(id.as_str());
            return Ok(tx.runs(None).await?.into_iter().find(is_meant).map(|run| run.id));
        }
        Command::Media(MediaCommand::Show { id }) => {
            let rows = tx.media().await?;
            return Ok(find_medium(&rows, id).ok().map(|row| row.id.clone()));
        }
        Command::Certificate(CertificateCommand::Show { id } | CertificateCommand::Trace { id }) => id,
        Command::Certificate(CertificateCommand::Export(args)) => args.id(),
        _ => return Ok(None),
    };
    let mut certificates = tx.certificates(None).await?;
    if certificate == "latest" {
        return Ok(certificates.pop().map(|row| row.id));
    }
    let number = certificate.parse().ok();
    let is_meant = |row: &CertificateRow| {
        number == Some(row.sequence) || (!certificate.is_empty() && row.id.starts_with(certificate))
    };
    Ok(certificates.into_iter().find(is_meant).map(|row| row.id))
}

/// Logs a look before anything is shown; with `--at` under the real time.
pub async fn note_look(context: &Context<'_>, command: &Command) -> Result<(), UserError> {
    let Some((name, always)) = look_of(command) else { return Ok(()) };
    let installation = context.open(Needs::STATE).await?;
    let logged = async {
        let object = match always {
            Some(object) => object.to_owned(),
            None => known(&installation, command).await?.unwrap_or_else(|| "unknown".to_owned()),
        };
        let look = Operation { name, object: &object, outcome: "success", ..Operation::default() };
        installation.log_look(Operation { at: Some(SystemClock.now()), ..look }).await
    };
    let logged = logged.await;
    installation.close().await.map_err(task_error)?;
    logged.map_err(task_error)
}
