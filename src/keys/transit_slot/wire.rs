//! What goes to the key service and comes back, as bytes. Key material passes only through buffers that are wiped.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::keys::Key;

/// A request or reply that may hold key material.
pub(super) type Secret = Zeroizing<Vec<u8>>;

/// The length of 32 bytes in base64.
const KEY_TEXT_BYTES: usize = 44;

/// What the service tells about a key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "they are the service's own switches")]
pub(super) struct KeyState {
    /// Its type; `aes256-gcm96` is wanted.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The newest version.
    pub(super) latest_version: u64,
    /// The lowest version that was not trimmed; 0 before the first trim.
    pub(super) min_available_version: u64,
    /// The lowest version that decrypts. Can be set back.
    pub(super) min_decryption_version: u64,
    /// The lowest version that encrypts; 0 is the newest only.
    pub(super) min_encryption_version: u64,
    /// Whether the key can be exported. Once on, for ever on.
    pub(super) exportable: bool,
    /// Whether it can be backed up in clear. Once on, for ever on.
    pub(super) allow_plaintext_backup: bool,
    /// Whether it can be deleted.
    pub(super) deletion_allowed: bool,
    /// Whether each use derives a key of its own.
    #[serde(default)]
    pub(super) derived: bool,
    /// Whether it was brought in from outside, where a copy may be.
    #[serde(default)]
    pub(super) imported_key: bool,
    /// Whether it is deleted for now (`OpenBao`).
    #[serde(default)]
    pub(super) soft_deleted: bool,
    /// The versions that are there, with when they were made.
    #[serde(default)]
    pub(super) keys: BTreeMap<String, serde_json::Value>,
}

impl KeyState {
    /// The lowest version that can still be used, now or after a change of its configuration.
    pub(super) fn lowest(&self) -> u64 {
        self.min_available_version.max(1)
    }

    /// Why no new root may rest on the key.
    pub(super) fn unfit(&self) -> Option<&'static str> {
        if self.kind == "aes256-gcm96" { self.loose() } else { Some("its type is not aes256-gcm96") }
    }

    /// Why no certificate may rest on the key.
    pub(super) fn unfit_for_signing(&self) -> Option<&'static str> {
        if self.kind == "ecdsa-p256" { self.loose() } else { Some("its type is not ecdsa-p256") }
    }

    /// The public half of a version, in PEM.
    pub(super) fn public_key(&self, version: u64) -> Option<String> {
        self.keys.get(&version.to_string())?.get("public_key")?.as_str().map(str::to_owned)
    }

    /// What lets key material out, or the key go.
    fn loose(&self) -> Option<&'static str> {
        if self.derived {
            Some("it is a derived key")
        } else if self.imported_key {
            Some("it was imported, so a copy of it may exist outside of the service")
        } else if self.exportable {
            Some("it can be exported")
        } else if self.allow_plaintext_backup {
            Some("it can be backed up in clear")
        } else if self.deletion_allowed {
            Some("it can be deleted")
        } else if self.soft_deleted {
            Some("it is deleted for now")
        } else {
            None
        }
    }
}

/// A login's or renewal's answer.
#[derive(Deserialize)]
pub(super) struct Login<'b> {
    #[serde(borrow)]
    pub(super) auth: LoginAuth<'b>,
}

/// The token of a login. Not printable.
#[derive(Deserialize)]
pub(super) struct LoginAuth<'b> {
    pub(super) client_token: &'b str,
    /// In seconds; 0 is without end.
    pub(super) lease_duration: u64,
    pub(super) renewable: bool,
}

/// What a token says of itself.
#[derive(Deserialize)]
pub(super) struct TokenState {
    /// In seconds; 0 is without end.
    pub(super) ttl: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

/// The `data` of a reply.
pub(super) fn data<T: for<'d> Deserialize<'d>>(reply: &[u8]) -> Option<T> {
    serde_json::from_slice::<Data<T>>(reply).ok().map(|reply| reply.data)
}

/// Whether an error reply says that the service is sealed.
pub(super) fn says_sealed(reply: &[u8]) -> bool {
    says(reply, "sealed")
}

/// Whether an error reply says that nothing is mounted at the path: only without it does 404 mean that a key is absent.
pub(super) fn says_no_route(reply: &[u8]) -> bool {
    says(reply, "no handler for route")
}

fn says(reply: &[u8], words: &str) -> bool {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    let errors: Option<Errors> = serde_json::from_slice(reply).ok();
    errors.is_some_and(|found| found.errors.iter().any(|error| error.to_ascii_lowercase().contains(words)))
}

/// Asks to wrap a root key.
pub(super) fn encrypt_body(root: &Key, associated_data: &[u8], version: u64) -> Secret {
    let mut text = Zeroizing::new([0; KEY_TEXT_BYTES]);
    // 32 bytes always fill 44 letters, so nothing is left out and nothing fails.
    let length = STANDARD.encode_slice(root.dangerous_bytes(), &mut text[..]).unwrap_or(0);
    // All the room at once: growing would leave a copy of the key behind.
    let mut body = Zeroizing::new(Vec::with_capacity(512));
    body.extend_from_slice(b"{\"plaintext\":\"");
    body.extend_from_slice(&text[..length]);
    body.extend_from_slice(b"\",\"associated_data\":\"");
    body.extend_from_slice(STANDARD.encode(associated_data).as_bytes());
    body.extend_from_slice(b"\",\"key_version\":");
    body.extend_from_slice(version.to_string().as_bytes());
    body.push(b'}');
    body
}

/// Asks to open a wrapped root key.
pub(super) fn decrypt_body(wrapped: &str, associated_data: &[u8]) -> Secret {
    let associated_data = STANDARD.encode(associated_data);
    json(&serde_json::json!({"ciphertext": wrapped, "associated_data": associated_data}))
}

/// Asks for a signature over a SHA-256, in ASN.1 DER.
pub(super) fn sign_body(digest: &[u8], version: u64) -> Secret {
    json(&serde_json::json!({
        "input": STANDARD.encode(digest), "prehashed": true, "hash_algorithm": "sha2-256", "marshaling_algorithm": "asn1",
        "key_version": version,
    }))
}

/// The signature out of a reply, which must be by this version.
pub(super) fn signature_in(reply: &[u8], version: u64) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Signature {
        signature: String,
    }
    let text = data::<Signature>(reply)?.signature;
    let (prefix, encoded) = text.rsplit_once(':')?;
    STANDARD.decode(encoded).ok().filter(|_| is_of_version(&text, version) && prefix.matches(':').count() == 1)
}

/// Asks for a token by role. The text goes straight into a buffer that is wiped.
pub(super) fn login_body(role_id: &str, secret_id: &str) -> Secret {
    #[derive(Serialize)]
    struct Role<'r> {
        role_id: &'r str,
        secret_id: &'r str,
    }
    let mut body = Zeroizing::new(Vec::with_capacity(64 + 2 * (role_id.len() + secret_id.len())));
    // Two texts always become JSON; a body that is cut short would only be refused.
    let _ = serde_json::to_writer(&mut *body, &Role { role_id, secret_id });
    body
}

/// Any other body.
pub(super) fn json(value: &serde_json::Value) -> Secret {
    Zeroizing::new(value.to_string().into_bytes())
}

/// The wrapped root out of a reply.
pub(super) fn wrapped_in(reply: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Ciphertext {
        ciphertext: String,
    }
    data::<Ciphertext>(reply).map(|found| found.ciphertext)
}

/// The root key out of a reply. It is not copied to anything that is not wiped.
pub(super) fn root_in(reply: &[u8]) -> Option<Key> {
    #[derive(Deserialize)]
    struct Plaintext<'b> {
        plaintext: &'b str,
    }
    #[derive(Deserialize)]
    struct Reply<'b> {
        #[serde(borrow)]
        data: Plaintext<'b>,
    }
    let found: Reply<'_> = serde_json::from_slice(reply).ok()?;
    // The decoder wants room for whole groups of three.
    let mut bytes = Zeroizing::new([0; 36]);
    let length = STANDARD.decode_slice(found.data.plaintext, &mut bytes[..]).ok()?;
    let key = bytes[..length].first_chunk::<32>().filter(|_| length == 32)?;
    Some(Key::dangerous_from_bytes(key))
}

/// Whether a wrapped root says that this version wrapped it: `vault:v3:…`.
pub(super) fn is_of_version(wrapped: &str, version: u64) -> bool {
    wrapped.split(':').nth(1) == Some(format!("v{version}").as_str())
}
