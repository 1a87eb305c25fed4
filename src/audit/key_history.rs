//! The record of signing keys: which one signs, which ones did, from when until when, and what each had signed when it ended. Pure.
//!
//! A record is a DSSE envelope, signed by the key that it says is in use. So whoever writes to the control database alone writes no
//! other list: that needs another key in use, and that is not the one in the file or the token. Each record names the digest of the one
//! before. That the newest one was deleted, a revocation with it, shows only beside the operation log, which has its number.
//!
//! A key ends in one of two ways. *Retired*: another took its place, and nobody is known to have it. *Revoked*: from some time on it
//! may have been in other hands, which can write any date. After its end no word of its own counts; what does is what stands here:
//! the certificates that were there then, and how far each log had grown with them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::trust::{Signers, Window};
use crate::certify::dsse::{Envelope, pae};
use crate::certify::signer::PublicKey;
use crate::keys::signing::SigningKind;
use crate::log::tree::{Hash, sha256};

/// The payload type of a record.
const RECORD_TYPE: &str = "application/vnd.wangchuan.signing-keys.v1+json";

/// Why a record cannot be used. Trying again does not help.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HistoryError {
    /// It is not one, or of a newer version.
    #[error("it is not a record of signing keys that this version reads")]
    Format,
    /// Its signature is not by the key that it says is in use.
    #[error("it is not signed by the key that it says is in use")]
    Signature,
    /// It contradicts itself.
    #[error("it contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// No key of it is meant.
    #[error("no signing key is called that")]
    Unknown,
    /// A key cannot end when it is said to.
    #[error("{0}")]
    When(&'static str),
}

/// How a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    /// Another took its place.
    Retired,
    /// It may have been in other hands from its end on.
    Revoked,
}

/// The newest certificate at some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastCertificate {
    /// Its number.
    pub sequence: u64,
    /// Its digest, hex.
    pub digest: String,
}

/// How far a log had grown with our certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoggedBefore {
    /// The log's id, hex.
    pub log_id: String,
    /// Every entry before this one was there.
    pub tree_size: u64,
}

/// The end of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ended {
    /// How.
    pub by: EndedBy,
    /// From when on a revoked key may have been in other hands; a key that was retired before that ended sooner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// The newest certificate that was there, whatever date it bears: it and those before it were issued in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_certificate: Option<LastCertificate>,
    /// How far each log had grown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logged_before: Vec<LoggedBefore>,
    /// Digests of certificates that were there without a receipt of a log, hex: still to be filed, or taken by a webhook.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfiled: Vec<String>,
}

impl Ended {
    /// The end of a key that is revoked from a time on: `self` is what is known to have been there by that time, `before` how it had
    /// ended until now. Nothing is known to have been there that was not known then: who has the key may have filed more since.
    fn revoked(self, since: DateTime<Utc>, before: Option<(&Self, DateTime<Utc>)>) -> Self {
        let Some((before, end)) = before else {
            return Self { by: EndedBy::Revoked, since: Some(since), ..self };
        };
        let no_more = |known: LoggedBefore| {
            let then = before.logged_before.iter().find(|then| then.log_id == known.log_id)?;
            Some(LoggedBefore { tree_size: known.tree_size.min(then.tree_size), ..known })
        };
        let last = self.last_certificate.zip(before.last_certificate.clone());
        Self {
            by: EndedBy::Revoked,
            since: Some(since),
            last_certificate: last.map(|(now, then)| if now.sequence < then.sequence { now } else { then }),
            logged_before: self.logged_before.into_iter().filter_map(no_more).collect(),
            // What was without a receipt may be somebody else's as well, unless it was listed or taken before that.
            unfiled: if end < since {
                before.unfiled.clone()
            } else {
                self.unfiled.into_iter().filter(|digest| before.unfiled.contains(digest)).collect()
            },
        }
    }

    /// Whether an entry of a log was there; `None` where nothing is known of that log.
    #[must_use]
    pub fn had_logged(&self, log: &Hash, index: u64) -> Option<bool> {
        let id = hex::encode(log);
        let known = self.logged_before.iter().find(|known| known.log_id == id)?;
        Some(index < known.tree_size)
    }
}

/// A key that signs or signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeldKey {
    /// Its id.
    pub key_id: String,
    /// Its public half, PEM.
    pub public_key: String,
    /// What kind of place it lies or lay in.
    pub kind: SigningKind,
    /// Its name there.
    pub name: String,
    /// When it counts.
    pub valid_for: Window,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

impl HeldKey {
    /// A key that begins to sign.
    #[must_use]
    pub fn new(key: &PublicKey, kind: SigningKind, name: &str, start: Option<DateTime<Utc>>) -> Self {
        Self {
            key_id: key.key_id().to_owned(),
            public_key: key.to_pem(),
            kind,
            name: name.to_owned(),
            valid_for: Window { start, end: None },
            ended: None,
        }
    }

    /// The key itself; it was checked when the record was read.
    #[must_use]
    pub fn public(&self) -> Option<PublicKey> {
        PublicKey::from_pem(&self.public_key).ok().filter(|key| key.key_id() == self.key_id)
    }

    /// Whether it ended.
    #[must_use]
    pub fn ended_by(&self) -> Option<EndedBy> {
        self.ended.as_ref().map(|ended| ended.by)
    }
}

/// All signing keys, the one in use last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyHistory {
    /// Which record this is, from 1; 0 is none yet.
    pub number: u64,
    /// SHA-256 of the record before, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The keys.
    pub keys: Vec<HeldKey>,
}

impl KeyHistory {
    /// One key, before there is any record.
    #[must_use]
    pub fn of(key: HeldKey) -> Self {
        Self { number: 0, previous: None, keys: vec![key] }
    }

    /// Reads a record from the very bytes whose signature was checked.
    ///
    /// # Errors
    /// What is wrong with it. Never panics.
    pub fn open(record: &[u8]) -> Result<Self, HistoryError> {
        let envelope = Envelope::parse(record).map_err(|_| HistoryError::Format)?;
        if envelope.payload_type() != RECORD_TYPE {
            return Err(HistoryError::Format);
        }
        let history: Self = serde_json::from_slice(envelope.payload()).map_err(|_| HistoryError::Format)?;
        history.check()?;
        let key = history.keys.last().and_then(HeldKey::public).ok_or(HistoryError::Format)?;
        if envelope.key_id() != key.key_id() || !key.verifies(&envelope.signed_bytes(), envelope.signature()) {
            return Err(HistoryError::Signature);
        }
        Ok(Self { previous: Some(hex::encode(sha256(record))), ..history })
    }

    /// The key in use.
    #[must_use]
    pub fn in_use(&self) -> Option<&HeldKey> {
        self.keys.last()
    }

    /// The keys with their times, for whoever checks signatures.
    #[must_use]
    pub fn signers(&self) -> Signers {
        let keys = self.keys.iter().rev().filter_map(|key| Some((key.public()?, key.valid_for)));
        let ended = self.keys.iter().filter_map(|key| Some((key.key_id.clone(), key.ended.clone()?)));
        Signers { keys: keys.collect(), ended: ended.collect() }
    }

    /// The names that keys of a kind of place have or had.
    #[must_use]
    pub fn names(&self, kind: SigningKind) -> Vec<String> {
        self.keys.iter().filter(|key| key.kind == kind).map(|key| key.name.clone()).collect()
    }

    /// The one key whose id begins like this.
    ///
    /// # Errors
    /// [`HistoryError::Unknown`] when there is none, or more than one.
    pub fn find(&self, id: &str) -> Result<&HeldKey, HistoryError> {
        let mut meant = self.keys.iter().filter(|key| !id.is_empty() && key.key_id.starts_with(id));
        match (meant.next(), meant.next()) {
            (Some(key), None) => Ok(key),
            _ => Err(HistoryError::Unknown),
        }
    }

    /// The next record: another key takes the place of the one in use, from the instant on at which that ends.
    ///
    /// # Errors
    /// When the key in use did not count yet at that time, or the other one was used before.
    pub fn rotated(&self, next: HeldKey, at: DateTime<Utc>, ended: Ended) -> Result<Self, HistoryError> {
        if self.keys.iter().any(|key| key.key_id == next.key_id) {
            return Err(HistoryError::Inconsistent("the new key was in use before"));
        }
        let mut keys = self.keys.clone();
        let last = keys.last_mut().ok_or(HistoryError::Inconsistent("it holds no key"))?;
        if last.valid_for.start.is_some_and(|start| at < start) {
            return Err(HistoryError::When("the clock stands before the time from which the key in use counts"));
        }
        last.valid_for.end = Some(at);
        last.ended = Some(ended);
        keys.push(HeldKey { valid_for: Window { start: Some(at), end: None }, ..next });
        self.next(keys)
    }

    /// The next record: a key that has ended was in other hands from a time on.
    ///
    /// # Errors
    /// When there is no such key, it is still in use, or was revoked from an earlier time on already.
    pub fn revoked(&self, id: &str, since: DateTime<Utc>, ended: Ended) -> Result<Self, HistoryError> {
        let id = self.find(id)?.key_id.clone();
        let mut keys = self.keys.clone();
        let key = keys.iter_mut().find(|key| key.key_id == id).ok_or(HistoryError::Unknown)?;
        let end = key.valid_for.end.ok_or(HistoryError::When("the key is still in use"))?;
        let earlier = key.ended.as_ref().filter(|ended| ended.by == EndedBy::Revoked);
        if earlier.is_some_and(|earlier| earlier.since.unwrap_or(end) <= since) {
            return Err(HistoryError::When("the key is revoked from an earlier time on already"));
        }
        if key.valid_for.start.is_some_and(|start| since < start) {
            // From its beginning on, then: nothing of it counts.
            key.valid_for.start = Some(since);
        }
        key.valid_for.end = Some(end.min(since));
        key.ended = Some(ended.revoked(since, key.ended.as_ref().map(|before| (before, end))));
        self.next(keys)
    }

    fn next(&self, keys: Vec<HeldKey>) -> Result<Self, HistoryError> {
        let next = Self { number: self.number + 1, previous: self.previous.clone(), keys };
        next.check()?;
        Ok(next)
    }

    /// The bytes of the record that are to be signed by the key in use: payload and message.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn to_sign(&self) -> Result<(Vec<u8>, Vec<u8>), HistoryError> {
        let payload = serde_json::to_vec(self).map_err(|_| HistoryError::Format)?;
        let message = pae(RECORD_TYPE, &payload);
        Ok((payload, message))
    }

    /// The record with its signature.
    #[must_use]
    pub fn signed(payload: Vec<u8>, signature: Vec<u8>, key_id: &str) -> Vec<u8> {
        Envelope::make(RECORD_TYPE, payload, signature, key_id).as_bytes().to_vec()
    }

    /// One key in use, the last; every other has ended, and where it was not revoked the next one began at that instant.
    fn check(&self) -> Result<(), HistoryError> {
        let wrong = |what| Err(HistoryError::Inconsistent(what));
        let Some((in_use, before)) = self.keys.split_last() else { return wrong("it holds no key") };
        if in_use.ended.is_some() || in_use.valid_for.end.is_some() {
            return wrong("the key in use has ended");
        }
        if self.keys.iter().any(|key| key.public().is_none()) {
            return wrong("a key does not have the id that stands beside it");
        }
        for (number, key) in before.iter().enumerate() {
            let (Some(ended), Some(end)) = (&key.ended, key.valid_for.end) else {
                return wrong("two keys are in use");
            };
            let next = self.keys.get(number + 1).and_then(|next| next.valid_for.start);
            let fits = match ended.by {
                EndedBy::Retired => next == Some(end) || self.keys[number + 1].ended_by() == Some(EndedBy::Revoked),
                EndedBy::Revoked => next.is_some(),
            };
            if !fits {
                return wrong("there is a gap between two keys");
            }
            if self.keys[..number].iter().any(|earlier| earlier.key_id == key.key_id) {
                return wrong("a key stands there twice");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
