//! `restore`: a snapshot's rows back into a database, the ledger first.

use std::fs::OpenOptions;
use std::future::Future;
use std::io::BufRead;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error, usage};
use super::super::hold::read_subject;
use super::super::output::shapes::Frames;
use super::super::output::table::grouped;
use super::super::output::{Document, Exit, Grid, Lang, Outcome, Output, Progress, UserError, Words, say};
use super::{choose_at, open_bucket_with, snapshots, while_renewing};
use crate::control::SnapshotRow;
use crate::installation::{Installation, Operation};
use crate::plan::Subject;
use crate::policy::registry::SecretText;
use crate::stores::{DataStore, Limits, StoreAddress, Transport, transport};
use crate::tasks;
use crate::tasks::restore::{Meter, RestoreReport, RestoredCollection, Standing, restore_watched};
use crate::tasks::selection::{Selection, cells_of_subject};

/// Put a snapshot, or a part of it, back into a database.
///
/// Rows that were erased since the snapshot do not come back, and nothing is ever written over rows that are there. Of a part, packs
/// are read in ranges where that is less than half of them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wangchuan restore --store shop --to sqlite://restored.db
  wangchuan restore 3f9c1a --to postgres://me@localhost/empty
  wangchuan restore --as-of 2026-03-01T08:00:00+08:00 --collection orders --to sqlite://orders.db
  wangchuan restore --subject - --to sqlite://customer.db < id.txt")]
pub struct RestoreArgs {
    /// The snapshot, by the beginning of its id (`wangchuan backup list`).
    snapshot: Option<String>,
    /// The newest snapshot of this store instead; can be left out when there is only one store.
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// The newest snapshot that was begun by this time instead (RFC 3339).
    #[arg(long, value_name = "TIME", conflicts_with = "snapshot")]
    as_of: Option<DateTime<Utc>>,
    /// Only this collection; can be given several times.
    #[arg(long, value_name = "NAME")]
    collection: Vec<String>,
    /// `-`: only the rows of one customer, whose id is read from standard input.
    #[arg(long, value_name = "-", value_parser = ["-"])]
    subject: Option<String>,
    /// Where to: `sqlite://FILE` (made if missing), `postgres://…` or `mysql://…`. `-` reads it from standard input, so that a
    /// password does not show in the list of processes.
    #[arg(long, value_name = "URL", env = "WANGCHUAN_RESTORE_TO", hide_env_values = true)]
    to: String,
    /// The target may be on another host without TLS: what is restored can be read on the way.
    #[arg(long)]
    insecure: bool,
}

/// The JSON of `restore`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RestoreDocument {
    /// `complete`, or `partial` with exit code 4 when rows were lost or damaged.
    result: Outcome,
    /// The store that the snapshot is of.
    store: String,
    /// The snapshot.
    snapshot: String,
    /// What was wanted of it.
    wanted: WantedPart,
    /// The rows by collection, parents first.
    collections: Vec<RestoredCollection>,
    /// What became of the snapshot's frames.
    frames: Frames,
    /// Bytes read of the backup.
    bytes_read: u64,
    /// Bytes that the snapshot has, with those that it continues.
    bytes_stored: u64,
    /// What is worth knowing about the restored database.
    notes: Vec<String>,
}

/// Which part of a snapshot was wanted.
#[derive(Debug, Serialize, JsonSchema)]
struct WantedPart {
    /// `all`, `collections`, or `subject` for the rows of one customer.
    of: &'static str,
    /// The collections; empty for all.
    only: Vec<String>,
}

impl WantedPart {
    fn of(wanted: &Selection) -> Self {
        let of = match wanted {
            Selection { subject: Some(_), .. } => "subject",
            Selection { collections, .. } if !collections.is_empty() => "collections",
            _ => "all",
        };
        Self { of, only: wanted.collections.clone() }
    }
}

impl Document for RestoreDocument {
    const OF: &'static [&'static str] = &["restore"];
}

/// `restore`. Exit code 4 when rows were lost or damaged.
pub async fn restore(context: &mut Context<'_>, args: RestoreArgs) -> CommandResult {
    context.only_now()?;
    if args.subject.is_some() && args.to == "-" {
        return Err(usage("TWO_INPUTS", "both --subject and --to are `-`", "--subject 和 --to 不能同时为 `-`")
            .advise("give the address in $WANGCHUAN_RESTORE_TO", "请用 $WANGCHUAN_RESTORE_TO 给出地址"));
    }
    let subject = args.subject.map(|_| read_subject(context)).transpose()?;
    let url = target_url(args.to)?;
    // The stores say how they write ids; those that cannot be reached are done without.
    let installation = open_bucket_with(context, subject.is_some()).await?;
    let rows: Vec<SnapshotRow> = snapshots(&installation).await?;
    let row = choose_at(&rows, (args.snapshot.as_deref(), args.as_of), args.store.as_deref())?;
    let wanted = selection(&installation, args.collection, subject.as_ref()).await.map_err(task_error)?;
    // Whatever was made in the target is taken back before the command ends.
    let _whole = installation.begin_piece().map_err(task_error)?;
    let target = Target::open(url, args.insecure)?;
    let wrote = |name, outcome| Operation {
        name,
        object: &row.id,
        outcome,
        subject: subject.as_ref(),
        references: wanted.collections.iter().map(|name| ("collection".to_owned(), name.clone())).collect(),
        ..Operation::default()
    };
    installation.log(wrote("restore.begin", "success")).await.map_err(task_error)?;
    let reading = installation.use_chain(row.chain).await.map_err(task_error)?;
    let (meter, progress) = (Meter::default(), Progress::on_stderr(context.lang(), 1));
    let restoring = bring_back(&installation, &meter, (row, &wanted), target.store.as_ref());
    let restored =
        watching((&meter, progress, context.lang()), &row.store, while_renewing(&installation, restoring)).await;
    installation.release_chain(&reading).await.map_err(task_error)?;
    let outcome = if restored.is_ok() { "success" } else { "failure" };
    installation.log(wrote("restore.end", outcome)).await.map_err(task_error)?;
    let mut report = match restored {
        Ok(report) => report,
        Err(error) => {
            target.take_back();
            return Err(task_error(error));
        }
    };
    let rows = report.collections.iter().map(|counts| counts.restored).sum();
    installation.note_bulk("restore.end", &row.id, rows).await;
    if subject.is_some() {
        report.notes.extend(installation.skipped().iter().map(|(store, _)| {
            format!("store {store} could not be asked how it writes this id: rows under another spelling of it may be missing")
        }));
    }
    if let Some(shared) = wanted.subject.as_ref().map(|cells| cells.shared_cells).filter(|shared| *shared > 0) {
        report.notes.push(format!(
            "rows in {shared} cells that were kept for somebody else too (a row in them changed hands) are left out"
        ));
    }
    let exit = show(context.output, &row.store, &wanted, report)?;
    installation.close().await.map_err(task_error)?;
    Ok(exit)
}

async fn selection(
    installation: &Installation,
    collections: Vec<String>,
    subject: Option<&Subject>,
) -> tasks::Result<Selection> {
    let subject = match subject {
        Some(subject) => Some(cells_of_subject(installation, subject).await?),
        None => None,
    };
    Ok(Selection { collections, subject })
}

async fn bring_back(
    installation: &Installation,
    meter: &Meter,
    (row, wanted): (&SnapshotRow, &Selection),
    target: &dyn DataStore,
) -> tasks::Result<RestoreReport> {
    let ground = installation.ground()?;
    let repository = &installation.backup()?.repository;
    let stop = installation.stop_switch();
    let (from, signer) = ((row.clone(), wanted), &installation.signer);
    restore_watched((stop, meter), &ground, repository.as_ref(), signer, from, target).await
}

/// A live display is told so often, a log so seldom.
const LIVE_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Does a restore, and says meanwhile how far it is.
async fn watching<T>(
    (meter, mut progress, lang): (&Meter, Progress, Lang),
    store: &str,
    restoring: impl Future<Output = tasks::Result<T>>,
) -> tasks::Result<T> {
    progress.step(&format!("{} {store}", say(lang, "restoring", "恢复")));
    let begun = tokio::time::Instant::now();
    let every = if progress.is_live() { LIVE_EVERY } else { LINE_EVERY };
    let mut restoring = std::pin::pin!(restoring);
    let done = loop {
        tokio::select! {
            done = &mut restoring => break done,
            () = tokio::time::sleep(every) => progress.tell(&standing_in_words(lang, &meter.standing(), begun.elapsed())),
        }
    };
    if done.is_ok() {
        progress.done(&standing_in_words(lang, &meter.standing(), begun.elapsed()));
    }
    done
}

/// Rows, bytes and what remains.
fn standing_in_words(lang: Lang, standing: &Standing, elapsed: Duration) -> String {
    let megabytes = standing.bytes as f64 / 1e6;
    let rows = grouped(standing.rows);
    let of = standing.of.map(grouped);
    let counts = match (&of, lang) {
        (Some(of), Lang::En) => format!("{rows} of {of} rows, {megabytes:.1} MB"),
        (None, Lang::En) => format!("{rows} rows, {megabytes:.1} MB"),
        (Some(of), Lang::Zh) => format!("{rows} / {of} 行，{megabytes:.1} MB"),
        (None, Lang::Zh) => format!("{rows} 行，{megabytes:.1} MB"),
    };
    let collection = Some(&standing.collection).filter(|name| !name.is_empty());
    match (collection, standing.remaining(elapsed)) {
        (Some(name), Some(left)) => {
            let (en, zh) = (format!("about {left} s left"), format!("约剩 {left} 秒"));
            format!("{name}: {counts}, {}", say(lang, &en, &zh))
        }
        (Some(name), None) => format!("{name}: {counts}"),
        (None, _) if standing.rows > 0 => counts,
        (None, _) => say(lang, "nothing to put in yet", "尚无可写入的行").to_owned(),
    }
}

fn target_url(given: String) -> Result<SecretText, UserError> {
    if given != "-" {
        return Ok(SecretText::new(given));
    }
    let mut line = zeroize::Zeroizing::new(String::new());
    let read = std::io::stdin().lock().read_line(&mut line);
    if read.is_err() || line.trim().is_empty() {
        return Err(usage("NO_TARGET", "no address came from standard input", "标准输入中没有地址"));
    }
    Ok(SecretText::new(line.trim().to_owned()))
}

/// The database that rows go to.
struct Target {
    store: Arc<dyn DataStore>,
    /// The SQLite file, when it was made here.
    made: Option<PathBuf>,
}

impl Target {
    fn open(url: SecretText, insecure: bool) -> Result<Self, UserError> {
        if transport(&url) == Some(Transport::MayBeClear) && !insecure {
            return Err(unencrypted());
        }
        let made = match sqlite_path(url.dangerous_text()) {
            Some(path) => make_private(path)?,
            None => None,
        };
        let address = StoreAddress {
            name: "target".to_owned(),
            url,
            read_url: None,
            base: PathBuf::from("."),
            create: true,
            limits: Limits::default(),
        };
        let store = crate::stores::open(&address).map_err(|error| {
            usage("TARGET", "the target's address is not usable", "目标地址不可用")
                .advise(
                    "write sqlite://FILE, postgres://… or mysql://…",
                    "请写成 sqlite://文件、postgres://… 或 mysql://…",
                )
                .because(error)
        })?;
        Ok(Self { store, made })
    }

    /// Removes an empty file that was made here; what else a failed restore leaves was rolled back by the database.
    fn take_back(self) {
        drop(self.store);
        if let Some(path) = self.made {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn unencrypted() -> UserError {
    let (en, zh) = ("the connection to the target may be unencrypted", "到目标库的连接可能未加密");
    usage("TARGET_IN_CLEAR", en, zh).advise(
        "add `sslmode=verify-full` (MariaDB: `ssl-mode=VERIFY_IDENTITY`) to the address; where the network itself is \
         protected, say `--insecure`",
        "请在地址中加入 `sslmode=verify-full`（MariaDB：`ssl-mode=VERIFY_IDENTITY`）；若网络本身受保护，请加 `--insecure`",
    )
}

/// The file that an SQLite address names.
fn sqlite_path(url: &str) -> Option<&Path> {
    let rest = url.strip_prefix("sqlite:")?;
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    (!path.is_empty() && path != ":memory:").then(|| Path::new(path))
}

/// Makes the file if it is missing, for its owner only: it will hold customer data. The database keeps the mode.
fn make_private(path: &Path) -> Result<Option<PathBuf>, UserError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(Some(path.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => {
            let what = Words::new("the target file cannot be made", "无法创建目标文件");
            Err(UserError::new(Exit::Failed, "TARGET", what)
                .at(path.display().to_string())
                .advise("check the folder and its permissions", "请检查目录和权限")
                .because(error))
        }
    }
}

fn show(output: &mut Output, store: &str, wanted: &Selection, report: RestoreReport) -> CommandResult {
    let lang = output.lang();
    let titles = [
        ("collection", "集合"),
        ("restored", "恢复"),
        ("shredded", "已销毁"),
        ("erased since", "其后已删除"),
        ("stubs", "占位"),
        ("lost", "密钥丢失"),
        ("corrupt", "损坏"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    for column in 1..titles.len() {
        grid = grid.right(column);
    }
    for counts in &report.collections {
        let numbers =
            [counts.restored, counts.shredded, counts.erased_since, counts.stubs, counts.lost, counts.corrupt];
        grid.row(std::iter::once(counts.collection.clone()).chain(numbers.map(grouped)));
    }
    output.table(&grid)?;
    for note in &report.notes {
        output.line(note)?;
    }
    if !wanted.is_all() {
        output.say(&share_read(report.bytes_read, report.bytes_stored))?;
    }
    let is_whole = report.is_whole();
    let (result, exit) = if is_whole { (Outcome::Complete, Exit::Done) } else { (Outcome::Partial, Exit::Partial) };
    output.say(&match exit {
        Exit::Done => Words::new(
            "everything that may come back has come back; what was erased stays gone",
            "可以恢复的都已恢复；已删除的不会回来",
        ),
        _ => Words::new(
            format!(
                "{} frames are lost and {} corrupt; the rows in them are missing",
                report.frames_lost, report.frames_corrupt
            ),
            format!("{} 个数据帧密钥丢失，{} 个损坏；其中的行没有恢复", report.frames_lost, report.frames_corrupt),
        ),
    })?;
    output.document(&RestoreDocument {
        result,
        store: store.to_owned(),
        snapshot: report.snapshot,
        wanted: WantedPart::of(wanted),
        collections: report.collections,
        frames: Frames {
            opened: report.frames_opened,
            shredded: report.frames_shredded,
            lost: report.frames_lost,
            corrupt: report.frames_corrupt,
            total: report.frames,
        },
        bytes_read: report.bytes_read,
        bytes_stored: report.bytes_stored,
        notes: report.notes,
    })?;
    Ok(exit)
}

/// How much of the backup was read for a part of it.
fn share_read(read: u64, stored: u64) -> Words {
    let percent = read as f64 / stored.max(1) as f64 * 100.0;
    let (kilobytes, all) = (grouped(read.div_ceil(1000)), grouped(stored.div_ceil(1000)));
    Words::new(
        format!("{kilobytes} kB of {all} kB were read for it ({percent:.1} %)."),
        format!("为此读取了 {all} kB 中的 {kilobytes} kB（{percent:.1} %）。"),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn sqlite_addresses_name_their_file() {
        assert_eq!(sqlite_path("sqlite://a/b.db?mode=rw"), Some(Path::new("a/b.db")));
        assert_eq!(sqlite_path("sqlite:///a.db"), Some(Path::new("/a.db")));
        assert_eq!(sqlite_path("sqlite:a.db"), Some(Path::new("a.db")));
        for other in ["sqlite://", "sqlite://:memory:", "postgres://host/a.db", ""] {
            assert_eq!(sqlite_path(other), None, "{other}");
        }
    }

    #[test]
    fn a_new_target_file_is_private_and_an_old_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.db");
        assert_eq!(make_private(&path).unwrap(), Some(path.clone()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, b"there").unwrap();
        assert_eq!(make_private(&path).unwrap(), None);
        assert_eq!(std::fs::read(&path).unwrap(), b"there");
        assert_eq!(make_private(&folder.path().join("no/new.db")).unwrap_err().code, "TARGET");
    }

    #[test]
    fn a_target_on_another_host_is_reached_with_tls_or_by_consent() {
        let open = |url: &str, insecure| Target::open(SecretText::new(url.to_owned()), insecure).err().map(|e| e.code);
        assert_eq!(open("postgres://me@db.example.com/shop", false), Some("TARGET_IN_CLEAR"));
        assert_eq!(open("mysql://me@db.example.com/shop", false), Some("TARGET_IN_CLEAR"));
        assert_eq!(open("postgres://me@db.example.com/shop", true), None);
        assert_eq!(open("postgres://me@db.example.com/shop?sslmode=require", false), None);
        assert_eq!(open("mysql://me@127.0.0.1/shop", false), None);
    }

    fn report(lost: u64) -> RestoreReport {
        let counts = RestoredCollection {
            store: "shop".to_owned(),
            collection: "orders".to_owned(),
            restored: 1_204,
            shredded: 3,
            lost,
            ..RestoredCollection::default()
        };
        RestoreReport {
            snapshot: "ab".to_owned(),
            collections: vec![counts],
            frames_opened: 5,
            frames_shredded: 1,
            frames_lost: lost,
            frames: 6 + lost,
            ..RestoreReport::default()
        }
    }

    #[test]
    fn only_lost_or_damaged_rows_make_a_restore_partial() {
        for (lost, result, exit) in [(0, "complete", Exit::Done), (2, "partial", Exit::Partial)] {
            let (mut output, out, err) = crate::cli::output::testing::output(true);
            assert_eq!(show(&mut output, "shop", &Selection::default(), report(lost)).unwrap(), exit);
            let document: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
            assert_eq!(document["result"], result);
            assert_eq!(document["collections"][0]["restored"], 1_204);
            assert_eq!(document["collections"][0]["lost"], lost);
            assert!(err.text().contains("1,204"), "{}", err.text());
        }
    }

    #[test]
    fn how_far_a_restore_is_stands_in_words() {
        let standing =
            |collection: &str, rows, of| Standing { collection: collection.to_owned(), rows, of, bytes: 2_500_000 };
        let words = |lang, standing: &Standing| standing_in_words(lang, standing, Duration::from_secs(10));
        let half = standing("orders", 5000, Some(10_000));
        assert_eq!(words(Lang::En, &half), "orders: 5,000 of 10,000 rows, 2.5 MB, about 10 s left");
        assert_eq!(words(Lang::Zh, &half), "orders: 5,000 / 10,000 行，2.5 MB, 约剩 10 秒");
        assert_eq!(words(Lang::En, &standing("orders", 5, None)), "orders: 5 rows, 2.5 MB");
        assert_eq!(words(Lang::En, &standing("", 7, Some(7))), "7 of 7 rows, 2.5 MB");
        assert_eq!(words(Lang::En, &standing("", 0, None)), "nothing to put in yet");
    }
}
