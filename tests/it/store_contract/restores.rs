//! Putting rows back.

use wangchuan::stores::{DataStore, Engine, StoreError, Table};
use wangchuan::value::Value;

use super::servers::Lab;
use super::*;

/// All rows of a table as the backup reads them, without computed columns.
async fn dump(store: &Arc<dyn DataStore>, table: &Table) -> (Vec<String>, Vec<Row>) {
    let columns: Vec<String> = table.columns.iter().filter(|c| !c.generated).map(|c| c.name.clone()).collect();
    let shown: Vec<&str> = columns.iter().map(String::as_str).collect();
    let key: Vec<&str> = table.key.iter().map(String::as_str).collect();
    let rows = read(store, &query(&table.name, &shown, &key)).await;
    (columns, rows)
}

/// An empty database of the same engine.
async fn empty_twin(lab: &Lab) -> (Lab, Arc<dyn DataStore>) {
    let twin = Lab::start(lab.engine()).await.unwrap();
    let store = twin.store_at(&twin.url(), true);
    (twin, store)
}

async fn make_numbered(lab: &Lab) {
    make_shop(lab).await;
    let numbered = match lab.engine() {
        Engine::Sqlite => "integer NOT NULL PRIMARY KEY AUTOINCREMENT",
        Engine::Postgres => "bigserial PRIMARY KEY",
        Engine::Mysql => "bigint NOT NULL AUTO_INCREMENT PRIMARY KEY",
    };
    lab.run(&format!(
        "CREATE TABLE letters (id {numbered}, body varchar(50) NOT NULL DEFAULT 'it''s', up bigint, UNIQUE (body), \
           FOREIGN KEY (up) REFERENCES letters (id) ON DELETE CASCADE);
         INSERT INTO letters (id, body, up) VALUES (900, 'b', NULL), (5, 'a', 900)"
    ))
    .await;
}

pub async fn into_an_empty_database(lab: &Lab) {
    make_numbered(lab).await;
    let source = lab.store();
    let catalogue = source.catalogue().await.unwrap();
    let (twin, target) = empty_twin(lab).await;
    let (mut restore, notes) = target.begin_restore(&catalogue.tables).await.unwrap();
    assert_eq!(notes, Vec::<String>::new());
    // Children first on purpose: the order must not matter.
    for table in catalogue.tables.iter().rev() {
        let (columns, rows) = dump(&source, table).await;
        assert_eq!(restore.count(&table.name).await.unwrap(), 0);
        restore.insert(&table.name, &columns, &rows).await.unwrap();
        assert_eq!(restore.count(&table.name).await.unwrap(), rows.len() as u64);
    }
    assert_eq!(restore.finish(false).await.unwrap(), Vec::<String>::new());
    let restored = target.catalogue().await.unwrap();
    for table in &catalogue.tables {
        let twin_table = restored.table(&table.name).unwrap();
        assert_eq!(dump(&source, table).await, dump(&target, twin_table).await, "{}", table.name);
        assert_eq!(twin_table.key, table.key);
        assert_eq!(twin_table.unique, table.unique);
        assert_eq!(twin_table.foreign_keys, table.foreign_keys, "{}", table.name);
        assert_eq!(twin_table.index_statements, table.index_statements);
        let shape = |table: &Table| {
            table
                .columns
                .iter()
                .map(|c| (c.name.clone(), c.type_name.clone(), c.nullable, c.numbered))
                .collect::<Vec<_>>()
        };
        assert_eq!(shape(twin_table), shape(table));
    }
    // The numbering goes on behind the highest number.
    twin.run("INSERT INTO letters (body) VALUES ('new')").await;
    assert!(twin.number("SELECT id FROM letters WHERE body = 'new'").await > 900);
    let refused = std::panic::AssertUnwindSafe(twin.run("INSERT INTO letters (up, body) VALUES (4711, 'orphan')"));
    let refused = futures_util::FutureExt::catch_unwind(refused).await;
    assert!(refused.is_err() || lab.engine() == Engine::Sqlite, "the foreign key is in force");
    twin.finish().await;
}

pub async fn into_an_existing_schema(lab: &Lab) {
    make_shop(lab).await;
    let store = lab.store();
    let catalogue = store.catalogue().await.unwrap();
    let lines = catalogue.table("order_lines").unwrap().clone();
    let orders = catalogue.table("orders").unwrap().clone();
    let (line_columns, line_rows) = dump(&store, &lines).await;
    let (order_columns, order_rows) = dump(&store, &orders).await;
    lab.run("DELETE FROM order_lines; DELETE FROM orders").await;
    let (mut restore, notes) = store.begin_restore(&[lines, orders]).await.unwrap();
    assert_eq!(notes, Vec::<String>::new());
    restore.insert("order_lines", &line_columns, &line_rows).await.unwrap();
    restore.insert("orders", &order_columns, &order_rows).await.unwrap();
    assert_eq!(restore.finish(false).await.unwrap(), Vec::<String>::new());
    assert_eq!(lab.number("SELECT count(*) FROM order_lines").await, 5);
    assert_eq!(store.catalogue().await.unwrap(), catalogue, "the schema is as it was");
    // A row that is there already is never overwritten.
    let (mut restore, _) = store.begin_restore(&[]).await.unwrap();
    let error = restore.insert("orders", &order_columns, &order_rows).await.unwrap_err();
    assert!(matches!(error, StoreError::Constraint { .. }), "{error}");
    restore.roll_back().await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM orders").await, 4);
}

pub async fn orphans_are_reported(lab: &Lab) {
    make_shop(lab).await;
    let store = lab.store();
    let lines = vec![store.catalogue().await.unwrap().table("order_lines").unwrap().clone()];
    let columns = names(&["order_id", "line", "sku"]);
    let rows = vec![vec![text("77"), text("1"), Value::Null], vec![text("1"), text("9"), Value::Null]];
    let (mut restore, _) = store.begin_restore(&lines).await.unwrap();
    restore.insert("order_lines", &columns, &rows).await.unwrap();
    let violations = restore.finish(false).await.unwrap();
    assert_eq!(violations, ["table order_lines: 1 rows refer to rows of orders that do not exist"]);
    assert_eq!(lab.number("SELECT count(*) FROM order_lines").await, 5, "nothing was committed");

    let (mut restore, _) = store.begin_restore(&lines).await.unwrap();
    restore.insert("order_lines", &columns, &rows).await.unwrap();
    let violations = restore.finish(true).await.unwrap();
    assert_eq!(violations.len(), 1);
    assert_eq!(lab.number("SELECT count(*) FROM order_lines").await, 7, "accepted");

    // The same for a table that is created, whose parent is elsewhere.
    let (twin, target) = empty_twin(lab).await;
    let (mut restore, notes) = target.begin_restore(&lines).await.unwrap();
    assert_eq!(
        notes,
        ["table order_lines: the foreign key (order_id) to orders was left out, that table is not there"]
    );
    restore.insert("order_lines", &columns, &rows).await.unwrap();
    assert_eq!(restore.finish(false).await.unwrap(), Vec::<String>::new());
    assert_eq!(twin.number("SELECT count(*) FROM order_lines").await, 2);
    twin.finish().await;
}

pub async fn giving_up_leaves_nothing(lab: &Lab) {
    make_shop(lab).await;
    let source = lab.store();
    let catalogue = source.catalogue().await.unwrap();
    let (twin, target) = empty_twin(lab).await;
    let (mut restore, _) = target.begin_restore(&catalogue.tables).await.unwrap();
    let customers = catalogue.table("customers").unwrap();
    let (columns, rows) = dump(&source, customers).await;
    restore.insert("customers", &columns, &rows).await.unwrap();
    restore.roll_back().await.unwrap();
    let after = twin.store_at(&twin.url(), true).catalogue().await.unwrap();
    assert_eq!(after.tables, Vec::new());
    twin.finish().await;
}

pub async fn computed_columns(lab: &Lab) {
    lab.run(
        "CREATE TABLE sums (id int NOT NULL PRIMARY KEY, n int DEFAULT 5, twice int GENERATED ALWAYS AS (n * 2) STORED);
         INSERT INTO sums (id, n) VALUES (1, 21), (2, NULL)",
    )
    .await;
    let source = lab.store();
    let sums = source.catalogue().await.unwrap().table("sums").unwrap().clone();
    let (columns, rows) = dump(&source, &sums).await;
    assert_eq!(columns, names(&["id", "n"]));
    let (twin, target) = empty_twin(lab).await;
    let (mut restore, notes) = target.begin_restore(std::slice::from_ref(&sums)).await.unwrap();
    restore.insert("sums", &columns, &rows).await.unwrap();
    assert_eq!(restore.finish(false).await.unwrap(), Vec::<String>::new());
    if lab.engine() == Engine::Sqlite {
        // The pragmas do not tell the expression.
        assert!(notes.len() == 1 && notes[0].contains("column twice"), "{notes:?}");
        assert_eq!(twin.number("SELECT sum(n) FROM sums").await, 21);
    } else {
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!(target.catalogue().await.unwrap().table("sums"), Some(&sums));
        assert_eq!(twin.number("SELECT count(*) FROM sums WHERE twice = 42").await, 1);
        // Putting back a row with its computed value writes everything but that.
        let mut batch = target.begin_batch().await.unwrap();
        let all = names(&["id", "n", "twice"]);
        batch.insert("sums", &all, &vec![text("3"), text("4"), text("999")]).await.unwrap();
        batch.commit(&marker(1, 0)).await.unwrap();
        assert_eq!(twin.number("SELECT count(*) FROM sums WHERE twice = 8").await, 1);
    }
    twin.finish().await;
}
