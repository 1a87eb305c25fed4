//! A retention purge beside what else deletes rows: a table of 10 million rows with three indexes and a child table, of which a
//! tenth is due. `purge quick` takes a tenth of the rows; `purge rows=N` so many; `purge only=postgres`, `only=mariadb`,
//! `only=rates`, `only=load` or `only=scan` a part; `program=PATH` measures another build.
//!
//! Ours is the built program with everything that it does around a DELETE: intents, markers, ledger, read-back, certificate. Every
//! way to delete gets an equal copy of the same tables. `tests/run --bench purge` starts the servers.

#[path = "../harness.rs"]
#[expect(dead_code, reason = "the medians are for work that can be repeated")]
mod harness;
mod load;
mod ours;
mod peers;
mod plot;
mod processes;
mod scan;
mod servers;

use std::path::{Path, PathBuf};

use harness::{Row, Table};
use servers::{Engine, Server};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// What one way to delete the due rows cost.
struct Measured {
    name: String,
    /// Rows deleted, parents and children.
    rows: u64,
    seconds: f64,
    /// Processor seconds of the client, and of all processes of the server.
    client: f64,
    server: f64,
    /// The longest transaction, where it can be told.
    longest_ms: Option<u64>,
    /// Most memory of the client, in MB.
    memory: Option<u64>,
    /// What came before: making the plan.
    plan_seconds: Option<f64>,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.rows as f64 / self.seconds
    }
}

/// What is asked for on the command line.
struct Wanted {
    rows: u64,
    only: Vec<String>,
    program: PathBuf,
}

impl Wanted {
    fn read() -> Self {
        let mut wanted = Self { rows: 10_000_000, only: Vec::new(), program: env!("CARGO_BIN_EXE_wangchuan").into() };
        for argument in std::env::args().skip(1) {
            if argument == "quick" {
                wanted.rows = 1_000_000;
            } else if let Some(rows) = argument.strip_prefix("rows=").and_then(|rows| rows.parse().ok()) {
                wanted.rows = rows;
            } else if let Some(part) = argument.strip_prefix("only=") {
                wanted.only.push(part.to_owned());
            } else if let Some(path) = argument.strip_prefix("program=") {
                wanted.program = path.into();
            }
        }
        wanted
    }

    fn has(&self, part: &str, among: &[&str]) -> bool {
        let named = |name: &&str| self.only.iter().any(|only| only == name);
        !among.iter().any(named) || named(&part)
    }
}

fn rates(title: &str, all: &[Measured]) {
    let headings =
        ["rows/s", "times bare", "client CPU s", "server CPU s", "longest transaction ms", "client MB", "plan s"];
    let mut table = Table::new(title, &headings);
    let bare = all.first().map_or(1.0, Measured::rate);
    let number = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
    for one in all {
        let cells = vec![
            format!("{:.0}", one.rate()),
            format!("{:.2}", one.rate() / bare),
            format!("{:.1}", one.client),
            format!("{:.1}", one.server),
            number(one.longest_ms),
            number(one.memory),
            one.plan_seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1}")),
        ];
        table.push(Row { name: one.name.clone(), cells });
    }
    table.print();
}

async fn all_ways(server: &Server, rows: u64, program: &Path) -> Result<Vec<Measured>> {
    let mut all = vec![peers::bare(server).await?, peers::loop_of_batches(server).await?];
    if server.engine == Engine::Mariadb {
        all.push(peers::archiver(server, true).await?);
        all.push(peers::archiver(server, false).await?);
    }
    for grace in ["0", "72 hours"] {
        all.push(ours::purge(server, grace, program).await?);
    }
    for one in &all {
        let due = rows / 10 * 2;
        if one.rows != due {
            return Err(format!("{}: {} rows went, {due} were due", one.name, one.rows).into());
        }
    }
    Ok(all)
}

#[tokio::main]
async fn main() -> Result<()> {
    let wanted = Wanted::read();
    let kept = tempfile::tempdir()?;
    // Somebody may build beside a long measurement.
    let program = kept.path().join("wangchuan");
    std::fs::copy(&wanted.program, &program)?;
    let mut bars = Vec::new();
    for engine in [Engine::Postgres, Engine::Mariadb] {
        if !wanted.has(engine.word(), &["postgres", "mariadb"]) {
            continue;
        }
        let Some(server) = Server::named(engine) else {
            say_left_out(engine);
            continue;
        };
        let parts = ["rates", "load", "scan"];
        if wanted.has("rates", &parts) || wanted.has("load", &parts) {
            server.fill("base", wanted.rows, wanted.rows / 10).await?;
        }
        if wanted.has("rates", &parts) {
            let all = all_ways(&server, wanted.rows, &program).await?;
            let title = format!("{}, {} rows and as many children, a tenth due", engine.name(), wanted.rows);
            rates(&title, &all);
            bars.extend(all.iter().map(|one| (format!("{}: {}", engine.name(), one.name), one.rate())));
        }
        if wanted.has("load", &parts) {
            load::beside(&server, wanted.rows, &program).await?;
        }
        server.drop_database("base").await?;
        if wanted.has("scan", &parts) {
            scan::growth(&server, wanted.rows, &program).await?;
        }
    }
    if !bars.is_empty() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/purge.svg");
        plot::bars("Rows deleted in a second", &bars, &file)?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a benchmark says what it leaves out")]
fn say_left_out(engine: Engine) {
    eprintln!("{} is left out: {} is not set; see tests/run --bench", engine.name(), engine.variable());
}
