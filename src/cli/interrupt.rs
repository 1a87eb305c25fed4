//! Ctrl-C and SIGTERM: work in hand is finished, everything else dropped where it is, and what is left is said.
//!
//! The first signal asks for a stop. A second one ends the process at once, which is as safe as a power cut: the next start
//! settles it. Both end a one-off command with 130; the background agent ends with 0 after a clean stop.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::agent::AgentArgs;
use super::context::read_configuration;
use super::job::JobCommand;
use super::output::{Exit, Lang, UserError, Words, say};
use super::request::RequestCommand;
use super::{Cli, Command};
use crate::clock::{Clock, SystemClock};
use crate::config::{Configuration, Surroundings, find};
use crate::installation::{Installation, Needs};
use crate::random::SystemRandom;
use crate::stop::Stop;
use crate::tasks::unfinished::{Unfinished, UnfinishedRun, find_unfinished};

/// A command that has nothing in hand and does not answer for so long waits for something outside of the program: a key
/// press at a prompt, a name server. It is ended then.
const DEAF_AFTER: Duration = Duration::from_secs(3);

/// Listens for signals from now on.
pub struct Listener {
    /// The process's wish to stop.
    pub stop: Arc<Stop>,
    heard: Arc<AtomicBool>,
}

impl Listener {
    /// Begins to listen; to be called within the runtime.
    ///
    /// # Errors
    /// When the system takes no more signal handlers.
    pub fn start(lang: Lang) -> std::io::Result<Self> {
        let signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let listener = Self { stop: Arc::new(Stop::default()), heard: Arc::new(AtomicBool::new(false)) };
        tokio::spawn(listen(signals, Arc::clone(&listener.stop), Arc::clone(&listener.heard), lang));
        Ok(listener)
    }

    /// The command has heard of the stop: it ends by itself.
    pub fn is_heard(&self) {
        self.heard.store(true, Ordering::SeqCst);
    }
}

async fn listen(mut signals: (Signal, Signal), stop: Arc<Stop>, heard: Arc<AtomicBool>, lang: Lang) {
    next(&mut signals).await;
    stop.ask();
    tell(say(
        lang,
        "stopping after what is in hand; the same again stops at once",
        "正在停止：先做完手头的一步；再按一次立即停止",
    ));
    let deaf = async {
        loop {
            stop.ready().await;
            tokio::time::sleep(DEAF_AFTER).await;
            if !heard.load(Ordering::SeqCst) {
                return;
            }
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = next(&mut signals) => {}
        () = deaf => {}
    }
    tell(say(
        lang,
        "stopped at once; what was begun is finished or undone by `wangchuan agent --once`",
        "已立即停止；已开始的工作由 `wangchuan agent --once` 完成或撤销",
    ));
    std::process::exit(Exit::Interrupted.code().into());
}

async fn next((interrupt, terminate): &mut (Signal, Signal)) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// A terminal that is gone is no reason to go on.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What has to be known of a command before it runs, to say what its interruption left.
pub struct Begun {
    configuration: Option<PathBuf>,
    kind: Kind,
    at: DateTime<Utc>,
}

/// Commands that leave different things behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Reads, or writes a row or two.
    Brief,
    /// Works under the lease on runs, requests, keys and certificates.
    Works,
    Backup,
    Restore,
    Drill,
    Quickstart,
}

impl Begun {
    /// Of this command line.
    pub fn of(cli: &Cli) -> Self {
        let found = || {
            let variable = |name: &str| std::env::var(name).ok();
            find(cli.global.config.as_deref(), &Surroundings::of_process(&variable)).ok().map(|found| found.path)
        };
        let configuration = match &cli.command {
            Command::Quickstart(args) => Some(args.dir.join("wangchuan.toml")),
            _ => found(),
        };
        Self { configuration, kind: kind_of(&cli.command), at: SystemClock.now() }
    }

    /// Gives back what the dropped command held, and says how things stand.
    pub async fn end(&self) -> UserError {
        let mut words = Said::new();
        let mut run = None;
        match self.look().await {
            Some((left, done)) => {
                self.say_done(&mut words, &done);
                words.left(&left);
                run = left.runs.first().map(|run| &run.id).or(left.undoing.first()).cloned();
                let nothing = left == Unfinished::default();
                self.advise(&mut words, nothing);
            }
            None => self.say_unknown(&mut words),
        }
        let error = words.error();
        match run {
            Some(run) => error.in_run(run),
            None => error,
        }
    }

    /// What is left, and what this command completed. Takes the lease for a moment where the command had it: a snapshot that
    /// was being taken is cancelled by that, and the lease given back.
    async fn look(&self) -> Option<(Unfinished, Completed)> {
        let config = read_configuration(self.configuration.as_deref()?).ok()?;
        let installation = self.reopen(config).await?;
        let left = find_unfinished(&installation.control).await.ok();
        let done = self.completed(&installation).await;
        let _ = installation.close().await;
        left.zip(done)
    }

    async fn reopen(&self, config: Configuration) -> Option<Installation> {
        let open = |config, lease| {
            let needs = Needs { lease, ..Needs::STATE };
            Installation::open(config, needs, Arc::new(SystemClock), Arc::new(SystemRandom))
        };
        if self.kind != Kind::Brief
            && let Ok(opened) = open(config.clone(), true).await
        {
            return Some(opened);
        }
        open(config, false).await.ok()
    }

    async fn completed(&self, installation: &Installation) -> Option<Completed> {
        let mut tx = installation.control.read().await.ok()?;
        let snapshots = tx.snapshots(None).await.ok()?;
        let drills = tx.drills().await.ok()?;
        Some(Completed {
            snapshots: snapshots.iter().filter(|row| row.committed_at.is_some_and(|at| at >= self.at)).count(),
            drills: drills.iter().filter(|row| row.at >= self.at).count(),
        })
    }

    fn say_done(&self, words: &mut Said, done: &Completed) {
        let (snapshots, drills) = (done.snapshots, done.drills);
        match self.kind {
            Kind::Backup if snapshots == 0 => {
                words.add(
                    "no snapshot was finished; the earlier ones are as good as before",
                    "未完成快照；原有快照不受影响",
                );
            }
            Kind::Backup => {
                words.add(
                    &format!("{snapshots} snapshots were finished and are good"),
                    &format!("已完成 {snapshots} 个快照，均有效"),
                );
            }
            Kind::Restore => words.add("nothing was put into the target", "目标数据库没有写入任何数据"),
            Kind::Drill if drills == 0 => {
                words.add("no drill was recorded, and its scratch database is wiped", "未记录演练，临时数据库已清除");
            }
            Kind::Drill => {
                words.add(&format!("{drills} drills were recorded"), &format!("已记录 {drills} 次演练"));
            }
            Kind::Brief | Kind::Works | Kind::Quickstart => {}
        }
    }

    fn advise(&self, words: &mut Said, nothing_left: bool) {
        let pass = match (self.kind, &self.configuration) {
            (Kind::Quickstart, Some(path)) => format!("wangchuan agent --once --config {}", path.display()),
            _ => "wangchuan agent --once".to_owned(),
        };
        if nothing_left && self.kind != Kind::Quickstart {
            words.advise("run the command again when you like", "可随时重新运行该命令");
        } else {
            words.advise(&format!("`{pass}` goes on from here"), &format!("`{pass}` 会从这里继续"));
        }
    }

    fn say_unknown(&self, words: &mut Said) {
        match (self.kind, self.configuration.as_deref().and_then(|path| path.parent())) {
            (Kind::Quickstart, Some(directory)) => {
                let directory = directory.display();
                words.add("the sample installation is not complete", "示例尚未建好");
                words.advise(
                    &format!("remove {directory} and run the quickstart again, or choose another --dir"),
                    &format!("请删除 {directory} 后重新运行 quickstart，或换一个 --dir"),
                );
            }
            _ => words.advise("run the command again when you like", "可随时重新运行该命令"),
        }
    }
}

fn kind_of(command: &Command) -> Kind {
    match command {
        Command::Agent(args) if AgentArgs::is_one_pass(args) => Kind::Works,
        Command::Erase(_)
        | Command::Request(RequestCommand::Run { .. } | RequestCommand::Cancel { .. })
        | Command::Job(JobCommand::Run { .. })
        | Command::Run(super::run::RunCommand::Undo { .. }) => Kind::Works,
        Command::Backup(super::backup::BackupCommand::Run { .. }) => Kind::Backup,
        Command::Restore(_) => Kind::Restore,
        Command::Drill(super::drill::DrillCommand::Run { .. }) => Kind::Drill,
        Command::Quickstart(_) => Kind::Quickstart,
        _ => Kind::Brief,
    }
}

/// What a command brought to an end before it was stopped.
struct Completed {
    snapshots: usize,
    drills: usize,
}

/// The sentence about an interruption, in both languages.
struct Said {
    en: Vec<String>,
    zh: Vec<String>,
    advice: Words,
}

impl Said {
    fn new() -> Self {
        let advice = Words::new("", "");
        Self { en: vec!["stopped by Ctrl-C".to_owned()], zh: vec!["已被 Ctrl-C 中止".to_owned()], advice }
    }

    fn add(&mut self, en: &str, zh: &str) {
        self.en.push(en.to_owned());
        self.zh.push(zh.to_owned());
    }

    fn advise(&mut self, en: &str, zh: &str) {
        self.advice = Words::new(en, zh);
    }

    fn left(&mut self, left: &Unfinished) {
        for UnfinishedRun { id, batches: [done, all], erased, due } in &left.runs {
            self.add(
                &format!("run {id}: {done} of {all} batches done, {erased} of {due} due rows erased"),
                &format!("运行 {id}：{all} 批已完成 {done} 批，到期 {due} 行已擦除 {erased} 行"),
            );
        }
        for id in &left.undoing {
            self.add(&format!("run {id} is being undone"), &format!("运行 {id} 正在撤销"));
        }
        for (number, en, zh) in [
            (left.requests, "requests wait to be carried out", "个请求等待执行"),
            (left.to_shred, "runs wait for their keys to be destroyed", "次运行等待销毁密钥"),
            (left.unfiled, "certificates wait to be filed", "份证书等待提交"),
        ] {
            if number > 0 {
                self.add(&format!("{number} {en}"), &format!("{number} {zh}"));
            }
        }
        if *left == Unfinished::default() {
            self.add("nothing is left half done", "没有做到一半的工作");
        }
    }

    fn error(self) -> UserError {
        let what = Words::new(self.en.join("; "), self.zh.join("；"));
        UserError::new(Exit::Interrupted, "INTERRUPTED", what)
            .advise(self.advice.en, self.advice.zh)
            .worth_retrying(true)
    }
}
