//! A customer who was erased comes back: old ledger entries and dead keys do not touch the new rows.

use wangchuan::tasks::shred::shred_due;

use crate::support::world::{World, body, forget, restore, retain, snapshot};

#[tokio::test]
async fn a_returning_customer_is_backed_up_restored_and_erased_again() {
    let world = World::standard().await;
    let installation = world.open().await;
    let leaver = world.shop.picks.leaver.clone();
    let row = world.dump("shop.db", "customers").await.into_iter().find(|row| row.contains(&leaver)).unwrap();
    let first = snapshot(&installation).await;
    let run = forget(&installation, &leaver).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();

    // The same id, and even the same values.
    world.run_sql(&format!("INSERT INTO customers VALUES ({row})")).await;
    let back = snapshot(&installation).await;
    let restored = restore(&world, &installation, &back, "back.db").await.unwrap();
    assert!(restored.is_whole() && restored.frames_shredded == 0, "{restored:?}");
    assert!(world.dump("back.db", "customers").await.contains(&row));
    let restored = restore(&world, &installation, &first, "first.db").await.unwrap();
    assert!(restored.is_whole(), "{restored:?}");
    let of = format!("SELECT count(*) FROM customers WHERE customer_id = '{leaver}'");
    assert_eq!(world.number("first.db", &of).await, 0);
    assert_eq!(world.number("back.db", &of).await, 1);

    // Retention of others leaves the returned one alone, in the shop and in the snapshot.
    retain(&installation).await;
    let later = snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    for (snapshot, file) in [(&back, "back2.db"), (&later, "later2.db")] {
        restore(&world, &installation, snapshot, file).await.unwrap();
        assert_eq!(world.number(file, &of).await, 1, "{file}");
    }

    let second = forget(&installation, &leaver).await;
    assert_eq!(body(&second).erased, 1);
    assert_ne!(run.id, second.id);
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert!(report.shredded.contains(&second.id), "{report:?}");
    let restored = restore(&world, &installation, &back, "gone.db").await.unwrap();
    assert_eq!(world.number("gone.db", &of).await, 0);
    let customers = restored.collections.iter().find(|counts| counts.collection == "customers").unwrap();
    assert!(customers.shredded >= 1, "{restored:?}");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_returning_customers_kept_orders_stay_readable_in_old_snapshots() {
    // Erasures from before the return must not count against the cells of the new rows.
    let world = World::standard().await;
    let installation = world.open().await;
    let leaver = world.shop.picks.leaver.clone();
    let row = world.dump("shop.db", "customers").await.into_iter().find(|row| row.contains(&leaver)).unwrap();
    // One of the new orders has the number of an erased one.
    let first = format!("SELECT min(order_id) FROM orders WHERE customer_id = '{leaver}'");
    let reused = world.number("shop.db", &first).await;
    snapshot(&installation).await;
    forget(&installation, &leaver).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    world.run_sql(&format!("INSERT INTO customers VALUES ({row})")).await;
    world
        .run_sql(&format!(
            "INSERT INTO orders VALUES ({reused}, '{leaver}', 'completed', '2025-05-01 08:00:00', '2025-05-09 08:00:00', 1, 'new street');
             INSERT INTO orders VALUES (999003, '{leaver}', 'completed', '2025-05-02 08:00:00', '2025-05-10 08:00:00', 1, 'new street')"
        ))
        .await;
    let back = snapshot(&installation).await;
    let run = forget(&installation, &leaver).await;
    let counts = body(&run);
    assert_eq!((counts.kept, counts.stripped), (2, 1), "{counts:?}");
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert!(report.shredded.contains(&run.id), "{report:?}");
    let restored = restore(&world, &installation, &back, "back.db").await.unwrap();
    assert!(restored.is_whole(), "{restored:?}");
    let kept = format!("SELECT count(*) FROM orders WHERE order_id IN ({reused}, 999003)");
    assert_eq!(world.number("back.db", &kept).await, 2);
    installation.close().await.unwrap();
}
