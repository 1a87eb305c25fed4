use chrono::{DateTime, Utc};
use serde_json::json;

use super::*;
use crate::tasks::trust::GivenReceipt;
use crate::tasks::trust::read_parts;

fn row(id: &str, sequence: i64) -> CertificateRow {
    CertificateRow {
        id: id.to_owned(),
        sequence,
        run: "run".to_owned(),
        result: "complete".to_owned(),
        digest: String::new(),
        envelope: Vec::new(),
        evidence: Vec::new(),
        issued_at: DateTime::<Utc>::UNIX_EPOCH,
        supersedes: None,
    }
}

#[test]
fn a_certificate_is_found_by_number_id_or_beginning() {
    let rows = [row("0199aa", 1), row("0199bb", 2), row("7", 3)];
    for (id, sequence) in [("1", 1), ("0199b", 2), ("0199aa", 1), ("latest", 3), ("7", 3)] {
        assert_eq!(find(&rows, id).unwrap().sequence, sequence, "{id}");
    }
    for missing in ["0199", "x", "", "99"] {
        assert_eq!(find(&rows, missing).unwrap_err().code, "CERTIFICATE_UNKNOWN", "{missing}");
    }
    assert_eq!(find(&[], "latest").unwrap_err().exit, Exit::Usage);
}

#[test]
fn bundles_and_envelopes_are_taken_apart() {
    let envelope = json!({"payloadType": "t", "payload": "", "signatures": []});
    let bare = envelope.to_string().into_bytes();
    assert_eq!(read_parts(&bare).unwrap().receipt, GivenReceipt::NotInThisForm);
    let bundle = |entries: serde_json::Value| {
        let material = json!({"tlogEntries": entries});
        let media = crate::audit::receipt::BUNDLE_MEDIA_TYPE;
        json!({"mediaType": media, "verificationMaterial": material, "dsseEnvelope": envelope}).to_string().into_bytes()
    };
    let filed = read_parts(&bundle(json!([{"logIndex": "7"}]))).unwrap();
    assert_eq!((filed.envelope, filed.receipt), (bare, GivenReceipt::Entry(br#"{"logIndex":"7"}"#.to_vec())));
    assert!(filed.stamps.is_empty());
    // A bundle without a receipt is told from a bare envelope: it fails, instead of passing with less.
    assert_eq!(read_parts(&bundle(json!([]))).unwrap().receipt, GivenReceipt::Missing);
    for bad in [&b"no"[..], b"{}", b"[1]", br#"{"mediaType":"other"}"#] {
        assert!(read_parts(bad).is_err());
    }
}

#[test]
fn a_filing_is_never_called_better_than_it_is() {
    let filing = |state: &str| OutboxRow {
        certificate: "c".to_owned(),
        state: state.to_owned(),
        attempts: 1,
        next_at: DateTime::<Utc>::UNIX_EPOCH,
        problem: Some("no answer".to_owned()),
        receipt: None,
        grade: Some("B".to_owned()),
        receipted_at: None,
        alarm: false,
    };
    let words = |row: Option<&OutboxRow>| Filing::of(row).words().en;
    assert_eq!(words(Some(&filing("receipted"))), "filed, receipt of grade B");
    assert_eq!(words(Some(&filing("acknowledged"))), "taken without a receipt, grade B");
    assert_eq!(words(Some(&filing("quarantined"))), "refused by the audit service: no answer");
    assert_eq!(words(Some(&filing("pending"))), "waits to be filed: no answer");
    assert_eq!(words(None), "waits to be filed");
}
