//! Secrets: where they may come from, and that they are never shown.
//!
//! A secret value may be `${VARIABLE}`, `${file:PATH}`, `${credential:NAME}`, or, as a whole, `file:PATH` or
//! `credential:NAME` (a file in the folder that systemd names in `$CREDENTIALS_DIRECTORY`). What is put into the user
//! part of an address is percent-encoded, so a password may hold any character. A file that everybody on the host can
//! read is refused unless it is named in `allow_readable_secrets`.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::policy::registry::SecretText;

/// Shown in place of a secret.
pub const MASK: &str = "***";

/// Larger secret files are refused: they are not what was meant. In bytes.
const SECRET_FILE_LIMIT: u64 = 65_536;

/// A password-like value as the file has it.
#[derive(Clone, Deserialize, JsonSchema, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub(super) struct SecretValue(String);

/// An address that may hold a password, as the file has it.
#[derive(Clone, Deserialize, JsonSchema, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub(super) struct SecretUrl(String);

impl SecretValue {
    /// The reference, or the mask for a literal secret.
    pub(super) fn masked(&self) -> &str {
        if is_reference(&self.0) { &self.0 } else { MASK }
    }

    /// Whether the configuration file itself holds the secret.
    pub(super) fn is_literal(&self) -> bool {
        !is_reference(&self.0)
    }

    /// The secret itself.
    pub(super) fn resolve(&self, resolver: &Resolver<'_>) -> Result<SecretText, SecretError> {
        resolver.whole(&self.0).map(SecretText::new)
    }
}

impl SecretUrl {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The address with literal passwords masked and references kept.
    pub(super) fn masked(&self) -> Cow<'_, str> {
        mask_url(&self.0)
    }

    /// Whether the configuration file itself holds a password.
    pub(super) fn is_literal(&self) -> bool {
        self.masked() != self.0
    }

    /// The address with its references filled in.
    pub(super) fn resolve(&self, resolver: &Resolver<'_>) -> Result<SecretText, SecretError> {
        resolver.url(&self.0).map(SecretText::new)
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.masked())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Serialize for SecretValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.masked())
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.masked())
    }
}

/// A secret that could not be had. Retrying does not help before somebody acts.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The variable is unset, empty or not text.
    #[error("the environment variable `{0}` is not set, or empty")]
    Variable(String),
    /// `${` without `}`.
    #[error("`${{` without a closing `}}`")]
    Unclosed,
    /// No name between the braces.
    #[error("a reference without a name")]
    NoName,
    /// The file cannot be read.
    #[error("cannot read the secret file `{}`: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Everybody on the host can read the file.
    #[error("the secret file `{}` can be read by everybody on this host", .0.display())]
    Readable(PathBuf),
    /// A systemd credential without systemd's folder.
    #[error("there is no folder of credentials: `$CREDENTIALS_DIRECTORY` is not set")]
    NoCredentials,
    /// A credential's name that is a path.
    #[error("a credential's name must not contain `/`")]
    CredentialName,
}

impl SecretError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Variable(name) => format!("set `{name}` for the process, or use `file:PATH` or `credential:NAME`"),
            Self::Unclosed => "close the reference, or put the secret into a file: `file:PATH`".to_owned(),
            Self::NoName | Self::CredentialName => "write `${VARIABLE}`, `file:PATH` or `credential:NAME`".to_owned(),
            Self::File { .. } => "create the file, readable by the agent's user only".to_owned(),
            Self::Readable(path) => format!(
                "chmod o-r '{}', or name it in `allow_readable_secrets` of [agent] if that is meant",
                path.display()
            ),
            Self::NoCredentials => "start the agent by systemd with `LoadCredential=`, or use `file:PATH`".to_owned(),
        }
    }
}

/// Finds what references stand for.
pub(super) struct Resolver<'a> {
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    pub(super) base_dir: &'a Path,
    pub(super) allow_readable: &'a [PathBuf],
}

impl Resolver<'_> {
    fn whole(&self, text: &str) -> Result<String, SecretError> {
        if let Some(path) = text.strip_prefix("file:") {
            return self.file(path);
        }
        if let Some(name) = text.strip_prefix("credential:") {
            return self.credential(name);
        }
        self.fill(text, 0)
    }

    fn url(&self, text: &str) -> Result<String, SecretError> {
        if text.starts_with("file:") || text.starts_with("credential:") {
            return self.whole(text);
        }
        let user_part_end = text.find("://").and_then(|_| text.rfind('@')).unwrap_or(0);
        self.fill(text, user_part_end)
    }

    /// Fills references in; those before `encode_until` are percent-encoded.
    fn fill(&self, text: &str, encode_until: usize) -> Result<String, SecretError> {
        let mut filled = String::new();
        let mut at = 0;
        while let Some(found) = text[at..].find("${") {
            let start = at + found;
            let end = text[start..].find('}').ok_or(SecretError::Unclosed)? + start;
            filled.push_str(&text[at..start]);
            let value = Zeroizing::new(self.reference(&text[start + 2..end])?);
            if start < encode_until {
                filled.push_str(&Zeroizing::new(percent_encode(&value)));
            } else {
                filled.push_str(&value);
            }
            at = end + 1;
        }
        filled.push_str(&text[at..]);
        Ok(filled)
    }

    fn reference(&self, reference: &str) -> Result<String, SecretError> {
        if let Some(path) = reference.strip_prefix("file:") {
            return self.file(path);
        }
        if let Some(name) = reference.strip_prefix("credential:") {
            return self.credential(name);
        }
        if reference.is_empty() {
            return Err(SecretError::NoName);
        }
        let value = (self.variable)(reference).filter(|value| !value.is_empty());
        value.ok_or_else(|| SecretError::Variable(reference.to_owned()))
    }

    fn credential(&self, name: &str) -> Result<String, SecretError> {
        if name.is_empty() {
            return Err(SecretError::NoName);
        }
        if name.contains('/') || name == ".." {
            return Err(SecretError::CredentialName);
        }
        let folder = (self.variable)("CREDENTIALS_DIRECTORY").ok_or(SecretError::NoCredentials)?;
        self.file(&format!("{folder}/{name}"))
    }

    fn file(&self, path: &str) -> Result<String, SecretError> {
        if path.is_empty() {
            return Err(SecretError::NoName);
        }
        let path = self.base_dir.join(path);
        let failed = |why: String| SecretError::File { path: path.clone(), why };
        let mut file = fs::File::open(&path).map_err(|error| failed(error.to_string()))?;
        // The rights are read from the open file, so nobody can swap it in between.
        let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
        if !metadata.is_file() || metadata.len() > SECRET_FILE_LIMIT {
            return Err(failed(format!("it is not a plain file of at most {SECRET_FILE_LIMIT} bytes")));
        }
        if is_world_readable(&metadata) && !self.allow_readable.contains(&path) {
            return Err(SecretError::Readable(path));
        }
        let mut content = String::new();
        file.read_to_string(&mut content).map_err(|error| failed(error.kind().to_string()))?;
        let length = content.trim_end_matches(['\n', '\r']).len();
        content.truncate(length);
        if content.is_empty() { Err(failed("it is empty".to_owned())) } else { Ok(content) }
    }
}

/// Reads a file with one secret, as `file:PATH` does.
///
/// # Errors
/// When it cannot be read, or everybody on this host can read it.
pub fn secret_file(path: &Path) -> Result<SecretText, SecretError> {
    let resolver = Resolver { variable: &|_| None, base_dir: Path::new(""), allow_readable: &[] };
    let name = path.to_str().ok_or(SecretError::NoName)?;
    resolver.file(name).map(SecretText::new)
}

/// Whether users who are neither owner nor in the group may read the file.
pub(super) fn is_world_readable(metadata: &fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o004 != 0
}

fn is_reference(text: &str) -> bool {
    if text.starts_with("file:") || text.starts_with("credential:") {
        return true;
    }
    // Nothing but references: `${A}` or `${A}${B}`.
    let mut rest = text;
    while let Some(inner) = rest.strip_prefix("${") {
        let Some((_, after)) = inner.split_once('}') else { return false };
        rest = after;
    }
    rest.is_empty() && !text.is_empty()
}

fn mask_url(text: &str) -> Cow<'_, str> {
    if is_reference(text) {
        return Cow::Borrowed(text);
    }
    let Some(scheme_end) = text.find(':') else { return Cow::Borrowed(MASK) };
    let authority = if text[scheme_end..].starts_with("://") { scheme_end + 3 } else { scheme_end + 1 };
    let mut masked = text[..authority].to_owned();
    // The last `@` ends the user part even if a raw password contains one: rather mask too much.
    let rest = match text[authority..].rfind('@') {
        Some(at) => {
            let (user, password) =
                text[authority..authority + at].split_once(':').unwrap_or((&text[authority..authority + at], ""));
            masked.push_str(user);
            if !password.is_empty() {
                masked.push(':');
                masked.push_str(if is_reference(password) { password } else { MASK });
            }
            &text[authority + at..]
        }
        None => &text[authority..],
    };
    let Some((path, query)) = rest.split_once('?') else {
        masked.push_str(rest);
        return Cow::Owned(masked);
    };
    masked.push_str(path);
    for (number, pair) in query.split('&').enumerate() {
        masked.push(if number == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((key, value)) if is_secret_parameter(key) && !is_reference(value) => {
                masked.push_str(key);
                masked.push('=');
                masked.push_str(MASK);
            }
            _ => masked.push_str(pair),
        }
    }
    Cow::Owned(masked)
}

fn is_secret_parameter(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["pass", "secret", "token", "pwd"].iter().any(|sign| key.contains(sign))
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex::encode_upper([byte]));
        }
    }
    encoded
}
