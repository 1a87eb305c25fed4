//! `certificate show`: what was signed, in words. Codes stay as they are beside their explanation.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, local_time};
use super::super::output::shapes::{Time, Verification};
use super::super::output::table::grouped;
use super::super::output::{Document, Exit, Grid, Output, UserError, Words, say};
use super::{Filing, Stored, find, roll_up};
use crate::certify::Said;
use crate::certify::codes::{BackupState, Limitation};
use crate::certify::statement::{Predicate, Refusal, RefusalReason, RollUpStatement, Statement, Timestamp};
use crate::config::Configuration;
use crate::control::CertificateRow;

/// The JSON of `certificate show`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShowDocument {
    /// How the erasure ended, as the certificate says: `complete`, `partial`, `nothing-found`, `refused` or `failed`.
    result: String,
    /// Its id.
    certificate: String,
    /// Its number; there are no gaps.
    sequence: i64,
    /// The run it is about.
    run: String,
    /// SHA-256 of what was signed, in hex.
    digest: String,
    /// When it was signed.
    issued_at: Time,
    /// The id of the certificate that it replaces.
    supersedes: Option<String>,
    /// The id of the certificate that replaces it.
    superseded_by: Option<String>,
    /// Whether it is filed.
    filing: Filing,
    /// When the time-stamping authority saw it, and who that is; null without a time stamp.
    time_stamp: Option<Stamped>,
    /// Whether the signature fits; with `invalid`, exit code 1.
    signature: Verification,
    /// What was signed: an in-toto Statement v1. Null when the signature does not fit.
    statement: Option<Signed>,
}

/// A time stamp, as it was verified when it came; `certificate verify` checks it again.
#[derive(Debug, Serialize, JsonSchema)]
struct Stamped {
    /// The time that the authority signed.
    at: Time,
    /// Its name, as its certificate says.
    authority: String,
}

/// A signed statement: of an erasure, or a roll-up.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Signed {
    /// What became of records, of an outside key, or of a storage medium.
    Erasure(Box<Statement>),
    /// What was certified and filed in a period.
    RollUp(Box<RollUpStatement>),
}

impl Document for ShowDocument {
    const OF: &'static [&'static str] = &["certificate show"];
}

/// Shows a certificate. One whose signature does not fit is not shown as if it said anything: exit code 1.
pub async fn show(context: &mut Context<'_>, id: &str) -> CommandResult {
    let stored = Stored::open(context).await?;
    let row = find(&stored.certificates, id)?;
    let verified = crate::certify::verify(&row.envelope, stored.installation.signer.trusted());
    let filing = Filing::of(stored.filing(&row.id));
    let successor = stored.successor(&row.id);
    let stamp = stored.stamp(&row.id);
    let output = &mut *context.output;
    match &verified {
        Ok(found) => {
            heading(output, row, &stored.installation.config)?;
            let config = &stored.installation.config;
            match &found.said {
                Said::Erasure(statement) => show_predicate(output, config, &statement.predicate)?,
                Said::RollUp(statement) => {
                    for (name, value) in roll_up::rows(config, &statement.predicate) {
                        output.say(&Words::new(format!("{}: {value}", name.en), format!("{}：{value}", name.zh)))?;
                    }
                }
            }
            output.say(&filing.words())?;
            if let Some(stamp) = stamp {
                let (at, by) = (local_time(config, stamp.at), &stamp.authority);
                output.say(&Words::new(format!("stamped {at} by {by}"), format!("{by} 于 {at} 加盖时间戳")))?;
            }
            if let Some(later) = successor {
                output.say(&Words::new(
                    format!("replaced by certificate {} (no. {})", later.id, later.sequence),
                    format!("已被证书 {}（第 {} 号）取代", later.id, later.sequence),
                ))?;
            }
        }
        Err(error) => output.line(&format!("✗ {}: {error}", row.id))?,
    }
    let is_valid = verified.is_ok();
    output.document(&ShowDocument {
        result: row.result.clone(),
        certificate: row.id.clone(),
        sequence: row.sequence,
        run: row.run.clone(),
        digest: row.digest.clone(),
        issued_at: row.issued_at.into(),
        supersedes: row.supersedes.clone(),
        superseded_by: successor.map(|later| later.id.clone()),
        filing,
        time_stamp: stamp.map(|stamp| Stamped { at: stamp.at.into(), authority: stamp.authority.clone() }),
        signature: Verification::of(is_valid),
        statement: verified.ok().map(|found| match found.said {
            Said::Erasure(statement) => Signed::Erasure(statement),
            Said::RollUp(statement) => Signed::RollUp(statement),
        }),
    })?;
    stored.close().await?;
    Ok(if is_valid { Exit::Done } else { Exit::Failed })
}

fn heading(output: &mut Output, row: &CertificateRow, config: &Configuration) -> Result<(), UserError> {
    let issued = local_time(config, row.issued_at);
    output.heading(
        &format!("Certificate no. {}, {issued}: {}", row.sequence, row.result),
        &format!("第 {} 号证书，{issued}：{}", row.sequence, row.result),
    )?;
    Ok(())
}

/// The text of a code, as it stands in the signed JSON.
pub(super) fn code<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => "?".to_owned(),
    }
}

/// Whether something is left of which nobody can say when it will be gone.
fn is_undated(predicate: &Predicate) -> bool {
    let undated = [Limitation::CopyUnread, Limitation::BackupNotCovered, Limitation::FoundAgain];
    undated.iter().any(|code| predicate.limitations.contains(code))
}

pub(super) fn show_predicate(
    output: &mut Output,
    config: &Configuration,
    predicate: &Predicate,
) -> Result<(), UserError> {
    let time = |time: Timestamp| local_time(config, time.instant());
    let trigger = code(&predicate.trigger.kind);
    let (issuer, scope) = (&predicate.issuer, &predicate.scope);
    let (started, finished) = (time(predicate.started_at), time(predicate.finished_at));
    let mut lines = vec![
        Words::new(
            format!(
                "{} · run by {} ({}), version {}",
                predicate.certificate_id, issuer.agent_id, issuer.environment, issuer.agent_version
            ),
            format!(
                "{} · 由 {}（{}）执行，版本 {}",
                predicate.certificate_id, issuer.agent_id, issuer.environment, issuer.agent_version
            ),
        ),
        Words::new(
            format!(
                "why: {trigger}; begun {started}, ended {finished}; {} of {} places reached",
                scope.targets_reached, scope.targets_declared
            ),
            format!(
                "原因：{trigger}；{started} 开始，{finished} 结束；应到 {} 处，实到 {} 处",
                scope.targets_declared, scope.targets_reached
            ),
        ),
    ];
    if let Some(checked) = predicate.absence_checked_at {
        let checked = time(checked);
        lines.push(Words::new(format!("absence last checked {checked}"), format!("最近一次核查不存在：{checked}")));
    }
    for words in lines {
        output.say(&words)?;
    }
    show_targets(output, predicate)?;
    show_rest(output, predicate)
}

fn show_targets(output: &mut Output, predicate: &Predicate) -> Result<(), UserError> {
    let lang = output.lang();
    let titles = [
        ("place", "位置"),
        ("action", "动作"),
        ("due", "到期"),
        ("erased", "删除"),
        ("anonymised", "匿名化"),
        ("kept", "保留"),
        ("failed", "失败"),
        ("checked by", "核查方式"),
        ("in backups", "备份中"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(2).right(3).right(4).right(5).right(6);
    for target in &predicate.targets {
        let numbers = [
            target.records_selected,
            target.records_erased,
            target.records_anonymized,
            target.records_retained,
            target.records_failed,
        ];
        let until = target.backups.expires_by.map_or_else(String::new, |date| format!(" ({date})"));
        let (en, zh) = in_backups(target.backups.state);
        let backups = format!("{}{until}", say(lang, en, zh));
        let words = [target.location.clone(), code(&target.action)];
        grid.row(words.into_iter().chain(numbers.map(grouped)).chain([code(&target.verification.method), backups]));
    }
    if !grid.is_empty() {
        output.table(&grid)?;
    }
    Ok(())
}

/// What became of the rows in backups: shredded is more than deleted, and pending is not gone.
pub(super) fn in_backups(state: BackupState) -> (&'static str, &'static str) {
    match state {
        BackupState::Erased => ("shredded", "密钥已销毁"),
        BackupState::Expires => ("shred-pending: still opens until", "待销毁密钥：仍可打开，直到"),
        BackupState::Chain => ("shred-pending: still opens, no date", "待销毁密钥：仍可打开，无日期"),
        BackupState::ReplayedOnRestore => ("still opens; erased again at a restore", "仍可打开；恢复时再次删除"),
        BackupState::None => ("none", "无"),
    }
}

fn show_rest(output: &mut Output, predicate: &Predicate) -> Result<(), UserError> {
    for kept in &predicate.retained {
        let (reason, records) = (code(&kept.reason_code), grouped(kept.records));
        let target = predicate.targets.iter().find(|target| target.target_id == kept.target_id);
        let place = target.map_or(kept.target_id.as_str(), |target| target.location.as_str());
        let law = kept.provision.as_deref().map_or_else(String::new, |provision| format!(", {provision}"));
        output.say(&Words::new(
            format!("kept in {place}: {records} ({reason}{law})"),
            format!("{place} 中保留：{records}（{reason}{law}）"),
        ))?;
    }
    if let Some(refusal) = &predicate.refusal {
        for words in refusal_words(refusal) {
            output.say(&words)?;
        }
    }
    if let Some(slot) = &predicate.root_slot {
        let (class, kind) = (code(&slot.class), &slot.kind);
        output.say(&Words::new(
            format!("root slot of class {class} ({kind})"),
            format!("{class} 级根密钥槽（{kind}）"),
        ))?;
        if let Some(at) = slot.irrevocable_at {
            let at = crate::control::time_text(at.instant());
            output.say(&Words::new(
                format!("its root keys cannot be used any more and are irrevocably gone from {at} on"),
                format!("其根密钥已不能使用，自 {at} 起不可恢复"),
            ))?;
        }
    }
    if let Some(since) = predicate.final_since {
        let day = since.instant().date_naive();
        output.say(&Words::new(
            format!("final since {day}: the date of every copy that is known is past"),
            format!("自 {day} 起终结：所有已知副本的期限均已过"),
        ))?;
    }
    if let Some(key) = &predicate.outside_key {
        let (name, class, kind, fields) = (&key.name, code(&key.class), &key.kind, key.fields.join(", "));
        output.say(&Words::new(
            format!("outside key {name} ({kind}, class {class}), which sealed {fields}, is gone"),
            format!("外部密钥 {name}（{kind}，{class} 级）已销毁，它加密的字段为 {fields}"),
        ))?;
    }
    show_media(output, predicate)?;
    match predicate.residual_date {
        // Nothing was to go.
        None if predicate.refusal.is_some() => {}
        Some(date) => output.say(&Words::new(
            format!("residual date: {date}; by then the last of it is to be unreadable"),
            format!("残留日期：{date}，届时最后一部分也应无法读取"),
        ))?,
        None if is_undated(predicate) => output.say(&Words::new(
            "residual date: none can be named; what has no date stands below",
            "残留日期：无法给出；没有期限的内容见下",
        ))?,
        None => output.say(&Words::new("residual date: none outstanding", "残留日期：无"))?,
    }
    if !predicate.limitations.is_empty() {
        output.heading("What it does not claim:", "本证书不作的保证：")?;
    }
    for limitation in &predicate.limitations {
        let (en, zh) = explain(*limitation);
        let name = code(limitation);
        output.say(&Words::new(format!("  {name}: {en}"), format!("  {name}：{zh}")))?;
    }
    Ok(())
}

/// Why nothing of a request was carried out, and what becomes of it.
pub(super) fn refusal_words(refusal: &Refusal) -> Vec<Words> {
    let reasons = refusal.reasons.iter().map(|reason| {
        let (name, (en, zh)) = (reason.name(), explain_refusal(*reason));
        Words::new(format!("refused: {en} ({name})"), format!("未予删除：{zh}（{name}）"))
    });
    let mut all: Vec<Words> = reasons.collect();
    match (refusal.waits, refusal.looked_at_again) {
        (true, Some(day)) => all.push(Words::new(
            format!(
                "the request stays open; the first statutory period ends on {day}, and it is carried out by itself then"
            ),
            format!("请求仍在等待；首个法定期限于 {day} 届满，届时自动执行"),
        )),
        (true, None) => all.push(Words::new(
            "the request stays open, and is carried out by itself when what keeps the rows has ended",
            "请求仍在等待，保留原因消除后自动执行",
        )),
        (false, _) => all.push(Words::new("the request is closed", "请求已结束")),
    }
    all
}

fn explain_refusal(reason: RefusalReason) -> (&'static str, &'static str) {
    match reason {
        RefusalReason::Hold => ("a legal hold covers it", "受法律保留令约束"),
        RefusalReason::Statute => ("a statute keeps it until its period ends", "法定保存期尚未届满"),
        RefusalReason::Needed => ("rows of somebody else need it", "他人的数据依赖于它"),
        RefusalReason::StartUnknown => ("the start of its period is unknown or to come", "期限起点未知或尚未到来"),
        RefusalReason::SmallGroup => ("too few rows have the same values", "相同取值的行数过少"),
        RefusalReason::PolicyEdited => ("its policy was edited lately", "其策略近期有改动"),
        RefusalReason::Withdrawn => ("whoever asked withdrew the request", "请求人已撤回请求"),
        RefusalReason::NotIdentified => ("nobody could tell who asked", "无法核实请求人身份"),
        RefusalReason::Unfounded => ("the request is manifestly unfounded or excessive", "请求明显无理或过度"),
        RefusalReason::Exempt => ("an exception of the law lets the company keep the data", "依法例外，可继续保存"),
        RefusalReason::Duplicate => ("the same was asked for before", "与此前的请求重复"),
    }
}

/// The medium that it is about, and copies that ended with one.
fn show_media(output: &mut Output, predicate: &Predicate) -> Result<(), UserError> {
    if let (Some(medium), Some(target)) = (&predicate.medium, predicate.targets.first()) {
        let (kind, how, what) = (medium.kind.name(), medium.technique.name(), code(&target.sanitization));
        let (seen, copies) = (medium.witnesses.len(), medium.copies.join(", "));
        let name =
            target.media.as_ref().map_or_else(String::new, |media| format!("{} {}", media.asset_tag, media.serial));
        output.say(&Words::new(
            format!(
                "medium {name} ({kind}): {what} by {how}, seen by {seen} witnesses; copies that ended with it: {copies}"
            ),
            format!("介质 {name}（{kind}）：以 {how} 达到 {what}，见证人 {seen} 名；随之消失的副本：{copies}"),
        ))?;
    }
    if let (Some(lost), Some(target)) = (&predicate.lost_medium, predicate.targets.first()) {
        let (kind, gone, all) = (lost.kind.name(), lost.chains_destroyed, lost.chains);
        let name =
            target.media.as_ref().map_or_else(String::new, |media| format!("{} {}", media.asset_tag, media.serial));
        output.say(&Words::new(
            format!(
                "lost medium {name} ({kind}): {gone} of {all} chains of snapshots that could lie on it open no more"
            ),
            format!("遗失的介质 {name}（{kind}）：其上可能存在的 {all} 条快照链中，{gone} 条已无法打开"),
        ))?;
    }
    let mut told = std::collections::BTreeSet::new();
    for copy in predicate.targets.iter().flat_map(|target| &target.copies) {
        let Some((record, at)) = copy.media_record.as_ref().zip(copy.destroyed_at) else { continue };
        if told.insert((&copy.copy_ref, record)) {
            let (name, day) = (&copy.copy_ref, at.instant().date_naive());
            output.say(&Words::new(
                format!("copy {name}: destroyed with its medium on {day}, record {record}"),
                format!("副本 {name}：已于 {day} 随介质销毁，记录 {record}"),
            ))?;
        }
    }
    Ok(())
}

/// What the class of a root slot means.
fn explain_slot(limitation: Limitation) -> (&'static str, &'static str) {
    match limitation {
        Limitation::RootSlotClassB => (
            "the root key was destroyed in the key service or token; an older copy of it, with what opens it, could bring it back",
            "根密钥已在密钥服务或令牌中销毁；但其旧副本连同解封密钥或 PIN 可能使其复原",
        ),
        Limitation::RootSlotClassA => (
            "the root key was destroyed in a device; that it has no backups is its operator's word, that no key leaves it its maker's",
            "根密钥已在设备中销毁；设备没有备份是使用者的声明，密钥不可导出是厂商的保证",
        ),
        Limitation::RootSlotClassC => (
            "the root key is destroyed at a date; until then its destruction can be called off, and then the provider's word is all there is",
            "根密钥在指定日期销毁；在此之前可被撤回，之后也只能凭服务商的承诺",
        ),
        _ => (
            "the root key was in a file or a software token, any copy of which could bring it back",
            "根密钥存于文件或软件令牌中，其任何副本都可能使其复原",
        ),
    }
}

/// What the way of filing cannot prove.
fn explain_filing(limitation: Limitation) -> (&'static str, &'static str) {
    match limitation {
        Limitation::FiledWithoutReceipt => (
            "it is sent to a webhook, which gives no receipt: nothing proves that it was filed",
            "发送至网络回调，没有回执：无法证明其已存证",
        ),
        Limitation::FiledWithoutLog => (
            "it is sent to a webhook that signs for it and keeps no log: when it was filed is the signer's word",
            "发送至网络回调，对方签名确认但没有日志：何时存证仅凭签名方的说法",
        ),
        _ => ("the log is run by the audited party itself, without a witness", "日志由被审计方自己运行，没有见证人"),
    }
}

/// What is said of declared copies.
fn explain_copies(limitation: Limitation) -> (&'static str, &'static str) {
    match limitation {
        Limitation::CopyDeclared => {
            ("a declared further copy dies by its own date", "另有声明的副本，按其自身日期失效")
        }
        _ => ("a declared copy or replica was not read", "有声明的副本未被读取"),
    }
}

/// What the files of a store may still hold.
fn explain_files(limitation: Limitation) -> (&'static str, &'static str) {
    match limitation {
        Limitation::ResiduePending => (
            "deleted rows still stand in the database's own files until something there passes; another certificate will follow",
            "已删除的行因数据库中尚未结束的事务或读取仍留在其文件中；清除后将另发证书",
        ),
        _ => (
            "deleted rows may still stand in the database's own log or free pages",
            "已删除的行可能仍在数据库自身的日志或空闲页中",
        ),
    }
}

/// What a record of a medium cannot show.
fn explain_medium(limitation: Limitation) -> (&'static str, &'static str) {
    match limitation {
        Limitation::MediumUnverified => {
            ("nobody looked whether the medium holds nothing any more", "没有人核查介质上是否已无数据")
        }
        _ => (
            "what lay on the medium, and what became of the medium itself, is the word of the people named; this program has not seen it",
            "介质上有何数据、介质本身的去向，均为所列人员的陈述；本程序未曾目睹",
        ),
    }
}

/// What a limitation means.
pub(super) fn explain(limitation: Limitation) -> (&'static str, &'static str) {
    match limitation {
        Limitation::KeyShredPending => ("the keys of the backups die later", "备份的密钥稍后才销毁"),
        Limitation::RootSlotClassA
        | Limitation::RootSlotClassB
        | Limitation::RootSlotClassC
        | Limitation::RootSlotClassD => explain_slot(limitation),
        Limitation::NotOffSite => ("the backups stand at the same place as the store", "备份与数据源在同一地点"),
        Limitation::IdentityNotChecked => ("who asked was not identified", "没有核实请求人的身份"),
        Limitation::ResidualInDatabaseLog | Limitation::ResiduePending => explain_files(limitation),
        Limitation::CopyDeclared | Limitation::CopyUnread => explain_copies(limitation),
        Limitation::RowsRetained => ("rows were kept, with reasons", "有行被保留，附有理由"),
        Limitation::SelfHostedUnwitnessed | Limitation::FiledWithoutReceipt | Limitation::FiledWithoutLog => {
            explain_filing(limitation)
        }
        Limitation::ReadReplicaLag => ("a read replica may lag behind", "只读副本可能滞后"),
        Limitation::BackupNotCovered => {
            ("there are backups that this program did not make and cannot reach", "存在非本程序所做、也无法触及的备份")
        }
        Limitation::RowsFailed => ("some rows failed and are still there", "有行处理失败，仍然存在"),
        Limitation::TargetsUnreached => ("some places were not reached", "有些位置未能到达"),
        Limitation::LookupKeyNotRotated => (
            "whoever holds old copies of the control database and the present root key can confirm that an id was known",
            "持有旧控制数据库副本和现行根密钥的人，可以确认某个标识曾经存在",
        ),
        Limitation::NoBackup => ("no backup is configured for the store", "该数据源没有配置备份"),
        Limitation::ClockUnverified => ("the clock was not compared with another source", "时钟没有与其他来源比对"),
        Limitation::VerificationNotIndependent => {
            ("absence was checked through the session that deleted", "核查与删除使用了同一会话")
        }
        Limitation::TablesNotRegistered => (
            "tables of the store seem to hold data of customers and are not registered: nothing was erased from them",
            "数据源中有未登记的表疑似含有客户数据，其中未擦除任何内容",
        ),
        Limitation::FoundAgain => (
            "a later look found rows again that had been erased; how many, each place says (`residualFound`)",
            "事后核查发现已擦除的行重新出现；各位置的数量见 `residualFound`",
        ),
        Limitation::ErasureUndone => (
            "the erasure was undone within its grace: what counts as kept lives again",
            "该擦除在宽限期内被撤销：计为保留的行已恢复",
        ),
        Limitation::OutsideKeyClassB => (
            "the application's key was destroyed in the key service; an older copy of that service, with its unseal keys, could bring it back",
            "应用的密钥已在密钥服务中销毁；但该服务的旧副本连同解封密钥可能使其复原",
        ),
        Limitation::OutsideKeyClassC => (
            "the application's key was deleted by a cloud provider at a date; until then that could be called off, and its word is all there is",
            "应用的密钥由云服务商在指定日期删除；此前可被撤回，且仅以服务商的答复为凭",
        ),
        Limitation::OutsideKeyClassD => (
            "the application's key was removed, and may lie outside of the key service",
            "应用的密钥已移除，但可能存在于密钥服务之外",
        ),
        Limitation::OutsideKeyDeclared => (
            "that the fields were sealed under this key alone, and since when, is what the operator declared",
            "字段仅由该密钥加密及其起始时间，均为运营者的声明",
        ),
        Limitation::OutsideKeyGoneBefore => {
            ("somebody else had destroyed the key before the agent did", "在代理销毁之前，该密钥已被他人销毁")
        }
        Limitation::MediumDeclared | Limitation::MediumUnverified => explain_medium(limitation),
        Limitation::FieldOnceInClear => (
            "the fields were once stored in clear; the end of their key does not erase what was stored then",
            "字段曾以明文存储；销毁密钥并不能擦除当时存储的内容",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limitation_is_explained_differently_in_both_languages() {
        let texts = Limitation::ALL.iter().flat_map(|limitation| {
            let (en, zh) = explain(*limitation);
            [en, zh]
        });
        assert_eq!(texts.collect::<std::collections::HashSet<_>>().len(), 2 * Limitation::ALL.len());
    }

    #[test]
    fn every_reason_of_a_refusal_is_explained_differently_and_named_as_it_is_signed() {
        let all = RefusalReason::ALL;
        let texts = all.iter().flat_map(|reason| {
            let (en, zh) = explain_refusal(*reason);
            [en, zh]
        });
        assert_eq!(texts.collect::<std::collections::HashSet<_>>().len(), 2 * all.len());
        assert!(all.iter().all(|reason| code(reason) == reason.name()));
    }

    #[test]
    fn codes_are_written_as_they_are_signed() {
        assert_eq!(code(&Limitation::RootSlotClassD), "ROOT_SLOT_CLASS_D");
        assert_eq!(code(&crate::certify::codes::BackupState::ReplayedOnRestore), "replayed-on-restore");
    }
}
