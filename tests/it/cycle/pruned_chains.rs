//! Chains of full snapshots and increments that go, and what of them must stay.

use wangchuan::agent::verify_backups;
use wangchuan::installation::Installation;
use wangchuan::policy::keep::Stays;
use wangchuan::tasks::prune::{PrunePlan, plan_prune, prune};
use wangchuan::tasks::shred::shred_due;

use crate::support::world::{Making, World, forget, increment, restore, retain, snapshot};

async fn world(grace: &'static str) -> World {
    let world = World::make(Making { customers: 30, grace, ..Making::default() }).await;
    let bucket = "bucket = \"wangchuan\"\n";
    world.edit_config(bucket, &format!("{bucket}keep = {{ last = 1 }}\nprune = \"delete\"\n"));
    world
}

async fn plan(installation: &Installation) -> PrunePlan {
    plan_prune(installation, &[]).await.unwrap()
}

/// Each chain with its snapshots and why it stays.
fn told(plan: &PrunePlan) -> Vec<(Vec<i64>, Vec<Stays>)> {
    let numbers =
        |chain: &wangchuan::tasks::prune::ChainVerdict| chain.snapshots.iter().map(|row| row.number).collect();
    plan.chains.iter().map(|chain| (numbers(chain), chain.stays.iter().copied().collect())).collect()
}

#[tokio::test]
async fn a_chain_goes_whole_and_increments_go_on_from_what_stays() {
    let world = world("0").await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    world.run_sql("UPDATE complaints SET body = 'another'").await;
    let second = increment(&installation).await;
    let run = retain(&installation).await;
    let third = snapshot(&installation).await;
    world.run_sql("DELETE FROM newsletter WHERE rowid % 7 = 0").await;
    let fourth = increment(&installation).await;
    assert_eq!((second.kind.as_str(), fourth.chain), ("incremental", third.chain));
    let decided = plan(&installation).await;
    let expected = [(vec![first.number, second.number], vec![]), (vec![third.number, fourth.number], vec![])];
    let found = told(&decided);
    assert_eq!(found[0], expected[0]);
    assert_eq!((found[1].0.clone(), found[1].1.contains(&Stays::Newest)), (expected[1].0.clone(), true));
    let report = prune(&installation, &[], &decided).await.unwrap();
    assert!(report.is_well() && report.left.is_empty(), "{report:?}");
    assert_eq!(report.destroyed.iter().map(|chain| chain.snapshots).collect::<Vec<_>>(), [2]);
    // Rows that lay in no other chain are shredded with it.
    assert_eq!(report.shred.shredded, [run.id]);

    let found = verify_backups(&installation, "shop").await.unwrap();
    assert!(found.is_valid() && found.pruned == 2, "{found:?}");
    world.run_sql("UPDATE orders SET shipping_address = 'moved' WHERE order_id % 3 = 0").await;
    forget(&installation, &world.shop.picks.leaver.clone()).await;
    let fifth = increment(&installation).await;
    assert_eq!((fifth.kind.as_str(), fifth.chain, fifth.why_full.as_deref()), ("incremental", third.chain, None));
    assert_eq!(shred_due(&installation).await.unwrap().shredded.len(), 1);
    let restored = restore(&world, &installation, &fifth, "restored.db").await.unwrap();
    assert!(restored.is_whole(), "{restored:?}");
    assert_eq!(world.dump_all("restored.db").await, world.dump_all("shop.db").await);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn what_an_open_run_took_stays_where_it_lies() {
    let world = world("0").await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let run = retain(&installation).await;
    // As a run is left whose store went away right behind the last batch.
    let open =
        format!("UPDATE run SET state = 'deleted', verified_snapshot = NULL WHERE id = '{}' RETURNING 1", run.id);
    world.number("state/control.db", &open).await;
    let second = snapshot(&installation).await;
    assert_eq!(told(&plan(&installation).await)[0], (vec![first.number], vec![Stays::OpenRun]));
    // Verified only behind the second: grace and holds would need the first all the same.
    let late = format!(
        "UPDATE run SET state = 'shred-pending', verified_snapshot = {}, grace_until = '2099-01-01T00:00:00.000Z' \
         WHERE id = '{}' RETURNING 1",
        second.number, run.id
    );
    world.number("state/control.db", &late).await;
    assert_eq!(told(&plan(&installation).await)[0], (vec![first.number], vec![Stays::Grace]));
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_marked_chain_whose_key_died_with_another_shred_is_not_forgotten() {
    let world = world("0").await;
    let installation = world.open().await;
    snapshot(&installation).await;
    snapshot(&installation).await;
    let decided = plan(&installation).await;
    // Marked, and the process ends; the hourly shred comes first.
    let mut tx = installation.control.begin().await.unwrap();
    let going = decided.going().next().unwrap();
    let marked = wangchuan::control::PrunedChain {
        chain: going.chain,
        store: going.store.clone(),
        state: "marked".to_owned(),
        marked_at: installation.clock.now(),
        snapshots: 1,
        bytes: going.bytes(),
        generation: None,
        destroyed_at: None,
        locked_until: None,
        removed_at: None,
    };
    assert!(tx.mark_chain_pruned(&marked).await.unwrap());
    tx.commit().await.unwrap();
    assert!(shred_due(&installation).await.unwrap().generation.is_some());
    let now = plan(&installation).await;
    assert!(now.going().next().is_none() && now.left.is_empty() && !now.is_idle(), "{now:?}");
    let report = prune(&installation, &[], &now).await.unwrap();
    assert!(report.objects_removed > 0 && report.left.is_empty(), "{report:?}");
    assert!(plan(&installation).await.is_idle());
    installation.close().await.unwrap();
}
