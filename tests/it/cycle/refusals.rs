//! When the program must not act: something changed since the plan, a cap, no snapshot, a stop, a doubtful clock.

use std::net::SocketAddr;
use std::sync::Arc;

use chrono::TimeDelta;
use wangchuan::audit::receipt::LogOperator;
use wangchuan::audit::service::{ServiceSetup, start};
use wangchuan::audit::witness::Witnesses;
use wangchuan::control::log_store::SqlLogStore;
use wangchuan::installation::Installation;
use wangchuan::log::checkpoint::CheckpointSigner;
use wangchuan::log::sequencer::Sequencer;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::erasure::{execute, find_plan, plan_retention};
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::status::status;

use super::requests::{hold_subject, release};
use crate::support::world::{Making, World, body, forget, refusal, retain, snapshot, try_snapshot};

async fn plan_state(installation: &Installation, id: &str) -> String {
    installation.control.read().await.unwrap().plan(id).await.unwrap().unwrap().state
}

#[tokio::test]
async fn a_plan_is_void_once_a_policy_the_schema_or_a_hold_changed() {
    let world = World::standard().await;
    let before = world.dump_all("shop.db").await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let plan = plan_retention(&installation).await.unwrap();
    installation.close().await.unwrap();

    world.edit_config("retention = \"1 year\"", "retention = \"2 years\"");
    let mut installation = world.open().await;
    let stored = find_plan(&installation, &plan.row.hash[..10]).await.unwrap();
    let what = refusal(execute(&installation, &stored).await);
    assert!(what.contains("the policies or the registry changed"), "{what}");
    assert_eq!(plan_state(&installation, &stored.id).await, "void");
    let stored = find_plan(&installation, &plan.row.hash).await.unwrap();
    assert!(refusal(execute(&installation, &stored).await).contains("is void already"));

    hold_subject(&installation, &world.shop.picks.held.clone(), "h-2").await;
    let plan = plan_retention(&installation).await.unwrap();
    release(&installation, "h-2").await;
    let what = refusal(execute(&installation, &plan.row).await);
    assert!(what.contains("a hold was released"), "{what}");

    let plan = plan_retention(&installation).await.unwrap();
    world.run_sql("ALTER TABLE complaints ADD COLUMN handled_by TEXT").await;
    installation.refresh().await.unwrap();
    let what = refusal(execute(&installation, &plan.row).await);
    assert!(what.contains("the schema of store shop changed"), "{what}");
    world.run_sql("ALTER TABLE complaints DROP COLUMN handled_by").await;
    assert_eq!(world.dump_all("shop.db").await, before, "nothing was erased");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_hold_placed_after_the_plan_is_kept_by_the_batch() {
    let world = World::standard().await;
    let installation = world.open().await;
    let held = world.shop.picks.held.clone();
    snapshot(&installation).await;
    let plan = plan_retention(&installation).await.unwrap();
    hold_subject(&installation, &held, "h-3").await;
    let run = execute(&installation, &plan.row).await.unwrap();
    let counts = body(&run);
    assert!(counts.kept > 0 && counts.erased > 0, "{counts:?}");
    for table in ["orders", "complaints", "newsletter", "customers"] {
        let of = format!("SELECT count(*) FROM {table} WHERE customer_id = '{held}'");
        assert!(world.number("shop.db", &of).await > 0, "{table}");
    }
    let lines = "SELECT count(*) FROM orders WHERE order_id NOT IN (SELECT order_id FROM order_lines)";
    assert_eq!(world.number("shop.db", lines).await, 0, "a kept order keeps its lines");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_row_that_was_renewed_after_the_plan_stays() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let plan = plan_retention(&installation).await.unwrap();
    let one = "SELECT min(order_id) FROM orders WHERE completed_at < '2023-01-01' AND completed_at > '2000'";
    let order = world.number("shop.db", one).await;
    world.run_sql(&format!("UPDATE orders SET completed_at = '2026-01-01 10:00:00' WHERE order_id = {order}")).await;
    let run = execute(&installation, &plan.row).await.unwrap();
    assert!(body(&run).kept > 0);
    let left = format!("SELECT count(*) FROM orders WHERE order_id = {order}");
    assert_eq!(world.number("shop.db", &left).await, 1);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_swallowed_delete_is_a_failure_and_never_complete() {
    let world = World::standard().await;
    world.run_sql("CREATE TRIGGER keepers BEFORE DELETE ON complaints BEGIN SELECT RAISE(IGNORE); END").await;
    // Declared harmless, which it is not: otherwise nothing would be tried at all.
    world.edit_config("table = \"complaints\"\n", "table = \"complaints\"\ntriggers = [\"keepers\"]\n");
    let complaints = world.dump("shop.db", "complaints").await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = retain(&installation).await;
    let counts = body(&run);
    assert!(counts.failed > 0 && counts.erased > 0, "{counts:?}");
    assert_eq!(world.dump("shop.db", "complaints").await, complaints);
    let status = status(&installation.control, &installation.config, world.clock.as_ref()).await.unwrap();
    let told: Vec<_> = status.overdue.iter().filter(|item| item.code == "rows-failed").collect();
    assert!(
        told.len() == 1 && told[0].what.contains(&format!("{} rows failed", counts.failed)),
        "{:?}",
        status.overdue
    );
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    let ids = certify_due(&installation).await.unwrap();
    let stored = installation.control.read().await.unwrap().certificate(&ids[0]).await.unwrap().unwrap();
    assert_eq!(stored.result, "partial");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_plan_beyond_its_cap_is_made_and_no_run_of_it() {
    let world = World::make(Making { max_percent: 2, ..Making::default() }).await;
    let before = world.dump_all("shop.db").await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let plan = plan_retention(&installation).await.unwrap();
    let what = refusal(execute(&installation, &plan.row).await);
    assert!(what.contains("beyond its cap") && what.contains("completed-orders"), "{what}");
    assert_eq!(world.dump_all("shop.db").await, before);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn nothing_is_destroyed_before_a_snapshot_or_while_it_is_held() {
    let world = World::standard().await;
    let before = world.dump_all("shop.db").await;
    let installation = world.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    let what = refusal(execute(&installation, &plan.row).await);
    assert!(what.contains("has no snapshot yet"), "{what}");
    snapshot(&installation).await;
    let mut tx = installation.control.begin().await.unwrap();
    tx.set_meta("agent_hold", "2026-03-15").await.unwrap();
    tx.commit().await.unwrap();
    assert!(refusal(execute(&installation, &plan.row).await).contains("all destruction is held"));
    assert!(refusal(shred_due(&installation).await).contains("all destruction is held"));
    try_snapshot(&installation).await.unwrap();
    assert_eq!(world.dump_all("shop.db").await, before);
    let mut tx = installation.control.begin().await.unwrap();
    tx.clear_meta("agent_hold").await.unwrap();
    tx.commit().await.unwrap();
    assert!(body(&execute(&installation, &plan.row).await.unwrap()).erased > 0);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_doubtful_clock_stops_destruction_and_not_backups() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    let plan = plan_retention(&installation).await.unwrap();
    world.clock.advance(TimeDelta::minutes(-30));
    assert!(refusal(execute(&installation, &plan.row).await).contains("it was set back"));
    try_snapshot(&installation).await.unwrap();
    world.clock.advance(TimeDelta::days(366));
    assert!(refusal(execute(&installation, &plan.row).await).contains("may have been set forward"));
    assert!(refusal(shred_due(&installation).await).contains("may have been set forward"));
    try_snapshot(&installation).await.unwrap();
    world.clock.advance(TimeDelta::days(-366) + TimeDelta::minutes(31));
    assert!(body(&execute(&installation, &plan.row).await.unwrap()).erased > 0);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn unknown_plans_and_unreachable_stores_are_named() {
    let world = World::standard().await;
    let installation = world.open().await;
    for prefix in ["a", "abcdefabcdef", "%"] {
        assert!(matches!(find_plan(&installation, prefix).await, Err(TaskError::Unknown { .. })), "{prefix}");
    }
    installation.close().await.unwrap();
    std::fs::rename(world.path("shop.db"), world.path("away.db")).unwrap();
    let installation = world.open().await;
    assert_eq!(installation.skipped().len(), 1);
    assert!(refusal(plan_retention(&installation).await).contains("no store could be read"));
    assert!(matches!(try_snapshot(&installation).await, Err(TaskError::Unknown { .. })));
    installation.close().await.unwrap();
}

#[tokio::test]
async fn certificates_wait_for_the_audit_service_and_go_later() {
    let port = crate::support::ports::free_port();
    let world = World::make(Making { audit: format!("url = \"http://127.0.0.1:{port}\""), ..Making::default() }).await;
    let pkcs8 = CheckpointSigner::make_pkcs8(&SystemRandom).unwrap();
    let signer = CheckpointSigner::from_pkcs8("audit.example/log", &pkcs8).unwrap();
    std::fs::write(world.path("state/audit-log.vkey"), signer.key().verifier_key()).unwrap();
    let installation = world.open().await;
    snapshot(&installation).await;
    forget(&installation, &world.shop.picks.leaver.clone()).await;
    snapshot(&installation).await;
    assert_eq!(shred_due(&installation).await.unwrap().shredded.len(), 1);
    let ids = certify_due(&installation).await.unwrap();
    let report = file_due(&installation, false).await.unwrap();
    assert_eq!((report.receipted.len(), report.waiting.len(), report.quarantined.len()), (0, 1, 0), "{report:?}");
    // Not again at once, but after a while.
    let again = file_due(&installation, false).await.unwrap();
    assert_eq!(again.waiting.len(), 1);
    let attempts = installation.control.read().await.unwrap().outbox(None).await.unwrap()[0].attempts;
    assert_eq!(attempts, 1);
    assert_eq!(verify_certificate(&installation, &ids[0]).await.unwrap().result, "invalid");

    let store = SqlLogStore::open(&world.path("elsewhere.db"), "certificates").await.unwrap();
    let service = start(ServiceSetup {
        bind: SocketAddr::from(([127, 0, 0, 1], port)),
        sequencer: Sequencer::open(Arc::new(store), signer, None).await.unwrap(),
        signers: installation.signer.trusted().clone().into(),
        token: None,
        operator: LogOperator::Independent,
        witnesses: Witnesses::default(),
        clock: world.clock.clone(),
    })
    .await
    .unwrap();
    world.clock.advance(TimeDelta::hours(1));
    let report = file_due(&installation, false).await.unwrap();
    assert_eq!(report.receipted, ids, "{report:?}");
    assert_eq!(verify_certificate(&installation, &ids[0]).await.unwrap().result, "valid");
    installation.close().await.unwrap();
    service.stop().await.unwrap();
}
