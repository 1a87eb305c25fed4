//! The shred: which runs are ready, the generation change, and what becomes of the runs, as `tasks::shred` does it.

use std::collections::BTreeSet;

use wangchuan::control::DyingKeys;
use wangchuan::erase::fate::rules::{CellNames, SealedCell, forbids_death};

use super::world::{BY_CRASH, Fate, Outcome, Pin, Rule, Run, Shred, ShredStep, Stage, State, Who, World};

/// Looks which runs are ready.
pub fn check(world: &mut World, off: Option<Rule>) {
    world.left.shreds -= 1;
    look_at_old_roots(world);
    let is_open = |run: &Run| run.stage == Stage::Pending && !run.waits;
    let pending = (0..world.runs.len() as u8).filter(|run| is_open(&world.runs[*run as usize]));
    let (ready, waiting): (Vec<u8>, Vec<u8>) = pending.partition(|run| is_ready(world, *run, off));
    let before = note_readable(world, off);
    let shred = Shred { ready, waiting, holds: world.holds, before, step: ShredStep::Checked };
    if world.dying(&shred.ready).is_empty() {
        settle(world, &shred, off);
    } else {
        world.shred = Some(shred);
    }
}

/// What was called off is begun again; what is gone is known to be.
fn look_at_old_roots(world: &mut World) {
    for fate in world.old_roots.values_mut() {
        *fate = match *fate {
            Fate::CalledOff => Fate::Ordered,
            Fate::Gone => Fate::ReadBack,
            fate => fate,
        };
    }
}

/// The old root is to be destroyed, at a date.
pub fn doom_old_root(world: &mut World) {
    if world.is_delayed {
        world.old_roots.insert(world.generation - 1, Fate::Ordered);
    }
}

/// How many rows of each run open now; noted with the runs before anything is closed.
fn note_readable(world: &mut World, off: Option<Rule>) -> Vec<u8> {
    if !world.is_delayed {
        return Vec::new();
    }
    let count = |world: &World, run: u8| match world.runs[run as usize].stage {
        Stage::Pending => readable(world, run) as u8,
        _ => 0,
    };
    let before: Vec<u8> = (0..world.runs.len() as u8).map(|run| count(world, run)).collect();
    if off != Some(Rule::Remember) {
        for (run, count) in world.runs.iter_mut().zip(&before) {
            run.noted = run.noted.max(*count);
        }
    }
    before
}

fn is_ready(world: &World, run: u8, off: Option<Rule>) -> bool {
    let in_grace = |run: u8| off != Some(Rule::Grace) && world.runs[run as usize].grace_until > world.time;
    let is_held = |run: u8| off != Some(Rule::Holds) && is_held(world, run);
    if in_grace(run) || is_held(run) || (off != Some(Rule::Fence) && world.is_taking()) {
        return false;
    }
    let others = runs_in_dying_cells(world, run);
    let blocks = |other: u8| match world.runs[other as usize].stage {
        Stage::Shredded | Stage::Undone => false,
        Stage::Planned | Stage::Void | Stage::Deleted => true,
        Stage::Pending => in_grace(other) || is_held(other),
    };
    !others.into_iter().any(blocks) && (off == Some(Rule::Barrier) || is_behind_barrier(world, run))
}

/// Whether a hold covers rows that a run lets die.
fn is_held(world: &World, run: u8) -> bool {
    let covers = |who: Who| {
        let of_request = world.runs[run as usize].target == super::world::Target::Request(who);
        of_request || loses_rows(world, who, run)
    };
    (0..2).any(|who| world.holds[usize::from(who)] && covers(who))
}

fn loses_rows(world: &World, who: Who, run: u8) -> bool {
    if world.pins.iter().any(|pin| pin.state == State::Dying(run) && pin.who == who) {
        return true;
    }
    let dying = world.dying_cells(&[run]);
    let preserved: BTreeSet<u8> = preserved(world, &[run], &dying).into_iter().map(|(_, cell)| cell).collect();
    world.cells.iter().enumerate().any(|(id, cell)| {
        let slot = cell.subject.map(|slot| world.subjects[slot as usize - 1]);
        let is_own = slot.is_some_and(|key| key.who == who && !key.state.is_dead());
        let is_open = is_own && !cell.is_dead && cell.pin.is_none();
        let row = world.cell_row(id as u8);
        is_open && dying.takes(row.subject, row.bucket, None) && !preserved.contains(&(id as u8))
    })
}

/// Preserving pins to be filled now, as pin and cell: their cells lose a factor.
fn preserved(world: &World, runs: &[u8], dying: &DyingKeys) -> Vec<(usize, u8)> {
    let pins = world.pins.iter().enumerate().filter(|(_, pin)| {
        let stands = match pin.state {
            State::Active | State::Retained => true,
            State::Dying(run) => !runs.contains(&run),
            State::Dead(_) => false,
        };
        let cell = &world.cells[pin.cell as usize];
        let row = world.cell_row(pin.cell);
        !pin.is_fresh && stands && !cell.is_dead && cell.pin.is_none() && dying.takes(row.subject, row.bucket, None)
    });
    pins.map(|(slot, pin)| (slot, pin.cell)).collect()
}

/// Other runs that erased rows which lie in cells that die with this one.
fn runs_in_dying_cells(world: &World, run: u8) -> BTreeSet<u8> {
    let dying = world.dying_cells(&[run]);
    let mut found = BTreeSet::new();
    for ((row, cell), (first, _)) in &world.sealed {
        if !closes(world, run, &dying, *cell) {
            continue;
        }
        let position = world.snapshots[*first as usize - 1].position as usize;
        let behind = world.ledger.iter().skip(position);
        let entries = behind.filter(|entry| entry.row == *row && entry.outcome == Outcome::Done && entry.run != run);
        found.extend(entries.map(|entry| entry.run));
    }
    found
}

/// Whether a cell that is alive is closed by the keys which die with a run. One that a pin takes over is not.
fn closes(world: &World, run: u8, dying: &DyingKeys, cell: u8) -> bool {
    let of = world.cell_row(cell);
    let is_spared = world.pins.iter().any(|pin| {
        let stands = pin.state == State::Active || matches!(pin.state, State::Dying(other) if other != run);
        pin.cell == cell && !pin.is_fresh && stands
    });
    let dies = dying.takes(of.subject, of.bucket, of.pin) && (of.pin.is_some() || !is_spared);
    dies && !world.cells[cell as usize].is_dead
}

/// The same, or its pin dies with the run before it took the cell over: another run, whose keys close the cell, relies on that pin.
fn reaches(world: &World, run: u8, dying: &DyingKeys, cell: u8) -> bool {
    let lets_go = |pin: &Pin| pin.state == State::Dying(run) && pin.cell == cell && !pin.is_fresh;
    closes(world, run, dying, cell) || (!world.cells[cell as usize].is_dead && world.pins.iter().any(lets_go))
}

fn is_behind_barrier(world: &World, run: u8) -> bool {
    let dying = world.dying_cells(&[run]);
    // Where the keys reach no cell nothing can be lost, and no snapshot is waited for.
    if !(0..world.cells.len() as u8).any(|cell| reaches(world, run, &dying, cell)) {
        return true;
    }
    let Some(newest) = world.newest().filter(|newest| *newest as u8 + 1 > world.runs[run as usize].barrier) else {
        return false;
    };
    let kept: CellNames = preserved(world, &[run], &dying)
        .into_iter()
        .map(|(_, cell)| world.cell_row(cell))
        .map(|cell| (cell.subject, cell.bucket))
        .collect();
    !world.snapshots[newest].frames.iter().any(|frame| {
        let row = world.cell_row(frame.cell);
        let (is_fresh, pin) = (row.fresh.is_some(), row.pin);
        forbids_death(&SealedCell { subject: row.subject, bucket: row.bucket, is_fresh, pin }, &dying, &kept)
    })
}

/// The generation change. A hold that came since the check stops it.
pub fn rekey(world: &mut World, off: Option<Rule>) {
    let Some(mut shred) = world.shred.take() else { return };
    let is_new = |(known, now): (&bool, &bool)| *now && !*known;
    if off != Some(Rule::Holds) && shred.holds.iter().zip(&world.holds).any(is_new) {
        return;
    }
    if off == Some(Rule::Order) {
        shred.step = ShredStep::RootGone;
    } else {
        commit(world, &shred);
        shred.step = ShredStep::Committed;
    }
    world.shred = Some(shred);
}

fn commit(world: &mut World, shred: &Shred) {
    let dying = world.dying(&shred.ready);
    let preserved = preserved(world, &shred.ready, &dying);
    world.generation += 1;
    let generation = world.generation;
    for (slot, cell) in preserved {
        world.pins[slot].born = generation;
        world.cells[cell as usize].pin = Some(slot as u8 + 1);
    }
    let has = |list: &[u32], slot: Option<u8>| slot.is_some_and(|slot| list.contains(&u32::from(slot)));
    for cell in &mut world.cells {
        let loses_own = has(&dying.subjects, cell.subject) || has(&dying.buckets, Some(cell.bucket));
        cell.is_dead |= has(&dying.pins, cell.pin) || (cell.pin.is_none() && loses_own);
    }
    let is_doomed = |state: State| match state {
        State::Dying(run) => run == BY_CRASH || shred.ready.contains(&run),
        State::Active | State::Retained | State::Dead(_) => false,
    };
    let states = (world.subjects.iter_mut().map(|key| &mut key.state))
        .chain(world.buckets.iter_mut().map(|key| &mut key.state))
        .chain(world.pins.iter_mut().map(|pin| &mut pin.state))
        .chain(world.snapshots.iter_mut().map(|snapshot| &mut snapshot.chain));
    let mut bereft = BTreeSet::new();
    for state in states.filter(|state| is_doomed(**state)) {
        if let State::Dying(run) = *state {
            bereft.insert(run);
        }
        *state = State::Dead(generation);
    }
    for run in bereft.into_iter().filter(|run| world.is_delayed && *run != BY_CRASH) {
        world.runs[run as usize].own_died = true;
    }
    let cells = &world.cells;
    world.sealed.retain(|(_, cell), _| !cells[*cell as usize].is_dead);
}

/// The old root is gone and read back as gone; runs get their results.
pub fn finish(world: &mut World, off: Option<Rule>) {
    let Some(shred) = world.shred.take() else { return };
    if shred.step == ShredStep::RootGone {
        commit(world, &shred);
    }
    doom_old_root(world);
    settle(world, &shred, off);
}

fn settle(world: &mut World, shred: &Shred, off: Option<Rule>) {
    for run in 0..world.runs.len() as u8 {
        let found = &world.runs[run as usize];
        if found.stage != Stage::Pending || shred.waiting.contains(&run) {
            continue;
        }
        let open = readable(world, run);
        if off != Some(Rule::Pending) && open > 0 {
            continue;
        }
        if must_wait(world, shred, run, open, off) {
            world.runs[run as usize].waits = true;
        } else {
            world.runs[run as usize].stage = Stage::Shredded;
        }
    }
}

/// Whether an old root that opened rows of a run is not known to be gone.
fn must_wait(world: &mut World, shred: &Shred, run: u8, open: usize, off: Option<Rule>) -> bool {
    if !world.is_delayed {
        return false;
    }
    let generation = world.generation;
    let found = &mut world.runs[run as usize];
    let earlier = shred.before.get(run as usize).copied().unwrap_or(0).max(found.noted);
    if open < usize::from(earlier) || (found.died.is_none() && found.own_died) {
        found.died = Some(generation);
    }
    found.noted = if off == Some(Rule::Remember) { 0 } else { open as u8 };
    let died = found.died;
    let stands = |of: &u8| died.is_some_and(|died| *of < died);
    off != Some(Rule::Delay) && world.old_roots.iter().any(|(of, fate)| stands(of) && *fate != Fate::ReadBack)
}

/// How many rows of a run lie in cells that live.
pub fn readable(world: &World, run: u8) -> usize {
    let barrier = world.runs[run as usize].barrier;
    let entries = world.ledger.iter().filter(|entry| entry.run == run && entry.outcome == Outcome::Done);
    let opens = |row: u8| world.sealed.iter().any(|((of, _), (first, _))| *of == row && *first <= barrier);
    entries.filter(|entry| opens(entry.row)).count()
}
