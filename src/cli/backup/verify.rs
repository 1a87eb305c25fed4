//! `backup verify`: everything read back, without any decryption key.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, local_time, task_error};
use super::super::output::shapes;
use super::super::output::table::grouped;
use super::super::output::{Document, Exit, Grid, Output, Words, say};
use super::{choose, newest_of_each, open_bucket, snapshots, while_renewing};
use crate::agent::{Coverage, verify_part};
use crate::backup::verify::{Problem, Sample, Verification};
use crate::config::Configuration;

/// The backups of one store, read back.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct VerifiedStore {
    /// The store.
    store: String,
    /// Manifests, one for each snapshot.
    manifests: u64,
    /// Packs.
    packs: u64,
    /// Parts of directories.
    directory_parts: u64,
    /// Sealed frames.
    frames: u64,
    /// Objects read.
    objects_read: u64,
    /// Bytes read.
    bytes_read: u64,
    /// What was read back, with earlier runs.
    coverage: CoverageEntry,
    /// Manifests of cancelled snapshots that came late: named, and no problem.
    uncommitted: Vec<String>,
    /// Manifests of snapshots that are not kept any more: good, and their packs were not looked for.
    pruned: u64,
    /// What does not fit.
    problems: Vec<FoundProblem>,
}

/// What of the packs and directory parts was ever read back.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CoverageEntry {
    /// How many percent of the bytes this run was to read; null when it read everything.
    sample_percent: Option<u8>,
    /// Packs and directory parts there are.
    objects: u64,
    /// Their bytes.
    bytes: u64,
    /// Of them, those that were read back and good at some time.
    objects_covered: u64,
    /// Their bytes.
    bytes_covered: u64,
    /// When the one was read that waited longest; null while some were never read.
    oldest_read_at: Option<shapes::Time>,
}

impl CoverageEntry {
    fn of(coverage: &Coverage) -> Self {
        Self {
            sample_percent: coverage.percent,
            objects: coverage.objects,
            bytes: coverage.bytes,
            objects_covered: coverage.objects_covered,
            bytes_covered: coverage.bytes_covered,
            oldest_read_at: coverage.oldest_read_at.map(Into::into),
        }
    }

    /// What a sample covers by now, as a sentence; `None` when everything was read.
    fn words(&self, config: &Configuration, store: &str) -> Option<Words> {
        let percent = self.sample_percent?;
        let (covered, all, runs) = (grouped(self.objects_covered), grouped(self.objects), Sample::runs(percent));
        let bytes = (self.bytes_covered * 100).checked_div(self.bytes).unwrap_or(100);
        let oldest = self.oldest_read_at.as_ref().map(|at| local_time(config, at.instant()));
        let (en, zh) = match &oldest {
            Some(at) => (format!(", the oldest reading of {at}"), format!("，最早一次读回于 {at}")),
            None => (String::new(), String::new()),
        };
        Some(Words::new(
            format!(
                "store {store}: {covered} of {all} objects ({bytes} % of the bytes) were read back at some time{en}; \
                 {runs} runs of {percent} % read everything"
            ),
            format!(
                "数据源 {store}：{all} 个对象中 {covered} 个（字节的 {bytes} %）曾被读回{zh}；每次 {percent} %，{runs} 次读完全部"
            ),
        ))
    }
}

/// Something in the bucket that does not fit.
#[derive(Debug, Serialize, JsonSchema)]
struct FoundProblem {
    /// The object's name.
    object: String,
    /// What is wrong with it.
    what: String,
    /// Whether reading it again may help.
    retry: bool,
    /// Whether it could not be read at all, so that nothing is known of it.
    unread: bool,
}

/// The JSON of `backup verify`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VerifyDocument {
    /// `valid`, `invalid` or (could not be read whole) `failed` with exit code 1, `nothing-found` without snapshots.
    result: shapes::Verification,
    /// By store.
    stores: Vec<VerifiedStore>,
}

impl Document for VerifyDocument {
    const OF: &'static [&'static str] = &["backup verify"];
}

/// Verifies all backups of the wanted stores. Exit code 1 when something is wrong.
pub async fn verify(context: &mut Context<'_>, store: Option<&str>, sample: Option<u8>) -> CommandResult {
    // When objects were read is noted.
    context.only_now()?;
    let installation = open_bucket(context).await?;
    let rows = snapshots(&installation).await?;
    let heads = match store {
        Some(store) => vec![choose(&rows, None, Some(store))?],
        None => newest_of_each(rows.iter()),
    };
    let mut stores = Vec::new();
    for head in heads {
        let verifying = verify_part(&installation, &head.store, sample);
        let (found, coverage) = while_renewing(&installation, verifying).await.map_err(task_error)?;
        stores.push(verified_store(&head.store, found, &coverage));
    }
    let exit = show_verified(context.output, &installation.config, stores)?;
    installation.close().await.map_err(task_error)?;
    Ok(exit)
}

pub(super) fn verified_store(store: &str, found: Verification, coverage: &Coverage) -> VerifiedStore {
    let problem = |problem: Problem| FoundProblem {
        object: problem.object,
        what: problem.what,
        retry: problem.retryable,
        unread: problem.unread,
    };
    VerifiedStore {
        store: store.to_owned(),
        manifests: found.manifests,
        packs: found.packs,
        directory_parts: found.directory_parts,
        frames: found.frames,
        objects_read: found.objects_read,
        bytes_read: found.bytes_read,
        coverage: CoverageEntry::of(coverage),
        uncommitted: found.uncommitted,
        pruned: found.pruned,
        problems: found.problems.into_iter().map(problem).collect(),
    }
}

pub(super) fn show_verified(output: &mut Output, config: &Configuration, stores: Vec<VerifiedStore>) -> CommandResult {
    let lang = output.lang();
    let (result, exit) = match stores.iter().all(|store| store.problems.is_empty()) {
        true if stores.is_empty() => (shapes::Verification::NothingFound, Exit::Done),
        true => (shapes::Verification::Valid, Exit::Done),
        // What could not be read is not called damaged.
        false if stores.iter().flat_map(|store| &store.problems).all(|problem| problem.unread) => {
            (shapes::Verification::Failed, Exit::Failed)
        }
        false => (shapes::Verification::Invalid, Exit::Failed),
    };
    if stores.is_empty() {
        output.say(&Words::new("there is no snapshot to verify", "没有可以检验的快照"))?;
    } else {
        let titles = [
            ("store", "数据源"),
            ("snapshots", "快照"),
            ("packs", "数据包"),
            ("frames", "数据帧"),
            ("bytes read", "读取字节"),
            ("problems", "问题"),
        ];
        let grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
        let mut grid = grid.right(1).right(2).right(3).right(4).right(5);
        for store in &stores {
            let numbers = [store.manifests, store.packs, store.frames, store.bytes_read, store.problems.len() as u64];
            grid.row(std::iter::once(store.store.clone()).chain(numbers.map(grouped)));
        }
        output.table(&grid)?;
    }
    for words in stores.iter().filter_map(|store| store.coverage.words(config, &store.store)) {
        output.say(&words)?;
    }
    for problem in stores.iter().flat_map(|store| &store.problems) {
        output.line(&format!("✗ {}: {}", problem.object, problem.what))?;
    }
    if result == shapes::Verification::Failed {
        output.say(&Words::new(
            "✗ the bucket could not be read whole; nothing that was read is wrong",
            "✗ 未能读完存储桶；已读取的部分没有问题",
        ))?;
    }
    for name in stores.iter().flat_map(|store| &store.uncommitted) {
        output.say(&Words::new(
            format!("! {name}: of a snapshot that was cancelled; nothing reads it"),
            format!("! {name}：属于已取消的快照，不会被读取"),
        ))?;
    }
    if result == shapes::Verification::Valid {
        let is_whole = stores.iter().all(|store| store.coverage.sample_percent.is_none());
        output.say(&if is_whole {
            Words::new("✓ every object is there, unchanged and signed", "✓ 所有对象都在，没有改动，签名有效")
        } else {
            Words::new(
                "✓ every object is there; what was read is unchanged and signed",
                "✓ 所有对象都在；已读取的部分没有改动，签名有效",
            )
        })?;
    }
    output.document(&VerifyDocument { result, stores })?;
    Ok(exit)
}
