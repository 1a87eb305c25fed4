//! What records of media wait for, as `status` and `media` say it.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::output::Words;
use super::super::output::shapes::Time;
use crate::tasks::media::{MediumWait, WaitingMedium};

/// A record of a medium that waits for something.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct WaitingMediumEntry {
    /// Its id.
    record: String,
    /// Its number.
    number: i64,
    /// The medium, by its number in the inventory and its serial number.
    medium: String,
    /// For what.
    waits_for: MediumWait,
    /// How many chains of snapshots on it open; 0 of a destroyed one.
    open_chains: usize,
    /// When it was recorded.
    since: Time,
    /// Until when destroyed roots can be called back that open what is on it; null when something else is missing.
    until: Option<Time>,
}

impl WaitingMediumEntry {
    /// Of one that waits.
    #[must_use]
    pub fn of(medium: &WaitingMedium) -> Self {
        Self {
            record: medium.id.clone(),
            number: medium.number,
            medium: medium.name.clone(),
            waits_for: medium.wait,
            open_chains: medium.open_chains,
            since: medium.since.into(),
            until: medium.until.map(Time::from),
        }
    }

    /// As one line.
    #[must_use]
    pub fn words(&self) -> Words {
        let (number, name, Words { en, zh }) = (self.number, &self.medium, self.wait_words());
        Words::new(format!("medium {number}, {name}: {en}"), format!("介质 {number}（{name}）：{zh}"))
    }

    /// What it waits for.
    #[must_use]
    pub fn wait_words(&self) -> Words {
        let open = self.open_chains;
        match (self.waits_for, &self.until) {
            (MediumWait::Certificate, _) => Words::new("its certificate is not issued yet", "证书尚未签发"),
            (MediumWait::Look, _) => Words::new(
                "nobody looked whether it holds nothing any more; record it again with `--checked` when somebody did",
                "尚无人核查其上是否已无数据；核查后请以 `--checked` 再次登记",
            ),
            (MediumWait::Decision, _) => Words::new(
                format!("lost; snapshots on it open until somebody orders `media lost … --shred` (chains: {open})"),
                format!("遗失；其上 {open} 条快照链仍可打开，须执行 `media lost … --shred`"),
            ),
            (MediumWait::Keys, Some(until)) => Words::new(
                format!("lost; a root that opens snapshots on it can be called back until {until} (chains: {open})"),
                format!("遗失；可打开其上 {open} 条快照链的根密钥在 {until} 之前仍可撤回销毁"),
            ),
            (MediumWait::Keys, None) => Words::new(
                format!(
                    "lost; the keys of {open} chains of snapshots on it are still to die (`backup prune` says why)"
                ),
                format!("遗失；其上 {open} 条快照链的密钥尚待销毁（原因见 `backup prune`）"),
            ),
        }
    }
}
