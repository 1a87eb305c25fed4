//! The process is killed at every step of a key's end: it is ordered once, waits for its date, and is certified once.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use wangchuan::crash_point::{OUTSIDE_DELAYED_POINTS, OUTSIDE_POINTS};
use wangchuan::installation::{Installation, Needs};
use wangchuan::random::SystemRandom;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::outside::OutsideWait;

use super::practice::Practice;
use crate::support::kms::days;
use crate::support::world::{manual_clock_at, read_config, retain};
use crate::transit::outside::clinic::{certificates, id_of, pass, state, stored};

const FOLDER: &str = "WANGCHUAN_KMS_OUTSIDE_FOLDER";
const NOW: &str = "WANGCHUAN_KMS_OUTSIDE_NOW";

/// What the child process does: one pass and its certificates, in which it is killed.
async fn child(folder: &str) {
    let clock = manual_clock_at(std::env::var(NOW).unwrap().parse().unwrap());
    let config = read_config(Path::new(folder));
    let installation = Installation::open(config, Needs::ALL, clock, Arc::new(SystemRandom)).await.unwrap();
    pass(&installation).await;
    certify_due(&installation).await.unwrap();
    installation.close().await.unwrap();
}

fn is_killed_at(practice: &Practice, point: &str) {
    let name = "kms::outside::trouble::a_kill_at_every_step_is_finished_by_the_next_pass";
    let done = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--test-threads=1"])
        .env(FOLDER, practice.folder.path())
        .env(NOW, practice.now().to_rfc3339())
        .env("WANGCHUAN_CRASH_AT", point)
        .output()
        .unwrap();
    assert_eq!(done.status.signal(), Some(9), "{point}: {}", String::from_utf8_lossy(&done.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_every_step_is_finished_by_the_next_pass() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return child(&folder).await;
    }
    for point in OUTSIDE_POINTS.iter().chain(OUTSIDE_DELAYED_POINTS) {
        let practice = Practice::open_its_doors("0").await;
        let installation = practice.open().await;
        retain(&installation).await;
        let is_at_its_date = matches!(*point, "outside.recorded" | "outside.certified");
        if is_at_its_date {
            pass(&installation).await;
            practice.wait(&installation, days(7)).await;
        }
        let date = practice.now() + days(if is_at_its_date { 0 } else { 7 });
        installation.close().await.unwrap();
        is_killed_at(&practice, point);
        let installation = practice.open().await;
        pass(&installation).await;
        let id = id_of(&installation, "findings").await;
        if !is_at_its_date {
            assert_eq!(state(&installation, &id).await.1, Some(OutsideWait::Irrevocable), "{point}");
            assert_eq!(stored(&installation, &id).await.1.irrevocable_at(), Some(date), "{point}");
            practice.wait(&installation, days(7)).await;
            pass(&installation).await;
        }
        assert_eq!(state(&installation, &id).await.0, "destroyed", "{point}");
        assert_eq!((practice.orders(), stored(&installation, &id).await.1.called_off), (1, 0), "{point}");
        certify_due(&installation).await.unwrap();
        let found = certificates(&installation, &id).await;
        assert_eq!(found.len(), 1, "{point}");
        assert_eq!(found[0].0.outside_key.as_ref().unwrap().irrevocable_at.unwrap().instant(), date, "{point}");
        installation.close().await.unwrap();
    }
}
