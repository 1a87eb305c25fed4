//! How far an erasure is, in words: deleted is not shred-pending, shred-pending is not shredded, shredded is not final.

use super::output::{Output, UserError, Words};
use crate::control::RunRow;
use crate::tasks::erasure::RunBody;
use crate::tasks::finality::{FinalitySummary, Remaining, Residual, ResidualCode};

/// What the state of a run means for the rows that it erased. `until` is the date until which they still open in backups.
pub fn meaning(state: &str, until: Option<&str>) -> Words {
    match state {
        "planned" => Words::new("planned: nothing is deleted yet", "已计划：尚未删除任何内容"),
        "approved" => Words::new(
            "being deleted: some rows may be gone from the live stores, all still open in backups",
            "正在删除：部分行可能已从在线数据库消失，备份中都仍可打开",
        ),
        "deleted" => Words::new(
            "deleted: gone from the live stores, not read back yet; they still open in backups",
            "已删除：已从在线数据库消失，尚未复查；备份中仍可打开",
        ),
        "verified" => Words::new(
            "deleted: gone from the live stores and read back as absent; they still open in backups",
            "已删除：已从在线数据库消失并经复查；备份中仍可打开",
        ),
        "shred-pending" => match until {
            Some(until) => Words::new(
                format!("shred-pending: absent from the live stores; in backups they still open until {until}"),
                format!("待销毁密钥：在线数据库中已不存在；备份中在 {until} 之前仍可打开"),
            ),
            None => Words::new(
                "shred-pending: absent from the live stores; in backups they still open until their keys are destroyed",
                "待销毁密钥：在线数据库中已不存在；备份中在密钥销毁之前仍可打开",
            ),
        },
        "shredded" => Words::new(
            "shredded: no key opens them any more, within the limits of the root slot; residual copies have dates of their own",
            "已销毁密钥：在根密钥槽的限度内，任何密钥都无法再打开；残留副本各有期限",
        ),
        "final" => Words::new(
            "final: shredded, and the date of every residual copy is past",
            "终结：密钥已销毁，且所有残留副本的期限已过",
        ),
        "undone" => Words::new(
            "undone: the rows are back; nothing of them is destroyed by this run",
            "已撤销：行已恢复；本次运行不销毁其任何内容",
        ),
        "failed" => Words::new(
            "failed: what it counts as failed was not erased, and it let no key die; what it counts as erased is gone from the live stores only",
            "失败：计为失败的行未被擦除，也未销毁任何密钥；计为擦除的行仅从在线数据库消失",
        ),
        other => Words::new(other, other),
    }
}

/// The meaning of a run's state, with the dates that stand in its record.
pub fn meaning_of_run(run: &RunRow, body: &RunBody) -> Words {
    match body.irrevocable_at {
        Some(at) if run.state == "shred-pending" => irrevocable(Some(&crate::control::time_text(at))),
        _ => meaning(&run.state, body.pending.as_ref().map(|(_, until)| until.as_str())),
    }
}

/// The same of a run whose keys are destroyed in a root slot that can be told to call that off until a date.
pub fn irrevocable(at: Option<&str>) -> Words {
    match at {
        Some(at) => Words::new(
            format!(
                "shred-pending: no key that is left opens them; their destruction can be called off in the root slot and is irrevocable at {at}"
            ),
            format!("待销毁密钥：现有密钥都无法打开；在根密钥槽中仍可撤回销毁，{at} 起不可撤回"),
        ),
        None => Words::new(
            "shred-pending, keys destroyed: no key that is left opens them; the root slot can call that off until a date",
            "待销毁密钥，密钥已销毁：现有密钥都无法打开；根密钥槽在指定日期前仍可撤回",
        ),
    }
}

/// Where erased rows may still be, or be brought back from.
pub fn residual_words(code: ResidualCode) -> Words {
    let (en, zh) = match code {
        ResidualCode::HostCopies => (
            "copies of the host whose file held the root key; nothing gives them a date",
            "存放根密钥文件的主机的副本；没有期限",
        ),
        ResidualCode::ServiceCopies => {
            ("older copies of the key service, with what unseals it", "密钥服务的旧副本及其解封材料")
        }
        ResidualCode::DeclaredCopy => ("a declared copy", "已声明的副本"),
        ResidualCode::UndatedCopy => ("a declared copy that never dies", "永不失效的已声明副本"),
        ResidualCode::DatabaseLog => (
            "the database's own logs and free pages (a copy of kind database-log declares their date)",
            "数据库自身的日志与空闲页（声明类型为 database-log 的副本即可设定期限）",
        ),
        ResidualCode::StoreFiles => (
            "the database's own files: something keeps rows there, or this login does not see whether it does (`wangchuan run show` names it)",
            "数据库自身的文件：其中仍有内容保留着这些行，或该账号无法看到是否如此（见 `wangchuan run show`）",
        ),
        ResidualCode::Unproven => ("keys whose destruction is not on record", "销毁未留下记录的密钥"),
        ResidualCode::OwnLists => (
            "lists sealed for the run itself; they go with the next change of keys",
            "为该运行封存的清单；随下一次密钥更换销毁",
        ),
        ResidualCode::Unregistered => ("a store that is not registered any more", "已不在登记中的数据源"),
        ResidualCode::Hold => ("copies that a legal hold may keep", "法律保留可能留存的副本"),
    };
    Words::new(en, zh)
}

fn residual_line(residual: &Residual) -> Words {
    let words = residual_words(residual.code);
    let of = residual.of.as_deref().map_or_else(String::new, |of| format!(" ({of})"));
    let (en, zh) = match residual.until {
        Some(until) => (format!("until {until}"), format!("至 {until}")),
        None => ("no date".to_owned(), "无期限".to_owned()),
    };
    Words::new(format!("  left: {}{of}: {en}", words.en), format!("  残留：{}{of}：{zh}", words.zh))
}

/// When a shredded run becomes final, and what is left of it until then.
pub fn show_remaining(output: &mut Output, remaining: &Remaining) -> Result<(), UserError> {
    output.say(&match remaining.final_after {
        Some(after) => {
            Words::new(format!("not final: it becomes so after {after}"), format!("尚未终结：{after} 之后终结"))
        }
        None if remaining.residuals.is_empty() => {
            Words::new("not final: the next shred looks at what is left", "尚未终结：下次销毁密钥时检查残留")
        }
        None => Words::new(
            "not final, and no date makes it so: something that is left has none",
            "尚未终结，也没有日期使其终结：部分残留没有期限",
        ),
    })?;
    for residual in &remaining.residuals {
        output.say(&residual_line(residual))?;
    }
    Ok(())
}

/// How many runs are final, and what the shredded ones wait for; nothing where there is none of either.
pub fn finality_words(summary: &FinalitySummary) -> Vec<Words> {
    let FinalitySummary { final_runs, dated_runs, next_final_after, undated_runs, residuals } = summary;
    if final_runs + dated_runs + undated_runs == 0 {
        return Vec::new();
    }
    let mut lines = vec![Words::new(
        format!(
            "final: {final_runs}; shredded, with a date: {dated_runs}; shredded, with something undated left: {undated_runs}"
        ),
        format!("终结：{final_runs}；已销毁密钥且有期限：{dated_runs}；已销毁密钥但有无期限残留：{undated_runs}"),
    )];
    if let Some(after) = next_final_after {
        lines.push(Words::new(
            format!("  the next becomes final after {after}"),
            format!("  下一个在 {after} 之后终结"),
        ));
    }
    lines.extend(residuals.iter().map(|count| {
        let (words, runs) = (residual_words(count.code), count.run_count);
        Words::new(format!("  left of {runs}: {}", words.en), format!("  {runs} 个残留：{}", words.zh))
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_is_told_from_every_other() {
        let states =
            ["planned", "approved", "deleted", "verified", "shred-pending", "shredded", "final", "undone", "failed"];
        let words: Vec<Words> = states.iter().map(|state| meaning(state, None)).collect();
        let texts: std::collections::HashSet<&str> =
            words.iter().flat_map(|words| [&words.en[..], &words.zh]).collect();
        assert_eq!(texts.len(), 2 * states.len());
        for (state, words) in states.iter().zip(&words) {
            let opens = words.en.contains("still open");
            assert_eq!(opens, ["approved", "deleted", "verified", "shred-pending"].contains(state), "{state}");
        }
        assert!(meaning("shred-pending", Some("2027-01-01")).en.contains("2027-01-01"));
        for words in [irrevocable(None), irrevocable(Some("2027-01-01"))] {
            assert!(words.en.starts_with("shred-pending") && !words.en.contains("still open"), "{}", words.en);
            assert!(!texts.contains(&words.en[..]) && !texts.contains(&words.zh[..]));
        }
    }

    #[test]
    fn every_residual_has_words_of_its_own() {
        let words = ResidualCode::ALL.map(residual_words);
        let texts: std::collections::HashSet<&str> =
            words.iter().flat_map(|words| [&words.en[..], &words.zh]).collect();
        assert_eq!(texts.len(), 2 * ResidualCode::ALL.len());
    }

    #[test]
    fn a_date_and_the_lack_of_one_are_told_apart() {
        let said = |residuals: Vec<Residual>| {
            let (mut output, out, _) = crate::cli::output::testing::output(false);
            let final_after = crate::tasks::finality::last_date(&residuals);
            let remaining = Remaining { run: "r".to_owned(), shredded_at: None, final_after, residuals };
            show_remaining(&mut output, &remaining).unwrap();
            out.text()
        };
        let dated = Residual::until(ResidualCode::ServiceCopies, None, "2027-01-02".parse().unwrap());
        assert!(said(vec![dated.clone()]).contains("it becomes so after 2027-01-02"));
        let never = said(vec![dated, Residual::undated(ResidualCode::UndatedCopy, Some("shop/tape"))]);
        assert!(never.contains("no date makes it so") && never.contains("(shop/tape): no date"), "{never}");
        assert!(said(Vec::new()).contains("the next shred looks"));
    }
}
