//! `certificate verify`: of a stored certificate, or of a file with nothing but public keys.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::shapes::Verification;
use super::super::output::{Document, Exit, UserError, Words};
use super::export::beside;
use super::{Stored, VerifyArgs, find};
use crate::audit::receipt::{BUNDLE_MEDIA_TYPE, LogOperator};
use crate::certify::signer::{PublicKey, TrustedKeys};
use crate::installation::{Needs, audit_log_key};
use crate::log::checkpoint::CheckpointKey;
use crate::tasks::outbox::{CertificateVerdict, check_envelope, check_receipt, verify_certificate};

/// No certificate file comes near this many bytes; evidence files may.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// One thing that was checked.
#[derive(Debug, Serialize, JsonSchema)]
struct Line {
    /// What: `signature`, `evidence`, `receipt`, …
    check: String,
    /// Whether it fits.
    good: bool,
    /// In words.
    what: String,
}

/// The JSON of `certificate verify`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VerifyDocument {
    /// `valid`, or `invalid` with exit code 1.
    result: Verification,
    /// The certificate's id; null when a file's signature does not fit.
    certificate: Option<String>,
    /// What was checked.
    checks: Vec<Line>,
}

impl Document for VerifyDocument {
    const OF: &'static [&'static str] = &["certificate verify"];
}

/// Verifies. Exit code 1 when anything does not fit.
pub async fn verify(context: &mut Context<'_>, args: VerifyArgs) -> CommandResult {
    let (verdict, certificate) = if let Some(file) = &args.file {
        verify_file(context, file, &args).await?
    } else {
        let stored = Stored::open(context).await?;
        let id = find(&stored.certificates, args.id.as_deref().unwrap_or("latest"))?.id.clone();
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
    let checks = verdict.checks.into_iter().map(|(check, good, what)| Line { check, good, what }).collect();
    output.document(&VerifyDocument { result: Verification::of(is_valid), certificate, checks })?;
    Ok(if is_valid { Exit::Done } else { Exit::Failed })
}

/// What to trust when a file is verified.
struct Trust {
    signers: TrustedKeys,
    log: Option<CheckpointKey>,
    /// Who runs the log, as far as the verifier knows.
    operator: Option<LogOperator>,
}

async fn verify_file(
    context: &mut Context<'_>,
    file: &Path,
    args: &VerifyArgs,
) -> Result<(CertificateVerdict, Option<String>), UserError> {
    let parts = read_parts(&read(file)?).map_err(|what| unusable(file, what))?;
    let evidence = match &args.evidence {
        Some(path) => Some(read_any(path)?),
        None => Some(beside(file, "evidence.ndjson"))
            .filter(|path| path.exists())
            .map(|path| read_any(&path))
            .transpose()?,
    };
    let trust = match (&args.signer, &args.log_key) {
        (Some(signer), Some(log)) => trust_of_files(signer, log)?,
        _ => trust_of_installation(context).await?,
    };
    let mut checks = check_envelope(&parts.envelope, evidence.as_deref(), &trust.signers);
    match (parts.receipt, &trust.log) {
        (Receipt::Present(receipt), Some(log)) => {
            checks.push(check_receipt(&receipt, &parts.envelope, &trust.signers, log, trust.operator));
        }
        (Receipt::Present(_), None) => checks.push(no_receipt("the log's public key is not there")),
        (Receipt::Missing, _) => checks.push(no_receipt("the bundle holds no receipt")),
        (Receipt::NotInThisForm, _) => context.output.note(&Words::new(
            "the file holds no receipt, so whether it was filed was not checked",
            "文件中没有回执，因此没有核查是否已存证",
        ))?,
    }
    if evidence.is_none() {
        context.output.note(&Words::new(
            "no evidence file was given, so its lines were not checked",
            "没有给出证据文件，因此没有核查其中各行",
        ))?;
    }
    let verified = crate::certify::verify(&parts.envelope, &trust.signers).ok();
    let id = verified.map(|found| found.statement.predicate.certificate_id);
    Ok((CertificateVerdict::of(checks), id))
}

fn no_receipt(why: &str) -> (String, bool, String) {
    ("receipt".to_owned(), false, why.to_owned())
}

fn trust_of_files(signer: &Path, log: &Path) -> Result<Trust, UserError> {
    let text = |path: &Path| String::from_utf8(read(path)?).map_err(|_| unusable(path, "not a text"));
    let key = PublicKey::from_pem(&text(signer)?).map_err(|error| unusable(signer, &error.to_string()))?;
    let log_key = CheckpointKey::parse(text(log)?.trim()).map_err(|error| unusable(log, &error.to_string()))?;
    Ok(Trust { signers: TrustedKeys::from_iter([key]), log: Some(log_key), operator: None })
}

async fn trust_of_installation(context: &Context<'_>) -> Result<Trust, UserError> {
    let installation = context.open(Needs::STATE).await?;
    let is_own = installation.is_audit_self_hosted();
    let trust = Trust {
        signers: installation.signer.trusted().clone(),
        log: audit_log_key(&installation).ok(),
        operator: Some(if is_own { LogOperator::SelfHosted } else { LogOperator::Independent }),
    };
    installation.close().await.map_err(task_error)?;
    Ok(trust)
}

/// A certificate as a file holds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// The DSSE envelope.
    pub envelope: Vec<u8>,
    /// The receipt beside it.
    pub receipt: Receipt,
}

/// The receipt in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    /// There is one.
    Present(Vec<u8>),
    /// It should be there: this is a bundle.
    Missing,
    /// A bare envelope cannot have any.
    NotInThisForm,
}

/// Takes a bundle or an envelope apart. Nothing is verified here.
pub(super) fn read_parts(bytes: &[u8]) -> Result<Parts, &'static str> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| "not JSON")?;
    if value.get("payloadType").is_some() {
        return Ok(Parts { envelope: bytes.to_vec(), receipt: Receipt::NotInThisForm });
    }
    if value.get("mediaType").and_then(Value::as_str) != Some(BUNDLE_MEDIA_TYPE) {
        return Err("neither a Sigstore bundle v0.3 nor a DSSE envelope");
    }
    let envelope = value.get("dsseEnvelope").ok_or("a bundle without an envelope")?;
    let entry = value.pointer("/verificationMaterial/tlogEntries/0");
    let receipt = entry.map_or(Receipt::Missing, |entry| Receipt::Present(entry.to_string().into_bytes()));
    Ok(Parts { envelope: envelope.to_string().into_bytes(), receipt })
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
