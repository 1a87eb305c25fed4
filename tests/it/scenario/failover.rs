//! Fail-over of the control database to a streaming replica: one that has everything goes on; one that lost the last commits is
//! refused, and the state comes back from the bucket. It starts two replicas of the private server.

use wangchuan::stores::Engine;

use super::database::Database;
use super::small;
use super::workplace::Workplace;
use crate::support::announce::{POSTGRES, switched_on};
use crate::support::replica::Replica;

#[test]
fn a_replica_with_everything_goes_on_and_one_that_lost_commits_is_refused_and_recovered() {
    let Some(primary) = switched_on(POSTGRES) else { return };
    let place = Workplace::new();
    let control = Database::create(Engine::Postgres, place.path()).unwrap();
    let shop = Database::create(Engine::Sqlite, place.path()).unwrap();
    small::fill(&shop);
    place.configure(&format!("{}{}", small::store(&shop.url()), small::POLICY));
    let address = format!("{}?fsync=off", control.url());
    place.reconfigure("sqlite://state/wangchuan.db", &address);
    place.install();
    small::goes_through(&place, &shop);

    let (whole, torn) = (Replica::of(&primary), Replica::of(&primary));
    let name = control.name();
    let newest = "SELECT MAX(number) FROM snapshot";
    // As long as it is one, a replica is refused by name.
    let at = |replica: &Replica, database: &str| {
        format!("postgres://postgres@127.0.0.1:{}/{database}?fsync=off", replica.port)
    };
    place.reconfigure(&address, &at(&whole, name));
    place.program().json(&["status"]).refuses(1, &["a standby that only reads"]);
    place.reconfigure(&at(&whole, name), &address);

    torn.says(name, newest, &control.number(newest).to_string());
    torn.cut_off();
    place.good(&["backup", "run"]);
    let seen = control.number(newest).to_string();
    whole.says(name, newest, &seen);
    assert_ne!(torn.asked(name, newest), seen);
    // The primary is gone for good; what had all commits goes on.
    whole.promote();
    torn.promote();
    place.reconfigure(&address, &at(&whole, name));
    place.good(&["agent", "--once"]);
    place.good(&["log", "verify"]);

    // The other one is an old copy.
    place.reconfigure(&at(&whole, name), &at(&torn, name));
    let refused = place.program().json(&["agent", "--once"]).refuses(3, &["old copy"]);
    assert!(refused.to_string().contains("OLD_COPY") && refused.to_string().contains("wangchuan recover"), "{refused}");
    torn.asked("postgres", "CREATE DATABASE recovered");
    place.reconfigure(&at(&torn, name), &at(&torn, "recovered"));
    let recovered = place.good(&["recover"]);
    assert!(recovered.text("database").ends_with("/recovered"), "{recovered}");
    place.good(&["agent", "--once"]);
    assert_eq!(place.good(&["drill", "run"]).text("result"), "passed");
    assert!(place.verify_certificates() > 0);
}
