//! The same for PKCS#11 tokens.

use super::super::output::Words;
use crate::keys::slot::{PinTrouble, Shortcoming, TokenError};

/// What to do about an error.
pub fn advice(error: &TokenError) -> Words {
    match error {
        TokenError::Module { .. } => Words::new(
            "install the library of the token's maker and name it as `module` under [root]; nothing was lost",
            "请安装令牌厂商的库文件，并在 [root] 的 `module` 中写明；没有丢失任何数据",
        ),
        TokenError::NotPresent { .. } => Words::new(
            "bring the device back, or correct `token_label` under [root], then try again; nothing was lost",
            "请接回设备，或更正 [root] 的 `token_label` 后重试；没有丢失任何数据",
        ),
        TokenError::Pin { why, .. } => pin(*why),
        TokenError::KeyGone { .. } => Words::new(
            "only a backup of the token from before can bring the key back; until then no backup can be opened. Live data is not \
             affected",
            "只有令牌在此之前的备份才能恢复该密钥；在此之前无法打开任何备份。在线数据不受影响",
        ),
        TokenError::Lost { .. } => Words::new(
            "try again; if it stays so, look at the device and its connection. Nothing was lost",
            "请重试；若仍如此，请检查设备及其连接。没有丢失任何数据",
        ),
        TokenError::Unfit { .. } => Words::new(
            "use a token that can do what config/default.toml asks for under [root], or correct what is declared there; nothing \
             was lost",
            "请使用符合 config/default.toml 中 [root] 要求的令牌，或更正那里的声明；没有丢失任何数据",
        ),
        TokenError::Refused { .. } => Words::new(
            "see what the token's maker says of this answer; nothing was lost, and the next run goes on",
            "请查阅令牌厂商对此应答的说明；没有丢失任何数据，下次运行会继续",
        ),
    }
}

fn pin(why: PinTrouble) -> Words {
    match why {
        PinTrouble::Refused | PinTrouble::HeldBack => Words::new(
            "correct `pin` under [root]; if it was right after all, run `wangchuan doctor --retry-pin`, which tries it once more. \
             Nothing was lost",
            "请更正 [root] 的 `pin`；如果它其实是对的，请运行 `wangchuan doctor --retry-pin` 再试一次。没有丢失任何数据",
        ),
        PinTrouble::FinalTry => Words::new(
            "log in with the right PIN by the tool of the token's maker, which sets the counter back; nothing was lost",
            "请用令牌厂商的工具以正确的 PIN 登录，计数器会复位；没有丢失任何数据",
        ),
        PinTrouble::Locked => Words::new(
            "have the token's security officer unlock it by the tool of its maker; nothing was lost",
            "请由令牌的安全官用厂商的工具解锁；没有丢失任何数据",
        ),
        PinTrouble::NotSet | PinTrouble::ToBeChanged => Words::new(
            "set a user PIN by the tool of the token's maker and name it as `pin` under [root]; nothing was lost",
            "请用令牌厂商的工具设置用户 PIN，并写入 [root] 的 `pin`；没有丢失任何数据",
        ),
    }
}

/// What is wrong with a token, and what to do.
pub fn shortcoming(found: &Shortcoming) -> (Words, Words) {
    match found {
        Shortcoming::WrappedRootMissing { generation } => (
            Words::new(
                format!("the token has the key of generation {generation}, and its wrapped root is not on this host"),
                format!("令牌中有第 {generation} 代的密钥，但本机没有其包裹的根密钥"),
            ),
            Words::new(
                "it lies in the bucket as well: move the control database and the other files of its folder away, and run \
                 `wangchuan recover`, which puts it back",
                "存储桶中另有一份：请移走控制数据库及其文件夹中的其他文件，再运行 `wangchuan recover`，它会将其放回",
            ),
        ),
        Shortcoming::SeveralKeys { generation } => (
            Words::new(
                format!("the token has several keys for generation {generation}"),
                format!("令牌中第 {generation} 代有多个密钥"),
            ),
            Words::new(
                "find out who made the second one; all of them are destroyed with their generation",
                "请查明第二个密钥的来源；它们会随该代一起销毁",
            ),
        ),
        _ => (
            Words::new(
                "the token does not say of its key that it was made there and can never leave it",
                "令牌未声明其密钥是在令牌内生成且永不可导出",
            ),
            Words::new(
                "find out who put it there; its destruction is certified as a logical removal only (class D)",
                "请查明其来源；其销毁只能认证为逻辑删除（D 级）",
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trouble_with_a_token_has_advice_in_both_languages() {
        let place = String::new;
        let of_pin = |why| TokenError::Pin { place: place(), why };
        let errors = [
            TokenError::Module { path: "m".into(), what: place() },
            TokenError::NotPresent { place: place() },
            TokenError::KeyGone { generation: 1, place: place() },
            TokenError::Lost { place: place(), what: place() },
            TokenError::Unfit { place: place(), what: "" },
            TokenError::Refused { place: place(), what: place() },
            of_pin(PinTrouble::Refused),
            of_pin(PinTrouble::FinalTry),
            of_pin(PinTrouble::Locked),
            of_pin(PinTrouble::NotSet),
        ];
        let words: Vec<Words> = errors.iter().map(advice).collect();
        let texts: std::collections::HashSet<&str> =
            words.iter().flat_map(|words| [words.en.as_str(), words.zh.as_str()]).collect();
        assert_eq!(texts.len(), 2 * errors.len());
        for why in [PinTrouble::Refused, PinTrouble::HeldBack] {
            assert!(advice(&of_pin(why)).en.contains("--retry-pin"));
        }
    }
}
