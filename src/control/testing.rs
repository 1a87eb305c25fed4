//! Control databases for tests: SQLite files, or, with `WANGCHUAN_TEST_CONTROL=postgres`, schemas of a private server of
//! `WANGCHUAN_TEST_POSTGRES`. `tests/run` lets the unit tests run once with each.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::AssertSqlSafe;

use super::{CLOCK, Control, ImageLoad, ImagePiece, OWN, StateLocation};
use crate::policy::registry::SecretText;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Whether this run wants control databases on PostgreSQL.
pub(crate) fn is_on_postgres() -> bool {
    std::env::var("WANGCHUAN_TEST_CONTROL").is_ok_and(|engine| engine == "postgres")
}

/// A schema of its own on the private server; `None`, said aloud, without one.
pub(crate) async fn schema(name: &str) -> Option<StateLocation> {
    let Some(url) = std::env::var("WANGCHUAN_TEST_POSTGRES").ok().filter(|url| !url.is_empty()) else {
        println!("not run here: PostgreSQL needs WANGCHUAN_TEST_POSTGRES (tests/run starts the servers)");
        return None;
    };
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    // Two at once would meet in the catalogue.
    let text = format!("BEGIN; SELECT pg_advisory_xact_lock(4711); CREATE SCHEMA IF NOT EXISTS \"{name}\"; COMMIT");
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&pool).await.unwrap();
    pool.close().await;
    // The private server does not flush to disk.
    Some(StateLocation::Postgres(SecretText::new(format!("{url}?fsync=off&options=-csearch_path%3D{name}"))))
}

/// A new, empty schema.
pub(crate) async fn new_schema() -> Option<StateLocation> {
    schema(&format!("wc_test_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))).await
}

/// Where the control database of a test lies: the file, or the schema that stands for it.
pub(crate) async fn place(file: &Path) -> StateLocation {
    if !is_on_postgres() {
        return StateLocation::Sqlite(file.to_owned());
    }
    let path = digest(&SHA256, file.as_os_str().as_encoded_bytes());
    schema(&format!("wc_test_{}", hex::encode(&path.as_ref()[..10]))).await.expect("a private server")
}

/// A new control database at [`place`].
pub(crate) async fn create(file: &Path, installation: [u8; 16]) -> Control {
    Control::create_at(&place(file).await, installation).await.unwrap()
}

/// Runs statements behind the agent's back.
pub(crate) async fn run(control: &Control, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&control.database.pool).await.unwrap();
}

/// How many rows a table has.
pub(crate) async fn count(control: &Control, table: &str) -> i64 {
    let query = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")));
    query.fetch_one(&control.database.pool).await.unwrap()
}

/// From now on every row that is put into, or changed in, a table and fulfils a condition on `NEW` is followed by a statement, in the
/// same transaction.
pub(crate) async fn follow(control: &Control, event: &str, table: &str, condition: &str, statement: &str) {
    let trigger = format!("CREATE TRIGGER follow AFTER {event} ON {table}");
    let text = if is_on_postgres() {
        format!(
            "CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN NULL; END $$; \
             {trigger} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION follow()"
        )
    } else {
        format!("{trigger} WHEN {condition} BEGIN {statement}; END")
    };
    run(control, &text).await;
}

/// As many zeros as a column of bytes has bytes, as an expression.
pub(crate) fn zeros_for(column: &str) -> String {
    if is_on_postgres() {
        format!("decode(repeat('00', length({column})), 'hex')")
    } else {
        format!("zeroblob(length({column}))")
    }
}

/// The control database as it is now, restored from a backup somewhere else.
pub(crate) async fn restored(control: &Control, file: &Path) -> Control {
    let mut tx = control.read().await.unwrap();
    let mut pieces = Vec::new();
    let heads = tx.image(&mut |piece: ImagePiece| pieces.push(piece)).await.unwrap();
    let mut meta = tx.metas(OWN).await.unwrap();
    meta.extend(tx.metas(CLOCK).await.unwrap());
    drop(tx);
    let mut load = ImageLoad::begin_at(&place(file).await).await.unwrap();
    for piece in pieces {
        load.take(&piece.bytes).await.unwrap();
    }
    load.finish(&heads, &meta).await.unwrap()
}
