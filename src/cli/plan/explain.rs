//! `explain`: why and when one record is due, with policy, statutes and dates.

mod document;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::super::CommandResult;
use super::super::context::{Context, local_time, task_error};
use super::super::output::shapes::Time;
use super::super::output::{Exit, Grid, Lang, Outcome, UserError, Words, say};
use super::super::statute::words::{cited_in, demand, period_in, status_in};
use crate::clock::{Clock, SystemClock};
use crate::config::Configuration;
use crate::erase::Site;
use crate::erase::planner::{active_holds, covering_hold};
use crate::erase::referrers::referring_tables;
use crate::erase::survey::{ReadRow, Shape, start_kind};
use crate::installation::{Installation, Needs, Operation};
use crate::keyring::Purpose;
use crate::plan::model::{Collection, Governed};
use crate::policy::calendar::{CalendarError, bucket_of};
use crate::policy::start::{StartEvent, read_start};
use crate::policy::statute::{Bounds, DecidedBy, Earliest, Limit, Statute, Verdict, bounds, limit};
use crate::stores::{ColumnKind, Engine, Filter};
use crate::tasks::TaskError;
use crate::value::{RowKey, Value};

pub use document::ExplainDocument;
use document::{BoundEntry, Referring};

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wangchuan explain shop orders 1042
  wangchuan explain shop order_lines 1042 3    a key of two columns")]
pub struct ExplainArgs {
    /// The store.
    store: String,
    /// The collection.
    collection: String,
    /// The key's values, in the order of the key columns.
    #[arg(required = true)]
    key: Vec<String>,
}

/// Explains one record.
pub async fn explain(context: &mut Context<'_>, args: ExplainArgs) -> CommandResult {
    let installation = context.open_stores(Needs { stores: true, ..Needs::STATE }).await?;
    let unknown =
        |what: String| task_error(TaskError::Unknown { what, advice: "see `wangchuan store list`".to_owned() });
    let site = installation.sites().iter().find(|site| site.model.spec.name == args.store);
    let site = site.ok_or_else(|| unknown(format!("there is no store {}, or it cannot be reached", args.store)))?;
    let collection = site.model.collection(&args.collection).map(|(_, collection)| collection);
    let collection =
        collection.ok_or_else(|| unknown(format!("store {} has no collection {}", args.store, args.collection)))?;
    let key = key_of(&args.store, collection, site.store.engine(), &args.key)?;
    let shape = Shape::of(collection);
    let mut view = site.store.open_snapshot().await.map_err(|error| task_error(error.into()))?;
    let mut rows = view
        .read(&shape.query(collection, Filter::In(collection.key.clone(), vec![key.clone()])))
        .await
        .map_err(|error| task_error(error.into()))?;
    let referred_by =
        referring_tables(view.as_mut(), collection, &key).await.map_err(|error| task_error(error.into()))?;
    view.close().await.map_err(|error| task_error(error.into()))?;
    if let Some(row) = rows.pop() {
        let row = shape.read(row);
        note_look(&installation, &args, &row).await.map_err(task_error)?;
        explain_row(context, &installation, (site, collection), row, referred_by).await?;
    } else {
        let words = Words::new("There is no such record.", "没有这条记录。");
        let document = ExplainDocument::undated(Outcome::NothingFound, "there is no such record");
        say_undated(context, &words, &Kept::default(), document)?;
    }
    installation.close().await.map_err(task_error)?;
    Ok(Exit::Done)
}

/// A look at a customer's record is logged before anything of it is shown; with `--at` under the real time.
async fn note_look(installation: &Installation, args: &ExplainArgs, row: &ReadRow) -> Result<(), TaskError> {
    let object = format!("{}.{}", args.store, args.collection);
    let look = Operation { name: "explain", object: &object, outcome: "success", ..Operation::default() };
    installation.log_look(Operation { subject: row.subject.as_ref(), at: Some(SystemClock.now()), ..look }).await
}

async fn explain_row(
    context: &mut Context<'_>,
    installation: &Installation,
    (site, collection): (&Site, &Collection),
    row: ReadRow,
    referred_by: Vec<(String, u64)>,
) -> Result<(), UserError> {
    let hold = hold_on(context, installation, (site, collection), &row).await.map_err(task_error)?;
    let is_anonymised = collection.anonymise.is_some();
    let leads = |(table, _): &(String, u64)| {
        !is_anonymised
            || collection
                .children
                .iter()
                .any(|child| child.table == *table && collection.is_led_over(child, &site.model))
    };
    let kept = Kept { hold, referred_by: referred_by.into_iter().filter(leads).collect(), is_anonymised };
    let Some((governed, value)) = collection.governed.as_ref().zip(row.start.as_ref()) else {
        let words = Words::new(
            "No policy governs this collection: its records never fall due, and go only on request.",
            "没有策略管辖该表：记录不会到期，只有在客户请求时才删除。",
        );
        let document = ExplainDocument::undated(Outcome::Complete, "no policy governs this collection");
        return say_undated(context, &words, &kept, document);
    };
    let zone = site.model.spec.timezone;
    let now = context.clock.now();
    let event = read_start(value, start_kind(governed.start.kind), zone, now);
    let StartEvent::At(at) = event else {
        return say_unknown_start(context, governed, &event, &kept);
    };
    let facts = Facts::of(governed, at, zone).map_err(|error| UserError::from_any(error.into()))?;
    say_dated(context, &installation.config, &facts, &kept)?;
    context.output.document(&kept.of(facts.document(now)))?;
    Ok(())
}

/// What keeps a record, whatever its date.
#[derive(Default)]
struct Kept {
    hold: Option<String>,
    referred_by: Vec<(String, u64)>,
    /// Whether its policy anonymises, so that only rows which lead to their customer over it keep it, and as it is.
    is_anonymised: bool,
}

impl Kept {
    fn of(&self, document: ExplainDocument) -> ExplainDocument {
        let referring = |(table, rows): &(String, u64)| Referring { table: table.clone(), rows: *rows };
        let referred_by = self.referred_by.iter().map(referring).collect();
        ExplainDocument { hold: self.hold.clone(), referred_by, ..document }
    }

    fn tell(&self, context: &mut Context<'_>) -> Result<(), UserError> {
        if let Some(hold) = &self.hold {
            context.output.say(&Words::new(
                format!("Hold {hold} keeps it, whatever its dates say."),
                format!("保留令 {hold} 使其继续保留，不论日期如何。"),
            ))?;
        }
        if self.is_anonymised {
            context.output.say(&Words::new(
                "Its policy anonymises: when its time is over it stays, without anything that leads to its customer.",
                "其策略为匿名化：到期后记录保留，但不再含有可指向客户的内容。",
            ))?;
        }
        for (table, rows) in self.referred_by.iter().filter(|_| self.is_anonymised) {
            context.output.say(&Words::new(
                format!("{rows} rows of {table} lead to their customer over it: while one of them stays as it is, so does this."),
                format!("{table} 中有 {rows} 行经由它指向客户：其中任何一行保持原样时，它也保持原样。"),
            ))?;
        }
        for (table, rows) in self.referred_by.iter().filter(|_| !self.is_anonymised) {
            context.output.say(&Words::new(
                format!("{rows} rows of {table} refer to it: while one of them stays, it stays too, stripped to its minimum."),
                format!("{table} 中有 {rows} 行引用它：其中任何一行保留时，它也保留，并裁减到最少字段。"),
            ))?;
        }
        Ok(())
    }
}

/// The hold that covers the record, asked as the planner asks.
async fn hold_on(
    context: &Context<'_>,
    installation: &Installation,
    (site, collection): (&Site, &Collection),
    row: &ReadRow,
) -> Result<Option<String>, TaskError> {
    let mut tx = installation.control.read().await?;
    let holds = tx.holds(true).await?;
    if holds.is_empty() {
        return Ok(None);
    }
    // Without a key for looking subjects up no hold on a subject was ever placed.
    let Some(lookup) = installation.keyring.find_work_key(&mut tx, Purpose::Lookup, "").await? else { return Ok(None) };
    let holds = active_holds(&holds, context.clock.now());
    Ok(covering_hold(&holds, &lookup, site, &collection.table.name, row.subject.as_ref()))
}

/// What a record's dates follow from.
struct Facts<'a> {
    governed: &'a Governed,
    start: DateTime<Utc>,
    bucket: String,
    found: Bounds,
    /// The end of the policy's own retention.
    own: Earliest,
    limits: Vec<(&'a Arc<Statute>, Option<Limit>)>,
}

impl<'a> Facts<'a> {
    fn of(governed: &'a Governed, start: DateTime<Utc>, zone: Tz) -> Result<Self, CalendarError> {
        let policy = &governed.policy;
        let limits = governed.statutes.iter().map(|statute| Ok((statute, limit(start, statute, zone)?)));
        Ok(Self {
            governed,
            start,
            bucket: bucket_of(start, policy.bucket, zone)?.to_string(),
            found: bounds(start, policy.retention, &governed.statutes, zone)?,
            own: bounds(start, policy.retention, &[], zone)?.earliest,
            limits: limits.collect::<Result<_, CalendarError>>()?,
        })
    }

    fn decided_by(&self, lang: Lang) -> String {
        let policy = &self.governed.policy;
        match (&self.found.decided_by, lang) {
            (DecidedBy::Policy, Lang::En) => {
                format!("policy {} ({} after {})", policy.id, policy.retention, policy.start)
            }
            (DecidedBy::Policy, Lang::Zh) => {
                format!("策略 {}（{} 起 {}）", policy.id, policy.start, period_in(lang, policy.retention))
            }
            (DecidedBy::Statute(statute), Lang::En) => {
                format!("statute {} ({})", statute.key, cited_in(lang, &statute.cites))
            }
            (DecidedBy::Statute(statute), Lang::Zh) => {
                format!("法规 {}（{}）", statute.key, cited_in(lang, &statute.cites))
            }
        }
    }

    fn entries(&self, lang: Lang) -> Vec<BoundEntry> {
        let policy = &self.governed.policy;
        let own = BoundEntry {
            statute: None,
            source: policy.basis.clone(),
            demands: match lang {
                Lang::En => format!("at least {}", policy.retention),
                Lang::Zh => format!("至少 {}", period_in(lang, policy.retention)),
            },
            at: date_of(self.own),
            status: None,
            binds: true,
            decides: self.found.decided_by == DecidedBy::Policy,
        };
        let statutes = self.limits.iter().map(|(statute, limit)| self.entry(lang, statute, *limit));
        std::iter::once(own).chain(statutes).collect()
    }

    fn entry(&self, lang: Lang, statute: &Arc<Statute>, limit: Option<Limit>) -> BoundEntry {
        let latest = self.found.latest.as_ref().map(|(_, by)| by);
        let (at, binds, decides) = match limit {
            Some(Limit::Minimum(end)) => {
                (date_of(end), true, self.found.decided_by == DecidedBy::Statute(statute.clone()))
            }
            Some(Limit::Maximum(end)) => (Some(end.into()), statute.maximum().is_some(), latest == Some(statute)),
            None => (None, false, false),
        };
        BoundEntry {
            statute: Some(statute.key.clone()),
            source: cited_in(lang, &statute.cites),
            demands: demand(lang, statute.bound, statute.start),
            at,
            status: Some(status_in(lang, statute.status).to_owned()),
            binds,
            decides,
        }
    }

    fn document(&self, now: DateTime<Utc>) -> ExplainDocument {
        let due = self.found.earliest;
        ExplainDocument {
            result: Outcome::Complete,
            policy: Some(self.governed.policy.id.clone()),
            statutes: self.governed.policy.statutes.clone(),
            follows: self.governed.follows.clone(),
            start: Some(self.start.into()),
            due_at: date_of(due),
            latest_at: self.found.latest.as_ref().map(|(latest, _)| Time::from(*latest)),
            is_due: due <= Earliest::At(now),
            verdict: Some(self.found.verdict(now).into()),
            decided_by: Some(self.decided_by(Lang::En)),
            bounds: self.entries(Lang::En),
            hold: None,
            referred_by: Vec::new(),
            bucket: Some(self.bucket.clone()),
            reason: (due == Earliest::Never).then(|| "a statute forbids it for ever".to_owned()),
        }
    }
}

fn date_of(earliest: Earliest) -> Option<Time> {
    match earliest {
        Earliest::At(at) => Some(at.into()),
        Earliest::Never => None,
    }
}

/// A record with a date, in words: when and by what, then every date that was compared.
fn say_dated(
    context: &mut Context<'_>,
    config: &Configuration,
    facts: &Facts<'_>,
    kept: &Kept,
) -> Result<(), UserError> {
    let now = context.clock.now();
    let (start, bucket) = (local_time(config, facts.start), &facts.bucket);
    let (en, zh) = match facts.found.earliest {
        Earliest::At(due) if due <= now => ("Due since", "已到期："),
        Earliest::At(_) => ("Due on", "到期日："),
        Earliest::Never => ("Due", "到期日："),
    };
    let when = |never: &str| match facts.found.earliest {
        Earliest::At(due) => local_time(config, due),
        Earliest::Never => never.to_owned(),
    };
    context.output.say(&Words::new(
        format!("{en} {}, by {}; start event {start}; bucket {bucket}.", when("never"), facts.decided_by(Lang::En)),
        format!("{zh} {}，依据 {}；起算时间 {start}；分桶 {bucket}。", when("永不"), facts.decided_by(Lang::Zh)),
    ))?;
    if !facts.limits.is_empty() {
        let lang = context.lang();
        let shown = grid(lang, config, &facts.entries(lang), &facts.governed.policy.id);
        context.output.table(&shown)?;
    }
    let latest = facts.found.latest.as_ref().map(|(latest, by)| (local_time(config, *latest), by));
    match (facts.found.verdict(now), latest) {
        (Verdict::Restrict, Some((latest, by))) => context.output.say(&Words::new(
            format!(
                "Restricted: {} wants it gone by {latest}, {} wants it kept longer. It stays until it is due; use it for \
                 nothing but storage.",
                by.key,
                facts.decided_by(Lang::En)
            ),
            format!(
                "限制处理：{} 要求在 {latest} 前删除，{} 要求保存更久。到期前保留，除存储外不得使用。",
                by.key,
                facts.decided_by(Lang::Zh)
            ),
        ))?,
        (Verdict::MustErase, Some((latest, by))) => context.output.say(&Words::new(
            format!("It had to be gone by {latest}: {} ({}).", by.key, by.source()),
            format!("应在 {latest} 前删除：{}（{}）。", by.key, cited_in(Lang::Zh, &by.cites)),
        ))?,
        _ => {}
    }
    kept.tell(context)
}

fn grid(lang: Lang, config: &Configuration, entries: &[BoundEntry], policy: &str) -> Grid {
    let titles =
        [("by", "依据"), ("demands", "要求"), ("until", "日期"), ("source", "出处"), ("status", "核实"), ("", "")];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    for entry in entries {
        let mark = match (entry.decides, entry.binds) {
            (true, _) => say(lang, "decides", "决定"),
            (false, true) => "",
            (false, false) => say(lang, "does not bind", "不具约束"),
        };
        let at = entry.at.map(|at| local_time(config, at.instant())).unwrap_or_default();
        let by = entry.statute.as_deref().unwrap_or(policy);
        grid.row([by, &entry.demands, &at, &entry.source, entry.status.as_deref().unwrap_or_default(), mark]);
    }
    grid
}

fn say_unknown_start(
    context: &mut Context<'_>,
    governed: &Governed,
    event: &StartEvent,
    kept: &Kept,
) -> Result<(), UserError> {
    let (en, zh) = match event {
        StartEvent::Missing => ("its start event is missing", "起算时间缺失"),
        StartEvent::Future(_) => ("its start event lies in the future", "起算时间在未来"),
        _ => ("its start event cannot be read as a time", "起算时间无法识别"),
    };
    let policy = &governed.policy;
    let by = |lang| {
        let each: Vec<String> = governed
            .statutes
            .iter()
            .map(|statute| format!("{} ({})", statute.key, cited_in(lang, &statute.cites)))
            .collect();
        each.join(", ")
    };
    let (mut words_en, mut words_zh) =
        (format!("Not due: {en}. Policy {}.", policy.id), format!("未到期：{zh}。策略 {}。", policy.id));
    if !governed.statutes.is_empty() {
        words_en = format!("{words_en} It stays on request too, bound by {}.", by(Lang::En));
        words_zh = format!("{words_zh}受 {} 约束，客户请求时也保留。", by(Lang::Zh));
    }
    let document = ExplainDocument {
        policy: Some(policy.id.clone()),
        statutes: policy.statutes.clone(),
        follows: governed.follows.clone(),
        ..ExplainDocument::undated(Outcome::Complete, en)
    };
    say_undated(context, &Words::new(words_en, words_zh), kept, document)
}

/// Explains a record that has no due date.
fn say_undated(
    context: &mut Context<'_>,
    words: &Words,
    kept: &Kept,
    document: ExplainDocument,
) -> Result<(), UserError> {
    context.output.say(words)?;
    kept.tell(context)?;
    context.output.document(&kept.of(document))?;
    Ok(())
}

fn key_of(store: &str, collection: &Collection, engine: Engine, texts: &[String]) -> Result<RowKey, UserError> {
    if texts.len() != collection.key.len() {
        let what = format!(
            "the key of {} has {} columns: {}",
            collection.table.name,
            collection.key.len(),
            collection.key.join(", ")
        );
        let columns = collection.key.join("> <");
        let table = &collection.table.name;
        let words =
            Words::new(what, format!("{table} 的键有 {} 列：{}", collection.key.len(), collection.key.join("、")));
        return Err(UserError::new(Exit::Usage, "KEY_COLUMNS", words).advise(
            format!(
                "give the values as separate arguments, in this order: wangchuan explain {store} {table} <{columns}>"
            ),
            format!("请按此顺序把各值写成单独的参数：wangchuan explain {store} {table} <{columns}>"),
        ));
    }
    let values = collection.key.iter().zip(texts).map(|(name, text)| {
        let kind = collection.table.columns.iter().find(|column| column.name == *name).and_then(|column| column.kind);
        match (engine, kind, text.parse::<i64>()) {
            (Engine::Sqlite, Some(ColumnKind::Integer), Ok(number)) => Value::Integer(number),
            _ => Value::Text(text.clone()),
        }
    });
    Ok(RowKey(values.collect()))
}
