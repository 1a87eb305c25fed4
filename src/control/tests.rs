use chrono::{DateTime, TimeDelta, Utc};

use super::{Control, ControlError, Lease};

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
