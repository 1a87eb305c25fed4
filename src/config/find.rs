//! Which configuration file counts: the first of five places.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ConfigError;

/// The file's name in the folders where it is looked for.
const FILE_NAME: &str = "wangchuan.toml";
const SYSTEM_FILE: &str = "/etc/wangchuan/wangchuan.toml";

/// What the search depends on.
pub struct Surroundings<'a> {
    /// An environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The working directory.
    pub working_directory: &'a Path,
    /// The file for the whole system, `/etc/wangchuan/wangchuan.toml`.
    pub system_file: &'a Path,
}

impl<'a> Surroundings<'a> {
    /// The process's own surroundings.
    #[must_use]
    pub fn of_process(variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { variable, working_directory: Path::new("."), system_file: Path::new(SYSTEM_FILE) }
    }
}

/// Why a file counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `--config`.
    Flag,
    /// `$WANGCHUAN_CONFIG`.
    Variable,
    /// `./wangchuan.toml`, owned by the user.
    WorkingDirectory,
    /// The user's configuration folder.
    User,
    /// `/etc/wangchuan/`.
    System,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "named by --config",
            Self::Variable => "named by $WANGCHUAN_CONFIG",
            Self::WorkingDirectory => "in the working directory, and yours",
            Self::User => "in your configuration folder",
            Self::System => "the system's",
        })
    }
}

/// The file that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Why this one.
    pub origin: Origin,
    /// Earlier places, with the reason each was passed over.
    pub passed_over: Vec<String>,
}

/// Finds the configuration file. One that is named explicitly counts even if it does not exist: reading it then fails,
/// instead of another file being taken silently.
///
/// # Errors
/// When there is none; the error lists the places.
pub fn find(flag: Option<&Path>, surroundings: &Surroundings<'_>) -> Result<Found, ConfigError> {
    let mut passed_over = Vec::new();
    if let Some(path) = flag {
        return Ok(Found { path: path.to_owned(), origin: Origin::Flag, passed_over });
    }
    if let Some(path) = set(surroundings, "WANGCHUAN_CONFIG") {
        return Ok(Found { path, origin: Origin::Variable, passed_over });
    }
    passed_over.push("$WANGCHUAN_CONFIG (not set)".to_owned());
    let local = surroundings.working_directory.join(FILE_NAME);
    match fs::metadata(&local) {
        Ok(metadata) if own_user().is_some_and(|user| user == metadata.uid()) => {
            return Ok(Found { path: local, origin: Origin::WorkingDirectory, passed_over });
        }
        // Somebody else's file in a shared folder must not command the user's own agent.
        Ok(_) => passed_over.push(format!("{} (owned by another user)", local.display())),
        Err(_) => passed_over.push(format!("{} (not there)", local.display())),
    }
    let user_folder = set(surroundings, "XDG_CONFIG_HOME")
        .filter(|folder| folder.is_absolute())
        .or_else(|| set(surroundings, "HOME").map(|home| home.join(".config")));
    let user_file = user_folder.map(|folder| folder.join("wangchuan").join(FILE_NAME));
    let rest = [(user_file, Origin::User), (Some(surroundings.system_file.to_owned()), Origin::System)];
    for (path, origin) in rest {
        let Some(path) = path else { continue };
        if path.is_file() {
            return Ok(Found { path, origin, passed_over });
        }
        passed_over.push(format!("{} (not there)", path.display()));
    }
    Err(ConfigError::NotFound { looked_for: passed_over })
}

fn set(surroundings: &Surroundings<'_>, name: &str) -> Option<PathBuf> {
    (surroundings.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The effective user of this process, which owns its own entry in /proc.
fn own_user() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}
