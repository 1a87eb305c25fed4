//! What must hold before a certificate may say that an erasure is final.

use super::*;

/// Forty days later: the declared copy died on the thirty-first.
const LATER: i64 = 40 * 86_400;

fn final_service(p: &mut Predicate) {
    let mut slot = RootSlot::new(SlotClass::B, "transit");
    slot.reopenable_until = Some(date("2026-03-13"));
    slot.read_back = Some(SlotReadBack {
        key_version: 4,
        min_available_version: 5,
        exportable: false,
        allow_plaintext_backup: false,
        deletion_allowed: false,
    });
    p.root_slot = Some(slot);
    p.limitations.retain(|code| *code != Limitation::RootSlotClassD);
    p.limitations.push(Limitation::RootSlotClassB);
    p.residual_date = None;
    p.final_since = Some(time(LATER));
    p.issued_at = time(LATER + 5);
}

#[test]
fn final_is_said_only_when_every_date_is_past() {
    fn but(change: fn(&mut Predicate)) -> String {
        refused(|p| {
            final_service(p);
            change(p);
        })
    }
    accepted(final_service);
    assert!(but(|p| p.final_since = Some(time(LATER + 6))).contains("finalSince"));
    assert!(but(|p| p.final_since = Some(time(99))).contains("finalSince"));
    // The last day of a copy counts as a whole.
    assert!(but(|p| p.targets[0].copies[0].dies_by = Some(date("2026-04-14"))).contains("finalSince"));
    accepted(|p| {
        final_service(p);
        p.targets[0].copies[0].dies_by = Some(date("2026-04-13"));
    });
    assert!(but(|p| p.root_slot.as_mut().unwrap().reopenable_until = Some(date("2026-04-14"))).contains("finalSince"));
    assert!(but(|p| p.residual_date = Some(date("2027-01-01"))).contains("finalSince"));
    for code in [Limitation::KeyShredPending, Limitation::ErasureUndone, Limitation::CopyUnread] {
        let refusal = refused(|p| {
            final_service(p);
            p.limitations.push(code);
        });
        assert!(refusal.contains("finalSince"), "{code:?}: {refusal}");
    }
    assert!(but(|p| p.targets[0].backups.state = BackupState::ReplayedOnRestore).contains("finalSince"));
    // A file has no date at all.
    let file = but(|p| {
        p.root_slot = Some(RootSlot::new(SlotClass::D, "file"));
        p.limitations.retain(|code| *code != Limitation::RootSlotClassB);
        p.limitations.push(Limitation::RootSlotClassD);
    });
    assert!(file.contains("finalSince"), "{file}");
}
