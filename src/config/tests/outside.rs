//! `[[outside_key]]`: bound to a policy or to subjects, never to both or neither, and always to fields that exist.

use super::*;

const KEY: &str = r#"
[[outside_key]]
name = "addresses"
kind = "transit"
address = "https://bao.example.com:8200"
mount = "fields"
token = "${TOKEN}"
snapshot_retention_days = 7
key = "addresses-2023"
policy = "completed-orders"
period = "2023"
fields = ["orders.shipping_address"]
encrypted_since = "2023-01-01"
ever_in_clear = false
"#;

fn with(key: &str) -> Result<Configuration, String> {
    let variable = |name: &str| (name == "TOKEN").then(|| "hunter2".to_owned());
    read_with(&format!("{HEAD}{SHOP}{POLICY}{key}"), &variable)
}

#[test]
fn a_policys_key_and_a_family_of_keys_are_read() {
    let configuration = with(KEY).unwrap();
    let key = &configuration.outside_keys[0];
    assert_eq!((key.name.as_str(), key.access.place()[1], key.ever_in_clear), ("addresses", "fields", false));
    assert_eq!(key.collections(), [("shop", "orders")]);
    let BoundTo::Policy { policy, period, retired, .. } = &key.bound else { panic!("{key:?}") };
    assert_eq!(
        (policy.as_str(), period.unwrap().to_string(), *retired),
        ("completed-orders", "2023".to_owned(), false)
    );
    assert!(!format!("{configuration:?}{}", configuration.show()).contains("hunter2"));

    let bound = "key = \"addresses-2023\"\npolicy = \"completed-orders\"\nperiod = \"2023\"\n";
    let family = KEY.replace(bound, "subjects = true\n").replace("ever_in_clear = false", "ever_in_clear = true");
    let family = family.replace("orders.shipping_address", "shop.orders.shipping_address");
    let read = with(&family.replace("= true\n", "= true\nin_clear_until = \"2022-12-31\"\n").replacen(
        "subjects = true\nin_clear_until = \"2022-12-31\"",
        "subjects = true",
        1,
    ));
    let read = read.unwrap();
    assert_eq!(read.outside_keys[0].bound, BoundTo::Subjects);
    assert_eq!(read.outside_keys[0].in_clear_until.unwrap().to_string(), "2022-12-31");
    assert!(read.outside_keys[0].ever_in_clear);
}

#[test]
fn what_does_not_fit_is_refused() {
    for (from, to, told) in [
        ("period = \"2023\"", "period = \"spring\"", "not a period"),
        ("period = \"2023\"", "period = \"open\"", "not a period"),
        ("period = \"2023\"", "subjects = true", "either to a policy or to subjects"),
        ("policy = \"completed-orders\"\n", "", "either to a policy or to subjects"),
        ("key = \"addresses-2023\"\n", "", "either to a policy or to subjects"),
        ("policy = \"completed-orders\"", "policy = \"completed-order\"", "there is no policy"),
        ("key = \"addresses-2023\"", "key = \"../root\"", "a key's name has letters"),
        ("mount = \"fields\"", "mount = \"../sys\"", "with `/` between parts"),
        ("orders.shipping_address", "order.shipping_address", "is no field of one registered collection"),
        ("orders.shipping_address", "orders.", "is no field of one registered collection"),
        ("[\"orders.shipping_address\"]", "[]", "it seals no field"),
        ("https://", "http://", "plain http"),
        ("token = \"${TOKEN}\"\n", "", "how the agent logs in"),
        ("snapshot_retention_days = 7\n", "", "`snapshot_retention_days` is missing"),
        ("snapshot_retention_days = 7", "snapshot_retention_days = 9999", "at most 3650 days"),
        ("ever_in_clear = false\n", "", "`ever_in_clear` is missing"),
        ("ever_in_clear = false", "ever_in_clear = false\nin_clear_until = \"2022-12-31\"", "never to have been"),
        ("kind = \"transit\"", "kind = \"google-kms\"", "is no value for `kind`"),
        ("kind = \"transit\"", "kind = \"aws-kms\"", "this key is for `kind = \"transit\"`"),
        ("mount = \"fields\"", "region = \"eu-west-1\"", "this key is for `kind = \"aws-kms\"`"),
        ("address = \"https://bao.example.com:8200\"\n", "", "`address` is missing"),
        ("name = \"addresses\"", "name = \"li lei\"", "a name has 1 to 64"),
        ("mount", "mont", "unknown key `mont`"),
    ] {
        let text = KEY.replace(from, to);
        assert_ne!(text, KEY, "{from}");
        let error = with(&text).unwrap_err();
        assert!(error.contains(told), "{from} -> {to}: {error}");
        assert!(!error.contains("hunter2"));
    }
    let twice = with(&format!("{KEY}{KEY}")).unwrap_err();
    assert!(twice.contains("two outside keys are called `addresses`"), "{twice}");
}

/// The same keys in AWS KMS.
fn in_kms(more: &str) -> String {
    let transit = "kind = \"transit\"\naddress = \"https://bao.example.com:8200\"\nmount = \"fields\"\ntoken = \"${TOKEN}\"\n\
                   snapshot_retention_days = 7\n";
    assert!(KEY.contains(transit));
    KEY.replace(transit, &format!("kind = \"aws-kms\"\n{more}"))
}

const KMS: &str = "region = \"eu-west-1\"\nsealed_prefix = \"AQICAH\"\n";

#[test]
fn keys_in_aws_kms_are_read() {
    let own = "access_key_id = \"AKID\"\nsecret_access_key = \"${TOKEN}\"\ndeletion_window_days = 30\n";
    let configuration = with(&in_kms(&format!("{KMS}{own}"))).unwrap();
    let OutsideAccess::AwsKms { setup, sealed_prefix } = &configuration.outside_keys[0].access else { panic!() };
    assert_eq!((setup.place().as_str(), setup.deletion_window_days), ("https://kms.eu-west-1.amazonaws.com", 30));
    assert_eq!((setup.keys.is_some(), sealed_prefix.as_slice()), (true, b"AQICAH".as_slice()));
    assert!(!format!("{configuration:?}{}", configuration.show()).contains("hunter2"));
    let bytes = with(&in_kms(&KMS.replace("AQICAH", "hex:0102"))).unwrap();
    let OutsideAccess::AwsKms { setup, sealed_prefix } = &bytes.outside_keys[0].access else { panic!() };
    assert_eq!((setup.deletion_window_days, sealed_prefix.as_slice()), (7, [1, 2].as_slice()));
    assert_eq!(bytes.outside_keys[0].access.policy_file(), "config/aws-kms-outside-policy.json");
}

#[test]
fn what_keys_in_aws_kms_do_not_have_is_refused() {
    for (from, to, told) in [
        ("region = \"eu-west-1\"\n", "", "`region` is missing"),
        ("sealed_prefix = \"AQICAH\"\n", "", "`sealed_prefix` is missing"),
        ("AQICAH", "", "nothing is told apart"),
        ("AQICAH", "hex:", "nothing is told apart"),
        ("AQICAH", "hex:xyz", "nothing is told apart"),
        ("sealed_prefix", "deletion_window_days = 3\nsealed_prefix", "7 to 30 days"),
        ("sealed_prefix", "access_key_id = \"AKID\"\nsealed_prefix", "without `secret_access_key`"),
        ("sealed_prefix", "snapshot_retention_days = 7\nsealed_prefix", "this key is for `kind = \"transit\"`"),
    ] {
        let text = KMS.replace(from, to);
        assert_ne!(text, KMS, "{from}");
        let error = with(&in_kms(&text)).unwrap_err();
        assert!(error.contains(told), "{from} -> {to}: {error}");
    }
}
