//! What a certificate must say of a root slot in a key service.

use super::*;

#[test]
fn a_service_is_believed_only_with_its_read_back_and_a_date() {
    fn service(p: &mut Predicate) {
        let date = NaiveDate::from_ymd_opt(2099, 1, 1);
        let mut slot = RootSlot::new(SlotClass::B, "transit");
        slot.reopenable_until = date;
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
        p.residual_date = date;
    }
    fn without(change: fn(&mut RootSlot)) -> String {
        refused(|p| {
            service(p);
            change(p.root_slot.as_mut().unwrap());
        })
    }
    accepted(service);
    let untold = refused(|p| {
        service(p);
        p.limitations.retain(|code| *code != Limitation::RootSlotClassB);
    });
    assert!(untold.contains("root slot"), "{untold}");
    assert!(without(|slot| slot.read_back = None).contains("readBack"));
    assert!(without(|slot| slot.read_back.as_mut().unwrap().min_available_version = 4).contains("readBack"));
    assert!(without(|slot| slot.read_back.as_mut().unwrap().exportable = true).contains("readBack"));
    assert!(without(|slot| slot.read_back.as_mut().unwrap().allow_plaintext_backup = true).contains("readBack"));
    assert!(without(|slot| slot.reopenable_until = None).contains("reopenableUntil"));
    assert!(without(|slot| slot.reopenable_until = NaiveDate::from_ymd_opt(2099, 1, 2)).contains("residualDate"));
}

#[test]
fn a_destruction_at_a_date_counts_only_behind_it_and_with_the_word_of_the_service() {
    fn delayed(p: &mut Predicate) {
        let mut slot = RootSlot::new(SlotClass::C, "aws-kms");
        slot.irrevocable_at = p.targets.iter().flat_map(|target| &target.keys).find_map(|key| key.destroyed_at);
        slot.checks = ["name-absent", "service-read-back", "never-exportable"].map(str::to_owned).to_vec();
        assert!(slot.irrevocable_at.is_some(), "the sample has a destroyed key");
        p.root_slot = Some(slot);
        p.limitations.retain(|code| *code != Limitation::RootSlotClassD);
        p.limitations.push(Limitation::RootSlotClassC);
    }
    fn without(change: fn(&mut RootSlot)) -> String {
        refused(|p| {
            delayed(p);
            change(p.root_slot.as_mut().unwrap());
        })
    }
    accepted(delayed);
    let untold = refused(|p| {
        delayed(p);
        p.limitations.retain(|code| *code != Limitation::RootSlotClassC);
    });
    assert!(untold.contains("root slot"), "{untold}");
    assert!(without(|slot| slot.checks.truncate(1)).contains("checks"));
    assert!(without(|slot| slot.checks.truncate(2)).contains("checks"));
    assert!(without(|slot| slot.irrevocable_at = None).contains("irrevocableAt"));
    let later = |slot: &mut RootSlot| {
        let at = slot.irrevocable_at.unwrap().instant() + chrono::TimeDelta::seconds(1);
        slot.irrevocable_at = Some(Timestamp::from(at));
    };
    assert!(without(later).contains("irrevocableAt"), "claimed a second too early");
}

/// A device of class A that showed everything.
pub(super) fn device() -> RootSlot {
    let token = Some(SlotToken { never_extractable: true, always_sensitive: true, local: true, objects_left: 0 });
    RootSlot { token, ..RootSlot::new(SlotClass::A, "pkcs11") }
}

#[test]
fn a_device_is_believed_only_with_the_marks_of_its_key() {
    fn of_class_a(p: &mut Predicate) {
        p.root_slot = Some(device());
        p.limitations.retain(|code| *code != Limitation::RootSlotClassD);
        p.limitations.push(Limitation::RootSlotClassA);
    }
    fn without(change: fn(&mut Predicate)) -> String {
        refused(|p| {
            of_class_a(p);
            change(p);
        })
    }
    fn of_token(p: &mut Predicate) -> &mut SlotToken {
        p.root_slot.as_mut().unwrap().token.as_mut().unwrap()
    }
    accepted(of_class_a);
    assert!(without(|p| p.limitations.retain(|code| *code != Limitation::RootSlotClassA)).contains("root slot"));
    assert!(without(|p| p.root_slot.as_mut().unwrap().token = None).contains("readBack"));
    for change in [
        (|p| of_token(p).never_extractable = false) as fn(&mut Predicate),
        |p| of_token(p).always_sensitive = false,
        |p| of_token(p).local = false,
        |p| of_token(p).objects_left = 1,
    ] {
        assert!(without(change).contains("rootSlot/token"));
    }
    // With backups it needs their date too.
    let undated = without(|p| {
        p.root_slot.as_mut().unwrap().class = SlotClass::B;
        p.limitations.retain(|code| *code != Limitation::RootSlotClassA);
        p.limitations.push(Limitation::RootSlotClassB);
    });
    assert!(undated.contains("reopenableUntil"), "{undated}");
}
