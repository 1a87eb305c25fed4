//! The same events in the model and in the program, on a small SQLite database: after each of them the same runs are shredded
//! and the same versions of the same rows open in every snapshot.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use wangchuan::clock::Clock as _;
use wangchuan::control::PlanRow;
use wangchuan::installation::Installation;
use wangchuan::tasks::erasure::{execute, plan_retention};
use wangchuan::tasks::read_chain::open_chain;
use wangchuan::tasks::read_snapshot::FrameState;
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::undo::undo_run;
use wangchuan::value::Value;

use super::event::{Event, RETENTION, STATUTE, TIMES, apply, following, possible};
use super::search::explore;
use super::world::{Live, Period, RowId, Rule, Scene, Stage, Target, Version, Who, World};
use super::{scenes, tell};
use crate::cycle::requests::{hold_subject, release};
use crate::support::announce::{LONG, switched_on};
use crate::support::dice::Dice;
use crate::support::world::{Making, OpenRows, World as Folder, increment, plan_for, refusal, run_now, snapshot};

/// Random traces without `--long`, and with it.
const TRACES: [u64; 2] = [24, 300];
/// Events of a random trace.
const EVENTS: usize = 16;

fn person(who: Who) -> String {
    format!("p{who}")
}

fn start_of(period: Period) -> &'static str {
    match period {
        Period::Open => "NULL",
        Period::Past => "'2022-06-01 08:00:00'",
        Period::Part => "'2023-01-10 08:00:00'",
        Period::Recent => "'2025-06-01 08:00:00'",
    }
}

/// The program beside the model.
struct Twin<'s> {
    scene: &'s Scene,
    model: World,
    folder: Folder,
    installation: Option<Installation>,
    plan: Option<PlanRow>,
    /// The program's run of each run of the model; none for one that was refused.
    runs: Vec<Option<String>>,
    holds: [usize; 2],
    /// The seed of a random order; 0 for another.
    seed: u64,
    trace: Vec<Event>,
    /// Whether snapshots are increments where they can be, and how many were.
    increments: bool,
    incremental: usize,
}

impl<'s> Twin<'s> {
    async fn make(scene: &'s Scene) -> Self {
        let folder = Folder::make(Making { customers: 10, ..Making::default() }).await;
        let text = std::fs::read_to_string(folder.path("wangchuan.toml")).unwrap();
        let (head, _) = text.split_once("[[store.collection]]").unwrap();
        let mut config = format!(
            "{head}[[store.collection]]\ntable = \"people\"\nsubject = \"person\"\nminimum = [\"person\", \"closed_at\"]\n\n\
             [[store.collection]]\ntable = \"notes\"\nsubject = \"person\"\n\n"
        );
        for (id, start, more) in
            [("people", "closed_at", String::new()), ("notes", "done_at", format!("statutes = [\"{STATUTE}\"]\n"))]
        {
            let grace = if scene.grace { "72 hours" } else { "0" };
            let _ = write!(
                config,
                "[[policy]]\nid = \"{id}-first\"\ncollections = [\"{id}\"]\nretention = \"{RETENTION}\"\nstart = \"{start}\"\n\
                 action = \"delete\"\nbasis = \"contract\"\n{more}grace = \"{grace}\"\nbucket = \"year\"\n\
                 max = {{ rows = 1000, percent = 100 }}\n\n"
            );
        }
        std::fs::write(folder.path("wangchuan.toml"), config).unwrap();
        folder
            .run_sql(
                "CREATE TABLE people (person TEXT NOT NULL PRIMARY KEY, closed_at TEXT, v INTEGER);
                 CREATE TABLE notes (id INTEGER PRIMARY KEY, person TEXT NOT NULL, parent TEXT REFERENCES people (person),
                     done_at TEXT, v INTEGER);",
            )
            .await;
        let model = World::new(scene);
        let twin = Self {
            scene,
            model,
            installation: Some(folder.open().await),
            folder,
            plan: None,
            runs: Vec::new(),
            holds: [0; 2],
            seed: 0,
            trace: Vec::new(),
            increments: false,
            incremental: 0,
        };
        for row in 0..scene.rows.len() as RowId {
            twin.write_row(row).await;
        }
        twin
    }

    fn installation(&self) -> &Installation {
        self.installation.as_ref().unwrap()
    }

    /// Makes a row of the database what the model has.
    async fn write_row(&self, row: RowId) {
        let spec = self.scene.rows[row as usize];
        let owner = person(spec.who);
        let (table, key) =
            if spec.is_person { ("people", format!("person = '{owner}'")) } else { ("notes", format!("id = {row}")) };
        let sql = match self.model.rows[row as usize] {
            None => format!("DELETE FROM {table} WHERE {key}"),
            Some(Live { version, .. }) if spec.is_person => {
                format!("INSERT OR REPLACE INTO people VALUES ('{owner}', NULL, {version})")
            }
            Some(Live { period, version, .. }) => {
                let has_parent = self.scene.rows.iter().any(|other| other.is_person && other.who == spec.who);
                let parent = if has_parent { format!("'{owner}'") } else { "NULL".to_owned() };
                let start = start_of(period);
                format!("INSERT OR REPLACE INTO notes VALUES ({row}, '{owner}', {parent}, {start}, {version})")
            }
        };
        self.folder.run_sql(&sql).await;
    }

    /// Lets an event happen in both, with all that follows by itself.
    async fn step(&mut self, event: Event) {
        self.trace.push(event);
        apply(&mut self.model, self.scene, event, None);
        while let Some(next) = following(&self.model) {
            apply(&mut self.model, self.scene, next, None);
        }
        match event {
            Event::Insert(row) | Event::Delete(row) | Event::Move(row) => self.write_row(row).await,
            Event::Tick => {
                let now: DateTime<Utc> = TIMES[self.model.time as usize].parse().unwrap();
                self.folder.clock.advance(now - self.folder.clock.now());
                self.installation().confirm_clock().await.unwrap();
            }
            Event::EditPolicy => {
                self.installation.take().unwrap().close().await.unwrap();
                self.folder.edit_config("notes-first", "notes-second");
                self.installation = Some(self.folder.open().await);
            }
            Event::Plan(target) => self.plan(target).await,
            Event::Execute => self.execute().await,
            Event::Hold(who) => {
                self.holds[who as usize] += 1;
                let name = format!("h{who}-{}", self.holds[who as usize]);
                hold_subject(self.installation(), &person(who), &name).await;
            }
            Event::Release(who) => {
                release(self.installation(), &format!("h{who}-{}", self.holds[who as usize])).await;
            }
            Event::Begin => {
                let taken = if self.increments {
                    increment(self.installation()).await
                } else {
                    snapshot(self.installation()).await
                };
                self.incremental += usize::from(taken.kind == "incremental");
            }
            Event::Undo(run) => {
                let id = self.runs[run as usize].clone().unwrap();
                let run = run_now(self.installation(), &id).await;
                undo_run(self.installation(), &run).await.unwrap();
            }
            Event::Check => {
                shred_due(self.installation()).await.unwrap();
            }
            Event::Mark
            | Event::Seal
            | Event::Commit
            | Event::Rekey
            | Event::Finish
            | Event::Crash
            | Event::Date(_)
            | Event::CallOff(_)
            | Event::Read(_)
            | Event::Deliver => {
                panic!("{event:?} is no step of its own here");
            }
        }
        self.compare().await;
    }

    async fn plan(&mut self, target: Target) {
        let installation = self.installation();
        let plan = match target {
            Target::Retention => plan_retention(installation).await.unwrap(),
            Target::Request(who) => plan_for(installation, &person(who)).await,
        };
        self.plan = Some(plan.row);
    }

    async fn execute(&mut self) {
        let plan = self.plan.take().unwrap();
        let done = execute(self.installation(), &plan).await;
        let stage = self.model.runs.last().unwrap().stage;
        if stage == Stage::Void {
            let what = refusal(done);
            assert!(what.contains("is void"), "{what}");
            self.runs.push(None);
        } else {
            self.runs.push(Some(done.unwrap().id));
        }
    }

    async fn compare(&self) {
        let model = &self.model;
        let mut living = Vec::new();
        for row in 0..self.scene.rows.len() as RowId {
            living.push(self.version_of(row).await);
        }
        let wanted = model.rows.iter().map(|live| live.map(|live| if live.is_blank { 0 } else { live.version }));
        assert_eq!(living, wanted.collect::<Vec<_>>(), "living rows: {:?}\n{model:#?}", self.trace);
        for (run, id) in model.runs.iter().zip(&self.runs) {
            let Some(id) = id else { continue };
            let state = run_now(self.installation(), id).await.state;
            let wanted = match run.stage {
                Stage::Shredded => "shredded",
                Stage::Undone => "undone",
                _ => "shred-pending",
            };
            assert_eq!(state, wanted, "seed {}: {:?}\n{model:#?}", self.seed, self.trace);
        }
        let mut found = Vec::new();
        let rows = self.installation().control.read().await.unwrap().snapshots(None).await.unwrap();
        for row in rows {
            found.push(self.opened(row).await);
        }
        let expected: Vec<BTreeSet<(RowId, Version)>> = model
            .snapshots
            .iter()
            .map(|snapshot| {
                let open = snapshot.frames.iter().filter(|frame| model.opens(snapshot, **frame));
                open.map(|frame| (frame.row, if frame.is_blank { 0 } else { frame.version })).collect()
            })
            .collect();
        assert_eq!(found, expected, "rows that open, by snapshot: {:?}\n{model:#?}", self.trace);
    }

    /// The version of a row in the database.
    async fn version_of(&self, row: RowId) -> Option<Version> {
        let spec = self.scene.rows[row as usize];
        let from = if spec.is_person {
            format!("people WHERE person = '{}'", person(spec.who))
        } else {
            format!("notes WHERE id = {row}")
        };
        let found =
            self.folder.number("shop.db", &format!("SELECT COALESCE(MAX(COALESCE(v, 0)), -1) FROM {from}")).await;
        (found >= 0).then_some(found as Version)
    }

    /// The rows of a snapshot that open, with the versions in them; stripped rows are of version 0.
    async fn opened(&self, row: wangchuan::control::SnapshotRow) -> BTreeSet<(RowId, Version)> {
        let installation = self.installation();
        let repository = installation.backup().unwrap().repository.clone();
        let ground = installation.ground().unwrap();
        let opened = open_chain(&ground, repository.as_ref(), &installation.signer, row).await.unwrap();
        let mut open_rows = OpenRows::default();
        let read = opened.read(repository.as_ref(), &mut open_rows).await.unwrap().all;
        assert_eq!(read.frames_in(FrameState::Lost) + read.frames_in(FrameState::Corrupt), 0, "{:?}", self.trace);
        let mut found = BTreeSet::new();
        for captured in &opened.newest().unwrap().schema.collections {
            let rows = open_rows.0.get(&captured.number).map_or(&[][..], Vec::as_slice);
            for row in rows {
                let id = match (&captured.table[..], &row[0]) {
                    ("people", Value::Text(name)) => {
                        self.scene.rows.iter().position(|spec| spec.is_person && person(spec.who) == *name).unwrap()
                            as RowId
                    }
                    (_, Value::Integer(id)) => *id as RowId,
                    other => panic!("{other:?}"),
                };
                let version = row.last().and_then(|value| if let Value::Integer(v) = value { Some(*v) } else { None });
                found.insert((id, version.unwrap_or(0) as Version));
            }
        }
        found
    }

    async fn finish(self) {
        self.installation.unwrap().close().await.unwrap();
    }
}

fn coarse(scene: Scene) -> Scene {
    let budget = super::world::Budget { crashes: 0, ..scene.budget };
    Scene { coarse: true, budget, ..scene }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_does_what_the_model_does_on_random_orders() {
    let traces = TRACES[usize::from(switched_on(LONG).is_some())];
    let (mut events, mut shredded, mut increments) = (0, 0, 0);
    let only: Option<u64> = std::env::var("WANGCHUAN_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in 1..=traces {
        if only.is_some_and(|only| only != seed) {
            continue;
        }
        let mut scene = coarse(scenes::all()[(seed % 5) as usize].clone());
        (scene.budget.writes, scene.budget.snapshots, scene.budget.shreds, scene.budget.undos) = (3, 5, 4, 1);
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut twin = Twin::make(&scene).await;
        twin.seed = seed;
        twin.increments = seed % 4 != 0;
        for _ in 0..EVENTS {
            let choices = possible(&twin.model, &scene, None);
            let Some(event) = choices.get(dice.below(choices.len().max(1))) else { break };
            twin.step(*event).await;
            events += 1;
        }
        shredded += twin.model.runs.iter().filter(|run| run.stage == Stage::Shredded).count();
        increments += twin.incremental;
        twin.finish().await;
    }
    tell(&format!(
        "model and program agree after each of {events} events of {traces} orders; {shredded} runs shredded, {increments} increments taken"
    ));
    assert!(shredded > 0 && increments > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_would_break_a_promise_without_a_rule_do_not_break_the_program() {
    let mut driven = Vec::new();
    for rule in [Rule::Pins, Rule::Barrier, Rule::Holds, Rule::Grace, Rule::Undo, Rule::Ledger, Rule::Pending] {
        let all = scenes::all().map(coarse);
        let found = all.iter().find_map(|scene| {
            let found = explore(scene, Some(rule), 60_000, 0).found?;
            Some((scene, found))
        });
        let Some((scene, found)) = found else { continue };
        for increments in [false, true] {
            let mut twin = Twin::make(scene).await;
            twin.increments = increments;
            for event in &found.trace {
                if possible(&twin.model, scene, None).contains(event) {
                    twin.step(*event).await;
                }
            }
            driven.push((rule, twin.trace.len()));
            twin.finish().await;
        }
    }
    tell(&format!("orders driven against the program, by the rule that they need, with their events: {driven:?}"));
    assert!(driven.len() >= 10, "{driven:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_a_second_request_keeps_outlives_the_first_one_in_old_snapshots() {
    // It came after the plan of the first request, which let its subject's key die without knowing of it.
    let scene = coarse(scenes::request());
    let mut twin = Twin::make(&scene).await;
    let request = Event::Plan(Target::Request(0));
    for event in [request, Event::Insert(2), Event::Begin, Event::Execute, request, Event::Execute, Event::Begin] {
        twin.step(event).await;
    }
    let version = twin.model.rows[2].unwrap().version;
    let first = twin.installation().control.read().await.unwrap().snapshots(None).await.unwrap().remove(0);
    assert!(twin.opened(first.clone()).await.contains(&(2, version)));
    shred_due(twin.installation()).await.unwrap();
    assert_eq!(
        twin.opened(first).await,
        BTreeSet::from([(2, version)]),
        "what was erased is gone, what was kept is not"
    );
    twin.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undo_leaves_alone_what_a_later_run_erased_again() {
    // The row came back, and then its customer's retention took it again: an older undo must not bring it back.
    let scene = coarse(scenes::grace());
    let mut twin = Twin::make(&scene).await;
    let plans = [Event::Plan(Target::Request(0)), Event::Plan(Target::Retention)];
    for event in [plans[0], Event::Begin, Event::Execute, Event::Insert(0), plans[1], Event::Execute, Event::Undo(0)] {
        twin.step(event).await;
    }
    assert_eq!(twin.version_of(0).await, None);
    twin.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_does_not_die_with_the_bucket_in_which_a_row_was_planned_before_it_moved() {
    // One note moves after the plan into the period of another that a statute keeps: both lie in one cell, which is pinned.
    let scene = coarse(scenes::long_life());
    let mut twin = Twin::make(&scene).await;
    let plans = [Event::Plan(Target::Request(0)), Event::Plan(Target::Retention)];
    let events = [plans[0], Event::Move(1), Event::Begin, Event::Execute, plans[1], Event::Execute, Event::Tick];
    for event in events.into_iter().chain([Event::Begin, Event::Check]) {
        twin.step(event).await;
    }
    let first = twin.installation().control.read().await.unwrap().snapshots(None).await.unwrap().remove(0);
    let (moved, kept) = (twin.model.rows[1].unwrap().version, twin.model.rows[2].unwrap().version);
    assert!(twin.opened(first).await.is_superset(&BTreeSet::from([(1, moved), (2, kept)])));
    twin.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_do_not_close_a_cell_together_that_neither_closes_alone() {
    // The first request's keys close the cell of a row that stays, and its pin is to take that over; the second lets the pin die.
    let scene = coarse(scenes::request());
    let mut twin = Twin::make(&scene).await;
    let events = [Event::Plan(Target::Request(0)), Event::Move(1), Event::Begin, Event::Execute];
    for event in events.into_iter().chain([Event::Plan(Target::Request(0)), Event::Execute, Event::Check]) {
        twin.step(event).await;
    }
    twin.finish().await;
}
