//! Whether the clock can be believed: destruction by a wrong clock cannot be taken back.

use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::Clock;
use crate::control::{Control, Tx, parse_time, time_text};
use crate::erase::Site;
use crate::error::{Result, TaskError};
use crate::stores::Engine;

/// The clock may differ from a database's, or lie behind what it said already, by so much before destruction stops.
pub const MAX_CLOCK_DIFFERENCE: TimeDelta = TimeDelta::minutes(5);
/// The clock may run ahead of the last time it was noted by so much before a person must confirm it. Every command that
/// takes the lease notes it, and a running agent each minute.
pub const MAX_CLOCK_LEAP: TimeDelta = TimeDelta::days(3);
/// The latest time that was believed.
const SEEN: &str = "clock_seen";
/// When a person last said that the clock is right.
const CONFIRMED: &str = "clock_confirmed";

/// What the control database remembers of the clock.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    seen: Option<DateTime<Utc>>,
    confirmed: Option<DateTime<Utc>>,
}

async fn remembered(tx: &mut Tx) -> Result<Memory> {
    Ok(Memory { seen: instant(tx, SEEN).await?, confirmed: instant(tx, CONFIRMED).await? })
}

async fn instant(tx: &mut Tx, name: &str) -> Result<Option<DateTime<Utc>>> {
    let Some(text) = tx.meta(name).await? else { return Ok(None) };
    let time = parse_time(&text).map_err(|_| {
        TaskError::refused(
            format!("the entry `{name}` of the control database is unreadable, so the clock is doubtful"),
            "check the clock, then confirm it with `wangchuan doctor --confirm-clock`",
        )
    })?;
    Ok(Some(time))
}

/// Decides from what is remembered.
fn believe(now: DateTime<Utc>, memory: Memory) -> Result<()> {
    let Some(seen) = memory.seen else { return Ok(()) };
    if now + MAX_CLOCK_DIFFERENCE < seen {
        return Err(TaskError::refused(
            format!("the clock says {now}, but it was {seen} already: it was set back"),
            "set the clock right; nothing is destroyed by a doubtful clock",
        ));
    }
    let is_confirmed = memory.confirmed.is_some_and(|confirmed| (now - confirmed).abs() <= MAX_CLOCK_LEAP);
    if now - seen > MAX_CLOCK_LEAP && !is_confirmed {
        return Err(TaskError::refused(
            format!("the clock says {now}, and was last seen at {seen}: it may have been set forward"),
            "check the clock, then confirm it with `wangchuan doctor --confirm-clock`",
        ));
    }
    Ok(())
}

/// Refuses a clock that contradicts what was seen earlier or any reachable database. The databases are asked first: nothing
/// is locked meanwhile.
pub(super) async fn check(control: &Control, clock: &dyn Clock, sites: &[Site]) -> Result<()> {
    believe(clock.now(), remembered(&mut control.read().await?).await?)?;
    // SQLite has no clock of its own: it would only repeat this host's.
    for site in sites.iter().filter(|site| site.store.engine() != Engine::Sqlite) {
        let theirs = site.store.server_time().await?;
        let now = clock.now();
        if (theirs - now).abs() > MAX_CLOCK_DIFFERENCE {
            return Err(TaskError::refused(
                format!("the clock here says {now}, that of store {} says {theirs}", site.model.spec.name),
                "set the clocks right; nothing is destroyed by a doubtful clock",
            ));
        }
    }
    let now = clock.now();
    let mut tx = control.begin().await?;
    let memory = remembered(&mut tx).await?;
    believe(now, memory)?;
    put(&mut tx, now, memory).await?;
    tx.commit().await?;
    Ok(())
}

/// Notes the time if it can be believed; leaves it to the next [`check`] to complain if not.
pub(super) async fn note_time(control: &Control, now: DateTime<Utc>) -> Result<()> {
    let mut tx = control.begin().await?;
    note_in(&mut tx, now).await?;
    Ok(tx.commit().await?)
}

/// [`note_time`] in a transaction that is open already.
pub(super) async fn note_in(tx: &mut Tx, now: DateTime<Utc>) -> Result<()> {
    let memory = match remembered(tx).await {
        Ok(memory) => memory,
        Err(TaskError::Refused { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    if believe(now, memory).is_ok() {
        put(tx, now, memory).await?;
    }
    Ok(())
}

/// Notes that a person confirmed the clock.
pub(super) async fn confirm(control: &Control, now: DateTime<Utc>) -> Result<()> {
    let mut tx = control.begin().await?;
    tx.set_meta(SEEN, &time_text(now)).await?;
    tx.set_meta(CONFIRMED, &time_text(now)).await?;
    tx.commit().await?;
    Ok(())
}

async fn put(tx: &mut Tx, now: DateTime<Utc>, memory: Memory) -> Result<()> {
    Ok(tx.set_meta(SEEN, &time_text(memory.seen.map_or(now, |seen| seen.max(now)))).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(number: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000 + number)
    }

    #[test]
    fn leaps_need_a_fresh_confirmation_and_setting_back_is_never_believed() {
        let seen = Memory { seen: Some(day(10)), confirmed: None };
        assert!(believe(day(10), Memory::default()).is_ok());
        assert!(believe(day(13), seen).is_ok());
        assert!(believe(day(13) + TimeDelta::seconds(1), seen).is_err());
        assert!(believe(day(10) - TimeDelta::minutes(5), seen).is_ok());
        assert!(believe(day(10) - TimeDelta::minutes(6), seen).is_err());
        let confirmed = |at| Memory { confirmed: Some(day(at)), ..seen };
        assert!(believe(day(40), confirmed(38)).is_ok());
        assert!(believe(day(40), confirmed(36)).is_err());
        assert!(believe(day(9), confirmed(9)).is_err());
    }

    #[tokio::test]
    async fn an_unreadable_memory_refuses_and_a_leap_is_not_noted() {
        let folder = tempfile::tempdir().unwrap();
        let control = crate::control::testing::create(&folder.path().join("state.db"), [1; 16]).await;
        let at = |number| crate::clock::FixedClock(day(number));
        check(&control, &at(1), &[]).await.unwrap();
        note_time(&control, day(3)).await.unwrap();
        check(&control, &at(5), &[]).await.unwrap();
        note_time(&control, day(30)).await.unwrap();
        assert_eq!(control.read().await.unwrap().meta(SEEN).await.unwrap(), Some(time_text(day(5))));
        assert!(check(&control, &at(30), &[]).await.is_err());
        confirm(&control, day(30)).await.unwrap();
        check(&control, &at(30), &[]).await.unwrap();
        let mut tx = control.begin().await.unwrap();
        tx.set_meta(SEEN, "yesterday").await.unwrap();
        tx.commit().await.unwrap();
        note_time(&control, day(31)).await.unwrap();
        assert!(check(&control, &at(31), &[]).await.is_err());
    }
}
