//! `trust`: what a stranger needs to verify certificates, and verifying with nothing but that.

mod parts;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::audit::acknowledgement;
use crate::audit::key_history::EndedBy;
use crate::audit::receipt::{self, Grade, LogOperator};
use crate::audit::stamp::{self, StampError, TimeStamp};
use crate::audit::trust::{Signed, Signers, StampChain, Standing, Trust, TrustedLog, Window};
use crate::certify::VerifiedCertificate;
use crate::certify::dsse::Envelope;
use crate::control::CertificateRow;
use crate::installation::{
    Installation, acknowledgement_keys, audit_log_keys, audit_log_operator, stamp_trust, view_operation_log,
};
use crate::log::tree::Hash;

pub use self::parts::{CertificateParts, read_parts};
use super::Result;
use super::outbox::{CertificateVerdict, check_envelope};

/// Whom this installation's certificates ask to trust. The first key counts from the earliest certificate on, by the time that it says;
/// every other from the end of the one before it.
///
/// Without logs as long as the log's key cannot be read: the embedded service makes it when it is first started.
///
/// # Errors
/// When the control database cannot be read.
pub async fn trust(installation: &Installation) -> Result<Trust> {
    let mut tx = installation.control.read().await?;
    // Not that of number 1: the clock may have been wrong then, and set back later.
    let certificates = tx.certificates(None).await?;
    let earliest = certificates.iter().map(|row| row.issued_at).min();
    let stamps = stamp_trust(installation)?;
    let mut stamp_chains: Vec<StampChain> = Vec::new();
    for kept in if stamps.is_empty() { Vec::new() } else { tx.time_stamps().await? } {
        let envelope = certificates.iter().find(|row| row.id == kept.certificate).map(|row| row.envelope.as_slice());
        let signature = envelope.and_then(|envelope| Envelope::parse(envelope).ok());
        let stamp = signature.and_then(|found| stamp::verify(&kept.reply, found.signature(), &stamps, None).ok());
        let chain = stamp.map(|stamp| StampChain::of(&stamp));
        stamp_chains.extend(chain.filter(|chain| !stamp_chains.contains(chain)));
    }
    drop(tx);
    // The key in use first, as with logs: stock tools are given that one by its plain name.
    let Signers { keys: mut signers, ended } = installation.signer.history().signers();
    for (_, window) in &mut signers {
        window.start = window.start.or(earliest);
    }
    let logs = audit_log_keys(installation).unwrap_or_default();
    let trusted = |key| {
        let operator = audit_log_operator(installation, &key);
        TrustedLog { key, window: Window::default(), operator }
    };
    let logs = logs.into_iter().map(trusted).collect();
    // Without one yet nothing of it can be handed out.
    let operation_logs = view_operation_log(installation).await.into_iter().map(|view| view.key).collect();
    let quorum = installation.config.audit.quorum.clone();
    let acknowledgers = acknowledgement_keys(installation)?;
    Ok(Trust { signers, ended, logs, acknowledgers, operation_logs, quorum, stamps, stamp_chains })
}

/// Up to which number certificates were there when the key of this one ended, if it has that number or a lower one, and the one with
/// that number is still the one that the record of signing keys names. With a chain that is whole it was there then.
pub(super) fn anchor(installation: &Installation, all: &[CertificateRow], row: &CertificateRow) -> Option<i64> {
    let envelope = Envelope::parse(&row.envelope).ok()?;
    let held = installation.signer.history().keys.iter().find(|key| key.key_id == envelope.key_id())?;
    let last = held.ended.as_ref()?.last_certificate.as_ref()?;
    // Numbers have no gap, and stand in order.
    let place = usize::try_from(last.sequence.checked_sub(1)?).ok()?;
    let anchor = all.get(place).filter(|anchor| anchor.sequence.unsigned_abs() == last.sequence)?;
    let digest = hex::encode(Envelope::parse(&anchor.envelope).ok()?.digest());
    (digest == last.digest && row.sequence <= anchor.sequence).then_some(anchor.sequence)
}

/// Whether a certificate stands in the chain before what was there when its key ended.
///
/// # Errors
/// When the control database cannot be read.
pub(super) async fn is_chained(installation: &Installation, row: &CertificateRow) -> Result<bool> {
    if installation.signer.history().keys.len() < 2 {
        return Ok(false);
    }
    let mut tx = installation.control.read().await?;
    let all = tx.certificates(None).await?;
    drop(tx);
    let Some(until) = anchor(installation, &all, row) else { return Ok(false) };
    let mut wanted: Option<String> = None;
    for link in all.iter().rev().filter(|link| (row.sequence..=until).contains(&link.sequence)) {
        let Ok(found) = crate::certify::verify(&link.envelope, installation.signer.trusted()) else { return Ok(false) };
        if wanted.is_some_and(|wanted| wanted != hex::encode(found.digest)) {
            return Ok(false);
        }
        wanted = Some(found.previous().unwrap_or_default().to_owned());
    }
    Ok(true)
}

/// The receipt beside an envelope, as a file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenReceipt {
    /// A transparency-log entry.
    Entry(Vec<u8>),
    /// A signed acknowledgement.
    Signed(Vec<u8>),
    /// A proof text (C2SP tlog-proof).
    ProofText(String),
    /// None, although there should be one.
    Missing,
    /// None, since whoever took the certificate gives none.
    Acknowledged,
    /// None, as it has to be with a bare envelope.
    NotInThisForm,
}

impl GivenReceipt {
    /// A receipt as it is kept.
    #[must_use]
    pub fn kept(receipt: &[u8]) -> Self {
        let receipt = receipt.to_vec();
        if acknowledgement::is_one(&receipt) { Self::Signed(receipt) } else { Self::Entry(receipt) }
    }
}

/// What is given of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given<'g> {
    /// The DSSE envelope.
    pub envelope: &'g [u8],
    /// The receipt beside it.
    pub receipt: GivenReceipt,
    /// The time stamps beside it, as their authorities gave them.
    pub stamps: Vec<Vec<u8>>,
    /// The evidence file.
    pub evidence: Option<&'g [u8]>,
    /// Whether it stands in the installation's own chain before what was there when its key ended.
    pub is_chained: bool,
}

/// Verifies a certificate with public keys alone, at a time; returns its id when its signature fits. Time stamps are checked where any
/// authority is trusted; otherwise nothing is said of them, and nothing follows from them.
#[must_use]
pub fn verify_with(trust: &Trust, given: &Given<'_>, now: DateTime<Utc>) -> (CertificateVerdict, Option<String>) {
    let Given { envelope, receipt, stamps, evidence, is_chained } = given;
    let (envelope, evidence) = (*envelope, *evidence);
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
            logged: None,
        }),
        GivenReceipt::Signed(answer) => Some(check_acknowledgement(trust, verified.as_ref(), answer, now)),
        given => {
            let tried = trust.logs.iter().map(|log| check_receipt(trust, envelope, given, log, now));
            // A receipt of any log that is trusted will do; otherwise the first one says why not.
            let mut tried: Vec<_> = tried.collect();
            let at = tried.iter().position(|tried| tried.good).unwrap_or(0);
            Some(if tried.is_empty() { bad("no log is trusted".to_owned()) } else { tried.swap_remove(at) })
        }
    };
    let stamps = match &verified {
        Some(found) if !trust.stamps.is_empty() => check_stamps(trust, envelope, stamps, found.issued_at(), now),
        _ => Vec::new(),
    };
    if let Some(found) = &verified {
        // Whoever stamped it saw the signature as well as witnesses of the log do.
        let said = found.issued_at();
        let stamped = stamps.iter().filter_map(|stamp| stamp.as_ref().ok()).map(|stamp| stamp.at);
        let seen = receipt.as_ref().and_then(|receipt| receipt.seen).into_iter().chain(stamped);
        let signed = Signed {
            key_id: &found.key_id,
            digest: &found.digest,
            said,
            seen: seen.min(),
            logged: receipt.as_ref().and_then(|receipt| receipt.logged),
            is_chained: *is_chained,
        };
        let standing = trust.judge_signed(signed, now);
        checks.push(("key".to_owned(), standing.is_good(), signed_words(standing, said)));
    }
    checks.extend(receipt.map(|receipt| ("receipt".to_owned(), receipt.good, receipt.said)));
    checks.extend(stamps.iter().map(|stamp| match stamp {
        Ok(stamp) => (TIME_STAMP.to_owned(), true, stamp_words(stamp)),
        Err(error) => (TIME_STAMP.to_owned(), false, crate::error::with_causes(error)),
    }));
    (CertificateVerdict::of(checks), verified.map(|found| found.id().to_owned()))
}

/// What the check of a time stamp is called.
const TIME_STAMP: &str = "timestamp";

fn stamp_words(stamp: &TimeStamp) -> String {
    let at = stamp.at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    format!("it was there at {at}, as {} signed", stamp.authority)
}

fn check_stamps(
    trust: &Trust,
    envelope: &[u8],
    stamps: &[Vec<u8>],
    signed: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Vec<std::result::Result<TimeStamp, StampError>> {
    let Ok(envelope) = Envelope::parse(envelope) else { return Vec::new() };
    let check = |reply: &Vec<u8>| {
        let stamp = stamp::verify(reply, envelope.signature(), &trust.stamps, None)?;
        stamp.check_time(signed, now)?;
        Ok(stamp)
    };
    stamps.iter().map(check).collect()
}

pub(super) fn standing_words(standing: Standing) -> String {
    let day = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    match standing {
        Standing::Good => "signed while its key was good".to_owned(),
        Standing::Seen(seen) => format!("signed while its key was good: it was seen by {}", day(seen)),
        Standing::Unproved(end) => {
            format!("its key was good until {} only, and no witness shows that it was signed before", day(end))
        }
        Standing::Outside => "signed when its key was not good".to_owned(),
        Standing::Logged(end) => {
            format!("signed while its key was good: the log held it before the key ended at {}", day(end))
        }
        Standing::Listed(end) => {
            format!(
                "signed while its key was good: it was there, without a receipt of a log, when the key ended at {}",
                day(end)
            )
        }
        Standing::Chained(end) => {
            format!("signed while its key was good: it stands in the chain before the key's end at {}", day(end))
        }
        Standing::After(by, end) => format!("signed after its key was {} at {}", ended_words(by), day(end)),
        Standing::LoggedAfter(by, end) => {
            format!("logged after its key was {} at {}, whatever date it says", ended_words(by), day(end))
        }
    }
}

/// The same of a certificate, with what is to be said of its own date.
fn signed_words(standing: Standing, said: DateTime<Utc>) -> String {
    let words = standing_words(standing);
    if matches!(standing, Standing::Unproved(_)) {
        return format!("{words}; the date that it bears itself shows nothing");
    }
    let end = match standing {
        Standing::Logged(end) | Standing::Listed(end) | Standing::Chained(end) => Some(end),
        // By then it was there.
        Standing::Seen(seen) => Some(seen + stamp::CLOCKS_APART),
        _ => None,
    };
    match end {
        Some(end) if end < said => format!("{words}; the later date that it bears itself does not count"),
        _ => words,
    }
}

fn ended_words(by: EndedBy) -> &'static str {
    match by {
        EndedBy::Retired => "retired",
        EndedBy::Revoked => "revoked",
    }
}

/// What a receipt came to.
struct CheckedReceipt {
    good: bool,
    said: String,
    /// When enough witnesses had signed the head that it proves to contain the certificate.
    seen: Option<DateTime<Utc>>,
    /// The log that holds it, and its place there.
    logged: Option<(Hash, u64)>,
}

fn bad(said: String) -> CheckedReceipt {
    CheckedReceipt { good: false, said, seen: None, logged: None }
}

/// What an acknowledgement came to. Its time is its signer's word, so it counts as seen by no witness.
fn check_acknowledgement(
    trust: &Trust,
    certificate: Option<&VerifiedCertificate>,
    answer: &[u8],
    now: DateTime<Utc>,
) -> CheckedReceipt {
    let Some(certificate) = certificate else { return bad("it is about a certificate that is not good".to_owned()) };
    match acknowledgement::verify(answer, certificate, &trust.acknowledgers, now) {
        Ok(found) => {
            let at = found.received_at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            let words = Grade::C.describe(LogOperator::SelfHosted);
            let said = format!("received at {at}, as the key {} signed, grade C: {words}", found.key_id);
            CheckedReceipt { good: true, said, seen: None, logged: None }
        }
        Err(error) => bad(format!("the acknowledgement does not count: {error}")),
    }
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
        GivenReceipt::Missing | GivenReceipt::Signed(_) | GivenReceipt::Acknowledged | GivenReceipt::NotInThisForm => {
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
            CheckedReceipt { good: true, said, seen, logged: Some((log.key.log_id(), found.index)) }
        }
        Err(error) => bad(crate::error::with_causes(&error)),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use chrono::TimeDelta;

    use super::*;
    use crate::certify::issue;
    use crate::certify::signer::TrustedKeys;
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
                stamps: crate::audit::stamp::StampTrust::default(),
                stamp_chains: Vec::new(),
                signers: vec![(signer.public().clone(), of_signer)],
                ended: Vec::new(),
                operation_logs: Vec::new(),
                acknowledgers: TrustedKeys::default(),
                logs: vec![TrustedLog { key: log.key().clone(), window: of_log, operator: LogOperator::Independent }],
                quorum: Quorum::new(vec![witness.clone()], 1).unwrap(),
            };
            let (envelope, receipt) = (envelope.as_bytes(), receipt.clone());
            let given = Given { envelope, receipt, stamps: Vec::new(), evidence: None, is_chained: false };
            let (verdict, _) = verify_with(&trust, &given, at);
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
