//! `[root]` with a key service, and with a slot to move away from.

use super::*;
use crate::keys::slot::Device;
use crate::keys::transit_slot::TransitAuth;

const FILE: &str = "kind = \"file\"\npath = \"root.slot\"\naccept_host_loss = true\n";

const TOKEN: &str = "kind = \"pkcs11\"\npath = \"wrapped\"\nmodule = \"/usr/lib/hsm.so\"\ntoken_label = \"roots\"\n\
                     pin = \"4711-0815\"\n";

const TRANSIT: &str = "kind = \"transit\"\npath = \"wrapped\"\naddress = \"https://bao.example.com:8200/\"\nkey = \"shop\"\n\
                       snapshot_retention_days = 7\n";

fn with(section: &str) -> Result<Configuration, String> {
    read_with(&HEAD.replace(FILE, section), &no_variable)
}

fn setup(configuration: &Configuration) -> &crate::keys::transit_slot::TransitSetup {
    match &configuration.root.slot {
        SlotSettings::Transit { setup, .. } => setup,
        other => panic!("{other:?}"),
    }
}

fn token(configuration: &Configuration) -> &crate::keys::pkcs11_slot::Pkcs11Setup {
    match &configuration.root.slot {
        SlotSettings::Pkcs11 { setup } => setup,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_service_is_described_in_full() {
    let configuration = with(&format!("{TRANSIT}token = \"hunter2\"\n")).unwrap();
    let found = setup(&configuration);
    assert_eq!(
        (found.address.as_str(), found.mount.as_str(), found.key.as_str()),
        ("https://bao.example.com:8200", "transit", "shop")
    );
    assert_eq!((found.folder.as_path(), found.snapshot_retention_days), (Path::new("/srv/w/wrapped"), 7));
    assert!(!format!("{configuration:?}{}", configuration.show()).contains("hunter2"));
    let by_role = with(&format!(
        "{TRANSIT}role_id = \"r\"\nsecret_id = \"s\"\nmount = \"team/transit\"\nnamespace = \"n\"\nca = \"ca.pem\"\n"
    ));
    let by_role = by_role.unwrap();
    assert!(matches!(&setup(&by_role).auth, TransitAuth::AppRole { mount, .. } if mount == "approle"));
    assert!(
        matches!(&by_role.root.slot, SlotSettings::Transit { ca: Some(ca), .. } if ca == Path::new("/srv/w/ca.pem"))
    );
}

#[test]
fn what_the_file_leaves_out_comes_from_the_environment() {
    let text = HEAD.replace(FILE, &TRANSIT.replace("address = \"https://bao.example.com:8200/\"\n", ""));
    let vault = |name: &str| match name {
        "VAULT_ADDR" => Some("https://vault.example.com".to_owned()),
        "VAULT_TOKEN" => Some("t".to_owned()),
        "VAULT_NAMESPACE" => Some("ns".to_owned()),
        "VAULT_CACERT" => Some("/etc/ca.pem".to_owned()),
        _ => None,
    };
    let configuration = read_with(&text, &vault).unwrap();
    assert_eq!(setup(&configuration).address, "https://vault.example.com");
    assert_eq!(setup(&configuration).namespace.as_deref(), Some("ns"));
    let both = |name: &str| if name == "BAO_ADDR" { Some("https://bao".to_owned()) } else { vault(name) };
    assert_eq!(setup(&read_with(&text, &both).unwrap()).address, "https://bao");
    assert!(read_with(&text, &no_variable).unwrap_err().contains("`address` is missing"));
}

#[test]
fn a_slot_without_its_parts_or_with_anothers_is_refused() {
    let good = format!("{TRANSIT}token = \"t\"\n");
    for (from, to, said) in [
        ("token = \"t\"\n", "", "nothing says how the agent logs in"),
        ("token = \"t\"\n", "token = \"t\"\nrole_id = \"r\"\n", "given twice, or by half"),
        ("token = \"t\"\n", "role_id = \"r\"\n", "given twice, or by half"),
        ("key = \"shop\"\n", "", "the key `key` is missing"),
        ("key = \"shop\"\n", "key = \"../x\"\n", "letters a-z"),
        ("key = \"shop\"\n", "key = \"shop\"\nmount = \"a/../b\"\n", "letters a-z"),
        ("snapshot_retention_days = 7\n", "", "`snapshot_retention_days` is missing"),
        ("snapshot_retention_days = 7\n", "snapshot_retention_days = 100000\n", "at most"),
        ("https://bao.example.com", "http://bao.example.com", "unprotected"),
        ("https://bao.example.com", "bao.example.com", "not an address"),
        ("path = \"wrapped\"\n", "", "the key `path` is missing"),
        ("token = \"t\"\n", "token = \"t\"\naccept_host_loss = true\n", "this key is for `kind = \"file\"`"),
    ] {
        let refused = with(&good.replace(from, to)).unwrap_err();
        assert!(refused.contains(said), "{from} -> {to}: {refused}");
    }
    assert!(with(&format!("{FILE}key = \"x\"\n")).unwrap_err().contains("this key is for `kind = \"transit\"`"));
}

#[test]
fn a_move_names_two_different_folders() {
    let moving = format!("{TRANSIT}token = \"t\"\n\n[root.previous]\n{FILE}");
    let configuration = with(&moving).unwrap();
    assert_eq!(configuration.root.previous.as_ref().map(SlotSettings::kind), Some("file"));
    assert_eq!(configuration.root.slot.kind(), "transit");
    assert!(with(&moving.replace("root.slot", "wrapped")).unwrap_err().contains("the same `path`"));
    let twice = format!("{moving}\n[root.previous.previous]\n{FILE}");
    assert!(with(&twice).unwrap_err().contains("from one slot to one other"));
}

const KMS: &str = "kind = \"aws-kms\"\npath = \"wrapped\"\nregion = \"eu-west-1\"\n";

fn kms(section: &str) -> crate::keys::kms_slot::KmsSetup {
    match with(section).unwrap().root.slot {
        SlotSettings::AwsKms { setup } => *setup,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_region_is_enough_and_the_shortest_wait_is_taken() {
    let found = kms(KMS);
    assert_eq!((found.deletion_window_days, found.minimum_interval.as_secs()), (7, 24 * 3600));
    assert_eq!((found.place().as_str(), found.keys), ("https://kms.eu-west-1.amazonaws.com", None));
    let text = format!(
        "{KMS}endpoint = \"http://127.0.0.1:5000/\"\naccess_key_id = \"AKID\"\nsecret_access_key = \"hunter2\"\n\
         deletion_window_days = 30\nminimum_interval_hours = 0\n"
    );
    let found = kms(&text);
    assert_eq!((found.deletion_window_days, found.minimum_interval.as_secs()), (30, 0));
    assert_eq!(found.place(), "http://127.0.0.1:5000");
    let configuration = with(&text).unwrap();
    assert!(!format!("{configuration:?}{}", configuration.show()).contains("hunter2"));
}

#[test]
fn what_aws_kms_does_not_have_is_refused() {
    for (more, said) in [
        ("deletion_window_days = 6\n", "7 to 30 days"),
        ("deletion_window_days = 31\n", "7 to 30 days"),
        ("minimum_interval_hours = 100000\n", "at most"),
        ("access_key_id = \"AKID\"\n", "`access_key_id` without `secret_access_key`"),
        ("endpoint = \"http://kms.example.com\"\n", "unprotected"),
        ("key = \"shop\"\n", "this key is for `kind = \"transit\"`"),
        ("accept_host_loss = true\n", "this key is for `kind = \"file\"`"),
    ] {
        let refused = with(&format!("{KMS}{more}")).unwrap_err();
        assert!(refused.contains(said), "{more}: {refused}");
    }
    assert!(with(&KMS.replace("region = \"eu-west-1\"\n", "")).unwrap_err().contains("`region` is missing"));
    assert!(with(&KMS.replace("eu-west-1", "../x")).unwrap_err().contains("not the name of a region"));
    let transit = format!("{TRANSIT}token = \"t\"\ndeletion_window_days = 7\n");
    assert!(with(&transit).unwrap_err().contains("this key is for `kind = \"aws-kms\"`"));
}

#[test]
fn a_token_is_described_by_its_label_and_what_the_operator_answers_for() {
    let configuration = with(TOKEN).unwrap();
    let found = token(&configuration);
    assert_eq!((found.module.as_path(), found.token_label.as_str()), (Path::new("/usr/lib/hsm.so"), "roots"));
    assert_eq!((found.folder.as_path(), found.device), (Path::new("/srv/w/wrapped"), Device::Software));
    assert_eq!(found.pin.dangerous_text(), "4711-0815");
    assert!(!format!("{configuration:?}{}", configuration.show()).contains("4711-0815"));
    let hardware = with(&format!("{TOKEN}device = \"hardware-with-backup\"\nsnapshot_retention_days = 30\n")).unwrap();
    let found = token(&hardware);
    assert_eq!((found.device, found.snapshot_retention_days), (Device::HardwareWithBackup, Some(30)));
}

#[test]
fn a_token_without_its_parts_or_with_a_date_that_nobody_keeps_is_refused() {
    for (from, to, said) in [
        ("module = \"/usr/lib/hsm.so\"\n", "", "the key `module` is missing"),
        ("token_label = \"roots\"\n", "", "the key `token_label` is missing"),
        ("\"roots\"", "\"0123456789abcdef0123456789abcdef0\"", "1 to 32 bytes"),
        ("\"roots\"", "\"roots \"", "no blanks at its end"),
        ("pin = \"4711-0815\"\n", "", "the key `pin` is missing"),
        ("4711-0815", "${TOKEN_PIN}", "`TOKEN_PIN` is not set"),
        ("pin =", "device = \"hardware-with-backup\"\npin =", "`snapshot_retention_days` is missing"),
        (
            "pin =",
            "device = \"hardware-without-backup\"\nsnapshot_retention_days = 1\npin =",
            "has no backups that end",
        ),
        ("pin =", "snapshot_retention_days = 1\npin =", "has no backups that end"),
        ("pin =", "device = \"hardware\"\npin =", "hardware-with-backup"),
        ("pin =", "accept_host_loss = true\npin =", "this key is for `kind = \"file\"`"),
        ("pin =", "key = \"x\"\npin =", "this key is for `kind = \"transit\"`"),
        ("path = \"wrapped\"\n", "", "the key `path` is missing"),
    ] {
        let refused = with(&TOKEN.replace(from, to)).unwrap_err();
        assert!(refused.contains(said) && !refused.contains("4711-0815"), "{from} -> {to}: {refused}");
    }
    let foreign = with(&format!("{FILE}pin = \"x\"\n")).unwrap_err();
    assert!(foreign.contains("this key is for `kind = \"pkcs11\"`"), "{foreign}");
}
