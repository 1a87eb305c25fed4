//! Errors as people and programs get them: what happened, where, what to do next, and the causes once.

use std::error::Error;

use schemars::JsonSchema;
use serde::Serialize;

use super::document::{Document, OutputError};
use super::exit::Exit;
use super::lang::{Lang, Words, say};
use super::screen::{Emphasis, Screen, harmless};
use super::shapes::Outcome;

type Source = Box<dyn Error + Send + Sync + 'static>;

/// An error that ends a command.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct UserError {
    /// Stable name for programs, in capitals: `STORE_UNREACHABLE`.
    pub code: &'static str,
    /// How the command ends.
    pub exit: Exit,
    /// What happened, lower case, without the causes.
    pub what: Words,
    /// Where: a file with line, a store, a run. Never a customer.
    pub place: Option<String>,
    /// What to do next.
    pub advice: Option<Words>,
    /// Whether the same command may succeed later without any change.
    pub retry: bool,
    /// The run concerned.
    pub run: Option<String>,
    /// The cause.
    #[source]
    pub source: Option<Source>,
}

/// What any command prints instead of its own document when an error ends it. No other document has `causes`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErrorDocument {
    /// `refused` with exit code 3, `partial` when it was stopped (exit code 130), otherwise `failed`.
    result: Outcome,
    /// Stable name for programs, in capitals: `STORE_UNREACHABLE`.
    code: &'static str,
    /// What happened, in the language asked for.
    what: String,
    /// Where: a file with its line, a store, a run. Never a customer.
    r#where: Option<String>,
    /// What to do next, in the language asked for.
    r#do: Option<String>,
    /// Whether the same command may succeed later without any change.
    retry: bool,
    /// The run concerned.
    run: Option<String>,
    /// Why, outermost cause first, in English, as drivers say it.
    causes: Vec<String>,
}

impl Document for ErrorDocument {
    const OF: &'static [&'static str] = &["error"];
}

impl UserError {
    /// An error that trying again does not cure.
    #[must_use]
    pub fn new(exit: Exit, code: &'static str, what: Words) -> Self {
        Self { code, exit, what, place: None, advice: None, retry: false, run: None, source: None }
    }

    /// Says where.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Says what to do next.
    pub fn advise(mut self, en: impl Into<String>, zh: impl Into<String>) -> Self {
        self.advice = Some(Words::new(en, zh));
        self
    }

    /// Says that the same command may succeed later.
    pub fn worth_retrying(mut self, retry: bool) -> Self {
        self.retry = retry;
        self
    }

    /// Names the run.
    pub fn in_run(mut self, run: impl Into<String>) -> Self {
        self.run = Some(run.into());
        self
    }

    /// Keeps the cause.
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The user error within `error`, or else an unspecific one that keeps the whole chain: its outermost text as what
    /// happened, the rest as causes.
    #[must_use]
    pub fn from_any(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(known) => known,
            Err(other) => {
                let text = other.to_string();
                Self::new(Exit::Failed, "FAILED", Words::new(text.clone(), text)).because(other)
            }
        }
    }

    /// The causes, outermost first. What an outer text already says is not repeated.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let mut said = vec![self.what.en.clone()];
        let mut next: Option<&dyn Error> = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(error) = next {
            let text = error.to_string();
            if !said.iter().any(|earlier| earlier.contains(&text)) {
                said.push(text);
            }
            next = error.source();
        }
        said.split_off(1)
    }

    /// Whether it only says that nobody reads the output any more.
    #[must_use]
    pub fn is_of_gone_reader(&self) -> bool {
        let source = self.source.as_deref().map(|source| source as &(dyn Error + 'static));
        source.and_then(|source| source.downcast_ref::<OutputError>()).is_some_and(OutputError::reader_gone)
    }

    /// The JSON document. Causes are in English, as drivers give them.
    #[must_use]
    pub fn to_json(&self, lang: Lang) -> ErrorDocument {
        ErrorDocument {
            result: self.exit.error_result(),
            code: self.code,
            what: self.what.in_lang(lang).to_owned(),
            r#where: self.place.clone(),
            r#do: self.advice.as_ref().map(|advice| advice.in_lang(lang).to_owned()),
            retry: self.retry,
            run: self.run.clone(),
            causes: self.causes(),
        }
    }

    /// Two or three lines for people, without a line break at the end: what happened and where; why, if known; what to do.
    #[must_use]
    pub fn render(&self, lang: Lang, screen: Screen) -> String {
        let head = screen.emphasise(Emphasis::Red, say(lang, "error", "错误"));
        let colon = say(lang, ": ", "：");
        // A place that the sentence names already is not said twice.
        let place = self.place.as_deref().filter(|place| !self.what.in_lang(lang).contains(place));
        let place = place.map_or_else(String::new, |place| bracketed(lang, &harmless(place)));
        let mut lines = vec![format!("{head}{colon}{}{place} [{}]", harmless(self.what.in_lang(lang)), self.code)];
        let causes = self.causes();
        if !causes.is_empty() {
            let joined = causes.iter().map(|cause| harmless(cause)).collect::<Vec<_>>().join(": ");
            lines.push(format!("  {}{colon}{joined}", say(lang, "cause", "原因")));
        }
        lines.push(format!("  {}{colon}{}", say(lang, "do", "处理"), self.next_step(lang)));
        lines.join("\n")
    }

    fn next_step(&self, lang: Lang) -> String {
        let advice = self.advice.as_ref().map(|advice| harmless(advice.in_lang(lang)));
        let fallback = if self.retry {
            say(lang, "try the same command again later", "稍后重试同一命令")
        } else {
            say(lang, "run `wangchuan doctor` to see what is wrong", "运行 `wangchuan doctor` 查看问题所在")
        };
        let mut step = advice.unwrap_or_else(|| fallback.to_owned());
        if let Some(run) = &self.run {
            step.push_str(&bracketed(lang, &format!("{} {}", say(lang, "run", "运行"), harmless(run))));
        }
        step
    }
}

fn bracketed(lang: Lang, text: &str) -> String {
    match lang {
        Lang::En => format!(" ({text})"),
        Lang::Zh => format!("（{text}）"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, thiserror::Error)]
    #[error("connection refused")]
    struct Refused;

    #[derive(Debug, thiserror::Error)]
    #[error("store shop: the database cannot be reached: connection refused")]
    struct Unreachable(#[source] Refused);

    #[derive(Debug, thiserror::Error)]
    #[error("the plan was not made")]
    struct NoPlan(#[source] Unreachable);

    fn sample() -> UserError {
        UserError::new(Exit::Failed, "STORE_UNREACHABLE", Words::new("nothing was planned", "未生成计划"))
            .at("wangchuan.toml:12")
            .advise("start the database, then plan again", "启动数据库后重新生成计划")
            .worth_retrying(true)
            .in_run("r-7")
            .because(NoPlan(Unreachable(Refused)))
    }

    #[test]
    fn people_get_three_lines_in_english() {
        let expected = "error: nothing was planned (wangchuan.toml:12) [STORE_UNREACHABLE]\n  \
             cause: the plan was not made: store shop: the database cannot be reached: connection refused\n  \
             do: start the database, then plan again (run r-7)";
        assert_eq!(sample().render(Lang::En, Screen::PLAIN), expected);
    }

    #[test]
    fn people_get_three_lines_in_chinese() {
        let expected = "错误：未生成计划（wangchuan.toml:12） [STORE_UNREACHABLE]\n  \
             原因：the plan was not made: store shop: the database cannot be reached: connection refused\n  \
             处理：启动数据库后重新生成计划（运行 r-7）";
        assert_eq!(sample().render(Lang::Zh, Screen::PLAIN), expected);
    }

    #[test]
    fn programs_get_the_agreed_fields() {
        let expected = json!({
            "result": "failed",
            "code": "STORE_UNREACHABLE",
            "what": "nothing was planned",
            "where": "wangchuan.toml:12",
            "do": "start the database, then plan again",
            "retry": true,
            "run": "r-7",
            "causes": ["the plan was not made", "store shop: the database cannot be reached: connection refused"],
        });
        assert_eq!(serde_json::to_value(sample().to_json(Lang::En)).unwrap(), expected);
    }

    #[test]
    fn there_is_always_something_to_do() {
        let error = UserError::new(Exit::Failed, "X", Words::new("it broke", "坏了"));
        assert_eq!(error.render(Lang::En, Screen::PLAIN).lines().count(), 2);
        assert!(error.render(Lang::En, Screen::PLAIN).contains("wangchuan doctor"));
        assert!(error.worth_retrying(true).render(Lang::Zh, Screen::PLAIN).contains("稍后重试"));
    }

    #[test]
    fn a_known_error_is_found_under_context_and_an_unknown_one_keeps_its_chain() {
        let known = UserError::from_any(anyhow::Error::new(sample()).context("while planning"));
        assert_eq!(known.code, "STORE_UNREACHABLE");
        let unknown = UserError::from_any(anyhow::Error::new(NoPlan(Unreachable(Refused))).context("cannot plan"));
        assert_eq!((unknown.code, unknown.exit), ("FAILED", Exit::Failed));
        assert_eq!(unknown.what.en, "cannot plan");
        assert_eq!(unknown.causes().len(), 2);
    }

    #[test]
    fn a_reader_that_left_is_recognised_through_the_conversion() {
        let gone = |kind: std::io::ErrorKind| UserError::from(OutputError::Write(kind.into())).is_of_gone_reader();
        assert!(gone(std::io::ErrorKind::BrokenPipe) && !gone(std::io::ErrorKind::StorageFull));
        assert!(!sample().is_of_gone_reader());
    }

    #[test]
    fn a_hostile_message_stays_on_its_line() {
        let error = UserError::new(Exit::Failed, "X", Words::new("a\nb", "a")).at("t\u{1b}[2J");
        assert_eq!(error.render(Lang::En, Screen::PLAIN).lines().count(), 2);
        assert!(!error.render(Lang::En, Screen::PLAIN).contains('\u{1b}'));
    }
}
