//! Where the bucket stands, and how long its newest snapshots are locked.

use chrono::{DateTime, Utc};

use super::super::super::output::Words;
use super::Findings;
use crate::config::Configuration;
use crate::installation::{Installation, LockHorizon};
use crate::policy::registry::BackupMode;

/// Whether the bucket stands elsewhere than the stores that go there. Only names are compared: whether they are true nobody checks.
pub(super) fn check_site(installation: &Installation, findings: &mut Findings) {
    let advice = || Words::new("a fire takes both; use a bucket at another site", "一处失火两者俱失；请使用异地存储桶");
    if installation.is_bucket_on_this_host() {
        let what = Words::new("not off-site: it is on this host", "不是异地：与本程序在同一主机");
        return findings.doubtful("bucket", what, advice());
    }
    let config: &Configuration = &installation.config;
    let Some(site) = config.backup.as_ref().and_then(|backup| backup.site.as_ref()) else {
        return findings.doubtful(
            "bucket",
            Words::new("whether it is off-site is not known: it has no site", "未注明所在地，无法判断是否异地"),
            Words::new("write `site` under [backup] and under each store", "请在 [backup] 和每个数据源中写明 `site`"),
        );
    };
    let backed_up = config.registry.stores.iter().filter(|store| store.backup == BackupMode::Bucket);
    let mut is_elsewhere = true;
    for store in backed_up {
        let name = &store.name;
        match &store.site {
            Some(same) if same == site => {
                is_elsewhere = false;
                let what = Words::new(
                    format!("not off-site for store {name}: both stand at {site}"),
                    format!("对数据源 {name} 不是异地：两者都在 {site}"),
                );
                findings.doubtful("bucket", what, advice());
            }
            Some(_) => {}
            None => {
                is_elsewhere = false;
                findings.doubtful(
                    "bucket",
                    Words::new(
                        format!("whether it is off-site for store {name} is not known: the store has no site"),
                        format!("数据源 {name} 未注明所在地，无法判断是否异地"),
                    ),
                    Words::new("write `site` under the store", "请在该数据源中写明 `site`"),
                );
            }
        }
    }
    if is_elsewhere {
        findings.good(
            "bucket",
            format!("off-site by what is declared: it stands at {site}, no store does"),
            format!("按声明为异地：存储桶在 {site}，数据源都不在"),
        );
    }
}

/// Until when the newest snapshots are locked, where locks are asked for.
pub(super) fn show_horizons(horizons: &[LockHorizon], now: DateTime<Utc>, findings: &mut Findings) {
    for horizon in horizons {
        let store = &horizon.store;
        let (en, zh) = match horizon.until {
            Some(until) => {
                let until = until.format("%Y-%m-%d %H:%M UTC");
                (
                    format!("the newest snapshots of store {store} are locked until {until}"),
                    format!("数据源 {store} 的最新快照锁定至 {until}"),
                )
            }
            None => (
                format!("the newest snapshots of store {store} are not locked, although `lock` is set"),
                format!("已设置 `lock`，但数据源 {store} 的最新快照没有锁定"),
            ),
        };
        if horizon.is_near(now) {
            let advice = Words::new(
                "look whether backups are still taken, or raise `days` under `lock`",
                "请检查备份是否仍在进行，或增大 `lock` 的 `days`",
            );
            findings.doubtful("bucket", Words::new(en, zh), advice);
        } else {
            findings.good("bucket", en, zh);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_lock_that_ends_within_a_week_is_doubtful() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let of = |until| LockHorizon { store: "shop".to_owned(), until };
        assert!(of(None).is_near(now) && of(Some(now + TimeDelta::days(6))).is_near(now));
        assert!(!of(Some(now + TimeDelta::days(7))).is_near(now));
    }
}
