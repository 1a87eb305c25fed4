//! What `doctor` looks at of outside keys: whether their service answers, has the key, and grants what is needed and no more.

use super::super::super::context::task_error;
use super::super::super::output::Words;
use super::super::super::slot_words::shortcoming;
use super::Findings;
use crate::config::{BoundTo, OutsideKey};
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
            Ok((is_there, found)) => {
                let is_gone = !is_there && matches!(spec.bound, BoundTo::Policy { .. });
                if is_gone && !was_destroyed(installation, spec).await {
                    findings.missing(
                        "outside key",
                        Words::new(
                            format!("{}: the key service has no such key", spec.name),
                            format!("{}：密钥服务中没有该密钥", spec.name),
                        ),
                        Words::new("correct `key` in its [[outside_key]]", "请更正其 [[outside_key]] 中的 `key`"),
                    );
                } else if found.is_empty() {
                    let name = &spec.name;
                    findings.good("outside key", format!("{name}: ready"), format!("{name}：就绪"));
                }
                for (what, advice) in found.iter().map(words) {
                    let what = Words::new(format!("{}: {}", spec.name, what.en), format!("{}：{}", spec.name, what.zh));
                    findings.missing("outside key", what, advice);
                }
            }
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

/// A shortcoming, with the policy file that is for these keys.
fn words(found: &Shortcoming) -> (Words, Words) {
    let (what, advice) = shortcoming(found);
    let advice = match found {
        Shortcoming::ExcessRight { .. } => Words::new(
            "give it the policy of config/openbao-outside-policy.hcl and no other",
            "请只授予 config/openbao-outside-policy.hcl 中的策略",
        ),
        _ => advice,
    };
    (what, advice)
}

async fn look(installation: &Installation, spec: &OutsideKey) -> crate::tasks::Result<(bool, Vec<Shortcoming>)> {
    let slot = |error: SlotError| KeyringError::from(error);
    let service = installation.outside_keys(spec)?;
    let key = match &spec.bound {
        BoundTo::Policy { key, .. } => key.clone(),
        BoundTo::Subjects => SecretText::new(NOBODYS.to_owned()),
    };
    let found = service.shortcomings(&key).await.map_err(slot)?;
    // A right that is missing is told by itself; looking would only repeat it.
    let may_look = !found.iter().any(|found| matches!(found, Shortcoming::MissingRight { capability: "read", .. }));
    let is_there = !may_look || service.look(&key).await.map_err(slot)?.is_some();
    Ok((is_there, found))
}

/// Whether the agent destroyed it: then it is as it should be.
async fn was_destroyed(installation: &Installation, spec: &OutsideKey) -> bool {
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
    all.iter().any(|state| state.row.state == "destroyed" && is_its(&state.row))
}
