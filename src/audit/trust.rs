//! What somebody else must trust to verify our certificates, in one file: keys with the time they are good for, the log, its
//! witnesses. Pure.
//!
//! The file holds public keys only and proves nothing by itself: whoever verifies must have it from somewhere else than the
//! certificate. The same is written in the forms that stock tools read: a Sigstore trusted root, C2SP verifier keys, a C2SP
//! tlog-policy, PEM.

mod signers;

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

pub use self::signers::Signers;
use super::key_history::{Ended, EndedBy};
use super::receipt::LogOperator;
use super::stamp::{StampTrust, TimeStamp};
use crate::certify::signer::{PublicKey, TrustedKeys};
use crate::log::checkpoint::CheckpointKey;
use crate::log::cosignature::{CosignatureError, Quorum, WitnessKey};
use crate::log::key_file::{decode_pem, encode_pem};
use crate::log::tree::Hash;

/// The media type of the file.
pub const TRUST_MEDIA_TYPE: &str = "application/vnd.wangchuan.trust.v1+json";
/// The media type of the Sigstore trusted root in it.
const TRUSTED_ROOT_MEDIA_TYPE: &str = "application/vnd.dev.sigstore.trustedroot+json;version=0.1";
/// The DER header of a SubjectPublicKeyInfo with an Ed25519 key (RFC 8410 §4).
const ED25519_SPKI_HEADER: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a trust file cannot be used. Trying again does not help.
#[derive(Debug, Error)]
pub enum TrustError {
    /// It is not one.
    #[error("not a trust file")]
    Json(#[source] serde_json::Error),
    /// It is of another kind or version.
    #[error("a file of another kind than {TRUST_MEDIA_TYPE}")]
    OtherKind,
    /// A key in it cannot be read, or does not have the id it should have.
    #[error("the {0} key in it is not usable")]
    Key(&'static str),
    /// A certificate of a time-stamping authority in it is not usable.
    #[error("the time-stamping authorities in it are not usable")]
    Stamps(#[from] super::stamp::StampError),
    /// Its witnesses cannot make a quorum.
    #[error("its witnesses are not usable")]
    Witnesses(#[from] CosignatureError),
    /// It trusts nobody.
    #[error("it holds no certificate key, or neither a log nor a key that acknowledges")]
    Empty,
}

/// From when until when a key is good; open ends are unknown or not yet there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
// A misspelt end must not open the window.
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<DateTime<Utc>>,
    /// Not after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<DateTime<Utc>>,
}

impl Window {
    /// Whether an instant lies in it, its ends included.
    #[must_use]
    pub fn contains(self, at: DateTime<Utc>) -> bool {
        self.start.is_none_or(|start| start <= at) && self.end.is_none_or(|end| at <= end)
    }

    /// Whether a key is good for a signature that was made at the time which it says itself, seen by witnesses at another, and is
    /// looked at `now`. A key that has ended may have come into other hands, which write any time: what it says itself makes nothing
    /// good, and where a witness saw it in time, it takes nothing away either. No key is good for what is dated before it began.
    #[must_use]
    pub fn judge(self, said: Option<DateTime<Utc>>, seen: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Standing {
        let begins_later = |at: DateTime<Utc>| self.start.is_some_and(|start| at < start);
        if begins_later(now) || said.is_some_and(begins_later) {
            return Standing::Outside;
        }
        // The clock of a witness need not agree with ours to the minute.
        let is_empty = self.start.zip(self.end).is_some_and(|(start, end)| end <= start);
        let in_time = |seen: DateTime<Utc>| {
            !is_empty && self.end.is_none_or(|end| seen <= end) && !begins_later(seen + super::stamp::CLOCKS_APART)
        };
        let says_later = self.end.zip(said).is_some_and(|(end, said)| end < said);
        match (self.end.filter(|end| *end < now), seen) {
            (Some(_), Some(seen)) if in_time(seen) => Standing::Seen(seen),
            _ if says_later => Standing::Outside,
            (None, _) => Standing::Good,
            (Some(end), _) => Standing::Unproved(end),
        }
    }
}

/// Whether a key was good when it signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is good still, and was then.
    Good,
    /// It has ended; witnesses saw the signature at this time, when it was good.
    Seen(DateTime<Utc>),
    /// It ended at this time, and no witness shows that the signature is older.
    Unproved(DateTime<Utc>),
    /// It was not good at the time that it signed with.
    Outside,
    /// It ended at this time; the log held the certificate by then.
    Logged(DateTime<Utc>),
    /// It ended at this time; the certificate was there by then without a receipt: still to be filed, or taken without one.
    Listed(DateTime<Utc>),
    /// It ended at this time; the certificate stands before that in the installation's own chain.
    Chained(DateTime<Utc>),
    /// It says itself that it was signed after the key's end.
    After(EndedBy, DateTime<Utc>),
    /// Its log took it only after the key's end.
    LoggedAfter(EndedBy, DateTime<Utc>),
}

impl Standing {
    /// Whether the key is to be believed.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Self::Good | Self::Seen(_) | Self::Logged(_) | Self::Listed(_) | Self::Chained(_))
    }
}

/// What is known of a certificate when its key is judged.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'s> {
    /// The id of its key.
    pub key_id: &'s str,
    /// Its digest.
    pub digest: &'s Hash,
    /// When it says that it was signed.
    pub said: DateTime<Utc>,
    /// When witnesses had seen it.
    pub seen: Option<DateTime<Utc>>,
    /// The log that holds it, and its place there.
    pub logged: Option<(Hash, u64)>,
    /// Whether it stands in the installation's own chain before what was there when the key ended.
    pub is_chained: bool,
}

/// A log that certificates are filed in.
#[derive(Debug, Clone, PartialEq)]
pub struct TrustedLog {
    /// Its key.
    pub key: CheckpointKey,
    /// When it is good.
    pub window: Window,
    /// Who runs it.
    pub operator: LogOperator,
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq)]
pub struct Trust {
    /// Keys that sign certificates, the retired ones too.
    pub signers: Vec<(PublicKey, Window)>,
    /// How those of them ended that did, by the id of the key.
    pub ended: Vec<(String, Ended)>,
    /// Logs that certificates are filed in, the present one first; lost ones stay as long as any receipt of theirs.
    pub logs: Vec<TrustedLog>,
    /// Keys of audit services that sign for certificates without a log.
    pub acknowledgers: TrustedKeys,
    /// The keys of operation logs: what is handed out of one counts only with them.
    pub operation_logs: Vec<CheckpointKey>,
    /// The witnesses of the logs.
    pub quorum: Quorum,
    /// Whose time stamps are believed.
    pub stamps: StampTrust,
    /// The chains of certificates that signed time stamps, from the signer to the root: stock verifiers want them all. They are trusted
    /// only through the roots.
    pub stamp_chains: Vec<StampChain>,
}

/// A chain of certificates in DER that signed time stamps, and when the first of them is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StampChain {
    /// The certificates, PEM.
    certificates: Vec<String>,
    /// When the signer's is valid.
    valid_for: Window,
}

impl StampChain {
    /// The chain of a verified time stamp.
    #[must_use]
    pub fn of(stamp: &TimeStamp) -> Self {
        let certificates = stamp.chain.iter().map(|der| encode_pem(CERTIFICATE, der)).collect();
        let (start, end) = stamp.signer_valid;
        Self { certificates, valid_for: Window { start, end } }
    }

    fn ders(&self) -> Vec<Vec<u8>> {
        self.certificates.iter().filter_map(|pem| decode_pem(CERTIFICATE, pem)).collect()
    }
}

/// What a certificate's PEM is called.
const CERTIFICATE: &str = "CERTIFICATE";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    media_type: String,
    /// Who runs the logs that say nothing of it: independent when all of them are.
    operator: LogOperator,
    certificate_keys: Vec<WireSigner>,
    logs: Vec<WireLog>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    acknowledgement_keys: Vec<WireKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    operation_logs: Vec<String>,
    #[serde(default)]
    witnesses: Vec<String>,
    #[serde(default)]
    quorum: usize,
    /// Roots of time-stamping authorities, PEM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    timestamp_roots: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    timestamp_chains: Vec<StampChain>,
    /// The same for tools that read a C2SP tlog-policy; not read back.
    #[serde(default)]
    tlog_policy: String,
    /// The same for Sigstore clients; not read back.
    #[serde(default)]
    trusted_root: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireSigner {
    key_id: String,
    /// PEM.
    public_key: String,
    #[serde(default)]
    valid_for: Window,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Ended>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireKey {
    key_id: String,
    /// PEM.
    public_key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireLog {
    origin: String,
    verifier_key: String,
    #[serde(with = "hash_text")]
    log_id: Hash,
    #[serde(default)]
    operator: Option<LogOperator>,
    #[serde(default)]
    valid_for: Window,
}

impl Trust {
    /// The keys alone, for checking signatures.
    #[must_use]
    pub fn keys(&self) -> TrustedKeys {
        self.signers.iter().map(|(key, _)| key.clone()).collect()
    }

    /// Whether a key was good for a certificate of its own; the best of its windows counts. See [`Window::judge`].
    #[must_use]
    pub fn judge(
        &self,
        key_id: &str,
        said: DateTime<Utc>,
        seen: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Standing {
        let windows = self.signers.iter().filter(|(key, _)| key.key_id() == key_id).map(|(_, window)| window);
        let judged: Vec<Standing> = windows.map(|window| window.judge(Some(said), seen, now)).collect();
        let good = judged.iter().find(|standing| standing.is_good());
        let unproved = || judged.iter().find(|standing| matches!(standing, Standing::Unproved(_)));
        good.or_else(unproved).copied().unwrap_or(Standing::Outside)
    }

    /// The same with all that is known of the certificate. What a key signed before its end stays good where something else than the
    /// key's own word shows that it was before: who has the key writes any date. That date counts where there is nothing better, and
    /// then only against the certificate.
    #[must_use]
    pub fn judge_signed(&self, signed: Signed<'_>, now: DateTime<Utc>) -> Standing {
        let plain = self.judge(signed.key_id, signed.said, signed.seen, now);
        let Some((_, ended)) = self.ended.iter().find(|(id, _)| id == signed.key_id) else { return plain };
        let windows = self.signers.iter().filter(|(key, _)| key.key_id() == signed.key_id);
        let end = windows.filter_map(|(_, window)| window.end).max();
        let end = match (plain, end) {
            (Standing::Unproved(end), _) => end,
            (Standing::Outside, Some(end)) if end < signed.said => end,
            _ => return plain,
        };
        let had_logged = signed.logged.and_then(|(log, index)| ended.had_logged(&log, index));
        match had_logged {
            _ if signed.is_chained => Standing::Chained(end),
            _ if ended.unfiled.contains(&hex::encode(signed.digest)) => Standing::Listed(end),
            Some(true) => Standing::Logged(end),
            _ if end < signed.said => Standing::After(ended.by, end),
            Some(false) => Standing::LoggedAfter(ended.by, end),
            None => plain,
        }
    }

    /// Who runs the logs: others only when all of them are run by others.
    #[must_use]
    pub fn operator(&self) -> LogOperator {
        let is_independent =
            !self.logs.is_empty() && self.logs.iter().all(|log| log.operator == LogOperator::Independent);
        if is_independent { LogOperator::Independent } else { LogOperator::SelfHosted }
    }

    /// The file.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let signers = self.signers.iter().map(|(key, window)| WireSigner {
            key_id: key.key_id().to_owned(),
            public_key: key.to_pem(),
            valid_for: *window,
            ended: self.ended.iter().find(|(id, _)| id == key.key_id()).map(|(_, ended)| ended.clone()),
        });
        let logs = self.logs.iter().map(|TrustedLog { key, window, operator }| WireLog {
            origin: key.origin().to_owned(),
            verifier_key: key.verifier_key(),
            log_id: key.log_id(),
            operator: Some(*operator),
            valid_for: *window,
        });
        let acknowledger = |key: &PublicKey| WireKey { key_id: key.key_id().to_owned(), public_key: key.to_pem() };
        let wire = Wire {
            media_type: TRUST_MEDIA_TYPE.to_owned(),
            operator: self.operator(),
            certificate_keys: signers.collect(),
            logs: logs.collect(),
            acknowledgement_keys: self.acknowledgers.iter().map(acknowledger).collect(),
            operation_logs: self.operation_logs.iter().map(CheckpointKey::verifier_key).collect(),
            witnesses: self.quorum.witnesses().iter().map(WitnessKey::verifier_key).collect(),
            quorum: self.quorum.needed(),
            timestamp_roots: self.stamps.roots().map(|root| encode_pem(CERTIFICATE, root)).collect(),
            timestamp_chains: self.stamp_chains.clone(),
            tlog_policy: self.tlog_policy(),
            trusted_root: self.trusted_root(),
        };
        serde_json::to_value(wire).unwrap_or_default()
    }

    /// Reads a file; every key must have the id that stands beside it.
    pub fn parse(bytes: &[u8]) -> Result<Self, TrustError> {
        let value: Value = serde_json::from_slice(bytes).map_err(TrustError::Json)?;
        if value.get("mediaType").and_then(Value::as_str) != Some(TRUST_MEDIA_TYPE) {
            return Err(TrustError::OtherKind);
        }
        let wire: Wire = serde_json::from_value(value).map_err(TrustError::Json)?;
        let signer = |wire: WireSigner| {
            let key = key_with_id(&wire.public_key, &wire.key_id).ok_or(TrustError::Key("certificate"))?;
            Ok((key, wire.valid_for))
        };
        let acknowledger =
            |wire: &WireKey| key_with_id(&wire.public_key, &wire.key_id).ok_or(TrustError::Key("acknowledgement"));
        let log = |log: WireLog| {
            let key = CheckpointKey::parse(&log.verifier_key).ok();
            let key = key.filter(|key| key.log_id() == log.log_id && key.origin() == log.origin);
            let operator = log.operator.unwrap_or(wire.operator);
            Ok(TrustedLog { key: key.ok_or(TrustError::Key("log"))?, window: log.valid_for, operator })
        };
        let witnesses: Result<Vec<_>, _> = wire.witnesses.iter().map(|text| WitnessKey::parse(text)).collect();
        let operation_log = |text: &String| CheckpointKey::parse(text).map_err(|_| TrustError::Key("operation log"));
        let ended = |wire: &WireSigner| Some((wire.key_id.clone(), wire.ended.clone()?));
        let trust = Self {
            ended: wire.certificate_keys.iter().filter_map(ended).collect(),
            signers: wire.certificate_keys.into_iter().map(signer).collect::<Result<_, TrustError>>()?,
            logs: wire.logs.into_iter().map(log).collect::<Result<_, TrustError>>()?,
            acknowledgers: wire.acknowledgement_keys.iter().map(acknowledger).collect::<Result<_, TrustError>>()?,
            operation_logs: wire.operation_logs.iter().map(operation_log).collect::<Result<_, TrustError>>()?,
            quorum: Quorum::new(witnesses?, wire.quorum)?,
            stamps: match &wire.timestamp_roots[..] {
                [] => StampTrust::default(),
                roots => StampTrust::from_pem(roots.concat().as_bytes())?,
            },
            stamp_chains: wire.timestamp_chains,
        };
        let shows_filing = !trust.logs.is_empty() || !trust.acknowledgers.is_empty();
        if trust.signers.is_empty() || !shows_filing { Err(TrustError::Empty) } else { Ok(trust) }
    }

    /// A C2SP tlog-policy: the logs, the witnesses, how many of them are needed.
    #[must_use]
    pub fn tlog_policy(&self) -> String {
        let mut text = String::new();
        for log in &self.logs {
            let _ = writeln!(text, "log {}", log.key.verifier_key());
        }
        let names: Vec<String> = (1..=self.quorum.witnesses().len()).map(|number| format!("w{number}")).collect();
        for (name, witness) in names.iter().zip(self.quorum.witnesses()) {
            let _ = writeln!(text, "witness {name} {}", witness.verifier_key());
        }
        if names.is_empty() {
            text.push_str("quorum none\n");
        } else {
            let _ = writeln!(text, "group witnesses {} {}\nquorum witnesses", self.quorum.needed(), names.join(" "));
        }
        text
    }

    /// A Sigstore `TrustedRoot`: the logs, and the time-stamping authorities by the chains that are known of them. Certificate keys
    /// have no place in it; they are given beside it, by their hint.
    #[must_use]
    pub fn trusted_root(&self) -> Value {
        let log = |TrustedLog { key, window, .. }: &TrustedLog| {
            let valid_for = valid_for(*window);
            let id = json!({"keyId": STANDARD.encode(key.log_id())});
            json!({
                "baseUrl": format!("https://{}", key.origin()),
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": STANDARD.encode([&ED25519_SPKI_HEADER[..], key.public_key()].concat()),
                    "keyDetails": "PKIX_ED25519",
                    "validFor": valid_for,
                },
                "logId": id.clone(),
                "checkpointKeyId": id,
            })
        };
        let authority = |chain: &StampChain| {
            let raw = |der: Vec<u8>| json!({"rawBytes": STANDARD.encode(der)});
            json!({
                "subject": {"organization": "", "commonName": ""},
                "uri": "",
                "certChain": {"certificates": chain.ders().into_iter().map(raw).collect::<Vec<_>>()},
                "validFor": valid_for(chain.valid_for),
            })
        };
        json!({
            "mediaType": TRUSTED_ROOT_MEDIA_TYPE,
            "tlogs": self.logs.iter().map(log).collect::<Vec<_>>(),
            "certificateAuthorities": [], "ctlogs": [],
            "timestampAuthorities": self.stamp_chains.iter().map(authority).collect::<Vec<_>>(),
        })
    }

    /// The file in parts, for tools that read one form each: names and contents.
    #[must_use]
    pub fn parts(&self) -> Vec<(String, Vec<u8>)> {
        let mut parts = vec![
            ("trusted_root.json".to_owned(), format!("{:#}\n", self.trusted_root()).into_bytes()),
            ("tlog-policy.txt".to_owned(), self.tlog_policy().into_bytes()),
        ];
        let name = |kind: &str, number: usize, ending: &str| {
            if number == 0 { format!("{kind}.{ending}") } else { format!("{kind}-{}.{ending}", number + 1) }
        };
        for (number, (key, _)) in self.signers.iter().enumerate() {
            parts.push((name("signer", number, "pem"), key.to_pem().into_bytes()));
        }
        for (number, log) in self.logs.iter().enumerate() {
            parts.push((name("log", number, "vkey"), format!("{}\n", log.key.verifier_key()).into_bytes()));
        }
        for (number, key) in self.acknowledgers.iter().enumerate() {
            parts.push((name("acknowledgement", number, "pem"), key.to_pem().into_bytes()));
        }
        let roots: String = self.stamps.roots().map(|root| encode_pem(CERTIFICATE, root)).collect();
        if !roots.is_empty() {
            parts.push(("timestamp-roots.pem".to_owned(), roots.into_bytes()));
        }
        parts
    }
}

/// A key that has the id which stands beside it.
fn key_with_id(pem: &str, key_id: &str) -> Option<PublicKey> {
    PublicKey::from_pem(pem).ok().filter(|key| key.key_id() == key_id)
}

/// A window as Sigstore writes it.
fn valid_for(window: Window) -> Value {
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    // Readers of Sigstore take a missing start for an error, so an unknown one is the beginning of time.
    let mut valid_for = json!({"start": time(window.start.unwrap_or(DateTime::UNIX_EPOCH))});
    if let Some(end) = window.end {
        valid_for["end"] = time(end).into();
    }
    valid_for
}

mod hash_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::log::tree::Hash;

    pub(super) fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| de::Error::custom("not a SHA-256 value in base64"))
    }
}

#[cfg(test)]
mod tests;
