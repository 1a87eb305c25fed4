//! `key verify`: tries again whether what was destroyed stays destroyed.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::backup::{open_bucket, while_renewing};
use super::super::context::{Context, task_error};
use super::super::output::shapes::Verification;
use super::super::output::table::grouped;
use super::super::output::{Document, Exit, Output, UserError, Words};
use crate::keys::slot::{SlotClaim, SlotClass, SlotKind};
use crate::tasks::key_check::{KeyCheck, check_keys};

/// What `key verify --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeyVerifyDocument {
    /// `valid`, or `invalid` with exit code 1.
    result: Verification,
    /// What destruction in the root slot is worth.
    class: SlotClass,
    /// How long a destroyed key may still lie somewhere: `none-known`, `copies-of-the-service`, `until-irrevocable`,
    /// `copies-of-the-host` or `copies-of-the-token`.
    horizon: &'static str,
    #[serde(flatten)]
    check: KeyCheck,
}

impl Document for KeyVerifyDocument {
    const OF: &'static [&'static str] = &["key verify"];
}

impl KeyVerifyDocument {
    fn of(claim: &SlotClaim, check: KeyCheck) -> Self {
        let horizon = match (claim.class, claim.kind) {
            (SlotClass::A, _) => "none-known",
            (SlotClass::B | SlotClass::D, SlotKind::Pkcs11) => "copies-of-the-token",
            (SlotClass::B, _) => "copies-of-the-service",
            (SlotClass::C, _) => "until-irrevocable",
            (SlotClass::D, _) => "copies-of-the-host",
        };
        Self { result: Verification::of(check.problems.is_empty()), class: claim.class, horizon, check }
    }
}

/// `key verify`.
pub async fn verify(context: &mut Context<'_>) -> CommandResult {
    let installation = open_bucket(context).await?;
    let check = while_renewing(&installation, check_keys(&installation)).await.map_err(task_error)?;
    let claim = installation.keyring.slot().claim();
    let document = KeyVerifyDocument::of(&claim, check);
    show(context.output, &document, &claim)?;
    context.output.document(&document)?;
    installation.close().await.map_err(task_error)?;
    Ok(if document.result == Verification::Valid { Exit::Done } else { Exit::Failed })
}

/// What was tried, and what came of it.
fn lines(check: &KeyCheck) -> [Words; 4] {
    let number = |count: u64| grouped(count);
    let (gone, generation) = (check.roots_gone.len(), check.generation);
    [
        Words::new(
            format!("generation {generation}; roots of {gone} earlier generations read back as gone"),
            format!("第 {generation} 代；{gone} 个旧代的根密钥经复查已不存在"),
        ),
        Words::new(
            format!(
                "{} crowns of earlier generations tried with every root: {} opened",
                check.crowns_tried, check.crowns_opened
            ),
            format!("用全部根密钥尝试 {} 个旧树冠：打开 {}", check.crowns_tried, check.crowns_opened),
        ),
        Words::new(
            format!(
                "key tree: {} nodes open, {} left over, {} damaged; {} destroyed slots are empty, {} in use hold a key",
                number(check.nodes_opened),
                check.nodes_left_over,
                check.nodes_damaged,
                number(check.slots_empty),
                number(check.slots_living)
            ),
            format!(
                "密钥树：{} 个节点可打开，{} 个残留，{} 个损坏；{} 个已销毁的槽为空，{} 个在用的槽有密钥",
                number(check.nodes_opened),
                check.nodes_left_over,
                check.nodes_damaged,
                number(check.slots_empty),
                number(check.slots_living)
            ),
        ),
        Words::new(
            format!(
                "{} shredded frames of {} snapshots tried with {} keys each: {} opened",
                number(check.frames_tried),
                check.snapshots,
                number(check.keys_tried),
                check.frames_opened
            ),
            format!(
                "{} 个快照中的 {} 个已销毁帧，各用 {} 个密钥尝试：打开 {}",
                check.snapshots,
                number(check.frames_tried),
                number(check.keys_tried),
                check.frames_opened
            ),
        ),
    ]
}

fn show(output: &mut Output, document: &KeyVerifyDocument, claim: &SlotClaim) -> Result<(), UserError> {
    let check = &document.check;
    for words in &lines(check) {
        output.say(words)?;
    }
    super::show_claim(output, claim)?;
    if let Some(at) = &check.irrevocable_at {
        output.say(&Words::new(
            format!("an earlier root is irrevocably gone only at {at}"),
            format!("旧根密钥到 {at} 才不可恢复"),
        ))?;
    }
    if check.outside_keys_replaced > 0 {
        let count = check.outside_keys_replaced;
        output.say(&Words::new(
            format!("{count} destroyed outside keys were not looked at: their entries name other keys by now"),
            format!("{count} 个已销毁的外部密钥未复查：其配置项现在指向别的密钥"),
        ))?;
    }
    for problem in &check.problems {
        output.line(&format!("✗ {problem}"))?;
    }
    output.say(&if document.result == Verification::Valid {
        Words::new("✓ valid: what was destroyed stays destroyed", "✓ 有效：已销毁的仍然不可恢复")
    } else {
        Words::new("✗ invalid", "✗ 无效")
    })?;
    Ok(())
}
