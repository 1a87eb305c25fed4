//! `status` and `doctor`: what needs a person.

mod doctor;
mod document;

use super::CommandResult;
use super::context::{Context, local_time, task_error};
use super::media::WaitingMediumEntry;
use super::output::shapes::{DoomedOutsideKeyEntry, DoomedRootEntry};
use super::output::table::grouped;
use super::output::{Exit, Grid, Outcome, Output, UserError, Words, say};
use super::stage::{finality_words, irrevocable, meaning};
use crate::config::Configuration;
use crate::tasks::status::{Overdue, Status};

pub use doctor::{DoctorArgs, DoctorDocument, doctor};
pub use document::StatusDocument;

/// `status`. Reads the control database alone, so it answers beside a working agent. Exit code 5 when something is overdue.
pub async fn status(context: &mut Context<'_>) -> CommandResult {
    let (config, control) = context.control().await?;
    let read = crate::tasks::status::status(&control, &config, context.clock.as_ref()).await;
    let status = read.map_err(task_error)?;
    control.close().await;
    show(context.output, &config, &status)
}

fn show(output: &mut Output, config: &Configuration, status: &Status) -> CommandResult {
    show_state(output, config, status)?;
    show_snapshots(output, config, status)?;
    let is_well = status.overdue.is_empty();
    let (result, exit) = if is_well { (Outcome::Complete, Exit::Done) } else { (Outcome::Partial, Exit::Overdue) };
    if is_well {
        output.say(&Words::new("✓ nothing is overdue", "✓ 没有逾期事项"))?;
    } else {
        output.heading("Needs you:", "需要处理：")?;
    }
    for item in &status.overdue {
        show_overdue(output, config, item)?;
    }
    output.document(&StatusDocument::of(result, status))?;
    Ok(exit)
}

fn show_state(output: &mut Output, config: &Configuration, status: &Status) -> Result<(), UserError> {
    output.say(&match status.working {
        Some(pid) => Words::new(format!("process {pid} is at work"), format!("进程 {pid} 正在工作")),
        None => Words::new("no agent is running", "没有代理在运行"),
    })?;
    if let Some(since) = &status.held_since {
        output.say(&Words::new(
            format!("! all destruction is held since {since}; `wangchuan agent resume` ends that"),
            format!("! 自 {since} 起暂停一切销毁；`wangchuan agent resume` 解除"),
        ))?;
    }
    let states = |states: &[(String, u64)]| {
        let each: Vec<String> = states.iter().map(|(state, count)| format!("{} {state}", grouped(*count))).collect();
        if each.is_empty() { "-".to_owned() } else { each.join(", ") }
    };
    let (requests, runs) = (states(&status.requests), states(&status.runs));
    let [issued, receipted, waiting, quarantined] = status.certificates.map(grouped);
    let drill = last_drill(config, status);
    let lines = [
        Words::new(format!("requests: {requests}"), format!("请求：{requests}")),
        Words::new(format!("runs: {runs}"), format!("运行：{runs}")),
        Words::new(format!("holds: {}", status.holds), format!("保留：{}", status.holds)),
        Words::new(
            format!("certificates: {issued} issued, {receipted} filed, {waiting} waiting, {quarantined} refused"),
            format!("证书：签发 {issued}，已存证 {receipted}，等待 {waiting}，被拒 {quarantined}"),
        ),
        Words::new(format!("last drill: {}", drill.en), format!("最近演练：{}", drill.zh)),
        second_place_words(status),
    ];
    for (at, words) in lines.iter().enumerate() {
        output.say(words)?;
        // Below the line of the runs: what their states mean.
        let states = if at == 1 { &status.runs[..] } else { &[] };
        for (state, count) in states {
            let (words, count) = (meaning(state, None), grouped(*count));
            output.say(&Words::new(format!("  {count} {}", words.en), format!("  {count} {}", words.zh)))?;
            if state == "shred-pending" && status.irrevocable_later > 0 {
                let (words, count) = (irrevocable(None), grouped(status.irrevocable_later));
                output.say(&Words::new(
                    format!("    of them {count} {}", words.en),
                    format!("    其中 {count} {}", words.zh),
                ))?;
            }
        }
        let finality = if at == 1 { finality_words(&status.finality) } else { Vec::new() };
        for words in finality {
            output.say(&Words::new(format!("  {}", words.en), format!("  {}", words.zh)))?;
        }
    }
    for root in &status.doomed {
        output.say(&DoomedRootEntry::of(root).words())?;
    }
    for key in &status.doomed_outside_keys {
        output.say(&DoomedOutsideKeyEntry::of(key).words())?;
    }
    for medium in &status.waiting_media {
        output.say(&WaitingMediumEntry::of(medium).words())?;
    }
    Ok(())
}

/// What lies in the second place, as far as this host knows.
fn second_place_words(status: &Status) -> Words {
    let Some((number, generation, at)) = &status.second_place else {
        return Words::new("second place: nothing yet", "第二存放处：尚无内容");
    };
    let at = at.as_deref().unwrap_or("-");
    Words::new(
        format!("second place: state {number} of {at}, key generation {generation}"),
        format!("第二存放处：{at} 的第 {number} 号状态，第 {generation} 代密钥"),
    )
}

fn last_drill(config: &Configuration, status: &Status) -> Words {
    let Some((at, passed)) = status.last_drill else { return Words::new("none yet", "尚无") };
    let at = local_time(config, at);
    if passed {
        Words::new(format!("{at}, passed"), format!("{at}，通过"))
    } else {
        Words::new(format!("{at}, failed"), format!("{at}，未通过"))
    }
}

fn show_snapshots(output: &mut Output, config: &Configuration, status: &Status) -> Result<(), UserError> {
    if status.snapshots.is_empty() {
        return Ok(());
    }
    let lang = output.lang();
    let titles = [("store", "数据源"), ("newest snapshot", "最新快照"), ("rows", "行数")];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(2);
    for (store, newest, rows) in &status.snapshots {
        let when = newest.map_or_else(|| say(lang, "none", "无").to_owned(), |at| local_time(config, at));
        grid.row([store.as_str(), &when, &grouped(rows.unsigned_abs())]);
    }
    output.table(&grid)?;
    Ok(())
}

fn show_overdue(output: &mut Output, config: &Configuration, item: &Overdue) -> Result<(), UserError> {
    let since = item.since.map(|since| local_time(config, since));
    let (en, zh) = match &since {
        Some(since) => (format!(" ({since})"), format!("（{since}）")),
        None => (String::new(), String::new()),
    };
    let (label, advice) = next_step(item.code);
    output.say(&Words::new(
        format!("✗ {}{en}\n    do: {advice}", item.what),
        format!("✗ {label}：{}{zh}\n    处理：{advice}", item.what),
    ))?;
    Ok(())
}

/// What an overdue code is called in Chinese, and the command that helps.
fn next_step(code: &str) -> (&'static str, &'static str) {
    match code {
        "no-snapshot" => ("没有快照", "wangchuan backup run"),
        "old-snapshot" => ("快照过旧", "wangchuan backup run"),
        "request-overdue" => ("请求逾期", "wangchuan request list"),
        "shred-overdue" => ("密钥销毁逾期", "wangchuan agent --once"),
        "destruction-called-off" => ("根密钥销毁曾被撤回", "wangchuan key status"),
        "root-not-gone" => ("根密钥逾期未销毁", "wangchuan key shred --now"),
        "outside-key-called-off" => ("外部密钥的删除曾被撤回", "wangchuan key list"),
        "outside-key-needed" => ("待删除的外部密钥仍被需要，有权者可撤回删除", "wangchuan key list"),
        "outside-key-overdue" => ("外部密钥销毁逾期", "wangchuan key list"),
        "medium-certificate-overdue" => ("介质的证书逾期未签发", "wangchuan agent --once"),
        "medium-open" => ("遗失的介质上的快照仍可打开", "wangchuan media lost … --shred"),
        "medium-shred-overdue" => ("遗失的介质的密钥销毁逾期", "wangchuan job run prune"),
        "run-failed" => ("运行失败", "wangchuan run list"),
        "rows-failed" => ("有行未能擦除", "wangchuan run list"),
        "store-skipped" => ("有数据源未纳入", "wangchuan store check"),
        "task-failed" => ("任务未顺利完成", "wangchuan doctor"),
        "run-paused" => ("运行已暂停", "wangchuan run list"),
        "certificate-quarantined" => ("证书被拒", "wangchuan audit flush --refused"),
        "filing-alarm" => ("存证服务须由人处理", "wangchuan audit status"),
        "filing-late" => ("存证已迟一小时以上", "wangchuan audit status"),
        "filing-overdue" => ("存证逾期", "wangchuan agent --once"),
        "filing-due-half" => ("请求时限已过半而证书尚未存证", "wangchuan audit flush"),
        "filing-due-soon" => ("请求时限将至而证书尚未存证", "wangchuan audit flush"),
        "stamp-alarm" => ("时间戳服务须由人处理", "wangchuan audit status"),
        "witness-other-history" => ("见证人看到日志的另一段历史", "wangchuan audit verify"),
        "witness-overdue" => ("见证人久未签名", "wangchuan audit status"),
        "stamp-overdue" => ("缺少时间戳", "wangchuan audit flush"),
        "drill-failed" => ("演练未通过", "wangchuan drill show"),
        "drill-erased-returned" => ("演练发现已删除的数据重新出现", "wangchuan drill show"),
        "drill-overdue" | "no-drill" => ("需要演练", "wangchuan drill run"),
        _ => ("需要处理", "wangchuan doctor"),
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::cli::context::testing::config;
    use crate::cli::output::testing;

    #[test]
    fn anything_overdue_ends_with_its_own_exit_code_and_a_next_step() {
        let (_folder, config) = config();
        let what = "store shop has no snapshot".to_owned();
        let overdue = Overdue { code: "no-snapshot", what, since: Some(DateTime::<Utc>::UNIX_EPOCH) };
        let late = Status { overdue: vec![overdue], certificates: [3, 2, 1, 0], ..Status::default() };
        for (status, exit, result) in [(Status::default(), Exit::Done, "complete"), (late, Exit::Overdue, "partial")] {
            let (mut output, out, err) = testing::output(true);
            assert_eq!(show(&mut output, &config, &status).unwrap(), exit);
            let document: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
            assert_eq!(document["result"], result);
            assert_eq!(document["overdue"].as_array().unwrap().len(), status.overdue.len());
            let said = "✗ store shop has no snapshot (1970-01-01 00:00)\n    do: wangchuan backup run";
            assert_eq!(err.text().contains(said), exit == Exit::Overdue, "{}", err.text());
        }
    }
}
