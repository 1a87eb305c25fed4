//! The whole cycle with the root in OpenBao: backup, erasure, shred, certificate, drill; and a thief with a copy of
//! everything on the agent's host and the live service at hand.

use wangchuan::certify::codes::{ErasureResult, Limitation, SlotClass};
use wangchuan::certify::statement::Predicate;
use wangchuan::installation::Installation;
use wangchuan::keyring::KeyringError;
use wangchuan::keys::slot::{RootSlot as _, SlotError};
use wangchuan::keys::transit_slot::TransitSlot;
use wangchuan::keys::tree::KeyTree;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::read_snapshot::open;
use wangchuan::tasks::shred::shred_due;

use crate::cycle::thief::{Slots, node_set, numbers, opened, reachable, shredded_frames, tree_in};
use crate::support::bao::{Bao, root_section};
use crate::support::world::{Making, World, body, forget, restore, retain, snapshot};

/// What the newest certificates say, by sequence.
pub async fn predicates(installation: &Installation) -> Vec<Predicate> {
    let certificates = installation.control.read().await.unwrap().certificates(None).await.unwrap();
    let read = |envelope: &[u8]| wangchuan::certify::verify(envelope, installation.signer.trusted()).unwrap();
    certificates.iter().map(|row| read(&row.envelope).into_erasure().unwrap().predicate).collect()
}

/// The certificate of the shredded run names slot, read-back and the date of the last copy of the service.
async fn says_what_was_shown(installation: &Installation) {
    let destroyed = "2026-03-15".parse::<chrono::NaiveDate>().unwrap();
    let complete = predicates(installation).await.into_iter().find(|p| p.result == ErasureResult::Complete).unwrap();
    let slot = complete.root_slot.clone().unwrap();
    assert_eq!((slot.class, slot.kind.as_str(), slot.snapshot_retention_days), (SlotClass::B, "transit", Some(7)));
    let read_back = slot.read_back.unwrap();
    assert!(read_back.min_available_version > read_back.key_version && !read_back.exportable);
    assert!(slot.reopenable_until.unwrap() > destroyed + chrono::Days::new(6));
    assert!(complete.residual_date >= slot.reopenable_until, "{complete:?}");
    assert!(complete.limitations.contains(&Limitation::RootSlotClassB));
    assert!(!complete.limitations.contains(&Limitation::RootSlotClassD));
    assert_eq!(complete.targets.iter().flat_map(|target| &target.keys).next().unwrap().kms, "transit");
}

#[tokio::test]
async fn a_whole_cycle_and_a_thief_at_the_live_service() {
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["wangchuan"], "1h").await;
    let root = root_section(&bao.address(), "root", &token);
    let world = World::make(Making { customers: 40, root, ..Making::default() }).await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let stolen = world.copied();
    let before = tree_in(stolen.folder.path()).await;
    let old_key = installation.keyring.slot().open(before.generation).await.unwrap();
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    assert!(body(&run).erased > 0 && body(&retain(&installation).await).erased > 0);
    let second = snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert!(!report.shredded.is_empty(), "{report:?}");

    let certificates = certify_due(&installation).await.unwrap();
    file_due(&installation, true).await.unwrap();
    for id in &certificates {
        let verdict = verify_certificate(&installation, id).await.unwrap();
        assert_eq!(verdict.result, "valid", "{verdict:?}");
    }
    says_what_was_shown(&installation).await;

    // The thief has the old control database, the old wrapped roots, the bucket, and asks the live service.
    let ground = installation.ground().unwrap();
    let repository = installation.backup().unwrap().repository.clone();
    let now = open(&ground, repository.as_ref(), &installation.signer, first.clone()).await.unwrap();
    let frames = shredded_frames(&installation, &now).await;
    assert!(frames.len() > 10, "{}", frames.len());
    let after = tree_in(world.folder.path()).await;
    let both = [&stolen, &world];
    let slots = Slots {
        subjects: numbers(both, "subject").await,
        buckets: numbers(both, "bucket").await,
        pins: numbers(both, "pin").await,
    };
    let tree = KeyTree::open(before.installation, before.generation, &old_key, &before.crown, node_set(&before.nodes));
    assert_eq!(opened(&now, &frames, &reachable(&tree.unwrap(), &slots)), frames.len(), "the search finds old keys");
    let theirs = TransitSlot::at(&bao.setup(&stolen.path("root"), &token), before.installation).unwrap();
    let refused = theirs.open(before.generation).await.err().unwrap();
    assert!(matches!(refused, SlotError::VersionGone { .. }), "{refused}");
    let new_key = installation.keyring.slot().open(after.generation).await.unwrap();
    for generation in [before.generation, after.generation] {
        let nodes = node_set(&before.nodes);
        assert!(KeyTree::open(before.installation, generation, &new_key, &before.crown, nodes).is_err());
    }
    for nodes in [node_set(&after.nodes), node_set(after.nodes.iter().chain(&before.nodes))] {
        let tree = KeyTree::open(after.installation, after.generation, &new_key, &after.crown, nodes).unwrap();
        assert_eq!(opened(&now, &frames, &reachable(&tree, &slots)), 0, "a shredded frame opens");
    }
    stolen.clock.advance(chrono::TimeDelta::minutes(11));
    match stolen.try_open().await.err() {
        Some(TaskError::Keyring(KeyringError::Slot(SlotError::VersionGone { .. }))) => {}
        other => panic!("the stolen installation: {other:?}"),
    }

    for row in [first, second.clone()] {
        let drill = run_drill(&installation, row).await.unwrap();
        assert_eq!(drill.result, "passed", "{drill:?}");
    }
    let restored = restore(&world, &installation, &second, "restored.db").await.unwrap();
    assert!(restored.is_whole(), "{restored:?}");
    assert_eq!(world.dump_all("restored.db").await, world.dump_all("shop.db").await);
    installation.close().await.unwrap();
}
