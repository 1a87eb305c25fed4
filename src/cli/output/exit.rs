//! Exit codes. Scripts rely on them: a number never changes its meaning.

use std::process::ExitCode;

use super::lang::{Lang, say};
use super::shapes::Outcome;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// 0: what was asked for is done, or there was nothing to do.
    Done = 0,
    /// 1: it failed.
    Failed = 1,
    /// 2: the command line or the configuration is wrong; nothing was begun.
    Usage = 2,
    /// 3: refused to protect data: no approval, a hold, a cap, a missing permission, a doubtful clock.
    Refused = 3,
    /// 4: done in part; something failed or was skipped, and the result says what.
    Partial = 4,
    /// 5: something is overdue or missing (`status`, `doctor`, `store lint`).
    Overdue = 5,
    /// 130: stopped by Ctrl-C, cleanly: what was begun is finished or will be taken up again.
    Interrupted = 130,
}

impl Exit {
    /// All codes, for the help text and the documentation's test.
    pub const ALL: [Self; 7] =
        [Self::Done, Self::Failed, Self::Usage, Self::Refused, Self::Partial, Self::Overdue, Self::Interrupted];

    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What the code means, in a few words.
    #[must_use]
    pub fn meaning(self, lang: Lang) -> &'static str {
        match self {
            Self::Done => say(lang, "done", "完成"),
            Self::Failed => say(lang, "failed", "失败"),
            Self::Usage => say(lang, "usage or configuration error", "用法或配置错误"),
            Self::Refused => say(
                lang,
                "refused (approval, hold, cap, permission, doubtful clock)",
                "拒绝（审批、保留、上限、权限、时钟可疑）",
            ),
            Self::Partial => say(lang, "partial", "部分完成"),
            Self::Overdue => {
                say(lang, "overdue or missing (status, doctor, store lint)", "逾期或缺失（status、doctor、store lint）")
            }
            Self::Interrupted => say(lang, "stopped by Ctrl-C after a clean stop", "被 Ctrl-C 中止（已干净停止）"),
        }
    }

    /// The `result` of a JSON document for a command that ended in an error.
    #[must_use]
    pub fn error_result(self) -> Outcome {
        match self {
            Self::Refused => Outcome::Refused,
            Self::Partial | Self::Interrupted => Outcome::Partial,
            Self::Done | Self::Failed | Self::Usage | Self::Overdue => Outcome::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_published_ones() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2, 3, 4, 5, 130]);
    }

    #[test]
    fn every_code_is_explained_differently_in_both_languages() {
        let texts = Exit::ALL.into_iter().flat_map(|exit| [Lang::En, Lang::Zh].map(|lang| exit.meaning(lang)));
        assert_eq!(texts.collect::<std::collections::HashSet<_>>().len(), 14);
    }
}
