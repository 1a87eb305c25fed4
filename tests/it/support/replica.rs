//! A streaming replica of the private PostgreSQL server.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::ports::free_port;

const LONGEST: Duration = Duration::from_mins(1);

/// A replica of the private server, in a folder of its own; stopped when dropped.
pub struct Replica {
    folder: tempfile::TempDir,
    /// Where it answers.
    pub port: u16,
}

/// PostgreSQL's own programs, beside the newest server; servers do not run as root.
fn server_program(name: &str) -> Command {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    folders.sort();
    let program = folders.last().map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0);
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    done
}

impl Replica {
    /// Makes one and starts it.
    pub fn of(primary: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("wangchuan-replica").tempdir().unwrap();
        let _ = Command::new("chown").arg("postgres").arg(folder.path()).status();
        let port = free_port();
        let replica = Self { folder, port };
        let copy = ["-D", &replica.data(), "-d", primary, "-R", "-X", "stream", "-c", "fast", "--no-sync"];
        succeeds(server_program("pg_basebackup").args(copy));
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=500 -c fsync=off"
        );
        let log = replica.path().join("log").display().to_string();
        // Its output would keep the pipe open.
        let started = server_program("pg_ctl")
            .args(["-D", &replica.data(), "-w", "-t", "60", "-l", &log, "-o", &options, "start"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        assert!(started.unwrap().success(), "the replica did not start");
        replica
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> String {
        self.path().join("data").display().to_string()
    }

    /// One answer of a query in a database of it.
    pub fn asked(&self, database: &str, sql: &str) -> String {
        let address = format!("postgres://postgres@127.0.0.1:{}/{database}", self.port);
        let done = succeeds(Command::new("psql").args(["-qAt", "-c", sql, &address]));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Waits until a query in it says so.
    pub fn says(&self, database: &str, sql: &str, expected: &str) {
        let begun = Instant::now();
        while self.asked(database, sql) != expected {
            assert!(begun.elapsed() < LONGEST, "`{sql}` never was {expected}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// No more commits arrive.
    pub fn cut_off(&self) {
        self.asked("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        self.asked("postgres", "SELECT pg_reload_conf()");
        self.says("postgres", "SELECT COUNT(*) FROM pg_stat_wal_receiver", "0");
    }

    /// Makes it the primary.
    pub fn promote(&self) {
        self.asked("postgres", "SELECT pg_promote()");
        self.says("postgres", "SELECT pg_is_in_recovery()", "f");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = server_program("pg_ctl").args(["-D", &self.data(), "-m", "immediate", "-w", "stop"]).output();
    }
}
