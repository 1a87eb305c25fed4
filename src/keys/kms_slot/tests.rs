//! What can be tried without a service. The slot itself is tried on a state machine of the service, under `tests/`.

use chrono::DateTime;
use serde_json::json;

use super::client::KmsClient;
use super::wire::{self, KeyState};
use super::*;
use crate::keys::testing::key_of;
use crate::policy::registry::SecretText;

fn setup(endpoint: Option<&str>, region: &str) -> KmsSetup {
    KmsSetup {
        region: region.to_owned(),
        endpoint: endpoint.map(str::to_owned),
        keys: Some((SecretText::new("AKID".to_owned()), SecretText::new("hunter2".to_owned()))),
        folder: PathBuf::from("/nowhere"),
        deletion_window_days: 7,
        minimum_interval: Duration::ZERO,
        timeout: None,
        stale_pause: Duration::ZERO,
    }
}

#[test]
fn the_address_follows_from_the_region_and_secrets_are_never_shown() {
    assert_eq!(setup(None, "eu-west-1").place(), "https://kms.eu-west-1.amazonaws.com");
    assert_eq!(setup(None, "cn-north-1").place(), "https://kms.cn-north-1.amazonaws.com.cn");
    assert_eq!(setup(Some("https://vpce.example.com"), "eu-west-1").place(), "https://vpce.example.com");
    assert!(!format!("{:?}", setup(None, "eu-west-1")).contains("hunter2"));
    for (address, is_good) in
        [("http://kms.example.com", false), ("http://127.0.0.1:1", true), ("https://x", true), ("nonsense", false)]
    {
        assert_eq!(KmsClient::new(&setup(Some(address), "x")).is_ok(), is_good, "{address}");
    }
}

#[test]
fn a_root_goes_out_and_comes_back_as_it_was() {
    let context = [("a", "1".to_owned()), ("b", "\"".to_owned())];
    let body = wire::encrypt_body("arn", &key_of(7), &context);
    let sent: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(sent["KeyId"], "arn");
    assert_eq!(sent["EncryptionContext"], json!({"a": "1", "b": "\""}));
    let reply = json!({"KeyId": "arn", "Plaintext": sent["Plaintext"]}).to_string();
    assert!(wire::root_in(reply.as_bytes()).unwrap().is_same(&key_of(7)));
    for bad in ["", "AAAA", "not base64!"] {
        assert!(wire::root_in(json!({"Plaintext": bad}).to_string().as_bytes()).is_none(), "{bad}");
    }
}

#[test]
fn states_and_facts_of_a_key_are_understood() {
    let of = |change: fn(&mut serde_json::Value)| {
        let mut key = json!({
            "KeyId": "k", "Arn": "arn:aws:kms:r:1:key/k", "KeyState": "Enabled", "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER", "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT", "MultiRegion": false,
        });
        change(&mut key);
        wire::metadata(json!({"KeyMetadata": key}).to_string().as_bytes()).unwrap()
    };
    let good = of(|_| ());
    assert_eq!((good.state(), good.unfit()), (KeyState::Enabled, None));
    assert_eq!(of(|key| key["KeyState"] = "Disabled".into()).state(), KeyState::Disabled);
    assert_eq!(of(|key| key["KeyState"] = "Unavailable".into()).state(), KeyState::Other);
    let doomed = of(|key| {
        key["KeyState"] = "PendingDeletion".into();
        key["DeletionDate"] = 1_790_000_000.25.into();
    });
    let at = DateTime::from_timestamp_millis(1_790_000_000_250).unwrap();
    assert_eq!(doomed.state(), KeyState::PendingDeletion(at));
    // Without a date nothing is known to be irrevocable.
    assert_eq!(of(|key| key["KeyState"] = "PendingDeletion".into()).state(), KeyState::Other);
    for (field, value) in [
        ("Origin", json!("EXTERNAL")),
        ("KeyManager", json!("AWS")),
        ("MultiRegion", json!(true)),
        ("CustomKeyStoreId", json!("cks-1")),
    ] {
        let mut key = json!({"KeyId": "k", "Arn": "a", "KeyState": "Enabled", "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER", "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT"});
        key[field] = value;
        let key = wire::metadata(json!({"KeyMetadata": key}).to_string().as_bytes()).unwrap();
        assert!(!key.never_exportable() && key.unfit().is_some(), "{field}");
    }
}

#[test]
fn errors_are_named_with_and_without_their_name_space() {
    for text in ["NotFoundException", "com.amazonaws.kms#NotFoundException", "NotFoundException:http://x"] {
        let reply = json!({"__type": text, "message": "m"}).to_string();
        assert_eq!(wire::error_name(reply.as_bytes()).as_deref(), Some("NotFoundException"));
    }
    assert_eq!(wire::error_name(b"<html>"), None);
}

#[test]
fn account_and_region_are_read_from_a_full_name() {
    assert_eq!(place_of("arn:aws:kms:eu-west-1:123:key/abc"), Some(("eu-west-1", "123")));
    assert_eq!(place_of("arn:aws-cn:kms:cn-north-1:1:alias/a/b"), Some(("cn-north-1", "1")));
    for bad in ["", "abc", "arn:aws:s3:r:1:x", "arn:aws:kms::1:x", "arn:aws:kms:r:1"] {
        assert_eq!(place_of(bad), None, "{bad}");
    }
    assert_eq!(key_id("arn:aws:kms:eu-west-1:123:key/abc"), "abc");
}
