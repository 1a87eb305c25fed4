use chrono::{DateTime, Utc};

use super::*;
use crate::certify::dsse::{Envelope, pae};
use crate::certify::signer::{CertificateSigner, TrustedKeys};
use crate::cli::output::Lang;
use crate::cli::output::shapes::{DrillOutcome, Verification};
use crate::tasks::drill::RECORD_TYPE;

fn record(id: &str, result: &str) -> DrillRecord {
    DrillRecord {
        format_version: 1,
        drill: id.to_owned(),
        number: 1,
        previous: None,
        picked: Picked::Latest,
        drawn: None,
        result: result.to_owned(),
        store: "shop".to_owned(),
        snapshot: "snap".to_owned(),
        manifest_sha256: String::new(),
        begun_at: DateTime::<Utc>::UNIX_EPOCH,
        rto_seconds: 1.5,
        rpo_seconds: 60,
        chain_length: 1,
        superseded: 0,
        frames: [3, 1, 0, 0, 4],
        collections: vec![("orders".to_owned(), 10, 2, 1, 0)],
        erased_reappeared: 0,
        tried: [1, 7],
        resurrected: 0,
        problems: Vec::new(),
        cleaned_up: true,
        scratch: String::new(),
        operator: "operator".to_owned(),
    }
}

fn signed(record: &DrillRecord, signer: &CertificateSigner) -> DrillRow {
    let payload = serde_json::to_vec(record).unwrap();
    let signature = signer.sign(&pae(RECORD_TYPE, &payload)).unwrap();
    DrillRow {
        id: record.drill.clone(),
        number: record.number as i64,
        returned: record.returned() as i64,
        store: record.store.clone(),
        snapshot: record.snapshot.clone(),
        passed: record.result == "passed",
        at: record.begun_at,
        record: Envelope::make(RECORD_TYPE, payload, signature, signer.public().key_id()).as_bytes().to_vec(),
    }
}

fn signer(folder: &tempfile::TempDir, name: &str) -> (CertificateSigner, TrustedKeys) {
    let signer = CertificateSigner::create(&folder.path().join(name)).unwrap();
    let trusted = TrustedKeys::from_iter([signer.public().clone()]);
    (signer, trusted)
}

#[test]
fn a_record_counts_only_under_a_trusted_signature_over_what_the_database_says() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, trusted) = signer(&folder, "ours.pem");
    let (theirs, _) = signer(&folder, "theirs.pem");
    let good = signed(&record("d1", "passed"), &ours);
    assert_eq!(CheckedDrill::of(&good, &trusted).result, DrillOutcome::Passed);

    let embellished = DrillRow { passed: true, ..signed(&record("d1", "failed"), &ours) };
    let foreign = signed(&record("d1", "passed"), &theirs);
    let moved = DrillRow { id: "d2".to_owned(), ..good.clone() };
    let broken = DrillRow { record: b"{}".to_vec(), ..good.clone() };
    let text = String::from_utf8(good.record.clone()).unwrap();
    let unfit = Envelope::make(RECORD_TYPE, b"{}".to_vec(), b"no".to_vec(), ours.public().key_id());
    let unsigned = DrillRow { record: unfit.as_bytes().to_vec(), ..good };
    assert!(text.contains(ours.public().key_id()));
    let hidden = DrillRow { returned: 0, ..signed(&DrillRecord { resurrected: 1, ..record("d1", "failed") }, &ours) };
    let elsewhere = DrillRow { store: "crm".to_owned(), ..signed(&record("d1", "passed"), &ours) };
    for row in [embellished, foreign, moved, broken, unsigned, hidden, elsewhere] {
        let checked = CheckedDrill::of(&row, &trusted);
        assert_eq!((checked.result, checked.signature), (DrillOutcome::Failed, Verification::Invalid));
        assert!(checked.problem.is_some() && checked.record.is_none());
    }
}

#[test]
fn one_failed_drill_fails_the_call() {
    let (good, bad) = (record("d1", "passed"), record("d2", "failed"));
    let both = [bad, good.clone()];
    let document = RunDocument::of(&both, &[]);
    assert_eq!((document.result, document.drill), (DrillOutcome::Failed, Some("d2")));
    let one = [good];
    assert_eq!((RunDocument::of(&one, &[]).result, RunDocument::of(&one, &[]).rpo_seconds), (DrillOutcome::Passed, 60));
    let named = serde_json::to_value(RunDocument::of(&one, &[])).unwrap();
    let counts = &named["drills"][0]["collections"][0];
    let numbers = ["restored", "shredded", "erased_since", "stubs"].map(|name| counts[name].as_u64());
    assert_eq!(numbers, [Some(10), Some(2), Some(1), Some(0)]);
    assert_eq!(named["drills"][0]["frames"]["total"], 4);
    assert_eq!(RunDocument::of(&[], &[]).result, DrillOutcome::NothingFound);
    let not_drilled = [FailedStore { store: "crm".to_owned(), what: "no".to_owned(), retry: false }];
    assert_eq!(RunDocument::of(&one, &not_drilled).result, DrillOutcome::Failed);
    assert_eq!(RunDocument::of(&[], &not_drilled).result, DrillOutcome::Failed);
}

#[test]
fn drills_are_found_by_the_beginning_of_their_id_or_as_the_latest() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, _) = signer(&folder, "ours.pem");
    let rows = ["d1a", "d1b", "e2"].map(|id| signed(&record(id, "passed"), &ours));
    assert_eq!(find(&rows, "latest").unwrap().id, "e2");
    assert_eq!(find(&rows, "d1b").unwrap().id, "d1b");
    for missing in ["d1", "x", ""] {
        assert_eq!(find(&rows, missing).unwrap_err().code, "DRILL_UNKNOWN");
    }
    assert_eq!(find(&[], "latest").unwrap_err().code, "DRILL_UNKNOWN");
}

#[test]
fn the_page_says_what_was_signed_in_both_languages_and_needs_nothing_else() {
    let (_folder, config) = crate::cli::context::testing::config();
    let record = DrillRecord {
        operator: "<b>clerk</b>".to_owned(),
        drawn: Some(Drawn { seed: "00000000000000ff".to_owned(), among: 7 }),
        picked: Picked::Random,
        previous: Some("ab".repeat(32)),
        problems: vec!["3 rows that were erased since are in the restored database".to_owned()],
        ..record("d1", "failed")
    };
    for (lang, words) in [(Lang::En, "Restore drill no. 1"), (Lang::Zh, "恢复演练 编号 1")] {
        let page = Page { record: &record, digest: "cd".repeat(32), config: &config, lang }.render();
        for said in
            [words, "00000000000000ff", &"ab".repeat(32), &"cd".repeat(32), "3 rows that were erased", "@media print"]
        {
            assert!(page.contains(said), "{said}: {page}");
        }
        assert!(page.contains("&lt;b&gt;clerk") && !page.contains("<b>clerk"), "text stays text");
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "the page asks for another file: {outside}");
        }
    }
}
