//! The shipped policy is exactly enough, and who the agent is may end at any time.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use wangchuan::keys::slot::{RootSlot, Shortcoming, SlotError};
use wangchuan::keys::transit_slot::{TransitAuth, TransitSlot};
use wangchuan::policy::registry::SecretText;
use wangchuan::random::SystemRandom;

use crate::support::bao::{Bao, POLICY};

const ID: [u8; 16] = [5; 16];

fn secret(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

#[tokio::test]
async fn the_shipped_policy_allows_nothing_else() {
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["wangchuan"], "1h").await;
    for (method, path, body) in [
        (Method::GET, "transit/export/encryption-key/wangchuan", json!(null)),
        (Method::GET, "transit/backup/wangchuan", json!(null)),
        (Method::POST, "transit/restore/wangchuan", json!({"backup": "x", "force": true})),
        (Method::POST, "transit/keys/wangchuan/config", json!({"exportable": true})),
        (Method::POST, "transit/keys/wangchuan/config", json!({"allow_plaintext_backup": true})),
        (Method::POST, "transit/keys/wangchuan/config", json!({"deletion_allowed": true})),
        (Method::POST, "transit/keys/wangchuan/config", json!({"min_decryption_version": 1, "exportable": true})),
        (Method::DELETE, "transit/keys/wangchuan", json!(null)),
        (Method::POST, "transit/keys/another", json!({})),
        (Method::POST, "transit/encrypt/another", json!({"plaintext": "AAAA"})),
        (Method::GET, "sys/storage/raft/snapshot", json!(null)),
    ] {
        assert_eq!(bao.call_as(&token, method, path, body).await, 403, "{path}");
    }
    let folder = tempfile::tempdir().unwrap();
    let slot = TransitSlot::prepare(&bao.setup(&folder.path().join("root"), &token), ID).unwrap();
    slot.create(1, &SystemRandom).await.unwrap();
    slot.create(2, &SystemRandom).await.unwrap();
    slot.destroy(1).await.unwrap();
    slot.verify_gone(1).await.unwrap();
    assert_eq!(slot.shortcomings().await.unwrap(), []);

    let everything = bao.token(&["root"], "1h").await;
    let slot = TransitSlot::at(&bao.setup(&folder.path().join("root"), &everything), ID).unwrap();
    let found = slot.shortcomings().await.unwrap();
    assert_eq!(found.iter().filter(|found| matches!(found, Shortcoming::ExcessRight { .. })).count(), 4, "{found:?}");
}

/// Each line of the policy is needed: without it the error names the path and the capability that is missing.
#[tokio::test]
async fn a_missing_right_is_named() {
    let Some(bao) = Bao::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let token = bao.token(&["wangchuan"], "1h").await;
    let slot = TransitSlot::prepare(&bao.setup(&folder.path().join("root"), &token), ID).unwrap();
    slot.create(1, &SystemRandom).await.unwrap();
    for (path, capability) in [
        ("transit/keys/wangchuan", "read"),
        ("transit/keys/wangchuan/rotate", "update"),
        ("transit/encrypt/wangchuan", "update"),
        ("transit/decrypt/wangchuan", "update"),
        ("transit/keys/wangchuan/config", "update"),
        ("transit/keys/wangchuan/trim", "update"),
    ] {
        let less = POLICY.replace(&format!("path \"{path}\" "), "path \"transit/nothing\" ");
        assert_ne!(less, POLICY, "{path}");
        bao.good(Method::PUT, "sys/policies/acl/wangchuan", json!({"policy": less})).await;
        let work = async {
            slot.open(1).await?;
            slot.create(2, &SystemRandom).await?;
            slot.destroy(1).await?;
            slot.verify_gone(1).await
        };
        match work.await.err() {
            Some(SlotError::Denied { path: named, capability: right, .. }) => {
                assert_eq!((&*named, right), (path, capability));
            }
            other => panic!("{path}: {other:?}"),
        }
        if path != "transit/keys/wangchuan" {
            let found = slot.shortcomings().await.unwrap();
            assert!(
                found.contains(&Shortcoming::MissingRight { path: path.to_owned(), capability }),
                "{path}: {found:?}"
            );
        }
        bao.good(Method::PUT, "sys/policies/acl/wangchuan", json!({"policy": POLICY})).await;
    }
    slot.create(2, &SystemRandom).await.unwrap();
    slot.destroy(1).await.unwrap();
    slot.verify_gone(1).await.unwrap();
    assert!(slot.open(2).await.is_ok());
}

#[tokio::test]
async fn a_revoked_token_is_told_from_a_missing_right_and_a_role_logs_in_again() {
    let Some(bao) = Bao::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let token = bao.token(&["wangchuan"], "1h").await;
    let setup = bao.setup(&folder.path().join("root"), &token);
    let slot = TransitSlot::prepare(&setup, ID).unwrap();
    let root = slot.create(1, &SystemRandom).await.unwrap();
    bao.good(Method::POST, "auth/token/revoke", json!({"token": token})).await;
    let refused = slot.open(1).await.err().unwrap();
    assert!(matches!(refused, SlotError::NotAuthenticated { .. }) && !refused.is_retryable(), "{refused}");
    assert!(!refused.to_string().contains(&token) && !format!("{refused:?} {setup:?}").contains(&token));

    let (role_id, secret_id) = bao.role("1h").await;
    let auth =
        TransitAuth::AppRole { mount: "approle".to_owned(), role_id: secret(&role_id), secret_id: secret(&secret_id) };
    let slot = TransitSlot::at(&wangchuan::keys::transit_slot::TransitSetup { auth, ..setup.clone() }, ID).unwrap();
    assert!(root.is_same(&slot.open(1).await.unwrap()));
    // All tokens of the role are revoked at once.
    bao.good(Method::POST, "sys/leases/revoke-prefix/auth/approle/login", json!({})).await;
    assert!(root.is_same(&slot.open(1).await.unwrap()), "it logs in again by itself");

    let auth =
        TransitAuth::AppRole { mount: "approle".to_owned(), role_id: secret(&role_id), secret_id: secret("wrong") };
    let slot = TransitSlot::at(&wangchuan::keys::transit_slot::TransitSetup { auth, ..setup }, ID).unwrap();
    let refused = slot.open(1).await.err().unwrap();
    assert!(matches!(refused, SlotError::NotAuthenticated { .. }), "{refused}");
}

#[tokio::test]
async fn a_token_is_renewed_while_it_is_used() {
    let Some(bao) = Bao::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let token = bao.token(&["wangchuan"], "6s").await;
    let slot = TransitSlot::prepare(&bao.setup(&folder.path().join("root"), &token), ID).unwrap();
    let root = slot.create(1, &SystemRandom).await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(root.is_same(&slot.open(1).await.unwrap()), "ten seconds on a token of six");
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    let late = slot.open(1).await.err().unwrap();
    assert!(matches!(late, SlotError::NotAuthenticated { .. }), "not used, not renewed: {late}");
}

#[tokio::test]
async fn a_sealed_or_silent_service_is_worth_another_try() {
    let Some(mut bao) = Bao::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let token = bao.token(&["wangchuan"], "1h").await;
    let setup = bao.setup(&folder.path().join("root"), &token);
    let slot = TransitSlot::prepare(&setup, ID).unwrap();
    let root = slot.create(1, &SystemRandom).await.unwrap();
    bao.good(Method::PUT, "sys/seal", json!({})).await;
    for failed in [slot.open(1).await.err(), slot.list().await.err(), slot.verify_gone(1).await.err()] {
        let failed = failed.unwrap();
        assert!(matches!(failed, SlotError::Sealed { .. }) && failed.is_retryable(), "{failed}");
    }
    bao.unseal().await;
    assert!(root.is_same(&slot.open(1).await.unwrap()));
    bao.stop();
    let failed = slot.list().await.err().unwrap();
    assert!(matches!(&failed, SlotError::Unavailable { .. }) && failed.is_retryable(), "{failed}");

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let setup =
        wangchuan::keys::transit_slot::TransitSetup { address, timeout: Some(Duration::from_millis(200)), ..setup };
    let failed = TransitSlot::at(&setup, ID).unwrap().list().await.err().unwrap();
    assert!(matches!(&failed, SlotError::Unavailable { what, .. } if what.contains("in time")), "{failed}");
}
