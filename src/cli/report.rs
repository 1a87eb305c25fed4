//! `report …`: what happened in a month, in numbers that others can count again.

use std::path::PathBuf;

use chrono::{Datelike as _, Months, NaiveDate};
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::certificate::write_all;
use super::context::{Context, task_error};
use super::output::shapes::Time;
use super::output::table::grouped;
use super::output::{Document, Exit, Grid, Outcome, Output, UserError, Words, say};
use crate::certify::report::{Totals, Tries};
use crate::installation::Needs;
use crate::tasks::report::{MadeReport, make_report};

/// Reports.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// A month in numbers, from the operation log and the certificates alone; with --output signed, in a file.
    ///
    /// Whoever has an evidence pack that covers the month counts again with `wangchuan evidence-pack verify DIR --report FILE`, and is
    /// told which number differs.
    #[command(after_help = "Examples:
  wangchuan report monthly
  wangchuan report monthly --month 2026-03 --output report-2026-03.json")]
    Monthly(MonthlyArgs),
}

/// Which month, and where to write.
#[derive(Debug, Args)]
pub struct MonthlyArgs {
    /// The month, `2026-03`; by default the last one that is over.
    #[arg(long, value_name = "MONTH", value_parser = month)]
    month: Option<NaiveDate>,
    /// The file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The first day of a month.
fn month(text: &str) -> Result<NaiveDate, String> {
    let first = NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok();
    let first = first.filter(|first| first.format("%Y-%m").to_string() == text);
    first.ok_or_else(|| "a month is written like 2026-03".to_owned())
}

/// The JSON of `report monthly`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MonthlyDocument {
    /// `complete`; `partial` for a month that is not over.
    result: Outcome,
    /// The month.
    month: String,
    /// The first day.
    from: NaiveDate,
    /// The last day.
    to: NaiveDate,
    /// Until when things are counted: the end of the last day, or when the report was made.
    until: Time,
    /// The signed file; null when none was wanted.
    file: Option<PathBuf>,
    /// The key that signed it (SHA-256 of it).
    key_id: String,
    /// The totals, as the file has them.
    totals: Totals,
}

impl Document for MonthlyDocument {
    const OF: &'static [&'static str] = &["report monthly"];
}

/// `report …`.
pub async fn report(context: &mut Context<'_>, command: ReportCommand) -> CommandResult {
    match command {
        ReportCommand::Monthly(args) => monthly(context, args).await,
    }
}

async fn monthly(context: &mut Context<'_>, args: MonthlyArgs) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs::STATE).await?;
    let today = context.clock.now().with_timezone(&installation.config.agent.timezone).date_naive();
    let last = today.with_day(1).and_then(|first| first.checked_sub_months(Months::new(1)));
    let from = args.month.or(last).unwrap_or(today);
    let to = from.checked_add_months(Months::new(1)).and_then(|next| next.pred_opt()).unwrap_or(from);
    let made = make_report(&installation, from, to).await.map_err(task_error)?;
    let key_id = installation.signer.key_id().to_owned();
    installation.close().await.map_err(task_error)?;
    if let Some(path) = &args.output {
        write_all(&[(path, made.file.as_slice())])?;
    }
    show(context.output, &made)?;
    if let Some(path) = &args.output {
        let shown = path.display();
        context.output.say(&Words::new(format!("{shown}: the report, signed"), format!("{shown}：已签名的报告")))?;
    }
    let MadeReport { report, is_over, .. } = made;
    context.output.document(&MonthlyDocument {
        result: if is_over { Outcome::Complete } else { Outcome::Partial },
        month: from.format("%Y-%m").to_string(),
        from,
        to,
        until: report.counted().1.into(),
        file: args.output,
        key_id,
        totals: report.totals,
    })?;
    Ok(Exit::Done)
}

fn show(output: &mut Output, made: &MadeReport) -> Result<(), UserError> {
    let (lang, totals) = (output.lang(), &made.report.totals);
    let titles = [
        ("policy", "策略"),
        ("table", "表"),
        ("due", "到期"),
        ("erased", "已删除"),
        ("anonymised", "已匿名化"),
        ("kept", "保留"),
        ("failed", "失败"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    for column in 2..titles.len() {
        grid = grid.right(column);
    }
    for row in &totals.rows {
        let numbers = [row.due, row.erased, row.anonymised, row.kept, row.failed].map(grouped);
        grid.row([&[row.policy.clone(), row.place.clone()], &numbers[..]].concat());
    }
    if !grid.is_empty() {
        output.table(&grid)?;
    }
    let mut lines = Grid::new([say(lang, "what", "事项"), say(lang, "in the month", "本月")]);
    for (words, text) in told(totals) {
        lines.row([words.in_lang(lang).to_owned(), text.in_lang(lang).to_owned()]);
    }
    output.table(&lines)?;
    if totals.expired_entries > 0 {
        let expired = grouped(totals.expired_entries);
        output.note(&Words::new(
            format!("entries of the operation log whose content has expired, and which are in no number: {expired}"),
            format!("操作日志中内容已过期、未计入的条目：{expired}"),
        ))?;
    }
    if !made.is_over {
        output.note(&Words::new("the month is not over", "本月尚未结束"))?;
    }
    Ok(())
}

/// What is told beside the rows.
fn told(totals: &Totals) -> Vec<(Words, Words)> {
    let tries = |tries: &Tries| {
        let (done, wrong) = (grouped(tries.done), grouped(tries.went_wrong));
        Words::new(format!("{done}, {wrong} failed"), format!("{done}，失败 {wrong}"))
    };
    let number = |number: u64| Words::new(grouped(number), grouped(number));
    let requests = &totals.requests;
    let [received, answered, late, open, overdue] =
        [requests.received, requests.answered, requests.answered_late, requests.unanswered, requests.overdue]
            .map(grouped);
    let by_name = |all: &std::collections::BTreeMap<String, u64>| {
        let each: Vec<String> = all.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
        let text = if each.is_empty() { "0".to_owned() } else { each.join(", ") };
        Words::new(text.clone(), text)
    };
    vec![
        (Words::new("erasures", "删除任务"), number(totals.erasures.ended)),
        (
            Words::new("requests", "请求"),
            Words::new(
                format!("{received} received, {answered} answered ({late} late), {open} open ({overdue} overdue)"),
                format!("收到 {received}，已答复 {answered}（逾期 {late}），未答复 {open}（已逾期 {overdue}）"),
            ),
        ),
        (Words::new("backups", "备份"), tries(&totals.backups)),
        (Words::new("drills", "恢复演练"), tries(&totals.drills)),
        (Words::new("shreds of keys", "密钥销毁"), tries(&totals.shreds)),
        (Words::new("keys destroyed, as certified", "经证书证明已销毁的密钥"), number(totals.keys_destroyed)),
        (Words::new("certificates", "证书"), by_name(&totals.certificates_by_result)),
        (Words::new("roll-ups", "汇总"), number(totals.roll_ups)),
        (Words::new("refusals", "拒绝"), by_name(&totals.refusals)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_written_in_one_way() {
        assert_eq!(month("2026-03").unwrap(), NaiveDate::from_ymd_opt(2026, 3, 1).unwrap());
        for wrong in ["2026-3", "2026-13", "2026-03-01", "03-2026", ""] {
            assert!(month(wrong).is_err(), "{wrong}");
        }
    }
}
