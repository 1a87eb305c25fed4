//! `certificate export`: a certificate with its receipt for stock verifiers, evidence and public keys beside it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::{Document, Exit, Outcome, UserError, Words};
use super::{Stored, find};
use crate::audit::receipt::bundle;
use crate::certify::dsse::Envelope;
use crate::installation::audit_log_key;
use crate::tasks::TaskError;

/// The JSON of `certificate export`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExportDocument {
    /// Always `complete`.
    result: Outcome,
    /// The certificate's id.
    certificate: String,
    /// The file with certificate and receipt (Sigstore bundle v0.3), to hand out.
    bundle: PathBuf,
    /// The file with the keyed digests of what was erased; it stays with you.
    evidence: PathBuf,
    /// The file with the signer's public key (PEM).
    signer: PathBuf,
    /// The file with the log's public key (C2SP vkey).
    log_key: PathBuf,
}

impl Document for ExportDocument {
    const OF: &'static [&'static str] = &["certificate export"];
}

/// The name of a file beside an exported bundle: `c.sigstore.json` gives `c.signer.pem`.
pub(super) fn beside(bundle: &Path, ending: &str) -> PathBuf {
    let name = bundle.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(".sigstore.json").or_else(|| name.strip_suffix(".json")).unwrap_or(&name);
    bundle.with_file_name(format!("{stem}.{ending}"))
}

/// Exports. Refuses to write over files, and a certificate that is not filed yet has no bundle.
pub async fn export(context: &mut Context<'_>, id: &str, output: Option<PathBuf>) -> CommandResult {
    let stored = Stored::open(context).await?;
    let row = find(&stored.certificates, id)?;
    let receipt = stored.filing(&row.id).and_then(|filing| filing.receipt.as_deref()).ok_or_else(|| {
        let what = Words::new(
            "the certificate is not filed yet, so there is no receipt to export",
            "证书尚未存证，没有可导出的回执",
        );
        UserError::new(Exit::Failed, "NOT_FILED", what).worth_retrying(true).advise(
            "the agent files it; `wangchuan job run outbox` tries at once",
            "代理会提交；`wangchuan job run outbox` 可立即尝试",
        )
    })?;
    let proof = |error: String| task_error(TaskError::Proof(error));
    let envelope = Envelope::parse(&row.envelope).map_err(|error| proof(error.to_string()))?;
    let bytes = bundle(&envelope, receipt).map_err(|error| proof(error.to_string()))?;
    let log = audit_log_key(&stored.installation).map_err(task_error)?;
    let signers = stored.installation.signer.trusted();
    let signer =
        signers.get(envelope.key_id()).ok_or_else(|| proof("the certificate is signed by another key".to_owned()))?;
    let path = output.unwrap_or_else(|| PathBuf::from(format!("certificate-{}.sigstore.json", row.sequence)));
    let document = ExportDocument {
        result: Outcome::Complete,
        certificate: row.id.clone(),
        evidence: beside(&path, "evidence.ndjson"),
        signer: beside(&path, "signer.pem"),
        log_key: beside(&path, "log.vkey"),
        bundle: path,
    };
    write_all(&[
        (&document.evidence, &row.evidence),
        (&document.signer, signer.to_pem().as_bytes()),
        (&document.log_key, format!("{}\n", log.verifier_key()).as_bytes()),
        (&document.bundle, &bytes),
    ])?;
    let (shown, evidence) = (document.bundle.display(), document.evidence.display());
    context.output.say(&Words::new(
        format!("{shown}: certificate and receipt, for you to hand out\n{evidence}: keyed digests of what was erased; it stays with you"),
        format!("{shown}：证书和回执，可以交给他人\n{evidence}：被删除内容的带密钥摘要，由您自己保存"),
    ))?;
    context.output.note(&Words::new(
        format!(
            "hand the keys {} and {} over another way than the certificate",
            document.signer.display(),
            document.log_key.display()
        ),
        format!("公钥 {} 和 {} 请以不同于证书的途径交付", document.signer.display(), document.log_key.display()),
    ))?;
    context.output.document(&document)?;
    stored.close().await?;
    Ok(Exit::Done)
}

/// Writes all files or, when one is there already, none.
fn write_all(files: &[(&PathBuf, &[u8])]) -> Result<(), UserError> {
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(cannot_write(path, &io::ErrorKind::AlreadyExists.into()));
    }
    for (path, bytes) in files {
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(0o600).open(path);
        opened
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .map_err(|error| cannot_write(path, &error))?;
    }
    Ok(())
}

fn cannot_write(path: &Path, error: &io::Error) -> UserError {
    let what = Words::new(format!("cannot write the file: {error}"), format!("无法写入文件：{error}"));
    UserError::new(Exit::Failed, "OUTPUT", what).at(path.display().to_string()).advise(
        "choose another name with --output; nothing is ever overwritten",
        "请用 --output 另取名称；不会覆盖任何文件",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_a_bundle_share_its_name() {
        let name = |bundle: &str| beside(Path::new(bundle), "signer.pem").display().to_string();
        assert_eq!(name("a/c.sigstore.json"), "a/c.signer.pem");
        assert_eq!(name("c.json"), "c.signer.pem");
        assert_eq!(name("certificate"), "certificate.signer.pem");
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&second, b"mine").unwrap();
        let refused = write_all(&[(&first, b"1"), (&second, b"2")]).unwrap_err();
        assert_eq!((refused.code, first.exists()), ("OUTPUT", false));
        assert_eq!(std::fs::read(&second).unwrap(), b"mine");
        std::fs::remove_file(&second).unwrap();
        write_all(&[(&first, b"1"), (&second, b"2")]).unwrap();
        assert_eq!(std::fs::read(&second).unwrap(), b"2");
    }
}
