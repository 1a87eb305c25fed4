//! Words for states, kinds and reasons of keys.

use super::super::output::Words;
use crate::keys::state::KeyState;
use crate::tasks::shred::{WaitCode, WaitingRun};

/// Keys that are destroyed, while an older root that leads to them could be brought back, as `key status` counts them.
pub const SHRED_PENDING: &str = "shred-pending";

/// A state, with SP 800-57's word in both languages.
pub fn state_words(state: KeyState) -> Words {
    let zh = match state {
        KeyState::PreActive => "预激活 (pre-active)",
        KeyState::Active => "激活 (active)",
        KeyState::Suspended => "暂停 (suspended)",
        KeyState::Deactivated => "停用 (deactivated)",
        KeyState::Compromised => "泄露 (compromised)",
        KeyState::Destroyed => "已销毁 (destroyed)",
    };
    Words::new(state.name(), zh)
}

/// A state as `key status` counts keys, by its name.
pub fn state_name_words(name: &str) -> Words {
    if name == SHRED_PENDING {
        return Words::new(name, "销毁尚可撤回 (shred-pending)");
    }
    let known = KeyState::ALL.into_iter().find(|state| state.name() == name);
    known.map_or_else(|| Words::new(name, name), state_words)
}

/// A subtree of the key tree.
pub fn kind_words(kind: &str) -> Words {
    let zh = match kind {
        "subjects" => "客户",
        "buckets" => "时段",
        "chains" => "备份链",
        "pins" => "保留键",
        "work" => "工作键",
        "outside" => "外部密钥",
        other => other,
    };
    Words::new(kind, zh)
}

/// Why a run waits, without the sentence that goes with it.
pub fn wait_words(code: WaitCode) -> Words {
    let (en, zh) = match code {
        WaitCode::Grace => ("in grace", "宽限期未满"),
        WaitCode::Hold => ("held", "有法律保留"),
        WaitCode::OtherRun => ("waits for another run", "等待另一次运行"),
        WaitCode::Unregistered => ("a collection is missing", "集合已不在登记中"),
        WaitCode::SnapshotRunning => ("a snapshot is being taken", "正在做快照"),
        WaitCode::NoSnapshotSince => ("needs a snapshot", "需要一次新的快照"),
        WaitCode::SnapshotUnreadable => ("the newest snapshot cannot be read", "最新快照无法读取"),
        WaitCode::LivingRows => ("needs another snapshot", "需要再做一次快照"),
        WaitCode::BucketNotDue => ("shares keys with rows that stay", "与仍保留的行共用密钥"),
        WaitCode::SlotInterval => ("the root slot wants time", "根密钥槽的最小间隔未到"),
        WaitCode::Irrevocable => ("not irrevocable yet", "销毁尚可撤回"),
        WaitCode::GroupCommit => ("goes with the next group", "随下一批一起销毁"),
        WaitCode::Nothing => ("ready", "就绪"),
    };
    Words::new(en, zh)
}

/// A waiting run as one line.
pub fn waiting_line(waiting: &WaitingRun) -> Words {
    let kind = wait_words(waiting.code);
    let (en, zh) = match &waiting.until {
        Some(until) => (format!(", until {until} at least"), format!("，至少到 {until}")),
        None => (String::new(), String::new()),
    };
    let WaitingRun { run, what, .. } = waiting;
    // Sentences that say no more than the words for the code do, in English only.
    let is_said = matches!(
        waiting.code,
        WaitCode::BucketNotDue
            | WaitCode::Irrevocable
            | WaitCode::GroupCommit
            | WaitCode::SnapshotRunning
            | WaitCode::Nothing
    );
    let what_zh = if is_said { String::new() } else { format!("（{what}）") };
    let (still_en, still_zh) = match waiting.code {
        WaitCode::Irrevocable => ("no key that is left opens its rows", "现有密钥都无法打开其行"),
        _ => ("its rows still open in backups", "备份中的行仍可打开"),
    };
    Words::new(
        format!("run {run}: {}{en} ({what}); {still_en}", kind.en),
        format!("运行 {run}：{}{zh}{what_zh}；{still_zh}", kind.zh),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_run_is_told_in_one_language() {
        let waiting = |code| WaitingRun { run: "r".to_owned(), code, what: "some words".to_owned(), until: None };
        for (code, names) in [(WaitCode::BucketNotDue, false), (WaitCode::Hold, true)] {
            let words = waiting_line(&waiting(code));
            assert!(words.en.contains("(some words)"), "{}", words.en);
            assert_eq!(words.zh.contains("some words"), names, "{}", words.zh);
        }
        assert_eq!(state_name_words("suspended").zh, "暂停 (suspended)");
        assert_eq!(state_name_words(SHRED_PENDING).en, "shred-pending");
    }

    #[test]
    fn every_reason_has_words_of_its_own() {
        use WaitCode as Code;
        let codes = [
            Code::Grace,
            Code::Hold,
            Code::OtherRun,
            Code::Unregistered,
            Code::SnapshotRunning,
            Code::NoSnapshotSince,
            Code::SnapshotUnreadable,
            Code::LivingRows,
            Code::BucketNotDue,
            Code::SlotInterval,
            Code::Irrevocable,
            Code::GroupCommit,
            Code::Nothing,
        ];
        let words = codes.map(wait_words);
        let texts: std::collections::HashSet<&str> =
            words.iter().flat_map(|words| [&words.en[..], &words.zh]).collect();
        assert_eq!(texts.len(), 2 * codes.len());
        for state in KeyState::ALL {
            assert!(state_words(state).zh.contains(state.name()));
        }
    }
}
