//! Certificates, their outbox, and drill records.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Result, Tx, optional_time, parse_time, time_text};

/// A certificate as issued: the envelope's bytes are never serialised again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// Its id.
    pub id: String,
    /// Its gap-free number.
    pub sequence: i64,
    /// The run it is about.
    pub run: String,
    /// `complete`, `partial`, …
    pub result: String,
    /// SHA-256 of the signed bytes (PAE), hex.
    pub digest: String,
    /// The signed envelope.
    pub envelope: Vec<u8>,
    /// The evidence file whose digest it names.
    pub evidence: Vec<u8>,
    /// When it was issued.
    pub issued_at: DateTime<Utc>,
    /// The certificate it replaces.
    pub supersedes: Option<String>,
}

/// A certificate on its way to the audit service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// The certificate.
    pub certificate: String,
    /// `pending`, `receipted`, `acknowledged` (taken without a receipt) or `quarantined`.
    pub state: String,
    /// Tries so far.
    pub attempts: i64,
    /// When to try next.
    pub next_at: DateTime<Utc>,
    /// Why the last try failed.
    pub problem: Option<String>,
    /// The verified receipt.
    pub receipt: Option<Vec<u8>>,
    /// The receipt's grade.
    pub grade: Option<String>,
    /// When it came, or the certificate was taken.
    pub receipted_at: Option<DateTime<Utc>>,
    /// Whether only a person mends why it waits.
    pub alarm: bool,
}

/// A certificate that waits to be filed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfiled {
    /// The certificate.
    pub certificate: String,
    /// When to try next.
    pub next_at: DateTime<Utc>,
    /// Why the last try failed.
    pub problem: Option<String>,
}

/// A drill's signed record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillRow {
    /// Its id.
    pub id: String,
    /// Its place in the chain of records, from 1.
    pub number: i64,
    /// The store.
    pub store: String,
    /// The snapshot restored.
    pub snapshot: String,
    /// Whether it passed.
    pub passed: bool,
    /// Rows and frames of erased data that were there again.
    pub returned: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// The signed record.
    pub record: Vec<u8>,
}

const CERTIFICATE: &str =
    "SELECT id, sequence, run, result, digest, envelope, evidence, issued_at, supersedes FROM certificate";
const DRILL: &str = "SELECT id, number, store, snapshot, passed, returned, at, record FROM drill";
const OUTBOX: &str =
    "SELECT certificate, state, attempts, next_at, problem, receipt, grade, receipted_at, alarm FROM outbox";

/// `meta`: the id that the next certificate will have.
const ANNOUNCED: &str = "certificate_announced";

impl Tx {
    /// The id that the next certificate will have. It is drawn when the one before is issued, so that any copy of this database
    /// knows by which id its future would be filed.
    pub async fn announced_certificate(&mut self) -> Result<Option<String>> {
        self.meta(ANNOUNCED).await
    }

    /// Fixes the id of the next certificate.
    pub async fn announce_certificate(&mut self, id: &str) -> Result<()> {
        self.set_meta(ANNOUNCED, id).await
    }

    /// The newest certificate that has a receipt of a log.
    pub async fn newest_receipted(&mut self) -> Result<Option<CertificateRow>> {
        let text = format!(
            "{CERTIFICATE} WHERE id IN (SELECT certificate FROM outbox WHERE state = 'receipted' AND grade NOT LIKE 'C%') \
             ORDER BY sequence DESC LIMIT 1"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_optional(&mut *self.inner).await?;
        row.as_ref().map(certificate_row).transpose()
    }

    /// The newest certificate about this.
    pub async fn newest_certificate_of(&mut self, about: &str) -> Result<Option<CertificateRow>> {
        let text = format!("{CERTIFICATE} WHERE run = $1 ORDER BY sequence DESC LIMIT 1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(about).fetch_optional(&mut *self.inner).await?;
        row.as_ref().map(certificate_row).transpose()
    }

    /// The next certificate number and the digest of the one before it.
    pub async fn next_certificate(&mut self) -> Result<(i64, Option<String>)> {
        let row = sqlx::query("SELECT sequence, digest FROM certificate ORDER BY sequence DESC LIMIT 1")
            .fetch_optional(&mut *self.inner)
            .await?;
        match row {
            Some(row) => Ok((row.try_get::<i64, _>(0)? + 1, Some(row.try_get(1)?))),
            None => Ok((1, None)),
        }
    }

    /// Stores a certificate and its outbox row together.
    pub async fn add_certificate(&mut self, certificate: &CertificateRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO certificate (id, sequence, run, result, digest, envelope, evidence, issued_at, supersedes) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(&certificate.id)
        .bind(certificate.sequence)
        .bind(&certificate.run)
        .bind(&certificate.result)
        .bind(&certificate.digest)
        .bind(&certificate.envelope)
        .bind(&certificate.evidence)
        .bind(time_text(certificate.issued_at))
        .bind(&certificate.supersedes)
        .execute(&mut *self.inner)
        .await?;
        sqlx::query(
            "INSERT INTO outbox (certificate, state, attempts, next_at, alarm) VALUES ($1, 'pending', 0, $2, 0)",
        )
        .bind(&certificate.id)
        .bind(time_text(certificate.issued_at))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Certificates by number; of one run when given.
    pub async fn certificates(&mut self, run: Option<&str>) -> Result<Vec<CertificateRow>> {
        let text = format!("{CERTIFICATE} WHERE ($1 IS NULL OR run = $1) ORDER BY sequence");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(run).fetch_all(&mut *self.inner).await?;
        rows.iter().map(certificate_row).collect()
    }

    /// A certificate by its id.
    pub async fn certificate(&mut self, id: &str) -> Result<Option<CertificateRow>> {
        let text = format!("{CERTIFICATE} WHERE id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id).fetch_optional(&mut *self.inner).await?;
        row.as_ref().map(certificate_row).transpose()
    }

    /// Outbox rows in a state (all when `None`), oldest first.
    pub async fn outbox(&mut self, state: Option<&str>) -> Result<Vec<OutboxRow>> {
        let text = format!("{OUTBOX} WHERE ($1 IS NULL OR state = $1) ORDER BY next_at, certificate");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(state).fetch_all(&mut *self.inner).await?;
        rows.iter().map(outbox_row).collect()
    }

    /// What waits to be filed, oldest first.
    pub async fn unfiled(&mut self) -> Result<Vec<Unfiled>> {
        let text =
            "SELECT certificate, next_at, problem FROM outbox WHERE state = 'pending' ORDER BY next_at, certificate";
        let rows = sqlx::query(text).fetch_all(&mut *self.inner).await?;
        let row = |row: &sqlx::any::AnyRow| {
            let next_at = parse_time(&row.try_get::<String, _>(1)?)?;
            Ok(Unfiled { certificate: row.try_get(0)?, next_at, problem: row.try_get(2)? })
        };
        rows.iter().map(row).collect()
    }

    /// An outbox row that waits, with the envelope to send.
    pub async fn to_file(&mut self, certificate: &str) -> Result<Option<(OutboxRow, Vec<u8>)>> {
        let text = format!("{OUTBOX} WHERE certificate = $1 AND state = 'pending'");
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(certificate).fetch_optional(&mut *self.inner).await?;
        let Some(row) = row else { return Ok(None) };
        let envelope = sqlx::query("SELECT envelope FROM certificate WHERE id = $1").bind(certificate);
        let Some(envelope) = envelope.fetch_optional(&mut *self.inner).await? else { return Ok(None) };
        Ok(Some((outbox_row(&row)?, envelope.try_get(0)?)))
    }

    /// Stores the outcome of a filing.
    pub async fn set_outbox(&mut self, row: &OutboxRow) -> Result<()> {
        sqlx::query(
            "UPDATE outbox SET state = $2, attempts = $3, next_at = $4, problem = $5, receipt = $6, grade = $7, receipted_at = $8, \
             alarm = $9 WHERE certificate = $1 AND state NOT IN ('receipted', 'acknowledged')",
        )
        .bind(&row.certificate)
        .bind(&row.state)
        .bind(row.attempts)
        .bind(time_text(row.next_at))
        .bind(&row.problem)
        .bind(&row.receipt)
        .bind(&row.grade)
        .bind(row.receipted_at.map(time_text))
        .bind(i64::from(row.alarm))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Lets a certificate that the service refused wait again, to be filed from now on; why it was refused stands there until the next
    /// answer. Returns whether it was such a one.
    pub async fn release_refused(&mut self, certificate: &str, now: DateTime<Utc>) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE outbox SET state = 'pending', next_at = $2 WHERE certificate = $1 AND state = 'quarantined'",
        )
        .bind(certificate)
        .bind(time_text(now))
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Puts a better receipt in the place of the one that a filed certificate has; returns whether there was one.
    pub async fn better_receipt(&mut self, row: &OutboxRow) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE outbox SET state = 'receipted', receipt = $2, grade = $3, receipted_at = $4 \
             WHERE certificate = $1 AND state IN ('receipted', 'acknowledged')",
        )
        .bind(&row.certificate)
        .bind(&row.receipt)
        .bind(&row.grade)
        .bind(row.receipted_at.map(time_text))
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Ids of all cells that are not dead, for a drill that tries every key there is.
    pub async fn living_cell_ids(&mut self) -> Result<Vec<i64>> {
        let rows =
            sqlx::query("SELECT id FROM cell WHERE state = 'live' ORDER BY id").fetch_all(&mut *self.inner).await?;
        rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Stores a drill record. Numbers are unique: a record that another one came before is refused.
    pub async fn add_drill(&mut self, drill: &DrillRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO drill (id, number, store, snapshot, passed, returned, at, record) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&drill.id)
        .bind(drill.number)
        .bind(&drill.store)
        .bind(&drill.snapshot)
        .bind(i64::from(drill.passed))
        .bind(drill.returned)
        .bind(time_text(drill.at))
        .bind(&drill.record)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Drill records in the order of their numbers.
    pub async fn drills(&mut self) -> Result<Vec<DrillRow>> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{DRILL} ORDER BY number")));
        rows.fetch_all(&mut *self.inner).await?.iter().map(drill_row).collect()
    }

    /// The newest drill record, which the next one continues.
    pub async fn last_drill(&mut self) -> Result<Option<DrillRow>> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{DRILL} ORDER BY number DESC LIMIT 1")));
        row.fetch_optional(&mut *self.inner).await?.as_ref().map(drill_row).transpose()
    }
}

fn drill_row(row: &sqlx::any::AnyRow) -> Result<DrillRow> {
    Ok(DrillRow {
        id: row.try_get(0)?,
        number: row.try_get(1)?,
        store: row.try_get(2)?,
        snapshot: row.try_get(3)?,
        passed: row.try_get::<i64, _>(4)? != 0,
        returned: row.try_get(5)?,
        at: parse_time(&row.try_get::<String, _>(6)?)?,
        record: row.try_get(7)?,
    })
}

fn certificate_row(row: &sqlx::any::AnyRow) -> Result<CertificateRow> {
    Ok(CertificateRow {
        id: row.try_get(0)?,
        sequence: row.try_get(1)?,
        run: row.try_get(2)?,
        result: row.try_get(3)?,
        digest: row.try_get(4)?,
        envelope: row.try_get(5)?,
        evidence: row.try_get(6)?,
        issued_at: parse_time(&row.try_get::<String, _>(7)?)?,
        supersedes: row.try_get(8)?,
    })
}

fn outbox_row(row: &sqlx::any::AnyRow) -> Result<OutboxRow> {
    Ok(OutboxRow {
        certificate: row.try_get(0)?,
        state: row.try_get(1)?,
        attempts: row.try_get(2)?,
        next_at: parse_time(&row.try_get::<String, _>(3)?)?,
        problem: row.try_get(4)?,
        receipt: row.try_get(5)?,
        grade: row.try_get(6)?,
        receipted_at: optional_time(row.try_get(7)?)?,
        alarm: row.try_get::<i64, _>(8)? != 0,
    })
}
