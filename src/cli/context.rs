//! What every command needs: the options, the output, and a way to the opened installation.

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::Global;
use super::output::document::OutputError;
use super::output::{Exit, Lang, Output, UserError, Words};
use super::slot_words;
use crate::backup::object_store::RepositoryError;
use crate::clock::{Clock, FixedClock, SystemClock};
use crate::config::{ConfigError, Configuration, Fault, Faults, Found, Surroundings, find, load};
use crate::control::{Control, ControlError};
use crate::erase::EraseError;
use crate::installation::{Installation, Needs};
use crate::keyring::KeyringError;
use crate::keyring::second_place::SecondPlaceError;
use crate::random::{Random, SystemRandom};
use crate::stop::Stop;
use crate::stores::StoreError;
use crate::tasks::TaskError;
use crate::tasks::certify::certify_or_wait;
use crate::telemetry;

/// A command's surroundings.
pub struct Context<'a> {
    /// The global options.
    pub global: Global,
    /// Where to speak.
    pub output: &'a mut Output,
    /// The clock; stands still with `--at`.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Whether to log at the configured level instead of warnings only.
    pub verbose: bool,
    /// The process's wish to stop.
    pub stop: Arc<Stop>,
}

impl<'a> Context<'a> {
    /// The surroundings of a command with these options.
    pub fn new(global: Global, output: &'a mut Output) -> Self {
        let clock: Arc<dyn Clock> = match global.at {
            Some(at) => Arc::new(FixedClock(at)),
            None => Arc::new(SystemClock),
        };
        Self { global, output, clock, random: Arc::new(SystemRandom), verbose: false, stop: Arc::default() }
    }

    /// The language for people.
    pub fn lang(&self) -> Lang {
        self.output.lang()
    }

    /// Refuses `--at` for a command that changes something.
    pub fn only_now(&self) -> Result<(), UserError> {
        if self.global.at.is_none() {
            return Ok(());
        }
        let what = Words::new("--at is for previews and read-only commands", "--at 只用于预览和只读命令");
        Err(UserError::new(Exit::Usage, "AT_NOT_ALLOWED", what)
            .advise("run the command without --at", "请去掉 --at 再运行"))
    }

    /// Which configuration file counts.
    pub fn find_configuration(&self) -> Result<Found, UserError> {
        self.find_file().map_err(config_error)
    }

    /// The same, with the reason still apart.
    pub fn find_file(&self) -> Result<Found, ConfigError> {
        let variable = |name: &str| std::env::var(name).ok();
        find(self.global.config.as_deref(), &Surroundings::of_process(&variable))
    }

    /// The checked configuration.
    pub fn configuration(&self) -> Result<Configuration, UserError> {
        let found = self.find_configuration()?;
        let config = read_configuration(&found.path)?;
        // A command speaks for itself; only the agent tells its story in the log.
        telemetry::start(if self.verbose { level_name(&config) } else { "warn" });
        Ok(config)
    }

    /// The installation, opened as far as needed.
    pub async fn open(&self, needs: Needs) -> Result<Installation, UserError> {
        let config = self.configuration()?;
        let opened =
            Installation::open(config, needs, self.clock.clone(), self.random.clone()).await.map_err(task_error)?;
        Ok(opened.under(&self.stop))
    }

    /// The installation, for what needs a store that the registry fits.
    pub async fn open_stores(&self, needs: Needs) -> Result<Installation, UserError> {
        let opened = self.open(needs).await?;
        if opened.sites().is_empty() && !opened.misfits().is_empty() {
            // Nothing is left to work on, and the configuration is why.
            let misfits = opened.misfits().to_vec();
            opened.close().await.map_err(task_error)?;
            return Err(task_error(EraseError::Registry(misfits).into()));
        }
        Ok(opened)
    }

    /// Only the control database, for commands that must answer at once.
    pub async fn control(&self) -> Result<(Configuration, Control), UserError> {
        let config = self.configuration()?;
        let control = Control::open_at(&config.agent.state).await.map_err(|error| task_error(error.into()))?;
        Ok((config, control))
    }
}

/// Reads a configuration file.
pub fn read_configuration(path: &Path) -> Result<Configuration, UserError> {
    let variable = |name: &str| std::env::var(name).ok();
    load(path, &variable).map_err(config_error)
}

fn level_name(config: &Configuration) -> &'static str {
    use crate::config::LogLevel;
    match config.agent.log {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

/// A configuration fault as people get it.
pub fn config_error(error: ConfigError) -> UserError {
    if let ConfigError::Invalid(faults) = &error {
        return faults_error("CONFIG_INVALID", faults);
    }
    let what = error.to_string();
    let (code, en, zh) = match &error {
        ConfigError::NotFound { .. } => (
            "CONFIG_NOT_FOUND",
            "run `wangchuan quickstart` to try it out, `wangchuan init` for a new installation, or give --config",
            "可先运行 `wangchuan quickstart` 试用，或用 `wangchuan init` 新建，或给出 --config",
        ),
        ConfigError::Unreadable { .. } => {
            ("CONFIG_UNREADABLE", "check the path and its permissions", "请检查路径和权限")
        }
        ConfigError::Invalid(_) => ("CONFIG_INVALID", "see `wangchuan config check`", "请看 `wangchuan config check`"),
    };
    let user = UserError::new(Exit::Usage, code, Words::new(what.clone(), what)).advise(en, zh);
    match error {
        ConfigError::Unreadable { path, source } => user.at(path.display().to_string()).because(source),
        _ => user,
    }
}

/// Faults of the configuration or of job files: one with its place, several in one sentence. `config check` shows their lines.
pub fn faults_error(code: &'static str, faults: &Faults) -> UserError {
    let place = |fault: &Fault| {
        let position = fault.position.map_or_else(String::new, |at| format!(":{}:{}", at.line, at.column));
        format!("{}{position}", fault.file.display())
    };
    let again =
        ("`wangchuan config check` shows the line, and checks again", "`wangchuan config check` 可显示该行并再次检查");
    let [fault] = faults.0.as_slice() else {
        let each = faults.0.iter().map(|fault| match &fault.advice {
            Some(advice) => format!("{}: {} ({advice})", place(fault), fault.what),
            None => format!("{}: {}", place(fault), fault.what),
        });
        let (count, each) = (faults.0.len(), each.collect::<Vec<_>>().join("; "));
        let what = Words::new(format!("{count} faults: {each}"), format!("{count} 处错误：{each}"));
        return UserError::new(Exit::Usage, code, what).advise(again.0, again.1);
    };
    let line = fault.line().map_or_else(String::new, |line| format!(": `{line}`"));
    let what = Words::new(format!("{}{line}", fault.what), format!("{}{line}", fault.what));
    let error = UserError::new(Exit::Usage, code, what).at(place(fault));
    match &fault.advice {
        Some(advice) => error.advise(format!("{advice}; {}", again.0), format!("{advice}；{}", again.1)),
        None => error.advise(format!("correct it; {}", again.0), format!("请改正；{}", again.1)),
    }
}

/// What to do about an old copy of the control database.
pub fn of_old_copy() -> Words {
    Words::new(
        "make sure that no other host works with this bucket; then move this control database away and run \
         `wangchuan recover`. Reading (status, certificate show) still works",
        "请确认没有其他主机使用此存储桶；然后移走该控制数据库并运行 `wangchuan recover`。仍可读取（status、certificate show）",
    )
}

/// A task's failure as people get it.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands errors over by value")]
pub fn task_error(error: TaskError) -> UserError {
    let retry = error.is_retryable();
    let text = error.to_string();
    let (exit, code) = class_of(&error);
    let user = UserError::new(exit, code, Words::new(text.clone(), text)).worth_retrying(retry);
    let slot_advice = match &error {
        TaskError::Keyring(KeyringError::Slot(fault))
        | TaskError::Erase(EraseError::Keyring(KeyringError::Slot(fault))) => slot_words::advice(fault),
        TaskError::Signing(fault) => Some(slot_words::signing::advice(fault)),
        _ => None,
    };
    let user = match &error {
        _ if slot_advice.is_some() => slot_advice.into_iter().fold(user, |user, words| user.advise(words.en, words.zh)),
        TaskError::Refused { advice, .. }
        | TaskError::Unknown { advice, .. }
        | TaskError::Erase(EraseError::Refused { advice, .. }) => user.advise(advice.clone(), advice.clone()),
        TaskError::OldCopy { .. }
        | TaskError::Erase(EraseError::Keyring(KeyringError::RolledBack { .. }))
        | TaskError::Keyring(
            KeyringError::RolledBack { .. }
            | KeyringError::SecondPlace(SecondPlaceError::Ahead { .. } | SecondPlaceError::Forked { .. }),
        ) => {
            let words = of_old_copy();
            user.advise(words.en, words.zh)
        }
        _ if wants_room(&error) => user.advise(
            "make room on that disk; nothing was lost, and the next run goes on",
            "请在该磁盘上腾出空间；没有丢失任何数据，下次运行会继续",
        ),
        TaskError::Repository(RepositoryError::Credentials { .. }) => user.advise(
            "renew the credentials of the bucket; nothing was lost, and the next run goes on",
            "请更新存储桶的凭证；没有丢失任何数据，下次运行会继续",
        ),
        TaskError::Repository(RepositoryError::Denied { .. }) => user.advise(
            "check the credentials of the bucket and what they may do; nothing was lost, and the next run goes on",
            "请检查存储桶的凭证及其权限；没有丢失任何数据，下次运行会继续",
        ),
        TaskError::Paused { run } => user.advise(
            format!("`wangchuan run resume {run}` goes on, `wangchuan run stop {run}` ends it"),
            format!("`wangchuan run resume {run}` 可继续，`wangchuan run stop {run}` 可结束"),
        ),
        _ if retry => user.advise("try again; nothing was lost", "请重试；没有丢失任何数据"),
        _ => user.advise(
            "see `wangchuan doctor`; nothing was lost, and the next run goes on",
            "请看 `wangchuan doctor`；没有丢失任何数据，下次运行会继续",
        ),
    };
    let user = match place_of(&error) {
        Some(place) => user.at(place),
        None => user,
    };
    match std::error::Error::source(&error).map(ToString::to_string) {
        Some(cause) => user.because(cause),
        None => user,
    }
}

/// Where it happened, as far as the error knows.
fn place_of(error: &TaskError) -> Option<String> {
    match error {
        TaskError::Store(error) | TaskError::Erase(EraseError::Store(error)) => {
            Some(format!("store {}", error.store()))
        }
        TaskError::Repository(_) => Some("bucket".to_owned()),
        TaskError::Signing(_) => Some("signing key".to_owned()),
        TaskError::Control(_) | TaskError::Erase(EraseError::Control(_)) => Some("control database".to_owned()),
        TaskError::Keyring(_) | TaskError::Erase(EraseError::Keyring(_)) => Some("key tree and root slot".to_owned()),
        _ => None,
    }
}

/// Whether room on a disk is what is wanted.
fn wants_room(error: &TaskError) -> bool {
    match error {
        TaskError::Control(error)
        | TaskError::Erase(EraseError::Control(error))
        | TaskError::Keyring(KeyringError::Control(error)) => error.wants_room(),
        TaskError::Repository(RepositoryError::Unavailable { code, .. }) => code == "StorageFull",
        _ => false,
    }
}

fn class_of(error: &TaskError) -> (Exit, &'static str) {
    match error {
        TaskError::Refused { .. } | TaskError::Erase(EraseError::Refused { .. }) => (Exit::Refused, "REFUSED"),
        TaskError::Unknown { .. } => (Exit::Usage, "UNKNOWN"),
        TaskError::Erase(EraseError::Registry(_)) => (Exit::Usage, "REGISTRY"),
        TaskError::Control(ControlError::Missing { .. }) => (Exit::Usage, "NOT_INSTALLED"),
        TaskError::Keyring(KeyringError::RolledBack { .. })
        | TaskError::Erase(EraseError::Keyring(KeyringError::RolledBack { .. })) => (Exit::Refused, "ROLLED_BACK"),
        TaskError::OldCopy { .. } => (Exit::Refused, "OLD_COPY"),
        TaskError::Keyring(KeyringError::SecondPlace(error)) if error.is_old_copy() => (Exit::Refused, "OLD_COPY"),
        TaskError::Keyring(KeyringError::SecondPlace(_)) => (Exit::Failed, "SECOND_PLACE"),
        TaskError::Keyring(_) | TaskError::Erase(EraseError::Keyring(_)) => (Exit::Failed, "KEYS"),
        TaskError::Store(error) | TaskError::Erase(EraseError::Store(error)) => (Exit::Failed, store_code(error)),
        TaskError::Repository(_) => (Exit::Failed, "BUCKET"),
        TaskError::Proof(_) => (Exit::Failed, "PROOF"),
        TaskError::Signing(_) => (Exit::Failed, "SIGNING"),
        TaskError::Stopping => (Exit::Interrupted, "INTERRUPTED"),
        TaskError::Paused { .. } => (Exit::Partial, "PAUSED"),
        _ => (Exit::Failed, "FAILED"),
    }
}

fn store_code(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unreachable { .. } => "STORE_UNREACHABLE",
        StoreError::Login { .. } => "STORE_LOGIN",
        StoreError::Refused { .. } => "STORE_REFUSED",
        StoreError::Busy { .. } => "STORE_BUSY",
        StoreError::Constraint { .. } => "STORE_CONSTRAINT",
        StoreError::Failed { .. } => "STORE_FAILED",
    }
}

impl From<OutputError> for UserError {
    fn from(error: OutputError) -> Self {
        let what = Words::new("the output cannot be written", "无法写出结果");
        let advice = ("check where the output goes", "请检查输出目标");
        UserError::new(Exit::Failed, "OUTPUT", what).advise(advice.0, advice.1).because(error)
    }
}

/// Issues the certificates that are due, and says when they must wait.
pub async fn certify_and_say(context: &mut Context<'_>, installation: &Installation) -> Result<Vec<String>, UserError> {
    let (ids, waiting) = certify_or_wait(installation).await.map_err(task_error)?;
    if let Some(reason) = waiting {
        context.output.note(&Words::new(
            format!("{reason}; it is issued by the agent's next pass that reaches it"),
            format!("证书等待签发：{reason}；代理下次连通后签发"),
        ))?;
    }
    Ok(ids)
}

/// Issues what is due. Whoever cannot be reached for that now, or works at the moment, does it later: what it is about is recorded.
pub async fn certify_now(context: &mut Context<'_>) -> Result<Vec<String>, UserError> {
    let installation = match context.open(Needs::ALL).await {
        Ok(installation) => installation,
        Err(error) => {
            let why = error.what.clone();
            context.output.note(&Words::new(
                format!("the certificate is issued by the agent's next pass: {}", why.en),
                format!("证书由代理下次运行时签发：{}", why.zh),
            ))?;
            return Ok(Vec::new());
        }
    };
    let certificates = certify_and_say(context, &installation).await;
    installation.close().await.map_err(task_error)?;
    certificates
}

/// A time for people: local to the configured zone.
pub fn local_time(config: &Configuration, time: DateTime<Utc>) -> String {
    time.with_timezone(&config.agent.timezone).format("%Y-%m-%d %H:%M").to_string()
}

/// Refuses a command on purpose.
pub fn usage(code: &'static str, en: &str, zh: &str) -> UserError {
    UserError::new(Exit::Usage, code, Words::new(en, zh))
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// A small configuration, with the folder that it lies in.
    pub fn config() -> (tempfile::TempDir, Configuration) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wangchuan.toml");
        let text = "[agent]\nname = \"t\"\ntimezone = \"UTC\"\n[root]\nkind = \"file\"\npath = \"root.slot\"\n\
            accept_host_loss = true\n[audit]\nurl = \"embedded\"\n";
        std::fs::write(&path, text).unwrap();
        let config = read_configuration(&path).unwrap();
        (folder, config)
    }
}
