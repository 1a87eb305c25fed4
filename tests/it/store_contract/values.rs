//! Every supported type, at its limits: read, put back, compared by the server itself.

use wangchuan::stores::{ColumnRef, Engine, Filter, StoreError};
use wangchuan::value::Value;

use super::servers::Lab;
use super::*;

/// A column type and literals for it.
type Cases = &'static [(&'static str, &'static [&'static str])];

pub async fn every_type_comes_back_exactly(lab: &Lab) {
    let (cases, unequal): (Cases, &str) = match lab.engine() {
        Engine::Sqlite => (SQLITE, "typeof(a.v) <> typeof(b.v) OR a.v IS NOT b.v OR hex(a.v) <> hex(b.v)"),
        Engine::Postgres => (POSTGRES, "a.v::text IS DISTINCT FROM b.v::text"),
        Engine::Mysql => (MARIADB, "NOT (a.v <=> b.v) OR NOT (HEX(a.v) <=> HEX(b.v))"),
    };
    let mut script = String::new();
    if lab.engine() == Engine::Postgres {
        script.push_str(
            "CREATE TYPE mood AS ENUM ('happy', 'so so'); CREATE DOMAIN short AS varchar(5); \
             CREATE TYPE pair AS (a int, b text); CREATE DOMAIN raw AS bytea; ",
        );
    }
    for (index, (type_name, literals)) in cases.iter().enumerate() {
        for prefix in ["v", "w"] {
            script += format!("CREATE TABLE {prefix}{index} (id int NOT NULL PRIMARY KEY, v {type_name}); ").as_str();
        }
        for (id, literal) in literals.iter().chain(&["NULL"]).enumerate() {
            script += format!("INSERT INTO v{index} VALUES ({id}, {literal}); ").as_str();
        }
    }
    lab.run(&script).await;
    let store = lab.store();
    let columns = names(&["id", "v"]);
    for (index, (type_name, literals)) in cases.iter().enumerate() {
        let (source, copy) = (format!("v{index}"), format!("w{index}"));
        let rows = read(&store, &query(&source, &["id", "v"], &["id"])).await;
        assert_eq!(rows.len(), literals.len() + 1, "{type_name}");
        let nulls = rows.iter().filter(|row| row[1] == Value::Null).count();
        // SQLite has no NaN, so no other literal becomes NULL.
        assert_eq!(nulls, 1, "{type_name}: NULL and only NULL is NULL");

        let (mut restore, _) = store.begin_restore(&[]).await.unwrap();
        restore.insert(&copy, &columns, &rows).await.unwrap();
        assert_eq!(restore.finish(false).await.unwrap(), Vec::<String>::new());
        let compare = format!("SELECT count(*) FROM {source} a LEFT JOIN {copy} b ON a.id = b.id WHERE {unequal}");
        assert_eq!(lab.number(&compare).await, 0, "{type_name}: restored rows differ");

        let mut batch = store.begin_batch().await.unwrap();
        for row in &rows {
            let same = Filter::And(vec![
                Filter::Equals(ColumnRef::own("id"), row[0].clone()),
                Filter::Same(ColumnRef::own("v"), row[1].clone()),
            ]);
            assert_eq!(
                batch.delete(&copy, &[], &same).await.unwrap(),
                1,
                "{type_name}: not the same as itself: {}",
                shown(&row[1])
            );
            batch.insert(&copy, &columns, row).await.unwrap();
        }
        batch.commit(&marker(index as i64, 0)).await.unwrap();
        assert_eq!(lab.number(&compare).await, 0, "{type_name}: undone rows differ");
        assert_eq!(read(&store, &query(&copy, &["id", "v"], &["id"])).await, rows, "{type_name}");
    }
}

/// A thousand doubles of random bits, deterministic.
pub async fn floating_point_numbers_survive(lab: &Lab) {
    let (double, single) = match lab.engine() {
        Engine::Sqlite => ("real", "real"),
        Engine::Postgres => ("double precision", "real"),
        Engine::Mysql => ("double", "float"),
    };
    lab.run(&format!("CREATE TABLE floats (id int NOT NULL PRIMARY KEY, d {double}, s {single})")).await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut rows = Vec::new();
    while rows.len() < 1000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = state ^ (state >> 29);
        let (double, single) = (f64::from_bits(mixed), f32::from_bits((mixed >> 16) as u32));
        if double.is_finite() && single.is_finite() {
            rows.push(vec![Value::Integer(rows.len() as i64), Value::Real(double), Value::Real(f64::from(single))]);
        }
    }
    let store = lab.store();
    let columns = names(&["id", "d", "s"]);
    let (mut restore, _) = store.begin_restore(&[]).await.unwrap();
    restore.insert("floats", &columns, &rows).await.unwrap();
    restore.finish(false).await.unwrap();
    let number = |value: &Value| match value {
        Value::Real(number) => *number,
        Value::Text(text) => text.parse().unwrap(),
        other => panic!("{other:?}"),
    };
    let back = read(&store, &query("floats", &["id", "d", "s"], &["id"])).await;
    assert_eq!(back.len(), rows.len());
    for (before, after) in rows.iter().zip(&back) {
        assert_eq!(number(&before[1]).to_bits(), number(&after[1]).to_bits());
        assert_eq!((number(&before[2]) as f32).to_bits(), (number(&after[2]) as f32).to_bits());
    }
}

pub async fn same_compares_the_carried_form(lab: &Lab) {
    let lenient = match lab.engine() {
        Engine::Sqlite => "varchar(20) COLLATE NOCASE",
        Engine::Postgres => "varchar(20)",
        Engine::Mysql => "varchar(20) COLLATE utf8mb4_general_ci",
    };
    lab.run(&format!("CREATE TABLE mails (id int NOT NULL PRIMARY KEY, mail {lenient})")).await;
    lab.run("INSERT INTO mails VALUES (1, 'a@b'), (2, 'A@B'), (3, '')").await;
    let store = lab.store();
    let mut wanted = query("mails", &["id"], &["id"]);
    for (value, ids) in [("a@b", vec!["1"]), ("A@B", vec!["2"]), ("a@b ", vec![]), ("", vec!["3"])] {
        wanted.filter = Filter::Same(ColumnRef::own("mail"), text(value));
        assert_eq!(rows_shown(&read(&store, &wanted).await), ids, "{value:?}");
    }
    let mut snapshot = store.open_snapshot().await.unwrap();
    wanted.filter = Filter::Same(ColumnRef::own("mail"), Value::Blob(vec![0x61]));
    match snapshot.count(&wanted).await {
        Ok(found) => assert_eq!(found, 0),
        Err(error) => assert!(matches!(error, StoreError::Refused { .. }), "{error}"),
    }
}

const TEXTS: &[&str] =
    &["''", "' '", "'a'", "'it''s \"q\" `b` \\ %_'", "'张三丰 é ß'", "'👩‍👩‍👧 🀄'", "'line\nbreak\ttab'", "'NULL'"];

const SQLITE: Cases = &[
    ("text", TEXTS),
    ("text", &["cast(x'610062' AS text)", "'123'", "'1e5'", "'00'"]),
    ("varchar(3)", &["'longer than three'", "''"]),
    ("integer", &["0", "-1", "9223372036854775807", "-9223372036854775808", "'not a number'", "1.5", "x'00ff'"]),
    ("", &["1", "1.0", "'1'", "x'31'", "-0.0"]),
    ("real", &["0.1", "1e308", "5e-324", "-1.7976931348623157e308", "9e999", "-9e999", "3", "'text'"]),
    ("numeric(38,10)", &["'99999999999999999999999999999999999999'", "1", "1.5", "'x'", "9007199254740993"]),
    ("blob", &["x''", "x'00'", "x'00ff00'", "'text in blob'", "zeroblob(5000)"]),
    ("datetime", &["'2024-02-29 12:00:00'", "1700000000", "2460000.5", "'0000-00-00'"]),
    ("boolean", &["0", "1", "'true'"]),
];

const POSTGRES: Cases = &[
    ("text", TEXTS),
    ("varchar(40)", TEXTS),
    ("char(4)", &["''", "'a'", "'ab  '", "'张三'"]),
    ("\"char\"", &["'a'", "''"]),
    ("name", &["'abc'"]),
    ("short", &["'abcde'", "''"]),
    ("mood", &["'happy'", "'so so'"]),
    ("smallint", &["-32768", "32767", "0"]),
    ("integer", &["-2147483648", "2147483647"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807", "9007199254740993"]),
    ("oid", &["0", "4294967295"]),
    (
        "numeric",
        &[
            "99999999999999999999999999999999999999",
            "0.00000000000000000001",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "1.10",
            "1.1",
        ],
    ),
    ("numeric(38,10)", &["9999999999999999999999999999.9999999999", "-0.0000000001", "0"]),
    ("real", &["0.1", "3.4028235e38", "1e-45", "'NaN'", "'-Infinity'", "'-0'", "16777217"]),
    (
        "double precision",
        &["0.1", "1.7976931348623157e308", "5e-324", "'NaN'", "'Infinity'", "'-0'", "0.30000000000000004"],
    ),
    ("money", &["'12.34'", "'-92233720368547758.08'"]),
    ("boolean", &["true", "false"]),
    ("bytea", &["''", "'\\x00'", "'\\x00ff5c27'", "decode(repeat('00ff', 3000), 'hex')"]),
    ("raw", &["'\\x0001'"]),
    ("date", &["'2024-02-29'", "'infinity'", "'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'"]),
    ("time", &["'00:00'", "'24:00:00'", "'12:34:56.789012'"]),
    ("timetz", &["'12:34:56.789012+05:30'", "'00:00-15:59'"]),
    (
        "timestamp",
        &["'2024-02-29 23:59:59.999999'", "'infinity'", "'0044-03-15 12:00 BC'", "'294276-12-31 23:59:59.999999'"],
    ),
    ("timestamp(3)", &["'2024-02-29 23:59:59.123'"]),
    ("timestamptz", &["'2024-03-31 02:30:00+02'", "'-infinity'", "'0001-01-01 00:00:00+00'"]),
    ("interval", &["'1 year 2 mons -3 days 04:05:06.789'", "'-1 year +2 days -00:00:01'", "'0'", "'178000000 years'"]),
    ("uuid", &["'00000000-0000-0000-0000-000000000000'", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    ("json", &["'{\"b\": 1,  \"a\": 1.0, \"b\":2}'", "'null'", "'\"\\u0041\"'"]),
    ("jsonb", &["'{\"b\": 1,  \"a\": 1.00}'", "'null'", "'1e400'"]),
    ("xml", &["'<a>b</a>'"]),
    ("inet", &["'10.0.0.1/8'", "'::1'"]),
    ("cidr", &["'10.0.0.0/8'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("bit(5)", &["B'10101'"]),
    ("bit varying(9)", &["B''", "B'000111'"]),
    ("int[]", &["'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[2:3]={7,8}'"]),
    ("text[]", &["ARRAY['a,b', 'c\"d', '', 'NULL', NULL, '张\\']"]),
    ("bytea[]", &["ARRAY['\\x00'::bytea, '\\xff'::bytea]"]),
    ("pair", &["'(1,\"a, b\")'", "'(,)'"]),
    ("int4range", &["'[1,5)'", "'empty'", "'(,)'"]),
    ("tstzrange", &["'[2024-01-01 00:00+00,infinity)'"]),
    ("nummultirange", &["'{[1.5,2.0),[3,4]}'"]),
    ("point", &["'(0.1,1e300)'"]),
    ("polygon", &["'((0,0),(1,0.1),(1,1))'"]),
    ("tsvector", &["'a:1A ''b c'':2'"]),
    ("tsquery", &["'a & !b <-> c'"]),
    ("pg_lsn", &["'16/B374D848'"]),
    ("jsonpath", &["'$.a[*] ? (@ > 1)'"]),
];

const MARIADB: Cases = &[
    (
        "varchar(100)",
        &[
            "''",
            "' '",
            "'a '",
            "'it''s \"q\" `b` %_'",
            "'张三丰 é ß'",
            "'👩‍👩‍👧 🀄'",
            "'line\nbreak\ttab'",
            "'NULL'",
            "'\\\\'",
        ],
    ),
    ("varchar(20) CHARACTER SET latin1", &["'é ß'", "''"]),
    ("varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", &["'A'", "'a'"]),
    ("varchar(20) CHARACTER SET utf16", &["'张三 🀄'"]),
    ("char(4)", &["''", "'a'", "'张三'"]),
    ("longtext", &["''", "repeat('张', 30000)"]),
    ("enum('x','a b','')", &["'x'", "'a b'", "''"]),
    ("set('x','y','z')", &["'x,z'", "''"]),
    ("tinyint", &["-128", "127"]),
    ("tinyint(1)", &["0", "1", "5"]),
    ("smallint unsigned", &["65535"]),
    ("mediumint", &["-8388608"]),
    ("int(5) zerofill", &["42"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807", "9007199254740993"]),
    ("bigint unsigned", &["18446744073709551615", "0"]),
    ("decimal(38,10)", &["9999999999999999999999999999.9999999999", "-0.0000000001", "0"]),
    ("decimal(65,0)", &["99999999999999999999999999999999999999999999999999999999999999999"]),
    ("float", &["0.1", "16777216", "3.40282e38", "1e-40", "-0e0", "1234567.8"]),
    ("double", &["0.1", "1.7976931348623157e308", "5e-324", "0.30000000000000004", "-2.5e-10", "123456789012345680"]),
    ("bit(1)", &["b'0'", "b'1'"]),
    ("bit(64)", &["b'1111111111111111111111111111111111111111111111111111111111111111'", "0"]),
    ("date", &["'2024-02-29'", "'1000-01-01'", "'9999-12-31'"]),
    ("datetime", &["'2024-02-29 23:59:59'"]),
    ("datetime(6)", &["'2024-02-29 23:59:59.999999'", "'0001-01-01 00:00:00.000001'"]),
    ("timestamp(6) NULL", &["'2024-03-31 01:30:00.123456'", "'2038-01-19 03:14:07'"]),
    ("time(6)", &["'-838:59:59.999999'", "'00:00:00'", "'12:34:56.789012'"]),
    ("year", &["1901", "2155", "0"]),
    ("binary(4)", &["x''", "x'00ff'"]),
    ("varbinary(100)", &["x''", "x'00'", "x'00ff5c27'"]),
    ("longblob", &["x''", "repeat(x'00ff', 30000)"]),
    ("json", &["'{\"b\": 1,  \"a\": \"张\"}'"]),
    ("uuid", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    ("inet6", &["'::1'", "'2001:db8::ff00:42:8329'"]),
    ("inet4", &["'10.0.0.1'"]),
];
