//! A refusal says why, and no more than the rows that stay show.

use super::{accepted, date, refused, time};
use crate::certify::statement::*;

/// What is made wrong.
type Change = fn(&mut Predicate);

/// Rules keep every row.
fn kept(p: &mut Predicate) {
    p.result = ErasureResult::Refused;
    p.targets[0].action = Action::Delete;
    p.targets[0].records_erased = 0;
    p.targets[0].records_selected = 2;
    p.targets[0].keys.clear();
    p.targets[0].sanitization = Sanitization::None;
    p.targets[0].backups = Backups { state: BackupState::None, expires_by: None };
    p.targets[0].copies.clear();
    p.limitations = vec![Limitation::RowsRetained];
    p.residual_date = None;
    p.refusal = Some(Refusal {
        version: 1,
        reasons: vec![RefusalReason::Statute],
        decided_at: time(100),
        decided_by: None,
        waits: true,
        looked_at_again: Some(date("2029-03-05")),
    });
}

/// Somebody turned it down, and nobody looked for rows.
fn decided(p: &mut Predicate) {
    kept(p);
    p.targets.clear();
    p.retained.clear();
    p.limitations.clear();
    (p.scope.targets_declared, p.scope.targets_reached) = (0, 0);
    p.refusal = p.refusal.take().map(|refusal| Refusal {
        reasons: vec![RefusalReason::NotIdentified],
        decided_by: Some(format!("hmac-sha256:k7:{}", "77".repeat(32))),
        waits: false,
        looked_at_again: None,
        ..refusal
    });
}

fn of(p: &mut Predicate) -> &mut Refusal {
    p.refusal.as_mut().unwrap()
}

#[test]
fn a_refusal_and_its_result_stand_together_or_not_at_all() {
    accepted(kept);
    accepted(decided);
    for shape in [kept, decided] {
        let without = refused(|p| {
            shape(p);
            p.refusal = None;
        });
        assert!(without.contains("refusal is missing"), "{without}");
    }
    let beside = refused(|p| {
        kept(p);
        p.result = ErasureResult::Partial;
    });
    assert!(beside.contains("not refused"), "{beside}");
}

#[test]
fn reasons_are_those_for_which_rows_stay() {
    let broken: [(Change, &str); 9] = [
        (|p| of(p).reasons.clear(), "refusal/reasons"),
        (|p| of(p).reasons = vec![RefusalReason::Statute; 2], "refusal/reasons"),
        (|p| of(p).reasons = vec![RefusalReason::Hold], "refusal/reasons"),
        (|p| of(p).reasons.insert(0, RefusalReason::Hold), "refusal/reasons"),
        (|p| p.retained[0].reason_code = RetainedReason::Litigation, "refusal/reasons"),
        (|p| of(p).waits = false, "refusal/lookedAtAgain"),
        (|p| of(p).decided_at = time(102), "refusal/decidedAt"),
        (|p| of(p).version = 2, "refusal/version"),
        (|p| p.trigger.request_ref = None, "refusal is of nothing"),
    ];
    for (number, (change, place)) in broken.into_iter().enumerate() {
        let said = refused(|p| {
            kept(p);
            change(p);
        });
        assert!(said.contains(place) || said.contains("lookedAtAgain"), "{number}: {said}");
    }
}

#[test]
fn a_decision_stands_alone_and_names_who_by_pseudonym() {
    let broken: [(Change, &str); 5] = [
        (|p| of(p).decided_by = None, "refusal/decidedBy"),
        (|p| of(p).decided_by = Some("alice".to_owned()), "refusal/decidedBy"),
        (|p| of(p).reasons.push(RefusalReason::Exempt), "refusal/reasons"),
        (|p| of(p).reasons = vec![RefusalReason::Hold], "refusal/decidedBy"),
        (|p| of(p).waits = true, "refusal/waits"),
    ];
    for (number, (change, place)) in broken.into_iter().enumerate() {
        let said = refused(|p| {
            decided(p);
            change(p);
        });
        assert!(said.contains(place), "{number}: {said}");
    }
}

#[test]
fn nothing_that_was_done_or_missed_is_called_refused() {
    let erased = refused(|p| {
        kept(p);
        p.targets[0].records_erased = 1;
        p.targets[0].records_selected = 3;
    });
    assert!(erased.contains("refused although rows were erased"), "{erased}");
    let missed = refused(|p| {
        kept(p);
        p.scope.targets_declared = 2;
        p.limitations.push(Limitation::TargetsUnreached);
    });
    assert!(missed.contains("done or missed"), "{missed}");
    let dated = refused(|p| {
        kept(p);
        p.residual_date = Some(date("2030-01-01"));
    });
    assert!(dated.contains("residualDate"), "{dated}");
}
