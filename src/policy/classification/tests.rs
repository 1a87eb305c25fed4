use super::*;
use crate::policy::calendar::{BucketWidth, Grace, Period};
use crate::policy::registry::{Action, BackupMode, Cap, CollectionSpec, SecretText};
use std::collections::BTreeMap;

fn field(kind: FieldKind) -> FieldSpec {
    FieldSpec { kind, category: None, level: None }
}

fn store(purpose: Option<&str>, fields: &[(&str, FieldSpec)]) -> StoreSpec {
    StoreSpec {
        name: "shop".to_owned(),
        url: SecretText::new("sqlite://shop.db".to_owned()),
        read_url: None,
        owner: None,
        purpose: purpose.map(str::to_owned),
        site: None,
        timezone: chrono_tz::Tz::Asia__Shanghai,
        backup: BackupMode::Bucket,
        copies: Vec::new(),
        ignored: Vec::new(),
        budget: crate::policy::registry::Budget::default(),
        replicas: Vec::new(),
        files: crate::policy::registry::FilesSpec::default(),
        collections: vec![CollectionSpec {
            table: "customers".to_owned(),
            subject: None,
            via: Vec::new(),
            key: Vec::new(),
            minimum: Vec::new(),
            fields: fields.iter().map(|(name, field)| ((*name).to_owned(), field.clone())).collect::<BTreeMap<_, _>>(),
            triggers: Vec::new(),
            allow_scan: false,
            subject_when: BTreeMap::new(),
        }],
    }
}

fn policy(basis: &str, collection: &str) -> Policy {
    Policy {
        id: "p".to_owned(),
        collections: vec![collection.to_owned()],
        retention: Period::of_years(3),
        start: "created_at".to_owned(),
        action: Action::Delete,
        anonymise: std::collections::BTreeMap::new(),
        quasi: Vec::new(),
        k: Policy::default_k(),
        small_groups: crate::policy::anonymise::SmallGroups::Keep,
        basis: basis.to_owned(),
        statutes: Vec::new(),
        profile: None,
        records: None,
        grace: Grace::default(),
        bucket: BucketWidth::Quarter,
        max: Cap::default(),
        approval: Approval::None,
        canary: crate::policy::registry::Canary::default(),
    }
}

#[test]
fn kinds_are_written_in_snake_case_and_others_refused() {
    for kind in FieldKind::ALL {
        let text = serde_json::to_string(&kind).unwrap();
        assert_eq!(serde_json::from_str::<FieldKind>(&text).unwrap(), kind);
    }
    let required = ["name", "id_card", "mobile", "email", "address", "bank_card", "licence", "social_security"];
    for name in required {
        assert!(serde_json::from_str::<FieldKind>(&format!("{name:?}")).is_ok(), "{name}");
    }
    assert!(serde_json::from_str::<FieldKind>("\"shoe_size\"").is_err());
    let mut all = FieldKind::ALL.to_vec();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 24);
}

#[test]
fn kinds_have_their_classes_and_ciphers() {
    use Category::{Basic, Business, Sensitive};
    let expected = [
        (FieldKind::Name, Basic, Cipher::Aes, Approval::One),
        (FieldKind::Mobile, Basic, Cipher::Aes, Approval::One),
        (FieldKind::Email, Basic, Cipher::Aes, Approval::One),
        (FieldKind::Address, Basic, Cipher::Aes, Approval::One),
        (FieldKind::IdCard, Basic, Cipher::Sm4, Approval::One),
        (FieldKind::CustomerId, Basic, Cipher::Aes, Approval::None),
        (FieldKind::BankCard, Sensitive, Cipher::Sm4, Approval::Two),
        (FieldKind::Credit, Sensitive, Cipher::Sm4, Approval::Two),
        (FieldKind::Health, Sensitive, Cipher::Sm4, Approval::Two),
        (FieldKind::Biometric, Sensitive, Cipher::Sm4, Approval::Two),
        (FieldKind::Password, Sensitive, Cipher::Sm4, Approval::Two),
        (FieldKind::PurchaseFrequency, Business, Cipher::Aes, Approval::One),
        (FieldKind::Preference, Business, Cipher::Aes, Approval::One),
        (FieldKind::History, Business, Cipher::Aes, Approval::One),
        (FieldKind::Complaint, Business, Cipher::Aes, Approval::One),
    ];
    for (kind, category, cipher, approval) in expected {
        let class = classify(&field(kind));
        assert_eq!((class.category, class.cipher, class.approval), (category, cipher, approval), "{kind:?}");
    }
    assert_eq!(classify(&field(FieldKind::BankCard)).level, Level::Confidential);
}

/// The method of destruction and its read-back are the same for all: deleted, shredded, looked for in full.
#[test]
fn each_level_has_its_cipher_and_its_approval() {
    let table = [
        (Level::General, Cipher::Aes, Approval::None),
        (Level::Internal, Cipher::Aes, Approval::One),
        (Level::Confidential, Cipher::Sm4, Approval::Two),
    ];
    for (level, cipher, approval) in table {
        let class = classify(&FieldSpec { level: Some(level), ..field(FieldKind::CustomerId) });
        assert_eq!((class.level, class.cipher, class.approval), (level, cipher, approval));
    }
}

#[test]
fn declarations_can_only_be_stricter() {
    let categories = [None, Some(Category::Business), Some(Category::Basic), Some(Category::Sensitive)];
    let levels = [None, Some(Level::General), Some(Level::Internal), Some(Level::Confidential)];
    for kind in FieldKind::ALL {
        let own = classify(&field(kind));
        for category in categories {
            for level in levels {
                let class = classify(&FieldSpec { kind, category, level });
                assert!(class.category >= own.category && class.level >= own.level && class.cipher >= own.cipher);
                assert!(category.is_none_or(|declared| class.category >= declared));
                assert!(level.is_none_or(|declared| class.level >= declared));
                let strict = class.category == Category::Sensitive || class.level == Level::Confidential;
                if strict {
                    assert_eq!((class.cipher, class.approval), (Cipher::Sm4, Approval::Two));
                }
            }
        }
    }
    let lax_card =
        FieldSpec { category: Some(Category::Business), level: Some(Level::General), ..field(FieldKind::IdCard) };
    assert_eq!(classify(&lax_card).cipher, Cipher::Sm4, "identity numbers are always SM4");
    let confidential_name = FieldSpec { level: Some(Level::Confidential), ..field(FieldKind::Name) };
    assert_eq!(classify(&confidential_name).cipher, Cipher::Sm4);
}

#[test]
fn bank_cards_are_for_payment_and_health_for_medicine() {
    let cases = [
        (FieldKind::BankCard, Some("marketing"), true),
        (FieldKind::BankCard, None, true),
        (FieldKind::BankCard, Some("payment"), false),
        (FieldKind::Health, Some("ecommerce"), true),
        (FieldKind::Health, Some("medical"), false),
        (FieldKind::Name, Some("marketing"), false),
    ];
    for (kind, purpose, found) in cases {
        let findings = lint_fields(&store(purpose, &[("column", field(kind))]), &[]);
        assert_eq!(findings.len(), usize::from(found), "{kind:?} for {purpose:?}");
        for finding in findings {
            assert_eq!((finding.store.as_str(), finding.field.as_str()), ("shop", "column"));
            assert_eq!(finding.severity, Severity::Violation);
            assert!(finding.remedy.contains("erase"), "{}", finding.remedy);
        }
    }
}

#[test]
fn biometrics_and_beliefs_need_their_basis() {
    let cases = [
        (FieldKind::Biometric, Some("separate-consent"), false),
        (FieldKind::Biometric, Some("consent"), true),
        (FieldKind::Biometric, None, true),
        (FieldKind::Belief, Some("legal-duty"), false),
        (FieldKind::Belief, Some("separate-consent"), false),
        (FieldKind::Belief, Some("contract"), true),
        (FieldKind::Belief, None, true),
    ];
    for (kind, basis, found) in cases {
        for collection in ["customers", "shop.customers"] {
            let policies: Vec<Policy> = basis.map(|basis| policy(basis, collection)).into_iter().collect();
            let findings = lint_fields(&store(None, &[("column", field(kind))]), &policies);
            assert_eq!(findings.len(), usize::from(found), "{kind:?} on {basis:?}");
        }
    }
    let elsewhere = [policy("separate-consent", "crm.customers")];
    assert_eq!(lint_fields(&store(None, &[("column", field(FieldKind::Biometric))]), &elsewhere).len(), 1);
    assert!(LEGAL_BASES.iter().all(|basis| is_legal_basis(basis)) && !is_legal_basis("because"));
}

#[test]
fn lax_declarations_are_told() {
    let lax = FieldSpec { level: Some(Level::General), ..field(FieldKind::Name) };
    let strict = FieldSpec { level: Some(Level::Confidential), ..field(FieldKind::Name) };
    let findings = lint_fields(&store(None, &[("a", strict), ("b", lax)]), &[]);
    let told: Vec<_> = findings.iter().map(|finding| (finding.field.as_str(), finding.severity)).collect();
    assert_eq!(told, [("b", Severity::Warning)]);
}
