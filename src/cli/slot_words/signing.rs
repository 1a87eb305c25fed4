//! The same for the key that signs certificates.

use super::super::output::Words;
use crate::keys::signing::SigningError;

/// What to do about an error. What is to be signed waits meanwhile, under the number that was reserved for it.
pub fn advice(error: &SigningError) -> Words {
    match error {
        SigningError::Slot(slot) => match super::advice(slot) {
            // The same places in the same words, under another section.
            Some(words) => Words::new(words.en.replace("[root]", "[signing]"), words.zh.replace("[root]", "[signing]")),
            None => Words::new("see `wangchuan doctor`; nothing was lost", "请看 `wangchuan doctor`；没有丢失任何数据"),
        },
        SigningError::KeyGone { .. } | SigningError::OtherKey { .. } => Words::new(
            "if it cannot be brought back, run `wangchuan audit key rotate`: what it signed stays good. Find out who did that. Nothing was \
             lost, certificates wait",
            "若无法恢复，请运行 `wangchuan audit key rotate`：其已签名的内容继续有效。请查明是谁所为。没有丢失任何数据，证书等待签发",
        ),
        SigningError::SwitchedOff { name, .. } => {
            let version = name.rsplit('/').next().unwrap_or(name);
            Words::new(
                format!(
                    "set min_encryption_version of the key to {version} or less, or run `wangchuan audit key rotate`; nothing was lost"
                ),
                format!(
                    "请把该密钥的 min_encryption_version 改为不大于 {version}，或运行 `wangchuan audit key rotate`；没有丢失任何数据"
                ),
            )
        }
        SigningError::Unfit { .. } => Words::new(
            "make a key as config/default.toml asks for under [signing] (config/openbao-policy.hcl says how in a key service), and name it \
             there; nothing was lost",
            "请按 config/default.toml 中 [signing] 的要求生成密钥（密钥服务的做法见 config/openbao-policy.hcl）并写入配置；没有丢失任何数据",
        ),
        SigningError::Elsewhere { .. } => Words::new(
            "correct [signing], or run `wangchuan audit key rotate`, which makes the next key where it leads now; nothing was lost",
            "请更正 [signing]，或运行 `wangchuan audit key rotate`，在其现在所指之处生成下一个密钥；没有丢失任何数据",
        ),
        SigningError::File(_) => Words::new(
            "bring the file back, or move it away and run `wangchuan recover`; nothing was lost",
            "请恢复该文件，或将其移走后运行 `wangchuan recover`；没有丢失任何数据",
        ),
        SigningError::Record(_) => Words::new(
            "this control database may have been tampered with: see `wangchuan audit key list` and `wangchuan audit verify`",
            "控制数据库可能被篡改：请看 `wangchuan audit key list` 和 `wangchuan audit verify`",
        ),
        SigningError::Replaced => Words::new(
            "start the agent or the command again: it takes the key that is in use; nothing was lost",
            "请重新启动该代理或命令，它将使用现行密钥；没有丢失任何数据",
        ),
        SigningError::TooEarly(_) => Words::new("set the clock right; certificates wait", "请校准时钟；证书等待签发"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::slot::SlotError;

    #[test]
    fn advice_leads_to_the_section_of_the_signing_key() {
        let down = SlotError::Unavailable { place: "p".to_owned(), what: "down".to_owned() };
        let words = advice(&SigningError::Slot(down));
        assert!(words.en.contains("[signing]") && !words.en.contains("[root]"), "{}", words.en);
        assert!(words.zh.contains("[signing]") && !words.zh.contains("[root]"), "{}", words.zh);
    }
}
