//! What is wrong between the registry and a database.

use wangchuan::stores::Engine;

use crate::scenario::database::Database;
use crate::scenario::small;
use crate::scenario::workplace::Workplace;

/// Breaks the configuration in a way that only the database knows, sees it found, mends it, and goes on.
#[track_caller]
fn does_not_fit(from: &str, to: &str, naming: &[&str]) {
    let (place, database) = small::installed();
    place.reconfigure(from, to);
    place.program().json(&["plan"]).refuses(2, naming).says(&["store shop"]);
    place.program().json(&["store", "check"]).ends(3).says(naming);
    small::is_untouched(&database);
    place.reconfigure(to, from);
    place.good(&["store", "check"]);
    small::goes_through(&place, &database);
}

#[test]
fn a_missing_table() {
    let missing = "[[store.collection]]\ntable = \"ordres\"\nsubject = \"customer_id\"\n\n[[policy]]";
    does_not_fit("[[policy]]", missing, &["ordres"]);
}

#[test]
fn a_table_without_a_key() {
    does_not_fit("[[policy]]", "[[store.collection]]\ntable = \"audit_trail\"\n\n[[policy]]", &["audit_trail", "key"]);
}

#[test]
fn a_policy_on_a_column_that_does_not_exist() {
    does_not_fit("start = \"completed_at\"", "start = \"finished_at\"", &["old-orders", "finished_at"]);
}

#[test]
fn a_policy_on_a_column_that_is_no_time() {
    does_not_fit("start = \"completed_at\"", "start = \"total\"", &["old-orders", "total", "not a date or time"]);
}

#[test]
fn a_subject_column_that_does_not_exist() {
    does_not_fit(
        "table = \"orders\"\nsubject = \"customer_id\"",
        "table = \"orders\"\nsubject = \"client_id\"",
        &["orders", "client_id"],
    );
}

#[test]
fn a_schema_that_changes_between_plan_and_erase_voids_the_plan() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let hash = place.plan().text("hash");
    database.run("ALTER TABLE orders ADD COLUMN note VARCHAR(20)");
    place.program().json(&["erase", "--plan", &hash]).refuses(3, &["schema of store shop changed", "wangchuan plan"]);
    small::is_untouched(&database);
    place.program().json(&["erase", "--plan", &hash]).refuses(3, &["void"]);
    small::goes_through(&place, &database);
}

#[test]
fn a_policy_that_changes_between_plan_and_erase_voids_the_plan() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let hash = place.plan().text("hash");
    place.reconfigure("retention = \"3 years\"", "retention = \"9 years\"");
    place.program().json(&["erase", "--plan", &hash]).refuses(3, &["policies", "void", "wangchuan plan"]);
    small::is_untouched(&database);
    place.reconfigure("retention = \"9 years\"", "retention = \"3 years\"");
    small::goes_through(&place, &database);
}

#[test]
fn a_cap_that_a_run_would_exceed() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    place.reconfigure("max = { rows = 1000, percent = 100 }", "max = { rows = 3, percent = 100 }");
    place.program().json(&["plan"]).refuses(3, &["old-orders", "4 of 8 rows", "3 rows", "max"]);
    place.reconfigure("max = { rows = 3, percent = 100 }", "max = { rows = 1000, percent = 49 }");
    place.program().json(&["plan"]).refuses(3, &["old-orders", "49 %"]);
    small::is_untouched(&database);
    place.reconfigure("percent = 49", "percent = 100");
    small::goes_through(&place, &database);
}

#[test]
fn nothing_is_erased_before_a_backup_is_good() {
    let (place, database) = small::installed();
    let hash = place.plan().text("hash");
    place.program().json(&["erase", "--plan", &hash]).refuses(3, &["store shop has no snapshot", "backup run"]);
    small::is_untouched(&database);
    small::goes_through(&place, &database);
}

/// A trigger that throws the DELETE away, for each engine that has such a thing.
fn swallow(database: &Database) {
    match database.engine() {
        Engine::Sqlite => database
            .run("CREATE TRIGGER keeper BEFORE DELETE ON orders WHEN old.order_id = 2 BEGIN SELECT RAISE(IGNORE); END"),
        Engine::Postgres => database.run(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN IF old.order_id = 2 THEN RETURN NULL; END IF; RETURN old; END $$;
             CREATE TRIGGER keeper BEFORE DELETE ON orders FOR EACH ROW EXECUTE FUNCTION keep()",
        ),
        Engine::Mysql => panic!("no trigger of MariaDB can throw a DELETE away"),
    }
}

/// A trigger that keeps a copy of what is deleted, for each engine.
fn copy(database: &Database) {
    match database.engine() {
        Engine::Sqlite => database.run(
            "CREATE TRIGGER copier AFTER DELETE ON orders BEGIN INSERT INTO audit_trail VALUES (old.customer_id); END",
        ),
        Engine::Postgres => database.run(
            "CREATE FUNCTION keep_copy() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN INSERT INTO audit_trail VALUES (old.customer_id); RETURN old; END $$;
             CREATE TRIGGER copier AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION keep_copy()",
        ),
        Engine::Mysql => database.run(
            "CREATE TRIGGER copier AFTER DELETE ON orders FOR EACH ROW INSERT INTO audit_trail VALUES (old.customer_id)",
        ),
    }
}

/// It is found by the check, and stops an erasure before its first batch; without it the work goes on.
fn an_undeclared_trigger_is_refused(engine: Engine, make: fn(&Database), name: &str) {
    let place = Workplace::new();
    let Some(database) = Database::create(engine, place.path()) else { return };
    small::fill(&database);
    place.configure(&format!("{}{}", small::store(&database.url()), small::POLICY));
    place.install();
    place.good(&["backup", "run"]);
    make(&database);
    let found = place.program().json(&["store", "check"]).ends(3).says(&[name, "DELETE", "orders", "`triggers`"]);
    assert_eq!(found.text("result"), "refused", "{found}");
    let plan = place.program().json(&["plan"]);
    let stopped =
        if plan.code() == Some(0) { place.program().json(&["erase", "--plan", &plan.text("hash")]) } else { plan };
    assert!([Some(2), Some(3), Some(4)].contains(&stopped.code()), "{stopped}");
    let stopped = stopped.says(&[name]);
    assert_ne!(stopped.text("result"), "complete", "{stopped}");
    small::is_untouched(&database);
    assert_eq!(database.rows("audit_trail"), 0, "a copy of an erased row was made");

    let of = if engine == Engine::Postgres { " ON orders" } else { "" };
    database.run(&format!("DROP TRIGGER {name}{of}"));
    place.good(&["store", "check"]);
    small::goes_through(&place, &database);
    assert_eq!(database.rows("audit_trail"), 0);
}

#[test]
fn a_trigger_that_swallows_the_delete_on_sqlite() {
    an_undeclared_trigger_is_refused(Engine::Sqlite, swallow, "keeper");
}

#[test]
fn a_trigger_that_swallows_the_delete_on_postgres() {
    an_undeclared_trigger_is_refused(Engine::Postgres, swallow, "keeper");
}

#[test]
fn a_trigger_that_copies_the_delete_on_sqlite() {
    an_undeclared_trigger_is_refused(Engine::Sqlite, copy, "copier");
}

#[test]
fn a_trigger_that_copies_the_delete_on_postgres() {
    an_undeclared_trigger_is_refused(Engine::Postgres, copy, "copier");
}

#[test]
fn a_trigger_that_copies_the_delete_on_mariadb() {
    an_undeclared_trigger_is_refused(Engine::Mysql, copy, "copier");
}

#[test]
fn a_trigger_declared_harmless_that_swallows_the_delete() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    swallow(&database);
    place.reconfigure("table = \"orders\"", "table = \"orders\"\ntriggers = [\"keeper\"]");
    place.good(&["store", "check"]);
    let plan = place.plan();
    let erased = place.program().json(&["erase", "--plan", &plan.text("hash")]);
    assert!([Some(1), Some(4)].contains(&erased.code()), "{erased}");
    assert_ne!(erased.text("result"), "complete", "{erased}");
    assert_eq!(database.rows_where("orders", "order_id = 2"), 1);
    for (_, id) in place.certificates() {
        let shown = place.program().json(&["certificate", "show", &id]);
        assert_ne!(shown.text("result"), "complete", "{shown}");
    }
    database.run("DROP TRIGGER keeper");
    place.reconfigure("table = \"orders\"\ntriggers = [\"keeper\"]", "table = \"orders\"");
    place.good(&["agent", "--once"]);
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
}
