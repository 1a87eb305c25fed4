//! The quickstart: a working directory with a sample shop, in which the whole cycle runs once.

pub mod shop;

use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use thiserror::Error;

use self::shop::{Settings, Shop};
use crate::policy::registry::SecretText;
use crate::stores::{Limits, StoreAddress, StoreError};

/// The job files of the shipped calendar, by name.
pub const JOBS: &[(&str, &str)] = &[
    ("backup-full.toml", include_str!("../../jobs/backup-full.toml")),
    ("backup-nightly.toml", include_str!("../../jobs/backup-nightly.toml")),
    ("drill.toml", include_str!("../../jobs/drill.toml")),
    ("outbox.toml", include_str!("../../jobs/outbox.toml")),
    ("prune.toml", include_str!("../../jobs/prune.toml")),
    ("requests.toml", include_str!("../../jobs/requests.toml")),
    ("retention.toml", include_str!("../../jobs/retention.toml")),
    ("roll-up.toml", include_str!("../../jobs/roll-up.toml")),
    ("shred.toml", include_str!("../../jobs/shred.toml")),
    ("verify.toml", include_str!("../../jobs/verify.toml")),
];

const CONFIGURATION: &str = include_str!("configuration.toml");

/// Why no working directory was made.
#[derive(Debug, Error)]
pub enum QuickstartError {
    /// The directory is not empty.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The sample database cannot be made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A working directory that was just made.
pub struct Prepared {
    /// Its configuration file, under another name until the installation is [complete](Prepared::complete).
    pub configuration: PathBuf,
    /// The shop in it.
    pub shop: Shop,
}

impl Prepared {
    /// Gives the configuration its name, once all that it speaks of is there. A directory without it is no installation, and
    /// whoever finds it so knows that nothing in it is worth finishing.
    ///
    /// # Errors
    /// When the file cannot be renamed.
    pub fn complete(&self) -> Result<(), QuickstartError> {
        let path = self.configuration.with_file_name("wangchuan.toml");
        std::fs::rename(&self.configuration, &path).map_err(|source| QuickstartError::Io { path, source })
    }
}

/// Makes the working directory: configuration, jobs, and a shop with this many customers.
///
/// # Errors
/// When the directory is not empty or something cannot be written.
pub async fn prepare(directory: &Path, now: DateTime<Utc>, customers: u32) -> Result<Prepared, QuickstartError> {
    let occupied = directory.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        return Err(QuickstartError::NotEmpty(directory.to_owned()));
    }
    let jobs = directory.join("jobs");
    std::fs::create_dir_all(&jobs).map_err(|source| QuickstartError::Io { path: jobs.clone(), source })?;
    for (name, text) in JOBS {
        write(&jobs.join(name), text)?;
    }
    let shop = Shop::generate(&Settings { customers, ..Settings::standard(now) });
    fill(directory, &shop).await?;
    crate::crash_point::reached("quickstart.shop-filled");
    let configuration = directory.join("wangchuan.toml.part");
    write(&configuration, CONFIGURATION)?;
    Ok(Prepared { configuration, shop })
}

/// Writes a text file.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &str) -> Result<(), QuickstartError> {
    std::fs::write(path, text).map_err(|source| QuickstartError::Io { path: path.to_owned(), source })
}

/// Rows inserted at once.
const INSERT_ROWS: usize = 1000;

async fn fill(directory: &Path, shop: &Shop) -> Result<(), QuickstartError> {
    let store = crate::stores::open(&StoreAddress {
        name: "shop".to_owned(),
        url: SecretText::new("sqlite://shop.db".to_owned()),
        read_url: None,
        base: directory.to_owned(),
        create: true,
        limits: Limits::default(),
    })?;
    let (mut into, _) = store.begin_restore(&shop.tables).await?;
    for (table, rows) in shop.iter() {
        let columns = shop.columns_of(&table.name);
        for rows in rows.chunks(INSERT_ROWS) {
            into.insert(&table.name, &columns, rows).await?;
        }
    }
    into.finish(false).await?;
    Ok(())
}
