//! What only the adapter's inside can show. The contract suite tests the rest.

use super::*;

#[tokio::test]
async fn a_snapshot_session_cannot_write() {
    let Ok(url) = std::env::var("WANGCHUAN_TEST_POSTGRES") else {
        println!("not run here: PostgreSQL needs WANGCHUAN_TEST_POSTGRES (tests/run starts the servers)");
        return;
    };
    let store = PostgresStore::new("lab", SecretText::new(url.clone()), None, Limits::default());
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let mut session = store.begin(&store.readers, &store.url, begin).await.unwrap();
    let error = session.script("CREATE TABLE wangchuan_forbidden (a int)").await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_killed_idle_session_is_replaced() {
    let Ok(url) = std::env::var("WANGCHUAN_TEST_POSTGRES") else {
        println!("not run here: PostgreSQL needs WANGCHUAN_TEST_POSTGRES (tests/run starts the servers)");
        return;
    };
    let store = PostgresStore::new("lab", SecretText::new(url.clone()), None, Limits::default());
    let mut idle = store.writer().await.unwrap();
    let pid = fetch_integer(&mut idle, Statement::plain("SELECT pg_backend_pid()")).await.unwrap().unwrap();
    store.writers.put(idle);
    let mut other = store.connect(&store.url).await.unwrap();
    let kill = Statement::plain(format!("SELECT pg_terminate_backend({pid}, 5000)"));
    assert_eq!(fetch_integer(&mut other, kill).await.unwrap(), Some(1));
    store.server_time().await.unwrap();
}
