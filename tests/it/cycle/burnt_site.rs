//! A burnt site: everything local is lost but root slot and configuration. The state comes back from the bucket, and nothing
//! that was shredded comes back with it.

use std::sync::Arc;

use wangchuan::backup::state_record::RecordName;
use wangchuan::control::SnapshotRow;
use wangchuan::installation::{Installation, Recovered, rebuild, recover_site};
use wangchuan::keyring::second_place::memory;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::site_drill::drill_from_bucket;
use wangchuan::tasks::{Result, TaskError};

use super::crash::{crash_at, cycle};
use crate::support::world::{Making, World, body, copy_folder, forget, refusal, restore, snapshot};

/// Loses what burns: state folder and embedded audit service.
fn burn(world: &World) {
    std::fs::remove_dir_all(world.path("state")).unwrap();
    std::fs::remove_dir_all(world.path("audit")).unwrap();
}

async fn recover(world: &World) -> Result<Recovered> {
    recover_site(world.config(), world.clock.clone(), Arc::new(SystemRandom)).await
}

async fn snapshots(installation: &Installation) -> Vec<SnapshotRow> {
    installation.control.read().await.unwrap().snapshots(None).await.unwrap()
}

async fn sequence(installation: &Installation) -> Vec<(i64, String)> {
    let rows = installation.control.read().await.unwrap().certificates(None).await.unwrap();
    rows.into_iter().map(|row| (row.sequence, row.id)).collect()
}

async fn small() -> World {
    World::make(Making { customers: 30, ..Making::default() }).await
}

#[tokio::test]
async fn a_burnt_site_comes_back_without_what_was_shredded() {
    let world = small().await;
    let installation = world.open().await;
    cycle(&installation, &world.shop.picks.leaver.clone()).await;
    let (taken, certificates) = (snapshots(&installation).await, sequence(&installation).await);
    assert!(taken.len() >= 2 && certificates.len() >= 2);
    let rows = world.dump_all("shop.db").await;
    // The file is the root itself: there is no form of it that could lie in the bucket.
    assert!(installation.keyring.slot().wrapping().is_none());
    assert!(!world.path("bucket/wangchuan/state-roots").exists());
    installation.close().await.unwrap();

    burn(&world);
    let recovered = recover(&world).await.unwrap();
    assert_eq!((recovered.generation, recovered.snapshots), (2, taken.len()));
    assert_eq!(recovered.certificates, certificates.len() as i64);
    let installation = world.open().await;
    assert_eq!(snapshots(&installation).await.len(), taken.len());
    assert_eq!(sequence(&installation).await, certificates);
    for (_, id) in &certificates {
        let verdict = verify_certificate(&installation, id).await.unwrap();
        assert!(verdict.checks.iter().any(|(what, good, _)| what == "signature" && *good), "{verdict:?}");
    }
    // The newest snapshot is the store as it is; of the first, what was erased does not open.
    let last = restore(&world, &installation, taken.last().unwrap(), "restored.db").await.unwrap();
    assert!(last.is_whole(), "{last:?}");
    assert_eq!(world.dump_all("restored.db").await, rows);
    let drill = run_drill(&installation, taken[0].clone()).await.unwrap();
    assert_eq!((drill.result.as_str(), drill.resurrected), ("passed", 0), "{drill:?}");
    assert!(drill.frames[1] > 0 && drill.tried[0] > 0, "{drill:?}");

    // The work goes on: another customer, and certificates without a gap.
    let keeper = world.shop.picks.keeper.clone();
    let run = forget(&installation, &keeper).await;
    assert!(body(&run).erased > 0);
    snapshot(&installation).await;
    assert!(shred_due(&installation).await.unwrap().generation.is_some());
    let new = certify_due(&installation).await.unwrap();
    file_due(&installation, true).await.unwrap();
    let numbers: Vec<i64> = sequence(&installation).await.into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>());
    assert!(!new.is_empty() && numbers.len() > certificates.len());
    let waiting = installation.control.read().await.unwrap().outbox(Some("pending")).await.unwrap();
    assert!(waiting.is_empty(), "{waiting:?}");
    for (_, id) in sequence(&installation).await {
        let verdict = verify_certificate(&installation, &id).await.unwrap();
        assert_eq!(verdict.result, "valid", "{verdict:?}");
    }
    installation.close().await.unwrap();
}

#[tokio::test]
async fn recovery_overwrites_nothing_and_needs_slot_bucket_and_newest_record() {
    let world = small().await;
    let installation = world.open().await;
    cycle(&installation, &world.shop.picks.leaver.clone()).await;
    installation.close().await.unwrap();
    assert!(refusal(recover(&world).await).contains("exists already"));

    let burnt = world.copied();
    burn(&burnt);
    let elsewhere = burnt.path("elsewhere");
    let rebuilt = rebuild(&burnt.config(), &elsewhere, Arc::new(SystemRandom)).await.unwrap();
    assert!(rebuilt.database.shown().starts_with(&elsewhere.display().to_string()) && !burnt.path("state").exists());

    // A root of before the shred does not fit the newest state, and an older one is not used instead.
    let old = small().await;
    let wrong = world.copied();
    burn(&wrong);
    std::fs::remove_dir_all(wrong.path("root")).unwrap();
    copy_folder(&old.path("root"), &wrong.path("root"));
    assert!(refusal(recover(&wrong).await).contains("an older state must not be used"));
    assert!(!wrong.path("state/control.db").exists());

    // Without any record of the generation in force the older ones are of no use.
    let torn = world.copied();
    burn(&torn);
    remove_records(&torn, |name| name.generation == 2);
    assert!(refusal(recover(&torn).await).contains("an older state must not be used"));
}

/// Removes state records from the bucket, as nobody should.
fn remove_records(world: &World, doomed: impl Fn(&RecordName) -> bool) {
    for entry in std::fs::read_dir(world.path("bucket/wangchuan/state")).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("state/{}", path.file_name().unwrap().to_str().unwrap());
        if RecordName::parse(&name).is_some_and(|name| doomed(&name)) {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test]
async fn a_record_that_is_not_the_newest_is_found_out() {
    let world = small().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    let known = memory(&world.open_state().await.control).await.unwrap().head.unwrap();
    let installation = world.open().await;
    snapshot(&installation).await;
    forget(&installation, &world.shop.picks.leaver.clone()).await;
    certify_due(&installation).await.unwrap();
    file_due(&installation, true).await.unwrap();
    installation.close().await.unwrap();
    let filed = memory(&world.open_state().await.control).await.unwrap().head.unwrap();

    // The bucket holds a snapshot that this record does not know.
    let torn = world.copied();
    burn(&torn);
    remove_records(&torn, |name| name.number > known.number);
    assert!(refusal(recover(&torn).await).contains("of which the newest state knows nothing"));
    assert!(!torn.path("state/control.db").exists());

    // The audit log, where it did not burn, holds a certificate that this record does not know.
    let torn = world.copied();
    std::fs::remove_dir_all(torn.path("state")).unwrap();
    remove_records(&torn, |name| name.number >= filed.number);
    match recover(&torn).await {
        Err(TaskError::OldCopy { what }) => assert!(what.contains("the audit log holds certificate"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert!(!torn.path("state/control.db").exists());
}

#[tokio::test]
async fn a_drill_from_the_bucket_alone_leaves_everything_as_it_was() {
    let world = small().await;
    let installation = world.open().await;
    cycle(&installation, &world.shop.picks.leaver.clone()).await;
    installation.close().await.unwrap();
    let random = Arc::new(SystemRandom);
    let drilled = drill_from_bucket(&world.config(), None, world.clock.clone(), random.clone()).await.unwrap();
    assert_eq!(drilled.records.iter().map(|record| record.result.as_str()).collect::<Vec<_>>(), ["passed"]);
    assert!(!world.path("state/site-drill").exists());
    let installation = world.open().await;
    let kept = installation.control.read().await.unwrap().drills().await.unwrap();
    assert_eq!(kept.last().unwrap().id, drilled.records[0].drill);
    installation.close().await.unwrap();
    // With the site really lost as well.
    burn(&world);
    let drilled = drill_from_bucket(&world.config(), Some("shop"), world.clock.clone(), random).await.unwrap();
    assert_eq!(drilled.records[0].result, "passed");
    recover(&world).await.unwrap();
}

#[tokio::test]
async fn a_site_that_burns_in_the_middle_of_a_step_comes_back_at_every_one() {
    let template = World::make(Making { customers: 14, ..Making::default() }).await;
    // The generation that must be in force, and the roots left, once the site is recovered.
    for (point, generation) in [
        ("backup.manifest-stored:2", 1),
        ("rekey.root-created", 1),
        ("rekey.staged", 1),
        ("rekey.copied", 2),
        ("rekey.committed", 2),
        ("rekey.root-destroyed", 2),
        ("certificate.reserved", 2),
        ("certificate.issued", 2),
    ] {
        let world = template.copied();
        assert!(crash_at(&world, point), "{point}");
        burn(&world);
        let recovered = recover(&world).await.unwrap_or_else(|error| panic!("{point}: {error}"));
        assert_eq!(recovered.generation, generation, "{point}");
        let installation = world.open().await;
        let roots: Vec<i64> =
            installation.keyring.slot().list().await.unwrap().iter().map(|root| root.generation).collect();
        assert_eq!(roots, [generation], "{point}");
        cycle(&installation, &world.shop.picks.leaver.clone()).await;
        let numbers: Vec<i64> = sequence(&installation).await.into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>(), "{point}");
        let last = snapshots(&installation).await.pop().unwrap();
        let drill = run_drill(&installation, last).await.unwrap();
        assert_eq!(drill.result, "passed", "{point}: {drill:?}");
        installation.close().await.unwrap();
    }
}
