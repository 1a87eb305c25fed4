//! Applications' keys in a transit engine: looked at, and deleted when their time is over. Class B, as the root slot is.
//!
//! A key is destroyed by `deletion_allowed = true`, `DELETE`, and a look that finds it absent. Trimming would destroy the same
//! versions and leave evidence in the service, but also a living key of the same name, which may identify a person, and under
//! which a forgotten application would seal on; and an imported key cannot be trimmed at all. `deletion_allowed` is off until the
//! very moment, and is turned off again when a destruction is given up, so that nobody else deletes by mistake.
//!
//! The service answers a key that is not there, and a mount that is not there, with the same status; only the first counts as
//! absent. `exportable` and `allow_plaintext_backup` are read right before the deletion: they only go one way.

use async_trait::async_trait;

use super::client::TransitClient;
use super::wire::KeyState;
use super::{TransitSetup, TransitSlot};
use crate::keys::outside::{KeyFacts, OutsideDone, OutsideKeys, OutsideStep};
use crate::keys::slot::{ClaimSentence, Residual, Shortcoming, SlotClaim, SlotClass, SlotError, SlotKind};
use crate::policy::registry::SecretText;

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// What stands for a key's name in errors.
const NAMELESS: &str = "KEY";

/// The keys of one mount.
pub struct TransitKeys {
    /// How the mount is reached; its `key` and `folder` are not used.
    setup: TransitSetup,
}

impl TransitKeys {
    /// The keys of a mount. The service is not asked yet.
    ///
    /// # Errors
    /// When its address or its certificate authorities are of no use.
    pub fn new(setup: TransitSetup) -> Result<Self> {
        let keys = Self { setup: TransitSetup { key: NAMELESS.to_owned(), ..setup } };
        keys.client(&SecretText::new(NAMELESS.to_owned()))?;
        Ok(keys)
    }

    fn client(&self, key: &SecretText) -> Result<TransitClient> {
        let setup = TransitSetup { key: key.dangerous_text().to_owned(), ..self.setup.clone() };
        TransitClient::new(&setup).map_err(|error| self.nameless(error, key))
    }

    /// An error of the client without the key's name.
    fn nameless(&self, error: SlotError, key: &SecretText) -> SlotError {
        let place = self.setup.place();
        let without = |path: String| without_name(&path, key);
        match error {
            SlotError::Denied { path, capability, .. } => SlotError::Denied { place, path: without(path), capability },
            SlotError::Sealed { .. } => SlotError::Sealed { place },
            SlotError::NotAuthenticated { what, .. } => SlotError::NotAuthenticated { place, what },
            // Their own words are about root keys.
            SlotError::Unfit { what, .. } | SlotError::Setup { what, .. } => {
                SlotError::Unavailable { place, what: what.to_owned() }
            }
            SlotError::Unavailable { what, .. } => SlotError::Unavailable { place, what: without(what) },
            other => other,
        }
    }

    async fn state(&self, client: &TransitClient, key: &SecretText) -> Result<Option<KeyState>> {
        client.key_state().await.map_err(|error| self.nameless(error, key))
    }
}

/// A path of the service with the name of the key taken out of its segments.
fn without_name(path: &str, key: &SecretText) -> String {
    let segment = |part| if part == key.dangerous_text() { NAMELESS } else { part };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

fn facts(state: KeyState) -> KeyFacts {
    let lowest_version = state.lowest();
    let made = |(version, value): (String, serde_json::Value)| {
        // A number of seconds for symmetric keys, an object with `creation_time` for others.
        let at = match value.get("creation_time").unwrap_or(&value) {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some((version.parse().ok()?, at))
    };
    KeyFacts {
        latest_version: state.latest_version,
        lowest_version,
        made: state.keys.into_iter().filter_map(made).collect(),
        exportable: state.exportable,
        plaintext_backup: state.allow_plaintext_backup,
        imported: state.imported_key,
        place: None,
        deleted_at: None,
    }
}

#[async_trait]
impl OutsideKeys for TransitKeys {
    fn kind(&self) -> SlotKind {
        SlotKind::Transit
    }

    fn claim(&self) -> SlotClaim {
        SlotClaim {
            kind: SlotKind::Transit,
            class: SlotClass::B,
            sentence: ClaimSentence::DestroyedInLiveService,
            residuals: vec![Residual::ServiceBackups, Residual::ServiceLog, Residual::MemoryCapture],
            residual_days: Some(self.setup.snapshot_retention_days),
        }
    }

    async fn look(&self, key: &SecretText, _known: Option<&KeyFacts>) -> Result<Option<KeyFacts>> {
        let client = self.client(key)?;
        Ok(self.state(&client, key).await?.map(facts))
    }

    async fn destroy(&self, key: &SecretText) -> Result<OutsideDone> {
        let client = self.client(key)?;
        let Some(state) = self.state(&client, key).await? else { return Ok(OutsideDone::default()) };
        let mut steps = Vec::new();
        let work = async {
            if !state.deletion_allowed {
                client.allow_deletion(true).await?;
                steps.push(OutsideStep::DeletionAllowed);
            }
            client.delete_key().await?;
            steps.push(OutsideStep::KeyDeleted);
            Ok::<_, SlotError>(())
        };
        work.await.map_err(|error| self.nameless(error, key))?;
        Ok(OutsideDone { steps, deleted_at: None })
    }

    async fn spare(&self, key: &SecretText) -> Result<()> {
        let client = self.client(key)?;
        match self.state(&client, key).await? {
            Some(state) if state.deletion_allowed => {
                client.allow_deletion(false).await.map_err(|error| self.nameless(error, key))
            }
            _ => Ok(()),
        }
    }

    fn is_sealed(&self, value: &[u8]) -> bool {
        // `vault:v3:…`, in OpenBao as in Vault.
        let rest = value.strip_prefix(b"vault:v".as_slice()).unwrap_or_default();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        digits > 0 && rest.get(digits) == Some(&b':')
    }

    async fn shortcomings(&self, key: &SecretText) -> Result<Vec<Shortcoming>> {
        let client = self.client(key)?;
        let found = TransitSlot::rights_of(&client, &rights_on(&client)).await;
        let mut found = found.map_err(|error| self.nameless(error, key))?;
        for shortcoming in &mut found {
            if let Shortcoming::MissingRight { path, .. } | Shortcoming::ExcessRight { path, .. } = shortcoming {
                *path = without_name(path, key);
            }
        }
        Ok(found)
    }
}

/// The rights that are needed, and those that nothing needs: what the agent destroys it must not be able to open.
fn rights_on(client: &TransitClient) -> super::Rights {
    let key = client.key_path("");
    let (mount, name) = key.split_once("/keys/").unwrap_or_default();
    super::Rights {
        needed: vec![(key.clone(), "read"), (key.clone(), "delete"), (format!("{key}/config"), "update")],
        unwanted: vec![
            (format!("{mount}/decrypt/{name}"), vec!["create", "update"]),
            (format!("{mount}/export/encryption-key/{name}"), vec!["read"]),
            (format!("{mount}/backup/{name}"), vec!["read"]),
            (format!("{mount}/restore/{name}"), vec!["create", "update"]),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::transit_slot::{TransitAuth, wire};

    fn keys() -> TransitKeys {
        TransitKeys::new(TransitSetup {
            address: "https://bao.example.com".to_owned(),
            mount: "fields".to_owned(),
            key: String::new(),
            namespace: None,
            ca_pem: None,
            auth: TransitAuth::Token(SecretText::new("t".to_owned())),
            folder: std::path::PathBuf::new(),
            snapshot_retention_days: 7,
            timeout: None,
        })
        .unwrap()
    }

    #[test]
    fn a_name_never_stands_in_an_error() {
        let (keys, name) = (keys(), SecretText::new("li-lei".to_owned()));
        let errors = [
            SlotError::Denied {
                place: "li-lei".to_owned(),
                path: "fields/keys/li-lei/config".to_owned(),
                capability: "update",
            },
            SlotError::Unavailable { place: "li-lei".to_owned(), what: "it is down".to_owned() },
            SlotError::Sealed { place: "li-lei".to_owned() },
            SlotError::Unfit { place: "li-lei".to_owned(), what: "there is no such mount" },
            SlotError::NotAuthenticated { place: "li-lei".to_owned(), what: "x" },
            SlotError::Setup { place: "li-lei".to_owned(), what: "x" },
        ];
        for error in errors {
            let told = keys.nameless(error, &name);
            assert!(!format!("{told} {told:?}").contains("li-lei"), "{told}");
        }
        assert_eq!(without_name("fields/keys/li-lei/config", &name), "fields/keys/KEY/config");
    }

    #[test]
    fn facts_are_read_from_keys_of_any_type() {
        let text = |keys: &str| {
            format!(
                "{{\"data\":{{\"type\":\"x\",\"latest_version\":2,\"min_available_version\":0,\
                 \"min_decryption_version\":1,\"min_encryption_version\":0,\"exportable\":false,\
                 \"allow_plaintext_backup\":true,\"deletion_allowed\":false,\"imported_key\":true,\"keys\":{keys}}}}}"
            )
        };
        let read = |keys: &str| facts(wire::data(text(keys).as_bytes()).unwrap());
        let symmetric = read("{\"1\":1795328231,\"2\":1795328299}");
        assert_eq!(symmetric.made.get(&2).map(String::as_str), Some("1795328299"));
        assert!(symmetric.plaintext_backup && symmetric.imported && !symmetric.exportable);
        let other = read("{\"2\":{\"creation_time\":\"2026-11-22T06:17:12Z\",\"public_key\":\"p\"}}");
        assert_eq!(other.made.get(&2).map(String::as_str), Some("2026-11-22T06:17:12Z"));
    }

    #[test]
    fn a_sealed_value_is_told_from_one_in_clear() {
        let keys = keys();
        assert!(keys.is_sealed(b"vault:v12:AAAA"));
        for clear in ["vault:v:AAAA", "vault:v12", "Li Lei", "", "xvault:v1:A"] {
            assert!(!keys.is_sealed(clear.as_bytes()), "{clear}");
        }
    }
}
