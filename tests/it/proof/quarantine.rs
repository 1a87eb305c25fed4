//! Certificates that a service refused, and their way back once somebody has mended why.

use chrono::TimeDelta;
use serde_json::Value;
use wangchuan::installation::Installation;
use wangchuan::tasks::certify::roll_up_due;
use wangchuan::tasks::outbox::file_due;
use wangchuan::tasks::signing_keys::rotate;

use super::filing::{company, erase};
use crate::support::program::Program;
use crate::support::world::World;

/// Certificates in a state.
async fn counted(world: &World, state: &str) -> i64 {
    world.number("state/control.db", &format!("SELECT count(*) FROM outbox WHERE state = '{state}'")).await
}

/// The id of the certificate with a number.
async fn id_of(installation: &Installation, number: i64) -> String {
    let all = installation.control.read().await.unwrap().certificates(None).await.unwrap();
    all.into_iter().find(|row| row.sequence == number).unwrap().id
}

/// What the operation log says of certificates that were sent again: outcome, certificate, and why it had been refused.
fn told(program: &Program) -> Vec<(Value, String, String)> {
    let entries = program.json(&["log", "query", "--operation", "certificate.refile"]).ends(0).list("entries");
    let text = |entry: &Value, at: &str| entry.pointer(at).and_then(Value::as_str).unwrap().to_owned();
    let tell = |entry: &Value| {
        let reason = text(entry, "/record/unmapped/references/refused_for");
        (entry["record"]["status_id"].clone(), text(entry, "/record/resources/0/uid"), reason)
    };
    entries.iter().map(tell).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_signed_with_a_key_that_the_service_was_not_told_is_filed_once_it_knows_it() {
    let (world, mut installation, mut others) = company().await;
    let elsewhere = world.path("elsewhere.db");
    let service = others.serve(&elsewhere).await;
    erase(&world, &installation, 0, 1).await;
    assert_eq!(file_due(&installation, true).await.unwrap().receipted.len(), 1);
    world.clock.advance(TimeDelta::hours(1));
    rotate(&mut installation).await.unwrap();
    erase(&world, &installation, 1, 2).await;
    let refused = file_due(&installation, true).await.unwrap();
    assert_eq!((refused.receipted.len(), refused.quarantined.len()), (0, 2), "{refused:?}");
    assert!(refused.quarantined.iter().all(|(_, why)| why.contains("status 422")), "{refused:?}");
    let by_itself = file_due(&installation, true).await.unwrap();
    assert_eq!((by_itself.receipted.len(), by_itself.quarantined.len()), (0, 0), "only a person sends it again");
    // The roll-up of that day is signed with that key, too, and says what is refused.
    assert!(roll_up_due(&installation).await.unwrap().is_some());
    assert_eq!(file_due(&installation, true).await.unwrap().quarantined.len(), 1);
    let [second, third] = [id_of(&installation, 2).await, id_of(&installation, 3).await];
    others.trusted = installation.signer.trusted().clone();
    installation.close().await.unwrap();

    let program = Program::in_directory(world.folder.path());
    let advice = "wangchuan audit flush --refused";
    program.run(&["status"]).ends(5).says(&[second.as_str(), "status 422", advice]);
    program.run(&["audit", "status"]).ends(4).says(&["3 refused", advice]);
    program.run(&["doctor"]).says(&[advice]);

    // The service does not know the key yet: they are refused again, and stay so.
    let again = program.json(&["audit", "flush", "--refused"]).ends(4);
    assert_eq!((again.text("result"), again.list("sent_again").len()), ("partial".to_owned(), 3), "{again}");
    assert_eq!((again.list("certificates").len(), again.list("problems").len()), (0, 3), "{again}");
    assert_eq!(counted(&world, "quarantined").await, 3);
    let logged = told(&program);
    assert!(logged.len() == 6 && logged.iter().all(|(.., why)| why.contains("status 422")), "{logged:?}");
    for id in [&second, &third] {
        let outcomes = logged.iter().filter(|(_, about, _)| about == id).map(|(outcome, ..)| outcome);
        assert_eq!(outcomes.collect::<Vec<_>>(), [&Value::from(99), &Value::from(1)], "intent and success of {id}");
    }
    service.stop().await.unwrap();

    let service = others.serve(&elsewhere).await;
    let one = program.json(&["audit", "flush", "--refused", "3"]).ends(0);
    assert_eq!(one.list("sent_again"), [third.as_str()], "{one}");
    assert_eq!(one.list("certificates"), [third.as_str()], "{one}");
    assert_eq!((counted(&world, "quarantined").await, counted(&world, "receipted").await), (2, 2));
    program.json(&["audit", "flush", "--refused", &third]).refuses(3, &[third.as_str(), "it is filed"]);
    program.json(&["audit", "flush", "--refused", "99"]).ends(2).says(&["there is no certificate 99"]);
    assert_eq!(counted(&world, "quarantined").await, 2, "an id that is wrong sends nothing");
    let rest = program.run(&["audit", "flush", "--refused"]).ends(0);
    rest.says(&["2 that had been refused were sent again", "2 filed, 0 not"]);
    assert_eq!(program.json(&["audit", "flush", "--refused"]).ends(0).text("result"), "nothing-found");
    assert_eq!((counted(&world, "quarantined").await, counted(&world, "receipted").await), (0, 4));
    program.json(&["audit", "verify"]).ends(0);
    program.json(&["status"]).never_says("certificate-quarantined");
    assert_eq!(told(&program).len(), 12, "those that were refused by the command are not among them");
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_logged_is_not_sent_again() {
    let (world, mut installation, others) = company().await;
    let service = others.serve(&world.path("elsewhere.db")).await;
    world.clock.advance(TimeDelta::hours(1));
    rotate(&mut installation).await.unwrap();
    erase(&world, &installation, 0, 1).await;
    assert_eq!(file_due(&installation, true).await.unwrap().quarantined.len(), 1);
    installation.close().await.unwrap();
    service.stop().await.unwrap();
    let block = "CREATE TRIGGER blocked BEFORE INSERT ON log_leaf BEGIN SELECT RAISE(ABORT, 'the log is full'); END";
    world.run_sql_in("state/control.db", block).await;
    let program = Program::in_directory(world.folder.path());
    program.json(&["audit", "flush", "--refused"]).ends(1).says(&["the operation log cannot be written"]);
    assert_eq!(counted(&world, "quarantined").await, 1);
    world.run_sql_in("state/control.db", "DROP TRIGGER blocked").await;
    // With the service away it waits for it as any other does.
    program.json(&["audit", "flush", "--refused"]).ends(4).says(&["does not answer"]);
    assert_eq!((counted(&world, "quarantined").await, counted(&world, "pending").await), (0, 1));
}
