//! `config …`: the configuration file, its jobs and their published schemas.

use std::path::Path;

use clap::{Subcommand, ValueEnum};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Map, Value};

use super::CommandResult;
use super::context::{Context, config_error, usage};
use super::output::shapes::Verification;
use super::output::{Document, Exit, Outcome, Output, UserError, Words};
use super::schemas;
use crate::config::schema::{
    catalogue_schema, certificate_schema, configuration_schema, operation_schema, roll_up_schema, schema_text,
};
use crate::config::{ConfigError, Configuration, Fault, Faults, Found, Origin, load};
use crate::schedule::{Job, ScheduleError, check_references, job_schema, load_folder};

/// The configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration file and the job files; says every fault with file, line and what to do.
    #[command(after_help = "Example:\n  wangchuan config check")]
    Check,
    /// What is in effect, with defaults filled in and secrets masked.
    #[command(after_help = "Example:\n  wangchuan config show --config /etc/wangchuan/wangchuan.toml")]
    Show,
    /// The published JSON Schemas: of the configuration, of a job file, of a catalogue, of what commands print with --json.
    #[command(after_help = "Examples:
  wangchuan config schema > wangchuan.schema.json     for an editor
  wangchuan config schema certificate                 of a certificate's statement
  wangchuan config schema output backup list          of one command
  wangchuan config schema output error                of every error
  wangchuan config schema output                      all of them")]
    Schema {
        /// Of what.
        #[arg(value_enum, default_value_t = SchemaOf::Config)]
        what: SchemaOf,
        /// With `output`: the command, or `error`; all without one.
        command: Vec<String>,
    },
}

/// Which schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// Of `wangchuan.toml`.
    Config,
    /// Of the files in the job folder.
    Job,
    /// Of a catalogue of statutes.
    Statutes,
    /// Of what a certificate says: the statement in its envelope.
    Certificate,
    /// Of what a roll-up says.
    RollUp,
    /// Of an entry of the operation log.
    Operation,
    /// Of the JSON that commands print.
    Output,
}

/// `config …`.
pub fn config(context: &mut Context<'_>, command: ConfigCommand) -> CommandResult {
    match command {
        ConfigCommand::Check => check(context),
        ConfigCommand::Show => show(context),
        ConfigCommand::Schema { what, command } => schema(context.output, what, &command),
    }
}

/// A fault of a file, for programs.
#[derive(Debug, Serialize, JsonSchema)]
struct FaultEntry {
    /// The file.
    file: String,
    /// The line, from 1.
    line: Option<usize>,
    /// The column, from 1.
    column: Option<usize>,
    /// What is wrong.
    what: String,
    /// What to do.
    r#do: Option<String>,
}

/// The JSON of `config check`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CheckDocument {
    /// `valid`, or `invalid` with exit code 2.
    result: Verification,
    /// The configuration file that counts.
    file: String,
    /// Why it does.
    chosen: String,
    /// Files that were found and do not count, with the reason.
    passed_over: Vec<String>,
    /// How many stores are registered.
    stores: usize,
    /// How many policies there are.
    policies: usize,
    /// The jobs by name.
    jobs: Vec<String>,
    /// What is allowed and worth a thought.
    warnings: Vec<String>,
    /// What is wrong, in the configuration or in the job files.
    faults: Vec<FaultEntry>,
}

impl Document for CheckDocument {
    const OF: &'static [&'static str] = &["config check"];
}

/// The jobs of a configuration, checked against its stores and policies.
pub(super) fn load_jobs(config: &Configuration) -> Result<Vec<Job>, ScheduleError> {
    let jobs = load_folder(&config.agent.jobs, config.agent.timezone)?;
    check_references(&jobs, &config.registry).map_err(ScheduleError::Invalid)?;
    Ok(jobs)
}

/// Reads a file with its faults still apart; [`Context::configuration`] makes one error of them.
fn read(path: &Path) -> Result<Configuration, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok();
    load(path, &variable)
}

fn check(context: &mut Context<'_>) -> CommandResult {
    let found = context.find_configuration()?;
    let config = match read(&found.path) {
        Ok(config) => config,
        Err(ConfigError::Invalid(faults)) => return refuse(context.output, found, &faults),
        Err(error) => return Err(config_error(error)),
    };
    let output = &mut *context.output;
    let (stores, policies) = (config.registry.stores.len(), config.registry.policies.len());
    output.say(&chosen(&found, "✓ "))?;
    output.say(&Words::new(
        format!("  stores: {stores}, policies: {policies}"),
        format!("  数据源：{stores}，策略：{policies}"),
    ))?;
    for warning in &config.warnings {
        output.line(&format!("! {warning}"))?;
    }
    let (jobs, faults) = match load_jobs(&config) {
        Ok(jobs) => {
            let (folder, count) = (config.agent.jobs.display(), jobs.len());
            output.say(&Words::new(format!("✓ {folder}: jobs: {count}"), format!("✓ {folder}：任务：{count}")))?;
            (jobs.into_iter().map(|job| job.name).collect(), Vec::new())
        }
        Err(error) => {
            output.line(&format!("✗ {error}"))?;
            (Vec::new(), faults_of(&error))
        }
    };
    let is_valid = faults.is_empty();
    output.document(&CheckDocument {
        result: Verification::of(is_valid),
        file: found.path.display().to_string(),
        chosen: found.origin.to_string(),
        passed_over: found.passed_over,
        stores,
        policies,
        jobs,
        warnings: config.warnings,
        faults,
    })?;
    Ok(if is_valid { Exit::Done } else { Exit::Usage })
}

/// Which file counts, and why.
pub(super) fn chosen(found: &Found, mark: &str) -> Words {
    let why = match found.origin {
        Origin::Flag => "由 --config 指定",
        Origin::Variable => "由 $WANGCHUAN_CONFIG 指定",
        Origin::WorkingDirectory => "在工作目录中，且属于您",
        Origin::User => "在您的配置目录中",
        Origin::System => "系统配置",
    };
    let file = found.path.display();
    Words::new(format!("{mark}{file} ({})", found.origin), format!("{mark}{file}（{why}）"))
}

/// Shows every fault with its line; the common error report would fold them into one.
fn refuse(output: &mut Output, found: Found, faults: &Faults) -> CommandResult {
    for fault in &faults.0 {
        output.line(&fault.to_string())?;
    }
    output.document(&CheckDocument {
        result: Verification::Invalid,
        file: found.path.display().to_string(),
        chosen: found.origin.to_string(),
        passed_over: found.passed_over,
        stores: 0,
        policies: 0,
        jobs: Vec::new(),
        warnings: Vec::new(),
        faults: faults.0.iter().map(fault_entry).collect(),
    })?;
    Ok(Exit::Usage)
}

fn fault_entry(fault: &Fault) -> FaultEntry {
    FaultEntry {
        file: fault.file.display().to_string(),
        line: fault.position.map(|position| position.line),
        column: fault.position.map(|position| position.column),
        what: fault.what.clone(),
        r#do: fault.advice.clone(),
    }
}

fn faults_of(error: &ScheduleError) -> Vec<FaultEntry> {
    match error {
        ScheduleError::Invalid(faults) => faults.0.iter().map(fault_entry).collect(),
        ScheduleError::Unreadable { path, source } => {
            let (file, what) = (path.display().to_string(), format!("cannot be read: {source}"));
            vec![FaultEntry { file, line: None, column: None, what, r#do: None }]
        }
    }
}

/// The JSON of `config show`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShowDocument {
    /// Always `complete`.
    result: Outcome,
    /// The configuration file that counts.
    file: String,
    /// What is in effect, with the names of the file; secrets are masked.
    config: Map<String, Value>,
}

impl Document for ShowDocument {
    const OF: &'static [&'static str] = &["config show"];
}

fn show(context: &mut Context<'_>) -> CommandResult {
    let config = context.configuration()?;
    let output = &mut *context.output;
    let file = config.source.display().to_string();
    output.note(&Words::new(format!("# from {file}"), format!("# 来自 {file}")))?;
    output.line(config.show().trim_end())?;
    let shown = toml::from_str(config.show()).map_err(|error| UserError::from_any(anyhow::Error::new(error)))?;
    output.document(&ShowDocument { result: Outcome::Complete, file, config: shown })?;
    Ok(Exit::Done)
}

/// A JSON Schema (draft 2020-12), as it is published.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct SchemaDocument(Map<String, Value>);

impl Document for SchemaDocument {
    const OF: &'static [&'static str] = &["config schema"];
}

fn schema(output: &mut Output, what: SchemaOf, command: &[String]) -> CommandResult {
    let text = match what {
        SchemaOf::Output => schema_text(&output_schema(&command.join(" "))?),
        _ if !command.is_empty() => {
            let error =
                usage("SCHEMA", "only `output` has a schema for each command", "只有 `output` 按命令分别有 schema");
            return Err(error.advise("see `wangchuan config schema --help`", "请看 `wangchuan config schema --help`"));
        }
        SchemaOf::Config => configuration_schema(),
        SchemaOf::Job => job_schema(),
        SchemaOf::Statutes => catalogue_schema(),
        SchemaOf::Certificate => certificate_schema(),
        SchemaOf::RollUp => roll_up_schema(),
        SchemaOf::Operation => operation_schema(),
    };
    if output.json() {
        let members = serde_json::from_str(&text).map_err(|error| UserError::from_any(error.into()))?;
        output.document(&SchemaDocument(members))?;
    } else {
        output.line(text.trim_end())?;
    }
    Ok(Exit::Done)
}

/// Of one command, or of all in one.
fn output_schema(command: &str) -> Result<Schema, UserError> {
    if command.is_empty() {
        return Ok(schemas::bundle());
    }
    if let Some(published) = schemas::find(command) {
        return Ok(published.schema());
    }
    let all = schemas::all();
    let known: Vec<&str> = all.iter().map(|published| published.command).collect();
    let hint = crate::config::suggest(command, &known);
    let (en, zh) = (format!("no document is printed by `{command}`"), format!("`{command}` 没有 JSON 文档"));
    Err(usage("SCHEMA", &en, &zh).advise(hint.clone(), hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Global;
    use crate::cli::output::testing;

    const GOOD: &str = "[agent]\nname = \"t\"\ntimezone = \"UTC\"\n[root]\nkind = \"file\"\npath = \"root.slot\"\n\
        accept_host_loss = true\n[audit]\nurl = \"embedded\"\n";

    fn checked(text: &str, job: Option<&str>) -> (Exit, Value, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wangchuan.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::create_dir(folder.path().join("jobs")).unwrap();
        if let Some(job) = job {
            std::fs::write(folder.path().join("jobs/nightly.toml"), job).unwrap();
        }
        let (mut output, out, err) = testing::output(true);
        let global = Global { config: Some(path), json: true, lang: None, at: None };
        let exit = config(&mut Context::new(global, &mut output), ConfigCommand::Check).unwrap();
        (exit, serde_json::from_str(&out.text()).unwrap(), err.text())
    }

    #[test]
    fn a_good_configuration_is_valid() {
        let (exit, document, words) = checked(GOOD, Some("task = \"shred\"\nschedule = \"@hourly\"\n"));
        assert_eq!((exit, &document["result"]), (Exit::Done, &"valid".into()), "{words}");
        assert_eq!(document["jobs"], serde_json::json!(["nightly"]));
        assert_eq!(document["chosen"], "named by --config");
    }

    #[test]
    fn faults_come_with_their_lines() {
        let (exit, document, words) = checked(&GOOD.replace("timezone", "timezon"), None);
        assert_eq!((exit, &document["result"]), (Exit::Usage, &"invalid".into()));
        // Two faults: the key that is missing, and the one that is not known.
        let faults = document["faults"].as_array().unwrap();
        let advice = faults.iter().find(|fault| fault["line"] == 3).and_then(|fault| fault["do"].as_str());
        assert_eq!((faults.len(), advice), (2, Some("did you mean `timezone`?")));
        assert!(words.contains("wangchuan.toml:3:1") && words.contains('^'), "{words}");
    }

    #[test]
    fn a_job_that_names_nothing_known_is_invalid() {
        let (exit, document, _) = checked(GOOD, Some("task = \"shread\"\nschedule = \"@hourly\"\n"));
        assert_eq!((exit, &document["result"]), (Exit::Usage, &"invalid".into()));
        assert!(document["faults"][0]["file"].as_str().unwrap().ends_with("nightly.toml"));
    }

    #[test]
    fn schemas_are_printed_as_published() {
        for (what, name) in [
            (SchemaOf::Config, "wangchuan.schema.json"),
            (SchemaOf::Job, "job.schema.json"),
            (SchemaOf::Statutes, "statutes.schema.json"),
            (SchemaOf::Certificate, "certificate.schema.json"),
            (SchemaOf::RollUp, "roll-up.schema.json"),
            (SchemaOf::Operation, "operation.schema.json"),
        ] {
            let (mut output, out, _) = testing::output(false);
            schema(&mut output, what, &[]).unwrap();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schema").join(name);
            assert_eq!(out.text(), std::fs::read_to_string(path).unwrap());
        }
    }

    #[test]
    fn the_schema_of_a_command_is_found_by_its_words() {
        let printed = |words: &[&str]| {
            let (mut output, out, _) = testing::output(false);
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            schema(&mut output, SchemaOf::Output, &words).map(|_| out.text())
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schema/output/backup-list.json");
        assert_eq!(printed(&["backup", "list"]).unwrap(), std::fs::read_to_string(path).unwrap());
        assert!(printed(&[]).unwrap().contains("\"$defs\""));
        let unknown = printed(&["backup", "lst"]).unwrap_err();
        assert!(unknown.advice.unwrap().en.contains("backup list"));
    }
}
