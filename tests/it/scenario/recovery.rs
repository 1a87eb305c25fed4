//! A lost host, as an administrator meets it: `recover`, `drill run --from-bucket`, and an old copy that is refused.

use std::fs;

use super::workplace::Workplace;
use crate::support::program::Program;

/// A sample shop after a whole cycle.
fn finished() -> (Workplace, Program) {
    let place = Workplace::new();
    place.program().json(&["quickstart", "--dir", "try", "--customers", "20"]).ends(0);
    let program = Program::in_directory(&place.file("try"));
    (place, program)
}

#[test]
fn a_lost_host_is_recovered_from_bucket_slot_and_configuration() {
    let (place, program) = finished();
    let certificates = program.json(&["certificate", "list"]).list("details").len();
    program.json(&["recover"]).refuses(3, &["exists already"]);
    let drilled = program.json(&["drill", "run", "--from-bucket"]).ends(0);
    assert_eq!(drilled.text("result"), "passed");
    for folder in ["state", "audit"] {
        fs::remove_dir_all(place.file("try").join(folder)).unwrap();
    }
    program.json(&["status"]).refuses(2, &["does not exist"]);
    let looked = program.json(&["recover", "--into", "look"]).ends(0);
    assert!(looked.number("snapshot_count") >= 2);
    assert!(!place.file("try/state").exists());

    let recovered = program.json(&["recover"]).ends(0);
    assert_eq!(recovered.number("certificate_sequence"), certificates as i64);
    assert_eq!(program.json(&["drill", "run"]).ends(0).text("result"), "passed");
    let status = program.json(&["key", "status"]).ends(0);
    assert!(status.document()["second_place"]["record"].as_i64() > Some(1), "{status}");
    let doctor = program.json(&["doctor"]);
    assert!(doctor.document().to_string().contains("lies in the bucket"), "{doctor}");
    program.json(&["agent", "--once"]).ends(0);
    program.json(&["log", "verify"]).ends(0);
}

#[test]
fn an_old_copy_of_the_state_is_refused_and_says_what_to_do() {
    let (place, program) = finished();
    let state = place.file("try/state");
    crate::support::world::copy_folder(&state, &place.file("try/old"));
    program.json(&["backup", "run"]).ends(0);
    fs::remove_dir_all(&state).unwrap();
    crate::support::world::copy_folder(&place.file("try/old"), &state);
    let refused = program.json(&["agent", "--once"]).refuses(3, &["old copy"]);
    assert!(refused.to_string().contains("OLD_COPY") && refused.to_string().contains("wangchuan recover"), "{refused}");
    program.json(&["certificate", "show", "latest"]).ends(0);
    fs::rename(&state, place.file("try/moved-away")).unwrap();
    program.json(&["recover"]).ends(0);
    program.json(&["agent", "--once"]).ends(0);
}
