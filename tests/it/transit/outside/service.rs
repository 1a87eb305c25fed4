//! The adapter by itself, and the shipped policy: exactly enough.

use reqwest::Method;
use serde_json::{Value, json};
use wangchuan::keys::outside::{OutsideKeys as _, OutsideStep};
use wangchuan::keys::slot::{Shortcoming, SlotError};
use wangchuan::keys::transit_slot::{TransitKeys, TransitSetup};
use wangchuan::policy::registry::SecretText;

use super::clinic::POLICY;
use crate::support::bao::Bao;

struct Service {
    bao: Bao,
    setup: TransitSetup,
}

impl Service {
    async fn start() -> Option<Self> {
        let bao = Bao::start().await?;
        bao.good(Method::POST, "sys/mounts/fields", json!({"type": "transit"})).await;
        bao.good(Method::PUT, "sys/policies/acl/fields", json!({"policy": POLICY})).await;
        let token = bao.token(&["fields"], "1h").await;
        let setup = TransitSetup { mount: "fields".to_owned(), ..bao.setup(std::path::Path::new(""), &token) };
        Some(Self { bao, setup })
    }

    fn keys(&self) -> TransitKeys {
        TransitKeys::new(self.setup.clone()).unwrap()
    }

    async fn make(&self, key: &str, options: Value) -> SecretText {
        self.bao.good(Method::POST, &format!("fields/keys/{key}"), options).await;
        SecretText::new(key.to_owned())
    }
}

#[tokio::test]
async fn keys_of_every_kind_are_destroyed_and_read_back() {
    let Some(service) = Service::start().await else { return };
    let keys = service.keys();
    for (name, options) in [
        ("plain", json!({})),
        ("derived", json!({"type": "aes256-gcm96", "derived": true})),
        ("stream", json!({"type": "chacha20-poly1305"})),
        ("pair", json!({"type": "rsa-2048"})),
    ] {
        let key = service.make(name, options).await;
        let facts = keys.look(&key, None).await.unwrap().unwrap();
        assert_eq!((facts.latest_version, facts.made.len(), facts.may_have_left()), (1, 1, false), "{name}");
        let remembered = facts.remembered();
        service.bao.good(Method::POST, &format!("fields/keys/{name}/rotate"), json!({})).await;
        assert!(remembered.is_continued_by(&keys.look(&key, None).await.unwrap().unwrap()), "{name}");
        let done = keys.destroy(&key).await.unwrap();
        assert_eq!(done.deleted_at, None, "{name}");
        assert_eq!(done.steps, [OutsideStep::DeletionAllowed, OutsideStep::KeyDeleted], "{name}");
        assert_eq!(keys.look(&key, None).await.unwrap(), None, "{name}");
        assert_eq!(keys.destroy(&key).await.unwrap().steps, [], "nothing there is not an error");
    }
    // One that is deleted for now only is destroyed as well.
    let soft = service.make("soft", json!({})).await;
    service.bao.good(Method::DELETE, "fields/keys/soft/soft-delete", Value::Null).await;
    keys.destroy(&soft).await.unwrap();
    assert_eq!(keys.look(&soft, None).await.unwrap(), None);
    service.bao.call(Method::POST, "fields/keys/soft/soft-delete-restore", json!({})).await;
    assert_eq!(keys.look(&soft, None).await.unwrap(), None, "nothing brings it back");
}

#[tokio::test]
async fn what_a_destruction_prepared_is_taken_back() {
    let Some(service) = Service::start().await else { return };
    let key = service.make("kept", json!({})).await;
    service.bao.good(Method::POST, "fields/keys/kept/config", json!({"deletion_allowed": true})).await;
    let keys = service.keys();
    keys.spare(&key).await.unwrap();
    assert_eq!(service.bao.good(Method::GET, "fields/keys/kept", Value::Null).await["deletion_allowed"], false);
    keys.spare(&SecretText::new("absent".to_owned())).await.unwrap();
}

#[tokio::test]
async fn only_an_absent_key_counts_as_absent() {
    let Some(mut service) = Service::start().await else { return };
    let name = SecretText::new("li-lei".to_owned());
    assert_eq!(service.keys().look(&name, None).await.unwrap(), None);
    // With a right to everything, so that it is the mount that answers.
    let everything = service.bao.token(&["root"], "1h").await;
    let elsewhere =
        TransitSetup { mount: "nowhere".to_owned(), ..service.bao.setup(std::path::Path::new(""), &everything) };
    let refused = TransitKeys::new(elsewhere).unwrap().look(&name, None).await.unwrap_err();
    assert!(matches!(&refused, SlotError::Unavailable { what, .. } if what == "there is no such mount"), "{refused}");
    service
        .bao
        .good(
            Method::PUT,
            "sys/policies/acl/fields",
            json!({"policy": "path \"auth/token/*\" {\n capabilities = [\"read\"]\n}"}),
        )
        .await;
    let refused = service.keys().look(&name, None).await.unwrap_err();
    assert!(matches!(refused, SlotError::Denied { capability: "read", .. }), "{refused}");
    assert!(!format!("{refused} {refused:?}").contains("li-lei"), "{refused}");
    service.bao.stop();
    let refused = service.keys().look(&name, None).await.unwrap_err();
    assert!(refused.is_retryable() && !format!("{refused} {refused:?}").contains("li-lei"), "{refused}");
}

#[tokio::test]
async fn the_shipped_policy_for_outside_keys_is_exactly_enough() {
    let Some(service) = Service::start().await else { return };
    let key = service.make("one", json!({})).await;
    let token = service.bao.token(&["fields"], "1h").await;
    for (method, path, body) in [
        (Method::POST, "fields/encrypt/one", json!({"plaintext": "AAAA"})),
        (Method::POST, "fields/decrypt/one", json!({"ciphertext": "vault:v1:AAAA"})),
        (Method::POST, "fields/rewrap/one", json!({"ciphertext": "vault:v1:AAAA"})),
        (Method::POST, "fields/datakey/plaintext/one", json!({})),
        (Method::GET, "fields/export/encryption-key/one", Value::Null),
        (Method::GET, "fields/backup/one", Value::Null),
        (Method::POST, "fields/restore/one", json!({"backup": "x"})),
        (Method::POST, "fields/keys/one/rotate", json!({})),
        (Method::POST, "fields/keys/one/trim", json!({"min_available_version": 1})),
        (Method::POST, "fields/keys/one/config", json!({"exportable": true})),
        (Method::POST, "fields/keys/one/config", json!({"deletion_allowed": true, "exportable": true})),
        (Method::POST, "fields/keys/one/config", json!({"min_decryption_version": 1})),
        (Method::POST, "fields/keys/two", json!({})),
        (Method::DELETE, "transit/keys/wangchuan", Value::Null),
    ] {
        assert_eq!(service.bao.call_as(&token, method, path, body).await, 403, "{path}");
    }
    assert_eq!(service.keys().shortcomings(&key).await.unwrap(), []);
    for (line, capability) in [("[\"read\", \"delete\"]", "read"), ("[\"read\", \"delete\"]", "delete")] {
        let left = if capability == "read" { "[\"delete\"]" } else { "[\"read\"]" };
        let less = POLICY.replace(line, left);
        assert_ne!(less, POLICY);
        service.bao.good(Method::PUT, "sys/policies/acl/fields", json!({"policy": less})).await;
        let refused = service.keys().destroy(&key).await.unwrap_err();
        assert!(matches!(&refused, SlotError::Denied { capability: found, .. } if *found == capability), "{refused}");
        let found = service.keys().shortcomings(&key).await.unwrap();
        let missing = Shortcoming::MissingRight { path: "fields/keys/KEY".to_owned(), capability };
        assert!(found.contains(&missing), "{found:?}");
    }
    service.bao.good(Method::PUT, "sys/policies/acl/fields", json!({"policy": POLICY})).await;
    let everything = service.bao.token(&["root"], "1h").await;
    let setup = TransitSetup { mount: "fields".to_owned(), ..service.bao.setup(std::path::Path::new(""), &everything) };
    let found = TransitKeys::new(setup).unwrap().shortcomings(&key).await.unwrap();
    assert_eq!(found.iter().filter(|found| matches!(found, Shortcoming::ExcessRight { .. })).count(), 4, "{found:?}");
}
