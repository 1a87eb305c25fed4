//! Thirty days in the life of a shop, on each engine: rows come, change, change hands and go, a table is emptied and filled again, a
//! column is added, retention and requests erase, holds come and go, keys die, and every day a snapshot is taken, each week a
//! full one, and old ones are pruned. Every few days, and at the end, every point that can be restored is restored and compared
//! with a model that knows the stubs.

mod killed_restore;
mod large;
mod point;
mod shop;
mod writes;

use std::collections::BTreeSet;

use chrono::TimeDelta;
use tokio::runtime::Runtime;
use wangchuan::agent::verify_backups;
use wangchuan::clock::Clock as _;
use wangchuan::erase::EraseError;
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::stores::{Engine, Settling};
use wangchuan::tasks::TaskError;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::erasure::{execute, plan_retention};
use wangchuan::tasks::prune::{plan_prune, prune};
use wangchuan::tasks::request::{plan_request, receive};
use wangchuan::tasks::restore::restore_snapshot;
use wangchuan::tasks::selection::cells_of_subject;
use wangchuan::tasks::shred::shred_due;

use crate::cycle::requests::{hold_subject, release};
use crate::scenario::database::Database;
use crate::support::announce::{LONG, switched_on};
use crate::support::dice::Dice;
use crate::support::world::{Making, World, dawn, increment, snapshot};
use point::{Known, Point, remember};
use shop::{Rows, adapter, address, clear, fill, owner, rows_in, set_clock};

const DAYS: usize = 30;
/// On these days the shop does something that it does once.
const EMPTIED: usize = 9;
const WIDENED: usize = 16;
/// Every so many days all points are checked.
const CHECKED: usize = 10;
const BUCKET: &str = "bucket = \"wangchuan\"\n";

/// How large a life is.
#[derive(Clone, Copy)]
struct Size {
    customers: u32,
    writes: usize,
    seeds: u64,
}

const SMALL: Size = Size { customers: 10, writes: 4, seeds: 1 };
const LARGE: Size = Size { customers: 150, writes: 40, seeds: 6 };

/// What a life saw.
#[derive(Default)]
struct Counts {
    writes: usize,
    points: usize,
    pruned: usize,
    increments: usize,
    restores: usize,
    rows: usize,
    stubs: usize,
    runs: usize,
    shreds: usize,
    returned: usize,
}

struct Life {
    runtime: Runtime,
    world: World,
    database: Database,
    target: Database,
    installation: Option<Installation>,
    dice: Dice,
    seed: u64,
    points: Vec<Point>,
    known: Known,
    counts: Counts,
    next: u64,
    held: Option<String>,
}

impl Life {
    fn begin(engine: Engine, size: Size, seed: u64) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let making = Making { customers: 1, bucket: "year", max_percent: 100, ..Making::default() };
        let world = runtime.block_on(World::make(making));
        let database = Database::create(engine, world.folder.path())?;
        let target = Database::create(engine, world.folder.path())?;
        world.edit_config("url = \"sqlite://shop.db\"", &format!("url = \"{}\"", address(&database)));
        add_scratch(&world, &database);
        set_clock(&database, dawn());
        world.edit_config(BUCKET, &format!("{BUCKET}keep = {{ days = 9 }}\nprune = \"delete\"\n"));
        runtime.block_on(fill(&database, size.customers));
        let installation = Some(runtime.block_on(world.open()));
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (points, known, counts) = (Vec::new(), Known::default(), Counts::default());
        Some(Self {
            runtime,
            world,
            database,
            target,
            installation,
            dice,
            seed,
            points,
            known,
            counts,
            next: 900_000,
            held: None,
        })
    }

    fn installation(&self) -> &Installation {
        self.installation.as_ref().unwrap()
    }

    fn place(&self, what: &str) -> String {
        format!("{:?}, seed {}, {what}", self.database.engine(), self.seed)
    }

    /// Reads the shop, and notes in every point what became of its rows.
    fn observe(&mut self) -> Rows {
        let rows = rows_in(&self.database);
        remember(&mut self.known.told, &rows);
        self.points.iter_mut().for_each(|point| point.observe(&rows));
        rows
    }

    /// A day has passed, and the agent is started again.
    fn morning(&mut self) {
        let installation = self.installation.take().unwrap();
        self.runtime.block_on(installation.close()).unwrap();
        set_clock(&self.database, self.world.clock.now() + TimeDelta::days(1));
        self.world.clock.advance(TimeDelta::days(1));
        let installation = self.runtime.block_on(self.world.open());
        self.runtime.block_on(installation.confirm_clock()).unwrap();
        self.installation = Some(installation);
    }

    fn day(&mut self, day: usize, size: Size) {
        self.morning();
        for _ in 0..size.writes {
            self.write();
            self.observe();
        }
        match day {
            EMPTIED => self.empty_and_fill(),
            WIDENED => self.widen(),
            _ => {}
        }
        if day % 5 == 2 {
            self.hold_or_release();
        }
        if day % 3 == 1 {
            let one = self.leaver();
            self.erase(Some(one));
        }
        if day % 7 == 5 {
            self.erase(None);
        }
        self.take(day.is_multiple_of(7));
        let report = self.runtime.block_on(shred_due(self.installation())).unwrap();
        if report.generation.is_some() {
            self.counts.shreds += 1;
            self.keys_died();
        }
        if day.is_multiple_of(CHECKED) {
            self.prune();
            self.check(CHECKED);
        }
    }

    /// Keys died: of the points before this one what shared them may be missing, and nobody who is gone opens.
    fn keys_died(&mut self) {
        let last = self.points.len().saturating_sub(1);
        self.points.iter_mut().take(last).for_each(|point| point.after_shred = true);
    }

    fn take(&mut self, full: bool) {
        let rows = self.observe();
        let installation = self.installation.as_ref().unwrap();
        let row = self
            .runtime
            .block_on(async { if full { snapshot(installation).await } else { increment(installation).await } });
        assert_eq!(row.living as usize, rows.len(), "{}", self.place(&row.id));
        self.counts.points += 1;
        self.counts.increments += usize::from(row.kind == "incremental");
        self.points.push(Point::new(row, rows));
    }

    /// Retention, or a request of one customer; what became of the rows is seen in the shop.
    fn erase(&mut self, customer: Option<String>) {
        let before = self.observe();
        let installation = self.installation.as_ref().unwrap();
        let done = self.runtime.block_on(async {
            let plan = match &customer {
                None => plan_retention(installation).await?,
                Some(id) => {
                    let number = receive(installation, &Subject::new(id.trim_matches('\''))).await?.request.number;
                    plan_request(installation, number).await?
                }
            };
            execute(installation, &plan.row).await.map(drop)
        });
        match done {
            Ok(()) => self.counts.runs += 1,
            Err(TaskError::Refused { .. } | TaskError::Erase(EraseError::Refused { .. })) => {}
            Err(error) => panic!("{}: {error}", self.place("an erasure")),
        }
        let after = rows_in(&self.database);
        let changed: Vec<_> = before.keys().filter(|name| before.get(*name) != after.get(*name)).cloned().collect();
        self.known.touched.extend(changed.iter().filter_map(|name| owner(&before, name)));
        self.points.iter_mut().for_each(|point| point.erase(&changed));
        if let Some(id) = customer {
            let is_there = after.keys().any(|name| owner(&after, name).as_ref() == Some(&id));
            if !is_there && !changed.is_empty() {
                self.known.gone.insert(id);
            }
        }
        self.observe();
    }

    fn hold_or_release(&mut self) {
        if let Some(name) = self.held.take() {
            self.runtime.block_on(release(self.installation(), &name));
        } else {
            let one = self.customer();
            self.next += 1;
            let name = format!("h-{}", self.next);
            self.runtime.block_on(hold_subject(self.installation(), one.trim_matches('\''), &name));
            self.held = Some(name);
        }
    }

    fn prune(&mut self) {
        let installation = self.installation.as_ref().unwrap();
        let left = self.runtime.block_on(async {
            let plan = plan_prune(installation, &[]).await.unwrap();
            let report = prune(installation, &[], &plan).await.unwrap();
            assert!(report.is_well(), "{report:?}");
            installation.control.read().await.unwrap().snapshots(None).await.unwrap()
        });
        let left: BTreeSet<i64> = left.iter().map(|row| row.number).collect();
        let before = self.points.len();
        self.points.retain(|point| left.contains(&point.row.number));
        assert_eq!(self.points.len(), left.len());
        self.counts.pruned += before - self.points.len();
        // A prune that destroys a chain's key makes a new generation, and takes along what else was due.
        self.keys_died();
    }

    /// Restores the newest so many points.
    fn check(&mut self, newest: usize) {
        for point in self.points.iter().rev().take(newest) {
            clear(&self.target);
            let target = adapter(&self.target);
            let report = self.runtime.block_on(async {
                let repository = self.installation().backup().unwrap().repository.clone();
                let ground = self.installation().ground().unwrap();
                let (signer, row) = (&self.installation().signer, point.row.clone());
                let report = restore_snapshot(&ground, repository.as_ref(), signer, row, target.as_ref()).await;
                target.settle(&Settling::default()).await.unwrap();
                report
            });
            let what = self.place(&format!("snapshot {}", point.row.number));
            let report = report.unwrap_or_else(|error| panic!("{what}: {error}"));
            let (rows, stubs) = point.check(&self.known, &report, &rows_in(&self.target), &what);
            self.counts.rows += rows;
            self.counts.stubs += stubs;
            self.counts.restores += 1;
        }
    }

    /// At the end nobody who is gone is found by name, the backups verify, and a drill passes.
    fn end(mut self) -> Counts {
        self.take(false);
        let installation = self.installation.as_ref().unwrap();
        let result = self.runtime.block_on(async {
            shred_due(installation).await.unwrap();
            for id in &self.known.gone {
                let found = cells_of_subject(installation, &Subject::new(id.trim_matches('\''))).await;
                assert!(matches!(found, Err(TaskError::Unknown { .. })), "an erased customer still has cells");
            }
            let found = verify_backups(installation, "shop").await.unwrap();
            assert!(found.is_valid(), "{:?}", found.problems);
            run_drill(installation, self.points[self.points.len() - 1].row.clone()).await.unwrap()
        });
        assert_eq!(result.result, "passed", "{}: {result:?}", self.place("the drill"));
        self.keys_died();
        self.check(usize::MAX);
        let installation = self.installation.take().unwrap();
        self.runtime.block_on(installation.close()).unwrap();
        self.counts
    }
}

/// Where a drill finds room for the shop.
fn add_scratch(world: &World, database: &Database) {
    let url = database.url();
    let (server, _) = url.rsplit_once('/').unwrap();
    let at = match database.engine() {
        Engine::Sqlite => return,
        Engine::Postgres => format!("{server}/postgres"),
        Engine::Mysql => format!("{server}/"),
    };
    let text = std::fs::read_to_string(world.path("wangchuan.toml")).unwrap();
    std::fs::write(world.path("wangchuan.toml"), format!("{text}\n[drill.scratch]\nshop = \"{at}\"\n")).unwrap();
}

fn live(engine: Engine) {
    let size = if switched_on(LONG).is_some() { LARGE } else { SMALL };
    let only = std::env::var("WANGCHUAN_LIFE_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    for seed in only.map_or(1..=size.seeds, |seed| seed..=seed) {
        let Some(mut life) = Life::begin(engine, size, seed) else { return };
        let began = std::time::Instant::now();
        life.take(true);
        for day in 1..=DAYS {
            life.day(day, size);
        }
        let customers = life.known.gone.len();
        let counts = life.end();
        let Counts { writes, points, pruned, increments, restores, rows, stubs, runs, shreds, returned } = counts;
        crate::model::tell(&format!(
            "{DAYS} days on {engine:?}, seed {seed}: {writes} writes, {runs} erasures, {shreds} shreds, {customers} customers gone, \
             {returned} returned; {points} points ({increments} increments), {pruned} pruned; {restores} restores gave back {rows} rows \
             and {stubs} stubs, {} s",
            began.elapsed().as_secs()
        ));
        assert!(
            increments > points / 2 && pruned > 0 && shreds > 0 && runs > 3 && customers > 0,
            "too little happened"
        );
    }
}

#[test]
fn thirty_days_on_sqlite() {
    live(Engine::Sqlite);
}

#[test]
fn thirty_days_on_postgres() {
    live(Engine::Postgres);
}

#[test]
fn thirty_days_on_mariadb() {
    live(Engine::Mysql);
}
