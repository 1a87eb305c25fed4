//! The key tree with a million customers: looking keys up, and shredding 1, 1,000 and 100,000 of them.
//!
//! First the tree alone, as the pure core computes it; beside it what it replaces, one list of keys under one master key, in
//! which forgetting any key means to wrap all others again. Then the whole generation change as the program does it: control
//! database, root slot, reading back; and again with a second place. `keytree quick` takes a tenth of the customers, `keytree
//! large` ten times as many. With `WANGCHUAN_TEST_OPENBAO`, `WANGCHUAN_TEST_SOFTHSM` and `SOFTHSM2_CONF` (see `tests/run`) the
//! operations of root slots in OpenBao and in a PKCS#11 token as well.

mod harness;
mod openbao;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use chrono::TimeDelta;
use harness::{Outcome, Row, Table, cpu_time, median, nanoseconds};
use openbao::OpenBao;
use wangchuan::backup::memory::MemoryStore;
use wangchuan::clock::{Clock, SystemClock};
use wangchuan::control::{Control, DyingKeys, Lease};
use wangchuan::keyring::second_place::{Second, SecondPlace};
use wangchuan::keyring::{self, Fence, Keyring, ShredOrder};
use wangchuan::keys::Key;
use wangchuan::keys::file_slot::FileSlot;
use wangchuan::keys::pkcs11_slot::{Pkcs11Setup, Pkcs11Slot};
use wangchuan::keys::slot::{Device, RootSlot};
use wangchuan::keys::transit_slot::TransitSlot;
use wangchuan::keys::tree::{KeyTree, NodeSet, SealedGeneration, Slot, Subtree};
use wangchuan::policy::registry::SecretText;
use wangchuan::random::{Random, SystemRandom};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const INSTALLATION: [u8; 16] = [7; 16];
/// Generation changes measured for each line.
const REPETITIONS: usize = 5;
/// A wrapped key of the flat list: nonce, key, tag.
const WRAPPED_BYTES: usize = NONCE_LEN + 32 + 16;

/// Which customers are to be forgotten.
#[derive(Clone, Copy)]
enum Choice {
    /// Anybody.
    Random,
    /// Consecutive slots, as customers of one cohort have.
    Contiguous,
}

impl Choice {
    fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Contiguous => "contiguous",
        }
    }

    /// `count` of the numbers 1 to `all`.
    fn numbers(self, count: u32, all: u32) -> Result<Vec<u32>> {
        let mut bits = [0; 8];
        SystemRandom.fill(&mut bits)?;
        let start = u64::from_le_bytes(bits);
        Ok(match self {
            Self::Contiguous => {
                let first = (start % u64::from(all - count + 1)) as u32;
                (first + 1..=first + count).collect()
            }
            Self::Random => {
                let mut state = start | 1;
                let mut chosen = std::collections::BTreeSet::new();
                while chosen.len() < count as usize {
                    // Xorshift (Marsaglia 2003): good enough to scatter, and fast.
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    chosen.insert((state % u64::from(all)) as u32 + 1);
                }
                chosen.into_iter().collect()
            }
        })
    }
}

fn slots(numbers: &[u32]) -> Result<Vec<Slot>> {
    numbers.iter().map(|number| Ok(Slot::new(Subtree::Subjects, *number)?)).collect()
}

fn fresh_keys(first: u32, last: u32) -> Result<Vec<(Slot, Key)>> {
    (first..=last).map(|number| Ok((Slot::new(Subtree::Subjects, number)?, Key::make(&SystemRandom)?))).collect()
}

/// A sealed tree with customers in slots 1 to `all`, as a database would hold it.
struct Sealed {
    root: Key,
    crown: Vec<u8>,
    nodes: NodeSet,
}

impl Sealed {
    fn with(all: u32) -> Result<Self> {
        let root = Key::make(&SystemRandom)?;
        let first = KeyTree::create(INSTALLATION, &root, &SystemRandom)?;
        let mut nodes = first.node_set();
        let tree = KeyTree::open(INSTALLATION, 1, &root, &first.crown, nodes.clone())?;
        nodes.extend(
            tree.insert(&fresh_keys(1, all)?, &SystemRandom)?.into_iter().map(|write| (write.id, write.sealed)),
        );
        Ok(Self { root, crown: first.crown, nodes })
    }

    /// Opened afresh: no node is decrypted yet.
    fn open(&self) -> Result<KeyTree> {
        Ok(KeyTree::open(INSTALLATION, 1, &self.root, &self.crown, self.nodes.clone())?)
    }
}

fn lookups(sealed: &Sealed, all: u32, table: &mut Table) -> Outcome {
    let wanted = slots(&Choice::Random.numbers(10_000.min(all / 10), all)?)?;
    let mut cold = Vec::new();
    for _ in 0..REPETITIONS {
        // One at a time in a tree that has nothing open: what the first look into a corner of the tree costs.
        for slot in wanted.iter().take(100) {
            let path = slot.path().map(|place| place.at(1));
            let nodes: NodeSet = path.iter().filter_map(|id| Some((*id, sealed.nodes.get(id)?.clone()))).collect();
            let before = cpu_time();
            let tree = KeyTree::open(INSTALLATION, 1, &sealed.root, &sealed.crown, nodes)?;
            black_box(tree.key(*slot)?);
            cold.push(cpu_time().saturating_sub(before).as_nanos() as f64);
        }
    }
    let tree = sealed.open()?;
    for slot in &wanted {
        black_box(tree.key(*slot)?);
    }
    let warm = nanoseconds(|number| {
        black_box(tree.key(wanted[number as usize % wanted.len()])?);
        Ok(())
    })?;
    let cells = |ns: f64| vec![format!("{:.2}", ns / 1000.0), String::new(), String::new()];
    table.push(Row { name: "look up, five nodes to open (µs)".to_owned(), cells: cells(median(cold)) });
    table.push(Row { name: "look up, nodes open already (µs)".to_owned(), cells: cells(warm) });
    Ok(())
}

fn bytes_of(next: &SealedGeneration) -> usize {
    next.crown.len() + next.nodes.iter().map(|node| node.sealed.len()).sum::<usize>()
}

/// The pure part of a shred, from sealed nodes to sealed nodes.
fn rekeys(sealed: &Sealed, all: u32, count: u32, choice: Choice) -> Result<Row> {
    let (mut times, mut nodes, mut bytes) = (Vec::new(), 0, 0);
    for _ in 0..REPETITIONS {
        let victims = slots(&choice.numbers(count, all)?)?;
        let tree = sealed.open()?;
        let before = cpu_time();
        let next = tree.rekey(&victims, &[], &Key::make(&SystemRandom)?, &SystemRandom)?;
        times.push(milliseconds(cpu_time().saturating_sub(before)));
        (nodes, bytes) = (next.nodes.len(), bytes_of(&next));
    }
    let cells = vec![format!("{:.2}", median(times)), nodes.to_string(), kilobytes(bytes)];
    Ok(Row { name: format!("tree alone: shred {count} {} (ms)", choice.name()), cells })
}

/// Keys that must survive get pins in the same change.
fn rekey_with_pins(sealed: &Sealed, all: u32, count: u32) -> Result<Row> {
    let mut times = Vec::new();
    let (mut nodes, mut bytes) = (0, 0);
    for _ in 0..REPETITIONS {
        let victims = slots(&Choice::Random.numbers(count, all)?)?;
        let mut pins = Vec::new();
        for number in 1..=count {
            pins.push((Slot::new(Subtree::Pins, number)?, Key::make(&SystemRandom)?));
        }
        let tree = sealed.open()?;
        let before = cpu_time();
        let next = tree.rekey(&victims, &pins, &Key::make(&SystemRandom)?, &SystemRandom)?;
        times.push(milliseconds(cpu_time().saturating_sub(before)));
        (nodes, bytes) = (next.nodes.len(), bytes_of(&next));
    }
    let cells = vec![format!("{:.2}", median(times)), nodes.to_string(), kilobytes(bytes)];
    Ok(Row { name: format!("tree alone: shred {count} random, pin {count} cells (ms)"), cells })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn kilobytes(bytes: usize) -> String {
    format!("{:.0}", bytes as f64 / 1000.0)
}

/// What the tree replaces: every wrapped key opened and sealed again under a new master key, however few are forgotten.
fn flat_rewrap(all: u32) -> Result<Row> {
    let master = || -> Result<LessSafeKey> {
        let mut key = [0; 32];
        SystemRandom.fill(&mut key)?;
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key)?))
    };
    let wrap = |master: &LessSafeKey, row: u32, key: &[u8], out: &mut Vec<u8>| -> Outcome {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom.fill(&mut nonce)?;
        let mut sealed = key.to_vec();
        let context = Aad::from(row.to_be_bytes());
        master.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), context, &mut sealed)?;
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(())
    };
    let old = master()?;
    let mut list = Vec::with_capacity(all as usize * WRAPPED_BYTES);
    for row in 0..all {
        wrap(&old, row, &[row as u8; 32], &mut list)?;
    }
    let before = cpu_time();
    let new = master()?;
    let mut rewrapped = Vec::with_capacity(list.len());
    for (row, wrapped) in list.chunks_exact_mut(WRAPPED_BYTES).enumerate() {
        let (nonce, sealed) = wrapped.split_first_chunk_mut::<NONCE_LEN>().ok_or("a short row")?;
        let context = Aad::from((row as u32).to_be_bytes());
        let key = old.open_in_place(Nonce::assume_unique_for_key(*nonce), context, sealed)?;
        wrap(&new, row as u32, key, &mut rewrapped)?;
    }
    let time = milliseconds(cpu_time().saturating_sub(before));
    let cells = vec![format!("{time:.0}"), all.to_string(), kilobytes(black_box(rewrapped).len())];
    Ok(Row { name: "flat list, wrapped again: forget any number (ms)".to_owned(), cells })
}

/// The program's own installation of keys, on disk.
struct Installed {
    control: Control,
    keyring: Keyring,
    slot: Arc<FileSlot>,
    folder: tempfile::TempDir,
    token: i64,
    alive: Vec<u32>,
}

const LEASE: &str = "bench";
/// Customers whose keys are made in one transaction.
const CUSTOMERS_AT_ONCE: u32 = 1_000_000;

/// What stands for a customer in the control database.
fn lookup_of(number: u32) -> [u8; 32] {
    let mut lookup = [0; 32];
    lookup[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
    lookup
}

/// What one generation change took.
struct Spent {
    cpu: f64,
    wall: f64,
    nodes: u64,
}

impl Installed {
    async fn with(all: u32) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let control = Control::create(&folder.path().join("state.db"), INSTALLATION).await?;
        let slot = Arc::new(FileSlot::prepare(&folder.path().join("root"), INSTALLATION)?);
        let keyring = Keyring::new(INSTALLATION, slot.clone(), Arc::new(SystemRandom));
        let now = SystemClock.now();
        keyring.create_tree(&control, now).await?;
        for first in (1..=all).step_by(CUSTOMERS_AT_ONCE as usize) {
            let last = all.min(first + CUSTOMERS_AT_ONCE - 1);
            let mut tx = control.begin().await?;
            keyring.insert(&mut tx, &fresh_keys(first, last)?).await?;
            let subjects: Vec<_> = (first..=last).map(|number| (number, lookup_of(number))).collect();
            tx.add_subjects(&subjects).await?;
            tx.commit().await?;
        }
        let mut tx = control.begin().await?;
        let Lease::Taken { token } = tx.take_lease(LEASE, "bench", now, now + TimeDelta::hours(9)).await? else {
            return Err("the lease is taken".into());
        };
        tx.commit().await?;
        Ok(Self { control, keyring, slot, folder, token, alive: (1..=all).collect() })
    }

    /// Gives it a second place in memory that has everything already.
    async fn with_second_place(mut self) -> Result<Self> {
        let place = SecondPlace::new(Arc::new(MemoryStore::default()), Vec::new());
        self.keyring.set_second_place(Second::Open(Box::new(place)));
        self.keyring.seal_state(&self.control, &SystemClock).await?;
        Ok(self)
    }

    /// Marks customers as the erasure does long before the shred, each with a cell and a sealed row if it is to have one.
    async fn mark(&self, victims: &[u32], has_cells: bool) -> Outcome {
        let mut tx = self.control.begin().await?;
        for victim in victims {
            tx.tombstone_subject(&lookup_of(*victim), "run").await?;
            if has_cells {
                let cell = tx.cell(Some(*victim), 1).await?;
                let mut row = [0; 16];
                row[..8].copy_from_slice(&(cell.id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
                tx.note_sealed_rows(1, &[(row, cell.id)]).await?;
            }
        }
        Ok(tx.commit().await?)
    }

    /// One whole generation change.
    async fn shred(&mut self, count: u32, choice: Choice, has_cells: bool) -> Result<Spent> {
        let chosen = choice.numbers(count, self.alive.len() as u32)?;
        let victims: Vec<u32> = chosen.iter().map(|at| self.alive[*at as usize - 1]).collect();
        self.mark(&victims, has_cells).await?;
        let dying = DyingKeys { subjects: victims.clone(), ..DyingKeys::default() };
        let fence = Fence { lease: LEASE, token: self.token, lasts: TimeDelta::hours(9) };
        let order = ShredOrder { fence, dying: &dying, preserved: &[], holds: &[] };
        let (cpu, wall, nodes) = (cpu_time(), Instant::now(), self.keyring.nodes_read());
        let done = keyring::shred(&self.keyring, &self.control, &order, &SystemClock).await?;
        let spent = Spent {
            cpu: milliseconds(cpu_time().saturating_sub(cpu)),
            wall: milliseconds(wall.elapsed()),
            nodes: self.keyring.nodes_read() - nodes,
        };
        let left: std::collections::HashSet<u32> = victims.iter().copied().collect();
        self.alive.retain(|number| !left.contains(number));
        self.check(done.generation, &victims).await?;
        Ok(spent)
    }

    /// A fast shred that does not shred is not worth measuring.
    async fn check(&self, generation: i64, victims: &[u32]) -> Outcome {
        let roots: Vec<i64> = self.slot.list().await?.iter().map(|root| root.generation).collect();
        if roots != [generation] {
            return Err("old roots are still there".into());
        }
        let mut tx = self.control.read().await?;
        let first_alive = self.alive.first().copied().ok_or("nobody is left")?;
        for number in victims.iter().step_by(victims.len().div_ceil(100)) {
            if self.keyring.key(&mut tx, Subtree::Subjects, *number).await?.is_some() {
                return Err("a shredded key is still there".into());
            }
        }
        self.keyring.key(&mut tx, Subtree::Subjects, first_alive).await?.map(|_| ()).ok_or("a key was lost".into())
    }

    fn database_bytes(&self) -> Result<usize> {
        Ok(std::fs::metadata(self.folder.path().join("state.db"))?.len() as usize)
    }

    /// Some generation changes of one kind, as a line of a table.
    async fn line(&mut self, (count, repetitions): (u32, usize), choice: Choice, has_cells: bool) -> Result<Row> {
        let (mut cpu, mut wall, mut nodes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..repetitions {
            let spent = self.shred(count, choice, has_cells).await?;
            cpu.push(spent.cpu);
            wall.push(spent.wall);
            nodes = spent.nodes;
        }
        let cells = vec![format!("{:.1}", median(cpu)), format!("{:.0}", median(wall)), nodes.to_string()];
        let more = if has_cells { ", a cell and a sealed row each" } else { "" };
        Ok(Row { name: format!("shred {count} {}{more}", choice.name()), cells })
    }
}

const WHOLE: [&str; 3] = ["processor ms", "wall ms", "nodes read"];

async fn whole_changes(all: u32, most: u32) -> Result<Installed> {
    let mut table = Table::new(&format!("{all} customers, whole generation change"), &WHOLE);
    let mut installed = Installed::with(all).await?;
    for work in [(1, REPETITIONS), (1000, REPETITIONS), (most, 1)] {
        for choice in [Choice::Random, Choice::Contiguous] {
            table.push(installed.line(work, choice, false).await?);
        }
    }
    table.push(installed.line((1000, REPETITIONS), Choice::Random, true).await?);
    table.push(installed.line((most, 1), Choice::Random, true).await?);
    let size = vec![kilobytes(installed.database_bytes()?), String::new(), String::new()];
    table.push(Row { name: "control database (kB)".to_owned(), cells: size });
    table.print();
    Ok(installed)
}

async fn with_second_place(installed: Installed) -> Outcome {
    let mut table = Table::new("the same with a second place (in memory, holding everything)", &WHOLE);
    let mut installed = installed.with_second_place().await?;
    for work in [(1, 3), (1000, 3)] {
        table.push(installed.line(work, Choice::Random, false).await?);
    }
    table.print();
    Ok(())
}

/// Creates, opens, lists, destroys and reads back roots, one after the other.
async fn slot_operations(name: &str, slot: &dyn RootSlot, repetitions: i64, table: &mut Table) -> Outcome {
    let mut times: [Vec<f64>; 5] = Default::default();
    for generation in 1..=repetitions {
        let mut at = 0;
        let mut timed = |began: Instant| {
            times[at].push(milliseconds(began.elapsed()));
            at += 1;
        };
        let began = Instant::now();
        slot.create(generation, &SystemRandom).await?;
        timed(began);
        let began = Instant::now();
        slot.open(generation).await?;
        timed(began);
        let began = Instant::now();
        slot.list().await?;
        timed(began);
        // A slot in a service destroys what is before the newest root.
        if generation > 1 {
            let began = Instant::now();
            slot.destroy(generation - 1).await?;
            timed(began);
            let began = Instant::now();
            slot.verify_gone(generation - 1).await?;
            timed(began);
        }
    }
    for (operation, times) in ["create", "open", "list", "destroy", "read back as gone"].into_iter().zip(times) {
        table.push(Row { name: format!("{name}: {operation}"), cells: vec![format!("{:.2}", median(times))] });
    }
    Ok(())
}

async fn slots_table() -> Outcome {
    let mut table = Table::new("one operation, wall time", &["ms"]);
    let folder = tempfile::tempdir()?;
    let slot = FileSlot::prepare(&folder.path().join("root"), INSTALLATION)?;
    slot_operations("file slot", &slot, 31, &mut table).await?;
    if let Some(program) = std::env::var("WANGCHUAN_TEST_OPENBAO").ok().filter(|program| !program.is_empty()) {
        let bao = OpenBao::start(&program).await?;
        let slot = TransitSlot::prepare(&bao.setup(&bao.folder().join("root")), INSTALLATION)?;
        slot_operations("transit slot, OpenBao on this host (raft, one node)", &slot, 31, &mut table).await?;
    }
    if let Some(module) = std::env::var_os("WANGCHUAN_TEST_SOFTHSM").filter(|module| !module.is_empty()) {
        let slot = Pkcs11Slot::prepare(&token(module.into(), &folder.path().join("token"))?, INSTALLATION)?;
        slot_operations("PKCS#11 slot, SoftHSM", &slot, 31, &mut table).await?;
    }
    table.print();
    Ok(())
}

/// A new token among those that `SOFTHSM2_CONF` names.
fn token(module: PathBuf, folder: &Path) -> Result<Pkcs11Setup> {
    let (token_label, pin) = ("bench".to_owned(), "271828");
    let init = ["--init-token", "--free", "--label", &token_label, "--pin", pin, "--so-pin", "314159265"];
    let made = std::process::Command::new("softhsm2-util").args(init).output()?;
    if !made.status.success() {
        return Err(format!("no token: {}", String::from_utf8_lossy(&made.stderr)).into());
    }
    Ok(Pkcs11Setup {
        module,
        token_label,
        pin: SecretText::new(pin.to_owned()),
        device: Device::Software,
        snapshot_retention_days: None,
        folder: folder.to_owned(),
    })
}

fn main() -> Outcome {
    let is = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    let all: u32 = if is("quick") {
        100_000
    } else if is("large") {
        10_000_000
    } else {
        1_000_000
    };
    let most = 100_000.min(all / 10);

    let mut pure = Table::new(&format!("{all} customers, processor time"), &["time", "nodes or rows", "kB written"]);
    let sealed = Sealed::with(all)?;
    lookups(&sealed, all, &mut pure)?;
    for count in [1, 1000, most] {
        pure.push(rekeys(&sealed, all, count, Choice::Random)?);
        pure.push(rekeys(&sealed, all, count, Choice::Contiguous)?);
    }
    pure.push(rekey_with_pins(&sealed, all, 1000)?);
    pure.push(flat_rewrap(all)?);
    pure.print();
    drop(sealed);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { with_second_place(whole_changes(all, most).await?).await })?;

    runtime.block_on(slots_table())
}
