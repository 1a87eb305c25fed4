//! Random lives of a shop whose snapshots are increments where they can be: every point that can be restored is what the shop was
//! then, less what was erased since.
//!
//! The model is a copy of all rows at every snapshot, and the keys of the rows that each erasure took. As long as no key has died
//! since a point, it comes back exactly; later, rows may be missing that shared the keys of erased ones, and the restore counts them.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use wangchuan::agent::verify_backups;
use wangchuan::control::SnapshotRow;
use wangchuan::installation::Installation;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::erasure::{execute, plan_retention};
use wangchuan::tasks::request::{plan_request, receive};
use wangchuan::tasks::shred::shred_due;

use super::requests::{hold_subject, release};
use crate::support::announce::{LONG, switched_on};
use crate::support::dice::Dice;
use crate::support::world::{Making, TABLES, World, increment, pass_time, restore, snapshot};

/// Lives without `--long`, and with it.
const LIVES: [u64; 2] = [6, 120];
/// Steps of a life.
const STEPS: usize = 22;

/// Rows by table and key.
type Rows = BTreeMap<(String, String), String>;

/// A snapshot with what the shop was.
struct Point {
    row: SnapshotRow,
    rows: Rows,
    /// What erasures took since.
    erased: BTreeSet<(String, String)>,
    /// Whether keys died since.
    after_shred: bool,
}

struct Life {
    world: World,
    installation: Option<Installation>,
    dice: Dice,
    points: Vec<Point>,
    columns: usize,
    next_order: u64,
    seed: u64,
}

async fn rows_in(world: &World, file: &str) -> Rows {
    let mut rows = Rows::new();
    for (table, dump) in world.dump_all(file).await {
        for row in dump {
            let key = row.split(',').next().unwrap().to_owned();
            assert!(rows.insert((table.clone(), key), row).is_none());
        }
    }
    rows
}

impl Life {
    async fn begin(template: &World, seed: u64) -> Self {
        let world = template.copied();
        let installation = Some(world.open().await);
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self { world, installation, dice, points: Vec::new(), columns: 0, next_order: 900_000, seed }
    }

    fn installation(&self) -> &Installation {
        self.installation.as_ref().unwrap()
    }

    fn customer(&mut self) -> String {
        let at = self.dice.below(self.world.shop.rows_of("customers").len());
        match &self.world.shop.rows_of("customers")[at][0] {
            wangchuan::value::Value::Text(id) => id.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Something that the shop does by itself.
    async fn write(&mut self) {
        let (one, other) = (self.customer(), self.customer());
        let some_order =
            format!("(SELECT order_id FROM orders ORDER BY (order_id * {}) % 997 LIMIT 1)", 1 + self.dice.below(90));
        let year = [2022, 2023, 2025][self.dice.below(3)];
        self.next_order += 1;
        let order = self.next_order;
        let sql = match self.dice.below(9) {
            0 | 1 => format!(
                "INSERT INTO orders SELECT {order}, customer_id, 'completed', '{year}-02-01 08:00:00', '{year}-02-09 08:00:00', 1, \
                 'street {order}' FROM customers WHERE customer_id = '{one}'"
            ),
            2 => format!("UPDATE orders SET shipping_address = 'street {order}' WHERE order_id = {some_order}"),
            // Its lines change hands with it.
            3 => format!(
                "UPDATE orders SET customer_id = '{one}' WHERE order_id = {some_order} \
                 AND EXISTS (SELECT 1 FROM customers WHERE customer_id = '{one}')"
            ),
            4 => format!("UPDATE orders SET completed_at = '{year}-05-05 08:00:00' WHERE order_id = {some_order}"),
            5 => format!(
                "CREATE TEMP TABLE gone AS SELECT {some_order} AS id; \
                 DELETE FROM order_lines WHERE order_id IN (SELECT id FROM gone); \
                 DELETE FROM orders WHERE order_id IN (SELECT id FROM gone);"
            ),
            6 => "CREATE TEMP TABLE kept AS SELECT * FROM complaints; DELETE FROM complaints; \
                  INSERT INTO complaints SELECT * FROM kept WHERE complaint_id % 7 > 0 ORDER BY complaint_id DESC;"
                .to_owned(),
            7 => format!(
                "UPDATE complaints SET complaint_id = complaint_id + 100000 WHERE customer_id IN ('{one}', '{other}'); \
                 UPDATE newsletter SET unsubscribed_at = '{year}-01-01 00:00:00' WHERE customer_id = '{one}'"
            ),
            _ => format!("UPDATE customers SET address = 'house {order}' WHERE customer_id = '{one}'"),
        };
        self.world.run_sql(&sql).await;
    }

    async fn step(&mut self) {
        match self.dice.below(16) {
            0..=5 => self.write().await,
            6..=8 => self.take().await,
            9 => self.erase(None).await,
            10 | 11 => {
                let one = self.customer();
                self.erase(Some(one)).await;
            }
            12 => {
                let holds = self.installation().control.read().await.unwrap().holds(true).await.unwrap();
                if let Some(hold) = holds.first() {
                    release(self.installation(), &hold.id).await;
                } else {
                    let one = self.customer();
                    self.next_order += 1;
                    hold_subject(self.installation(), &one, &format!("h-{}", self.next_order)).await;
                }
            }
            13 => pass_time(&self.world, self.installation(), TimeDelta::days(40)).await,
            14 if self.columns < 2 => self.change_schema().await,
            _ => {
                let report = shred_due(self.installation()).await.unwrap();
                if report.generation.is_some() {
                    self.points.iter_mut().for_each(|point| point.after_shred = true);
                }
            }
        }
    }

    async fn change_schema(&mut self) {
        self.columns += 1;
        self.installation.take().unwrap().close().await.unwrap();
        self.world.run_sql(&format!("CREATE INDEX made_later_{} ON orders (status)", self.columns)).await;
        self.installation = Some(self.world.open().await);
    }

    async fn take(&mut self) {
        let rows = rows_in(&self.world, "shop.db").await;
        let row = if self.dice.below(8) == 0 {
            snapshot(self.installation()).await
        } else {
            increment(self.installation()).await
        };
        assert_eq!(row.living as usize, rows.len(), "seed {}", self.seed);
        self.points.push(Point { row, rows, erased: BTreeSet::new(), after_shred: false });
    }

    /// Retention, or a request of one customer; what became of the rows is seen in the shop.
    async fn erase(&mut self, customer: Option<String>) {
        let before = rows_in(&self.world, "shop.db").await;
        let plan = match &customer {
            None => plan_retention(self.installation()).await,
            Some(id) => match receive(self.installation(), &wangchuan::plan::Subject::new(id)).await {
                Ok(received) => plan_request(self.installation(), received.request.number).await,
                Err(error) => Err(error),
            },
        };
        let done = match plan {
            Ok(plan) => execute(self.installation(), &plan.row).await.map(drop),
            Err(error) => Err(error),
        };
        match done {
            Ok(())
            | Err(TaskError::Refused { .. } | TaskError::Erase(wangchuan::erase::EraseError::Refused { .. })) => {}
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
        let after = rows_in(&self.world, "shop.db").await;
        // Stripped rows count too: an old version does not come back.
        for (key, row) in before {
            if after.get(&key) != Some(&row) {
                self.points.iter_mut().for_each(|point| _ = point.erased.insert(key.clone()));
            }
        }
    }

    /// Restores a point and compares it with the model. Returns how many rows came back.
    async fn check(&self, point: &Point) -> usize {
        let (seed, number) = (self.seed, point.row.number);
        let file = format!("point-{number}.db");
        let report = restore(&self.world, self.installation(), &point.row, &file).await.unwrap();
        assert!(report.is_whole(), "seed {seed}, snapshot {number}: {report:?}");
        let found = rows_in(&self.world, &file).await;
        std::fs::remove_file(self.world.path(&file)).unwrap();
        let mut expected = point.rows.clone();
        expected.retain(|key, _| !point.erased.contains(key));
        let (mut missing, mut others) = (0, 0_u64);
        for (key, row) in &expected {
            match found.get(key) {
                Some(same) if same == row => {}
                Some(other) if is_stub(key, other) && point.after_shred => missing += 1,
                Some(other) => panic!("seed {seed}, snapshot {number}: {key:?} is {other} and not {row}"),
                None => missing += 1,
            }
        }
        for (key, row) in found.iter().filter(|(key, _)| !expected.contains_key(*key)) {
            assert!(is_stub(key, row), "seed {seed}, snapshot {number}: {row} of {} came back", key.0);
            others += 1;
        }
        let sum = |of: fn(&wangchuan::tasks::restore::RestoredCollection) -> u64| {
            report.collections.iter().map(of).sum::<u64>()
        };
        assert!(others <= sum(|counts| counts.stubs), "seed {seed}, snapshot {number}: {report:?}");
        let shredded = sum(|counts| counts.shredded);
        assert!(missing <= shredded, "seed {seed}, snapshot {number}: {missing} rows are missing, {report:?}");
        assert!(
            missing == 0 || point.after_shred,
            "seed {seed}, snapshot {number}: {missing} rows are missing, {report:?}"
        );
        found.len()
    }
}

/// A row that holds its key and nothing else.
fn is_stub((table, _): &(String, String), row: &str) -> bool {
    match table.as_str() {
        "customers" => {
            row.split(',').skip(1).all(|value| ["''", "NULL", "0"].contains(&value) || value.starts_with("'1"))
        }
        "orders" => row.contains(",'',") || row.contains("NULL"),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_point_is_what_the_shop_was_then() {
    let lives = LIVES[usize::from(switched_on(LONG).is_some())];
    let only = std::env::var("WANGCHUAN_POINTS_ONLY").ok().and_then(|seed| seed.parse::<u64>().ok());
    let making = Making { customers: 12, bucket: "year", max_percent: 100, ..Making::default() };
    let template = World::make(making).await;
    assert_eq!(TABLES.len(), 5);
    let (mut increments, mut points, mut rows, mut exact) = (0, 0, 0, 0);
    for seed in only.map_or(1..=lives, |seed| seed..=seed) {
        let mut life = Life::begin(&template, seed).await;
        life.take().await;
        for _ in 0..STEPS {
            life.step().await;
        }
        life.take().await;
        let last = life.points.len() - 1;
        // Exactly, as long as no key has died.
        for point in life.points.iter().filter(|point| !point.after_shred) {
            exact += life.check(point).await;
        }
        shred_due(life.installation()).await.unwrap();
        for (number, point) in life.points.iter_mut().enumerate() {
            point.after_shred |= number < last;
        }
        for point in &life.points {
            rows += life.check(point).await;
        }
        increments += life.points.iter().filter(|point| point.row.kind == "incremental").count();
        points += life.points.len();
        let found = verify_backups(life.installation(), "shop").await.unwrap();
        assert!(found.is_valid(), "seed {seed}: {:?}", found.problems);
        let drill = run_drill(life.installation(), life.points[last].row.clone()).await.unwrap();
        assert_eq!(drill.result, "passed", "seed {seed}: {drill:?}");
        life.installation.take().unwrap().close().await.unwrap();
    }
    let line = format!(
        "{lives} lives: {points} points restored, {increments} of them increments; {exact} rows came back exactly before keys died, \
         {rows} at the end"
    );
    crate::model::tell(&line);
    assert!(only.is_some() || increments > points / 3, "{line}");
}
