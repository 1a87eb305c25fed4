//! `drill`: restores a snapshot into a private scratch database, checks it, tries to open what was shredded with every key
//! there is, and keeps a signed record.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::backup::codec::Sha256;
use crate::backup::object_store::ObjectStore;
use crate::backup::pack::{max_pack_bytes, pack_name, read_pack};
use crate::control::{DrillRow, SnapshotRow};
use crate::installation::{Installation, state_folder};
use crate::policy::registry::SecretText;
use crate::random::uuid7;
use crate::stores::{DataStore, Engine, Limits, StoreAddress};

use super::read_snapshot::{FrameState, OpenSnapshot};
use super::restore::{RestoreReport, recover_rows, restore_into};
use super::{Result, TaskError};

/// Shredded frames that a drill tries to open with every key.
const CANARY_FRAMES: usize = 50;

/// What a drill found. This, signed, is the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillRecord {
    /// Version of this record's form.
    pub format_version: u32,
    /// Its id.
    pub drill: String,
    /// `passed` or `failed`.
    pub result: String,
    /// The store.
    pub store: String,
    /// The snapshot.
    pub snapshot: String,
    /// SHA-256 of its manifest.
    pub manifest_sha256: String,
    /// When the drill began.
    pub begun_at: DateTime<Utc>,
    /// Seconds from the start to a checked database.
    pub rto_seconds: f64,
    /// Seconds between the snapshot and the drill.
    pub rpo_seconds: i64,
    /// Frames: opened, shredded, lost, corrupt, and in the manifest.
    pub frames: [u64; 5],
    /// Rows by collection: name, restored, shredded, erased since, stubs.
    pub collections: Vec<(String, u64, u64, u64, u64)>,
    /// Rows that an erasure took since and that were in the restored database all the same.
    pub erased_reappeared: u64,
    /// Shredded frames tried, and keys tried on each.
    pub tried: [u64; 2],
    /// Of them opened; any makes the drill fail.
    pub resurrected: u64,
    /// What is wrong.
    pub problems: Vec<String>,
    /// Whether the scratch database was wiped.
    pub cleaned_up: bool,
    /// Who ran it.
    pub operator: String,
}

/// Runs a drill on a snapshot and stores its record.
///
/// # Errors
/// When the drill cannot be run at all. A drill that finds something wrong is not an error: its record says `failed`.
pub async fn run_drill(installation: &Installation, snapshot: SnapshotRow) -> Result<DrillRecord> {
    let begun_at = installation.clock.now();
    let timer = Instant::now();
    let ground = installation.ground()?;
    let repository = installation.backup()?.repository.clone();
    let id = uuid7(begun_at, installation.random.as_ref())?;
    let recovered = recover_rows(&ground, repository.as_ref(), &installation.signer, snapshot.clone()).await?;
    let (tried, resurrected) = try_shredded(&recovered.snapshot, repository.as_ref()).await?;
    let scratch = Scratch::make(installation, &id, recovered.snapshot.schema.engine)?;
    let expected: Vec<(String, u64)> =
        recovered.report.collections.iter().map(|counts| (counts.collection.clone(), counts.restored)).collect();
    let mut problems = Vec::new();
    let report = match restore_into(scratch.store.as_ref(), recovered).await {
        Ok(report) => report,
        Err(error) => {
            problems.push(error.to_string());
            RestoreReport { snapshot: snapshot.id.clone(), ..RestoreReport::default() }
        }
    };
    problems.extend(check_counts(scratch.store.as_ref(), &report, &expected).await?);
    if !report.is_whole() {
        problems.push(format!("{} frames are lost and {} corrupt", report.frames_lost, report.frames_corrupt));
    }
    if resurrected > 0 {
        problems.push(format!("{resurrected} shredded frames opened"));
    }
    let rto_seconds = timer.elapsed().as_secs_f64();
    let cleaned_up = scratch.wipe();
    let record = DrillRecord {
        format_version: 1,
        drill: id,
        result: if problems.is_empty() { "passed" } else { "failed" }.to_owned(),
        store: snapshot.store.clone(),
        snapshot: snapshot.id.clone(),
        manifest_sha256: snapshot.manifest_sha256.clone().unwrap_or_default(),
        begun_at,
        rto_seconds,
        rpo_seconds: (begun_at - snapshot.begun_at).num_seconds(),
        frames: [
            report.frames_opened,
            report.frames_shredded,
            report.frames_lost,
            report.frames_corrupt,
            report.frames,
        ],
        collections: report
            .collections
            .iter()
            .map(|counts| {
                (counts.collection.clone(), counts.restored, counts.shredded, counts.erased_since, counts.stubs)
            })
            .collect(),
        erased_reappeared: 0,
        tried,
        resurrected,
        problems,
        cleaned_up,
        operator: installation.operator.clone(),
    };
    store(installation, &record).await?;
    Ok(record)
}

/// Tries every reachable cell secret on shredded frames.
async fn try_shredded(snapshot: &OpenSnapshot, repository: &dyn ObjectStore) -> Result<([u64; 2], u64)> {
    let (mut frames_tried, mut keys_tried, mut opened) = (0, 0, 0);
    for (index, pack) in snapshot.manifest.packs.iter().enumerate() {
        let shredded: Vec<_> = snapshot
            .entries
            .iter()
            .filter(|entry| entry.pack as usize == index && snapshot.state_of(&entry.cell) == FrameState::Shredded)
            .collect();
        if shredded.is_empty() || frames_tried >= CANARY_FRAMES as u64 {
            continue;
        }
        let bytes = repository.get(&pack_name(&pack.sha256), max_pack_bytes()).await?;
        if Sha256::of(&bytes) != pack.sha256 {
            continue;
        }
        let (_, frames) = read_pack(&bytes, &pack.sha256)?;
        let step = (shredded.len() / CANARY_FRAMES).max(1);
        for entry in shredded.iter().step_by(step) {
            let Some(frame) = frames.get(entry.ordinal as usize) else { continue };
            frames_tried += 1;
            keys_tried = 0;
            for secret in snapshot.secrets() {
                keys_tried += 1;
                // The commitment in the header tells whether this key is the frame's, without opening it.
                if snapshot.frame_key(entry.suite, secret, &frame.header.id.0).commits_to(&frame.header.commitment) {
                    opened += 1;
                }
            }
        }
    }
    Ok(([frames_tried, keys_tried], opened))
}

async fn check_counts(
    store: &dyn DataStore,
    report: &RestoreReport,
    expected: &[(String, u64)],
) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let (mut look, _) = store.begin_restore(&[]).await?;
    for (name, rows) in expected {
        let stubs =
            report.collections.iter().find(|counts| counts.collection == *name).map_or(0, |counts| counts.stubs);
        match look.count(name).await {
            Ok(found) if found == rows + stubs => {}
            Ok(found) => problems.push(format!("{name}: {} rows expected, {found} found", rows + stubs)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    look.roll_back().await?;
    Ok(problems)
}

struct Scratch {
    store: Arc<dyn DataStore>,
    file: PathBuf,
}

impl Scratch {
    fn make(installation: &Installation, id: &str, engine: Engine) -> Result<Self> {
        if engine != Engine::Sqlite {
            return Err(TaskError::refused(
                "this version drills only snapshots of SQLite stores by itself",
                "restore a PostgreSQL or MariaDB snapshot into an empty database with `wangchuan restore --to URL`",
            ));
        }
        let file = state_folder(&installation.config).join(format!("drill-{id}.db"));
        let store = crate::stores::open(&StoreAddress {
            name: "drill".to_owned(),
            url: SecretText::new(format!("sqlite://{}", file.display())),
            read_url: None,
            base: installation.config.base_dir.clone(),
            create: true,
            limits: Limits::default(),
        })?;
        Ok(Self { store, file })
    }

    /// Overwrites and removes the scratch files.
    fn wipe(self) -> bool {
        drop(self.store);
        let mut clean = true;
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.file.clone().into_os_string();
            name.push(suffix);
            let path = PathBuf::from(name);
            if let Ok(metadata) = std::fs::metadata(&path) {
                let zeros = vec![0; usize::try_from(metadata.len()).unwrap_or(0)];
                clean &= std::fs::write(&path, zeros).is_ok() && std::fs::remove_file(&path).is_ok();
            }
        }
        clean
    }
}

/// The payload type of a drill record's signed envelope.
pub const RECORD_TYPE: &str = "application/vnd.wangchuan.drill+json";

async fn store(installation: &Installation, record: &DrillRecord) -> Result<()> {
    let payload = serde_json::to_vec(record).map_err(|error| TaskError::Proof(error.to_string()))?;
    let signed = crate::certify::dsse::pae(RECORD_TYPE, &payload);
    let signature =
        installation.signer.certificates().sign(&signed).map_err(|error| TaskError::Proof(error.to_string()))?;
    let envelope = crate::certify::dsse::Envelope::make(RECORD_TYPE, payload, signature, installation.signer.key_id());
    let row = DrillRow {
        id: record.drill.clone(),
        store: record.store.clone(),
        snapshot: record.snapshot.clone(),
        passed: record.result == "passed",
        at: record.begun_at,
        record: envelope.as_bytes().to_vec(),
    };
    let mut tx = installation.control.begin().await?;
    tx.add_drill(&row).await?;
    tx.commit().await?;
    installation.log_operation("drill.run", &record.drill, if row.passed { "success" } else { "failure" }).await
}
