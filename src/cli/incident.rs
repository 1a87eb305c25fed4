//! `incident …`: the file of a case, kept as digests of its documents.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::{Context, local_time, task_error};
use super::output::shapes::{Time, Verification};
use super::output::{Document, Exit, Grid, Outcome, Words, say};
use crate::installation::Needs;
use crate::tasks::incident::{
    CaseDocument, Incident, IncidentFault, Part, add_document, close_incident, incidents, open_incident,
    verify_incidents,
};

/// Breach cases: what was found, looked into, told, done and learnt, each with its documents.
#[derive(Debug, Subcommand)]
pub enum IncidentCommand {
    /// Open the file of a case.
    #[command(after_help = "Example:\n  wangchuan incident open case-17")]
    Open {
        /// The case's id: a file number, no personal data.
        id: String,
    },
    /// Record a document by its digest. The document stays with you, and neither its name nor its content is kept.
    #[command(after_help = "Example:\n  wangchuan incident add case-17 --part find --document report.pdf")]
    Add(AddArgs),
    /// Close a case whose file has all five parts.
    #[command(after_help = "Example:\n  wangchuan incident close case-17")]
    Close {
        /// The case's id.
        id: String,
    },
    /// All cases and the parts of their files.
    #[command(after_help = "Example:\n  wangchuan incident list")]
    List,
    /// Check that no record of a case was changed or taken away and, with --documents, that the documents are there as they were.
    #[command(after_help = "Examples:\n  wangchuan incident verify\n  wangchuan incident verify --documents cases")]
    Verify {
        /// A folder with the documents, under whatever names.
        #[arg(long, value_name = "DIR")]
        documents: Option<PathBuf>,
    },
}

/// A document, and where it belongs.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The case's id.
    id: String,
    /// The part of the file.
    #[arg(long, value_parser = PossibleValuesParser::new(Part::ALL.map(Part::name))
        .try_map(|name| Part::of_name(&name).ok_or("not in the list")))]
    part: Part,
    /// The document.
    #[arg(long, value_name = "FILE")]
    document: PathBuf,
}

/// A part's name for people.
fn words(part: Part) -> (&'static str, &'static str) {
    match part {
        Part::Find => ("find", "发现"),
        Part::Investigate => ("investigate", "调查"),
        Part::Notify => ("notify", "通知"),
        Part::Fix => ("fix", "处置"),
        Part::Evaluate => ("evaluate", "评估"),
    }
}

/// The JSON of `incident open` and `incident close`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StepDocument {
    /// Always `complete`.
    result: Outcome,
    /// The case.
    incident: String,
}

impl Document for StepDocument {
    const OF: &'static [&'static str] = &["incident open", "incident close"];
}

/// The JSON of `incident add`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AddDocument {
    /// Always `complete`.
    result: Outcome,
    /// The case.
    incident: String,
    /// The part.
    part: Part,
    /// SHA-256 of the document, hex.
    sha256: String,
}

impl Document for AddDocument {
    const OF: &'static [&'static str] = &["incident add"];
}

/// The JSON of `incident list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListDocument {
    /// `complete` or `nothing-found`.
    result: Outcome,
    /// All cases.
    incidents: Vec<IncidentEntry>,
}

impl Document for ListDocument {
    const OF: &'static [&'static str] = &["incident list"];
}

/// A case.
#[derive(Debug, Serialize, JsonSchema)]
struct IncidentEntry {
    /// Its id.
    incident: String,
    /// When it was opened; null when that record is gone.
    opened_at: Option<Time>,
    /// When it was closed; null while it is open.
    closed_at: Option<Time>,
    /// How many of the five parts there are.
    parts: usize,
    /// Parts of which there is no document.
    missing: Vec<Part>,
    /// Its documents, in the order in which they were recorded.
    documents: Vec<DocumentEntry>,
}

/// A document of a case.
#[derive(Debug, Serialize, JsonSchema)]
struct DocumentEntry {
    /// The part.
    part: Part,
    /// SHA-256 of it, hex.
    sha256: String,
    /// When it was recorded.
    at: Time,
    /// By whom.
    by: String,
}

impl IncidentEntry {
    fn of(case: Incident) -> Self {
        let missing = case.missing();
        let document = |document: CaseDocument| DocumentEntry {
            part: document.part,
            sha256: document.sha256,
            at: document.at.into(),
            by: document.by,
        };
        Self {
            incident: case.id,
            opened_at: case.opened_at.map(Time::from),
            closed_at: case.closed_at.map(Time::from),
            parts: Part::ALL.len() - missing.len(),
            missing,
            documents: case.documents.into_iter().map(document).collect(),
        }
    }
}

/// The JSON of `incident verify`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VerifyDocument {
    /// `valid`, `invalid` with exit code 1, `nothing-found` without cases.
    result: Verification,
    /// How many cases.
    incidents: usize,
    /// How many documents they have.
    documents: usize,
    /// What does not fit.
    faults: Vec<IncidentFault>,
}

impl Document for VerifyDocument {
    const OF: &'static [&'static str] = &["incident verify"];
}

/// `incident …`.
pub async fn incident(context: &mut Context<'_>, command: IncidentCommand) -> CommandResult {
    match command {
        IncidentCommand::Open { id } => open(context, id).await,
        IncidentCommand::Add(args) => add(context, args).await,
        IncidentCommand::Close { id } => close(context, id).await,
        IncidentCommand::List => list(context).await,
        IncidentCommand::Verify { documents } => verify(context, documents.as_deref()).await,
    }
}

async fn open(context: &mut Context<'_>, id: String) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs::STATE).await?;
    open_incident(&installation, &id).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    context.output.say(&Words::new(
        format!("Incident {id} is open; its file wants five parts: find, investigate, notify, fix, evaluate."),
        format!("事件 {id} 已立案；其卷宗须有五部分：发现、调查、通知、处置、评估。"),
    ))?;
    context.output.document(&StepDocument { result: Outcome::Complete, incident: id })?;
    Ok(Exit::Done)
}

async fn add(context: &mut Context<'_>, args: AddArgs) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs::STATE).await?;
    let added = add_document(&installation, &args.id, args.part, &args.document).await;
    let sha256 = added.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    let (id, (en, zh)) = (args.id, words(args.part));
    context.output.say(&Words::new(
        format!("Recorded in the part `{en}` of incident {id}: {sha256}. Keep the document; only its digest is here."),
        format!("已记入事件 {id} 的“{zh}”部分：{sha256}。请妥善保存该文件；此处只有其摘要。"),
    ))?;
    context.output.document(&AddDocument { result: Outcome::Complete, incident: id, part: args.part, sha256 })?;
    Ok(Exit::Done)
}

async fn close(context: &mut Context<'_>, id: String) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs::STATE).await?;
    close_incident(&installation, &id).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    context.output.say(&Words::new(
        format!("Incident {id} is closed: 5 of 5 parts. Its records stay for at least three years."),
        format!("事件 {id} 已结案：5/5 部分齐全。其记录至少保存三年。"),
    ))?;
    context.output.document(&StepDocument { result: Outcome::Complete, incident: id })?;
    Ok(Exit::Done)
}

async fn list(context: &mut Context<'_>) -> CommandResult {
    let installation = context.open(Needs::STATE).await?;
    let cases = incidents(&installation).await.map_err(task_error)?;
    let lang = context.lang();
    let titles = [("incident", "事件"), ("opened", "立案"), ("closed", "结案"), ("parts", "部分"), ("missing", "缺少")];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    let local = |at| local_time(&installation.config, at);
    for case in &cases {
        let missing = case.missing();
        let name = |part: &Part| say(lang, words(*part).0, words(*part).1);
        let names: Vec<&str> = missing.iter().map(name).collect();
        grid.row([
            case.id.clone(),
            case.opened_at.map(local).unwrap_or_default(),
            case.closed_at.map(local).unwrap_or_default(),
            format!("{}/{}", Part::ALL.len() - missing.len(), Part::ALL.len()),
            names.join(say(lang, ", ", "、")),
        ]);
    }
    installation.close().await.map_err(task_error)?;
    if cases.is_empty() {
        context.output.say(&Words::new("there is no incident", "没有事件"))?;
    } else {
        context.output.table(&grid)?;
    }
    let result = Outcome::of_list(cases.is_empty());
    let incidents = cases.into_iter().map(IncidentEntry::of).collect();
    context.output.document(&ListDocument { result, incidents })?;
    Ok(Exit::Done)
}

async fn verify(context: &mut Context<'_>, folder: Option<&Path>) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs::STATE).await?;
    let (cases, faults) = verify_incidents(&installation, folder).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    let documents: usize = cases.iter().map(|case| case.documents.len()).sum();
    for fault in &faults {
        let case = fault.incident.as_deref().unwrap_or("-");
        let lang = context.lang();
        let part = fault.part.map_or_else(String::new, |part| format!(", {}", say(lang, words(part).0, words(part).1)));
        context.output.line(&format!("✗ {case}{part}: {}", fault.what))?;
    }
    let (result, exit) = match (cases.is_empty(), faults.is_empty()) {
        (_, false) => (Verification::Invalid, Exit::Failed),
        (true, true) => (Verification::NothingFound, Exit::Done),
        (false, true) => (Verification::Valid, Exit::Done),
    };
    let count = cases.len();
    match result {
        Verification::Valid => context.output.say(&Words::new(
            format!("✓ incidents: {count}, documents: {documents}; no record was changed or taken away"),
            format!("✓ 事件 {count} 起，文件 {documents} 份；没有记录被改动或删除"),
        ))?,
        Verification::NothingFound => context.output.say(&Words::new("there is no incident", "没有事件"))?,
        _ => {}
    }
    if folder.is_none() && documents > 0 {
        context.output.note(&Words::new(
            "whether the documents themselves are still there was not checked (--documents DIR)",
            "未核查文件本身是否仍在（--documents DIR）",
        ))?;
    }
    context.output.document(&VerifyDocument { result, incidents: count, documents, faults })?;
    Ok(exit)
}
