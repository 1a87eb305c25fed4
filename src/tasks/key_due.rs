//! When keys may go by themselves: those of buckets when retention and statutes have run out for the whole period, those of chains
//! when the rules of `keep` can let them go. Told from the configuration; no store is asked.

use chrono::{DateTime, TimeDelta, Utc};

use crate::config::Configuration;
use crate::control::{BucketName, SnapshotRow};
use crate::policy::calendar::BucketPeriod;
use crate::policy::keep::Keep;
use crate::policy::registry::{Policy, StoreSpec};
use crate::policy::statute::{Earliest, bucket_due_with};

/// When the keys of a group fall due, at the earliest. Holds, pins and grace may keep one for longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// The first of them.
    pub first: Option<DateTime<Utc>>,
    /// The last of them.
    pub last: Option<DateTime<Utc>>,
    /// How many have no date.
    pub undated: i64,
}

impl Due {
    /// Counts one more key.
    pub fn add(&mut self, due: Option<DateTime<Utc>>) {
        match due {
            Some(due) => {
                self.first = Some(self.first.map_or(due, |first| first.min(due)));
                self.last = Some(self.last.map_or(due, |last| last.max(due)));
            }
            None => self.undated += 1,
        }
    }
}

/// When the key of a bucket falls due; `None` when it never does by itself: its policy is not today's, or its rows have no start.
#[must_use]
pub fn bucket_due(config: &Configuration, bucket: &BucketName) -> Option<DateTime<Utc>> {
    let spec = config.registry.stores.iter().find(|spec| spec.name == bucket.store)?;
    let policy = governing(spec, &bucket.collection, &config.registry.policies)?;
    if policy.id != bucket.policy {
        return None;
    }
    let period: BucketPeriod = bucket.period.parse().ok()?;
    let statutes = config.catalogue.find_all(&policy.statutes).ok()?;
    match bucket_due_with(period, policy.retention, &statutes, spec.timezone).ok()? {
        Earliest::At(due) => Some(due),
        Earliest::Never => None,
    }
}

/// The policy of a collection: its own, or that of the row to which its owner path leads.
fn governing<'c>(spec: &StoreSpec, table: &str, policies: &'c [Policy]) -> Option<&'c Policy> {
    let mut table = table.to_owned();
    // Owner paths do not run in circles: the configuration is checked for that.
    for _ in 0..=spec.collections.len() {
        let qualified = format!("{}.{table}", spec.name);
        let own =
            policies.iter().find(|policy| policy.collections.iter().any(|name| *name == table || *name == qualified));
        if own.is_some() {
            return own;
        }
        let declared = spec.collections.iter().find(|collection| collection.table == table)?;
        table = declared.via.last()?.split_once("->")?.1.trim().to_owned();
    }
    None
}

/// When the key of a chain can go at the earliest: by the rule `days`, counted from its newest snapshot. Without that rule, `None`:
/// the others count snapshots and not time. The newest chain stays until another one follows.
#[must_use]
pub fn chain_due(keep: &Keep, snapshots: &[SnapshotRow], chain: u32) -> Option<DateTime<Utc>> {
    let days = TimeDelta::try_days(i64::from(keep.days?.get()))?;
    let newest = snapshots.iter().filter(|row| row.chain == chain).map(|row| row.begun_at).max()?;
    newest.checked_add_signed(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn config() -> Configuration {
        let text = r#"
[agent]
name = "shop"
timezone = "Asia/Shanghai"
[root]
kind = "file"
path = "root"
accept_host_loss = true
[backup]
endpoint = "https://s3.example.com"
[audit]
url = "https://audit.example.com"
[[store]]
name = "shop"
url = "sqlite://shop.db"
[[store.collection]]
table = "orders"
subject = "customer_id"
[[store.collection]]
table = "lines"
via = ["order_id -> orders"]
[[store.collection]]
table = "loose"
subject = "customer_id"
[[policy]]
id = "short"
collections = ["orders"]
retention = "1 year"
start = "completed_at"
action = "delete"
basis = "contract"
"#;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wangchuan.toml");
        std::fs::write(&path, text).unwrap();
        crate::config::load(&path, &|_| None).unwrap()
    }

    #[test]
    fn a_bucket_falls_due_with_the_last_row_that_it_can_hold() {
        let config = config();
        let due = |collection: &str, policy: &str, period: &str| {
            let name = |text: &str| text.to_owned();
            let (store, collection, policy, period) = (name("shop"), name(collection), name(policy), name(period));
            bucket_due(&config, &BucketName { store, collection, policy, period })
        };
        let expected = Some(time("2024-06-30T00:00:00+08:00"));
        assert_eq!(due("orders", "short", "2023Q2"), expected);
        assert_eq!(due("lines", "short", "2023Q2"), expected, "it follows its order");
        assert_eq!(due("orders", "short", "2023-06"), expected);
        for (collection, policy, period) in [
            ("orders", "another", "2023Q2"),
            ("loose", "short", "2023Q2"),
            ("gone", "short", "2023Q2"),
            ("orders", "short", "no period"),
        ] {
            assert_eq!(due(collection, policy, period), None, "{collection} {policy} {period}");
        }
        let mut of_all = Due::default();
        for period in ["2023Q2", "2022Q2", "2023Q1", "nothing"] {
            of_all.add(due("orders", "short", period));
        }
        assert_eq!((of_all.last, of_all.undated), (expected, 1));
        assert_eq!(of_all.first, Some(time("2023-06-30T00:00:00+08:00")));
    }

    #[test]
    fn a_chain_can_go_by_the_rule_of_days_and_by_no_other_at_a_date() {
        let row = |chain, begun: &str| SnapshotRow { chain, begun_at: time(begun), ..SnapshotRow::default() };
        let rows = [row(1, "2026-01-01T00:00:00Z"), row(1, "2026-01-03T00:00:00Z"), row(2, "2026-02-01T00:00:00Z")];
        let (days, last) = (std::num::NonZeroU32::new(10), std::num::NonZeroU32::new(3));
        let by_days = Keep { days, ..Keep::default() };
        assert_eq!(chain_due(&by_days, &rows, 1), Some(time("2026-01-13T00:00:00Z")));
        assert_eq!(chain_due(&by_days, &rows, 2), Some(time("2026-02-11T00:00:00Z")));
        assert_eq!(chain_due(&by_days, &rows, 3), None);
        assert_eq!(chain_due(&Keep::default(), &rows, 1), None);
        assert_eq!(chain_due(&Keep { last, ..Keep::default() }, &rows, 1), None);
    }
}
