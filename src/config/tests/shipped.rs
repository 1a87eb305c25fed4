//! Every shipped file loads, explains every key, and the search for a file takes the right one.

use std::fs;

use super::*;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder of credentials with every name that shipped files use.
fn credentials() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "s3-access-key-id",
        "s3-secret-access-key",
        "s3-prune-key-id",
        "s3-prune-key",
        "audit-token",
        "audit-client-key",
        "shop-password",
        "crm-password",
        "drill-password",
        "bao-role-id",
        "bao-secret-id",
        "fields-role-id",
        "fields-secret-id",
        "fields-key-id",
        "fields-key",
        "token-pin",
    ] {
        let path = folder.path().join(name);
        fs::write(&path, "word").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    }
    folder
}

#[test]
fn every_shipped_configuration_loads() {
    let credentials = credentials();
    let directory = credentials.path().to_str().unwrap().to_owned();
    let variable = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.clone());
    let mut loaded = Vec::new();
    for entry in fs::read_dir(repository().join("config")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_none_or(|extension| extension != "toml") || name == "default.toml" {
            continue;
        }
        if name == "statutes.toml" {
            assert!(read_catalogue(&path).is_ok(), "the form of an own catalogue");
            continue;
        }
        let configuration = load(&path, &variable).unwrap_or_else(|error| panic!("{error}"));
        let jobs = configuration.agent.jobs.canonicalize().unwrap();
        assert_eq!(jobs, repository().join("jobs").canonicalize().unwrap(), "{name}");
        if name != "example-sqlite.toml" {
            assert_eq!(configuration.warnings, Vec::<String>::new(), "{name}");
        }
        loaded.push(name);
    }
    loaded.sort();
    assert_eq!(loaded, ["example-mariadb.toml", "example-postgres.toml", "example-sqlite.toml"]);
}

#[test]
fn template_asks_for_one_decision_only() {
    let error = error(TEMPLATE);
    assert_eq!(error.lines().filter(|line| line.starts_with("wangchuan.toml")).count(), 1, "{error}");
    assert!(error.contains("if this host is lost, every backup is lost with it"), "{error}");
    let decided = TEMPLATE.replace("accept_host_loss = false", "accept_host_loss = true");
    assert!(read(&decided).is_ok());
}

/// The template with every commented key switched on.
fn template_in_full() -> String {
    let is_key = |line: &str| {
        line.starts_with("#[")
            || line[1..].split_once(" = ").is_some_and(|(key, _)| !key.contains(' ') && !key.is_empty())
    };
    TEMPLATE
        .lines()
        .map(|line| if line.starts_with('#') && is_key(line) { &line[1..] } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn commented_keys_of_the_template_are_right() {
    let credentials = credentials();
    let directory = credentials.path().to_str().unwrap().to_owned();
    let variable = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.clone());
    // Keys that exclude each other cannot all be on at once.
    let transit = without(&template_in_full(), &["module", "token_label", "pin", "device", "accept_host_loss = false"])
        .replacen("kind = \"file\"", "kind = \"transit\"", 1)
        .replace("token = \"credential:bao-token\"\n", "");
    let of_transit = [
        "address",
        "mount",
        "key",
        "namespace",
        "ca",
        "role_id",
        "secret_id",
        "role_mount",
        "token",
        "accept_host_loss = false",
    ];
    let token = without(&template_in_full(), &of_transit).replacen("kind = \"file\"", "kind = \"pkcs11\"", 1).replacen(
        "device = \"software\"",
        "device = \"hardware-with-backup\"",
        1,
    );
    for (text, kind) in [(transit, "transit"), (token, "pkcs11")] {
        let configuration = check_commented(&text, &variable);
        assert_eq!(configuration.root.slot.kind(), kind);
        assert_eq!(configuration.root.previous.map(|slot| slot.kind()), Some("file"));
    }
}

/// The text without the lines of `[root]` that set these keys.
fn without(text: &str, keys: &[&str]) -> String {
    let (before, rest) = text.split_once("\n[root]\n").unwrap();
    let (root, after) = rest.split_once("\n[backup]\n").unwrap();
    let sets = |line: &str| keys.iter().any(|key| line == *key || line.starts_with(&format!("{key} = ")));
    let kept: Vec<&str> = root.lines().filter(|line| !sets(line)).collect();
    format!("{before}\n[root]\n{}\n[backup]\n{after}", kept.join("\n"))
}

fn check_commented(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Configuration {
    let text = text
        // What anonymising needs means nothing where rows are deleted.
        .replace("action = \"delete\"", "action = \"anonymise\"")
        .replace("folder = \"state\"\n", "")
        .replace("token = \"credential:fields-token\"\n", "")
        // Of the first entry, which is bound to a policy.
        .replacen("subjects = true\n", "", 1)
        .replace("in_clear_until = \"2022-12-31\"", "")
        .replace("endpoint = \"embedded\"", "endpoint = \"https://s3.example.com\"")
        .replace("url = \"embedded\"", "url = \"https://audit.example.com\"")
        .replace("data = \"backup\"\n", "")
        .replace("data = \"audit\"\n", "")
        // Of the other adapter.
        .replace("webhook_secrets = [\"credential:audit-webhook\"]\n", "")
        .replace("acknowledged_by = \"audit-service.pem\"\n", "")
        .replace(", url = \"https://witness.example\"", "")
        .replace("via = [\"order_id -> orders\"]\n", "")
        .replace("${file:secrets/shop-password}", "word")
        .replace("site = \"second-site\"", "site = \"elsewhere\"")
        .replace("\"statutes.toml\"", &format!("{:?}", repository().join("config/statutes.toml")));
    let configuration = read_with(&text, variable).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(configuration.registry.policies.len(), 1);
    assert_eq!(configuration.registry.stores[0].copies.len(), 1);
    assert_eq!(configuration.outside_keys.len(), 2);
    assert_eq!(configuration.audit.quorum.needed(), 1);
    configuration
}

#[test]
fn template_explains_every_key_of_the_schema() {
    fn keys(schema: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
        match schema {
            serde_json::Value::Object(object) => {
                if let Some(serde_json::Value::Object(properties)) = object.get("properties") {
                    found.extend(properties.keys().cloned());
                }
                object.values().for_each(|value| keys(value, found));
            }
            serde_json::Value::Array(array) => array.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }
    let schema = serde_json::from_str(&schema::configuration_schema()).unwrap();
    let mut found = std::collections::BTreeSet::new();
    keys(&schema, &mut found);
    assert!(found.len() > 50, "{found:?}");
    let full = template_in_full();
    let missing: Vec<_> = found
        .iter()
        .filter(|key| {
            let words = [format!("{key} = "), format!("{key}]"), format!("{key}."), format!("{key} (")];
            !words.iter().any(|word| full.contains(word.as_str()))
        })
        .collect();
    assert!(missing.is_empty(), "default.toml does not explain {missing:?}");
}

#[test]
fn the_first_of_five_places_counts() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        path
    };
    let system = place("etc/wangchuan.toml");
    let home = folder.path().to_str().unwrap().to_owned();
    let find_in = |flag: Option<&Path>, named: Option<&str>, working: &str| {
        let variable = |name: &str| match name {
            "WANGCHUAN_CONFIG" => named.map(str::to_owned),
            "HOME" => Some(home.clone()),
            _ => None,
        };
        let working_directory = folder.path().join(working);
        find(flag, &Surroundings { variable: &variable, working_directory: &working_directory, system_file: &system })
    };
    let origin = |found: Result<Found, ConfigError>| found.map(|found| (found.path, found.origin)).unwrap();
    assert_eq!(origin(find_in(Some(Path::new("/a")), Some("/b"), "work")), ("/a".into(), Origin::Flag));
    assert_eq!(origin(find_in(None, Some("/b"), "work")), ("/b".into(), Origin::Variable));
    assert_eq!(origin(find_in(None, None, "work")), (system.clone(), Origin::System));
    let user = place(".config/wangchuan/wangchuan.toml");
    assert_eq!(origin(find_in(None, Some(""), "work")), (user, Origin::User));
    let local = place("work/wangchuan.toml");
    assert_eq!(origin(find_in(None, None, "work")), (local, Origin::WorkingDirectory));
    let found = find_in(None, None, "other").unwrap();
    assert!(found.passed_over[1].ends_with("other/wangchuan.toml (not there)"), "{:?}", found.passed_over);
}

#[test]
fn no_file_is_told_with_the_places() {
    let nowhere = Path::new("/nonexistent");
    let system_file = Path::new("/nonexistent/system.toml");
    let error =
        find(None, &Surroundings { variable: &no_variable, working_directory: nowhere, system_file }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no configuration file found; looked for $WANGCHUAN_CONFIG (not set), /nonexistent/wangchuan.toml (not there), \
         /nonexistent/system.toml (not there)"
    );
}
