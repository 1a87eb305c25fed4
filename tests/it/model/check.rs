//! What must hold in every state, and after every step.

use super::event::Event;
use super::world::{Frame, Live, Outcome, Plan, Rule, Scene, Snapshot, Stage, Taking, World};

/// What is broken, if anything is.
pub fn violation(before: &World, after: &World, scene: &Scene, event: Event, off: Option<Rule>) -> Option<String> {
    if after.is_lost {
        return Some("the root of the generation in force is gone, and every key with it".to_owned());
    }
    let overwritten = |(was, is): (&Option<Live>, &Option<Live>)| matches!((was, is), (Some(was), Some(is)) if !was.is_blank && was.version != is.version);
    if matches!(event, Event::Undo(_)) && before.rows.iter().zip(&after.rows).any(overwritten) {
        return Some("undo wrote over a living row".to_owned());
    }
    if matches!(event, Event::Rekey | Event::Finish)
        && let Some(what) = closed(before, after, scene, event == Event::Rekey)
    {
        return Some(what);
    }
    if event == Event::Deliver
        && let Some(frame) = before.delivered(off).into_iter().find(|frame| is_erased(before, *frame))
    {
        return Some(format!("row {} was erased and a restore that was running returns it", frame.row));
    }
    survivor_lost(after, off).or_else(|| victim_kept(after)).or_else(|| victim_restored(after, off))
}

/// Committed snapshots with their frames.
fn frames(world: &World) -> impl Iterator<Item = (usize, &Snapshot, Frame)> {
    let taken = world.snapshots.iter().enumerate().filter(|(_, snapshot)| snapshot.taking == Taking::Committed);
    taken.flat_map(|(number, snapshot)| snapshot.frames.iter().map(move |frame| (number + 1, snapshot, *frame)))
}

fn lives(world: &World, frame: Frame) -> bool {
    world.rows[frame.row as usize].is_some_and(|live| live.version == frame.version)
}

fn is_gone(world: &World, frame: Frame, snapshot: &Snapshot, off: Option<Rule>) -> bool {
    let position = if off == Some(Rule::Ledger) { 0 } else { snapshot.position };
    world.is_erased_after(frame.row, position, |_| true)
}

/// The newest snapshot opens every living row that it holds, and a restore of it brings the row back.
fn survivor_lost(world: &World, off: Option<Rule>) -> Option<String> {
    let newest = world.newest()?;
    let snapshot = &world.snapshots[newest];
    let living = snapshot.frames.iter().copied().filter(|frame| lives(world, *frame));
    for frame in living {
        if !world.opens(snapshot, frame) {
            return Some(format!("row {} lives and does not open in the newest snapshot {}", frame.row, newest + 1));
        }
        if is_gone(world, frame, snapshot, off) {
            return Some(format!("row {} lives and a restore of snapshot {} leaves it out", frame.row, newest + 1));
        }
    }
    None
}

/// No version of a row that a shredded run erased opens from any frame that was sealed before.
fn victim_kept(world: &World) -> Option<String> {
    for (at, entry) in world.ledger.iter().enumerate() {
        let run = &world.runs[entry.run as usize];
        if run.stage != Stage::Shredded || entry.outcome != Outcome::Done {
            continue;
        }
        for (number, snapshot) in world.snapshots.iter().enumerate() {
            let opened = snapshot.frames.iter().find(|frame| {
                let is_lost = entry.lost.is_some_and(|lost| lost.version == frame.version);
                let is_earlier = usize::from(snapshot.position) <= at;
                let is_victim = frame.row == entry.row && (is_earlier || is_lost);
                is_victim && (world.opens(snapshot, **frame) || opens_with_an_old_root(world, snapshot, **frame))
            });
            if let Some(frame) = opened {
                return Some(format!(
                    "run {} counts as shredded, and version {} of row {} opens in snapshot {}",
                    entry.run,
                    frame.version,
                    frame.row,
                    number + 1
                ));
            }
        }
    }
    None
}

/// Whether an old root opens a frame that nobody has destroyed for good yet.
fn opens_with_an_old_root(world: &World, snapshot: &Snapshot, frame: Frame) -> bool {
    let revocable = world.old_roots.iter().filter(|(_, fate)| fate.is_revocable());
    revocable.into_iter().any(|(generation, _)| world.opens_under(*generation, snapshot, frame))
}

/// Whether the ledger says that this version was erased.
fn is_erased(world: &World, frame: Frame) -> bool {
    world.ledger.iter().any(|entry| {
        let is_version = entry.lost.is_some_and(|lost| lost.version == frame.version);
        entry.row == frame.row && is_version && entry.outcome == Outcome::Done
    })
}

/// No restore brings back a version that was erased, whether its keys are dead yet or not.
fn victim_restored(world: &World, off: Option<Rule>) -> Option<String> {
    let back = frames(world).find(|(_, snapshot, frame)| {
        is_erased(world, *frame) && world.opens(snapshot, *frame) && !is_gone(world, *frame, snapshot, off)
    });
    back.map(|(number, _, frame)| format!("row {} was erased and a restore of snapshot {number} returns it", frame.row))
}

/// Frames that the step closed: none of a customer who was held before the commit, none in grace, none of a row that a run
/// kept in a clean cell.
fn closed(before: &World, after: &World, scene: &Scene, is_commit: bool) -> Option<String> {
    for (number, snapshot, frame) in frames(before) {
        let now = &after.snapshots[number - 1];
        if !before.opens(snapshot, frame) || after.opens(now, frame) {
            continue;
        }
        let row = frame.row;
        if is_commit && after.holds[usize::from(scene.rows[row as usize].who)] {
            return Some(format!("row {row} of a held customer does not open in snapshot {number} any more"));
        }
        let in_grace = |run: u8| {
            let run = &before.runs[run as usize];
            run.stage == Stage::Pending && run.grace_until > before.time
        };
        if before.is_erased_after(row, snapshot.position, in_grace) {
            return Some(format!("row {row} is in grace and does not open in snapshot {number} any more"));
        }
        let is_kept = before.runs.iter().enumerate().any(|(at, run)| {
            let at = at as u8;
            let stays = run.plan.iter().any(|planned| planned.row == row && planned.plan == Plan::Keep);
            run.stage == Stage::Pending && stays && !before.is_erased_after(row, 0, |of| of == at)
        });
        if is_kept && lives(before, frame) && !before.cell_lost_rows(frame.cell) {
            return Some(format!("row {row} was kept and does not open in snapshot {number} any more"));
        }
    }
    None
}
