//! Other ways to delete the due rows.

use std::process::Command;
use std::time::Instant;

use super::harness::cpu_time;
use super::servers::{Client, DUE, Engine, Server};
use super::{Measured, Result, processes};

/// Keys of one batch of the loop.
const BATCH: usize = 1000;

/// Measures work of this process on a copy of the tables.
struct Watch<'a> {
    server: &'a Server,
    database: &'static str,
    process: u32,
    before: u64,
    server_before: f64,
    client_before: f64,
    begun: Instant,
}

impl<'a> Watch<'a> {
    async fn begin(server: &'a Server, database: &'static str) -> Result<Self> {
        server.copy(database).await?;
        let before = server.rows(database).await?;
        let process = server.process().await?;
        let server_before = processes::server_seconds(process);
        let client_before = cpu_time().as_secs_f64();
        Ok(Self { server, database, process, before, server_before, client_before, begun: Instant::now() })
    }

    async fn end(self, name: &str, longest_ms: Option<u64>) -> Result<Measured> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let client = cpu_time().as_secs_f64() - self.client_before;
        let server = processes::server_seconds(self.process) - self.server_before;
        let rows = self.before - self.server.rows(self.database).await?;
        self.server.drop_database(self.database).await?;
        Ok(Measured {
            name: name.to_owned(),
            rows,
            seconds,
            client,
            server,
            longest_ms,
            memory: None,
            plan_seconds: None,
        })
    }
}

/// The two statements of a bare deletion, in one transaction. Returns how long that took, in milliseconds.
pub async fn delete_all(client: &mut Client) -> Result<u64> {
    let children = match client {
        Client::Postgres(_) => {
            format!("DELETE FROM order_line USING orders WHERE orders.id = order_line.order_id AND {DUE}")
        }
        Client::Mariadb(_) => {
            format!("DELETE order_line FROM order_line JOIN orders ON orders.id = order_line.order_id WHERE {DUE}")
        }
    };
    let begun = Instant::now();
    client.run("BEGIN").await?;
    client.run(&children).await?;
    client.run(&format!("DELETE FROM orders WHERE {DUE}")).await?;
    client.run("COMMIT").await?;
    Ok(millis(begun))
}

fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

pub async fn bare(server: &Server) -> Result<Measured> {
    let watch = Watch::begin(server, "bare").await?;
    let longest = delete_all(&mut server.connect("bare").await?).await?;
    watch.end("bare DELETE, one transaction", Some(longest)).await
}

pub async fn loop_of_batches(server: &Server) -> Result<Measured> {
    let watch = Watch::begin(server, "batches").await?;
    let mut client = server.connect("batches").await?;
    let mut longest = 0;
    loop {
        let begun = Instant::now();
        client.run("BEGIN").await?;
        let keys = client.numbers(&format!("SELECT id FROM orders WHERE {DUE} LIMIT {BATCH} FOR UPDATE")).await?;
        if !keys.is_empty() {
            let list: Vec<String> = keys.iter().map(i64::to_string).collect();
            let list = list.join(",");
            client.run(&format!("DELETE FROM order_line WHERE order_id IN ({list})")).await?;
            client.run(&format!("DELETE FROM orders WHERE id IN ({list})")).await?;
        }
        client.run("COMMIT").await?;
        longest = longest.max(millis(begun));
        if keys.len() < BATCH {
            break;
        }
    }
    watch.end("loop, 1,000 parents a batch", Some(longest)).await
}

/// pt-archiver knows one table at a time: the children first, found through their parents.
pub async fn archiver(server: &Server, bulk: bool) -> Result<Measured> {
    assert_eq!(server.engine, Engine::Mariadb, "pt-archiver is for MariaDB");
    let watch = Watch::begin(server, "archiver").await?;
    let port = server.address.rsplit(':').next().unwrap_or_default();
    let (mut processor, mut memory) = (0.0, 0);
    for (table, what) in
        [("order_line", format!("order_id IN (SELECT id FROM orders WHERE {DUE})")), ("orders", DUE.to_owned())]
    {
        let mut command = Command::new("pt-archiver");
        command.args(["--source", &format!("h=127.0.0.1,P={port},u=root,D=archiver,t={table}")]);
        command.args([
            "--where",
            &what,
            "--purge",
            "--limit",
            "1000",
            "--no-check-charset",
            "--no-safe-auto-increment",
        ]);
        command.args(if bulk { ["--bulk-delete", "--commit-each"] } else { ["--txn-size", "1000"] });
        let took = processes::run(&mut command)?;
        processor += took.processor;
        memory = memory.max(took.memory);
    }
    let name = if bulk { "pt-archiver, --bulk-delete" } else { "pt-archiver, by row" };
    let measured = watch.end(name, None).await?;
    Ok(Measured { client: processor, memory: Some(memory), ..measured })
}
