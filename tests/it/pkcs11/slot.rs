//! The slot by itself.

use std::path::PathBuf;

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use wangchuan::keys::pkcs11_slot::{Pkcs11Setup, Pkcs11Slot};
use wangchuan::keys::slot::{
    Device, GoneCheck, Residual, RootEvidence, RootSlot, Shortcoming, SlotClass, SlotError, TokenError,
};
use wangchuan::random::SystemRandom;

use crate::support::softhsm::{Behind, PIN, SoftHsm};

const ID: [u8; 16] = [5; 16];
/// `CKM_AES_GCM` and `CKM_AES_KEY_WRAP`.
const MECHANISMS: [u64; 2] = [0x1087, 0x2109];
/// `CKR_DEVICE_REMOVED`.
const REMOVED: u64 = 0x32;

struct Place {
    hsm: SoftHsm,
    folder: tempfile::TempDir,
    slot: Pkcs11Slot,
}

impl Place {
    fn new() -> Option<Self> {
        Some(Self::of(SoftHsm::token()?, tempfile::tempdir().unwrap()))
    }

    fn behind() -> Option<(Self, Behind)> {
        let folder = tempfile::tempdir().unwrap();
        let (hsm, behind) = SoftHsm::token()?.behind(folder.path());
        Some((Self::of(hsm, folder), behind))
    }

    fn of(hsm: SoftHsm, folder: tempfile::TempDir) -> Self {
        let slot = Pkcs11Slot::prepare(&hsm.setup(&folder.path().join("root")), ID).unwrap();
        Self { hsm, folder, slot }
    }

    fn setup(&self) -> Pkcs11Setup {
        self.hsm.setup(&self.folder.path().join("root"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    async fn generations(&self) -> Vec<i64> {
        self.slot.list().await.unwrap().iter().map(|present| present.generation).collect()
    }

    /// Another slot of the same installation on the same token, with a folder of its own: somebody else's hands.
    fn others(&self) -> Pkcs11Slot {
        Pkcs11Slot::prepare(&self.hsm.setup(&self.folder.path().join("others")), ID).unwrap()
    }

    /// The token seen without the code under test.
    fn raw<T>(&self, look: impl FnOnce(&Session) -> T) -> T {
        let module = self.hsm.module();
        let mut slots = module.get_slots_with_token().unwrap().into_iter();
        let slot = slots.find(|slot| module.get_token_info(*slot).unwrap().label() == self.hsm.label).unwrap();
        let session = module.open_rw_session(slot).unwrap();
        session.login(UserType::User, Some(&AuthPin::new(PIN.into()))).unwrap();
        look(&session)
    }

    fn keys(&self) -> usize {
        self.raw(|session| keys_in(session).len())
    }
}

fn keys_in(session: &Session) -> Vec<ObjectHandle> {
    session.find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Token(true)]).unwrap()
}

fn id_of(generation: i64) -> Attribute {
    Attribute::Id([&ID[..], &generation.to_be_bytes()].concat())
}

/// A key as somebody else makes it, with the id of a generation.
fn plant(session: &Session, generation: i64, extractable: bool) {
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(32.into()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(extractable),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        id_of(generation),
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
}

fn what(error: &SlotError) -> &'static str {
    match error {
        SlotError::Token(TokenError::Unfit { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_key_is_made_in_the_token_and_never_leaves_it_and_its_end_is_shown() {
    let Some(place) = Place::new() else { return };
    place.slot.create(1, &SystemRandom).await.unwrap();
    place.slot.create(2, &SystemRandom).await.unwrap();
    place.raw(|session| {
        assert_eq!(keys_in(session).len(), 2);
        let key = session.find_objects(&[id_of(1)]).unwrap()[0];
        let hidden = session.get_attribute_info(key, &[AttributeType::Value]).unwrap();
        assert!(matches!(hidden[..], [AttributeInfo::Sensitive]), "{hidden:?}");
        let off = [AttributeType::Extractable, AttributeType::Wrap, AttributeType::Unwrap, AttributeType::Copyable];
        let found = session.get_attributes(key, &off).unwrap();
        let expected = [Attribute::Extractable, Attribute::Wrap, Attribute::Unwrap, Attribute::Copyable];
        assert_eq!(found, expected.map(|attribute| attribute(false)));
        let label = session.get_attributes(key, &[AttributeType::Label]).unwrap();
        assert_eq!(label, [Attribute::Label(format!("wangchuan {} 1", "05".repeat(16)).into_bytes())]);
    });
    let done = place.slot.destroy(1).await.unwrap();
    let gone = place.slot.verify_gone(1).await.unwrap();
    assert!(gone.checks.contains(&GoneCheck::ServiceReadBack) && gone.checks.contains(&GoneCheck::NeverExportable));
    let token = gone.token.unwrap();
    assert!(token.marks.never_extractable && token.marks.always_sensitive && token.marks.local);
    let evidence = RootEvidence::new(done, gone);
    assert_eq!((evidence.claim.class, token.objects_left), (SlotClass::D, 0), "software, whatever it shows");
    assert!(evidence.claim.residuals.contains(&Residual::TokenCopies));
    assert_eq!(place.keys(), 1);
    let text = std::fs::read_to_string(place.path("root-2.wrapped")).unwrap();
    assert!(text.contains("\"root\":\"aes-gcm:"), "{text}");
}

#[tokio::test]
async fn a_software_token_is_never_taken_for_more_and_a_device_is_what_it_shows() {
    let Some((place, behind)) = Place::behind() else { return };
    let declared = |device, days| Pkcs11Setup { device, snapshot_retention_days: days, ..place.setup() };
    let with_backups = declared(Device::HardwareWithBackup, Some(30));
    for setup in [with_backups.clone(), declared(Device::HardwareWithoutBackup, None)] {
        let slot = Pkcs11Slot::at(&setup, ID).unwrap();
        let refused = slot.create(1, &SystemRandom).await.err().unwrap();
        assert!(what(&refused).contains("software token"), "{refused}");
        assert!(slot.list().await.is_err() && slot.shortcomings().await.is_err());
    }
    assert_eq!(place.keys(), 0);
    behind.does("maker 1");
    for (setup, class) in [(with_backups, SlotClass::B), (declared(Device::HardwareWithoutBackup, None), SlotClass::A)]
    {
        let slot = Pkcs11Slot::at(&setup, ID).unwrap();
        slot.create(1, &SystemRandom).await.unwrap();
        slot.create(2, &SystemRandom).await.unwrap();
        let done = slot.destroy(1).await.unwrap();
        let evidence = RootEvidence::new(done, slot.verify_gone(1).await.unwrap());
        assert_eq!((evidence.claim.class, evidence.claim.residual_days), (class, setup.snapshot_retention_days));
        // What somebody else removed left no marks, so nothing is claimed for it.
        place.others().destroy(2).await.unwrap();
        let done = slot.destroy(2).await.unwrap();
        assert_eq!(RootEvidence::new(done, slot.verify_gone(2).await.unwrap()).claim.class, SlotClass::D);
    }
}

#[tokio::test]
async fn a_key_without_a_wrapped_root_is_taken_and_two_are_refused() {
    let Some(place) = Place::new() else { return };
    place.slot.create(1, &SystemRandom).await.unwrap();
    // As a crash between the key and the wrapped root leaves it.
    std::fs::remove_file(place.path("root-1.wrapped")).unwrap();
    assert_eq!(place.generations().await, [1], "it is there in a form");
    let found = place.slot.shortcomings().await.unwrap();
    assert_eq!(found, [Shortcoming::WrappedRootMissing { generation: 1 }]);
    let root = place.slot.create(1, &SystemRandom).await.unwrap();
    assert_eq!(place.keys(), 1, "no second key");
    assert!(root.is_same(&place.slot.open(1).await.unwrap()));

    place.raw(|session| plant(session, 1, false));
    assert_eq!(place.slot.shortcomings().await.unwrap(), [Shortcoming::SeveralKeys { generation: 1 }]);
    assert!(root.is_same(&place.slot.open(1).await.unwrap()), "the one that opens is found");
    for _ in 0..2 {
        place.raw(|session| plant(session, 2, false));
    }
    let refused = place.slot.create(2, &SystemRandom).await.err().unwrap();
    assert!(what(&refused).contains("several keys") && !refused.is_retryable(), "{refused}");
    place.slot.destroy(1).await.unwrap();
    place.slot.verify_gone(1).await.unwrap();
    assert_eq!(place.keys(), 2, "every key of the generation goes");
}

#[tokio::test]
async fn a_key_that_could_leave_the_token_is_refused() {
    let Some(place) = Place::new() else { return };
    place.raw(|session| plant(session, 1, true));
    let refused = place.slot.create(1, &SystemRandom).await.err().unwrap();
    assert!(what(&refused).contains("never leave"), "{refused}");
    let found = place.slot.shortcomings().await.unwrap();
    assert!(found.contains(&Shortcoming::WeakMarks { generation: 1 }), "{found:?}");
    place.slot.destroy(1).await.unwrap();
    let gone = place.slot.verify_gone(1).await.unwrap();
    assert!(!gone.token.unwrap().marks.never_extractable && !gone.checks.contains(&GoneCheck::NeverExportable));
    place.slot.create(1, &SystemRandom).await.unwrap();
}

#[tokio::test]
async fn records_that_were_tampered_with_open_nothing() {
    let Some(place) = Place::new() else { return };
    place.slot.create(1, &SystemRandom).await.unwrap();
    let second = place.slot.create(2, &SystemRandom).await.unwrap();
    let [older, good] =
        ["root-1.wrapped", "root-2.wrapped"].map(|name| std::fs::read_to_string(place.path(name)).unwrap());
    let swapped = older.replace("\"generation\":1", "\"generation\":2");
    let at = good.find("aes-gcm:").unwrap() + 30;
    let flipped = format!("{}{}{}", &good[..at], if &good[at..=at] == "A" { "B" } else { "A" }, &good[at + 1..]);
    for bad in
        [swapped, flipped, good.replace("aes-gcm:", "aes-key-wrap:"), good.replace("aes-gcm:", ""), "{}".to_owned()]
    {
        std::fs::write(place.path("root-2.wrapped"), &bad).unwrap();
        let refused = place.slot.open(2).await.err();
        assert!(matches!(refused, Some(SlotError::Damaged { .. })), "{bad}: {refused:?}");
    }
    std::fs::write(place.path("root-2.wrapped"), good).unwrap();
    assert!(second.is_same(&place.slot.open(2).await.unwrap()));
    let elsewhere = Pkcs11Setup { token_label: "another".to_owned(), ..place.setup() };
    let refused = Pkcs11Slot::at(&elsewhere, ID).unwrap().open(2).await.err().unwrap();
    assert!(refused.to_string().contains("token_label"), "{refused}");
    let refused = Pkcs11Slot::at(&elsewhere, ID).unwrap().list().await.err().unwrap();
    assert!(matches!(refused, SlotError::Token(TokenError::NotPresent { .. })) && refused.is_retryable());
    // Another installation sees nothing of it.
    let other = Pkcs11Slot::prepare(&place.hsm.setup(&place.folder.path().join("o")), [6; 16]).unwrap();
    assert!(other.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_key_that_somebody_deleted_is_named_and_nothing_is_thrown_away() {
    let Some(place) = Place::new() else { return };
    place.slot.create(1, &SystemRandom).await.unwrap();
    place.others().destroy(1).await.unwrap();
    let refused = place.slot.open(1).await.err().unwrap();
    assert!(matches!(refused, SlotError::Token(TokenError::KeyGone { generation: 1, .. })), "{refused}");
    assert!(!refused.is_retryable() && place.path("root-1.wrapped").exists());
    assert!(place.generations().await.is_empty());
    assert!(matches!(place.slot.verify_gone(1).await, Err(SlotError::StillThere { .. })), "its wrapped form is");
}

#[tokio::test]
async fn a_token_without_gcm_wraps_by_key_wrap_and_one_without_either_is_refused() {
    let Some((place, behind)) = Place::behind() else { return };
    let [gcm, key_wrap] = MECHANISMS;
    behind.does(&format!("hide {gcm} {key_wrap}"));
    let refused = place.slot.create(1, &SystemRandom).await.err().unwrap();
    assert!(what(&refused).contains("AES-GCM"), "{refused}");
    behind.does(&format!("hide {gcm} 0"));
    let root = place.slot.create(1, &SystemRandom).await.unwrap();
    let text = std::fs::read_to_string(place.path("root-1.wrapped")).unwrap();
    assert!(text.contains("\"root\":\"aes-key-wrap:"), "{text}");
    assert!(root.is_same(&place.slot.open(1).await.unwrap()));
    assert_eq!(place.keys(), 1, "what was wrapped is not left in the token");
    let other = place.slot.create(2, &SystemRandom).await.unwrap();
    let swapped = text.replace("\"generation\":1", "\"generation\":2");
    std::fs::write(place.path("root-2.wrapped"), swapped).unwrap();
    assert!(matches!(place.slot.open(2).await, Err(SlotError::Damaged { .. })));
    assert!(!other.is_same(&root));
    place.slot.destroy(1).await.unwrap();
    place.slot.verify_gone(1).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_breaks_at_any_call_loses_nothing_and_is_made_anew() {
    let Some((place, behind)) = Place::behind() else { return };
    let slot = &place.slot;
    slot.create(1, &SystemRandom).await.unwrap();
    let mut generation = 1;
    for from in 1.. {
        behind.does(&format!("fail_from {from} {REMOVED}"));
        let broken = async {
            slot.create(generation + 1, &SystemRandom).await?;
            slot.open(generation + 1).await?;
            slot.destroy(generation).await?;
            slot.verify_gone(generation).await
        };
        let Err(error) = broken.await else {
            assert!(from > 9, "a change makes more calls than {from}");
            break;
        };
        let expected = matches!(error, SlotError::Token(TokenError::Lost { .. }));
        assert!(expected && error.is_retryable(), "{from}: {error}");
        behind.does("");
        let root = slot.create(generation + 1, &SystemRandom).await.unwrap();
        assert!(root.is_same(&slot.open(generation + 1).await.unwrap()), "{from}");
        slot.destroy(generation).await.unwrap();
        let gone = slot.verify_gone(generation).await.unwrap();
        assert!(gone.token.is_some_and(|token| token.marks.never_left()), "{from}: the marks are lost");
        generation += 1;
        assert_eq!((place.generations().await, place.keys()), (vec![generation], 1), "{from}");
    }
    assert!(behind.count("FINALIZE", 0) > 9, "the module was not initialised anew");
}
