//! Policies that anonymise, as far as the file alone can tell.

use super::*;

fn said(policy: &str) -> String {
    let shop = SHOP.replacen(
        "subject = \"customer_id\"",
        "subject = \"customer_id\"\nfields.phone = { kind = \"mobile\" }",
        1,
    );
    let policy = POLICY.replace("action = \"delete\"", policy);
    read(&format!("{HEAD}{shop}{policy}")).map_or_else(|error| error, |_| String::new())
}

#[test]
fn every_field_about_a_person_needs_a_rule_and_groups_must_not_be_small() {
    for (policy, expected) in [
        ("action = \"anonymise\"\nanonymise.phone = \"mask\"", ""),
        ("action = \"anonymise\"\nanonymise.phone = \"mask\"\nk = 7\nquasi = [\"born\"]", ""),
        ("action = \"anonymise\"", "says nothing of fields of `shop.orders` that are about a person: phone"),
        ("action = \"anonymise\"\nanonymise = { phone = \"mask\" }\nk = 4", "groups of 4 do not hide anybody"),
        ("action = \"anonymise\"\nanonymise = { phone = \"null\", total = { generalise = 1 } }", "no coarser: `total`"),
        ("action = \"anonymise\"\nanonymise = { phone = \"scramble\" }", "scramble"),
        ("action = \"delete\"\nanonymise = { phone = \"mask\" }", "mean nothing while the rows are deleted"),
        ("action = \"delete\"\nquasi = [\"phone\"]", "mean nothing while the rows are deleted"),
    ] {
        let error = said(policy);
        assert!(if expected.is_empty() { error.is_empty() } else { error.contains(expected) }, "{policy}: {error}");
    }
}
