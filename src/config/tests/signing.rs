//! `[signing]`: where the key lies that signs certificates.

use super::*;
use crate::keys::signing::SigningKind;

fn with(section: &str) -> Result<Configuration, String> {
    read_with(&format!("{HEAD}\n[signing]\n{section}"), &no_variable)
}

const TRANSIT: &str = "kind = \"transit\"\naddress = \"https://bao.example.com:8200\"\nkey = \"shop-signing\"\n";
const TOKEN: &str = "kind = \"pkcs11\"\nmodule = \"/usr/lib/hsm.so\"\ntoken_label = \"proof\"\npin = \"4711-0815\"\n";

#[test]
fn without_a_section_the_key_is_in_a_file() {
    assert_eq!(read_with(HEAD, &no_variable).unwrap().signing, SigningSettings::File);
    assert_eq!(with("kind = \"file\"\n").unwrap().signing.kind(), SigningKind::File);
}

#[test]
fn a_key_service_and_a_token_are_described_as_for_roots() {
    let configuration = with(&format!("{TRANSIT}token = \"hunter2\"\n")).unwrap();
    let SigningSettings::Transit { setup, ca: None } = &configuration.signing else {
        panic!("{:?}", configuration.signing)
    };
    assert_eq!((setup.mount.as_str(), setup.key.as_str()), ("transit", "shop-signing"));
    assert!(!format!("{configuration:?}{}", configuration.show()).contains("hunter2"));
    let configuration = with(&format!("{TOKEN}key_label = \"certificates\"\n")).unwrap();
    let SigningSettings::Pkcs11 { setup, key_label } = &configuration.signing else {
        panic!("{:?}", configuration.signing)
    };
    assert_eq!((setup.token_label.as_str(), key_label.as_deref()), ("proof", Some("certificates")));
    assert!(!format!("{configuration:?}{}", configuration.show()).contains("4711"));
}

#[test]
fn what_is_missing_or_of_another_kind_is_named_at_its_place() {
    for (section, what) in [
        (TRANSIT.to_owned(), "nothing says how the agent logs in"),
        (format!("{TRANSIT}token = \"t\"\npin = \"1\"\n"), "this key is for `kind = \"pkcs11\"`"),
        (format!("{TOKEN}key = \"k\"\n"), "this key is for `kind = \"transit\"`"),
        (TOKEN.replace("pin = \"4711-0815\"\n", ""), "the key `pin` is missing"),
        ("kind = \"file\"\nkey_label = \"x\"\n".to_owned(), "this key is for `kind = \"pkcs11\"`"),
        (format!("{TOKEN}device = \"software\"\n"), "device"),
        ("kind = \"aws-kms\"\n".to_owned(), "aws-kms"),
    ] {
        let refused = with(&section).unwrap_err();
        assert!(refused.contains(what), "{section}\n{refused}");
    }
}
