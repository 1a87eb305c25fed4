//! Increments: every point that can be restored is what the shop was, whatever happened to its rows in between.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use wangchuan::agent::verify_backups;
use wangchuan::backup::manifest::Manifest;
use wangchuan::control::SnapshotRow;
use wangchuan::installation::Installation;
use wangchuan::tasks::backup::Wanted;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::restore::RestoreReport;
use wangchuan::tasks::shred::shred_due;

use crate::support::world::{Making, World, forget, increment, pass_time, restore, retain, snapshot, try_take};

type Dump = Vec<(String, Vec<String>)>;

/// Restores a snapshot and compares with what the shop was.
async fn comes_back(world: &World, installation: &Installation, row: &SnapshotRow, expected: &Dump) -> RestoreReport {
    let file = format!("restored-{}.db", row.number);
    let _ = std::fs::remove_file(world.path(&file));
    let report = restore(world, installation, row, &file).await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    let frames = report.frames_opened + report.frames_shredded + report.frames_lost + report.frames_corrupt;
    assert_eq!(frames, report.frames, "{report:?}");
    assert_eq!(world.dump_all(&file).await, *expected, "snapshot {}", row.sequence);
    report
}

async fn small() -> World {
    World::make(Making { customers: 20, ..Making::default() }).await
}

fn rows_of(dump: &Dump) -> i64 {
    dump.iter().map(|(_, rows)| rows.len() as i64).sum()
}

#[tokio::test]
async fn an_increment_holds_what_changed_and_restores_as_the_whole() {
    let world = small().await;
    let installation = world.open().await;
    let mut points = Vec::new();
    let first = increment(&installation).await;
    assert_eq!((first.kind.as_str(), first.why_full.as_deref()), ("full", Some("first")));
    points.push((first.clone(), world.dump_all("shop.db").await));

    let nothing = increment(&installation).await;
    assert_eq!((nothing.kind.as_str(), nothing.why_full.as_deref()), ("incremental", None));
    assert_eq!((nothing.rows, nothing.frames, nothing.chain), (0, 0, first.chain));
    assert_eq!((nothing.parent.as_ref(), nothing.living), (Some(&first.id), first.rows));
    points.push((nothing, world.dump_all("shop.db").await));

    let (leaver, keeper) = (world.shop.picks.leaver.clone(), world.shop.picks.keeper.clone());
    let order =
        world.number("shop.db", &format!("SELECT min(order_id) FROM orders WHERE customer_id = '{keeper}'")).await;
    let lines = world.number("shop.db", &format!("SELECT count(*) FROM order_lines WHERE order_id = {order}")).await;
    let changes = [
        // A row more, one changed, one removed.
        (format!("INSERT INTO orders VALUES (999001, '{keeper}', 'open', '2026-03-01 08:00:00', NULL, 1, 'new')"), 1),
        ("UPDATE orders SET shipping_address = 'elsewhere' WHERE order_id = 999001".to_owned(), 1),
        ("DELETE FROM orders WHERE order_id = 999001".to_owned(), 0),
        // Another owner: the order moves, and its lines, which did not change, with it.
        (format!("UPDATE orders SET customer_id = '{leaver}' WHERE order_id = {order}"), 1 + lines),
        // Another period of the start event: the same.
        (format!("UPDATE orders SET completed_at = '2025-11-11 08:00:00' WHERE order_id = {order}"), 1 + lines),
    ];
    for (sql, sealed) in changes {
        world.run_sql(&sql).await;
        let row = increment(&installation).await;
        assert_eq!((row.kind.as_str(), row.rows), ("incremental", sealed), "{sql}");
        let dump = world.dump_all("shop.db").await;
        assert_eq!(row.living, rows_of(&dump));
        points.push((row, dump));
    }
    for (row, dump) in &points {
        comes_back(&world, &installation, row, dump).await;
    }
    let last = comes_back(&world, &installation, &points.last().unwrap().0, &points.last().unwrap().1).await;
    let superseded: u64 = last.collections.iter().map(|counts| counts.superseded).sum();
    assert_eq!(superseded as i64, 2 + 2 * (1 + lines), "{last:?}");
    let drill = run_drill(&installation, points.last().unwrap().0.clone()).await.unwrap();
    assert_eq!((drill.result.as_str(), drill.chain_length), ("passed", points.len() as u64), "{drill:?}");
    assert!(verify_backups(&installation, "shop").await.unwrap().is_valid());
    installation.close().await.unwrap();
}

#[tokio::test]
async fn rows_that_are_taken_out_and_put_back_under_the_same_keys_are_compared_by_content() {
    let world = small().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let all = world.number("shop.db", "SELECT count(*) FROM complaints").await;
    assert!(all > 4);
    let copy = "CREATE TABLE kept AS SELECT * FROM complaints; DELETE FROM complaints;";
    let back = "INSERT INTO complaints SELECT * FROM kept ORDER BY 1 DESC; DROP TABLE kept;";
    world.run_sql(&format!("{copy} {back}")).await;
    assert_eq!(increment(&installation).await.rows, 0, "the same rows in another order of insertion");

    // All gone, at a point of its own.
    world.run_sql(copy).await;
    let (empty, without) = (increment(&installation).await, world.dump_all("shop.db").await);
    assert_eq!((empty.kind.as_str(), empty.rows), ("incremental", 0));
    assert!(empty.frames > 0, "{empty:?}");
    // The same keys, one with another content.
    world.run_sql(&format!("{back} UPDATE complaints SET body = 'other' WHERE complaint_id = (SELECT min(complaint_id) FROM complaints)")).await;
    let (again, with) = (increment(&installation).await, world.dump_all("shop.db").await);
    assert_eq!(again.rows, all);
    // Every key renumbered.
    let key = world.shop.columns_of("complaints")[0].clone();
    world.run_sql(&format!("UPDATE complaints SET {key} = {key} + 500000")).await;
    let (moved, renumbered) = (increment(&installation).await, world.dump_all("shop.db").await);
    assert_eq!(moved.rows, all);
    for (row, dump) in [(&empty, &without), (&again, &with), (&moved, &renumbered)] {
        comes_back(&world, &installation, row, dump).await;
    }
    installation.close().await.unwrap();
}

#[tokio::test]
async fn an_increment_is_a_barrier_and_what_was_erased_opens_from_no_point() {
    let world = World::standard().await;
    let installation = world.open().await;
    let (leaver, keeper) = (world.shop.picks.leaver.clone(), world.shop.picks.keeper.clone());
    let first = snapshot(&installation).await;
    // A version of the leaver in an increment of its own.
    world.run_sql(&format!("UPDATE customers SET address = 'moved away' WHERE customer_id = '{leaver}'")).await;
    let second = increment(&installation).await;
    assert_eq!(second.rows, 1);
    let runs =
        [forget(&installation, &leaver).await, forget(&installation, &keeper).await, retain(&installation).await];
    let waiting = shred_due(&installation).await.unwrap();
    assert!(waiting.shredded.is_empty() && waiting.waiting.len() == runs.len(), "{waiting:?}");
    let living = world.dump_all("shop.db").await;
    let third = increment(&installation).await;
    assert_eq!(third.kind, "incremental");
    assert!(third.rows < rows_of(&living) / 2, "{} of {} rows sealed again", third.rows, rows_of(&living));
    let report = shred_due(&installation).await.unwrap();
    assert!(report.generation.is_some() && report.waiting.is_empty(), "{report:?}");
    assert!(report.shredded.contains(&runs[0].id) && report.shredded.contains(&runs[1].id), "{report:?}");

    let restored = comes_back(&world, &installation, &third, &living).await;
    assert!(restored.frames_shredded > 0, "{restored:?}");
    let of = format!("SELECT count(*) FROM customers WHERE customer_id = '{leaver}' AND name <> ''");
    for row in [&first, &second] {
        let file = format!("early-{}.db", row.number);
        assert!(restore(&world, &installation, row, &file).await.unwrap().is_whole());
        assert_eq!(world.number(&file, &of).await, 0);
    }
    for row in [first, second, third.clone()] {
        let drill = run_drill(&installation, row).await.unwrap();
        assert_eq!((drill.result.as_str(), drill.resurrected), ("passed", 0), "{drill:?}");
        assert!(drill.tried[0] > 0, "{drill:?}");
    }
    // Nothing changed since: not even what lay in the cells that died is missed.
    assert_eq!(increment(&installation).await.rows, 0);
    let last = increment(&installation).await;
    comes_back(&world, &installation, &last, &living).await;
    assert_eq!(shred_due(&installation).await.unwrap().waiting, Vec::new());
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_row_that_comes_back_as_it_was_erased_is_sealed_again() {
    // Its cell lives on, because the bucket is only partly due: content and cell are what they were.
    let world = World::make(Making { bucket: "year", ..Making::default() }).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let before: BTreeSet<String> = world.dump("shop.db", "orders").await.into_iter().collect();
    let lines = world.dump("shop.db", "order_lines").await;
    retain(&installation).await;
    let after: BTreeSet<String> = world.dump("shop.db", "orders").await.into_iter().collect();
    let recent = |row: &&&String| row.contains("'2023-0");
    let erased: Vec<&String> = before.difference(&after).filter(|row| recent(&row)).collect();
    assert!(!erased.is_empty());
    let row = erased[0];
    world.run_sql(&format!("INSERT INTO orders VALUES ({row})")).await;
    let order = row.split(',').next().unwrap();
    for line in lines.iter().filter(|line| line.split(',').nth(1) == Some(order)) {
        world.run_sql(&format!("INSERT INTO order_lines VALUES ({line})")).await;
    }
    let expected = world.dump_all("shop.db").await;
    let back = increment(&installation).await;
    assert_eq!(back.kind, "incremental");
    comes_back(&world, &installation, &back, &expected).await;
    shred_due(&installation).await.unwrap();
    comes_back(&world, &installation, &back, &expected).await;
    let drill = run_drill(&installation, back).await.unwrap();
    assert_eq!(drill.result, "passed", "{drill:?}");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn where_no_increment_can_be_a_full_snapshot_says_why() {
    let world = small().await;
    let mut installation = world.open().await;
    let why = async |installation: &Installation| {
        let row = increment(installation).await;
        assert_eq!(row.kind, if row.why_full.is_some() { "full" } else { "incremental" });
        row.why_full.unwrap_or_default()
    };
    assert_eq!(why(&installation).await, "first");
    assert_eq!(why(&installation).await, "");
    // A column more; an index alone counts as well, for a restore makes it again.
    for sql in ["ALTER TABLE orders ADD COLUMN remark TEXT", "CREATE INDEX by_remark ON orders (remark)"] {
        installation.close().await.unwrap();
        world.run_sql(sql).await;
        installation = world.open().await;
        assert_eq!(why(&installation).await, "schema-changed", "{sql}");
        assert_eq!(why(&installation).await, "");
    }
    // Another width of buckets, another cipher.
    let edits = [
        ("bucket = \"quarter\"", "bucket = \"month\""),
        ("fields.shipping_address = { kind = \"address\" }", "fields.shipping_address = { kind = \"id_card\" }"),
        ("timezone = \"Asia/Shanghai\"", "timezone = \"Asia/Tokyo\""),
    ];
    for (from, to) in edits {
        installation.close().await.unwrap();
        world.edit_config(from, to);
        installation = world.open().await;
        assert_eq!(why(&installation).await, "layout-changed", "{to}");
        assert_eq!(why(&installation).await, "");
    }
    // The index of the newest snapshot is gone.
    installation.close().await.unwrap();
    world.number("state/control.db", "DELETE FROM change_base RETURNING 1").await;
    installation = world.open().await;
    assert_eq!(why(&installation).await, "index-lost");
    assert_eq!(why(&installation).await, "");
    // Length and age.
    installation.close().await.unwrap();
    world.edit_config("bucket = \"wangchuan\"", "bucket = \"wangchuan\"\nchain = { snapshots = 3, days = 5 }");
    installation = world.open().await;
    assert_eq!(why(&installation).await, "");
    assert_eq!(why(&installation).await, "chain-long");
    pass_time(&world, &installation, TimeDelta::days(5)).await;
    assert_eq!(why(&installation).await, "chain-old");
    // A snapshot of it is not in the bucket any more.
    let row = increment(&installation).await;
    let name = row.manifest.unwrap();
    let stored = find(world.path("bucket"), name.rsplit('/').next().unwrap());
    std::fs::rename(&stored, world.path("taken")).unwrap();
    assert_eq!(why(&installation).await, "chain-missing");
    std::fs::rename(world.path("taken"), &stored).unwrap();
    let full = try_take(&installation, Wanted::Full).await.unwrap();
    assert_eq!((full.kind.as_str(), full.why_full), ("full", None));
    installation.close().await.unwrap();
}

/// The file of an object, by the end of its name.
fn find(folder: std::path::PathBuf, name: &str) -> std::path::PathBuf {
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().unwrap().to_string_lossy() == name {
                return path;
            }
        }
    }
    panic!("there is no object {name}");
}

#[tokio::test]
async fn a_missing_increment_is_named_and_nothing_is_restored_past_it() {
    let world = small().await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let before = world.dump_all("shop.db").await;
    world.run_sql("UPDATE orders SET shipping_address = 'a' WHERE order_id = (SELECT min(order_id) FROM orders)").await;
    let second = increment(&installation).await;
    world.run_sql("UPDATE orders SET shipping_address = 'b' WHERE order_id = (SELECT max(order_id) FROM orders)").await;
    let third = increment(&installation).await;
    let name = second.manifest.clone().unwrap();
    std::fs::remove_file(find(world.path("bucket"), name.rsplit('/').next().unwrap())).unwrap();
    let found = verify_backups(&installation, "shop").await.unwrap();
    let said: Vec<String> =
        found.problems.iter().map(|problem| format!("{}: {}", problem.object, problem.what)).collect();
    let missing = format!(
        "{}: the snapshot that it continues is missing or not good: manifest {}",
        third.manifest.as_ref().unwrap(),
        second.manifest_sha256.as_ref().unwrap()
    );
    assert!(said.contains(&missing), "{said:?}");
    assert!(restore(&world, &installation, &third, "third.db").await.is_err());
    comes_back(&world, &installation, &first, &before).await;
    // A barrier that cannot be read lets nothing die.
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    snapshot(&installation).await;
    assert_eq!(shred_due(&installation).await.unwrap().shredded, vec![run.id]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_chain_is_no_barrier_and_the_next_snapshot_is_a_full_one() {
    let world = small().await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    let second = increment(&installation).await;
    assert_eq!(second.kind, "incremental");
    // A pack of the full one, which the increment relies on.
    let manifest = find(world.path("bucket"), first.manifest.as_ref().unwrap().rsplit('/').next().unwrap());
    let bytes = std::fs::read(&manifest).unwrap();
    let opened = Manifest::open(first.manifest.as_ref().unwrap(), &bytes, &|_, _, _| true).unwrap();
    let pack = find(world.path("bucket"), &opened.packs[0].sha256.to_string());
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let report = shred_due(&installation).await.unwrap();
    assert!(report.shredded.is_empty() && report.waiting[0].1.contains("do not open in the chain"), "{report:?}");
    let third = increment(&installation).await;
    assert_eq!((third.kind.as_str(), third.why_full.as_deref()), ("full", Some("chain-damaged")));
    assert_eq!(shred_due(&installation).await.unwrap().shredded, vec![run.id]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_chain_that_cannot_be_opened_is_not_continued() {
    let world = small().await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    assert_eq!(increment(&installation).await.kind, "incremental");
    // Without its directory nobody knows what lies where.
    let name = first.manifest.as_ref().unwrap();
    let bytes = std::fs::read(find(world.path("bucket"), name.rsplit('/').next().unwrap())).unwrap();
    let opened = Manifest::open(name, &bytes, &|_, _, _| true).unwrap();
    std::fs::remove_file(find(world.path("bucket"), &opened.directory[0].sha256.to_string())).unwrap();
    let report = shred_due(&installation).await.unwrap();
    assert!(report.shredded.is_empty() && report.waiting[0].1.contains("cannot be read"), "{report:?}");
    let third = increment(&installation).await;
    assert_eq!((third.kind.as_str(), third.why_full.as_deref()), ("full", Some("chain-damaged")));
    assert_eq!(shred_due(&installation).await.unwrap().shredded, vec![run.id]);
    // Nor one of which the verification without keys knows that something is missing, though no key waits for it.
    let name = third.manifest.as_ref().unwrap();
    let bytes = std::fs::read(find(world.path("bucket"), name.rsplit('/').next().unwrap())).unwrap();
    let opened = Manifest::open(name, &bytes, &|_, _, _| true).unwrap();
    std::fs::remove_file(find(world.path("bucket"), &opened.packs[0].sha256.to_string())).unwrap();
    assert!(!verify_backups(&installation, "shop").await.unwrap().is_valid());
    assert_eq!(increment(&installation).await.why_full.as_deref(), Some("chain-damaged"));
    installation.close().await.unwrap();
}

/// A row of a quarter that no snapshot has met, kept by a request, sealed, and moved away again.
#[tokio::test]
async fn a_row_that_was_kept_before_it_was_ever_sealed_can_leave_its_cell() {
    let world = small().await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let keeper = world.shop.picks.keeper.clone();
    let columns = world.shop.columns_of("orders").join(", ");
    let copied = columns.replacen("order_id", "999001", 1).replace("completed_at", "'2026-03-14 08:00:00'");
    let one_more = format!(
        "INSERT INTO orders ({columns}) SELECT {copied} FROM orders \
         WHERE order_id = (SELECT min(order_id) FROM orders WHERE customer_id = '{keeper}')"
    );
    world.run_sql(&one_more).await;
    forget(&installation, &keeper).await;
    assert_eq!(
        world.number("shop.db", "SELECT count(*) FROM orders WHERE order_id = 999001").await,
        1,
        "it was not kept"
    );
    let mut points = Vec::new();
    let row = increment(&installation).await;
    assert_eq!((row.kind.as_str(), row.chain), ("incremental", first.chain));
    points.push((row, world.dump_all("shop.db").await));
    shred_due(&installation).await.unwrap();
    for sql in [
        "UPDATE orders SET completed_at = '2025-02-02 08:00:00' WHERE order_id = 999001",
        "DELETE FROM orders WHERE order_id = 999001",
    ] {
        world.run_sql(sql).await;
        let row = increment(&installation).await;
        assert_eq!(row.kind, "incremental", "{sql}");
        points.push((row, world.dump_all("shop.db").await));
    }
    for (row, dump) in &points {
        comes_back(&world, &installation, row, dump).await;
    }
    installation.close().await.unwrap();
}

/// The index is only a help: that it knows a row which no snapshot holds is found out before any key dies.
#[tokio::test]
async fn a_row_that_the_index_alone_knows_is_missed_at_the_barrier() {
    let world = small().await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    installation.close().await.unwrap();
    let keeper = &world.shop.picks.keeper;
    let columns = world.shop.columns_of("orders")[1..].join(", ");
    let one_more = format!(
        "INSERT INTO orders SELECT 999001, {columns} FROM orders \
         WHERE order_id = (SELECT min(order_id) FROM orders WHERE customer_id = '{keeper}')"
    );
    let ahead = world.copied();
    for place in [&ahead, &world] {
        place.run_sql(&one_more).await;
    }
    let installation = ahead.open().await;
    assert_eq!(increment(&installation).await.rows, 1);
    installation.close().await.unwrap();
    let state = format!("sqlite://{}", world.path("state/control.db").display());
    let mut control = SqliteConnection::connect(&state).await.unwrap();
    let taken = format!(
        "ATTACH '{}' AS ahead; INSERT INTO main.change_index (row_mac, snapshot, cell, content) SELECT row_mac, {}, cell, content \
         FROM ahead.change_index WHERE row_mac NOT IN (SELECT row_mac FROM main.change_index)",
        ahead.path("state/control.db").display(),
        first.number
    );
    let done = sqlx::raw_sql(AssertSqlSafe(taken)).execute(&mut control).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
    control.close().await.unwrap();

    let installation = world.open().await;
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    let second = increment(&installation).await;
    assert_eq!((second.kind.as_str(), second.rows), ("incremental", 0), "the row was not left out");
    let report = shred_due(&installation).await.unwrap();
    assert!(report.shredded.is_empty() && report.waiting[0].1.contains("1 rows are missing"), "{report:?}");
    // Nor does a restore or a drill call that whole.
    let restored = restore(&world, &installation, &second, "restored.db").await.unwrap();
    let lost: Vec<u64> = restored.collections.iter().map(|counts| counts.lost).filter(|lost| *lost > 0).collect();
    assert!(!restored.is_whole() && lost == [1], "{restored:?}");
    assert_eq!(run_drill(&installation, second).await.unwrap().result, "failed");
    let third = increment(&installation).await;
    assert_eq!((third.kind.as_str(), third.why_full.as_deref()), ("full", Some("chain-damaged")));
    assert_eq!(shred_due(&installation).await.unwrap().shredded, vec![run.id]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_cancelled_increment_leaves_its_chain_alive_and_its_findings_out() {
    let world = small().await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    world.run_sql("DELETE FROM complaints").await;
    let mut tx = installation.control.begin().await.unwrap();
    let mut left = first.clone();
    (left.id, left.kind, left.sequence) = ("left".to_owned(), "incremental".to_owned(), 2);
    tx.begin_snapshot(&mut left).await.unwrap();
    let lost = wangchuan::control::IndexEntry { row_mac: [1; 16], cell: 1, sealed: None };
    tx.enter_changes(left.number, &[lost]).await.unwrap();
    tx.commit().await.unwrap();
    let next = increment(&installation).await;
    assert_eq!((next.kind.as_str(), next.chain), ("incremental", first.chain));
    let expected = world.dump_all("shop.db").await;
    comes_back(&world, &installation, &next, &expected).await;
    let mut tx = installation.control.read().await.unwrap();
    assert_eq!(tx.chain_state(first.chain).await.unwrap().as_deref(), Some("active"));
    assert_eq!(tx.count_indexed("shop").await.unwrap() as i64, rows_of(&expected));
    drop(tx);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_recovered_site_begins_with_a_full_snapshot() {
    let world = small().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    assert_eq!(increment(&installation).await.kind, "incremental");
    let mut tables = BTreeMap::new();
    let mut tx = installation.control.read().await.unwrap();
    tx.image(&mut |piece: wangchuan::control::ImagePiece| {
        *tables.entry(piece.table.unwrap_or_default()).or_insert(0) += piece.bytes.len();
    })
    .await
    .unwrap();
    drop(tx);
    assert!(tables.contains_key("sealed_row") && tables.contains_key("snapshot"), "{tables:?}");
    assert!(!tables.contains_key("change_index") && !tables.contains_key("change_base"), "{tables:?}");
    installation.close().await.unwrap();
}
