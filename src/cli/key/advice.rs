//! `key advice`: what may and may not be copied or backed up, for the kind of root slot that is configured.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::{Document, Exit, Grid, Outcome, UserError, Words, say};
use crate::installation::Needs;
use crate::keys::signing::SigningKind;
use crate::keys::slot::{SlotClaim, SlotClass, SlotKind};

/// What `key advice --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeyAdviceDocument {
    /// Always `complete`.
    result: Outcome,
    /// What destruction in the root slot is worth.
    class: SlotClass,
    /// One line for each thing that can be copied.
    advice: Vec<AdviceLine>,
}

impl Document for KeyAdviceDocument {
    const OF: &'static [&'static str] = &["key advice"];
}

/// Whether a thing may be copied.
#[derive(Debug, Serialize, JsonSchema)]
struct AdviceLine {
    /// What it is about.
    about: &'static str,
    /// Whether it may be copied.
    may: May,
    /// Why, in English.
    en: &'static str,
    /// Why, in Chinese.
    zh: &'static str,
}

/// Whether it may be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum May {
    /// Copy freely.
    Copy,
    /// Copy, but within the limits that are said.
    CopyWithin,
    /// A copy may be looked at, and must never be put back.
    NeverPutBack,
    /// Do not copy.
    NeverCopy,
}

impl May {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Copy => ("copy freely", "可随意复制"),
            Self::CopyWithin => ("copy within limits", "可有限复制"),
            Self::NeverPutBack => ("never put back", "切勿恢复"),
            Self::NeverCopy => ("never copy", "切勿复制"),
        }
    }
}

/// What a line is about, for people.
fn about_words(about: &'static str) -> (&'static str, &'static str) {
    match about {
        "root-slot" => ("root slot", "根密钥槽"),
        "wrapped-roots" => ("wrapped roots", "已包裹的根密钥"),
        "control-database" => ("control database", "控制数据库"),
        "signing-keys" => ("signing keys", "签名密钥"),
        "bucket" => (about, "存储桶"),
        "certificates-and-logs" => ("certificates and logs", "证书与日志"),
        "configuration" => (about, "配置"),
        "memory-of-the-host" => ("memory of the host", "主机内存"),
        "copies-of-the-stores" => ("copies of the stores", "数据源的副本"),
        other => (other, other),
    }
}

fn line(about: &'static str, may: May, en: &'static str, zh: &'static str) -> AdviceLine {
    AdviceLine { about, may, en, zh }
}

/// What may be copied, for a slot.
fn advice(claim: &SlotClaim, signing: SigningKind) -> Vec<AdviceLine> {
    let mut lines = match claim.kind {
        SlotKind::Pkcs11 => token(claim.class),
        SlotKind::File | SlotKind::Transit | SlotKind::AwsKms => vec![root_slot(claim.class)],
    };
    lines.extend([
        line(
            "control-database",
            May::NeverPutBack,
            "an old copy is useless after the next shred by design, and the agent refuses it; live data is not affected",
            "按设计，旧副本在下次销毁后即无用，代理会拒绝；在线数据不受影响",
        ),
        signing_key(signing),
        line(
            "bucket",
            May::Copy,
            "packs are noise without keys; replicate them, keep versions and Object Lock as you like",
            "没有密钥，备份包只是噪声；复制、多版本、对象锁均可",
        ),
        line(
            "certificates-and-logs",
            May::Copy,
            "certificates, receipts and both logs hold no personal data and are meant to be kept",
            "证书、回执和两份日志不含个人信息，应当保存",
        ),
        line(
            "configuration",
            May::Copy,
            "the configuration and the jobs; secrets that it names by file or variable lie elsewhere",
            "配置和任务文件；其引用的机密文件或变量另行保管",
        ),
        line(
            "memory-of-the-host",
            May::NeverCopy,
            "core dumps, swap, hibernation and snapshots of a running virtual machine hold keys in use",
            "核心转储、交换区、休眠文件和运行中虚拟机的快照含有使用中的密钥",
        ),
        line(
            "copies-of-the-stores",
            May::CopyWithin,
            "dumps, replicas and exports made by others are not shredded by anything here: declare each with the date by which it dies",
            "他人做的转储、副本和导出不会被这里销毁：请逐一申报其失效日期",
        ),
    ]);
    lines
}

/// The key that signs certificates.
fn signing_key(kind: SigningKind) -> AdviceLine {
    let (en, zh) = match kind {
        SigningKind::File => (
            "the public halves may and should lie elsewhere, so that certificates verify without this host; the private halves stay",
            "公钥可以且应当另存，以便脱离本主机验证证书；私钥不要离开",
        ),
        SigningKind::Transit => (
            "the public halves may and should lie elsewhere; the private one never leaves the key service, whose backups may be kept: if \
             it is lost, `wangchuan audit key rotate` makes another and no certificate is lost",
            "公钥可以且应当另存；私钥从不离开密钥服务，其备份可以保留：若丢失，`wangchuan audit key rotate` 会另生成一个，不丢失任何证书",
        ),
        SigningKind::Pkcs11 => (
            "the public halves may and should lie elsewhere; the private one never leaves the token, which needs no backup for it: if it \
             is lost, `wangchuan audit key rotate` makes another and no certificate is lost",
            "公钥可以且应当另存；私钥从不离开令牌，也无需为其备份：若丢失，`wangchuan audit key rotate` 会另生成一个，不丢失任何证书",
        ),
    };
    line("signing-keys", May::CopyWithin, en, zh)
}

/// A token and the wrapped roots beside it.
fn token(class: SlotClass) -> Vec<AdviceLine> {
    let token = match class {
        SlotClass::A => root_slot(class),
        SlotClass::B | SlotClass::C => line(
            "root-slot",
            May::CopyWithin,
            "backups and clones of the token can reopen what was destroyed since: keep them for as few days as you can bear",
            "令牌的备份和克隆可使其后销毁的密钥复原：保留天数应尽量少",
        ),
        SlotClass::D => line(
            "root-slot",
            May::NeverCopy,
            "a copy of the software token's storage, with its PIN, brings destroyed keys back, and is stale after the next shred. If \
             the token is lost, every backup is lost with it",
            "软件令牌存储的副本连同 PIN 会使已销毁的密钥复原，并在下次销毁后失效。若令牌丢失，所有备份随之丢失",
        ),
    };
    let wrapped = line(
        "wrapped-roots",
        May::Copy,
        "they open nothing without the token, and need no copy: each lies in the bucket as well",
        "没有令牌，它们打不开任何东西；无需复制：存储桶中另有一份",
    );
    vec![token, wrapped]
}

fn root_slot(class: SlotClass) -> AdviceLine {
    let about = "root-slot";
    match class {
        SlotClass::A => line(
            about,
            May::NeverCopy,
            "do not enable a backup or clone domain of the device: without one, what is destroyed has no known copy",
            "不要启用设备的备份或克隆域：没有它，销毁后便无已知副本",
        ),
        SlotClass::B => line(
            about,
            May::CopyWithin,
            "backups of the key service can reopen what was destroyed since: keep them for as few days as you can bear, and its log short. \
             Wrapped roots need no copy: they lie in the bucket as well, and open nothing without the service",
            "密钥服务的备份可使其后销毁的密钥复原：保留天数应尽量少，日志应尽量短。封装的根密钥无需复制：存储桶中另有一份，脱离密钥服务无法打开",
        ),
        SlotClass::C => line(
            about,
            May::NeverCopy,
            "the provider keeps the key until the date of its destruction; do not cancel one that was scheduled. Wrapped roots need no \
             copy: they lie in the bucket as well, and open nothing without the service",
            "服务商在销毁日期之前保有密钥；不要取消已安排的销毁。封装的根密钥无需复制：存储桶中另有一份，脱离密钥服务无法打开",
        ),
        SlotClass::D => line(
            about,
            May::NeverCopy,
            "a copy of the file brings destroyed keys back, and is stale after the next shred; that covers images, file-system \
             and virtual-machine snapshots of this host. If the host is lost, every backup is lost with it",
            "该文件的副本会使已销毁的密钥复原，并在下次销毁后失效；本主机的镜像、文件系统快照和虚拟机快照同理。若本主机丢失，所有备份随之丢失",
        ),
    }
}

/// `key advice`.
pub async fn show(context: &mut Context<'_>) -> CommandResult {
    let installation = context.open(Needs::STATE).await?;
    let claim = installation.keyring.slot().claim();
    let signing = installation.signer.history().in_use().map(|key| key.kind).unwrap_or_default();
    installation.close().await.map_err(task_error)?;
    let (class, lines) = (claim.class, advice(&claim, signing));
    table(context, class, &lines)?;
    context.output.document(&KeyAdviceDocument { result: Outcome::Complete, class, advice: lines })?;
    Ok(Exit::Done)
}

fn table(context: &mut Context<'_>, class: SlotClass, lines: &[AdviceLine]) -> Result<(), UserError> {
    let output = &mut *context.output;
    let lang = output.lang();
    output.say(&Words::new(format!("root slot of class {class:?}"), format!("{class:?} 级根密钥槽")))?;
    let mut grid =
        Grid::new([say(lang, "what", "对象"), say(lang, "may it be copied", "可否复制"), say(lang, "why", "原因")]);
    for line in lines {
        let (en, zh) = line.may.words();
        let (about_en, about_zh) = about_words(line.about);
        grid.row([say(lang, about_en, about_zh), say(lang, en, zh), say(lang, line.en, line.zh)]);
    }
    output.table(&grid)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_slot_gets_advice_of_its_own() {
        let classes = [SlotClass::A, SlotClass::B, SlotClass::C, SlotClass::D];
        let roots = classes.map(root_slot);
        let texts: std::collections::HashSet<&str> = roots.iter().flat_map(|line| [line.en, line.zh]).collect();
        assert_eq!(texts.len(), 2 * classes.len());
        let of_tokens = classes.map(|class| token(class).remove(0).en);
        assert_eq!(of_tokens.iter().collect::<std::collections::HashSet<_>>().len(), 3, "C is no class of a token");
        for (class, kind) in
            classes.into_iter().zip([SlotKind::Pkcs11, SlotKind::Transit, SlotKind::Transit, SlotKind::File])
        {
            let lines = advice(&SlotClaim { kind, class, ..SlotClaim::of_a_file() }, SigningKind::File);
            assert_eq!(lines.iter().any(|line| line.about == "wrapped-roots"), kind == SlotKind::Pkcs11);
            let old_copy = lines.iter().find(|line| line.about == "control-database").unwrap();
            assert_eq!(old_copy.may, May::NeverPutBack);
            for line in &lines {
                let (en, zh) = about_words(line.about);
                assert!(en != zh && !en.contains('-'), "{en} has no words of its own");
            }
        }
        let of_keys = [SigningKind::File, SigningKind::Transit, SigningKind::Pkcs11].map(|kind| signing_key(kind).en);
        assert_eq!(of_keys.iter().collect::<std::collections::HashSet<_>>().len(), 3);
        assert_eq!(root_slot(SlotClass::D).may, May::NeverCopy);
    }
}
