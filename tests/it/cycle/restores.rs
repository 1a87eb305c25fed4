//! Restores: beside reference tables, into an empty file, and never over rows.

use wangchuan::tasks::shred::shred_due;

use crate::support::world::{TABLES, World, body, forget, refusal, restore, retain, snapshot};

#[tokio::test]
async fn rows_come_back_equal_beside_their_reference_tables() {
    let world = World::standard().await;
    let installation = world.open().await;
    let before = world.dump_all("shop.db").await;
    let first = snapshot(&installation).await;
    // Only the reference table is loaded; the registered ones stand empty.
    let tables: Vec<_> = world
        .shop
        .iter()
        .map(|(table, rows)| (table.clone(), if table.name == "products" { rows.to_vec() } else { Vec::new() }))
        .collect();
    world.fill("target.db", &tables).await;
    let report = restore(&world, &installation, &first, "target.db").await.unwrap();
    assert!(report.is_whole() && report.notes.is_empty(), "{report:?}");
    assert_eq!(world.dump_all("target.db").await, before);

    let again = refusal(restore(&world, &installation, &first, "target.db").await);
    assert!(again.contains("never writes over"), "{again}");
    assert_eq!(world.dump_all("target.db").await, before);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn an_empty_file_gets_tables_and_stubs_for_parents_that_are_gone() {
    let world = World::standard().await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let keeper = world.shop.picks.keeper.clone();
    let run = forget(&installation, &keeper).await;
    assert_eq!(body(&run).stripped, 1);
    let stripped = body(&retain(&installation).await).stripped;
    let living = world.dump_all("shop.db").await;
    let second = snapshot(&installation).await;
    shred_due(&installation).await.unwrap();

    let report = restore(&world, &installation, &second, "second.db").await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(world.dump_all("second.db").await, living);
    assert!(report.notes.iter().any(|note| note.contains("products")), "{report:?}");
    assert_eq!(report.collections.iter().map(|counts| counts.stubs).sum::<u64>(), 0);

    // The version from before the erasure is gone; its children that stayed hang on a stub.
    let report = restore(&world, &installation, &first, "first.db").await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    let customers = report.collections.iter().find(|counts| counts.collection == "customers").unwrap();
    assert_eq!(customers.stubs as i64, 1 + stripped, "{report:?}");
    let stub = format!("SELECT count(*) FROM customers WHERE customer_id = '{keeper}' AND name = '' AND email = ''");
    assert_eq!(world.number("first.db", &stub).await, 1);
    for table in TABLES.into_iter().filter(|table| *table != "customers") {
        let rows = living.iter().find(|(name, _)| name == table).unwrap();
        assert_eq!(world.dump("first.db", table).await, rows.1, "{table}");
    }
    installation.close().await.unwrap();
}
