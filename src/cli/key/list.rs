//! `key list`: every key that the agent answers for, in groups that identify nobody.

use std::collections::{BTreeMap, BTreeSet};

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::shapes::Time;
use super::super::output::table::grouped;
use super::super::output::{Document, Exit, Grid, Outcome, Words, say};
use super::super::stage::finality_words;
use super::outside::{OutsideLine, lines, show_lines};
use super::words::{SHRED_PENDING, kind_words, state_words, waiting_line};
use crate::control::{KeyGroup, Tx};
use crate::installation::{Installation, Needs};
use crate::keys::state::{KeyState, RecordedKey, state_of};
use crate::tasks;
use crate::tasks::finality::FinalitySummary;
use crate::tasks::key_due::{Due, bucket_due, chain_due};
use crate::tasks::shred::{WaitCode, WaitingRun, waiting_runs};

/// What `key list --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeyListDocument {
    /// `complete`, or `nothing-found` without keys.
    result: Outcome,
    /// The generation in force.
    generation: Option<i64>,
    /// When it was made.
    made_at: Option<Time>,
    /// Keys in groups of one kind and state.
    keys: Vec<KeyLine>,
    /// Runs whose keys are not destroyed yet, and why.
    waiting: Vec<WaitingRun>,
    /// What is left of runs whose keys are destroyed.
    finality: FinalitySummary,
    /// Keys of applications that the agent answers for, or has destroyed.
    outside_keys: Vec<OutsideLine>,
}

impl Document for KeyListDocument {
    const OF: &'static [&'static str] = &["key list"];
}

/// Keys of one kind in one state.
#[derive(Debug, Serialize, JsonSchema)]
struct KeyLine {
    /// `subjects`, `buckets`, `chains`, `pins` or `work`.
    kind: String,
    /// The state in the words of SP 800-57.
    state: KeyState,
    /// The collection of buckets, the store of chains, the reason of pins, the purpose of work leaves.
    of: Option<String>,
    /// The run that they die with, or died with.
    run: Option<String>,
    /// How many.
    count: i64,
    /// Until when a destroyed old root that leads to them could be brought back; until then they are not destroyed.
    shred_pending_until: Option<Time>,
    /// When the first of them may go by itself, by retention and statutes (buckets) or the rule `days` (chains): holds and grace can
    /// keep it for longer. Null where none has a date.
    due_first: Option<Time>,
    /// When the last of them may.
    due_last: Option<Time>,
}

impl KeyLine {
    fn of(group: KeyGroup, waiting: &[WaitingRun], dues: &Dues) -> Self {
        let due = dues.get(&key_of(&group)).copied().unwrap_or_default();
        let is_held = waiting.iter().any(|held| held.code == WaitCode::Hold && Some(&held.run) == group.run.as_ref());
        let KeyGroup { kind, state, run, of, is_filled, seals, pending_until, count } = group;
        let is_revocable = pending_until.is_some();
        let state = state_of(RecordedKey { state: &state, is_filled, seals, is_held, is_revocable });
        let (due_first, due_last) = (due.first.map(Time::from), due.last.map(Time::from));
        Self { state, kind, of, run, count, shred_pending_until: pending_until.map(Time::from), due_first, due_last }
    }

    /// The days on which they fall due, in the agent's zone.
    fn due_text(&self, zone: Tz) -> String {
        let day = |time: Time| time.instant().with_timezone(&zone).format("%Y-%m-%d").to_string();
        match (self.due_first, self.due_last) {
            (Some(first), Some(last)) if day(first) != day(last) => format!("{}–{}", day(first), day(last)),
            (Some(first), _) => day(first),
            (None, _) => String::new(),
        }
    }

    fn state_words(&self) -> Words {
        let state = state_words(self.state);
        match self.shred_pending_until {
            None => state,
            Some(at) => Words::new(
                format!("{}, shred-pending until {at}", state.en),
                format!("{}，销毁在 {at} 之前尚可撤回", state.zh),
            ),
        }
    }
}

/// How many keys there are, by kind and by the name of their state in the words of SP 800-57; `shred-pending` for those that are destroyed
/// while an older root that leads to them could be brought back.
pub async fn counts(installation: &Installation) -> tasks::Result<BTreeMap<String, BTreeMap<String, i64>>> {
    let waiting = waiting_runs(installation).await?;
    let mut counts: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for group in installation.control.read().await?.key_groups().await? {
        let line = KeyLine::of(group, &waiting, &Dues::new());
        let state = if line.shred_pending_until.is_some() { SHRED_PENDING } else { line.state.name() };
        *counts.entry(line.kind).or_default().entry(state.to_owned()).or_default() += line.count;
    }
    Ok(counts)
}

/// When groups fall due: by kind, state, run and what they are of.
type Dues = BTreeMap<[Option<String>; 4], Due>;

fn key_of(group: &KeyGroup) -> [Option<String>; 4] {
    [Some(group.kind.clone()), Some(group.state.clone()), group.run.clone(), group.of.clone()]
}

/// When the keys of buckets and chains that are not destroyed fall due.
async fn dues(installation: &Installation, tx: &mut Tx) -> tasks::Result<Dues> {
    let config = &installation.config;
    let mut dues = Dues::new();
    for (name, state, run) in tx.bucket_states().await? {
        let of = format!("{}.{}", name.store, name.collection);
        let due = dues.entry([Some("buckets".to_owned()), Some(state), run, Some(of)]).or_default();
        due.add(bucket_due(config, &name));
    }
    let keep = config.backup.as_ref().map(|backup| backup.keep).unwrap_or_default();
    let snapshots = tx.snapshots(None).await?;
    let chains: BTreeSet<(u32, &str)> = snapshots.iter().map(|row| (row.chain, row.store.as_str())).collect();
    for (chain, store) in chains {
        let Some(state) = tx.chain_state(chain).await?.filter(|state| state != "destroyed") else { continue };
        let due = dues.entry([Some("chains".to_owned()), Some(state), None, Some(store.to_owned())]).or_default();
        due.add(chain_due(&keep, &snapshots, chain));
    }
    Ok(dues)
}

/// `key list`.
pub async fn list(context: &mut Context<'_>) -> CommandResult {
    let installation = context.open(Needs::STATE).await?;
    let document = read(&installation).await.map_err(task_error)?;
    show(context, &document, installation.config.agent.timezone)?;
    context.output.document(&document)?;
    installation.close().await.map_err(task_error)?;
    Ok(Exit::Done)
}

async fn read(installation: &Installation) -> tasks::Result<KeyListDocument> {
    let waiting = waiting_runs(installation).await?;
    let mut tx = installation.control.read().await?;
    let made = tx.generation_made_at().await?;
    let dues = dues(installation, &mut tx).await?;
    let groups = tx.key_groups().await?.into_iter();
    let keys: Vec<KeyLine> = groups.map(|group| KeyLine::of(group, &waiting, &dues)).collect();
    let outside_keys = lines(&installation.config, &tasks::outside::list_outside_keys(&mut tx).await?);
    Ok(KeyListDocument {
        result: Outcome::of_list(keys.is_empty() && outside_keys.is_empty()),
        generation: made.map(|(generation, _)| generation),
        made_at: made.map(|(_, at)| at.into()),
        keys,
        waiting,
        finality: FinalitySummary::of(&tx.runs(None).await?)?,
        outside_keys,
    })
}

fn show(
    context: &mut Context<'_>,
    document: &KeyListDocument,
    zone: Tz,
) -> Result<(), super::super::output::UserError> {
    let output = &mut *context.output;
    let lang = output.lang();
    if let (Some(generation), Some(at)) = (document.generation, document.made_at) {
        output.say(&Words::new(
            format!("generation {generation}, made {at}"),
            format!("第 {generation} 代，生成于 {at}"),
        ))?;
    }
    let titles = [
        ("keys", "密钥"),
        ("state (SP 800-57)", "状态 (SP 800-57)"),
        ("of", "归属"),
        ("run", "运行"),
        ("count", "数量"),
        ("due, earliest", "最早到期"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(4);
    for line in &document.keys {
        let count = grouped(line.count.unsigned_abs());
        grid.row([
            kind_words(&line.kind).in_lang(lang),
            line.state_words().in_lang(lang),
            line.of.as_deref().unwrap_or(""),
            line.run.as_deref().unwrap_or(""),
            &count,
            &line.due_text(zone),
        ]);
    }
    output.table(&grid)?;
    for waiting in &document.waiting {
        output.say(&waiting_line(waiting))?;
    }
    if document.waiting.is_empty() {
        output.say(&Words::new("no key waits to be destroyed for a run", "没有等待销毁的运行密钥"))?;
    }
    for words in finality_words(&document.finality) {
        output.say(&words)?;
    }
    show_lines(output, &document.outside_keys)
}
