//! `completions` and `manual`: what is generated from the command line's own definition, for packagers and shells.

use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use schemars::JsonSchema;
use serde::Serialize;

use super::context::{Context, usage};
use super::output::{Document, Exit, Outcome, UserError, Words};
use super::{Cli, CommandResult};

/// The program's name, as packages install it.
const PROGRAM: &str = "wangchuan";

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wangchuan completions bash > /etc/bash_completion.d/wangchuan
  wangchuan completions fish > ~/.config/fish/completions/wangchuan.fish")]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `manual`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wangchuan manual | man -l -
  wangchuan manual backup run | man -l -
  wangchuan manual --dir /usr/local/share/man/man1")]
pub struct ManualArgs {
    /// The command to print the page of; the whole program without one.
    #[arg(conflicts_with = "dir")]
    command: Vec<String>,
    /// Write the pages of all commands into this folder instead.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The JSON of `completions`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CompletionsDocument {
    /// Always `complete`.
    result: Outcome,
    /// The shell it is for.
    shell: String,
    /// The script.
    script: String,
}

impl Document for CompletionsDocument {
    const OF: &'static [&'static str] = &["completions"];
}

/// The JSON of `manual`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ManualDocument {
    /// Always `complete`.
    result: Outcome,
    /// The pages, printed or written.
    pages: Vec<Page>,
}

impl Document for ManualDocument {
    const OF: &'static [&'static str] = &["manual"];
}

/// A manual page.
#[derive(Debug, Serialize, JsonSchema)]
struct Page {
    /// Its name in section 1: `wangchuan-backup-run`.
    name: String,
    /// The page in roff, unless it was written to a file.
    text: Option<String>,
    /// The file it was written to.
    file: Option<String>,
}

/// `completions`.
pub fn completions(context: &mut Context<'_>, args: &CompletionsArgs) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), PROGRAM, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    if !context.output.json() {
        context.output.line(script.trim_end())?;
    }
    let document = CompletionsDocument { result: Outcome::Complete, shell: args.shell.to_string(), script };
    context.output.document(&document)?;
    Ok(Exit::Done)
}

/// `manual`.
pub fn manual(context: &mut Context<'_>, args: &ManualArgs) -> CommandResult {
    let mut program = Cli::command().disable_help_subcommand(true);
    // Names and global options of the subcommands are only settled by this.
    program.build();
    let pages = match &args.dir {
        Some(folder) => write_pages(&program, folder)?,
        None => vec![one_page(context, &program, &args.command)?],
    };
    if args.dir.is_some() {
        context
            .output
            .say(&Words::new(format!("{} pages written", pages.len()), format!("已写 {} 页", pages.len())))?;
    }
    context.output.document(&ManualDocument { result: Outcome::Complete, pages })?;
    Ok(Exit::Done)
}

fn one_page(context: &mut Context<'_>, program: &Command, path: &[String]) -> Result<Page, UserError> {
    let mut command = program;
    for word in path {
        command = command.find_subcommand(word).ok_or_else(|| {
            let asked = path.join(" ");
            usage("NO_SUCH_COMMAND", &format!("there is no command {asked}"), &format!("没有命令 {asked}"))
                .advise("see `wangchuan --help`", "请看 `wangchuan --help`")
        })?;
    }
    let text = rendered(command)?;
    if !context.output.json() {
        context.output.line(text.trim_end())?;
    }
    Ok(Page { name: name(command), text: Some(text), file: None })
}

fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

fn rendered(command: &Command) -> Result<String, UserError> {
    let mut page = Vec::new();
    let manual = clap_mangen::Man::new(command.clone()).title(name(command)).manual("Wangchuan");
    manual.render(&mut page).map_err(|error| UserError::from_any(error.into()))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Writes the page of a command and of everything below it.
fn write_pages(command: &Command, folder: &Path) -> Result<Vec<Page>, UserError> {
    std::fs::create_dir_all(folder).map_err(|error| cannot_write(folder, error))?;
    let path = folder.join(format!("{}.1", name(command)));
    std::fs::write(&path, rendered(command)?).map_err(|error| cannot_write(&path, error))?;
    let mut pages = vec![Page { name: name(command), text: None, file: Some(path.display().to_string()) }];
    for verb in command.get_subcommands() {
        pages.extend(write_pages(verb, folder)?);
    }
    Ok(pages)
}

fn cannot_write(path: &Path, error: std::io::Error) -> UserError {
    let what = Words::new("the manual page cannot be written", "无法写入手册页");
    UserError::new(Exit::Failed, "OUTPUT", what)
        .at(path.display().to_string())
        .advise("choose a folder that you may write to with --dir", "请用 --dir 指定可写的目录")
        .because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Global;
    use crate::cli::output::testing;

    fn global() -> Global {
        Global { config: None, json: false, lang: None, at: None }
    }

    #[test]
    fn there_is_a_page_for_every_command() {
        let folder = tempfile::tempdir().unwrap();
        let (mut output, _, _) = testing::output(false);
        let args = ManualArgs { command: Vec::new(), dir: Some(folder.path().join("man1")) };
        manual(&mut Context::new(global(), &mut output), &args).unwrap();
        for (name, text) in
            [("wangchuan", "quickstart"), ("wangchuan-backup", "verify"), ("wangchuan-backup-run", "full")]
        {
            let page = std::fs::read_to_string(folder.path().join(format!("man1/{name}.1"))).unwrap();
            assert!(page.contains(&format!(".TH {name} 1")) && page.contains(text), "{page}");
        }
        let (mut output, out, _) = testing::output(false);
        let args = ManualArgs { command: vec!["key".to_owned(), "status".to_owned()], dir: None };
        manual(&mut Context::new(global(), &mut output), &args).unwrap();
        assert!(out.text().contains(".TH wangchuan-key-status 1"), "{}", out.text());
        let args = ManualArgs { command: vec!["key".to_owned(), "stutas".to_owned()], dir: None };
        assert_eq!(manual(&mut Context::new(global(), &mut output), &args).unwrap_err().code, "NO_SUCH_COMMAND");
    }

    #[test]
    fn completions_know_the_commands_of_every_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let (mut output, out, _) = testing::output(false);
            completions(&mut Context::new(global(), &mut output), &CompletionsArgs { shell }).unwrap();
            assert!(out.text().contains("certificate") && out.text().contains("preview"), "{shell}");
        }
    }
}
