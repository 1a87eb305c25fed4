//! The tools, as command lines.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::measure::shell;
use super::{Result, field, table};

/// A tool with its commands, for a shell. An empty command: it cannot.
pub struct Tool {
    /// Its name in the tables.
    pub name: String,
    /// Where it stores.
    pub bucket: PathBuf,
    /// Takes the first backup.
    pub full: String,
    /// Takes a later one.
    pub increment: String,
    /// Puts the newest into the database `bench_restored`.
    pub restore: String,
    /// Of wangchuan: its folder.
    home: Option<PathBuf>,
    cluster: Option<Cluster>,
}

/// A PostgreSQL of its own, for a tool that copies whole clusters.
struct Cluster {
    folder: PathBuf,
    port: u16,
    bin: String,
    prefix: String,
}

impl Tool {
    fn of(name: &str, bucket: PathBuf, full: String, increment: String, restore: String) -> Self {
        Self { name: name.to_owned(), bucket, full, increment, restore, home: None, cluster: None }
    }

    /// Whether it is the program that is measured.
    pub fn is_ours(&self) -> bool {
        self.home.is_some()
    }

    /// A command of wangchuan in this installation.
    pub fn wangchuan(&self, words: &str) -> String {
        let home = self.home.as_deref().unwrap_or(Path::new("."));
        format!("cd {} && {} {words}", home.display(), env!("CARGO_BIN_EXE_wangchuan"))
    }

    /// What the output of a run says.
    pub fn remark(&self, output: &str) -> String {
        if !self.is_ours() || !output.contains("\"bytes_stored\":") {
            return String::new();
        }
        let own = field(output, "bytes_stored") / 1e6;
        format!("{own:.2} MB the snapshot, the rest the agent's state; {} rows", field(output, "rows"))
    }

    /// Brings a cluster of its own up to what the table holds.
    pub fn bring_up_to_date(&self, step: &str) -> Result<()> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let from = table::url("bench_backup")?;
        let statement = match step {
            "1 % appended" => {
                let copy = "COPY (SELECT * FROM orders WHERE id > (SELECT count(*) / 101 * 100 FROM orders)) TO STDOUT";
                shell(&format!("psql -X -q {from} -c '{copy}' | {} -c 'COPY orders FROM STDIN'", cluster.psql()))?;
                return cluster.run("CHECKPOINT");
            }
            "1 % changed, scattered" => table::SCATTERED.to_owned(),
            "5 % deleted" => format!("DELETE FROM orders WHERE id < {}", table::lowest("bench_backup")?),
            _ => return Ok(()),
        };
        cluster.run(&statement)?;
        cluster.run("CHECKPOINT")
    }

    /// The digest of what was restored.
    pub fn restored_digest(&self) -> Result<String> {
        match &self.cluster {
            None => table::digest("bench_restored"),
            Some(cluster) => cluster.restored_digest(),
        }
    }

    /// Stops what was started for it.
    pub fn stop(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.stop();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Cluster {
    fn psql(&self) -> String {
        format!(
            "psql -X -q -A -t -v ON_ERROR_STOP=1 -h {} -p {} -U postgres postgres",
            self.folder.display(),
            self.port
        )
    }

    fn run(&self, statement: &str) -> Result<()> {
        shell(&format!("{} -c '{}'", self.psql(), statement.replace('\'', r"'\''"))).map(|_| ())
    }

    fn stop(&self) {
        for data in ["data", "restored"] {
            let (prefix, bin, folder) = (&self.prefix, &self.bin, self.folder.display());
            let _ = shell(&format!(
                "{prefix} {bin}/pg_ctl -D {folder}/{data} -m immediate -w stop >{folder}/stop.log 2>&1 || true"
            ));
        }
    }

    /// Starts what was restored beside it, and looks.
    fn restored_digest(&self) -> Result<String> {
        let (prefix, bin, folder, port) = (&self.prefix, &self.bin, self.folder.display(), self.port + 1);
        shell(&format!(
            "{prefix} {bin}/pg_ctl -D {folder}/restored -l {folder}/restored.log -w -o '-p {port} -c archive_mode=off -c listen_addresses= -c unix_socket_directories={folder}' start >{folder}/start.log 2>&1"
        ))?;
        let psql = format!("psql -X -q -A -t -h {folder} -p {port} -U postgres postgres");
        shell(&format!(
            "for i in {{1..600}}; do [ \"$({psql} -c 'SELECT pg_is_in_recovery()')\" = f ] && exit; sleep 0.1; done; exit 1"
        ))?;
        let sql = "SELECT count(*) || $$ $$ || sum(hashtextextended(o::text, 0)::numeric) FROM orders o";
        let found = shell(&format!("{psql} -c '{sql}'"))?;
        Ok(found.trim().to_owned())
    }
}

const CONFIGURATION: &str = r#"[agent]
name = "bench"
environment = "test"
timezone = "UTC"
state = "sqlite://control.db"
site = "here"

[root]
kind = "file"
path = "root"
accept_host_loss = true

[backup]
endpoint = "embedded"
data = "bucket"
bucket = "wangchuan"
chain = { snapshots = 200, days = 35 }

[audit]
url = "embedded"
data = "audit"

[[store]]
name = "shop"
url = "URL"
owner = "shop"
purpose = "orders"
site = "here"

[[store.collection]]
table = "orders"
subject = "customer"
[store.collection.fields]
ship_to = { kind = "address", category = "basic" }
email = { kind = "email" }

[[policy]]
id = "old-orders"
collections = ["orders"]
retention = "10 years"
start = "done_at"
action = "delete"
basis = "contract"
bucket = "WIDTH"
grace = "0"
max = { rows = 1000000, percent = 50 }
"#;

/// An installation of wangchuan for a database, with buckets of this width.
pub fn wangchuan(folder: &Path, name: &str, width: &str, database: &str) -> Result<Tool> {
    let home = folder.join(format!("wangchuan-{name}"));
    std::fs::create_dir_all(home.join("jobs"))?;
    let file = home.join("wangchuan.toml");
    std::fs::write(&file, CONFIGURATION.replace("WIDTH", width).replace("URL", &table::url(database)?))?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    let tool =
        Tool::of(&format!("wangchuan, {width}"), home.join("bucket"), String::new(), String::new(), String::new());
    let tool = Tool { home: Some(home), ..tool };
    shell(&tool.wangchuan("init --dir . --accept-host-loss"))?;
    let restore = tool.wangchuan(&format!("restore --to {}", table::url("bench_restored")?));
    let (full, increment) = (tool.wangchuan("backup run --full --json"), tool.wangchuan("backup run --json"));
    Ok(Tool { full, increment, restore, ..tool })
}

/// The others, as far as they are there.
pub fn others(folder: &Path) -> Result<Vec<Tool>> {
    let (from, to) = (table::url("bench_backup")?, table::url("bench_restored")?);
    let dump = format!("pg_dump -Fp -t orders {from}");
    let load = format!("psql -X -q -v ON_ERROR_STOP=1 {to} >/dev/null");
    let here = folder.display();
    shell(&format!(
        "mkdir {here}/age && age-keygen -o {here}/age.key 2>/dev/null && age-keygen -y {here}/age.key >{here}/age.pub"
    ))?;
    let age = format!("{dump} | zstd -q -3 | age -r $(cat {here}/age.pub) >{here}/age/$(date +%s%N).zst.age");
    let unage = format!("age -d -i {here}/age.key $(ls -t {here}/age/*.age | head -n 1) | zstd -d -q | {load}");
    let plain = Tool::of("pg_dump, zstd -3, age", folder.join("age"), age.clone(), age, unage);
    let restic =
        format!("export RESTIC_PASSWORD=x RESTIC_REPOSITORY={here}/restic RESTIC_CACHE_DIR={here}/restic-cache;");
    shell(&format!("{restic} restic init --repository-version 2 >/dev/null"))?;
    let take = format!("{restic} {dump} | restic -q backup --stdin --stdin-filename orders.sql");
    let give = format!("{restic} restic -q dump latest orders.sql | {load}");
    let restic = Tool::of("pg_dump, restic", folder.join("restic"), take.clone(), take, give);
    let borg = format!("export BORG_PASSPHRASE=x BORG_BASE_DIR={here}/borg-base;");
    shell(&format!("{borg} borg init -e repokey-blake2 {here}/borg"))?;
    let take = format!(
        "{borg} {dump} | borg create --compression zstd,3 --stdin-name orders.sql {here}/borg::$(date +%s%N) -"
    );
    let give = format!("{borg} borg extract --stdout {here}/borg::$(borg list --short --last 1 {here}/borg) | {load}");
    let borg = Tool::of("pg_dump, borg", folder.join("borg"), take.clone(), take, give);
    let mut tools = vec![plain, restic, borg];
    tools.extend(pgbackrest(folder)?);
    Ok(tools)
}

/// pgBackRest with a cluster of its own that holds the same table, when there is a server to make one of.
fn pgbackrest(folder: &Path) -> Result<Option<Tool>> {
    let bin = shell("ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1 || true")?.trim().to_owned();
    if bin.is_empty() {
        return Ok(None);
    }
    let is_root = shell("id -u")?.trim() == "0";
    let prefix = if is_root { "setpriv --reuid=postgres --regid=postgres --clear-groups" } else { "" };
    let home = folder.join("pgbackrest");
    std::fs::create_dir_all(&home)?;
    let (here, port) = (home.display().to_string(), 20_000 + (std::process::id() % 20_000) as u16);
    let configuration = format!(
        "[global]\nrepo1-path={here}/repo\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=x\nrepo1-bundle=y\nrepo1-block=y\nbeta=y\n\
         compress-type=zst\ncompress-level=3\nprocess-max=2\nstart-fast=y\nlog-path={here}\nlock-path={here}/lock\n\
         spool-path={here}/spool\nlog-level-file=off\nlog-level-console=warn\n[t]\npg1-path={here}/data\npg1-port={port}\n\
         pg1-socket-path={here}\npg1-user=postgres\n"
    );
    std::fs::write(home.join("conf"), configuration)?;
    shell(&format!(
        "mkdir {here}/repo && {}",
        if is_root { format!("chown -R postgres {here}") } else { "true".to_owned() }
    ))?;
    shell(&format!(
        "cd / && {prefix} {bin}/initdb -D {here}/data -U postgres -A trust -E UTF8 --locale=C.UTF-8 >{here}/initdb.log"
    ))?;
    let options = format!(
        "-p {port} -c listen_addresses= -c unix_socket_directories={here} -c archive_mode=on -c shared_buffers=512MB \
         -c max_wal_size=8GB -c autovacuum=off"
    );
    // What is loaded needs no archive; what comes behind it does, or no backup could be restored.
    let archive = |with: &str| format!("ALTER SYSTEM SET archive_command = '{with}'");
    shell(&format!(
        "cd / && {prefix} {bin}/pg_ctl -D {here}/data -l {here}/log -w -o \"{options}\" start >{here}/start.log"
    ))?;
    let cluster = Cluster { folder: home.clone(), port, bin, prefix: prefix.to_owned() };
    cluster.run(&archive("/bin/true"))?;
    cluster.run("SELECT pg_reload_conf()")?;
    shell(&format!("pg_dump -t orders {} | {} >{here}/load.log", table::url("bench_backup")?, cluster.psql()))?;
    cluster.run("VACUUM (FREEZE) orders")?;
    cluster.run("CHECKPOINT")?;
    let command = format!("cd / && {prefix} pgbackrest --config={here}/conf --stanza=t");
    shell(&format!("{command} stanza-create"))?;
    cluster.run("SELECT pg_switch_wal()")?;
    cluster.run(&archive(&format!("pgbackrest --config={here}/conf --stanza=t archive-push %p")))?;
    cluster.run("SELECT pg_reload_conf()")?;
    let (full, increment) = (format!("{command} --type=full backup"), format!("{command} --type=incr backup"));
    let restore = format!(
        "{command} --pg1-path={here}/restored --type=immediate --target-action=promote --archive-mode=off restore"
    );
    let tool = Tool::of("pgBackRest (whole cluster)", home.join("repo"), full, increment, restore);
    Ok(Some(Tool { cluster: Some(cluster), ..tool }))
}
