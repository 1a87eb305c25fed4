//! Named points at which tests kill the process. In release builds they are nothing.
//!
//! A crash test sets `WANGCHUAN_CRASH_AT=<name>` (or `<name>:<n>` for the n-th time) and the process kills itself with
//! SIGKILL there: no destructor runs, no buffer is flushed.

/// Every point, in the order in which a full cycle passes them.
pub const POINTS: &[&str] = &[
    "backup.begun",
    "backup.pack-stored",
    "backup.directory-stored",
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
    "rekey.committed",
    "rekey.reloaded",
    "rekey.root-destroyed",
    "rekey.evidence-stored",
    "run.shredded",
    "certificate.issued",
    "outbox.filed",
    "outbox.receipted",
];

/// The points of an undo, which a cycle does not pass.
pub const UNDO_POINTS: &[&str] = &["undo.begun", "undo.rows-stored", "undo.chunk-restored", "undo.ended"];

/// The points of a drill.
pub const DRILL_POINTS: &[&str] = &["drill.restored"];

/// Passes the point `name`, or dies there when a test wants it.
#[cfg(debug_assertions)]
pub fn reached(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let listed = [POINTS, UNDO_POINTS, DRILL_POINTS].iter().any(|points| points.contains(&name));
    debug_assert!(listed, "crash point {name} is not listed");
    let Ok(wanted) = std::env::var("WANGCHUAN_CRASH_AT") else { return };
    let (point, time) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if point == name && (PASSED.fetch_add(1, Ordering::SeqCst) + 1).to_string() == time {
        let me = std::process::id().to_string();
        let _ = std::process::Command::new("kill").args(["-KILL", &me]).status();
        loop {
            std::thread::park();
        }
    }
}

/// Passes the point `name`.
#[cfg(not(debug_assertions))]
pub fn reached(_name: &str) {}
