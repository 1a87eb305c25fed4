//! A small world: what the stores, the control database and the bucket hold, as far as the life and death of keys goes.

use std::collections::BTreeMap;

use wangchuan::control::{CellRow, DyingKeys};

/// A person, counted from 0.
pub type Who = u8;
/// A row, by its index in [`Scene::rows`].
pub type RowId = u8;
/// A version of a row's content, counted over the whole world.
pub type Version = u8;

/// The period of a row's start event, and so its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    /// It has none: never due.
    Open,
    /// Its rows are due, and its bucket wholly so.
    Past,
    /// Its rows are due, its bucket only at the last time.
    Part,
    /// Its rows are bound by a statute.
    Recent,
}

/// A rule of dying that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// 1: rows that stay are pinned.
    Pins,
    /// 2: a key dies only after a snapshot begun after the marking.
    Barrier,
    /// 3: nothing is erased, marked or shredded while a snapshot is taken.
    Fence,
    /// 4: a hold stops the shred of what is erased already, up to the commit.
    Holds,
    /// 5: a shred waits for the end of grace, of its own run and of others in the same cells.
    Grace,
    /// 5: undo never overwrites a living row.
    Undo,
    /// 6: ledger entries apply to versions that were sealed before them.
    Ledger,
    /// 7: a run with rows that still open is pending, not shredded.
    Pending,
    /// 8: the old root goes only after the new generation is committed.
    Order,
    /// 4 (keys): in a slot that destroys at a date, a run is shredded only once every root that could open its rows is read back as
    /// gone.
    Delay,
    /// 5 (keys): what still opened is noted before the change that closes it, so that a crash in between does not lose it.
    Remember,
    /// A restore looks at the ledger again before it commits, and puts nothing in when rows were erased meanwhile.
    Reread,
}

impl Rule {
    pub const ALL: [Self; 12] = [
        Self::Pins,
        Self::Barrier,
        Self::Fence,
        Self::Holds,
        Self::Grace,
        Self::Undo,
        Self::Ledger,
        Self::Pending,
        Self::Order,
        Self::Delay,
        Self::Remember,
        Self::Reread,
    ];
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowSpec {
    /// Whose it is.
    pub who: Who,
    /// Where it stands, at the beginning and when it is inserted again; people are [`Period::Open`].
    pub home: Period,
    /// Whether it is a person's row, to which the notes refer.
    pub is_person: bool,
}

/// How often each kind of event may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Budget {
    pub writes: u8,
    pub snapshots: u8,
    pub requests: u8,
    pub retentions: u8,
    pub shreds: u8,
    pub ticks: u8,
    pub holds: u8,
    pub edits: u8,
    pub crashes: u8,
    pub undos: u8,
    /// Dates of doomed roots that pass.
    pub dates: u8,
    /// Destructions that somebody calls off.
    pub call_offs: u8,
    /// Restores.
    pub reads: u8,
}

/// Which world is explored, and how far.
#[derive(Debug, Clone)]
pub struct Scene {
    pub name: &'static str,
    pub rows: Vec<RowSpec>,
    /// Rows that are not there at the beginning.
    pub absent: Vec<RowId>,
    pub budget: Budget,
    /// Whether runs have a grace of one tick.
    pub grace: bool,
    /// Whether snapshots, runs and shreds go through without anything in between.
    pub coarse: bool,
    /// Whether the slot destroys only at a date.
    pub delayed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Live {
    pub period: Period,
    pub version: Version,
    /// Whether it was stripped.
    pub is_blank: bool,
}

/// What a key's record says. Generations count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Active,
    /// Its erasure was undone when a newer instance was in use already: it opens old frames and takes no new rows.
    Retained,
    /// Marked by a run; chains by a crash, with [`BY_CRASH`].
    Dying(u8),
    /// Destroyed with the change to this generation.
    Dead(u8),
}

/// Marks a chain whose snapshot was cancelled.
pub const BY_CRASH: u8 = u8::MAX;

impl State {
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Dead(_))
    }

    /// Whether it is neither dead nor to die.
    pub fn is_living(self) -> bool {
        matches!(self, Self::Active | Self::Retained)
    }
}

/// A bucket's identity: collection, version of the policy, period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket {
    pub is_people: bool,
    pub edited: bool,
    pub period: Period,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubjectKey {
    pub who: Who,
    pub state: State,
    pub born: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BucketKey {
    pub name: Bucket,
    pub state: State,
    pub born: u8,
}

/// A cell as the control database has it; slots are 1 and up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cell {
    pub subject: Option<u8>,
    pub bucket: u8,
    pub fresh: Option<u8>,
    pub pin: Option<u8>,
    pub is_dead: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin {
    pub cell: u8,
    pub who: Who,
    pub bucket: Bucket,
    pub is_fresh: bool,
    pub state: State,
    /// The generation in which it got its key; 0 while a preserving pin is not filled.
    pub born: u8,
}

/// A frame in the bucket: one version of one row in one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frame {
    pub row: RowId,
    pub version: Version,
    pub is_blank: bool,
    pub cell: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Taking {
    /// Its view is open.
    Begun,
    /// Its frames are in the bucket, its manifest is not.
    Sealed,
    Committed,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The ledger's head when it began.
    pub position: u8,
    pub taking: Taking,
    pub chain: State,
    pub born: u8,
    /// What its view holds, with the cell of the newest pin on it at its beginning.
    pub view: Vec<(RowId, Live, Bucket, Option<u8>)>,
    pub frames: Vec<Frame>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Done,
    /// The read-back found the row there again.
    Void,
    Reversed,
}

/// A ledger entry; positions are 1 and up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    pub run: u8,
    pub row: RowId,
    /// The version that was erased or stripped; none when the application had deleted it.
    pub lost: Option<Live>,
    pub is_strip: bool,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Retention,
    Request(Who),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plan {
    Erase,
    Strip,
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Planned {
    pub row: RowId,
    pub period: Period,
    pub plan: Plan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    Planned,
    /// Refused when it was to be carried out.
    Void,
    Deleted,
    Pending,
    Shredded,
    Undone,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    pub target: Target,
    pub stage: Stage,
    pub plan: Vec<Planned>,
    pub edited: bool,
    /// When it was planned: what is due then is what it takes.
    pub cutoff: u8,
    /// Holds in force when it was planned.
    pub holds: [bool; 2],
    /// Snapshots that had begun when its keys were marked.
    pub barrier: u8,
    pub grace_until: u8,
    /// Whether a key that it marked died. This and the rest only where the slot destroys at a date.
    pub own_died: bool,
    /// How many of its rows opened when a shred last looked, before or behind its change.
    pub noted: u8,
    /// The generation in which its rows stopped opening.
    pub died: Option<u8>,
    /// Whether it only waits for old roots to be gone.
    pub waits: bool,
}

/// A shred that has looked and not yet finished.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shred {
    pub ready: Vec<u8>,
    pub waiting: Vec<u8>,
    pub holds: [bool; 2],
    /// How many rows of each run opened when it looked.
    pub before: Vec<u8>,
    pub step: ShredStep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShredStep {
    Checked,
    /// The new generation is in force, and the old root is still there.
    Committed,
    /// Only with [`Rule::Order`] off: the old root is gone, and the old generation in force.
    RootGone,
}

/// What became of an old root in a slot that destroys at a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Its destruction is ordered; its date is to come.
    Ordered,
    /// Somebody called that off: it opens what it opened.
    CalledOff,
    /// Its date passed.
    Gone,
    /// The agent knows.
    ReadBack,
}

impl Fate {
    /// Whether somebody could still open something with it.
    pub fn is_revocable(self) -> bool {
        matches!(self, Self::Ordered | Self::CalledOff)
    }
}

/// A restore under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reader {
    /// The snapshot that it reads.
    pub snapshot: u8,
    /// Frames that opened.
    pub opened: Vec<Frame>,
    /// Rows that the ledger had erased when it looked.
    pub erased: Vec<RowId>,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub time: u8,
    pub edited: bool,
    pub rows: Vec<Option<Live>>,
    pub versions: Version,
    pub generation: u8,
    /// The root of the generation in force is lost.
    pub is_lost: bool,
    pub subjects: Vec<SubjectKey>,
    pub buckets: Vec<BucketKey>,
    pub cells: Vec<Cell>,
    pub pins: Vec<Pin>,
    /// The sealing history: row and cell to first and last snapshot.
    pub sealed: BTreeMap<(RowId, u8), (u8, u8)>,
    pub snapshots: Vec<Snapshot>,
    pub ledger: Vec<Entry>,
    pub runs: Vec<Run>,
    pub holds: [bool; 2],
    pub shred: Option<Shred>,
    /// Whether the slot destroys only at a date.
    pub is_delayed: bool,
    /// What became of old roots, by generation.
    pub old_roots: BTreeMap<u8, Fate>,
    pub reader: Option<Reader>,
    pub left: Budget,
}

impl World {
    pub fn new(scene: &Scene) -> Self {
        let mut versions = 0;
        let rows = scene.rows.iter().enumerate().map(|(row, spec)| {
            versions += 1;
            (!scene.absent.contains(&(row as RowId))).then_some(Live {
                period: spec.home,
                version: versions,
                is_blank: false,
            })
        });
        Self {
            rows: rows.collect(),
            time: 0,
            edited: false,
            versions,
            generation: 1,
            is_lost: false,
            subjects: Vec::new(),
            buckets: Vec::new(),
            cells: Vec::new(),
            pins: Vec::new(),
            sealed: BTreeMap::new(),
            snapshots: Vec::new(),
            ledger: Vec::new(),
            runs: Vec::new(),
            holds: [false; 2],
            shred: None,
            is_delayed: scene.delayed,
            old_roots: BTreeMap::new(),
            reader: None,
            left: scene.budget,
        }
    }

    /// The cell as the real decisions take it.
    pub fn cell_row(&self, id: u8) -> CellRow {
        let cell = &self.cells[id as usize];
        CellRow {
            id: i64::from(id),
            subject: cell.subject.map(u32::from),
            bucket: u32::from(cell.bucket),
            fresh: cell.fresh.map(u32::from),
            pin: cell.pin.map(u32::from),
        }
    }

    /// Slots of a table whose state satisfies a condition, 1 and up.
    fn slots(states: impl Iterator<Item = State>, wanted: impl Fn(State) -> bool) -> Vec<u32> {
        states.enumerate().filter(|(_, state)| wanted(*state)).map(|(at, _)| at as u32 + 1).collect()
    }

    /// The keys of cells that these runs let die.
    pub fn dying_cells(&self, runs: &[u8]) -> DyingKeys {
        let doomed = |state| matches!(state, State::Dying(run) if runs.contains(&run));
        DyingKeys {
            pins: Self::slots(self.pins.iter().map(|pin| pin.state), doomed),
            subjects: Self::slots(self.subjects.iter().map(|key| key.state), doomed),
            buckets: Self::slots(self.buckets.iter().map(|key| key.state), doomed),
            ..DyingKeys::default()
        }
    }

    /// The same, with the chains that die in any case.
    pub fn dying(&self, runs: &[u8]) -> DyingKeys {
        let doomed = |state| matches!(state, State::Dying(_));
        let chains = Self::slots(self.snapshots.iter().map(|snapshot| snapshot.chain), doomed);
        DyingKeys { chains, ..self.dying_cells(runs) }
    }

    pub fn is_taking(&self) -> bool {
        self.snapshots.iter().any(|snapshot| matches!(snapshot.taking, Taking::Begun | Taking::Sealed))
    }

    /// The number of the newest committed snapshot.
    pub fn newest(&self) -> Option<usize> {
        self.snapshots.iter().rposition(|snapshot| snapshot.taking == Taking::Committed)
    }

    /// Whether a row version that was ever sealed in a cell was erased since.
    pub fn cell_lost_rows(&self, cell: u8) -> bool {
        self.sealed.iter().filter(|((_, of), _)| *of == cell).any(|((row, _), (first, _))| {
            self.is_erased_after(*row, self.snapshots[*first as usize - 1].position, |_| true)
        })
    }

    /// Whether an entry of a row that stands satisfies a condition on its run, behind a position.
    pub fn is_erased_after(&self, row: RowId, position: u8, of: impl Fn(u8) -> bool) -> bool {
        let behind = self.ledger.iter().skip(position as usize);
        behind.into_iter().any(|entry| entry.row == row && entry.outcome == Outcome::Done && of(entry.run))
    }

    /// The rows that a restore of a snapshot leaves out.
    pub fn erased_since(&self, snapshot: &Snapshot) -> Vec<RowId> {
        (0..self.rows.len() as RowId).filter(|row| self.is_erased_after(*row, snapshot.position, |_| true)).collect()
    }

    /// What a restore puts in when it ends now; nothing, when rows were erased since it looked.
    pub fn delivered(&self, off: Option<Rule>) -> Vec<Frame> {
        let Some(reader) = &self.reader else { return Vec::new() };
        let is_same = self.erased_since(&self.snapshots[reader.snapshot as usize]) == reader.erased;
        if !is_same && off != Some(Rule::Reread) {
            return Vec::new();
        }
        reader.opened.iter().copied().filter(|frame| !reader.erased.contains(&frame.row)).collect()
    }

    /// Whether a frame opens with the keys of the generation in force.
    pub fn opens(&self, snapshot: &Snapshot, frame: Frame) -> bool {
        let cell = &self.cells[frame.cell as usize];
        let pin_lives = |slot: u8| !self.pins[slot as usize - 1].state.is_dead();
        let own = if let Some(pin) = cell.pin {
            pin_lives(pin)
        } else {
            let subject = cell.subject.is_none_or(|slot| !self.subjects[slot as usize - 1].state.is_dead());
            subject && !self.buckets[cell.bucket as usize - 1].state.is_dead()
        };
        own && !snapshot.chain.is_dead() && !self.is_lost
    }

    /// Whether somebody with the root of a generation, and the control database of then, opens a frame.
    pub fn opens_under(&self, generation: u8, snapshot: &Snapshot, frame: Frame) -> bool {
        let has = |born: u8, state: State| {
            let is_dead = matches!(state, State::Dead(died) if died <= generation);
            (1..=generation).contains(&born) && !is_dead
        };
        let cell = &self.cells[frame.cell as usize];
        let pinned = self.pins.iter().any(|pin| pin.cell == frame.cell && has(pin.born, pin.state));
        let subject = cell.subject.map(|slot| self.subjects[slot as usize - 1]);
        let bucket = self.buckets[cell.bucket as usize - 1];
        let paired = subject.is_none_or(|key| has(key.born, key.state)) && has(bucket.born, bucket.state);
        has(snapshot.born, snapshot.chain) && (pinned || (cell.fresh.is_none() && paired))
    }
}
