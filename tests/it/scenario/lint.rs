//! `store lint`: what nobody declared is named, and no value is told.

use wangchuan::stores::Engine;

use super::database::Database;
use super::small::{self, POLICY, store};
use super::workplace::Workplace;
use crate::support::program::Outcome;

const CONTACTS: &str = "\n[[store.collection]]\ntable = \"contacts\"\nsubject = \"customer_id\"\n";

/// The gaps, as `code table names`.
fn gaps(outcome: &Outcome) -> Vec<String> {
    let of = |gap: &serde_json::Value| {
        let names: Vec<&str> = gap["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        format!("{} {} {}", gap["code"].as_str().unwrap(), gap["table"].as_str().unwrap_or("-"), names.join(","))
    };
    outcome.list("stores")[0]["gaps"].as_array().unwrap().iter().map(of).collect()
}

fn gaps_are_named(engine: Engine) {
    let place = Workplace::new();
    let Some(database) = Database::create(engine, place.path()) else { return };
    small::fill(&database);
    database.run(
        "CREATE TABLE contacts (id INTEGER PRIMARY KEY, customer_id VARCHAR(20), reach VARCHAR(40), wechat VARCHAR(40), size INTEGER);
         INSERT INTO contacts VALUES (1, 'c-1001', '13812345678', 'x', 1), (2, 'c-1001', '13912345678', 'y', 2),
           (3, 'c-1002', '13712345678', NULL, 3), (4, 'c-1002', NULL, NULL, 4);
         CREATE TABLE letters (id INTEGER PRIMARY KEY, customer_id VARCHAR(20));",
    );
    let undated = "\n[[store.copy]]\nname = \"dump\"\nkind = \"dump\"\ndies = \"never\"\n";
    let stores = format!("{}{CONTACTS}{undated}", store(&database.url()));
    place.configure(&format!("{stores}{POLICY}"));
    place.install();
    let looked = place.program().json(&["store", "lint"]).ends(5);
    let found = gaps(&looked);
    for gap in [
        "personal-values contacts reach",
        "personal-name contacts wechat",
        "no-policy contacts ",
        "no-policy customers ",
        "no-index contacts customer_id",
        "not-registered letters customer_id",
        "copy-without-date - dump",
    ] {
        assert!(found.contains(&gap.to_owned()), "{engine:?}: {gap} is not in {found:?}");
    }
    assert!(!found.iter().any(|gap| gap.contains("size") || gap.contains("total")), "{found:?}");
    assert!(!looked.out.contains("13812345678") && !looked.out.contains("13712345678"), "{looked}");

    // What is answered is no gap any more.
    database.run("CREATE INDEX contacts_customer ON contacts (customer_id); CREATE INDEX orders_customer ON orders (customer_id);");
    let declared = "\nfields.reach = { kind = \"mobile\" }\nfields.wechat = { kind = \"device_id\" }\n";
    let stores =
        stores.replace(CONTACTS, &format!("{}{declared}", CONTACTS.trim_end())).replace("\"never\"", "\"30 days\"");
    let stores = stores.replace(
        &format!("url = \"{}\"", database.url()),
        &format!("url = \"{}\"\nignored = [\"letters\"]", database.url()),
    );
    let others = "\n[[policy]]\nid = \"people\"\ncollections = [\"customers\", \"contacts\"]\nretention = \"1 year\"\nstart = \"since\"\n\
                  action = \"delete\"\nbasis = \"contract\"\n";
    database.run("ALTER TABLE customers ADD COLUMN since DATE; ALTER TABLE contacts ADD COLUMN since DATE;");
    place.configure(&format!("{stores}{POLICY}{others}"));
    let looked = place.program().json(&["store", "lint"]).ends(0);
    assert!(gaps(&looked).is_empty(), "{engine:?}: {looked}");
}

#[test]
fn what_nobody_declared_is_named_without_a_value() {
    for engine in [Engine::Sqlite, Engine::Postgres, Engine::Mysql] {
        gaps_are_named(engine);
    }
}
