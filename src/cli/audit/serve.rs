//! `audit serve`: an audit service in a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::{Document, Exit, Outcome, UserError, Words};
use crate::audit::BearerToken;
use crate::audit::receipt::LogOperator;
use crate::audit::service::ServiceHandle;
use crate::audit::witness::Witnesses;
use crate::certify::signer::{PublicKey, TrustedKeys};
use crate::installation::{Installation, LogService, Needs, log_refusals, serve_embedded, start_service};
use crate::log::checkpoint::CheckpointKey;

/// What to serve, and where.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The address to listen on; beyond this host only behind a proxy that ends TLS.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The folder of a log of its own, without an installation.
    #[arg(long, value_name = "FOLDER", requires_all = ["origin", "signer", "token"])]
    data: Option<PathBuf>,
    /// The name of that log; it never changes (`audit.example.com/erasures`).
    #[arg(long, value_name = "NAME", requires = "data")]
    origin: Option<String>,
    /// A public key (PEM) whose certificates it takes; as often as there are agents.
    #[arg(long, value_name = "FILE", requires = "data")]
    signer: Vec<PathBuf>,
    /// The file of the bearer token that agents must show.
    #[arg(long, value_name = "FILE", requires = "data")]
    token: Option<PathBuf>,
    /// Who runs that log, as its trust file says: independent only when none of those who file have a hand in it.
    #[arg(long, value_enum, value_name = "WHO", default_value_t = Operator::SelfHosted, requires = "data")]
    operator: Operator,
}

/// Who runs a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Operator {
    /// One of those who file.
    SelfHosted,
    /// Another party.
    Independent,
}

impl From<Operator> for LogOperator {
    fn from(operator: Operator) -> Self {
        match operator {
            Operator::SelfHosted => Self::SelfHosted,
            Operator::Independent => Self::Independent,
        }
    }
}

/// The JSON of `audit serve`, printed as soon as it listens.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ServeDocument {
    /// Always `complete`.
    result: Outcome,
    /// Where it listens.
    url: String,
    /// The log's origin.
    origin: String,
    /// The key that its heads are verified with (C2SP vkey).
    verifier_key: String,
}

impl Document for ServeDocument {
    const OF: &'static [&'static str] = &["audit serve"];
}

/// Serves until a stop is asked for; then open requests are finished.
pub async fn serve(context: &mut Context<'_>, args: ServeArgs) -> CommandResult {
    context.only_now()?;
    let installation = if args.data.is_some() { None } else { Some(context.open(Needs::STATE).await?) };
    let (service, key) = match &installation {
        Some(installation) => serve_embedded(installation, args.listen).await.map_err(task_error)?,
        None => stand_alone(context, args).await?,
    };
    let (url, origin, verifier_key) = (service.url(), key.origin().to_owned(), key.verifier_key());
    let output = &mut *context.output;
    output.say(&Words::new(
        format!("the log {origin} is served at {url}\nits key: {verifier_key}"),
        format!("日志 {origin} 的服务地址：{url}\n其公钥：{verifier_key}"),
    ))?;
    output.document(&ServeDocument { result: Outcome::Complete, url, origin, verifier_key })?;
    match installation {
        None => {
            context.stop.asked().await;
            stop(service).await?;
        }
        Some(installation) => {
            until_asked(context, &installation, &service).await;
            let refusals = service.refusals();
            stop(service).await?;
            log_refusals(&installation, &refusals).await;
            installation.close().await.map_err(task_error)?;
        }
    }
    Ok(Exit::Done)
}

/// How often who was refused is written to the operation log.
const LOG_EVERY: Duration = Duration::from_mins(1);

async fn until_asked(context: &Context<'_>, installation: &Installation, service: &ServiceHandle) {
    let refusals = service.refusals();
    loop {
        tokio::select! {
            () = context.stop.asked() => return,
            () = tokio::time::sleep(LOG_EVERY) => log_refusals(installation, &refusals).await,
        }
    }
}

async fn stop(service: ServiceHandle) -> Result<(), UserError> {
    service.stop().await.map_err(|error| UserError::from_any(error.into()))
}

async fn stand_alone(context: &Context<'_>, args: ServeArgs) -> Result<(ServiceHandle, CheckpointKey), UserError> {
    let keys: Result<Vec<PublicKey>, UserError> = args.signer.iter().map(|path| signer(path)).collect();
    let token = match &args.token {
        Some(path) => BearerToken::new(&text(path)?).map_err(|error| unusable(path, &error.to_string()))?,
        None => return Err(unusable(Path::new("--token"), "it is missing")),
    };
    let setup = LogService {
        data: args.data.unwrap_or_default(),
        origin: args.origin.unwrap_or_default(),
        bind: args.listen,
        signers: TrustedKeys::from_iter(keys?).into(),
        token,
        operator: args.operator.into(),
        witnesses: Witnesses::default(),
    };
    start_service(setup, context.clock.clone(), context.random.as_ref()).await.map_err(task_error)
}

fn signer(path: &Path) -> Result<PublicKey, UserError> {
    PublicKey::from_pem(&text(path)?).map_err(|error| unusable(path, &error.to_string()))
}

fn text(path: &Path) -> Result<String, UserError> {
    std::fs::read_to_string(path).map_err(|error| unusable(path, "cannot be read").because(error))
}

fn unusable(path: &Path, what: &str) -> UserError {
    let words = Words::new(format!("the file is not usable: {what}"), format!("文件不可用：{what}"));
    UserError::new(Exit::Usage, "FILE", words)
        .at(path.display().to_string())
        .advise("see `wangchuan audit serve --help`", "请看 `wangchuan audit serve --help`")
}
