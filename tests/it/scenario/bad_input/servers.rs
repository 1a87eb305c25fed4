//! Database servers that are not there, do not know the login, or do not let it do what is needed.

use wangchuan::stores::Engine;

use crate::scenario::database::Database;
use crate::scenario::small;
use crate::scenario::workplace::{Workplace, contains};
use crate::support::ports::free_port;

#[test]
fn an_unreachable_store() {
    for scheme in ["postgres", "mysql"] {
        let (place, database) = small::installed();
        let address = format!("{scheme}://agent@127.0.0.1:{}/shop", free_port());
        place.reconfigure(&database.url(), &address);
        let refused = place.program().json(&["plan"]).refuses(3, &["store shop", "cannot be reached", "store check"]);
        assert_eq!(refused.text("result"), "refused", "{refused}");
        place.program().json(&["store", "check"]).ends(1).says(&["store shop", "cannot be reached"]);
        let backup = place.program().json(&["backup", "run"]).ends(1).says(&["store shop"]);
        assert_eq!(backup.text("result"), "failed", "{backup}");
        let once = place.program().json(&["agent", "--once"]).says(&["shop"]);
        assert!([Some(3), Some(4)].contains(&once.code()), "{once}");
        place.reconfigure(&address, &database.url());
        small::goes_through(&place, &database);
    }
}

#[test]
fn one_store_of_two_is_unreachable() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let other = format!(
        "[[store]]\nname = \"crm\"\nbackup = \"none\"\nurl = \"postgres://agent@127.0.0.1:{}/crm\"\n\n[[store.collection]]\ntable = \"people\"\nsubject = \"id\"\n\n[[policy]]",
        free_port()
    );
    place.reconfigure("[[policy]]", &other);
    let plan = place.program().json(&["plan"]).ends(4).says(&["crm", "cannot be reached"]);
    assert_eq!(plan.text("result"), "partial", "{plan}");
    let erased = place.program().json(&["erase", "--plan", &plan.text("hash")]).ends(4);
    assert_eq!(erased.text("result"), "partial", "{erased}");
    assert_eq!(erased.list("skipped").len(), 1, "{erased}");
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
    place.reconfigure(&other, "[[policy]]");
    place.good(&["agent", "--once"]);
}

#[test]
fn a_missing_sqlite_file_is_not_made() {
    let (place, database) = small::installed();
    place.reconfigure(&database.url(), "sqlite://nowhere/shop.db");
    place.program().json(&["plan"]).refuses(3, &["store shop"]);
    place.program().json(&["store", "check"]).ends(1).says(&["store shop"]);
    assert!(!place.file("nowhere").exists());
    place.reconfigure("sqlite://nowhere/shop.db", &database.url());
    small::goes_through(&place, &database);
}

/// An installation whose store is at another address than its superuser's.
fn installed_as(database: &Database, place: &Workplace, url: &str) {
    small::fill(database);
    place.configure(&format!("{}{}", small::store(url), small::POLICY));
    place.install();
}

const PASSWORD: &str = "Tr0ub4dor-and-3";

#[test]
fn a_wrong_password_is_repeated_nowhere() {
    for engine in [Engine::Postgres, Engine::Mysql] {
        let place = Workplace::new();
        let Some(database) = Database::create(engine, place.path()) else { continue };
        let user = format!("{}_login", database.name());
        if engine == Engine::Mysql {
            database.run(&format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'the right one'"));
        }
        // A private PostgreSQL trusts everybody it knows, so there the login itself is unknown.
        installed_as(&database, &place, &database.url_as(&user, PASSWORD));
        for command in [
            &["plan"][..],
            &["store", "check"],
            &["backup", "run"],
            &["agent", "--once"],
            &["status"],
            &["config", "show"],
        ] {
            let outcome = place.program().json(command).never_says(PASSWORD);
            let looks = command[0] == "status" || command[0] == "config";
            assert!(looks || outcome.code() != Some(0), "{outcome}");
            place.program().run(command).never_says(PASSWORD);
        }
        place.program().json(&["plan"]).refuses(3, &["store shop", "login", "store check"]);
        place.program().json(&["store", "check"]).ends(1).says(&["store shop", "login"]);
        for folder in ["state", "bucket", "audit", "root"] {
            assert!(!contains(&place.bytes_under(folder), PASSWORD), "the password lies in {folder}");
        }
        small::is_untouched(&database);
        place.reconfigure(&database.url_as(&user, PASSWORD), &database.url());
        small::goes_through(&place, &database);
        if engine == Engine::Mysql {
            database.run(&format!("DROP USER '{user}'@'%'"));
        }
    }
}

/// Makes a login that may do everything but DELETE, and says how to let it.
fn login_without_delete(database: &Database, user: &str) -> String {
    let tables = ["customers", "orders"];
    if database.engine() == Engine::Postgres {
        database.run(&format!(
            "CREATE ROLE {user} LOGIN; GRANT USAGE, CREATE ON SCHEMA public TO {user};
             GRANT SELECT, INSERT, UPDATE ON customers, orders TO {user}"
        ));
        return tables.map(|table| format!("GRANT DELETE ON {table} TO {user};")).concat();
    }
    database.run(&format!("CREATE USER '{user}'@'%'"));
    let place = database.name();
    for table in tables {
        database.run(&format!("GRANT SELECT, INSERT, UPDATE, TRIGGER ON {place}.{table} TO '{user}'@'%'"));
    }
    database.run(&format!("GRANT SELECT, INSERT, DELETE, CREATE ON {place}.wangchuan_batch TO '{user}'@'%'"));
    tables.map(|table| format!("GRANT DELETE ON {place}.{table} TO '{user}'@'%';")).concat()
}

fn forget_login(database: &Database, user: &str) {
    match database.engine() {
        Engine::Postgres => database.run(&format!("DROP OWNED BY {user} CASCADE; DROP ROLE {user}")),
        _ => database.run(&format!("DROP USER '{user}'@'%'")),
    }
}

fn no_right_to_delete(engine: Engine) {
    let place = Workplace::new();
    let Some(database) = Database::create(engine, place.path()) else { return };
    let user = format!("{}_weak", database.name());
    let url = match engine {
        Engine::Mysql => database.url_as(&user, ""),
        _ => database.url_as(&user, "unused"),
    };
    installed_as(&database, &place, &url);
    let cure = login_without_delete(&database, &user);
    let found = place.program().json(&["store", "check"]).ends(3).says(&["DELETE", "orders", "GRANT", &user]);
    assert_eq!(found.text("result"), "refused", "{found}");

    place.good(&["backup", "run"]);
    // Before the first batch: nothing is tried, no run is made, no key is marked, and the exact GRANT is named.
    let plan = place.plan();
    let erased = place.program().json(&["erase", "--plan", &plan.text("hash")]);
    let erased = erased.refuses(3, &["shop", "DELETE", "orders", "GRANT DELETE ON", &user]);
    assert_eq!(erased.text("result"), "refused", "{erased}");
    place.program().json(&["agent", "--once"]).ends(4).says(&["GRANT DELETE ON"]);
    place.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    place.program().json(&["request", "run", "1"]).refuses(3, &["GRANT DELETE ON"]);
    assert_eq!(place.good(&["run", "list"]).list("runs").len(), 0);
    let status = place.program().json(&["status"]).ends(5).says(&["GRANT DELETE ON"]);
    let codes = status.list("overdue");
    assert!(codes.iter().any(|item| item["code"] == "task-failed"), "{status}");
    place.good(&["request", "cancel", "1"]);
    small::is_untouched(&database);
    for statement in cure.split_inclusive(';') {
        database.run(statement);
    }
    place.good(&["store", "check"]);
    place.good(&["agent", "--once"]);
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
    assert!(place.verify_certificates() > 0);
    forget_login(&database, &user);
}

#[test]
fn no_right_to_delete_on_postgres() {
    no_right_to_delete(Engine::Postgres);
}

#[test]
fn no_right_to_delete_on_mariadb() {
    no_right_to_delete(Engine::Mysql);
}

#[test]
fn a_store_without_the_right_to_delete_leaves_the_other_to_go_on() {
    let place = Workplace::new();
    let Some(weak) = Database::create(Engine::Postgres, place.path()) else { return };
    let shop = Database::create(Engine::Sqlite, place.path()).unwrap();
    let user = format!("{}_weak", weak.name());
    small::fill(&weak);
    small::fill(&shop);
    let cure = login_without_delete(&weak, &user);
    let second = small::store(&weak.url_as(&user, "unused")).replace("\"shop\"", "\"archive\"");
    let policy = small::POLICY.replace("[\"orders\"]", "[\"shop.orders\", \"archive.orders\"]");
    place.configure(&format!("{}{second}{policy}", small::store(&shop.url())));
    place.install();
    let first = place.good(&["backup", "run"]);
    let plan = place.plan();
    let erased = place.program().json(&["erase", "--plan", &plan.text("hash")]).ends(4);
    let erased = erased.says(&["GRANT DELETE ON"]);
    assert_eq!((erased.number("erased"), erased.number("failed")), (small::DUE, small::DUE), "{erased}");
    assert_eq!(erased.list("skipped")[0]["store"], "archive", "{erased}");
    small::is_untouched(&weak);
    assert_eq!(shop.rows("orders"), small::ORDERS - small::DUE);
    place.good(&["backup", "run"]);
    place.good(&["job", "run", "shred"]);
    // What was not erased is still opened by the snapshot from before.
    let snapshots = first.list("snapshots");
    let archive = snapshots.iter().find(|row| row["store"] == "archive").unwrap();
    let target = Database::create(Engine::Postgres, place.path()).unwrap();
    place.good(&["restore", archive["snapshot"].as_str().unwrap(), "--to", &target.url()]);
    assert_eq!(target.rows("orders"), small::ORDERS);
    place.program().json(&["status"]).ends(5).says(&["store-skipped", "archive"]);
    for statement in cure.split_inclusive(';') {
        weak.run(statement);
    }
    place.good(&["agent", "--once"]);
    assert_eq!(weak.rows("orders"), small::ORDERS - small::DUE);
    assert!(place.verify_certificates() > 0);
    forget_login(&weak, &user);
}

#[test]
fn row_security_that_hides_rows() {
    let place = Workplace::new();
    let Some(database) = Database::create(Engine::Postgres, place.path()) else { return };
    let user = format!("{}_seer", database.name());
    installed_as(&database, &place, &database.url_as(&user, "unused"));
    database.run(&format!(
        "CREATE ROLE {user} LOGIN; GRANT USAGE, CREATE ON SCHEMA public TO {user};
         GRANT SELECT, INSERT, UPDATE, DELETE ON customers, orders TO {user};
         ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
         CREATE POLICY half ON orders FOR ALL TO {user} USING (order_id > 2)"
    ));
    let found = place.program().json(&["store", "check"]).ends(3).says(&["row security", "orders", "bypass"]);
    assert_eq!(found.text("result"), "refused", "{found}");
    // Rows that the login cannot see must not be taken for absent.
    let taken = place.program().json(&["backup", "run"]);
    assert_ne!(taken.code(), Some(0), "a backup without the hidden rows counts as good\n{taken}");
    let plan = place.program().json(&["plan"]);
    if plan.code() == Some(0) {
        let erased = place.program().json(&["erase", "--plan", &plan.text("hash")]);
        assert_ne!(erased.code(), Some(0), "{erased}");
        assert_ne!(erased.text("result"), "complete", "{erased}");
    }
    small::is_untouched(&database);
    database.run("ALTER TABLE orders DISABLE ROW LEVEL SECURITY");
    place.good(&["store", "check"]);
    small::goes_through(&place, &database);
    forget_login(&database, &user);
}
