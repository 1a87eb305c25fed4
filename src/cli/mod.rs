//! The command line: the only folder that speaks to people, and the only one that knows exit codes.
//!
//! One file per noun. A command reads its arguments, opens the installation with what it needs (`context`), calls a task
//! and shows the result; it decides nothing.

mod agent;
mod approve;
mod audit;
mod backup;
mod certificate;
mod config;
mod context;
mod drill;
mod evidence_pack;
mod generated;
mod hold;
mod html;
mod incident;
mod init;
mod interrupt;
mod job;
mod key;
mod looks;
mod media;
pub mod output;
mod plan;
mod quickstart;
mod recover;
mod report;
mod request;
mod run;
mod schemas;
mod slot_words;
mod stage;
mod status;
mod statute;
mod store;
mod subject_input;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{CommandFactory, Parser, Subcommand};

use self::context::Context;
use self::interrupt::{Begun, Listener};
use self::output::{Exit, Lang, Output, UserError, Words};
use crate::clock::{Clock, SystemClock};
use crate::installation::{Needs, Operation};

/// What a command returns: how it ended, or the error that ended it.
pub type CommandResult = std::result::Result<Exit, UserError>;

const ABOUT: &str = "Keeps customer data as long as it must, erases it when its time is up or a customer asks — from the live \
    stores and, by destroying keys, from every backup ever made — and proves it.";

const EXAMPLES: &str = "\
Every day:       status, agent, job, run, plan, erase, explain, statute
Customers:       request, hold, incident
Backups:         backup, restore, drill, recover
Proof:           certificate, audit, log, evidence-pack, report
Administration:  quickstart, init, doctor, config, store, key, media, completions, manual

First steps:
  wangchuan quickstart              a sample shop, and the whole cycle once
  wangchuan status                  what is due, overdue or failing
  wangchuan plan                    what retention would erase, why, and what it keeps
  wangchuan request new             a customer asks to be erased

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused, 4 partial, 5 overdue or missing, 130 interrupted.";

/// Retention and secure erasure of customer data, backups included.
#[derive(Debug, Parser)]
#[command(name = "wangchuan", version = version(), about = ABOUT, after_help = EXAMPLES, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// The configuration file; otherwise $WANGCHUAN_CONFIG, ./wangchuan.toml if it is yours, the user's, /etc/wangchuan/.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One JSON document on standard output; words for people go to standard error.
    #[arg(long, global = true)]
    pub json: bool,
    /// Language for people; by default from the locale.
    #[arg(long, global = true, value_enum)]
    pub lang: Option<Lang>,
    /// Pretend that it is this time (RFC 3339), for previews and read-only commands.
    #[arg(long, global = true, value_name = "TIME")]
    pub at: Option<DateTime<Utc>>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What is due, overdue or failing; exit code 5 when something is.
    #[command(after_help = "Examples:\n  wangchuan status\n  wangchuan status --json | jq .overdue")]
    Status,
    /// Run as the background agent, or hold and resume all destruction.
    Agent(agent::AgentArgs),
    /// Declared jobs and the calendar to come.
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Runs of any kind.
    #[command(subcommand)]
    Run(run::RunCommand),
    /// What retention would erase now, why, and what it keeps and why.
    Plan(plan::PlanArgs),
    /// Agree to a plan that needs somebody's approval.
    Approve(approve::ApproveArgs),
    /// Carry a plan out, exactly as planned.
    Erase(plan::EraseArgs),
    /// Why and when a record is due, with policy and statute.
    Explain(plan::ExplainArgs),
    /// The catalogue of statutes: how long the law wants records kept.
    #[command(subcommand)]
    Statute(statute::StatuteCommand),
    /// Requests of customers.
    #[command(subcommand)]
    Request(request::RequestCommand),
    /// Legal holds: what must not be destroyed for the time being.
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// Breach cases: what was found, looked into, told, done and learnt, each with its documents.
    #[command(subcommand)]
    Incident(incident::IncidentCommand),
    /// Snapshots in the bucket.
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Put a snapshot back into a database.
    Restore(backup::RestoreArgs),
    /// Restore tests with a kept, signed record.
    #[command(subcommand)]
    Drill(drill::DrillCommand),
    /// The agent's state of a lost host, from bucket, root slot and configuration.
    Recover(recover::RecoverArgs),
    /// Look again whether what was erased is still gone.
    #[command(subcommand)]
    Verify(verify::VerifyCommand),
    /// Deletion certificates.
    #[command(subcommand)]
    Certificate(certificate::CertificateCommand),
    /// The audit service, and what others need to check it.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// The operation log.
    #[command(subcommand)]
    Log(certificate::LogCommand),
    /// Everything that an inspection asks for over a period, in one folder that can be verified anywhere.
    EvidencePack(evidence_pack::EvidencePackArgs),
    /// What happened in a month, in numbers that others can count again.
    #[command(subcommand)]
    Report(report::ReportCommand),
    /// A working directory with a sample shop, and the whole cycle once.
    Quickstart(quickstart::QuickstartArgs),
    /// A new installation: a commented configuration, jobs, keys.
    Init(init::InitArgs),
    /// Check configuration, stores, bucket, slot, audit service and clock.
    Doctor(status::DoctorArgs),
    /// The configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// The registered stores.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// The key tree and its root slot.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Storage media with copies of data: those that were destroyed, and those that were lost.
    #[command(subcommand)]
    Media(media::MediaCommand),
    /// Completions for a shell, on standard output.
    Completions(generated::CompletionsArgs),
    /// Manual pages, on standard output or into a folder.
    Manual(generated::ManualArgs),
}

impl Command {
    /// Whether it runs until a stop is asked for, and ends by itself then.
    fn ends_by_itself(&self) -> bool {
        match self {
            Self::Agent(args) => args.runs(),
            Self::Audit(command) => command.serves(),
            _ => false,
        }
    }
}

fn version() -> &'static str {
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("WANGCHUAN_COMMIT"), ")")
}

/// Runs the program with the process's arguments.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    let mut output = Output::standard(cli.global.json, Lang::of_host(cli.global.lang));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(until_stopped(cli, &mut output));
            // Threads that still wait for a name server or a key press are not waited for.
            runtime.shutdown_timeout(SHUTDOWN);
            result
        }
        Err(error) => Err(UserError::from_any(error.into())),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = error.exit;
            // Whoever read the output has gone, as `head` does; there is nobody to tell.
            if !error.is_of_gone_reader() {
                let _ = output.error(&error);
            }
            exit.into()
        }
    }
}

/// Help and version asked for, or a command line that is wrong. Clap words the latter for people; a program that asked for JSON
/// gets a document without the words of the command line, which may hold a customer's id.
fn not_understood(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if !error.use_stderr() {
        return Exit::Done.into();
    }
    let mut words = std::env::args_os().skip(1).take_while(|word| word != "--");
    if words.any(|word| word == "--json") {
        let what = error.kind().as_str().unwrap_or("the command line is incomplete");
        let document = UserError::new(Exit::Usage, "USAGE", Words::new(what, format!("命令行有误：{what}")))
            .advise("see the command with --help", "请用 --help 查看该命令的用法");
        let mut output = Output::standard(true, Lang::of_host(None));
        let _ = output.document(&document.to_json(output.lang()));
    }
    Exit::Usage.into()
}

/// How long threads outside of the runtime's control may take to end.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Every step is durable or undone by the next start, so once nothing is in hand the command is dropped where it is.
async fn until_stopped(cli: Cli, output: &mut Output) -> CommandResult {
    let listener = Listener::start(output.lang()).map_err(|error| UserError::from_any(error.into()))?;
    let ends_by_itself = cli.command.ends_by_itself();
    let begun = Begun::of(&cli);
    let result = tokio::select! {
        biased;
        result = dispatch(cli, output, &listener) => Some(result),
        () = listener.stop.ready(), if !ends_by_itself => None,
    };
    listener.is_heard();
    match result {
        Some(Err(error)) if error.exit != Exit::Interrupted => Err(error),
        Some(Ok(exit)) => Ok(exit),
        Some(Err(_)) | None => Err(begun.end().await),
    }
}

async fn dispatch(cli: Cli, output: &mut Output, listener: &Listener) -> CommandResult {
    let mut context = Context::new(cli.global, output);
    context.stop = Arc::clone(&listener.stop);
    if cli.command.ends_by_itself() {
        // It may take as long as the batch in hand.
        listener.is_heard();
    }
    let runs = cli.command.ends_by_itself();
    let result = carry_out(&mut context, cli.command).await;
    if let Err(error) = &result
        && (error.exit == Exit::Refused || (runs && error.exit != Exit::Interrupted))
        && !OF_OLD_COPIES.contains(&error.code)
    {
        note_refusal(&context, error).await;
    }
    result
}

/// A control database that must not go on must not sign either: one more entry would give the operation log a second history.
const OF_OLD_COPIES: [&str; 2] = ["OLD_COPY", "ROLLED_BACK"];

/// Refusals, and services that did not start, stand in the operation log too. What cannot be logged stays refused all the same.
async fn note_refusal(context: &Context<'_>, error: &UserError) {
    let Ok(installation) = context.open(Needs::STATE).await else { return };
    let name = typed_command();
    let refused = Operation { name: "command.refused", object: &name, outcome: "failure", ..Operation::default() };
    let detail = Some(error.code.to_owned());
    let logged = installation.log(Operation { detail, at: Some(SystemClock.now()), ..refused }).await;
    if let Err(error) = logged.map_err(|error| error.with_causes()) {
        tracing::warn!(error = %error, "a refusal could not be logged");
    }
    let _ = installation.close().await;
}

/// The command of this process by its words alone, without any value.
fn typed_command() -> String {
    let Ok(mut matches) = Cli::command().try_get_matches() else { return String::new() };
    let mut words = Vec::new();
    while let Some((word, inner)) = matches.remove_subcommand() {
        words.push(word);
        matches = inner;
    }
    words.join(" ")
}

async fn carry_out(context: &mut Context<'_>, command: Command) -> CommandResult {
    looks::note_look(context, &command).await?;
    match command {
        Command::Status => status::status(context).await,
        Command::Agent(args) => agent::agent(context, args).await,
        Command::Job(command) => job::job(context, command).await,
        Command::Run(command) => run::run(context, command).await,
        Command::Plan(args) => plan::plan(context, args).await,
        Command::Approve(args) => approve::approve(context, args).await,
        Command::Erase(args) => plan::erase(context, args).await,
        Command::Explain(args) => plan::explain(context, args).await,
        Command::Statute(command) => statute::statute(context, command).await,
        Command::Request(command) => request::request(context, command).await,
        Command::Hold(command) => hold::hold(context, command).await,
        Command::Incident(command) => incident::incident(context, command).await,
        Command::Backup(command) => backup::backup(context, command).await,
        Command::Restore(args) => backup::restore(context, args).await,
        Command::Drill(command) => drill::drill(context, command).await,
        Command::Recover(args) => recover::recover(context, args).await,
        Command::Verify(command) => verify::verify(context, command).await,
        Command::Certificate(command) => certificate::certificate(context, command).await,
        Command::Audit(command) => audit::audit(context, command).await,
        Command::Log(command) => certificate::log(context, command).await,
        Command::EvidencePack(args) => evidence_pack::evidence_pack(context, args).await,
        Command::Report(command) => report::report(context, command).await,
        Command::Quickstart(args) => quickstart::quickstart(context, args).await,
        Command::Init(args) => init::init(context, args).await,
        Command::Doctor(args) => status::doctor(context, args).await,
        Command::Config(command) => config::config(context, command),
        Command::Store(command) => store::store(context, command).await,
        Command::Key(command) => key::key(context, command).await,
        Command::Media(command) => media::media(context, command).await,
        Command::Completions(args) => generated::completions(context, &args),
        Command::Manual(args) => generated::manual(context, &args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command with its words.
    fn commands(command: &clap::Command, path: &str, visit: &mut dyn FnMut(&str, &clap::Command)) {
        visit(path, command);
        for verb in command.get_subcommands() {
            commands(verb, &format!("{path} {}", verb.get_name()), visit);
        }
    }

    /// Commands with verbs that do something without one as well.
    const DO_SOMETHING_ALONE: [&str; 2] = ["agent", "evidence-pack"];

    /// The examples of a help text: lines that begin with the program's name, without comments and redirections.
    fn examples(help: &str) -> Vec<Vec<String>> {
        let mut joined = String::new();
        for line in help.lines() {
            let line = if joined.ends_with(' ') { line.trim_start() } else { line };
            match line.strip_suffix('\\') {
                Some(begin) => joined.push_str(begin),
                None => joined.extend([line, "\n"]),
            }
        }
        let lines = joined.lines().filter_map(|line| line.strip_prefix("  wangchuan"));
        let command = |line: &str| {
            let end = [" > ", " < ", " | ", "    "].iter().filter_map(|mark| line.trim_start().find(mark)).min();
            let line = line.trim_start();
            line[..end.unwrap_or(line.len())].split_whitespace().map(ToOwned::to_owned).collect()
        };
        lines.map(command).collect()
    }

    #[test]
    fn every_command_teaches_with_an_example_that_works() {
        assert_eq!(
            examples("  wangchuan a --b > c\n  wangchuan d \\\n      e    f"),
            [vec!["a", "--b"], vec!["d", "e"]]
        );
        commands(&Cli::command(), "", &mut |path, command| {
            if command.has_subcommands() && !DO_SOMETHING_ALONE.contains(&path.trim()) {
                return;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let shown = examples(&help);
            assert!(!shown.is_empty(), "`{path}` has no example");
            for example in shown {
                let words = example.join(" ");
                assert!(words.starts_with(path.trim()), "an example of `{path}` is `{words}`");
                let parsed = Cli::try_parse_from(std::iter::once("wangchuan".to_owned()).chain(example));
                assert!(parsed.is_ok(), "`{words}`: {}", parsed.unwrap_err());
            }
        });
    }

    /// Commands that change something or look at somebody, and log that themselves, under this name.
    const LOG_THEMSELVES: [(&str, &str); 41] = [
        ("agent hold", "agent.hold"),
        ("agent resume", "agent.resume"),
        ("job run", "run.begin"),
        ("run pause", "run.pause"),
        ("run resume", "run.resume"),
        ("run stop", "run.stop"),
        ("run tune", "run.tune"),
        ("run undo", "run.undo"),
        ("approve", "plan.approve"),
        ("erase", "run.begin"),
        ("explain", "explain"),
        ("request new", "request.look"),
        ("request run", "run.begin"),
        ("request cancel", "request.cancel"),
        ("hold place", "hold.place"),
        ("hold release", "hold.release"),
        ("incident open", "incident.open"),
        ("incident add", "incident.add"),
        ("incident close", "incident.close"),
        ("backup run", "backup.run"),
        ("backup prune", "backup.prune"),
        ("restore", "restore.begin"),
        ("drill run", "drill.run"),
        ("recover", "state.recover"),
        ("verify erased", "verify.erased"),
        ("verify residue", "verify.residue"),
        ("certificate about", "certificate.about"),
        ("media record", "media.record"),
        ("media lost", "media.lost"),
        ("audit key rotate", "signing.rotate"),
        ("audit key revoke", "signing.revoke"),
        ("log query", "log.query"),
        ("log export", "log.export"),
        ("log prune", "log.prune"),
        ("evidence-pack", "evidence-pack.make"),
        ("report monthly", "report.make"),
        ("store settle", "store.settle"),
        ("key shred", "key.shred"),
        ("key register", "key.register"),
        ("key unregister", "key.unregister"),
        ("key move", "key.move"),
    ];

    /// Commands that are not logged, and why: they look at nobody.
    const NAME_NOBODY: [(&str, &str); 39] = [
        ("status", "counts, dates and ids of what waits"),
        ("agent", "a pass logs each of its steps"),
        ("job list", "declared jobs"),
        ("job preview", "the calendar"),
        ("plan", "counts by policy; the lists are sealed"),
        ("statute list", "the law"),
        ("statute diff", "the law"),
        ("backup list", "ids and sizes of snapshots"),
        ("backup verify", "needs no key and opens nothing"),
        ("backup unneeded", "names of objects"),
        ("drill list", "ids and outcomes of drills"),
        ("drill show", "counts and hashes of one drill"),
        ("drill verify", "signatures of drills"),
        ("incident verify", "digests of cases"),
        ("certificate verify", "whether signatures fit; asked by monitoring and by strangers"),
        ("audit status", "counts, and ids of what waits"),
        ("audit flush", "files what the log says was issued; what was refused is logged before it is sent again"),
        ("audit verify", "counts, and numbers of what is wrong"),
        ("audit trust", "public keys"),
        ("audit serve", "what is filed, for whoever may read it"),
        ("audit conformance", "speaks with a service about made-up certificates"),
        ("audit key list", "public keys"),
        ("log verify", "hashes"),
        ("evidence-pack verify", "whether files are what was signed; asked by strangers"),
        ("quickstart", "a sample shop"),
        ("init", "before there is anything to look at"),
        ("doctor", "settings; what it changes it logs itself"),
        ("config check", "the configuration"),
        ("config show", "the configuration"),
        ("config schema", "the same text everywhere"),
        ("store list", "the registry"),
        ("store check", "rights and tables"),
        ("store lint", "names of columns"),
        ("key status", "counts of keys"),
        ("key list", "groups of keys, and no person"),
        ("key verify", "counts of what was tried"),
        ("key advice", "what may be copied"),
        ("completions", "the same text everywhere"),
        ("manual", "the same text everywhere"),
    ];

    #[test]
    fn every_command_is_logged_as_a_look_logs_itself_or_names_nobody() {
        let mut sources = String::new();
        let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false if path.ends_with("cli/mod.rs") => {}
                    false => sources += &std::fs::read_to_string(path).unwrap_or_default(),
                }
            }
        }
        for (command, operation) in LOG_THEMSELVES {
            assert!(sources.contains(&format!("\"{operation}\"")), "`{command}` logs no `{operation}`");
        }
        let mut left: std::collections::BTreeSet<&str> =
            LOG_THEMSELVES.iter().chain(&NAME_NOBODY).map(|(command, _)| *command).collect();
        assert_eq!(left.len(), LOG_THEMSELVES.len() + NAME_NOBODY.len(), "one stands in both lists");
        commands(&Cli::command(), "", &mut |path, command| {
            let path = path.trim();
            let example =
                examples(&command.get_after_help().map(ToString::to_string).unwrap_or_default()).into_iter().next();
            if command.has_subcommands() && !DO_SOMETHING_ALONE.contains(&path) {
                return;
            }
            let example = std::iter::once("wangchuan".to_owned()).chain(example.unwrap_or_default());
            let is_look = Cli::try_parse_from(example).is_ok_and(|cli| looks::look_of(&cli.command).is_some());
            assert_ne!(is_look, left.remove(path), "`{path}` has a place in exactly one list, or is a look");
        });
        assert!(left.is_empty(), "no such commands: {left:?}");
    }

    #[test]
    fn help_fits_a_terminal_of_eighty_columns() {
        let mut program = Cli::command().term_width(80);
        program.build();
        commands(&program, "", &mut |path, command| {
            let help = command.clone().term_width(80).render_long_help().to_string();
            for line in help.lines() {
                let width = unicode_width::UnicodeWidthStr::width(line);
                assert!(width <= 80, "`{path}` has a line of {width} columns: {line}");
            }
        });
    }
}
