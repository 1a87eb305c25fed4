//! `verify residue`: looks into the raw files of stores for erased values.

use std::io::Read as _;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::backup::{open_bucket_with, while_renewing};
use super::super::context::{Context, task_error, usage};
use super::super::output::shapes::Verification;
use super::super::output::table::grouped;
use super::super::output::{Document, Exit, Grid, Output, UserError, Words, say};
use crate::stores::FileKind;
use crate::tasks::residue::{KindSearch, StoreSearch, Unsearched, Wanted, look_for_residue};

/// What to look for.
#[derive(Debug, Args)]
pub struct ResidueArgs {
    /// The store; otherwise all.
    store: Option<String>,
    /// Look for the values on standard input, one a line, instead of those of runs in grace. They are neither kept nor logged.
    #[arg(long)]
    values: bool,
    /// At most so many values of each store.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    sample: u32,
    /// At most so many gigabytes of each store's files.
    #[arg(long, default_value_t = 20)]
    limit_gb: u32,
}

/// The JSON of `verify residue`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ResidueDocument {
    /// `valid` when nothing was found where everything was looked into; `invalid` with exit code 1 when something was found; `failed` with
    /// exit code 4 when something was not looked into.
    result: Verification,
    /// How many values were found in some kind of file, kinds counted one by one.
    found_values: u64,
    /// What was looked into, and what not.
    searches: Vec<StoreSearch>,
}

impl Document for ResidueDocument {
    const OF: &'static [&'static str] = &["verify residue"];
}

/// Runs the command.
pub(super) async fn residue(context: &mut Context<'_>, args: ResidueArgs) -> CommandResult {
    context.only_now()?;
    let given = if args.values { Some(read_values()?) } else { None };
    let installation = open_bucket_with(context, true).await?;
    let wanted = Wanted {
        store: args.store.as_deref(),
        given,
        sample: args.sample as usize,
        limit: u64::from(args.limit_gb) << 30,
    };
    let looked = while_renewing(&installation, look_for_residue(&installation, wanted)).await;
    installation.close().await.map_err(task_error)?;
    show(context.output, looked.map_err(task_error)?)
}

fn read_values() -> Result<Vec<String>, UserError> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).map_err(|error| UserError::from_any(error.into()))?;
    let values: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if values.is_empty() {
        return Err(usage(
            "no-values",
            "there is no value on standard input; write one a line, of six bytes at least",
            "标准输入中没有值；请每行写一个，至少六个字节",
        ));
    }
    Ok(values)
}

fn show(output: &mut Output, searches: Vec<StoreSearch>) -> CommandResult {
    let lang = output.lang();
    let titles = [
        ("store", "数据源"),
        ("files", "文件"),
        ("number", "个数"),
        ("bytes", "字节"),
        ("values found", "发现的值"),
        ("not looked into", "未检查"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(2).right(3).right(4);
    for search in &searches {
        for kind in &search.file_kinds {
            let (en, zh) = kind_words(kind.kind);
            let missing: Vec<&str> =
                kind.gaps.iter().map(|why| why_words(*why)).map(|(en, zh)| say(lang, en, zh)).collect();
            let numbers = [kind.files_read, kind.bytes_read, kind.values_found].map(grouped);
            let head = [search.store.clone(), say(lang, en, zh).to_owned()];
            grid.row(head.into_iter().chain(numbers).chain([missing.join(", ")]));
        }
    }
    if !grid.is_empty() {
        output.table(&grid)?;
    }
    for search in &searches {
        output.say(&verdict(search))?;
    }
    let found_values = searches.iter().map(StoreSearch::found).sum();
    let (result, exit) = match (found_values, searches.iter().all(StoreSearch::is_whole)) {
        (0, true) => (Verification::Valid, Exit::Done),
        (0, false) => (Verification::Failed, Exit::Partial),
        _ => (Verification::Invalid, Exit::Failed),
    };
    output.document(&ResidueDocument { result, found_values, searches })?;
    Ok(exit)
}

fn verdict(search: &StoreSearch) -> Words {
    let store = &search.store;
    if let Some(why) = search.not_searched {
        let (en, zh) = why_words(why);
        return Words::new(format!("store {store} was not looked into: {en}"), format!("数据源 {store} 未检查：{zh}"));
    }
    let (values, living) = (grouped(search.values_sought), grouped(search.living_values));
    let places: Vec<&KindSearch> = search.file_kinds.iter().filter(|kind| kind.values_found > 0).collect();
    if places.is_empty() {
        return Words::new(
            format!(
                "store {store}: none of {values} erased values stands in the files that were read ({living} that living rows have as well were left out)"
            ),
            format!(
                "数据源 {store}：在已读取的文件中没有发现 {values} 个已擦除的值（另有 {living} 个仍在现存行中，未计入）"
            ),
        );
    }
    let names = |of: fn((&'static str, &'static str)) -> &'static str, between: &str| {
        places.iter().map(|kind| of(kind_words(kind.kind))).collect::<Vec<_>>().join(between)
    };
    Words::new(
        format!(
            "✗ store {store}: of {values} erased values, some stand in: {}. `wangchuan store settle {store}` says what holds them",
            names(|words| words.0, ", ")
        ),
        format!(
            "✗ 数据源 {store}：{values} 个已擦除的值中，有些仍在：{}。`wangchuan store settle {store}` 会说明原因",
            names(|words| words.1, "、")
        ),
    )
}

fn kind_words(kind: FileKind) -> (&'static str, &'static str) {
    match kind {
        FileKind::Tables => ("tables and indexes", "表和索引"),
        FileKind::Journal => ("journal", "日志文件"),
        FileKind::TransactionLog => ("transaction log", "事务日志"),
        FileKind::Undo => ("undo logs", "撤销日志"),
        FileKind::BinaryLog => ("binary log", "二进制日志"),
        FileKind::StatementLog => ("statement logs", "语句日志"),
        FileKind::Temporary => ("temporary files", "临时文件"),
    }
}

fn why_words(why: Unsearched) -> (&'static str, &'static str) {
    match why {
        Unsearched::NoValues => (
            "no value is known: nothing of it is in grace; give values with --values",
            "没有可用的值：没有处于宽限期的擦除；可用 --values 提供",
        ),
        Unsearched::OtherHost => (
            "its files lie on another host (`files.data` names a folder here)",
            "其文件在另一台主机上（可用 `files.data` 指定本机目录）",
        ),
        Unsearched::Unknown => (
            "the server does not tell where its files are (`files.data` does)",
            "服务器没有说明其文件位置（可用 `files.data` 指定）",
        ),
        Unsearched::Unreadable => ("not readable by this user", "当前用户无权读取"),
        Unsearched::Missing => {
            ("no file of a table, or of a log that is on, was found", "未找到某个表或某个已开启日志的文件")
        }
        Unsearched::Limit => ("the bound on bytes was reached", "已达到字节上限"),
        Unsearched::Encoding => (
            "some values have letters whose bytes in this database's encoding are not known",
            "部分值含有在该数据库编码下字节未知的字符",
        ),
        Unsearched::StoreFailed => ("the store cannot be asked", "无法访问该数据源"),
    }
}
