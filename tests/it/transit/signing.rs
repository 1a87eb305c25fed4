//! Certificates signed in OpenBao: the key is made there, moves there and from there, and whatever becomes of the service, its token or
//! its key, certificates wait under their numbers and nothing is lost or double.

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use wangchuan::installation::Installation;
use wangchuan::keys::signing::{SigningError, SigningKind, SigningPlace as _};
use wangchuan::keys::slot::{Shortcoming, SlotError};
use wangchuan::keys::transit_slot::{TransitSetup, TransitSigning};
use wangchuan::tasks::TaskError;
use wangchuan::tasks::certify::{certify_due, certify_or_wait};
use wangchuan::tasks::outbox::file_due;
use wangchuan::tasks::signing_keys::rotate;

use crate::proof::signing_keys::{all_good, one_more, stock_verifiers_take, without_a_gap};
use crate::proof::tools::{customers, filed};
use crate::support::bao::{Bao, Gate, POLICY};
use crate::support::program::Program;
use crate::support::world::{Making, World, forget, snapshot};

const KEY: &str = "wangchuan-signing";

async fn make_key(bao: &Bao, kind: &str) {
    bao.good(Method::POST, &format!("transit/keys/{KEY}"), json!({"type": kind})).await;
}

async fn configure_key(bao: &Bao, body: Value) {
    bao.good(Method::POST, &format!("transit/keys/{KEY}/config"), body).await;
}

/// The lines of `[signing]`.
fn section(address: &str, token: &str) -> String {
    format!("[signing]\nkind = \"transit\"\naddress = \"{address}\"\nkey = \"{KEY}\"\ntoken = \"{token}\"")
}

/// A world that files in its own log and signs at this address.
fn making(address: &str, token: &str) -> Making {
    let audit = format!("url = \"embedded\"\ndata = \"audit\"\n\n{}", section(address, token));
    Making { audit, ..Making::default() }
}

fn setup(bao: &Bao, token: &str) -> TransitSetup {
    TransitSetup { key: KEY.to_owned(), ..bao.setup(std::path::Path::new("none"), token) }
}

async fn numbers(installation: &Installation) -> Vec<i64> {
    let rows = installation.control.read().await.unwrap().certificates(None).await.unwrap();
    rows.iter().map(|row| row.sequence).collect()
}

/// The certificate waits for somebody, for this reason; nothing was issued.
async fn waits_for_somebody(installation: &Installation, is_meant: impl Fn(&SigningError) -> bool) {
    let before = numbers(installation).await;
    match certify_or_wait(installation).await {
        Err(TaskError::Signing(error)) if is_meant(&error) => assert!(!error.is_retryable(), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(numbers(installation).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_wait_for_the_service_and_nothing_is_lost_or_double() {
    let Some(bao) = Bao::start().await else { return };
    make_key(&bao, "ecdsa-p256").await;
    let gate = Gate::before(&bao).await;
    let token = bao.token(&["wangchuan"], "1h").await;
    let world = World::make(making(&gate.address, &token)).await;
    assert!(!world.path("state/signing-key.pem").exists(), "no private half on this host");
    let mut installation = world.open().await;
    let held = installation.signer.history().in_use().unwrap().clone();
    assert_eq!((held.kind, held.name.as_str()), (SigningKind::Transit, "wangchuan-signing/1"));
    snapshot(&installation).await;
    forget(&installation, &customers(&world)[0]).await;
    gate.allow(0);
    let (issued, waits) = certify_or_wait(&installation).await.unwrap();
    assert!(issued.is_empty() && waits.unwrap().contains("the certificate waits"), "it is issued without a signature");
    assert!(numbers(&installation).await.is_empty());
    gate.open();
    assert_eq!(certify_due(&installation).await.unwrap().len(), 1);
    assert_eq!(certify_due(&installation).await.unwrap(), Vec::<String>::new(), "double");
    assert_eq!(numbers(&installation).await, [1], "the reserved number is used");
    file_due(&installation, true).await.unwrap();
    all_good(&installation).await;

    // Somebody rotates the key in the service: this changes nothing here.
    let id = installation.signer.key_id().to_owned();
    bao.good(Method::POST, &format!("transit/keys/{KEY}/rotate"), json!({})).await;
    one_more(&world, &installation, 1).await;
    assert_eq!(installation.signer.key_id(), id);
    world.clock.advance(TimeDelta::hours(1));
    let change = rotate(&mut installation).await.unwrap();
    assert_eq!(installation.signer.history().in_use().unwrap().name, "wangchuan-signing/2", "{change:?}");
    world.clock.advance(TimeDelta::hours(1));
    one_more(&world, &installation, 2).await;
    file_due(&installation, true).await.unwrap();
    all_good(&installation).await;
    without_a_gap(&installation, 2);

    somebody_else(&bao, &world, &mut installation).await;
    installation.close().await.unwrap();
    stock_verifiers_take(&world, &[1, 5]);
}

/// The version in use is switched off, then trimmed away by somebody else.
async fn somebody_else(bao: &Bao, world: &World, installation: &mut Installation) {
    bao.good(Method::POST, &format!("transit/keys/{KEY}/rotate"), json!({})).await;
    configure_key(bao, json!({"min_encryption_version": 3})).await;
    forget(installation, &customers(world)[3]).await;
    waits_for_somebody(installation, |error| matches!(error, SigningError::SwitchedOff { lowest: 3, .. })).await;
    configure_key(bao, json!({"min_encryption_version": 0})).await;
    assert_eq!(certify_due(installation).await.unwrap().len(), 1, "switched on again");

    configure_key(bao, json!({"min_decryption_version": 3, "min_encryption_version": 3})).await;
    bao.good(Method::POST, &format!("transit/keys/{KEY}/trim"), json!({"min_available_version": 3})).await;
    forget(installation, &customers(world)[4]).await;
    waits_for_somebody(installation, |error| matches!(error, SigningError::KeyGone { .. })).await;
    world.clock.advance(TimeDelta::hours(1));
    rotate(installation).await.unwrap();
    world.clock.advance(TimeDelta::hours(1));
    assert_eq!(certify_due(installation).await.unwrap().len(), 1);
    assert_eq!(numbers(installation).await, [1, 2, 3, 4, 5]);
    file_due(installation, true).await.unwrap();
    all_good(installation).await;
    without_a_gap(installation, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_from_the_file_and_back_keeps_what_was_signed() {
    let Some(bao) = Bao::start().await else { return };
    make_key(&bao, "ecdsa-p256").await;
    let token = bao.token(&["wangchuan"], "1h").await;
    let world = filed(Making::default(), 2).await;
    let plain = std::fs::read_to_string(world.path("wangchuan.toml")).unwrap();
    let owner = Program::in_directory(world.folder.path());
    std::fs::write(world.path("wangchuan.toml"), format!("{plain}\n{}\n", section(&bao.address(), &token))).unwrap();
    // Until somebody rotates, the file signs on, and doctor says so.
    let installation = world.open().await;
    one_more(&world, &installation, 2).await;
    installation.close().await.unwrap();
    owner.json(&["doctor"]).says(&["the signing key in use is still in file", "audit key rotate"]);
    world.clock.advance(TimeDelta::hours(1));
    let mut installation = world.open().await;
    let change = rotate(&mut installation).await.unwrap();
    assert_eq!((change.from, change.to), (SigningKind::File, SigningKind::Transit));
    assert!(!world.path("state/signing-key.pem").exists(), "the private half of the key that ended stays on this host");
    world.clock.advance(TimeDelta::hours(1));
    one_more(&world, &installation, 3).await;
    snapshot(&installation).await;
    file_due(&installation, true).await.unwrap();
    all_good(&installation).await;
    installation.close().await.unwrap();
    owner.json(&["doctor"]).says(&["(transit)"]).never_says("still in file");
    owner.json(&["key", "advice"]).ends(0).says(&["never leaves the key service"]);

    // The configuration leads elsewhere: nothing is signed before somebody rotates.
    std::fs::write(world.path("wangchuan.toml"), &plain).unwrap();
    let mut installation = world.open().await;
    forget(&installation, &customers(&world)[4]).await;
    waits_for_somebody(&installation, |error| matches!(error, SigningError::Elsewhere { .. })).await;
    world.clock.advance(TimeDelta::hours(1));
    let change = rotate(&mut installation).await.unwrap();
    assert_eq!((change.from, change.to), (SigningKind::Transit, SigningKind::File));
    world.clock.advance(TimeDelta::hours(1));
    assert_eq!(certify_due(&installation).await.unwrap().len(), 1);
    file_due(&installation, true).await.unwrap();
    all_good(&installation).await;
    without_a_gap(&installation, 3);
    installation.close().await.unwrap();
    stock_verifiers_take(&world, &[4]);
}

#[tokio::test]
async fn the_shipped_policy_is_enough_to_sign_and_no_more_and_a_missing_right_is_named() {
    let Some(bao) = Bao::start().await else { return };
    make_key(&bao, "ecdsa-p256").await;
    let token = bao.token(&["wangchuan"], "1h").await;
    for (method, path, body) in [
        (Method::GET, format!("transit/export/signing-key/{KEY}"), json!(null)),
        (Method::GET, format!("transit/backup/{KEY}"), json!(null)),
        (Method::POST, format!("transit/keys/{KEY}/config"), json!({"exportable": true})),
        (Method::POST, format!("transit/keys/{KEY}/trim"), json!({"min_available_version": 1})),
        (Method::DELETE, format!("transit/keys/{KEY}"), json!(null)),
    ] {
        assert_eq!(bao.call_as(&token, method, &path, body).await, 403, "{path}");
    }
    let place = TransitSigning::new(&setup(&bao, &token)).unwrap();
    assert_eq!(place.shortcomings().await.unwrap(), []);
    let made = place.make(&[]).await.unwrap();
    let again = place.make(&[]).await.unwrap();
    assert_eq!(made, again, "a key that was never put into use is taken");
    let next = place.make(std::slice::from_ref(&made.name)).await.unwrap();
    assert_ne!(made.public, next.public);
    for path in [format!("transit/sign/{KEY}"), format!("transit/keys/{KEY}/rotate"), format!("transit/keys/{KEY}")] {
        let less = POLICY.replace(&format!("path \"{path}\" "), "path \"transit/nothing\" ");
        assert_ne!(less, POLICY, "{path}");
        bao.good(Method::PUT, "sys/policies/acl/wangchuan", json!({"policy": less})).await;
        let work = async {
            place.sign(&next.name, b"text").await?;
            place.make(&[made.name.clone(), next.name.clone()]).await
        };
        match work.await.err() {
            Some(SigningError::Slot(SlotError::Denied { path: named, .. })) => assert_eq!(named, path),
            other => panic!("{path}: {other:?}"),
        }
        if path != format!("transit/keys/{KEY}") {
            let found = place.shortcomings().await.unwrap();
            let named = |found: &Shortcoming| matches!(found, Shortcoming::MissingRight { path: p, .. } if *p == path);
            assert!(found.iter().any(named), "{path}: {found:?}");
        }
        bao.good(Method::PUT, "sys/policies/acl/wangchuan", json!({"policy": POLICY})).await;
    }
}

#[tokio::test]
async fn a_key_that_can_leave_the_service_or_is_of_another_type_is_not_taken() {
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["wangchuan"], "1h").await;
    let place = TransitSigning::new(&setup(&bao, &token)).unwrap();
    let unfit = async |why: &str| match place.make(&[]).await {
        Err(SigningError::Unfit { what, .. }) => assert!(what.contains(why), "{what}"),
        other => panic!("{why}: {other:?}"),
    };
    unfit("there is no such key").await;
    make_key(&bao, "ecdsa-p384").await;
    unfit("ecdsa-p256").await;
    configure_key(&bao, json!({"deletion_allowed": true})).await;
    bao.good(Method::DELETE, &format!("transit/keys/{KEY}"), Value::Null).await;
    make_key(&bao, "ecdsa-p256").await;
    configure_key(&bao, json!({"exportable": true})).await;
    unfit("can be exported").await;
}
