//! `evidence-pack`: everything for an inspection in one folder, and its verification by whoever has the folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::certificate::{cannot_write, no_trust, write_all};
use super::context::{Context, task_error, usage};
use super::output::shapes::{Checked, Time, Verification};
use super::output::{Document, Exit, Outcome, Output, UserError, Words, harmless};
use crate::audit::trust::Trust;
use crate::control::time_text;
use crate::installation::Needs;
use crate::log::tree::sha256;
use crate::tasks::evidence_pack::{
    MANIFEST, PackCheck, PackFault, PackFiles, PackVerdict, make_pack, own_trust, verify_pack,
};

/// Arguments of `evidence-pack`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  wangchuan evidence-pack --from 2026-01-01 --to 2026-03-31 --output evidence-2026-q1
  wangchuan evidence-pack verify evidence-2026-q1 --trust trust.json")]
pub struct EvidencePackArgs {
    /// The first day.
    #[arg(long, value_name = "DAY", required = true)]
    from: Option<NaiveDate>,
    /// The last day.
    #[arg(long, value_name = "DAY", required = true)]
    to: Option<NaiveDate>,
    /// A new folder.
    #[arg(long, value_name = "DIR", required = true)]
    output: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<EvidencePackCommand>,
}

/// What else can be done with a pack.
#[derive(Debug, Subcommand)]
enum EvidencePackCommand {
    /// Check a pack: every file, signature, receipt and proof in it, and that nothing of the period is missing.
    ///
    /// Neither an installation nor a network is needed. Exit code 1 when anything was changed, removed or added; each is named.
    #[command(after_help = "Examples:
  wangchuan evidence-pack verify evidence-2026-q1 --trust trust.json
  wangchuan evidence-pack verify evidence-2026-q1 --report report-2026-03.json
  wangchuan evidence-pack verify . --json | jq .faults")]
    Verify(VerifyArgs),
}

/// What to verify.
#[derive(Debug, Args)]
struct VerifyArgs {
    /// The folder.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Whom to trust: a file of `audit trust` that came another way. Without it the pack's own is used.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Also a report (`wangchuan report monthly --output`) of days that the pack covers: its numbers are counted again.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The JSON of `evidence-pack`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MakeDocument {
    /// `complete`; `partial` with exit code 4 when what is there does not fit by itself: the pack says it as it is.
    result: Outcome,
    /// The folder.
    folder: PathBuf,
    /// The pack's id.
    pack: String,
    /// The first day.
    from: NaiveDate,
    /// The last day.
    to: NaiveDate,
    /// How many files, the manifest included.
    files: u64,
    /// Bytes of all of them.
    bytes: u64,
    /// SHA-256 of the manifest, hex: with it on the record of handing over, nothing can be exchanged afterwards.
    manifest_sha256: String,
    /// The key that signed the manifest (SHA-256 of it).
    key_id: String,
    /// The number of the first certificate; null without any.
    first_certificate: Option<u64>,
    /// The number of the last one.
    last_certificate: Option<u64>,
    /// Entries of the operation log.
    entries: u64,
    /// Records of drills.
    drills: u64,
    /// What does not fit, as `evidence-pack verify` names it.
    faults: Vec<PackFaultEntry>,
}

impl Document for MakeDocument {
    const OF: &'static [&'static str] = &["evidence-pack"];
}

/// The JSON of `evidence-pack verify`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VerifyDocument {
    /// `valid`, or `invalid` with exit code 1.
    result: Verification,
    /// The folder.
    folder: PathBuf,
    /// The first day of the period; null, like all that the manifest says, when that cannot be believed.
    from: Option<NaiveDate>,
    /// The last day.
    to: Option<NaiveDate>,
    /// When the pack was made.
    made_at: Option<Time>,
    /// Whether its period was over then; of what came later it says nothing.
    is_over: Option<bool>,
    /// The key that signed the manifest.
    key_id: Option<String>,
    /// Whether the trust file came another way than the pack.
    is_trust_given: bool,
    /// What was checked: `manifest`, `files`, `certificates`, `log`, `roll-ups`, `drills`, `policies`, `holds`, `completeness`, `report`.
    checks: Vec<Checked>,
    /// What was changed, removed or added, one by one.
    faults: Vec<PackFaultEntry>,
    /// Certificates that were not filed, or taken without a receipt, when the pack was made, by number.
    without_receipt: Vec<u64>,
    /// Entries of the operation log whose content had expired; their digests are proven like the others.
    expired: u64,
    /// Different keys of which certificates tell the destruction.
    keys_destroyed: u64,
}

impl Document for VerifyDocument {
    const OF: &'static [&'static str] = &["evidence-pack verify"];
}

/// Something that does not fit.
#[derive(Debug, Serialize, JsonSchema)]
struct PackFaultEntry {
    /// The check that found it.
    check: String,
    /// The file; null where it is not about one.
    file: Option<String>,
    /// What is wrong.
    what: String,
}

/// `evidence-pack …`.
pub async fn evidence_pack(context: &mut Context<'_>, args: EvidencePackArgs) -> CommandResult {
    match (args.command, args.from.zip(args.to), args.output) {
        (Some(EvidencePackCommand::Verify(args)), ..) => verify(context, args),
        (None, Some(period), Some(folder)) => make(context, period, folder).await,
        _ => Err(usage("PERIOD", "give --from, --to and --output", "请给出 --from、--to 和 --output")),
    }
}

async fn make(context: &mut Context<'_>, (from, to): (NaiveDate, NaiveDate), folder: PathBuf) -> CommandResult {
    context.only_now()?;
    if folder.exists() {
        return Err(cannot_write(&folder, &io::ErrorKind::AlreadyExists.into()));
    }
    let installation = context.open(Needs::STATE).await?;
    let made = make_pack(&installation, from, to).await.map_err(task_error)?;
    let key_id = installation.signer.key_id().to_owned();
    installation.close().await.map_err(task_error)?;
    fs::create_dir(&folder).map_err(|error| cannot_write(&folder, &error))?;
    if let Err(error) = write(&folder, &made.files) {
        // Half a pack is none, and would stand in the way of the next.
        let _ = fs::remove_dir_all(&folder);
        return Err(error);
    }
    let said = &made.manifest.predicate;
    let faults = faults_of(&made.checks);
    let document = MakeDocument {
        result: if faults.is_empty() { Outcome::Complete } else { Outcome::Partial },
        folder,
        pack: said.pack_id.clone(),
        from,
        to,
        files: made.files.len() as u64,
        bytes: made.files.values().map(|bytes| bytes.len() as u64).sum(),
        manifest_sha256: hex::encode(sha256(made.files.get(MANIFEST).map(Vec::as_slice).unwrap_or_default())),
        key_id,
        first_certificate: said.certificates.map(|numbers| numbers.first),
        last_certificate: said.certificates.map(|numbers| numbers.last),
        entries: said.operation_log.entries,
        drills: made.files.keys().filter(|name| name.starts_with("drills/")).count() as u64,
        faults,
    };
    let output = &mut *context.output;
    show_faults(output, &made.checks)?;
    let (shown, files) = (document.folder.display(), document.files);
    output.say(&Words::new(
        format!("{shown}: {files} files of {from} to {to}; README.txt in it says how to check them"),
        format!("{shown}：{from} 至 {to} 的 {files} 个文件；其中 README.txt 说明如何核查"),
    ))?;
    let digest = &document.manifest_sha256;
    output.say(&Words::new(
        format!("SHA-256 of its manifest, for the record of handing it over: {digest}"),
        format!("清单的 SHA-256（可写入移交记录）：{digest}"),
    ))?;
    if said.made_at < said.until {
        output.note(&Words::new(
            "the period is not over: of what comes later the pack says nothing",
            "期间尚未结束：此后的内容不在证据包中",
        ))?;
    }
    output.note(&Words::new(
        "give the trust file (`wangchuan audit trust`) to whoever checks it by another way",
        "请以其他途径将信任文件（`wangchuan audit trust`）交给核查者",
    ))?;
    output.document(&document)?;
    Ok(if document.faults.is_empty() { Exit::Done } else { Exit::Partial })
}

fn faults_of(checks: &[PackCheck]) -> Vec<PackFaultEntry> {
    let faults = checks.iter().flat_map(|check| check.faults.iter().map(move |fault| (check.name, fault)));
    let entry = |(check, fault): (&str, &PackFault)| PackFaultEntry {
        check: check.to_owned(),
        file: fault.file.clone(),
        what: fault.what.clone(),
    };
    faults.map(entry).collect()
}

fn show_faults(output: &mut Output, checks: &[PackCheck]) -> Result<(), UserError> {
    for (check, fault) in checks.iter().flat_map(|check| check.faults.iter().map(move |fault| (check, fault))) {
        let file = fault.file.as_ref().map_or_else(String::new, |file| format!("{file} "));
        // Names and texts of a folder that somebody handed over.
        output.line(&harmless(&format!("✗ {}: {file}{}", check.name, fault.what)))?;
    }
    Ok(())
}

/// Writes the files of a folder that was just made, the manifest last: without one it is no pack.
fn write(folder: &Path, files: &PackFiles) -> Result<(), UserError> {
    let mut paths: Vec<(PathBuf, &[u8])> = Vec::new();
    let (manifest, others): (Vec<_>, Vec<_>) = files.iter().partition(|(name, _)| *name == MANIFEST);
    for (name, bytes) in others.into_iter().chain(manifest) {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| cannot_write(parent, &error))?;
        }
        paths.push((path, bytes));
    }
    let files: Vec<(&PathBuf, &[u8])> = paths.iter().map(|(path, bytes)| (path, *bytes)).collect();
    write_all(&files)
}

fn verify(context: &mut Context<'_>, args: VerifyArgs) -> CommandResult {
    let files = read_folder(&args.folder)?;
    let trust = match &args.trust {
        Some(path) => {
            let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
            Trust::parse(&bytes).map_err(|error| no_trust(path, &error))?
        }
        None => own_trust(&files).map_err(|what| {
            let words = Words::new(
                format!("the pack's own trust file cannot be used: {what}"),
                format!("证据包自带的信任文件不可用：{what}"),
            );
            UserError::new(Exit::Failed, "TRUST_FILE", words)
                .at(args.folder.display().to_string())
                .advise("give the issuer's trust file with --trust", "请用 --trust 给出签发者的信任文件")
        })?,
    };
    let report =
        args.report.as_ref().map(|path| fs::read(path).map_err(|error| unreadable(path, &error))).transpose()?;
    let name = args.report.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let report = report.as_deref().map(|bytes| (name.as_str(), bytes));
    let verdict = verify_pack(&files, report, &trust, context.clock.now());
    let is_trust_given = args.trust.is_some();
    show(context.output, &verdict, is_trust_given)?;
    let is_valid = verdict.is_valid();
    let said = verdict.manifest.as_ref().map(|manifest| &manifest.predicate);
    let checked = verdict.checks.iter().map(|check| Checked {
        check: check.name.to_owned(),
        good: check.faults.is_empty(),
        what: if check.faults.is_empty() { check.said.clone() } else { format!("faults: {}", check.faults.len()) },
    });
    context.output.document(&VerifyDocument {
        result: Verification::of(is_valid),
        folder: args.folder,
        from: said.map(|said| said.from),
        to: said.map(|said| said.to),
        made_at: said.map(|said| said.made_at.instant().into()),
        is_over: said.map(|_| verdict.covers_until().is_none()),
        key_id: verdict.key_id.clone(),
        is_trust_given,
        checks: checked.collect(),
        faults: faults_of(&verdict.checks),
        without_receipt: verdict.without_receipt.clone(),
        expired: verdict.expired,
        keys_destroyed: verdict.keys_destroyed,
    })?;
    Ok(if is_valid { Exit::Done } else { Exit::Failed })
}

fn show(output: &mut Output, verdict: &PackVerdict, is_trust_given: bool) -> Result<(), UserError> {
    for check in verdict.checks.iter().filter(|check| check.faults.is_empty()) {
        output.line(&harmless(&format!("✓ {}: {}", check.name, check.said)))?;
    }
    show_faults(output, &verdict.checks)?;
    let count = verdict.without_receipt.len();
    if count > 0 {
        output.note(&Words::new(
            format!(
                "certificates without a receipt, so that nobody but the issuer shows that they were filed: {count}"
            ),
            format!("没有回执的证书（仅凭签发者自己的说法）：{count}"),
        ))?;
    }
    if verdict.expired > 0 {
        let expired = verdict.expired;
        output.note(&Words::new(
            format!(
                "entries of the operation log whose content had expired: {expired}; what they said was not checked"
            ),
            format!("操作日志中内容已过期的条目：{expired}；其内容未经核查"),
        ))?;
    }
    if !is_trust_given {
        output.note(&Words::new(
            "the pack's own trust file was used: whoever makes a pack makes that too. Compare the key id by voice, or give --trust",
            "使用的是证据包自带的信任文件：制作证据包的人也能制作它。请口头核对密钥编号，或用 --trust 另行给出",
        ))?;
        if let Some(key) = &verdict.key_id {
            output.say(&Words::new(format!("certificate key {key}"), format!("证书密钥 {key}")))?;
        }
    }
    output.say(&if let (true, Some(made)) = (verdict.is_valid(), verdict.covers_until()) {
        let made = time_text(made);
        Words::new(
            format!("the pack is what was signed; it was made at {made}, before its period was over: of what came later it says nothing"),
            format!("证据包与签名一致；制作于 {made}，当时期间尚未结束，此后的内容不在其中"),
        )
    } else if verdict.is_valid() {
        Words::new(
            "the pack is what was signed, and nothing of its period is missing",
            "证据包与签名一致，该期间内没有缺失",
        )
    } else {
        Words::new("the pack is NOT what was signed, or something is missing", "证据包与签名不一致，或有缺失")
    })?;
    Ok(())
}

/// Every file below a folder, by its name from there. What a link leads to is not read: a link is no file of a pack.
fn read_folder(folder: &Path) -> Result<PackFiles, UserError> {
    let mut files = BTreeMap::new();
    let mut open = vec![(folder.to_owned(), String::new())];
    while let Some((place, prefix)) = open.pop() {
        for entry in fs::read_dir(&place).map_err(|error| unreadable(&place, &error))? {
            let entry = entry.map_err(|error| unreadable(&place, &error))?;
            let (path, name) = (entry.path(), format!("{prefix}{}", entry.file_name().to_string_lossy()));
            let kind = entry.file_type().map_err(|error| unreadable(&path, &error))?;
            if kind.is_dir() {
                open.push((path, format!("{name}/")));
            } else if kind.is_file() {
                let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
                files.insert(name, bytes);
            } else {
                files.insert(name, b"not a file".to_vec());
            }
        }
    }
    Ok(files)
}

fn unreadable(path: &Path, error: &io::Error) -> UserError {
    let what = Words::new(format!("cannot be read: {error}"), format!("无法读取：{error}"));
    UserError::new(Exit::Usage, "FILE", what)
        .at(path.display().to_string())
        .advise("name the folder that `wangchuan evidence-pack` made", "请给出 `wangchuan evidence-pack` 生成的文件夹")
}
