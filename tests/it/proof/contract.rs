//! `audit conformance URL`: the contract tried from outside, as whoever builds an audit service does.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::ports::free_port;
use crate::support::program::{Outcome, Program};

fn keep_secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn broken(outcome: &Outcome) -> Vec<String> {
    let rules = outcome.list("rules").into_iter().filter(|rule| rule["good"] == false);
    rules.map(|rule| rule["rule"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_service_is_tried_without_an_installation() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::in_directory(folder.path());
    let token = folder.path().join("token.txt");
    keep_secret(&token, "a-token-of-some-length\n");
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{address}");
    let trial =
        ["audit", "conformance", &url, "--log-key", "log.vkey", "--signer", "trial.pem", "--token", "token.txt"];
    // The log's key comes from the service; any will do until the trial's own key is known there.
    std::fs::write(folder.path().join("log.vkey"), "audit.example/log+00000000+AAAA").unwrap();
    assert_eq!(program.json(&trial).ends(2).text("code"), "FILE");
    let vector = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/proof/checkpoint.vkey");
    std::fs::copy(vector, folder.path().join("log.vkey")).unwrap();
    let first = program.json(&trial).ends(1);
    assert_eq!(first.text("code"), "NEW_SIGNER", "{first}");
    first.says(&["trial.pem.pub"]);

    let serving = [
        "audit",
        "serve",
        "--listen",
        &address,
        "--data",
        "log",
        "--origin",
        "audit.example/log",
        "--signer",
        "trial.pem.pub",
        "--token",
        "token.txt",
        "--json",
    ];
    let served = program.start(&serving);
    served.wait_for("verifier_key", Duration::from_secs(30));
    // A receipt by another log than was named.
    let strange = program.json(&trial).ends(1);
    assert_eq!((strange.text("result"), broken(&strange)), ("invalid".to_owned(), vec!["file".to_owned()]));
    let key = key_of_log(folder.path(), &address);
    std::fs::write(folder.path().join("log.vkey"), key).unwrap();
    let good = program.json(&trial).ends(0);
    assert_eq!((good.text("result"), broken(&good).len()), ("valid".to_owned(), 0), "{good}");
    assert!(good.list("rules").len() >= 18, "{good}");
    keep_secret(&token, "another-token-of-length");
    let refused = program.run(&trial).ends(1);
    refused.says(&["✗ file", "401", "rules that filing relies on"]);
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let readable = program.json(&trial).ends(2);
    readable.says(&["can be read by everybody"]);
    let (code, said) = served.signal("TERM", Duration::from_secs(20));
    assert_eq!(code, Some(0), "{said}");
}

/// The log's key as the service gives it out.
fn key_of_log(folder: &Path, address: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut line = std::net::TcpStream::connect(address).unwrap();
    line.write_all(b"GET /v1/trust HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    line.read_to_string(&mut answer).unwrap();
    let trust: Value = serde_json::from_str(&answer[answer.find('{').unwrap()..=answer.rfind('}').unwrap()]).unwrap();
    std::fs::write(folder.join("trust.json"), trust.to_string()).unwrap();
    trust["logs"][0]["verifierKey"].as_str().unwrap_or_else(|| panic!("{trust}")).to_owned()
}
