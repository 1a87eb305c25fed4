//! The JSON shapes of receipts: Rekor v2 `TransparencyLogEntry` in protobuf's JSON mapping.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes as base64 with padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|_| de::Error::custom("not base64"))
    }
}

/// A 64-bit number: written as a string, read as a string or a number (protobuf's JSON mapping).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Int64(pub u64);

impl Serialize for Int64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Int64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => text.parse().map(Self).map_err(|_| de::Error::custom("not a 64-bit number")),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub log_index: Int64,
    pub log_id: LogId,
    pub kind_version: KindVersion,
    /// Always 0 in Rekor v2: a log does not prove time.
    #[serde(default = "zero")]
    pub integrated_time: Int64,
    pub inclusion_proof: InclusionProof,
    pub canonicalized_body: Base64,
}

fn zero() -> Int64 {
    Int64(0)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogId {
    pub key_id: Base64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct KindVersion {
    pub kind: String,
    pub version: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InclusionProof {
    pub log_index: Int64,
    pub root_hash: Base64,
    pub tree_size: Int64,
    /// Left out by protobuf's mapping when empty.
    #[serde(default)]
    pub hashes: Vec<Base64>,
    pub checkpoint: Note,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Note {
    pub envelope: String,
}
