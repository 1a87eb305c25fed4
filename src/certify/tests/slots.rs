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
