//! `drill`: restores a snapshot into a private scratch database, checks it, tries to open what was shredded with every key
//! there is, and keeps a signed record.

use std::time::Instant;

use crate::backup::codec::Sha256;
use crate::backup::object_store::ObjectStore;
use crate::backup::pack::{max_pack_bytes, pack_name, read_pack};
use crate::control::SnapshotRow;
use crate::crash_point;
use crate::erase::Ground;
use crate::installation::Installation;
use crate::keyring::{cell_secret_in, slots_of_cells};
use crate::keys::cell::CellSecret;
use crate::keys::tree::KeyTree;
use crate::random::uuid7;
use crate::stop::Stop;
use crate::stores::{ColumnRef, DataStore, Filter, RowQuery, Table};
use crate::value::RowKey;

use super::backup::{is_damage, note_damage};
use super::read_chain::{OpenChain, open_chain};
use super::read_snapshot::{FrameState, OpenSnapshot};
use super::restore::{Ledger, RestoreReport, RestoredCollection, Stubs, bring_back};
use super::{Result, TaskError};

mod pick;
mod record;
mod scratch;

pub use pick::{Drawn, Pick, Picked, picks};
pub(super) use record::keep;
pub use record::{
    ChainProblem, DrillRecord, RECORD_TYPE, check_chain, check_part, check_record, row_of, verify_records,
};
pub(super) use scratch::wipe_file;

use scratch::Scratch;
pub use scratch::{leftovers, obstacles, remove_leftovers};

/// Shredded frames that a drill tries to open with every key.
const CANARY_FRAMES: usize = 50;
/// Rows read at once from the restored database.
const PAGE_ROWS: u32 = 1000;

/// What was found in a scratch database.
#[derive(Default)]
struct Found {
    report: RestoreReport,
    erased_reappeared: u64,
    problems: Vec<String>,
}

/// Runs a drill on a snapshot and stores its record.
///
/// # Errors
/// When the drill cannot be run at all. A drill that finds something wrong is not an error: its record says `failed`.
pub async fn run_drill(installation: &Installation, snapshot: SnapshotRow) -> Result<DrillRecord> {
    run_picked(installation, Pick { snapshot, picked: Picked::Named, drawn: None }).await
}

/// Runs a drill on a snapshot that was picked, and stores its record with how it was.
///
/// # Errors
/// As [`run_drill`].
pub async fn run_picked(installation: &Installation, pick: Pick) -> Result<DrillRecord> {
    run_drill_since(installation, pick, Instant::now()).await
}

/// The snapshots of a store that a drill without a named one takes: see [`picks`]. The seed comes from the installation's randomness.
///
/// # Errors
/// When the control database fails or no randomness is to be had.
pub async fn picks_of(installation: &Installation, store: &str) -> Result<Vec<Pick>> {
    let rows = installation.control.read().await?.snapshots(Some(store)).await?;
    let mut seed = [0; 8];
    installation.random.fill(&mut seed)?;
    Ok(picks(&rows, u64::from_be_bytes(seed)))
}

/// A drill whose recovery time counts from `timer`: what had to be done before it is part of it.
pub(super) async fn run_drill_since(installation: &Installation, pick: Pick, timer: Instant) -> Result<DrillRecord> {
    let snapshot = pick.snapshot.clone();
    let begun_at = installation.clock.now();
    let ground = installation.ground()?;
    let repository = installation.backup()?.repository.clone();
    let id = uuid7(begun_at, installation.random.as_ref())?;
    let opened = match open_chain(&ground, repository.as_ref(), &installation.signer, snapshot.clone()).await {
        Err(error) if is_damage(&error) => {
            note_damage(&installation.control, snapshot.chain).await?;
            return Err(error);
        }
        opened => opened?,
    };
    let ledger = Ledger::since(&ground, &opened).await?;
    let secrets = reachable_secrets(&ground).await?;
    let (tried, resurrected) = try_shredded_of(&opened, repository.as_ref(), &secrets).await?;
    drop(secrets);
    // Cut off, it could not be wiped for sure: a connection that is just being made would make the file anew.
    let _whole = installation.begin_piece()?;
    let scratch = Scratch::make(installation, &id, &snapshot.store, opened.newest()?.schema.engine).await?;
    let found = restore_and_look(installation.stop_switch(), &opened, &ledger, repository.as_ref(), &scratch).await;
    let rto_seconds = timer.elapsed().as_secs_f64();
    let name = scratch.name();
    // Before anything else can fail: customers lie there in clear.
    let cleaned_up = scratch.wipe(installation).await;
    let Found { report, erased_reappeared, mut problems } = found?;
    if !report.is_whole() {
        note_damage(&installation.control, snapshot.chain).await?;
    }
    problems.extend((resurrected > 0).then(|| format!("{resurrected} shredded frames opened")));
    problems.extend((!cleaned_up).then(|| format!("the scratch database {name} could not be removed")));
    let mut record = DrillRecord {
        format_version: record::FORMAT_VERSION,
        drill: id,
        number: 0,
        previous: None,
        picked: pick.picked,
        drawn: pick.drawn,
        result: if problems.is_empty() { "passed" } else { "failed" }.to_owned(),
        store: snapshot.store.clone(),
        snapshot: snapshot.id.clone(),
        manifest_sha256: snapshot.manifest_sha256.clone().unwrap_or_default(),
        begun_at,
        rto_seconds,
        rpo_seconds: (begun_at - snapshot.begun_at).num_seconds(),
        chain_length: opened.parts.len() as u64,
        superseded: report.collections.iter().map(|of| of.superseded).sum(),
        frames: [
            report.frames_opened,
            report.frames_shredded,
            report.frames_lost,
            report.frames_corrupt,
            report.frames,
        ],
        collections: counts_of(&report),
        erased_reappeared,
        tried,
        resurrected,
        problems,
        cleaned_up,
        scratch: name,
        operator: installation.operator.clone(),
    };
    keep(installation, &mut record).await?;
    crash_point::reached("drill.recorded");
    Ok(record)
}

/// A report's rows by collection, as a record keeps them.
fn counts_of(report: &RestoreReport) -> Vec<(String, u64, u64, u64, u64)> {
    let counts = report.collections.iter();
    counts.map(|of| (of.collection.clone(), of.restored, of.shredded, of.erased_since, of.stubs)).collect()
}

/// Restores into the scratch database and looks at what is there. A restore that fails is a finding, not an error.
async fn restore_and_look(
    stop: &Stop,
    chain: &OpenChain,
    ledger: &Ledger,
    repository: &dyn ObjectStore,
    scratch: &Scratch,
) -> Result<Found> {
    let snapshot = chain.newest()?;
    let mut found = Found::default();
    let mut stubs = Stubs::new();
    match bring_back(stop, chain, ledger, repository, scratch.store()?).await {
        Ok(restored) => (found.report, stubs) = restored,
        // Neither says anything about the snapshot: the drill did not take place.
        Err(error @ (TaskError::Stopping | TaskError::Repository(_))) => return Err(error),
        Err(error) => {
            found.problems.push(error.to_string());
            found.report.snapshot.clone_from(&snapshot.row.id);
            found.report.frames = chain.frames();
        }
    }
    crash_point::reached("drill.restored");
    if stop.is_asked() {
        return Err(TaskError::Stopping);
    }
    found.problems.extend(check_counts(scratch.store()?, &found.report).await?);
    let since = snapshot.row.ledger_position;
    found.erased_reappeared = find_erased(scratch.store()?, (ledger, since), &snapshot.schema.tables, &stubs).await?;
    let report = &found.report;
    if found.erased_reappeared > 0 {
        let rows = found.erased_reappeared;
        found.problems.push(format!("{rows} rows that were erased since are in the restored database"));
    }
    if !report.is_whole() {
        let (frames, rows) = ([report.frames_lost, report.frames_corrupt], lost_rows(report));
        found.problems.push(format!(
            "{} frames are lost and {} corrupt, {} rows lost and {} damaged",
            frames[0], frames[1], rows[0], rows[1]
        ));
    }
    Ok(found)
}

/// Rows that are lost, and rows that are damaged or too many.
fn lost_rows(report: &RestoreReport) -> [u64; 2] {
    let sum = |of: fn(&RestoredCollection) -> u64| report.collections.iter().map(of).sum();
    [sum(|counts| counts.lost), sum(|counts| counts.corrupt)]
}

/// The secrets of all living cells of the installation, whichever snapshot they belong to.
pub(super) async fn reachable_secrets(ground: &Ground<'_>) -> Result<Vec<CellSecret>> {
    let mut tx = ground.control.begin().await?;
    let mut cells = Vec::new();
    for id in tx.living_cell_ids().await? {
        cells.extend(tx.cell_by_id(id).await?);
    }
    let look = |tree: &KeyTree| cells.iter().map(|cell| cell_secret_in(tree, cell)).collect::<Vec<_>>();
    let found = ground.keyring.with_tree(&mut tx, &slots_of_cells(&cells), look).await?;
    Ok(found.into_iter().filter_map(|secret| secret.ok().flatten()).collect())
}

/// Rows of the restored database, other than key-only stubs, that the ledger erased after the snapshot was begun.
async fn find_erased(
    store: &dyn DataStore,
    (ledger, since): (&Ledger, i64),
    tables: &[Table],
    stubs: &Stubs,
) -> Result<u64> {
    let present: Vec<String> = store.catalogue().await?.tables.into_iter().map(|table| table.name).collect();
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
                let mac = ledger.mac(&table.name, &key);
                found += u64::from(ledger.erased(&mac, since) && !stubs.contains(&mac));
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

/// Tries every reachable cell secret on shredded frames of all snapshots of a chain.
async fn try_shredded_of(
    chain: &OpenChain,
    repository: &dyn ObjectStore,
    secrets: &[CellSecret],
) -> Result<([u64; 2], u64)> {
    let (mut tried, mut opened) = ([0, 0], 0);
    for part in &chain.parts {
        let ([frames, keys], found) = try_shredded(part, repository, secrets).await?;
        tried = [tried[0] + frames, tried[1].max(keys)];
        opened += found;
    }
    Ok((tried, opened))
}

/// Tries every reachable cell secret on shredded frames.
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

/// Counts the restored tables by a session that did not fill them.
async fn check_counts(store: &dyn DataStore, report: &RestoreReport) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let (mut look, _) = store.begin_restore(&[]).await?;
    for counts in &report.collections {
        let (name, expected) = (&counts.collection, counts.restored + counts.stubs);
        match look.count(name).await {
            Ok(found) if found == expected => {}
            Ok(found) => problems.push(format!("{name}: {expected} rows expected, {found} found")),
            Err(error) => problems.push(error.to_string()),
        }
    }
    look.roll_back().await?;
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Key;
    use crate::policy::registry::SecretText;
    use crate::stores::{Column, ColumnKind, Limits, StoreAddress, open as open_store};
    use crate::value::Value;

    #[tokio::test]
    async fn an_erased_row_that_is_there_again_is_found_and_a_stub_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = open_store(&StoreAddress {
            name: "drill".to_owned(),
            url: SecretText::new("sqlite://drill.db".to_owned()),
            read_url: None,
            base: folder.path().to_owned(),
            create: true,
            limits: Limits::default(),
        })
        .unwrap();
        let id = Column {
            name: "id".to_owned(),
            type_name: "TEXT".to_owned(),
            kind: Some(ColumnKind::Text),
            nullable: false,
            default: None,
            generated: false,
            numbered: false,
        };
        let table = Table {
            name: "people".to_owned(),
            columns: vec![id],
            key: vec!["id".to_owned()],
            unique: Vec::new(),
            foreign_keys: Vec::new(),
            triggers: Vec::new(),
            rows_may_be_hidden: false,
            index_statements: Vec::new(),
        };
        let tables = [table];
        let row = |id: &str| vec![Value::Text(id.to_owned())];
        let (mut into, _) = store.begin_restore(&tables).await.unwrap();
        into.insert("people", &["id".to_owned()], &[row("gone"), row("stays")]).await.unwrap();
        into.finish(false).await.unwrap();
        let ledger = Ledger::for_test("shop", Key::dangerous_from_bytes(&[7; 32]), &[("people", RowKey(row("gone")))]);
        assert_eq!(find_erased(store.as_ref(), (&ledger, 0), &tables, &Stubs::new()).await.unwrap(), 1);
        let stubs = Stubs::from([ledger.mac("people", &RowKey(row("gone")))]);
        assert_eq!(find_erased(store.as_ref(), (&ledger, 0), &tables, &stubs).await.unwrap(), 0);
    }
}
