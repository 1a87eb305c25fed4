//! Certificates signed in a PKCS#11 token: the pair is made there, or found by the label that the operator gave it; a token that goes
//! away, a wrong PIN and a deleted key keep certificates waiting and lose none.

use chrono::TimeDelta;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use wangchuan::installation::Installation;
use wangchuan::keys::pkcs11_slot::Pkcs11Signing;
use wangchuan::keys::signing::{PublicHalf, SigningError, SigningKind, SigningPlace as _};
use wangchuan::keys::slot::{PinTrouble, SlotError, TokenError};
use wangchuan::tasks::TaskError;
use wangchuan::tasks::certify::{certify_due, certify_or_wait};
use wangchuan::tasks::outbox::file_due;
use wangchuan::tasks::signing_keys::rotate;

use crate::proof::signing_keys::{all_good, one_more, stock_verifiers_take, without_a_gap};
use crate::proof::tools::{customers, filed};
use crate::support::softhsm::{PIN, SoftHsm};
use crate::support::world::{Making, World, forget, snapshot};

/// `CKR_TOKEN_NOT_PRESENT`.
const NOT_PRESENT: u64 = 0xe0;

fn section(hsm: &SoftHsm, more: &str) -> String {
    format!(
        "[signing]\nkind = \"pkcs11\"\nmodule = \"{}\"\ntoken_label = \"{}\"\npin = \"{PIN}\"\n{more}",
        hsm.module.display(),
        hsm.label
    )
}

/// A session of the test's own.
fn session(hsm: &SoftHsm) -> Session {
    let module = hsm.module();
    let mut slots = module.get_slots_with_token().unwrap().into_iter();
    let is_ours = |slot: &_| module.get_token_info(*slot).unwrap().label().trim_end() == hsm.label;
    let session = module.open_rw_session(slots.find(is_ours).unwrap()).unwrap();
    session.login(UserType::User, Some(&AuthPin::new(PIN.into()))).unwrap();
    session
}

async fn numbers(installation: &Installation) -> Vec<i64> {
    let rows = installation.control.read().await.unwrap().certificates(None).await.unwrap();
    rows.iter().map(|row| row.sequence).collect()
}

fn key_label(installation: &Installation) -> Vec<u8> {
    installation.signer.history().in_use().unwrap().name.clone().into_bytes()
}

/// A pair as pkcs11-tool makes it.
fn make_pair(hands: &Session, label: &[u8]) {
    let curve = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07].to_vec();
    let label = Attribute::Label(label.to_vec());
    let public = [Attribute::Token(true), Attribute::EcParams(curve), label.clone()];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        label,
    ];
    hands.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_made_in_the_token_and_certificates_wait_while_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let Some(real) = SoftHsm::token() else { return };
    let (hsm, behind) = real.clone().behind(folder.path());
    let audit = format!("url = \"embedded\"\ndata = \"audit\"\n\n{}", section(&hsm, ""));
    let world = World::make(Making { audit, ..Making::default() }).await;
    assert!(!world.path("state/signing-key.pem").exists(), "no private half on this host");
    let mut installation = world.open().await;
    assert_eq!(installation.signer.history().in_use().unwrap().kind, SigningKind::Pkcs11);
    snapshot(&installation).await;
    forget(&installation, &customers(&world)[0]).await;
    behind.does(&format!("fail_from 1 {NOT_PRESENT}"));
    let (issued, waits) = certify_or_wait(&installation).await.unwrap();
    assert!(issued.is_empty() && waits.unwrap().contains("the certificate waits"));
    behind.does("");
    assert_eq!(certify_due(&installation).await.unwrap().len(), 1);
    assert_eq!(certify_due(&installation).await.unwrap(), Vec::<String>::new(), "double");
    assert_eq!(numbers(&installation).await, [1]);
    world.clock.advance(TimeDelta::hours(1));
    rotate(&mut installation).await.unwrap();
    world.clock.advance(TimeDelta::hours(1));
    one_more(&world, &installation, 1).await;
    file_due(&installation, true).await.unwrap();
    all_good(&installation).await;
    without_a_gap(&installation, 2);

    // Somebody deletes the key: another takes its place, and what it signed stays good.
    let hands = session(&real);
    let label = Attribute::Label(key_label(&installation));
    for key in hands.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY), label]).unwrap() {
        let wanted = [AttributeType::Sensitive, AttributeType::Extractable, AttributeType::NeverExtractable];
        let found = hands.get_attributes(key, &wanted).unwrap();
        assert!(found.contains(&Attribute::Sensitive(true)) && found.contains(&Attribute::NeverExtractable(true)));
        hands.destroy_object(key).unwrap();
    }
    drop(hands);
    forget(&installation, &customers(&world)[2]).await;
    match certify_or_wait(&installation).await {
        Err(TaskError::Signing(error @ SigningError::KeyGone { .. })) => assert!(!error.is_retryable()),
        other => panic!("{other:?}"),
    }
    // Another key with its name signs, but not for it.
    let hands = session(&real);
    make_pair(&hands, &key_label(&installation));
    drop(hands);
    match certify_or_wait(&installation).await {
        Err(TaskError::Signing(error @ SigningError::OtherKey { .. })) => assert!(!error.is_retryable()),
        other => panic!("{other:?}"),
    }
    assert_eq!(numbers(&installation).await, [1, 2]);
    world.clock.advance(TimeDelta::hours(1));
    rotate(&mut installation).await.unwrap();
    world.clock.advance(TimeDelta::hours(1));
    assert_eq!(certify_due(&installation).await.unwrap().len(), 1);
    file_due(&installation, true).await.unwrap();
    all_good(&installation).await;
    without_a_gap(&installation, 3);
    installation.close().await.unwrap();
    stock_verifiers_take(&world, &[1, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_from_the_file_to_a_pair_of_the_operator_s_keeps_what_was_signed() {
    let Some(hsm) = SoftHsm::token() else { return };
    let world = filed(Making::default(), 2).await;
    let plain = std::fs::read_to_string(world.path("wangchuan.toml")).unwrap();
    let text = format!("{plain}\n{}\n", section(&hsm, "key_label = \"certificates\""));
    std::fs::write(world.path("wangchuan.toml"), text).unwrap();
    world.clock.advance(TimeDelta::hours(1));
    let mut installation = world.open().await;
    let before = installation.signer.key_id().to_owned();
    match rotate(&mut installation).await {
        Err(TaskError::Signing(SigningError::Unfit { what, .. })) => assert!(what.contains("key_label"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(installation.signer.key_id(), before, "nothing has changed");
    // As pkcs11-tool makes it.
    let hands = session(&hsm);
    make_pair(&hands, b"certificates");
    drop(hands);
    let change = rotate(&mut installation).await.unwrap();
    assert_eq!((change.from, change.to), (SigningKind::File, SigningKind::Pkcs11));
    assert!(!world.path("state/signing-key.pem").exists());
    world.clock.advance(TimeDelta::hours(1));
    one_more(&world, &installation, 2).await;
    file_due(&installation, true).await.unwrap();
    all_good(&installation).await;
    without_a_gap(&installation, 2);
    // The same pair again would be no other key.
    assert!(matches!(rotate(&mut installation).await, Err(TaskError::Signing(SigningError::Unfit { .. }))));
    installation.close().await.unwrap();
    stock_verifiers_take(&world, &[1, 3]);
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_and_signatures_verify() {
    let Some(hsm) = SoftHsm::token() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut setup = hsm.setup(folder.path());
    let good = Pkcs11Signing::new(&setup, [7; 16], None);
    let made = good.make(&[]).await.unwrap();
    assert_eq!(good.make(&[]).await.unwrap(), made, "a pair that was never put into use is taken");
    assert_ne!(good.make(std::slice::from_ref(&made.name)).await.unwrap().public, made.public);
    let PublicHalf::Point(point) = &made.public else { panic!("{made:?}") };
    let key = wangchuan::certify::signer::PublicKey::from_point(point).unwrap();
    for _ in 0..20 {
        let signature = good.sign(&made.name, b"text").await.unwrap();
        assert!(key.verifies(b"text", &signature) && !key.verifies(b"other", &signature));
    }
    setup.pin = wangchuan::policy::registry::SecretText::new("000000".to_owned());
    let bad = Pkcs11Signing::new(&setup, [7; 16], None);
    for why in [PinTrouble::Refused, PinTrouble::HeldBack, PinTrouble::HeldBack] {
        match bad.sign(&made.name, b"text").await {
            Err(SigningError::Slot(SlotError::Token(TokenError::Pin { why: told, .. }))) => assert_eq!(told, why),
            other => panic!("{other:?}"),
        }
    }
    assert!(good.sign(&made.name, b"text").await.is_ok(), "the right PIN is another one");
    bad.allow_another_try().await.unwrap();
}
