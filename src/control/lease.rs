//! Leases: which process may work, and the fencing token that proves it inside a transaction.

use std::path::Path;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{ControlError, Result, Tx, parse_time, time_text};

/// The answer to [`Tx::take_lease`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// It is ours, under this fencing token.
    Taken {
        /// The fencing token.
        token: i64,
    },
    /// Another live process has it.
    HeldBy {
        /// That process.
        pid: i64,
    },
}

impl Tx {
    /// Takes the lease `name` when it is free, expired, left over from a dead process, or already `holder`'s; returns the
    /// fencing token, or the pid of who holds it. Every taking by a new holder raises the token.
    ///
    /// Pids say nothing across pid namespaces and an expired holder may still be alive, so the caller must hold the
    /// installation's file lock: whoever has that lock knows that no other process works.
    pub async fn take_lease(
        &mut self,
        name: &str,
        holder: &str,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Lease> {
        let pid = i64::from(std::process::id());
        let row = sqlx::query("SELECT holder, pid, token, expires_at FROM lease WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *self.inner)
            .await?;
        let mut token = 1;
        if let Some(row) = row {
            let current: String = row.try_get(0)?;
            let current_pid: i64 = row.try_get(1)?;
            token = row.try_get(2)?;
            let expires = parse_time(&row.try_get::<String, _>(3)?)?;
            if current != holder {
                // Our own pid is a leftover: a restarted container often gets the number of the process that died.
                if expires > now && current_pid != pid && process_lives(current_pid) {
                    return Ok(Lease::HeldBy { pid: current_pid });
                }
                token += 1;
            }
        }
        sqlx::query(
            "INSERT INTO lease (name, holder, pid, token, expires_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) \
             DO UPDATE SET holder = excluded.holder, pid = excluded.pid, token = excluded.token, expires_at = excluded.expires_at",
        )
        .bind(name)
        .bind(holder)
        .bind(pid)
        .bind(token)
        .bind(time_text(until))
        .execute(&mut *self.inner)
        .await?;
        Ok(Lease::Taken { token })
    }

    /// Refuses unless `token` is the lease's present token and somebody holds it. In a transaction of [`super::Control::begin`]
    /// this fences the commit: nobody can take the lease before it ends.
    ///
    /// # Errors
    /// [`ControlError::LeaseLost`]; the transaction must not be committed then.
    pub async fn require_token(&mut self, name: &str, token: i64) -> Result<()> {
        let found = sqlx::query("SELECT 1 FROM lease WHERE name = $1 AND token = $2 AND holder <> ''")
            .bind(name)
            .bind(token)
            .fetch_optional(&mut *self.inner)
            .await?;
        found.map(|_| ()).ok_or_else(|| ControlError::LeaseLost { name: name.to_owned() })
    }

    /// Prolongs the lease that is held under `token`. Unlike [`Tx::take_lease`] this never takes one that is lost or given back.
    ///
    /// # Errors
    /// [`ControlError::LeaseLost`].
    pub async fn extend_lease(&mut self, name: &str, token: i64, until: DateTime<Utc>) -> Result<()> {
        self.require_token(name, token).await?;
        sqlx::query("UPDATE lease SET expires_at = MAX(expires_at, $3) WHERE name = $1 AND token = $2")
            .bind(name)
            .bind(token)
            .bind(time_text(until))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The pid of the live process that holds the lease, if any.
    pub async fn lease_holder(&mut self, name: &str, now: DateTime<Utc>) -> Result<Option<i64>> {
        let row = sqlx::query("SELECT pid, expires_at FROM lease WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *self.inner)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let pid: i64 = row.try_get(0)?;
        let expires = parse_time(&row.try_get::<String, _>(1)?)?;
        Ok((expires > now && process_lives(pid)).then_some(pid))
    }

    /// Gives the lease back.
    pub async fn release_lease(&mut self, name: &str, holder: &str) -> Result<()> {
        sqlx::query("UPDATE lease SET expires_at = $1, holder = '' WHERE name = $2 AND holder = $3")
            .bind(time_text(DateTime::UNIX_EPOCH))
            .bind(name)
            .bind(holder)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}

/// Whether a process with this id is seen from here. Another process in another pid namespace may have the same id.
fn process_lives(pid: i64) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
