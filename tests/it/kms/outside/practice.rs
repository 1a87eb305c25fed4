//! The clinic of the transit tests with its keys in KMS: a key for each patient's note, and one for the findings of a quarter.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use wangchuan::clock::Clock;
use wangchuan::installation::{Installation, Needs};
use wangchuan::plan::Subject;
use wangchuan::policy::registry::SecretText;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::outside::register;

use crate::support::kms::{ACCESS_KEY, Kms, REGION};
use crate::support::world::{ManualClock, manual_clock, read_config};
use crate::transit::outside::clinic::{CONFIGURATION, FINDINGS, TABLES, run_sql, write_config};

/// How the keys are reached in the configuration of the clinic.
const IN_TRANSIT: &str =
    "kind = \"transit\"\naddress = \"ADDRESS\"\nmount = \"fields\"\ntoken = \"TOKEN\"\nsnapshot_retention_days = 7\n";

pub struct Practice {
    pub kms: Kms,
    pub folder: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
}

impl Practice {
    /// Two patients, `p1` and `p2`, whose notes are sealed with the keys 1 and 2; key 0 sealed the finding of both.
    pub async fn open_its_doors(grace: &str) -> Self {
        Self::on(manual_clock(), grace).await
    }

    pub async fn on(clock: Arc<ManualClock>, grace: &str) -> Self {
        let practice = Self { kms: Kms::start(clock.clone()), folder: tempfile::tempdir().unwrap(), clock };
        let address = practice.kms.address();
        let in_kms = format!(
            "kind = \"aws-kms\"\nregion = \"{REGION}\"\nendpoint = \"{address}\"\naccess_key_id = \"{ACCESS_KEY}\"\n\
             secret_access_key = \"secret\"\nsealed_prefix = \"AQICAH\"\n"
        );
        let findings = practice.kms.machine().make_for_application();
        let text = CONFIGURATION.replace(IN_TRANSIT, &in_kms).replace("GRACE", grace);
        let text = text.replace(FINDINGS, &practice.kms.machine().id_of(findings));
        assert!(!text.contains("transit"));
        write_config(practice.folder.path(), &text);
        std::fs::create_dir(practice.folder.path().join("jobs")).unwrap();
        practice.sql(TABLES).await;
        for patient in ["p1", "p2"] {
            let key = practice.kms.machine().make_for_application();
            let note = practice.seal(key, &format!("note of {patient}"));
            let finding = practice.seal(findings, &format!("finding of {patient}"));
            practice
                .sql(&format!(
                    "INSERT INTO patients VALUES ('{patient}', '{note}', NULL);
                     INSERT INTO visits (patient, finding, ended_at) VALUES ('{patient}', '{finding}', '2024-02-03');"
                ))
                .await;
        }
        Installation::create(&practice.config(), practice.clock.clone(), Arc::new(SystemRandom)).await.unwrap();
        practice
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

    /// What the application does with a field before it stores it.
    pub fn seal(&self, key: usize, text: &str) -> String {
        let mut machine = self.kms.machine();
        let asked = json!({"KeyId": machine.id_of(key), "Plaintext": STANDARD.encode(text)});
        machine.try_administer("Encrypt", &asked).unwrap()["CiphertextBlob"].as_str().unwrap().to_owned()
    }

    /// Whether somebody who kept a sealed value, and may do anything in the account, opens it.
    pub fn opens(&self, key: usize, sealed: &str) -> bool {
        let mut machine = self.kms.machine();
        let asked = json!({"KeyId": machine.id_of(key), "CiphertextBlob": sealed});
        machine.try_administer("Decrypt", &asked).is_ok()
    }

    pub fn key(&self, number: usize) -> SecretText {
        SecretText::new(self.kms.machine().id_of(number))
    }

    /// Registers a patient's key; the id.
    pub async fn register(&self, installation: &Installation, patient: &str, key: usize) -> String {
        let done = register(installation, "notes", &Subject::new(patient), &self.key(key)).await.unwrap();
        assert!(!done.existing && !done.clear_seen && !done.may_have_left);
        done.id
    }

    /// Lets time pass that the program does not believe by itself.
    pub async fn wait(&self, installation: &Installation, by: TimeDelta) {
        self.clock.advance(by);
        installation.confirm_clock().await.unwrap();
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// How often the agent ordered a deletion.
    pub fn orders(&self) -> u32 {
        self.kms.machine().calls.get("ScheduleKeyDeletion").copied().unwrap_or(0)
    }
}
