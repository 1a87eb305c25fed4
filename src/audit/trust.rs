//! What somebody else must trust to verify our certificates, in one file: keys with the time they are good for, the log, its
//! witnesses. Pure.
//!
//! The file holds public keys only and proves nothing by itself: whoever verifies must have it from somewhere else than the
//! certificate. The same is written in the forms that stock tools read: a Sigstore trusted root, C2SP verifier keys, a C2SP
//! tlog-policy, PEM.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::receipt::LogOperator;
use crate::certify::signer::{PublicKey, TrustedKeys};
use crate::log::checkpoint::CheckpointKey;
use crate::log::cosignature::{CosignatureError, Quorum, WitnessKey};
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
    /// Its witnesses cannot make a quorum.
    #[error("its witnesses are not usable")]
    Witnesses(#[from] CosignatureError),
    /// It trusts nobody.
    #[error("it holds no certificate key or no log")]
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
    /// looked at `now`. A key that has ended may have come into other hands, which write any time: its word alone is not enough.
    #[must_use]
    pub fn judge(self, said: Option<DateTime<Utc>>, seen: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Standing {
        let begins_later = self.start.is_some_and(|start| now < start);
        if begins_later || said.is_some_and(|said| !self.contains(said)) {
            return Standing::Outside;
        }
        match (self.end.filter(|end| *end < now), seen) {
            (None, _) => Standing::Good,
            (Some(_), Some(seen)) if self.contains(seen) => Standing::Seen(seen),
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
}

impl Standing {
    /// Whether the key is to be believed.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Self::Good | Self::Seen(_))
    }
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
    /// Logs that certificates are filed in, the present one first; lost ones stay as long as any receipt of theirs.
    pub logs: Vec<TrustedLog>,
    /// The witnesses of the logs.
    pub quorum: Quorum,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    media_type: String,
    /// Who runs the logs that say nothing of it: independent when all of them are.
    operator: LogOperator,
    certificate_keys: Vec<WireSigner>,
    logs: Vec<WireLog>,
    #[serde(default)]
    witnesses: Vec<String>,
    #[serde(default)]
    quorum: usize,
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

    /// Who runs the logs: others only when all of them are run by others.
    #[must_use]
    pub fn operator(&self) -> LogOperator {
        let is_independent = self.logs.iter().all(|log| log.operator == LogOperator::Independent);
        if is_independent { LogOperator::Independent } else { LogOperator::SelfHosted }
    }

    /// The file.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let signers = self.signers.iter().map(|(key, window)| WireSigner {
            key_id: key.key_id().to_owned(),
            public_key: key.to_pem(),
            valid_for: *window,
        });
        let logs = self.logs.iter().map(|TrustedLog { key, window, operator }| WireLog {
            origin: key.origin().to_owned(),
            verifier_key: key.verifier_key(),
            log_id: key.log_id(),
            operator: Some(*operator),
            valid_for: *window,
        });
        let wire = Wire {
            media_type: TRUST_MEDIA_TYPE.to_owned(),
            operator: self.operator(),
            certificate_keys: signers.collect(),
            logs: logs.collect(),
            witnesses: self.quorum.witnesses().iter().map(WitnessKey::verifier_key).collect(),
            quorum: self.quorum.needed(),
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
            let key = PublicKey::from_pem(&wire.public_key).ok().filter(|key| key.key_id() == wire.key_id);
            Ok((key.ok_or(TrustError::Key("certificate"))?, wire.valid_for))
        };
        let log = |log: WireLog| {
            let key = CheckpointKey::parse(&log.verifier_key).ok();
            let key = key.filter(|key| key.log_id() == log.log_id && key.origin() == log.origin);
            let operator = log.operator.unwrap_or(wire.operator);
            Ok(TrustedLog { key: key.ok_or(TrustError::Key("log"))?, window: log.valid_for, operator })
        };
        let witnesses: Result<Vec<_>, _> = wire.witnesses.iter().map(|text| WitnessKey::parse(text)).collect();
        let trust = Self {
            signers: wire.certificate_keys.into_iter().map(signer).collect::<Result<_, TrustError>>()?,
            logs: wire.logs.into_iter().map(log).collect::<Result<_, TrustError>>()?,
            quorum: Quorum::new(witnesses?, wire.quorum)?,
        };
        if trust.signers.is_empty() || trust.logs.is_empty() { Err(TrustError::Empty) } else { Ok(trust) }
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

    /// A Sigstore `TrustedRoot`: the logs. Certificate keys have no place in it; they are given beside it, by their hint.
    #[must_use]
    pub fn trusted_root(&self) -> Value {
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let log = |TrustedLog { key, window, .. }: &TrustedLog| {
            // Readers of Sigstore take a missing start for an error, so an unknown one is the beginning of time.
            let mut valid_for = json!({"start": time(window.start.unwrap_or(DateTime::UNIX_EPOCH))});
            if let Some(end) = window.end {
                valid_for["end"] = time(end).into();
            }
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
        json!({
            "mediaType": TRUSTED_ROOT_MEDIA_TYPE,
            "tlogs": self.logs.iter().map(log).collect::<Vec<_>>(),
            "certificateAuthorities": [], "ctlogs": [], "timestampAuthorities": [],
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
        parts
    }
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
mod tests {
    use super::*;
    use crate::certify::tests::signer;
    use crate::log::checkpoint::CheckpointSigner;
    use crate::random::SystemRandom;

    fn trust() -> Trust {
        let pkcs8 = CheckpointSigner::make_pkcs8(&SystemRandom).unwrap();
        let log = CheckpointSigner::from_pkcs8("log.example/certificates", &pkcs8).unwrap().key().clone();
        let at = |text: &str| Some(text.parse().unwrap());
        let window = Window { start: at("2026-03-01T00:00:00Z"), end: at("2026-09-01T00:00:00Z") };
        Trust {
            signers: vec![(signer().public().clone(), window)],
            logs: vec![TrustedLog {
                key: log,
                window: Window { end: None, ..window },
                operator: LogOperator::SelfHosted,
            }],
            quorum: Quorum::new(vec![WitnessKey::new("w.example/1", [7; 32]).unwrap()], 1).unwrap(),
        }
    }

    #[test]
    fn a_trust_file_is_read_back_whole() {
        let trust = trust();
        assert_eq!(Trust::parse(trust.to_json().to_string().as_bytes()).unwrap(), trust);
        let (id, at) = (trust.signers[0].0.key_id(), |text: &str| text.parse::<DateTime<Utc>>().unwrap());
        let good = |id: &str, said: &str| trust.judge(id, at(said), None, at("2026-09-01T00:00:00Z")).is_good();
        assert!(good(id, "2026-09-01T00:00:00Z"));
        assert!(!good(id, "2026-09-01T00:00:01Z"));
        assert!(!good(id, "2026-02-28T23:59:59Z"));
        assert!(!good("other", "2026-05-01T00:00:00Z"));
    }

    #[test]
    fn a_key_that_has_ended_is_believed_only_with_a_witness_s_time() {
        let at = |text: &str| format!("{text}T00:00:00Z").parse::<DateTime<Utc>>().unwrap();
        let window = Window { start: Some(at("2026-03-01")), end: Some(at("2026-09-01")) };
        let judge = |said: Option<&str>, seen: Option<&str>, now| window.judge(said.map(at), seen.map(at), at(now));
        let (said, later) = (Some("2026-05-01"), "2027-01-01");
        assert_eq!(judge(said, None, "2026-08-01"), Standing::Good, "not ended yet");
        assert_eq!(judge(said, None, later), Standing::Unproved(at("2026-09-01")));
        assert_eq!(judge(said, Some("2026-05-02"), later), Standing::Seen(at("2026-05-02")));
        for outside in ["2026-09-02", "2026-02-01"] {
            assert_eq!(judge(said, Some(outside), later), Standing::Unproved(at("2026-09-01")), "seen {outside}");
            assert_eq!(judge(Some(outside), Some("2026-05-02"), later), Standing::Outside, "said {outside}");
        }
        // A log says no time of its own.
        assert_eq!(judge(None, None, later), Standing::Unproved(at("2026-09-01")));
        assert_eq!(judge(None, Some("2026-05-02"), later), Standing::Seen(at("2026-05-02")));
        assert_eq!(judge(None, None, "2026-02-01"), Standing::Outside, "not begun yet");
        assert_eq!(Window::default().judge(said.map(at), None, at(later)), Standing::Good);
    }

    #[test]
    fn a_misspelt_window_opens_nothing() {
        for place in ["/certificateKeys/0", "/logs/0", "/certificateKeys/0/validFor", "/logs/0/validFor"] {
            let mut file = trust().to_json();
            file.pointer_mut(place).unwrap()["validfor"] = json!({"end": "2026-01-01T00:00:00Z"});
            let refused = Trust::parse(file.to_string().as_bytes()).unwrap_err();
            assert!(matches!(refused, TrustError::Json(_)), "{place}: {refused}");
        }
    }

    #[test]
    fn each_log_says_who_runs_it() {
        let mut trust = trust();
        let own = trust.logs[0].clone();
        trust.logs[0].operator = LogOperator::Independent;
        assert_eq!(trust.to_json()["operator"], "independent");
        trust.logs.push(own);
        let mut file = trust.to_json();
        assert_eq!(file["operator"], "self-hosted", "one log of several");
        assert_eq!(Trust::parse(file.to_string().as_bytes()).unwrap(), trust);
        file["logs"][0].as_object_mut().unwrap().remove("operator");
        assert_eq!(Trust::parse(file.to_string().as_bytes()).unwrap().logs[0].operator, LogOperator::SelfHosted);
    }

    #[test]
    fn a_trust_file_whose_parts_do_not_fit_is_refused() {
        let good = trust().to_json();
        let altered = |pointer: &str, value: Value| {
            let mut file = good.clone();
            *file.pointer_mut(pointer).unwrap() = value;
            Trust::parse(file.to_string().as_bytes()).unwrap_err()
        };
        assert!(matches!(altered("/mediaType", "other".into()), TrustError::OtherKind));
        assert!(matches!(altered("/certificateKeys/0/keyId", "00".into()), TrustError::Key("certificate")));
        assert!(matches!(altered("/logs/0/origin", "other.example".into()), TrustError::Key("log")));
        assert!(matches!(altered("/logs/0/logId", STANDARD.encode([0; 32]).into()), TrustError::Key("log")));
        assert!(matches!(altered("/logs", json!([])), TrustError::Empty));
        assert!(matches!(altered("/quorum", 2.into()), TrustError::Witnesses(_)));
        assert!(matches!(altered("/witnesses/0", "x".into()), TrustError::Witnesses(_)));
        assert!(matches!(Trust::parse(b"[]").unwrap_err(), TrustError::OtherKind));
    }

    #[test]
    fn the_policy_names_logs_witnesses_and_quorum() {
        let trust = trust();
        let (log, witness) = (trust.logs[0].key.verifier_key(), trust.quorum.witnesses()[0].verifier_key());
        let expected = format!("log {log}\nwitness w1 {witness}\ngroup witnesses 1 w1\nquorum witnesses\n");
        assert_eq!(trust.tlog_policy(), expected);
        let alone = Trust { quorum: Quorum::default(), ..trust };
        assert_eq!(alone.tlog_policy(), format!("log {log}\nquorum none\n"));
    }
}
