//! `[root]`: the slot that holds the root key.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Place;
use super::section::Reading;

/// `[root]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// A sealed local file (class D): a lost host is a lost set of backups, and the operator has said so.
    File {
        /// The file.
        path: PathBuf,
    },
}

/// Kinds of root slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RootKind {
    /// A sealed local file.
    File,
    /// OpenBao or Vault transit; not in this version.
    Transit,
    /// A PKCS#11 token; not in this version.
    Pkcs11,
    /// AWS KMS; not in this version.
    AwsKms,
}

/// Where the root key lies.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoot {
    /// Kind of slot; this version knows `file`.
    kind: RootKind,
    /// The slot's file.
    #[serde(default)]
    path: Option<PathBuf>,
    /// Must be true for a file slot: whoever loses this host loses every backup with it, because a copy of the file
    /// would bring destroyed keys back.
    #[serde(default)]
    accept_host_loss: bool,
}

impl RawRoot {
    pub(super) fn check(&self, reading: &mut Reading<'_>) -> Option<Root> {
        let place = Place::of("root");
        if self.kind != RootKind::File {
            let what = "this kind of root slot is not in this version";
            reading.fault(&place.key("kind"), what, "write `kind = \"file\"`");
            return None;
        }
        if !self.accept_host_loss {
            let at = if reading.document().has_key(&place.key("accept_host_loss")) {
                place.key("accept_host_loss")
            } else {
                place.clone()
            };
            let what =
                "a root key in a local file has no useful copy: if this host is lost, every backup is lost with it";
            reading.fault(&at, what, "write `accept_host_loss = true` if you accept that");
        }
        let Some(path) = &self.path else {
            reading.fault(&place, "the key `path` is missing", "add `path = \"root.slot\"` here");
            return None;
        };
        Some(Root::File { path: reading.path(path) })
    }
}
