//! The two languages of the program.

use std::fmt;

/// A language for people. Names of commands, keys and codes are the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Simplified Chinese.
    Zh,
}

impl Lang {
    /// The language of `--lang`, or else of the locale: the first of `LC_ALL`, `LC_MESSAGES` and `LANG` that is set and not
    /// empty decides (POSIX.1-2017, 8.2). Chinese of any region gives [`Lang::Zh`], all else [`Lang::En`].
    #[must_use]
    pub fn choose(flag: Option<Self>, env: impl Fn(&str) -> Option<String>) -> Self {
        let locale = || {
            let set = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().filter_map(env).find(|value| !value.is_empty());
            let name = set.unwrap_or_default().to_ascii_lowercase();
            let language = name.split(['_', '-', '.', '@']).next().unwrap_or_default();
            if language == "zh" { Self::Zh } else { Self::En }
        };
        flag.unwrap_or_else(locale)
    }

    /// [`Lang::choose`] with this process's environment.
    #[must_use]
    pub fn of_host(flag: Option<Self>) -> Self {
        Self::choose(flag, |name| std::env::var(name).ok())
    }
}

/// The text in the language asked for.
#[must_use]
pub fn say<'a>(lang: Lang, en: &'a str, zh: &'a str) -> &'a str {
    match lang {
        Lang::En => en,
        Lang::Zh => zh,
    }
}

/// One sentence in both languages, for texts made before the language is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// English.
    pub en: String,
    /// Chinese.
    pub zh: String,
}

impl Words {
    /// A sentence in both languages.
    #[must_use]
    pub fn new(en: impl Into<String>, zh: impl Into<String>) -> Self {
        Self { en: en.into(), zh: zh.into() }
    }

    /// The sentence in one language.
    #[must_use]
    pub fn in_lang(&self, lang: Lang) -> &str {
        say(lang, &self.en, &self.zh)
    }
}

/// English, for logs and error chains.
impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.en)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(set: &[(&str, &str)]) -> Lang {
        Lang::choose(None, |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_flag_beats_the_locale() {
        assert_eq!(Lang::choose(Some(Lang::En), |_| Some("zh_CN.UTF-8".to_owned())), Lang::En);
        assert_eq!(Lang::choose(Some(Lang::Zh), |_| None), Lang::Zh);
    }

    #[test]
    fn the_locale_variables_count_in_their_order() {
        assert_eq!(chosen(&[]), Lang::En);
        assert_eq!(chosen(&[("LANG", "zh_CN.UTF-8")]), Lang::Zh);
        assert_eq!(chosen(&[("LANG", "zh-Hans")]), Lang::Zh);
        assert_eq!(chosen(&[("LANG", "zh_CN.UTF-8"), ("LC_MESSAGES", "en_US.UTF-8")]), Lang::En);
        assert_eq!(chosen(&[("LANG", "C"), ("LC_ALL", ""), ("LC_MESSAGES", "zh_TW")]), Lang::Zh);
        assert_eq!(chosen(&[("LANG", "zh_CN"), ("LC_ALL", "C.UTF-8")]), Lang::En);
        assert_eq!(chosen(&[("LANG", "zha_CN")]), Lang::En);
    }

    #[test]
    fn words_are_said_in_the_language_asked_for() {
        let words = Words::new("done", "完成");
        assert_eq!((words.in_lang(Lang::En), words.in_lang(Lang::Zh)), ("done", "完成"));
        assert_eq!(say(Lang::Zh, "yes", "是"), "是");
    }
}
