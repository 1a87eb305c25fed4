//! A working directory with a configuration, as an administrator would write it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use wangchuan::quickstart::JOBS;

use crate::support::program::{Outcome, Program};

/// What stands before the stores. Zones are UTC, so that plain SQL can say what is due.
pub const HEAD: &str = r#"
[agent]
name = "scenario"
timezone = "UTC"
state = "sqlite://state/wangchuan.db"
jobs = "jobs"

[root]
kind = "file"
path = "root"
accept_host_loss = true

[backup]
endpoint = "embedded"
data = "bucket"

[audit]
url = "embedded"
data = "audit"
"#;

/// A working directory that vanishes with the test.
pub struct Workplace {
    folder: tempfile::TempDir,
}

impl Workplace {
    /// An empty one.
    pub fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("wangchuan-scenario").tempdir().unwrap() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The program in it.
    pub fn program(&self) -> Program {
        Program::in_directory(self.path())
    }

    /// Runs a command that must end with 0, with `--json`.
    #[track_caller]
    pub fn good(&self, arguments: &[&str]) -> Outcome {
        self.program().json(arguments).ends(0)
    }

    /// Writes the configuration, [`HEAD`] first.
    pub fn configure(&self, stores_and_policies: &str) {
        self.write_private("wangchuan.toml", &format!("{HEAD}\n{stores_and_policies}"));
    }

    /// Changes the configuration's text; what is to be replaced must be there.
    #[track_caller]
    pub fn reconfigure(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.file("wangchuan.toml")).unwrap();
        assert!(text.contains(from), "the configuration has no `{from}`");
        self.write_private("wangchuan.toml", &text.replace(from, to));
    }

    /// Writes a file that only its owner may read.
    pub fn write_private(&self, name: &str, text: &str) {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The shipped jobs.
    pub fn write_jobs(&self) {
        for (name, text) in JOBS {
            self.write_private(&format!("jobs/{name}"), text);
        }
    }

    /// The shipped jobs, control database and keys.
    pub fn install(&self) {
        self.write_jobs();
        self.good(&["init", "--dir", ".", "--accept-host-loss"]);
    }

    /// All certificates must be valid; returns how many there are.
    #[track_caller]
    pub fn verify_certificates(&self) -> usize {
        let certificates = self.certificates();
        for (_, id) in &certificates {
            let verified = self.good(&["certificate", "verify", id]);
            assert_eq!(verified.text("result"), "valid", "{verified}");
        }
        certificates.len()
    }

    /// The certificates by number; the numbers must have no gap.
    #[track_caller]
    pub fn certificates(&self) -> Vec<(i64, String)> {
        let listed = self.good(&["certificate", "list"]);
        let mut certificates: Vec<(i64, String)> = listed
            .list("details")
            .iter()
            .map(|row| (row["sequence"].as_i64().unwrap(), row["certificate"].as_str().unwrap().to_owned()))
            .collect();
        certificates.sort();
        for (at, (sequence, _)) in certificates.iter().enumerate() {
            assert_eq!(*sequence, at as i64 + 1, "a certificate is missing\n{listed}");
        }
        certificates
    }

    /// The hash of a new plan.
    #[track_caller]
    pub fn plan(&self) -> Outcome {
        self.good(&["plan"])
    }

    /// Every byte of a folder of the working directory, in one.
    pub fn bytes_under(&self, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        gather(&self.file(name), &mut bytes);
        bytes
    }
}

fn gather(path: &Path, bytes: &mut Vec<u8>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            gather(&entry.unwrap().path(), bytes);
        }
    } else if let Ok(content) = fs::read(path) {
        bytes.extend(content);
        bytes.push(0);
    }
}

/// Whether bytes contain a text.
pub fn contains(bytes: &[u8], text: &str) -> bool {
    !text.is_empty() && bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
