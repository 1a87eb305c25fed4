//! Tests of the scan for personal data, with Chinese and Latin examples.

use proptest::prelude::*;

use super::issue;
use super::lint::{PersonalShape, check_payload, personal_shape};
use super::tests::{accepted, refused, sample_with_id, signer};

#[test]
fn personal_data_is_recognised() {
    use PersonalShape::{BankCard, Email, IdentityNumber, Mobile};
    for (text, shape) in [
        ("zhang.san@example.com", Email),
        ("mailto:j_smith+x@mail.example.co.uk", Email),
        ("crm/zhang%40example.com", Email),
        ("张三@公司.中国", Email),
        ("ｚｓ＠example．com", Email),
        ("13812345678", Mobile),
        ("+8613812345678", Mobile),
        ("138-1234-5678", Mobile),
        ("138 1234 5678", Mobile),
        ("+86 138 1234 5678", Mobile),
        ("orders/customer_13812345678.json", Mobile),
        ("u13812345678x", Mobile),
        ("１３８１２３４５６７８", Mobile),
        ("张三13812345678", Mobile),
        ("110101199001011237", IdentityNumber),
        ("11010119900101123X", IdentityNumber),
        ("id=11010119900101123x", IdentityNumber),
        ("110101900101123", IdentityNumber),
        ("6222021234567890128", BankCard),
        ("4111 1111 1111 1111", BankCard),
        ("card-4111111111111111", BankCard),
    ] {
        assert_eq!(personal_shape(text), Some(shape), "{text}");
    }
    for text in [
        "crm.customers",
        "2026-03-05T10:00:00.123Z",
        "0.1.0",
        "138123456789",
        "12812345678",
        "1381234567",
        "user@localhost",
        "hmac-sha256:k7",
        "postgres/crm/orders",
        "4111111111111112",
        "@",
        "a@",
    ] {
        assert_eq!(personal_shape(text), None, "{text}");
    }
}

#[test]
fn nothing_personal_is_ever_signed() {
    let planted = [
        "张三",
        "John Smith",
        "zhang.san@example.com",
        "zhang.san%40example.com",
        "13812345678",
        "138-1234-5678",
        "110101199001011237",
        "6222021234567890128",
        "customers/13812345678",
    ];
    for text in planted {
        for place in 0..9 {
            let message = refused(|p| {
                let slot = match place {
                    0 => &mut p.targets[0].technique,
                    1 => &mut p.targets[0].location,
                    2 => &mut p.issuer.agent_id,
                    3 => &mut p.approvals[0].actor_ref,
                    4 => &mut p.targets[0].copies[0].copy_ref,
                    5 => &mut p.scope.data_categories[0],
                    6 => p.trigger.request_ref.as_mut().unwrap(),
                    7 => &mut p.issuer.controller,
                    _ => &mut p.policy.as_mut().unwrap().id,
                };
                text.clone_into(slot);
            });
            assert!(!message.contains(text), "{message}");
        }
    }
    // Random ids and digests are not mistaken for numbers, whatever digits they draw.
    for id in ["13812345-6789-7123-8123-411111111111", "11010119-9001-7112-8371-138123456780"] {
        issue(&sample_with_id(id), &signer()).unwrap();
    }
    let digits = format!("{}ab", "138123456781".repeat(5));
    accepted(|p| p.targets[0].keys[0].key_id_sha256 = digits + "cd");
}

#[test]
fn company_numbers_are_not_cards() {
    // Eighteen digits that end in a right Luhn digit and are a right social credit code (GB 32100) at the same time.
    let payload = |code: &str| format!(r#"{{"predicate":{{"issuer":{{"controller":"{code}"}}}}}}"#).into_bytes();
    let code = (0..100_000)
        .map(|n| format!("9111010855{n:08}"))
        .find(|code| personal_shape(code) == Some(PersonalShape::BankCard) && check_payload(&payload(code)).is_ok());
    let code = code.unwrap();
    assert!(check_payload(format!(r#"{{"other":"{code}"}}"#).as_bytes()).is_err());
    assert!(check_payload(&payload("4111111111111111")).is_err());
    assert!(check_payload(&payload("5493001KJTIIGC8Y1R12")).is_ok());
}

proptest! {
    #[test]
    fn planted_numbers_are_found_among_letters(
        before in "[a-z/_.]{0,8}", after in "[a-z/_.]{0,8}", tail in 100_000_000u64..1_000_000_000, second in 3u8..10
    ) {
        let text = format!("{before}1{second}{tail}{after}");
        prop_assert_eq!(personal_shape(&text), Some(PersonalShape::Mobile));
    }
}
