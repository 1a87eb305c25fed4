//! What certificates tell beside the rows: who agreed, by which policy, of how many people, why.

use chrono::TimeDelta;
use serde_json::Value;
use wangchuan::certify::codes::TriggerKind;
use wangchuan::certify::dsse::Envelope;
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::tasks::approval::approve;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::erasure::{execute, plan_retention};
use wangchuan::tasks::outbox::file_due;
use wangchuan::tasks::request::{plan_request, receive_for};
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::status::status;

use crate::support::program::Program;
use crate::support::world::{World, forget, pass_time, refusal, snapshot};

/// The predicate of the newest certificate.
async fn newest(installation: &Installation) -> Value {
    let row = installation.control.read().await.unwrap().certificates(None).await.unwrap().pop().unwrap();
    let statement: Value = serde_json::from_slice(Envelope::parse(&row.envelope).unwrap().payload()).unwrap();
    statement["predicate"].clone()
}

#[tokio::test]
async fn who_agreed_is_told_by_pseudonym_and_what_the_plan_knew_with_it() {
    let world = World::standard().await;
    world.edit_config("action = \"delete\"", "action = \"delete\"\napproval = \"two\"");
    world.edit_config("name = \"cycle-test\"", "name = \"cycle-test\"\nenvironment = \"test\"");
    let installation = world.open().await;
    snapshot(&installation).await;
    let plan = plan_retention(&installation).await.unwrap();
    for name in ["ann", "bob"] {
        approve(&installation, &plan.row.hash, name).await.unwrap();
    }
    execute(&installation, &plan.row).await.unwrap();
    certify_due(&installation).await.unwrap();
    let said = newest(&installation).await;
    let given = said["approvals"].as_array().unwrap();
    let people: Vec<&str> = given.iter().map(|approval| approval["actorRef"].as_str().unwrap()).collect();
    assert!(people.len() == 2 && people[0] != people[1], "{given:?}");
    assert!(people.iter().all(|person| person.starts_with("hmac-sha256:certificate:")), "{given:?}");
    assert!(!said.to_string().contains("\"ann\""));
    assert_eq!(said["issuer"]["environment"], "test");
    let people = said["scope"]["subjectsCount"].as_u64().unwrap();
    assert!(1 < people && people <= world.shop.rows_of("customers").len() as u64, "{people}");
    let kinds = said["scope"]["dataCategories"].as_array().unwrap();
    assert!(["address", "id_card"].iter().all(|kind| kinds.iter().any(|known| known == kind)), "{kinds:?}");
    assert!(said["policy"]["id"].as_str().unwrap().contains("completed-orders"), "{}", said["policy"]);
    assert_eq!(said["policy"]["digest"]["sha256"].as_str().unwrap().len(), 64);
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_customer_s_data_went_stands_in_the_certificate() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let leaver = Subject::new(&world.shop.picks.leaver);
    let refused = refusal(receive_for(&installation, &leaver, TriggerKind::RetentionExpiry).await);
    assert!(refused.contains("retention-expiry"), "{refused}");
    let received = receive_for(&installation, &leaver, TriggerKind::ConsentWithdrawn).await.unwrap();
    let plan = plan_request(&installation, received.request.number).await.unwrap();
    execute(&installation, &plan.row).await.unwrap();
    certify_due(&installation).await.unwrap();
    let said = newest(&installation).await;
    assert_eq!((&said["trigger"]["kind"], &said["approvals"]), (&"consent-withdrawn".into(), &Value::Null));
    assert_eq!(said["scope"]["subjectsCount"], 1);
    installation.close().await.unwrap();

    let program = Program::in_directory(world.folder.path());
    let keeper = program.clone().reading(&world.shop.picks.keeper);
    keeper.json(&["request", "new", "-", "--reason", "service-end", "--yes"]).ends(0);
    assert_eq!(program.json(&["request", "show", "2"]).ends(0).text("reason"), "service-end");
    keeper.run(&["request", "new", "-", "--reason", "hold-release", "--yes"]).ends(2);

    // Asked again, open and while it waits: the reason that it has stays, and that another one was given is said and logged.
    let another = ["request", "new", "-", "--reason", "contract-end", "--yes"];
    let kept = ["keeps its reason `service-end`", "`contract-end` was not taken"];
    let again = || program.json(&["log", "query", "--operation", "request.again"]).ends(0).list("entries");
    let given = |entry: &Value| entry["record"]["unmapped"]["references"]["reason"].as_str().unwrap().to_owned();
    keeper.run(&another).ends(0).says(&kept);
    keeper.run(&["request", "new", "-", "--reason", "service-end", "--yes"]).ends(0).never_says("keeps its reason");
    assert_eq!(again().iter().map(given).collect::<Vec<_>>(), ["contract-end"]);
    world.run_sql_in("state/control.db", "UPDATE request SET state = 'waiting' WHERE number = 2").await;
    keeper.run(&another).ends(0).says(&kept).says(&["was asked again"]);
    assert_eq!(program.json(&["request", "show", "2"]).ends(0).text("reason"), "service-end");
    assert_eq!(again().iter().map(given).collect::<Vec<_>>(), ["contract-end", "contract-end"]);
}

/// The codes of what is not filed, of one certificate or of all; how much of a request's time is over stands behind the code.
async fn codes(world: &World, installation: &Installation, certificate: &str) -> Vec<&'static str> {
    let found = status(&installation.control, &installation.config, &*world.clock).await.unwrap();
    let about = found.overdue.into_iter().filter(|item| item.what.contains(certificate));
    about.map(|item| item.code).filter(|code| code.starts_with("filing-") || code.starts_with("certificate-")).collect()
}

#[tokio::test]
async fn status_names_certificates_that_wait_too_long_or_are_refused() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let customer = &world.shop.picks.leaver;
    forget(&installation, customer).await;
    let issued = certify_due(&installation).await.unwrap().remove(0);
    let codes = async || codes(&world, &installation, &issued).await;
    let nothing: [&str; 0] = [];
    world.clock.advance(TimeDelta::minutes(60));
    assert_eq!(codes().await, nothing);
    world.clock.advance(TimeDelta::minutes(1));
    assert_eq!(codes().await, ["filing-late"]);
    world.clock.advance(TimeDelta::hours(24));
    assert_eq!(codes().await, ["filing-overdue"]);

    // The request has 30 days.
    world.clock.advance(TimeDelta::days(14) - TimeDelta::hours(2));
    assert_eq!(codes().await, ["filing-overdue"]);
    world.clock.advance(TimeDelta::hours(1));
    assert_eq!(codes().await, ["filing-overdue", "filing-due-half"]);
    let found = status(&installation.control, &installation.config, &*world.clock).await.unwrap();
    let half = found.overdue.iter().find(|item| item.code == "filing-due-half").unwrap();
    let due = installation.control.read().await.unwrap().request(1).await.unwrap().unwrap().due_at;
    assert_eq!(half.since, Some(due));
    assert!(half.what.contains("half of the time for request 1"), "{}", half.what);
    world.clock.advance(TimeDelta::days(12) - TimeDelta::minutes(2));
    assert_eq!(codes().await, ["filing-overdue", "filing-due-half"]);
    world.clock.advance(TimeDelta::minutes(2));
    assert_eq!(codes().await, ["filing-overdue", "filing-due-soon"]);

    world.run_sql_in("state/control.db", "UPDATE outbox SET state = 'quarantined', problem = 'no'").await;
    assert_eq!(codes().await, ["certificate-quarantined", "filing-due-soon"], "a refused one is not filed either");
    world.run_sql_in("state/control.db", "UPDATE outbox SET state = 'pending'").await;
    assert_eq!(file_due(&installation, true).await.unwrap().receipted.len(), 1);
    assert_eq!(codes().await, nothing);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_has_just_been_issued_is_filed_by_itself_however_late_its_request_is() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let leaver = &world.shop.picks.leaver;
    receive_for(&installation, &Subject::new(leaver), TriggerKind::SubjectRequest).await.unwrap();
    pass_time(&world, &installation, TimeDelta::days(28)).await;
    forget(&installation, leaver).await;
    let issued = certify_due(&installation).await.unwrap().remove(0);
    let nothing: [&str; 0] = [];
    assert_eq!(codes(&world, &installation, &issued).await, nothing);
    world.clock.advance(TimeDelta::minutes(6));
    assert_eq!(codes(&world, &installation, &issued).await, ["filing-due-soon"]);
    file_due(&installation, true).await.unwrap();

    // One that replaces it behind the date answers nobody any more, and is late all the same.
    snapshot(&installation).await;
    pass_time(&world, &installation, TimeDelta::days(5)).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    let replaced = certify_due(&installation).await.unwrap().remove(0);
    world.clock.advance(TimeDelta::hours(2));
    assert_eq!(codes(&world, &installation, &replaced).await, ["filing-late"]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn what_nobody_asked_for_has_no_date_and_only_its_age_counts() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let plan = plan_retention(&installation).await.unwrap();
    execute(&installation, &plan.row).await.unwrap();
    let issued = certify_due(&installation).await.unwrap().remove(0);
    world.clock.advance(TimeDelta::days(40));
    assert_eq!(codes(&world, &installation, &issued).await, ["filing-overdue"]);
    installation.close().await.unwrap();
}
