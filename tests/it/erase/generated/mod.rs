//! Random schemas, erased from: nothing that must stay is lost or changed, nothing due survives without a reason, foreign
//! keys stay valid, and the counts add up. A failure names its seed; `WANGCHUAN_TEST_SEED=N` tries that one alone.

mod schema;

use std::collections::{BTreeMap, BTreeSet};

use wangchuan::control::RunRow;
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::stores::Engine;
use wangchuan::tasks::erasure::{execute, plan_retention, resume_runs};
use wangchuan::tasks::request::place_hold;
use wangchuan::tasks::undo::undo_run;

use super::ground::{Place, counts, forget, hold_row, retain};
use crate::scenario::database::{Database, wait_for};
use crate::support::announce::{LONG, switched_on};
use crate::support::dice::Dice;
use schema::{Ended, Id, Row, Schema};

fn seeds(few: u64) -> Vec<u64> {
    match std::env::var("WANGCHUAN_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=if switched_on(LONG).is_some() { few * 40 } else { few }).collect(),
    }
}

/// A schema in a database, and an installation for it.
struct World {
    seed: u64,
    schema: Schema,
    database: Database,
    place: Place,
}

impl World {
    fn make(seed: u64, engine: Engine) -> Option<Self> {
        let mut dice = Dice(seed);
        let schema = Schema::of(&mut dice, engine);
        let folder = tempfile::tempdir().unwrap().keep();
        let database = Database::create(engine, &folder)?;
        let statements = schema.statements().join(";\n");
        database.run(&statements);
        let place = wait_for(Place::make_for(&database.url(), &schema.collections()));
        Some(Self { seed, schema, database, place })
    }

    /// Checks what a run did to the rows that were there.
    fn judge(&self, what: &str, before: &BTreeMap<Id, String>, stays: impl Fn(&Row) -> bool) {
        let after = self.schema.dump(&self.database);
        let there: BTreeSet<Id> = before.keys().copied().collect();
        let (own, all) = self.schema.staying(&there, stays);
        let story =
            || format!("seed {} ({what}): {:#?}\n{}", self.seed, self.schema, self.schema.statements().join(";\n"));
        let survivors: BTreeSet<Id> = after.keys().copied().collect();
        let lost: Vec<&Id> = all.difference(&survivors).collect();
        let left: Vec<&Id> = survivors.difference(&all).collect();
        assert!(lost.is_empty() && left.is_empty(), "lost {lost:?}, left over {left:?}; {}", story());
        for (id, text) in &after {
            let was = &before[id];
            let is_right = if own.contains(id) { text == was } else { *text == self.schema.stripped(id.0, was) };
            assert!(is_right, "{id:?} was {was}, is {text}; {}", story());
        }
        self.check_references();
    }

    fn check_references(&self) {
        if self.database.engine() == Engine::Sqlite {
            let broken = self.database.number("SELECT count(*) FROM pragma_foreign_key_check");
            assert_eq!(broken, 0, "seed {}", self.seed);
        }
    }
}

async fn hold_person(installation: &Installation, person: usize) {
    let row = hold_row(&format!("case-{person}"), installation.clock.now());
    place_hold(installation, &row, Some(&Subject::new(format!("p{person}")))).await.unwrap();
}

/// Does something that has a runtime of its own. On another thread: two runtimes that wait on one take each other's wake-ups.
fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// A request of one person, then retention while another is held.
fn erase_in_peace(seed: u64, engine: Engine) -> bool {
    let Some(world) = World::make(seed, engine) else { return false };
    let dump = || aside(|| world.schema.dump(&world.database));
    let check = |run: &RunRow| assert_eq!(counts(run)[4], 0, "seed {seed}: {}; {:#?}", run.body, world.schema);
    wait_for(async {
        let before = dump();
        let installation = world.place.open().await;
        assert!(installation.skipped().is_empty(), "seed {seed}: {:?}; {:#?}", installation.skipped(), world.schema);
        check(&forget(&installation, "p1").await);
        aside(|| world.judge("request", &before, |row| row.person != Some(1)));

        let before = dump();
        let is_held = seed.is_multiple_of(2);
        if is_held {
            hold_person(&installation, 2).await;
        }
        check(&retain(&installation).await);
        // Whose row it is is not known: it may be hers.
        let held = |row: &Row| is_held && row.person.is_none_or(|person| person == 2);
        aside(|| world.judge("retention", &before, |row| row.ended != Ended::LongAgo || held(row)));
        installation.close().await.unwrap();
    });
    true
}

/// A request of one person, taken back.
fn erase_and_undo(seed: u64, engine: Engine) -> bool {
    let Some(world) = World::make(seed, engine) else { return false };
    let dump = || aside(|| world.schema.dump(&world.database));
    // Where nothing has a policy of its own there is nothing to edit, and rows have grace anyway.
    let config = std::fs::read_to_string(world.place.path("wangchuan.toml")).unwrap();
    if config.contains("grace = \"0\"") {
        world.place.edit_config("grace = \"0\"", "grace = \"1 hour\"");
    }
    wait_for(async {
        let before = dump();
        let installation = world.place.open().await;
        let run = forget(&installation, "p1").await;
        let [_, erased, stripped, ..] = counts(&run);
        if erased + stripped > 0 {
            let report = undo_run(&installation, &run).await.unwrap();
            let seen = (report.restored as i64, report.superseded, report.refused);
            assert_eq!(seen, (erased + stripped, 0, 0), "seed {seed}: {report:?}; {:#?}", world.schema);
        }
        assert_eq!(dump(), before, "seed {seed}: {:#?}", world.schema);
        installation.close().await.unwrap();
    });
    true
}

#[test]
fn whatever_the_schema_what_is_undone_is_as_before() {
    for (engine, few) in [(Engine::Sqlite, 20), (Engine::Postgres, 6), (Engine::Mysql, 6)] {
        for seed in seeds(few) {
            if !erase_and_undo(seed, engine) {
                break;
            }
        }
    }
}

#[test]
fn whatever_the_schema_what_is_due_goes_and_the_rest_stays_on_sqlite() {
    for seed in seeds(30) {
        erase_in_peace(seed, Engine::Sqlite);
    }
}

#[test]
fn whatever_the_schema_what_is_due_goes_and_the_rest_stays_on_postgresql() {
    for seed in seeds(8) {
        if !erase_in_peace(seed, Engine::Postgres) {
            return;
        }
    }
}

#[test]
fn whatever_the_schema_what_is_due_goes_and_the_rest_stays_on_mariadb() {
    for seed in seeds(8) {
        if !erase_in_peace(seed, Engine::Mysql) {
            return;
        }
    }
}

/// Rows come, are renewed and are put on hold while retention runs.
fn erase_in_turmoil(seed: u64, engine: Engine) -> bool {
    let Some(world) = World::make(seed, engine) else { return false };
    std::thread::scope(|scope| {
        wait_for(async {
            let installation = world.place.open().await;
            let plan = plan_retention(&installation).await.unwrap();
            let stir = scope.spawn(|| stir(&world));
            let pause = std::time::Duration::from_millis(Dice(seed).below(60) as u64);
            let carry_out = async {
                if let Err(error) = execute(&installation, &plan.row).await {
                    assert!(error.is_retryable(), "seed {seed}: {error}");
                }
                // A batch that had to wait for somebody's lock is gone on with; until then no hold is in place.
                finish(&installation, seed).await;
            };
            let ((), held) = tokio::join!(carry_out, async {
                tokio::time::sleep(pause).await;
                // As the command line does it, side by side with the agent.
                let command = world.place.open_beside().await;
                hold_person(&command, 3).await;
                command.close().await.unwrap();
                aside(|| world.schema.dump(&world.database))
            });
            let mut must_stay = aside(|| stir.join().unwrap());
            // What is hers once the hold is placed stays.
            must_stay.extend(held.into_iter().filter(|(_, text)| text.contains("|p3|")).map(|(id, _)| id));
            // None, when the store was busy at its very beginning: then nothing was erased.
            let run = installation.control.read().await.unwrap().runs(None).await.unwrap().pop();
            let body = run.as_ref().map_or("no run", |run| run.body.as_str());
            run.as_ref().map(counts);
            let after = aside(|| world.schema.dump(&world.database));
            for id in &must_stay {
                assert!(after.contains_key(id), "seed {seed}: {id:?} is lost; {body}\n{:#?}", world.schema);
            }
            aside(|| world.check_references());
            installation.close().await.unwrap();
        });
    });
    true
}

/// Goes on with a run that had to wait for somebody's lock.
async fn finish(installation: &Installation, seed: u64) {
    for _ in 0..50 {
        let resumed = resume_runs(installation).await.unwrap();
        if resumed.failed.is_empty() {
            return;
        }
        assert!(resumed.failed.iter().all(|(_, error)| error.is_retryable()), "seed {seed}: {resumed:?}");
    }
    panic!("seed {seed}: the run does not end");
}

/// Rows that must stay: new ones, and old ones that were renewed.
fn stir(world: &World) -> BTreeSet<Id> {
    let mut dice = Dice(world.seed ^ 0xdead_beef);
    let mut kept = BTreeSet::new();
    for number in 0..40 {
        let at = dice.below(world.schema.rows.len());
        let row = &world.schema.rows[at];
        if world.schema.tables[row.table].follows {
            continue;
        }
        if dice.chance(50) {
            let sql = format!("UPDATE t{} SET ended = CURRENT_TIMESTAMP WHERE id = {}", row.table, row.id);
            if world.database.try_run(&sql).is_ok_and(|rows| rows == 1) {
                kept.insert((row.table, row.id));
            }
        } else {
            let id = 1000 + number;
            let own = |to: &Option<usize>| to.filter(|to| *to != at);
            let refers = row.refers.iter().map(|to| own(to).or(to.map(|_| at))).collect();
            let new = Row { id, ended: Ended::Lately, refers, ..row.clone() };
            if world.database.try_run(&world.schema.insert(&new)).is_ok() {
                kept.insert((row.table, id));
            }
        }
    }
    kept
}

#[test]
fn what_comes_or_changes_while_a_run_goes_on_stays_on_sqlite() {
    for seed in seeds(8) {
        erase_in_turmoil(seed, Engine::Sqlite);
    }
}

#[test]
fn what_comes_or_changes_while_a_run_goes_on_stays_on_postgresql() {
    for seed in seeds(4) {
        if !erase_in_turmoil(seed, Engine::Postgres) {
            return;
        }
    }
}

#[test]
fn what_comes_or_changes_while_a_run_goes_on_stays_on_mariadb() {
    for seed in seeds(4) {
        if !erase_in_turmoil(seed, Engine::Mysql) {
            return;
        }
    }
}
