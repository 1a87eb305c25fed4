//! Whole schemas with rows of every type: captured, made again in an empty database, and compared by the databases' own words.

use wangchuan::stores::{DataStore, Definitions, Engine, StoreError, Table};
use wangchuan::value::Value;

use super::servers::Lab;
use super::*;

/// Everything of a store: rows by table, without computed columns, then the definitions.
struct Whole {
    tables: Vec<Table>,
    rows: Vec<(Vec<String>, Vec<Row>)>,
    definitions: Definitions,
}

async fn capture(store: &Arc<dyn DataStore>) -> Whole {
    let tables = store.catalogue().await.unwrap().tables;
    let mut snapshot = store.open_snapshot().await.unwrap();
    let mut rows = Vec::new();
    for table in &tables {
        let columns: Vec<String> = table.columns.iter().filter(|c| !c.generated).map(|c| c.name.clone()).collect();
        let shown: Vec<&str> = columns.iter().map(String::as_str).collect();
        let key: Vec<&str> = table.key.iter().map(String::as_str).collect();
        rows.push((columns.clone(), snapshot.read(&query(&table.name, &shown, &key)).await.unwrap()));
    }
    let names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
    let definitions = snapshot.definitions(&names).await.unwrap();
    snapshot.close().await.unwrap();
    Whole { tables, rows, definitions }
}

/// Makes everything again, children first.
async fn restore(whole: &Whole, target: &Arc<dyn DataStore>) -> Vec<String> {
    // As it stands in a snapshot.
    let definitions: Definitions = serde_json::from_slice(&serde_json::to_vec(&whole.definitions).unwrap()).unwrap();
    let (mut into, mut notes) = target.begin_restore_as(&whole.tables, &definitions).await.unwrap();
    for (table, (columns, rows)) in whole.tables.iter().zip(&whole.rows).rev() {
        into.insert(&table.name, columns, rows).await.unwrap();
    }
    notes.extend(into.complete().await.unwrap());
    assert_eq!(into.finish(false).await.unwrap(), Vec::<String>::new());
    notes
}

/// The same text for every query in both databases.
async fn same(lab: &Lab, twin: &Lab, queries: &[String]) {
    for query in queries {
        let (before, after) = (lab.texts(query).await, twin.texts(query).await);
        assert_eq!(before, after, "{query}");
    }
}

fn script(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => include_str!("schemas/sqlite.sql"),
        Engine::Postgres => include_str!("schemas/postgres.sql"),
        Engine::Mysql => include_str!("schemas/mariadb.sql"),
    }
}

/// What the engine itself says of rows: every value as text or hex, computed ones too.
fn rows_in_its_own_words(engine: Engine, tables: &[Table]) -> Vec<String> {
    let quote = |name: &str| match engine {
        Engine::Mysql => format!("`{}`", name.replace('`', "``")),
        _ => format!("\"{}\"", name.replace('"', "\"\"")),
    };
    let one = |table: &Table| {
        let place = table.name.split('.').map(quote).collect::<Vec<_>>().join(".");
        let shown = |column: &wangchuan::stores::Column| {
            let name = quote(&column.name);
            match engine {
                Engine::Sqlite => format!("typeof({name}) || ' ' || coalesce(hex({name}), '') || ' ' || quote({name})"),
                // The type's own output, and not a cast, which may be kinder.
                Engine::Postgres => format!("format('%L', {name}::{})", column.type_name),
                Engine::Mysql => {
                    format!("concat(coalesce(hex({name}), 'NULL'), ' ', coalesce(hex(concat({name})), 'NULL'))")
                }
            }
        };
        let parts: Vec<String> = table.columns.iter().map(shown).collect();
        let text = match engine {
            Engine::Sqlite => parts.join(" || ' | ' || "),
            Engine::Postgres | Engine::Mysql => format!("concat_ws(' | ', {})", parts.join(", ")),
        };
        format!("SELECT {text} FROM {place} ORDER BY 1")
    };
    tables.iter().map(one).collect()
}

/// What the engine itself says of the schema.
fn schema_in_its_own_words(engine: Engine) -> Vec<String> {
    let queries: &[&str] = match engine {
        Engine::Sqlite => &[
            "SELECT type || name || tbl_name || coalesce(sql, '') FROM sqlite_master WHERE name <> 'wangchuan_batch' ORDER BY 1",
            "SELECT name || seq FROM sqlite_sequence ORDER BY 1",
        ],
        Engine::Postgres => &[
            "SELECT concat_ws(' ', conrelid::regclass, contypid::regtype, conname, contype, convalidated, pg_get_constraintdef(oid)) \
             FROM pg_constraint WHERE connamespace::regnamespace::text IN ('public', '\"Side\"') ORDER BY 1",
            "SELECT pg_get_indexdef(indexrelid) || indisvalid FROM pg_index WHERE indrelid >= 16384 AND indrelid::regclass::text NOT LIKE 'pg_%' ORDER BY 1",
            "SELECT concat_ws(' ', attrelid::regclass, attnum * 0, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, \
             attcollation::regcollation, pg_get_expr(adbin, adrelid)) FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum \
             JOIN pg_class c ON c.oid = attrelid WHERE attnum > 0 AND NOT attisdropped AND relnamespace::regnamespace::text IN ('public', '\"Side\"') ORDER BY 1",
            "SELECT concat_ws(' ', oid::regclass, relkind, relpersistence, pg_get_partkeydef(oid), pg_get_expr(relpartbound, oid)) FROM pg_class \
             WHERE relnamespace::regnamespace::text IN ('public', '\"Side\"') ORDER BY 1",
            "SELECT concat_ws(' ', seqrelid::regclass, seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle, \
             (SELECT string_agg(concat_ws(' ', refobjid::regclass, refobjsubid, deptype), ',') FROM pg_depend WHERE objid = seqrelid \
             AND deptype IN ('a', 'i'))) FROM pg_sequence ORDER BY 1",
            "SELECT concat_ws(' ', schemaname, sequencename, last_value) FROM pg_sequences ORDER BY 1",
            "SELECT concat_ws(' ', last_value, is_called) FROM tickets",
            "SELECT enumtypid::regtype || enumlabel FROM pg_enum ORDER BY enumtypid::regtype::text, enumsortorder",
            "SELECT concat_ws(' ', oid::regtype, typtype, typnotnull, typdefault, typbasetype::regtype, typtypmod, typcollation::regcollation) FROM pg_type \
             WHERE typnamespace::regnamespace::text IN ('public', '\"Side\"') ORDER BY 1",
            "SELECT concat_ws(' ', rngtypid::regtype, rngsubtype::regtype, rngmultitypid::regtype, rngsubopc, rngsubdiff) FROM pg_range ORDER BY 1",
            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prolang = 14 AND oid >= 16384 \
             AND proname IN ('is_even', 'initials') ORDER BY 1",
            "SELECT extname || extversion FROM pg_extension ORDER BY 1",
        ],
        Engine::Mysql => &[
            "SELECT concat_ws(' ', TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, coalesce(COLUMN_DEFAULT, 'none'), IS_NULLABLE, COLUMN_TYPE, coalesce(COLLATION_NAME, ''), \
             EXTRA, COLUMN_COMMENT, coalesce(GENERATION_EXPRESSION, '')) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() \
             AND COLUMN_NAME <> 'ticket' ORDER BY 1",
            "SELECT concat_ws(' ', TABLE_NAME, TABLE_TYPE, ENGINE, ROW_FORMAT, coalesce(AUTO_INCREMENT, 'none'), TABLE_COLLATION, TABLE_COMMENT) \
             FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1",
            "SELECT concat_ws(' ', TABLE_NAME, INDEX_NAME, NON_UNIQUE, SEQ_IN_INDEX, COLUMN_NAME, COLLATION, coalesce(SUB_PART, 'whole'), INDEX_TYPE) \
             FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1",
            "SELECT concat_ws(' ', TABLE_NAME, CONSTRAINT_NAME, CHECK_CLAUSE) FROM information_schema.CHECK_CONSTRAINTS \
             WHERE CONSTRAINT_SCHEMA = DATABASE() ORDER BY 1",
            "SELECT concat_ws(' ', TABLE_NAME, CONSTRAINT_NAME, REFERENCED_TABLE_NAME, UPDATE_RULE, DELETE_RULE) \
             FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE() ORDER BY 1",
            "SELECT concat_ws(' ', TABLE_NAME, coalesce(PARTITION_NAME, 'none'), coalesce(PARTITION_METHOD, ''), coalesce(PARTITION_DESCRIPTION, '')) \
             FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1",
            "SELECT concat_ws(' ', next_not_cached_value, start_value, increment, cache_size, maximum_value, cycle_option) FROM tickets",
        ],
    };
    queries.iter().map(|query| (*query).to_owned()).collect()
}

pub async fn everything_comes_back_as_it_was(lab: &Lab) {
    // A new label of an enum counts from the next transaction on.
    for part in script(lab.engine()).split("\n\n") {
        lab.run(part).await;
    }
    let whole = capture(&lab.store()).await;
    let twin = Lab::start(lab.engine()).await.unwrap();
    let target = twin.store_at(&twin.url(), true);
    assert_eq!(restore(&whole, &target).await, Vec::<String>::new());
    same(lab, &twin, &rows_in_its_own_words(lab.engine(), &whole.tables)).await;
    let rows: usize = whole.rows.iter().map(|(_, rows)| rows.len()).sum();
    assert!(rows >= 8, "{rows}");
    same(lab, &twin, &schema_in_its_own_words(lab.engine())).await;
    let (again, mut whole) = (capture(&target).await, whole);
    assert_eq!(again.rows, whole.rows);
    let mut definitions = again.definitions;
    for definitions in [&mut definitions, &mut whole.definitions] {
        // Those are in the order of their making.
        definitions.objects.sort_by(|a, b| a.name.cmp(&b.name));
        definitions.positions.sort_by(|a, b| a.sequence.cmp(&b.sequence));
    }
    assert_eq!(definitions, whole.definitions);
    // MariaDB names the database in a default that draws from a sequence.
    let shown = |tables: &[Table]| format!("{tables:?}").replace(twin.database(), lab.database());
    assert_eq!(shown(&again.tables), shown(&whole.tables));
    twin.finish().await;
}

/// What a restore of a part, and one into what is there already, does not touch.
pub async fn what_is_there_is_left_alone(lab: &Lab) {
    for part in script(lab.engine()).split("\n\n") {
        lab.run(part).await;
    }
    let whole = capture(&lab.store()).await;
    let twin = Lab::start(lab.engine()).await.unwrap();
    let parents = whole.tables.iter().find(|table| table.name == "parents").unwrap();
    match lab.engine() {
        Engine::Postgres => {
            twin.run("CREATE SEQUENCE tickets START 9; SELECT nextval('tickets'); CREATE TABLE numbered (id int)")
                .await;
        }
        Engine::Mysql => twin.run("CREATE SEQUENCE tickets START 9; CREATE TABLE numbered (id int)").await,
        Engine::Sqlite => {
            twin.run(
                "CREATE TABLE numbered (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO numbered VALUES (9000)",
            )
            .await;
        }
    }
    let target = twin.store_at(&twin.url(), true);
    let (mut into, notes) = target.begin_restore_as(std::slice::from_ref(parents), &whole.definitions).await.unwrap();
    assert_eq!(notes, Vec::<String>::new());
    let at = whole.tables.iter().position(|table| table.name == "parents").unwrap();
    into.insert("parents", &whole.rows[at].0, &whole.rows[at].1).await.unwrap();
    assert_eq!(into.complete().await.unwrap(), Vec::<String>::new());
    assert_eq!(into.finish(false).await.unwrap(), Vec::<String>::new());
    let after = target.catalogue().await.unwrap();
    let names: Vec<&str> = after.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["numbered", "parents"], "only what was wanted");
    if lab.engine() == Engine::Postgres {
        assert_eq!(twin.number("SELECT last_value FROM tickets").await, 105, "only ever forward, and behind the rows");
        assert_eq!(twin.number("SELECT seqstart FROM pg_sequence WHERE seqrelid = 'tickets'::regclass").await, 9);
    } else if lab.engine() == Engine::Sqlite {
        assert_eq!(twin.number("SELECT seq FROM sqlite_sequence WHERE name = 'numbered'").await, 9000);
    }
    twin.finish().await;
}

/// A stub, or a row that came past a check, does not meet it: it is told, and the check holds for new rows.
pub async fn checks_that_rows_do_not_meet_hold_for_new_rows(lab: &Lab) {
    lab.run("CREATE TABLE sized (id int NOT NULL PRIMARY KEY, n int, CONSTRAINT big CHECK (n > 10)); INSERT INTO sized VALUES (1, 11)").await;
    let whole = capture(&lab.store()).await;
    let twin = Lab::start(lab.engine()).await.unwrap();
    let target = twin.store_at(&twin.url(), true);
    let (mut into, _) = target.begin_restore_as(&whole.tables, &whole.definitions).await.unwrap();
    let number = |number: i64| Value::Integer(number);
    let rows = [vec![number(1), number(11)], vec![number(2), number(3)], vec![number(3), Value::Null]];
    into.insert("sized", &names(&["id", "n"]), &rows).await.unwrap();
    let notes = into.complete().await.unwrap();
    assert!(notes.len() == 1 && notes[0].contains("in force for new rows only: 1 rows"), "{notes:?}");
    assert_eq!(into.finish(false).await.unwrap(), Vec::<String>::new());
    let mut batch = target.begin_batch().await.unwrap();
    let refused = batch.insert("sized", &names(&["id", "n"]), &vec![number(4), number(5)]).await.unwrap_err();
    assert!(matches!(refused, StoreError::Constraint { .. } | StoreError::Failed { .. }), "{refused}");
    drop(batch);
    assert_eq!(twin.number("SELECT count(*) FROM sized").await, 3);
    twin.finish().await;
}

/// A function that a check calls may refuse to answer for a row, and say anything. That is no reason not to restore, and none of what
/// it says is repeated.
pub async fn checks_that_refuse_to_answer_are_told(lab: &Lab) {
    if lab.engine() != Engine::Postgres {
        return;
    }
    let picky = "CREATE FUNCTION picky(n int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN IF n < 10 THEN \
        RAISE EXCEPTION 'bad value of zhang.san@example.com' USING ERRCODE = 'check_violation'; END IF; RETURN true; END $$";
    lab.run(picky).await;
    lab.run("CREATE TABLE sized (id int NOT NULL PRIMARY KEY, n int, CONSTRAINT big CHECK (picky(n)))").await;
    let whole = capture(&lab.store()).await;
    let twin = Lab::start(lab.engine()).await.unwrap();
    let target = twin.store_at(&twin.url(), true);
    let (mut into, _) = target.begin_restore_as(&whole.tables, &whole.definitions).await.unwrap();
    into.insert("sized", &names(&["id", "n"]), &[vec![Value::Integer(1), Value::Integer(3)]]).await.unwrap();
    let notes = into.complete().await.unwrap();
    assert!(notes.len() == 1 && notes[0].contains("an unknown number of rows"), "{notes:?}");
    assert_eq!(into.finish(false).await.unwrap(), Vec::<String>::new());
    let mut batch = target.begin_batch().await.unwrap();
    let refused =
        batch.insert("sized", &names(&["id", "n"]), &vec![Value::Integer(4), Value::Integer(5)]).await.unwrap_err();
    assert!(!refused.to_string().contains("zhang") && refused.to_string().contains("23514"), "{refused}");
    drop(batch);
    assert_eq!(twin.number("SELECT count(*) FROM sized").await, 1);
    twin.finish().await;
}

/// What this server cannot make does not keep the rows from coming back.
pub async fn what_cannot_be_made_is_told(lab: &Lab) {
    lab.run("CREATE TABLE plain (id int NOT NULL PRIMARY KEY, n int)").await;
    let mut whole = capture(&lab.store()).await;
    whole.definitions.tables[0].create[0].statement = if lab.engine() == Engine::Sqlite {
        // Nothing behind the first statement is ever carried out.
        "CREATE TABLE plain (id int NOT NULL PRIMARY KEY, n int); CREATE TABLE planted (id int)".to_owned()
    } else {
        "CREATE TABLE plain (id nonsense(((".to_owned()
    };
    let twin = Lab::start(lab.engine()).await.unwrap();
    let target = twin.store_at(&twin.url(), true);
    let (mut into, notes) = target.begin_restore_as(&whole.tables, &whole.definitions).await.unwrap();
    assert!(notes.len() == 1 && notes[0].contains("made of its columns"), "{notes:?}");
    into.insert("plain", &names(&["id", "n"]), &[vec![Value::Integer(1), Value::Null]]).await.unwrap();
    into.complete().await.unwrap();
    assert_eq!(into.finish(false).await.unwrap(), Vec::<String>::new());
    assert_eq!(twin.number("SELECT count(*) FROM plain").await, 1);
    assert!(target.catalogue().await.unwrap().table("planted").is_none());
    twin.finish().await;
}
