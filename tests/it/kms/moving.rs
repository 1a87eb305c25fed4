//! Moving the root to and from a slot that destroys only at a date, and the rights that are shipped.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use wangchuan::clock::Clock as _;
use wangchuan::installation::Installation;
use wangchuan::keys::kms_slot::wire::ACTIONS;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::key_move::move_root;
use wangchuan::tasks::shred::shred_due;

use super::trouble::{erase_one, let_dates_pass};
use crate::support::kms::{Kms, days, root_section};
use crate::support::world::{FILE_ROOT, Making, World, manual_clock, pass_time, run_now, snapshot};

/// The configuration names the new slot, and the old one to move away from.
fn configure(world: &World, from: &str, to: &str) {
    world.edit_config(from, &format!("{to}\n\n[root.previous]\n{from}"));
}

#[tokio::test]
async fn a_root_that_left_the_service_is_gone_only_at_its_date() {
    let (kms, world) = super::trouble::world(20).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    let file = FILE_ROOT.replace("path = \"root\"", "path = \"file-root\"");
    let service = root_section(&kms.address(), "root");
    configure(&world, &service, &file);
    let installation = world.open().await;
    let report = move_root(&installation, "file").await.unwrap();
    let date = wangchuan::control::time_text(world.clock.now() + days(7));
    assert_eq!((report.moved, report.irrevocable_at.clone()), (true, Some(date.clone())));
    let again = move_root(&installation, "file").await.unwrap();
    assert_eq!((again.moved, again.irrevocable_at), (false, Some(date)), "what is doomed was moved");
    // What dies from now on lay under the old root, too.
    let run = erase_one(&world, &installation).await;
    shred_due(&installation).await.unwrap();
    assert_eq!(run_now(&installation, &run).await.state, "shred-pending");
    installation.close().await.unwrap();
    // Without the service nobody can say that its root is gone: nothing is claimed.
    world.edit_config(&format!("\n\n[root.previous]\n{service}"), "");
    let installation = world.open().await;
    pass_time(&world, &installation, days(9)).await;
    let report = shred_due(&installation).await.unwrap();
    assert!(report.doomed.unknown[0].1.contains("[root.previous]"), "{report:?}");
    assert_eq!(run_now(&installation, &run).await.state, "shred-pending");
    installation.close().await.unwrap();
    world.edit_config(&file, &format!("{file}\n\n[root.previous]\n{service}"));
    let installation = world.open().await;
    shred_due(&installation).await.unwrap();
    assert_eq!(run_now(&installation, &run).await.state, "shredded");
    certify_due(&installation).await.unwrap();
    let slot = crate::transit::cycle::predicates(&installation).await.pop().unwrap().root_slot.unwrap();
    assert_eq!(format!("{:?}", slot.class), "D", "the file is the weaker of both");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_root_comes_from_a_file_into_the_service() {
    let kms = Kms::start(manual_clock());
    let world = World::make(Making { customers: 20, bucket: "month", ..Making::default() }).await;
    kms.follow(world.clock.clone());
    configure(&world, FILE_ROOT, &root_section(&kms.address(), "wrapped"));
    let installation = world.open().await;
    let report = move_root(&installation, "aws-kms").await.unwrap();
    assert_eq!((report.moved, report.irrevocable_at), (true, None), "a file is destroyed at once");
    world.clock.advance(TimeDelta::seconds(1));
    snapshot(&installation).await;
    let run = erase_one(&world, &installation).await;
    shred_due(&installation).await.unwrap();
    assert_eq!(run_now(&installation, &run).await.state, "shred-pending");
    let_dates_pass(&world, &installation).await;
    assert_eq!(run_now(&installation, &run).await.state, "shredded");
    installation.close().await.unwrap();
}

pub fn actions(policy: &serde_json::Value, effect: &str) -> BTreeSet<String> {
    let of = policy["Statement"].as_array().unwrap().iter().filter(|statement| statement["Effect"] == effect);
    let each = of.flat_map(|statement| match &statement["Action"] {
        serde_json::Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    });
    each.map(|action| action.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_shipped_rights_are_what_the_agent_asks_for_and_never_call_a_destruction_off() {
    let policy: serde_json::Value = serde_json::from_str(include_str!("../../../config/aws-kms-policy.json")).unwrap();
    let (allowed, denied) = (actions(&policy, "Allow"), actions(&policy, "Deny"));
    // To make a key with tags is an action of its own.
    let wanted: BTreeSet<String> =
        ACTIONS.iter().chain(&["kms:TagResource"]).map(|&action| action.to_owned()).collect();
    assert_eq!(allowed, wanted);
    for never in ["kms:CancelKeyDeletion", "kms:EnableKey", "kms:DisableKey", "kms:PutKeyPolicy", "kms:CreateGrant"] {
        assert!(denied.contains(never) && !allowed.contains(never), "{never}");
    }
    let (kms, world) = super::trouble::world(20).await;
    let installation: Installation = world.open().await;
    snapshot(&installation).await;
    erase_one(&world, &installation).await;
    shred_due(&installation).await.unwrap();
    let_dates_pass(&world, &installation).await;
    installation.close().await.unwrap();
    for action in kms.machine().calls.keys() {
        assert!(allowed.contains(&format!("kms:{action}")), "{action} is asked for and not allowed");
    }
}
