use super::*;
use crate::cli::output::testing;
use crate::policy::registry::{CollectionSpec, SecretText};

fn spec() -> StoreSpec {
    let collection = CollectionSpec {
        table: "orders".to_owned(),
        subject: Some("customer_id".to_owned()),
        via: Vec::new(),
        key: vec!["number".to_owned()],
        minimum: Vec::new(),
        fields: std::collections::BTreeMap::new(),
        triggers: vec!["note_change".to_owned()],
        allow_scan: false,
        subject_when: std::collections::BTreeMap::new(),
    };
    StoreSpec {
        name: "shop".to_owned(),
        url: SecretText::new("postgres://agent:hush@db/shop".to_owned()),
        read_url: None,
        owner: None,
        purpose: None,
        site: None,
        timezone: chrono_tz::UTC,
        backup: BackupMode::Bucket,
        copies: Vec::new(),
        collections: vec![collection],
        ignored: Vec::new(),
        budget: crate::policy::registry::Budget::default(),
        replicas: Vec::new(),
        files: crate::policy::registry::FilesSpec::default(),
    }
}

fn finding(kind: FindingKind) -> Finding {
    let table = Some("orders".to_owned());
    Finding { kind, table, what: "something".to_owned(), remedy: "GRANT DELETE ON orders TO agent".to_owned() }
}

#[test]
fn what_the_configuration_answers_is_no_finding() {
    let findings = vec![
        finding(FindingKind::Trigger("note_change".to_owned())),
        finding(FindingKind::NoKey),
        finding(FindingKind::Trigger("keep_copy".to_owned())),
        finding(FindingKind::NoRight),
    ];
    let codes = |spec: &StoreSpec| -> Vec<&str> {
        relevant(spec, findings.clone(), Vec::new()).into_iter().map(|problem| problem.code).collect()
    };
    assert_eq!(codes(&spec()), ["trigger", "no-right"]);
    let mut undeclared = spec();
    undeclared.collections[0].key.clear();
    undeclared.collections[0].triggers.clear();
    assert_eq!(codes(&undeclared), ["trigger", "no-key", "trigger", "no-right"]);
    let remedies = relevant(&spec(), findings.clone(), Vec::new());
    assert_eq!(remedies[1].r#do, "GRANT DELETE ON orders TO agent");
}

#[test]
fn a_missing_table_is_said_once() {
    let problems = vec!["store shop: there is no such table; x".to_owned(), "`key` names a column".to_owned()];
    let found = relevant(&spec(), vec![finding(FindingKind::MissingTable)], problems.clone());
    assert_eq!(found.iter().map(|problem| problem.code).collect::<Vec<_>>(), ["missing-table", "registry"]);
    assert_eq!(relevant(&spec(), Vec::new(), problems).len(), 2);
}

#[test]
fn unreachable_beats_missing_beats_ready() {
    let store = |unreachable: Option<&str>, findings| CheckedStore {
        store: "shop".to_owned(),
        unreachable: unreachable.map(ToOwned::to_owned),
        findings,
        unregistered: Vec::new(),
    };
    let missing = || relevant(&spec(), vec![finding(FindingKind::NoRight)], Vec::new());
    let cases = [
        (vec![store(None, Vec::new())], "complete", Exit::Done),
        (vec![store(None, Vec::new()), store(None, missing())], "refused", Exit::Refused),
        (vec![store(None, missing()), store(Some("no answer"), Vec::new())], "failed", Exit::Failed),
        (Vec::new(), "nothing-found", Exit::Done),
    ];
    for (stores, result, exit) in cases {
        let (mut output, out, _) = testing::output(true);
        assert_eq!(show(&mut output, stores).unwrap(), exit);
        let document: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(document["result"], result);
    }
}

#[test]
fn a_listing_never_shows_the_address() {
    let spec = spec();
    let shown = serde_json::to_string(&listed(&spec, &[])).unwrap();
    assert!(shown.contains("\"engine\":\"postgres\"") && !shown.contains("hush") && !shown.contains("db/shop"));
}
