//! What only the adapter's inside can show. The contract suite tests the rest.

use super::*;

fn store() -> Option<MysqlStore> {
    let Ok(url) = std::env::var("WANGCHUAN_TEST_MARIADB") else {
        println!("not run here: MariaDB needs WANGCHUAN_TEST_MARIADB (tests/run starts the servers)");
        return None;
    };
    let url = SecretText::new(format!("{}/mysql", url.trim_end_matches('/')));
    Some(MysqlStore::new("lab", url, None, Limits::default()))
}

#[tokio::test]
async fn a_snapshot_session_cannot_write() {
    let Some(store) = store() else { return };
    let mut session = store.reader().await.unwrap();
    session.script("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await.unwrap();
    let error = session.script("DELETE FROM help_topic WHERE 1 = 0").await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_killed_idle_session_is_replaced() {
    let Some(store) = store() else { return };
    let mut idle = store.writer().await.unwrap();
    let sql = "SELECT CONNECTION_ID()".to_owned();
    let statement = Statement { sql, arguments: Vec::new(), outputs: vec![Output::Integer] };
    let id = fetch_integer(&mut idle, statement).await.unwrap().unwrap();
    store.writers.put(idle);
    let mut other = store.connect(&store.url).await.unwrap();
    other.script(&format!("KILL {id}")).await.unwrap();
    store.server_time().await.unwrap();
}
