//! What planning costs when the table grows and what is due does not.

use std::path::Path;

use super::Result;
use super::harness::{Row, Table};
use super::ours::{Place, UNTHROTTLED};
use super::processes::server_seconds;
use super::servers::Server;

pub async fn growth(server: &Server, rows: u64, program: &Path) -> Result<()> {
    let due = rows / 100;
    let title = format!("{}, plan with {due} due rows and their children", server.engine.name());
    let mut table = Table::new(&title, &["seconds", "times", "client CPU s", "server CPU s", "client MB"]);
    let mut first = None;
    for rows in [rows / 10, rows] {
        server.fill("scanned", rows, due).await?;
        let place = Place::new(&server.url("scanned"), "0", UNTHROTTLED, program)?;
        // The first look warms what a server in use has warm.
        place.plan()?;
        let process = server.process().await?;
        let before = server_seconds(process);
        let (took, _) = place.plan()?;
        let spent = server_seconds(process) - before;
        let times = took.seconds / *first.get_or_insert(took.seconds);
        let cells = vec![
            format!("{:.2}", took.seconds),
            format!("{times:.2}"),
            format!("{:.2}", took.processor),
            format!("{spent:.2}"),
            took.memory.to_string(),
        ];
        table.push(Row { name: format!("{rows} rows"), cells });
        server.drop_database("scanned").await?;
    }
    table.print();
    Ok(())
}
