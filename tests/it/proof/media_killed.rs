//! `media record` and `media lost` killed behind each durable step: the record stands once, has one certificate, and what follows from
//! it follows once.

use super::media::{COPY, ago, lost_with, newest_snapshot, opens, record_with, shredded_with, statement};
use crate::scenario::workplace::Workplace;
use crate::support::control_database::{ControlDatabase, server};
use crate::support::program::Program;

const CRASH_AT: &str = "WANGCHUAN_CRASH_AT";

/// Behind the record, around the state in the second place, around the certificate of the medium, behind that of the run.
const RECORDING: [&str; 7] = [
    "media.recorded",
    "certificate.reserved",
    "state.announced",
    "state.stored",
    "state.noted",
    "media.certified",
    "certificate.issued",
];

/// Behind the record, in the full snapshot, the prune, the change of keys, and behind the certificate.
const LOSING: [&str; 8] = [
    "media.recorded",
    "backup.manifest-stored",
    "prune.marked",
    "rekey.committed",
    "rekey.root-destroyed",
    "prune.destroyed",
    "certificate.reserved",
    "media.certified",
];

/// The certificates of a record, and those of runs that name it.
fn certificates_of(place: &Workplace, record: &str) -> (usize, usize) {
    let shown = place.good(&["media", "show", record]);
    let own = shown.list("certificates");
    for id in &own {
        let signed = statement(place, id.as_str().unwrap());
        let about = ["medium", "lostMedium"].map(|name| &signed["predicate"][name]["recordId"]);
        assert!(about.contains(&&record.into()), "{signed}");
    }
    (own.len(), shown.list("named_by").len())
}

fn newest_record(place: &Workplace) -> String {
    place.good(&["media", "list"]).list("media").last().unwrap()["record"].as_str().unwrap().to_owned()
}

fn waits_for(place: &Workplace) -> Vec<String> {
    let waiting = place.program().json(&["status"]).list("waiting_media");
    waiting.iter().map(|medium| medium["waits_for"].as_str().unwrap().to_owned()).collect()
}

fn destroyed_media(control: Option<&ControlDatabase>) {
    let names = RECORDING.map(|point| point.replace('.', "-"));
    let copies = names.iter().map(|name| COPY.replace("\"dump\"\nkind", &format!("\"{name}\"\nkind")));
    let place = shredded_with(&copies.collect::<String>(), control);
    for (point, name) in RECORDING.into_iter().zip(&names) {
        let before = place.certificates().len();
        let (copy, now) = (format!("shop/{name}"), ago(0));
        let of_copy = ["--copy", &copy, "--when", &now];
        let medium = |program: &Program| record_with(program, name, &of_copy);
        let killed = medium(&place.program().with(CRASH_AT, point));
        assert!(killed.was_killed(), "{point}\n{killed}");
        let id = newest_record(&place);
        assert_eq!(waits_for(&place).is_empty(), certificates_of(&place, &id).0 == 1, "{point}");
        // Said again it is refused; the next pass goes on, the one behind it has nothing to do.
        medium(&place.program()).refuses(3, &["already", &id]);
        place.good(&["job", "run", "shred"]);
        place.good(&["job", "run", "shred"]);
        place.good(&["job", "run", "outbox"]);
        assert_eq!(certificates_of(&place, &id), (1, 1), "{point}");
        assert_eq!(place.certificates().len(), before + 2, "{point}");
        assert_eq!(waits_for(&place), [""; 0], "{point}");
    }
    assert_eq!(place.good(&["media", "list"]).list("media").len(), RECORDING.len());
    assert_eq!(place.verify_certificates(), place.good(&["audit", "status"]).number("receipted") as usize);
}

fn lost_media(control: Option<&ControlDatabase>) {
    let place = shredded_with(COPY, control);
    for (number, point) in LOSING.into_iter().enumerate() {
        let before = place.certificates().len();
        let (on_it, when) = (newest_snapshot(&place), ago(0));
        let asset = format!("D-{number}");
        let report = |program: &Program| lost_with(program, &asset, &when, &["--backups-of", "shop", "--shred"]);
        let killed = report(&place.program().with(CRASH_AT, point));
        assert!(killed.was_killed(), "{point}\n{killed}");
        let id = newest_record(&place);
        if number % 2 == 0 {
            let done = report(&place.program()).ends(0);
            assert_eq!(done.text("record"), id, "{done}");
        } else {
            // Nobody says it again: the agent's jobs go on.
            place.good(&["backup", "run"]);
            place.good(&["job", "run", "prune"]);
        }
        assert!(!opens(&place, &on_it, &format!("lost-{number}.db")), "{point}: it opens still");
        assert!(opens(&place, &newest_snapshot(&place), &format!("new-{number}.db")), "{point}");
        assert_eq!(certificates_of(&place, &id), (1, 0), "{point}");
        assert_eq!(place.certificates().len(), before + 1, "{point}");
        assert_eq!(waits_for(&place), [""; 0], "{point}");
    }
    place.good(&["job", "run", "outbox"]);
    assert!(place.verify_certificates() > LOSING.len());
}

#[test]
fn a_destroyed_medium_is_certified_once_wherever_the_process_was_killed() {
    destroyed_media(None);
}

#[test]
fn a_lost_medium_opens_no_more_wherever_the_process_was_killed() {
    lost_media(None);
}

#[test]
fn both_with_the_control_database_on_postgresql() {
    let Some(server) = server("media and kills") else { return };
    std::thread::scope(|scope| {
        scope.spawn(|| destroyed_media(Some(&ControlDatabase::create(&server))));
        scope.spawn(|| lost_media(Some(&ControlDatabase::create(&server))));
    });
}
