//! `request`: the clerk's path. The id never needs to stand in the command line.

mod ending;

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use self::ending::{EndReason, end};
use super::CommandResult;
use super::context::{Context, certify_and_say, local_time, task_error, usage};
use super::output::shapes::Time;
use super::output::{Document, Exit, Grid, Outcome, UserError, Words};
use super::plan::{ErasureDocument, NotRun, show_run};
use super::stage::{meaning_of_run, show_remaining};
use super::subject_input::{GivenId, parse, read_file, titles, typed};
use crate::certify::codes::TriggerKind;
use crate::control::RequestRow;
use crate::installation::{Installation, Needs, Operation};
use crate::tasks::TaskError;
use crate::tasks::approval::plan_of_request;
use crate::tasks::erasure::{RunBody, execute};
use crate::tasks::finality::{Remaining, Residual};
use crate::tasks::request::{Received, Refused, SubjectCard, look_up, receive_for, reopen_waiting, request_name};

/// Requests of customers.
#[derive(Debug, clap::Subcommand)]
pub enum RequestCommand {
    /// A customer asks to be erased: shows a masked card from all stores, asks yes, and prints a receipt text.
    #[command(after_help = "Examples:
  wangchuan request new                         asks for the id
  wangchuan request new - --yes < ids.txt
  wangchuan request new --file ids.csv --yes
  wangchuan request new --reason consent-withdrawn

Lists are CSV in UTF-8, one customer a line, the id in the first column; a first line with the column's name is passed over,
blanks around an id are dropped. Nothing is recorded when a line is no plain id.")]
    New {
        /// `-` reads ids from standard input, one a line; without it you are asked for one.
        #[arg(value_parser = ["-"])]
        from: Option<String>,
        /// Read ids from the first column of a CSV file, one request each.
        #[arg(long, conflicts_with = "from")]
        file: Option<PathBuf>,
        /// Why their data is to go; it stands in the certificate.
        #[arg(long, value_enum, value_name = "CODE", default_value_t = Reason::SubjectRequest)]
        reason: Reason,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Carry a waiting request out (all waiting ones without a number).
    #[command(after_help = "Examples:\n  wangchuan request run 12\n  wangchuan request run")]
    Run {
        /// The request's number.
        number: Option<i64>,
    },
    /// All requests.
    #[command(after_help = "Example:\n  wangchuan request list")]
    List,
    /// One request.
    #[command(after_help = "Example:\n  wangchuan request show 12")]
    Show {
        /// Its number.
        number: i64,
    },
    /// Withdraw a request, or turn it down: one that waits is closed, one that was carried out is undone while its grace lasts.
    ///
    /// One of which nothing was carried out ends with a certificate: `refused`, with the reason.
    #[command(
        after_help = "Examples:\n  wangchuan request cancel 12\n  wangchuan request cancel 12 --reason not-identified"
    )]
    Cancel {
        /// Its number.
        number: i64,
        /// Why; it stands in the certificate.
        #[arg(long, value_enum, value_name = "CODE", default_value_t = EndReason::Withdrawn)]
        reason: EndReason,
    },
}

/// Why a customer's data is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Reason {
    /// The person asked for it.
    SubjectRequest,
    /// The person withdrew the consent that it rested on.
    ConsentWithdrawn,
    /// The product or service ended, or what it was for is reached.
    ServiceEnd,
    /// The contract ended.
    ContractEnd,
    /// An authority or court ordered it, or it was processed against the law.
    AuthorityOrder,
    /// Another reason, which the company has on file.
    Manual,
}

impl Reason {
    fn code(self) -> TriggerKind {
        match self {
            Self::SubjectRequest => TriggerKind::SubjectRequest,
            Self::ConsentWithdrawn => TriggerKind::ConsentWithdrawn,
            Self::ServiceEnd => TriggerKind::ServiceEnd,
            Self::ContractEnd => TriggerKind::ContractEnd,
            Self::AuthorityOrder => TriggerKind::AuthorityOrder,
            Self::Manual => TriggerKind::Manual,
        }
    }
}

/// The JSON of `request new`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NewDocument {
    /// `complete`, or `nothing-found` when nothing was recorded.
    result: Outcome,
    /// The number of the first request.
    request: Option<i64>,
    /// The numbers of all of them, those that were open already included.
    requests: Vec<i64>,
}

impl Document for NewDocument {
    const OF: &'static [&'static str] = &["request new"];
}

/// The JSON of `request list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListDocument {
    /// `complete` or `nothing-found`.
    result: Outcome,
    /// The requests by number.
    requests: Vec<RequestEntry>,
}

impl Document for ListDocument {
    const OF: &'static [&'static str] = &["request list"];
}

/// The JSON of `request show`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShowDocument {
    /// Always `complete`: whether the request was found. How it went is in `state`.
    result: Outcome,
    #[serde(flatten)]
    entry: RequestEntry,
    /// What keeps its shredded run from being final.
    residuals: Vec<Residual>,
    /// The certificates of its run, and the one that says why it was ended.
    certificates: Vec<String>,
}

impl Document for ShowDocument {
    const OF: &'static [&'static str] = &["request show"];
}

/// A request. Whom it is about is not shown.
#[derive(Debug, Serialize, JsonSchema)]
struct RequestEntry {
    /// Its number.
    request: i64,
    /// What is asked for: `erase`.
    kind: String,
    /// Why: `subject-request`, `consent-withdrawn`, `service-end`, `contract-end`, `authority-order` or `manual`.
    reason: String,
    /// `received`, `running`, `done`, `waiting`, `partly-kept`, `nothing-found`, `failed` or `cancelled`.
    state: String,
    /// When it was received.
    received_at: Time,
    /// By when it must be answered.
    due_at: Time,
    /// When it was answered or withdrawn.
    closed_at: Option<Time>,
    /// The run that carries it out.
    run: Option<String>,
    /// How far that is: `shred-pending`, `shredded`, `final`, …
    stage: Option<String>,
    /// Why somebody ended it before anything was carried out: `withdrawn`, `not-identified`, `unfounded`, `exempt` or `duplicate`.
    refusal: Option<String>,
}

impl RequestEntry {
    fn of(row: RequestRow, stage: Option<String>) -> Result<Self, TaskError> {
        let refusal = Refused::of(&row)?.map(|refused| refused.reason.name().to_owned());
        Ok(Self {
            refusal,
            request: row.number,
            kind: row.kind,
            reason: row.reason.unwrap_or_else(|| TriggerKind::SubjectRequest.name().to_owned()),
            state: row.state,
            received_at: row.received_at.into(),
            due_at: row.due_at.into(),
            closed_at: row.closed_at.map(Time::from),
            run: row.run,
            stage,
        })
    }
}

/// Runs the command.
pub async fn request(context: &mut Context<'_>, command: RequestCommand) -> CommandResult {
    match command {
        RequestCommand::New { from, file, reason, yes } => new(context, from.is_some(), file, (reason, yes)).await,
        RequestCommand::Run { number } => run(context, number).await,
        RequestCommand::List => list(context).await,
        RequestCommand::Show { number } => show(context, number).await,
        RequestCommand::Cancel { number, reason } => end(context, number, reason.code()).await,
    }
}

async fn new(
    context: &mut Context<'_>,
    from_stdin: bool,
    file: Option<PathBuf>,
    (reason, yes): (Reason, bool),
) -> CommandResult {
    context.only_now()?;
    let subjects = match file {
        Some(file) => read_file(&file, &titles(&context.configuration()?))?,
        None => read_ids(context, from_stdin)?,
    };
    let installation = context.open(Needs { stores: true, ..Needs::STATE }).await?;
    let mut numbers = Vec::new();
    let is_list = subjects.len() > 1;
    for GivenId { line, subject } in subjects {
        if is_list {
            context.output.say(&Words::new(format!("Line {line}:"), format!("第 {line} 行：")))?;
        }
        let look = Operation { name: "request.look", object: "card", outcome: "success", ..Operation::default() };
        installation.log_look(Operation { subject: Some(&subject), ..look }).await.map_err(task_error)?;
        let card = look_up(&installation, &subject).await.map_err(task_error)?;
        show_card(context, &card)?;
        if !yes && !confirm(context)? {
            context.output.say(&Words::new("Nothing was recorded.", "未登记任何请求。"))?;
            continue;
        }
        let received = receive_for(&installation, &subject, reason.code()).await.map_err(task_error)?;
        receipt(context, &installation, &received)?;
        numbers.push(received.request.number);
    }
    let (result, request) = (Outcome::of_list(numbers.is_empty()), numbers.first().copied());
    context.output.document(&NewDocument { result, request, requests: numbers })?;
    installation.close().await.map_err(task_error)?;
    Ok(Exit::Done)
}

fn read_ids(context: &mut Context<'_>, from_stdin: bool) -> Result<Vec<GivenId>, UserError> {
    let stdin = std::io::stdin();
    let (mut bytes, titles) = (Vec::new(), titles(&context.configuration()?));
    if from_stdin {
        stdin.lock().read_to_end(&mut bytes).map_err(|error| UserError::from_any(error.into()))?;
        return parse(&bytes, "standard input", &titles);
    }
    if !stdin.is_terminal() {
        return Err(usage(
            "NO_ID",
            "no customer id: standard input is not a terminal",
            "缺少客户编号：标准输入不是终端",
        )
        .advise("give `-` to read ids from standard input, or --file", "用 `-` 从标准输入读取，或用 --file"));
    }
    let words = context.output.say_in("Customer id: ", "客户编号：").to_owned();
    let _ = write!(std::io::stderr(), "{words}");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(|error| UserError::from_any(error.into()))?;
    Ok(vec![GivenId { line: 1, subject: typed(&line)? }])
}

fn show_card(context: &mut Context<'_>, card: &SubjectCard) -> Result<(), UserError> {
    if card.is_empty() && card.unread.is_empty() {
        context.output.say(&Words::new("No registered store knows this id.", "没有任何已登记的数据库包含该编号。"))?;
    } else if card.is_empty() {
        context.output.say(&Words::new(
            "No store that could be read knows this id; not every one could be.",
            "可读取的数据库均不包含该编号；有数据库无法读取。",
        ))?;
    } else {
        let fields: Vec<String> = card.fields.iter().map(|(_, masked)| masked.clone()).collect();
        if !fields.is_empty() {
            context.output.line(&fields.join(", "))?;
        }
        let mut grid =
            Grid::new([context.output.say_in("collection", "数据表"), context.output.say_in("rows", "行数")]).right(1);
        for (store, collection, rows) in &card.rows {
            grid.row([format!("{store}.{collection}"), rows.to_string()]);
        }
        context.output.table(&grid)?;
    }
    for (store, reason) in &card.unread {
        context.output.note(&Words::new(
            format!("store {store} could not be read: {reason}"),
            format!("数据库 {store} 无法读取：{reason}"),
        ))?;
    }
    Ok(())
}

fn confirm(context: &mut Context<'_>) -> Result<bool, UserError> {
    if !std::io::stdin().is_terminal() {
        return Err(usage(
            "NO_CONFIRMATION",
            "cannot ask for confirmation: standard input is not a terminal",
            "无法确认：标准输入不是终端",
        )
        .advise("add --yes", "请加 --yes"));
    }
    let words = context
        .output
        .say_in("Record a request to erase this person? [yes/no] ", "是否登记删除该客户的请求？[yes/no] ")
        .to_owned();
    let _ = write!(std::io::stderr(), "{words}");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| UserError::from_any(error.into()))?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "yes" | "y" | "是"))
}

fn receipt(
    context: &mut Context<'_>,
    installation: &Installation,
    Received { request, existing, renewed, other_reason }: &Received,
) -> Result<(), UserError> {
    let due = local_time(&installation.config, request.due_at);
    let number = request.number;
    if let Some(other) = other_reason {
        let kept = request.reason.as_deref().unwrap_or(TriggerKind::SubjectRequest.name());
        let other = other.name();
        context.output.note(&Words::new(
            format!(
                "request {number} keeps its reason `{kept}`, which its certificate names; `{other}` was not taken for it and stands \
                 in the operation log"
            ),
            format!("请求 {number} 保留原有事由 `{kept}`（证书将载明）；`{other}` 未被采用，仅记入操作日志"),
        ))?;
    }
    if *renewed {
        context.output.say(&Words::new(
            format!(
                "This person's request {number} waited; it was asked again, covers everything they own now, and is to be answered \
                 by {due}."
            ),
            format!("该客户的请求 {number} 此前处于等待状态；现已重新提出，涵盖其目前的全部数据，应于 {due} 前答复。"),
        ))?;
        return Ok(());
    }
    if *existing {
        context.output.say(&Words::new(
            format!("This person's request {number} is open already; it is due by {due}."),
            format!("该客户已有未完成的请求 {number}，应于 {due} 前答复。"),
        ))?;
        return Ok(());
    }
    context.output.say(&Words::new(
        format!("Request {number} recorded; to be answered by {due}."),
        format!("请求 {number} 已登记，应于 {due} 前答复。"),
    ))?;
    context.output.say(&Words::new(
        format!("For the customer: “We have received your request no. {number} to delete your personal data. You will have our answer by {due}. What the law obliges us to keep is kept until that period ends.”"),
        format!("给客户的回执：“我们已收到您第 {number} 号删除个人信息的请求，将于 {due} 前答复。法律规定须保存的信息将保存至期满。”"),
    ))?;
    Ok(())
}

async fn run(context: &mut Context<'_>, number: Option<i64>) -> CommandResult {
    context.only_now()?;
    let installation = context.open_stores(Needs::ALL).await?;
    let numbers = if let Some(number) = number {
        vec![number]
    } else {
        reopen_waiting(&installation).await.map_err(task_error)?;
        let mut tx = installation.control.read().await.map_err(|error| task_error(error.into()))?;
        let waiting = tx.requests(Some("received")).await.map_err(|error| task_error(error.into()))?;
        waiting.into_iter().map(|request| request.number).collect()
    };
    if numbers.is_empty() {
        context.output.say(&Words::new("No request is waiting.", "没有等待处理的请求。"))?;
        context.output.document(&ErasureDocument::of(&[], Vec::new()).0)?;
        installation.close().await.map_err(task_error)?;
        return Ok(Exit::Done);
    }
    let single = numbers.len() == 1;
    let (mut runs, mut issued, mut not_run) = (Vec::new(), Vec::new(), Vec::new());
    for number in numbers {
        let carried_out = async {
            let plan = plan_of_request(&installation, number).await?;
            execute(&installation, &plan).await
        };
        let run = match carried_out.await {
            Ok(run) => run,
            // One that cannot be carried out does not keep the others from it, nor hides what was done.
            Err(error) if !single && !matches!(error, TaskError::Stopping) => {
                let error = task_error(error);
                let what = error.what.in_lang(context.lang()).to_owned();
                context
                    .output
                    .note(&Words::new(format!("request {number}: {what}"), format!("请求 {number}：{what}")))?;
                let advice = error.advice.map(|words| words.in_lang(context.lang()).to_owned());
                if let Some(advice) = &advice {
                    context.output.note(&Words::new(format!("    do: {advice}"), format!("    处理：{advice}")))?;
                }
                let (code, retry) = (error.code, error.retry);
                not_run.push((NotRun { request: number, code, what, r#do: advice, retry }, error.exit));
                continue;
            }
            Err(error) => return Err(task_error(error)),
        };
        let certificates = certify_and_say(context, &installation).await?;
        let body = RunBody::of(&run).map_err(task_error)?;
        if single {
            let exit = show_run(context, run, body, certificates)?;
            installation.close().await.map_err(task_error)?;
            return Ok(exit);
        }
        let RunBody { erased, anonymised, stripped, failed, .. } = &body;
        let (more, zh_more) = super::plan::also_anonymised(*anonymised);
        let kept = body.kept + stripped;
        context.output.say(&Words::new(
            format!(
                "request {number}: {erased} erased{more}, {kept} kept ({stripped} of them stripped), {failed} failed"
            ),
            format!("请求 {number}：擦除 {erased}{zh_more}，保留 {kept}（其中裁减 {stripped}），失败 {failed}"),
        ))?;
        issued.extend(certificates);
        runs.push((run, body));
    }
    let (document, exit) = ErasureDocument::of(&runs, issued);
    let (document, exit) = document.with_not_run(exit, not_run);
    context.output.document(&document)?;
    installation.close().await.map_err(task_error)?;
    Ok(exit)
}

async fn list(context: &mut Context<'_>) -> CommandResult {
    let (config, control) = context.control().await?;
    let run = async {
        let mut tx = control.read().await?;
        Ok::<_, crate::control::ControlError>((tx.requests(None).await?, tx.run_states().await?))
    };
    let (requests, stages) = run.await.map_err(|error| task_error(TaskError::Control(error)))?;
    let stage_of = |request: &RequestRow| request.run.as_ref().and_then(|run| stages.get(run)).cloned();
    let titles = [
        ("number", "编号"),
        ("kind", "类型"),
        ("state", "状态"),
        ("received", "收到"),
        ("due", "期限"),
        ("run", "运行"),
        ("stage", "阶段"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| context.output.say_in(en, zh).to_owned()));
    for request in &requests {
        grid.row([
            request.number.to_string(),
            request.kind.clone(),
            request.state.clone(),
            local_time(&config, request.received_at),
            local_time(&config, request.due_at),
            request.run.clone().unwrap_or_default(),
            stage_of(request).unwrap_or_default(),
        ]);
    }
    context.output.table(&grid)?;
    let result = Outcome::of_list(requests.is_empty());
    let entry = |request: RequestRow| {
        let stage = stage_of(&request);
        RequestEntry::of(request, stage)
    };
    let requests = requests.into_iter().map(entry).collect::<Result<_, _>>().map_err(task_error)?;
    context.output.document(&ListDocument { result, requests })?;
    Ok(Exit::Done)
}

async fn show(context: &mut Context<'_>, number: i64) -> CommandResult {
    let (config, control) = context.control().await?;
    let run = async {
        let mut tx = control.read().await?;
        let request = tx.request(number).await?;
        let run = match request.as_ref().and_then(|request| request.run.clone()) {
            Some(id) => tx.run(&id).await?,
            None => None,
        };
        let mut certificates = match &run {
            Some(run) => tx.certificates(Some(&run.id)).await?,
            None => Vec::new(),
        };
        certificates.extend(tx.certificates(Some(&request_name(number))).await?);
        Ok::<_, crate::control::ControlError>((request, run, certificates))
    };
    let (request, run, certificates) = run.await.map_err(|error| task_error(TaskError::Control(error)))?;
    let Some(request) = request else {
        return Err(task_error(TaskError::Unknown {
            what: format!("there is no request {number}"),
            advice: "see `wangchuan request list`".to_owned(),
        }));
    };
    let due = local_time(&config, request.due_at);
    context.output.say(&Words::new(
        format!(
            "Request {number}: {}; received {}, due {due}.",
            request.state,
            local_time(&config, request.received_at)
        ),
        format!("请求 {number}：{}；收到 {}，期限 {due}。", request.state, local_time(&config, request.received_at)),
    ))?;
    if let Some(run) = &run {
        let body = RunBody::of(run).map_err(task_error)?;
        let (more, zh_more) = super::plan::also_anonymised(body.anonymised);
        context.output.say(&Words::new(
            format!(
                "Run {}: {}; {} erased{more}, {} kept, {} failed.",
                run.id,
                run.state,
                body.erased,
                body.kept + body.stripped,
                body.failed
            ),
            format!(
                "运行 {}：{}；擦除 {}{zh_more}，保留 {}，失败 {}。",
                run.id,
                run.state,
                body.erased,
                body.kept + body.stripped,
                body.failed
            ),
        ))?;
        context.output.say(&meaning_of_run(run, &body))?;
    }
    let remaining = run.as_ref().map(Remaining::of).transpose().map_err(task_error)?.flatten();
    if let Some(remaining) = &remaining {
        show_remaining(context.output, remaining)?;
    }
    for certificate in &certificates {
        context.output.line(&format!("  {}  {}", certificate.id, certificate.result))?;
    }
    context.output.document(&ShowDocument {
        result: Outcome::Complete,
        entry: RequestEntry::of(request, run.map(|run| run.state)).map_err(task_error)?,
        residuals: remaining.map(|remaining| remaining.residuals).unwrap_or_default(),
        certificates: certificates.into_iter().map(|certificate| certificate.id).collect(),
    })?;
    Ok(Exit::Done)
}
