//! Plans that somebody must agree to, and tables that nobody registered.

use super::ground::{Place, counts, governed, hold_row, refusal};
use wangchuan::agent::run_task;
use wangchuan::control::PlanRow;
use wangchuan::erase::planner::{PlanUse, make_plan};
use wangchuan::erase::survey::Target;
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::schedule::Task;
use wangchuan::tasks::approval::{agreement, approve};
use wangchuan::tasks::erasure::{execute, plan_retention};
use wangchuan::tasks::request::{place_hold, receive};

const NOTES: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, person TEXT, ended TEXT);
    INSERT INTO notes VALUES (1, 'a', '2001-01-01'), (2, 'b', '2001-01-01'), (3, 'c', '2001-01-01'), (4, 'd', NULL);";

const RETENTION: Task = Task::Retention { policies: Vec::new() };

async fn notes(approval: &str) -> Place {
    let place = Place::make(NOTES, &governed("notes", "subject = \"person\"")).await;
    place.edit_config("action = \"delete\"", &format!("action = \"delete\"\napproval = \"{approval}\""));
    place
}

async fn newest(installation: &Installation, kind: &str) -> PlanRow {
    installation.control.read().await.unwrap().newest_plan(kind, installation.clock.now()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_plan_runs_when_two_different_operators_agreed_to_this_very_plan() {
    let place = notes("two").await;
    let mut installation = place.open().await;
    let done = run_task(&mut installation, &RETENTION).await;
    assert_eq!(done.state, "refused");
    assert!(done.summary.contains("needs the approval of 2 different operators, 2 to come"), "{}", done.summary);
    let plan = newest(&installation, "retention").await;
    approve(&installation, &plan.hash, "ann").await.unwrap();
    assert!(refusal(approve(&installation, &plan.hash, "ann").await).contains("ann approved plan"));
    // The job neither replaces what somebody looks at, nor carries it out with one voice.
    let done = run_task(&mut installation, &RETENTION).await;
    assert!(done.summary.contains("1 to come"), "{}", done.summary);
    assert_eq!(newest(&installation, "retention").await.id, plan.id);
    place.sql("INSERT INTO notes VALUES (5, 'e', '2001-01-01')").await;
    let (_, agreement) = approve(&installation, &plan.hash, "bob").await.unwrap();
    assert!(agreement.is_reached());
    assert_eq!(run_task(&mut installation, &RETENTION).await.summary, "3 due, 3 erased, 0 kept, 0 failed");
    // The row that came later is of another plan, which needs its own approval.
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "4,5");
    assert_eq!(run_task(&mut installation, &RETENTION).await.state, "refused");
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "4,5");
    installation.close().await.unwrap();
}

/// A policy that wants nobody's agreement does not make a declared class less strict; a kind alone asks for nobody.
#[tokio::test]
async fn a_field_that_is_declared_confidential_wants_two_operators() {
    let place = notes("none").await;
    place.edit_config("subject = \"person\"", "subject = \"person\"\nfields.person = { kind = \"bank_card\" }");
    let installation = place.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    assert_eq!(agreement(&installation, &plan.row, &plan.body).await.unwrap().needed, 0);
    installation.close().await.unwrap();

    place.edit_config("kind = \"bank_card\" }", "kind = \"name\", level = \"confidential\" }");
    let mut installation = place.open().await;
    let done = run_task(&mut installation, &RETENTION).await;
    assert_eq!(done.state, "refused");
    assert!(done.summary.contains("the class of notes.person wants it"), "{}", done.summary);
    let plan = newest(&installation, "retention").await;
    for operator in ["ann", "bob"] {
        assert_eq!(place.ask("SELECT count(*) FROM notes").await, "4");
        approve(&installation, &plan.hash, operator).await.unwrap();
    }
    assert_eq!(run_task(&mut installation, &RETENTION).await.summary, "3 due, 3 erased, 0 kept, 0 failed");
    // A customer's request takes rows with the same field.
    receive(&installation, &Subject::new("d")).await.unwrap();
    let waiting = run_task(&mut installation, &Task::Requests).await;
    assert!(waiting.summary.contains("approval"), "{}", waiting.summary);
    assert_eq!(place.ask("SELECT count(*) FROM notes").await, "1");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn nobody_agrees_twice_by_writing_a_name_in_another_way() {
    let place = notes("two").await;
    let installation = place.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    let (_, first) = approve(&installation, &plan.row.hash, " Ann ").await.unwrap();
    assert_eq!(first.given, ["ann"]);
    for same in ["ann", "ANN", "ann\t"] {
        assert!(refusal(approve(&installation, &plan.row.hash, same).await).contains("ann approved plan"), "{same}");
    }
    for unusual in ["ａｎｎ", "a\u{200b}nn", "ann\u{feff}", "a nn", "аnn", "ann\u{301}", "李\u{fe00}", ""] {
        assert!(refusal(approve(&installation, &plan.row.hash, unusual).await).contains("the name"), "{unusual:?}");
    }
    // What an earlier version stored counts in its one form too.
    place.sql_in("state/control.db", "UPDATE approval SET operator = 'Ann'").await;
    assert!(refusal(approve(&installation, &plan.row.hash, "ann").await).contains("ann approved plan"));
    place.sql_in("state/control.db", "INSERT INTO approval SELECT plan, 'ann ', at FROM approval").await;
    assert!(refusal(execute(&installation, &plan.row).await).contains("1 to come"));
    let (_, both) = approve(&installation, &plan.row.hash, "李雷").await.unwrap();
    assert_eq!(both.given, ["ann", "李雷"]);
    assert_eq!(counts(&execute(&installation, &plan.row).await.unwrap()), [3, 3, 0, 0, 0]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn what_is_only_looked_at_can_never_be_carried_out() {
    let place = notes("none").await;
    let installation = place.open().await;
    let look = make_plan(&installation.ground().unwrap(), &Target::Retention, PlanUse::Look).await.unwrap();
    assert_eq!(look.row.state, "void");
    assert!(refusal(execute(&installation, &look.row).await).contains("is void already"));
    assert_eq!(place.ask("SELECT count(*) FROM notes").await, "4");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn what_changed_since_voids_an_approval() {
    let place = notes("one").await;
    let installation = place.open().await;
    let hold = hold_row("case-1", installation.clock.now());
    place_hold(&installation, &hold, Some(&Subject::new("a"))).await.unwrap();
    let plan = plan_retention(&installation).await.unwrap();
    approve(&installation, &plan.row.hash, "ann").await.unwrap();
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.release_hold("case-1", "tester", installation.clock.now()).await.unwrap());
    tx.commit().await.unwrap();
    assert!(refusal(execute(&installation, &plan.row).await).contains("a hold was released"));

    let plan = plan_retention(&installation).await.unwrap();
    assert!(!agreement(&installation, &plan.row, &plan.body).await.unwrap().is_reached());
    approve(&installation, &plan.row.hash, "ann").await.unwrap();
    installation.close().await.unwrap();
    place.edit_config("1 year", "2 years");
    let mut installation = place.open().await;
    assert!(
        refusal(approve(&installation, &plan.row.hash, "bob").await).contains("the policies or the registry changed")
    );
    assert!(run_task(&mut installation, &RETENTION).await.summary.contains("1 to come"));
    assert_ne!(newest(&installation, "retention").await.id, plan.row.id);
    assert_eq!(place.ask("SELECT count(*) FROM notes").await, "4");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_first_backlog_beyond_the_cap_runs_when_two_agree() {
    let place = notes("none").await;
    place.edit_config("rows = 100000", "rows = 2");
    let installation = place.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    assert!(refusal(execute(&installation, &plan.row).await).contains("beyond its cap"));
    approve(&installation, &plan.row.hash, "ann").await.unwrap();
    assert!(refusal(execute(&installation, &plan.row).await).contains("1 to come"));
    approve(&installation, &plan.row.hash, "bob").await.unwrap();
    assert_eq!(counts(&execute(&installation, &plan.row).await.unwrap()), [3, 3, 0, 0, 0]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_request_waits_for_its_approval_and_a_plan_that_needs_none_takes_none() {
    let place = notes("one").await;
    let mut installation = place.open().await;
    receive(&installation, &Subject::new("d")).await.unwrap();
    assert!(run_task(&mut installation, &Task::Requests).await.summary.contains("needs the approval of 1 operator"));
    let plan = newest(&installation, "request").await;
    approve(&installation, &plan.hash, "ann").await.unwrap();
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "1,2,3");
    assert!(refusal(approve(&installation, &plan.hash, "bob").await).contains("is executed already"));
    installation.close().await.unwrap();
    let place = notes("none").await;
    let installation = place.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    assert!(refusal(approve(&installation, &plan.row.hash, "ann").await).contains("needs nobody's approval"));
    installation.close().await.unwrap();
}

const SHOP: &str = "CREATE TABLE people (person TEXT PRIMARY KEY, ended TEXT);
    CREATE TABLE cards (id INTEGER PRIMARY KEY, holder TEXT REFERENCES people (person));
    CREATE TABLE stamps (id INTEGER PRIMARY KEY, card INTEGER REFERENCES cards (id));
    CREATE TABLE mails (id INTEGER PRIMARY KEY, person TEXT);
    CREATE TABLE codes (id INTEGER PRIMARY KEY, person INTEGER);
    CREATE TABLE towns (id INTEGER PRIMARY KEY);
    CREATE VIEW everybody AS SELECT person FROM people;";

#[tokio::test]
async fn tables_that_nobody_registered_are_named_and_views_refused() {
    let place = Place::make(SHOP, &governed("people", "subject = \"person\"")).await;
    let installation = place.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    let named = |plan: &wangchuan::erase::planner::StoredPlan| {
        let tables = plan.body.unregistered.iter().map(|found| (found.table.clone(), found.refers_to.clone()));
        tables.collect::<Vec<_>>()
    };
    let some = |name: &str| Some(name.to_owned());
    let expected =
        [("cards".to_owned(), some("people")), ("mails".to_owned(), None), ("stamps".to_owned(), some("cards"))];
    assert_eq!(named(&plan), expected, "a column of another kind says nothing");
    installation.close().await.unwrap();
    place.edit_config("backup = \"none\"", "backup = \"none\"\nignored = [\"mails\", \"cards\"]");
    let installation = place.open().await;
    assert_eq!(named(&plan_retention(&installation).await.unwrap()), []);
    installation.close().await.unwrap();

    let place = Place::make(SHOP, &governed("everybody", "subject = \"person\"")).await;
    let installation = place.open().await;
    assert!(installation.skipped()[0].1.contains("it is a view"), "{:?}", installation.skipped());
    installation.close().await.unwrap();
}
