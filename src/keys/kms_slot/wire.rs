//! What goes to AWS KMS and comes back, as JSON. Key material passes only through buffers that are wiped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::keys::Key;

/// A request or reply that may hold key material.
pub(super) type Secret = Zeroizing<Vec<u8>>;

/// The length of 32 bytes in base64.
const KEY_TEXT_BYTES: usize = 44;

/// The actions that the agent needs, as IAM policies name them.
pub const ACTIONS: [&str; 9] = [
    "kms:CreateKey",
    "kms:CreateAlias",
    "kms:ListAliases",
    "kms:ListKeys",
    "kms:ListResourceTags",
    "kms:DescribeKey",
    "kms:Encrypt",
    "kms:Decrypt",
    "kms:ScheduleKeyDeletion",
];

/// The states of a key that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It works.
    Enabled,
    /// Somebody switched it off.
    Disabled,
    /// It is deleted at this time, unless somebody calls that off.
    PendingDeletion(DateTime<Utc>),
    /// Any other.
    Other,
}

/// What the service says of a key.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyMetadata {
    /// Its id.
    pub key_id: String,
    /// Its full name, with account and region.
    pub arn: String,
    key_state: String,
    /// In seconds since 1970.
    #[serde(default)]
    deletion_date: Option<f64>,
    #[serde(default)]
    creation_date: Option<f64>,
    #[serde(default)]
    origin: String,
    #[serde(default)]
    key_manager: String,
    #[serde(default)]
    key_spec: String,
    #[serde(default)]
    key_usage: String,
    #[serde(default)]
    multi_region: bool,
    #[serde(default)]
    custom_key_store_id: Option<String>,
}

impl KeyMetadata {
    /// Its state.
    #[must_use]
    pub fn state(&self) -> KeyState {
        match (self.key_state.as_str(), self.deletion_date.and_then(time_of)) {
            ("Enabled", _) => KeyState::Enabled,
            ("Disabled", _) => KeyState::Disabled,
            ("PendingDeletion", Some(at)) => KeyState::PendingDeletion(at),
            _ => KeyState::Other,
        }
    }

    /// Whether its material was drawn in the service's own hardware, in one region, and can never be exported.
    #[must_use]
    pub fn never_exportable(&self) -> bool {
        self.origin == "AWS_KMS"
            && self.key_manager == "CUSTOMER"
            && !self.multi_region
            && self.custom_key_store_id.is_none()
    }

    /// When it was made.
    pub(super) fn made_at(&self) -> Option<DateTime<Utc>> {
        self.creation_date.and_then(time_of)
    }

    /// Whether its material was brought in by somebody, who may have kept it.
    pub(super) fn is_imported(&self) -> bool {
        self.origin == "EXTERNAL"
    }

    /// Whether it is one of several keys, in as many regions, with the same material.
    pub(super) fn is_multi_region(&self) -> bool {
        self.multi_region
    }

    /// Why no root may rest on it.
    pub(super) fn unfit(&self) -> Option<&'static str> {
        if self.key_spec != "SYMMETRIC_DEFAULT" || self.key_usage != "ENCRYPT_DECRYPT" {
            Some("it is not a symmetric key for encryption")
        } else if !self.never_exportable() {
            Some("its material may exist outside of the service's own hardware in this region")
        } else {
            None
        }
    }
}

/// The answer to an order of deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// When the key is deleted.
    pub at: DateTime<Utc>,
}

/// A name of a key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Alias {
    /// `alias/…`.
    pub alias_name: String,
    /// With account and region.
    pub alias_arn: String,
    /// The id of the key; absent of names that the service keeps for itself.
    #[serde(default)]
    pub target_key_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AliasPage {
    pub(super) aliases: Vec<Alias>,
    #[serde(default)]
    pub(super) truncated: bool,
    #[serde(default)]
    pub(super) next_marker: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct KeyPage {
    pub(super) keys: Vec<ListedKey>,
    #[serde(default)]
    pub(super) truncated: bool,
    #[serde(default)]
    pub(super) next_marker: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedKey {
    pub(super) key_id: String,
}

fn time_of(seconds: f64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis((seconds * 1000.0).round() as i64)
}

pub(super) fn alias_page(reply: &[u8]) -> Option<AliasPage> {
    serde_json::from_slice(reply).ok()
}

pub(super) fn key_page(reply: &[u8]) -> Option<KeyPage> {
    serde_json::from_slice(reply).ok()
}

pub(super) fn tags(reply: &[u8]) -> Option<Vec<(String, String)>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Tag {
        tag_key: String,
        tag_value: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Page {
        tags: Vec<Tag>,
    }
    let page: Page = serde_json::from_slice(reply).ok()?;
    Some(page.tags.into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect())
}

pub(super) fn metadata(reply: &[u8]) -> Option<KeyMetadata> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Reply {
        key_metadata: KeyMetadata,
    }
    serde_json::from_slice::<Reply>(reply).ok().map(|reply| reply.key_metadata)
}

pub(super) fn scheduled(reply: &[u8]) -> Option<Scheduled> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Reply {
        deletion_date: f64,
    }
    let reply: Reply = serde_json::from_slice(reply).ok()?;
    time_of(reply.deletion_date).map(|at| Scheduled { at })
}

/// The name of an error, without its name space.
pub(super) fn error_name(reply: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Reply {
        #[serde(rename = "__type")]
        name: String,
    }
    let reply: Reply = serde_json::from_slice(reply).ok()?;
    let name = reply.name.rsplit('#').next()?.split(':').next()?;
    Some(name.to_owned())
}

fn context_of(context: &[(&str, String)]) -> serde_json::Value {
    context
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Asks to wrap a root key.
pub(super) fn encrypt_body(key: &str, root: &Key, context: &[(&str, String)]) -> Secret {
    let mut text = Zeroizing::new([0; KEY_TEXT_BYTES]);
    // 32 bytes always fill 44 letters, so nothing is left out and nothing fails.
    let length = STANDARD.encode_slice(root.dangerous_bytes(), &mut text[..]).unwrap_or(0);
    let rest = serde_json::json!({"KeyId": key, "EncryptionContext": context_of(context)}).to_string();
    // All the room at once: growing would leave a copy of the key behind.
    let mut body = Zeroizing::new(Vec::with_capacity(rest.len() + 128));
    body.extend_from_slice(b"{\"Plaintext\":\"");
    body.extend_from_slice(&text[..length]);
    body.extend_from_slice(b"\",");
    body.extend_from_slice(&rest.as_bytes()[1..]);
    body
}

/// Asks to open a wrapped root key.
pub(super) fn decrypt_body(key: &str, wrapped: &str, context: &[(&str, String)]) -> Secret {
    json(&serde_json::json!({"KeyId": key, "CiphertextBlob": wrapped, "EncryptionContext": context_of(context)}))
}

/// Any other body.
pub(super) fn json(value: &serde_json::Value) -> Secret {
    Zeroizing::new(value.to_string().into_bytes())
}

/// The wrapped root out of a reply.
pub(super) fn wrapped_in(reply: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Reply {
        ciphertext_blob: String,
    }
    serde_json::from_slice::<Reply>(reply).ok().map(|reply| reply.ciphertext_blob)
}

/// The root key out of a reply. It is not copied to anything that is not wiped.
pub(super) fn root_in(reply: &[u8]) -> Option<Key> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Reply<'b> {
        plaintext: &'b str,
    }
    let found: Reply<'_> = serde_json::from_slice(reply).ok()?;
    // The decoder wants room for whole groups of three.
    let mut bytes = Zeroizing::new([0; 36]);
    let length = STANDARD.decode_slice(found.plaintext, &mut bytes[..]).ok()?;
    let key = bytes[..length].first_chunk::<32>().filter(|_| length == 32)?;
    Some(Key::dangerous_from_bytes(key))
}
