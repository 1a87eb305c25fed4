//! `audit key …`: the keys that sign certificates.

use chrono::{DateTime, Utc};
use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, local_time, task_error};
use super::super::output::shapes::Time;
use super::super::output::{Document, Exit, Grid, Outcome, Words, say};
use crate::audit::key_history::{EndedBy, HeldKey};
use crate::config::AuditService;
use crate::installation::{Needs, end_of};
use crate::keys::signing::SigningKind;
use crate::tasks::signing_keys::{self, KeyChange};

/// The keys that sign certificates.
#[derive(Debug, Subcommand)]
pub enum AuditKeyCommand {
    /// Every key that signs or signed, where it lies, from when until when it counts.
    #[command(after_help = "Example:\n  wangchuan audit key list")]
    List,
    /// Make the next key where `[signing]` says, and sign with it from now on. What was signed before stays good.
    #[command(after_help = "Example:\n  wangchuan audit key rotate")]
    Rotate,
    /// Say from when on somebody else may have had a key. What it signed later counts for nothing; one in use is replaced.
    #[command(after_help = "Example:\n  wangchuan audit key revoke 3fa9c2 --since 2026-11-02T08:00:00Z")]
    Revoke {
        /// The key's id, or how it begins.
        key: String,
        /// The earliest time at which somebody else may have had it (RFC 3339); now without it.
        #[arg(long, value_name = "TIME")]
        since: Option<DateTime<Utc>>,
    },
}

/// How a signing key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum SigningState {
    /// It signs.
    InUse,
    /// Another took its place; what it signed stays good.
    Retired,
    /// It may have been in other hands from its end on.
    Revoked,
}

/// A signing key.
#[derive(Debug, Serialize, JsonSchema)]
struct SigningKeyLine {
    /// Its id: SHA-256 of its public half.
    key_id: String,
    /// The kind of place it lies or lay in.
    place: SigningKind,
    /// Its name there.
    name: String,
    /// From when on it counts; null for the first one, which counts from the first certificate on.
    valid_from: Option<Time>,
    /// Until when; null while it is in use.
    valid_until: Option<Time>,
    /// How it stands.
    standing: SigningState,
}

impl SigningKeyLine {
    fn of(key: &HeldKey) -> Self {
        let end = end_of(key);
        Self {
            key_id: key.key_id.clone(),
            place: key.kind,
            name: key.name.clone(),
            valid_from: key.valid_for.start.map(Time::from),
            valid_until: end.map(|(_, at)| Time::from(at)),
            standing: match end.map(|(by, _)| by) {
                None => SigningState::InUse,
                Some(EndedBy::Retired) => SigningState::Retired,
                Some(EndedBy::Revoked) => SigningState::Revoked,
            },
        }
    }
}

/// The JSON of `audit key list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AuditKeyListDocument {
    /// Always `complete`.
    result: Outcome,
    /// The keys, the one in use last.
    signing_keys: Vec<SigningKeyLine>,
}

impl Document for AuditKeyListDocument {
    const OF: &'static [&'static str] = &["audit key list"];
}

/// The JSON of `audit key rotate` and `audit key revoke`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AuditKeyChangeDocument {
    /// Always `complete`.
    result: Outcome,
    #[serde(flatten)]
    change: KeyChange,
}

impl Document for AuditKeyChangeDocument {
    const OF: &'static [&'static str] = &["audit key rotate", "audit key revoke"];
}

/// `audit key …`.
pub async fn key(context: &mut Context<'_>, command: AuditKeyCommand) -> CommandResult {
    match command {
        AuditKeyCommand::List => list(context).await,
        AuditKeyCommand::Rotate => rotate(context).await,
        AuditKeyCommand::Revoke { key, since } => revoke(context, &key, since).await,
    }
}

async fn list(context: &mut Context<'_>) -> CommandResult {
    let installation = context.open(Needs::STATE).await?;
    let config = installation.config.clone();
    let signing_keys: Vec<_> = installation.signer.history().keys.iter().map(SigningKeyLine::of).collect();
    installation.close().await.map_err(task_error)?;
    let output = &mut *context.output;
    let lang = output.lang();
    let titles = [("key", "密钥"), ("place", "位置"), ("from", "自"), ("until", "至"), ("state", "状态")];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    for key in &signing_keys {
        let time = |at: &Option<Time>| at.map_or_else(|| "-".to_owned(), |at| local_time(&config, at.instant()));
        let (en, zh) = match key.standing {
            SigningState::InUse => ("in use", "使用中"),
            SigningState::Retired => ("retired", "已退役"),
            SigningState::Revoked => ("revoked", "已吊销"),
        };
        let place = format!("{} {}", key.place.name(), key.name);
        let id: String = key.key_id.chars().take(16).collect();
        grid.row([id.as_str(), &place, &time(&key.valid_from), &time(&key.valid_until), say(lang, en, zh)]);
    }
    output.table(&grid)?;
    output.document(&AuditKeyListDocument { result: Outcome::Complete, signing_keys })?;
    Ok(Exit::Done)
}

/// Everything but stores: the record of the keys goes into the second place.
const NEEDS: Needs = Needs { stores: false, ..Needs::ALL };

async fn rotate(context: &mut Context<'_>) -> CommandResult {
    context.only_now()?;
    let mut installation = context.open(NEEDS).await?;
    let done = signing_keys::rotate(&mut installation).await;
    let service = installation.config.audit.service.clone();
    let closed = installation.close().await;
    let change = done.map_err(task_error)?;
    closed.map_err(task_error)?;
    let [old, new] = [&change.ended, &change.key_id].map(|id| id.chars().take(16).collect::<String>());
    let place = change.to.name();
    context.output.say(&Words::new(
        format!("signing key {new} ({place}) is in use; {old} is retired, and what it signed stays good"),
        format!("签名密钥 {new}（{place}）已启用；{old} 已退役，其签名继续有效"),
    ))?;
    after(context, &service)?;
    context.output.document(&AuditKeyChangeDocument { result: Outcome::Complete, change })?;
    Ok(Exit::Done)
}

async fn revoke(context: &mut Context<'_>, key: &str, since: Option<DateTime<Utc>>) -> CommandResult {
    context.only_now()?;
    let mut installation = context.open(NEEDS).await?;
    let since = since.unwrap_or_else(|| installation.clock.now());
    let done = signing_keys::revoke(&mut installation, key, since).await;
    let (service, config) = (installation.config.audit.service.clone(), installation.config.clone());
    let closed = installation.close().await;
    let change = done.map_err(task_error)?;
    closed.map_err(task_error)?;
    let [old, new] = [&change.ended, &change.key_id].map(|id| id.chars().take(16).collect::<String>());
    let at = local_time(&config, since);
    context.output.say(&Words::new(
        format!("signing key {old} is revoked from {at} on: what it signed later counts for nothing; {new} is in use"),
        format!("签名密钥 {old} 自 {at} 起吊销：其后的签名一律无效；{new} 使用中"),
    ))?;
    after(context, &service)?;
    context.output.note(&Words::new(
        "`wangchuan audit verify` names the certificates that count for nothing now",
        "`wangchuan audit verify` 会列出已失效的证书",
    ))?;
    context.output.document(&AuditKeyChangeDocument { result: Outcome::Complete, change })?;
    Ok(Exit::Done)
}

/// Who must hear of the new key.
fn after(context: &mut Context<'_>, service: &AuditService) -> Result<(), super::super::output::UserError> {
    context.output.note(&Words::new(
        "hand a new trust file to whoever verifies certificates: `wangchuan audit trust --output FILE`",
        "请把新的信任文件交给核查证书的人：`wangchuan audit trust --output FILE`",
    ))?;
    if matches!(service, AuditService::Url(_)) {
        context.output.note(&Words::new(
            "give the audit service the new public key (`--parts` writes it as PEM), and leave the old one there: it takes no certificate \
             of a key that it does not know",
            "请把新公钥（`--parts` 写出 PEM）交给审计服务，并保留旧公钥：它不接受未知密钥签名的证书",
        ))?;
    }
    Ok(())
}
