use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, Connection as _};

use super::{
    Control, ControlError, ImageLoad, ImagePiece, Lease, SlotTable, StateLocation, Tx, ddl, log_store, shared_holder,
    testing,
};
use crate::backup::state_record::StateHeads;
use crate::log::store::{LeafStore as _, LeafStoreError, NewLeaf};
use crate::policy::registry::SecretText;

const ID: [u8; 16] = [7; 16];

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(seconds)
}

async fn on_server() -> Option<(StateLocation, Control)> {
    let place = testing::new_schema().await?;
    let control = Control::create_at(&place, ID).await.unwrap();
    control.log_store("operations").await.unwrap();
    Some((place, control))
}

/// Every table with its columns and their places in the key, without the one that only SQLite has.
async fn tables(tx: &mut Tx) -> BTreeMap<String, (Vec<String>, Vec<String>)> {
    let shapes = tx.table_shapes().await.unwrap();
    shapes.into_iter().map(|shape| (shape.name, (shape.columns, shape.order))).collect()
}

#[tokio::test]
async fn both_engines_have_the_same_schema() {
    let Some((_, server)) = on_server().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = Control::create(&folder.path().join("a.db"), ID).await.unwrap();
    file.log_store("operations").await.unwrap();
    let (mut here, mut there) = (file.read().await.unwrap(), server.read().await.unwrap());
    assert_eq!(tables(&mut here).await, tables(&mut there).await);
    let statements = here.statements().await.unwrap();
    assert_eq!(statements, there.statements().await.unwrap());
    // What the text says, no more and no less.
    let mut written = ddl::statements(super::SCHEMA);
    written.extend(ddl::statements(log_store::SCHEMA));
    written.sort();
    let mut found = statements;
    found.sort();
    assert_eq!(found, written);
}

async fn image(control: &Control) -> (Vec<Vec<u8>>, StateHeads) {
    let mut pieces = Vec::new();
    let heads = control.read().await.unwrap().image(&mut |piece: ImagePiece| pieces.push(piece.bytes)).await.unwrap();
    (pieces, heads)
}

async fn loaded(place: &StateLocation, pieces: &[Vec<u8>], heads: &StateHeads) -> Control {
    let mut load = ImageLoad::begin_at(place).await.unwrap();
    for piece in pieces {
        load.take(piece).await.unwrap();
    }
    load.finish(heads, &[]).await.unwrap()
}

/// Rows with every kind of value, and numbers that were given out.
async fn fill(control: &Control) {
    let mut tx = control.begin().await.unwrap();
    tx.put_tree_root(1, &[0, 1, 255], at(0)).await.unwrap();
    let nodes: Vec<_> = (0..3000).map(|index| ((1, 2, index, 1), vec![7; 20])).collect();
    tx.put_tree_nodes(&nodes).await.unwrap();
    tx.add_subjects(&[(5, [1; 32])]).await.unwrap();
    for _ in 0..3 {
        tx.add_request("erase", &[2; 32], at(1), at(2)).await.unwrap();
    }
    for subject in [None, Some(5)] {
        tx.cell(subject, 9).await.unwrap();
    }
    tx.set_meta("忘川", "it's").await.unwrap();
    tx.set_meta("a", "x").await.unwrap();
    tx.set_meta("_b", "x").await.unwrap();
    tx.set_meta("B", "x").await.unwrap();
    tx.commit().await.unwrap();
    let log = control.log_store("operations").await.unwrap();
    let leaf = NewLeaf { id: "a".into(), entry: vec![1], salt: None, content: vec![2], time_ms: 5 };
    log.append(0, &[leaf], &[]).await.unwrap();
}

#[tokio::test]
async fn an_image_goes_from_either_engine_to_the_other() {
    let Some((_, server)) = on_server().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = Control::create(&folder.path().join("a.db"), ID).await.unwrap();
    file.log_store("operations").await.unwrap();
    fill(&server).await;
    fill(&file).await;
    let ((ours, heads), (theirs, _)) = (image(&file).await, image(&server).await);
    assert!(ours == theirs, "the same content makes the same image");

    let to_server = loaded(&testing::new_schema().await.unwrap(), &ours, &heads).await;
    let to_file = loaded(&StateLocation::Sqlite(folder.path().join("b.db")), &theirs, &heads).await;
    for made in [&to_server, &to_file] {
        assert!(image(made).await.0 == ours, "an image changed on its way");
        // Numbers given out are not given out again, and the log still forgets nothing.
        let mut tx = made.begin().await.unwrap();
        assert_eq!(tx.add_request("erase", &[3; 32], at(1), at(2)).await.unwrap(), 4);
        assert_eq!(tx.slots_by_cohort(SlotTable::Subject, 4).await.unwrap()[&1], 1);
        tx.commit().await.unwrap();
        assert!(sqlx::raw_sql("DELETE FROM log_leaf").execute(&made.database.pool).await.is_err());
    }
    let error = sqlx::raw_sql("TRUNCATE log_leaf").execute(&to_server.database.pool).await.unwrap_err();
    assert!(error.to_string().contains("a log entry is never deleted"), "{error}");
    // A schema that is not empty, or not the agent's alone, is refused.
    let StateLocation::Postgres(_) = &testing::new_schema().await.unwrap() else { panic!() };
    testing::run(&server, "CREATE TABLE notes (x TEXT)").await;
    let refused = server.read().await.unwrap().image(&mut |_: ImagePiece| ()).await.unwrap_err();
    assert!(refused.to_string().contains("the table notes is not the agent's"), "{refused}");
}

#[tokio::test]
async fn one_writes_at_a_time_and_readers_see_one_moment() {
    let Some((place, control)) = on_server().await else { return };
    let other = Control::open_at(&place).await.unwrap();
    let mut first = control.begin().await.unwrap();
    first.set_meta("x", "1").await.unwrap();
    let mut reader = other.read().await.unwrap();
    assert_eq!(reader.meta("x").await.unwrap(), None);
    let second = tokio::spawn(async move {
        let mut tx = other.begin().await.unwrap();
        let seen = tx.meta("x").await.unwrap();
        tx.set_meta("x", "2").await.unwrap();
        tx.commit().await.unwrap();
        seen
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!second.is_finished(), "a second writer did not wait");
    first.commit().await.unwrap();
    assert_eq!(second.await.unwrap().as_deref(), Some("1"), "it did not see what it had waited for");
    assert_eq!(reader.meta("x").await.unwrap(), None, "a reader's moment changed");
    assert!(reader.set_meta("x", "3").await.is_err(), "a reader wrote");
}

async fn take(control: &Control, holder: &str) -> Lease {
    let mut tx = control.begin().await.unwrap();
    let taken = tx.take_lease("work", holder, at(0), at(600)).await.unwrap();
    tx.commit().await.unwrap();
    taken
}

#[tokio::test]
async fn of_two_hosts_one_works_and_the_other_takes_over_when_the_lease_is_over() {
    let Some((place, a)) = on_server().await else { return };
    let b = Control::open_at(&place).await.unwrap();
    // Elsewhere, so that its pid says nothing here.
    let (there, here) = ("1 elsewhere/pid:[1] db1", shared_holder("2", "db2"));
    let Lease::Taken { token } = take(&a, there).await else { panic!("not taken") };
    a.set_fence(Some(("work", token)));
    let Lease::HeldBy(holder) = take(&b, &here).await else { panic!("taken from a live holder") };
    assert_eq!(holder.host.as_deref(), Some("db1"));
    assert!(b.read().await.unwrap().lease_holder("work", at(0)).await.unwrap().is_some());

    // The caller's clock plays no part: the server's does.
    let mut tx = b.begin().await.unwrap();
    assert!(matches!(tx.take_lease("work", &here, at(9_999_999), at(9_999_999)).await.unwrap(), Lease::HeldBy(_)));
    drop(tx);
    testing::run(&b, "UPDATE lease SET expires_at = '2001-01-01T00:00:00.000Z'").await;
    assert_eq!(b.read().await.unwrap().lease_holder("work", at(0)).await.unwrap(), None);
    let Lease::Taken { token: next } = take(&b, &here).await else { panic!("an expired lease is not taken over") };
    assert_eq!(next, token + 1);
    b.set_fence(Some(("work", next)));

    // The first one comes back and writes nothing at all, into its log neither; it still reads.
    let lost = |error: &ControlError| matches!(error, ControlError::LeaseLost { .. });
    assert!(lost(&a.begin().await.err().unwrap()));
    let log = a.log_store("operations").await.unwrap();
    let leaf = NewLeaf { id: "z".into(), entry: vec![1], salt: None, content: vec![], time_ms: 5 };
    let refused = log.append(0, std::slice::from_ref(&leaf), &[]).await.unwrap_err();
    assert!(matches!(&refused, LeafStoreError::Failed { what, .. } if what.contains("is lost")), "{refused:?}");
    assert!(log.put_checkpoint(1, "note").await.is_err());
    a.read().await.unwrap().meta("x").await.unwrap();
    let mut tx = b.begin().await.unwrap();
    tx.set_meta("x", "1").await.unwrap();
    tx.commit().await.unwrap();
    log.append(0, &[leaf], &[]).await.unwrap_err();
    assert_eq!(log.size().await.unwrap(), 0);
    // A leftover of a process of this host that is gone is taken at once.
    testing::run(&b, "UPDATE lease SET pid = 4194999").await;
    assert_eq!(b.read().await.unwrap().lease_holder("work", at(0)).await.unwrap(), None);
    assert!(matches!(take(&b, &shared_holder("3", "db2")).await, Lease::Taken { token } if token == next + 1));
}

#[tokio::test]
async fn a_server_that_may_lose_commits_is_refused_unless_the_address_accepts_it() {
    let Some((place, control)) = on_server().await else { return };
    let StateLocation::Postgres(url) = &place else { panic!() };
    let strict = SecretText::new(url.dangerous_text().replace("fsync=off&", ""));
    let refused = Control::open_at(&StateLocation::Postgres(strict)).await.unwrap_err();
    assert!(matches!(refused, ControlError::NotDurable), "{refused}");
    // The private server answers before the disk has it; the agent's own sessions do not.
    let setting: String =
        sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&control.database.pool).await.unwrap();
    assert_eq!(setting, "on");
}

#[tokio::test]
async fn errors_of_the_server_say_what_to_do_and_no_password() {
    let gone = StateLocation::Postgres(SecretText::new("postgres://u:geheim@127.0.0.1:1/d".to_owned()));
    let error = Control::open_at(&gone).await.unwrap_err();
    assert!(matches!(error, ControlError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    assert!(!format!("{error:?} {error}").contains("geheim"));
    let Some((place, control)) = on_server().await else { return };
    let empty = testing::new_schema().await.unwrap();
    let error = Control::open_at(&empty).await.unwrap_err();
    assert!(matches!(&error, ControlError::Missing { path } if !path.contains("search_path")), "{error}");
    // A lock that is not given back in time.
    testing::run(&control, "ALTER ROLE CURRENT_USER RESET lock_timeout").await;
    let StateLocation::Postgres(url) = &place else { panic!() };
    let mut stuck = sqlx::PgConnection::connect(&url.dangerous_text().replace("fsync=off&", "")).await.unwrap();
    let lock = super::engine::WRITER_LOCK.replace("_xact", "");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut stuck).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(30), control.begin()).await.unwrap();
    assert!(matches!(waited.err(), Some(ControlError::Busy)));
    stuck.close().await.unwrap();
    control.begin().await.unwrap();
}
