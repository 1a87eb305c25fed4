//! A disk that is full: under the control database, the embedded bucket or the audit log. The command fails and says so,
//! loses nothing, and one pass finishes the work once there is room.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::scenario::database::Database;
use crate::scenario::small;
use crate::scenario::workplace::Workplace;
use crate::support::announce::announce_not_run;
use crate::support::program::{Outcome, Program};

/// A small disk of its own over a folder of the working directory, in a mount namespace: real ENOSPC, and no privileges.
struct SmallDisk {
    holder: Child,
    directory: PathBuf,
    folder: &'static str,
}

impl SmallDisk {
    /// Lays one of so many KiB over a folder, with what the folder holds; `None`, said aloud, where that is not allowed.
    fn over(place: &Workplace, folder: &'static str, kib: u32) -> Option<Self> {
        let script = format!(
            "mkdir -p {folder} && cp -a {folder} {folder}.before && mount -t tmpfs -o size={kib}k,mode=700 tmpfs {folder} \
             && cp -a {folder}.before/. {folder}/ && echo ready && exec cat"
        );
        let mut command = Command::new("unshare");
        command.args(["-Urm", "sh", "-c", &script]).current_dir(place.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = command.spawn().ok()?;
        let mut line = String::new();
        let _ = BufReader::new(holder.stdout.take()?).read_line(&mut line);
        let disk = Self { holder, directory: place.path().to_owned(), folder };
        if line.trim() == "ready" {
            return Some(disk);
        }
        announce_not_run("full disks (needs user namespaces: unshare -Urm)");
        None
    }

    fn within(&self) -> Vec<String> {
        let pid = self.holder.id().to_string();
        let enter =
            ["nsenter", "-t", &pid, "-U", "-m", "--preserve-credentials", "sh", "-c", "cd \"$0\" && exec \"$@\""];
        enter.iter().map(|&word| word.to_owned()).chain([self.directory.display().to_string()]).collect()
    }

    /// The program on this disk.
    fn program(&self) -> Program {
        let words = self.within();
        Program::in_directory(&self.directory).through(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn shell(&self, script: &str) {
        let words = self.within();
        let done = Command::new(&words[0]).args(&words[1..]).args(["sh", "-c", script]).status().unwrap();
        assert!(done.success(), "{script}");
    }

    /// Fills it up to the last so many KiB.
    fn leave(&self, kib: u32) {
        let filler = format!("{}/filler", self.folder);
        self.shell(&format!(
            "rm -f {filler}; cat /dev/zero > {filler} 2> /dev/null; \
             size=$(stat -c %s {filler}); keep=$((size - {kib} * 1024)); truncate -s $((keep > 0 ? keep : 0)) {filler}"
        ));
    }

    /// Makes room again.
    fn clear(&self) {
        self.shell(&format!("rm -f {}/filler", self.folder));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// KiB that are left, so that different steps are the first without room.
const ROOM: [u32; 6] = [0, 4, 16, 40, 90, 200];

/// Not a success, no crash, and words that name the cause.
#[track_caller]
fn is_clear(outcome: &Outcome, room: u32) {
    assert!([Some(1), Some(3), Some(4)].contains(&outcome.code()), "with {room} KiB left\n{outcome}");
    let said = format!("{}{}", outcome.out, outcome.err).to_lowercase();
    let named = said.contains("full") || said.contains("no space") || said.contains("too large");
    assert!(named, "with {room} KiB left it does not name the cause\n{outcome}");
    assert_ne!(outcome.text("result"), "complete", "{outcome}");
}

/// Everything adds up and is proved.
fn is_finished(program: &Program, database: &Database) {
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
    assert_eq!(database.rows("customers"), 3);
    let runs = program.json(&["run", "list"]).ends(0);
    let list = runs.list("runs");
    let erased: i64 = list.iter().map(|run| run["erased"].as_i64().unwrap()).sum();
    assert_eq!(erased, small::DUE, "{runs}");
    assert!(list.iter().all(|run| run["state"] == "shredded" && run["failed"] == 0), "{runs}");
    let certificates = program.json(&["certificate", "list"]).ends(0).list("details");
    assert!(!certificates.is_empty(), "{runs}");
    for row in certificates {
        program.json(&["certificate", "verify", row["certificate"].as_str().unwrap()]).ends(0);
    }
    assert_eq!(program.json(&["backup", "verify"]).ends(0).text("result"), "valid");
    program.json(&["log", "verify"]).ends(0);
}

fn full_under(folder: &'static str) {
    let (place, database) = small::installed();
    let Some(disk) = SmallDisk::over(&place, folder, 4096) else { return };
    let program = disk.program();
    let mut failed = 0;
    for room in ROOM {
        disk.leave(room);
        let pass = program.json(&["agent", "--once"]);
        if pass.code() != Some(0) {
            is_clear(&pass, room);
            failed += 1;
        }
        let gone = small::ORDERS - database.rows("orders");
        assert!([0, small::DUE].contains(&gone), "{gone} rows are gone: half a batch");
    }
    assert!(failed >= 1, "the disk was never full");
    disk.clear();
    program.json(&["agent", "--once"]).ends(0);
    // What waited longer after each failure is tried again when a person asks.
    program.json(&["agent", "--once"]).ends(0);
    is_finished(&program, &database);
}

#[test]
fn under_the_control_database() {
    full_under("state");
}

#[test]
fn under_the_bucket() {
    full_under("bucket");
}

#[test]
fn under_the_root_slot() {
    full_under("root");
}

#[test]
fn under_the_audit_log() {
    full_under("audit");
}

/// Without namespaces: no file may grow beyond this, so that writing ends with EFBIG in the middle of it.
fn limited(directory: &Path, bytes: u64) -> Program {
    let limit = format!("--fsize={bytes}");
    let script = "trap '' XFSZ; exec prlimit \"$@\"";
    Program::in_directory(directory).through(&["sh", "-c", script, "sh", &limit])
}

#[test]
fn files_that_may_not_grow() {
    let (place, database) = small::installed();
    for kib in [4, 60, 130, 180, 250] {
        let pass = limited(place.path(), kib * 1024).json(&["agent", "--once"]);
        assert_ne!(pass.code(), None, "it was killed\n{pass}");
        if pass.code() != Some(0) {
            assert!([Some(1), Some(3), Some(4)].contains(&pass.code()), "{pass}");
            assert_ne!(pass.text("result"), "complete", "{pass}");
        }
        let gone = small::ORDERS - database.rows("orders");
        assert!([0, small::DUE].contains(&gone), "{gone} rows are gone: half a batch");
    }
    place.good(&["agent", "--once"]);
    place.good(&["agent", "--once"]);
    is_finished(&place.program(), &database);
}
