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
use crate::tasks::key_check::{KeyCheck, WrappedRootPlace, check_keys};

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
    /// For how many days after a destruction that is, where it is not a date (`irrevocable_at`); null where nobody can say.
    residual_days: Option<u32>,
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
        Self {
            result: Verification::of(check.problems.is_empty()),
            class: claim.class,
            horizon,
            residual_days: claim.residual_days,
            check,
        }
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

/// What became of the wrapped roots: how many of each place were refused, and each that opened.
fn wrapped_lines(check: &KeyCheck) -> Vec<Words> {
    let mut lines = Vec::new();
    for (place, en, zh) in [
        (WrappedRootPlace::Bucket, "in the bucket", "存储桶中"),
        (WrappedRootPlace::Slot, "in the slot's folder", "密钥槽目录中"),
    ] {
        let of_place = || check.wrapped_roots.iter().filter(|root| root.lies == place);
        let opened: Vec<String> =
            of_place().filter(|root| root.opened).map(|root| root.generation.to_string()).collect();
        let (tried, refused) = (of_place().count(), of_place().filter(|root| !root.opened).count());
        if tried == 0 {
            continue;
        }
        let opened = if opened.is_empty() { "-".to_owned() } else { opened.join(", ") };
        lines.push(Words::new(
            format!("{tried} wrapped roots {en} tried at the slot: {refused} refused; opened: generation {opened}"),
            format!("{zh}的 {tried} 个已包裹根密钥已在密钥槽上尝试：拒绝 {refused} 个；打开：第 {opened} 代"),
        ));
    }
    lines
}

/// How long a destroyed key may still lie somewhere: in days, until a date, or that nobody can say.
fn horizon_words(document: &KeyVerifyDocument) -> Words {
    let KeyVerifyDocument { class, horizon, residual_days, check, .. } = document;
    if let Some(at) = &check.irrevocable_at {
        return Words::new(
            format!("horizon of class {class:?}: an earlier root is irrevocably gone only at {at}"),
            format!("{class:?} 级的期限：旧根密钥到 {at} 才不可恢复"),
        );
    }
    let (en, zh) = horizon_place(horizon);
    match (*horizon, residual_days) {
        ("until-irrevocable", _) => Words::new(
            format!("horizon of class {class:?}: no destruction waits for its date"),
            format!("{class:?} 级的期限：没有等待生效日期的销毁"),
        ),
        (_, Some(days)) => Words::new(
            format!("horizon of class {class:?}: {days} days after a destruction, by then {en} are gone"),
            format!("{class:?} 级的期限：销毁后 {days} 天，届时{zh}不复存在"),
        ),
        ("none-known", None) => {
            Words::new(format!("horizon of class {class:?}: no copy known"), format!("{class:?} 级的期限：未知有副本"))
        }
        (_, None) => Words::new(
            format!("horizon of class {class:?}: no date can be given, because nothing is known of {en}"),
            format!("{class:?} 级的期限：无法给出日期，因为无从得知{zh}"),
        ),
    }
}

/// Whose copies a horizon is about.
fn horizon_place(horizon: &str) -> (&'static str, &'static str) {
    match horizon {
        "copies-of-the-service" => ("copies of the key service", "密钥服务的副本"),
        "copies-of-the-token" => ("copies of the token", "令牌的副本"),
        _ => ("copies of this host", "本主机的副本"),
    }
}

fn show(output: &mut Output, document: &KeyVerifyDocument, claim: &SlotClaim) -> Result<(), UserError> {
    let check = &document.check;
    for words in &lines(check) {
        output.say(words)?;
    }
    for words in wrapped_lines(check) {
        output.say(&words)?;
    }
    super::show_claim(output, claim)?;
    output.say(&horizon_words(document))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::slot::{ClaimSentence, Residual};
    use crate::tasks::key_check::WrappedRootCheck;

    fn claim(kind: SlotKind, class: SlotClass, residual_days: Option<u32>) -> SlotClaim {
        let (sentence, residuals) = (ClaimSentence::LogicalRemovalOnly, vec![Residual::MemoryCapture]);
        SlotClaim { kind, class, sentence, residuals, residual_days }
    }

    #[test]
    fn the_horizon_is_days_or_a_date_or_said_to_be_unknown() {
        let date = "2026-12-01T00:00:00Z";
        for (claim, until, expected) in [
            (claim(SlotKind::Transit, SlotClass::B, Some(7)), None, "class B: 7 days after a destruction"),
            (claim(SlotKind::AwsKms, SlotClass::C, Some(0)), Some(date), "only at 2026-12-01T00:00:00Z"),
            (claim(SlotKind::AwsKms, SlotClass::C, Some(0)), None, "no destruction waits"),
            (claim(SlotKind::Pkcs11, SlotClass::A, None), None, "class A: no copy known"),
            (
                claim(SlotKind::File, SlotClass::D, None),
                None,
                "class D: no date can be given, because nothing is known of copies of this host",
            ),
        ] {
            let check = KeyCheck { irrevocable_at: until.map(str::to_owned), ..KeyCheck::default() };
            let document = KeyVerifyDocument::of(&claim, check);
            let words = horizon_words(&document);
            assert!(words.en.contains(expected) && !words.zh.is_empty(), "{}: {expected}", words.en);
            assert_eq!(
                serde_json::to_value(&document).unwrap()["residual_days"],
                serde_json::json!(claim.residual_days)
            );
        }
    }

    #[test]
    fn wrapped_roots_are_counted_by_place_and_those_that_opened_are_named() {
        let root = |generation, lies, opened| WrappedRootCheck { generation, lies, opened };
        let (bucket, slot) = (WrappedRootPlace::Bucket, WrappedRootPlace::Slot);
        let wrapped_roots =
            vec![root(1, bucket, false), root(2, bucket, false), root(3, bucket, true), root(3, slot, true)];
        let lines = wrapped_lines(&KeyCheck { wrapped_roots, ..KeyCheck::default() });
        let en: Vec<&str> = lines.iter().map(|words| &*words.en).collect();
        assert_eq!(
            en,
            [
                "3 wrapped roots in the bucket tried at the slot: 2 refused; opened: generation 3",
                "1 wrapped roots in the slot's folder tried at the slot: 0 refused; opened: generation 3",
            ]
        );
        assert!(wrapped_lines(&KeyCheck::default()).is_empty(), "a root that lies in its slot has no wrapped form");
    }
}
