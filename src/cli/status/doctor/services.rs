//! What `doctor` looks at outside its own files: stores, root slot, bucket, audit service.

use std::time::Duration;

use chrono::TimeDelta;

use super::super::super::context::{Context, task_error};
use super::super::super::output::Words;
use super::super::super::slot_words::shortcoming;
use super::super::super::store::{adapter, check_store};
use super::Findings;
use super::bucket::{check_site, show_horizons};
use super::drills::check_drills;
use super::outside::check_outside_keys;
use crate::backup::repository::abilities::{Abilities, Ability};
use crate::certify::signer::PublicKey;
use crate::clock::Clock;
use crate::config::{AuditService, Configuration};
use crate::installation::{
    Installation, MAX_CLOCK_DIFFERENCE, Needs, acknowledgement_keys, audit_log_key, placed_key_id, prove_bucket,
};
use crate::keyring::{KeyringError, second_place};
use crate::keys::signing::SigningError;
use crate::keys::slot::{Presence, RootSlot};
use crate::policy::registry::{BackupMode, StoreSpec};

/// The longest wait for a bucket's answers.
const BUCKET_PATIENCE: Duration = Duration::from_secs(30);

/// The stores and their clocks.
pub async fn check_stores(config: &Configuration, clock: &dyn Clock, findings: &mut Findings) {
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
async fn clock_difference(config: &Configuration, spec: &StoreSpec, clock: &dyn Clock) -> Option<i64> {
    let theirs = adapter(config, spec).ok()?.server_time().await.ok()?;
    Some((theirs - clock.now()).num_seconds())
}

/// Keys, bucket, audit service.
pub async fn check_installation(context: &Context<'_>, holder: Option<i64>, findings: &mut Findings) {
    let installation = match context.open(Needs::STATE).await {
        Ok(installation) => installation,
        Err(error) => return findings.failed("keys", &error),
    };
    check_keys(&installation, findings).await;
    check_signing_key(&installation, findings).await;
    check_outside_keys(&installation, findings).await;
    check_bucket(&installation, holder, findings).await;
    if installation.config.backup.is_some() {
        check_site(&installation, findings);
    }
    check_second_place(&installation, findings).await;
    check_audit(&installation, findings);
    check_outbox(&installation, findings).await;
    check_drills(&installation, findings).await;
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
        Ok::<_, KeyringError>((generation, slot.list().await?))
    };
    let (generation, present) = match looked.await {
        Ok(looked) => looked,
        Err(error) => return findings.failed("keys", &task_error(error.into())),
    };
    let is_there = |wanted: i64| {
        present.iter().any(|present| present.generation == wanted && present.presence == Presence::Usable)
    };
    check_slot(slot.as_ref(), findings).await;
    let class = slot.class();
    match generation {
        Some(generation) if is_there(generation) => findings.good(
            "keys",
            format!(
                "generation {generation} in a root slot of class {class:?}; signing key {} ({})",
                short(installation.signer.key_id()),
                signing_place(installation)
            ),
            format!(
                "第 {generation} 代，{class:?} 级根密钥槽；签名密钥 {}（{}）",
                short(installation.signer.key_id()),
                signing_place(installation)
            ),
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

/// Whether the signing key is where the record says, and where the configuration wants it.
async fn check_signing_key(installation: &Installation, findings: &mut Findings) {
    let Some(key) = installation.signer.history().in_use() else { return };
    let wanted = installation.config.signing.kind();
    if key.kind != wanted {
        let (is, wanted) = (key.kind.name(), wanted.name());
        findings.doubtful(
            "keys",
            Words::new(
                format!("[signing] says {wanted}, and the signing key in use is still in {is}"),
                format!("[signing] 为 {wanted}，而使用中的签名密钥仍在 {is}"),
            ),
            Words::new("run `wangchuan audit key rotate`", "请运行 `wangchuan audit key rotate`"),
        );
    }
    let Some((place, name)) = installation.signer.place() else { return };
    let looked = async {
        let there = placed_key_id(place, name).await?;
        if there != installation.signer.key_id() {
            return Err(SigningError::OtherKey { place: place.place() });
        }
        place.shortcomings().await
    };
    match looked.await {
        Ok(found) => {
            for (what, advice) in found.iter().map(shortcoming) {
                findings.missing("keys", what, advice);
            }
        }
        Err(error) => findings.failed("keys", &task_error(error.into())),
    }
}

/// How the slot is set up, and whether a root is still on its way to it.
async fn check_slot(slot: &dyn RootSlot, findings: &mut Findings) {
    match slot.shortcomings().await {
        Ok(found) => {
            for (what, advice) in found.iter().map(shortcoming) {
                findings.missing("keys", what, advice);
            }
        }
        Err(error) => findings.failed("keys", &task_error(KeyringError::from(error).into())),
    }
    match slot.left_behind().await {
        Ok(left) if left.is_empty() => {}
        Ok(_) => findings.doubtful(
            "keys",
            Words::new(
                "the root key is still in the slot under [root.previous]",
                "根密钥仍在 [root.previous] 的密钥槽中",
            ),
            Words::new("run `wangchuan key move`", "请运行 `wangchuan key move`"),
        ),
        Err(error) => findings.failed("keys", &task_error(KeyringError::from(error).into())),
    }
}

/// The kind of place that the signing key lies in.
fn signing_place(installation: &Installation) -> &'static str {
    installation.signer.history().in_use().map_or("?", |key| key.kind.name())
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
        Ok(Ok(Some(proved))) => {
            findings.good("bucket", format!("{}: reached", backup.bucket), format!("{}：可用", backup.bucket));
            show_abilities(&proved.abilities, findings);
            show_horizons(&proved.horizons, installation.clock.now(), findings);
        }
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

/// Whether the agent's state lies in the bucket, as far as this host knows.
async fn check_second_place(installation: &Installation, findings: &mut Findings) {
    let memory = match second_place::memory(&installation.control).await {
        Ok(memory) => memory,
        Err(error) => return findings.failed("second place", &task_error(error.into())),
    };
    match (memory.head, memory.intent) {
        _ if installation.config.backup.is_none() => findings.doubtful(
            "second place",
            Words::new("none: without a bucket this host's state has no copy", "没有：未配置存储桶，本机状态没有副本"),
            Words::new("add a [backup] section to the configuration", "请在配置中加入 [backup] 一节"),
        ),
        (_, Some(intent)) => findings.doubtful(
            "second place",
            Words::new(
                format!("state {} was announced and not confirmed", intent.number),
                format!("第 {} 号状态已登记但未确认", intent.number),
            ),
            Words::new("the next start looks for it", "下次启动会查找"),
        ),
        (Some(head), None) => findings.good(
            "second place",
            format!("state {} of key generation {} lies in the bucket", head.number, head.generation),
            format!("第 {} 号状态（第 {} 代密钥）在存储桶中", head.number, head.generation),
        ),
        (None, None) => findings.good(
            "second place",
            "nothing yet; the first snapshot brings the state there",
            "尚无内容；首个快照会写入",
        ),
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
        (AuditService::Webhook { url, acknowledged_by: Some(_), .. }, _) => match acknowledgement_keys(installation) {
            Ok(keys) => {
                let ids: Vec<&str> = keys.iter().map(PublicKey::key_id).collect();
                let ids = ids.join(", ");
                findings.good(
                    "audit",
                    format!("{url}, a webhook without a log; it signs for what it took with {ids}"),
                    format!("{url}，没有日志的网络回调；以 {ids} 签名确认"),
                );
            }
            Err(error) => findings.failed("audit", &task_error(error)),
        },
        (AuditService::Webhook { url, .. }, _) => findings.good(
            "audit",
            format!("{url}, a webhook: no receipts, so nothing proves that certificates were filed"),
            format!("{url}，网络回调：没有回执，无法证明已存证"),
        ),
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
            Words::new(
                "see why with `wangchuan audit status`, mend it, and run `wangchuan audit flush --refused`",
                "用 `wangchuan audit status` 查看原因，处理后运行 `wangchuan audit flush --refused`",
            ),
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
