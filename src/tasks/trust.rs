//! `trust`: what a stranger needs to verify certificates, and verifying with nothing but that.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::audit::receipt;
use crate::audit::trust::{Standing, Trust, TrustedLog, Window};
use crate::certify::dsse::Envelope;
use crate::installation::{Installation, audit_log_keys, audit_log_operator};

use super::Result;
use super::outbox::{CertificateVerdict, check_envelope};

/// Whom this installation's certificates ask to trust. The keys count from the earliest certificate on, by the time that it says.
///
/// Without logs as long as the log's key cannot be read: the embedded service makes it when it is first started.
///
/// # Errors
/// When the control database cannot be read.
pub async fn trust(installation: &Installation) -> Result<Trust> {
    let mut tx = installation.control.read().await?;
    // Not that of number 1: the clock may have been wrong then, and set back later.
    let earliest = tx.certificates(None).await?.iter().map(|row| row.issued_at).min();
    drop(tx);
    let window = Window { start: earliest, end: None };
    let signers = installation.signer.trusted().iter().map(|key| (key.clone(), window)).collect();
    let logs = audit_log_keys(installation).unwrap_or_default();
    let trusted = |key| {
        let operator = audit_log_operator(installation, &key);
        TrustedLog { key, window: Window::default(), operator }
    };
    let logs = logs.into_iter().map(trusted).collect();
    Ok(Trust { signers, logs, quorum: installation.config.audit.quorum.clone() })
}

/// The receipt beside an envelope, as a file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenReceipt {
    /// A transparency-log entry.
    Entry(Vec<u8>),
    /// A proof text (C2SP tlog-proof).
    ProofText(String),
    /// None, although there should be one.
    Missing,
    /// None, since whoever took the certificate gives none.
    Acknowledged,
    /// None, as it has to be with a bare envelope.
    NotInThisForm,
}

/// Verifies a certificate with public keys alone, at a time; returns its id when its signature fits.
#[must_use]
pub fn verify_with(
    trust: &Trust,
    envelope: &[u8],
    receipt: &GivenReceipt,
    evidence: Option<&[u8]>,
    now: DateTime<Utc>,
) -> (CertificateVerdict, Option<String>) {
    let keys = trust.keys();
    let mut checks = check_envelope(envelope, evidence, &keys);
    let verified = crate::certify::verify(envelope, &keys).ok();
    let receipt = match receipt {
        GivenReceipt::NotInThisForm => None,
        GivenReceipt::Missing => {
            Some(bad("there is no receipt: it is not filed yet, or the bundle lost it".to_owned()))
        }
        GivenReceipt::Acknowledged => Some(CheckedReceipt {
            good: true,
            said: "none: it was taken without one, which proves nothing (grade D)".to_owned(),
            seen: None,
        }),
        given => {
            let tried = trust.logs.iter().map(|log| check_receipt(trust, envelope, given, log, now));
            // A receipt of any log that is trusted will do; otherwise the first one says why not.
            let mut tried: Vec<_> = tried.collect();
            let at = tried.iter().position(|tried| tried.good).unwrap_or(0);
            Some(if tried.is_empty() { bad("no log is trusted".to_owned()) } else { tried.swap_remove(at) })
        }
    };
    if let Some(found) = &verified {
        let said = found.issued_at();
        let seen = receipt.as_ref().and_then(|receipt| receipt.seen);
        let standing = trust.judge(&found.key_id, said, seen, now);
        checks.push(("key".to_owned(), standing.is_good(), standing_words(standing)));
    }
    checks.extend(receipt.map(|receipt| ("receipt".to_owned(), receipt.good, receipt.said)));
    (CertificateVerdict::of(checks), verified.map(|found| found.id().to_owned()))
}

fn standing_words(standing: Standing) -> String {
    let day = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    match standing {
        Standing::Good => "signed while its key was good".to_owned(),
        Standing::Seen(seen) => format!("signed while its key was good: witnesses had seen it by {}", day(seen)),
        Standing::Unproved(end) => {
            format!("its key was good until {} only, and no witness shows that it was signed before", day(end))
        }
        Standing::Outside => "signed when its key was not good".to_owned(),
    }
}

/// What a receipt came to.
struct CheckedReceipt {
    good: bool,
    said: String,
    /// When enough witnesses had signed the head that it proves to contain the certificate.
    seen: Option<DateTime<Utc>>,
}

fn bad(said: String) -> CheckedReceipt {
    CheckedReceipt { good: false, said, seen: None }
}

fn check_receipt(
    trust: &Trust,
    envelope: &[u8],
    given: &GivenReceipt,
    log: &TrustedLog,
    now: DateTime<Utc>,
) -> CheckedReceipt {
    let envelope = match Envelope::parse(envelope) {
        Ok(envelope) => envelope,
        Err(error) => return bad(error.to_string()),
    };
    let keys = trust.keys();
    let Some(signer) = keys.get(envelope.key_id()) else {
        return bad(crate::certify::VerifyError::UnknownKey.to_string());
    };
    let entry = match given {
        GivenReceipt::ProofText(text) => receipt::from_proof_text(text, &envelope, signer, &log.key),
        GivenReceipt::Entry(entry) => Ok(entry.clone()),
        GivenReceipt::Missing | GivenReceipt::Acknowledged | GivenReceipt::NotInThisForm => {
            return bad("there is none".to_owned());
        }
    };
    match entry.and_then(|entry| receipt::verify(&entry, &envelope, signer, &log.key)) {
        Ok(found) => {
            let seen = trust.quorum.met_at(&found.note);
            let standing = log.window.judge(None, seen, now);
            if !standing.is_good() {
                return bad(format!("of the log {}: {}", found.origin, standing_words(standing)));
            }
            let found = found.witnessed_by(&trust.quorum);
            let grade = found.grade;
            let said = format!(
                "index {} of {} in the log {}, grade {grade:?}: {}",
                found.index,
                found.tree_size,
                found.origin,
                grade.describe(log.operator)
            );
            CheckedReceipt { good: true, said, seen }
        }
        Err(error) => bad(crate::error::with_causes(&error)),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use chrono::TimeDelta;

    use super::*;
    use crate::audit::receipt::LogOperator;
    use crate::certify::issue;
    use crate::certify::tests::{sample, signer};
    use crate::log::checkpoint::CheckpointSigner;
    use crate::log::cosignature::{Quorum, WitnessKey, cosign, with_signatures};
    use crate::log::tree::leaf_hash;
    use crate::random::SystemRandom;

    #[test]
    fn a_key_that_has_ended_needs_a_witness_that_saw_the_certificate_before() {
        let signer = signer();
        let envelope = issue(&sample(), &signer).unwrap();
        let log = CheckpointSigner::from_pkcs8("a.example/log", &CheckpointSigner::make_pkcs8(&SystemRandom).unwrap());
        let log = log.unwrap();
        let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
        let witness = WitnessKey::new("w.example/1", pair.public_key().as_ref().try_into().unwrap()).unwrap();
        let issued = sample().predicate.issued_at.instant();
        let body = receipt::leaf_body(&envelope, signer.public());
        let receipt = |seen: Option<DateTime<Utc>>| {
            let mut head = log.sign(1, leaf_hash(&body));
            if let Some(seen) = seen {
                let seconds = u64::try_from(seen.timestamp()).unwrap();
                head.note = with_signatures(&head.note, &[cosign(&pair, &witness, &head.note, seconds)]).unwrap();
            }
            GivenReceipt::Entry(receipt::build(&body, 0, &[], &head, log.key()).unwrap())
        };
        let ended = Window { start: None, end: Some(issued + TimeDelta::days(9)) };
        let now = issued + TimeDelta::days(90);
        let check = |of_signer: Window, of_log: Window, receipt: &GivenReceipt, at: DateTime<Utc>| {
            let trust = Trust {
                signers: vec![(signer.public().clone(), of_signer)],
                logs: vec![TrustedLog { key: log.key().clone(), window: of_log, operator: LogOperator::Independent }],
                quorum: Quorum::new(vec![witness.clone()], 1).unwrap(),
            };
            let (verdict, _) = verify_with(&trust, envelope.as_bytes(), receipt, None, at);
            let wrong = verdict.checks.iter().filter(|(_, good, _)| !good);
            wrong.map(|(check, _, said)| format!("{check}: {said}")).collect::<Vec<_>>()
        };
        let open = Window::default();
        let (unseen, early) = (receipt(None), receipt(Some(issued + TimeDelta::days(1))));
        let late = receipt(Some(issued + TimeDelta::days(10)));
        for (of_signer, of_log, which) in [(ended, open, "key: "), (open, ended, "receipt: ")] {
            assert!(check(of_signer, of_log, &early, now).is_empty());
            assert!(check(of_signer, of_log, &unseen, issued).is_empty(), "not ended yet");
            for unproved in [&unseen, &late] {
                let wrong = check(of_signer, of_log, unproved, now).join("; ");
                assert!(wrong.starts_with(which) && wrong.contains("no witness shows"), "{wrong}");
            }
        }
        assert_eq!(
            check(ended, open, &GivenReceipt::NotInThisForm, now).len(),
            1,
            "without a receipt nothing shows it"
        );
        // A head that no log has signed proves nothing, whatever a witness said of it.
        let GivenReceipt::Entry(bytes) = &early else { unreachable!() };
        let forged = String::from_utf8(bytes.clone()).unwrap().replacen("\"treeSize\":\"1\"", "\"treeSize\":\"2\"", 1);
        assert_eq!(check(ended, open, &GivenReceipt::Entry(forged.into_bytes()), now).len(), 2);
    }
}
