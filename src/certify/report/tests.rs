use serde_json::json;

use super::*;
use crate::certify::signer::SignedError;
use crate::certify::statement::{Supersedes, SupersedesReason};
use crate::certify::tests::{sample, sample_with_id, signer};

fn at(seconds: i64) -> DateTime<Utc> {
    sample().predicate.issued_at.instant() + TimeDelta::seconds(seconds)
}

fn record(operation: &str, object: &str, status: u32, references: &Value) -> String {
    let changes = json!([{"field": "shop.orders", "operation": "D", "rows": 3}]);
    let changes = if operation == "run.end" { changes } else { json!([]) };
    json!({"time": 0, "status_id": status, "status_detail": "HELD", "api": {"operation": operation},
        "resources": [{"type": "run", "uid": object}],
        "unmapped": {"customer": null, "changes": changes, "references": references}})
    .to_string()
}

fn certificate(statement: Statement) -> VerifiedCertificate {
    VerifiedCertificate { said: Said::Erasure(Box::new(statement)), digest: [0; 32], key_id: String::new() }
}

/// The totals of these records and certificates over forty days around the sample's time.
fn counted(records: &[(DateTime<Utc>, Option<String>)], certificates: &[VerifiedCertificate]) -> Totals {
    let records = records.iter().map(|(at, text)| (*at, text.as_deref()));
    totals(records, &certificates.iter().collect::<Vec<_>>(), (at(-86_400), at(40 * 86_400)))
}

#[test]
fn what_the_log_tells_is_counted_once_and_only_in_the_period() {
    let run = json!({"due": "7", "erased": "3", "anonymised": "1", "kept": "2"});
    let none = json!({});
    let record =
        |operation: &str, status: u32, references: &Value| Some(self::record(operation, "o", status, references));
    let found = counted(
        &[
            (at(0), record("run.end", 1, &run)),
            (at(0), Some(self::record("run.end", "p", 2, &json!({"due": "1"})))),
            // Killed behind its entry, it wrote it again.
            (at(1), record("run.end", 1, &run)),
            (at(-90_000), record("run.end", 1, &run)),
            (at(41 * 86_400), record("run.end", 1, &run)),
            (at(1), record("backup.run", 1, &none)),
            (at(1), record("backup.run", 2, &none)),
            (at(1), record("key.shred", 99, &none)),
            (at(1), record("key.shred", 1, &none)),
            (at(1), record("drill.run", 2, &json!({"erased_reappeared": "2", "resurrected": "1"}))),
            (at(1), record("command.refused", 2, &none)),
            (at(1), record("hold.place", 1, &none)),
            (at(1), record("hold.release", 2, &none)),
            (at(1), None),
        ],
        &[],
    );
    let erasures = &found.erasures;
    assert_eq!((erasures.ended, erasures.went_wrong, erasures.due), (2, 1, 8));
    assert_eq!((erasures.erased, erasures.anonymised, erasures.kept, erasures.failed), (3, 1, 2, 2));
    assert_eq!(found.tables, [TableSums { table: "shop.orders".to_owned(), deleted: 6, modified: 0 }]);
    assert_eq!((found.backups.done, found.backups.went_wrong), (1, 1));
    assert_eq!((found.shreds.done, found.shreds.went_wrong), (1, 0), "an intent is neither");
    assert_eq!((found.drills.done, found.drills.went_wrong, found.reappeared), (0, 1, 3));
    assert_eq!(found.refusals, BTreeMap::from([("HELD".to_owned(), 1)]));
    assert_eq!((found.holds_placed, found.holds_released, found.expired_entries), (1, 0, 1));
}

#[test]
fn a_request_is_answered_by_its_first_certificate_or_is_open() {
    let received = |object: &str, when: i64| (at(when), Some(record("request.new", object, 1, &json!({}))));
    let mut late = sample();
    late.predicate.trigger.request_ref = Some("request-1".to_owned());
    late.predicate.trigger.due_at = Some(at(-500).into());
    let mut withdrawn = received("request-4", 5);
    withdrawn.1 = Some(record("request.cancel", "request-4", 1, &json!({"reason": "withdrawn"})));
    let mut turned_down = received("request-5", 6);
    turned_down.1 = Some(record("request.cancel", "request-5", 1, &json!({"reason": "unfounded"})));
    let log = [
        received("request-1", 0),
        received("request-2", 0),
        received("request-3", 20 * 86_400),
        received("request-4", 0),
        withdrawn,
        turned_down,
    ];
    // A store was away, and nothing could be erased: these two are still open.
    let mut away = sample_with_id("0190a1b2-c3d4-7abc-8def-0123456789ac");
    away.predicate.trigger.request_ref = Some("request-2".to_owned());
    away.predicate.limitations.push(Limitation::TargetsUnreached);
    let mut failed = sample_with_id("0190a1b2-c3d4-7abc-8def-0123456789ad");
    failed.predicate.trigger.request_ref = Some("request-3".to_owned());
    failed.predicate.result = ErasureResult::Failed;
    let found = counted(&log, &[certificate(late), certificate(away), certificate(failed)]).requests;
    assert_eq!((found.received, found.answered, found.answered_late, found.withdrawn), (4, 1, 1, 1));
    assert_eq!(found.turned_down, 1);
    assert_eq!((found.unanswered, found.overdue), (2, 1), "of request-3 the days are not over");
}

#[test]
fn an_erasure_counts_once_as_its_last_certificate_has_it() {
    let first = sample();
    let mut second = sample_with_id("0190a1b2-c3d4-7abc-8def-0123456789ac");
    let replaced = first.predicate.certificate_id.clone();
    second.predicate.supersedes = Some(Supersedes { certificate_id: replaced, reason: SupersedesReason::Completion });
    second.predicate.targets[0].records_failed = 5;
    let mut elsewhere = sample_with_id("0190a1b2-c3d4-7abc-8def-0123456789ad");
    elsewhere.predicate.supersedes =
        Some(Supersedes { certificate_id: "of an earlier month".to_owned(), reason: SupersedesReason::Completion });
    let found = counted(&[], &[first.clone(), second, elsewhere].map(certificate));
    let [row] = &found.rows[..] else { panic!("{:?}", found.rows) };
    let target = &first.predicate.targets[0];
    assert_eq!((row.policy.as_str(), &row.place), ("customers-closed", &target.location));
    assert_eq!((row.due, row.erased, row.failed), (target.records_selected, target.records_erased, 5));
    assert_eq!((found.superseding, found.keys_destroyed), (2, 1));
    assert_eq!(found.certificates_by_result, BTreeMap::from([("complete".to_owned(), 3)]));
}

#[test]
fn what_differs_is_named() {
    let found = counted(&[], &[certificate(sample())]);
    assert_eq!(differences(&found, &found), Vec::<String>::new());
    let mut said = found.clone();
    said.rows[0].erased += 1;
    said.roll_ups = 4;
    said.refusals.insert("HELD".to_owned(), 2);
    let place = &found.rows[0].place;
    let erased = found.rows[0].erased;
    assert_eq!(
        differences(&said, &found),
        [
            "refusals.HELD: the report says 2, the log and the certificates null".to_owned(),
            "roll_ups: the report says 4, the log and the certificates 0".to_owned(),
            format!(
                "rows.customers-closed {place}.erased: the report says {}, the log and the certificates {erased}",
                erased + 1
            ),
        ]
    );
    said.rows.clear();
    assert!(differences(&said, &found).iter().any(|difference| difference.contains("customers-closed")));
}

#[test]
fn a_report_is_read_only_as_it_was_signed() {
    let signer = signer();
    let day = NaiveDate::from_ymd_opt(2026, 3, 1).unwrap();
    let time = Timestamp::from(at(0));
    let report = Report {
        format_version: FORMAT_VERSION,
        agent_id: "a".to_owned(),
        from: day,
        to: day,
        timezone: "UTC".to_owned(),
        since: time,
        until: time,
        made_at: time,
        totals: counted(&[], &[certificate(sample())]),
    };
    let (payload, message) = report.to_sign().unwrap();
    let key = signer.public().key_id();
    let signature = signer.sign(&message).unwrap();
    let file = signed_report(payload.clone(), signature.clone(), key);
    let trusted: TrustedKeys = [signer.public().clone()].into_iter().collect();
    assert_eq!(read_report(&file, &trusted).unwrap(), (report, key.to_owned()));
    let text = String::from_utf8(payload).unwrap().replacen("\"erased\":", "\"erased\":9", 1);
    let forged = signed_report(text.into_bytes(), signature, key);
    assert!(matches!(read_report(&forged, &trusted), Err(ReportError::Signed(SignedError::WrongSignature))));
    let stranger = super::super::signer::CertificateSigner::in_memory().unwrap();
    let other = [stranger.public().clone()].into_iter().collect();
    assert!(matches!(read_report(&file, &other), Err(ReportError::Signed(SignedError::UnknownKey))));
}
