//! The retention of backups: what is not kept loses its key, then its objects, and never what something needs.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use chrono::TimeDelta;
use wangchuan::agent::verify_backups;
use wangchuan::control::{HoldRow, SnapshotRow};
use wangchuan::crash_point::PRUNE_POINTS;
use wangchuan::installation::{Installation, Needs};
use wangchuan::policy::keep::Stays;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::prune::{PrunePlan, PruneReport, plan_prune, prune, unneeded_objects};
use wangchuan::tasks::request::place_hold;
use wangchuan::tasks::shred::shred_due;

use crate::support::world::{
    Making, World, body, dawn, forget, manual_clock, pass_time, read_config, refusal, restore, retain, run_now,
    snapshot,
};

const BUCKET: &str = "bucket = \"wangchuan\"\n";

/// A world that keeps so much of its backups.
async fn world(keep: &str, grace: &'static str) -> World {
    let world = World::make(Making { customers: 30, grace, ..Making::default() }).await;
    world.edit_config(BUCKET, &format!("{BUCKET}{keep}\n"));
    world
}

async fn plan(installation: &Installation) -> PrunePlan {
    plan_prune(installation, &[]).await.unwrap()
}

async fn carry_out(installation: &Installation) -> PruneReport {
    let plan = plan(installation).await;
    prune(installation, &[], &plan).await.unwrap()
}

fn going(plan: &PrunePlan) -> Vec<i64> {
    plan.going().flat_map(|chain| chain.snapshots.iter().map(|row| row.number)).collect()
}

fn stays(plan: &PrunePlan, row: &SnapshotRow) -> Vec<Stays> {
    let chain = plan.chains.iter().find(|chain| chain.chain == row.chain).unwrap();
    chain.stays.iter().copied().collect()
}

/// The names of all objects in these folders of the bucket.
fn stored(world: &World) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["packs", "directories"] {
        for entry in std::fs::read_dir(world.path("bucket/wangchuan").join(folder)).unwrap() {
            names.insert(format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap()));
        }
    }
    names
}

fn hold(scope: &str, store: Option<&str>) -> HoldRow {
    HoldRow {
        id: format!("hold-{scope}"),
        scope: scope.to_owned(),
        store: store.map(str::to_owned),
        collection: None,
        subject: None,
        reason: "case 7".to_owned(),
        placed_at: dawn(),
        placed_by: "test".to_owned(),
        released_at: None,
    }
}

async fn assert_whole(world: &World, installation: &Installation, newest: &SnapshotRow, file: &str) {
    let found = verify_backups(installation, "shop").await.unwrap();
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let report = restore(world, installation, newest, file).await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(world.dump_all(file).await, world.dump_all("shop.db").await);
}

#[tokio::test]
async fn what_no_rule_keeps_loses_its_key_and_then_its_objects() {
    let world = world("keep = { last = 1 }\nprune = \"delete\"", "0").await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let of_first = stored(&world);
    let second = snapshot(&installation).await;
    let before_third = stored(&world);
    let third = snapshot(&installation).await;
    let decided = plan(&installation).await;
    assert_eq!(going(&decided), [first.number, second.number]);
    assert_eq!(stays(&decided, &third), [Stays::Newest, Stays::Last]);
    let report = prune(&installation, &[], &decided).await.unwrap();
    assert!(report.is_well() && report.waiting.is_empty() && report.left.is_empty(), "{report:?}");
    assert_eq!((report.destroyed.len(), report.shred.keys), (2, 2));
    assert_eq!(report.objects_removed as usize, before_third.len());
    assert!(of_first.iter().all(|name| !stored(&world).contains(name)));
    assert!(!stored(&world).is_empty());

    // Nothing opens it, the recovered chain of manifests is whole, and what stays is untouched.
    let error = restore(&world, &installation, &first, "first.db").await.unwrap_err().to_string();
    assert!(error.contains("destroyed"), "{error}");
    let found = verify_backups(&installation, "shop").await.unwrap();
    assert_eq!((found.manifests, found.pruned), (3, 2));
    assert_whole(&world, &installation, &third, "third.db").await;
    let mut tx = installation.control.read().await.unwrap();
    assert_eq!(tx.snapshots(None).await.unwrap().len(), 1);
    let states: Vec<String> = tx.pruned_chains(None).await.unwrap().into_iter().map(|chain| chain.state).collect();
    assert_eq!(states, ["removed", "removed"]);
    drop(tx);
    // The next snapshot follows the third, and a second prune finds nothing.
    let fourth = snapshot(&installation).await;
    assert_eq!(fourth.sequence, 4);
    assert_eq!(going(&plan(&installation).await), [third.number]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn without_the_right_to_delete_objects_are_named() {
    let world = world("keep = { last = 1 }", "0").await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let of_first = stored(&world);
    assert_eq!(unneeded_objects(&installation).await.unwrap(), Vec::new());
    let second = snapshot(&installation).await;
    let report = carry_out(&installation).await;
    assert_eq!((report.destroyed.len(), report.objects_removed), (1, 0));
    let named: BTreeSet<String> =
        unneeded_objects(&installation).await.unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(named, of_first);
    // Whoever removes them by other means breaks nothing.
    for name in &named {
        std::fs::remove_file(world.path("bucket/wangchuan").join(name)).unwrap();
    }
    assert_eq!(unneeded_objects(&installation).await.unwrap(), Vec::new());
    assert_whole(&world, &installation, &second, "second.db").await;
    installation.close().await.unwrap();
}

#[tokio::test]
async fn rows_that_die_with_their_chain_are_shredded_with_it() {
    let world = world("keep = { last = 1 }", "0").await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = retain(&installation).await;
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.pending.len(), 1, "rows of a quarter that is not wholly due still open");
    certify_due(&installation).await.unwrap();
    let (rows, _) = body(&run_now(&installation, &run.id).await).pending.unwrap();
    assert!(rows > 0);

    let report = carry_out(&installation).await;
    assert_eq!(report.shred.shredded, std::slice::from_ref(&run.id), "{report:?}");
    let run = run_now(&installation, &run.id).await;
    assert_eq!((run.state.as_str(), body(&run).pending), ("shredded", None));
    assert_eq!(Some(run.generation), Some(report.shred.generation));
    assert_eq!(certify_due(&installation).await.unwrap().len(), 1);
    let mut tx = installation.control.read().await.unwrap();
    let newest = tx.certificates(Some(&run.id)).await.unwrap().pop().unwrap();
    assert_eq!((newest.result.as_str(), newest.supersedes.is_some()), ("complete", true));
    drop(tx);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn rows_in_a_chain_that_stays_still_open() {
    let world = world("keep = { last = 2 }", "0").await;
    let installation = world.open().await;
    snapshot(&installation).await;
    snapshot(&installation).await;
    let run = retain(&installation).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    let before = body(&run_now(&installation, &run.id).await).pending.unwrap();
    let report = carry_out(&installation).await;
    assert_eq!(report.destroyed.len(), 1);
    let run = run_now(&installation, &run.id).await;
    // The second snapshot was taken before the erasure too.
    assert_eq!((run.state.as_str(), body(&run).pending), ("shred-pending", Some(before)));
    snapshot(&installation).await;
    carry_out(&installation).await;
    assert_eq!(run_now(&installation, &run.id).await.state, "shredded");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_chain_that_something_needs_stays() {
    let world = world("keep = { last = 1 }", "72 hours").await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    forget(&installation, &world.shop.picks.leaver.clone()).await;
    let second = snapshot(&installation).await;
    assert_eq!(stays(&plan(&installation).await, &first), [Stays::Grace]);
    snapshot(&installation).await;
    let third = snapshot(&installation).await;
    assert!(going(&plan(&installation).await).contains(&second.number), "grace needs only what lay there before");
    pass_time(&world, &installation, TimeDelta::hours(80)).await;
    assert_eq!(stays(&plan(&installation).await, &first), []);

    assert_eq!(run_drill(&installation, second.clone()).await.unwrap().result, "passed");
    assert_eq!(stays(&plan(&installation).await, &second), [Stays::NewestProven]);
    run_drill(&installation, third).await.unwrap();
    assert_eq!(stays(&plan(&installation).await, &second), []);

    let reading = installation.use_chain(first.chain).await.unwrap();
    assert_eq!(stays(&plan(&installation).await, &first), [Stays::InUse]);
    installation.release_chain(&reading).await.unwrap();

    place_hold(&installation, &hold("store", Some("shop")), None).await.unwrap();
    assert_eq!(stays(&plan(&installation).await, &first), [Stays::Hold]);
    assert_eq!(carry_out(&installation).await, PruneReport::default());
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_hold_on_a_store_leaves_others_alone_and_no_rule_keeps_all() {
    let world = world("keep = { days = 7 }", "0").await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let mut tx = installation.control.begin().await.unwrap();
    tx.add_hold(&hold("store", Some("elsewhere"))).await.unwrap();
    tx.commit().await.unwrap();
    pass_time(&world, &installation, TimeDelta::days(8)).await;
    // The newest stays, however old.
    assert_eq!(stays(&plan(&installation).await, &first), [Stays::Newest]);
    snapshot(&installation).await;
    assert_eq!(going(&plan(&installation).await), [first.number]);
    installation.close().await.unwrap();
    world.edit_config("keep = { days = 7 }\n", "");
    let installation = world.open().await;
    assert_eq!(stays(&plan(&installation).await, &first), [Stays::NoRule]);
    assert_eq!(carry_out(&installation).await, PruneReport::default());
    installation.close().await.unwrap();
}

#[tokio::test]
async fn nothing_goes_before_the_newest_is_proven() {
    let world = world("keep = { last = 1 }\nprune = \"delete\"", "0").await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let of_first = stored(&world);
    snapshot(&installation).await;
    let pack = stored(&world).into_iter().find(|name| name.starts_with("packs/") && !of_first.contains(name)).unwrap();
    let path = world.path("bucket/wangchuan").join(pack);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&path, bad).unwrap();
    let report = carry_out(&installation).await;
    assert!(!report.is_well() && report.unproven[0].1.contains("do not open"), "{report:?}");
    assert_eq!(report.destroyed, Vec::new());
    assert!(of_first.is_subset(&stored(&world)));
    assert_eq!(going(&plan(&installation).await), [first.number]);
    std::fs::write(&path, good).unwrap();
    assert_eq!(carry_out(&installation).await.destroyed.len(), 1);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_decision_that_changed_is_not_carried_out_and_a_held_agent_destroys_nothing() {
    let world = world("keep = { last = 1 }", "0").await;
    let installation = world.open().await;
    snapshot(&installation).await;
    snapshot(&installation).await;
    let decided = plan(&installation).await;
    snapshot(&installation).await;
    let what = refusal(prune(&installation, &[], &decided).await);
    assert!(what.contains("is not what was decided"), "{what}");
    let mut tx = installation.control.begin().await.unwrap();
    tx.set_meta("agent_hold", "2026-03-15").await.unwrap();
    tx.commit().await.unwrap();
    let decided = plan(&installation).await;
    let what = refusal(prune(&installation, &[], &decided).await);
    assert!(what.contains("held since"), "{what}");
    assert_eq!(installation.control.read().await.unwrap().snapshots(None).await.unwrap().len(), 3);
    installation.close().await.unwrap();
}

/// The folder of the child process.
const FOLDER: &str = "WANGCHUAN_PRUNE_FOLDER";

async fn child(folder: &str) {
    let config = read_config(Path::new(folder));
    let installation = Installation::open(config, Needs::ALL, manual_clock(), Arc::new(SystemRandom)).await.unwrap();
    carry_out(&installation).await;
    installation.close().await.unwrap();
}

/// Prunes in a process that kills itself at `point`; whether it did.
fn crash_at(world: &World, point: &str) -> bool {
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["cycle::prune::every_crash_of_a_prune_is_finished_by_the_next", "--exact", "--test-threads=1"])
        .env(FOLDER, world.folder.path())
        .env("WANGCHUAN_CRASH_AT", point)
        .output()
        .unwrap();
    let killed = done.status.signal() == Some(9);
    assert!(killed || done.status.success(), "{point}: {}", String::from_utf8_lossy(&done.stdout));
    killed
}

#[tokio::test]
async fn every_crash_of_a_prune_is_finished_by_the_next() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return child(&folder).await;
    }
    let template = world("keep = { last = 1 }\nprune = \"delete\"", "0").await;
    let installation = template.open().await;
    snapshot(&installation).await;
    retain(&installation).await;
    snapshot(&installation).await;
    let before_newest = stored(&template);
    let newest = snapshot(&installation).await;
    installation.close().await.unwrap();
    let later = ["prune.object-removed:3", "rekey.staged", "rekey.committed", "rekey.root-destroyed"];
    for point in PRUNE_POINTS.iter().chain(&later) {
        let world = template.copied();
        assert!(crash_at(&world, point), "{point} is never passed");
        let installation = world.open().await;
        carry_out(&installation).await;
        let mut tx = installation.control.read().await.unwrap();
        let states: Vec<String> = tx.pruned_chains(None).await.unwrap().into_iter().map(|chain| chain.state).collect();
        assert_eq!(states, ["removed", "removed"], "{point}");
        assert_eq!(tx.snapshots(None).await.unwrap().len(), 1, "{point}");
        assert_eq!(tx.runs(None).await.unwrap()[0].state, "shredded", "{point}");
        assert_eq!(tx.open_rekey().await.unwrap(), None, "{point}");
        drop(tx);
        assert!(stored(&world).is_disjoint(&before_newest), "{point}");
        assert_whole(&world, &installation, &newest, "restored.db").await;
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_needed_after_it_was_marked_is_spared() {
    let world = world("keep = { last = 1 }\nprune = \"delete\"", "0").await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let second = snapshot(&installation).await;
    installation.close().await.unwrap();
    assert!(crash_at(&world, "prune.marked"));
    let installation = world.open().await;
    assert_eq!(installation.control.read().await.unwrap().pruned_chains(Some("marked")).await.unwrap().len(), 1);
    place_hold(&installation, &hold("everything", None), None).await.unwrap();
    let refused = installation.use_chain(first.chain).await;
    assert!(refusal(refused).contains("about to be"));
    assert_eq!(shred_due(&installation).await.unwrap().keys, 0);
    assert_eq!(installation.control.read().await.unwrap().pruned_chains(None).await.unwrap(), []);
    assert_eq!(stays(&plan(&installation).await, &first), [Stays::Hold]);
    let report = restore(&world, &installation, &first, "first.db").await.unwrap();
    assert!(report.is_whole() && report.frames_shredded == 0, "{report:?}");
    assert_whole(&world, &installation, &second, "second.db").await;
    installation.close().await.unwrap();
}
