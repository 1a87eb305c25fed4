//! The same from the command line: what `key`, `status` and `doctor` say of a key that is deleted at a date.

use serde_json::{Value, json};
use wangchuan::clock::{Clock as _, SystemClock};

use super::practice::Practice;
use crate::output::snapshot::fits_schema;
use crate::support::program::Program;
use crate::support::world::manual_clock_at;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_tells_the_date_of_a_key_and_who_called_it_off() {
    let practice = Practice::on(manual_clock_at(SystemClock.now()), "0").await;
    let program = Program::in_directory(practice.folder.path());
    program.run(&["doctor", "--confirm-clock"]);
    program.run(&["doctor"]).says(&["✓ outside key: notes: ready", "✓ outside key: findings: ready"]);
    // Somebody else wants it gone while rows rely on it.
    practice.kms.machine().administer("ScheduleKeyDeletion", 0);
    program.run(&["doctor"]).ends(5).says(&["✗ outside key: findings: somebody else has it deleted at"]);
    practice.kms.machine().administer("CancelKeyDeletion", 0);
    practice.kms.machine().administer("EnableKey", 0);
    let given = format!("p1\n{}\n", practice.kms.machine().id_of(1));
    let registered = program.clone().reading(&given).json(&["key", "register", "notes", "-"]).ends(0);
    let id = registered.text("outside_key");
    program.clone().reading("p1\n").run(&["request", "new", "-", "--yes"]).ends(0);
    program.run(&["request", "run"]).ends(0);
    let shred = program.json(&["key", "shred", "--now"]);
    fits_schema("key-shred", &shred.document());
    let waiting = shred.list("outside_keys_waiting");
    let ours = waiting.iter().find(|line| line["id"] == json!(id)).unwrap();
    assert_eq!(ours["code"], "irrevocable", "{shred}");
    let date = ours["until"].as_str().unwrap().to_owned();

    let listed = program.json(&["key", "list"]).ends(0);
    fits_schema("key-list", &listed.document());
    let line = listed.list("outside_keys").into_iter().find(|line| line["id"] == json!(id)).unwrap();
    assert_eq!((&line["state"], &line["irrevocable_at"]), (&json!("deactivated"), &json!(date)), "{line}");
    assert_eq!((&line["destroyed_at"], &line["class"]), (&Value::Null, &Value::Null), "{line}");
    program.run(&["key", "list"]).ends(0).says(&["gone at a date", &date]);
    let status = program.json(&["status"]);
    fits_schema("status", &status.document());
    assert_eq!(status.document()["doomed_outside_keys"][0]["irrevocable_at"], json!(date), "{status}");
    program
        .run(&["status"])
        .says(&[&format!("outside key notes ({id}) opens nothing and is irrevocably gone at {date}")]);
    program.run(&["key", "unregister", &id]).refuses(3, &["doomed"]);

    practice.kms.machine().administer("CancelKeyDeletion", 1);
    program.run(&["key", "shred", "--now"]);
    program.run(&["status"]).ends(5).says(&["called off the deletion of outside key notes", "called off 1 times"]);
    program.run(&["--lang", "zh", "status"]).says(&["外部密钥的删除曾被撤回"]);
    practice.kms.machine().denied = vec!["DescribeKey"];
    let refused = program.clone().reading("p2\nx\n").json(&["key", "register", "notes", "-"]);
    refused.refuses(3, &["kms:DescribeKey", "config/aws-kms-outside-policy.json"]);
}
