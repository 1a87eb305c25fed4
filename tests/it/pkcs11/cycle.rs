//! The whole cycle with the built program: backup, erasure, shred, certificate, drill. Then thieves with copies of everything on the
//! agent's host: one at the live token, who opens nothing, and one with a copy of the token too, who opens everything. That is why
//! a software token is of class D.

use std::path::Path;

use serde_json::Value;
use wangchuan::stores::Engine;

use crate::scenario::database::Database;
use crate::scenario::small;
use crate::scenario::workplace::Workplace;
use crate::support::program::{Outcome, Program};
use crate::support::softhsm::{PIN, SoftHsm};
use crate::support::world::copy_folder;

const FILE_LINES: &str = "kind = \"file\"\npath = \"root\"\naccept_host_loss = true";
struct Place {
    workplace: Workplace,
    hsm: SoftHsm,
    database: Database,
}

impl Place {
    fn installed() -> Option<Self> {
        let place = Workplace::new();
        let hsm = SoftHsm::in_folder(place.path())?;
        let database = Database::create(Engine::Sqlite, place.path()).unwrap();
        small::fill(&database);
        place.configure(&format!("{}{}", small::store(&database.url()), small::POLICY));
        place.reconfigure(FILE_LINES, &hsm.root_section("root"));
        place.write_jobs();
        let installed = Self { workplace: place, hsm, database };
        installed.good(&["init", "--dir", "."]);
        Some(installed)
    }

    fn program(&self) -> Program {
        self.hsm.program(self.workplace.path())
    }

    #[track_caller]
    fn good(&self, arguments: &[&str]) -> Outcome {
        self.program().json(arguments).ends(0)
    }

    fn snapshot(&self) -> String {
        let done = self.good(&["backup", "run"]);
        done.list("snapshots")[0]["snapshot"].as_str().unwrap().to_owned()
    }
}

/// The orders in what a program restores of a snapshot.
fn restored(program: &Program, folder: &Path, snapshot: &str, file: &str) -> i64 {
    program.json(&["restore", snapshot, "--to", &format!("sqlite://{file}")]).ends(0);
    Database::at(&folder.join(file)).rows("orders")
}

#[test]
fn a_whole_cycle_and_thieves_with_and_without_a_copy_of_the_token() {
    let Some(cycle) = Place::installed() else { return };
    let first = cycle.snapshot();
    let stolen = tempfile::tempdir().unwrap();
    copy_folder(cycle.workplace.path(), stolen.path());

    let plan = cycle.good(&["plan"]).text("hash");
    let erased = cycle.good(&["erase", "--plan", &plan]);
    assert_eq!(erased.number("erased"), small::DUE, "{erased}");
    let second = cycle.snapshot();
    let shred = cycle.good(&["key", "shred", "--now"]);
    assert!(!shred.list("shredded_runs").is_empty() && shred.number("generation") == 2, "{shred}");
    cycle.good(&["job", "run", "outbox"]);
    certified(&cycle);
    let verified = cycle.good(&["key", "verify"]);
    assert_eq!((verified.text("class").as_str(), verified.text("horizon").as_str()), ("D", "copies-of-the-token"));
    assert_eq!(verified.list("roots_gone"), [1], "{verified}");
    let here = cycle.workplace.path();
    let left = small::ORDERS - small::DUE;
    for (at, snapshot) in [&first, &second].into_iter().enumerate() {
        let drilled = cycle.good(&["drill", "run", "--snapshot", snapshot]);
        let drill = &drilled.list("drills")[0];
        assert_eq!((&drill["result"], &drill["erased_reappeared"]), (&"passed".into(), &0.into()), "{drilled}");
        assert_eq!(restored(&cycle.program(), here, snapshot, &format!("restored-{at}.db")), left);
    }

    // The whole host of before, and the live token: its key is gone.
    let thief = cycle.hsm.program(stolen.path());
    let got = ["restore", &first, "--to", "sqlite://got.db"];
    thief.json(&got).refuses(3, &["holds only generation 2"]);
    // The same with a copy of the token's folder: everything is back.
    let thief = cycle.hsm.as_in(stolen.path()).program(stolen.path());
    assert_eq!(
        restored(&thief, stolen.path(), &first, "all.db"),
        small::ORDERS,
        "the copy brings shredded orders back"
    );
    let status = cycle.good(&["key", "status"]).document();
    let claim = &status["claim"];
    assert_eq!((&claim["class"], &claim["kind"]), (&"D".into(), &"pkcs11".into()));
    assert!(claim["residuals"].as_array().unwrap().contains(&"token-copies".into()), "{claim}");
    cycle.program().run(&["key", "advice"]).ends(0).says(&["wrapped roots", "software token"]);
    assert_eq!(cycle.database.rows("orders"), left);
}

/// Every certificate is valid, the one of the shredded run names the token and what was shown, and none the PIN.
fn certified(cycle: &Place) {
    let listed = cycle.good(&["certificate", "list"]);
    let mut shown = 0;
    for row in listed.list("details") {
        let id = row["certificate"].as_str().unwrap();
        assert_eq!(cycle.good(&["certificate", "verify", id]).text("result"), "valid");
        let certificate = cycle.good(&["certificate", "show", id]);
        assert!(!certificate.out.contains(PIN));
        cycle.program().run(&["certificate", "show", id]).ends(0).says(&["root slot of class D (pkcs11)"]);
        let slot = find(&certificate.document(), "rootSlot").cloned().unwrap_or_default();
        if slot["token"].is_null() {
            continue;
        }
        shown += 1;
        let token = &slot["token"];
        assert_eq!((&slot["kind"], &slot["class"]), (&"pkcs11".into(), &"D".into()), "{certificate}");
        for mark in ["neverExtractable", "alwaysSensitive", "local"] {
            assert_eq!(token[mark], true, "{mark} {certificate}");
        }
        assert_eq!(token["objectsLeft"], 0, "{certificate}");
        assert!(slot["checks"].as_array().unwrap().contains(&"never-exportable".into()), "{certificate}");
    }
    assert!(shown > 0, "no certificate shows the token's word\n{listed}");
}

/// The first value with this name, however deep.
fn find<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(object) => object.get(name).or_else(|| object.values().find_map(|value| find(value, name))),
        Value::Array(array) => array.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}
