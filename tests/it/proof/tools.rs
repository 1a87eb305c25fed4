//! The verifiers, and a world whose certificates they get.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::outbox::file_due;
use wangchuan::tasks::shred::shred_due;

use crate::support::announce::{PYTHON_VERIFIERS, switched_on};
use crate::support::program::Program;
use crate::support::world::{Making, World, forget, snapshot};

/// What a verifier said, by the name of what it was given.
pub type Said = BTreeMap<String, String>;

/// Runs a verifier of `tests/interop/`; it must end well, whatever it says of what it was given.
pub fn run(program: &Path, arguments: &[&Path]) -> String {
    let out = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let (said, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{} {arguments:?}: {}\n{said}\n{error}", program.display(), out.status);
    said.into_owned()
}

/// Lines `NAME accepted` and `NAME rejected REASON`, by name.
pub fn verdicts(said: &str) -> Said {
    said.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
        .collect()
}

/// A script of `tests/interop/`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

/// A program of the folder with the Python verifiers; `None` where they are not installed.
pub fn python(name: &str) -> Option<PathBuf> {
    switched_on(PYTHON_VERIFIERS).map(|folder| Path::new(&folder).join("bin").join(name))
}

/// A world with this many filed certificates.
pub async fn filed(making: Making, certificates: usize) -> World {
    let world = World::make(making).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    for id in customers(&world).iter().take(certificates) {
        forget(&installation, id).await;
    }
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    let issued = certify_due(&installation).await.unwrap();
    assert_eq!(issued.len(), certificates);
    let filed = file_due(&installation, false).await.unwrap();
    assert_eq!(filed.receipted.len(), certificates, "{filed:?}");
    installation.close().await.unwrap();
    world
}

/// The ids of the shop's customers.
pub fn customers(world: &World) -> Vec<String> {
    world.shop.rows_of("customers").iter().filter_map(|row| text(&row[0])).collect()
}

fn text(value: &wangchuan::value::Value) -> Option<String> {
    match value {
        wangchuan::value::Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

/// The program in a folder in which nothing else is.
pub fn stranger(folder: &Path) -> Program {
    Program::in_directory(folder)
}
