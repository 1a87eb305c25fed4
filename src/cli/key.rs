//! `key …`: the key tree and its root slot.

mod abilities;
mod advice;
mod list;
mod moving;
mod outside;
mod shred;
mod verify;
mod words;

use abilities::AbilitiesEntry;
pub use advice::KeyAdviceDocument;
pub use list::KeyListDocument;
pub use moving::KeyMoveDocument;
pub use outside::{KeyRegisterDocument, KeyUnregisterDocument};
pub use shred::KeyShredDocument;
pub use verify::KeyVerifyDocument;
use words::{kind_words, state_name_words};

use std::collections::BTreeMap;

use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::{Context, local_time, of_old_copy, task_error};
use super::output::shapes::{DoomedRootEntry, SecondPlace, StillReadable, Time};
use super::output::table::grouped;
use super::output::{Document, Exit, Grid, Outcome, Output, UserError, Words, say};
use super::slot_words::without_root;
use super::stage::{finality_words, irrevocable};
use crate::config::Configuration;
use crate::control::RunRow;
use crate::installation::{Installation, Needs};
use crate::keyring::KeyringError;
use crate::keyring::second_place::Memory;
use crate::keys::slot::{ClaimSentence, Presence, PresentGeneration, Residual, RootSlot, SlotClaim, SlotClass};
use crate::tasks;
use crate::tasks::erasure::RunBody;
use crate::tasks::finality::FinalitySummary;

/// The key tree and its root slot.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Generation, what the root slot is worth, keys by state, outside keys by state, what waits, what may be copied.
    #[command(after_help = "Example:\n  wangchuan key status")]
    Status,
    /// Every key the agent answers for, in groups, by state in the words of SP 800-57; what waits to be destroyed, and why.
    ///
    /// Names no person.
    #[command(after_help = "Example:\n  wangchuan key list --json")]
    List,
    /// Destroy the keys of what is due, all in one generation change; without --now at most once an hour.
    ///
    /// A run waits for the end of its grace, for holds, for a snapshot begun after its erasure, and for the least time that
    /// the root slot wants between two generations; it is said of each why and until when.
    #[command(after_help = "Examples:\n  wangchuan key shred\n  wangchuan key shred --now")]
    Shred {
        /// Do not wait for the next hourly group. Grace, holds, snapshots and the slot's interval hold all the same.
        #[arg(long)]
        now: bool,
    },
    /// Try again whether what was destroyed stays destroyed: old roots, old crowns, shredded frames. Exit code 1 if not.
    #[command(after_help = "Example:\n  wangchuan key verify")]
    Verify,
    /// What may and may not be copied or backed up, for the configured root slot.
    #[command(after_help = "Example:\n  wangchuan key advice --lang zh")]
    Advice,
    /// Register an application's key, in a key service, that belongs to one customer: it is destroyed when its time is over.
    Register(outside::RegisterArgs),
    /// Answer for a registered key no longer. The key itself lives on.
    #[command(after_help = "Example:\n  wangchuan key unregister 0199a3c4-7b2e-7c10-9d51-0d3f6b1c2a44")]
    Unregister {
        /// The id of its registration, as `key list` shows it.
        id: String,
    },
    /// Take the root key from the slot under `[root.previous]` to the one under `[root]`.
    Move(moving::MoveArgs),
}

/// `key …`.
pub async fn key(context: &mut Context<'_>, command: KeyCommand) -> CommandResult {
    match command {
        KeyCommand::Status => status(context).await,
        KeyCommand::List => list::list(context).await,
        KeyCommand::Shred { now } => shred::shred(context, now).await,
        KeyCommand::Verify => verify::verify(context).await,
        KeyCommand::Advice => advice::show(context).await,
        KeyCommand::Register(args) => outside::register_key(context, args).await,
        KeyCommand::Unregister { id } => outside::unregister_key(context, &id).await,
        KeyCommand::Move(args) => moving::move_key(context, args).await,
    }
}

/// The JSON of `key status`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StatusDocument {
    /// `complete` when the slot holds the tree's root key, otherwise `failed`: nothing can be opened.
    result: Outcome,
    /// The generation of the key tree; null when there is no tree.
    generation: Option<i64>,
    /// Generations that the slot still holds.
    slot_generations: Vec<i64>,
    /// What may be claimed of a destruction in this slot.
    claim: SlotClaim,
    /// What the slot can do.
    abilities: AbilitiesEntry,
    /// How many keys there are, by subtree and state in the words of SP 800-57; `shred-pending` are those that are destroyed while an
    /// older root that leads to them could be brought back.
    keys: BTreeMap<String, BTreeMap<String, i64>>,
    /// Old root keys that open nothing any more and are irrevocably gone only at a date.
    doomed_roots: Vec<DoomedRootEntry>,
    /// How many outside keys there are, by state in the words of SP 800-57.
    outside_keys: BTreeMap<String, i64>,
    /// A generation change that was interrupted; the next start finishes it.
    interrupted: Option<Interrupted>,
    /// The newest state record in the second place; null while there is none.
    second_place: Option<SecondPlace>,
    /// Runs whose rows still open in backups.
    pending: Vec<PendingShred>,
    /// What is left of runs whose keys are destroyed.
    finality: FinalitySummary,
}

impl Document for StatusDocument {
    const OF: &'static [&'static str] = &["key status"];
}

/// An interrupted generation change.
#[derive(Debug, Serialize, JsonSchema)]
struct Interrupted {
    /// The generation it leads to.
    generation: i64,
    /// The last step that was done.
    step: String,
}

/// A run whose rows still open in backups.
#[derive(Debug, Serialize, JsonSchema)]
struct PendingShred {
    /// The run.
    run: String,
    /// Its keys die after this time, not before.
    grace_until: Option<Time>,
    /// Rows that still open after the last shred, because others share their keys; null before it.
    readable: Option<StillReadable>,
    /// When the destruction of its keys is irrevocable, once they are destroyed in a slot that can call that off until then.
    irrevocable_at: Option<Time>,
}

impl PendingShred {
    fn of(run: &RunRow) -> tasks::Result<Self> {
        let body = RunBody::of(run)?;
        Ok(Self {
            run: run.id.clone(),
            grace_until: run.grace_until.map(Time::from),
            readable: StillReadable::of(&body),
            irrevocable_at: body.irrevocable_at.map(Time::from),
        })
    }

    fn words(&self, config: &Configuration, run: &RunRow) -> Words {
        let id = &self.run;
        if let Some(at) = &self.irrevocable_at {
            let words = irrevocable(Some(&at.to_string()));
            return Words::new(format!("run {id}: {}", words.en), format!("运行 {id}：{}", words.zh));
        }
        if let Some(StillReadable { rows, until }) = &self.readable {
            return Words::new(
                format!("run {id}: {rows} rows still open in backups until {until}"),
                format!("运行 {id}：备份中仍有 {rows} 行可打开，直到 {until}"),
            );
        }
        let until = run.grace_until.map_or_else(|| "-".to_owned(), |until| local_time(config, until));
        Words::new(
            format!("run {id}: its keys die after {until}; until they do, its rows still open in backups"),
            format!("运行 {id}：{until} 之后销毁密钥；在此之前备份中的行仍可打开"),
        )
    }
}

async fn status(context: &mut Context<'_>) -> CommandResult {
    let installation = context.open(Needs::STATE).await?;
    let slot = installation.keyring.slot();
    let present = slot.list().await.map_err(|error| task_error(KeyringError::from(error).into()))?;
    let (document, runs) = read(&installation, &present, slot.as_ref()).await.map_err(task_error)?;
    show(context.output, &installation.config, &document, &runs)?;
    context.output.document(&document)?;
    installation.close().await.map_err(task_error)?;
    Ok(if document.result == Outcome::Complete { Exit::Done } else { Exit::Failed })
}

async fn read(
    installation: &Installation,
    present: &[PresentGeneration],
    slot: &dyn RootSlot,
) -> tasks::Result<(StatusDocument, Vec<RunRow>)> {
    let keys = list::counts(installation).await?;
    let mut tx = installation.control.read().await?;
    let generation = tx.tree_root().await?.map(|(generation, _)| generation);
    let runs = tx.runs(Some("shred-pending")).await?;
    let finality = FinalitySummary::of(&tx.runs(None).await?)?;
    let mut outside_keys: BTreeMap<String, i64> = BTreeMap::new();
    for line in outside::lines(&installation.config, &tasks::outside::list_outside_keys(&mut tx).await?) {
        *outside_keys.entry(line.state().name().to_owned()).or_default() += 1;
    }
    let interrupted = tx.open_rekey().await?.map(|(generation, step)| Interrupted { generation, step });
    let doomed = tx.doomed_roots().await?;
    let doomed_roots = doomed.iter().filter(|root| root.gone_at.is_none()).map(DoomedRootEntry::of).collect();
    let memory = Memory::read(&mut tx).await?;
    let second_place =
        memory.head.map(|head| SecondPlace { record: head.number, generation: head.generation, at: memory.at });
    drop(tx);
    let usable = present.iter().filter(|present| present.presence == Presence::Usable);
    let slot_generations: Vec<i64> = usable.map(|present| present.generation).collect();
    let is_there = generation.is_some_and(|generation| slot_generations.contains(&generation));
    let pending = runs.iter().map(PendingShred::of).collect::<tasks::Result<Vec<_>>>()?;
    let result = if is_there { Outcome::Complete } else { Outcome::Failed };
    let document = StatusDocument {
        result,
        generation,
        slot_generations,
        claim: slot.claim(),
        abilities: AbilitiesEntry::of(&slot.abilities()),
        keys,
        doomed_roots,
        outside_keys,
        interrupted,
        second_place,
        pending,
        finality,
    };
    Ok((document, runs))
}

fn show(
    output: &mut Output,
    config: &Configuration,
    document: &StatusDocument,
    runs: &[RunRow],
) -> Result<(), UserError> {
    match (document.generation, document.result) {
        (Some(generation), Outcome::Complete) => output.say(&Words::new(
            format!("generation {generation}; its root key is in the slot"),
            format!("第 {generation} 代；根密钥在密钥槽中"),
        ))?,
        (Some(generation), _) => {
            let held = &document.slot_generations;
            output.say(&Words::new(
                format!("✗ generation {generation}, but the slot holds {held:?}: nothing can be opened"),
                format!("✗ 第 {generation} 代，但密钥槽中是 {held:?}：什么都打不开"),
            ))?;
            let is_old_copy = held.iter().any(|held| *held > generation);
            output.note(&if is_old_copy { of_old_copy() } else { without_root() })?;
        }
        (None, _) => output.say(&Words::new("✗ there is no key tree", "✗ 没有密钥树"))?,
    }
    if let Some(Interrupted { generation, step }) = &document.interrupted {
        output.say(&Words::new(
            format!("! the change to generation {generation} was interrupted after {step}; the next start finishes it"),
            format!("! 到第 {generation} 代的更换在 {step} 之后中断；下次启动会完成"),
        ))?;
    }
    match &document.second_place {
        Some(SecondPlace { record: number, generation, .. }) => output.say(&Words::new(
            format!("second place: state {number}, of generation {generation}"),
            format!("第二存放处：第 {number} 号状态，属于第 {generation} 代"),
        ))?,
        None => output.say(&Words::new(
            "! nothing is in the second place yet: the first snapshot brings it there",
            "! 第二存放处尚无内容：首个快照会写入",
        ))?,
    }
    show_claim(output, &document.claim)?;
    document.abilities.show(output)?;
    for root in &document.doomed_roots {
        output.say(&root.words())?;
    }
    show_counts(output, document)?;
    for (pending, run) in document.pending.iter().zip(runs) {
        output.say(&pending.words(config, run))?;
    }
    for words in finality_words(&document.finality) {
        output.say(&words)?;
    }
    show_advice(output, document.claim.class)
}

fn show_claim(output: &mut Output, claim: &SlotClaim) -> Result<(), UserError> {
    let (en, zh) = claim_words(claim.sentence);
    output.say(&Words::new(
        format!("root slot of class {:?}: {en}", claim.class),
        format!("{:?} 级根密钥槽：{zh}", claim.class),
    ))?;
    for residual in &claim.residuals {
        let (en, zh) = residual_words(*residual);
        let (en, zh) = (format!("  a destroyed key may still lie {en}"), format!("  已销毁的密钥可能仍存在于{zh}"));
        output.say(&Words::new(en, zh))?;
    }
    Ok(())
}

/// What may be claimed after a destruction.
fn claim_words(sentence: ClaimSentence) -> (&'static str, &'static str) {
    match sentence {
        ClaimSentence::DestroyedNoCopyKnown => {
            ("a destroyed key is gone; no copy of it is known", "密钥已销毁，未知有任何副本")
        }
        ClaimSentence::DestroyedInLiveService => {
            ("a destroyed key is gone from the live key service or token", "密钥已在运行中的密钥服务或令牌里销毁")
        }
        ClaimSentence::IrrevocableFromDate => (
            "a destroyed key cannot be used any more and is irrevocably gone at a date",
            "密钥已不能使用，并在指定日期后不可恢复",
        ),
        ClaimSentence::LogicalRemovalOnly => (
            "logical removal only: a destroyed key is gone as long as no copy of this host, or of the software token, exists",
            "仅为逻辑删除：只有在本主机（或软件令牌）没有任何副本时，密钥才算消失",
        ),
    }
}

/// Where a destroyed key may still lie.
fn residual_words(residual: Residual) -> (&'static str, &'static str) {
    match residual {
        Residual::HostCopies => (
            "in any copy of this host: images, file-system snapshots, backups, unmapped blocks",
            "本主机的任何副本：镜像、文件系统快照、备份、未映射的块",
        ),
        Residual::ServiceBackups => {
            ("in backups of the key service, with what unseals it", "密钥服务的备份及其解封材料")
        }
        Residual::ServiceLog => ("in the key service's log or free pages", "密钥服务的日志或空闲页"),
        Residual::ProviderWord => ("with the provider, whose word is all there is", "服务商处，只能凭其承诺"),
        Residual::MemoryCapture => ("in a memory image taken while it was in use", "使用期间拍下的内存映像"),
        Residual::TokenCopies => ("in copies or backups of the token, with its PIN", "令牌的副本或备份及其 PIN"),
        Residual::MakerWord => (
            "in the device, if its maker's word that no key leaves it is not true",
            "设备中——如果厂商关于密钥不可导出的保证不实",
        ),
    }
}

fn show_counts(output: &mut Output, document: &StatusDocument) -> Result<(), UserError> {
    let lang = output.lang();
    let titles = [("keys", "密钥"), ("state", "状态"), ("count", "数量")];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(2);
    let outside = "outside".to_owned();
    for (subtree, states) in document.keys.iter().chain([(&outside, &document.outside_keys)]) {
        for (state, count) in states {
            let (subtree, state) = (kind_words(subtree), state_name_words(state));
            grid.row([subtree.in_lang(lang), state.in_lang(lang), &grouped(count.unsigned_abs())]);
        }
    }
    if !grid.is_empty() {
        output.table(&grid)?;
    }
    Ok(())
}

fn show_advice(output: &mut Output, class: SlotClass) -> Result<(), UserError> {
    let mut advice = vec![
        Words::new(
            "never put an old copy of the control database back: its keys are gone by design, and the agent refuses it; \
             `wangchuan recover` makes the newest one again",
            "切勿恢复控制数据库的旧副本：其密钥已按设计销毁，代理会拒绝；`wangchuan recover` 可重建最新的一份",
        ),
        Words::new(
            "copy freely: the bucket, the configuration, certificates and both logs",
            "可以随意复制：存储桶、配置、证书和两份日志",
        ),
    ];
    if class == SlotClass::D {
        advice.push(Words::new(
            "do not copy the root slot: a copy brings destroyed keys back, and is stale after the next shred. If this host \
             is lost, every backup is lost with it",
            "不要复制根密钥槽：副本会使已销毁的密钥复原，并在下次销毁后失效。若本主机丢失，所有备份随之丢失",
        ));
    }
    for words in &advice {
        output.note(words)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_claim_and_residual_has_words_of_its_own() {
        use ClaimSentence as Claim;
        let claims = [
            Claim::DestroyedNoCopyKnown,
            Claim::DestroyedInLiveService,
            Claim::IrrevocableFromDate,
            Claim::LogicalRemovalOnly,
        ];
        let residuals = [
            Residual::HostCopies,
            Residual::ServiceBackups,
            Residual::ServiceLog,
            Residual::ProviderWord,
            Residual::MemoryCapture,
            Residual::TokenCopies,
            Residual::MakerWord,
        ];
        let words = claims.map(claim_words).into_iter().chain(residuals.map(residual_words));
        let texts: std::collections::HashSet<_> = words.flat_map(|(en, zh)| [en, zh]).collect();
        assert_eq!(texts.len(), 2 * (claims.len() + residuals.len()));
    }

    #[test]
    fn only_a_file_slot_warns_against_copying_it() {
        for (class, warns) in [(SlotClass::A, false), (SlotClass::D, true)] {
            let (mut output, _, err) = crate::cli::output::testing::output(false);
            show_advice(&mut output, class).unwrap();
            assert_eq!(err.text().contains("do not copy the root slot"), warns);
        }
    }
}
