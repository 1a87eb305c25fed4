//! Leases: which process may work, and the fencing token that proves it inside a transaction.

use std::path::Path;

use chrono::{DateTime, Utc};
use sqlx::{Any, Row as _, Transaction};

use super::engine::Engine;
use super::{ControlError, Result, Tx, parse_time, time_text};

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHolder {
    /// The process.
    pub pid: i64,
    /// The host it runs on, where several hosts can work with the control database.
    pub host: Option<String>,
}

impl std::fmt::Display for LeaseHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Some(host) => write!(f, "process {} on host {host}", self.pid),
            None => write!(f, "process {}", self.pid),
        }
    }
}

/// The answer to [`Tx::take_lease`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// It is ours, under this fencing token.
    Taken {
        /// The fencing token.
        token: i64,
    },
    /// Another live process has it.
    HeldBy(LeaseHolder),
}

/// The name of a holder where several hosts work with one control database: an id of its own, where pids can be compared with
/// its, and its host's name for people.
#[must_use]
pub fn shared_holder(id: &str, host: &str) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let pids = std::fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default();
    let one_word = |text: &str| text.split_whitespace().collect::<String>();
    format!("{id} {}/{} {}", one_word(&boot), one_word(&pids), one_word(host))
}

/// Where a holder's pid means something; none for an SQLite file, which has one host.
fn machine_of(holder: &str) -> Option<&str> {
    holder.split(' ').nth(1)
}

fn holder_of(pid: i64, holder: &str) -> LeaseHolder {
    LeaseHolder { pid, host: holder.split(' ').nth(2).map(str::to_owned) }
}

impl Tx {
    /// The time that leases are measured by: the server's where there is one, so that hosts with different clocks agree.
    async fn lease_time(&mut self, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
        if self.engine == Engine::Sqlite {
            return Ok(now);
        }
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let row = sqlx::query(sql).fetch_one(&mut *self.inner).await?;
        DateTime::from_timestamp_millis(row.try_get(0)?)
            .ok_or_else(|| ControlError::Inconsistent("the server's clock tells no time".to_owned()))
    }

    /// Takes the lease `name` when it is free, expired, left over from a dead process, or already `holder`'s; returns the
    /// fencing token, or who holds it. Every taking by a new holder raises the token.
    ///
    /// Pids are given again, say nothing across pid namespaces, and an expired holder may still be alive. On an SQLite file the caller
    /// must therefore hold the installation's file lock: whoever has that lock knows that no other process works, and any lease
    /// found there is a leftover. On PostgreSQL the
    /// holder's name ([`shared_holder`]) says where its pid counts, the server's clock says what is expired, and the fence
    /// ([`super::Control::set_fence`]) keeps an expired holder that is still alive from writing anything.
    pub async fn take_lease(
        &mut self,
        name: &str,
        holder: &str,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Lease> {
        let pid = i64::from(std::process::id());
        let lasts = until - now;
        let now = self.lease_time(now).await?;
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
                let is_dead =
                    machine_of(&current) == machine_of(holder) && (current_pid == pid || !process_lives(current_pid));
                if self.engine == Engine::Postgres && expires > now && !is_dead {
                    return Ok(Lease::HeldBy(holder_of(current_pid, &current)));
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
        .bind(time_text(now + lasts))
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
        require(&mut self.inner, name, token).await
    }

    /// Prolongs the lease that is held under `token`. Unlike [`Tx::take_lease`] this never takes one that is lost or given back.
    ///
    /// # Errors
    /// [`ControlError::LeaseLost`].
    pub async fn extend_lease(
        &mut self,
        name: &str,
        token: i64,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<()> {
        self.require_token(name, token).await?;
        let until = self.lease_time(now).await? + (until - now);
        sqlx::query("UPDATE lease SET expires_at = $3 WHERE name = $1 AND token = $2 AND expires_at < $3")
            .bind(name)
            .bind(token)
            .bind(time_text(until))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The live process that holds the lease, if any. One on another host counts until its lease is over.
    pub async fn lease_holder(&mut self, name: &str, now: DateTime<Utc>) -> Result<Option<LeaseHolder>> {
        let now = self.lease_time(now).await?;
        let row = sqlx::query("SELECT pid, expires_at, holder FROM lease WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *self.inner)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let pid: i64 = row.try_get(0)?;
        let expires = parse_time(&row.try_get::<String, _>(1)?)?;
        let holder: String = row.try_get(2)?;
        let own = shared_holder("-", "-");
        let is_elsewhere = machine_of(&holder).is_some_and(|machine| Some(machine) != machine_of(&own));
        let is_held = !holder.is_empty() && expires > now && (is_elsewhere || process_lives(pid));
        Ok(is_held.then(|| holder_of(pid, &holder)))
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

/// As [`Tx::require_token`].
pub(super) async fn require(transaction: &mut Transaction<'static, Any>, name: &str, token: i64) -> Result<()> {
    let found = sqlx::query("SELECT 1 FROM lease WHERE name = $1 AND token = $2 AND holder <> ''")
        .bind(name)
        .bind(token)
        .fetch_optional(&mut **transaction)
        .await?;
    found.map(|_| ()).ok_or_else(|| ControlError::LeaseLost { name: name.to_owned() })
}

/// Whether a process with this id is seen from here, and did not end already without having been waited for. Another process in
/// another pid namespace may have the same id.
fn process_lives(pid: i64) -> bool {
    let Ok(stat) = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")) else { return false };
    // The program's name stands in parentheses and may hold any: the state is the first word after the last one.
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    !matches!(state, Some("Z" | "X"))
}
