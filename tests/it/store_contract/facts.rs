//! The catalogue, checks before work, and what a store says about itself.

use std::os::unix::fs::FileExt;

use wangchuan::clock::{Clock, SystemClock};
use wangchuan::stores::{
    ColumnKind, Engine, Finding, FindingKind, OnDelete, PhysicalStage, PhysicalState, Residue, ResidueCode, Settling,
    StoreError,
};

use super::servers::Lab;
use super::*;

pub async fn catalogue_tells_tables_keys_and_triggers(lab: &Lab) {
    make_shop(lab).await;
    let (numbered, computed, partial) = match lab.engine() {
        Engine::Sqlite => ("integer NOT NULL PRIMARY KEY AUTOINCREMENT", "STORED", " WHERE b > 0"),
        Engine::Postgres => ("bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "STORED", " WHERE b > 0"),
        Engine::Mysql => ("bigint NOT NULL AUTO_INCREMENT PRIMARY KEY", "STORED", ""),
    };
    lab.run(&format!(
        "CREATE TABLE things (id {numbered}, a varchar(10) NOT NULL, b int NOT NULL DEFAULT 7, \
           c int GENERATED ALWAYS AS (b * 2) {computed}, order_id bigint, line int, UNIQUE (a, b), \
           FOREIGN KEY (order_id, line) REFERENCES order_lines (order_id, line) ON DELETE CASCADE, \
           FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE SET NULL);
         CREATE INDEX things_by_b ON things (b){partial};
         CREATE TABLE keyless (a int); CREATE TABLE second_key (a int, b int NOT NULL, UNIQUE (a), UNIQUE (b));
         CREATE VIEW seen AS SELECT * FROM things"
    ))
    .await;
    let trigger = |name: &str, event: &str| match lab.engine() {
        Engine::Sqlite => format!("CREATE TRIGGER {name} BEFORE {event} ON things BEGIN SELECT 1; END"),
        Engine::Postgres => {
            format!("CREATE TRIGGER {name} BEFORE {event} ON things FOR EACH ROW EXECUTE FUNCTION nothing()")
        }
        Engine::Mysql => format!("CREATE TRIGGER {name} BEFORE {event} ON things FOR EACH ROW SET @x = 1"),
    };
    if lab.engine() == Engine::Postgres {
        lab.run("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'").await;
    }
    for (name, event) in [("t_delete", "DELETE"), ("t_update", "UPDATE"), ("t_insert", "INSERT")] {
        lab.run(&trigger(name, event)).await;
    }
    let store = lab.store();
    let catalogue = store.catalogue().await.unwrap();
    let tables: Vec<&str> = catalogue.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(tables, ["customers", "keyless", "order_lines", "orders", "second_key", "things"]);
    let things = catalogue.table("things").unwrap();
    let columns: Vec<&str> = things.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["id", "a", "b", "c", "order_id", "line"]);
    assert_eq!(things.key, names(&["id"]));
    assert_eq!(things.unique, [names(&["a", "b"])]);
    let flags: Vec<_> = things.columns.iter().map(|c| (c.nullable, c.generated, c.numbered)).collect();
    let (plain, required) = ((true, false, false), (false, false, false));
    assert_eq!(flags, [(false, false, true), required, required, (true, true, false), plain, plain]);
    assert!(things.columns[2].default.as_deref().unwrap().contains('7'));
    assert_eq!(things.columns[1].kind, Some(ColumnKind::Text));
    assert_eq!(things.columns[2].kind, Some(ColumnKind::Integer));
    assert!(things.columns[1].type_name.contains("(10)"), "{}", things.columns[1].type_name);
    let mut keys = things.foreign_keys.clone();
    keys.sort_by_key(|key| key.columns.len());
    assert_eq!((keys[0].parent.as_str(), keys[0].on_delete), ("orders", OnDelete::Unset));
    assert_eq!((keys[1].parent.as_str(), keys[1].on_delete), ("order_lines", OnDelete::Cascade));
    assert_eq!(
        (&keys[1].columns, &keys[1].parent_columns),
        (&names(&["order_id", "line"]), &names(&["order_id", "line"]))
    );
    let triggers: Vec<_> = things.triggers.iter().map(|trigger| (trigger.name.as_str(), trigger.on_delete)).collect();
    assert_eq!(triggers, [("t_delete", true), ("t_update", false)]);
    assert_eq!(things.index_statements.iter().filter(|sql| sql.contains("things_by_b")).count(), 1);
    let lines = catalogue.table("order_lines").unwrap();
    assert_eq!(lines.key, names(&["order_id", "line"]));
    assert_eq!(lines.foreign_keys[0].on_delete, OnDelete::Refuse);
    assert_eq!(catalogue.table("keyless").unwrap().key, Vec::<String>::new());
    let second = catalogue.table("second_key").unwrap();
    assert_eq!((&second.key, &second.unique), (&names(&["b"]), &vec![names(&["a"])]));
    let orders = catalogue.table("orders").unwrap();
    assert_eq!(orders.columns[3].kind, Some(ColumnKind::Decimal));
    let time = if lab.engine() == Engine::Sqlite { ColumnKind::Text } else { ColumnKind::LocalTime };
    assert_eq!(orders.columns[2].kind, Some(time));
}

fn kinds<'f>(findings: &'f [Finding], table: &str) -> Vec<&'f FindingKind> {
    findings.iter().filter(|finding| finding.table.as_deref() == Some(table)).map(|finding| &finding.kind).collect()
}

pub async fn check_finds_what_stands_in_the_way(lab: &Lab) {
    make_shop(lab).await;
    lab.run("CREATE TABLE keyless (a int)").await;
    let fires = match lab.engine() {
        Engine::Sqlite => "CREATE TRIGGER keep BEFORE DELETE ON order_lines BEGIN SELECT RAISE(IGNORE); END",
        Engine::Postgres => {
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER keep BEFORE DELETE ON order_lines FOR EACH ROW EXECUTE FUNCTION swallow()"
        }
        Engine::Mysql => "CREATE TRIGGER keep BEFORE DELETE ON order_lines FOR EACH ROW SET @kept = OLD.line",
    };
    lab.run(fires).await;
    let store = lab.store();
    let all = names(&["customers", "keyless", "order_lines", "gone"]);
    let findings = store.check(&all).await.unwrap();
    assert_eq!(kinds(&findings, "customers"), Vec::<&FindingKind>::new());
    assert_eq!(kinds(&findings, "keyless"), [&FindingKind::NoKey]);
    assert_eq!(kinds(&findings, "order_lines"), [&FindingKind::Trigger("keep".to_owned())]);
    assert_eq!(kinds(&findings, "gone"), [&FindingKind::MissingTable]);
    assert!(findings.iter().all(|finding| !finding.what.is_empty() && !finding.remedy.is_empty()));
    assert_eq!(store.check(&names(&["customers"])).await.unwrap(), Vec::new());
    if lab.engine() != Engine::Mysql {
        // The swallowed delete shows in the count, which is the engine's own.
        let mut batch = store.begin_batch().await.unwrap();
        assert_eq!(batch.delete("order_lines", &[], &Filter::All).await.unwrap(), 0);
        batch.roll_back().await.unwrap();
    }
}

pub async fn clock_is_near_ours(lab: &Lab) {
    let difference = lab.store().server_time().await.unwrap() - SystemClock.now();
    assert!(difference.num_seconds().abs() <= 5, "{difference}");
}

pub async fn nobody_answers(lab: &Lab) {
    let (absent, login) = match lab.engine() {
        Engine::Sqlite => ("sqlite://absent.db".to_owned(), None),
        Engine::Postgres => ("postgres://u:hunter2secret@127.0.0.1:9/x".to_owned(), Some("postgres")),
        Engine::Mysql => ("mysql://u:hunter2secret@127.0.0.1:9/x".to_owned(), Some("mysql")),
    };
    let store = lab.store_at(&absent, false);
    for error in [store.server_time().await.map(|_| ()), store.begin_batch().await.map(|_| ())] {
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    assert!(!lab.folder().join("absent.db").exists(), "a missing file is never created");
    if login.is_some() {
        let store = lab.store_at(&lab.url_as("nobody_here", "hunter2secret"), false);
        let error = store.server_time().await.map(|_| ());
        // A server that trusts every local login refuses the unknown role all the same.
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::Login { .. }) && !error.is_retryable(), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

fn asked(tables: &[String]) -> Settling<'_> {
    Settling { tables, vacuum_bytes: 64 << 20, ..Settling::default() }
}

fn codes(state: &PhysicalState) -> Vec<ResidueCode> {
    state.residues.iter().map(|residue| residue.code).collect()
}

pub async fn settle_says_what_remains(lab: &Lab) {
    make_shop(lab).await;
    if lab.engine() != Engine::Sqlite {
        let tables = names(&["orders", "not there"]);
        let state = lab.store().settle(&asked(&tables)).await.unwrap();
        assert!(state.stage() != PhysicalStage::Settled && state.mark.is_some(), "{state:?}");
        for code in [ResidueCode::PageRemains, ResidueCode::TransactionLog] {
            assert!(codes(&state).contains(&code), "{state:?}");
        }
        return;
    }
    lab.run("PRAGMA journal_mode = WAL; CREATE TABLE secrets (id int NOT NULL PRIMARY KEY, s text)").await;
    let secret = "canary-0815-canary";
    lab.run(&format!("INSERT INTO secrets VALUES (1, '{secret}')")).await;
    let store = lab.store();
    let mut reading = store.open_snapshot().await.unwrap();
    let mut batch = store.begin_batch().await.unwrap();
    assert_eq!(batch.delete("secrets", &[], &Filter::All).await.unwrap(), 1);
    batch.commit(&marker(1, 1)).await.unwrap();
    let tables = names(&["secrets"]);
    let blocked = store.settle(&asked(&tables)).await.unwrap();
    assert_eq!(blocked.stage(), PhysicalStage::Pending, "a reader holds older pages: {blocked:?}");
    assert_eq!(codes(&blocked), [ResidueCode::OpenReader]);
    assert_eq!(reading.count(&query("secrets", &["id"], &["id"])).await.unwrap(), 1);
    reading.close().await.unwrap();
    let state = store.settle(&asked(&tables)).await.unwrap();
    assert_eq!(state.stage(), PhysicalStage::Settled, "{state:?}");
    assert_eq!(found_in(lab.folder(), &[secret.to_owned()]), 0, "the deleted value is still in a file");
}

/// How many of the values stand in the files of a folder.
fn found_in(folder: &std::path::Path, values: &[String]) -> usize {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        seen.extend(std::fs::read(entry.unwrap().path()).unwrap());
        seen.push(0);
    }
    assert!(seen.len() > 4096);
    let is_there = |value: &&String| seen.windows(value.len()).any(|window| window == value.as_bytes());
    values.iter().filter(is_there).count()
}

/// Copies of rows that a page split left behind, and words in full-text indexes: `secure_delete` reaches neither.
pub async fn settle_removes_what_secure_delete_leaves(lab: &Lab) {
    if lab.engine() != Engine::Sqlite {
        return;
    }
    let values: Vec<String> =
        (0..1500u32).map(|n| format!("{:08x}canary{n:05}", n.wrapping_mul(2_654_435_761))).collect();
    lab.run(
        "PRAGMA journal_mode = WAL; CREATE TABLE people (id INTEGER PRIMARY KEY, email text, note text); \
         CREATE INDEX by_email ON people (email); \
         CREATE VIRTUAL TABLE words5 USING\n\tfts5(note, content=people, content_rowid=id); \
         CREATE VIRTUAL TABLE \"Words4\" /* of notes */ USING-- words\n\"FTS4\"(note); \
         CREATE TRIGGER gone AFTER DELETE ON people BEGIN \
           INSERT INTO words5 (words5, rowid, note) VALUES ('delete', old.id, old.note); \
           DELETE FROM words4 WHERE docid = old.id; END",
    )
    .await;
    let mut script = vec!["BEGIN;".to_owned()];
    for (n, value) in values.iter().enumerate() {
        // Not in the order of the key: pages are split in the middle, and copies stay behind.
        let id = (n * 7919) % 1500;
        script.push(format!("INSERT INTO people VALUES ({id}, '{value}', 'zz{value}');"));
        script.push(format!("INSERT INTO words5 (rowid, note) VALUES ({id}, 'zz{value}');"));
        script.push(format!("INSERT INTO words4 (docid, note) VALUES ({id}, 'zz{value}');"));
    }
    lab.run(&format!("{} COMMIT; PRAGMA wal_checkpoint(TRUNCATE)", script.concat())).await;
    let store = lab.store();
    let mut batch = store.begin_batch().await.unwrap();
    let gone = Filter::In(names(&["id"]), (0..400).map(|id| RowKey(vec![Value::Integer(id)])).collect());
    assert_eq!(batch.delete("people", &[], &gone).await.unwrap(), 400);
    batch.commit(&marker(1, 1)).await.unwrap();
    let erased: Vec<String> =
        values.iter().enumerate().filter(|(n, _)| (n * 7919) % 1500 < 400).map(|(_, value)| value.clone()).collect();
    lab.run("PRAGMA wal_checkpoint(TRUNCATE)").await;
    assert!(found_in(lab.folder(), &erased) > 10, "nothing is left that settling could remove");
    let tables = names(&["people"]);
    let only_named = Settling { vacuum_bytes: 0, ..asked(&tables) };
    let state = store.settle(&only_named).await.unwrap();
    assert_eq!(codes(&state), [ResidueCode::PageRemains], "{state:?}");
    let state = store.settle(&asked(&tables)).await.unwrap();
    assert_eq!(state.stage(), PhysicalStage::Settled, "{state:?}");
    assert_eq!(found_in(lab.folder(), &erased), 0, "deleted values are still in the file");
    let living: Vec<String> = values.into_iter().filter(|value| !erased.contains(value)).collect();
    assert_eq!(found_in(lab.folder(), &living), 1100);
    // A table whose rows have no number of their own is not written anew without being asked.
    lab.run("CREATE TABLE loose (s text); CREATE INDEX by_s ON loose (s)").await;
    let mut script = vec!["BEGIN;".to_owned()];
    for value in &erased {
        script.push(format!("INSERT INTO loose VALUES ('{value}');"));
    }
    lab.run(&format!("{} COMMIT; PRAGMA secure_delete = OFF; DELETE FROM loose", script.concat())).await;
    let state = store.settle(&asked(&tables)).await.unwrap();
    assert_eq!(codes(&state), [ResidueCode::PageRemains], "{state:?}");
    let state = store.settle(&Settling { rewrite: true, ..asked(&tables) }).await.unwrap();
    assert_eq!(state.stage(), PhysicalStage::Settled, "{state:?}");
    assert_eq!(found_in(lab.folder(), &erased), 0);
}

/// `INTEGER PRIMARY KEY DESC` is no number of the row: a rewrite would number the rows anew.
pub async fn settle_leaves_numbers_of_rows_alone(lab: &Lab) {
    if lab.engine() != Engine::Sqlite {
        return;
    }
    let insert = "WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 2000) \
         INSERT INTO falling (rowid, id, s) SELECT value * 10, value, hex(randomblob(60)) || 'canary' FROM n";
    lab.run(&format!(
        "CREATE TABLE falling (id INTEGER PRIMARY KEY DESC, s text); {insert}; PRAGMA secure_delete = OFF; \
         DELETE FROM falling WHERE id <= 1000"
    ))
    .await;
    let tables = names(&["falling"]);
    let numbers = "SELECT CAST(min(rowid) AS INTEGER) FROM falling";
    assert_eq!(lab.number(numbers).await, 10_010);
    let state = lab.store().settle(&asked(&tables)).await.unwrap();
    assert_eq!(codes(&state), [ResidueCode::PageRemains], "{state:?}");
    assert_eq!(lab.number(numbers).await, 10_010);
}

/// Whoever owns a table may clean up the parts of it that are his: PostgreSQL passes over the others with a warning at most.
pub async fn settle_names_parts_of_other_owners(lab: &Lab) {
    if lab.engine() != Engine::Postgres {
        return;
    }
    let user = format!("{}_owner", lab.database());
    lab.run(&format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'secret'; GRANT ALL ON SCHEMA public TO {user};
         CREATE TABLE parted (id int PRIMARY KEY, s text) PARTITION BY HASH (id);
         CREATE TABLE part_a PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE part_b PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         ALTER TABLE parted OWNER TO {user}; ALTER TABLE part_a OWNER TO {user}"
    ))
    .await;
    let store = lab.store_at(&lab.url_as(&user, "secret"), false);
    let tables = names(&["parted"]);
    let state = store.settle(&asked(&tables)).await.unwrap();
    assert!(state.residues.contains(&Residue::of(ResidueCode::NoRight, "parted")), "{state:?}");
    lab.run(&format!("ALTER TABLE part_b OWNER TO {user}")).await;
    let state = store.settle(&asked(&tables)).await.unwrap();
    assert!(!codes(&state).contains(&ResidueCode::NoRight), "{state:?}");
    lab.run(&format!("DROP OWNED BY {user}; DROP ROLE {user}")).await;
}

/// A file that would not fit a second time stays as it is: here one that is mostly a hole.
pub async fn settle_asks_for_room_first(lab: &Lab) {
    if lab.engine() != Engine::Sqlite {
        return;
    }
    lab.run("CREATE TABLE people (id INTEGER PRIMARY KEY, name text); INSERT INTO people VALUES (1, 'somebody')").await;
    let pages: u32 = 1 << 31;
    let path = lab.folder().join(format!("{}.db", lab.database()));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&pages.to_be_bytes(), 28).unwrap();
    if file.set_len(u64::from(pages) * 4096).is_err() {
        eprintln!("not tried: this file system has no files of that size");
        return;
    }
    let tables = names(&["people"]);
    let state = lab.store().settle(&Settling { rewrite: true, ..asked(&tables) }).await.unwrap();
    assert_eq!(codes(&state), [ResidueCode::PageRemains, ResidueCode::NoRoom], "{state:?}");
    assert_eq!(state.stage(), PhysicalStage::Residual, "nobody waits for a disk to grow");
    assert_eq!(lab.number("SELECT count(*) FROM people").await, 1);
}

/// Who keeps old versions is named for as long as it does, and another mark makes no difference to it.
pub async fn settle_waits_for_whoever_keeps_rows(lab: &Lab) {
    if lab.engine() == Engine::Sqlite {
        return;
    }
    make_shop(lab).await;
    let store = lab.store();
    let reading = store.open_snapshot().await.unwrap();
    lab.run("UPDATE orders SET total = 3").await;
    let tables = names(&["orders"]);
    let first = store.settle(&asked(&tables)).await.unwrap();
    let keeper = if lab.engine() == Engine::Postgres { ResidueCode::OldTransaction } else { ResidueCode::PurgeBehind };
    assert!(codes(&first).contains(&keeper) && first.stage() == PhysicalStage::Pending, "{first:?}");
    let again = Settling { mark: first.mark.as_deref(), ..asked(&tables) };
    assert!(codes(&store.settle(&again).await.unwrap()).contains(&keeper));
    reading.close().await.unwrap();
    let mut state = store.settle(&again).await.unwrap();
    for _ in 0..100 {
        if state.stage() != PhysicalStage::Pending {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        state = store.settle(&again).await.unwrap();
    }
    assert_eq!(state.stage(), PhysicalStage::Residual, "{state:?}");
    let state = store.settle(&Settling { rewrite: true, ..again }).await.unwrap();
    assert!(!codes(&state).contains(&ResidueCode::PageRemains) && state.is_rewritten, "{state:?}");
}

/// The account that a login from here is: by name or by address, depending on the server's name resolution. Only one of
/// the two may exist, because the server finds rights on tables under either.
pub async fn mariadb_account(lab: &Lab, user: &str) -> String {
    let by_name = lab.number("SELECT CAST(USER() LIKE '%@localhost' AS SIGNED)").await == 1;
    format!("{user}@'{}'", if by_name { "localhost" } else { "127.0.0.1" })
}

/// A login with some rights only: the missing ones are named with the statement that grants them, and that statement
/// works.
pub async fn missing_rights_come_with_their_grant(lab: &Lab) {
    make_shop(lab).await;
    let user = format!("{}_app", lab.database());
    match lab.engine() {
        Engine::Sqlite => return,
        Engine::Postgres => {
            lab.run(&format!(
                "CREATE ROLE {user} LOGIN PASSWORD 'pw'; GRANT USAGE ON SCHEMA public TO {user}; GRANT SELECT ON customers TO {user};
                 GRANT SELECT, INSERT, UPDATE, DELETE ON order_lines TO {user};
                 ALTER TABLE order_lines ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY only_a ON order_lines USING (sku = 'a')"
            ))
            .await;
        }
        Engine::Mysql => {
            let (account, database) = (mariadb_account(lab, &user).await, lab.database());
            lab.run(&format!(
                "CREATE USER {account} IDENTIFIED BY 'pw'; GRANT SELECT ON {database}.customers TO {account};
                 GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON {database}.order_lines TO {account}"
            ))
            .await;
        }
    }
    let store = lab.store_at(&lab.url_as(&user, "pw"), false);
    let tables = names(&["customers", "order_lines"]);
    let findings = store.check(&tables).await.unwrap();
    assert_eq!(kinds(&findings, "customers"), [&FindingKind::NoRight], "{findings:?}");
    if lab.engine() == Engine::Postgres {
        assert_eq!(kinds(&findings, "order_lines"), [&FindingKind::HiddenRows]);
        // Rows that a policy hides are an error, never an empty answer.
        let mut snapshot = store.open_snapshot().await.unwrap();
        let hidden = snapshot.count(&query("order_lines", &["line"], &["order_id", "line"])).await.unwrap_err();
        assert!(matches!(hidden, StoreError::Refused { .. }), "{hidden}");
    }
    let mut batch = store.begin_batch().await;
    if let Ok(batch) = &mut batch {
        let error = batch.delete("customers", &[], &Filter::All).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    }
    drop(batch);
    let grants: Vec<&Finding> = findings.iter().filter(|finding| finding.kind == FindingKind::NoRight).collect();
    assert_eq!(grants.len(), 2, "one for the table, one for the marker table: {grants:?}");
    for grant in grants {
        assert!(grant.remedy.starts_with("GRANT "), "{grant:?}");
        lab.run(&grant.remedy).await;
    }
    if lab.engine() == Engine::Postgres {
        lab.run("ALTER TABLE order_lines DISABLE ROW LEVEL SECURITY").await;
    }
    assert_eq!(store.check(&tables).await.unwrap(), Vec::new());
    let mut batch = store.begin_batch().await.unwrap();
    assert_eq!(batch.delete("order_lines", &[], &Filter::All).await.unwrap(), 5);
    batch.commit(&marker(1, 5)).await.unwrap();
    assert_eq!(store.batch_outcome("run-1", 1).await.unwrap(), Some(marker(1, 5)));
    // The marker table exists now; the rights on it are looked at too.
    assert_eq!(store.check(&tables).await.unwrap(), Vec::new());
    match lab.engine() {
        Engine::Postgres => {
            lab.run(&format!(
                "ALTER TABLE wangchuan_batch OWNER TO postgres; REVOKE ALL ON wangchuan_batch FROM {user}"
            ))
            .await;
            let finding = &store.check(&tables).await.unwrap()[0];
            assert!(finding.remedy.contains("wangchuan_batch"), "{finding:?}");
            lab.run(&format!("DROP OWNED BY {user}; DROP ROLE {user}")).await;
        }
        _ => lab.run(&format!("DROP USER {}", mariadb_account(lab, &user).await)).await,
    }
}

pub async fn load_and_heartbeat(lab: &Lab) {
    let store = lab.store();
    if lab.engine() == Engine::Sqlite {
        assert_eq!(store.load().await.unwrap(), wangchuan::stores::Load::default());
        assert_eq!((store.beat().await.unwrap(), store.last_beat().await.unwrap()), (None, None));
        return;
    }
    assert!(store.last_beat().await.is_err(), "nobody wrote a heartbeat yet");
    let first = store.beat().await.unwrap().unwrap();
    assert_eq!(store.last_beat().await.unwrap(), Some(first));
    let now = store.server_time().await.unwrap().timestamp_micros();
    assert!((0..60_000_000).contains(&(now - first)), "{first} is not the server's time {now}");
    let second = store.beat().await.unwrap().unwrap();
    assert!(second > first);
    assert_eq!(store.last_beat().await.unwrap(), Some(second));
    assert_eq!(lab.number("SELECT count(*) FROM wangchuan_batch").await, 1, "older heartbeats stay");

    let sleeping = match lab.engine() {
        Engine::Postgres => "SELECT pg_sleep(3)",
        _ => "SELECT SLEEP(3)",
    };
    let before = store.load().await.unwrap();
    let busy = async {
        let mut most = 0;
        for _ in 0..50 {
            most = store.load().await.unwrap().active.unwrap().max(most);
            if most > 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        most
    };
    let ((), active) = tokio::join!(lab.run(sleeping), busy);
    assert!(active > 0, "a session at work is not seen");
    lab.run("CREATE TABLE many (a int); INSERT INTO many VALUES (1), (2), (3)").await;
    lab.run("INSERT INTO many SELECT x.a FROM many x, many y, many z").await;
    let after = store.load().await.unwrap();
    assert!(after.log_bytes > before.log_bytes, "{before:?} {after:?}");
    assert!(after.unpurged.is_some());
}

pub async fn sizes_and_indexes(lab: &Lab) {
    make_shop(lab).await;
    let series = match lab.engine() {
        Engine::Sqlite => {
            "(WITH RECURSIVE n (a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM n WHERE a < 3000) SELECT a FROM n) AS s"
        }
        Engine::Postgres => "generate_series(1, 3000) AS s (a)",
        Engine::Mysql => "(SELECT seq AS a FROM seq_1_to_3000) AS s",
    };
    lab.run("CREATE TABLE big (a int, b int); CREATE INDEX by_both ON big (b, a)").await;
    lab.run(&format!("INSERT INTO big SELECT a, a FROM {series}")).await;
    let partial = lab.engine() != Engine::Mysql;
    if partial {
        lab.run("CREATE INDEX in_part ON big (a) WHERE b > 5").await;
    }
    let store = lab.store();
    let facts = store.table_facts(&names(&["big", "orders", "nowhere"]), 1000).await.unwrap();
    assert_eq!(facts.keys().collect::<Vec<_>>(), ["big", "orders"]);
    let big = &facts["big"];
    // Nobody analysed it, and still it is not taken for empty.
    assert!(big.rows > 1000, "{big:?}");
    assert_eq!(big.indexes, [names(&["b", "a"])], "an index over some rows counts for none");
    assert!(facts["orders"].indexes.contains(&names(&["customer_id"])), "{facts:?}");
    assert!(facts["orders"].indexes.contains(&names(&["id"])), "{facts:?}");
    assert!(facts["orders"].rows < 1000, "{facts:?}");
    if lab.engine() == Engine::Postgres {
        lab.run(
            "CREATE TABLE parts (a int, at timestamp) PARTITION BY RANGE (at);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
             CREATE INDEX ON parts (at); CREATE INDEX ON big ((a + 1), b);
             INSERT INTO parts SELECT a, '2020-02-02' FROM generate_series(1, 3000) AS s (a); ANALYZE parts",
        )
        .await;
        let facts = store.table_facts(&names(&["big", "parts"]), 1000).await.unwrap();
        assert_eq!((facts["parts"].rows, facts["parts"].indexes.clone()), (3000, vec![names(&["at"])]));
        assert!(facts["big"].indexes.contains(&names(&["", "b"])), "an expression is no column: {facts:?}");
    }
}
