use chrono::{DateTime, NaiveDate};
use proptest::prelude::*;

use super::*;
use crate::stores::Catalogue;
use crate::stores::{ColumnRef, ForeignKey, OnDelete, Threshold};
use crate::value::RowKey;

fn a_column(name: &str, type_name: &str, kind: ColumnKind) -> Column {
    let (name, type_name) = (name.to_owned(), type_name.to_owned());
    Column { name, type_name, kind: Some(kind), nullable: false, default: None, generated: false, numbered: false }
}

fn a_table(name: &str, columns: Vec<Column>, key: &[&str]) -> Table {
    Table {
        name: name.to_owned(),
        columns,
        key: key.iter().map(|part| (*part).to_owned()).collect(),
        unique: Vec::new(),
        foreign_keys: Vec::new(),
        triggers: Vec::new(),
        rows_may_be_hidden: false,
        index_statements: Vec::new(),
    }
}

/// Customers, their orders, the orders' lines; one name holds every quoting character.
fn schema(engine: Engine) -> Schema {
    let customers =
        vec![a_column("id", "varchar(20)", ColumnKind::Text), a_column("na\"m`e", "varchar(9)", ColumnKind::Text)];
    let orders = vec![
        a_column("id", "bigint", ColumnKind::Integer),
        a_column("customer_id", "varchar(20)", ColumnKind::Text),
        a_column("done", "timestamp", ColumnKind::LocalTime),
        a_column("total", "decimal(12,2)", ColumnKind::Decimal),
    ];
    let lines = vec![
        a_column("order_id", "bigint", ColumnKind::Integer),
        a_column("line", "bigint", ColumnKind::Integer),
        a_column("image", "bytea", ColumnKind::Bytes),
    ];
    let tables = vec![
        a_table("customers", customers, &["id"]),
        a_table("lines", lines, &["order_id", "line"]),
        a_table("orders", orders, &["id"]),
    ];
    let mut schema = Schema::new(engine, Catalogue { tables, ..Catalogue::default() });
    if engine == Engine::Postgres {
        let place = Place { schema: Some("public".to_owned()), table: "lines".to_owned() };
        schema.places.insert("lines".to_owned(), place);
        schema.casts.insert(("customers".to_owned(), "id".to_owned()), "character varying".to_owned());
    }
    schema
}

fn hop(column: &str, parent: &str, parent_column: &str) -> Hop {
    Hop { columns: vec![column.to_owned()], parent: parent.to_owned(), parent_columns: vec![parent_column.to_owned()] }
}

fn to_customer() -> Vec<Hop> {
    vec![hop("order_id", "orders", "id"), hop("customer_id", "customers", "id")]
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn lines_query() -> RowQuery {
    RowQuery {
        table: "lines".to_owned(),
        path: to_customer(),
        columns: vec![ColumnRef::own("image"), ColumnRef { hop: 2, column: "na\"m`e".to_owned() }],
        filter: Filter::Equals(ColumnRef { hop: 2, column: "id".to_owned() }, text("C1")),
        key: vec!["order_id".to_owned(), "line".to_owned()],
        after: Some(RowKey(vec![text("7"), text("8")])),
        limit: 50,
    }
}

const ENGINES: [Engine; 3] = [Engine::Sqlite, Engine::Postgres, Engine::Mysql];

#[test]
fn a_page_in_each_dialect() {
    let texts = ENGINES.map(|engine| select_page(&schema(engine), &lines_query(), true).unwrap().sql);
    let expected = [
        "SELECT t0.\"image\", t2.\"na\"\"m`e\" FROM \"lines\" AS t0 LEFT JOIN \"orders\" AS t1 ON t1.\"id\" = t0.\"order_id\" \
         LEFT JOIN \"customers\" AS t2 ON t2.\"id\" = t1.\"customer_id\" WHERE t2.\"id\" = ? \
         AND (t0.\"order_id\", t0.\"line\") > (?, ?) ORDER BY t0.\"order_id\", t0.\"line\" LIMIT 50",
        "SELECT t0.\"image\", CAST(t2.\"na\"\"m`e\" AS text) FROM \"public\".\"lines\" AS t0 \
         LEFT JOIN \"orders\" AS t1 ON t1.\"id\" = t0.\"order_id\" \
         LEFT JOIN \"customers\" AS t2 ON t2.\"id\" = t1.\"customer_id\" WHERE t2.\"id\" = CAST($1 AS character varying) \
         AND (t0.\"order_id\", t0.\"line\") > (CAST($2 AS bigint), CAST($3 AS bigint)) \
         ORDER BY t0.\"order_id\", t0.\"line\" LIMIT 50 FOR UPDATE OF t0",
        "SELECT t0.`image`, t2.`na\"m``e` FROM `lines` AS t0 LEFT JOIN `orders` AS t1 ON t1.`id` = t0.`order_id` \
         LEFT JOIN `customers` AS t2 ON t2.`id` = t1.`customer_id` WHERE t2.`id` = ? \
         AND (t0.`order_id` >= ? AND (t0.`order_id` > ? OR t0.`line` > ?)) ORDER BY t0.`order_id`, t0.`line` LIMIT 50 FOR UPDATE",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn a_delete_keeps_own_conditions_outside_and_ancestors_in_exists() {
    let filter = Filter::And(vec![
        Filter::In(vec!["order_id".to_owned(), "line".to_owned()], vec![RowKey(vec![text("1"), text("2")])]),
        Filter::Equals(ColumnRef { hop: 2, column: "id".to_owned() }, text("C1")),
        Filter::IsNull(ColumnRef { hop: 1, column: "done".to_owned() }),
    ]);
    let texts = ENGINES.map(|engine| delete(&schema(engine), "lines", &to_customer(), &filter).unwrap().sql);
    let expected = [
        "DELETE FROM \"lines\" WHERE ((\"lines\".\"order_id\", \"lines\".\"line\") IN (VALUES (?, ?))) AND EXISTS \
         (SELECT 1 FROM (SELECT 1 AS one) AS base LEFT JOIN \"orders\" AS t1 ON t1.\"id\" = \"lines\".\"order_id\" \
         LEFT JOIN \"customers\" AS t2 ON t2.\"id\" = t1.\"customer_id\" WHERE (t2.\"id\" = ? AND t1.\"done\" IS NULL))",
        "DELETE FROM \"public\".\"lines\" WHERE ((\"public\".\"lines\".\"order_id\", \"public\".\"lines\".\"line\") IN \
         (SELECT * FROM unnest(CAST($1 AS bigint[]), CAST($2 AS bigint[])))) AND EXISTS \
         (SELECT 1 FROM (SELECT 1 AS one) AS base LEFT JOIN \"orders\" AS t1 ON t1.\"id\" = \"public\".\"lines\".\"order_id\" \
         LEFT JOIN \"customers\" AS t2 ON t2.\"id\" = t1.\"customer_id\" \
         WHERE (t2.\"id\" = CAST($3 AS character varying) AND t1.\"done\" IS NULL))",
        "DELETE FROM `lines` WHERE ((`lines`.`order_id`, `lines`.`line`) IN ((?, ?))) AND EXISTS \
         (SELECT 1 FROM (SELECT 1 AS one) AS base LEFT JOIN `orders` AS t1 ON t1.`id` = `lines`.`order_id` \
         LEFT JOIN `customers` AS t2 ON t2.`id` = t1.`customer_id` WHERE (t2.`id` = ? AND t1.`done` IS NULL))",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn mariadb_numbers_are_bound_as_numbers() {
    let schema = schema(Engine::Mysql);
    let total = Filter::Equals(ColumnRef::own("total"), text("10.50"));
    let statement = delete(&schema, "orders", &[], &total).unwrap();
    assert_eq!(statement.sql, "DELETE FROM `orders` WHERE (`orders`.`total` = CAST(? AS DECIMAL(65,2)))");
    let large = Filter::Equals(ColumnRef::own("id"), text("18446744073709551615"));
    assert_eq!(delete(&schema, "orders", &[], &large).unwrap().arguments, [Argument::Unsigned(u64::MAX)]);
    // The server would read these as 0 and delete order 0.
    for wrong in ["abc", "", "1e3", "0x10", "1 or 1=1"] {
        let filter = Filter::Equals(ColumnRef::own("id"), text(wrong));
        assert!(matches!(delete(&schema, "orders", &[], &filter), Err(SqlError::DoesNotFit { .. })), "{wrong}");
    }
}

#[test]
fn nothing_matches_an_empty_list_or_a_null() {
    for engine in ENGINES {
        let schema = schema(engine);
        let key = || vec!["id".to_owned()];
        for filter in [
            Filter::In(key(), Vec::new()),
            Filter::In(key(), vec![RowKey(vec![Value::Null])]),
            Filter::Or(Vec::new()),
            Filter::Equals(ColumnRef::own("id"), Value::Null),
        ] {
            assert!(delete(&schema, "orders", &[], &filter).unwrap().sql.ends_with("WHERE (1 = 0)"), "{filter:?}");
        }
    }
}

#[test]
fn what_the_catalogue_does_not_know_is_refused() {
    for engine in ENGINES {
        let schema = schema(engine);
        let all = Filter::All;
        assert_eq!(delete(&schema, "nowhere", &[], &all), Err(SqlError::UnknownTable("nowhere".to_owned())));
        let missing = Filter::IsNull(ColumnRef::own("nothing"));
        assert!(matches!(delete(&schema, "orders", &[], &missing), Err(SqlError::UnknownColumn { .. })));
        let beyond = Filter::IsNull(ColumnRef { hop: 3, column: "id".to_owned() });
        assert_eq!(delete(&schema, "lines", &to_customer(), &beyond), Err(SqlError::UnknownHop { hop: 3, length: 2 }));
        let doubling = [hop("order_id", "orders", "customer_id")];
        assert!(matches!(delete(&schema, "lines", &doubling, &all), Err(SqlError::NotUnique { .. })));
        let mut no_key = lines_query();
        no_key.key.clear();
        assert_eq!(select_page(&schema, &no_key, false), Err(SqlError::NoKey("lines".to_owned())));
        let keys = vec![RowKey(vec![text("1")]); MAX_BOUND_VALUES + 1];
        let many = Filter::In(vec!["id".to_owned()], keys);
        assert_eq!(delete(&schema, "orders", &[], &many), Err(SqlError::TooManyValues { found: MAX_BOUND_VALUES + 1 }));
    }
}

#[test]
fn a_threshold_that_no_four_digit_year_can_say() {
    let threshold = |year: i32| {
        let local = NaiveDate::from_ymd_opt(year, 6, 1).unwrap().and_hms_opt(0, 0, 0).unwrap();
        Threshold { instant: local.and_utc(), local }
    };
    for engine in ENGINES {
        let schema = schema(engine);
        let before = |year| Filter::Before(ColumnRef::own("done"), threshold(year));
        assert!(delete(&schema, "orders", &[], &before(-5)).unwrap().sql.ends_with("WHERE (1 = 0)"));
        let late = delete(&schema, "orders", &[], &before(20_000)).unwrap();
        let year = |argument: &Argument| matches!(argument, Argument::Text(text) if text.starts_with("9999-12-"));
        assert!(late.arguments.iter().any(year), "{engine:?}");
    }
}

#[test]
fn a_time_bound_needs_a_column_of_time() {
    let threshold = Threshold { instant: DateTime::UNIX_EPOCH, local: DateTime::UNIX_EPOCH.naive_utc() };
    let filter = Filter::Before(ColumnRef::own("total"), threshold);
    for engine in [Engine::Postgres, Engine::Mysql] {
        assert!(matches!(delete(&schema(engine), "orders", &[], &filter), Err(SqlError::NotATime { .. })));
    }
}

#[test]
fn a_table_is_made_again() {
    let mut table = schema(Engine::Sqlite).catalogue.table("orders").unwrap().clone();
    table.columns[0].numbered = true;
    table.columns[2].nullable = true;
    table.columns[3].default = Some("0".to_owned());
    table.unique.push(vec!["customer_id".to_owned(), "done".to_owned()]);
    let key = ForeignKey {
        columns: vec!["customer_id".to_owned()],
        parent: "customers".to_owned(),
        parent_columns: vec!["id".to_owned()],
        on_delete: OnDelete::Cascade,
    };
    let texts = ENGINES.map(|engine| create_table(&schema(engine), &table, std::slice::from_ref(&key)).0.sql);
    let expected = [
        "CREATE TABLE \"orders\" (\"id\" bigint PRIMARY KEY AUTOINCREMENT, \"customer_id\" varchar(20) NOT NULL, \"done\" timestamp, \
         \"total\" decimal(12,2) NOT NULL DEFAULT (0), UNIQUE (\"customer_id\", \"done\"), FOREIGN KEY (\"customer_id\") \
         REFERENCES \"customers\" (\"id\") ON DELETE CASCADE)",
        "CREATE TABLE \"orders\" (\"id\" bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY, \"customer_id\" varchar(20) NOT NULL, \
         \"done\" timestamp, \"total\" decimal(12,2) NOT NULL DEFAULT 0, PRIMARY KEY (\"id\"), UNIQUE (\"customer_id\", \"done\"), \
         FOREIGN KEY (\"customer_id\") REFERENCES \"customers\" (\"id\") ON DELETE CASCADE)",
        "CREATE TABLE `orders` (`id` bigint NOT NULL AUTO_INCREMENT, `customer_id` varchar(20) NOT NULL, `done` timestamp NULL, \
         `total` decimal(12,2) NOT NULL DEFAULT 0, PRIMARY KEY (`id`), UNIQUE (`customer_id`, `done`), FOREIGN KEY (`customer_id`) \
         REFERENCES `customers` (`id`) ON DELETE CASCADE) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn a_text_that_postgresql_cannot_hold_is_refused() {
    let schema = schema(Engine::Postgres);
    let row = vec![text("a\0b"), text("x")];
    let columns = ["id".to_owned(), "na\"m`e".to_owned()];
    assert!(matches!(insert(&schema, "customers", &columns, &[row]), Err(SqlError::DoesNotFit { .. })));
    let short = vec![text("a")];
    assert!(matches!(insert(&schema, "customers", &columns, &[short]), Err(SqlError::WrongWidth { .. })));
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let column = || prop_oneof![Just(ColumnRef::own("order_id")), Just(ColumnRef { hop: 1, column: "id".to_owned() })];
    let number = || any::<i64>().prop_map(Value::Integer);
    let bound = (-4_000_000_000_i64..4_000_000_000).prop_map(|seconds| {
        let instant = DateTime::from_timestamp(seconds, 0).unwrap();
        Threshold { instant, local: instant.naive_utc() }
    });
    let leaf = prop_oneof![
        Just(Filter::All),
        (column(), number()).prop_map(|(at, value)| Filter::Equals(at, value)),
        (column(), number()).prop_map(|(at, value)| Filter::Same(at, value)),
        column().prop_map(Filter::IsNull),
        bound.prop_map(|bound| Filter::Before(ColumnRef { hop: 1, column: "done".to_owned() }, bound)),
        proptest::collection::vec(number().prop_map(|value| RowKey(vec![value])), 0..4)
            .prop_map(|keys| Filter::In(vec!["line".to_owned()], keys)),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let parts = || proptest::collection::vec(inner.clone(), 0..4);
        prop_oneof![parts().prop_map(Filter::And), parts().prop_map(Filter::Or)]
    })
}

proptest! {
    /// Every value has its place and parentheses close, whatever the filter.
    #[test]
    fn every_argument_has_its_placeholder(filter in any_filter()) {
        for engine in ENGINES {
            let schema = schema(engine);
            let path = [hop("order_id", "orders", "id")];
            let query = RowQuery {
                path: path.to_vec(),
                filter: filter.clone(),
                after: None,
                columns: vec![ColumnRef::own("line")],
                ..lines_query()
            };
            let page = select_page(&schema, &query, false).unwrap();
            for statement in [page, select_count(&schema, &query).unwrap(), delete(&schema, "lines", &path, &filter).unwrap()] {
                // No name in this schema holds a placeholder or a parenthesis.
                let places = match engine {
                    Engine::Postgres => (1..1000).take_while(|n| statement.sql.contains(&format!("${n}"))).count(),
                    _ => statement.sql.matches('?').count(),
                };
                // The shape of a text is a bound value too, so no question mark stands in the SQL itself.
                prop_assert_eq!(places, statement.arguments.len(), "{}", statement.sql);
                prop_assert_eq!(statement.sql.matches('(').count(), statement.sql.matches(')').count());
            }
        }
    }

    /// A quoted name reads back as the name and ends where it should.
    #[test]
    fn quoting_is_reversible(name in "[^\0]{1,20}") {
        for (engine, mark) in [(Engine::Sqlite, '"'), (Engine::Postgres, '"'), (Engine::Mysql, '`')] {
            let quoted = quote(engine, &name);
            let inside = quoted.strip_prefix(mark).and_then(|rest| rest.strip_suffix(mark)).unwrap();
            let doubled = mark.to_string().repeat(2);
            prop_assert!(!inside.replace(&doubled, "").contains(mark));
            prop_assert_eq!(inside.replace(&doubled, &mark.to_string()), name.clone());
        }
    }
}
