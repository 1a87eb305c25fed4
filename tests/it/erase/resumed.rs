//! Requests that waited and go on: what they take, what they leave, and what keeps them from ending.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{Connection as _, SqliteConnection};
use wangchuan::agent::run_task;
use wangchuan::clock::SystemClock;
use wangchuan::control::RequestRow;
use wangchuan::erase::waits::Waits;
use wangchuan::installation::{Installation, Needs};
use wangchuan::plan::Subject;
use wangchuan::random::{Random, RandomUnavailable, SystemRandom};
use wangchuan::schedule::Task;
use wangchuan::tasks::erasure::execute;
use wangchuan::tasks::request::{plan_request, receive};

use super::ground::{Place, counts, forget, governed, refusal};

const TABLES: &str = "CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT);
    CREATE TABLE notes (id INTEGER PRIMARY KEY, person TEXT REFERENCES people (id), ended TEXT);
    INSERT INTO people VALUES ('a', 'Ann'), ('b', 'Bob');
    INSERT INTO notes VALUES (1, 'a', '2001-01-01'), (2, 'a', '2001-01-01'), (3, 'b', '2001-01-01');";
/// What requests wait for is over.
const PAST: &str = "UPDATE request SET waits = json_set(waits, '$.until', '2020-01-01T00:00:00Z')";
const NOTES: &str = "SELECT COALESCE(group_concat(id), '') FROM notes";
const OVER: &str = "UPDATE notes SET ended = '2002-01-01' WHERE id = 2";

/// A statute keeps note 2 of `a`, so the row of `a` is stripped, and the request waits.
async fn waiting() -> (Place, Installation, i64) {
    let people = "[[store.collection]]\ntable = \"people\"\nsubject = \"id\"\n\n";
    let place = Place::make(TABLES, &format!("{people}{}", governed("notes", "subject = \"person\""))).await;
    place.edit_config("basis = \"contract\"", "basis = \"contract\"\nstatutes = [\"cn.ecl.31\"]");
    let installation = place.open().await;
    let year: i32 = installation.clock.now().format("%Y").to_string().parse().unwrap();
    place.sql(&format!("UPDATE notes SET ended = '{}-06-01 12:00:00' WHERE id = 2", year - 1)).await;
    let run = forget(&installation, "a").await;
    assert_eq!(counts(&run), [3, 1, 1, 1, 0]);
    (place, installation, run.request.unwrap())
}

async fn request(installation: &Installation, number: i64) -> RequestRow {
    installation.control.read().await.unwrap().request(number).await.unwrap().unwrap()
}

async fn goes_on(place: &Place, installation: &mut Installation) {
    place.sql_in("state/control.db", PAST).await;
    let done = run_task(installation, &Task::Requests).await;
    assert_eq!(done.summary, "1 carried out", "{done:?}");
}

#[tokio::test]
async fn a_stripped_row_that_was_filled_again_stays() {
    for is_filled in [false, true] {
        let (place, mut installation, number) = waiting().await;
        if is_filled {
            place.sql("UPDATE people SET name = 'Ann is back' WHERE id = 'a'").await;
        }
        place.sql(OVER).await;
        goes_on(&place, &mut installation).await;
        assert_eq!(place.ask(NOTES).await, "3");
        let left = place.ask("SELECT group_concat(name) FROM people").await;
        assert_eq!(left, if is_filled { "Ann is back,Bob" } else { "Bob" });
        assert_eq!(request(&installation, number).await.state, "done");
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn under_other_names_it_waits_for_somebody_and_asked_again_it_goes() {
    let (place, installation, number) = waiting().await;
    installation.close().await.unwrap();
    place.sql(OVER).await;
    place.sql("ALTER TABLE notes RENAME TO remarks; INSERT INTO remarks VALUES (4, 'a', '2003-01-01')").await;
    place.edit_config("\"notes\"", "\"remarks\"");
    let mut installation = place.open().await;
    for _ in 0..2 {
        goes_on(&place, &mut installation).await;
        let left = request(&installation, number).await;
        assert_eq!(left.state, "waiting", "nothing of it was erased, and nobody knows what note 4 is");
        assert_eq!(place.ask("SELECT group_concat(id) FROM remarks").await, "2,3,4");
        assert!(refusal(plan_request(&installation, number).await).contains("somebody to decide"));
    }
    assert!(receive(&installation, &Subject::new("a")).await.unwrap().renewed);
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(place.ask("SELECT group_concat(id) FROM remarks").await, "3");
    assert_eq!(request(&installation, number).await.state, "done");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn who_asks_again_while_it_goes_on_is_answered_behind_it() {
    let (place, mut installation, number) = waiting().await;
    place.sql(OVER).await;
    place.sql("INSERT INTO notes VALUES (4, 'a', '2003-01-01')").await;
    place.sql_in("state/control.db", PAST).await;
    let limited = plan_request(&installation, number).await.unwrap();
    // As while it is carried out.
    let running = "UPDATE request SET state = 'running'; UPDATE plan SET state = 'executed' WHERE state = 'planned'";
    place.sql_in("state/control.db", running).await;
    assert!(receive(&installation, &Subject::new("a")).await.unwrap().renewed);
    assert_eq!(request(&installation, number).await.state, "running");
    place.sql_in("state/control.db", "UPDATE request SET state = 'received'").await;
    let again = format!("UPDATE plan SET state = 'planned' WHERE id = '{}'", limited.row.id);
    place.sql_in("state/control.db", &again).await;
    execute(&installation, &limited.row).await.unwrap();
    assert_eq!(place.ask(NOTES).await, "3,4", "the run takes what it was planned for");
    let open = request(&installation, number).await;
    assert_eq!((open.state.as_str(), open.waits.as_deref(), open.closed_at), ("received", None, None));
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(place.ask(NOTES).await, "3");
    assert_eq!(request(&installation, number).await.state, "done");
    installation.close().await.unwrap();
}

/// Randomness that, the first time it is used once it is armed, lets somebody ask again meanwhile.
struct Interrupted {
    state: std::path::PathBuf,
    is_armed: AtomicBool,
}

impl Random for Interrupted {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomUnavailable> {
        if self.is_armed.swap(false, Ordering::SeqCst) {
            let address = format!("sqlite://{}", self.state.display());
            // As another process would, and done when planning goes on.
            let asking = std::thread::spawn(move || {
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                    let mut connection = SqliteConnection::connect(&address).await.unwrap();
                    sqlx::raw_sql("UPDATE request SET waits = NULL").execute(&mut connection).await.unwrap();
                    connection.close().await.unwrap();
                });
            });
            asking.join().unwrap();
        }
        SystemRandom.fill(out)
    }
}

#[tokio::test]
async fn who_asks_again_while_it_is_planned_is_not_answered_with_the_old_plan() {
    let (place, installation, number) = waiting().await;
    place.sql(OVER).await;
    place.sql("INSERT INTO notes VALUES (4, 'a', '2003-01-01')").await;
    place.sql_in("state/control.db", PAST).await;
    plan_request(&installation, number).await.unwrap();
    installation.close().await.unwrap();
    let random = Arc::new(Interrupted { state: place.path("state/control.db"), is_armed: AtomicBool::new(false) });
    let installation =
        Installation::open(place.config(), Needs::ALL, Arc::new(SystemClock), random.clone()).await.unwrap();
    random.is_armed.store(true, Ordering::SeqCst);
    assert!(refusal(plan_request(&installation, number).await).contains("asked again while it was planned"));
    let plan = plan_request(&installation, number).await.unwrap();
    execute(&installation, &plan.row).await.unwrap();
    assert_eq!(place.ask(NOTES).await, "3", "note 4 is theirs now");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_row_that_cannot_go_is_tried_again_and_the_request_is_not_lost() {
    let (place, mut installation, number) = waiting().await;
    place.sql(OVER).await;
    let back = "CREATE TRIGGER back AFTER INSERT ON wangchuan_batch BEGIN
               INSERT OR IGNORE INTO notes VALUES (2, 'a', '2002-01-01'); END";
    place.sql(back).await;
    place.sql_in("state/control.db", PAST).await;
    let partial = run_task(&mut installation, &Task::Requests).await;
    assert_eq!(partial.state, "partial", "{partial:?}");
    let run = request(&installation, number).await.run.unwrap();
    let run = installation.control.read().await.unwrap().run(&run).await.unwrap().unwrap();
    assert!(counts(&run)[4] > 0, "{run:?}");
    let left = request(&installation, number).await;
    assert_eq!(left.state, "waiting", "{left:?}");
    let waits = Waits::of(left.waits.as_deref());
    assert!(waits.until.is_none() && waits.again.is_some_and(|again| again > installation.clock.now()), "{waits:?}");
    place.sql("DROP TRIGGER back").await;
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "0 carried out", "not before its day");
    let a_day_later = "UPDATE request SET waits = json_replace(waits, '$.again', '2020-01-01T00:00:00Z')";
    place.sql_in("state/control.db", a_day_later).await;
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(request(&installation, number).await.state, "done");
    assert_eq!(place.ask(NOTES).await, "3");
    installation.close().await.unwrap();
}
