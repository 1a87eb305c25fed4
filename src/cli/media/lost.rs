//! `media lost`: what a lost medium opens, and the end of the keys that open it.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::backup::while_renewing;
use super::super::context::{Context, certify_and_say, task_error};
use super::super::output::{Document, Exit, Lang, Outcome, UserError, Words};
use super::{MediumArgs, times_of};
use crate::control::{MediaRow, time_text};
use crate::installation::{Installation, Needs};
use crate::policy::keep::Stays;
use crate::tasks;
use crate::tasks::media::{Exposed, LossReport, MediaBody, exposed, record_lost, shred_lost};

/// Arguments of `media lost`.
#[derive(Debug, clap::Args)]
pub struct LostArgs {
    #[command(flatten)]
    medium: MediumArgs,
    /// A store of which snapshots of this program lay on it; any number of them.
    #[arg(long = "backups-of", value_name = "STORE")]
    stores: Vec<String>,
    /// A declared copy that lay on it, as STORE/COPY; any number of them. No key of this program closes it.
    #[arg(long = "copy", value_name = "STORE/COPY")]
    copies: Vec<String>,
    /// When it was lost: a time (RFC 3339), or a day, which counts to its end in the agent's time zone, or to now. What was stored later
    /// cannot lie on it.
    #[arg(long, value_name = "TIME")]
    when: String,
    /// Who reports it, by a short name as with `approve --as`.
    #[arg(long = "by", value_name = "NAME")]
    reported_by: String,
    /// Destroy the keys of what lies on it: a new full snapshot of each store, then the older ones go, whatever `keep` says. What a hold,
    /// grace, a pin or an open run needs stays, and goes with a later prune.
    #[arg(long)]
    shred: bool,
}

/// The JSON of `media lost`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LostDocument {
    /// `complete` when nothing that lay on the medium opens, otherwise `partial`.
    result: Outcome,
    /// The record.
    record: String,
    /// What opens the chains that open: the root key in this kind of slot, with the control database or the sealed state in the bucket.
    slot: String,
    /// The class of that slot: how surely a destroyed root is gone.
    class: String,
    /// Chains of snapshots that could lie on it.
    chains: Vec<ExposedEntry>,
    /// Declared copies on it, which open without any key of this program, as `STORE/COPY`.
    open_copies: Vec<String>,
    /// Full snapshots that were taken to replace the newest, by id.
    taken: Vec<String>,
    /// Certificates that were issued.
    certificates: Vec<String>,
}

impl Document for LostDocument {
    const OF: &'static [&'static str] = &["media lost"];
}

/// A chain that could lie on a lost medium.
#[derive(Debug, Serialize, JsonSchema)]
struct ExposedEntry {
    /// The store.
    store: String,
    /// Its number.
    chain: u32,
    /// How many of its snapshots were there when the medium was lost.
    snapshot_count: usize,
    /// Whether it opens with the root in force.
    opens: bool,
    /// What keeps its key: `hold`, `grace`, `newest`, …; empty where nothing does.
    stays: Vec<Stays>,
    #[serde(skip)]
    is_marked: bool,
    #[serde(skip)]
    until: Option<DateTime<Utc>>,
}

impl ExposedEntry {
    fn of(found: &Exposed) -> Self {
        Self {
            store: found.chain.store.clone(),
            chain: found.chain.chain,
            snapshot_count: found.chain.snapshots.len(),
            opens: !found.is_dead,
            stays: if found.is_dead { Vec::new() } else { found.stays.iter().copied().collect() },
            is_marked: found.is_marked,
            until: found.until,
        }
    }

    /// How it stands, for people.
    fn told(&self) -> Words {
        if !self.opens {
            return Words::new("its key is destroyed".to_owned(), "密钥已销毁".to_owned());
        }
        if let Some(until) = self.until.map(time_text) {
            return Words::new(
                format!("its key is destroyed, but a root that opens it can be called back until {until}"),
                format!("密钥已销毁，但可打开它的根密钥在 {until} 之前仍可撤回销毁"),
            );
        }
        if self.is_marked {
            return Words::new(
                "opens; it is marked, and its key dies with the next change of keys".to_owned(),
                "仍可打开；已标记，其密钥将在下一次密钥更换时销毁".to_owned(),
            );
        }
        let why = self.stays.iter().filter_map(|why| serde_json::to_value(why).ok()?.as_str().map(str::to_owned));
        let why = why.collect::<Vec<_>>().join(", ");
        if why.is_empty() {
            return Words::new(
                "opens; `--shred` destroys its key".to_owned(),
                "仍可打开；可用 `--shred` 销毁其密钥".to_owned(),
            );
        }
        Words::new(format!("opens; it stays because of {why}"), format!("仍可打开；因 {why} 保留"))
    }
}

/// What is known of a loss, as `media show` tells it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LossEntry {
    /// Who reported it.
    reported_by: String,
    /// Chains of snapshots that could lie on the medium.
    chains: Vec<LostChainEntry>,
}

/// A chain on a lost medium.
#[derive(Debug, Serialize, JsonSchema)]
struct LostChainEntry {
    /// The store.
    store: String,
    /// Its number.
    chain: u32,
    /// Those of its snapshots that were there when the medium was lost, by id.
    snapshot_ids: Vec<String>,
    /// Whether they open with the root in force, or with one that can be called back.
    opens: bool,
}

impl LossEntry {
    /// Of a record; none of a medium that was destroyed.
    ///
    /// # Errors
    /// When the record is damaged.
    pub fn of(row: &MediaRow, chains: Vec<Exposed>) -> tasks::Result<Option<Self>> {
        let entry = |found: Exposed| LostChainEntry {
            opens: !found.is_dead,
            store: found.chain.store,
            chain: found.chain.chain,
            snapshot_ids: found.chain.snapshots,
        };
        let chains = chains.into_iter().map(entry).collect();
        Ok(MediaBody::of(row)?.loss.map(|loss| Self { reported_by: loss.reported_by, chains }))
    }

    /// As lines for people, behind who reported it.
    pub fn words(&self) -> (String, Vec<Words>) {
        let line = |chain: &LostChainEntry| {
            let (store, number, count) = (&chain.store, chain.chain, chain.snapshot_ids.len());
            let (en, zh) = if chain.opens {
                ("opens", "仍可打开")
            } else {
                ("unreadable, its key is destroyed", "不可读，密钥已销毁")
            };
            Words::new(
                format!("  chain {number} of store {store} ({count} snapshots): {en}"),
                format!("  数据源 {store} 的链 {number}（{count} 个快照）：{zh}"),
            )
        };
        (self.reported_by.clone(), self.chains.iter().map(line).collect())
    }
}

/// `media lost`.
pub async fn lost(context: &mut Context<'_>, args: LostArgs) -> CommandResult {
    context.only_now()?;
    let (from, until) = times_of(&args.when, context.configuration()?.agent.timezone)?;
    let report = LossReport {
        medium: args.medium.medium(),
        stores: args.stores,
        copies: args.copies,
        from,
        until,
        reported_by: args.reported_by,
        shred: args.shred,
    };
    let needs = if args.shred { Needs::ALL } else { Needs::STATE };
    let installation = context.open(needs).await?;
    let row = record_lost(&installation, report).await.map_err(task_error)?;
    let (mut taken, mut certificates) = (Vec::new(), Vec::new());
    if args.shred {
        let report;
        (taken, report) = while_renewing(&installation, shred_lost(&installation)).await.map_err(task_error)?;
        for (store, what) in &report.unproven {
            context.output.note(&Words::new(
                format!("nothing of store {store} goes: {what}"),
                format!("数据源 {store} 不清理：{what}"),
            ))?;
        }
        certificates = certify_and_say(context, &installation).await?;
    }
    let document = document(&installation, &row, taken, certificates).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    show(context, &document)?;
    context.output.document(&document)?;
    Ok(if document.result == Outcome::Complete { Exit::Done } else { Exit::Partial })
}

async fn document(
    installation: &Installation,
    row: &MediaRow,
    taken: Vec<String>,
    certificates: Vec<String>,
) -> tasks::Result<LostDocument> {
    let body = MediaBody::of(row)?;
    let chains: Vec<ExposedEntry> = exposed(installation, row).await?.iter().map(ExposedEntry::of).collect();
    let claim = installation.keyring.slot().claim();
    let open_copies: Vec<String> = body.copies.iter().map(ToString::to_string).collect();
    let opens = chains.iter().any(|chain| chain.opens) || !open_copies.is_empty();
    Ok(LostDocument {
        result: if opens { Outcome::Partial } else { Outcome::Complete },
        record: row.id.clone(),
        slot: claim.kind.name().to_owned(),
        class: format!("{:?}", claim.class),
        chains,
        open_copies,
        taken,
        certificates,
    })
}

fn show(context: &mut Context<'_>, document: &LostDocument) -> Result<(), UserError> {
    let output = &mut *context.output;
    let (id, kind, class) = (&document.record, &document.slot, &document.class);
    output.say(&Words::new(
        format!("The loss is recorded: {id}. Snapshots on the medium open with the root key ({kind}, class {class}), and without it not."),
        format!("遗失已登记：{id}。介质上的快照须有根密钥（{kind}，{class} 级）才能打开。"),
    ))?;
    for chain in &document.chains {
        let (store, number, count) = (&chain.store, chain.chain, chain.snapshot_count);
        let told = chain.told();
        output.say(&Words::new(
            format!("  chain {number} of store {store} ({count} snapshots): {}", told.in_lang(Lang::En)),
            format!("  数据源 {store} 的链 {number}（{count} 个快照）：{}", told.in_lang(Lang::Zh)),
        ))?;
    }
    for copy in &document.open_copies {
        output.say(&Words::new(
            format!("  copy {copy}: opens without any key of this program; treat it as disclosed"),
            format!("  副本 {copy}：无需本程序的密钥即可打开；请按已泄露处理"),
        ))?;
    }
    for certificate in &document.certificates {
        output.line(&format!("  {certificate}"))?;
    }
    Ok(())
}
