//! Where secrets may come from, and that they show nowhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

const CANARY: &str = "hunter2correcthorse";

/// A configuration with the canary wherever a secret can stand.
fn with_canaries() -> String {
    format!("{HEAD}{SHOP}")
        .replace("site = \"beijing\"", &format!("access_key_id = \"{CANARY}\"\nsecret_access_key = \"{CANARY}\""))
        .replace("url = \"https://audit.example.com\"", &format!("url = \"https://audit.example.com\"\ntoken = \"{CANARY}\""))
        .replace("sqlite://data/shop.db", &format!("postgres://app:{CANARY}@db.example.com/shop?sslmode=verify-full"))
        .replace("[[store.collection]]\ntable = \"orders\"", &format!("read_url = \"mysql://app:{CANARY}@[::1]/shop?password={CANARY}\"\n\n[[store.collection]]\ntable = \"orders\""))
}

#[test]
fn secrets_show_neither_in_debug_nor_in_show() {
    let configuration = read(&with_canaries()).unwrap();
    assert_eq!(configuration.audit.token.as_ref().unwrap().dangerous_text(), CANARY);
    assert!(!format!("{configuration:?}").contains(CANARY));
    let shown = configuration.show();
    assert!(!shown.contains(CANARY), "{shown}");
    for expected in [
        "token = \"***\"",
        "secret_access_key = \"***\"",
        "url = \"postgres://app:***@db.example.com/shop?sslmode=verify-full\"",
        "read_url = \"mysql://app:***@[::1]/shop?password=***\"",
    ] {
        assert!(shown.contains(expected), "{expected}\nnot in\n{shown}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(3), ..ProptestConfig::default() })]
    /// Whatever a slip of the hand does to the file, no error shows a secret.
    #[test]
    fn no_error_shows_a_secret(at in 0usize..2_000, length in 0usize..3, slip in prop::sample::select(vec!["", "=", "\"", "'", "\n", " ", "[", "]", "x", "5", "#", "\\", "\"\"\"", ".", "{", "}", ",", "é"])) {
        let mut text = with_canaries();
        let from = at % text.len();
        let until = (from + length).min(text.len());
        text.replace_range(from..until, slip);
        if let Err(error) = read(&text) {
            // A slip inside a secret leaves its halves, which must not show either.
            prop_assert!(!error.contains("hunter2") && !error.contains("correcthorse"), "{}", error);
        }
    }
}

#[test]
fn values_without_quotes_and_misspelt_keys_are_cut_off() {
    for line in [
        "token = 123456789",
        "tokn = \"123456789\"",
        "token 123456789",
        "token \"123456789\"",
        "token = \"123456789",
        "token = [\"123456789\"]",
        "token = \"\"\"\n123456789\n\"\"\"\nca = 1",
        "ca = { token = \"123456789\" }",
    ] {
        let error = error(&HEAD.replace("[audit]", &format!("[audit]\n{line}")));
        assert!(!error.contains("123456789"), "{error}");
    }
}

#[test]
fn references_are_filled_in() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("token");
    fs::write(&secret, "from-file\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let directory = folder.path().to_str().unwrap().to_owned();
    let variable = |name: &str| match name {
        "WORD" => Some("p@ss/w:rd?%".to_owned()),
        "HOST" => Some("db.example.com:5432".to_owned()),
        "EMPTY" => Some(String::new()),
        "CREDENTIALS_DIRECTORY" => Some(directory.clone()),
        _ => None,
    };
    let token = |text: &str| {
        let text = HEAD.replace("[audit]", &format!("[audit]\ntoken = \"{text}\""));
        read_with(&text, &variable).map(|configuration| configuration.audit.token.unwrap().dangerous_text().to_owned())
    };
    assert_eq!(token("${WORD}").unwrap(), "p@ss/w:rd?%");
    assert_eq!(token(&format!("file:{}", secret.display())).unwrap(), "from-file");
    assert_eq!(token("credential:token").unwrap(), "from-file");
    assert_eq!(token("Bearer ${credential:token}").unwrap(), "Bearer from-file");
    let url =
        format!("{HEAD}{SHOP}").replace("sqlite://data/shop.db", "postgres://app:${WORD}@${HOST}/shop?sslmode=require");
    let configuration = read_with(&url, &variable).unwrap();
    let expected = "postgres://app:p%40ss%2Fw%3Ard%3F%25@db.example.com:5432/shop?sslmode=require";
    assert_eq!(configuration.registry.stores[0].url.dangerous_text(), expected);
    assert!(configuration.show().contains("postgres://app:${WORD}@${HOST}/shop"));

    let error = |text: &str| token(text).unwrap_err();
    assert_eq!(
        error("${EMPTY}"),
        "\
wangchuan.toml:16:9: the environment variable `EMPTY` is not set, or empty
    |
 16 | token = …
    |         ^
    = do: set `EMPTY` for the process, or use `file:PATH` or `credential:NAME`"
    );
    for (reference, expected) in [
        ("${WORD", "without a closing"),
        ("${}", "a reference without a name"),
        ("credential:../token", "must not contain `/`"),
        ("credential:nothing", "cannot read the secret file"),
        ("file:", "a reference without a name"),
    ] {
        assert!(error(reference).contains(expected), "{reference}: {}", error(reference));
    }
    let without_systemd = super::error(&HEAD.replace("[audit]", "[audit]\ntoken = \"credential:token\""));
    assert!(without_systemd.contains("`$CREDENTIALS_DIRECTORY` is not set"));
}

#[test]
fn a_secret_file_that_everybody_can_read_is_refused_unless_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wangchuan.toml");
    let secret = folder.path().join("token");
    fs::write(&secret, CANARY).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let text = HEAD.replace("[audit]", "[audit]\ntoken = \"file:token\"");
    fs::write(&file, &text).unwrap();
    let error = load(&file, &no_variable).unwrap_err().to_string();
    assert!(error.contains("can be read by everybody on this host"), "{error}");
    assert!(!error.contains(CANARY));
    fs::write(&file, text.replace("site = \"shanghai\"", "allow_readable_secrets = [\"token\"]")).unwrap();
    let configuration = load(&file, &no_variable).unwrap();
    assert_eq!(configuration.audit.token.unwrap().dangerous_text(), CANARY);
    fs::write(&file, &text).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(load(&file, &no_variable).is_ok());
}

#[test]
fn a_readable_configuration_must_not_hold_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wangchuan.toml");
    fs::write(&file, with_canaries()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let error = load(&file, &no_variable).unwrap_err().to_string();
    assert_eq!(error.matches("a secret stands here in clear").count(), 4, "{error}");
    assert!(!error.contains(CANARY));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(load(&file, &no_variable).is_ok());
    fs::write(&file, with_canaries().replace("site = \"shanghai\"", "allow_readable_secrets = [\"wangchuan.toml\"]"))
        .unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(load(&file, &no_variable).is_ok());
    fs::write(&file, HEAD).unwrap();
    assert!(load(&file, &no_variable).is_ok());
}

#[test]
fn unreadable_file_is_told() {
    let error = load(Path::new("/nonexistent/wangchuan.toml"), &no_variable).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration file `/nonexistent/wangchuan.toml`");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wangchuan.toml");
    fs::write(&file, "#".repeat(1 << 20) + HEAD).unwrap();
    let error = load(&file, &no_variable).unwrap_err().to_string();
    assert!(error.contains("a configuration file has at most 1048576 bytes"), "{error}");
}
