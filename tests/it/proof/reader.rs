//! Snapshots read by a script that was written from the specification alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value as Json, json};
use wangchuan::backup::codec::Sha256;
use wangchuan::control::SnapshotRow;
use wangchuan::installation::Installation;
use wangchuan::keys::tree::Subtree;
use wangchuan::tasks::read_snapshot::open;
use wangchuan::value::Value;

use super::tools::{python, script};
use crate::support::world::{Making, World, forget, snapshot};

fn read(python: &Path, folder: &Path, manifest: &str, keys: &Json) -> Output {
    let file = folder.join("keys.json");
    fs::write(&file, keys.to_string()).unwrap();
    let mut command = Command::new(python);
    command.arg(script("read_backup.py")).arg(folder).arg(manifest).arg(&file);
    command.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap()
}

fn document(read: &Output) -> Json {
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    serde_json::from_slice(&read.stdout).unwrap()
}

/// What a script refused, as it said; that it did not fail in another way.
fn refusal(read: &Output) -> String {
    let said = String::from_utf8_lossy(&read.stderr).into_owned();
    assert_eq!(read.status.code(), Some(3), "{said}");
    said
}

/// The golden snapshot as objects under their names, and the name of its manifest.
fn golden(folder: &Path) -> (String, Json) {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/backup");
    let put = |kind: &str, file: &str| {
        let bytes = fs::read(vectors.join(file)).unwrap();
        let name = format!("{kind}{}", Sha256::of(&bytes));
        let path = folder.join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        name
    };
    put("packs/", "whole-pack.bin");
    put("directories/", "whole-directory.bin");
    let manifest = put(&format!("manifests/{}/0000000002-", "44".repeat(16)), "whole-manifest.json");
    (manifest, serde_json::from_slice(&fs::read(vectors.join("whole-keys.json")).unwrap()).unwrap())
}

#[test]
fn the_golden_snapshot_means_to_a_stranger_what_it_means_here() {
    let Some(python) = python("python3") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (manifest, keys) = golden(folder.path());
    let found = document(&read(&python, folder.path(), &manifest, &keys));
    let long = "compressible ".repeat(40);
    let row = |number: i64, text: &str, bytes: &str| json!([{"integer": number}, {"text": text}, {"blob": bytes}, {"real": "bfe0000000000000"}, null]);
    let rows = json!([row(1, "忘川", ""), row(-2, "", "01"), row(i64::MAX, &long, "0202")]);
    assert_eq!(found["rows"], json!({"orders": rows}));
    assert_eq!((&found["frames"], &found["shut"], &found["kind"]), (&json!(3), &json!(1), &json!("full")));
    // The other key opens the other cell, and neither opens anything without the chain's.
    let other = json!({"cell_secrets": ["93".repeat(32)], "chain_key": keys["chain_key"], "installation": keys["installation"]});
    let found = document(&read(&python, folder.path(), &manifest, &other));
    assert_eq!((&found["shut"], found["rows"]["orders"].as_array().map(Vec::len)), (&json!(2), Some(3)));
    let wrong = json!({"cell_secrets": keys["cell_secrets"], "chain_key": "00".repeat(32), "installation": keys["installation"]});
    assert!(refusal(&read(&python, folder.path(), &manifest, &wrong)).contains("another key"));
}

#[test]
fn what_is_changed_or_of_another_version_a_stranger_refuses_too() {
    let Some(python) = python("python3") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (manifest, keys) = golden(folder.path());
    let names: Vec<PathBuf> = ["packs", "directories"]
        .iter()
        .flat_map(|kind| fs::read_dir(folder.path().join(kind)).unwrap().map(|entry| entry.unwrap().path()))
        .collect();
    for path in names.iter().chain([&folder.path().join(&manifest)]) {
        let whole = fs::read(path).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(path, &bytes).unwrap();
            assert!(refusal(&read(&python, folder.path(), &manifest, &keys)).contains("another SHA-256"));
        }
        fs::write(path, whole).unwrap();
    }
    document(&read(&python, folder.path(), &manifest, &keys));
}

/// A value as the script prints it.
fn printed(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(number) => json!({"integer": number}),
        Value::Real(number) => json!({"real": hex::encode(number.to_be_bytes())}),
        Value::Text(text) => json!({"text": text}),
        Value::Blob(bytes) => json!({"blob": hex::encode(bytes)}),
    }
}

async fn keys_of(installation: &Installation, row: &SnapshotRow, folder: &Path) -> Json {
    let ground = installation.ground().unwrap();
    let repository = installation.backup().unwrap().repository.clone();
    let opened = open(&ground, repository.as_ref(), &installation.signer, row.clone()).await.unwrap();
    let mut tx = installation.control.begin().await.unwrap();
    let chain = installation.keyring.key(&mut tx, Subtree::Chains, row.chain).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    let secrets: Vec<String> = opened.secrets().map(|secret| hex::encode(secret.to_pin().dangerous_bytes())).collect();
    let signer = folder.join("signer.pem");
    fs::write(&signer, installation.signer.public().to_pem()).unwrap();
    json!({
        "installation": hex::encode(installation.id()), "chain_key": hex::encode(chain.dangerous_bytes()),
        "cell_secrets": secrets, "signer": signer,
    })
}

/// Rows of a table, in an order of their own.
fn in_order(rows: &[Json]) -> Vec<String> {
    let mut rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn a_stranger_reads_every_row_of_a_real_snapshot_and_none_that_was_shredded() {
    let Some(python) = python("python3") else { return };
    let world = World::make(Making { customers: 25, ..Making::default() }).await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let folder = tempfile::tempdir().unwrap();
    for kind in ["packs", "directories", "manifests"] {
        let from = world.path("bucket").join("wangchuan").join(kind);
        crate::support::world::copy_folder(&from, &folder.path().join(kind));
    }
    let keys = keys_of(&installation, &first, folder.path()).await;
    let name = first.manifest.clone().unwrap();
    let found = document(&read(&python, folder.path(), &name, &keys));
    assert_eq!(found["shut"], 0);
    let mut expected: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for table in found["rows"].as_object().unwrap().keys() {
        let rows = world.shop.rows_of(table).iter();
        expected.insert(table.clone(), rows.map(|row| row.iter().map(printed).collect()).collect());
    }
    assert!(expected.len() > 2 && expected.values().all(|rows| !rows.is_empty()), "{:?}", expected.keys());
    for (table, rows) in &expected {
        assert_eq!(in_order(found["rows"][table].as_array().unwrap()), in_order(rows), "{table}");
    }

    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    snapshot(&installation).await;
    assert!(wangchuan::tasks::shred::shred_due(&installation).await.unwrap().shredded.contains(&run.id));
    let keys = keys_of(&installation, &first, folder.path()).await;
    let found = document(&read(&python, folder.path(), &name, &keys));
    assert!(found["shut"].as_u64() > Some(0));
    assert!(!found.to_string().contains(&world.shop.picks.leaver), "the shredded customer is still read");
    installation.close().await.unwrap();
}
