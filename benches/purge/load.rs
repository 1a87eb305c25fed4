//! Others at work on living rows while the due ones go.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::harness::{Row, Table};
use super::ours::Place;
use super::servers::Server;
use super::{Result, peers};

const CONNECTIONS: u64 = 4;
/// Between two statements of a connection.
const THINK: Duration = Duration::from_millis(1);
/// How long it goes without a purge.
const ALONE: Duration = Duration::from_secs(10);

/// Small updates and reads, in turns, until told to stop. Returns how long each took, in milliseconds.
async fn work(server: &Server, database: &str, rows: u64, number: u64, stop: &AtomicBool) -> Result<Vec<f64>> {
    let mut client = server.connect(database).await?;
    let mut times = Vec::new();
    let mut at = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    while !stop.load(Ordering::Relaxed) {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let living = rows / 5;
        let id = living + (at >> 33) % (rows - living);
        let begun = Instant::now();
        if times.len() % 2 == 0 {
            client.run(&format!("UPDATE orders SET note = 'seen' WHERE id = {id}")).await?;
        } else {
            client.run(&format!("SELECT * FROM orders WHERE id = {id}")).await?;
        }
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(THINK).await;
    }
    Ok(times)
}

/// Runs the load beside something.
async fn beside_this<T>(
    server: &Server,
    database: &str,
    rows: u64,
    this: impl Future<Output = Result<T>>,
) -> Result<(f64, Vec<f64>)> {
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let workers =
        futures_util::future::try_join_all((1..=CONNECTIONS).map(|number| work(server, database, rows, number, &stop)));
    let done = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let done = this.await;
        stop.store(true, Ordering::Relaxed);
        done
    };
    let (times, done) = tokio::join!(workers, done);
    done?;
    let mut all: Vec<f64> = times?.into_iter().flatten().collect();
    all.sort_by(f64::total_cmp);
    Ok((begun.elapsed().as_secs_f64(), all))
}

fn line(name: &str, (seconds, times): &(f64, Vec<f64>)) -> Row {
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).or(times.last()).copied().unwrap_or(0.0);
    let cells = vec![
        format!("{:.2}", at(0.5)),
        format!("{:.2}", at(0.99)),
        format!("{:.0}", at(1.0)),
        format!("{:.0}", times.len() as f64 / seconds),
        format!("{seconds:.1}"),
    ];
    Row { name: name.to_owned(), cells }
}

pub async fn beside(server: &Server, rows: u64, program: &Path) -> Result<()> {
    let name = server.engine.name();
    let title = format!("{name}, {CONNECTIONS} connections on living rows");
    let mut table = Table::new(&title, &["p50 ms", "p99 ms", "longest ms", "statements/s", "seconds"]);
    server.copy("busy").await?;
    let alone = async {
        tokio::time::sleep(ALONE).await;
        Ok(())
    };
    table.push(line("no purge", &beside_this(server, "busy", rows, alone).await?));
    let url = server.url("busy");
    let place = Place::new(&url, "0", "", program)?;
    let hash = place.plan()?.1;
    let purge = async move {
        tokio::task::spawn_blocking(move || place.erase(&hash).map(|_| ()).map_err(|error| error.to_string()))
            .await?
            .map_err(Into::into)
    };
    table.push(line("wangchuan, default budget", &beside_this(server, "busy", rows, purge).await?));
    server.copy("busy").await?;
    let mut client = server.connect("busy").await?;
    let bare = async move { peers::delete_all(&mut client).await };
    table.push(line("bare DELETE", &beside_this(server, "busy", rows, bare).await?));
    server.drop_database("busy").await?;
    table.print();
    Ok(())
}
