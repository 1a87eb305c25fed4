//! Looking again for what was erased: stripped rows are there by right, until somebody fills them again.

use wangchuan::installation::Installation;
use wangchuan::tasks::recheck::look_for_erased;

use crate::support::world::{World, body, forget, retain, snapshot};

async fn look(installation: &Installation) -> (u64, u64) {
    let looked = look_for_erased(installation).await.unwrap();
    assert!(looked.skipped.is_empty() && looked.unregistered.is_empty(), "{looked:?}");
    (looked.resurrected(), looked.returned())
}

#[tokio::test]
async fn a_stripped_row_is_there_by_right_until_it_is_filled_again() {
    let world = World::standard().await;
    let keeper = world.shop.picks.keeper.clone();
    world.run_sql(&format!("CREATE TABLE copies AS SELECT * FROM customers WHERE customer_id = '{keeper}'")).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    assert!(body(&retain(&installation).await).erased > 0);
    assert_eq!(body(&forget(&installation, &keeper).await).stripped, 1);
    assert_eq!(look(&installation).await, (0, 0));
    // Asked once more: the row is blank already.
    forget(&installation, &keeper).await;
    assert_eq!(look(&installation).await, (0, 0));

    let of_keeper = format!("WHERE customer_id = '{keeper}'");
    world.run_sql(&format!("UPDATE customers SET name = 'New Name' {of_keeper}")).await;
    assert_eq!(look(&installation).await, (0, 1));
    let columns = world.shop.columns_of("customers");
    let filled: Vec<String> = columns.iter().map(|name| format!("{name} = (SELECT {name} FROM copies)")).collect();
    world.run_sql(&format!("UPDATE customers SET {} {of_keeper}", filled.join(", "))).await;
    assert_eq!(look(&installation).await, (1, 0));
    installation.close().await.unwrap();
}
