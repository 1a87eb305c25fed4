//! Pins, and the cells that die without one.

use std::collections::HashMap;

use sqlx::Row as _;

use super::cells::cell_row;
use super::{BucketName, CellRow, PinKind, PinRow, Result, Tx};

/// Condition on `cell c`: it lives, and nothing opens it any more once the keys that run `$1` marked are destroyed. A cell
/// that another pin will preserve then is not one of them.
const DYING_CELL: &str = "c.state = 'live' AND ((c.pin IS NULL AND (\
     c.subject IN (SELECT slot FROM subject WHERE state = 'dying' AND run = $1) \
     OR c.bucket IN (SELECT slot FROM bucket WHERE state = 'dying' AND run = $1)) \
     AND NOT EXISTS (SELECT 1 FROM pin p WHERE p.cell = c.id AND p.kind = 'preserving' \
     AND (p.state = 'active' OR (p.state = 'dying' AND p.dies_with <> $1)))) \
     OR c.pin IN (SELECT slot FROM pin WHERE state = 'dying' AND dies_with = $1))";

/// Cells that the keys of a run reach: those that it closes, and those whose pin it lets die before that has taken the cell over. The
/// keys of such a cell die with another run, which relies on the pin, so together they close it.
const REACHED_CELL: &str = "c.state = 'live' AND c.id IN \
     (SELECT cell FROM pin WHERE state = 'dying' AND dies_with = $1 AND kind = 'preserving')";

const PIN: &str = "SELECT slot, cell, lookup, bucket_name, kind, reason, rows, run, dies_with FROM pin";

impl Tx {
    /// The pins that hold the secrets of cells which lost a key of their own: (subject, bucket) to pin. Fresh cells are
    /// never among them.
    pub async fn preserving_pins(&mut self) -> Result<HashMap<(Option<u32>, u32), u32>> {
        let rows =
            sqlx::query("SELECT id, subject, bucket, pin, fresh FROM cell WHERE pin IS NOT NULL AND fresh IS NULL")
                .fetch_all(&mut *self.inner)
                .await?;
        let cells = rows.iter().map(cell_row).collect::<Result<Vec<_>>>()?;
        Ok(cells.into_iter().filter_map(|cell| Some(((cell.subject, cell.bucket), cell.pin?))).collect())
    }

    /// Preserving pins that do not hold their cell's secret yet, with their cells: those that must be filled before the cell
    /// loses a factor. Pins that die with one of `runs` are left out.
    pub async fn unfilled_pins(&mut self, runs: &[String]) -> Result<Vec<(PinRow, CellRow)>> {
        let text = format!("{PIN} WHERE kind = 'preserving' AND state IN ('active', 'dying')");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&mut *self.inner).await?;
        let mut found = Vec::new();
        for row in &rows {
            let dies_with: Option<String> = row.try_get(8)?;
            if dies_with.is_some_and(|run| runs.contains(&run)) {
                continue;
            }
            let pin = pin_row(row)?;
            if let Some(cell) = self.living_cell(pin.cell).await?.filter(|cell| cell.pin.is_none()) {
                found.push((pin, cell));
            }
        }
        Ok(found)
    }

    /// Fresh pins that hold rows of this lookup digest.
    pub async fn fresh_pins_of(&mut self, lookup: &[u8; 32]) -> Result<Vec<u32>> {
        let rows = sqlx::query("SELECT slot FROM pin WHERE lookup = $1 AND kind = 'fresh' AND state <> 'destroyed'")
            .bind(&lookup[..])
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter().map(|row| Ok(row.try_get::<i64, _>(0)? as u32)).collect()
    }

    /// Cells (subject's slot, bucket) that a pin keeps for this lookup digest, and whose slot is not known to be another's: a row that
    /// changed hands is pinned for its owner of today in the cell of the former one. With each, whether it is kept for others too.
    pub async fn pinned_cells_of(&mut self, lookup: &[u8; 32]) -> Result<Vec<((u32, u32), bool)>> {
        let rows = sqlx::query(
            "SELECT DISTINCT c.subject, c.bucket, CAST(CASE WHEN EXISTS (SELECT 1 FROM pin q WHERE q.cell = p.cell AND q.lookup <> $1 \
             AND length(q.lookup) > 0 AND q.state <> 'destroyed') THEN 1 ELSE 0 END AS BIGINT) \
             FROM pin p JOIN cell c ON c.id = p.cell \
             JOIN subject s ON s.slot = c.subject AND (s.lookup IS NULL OR s.lookup = $1) \
             WHERE p.lookup = $1 AND p.kind = 'preserving' AND p.state <> 'destroyed'",
        )
        .bind(&lookup[..])
        .fetch_all(&mut *self.inner)
        .await?;
        let number = |row: &sqlx::any::AnyRow, at: usize| row.try_get::<i64, _>(at);
        rows.iter().map(|row| Ok(((number(row, 0)? as u32, number(row, 1)? as u32), number(row, 2)? == 1))).collect()
    }

    /// Registers a pin on a cell.
    pub async fn add_pin(&mut self, pin: &PinRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO pin (slot, cell, lookup, bucket_name, kind, reason, state, run, rows) \
             VALUES ($1, $2, $3, $4, $5, $6, 'active', $7, $8)",
        )
        .bind(i64::from(pin.slot))
        .bind(pin.cell)
        .bind(&pin.lookup)
        .bind(pin.bucket.text())
        .bind(pin.kind.text())
        .bind(&pin.reason)
        .bind(&pin.run)
        .bind(pin.rows as i64)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Marks a pin for destruction with a run: the rows it held are gone, or live on under a newer pin.
    pub async fn mark_pin_dying(&mut self, slot: u32, run: &str) -> Result<()> {
        sqlx::query("UPDATE pin SET state = 'dying', dies_with = $2 WHERE slot = $1 AND state = 'active'")
            .bind(i64::from(slot))
            .bind(run)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Which pinned cell new versions of these rows belong to: (subject lookup, bucket) to cell, by the newest pin.
    pub async fn pinned_cells(&mut self) -> Result<HashMap<(Vec<u8>, String), i64>> {
        let rows = sqlx::query(
            "SELECT p.lookup, p.bucket_name, p.cell FROM pin p JOIN cell c ON c.id = p.cell \
             WHERE p.state = 'active' AND c.state = 'live' ORDER BY p.id",
        )
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))).collect()
    }

    /// Active pins, oldest first.
    pub async fn pins(&mut self) -> Result<Vec<PinRow>> {
        let text = format!("{PIN} WHERE state = 'active' ORDER BY id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&mut *self.inner).await?;
        rows.iter().map(pin_row).collect()
    }

    /// Active pins whose cells hold no living row any more: every row that was sealed there was erased or stripped since it
    /// was last sealed. A pin under which nothing was sealed yet is not one of them.
    pub async fn spent_pins(&mut self) -> Result<Vec<u32>> {
        let rows = sqlx::query(
            "SELECT p.slot FROM pin p WHERE p.state = 'active' AND EXISTS (SELECT 1 FROM sealed_row s WHERE s.cell = p.cell) \
             AND NOT EXISTS (SELECT 1 FROM sealed_row s JOIN snapshot n ON n.number = s.last_snapshot WHERE s.cell = p.cell \
             AND NOT EXISTS (SELECT 1 FROM ledger l WHERE l.row_mac = s.row_mac AND l.state = 'done' \
             AND l.position > n.ledger_position))",
        )
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter().map(|row| Ok(row.try_get::<i64, _>(0)? as u32)).collect()
    }

    /// Other runs that erased or stripped rows which lie in cells that lose their keys with `run`.
    pub async fn runs_in_dying_cells(&mut self, run: &str) -> Result<Vec<String>> {
        let text = format!(
            "SELECT DISTINCT l.run FROM cell c JOIN sealed_row s ON s.cell = c.id JOIN snapshot n ON n.number = s.first_snapshot \
             JOIN ledger l ON l.row_mac = s.row_mac AND l.position > n.ledger_position \
             WHERE l.state IN ('done', 'intended') AND l.run <> $1 AND {DYING_CELL} ORDER BY 1"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(run).fetch_all(&mut *self.inner).await?;
        rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The buckets of those cells in which rows of a run still open once every marked key is destroyed.
    pub async fn buckets_open_behind_shred(&mut self, run: &str, barrier: i64) -> Result<Vec<u32>> {
        let rows = sqlx::query(
            "SELECT DISTINCT c.bucket FROM ledger l JOIN sealed_row s ON s.row_mac = l.row_mac JOIN cell c ON c.id = s.cell \
             LEFT JOIN subject u ON u.slot = c.subject LEFT JOIN bucket b ON b.slot = c.bucket LEFT JOIN pin p ON p.slot = c.pin \
             WHERE l.run = $1 AND l.state = 'done' AND c.state = 'live' AND s.first_snapshot <= $2 AND \
             CASE WHEN c.pin IS NOT NULL THEN COALESCE(p.state, '') <> 'dying' \
             ELSE (COALESCE(u.state, '') <> 'dying' AND COALESCE(b.state, '') <> 'dying') OR EXISTS (SELECT 1 FROM pin q \
             WHERE q.cell = c.id AND q.kind = 'preserving' AND q.state = 'active') END ORDER BY 1",
        )
        .bind(run)
        .bind(barrier)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter().map(|row| Ok(row.try_get::<i64, _>(0)? as u32)).collect()
    }

    /// The collections, as (store, collection), of the cells that lose their keys with `run`.
    pub async fn collections_of_dying_cells(&mut self, run: &str) -> Result<Vec<(String, String)>> {
        let text = format!(
            "SELECT DISTINCT b.store, b.collection FROM cell c JOIN bucket b ON b.slot = c.bucket \
             WHERE ({DYING_CELL}) OR ({REACHED_CELL}) ORDER BY 1, 2"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(run).fetch_all(&mut *self.inner).await?;
        rows.into_iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Whether keys of cells that were marked for destruction by a run are destroyed.
    pub async fn keys_died_with(&mut self, run: &str) -> Result<bool> {
        let row = sqlx::query(
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM subject WHERE state = 'destroyed' AND run = $1) \
             OR EXISTS (SELECT 1 FROM bucket WHERE state = 'destroyed' AND run = $1) \
             OR EXISTS (SELECT 1 FROM pin WHERE state = 'destroyed' AND dies_with = $1)",
        )
        .bind(run)
        .fetch_optional(&mut *self.inner)
        .await?;
        Ok(row.is_some())
    }

    /// Whether a pin on rows of this subject dies with one of these runs.
    pub async fn kills_pin_of(&mut self, runs: &[String], lookup: &[u8]) -> Result<bool> {
        for run in runs {
            let row = sqlx::query("SELECT 1 FROM pin WHERE state = 'dying' AND dies_with = $1 AND lookup = $2 LIMIT 1")
                .bind(run)
                .bind(lookup)
                .fetch_optional(&mut *self.inner)
                .await?;
            if row.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Records, in the generation change itself, that a preserving pin now holds its cell's secret.
    pub async fn set_cell_pin(&mut self, cell: i64, pin: u32) -> Result<()> {
        sqlx::query("UPDATE cell SET pin = $2 WHERE id = $1")
            .bind(cell)
            .bind(i64::from(pin))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}

fn pin_row(row: &sqlx::any::AnyRow) -> Result<PinRow> {
    let kind: String = row.try_get(4)?;
    Ok(PinRow {
        slot: row.try_get::<i64, _>(0)? as u32,
        cell: row.try_get(1)?,
        lookup: row.try_get(2)?,
        bucket: BucketName::of_text(&row.try_get::<String, _>(3)?)?,
        kind: if kind == "fresh" { PinKind::Fresh } else { PinKind::Preserving },
        reason: row.try_get(5)?,
        rows: row.try_get::<i64, _>(6)? as u64,
        run: row.try_get(7)?,
    })
}
