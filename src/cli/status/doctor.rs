//! `doctor`: looks at everything the agent depends on, one line each, and says what to do. A fault never hides the next one.

mod bucket;
mod drills;
mod outside;
mod process;
mod services;

use chrono::{DateTime, Utc};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use self::process::check_process;
use self::services::{check_installation, check_stores};
use super::super::CommandResult;
use super::super::config::{chosen, load_jobs};
use super::super::context::{Context, local_time, task_error};
use super::super::output::screen::Emphasis;
use super::super::output::{Document, Exit, Lang, Outcome, Output, Screen, UserError, Words, say};
use crate::clock::Clock;
use crate::config::Configuration;
use crate::control::{Control, ControlError, parse_time, time_text};
use crate::installation::{MAX_CLOCK_DIFFERENCE, MAX_CLOCK_LEAP, Needs, WORK_LEASE};
use crate::keyring::KeyringError;
use crate::memory::Protection;

/// Check everything the agent depends on.
///
/// Every line says ✓, ! or ✗ and what to do. Exit code 5 when something is missing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wangchuan doctor
  wangchuan doctor --confirm-clock    after the clock was set right
  wangchuan doctor --retry-pin        after a token refused a PIN that is right")]
pub struct DoctorArgs {
    /// Say that this host's clock is right, after it was set or the agent stood still for long; destruction then goes on.
    #[arg(long)]
    confirm_clock: bool,
    /// Try the PIN of a PKCS#11 token once more although the token refused it; too many wrong tries lock a token.
    #[arg(long)]
    retry_pin: bool,
}

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mark {
    /// As it should be.
    Good,
    /// Worth a look; nothing is stopped by it.
    Doubtful,
    /// Missing or wrong; exit code 5.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Line {
    check: &'static str,
    mark: Mark,
    what: Words,
    advice: Option<Words>,
}

/// The JSON of `doctor`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DoctorDocument<'l> {
    /// `complete` when nothing is missing, otherwise `partial` with exit code 5.
    result: Outcome,
    /// Everything that was looked at.
    checks: Vec<LineEntry<'l>>,
}

impl Document for DoctorDocument<'_> {
    const OF: &'static [&'static str] = &["doctor"];
}

/// One thing that was looked at.
#[derive(Debug, Serialize, JsonSchema)]
struct LineEntry<'l> {
    /// What: `config`, `jobs`, `state`, `clock`, `store`, …
    check: &'l str,
    /// How it is.
    mark: Mark,
    /// In words, in the language asked for.
    what: &'l str,
    /// What to do, in the language asked for.
    r#do: Option<&'l str>,
}

impl Line {
    fn entry(&self, lang: Lang) -> LineEntry<'_> {
        let advice = self.advice.as_ref().map(|advice| advice.in_lang(lang));
        LineEntry { check: self.check, mark: self.mark, what: self.what.in_lang(lang), r#do: advice }
    }
}

/// The lines so far.
#[derive(Default)]
struct Findings(Vec<Line>);

impl Findings {
    fn good(&mut self, check: &'static str, en: impl Into<String>, zh: impl Into<String>) {
        self.0.push(Line { check, mark: Mark::Good, what: Words::new(en, zh), advice: None });
    }

    fn doubtful(&mut self, check: &'static str, what: Words, advice: Words) {
        self.0.push(Line { check, mark: Mark::Doubtful, what, advice: Some(advice) });
    }

    fn missing(&mut self, check: &'static str, what: Words, advice: Words) {
        self.0.push(Line { check, mark: Mark::Missing, what, advice: Some(advice) });
    }

    /// An error that a command would have ended with.
    fn failed(&mut self, check: &'static str, error: &UserError) {
        // Elsewhere errors send people here; here that would lead in a circle.
        let elsewhere = error.advice.clone().filter(|advice| !advice.en.contains("`wangchuan doctor`"));
        let advice = elsewhere.unwrap_or_else(|| {
            Words::new(
                "mend what is named here, then run `wangchuan doctor` again",
                "请修复上述问题，再运行 `wangchuan doctor`",
            )
        });
        let causes = error.causes();
        let cause = if causes.is_empty() { String::new() } else { format!(": {}", causes.join(": ")) };
        let place = error.place.as_deref().map_or_else(String::new, |place| format!("{place}: "));
        let what = Words::new(format!("{place}{}{cause}", error.what.en), format!("{place}{}{cause}", error.what.zh));
        self.missing(check, what, advice);
    }
}

/// `doctor`.
pub async fn doctor(context: &mut Context<'_>, args: DoctorArgs) -> CommandResult {
    if args.confirm_clock {
        return confirm_clock(context).await;
    }
    if args.retry_pin {
        retry_pin(context).await?;
    }
    let mut findings = Findings::default();
    check_process(Protection::look(), &mut findings);
    if let Some(config) = check_config(context, &mut findings) {
        check_jobs(&config, &mut findings);
        let holder = check_control(&config, context.clock.as_ref(), &mut findings).await;
        check_stores(&config, context.clock.as_ref(), &mut findings).await;
        check_installation(context, holder, &mut findings).await;
    }
    show(context.output, &findings.0)
}

fn show(output: &mut Output, lines: &[Line]) -> CommandResult {
    let (lang, screen) = (output.lang(), output.screen());
    for line in lines {
        output.line(&rendered(line, lang, screen))?;
    }
    let is_missing = lines.iter().any(|line| line.mark == Mark::Missing);
    let result = if is_missing { Outcome::Partial } else { Outcome::Complete };
    output.document(&DoctorDocument { result, checks: lines.iter().map(|line| line.entry(lang)).collect() })?;
    Ok(if is_missing { Exit::Overdue } else { Exit::Done })
}

fn rendered(line: &Line, lang: Lang, screen: Screen) -> String {
    let mark = match line.mark {
        Mark::Good => screen.emphasise(Emphasis::Green, "✓"),
        Mark::Doubtful => screen.emphasise(Emphasis::Yellow, "!"),
        Mark::Missing => screen.emphasise(Emphasis::Red, "✗"),
    };
    let what = format!("{mark} {}: {}", line.check, line.what.in_lang(lang));
    match &line.advice {
        Some(advice) => format!("{what}\n    {}: {}", say(lang, "do", "处理"), advice.in_lang(lang)),
        None => what,
    }
}

fn check_config(context: &Context<'_>, findings: &mut Findings) -> Option<Configuration> {
    let found = match context.find_configuration() {
        Ok(found) => found,
        Err(error) => {
            findings.failed("config", &error);
            return None;
        }
    };
    match context.configuration() {
        Ok(config) => {
            let words = chosen(&found, "");
            findings.good("config", words.en, words.zh);
            for warning in &config.warnings {
                findings.0.push(Line {
                    check: "config",
                    mark: Mark::Doubtful,
                    what: Words::new(warning, warning),
                    advice: None,
                });
            }
            Some(config)
        }
        Err(error) => {
            findings.failed("config", &error);
            None
        }
    }
}

fn check_jobs(config: &Configuration, findings: &mut Findings) {
    let folder = config.agent.jobs.display();
    match load_jobs(config) {
        Ok(jobs) if jobs.is_empty() => findings.missing(
            "jobs",
            Words::new(
                format!("{folder} holds no job, so nothing runs by itself"),
                format!("{folder} 中没有任务，不会自动运行"),
            ),
            Words::new(
                "copy the shipped job files there, or run `wangchuan init`",
                "把随附的任务文件放到那里，或运行 `wangchuan init`",
            ),
        ),
        Ok(jobs) => {
            findings.good(
                "jobs",
                format!("jobs in {folder}: {}", jobs.len()),
                format!("{folder} 中有 {} 个任务", jobs.len()),
            );
        }
        Err(error) => {
            let what = error.to_string();
            let advice = Words::new("see `wangchuan config check`", "请看 `wangchuan config check`");
            findings.missing("jobs", Words::new(what.clone(), what), advice);
        }
    }
}

/// Looks at the control database and returns who holds the lease.
async fn check_control(config: &Configuration, clock: &dyn Clock, findings: &mut Findings) -> Option<i64> {
    let place = config.agent.state.shown();
    let now = clock.now();
    let looked = async {
        let control = Control::open_at(&config.agent.state).await?;
        let mut tx = control.read().await?;
        let holder = tx.lease_holder(WORK_LEASE, now).await?;
        let seen = tx.meta("clock_seen").await?.map(|text| parse_time(&text)).transpose()?;
        drop(tx);
        control.close().await;
        Ok::<_, ControlError>((holder, seen))
    };
    match looked.await {
        Err(error) => {
            findings.failed("state", &task_error(error.into()));
            None
        }
        Ok((holder, seen)) => {
            let who = holder.as_ref().map_or_else(
                || ("no agent is running".to_owned(), "没有代理在运行".to_owned()),
                |holder| match &holder.host {
                    Some(host) => (
                        format!("process {} on host {host} is at work", holder.pid),
                        format!("主机 {host} 上的进程 {} 正在工作", holder.pid),
                    ),
                    None => (format!("process {} is at work", holder.pid), format!("进程 {} 正在工作", holder.pid)),
                },
            );
            findings.good("state", format!("{place}; {}", who.0), format!("{place}；{}", who.1));
            check_clock(config, now, seen, findings);
            holder.map(|holder| holder.pid)
        }
    }
}

/// The same rule that stops destruction.
fn check_clock(config: &Configuration, now: DateTime<Utc>, seen: Option<DateTime<Utc>>, findings: &mut Findings) {
    let confirm = Words::new(
        "set the clock right, or confirm it with `wangchuan doctor --confirm-clock`",
        "请校准时钟，或用 `wangchuan doctor --confirm-clock` 确认",
    );
    let here = local_time(config, now);
    match seen {
        Some(seen) if now + MAX_CLOCK_DIFFERENCE < seen || now - seen > MAX_CLOCK_LEAP => {
            let seen = local_time(config, seen);
            let what = Words::new(
                format!("it says {here}, and was last seen at {seen}: nothing is destroyed"),
                format!("现为 {here}，上次看到是 {seen}：暂停一切销毁"),
            );
            findings.missing("clock", what, confirm);
        }
        _ => findings.good("clock", here.clone(), here),
    }
}

/// Takes this host's clock for right from now on. Logged: it is what lets destruction go on.
async fn confirm_clock(context: &mut Context<'_>) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs::STATE).await?;
    let now = installation.clock.now();
    installation.log_operation("clock.confirm", &time_text(now), "success").await.map_err(task_error)?;
    installation.confirm_clock().await.map_err(task_error)?;
    let mut findings = Findings::default();
    let here = local_time(&installation.config, now);
    findings.good("clock", format!("{here} is confirmed"), format!("{here} 已确认"));
    installation.close().await.map_err(task_error)?;
    show(context.output, &findings.0)
}

/// Lets the checks that follow try a PIN that the token refused. Logged: it can lock the token.
async fn retry_pin(context: &mut Context<'_>) -> Result<(), UserError> {
    context.only_now()?;
    let installation = context.open(Needs::STATE).await?;
    installation.log_operation("token.retry-pin", "root-slot", "success").await.map_err(task_error)?;
    let allowed = installation.keyring.slot().allow_another_try().await;
    let allowed_to_sign = match installation.signer.place() {
        Some((place, _)) => place.allow_another_try().await,
        None => Ok(()),
    };
    installation.close().await.map_err(task_error)?;
    allowed.map_err(|error| task_error(KeyringError::from(error).into()))?;
    allowed_to_sign.map_err(|error| task_error(error.into()))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::cli::output::testing;

    #[test]
    fn only_what_is_missing_ends_with_exit_code_five() {
        let words = || Words::new("x", "x");
        let mut findings = Findings::default();
        findings.good("clock", "right", "准确");
        findings.doubtful("bucket", words(), words());
        for (exit, result) in [(Exit::Done, "complete"), (Exit::Overdue, "partial")] {
            let (mut output, out, err) = testing::output(true);
            assert_eq!(show(&mut output, &findings.0).unwrap(), exit);
            let document: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
            assert_eq!(document["result"], result);
            assert_eq!(document["checks"].as_array().unwrap().len(), findings.0.len());
            assert_eq!(err.text().contains("✗ keys: gone\n    do: look"), exit == Exit::Overdue, "{}", err.text());
            findings.missing("keys", Words::new("gone", "没有"), Words::new("look", "看"));
        }
    }

    #[test]
    fn the_clock_is_judged_by_the_rule_that_stops_destruction() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wangchuan.toml");
        let text = "[agent]\nname = \"t\"\ntimezone = \"UTC\"\n[root]\nkind = \"file\"\npath = \"root.slot\"\n\
            accept_host_loss = true\n[audit]\nurl = \"embedded\"\n";
        std::fs::write(&path, text).unwrap();
        let config = super::super::super::context::read_configuration(&path).unwrap();
        let now: DateTime<Utc> = "2026-03-01T00:00:00Z".parse().unwrap();
        let mark = |seen: Option<DateTime<Utc>>| {
            let mut findings = Findings::default();
            check_clock(&config, now, seen, &mut findings);
            findings.0[0].mark
        };
        assert_eq!(mark(None), Mark::Good);
        assert_eq!(mark(Some(now - MAX_CLOCK_LEAP)), Mark::Good);
        assert_eq!(mark(Some(now - MAX_CLOCK_LEAP - TimeDelta::seconds(1))), Mark::Missing);
        assert_eq!(mark(Some(now + MAX_CLOCK_DIFFERENCE)), Mark::Good);
        assert_eq!(mark(Some(now + MAX_CLOCK_DIFFERENCE + TimeDelta::seconds(1))), Mark::Missing);
    }
}
