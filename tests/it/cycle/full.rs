//! One full cycle of retention, from the first snapshot to the drill on it.

use std::collections::HashSet;

use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::erasure::{execute, plan_retention};
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::shred::shred_due;

use crate::support::control_database::server;
use crate::support::world::{Making, World, body, run_now, snapshot};

#[tokio::test]
async fn a_full_cycle_erases_proves_and_can_be_drilled() {
    full_cycle(World::standard().await).await;
}

#[tokio::test]
async fn a_full_cycle_does_so_with_a_control_database_on_postgresql() {
    let Some(server) = server("a full cycle") else { return };
    full_cycle(World::make(Making { server: Some(server), ..Making::default() }).await).await;
}

async fn full_cycle(world: World) {
    let installation = world.open().await;
    let before = world.dump_all("shop.db").await;
    let first = snapshot(&installation).await;
    let rows: usize = before.iter().map(|(_, rows)| rows.len()).sum();
    assert_eq!(first.rows, rows as i64);

    let plan = plan_retention(&installation).await.unwrap();
    assert_eq!(world.dump_all("shop.db").await, before, "planning changes nothing");
    let run = execute(&installation, &plan.row).await.unwrap();
    let counts = body(&run);
    assert_eq!(counts.due, plan.body.due() as i64);
    assert!(counts.erased > 100 && counts.stripped > 0 && counts.failed == 0, "{counts:?}");
    assert_eq!((counts.looked_for, counts.looked_at), (counts.erased as u64, counts.stripped as u64));

    // Absence and presence, asked by other means.
    let after = world.dump_all("shop.db").await;
    let left: usize = after.iter().map(|(_, rows)| rows.len()).sum();
    assert_eq!(rows - left, counts.erased as usize);
    for ((table, old), (_, new)) in before.iter().zip(&after) {
        let old: HashSet<&String> = old.iter().collect();
        let changed = new.iter().filter(|row| !old.contains(row)).count() as i64;
        // Due accounts that a kept order needs are stripped; nothing else changes.
        assert_eq!(changed, if table == "customers" { counts.stripped } else { 0 }, "{table}: a kept row changed");
    }
    let late = "SELECT count(*) FROM orders WHERE completed_at >= '1900' AND completed_at < '2023-03-15 09:59:59'";
    assert_eq!(world.number("shop.db", late).await, 0);
    let orphans = "SELECT count(*) FROM order_lines WHERE order_id NOT IN (SELECT order_id FROM orders)";
    assert_eq!(world.number("shop.db", orphans).await, 0);

    let second = snapshot(&installation).await;
    assert_eq!(second.rows, left as i64);
    let shredded = shred_due(&installation).await.unwrap();
    assert_eq!(shredded.generation, Some(2), "{shredded:?}");
    assert!(shredded.keys > 0 && shredded.waiting.is_empty(), "{shredded:?}");
    let run = run_now(&installation, &run.id).await;
    assert_eq!(run.generation, Some(2));

    let certificates = certify_due(&installation).await.unwrap();
    assert_eq!(certificates.len(), 1);
    assert_eq!(certify_due(&installation).await.unwrap(), Vec::<String>::new());
    let filed = file_due(&installation, false).await.unwrap();
    assert_eq!(filed.receipted, certificates, "{filed:?}");
    let verdict = verify_certificate(&installation, &certificates[0]).await.unwrap();
    assert_eq!(verdict.result, "valid", "{verdict:?}");

    let drill = run_drill(&installation, first).await.unwrap();
    assert_eq!(drill.result, "passed", "{drill:?}");
    let [opened, gone, lost, corrupt, all] = drill.frames;
    assert!(opened > 0 && gone > 0 && lost == 0 && corrupt == 0 && opened + gone == all, "{drill:?}");
    assert!(drill.tried[0] > 0 && drill.tried[1] > 0 && drill.resurrected == 0 && drill.cleaned_up, "{drill:?}");
    let sums = drill.collections.iter().fold((0, 0, 0), |sum, c| (sum.0 + c.1, sum.1 + c.2, sum.2 + c.3));
    assert_eq!((sums.0 + sums.1 + sums.2) as usize, rows, "{drill:?}");
    assert_eq!((sums.1 + sums.2) as i64, counts.erased + counts.stripped, "{drill:?}");
    installation.close().await.unwrap();
}
