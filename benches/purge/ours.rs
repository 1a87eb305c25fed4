//! The built program, as a user runs it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::processes::{Took, run, server_seconds};
use super::servers::Server;
use super::{Measured, Result};

/// A working directory with a configuration for one database.
pub struct Place {
    folder: tempfile::TempDir,
    program: std::path::PathBuf,
}

/// What slows a run for the sake of others is put out of reach where nobody else is there.
pub const UNTHROTTLED: &str = "[store.budget]\nlog_mb_per_second = 100000\nunpurged = 1000000000\n";

impl Place {
    pub fn new(url: &str, grace: &str, budget: &str, program: &Path) -> Result<Self> {
        let place = Self { folder: tempfile::tempdir()?, program: program.to_owned() };
        let path = place.folder.path();
        let text = format!(
            r#"[agent]
name = "bench"
timezone = "UTC"
state = "sqlite://control.db"
site = "here"

[root]
kind = "file"
path = "root"
accept_host_loss = true

[audit]
url = "embedded"
data = "audit"

[[store]]
name = "shop"
url = "{url}"
backup = "none"

[[store.collection]]
table = "orders"
subject = "customer_id"

[[store.collection]]
table = "order_line"
via = ["order_id -> orders"]

{budget}
[[policy]]
id = "old-orders"
collections = ["orders"]
retention = "3 years"
start = "done_at"
action = "delete"
basis = "contract"
bucket = "year"
grace = "{grace}"
max = {{ rows = 100000000, percent = 100 }}
"#
        );
        let file = path.join("wangchuan.toml");
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        fs::create_dir(path.join("jobs"))?;
        place.run(&["init", "--dir", ".", "--accept-host-loss"])?;
        Ok(place)
    }

    pub fn run(&self, arguments: &[&str]) -> Result<(Took, Value)> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--json").current_dir(self.folder.path()).env("HOME", self.folder.path());
        command.env("LANG", "en_US.UTF-8");
        let took = run(&mut command)?;
        let document = serde_json::from_str(&took.out)?;
        Ok((took, document))
    }

    /// Plans; returns the time and the hash.
    pub fn plan(&self) -> Result<(Took, String)> {
        let (took, document) = self.run(&["plan"])?;
        let hash = document["hash"].as_str().unwrap_or_default().to_owned();
        Ok((took, hash))
    }

    /// Carries a plan out; returns the time, the rows that went, and the longest transaction in milliseconds.
    pub fn erase(&self, hash: &str) -> Result<(Took, u64, u64)> {
        let (took, document) = self.run(&["erase", "--plan", hash])?;
        let rows = document["erased"].as_u64().unwrap_or(0);
        let runs = self.run(&["run", "list"])?.1;
        let run = runs["runs"][0]["run"].as_str().unwrap_or_default().to_owned();
        let shown = self.run(&["run", "show", &run])?.1;
        Ok((took, rows, shown["pace"]["longest_ms"].as_u64().unwrap_or(0)))
    }
}

pub async fn purge(server: &Server, grace: &str, program: &Path) -> Result<Measured> {
    server.copy("ours").await?;
    let place = Place::new(&server.url("ours"), grace, UNTHROTTLED, program)?;
    let (plan, hash) = place.plan()?;
    let before = server.rows("ours").await?;
    let process = server.process().await?;
    let server_before = server_seconds(process);
    let (took, counted, longest) = place.erase(&hash)?;
    let spent = server_seconds(process) - server_before;
    let rows = before - server.rows("ours").await?;
    if rows != counted {
        return Err(format!("{rows} rows went, the program counted {counted}").into());
    }
    server.drop_database("ours").await?;
    Ok(Measured {
        name: format!("wangchuan, grace {grace}"),
        rows,
        seconds: took.seconds,
        client: took.processor,
        server: spent,
        longest_ms: Some(longest),
        memory: Some(took.memory.max(plan.memory)),
        plan_seconds: Some(plan.seconds),
    })
}
