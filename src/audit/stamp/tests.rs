//! Replies of `openssl ts` under `tests/vectors/proof/`, over the signature of the certificate there. `purpose-*` are the same
//! TSTInfo signed by `openssl cms` with certificates of other purposes.

use std::path::Path;

use super::*;
use crate::certify::dsse::Envelope;

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/proof").join(name)).unwrap()
}

fn signature() -> Vec<u8> {
    Envelope::parse(&vector("certificate.json")).unwrap().signature().to_vec()
}

fn roots() -> StampTrust {
    StampTrust::from_pem(&vector("time-stamp-roots.pem")).unwrap()
}

/// Only the first or only the second of the two.
fn one_root(at: usize) -> StampTrust {
    StampTrust { roots: vec![roots().roots[at].clone()] }
}

const NONCE: u64 = 0x01F4_5E45_90CE_6EBF;

fn check(name: &str) -> Result<TimeStamp, StampError> {
    verify(&vector(name), &signature(), &roots(), Some(NONCE))
}

#[test]
fn replies_by_rsa_and_ecdsa_keys_are_taken_with_the_time_that_they_say() {
    let known = [
        ("time-stamp-rsa.tsr", "rsa stamp unit"),
        ("time-stamp-ec.tsr", "ec stamp unit"),
        ("time-stamp-sha1-name.tsr", "ec stamp unit"),
        ("time-stamp-purpose-right.tsr", "ec stamp unit"),
    ];
    for (name, unit) in known {
        let stamp = check(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(stamp.authority.contains(unit), "{name}: {}", stamp.authority);
        let minute = stamp.at.format("%Y-%m-%dT%H:%M").to_string();
        assert_eq!(minute, "2026-11-22T21:24", "{name}");
        assert_eq!(stamp.chain.len(), 2, "{name}: the signer and the root");
        assert!(roots().roots().any(|root| root == stamp.chain[1]), "{name}");
        assert!(stamp.signer_valid.0.is_some_and(|start| start <= stamp.at), "{name}");
    }
    assert_eq!(check("time-stamp-ec.tsr").unwrap().at.timestamp_subsec_millis(), 58, "fractions are read");
}

#[test]
fn what_does_not_fit_is_refused_and_named() {
    let (reply, message) = (vector("time-stamp-ec.tsr"), signature());
    let refused =
        |reply: &[u8], message: &[u8], trust: &StampTrust, nonce| verify(reply, message, trust, nonce).unwrap_err();
    assert!(matches!(refused(&reply, b"another", &roots(), None), StampError::OtherImprint));
    assert!(matches!(refused(&reply, &message, &roots(), Some(NONCE + 1)), StampError::OtherNonce));
    assert!(verify(&reply, &message, &one_root(1), None).is_ok());
    assert!(matches!(refused(&reply, &message, &one_root(0), None), StampError::Chain(_)), "the other root");
    assert!(matches!(refused(&reply, &message, &StampTrust::default(), None), StampError::Chain(_)), "no root");
    for purpose in ["loose", "more", "none"] {
        let error = check(&format!("time-stamp-purpose-{purpose}.tsr")).unwrap_err();
        assert!(matches!(error, StampError::Purpose), "{purpose}: {error}");
    }
    let StampError::NotGranted { status: 2, why } = check("time-stamp-refused.tsr").unwrap_err() else {
        panic!("not refused")
    };
    assert_eq!(why, "it does not support the hash algorithm");
    for bad in [&b""[..], b"<html>", &reply[..reply.len() - 1], &[&reply[..], &[0]].concat()] {
        assert!(matches!(refused(bad, &message, &roots(), None), StampError::Malformed(_)));
    }
    let long = vec![0x30; MAX_REPLY_BYTES + 1];
    assert!(matches!(refused(&long, &message, &roots(), None), StampError::Malformed(_)));
}

#[test]
fn a_certificate_between_needs_no_purpose_and_may_have_no_other() {
    let root = StampTrust::from_pem(&vector("time-stamp-far-root.pem")).unwrap();
    let stamp = verify(&vector("time-stamp-between.tsr"), &signature(), &root, None).unwrap();
    assert!(stamp.authority.contains("between stamp unit"), "{}", stamp.authority);
    assert_eq!(stamp.chain.len(), 3, "the signer, the one between, the root");
    let other = verify(&vector("time-stamp-between-other.tsr"), &signature(), &root, None).unwrap_err();
    assert!(matches!(other, StampError::Chain(_)), "one between for servers: {other}");
}

#[test]
fn no_changed_bit_makes_another_time_stamp() {
    for name in ["time-stamp-ec.tsr", "time-stamp-rsa.tsr"] {
        let (good, message, roots) = (vector(name), signature(), roots());
        let stamp = verify(&good, &message, &roots, None).unwrap();
        let mut refused = 0;
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1 << (at % 8);
            match verify(&changed, &message, &roots, None) {
                // Beside the signature nothing counts: the digest algorithms of the set, for one.
                Ok(other) => assert_eq!(other, stamp, "{name}: byte {at}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > good.len() * 9 / 10, "{name}: only {refused} of {}", good.len());
    }
}

#[test]
fn times_are_held_against_the_certificate_and_the_clock() {
    let stamp = check("time-stamp-ec.tsr").unwrap();
    let minutes = TimeDelta::minutes;
    let fits = |signed: TimeDelta, now: TimeDelta| stamp.check_time(stamp.at + signed, stamp.at + now).is_ok();
    assert!(fits(minutes(-5), minutes(5)));
    assert!(fits(minutes(9), minutes(-9)), "clocks that are some minutes apart");
    assert!(!fits(minutes(11), minutes(20)), "stamped before it was signed");
    assert!(!fits(minutes(-30), minutes(-11)), "from the future");
    assert!(
        fits(TimeDelta::days(-900), TimeDelta::days(900)),
        "an old certificate may be stamped, and looked at later"
    );
    assert!(stamp.check_fresh(stamp.at + minutes(9)).is_ok());
    assert!(stamp.check_fresh(stamp.at + minutes(11)).is_err());
    assert!(stamp.check_fresh(stamp.at - minutes(11)).is_err());
}

#[test]
fn a_request_is_what_the_standard_describes() {
    let made = request(b"message", NONCE).unwrap();
    let hash = sha256(b"message");
    let expected = [
        &[0x30, 0x41, 0x02, 0x01, 0x01, 0x30, 0x2f, 0x30, 0x0b, 0x06, 0x09][..],
        &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x04, 0x20],
        &hash,
        &[0x02, 0x08, 0x01, 0xf4, 0x5e, 0x45, 0x90, 0xce, 0x6e, 0xbf, 0x01, 0x01, 0xff],
    ]
    .concat();
    assert_eq!(hex::encode(made), hex::encode(expected));
}

#[test]
fn files_of_roots_are_read_whole() {
    let pem = vector("time-stamp-roots.pem");
    assert_eq!(roots().roots().count(), 2);
    let twice = StampTrust::from_pem(&[pem.clone(), pem].concat()).unwrap();
    assert_eq!(twice, roots(), "each once");
    let no_certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for bad in [&b""[..], b"no", &vector("certificate-key.pem"), no_certificate] {
        assert!(matches!(StampTrust::from_pem(bad).unwrap_err(), StampError::Roots(_)));
    }
}
