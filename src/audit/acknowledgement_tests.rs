//! Acknowledgements: the golden vector, which `openssl` signed, and everything that one may get wrong.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::acknowledgement::{AcknowledgementError, AcknowledgerError, PAYLOAD_TYPE, is_by, is_one, read_keys, verify};
use super::stamp::CLOCKS_APART;
use crate::certify::dsse::{Envelope, pae};
use crate::certify::signer::{CertificateSigner, PublicKey, TrustedKeys};
use crate::certify::tests::{sample, signer, trusted, vector};
use crate::certify::{VerifiedCertificate, issue};

fn certificate() -> VerifiedCertificate {
    let signer = signer();
    crate::certify::verify(issue(&sample(), &signer).unwrap().as_bytes(), &trusted(&signer)).unwrap()
}

fn payload(certificate: &VerifiedCertificate, received_at: DateTime<Utc>) -> Value {
    let sha256 = hex::encode(certificate.digest);
    json!({"certificateId": certificate.id(), "sha256": sha256, "receivedAt": received_at, "later": [1]})
}

fn signed(key: &CertificateSigner, payload_type: &str, payload: &Value) -> Vec<u8> {
    let payload = payload.to_string().into_bytes();
    let signature = key.sign(&pae(payload_type, &payload)).unwrap();
    Envelope::make(payload_type, payload, signature, key.public().key_id()).as_bytes().to_vec()
}

/// The format of version 1, with members that nobody knows yet; signed by the second of two keys.
#[test]
fn golden_acknowledgement() {
    let key = PublicKey::from_pem(&std::fs::read_to_string(vector("certificate-key.pem")).unwrap()).unwrap();
    let envelope = std::fs::read(vector("certificate.json")).unwrap();
    let certificate = crate::certify::verify(&envelope, &[key].into_iter().collect()).unwrap();
    let keys = read_keys(&std::fs::read(vector("acknowledgement-keys.pem")).unwrap()).unwrap();
    let answer = std::fs::read(vector("acknowledgement.json")).unwrap();
    let now = certificate.issued_at() + TimeDelta::days(400);
    let found = verify(&answer, &certificate, &keys, now).unwrap();
    assert_eq!(found.received_at, "2026-03-05T08:43:11Z".parse::<DateTime<Utc>>().unwrap());
    assert_eq!((keys.iter().count(), is_one(&answer), is_by(&answer, &keys)), (2, true, true));
    let other: TrustedKeys = keys.iter().filter(|key| key.key_id() != found.key_id).cloned().collect();
    assert_eq!(verify(&answer, &certificate, &other, now), Err(AcknowledgementError::UnknownKey));
    assert!(!is_by(&answer, &other));
    for not_one in ["certificate.json", "receipt.json"] {
        assert!(!is_one(&std::fs::read(vector(not_one)).unwrap()), "{not_one}");
    }
}

#[test]
fn what_differs_acknowledges_nothing_and_says_why() {
    let (key, certificate) = (CertificateSigner::in_memory().unwrap(), certificate());
    let keys = trusted(&key);
    let now = certificate.issued_at() + TimeDelta::hours(1);
    let good = payload(&certificate, now);
    let check = |answer: &[u8]| verify(answer, &certificate, &keys, now).map(|found| found.received_at);
    let with = |member: &str, value: Value| {
        let mut changed = good.clone();
        changed[member] = value;
        check(&signed(&key, PAYLOAD_TYPE, &changed))
    };
    let answer = signed(&key, PAYLOAD_TYPE, &good);
    assert_eq!(check(&answer), Ok(now));
    assert_eq!(with("certificateId", "0190a1b2".into()), Err(AcknowledgementError::OtherCertificate));
    assert_eq!(with("sha256", "00".repeat(32).into()), Err(AcknowledgementError::OtherDigest));
    for (member, value) in [("sha256", Value::Null), ("receivedAt", 17.into()), ("receivedAt", "today".into())] {
        assert_eq!(with(member, value), Err(AcknowledgementError::Payload), "{member}");
    }
    let other = signed(&CertificateSigner::in_memory().unwrap(), PAYLOAD_TYPE, &good);
    assert_eq!(check(&other), Err(AcknowledgementError::UnknownKey));
    let as_ours = String::from_utf8(other).unwrap();
    let theirs: Value = serde_json::from_str(&as_ours).unwrap();
    let as_ours = as_ours.replace(theirs["signatures"][0]["keyid"].as_str().unwrap(), key.public().key_id());
    assert_eq!(check(as_ours.as_bytes()), Err(AcknowledgementError::WrongSignature));
    assert_eq!(check(&signed(&key, "application/json", &good)), Err(AcknowledgementError::OtherKind));
    for malformed in [&b""[..], b"OK", b"{}", br#"{"payloadType":"a","payload":"","signatures":[]}"#] {
        assert_eq!(check(malformed), Err(AcknowledgementError::Envelope));
    }
}

#[test]
fn no_certificate_is_received_before_it_was_signed_or_later_than_now() {
    let (key, certificate) = (CertificateSigner::in_memory().unwrap(), certificate());
    let issued = certificate.issued_at();
    let now = issued + TimeDelta::hours(1);
    let check = |at| verify(&signed(&key, PAYLOAD_TYPE, &payload(&certificate, at)), &certificate, &trusted(&key), now);
    let second = TimeDelta::seconds(1);
    for possible in [issued - CLOCKS_APART, issued, now, now + CLOCKS_APART] {
        assert!(check(possible).is_ok(), "{possible}");
    }
    for impossible in [issued - CLOCKS_APART - second, now + CLOCKS_APART + second] {
        assert!(matches!(check(impossible), Err(AcknowledgementError::Time(_))), "{impossible}");
    }
}

#[test]
fn keys_are_p256_public_keys_in_pem() {
    let (one, other) = (CertificateSigner::in_memory().unwrap(), CertificateSigner::in_memory().unwrap());
    let both = format!("# in use\n{}\n# former\n{}", one.public().to_pem(), other.public().to_pem());
    assert_eq!(read_keys(both.as_bytes()).unwrap(), [one, other].map(|key| key.public().clone()).into_iter().collect());
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for none in ["", "MCowBQYDK2VwAyEA", private, "-----BEGIN PUBLIC KEY-----\n*\n-----END PUBLIC KEY-----\n"] {
        assert_eq!(read_keys(none.as_bytes()).unwrap_err(), AcknowledgerError::None, "{none}");
    }
    // RFC 8410 §10.1.
    let ed25519 = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
    let ed25519 = format!("{both}-----BEGIN PUBLIC KEY-----\n{ed25519}\n-----END PUBLIC KEY-----\n");
    assert_eq!(read_keys(ed25519.as_bytes()).unwrap_err(), AcknowledgerError::NotP256);
}
