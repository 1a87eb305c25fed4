//! `statute …`: the built-in catalogue of how long the law wants records kept.

use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::Context;
use super::output::{Document, Exit, Grid, Outcome, Output, Words, say};
use crate::policy::statute::{CATALOGUE, LegalBound, StartRule, Statute};

/// The catalogue of statutes.
#[derive(Debug, Subcommand)]
pub enum StatuteCommand {
    /// All entries, by the keys that policies name in `statutes`. None of it is legal advice.
    #[command(after_help = "Examples:\n  wangchuan statute list\n  wangchuan statute list CN")]
    List {
        /// Only where this law applies: `CN`, `EU`, `US-CA`, …
        jurisdiction: Option<String>,
    },
}

/// The JSON of `statute list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListDocument {
    /// `complete`, or `nothing-found` for a jurisdiction without entries.
    result: Outcome,
    /// The entries.
    statutes: Vec<Entry>,
}

impl Document for ListDocument {
    const OF: &'static [&'static str] = &["statute list"];
}

/// What a statute demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Demand {
    /// Keep at least so long.
    Minimum,
    /// Keep for ever.
    Permanent,
    /// Keep at most so long.
    Maximum,
    /// Keep no longer than necessary.
    Necessary,
    /// A duty without a period.
    Duty,
}

/// An entry of the catalogue.
#[derive(Debug, Serialize, JsonSchema)]
struct Entry {
    /// Its key, as policies name it.
    statute: &'static str,
    /// ISO 3166 code of where it applies.
    jurisdiction: &'static str,
    /// What it demands.
    demand: Demand,
    /// How long, in words; null without a period.
    period: Option<String>,
    /// What records it applies to.
    applies_to: &'static str,
    /// The start event that the law means; the policy's start column must hold it.
    start_event: &'static str,
    /// Whether it counts from the end of the start event's fiscal year.
    after_fiscal_year: bool,
    /// Law and article.
    source: &'static str,
    /// How far the entry was confirmed: `confirmed`, `partly` or `unconfirmed`.
    status: String,
}

impl Entry {
    fn of(statute: &Statute) -> Self {
        let (demand, period) = match statute.bound {
            LegalBound::Minimum(period) => (Demand::Minimum, Some(period.to_string())),
            LegalBound::Permanent => (Demand::Permanent, None),
            LegalBound::Maximum(period) => (Demand::Maximum, Some(period.to_string())),
            LegalBound::Necessary => (Demand::Necessary, None),
            LegalBound::Duty => (Demand::Duty, None),
        };
        Self {
            statute: statute.key,
            jurisdiction: statute.jurisdiction,
            demand,
            period,
            applies_to: statute.applies_to,
            start_event: statute.start_event,
            after_fiscal_year: statute.start == StartRule::AfterFiscalYear,
            source: statute.source,
            status: statute.status.to_string(),
        }
    }
}

/// `statute …`. Needs no configuration.
pub fn statute(context: &mut Context<'_>, command: &StatuteCommand) -> CommandResult {
    let StatuteCommand::List { jurisdiction } = command;
    list(context.output, jurisdiction.as_deref())
}

fn list(output: &mut Output, jurisdiction: Option<&str>) -> CommandResult {
    let wanted = |statute: &&Statute| jurisdiction.is_none_or(|code| statute.jurisdiction.eq_ignore_ascii_case(code));
    let found: Vec<&Statute> = CATALOGUE.iter().filter(wanted).collect();
    let lang = output.lang();
    let titles = [
        ("statute", "法规"),
        ("demands", "要求"),
        ("of", "适用于"),
        ("from", "起算"),
        ("source", "出处"),
        ("status", "核实"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    for statute in &found {
        let (bound, status) = (statute.bound.to_string(), statute.status.to_string());
        grid.row([statute.key, &bound, statute.applies_to, statute.start_event, statute.source, &status]);
    }
    if found.is_empty() {
        output.say(&Words::new("the catalogue has no such jurisdiction", "目录中没有该法域"))?;
    } else {
        output.table(&grid)?;
        output.note(&Words::new(
            "none of this is legal advice; a lawyer must confirm a row before anybody relies on it",
            "以上不构成法律意见；使用前须由律师核实",
        ))?;
    }
    let result = Outcome::of_list(found.is_empty());
    output.document(&ListDocument { result, statutes: found.into_iter().map(Entry::of).collect() })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::testing;

    #[test]
    fn the_catalogue_is_listed_whole_or_by_jurisdiction() {
        let listed = |jurisdiction: Option<&str>| -> serde_json::Value {
            let (mut output, out, _) = testing::output(true);
            assert_eq!(list(&mut output, jurisdiction).unwrap(), Exit::Done);
            serde_json::from_str(&out.text()).unwrap()
        };
        assert_eq!(listed(None)["statutes"].as_array().unwrap().len(), CATALOGUE.len());
        let chinese = listed(Some("cn"));
        let entries = chinese["statutes"].as_array().unwrap();
        assert!(!entries.is_empty() && entries.iter().all(|entry| entry["jurisdiction"] == "CN"));
        let platforms = entries.iter().find(|entry| entry["statute"] == "cn.ecl.31").unwrap();
        assert_eq!((&platforms["demand"], &platforms["period"]), (&"minimum".into(), &"3 years".into()));
        assert_eq!(listed(Some("XX"))["result"], "nothing-found");
    }
}
