//! The process is killed, or the service goes away, at every step of a key's end; and holds that come in between.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use chrono::TimeDelta;
use wangchuan::certify::codes::ErasureResult;
use wangchuan::clock::Clock as _;
use wangchuan::control::HoldRow;
use wangchuan::crash_point::OUTSIDE_POINTS;
use wangchuan::installation::{Installation, Needs};
use wangchuan::plan::Subject;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::outside::OutsideWait;
use wangchuan::tasks::request::place_hold;

use super::clinic::{Clinic, certificates, key_of, pass, state};
use crate::support::bao::{Bao, Gate};
use crate::support::world::{forget, manual_clock_at, read_config};

const FOLDER: &str = "WANGCHUAN_OUTSIDE_FOLDER";
const NOW: &str = "WANGCHUAN_OUTSIDE_NOW";

/// What the child process does: one pass and its certificates, in which it is killed.
async fn child(folder: &str) {
    let now = std::env::var(NOW).unwrap().parse().unwrap();
    let config = read_config(Path::new(folder));
    let clock = manual_clock_at(now);
    let installation = Installation::open(config, Needs::ALL, clock, Arc::new(SystemRandom)).await.unwrap();
    pass(&installation).await;
    certify_due(&installation).await.unwrap();
    installation.close().await.unwrap();
}

/// One certificate, of the best that such a key can have, and numbers without a gap.
async fn ended_once(installation: &Installation, id: &str, what: &str) {
    let all = installation.control.read().await.unwrap().certificates(None).await.unwrap();
    let numbers: Vec<i64> = all.iter().map(|row| row.sequence).collect();
    assert_eq!(numbers, (1..=all.len() as i64).collect::<Vec<_>>(), "{what}");
    let found = certificates(installation, id).await;
    assert_eq!(found.len(), 1, "{what}");
    assert_eq!(found[0].0.result, ErasureResult::Complete, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_every_step_of_a_keys_end_is_finished_by_the_next_pass() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return child(&folder).await;
    }
    let Some(clinic) = Clinic::open_its_doors("0").await else { return };
    for point in OUTSIDE_POINTS {
        let patient = point.replace('.', "-");
        let note = clinic.admit(&patient).await;
        let installation = clinic.open().await;
        let id = clinic.register(&installation, &patient).await;
        pass(&installation).await;
        forget(&installation, &patient).await;
        installation.close().await.unwrap();
        let name = "transit::outside::trouble::a_kill_at_every_step_of_a_keys_end_is_finished_by_the_next_pass";
        let done = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--test-threads=1"])
            .env(FOLDER, clinic.folder.path())
            .env(NOW, wangchuan::control::time_text(clinic.clock.now()))
            .env("WANGCHUAN_CRASH_AT", point)
            .output()
            .unwrap();
        assert_eq!(done.status.signal(), Some(9), "{point}: {}", String::from_utf8_lossy(&done.stdout));
        let installation = clinic.open().await;
        pass(&installation).await;
        assert_eq!(state(&installation, &id).await.0, "destroyed", "{point}");
        assert!(!clinic.opens(&key_of(&patient), &note).await, "{point}");
        certify_due(&installation).await.unwrap();
        ended_once(&installation, &id, point).await;
        assert!(!installation.control.read().await.unwrap().is_destroying().await.unwrap(), "{point}");
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_service_that_goes_away_at_any_request_is_waited_for() {
    let Some(bao) = Bao::start().await else { return };
    let gate = Gate::before(&bao).await;
    let clinic = Clinic::at(bao, &gate.address, "0").await;
    let installation = clinic.open().await;
    pass(&installation).await;
    let mut refusals = 0;
    for connections in 0.. {
        let patient = format!("patient-{connections}");
        let note = clinic.admit(&patient).await;
        let id = clinic.register(&installation, &patient).await;
        forget(&installation, &patient).await;
        gate.allow(connections);
        let report = pass(&installation).await;
        let refused = gate.has_refused();
        gate.open();
        let what = format!("after {connections} requests");
        if !refused {
            assert_eq!(report.destroyed, [id], "{what}");
            break;
        }
        refusals += 1;
        assert!(report.destroyed.is_empty(), "{what}");
        let (now, why) = state(&installation, &id).await;
        assert!(
            matches!(now.as_str(), "ended" | "doubtful") && why == Some(OutsideWait::ServiceRefuses),
            "{what} {now}"
        );
        // No hold waits for a call that is over.
        assert!(!installation.control.read().await.unwrap().is_destroying().await.unwrap(), "{what}");
        assert_eq!(pass(&installation).await.destroyed, std::slice::from_ref(&id), "{what}");
        assert!(!clinic.opens(&key_of(&patient), &note).await, "{what}");
        certify_due(&installation).await.unwrap();
        ended_once(&installation, &id, &what).await;
    }
    assert!(refusals >= 5, "a key's end makes more requests than {refusals}");
    installation.close().await.unwrap();
}

/// The switch that lets a key be deleted is on, the service is gone, and a hold comes: the key is spared, and the switch is off.
#[tokio::test]
async fn a_hold_that_comes_while_the_outcome_is_not_known_spares_the_key() {
    let Some(bao) = Bao::start().await else { return };
    let gate = Gate::before(&bao).await;
    let clinic = Clinic::at(bao, &gate.address, "0").await;
    let note = clinic.admit("p3").await;
    let installation = clinic.open().await;
    let id = clinic.register(&installation, "p3").await;
    pass(&installation).await;
    forget(&installation, "p3").await;
    // As many requests as it takes until the switch is on.
    for connections in 1.. {
        gate.allow(connections);
        pass(&installation).await;
        assert!(gate.has_refused(), "the key was destroyed");
        gate.open();
        if clinic.fate(&key_of("p3")).await["deletion_allowed"] == true {
            break;
        }
    }
    assert_eq!(state(&installation, &id).await.0, "doubtful");
    let hold = HoldRow {
        id: "case".to_owned(),
        scope: "subject".to_owned(),
        store: None,
        collection: None,
        subject: None,
        reason: "case".to_owned(),
        placed_at: clinic.clock.now(),
        placed_by: "clerk".to_owned(),
        released_at: None,
    };
    place_hold(&installation, &hold, Some(&Subject::new("p3"))).await.unwrap();
    assert!(pass(&installation).await.destroyed.is_empty());
    assert_eq!(state(&installation, &id).await, ("ended".to_owned(), Some(OutsideWait::Hold)));
    assert_eq!(clinic.fate(&key_of("p3")).await["deletion_allowed"], false);
    assert!(clinic.opens(&key_of("p3"), &note).await);
    let mut tx = installation.control.begin().await.unwrap();
    tx.release_hold("case", "clerk", clinic.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(pass(&installation).await.destroyed, [id]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_asked_or_does_not_fit_keeps_the_key_and_says_so() {
    let Some(mut clinic) = Clinic::open_its_doors("0").await else { return };
    let installation = clinic.open().await;
    let id = clinic.register(&installation, "p1").await;
    pass(&installation).await;
    forget(&installation, "p1").await;
    installation.close().await.unwrap();
    for (from, to, why) in [
        ("fields = [\"patients.note\"]", "fields = [\"patients.nothing\"]", OutsideWait::Unregistered),
        ("name = \"notes\"", "name = \"other-notes\"", OutsideWait::Unconfigured),
        ("url = \"sqlite://clinic.db\"", "url = \"sqlite://missing.db\"", OutsideWait::StoreUnreachable),
    ] {
        clinic.edit_config(from, to);
        let installation = clinic.open().await;
        assert!(pass(&installation).await.destroyed.is_empty(), "{why:?}");
        assert_eq!(state(&installation, &id).await.1, Some(why));
        assert!(why.needs_somebody());
        installation.close().await.unwrap();
        clinic.edit_config(to, from);
    }
    clinic.bao.stop();
    let installation = clinic.open().await;
    assert!(pass(&installation).await.destroyed.is_empty());
    assert_eq!(state(&installation, &id).await.1, Some(OutsideWait::ServiceRefuses));
    clinic.wait(&installation, TimeDelta::days(2)).await;
    let status = wangchuan::tasks::status::status(&installation.control, &installation.config, clinic.clock.as_ref());
    let overdue = status.await.unwrap().overdue;
    assert!(overdue.iter().any(|item| item.code == "outside-key-overdue" && item.what.contains(&id)), "{overdue:?}");
    clinic.bao.run().await;
    clinic.bao.unseal().await;
    assert_eq!(pass(&installation).await.destroyed, [id]);
    installation.close().await.unwrap();
}
