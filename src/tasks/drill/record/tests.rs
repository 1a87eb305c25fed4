use chrono::TimeDelta;

use super::*;
use crate::certify::signer::CertificateSigner;

/// A chain of drills, signed by a key of its own.
struct Chain {
    signer: CertificateSigner,
    _folder: tempfile::TempDir,
}

impl Chain {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signer = CertificateSigner::create(&folder.path().join("key.pem")).unwrap();
        Self { signer, _folder: folder }
    }

    fn trusted(&self) -> TrustedKeys {
        TrustedKeys::from_iter([self.signer.public().clone()])
    }

    /// One more record behind these.
    fn next(&self, before: &[DrillRow]) -> DrillRow {
        let number = before.len() as u64 + 1;
        let record = DrillRecord {
            number,
            previous: before.last().map(|row| Sha256::of(&row.record).to_string()),
            ..record(&format!("d{number}"))
        };
        self.sign(&record)
    }

    fn sign(&self, record: &DrillRecord) -> DrillRow {
        let payload = serde_json::to_vec(record).unwrap();
        let signature = self.signer.sign(&pae(RECORD_TYPE, &payload)).unwrap();
        let envelope = Envelope::make(RECORD_TYPE, payload, signature, self.signer.public().key_id());
        DrillRow {
            id: record.drill.clone(),
            number: record.number as i64,
            store: record.store.clone(),
            snapshot: record.snapshot.clone(),
            passed: record.result == "passed",
            returned: record.returned() as i64,
            at: record.begun_at,
            record: envelope.as_bytes().to_vec(),
        }
    }

    fn of(&self, count: usize) -> Vec<DrillRow> {
        let mut rows = Vec::new();
        for _ in 0..count {
            rows.push(self.next(&rows));
        }
        rows
    }
}

fn record(id: &str) -> DrillRecord {
    DrillRecord {
        format_version: 1,
        drill: id.to_owned(),
        number: 1,
        previous: None,
        picked: Picked::Random,
        drawn: Some(Drawn { seed: "0000000000000001".to_owned(), among: 3 }),
        result: "passed".to_owned(),
        store: "shop".to_owned(),
        snapshot: "snap".to_owned(),
        manifest_sha256: String::new(),
        begun_at: DateTime::<Utc>::UNIX_EPOCH + TimeDelta::nanoseconds(1_234_567_891),
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

fn found(rows: &[DrillRow], trusted: &TrustedKeys, logged: &[String]) -> Vec<(Option<String>, Option<u64>)> {
    check_chain(rows, trusted, logged).into_iter().map(|problem| (problem.drill, problem.number)).collect()
}

#[test]
fn a_whole_chain_is_good_and_every_record_taken_away_is_named() {
    let chain = Chain::new();
    let (rows, trusted) = (chain.of(5), chain.trusted());
    let logged: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    assert_eq!(found(&rows, &trusted, &logged), []);
    assert_eq!(found(&[], &trusted, &[]), []);
    for gone in 0..rows.len() {
        let mut left = rows.clone();
        let taken = left.remove(gone);
        let mut expected = vec![(Some(taken.id), None)];
        if gone + 1 < rows.len() {
            expected.insert(0, (None, Some(gone as u64 + 1)));
        }
        assert_eq!(found(&left, &trusted, &logged), expected, "record {gone} taken away");
    }
    // Without the operation log, the newest one alone can go unseen.
    assert_eq!(found(&rows[..4], &trusted, &[]), []);
}

#[test]
fn every_record_that_was_changed_or_replaced_is_named_and_no_other() {
    let chain = Chain::new();
    let (rows, trusted) = (chain.of(4), chain.trusted());
    for at in 0..rows.len() {
        let named = |row: &DrillRow| vec![(Some(row.id.clone()), Some(at as u64 + 1))];
        for byte in (0..rows[at].record.len()).step_by(7) {
            let mut changed = rows.clone();
            changed[at].record[byte] ^= 1;
            assert_eq!(found(&changed, &trusted, &[]), named(&rows[at]), "byte {byte} of record {at}");
        }
        let mut changed = rows.clone();
        changed[at].passed = false;
        assert_eq!(found(&changed, &trusted, &[]), named(&rows[at]), "the verdict of record {at}");
        // Signed anew by whoever holds the key: what comes behind it does not continue it.
        let mut replaced = rows.clone();
        let mut other = check_record(&rows[at], &trusted).unwrap();
        other.rto_seconds = 0.1;
        replaced[at] = chain.sign(&other);
        let expected = rows.get(at + 1).map(|row| (Some(row.id.clone()), Some(at as u64 + 2)));
        assert_eq!(found(&replaced, &trusted, &[]), Vec::from_iter(expected), "record {at} replaced");
    }
    // Two changed places, numbers included.
    let mut swapped = rows;
    swapped.swap(1, 2);
    (swapped[1].number, swapped[2].number) = (2, 3);
    assert_eq!(found(&swapped, &trusted, &[]).len(), 2);
}

#[test]
fn a_record_of_another_form_is_refused() {
    let chain = Chain::new();
    let row = chain.sign(&record("d1"));
    let payload: serde_json::Value = serde_json::from_slice(Envelope::parse(&row.record).unwrap().payload()).unwrap();
    let refused = |name: &str, value: u64| {
        let mut payload = payload.clone();
        payload[name] = value.into();
        let payload = serde_json::to_vec(&payload).unwrap();
        let signature = chain.signer.sign(&pae(RECORD_TYPE, &payload)).unwrap();
        let envelope = Envelope::make(RECORD_TYPE, payload, signature, chain.signer.public().key_id());
        let row = DrillRow { record: envelope.as_bytes().to_vec(), ..row.clone() };
        check_record(&row, &chain.trusted()).unwrap_err()
    };
    assert_eq!(refused("rumour", 1), "the signed record cannot be read");
    for version in [0, 2] {
        assert!(refused("format_version", version).contains("unknown format version"));
    }
}
