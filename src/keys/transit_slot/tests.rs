//! Formats and answers of the transit slot; the slot itself is tested on a real server.

use super::super::slot_shelf::{Kind, Shelf};
use super::wire::{self, KeyState};
use super::*;

const ID: InstallationId = [7; 16];

fn shelf(folder: &tempfile::TempDir) -> Shelf {
    let shelf = Shelf::new(&folder.path().join("root"), &ID, "transit", "wangchuan");
    shelf.files.prepare().unwrap();
    shelf
}

#[test]
fn a_record_is_read_as_it_was_written_and_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = shelf(&folder);
    shelf.put(3, Kind::Wrapped, 4, Some("vault:v4:AAAA".to_owned())).unwrap();
    let golden = "{\"format\":1,\"installation\":\"07070707070707070707070707070707\",\"mount\":\"transit\",\"key\":\"wangchuan\",\
                  \"generation\":3,\"version\":4,\"root\":\"vault:v4:AAAA\"}";
    let path = shelf.files.path(3, Kind::Wrapped);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), golden);
    let record = shelf.get(3, Kind::Wrapped).unwrap().unwrap();
    assert_eq!((record.version, record.root.as_deref()), (4, Some("vault:v4:AAAA")));
    assert_eq!(shelf.files.generations(Kind::Wrapped).unwrap(), [3]);
    assert!(shelf.get(2, Kind::Wrapped).unwrap().is_none() && !shelf.is_new().unwrap());

    let others = [
        Shelf::new(&folder.path().join("root"), &[8; 16], "transit", "wangchuan"),
        Shelf::new(&folder.path().join("root"), &ID, "elsewhere", "wangchuan"),
        Shelf::new(&folder.path().join("root"), &ID, "transit", "another"),
    ];
    for other in others {
        assert!(matches!(other.get(3, Kind::Wrapped), Err(SlotError::Damaged { .. })));
    }
    for bad in [
        golden.replace("\"format\":1", "\"format\":2"),
        golden.replace("\"format\":1", "\"format\":0"),
        golden.replace("\"generation\":3", "\"generation\":2"),
        golden.replace("\"version\":4", "\"version\":0"),
        golden.replace(",\"root\":\"vault:v4:AAAA\"", ""),
        golden.replace("\"format\":1", "\"format\":1,\"more\":1"),
        golden[..golden.len() - 1].to_owned(),
        " ".repeat(5000),
    ] {
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(shelf.get(3, Kind::Wrapped), Err(SlotError::Damaged { .. })), "{bad}");
    }
    let newer = golden.replace("\"format\":1", "\"format\":2");
    std::fs::write(&path, newer).unwrap();
    assert!(shelf.get(3, Kind::Wrapped).unwrap_err().to_string().contains("newer version"));
    assert!(shelf.files.remove(3, Kind::Wrapped).unwrap() && !shelf.files.remove(3, Kind::Wrapped).unwrap());
}

#[test]
fn requests_and_replies_are_exactly_these() {
    let root = Key::dangerous_from_bytes(&[1; 32]);
    let body = wire::encrypt_body(&root, b"aad", 5);
    let text = std::str::from_utf8(&body).unwrap();
    assert_eq!(
        text,
        "{\"plaintext\":\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\",\"associated_data\":\"YWFk\",\"key_version\":5}"
    );
    let reply = "{\"data\":{\"plaintext\":\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"}}";
    assert!(wire::root_in(reply.as_bytes()).unwrap().is_same(&root));
    for bad in ["{}", "{\"data\":{\"plaintext\":\"AQEB\"}}", "{\"data\":{\"plaintext\":\"!\"}}", "", "{\"data\":null}"]
    {
        assert!(wire::root_in(bad.as_bytes()).is_none(), "{bad}");
    }
    let long = format!("{{\"data\":{{\"plaintext\":\"{}\"}}}}", "AQEB".repeat(20));
    assert!(wire::root_in(long.as_bytes()).is_none());
    assert!(wire::is_of_version("vault:v12:AA", 12) && !wire::is_of_version("vault:v12:AA", 1));
    assert!(wire::says_sealed(b"{\"errors\":[\"Vault is sealed\"]}") && !wire::says_sealed(b"{\"errors\":[]}"));
    let body = wire::sign_body(b"digest", 3);
    let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&asked["prehashed"], &asked["key_version"]), (&true.into(), &3.into()), "{asked}");
    assert_eq!((&asked["input"], &asked["marshaling_algorithm"]), (&"ZGlnZXN0".into(), &"asn1".into()), "{asked}");
    let reply = |text: &str| format!("{{\"data\":{{\"signature\":\"{text}\"}}}}");
    assert_eq!(wire::signature_in(reply("vault:v3:AQID").as_bytes(), 3), Some(vec![1, 2, 3]));
    for bad in ["vault:v2:AQID", "vault:v3:x:AQID", "vault:v3:?", "AQID"] {
        assert_eq!(wire::signature_in(reply(bad).as_bytes(), 3), None, "{bad}");
    }
    let login = wire::login_body("a\"b", "c");
    assert_eq!(std::str::from_utf8(&login).unwrap(), "{\"role_id\":\"a\\\"b\",\"secret_id\":\"c\"}");
}

#[test]
fn a_key_is_fit_only_with_every_switch_off() {
    let text = "{\"data\":{\"type\":\"aes256-gcm96\",\"latest_version\":2,\"min_available_version\":0,\
                \"min_decryption_version\":1,\"min_encryption_version\":0,\"exportable\":false,\
                \"allow_plaintext_backup\":false,\"deletion_allowed\":false,\"derived\":false,\"imported_key\":false,\
                \"soft_deleted\":false}}";
    let state = |text: &str| wire::data::<KeyState>(text.as_bytes()).unwrap();
    assert_eq!((state(text).unfit(), state(text).lowest()), (None, 1));
    for switch in
        ["exportable", "allow_plaintext_backup", "deletion_allowed", "derived", "imported_key", "soft_deleted"]
    {
        let on = text.replace(&format!("\"{switch}\":false"), &format!("\"{switch}\":true"));
        assert!(state(&on).unfit().is_some(), "{switch}");
    }
    assert!(state(&text.replace("aes256-gcm96", "rsa-4096")).unfit().is_some());
    let signs = text.replace("aes256-gcm96", "ecdsa-p256");
    assert!(state(&signs).unfit_for_signing().is_none() && state(text).unfit_for_signing().is_some());
    assert!(state(&signs.replace("\"exportable\":false", "\"exportable\":true")).unfit_for_signing().is_some());
}

#[test]
fn only_https_leaves_this_host() {
    let folder = tempfile::tempdir().unwrap();
    let setup = |address: &str| TransitSetup {
        address: address.to_owned(),
        mount: "transit".to_owned(),
        key: "wangchuan".to_owned(),
        namespace: None,
        ca_pem: None,
        auth: TransitAuth::Token(SecretText::new("hvs.secret".to_owned())),
        folder: folder.path().join("root"),
        snapshot_retention_days: 0,
        timeout: None,
    };
    for (address, good) in [
        ("https://bao.example.com", true),
        ("http://127.0.0.1:8200", true),
        ("http://[::1]:8200", true),
        ("http://bao.example.com", false),
        ("ftp://bao.example.com", false),
        ("bao", false),
    ] {
        assert_eq!(TransitSlot::prepare(&setup(address), ID).is_ok(), good, "{address}");
    }
    assert!(!format!("{:?}", setup("https://x")).contains("hvs"));
}
