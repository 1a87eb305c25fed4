//! A restore that is killed leaves no row, and is done again from its beginning: nothing is doubled.

use wangchuan::stores::Engine;

use crate::scenario::database::Database;
use crate::scenario::small::{self, store};
use crate::scenario::workplace::Workplace;

/// How many rows of a table there are; none when it is not there.
fn rows(database: &Database, table: &str) -> i64 {
    let known = match database.engine() {
        Engine::Sqlite => format!("SELECT COUNT(*) FROM sqlite_master WHERE name = '{table}'"),
        Engine::Postgres => format!("SELECT COUNT(*) FROM pg_tables WHERE tablename = '{table}'"),
        Engine::Mysql => format!(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '{table}'"
        ),
    };
    if database.number(&known) == 0 { 0 } else { database.rows(table) }
}

fn killed(engine: Engine) {
    let place = Workplace::new();
    let Some(database) = Database::create(engine, place.path()) else { return };
    small::fill(&database);
    place.configure(&store(&database.url()));
    place.install();
    place.good(&["backup", "run"]);
    let target = Database::create(engine, place.path()).unwrap();
    let wanted = ["restore", "--store", "shop", "--to", &target.url()];
    for point in ["restore.rows-written", "restore.rows-written:2"] {
        let killed = place.program().with("WANGCHUAN_CRASH_AT", point).run(&wanted);
        assert!(killed.was_killed(), "{killed}");
        for table in ["customers", "orders"] {
            assert_eq!(rows(&target, table), 0, "{point}: {table}");
        }
    }
    place.good(&wanted);
    for table in ["customers", "orders"] {
        assert!(database.rows(table) > 0);
        assert_eq!(target.rows(table), database.rows(table), "{table}");
    }
    let again = place.program().run(&wanted);
    let said = format!("{}{}", again.out, again.err);
    assert!(again.code() == Some(3) && said.contains("never writes over"), "{again}");
}

#[test]
fn a_killed_restore_leaves_no_row_on_sqlite() {
    killed(Engine::Sqlite);
}

#[test]
fn a_killed_restore_leaves_no_row_on_postgres() {
    killed(Engine::Postgres);
}

#[test]
fn a_killed_restore_leaves_no_row_on_mariadb() {
    killed(Engine::Mysql);
}
