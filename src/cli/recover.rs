//! `recover`: the agent's state from bucket, root slot and configuration.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::{Context, local_time, task_error};
use super::output::shapes::Time;
use super::output::table::grouped;
use super::output::{Document, Exit, Outcome, Words};
use crate::installation::{rebuild, recover_site};

/// Make the control database of a lost host again, from bucket, root slot and configuration alone.
///
/// The newest state record in the bucket counts, and only that. Nothing that is there is overwritten: move an old copy of the
/// control database away first. Afterwards `wangchuan drill run` shows that the backups open.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wangchuan recover --config /etc/wangchuan/wangchuan.toml
  wangchuan recover --into look")]
pub struct RecoverArgs {
    /// Only make it, in this folder, to look at; by default the configured place, where the agent then goes on.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

/// The JSON of `recover`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RecoverDocument {
    /// Always `complete`.
    result: Outcome,
    /// The control database that was made.
    database: String,
    /// The number of the state record that it was made from.
    record: u64,
    /// When that record's image was taken; what came later is lost.
    at: Time,
    /// The generation of its key tree.
    generation: i64,
    /// The newest position of its ledger.
    ledger: i64,
    /// Committed or announced snapshots that it knows.
    snapshot_count: u64,
    /// The number of its newest certificate.
    certificate_sequence: i64,
    /// Keys in its tree.
    key_count: u64,
}

impl Document for RecoverDocument {
    const OF: &'static [&'static str] = &["recover"];
}

/// Runs the command.
pub async fn recover(context: &mut Context<'_>, args: RecoverArgs) -> CommandResult {
    context.only_now()?;
    let config = context.configuration()?;
    let (clock, random) = (context.clock.clone(), context.random.clone());
    let recovered = match &args.into {
        Some(folder) => rebuild(&config, folder, random).await,
        None => recover_site(config.clone(), clock, random).await,
    }
    .map_err(task_error)?;
    let at = local_time(&config, recovered.at);
    let database = recovered.database.shown();
    context.output.say(&Words::new(
        format!(
            "{database}: state {} of {at}, key generation {}, {} snapshots, {} certificates, {} keys",
            recovered.record,
            recovered.generation,
            recovered.snapshots,
            recovered.certificates,
            grouped(recovered.keys),
        ),
        format!(
            "{database}：{at} 的第 {} 号状态，第 {} 代密钥，{} 个快照，{} 张证书，{} 个密钥",
            recovered.record,
            recovered.generation,
            recovered.snapshots,
            recovered.certificates,
            grouped(recovered.keys),
        ),
    ))?;
    context.output.note(&Words::new(
        format!(
            "what came after {at} is lost: holds and requests entered since must be entered again, and entries of the operation log \
             are missing. `wangchuan drill run` shows that the backups open"
        ),
        format!("{at} 之后的内容已丢失：此后登记的保留令和请求须重新登记，操作日志也缺少相应条目。`wangchuan drill run` 可证明备份能打开"),
    ))?;
    context.output.document(&RecoverDocument {
        result: Outcome::Complete,
        database,
        record: recovered.record,
        at: recovered.at.into(),
        generation: recovered.generation,
        ledger: recovered.ledger,
        snapshot_count: recovered.snapshots as u64,
        certificate_sequence: recovered.certificates,
        key_count: recovered.keys,
    })?;
    Ok(Exit::Done)
}
