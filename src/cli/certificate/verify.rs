//! `certificate verify`: of a stored certificate, or of a file with nothing but public keys.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error, usage};
use super::super::output::shapes::{Checked, Verification};
use super::super::output::{Document, Exit, UserError, Words};
use super::export::beside;
use super::{Stored, VerifyArgs, find};
use crate::audit::trust::{Trust, TrustError};
use crate::error::with_causes;
use crate::installation::Needs;
use crate::tasks::outbox::{CertificateVerdict, verify_certificate};
use crate::tasks::trust::{CertificateParts, Given, GivenReceipt, read_parts, trust, verify_with};

/// No certificate file comes near this many bytes; evidence files may.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The JSON of `certificate verify`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VerifyDocument {
    /// `valid`, or `invalid` with exit code 1.
    result: Verification,
    /// The certificate's id; null when a file's signature does not fit.
    certificate: Option<String>,
    /// What was checked: `signature`, `evidence`, `key`, `receipt`, `timestamp`.
    checks: Vec<Checked>,
}

impl Document for VerifyDocument {
    const OF: &'static [&'static str] = &["certificate verify"];
}

/// Verifies. Exit code 1 when anything does not fit.
pub async fn verify(context: &mut Context<'_>, args: VerifyArgs) -> CommandResult {
    // Numbers and ids have neither a dot nor a slash.
    let is_file = args.trust.is_some() || args.certificate.contains(['.', '/']);
    if !is_file && (args.evidence.is_some() || args.proof.is_some()) {
        let en = "--evidence and --proof belong to a certificate in a file";
        return Err(usage("NOT_A_FILE", en, "--evidence 和 --proof 只用于文件中的证书"));
    }
    let (verdict, certificate) = if is_file {
        verify_file(context, &args).await?
    } else {
        let stored = Stored::open(context).await?;
        let id = find(&stored.certificates, &args.certificate)?.id.clone();
        let verdict = verify_certificate(&stored.installation, &id).await.map_err(task_error)?;
        stored.close().await?;
        (verdict, Some(id))
    };
    show(context, verdict, certificate)
}

fn show(context: &mut Context<'_>, verdict: CertificateVerdict, certificate: Option<String>) -> CommandResult {
    let output = &mut *context.output;
    for (check, good, what) in &verdict.checks {
        output.line(&format!("{} {check}: {what}", if *good { "✓" } else { "✗" }))?;
    }
    let is_valid = verdict.result == "valid";
    let name = certificate.as_deref().unwrap_or("-");
    output.say(&if is_valid {
        Words::new(format!("certificate {name} is valid"), format!("证书 {name} 有效"))
    } else {
        Words::new(format!("certificate {name} is NOT valid as it stands"), format!("证书 {name} 目前无效"))
    })?;
    let checks = verdict.checks.into_iter().map(|(check, good, what)| Checked { check, good, what }).collect();
    output.document(&VerifyDocument { result: Verification::of(is_valid), certificate, checks })?;
    Ok(if is_valid { Exit::Done } else { Exit::Failed })
}

async fn verify_file(
    context: &mut Context<'_>,
    args: &VerifyArgs,
) -> Result<(CertificateVerdict, Option<String>), UserError> {
    let file = Path::new(&args.certificate);
    let mut parts = read_parts(&read(file)?).map_err(|what| unusable(file, what))?;
    if let Some(path) = &args.proof {
        if parts.receipt != GivenReceipt::NotInThisForm {
            return Err(unusable(path, "a bundle brings its own proof"));
        }
        let text = String::from_utf8(read(path)?).map_err(|_| unusable(path, "not a text"))?;
        parts.receipt = GivenReceipt::ProofText(text);
    }
    let evidence = match &args.evidence {
        Some(path) => Some(read_any(path)?),
        None => Some(beside(file, "evidence.ndjson"))
            .filter(|path| path.exists())
            .map(|path| read_any(&path))
            .transpose()?,
    };
    let trust = match &args.trust {
        Some(path) => Trust::parse(&read(path)?).map_err(|error| no_trust(path, &error))?,
        None => trust_of_installation(context).await?,
    };
    if parts.receipt == GivenReceipt::NotInThisForm {
        context.output.note(&Words::new(
            "the file holds no receipt, so whether it was filed was not checked",
            "文件中没有回执，因此没有核查是否已存证",
        ))?;
    }
    if evidence.is_none() {
        context.output.note(&Words::new(
            "no evidence file was given, so its lines were not checked",
            "没有给出证据文件，因此没有核查其中各行",
        ))?;
    }
    if !parts.stamps.is_empty() && trust.stamps.is_empty() {
        context.output.note(&Words::new(
            "the file holds a time stamp that was not checked: the trust file names no time-stamping authority",
            "文件中的时间戳未经核查：信任文件没有指定时间戳机构",
        ))?;
    }
    let CertificateParts { envelope, receipt, stamps } = parts;
    let given = Given { envelope: &envelope, receipt, stamps, evidence: evidence.as_deref(), is_chained: false };
    Ok(verify_with(&trust, &given, context.clock.now()))
}

async fn trust_of_installation(context: &Context<'_>) -> Result<Trust, UserError> {
    let installation = context.open(Needs::STATE).await?;
    let trust = trust(&installation).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    Ok(trust)
}

pub(in crate::cli) fn no_trust(path: &Path, error: &TrustError) -> UserError {
    let why = with_causes(error);
    let words = Words::new(format!("the trust file is not usable: {why}"), format!("信任文件不可用：{why}"));
    UserError::new(Exit::Usage, "TRUST_FILE", words).at(path.display().to_string()).advise(
        "ask who issued the certificate for the file of `wangchuan audit trust`",
        "请向证书签发者索取 `wangchuan audit trust` 生成的文件",
    )
}

fn read(path: &Path) -> Result<Vec<u8>, UserError> {
    let is_large = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > MAX_FILE_BYTES);
    if is_large { Err(unusable(path, "much larger than a certificate")) } else { read_any(path) }
}

fn read_any(path: &Path) -> Result<Vec<u8>, UserError> {
    std::fs::read(path).map_err(|error| unusable(path, "cannot be read").because(error))
}

fn unusable(path: &Path, what: &str) -> UserError {
    let words = Words::new(format!("the file is not usable: {what}"), format!("文件不可用：{what}"));
    UserError::new(Exit::Usage, "FILE", words).at(PathBuf::from(path).display().to_string()).advise(
        "give a file that `wangchuan certificate export` made",
        "请给出 `wangchuan certificate export` 生成的文件",
    )
}
