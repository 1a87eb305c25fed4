//! Pages, filters, joins, snapshots.

use chrono::{DateTime, NaiveDateTime};
use wangchuan::stores::{ColumnRef, Engine, Filter, StoreError, Threshold};
use wangchuan::value::{RowKey, Value};

use super::servers::Lab;
use super::*;

pub async fn pages_over_a_composite_key(lab: &Lab) {
    lab.run("CREATE TABLE pairs (a varchar(10) NOT NULL, b bigint NOT NULL, c varchar(10), PRIMARY KEY (a, b))").await;
    let mut values = Vec::new();
    for a in ["", "a", "ab", "Z", "é", "张"] {
        for b in [-9_223_372_036_854_775_807_i64, -1, 0, 9, 10, 9_007_199_254_740_993, 9_223_372_036_854_775_807] {
            values.push(format!("('{a}', {b}, 'x')"));
        }
    }
    lab.run(&format!("INSERT INTO pairs VALUES {}", values.join(", "))).await;
    let store = lab.store();
    let whole = read(&store, &query("pairs", &["a", "b"], &["a", "b"])).await;
    assert_eq!(whole.len(), values.len());
    for limit in [1, 4, 41] {
        let mut snapshot = store.open_snapshot().await.unwrap();
        let mut paged = Vec::new();
        let mut page = query("pairs", &["a", "b"], &["a", "b"]);
        page.limit = limit;
        loop {
            let rows = snapshot.read(&page).await.unwrap();
            page.after = rows.last().map(|row| RowKey(row.clone()));
            let end = rows.len() < limit as usize;
            paged.extend(rows);
            if end {
                break;
            }
        }
        snapshot.close().await.unwrap();
        assert_eq!(rows_shown(&paged), rows_shown(&whole), "pages of {limit}");
    }
}

/// All rows come once, whatever the page; on PostgreSQL those of one owner together, on the others in key order.
pub async fn all_rows_in_groups(lab: &Lab) {
    lab.run("CREATE TABLE owners (k bigint NOT NULL PRIMARY KEY, owner varchar(10)); CREATE TABLE kept (k bigint NOT NULL PRIMARY KEY, up bigint, owner varchar(10))")
        .await;
    let owner =
        |k: i64| if k % 7 == 3 { "NULL".to_owned() } else { format!("'{}'", ["b", "a", "B", "張"][(k % 4) as usize]) };
    let values: Vec<String> = (1..=40).map(|k| format!("({k}, {})", owner(k))).collect();
    lab.run(&format!("INSERT INTO owners VALUES {}", values.join(", "))).await;
    lab.run("INSERT INTO kept SELECT k, 41 - k, owner FROM owners ORDER BY k").await;
    let store = lab.store();
    let mut snapshot = store.open_snapshot().await.unwrap();
    let mut through = query("kept", &["k", "owner"], &["k"]);
    through.path = vec![hop("up", "owners", "k")];
    through.columns[1].hop = 1;
    let group = through.columns[1].clone();
    // Of its own table and of a parent's; a page that is given up halfway is no obstacle.
    for (plain, group) in [(query("owners", &["k", "owner"], &["k"]), ColumnRef::own("owner")), (through, group)] {
        let whole = snapshot.read(&plain).await.unwrap();
        assert_eq!(whole.len(), 40);
        for limit in [3, 7, 40, 41] {
            let mut page = RowQuery { limit, ..plain.clone() };
            snapshot.read_grouped(&page, Some(&group)).await.unwrap();
            let mut seen = Vec::new();
            loop {
                let rows = snapshot.read_grouped(&page, Some(&group)).await.unwrap();
                page.after = rows.last().map(|row| RowKey(row[..1].to_vec()));
                let end = rows.len() < limit as usize;
                seen.extend(rows);
                if end {
                    break;
                }
            }
            let owners: Vec<String> = seen.iter().map(|row| shown(&row[1])).collect();
            let changes = owners.windows(2).filter(|pair| pair[0] != pair[1]).count();
            let is_grouped = lab.engine() == Engine::Postgres;
            assert!(if is_grouped { changes == 4 } else { changes > 4 }, "pages of {limit}: {owners:?}");
            let (mut seen, mut all) = (rows_shown(&seen), rows_shown(&whole));
            if is_grouped {
                seen.sort();
                all.sort();
            }
            assert_eq!(seen, all, "pages of {limit}");
        }
        assert_eq!(rows_shown(&snapshot.read_grouped(&plain, None).await.unwrap()), rows_shown(&whole));
    }
    snapshot.close().await.unwrap();
}

pub async fn filters_and_nulls(lab: &Lab) {
    make_shop(lab).await;
    let store = lab.store();
    let own = ColumnRef::own;
    let cases = [
        (Filter::All, "1 2 3 4"),
        (Filter::Equals(own("customer_id"), text("C1")), "1 2"),
        (Filter::Equals(own("customer_id"), Value::Null), ""),
        (Filter::IsNull(own("customer_id")), "4"),
        (Filter::IsNotNull(own("done")), "1 2 4"),
        (Filter::Same(own("customer_id"), Value::Null), "4"),
        (Filter::Same(own("customer_id"), text("C2")), "3"),
        (Filter::Same(own("customer_id"), text("c2")), ""),
        (Filter::Equals(own("id"), text("2")), "2"),
        (Filter::Equals(own("id"), Value::Integer(2)), "2"),
        (Filter::In(names(&["id"]), vec![key(&["1"]), key(&["3"]), key(&["99"])]), "1 3"),
        (Filter::In(names(&["id"]), Vec::new()), ""),
        (Filter::In(names(&["customer_id", "id"]), vec![key(&["C1", "2"]), key(&["C2", "1"])]), "2"),
        (Filter::In(names(&["customer_id", "id"]), vec![RowKey(vec![Value::Null, text("4")])]), ""),
        (Filter::And(Vec::new()), "1 2 3 4"),
        (Filter::Or(Vec::new()), ""),
        (
            Filter::Or(vec![
                Filter::And(vec![Filter::Equals(own("customer_id"), text("C1")), Filter::Equals(own("id"), text("1"))]),
                Filter::IsNull(own("done")),
            ]),
            "1 3",
        ),
    ];
    for (filter, expected) in cases {
        let mut wanted = query("orders", &["id"], &["id"]);
        wanted.filter = filter;
        let rows = read(&store, &wanted).await;
        assert_eq!(rows_shown(&rows).join(" "), expected, "{:?}", wanted.filter);
        assert_eq!(count(&store, &wanted).await, rows.len() as u64, "{:?}", wanted.filter);
    }
    let mut wrong = query("orders", &["id"], &["id"]);
    wrong.filter = Filter::In(names(&["id"]), vec![key(&["1", "2"])]);
    let mut snapshot = store.open_snapshot().await.unwrap();
    assert!(matches!(snapshot.read(&wrong).await, Err(StoreError::Refused { .. })));
}

fn threshold(local: &str, hours_east: i64) -> Threshold {
    let local = NaiveDateTime::parse_from_str(local, "%Y-%m-%d %H:%M:%S").unwrap();
    Threshold { instant: (local - chrono::Duration::hours(hours_east)).and_utc(), local }
}

pub async fn start_events_before_a_bound(lab: &Lab) {
    let (columns, rows): (&str, &[(&str, &str)]) = match lab.engine() {
        Engine::Sqlite => ("at", SQLITE_TIMES),
        Engine::Postgres => ("d date, t timestamp, i timestamptz, s varchar(40), n bigint", POSTGRES_TIMES),
        Engine::Mysql => ("d date, t datetime(6), i timestamp(6) NULL, s varchar(40), n bigint", MARIADB_TIMES),
    };
    lab.run(&format!("CREATE TABLE events (id int NOT NULL PRIMARY KEY, {columns})")).await;
    let lenient = if lab.engine() == Engine::Mysql { "SET sql_mode = '', time_zone = '+00:00'; " } else { "" };
    let utc = if lab.engine() == Engine::Postgres { "SET timezone = 'UTC'; " } else { "" };
    let mut expected = std::collections::BTreeMap::<&str, Vec<String>>::new();
    let mut inserts = String::new();
    for (id, (assignment, verdict)) in rows.iter().enumerate() {
        let (column, value) = assignment.split_once('=').unwrap();
        inserts += format!("INSERT INTO events (id, {column}) VALUES ({id}, {value}); ").as_str();
        let before = expected.entry(column).or_default();
        if *verdict == "before" {
            before.push(id.to_string());
        }
    }
    lab.run(&format!("{lenient}{utc}{inserts}")).await;
    let store = lab.store();
    for (column, ids) in expected {
        let mut wanted = query("events", &["id"], &["id"]);
        // 10 May 2023, midnight in Shanghai.
        wanted.filter = Filter::Before(ColumnRef::own(column), threshold("2023-05-10 00:00:00", 8));
        assert_eq!(rows_shown(&read(&store, &wanted).await), ids, "column {column}");
        if lab.engine() == Engine::Sqlite || column == "s" {
            continue;
        }
        // All others that hold a value, but for a date without a day.
        let is_other = |(id, (assignment, verdict)): (usize, &(&str, &str))| {
            let (own, value) = assignment.split_once('=')?;
            (own == column && *verdict == "not" && !["NULL", "'2010-00-00'"].contains(&value)).then(|| id.to_string())
        };
        let others: Vec<String> = rows.iter().enumerate().filter_map(is_other).collect();
        wanted.filter = Filter::NotBefore(ColumnRef::own(column), threshold("2023-05-10 00:00:00", 8));
        assert_eq!(rows_shown(&read(&store, &wanted).await), others, "column {column}");
    }
    // A bound with a fraction, and one in the middle of a day.
    let column = if lab.engine() == Engine::Sqlite { "at" } else { "d" };
    let mut wanted = query("events", &["id"], &["id"]);
    wanted.filter = Filter::Before(ColumnRef::own(column), threshold("2023-05-10 00:00:01", 8));
    let on_that_day = rows.iter().position(|(assignment, _)| *assignment == format!("{column}='2023-05-10'")).unwrap();
    assert!(rows_shown(&read(&store, &wanted).await).contains(&on_that_day.to_string()));
}

const SQLITE_TIMES: &[(&str, &str)] = &[
    ("at='2023-05-09'", "before"),
    ("at='2023-05-10'", "not"),
    ("at='2023-05-09 23:59:59'", "before"),
    ("at='2023-05-09T23:59:59'", "before"),
    ("at='2023-05-09 23:59'", "before"),
    ("at='2023-05-09 23:59:59.999'", "before"),
    ("at='2023-05-10 00:00:00'", "not"),
    ("at='2023-05-10T00:00:00'", "not"),
    ("at='2023-05-10 00:00'", "not"),
    ("at='2023-05-10 00:00:00.000'", "not"),
    ("at='2024-01-01'", "not"),
    // With a zone it is an instant: midnight in Shanghai is 16:00 UTC the day before.
    ("at='2023-05-09T15:59:59Z'", "before"),
    ("at='2023-05-09T16:00:00Z'", "not"),
    ("at='2023-05-09T20:00:00Z'", "not"),
    ("at='2023-05-10T00:30:00+10:00'", "before"),
    ("at='2023-05-10T00:30:00+08:00'", "not"),
    // Unix seconds.
    ("at=1683647999", "before"),
    ("at=1683648000", "not"),
    // Nothing that is a time.
    ("at=NULL", "not"),
    ("at=''", "not"),
    ("at='never'", "not"),
    ("at='10.05.2020'", "not"),
    ("at='2020-05'", "not"),
    ("at='2019-01-01 approximately'", "not"),
    ("at=1.5", "not"),
    ("at=x'323031392d30312d3031'", "not"),
];

const POSTGRES_TIMES: &[(&str, &str)] = &[
    ("d='2023-05-09'", "before"),
    ("d='2023-05-10'", "not"),
    ("d='-infinity'", "not"),
    ("d='infinity'", "not"),
    ("d='0044-03-15 BC'", "not"),
    ("d=NULL", "not"),
    ("t='2023-05-09 23:59:59.999999'", "before"),
    ("t='2023-05-10 00:00:00'", "not"),
    ("t='-infinity'", "not"),
    ("i='2023-05-09 15:59:59.999999+00'", "before"),
    ("i='2023-05-09 16:00:00+00'", "not"),
    ("i='2023-05-10 00:30:00+10'", "before"),
    ("s='2023-05-09T23:59:59'", "before"),
    ("s='2023-05-09'", "before"),
    ("s='2023-05-10'", "not"),
    ("s='2023-05-10 00:00'", "not"),
    ("s='2019-01-01 approximately'", "not"),
    ("s='never'", "not"),
    ("s=NULL", "not"),
    ("n=1683647999", "before"),
    ("n=1683648000", "not"),
];

const MARIADB_TIMES: &[(&str, &str)] = &[
    ("d='2023-05-09'", "before"),
    ("d='2023-05-10'", "not"),
    ("d='0000-00-00'", "not"),
    ("d='2010-00-00'", "not"),
    ("d=NULL", "not"),
    ("t='2023-05-09 23:59:59.999999'", "before"),
    ("t='2023-05-10 00:00:00'", "not"),
    ("t='0000-00-00 00:00:00'", "not"),
    ("i='2023-05-09 15:59:59.999999'", "before"),
    ("i='2023-05-09 16:00:00'", "not"),
    ("i=NULL", "not"),
    ("s='2023-05-09T23:59:59'", "before"),
    ("s='2023-05-09'", "before"),
    ("s='2023-05-10'", "not"),
    ("s='2023-05-10 00:00'", "not"),
    ("s='2019-01-01 approximately'", "not"),
    ("n=1683647999", "before"),
    ("n=1683648000", "not"),
];

pub async fn owner_path_joins(lab: &Lab) {
    make_shop(lab).await;
    let store = lab.store();
    let mut lines = query("order_lines", &["order_id", "line"], &["order_id", "line"]);
    lines.path = vec![hop("order_id", "orders", "id"), hop("customer_id", "customers", "id")];
    lines.columns.push(ColumnRef { hop: 2, column: "name".to_owned() });
    assert_eq!(rows_shown(&read(&store, &lines).await), ["1 1 张三", "1 2 张三", "2 1 张三", "3 1 Bob", "3 2 Bob"]);
    lines.filter = Filter::Equals(ColumnRef { hop: 2, column: "id".to_owned() }, text("C1"));
    assert_eq!(count(&store, &lines).await, 3);
    lines.filter = Filter::Before(ColumnRef { hop: 1, column: "done".to_owned() }, threshold("2023-01-01 00:00:00", 8));
    assert_eq!(count(&store, &lines).await, 2);
    let mut snapshot = store.open_snapshot().await.unwrap();
    for (most, found) in [(1, 1), (2, 2), (3, 2), (u64::MAX, 2)] {
        assert_eq!(snapshot.count_up_to(&lines, most).await.unwrap(), found);
    }
    snapshot.close().await.unwrap();
    // Rows without a parent stay visible.
    let mut orders = query("orders", &["id"], &["id"]);
    orders.path = vec![hop("customer_id", "customers", "id")];
    orders.filter = Filter::IsNull(ColumnRef { hop: 1, column: "id".to_owned() });
    assert_eq!(rows_shown(&read(&store, &orders).await), ["4"]);
    // A way over columns that are not unique would count rows twice.
    orders.path = vec![hop("customer_id", "customers", "name")];
    let mut snapshot = store.open_snapshot().await.unwrap();
    assert!(matches!(snapshot.count(&orders).await, Err(StoreError::Refused { .. })));
}

pub async fn a_snapshot_does_not_see_later_commits(lab: &Lab) {
    make_shop(lab).await;
    if lab.engine() == Engine::Sqlite {
        lab.run("PRAGMA journal_mode = WAL").await;
    }
    let store = lab.store();
    let mut snapshot = store.open_snapshot().await.unwrap();
    lab.run("INSERT INTO customers VALUES ('C9', 'Zoe', 1); UPDATE customers SET name = 'changed'").await;
    let wanted = query("customers", &["id", "name"], &["id"]);
    assert_eq!(rows_shown(&snapshot.read(&wanted).await.unwrap()), ["C1 张三", "C2 Bob", "C3 Eve"]);
    assert_eq!(snapshot.count(&wanted).await.unwrap(), 3);
    snapshot.close().await.unwrap();
    assert_eq!(count(&store, &wanted).await, 4);
}

/// Reads may go to a replica, which here is another database with other rows; writes and markers never do.
pub async fn reads_may_go_elsewhere(lab: &Lab) {
    if lab.engine() == Engine::Sqlite {
        return;
    }
    make_shop(lab).await;
    let twin = Lab::start(lab.engine()).await.unwrap();
    make_shop(&twin).await;
    twin.run("DELETE FROM order_lines WHERE line = 2").await;
    let store = lab.store_reading_from(&twin.url());
    let lines = query("order_lines", &["order_id", "line"], &["order_id", "line"]);
    assert_eq!(count(&store, &lines).await, 3);
    let mut batch = store.begin_batch().await.unwrap();
    assert_eq!(batch.delete("order_lines", &[], &Filter::All).await.unwrap(), 5);
    batch.commit(&marker(1, 5)).await.unwrap();
    assert_eq!(store.batch_outcome("run-1", 1).await.unwrap(), Some(marker(1, 5)));
    assert_eq!(count(&store, &lines).await, 3);
    assert_eq!(store.check(&names(&["order_lines"])).await.unwrap(), Vec::new());
    twin.finish().await;
}

pub async fn keys_that_cannot_page_are_refused(lab: &Lab) {
    lab.run(
        "CREATE TABLE loose (a varchar(10), b int); INSERT INTO loose VALUES ('x', 1), ('x', 2), (NULL, 3);
         CREATE TABLE fine (a varchar(10), b int); INSERT INTO fine VALUES ('x', 1), ('y', 1)",
    )
    .await;
    let store = lab.store();
    let mut snapshot = store.open_snapshot().await.unwrap();
    let nulls = snapshot.read(&query("loose", &["b"], &["a"])).await.unwrap_err();
    assert!(matches!(&nulls, StoreError::Refused { what, .. } if what.contains("NULL")), "{nulls}");
    let mut some = query("loose", &["b"], &["a"]);
    some.filter = Filter::IsNotNull(ColumnRef::own("a"));
    let doubles = snapshot.read(&some).await.unwrap_err();
    assert!(matches!(&doubles, StoreError::Refused { what, .. } if what.contains("same key")), "{doubles}");
    assert_eq!(snapshot.read(&query("fine", &["b"], &["a"])).await.unwrap().len(), 2);
    assert!(matches!(snapshot.read(&query("fine", &["b"], &[])).await, Err(StoreError::Refused { .. })));
    assert!(matches!(snapshot.read(&query("fine", &["nope"], &["a"])).await, Err(StoreError::Refused { .. })));
    assert!(matches!(snapshot.read(&query("nope", &["b"], &["a"])).await, Err(StoreError::Refused { .. })));
}

pub async fn odd_names(lab: &Lab) {
    let quote = if lab.engine() == Engine::Mysql { '`' } else { '"' };
    let (table, column) = ("or`der \"1\"; --", "sel\"ect `x");
    let quoted = |name: &str| format!("{quote}{}{quote}", name.replace(quote, &format!("{quote}{quote}")));
    lab.run(&format!("CREATE TABLE {} ({} int NOT NULL PRIMARY KEY)", quoted(table), quoted(column))).await;
    lab.run(&format!("INSERT INTO {} VALUES (1), (2)", quoted(table))).await;
    let store = lab.store();
    let facts = store.catalogue().await.unwrap();
    assert_eq!(facts.table(table).unwrap().key, names(&[column]));
    let mut batch = store.begin_batch().await.unwrap();
    let filter = Filter::Equals(ColumnRef::own(column), text("1"));
    assert_eq!(batch.delete(table, &[], &filter).await.unwrap(), 1);
    batch.commit(&marker(0, 1)).await.unwrap();
    assert_eq!(rows_shown(&read(&store, &query(table, &[column], &[column])).await), ["2"]);
    assert!(DateTime::UNIX_EPOCH < store.server_time().await.unwrap());
}
