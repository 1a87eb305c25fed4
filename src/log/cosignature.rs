//! Witnesses: C2SP tlog-cosignature v1 (Ed25519, signature type 0x04), and the messages of C2SP tlog-witness. Pure.
//!
//! A witness signs the head of a log it has always seen grow, with the time. It sees origin, size and root, and nothing of
//! what was filed. Only with enough of them does a head count as witnessed: a log that shows two faces has to find as many
//! witnesses for each.

use std::fmt::Write as _;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use thiserror::Error;

use super::checkpoint::{CheckpointError, is_key_name, parse_signature, split_note};
use super::tree::Hash;
use super::verifier_key;

/// The signature type of timestamped Ed25519 cosignatures.
const COSIGNATURE_TYPE: u8 = 4;
/// Bytes of a cosignature: the time in seconds, and the signature.
const COSIGNATURE_BYTES: usize = 8 + 64;
/// A witness's reply holds one line; more are some hundred bytes each.
const MAX_REPLY_BYTES: usize = 16 * 1024;

/// What is wrong with a witness key or with a witness's reply. Trying again does not help.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CosignatureError {
    /// The key string is not one of a witness.
    #[error("malformed witness key: expected NAME+HASH+BASE64 of a cosignature key (type 4)")]
    BadWitnessKey,
    /// More witnesses are needed than there are.
    #[error("a quorum of {needed} needs at least as many witnesses, and there are {witnesses}")]
    ImpossibleQuorum {
        /// How many must sign.
        needed: usize,
        /// How many there are.
        witnesses: usize,
    },
    /// Two witnesses share a key, so one signature would count twice.
    #[error("the same witness key stands twice")]
    RepeatedWitness,
    /// The reply holds no good signature by the witness.
    #[error("the witness's reply holds no good signature by its key")]
    NotSigned,
}

/// The public key of a witness, with the name it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    public: [u8; 32],
}

impl WitnessKey {
    /// A key from its parts.
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, CosignatureError> {
        if is_key_name(name) {
            Ok(Self { name: name.to_owned(), public })
        } else {
            Err(CosignatureError::BadWitnessKey)
        }
    }

    /// Parses a C2SP verifier key of type 0x04, and checks its hash.
    pub fn parse(text: &str) -> Result<Self, CosignatureError> {
        let (name, public) = verifier_key::parse(text, COSIGNATURE_TYPE).ok_or(CosignatureError::BadWitnessKey)?;
        Self::new(name, public)
    }

    /// The C2SP verifier key string.
    #[must_use]
    pub fn verifier_key(&self) -> String {
        verifier_key::to_text(&self.name, COSIGNATURE_TYPE, &self.public)
    }

    /// The witness's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn short_hash(&self) -> [u8; 4] {
        verifier_key::short_hash(&self.name, COSIGNATURE_TYPE, &self.public)
    }

    /// When this witness signed the note's head, if it did: the time that it wrote under its signature.
    #[must_use]
    pub fn signed_at(&self, note: &str) -> Option<DateTime<Utc>> {
        let (text, signatures) = split_note(note).ok()?;
        signatures.lines().find_map(|line| self.check_line(text, line))
    }

    fn check_line(&self, text: &str, line: &str) -> Option<DateTime<Utc>> {
        let (name, bytes) = parse_signature(line).ok()?;
        if name != self.name || bytes.len() != 4 + COSIGNATURE_BYTES || bytes[..4] != self.short_hash() {
            return None;
        }
        let seconds = u64::from_be_bytes(bytes[4..12].try_into().ok()?);
        let message = cosigned_text(seconds, text);
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message.as_bytes(), &bytes[12..]).ok()?;
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)
    }

    /// Takes the witness's own signature line out of its reply to an `add-checkpoint`, checked against the note it is for.
    pub fn line_of_reply(&self, note: &str, reply: &str) -> Result<String, CosignatureError> {
        let (text, _) = split_note(note).map_err(|_| CosignatureError::NotSigned)?;
        if reply.len() > MAX_REPLY_BYTES {
            return Err(CosignatureError::NotSigned);
        }
        let line = reply.lines().find(|line| self.check_line(text, line).is_some());
        line.map(|line| format!("{line}\n")).ok_or(CosignatureError::NotSigned)
    }
}

/// What a witness signs.
fn cosigned_text(seconds: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// The witnesses of a log, and how many of them make its heads witnessed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quorum {
    witnesses: Vec<WitnessKey>,
    needed: usize,
}

impl Quorum {
    /// `needed` of these witnesses; 0 only without any.
    pub fn new(witnesses: Vec<WitnessKey>, needed: usize) -> Result<Self, CosignatureError> {
        if needed > witnesses.len() || (needed == 0 && !witnesses.is_empty()) {
            return Err(CosignatureError::ImpossibleQuorum { needed, witnesses: witnesses.len() });
        }
        let repeated = |at: usize, key: &WitnessKey| witnesses[..at].iter().any(|other| other.public == key.public);
        if witnesses.iter().enumerate().any(|(at, key)| repeated(at, key)) {
            return Err(CosignatureError::RepeatedWitness);
        }
        Ok(Self { witnesses, needed })
    }

    /// The witnesses.
    #[must_use]
    pub fn witnesses(&self) -> &[WitnessKey] {
        &self.witnesses
    }

    /// How many of them must sign.
    #[must_use]
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// Whether enough of them signed the note's head. Never without witnesses.
    #[must_use]
    pub fn is_met(&self, note: &str) -> bool {
        let signed = self.witnesses.iter().filter(|witness| witness.signed_at(note).is_some()).count();
        self.needed > 0 && signed >= self.needed
    }

    /// When enough of them had signed the note's head, by the times under their signatures.
    #[must_use]
    pub fn met_at(&self, note: &str) -> Option<DateTime<Utc>> {
        let mut times: Vec<_> = self.witnesses.iter().filter_map(|witness| witness.signed_at(note)).collect();
        times.sort_unstable();
        times.get(self.needed.checked_sub(1)?).copied()
    }
}

/// A note with further signature lines, each once.
pub fn with_signatures(note: &str, lines: &[String]) -> Result<String, CheckpointError> {
    split_note(note)?;
    let mut whole = note.to_owned();
    for line in lines {
        parse_signature(line.trim_end_matches('\n'))?;
        if !whole.contains(line.as_str()) {
            whole.push_str(line);
        }
    }
    Ok(whole)
}

/// The body of an `add-checkpoint` request: the size the witness knows, the proof from there, and the note.
#[must_use]
pub fn add_checkpoint(old: u64, proof: &[Hash], note: &str) -> String {
    let mut body = format!("old {old}\n");
    for hash in proof {
        let _ = writeln!(body, "{}", STANDARD.encode(hash));
    }
    body.push('\n');
    body + note
}

/// The size that a witness says it knows, in the body of its 409 (`text/x.tlog.size`).
#[must_use]
pub fn known_size(body: &str) -> Option<u64> {
    let text = body.strip_suffix('\n')?;
    let size: u64 = text.parse().ok()?;
    (size.to_string() == text).then_some(size)
}

/// Signs as a witness does, for tests: a line over the note's text at this time.
#[cfg(test)]
pub(crate) fn cosign(
    pair: &aws_lc_rs::signature::Ed25519KeyPair,
    key: &WitnessKey,
    note: &str,
    seconds: u64,
) -> String {
    let (text, _) = split_note(note).unwrap();
    let mut bytes = key.short_hash().to_vec();
    bytes.extend_from_slice(&seconds.to_be_bytes());
    bytes.extend_from_slice(pair.sign(cosigned_text(seconds, text).as_bytes()).as_ref());
    format!("\u{2014} {} {}\n", key.name, STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::super::checkpoint::CheckpointSigner;
    use super::*;
    use crate::random::SystemRandom;

    fn witness(seed: u8) -> (Ed25519KeyPair, WitnessKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        (pair, WitnessKey::new(&format!("witness.example/w{seed}"), public).unwrap())
    }

    fn note() -> String {
        let pkcs8 = CheckpointSigner::make_pkcs8(&SystemRandom).unwrap();
        CheckpointSigner::from_pkcs8("log.example/certificates", &pkcs8).unwrap().sign(7, [3; 32]).note
    }

    #[test]
    fn a_quorum_counts_good_signatures_of_its_own_witnesses_once() {
        let (note, (first, one), (second, two), (third, other)) = (note(), witness(1), witness(2), witness(3));
        let quorum = Quorum::new(vec![one.clone(), two.clone()], 2).unwrap();
        let lines = [cosign(&first, &one, &note, 1_700_000_000), cosign(&third, &other, &note, 1_700_000_001)];
        let once = with_signatures(&note, &lines).unwrap();
        assert_eq!(one.signed_at(&once).unwrap().timestamp(), 1_700_000_000);
        assert!(!quorum.is_met(&once), "one of two, and a stranger");
        let again = with_signatures(&once, &[cosign(&first, &one, &note, 1_700_000_009)]).unwrap();
        assert!(!quorum.is_met(&again), "the same witness twice");
        let both = with_signatures(&again, &[cosign(&second, &two, &note, 1_700_000_002)]).unwrap();
        assert!(quorum.is_met(&both));
        let met_at = |note: &str| quorum.met_at(note).map(|at| at.timestamp());
        assert_eq!((met_at(&again), met_at(&both)), (None, Some(1_700_000_002)), "when the second had signed");
        assert_eq!(Quorum::default().met_at(&both), None);
        assert!(!quorum.is_met(&both.replacen("\n7\n", "\n8\n", 1)), "another head");
        assert!(!Quorum::default().is_met(&both), "without witnesses nothing is witnessed");
        let forged = cosign(&third, &two, &note, 1_700_000_002);
        assert!(
            !quorum.is_met(&with_signatures(&once, std::slice::from_ref(&forged)).unwrap()),
            "another key under the name"
        );
        assert_eq!(two.line_of_reply(&note, &forged).unwrap_err(), CosignatureError::NotSigned);
        assert_eq!(one.line_of_reply(&note, &lines.concat()).unwrap(), lines[0]);
    }

    #[test]
    fn keys_are_read_back_and_quorums_are_possible() {
        let (_, key) = witness(5);
        assert_eq!(WitnessKey::parse(&key.verifier_key()).unwrap(), key);
        let log_key = CheckpointSigner::from_pkcs8("a", &CheckpointSigner::make_pkcs8(&SystemRandom).unwrap()).unwrap();
        let log_key = log_key.key().verifier_key();
        for bad in ["", "w+00000000+AAAA", log_key.as_str(), &key.verifier_key().replacen('w', "v", 1)] {
            assert_eq!(WitnessKey::parse(bad).unwrap_err(), CosignatureError::BadWitnessKey, "{bad}");
        }
        assert!(Quorum::new(vec![key.clone()], 2).is_err());
        assert!(Quorum::new(vec![key.clone()], 0).is_err());
        assert_eq!(Quorum::new(vec![key.clone(), key], 1).unwrap_err(), CosignatureError::RepeatedWitness);
        assert_eq!(Quorum::new(Vec::new(), 0).unwrap(), Quorum::default());
    }

    #[test]
    fn the_messages_of_a_witness_are_as_its_protocol_has_them() {
        let note = note();
        let body = add_checkpoint(3, &[[0; 32], [1; 32]], &note);
        let zeros = STANDARD.encode([0; 32]);
        let ones = STANDARD.encode([1; 32]);
        assert_eq!(body, format!("old 3\n{zeros}\n{ones}\n\n{note}"));
        assert_eq!(known_size("17\n"), Some(17));
        for bad in ["17", "017\n", "-1\n", "\n", "17\n\n"] {
            assert_eq!(known_size(bad), None, "{bad:?}");
        }
    }
}
