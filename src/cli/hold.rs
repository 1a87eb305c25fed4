//! `hold`: legal holds.

use std::io::Read as _;

use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::{Context, local_time, task_error, usage};
use super::output::shapes::Time;
use super::output::{Document, Exit, Grid, Outcome, UserError, Words};
use super::subject_input::{parse_one, titles};
use crate::control::{ControlError, HoldRow};
use crate::installation::Needs;
use crate::plan::Subject;
use crate::tasks::TaskError;
use crate::tasks::request::{Known, place_hold};

/// Legal holds.
#[derive(Debug, clap::Subcommand)]
pub enum HoldCommand {
    /// Suspend the destruction of a subject's rows, a collection, a store, or everything.
    #[command(after_help = "Examples:
  wangchuan hold place case-17 --subject - --reason lawsuit < id.txt
  wangchuan hold place audit-3 --store shop --reason audit
  wangchuan hold place audit-4 --store shop --collection orders --reason audit
  wangchuan hold place stop --everything --reason inspection")]
    Place {
        /// The hold's id: a case or file number, no personal data.
        id: String,
        /// `-`: the subject's id is read from standard input.
        #[arg(long, value_parser = ["-"], conflicts_with_all = ["store", "everything"])]
        subject: Option<String>,
        /// A whole store, or with --collection one of its collections.
        #[arg(long, conflicts_with = "everything")]
        store: Option<String>,
        /// A collection of --store.
        #[arg(long, requires = "store")]
        collection: Option<String>,
        /// Everything.
        #[arg(long)]
        everything: bool,
        /// Why, without personal data: it is stored and shown in clear.
        #[arg(long)]
        reason: String,
    },
    /// End a hold.
    #[command(after_help = "Example:\n  wangchuan hold release case-17")]
    Release {
        /// The hold's id.
        id: String,
    },
    /// All holds.
    #[command(after_help = "Example:\n  wangchuan hold list")]
    List,
}

/// The JSON of `hold place`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PlaceDocument {
    /// Always `complete`: the hold is in force.
    result: Outcome,
    /// Its id.
    hold: String,
    /// `subject`, `collection`, `store` or `everything`.
    scope: String,
    /// Whether a registered store knows the subject; the hold is in force all the same. Null when it is not about one, or when no
    /// store that could be read knows it and another could not be read.
    subject_known: Option<bool>,
}

impl Document for PlaceDocument {
    const OF: &'static [&'static str] = &["hold place"];
}

/// The JSON of `hold release`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReleaseDocument {
    /// Always `complete`: the hold has ended.
    result: Outcome,
    /// Its id.
    hold: String,
}

impl Document for ReleaseDocument {
    const OF: &'static [&'static str] = &["hold release"];
}

/// The JSON of `hold list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListDocument {
    /// `complete` or `nothing-found`.
    result: Outcome,
    /// All holds, those that ended included.
    holds: Vec<HoldEntry>,
}

impl Document for ListDocument {
    const OF: &'static [&'static str] = &["hold list"];
}

/// A hold. Whom it is about is not shown.
#[derive(Debug, Serialize, JsonSchema)]
struct HoldEntry {
    /// Its id.
    hold: String,
    /// `subject`, `collection`, `store` or `everything`.
    scope: String,
    /// The store, of a store or collection.
    store: Option<String>,
    /// The collection, if it is about one.
    collection: Option<String>,
    /// Why.
    reason: String,
    /// Since when.
    placed_at: Time,
    /// By whom.
    placed_by: String,
    /// When it ended; null while it is in force.
    released_at: Option<Time>,
}

impl HoldEntry {
    fn of(row: HoldRow) -> Self {
        Self {
            hold: row.id,
            scope: row.scope,
            store: row.store,
            collection: row.collection,
            reason: row.reason,
            placed_at: row.placed_at.into(),
            placed_by: row.placed_by,
            released_at: row.released_at.map(Time::from),
        }
    }
}

/// Runs the command.
pub async fn hold(context: &mut Context<'_>, command: HoldCommand) -> CommandResult {
    match command {
        HoldCommand::Place { id, subject, store, collection, everything, reason } => {
            context.only_now()?;
            if subject.is_none() && store.is_none() && !everything {
                return Err(usage(
                    "NO_SCOPE",
                    "say what to hold: --subject -, --store, or --everything",
                    "请说明保留范围：--subject -、--store 或 --everything",
                )
                .advise(
                    "add one of them; `wangchuan hold place --help` has examples",
                    "请添加其一；`wangchuan hold place --help` 有示例",
                ));
            }
            let subject = subject.map(|_| read_subject(context)).transpose()?;
            let scope = match (&subject, &store, &collection) {
                (Some(_), ..) => "subject",
                (None, Some(_), Some(_)) => "collection",
                (None, Some(_), None) => "store",
                _ => "everything",
            };
            let row = HoldRow {
                id,
                scope: scope.to_owned(),
                store,
                collection,
                subject: None,
                reason,
                placed_at: context.clock.now(),
                placed_by: std::env::var("USER").unwrap_or_else(|_| "operator".to_owned()),
                released_at: None,
            };
            place(context, row, subject).await
        }
        HoldCommand::Release { id } => release(context, &id).await,
        HoldCommand::List => list(context).await,
    }
}

/// The one customer's id on standard input.
pub(super) fn read_subject(context: &Context<'_>) -> Result<Subject, UserError> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| UserError::from_any(error.into()))?;
    parse_one(&bytes, "standard input", &titles(&context.configuration()?))
}

async fn place(context: &mut Context<'_>, row: HoldRow, subject: Option<Subject>) -> CommandResult {
    let installation = context.open(Needs { stores: subject.is_some(), ..Needs::STATE }).await?;
    let placed = place_hold(&installation, &row, subject.as_ref()).await;
    let found = placed.map_err(task_error)?;
    let is_copied_later = installation.config.backup.is_some();
    installation.close().await.map_err(task_error)?;
    match &found {
        Known::Yes => {}
        Known::No => context.output.note(&Words::new(
            "no registered store knows this id; the hold is placed all the same",
            "没有已登记的数据库包含该编号；保留令仍已生效",
        ))?,
        Known::NotAsked => context.output.note(&Words::new(
            "not every store could be read (see `wangchuan store check`), and no other knows this id; the hold is placed all the same",
            "有数据库无法读取（请看 `wangchuan store check`），其他数据库均不包含该编号；保留令仍已生效",
        ))?,
    }
    if is_copied_later {
        context.output.note(&Words::new(
            "it acts at once on this host, and reaches the second place with the agent's next task; until then a lost host loses it",
            "保留令在本机立即生效，并随代理的下一个任务写入第二存放处；在此之前若主机丢失，该保留令也会丢失",
        ))?;
    }
    context.output.say(&Words::new(format!("Hold {} is in force.", row.id), format!("保留令 {} 已生效。", row.id)))?;
    context.output.document(&PlaceDocument {
        result: Outcome::Complete,
        hold: row.id,
        scope: row.scope,
        subject_known: subject.and_then(|_| found.told()),
    })?;
    Ok(Exit::Done)
}

async fn release(context: &mut Context<'_>, id: &str) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs::STATE).await?;
    let released = async {
        installation.refuse_old_copy().await?;
        let mut tx = installation.control.begin().await?;
        let found = tx.release_hold(id, &installation.operator, installation.clock.now()).await?;
        tx.commit().await?;
        if !found {
            return Err(TaskError::Unknown {
                what: format!("there is no active hold {id}"),
                advice: "see `wangchuan hold list`".to_owned(),
            });
        }
        installation.log_operation("hold.release", id, "success").await
    };
    released.await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    context.output.say(&Words::new(
        format!(
            "Hold {id} is released. Plans made under it are void; what it kept is looked at again by the next plan."
        ),
        format!("保留令 {id} 已解除。据此制定的计划作废；其保留的数据将由下一次计划重新检查。"),
    ))?;
    context.output.document(&ReleaseDocument { result: Outcome::Complete, hold: id.to_owned() })?;
    Ok(Exit::Done)
}

async fn list(context: &mut Context<'_>) -> CommandResult {
    let (config, control) = context.control().await?;
    let read = async {
        let mut tx = control.read().await?;
        tx.holds(false).await
    };
    let holds = read.await.map_err(|error: ControlError| task_error(error.into()))?;
    let titles = [
        ("hold", "保留令"),
        ("scope", "范围"),
        ("reason", "原因"),
        ("placed", "生效"),
        ("by", "经办"),
        ("released", "解除"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| context.output.say_in(en, zh).to_owned()));
    for hold in &holds {
        let what = [Some(hold.scope.clone()), hold.store.clone(), hold.collection.clone()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ");
        let released = hold.released_at.map(|at| local_time(&config, at)).unwrap_or_default();
        grid.row([
            hold.id.clone(),
            what,
            hold.reason.clone(),
            local_time(&config, hold.placed_at),
            hold.placed_by.clone(),
            released,
        ]);
    }
    context.output.table(&grid)?;
    let result = Outcome::of_list(holds.is_empty());
    context.output.document(&ListDocument { result, holds: holds.into_iter().map(HoldEntry::of).collect() })?;
    Ok(Exit::Done)
}
