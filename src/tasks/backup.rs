//! `backup`: takes a full snapshot of a store.
//!
//! Order of durability: slots and sealing history, then packs, then directory, then the agent's state in the second place, then
//! manifest, then the control-database row that commits it. A crash anywhere leaves a snapshot that is not committed; its chain key dies with the next re-key.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::TimeDelta;

use crate::backup::codec::{Id128, Sha256};
use crate::backup::directory::{CellRef, DirectoryBuilder, FrameEntry, SealedPart};
use crate::backup::frame::seal_frame;
use crate::backup::group::{ColumnGroup, group_columns, split_rows};
use crate::backup::manifest::{Manifest, PackRef, PartRef, SnapshotKind};
use crate::backup::object_store::ObjectStore;
use crate::backup::pack::PackBuilder;
use crate::backup::schema::{CapturedCollection, CapturedSchema};
use crate::control::{BucketName, CellRow, SlotTable, SnapshotRow, Tx, time_text};
use crate::crash_point;
use crate::erase::fate::bucket_of_row;
use crate::erase::planner::subject_lookup;
use crate::erase::survey::{OPEN, Shape, start_kind};
use crate::erase::{Ground, Site};
use crate::installation::{LEASE_SECONDS, ManifestSigner, WORK_LEASE, settle_interrupted};
use crate::keyring::{KeyringError, Purpose, cell_secret_in, slots_of_cells};
use crate::keys::Key;
use crate::keys::cell::{derive_chain_part_key, derive_frame_key};
use crate::keys::suite::Suite;
use crate::keys::tree::{KeyTree, Slot, Subtree};
use crate::plan::digest::row_mac;
use crate::plan::model::Collection;
use crate::policy::calendar::bucket_of;
use crate::policy::classification::{Cipher, classify, undeclared_cipher};
use crate::policy::start::{StartEvent, read_start};
use crate::stores::{ColumnRef, Filter, RowQuery, Snapshot};
use crate::value::{Row, Value, encode_values};

use super::{Result, TaskError};

/// Rows read at once.
const PAGE: u32 = 1000;
/// Row bytes collected before they are sorted by cell and sealed; bounds the memory of a snapshot.
const BUFFER_BYTES: usize = 32 << 20;
/// The purpose that separates directory keys from other chain keys.
pub const DIRECTORY_PURPOSE: &str = "directory";

/// What a cell is known by before it has slots: its subject's digest (empty without one) and its bucket.
type CellName = (Vec<u8>, BucketName);

/// Takes a full snapshot of a store and commits it.
///
/// # Errors
/// When the store, the bucket, the keys or the control database fail; nothing is committed then.
pub async fn take_snapshot(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    store: &str,
) -> Result<SnapshotRow> {
    let site = ground.site(store).ok_or_else(|| TaskError::Unknown {
        what: format!("store {store} is not registered or cannot be reached"),
        advice: "see `wangchuan store list` and `wangchuan store check`".to_owned(),
    })?;
    settle_interrupted(ground.control, repository, ground.clock.now()).await?;
    let begun = begin(ground, store).await?;
    crash_point::reached("backup.begun");
    let number = begun.row.number;
    let taken = seal_and_commit(ground, repository, signer, site, begun).await;
    if taken.is_err() {
        // Without this the snapshot would count as running, and no key could die, until the next start. A failure after the
        // manifest was announced leaves open whether it was stored; that is settled by looking.
        let mut tx = ground.control.begin().await?;
        if tx.running_snapshot_rows().await?.iter().any(|row| row.number == number && row.manifest.is_none()) {
            tx.cancel_snapshot(number).await?;
        }
        tx.commit().await?;
    }
    taken
}

async fn seal_and_commit(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    site: &Site,
    begun: Begun,
) -> Result<SnapshotRow> {
    let mut view = site.store.open_snapshot().await?;
    let mut sealer = Sealer::new(ground, repository, &begun);
    let mut captured = Vec::new();
    for (number, collection) in site.model.collections.iter().enumerate() {
        let rows = sealer.seal_collection(site, collection, number as u32, view.as_mut()).await?;
        captured.push(CapturedCollection { number: number as u32, table: collection.table.name.clone(), rows });
    }
    view.close().await?;
    let schema = CapturedSchema {
        engine: site.store.engine(),
        server_version: site.store.server_version().await?,
        tables: site.model.collections.iter().map(captured_table).collect(),
        collections: captured,
    };
    let sealed = sealer.finish(schema).await?;
    crash_point::reached("backup.directory-stored");
    commit(ground, repository, signer, begun, sealed).await
}

/// A table as captured: with the key that rows are known by.
fn captured_table(collection: &Collection) -> crate::stores::Table {
    let mut table = collection.table.clone();
    table.key.clone_from(&collection.key);
    table
}

struct Begun {
    row: SnapshotRow,
    installation: Id128,
    store_id: Id128,
    previous: Option<Sha256>,
    chain_key: Key,
    suppression: Key,
    lookup: Key,
    /// The token of the work lease when it began: whoever takes the lease over settles it, and it must not commit then.
    token: Option<i64>,
    pinned: HashMap<(Vec<u8>, String), i64>,
}

/// The opaque id by which the bucket knows a store.
pub async fn store_id(tx: &mut Tx, ground: &Ground<'_>, store: &str) -> Result<Id128> {
    let name = format!("store_id:{store}");
    if let Some(text) = tx.meta(&name).await? {
        return Id128::parse(&text)
            .ok_or_else(|| TaskError::Inconsistent(format!("the opaque id of store {store} is damaged")));
    }
    let id = Id128::make(ground.random)?;
    tx.set_meta(&name, &id.to_string()).await?;
    Ok(id)
}

async fn begin(ground: &Ground<'_>, store: &str) -> Result<Begun> {
    let now = ground.clock.now();
    let mut tx = ground.control.begin().await?;
    let earlier = tx.snapshots(Some(store)).await?;
    let last = earlier.last();
    let sequence = last.map_or(1, |row| row.sequence + 1);
    let previous = match last.and_then(|row| row.manifest_sha256.as_deref()) {
        Some(text) => Some(
            Sha256::parse(text).ok_or_else(|| TaskError::Inconsistent("a manifest digest is damaged".to_owned()))?,
        ),
        None => None,
    };
    let chain = ground.keyring.free_numbers(&mut tx, SlotTable::Chain, 1).await?[0];
    let chain_key = Key::make(ground.random)?;
    let copy = Key::dangerous_from_bytes(chain_key.dangerous_bytes());
    ground.keyring.insert(&mut tx, &[(Slot::new(Subtree::Chains, chain).map_err(KeyringError::from)?, copy)]).await?;
    tx.add_chain(chain, store, now).await?;
    let id = Id128::make(ground.random)?;
    let ledger_position = tx.ledger_head().await?;
    let number = tx.begin_snapshot(&id.to_string(), store, chain, sequence, now).await?;
    let begun = Begun {
        row: SnapshotRow {
            number,
            id: id.to_string(),
            store: store.to_owned(),
            chain,
            kind: "full".to_owned(),
            ledger_position,
            sequence,
            state: "running".to_owned(),
            manifest: None,
            manifest_sha256: None,
            rows: 0,
            frames: 0,
            bytes: 0,
            begun_at: now,
            committed_at: None,
        },
        installation: Id128(tx.installation().await?),
        store_id: store_id(&mut tx, ground, store).await?,
        previous,
        chain_key,
        suppression: ground.keyring.work_key(&mut tx, Purpose::Suppression, "").await?,
        lookup: ground.keyring.work_key(&mut tx, Purpose::Lookup, "").await?,
        token: tx.held_token(WORK_LEASE).await?,
        pinned: tx.pinned_cells().await?,
    };
    tx.commit().await?;
    Ok(begun)
}

impl Begun {
    /// Makes sure, inside a writing transaction, that the work lease was not lost meanwhile, and keeps it.
    async fn keep_lease(&self, ground: &Ground<'_>, tx: &mut Tx) -> Result<()> {
        if let Some(token) = self.token {
            let now = ground.clock.now();
            tx.extend_lease(WORK_LEASE, token, now, now + TimeDelta::seconds(LEASE_SECONDS)).await?;
        }
        Ok(())
    }
}

struct Sealed {
    packs: Vec<PackRef>,
    directory: Vec<PartRef>,
    rows: i64,
    frames: u64,
}

struct Sealer<'a> {
    ground: &'a Ground<'a>,
    repository: &'a dyn ObjectStore,
    begun: &'a Begun,
    snapshot: Id128,
    pack: PackBuilder,
    packs: Vec<PackRef>,
    entries: Vec<FrameEntry>,
    chunks: u32,
    rows: i64,
}

impl<'a> Sealer<'a> {
    fn new(ground: &'a Ground<'a>, repository: &'a dyn ObjectStore, begun: &'a Begun) -> Self {
        let snapshot = Id128::parse(&begun.row.id).unwrap_or(Id128([0; 16]));
        // The first pack gets a fresh id before its first frame; this one is never used.
        let pack = PackBuilder::new(Id128([0; 16]));
        Self { ground, repository, begun, snapshot, pack, packs: Vec::new(), entries: Vec::new(), chunks: 0, rows: 0 }
    }

    /// Seals all rows of a collection, sorted by cell within the memory bound.
    async fn seal_collection(
        &mut self,
        site: &Site,
        collection: &Collection,
        number: u32,
        view: &mut dyn Snapshot,
    ) -> Result<u64> {
        let shape = Shape::of(collection);
        let groups = group_columns(&suites(collection));
        let stored: Vec<&str> = collection
            .table
            .columns
            .iter()
            .filter(|column| !column.generated)
            .map(|column| column.name.as_str())
            .collect();
        let mut query: RowQuery = shape.query(collection, Filter::All);
        query.columns.extend(stored.iter().map(|column| ColumnRef::own(column)));
        query.limit = PAGE;
        let mut buffer: BTreeMap<CellName, Vec<([u8; 16], Row)>> = BTreeMap::new();
        let (mut buffered, mut total) = (0, 0_u64);
        loop {
            let page = view.read(&query).await?;
            let last = page.len() < PAGE as usize;
            for mut row in page {
                let content = row.split_off(shape.width());
                let read = shape.read(row);
                query.after = Some(read.key.clone());
                buffered += encode_values(&content).len();
                total += 1;
                let name = self.cell_name(site, collection, read.subject.as_ref(), read.start.as_ref());
                let mac = row_mac(&self.begun.suppression, &site.model.spec.name, &collection.table.name, &read.key);
                buffer.entry(name).or_default().push((mac, content));
            }
            if buffered >= BUFFER_BYTES || last {
                self.seal_buffer(number, &groups, std::mem::take(&mut buffer)).await?;
                buffered = 0;
            }
            if last {
                return Ok(total);
            }
        }
    }

    fn cell_name(
        &self,
        site: &Site,
        collection: &Collection,
        subject: Option<&crate::plan::Subject>,
        start: Option<&Value>,
    ) -> CellName {
        let zone = site.model.spec.timezone;
        let period = collection.governed.as_ref().zip(start).and_then(|(governed, value)| {
            match read_start(value, start_kind(governed.start.kind), zone, self.begun.row.begun_at) {
                StartEvent::At(at) => bucket_of(at, governed.policy.bucket, zone).ok().map(|period| period.to_string()),
                _ => None,
            }
        });
        let lookup = subject.map(|subject| subject_lookup(&self.begun.lookup, subject).to_vec()).unwrap_or_default();
        (lookup, bucket_of_row(&site.model.spec.name, collection, period.as_deref().unwrap_or(OPEN)))
    }

    /// Makes slots and sealing history durable, then seals the rows into packs.
    async fn seal_buffer(
        &mut self,
        collection: u32,
        groups: &[ColumnGroup],
        buffer: BTreeMap<CellName, Vec<([u8; 16], Row)>>,
    ) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let mut tx = self.ground.control.begin().await?;
        self.begun.keep_lease(self.ground, &mut tx).await?;
        let cells = resolve_cells(self.ground, &mut tx, &self.begun.pinned, buffer.keys()).await?;
        let mut history = Vec::new();
        for (name, rows) in &buffer {
            let cell = cells.get(name).ok_or_else(|| TaskError::Inconsistent("a cell was not resolved".to_owned()))?;
            history.extend(rows.iter().map(|(mac, _)| (*mac, cell.id)));
        }
        tx.note_sealed_rows(self.begun.row.number, &history).await?;
        let find = |tree: &KeyTree| {
            let lost = || KeyringError::Lost("a cell of living rows".to_owned());
            let secret = |cell| cell_secret_in(tree, cell)?.ok_or_else(lost);
            cells
                .iter()
                .map(|(name, cell)| Ok::<_, KeyringError>((name.clone(), secret(cell)?)))
                .collect::<Result<HashMap<_, _>, _>>()
        };
        let slots = slots_of_cells(cells.values());
        let secrets = self.ground.keyring.with_tree(&mut tx, &slots, find).await??;
        tx.commit().await?;
        for (name, rows) in buffer {
            let (Some(cell), Some(secret)) = (cells.get(&name), secrets.get(&name)) else { continue };
            self.rows += rows.len() as i64;
            let rows = rows.into_iter().map(|(_, row)| row).collect();
            for chunk in split_rows(collection, self.chunks, groups, rows)? {
                self.chunks += 1;
                for (group, content) in chunk.into_iter().enumerate() {
                    let suite = groups.get(group).map_or(Suite::Intl, |group| group.suite);
                    if self.pack.is_empty() {
                        self.pack = PackBuilder::new(Id128::make(self.ground.random)?);
                    }
                    let id = Id128::make(self.ground.random)?;
                    let key = derive_frame_key(suite, secret, &self.begun.chain_key, &id.0);
                    let frame =
                        seal_frame(&content, suite, id, &key, &self.pack.next_context(self.begun.installation))?;
                    let place = self.pack.append(&frame)?;
                    self.entries.push(FrameEntry {
                        pack: self.packs.len() as u32,
                        ordinal: place.ordinal,
                        offset: place.offset,
                        length: place.length,
                        cell: CellRef { subject: cell.subject, bucket: cell.bucket, pin: cell.fresh },
                        collection,
                        chunk: content.chunk,
                        group: group as u8,
                        suite,
                        rows: content.rows.len() as u32,
                    });
                    if self.pack.is_full() {
                        self.store_pack().await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn store_pack(&mut self) -> Result<()> {
        let pack = std::mem::replace(&mut self.pack, PackBuilder::new(Id128([0; 16]))).finish();
        let reference = PackRef { sha256: pack.sha256, bytes: pack.bytes.len() as u64, frames: pack.frames };
        self.repository.put_if_absent(&pack.name(), pack.bytes).await?;
        self.packs.push(reference);
        let mut tx = self.ground.control.begin().await?;
        self.begun.keep_lease(self.ground, &mut tx).await?;
        tx.commit().await?;
        crash_point::reached("backup.pack-stored");
        Ok(())
    }

    async fn finish(mut self, schema: CapturedSchema) -> Result<Sealed> {
        if !self.pack.is_empty() {
            self.store_pack().await?;
        }
        let frames = self.entries.len() as u64;
        let chain_key = &self.begun.chain_key;
        let part_key = |id: &Id128| derive_chain_part_key(Suite::Intl, chain_key, DIRECTORY_PURPOSE, &id.0);
        let mut builder = DirectoryBuilder::new(self.begun.installation, self.snapshot, &part_key, self.ground.random);
        let mut parts: Vec<SealedPart> = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            parts.extend(builder.push(entry)?);
        }
        parts.extend(builder.finish(schema)?);
        let mut directory = Vec::new();
        for part in parts {
            directory.push(PartRef { sha256: part.sha256, bytes: part.bytes.len() as u64 });
            self.repository.put_if_absent(&part.name(), part.bytes).await?;
        }
        Ok(Sealed { packs: self.packs, directory, rows: self.rows, frames })
    }
}

/// The suite of every column; none for columns that the engine computes.
fn suites(collection: &Collection) -> Vec<Option<Suite>> {
    collection
        .table
        .columns
        .iter()
        .map(|column| {
            let cipher =
                collection.spec.fields.get(&column.name).map_or_else(undeclared_cipher, |field| classify(field).cipher);
            (!column.generated).then_some(match cipher {
                Cipher::Aes => Suite::Intl,
                Cipher::Sm4 => Suite::Gm,
            })
        })
        .collect()
}

/// Finds or makes the cells of these names: pinned cells first, then subject and bucket slots, new ones where missing.
async fn resolve_cells<'n>(
    ground: &Ground<'_>,
    tx: &mut Tx,
    pinned: &HashMap<(Vec<u8>, String), i64>,
    names: impl Iterator<Item = &'n CellName>,
) -> Result<HashMap<CellName, CellRow>> {
    let mut cells = HashMap::new();
    let mut open: Vec<&CellName> = Vec::new();
    for name in names {
        match pinned.get(&(name.0.clone(), name.1.text())) {
            Some(id) => {
                let cell = tx.living_cell(*id).await?;
                cells.insert(
                    name.clone(),
                    cell.ok_or_else(|| TaskError::Inconsistent("a pinned cell is missing".to_owned()))?,
                );
            }
            None => open.push(name),
        }
    }
    let subjects = resolve_subjects(ground, tx, &open).await?;
    let buckets = resolve_buckets(ground, tx, &open).await?;
    for name in open {
        let bucket =
            *buckets.get(&name.1).ok_or_else(|| TaskError::Inconsistent("a bucket was not resolved".to_owned()))?;
        let cell = tx.cell(subjects.get(&name.0).copied(), bucket).await?;
        cells.insert(name.clone(), cell);
    }
    Ok(cells)
}

async fn resolve_subjects(ground: &Ground<'_>, tx: &mut Tx, names: &[&CellName]) -> Result<HashMap<Vec<u8>, u32>> {
    let digests: HashSet<[u8; 32]> =
        names.iter().filter_map(|(lookup, _)| <[u8; 32]>::try_from(lookup.as_slice()).ok()).collect();
    let digests: Vec<[u8; 32]> = digests.into_iter().collect();
    let mut slots = tx.subject_slots(&digests).await?;
    let missing: Vec<[u8; 32]> = digests.into_iter().filter(|digest| !slots.contains_key(digest)).collect();
    let numbers = ground.keyring.free_numbers(tx, SlotTable::Subject, missing.len()).await?;
    let (mut keys, mut subjects) = (Vec::new(), Vec::new());
    for (digest, number) in missing.into_iter().zip(numbers) {
        keys.push((Slot::new(Subtree::Subjects, number).map_err(KeyringError::from)?, Key::make(ground.random)?));
        subjects.push((number, digest));
        slots.insert(digest, number);
    }
    tx.add_subjects(&subjects).await?;
    if !keys.is_empty() {
        ground.keyring.insert(tx, &keys).await?;
    }
    Ok(slots.into_iter().map(|(digest, slot)| (digest.to_vec(), slot)).collect())
}

async fn resolve_buckets(ground: &Ground<'_>, tx: &mut Tx, names: &[&CellName]) -> Result<HashMap<BucketName, u32>> {
    let wanted: HashSet<&BucketName> = names.iter().map(|(_, bucket)| bucket).collect();
    let mut slots = HashMap::new();
    let mut missing = Vec::new();
    for name in wanted {
        match tx.bucket_slot(name).await? {
            Some(slot) => {
                slots.insert(name.clone(), slot);
            }
            None => missing.push(name),
        }
    }
    let numbers = ground.keyring.free_numbers(tx, SlotTable::Bucket, missing.len()).await?;
    let mut keys = Vec::new();
    for (name, number) in missing.into_iter().zip(numbers) {
        keys.push((Slot::new(Subtree::Buckets, number).map_err(KeyringError::from)?, Key::make(ground.random)?));
        tx.add_bucket(number, name).await?;
        slots.insert(name.clone(), number);
    }
    if !keys.is_empty() {
        ground.keyring.insert(tx, &keys).await?;
    }
    Ok(slots)
}

async fn commit(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    begun: Begun,
    sealed: Sealed,
) -> Result<SnapshotRow> {
    let now = ground.clock.now();
    let manifest = Manifest {
        format_version: crate::backup::manifest::FORMAT_VERSION,
        installation: begun.installation,
        store: begun.store_id,
        snapshot: Id128::parse(&begun.row.id).unwrap_or(Id128([0; 16])),
        kind: SnapshotKind::Full,
        chain: u64::from(begun.row.chain),
        sequence: begun.row.sequence as u64,
        previous: begun.previous,
        ledger_position: begun.row.ledger_position as u64,
        begun: begun.row.begun_at,
        committed: now,
        packs: sealed.packs,
        directory: sealed.directory,
        frames: sealed.frames,
    };
    let signed = manifest.sign(signer.key_id(), &|pae| signer.sign(pae))?;
    let mut row = begun.row.clone();
    row.bytes = (manifest.stored_bytes() + signed.bytes.len() as u64) as i64;
    row.rows = sealed.rows;
    row.frames = sealed.frames as i64;
    row.manifest = Some(signed.name.clone());
    row.manifest_sha256 = Some(signed.sha256.to_string());
    let cancelled = || TaskError::refused("the snapshot was cancelled while it was taken", "take another one");
    let mut tx = ground.control.begin().await?;
    begun.keep_lease(ground, &mut tx).await?;
    if !tx.intend_manifest(&row).await? {
        return Err(cancelled());
    }
    tx.commit().await?;
    // Without its keys, cells and sealing history in the second place a snapshot would be lost with this host.
    ground.keyring.seal_state(ground.control, ground.clock).await?;
    repository.put_if_absent(&signed.name, signed.bytes).await?;
    crash_point::reached("backup.manifest-stored");
    let mut tx = ground.control.begin().await?;
    begun.keep_lease(ground, &mut tx).await?;
    if !tx.commit_snapshot(row.number, now).await? {
        return Err(cancelled());
    }
    tx.set_meta("last_backup", &time_text(now)).await?;
    tx.commit().await?;
    "committed".clone_into(&mut row.state);
    row.committed_at = Some(now);
    Ok(row)
}
