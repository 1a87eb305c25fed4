//! `drill`: restores a snapshot into a private scratch database, checks it, tries to open what was shredded with every key
//! there is, and keeps a signed record.

use std::collections::HashSet;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::backup::codec::Sha256;
use crate::backup::object_store::ObjectStore;
use crate::backup::pack::{max_pack_bytes, pack_name, read_pack};
use crate::control::{DrillRow, SnapshotRow};
use crate::erase::Ground;
use crate::installation::{Installation, state_folder};
use crate::keyring::{Purpose, cell_secret_in};
use crate::keys::cell::CellSecret;
use crate::keys::tree::KeyTree;
use crate::plan::digest::row_mac;
use crate::policy::registry::SecretText;
use crate::random::uuid7;
use crate::stores::{ColumnRef, DataStore, Engine, Filter, Limits, RowQuery, StoreAddress, Table};
use crate::value::{RowKey, encode_values};

use super::read_snapshot::{FrameState, OpenSnapshot};
use super::restore::{RestoreReport, StubKeys, recover_rows, restore_rows};
use super::{Result, TaskError};

/// Shredded frames that a drill tries to open with every key.
const CANARY_FRAMES: usize = 50;
/// Rows read at once from the restored database.
const PAGE_ROWS: u32 = 1000;

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
    let secrets = reachable_secrets(&ground).await?;
    let (tried, resurrected) = try_shredded(&recovered.snapshot, repository.as_ref(), &secrets).await?;
    drop(secrets);
    let tables = recovered.snapshot.schema.tables.clone();
    let scratch = Scratch::make(installation, &id, recovered.snapshot.schema.engine)?;
    let expected: Vec<(String, u64)> =
        recovered.report.collections.iter().map(|counts| (counts.collection.clone(), counts.restored)).collect();
    let mut problems = Vec::new();
    let (report, stubs) = match restore_rows(scratch.store()?, recovered).await {
        Ok(restored) => restored,
        Err(error) => {
            problems.push(error.to_string());
            (RestoreReport { snapshot: snapshot.id.clone(), ..RestoreReport::default() }, StubKeys::new())
        }
    };
    problems.extend(check_counts(scratch.store()?, &report, &expected).await?);
    let erased_reappeared = find_erased(&ground, scratch.store()?, &snapshot, &tables, &stubs).await?;
    if erased_reappeared > 0 {
        problems.push(format!("{erased_reappeared} rows that were erased since are in the restored database"));
    }
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
        erased_reappeared,
        tried,
        resurrected,
        problems,
        cleaned_up,
        operator: installation.operator.clone(),
    };
    store(installation, &record).await?;
    Ok(record)
}

/// The secrets of all living cells of the installation, whichever snapshot they belong to.
pub(super) async fn reachable_secrets(ground: &Ground<'_>) -> Result<Vec<CellSecret>> {
    let mut tx = ground.control.begin().await?;
    let mut cells = Vec::new();
    for id in tx.living_cell_ids().await? {
        cells.extend(tx.cell_by_id(id).await?);
    }
    let look = |tree: &KeyTree| cells.iter().map(|cell| cell_secret_in(tree, cell)).collect::<Vec<_>>();
    let found = ground.keyring.with_tree(&mut tx, look).await?;
    Ok(found.into_iter().filter_map(|secret| secret.ok().flatten()).collect())
}

/// Rows of the restored database, other than key-only stubs, that the ledger erased after the snapshot was begun.
async fn find_erased(
    ground: &Ground<'_>,
    store: &dyn DataStore,
    snapshot: &SnapshotRow,
    tables: &[Table],
    stubs: &StubKeys,
) -> Result<u64> {
    let mut tx = ground.control.begin().await?;
    let entries = tx.ledger_after(&snapshot.store, snapshot.ledger_position).await?;
    let suppression = ground.keyring.work_key(&mut tx, Purpose::Suppression, "").await?;
    tx.commit().await?;
    let gone: HashSet<[u8; 16]> = entries.into_iter().map(|entry| entry.row_mac).collect();
    let present: HashSet<String> = store.catalogue().await?.tables.into_iter().map(|table| table.name).collect();
    let mut found = 0;
    let mut view = store.open_snapshot().await?;
    // A failed restore leaves no tables, and so nothing that could have come back.
    for table in tables.iter().filter(|table| present.contains(&table.name)) {
        let mut query = RowQuery {
            table: table.name.clone(),
            path: Vec::new(),
            columns: table.key.iter().map(|column| ColumnRef::own(column)).collect(),
            filter: Filter::All,
            key: table.key.clone(),
            after: None,
            limit: PAGE_ROWS,
        };
        loop {
            let rows = view.read(&query).await?;
            let is_last = rows.len() < PAGE_ROWS as usize;
            for key in rows.into_iter().map(RowKey) {
                let is_stub = stubs.contains(&(table.name.clone(), encode_values(&key.0)));
                let is_gone = gone.contains(&row_mac(&suppression, &snapshot.store, &table.name, &key));
                found += u64::from(is_gone && !is_stub);
                query.after = Some(key);
            }
            if is_last {
                break;
            }
        }
    }
    view.close().await?;
    Ok(found)
}

/// Tries every reachable cell secret on shredded frames. Returns frames tried and keys tried on each, and how many opened.
pub(super) async fn try_shredded(
    snapshot: &OpenSnapshot,
    repository: &dyn ObjectStore,
    secrets: &[CellSecret],
) -> Result<([u64; 2], u64)> {
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
            for secret in secrets {
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

/// The database that a drill restores into: customers in clear, so in a private folder, and wiped whatever happens.
struct Scratch {
    store: Option<Arc<dyn DataStore>>,
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
        let folder = state_folder(&installation.config).join("drill");
        let cannot = |error: std::io::Error| {
            TaskError::refused(
                format!("the drill's folder {} cannot be used: {error}", folder.display()),
                "make the state folder writable for the agent and for nobody else",
            )
        };
        let file = private_file(&folder, id).map_err(cannot)?;
        let mut scratch = Self { store: None, file };
        scratch.store = Some(crate::stores::open(&StoreAddress {
            name: "drill".to_owned(),
            url: SecretText::new(format!("sqlite://{}", scratch.file.display())),
            read_url: None,
            base: installation.config.base_dir.clone(),
            create: true,
            limits: Limits::default(),
        })?);
        Ok(scratch)
    }

    fn store(&self) -> Result<&dyn DataStore> {
        self.store.as_deref().ok_or_else(|| TaskError::Inconsistent("the drill's database is closed".to_owned()))
    }

    /// Overwrites and removes the scratch files.
    fn wipe(mut self) -> bool {
        self.clear()
    }

    fn clear(&mut self) -> bool {
        self.store = None;
        let files = ["", "-wal", "-shm", "-journal"].map(|suffix| {
            let mut name = self.file.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        });
        // Every file is wiped, also after one that could not be.
        files.iter().filter(|path| path.exists()).filter(|path| wipe_file(path).is_err()).count() == 0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.clear();
    }
}

/// An empty file that only the agent can read, in a folder that only the agent can enter. What an interrupted drill left
/// there is wiped first; drills run under the lease, so there is no other.
fn private_file(folder: &Path, id: &str) -> std::io::Result<PathBuf> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    for left in std::fs::read_dir(folder)? {
        wipe_file(&left?.path())?;
    }
    let file = folder.join(format!("{id}.db"));
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
    Ok(file)
}

/// Overwrites a file in place, and removes it.
fn wipe_file(path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    let mut left = file.metadata()?.len();
    let zeros = vec![0; 64 * 1024];
    while left > 0 {
        let step = left.min(zeros.len() as u64);
        file.write_all(&zeros[..step as usize])?;
        left -= step;
    }
    file.sync_all()?;
    std::fs::remove_file(path)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_files_are_private_and_leftovers_are_wiped() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("drill");
        let first = private_file(&folder, "one").unwrap();
        std::fs::write(&first, vec![b'x'; 100_000]).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&first)), (0o700, 0o600));
        // A second name for the same bytes shows that they are overwritten, not only unlinked.
        let witness = state.path().join("witness");
        std::fs::hard_link(&first, &witness).unwrap();
        let second = private_file(&folder, "two").unwrap();
        assert!(!first.exists());
        assert_eq!(std::fs::read(&witness).unwrap(), vec![0; 100_000]);
        drop(Scratch { store: None, file: second.clone() });
        assert!(!second.exists());
    }
}
