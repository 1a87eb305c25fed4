//! Recovery of a burnt site: the control database and the signing keys are made again from bucket, root slot and configuration.
//!
//! The newest state record counts, and only that one: an older one would bring destroyed keys' rows back into use, or forget
//! erasures. Everything is checked before the database takes its name; nothing that is there is overwritten. A control database on a
//! server is first made as a file, and checked there; then it is made in one transaction of the server.
//!
//! Where a key service wraps the root, its wrapped form comes from the bucket as well: access to the service is all that is needed
//! of the slot. Wrapped roots that the service still opens are put back, older ones too, so that the start after the recovery
//! finishes their destruction.

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::second_place::{EMBEDDED_AUDIT_KEY, is_audit_embedded};
use super::services::{FORMER_AUDIT_KEYS, OPERATION_HEAD, add_audit_keys};
use super::{BackupConnection, Installation, Needs, cannot, root_slot, state_folder};
use crate::backup::codec::Id128;
use crate::backup::object_store::{ObjectStore, read_installation};
use crate::backup::state_record::{RECORDS, RecordName, RootName, StateRecord, StateRecordError};
use crate::clock::Clock;
use crate::config::Configuration;
use crate::control::{Control, ControlError, ImageLoad, StateLocation};
use crate::error::{Result, TaskError};
use crate::keyring::KeyringError;
use crate::keyring::second_place::{
    Memory, PieceReader, RootCopy, SecondPlaceError, fetch_record, fetch_root, root_names,
};
use crate::keys::slot::{Presence, RootSlot, SlotError};
use crate::keys::tree::KeyTree;
use crate::keys::{InstallationId, Key};
use crate::log::key_file::replace_durably;
use crate::random::Random;

/// What was recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Whose it is.
    pub installation: InstallationId,
    /// The number of the state record.
    pub record: u64,
    /// When its image was taken: what came later and is in no bucket or log is lost.
    pub at: DateTime<Utc>,
    /// The key generation.
    pub generation: i64,
    /// The newest position of the ledger.
    pub ledger: i64,
    /// Committed or announced snapshots.
    pub snapshots: usize,
    /// The newest certificate number.
    pub certificates: i64,
    /// Keys in the tree.
    pub keys: u64,
    /// The control database that was made.
    pub database: StateLocation,
}

/// The file made for a control database that lies on a server; removed once that has it.
const FILE_FOR_SERVER: &str = "recovered.db";

fn refused(what: impl Into<String>, advice: &str) -> TaskError {
    TaskError::refused(what, advice)
}

/// Makes the control database, as a file, and the key files again in `folder`. Neither bucket nor slot is changed.
///
/// # Errors
/// When anything there contradicts anything else; nothing is made then.
pub async fn rebuild(config: &Configuration, folder: &Path, random: Arc<dyn Random>) -> Result<Recovered> {
    rebuild_with_roots(config, folder, random).await.map(|(recovered, _)| recovered)
}

/// The same for a drill, with nothing of this host but the configuration: wrapped roots come from the bucket into a slot folder of
/// their own inside `folder`. Returns the configuration under which what was made can be opened. Where the root itself lies in the
/// slot, or was never stored wrapped, the slot is the configured one.
///
/// # Errors
/// As [`rebuild`].
pub async fn rebuild_apart(
    config: &Configuration,
    folder: &Path,
    random: Arc<dyn Random>,
) -> Result<(Recovered, Configuration)> {
    let mut apart = config.clone();
    let elsewhere = config.root.slot.with_folder(&folder.join("root")).filter(|_| config.root.previous.is_none());
    if let Some(slot) = elsewhere
        && has_wrapped_roots(config, random.as_ref()).await?
    {
        apart.root.slot = slot;
    }
    let (recovered, copies) = rebuild_with_roots(&apart, folder, random).await?;
    if apart.root != config.root {
        let slot = root_slot::open_for_recovery(&apart.root, recovered.installation)?;
        put_roots_back(slot.as_ref(), &copies).await.map_err(KeyringError::from)?;
    }
    apart.agent.state = recovered.database.clone();
    Ok((recovered, apart))
}

async fn has_wrapped_roots(config: &Configuration, random: &dyn Random) -> Result<bool> {
    let Some(bucket) = BackupConnection::look(config, random).await? else { return Ok(false) };
    let names = root_names(bucket.repository.as_ref()).await.map_err(KeyringError::from);
    bucket.close().await;
    Ok(!names?.is_empty())
}

/// [`rebuild`], with the wrapped roots that the slot should have.
async fn rebuild_with_roots(
    config: &Configuration,
    folder: &Path,
    random: Arc<dyn Random>,
) -> Result<(Recovered, Vec<RootCopy>)> {
    let bucket = BackupConnection::look(config, random.as_ref()).await?.ok_or_else(|| TaskError::Unknown {
        what: "no bucket is configured, so there is no second place to recover from".to_owned(),
        advice: "add the [backup] section of the lost installation to the configuration".to_owned(),
    })?;
    let rebuilt = rebuild_from(config, folder, bucket.repository.as_ref()).await;
    bucket.close().await;
    rebuilt
}

async fn rebuild_from(
    config: &Configuration,
    folder: &Path,
    store: &dyn ObjectStore,
) -> Result<(Recovered, Vec<RootCopy>)> {
    let database = match &config.agent.state {
        StateLocation::Sqlite(path) => folder.join(path.file_name().unwrap_or_default()),
        StateLocation::Postgres(_) => folder.join(FILE_FOR_SERVER),
    };
    if database.exists() {
        return Err(refused(
            format!("{} exists already, and recovery overwrites nothing", database.display()),
            "if it is an old copy, move it and the other files of its folder away first",
        ));
    }
    let installation = read_installation(store).await?.ok_or_else(|| TaskError::Unknown {
        what: "the bucket holds no installation under this prefix".to_owned(),
        advice: "check endpoint, bucket and prefix under [backup]".to_owned(),
    })?;
    let slot = root_slot::open_for_recovery(&config.root, installation.0)?;
    let copies = root_names(store).await.map_err(KeyringError::from)?;
    let name = choose(store, slot.as_ref(), &copies).await?;
    let (root, record, copies) = open_newest(store, slot.as_ref(), &name, installation, &copies).await?;
    std::fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))?;
    let draft = folder.join("recovering.db");
    clear(&draft)?;
    let control = load(store, &record, &name, installation, &StateLocation::Sqlite(draft.clone())).await?;
    let checked = check(store, &control, &record, installation, &root).await;
    control.close().await;
    let (snapshots, keys) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            clear(&draft)?;
            return Err(error);
        }
    };
    place_files(&record, folder)?;
    std::fs::rename(&draft, &database).map_err(|error| cannot("name", &database, &error))?;
    std::fs::File::open(folder).and_then(|file| file.sync_all()).map_err(|error| cannot("flush", folder, &error))?;
    let recovered = Recovered {
        installation: installation.0,
        record: record.number,
        at: record.at,
        generation: record.generation,
        ledger: record.heads.ledger,
        snapshots,
        certificates: record.heads.certificates,
        keys,
        database: StateLocation::Sqlite(database),
    };
    Ok((recovered, copies))
}

/// Opens the newest record: with a wrapped root from the bucket, as on a host that has nothing else, or with what is in the slot.
/// Also returns the wrapped roots that the slot should have: the one that opened it, and all older ones, which may wait for the
/// end of their destruction.
async fn open_newest(
    store: &dyn ObjectStore,
    slot: &dyn RootSlot,
    name: &RecordName,
    installation: Id128,
    copies: &[RootName],
) -> Result<(Key, StateRecord, Vec<RootCopy>)> {
    let mut wanted = Vec::new();
    let Some(wrapping) = slot.wrapping() else {
        let root = slot.open(name.generation).await.map_err(KeyringError::from)?;
        let record = fetch_record(store, name, installation.0, &root).await.map_err(KeyringError::from)?;
        return Ok((root, record, wanted));
    };
    for older in copies.iter().filter(|copy| copy.generation < name.generation) {
        wanted.push(fetch_root(store, older).await.map_err(KeyringError::from)?);
    }
    let mut refused = None;
    for copy in copies.iter().filter(|copy| copy.generation == name.generation) {
        let copy = fetch_root(store, copy).await.map_err(KeyringError::from)?;
        // There may be one of an attempt at this generation that was given up.
        let opened = match wrapping.open_copy(copy.generation, &copy.bytes).await {
            Ok(root) => fetch_record(store, name, installation.0, &root).await.map(|record| (root, record)),
            Err(error) => {
                refused = refused.or(Some(error));
                continue;
            }
        };
        match opened {
            Ok((root, record)) => {
                wanted.push(copy);
                return Ok((root, record, wanted));
            }
            Err(SecondPlaceError::Record(StateRecordError::WrongKey)) => {}
            Err(error) => return Err(KeyringError::from(error).into()),
        }
    }
    match slot.open(name.generation).await {
        Ok(root) => {
            let record = fetch_record(store, name, installation.0, &root).await.map_err(KeyringError::from)?;
            Ok((root, record, wanted))
        }
        Err(error) => Err(KeyringError::from(refused.unwrap_or(error)).into()),
    }
}

/// Makes on the configured server what [`rebuild`] made and checked as a file. All of it is there, or nothing.
async fn make_on_server(config: &Configuration, recovered: &Recovered, random: &dyn Random) -> Result<()> {
    let vanished =
        || refused("the bucket that was recovered from is gone", "find out who took it away, and recover again");
    let bucket = BackupConnection::look(config, random).await?.ok_or_else(vanished)?;
    let store = bucket.repository.as_ref();
    let made = async {
        let installation = read_installation(store).await?.ok_or_else(vanished)?;
        let slot = root_slot::open_for_recovery(&config.root, installation.0)?;
        let copies = root_names(store).await.map_err(KeyringError::from)?;
        let name = choose(store, slot.as_ref(), &copies).await?;
        let (_, record, _) = open_newest(store, slot.as_ref(), &name, installation, &copies).await?;
        if record.number != recovered.record {
            return Err(refused(
                format!(
                    "the bucket got state record {} while record {} was recovered",
                    record.number, recovered.record
                ),
                "another host is working as this installation: stop it, and look which one is right",
            ));
        }
        load(store, &record, &name, installation, &config.agent.state).await
    };
    let made = made.await;
    bucket.close().await;
    made?.close().await;
    Ok(())
}

/// Refuses a server whose schema is not empty: recovery overwrites nothing.
async fn require_empty(place: &StateLocation) -> Result<()> {
    match Control::open_at(place).await {
        Err(ControlError::Missing { .. }) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(control) => {
            control.close().await;
            Err(refused(
                format!("{} holds a control database already, and recovery overwrites nothing", place.shown()),
                "if it is an old copy, name an empty database, or another schema, in `state`",
            ))
        }
    }
}

/// Chooses the newest record, and makes sure that the slot fits it.
async fn choose(store: &dyn ObjectStore, slot: &dyn RootSlot, copies: &[RootName]) -> Result<RecordName> {
    let listed = store.list(RECORDS).await?;
    let mut names: Vec<RecordName> = listed.iter().filter_map(|object| RecordName::parse(&object.name)).collect();
    names.sort_unstable();
    let Some(newest) = names.last().copied() else {
        return Err(TaskError::Unknown {
            what: "the bucket holds no state record: nothing was ever sealed into the second place".to_owned(),
            advice: "only the lost host could open these backups".to_owned(),
        });
    };
    if names.iter().filter(|name| name.number == newest.number).count() > 1 {
        return Err(refused(
            format!("there are two state records with number {}: two hosts worked as one installation", newest.number),
            "find out which host was the right one, and move the other record away",
        ));
    }
    let present = slot.list().await.map_err(KeyringError::from)?;
    let usable: Vec<i64> =
        present.iter().filter(|root| root.presence == Presence::Usable).map(|root| root.generation).collect();
    // A copy of a root that was destroyed is there too: whether this one opens is tried.
    let copied: Vec<i64> = copies.iter().filter(|_| slot.wrapping().is_some()).map(|copy| copy.generation).collect();
    if !usable.contains(&newest.generation) && !copied.contains(&newest.generation) {
        return Err(refused(
            format!(
                "the newest state is of key generation {}, and the root slot holds {usable:?}: an older state must not be used, \
                 for it would bring destroyed keys back",
                newest.generation
            ),
            "find the right root slot; an old copy of one is of no use",
        ));
    }
    // A root one ahead belongs to a change that was not copied, or was given up: a record comes before a generation is in force.
    let unknown = usable.iter().chain(&copied).copied().find(|found| *found > newest.generation + 1);
    match unknown {
        Some(found) => Err(refused(
            format!("there is a root of generation {found}, of which the bucket has no state"),
            "check that bucket and prefix are those of the lost host",
        )),
        None => Ok(newest),
    }
}

async fn load(
    store: &dyn ObjectStore,
    record: &StateRecord,
    name: &RecordName,
    installation: Id128,
    place: &StateLocation,
) -> Result<Control> {
    let mut load = ImageLoad::begin_at(place).await?;
    let mut pieces = PieceReader::new(store, record, installation.0);
    while let Some(piece) = pieces.next().await.map_err(KeyringError::from)? {
        load.take(&piece).await?;
    }
    Ok(load.finish(&record.heads, &Memory::entries_for(name, record)).await?)
}

/// Checks what was made against the record, the key tree and the bucket. Returns the number of snapshots and of keys.
async fn check(
    store: &dyn ObjectStore,
    control: &Control,
    record: &StateRecord,
    installation: Id128,
    root: &crate::keys::Key,
) -> Result<(usize, u64)> {
    let mut tx = control.read().await?;
    let heads = (tx.ledger_head().await?, tx.snapshot_head().await?, tx.next_certificate().await?.0 - 1);
    if heads != (record.heads.ledger, record.heads.snapshots, record.heads.certificates) {
        return Err(TaskError::Inconsistent("the state record's heads are not those of its image".to_owned()));
    }
    if tx.installation().await? != installation.0 {
        return Err(TaskError::Inconsistent("the state record is of another installation".to_owned()));
    }
    let (generation, crown) = tx.tree_root().await?.ok_or(KeyringError::NoTree)?;
    if generation != record.generation {
        return Err(TaskError::Inconsistent("the state record's key tree is of another generation".to_owned()));
    }
    let nodes = crate::keyring::stored_nodes(&mut tx).await?;
    let tree = KeyTree::open(installation.0, generation, root, &crown, nodes).map_err(KeyringError::from)?;
    let survey = tree.survey();
    if !survey.missing.is_empty() || !survey.corrupt.is_empty() {
        return Err(TaskError::Inconsistent("the key tree in the state record is damaged".to_owned()));
    }
    let known = tx.manifest_names().await?;
    let mut stored = 0;
    for object in store.list("manifests/").await? {
        if !known.contains(&object.name) {
            return Err(refused(
                format!("the bucket holds the manifest {}, of which the newest state knows nothing", object.name),
                "a state record is missing from the bucket: find it before anything else is done",
            ));
        }
        stored += 1;
    }
    Ok((stored, survey.taken.iter().sum()))
}

/// Writes the files that travelled, where there is none; keys of audit logs join those that are there.
fn place_files(record: &StateRecord, folder: &Path) -> Result<()> {
    for file in &record.files {
        if file.name == EMBEDDED_AUDIT_KEY || file.name == FORMER_AUDIT_KEYS {
            add_audit_keys(folder, &String::from_utf8_lossy(&file.bytes))?;
            continue;
        }
        let path = folder.join(&file.name);
        match std::fs::read(&path) {
            Ok(there) if there == *file.bytes => {}
            Ok(_) => {
                return Err(refused(
                    format!("{} is there with another content than the lost site had", path.display()),
                    "move the files of that folder away first",
                ));
            }
            Err(_) => replace_durably(&path, &file.bytes).map_err(|error| cannot("write", &path, &error))?,
        }
    }
    set_head_aside(record.number, folder)
}

/// A head on another volume cannot be set aside from here: the link would go, and with it what it protects, unnoticed.
fn refuse_linked_head(folder: &Path) -> Result<()> {
    let head = folder.join(OPERATION_HEAD);
    if !head.is_symlink() {
        return Ok(());
    }
    Err(TaskError::refused(
        format!("{} is a link, and a recovered log begins a head of its own", head.display()),
        "keep the file that it leads to as evidence of what was lost, remove the link and recover; then move the new file there and \
         make the link again",
    ))
}

/// The operation log goes on from the state record, behind a head that was signed since: that one is kept as evidence of what was
/// lost, and no longer asked for.
fn set_head_aside(record: u64, folder: &Path) -> Result<()> {
    let head = folder.join(OPERATION_HEAD);
    if !head.exists() {
        return Ok(());
    }
    let name = |number: u32| match number {
        1 => format!("operation-log-head.before-{record}.txt"),
        _ => format!("operation-log-head.before-{record}.{number}.txt"),
    };
    // A recovery that was interrupted, or repeated, has set one aside before.
    let aside =
        (1..=u32::MAX).map(|number| folder.join(name(number))).find(|aside| !aside.exists()).unwrap_or_default();
    std::fs::rename(&head, &aside).map_err(|error| cannot("rename", &head, &error))
}

fn clear(draft: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = draft.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot("remove", draft, &error)),
        }
    }
    Ok(())
}

/// Gives the slot the wrapped roots that burnt with its folder.
async fn put_roots_back(slot: &dyn RootSlot, copies: &[RootCopy]) -> std::result::Result<(), SlotError> {
    let Some(wrapping) = slot.wrapping() else { return Ok(()) };
    for copy in copies {
        if wrapping.put_back(copy.generation, &copy.bytes).await? {
            tracing::info!(generation = copy.generation, "a wrapped root was put back from the second place");
        }
    }
    Ok(())
}

/// Recovers the configured installation: makes its control database again, settles what the lost host had begun, notes it in the
/// operation log, and seals the state anew.
///
/// # Errors
/// As [`rebuild`]; when the audit log knows more than the newest state; when the slot cannot be settled.
pub async fn recover_site(config: Configuration, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Recovered> {
    let folder = state_folder(&config);
    refuse_linked_head(&folder)?;
    let is_on_server = matches!(config.agent.state, StateLocation::Postgres(_));
    if is_on_server {
        require_empty(&config.agent.state).await?;
        // What an interrupted recovery left.
        clear(&folder.join(FILE_FOR_SERVER))?;
    }
    let (mut recovered, copies) = rebuild_with_roots(&config, &folder, random.clone()).await?;
    let mut as_file = config.clone();
    as_file.agent.state = recovered.database.clone();
    // The embedded log is read without its service.
    let needs = Needs { audit: !is_audit_embedded(&config), ..Needs::STATE };
    let looked = Installation::open(as_file, needs, clock.clone(), random.clone()).await?;
    let slot = looked.keyring.slot().clone();
    let compared = looked.compare_audit_log().await;
    looked.close().await?;
    if let Err(error) = compared {
        // It is not the newest state after all, so nothing must go on with it.
        if let StateLocation::Sqlite(file) = &recovered.database {
            clear(file)?;
        }
        return Err(error);
    }
    if is_on_server {
        make_on_server(&config, &recovered, random.as_ref()).await?;
        clear(&folder.join(FILE_FOR_SERVER))?;
        recovered.database = config.agent.state.clone();
    }
    put_roots_back(slot.as_ref(), &copies).await.map_err(KeyringError::from)?;
    // A generation change had made its root and nothing else: no state was ever sealed for it.
    let unused = recovered.generation + 1;
    if slot.list().await.map_err(KeyringError::from)?.iter().any(|root| root.generation == unused) {
        slot.destroy(unused).await.map_err(KeyringError::from)?;
    }
    let installation = Installation::open(config, Needs::ALL, clock, random).await?;
    let object = format!("state-record-{}", recovered.record);
    let logged = installation.log_operation("state.recover", &object, "success").await;
    let sealed = installation.keyring.seal_state(&installation.control, installation.clock.as_ref()).await;
    installation.close().await?;
    logged?;
    sealed?;
    Ok(recovered)
}
