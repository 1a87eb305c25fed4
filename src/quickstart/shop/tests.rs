use std::collections::HashSet;

use chrono::{NaiveDateTime, TimeDelta};
use proptest::prelude::*;

use super::people::{id_check, luhn_check};
use super::*;

fn now() -> DateTime<Utc> {
    "2026-03-15T02:00:00Z".parse().unwrap()
}

fn small(engine: Engine, seed: u64) -> Shop {
    Shop::generate(&Settings { engine, customers: 400, now: now(), seed })
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Null => "NULL".to_owned(),
        other => panic!("neither text nor number: {other:?}"),
    }
}

fn column(shop: &Shop, table: &str, name: &str) -> Vec<String> {
    let at = shop.columns_of(table).iter().position(|column| column == name).unwrap();
    shop.rows_of(table).iter().map(|row| text(&row[at])).collect()
}

/// The `value` column of the rows whose `customer_id` is `id`.
fn of_customer(shop: &Shop, table: &str, id: &str, value: &str) -> Vec<String> {
    let ids = column(shop, table, "customer_id");
    column(shop, table, value).into_iter().zip(ids).filter(|(_, owner)| owner == id).map(|(value, _)| value).collect()
}

fn local(text: &str) -> NaiveDateTime {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap()
}

fn days_ago(days: i64) -> NaiveDateTime {
    local_now(now()) - TimeDelta::days(days)
}

#[test]
fn the_standard_shop_has_the_promised_size() {
    let shop = Shop::generate(&Settings::standard(now()));
    let sizes: Vec<(&str, usize)> = shop.iter().map(|(table, rows)| (table.name.as_str(), rows.len())).collect();
    assert_eq!(sizes[0], ("products", 60));
    assert_eq!(sizes[1], ("customers", 3_000));
    assert!((8_500..9_700).contains(&sizes[2].1), "{sizes:?}");
    assert!((23_000..28_000).contains(&sizes[3].1), "{sizes:?}");
    assert!(sizes[4].1 > 150 && sizes[5].1 > 1_000, "{sizes:?}");
    let odd = &shop.odd_orders;
    assert!(odd.future.len() > 5 && odd.unreadable.len() > 5 && odd.open.len() > 100, "{odd:?}");
}

#[test]
fn the_same_seed_gives_the_same_shop_and_another_seed_another() {
    let (first, again, other) = (small(Engine::Sqlite, 1), small(Engine::Sqlite, 1), small(Engine::Sqlite, 2));
    assert!(first.rows == again.rows && first.picks == again.picks && first.canaries == again.canaries);
    assert!(first.rows != other.rows);
}

#[test]
fn checksums_are_right_and_some_identity_numbers_end_in_x() {
    let shop = small(Engine::Sqlite, 3);
    let ids = column(&shop, "customers", "id_card");
    let births = column(&shop, "customers", "birth_date");
    for (id, birth) in ids.iter().zip(births) {
        assert_eq!(id.len(), 18);
        assert!(id.ends_with(id_check(&id[..17])));
        assert_eq!(id[6..14], birth.replace('-', ""));
    }
    assert!(ids.iter().any(|id| id.ends_with('X')));
    for card in column(&shop, "customers", "bank_card") {
        assert_eq!(card.len(), 19);
        assert!(card.ends_with(luhn_check(&card[..18])));
    }
}

#[test]
fn customer_ids_carry_the_day_of_registration() {
    let shop = small(Engine::Sqlite, 4);
    let created = column(&shop, "customers", "created_at");
    for (id, created) in column(&shop, "customers", "customer_id").iter().zip(created) {
        assert_eq!(id.len(), 15);
        assert_eq!(id[1..9], created[..10].replace('-', ""));
        assert!(id.starts_with('C') && id[9..].bytes().all(|byte| byte.is_ascii_digit()));
    }
}

#[test]
fn every_row_fits_its_table_keys_are_unique_and_parents_exist() {
    for engine in [Engine::Sqlite, Engine::Postgres, Engine::Mysql] {
        let shop = small(engine, 5);
        for (table, rows) in shop.iter() {
            for row in rows {
                assert_eq!(row.len(), table.columns.len());
                for (value, column) in row.iter().zip(&table.columns) {
                    assert!(column.nullable || *value != Value::Null, "{}.{}", table.name, column.name);
                }
            }
            let keys = column(&shop, &table.name, &table.key[0]);
            assert_eq!(keys.iter().collect::<HashSet<_>>().len(), rows.len(), "{}", table.name);
            for foreign in &table.foreign_keys {
                let parents: HashSet<_> =
                    column(&shop, &foreign.parent, &foreign.parent_columns[0]).into_iter().collect();
                assert!(column(&shop, &table.name, &foreign.columns[0]).iter().all(|child| parents.contains(child)));
            }
        }
    }
}

#[test]
fn parents_stand_before_children() {
    let shop = small(Engine::Sqlite, 5);
    let mut seen = HashSet::new();
    for (table, _) in shop.iter() {
        assert!(table.foreign_keys.iter().all(|foreign| seen.contains(&foreign.parent)), "{}", table.name);
        seen.insert(table.name.clone());
    }
}

#[test]
fn the_picks_have_their_stories() {
    let shop = small(Engine::Sqlite, 6);
    let (leaver, keeper, held) = (&shop.picks.leaver, &shop.picks.keeper, &shop.picks.held);
    assert!(leaver != keeper && keeper != held && leaver != held);
    let three_years = days_ago(3 * 366);
    for id in [leaver, held] {
        let completed = of_customer(&shop, "orders", id, "completed_at");
        assert_eq!(completed.len(), 4);
        assert!(completed.iter().all(|time| local(time) < three_years));
    }
    // What only the request reaches: too young for retention, and bound by no statute.
    assert!(of_customer(&shop, "complaints", leaver, "closed_at").iter().all(|time| local(time) > days_ago(420)));
    assert!(of_customer(&shop, "newsletter", leaver, "unsubscribed_at").iter().all(|time| local(time) > days_ago(201)));
    assert!(of_customer(&shop, "complaints", held, "closed_at").iter().all(|time| local(time) < three_years));
    assert!(of_customer(&shop, "newsletter", held, "unsubscribed_at").iter().all(|time| local(time) < three_years));
    let closed = |id: &str| of_customer(&shop, "customers", id, "closed_at").remove(0);
    assert!(local(&closed(leaver)) > days_ago(62) && local(&closed(leaver)) < days_ago(59));
    assert!(local(&closed(held)) < three_years);
    assert_eq!(closed(keeper), "NULL");
    let kept = of_customer(&shop, "orders", keeper, "completed_at");
    assert_eq!(kept.iter().filter(|time| local(time) < three_years).count(), 3);
    assert_eq!(kept.iter().filter(|time| local(time) > days_ago(2 * 365)).count(), 3);
}

#[test]
fn nobody_orders_before_registering() {
    let shop = small(Engine::Sqlite, 6);
    let ids = column(&shop, "customers", "customer_id");
    let created: std::collections::HashMap<_, _> =
        ids.into_iter().zip(column(&shop, "customers", "created_at")).collect();
    let placed = column(&shop, "orders", "placed_at");
    for (customer, placed) in column(&shop, "orders", "customer_id").iter().zip(placed) {
        assert!(local(&created[customer]) <= local(&placed));
    }
}

#[test]
fn odd_orders_are_what_they_are_called_and_never_a_picks() {
    let shop = Shop::generate(&Settings::standard(now()));
    let ids = column(&shop, "orders", "order_id");
    let completed: std::collections::HashMap<_, _> =
        ids.into_iter().zip(column(&shop, "orders", "completed_at")).collect();
    let at = |id: &i64| completed[&id.to_string()].as_str();
    assert!(shop.odd_orders.future.iter().all(|id| local(at(id)) > days_ago(0)));
    let parse = |time: &str| NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S");
    assert!(shop.odd_orders.unreadable.iter().all(|id| parse(at(id)).is_err()));
    assert!(shop.odd_orders.open.iter().all(|id| at(id) == "NULL"));
    let odd = shop.odd_orders.future.len() + shop.odd_orders.unreadable.len() + shop.odd_orders.open.len();
    let normal = completed.values().filter(|time| parse(time).is_ok_and(|time| time <= days_ago(0))).count();
    assert_eq!(odd + normal, completed.len());
    let Picks { leaver, keeper, held } = &shop.picks;
    for pick in [leaver, keeper, held] {
        for order in of_customer(&shop, "orders", pick, "order_id") {
            let order: i64 = order.parse().unwrap();
            assert!(!shop.odd_orders.future.contains(&order) && !shop.odd_orders.unreadable.contains(&order));
        }
    }
}

#[test]
fn canaries_hold_every_identifying_text() {
    let shop = small(Engine::Sqlite, 8);
    let canaries: HashSet<&str> = shop.canaries().collect();
    for name in ["customer_id", "name", "id_card", "mobile", "bank_card", "email", "address"] {
        assert!(column(&shop, "customers", name).iter().all(|text| canaries.contains(text.as_str())), "{name}");
    }
    assert!(column(&shop, "orders", "shipping_address").iter().all(|text| canaries.contains(text.as_str())));
    let own: Vec<&str> = shop.canaries_of(&shop.picks.leaver).collect();
    assert!(own.len() >= 6, "{}", own.len());
    for (table, rows) in shop.iter() {
        let owner = table.columns.iter().position(|column| column.name == "customer_id");
        for row in rows {
            let mine = owner.is_some_and(|at| text(&row[at]) == shop.picks.leaver);
            let found = row.iter().any(|value| matches!(value, Value::Text(text) if own.contains(&text.as_str())));
            assert!(mine || !found, "{}", table.name);
        }
    }
}

#[test]
fn amounts_are_stored_as_each_engine_gives_them_back() {
    let amount = |engine, hundredths| Dialect(engine).money(hundredths);
    assert_eq!(amount(Engine::Sqlite, 1_200), Value::Integer(12));
    assert_eq!(amount(Engine::Sqlite, 1_250), Value::Real(12.5));
    assert_eq!(amount(Engine::Postgres, 1_205), Value::Text("12.05".to_owned()));
    assert_eq!(amount(Engine::Mysql, 5), Value::Text("0.05".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_size_and_seed_give_three_different_picks(customers in 0u32..60, seed: u64) {
        let shop = Shop::generate(&Settings { engine: Engine::Sqlite, customers, now: now(), seed });
        let ids: HashSet<String> = column(&shop, "customers", "customer_id").into_iter().collect();
        prop_assert_eq!(ids.len(), customers.max(MIN_CUSTOMERS) as usize);
        let picks = HashSet::from([&shop.picks.leaver, &shop.picks.keeper, &shop.picks.held]);
        prop_assert!(picks.len() == 3 && picks.iter().all(|id| ids.contains(*id)));
    }
}
