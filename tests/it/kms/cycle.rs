//! The whole cycle with the root in a service that destroys only at a date: nothing counts as shredded before it, everything says
//! so, and whoever calls the destruction off is noticed. The last is also the negative test: until the date, a thief with old copies
//! and a friend in the account opens what was erased.

use chrono::{DateTime, Utc};
use wangchuan::certify::codes::{ErasureResult, Limitation, SlotClass};
use wangchuan::certify::statement::Predicate;
use wangchuan::clock::Clock as _;
use wangchuan::control::SnapshotRow;
use wangchuan::installation::Installation;
use wangchuan::keyring::KeyringError;
use wangchuan::keys::kms_slot::KmsSlot;
use wangchuan::keys::slot::{KeyTrouble, RootSlot as _, SlotError};
use wangchuan::keys::tree::KeyTree;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::key_check::{KeyCheck, check_keys};
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::read_snapshot::open;
use wangchuan::tasks::shred::{ShredReport, WaitCode, shred_due};
use wangchuan::tasks::status::{Status, status};

use super::trouble::{erase_one, world};
use crate::cycle::thief::{Slots, node_set, numbers, opened, reachable, shredded_frames, tree_in};
use crate::support::kms::days;
use crate::support::world::{World, body, forget, pass_time, restore, run_now, snapshot};
use crate::transit::cycle::predicates;

async fn state(installation: &Installation) -> Status {
    status(&installation.control, &installation.config, installation.clock.as_ref()).await.unwrap()
}

fn codes(status: &Status) -> Vec<&str> {
    status.overdue.iter().map(|item| item.code).collect()
}

/// The dates that a shred names for runs that wait for one.
fn dates(report: &ShredReport) -> Vec<String> {
    let waiting = report.details.iter().filter(|run| run.code == WaitCode::Irrevocable);
    waiting.map(|run| run.until.clone().unwrap()).collect()
}

fn text(at: DateTime<Utc>) -> String {
    wangchuan::control::time_text(at)
}

/// The certificate of a run that waits for its date claims no destroyed key, and names the date.
fn says_when(found: &Predicate, at: DateTime<Utc>) {
    assert_eq!(found.result, ErasureResult::Partial);
    assert!(found.limitations.contains(&Limitation::KeyShredPending), "{found:?}");
    assert!(found.limitations.contains(&Limitation::RootSlotClassC), "{found:?}");
    let slot = found.root_slot.as_ref().unwrap();
    assert_eq!((slot.class, slot.kind.as_str(), slot.irrevocable_at.unwrap().instant()), (SlotClass::C, "aws-kms", at));
    assert_eq!(found.residual_date, Some(at.date_naive() + chrono::Days::new(1)));
    assert!(found.targets.iter().all(|target| target.keys.is_empty()));
}

#[tokio::test]
async fn rows_are_shredded_only_at_the_date_and_everything_says_so_until_then() {
    let (kms, world) = world(40).await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let stolen = world.copied();
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    assert!(body(&run).erased > 0);
    let second = snapshot(&installation).await;
    let date = world.clock.now() + days(7);
    let report = shred_due(&installation).await.unwrap();
    assert_eq!((report.generation, report.shredded.len(), dates(&report)), (Some(2), 0, vec![text(date)]));
    let pending = run_now(&installation, &run.id).await;
    assert_eq!((pending.state.as_str(), body(&pending).irrevocable_at), ("shred-pending", Some(date)));
    assert_eq!((kms.state(0), kms.state(1)), ("PendingDeletion".to_owned(), "Enabled".to_owned()));
    certify_due(&installation).await.unwrap();
    says_when(predicates(&installation).await.last().unwrap(), date);
    let shown = state(&installation).await;
    assert_eq!((shown.irrevocable_later, shown.doomed.len()), (1, 1));
    assert!(!codes(&shown).iter().any(|code| ["shred-overdue", "root-not-gone"].contains(code)), "{shown:?}");
    let check = check_keys(&installation).await.unwrap();
    assert_eq!((check.problems.len(), check.irrevocable_at.clone()), (0, Some(text(date))), "{check:?}");
    assert_eq!(tried_roots(&check), [(1, false), (2, true), (2, true)], "the old root opens no more before its date");

    // No hold comes in time any more: nobody could keep the keys.
    pass_time(&world, &installation, days(3)).await;
    let again = shred_due(&installation).await.unwrap();
    assert_eq!((again.generation, dates(&again)), (None, vec![text(date)]));
    assert!(certify_due(&installation).await.unwrap().is_empty(), "nothing new to say");
    // The service is a day late: its word counts.
    kms.machine().lateness = days(1);
    pass_time(&world, &installation, days(4)).await;
    assert!(shred_due(&installation).await.unwrap().shredded.is_empty());
    assert!(!codes(&state(&installation).await).contains(&"root-not-gone"));
    pass_time(&world, &installation, days(1)).await;
    let done = shred_due(&installation).await.unwrap();
    assert_eq!((done.shredded.clone(), done.doomed.gone.clone()), (vec![run.id.clone()], vec![1]), "{done:?}");
    assert!(shred_due(&installation).await.unwrap().shredded.is_empty(), "exactly once");
    certify_due(&installation).await.unwrap();
    let complete = predicates(&installation).await.pop().unwrap();
    assert_eq!(complete.result, ErasureResult::Complete, "{complete:?}");
    let slot = complete.root_slot.as_ref().unwrap();
    assert_eq!((slot.class, slot.irrevocable_at.unwrap().instant()), (SlotClass::C, date));
    assert!(["service-read-back", "never-exportable"].iter().all(|code| slot.checks.iter().any(|check| check == code)));
    let key = complete.targets.iter().flat_map(|target| &target.keys).next().unwrap();
    assert_eq!(key.destroyed_at.unwrap().instant(), world.clock.now());
    assert!(complete.limitations.contains(&Limitation::RootSlotClassC));
    assert!(!complete.limitations.contains(&Limitation::KeyShredPending));
    let filed = file_due(&installation, false).await.unwrap();
    assert!(!filed.receipted.is_empty() && filed.quarantined.is_empty(), "{filed:?}");
    for id in &filed.receipted {
        verify_certificate(&installation, id).await.unwrap();
    }
    let check = check_keys(&installation).await.unwrap();
    assert_eq!((check.problems.len(), check.roots_gone, check.irrevocable_at), (0, vec![1], None));

    stolen.clock.advance(days(8) + chrono::TimeDelta::minutes(11));
    match stolen.try_open().await.err() {
        // The service still names the root of a generation that this copy does not know, or opens nothing of it.
        Some(TaskError::Keyring(
            KeyringError::Slot(SlotError::KeyUnusable { state: KeyTrouble::Deleted, .. })
            | KeyringError::RolledBack { .. },
        )) => {}
        other => panic!("the stolen installation: {other:?}"),
    }
    backups_are_good(&world, &installation, [first, second]).await;
    installation.close().await.unwrap();
}

/// The wrapped roots that were tried, in the bucket and then in the slot: their generations, and whether they opened.
fn tried_roots(check: &KeyCheck) -> Vec<(i64, bool)> {
    check.wrapped_roots.iter().map(|root| (root.generation, root.opened)).collect()
}

/// Drills of both snapshots pass, and the newer one restores what the shop holds.
async fn backups_are_good(world: &World, installation: &Installation, rows: [SnapshotRow; 2]) {
    for row in rows.clone() {
        let drill = run_drill(installation, row).await.unwrap();
        assert_eq!(drill.result, "passed", "{drill:?}");
    }
    let restored = restore(world, installation, &rows[1], "restored.db").await.unwrap();
    assert!(restored.is_whole(), "{restored:?}");
    assert_eq!(world.dump_all("restored.db").await, world.dump_all("shop.db").await);
}

/// How many shredded frames of a snapshot open with the keys of a stolen tree under a stolen root.
async fn opened_by_a_thief(
    world: &World,
    installation: &Installation,
    stolen: &World,
    kms_folder: &KmsSlot,
) -> Option<usize> {
    let before = tree_in(stolen.folder.path()).await;
    let root = kms_folder.open(before.generation).await.ok()?;
    let row = installation.control.read().await.unwrap().snapshots(None).await.unwrap().remove(0);
    let repository = installation.backup().unwrap().repository.clone();
    let ground = installation.ground().unwrap();
    let now = open(&ground, repository.as_ref(), &installation.signer, row).await.unwrap();
    let frames = shredded_frames(installation, &now).await;
    assert!(!frames.is_empty());
    let slots = Slots {
        subjects: numbers([world, stolen], "subject").await,
        buckets: numbers([world, stolen], "bucket").await,
        pins: numbers([world, stolen], "pin").await,
    };
    let nodes = node_set(&before.nodes);
    let tree = KeyTree::open(before.installation, before.generation, &root, &before.crown, nodes).unwrap();
    Some(opened(&now, &frames, &reachable(&tree, &slots)))
}

#[tokio::test]
async fn a_destruction_that_is_called_off_brings_the_key_back_and_is_noticed() {
    let (kms, world) = world(40).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let stolen = world.copied();
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    certify_due(&installation).await.unwrap();
    let theirs = KmsSlot::at(&kms.setup(&stolen.path("root")), installation.id()).unwrap();
    let refused = theirs.open(1).await.err().unwrap();
    assert!(matches!(refused, SlotError::KeyUnusable { state: KeyTrouble::Doomed(_), .. }), "{refused}");
    assert_eq!(opened_by_a_thief(&world, &installation, &stolen, &theirs).await, None);

    pass_time(&world, &installation, days(6)).await;
    kms.machine().administer("CancelKeyDeletion", 0);
    kms.machine().administer("EnableKey", 0);
    let found = opened_by_a_thief(&world, &installation, &stolen, &theirs).await.unwrap();
    assert!(found > 0, "that is why the slot is of class C, and why nothing counts before the date");
    // The day on which it would have been irrevocable: it is not, and that is said.
    pass_time(&world, &installation, days(1)).await;
    let date = world.clock.now() + days(7);
    let report = shred_due(&installation).await.unwrap();
    assert_eq!((report.shredded.len(), dates(&report)), (0, vec![text(date)]));
    assert_eq!(report.doomed.called_off, [(1, date)]);
    assert!(codes(&state(&installation).await).contains(&"destruction-called-off"));
    let told = "SELECT count(*) FROM log_leaf WHERE instr(content, 'key.destruction-called-off') > 0";
    assert_eq!(world.number("state/control.db", told).await, 1);
    assert_eq!(opened_by_a_thief(&world, &installation, &stolen, &theirs).await, None, "and it opens nothing again");
    certify_due(&installation).await.unwrap();
    says_when(predicates(&installation).await.last().unwrap(), date);
    // Once more, between two shreds, and only switched off: `key verify` notices, too.
    pass_time(&world, &installation, days(1)).await;
    kms.machine().administer("CancelKeyDeletion", 0);
    let check = check_keys(&installation).await.unwrap();
    assert!(check.problems.iter().any(|problem| problem.contains("called off")), "{check:?}");
    assert_eq!(kms.state(0), "PendingDeletion");
    assert!(check_keys(&installation).await.unwrap().problems.is_empty());
    // Somebody who calls it off and orders it again with a longer time moves the date.
    kms.machine().administer("CancelKeyDeletion", 0);
    kms.machine().administer("ScheduleKeyDeletion", 0);
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(dates(&report), [text(world.clock.now() + days(30))]);
    assert_eq!(state(&installation).await.doomed[0].called_off, 3);
    for _ in 0..5 {
        pass_time(&world, &installation, days(6)).await;
        assert_eq!(run_now(&installation, &run.id).await.state, "shred-pending");
        shred_due(&installation).await.unwrap();
    }
    assert_eq!(run_now(&installation, &run.id).await.state, "shredded");
    assert!(!codes(&state(&installation).await).contains(&"destruction-called-off"));
    installation.close().await.unwrap();
}

#[tokio::test]
async fn several_doomed_roots_wait_side_by_side_and_the_last_one_decides() {
    let (kms, world) = world(40).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let begun = world.clock.now();
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(erase_one(&world, &installation).await);
        shred_due(&installation).await.unwrap();
        pass_time(&world, &installation, days(1)).await;
    }
    let states = async |runs: &[String]| {
        let mut found = Vec::new();
        for run in runs {
            let run = run_now(&installation, run).await;
            found.push((run.state.clone(), body(&run).irrevocable_at));
        }
        found
    };
    let waits = |day: i64| ("shred-pending".to_owned(), Some(begun + days(day)));
    assert_eq!(states(&runs).await, [waits(7), waits(8), waits(9)]);
    assert_eq!(state(&installation).await.doomed.len(), 3);
    // Every key that died later lay under the first root as well: when that comes back, all of them wait for it.
    pass_time(&world, &installation, days(2)).await;
    kms.machine().administer("CancelKeyDeletion", 0);
    shred_due(&installation).await.unwrap();
    assert_eq!(states(&runs).await, [waits(12), waits(12), waits(12)]);
    pass_time(&world, &installation, days(5)).await;
    let gone = shred_due(&installation).await.unwrap().doomed.gone;
    assert_eq!(gone, [2, 3]);
    assert_eq!(states(&runs).await, [waits(12), waits(12), waits(12)]);
    pass_time(&world, &installation, days(2)).await;
    let shredded = shred_due(&installation).await.unwrap().shredded;
    assert!(runs.iter().all(|run| shredded.contains(run)), "{runs:?} {shredded:?}");
    assert!(state(&installation).await.doomed.is_empty());
    installation.close().await.unwrap();
}
