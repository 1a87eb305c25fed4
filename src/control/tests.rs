use chrono::{DateTime, TimeDelta, Utc};

use super::{Control, ControlError, DoomedRoot, DyingKeys, Lease, SlotTable, Tx};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(seconds)
}

async fn control(folder: &tempfile::TempDir) -> Control {
    super::testing::create(&folder.path().join("state.db"), [7; 16]).await
}

#[tokio::test]
async fn a_lost_lease_neither_renews_nor_writes() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder).await;
    let mut tx = control.begin().await.unwrap();
    let Lease::Taken { token } = tx.take_lease("work", "a", at(0), at(600)).await.unwrap() else { panic!("not taken") };
    tx.require_token("work", token).await.unwrap();
    // Expired, and another holder comes.
    let Lease::Taken { token: next } = tx.take_lease("work", "b", at(601), at(1200)).await.unwrap() else {
        panic!("not stolen")
    };
    assert_eq!(next, token + 1);
    assert!(matches!(tx.require_token("work", token).await, Err(ControlError::LeaseLost { .. })));
    assert!(matches!(tx.extend_lease("work", token, at(601), at(9999)).await, Err(ControlError::LeaseLost { .. })));
    tx.extend_lease("work", next, at(601), at(2000)).await.unwrap();
    assert!(tx.lease_holder("work", at(1999)).await.unwrap().is_some());
    // Given back: even the last token is worth nothing.
    tx.release_lease("work", "b").await.unwrap();
    assert!(tx.require_token("work", next).await.is_err());
    assert!(tx.extend_lease("work", next, at(601), at(9999)).await.is_err());
    assert!(tx.require_token("work", 0).await.is_err());
}

/// The file lock has told already that nobody works: the lease of one that died is no obstacle, whoever has got its number since.
#[tokio::test]
async fn on_a_file_a_leftover_lease_with_the_pid_of_another_process_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder).await;
    let mut tx = control.begin().await.unwrap();
    let Lease::Taken { token } = tx.take_lease("work", "died", at(0), at(600)).await.unwrap() else { panic!() };
    if control.is_shared() {
        return; // A server has hosts elsewhere: there the lease itself has to say it.
    }
    tx.commit().await.unwrap();
    super::testing::run(&control, "UPDATE lease SET pid = 1").await;
    let mut tx = control.begin().await.unwrap();
    assert_eq!(tx.take_lease("work", "new", at(1), at(600)).await.unwrap(), Lease::Taken { token: token + 1 });
}

/// A process that ended and was not waited for works as little as one that is gone.
#[tokio::test]
async fn a_zombie_holds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder).await;
    let mut tx = control.begin().await.unwrap();
    tx.take_lease("work", "died", at(0), at(600)).await.unwrap();
    tx.commit().await.unwrap();
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    super::testing::run(&control, &format!("UPDATE lease SET pid = {}", child.id())).await;
    assert!(control.read().await.unwrap().lease_holder("work", at(1)).await.unwrap().is_some());
    child.kill().unwrap();
    let mut holder = Some(());
    for _ in 0..500 {
        holder = control.read().await.unwrap().lease_holder("work", at(1)).await.unwrap().map(|_| ());
        if holder.is_none() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    child.wait().unwrap();
    assert_eq!(holder, None, "a zombie counts as the lease's holder");
}

#[tokio::test]
async fn an_interrupted_making_is_named_and_completed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    assert!(matches!(Control::open(&path).await, Err(ControlError::Missing { .. })));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(Control::open(&path).await, Err(ControlError::Incomplete { .. })));
    Control::create(&path, [1; 16]).await.unwrap().close().await;
    Control::create(&path, [2; 16]).await.unwrap().close().await;
    let control = Control::open(&path).await.unwrap();
    assert_eq!(control.read().await.unwrap().installation().await.unwrap(), [1; 16]);
}

#[tokio::test]
async fn a_transaction_that_the_engine_ended_spoils_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder).await;
    for _ in 0..8 {
        let mut tx = control.begin().await.unwrap();
        // As a full disk does it: the driver's own roll-back will find no transaction.
        sqlx::raw_sql("ROLLBACK").execute(&mut *tx.inner).await.unwrap();
        drop(tx);
    }
    let mut tx = control.begin().await.unwrap();
    tx.set_meta("still", "works").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(control.read().await.unwrap().meta("still").await.unwrap().as_deref(), Some("works"));
}

/// What SQLite says of every connection there is, once all were given back.
async fn settings(control: &Control, name: &'static str) -> Vec<i64> {
    let pool = &control.database.pool;
    let size = usize::try_from(pool.size()).unwrap();
    for _ in 0..500 {
        if pool.num_idle() == size {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(pool.num_idle(), size, "a connection was not given back");
    let (mut held, mut found) = (Vec::new(), Vec::new());
    for _ in 0..size {
        let mut tx = control.read().await.unwrap();
        found.extend(numbers(&mut tx, name).await);
        held.push(tx);
    }
    assert_eq!(usize::try_from(pool.size()).unwrap(), size, "another connection answered");
    found
}

/// A job that runs out of time is dropped anywhere: between the statements that change a connection, too.
#[tokio::test]
async fn a_connection_that_is_given_back_overwrites_what_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::create(&folder.path().join("state.db"), [7; 16]).await.unwrap();
    let (overwrites, cache) = ("PRAGMA secure_delete", "PRAGMA cache_size");
    let mut tx = control.begin().await.unwrap();
    assert_eq!((numbers(&mut tx, overwrites).await, numbers(&mut tx, cache).await), (vec![1], vec![-2000]));
    tx.drop_tree_nodes(&[(1, 1, 1, 1)]).await.unwrap();
    assert_eq!(numbers(&mut tx, overwrites).await, [1], "changed back");
    for change in ["PRAGMA secure_delete = FAST", "PRAGMA cache_size = -65536"] {
        sqlx::raw_sql(change).execute(&mut *tx.inner).await.unwrap();
    }
    assert_eq!((numbers(&mut tx, overwrites).await, numbers(&mut tx, cache).await), (vec![2], vec![-65536]));
    drop(tx);
    assert!(settings(&control, overwrites).await.iter().all(|value| *value == 1));
    assert!(settings(&control, cache).await.iter().all(|value| *value == -2000));
}

async fn numbers(tx: &mut Tx, query: &'static str) -> Vec<i64> {
    use sqlx::Row as _;
    let rows = sqlx::query(query).fetch_all(&mut *tx.inner).await.unwrap();
    rows.iter().map(|row| row.try_get(0).unwrap()).collect()
}

#[tokio::test]
async fn a_burial_ends_the_cells_that_lost_a_key_and_their_history_only() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder).await;
    let mut tx = control.begin().await.unwrap();
    tx.add_subjects(&[(1, [1; 32]), (2, [2; 32])]).await.unwrap();
    // Of subject 1: one without a pin, one that a pin preserves. Of subject 2: in a bucket that dies, in another one, pinned
    // ones whose pin dies and lives. One without a subject in the dying bucket.
    let cells = [(Some(1), 8), (Some(1), 9), (Some(2), 8), (Some(2), 9), (Some(2), 10), (Some(2), 11), (None, 8)];
    let mut ids = Vec::new();
    for (subject, bucket) in cells {
        let cell = tx.cell(subject, bucket).await.unwrap();
        tx.note_sealed_rows(1, &[([cell.id as u8; 16], cell.id)]).await.unwrap();
        ids.push(cell.id);
    }
    for (at, pin) in [(1, 70_i64), (4, 71), (5, 72)] {
        tx.set_cell_pin(ids[at], pin as u32).await.unwrap();
        sqlx::query(
            "INSERT INTO pin (slot, cell, lookup, bucket_name, kind, reason, state, run, rows) \
             VALUES ($1, $2, $3, '', 'preserving', 'test', 'active', 'r', 1)",
        )
        .bind(pin)
        .bind(ids[at])
        .bind(&b""[..])
        .execute(&mut *tx.inner)
        .await
        .unwrap();
    }
    let dying = DyingKeys { subjects: vec![1], buckets: vec![8], pins: vec![71], ..DyingKeys::default() };
    tx.bury(&dying, 2).await.unwrap();
    let living = [ids[1], ids[3], ids[5]];
    assert_eq!(numbers(&mut tx, "SELECT id FROM cell WHERE state = 'live' ORDER BY id").await, living);
    assert_eq!(numbers(&mut tx, "SELECT cell FROM sealed_row ORDER BY cell").await, living);
    assert_eq!(numbers(&mut tx, "SELECT slot FROM pin WHERE state = 'destroyed'").await, [71]);
    assert_eq!(numbers(&mut tx, "SELECT slot FROM subject WHERE state = 'destroyed' AND lookup IS NULL").await, [1]);
    assert_eq!(tx.known_subject_slots(&[2; 32]).await.unwrap(), [2]);
}

#[tokio::test]
async fn a_sample_of_a_large_table_is_spread_and_holds_no_key_that_dies() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder).await;
    let mut tx = control.begin().await.unwrap();
    let subjects: Vec<_> = (1..=10_000_u32)
        .map(|number| {
            let mut lookup = [0; 32];
            lookup[..4].copy_from_slice(&number.to_be_bytes());
            (number, lookup)
        })
        .collect();
    tx.add_subjects(&subjects).await.unwrap();
    let sample = tx.sample_slots(SlotTable::Subject, 64, 1).await.unwrap();
    assert!((32..=64).contains(&sample.len()));
    for part in 0..8 {
        let range = part * 1_250 + 1..=(part + 1) * 1_250;
        assert!(sample.iter().any(|slot| range.contains(slot)), "none in {range:?}");
    }
    assert_ne!(tx.sample_slots(SlotTable::Subject, 64, 2).await.unwrap(), sample);
    // The next one that lives is taken.
    let dying = DyingKeys { subjects: (1..=10_000).filter(|number| number % 3 > 0).collect(), ..DyingKeys::default() };
    tx.bury(&dying, 2).await.unwrap();
    let sample = tx.sample_slots(SlotTable::Subject, 64, 1).await.unwrap();
    assert!((32..=64).contains(&sample.len()) && sample.iter().all(|slot| slot % 3 == 0));
    // Few are left: they are found all the same.
    let dying = DyingKeys { subjects: (1..=9_000).collect(), ..DyingKeys::default() };
    tx.bury(&dying, 2).await.unwrap();
    let sample = tx.sample_slots(SlotTable::Subject, 64, 1).await.unwrap();
    assert_eq!((sample.len(), sample.iter().all(|slot| *slot > 9_000)), (64, true));
    assert!(tx.sample_slots(SlotTable::Chain, 64, 1).await.unwrap().is_empty());
}

#[tokio::test]
async fn keys_that_a_doomed_root_leads_to_are_not_counted_as_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder).await;
    let mut tx = control.begin().await.unwrap();
    let day = |day: i64| super::parse_time("2026-03-01T00:00:00.000Z").unwrap() + chrono::TimeDelta::days(day);
    tx.add_subjects(&[(1, [1; 32]), (2, [2; 32]), (3, [3; 32]), (4, [4; 32])]).await.unwrap();
    for (slot, generation) in [(1, 2), (2, 3), (3, 4)] {
        let dying = DyingKeys { subjects: vec![slot], ..DyingKeys::default() };
        tx.bury(&dying, generation).await.unwrap();
    }
    let root = |generation: i64, until: i64, gone: Option<i64>| DoomedRoot {
        generation,
        begun_at: day(0),
        irrevocable_at: day(until),
        called_off: 0,
        told: 0,
        destroyed: "{}".to_owned(),
        gone_at: gone.map(day),
        evidence: gone.map(|_| "{}".to_owned()),
    };
    let mut shown = async |roots: &[DoomedRoot]| {
        for root in roots {
            tx.put_doomed_root(root).await.unwrap();
        }
        let groups = tx.key_groups().await.unwrap();
        let groups = groups.into_iter().filter(|group| group.kind == "subjects");
        let shown = groups.map(|group| (group.state, group.pending_until, group.count)).collect::<Vec<_>>();
        let of = |is_pending: bool| {
            let alike = shown.iter().filter(|found| found.0 == "destroyed" && found.1.is_some() == is_pending);
            alike.map(|found| found.2).reduce(|sum, count| sum + count)
        };
        let (destroyed, pending) = (of(false), of(true));
        (shown, destroyed, pending)
    };
    let state = |state: &str, until: Option<i64>, count| (state.to_owned(), until.map(day), count);
    // Without such roots all three are destroyed.
    let (groups, destroyed, pending) = shown(&[]).await;
    assert_eq!(groups, [state("active", None, 1), state("destroyed", None, 3)]);
    assert_eq!((destroyed, pending), (Some(3), None));
    // The root of generation 2 knew the keys that died with 3 and 4, the one of 3 the last.
    let (mut groups, destroyed, pending) = shown(&[root(1, 7, Some(7)), root(2, 9, None), root(3, 8, None)]).await;
    groups.sort();
    assert_eq!(groups, [state("active", None, 1), state("destroyed", None, 1), state("destroyed", Some(9), 2)]);
    assert_eq!((destroyed, pending), (Some(1), Some(2)));
    let (mut groups, ..) = shown(&[root(2, 9, Some(9))]).await;
    groups.sort();
    assert_eq!(groups, [state("active", None, 1), state("destroyed", None, 2), state("destroyed", Some(8), 1)]);
    assert_eq!(shown(&[root(3, 8, Some(9))]).await.1, Some(3));
}
