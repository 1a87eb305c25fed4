//! The end of a run: absence read back, keys marked, pins made, as `erase::fate` does it with the same decisions.

use std::collections::{BTreeMap, BTreeSet};

use wangchuan::control::{CellRow, DyingKeys};
use wangchuan::erase::fate::rules::{CleanCell, StandingPin, StayingRows, choose_pins};

use super::event::is_due;
use super::world::{
    Bucket, Cell, Outcome, Period, Pin, Plan, RowId, Rule, Run, Scene, Stage, State, Target, Who, World,
};

#[derive(Default)]
struct Staying {
    new_version: bool,
    cells: BTreeSet<u8>,
}

/// Marks the keys of the run in hand.
pub fn mark(world: &mut World, scene: &Scene, off: Option<Rule>) {
    let Some(at) = world.runs.iter().position(|run| run.stage == Stage::Deleted) else { return };
    let run = world.runs[at].clone();
    let at = at as u8;
    read_back(world, scene, at, &run);
    let staying = staying(world, scene, at, &run);
    let needed: BTreeSet<u8> =
        staying.values().flat_map(|stay| &stay.cells).copied().filter(|cell| !world.cell_lost_rows(*cell)).collect();
    let is_own = |who: Who| match run.target {
        Target::Retention => true,
        Target::Request(subject) => subject == who,
    };
    let pending = (0..world.runs.len() as u8).filter(|run| world.runs[*run as usize].stage == Stage::Pending);
    let marked = world.dying_cells(&pending.collect::<Vec<_>>());
    let mut dying = DyingKeys::default();
    let mut due: BTreeSet<Bucket> = BTreeSet::new();
    match run.target {
        Target::Request(who) => {
            let keys = world.subjects.iter_mut().enumerate();
            for (slot, key) in keys.filter(|(_, key)| key.who == who && key.state.is_living()) {
                key.state = State::Dying(at);
                dying.subjects.push(slot as u32 + 1);
            }
        }
        Target::Retention => {
            for (slot, key) in world.buckets.iter().enumerate() {
                if key.state.is_living() && is_bucket_due(world, key.name, run.cutoff) {
                    dying.buckets.push(slot as u32 + 1);
                    due.insert(key.name);
                }
            }
        }
    }
    for slot in 0..world.pins.len() {
        let pin = world.pins[slot];
        let stays = staying.contains_key(&(pin.who, pin.bucket)) || needed.contains(&pin.cell);
        let ends = run.target != Target::Retention || is_bucket_due(world, pin.bucket, run.cutoff);
        if pin.state == State::Active && is_own(pin.who) && !stays && ends {
            world.pins[slot].state = State::Dying(at);
        }
    }
    if off != Some(Rule::Pins) {
        for ((who, bucket), stay) in &staying {
            let is_pinned = active_pins(world).any(|(_, pin)| holds(pin, *who, *bucket, stay));
            let own_key = run.target != Target::Retention || is_pinned || due.contains(bucket);
            make_pins(world, at, (*who, *bucket), &marked.joined(&dying), own_key, stay, &needed);
        }
    }
    for slot in &dying.buckets {
        world.buckets[*slot as usize - 1].state = State::Dying(at);
    }
    for slot in spent_pins(world) {
        world.pins[slot].state = State::Dying(at);
    }
    let barrier = world.snapshots.len() as u8;
    let touched = run.plan.iter().any(|planned| planned.plan != Plan::Keep);
    let grace_until = world.time + u8::from(scene.grace && touched);
    world.runs[at as usize] = Run { stage: Stage::Pending, barrier, grace_until, ..run };
}

fn is_bucket_due(world: &World, bucket: Bucket, cutoff: u8) -> bool {
    !bucket.is_people && bucket.edited == world.edited && is_due(bucket.period, cutoff)
}

/// Rows that are there again, though the ledger says that they are gone.
fn read_back(world: &mut World, scene: &Scene, at: u8, run: &Run) {
    for planned in &run.plan {
        let live = world.rows[planned.row as usize];
        let is_there = match (planned.plan, run.target) {
            (Plan::Keep, _) => false,
            (Plan::Strip, _) => live.is_some_and(|live| !live.is_blank),
            (Plan::Erase, Target::Request(_)) => live.is_some(),
            (Plan::Erase, Target::Retention) => live.is_some_and(|live| {
                let is_due = matches!(live.period, Period::Past | Period::Part);
                live.period == planned.period || (is_due && !scene.rows[planned.row as usize].is_person)
            }),
        };
        for entry in world.ledger.iter_mut().filter(|entry| entry.run == at && entry.row == planned.row && is_there) {
            entry.outcome = Outcome::Void;
        }
    }
}

/// Planned rows that are not gone, with the living cells in which they were ever sealed.
fn staying(world: &World, scene: &Scene, at: u8, run: &Run) -> BTreeMap<(Who, Bucket), Staying> {
    let mut found: BTreeMap<(Who, Bucket), Staying> = BTreeMap::new();
    let is_done = |row: RowId| {
        world.ledger.iter().any(|entry| entry.run == at && entry.row == row && entry.outcome == Outcome::Done)
    };
    for planned in &run.plan {
        if planned.plan == Plan::Erase && is_done(planned.row) {
            continue;
        }
        let spec = scene.rows[planned.row as usize];
        let edited = world.edited && !spec.is_person;
        let bucket = Bucket { is_people: spec.is_person, edited, period: planned.period };
        let stay = found.entry((spec.who, bucket)).or_default();
        if planned.plan == Plan::Strip && is_done(planned.row) {
            stay.new_version = true;
        } else {
            let cells = world.sealed.keys().filter(|(row, _)| *row == planned.row).map(|(_, cell)| *cell);
            stay.cells.extend(cells.filter(|cell| !world.cells[*cell as usize].is_dead));
        }
    }
    found
}

fn holds(pin: &Pin, who: Who, bucket: Bucket, stay: &Staying) -> bool {
    pin.who == who && (pin.bucket == bucket || stay.cells.contains(&pin.cell))
}

fn active_pins(world: &World) -> impl Iterator<Item = (usize, &Pin)> {
    world.pins.iter().enumerate().filter(|(_, pin)| pin.state == State::Active)
}

fn make_pins(
    world: &mut World,
    run: u8,
    (who, bucket): (Who, Bucket),
    dying: &DyingKeys,
    own_key: bool,
    stay: &Staying,
    needed: &BTreeSet<u8>,
) {
    let standing: Vec<StandingPin> = active_pins(world)
        .filter(|(_, pin)| holds(pin, who, bucket, stay))
        .map(|(slot, pin)| StandingPin {
            slot: slot as u32 + 1,
            is_needed: needed.contains(&pin.cell),
            lost_rows: world.cell_lost_rows(pin.cell),
        })
        .collect();
    let living = stay.cells.iter().filter(|cell| needed.contains(cell));
    let cells: Vec<CleanCell> = living
        .map(|cell| CleanCell {
            cell: world.cell_row(*cell),
            is_pinned: active_pins(world).any(|(_, pin)| pin.cell == *cell),
        })
        .collect();
    let rows = StayingRows { new_version: stay.new_version, own_key, cells: &cells, pins: &standing };
    let choice = choose_pins(&rows, dying);
    for slot in choice.give_way {
        world.pins[slot as usize - 1].state = State::Dying(run);
    }
    let pin = Pin { cell: 0, who, bucket, is_fresh: false, state: State::Active, born: 0 };
    for CellRow { id, bucket: slot, .. } in choice.preserve {
        let bucket = world.buckets[slot as usize - 1].name;
        world.pins.push(Pin { cell: id as u8, bucket, ..pin });
    }
    if choice.fresh {
        let slot = world.pins.len() as u8 + 1;
        let number = world.buckets.iter().position(|key| key.name == bucket && key.state == State::Active);
        let number = number.map_or(0, |at| at as u8 + 1);
        world.cells.push(Cell { subject: None, bucket: number, fresh: Some(slot), pin: Some(slot), is_dead: false });
        world.pins.push(Pin { cell: world.cells.len() as u8 - 1, is_fresh: true, born: world.generation, ..pin });
    }
}

/// Active pins whose cells hold no living row any more.
fn spent_pins(world: &World) -> Vec<usize> {
    let is_spent = |cell: u8| {
        let mut rows = world.sealed.iter().filter(|((_, of), _)| *of == cell).peekable();
        rows.peek().is_some()
            && rows.all(|((row, _), (_, last))| {
                world.is_erased_after(*row, world.snapshots[*last as usize - 1].position, |_| true)
            })
    };
    active_pins(world).filter(|(_, pin)| is_spent(pin.cell)).map(|(slot, _)| slot).collect()
}
