//! `certificate export`: a certificate with its receipt for stock verifiers, its evidence beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::{Document, Exit, Lang, Outcome, UserError, Words};
use super::page::Page;
use super::{ExportArgs, Format, Stored, find};
use crate::audit::receipt::{Grade, LogOperator, bundle, to_proof_text, verify};
use crate::audit::{acknowledgement, stamp};
use crate::certify::dsse::Envelope;
use crate::control::CertificateRow;
use crate::error::with_causes;
use crate::installation::{acknowledgement_keys, audit_log_keys, audit_log_operator, stamp_trust};
use crate::tasks::TaskError;

/// The JSON of `certificate export`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExportDocument {
    /// Always `complete`.
    result: Outcome,
    /// The certificate's id.
    certificate: String,
    /// The form that was written.
    format: Format,
    /// The file, to hand out.
    file: PathBuf,
    /// The file with the keyed digests of what was erased; it stays with you. Null where the form has none beside it.
    evidence: Option<PathBuf>,
}

impl Document for ExportDocument {
    const OF: &'static [&'static str] = &["certificate export"];
}

impl Format {
    /// How the names of such files end.
    fn ending(self) -> &'static str {
        match self {
            Self::Bundle => "sigstore.json",
            Self::Proof => "tlog-proof",
            Self::Envelope => "dsse.json",
            Self::Html => "html",
        }
    }

    /// What a file of this form holds.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Bundle => ("certificate, receipt and, if there is one, time stamp", "证书、回执及时间戳（如有）"),
            Self::Proof => ("the proof that it is in the log", "已写入日志的证明"),
            Self::Envelope => ("the certificate without its receipt", "不含回执的证书"),
            Self::Html => ("a page to read and print", "供阅读和打印的页面"),
        }
    }
}

/// The name of a file beside an exported one: `c.sigstore.json` gives `c.evidence.ndjson`.
pub(super) fn beside(file: &Path, ending: &str) -> PathBuf {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let known = [".sigstore.json", ".dsse.json", ".json"];
    let stem = known.iter().find_map(|known| name.strip_suffix(known)).unwrap_or(&name);
    file.with_file_name(format!("{stem}.{ending}"))
}

/// Exports. Refuses to write over files; before a certificate is filed there is nothing to export but the envelope.
pub async fn export(context: &mut Context<'_>, args: ExportArgs) -> CommandResult {
    let stored = Stored::open(context).await?;
    let row = find(&stored.certificates, &args.id)?;
    let receipt = stored.filing(&row.id).and_then(|filing| filing.receipt.as_deref());
    let stamp = stored.stamp(&row.id);
    let bytes = match args.format {
        Format::Html => page(&stored, row, receipt, context.lang())?.into_bytes(),
        format => content(format, row, receipt, stamp.map(|stamp| stamp.reply.as_slice()))?,
    };
    let name = || PathBuf::from(format!("certificate-{}.{}", row.sequence, args.format.ending()));
    let file = args.output.unwrap_or_else(name);
    let with_evidence = matches!(args.format, Format::Bundle | Format::Envelope);
    let evidence = with_evidence.then(|| beside(&file, "evidence.ndjson"));
    let document =
        ExportDocument { result: Outcome::Complete, certificate: row.id.clone(), format: args.format, file, evidence };
    let mut files = vec![(&document.file, bytes.as_slice())];
    files.extend(document.evidence.iter().map(|path| (path, row.evidence.as_slice())));
    write_all(&files)?;
    let (en, zh) = args.format.words();
    let shown = document.file.display();
    let output = &mut *context.output;
    output.say(&Words::new(format!("{shown}: {en}, for you to hand out"), format!("{shown}：{zh}，可以交给他人")))?;
    if let Some(evidence) = &document.evidence {
        let shown = evidence.display();
        output.say(&Words::new(
            format!("{shown}: keyed digests of what was erased; it stays with you"),
            format!("{shown}：被删除内容的带密钥摘要，由您自己保存"),
        ))?;
    }
    if args.format == Format::Bundle && receipt.is_some_and(acknowledgement::is_one) {
        output.note(&Words::new(
            "it stands in no log: stock verifiers check its signature, and only `wangchuan certificate verify` the acknowledgement in it",
            "它不在任何日志中：通用工具只能核查证书签名，其中的确认须用 `wangchuan certificate verify` 核查",
        ))?;
    }
    if args.format == Format::Bundle && stamp.is_none() && stored.installation.config.audit.timestamp.is_some() {
        output.note(&Words::new(
            "the certificate has no time stamp yet; `wangchuan audit flush` asks for it",
            "该证书尚无时间戳；可用 `wangchuan audit flush` 申请",
        ))?;
    }
    output.note(&Words::new(
        "whoever checks it needs your public keys too (`wangchuan audit trust`), by another way than the certificate",
        "核查者还需要您的公钥（`wangchuan audit trust`），请以不同于证书的途径交付",
    ))?;
    output.document(&document)?;
    stored.close().await?;
    Ok(Exit::Done)
}

fn content(
    format: Format,
    row: &CertificateRow,
    receipt: Option<&[u8]>,
    stamp: Option<&[u8]>,
) -> Result<Vec<u8>, UserError> {
    if format == Format::Envelope {
        return Ok(row.envelope.clone());
    }
    let receipt = receipt.ok_or_else(not_filed)?;
    let proof = |error: &dyn std::error::Error| task_error(TaskError::Proof(with_causes(error)));
    if format == Format::Proof {
        if acknowledgement::is_one(receipt) {
            return Err(not_in_log());
        }
        return to_proof_text(receipt).map(String::into_bytes).map_err(|error| proof(&error));
    }
    let envelope = Envelope::parse(&row.envelope).map_err(|error| proof(&error))?;
    bundle(&envelope, receipt, stamp).map_err(|error| proof(&error))
}

/// The page; one that is not filed yet says so.
fn page(stored: &Stored, row: &CertificateRow, receipt: Option<&[u8]>, lang: Lang) -> Result<String, UserError> {
    let proof = |error: &dyn std::error::Error| task_error(TaskError::Proof(with_causes(error)));
    let installation = &stored.installation;
    let trusted = installation.signer.trusted();
    let certificate = crate::certify::verify(&row.envelope, trusted).map_err(|error| proof(&error))?;
    let envelope = Envelope::parse(&row.envelope).map_err(|error| proof(&error))?;
    let signer = trusted.get(&certificate.key_id);
    let verified = receipt.zip(signer).and_then(|(receipt, signer)| {
        let logs = audit_log_keys(installation).unwrap_or_default();
        let found = logs.iter().find_map(|log| Some((verify(receipt, &envelope, signer, log).ok()?, log)));
        let (found, log) = found?;
        let operator = audit_log_operator(installation, log);
        Some((found.witnessed_by(&installation.config.audit.quorum), operator))
    });
    let logged = verified.as_ref().map(|(found, operator)| (found, grade_words(found.grade, *operator)));
    let keys = acknowledgement_keys(installation).unwrap_or_default();
    let now = installation.clock.now();
    let signed = receipt.and_then(|receipt| acknowledgement::verify(receipt, &certificate, &keys, now).ok());
    let signed = signed.map(|found| (found, grade_words(Grade::C, LogOperator::SelfHosted)));
    let replaced_by = stored.successor(&row.id).map(|later| later.sequence);
    let config = &installation.config;
    let trusted = stamp_trust(installation).map_err(task_error)?;
    let stamp = stored.stamp(&row.id).filter(|_| !trusted.is_empty());
    let stamp = stamp.and_then(|stamp| stamp::verify(&stamp.reply, envelope.signature(), &trusted, None).ok());
    let stamp = stamp.map(|stamp| (stamp.at, stamp.authority));
    Ok(Page { certificate: &certificate, receipt: logged, signed, stamp, replaced_by, config, lang }.render())
}

/// What a grade is called; the English is what documents hold.
fn grade_words(grade: Grade, operator: LogOperator) -> Words {
    let zh = match (grade, operator) {
        (Grade::A, LogOperator::SelfHosted) => "日志由被审计方自己运行，有见证人",
        (Grade::A, LogOperator::Independent) => "独立日志，有见证人",
        (Grade::B, LogOperator::SelfHosted) => "日志由被审计方自己运行，没有见证人",
        (Grade::B, LogOperator::Independent) => "独立日志，没有见证人",
        (Grade::C, _) => "有签名的确认，没有日志",
        (Grade::D, _) => "仅有答复，没有证明",
    };
    Words::new(grade.describe(operator), zh)
}

fn not_filed() -> UserError {
    let what = Words::new(
        "the certificate is not filed yet, so there is no receipt to export",
        "证书尚未存证，没有可导出的回执",
    );
    UserError::new(Exit::Failed, "NOT_FILED", what).worth_retrying(true).advise(
        "the agent files it; `wangchuan job run outbox` tries at once",
        "代理会提交；`wangchuan job run outbox` 可立即尝试",
    )
}

fn not_in_log() -> UserError {
    let what = Words::new(
        "the certificate stands in no log: its receipt is a signed acknowledgement",
        "证书不在任何日志中：其回执是签名确认",
    );
    UserError::new(Exit::Failed, "NO_LOG", what)
        .advise("export it as a bundle, which holds the acknowledgement", "请导出为 bundle，其中含有该确认")
}

/// Writes all files or, when one is there already, none.
pub(in crate::cli) fn write_all(files: &[(&PathBuf, &[u8])]) -> Result<(), UserError> {
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(cannot_write(path, &io::ErrorKind::AlreadyExists.into()));
    }
    for (path, bytes) in files {
        write_whole(path, bytes).map_err(|error| cannot_write(path, &error))?;
    }
    Ok(())
}

/// Writes a file beside its name, flushes it and gives it the name: one that has the name is whole, whatever happens.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let draft = path.with_file_name(format!(".{}.wangchuan-draft", name.to_string_lossy()));
    // Left over from one that was killed.
    if let Err(error) = fs::remove_file(&draft)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| give_name(&draft, path));
    let _ = fs::remove_file(&draft);
    written?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Unlike a rename, a link never takes the place of another file; some file systems have none.
fn give_name(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => fs::rename(draft, path),
        linked => linked,
    }
}

pub(in crate::cli) fn cannot_write(path: &Path, error: &io::Error) -> UserError {
    let what = Words::new(
        format!("cannot write {}: {error}", path.display()),
        format!("无法写入 {}：{error}", path.display()),
    );
    let (en, zh) = if error.kind() == io::ErrorKind::AlreadyExists {
        ("choose another name with --output; nothing is ever overwritten", "请用 --output 另取名称；不会覆盖任何文件")
    } else {
        ("name a place with --output that can be written to and has room", "请用 --output 给出可写且有足够空间的位置")
    };
    UserError::new(Exit::Failed, "OUTPUT", what).advise(en, zh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_an_exported_one_share_its_name() {
        let name = |file: &str| beside(Path::new(file), "evidence.ndjson").display().to_string();
        assert_eq!(name("a/c.sigstore.json"), "a/c.evidence.ndjson");
        assert_eq!(name("c.dsse.json"), "c.evidence.ndjson");
        assert_eq!(name("c.json"), "c.evidence.ndjson");
        assert_eq!(name("certificate"), "certificate.evidence.ndjson");
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
        // Half of one, left over from a kill.
        std::fs::write(folder.path().join(".b.wangchuan-draft"), b"half").unwrap();
        write_all(&[(&first, b"1"), (&second, b"2")]).unwrap();
        assert_eq!(std::fs::read(&second).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no draft stays");
    }
}
