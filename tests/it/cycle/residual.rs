//! The residual date of a certificate: known when it is signed, and corrected when it changes.

use chrono::{NaiveDate, TimeDelta};
use wangchuan::certify::codes::{ErasureResult, SupersedesReason};
use wangchuan::certify::statement::Predicate;
use wangchuan::installation::Installation;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::shred::{shred_due, waiting_runs};
use wangchuan::tasks::status::status;

use crate::support::world::{Making, World, body, forget, pass_time, retain, run_now, snapshot};

async fn certificates(installation: &Installation, run: &str) -> Vec<Predicate> {
    let rows = installation.control.read().await.unwrap().certificates(Some(run)).await.unwrap();
    let read = |envelope: &[u8]| wangchuan::certify::verify(envelope, installation.signer.trusted()).unwrap();
    rows.iter().map(|row| read(&row.envelope).into_erasure().unwrap().predicate).collect()
}

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

#[tokio::test]
async fn the_first_certificate_knows_what_a_bucket_that_is_not_wholly_due_means() {
    for (grace, residual) in [("0", "2026-03-31"), ("72 hours", "2026-04-03")] {
        let world = World::make(Making { grace, ..Making::default() }).await;
        let installation = world.open().await;
        snapshot(&installation).await;
        let run = retain(&installation).await;
        assert_eq!(certify_due(&installation).await.unwrap().len(), 1);
        let [first] = &certificates(&installation, &run.id).await[..] else { panic!("one certificate") };
        // Rows of the first quarter of 2023 went with their policy's three years; the quarter ends on 2023-03-31.
        assert_eq!((first.result, first.residual_date), (ErasureResult::Partial, Some(day(residual))), "{grace}");

        snapshot(&installation).await;
        pass_time(&world, &installation, TimeDelta::hours(74)).await;
        shred_due(&installation).await.unwrap();
        let (rows, until) = body(&run_now(&installation, &run.id).await).pending.unwrap();
        assert!(rows > 0);
        assert_eq!(day(&until), day(residual), "{grace}");
        let said = waiting_runs(&installation).await.unwrap().into_iter().find(|waiting| waiting.run == run.id);
        assert_eq!(said.unwrap().until.as_deref(), Some(residual), "{grace}");
        assert_eq!(certify_due(&installation).await.unwrap(), Vec::<String>::new(), "nothing changed since");
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn rows_that_open_behind_their_date_are_overdue() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    retain(&installation).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    let late = async |installation: &Installation| {
        let status = status(&installation.control, &installation.config, world.clock.as_ref()).await.unwrap();
        status.overdue.iter().filter(|item| item.code == "shred-overdue").count()
    };
    pass_time(&world, &installation, TimeDelta::days(16)).await;
    assert_eq!(late(&installation).await, 0, "on the day itself it is not late");
    pass_time(&world, &installation, TimeDelta::days(3)).await;
    assert_eq!(late(&installation).await, 1);
    retain(&installation).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    assert_eq!(late(&installation).await, 0);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn what_no_bucket_keeps_back_is_dated_by_its_grace_alone() {
    let world = World::make(Making { grace: "72 hours", ..Making::default() }).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    certify_due(&installation).await.unwrap();
    let [first] = &certificates(&installation, &run.id).await[..] else { panic!("one certificate") };
    assert_eq!(first.residual_date, Some(run.grace_until.unwrap().date_naive()));
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_date_that_changed_is_corrected_by_a_superseding_certificate() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = retain(&installation).await;
    certify_due(&installation).await.unwrap();
    installation.close().await.unwrap();

    world.edit_config(
        "retention = \"3 years\"\nstart = \"completed_at\"",
        "retention = \"4 years\"\nstart = \"completed_at\"",
    );
    let installation = world.open().await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    assert_eq!(certify_due(&installation).await.unwrap().len(), 1);
    let [first, second] = &certificates(&installation, &run.id).await[..] else { panic!("two certificates") };
    assert_eq!((first.residual_date, second.residual_date), (Some(day("2026-03-31")), Some(day("2027-03-31"))));
    let replaced = second.supersedes.as_ref().unwrap();
    assert_eq!((&replaced.certificate_id, replaced.reason), (&first.certificate_id, SupersedesReason::Correction));
    assert_eq!(certify_due(&installation).await.unwrap(), Vec::<String>::new());
    installation.close().await.unwrap();
}
