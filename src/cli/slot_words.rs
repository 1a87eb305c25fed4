//! What to do when a root slot fails, in words for people.

pub mod signing;
mod token;

use super::output::Words;
use crate::keys::slot::{KeyTrouble, Shortcoming, SlotError};

/// What to do about an error; none where the general advice is as good.
pub fn advice(error: &SlotError) -> Option<Words> {
    let words = |en: &str, zh: &str| Some(Words::new(en, zh));
    match error {
        SlotError::Missing { .. } => Some(without_root()),
        SlotError::Denied { path, capability, .. } => Some(Words::new(
            format!("add to its policy: path \"{path}\" {{ capabilities = [\"{capability}\"] }}; nothing was lost"),
            format!("请在其策略中加入：path \"{path}\" {{ capabilities = [\"{capability}\"] }}；没有丢失任何数据"),
        )),
        SlotError::Sealed { .. } => {
            words("unseal the key service, then try again; nothing was lost", "请解封密钥服务后重试；没有丢失任何数据")
        }
        SlotError::NotAuthenticated { .. } => words(
            "give the agent a new token or secret id (see [root] in the configuration); nothing was lost",
            "请为代理换一个新的令牌或 secret id（见配置的 [root]）；没有丢失任何数据",
        ),
        SlotError::VersionGone { .. } => words(
            "only a copy of the key service from before that can bring the version back; until then no backup can be opened. \
             Live data is not affected",
            "只有密钥服务在此之前的副本才能恢复该版本；在此之前无法打开任何备份。在线数据不受影响",
        ),
        SlotError::VersionDisabled { version, .. } => Some(Words::new(
            format!("set min_decryption_version of the key back to {version}, then try again; nothing was lost"),
            format!("请把该密钥的 min_decryption_version 改回 {version} 后重试；没有丢失任何数据"),
        )),
        SlotError::ActionDenied { action, .. } => Some(Words::new(
            format!("allow the agent {action}, as config/aws-kms-policy.json has it; nothing was lost"),
            format!("请按 config/aws-kms-policy.json 授予代理 {action}；没有丢失任何数据"),
        )),
        SlotError::KeyUnusable { key, state, .. } => Some(match state {
            KeyTrouble::Disabled => Words::new(
                format!("switch it on again (aws kms enable-key --key-id {key}), then try again; nothing was lost"),
                format!("请重新启用（aws kms enable-key --key-id {key}）后重试；没有丢失任何数据"),
            ),
            KeyTrouble::Doomed(at) => Words::new(
                format!(
                    "if this is the generation in force, before {at}: aws kms cancel-key-deletion --key-id {key}, then aws kms enable-key \
                     --key-id {key}; later no backup can ever be opened again"
                ),
                format!(
                    "若属现行一代，须在 {at} 之前执行 aws kms cancel-key-deletion --key-id {key} 和 aws kms enable-key \
                     --key-id {key}；过期后任何备份都无法再打开"
                ),
            ),
            KeyTrouble::Deleted => Words::new(
                "nothing brings it back: no backup can be opened any more. Live data is not affected; make a new installation",
                "无法恢复：任何备份都无法再打开。在线数据不受影响；请新建安装",
            ),
            KeyTrouble::Other => Words::new(
                format!("look at it (aws kms describe-key --key-id {key}), then try again"),
                format!("请查看（aws kms describe-key --key-id {key}）后重试"),
            ),
        }),
        SlotError::Unfit { .. } => words(
            "make a key of its own for this installation (config/openbao-policy.hcl says how) and name it under [root]",
            "请为本安装新建一个专用密钥（做法见 config/openbao-policy.hcl），并写入 [root]",
        ),
        SlotError::Token(error) => Some(token::advice(error)),
        SlotError::Unavailable { .. } => words(
            "check the address under [root] and the network, then try again; nothing was lost",
            "请检查 [root] 中的地址和网络后重试；没有丢失任何数据",
        ),
        _ => None,
    }
}

/// What to do when the slot does not hold the root key that is in force.
pub fn without_root() -> Words {
    Words::new(
        "put the slot with this installation's root key in its place: a folder that is not mounted, or another one under [root], looks the          same. Until then no backup can be opened, and if the key is gone for good none ever can; live data is not affected",
        "请让持有本安装根密钥的密钥槽就位：目录未挂载或 [root] 指向别处时也是如此。在此之前无法打开任何备份；若该密钥已不复存在，则永远无法打开。         在线数据不受影响",
    )
}

/// What is wrong with a slot, and what to do.
pub fn shortcoming(found: &Shortcoming) -> (Words, Words) {
    match found {
        Shortcoming::MissingRight { path, capability } => (
            Words::new(
                format!("the agent may not {capability} {path} in the key service"),
                format!("代理在密钥服务中无权对 {path} 执行 {capability}"),
            ),
            Words::new(
                format!("add to its policy: path \"{path}\" {{ capabilities = [\"{capability}\"] }}"),
                format!("请在其策略中加入：path \"{path}\" {{ capabilities = [\"{capability}\"] }}"),
            ),
        ),
        Shortcoming::ExcessRight { path, capability } => (
            Words::new(
                format!("the agent may {capability} {path} in the key service, which nothing needs"),
                format!("代理在密钥服务中可对 {path} 执行 {capability}，但并不需要"),
            ),
            Words::new(
                "give it the policy of config/openbao-policy.hcl and no other",
                "请只授予 config/openbao-policy.hcl 中的策略",
            ),
        ),
        Shortcoming::VersionOff { version } => (
            Words::new(
                format!("version {version} of the key in the key service, which wraps the root key, is switched off"),
                format!("密钥服务中包裹根密钥的第 {version} 版已被停用"),
            ),
            Words::new(
                format!("set min_decryption_version of the key back to {version}"),
                format!("请把该密钥的 min_decryption_version 改回 {version}"),
            ),
        ),
        Shortcoming::WrappedRootMissing { .. } | Shortcoming::SeveralKeys { .. } | Shortcoming::WeakMarks { .. } => {
            token::shortcoming(found)
        }
        Shortcoming::SwitchOn { switch } => (
            Words::new(
                format!("the key in the key service has {switch} on: no root key is made there"),
                format!("密钥服务中的密钥开启了 {switch}：不会在其中生成根密钥"),
            ),
            Words::new(
                "make a new key for this installation and move the root there with `wangchuan key move`",
                "请为本安装新建密钥，并用 `wangchuan key move` 把根密钥移过去",
            ),
        ),
    }
}
