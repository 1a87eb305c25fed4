//! Who is ahead: an old copy of the state is refused, an unreachable second place is not behind, and a change that was copied
//! there goes forward.

use std::sync::Arc;

use wangchuan::audit::receipt::LogOperator;
use wangchuan::audit::service::{ServiceHandle, ServiceSetup, start};
use wangchuan::audit::witness::Witnesses;
use wangchuan::control::HoldRow;
use wangchuan::control::log_store::SqlLogStore;
use wangchuan::installation::{Installation, Needs};
use wangchuan::log::checkpoint::CheckpointSigner;
use wangchuan::log::sequencer::Sequencer;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::request::place_hold;
use wangchuan::tasks::shred::shred_due;

use super::crash::crash_at;
use crate::support::world::{Making, World, body, copy_folder, forget, refusal, retain, snapshot, try_snapshot};

const EMBEDDED: &str = "endpoint = \"embedded\"\ndata = \"bucket\"";
const AWAY: &str =
    "endpoint = \"http://127.0.0.1:9\"\naccess_key_id = \"nobody\"\nsecret_access_key = \"is-listening-there\"";

async fn small() -> World {
    World::make(Making { customers: 30, ..Making::default() }).await
}

/// Moves the bucket to an address where nobody listens.
fn take_bucket_away(world: &World) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(world.path("wangchuan.toml"), mode).unwrap();
    world.edit_config(EMBEDDED, AWAY);
}

/// Keeps a copy of the state folder as it is now; nobody works.
fn keep(world: &World, name: &str) {
    copy_folder(&world.path("state"), &world.path(name));
}

fn put_back(world: &World, name: &str) {
    std::fs::remove_dir_all(world.path("state")).unwrap();
    copy_folder(&world.path(name), &world.path("state"));
}

fn hold(id: &str) -> HoldRow {
    HoldRow {
        id: id.to_owned(),
        scope: "everything".to_owned(),
        store: None,
        collection: None,
        subject: None,
        reason: "test".to_owned(),
        placed_at: crate::support::world::dawn(),
        placed_by: "test".to_owned(),
        released_at: None,
    }
}

async fn old_copy(world: &World, when: &str) -> String {
    match world.try_open().await {
        Err(TaskError::OldCopy { what }) => what,
        Err(other) => panic!("{when}: another error: {other}"),
        Ok(_) => panic!("{when}: an old control database was accepted"),
    }
}

#[tokio::test]
async fn an_old_state_folder_is_refused_and_can_still_be_read() {
    let world = small().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    forget(&installation, &world.shop.picks.leaver.clone()).await;
    installation.close().await.unwrap();
    keep(&world, "before-snapshot");
    let installation = world.open().await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    keep(&world, "before-shred");
    let installation = world.open().await;
    assert!(shred_due(&installation).await.unwrap().generation.is_some());
    installation.close().await.unwrap();
    keep(&world, "before-certificate");
    let installation = world.open().await;
    let ids = certify_due(&installation).await.unwrap();
    file_due(&installation, true).await.unwrap();
    installation.close().await.unwrap();
    keep(&world, "newest");
    let roots = std::fs::read_dir(world.path("root")).unwrap().count();
    for when in ["before-snapshot", "before-shred", "before-certificate"] {
        put_back(&world, when);
        let what = old_copy(&world, when).await;
        assert!(what.contains("this control database knows only number"), "{when}: {what}");
        assert_eq!(std::fs::read_dir(world.path("root")).unwrap().count(), roots, "{when}: a root was touched");
        let reader = world.open_state().await;
        assert_eq!(reader.control.read().await.unwrap().runs(None).await.unwrap().len(), 1, "{when}");
        reader.close().await.unwrap();
    }
    // With the bucket away the audit log still knows of a certificate that this copy does not.
    take_bucket_away(&world);
    let what = old_copy(&world, "before-certificate").await;
    assert!(what.contains(&ids[0]), "{what}");
    world.edit_config(AWAY, EMBEDDED);
    put_back(&world, "newest");
    let installation = world.open().await;
    let verdict = verify_certificate(&installation, &ids[0]).await.unwrap();
    assert_eq!(verdict.result, "valid", "{verdict:?}");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn what_was_found_an_old_copy_stays_one_while_the_finder_is_away() {
    let world = small().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    keep(&world, "old");
    let installation = world.open().await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    keep(&world, "newest");
    put_back(&world, "old");
    old_copy(&world, "with everybody there").await;
    // The audit log has nothing against it: no certificate was filed since.
    take_bucket_away(&world);
    old_copy(&world, "with the bucket away").await;
    world.edit_config(AWAY, EMBEDDED);
    let reader = world.open_state().await;
    assert!(reader.log_operation("test", "x", "success").await.is_err(), "it signs nothing");
    reader.close().await.unwrap();
    put_back(&world, "newest");
    world.open().await.close().await.unwrap();
}

#[tokio::test]
async fn with_the_second_place_away_holds_act_and_nothing_is_committed() {
    let world = small().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let first = forget(&installation, &world.shop.picks.leaver.clone()).await;
    assert!(body(&first).erased > 0);
    snapshot(&installation).await;
    // A filing, so that there is an audit log to be asked.
    certify_due(&installation).await.unwrap();
    file_due(&installation, true).await.unwrap();
    installation.close().await.unwrap();

    take_bucket_away(&world);
    let installation = world.open().await;
    assert!(try_snapshot(&installation).await.unwrap_err().is_retryable());
    // The audit log confirms this state, so retention goes on; certificates and keys wait.
    let run = retain(&installation).await;
    assert!(body(&run).erased > 0);
    assert!(certify_due(&installation).await.unwrap_err().is_retryable());
    assert!(shred_due(&installation).await.unwrap_err().is_retryable());
    assert_eq!(world.number("state/control.db", "SELECT count(*) FROM rekey").await, 0, "no change was begun");
    place_hold(&installation, &hold("h-1"), None).await.unwrap();
    let plan = wangchuan::tasks::erasure::plan_retention(&installation).await.unwrap();
    assert_eq!(plan.body.collections.iter().map(|counts| counts.erase).sum::<u64>(), 0, "the hold acts");
    installation.close().await.unwrap();
    let filed = world.number("state/control.db", "SELECT count(*) FROM certificate").await;

    // Neither: nothing is destroyed.
    std::fs::rename(world.path("audit"), world.path("audit-away")).unwrap();
    world.edit_config("url = \"embedded\"\ndata = \"audit\"", "url = \"https://audit.invalid\"");
    let key = std::fs::read_dir(world.path("audit-away")).unwrap().count();
    assert!(key > 0);
    std::fs::write(world.path("state/audit-log.vkey"), other_log()).unwrap();
    let installation = world.open().await;
    let what = refusal(shred_due(&installation).await);
    assert!(what.contains("neither the second place nor the audit log"), "{what}");
    installation.close().await.unwrap();

    std::fs::remove_file(world.path("state/audit-log.vkey")).unwrap();
    std::fs::rename(world.path("audit-away"), world.path("audit")).unwrap();
    world.edit_config("url = \"https://audit.invalid\"", "url = \"embedded\"\ndata = \"audit\"");
    world.edit_config(AWAY, EMBEDDED);
    let installation = world.open().await;
    super::requests::release(&installation, "h-1").await;
    snapshot(&installation).await;
    assert!(shred_due(&installation).await.unwrap().generation.is_some());
    certify_due(&installation).await.unwrap();
    let all = world.number("state/control.db", "SELECT count(*) FROM certificate").await;
    assert!(all > filed);
    installation.close().await.unwrap();
}

fn other_log() -> String {
    let pkcs8 = CheckpointSigner::make_pkcs8(&SystemRandom).unwrap();
    CheckpointSigner::from_pkcs8("audit.example/log", &pkcs8).unwrap().key().verifier_key()
}

/// An audit service of somebody else, on the port that the world's configuration names.
async fn other_service(world: &World, port: u16, signer: CheckpointSigner) -> ServiceHandle {
    let installation = world.open_state().await;
    let store = SqlLogStore::open(&world.path("elsewhere.db"), "certificates").await.unwrap();
    let service = start(ServiceSetup {
        bind: ([127, 0, 0, 1], port).into(),
        sequencer: Sequencer::open(Arc::new(store), signer, None).await.unwrap(),
        signers: installation.signer.trusted().clone().into(),
        token: None,
        operator: LogOperator::Independent,
        witnesses: Witnesses::default(),
        clock: world.clock.clone(),
    });
    let service = service.await.unwrap();
    installation.close().await.unwrap();
    service
}

#[tokio::test]
async fn an_audit_service_elsewhere_confirms_the_state_and_gives_an_old_copy_away() {
    let port = crate::support::ports::free_port();
    let audit = format!("url = \"http://127.0.0.1:{port}\"");
    let world = World::make(Making { customers: 30, audit, ..Making::default() }).await;
    let pkcs8 = CheckpointSigner::make_pkcs8(&SystemRandom).unwrap();
    let signer = || CheckpointSigner::from_pkcs8("audit.example/log", &pkcs8).unwrap();
    std::fs::write(world.path("state/audit-log.vkey"), signer().key().verifier_key()).unwrap();
    let service = other_service(&world, port, signer()).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    forget(&installation, &world.shop.picks.leaver.clone()).await;
    let first = certify_due(&installation).await.unwrap();
    assert_eq!(file_due(&installation, true).await.unwrap().receipted, first);
    installation.close().await.unwrap();
    keep(&world, "before");
    let installation = world.open().await;
    snapshot(&installation).await;
    assert!(shred_due(&installation).await.unwrap().generation.is_some());
    let second = certify_due(&installation).await.unwrap();
    assert_eq!(file_due(&installation, true).await.unwrap().receipted, second);
    installation.close().await.unwrap();
    keep(&world, "newest");

    take_bucket_away(&world);
    // It knows what this state knows and nothing more: retention goes on without the bucket.
    let installation = world.open().await;
    assert!(body(&retain(&installation).await).erased > 0);
    installation.close().await.unwrap();
    put_back(&world, "before");
    let what = old_copy(&world, "before").await;
    assert!(what.contains("the audit service holds certificate") && what.contains(&second[0]), "{what}");
    // Another log in its place, which never heard of us, confirms nothing.
    put_back(&world, "newest");
    service.stop().await.unwrap();
    let installation = world.open().await;
    let what = refusal(shred_due(&installation).await);
    assert!(what.contains("neither the second place nor the audit log"), "{what}");
    installation.close().await.unwrap();
    std::fs::remove_file(world.path("elsewhere.db")).unwrap();
    let service = other_service(&world, port, signer()).await;
    let installation = world.open().await;
    let what = refusal(shred_due(&installation).await);
    assert!(what.contains("neither the second place nor the audit log"), "{what}");
    installation.close().await.unwrap();
    service.stop().await.unwrap();
}

#[tokio::test]
async fn a_generation_that_was_copied_goes_forward_unless_a_hold_came_in_between() {
    let template = World::make(Making { customers: 14, ..Making::default() }).await;
    for (point, with_hold) in [("rekey.copied", false), ("rekey.copied", true), ("rekey.staged", false)] {
        let world = template.copied();
        assert!(crash_at(&world, point));
        if with_hold {
            let config = world.config();
            let needs = Needs { stores: true, ..Needs::STATE };
            let beside = Installation::open(config, needs, world.clock.clone(), Arc::new(SystemRandom)).await.unwrap();
            place_hold(&beside, &hold("h-9"), None).await.unwrap();
            beside.close().await.unwrap();
        }
        world.clock.advance(chrono::TimeDelta::minutes(11));
        let installation = world.open().await;
        let mut tx = installation.control.read().await.unwrap();
        let (generation, _) = tx.tree_root().await.unwrap().unwrap();
        assert_eq!(tx.open_rekey().await.unwrap(), None, "{point}");
        let evidence = tx.rekey_evidence(2).await.unwrap();
        drop(tx);
        let roots: Vec<i64> =
            installation.keyring.slot().list().await.unwrap().iter().map(|root| root.generation).collect();
        let expected = if with_hold { 1 } else { 2 };
        assert_eq!((generation, roots), (expected, vec![expected]), "{point} {with_hold}");
        assert_eq!(evidence.is_some(), !with_hold, "{point}");
        let memory = wangchuan::keyring::second_place::memory(&installation.control).await.unwrap();
        assert_eq!((memory.head.unwrap().generation, memory.intent), (expected, None), "{point} {with_hold}");
        if with_hold {
            // Keys of finished work may die; those of held rows do not.
            assert!(shred_due(&installation).await.unwrap().shredded.is_empty());
            super::requests::release(&installation, "h-9").await;
            assert!(!shred_due(&installation).await.unwrap().shredded.is_empty());
        }
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_second_host_with_the_same_bucket_is_noticed_by_both() {
    let world = small().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    let twin = world.copied();
    let installation = world.open().await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    // The twin works on the same bucket.
    std::fs::remove_dir_all(twin.path("bucket")).unwrap();
    copy_folder(&world.path("bucket"), &twin.path("bucket"));
    old_copy(&twin, "twin").await;
}

#[tokio::test]
async fn nothing_is_stored_again_when_nothing_changed() {
    let world = small().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let seal = async || installation.keyring.seal_state(&installation.control, world.clock.as_ref()).await.unwrap();
    seal().await;
    let count = || std::fs::read_dir(world.path("bucket/wangchuan/state")).unwrap().count();
    let before = count();
    for _ in 0..3 {
        installation.renew_lease().await.unwrap();
        seal().await;
    }
    assert_eq!(count(), before);
    installation.close().await.unwrap();
    let installation = world.open().await;
    installation.keyring.seal_state(&installation.control, world.clock.as_ref()).await.unwrap();
    assert_eq!(count(), before, "another start alone is no change");
    place_hold(&installation, &hold("h-2"), None).await.unwrap();
    installation.keyring.seal_state(&installation.control, world.clock.as_ref()).await.unwrap();
    assert_eq!(count(), before + 1);
    installation.close().await.unwrap();
}
