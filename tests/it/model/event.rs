//! What can happen, and what it does. Decisions are those of the program: verdicts by `plan::decide`, pins and barrier by
//! `erase::fate::rules`, due buckets by `policy::statute`, recovery by `keys::rekey`.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use wangchuan::keys::rekey::{RecoveryAction, RekeyIntent, RekeyStep, recover};
use wangchuan::plan::decide::{Candidate, End, Reference, ReferringRow, decide};
use wangchuan::plan::{PlannedRow, Reason, Verdict};
use wangchuan::policy::statute::{Catalogue, Earliest, bucket_due_with};
use wangchuan::value::{RowKey, Value, encode_values};

use super::world::{
    BY_CRASH, Bucket, BucketKey, Cell, Entry, Fate, Frame, Live, Outcome, Period, Plan, Planned, Reader, RowId, Rule,
    Run, Scene, ShredStep, Snapshot, Stage, State, SubjectKey, Taking, Target, Who, World,
};

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// The application puts a row in.
    Insert(RowId),
    /// The application deletes a row.
    Delete(RowId),
    /// The application moves a row to the recent period.
    Move(RowId),
    Tick,
    EditPolicy,
    Plan(Target),
    /// The batches: rows go, the ledger says so.
    Execute,
    /// Absence is read back and the keys are marked.
    Mark,
    Hold(Who),
    Release(Who),
    Begin,
    Seal,
    Commit,
    /// The shred looks which runs are ready.
    Check,
    Rekey,
    Finish,
    Undo(u8),
    Crash,
    /// The date of the old root of a generation passes: the service deletes it.
    Date(u8),
    /// Somebody calls the destruction of an old root off.
    CallOff(u8),
    /// A restore of a snapshot looks at the ledger and opens what opens.
    Read(u8),
    /// It commits.
    Deliver,
}

/// The times of the worlds: today, after the grace, and when the part-due bucket is wholly due.
pub const TIMES: [&str; 3] = ["2026-03-15T02:00:00Z", "2026-03-19T02:00:00Z", "2027-01-05T02:00:00Z"];
/// The retention and the statute of notes.
pub const RETENTION: &str = "3 years";
pub const STATUTE: &str = "cn.ecl.31";

/// The year that a period stands for.
pub fn year_of(period: Period) -> &'static str {
    match period {
        Period::Open => "open",
        Period::Past => "2022",
        Period::Part => "2023",
        Period::Recent => "2025",
    }
}

/// Whether a whole period is due at a time, by the program's calendar.
pub fn is_due(period: Period, time: u8) -> bool {
    static DUE: LazyLock<Vec<[bool; 3]>> = LazyLock::new(|| {
        let due = |period: Period, time: usize| {
            let bucket = year_of(period).parse().unwrap();
            let statutes = Catalogue::built_in().unwrap().find_all(&[STATUTE.to_owned()]).unwrap();
            let at = bucket_due_with(bucket, RETENTION.parse().unwrap(), &statutes, chrono_tz::UTC).unwrap();
            at <= Earliest::At(TIMES[time].parse::<DateTime<Utc>>().unwrap())
        };
        [Period::Open, Period::Past, Period::Part, Period::Recent]
            .map(|period| [0, 1, 2].map(|time| due(period, time)))
            .to_vec()
    });
    DUE[period as usize][time as usize]
}

/// What may happen now.
pub fn possible(world: &World, scene: &Scene, off: Option<Rule>) -> Vec<Event> {
    let mut events = Vec::new();
    let left = &world.left;
    if world.is_lost {
        return events;
    }
    people_at_work(world, scene, &mut events);
    let is_free = world.shred.is_none() && (!world.is_taking() || off == Some(Rule::Fence));
    let in_hand = world.runs.iter().find(|run| matches!(run.stage, Stage::Planned | Stage::Deleted));
    match in_hand.map(|run| run.stage) {
        None => {
            let asked = |who: Who| scene.rows.iter().any(|spec| spec.who == who);
            let requests = (0..2).filter(|who| left.requests > 0 && asked(*who)).map(Target::Request);
            events.extend(requests.map(Event::Plan));
            if left.retentions > 0 {
                events.push(Event::Plan(Target::Retention));
            }
        }
        Some(Stage::Planned) if is_free && world.newest().is_some() => events.push(Event::Execute),
        Some(Stage::Deleted) if is_free => events.push(Event::Mark),
        Some(_) => {}
    }
    if let Some(run) = world.snapshots.last().map(|snapshot| snapshot.taking) {
        match run {
            Taking::Begun => events.push(Event::Seal),
            Taking::Sealed => events.push(Event::Commit),
            Taking::Committed | Taking::Cancelled => {}
        }
    }
    if !world.is_taking() && world.shred.is_none() && left.snapshots > 0 {
        events.push(Event::Begin);
    }
    match world.shred.as_ref().map(|shred| shred.step) {
        None if is_free && left.shreds > 0 && world.runs.iter().any(|run| run.stage == Stage::Pending) => {
            events.push(Event::Check);
        }
        None => {}
        Some(ShredStep::Checked) => events.push(Event::Rekey),
        Some(ShredStep::Committed | ShredStep::RootGone) => events.push(Event::Finish),
    }
    if left.crashes > 0 && (world.is_taking() || world.shred.is_some()) {
        events.push(Event::Crash);
    }
    events
}

/// The events that people and the application cause, whatever the agent does.
fn people_at_work(world: &World, scene: &Scene, events: &mut Vec<Event>) {
    let left = &world.left;
    for (row, live) in world.rows.iter().enumerate().filter(|_| left.writes > 0) {
        let (row, spec) = (row as RowId, scene.rows[row]);
        match live {
            None if spec.is_person || has_parent(world, scene, spec.who) => events.push(Event::Insert(row)),
            Some(live) if !spec.is_person => {
                events.push(Event::Delete(row));
                if live.period != Period::Recent {
                    events.push(Event::Move(row));
                }
            }
            _ => {}
        }
    }
    if left.ticks > 0 && usize::from(world.time) + 1 < TIMES.len() {
        events.push(Event::Tick);
    }
    if left.edits > 0 && !world.edited {
        events.push(Event::EditPolicy);
    }
    for who in 0..2 {
        if world.holds[usize::from(who)] {
            events.push(Event::Release(who));
        } else if left.holds > 0 && scene.rows.iter().any(|spec| spec.who == who) {
            events.push(Event::Hold(who));
        }
    }
    for (generation, _) in world.old_roots.iter().filter(|(_, fate)| **fate == Fate::Ordered) {
        if left.dates > 0 {
            events.push(Event::Date(*generation));
        }
        if left.call_offs > 0 {
            events.push(Event::CallOff(*generation));
        }
    }
    if world.reader.is_some() {
        events.push(Event::Deliver);
    } else if left.reads > 0 {
        let taken = world.snapshots.iter().enumerate().filter(|(_, snapshot)| snapshot.taking == Taking::Committed);
        events.extend(taken.map(|(number, _)| Event::Read(number as u8)));
    }
    for (at, run) in world.runs.iter().enumerate() {
        let at = at as u8;
        let has_image = world.ledger.iter().any(|entry| entry.run == at && entry.lost.is_some());
        let in_grace = run.stage == Stage::Pending && run.grace_until > world.time;
        if left.undos > 0 && world.shred.is_none() && !world.is_taking() && in_grace && has_image {
            events.push(Event::Undo(at));
        }
    }
}

/// What follows by itself in a coarse scene.
pub fn following(world: &World) -> Option<Event> {
    match world.snapshots.last().map(|snapshot| snapshot.taking) {
        Some(Taking::Begun) => return Some(Event::Seal),
        Some(Taking::Sealed) => return Some(Event::Commit),
        _ => {}
    }
    match world.shred.as_ref().map(|shred| shred.step) {
        Some(ShredStep::Checked) => Some(Event::Rekey),
        Some(ShredStep::Committed | ShredStep::RootGone) => Some(Event::Finish),
        None => world.runs.iter().any(|run| run.stage == Stage::Deleted).then_some(Event::Mark),
    }
}

/// Lets an event happen.
pub fn apply(world: &mut World, scene: &Scene, event: Event, off: Option<Rule>) {
    match event {
        Event::Insert(row) => {
            world.left.writes -= 1;
            world.versions += 1;
            world.rows[row as usize] =
                Some(Live { period: scene.rows[row as usize].home, version: world.versions, is_blank: false });
        }
        Event::Delete(row) => {
            world.left.writes -= 1;
            world.rows[row as usize] = None;
        }
        Event::Move(row) => {
            world.left.writes -= 1;
            world.versions += 1;
            world.rows[row as usize] = Some(Live { period: Period::Recent, version: world.versions, is_blank: false });
        }
        Event::Tick => {
            world.left.ticks -= 1;
            world.time += 1;
        }
        Event::EditPolicy => {
            world.left.edits -= 1;
            world.edited = true;
        }
        Event::Plan(target) => plan(world, scene, target),
        Event::Execute => execute(world, scene),
        Event::Mark => super::mark::mark(world, scene, off),
        Event::Hold(who) => {
            world.left.holds -= 1;
            world.holds[who as usize] = true;
        }
        Event::Release(who) => world.holds[who as usize] = false,
        Event::Begin => begin(world, scene),
        Event::Seal => seal(world, scene),
        Event::Commit => {
            if let Some(snapshot) = world.snapshots.last_mut() {
                snapshot.taking = Taking::Committed;
            }
        }
        Event::Check => super::shred::check(world, off),
        Event::Rekey => super::shred::rekey(world, off),
        Event::Finish => super::shred::finish(world, off),
        Event::Undo(run) => undo(world, scene, run, off),
        Event::Crash => crash(world),
        Event::Date(generation) => {
            world.left.dates -= 1;
            world.old_roots.insert(generation, Fate::Gone);
        }
        Event::CallOff(generation) => {
            world.left.call_offs -= 1;
            world.old_roots.insert(generation, Fate::CalledOff);
        }
        Event::Read(number) => read(world, number),
        Event::Deliver => world.reader = None,
    }
}

/// Frames open one after the other; at the beginning most of them do.
fn read(world: &mut World, number: u8) {
    world.left.reads -= 1;
    let snapshot = &world.snapshots[number as usize];
    let opened = snapshot.frames.iter().copied().filter(|frame| world.opens(snapshot, *frame)).collect();
    world.reader = Some(Reader { snapshot: number, opened, erased: world.erased_since(snapshot) });
}

fn key_of(row: RowId) -> RowKey {
    RowKey(vec![Value::Integer(i64::from(row))])
}

fn plan(world: &mut World, scene: &Scene, target: Target) {
    let (mut candidates, mut references) = (Vec::new(), Vec::new());
    for (row, live) in world.rows.iter().enumerate() {
        let (Some(live), spec) = (live, scene.rows[row]) else { continue };
        let is_due = match target {
            Target::Retention => !spec.is_person && matches!(live.period, Period::Past | Period::Part),
            Target::Request(who) => spec.who == who,
        };
        if !spec.is_person {
            let parents = scene.rows.iter().enumerate().filter(|(_, other)| other.is_person && other.who == spec.who);
            references.extend(parents.map(|(parent, _)| Reference {
                parent: (1, encode_values(&key_of(parent as RowId).0)),
                child: ReferringRow::Registered(0, encode_values(&key_of(row as RowId).0)),
                leads: true,
                is_cut: false,
            }));
        }
        if !is_due {
            continue;
        }
        let keep = match live.period {
            _ if world.holds[usize::from(spec.who)] => Some(Reason::Hold("h".to_owned())),
            Period::Recent => Some(Reason::Statute(STATUTE.to_owned())),
            _ => None,
        };
        let period = year_of(live.period).to_owned();
        let planned = PlannedRow { key: key_of(row as RowId), subject: None, start: None, period };
        candidates.push(Candidate {
            collection: usize::from(spec.is_person),
            row: planned,
            end: End::Erase,
            keep,
            follows: None,
        });
    }
    let decided = decide(candidates, &references, &[]).into_iter().filter_map(|decision| {
        let Some(Value::Integer(row)) = decision.row.key.0.first() else { return None };
        let plan = match decision.verdict {
            Verdict::Erase => Plan::Erase,
            Verdict::Strip(_) => Plan::Strip,
            // No policy of the model anonymises.
            Verdict::Keep(_) | Verdict::Anonymise | Verdict::Settled => Plan::Keep,
        };
        Some(Planned { row: *row as RowId, period: world.rows[*row as usize]?.period, plan })
    });
    let plan: Vec<Planned> = decided.collect();
    match target {
        Target::Retention => world.left.retentions -= 1,
        Target::Request(_) => world.left.requests -= 1,
    }
    let (edited, cutoff, holds) = (world.edited, world.time, world.holds);
    world.runs.push(Run {
        target,
        stage: Stage::Planned,
        plan,
        edited,
        cutoff,
        holds,
        barrier: 0,
        grace_until: 0,
        own_died: false,
        noted: 0,
        died: None,
        waits: false,
    });
}

fn execute(world: &mut World, scene: &Scene) {
    let Some(at) = world.runs.iter().position(|run| run.stage == Stage::Planned) else { return };
    let run = world.runs[at].clone();
    let released = run.holds.iter().zip(&world.holds).any(|(planned, now)| *planned && !*now);
    if run.edited != world.edited || released {
        world.runs[at].stage = Stage::Void;
        return;
    }
    // Notes go before the people they refer to.
    for is_person in [false, true] {
        for planned in run.plan.iter().filter(|planned| scene.rows[planned.row as usize].is_person == is_person) {
            batch(world, scene, at as u8, *planned);
        }
    }
    world.runs[at].stage = Stage::Deleted;
}

/// One row of a batch: whoever deleted it, it is gone; a changed or held row stays, and a parent of a living row too.
fn batch(world: &mut World, scene: &Scene, run: u8, planned: Planned) {
    let spec = scene.rows[planned.row as usize];
    let live = world.rows[planned.row as usize];
    let is_strip = planned.plan == Plan::Strip;
    let is_doomed = live.is_some_and(|live| live.period == planned.period) && !world.holds[usize::from(spec.who)];
    let has_child = scene
        .rows
        .iter()
        .zip(&world.rows)
        .any(|(other, live)| spec.is_person && !other.is_person && other.who == spec.who && live.is_some());
    let goes = match planned.plan {
        Plan::Keep => false,
        Plan::Strip => is_doomed,
        Plan::Erase => live.is_none() || (is_doomed && !has_child),
    };
    if !goes {
        return;
    }
    world.ledger.push(Entry { run, row: planned.row, lost: live, is_strip, outcome: Outcome::Done });
    world.versions += u8::from(is_strip);
    let version = world.versions;
    world.rows[planned.row as usize] = live.filter(|_| is_strip).map(|live| Live { version, is_blank: true, ..live });
}

fn begin(world: &mut World, scene: &Scene) {
    world.left.snapshots -= 1;
    let mut view = Vec::new();
    for (row, live) in world.rows.iter().enumerate() {
        let (Some(live), spec) = (live, scene.rows[row]) else { continue };
        let edited = world.edited && !spec.is_person;
        let bucket = Bucket { is_people: spec.is_person, edited, period: live.period };
        let mut pins = world.pins.iter().filter(|pin| {
            let is_own = pin.who == spec.who && pin.bucket == bucket;
            is_own && pin.state == State::Active && !world.cells[pin.cell as usize].is_dead
        });
        view.push((row as RowId, *live, bucket, pins.next_back().map(|pin| pin.cell)));
    }
    let (position, born) = (world.ledger.len() as u8, world.generation);
    let (taking, chain) = (Taking::Begun, State::Active);
    world.snapshots.push(Snapshot { position, taking, chain, born, view, frames: Vec::new() });
}

fn seal(world: &mut World, scene: &Scene) {
    let number = world.snapshots.len() as u8;
    let Some(snapshot) = world.snapshots.last_mut() else { return };
    let view = std::mem::take(&mut snapshot.view);
    let mut frames = Vec::new();
    for (row, live, bucket, pinned) in view {
        let cell = pinned.unwrap_or_else(|| cell_of(world, scene.rows[row as usize].who, bucket));
        frames.push(Frame { row, version: live.version, is_blank: live.is_blank, cell });
        world.sealed.entry((row, cell)).or_insert((number, number)).1 = number;
    }
    if let Some(snapshot) = world.snapshots.last_mut() {
        snapshot.frames = frames;
        snapshot.taking = Taking::Sealed;
    }
}

/// Finds or makes the cell of a subject and a bucket, with new slots where none is active.
fn cell_of(world: &mut World, who: Who, bucket: Bucket) -> u8 {
    let born = world.generation;
    let subject = world.subjects.iter().position(|key| key.who == who && key.state == State::Active);
    let subject = subject.unwrap_or_else(|| {
        world.subjects.push(SubjectKey { who, state: State::Active, born });
        world.subjects.len() - 1
    });
    let slot = world.buckets.iter().position(|key| key.name == bucket && key.state == State::Active);
    let slot = slot.unwrap_or_else(|| {
        world.buckets.push(BucketKey { name: bucket, state: State::Active, born });
        world.buckets.len() - 1
    });
    let wanted = (Some(subject as u8 + 1), slot as u8 + 1);
    let found = world
        .cells
        .iter()
        .position(|cell| (cell.subject, cell.bucket) == wanted && cell.fresh.is_none() && !cell.is_dead);
    let cell = found.unwrap_or_else(|| {
        world.cells.push(Cell { subject: wanted.0, bucket: wanted.1, fresh: None, pin: None, is_dead: false });
        world.cells.len() - 1
    });
    cell as u8
}

/// Rule of dying 5: what was erased comes back from its pre-images, never over a living row, and nothing dies by the run.
fn undo(world: &mut World, scene: &Scene, run: u8, off: Option<Rule>) {
    world.left.undos -= 1;
    // Parents go back before their children.
    for is_person in [true, false] {
        for at in 0..world.ledger.len() {
            let entry = world.ledger[at];
            let spec = scene.rows[entry.row as usize];
            let (Some(lost), true) = (entry.lost, entry.run == run && entry.outcome == Outcome::Done) else { continue };
            let now = world.rows[entry.row as usize];
            let is_free = if entry.is_strip { now.is_some_and(|live| live.is_blank) } else { now.is_none() };
            // What a later run erased again is not this run's to bring back: every restore would leave it out.
            let is_last = !world.is_erased_after(entry.row, at as u8 + 1, |_| true);
            let may = is_free && is_last && (is_person || has_parent(world, scene, spec.who));
            if spec.is_person == is_person && (may || off == Some(Rule::Undo)) {
                world.rows[entry.row as usize] = Some(lost);
                world.ledger[at].outcome = Outcome::Reversed;
            }
        }
    }
    // Of two instances of one name only the first may become the active one.
    let mine = State::Dying(run);
    for at in 0..world.subjects.len() {
        let who = world.subjects[at].who;
        let is_taken = world.subjects.iter().any(|key| key.who == who && key.state == State::Active);
        if world.subjects[at].state == mine {
            world.subjects[at].state = if is_taken { State::Retained } else { State::Active };
        }
    }
    for at in 0..world.buckets.len() {
        let name = world.buckets[at].name;
        let is_taken = world.buckets.iter().any(|key| key.name == name && key.state == State::Active);
        if world.buckets[at].state == mine {
            world.buckets[at].state = if is_taken { State::Retained } else { State::Active };
        }
    }
    for pin in world.pins.iter_mut().filter(|pin| pin.state == mine) {
        pin.state = State::Active;
    }
    world.runs[run as usize].stage = Stage::Undone;
}

/// Whether the person to whom somebody's notes refer is there, if the world has any.
fn has_parent(world: &World, scene: &Scene, who: Who) -> bool {
    let mut people = scene.rows.iter().zip(&world.rows).filter(|(spec, _)| spec.who == who && spec.is_person);
    people.all(|(_, live)| live.is_some())
}

/// The process dies and the next start recovers.
fn crash(world: &mut World) {
    world.left.crashes -= 1;
    if let Some(snapshot) = world.snapshots.last_mut()
        && matches!(snapshot.taking, Taking::Begun | Taking::Sealed)
    {
        snapshot.taking = Taking::Cancelled;
        snapshot.chain = State::Dying(BY_CRASH);
        snapshot.view.clear();
    }
    let Some(shred) = world.shred.take() else { return };
    let now = i64::from(world.generation);
    let intent = |from: i64, begun| Some(RekeyIntent { from, to: from + 1, begun });
    let (usable, intent) = match shred.step {
        ShredStep::Checked => (vec![now, now + 1], intent(now, RekeyStep::CreateSlot)),
        ShredStep::Committed => (vec![now - 1, now], intent(now - 1, RekeyStep::CommitCrown)),
        ShredStep::RootGone => (vec![now + 1], intent(now, RekeyStep::CreateSlot)),
    };
    match recover(&usable, now, intent) {
        RecoveryAction::DestroyUnusedSlot { generation } => assert_eq!(generation, now + 1),
        RecoveryAction::FinishFrom { destroy, .. } => {
            assert_eq!(destroy, [now - 1]);
            super::shred::doom_old_root(world);
        }
        _ => world.is_lost = true,
    }
}
