//! What the root slot can do, as `key status` says it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::output::{Output, UserError, Words};
use crate::keys::slot::{Destroys, SlotAbilities};

/// What a slot can do.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AbilitiesEntry {
    /// How it destroys.
    destroys: HowItDestroys,
    /// The fewest days until a destruction is irrevocable; null where it is at once.
    delay_days_min: Option<u16>,
    /// The most.
    delay_days_max: Option<u16>,
    /// Whether a destruction that was ordered can be called off until then.
    cancellable: bool,
    /// Whether it shows of a key that it never left it.
    proves_not_exported: bool,
    /// For how many days after a destruction older copies of the service could bring a key back; null where no date can be given.
    residual_days: Option<u32>,
    /// The least time between two generations.
    minimum_interval_seconds: u64,
    /// Whether it counts in a way that shows when an older state of this host is put back.
    rollback_counter: bool,
}

/// How a slot destroys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum HowItDestroys {
    /// At once, when the call returns.
    Immediately,
    /// As far as the medium allows: nothing shows that the old bytes are gone.
    BestEffort,
    /// At a date.
    Delayed,
}

impl AbilitiesEntry {
    /// The entry of a slot.
    pub fn of(abilities: &SlotAbilities) -> Self {
        let (destroys, delay) = match abilities.destroys {
            Destroys::Immediately => (HowItDestroys::Immediately, None),
            Destroys::BestEffort => (HowItDestroys::BestEffort, None),
            Destroys::Delayed { at_least_days, at_most_days } => {
                (HowItDestroys::Delayed, Some((at_least_days, at_most_days)))
            }
        };
        Self {
            destroys,
            delay_days_min: delay.map(|(least, _)| least),
            delay_days_max: delay.map(|(_, most)| most),
            cancellable: abilities.is_cancellable,
            proves_not_exported: abilities.proves_not_exported,
            residual_days: abilities.residual_days,
            minimum_interval_seconds: abilities.minimum_interval.as_secs(),
            rollback_counter: abilities.has_rollback_counter,
        }
    }

    /// What people read, one ability a line.
    fn lines(&self) -> [Words; 6] {
        [
            self.destroys_words(),
            if self.cancellable {
                Words::new("a destruction can be called off until then", "在此之前可以撤回销毁")
            } else {
                Words::new("a destruction cannot be called off", "销毁不可撤回")
            },
            if self.proves_not_exported {
                Words::new("it shows that a key never left it", "可证明密钥从未导出")
            } else {
                Words::new("it cannot show that a key never left it", "不能证明密钥从未导出")
            },
            match self.residual_days {
                Some(0) => Words::new("no copy of the service brings a key back later", "服务没有可恢复密钥的副本"),
                Some(days) => Words::new(
                    format!("copies of the service could bring a key back for {days} days"),
                    format!("服务的副本在 {days} 天内仍可能恢复密钥"),
                ),
                None => Words::new("no date for the last copy of a key", "密钥的最后副本没有确定日期"),
            },
            self.interval_words(),
            if self.rollback_counter {
                Words::new("a counter shows an older state of this host", "计数器可发现本主机被回退到旧状态")
            } else {
                Words::new(
                    "no counter against an older state of this host; the second place tells it",
                    "没有防回退计数器；由第二存放处发现",
                )
            },
        ]
    }

    fn destroys_words(&self) -> Words {
        match (self.destroys, self.delay_days_min, self.delay_days_max) {
            (HowItDestroys::Delayed, Some(least), Some(most)) => {
                Words::new(format!("destroys after {least} to {most} days"), format!("在 {least} 至 {most} 天后销毁"))
            }
            (HowItDestroys::BestEffort, ..) => {
                Words::new("destroys as far as the medium allows", "在介质允许的范围内销毁")
            }
            _ => Words::new("destroys at once", "立即销毁"),
        }
    }

    fn interval_words(&self) -> Words {
        match Duration::from_secs(self.minimum_interval_seconds) {
            Duration::ZERO => Words::new("as many generations as wanted", "换代间隔不限"),
            least => {
                let hours = format!("{:.1}", least.as_secs_f64() / 3600.0);
                Words::new(
                    format!("at least {hours} hours between two generations"),
                    format!("两次换代至少间隔 {hours} 小时"),
                )
            }
        }
    }

    /// Says them.
    pub fn show(&self, output: &mut Output) -> Result<(), UserError> {
        for words in self.lines() {
            output.say(&Words::new(format!("  {}", words.en), format!("  {}", words.zh)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One row for each kind of slot, as `tests/it/slot_contract.rs` finds them.
    #[test]
    fn every_kind_of_slot_says_what_it_can_do_in_words_and_in_json() {
        let slot = |destroys, is_cancellable, proves_not_exported, hours: u64, residual_days| SlotAbilities {
            destroys,
            is_cancellable,
            proves_not_exported,
            has_rollback_counter: false,
            minimum_interval: Duration::from_secs(hours * 3600),
            residual_days,
        };
        let delayed = Destroys::Delayed { at_least_days: 7, at_most_days: 8 };
        let cases = [
            (
                slot(Destroys::BestEffort, false, false, 0, None),
                json!(["best-effort", null, null, false, false, null, 0, false]),
                "as far as the medium allows|cannot be called off|cannot show|no date|as many generations|no counter",
            ),
            (
                slot(Destroys::Immediately, false, true, 0, Some(7)),
                json!(["immediately", null, null, false, true, 7, 0, false]),
                "destroys at once|cannot be called off|never left it|for 7 days|as many generations|no counter",
            ),
            (
                slot(delayed, true, true, 24, Some(0)),
                json!(["delayed", 7, 8, true, true, 0, 86_400, false]),
                "after 7 to 8 days|until then|never left it|no copy of the service|at least 24.0 hours|no counter",
            ),
            (
                SlotAbilities { has_rollback_counter: true, ..slot(Destroys::Immediately, false, true, 0, Some(0)) },
                json!(["immediately", null, null, false, true, 0, 0, true]),
                "destroys at once|cannot be called off|never left it|no copy of the service|as many|a counter shows",
            ),
        ];
        for (abilities, expected, words) in cases {
            let entry = AbilitiesEntry::of(&abilities);
            let found = serde_json::to_value(&entry).unwrap();
            let names = [
                "destroys",
                "delay_days_min",
                "delay_days_max",
                "cancellable",
                "proves_not_exported",
                "residual_days",
                "minimum_interval_seconds",
                "rollback_counter",
            ];
            assert_eq!(serde_json::Value::from(names.map(|name| found[name].clone()).to_vec()), expected);
            for (line, part) in entry.lines().iter().zip(words.split('|')) {
                assert!(line.en.contains(part) && !line.zh.is_empty(), "{}: {part}", line.en);
            }
            let (mut output, out, err) = crate::cli::output::testing::output(false);
            entry.show(&mut output).unwrap();
            let said = format!("{}{}", out.text(), err.text());
            assert_eq!(said.lines().count(), 6, "{said}");
        }
    }
}
