//! Random lives against a thief who kept everything: the control database, its journals and the root as they were after every
//! step, and every object of the bucket. Processes are killed at random points. At the end no key that the root of today
//! reaches opens a shredded frame, every other frame opens, and with the roots of their time the shredded ones do as well.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use chrono::TimeDelta;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use wangchuan::backup::pack::{max_pack_bytes, pack_name, read_pack};
use wangchuan::control::{Control, NodeRow, SlotTable};
use wangchuan::crash_point::POINTS;
use wangchuan::erase::EraseError;
use wangchuan::installation::{Installation, Needs};
use wangchuan::keys::Key;
use wangchuan::keys::cell::CellSecret;
use wangchuan::keys::file_slot::FileSlot;
use wangchuan::keys::slot::RootSlot as _;
use wangchuan::keys::tree::KeyTree;
use wangchuan::plan::Subject;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::backup::Wanted;
use wangchuan::tasks::erasure::{RunBody, execute, plan_retention, resume_runs};
use wangchuan::tasks::read_snapshot::{FrameState, OpenSnapshot, open};
use wangchuan::tasks::request::{plan_request, receive};
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::{Result, TaskError};
use wangchuan::value::Value;

use super::requests::{hold_subject, release};
use super::thief::{Slots, Tree, node_set, reachable, tree_in, tree_kept_in};
use crate::support::announce::{LONG, switched_on};
use crate::support::control_database::{keep_tables, server};
use crate::support::dice::Dice;
use crate::support::world::{
    Making, OpenRows, World, copy_folder, dawn, increment, manual_clock_at, read_config, restore, snapshot,
    try_snapshot, try_take,
};

/// Lives without `--long`, and with it.
const LIVES: [u64; 2] = [50, 1000];
/// The same with the control database on a server.
const LIVES_ON_SERVER: [u64; 2] = [8, 100];
/// Processes of a life that may be killed, and steps in each.
const PROCESSES: u64 = 2;
const STEPS: u64 = 6;

const FOLDER: &str = "WANGCHUAN_ADVERSARY_FOLDER";
/// One life alone, by its seed.
const ONLY: &str = "WANGCHUAN_ADVERSARY_ONLY";
const SEED: &str = "WANGCHUAN_ADVERSARY_SEED";
const PROCESS: &str = "WANGCHUAN_ADVERSARY_PROCESS";
const KEEP_ROOTS: &str = "WANGCHUAN_ADVERSARY_KEEP_ROOTS";

async fn sql(folder: &Path, text: String) {
    let mut connection =
        SqliteConnection::connect(&format!("sqlite://{}", folder.join("shop.db").display())).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// How the lives of a suite are led.
pub struct Way {
    /// The test that is its own child.
    pub test: &'static str,
    /// Where processes are killed.
    pub points: Vec<&'static str>,
    /// Whether the thief keeps roots as they are in memory: of a key service, what lies in the folder of the slot opens nothing later.
    pub keeps_roots: bool,
    /// The server on which the control databases of the worlds lie, if they are no files.
    pub server: Option<String>,
}

/// The thief looks into the memory of a process, and has the root that is in force.
async fn keep_root(folder: &Path, installation: &Installation) {
    if std::env::var_os(KEEP_ROOTS).is_some() {
        look_at_root(folder, installation).await;
    }
}

async fn look_at_root(folder: &Path, installation: &Installation) {
    let generation = installation.control.read().await.unwrap().tree_root().await.unwrap().unwrap().0;
    let root = installation.keyring.slot().open(generation).await.unwrap();
    std::fs::create_dir_all(folder.join("seen")).unwrap();
    std::fs::write(folder.join("seen").join(generation.to_string()), root.dangerous_bytes()).unwrap();
}

/// What the thief takes: the control database with its journals, or all tables of it where it is on a server, and the root.
fn keep(folder: &Path) {
    let kept = folder.join("kept");
    let number = std::fs::read_dir(&kept).map_or(0, Iterator::count);
    let to = kept.join(format!("{number:03}"));
    std::fs::create_dir_all(&to).unwrap();
    copy_folder(&folder.join("state"), &to.join("state"));
    keep_tables(folder, &to);
    copy_folder(&folder.join("root"), &to.join("root"));
}

/// Customers whose rows the application put back: their first texts may be found again.
fn note_return(folder: &Path, id: &str) {
    let mut file = std::fs::File::options().create(true).append(true).open(folder.join("returned")).unwrap();
    writeln!(file, "{id}").unwrap();
}

/// One random step. Refusals are part of life.
async fn step(folder: &Path, installation: &Installation, dice: &mut Dice, customers: &[String]) -> Result<()> {
    let customer = customers[dice.below(customers.len())].as_str();
    match dice.below(10) {
        0 => {
            let order = 900_000 + dice.below(90_000);
            let year = [2022, 2023, 2025][dice.below(3)];
            note_return(folder, customer);
            sql(
                folder,
                format!(
                    "INSERT OR IGNORE INTO orders SELECT {order}, customer_id, 'completed', '{year}-02-01 08:00:00', \
                     '{year}-02-09 08:00:00', 1, 'new street' FROM customers WHERE customer_id = '{customer}'"
                ),
            )
            .await;
            Ok(())
        }
        1 => try_snapshot(installation).await.map(drop),
        2 | 3 => try_take(installation, Wanted::increment(&installation.config)).await.map(drop),
        4 => {
            let plan = plan_retention(installation).await?;
            execute(installation, &plan.row).await.map(drop)
        }
        5 | 6 => {
            let received = receive(installation, &Subject::new(customer)).await?;
            let plan = plan_request(installation, received.request.number).await?;
            execute(installation, &plan.row).await.map(drop)
        }
        7 => {
            let holds = installation.control.read().await?.holds(true).await?;
            match holds.first() {
                Some(hold) if dice.below(2) == 0 => release(installation, &hold.id).await,
                _ => hold_subject(installation, customer, &format!("h-{}", dice.next())).await,
            }
            Ok(())
        }
        _ => shred_due(installation).await.map(drop),
    }
}

fn accept(done: Result<()>, what: &str) {
    match done {
        Ok(()) | Err(TaskError::Refused { .. } | TaskError::Erase(EraseError::Refused { .. })) => {}
        Err(error) => panic!("{what}: {error}"),
    }
}

async fn open_at(folder: &Path, process: u64) -> Installation {
    let clock = manual_clock_at(dawn() + TimeDelta::days(2 * process as i64));
    let opened = Installation::open(read_config(folder), Needs::ALL, clock, Arc::new(SystemRandom)).await.unwrap();
    opened.confirm_clock().await.unwrap();
    opened
}

/// A process of a life, which may be killed at any time; whether this is one.
pub async fn is_child() -> bool {
    let Ok(folder) = std::env::var(FOLDER) else { return false };
    live(Path::new(&folder)).await;
    true
}

async fn live(folder: &Path) {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (seed, process) = (number(SEED), number(PROCESS));
    let customers: Vec<String> =
        std::fs::read_to_string(folder.join("customers")).unwrap().lines().map(str::to_owned).collect();
    let mut dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(process));
    let installation = open_at(folder, process).await;
    keep_root(folder, &installation).await;
    resume_runs(&installation).await.unwrap();
    if process == 0 {
        snapshot(&installation).await;
        keep(folder);
    }
    for at in 0..STEPS {
        accept(step(folder, &installation, &mut dice, &customers).await, &format!("seed {seed}, step {at}"));
        keep_root(folder, &installation).await;
        keep(folder);
    }
    installation.close().await.unwrap();
}

/// Runs a process that dies at a random point, if it comes there; the point where it did.
fn run_process(world: &World, seed: u64, process: u64, dice: &mut Dice, way: &Way) -> Option<&'static str> {
    let point = way.points[dice.below(way.points.len())];
    let mut command = Command::new(std::env::current_exe().unwrap());
    if way.keeps_roots {
        command.env(KEEP_ROOTS, "1");
    }
    let done = command
        .args([way.test, "--exact", "--test-threads=1"])
        .env(FOLDER, world.folder.path())
        .env(SEED, seed.to_string())
        .env(PROCESS, process.to_string())
        .env("WANGCHUAN_CRASH_AT", format!("{point}:{}", 1 + dice.below(2)))
        .output()
        .unwrap();
    let killed = done.status.signal() == Some(9);
    assert!(killed || done.status.success(), "seed {seed}, {point}: {}", String::from_utf8_lossy(&done.stdout));
    keep(world.folder.path());
    killed.then_some(point)
}

/// What one life came to, or several together.
#[derive(Default)]
pub struct Life {
    killed: Vec<&'static str>,
    shredded_runs: usize,
    shredded_frames: usize,
    opened_frames: u64,
    kept: usize,
    increments: usize,
}

/// Leads one life in a world of its own.
pub async fn one_life(world: &World, seed: u64, way: &Way) -> Life {
    let mut dice = Dice(seed);
    let mut life = Life::default();
    for process in 0..PROCESSES {
        life.killed.extend(run_process(world, seed, process, &mut dice, way));
    }
    // Two starts more, the second with nothing left to recover; then holds end, and so does every grace.
    open_at(world.folder.path(), PROCESSES).await.close().await.unwrap();
    let installation = open_at(world.folder.path(), PROCESSES + 4).await;
    if way.keeps_roots {
        look_at_root(world.folder.path(), &installation).await;
    }
    let resumed = resume_runs(&installation).await.unwrap();
    assert!(resumed.failed.is_empty(), "seed {seed}: {:?}", resumed.failed);
    let holds = installation.control.read().await.unwrap().holds(true).await.unwrap();
    for hold in holds {
        release(&installation, &hold.id).await;
    }
    keep(world.folder.path());
    let last = if seed.is_multiple_of(2) { snapshot(&installation).await } else { increment(&installation).await };
    life.increments += usize::from(last.kind == "incremental");
    keep(world.folder.path());
    shred_due(&installation).await.unwrap();

    let restored = restore(world, &installation, &last, "restored.db").await.unwrap();
    assert!(restored.is_whole(), "seed {seed}: {restored:?}");
    assert!(restored.frames_shredded == 0 || last.kind == "incremental", "seed {seed}: {restored:?}");
    assert_eq!(world.dump_all("restored.db").await, world.dump_all("shop.db").await, "seed {seed}");
    let gone = forgotten(world, &installation, &mut life).await;
    try_everything(world, &installation, seed, (&gone, way), &mut life).await;
    installation.close().await.unwrap();
    life
}

/// The first texts of customers of whom nothing is left, by finished requests.
async fn forgotten(world: &World, installation: &Installation, life: &mut Life) -> HashSet<String> {
    let mut tx = installation.control.read().await.unwrap();
    let mut gone = HashSet::new();
    let returned = std::fs::read_to_string(world.path("returned")).unwrap_or_default();
    for run in tx.runs(None).await.unwrap() {
        assert!(matches!(run.state.as_str(), "shredded" | "shred-pending"), "{}", run.state);
        let body = RunBody::of(&run).unwrap();
        assert_eq!(body.due, body.erased + body.stripped + body.kept + body.failed);
        life.shredded_runs += usize::from(run.state == "shredded");
        if run.state == "shredded" {
            let barrier = run.verified_snapshot.unwrap();
            assert_eq!(tx.rows_still_readable(&run.id, barrier).await.unwrap(), 0);
        }
    }
    let customers = std::fs::read_to_string(world.path("customers")).unwrap();
    drop(tx);
    for id in customers.lines().filter(|id| !returned.lines().any(|back| back == *id)) {
        let left = world.number("shop.db", &format!("SELECT count(*) FROM customers WHERE customer_id = '{id}'")).await;
        let asked = is_shredded(installation, id).await;
        if left == 0 && asked {
            gone.extend(world.shop.canaries_of(id).map(str::to_owned));
        }
    }
    gone
}

/// Whether a request of this customer was carried out in full and its keys are destroyed. What a request kept (for a hold) may have
/// gone with a later retention, whose keys may still wait.
async fn is_shredded(installation: &Installation, id: &str) -> bool {
    let mut tx = installation.control.begin().await.unwrap();
    let key = installation.keyring.work_key(&mut tx, wangchuan::keyring::Purpose::Lookup, "").await.unwrap();
    let lookup = wangchuan::erase::planner::subject_lookup(&key, &Subject::new(id));
    let requests = tx.requests(None).await.unwrap();
    let mut shredded = false;
    for request in requests.iter().filter(|request| request.lookup == lookup) {
        if let Some(run) = &request.run {
            let run = tx.run(run).await.unwrap().unwrap();
            shredded |= run.state == "shredded" && RunBody::of(&run).unwrap().kept == 0;
        }
    }
    tx.commit().await.unwrap();
    shredded
}

/// Tries every frame of every snapshot with everything that was kept.
async fn try_everything(
    world: &World,
    installation: &Installation,
    seed: u64,
    (gone, way): (&HashSet<String>, &Way),
    life: &mut Life,
) {
    let mut kept: Vec<PathBuf> =
        std::fs::read_dir(world.path("kept")).unwrap().map(|entry| entry.unwrap().path()).collect();
    kept.sort();
    life.kept = kept.len();
    let mut trees: Vec<(PathBuf, Tree)> = Vec::new();
    for folder in kept {
        let server = way.server.as_deref();
        trees.push((folder.clone(), tree_kept_in(&folder, server).await));
    }
    let slots = slots_ever(&installation.control).await;
    let thief = secrets_of_today(world, installation, &trees, &slots).await;
    let once = secrets_of_then(world, &trees, &slots, way).await;
    let rows = installation.control.read().await.unwrap().snapshots(None).await.unwrap();
    let repository = installation.backup().unwrap().repository.clone();
    for row in rows {
        let number = row.number;
        let ground = installation.ground().unwrap();
        let opened = open(&ground, repository.as_ref(), &installation.signer, row).await.unwrap();
        let mut open_rows = OpenRows::default();
        let read = opened.read(repository.as_ref(), &mut open_rows).await.unwrap();
        let lost = read.frames_in(FrameState::Lost) + read.frames_in(FrameState::Corrupt);
        assert_eq!(lost, 0, "seed {seed}, snapshot {number}");
        life.opened_frames += read.frames_in(FrameState::Opened);
        for (table, rows) in &open_rows.0 {
            for text in
                rows.iter().flatten().filter_map(|value| if let Value::Text(text) = value { Some(text) } else { None })
            {
                assert!(
                    !gone.contains(text),
                    "seed {seed}, snapshot {number}: a text of a forgotten customer opens in {table}"
                );
            }
        }
        for (suite, id, commitment) in super::thief::shredded_frames(installation, &opened).await {
            life.shredded_frames += 1;
            let opens = |secrets: &[CellSecret], snapshot: &OpenSnapshot| {
                secrets.iter().any(|secret| snapshot.frame_key(suite, secret, &id).commits_to(&commitment))
            };
            assert!(!opens(&thief, &opened), "seed {seed}, snapshot {number}: a shredded frame opens");
            assert!(opens(&once, &opened), "seed {seed}, snapshot {number}: the search does not find old keys");
        }
        check_packs(repository.as_ref(), &opened).await;
    }
}

/// Every object that a snapshot names is there and is what it was.
async fn check_packs(repository: &dyn wangchuan::backup::object_store::ObjectStore, snapshot: &OpenSnapshot) {
    for pack in &snapshot.manifest.packs {
        let bytes = repository.get(&pack_name(&pack.sha256), max_pack_bytes()).await.unwrap();
        assert!(read_pack(&bytes, &pack.sha256).is_ok());
    }
}

/// Every number that was ever given out.
async fn slots_ever(control: &Control) -> Slots {
    let mut tx = control.read().await.unwrap();
    let mut all = async |table| {
        let mut numbers: Vec<u32> = tx.slots_in_use(table, 0, u32::MAX).await.unwrap().into_iter().collect();
        numbers.sort_unstable();
        numbers
    };
    Slots {
        subjects: all(SlotTable::Subject).await,
        buckets: all(SlotTable::Bucket).await,
        pins: all(SlotTable::Pin).await,
    }
}

/// What the crown and root of today open over every copy of every node, whichever copy of a node comes last.
async fn secrets_of_today(
    world: &World,
    installation: &Installation,
    trees: &[(PathBuf, Tree)],
    slots: &Slots,
) -> Vec<CellSecret> {
    let now = tree_in(world.folder.path()).await;
    let root = installation.keyring.slot();
    let present = root.list().await.unwrap();
    assert_eq!(present.iter().map(|root| root.generation).collect::<Vec<_>>(), [now.generation]);
    let key = root.open(now.generation).await.unwrap();
    let all = || trees.iter().flat_map(|(_, tree)| &tree.nodes).chain(&now.nodes);
    let backwards: Vec<&NodeRow> = all().collect::<Vec<_>>().into_iter().rev().collect();
    let mut secrets = Vec::new();
    for nodes in [node_set(all()), node_set(backwards)] {
        let tree = KeyTree::open(now.installation, now.generation, &key, &now.crown, nodes).unwrap();
        secrets.extend(reachable(&tree, slots));
    }
    for (_, tree) in trees.iter().filter(|(_, tree)| tree.generation < now.generation) {
        let nodes = || node_set(&tree.nodes);
        assert!(KeyTree::open(now.installation, tree.generation, &key, &tree.crown, nodes()).is_err());
    }
    secrets
}

/// What the kept roots open, each with its own control database: the newest copy of every generation.
async fn secrets_of_then(world: &World, trees: &[(PathBuf, Tree)], slots: &Slots, way: &Way) -> Vec<CellSecret> {
    let newest: HashMap<i64, &(PathBuf, Tree)> = trees.iter().map(|kept| (kept.1.generation, kept)).collect();
    let mut secrets = Vec::new();
    for (generation, (folder, tree)) in newest {
        let key = if way.keeps_roots {
            let bytes = std::fs::read(world.path("seen").join(generation.to_string())).unwrap();
            Key::dangerous_from_bytes(&bytes.try_into().unwrap())
        } else {
            let root = FileSlot::at(&folder.join("root"), tree.installation).unwrap();
            root.open(generation).await.unwrap()
        };
        let opened = KeyTree::open(tree.installation, generation, &key, &tree.crown, node_set(&tree.nodes)).unwrap();
        secrets.extend(reachable(&opened, slots));
    }
    secrets
}

/// A world in which lives begin, with the ids of its customers beside it.
pub async fn world_of_lives(making: Making) -> World {
    let world = World::make(Making { customers: 10, bucket: "year", max_percent: 100, ..making }).await;
    let rows = world.shop.rows_of("customers");
    let at = world.shop.columns_of("customers").iter().position(|name| *name == "customer_id").unwrap();
    let ids: Vec<String> =
        rows.iter().filter_map(|row| if let Value::Text(id) = &row[at] { Some(id.clone()) } else { None }).collect();
    std::fs::write(world.path("customers"), ids.join("\n")).unwrap();
    world
}

/// The graces of the worlds in which lives begin, in turn.
pub const GRACES: [&str; 2] = ["0", "72 hours"];

/// The seeds of so many lives, or the one that somebody wants to see again.
pub fn seeds(lives: u64) -> (RangeInclusive<u64>, bool) {
    let only = std::env::var(ONLY).ok().and_then(|seed| seed.parse::<u64>().ok());
    (only.map_or(1..=lives, |seed| seed..=seed), only.is_some())
}

/// Tells what lives came to, and requires that they were of some use.
pub fn tell(what: &str, lives: impl IntoIterator<Item = Life>, is_one: bool, least_frames: usize) {
    let mut killed: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut sum, mut count) = (Life::default(), 0);
    for life in lives {
        life.killed.iter().for_each(|point| *killed.entry(point).or_default() += 1);
        sum.shredded_runs += life.shredded_runs;
        sum.shredded_frames += life.shredded_frames;
        sum.opened_frames += life.opened_frames;
        sum.kept += life.kept;
        count += 1;
    }
    // The harness captures the print macros, but not a handle.
    let mut err = std::io::stderr().lock();
    let Life { shredded_runs, shredded_frames, opened_frames, kept, .. } = sum;
    let _ = writeln!(
        err,
        "{count} random lives{what} (seeds 1 to {count}): {shredded_runs} runs shredded; {shredded_frames} shredded frames tried with \
         {kept} kept copies, 0 opened; {opened_frames} frames open; killed at:"
    );
    for (point, times) in &killed {
        let _ = writeln!(err, "  {times} x {point}");
    }
    let is_enough = shredded_frames > least_frames && killed.len() > 5;
    assert!(is_one || is_enough, "{shredded_frames} frames, {killed:?}");
}

/// Leads so many lives, half of them at a time.
async fn lead(lives: u64, way: Way) {
    let (seeds, is_one) = seeds(lives);
    let mut templates = Vec::new();
    for grace in GRACES {
        templates.push(world_of_lives(Making { grace, server: way.server.clone(), ..Making::default() }).await);
    }
    let what = if way.server.is_some() { " with a control database on PostgreSQL" } else { "" };
    let (templates, way) = (Arc::new(templates), Arc::new(way));
    let halves = [0, 1].map(|half| {
        let (templates, seeds, way) = (Arc::clone(&templates), seeds.clone(), Arc::clone(&way));
        tokio::spawn(async move {
            let mut done = Vec::new();
            for seed in seeds.filter(|seed| seed % 2 == half) {
                let world = templates[(seed / 2 % 2) as usize].copied();
                done.push(one_life(&world, seed, &way).await);
            }
            done
        })
    });
    let mut lives = Vec::new();
    for half in halves {
        lives.extend(half.await.unwrap());
    }
    tell(what, lives, is_one, 100);
}

fn way(test: &'static str, server: Option<String>) -> Way {
    Way { test, points: POINTS.to_vec(), keeps_roots: false, server }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_lives_leave_nothing_to_a_thief() {
    if is_child().await {
        return;
    }
    let lives = LIVES[usize::from(switched_on(LONG).is_some())];
    lead(lives, way("cycle::adversary::random_lives_leave_nothing_to_a_thief", None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_lives_on_postgresql_leave_nothing_to_a_thief() {
    if is_child().await {
        return;
    }
    let Some(server) = server("random lives") else { return };
    let lives = LIVES_ON_SERVER[usize::from(switched_on(LONG).is_some())];
    lead(lives, way("cycle::adversary::random_lives_on_postgresql_leave_nothing_to_a_thief", Some(server))).await;
}
