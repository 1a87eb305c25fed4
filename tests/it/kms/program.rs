//! The built program with its root in the service, through the days until the date.

use wangchuan::clock::{Clock as _, SystemClock};
use wangchuan::stores::Engine;

use crate::output::snapshot::fits_schema;
use crate::scenario::database::Database;
use crate::scenario::small;
use crate::scenario::workplace::Workplace;
use crate::support::announce::announce_not_run;
use crate::support::kms::{ACCESS_KEY, Kms, REGION, days, root_section};
use crate::support::program::Program;
use crate::support::world::{FILE_ROOT, manual_clock_at};

#[test]
fn the_command_line_installs_on_the_service_and_says_what_is_wrong_with_it() {
    let kms = Kms::start(manual_clock_at(SystemClock.now()));
    let (address, folder) = (kms.address(), tempfile::tempdir().unwrap());
    let program = Program::in_directory(folder.path())
        .with("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .with("AWS_SECRET_ACCESS_KEY", "secret")
        .with("AWS_EC2_METADATA_DISABLED", "true");
    program.json(&["init", "--dir", ".", "--root", "aws-kms"]).ends(2);
    let init = ["init", "--dir", ".", "--root", "aws-kms", "--kms-region", REGION, "--kms-endpoint", &address];
    program.json(&init).ends(0);
    let status = program.json(&["key", "status"]).ends(0).document();
    assert_eq!((status["claim"]["kind"].as_str(), status["claim"]["class"].as_str()), (Some("aws-kms"), Some("C")));
    program.run(&["key", "advice"]).ends(0).says(&["do not cancel one that was scheduled"]);
    kms.machine().denied = vec!["ListAliases"];
    program.json(&["key", "status"]).refuses(1, &["kms:ListAliases", "config/aws-kms-policy.json"]);
    kms.machine().denied.clear();
    let stranger = program.clone().with("AWS_ACCESS_KEY_ID", "AKIDOTHER");
    stranger.json(&["key", "status"]).refuses(1, &["access key is not known"]).never_says("AKIDOTHER");
}

/// The keys are gone from the tree, and not destroyed before their date.
fn keys_are_pending(place: &Workplace, date: &str) {
    let listed = place.program().json(&["key", "list"]).ends(0);
    fits_schema("key-list", &listed.document());
    let keys = listed.list("keys");
    let pending: Vec<_> = keys.iter().filter(|line| !line["shred_pending_until"].is_null()).collect();
    assert!(pending.iter().any(|line| line["kind"] == "buckets"), "{listed}");
    assert!(
        pending.iter().all(|line| line["shred_pending_until"] == date && line["state"] == "deactivated"),
        "{listed}"
    );
    assert!(keys.iter().all(|line| line["state"] != "destroyed"), "{listed}");
    place.program().run(&["key", "list"]).ends(0).says(&[&format!("shred-pending until {date}")]);
    let counts = place.program().json(&["key", "status"]).ends(0).document();
    let states = counts["keys"]["buckets"].as_object().unwrap();
    assert!(states.contains_key("shred-pending") && !states.contains_key("destroyed"), "{counts}");
    place.program().run(&["key", "status"]).ends(0).says(&["the root of generation 1 opens nothing", date]);
    let status = place.program().json(&["status"]).document();
    assert_eq!(status["doomed_roots"][0]["irrevocable_at"].as_str(), Some(date), "{status}");
}

fn keys_are_destroyed(program: &Program) {
    let keys = program.json(&["key", "list"]).ends(0).list("keys");
    assert!(keys.iter().any(|line| line["kind"] == "buckets" && line["state"] == "destroyed"), "{keys:?}");
    assert!(keys.iter().all(|line| line["shred_pending_until"].is_null()), "{keys:?}");
}

#[test]
fn the_program_waits_for_the_date_and_says_so() {
    let library = std::process::Command::new("faketime").args(["-f", "+0s", "true"]).output();
    if !library.is_ok_and(|output| output.status.success()) {
        return announce_not_run(
            "the program through the days of a delayed destruction (install the package faketime)",
        );
    }
    let clock = manual_clock_at(SystemClock.now());
    let kms = Kms::start(clock.clone());
    let place = Workplace::new();
    let database = Database::create(Engine::Sqlite, place.path()).unwrap();
    small::fill(&database);
    place.configure(&format!("{}{}", small::store(&database.url()), small::POLICY));
    place.reconfigure(FILE_ROOT, &root_section(&kms.address(), "root"));
    place.install();
    place.good(&["backup", "run"]);
    place.good(&["job", "run", "retention"]);
    place.good(&["backup", "run", "--full"]);
    let shred = place.program().json(&["key", "shred", "--now"]).ends(0).document();
    assert_eq!((shred["result"].as_str(), shred["code"].as_str()), (Some("partial"), Some("KEY_SHRED_PENDING")));
    assert_eq!(shred["waiting"][0]["code"], "irrevocable", "{shred}");
    let date = shred["waiting"][0]["until"].as_str().unwrap().to_owned();
    let run = shred["waiting"][0]["run"].as_str().unwrap().to_owned();
    let shown = place.program().json(&["run", "show", &run]).ends(0).document();
    assert_eq!((shown["state"].as_str(), shown["irrevocable_at"].as_str()), (Some("shred-pending"), Some(&*date)));
    place.program().run(&["run", "show", &run]).ends(0).says(&["no key that is left opens them", &date]);
    keys_are_pending(&place, &date);
    let certificate = shred["certificates"][0].as_str().unwrap().to_owned();
    place.program().run(&["certificate", "show", &certificate]).ends(0).says(&[
        "ROOT_SLOT_CLASS_C",
        "KEY_SHRED_PENDING",
        &date,
    ]);

    // Eight days later somebody has called it off once, and a week behind that it is over.
    let later = |offset: &str| {
        let program = place.program().through(&["faketime", "-m", "-f", offset]);
        program.with("FAKETIME_DONT_FAKE_MONOTONIC", "1").with("FAKETIME_DONT_RESET", "1")
    };
    clock.advance(days(6));
    kms.machine().administer("CancelKeyDeletion", 0);
    clock.advance(days(2));
    later("+8d").json(&["doctor", "--confirm-clock"]).ends(0);
    let shred = later("+8d").json(&["key", "shred", "--now"]);
    let told = later("+8d").json(&["status"]).ends(5);
    assert!(told.out.contains("destruction-called-off"), "{told}");
    // The start of the command noticed it, before its own shred could.
    assert_eq!(shred.code(), Some(4), "{shred}");
    assert_eq!(shred.list("called_off_generations"), [1], "{shred}");
    clock.advance(days(8));
    later("+16d").json(&["doctor", "--confirm-clock"]).ends(0);
    let shred = later("+16d").json(&["key", "shred", "--now"]).ends(0);
    assert_eq!(
        (shred.text("result"), shred.list("gone_generations")),
        ("complete".to_owned(), vec![1.into()]),
        "{shred}"
    );
    let shown = later("+16d").json(&["run", "show", &run]).ends(0).document();
    // The provider's date was the last one there was: the run is final as soon as the service says that the key is gone.
    assert_eq!((shown["state"].as_str(), &shown["irrevocable_at"]), (Some("final"), &serde_json::Value::Null));
    keys_are_destroyed(&later("+16d"));
    let certificate = shred.list("certificates")[0].as_str().unwrap().to_owned();
    later("+16d")
        .run(&["certificate", "show", &certificate])
        .ends(0)
        .says(&["ROOT_SLOT_CLASS_C"])
        .never_says("KEY_SHRED_PENDING");
}
