//! Where a drill restores to: customers in clear, so in a place of its own, which is wiped whatever happens.
//!
//! A SQLite store gets a file that only the agent can read, in a folder that only the agent can enter. A server store gets a
//! database of its own on the server that the configuration names for it. What an interrupted drill left is removed by the
//! next one, and when the agent starts; drills run under the lease, so there is never another of the same installation.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Configuration;
use crate::installation::{Installation, state_folder};
use crate::policy::registry::SecretText;
use crate::stores::{DataStore, Engine, Finding, Limits, SCRATCH_PREFIX, ScratchServer, StoreAddress, open_scratch};
use crate::tasks::{Result, TaskError};

/// Before the name of a store: the scratch database that a drill of it uses, kept until it is removed.
const IN_USE: &str = "drill_scratch:";

/// A drill's database.
pub(super) struct Scratch {
    store: Option<Arc<dyn DataStore>>,
    place: Place,
}

enum Place {
    File(PathBuf),
    Server { server: Arc<dyn ScratchServer>, name: String, note: String },
}

/// What begins the names of all scratch databases of an installation.
fn names_begin(installation: [u8; 16]) -> String {
    format!("{SCRATCH_PREFIX}{}_", &hex::encode(installation)[..12])
}

/// The server for a store's drills. None for one that is drilled in a file.
///
/// # Errors
/// Refused, with the configuration that is missing.
fn server_of(config: &Configuration, store: &str, engine: Engine) -> Result<Option<Arc<dyn ScratchServer>>> {
    let (engine, example) = match engine {
        Engine::Sqlite => return Ok(None),
        Engine::Postgres => ("PostgreSQL", "postgres://LOGIN@HOST/postgres"),
        Engine::Mysql => ("MariaDB", "mysql://LOGIN@HOST/"),
    };
    match config.drill.scratch.get(store) {
        Some(url) => Ok(Some(open_scratch(store, url)?)),
        None => Err(TaskError::refused(
            format!("no {engine} server is named on which store {store} could be drilled"),
            format!("add `{store} = \"{example}\"` under `[drill.scratch]` in the configuration"),
        )),
    }
}

/// What stands in the way of drills of a store, with what to do; tried for real, with a scratch database named after
/// `probe`. Empty when a drill is possible.
///
/// # Errors
/// Refused when the configuration names no server; when that cannot be reached.
pub async fn obstacles(installation: &Installation, store: &str, engine: Engine, probe: &str) -> Result<Vec<Finding>> {
    match server_of(&installation.config, store, engine)? {
        Some(server) => Ok(server.obstacles(&name_of(installation, probe)).await?),
        None => Ok(Vec::new()),
    }
}

fn name_of(installation: &Installation, id: &str) -> String {
    format!("{}{}", names_begin(installation.id()), id.replace('-', ""))
}

impl Scratch {
    /// Makes a scratch for the drill `id`; what an interrupted drill left is removed first.
    pub(super) async fn make(installation: &Installation, id: &str, store: &str, engine: Engine) -> Result<Self> {
        let Some(server) = server_of(&installation.config, store, engine)? else {
            return Self::in_file(installation, id);
        };
        let begin = names_begin(installation.id());
        for left in server.databases(&begin).await? {
            server.remove(&left).await?;
        }
        let name = name_of(installation, id);
        if let Some(finding) = server.obstacles(&name).await?.into_iter().next() {
            return Err(TaskError::refused(format!("store {store}: {}", finding.what), finding.remedy));
        }
        let note = format!("{IN_USE}{store}");
        remember(installation, &note, &name).await?;
        let mut scratch =
            Self { store: None, place: Place::Server { server: server.clone(), name: name.clone(), note } };
        match server.make(&name).await {
            Ok(made) => scratch.store = Some(made),
            Err(error) => {
                scratch.wipe(installation).await;
                return Err(error.into());
            }
        }
        Ok(scratch)
    }

    fn in_file(installation: &Installation, id: &str) -> Result<Self> {
        let folder = folder_of(&installation.config);
        let file = private_file(&folder, id).map_err(|error| {
            TaskError::refused(
                format!("the drill's folder {} cannot be used: {error}", folder.display()),
                "make the state folder writable for the agent and for nobody else",
            )
        })?;
        let mut scratch = Self { store: None, place: Place::File(file.clone()) };
        scratch.store = Some(crate::stores::open(&StoreAddress {
            name: "drill".to_owned(),
            url: SecretText::new(format!("sqlite://{}", file.display())),
            read_url: None,
            base: installation.config.base_dir.clone(),
            create: true,
            limits: Limits::default(),
        })?);
        Ok(scratch)
    }

    /// What people call it: a file's name or a database's.
    pub(super) fn name(&self) -> String {
        match &self.place {
            Place::File(file) => file.display().to_string(),
            Place::Server { name, .. } => name.clone(),
        }
    }

    pub(super) fn store(&self) -> Result<&dyn DataStore> {
        self.store.as_deref().ok_or_else(|| TaskError::Inconsistent("the drill's database is closed".to_owned()))
    }

    /// Removes it with everything in it. False when something may be left.
    pub(super) async fn wipe(mut self, installation: &Installation) -> bool {
        self.store = None;
        match &self.place {
            Place::File(file) => wipe_database(file),
            Place::Server { server, name, note } => {
                let gone = remove(server.as_ref(), name).await;
                gone && forget(installation, note).await.is_ok()
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.store = None;
        // A server's database cannot be removed here; it is noted, and removed by who comes next.
        if let Place::File(file) = &self.place {
            wipe_database(file);
        }
    }
}

/// Removes a database and looks whether it is gone.
async fn remove(server: &dyn ScratchServer, name: &str) -> bool {
    if let Err(error) = server.remove(name).await {
        tracing::error!(error = %error, "a drill's scratch database could not be removed");
        return false;
    }
    server.databases(name).await.is_ok_and(|left| left.is_empty())
}

async fn remember(installation: &Installation, note: &str, name: &str) -> Result<()> {
    let mut tx = installation.control.begin().await?;
    tx.set_meta(note, name).await?;
    Ok(tx.commit().await?)
}

async fn forget(installation: &Installation, note: &str) -> Result<()> {
    let mut tx = installation.control.begin().await?;
    tx.clear_meta(note).await?;
    Ok(tx.commit().await?)
}

/// Removes what interrupted drills left: files, and databases that were noted. Returns what could not be removed, as
/// sentences. Only under the lease.
///
/// # Errors
/// When the control database fails.
pub async fn remove_leftovers(installation: &Installation) -> Result<Vec<String>> {
    let folder = folder_of(&installation.config);
    if folder.exists()
        && let Err(error) = wipe_folder(&folder)
    {
        tracing::error!(error = %error, "an interrupted drill's file could not be wiped");
    }
    let noted = installation.control.read().await?.metas(IN_USE).await?;
    for (note, name) in noted {
        let Some(url) = installation.config.drill.scratch.get(note.trim_start_matches(IN_USE)) else { continue };
        if remove(open_scratch("drill", url)?.as_ref(), &name).await {
            forget(installation, &note).await?;
        }
    }
    leftovers(installation).await
}

/// What interrupted drills left, as sentences: customers in clear, to be removed. While a drill runs, its own scratch.
///
/// # Errors
/// When the control database fails.
pub async fn leftovers(installation: &Installation) -> Result<Vec<String>> {
    let folder = folder_of(&installation.config);
    let files = std::fs::read_dir(&folder).map_or(0, Iterator::count);
    let in_folder = (files > 0).then(|| format!("{} holds files of a drill that did not end", folder.display()));
    let noted = installation.control.read().await?.metas(IN_USE).await?;
    let in_servers = noted.into_iter().map(|(note, name)| {
        let store = note.trim_start_matches(IN_USE);
        format!("the scratch database {name} of a drill of store {store} that did not end is still there")
    });
    Ok(in_folder.into_iter().chain(in_servers).collect())
}

fn folder_of(config: &Configuration) -> PathBuf {
    state_folder(config).join("drill")
}

/// An empty file that only the agent can read, in a folder that only the agent can enter.
fn private_file(folder: &Path, id: &str) -> std::io::Result<PathBuf> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    wipe_folder(folder)?;
    let file = folder.join(format!("{id}.db"));
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
    Ok(file)
}

fn wipe_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::read_dir(folder)?.try_for_each(|left| wipe_file(&left?.path()))
}

/// Overwrites and removes a SQLite database with its side files.
fn wipe_database(file: &Path) -> bool {
    let files = ["", "-wal", "-shm", "-journal"].map(|suffix| {
        let mut name = file.to_path_buf().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    });
    // Every file is wiped, also after one that could not be.
    files.iter().filter(|path| path.exists()).filter(|path| wipe_file(path).is_err()).count() == 0
}

/// Overwrites a file in place, and removes it.
pub(in crate::tasks) fn wipe_file(path: &Path) -> std::io::Result<()> {
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
        drop(Scratch { store: None, place: Place::File(second.clone()) });
        assert!(!second.exists());
    }

    #[test]
    fn a_scratch_database_has_a_name_that_both_engines_take_whole() {
        let name = format!("{}{}", names_begin([0xab; 16]), "01a200dd-ae98-7942-a219-b5ae24273a9e".replace('-', ""));
        assert_eq!(name, "wangchuan_drill_abababababab_01a200ddae987942a219b5ae24273a9e");
        assert!(name.len() <= 63);
    }
}
