//! Tests of certificates: round trip, tampering, rules, the scan for personal data.

#[cfg(test)]
mod finality;
#[cfg(test)]
mod medium;
#[cfg(test)]
mod outside;
#[cfg(test)]
mod refusal;
#[cfg(test)]
mod roll_up;
#[cfg(test)]
mod slots;

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, Utc};
use proptest::prelude::*;

use super::check::{as_id, check, is_id, location};
use super::dsse::{Envelope, pae};
use super::lint::{check_payload, personal_shape};
use super::signer::{CertificateSigner, PublicKey, TrustedKeys};
use super::statement::*;
use super::{IssueError, VerifyError, issue, verify};

pub(crate) fn time(seconds: i64) -> Timestamp {
    DateTime::<Utc>::from_timestamp(1_772_700_000 + seconds, 123_456_789).unwrap().into()
}

fn date(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

/// A key file in a folder that is gone when the signer is made: the key stays in memory.
pub(crate) fn signer() -> CertificateSigner {
    let folder = tempfile::tempdir().unwrap();
    CertificateSigner::create(&folder.path().join("certificate.pem")).unwrap()
}

pub(crate) fn trusted(signer: &CertificateSigner) -> TrustedKeys {
    [signer.public().clone()].into_iter().collect()
}

fn target() -> Target {
    Target {
        target_id: "crm.customers".into(),
        system: System::Postgresql,
        location: location("crm", "客户 customers"),
        data_category: "basic".into(),
        action: Action::CryptoShred,
        sanitization: Sanitization::Clear,
        technique: "sql-delete+key-tree-generation".into(),
        tool: "wangchuan/0.1.0".into(),
        records_selected: 12,
        records_erased: 10,
        records_anonymized: 0,
        records_retained: 2,
        records_failed: 0,
        objects_erased: 0,
        bytes_erased: 0,
        duration_ms: 138_123,
        keys: vec![KeyEvidence {
            key_id_sha256: "11".repeat(32),
            kms: "file".into(),
            algorithm: "AES-256-GCM".into(),
            destroyed_at: Some(time(60)),
            copies_known: 0,
            escrow: false,
        }],
        anonymization: None,
        verification: Verification {
            method: VerificationMethod::Requery,
            sample_percent: 100.0,
            checked_at: Some(time(90)),
            residual_found: 0,
            independent: true,
            evidence_sha256: Some("22".repeat(32)),
        },
        backups: Backups { state: BackupState::Erased, expires_by: None },
        copies: vec![DeclaredCopy {
            copy_ref: "crm.dba-dump".into(),
            state: CopyState::Expires,
            dies_by: Some(date("2026-04-05")),
            destroyed_at: None,
            media_record: None,
        }],
        media: None,
    }
}

/// A complete erasure with retained rows, a declared copy and a file slot, so with three limitations.
pub(crate) fn sample_with_id(certificate_id: &str) -> Statement {
    let predicate = Predicate {
        certificate_id: certificate_id.into(),
        sequence: 2,
        previous_certificate: Some(Digest { sha256: "33".repeat(32) }),
        issuer: Issuer {
            controller: "91110108MA01ABCD2U".into(),
            agent_id: "agent-1".into(),
            agent_version: "0.1.0".into(),
            environment: "test".into(),
        },
        started_at: time(0),
        finished_at: time(100),
        issued_at: time(101),
        absence_checked_at: Some(time(90)),
        absence_valid_until: Some(time(90 + 30 * 86_400)),
        clock: ClockQuality { source: "ntp".into(), max_error_ms: 50 },
        result: ErasureResult::Complete,
        trigger: Trigger {
            kind: TriggerKind::SubjectRequest,
            request_ref: Some("0190a1b2-0000-7000-8000-0123456789ab".into()),
            received_at: Some(time(-1000)),
            due_at: Some(time(1_000_000)),
        },
        policy: Some(PolicyRef {
            id: "customers-closed".into(),
            version: "3".into(),
            digest: Digest { sha256: "44".repeat(32) },
            retention_period: Some("P3Y".into()),
            retention_anchor: Some("closed_at".into()),
        }),
        legal_basis: vec![LegalBasis { regime: "CN-PIPL".into(), provision: "47(1)(1)".into() }],
        approvals: vec![Approval { role: "manager".into(), actor_ref: "staff-a7".into(), approved_at: time(-5) }],
        scope: Scope {
            targets_declared: 1,
            targets_reached: 1,
            subjects_count: 1,
            subject_refs: vec![format!("hmac-sha256:k7:{}", "55".repeat(32))],
            data_categories: vec!["contact".into()],
        },
        targets: vec![target()],
        retained: vec![Retained {
            target_id: "crm.customers".into(),
            records: 2,
            reason_code: RetainedReason::StatutoryPeriod,
            regime: Some("CN-ECL".into()),
            provision: Some("31".into()),
            until: Some(date("2029-03-05")),
            restricted: true,
        }],
        recipients: vec![],
        root_slot: Some(RootSlot::new(SlotClass::D, "file")),
        outside_key: None,
        medium: None,
        backup_copies: Vec::new(),
        lost_medium: None,
        refusal: None,
        residual_date: Some(date("2026-04-05")),
        final_since: None,
        limitations: vec![Limitation::RootSlotClassD, Limitation::CopyDeclared, Limitation::RowsRetained],
        supersedes: None,
        privacy: Privacy {
            ref_key_id: "k7".into(),
            ref_key_destroy_at: Some(date("2029-03-05")),
            scan: PrivacyScan { rules: "v1".into(), hits: 0 },
        },
    };
    Statement::new(&"66".repeat(32), predicate)
}

pub(crate) fn sample() -> Statement {
    sample_with_id("0190a1b2-c3d4-7abc-8def-0123456789ab")
}

#[test]
fn issued_certificates_verify_and_keep_their_bytes() {
    let signer = signer();
    let envelope = issue(&sample(), &signer).unwrap();
    let verified = verify(envelope.as_bytes(), &trusted(&signer)).unwrap();
    assert_eq!(verified.clone().into_erasure(), Some(sample()));
    assert_eq!(verified.digest, envelope.digest());
    assert_eq!(verified.key_id, hex::encode(crate::log::tree::sha256(signer.public().spki())));
    // Other white space, other member order: other bytes, the same signed content; parsing never rewrites.
    let loose = format!(" {}", String::from_utf8(envelope.as_bytes().to_vec()).unwrap()).into_bytes();
    assert_eq!(Envelope::parse(&loose).unwrap().as_bytes(), loose);
    assert_eq!(verify(&loose, &trusted(&signer)).unwrap().digest, verified.digest);
}

#[test]
fn pae_is_that_of_the_specification() {
    let text = pae("http://example.com/HelloWorld", b"hello world");
    assert_eq!(text, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}

#[test]
fn every_changed_byte_of_payload_or_signature_is_refused() {
    let signer = signer();
    let trusted = trusted(&signer);
    let envelope = issue(&sample(), &signer).unwrap();
    let json: serde_json::Value = serde_json::from_slice(envelope.as_bytes()).unwrap();
    for at in (0..envelope.payload().len()).step_by(97) {
        let mut payload = envelope.payload().to_vec();
        payload[at] ^= 1;
        let mut forged = json.clone();
        forged["payload"] = STANDARD.encode(payload).into();
        assert!(matches!(verify(forged.to_string().as_bytes(), &trusted), Err(VerifyError::WrongSignature)));
    }
    for at in 0..envelope.signature().len() {
        let mut signature = envelope.signature().to_vec();
        signature[at] ^= 1;
        let mut forged = json.clone();
        forged["signatures"][0]["sig"] = STANDARD.encode(signature).into();
        assert!(matches!(verify(forged.to_string().as_bytes(), &trusted), Err(VerifyError::WrongSignature)));
    }
    let mut other = json.clone();
    other["payloadType"] = "text/plain".into();
    assert!(matches!(verify(other.to_string().as_bytes(), &trusted), Err(VerifyError::PayloadType)));
    let mut two = json.clone();
    two["signatures"] = serde_json::json!([json["signatures"][0], json["signatures"][0]]);
    assert!(matches!(verify(two.to_string().as_bytes(), &trusted), Err(VerifyError::Envelope(_))));
    let mut none = json.clone();
    none["signatures"] = serde_json::json!([]);
    assert!(matches!(verify(none.to_string().as_bytes(), &trusted), Err(VerifyError::Envelope(_))));
    // Another key of the same name space, and a key that merely borrows a trusted id.
    let stranger = self::signer();
    let foreign = issue(&sample(), &stranger).unwrap();
    assert!(matches!(verify(foreign.as_bytes(), &trusted), Err(VerifyError::UnknownKey)));
    let mut borrowed: serde_json::Value = serde_json::from_slice(foreign.as_bytes()).unwrap();
    borrowed["signatures"][0]["keyid"] = signer.public().key_id().into();
    assert!(matches!(verify(borrowed.to_string().as_bytes(), &trusted), Err(VerifyError::WrongSignature)));
}

#[test]
fn readers_ignore_unknown_members_and_refuse_unknown_codes() {
    let signer = signer();
    let sign = |value: &serde_json::Value| {
        let payload = value.to_string().into_bytes();
        let signature = signer.sign(&pae(super::dsse::PAYLOAD_TYPE, &payload)).unwrap();
        Envelope::make(super::dsse::PAYLOAD_TYPE, payload, signature, signer.public().key_id())
    };
    let mut newer = serde_json::to_value(sample()).unwrap();
    newer["predicate"]["later"] = 1.into();
    assert_eq!(verify(sign(&newer).as_bytes(), &trusted(&signer)).unwrap().into_erasure(), Some(sample()));
    newer["predicate"]["result"] = "splendid".into();
    let refused = verify(sign(&newer).as_bytes(), &trusted(&signer));
    assert!(matches!(refused, Err(VerifyError::Statement(_))));
}

#[test]
fn key_files_and_pem() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    let created = CertificateSigner::create(&path).unwrap();
    let opened = CertificateSigner::open(&path).unwrap();
    assert_eq!(created.public(), opened.public());
    assert!(CertificateSigner::create(&path).is_err());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(CertificateSigner::open(&path).is_err());
    let pem = created.public().to_pem();
    assert_eq!(PublicKey::from_pem(&pem).unwrap(), *created.public());
    assert!(PublicKey::from_pem(&pem.replace("PUBLIC", "PRIVATE")).is_err());
    let mut off_curve = created.public().spki().to_vec();
    off_curve[90] ^= 1;
    assert!(PublicKey::from_spki(&off_curve).is_err());
}

pub(super) fn refused(change: impl FnOnce(&mut Predicate)) -> String {
    let mut statement = sample();
    change(&mut statement.predicate);
    match issue(&statement, &signer()) {
        Err(IssueError::Check(error)) => error.to_string(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

pub(super) fn accepted(change: impl FnOnce(&mut Predicate)) {
    let mut statement = sample();
    change(&mut statement.predicate);
    issue(&statement, &signer()).unwrap();
}

#[test]
fn counts_must_reconcile() {
    assert!(refused(|p| p.targets[0].records_erased = 11).contains("recordsSelected"));
    assert!(refused(|p| p.targets[0].records_selected = 11).contains("recordsSelected"));
    assert!(refused(|p| p.retained[0].records = 1).contains("retained"));
    assert!(refused(|p| p.retained.clear()).contains("retained"));
    assert!(refused(|p| p.retained[0].target_id = "elsewhere".into()).contains("retained"));
    assert!(refused(|p| p.targets[0].bytes_erased = 1 << 53).contains("2^53"));
    assert!(refused(|p| p.scope.targets_reached = 2).contains("targetsReached"));
}

#[test]
fn complete_says_no_more_than_was_shown() {
    assert!(refused(|p| p.targets[0].verification.residual_found = 1).contains("complete"));
    assert!(
        refused(|p| {
            p.targets[0].verification.method = VerificationMethod::None;
            p.targets[0].verification.checked_at = None;
        })
        .contains("complete")
    );
    assert!(
        refused(|p| {
            p.targets[0].backups.state = BackupState::None;
            p.targets[0].keys[0].destroyed_at = None;
        })
        .contains("complete")
    );
    assert!(refused(|p| p.limitations.push(Limitation::KeyShredPending)).contains("complete"));
    assert!(refused(|p| p.scope.targets_declared = 2).contains("targets were missed"));
    assert!(
        refused(|p| {
            p.scope.targets_declared = 2;
            p.limitations.push(Limitation::TargetsUnreached);
        })
        .contains("complete")
    );
    assert!(
        refused(|p| {
            p.targets[0].records_failed = 1;
            p.targets[0].records_erased = 9;
        })
        .contains("rows failed")
    );
    assert!(refused(|p| p.targets[0].backups.state = BackupState::ReplayedOnRestore).contains("readable backups"));
    assert!(refused(|p| p.targets[0].backups.state = BackupState::Expires).contains("expiresBy"));
    assert!(refused(|p| p.residual_date = None).contains("living copies"));
    assert!(refused(|p| p.limitations.retain(|code| *code != Limitation::CopyDeclared)).contains("living copies"));
    assert!(refused(|p| p.limitations.retain(|code| *code != Limitation::RowsRetained)).contains("retained"));
    assert!(refused(|p| p.targets.clear()).contains("target"));
    accepted(|p| {
        p.targets[0].backups = Backups { state: BackupState::Expires, expires_by: Some(date("2026-04-05")) };
        p.limitations.push(Limitation::BackupNotCovered);
    });
}

/// The claim that backups are erased rests on the destroyed keys it names; what has no known end is told, and has no date.
#[test]
fn erased_backups_show_keys_and_nothing_without_an_end_is_dated() {
    assert!(refused(|p| p.targets[0].keys.clear()).contains("do not show the destruction"));
    let partly = |p: &mut Predicate| {
        p.result = ErasureResult::Partial;
        p.targets[0].keys.clear();
    };
    assert!(refused(partly).contains("do not show the destruction"));

    let chain = |p: &mut Predicate| {
        partly(p);
        p.targets[0].backups = Backups { state: BackupState::Chain, expires_by: None };
        p.targets[0].copies.clear();
        p.residual_date = None;
        p.limitations = vec![
            Limitation::RootSlotClassD,
            Limitation::RowsRetained,
            Limitation::KeyShredPending,
            Limitation::BackupNotCovered,
        ];
    };
    accepted(chain);
    let changed = |change: fn(&mut Predicate)| {
        refused(|p| {
            chain(p);
            change(p);
        })
    };
    assert!(changed(|p| p.limitations.retain(|code| *code != Limitation::BackupNotCovered)).contains("known end"));
    assert!(changed(|p| p.residual_date = Some(date("2030-01-01"))).contains("residualDate"));
    assert!(changed(|p| p.targets[0].backups.expires_by = Some(date("2030-01-01"))).contains("expiresBy"));
    let complete = changed(|p| {
        p.result = ErasureResult::Complete;
        p.limitations.retain(|code| *code != Limitation::KeyShredPending);
    });
    assert!(complete.contains("without a known end in a complete"), "{complete}");

    let unread = |p: &mut Predicate| {
        let copy = &mut p.targets[0].copies[0];
        (copy.copy_ref, copy.state, copy.dies_by) = ("tape".into(), CopyState::Unread, None);
        p.residual_date = None;
        p.limitations.push(Limitation::CopyUnread);
    };
    accepted(unread);
    let changed = |change: fn(&mut Predicate)| {
        refused(|p| {
            unread(p);
            change(p);
        })
    };
    assert!(changed(|p| p.limitations.retain(|code| *code != Limitation::CopyUnread)).contains("were not read"));
    assert!(changed(|p| p.residual_date = Some(date("2030-01-01"))).contains("residualDate"));
    let kept = refused(|p| {
        p.targets[0].records_retained = 12;
        p.targets[0].records_erased = 0;
        p.retained[0].records = 12;
    });
    assert!(kept.contains("nothing was erased"), "{kept}");
}

#[test]
fn any_name_can_be_written_as_an_id() {
    assert_eq!(as_id("dba-dump"), "dba-dump");
    assert_eq!(as_id("DBA 备份"), "DBA%20%E5%A4%87%E4%BB%BD");
    for name in ["", "a\"b", &"备".repeat(300)] {
        assert!(is_id(&as_id(name)), "{name}");
    }
    assert_ne!(as_id(&"备".repeat(300)), as_id(&"备".repeat(301)));
    assert!(is_id(&location("crm", &"客户".repeat(200))));
}

#[test]
fn partial_refused_failed_and_empty_results() {
    accepted(|p| {
        p.result = ErasureResult::Partial;
        p.limitations.push(Limitation::KeyShredPending);
        p.targets[0].keys[0].destroyed_at = None;
        p.targets[0].backups = Backups { state: BackupState::Expires, expires_by: Some(date("2026-04-05")) };
    });
    let pending_without_date = refused(|p| {
        p.result = ErasureResult::Partial;
        p.limitations.push(Limitation::KeyShredPending);
        p.residual_date = None;
    });
    assert!(pending_without_date.contains("residualDate"));
    assert!(
        refused(|p| {
            p.result = ErasureResult::Partial;
            p.limitations = vec![Limitation::RootSlotClassA];
            p.retained.clear();
            p.targets[0].records_retained = 0;
            p.targets[0].records_selected = 10;
            p.root_slot = Some(slots::device());
        })
        .contains("partial")
    );
    assert!(refused(|p| p.result = ErasureResult::Refused).contains("refused"));
    assert!(refused(|p| p.result = ErasureResult::NothingFound).contains("nothing-found"));
    assert!(refused(|p| p.result = ErasureResult::Failed).contains("failed"));
    let empty = |p: &mut Predicate| {
        p.targets.clear();
        p.retained.clear();
        p.limitations.clear();
        p.scope.targets_declared = 0;
        p.scope.targets_reached = 0;
    };
    accepted(|p| {
        empty(p);
        p.result = ErasureResult::NothingFound;
    });
    accepted(|p| {
        p.result = ErasureResult::Failed;
        p.targets[0].records_erased = 0;
        p.targets[0].records_failed = 10;
        p.limitations.push(Limitation::RowsFailed);
    });
}

#[test]
fn slots_keys_and_anonymisation_are_told_honestly() {
    assert!(refused(|p| p.limitations.retain(|code| *code != Limitation::RootSlotClassD)).contains("root slot"));
    assert!(refused(|p| p.root_slot = None).contains("rootSlot"));
    let purge = |p: &mut Predicate| p.targets[0].sanitization = Sanitization::Purge;
    accepted(purge);
    assert!(
        refused(|p| {
            purge(p);
            p.targets[0].keys[0].copies_known = 1;
        })
        .contains("purge")
    );
    assert!(
        refused(|p| {
            purge(p);
            p.targets[0].keys[0].escrow = true;
        })
        .contains("purge")
    );
    let anonymised = |p: &mut Predicate, reversible| {
        p.targets[0].records_erased = 0;
        p.targets[0].records_anonymized = 10;
        p.targets[0].anonymization = Some(Anonymization {
            changed: vec![AnonymizedField { field: "phone".into(), how: AnonymizationTechnique::Null }],
            k_min: 0,
            reversible,
        });
    };
    accepted(|p| anonymised(p, false));
    assert!(refused(|p| anonymised(p, true)).contains("reversible"));
}

#[test]
fn identity_times_and_shapes() {
    assert!(refused(|p| p.sequence = 0).contains("sequence"));
    assert!(refused(|p| p.sequence = 1).contains("previousCertificate"));
    assert!(refused(|p| p.previous_certificate = None).contains("previousCertificate"));
    assert!(refused(|p| p.certificate_id = "C1".into()).contains("UUID"));
    assert!(refused(|p| p.finished_at = time(-1)).contains("finishedAt"));
    assert!(refused(|p| p.issued_at = time(99)).contains("issuedAt"));
    assert!(refused(|p| p.absence_checked_at = Some(time(102))).contains("absenceCheckedAt"));
    assert!(refused(|p| p.absence_valid_until = Some(time(1))).contains("absenceValidUntil"));
    assert!(refused(|p| p.residual_date = Some(date("2026-03-04"))).contains("residualDate"));
    assert!(refused(|p| p.privacy.scan.hits = 1).contains("privacy"));
    assert!(refused(|p| p.limitations.push(Limitation::RowsRetained)).contains("twice"));
    assert!(refused(|p| p.scope.subject_refs = vec!["hmac-sha256:k8:00".into()]).contains("subjectRefs"));
    assert!(refused(|p| p.scope.subject_refs = vec!["C20260315004217".into()]).contains("subjectRefs"));
    for (period, good) in [("P3Y", true), ("P1Y6M", true), ("PT72H", true), ("P30D", true)].into_iter().chain([
        ("3 years", false),
        ("P", false),
        ("PT", false),
        ("P3", false),
        ("P6M1Y", false),
        ("PY", false),
    ]) {
        let mut statement = sample();
        statement.predicate.policy.as_mut().unwrap().retention_period = Some(period.into());
        assert_eq!(check(&statement).is_ok(), good, "{period}");
    }
    let mut statement = sample();
    statement.subject[0].name = "evidence/other.ndjson".into();
    assert!(check(&statement).is_err());
    statement = sample();
    statement.subject.push(statement.subject[0].clone());
    assert!(check(&statement).is_err());
}

#[test]
fn too_many_targets_and_too_large_payloads_are_refused() {
    let many = |count: usize, padding: usize| {
        move |p: &mut Predicate| {
            p.retained.clear();
            p.targets[0].records_retained = 0;
            p.targets[0].records_selected = 10;
            let one = p.targets[0].clone();
            p.targets = (0..count).map(|_| one.clone()).collect();
            for target in &mut p.targets {
                target.keys = (0..padding).map(|_| one.keys[0].clone()).collect();
            }
        }
    };
    accepted(many(200, 1));
    assert!(refused(many(201, 1)).contains("200"));
    assert!(refused(many(200, 8)).contains("256 KiB"));
}

proptest! {
    #[test]
    fn scanning_and_parsing_never_panic(text in ".{0,80}") {
        let _ = personal_shape(&text);
        let _ = Envelope::parse(text.as_bytes());
        let _ = check_payload(text.as_bytes());
    }

    #[test]
    fn locations_are_ids(store in ".{0,8}", collection in ".{1,12}") {
        let place = location(&store, &collection);
        prop_assert!(is_id(&place) && is_id(&as_id(&store)));
    }
}

pub(crate) fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/proof").join(name)
}

/// The format of version 1: the sample is still written byte for byte as it was, and the old signature still verifies.
#[test]
fn golden_certificate() {
    let envelope = std::fs::read(vector("certificate.json")).unwrap();
    let key = PublicKey::from_pem(&std::fs::read_to_string(vector("certificate-key.pem")).unwrap()).unwrap();
    let verified = verify(&envelope, &[key].into_iter().collect()).unwrap();
    assert_eq!(verified.clone().into_erasure(), Some(sample()));
    let payload = serde_json::to_vec(&sample()).unwrap();
    assert_eq!(Envelope::parse(&envelope).unwrap().payload(), payload);
}

/// The auditor's way, without any code of ours: `openssl dgst -verify` over the PAE.
#[test]
fn openssl_verifies_the_signature() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: there is no openssl on this machine");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let signer = signer();
    let envelope = issue(&sample(), &signer).unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("key.pem"), signer.public().to_pem()).unwrap();
    std::fs::write(path("signature"), envelope.signature()).unwrap();
    let verified = |signed: &[u8]| {
        std::fs::write(path("signed"), signed).unwrap();
        let mut command = Command::new("openssl");
        command.args(["dgst", "-sha256", "-verify"]).arg(path("key.pem"));
        command.arg("-signature").arg(path("signature")).arg(path("signed"));
        command.output().unwrap().status.success()
    };
    let mut signed = envelope.signed_bytes();
    assert!(verified(&signed));
    *signed.last_mut().unwrap() ^= 1;
    assert!(!verified(&signed));
}
