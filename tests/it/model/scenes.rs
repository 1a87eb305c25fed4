//! The worlds that are explored: small enough to be searched, rich enough to need every rule.

use super::world::{Budget, Period, RowSpec, Scene};

const PERSON: RowSpec = RowSpec { who: 0, home: Period::Open, is_person: true };

fn note(who: u8, home: Period) -> RowSpec {
    RowSpec { who, home, is_person: false }
}

/// A customer whose request leaves one note to a statute; rows come, go and move meanwhile.
pub fn request() -> Scene {
    let budget = Budget { writes: 1, snapshots: 3, requests: 2, shreds: 2, crashes: 1, ..Budget::default() };
    let rows = vec![PERSON, note(0, Period::Past), note(0, Period::Recent)];
    Scene { name: "request", rows, absent: vec![2], budget, grace: false, coarse: false, delayed: false }
}

/// Two customers in one bucket that is due; one may be held.
pub fn hold() -> Scene {
    let budget = Budget { snapshots: 2, retentions: 1, requests: 1, shreds: 1, holds: 1, ..Budget::default() };
    let rows = vec![note(0, Period::Past), note(1, Period::Past)];
    Scene { name: "hold", rows, absent: Vec::new(), budget, grace: false, coarse: false, delayed: false }
}

/// Two customers in one bucket that is due only in part; the policy changes, time passes.
pub fn retention() -> Scene {
    let budget =
        Budget { snapshots: 2, requests: 1, retentions: 2, shreds: 2, ticks: 2, edits: 1, ..Budget::default() };
    let rows = vec![note(0, Period::Part), note(1, Period::Part)];
    Scene { name: "retention", rows, absent: Vec::new(), budget, grace: false, coarse: false, delayed: false }
}

/// Grace: holds and undo between erasure and shred.
pub fn grace() -> Scene {
    let budget = Budget {
        writes: 1,
        snapshots: 2,
        requests: 1,
        retentions: 1,
        shreds: 1,
        ticks: 1,
        holds: 1,
        undos: 1,
        ..Budget::default()
    };
    let rows = vec![note(0, Period::Past), note(1, Period::Past)];
    Scene { name: "grace", rows, absent: Vec::new(), budget, grace: true, coarse: false, delayed: false }
}

/// Everything together, each step whole: deeper than the others.
pub fn long_life() -> Scene {
    let budget = Budget {
        writes: 1,
        snapshots: 3,
        requests: 1,
        retentions: 1,
        shreds: 2,
        ticks: 1,
        holds: 1,
        ..Budget::default()
    };
    let rows = vec![PERSON, note(0, Period::Past), note(0, Period::Recent), note(1, Period::Part)];
    Scene { name: "long life", rows, absent: Vec::new(), budget, grace: true, coarse: true, delayed: false }
}

/// A slot that destroys only at a date: dates pass, somebody calls a destruction off, the process dies in between. A bucket that
/// is due only in part takes rows of an earlier run with it.
pub fn delayed() -> Scene {
    let budget = Budget {
        snapshots: 2,
        retentions: 2,
        shreds: 3,
        ticks: 2,
        crashes: 1,
        dates: 2,
        call_offs: 1,
        ..Budget::default()
    };
    let rows = vec![note(0, Period::Part)];
    Scene { name: "delayed", rows, absent: Vec::new(), budget, grace: false, coarse: false, delayed: true }
}

/// A restore that runs while rows are erased, undone and shredded.
pub fn reader() -> Scene {
    let budget =
        Budget { writes: 1, snapshots: 2, requests: 1, shreds: 1, ticks: 1, undos: 1, reads: 1, ..Budget::default() };
    let rows = vec![note(0, Period::Past), note(0, Period::Recent)];
    Scene { name: "reader", rows, absent: Vec::new(), budget, grace: true, coarse: false, delayed: false }
}

/// All of them whose slot destroys at once.
pub fn all() -> [Scene; 5] {
    [hold(), request(), grace(), retention(), long_life()]
}
