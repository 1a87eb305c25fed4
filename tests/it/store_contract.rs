//! The contract of the data-store port: one list of checks, run for each engine.

#[path = "support/servers.rs"]
mod servers;

mod batches;
mod engines;
mod facts;
mod reading;
mod restores;
mod schemas;
mod values;

use std::sync::Arc;

use servers::Lab;
use wangchuan::stores::{BatchMarker, ColumnRef, DataStore, Engine, Filter, Hop, RowQuery};
use wangchuan::value::{Row, RowKey, Value};

/// One test per check and engine, so that a failure names both.
macro_rules! contract {
    ($($engine:ident $kind:expr => [$($module:ident::$check:ident as $name:ident),* $(,)?];)*) => {$(
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let Some(lab) = super::servers::Lab::start($kind).await else { return };
                    super::$module::$check(&lab).await;
                    lab.finish().await;
                }
            )*
        }
    )*};
}

macro_rules! every_check {
    ($($engine:ident $kind:expr;)*) => {
        contract! {$(
            $engine $kind => [
                facts::catalogue_tells_tables_keys_and_triggers as catalogue_tells_tables_keys_and_triggers,
                facts::check_finds_what_stands_in_the_way as check_finds_what_stands_in_the_way,
                facts::missing_rights_come_with_their_grant as missing_rights_come_with_their_grant,
                facts::clock_is_near_ours as clock_is_near_ours,
                facts::nobody_answers as nobody_answers,
                facts::settle_says_what_remains as settle_says_what_remains,
                facts::settle_removes_what_secure_delete_leaves as settle_removes_what_secure_delete_leaves,
                facts::settle_leaves_numbers_of_rows_alone as settle_leaves_numbers_of_rows_alone,
                facts::settle_names_parts_of_other_owners as settle_names_parts_of_other_owners,
                facts::settle_asks_for_room_first as settle_asks_for_room_first,
                facts::settle_waits_for_whoever_keeps_rows as settle_waits_for_whoever_keeps_rows,
                facts::load_and_heartbeat as load_and_heartbeat,
                facts::sizes_and_indexes as sizes_and_indexes,
                reading::pages_over_a_composite_key as pages_over_a_composite_key,
                reading::all_rows_in_groups as all_rows_in_groups,
                reading::filters_and_nulls as filters_and_nulls,
                reading::start_events_before_a_bound as start_events_before_a_bound,
                reading::owner_path_joins as owner_path_joins,
                reading::a_snapshot_does_not_see_later_commits as a_snapshot_does_not_see_later_commits,
                reading::reads_may_go_elsewhere as reads_may_go_elsewhere,
                reading::keys_that_cannot_page_are_refused as keys_that_cannot_page_are_refused,
                reading::odd_names as odd_names,
                values::every_type_comes_back_exactly as every_type_comes_back_exactly,
                values::floating_point_numbers_survive as floating_point_numbers_survive,
                values::same_compares_the_carried_form as same_compares_the_carried_form,
                batches::a_row_changed_since_is_not_deleted as a_row_changed_since_is_not_deleted,
                batches::deleting_by_ancestors as deleting_by_ancestors,
                batches::deleting_by_ancestors_whatever_the_tables_are_called as deleting_by_ancestors_whatever_the_tables_are_called,
                batches::taking_returns_what_it_took as taking_returns_what_it_took,
                batches::marker_and_rows_commit_together as marker_and_rows_commit_together,
                batches::a_chunk_commits_once as a_chunk_commits_once,
                batches::children_before_parents as children_before_parents,
                batches::updates_count_what_matched as updates_count_what_matched,
                batches::undo_never_overwrites as undo_never_overwrites,
                batches::a_lock_ends_in_busy as a_lock_ends_in_busy,
                batches::errors_hold_no_values as errors_hold_no_values,
                batches::many_keys_in_one_batch as many_keys_in_one_batch,
                restores::into_an_empty_database as restores_into_an_empty_database,
                restores::into_an_existing_schema as restores_into_an_existing_schema,
                restores::orphans_are_reported as orphans_are_reported,
                restores::computed_columns as computed_columns,
                restores::giving_up_leaves_nothing as giving_up_leaves_nothing,
                schemas::everything_comes_back_as_it_was as everything_comes_back_as_it_was,
                schemas::what_is_there_is_left_alone as what_is_there_is_left_alone,
                schemas::checks_that_rows_do_not_meet_hold_for_new_rows as checks_that_rows_do_not_meet_hold_for_new_rows,
                schemas::checks_that_refuse_to_answer_are_told as checks_that_refuse_to_answer_are_told,
                schemas::what_cannot_be_made_is_told as what_cannot_be_made_is_told,
            ];
        )*}
    };
}

every_check! {
    sqlite wangchuan::stores::Engine::Sqlite;
    postgres wangchuan::stores::Engine::Postgres;
    mariadb wangchuan::stores::Engine::Mysql;
}

contract! {
    postgres_only wangchuan::stores::Engine::Postgres => [
        engines::other_schemas as other_schemas,
        engines::types_that_cannot_be_carried as types_that_cannot_be_carried,
        engines::sequences_go_on as sequences_go_on,
        engines::partitions_belong_to_their_table as partitions_belong_to_their_table,
        engines::a_rule_counts_as_a_trigger as a_rule_counts_as_a_trigger,
        engines::arrays_as_keys as arrays_as_keys,
        engines::a_long_statement_ends_in_busy as a_long_statement_ends_in_busy,
        engines::constraints_keep_their_definition as constraints_keep_their_definition,
        engines::what_restricts_is_never_checked_late as what_restricts_is_never_checked_late,
    ];
    mariadb_only wangchuan::stores::Engine::Mysql => [
        engines::storage_without_transactions as storage_without_transactions,
        engines::old_versions_are_found as old_versions_are_found,
        engines::a_reading_login_sees_foreign_keys as a_reading_login_sees_foreign_keys,
        engines::zero_dates_come_back as zero_dates_come_back,
        engines::geometry_is_carried_by_its_bytes as geometry_is_carried_by_its_bytes,
        engines::text_is_not_a_number as text_is_not_a_number,
        engines::enums_page_in_one_order as enums_page_in_one_order,
    ];
    sqlite_only wangchuan::stores::Engine::Sqlite => [
        engines::not_a_database as not_a_database,
        engines::texts_that_are_not_utf8 as texts_that_are_not_utf8,
        engines::special_tables as special_tables,
        engines::what_a_killed_writer_left_stops_no_reader as what_a_killed_writer_left_stops_no_reader,
    ];
}

/// Customers, orders (parent: customers), lines (parent: orders), in the engine's own types.
async fn make_shop(lab: &Lab) {
    let time = match lab.engine() {
        Engine::Sqlite => "text",
        Engine::Postgres => "timestamp",
        Engine::Mysql => "datetime",
    };
    lab.run(&format!(
        "CREATE TABLE customers (id varchar(20) NOT NULL PRIMARY KEY, name varchar(100), vip int);
         CREATE TABLE orders (id bigint NOT NULL PRIMARY KEY, customer_id varchar(20), done {time}, total decimal(12,2),
           FOREIGN KEY (customer_id) REFERENCES customers (id));
         CREATE INDEX orders_by_customer ON orders (customer_id);
         CREATE TABLE order_lines (order_id bigint NOT NULL, line int NOT NULL, sku varchar(20),
           PRIMARY KEY (order_id, line), FOREIGN KEY (order_id) REFERENCES orders (id));
         INSERT INTO customers VALUES ('C1', '张三', 1), ('C2', 'Bob', NULL), ('C3', 'Eve', 0);
         INSERT INTO orders VALUES (1, 'C1', '2020-01-01 00:00:00', 10.50), (2, 'C1', '2023-05-10 08:30:00', 20),
           (3, 'C2', NULL, 5), (4, NULL, '2019-12-31 23:59:59', 1);
         INSERT INTO order_lines VALUES (1, 1, 'a'), (1, 2, 'b'), (2, 1, 'c'), (3, 1, 'd'), (3, 2, NULL)"
    ))
    .await;
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn key(values: &[&str]) -> RowKey {
    RowKey(values.iter().map(|value| text(value)).collect())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A query for these columns of the table itself, all rows, ordered by `key`.
fn query(table: &str, columns: &[&str], key: &[&str]) -> RowQuery {
    RowQuery {
        table: table.to_owned(),
        path: Vec::new(),
        columns: columns.iter().map(|column| ColumnRef::own(column)).collect(),
        filter: Filter::All,
        key: names(key),
        after: None,
        limit: 1000,
    }
}

fn hop(column: &str, parent: &str, parent_column: &str) -> Hop {
    Hop { columns: names(&[column]), parent: parent.to_owned(), parent_columns: names(&[parent_column]) }
}

/// The value as text, whatever form the engine carries it in.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => hex::encode(bytes),
    }
}

fn rows_shown(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.iter().map(shown).collect::<Vec<_>>().join(" ")).collect()
}

async fn read(store: &Arc<dyn DataStore>, query: &RowQuery) -> Vec<Row> {
    let mut snapshot = store.open_snapshot().await.unwrap();
    let rows = snapshot.read(query).await.unwrap();
    snapshot.close().await.unwrap();
    rows
}

async fn count(store: &Arc<dyn DataStore>, query: &RowQuery) -> u64 {
    let mut snapshot = store.open_snapshot().await.unwrap();
    let count = snapshot.count(query).await.unwrap();
    snapshot.close().await.unwrap();
    count
}

fn marker(chunk: i64, erased: i64) -> BatchMarker {
    BatchMarker { run: "run-1".to_owned(), chunk, token: 7, erased, changed: 0 }
}
