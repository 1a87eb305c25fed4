//! What the agent's tasks certify is filed behind the task that issued it, and not by the next minute's job.

use chrono::{DateTime, TimeDelta, Utc};
use wangchuan::agent::run_task;
use wangchuan::audit::circuit::{OPENS_AFTER, Position};
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::schedule::{BackupKind, Task};
use wangchuan::tasks::audit::audit_status;
use wangchuan::tasks::request::receive;
use wangchuan::tasks::status::status;

use super::delivery::{Mood, behind_a_line};
use super::tools::customers;
use crate::support::world::{World, pass_time, snapshot};

/// The longest time between the erasure's certificate and its entry in the log.
const PROMPT: TimeDelta = TimeDelta::seconds(5);

/// Somebody asks, and the agent's job carries it out.
async fn carried_out(world: &World, installation: &mut Installation, customer: usize) {
    receive(installation, &Subject::new(&customers(world)[customer])).await.unwrap();
    let done = run_task(installation, &Task::Requests).await;
    assert_eq!((done.state, done.summary.as_str()), ("done", "1 carried out"), "{done:?}");
}

/// When each certificate was issued and when its receipt came, oldest first.
async fn times(installation: &Installation) -> Vec<(DateTime<Utc>, Option<DateTime<Utc>>)> {
    let mut tx = installation.control.read().await.unwrap();
    let filed = tx.outbox(None).await.unwrap();
    let receipted = |id: &str| filed.iter().find(|row| row.certificate == id).unwrap().receipted_at;
    tx.certificates(None).await.unwrap().iter().map(|row| (row.issued_at, receipted(&row.id))).collect()
}

fn is_prompt((issued, receipted): &(DateTime<Utc>, Option<DateTime<Utc>>)) -> bool {
    receipted.is_some_and(|receipted| receipted - *issued < PROMPT)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_task_that_certifies_files_what_it_issued() {
    let world = World::standard().await;
    let mut installation = world.open().await;
    snapshot(&installation).await;
    let mut issued = 0;
    carried_out(&world, &mut installation, 0).await;
    for task in [Task::Retention { policies: Vec::new() }, Task::Shred] {
        let found = times(&installation).await;
        assert!(found.len() > issued && found.iter().all(is_prompt), "before {}: {found:?}", task.name());
        issued = found.len();
        let barrier = Task::Backup { stores: Vec::new(), kind: BackupKind::Full };
        assert_eq!(run_task(&mut installation, &barrier).await.state, "done");
        pass_time(&world, &installation, TimeDelta::hours(1)).await;
        run_task(&mut installation, &task).await;
    }
    let found = times(&installation).await;
    assert!(found.len() > issued && found.iter().all(is_prompt), "{found:?}");
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_is_no_fault_of_the_task_and_is_left_alone_as_by_the_job() {
    let (world, mut installation, _others, service, line) = behind_a_line().await;
    carried_out(&world, &mut installation, 0).await;
    assert!(times(&installation).await.iter().all(is_prompt));
    assert_eq!(line.filings(), 1);
    run_task(&mut installation, &Task::Requests).await;
    assert_eq!(line.filings(), 0, "nothing was issued");

    line.answers(503, "", "");
    for round in 1..=OPENS_AFTER as usize {
        carried_out(&world, &mut installation, round).await;
        assert_eq!(line.filings(), 1, "{round}");
        // Behind the first tries' own waits, which are some seconds long.
        pass_time(&world, &installation, TimeDelta::seconds(1)).await;
    }
    // Asked for time, it gets it.
    pass_time(&world, &installation, TimeDelta::minutes(1)).await;
    line.answers(503, "600", "");
    carried_out(&world, &mut installation, 4).await;
    assert_eq!(line.filings(), 1);
    assert!(matches!(audit_status(&installation).await.unwrap().position, Position::Open { .. }));
    carried_out(&world, &mut installation, 5).await;
    let known = audit_status(&installation).await.unwrap();
    assert_eq!((line.filings(), known.receipted, known.pending), (0, 1, 5), "nothing is sent while it is left alone");

    // What only a person mends is told of the filing, and not of the task.
    pass_time(&world, &installation, TimeDelta::minutes(11)).await;
    line.answers(401, "", "");
    carried_out(&world, &mut installation, 6).await;
    let told = status(&installation.control, &installation.config, world.clock.as_ref()).await.unwrap();
    let troubles: Vec<_> = told.overdue.iter().filter(|found| found.code == "task-failed").collect();
    assert!(troubles.len() == 1 && troubles[0].what.starts_with("outbox ended partial"), "{troubles:?}");
    line.set(Mood::default());
    pass_time(&world, &installation, TimeDelta::minutes(16)).await;
    let rest = run_task(&mut installation, &Task::Outbox).await;
    assert_eq!(rest.summary, "6 filed, 0 waiting, 0 refused", "{rest:?}");
    service.stop().await.unwrap();
    installation.close().await.unwrap();
}
