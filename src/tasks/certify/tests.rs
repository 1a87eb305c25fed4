//! Certificates from made-up facts: each is issued for real, so that its own check has the last word.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::predicate::{Facts, predicate};
use super::residual::residuals;
use super::root::key_evidence;
use super::rows::Evidence;
use crate::certify::codes::{
    Action, AnonymizationTechnique, BackupState, CopyState, ErasureResult, Limitation, RetainedReason, Sanitization,
    SlotClass,
};
use crate::certify::evidence::verify_evidence;
use crate::certify::issue;
use crate::certify::statement::{Predicate, RootSlot, Statement, Timestamp};
use crate::control::{ChunkCounts, ChunkRow, DoneBlock, LedgerKind, RunRow};
use crate::keys::Key;
use crate::plan::{CollectionCounts, PlanBody, PlanKind, Technique};
use crate::policy::calendar::Period;
use crate::policy::registry::{BackupMode, CopySpec, SecretText, StoreSpec};
use crate::policy::statute::Catalogue;
use crate::policy::statute::rules::{PolicyRule, StatuteRule};
use crate::random::{SystemRandom, uuid7};
use crate::stores::{Engine, Residue, ResidueCode};
use crate::tasks::erasure::{RunBody, SmallestGroup, StoreFiles};
use crate::tasks::finality::ResidualCode;
use crate::tasks::media::{CopyName, GoneCopy};

fn time(hours: i64) -> DateTime<Utc> {
    "2026-03-15T02:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::hours(hours)
}

#[expect(clippy::unnecessary_wraps, reason = "the signature that is asked for")]
fn day(text: &str) -> Option<NaiveDate> {
    Some(text.parse().unwrap())
}

fn store(backup: BackupMode, copies: &[(&str, &str)]) -> StoreSpec {
    let copy = |(name, dies): &(&str, &str)| CopySpec {
        name: (*name).to_owned(),
        kind: "dump".to_owned(),
        dies: (*dies).to_owned(),
    };
    StoreSpec {
        name: "shop".to_owned(),
        url: SecretText::new("sqlite://shop.db".to_owned()),
        read_url: None,
        owner: None,
        purpose: None,
        site: None,
        timezone: chrono_tz::Tz::UTC,
        backup,
        copies: copies.iter().map(copy).collect(),
        collections: Vec::new(),
        ignored: Vec::new(),
        budget: crate::policy::registry::Budget::default(),
        replicas: Vec::new(),
        files: crate::policy::registry::FilesSpec::default(),
    }
}

fn chunk(collection: &str, verdict: &str, counts: [i64; 4]) -> ChunkRow {
    let [erased, stripped, kept, failed] = counts;
    ChunkRow {
        number: 0,
        store: "shop".to_owned(),
        collection: collection.to_owned(),
        verdict: verdict.to_owned(),
        knot: None,
        rows: counts.iter().sum(),
        sealed: Vec::new(),
        state: "done".to_owned(),
        counts: if verdict == "keep" {
            ChunkCounts::default()
        } else {
            ChunkCounts { erased, anonymised: 0, stripped, kept, failed }
        },
    }
}

fn files(left: &[ResidueCode]) -> StoreFiles {
    StoreFiles {
        store: "shop".to_owned(),
        since: time(0),
        asked_at: time(0),
        passed_at: None,
        residues: left.iter().copied().map(Residue::new).collect(),
        mark: None,
        is_rewritten: false,
        replicas_shown: Vec::new(),
        searched: None,
    }
}

/// A plan of retention with these counts.
fn plan_of(collections: Vec<CollectionCounts>) -> PlanBody {
    PlanBody {
        kind: PlanKind::Retention,
        cutoff: time(0),
        policy_digest: String::new(),
        catalogue: None,
        rules: Vec::new(),
        definitions: Vec::new(),
        schema_digest: Vec::new(),
        holds: Vec::new(),
        salt: String::new(),
        rows_digest: String::new(),
        collections,
        subjects: 0,
        skipped: Vec::new(),
        unregistered: Vec::new(),
    }
}

/// A run of ten hours ago over these chunks; `shredded` with generation 2, or waiting for its grace.
fn facts(shredded: bool, spec: StoreSpec, chunks: Vec<ChunkRow>) -> Facts {
    let sum = |of: fn(&ChunkRow) -> i64| chunks.iter().map(of).sum::<i64>();
    let kept = |chunk: &ChunkRow| if chunk.verdict == "keep" { chunk.rows } else { chunk.counts.kept };
    let body = RunBody {
        due: sum(|chunk| chunk.rows),
        erased: sum(|chunk| chunk.counts.erased),
        stripped: sum(|chunk| chunk.counts.stripped),
        kept: sum(kept),
        failed: sum(|chunk| chunk.counts.failed),
        physical: vec![files(&[])],
        ..RunBody::default()
    };
    let collections = chunks.iter().map(|chunk| CollectionCounts {
        store: "shop".to_owned(),
        collection: chunk.collection.clone(),
        due: u64::try_from(chunk.rows).unwrap(),
        keep: if chunk.verdict == "keep" { vec![("statute:cn.ecl.31".to_owned(), chunk.rows as u64)] } else { vec![] },
        ..CollectionCounts::default()
    });
    Facts {
        snapshots: Vec::new(),
        controller: "示例 shop".to_owned(),
        environment: "test".to_owned(),
        gone: Vec::new(),
        approvals: Vec::new(),
        refusal: None,
        again: Vec::new(),
        sealed_again: BTreeSet::new(),
        agent: hex::encode([7; 16]),
        stores: vec![spec],
        engines: HashMap::from([("shop".to_owned(), Engine::Sqlite)]),
        is_bucket_on_this_host: true,
        audit_limitation: Some(Limitation::SelfHostedUnwitnessed),
        run: RunRow {
            id: "r".to_owned(),
            kind: "retention".to_owned(),
            plan: Some("p".to_owned()),
            request: None,
            state: if shredded { "shredded" } else { "shred-pending" }.to_owned(),
            begun_at: time(0),
            ended_at: Some(time(1)),
            verified_at: Some(time(1)),
            verified_snapshot: Some(1),
            grace_until: Some(time(73)),
            generation: shredded.then_some(2),
            shredded_at: shredded.then(|| time(5)),
            body: String::new(),
        },
        plan: plan_of(collections.collect()),
        body,
        open_until: None,
        lists_irrevocable_at: None,
        chunks,
        request: None,
        now: time(10),
        key_evidence: shredded.then(|| key_evidence(&[7; 16], 1, time(5), "file")),
        root_slot: RootSlot::new(SlotClass::D, "file"),
        id: uuid7(time(10), &SystemRandom).unwrap(),
        sequence: 1,
        previous: None,
        supersedes: None,
    }
}

fn issued(facts: &Facts) -> Predicate {
    let predicate = predicate(facts).unwrap();
    let statement = Statement::new(&"00".repeat(32), predicate.clone());
    issue(&statement, &crate::certify::tests::signer()).unwrap();
    predicate
}

#[test]
fn a_shredded_run_is_complete_and_shows_its_key() {
    let erased = vec![chunk("orders", "erase", [5, 0, 0, 0]), chunk("untouched", "erase", [0, 0, 0, 0])];
    let said = issued(&facts(true, store(BackupMode::Bucket, &[]), erased));
    assert_eq!(said.result, ErasureResult::Complete);
    assert_eq!((said.targets[0].backups.state, said.targets[0].keys.len()), (BackupState::Erased, 1));
    assert_eq!(said.targets[0].sanitization, Sanitization::Clear);
    assert_eq!((said.targets[1].backups.state, said.targets[1].sanitization), (BackupState::None, Sanitization::None));
    assert!(said.targets[1].keys.is_empty());
    assert_eq!(said.residual_date, None);
}

#[test]
fn a_run_without_evidence_of_its_own_generation_is_pending_and_names_no_key() {
    let erased = || vec![chunk("orders", "erase", [5, 0, 0, 0])];
    let mut unproven = facts(true, store(BackupMode::Bucket, &[]), erased());
    unproven.key_evidence = None;
    let said = issued(&unproven);
    assert_eq!((said.result, said.targets[0].backups.state), (ErasureResult::Partial, BackupState::Chain));
    assert!(said.limitations.contains(&Limitation::KeyShredPending) && said.targets[0].keys.is_empty());
    // Nothing of it was ever sealed: there is no generation, and nothing to wait for.
    let mut unsealed = unproven;
    unsealed.run.generation = None;
    let said = issued(&unsealed);
    assert_eq!((said.result, said.targets[0].backups.state), (ErasureResult::Complete, BackupState::None));
}

#[test]
fn a_copy_that_was_lost_before_its_period_ended_has_no_date() {
    let lost_on = |day: &str| {
        let copies = [("dump", "30 days")];
        let erased = vec![chunk("orders", "erase", [5, 0, 0, 0])];
        let mut facts = facts(true, store(BackupMode::Bucket, &copies), erased);
        let name = CopyName { store: "shop".to_owned(), copy: "dump".to_owned() };
        let at = format!("{day}T12:00:00Z").parse().unwrap();
        facts.gone = vec![GoneCopy { name, at, record: "a record".to_owned(), is_lost: true }];
        let said = issued(&facts);
        let copy = &said.targets[0].copies[0];
        (copy.state, copy.dies_by, said.residual_date.is_some())
    };
    // Before the rows were erased, too: it holds them as they were.
    for day in ["2026-01-01", "2026-04-14"] {
        assert_eq!(lost_on(day), (CopyState::Unread, None, false), "{day}");
    }
    assert_eq!(lost_on("2026-04-15"), (CopyState::Expires, day("2026-04-14"), true));
}

#[test]
fn copies_that_never_die_and_buckets_without_a_date_get_none() {
    let erased = || vec![chunk("orders", "erase", [5, 0, 0, 0])];
    let copies = [("DBA 备份", "30 days"), ("tape", "never")];
    let said = issued(&facts(true, store(BackupMode::Bucket, &copies), erased()));
    assert_eq!(said.result, ErasureResult::Complete);
    let [dump, tape] = &said.targets[0].copies[..] else { panic!("two copies") };
    assert_eq!((dump.copy_ref.as_str(), dump.state), ("DBA%20%E5%A4%87%E4%BB%BD", CopyState::Expires));
    assert_eq!(dump.dies_by, day("2026-04-14"));
    assert_eq!((tape.state, tape.dies_by), (CopyState::Unread, None));
    assert!(said.limitations.contains(&Limitation::CopyUnread));
    assert_eq!(said.residual_date, None);

    let mut pending = facts(false, store(BackupMode::Bucket, &copies[..1]), erased());
    for (until, state, date) in [
        ("with its chain", BackupState::Chain, None),
        ("2026-01-01", BackupState::Chain, None),
        ("2027-01-01", BackupState::Expires, day("2027-01-01")),
    ] {
        pending.open_until = Some(until.to_owned());
        let said = issued(&pending);
        assert_eq!((said.targets[0].backups.state, said.targets[0].backups.expires_by), (state, date), "{until}");
        assert_eq!(said.residual_date, date, "{until}");
        let told = said.limitations.contains(&Limitation::BackupNotCovered);
        assert_eq!(told, state == BackupState::Chain, "{until}");
        assert_eq!(said.result, ErasureResult::Partial);
    }
}

#[test]
fn a_store_without_backups_waits_until_the_end_of_its_grace() {
    let spec = store(BackupMode::None, &[]);
    let said = issued(&facts(false, spec.clone(), vec![chunk("orders", "erase", [5, 0, 0, 0])]));
    assert!(said.limitations.contains(&Limitation::KeyShredPending));
    assert_eq!(said.residual_date, day("2026-03-18"));
    let mut done = facts(true, spec, vec![chunk("orders", "erase", [5, 0, 0, 0])]);
    done.key_evidence = None;
    let said = issued(&done);
    assert_eq!((said.result, said.residual_date), (ErasureResult::Complete, None));
}

#[test]
fn kept_and_stripped_rows_alone_are_not_complete_and_unclean_files_are_not_clear() {
    let spec = || store(BackupMode::Bucket, &[]);
    for chunks in [vec![chunk("orders", "keep", [0, 0, 4, 0])], vec![chunk("customers", "strip", [0, 2, 0, 0])]] {
        let said = issued(&facts(true, spec(), chunks));
        assert_eq!(said.result, ErasureResult::Partial);
        assert!(said.limitations.contains(&Limitation::RowsRetained));
    }
    let mut unclean = facts(true, spec(), vec![chunk("orders", "erase", [5, 0, 0, 0])]);
    unclean.body.physical[0] = files(&[ResidueCode::TransactionLog]);
    assert_eq!(issued(&unclean).targets[0].sanitization, Sanitization::None);
    unclean.body.physical.clear();
    assert_eq!(issued(&unclean).targets[0].sanitization, Sanitization::None);
    // What passes by itself is waited for: until then the erasure is not complete.
    unclean.body.physical = vec![files(&[ResidueCode::TransactionLog])];
    let said = issued(&unclean);
    assert!(said.result == ErasureResult::Complete && !said.limitations.contains(&Limitation::ResiduePending));
    unclean.body.physical = vec![files(&[ResidueCode::TransactionLog, ResidueCode::OldTransaction])];
    let said = issued(&unclean);
    assert!(said.result == ErasureResult::Partial && said.limitations.contains(&Limitation::ResiduePending));
}

#[test]
fn rows_are_retained_for_the_statute_that_keeps_them_and_every_statute_checked_is_named() {
    let mut facts = facts(false, store(BackupMode::Bucket, &[]), vec![chunk("orders", "keep", [0, 0, 4, 0])]);
    facts.plan.collections[0].keep = vec![("restricted:cn.med.in:cn.credit.16".to_owned(), 4)];
    let law = Catalogue::built_in().unwrap();
    let statutes = ["cn.med.in", "cn.credit.16", "cn.med.in"].map(|key| StatuteRule::of(law.find(key).unwrap()));
    let retention = Period::of_years(1);
    facts.plan.rules = vec![PolicyRule { policy: "p".to_owned(), retention, statutes: statutes.to_vec() }];
    let said = issued(&facts);
    let [kept] = &said.retained[..] else { panic!("{:?}", said.retained) };
    assert_eq!((kept.records, kept.reason_code), (4, RetainedReason::StatutoryPeriod));
    assert_eq!(
        (kept.provision.as_deref(), kept.restricted),
        (Some("cn.med.in"), false),
        "nobody showed that use stopped"
    );
    let named: Vec<&str> = said.legal_basis.iter().map(|basis| basis.provision.as_str()).collect();
    assert_eq!(named, ["cn.credit.16", "cn.med.in"]);
}

#[test]
fn a_clock_set_back_does_not_make_a_certificate_impossible() {
    let mut facts = facts(true, store(BackupMode::Bucket, &[]), vec![chunk("orders", "erase", [5, 0, 0, 0])]);
    facts.now = time(-2000);
    assert_eq!(issued(&facts).issued_at, Timestamp::from(time(1)));
    facts.run.ended_at = Some(time(-5));
    facts.run.verified_at = Some(time(-5));
    assert_eq!(issued(&facts).finished_at, Timestamp::from(time(0)));
}

#[test]
fn hundreds_of_collections_fit_with_their_sums() {
    let spec = || store(BackupMode::Bucket, &[("tape", "never")]);
    for (count, name) in [(200, "t"), (450, "t"), (300, "a_table_with_quite_a_long_name_as_generators_make_them")] {
        let chunks = |number| {
            let collection = format!("{name}{number}");
            [chunk(&collection, "erase", [3, 0, 1, 0]), chunk(&collection, "keep", [0, 0, 2, 0])]
        };
        let mut facts = facts(true, spec(), (0..count).flat_map(chunks).collect());
        // Two chunks of a collection are one line of the plan.
        facts.plan.collections.retain(|counts| !counts.keep.is_empty());
        let said = issued(&facts);
        assert!(said.targets.len() <= 200);
        let erased: u64 = said.targets.iter().map(|target| target.records_erased).sum();
        let retained: u64 = said.retained.iter().map(|entry| entry.records).sum();
        assert_eq!((erased, retained), (3 * count as u64, 3 * count as u64));
        let others: Vec<_> = said.targets.iter().filter(|target| target.target_id == "others").collect();
        assert!(others.len() <= 1, "one sum");
        for others in others {
            assert_eq!((others.backups.state, others.keys.len(), others.copies.len()), (BackupState::Erased, 1, 1));
        }
    }
}

#[test]
fn hundreds_of_anonymised_collections_fit_with_their_sums() {
    let chunks = (0..450).map(|number| {
        let mut changed = chunk(&format!("t{number}"), "anonymise", [0, 0, 0, 0]);
        (changed.rows, changed.counts.anonymised) = (4, 4);
        changed
    });
    let mut facts = facts(true, store(BackupMode::Bucket, &[]), chunks.collect());
    (facts.body.due, facts.body.anonymised) = (4 * 450, 4 * 450);
    for (number, counts) in facts.plan.collections.iter_mut().enumerate() {
        counts.changes = vec![(format!("f{}", number % 3), Technique::Generalise)];
    }
    let said = issued(&facts);
    let rows: u64 = said.targets.iter().map(|target| target.records_anonymized).sum();
    assert_eq!((said.targets.len() <= 200, rows), (true, 4 * 450));
    let others = said.targets.iter().find(|target| target.target_id == "others").unwrap();
    assert_eq!(others.anonymization.as_ref().unwrap().changed.len(), 3);
}

#[test]
fn anonymised_rows_are_counted_apart_with_what_was_changed() {
    let mut changed = chunk("surveys", "anonymise", [0, 0, 0, 0]);
    (changed.rows, changed.counts.anonymised) = (4, 4);
    let mut facts = facts(true, store(BackupMode::Bucket, &[]), vec![changed]);
    // Rows of an earlier run are none of this one's.
    facts.chunks.push(chunk("surveys", "settled", [0, 0, 0, 0]));
    facts.chunks[1].rows = 9;
    (facts.body.due, facts.body.anonymised) = (4, 4);
    facts.plan.collections[0].changes = vec![("答案".to_owned(), Technique::Generalise)];
    let group = SmallestGroup { store: "shop".to_owned(), collection: "surveys".to_owned(), rows: 6 };
    facts.body.smallest_groups = vec![group];
    let said = issued(&facts);
    let target = &said.targets[0];
    let counts = [target.records_selected, target.records_erased, target.records_anonymized, target.records_retained];
    assert_eq!(counts, [4, 0, 4, 0]);
    assert_eq!(
        (said.result, target.action, target.technique.as_str()),
        (ErasureResult::Complete, Action::Anonymize, "sql-update")
    );
    let done = target.anonymization.as_ref().unwrap();
    assert_eq!((done.changed[0].how, done.k_min), (AnonymizationTechnique::Generalize, 6));
    let mut pending = facts;
    pending.run.state = "shred-pending".to_owned();
    pending.key_evidence = None;
    let said = issued(&pending);
    assert!(said.result == ErasureResult::Partial && said.limitations.contains(&Limitation::KeyShredPending));
}

#[test]
fn evidence_says_present_of_a_stripped_row() {
    let key = Key::make(&SystemRandom).unwrap();
    let mut evidence = Evidence::default();
    for (kind, number) in [(LedgerKind::Erased, 1), (LedgerKind::Stripped, 2)] {
        let (store, collection) = ("shop".to_owned(), "customers".to_owned());
        let block = DoneBlock { chunk: i64::from(number), store, collection, kind };
        evidence.add(&block, &[([number; 16], [number; 32])], Timestamp::from(time(1)), &key).unwrap();
    }
    let (file, digest) = evidence.finish();
    let facts = facts(true, store(BackupMode::Bucket, &[]), vec![chunk("customers", "erase", [1, 1, 0, 0])]);
    let statement = Statement::new(&digest, predicate(&facts).unwrap());
    let totals = verify_evidence(file.as_bytes(), &statement).unwrap();
    assert_eq!((totals.absent["shop/customers"], totals.present["shop/customers"]), (1, 1));
    let lines: Vec<serde_json::Value> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["a"], &lines[1]["a"]), (&serde_json::json!(Action::Delete), &serde_json::json!("anonymize")));
}

/// A shredded run of a service slot, destroyed on 2026-03-15, whose copies live for seven days.
fn service(spec: StoreSpec) -> Facts {
    let mut facts = facts(true, spec, vec![chunk("orders", "erase", [5, 0, 0, 0])]);
    let mut slot = RootSlot::new(SlotClass::B, "transit");
    slot.reopenable_until = day("2026-03-23");
    slot.read_back = Some(crate::certify::statement::SlotReadBack {
        key_version: 1,
        min_available_version: 2,
        exportable: false,
        allow_plaintext_backup: false,
        deletion_allowed: false,
    });
    facts.root_slot = slot;
    facts.body.forgotten = Some(2);
    facts
}

fn left(facts: &Facts, earlier: &[Predicate]) -> Vec<(ResidualCode, Option<NaiveDate>)> {
    residuals(facts, earlier).into_iter().map(|residual| (residual.code, residual.until)).collect()
}

#[test]
fn each_thing_that_is_left_is_named_with_its_date() {
    use ResidualCode as Code;
    let plain = service(store(BackupMode::Bucket, &[]));
    assert_eq!(left(&plain, &[]), [(Code::ServiceCopies, day("2026-03-23"))]);
    let copies = service(store(BackupMode::Bucket, &[("dump", "30 days"), ("tape", "never")]));
    let expected =
        [(Code::ServiceCopies, day("2026-03-23")), (Code::DeclaredCopy, day("2026-04-14")), (Code::UndatedCopy, None)];
    assert_eq!(left(&copies, &[]), expected);
    let mut file = service(store(BackupMode::Bucket, &[]));
    file.root_slot = RootSlot::new(SlotClass::D, "file");
    assert_eq!(left(&file, &[]), [(Code::HostCopies, None)]);
    let mut unproven = service(store(BackupMode::Bucket, &[]));
    unproven.key_evidence = None;
    assert!(left(&unproven, &[]).contains(&(Code::Unproven, None)));
    let mut lists = service(store(BackupMode::Bucket, &[]));
    lists.body.forgotten = None;
    assert!(left(&lists, &[]).contains(&(Code::OwnLists, None)));
    let mut lost = service(store(BackupMode::Bucket, &[]));
    lost.stores.clear();
    assert!(left(&lost, &[]).contains(&(Code::Unregistered, None)));
    // A store's own log has a date only where one is declared for it.
    let mut unclean = service(store(BackupMode::Bucket, &[("log", "30 days")]));
    unclean.body.physical[0] = files(&[ResidueCode::TransactionLog]);
    assert!(left(&unclean, &[]).contains(&(Code::DatabaseLog, None)));
    unclean.stores[0].copies[0].kind = "database-log".to_owned();
    assert_eq!(
        left(&unclean, &[]),
        [(Code::ServiceCopies, day("2026-03-23")), (Code::DeclaredCopy, day("2026-04-14"))]
    );
    // Whatever keeps rows in the files, or hides from the login, may keep them beyond that date.
    for code in ResidueCode::ALL {
        unclean.body.physical[0] = files(&[ResidueCode::TransactionLog, code]);
        assert_eq!(left(&unclean, &[]).contains(&(Code::StoreFiles, None)), code.keeps_rows(), "{code:?}");
    }
    unclean.body.physical.clear();
    assert!(left(&unclean, &[]).contains(&(Code::StoreFiles, None)), "nobody asked");
    // The server's own day for a log counts beside the declared one.
    unclean.body.physical = vec![files(&[ResidueCode::BinaryLog])];
    unclean.body.physical[0].residues[0].until = day("2026-12-24");
    assert!(left(&unclean, &[]).contains(&(Code::DatabaseLog, day("2026-12-24"))));
}

#[test]
fn copies_count_from_the_day_on_which_nothing_kept_the_rows_any_more() {
    use ResidualCode as Code;
    let mut late = service(store(BackupMode::Bucket, &[("volume", "30 days")]));
    late.body.physical[0].passed_at = Some(time(24 * 60));
    late.now = time(24 * 60);
    let volume = (Code::DeclaredCopy, day("2026-06-13"));
    assert!(left(&late, &[]).contains(&volume), "{:?}", left(&late, &[]));
    assert_eq!(issued(&late).targets[0].copies[0].dies_by, volume.1);
    // What passed before the read-back does not make it earlier.
    late.body.physical[0].passed_at = Some(time(-24 * 60));
    assert!(left(&late, &[]).contains(&(Code::DeclaredCopy, day("2026-04-14"))));
    // While something keeps them, nothing is promised that counts from before the last look.
    late.body.physical[0] = StoreFiles { asked_at: time(24 * 60), ..files(&[ResidueCode::OpenReader]) };
    assert!(left(&late, &[]).contains(&volume));
}

#[test]
fn what_was_certified_is_not_forgotten_with_its_declaration() {
    use ResidualCode as Code;
    let copies = [("dump", "30 days"), ("tape", "never")];
    let said = issued(&service(store(BackupMode::Bucket, &copies)));
    let mut later = service(store(BackupMode::Bucket, &[]));
    later.root_slot.reopenable_until = day("2026-03-16");
    let expected =
        [(Code::ServiceCopies, day("2026-03-23")), (Code::DeclaredCopy, day("2026-04-14")), (Code::UndatedCopy, None)];
    assert_eq!(left(&later, &[said]), expected);
}

#[test]
fn a_final_certificate_says_so_and_names_no_date_to_come() {
    let mut ended = service(store(BackupMode::Bucket, &[("dump", "30 days")]));
    let shredded = issued(&ended);
    assert_eq!((shredded.residual_date, shredded.final_since), (day("2026-04-14"), None));
    ended.run.state = "final".to_owned();
    ended.body.final_at = Some(time(24 * 40));
    ended.now = time(24 * 40 + 1);
    let said = issued(&ended);
    assert_eq!((said.result, said.residual_date), (ErasureResult::Complete, None));
    assert_eq!(said.final_since, Some(Timestamp::from(time(24 * 40))));
    assert!(said.limitations.contains(&Limitation::CopyDeclared));
    assert!(said.limitations.contains(&Limitation::RootSlotClassB));
    // Said too early, it cannot be issued at all.
    ended.body.final_at = Some(time(24 * 20));
    let statement = Statement::new(&"00".repeat(32), predicate(&ended).unwrap());
    issue(&statement, &crate::certify::tests::signer()).unwrap_err();
}

#[test]
fn what_the_plan_knows_of_policies_people_and_kinds_is_told() {
    let mut spec = store(BackupMode::Bucket, &[]);
    let of = |table: &str, kind: &str| {
        let text =
            format!("table = \"{table}\"\nfields.a = {{ kind = \"{kind}\" }}\nfields.b = {{ kind = \"email\" }}");
        toml::from_str(&text).unwrap()
    };
    spec.collections = vec![of("customers", "id_card"), of("orders", "address"), of("notes", "mobile")];
    let mut facts = facts(true, spec, vec![chunk("customers", "erase", [3, 0, 0, 0])]);
    assert_eq!(predicate(&facts).unwrap().policy, None, "no policy made anything due");
    let counts = &mut facts.plan.collections[0];
    (counts.policy, counts.erase) = (Some("closed".to_owned()), 3);
    facts.plan.subjects = 2;
    facts.plan.policy_digest = "ab".repeat(32);
    let retention = Period { months: 14, days: 3 };
    let rule = |policy: &str| PolicyRule { policy: policy.to_owned(), retention, statutes: Vec::new() };
    facts.plan.rules = vec![rule("closed"), rule("left")];
    let said = predicate(&facts).unwrap();
    let policy = said.policy.unwrap();
    assert_eq!((policy.id.as_str(), policy.version.as_str()), ("closed", "none"));
    assert_eq!((policy.retention_period.as_deref(), policy.digest.sha256), (Some("P1Y2M3D"), "ab".repeat(32)));
    assert_eq!((said.scope.subjects_count, said.scope.data_categories), (2, vec!["email".into(), "id_card".into()]));
    assert_eq!(said.issuer.environment, "test");
    // Of several policies neither has the period of all.
    facts.plan.collections.push(CollectionCounts {
        store: "shop".to_owned(),
        collection: "orders".to_owned(),
        policy: Some("left".to_owned()),
        due: 1,
        keep: vec![("restricted:cn.ecl.31:cn.pipl.47".to_owned(), 1)],
        ..CollectionCounts::default()
    });
    facts.chunks.push(chunk("orders", "keep", [0, 0, 1, 0]));
    let said = predicate(&facts).unwrap();
    let policy = said.policy.unwrap();
    assert_eq!((policy.id.as_str(), policy.retention_period), ("closed+left", None));
    let kept: Vec<_> = said.retained.iter().map(|kept| (kept.provision.as_deref(), kept.restricted)).collect();
    assert_eq!(kept, [(Some("cn.ecl.31"), false)]);
    assert_eq!(said.scope.data_categories, ["email", "id_card"], "nothing was taken from the other");
    facts.run.request = Some(3);
    let said = predicate(&facts).unwrap();
    assert_eq!((said.policy, said.scope.subjects_count), (None, 1));
    for (period, text) in [((36, 0), "P3Y"), ((0, 180), "P180D"), ((5, 0), "P5M"), ((0, 0), "P0D")] {
        assert_eq!(super::predicate::basis::iso(Period { months: period.0, days: period.1 }), text);
    }
}
