//! Write transactions, markers, locks.

use wangchuan::stores::{ColumnRef, Engine, Filter, StoreError};
use wangchuan::value::{Value, encode_values};

use super::servers::Lab;
use super::*;

pub async fn a_row_changed_since_is_not_deleted(lab: &Lab) {
    make_shop(lab).await;
    lab.run("DELETE FROM order_lines").await;
    let store = lab.store();
    let planned = read(&store, &query("orders", &["id", "customer_id", "done"], &["id"])).await;
    lab.run("UPDATE orders SET done = '2026-01-01 00:00:00' WHERE id = 1").await;
    let same = |row: &Row| {
        let columns = ["id", "customer_id", "done"];
        Filter::And(
            columns.iter().zip(row).map(|(name, value)| Filter::Same(ColumnRef::own(name), value.clone())).collect(),
        )
    };
    let mut batch = store.begin_batch().await.unwrap();
    assert_eq!(batch.delete("orders", &[], &same(&planned[0])).await.unwrap(), 0);
    assert_eq!(batch.delete("orders", &[], &same(&planned[1])).await.unwrap(), 1);
    assert_eq!(batch.delete("orders", &[], &same(&planned[2])).await.unwrap(), 1, "NULL is the same as NULL");
    batch.commit(&marker(1, 2)).await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM orders WHERE id IN (1, 4)").await, 2);
    assert_eq!(lab.number("SELECT count(*) FROM orders").await, 2);
}

pub async fn deleting_by_ancestors(lab: &Lab) {
    make_shop(lab).await;
    let store = lab.store();
    let path = [hop("order_id", "orders", "id"), hop("customer_id", "customers", "id")];
    let owner = |id: &str| Filter::Equals(ColumnRef { hop: 2, column: "id".to_owned() }, text(id));
    let mut batch = store.begin_batch().await.unwrap();
    let mut locked = query("order_lines", &["order_id", "line"], &["order_id", "line"]);
    locked.path = path.to_vec();
    locked.filter = owner("C1");
    assert_eq!(batch.read_for_update(&locked).await.unwrap().len(), 3);
    let chosen = Filter::In(names(&["order_id", "line"]), vec![key(&["1", "1"]), key(&["3", "1"])]);
    let both = Filter::And(vec![chosen, owner("C1")]);
    assert_eq!(batch.delete("order_lines", &path, &both).await.unwrap(), 1);
    assert_eq!(batch.count(&locked).await.unwrap(), 2);
    assert_eq!(batch.delete("order_lines", &path, &owner("C1")).await.unwrap(), 2);
    let orphan = Filter::Or(vec![owner("nobody"), Filter::IsNull(ColumnRef { hop: 2, column: "id".to_owned() })]);
    assert_eq!(batch.delete("order_lines", &path, &orphan).await.unwrap(), 0);
    batch.commit(&marker(1, 3)).await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM order_lines").await, 2);

    lab.run("CREATE TABLE tree (id int NOT NULL PRIMARY KEY, parent int, FOREIGN KEY (parent) REFERENCES tree (id))")
        .await;
    lab.run("INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2)").await;
    let store = lab.store();
    let mut batch = store.begin_batch().await.unwrap();
    let under_two = Filter::Equals(ColumnRef { hop: 1, column: "id".to_owned() }, text("2"));
    assert_eq!(batch.delete("tree", &[hop("parent", "tree", "id")], &under_two).await.unwrap(), 1);
    batch.roll_back().await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM tree").await, 3);
}

pub async fn deleting_by_ancestors_whatever_the_tables_are_called(lab: &Lab) {
    for (chunk, (table, parent)) in (1..).zip([("t1", "t0"), ("base", "p1"), ("t2", "t1x")]) {
        lab.run(&format!(
            "CREATE TABLE {parent} (id int NOT NULL PRIMARY KEY, up int, who varchar(20));
             CREATE TABLE {table} (id int NOT NULL PRIMARY KEY, up int, FOREIGN KEY (up) REFERENCES {parent} (id));
             INSERT INTO {parent} VALUES (1, NULL, 'a'), (2, 2, 'b'); INSERT INTO {table} VALUES (1, 1), (2, 2)"
        ))
        .await;
        let store = lab.store();
        let mut batch = store.begin_batch().await.unwrap();
        let whose = Filter::Equals(ColumnRef { hop: 1, column: "who".to_owned() }, text("a"));
        let chosen = Filter::In(names(&["id"]), vec![key(&["1"]), key(&["2"])]);
        let both = Filter::And(vec![chosen, whose]);
        assert_eq!(batch.delete(table, &[hop("up", parent, "id")], &both).await.unwrap(), 1, "{table}");
        assert_eq!(batch.count(&query(table, &["id"], &["id"])).await.unwrap(), 1);
        batch.commit(&marker(chunk, 1)).await.unwrap();
        assert_eq!(lab.number(&format!("SELECT count(*) FROM {table} WHERE id = 2")).await, 1);
    }
}

pub async fn taking_returns_what_it_took(lab: &Lab) {
    make_shop(lab).await;
    let store = lab.store();
    let mut lines = query("order_lines", &["order_id", "line", "sku"], &["order_id", "line"]);
    let owner = ColumnRef { hop: 2, column: "id".to_owned() };
    let listed = Filter::In(names(&["order_id", "line"]), vec![key(&["1", "2"]), key(&["3", "2"]), key(&["2", "1"])]);
    lines.filter = Filter::And(vec![listed, Filter::Equals(owner.clone(), text("C1"))]);
    lines.path = vec![hop("order_id", "orders", "id"), hop("customer_id", "customers", "id")];
    // Neither counts.
    (lines.after, lines.limit) = (Some(key(&["9", "9"])), 1);

    let mut batch = store.begin_batch().await.unwrap();
    let Some(mut taken) = batch.take(&lines).await.unwrap() else {
        assert_eq!(lab.engine(), Engine::Sqlite);
        assert_eq!(batch.count(&lines).await.unwrap(), 2, "nothing was deleted");
        return;
    };
    taken.sort_by_key(|row| encode_values(row));
    assert_eq!(taken, [vec![text("1"), text("2"), text("b")], vec![text("2"), text("1"), text("c")]]);
    batch.commit(&marker(1, 2)).await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM order_lines").await, 3);

    lines.columns.push(owner);
    lines.filter = Filter::Equals(ColumnRef { hop: 1, column: "id".to_owned() }, text("3"));
    let mut batch = store.begin_batch().await.unwrap();
    let taken = batch.take(&lines).await.unwrap();
    assert_eq!(taken, None, "what stands in ancestors may have changed behind the look");
    batch.roll_back().await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM order_lines").await, 3);
}

pub async fn marker_and_rows_commit_together(lab: &Lab) {
    make_shop(lab).await;
    let store = lab.store();
    assert_eq!(store.batch_outcome("run-1", 1).await.unwrap(), None, "no marker table yet");
    store.forget_markers("run-1").await.unwrap();

    let mut batch = store.begin_batch().await.unwrap();
    assert_eq!(batch.delete("order_lines", &[], &Filter::All).await.unwrap(), 5);
    drop(batch);
    assert_eq!(store.batch_outcome("run-1", 1).await.unwrap(), None);
    assert_eq!(lab.number("SELECT count(*) FROM order_lines").await, 5);

    let mut batch = store.begin_batch().await.unwrap();
    assert_eq!(batch.delete("order_lines", &[], &Filter::All).await.unwrap(), 5);
    let written = BatchMarker { run: "run-1".to_owned(), chunk: 1, token: 42, erased: 5, changed: 3 };
    batch.commit(&written).await.unwrap();
    assert_eq!(store.batch_outcome("run-1", 1).await.unwrap(), Some(written.clone()));
    assert_eq!(lab.store().batch_outcome("run-1", 1).await.unwrap(), Some(written));
    assert_eq!(store.batch_outcome("run-1", 2).await.unwrap(), None);
    assert_eq!(store.batch_outcome("run-2", 1).await.unwrap(), None);
    assert_eq!(lab.number("SELECT count(*) FROM order_lines").await, 0);
    assert!(store.catalogue().await.unwrap().table("wangchuan_batch").is_none(), "it is not the customer's table");
    store.forget_markers("run-1").await.unwrap();
    assert_eq!(store.batch_outcome("run-1", 1).await.unwrap(), None);
}

pub async fn a_chunk_commits_once(lab: &Lab) {
    make_shop(lab).await;
    let store = lab.store();
    let mut first = store.begin_batch().await.unwrap();
    let line = |id: &str| Filter::In(names(&["order_id", "line"]), vec![key(&[id, "1"])]);
    first.delete("order_lines", &[], &line("1")).await.unwrap();
    first.commit(&marker(1, 1)).await.unwrap();
    let mut second = store.begin_batch().await.unwrap();
    assert_eq!(second.delete("order_lines", &[], &line("2")).await.unwrap(), 1);
    let mut again = marker(1, 99);
    again.token = 8;
    let error = second.commit(&again).await.unwrap_err();
    assert!(matches!(error, StoreError::Constraint { .. }), "{error}");
    assert_eq!(lab.number("SELECT count(*) FROM order_lines").await, 4, "the second batch left nothing");
    assert_eq!(store.batch_outcome("run-1", 1).await.unwrap(), Some(marker(1, 1)));
}

pub async fn children_before_parents(lab: &Lab) {
    make_shop(lab).await;
    let store = lab.store();
    let order = Filter::Equals(ColumnRef::own("id"), text("1"));
    let mut batch = store.begin_batch().await.unwrap();
    let error = batch.delete("orders", &[], &order).await.unwrap_err();
    assert!(matches!(error, StoreError::Constraint { .. }), "{error}");
    assert!(!error.is_retryable());
    batch.roll_back().await.unwrap();
    let mut batch = store.begin_batch().await.unwrap();
    let lines = Filter::Equals(ColumnRef::own("order_id"), text("1"));
    assert_eq!(batch.delete("order_lines", &[], &lines).await.unwrap(), 2);
    assert_eq!(batch.delete("orders", &[], &order).await.unwrap(), 1);
    batch.commit(&marker(1, 3)).await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM orders").await, 3);
}

pub async fn updates_count_what_matched(lab: &Lab) {
    make_shop(lab).await;
    let store = lab.store();
    let mut batch = store.begin_batch().await.unwrap();
    let all_c = Filter::In(names(&["id"]), vec![key(&["C1"]), key(&["C2"])]);
    let set = [("name".to_owned(), Value::Null), ("vip".to_owned(), text("1"))];
    assert_eq!(batch.update("customers", &set, &all_c).await.unwrap(), 2);
    // Nothing changes any more, and still both match.
    assert_eq!(batch.update("customers", &set, &all_c).await.unwrap(), 2);
    assert!(matches!(batch.update("customers", &[], &all_c).await, Err(StoreError::Refused { .. })));
    batch.commit(&marker(1, 0)).await.unwrap();
    let rows = read(&store, &query("customers", &["id", "name", "vip"], &["id"])).await;
    assert_eq!(rows_shown(&rows), ["C1 NULL 1", "C2 NULL 1", "C3 Eve 0"]);
}

pub async fn undo_never_overwrites(lab: &Lab) {
    make_shop(lab).await;
    let store = lab.store();
    let columns = names(&["id", "name", "vip"]);
    let mut batch = store.begin_batch().await.unwrap();
    batch.insert("customers", &columns, &vec![text("C7"), text("Ann"), Value::Null]).await.unwrap();
    batch.commit(&marker(1, 0)).await.unwrap();
    let mut batch = store.begin_batch().await.unwrap();
    let error = batch.insert("customers", &columns, &vec![text("C7"), text("Other"), Value::Null]).await.unwrap_err();
    assert!(matches!(error, StoreError::Constraint { .. }), "{error}");
    batch.roll_back().await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM customers WHERE name = 'Ann'").await, 1);
}

pub async fn a_lock_ends_in_busy(lab: &Lab) {
    make_shop(lab).await;
    let (first, second) = (lab.store(), lab.store());
    let vip = [("vip".to_owned(), text("5"))];
    let c1 = Filter::Equals(ColumnRef::own("id"), text("C1"));
    let mut holding = first.begin_batch().await.unwrap();
    holding.update("customers", &vip, &c1).await.unwrap();
    let started = std::time::Instant::now();
    let refused = match second.begin_batch().await {
        Ok(mut waiting) => waiting.update("customers", &vip, &c1).await.map(|_| ()),
        Err(error) => Err(error),
    };
    let error = refused.unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }) && error.is_retryable(), "{error}");
    assert!(started.elapsed().as_secs() < 20, "the wait was not bounded");
    holding.commit(&marker(1, 0)).await.unwrap();
    let mut batch = second.begin_batch().await.unwrap();
    assert_eq!(batch.update("customers", &vip, &c1).await.unwrap(), 1);
    batch.commit(&marker(2, 0)).await.unwrap();
}

pub async fn errors_hold_no_values(lab: &Lab) {
    make_shop(lab).await;
    if lab.engine() == Engine::Postgres {
        lab.run(
            "CREATE FUNCTION leak() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'canary-4711 %', NEW.id; END $$;
             CREATE TABLE talks (id varchar(20) PRIMARY KEY);
             CREATE TRIGGER t BEFORE INSERT ON talks FOR EACH ROW EXECUTE FUNCTION leak()",
        )
        .await;
    } else if lab.engine() == Engine::Mysql {
        lab.run("CREATE TABLE talks (id varchar(20) PRIMARY KEY)").await;
        lab.run(
            "CREATE TRIGGER t BEFORE INSERT ON talks FOR EACH ROW \
             SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'canary-4711'",
        )
        .await;
    } else {
        lab.run(
            "CREATE TABLE talks (id varchar(20) PRIMARY KEY);
             CREATE TRIGGER t BEFORE INSERT ON talks BEGIN SELECT RAISE(ABORT, 'canary-4711'); END",
        )
        .await;
    }
    lab.run(
        "CREATE TABLE rules (id varchar(20) NOT NULL PRIMARY KEY, n int NOT NULL, CONSTRAINT small CHECK (n < 10))",
    )
    .await;
    lab.run("INSERT INTO rules VALUES ('canary-4711', 1)").await;
    let store = lab.store();
    let attempts = [
        ("talks", vec!["id"], vec![text("canary-4711")]),
        ("rules", vec!["id", "n"], vec![text("canary-4711"), text("2")]),
        ("rules", vec!["id", "n"], vec![text("canary-4711-and-more"), text("4711")]),
        ("rules", vec!["id", "n"], vec![text("canary-4711-x"), Value::Null]),
        ("orders", vec!["id", "customer_id"], vec![text("77"), text("canary-4711")]),
        ("orders", vec!["id", "total"], vec![text("78"), text("4711canary")]),
        ("customers", vec!["id", "vip"], vec![text("canary-4711-much-too-long-for-it"), text("canary-4711")]),
    ];
    for (table, columns, row) in attempts {
        let mut batch = store.begin_batch().await.unwrap();
        let done = batch.insert(table, &names(&columns), &row).await;
        batch.roll_back().await.unwrap();
        match done {
            Err(error) => {
                let shown = format!("{error} {error:?}");
                assert!(!shown.contains("4711"), "{shown}");
                assert!(shown.len() > 20, "{shown}");
            }
            // SQLite takes any value into any column.
            Ok(()) => {
                assert!(lab.engine() == Engine::Sqlite && table != "talks" && table != "rules", "{table} {columns:?}");
            }
        }
    }
    let mut snapshot = store.open_snapshot().await.unwrap();
    let mut wanted = query("orders", &["id"], &["id"]);
    wanted.filter = Filter::Equals(ColumnRef::own("id"), text("canary-4711"));
    match snapshot.read(&wanted).await {
        Err(error) => assert!(!format!("{error} {error:?}").contains("4711"), "{error}"),
        Ok(rows) => assert!(rows.is_empty() && lab.engine() == Engine::Sqlite),
    }
}

pub async fn many_keys_in_one_batch(lab: &Lab) {
    lab.run("CREATE TABLE many (a bigint NOT NULL, b varchar(10) NOT NULL, PRIMARY KEY (a, b))").await;
    let rows: Vec<String> = (0..6000).map(|n| format!("({n}, 'k{n}')")).collect();
    lab.run(&format!("INSERT INTO many VALUES {}", rows.join(", "))).await;
    let store = lab.store();
    let keys = (0..5000).map(|n| key(&[&n.to_string(), &format!("k{n}")])).collect();
    let mut batch = store.begin_batch().await.unwrap();
    let filter = Filter::In(names(&["a", "b"]), keys);
    assert_eq!(batch.delete("many", &[], &filter).await.unwrap(), 5000);
    let single = Filter::In(names(&["a"]), (5000..5500).map(|n| key(&[&n.to_string()])).collect());
    assert_eq!(batch.delete("many", &[], &single).await.unwrap(), 500);
    batch.commit(&marker(1, 5500)).await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM many").await, 500);
}
