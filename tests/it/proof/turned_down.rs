//! Requests of which nothing is carried out: each ends with one certificate that says why, wherever the process was killed.

use serde_json::Value;

use super::media::statement;
use crate::scenario::small;
use crate::scenario::workplace::Workplace;
use crate::support::control_database::{ControlDatabase, server};
use crate::support::program::Outcome;

const CRASH_AT: &str = "WANGCHUAN_CRASH_AT";

/// Behind the decision, around the state in the second place, behind the certificate.
const ENDING: [&str; 6] = [
    "request.cancelled",
    "certificate.reserved",
    "state.announced",
    "state.stored",
    "state.noted",
    "request.certified",
];

fn ask(place: &Workplace, id: &str) -> i64 {
    let asked = place.program().reading(&format!("{id}\n")).json(&["request", "new", "-", "--yes"]).ends(0);
    asked.document()["request"].as_i64().unwrap()
}

fn shown(place: &Workplace, number: i64) -> Outcome {
    place.good(&["request", "show", &number.to_string()])
}

fn about(place: &Workplace, id: &str) -> Value {
    let found = place.program().reading(&format!("{id}\n")).json(&["certificate", "about", "-"]).ends(0);
    found.list("requests").last().unwrap().clone()
}

/// What the newest certificate of a request says, by whichever way one asks.
#[track_caller]
fn told(place: &Workplace, number: i64, id: &str) -> Value {
    let newest = shown(place, number).list("certificates").last().unwrap().as_str().unwrap().to_owned();
    assert_eq!(about(place, id)["certificate"], newest.as_str());
    let traced = place.good(&["certificate", "trace", &newest]).document();
    assert_eq!(traced["request_details"]["request"], number, "{traced:#}");
    let signed = statement(place, &newest);
    assert_eq!(signed["predicate"]["trigger"]["requestRef"], format!("request-{number}"), "{signed:#}");
    assert!(!signed.to_string().contains(id));
    signed["predicate"].clone()
}

fn killed_anywhere(control: Option<&ControlDatabase>) {
    let place = installed(control);
    for (at, point) in ENDING.into_iter().enumerate() {
        let id = format!("nobody-{at}");
        let number = ask(&place, &id);
        let cancel = ["request", "cancel", &number.to_string(), "--reason", "not-identified"];
        let killed = place.program().with(CRASH_AT, point).json(&cancel);
        assert!(killed.was_killed(), "{point}\n{killed}");
        // Said again it is refused; the next pass goes on, the one behind it has nothing to do.
        place.program().json(&cancel).ends(3);
        place.good(&["job", "run", "requests"]);
        place.good(&["job", "run", "requests"]);
        let request = shown(&place, number);
        assert_eq!(request.list("certificates").len(), 1, "{point}: {request}");
        assert_eq!((request.text("state"), request.text("refusal")), ("cancelled".into(), "not-identified".into()));
        let said = told(&place, number, &id);
        assert_eq!((said["result"].as_str(), &said["refusal"]["waits"]), (Some("refused"), &false.into()), "{said:#}");
        assert_eq!(said["refusal"]["reasons"], serde_json::json!(["not-identified"]), "{said:#}");
        assert!(said["refusal"]["decidedBy"].as_str().unwrap().starts_with("hmac-sha256:"), "{said:#}");
        assert_eq!(said["scope"]["subjectRefs"].as_array().unwrap().len(), 1, "{said:#}");
    }
    // Filed and receipted like every other, and the next number is the next.
    place.good(&["job", "run", "outbox"]);
    assert_eq!(place.verify_certificates(), ENDING.len());
    let rolled = place.good(&["job", "run", "roll-up"]);
    assert_eq!(rolled.text("result"), "complete", "{rolled}");
    assert_eq!(place.good(&["audit", "verify"]).text("result"), "valid");
}

fn installed(control: Option<&ControlDatabase>) -> Workplace {
    let (place, _) = small::prepared();
    if let Some(control) = control {
        place.reconfigure("state = \"sqlite://state/wangchuan.db\"", &format!("state = \"{}\"", control.url()));
    }
    place.install();
    place.good(&["backup", "run"]);
    place
}

#[test]
fn a_request_that_is_turned_down_is_certified_once_wherever_the_process_was_killed() {
    killed_anywhere(None);
}

#[test]
fn the_same_with_the_control_database_on_postgresql() {
    let Some(server) = server("requests that are turned down") else { return };
    killed_anywhere(Some(&ControlDatabase::create(&server)));
}

#[test]
fn a_request_whose_rows_are_all_held_is_refused_until_it_goes_or_is_withdrawn() {
    let place = installed(None);
    for (hold, id) in [("case-1", "c-1001"), ("case-2", "c-1002")] {
        let subject = ["hold", "place", hold, "--subject", "-", "--reason", "case 12"];
        place.program().reading(&format!("{id}\n")).json(&subject).ends(0);
    }
    let (goes, withdrawn) = (ask(&place, "c-1001"), ask(&place, "c-1002"));
    place.good(&["request", "run"]);
    for (number, id) in [(goes, "c-1001"), (withdrawn, "c-1002")] {
        assert_eq!(shown(&place, number).text("state"), "waiting");
        let said = told(&place, number, id);
        assert_eq!((said["result"].as_str(), &said["refusal"]["waits"]), (Some("refused"), &true.into()), "{said:#}");
        assert_eq!(said["refusal"]["reasons"], serde_json::json!(["hold"]), "{said:#}");
        assert!(said["retained"].as_array().unwrap().iter().all(|kept| kept["reasonCode"] == "litigation"), "{said:#}");
        assert!(said["refusal"]["decidedBy"].is_null() && !said.to_string().contains("case"), "{said:#}");
    }
    // Neither the shred nor the days behind it change anything of that.
    place.good(&["backup", "run"]);
    place.good(&["job", "run", "shred"]);
    assert_eq!(place.certificates().len(), 2);

    place.good(&["hold", "release", "case-1"]);
    place.good(&["job", "run", "requests"]);
    let gone = shown(&place, goes);
    assert_eq!(gone.text("state"), "done", "{gone}");
    assert_eq!(told(&place, goes, "c-1001")["result"], "partial");

    let ended = place.good(&["request", "cancel", &withdrawn.to_string()]);
    assert_eq!(ended.list("certificates").len(), 1, "{ended}");
    let before = shown(&place, withdrawn).list("certificates")[0].clone();
    let said = told(&place, withdrawn, "c-1002");
    assert_eq!(said["refusal"]["reasons"], serde_json::json!(["withdrawn"]), "{said:#}");
    assert_eq!(said["supersedes"]["certificateId"], before, "{said:#}");
    place.good(&["hold", "release", "case-2"]);
    place.good(&["job", "run", "requests"]);
    assert_eq!(shown(&place, withdrawn).text("state"), "partly-kept");
    place.good(&["job", "run", "shred"]);
    let numbers = place.certificates().len();
    place.good(&["job", "run", "shred"]);
    place.good(&["job", "run", "outbox"]);
    assert_eq!(place.verify_certificates(), numbers, "nothing is said twice");
    let words = place.program().run(&["certificate", "show", before.as_str().unwrap(), "--lang", "en"]).ends(0);
    assert!(words.out.contains("refused: a legal hold covers it (hold)"), "{words}");
    assert!(!words.out.contains("residual date"), "nothing was to go\n{words}");
}
