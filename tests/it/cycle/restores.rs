//! Restores: beside reference tables, into an empty file, and never over rows.

use wangchuan::control::SnapshotRow;
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::stop::Stop;
use wangchuan::tasks::restore::{RestoreReport, restore_until};
use wangchuan::tasks::selection::{Selection, cells_of_subject};
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::{Result, TaskError};

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

/// Restores one customer's rows of a snapshot into a database file.
async fn restore_customer(
    world: &World,
    installation: &Installation,
    (snapshot, id): (&SnapshotRow, &str),
    file: &str,
) -> Result<RestoreReport> {
    let ground = installation.ground()?;
    let subject = Some(cells_of_subject(installation, &Subject::new(id)).await?);
    let wanted = Selection { subject, ..Selection::default() };
    let (repository, store) = (installation.backup()?.repository.clone(), world.store(file));
    let from = (snapshot.clone(), &wanted);
    restore_until(&Stop::default(), &ground, repository.as_ref(), &installation.signer, from, store.as_ref()).await
}

#[tokio::test]
async fn of_one_customer_comes_what_a_key_still_opens() {
    let world = World::standard().await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let picks = world.shop.picks.clone();
    let count = async |file: &str, table: &str| world.number(file, &format!("SELECT count(*) FROM {table}")).await;
    let of = async |id: &str, table: &str| {
        world.number("shop.db", &format!("SELECT count(*) FROM {table} WHERE customer_id = '{id}'")).await
    };

    let (keeper, leaver) = (picks.keeper.as_str(), picks.leaver.as_str());
    let report = restore_customer(&world, &installation, (&first, keeper), "all.db").await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!((count("all.db", "customers").await, count("all.db", "orders").await), (1, of(keeper, "orders").await));
    for table in ["complaints", "newsletter"] {
        assert_eq!(count("all.db", table).await, of(keeper, table).await, "{table}");
    }
    let lines = "SELECT count(*) FROM order_lines JOIN orders USING (order_id) WHERE customer_id =";
    let lines = world.number("shop.db", &format!("{lines} '{keeper}'")).await;
    assert_eq!(count("all.db", "order_lines").await, lines);

    // A statute keeps orders of the one, nothing of the other.
    assert!(body(&forget(&installation, keeper).await).kept > 0);
    forget(&installation, leaver).await;
    let second = snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    let report = restore_customer(&world, &installation, (&second, keeper), "kept.db").await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(count("kept.db", "orders").await, of(keeper, "orders").await);
    assert!(count("kept.db", "orders").await > 0);
    // What is left of the customer row lies under a pin of its own by now.
    assert_eq!(world.dump("kept.db", "customers").await.len(), 1);
    let blank = format!("SELECT count(*) FROM customers WHERE customer_id = '{keeper}' AND name = ''");
    assert_eq!(world.number("kept.db", &blank).await, 1);
    assert_eq!(report.collections.iter().map(|counts| counts.stubs).sum::<u64>(), 0, "{report:?}");
    let gone = restore_customer(&world, &installation, (&first, leaver), "gone.db").await.unwrap_err();
    assert!(matches!(&gone, TaskError::Unknown { .. }) && !gone.to_string().contains(leaver), "{gone}");
    installation.close().await.unwrap();
}
