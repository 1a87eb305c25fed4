//! `statute …`: the catalogue of how long the law wants records kept, and what a change of it comes to.

mod diff;
mod entries;
pub mod words;

use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;

use self::entries::{ClockEntry, Entry, ProfileEntry};
use self::words::{cited_in, demand, in_lang, status_in, within_in};
use super::CommandResult;
use super::context::{Context, config_error};
use super::output::{Document, Exit, Grid, Lang, Outcome, Output, UserError, Words, say};
use crate::config::{ConfigError, Configuration};
use crate::policy::statute::clock::LegalClock;
use crate::policy::statute::{Catalogue, CatalogueVersion, Statute};

pub use diff::DiffDocument;

/// The catalogue of statutes.
#[derive(Debug, Subcommand)]
pub enum StatuteCommand {
    /// All entries, by the keys that policies name in `statutes`, with the clocks and the industry profiles. None of it is
    /// legal advice.
    #[command(after_help = "Examples:
  wangchuan statute list
  wangchuan statute list CN
  wangchuan statute list --profile finance    what binds which records")]
    List {
        /// Only where this law applies: `CN`, `EU`, `US-CA`, …
        jurisdiction: Option<String>,
        /// Only what an industry profile names, by its kinds of records.
        #[arg(long, value_name = "NAME", conflicts_with = "jurisdiction")]
        profile: Option<String>,
    },
    /// What changed since the last plan, or would change with another catalogue: entries, policies, and how many rows
    /// become due or go back to kept.
    #[command(after_help = "Examples:
  wangchuan statute diff                        since the last plan
  wangchuan statute diff --to statutes.toml     before a catalogue of your own is put into force
  wangchuan statute diff --from built-in        what your own catalogue changes")]
    Diff(diff::DiffArgs),
}

/// The JSON of `statute list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListDocument {
    /// `complete`, or `nothing-found` for a jurisdiction without entries.
    result: Outcome,
    /// Which catalogue it is.
    catalogue: CatalogueVersion,
    /// The entries.
    statutes: Vec<Entry>,
    /// The legal clocks: by when a notice, an answer or an audit is due. The program does not run them.
    clocks: Vec<ClockEntry>,
    /// The industry profiles.
    profiles: Vec<ProfileEntry>,
}

impl Document for ListDocument {
    const OF: &'static [&'static str] = &["statute list"];
}

/// `statute …`.
pub async fn statute(context: &mut Context<'_>, command: StatuteCommand) -> CommandResult {
    match command {
        StatuteCommand::List { jurisdiction, profile } => {
            let law = law_in_force(context)?;
            match profile {
                Some(name) => list_profile(context.output, &law, &name),
                None => list(context.output, &law, jurisdiction.as_deref()),
            }
        }
        StatuteCommand::Diff(args) => diff::diff(context, args).await,
    }
}

/// The catalogue of the configuration. Without one, or with one that is wrong (perhaps because it names a statute that does
/// not exist, so that somebody looks here), the built-in one.
fn law_in_force(context: &mut Context<'_>) -> Result<Catalogue, UserError> {
    match configuration(context) {
        Ok(config) => return Ok(config.catalogue),
        Err(ConfigError::NotFound { .. }) if context.global.config.is_none() => {}
        Err(ConfigError::Invalid(_)) => context.output.note(&Words::new(
            "the configuration is not valid, so this is the built-in catalogue; see `wangchuan config check`",
            "配置无效，以下为内置目录；请看 `wangchuan config check`",
        ))?,
        Err(error) => return Err(config_error(error)),
    }
    built_in()
}

fn configuration(context: &Context<'_>) -> Result<Configuration, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok();
    let found = context.find_file()?;
    crate::config::load(&found.path, &variable)
}

/// The built-in catalogue alone.
pub(super) fn built_in() -> Result<Catalogue, UserError> {
    Catalogue::built_in().map_err(|error| UserError::from_any(error.into()))
}

fn list(output: &mut Output, law: &Catalogue, jurisdiction: Option<&str>) -> CommandResult {
    let wanted = |code: &str| jurisdiction.is_none_or(|wanted| code.eq_ignore_ascii_case(wanted));
    let statutes: Vec<&Statute> =
        law.statutes.iter().map(AsRef::as_ref).filter(|statute| wanted(&statute.jurisdiction)).collect();
    let clocks: Vec<&LegalClock> = law.clocks.iter().filter(|clock| wanted(&clock.jurisdiction)).collect();
    let lang = output.lang();
    let is_empty = statutes.is_empty() && clocks.is_empty();
    if is_empty {
        output.say(&Words::new("the catalogue has no such jurisdiction", "目录中没有该法域"))?;
    } else {
        output.table(&statute_grid(lang, &statutes))?;
        output.line("")?;
        output.table(&clock_grid(lang, &clocks))?;
        say_caution(output, law)?;
    }
    let profiles =
        if jurisdiction.is_none() { law.profiles.iter().map(ProfileEntry::of).collect() } else { Vec::new() };
    output.document(&ListDocument {
        result: Outcome::of_list(is_empty),
        catalogue: law.version,
        statutes: statutes.into_iter().map(Entry::of).collect(),
        clocks: clocks.into_iter().map(ClockEntry::of).collect(),
        profiles,
    })?;
    Ok(Exit::Done)
}

fn list_profile(output: &mut Output, law: &Catalogue, name: &str) -> CommandResult {
    let Some(profile) = law.profile(name) else {
        let known: Vec<&str> = law.profiles.iter().map(|profile| profile.name.as_str()).collect();
        let words = Words::new(format!("there is no profile {name}"), format!("没有行业配置 {name}"));
        let known = known.join(", ");
        return Err(UserError::new(Exit::Usage, "UNKNOWN", words)
            .advise(format!("the catalogue has: {known}"), format!("目录中有：{known}")));
    };
    let lang = output.lang();
    let titles = [
        ("records", "记录"),
        ("", ""),
        ("statute", "法规"),
        ("demands", "要求"),
        ("source", "出处"),
        ("status", "核实"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    for kind in &profile.records {
        let title = in_lang(lang, &kind.title);
        if kind.statutes.is_empty() {
            grid.row([&kind.name, title, "–"]);
        }
        for (number, key) in kind.statutes.iter().enumerate() {
            let (name, title) = if number == 0 { (kind.name.as_str(), title) } else { ("", "") };
            let Some(statute) = law.find(key) else { continue };
            let demands = demand(lang, statute.bound, statute.start);
            grid.row([name, title, key, &demands, &cited_in(lang, &statute.cites), status_in(lang, statute.status)]);
        }
    }
    output.line(&format!("{}: {}", profile.name, in_lang(lang, &profile.title)))?;
    output.table(&grid)?;
    say_caution(output, law)?;
    let named = |statute: &&Statute| profile.records.iter().any(|kind| kind.statutes.contains(&statute.key));
    let statutes = law.statutes.iter().map(AsRef::as_ref).filter(named);
    output.document(&ListDocument {
        result: Outcome::Complete,
        catalogue: law.version,
        statutes: statutes.map(Entry::of).collect(),
        clocks: Vec::new(),
        profiles: vec![ProfileEntry::of(profile)],
    })?;
    Ok(Exit::Done)
}

fn statute_grid(lang: Lang, statutes: &[&Statute]) -> Grid {
    let titles = [
        ("statute", "法规"),
        ("demands", "要求"),
        ("of", "适用于"),
        ("from", "起算"),
        ("source", "出处"),
        ("status", "核实"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    for statute in statutes {
        grid.row([
            statute.key.as_str(),
            &demand(lang, statute.bound, statute.start),
            in_lang(lang, &statute.applies_to),
            in_lang(lang, &statute.start_event),
            &cited_in(lang, &statute.cites),
            status_in(lang, statute.status),
        ]);
    }
    grid
}

fn clock_grid(lang: Lang, clocks: &[&LegalClock]) -> Grid {
    let titles = [
        ("clock", "时限"),
        ("within", "期限"),
        ("what", "事项"),
        ("from", "起算"),
        ("source", "出处"),
        ("status", "核实"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    for clock in clocks {
        for step in &clock.steps {
            let what = format!("{}: {}", in_lang(lang, &clock.applies_to), in_lang(lang, &step.what));
            grid.row([
                clock.key.as_str(),
                &within_in(lang, step.within),
                &what,
                in_lang(lang, &clock.start_event),
                &cited_in(lang, &clock.cites),
                status_in(lang, step.status),
            ]);
        }
    }
    grid
}

fn say_caution(output: &mut Output, law: &Catalogue) -> Result<(), UserError> {
    let version = law.version;
    output.note(&Words::new(
        format!(
            "catalogue {version}; none of this is legal advice; a lawyer must confirm a row before anybody relies on it; a \
             maximum that is not confirmed obliges nobody to erase"
        ),
        format!("目录版本 {version}；以上不构成法律意见；使用前须由律师核实；未核实的最长期限不要求删除"),
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::testing;

    fn listed(make: impl Fn(&mut Output, &Catalogue) -> CommandResult) -> serde_json::Value {
        let (mut output, out, _) = testing::output(true);
        assert_eq!(make(&mut output, &built_in().unwrap()).unwrap(), Exit::Done);
        serde_json::from_str(&out.text()).unwrap()
    }

    #[test]
    fn the_catalogue_is_listed_whole_or_by_jurisdiction() {
        let all = listed(|output, law| list(output, law, None));
        let law = built_in().unwrap();
        for (name, count) in
            [("statutes", law.statutes.len()), ("clocks", law.clocks.len()), ("profiles", law.profiles.len())]
        {
            assert_eq!(all[name].as_array().unwrap().len(), count, "{name}");
        }
        let chinese = listed(|output, law| list(output, law, Some("cn")));
        let entries = chinese["statutes"].as_array().unwrap();
        assert!(!entries.is_empty() && entries.iter().all(|entry| entry["jurisdiction"] == "CN"));
        let platforms = entries.iter().find(|entry| entry["statute"] == "cn.ecl.31").unwrap();
        assert_eq!((&platforms["demand"], &platforms["period"]), (&"minimum".into(), &"3 years".into()));
        assert_eq!(platforms["source"], "E-commerce Law 31");
        let cap = entries.iter().find(|entry| entry["statute"] == "cn.proof.188.cap").unwrap();
        assert_eq!((&cap["binds"], &cap["status"]), (&false.into(), &"unconfirmed".into()));
        assert_eq!(listed(|output, law| list(output, law, Some("XX")))["result"], "nothing-found");
    }

    #[test]
    fn a_profile_shows_what_binds_its_records() {
        let finance = listed(|output, law| list_profile(output, law, "finance"));
        let records = finance["profiles"][0]["records"].as_array().unwrap();
        let account = records.iter().find(|kind| kind["records"] == "account").unwrap();
        assert_eq!(account["statutes"], serde_json::json!(["cn.aml.kyc"]));
        let keys: Vec<&str> =
            finance["statutes"].as_array().unwrap().iter().map(|entry| entry["statute"].as_str().unwrap()).collect();
        assert!(keys.contains(&"cn.aml.kyc") && !keys.contains(&"cn.ecl.31"), "{keys:?}");
        let (mut output, _, _) = testing::output(true);
        let unknown = list_profile(&mut output, &built_in().unwrap(), "banking").unwrap_err();
        assert!(unknown.advice.unwrap().en.contains("ecommerce"));
    }
}
