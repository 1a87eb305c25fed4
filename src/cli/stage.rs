//! How far an erasure is, in words: deleted is not shred-pending, shred-pending is not shredded, shredded is not final.

use super::output::Words;
use crate::control::RunRow;
use crate::tasks::erasure::RunBody;

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
            "failed: it ended before its time; what it counts as erased is gone from the live stores only",
            "失败：提前结束；计为擦除的行仅从在线数据库消失",
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
}
