//! Named points at which tests kill or pause the process. In release builds they are nothing.
//!
//! A crash test sets `WANGCHUAN_CRASH_AT=<name>` (or `<name>:<n>` for the n-th time) and the process kills itself with
//! SIGKILL there: no destructor runs, no buffer is flushed. With `WANGCHUAN_PAUSE_AT` it stops itself with SIGSTOP instead:
//! a test sends it a signal while it stands there, and lets it go on.

/// Every point, in the order in which a full cycle passes them.
pub const POINTS: &[&str] = &[
    "backup.begun",
    "backup.pack-stored",
    "backup.directory-stored",
    "state.announced",
    "state.stored",
    "state.noted",
    "backup.manifest-stored",
    "plan.stored",
    "run.added",
    "batch.intended",
    "batch.deleted",
    "batch.committed",
    "batch.recorded",
    "run.deleted",
    "run.verified",
    "run.keys-marked",
    "run.shred-pending",
    "rekey.intended",
    "rekey.root-created",
    "rekey.staged",
    "rekey.copied",
    "rekey.committed",
    "rekey.reloaded",
    "rekey.root-destroyed",
    "rekey.evidence-stored",
    "run.shredded",
    "certificate.reserved",
    "certificate.issued",
    "outbox.filed",
    "outbox.receipted",
];

/// The point at which intents are taken back, because something came between the batches of a group.
pub const GROUP_POINTS: &[&str] = &["batch.released"];

/// The point of a roll-up, which comes once a day.
pub const ROLL_UP_POINTS: &[&str] = &["roll-up.issued"];

/// The points of an undo, which a cycle does not pass.
pub const UNDO_POINTS: &[&str] = &["undo.begun", "undo.rows-stored", "undo.chunk-restored", "undo.ended"];

/// The points of a destruction that is only irrevocable at a date, which a cycle on a slot that destroys at once does not pass.
pub const DELAYED_POINTS: &[&str] = &["rekey.root-doomed-again", "rekey.doomed-root-gone"];

/// The point of an outside key whose service deletes it only at a date.
pub const OUTSIDE_DELAYED_POINTS: &[&str] = &["outside.doomed"];

/// The point that only a cycle with a root in a key service passes.
pub const SERVICE_POINTS: &[&str] = &["state.root-stored"];

/// The point behind the end of every residual date, which comes long after a cycle.
pub const FINAL_POINTS: &[&str] = &["run.final"];
/// The points of a prune, which a cycle does not pass.
pub const PRUNE_POINTS: &[&str] = &["prune.marked", "prune.destroyed", "prune.object-removed", "prune.removed"];

/// The points of the end of an outside key, which a cycle without such keys does not pass.
pub const OUTSIDE_POINTS: &[&str] = &["outside.intended", "outside.deleted", "outside.recorded", "outside.certified"];

/// The points of a record of a medium that was destroyed or lost, which a cycle without such media does not pass.
pub const MEDIA_POINTS: &[&str] = &["media.recorded", "media.certified"];

/// The points of a request that somebody ends, which a cycle does not pass.
pub const REQUEST_POINTS: &[&str] = &["request.cancelled", "request.certified"];

/// The points of a change of the signing key, which a cycle does not pass.
pub const SIGNING_POINTS: &[&str] = &["signing.made", "signing.recorded"];

/// Points beside the cycle, where nothing durable of it was begun or changed.
pub const BESIDE: &[&str] = &[
    "quickstart.shop-filled",
    "quickstart.installed",
    "restore.rows-written",
    "restore.put-in",
    "restore.filled",
    "drill.restored",
    "drill.recorded",
];

/// Passes the point `name`, or dies or pauses there when a test wants it.
#[cfg(debug_assertions)]
pub fn reached(name: &str) {
    use std::process::{Command, id};
    use std::sync::atomic::AtomicU32;
    static PASSED: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
    let lists = [
        POINTS,
        GROUP_POINTS,
        ROLL_UP_POINTS,
        UNDO_POINTS,
        DELAYED_POINTS,
        SERVICE_POINTS,
        FINAL_POINTS,
        SIGNING_POINTS,
        PRUNE_POINTS,
        OUTSIDE_POINTS,
        OUTSIDE_DELAYED_POINTS,
        MEDIA_POINTS,
        REQUEST_POINTS,
        BESIDE,
    ];
    let is_listed = lists.iter().any(|points| points.contains(&name));
    debug_assert!(is_listed, "crash point {name} is not listed");
    let [crashes, pauses] = &PASSED;
    if is_wanted("WANGCHUAN_CRASH_AT", name, crashes) {
        let _ = Command::new("kill").args(["-KILL", &id().to_string()]).status();
        loop {
            std::thread::park();
        }
    }
    if is_wanted("WANGCHUAN_PAUSE_AT", name, pauses) {
        let _ = Command::new("kill").args(["-STOP", &id().to_string()]).status();
        // What was sent meanwhile is heard by other threads before this one goes on.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Whether this is the passage that an environment variable names.
#[cfg(debug_assertions)]
fn is_wanted(variable: &str, name: &str, passed: &std::sync::atomic::AtomicU32) -> bool {
    let Ok(wanted) = std::env::var(variable) else { return false };
    let (point, time) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    point == name && (passed.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1).to_string() == time
}

/// Passes the point `name`.
#[cfg(not(debug_assertions))]
pub fn reached(_name: &str) {}

/// A bound of bytes that tests make smaller by an environment variable.
#[cfg(debug_assertions)]
#[must_use]
pub fn smaller(variable: &str, usual: usize) -> usize {
    let wanted = std::env::var(variable).ok().and_then(|text| text.parse::<usize>().ok());
    wanted.map_or(usual, |wanted| wanted.min(usual))
}

/// The bound.
#[cfg(not(debug_assertions))]
#[must_use]
pub fn smaller(_variable: &str, usual: usize) -> usize {
    usual
}
