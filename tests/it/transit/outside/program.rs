//! The same from the command line: ids and names never in it, what it prints, and what `doctor` and `status` say.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::clinic::{Clinic, key_of};
use crate::output::snapshot::fits_schema;
use crate::support::program::{Outcome, Program};

/// The commands run at the host's own time, so the records of the test are about now.
async fn ready() -> Option<(Clinic, Program)> {
    let clinic = Clinic::open_its_doors("0").await?;
    let program = Program::in_directory(clinic.folder.path());
    program.run(&["doctor", "--confirm-clock"]).ends(0);
    Some((clinic, program))
}

fn outside(listed: &Outcome) -> BTreeMap<String, Value> {
    let lines = listed.list("outside_keys");
    lines.into_iter().map(|line| (line["name"].as_str().unwrap().to_owned(), line)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_registered_listed_and_destroyed_from_the_command_line() {
    let Some((clinic, program)) = ready().await else { return };
    let given = program.clone().reading(&format!("p1\n{}\n", key_of("p1")));
    let registered = given.json(&["key", "register", "notes", "-"]).ends(0);
    fits_schema("key-register", &registered.document());
    let id = registered.text("outside_key");
    assert!(!registered.document()["may_have_left"].as_bool().unwrap());
    let other = program.clone().reading(&format!("p2\n{}\n", key_of("p2"))).json(&["key", "register", "notes", "-"]);
    let other = other.ends(0).text("outside_key");
    let wrong = program.clone().reading("p1\nno-such-key\n").json(&["key", "register", "notes", "-"]);
    wrong.refuses(3, &["no such key"]).never_says("no-such-key");
    program.run(&["key", "register", "notes"]).refuses(2, &["not a terminal"]);

    let nothing = program.json(&["key", "shred"]).ends(0);
    fits_schema("key-shred", &nothing.document());
    let listed = program.json(&["key", "list"]).ends(0);
    fits_schema("key-list", &listed.document());
    listed.clone().never_says("p1").never_says("note-of");
    let lines = outside(&listed);
    assert_eq!(lines["findings"]["state"], "active");
    assert_eq!(lines["findings"]["policy"], "visited 2024Q1");
    assert_eq!(lines["findings"]["waiting"]["code"], "rows-rely");
    program.run(&["key", "list"]).ends(0).says(&["findings", "in use", &id]);

    program.clone().reading("p1\n").run(&["request", "new", "-", "--yes"]).ends(0);
    program.run(&["request", "run"]).ends(0);
    let shred = program.json(&["key", "shred", "--now"]).ends(0);
    assert_eq!(shred.list("outside_keys_destroyed"), [json!(id)]);
    assert!(!shred.list("certificates").is_empty());
    let listed = program.json(&["key", "list"]).ends(0);
    fits_schema("key-list", &listed.document());
    let destroyed = listed.list("outside_keys").into_iter().find(|line| line["id"] == json!(id)).unwrap();
    assert_eq!((&destroyed["state"], &destroyed["class"]), (&json!("destroyed"), &json!("B")));
    let status = program.json(&["key", "status"]).ends(0);
    fits_schema("key-status", &status.document());
    assert_eq!(status.document()["outside_keys"], json!({"active": 2, "destroyed": 1}));
    assert!(clinic.fate(&key_of("p1")).await.is_null());

    let shown = program.run(&["certificate", "show", "latest"]).ends(0);
    shown.says(&["outside key notes (transit, class B)", "OUTSIDE_KEY_DECLARED"]).never_says("note-of");
    let gone = program.json(&["key", "unregister", &other]).ends(0);
    fits_schema("key-unregister", &gone.document());
    program.run(&["key", "unregister", &other]).refuses(2, &["there is no outside key"]);
    program.run(&["--lang", "zh", "key", "list"]).ends(0).says(&["外部密钥"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_tells_missing_rights_absent_keys_and_a_service_that_is_away() {
    let Some((mut clinic, program)) = ready().await else { return };
    program.run(&["doctor"]).says(&["✓ outside key: notes: ready", "✓ outside key: findings: ready"]);
    let all = json!({"policy": "path \"*\" {\n capabilities = [\"read\", \"delete\", \"update\"]\n}"});
    clinic.bao.good(Method::PUT, "sys/policies/acl/fields", all).await;
    program.run(&["doctor"]).ends(5).says(&["may update fields/decrypt/KEY", "config/openbao-outside-policy.hcl"]);
    let none = json!({"policy": "path \"sys/capabilities-self\" {\n capabilities = [\"update\"]\n}\npath \"auth/token/lookup-self\" {\n capabilities = [\"read\"]\n}"});
    clinic.bao.good(Method::PUT, "sys/policies/acl/fields", none).await;
    program.run(&["doctor"]).ends(5).says(&["may not delete fields/keys/KEY"]);
    clinic.bao.good(Method::PUT, "sys/policies/acl/fields", json!({"policy": super::clinic::POLICY})).await;
    clinic.edit_config("key = \"findings-2024Q1\"", "key = \"findings-2024Q9\"");
    program.run(&["doctor"]).ends(5).says(&["findings: the key service has no such key"]);
    program.run(&["key", "shred"]).ends(0).says(&["the key service has no such key"]);
    clinic.bao.stop();
    program.run(&["doctor"]).ends(5).says(&["✗ outside key: notes"]);
}
