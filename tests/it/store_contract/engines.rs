//! What only one of the engines has.

use std::time::Duration;

use sqlx::Connection as _;
use wangchuan::stores::{ColumnRef, Filter, FindingKind, Limits, StoreError};
use wangchuan::value::{RowKey, Value};

use super::servers::Lab;
use super::*;

pub async fn other_schemas(lab: &Lab) {
    lab.run(
        "CREATE SCHEMA \"Sales\"; CREATE TABLE \"Sales\".orders (id int PRIMARY KEY, note text);
         CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO \"Sales\".orders VALUES (1, 'a'), (2, 'b');
         CREATE TABLE lines (id int PRIMARY KEY, order_id int REFERENCES \"Sales\".orders (id)); INSERT INTO lines VALUES (7, 1)",
    )
    .await;
    let store = lab.store();
    let catalogue = store.catalogue().await.unwrap();
    let tables: Vec<&str> = catalogue.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(tables, ["Sales.orders", "lines", "orders"]);
    assert_eq!(catalogue.table("lines").unwrap().foreign_keys[0].parent, "Sales.orders");
    assert_eq!(count(&store, &query("Sales.orders", &["id"], &["id"])).await, 2);
    assert_eq!(count(&store, &query("orders", &["id"], &["id"])).await, 0);
    let mut batch = store.begin_batch().await.unwrap();
    let parent = Filter::Equals(ColumnRef { hop: 1, column: "note".to_owned() }, text("a"));
    assert_eq!(batch.delete("lines", &[hop("order_id", "Sales.orders", "id")], &parent).await.unwrap(), 1);
    assert_eq!(batch.delete("Sales.orders", &[], &Filter::Equals(ColumnRef::own("id"), text("1"))).await.unwrap(), 1);
    batch.commit(&marker(1, 2)).await.unwrap();
    // And into a database that has neither the schema nor the tables.
    let twin = Lab::start(lab.engine()).await.unwrap();
    let target = twin.store();
    let (mut restore, notes) = target.begin_restore(&catalogue.tables).await.unwrap();
    assert_eq!(notes, Vec::<String>::new());
    restore.insert("Sales.orders", &names(&["id", "note"]), &[vec![text("2"), text("b")]]).await.unwrap();
    assert_eq!(restore.finish(false).await.unwrap(), Vec::<String>::new());
    assert_eq!(target.catalogue().await.unwrap(), catalogue);
    twin.finish().await;
}

pub async fn types_that_cannot_be_carried(lab: &Lab) {
    lab.run(
        "CREATE DOMAIN class_of AS regclass;
         CREATE TABLE odd (id int PRIMARY KEY, r regclass, x xid, t tid, rs regtype[], d class_of, o oid, a aclitem)",
    )
    .await;
    lab.run("INSERT INTO odd VALUES (1, 'pg_class', '1', '(0,1)', '{int4}', 'pg_type', 5, NULL)").await;
    let store = lab.store();
    let findings = store.check(&names(&["odd"])).await.unwrap();
    let refused: Vec<_> = findings.iter().map(|finding| finding.kind.clone()).collect();
    let expected = ["r", "x", "t", "rs", "d", "a"].map(|column| FindingKind::Unsupported(column.to_owned()));
    assert_eq!(refused, expected);
    let mut snapshot = store.open_snapshot().await.unwrap();
    for column in ["r", "x", "t", "rs", "d", "a"] {
        let error = snapshot.read(&query("odd", &["id", column], &["id"])).await.unwrap_err();
        assert!(matches!(&error, StoreError::Refused { what, .. } if what.contains("cannot carry")), "{error}");
    }
    assert_eq!(snapshot.read(&query("odd", &["id", "o"], &["id"])).await.unwrap().len(), 1);
}

pub async fn sequences_go_on(lab: &Lab) {
    lab.run(
        "CREATE SEQUENCE \"own's\"; CREATE TABLE a (id int PRIMARY KEY DEFAULT nextval('\"own''s\"'));
         CREATE TABLE b (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int);
         CREATE TABLE c (id serial PRIMARY KEY); SELECT setval('c_id_seq', 5000)",
    )
    .await;
    let store = lab.store();
    let (mut restore, _) = store.begin_restore(&[]).await.unwrap();
    for table in ["a", "b", "c"] {
        restore.insert(table, &names(&["id"]), &[vec![text("70")], vec![text("900")]]).await.unwrap();
    }
    assert_eq!(restore.finish(false).await.unwrap(), Vec::<String>::new());
    lab.run("INSERT INTO a DEFAULT VALUES; INSERT INTO b (n) VALUES (1); INSERT INTO c DEFAULT VALUES").await;
    assert_eq!(lab.number("SELECT CAST(max(id) AS bigint) FROM a").await, 901);
    assert_eq!(lab.number("SELECT max(id) FROM b").await, 901);
    assert_eq!(lab.number("SELECT CAST(max(id) AS bigint) FROM c").await, 5001, "never set back");
}

pub async fn partitions_belong_to_their_table(lab: &Lab) {
    lab.run(
        "CREATE TABLE logs (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
         CREATE TABLE logs_2 PARTITION OF logs FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
         INSERT INTO logs VALUES (1, '2020-05-05'), (2, '2021-05-05')",
    )
    .await;
    let store = lab.store();
    assert_eq!(store.catalogue().await.unwrap().tables.len(), 1);
    let mut batch = store.begin_batch().await.unwrap();
    let mut locked = query("logs", &["id", "day"], &["id", "day"]);
    locked.filter = Filter::In(names(&["id", "day"]), vec![key(&["1", "2020-05-05"])]);
    assert_eq!(batch.read_for_update(&locked).await.unwrap().len(), 1);
    assert_eq!(batch.delete("logs", &[], &locked.filter).await.unwrap(), 1);
    batch.commit(&marker(1, 1)).await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM logs").await, 1);
}

pub async fn a_rule_counts_as_a_trigger(lab: &Lab) {
    lab.run("CREATE TABLE kept (id int PRIMARY KEY); CREATE RULE never AS ON DELETE TO kept DO INSTEAD NOTHING").await;
    let findings = lab.store().check(&names(&["kept"])).await.unwrap();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].kind, FindingKind::Trigger("never".to_owned()));
}

pub async fn arrays_as_keys(lab: &Lab) {
    lab.run("CREATE TABLE tags (t int[] PRIMARY KEY, b bytea NOT NULL UNIQUE)").await;
    lab.run("INSERT INTO tags VALUES ('{1,2}', '\\x01'), ('{3}', '\\x02'), ('{}', '\\x03')").await;
    let store = lab.store();
    let mut wanted = query("tags", &["t"], &["t"]);
    wanted.filter = Filter::In(names(&["t"]), vec![key(&["{1,2}"]), key(&["{}"])]);
    assert_eq!(rows_shown(&read(&store, &wanted).await), ["{}", "{1,2}"]);
    wanted.filter = Filter::In(names(&["b"]), vec![RowKey(vec![Value::Blob(vec![2])])]);
    assert_eq!(rows_shown(&read(&store, &wanted).await), ["{3}"]);
}

pub async fn a_long_statement_ends_in_busy(lab: &Lab) {
    lab.run(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN OLD; END';
         CREATE TABLE slow (id int PRIMARY KEY); INSERT INTO slow VALUES (1);
         CREATE TRIGGER s BEFORE DELETE ON slow FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    .await;
    let limits = Limits { lock_wait: Duration::from_millis(100), statement: Duration::from_millis(300) };
    let store = lab.store_with(&lab.url(), false, limits);
    let mut batch = store.begin_batch().await.unwrap();
    let error = batch.delete("slow", &[], &Filter::All).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
}

pub async fn constraints_keep_their_definition(lab: &Lab) {
    lab.run(
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int, \
           CONSTRAINT \"to p\" FOREIGN KEY (p) REFERENCES p (id) ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, 1)",
    )
    .await;
    let same = "SELECT count(*) FROM pg_constraint WHERE conname = 'to p' AND convalidated AND condeferred AND confupdtype = 'c' \
                AND confdeltype = 'n'";
    assert_eq!(lab.number(same).await, 1);
    let store = lab.store();
    let tables = vec![store.catalogue().await.unwrap().table("c").unwrap().clone()];
    let (mut restore, _) = store.begin_restore(&tables).await.unwrap();
    restore.insert("c", &names(&["id", "p"]), &[vec![text("2"), Value::Null]]).await.unwrap();
    assert_eq!(restore.finish(false).await.unwrap(), Vec::<String>::new());
    assert_eq!(lab.number(same).await, 1);
    // A restore that is dropped, as by a crash, leaves everything as it was.
    let (mut restore, _) = store.begin_restore(&tables).await.unwrap();
    restore.insert("c", &names(&["id", "p"]), &[vec![text("3"), text("99")]]).await.unwrap();
    drop(restore);
    assert_eq!(lab.number(same).await, 1);
    assert_eq!(lab.number("SELECT count(*) FROM c").await, 2);
}

pub async fn what_restricts_is_never_checked_late(lab: &Lab) {
    lab.run(
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES p (id) DEFERRABLE, \
           a int REFERENCES p (id) ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, NULL, 1)",
    )
    .await;
    let store = lab.store();
    let late = store.catalogue().await.unwrap().deferrable.clone();
    assert_eq!(late.into_iter().collect::<Vec<_>>(), [("c".to_owned(), names(&["b"]))]);
    let mut batch = store.begin_batch().await.unwrap();
    batch.put_off_checks().await.unwrap();
    assert!(batch.delete("p", &[], &Filter::All).await.is_err());
    batch.roll_back().await.unwrap();
}

pub async fn storage_without_transactions(lab: &Lab) {
    lab.run(
        "CREATE TABLE isam (id int PRIMARY KEY) ENGINE=MyISAM; CREATE TABLE aria (id int PRIMARY KEY) ENGINE=Aria;
         CREATE TABLE fine (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO isam VALUES (1)",
    )
    .await;
    let store = lab.store();
    let findings = store.check(&names(&["isam", "aria", "fine"])).await.unwrap();
    let tables: Vec<_> = findings.iter().map(|finding| (finding.table.as_deref().unwrap(), &finding.kind)).collect();
    assert_eq!(tables, [("isam", &FindingKind::Storage), ("aria", &FindingKind::Storage)]);
    let mut batch = store.begin_batch().await.unwrap();
    let error = batch.delete("isam", &[], &Filter::All).await.unwrap_err();
    assert!(matches!(&error, StoreError::Refused { what, .. } if what.contains("MyISAM")), "{error}");
    assert!(batch.insert("isam", &names(&["id"]), &vec![text("2")]).await.is_err());
    assert!(batch.update("isam", &[("id".to_owned(), text("3"))], &Filter::All).await.is_err());
    batch.roll_back().await.unwrap();
    assert_eq!(lab.number("SELECT CAST(sum(id) AS SIGNED) FROM isam").await, 1);
}

pub async fn old_versions_are_found(lab: &Lab) {
    lab.run("CREATE TABLE versioned (id int PRIMARY KEY) WITH SYSTEM VERSIONING").await;
    let findings = lab.store().check(&names(&["versioned"])).await.unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].kind == FindingKind::Storage && findings[0].what.contains("history"));
}

/// Without any right but SELECT the server hides the rules of foreign keys in its information tables.
pub async fn a_reading_login_sees_foreign_keys(lab: &Lab) {
    lab.run(
        "CREATE TABLE p (id int PRIMARY KEY);
         CREATE TABLE c (id int PRIMARY KEY, a int, b int, `ON DELETE CASCADE` int, \
           CONSTRAINT `k``1` FOREIGN KEY (a) REFERENCES p (id) ON DELETE CASCADE, \
           CONSTRAINT k2 FOREIGN KEY (b) REFERENCES p (id) ON DELETE SET NULL, \
           CONSTRAINT k3 FOREIGN KEY (`ON DELETE CASCADE`) REFERENCES p (id))",
    )
    .await;
    let user = format!("{}_app", lab.database());
    let account = super::facts::mariadb_account(lab, &user).await;
    lab.run(&format!("CREATE USER {account} IDENTIFIED BY 'pw'; GRANT SELECT ON {}.* TO {account}", lab.database()))
        .await;
    let seen = lab.store_at(&lab.url_as(&user, "pw"), false).catalogue().await.unwrap();
    let whole = lab.store().catalogue().await.unwrap();
    assert_eq!(whole.table("c").unwrap().foreign_keys.len(), 3);
    assert_eq!(seen, whole);
    lab.run(&format!("DROP USER {account}")).await;
}

pub async fn zero_dates_come_back(lab: &Lab) {
    lab.run("CREATE TABLE zeros (id int NOT NULL PRIMARY KEY, d date, t datetime(3), i timestamp NULL)").await;
    lab.run("SET sql_mode = ''; INSERT INTO zeros VALUES (0, '0000-00-00', '0000-00-00', '0000-00-00'), (1, '2010-00-00', NULL, NULL)")
        .await;
    let store = lab.store();
    let wanted = query("zeros", &["id", "d", "t", "i"], &["id"]);
    let rows = read(&store, &wanted).await;
    assert_eq!(rows_shown(&rows)[0], "0 0000-00-00 0000-00-00 00:00:00.000 0000-00-00 00:00:00");
    let columns = names(&["id", "d", "t", "i"]);
    let mut batch = store.begin_batch().await.unwrap();
    assert_eq!(batch.delete("zeros", &[], &Filter::All).await.unwrap(), 2);
    for row in &rows {
        batch.insert("zeros", &columns, row).await.unwrap();
    }
    batch.commit(&marker(1, 2)).await.unwrap();
    assert_eq!(read(&store, &wanted).await, rows);
}

pub async fn geometry_is_carried_by_its_bytes(lab: &Lab) {
    lab.run(
        "CREATE TABLE places (id int PRIMARY KEY, at point); INSERT INTO places VALUES (1, POINT(1.5, -2)), (2, NULL)",
    )
    .await;
    let store = lab.store();
    assert_eq!(store.check(&names(&["places"])).await.unwrap(), Vec::new());
    let rows = read(&store, &query("places", &["id", "at"], &["id"])).await;
    let Value::Blob(bytes) = &rows[0][1] else { panic!("{:?}", rows[0]) };
    assert_eq!(
        hex::encode(bytes),
        "000000000101000000000000000000f83f00000000000000c0",
        "no reference system, then WKB"
    );
    let mut batch = store.begin_batch().await.unwrap();
    let same = Filter::Same(ColumnRef::own("at"), rows[0][1].clone());
    assert_eq!(batch.delete("places", &[], &same).await.unwrap(), 1);
    batch.insert("places", &names(&["id", "at"]), &rows[0]).await.unwrap();
    batch.commit(&marker(1, 1)).await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM places WHERE ST_X(at) = 1.5 AND ST_Y(at) = -2").await, 1);
    assert!(
        store
            .begin_batch()
            .await
            .unwrap()
            .insert("places", &names(&["id", "at"]), &vec![text("3"), text("x")])
            .await
            .is_err()
    );
}

pub async fn text_is_not_a_number(lab: &Lab) {
    lab.run("CREATE TABLE numbers (id int PRIMARY KEY, big bigint, d decimal(38,0))").await;
    lab.run("INSERT INTO numbers VALUES (0, 9007199254740992, 12345678901234567890123456789012345678)").await;
    let store = lab.store();
    let mut wanted = query("numbers", &["id"], &["id"]);
    // One apart, and equal as doubles.
    wanted.filter = Filter::Equals(ColumnRef::own("big"), text("9007199254740993"));
    assert_eq!(count(&store, &wanted).await, 0);
    wanted.filter = Filter::Equals(ColumnRef::own("d"), text("12345678901234567890123456789012345679"));
    assert_eq!(count(&store, &wanted).await, 0);
    wanted.filter = Filter::Equals(ColumnRef::own("d"), text("12345678901234567890123456789012345678"));
    assert_eq!(count(&store, &wanted).await, 1);
    let mut batch = store.begin_batch().await.unwrap();
    let zero = Filter::Equals(ColumnRef::own("id"), text("C2024"));
    assert!(matches!(batch.delete("numbers", &[], &zero).await, Err(StoreError::Refused { .. })));
    batch.roll_back().await.unwrap();
}

pub async fn enums_page_in_one_order(lab: &Lab) {
    lab.run("CREATE TABLE moods (m enum('z', 'b', 'm', 'a') PRIMARY KEY); INSERT INTO moods VALUES ('z'), ('b'), ('m'), ('a')").await;
    let store = lab.store();
    let mut snapshot = store.open_snapshot().await.unwrap();
    let mut page = query("moods", &["m"], &["m"]);
    page.limit = 1;
    let mut seen = Vec::new();
    while let Some(row) = snapshot.read(&page).await.unwrap().pop() {
        seen.push(shown(&row[0]));
        page.after = Some(RowKey(row));
    }
    assert_eq!(seen, ["a", "b", "m", "z"]);
}

pub async fn not_a_database(lab: &Lab) {
    std::fs::write(lab.folder().join("letter.db"), "Dear all, this is no database, but long enough to look at.")
        .unwrap();
    let error = lab.store_at("sqlite://letter.db", false).catalogue().await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }) && !error.is_retryable(), "{error:?}");
}

pub async fn texts_that_are_not_utf8(lab: &Lab) {
    lab.run(
        "CREATE TABLE bad (id int NOT NULL PRIMARY KEY, t text); INSERT INTO bad VALUES (1, CAST(x'ff61' AS text))",
    )
    .await;
    let store = lab.store();
    let mut snapshot = store.open_snapshot().await.unwrap();
    let error = snapshot.read(&query("bad", &["id", "t"], &["id"])).await.unwrap_err();
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

pub async fn special_tables(lab: &Lab) {
    lab.run(
        "CREATE TABLE short (a text, b int, PRIMARY KEY (b, a)) WITHOUT ROWID; CREATE VIRTUAL TABLE search USING fts5(body);
         CREATE TABLE strict (id integer PRIMARY KEY, v any) STRICT; CREATE TABLE nullable (id text PRIMARY KEY);
         INSERT INTO nullable VALUES (NULL), ('a'); CREATE TABLE child (up REFERENCES SHORT, b int)",
    )
    .await;
    let store = lab.store();
    let catalogue = store.catalogue().await.unwrap();
    let tables: Vec<&str> = catalogue.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(tables, ["child", "nullable", "short", "strict"]);
    assert_eq!(catalogue.table("short").unwrap().key, names(&["b", "a"]));
    assert!(catalogue.table("nullable").unwrap().columns[0].nullable);
    assert_eq!(catalogue.table("child").unwrap().foreign_keys[0].parent, "short");
    let mut snapshot = store.open_snapshot().await.unwrap();
    let error = snapshot.read(&query("nullable", &["id"], &["id"])).await.unwrap_err();
    assert!(matches!(&error, StoreError::Refused { what, .. } if what.contains("NULL")), "{error}");
}

/// A writer that is killed in its commit leaves a journal, and until that is rolled back SQLite lets nobody read who may not write.
pub async fn what_a_killed_writer_left_stops_no_reader(lab: &Lab) {
    lab.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT); WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
         INSERT INTO t SELECT i, printf('%0500d', i) FROM n",
    )
    .await;
    let wanted = query("t", &["id"], &["id"]);
    let store = lab.store();
    assert_eq!(count(&store, &wanted).await, 2000);

    // What the files are while a change is half written, and nobody's lock on them any more.
    let path = lab.folder().join(format!("{}.db", lab.database()));
    let journal = std::path::PathBuf::from(format!("{}-journal", path.display()));
    let mut writer = sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let begun = "PRAGMA cache_size = 5; BEGIN IMMEDIATE; DELETE FROM t WHERE id > 10";
    sqlx::raw_sql(begun).execute(&mut writer).await.unwrap();
    let [half, undo] = [&path, &journal].map(|file| std::fs::read(file).unwrap());
    sqlx::raw_sql("ROLLBACK").execute(&mut writer).await.unwrap();
    writer.close().await.unwrap();
    let killed = || {
        std::fs::write(&path, &half).unwrap();
        std::fs::write(&journal, &undo).unwrap();
    };

    killed();
    assert_eq!(count(&lab.store(), &wanted).await, 2000, "by one that opens the file");
    assert!(!journal.exists());
    killed();
    assert_eq!(count(&store, &wanted).await, 2000, "by one that has read before");
    assert!(!journal.exists());
}
