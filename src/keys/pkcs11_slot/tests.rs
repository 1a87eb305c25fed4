//! What needs no token; the slot itself is tested on SoftHSM.

use super::*;
use crate::keys::testing::SeededRandom;

fn setup(folder: &tempfile::TempDir, module: &str) -> Pkcs11Setup {
    Pkcs11Setup {
        module: folder.path().join(module),
        token_label: "roots".to_owned(),
        pin: SecretText::new("4711-0815".to_owned()),
        device: Device::Software,
        snapshot_retention_days: None,
        folder: folder.path().join("wrapped"),
    }
}

#[test]
fn the_class_is_what_the_operator_declares_and_software_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Device::default(), Device::Software);
    for (device, class, sentence, residual) in [
        (Device::Software, SlotClass::D, ClaimSentence::LogicalRemovalOnly, Residual::TokenCopies),
        (Device::HardwareWithBackup, SlotClass::B, ClaimSentence::DestroyedInLiveService, Residual::TokenCopies),
        (Device::HardwareWithoutBackup, SlotClass::A, ClaimSentence::DestroyedNoCopyKnown, Residual::MakerWord),
    ] {
        let claim = Pkcs11Setup { device, ..setup(&folder, "m") }.claim();
        assert_eq!((claim.kind, claim.class, claim.sentence), (SlotKind::Pkcs11, class, sentence));
        assert_eq!(claim.residuals, [residual, Residual::MemoryCapture]);
        assert_eq!(serde_json::to_value(device).unwrap(), device.name());
    }
}

#[tokio::test]
async fn a_module_that_is_missing_or_none_or_anybodys_is_refused_without_a_pin_in_the_words() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text.so"), "no library").unwrap();
    std::fs::write(folder.path().join("open.so"), "no library").unwrap();
    std::fs::set_permissions(folder.path().join("open.so"), PermissionsExt::from_mode(0o646)).unwrap();
    for (module, said) in [("missing.so", "No such file"), ("text.so", "text.so"), ("open.so", "can write it")] {
        let setup = setup(&folder, module);
        let slot = Pkcs11Slot::prepare(&setup, [7; 16]).unwrap();
        let refused = slot.create(1, &SeededRandom::new(1)).await.err().unwrap();
        let text = format!("{refused} {refused:?} {setup:?}");
        assert!(matches!(refused, SlotError::Token(TokenError::Module { .. })) && !refused.is_retryable(), "{text}");
        assert!(text.contains(said) && !text.contains("4711"), "{text}");
        assert!(
            matches!(slot.open(1).await, Err(SlotError::Missing { generation: 1, .. })),
            "no token is asked for nothing"
        );
    }
}

#[test]
fn names_and_binding_of_every_generation_are_its_own() {
    let [mine, next] = [1, 2].map(|generation| associated_data(&[7; 16], generation));
    assert!(mine != next && mine != associated_data(&[8; 16], 1));
    assert_eq!(mine, [b"wangchuan root 1".as_slice(), &[7; 16], &1_i64.to_be_bytes(), b"aes256-gcm"].concat());
}

#[test]
fn marks_of_a_destroyed_key_stay_on_the_shelf_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Shelf::of_token(&folder.path().join("wrapped"), &[7; 16], "roots");
    shelf.files.prepare().unwrap();
    let marks = TokenMarks { never_extractable: true, always_sensitive: true, local: true };
    shelf.put_gone(3, Some(marks)).unwrap();
    let path = shelf.files.path(3, Kind::Gone);
    let golden = "{\"format\":1,\"installation\":\"07070707070707070707070707070707\",\"mount\":\"roots\",\"key\":\"pkcs11\",\
                  \"generation\":3,\"version\":1,\"token\":{\"never_extractable\":true,\"always_sensitive\":true,\"local\":true}}";
    assert_eq!(std::fs::read_to_string(&path).unwrap(), golden);
    assert_eq!(shelf.get(3, Kind::Gone).unwrap().unwrap().token, Some(marks));
    std::fs::rename(&path, shelf.files.path(3, Kind::Intent)).unwrap();
    assert!(matches!(shelf.get(3, Kind::Intent), Err(SlotError::Damaged { .. })));
    let other = Shelf::of_token(&folder.path().join("wrapped"), &[7; 16], "others");
    shelf.put_gone(3, None).unwrap();
    assert!(other.get(3, Kind::Gone).unwrap_err().to_string().contains("token_label"));
    for weak in [
        TokenMarks { never_extractable: false, ..marks },
        TokenMarks { always_sensitive: false, ..marks },
        TokenMarks { local: false, ..marks },
    ] {
        assert!(marks.never_left() && !weak.never_left() && !marks.common(weak).never_left());
    }
}
