//! Fail-over of the control database to a streaming replica: one that has everything goes on; one that lost the last commits is
//! refused, and the state comes back from the bucket. It starts two replicas of the private server.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use wangchuan::stores::Engine;

use super::database::Database;
use super::small;
use super::workplace::Workplace;
use crate::support::announce::{POSTGRES, switched_on};
use crate::support::ports::free_port;

const LONGEST: Duration = Duration::from_mins(1);

/// A replica of the private server, in a folder of its own; stopped when dropped.
struct Replica {
    folder: tempfile::TempDir,
    port: u16,
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
    fn of(primary: &str) -> Self {
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
    fn asked(&self, database: &str, sql: &str) -> String {
        let address = format!("postgres://postgres@127.0.0.1:{}/{database}", self.port);
        let done = succeeds(Command::new("psql").args(["-qAt", "-c", sql, &address]));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Waits until a query in it says so.
    fn says(&self, database: &str, sql: &str, expected: &str) {
        let begun = Instant::now();
        while self.asked(database, sql) != expected {
            assert!(begun.elapsed() < LONGEST, "`{sql}` never was {expected}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// No more commits arrive.
    fn cut_off(&self) {
        self.asked("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        self.asked("postgres", "SELECT pg_reload_conf()");
        self.says("postgres", "SELECT COUNT(*) FROM pg_stat_wal_receiver", "0");
    }

    fn promote(&self) {
        self.asked("postgres", "SELECT pg_promote()");
        self.says("postgres", "SELECT pg_is_in_recovery()", "f");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = server_program("pg_ctl").args(["-D", &self.data(), "-m", "immediate", "-w", "stop"]).output();
    }
}

#[test]
fn a_replica_with_everything_goes_on_and_one_that_lost_commits_is_refused_and_recovered() {
    let Some(primary) = switched_on(POSTGRES) else { return };
    let place = Workplace::new();
    let control = Database::create(Engine::Postgres, place.path()).unwrap();
    let shop = Database::create(Engine::Sqlite, place.path()).unwrap();
    small::fill(&shop);
    place.configure(&format!("{}{}", small::store(&shop.url()), small::POLICY));
    let address = format!("{}?fsync=off", control.url());
    place.reconfigure("sqlite://state/wangchuan.db", &address);
    place.install();
    small::goes_through(&place, &shop);

    let (whole, torn) = (Replica::of(&primary), Replica::of(&primary));
    let name = control.name();
    let newest = "SELECT MAX(number) FROM snapshot";
    // As long as it is one, a replica is refused by name.
    let at = |replica: &Replica, database: &str| {
        format!("postgres://postgres@127.0.0.1:{}/{database}?fsync=off", replica.port)
    };
    place.reconfigure(&address, &at(&whole, name));
    place.program().json(&["status"]).refuses(1, &["a standby that only reads"]);
    place.reconfigure(&at(&whole, name), &address);

    torn.says(name, newest, &control.number(newest).to_string());
    torn.cut_off();
    place.good(&["backup", "run"]);
    let seen = control.number(newest).to_string();
    whole.says(name, newest, &seen);
    assert_ne!(torn.asked(name, newest), seen);
    // The primary is gone for good; what had all commits goes on.
    whole.promote();
    torn.promote();
    place.reconfigure(&address, &at(&whole, name));
    place.good(&["agent", "--once"]);
    place.good(&["log", "verify"]);

    // The other one is an old copy.
    place.reconfigure(&at(&whole, name), &at(&torn, name));
    let refused = place.program().json(&["agent", "--once"]).refuses(3, &["old copy"]);
    assert!(refused.to_string().contains("OLD_COPY") && refused.to_string().contains("wangchuan recover"), "{refused}");
    torn.asked("postgres", "CREATE DATABASE recovered");
    place.reconfigure(&at(&torn, name), &at(&torn, "recovered"));
    let recovered = place.good(&["recover"]);
    assert!(recovered.text("database").ends_with("/recovered"), "{recovered}");
    place.good(&["agent", "--once"]);
    assert_eq!(place.good(&["drill", "run"]).text("result"), "passed");
    assert!(place.verify_certificates() > 0);
}
