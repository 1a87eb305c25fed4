//! The states of keys as AWS KMS documents them ("Key states of AWS KMS keys", "Deleting AWS KMS keys", "Eventual consistency").
//!
//! * A key is Enabled, Disabled, PendingDeletion, and in the end not known any more; its names go with it.
//! * Only an enabled key encrypts and decrypts; the encryption context must be the same.
//! * ScheduleKeyDeletion takes 7 to 30 days, and is refused for a key that is pending already. CancelKeyDeletion leaves it disabled.
//! * A read may show the state of before: `stale` reads of a key after each change do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use wangchuan::clock::Clock;

/// An error of the service, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Enabled,
    Disabled,
    PendingDeletion(DateTime<Utc>),
    Deleted,
}

struct StoredKey {
    id: String,
    material: [u8; 32],
    tags: Value,
    state: State,
    /// The state of before, and how many reads still see it; `None` inside: it was not there.
    before: Option<(Option<State>, u32)>,
    aliases: Vec<String>,
    made_at: DateTime<Utc>,
    /// What is shown of it otherwise than of a plain key.
    disguise: Option<(&'static str, Value)>,
}

/// What ciphertexts begin with, as those that AWS returns do.
const HEADER: [u8; 5] = [1, 2, 2, 0, 0x78];

/// The machine.
pub struct KmsMachine {
    pub clock: Arc<dyn Clock>,
    /// How many reads of a key see its old state after a change.
    pub stale: u32,
    /// Actions that policies deny.
    pub denied: Vec<&'static str>,
    /// Errors to answer with, once each, in order.
    pub troubles: Vec<Refused>,
    /// How much later than promised keys are deleted.
    pub lateness: TimeDelta,
    /// Calls by action.
    pub calls: HashMap<String, u32>,
    /// The account that answers.
    pub account: String,
    region: String,
    keys: Vec<StoredKey>,
    sealed: u64,
}

impl KmsMachine {
    pub fn new(clock: Arc<dyn Clock>, region: &str) -> Self {
        Self {
            clock,
            stale: 0,
            denied: Vec::new(),
            troubles: Vec::new(),
            lateness: TimeDelta::zero(),
            calls: HashMap::new(),
            account: "111122223333".to_owned(),
            region: region.to_owned(),
            keys: Vec::new(),
            sealed: 0,
        }
    }

    /// How many keys were ever made.
    pub fn made(&self) -> usize {
        self.keys.len()
    }

    pub fn state_of(&self, number: usize) -> String {
        match self.keys[number].state {
            State::Enabled => "Enabled",
            State::Disabled => "Disabled",
            State::PendingDeletion(_) => "PendingDeletion",
            State::Deleted => "Deleted",
        }
        .to_owned()
    }

    pub fn id_of(&self, number: usize) -> String {
        self.keys[number].id.clone()
    }

    /// Forgets the names of a key, as if a crash had come before it got one.
    pub fn unname(&mut self, number: usize) {
        self.keys[number].aliases.clear();
    }

    /// Shows a key as one of another kind.
    pub fn disguise(&mut self, number: usize, field: &'static str, value: Value) {
        self.keys[number].disguise = Some((field, value));
    }

    /// What an application does: a new key with a tag that lets the agent destroy it. Its number.
    pub fn make_for_application(&mut self) -> usize {
        let asked = json!({
            "Origin": "AWS_KMS", "MultiRegion": false, "KeySpec": "SYMMETRIC_DEFAULT",
            "Tags": [{"TagKey": "wangchuan-may-destroy", "TagValue": "yes"}],
        });
        self.try_administer("CreateKey", &asked).unwrap();
        self.keys.len() - 1
    }

    /// What an administrator does, who may do anything.
    pub fn administer(&mut self, action: &str, number: usize) {
        let id = self.id_of(number);
        self.try_administer(action, &json!({"KeyId": id, "PendingWindowInDays": 30})).unwrap();
    }

    pub fn try_administer(&mut self, action: &str, asked: &Value) -> Result<Value, Refused> {
        let denied = std::mem::take(&mut self.denied);
        let done = self.call(action, asked);
        self.denied = denied;
        done
    }

    /// One call of the protocol.
    pub fn call(&mut self, action: &str, asked: &Value) -> Result<Value, Refused> {
        self.delete_what_is_due();
        *self.calls.entry(action.to_owned()).or_default() += 1;
        if self.denied.contains(&action) {
            return Err(Refused("AccessDeniedException"));
        }
        if !self.troubles.is_empty() {
            return Err(self.troubles.remove(0));
        }
        match action {
            "CreateKey" => self.create_key(asked),
            "CreateAlias" => self.create_alias(asked),
            "ListAliases" => Ok(self.list_aliases()),
            "ListKeys" => Ok(self.list_keys()),
            "ListResourceTags" => {
                let key = self.seen(asked)?.0;
                Ok(json!({"Tags": self.keys[key].tags, "Truncated": false}))
            }
            "DescribeKey" => {
                let (key, state) = self.seen(asked)?;
                Ok(json!({"KeyMetadata": self.metadata(key, state)}))
            }
            "Encrypt" => self.encrypt(asked),
            "Decrypt" => self.decrypt(asked),
            "ScheduleKeyDeletion" => self.schedule(asked),
            "CancelKeyDeletion" => self.change(asked, |state| match state {
                State::PendingDeletion(_) => Ok(State::Disabled),
                _ => Err(Refused("KMSInvalidStateException")),
            }),
            "EnableKey" | "DisableKey" => self.change(asked, |state| match state {
                State::PendingDeletion(_) => Err(Refused("KMSInvalidStateException")),
                _ if action == "EnableKey" => Ok(State::Enabled),
                _ => Ok(State::Disabled),
            }),
            _ => Err(Refused("UnknownOperationException")),
        }
    }

    fn delete_what_is_due(&mut self) {
        let now = self.clock.now();
        for key in &mut self.keys {
            if let State::PendingDeletion(at) = key.state
                && at + self.lateness <= now
            {
                key.state = State::Deleted;
                key.before = None;
                key.material = [0; 32];
                key.aliases.clear();
            }
        }
    }

    fn arn(&self, name: &str) -> String {
        format!("arn:aws:kms:{}:{}:{name}", self.region, self.account)
    }

    fn create_key(&mut self, asked: &Value) -> Result<Value, Refused> {
        let fits =
            asked["Origin"] == "AWS_KMS" && asked["MultiRegion"] == false && asked["KeySpec"] == "SYMMETRIC_DEFAULT";
        if !fits {
            return Err(Refused("UnsupportedOperationException"));
        }
        let number = self.keys.len();
        let mut material = [0x5a; 32];
        material[..8].copy_from_slice(&(number as u64).to_be_bytes());
        self.keys.push(StoredKey {
            id: format!("00000000-0000-4000-8000-{number:012}"),
            material,
            tags: asked["Tags"].clone(),
            state: State::Enabled,
            before: (self.stale > 0).then_some((None, self.stale)),
            aliases: Vec::new(),
            made_at: self.clock.now(),
            disguise: None,
        });
        Ok(json!({"KeyMetadata": self.metadata(number, State::Enabled)}))
    }

    fn metadata(&self, number: usize, state: State) -> Value {
        let key = &self.keys[number];
        let mut shown = json!({
            "KeyId": key.id, "Arn": self.arn(&format!("key/{}", key.id)), "Origin": "AWS_KMS", "KeyManager": "CUSTOMER",
            "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT", "MultiRegion": false,
            "CreationDate": key.made_at.timestamp_millis() as f64 / 1000.0,
        });
        if let Some((field, value)) = &key.disguise {
            shown[*field] = value.clone();
        }
        match state {
            State::Enabled => shown["KeyState"] = "Enabled".into(),
            State::Disabled => shown["KeyState"] = "Disabled".into(),
            State::PendingDeletion(at) => {
                shown["KeyState"] = "PendingDeletion".into();
                shown["DeletionDate"] = (at.timestamp_millis() as f64 / 1000.0).into();
            }
            State::Deleted => {}
        }
        shown
    }

    fn create_alias(&mut self, asked: &Value) -> Result<Value, Refused> {
        let name = asked["AliasName"].as_str().unwrap_or_default().to_owned();
        if !name.starts_with("alias/") || name.starts_with("alias/aws/") || name.len() > 256 {
            return Err(Refused("InvalidAliasNameException"));
        }
        if self.keys.iter().any(|key| key.aliases.contains(&name)) {
            return Err(Refused("AlreadyExistsException"));
        }
        let key = self.find(&json!({"KeyId": asked["TargetKeyId"]}))?;
        self.keys[key].aliases.push(name);
        Ok(json!({}))
    }

    fn list_aliases(&self) -> Value {
        let of = |name: &str, key: &str| json!({"AliasName": name, "AliasArn": self.arn(name), "TargetKeyId": key});
        let named = self.keys.iter().flat_map(|key| key.aliases.iter().map(|name| of(name, &key.id)));
        let own = json!({"AliasName": "alias/aws/s3", "AliasArn": self.arn("alias/aws/s3")});
        json!({"Aliases": std::iter::once(own).chain(named).collect::<Vec<_>>(), "Truncated": false})
    }

    fn list_keys(&self) -> Value {
        let there = self.keys.iter().filter(|key| key.state != State::Deleted);
        json!({"Keys": there.map(|key| json!({"KeyId": key.id})).collect::<Vec<_>>(), "Truncated": false})
    }

    /// A key as it is, by id or full name.
    fn find(&self, asked: &Value) -> Result<usize, Refused> {
        let wanted = asked["KeyId"].as_str().unwrap_or_default();
        if wanted.starts_with("arn:") && !wanted.starts_with(&self.arn("")) {
            return Err(Refused("NotFoundException"));
        }
        let id = wanted.rsplit('/').next().unwrap_or_default();
        let found = self.keys.iter().position(|key| key.id == id && key.state != State::Deleted);
        // Another account knows none of them.
        found.filter(|_| self.account == "111122223333").ok_or(Refused("NotFoundException"))
    }

    /// A key as a read sees it, which may be as it was.
    fn seen(&mut self, asked: &Value) -> Result<(usize, State), Refused> {
        let number = self.find(asked)?;
        let key = &mut self.keys[number];
        let (seen, left) = match key.before {
            Some((state, left @ 1..)) => (state, left - 1),
            _ => (Some(key.state), 0),
        };
        key.before = key.before.filter(|_| left > 0).map(|(state, _)| (state, left));
        seen.map(|state| (number, state)).ok_or(Refused("NotFoundException"))
    }

    fn set(&mut self, number: usize, state: State) {
        let key = &mut self.keys[number];
        key.before = (self.stale > 0).then_some((Some(key.state), self.stale));
        key.state = state;
    }

    fn change(&mut self, asked: &Value, to: impl Fn(State) -> Result<State, Refused>) -> Result<Value, Refused> {
        let number = self.find(asked)?;
        let state = to(self.keys[number].state)?;
        self.set(number, state);
        Ok(json!({"KeyId": self.keys[number].id}))
    }

    fn schedule(&mut self, asked: &Value) -> Result<Value, Refused> {
        let days = asked["PendingWindowInDays"].as_i64().unwrap_or(30);
        if !(7..=30).contains(&days) {
            return Err(Refused("ValidationException"));
        }
        let at = self.clock.now() + TimeDelta::days(days);
        self.change(asked, |state| match state {
            State::PendingDeletion(_) => Err(Refused("KMSInvalidStateException")),
            _ => Ok(State::PendingDeletion(at)),
        })?;
        let date = at.timestamp_millis() as f64 / 1000.0;
        Ok(
            json!({"KeyId": asked["KeyId"], "DeletionDate": date, "KeyState": "PendingDeletion", "PendingWindowInDays": days}),
        )
    }

    fn usable(&mut self, asked: &Value) -> Result<usize, Refused> {
        match self.seen(asked)? {
            (number, State::Enabled) => Ok(number),
            (_, State::Disabled) => Err(Refused("DisabledException")),
            _ => Err(Refused("KMSInvalidStateException")),
        }
    }

    fn encrypt(&mut self, asked: &Value) -> Result<Value, Refused> {
        let number = self.usable(asked)?;
        let plain = STANDARD
            .decode(asked["Plaintext"].as_str().unwrap_or_default())
            .map_err(|_| Refused("ValidationException"))?;
        self.sealed += 1;
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.sealed.to_be_bytes());
        let key = &self.keys[number];
        let cipher = Aes256Gcm::new(&key.material.into());
        let payload = Payload { msg: &plain, aad: &context(asked) };
        let sealed = cipher.encrypt(&Nonce::from(nonce), payload).unwrap();
        let blob = [&HEADER, key.id.as_bytes(), &nonce, &sealed].concat();
        Ok(json!({"KeyId": self.arn(&format!("key/{}", key.id)), "CiphertextBlob": STANDARD.encode(blob)}))
    }

    fn decrypt(&mut self, asked: &Value) -> Result<Value, Refused> {
        let number = self.usable(asked)?;
        let key = &self.keys[number];
        let blob = STANDARD.decode(asked["CiphertextBlob"].as_str().unwrap_or_default());
        let blob = blob.map_err(|_| Refused("InvalidCiphertextException"))?;
        let rest = blob.strip_prefix(&HEADER).ok_or(Refused("InvalidCiphertextException"))?;
        let rest = rest.strip_prefix(key.id.as_bytes()).ok_or(Refused("IncorrectKeyException"))?;
        let (nonce, sealed) = rest.split_first_chunk::<12>().ok_or(Refused("InvalidCiphertextException"))?;
        let payload = Payload { msg: sealed, aad: &context(asked) };
        let opened = Aes256Gcm::new(&key.material.into()).decrypt(&Nonce::from(*nonce), payload);
        let opened = opened.map_err(|_| Refused("InvalidCiphertextException"))?;
        Ok(json!({"KeyId": self.arn(&format!("key/{}", key.id)), "Plaintext": STANDARD.encode(opened)}))
    }
}

/// The encryption context in the one order there is.
fn context(asked: &Value) -> Vec<u8> {
    let fields: BTreeMap<String, String> =
        serde_json::from_value(asked["EncryptionContext"].clone()).unwrap_or_default();
    serde_json::to_vec(&fields).unwrap()
}
