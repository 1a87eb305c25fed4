//! What a store's own files may still hold of deleted rows, in words; and `store settle`.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::{Document, Exit, Outcome, Output, Words};
use crate::control::time_text;
use crate::installation::Needs;
use crate::stores::{FileSearch, PhysicalStage, Residue, ResidueCode};
use crate::tasks::erasure::StoreFiles;
use crate::tasks::settle::{SettledStore, settle_store};

/// What the files of a store may still hold of the rows of a run.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cli) struct FilesEntry {
    /// The store.
    store: String,
    /// Whether nothing of the deleted rows is left in its files.
    clean: bool,
    /// How far the erasure got inside the files.
    stage: PhysicalStage,
    /// What may hold them.
    residues: Vec<Residue>,
    /// The same as one sentence.
    what: String,
    /// When the store was last asked (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    asked_at: String,
    /// What the last `verify residue` found of the rows in its raw files; null before one.
    last_search: Option<FileSearch>,
}

impl FilesEntry {
    /// Of a run's record.
    pub fn of(files: &StoreFiles) -> Self {
        Self {
            store: files.store.clone(),
            clean: files.stage() == PhysicalStage::Settled,
            stage: files.stage(),
            residues: files.residues.clone(),
            what: sentence(&files.residues).en,
            asked_at: time_text(files.asked_at),
            last_search: files.searched.clone(),
        }
    }
}

/// The line of one store.
pub(in crate::cli) fn line(store: &str, residues: &[Residue]) -> Words {
    let mark = if residues.is_empty() { "✓" } else { "…" };
    let words = sentence(residues);
    Words::new(format!("  {mark} {store}: {}", words.en), format!("  {mark} {store}：{}", words.zh))
}

fn sentence(residues: &[Residue]) -> Words {
    if residues.is_empty() {
        return Words::new(
            "deleted rows are overwritten in its files; what the file system or the drive keeps of older blocks is beyond this program",
            "已删除的行在其文件中已被覆盖；文件系统或磁盘保留的旧数据块不在本程序范围内",
        );
    }
    let all: Vec<Words> = residues.iter().map(words).collect();
    let join = |of: fn(&Words) -> &str, between: &str| all.iter().map(of).collect::<Vec<_>>().join(between);
    Words::new(
        format!("deleted rows may still be in its files: {}", join(|words| &words.en, "; ")),
        format!("其文件中可能仍有已删除的行：{}", join(|words| &words.zh, "；")),
    )
}

/// One residue.
fn words(residue: &Residue) -> Words {
    let of = residue.of.as_deref().unwrap_or_default();
    let (en, zh) = match residue.code {
        ResidueCode::OpenReader => ("another connection keeps older pages alive", "另一连接仍在使用旧页面"),
        ResidueCode::OldTransaction => ("an older transaction keeps them (process", "较早的事务仍保留它们（进程"),
        ResidueCode::PreparedTransaction => ("a prepared transaction keeps them (", "预备事务仍保留它们（"),
        ResidueCode::ReplicationSlot => ("a replication slot keeps them (", "复制槽仍保留它们（"),
        ResidueCode::PurgeBehind => ("InnoDB has not purged them yet", "InnoDB 尚未清除它们"),
        ResidueCode::Unfinished => ("the clean-up was not finished and is tried again", "清理尚未完成，将会重试"),
        ResidueCode::NoRight => ("the login may not clean up this table (", "该账号无权清理此表（"),
        ResidueCode::UnseenPurge => (
            "the login does not see whether InnoDB has purged them (GRANT PROCESS, then `wangchuan store settle`)",
            "该账号看不到 InnoDB 是否已清除它们（需 GRANT PROCESS，再执行 `wangchuan store settle`）",
        ),
        ResidueCode::UnseenSessions => (
            "the login does not see other sessions (GRANT pg_read_all_stats)",
            "该账号看不到其他会话（需 GRANT pg_read_all_stats）",
        ),
        ResidueCode::PageRemains => (
            "unused parts of pages were not overwritten (`wangchuan store settle --rewrite` writes the tables anew)",
            "页面中未使用的部分没有覆盖（`wangchuan store settle --rewrite` 可重写这些表）",
        ),
        ResidueCode::NoRoom => (
            "the disk has no room to write the file anew (make room, then `wangchuan store settle`)",
            "磁盘空间不足，无法重写该文件（腾出空间后执行 `wangchuan store settle`）",
        ),
        ResidueCode::SearchIndex => ("a full-text index could not be tidied (", "全文索引无法整理（"),
        ResidueCode::TransactionLog => {
            ("the write-ahead or redo log, until it is recycled", "预写日志或重做日志，直到被回收")
        }
        ResidueCode::LogArchive => ("archived write-ahead log", "已归档的预写日志"),
        ResidueCode::BinaryLog => ("the binary log", "二进制日志"),
        ResidueCode::StatementLog => ("a log of statements is on", "语句日志已开启"),
        ResidueCode::ReplicaBehind => ("a replica does not show the deletion yet (", "副本尚未显示已删除（"),
    };
    let (mut en, mut zh) = (en.to_owned(), zh.to_owned());
    if !of.is_empty() {
        let between = if en.ends_with('(') {
            ""
        } else if en.contains('(') {
            " "
        } else {
            " ("
        };
        let between_zh = if zh.contains('（') { "" } else { "（" };
        en = format!("{en}{between}{of})");
        zh = format!("{zh}{between_zh}{of}）");
    }
    if let Some(day) = residue.until {
        en = format!("{en}, which should expire on {day}");
        zh = format!("{zh}，预计 {day} 过期");
    }
    Words::new(en, zh)
}

/// The JSON of `store settle`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SettleDocument {
    /// `complete`, or `partial` (exit code 4) when something that passes by itself still holds deleted rows.
    result: Outcome,
    /// The store.
    store: String,
    /// How far the erasure got inside the files.
    stage: PhysicalStage,
    /// What may hold deleted rows.
    residues: Vec<Residue>,
    /// The runs of which that was noted.
    noted_runs: Vec<String>,
}

impl Document for SettleDocument {
    const OF: &'static [&'static str] = &["store settle"];
}

/// `store settle`.
pub(in crate::cli) async fn settle(context: &mut Context<'_>, name: &str, rewrite: bool) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs::ALL).await?;
    let settled = settle_store(&installation, name, rewrite).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    show(context.output, settled)
}

fn show(output: &mut Output, settled: SettledStore) -> CommandResult {
    let SettledStore { store, stage, residues, runs } = settled;
    output.say(&line(&store, &residues))?;
    let is_pending = stage == PhysicalStage::Pending;
    if is_pending {
        output.say(&Words::new(
            "What passes by itself is looked at again by the job `shred`, every hour.",
            "会自行消失的残留由任务 `shred` 每小时再次检查。",
        ))?;
    }
    let result = if is_pending { Outcome::Partial } else { Outcome::Complete };
    output.document(&SettleDocument { result, store, stage, residues, noted_runs: runs })?;
    Ok(if is_pending { Exit::Partial } else { Exit::Done })
}
