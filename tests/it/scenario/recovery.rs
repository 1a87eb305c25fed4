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
    let head = state.join("operation-log-head.txt");
    let signed = fs::read_to_string(&head).unwrap();
    // It does not know what was erased since, so it can say nothing of that.
    program.json(&["verify", "erased"]).refuses(3, &["OLD_COPY"]);
    let refused = program.json(&["agent", "--once"]).refuses(3, &["old copy"]);
    assert_eq!(fs::read_to_string(&head).unwrap(), signed, "an old copy has signed its log on");
    assert!(refused.to_string().contains("OLD_COPY") && refused.to_string().contains("wangchuan recover"), "{refused}");
    // Commands that do not ask the bucket know it now as well; looks go on, and leave no entry.
    program.clone().reading("C-1\n").json(&["request", "new", "-", "--yes"]).refuses(3, &["OLD_COPY"]);
    program.json(&["hold", "place", "case-1", "--everything", "--reason", "lawsuit"]).refuses(3, &["OLD_COPY"]);
    program.json(&["certificate", "show", "latest"]).ends(0);
    program.json(&["request", "list"]).ends(0);
    program.json(&["log", "query"]).ends(0);
    assert_eq!(fs::read_to_string(&head).unwrap(), signed, "an old copy has signed its log on");
    fs::rename(&state, place.file("try/moved-away")).unwrap();
    program.json(&["recover"]).ends(0);
    program.json(&["agent", "--once"]).ends(0);
    program.json(&["hold", "place", "case-1", "--everything", "--reason", "lawsuit"]).ends(0);
    program.json(&["log", "verify"]).ends(0);
}

/// The slot tells it too, also to commands that never ask the bucket.
#[test]
fn a_state_from_before_a_change_of_keys_is_refused_and_says_what_to_do() {
    let (place, program) = finished();
    let state = place.file("try/state");
    let text = fs::read_to_string(place.file("try/wangchuan.toml")).unwrap();
    let (old, new) = ("path = \"root\"\n", "path = \"moved\"\n");
    let previous = "[root.previous]\nkind = \"file\"\npath = \"root\"\naccept_host_loss = true\n\n[backup]\n";
    place.write_private("try/wangchuan.toml", &text.replacen(old, new, 1).replacen("[backup]\n", previous, 1));
    crate::support::world::copy_folder(&state, &place.file("try/old"));
    program.json(&["key", "move", "--to", "file"]).ends(0);
    place.write_private("try/wangchuan.toml", &text.replacen(old, new, 1));
    fs::remove_dir_all(&state).unwrap();
    crate::support::world::copy_folder(&place.file("try/old"), &state);
    program.json(&["plan"]).refuses(3, &["ROLLED_BACK", "wangchuan recover"]);
    program.run(&["key", "status"]).ends(1).says(&["nothing can be opened", "wangchuan recover"]);
    program.json(&["key", "verify"]).refuses(3, &["wangchuan recover"]);
}

#[test]
fn a_lost_database_beside_a_newer_head_is_recovered_and_logs_on() {
    let (place, program) = finished();
    let state = place.file("try/state");
    // Entries behind the last sealed record.
    for _ in 0..3 {
        program.json(&["log", "query"]).ends(0);
    }
    let head = fs::read_to_string(state.join("operation-log-head.txt")).unwrap();
    fs::create_dir(place.file("try/moved-away")).unwrap();
    for file in ["wangchuan.db", "wangchuan.db-wal", "wangchuan.db-shm"] {
        let _ = fs::rename(state.join(file), place.file("try/moved-away").join(file));
    }
    assert!(!state.join("wangchuan.db").exists());
    // A head on another volume is nothing that a recovery takes away; one whose volume is away is not overlooked either.
    let (link, volume) = (state.join("operation-log-head.txt"), place.file("try/volume"));
    fs::rename(&link, &volume).unwrap();
    std::os::unix::fs::symlink(&volume, &link).unwrap();
    program.json(&["recover"]).refuses(3, &["is a link", "remove the link and recover"]);
    fs::rename(&volume, place.file("try/unmounted")).unwrap();
    program.json(&["recover"]).refuses(3, &["is a link"]);
    fs::remove_file(&link).unwrap();
    fs::rename(place.file("try/unmounted"), &link).unwrap();
    let recovered = program.json(&["recover"]).ends(0);
    let kept = format!("operation-log-head.before-{}.txt", recovered.number("record"));
    assert_eq!(fs::read_to_string(state.join(kept)).unwrap(), head, "the head is kept as evidence");
    program.json(&["agent", "--once"]).ends(0);
    program.json(&["log", "verify"]).ends(0);
}
