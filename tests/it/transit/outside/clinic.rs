//! A clinic: patients whose notes are sealed with a key each, and visits whose findings are sealed with a key for each quarter.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use wangchuan::certify::statement::Predicate;
use wangchuan::control::OutsideKeyRow;
use wangchuan::installation::{Installation, Needs};
use wangchuan::plan::Subject;
use wangchuan::policy::registry::SecretText;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::outside::{OutsideBody, OutsideReport, OutsideWait, check_gone, destroy_outside_keys, register};

use crate::support::bao::Bao;
use crate::support::world::{ManualClock, manual_clock, read_config};

/// The policy that is shipped, for the mount `fields`.
pub const POLICY: &str = include_str!("../../../../config/openbao-outside-policy.hcl");

pub const FINDINGS: &str = "findings-2024Q1";

/// The configuration, with two families of keys.
pub const CONFIGURATION: &str = r#"[agent]
name = "clinic"
timezone = "UTC"
state = "sqlite://state/control.db"
jobs = "jobs"

[root]
kind = "file"
path = "root"
accept_host_loss = true

[audit]
url = "embedded"
data = "audit"

[[store]]
name = "clinic"
url = "sqlite://clinic.db"
backup = "none"

[[store.collection]]
table = "patients"
subject = "id"

[[store.collection]]
table = "visits"
subject = "patient"

[[policy]]
id = "left"
collections = ["patients"]
retention = "3 years"
start = "left_at"
action = "delete"
basis = "contract"
grace = "GRACE"
max = { rows = 1000, percent = 100 }

[[policy]]
id = "visited"
collections = ["visits"]
retention = "1 year"
start = "ended_at"
action = "delete"
basis = "contract"
grace = "GRACE"
max = { rows = 1000, percent = 100 }

[[outside_key]]
name = "notes"
kind = "transit"
address = "ADDRESS"
mount = "fields"
token = "TOKEN"
snapshot_retention_days = 7
subjects = true
fields = ["patients.note"]
encrypted_since = "2020-01-01"
ever_in_clear = false

[[outside_key]]
name = "findings"
kind = "transit"
address = "ADDRESS"
mount = "fields"
token = "TOKEN"
snapshot_retention_days = 7
key = "findings-2024Q1"
policy = "visited"
period = "2024Q1"
fields = ["clinic.visits.finding"]
encrypted_since = "2020-01-01"
ever_in_clear = false
"#;

pub const TABLES: &str = "CREATE TABLE patients (id TEXT PRIMARY KEY, note TEXT, left_at TEXT);
     CREATE TABLE visits (id INTEGER PRIMARY KEY, patient TEXT, finding TEXT, ended_at TEXT);";

/// Writes the configuration so that nobody else reads it.
pub fn write_config(folder: &Path, text: &str) {
    let path = folder.join("wangchuan.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// Runs statements in the clinic's database.
pub async fn run_sql(folder: &Path, text: &str) {
    let address = format!("sqlite://{}?mode=rwc", folder.join("clinic.db").display());
    let mut connection = SqliteConnection::connect(&address).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The folder of one test, its key service and its time.
pub struct Clinic {
    pub bao: Bao,
    pub folder: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
    pub token: String,
}

impl Clinic {
    /// Two patients, `p1` and `p2`, each with a note and a visit in the first quarter of 2024.
    pub async fn open_its_doors(grace: &str) -> Option<Self> {
        let bao = Bao::start().await?;
        let address = bao.address();
        Some(Self::at(bao, &address, grace).await)
    }

    /// The same, with the service reached at another address.
    pub async fn at(bao: Bao, address: &str, grace: &str) -> Self {
        bao.good(Method::POST, "sys/mounts/fields", json!({"type": "transit"})).await;
        bao.good(Method::PUT, "sys/policies/acl/fields", json!({"policy": POLICY})).await;
        let token = bao.token(&["fields"], "1h").await;
        let folder = tempfile::tempdir().unwrap();
        let clinic = Self { bao, folder, clock: manual_clock(), token };
        std::fs::create_dir(clinic.path("jobs")).unwrap();
        let text = CONFIGURATION.replace("GRACE", grace).replace("ADDRESS", address).replace("TOKEN", &clinic.token);
        write_config(clinic.folder.path(), &text);
        clinic.sql(TABLES).await;
        clinic.make_key(FINDINGS).await;
        for patient in ["p1", "p2"] {
            clinic.admit(patient).await;
        }
        Installation::create(&clinic.config(), clinic.clock.clone(), Arc::new(SystemRandom)).await.unwrap();
        clinic
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn edit_config(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("wangchuan.toml")).unwrap();
        assert!(text.contains(from), "the configuration does not hold {from}");
        write_config(self.folder.path(), &text.replace(from, to));
    }

    pub fn config(&self) -> wangchuan::config::Configuration {
        read_config(self.folder.path())
    }

    pub async fn open(&self) -> Installation {
        Installation::open(self.config(), Needs::ALL, self.clock.clone(), Arc::new(SystemRandom)).await.unwrap()
    }

    pub async fn sql(&self, text: &str) {
        run_sql(self.folder.path(), text).await;
    }

    pub async fn make_key(&self, key: &str) {
        self.bao.good(Method::POST, &format!("fields/keys/{key}"), json!({})).await;
    }

    /// What the application does with a field before it stores it.
    pub async fn seal(&self, key: &str, text: &str) -> String {
        let body = json!({"plaintext": STANDARD.encode(text)});
        let sealed = self.bao.good(Method::POST, &format!("fields/encrypt/{key}"), body).await;
        sealed["ciphertext"].as_str().unwrap().to_owned()
    }

    /// Whether somebody who kept a sealed value opens it with everything that the live service has.
    pub async fn opens(&self, key: &str, sealed: &str) -> bool {
        let body = json!({"ciphertext": sealed});
        self.bao.call(Method::POST, &format!("fields/decrypt/{key}"), body).await.0 == 200
    }

    /// A new patient with a key, a note and a visit; the sealed note.
    pub async fn admit(&self, patient: &str) -> String {
        self.make_key(&key_of(patient)).await;
        let note = self.seal(&key_of(patient), &format!("note of {patient}")).await;
        let finding = self.seal(FINDINGS, &format!("finding of {patient}")).await;
        self.sql(&format!(
            "INSERT INTO patients VALUES ('{patient}', '{note}', NULL);
             INSERT INTO visits (patient, finding, ended_at) VALUES ('{patient}', '{finding}', '2024-02-03');"
        ))
        .await;
        note
    }

    /// Registers a patient's key; the id.
    pub async fn register(&self, installation: &Installation, patient: &str) -> String {
        let key = SecretText::new(key_of(patient));
        let done = register(installation, "notes", &Subject::new(patient), &key).await.unwrap();
        assert!(!done.existing && !done.clear_seen);
        done.id
    }

    /// Lets time pass that the program does not believe by itself.
    pub async fn wait(&self, installation: &Installation, by: TimeDelta) {
        self.clock.advance(by);
        installation.confirm_clock().await.unwrap();
    }

    /// What the service says of a key; null when it is gone.
    pub async fn fate(&self, key: &str) -> Value {
        let (status, answer) = self.bao.call(Method::GET, &format!("fields/keys/{key}"), Value::Null).await;
        assert!(matches!(status, 200 | 404), "{status}");
        answer["data"].clone()
    }
}

/// The key of a patient; its name tells who that is.
pub fn key_of(patient: &str) -> String {
    format!("note-of-{patient}")
}

pub async fn pass(installation: &Installation) -> OutsideReport {
    destroy_outside_keys(installation).await.unwrap()
}

/// A key's row and its public part as they are stored now.
pub async fn stored(installation: &Installation, id: &str) -> (OutsideKeyRow, OutsideBody) {
    let row = installation.control.read().await.unwrap().outside_key(id).await.unwrap().unwrap();
    let body = OutsideBody::of(&row).unwrap();
    (row, body)
}

/// The state of a key, and why it waits.
pub async fn state(installation: &Installation, id: &str) -> (String, Option<OutsideWait>) {
    let (row, body) = stored(installation, id).await;
    (row.state, body.wait.map(|wait| wait.code))
}

/// How many ended keys are still gone, and what is wrong; all of them could be asked about.
pub async fn gone(installation: &Installation) -> (u64, Vec<String>) {
    let found = check_gone(installation).await.unwrap();
    assert_eq!(found.replaced, 0);
    (found.gone, found.problems)
}

/// The registered key of an entry.
pub async fn id_of(installation: &Installation, name: &str) -> String {
    let rows = installation.control.read().await.unwrap().outside_keys().await.unwrap();
    rows.into_iter().find(|row| row.name == name).unwrap().id
}

/// The certificates of a key, with their bytes as text.
pub async fn certificates(installation: &Installation, id: &str) -> Vec<(Predicate, String)> {
    let rows = installation.control.read().await.unwrap().certificates(Some(id)).await.unwrap();
    let read = |row: &wangchuan::control::CertificateRow| {
        let verified = wangchuan::certify::verify(&row.envelope, installation.signer.trusted()).unwrap();
        let statement = verified.into_erasure().unwrap();
        let text = serde_json::to_string(&statement).unwrap() + &String::from_utf8_lossy(&row.evidence);
        (statement.predicate, text)
    };
    rows.iter().map(read).collect()
}
