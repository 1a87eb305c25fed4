//! Periods, demands and sources as people read them, in both languages.

use super::super::output::{Lang, say};
use crate::policy::calendar::Period;
use crate::policy::statute::clock::Within;
use crate::policy::statute::{Bilingual, Catalogue, Citation, LegalBound, StartRule, Status, cited};

/// A text of the catalogue in one language.
pub fn in_lang(lang: Lang, text: &Bilingual) -> &str {
    say(lang, &text.en, &text.zh)
}

/// Laws and articles in one language.
pub fn cited_in(lang: Lang, citations: &[Citation]) -> String {
    let text = cited(citations);
    match lang {
        Lang::En => text.en,
        Lang::Zh => text.zh,
    }
}

/// Law and article of a key; empty for one that the catalogue does not have (any more).
pub fn source_of(lang: Lang, key: &str, law: &Catalogue) -> String {
    law.find(key).map_or_else(String::new, |statute| cited_in(lang, &statute.cites))
}

/// A period in words.
pub fn period_in(lang: Lang, period: Period) -> String {
    if lang == Lang::En {
        return period.to_string();
    }
    let parts = [(period.months / 12, "年"), (period.months % 12, "个月"), (period.days, "天")];
    let words: Vec<String> =
        parts.iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number} {unit}")).collect();
    if words.is_empty() { "0 天".to_owned() } else { words.join(" ") }
}

/// What a statute demands, in words.
pub fn demand(lang: Lang, bound: LegalBound, start: StartRule) -> String {
    let words = match (lang, bound) {
        (Lang::En, bound) => bound.to_string(),
        (Lang::Zh, LegalBound::Minimum(period)) => format!("至少 {}", period_in(lang, period)),
        (Lang::Zh, LegalBound::Maximum(period)) => format!("至多 {}", period_in(lang, period)),
        (Lang::Zh, LegalBound::Permanent) => "永久".to_owned(),
        (Lang::Zh, LegalBound::Necessary) => "不超过必要期限".to_owned(),
        (Lang::Zh, LegalBound::Duty) => "无期限".to_owned(),
    };
    match (start, bound) {
        (StartRule::AfterFiscalYear, LegalBound::Minimum(_) | LegalBound::Maximum(_)) => {
            format!("{words}{}", say(lang, " after the fiscal year", "（会计年度终了后）"))
        }
        _ => words,
    }
}

/// How far an entry was confirmed.
pub fn status_in(lang: Lang, status: Status) -> &'static str {
    match status {
        Status::Confirmed => say(lang, "confirmed", "已核实"),
        Status::Partly => say(lang, "partly", "部分核实"),
        Status::Unconfirmed => say(lang, "unconfirmed", "未核实"),
    }
}

/// The time of a clock's step.
pub fn within_in(lang: Lang, within: Option<Within>) -> String {
    match (within, lang) {
        (None, _) => "–".to_owned(),
        (Some(within), Lang::En) => within.to_string(),
        (Some(within), Lang::Zh) => within.zh(),
    }
}
