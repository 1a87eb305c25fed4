//! What comes late or at a bad moment: a manifest after its snapshot was cancelled, a hold in the middle of a shred, a
//! retention that has nothing to do.

use std::sync::Mutex;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use wangchuan::agent::{run_task, verify_backups};
use wangchuan::backup::object_store::{ListedObject, ObjectStore, PutOutcome, RepositoryError};
use wangchuan::installation::Installation;
use wangchuan::schedule::{Task, VerifyTarget};
use wangchuan::tasks::backup::{Wanted, take_snapshot};
use wangchuan::tasks::shred::shred_due;

use super::requests::{hold_subject, release};
use crate::support::world::{World, body, forget, restore, retain, snapshot};

/// Keeps the first manifest back, as a network does that delivers it when nobody waits any more.
struct Slow<'s> {
    inner: &'s dyn ObjectStore,
    kept: Mutex<Option<(String, Vec<u8>)>>,
}

#[async_trait]
impl ObjectStore for Slow<'_> {
    async fn put_if_absent(&self, name: &str, bytes: Vec<u8>) -> Result<PutOutcome, RepositoryError> {
        if name.contains("manifest") {
            *self.kept.lock().unwrap() = Some((name.to_owned(), bytes));
            return Err(RepositoryError::Unreachable { operation: "put", detail: "no answer".to_owned() });
        }
        self.inner.put_if_absent(name, bytes).await
    }

    async fn get(&self, name: &str, limit: usize) -> Result<Vec<u8>, RepositoryError> {
        self.inner.get(name, limit).await
    }

    async fn get_range(&self, name: &str, offset: u64, length: u32) -> Result<Vec<u8>, RepositoryError> {
        self.inner.get_range(name, offset, length).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>, RepositoryError> {
        self.inner.list(prefix).await
    }

    async fn head(&self, name: &str) -> Result<Option<u64>, RepositoryError> {
        self.inner.head(name).await
    }
}

#[tokio::test]
async fn a_manifest_that_comes_after_its_snapshot_was_cancelled_counts_for_nothing() {
    let world = World::standard().await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let repository = installation.backup().unwrap().repository.clone();
    let slow = Slow { inner: repository.as_ref(), kept: Mutex::new(None) };
    let ground = installation.ground().unwrap();
    let failed = take_snapshot(&ground, &slow, &installation.signer, "shop", Wanted::Full).await;
    assert!(failed.is_err(), "{failed:?}");
    let second = snapshot(&installation).await;
    assert_eq!((first.sequence, second.sequence), (1, 2));
    let (name, bytes) = slow.kept.into_inner().unwrap().unwrap();
    repository.put_if_absent(&name, bytes).await.unwrap();

    let verified = verify_backups(&installation, "shop").await.unwrap();
    assert!(verified.is_valid(), "{verified:?}");
    assert_eq!(verified.uncommitted, [name]);
    assert_eq!(verified.manifests, 2);
    let third = snapshot(&installation).await;
    assert_eq!(third.sequence, 3);
    assert!(verify_backups(&installation, "shop").await.unwrap().is_valid());
    // Neither is it offered for a restore.
    let listed = installation.control.read().await.unwrap().snapshots(Some("shop")).await.unwrap();
    assert_eq!(listed.iter().map(|row| row.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    let report = restore(&world, &installation, &second, "second.db").await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    installation.close().await.unwrap();
}

/// Statements on the control database, beside the program.
async fn meddle(world: &World, sql: &str) {
    let file = world.config().agent.state;
    let wangchuan::config::StateLocation::Sqlite(path) = file else { panic!("no file") };
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_hold_that_comes_during_a_shred_keeps_back_only_what_it_covers() {
    // When its intent is logged, and when the change of generation has begun.
    for moment in ["log_leaf", "rekey"] {
        let world = World::standard().await;
        let installation = world.open().await;
        let (leaver, other) = (world.shop.picks.leaver.clone(), world.shop.picks.held.clone());
        snapshot(&installation).await;
        let held = forget(&installation, &leaver).await;
        let goes = forget(&installation, &other).await;
        snapshot(&installation).await;
        meddle(
            &world,
            &format!(
                "CREATE TRIGGER bad_moment AFTER INSERT ON {moment} WHEN NOT EXISTS (SELECT 1 FROM hold) BEGIN \
                 INSERT INTO hold (id, scope, subject, reason, placed_at, placed_by) \
                 SELECT 'h-5', 'subject', lookup, 'court', '2026-03-15T02:00:00Z', 'me' FROM request WHERE number = {}; END",
                held.request.unwrap()
            ),
        )
        .await;
        let report = shred_due(&installation).await.unwrap();
        assert_eq!(report.shredded, vec![goes.id], "{moment}: {report:?}");
        assert_eq!(report.waiting.len(), 1, "{moment}: {report:?}");
        let (run, reason) = &report.waiting[0];
        assert!(*run == held.id && reason.contains("h-5"), "{moment}: {report:?}");
        assert!(report.generation.is_some());
        meddle(&world, "DROP TRIGGER bad_moment").await;
        release(&installation, "h-5").await;
        assert_eq!(shred_due(&installation).await.unwrap().shredded, vec![held.id], "{moment}");
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_shred_job_says_why_each_run_waits() {
    let world = World::standard().await;
    let mut installation = world.open().await;
    let leaver = world.shop.picks.leaver.clone();
    snapshot(&installation).await;
    let run = forget(&installation, &leaver).await;
    let done = run_task(&mut installation, &Task::Shred).await;
    assert!(done.summary.ends_with("1 waiting"), "{done:?}");
    assert_eq!(done.details, [format!("run {} waits: store shop has no snapshot since the erasure yet", run.id)]);
    hold_subject(&installation, &leaver, "h-1").await;
    let done = run_task(&mut installation, &Task::Shred).await;
    assert!(done.details[0].contains("hold h-1 covers it until it is released"), "{done:?}");
    installation.close().await.unwrap();
}

async fn certificates(installation: &Installation) -> usize {
    installation.control.read().await.unwrap().certificates(None).await.unwrap().len()
}

#[tokio::test]
async fn retention_that_has_nothing_to_do_leaves_no_run_and_no_certificate() {
    let world = World::standard().await;
    // A store that is not there yet.
    let crm = "[[store]]\nname = \"crm\"\nurl = \"sqlite://crm.db\"\nbackup = \"none\"\n\n\
               [[store.collection]]\ntable = \"people\"\nsubject = \"id\"\n\n[[policy]]\nid = \"completed-orders\"";
    world.edit_config("[[policy]]\nid = \"completed-orders\"", crm);
    let mut installation = world.open().await;
    snapshot(&installation).await;
    let task = Task::Retention { policies: Vec::new() };
    let first = run_task(&mut installation, &task).await;
    assert_eq!((first.state, certificates(&installation).await), ("partial", 1), "{first:?}");
    // That crm was not reached stands in that certificate. Nothing else can go now: it is reported, no more.
    for _ in 0..2 {
        let again = run_task(&mut installation, &task).await;
        assert_eq!((again.state, certificates(&installation).await), ("partial", 1), "{again:?}");
        assert!(again.summary.contains(" 0 erased"), "{again:?}");
        assert!(again.details.iter().any(|line| line.contains("rows are kept")), "{again:?}");
        assert!(again.details.iter().any(|line| line.contains("crm was not reached")), "{again:?}");
    }
    // It comes, and goes again: that is news.
    world.fill("crm.db", &[]).await;
    let mut connection =
        SqliteConnection::connect(&format!("sqlite://{}", world.path("crm.db").display())).await.unwrap();
    sqlx::raw_sql("CREATE TABLE people (id TEXT NOT NULL PRIMARY KEY)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let there = run_task(&mut installation, &task).await;
    assert_eq!((there.state, certificates(&installation).await), ("done", 1), "{there:?}");
    std::fs::rename(world.path("crm.db"), world.path("away.db")).unwrap();
    let away = run_task(&mut installation, &task).await;
    assert_eq!((away.state, certificates(&installation).await), ("partial", 2), "{away:?}");
    // New rows to erase always make a run.
    world
        .run_sql(
            "UPDATE newsletter SET unsubscribed_at = '2020-01-01 00:00:00' \
                   WHERE customer_id IN (SELECT customer_id FROM newsletter LIMIT 5)",
        )
        .await;
    run_task(&mut installation, &task).await;
    assert_eq!(certificates(&installation).await, 3);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn retention_strips_a_due_parent_whose_child_is_not_due() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = retain(&installation).await;
    let counts = body(&run);
    assert!(counts.stripped > 0, "{counts:?}");
    // Closed accounts that an order still needs hold no name and no address any more.
    let empty = "SELECT count(*) FROM customers WHERE name = '' AND email = '' AND closed_at IS NOT NULL";
    assert_eq!(world.number("shop.db", empty).await, counts.stripped);
    // They are due as long as they are there, but not to be stripped again.
    let again = retain(&installation).await;
    let counts = body(&again);
    assert_eq!((counts.erased, counts.stripped), (0, 0), "{counts:?}");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn the_monthly_job_finds_a_key_node_that_nobody_has_touched() {
    let world = World::standard().await;
    let mut installation = world.open().await;
    snapshot(&installation).await;
    let job = Task::Verify { targets: vec![VerifyTarget::Keys], sample: None };
    let done = run_task(&mut installation, &job).await;
    assert!(done.state == "done" && done.summary.contains(" key nodes open"), "{done:?}");
    let state = format!("sqlite://{}", world.path("state/control.db").display());
    let mut connection = SqliteConnection::connect(&state).await.unwrap();
    let harm = "UPDATE tree_node SET sealed = zeroblob(length(sealed)) WHERE subtree = 1 AND level = 4";
    sqlx::raw_sql(harm).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let done = run_task(&mut installation, &job).await;
    assert!(done.state == "failed" && done.summary.contains("key nodes are missing or do not open"), "{done:?}");
    let job = Task::Verify { targets: vec![VerifyTarget::Backups], sample: None };
    assert_eq!(run_task(&mut installation, &job).await.state, "done");
    installation.close().await.unwrap();
}
