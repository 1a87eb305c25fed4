//! `doctor`: looks at everything the agent depends on, one line each, and says what to do. A fault never hides the next one.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use serde::Serialize;

use super::super::CommandResult;
use super::super::config::load_jobs;
use super::super::context::{Context, local_time, task_error};
use super::super::output::{Exit, Lang, Output, Screen, UserError, Words, say};
use super::super::store::{adapter, check_store};
use crate::backup::repository::abilities::{Abilities, Ability};
use crate::clock::Clock;
use crate::config::{AuditService, Configuration, StateLocation};
use crate::control::{Control, parse_time, time_text};
use crate::installation::{
    Installation, MAX_CLOCK_DIFFERENCE, MAX_CLOCK_LEAP, Needs, WORK_LEASE, audit_log_key, prove_bucket,
};
use crate::keys::slot::Presence;
use crate::policy::registry::BackupMode;

/// The longest wait for a bucket's answers.
const BUCKET_PATIENCE: Duration = Duration::from_secs(30);

/// Check everything the agent depends on.
///
/// Every line says ✓, ! or ✗ and what to do. Exit code 5 when something is missing.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Say that this host's clock is right, after it was set or the agent stood still for long; destruction then goes on.
    #[arg(long)]
    confirm_clock: bool,
}

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Mark {
    Good,
    Doubtful,
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Line {
    check: &'static str,
    mark: Mark,
    #[serde(serialize_with = "english")]
    what: Words,
    #[serde(serialize_with = "optional_english")]
    r#do: Option<Words>,
}

fn english<S: serde::Serializer>(words: &Words, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&words.en)
}

#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
fn optional_english<S: serde::Serializer>(words: &Option<Words>, serializer: S) -> Result<S::Ok, S::Error> {
    words.as_ref().map(|words| &words.en).serialize(serializer)
}

#[derive(Serialize)]
struct DoctorDocument<'l> {
    result: &'static str,
    checks: &'l [Line],
}

/// The lines so far.
#[derive(Default)]
struct Findings(Vec<Line>);

impl Findings {
    fn good(&mut self, check: &'static str, en: impl Into<String>, zh: impl Into<String>) {
        self.0.push(Line { check, mark: Mark::Good, what: Words::new(en, zh), r#do: None });
    }

    fn doubtful(&mut self, check: &'static str, what: Words, advice: Words) {
        self.0.push(Line { check, mark: Mark::Doubtful, what, r#do: Some(advice) });
    }

    fn missing(&mut self, check: &'static str, what: Words, advice: Words) {
        self.0.push(Line { check, mark: Mark::Missing, what, r#do: Some(advice) });
    }

    /// What an error says is the same in both languages; what to do may be in its own words.
    fn failed(&mut self, check: &'static str, error: &UserError) {
        let advice = error.advice.clone().unwrap_or_else(|| Words::new("see the cause", "见上述原因"));
        let causes = error.causes();
        let cause = if causes.is_empty() { String::new() } else { format!(": {}", causes.join(": ")) };
        let what = Words::new(format!("{}{cause}", error.what.en), format!("{}{cause}", error.what.zh));
        self.missing(check, what, advice);
    }
}

/// `doctor`.
pub async fn doctor(context: &mut Context<'_>, args: DoctorArgs) -> CommandResult {
    if args.confirm_clock {
        return confirm_clock(context).await;
    }
    let mut findings = Findings::default();
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
    let result = if is_missing { "partial" } else { "complete" };
    output.document(&DoctorDocument { result, checks: lines })?;
    Ok(if is_missing { Exit::Overdue } else { Exit::Done })
}

fn rendered(line: &Line, lang: Lang, screen: Screen) -> String {
    use super::super::output::screen::Emphasis;
    let mark = match line.mark {
        Mark::Good => screen.emphasise(Emphasis::Green, "✓"),
        Mark::Doubtful => screen.emphasise(Emphasis::Yellow, "!"),
        Mark::Missing => screen.emphasise(Emphasis::Red, "✗"),
    };
    let what = format!("{mark} {}: {}", line.check, line.what.in_lang(lang));
    match &line.r#do {
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
            let file = found.path.display();
            findings.good("config", format!("{file} ({})", found.origin), format!("{file}（{}）", found.origin));
            for warning in &config.warnings {
                let advice = Words::new("see `wangchuan config show`", "请看 `wangchuan config show`");
                findings.doubtful("config", Words::new(warning, warning), advice);
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
                format!("{} jobs in {folder}", jobs.len()),
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
    let StateLocation::Sqlite(path) = &config.agent.state;
    let now = clock.now();
    let looked = async {
        let control = Control::open(path).await?;
        let mut tx = control.read().await?;
        let holder = tx.lease_holder(WORK_LEASE, now).await?;
        let seen = tx.meta("clock_seen").await?.map(|text| parse_time(&text)).transpose()?;
        drop(tx);
        control.close().await;
        Ok::<_, crate::control::ControlError>((holder, seen))
    };
    match looked.await {
        Err(error) => {
            findings.failed("state", &task_error(error.into()));
            None
        }
        Ok((holder, seen)) => {
            let who = holder.map_or_else(
                || ("no agent is running".to_owned(), "没有代理在运行".to_owned()),
                |pid| (format!("process {pid} is at work"), format!("进程 {pid} 正在工作")),
            );
            findings.good("state", format!("{}; {}", path.display(), who.0), format!("{}；{}", path.display(), who.1));
            check_clock(config, now, seen, findings);
            holder
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

async fn check_stores(config: &Configuration, clock: &dyn Clock, findings: &mut Findings) {
    if config.registry.stores.is_empty() {
        findings.missing(
            "stores",
            Words::new("no store is registered", "没有登记数据源"),
            Words::new("add a [[store]] section to the configuration", "请在配置中加入 [[store]] 一节"),
        );
    }
    for spec in &config.registry.stores {
        let checked = check_store(config, spec).await;
        if let Some(why) = checked.unreachable {
            let advice = Words::new("check its address, password and network", "请检查地址、密码和网络");
            findings.missing("store", Words::new(why.clone(), why), advice);
            continue;
        }
        let difference = clock_difference(config, spec, clock).await;
        if checked.findings.is_empty() {
            let difference = difference.map_or_else(String::new, |seconds| format!(" ({seconds:+} s)"));
            let name = &spec.name;
            findings.good("store", format!("{name}: ready{difference}"), format!("{name}：就绪{difference}"));
        }
        for finding in checked.findings {
            let what = format!("{}: {}", spec.name, finding.what);
            findings.missing("store", Words::new(what.clone(), what), Words::new(finding.r#do.clone(), finding.r#do));
        }
        if let Some(seconds) = difference.filter(|seconds| TimeDelta::seconds(seconds.abs()) > MAX_CLOCK_DIFFERENCE) {
            let name = &spec.name;
            findings.missing(
                "clock",
                Words::new(
                    format!("that of store {name} differs by {seconds} s"),
                    format!("与数据源 {name} 相差 {seconds} 秒"),
                ),
                Words::new("set the clocks right; nothing is destroyed until then", "请校准时钟；在此之前不会销毁"),
            );
        }
    }
}

/// How many seconds a database's clock is ahead of this host's.
async fn clock_difference(
    config: &Configuration,
    spec: &crate::policy::registry::StoreSpec,
    clock: &dyn Clock,
) -> Option<i64> {
    let theirs = adapter(config, spec).ok()?.server_time().await.ok()?;
    Some((theirs - clock.now()).num_seconds())
}

async fn check_installation(context: &Context<'_>, holder: Option<i64>, findings: &mut Findings) {
    let installation = match context.open(Needs::STATE).await {
        Ok(installation) => installation,
        Err(error) => return findings.failed("keys", &error),
    };
    check_keys(&installation, findings).await;
    check_bucket(&installation, holder, findings).await;
    check_audit(&installation, findings);
    check_outbox(&installation, findings).await;
    if let Err(error) = installation.close().await {
        findings.failed("state", &task_error(error));
    }
}

async fn check_keys(installation: &Installation, findings: &mut Findings) {
    let slot = installation.keyring.slot();
    let looked = async {
        let mut tx = installation.control.read().await?;
        let generation = tx.tree_root().await?.map(|(generation, _)| generation);
        drop(tx);
        Ok::<_, crate::keyring::KeyringError>((generation, slot.list().await?))
    };
    let (generation, present) = match looked.await {
        Ok(looked) => looked,
        Err(error) => return findings.failed("keys", &task_error(error.into())),
    };
    let is_there = |wanted: i64| {
        present.iter().any(|present| present.generation == wanted && present.presence == Presence::Usable)
    };
    let class = slot.class();
    match generation {
        Some(generation) if is_there(generation) => findings.good(
            "keys",
            format!(
                "generation {generation} in a root slot of class {class:?}; signing key {}",
                short(installation.signer.key_id())
            ),
            format!("第 {generation} 代，{class:?} 级根密钥槽；签名密钥 {}", short(installation.signer.key_id())),
        ),
        Some(generation) => findings.missing(
            "keys",
            Words::new(
                format!("the root slot holds no key of generation {generation}: no backup can be opened"),
                format!("根密钥槽中没有第 {generation} 代密钥：无法打开任何备份"),
            ),
            Words::new("see `wangchuan key status`", "请看 `wangchuan key status`"),
        ),
        None => findings.missing(
            "keys",
            Words::new("there is no key tree", "没有密钥树"),
            Words::new("run `wangchuan init`", "请运行 `wangchuan init`"),
        ),
    }
}

fn short(id: &str) -> String {
    id.chars().take(16).collect()
}

async fn check_bucket(installation: &Installation, holder: Option<i64>, findings: &mut Findings) {
    let Some(backup) = &installation.config.backup else {
        let is_needed = installation.config.registry.stores.iter().any(|store| store.backup == BackupMode::Bucket);
        let what = Words::new("no bucket is configured", "没有配置存储桶");
        let advice = Words::new("add a [backup] section to the configuration", "请在配置中加入 [backup] 一节");
        return if is_needed {
            findings.missing("bucket", what, advice);
        } else {
            findings.doubtful("bucket", what, advice);
        };
    };
    if let (true, Some(pid)) = (installation.is_bucket_on_this_host(), holder) {
        let name = &backup.bucket;
        return findings.good(
            "bucket",
            format!("{name}, served by process {pid}"),
            format!("{name}，由进程 {pid} 提供"),
        );
    }
    match tokio::time::timeout(BUCKET_PATIENCE, prove_bucket(installation)).await {
        Err(_) => findings.missing(
            "bucket",
            Words::new("it does not answer within 30 seconds", "30 秒内没有应答"),
            Words::new("check the endpoint and the network", "请检查端点和网络"),
        ),
        Ok(Err(error)) => findings.failed("bucket", &task_error(error)),
        Ok(Ok(None)) => {}
        Ok(Ok(Some(abilities))) => {
            findings.good("bucket", format!("{}: reached", backup.bucket), format!("{}：可用", backup.bucket));
            show_abilities(&abilities, findings);
        }
    }
    if installation.is_bucket_on_this_host() {
        findings.doubtful(
            "bucket",
            Words::new("it stands on this host, so the backups are not off site", "存储桶在本主机上，备份不在异地"),
            Words::new("name an S3 endpoint elsewhere for anything but trying out", "除试用外，请配置异地的 S3 端点"),
        );
    }
}

/// What was shown of the endpoint. A missing ability weakens a belt, it does not stop the work.
fn show_abilities(abilities: &Abilities, findings: &mut Findings) {
    let named = [
        (&abilities.conditional_put, "refuses to overwrite (conditional put)", "拒绝覆盖（条件写入）"),
        (&abilities.checksum_enforced, "checks the stated SHA-256", "核对声明的 SHA-256"),
        (&abilities.versions, "keeps older versions", "保留旧版本"),
        (&abilities.object_lock, "locks objects until a date", "按期限锁定对象"),
    ];
    for (ability, en, zh) in named {
        match ability {
            Ability::Proved => findings.good("bucket", format!("proved: {en}"), format!("已证实：{zh}")),
            Ability::Missing(why) => {
                findings.good("bucket", format!("not there: {en}: {why}"), format!("没有：{zh}：{why}"));
            }
            Ability::Unknown(why) => {
                findings.good("bucket", format!("not known: {en}: {why}"), format!("未知：{zh}：{why}"));
            }
        }
    }
}

fn check_audit(installation: &Installation, findings: &mut Findings) {
    match (&installation.config.audit.service, audit_log_key(installation)) {
        (AuditService::Embedded { .. }, Ok(key)) => findings.good(
            "audit",
            format!("embedded: self-hosted, unwitnessed; log {}", key.origin()),
            format!("内嵌：自行运行，无见证；日志 {}", key.origin()),
        ),
        (AuditService::Embedded { data }, Err(_)) if !data.exists() => {
            findings.good("audit", "embedded; it begins with the first certificate", "内嵌；签发首张证书时启用");
        }
        (AuditService::Url(url), Ok(key)) => {
            findings.good("audit", format!("{url}, log {}", key.origin()), format!("{url}，日志 {}", key.origin()));
        }
        (_, Err(error)) => findings.failed("audit", &task_error(error)),
    }
}

/// Whether the audit service took what was filed last: it is not asked here, for it can only be asked with a certificate.
async fn check_outbox(installation: &Installation, findings: &mut Findings) {
    let read = async { installation.control.read().await?.outbox(None).await };
    let rows = match read.await {
        Ok(rows) => rows,
        Err(error) => return findings.failed("audit", &task_error(error.into())),
    };
    let refused = rows.iter().filter(|row| row.state == "quarantined").count();
    if refused > 0 {
        findings.missing(
            "audit",
            Words::new(format!("it refuses {refused} certificates"), format!("它拒绝了 {refused} 张证书")),
            Words::new("see `wangchuan certificate list`", "请看 `wangchuan certificate list`"),
        );
    }
    let last = rows.iter().filter(|row| row.state == "pending").find_map(|row| row.problem.as_ref());
    if let Some(problem) = last {
        findings.missing(
            "audit",
            Words::new(format!("certificates wait: {problem}"), format!("有证书等待存证：{problem}")),
            Words::new(
                "check its address and its token; filing is tried again by itself",
                "请检查地址和令牌；会自动重试",
            ),
        );
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

#[cfg(test)]
mod tests {
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
