//! Keys in groups, without anything that identifies a person, and the crowns of earlier generations that are kept to be tried.

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{BucketName, ControlError, Result, Tx, parse_time};

/// Crowns of earlier generations that are kept. They are noise once their roots are gone; that is tried on them.
const KEPT_CROWNS: i64 = 16;
/// The remembered settings that hold them, by generation in 19 digits.
const CROWN: &str = "old_crown:";

/// Keys of one kind that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyGroup {
    /// `subjects`, `buckets`, `chains`, `pins` or `work`.
    pub kind: String,
    /// `active`, `dying` or `destroyed`.
    pub state: String,
    /// The run that they die with.
    pub run: Option<String>,
    /// The collection of buckets, the store of chains, the reason of pins, the purpose of work leaves.
    pub of: Option<String>,
    /// Whether their slots hold keys.
    pub is_filled: bool,
    /// Whether new data is sealed under them.
    pub seals: bool,
    /// Until when an older root that leads to them could be brought back, once they are destroyed.
    pub pending_until: Option<DateTime<Utc>>,
    /// How many.
    pub count: i64,
}

impl KeyGroup {
    fn is_like(&self, other: &Self) -> bool {
        *self == Self { count: self.count, ..other.clone() }
    }
}

/// The generation with which keys of a table were destroyed, where a root before it ($1 is the oldest there is) can be brought back.
fn pending(table: &str) -> String {
    format!("CASE WHEN {table}.state = 'destroyed' AND {table}.died > $1 THEN {table}.died END")
}

impl Tx {
    /// All keys, in groups.
    pub async fn key_groups(&mut self) -> Result<Vec<KeyGroup>> {
        let doomed: Vec<_> = self.doomed_roots().await?.into_iter().filter(|root| root.gone_at.is_none()).collect();
        let oldest = doomed.iter().map(|root| root.generation).min().unwrap_or(i64::MAX);
        let [subject, bucket, chain, pin, work] = ["subject", "bucket", "c", "p", "work"].map(pending);
        let text = format!(
            "SELECT 'subjects', state, run, NULL, 1, 1, {subject}, COUNT(*) FROM subject GROUP BY state, run, {subject} UNION ALL \
             SELECT 'buckets', state, run, store || '.' || collection, 1, 1, {bucket}, COUNT(*) FROM bucket \
             GROUP BY state, run, store, collection, {bucket} UNION ALL \
             SELECT 'chains', c.state, NULL, c.store, 1, CASE WHEN s.state = 'running' THEN 1 ELSE 0 END, {chain}, COUNT(*) FROM chain c \
             LEFT JOIN snapshot s ON s.chain = c.slot GROUP BY c.state, c.store, CASE WHEN s.state = 'running' THEN 1 ELSE 0 END, {chain} \
             UNION ALL \
             SELECT 'pins', p.state, p.dies_with, p.reason, CASE WHEN p.kind = 'fresh' OR c.pin IS NOT NULL THEN 1 ELSE 0 END, 1, {pin}, \
             COUNT(*) FROM pin p LEFT JOIN cell c ON c.id = p.cell GROUP BY p.state, p.dies_with, p.reason, \
             CASE WHEN p.kind = 'fresh' OR c.pin IS NOT NULL THEN 1 ELSE 0 END, {pin} UNION ALL \
             SELECT 'work', state, NULL, purpose, 1, 1, {work}, COUNT(*) FROM work GROUP BY state, purpose, {work} \
             ORDER BY 1, 2, 3 NULLS FIRST, 4 NULLS FIRST",
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(oldest).fetch_all(&mut *self.inner).await?;
        let mut groups: Vec<KeyGroup> = Vec::new();
        for row in rows {
            let died: Option<i64> = row.try_get(6)?;
            let before = |died: i64| doomed.iter().filter(move |root| root.generation < died);
            let group = KeyGroup {
                kind: row.try_get(0)?,
                state: row.try_get(1)?,
                run: row.try_get(2)?,
                of: row.try_get(3)?,
                is_filled: row.try_get::<i64, _>(4)? != 0,
                seals: row.try_get::<i64, _>(5)? != 0,
                pending_until: died.and_then(|died| before(died).map(|root| root.irrevocable_at).max()),
                count: row.try_get(7)?,
            };
            // Of several generations that wait for the same root.
            let same = groups.iter_mut().filter(|_| died.is_some()).find(|known| known.is_like(&group));
            match same {
                Some(known) => known.count += group.count,
                None => groups.push(group),
            }
        }
        Ok(groups)
    }

    /// The buckets whose keys are not destroyed, each with its state and the run that it dies with.
    pub async fn bucket_states(&mut self) -> Result<Vec<(BucketName, String, Option<String>)>> {
        let text =
            "SELECT store, collection, policy, period, state, run FROM bucket WHERE state <> 'destroyed' ORDER BY slot";
        let rows = sqlx::query(text).fetch_all(&mut *self.inner).await?;
        let read = |row: AnyRow| -> Result<(BucketName, String, Option<String>)> {
            let name = BucketName {
                store: row.try_get(0)?,
                collection: row.try_get(1)?,
                policy: row.try_get(2)?,
                period: row.try_get(3)?,
            };
            Ok((name, row.try_get(4)?, row.try_get(5)?))
        };
        rows.into_iter().map(read).collect()
    }

    /// The generation in force and when it was made.
    pub async fn generation_made_at(&mut self) -> Result<Option<(i64, DateTime<Utc>)>> {
        let row = sqlx::query("SELECT generation, created_at FROM tree_root ORDER BY generation DESC LIMIT 1")
            .fetch_optional(&mut *self.inner)
            .await?;
        row.map(|row| Ok((row.try_get(0)?, parse_time(&row.try_get::<String, _>(1)?)?))).transpose()
    }

    /// Puts the crowns of generations before this one aside, and forgets all but the newest of those.
    pub(super) async fn keep_crowns_before(&mut self, generation: i64) -> Result<()> {
        let rows = sqlx::query("SELECT generation, crown FROM tree_root WHERE generation < $1")
            .bind(generation)
            .fetch_all(&mut *self.inner)
            .await?;
        for row in rows {
            let (of, crown): (i64, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
            self.set_meta(&format!("{CROWN}{of:019}"), &hex::encode(crown)).await?;
        }
        let oldest = format!("{CROWN}{:019}", (generation - KEPT_CROWNS).max(0));
        sqlx::query("DELETE FROM meta WHERE name >= $1 AND name < $2")
            .bind(CROWN)
            .bind(oldest)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The crowns of earlier generations that were put aside, oldest first.
    pub async fn old_crowns(&mut self) -> Result<Vec<(i64, Vec<u8>)>> {
        // `;` is the sign after `:`.
        let rows = sqlx::query("SELECT name, value FROM meta WHERE name >= $1 AND name < 'old_crown;' ORDER BY name")
            .bind(CROWN)
            .fetch_all(&mut *self.inner)
            .await?;
        let damaged = || ControlError::Inconsistent("a crown that was put aside is damaged".to_owned());
        rows.into_iter()
            .map(|row| {
                let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
                let generation = name.trim_start_matches(CROWN).parse().map_err(|_| damaged())?;
                Ok((generation, hex::decode(value).map_err(|_| damaged())?))
            })
            .collect()
    }
}
