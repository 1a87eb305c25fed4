//! `audit conformance`.

use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use zeroize::Zeroizing;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::shapes::Verification;
use super::super::output::{Document, Exit, UserError, Words};
use crate::audit::BearerToken;
use crate::audit::client::conformance::trial::Trial;
use crate::audit::client::conformance::{Conformance, Finding};
use crate::audit::client::{Access, AuditClient, ClientIdentity, ClientSetup, Patience};
use crate::certify::signer::{CertificateSigner, TrustedKeys};
use crate::config::secret_file;
use crate::error::with_causes;
use crate::installation::{Installation, Needs};
use crate::log::checkpoint::CheckpointKey;
use crate::policy::registry::SecretText;

/// One rule of the contract.
#[derive(Debug, Serialize, JsonSchema)]
struct Tried {
    /// Its name.
    rule: &'static str,
    /// What the contract wants.
    wanted: &'static str,
    /// Whether the service keeps it.
    good: bool,
    /// Whether filing fails or proves less without it; the others are recommendations.
    required: bool,
    /// What was found.
    found: String,
}

/// The JSON of `audit conformance`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConformanceDocument {
    /// `valid` when every required rule is kept; otherwise `invalid` with exit code 1.
    result: Verification,
    /// All rules that were tried.
    rules: Vec<Tried>,
}

impl Document for ConformanceDocument {
    const OF: &'static [&'static str] = &["audit conformance"];
}

/// What to try.
#[derive(Debug, Args)]
pub struct ConformanceArgs {
    /// A service to try without an installation: two certificates made for the trial are filed there, and stay. Without it the
    /// configured service is tried with a certificate that is filed there already.
    #[arg(value_name = "URL", requires_all = ["log_key", "signer"])]
    url: Option<String>,
    /// The file with the public key of the service's log (C2SP vkey).
    #[arg(long, value_name = "FILE", requires = "url")]
    log_key: Option<PathBuf>,
    /// The file of a key that signs the trial's certificates, never one in use; made when it is missing, its public half beside it
    /// as FILE.pub, for the service to accept.
    #[arg(long, value_name = "FILE", requires = "url")]
    signer: Option<PathBuf>,
    /// The file of the bearer token.
    #[arg(long, value_name = "FILE", requires = "url")]
    token: Option<PathBuf>,
    /// The file of certificate authorities to trust instead of the system's (PEM).
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// The file of a client certificate (PEM).
    #[arg(long, value_name = "FILE", requires_all = ["url", "client_key"])]
    client_certificate: Option<PathBuf>,
    /// The file of the client certificate's key (PEM), which nobody else on this host may read.
    #[arg(long, value_name = "FILE", requires_all = ["url", "client_certificate"])]
    client_key: Option<PathBuf>,
}

/// Exit code 1 when a required rule is broken.
pub async fn conformance(context: &mut Context<'_>, args: ConformanceArgs) -> CommandResult {
    context.only_now()?;
    let findings = if let Some(url) = &args.url {
        trial(context, url, &args).await?
    } else {
        let installation = context.open(Needs { stores: false, ..Needs::ALL }).await?;
        let findings = run(&installation).await;
        installation.close().await.map_err(task_error)?;
        findings?
    };
    let output = &mut *context.output;
    for finding in &findings {
        let mark = match (finding.good, finding.required) {
            (true, _) => "✓",
            (false, true) => "✗",
            (false, false) => "○",
        };
        output.line(&format!("{mark} {}: {} — {}", finding.rule, finding.wanted, finding.found))?;
    }
    let broken: Vec<&str> =
        findings.iter().filter(|finding| !finding.good && finding.required).map(|finding| finding.rule).collect();
    let is_kept = broken.is_empty();
    output.say(&if is_kept {
        Words::new("every required rule is kept", "所有必要规则均符合")
    } else {
        let broken = broken.join(", ");
        Words::new(
            format!("the service breaks rules that filing relies on (✗): {broken}"),
            format!("该服务违反了存证所依赖的规则（✗）：{broken}"),
        )
    })?;
    let rule = |Finding { rule, wanted, good, required, found }| Tried { rule, wanted, good, required, found };
    let rules = findings.into_iter().map(rule).collect();
    output.document(&ConformanceDocument { result: Verification::of(is_kept), rules })?;
    Ok(if is_kept { Exit::Done } else { Exit::Failed })
}

async fn run(installation: &Installation) -> Result<Vec<Finding>, UserError> {
    let Some(client) = &installation.audit().map_err(task_error)?.client else {
        let what = Words::new(
            "a webhook has no contract beyond a 2xx and, with `acknowledged_by`, a signed answer that every filing checks",
            "网络回调除 2xx 外，仅在配置 `acknowledged_by` 时约定签名答复，每次提交都会核查",
        );
        return Err(UserError::new(Exit::Usage, "WEBHOOK", what).advise(
            "give the address of a service that keeps the contract, with --log-key and --signer",
            "请给出遵守约定的服务地址，并附上 --log-key 和 --signer",
        ));
    };
    let mut tx = installation.control.read().await.map_err(|error| task_error(error.into()))?;
    let filed = tx.newest_receipted().await.map_err(|error| task_error(error.into()))?;
    drop(tx);
    let Some(certificate) = filed else {
        let what =
            Words::new("no certificate is filed yet, and the contract is tried with one", "尚无已存证的证书可用于测试");
        return Err(UserError::new(Exit::Failed, "NOT_FILED", what)
            .advise("file one first: `wangchuan audit flush`", "请先存证：`wangchuan audit flush`"));
    };
    Ok(Conformance::new(client).run(&certificate.id, &certificate.envelope).await)
}

/// Tries a service that no installation belongs to.
async fn trial(context: &Context<'_>, url: &str, args: &ConformanceArgs) -> Result<Vec<Finding>, UserError> {
    let missing = |option: &str| unusable(Path::new(option), "it is missing");
    let log = args.log_key.as_deref().ok_or_else(|| missing("--log-key"))?;
    let log = CheckpointKey::parse(text(log)?.trim()).map_err(|error| unusable(log, &error.to_string()))?;
    let signer = trial_signer(args.signer.as_deref().ok_or_else(|| missing("--signer"))?)?;
    let token = args.token.as_deref().map(|path| {
        let text = secret(path)?;
        BearerToken::new(text.dangerous_text()).map_err(|error| unusable(path, &error.to_string()))
    });
    let client = AuditClient::new(ClientSetup {
        access: Access {
            url: url.to_owned(),
            ca_pem: args.ca.as_deref().map(bytes).transpose()?,
            identity: identity(args)?,
            patience: Patience::default(),
        },
        log,
        signers: TrustedKeys::from_iter([signer.public().clone()]),
        token: token.transpose()?,
        clock: context.clock.clone(),
    })
    .map_err(|error| {
        let what = Words::new(with_causes(&error), with_causes(&error));
        UserError::new(Exit::Usage, "AUDIT_CLIENT", what).at(url.to_owned())
    })?;
    let trial = Trial::make(&signer, context.clock.now(), context.random.as_ref());
    let trial = trial.map_err(|error| UserError::from_any(error.into()))?;
    Ok(Conformance::new(&client).run_trial(&trial).await)
}

/// The key of trials. A new one is of no use before the service knows its public half.
fn trial_signer(path: &Path) -> Result<CertificateSigner, UserError> {
    if path.exists() {
        return CertificateSigner::open(path).map_err(|error| unusable(path, &with_causes(&error)));
    }
    let made = CertificateSigner::create(path).map_err(|error| unusable(path, &with_causes(&error)))?;
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    std::fs::write(&public, made.public().to_pem())
        .map_err(|error| unusable(&public, "cannot be written").because(error))?;
    let shown = public.display();
    let what = Words::new(
        "a key for trials was made, and the service does not know it yet",
        "已生成测试用密钥，该服务尚不认识它",
    );
    Err(UserError::new(Exit::Failed, "NEW_SIGNER", what).at(shown.to_string()).worth_retrying(true).advise(
        format!("let the service take certificates by {shown}, and run this again"),
        format!("请让该服务接受 {shown} 签名的证书，然后重试"),
    ))
}

fn identity(args: &ConformanceArgs) -> Result<Option<ClientIdentity>, UserError> {
    let (Some(certificate), Some(key)) = (&args.client_certificate, &args.client_key) else { return Ok(None) };
    let key = Zeroizing::new(secret(key)?.dangerous_text().as_bytes().to_vec());
    Ok(Some(ClientIdentity { certificate: bytes(certificate)?, key }))
}

fn secret(path: &Path) -> Result<SecretText, UserError> {
    secret_file(path).map_err(|error| unusable(path, &error.to_string()).advise(error.advice(), error.advice()))
}

fn bytes(path: &Path) -> Result<Vec<u8>, UserError> {
    std::fs::read(path).map_err(|error| unusable(path, "cannot be read").because(error))
}

fn text(path: &Path) -> Result<String, UserError> {
    std::fs::read_to_string(path).map_err(|error| unusable(path, "cannot be read").because(error))
}

fn unusable(path: &Path, what: &str) -> UserError {
    let words = Words::new(format!("the file is not usable: {what}"), format!("文件不可用：{what}"));
    UserError::new(Exit::Usage, "FILE", words)
        .at(path.display().to_string())
        .advise("see `wangchuan audit conformance --help`", "请看 `wangchuan audit conformance --help`")
}
