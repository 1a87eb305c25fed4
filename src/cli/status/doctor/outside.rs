//! What `doctor` looks at of outside keys: whether their service answers, has the key, and grants what is needed and no more.

use chrono::{DateTime, Utc};

use super::super::super::context::task_error;
use super::super::super::output::Words;
use super::super::super::slot_words::shortcoming;
use super::Findings;
use crate::config::{BoundTo, OutsideKey};
use crate::control::time_text;
use crate::installation::Installation;
use crate::keyring::KeyringError;
use crate::keys::slot::{Shortcoming, SlotError};
use crate::policy::registry::SecretText;
use crate::tasks::outside::{list_outside_keys, spec_of};

/// A key that nobody has: shows whether the service answers for the keys of an entry for subjects.
const NOBODYS: &str = "wangchuan-doctor";

/// One line for each entry of the configuration, and more for what is wrong with it.
pub async fn check_outside_keys(installation: &Installation, findings: &mut Findings) {
    for spec in &installation.config.outside_keys {
        match look(installation, spec).await {
            Ok(seen) => tell(installation, spec, &seen, findings).await,
            Err(error) => {
                let what = format!("{}: {error}", spec.name);
                let advice = Words::new(
                    "check its [[outside_key]] in the configuration, the service and its policy; nothing is destroyed until then",
                    "请检查配置中的 [[outside_key]]、密钥服务及其策略；在此之前不会销毁",
                );
                findings.missing("outside key", Words::new(what.clone(), what), advice);
            }
        }
    }
}

/// What a look at the service found.
struct Seen {
    is_there: bool,
    /// When the service deletes it, if that is ordered.
    deleted_at: Option<DateTime<Utc>>,
    found: Vec<Shortcoming>,
}

async fn tell(installation: &Installation, spec: &OutsideKey, seen: &Seen, findings: &mut Findings) {
    let (name, kind) = (&spec.name, "outside key");
    let ended = has_row_in(installation, spec, &["doomed", "destroyed"]).await;
    let is_gone = !seen.is_there && matches!(spec.bound, BoundTo::Policy { .. });
    if let Some(at) = seen.deleted_at {
        let at = time_text(at);
        if ended {
            findings.good(
                kind,
                format!("{name}: opens nothing any more, irrevocably gone at {at}"),
                format!("{name}：已不能使用，{at} 起不可恢复"),
            );
        } else {
            findings.missing(
                kind,
                Words::new(
                    format!("{name}: somebody else has it deleted at {at}, and rows may rely on it"),
                    format!("{name}：他人已安排在 {at} 删除，而仍可能有行依赖它"),
                ),
                Words::new("let whoever may do so call that off before then", "请有权者在此之前撤回"),
            );
        }
    } else if is_gone && !ended {
        findings.missing(
            kind,
            Words::new(format!("{name}: the key service has no such key"), format!("{name}：密钥服务中没有该密钥")),
            Words::new("correct `key` in its [[outside_key]]", "请更正其 [[outside_key]] 中的 `key`"),
        );
    } else if seen.found.is_empty() {
        findings.good(kind, format!("{name}: ready"), format!("{name}：就绪"));
    }
    for (what, advice) in seen.found.iter().map(|found| words(found, spec)) {
        let what = Words::new(format!("{name}: {}", what.en), format!("{name}：{}", what.zh));
        findings.missing(kind, what, advice);
    }
}

/// A shortcoming, with the policy file that is for these keys.
fn words(found: &Shortcoming, spec: &OutsideKey) -> (Words, Words) {
    let file = spec.access.policy_file();
    let (what, advice) = shortcoming(found);
    let advice = match found {
        Shortcoming::ExcessRight { .. } => {
            Words::new(format!("give it the policy of {file} and no other"), format!("请只授予 {file} 中的策略"))
        }
        _ => advice,
    };
    (what, advice)
}

async fn look(installation: &Installation, spec: &OutsideKey) -> crate::tasks::Result<Seen> {
    let slot = |error: SlotError| KeyringError::from(error);
    let service = installation.outside_keys(spec)?;
    let key = match &spec.bound {
        BoundTo::Policy { key, .. } => key.clone(),
        BoundTo::Subjects => SecretText::new(NOBODYS.to_owned()),
    };
    let found = service.shortcomings(&key).await.map_err(slot)?;
    // A right that is missing is told by itself; looking would only repeat it.
    let may_look = !found.iter().any(|found| matches!(found, Shortcoming::MissingRight { capability: "read", .. }));
    if !may_look {
        return Ok(Seen { is_there: true, deleted_at: None, found });
    }
    let facts = service.look(&key, None).await.map_err(slot)?;
    Ok(Seen { is_there: facts.is_some(), deleted_at: facts.and_then(|facts| facts.deleted_at), found })
}

/// Whether the agent has brought a key of the entry to one of these states: then it is as it should be.
async fn has_row_in(installation: &Installation, spec: &OutsideKey, states: &[&str]) -> bool {
    let read = async {
        let mut tx = installation.control.read().await?;
        list_outside_keys(&mut tx).await
    };
    let all = match read.await {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!(error = %task_error(error), "the records of outside keys could not be read");
            return false;
        }
    };
    let is_its = |row| spec_of(&installation.config, row).is_some_and(|found| found.name == spec.name);
    all.iter().any(|state| states.contains(&state.row.state.as_str()) && is_its(&state.row))
}
