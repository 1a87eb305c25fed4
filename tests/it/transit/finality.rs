//! The end of an erasure: a shredded run becomes final when the last copy that is known is gone, never before, and once.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use chrono::TimeDelta;
use wangchuan::certify::codes::Limitation;
use wangchuan::clock::Clock as _;
use wangchuan::control::HoldRow;
use wangchuan::installation::{Installation, Needs};
use wangchuan::policy::media::{Checked, MediumKind, Method, Technique};
use wangchuan::random::SystemRandom;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::erasure::RunBody;
use wangchuan::tasks::finality::{ResidualCode, finalise_due};
use wangchuan::tasks::media::{Destruction, Medium, Report, record_destroyed};
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::request::place_hold;
use wangchuan::tasks::shred::shred_due;

use super::cycle::predicates;
use crate::support::bao::{Bao, root_section};
use crate::support::world::{
    Making, World, dawn, forget, manual_clock_at, pass_time, read_config, refusal, run_now, snapshot,
};

const FOLDER: &str = "WANGCHUAN_FINALITY_FOLDER";
const NOW: &str = "WANGCHUAN_FINALITY_NOW";
const COPY: &str = "[[store.copy]]\nname = \"dump\"\nkind = \"dump\"\ndies = \"30 days\"\n\n";
const FIRST_TABLE: &str = "[[store.collection]]\ntable = \"customers\"";

/// A shop with a dump that lives for thirty days, in which a customer was erased and the keys are destroyed and certified.
async fn shredded(bao: &Bao, token: &str) -> (World, String) {
    let root = root_section(&bao.address(), "root", token);
    let world = World::make(Making { customers: 20, root, ..Making::default() }).await;
    world.edit_config(FIRST_TABLE, &format!("{COPY}{FIRST_TABLE}"));
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    snapshot(&installation).await;
    assert_eq!(shred_due(&installation).await.unwrap().shredded, std::slice::from_ref(&run.id));
    assert_eq!(certify_due(&installation).await.unwrap().len(), 1);
    installation.close().await.unwrap();
    (world, run.id)
}

fn hold() -> HoldRow {
    HoldRow {
        id: "case-7".to_owned(),
        scope: "store".to_owned(),
        store: Some("shop".to_owned()),
        collection: None,
        subject: None,
        reason: "case 7".to_owned(),
        placed_at: dawn(),
        placed_by: "test".to_owned(),
        released_at: None,
    }
}

/// What is left of a run, as stored: code and last day.
async fn left(installation: &Installation, run: &str) -> Vec<(ResidualCode, Option<String>)> {
    let body = RunBody::of(&run_now(installation, run).await).unwrap();
    let residuals = body.residuals.unwrap_or_default();
    residuals.into_iter().map(|left| (left.code, left.until.map(|day| day.to_string()))).collect()
}

/// The dump would live for thirty days; its tape is shredded, and only the copies of the service are waited for.
#[tokio::test]
async fn a_copy_that_ends_with_its_medium_is_not_waited_for() {
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["wangchuan"], "1h").await;
    let (world, run) = shredded(&bao, &token).await;
    let installation = world.open().await;
    assert_eq!(left(&installation, &run).await.len(), 2, "service and dump");
    let how = Destruction {
        method: Method::Destroy,
        technique: Technique::Shred,
        standard: "NIST-SP-800-88r2".to_owned(),
        always_encrypted: false,
        performed_by: "li.wei".to_owned(),
        witnesses: vec!["wang.fang".to_owned(), "chen.jie".to_owned()],
        checked: Checked::Inspection,
        evidence_sha256: Some("ab".repeat(32)),
    };
    let asset = Some("T-1".to_owned());
    let medium = Medium { kind: MediumKind::Tape, serial: None, asset, make: None, model: None };
    let copies = vec!["shop/dump".to_owned()];
    let at = world.clock.now();
    record_destroyed(&installation, Report { medium, stores: Vec::new(), copies, at, how }).await.unwrap();
    assert_eq!(certify_due(&installation).await.unwrap().len(), 2, "the medium's, and another one of the run");
    assert_eq!(certify_due(&installation).await.unwrap(), [""; 0]);
    let service = (ResidualCode::ServiceCopies, Some("2026-03-23".to_owned()));
    assert_eq!(left(&installation, &run).await, [service]);
    pass_time(&world, &installation, TimeDelta::days(10)).await;
    assert_eq!(finalise_due(&installation).await.unwrap(), std::slice::from_ref(&run));
    certify_due(&installation).await.unwrap();
    let said = predicates(&installation).await;
    assert!(said.last().unwrap().final_since.is_some());
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_run_is_final_after_its_last_date_and_never_before_or_twice() {
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["wangchuan"], "1h").await;
    let (world, run) = shredded(&bao, &token).await;
    let installation = world.open().await;
    let service = (ResidualCode::ServiceCopies, Some("2026-03-23".to_owned()));
    let dump = (ResidualCode::DeclaredCopy, Some("2026-04-14".to_owned()));
    // The certificate of the shred has told both dates.
    assert_eq!(left(&installation, &run).await, [service.clone(), dump.clone()]);
    assert_eq!(finalise_due(&installation).await.unwrap(), [""; 0]);
    installation.close().await.unwrap();

    // The declaration is taken out once the copies of the service are gone: the certificate stands.
    world.edit_config(COPY, "");
    let installation = world.open().await;
    for days in [10, 20] {
        pass_time(&world, &installation, TimeDelta::days(days)).await;
        assert_eq!(finalise_due(&installation).await.unwrap(), [""; 0], "{days}");
        assert_eq!(run_now(&installation, &run).await.state, "shredded");
    }
    // The last hour of the last day, and then a leap that nobody has confirmed.
    pass_time(&world, &installation, TimeDelta::hours(21)).await;
    assert_eq!(finalise_due(&installation).await.unwrap(), [""; 0]);
    world.clock.advance(TimeDelta::days(20));
    assert!(refusal(finalise_due(&installation).await).contains("set forward"));
    world.clock.advance(-TimeDelta::days(19));
    assert_eq!(run_now(&installation, &run).await.state, "shredded");

    // It is the day after. A hold may keep copies beyond their dates.
    place_hold(&installation, &hold(), None).await.unwrap();
    assert_eq!(finalise_due(&installation).await.unwrap(), [""; 0]);
    assert!(left(&installation, &run).await.contains(&(ResidualCode::Hold, None)));
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.release_hold("case-7", "test", dawn()).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(finalise_due(&installation).await.unwrap(), std::slice::from_ref(&run));
    assert_eq!(run_now(&installation, &run).await.state, "final");
    assert_eq!(finalise_due(&installation).await.unwrap(), [""; 0]);

    let issued = certify_due(&installation).await.unwrap();
    assert_eq!(issued.len(), 1);
    assert_eq!(certify_due(&installation).await.unwrap(), [""; 0]);
    file_due(&installation, true).await.unwrap();
    let verdict = verify_certificate(&installation, &issued[0]).await.unwrap();
    assert_eq!(verdict.result, "valid", "{verdict:?}");
    let [shred, last] = &predicates(&installation).await[..] else { panic!("two certificates") };
    assert_eq!(shred.residual_date.unwrap().to_string(), "2026-04-14");
    assert_eq!(last.supersedes.as_ref().unwrap().certificate_id, shred.certificate_id);
    assert!(last.final_since.is_some() && last.residual_date.is_none() && last.result == shred.result);
    assert!(!last.limitations.contains(&Limitation::KeyShredPending));
    // The clock goes back: what was final stays so, and nothing is certified again.
    world.clock.advance(-TimeDelta::minutes(3));
    assert_eq!(finalise_due(&installation).await.unwrap(), [""; 0]);
    assert_eq!(certify_due(&installation).await.unwrap(), [""; 0]);
    installation.close().await.unwrap();
}

async fn child(folder: &str) {
    let clock = manual_clock_at(std::env::var(NOW).unwrap().parse().unwrap());
    let config = read_config(Path::new(folder));
    let installation = Installation::open(config, Needs::ALL, clock, Arc::new(SystemRandom)).await.unwrap();
    finalise_due(&installation).await.unwrap();
    certify_due(&installation).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_on_the_way_to_final_leaves_one_certificate() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return child(&folder).await;
    }
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["wangchuan"], "1h").await;
    let (world, run) = shredded(&bao, &token).await;
    let installation = world.open().await;
    pass_time(&world, &installation, TimeDelta::days(31)).await;
    installation.close().await.unwrap();
    for point in ["run.final", "certificate.reserved", "certificate.issued"] {
        let world = world.copied();
        let name = "transit::finality::a_kill_on_the_way_to_final_leaves_one_certificate";
        let now = wangchuan::clock::Clock::now(world.clock.as_ref()).to_rfc3339();
        let done = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--test-threads=1"])
            .env(FOLDER, world.folder.path())
            .env(NOW, now)
            .env("WANGCHUAN_CRASH_AT", point)
            .output()
            .unwrap();
        assert_eq!(done.status.signal(), Some(9), "{point}: {}", String::from_utf8_lossy(&done.stdout));
        world.clock.advance(TimeDelta::minutes(11));
        let installation = world.open().await;
        assert_eq!(run_now(&installation, &run).await.state, "final", "{point}");
        let fewer = usize::from(point == "certificate.issued");
        assert_eq!(finalise_due(&installation).await.unwrap(), [""; 0], "{point}");
        assert_eq!(certify_due(&installation).await.unwrap().len(), 1 - fewer, "{point}");
        let said = predicates(&installation).await;
        assert_eq!(said.iter().filter(|said| said.final_since.is_some()).count(), 1, "{point}");
        assert_eq!(said.iter().map(|said| said.sequence).collect::<Vec<_>>(), [1, 2], "{point}");
        installation.close().await.unwrap();
    }
}
