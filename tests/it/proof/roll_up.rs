//! The roll-up: what was certified and filed since the one before, and what is missing.

use chrono::TimeDelta;
use wangchuan::certify::statement::RollUp;
use wangchuan::certify::{Said, verify};
use wangchuan::clock::Clock as _;
use wangchuan::installation::Installation;
use wangchuan::tasks::audit::verify_all;
use wangchuan::tasks::certify::{ROLL_UP, certify_due, roll_up_due};
use wangchuan::tasks::oplog::{Entry, Query, query};
use wangchuan::tasks::outbox::file_due;
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::trust::{Given, GivenReceipt, trust, verify_with};

use super::tools::{customers, filed};
use crate::support::world::{Making, World, forget, snapshot};

fn small() -> Making {
    Making { customers: 30, ..Making::default() }
}

async fn rolled_up(installation: &Installation) -> RollUp {
    let id = roll_up_due(installation).await.unwrap().expect("one is due");
    let row = installation.control.read().await.unwrap().certificate(&id).await.unwrap().unwrap();
    match verify(&row.envelope, installation.signer.trusted()).unwrap().said {
        Said::RollUp(statement) => statement.predicate,
        Said::Erasure(_) => panic!("{id} is no roll-up"),
    }
}

async fn next_day(world: &World, installation: &Installation) {
    world.clock.advance(TimeDelta::days(1));
    installation.confirm_clock().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_certificate_stands_in_one_roll_up_and_each_day_has_one() {
    let world = filed(small(), 2).await;
    let installation = world.open().await;
    let first = rolled_up(&installation).await;
    assert_eq!(
        (first.run_totals.ended, first.run_totals.without_certificate, first.certificate_totals.issued),
        (2, 0, 2)
    );
    assert_eq!(
        (first.certificate_totals.first_sequence, first.certificate_totals.last_sequence, first.sequence),
        (Some(1), Some(2), 3)
    );
    assert_eq!((first.receipt_totals.grade_b, first.receipt_totals.waiting, first.previous_roll_up), (2, 0, None));
    assert_eq!(first.result, wangchuan::certify::codes::ErasureResult::Complete);
    assert_eq!(roll_up_due(&installation).await.unwrap(), None, "one a day");
    assert_eq!(file_due(&installation, true).await.unwrap().receipted, std::slice::from_ref(&first.certificate_id));

    next_day(&world, &installation).await;
    forget(&installation, &customers(&world)[5]).await;
    certify_due(&installation).await.unwrap();
    let second = rolled_up(&installation).await;
    assert_eq!((second.certificate_totals.first_sequence, second.certificate_totals.last_sequence), (Some(3), Some(4)));
    assert_eq!((second.from, second.until.instant()), (first.until, world.clock.now()));
    let before = second.previous_roll_up.clone().unwrap();
    assert_eq!((before.certificate_id, before.sequence), (first.certificate_id, 3));
    // The third certificate is that of the roll-up, and nobody has filed the fourth yet.
    assert_eq!((second.run_totals.ended, second.receipt_totals.grade_b, second.receipt_totals.waiting), (1, 1, 1));
    assert_eq!(second.result, wangchuan::certify::codes::ErasureResult::Partial);
    assert!(second.operation_log.size > first.operation_log.size);

    file_due(&installation, true).await.unwrap();
    next_day(&world, &installation).await;
    let third = rolled_up(&installation).await;
    assert_eq!(
        (third.certificate_totals.issued, third.receipt_totals.grade_b, third.receipt_totals.waiting_before),
        (1, 1, 0)
    );
    file_due(&installation, true).await.unwrap();
    let verdict = verify_all(&installation).await.unwrap();
    assert_eq!(verdict.result, "valid", "{verdict:?}");
    assert!(verdict.checks.iter().any(|(check, _, said)| check == "roll-ups" && said.starts_with('3')), "{verdict:?}");
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_certificate_and_a_refused_one_are_missed() {
    let world = filed(small(), 1).await;
    let installation = world.open().await;
    forget(&installation, &customers(&world)[7]).await;
    let mut tx = installation.control.begin().await.unwrap();
    let id = tx.certificates(None).await.unwrap()[0].id.clone();
    tx.commit().await.unwrap();
    let state = world.path("state/control.db");
    let refused = format!("UPDATE outbox SET state = 'quarantined' WHERE certificate = '{id}'");
    world.run_sql_in(state.to_str().unwrap(), &refused).await;
    let said = rolled_up(&installation).await;
    assert_eq!((said.run_totals.ended, said.run_totals.certified, said.run_totals.without_certificate), (2, 1, 1));
    assert_eq!((said.receipt_totals.refused, said.receipt_totals.grade_b), (1, 0));
    assert_eq!(said.result, wangchuan::certify::codes::ErasureResult::Partial);
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_newest_state_is_not_certified_is_missed_although_an_older_one_is() {
    let world = filed(small(), 1).await;
    let installation = world.open().await;
    forget(&installation, &customers(&world)[9]).await;
    assert_eq!(certify_due(&installation).await.unwrap().len(), 1);
    file_due(&installation, true).await.unwrap();
    snapshot(&installation).await;
    assert_eq!(shred_due(&installation).await.unwrap().shredded.len(), 1);
    let said = rolled_up(&installation).await;
    assert_eq!((said.run_totals.ended, said.run_totals.certified, said.run_totals.without_certificate), (2, 1, 1));
    assert_eq!((said.receipt_totals.waiting, said.result), (0, wangchuan::certify::codes::ErasureResult::Partial));
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_from_a_clock_that_was_ahead_keeps_no_other_back() {
    let world = filed(small(), 1).await;
    let installation = world.open().await;
    for days in [40, -40] {
        world.clock.advance(TimeDelta::days(days));
        installation.confirm_clock().await.unwrap();
        rolled_up(&installation).await;
        file_due(&installation, true).await.unwrap();
    }
    assert_eq!(roll_up_due(&installation).await.unwrap(), None);
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_up_that_fails_and_one_that_is_issued_then_are_logged_with_their_ends() {
    let world = filed(small(), 1).await;
    let installation = world.open().await;
    let blocked = "CREATE TRIGGER blocked BEFORE INSERT ON certificate BEGIN SELECT RAISE(ABORT, 'no room'); END";
    world.run_sql_in("state/control.db", blocked).await;
    roll_up_due(&installation).await.unwrap_err();
    world.run_sql_in("state/control.db", "DROP TRIGGER blocked").await;
    let issued = rolled_up(&installation).await.certificate_id;
    let wanted = Query { operation: Some("certificate.issue".to_owned()), ..Query::default() };
    let entries = query(&installation, &wanted).await.unwrap();
    let text = |entry: &Entry, at: &str| entry.record.pointer(at).and_then(|text| text.as_str()).map(str::to_owned);
    let about = |entry: &&Entry| text(entry, "/unmapped/references/about").as_deref() == Some("roll-up");
    let outcomes: Vec<i64> =
        entries.iter().filter(about).map(|entry| entry.record["status_id"].as_i64().unwrap()).collect();
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
    assert_eq!((outcomes[1], outcomes[3]), (2, 1), "{outcomes:?}");
    assert_eq!(outcomes[0], outcomes[2], "{outcomes:?}");
    let objects: Vec<_> = entries.iter().filter(about).map(|entry| text(entry, "/resources/0/uid").unwrap()).collect();
    assert!(objects.iter().all(|object| *object == issued), "{objects:?}");
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rolled_up_cannot_be_taken_back() {
    let world = filed(small(), 2).await;
    let installation = world.open().await;
    rolled_up(&installation).await;
    file_due(&installation, true).await.unwrap();
    installation.close().await.unwrap();
    let wrong = |copy: World, sql: &'static str| async move {
        let state = copy.path("state/control.db");
        copy.run_sql_in(state.to_str().unwrap(), sql).await;
        let installation = copy.open_state().await;
        let verdict = verify_all(&installation).await.unwrap();
        installation.close().await.unwrap();
        let found = verdict.checks.into_iter().find(|(check, good, _)| check == "roll-ups" && !good);
        found.unwrap_or_else(|| panic!("{sql} was not noticed")).2
    };
    let digest =
        "UPDATE certificate SET digest = (SELECT digest FROM certificate WHERE sequence = 1) WHERE sequence = 2";
    assert!(wrong(world.copied(), digest).await.contains("no. 2, which it counts"));
    let list = "UPDATE certificate SET evidence = x'7b7d0a' WHERE run = 'roll-up'";
    assert!(wrong(world.copied(), list).await.contains("does not have the digest"));
    let shorter = "DROP TRIGGER log_leaf_stays; DELETE FROM log_leaf WHERE log = 'operations' AND idx > 2";
    assert!(wrong(world.copied(), shorter).await.contains("operation log"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_checks_a_roll_up_and_its_list() {
    let world = filed(small(), 1).await;
    let installation = world.open().await;
    rolled_up(&installation).await;
    file_due(&installation, true).await.unwrap();
    let mut tx = installation.control.read().await.unwrap();
    let row = tx.newest_certificate_of(ROLL_UP).await.unwrap().unwrap();
    let receipt = tx.outbox(None).await.unwrap().into_iter().find(|filed| filed.certificate == row.id).unwrap().receipt;
    drop(tx);
    let trust = trust(&installation).await.unwrap();
    let receipt = GivenReceipt::Entry(receipt.unwrap());
    let judge = |evidence: &[u8]| {
        let (receipt, stamps) = (receipt.clone(), Vec::new());
        let given = Given { envelope: &row.envelope, receipt, stamps, evidence: Some(evidence), is_chained: false };
        verify_with(&trust, &given, world.clock.now()).0
    };
    assert_eq!(judge(&row.evidence).result, "valid", "{:?}", judge(&row.evidence));
    let mut other = row.evidence.clone();
    other[20] ^= 1;
    assert_eq!(judge(&other).result, "invalid");
    installation.close().await.unwrap();
}
