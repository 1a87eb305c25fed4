//! A wrong PIN is tried once, by all processes together.

use wangchuan::keys::pkcs11_slot::{Pkcs11Setup, Pkcs11Slot};
use wangchuan::keys::slot::{PinTrouble, RootSlot, SlotError, TokenError};
use wangchuan::policy::registry::SecretText;
use wangchuan::random::SystemRandom;
use wangchuan::stores::Engine;

use crate::scenario::database::Database;
use crate::scenario::small;
use crate::scenario::workplace::Workplace;
use crate::support::softhsm::{PIN, SoftHsm};

const ID: [u8; 16] = [5; 16];
/// `CKR_PIN_INCORRECT`.
const INCORRECT: u64 = 0xa0;

fn trouble<T>(done: Result<T, SlotError>) -> PinTrouble {
    let error = done.err().unwrap();
    assert!(!error.is_retryable() && !error.to_string().contains(PIN), "{error}");
    match error {
        SlotError::Token(TokenError::Pin { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refused_pin_is_not_tried_again_before_somebody_acts() {
    let folder = tempfile::tempdir().unwrap();
    let Some((hsm, behind)) = SoftHsm::token().map(|hsm| hsm.behind(folder.path())) else { return };
    let good = hsm.setup(&folder.path().join("root"));
    let root = Pkcs11Slot::prepare(&good, ID).unwrap().create(1, &SystemRandom).await.unwrap();
    let wrong = Pkcs11Setup { pin: SecretText::new("000000".to_owned()), ..good.clone() };
    let slot = Pkcs11Slot::at(&wrong, ID).unwrap();
    assert_eq!(trouble(slot.open(1).await), PinTrouble::Refused);
    for _ in 0..3 {
        assert_eq!(trouble(slot.open(1).await), PinTrouble::HeldBack);
        // As another process.
        assert_eq!(trouble(Pkcs11Slot::at(&wrong, ID).unwrap().list().await), PinTrouble::HeldBack);
        assert_eq!(trouble(slot.destroy(1).await), PinTrouble::HeldBack);
    }
    assert_eq!(behind.count("LOGIN", INCORRECT), 1, "exactly one failed try");
    slot.allow_another_try().await.unwrap();
    assert_eq!(trouble(slot.shortcomings().await), PinTrouble::Refused);
    assert_eq!(trouble(slot.list().await), PinTrouble::HeldBack);
    assert_eq!(behind.count("LOGIN", INCORRECT), 2, "one more when it was asked for");

    // Corrected, it is tried at once, and what was refused is forgotten.
    assert!(root.is_same(&Pkcs11Slot::at(&good, ID).unwrap().open(1).await.unwrap()));
    assert_eq!(trouble(slot.open(1).await), PinTrouble::Refused);
    assert_eq!(trouble(slot.open(1).await), PinTrouble::HeldBack);
    assert_eq!(behind.count("LOGIN", INCORRECT), 3);
}

#[tokio::test]
async fn a_pin_that_could_lock_the_token_is_not_tried_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let Some((hsm, behind)) = SoftHsm::token().map(|hsm| hsm.behind(folder.path())) else { return };
    let slot = Pkcs11Slot::prepare(&hsm.setup(&folder.path().join("root")), ID).unwrap();
    slot.create(1, &SystemRandom).await.unwrap();
    let tries = behind.count("LOGIN", 0);
    // `CKF_USER_PIN_FINAL_TRY`, `CKF_USER_PIN_LOCKED`, `CKF_USER_PIN_TO_BE_CHANGED`.
    for (flag, expected) in
        [(0x2_0000, PinTrouble::FinalTry), (0x4_0000, PinTrouble::Locked), (0x8_0000, PinTrouble::ToBeChanged)]
    {
        behind.does(&format!("flags {flag}"));
        assert_eq!(trouble(slot.open(1).await), expected);
    }
    assert_eq!((behind.count("LOGIN", 0), behind.count("LOGIN", INCORRECT)), (tries, 0));
    // `CKF_USER_PIN_COUNT_LOW` warns of an earlier try, and hinders nothing.
    behind.does(&format!("flags {}", 0x1_0000));
    slot.open(1).await.unwrap();
}

#[test]
fn the_program_says_what_to_do_about_a_wrong_pin_and_goes_on_when_it_is_right() {
    let place = Workplace::new();
    let Some(hsm) = SoftHsm::in_folder(place.path()) else { return };
    let (hsm, behind) = hsm.behind(place.path());
    let database = Database::create(Engine::Sqlite, place.path()).unwrap();
    small::fill(&database);
    let program = hsm.program(place.path()).with("WANGCHUAN_TOKEN_PIN", PIN);
    let module = hsm.module.to_str().unwrap();
    let made = program
        .json(&["init", "--dir", ".", "--root", "pkcs11", "--module", module, "--token-label", &hsm.label])
        .ends(0);
    let text = std::fs::read_to_string(place.file("wangchuan.toml")).unwrap();
    assert!(text.contains("pin = \"${WANGCHUAN_TOKEN_PIN}\"") && !text.contains(PIN), "{made}");
    let start = text.find("\n# A registered data store").unwrap_or(text.len());
    place.write_private(
        "wangchuan.toml",
        &format!("{}\n{}{}", &text[..start], small::store(&database.url()), small::POLICY),
    );
    program.json(&["backup", "run"]).ends(0);
    let plan = program.json(&["plan"]).ends(0).text("hash");
    program.json(&["erase", "--plan", &plan]).ends(0);
    program.json(&["backup", "run"]).ends(0);

    let wrong = hsm.program(place.path()).with("WANGCHUAN_TOKEN_PIN", "000000");
    let refused =
        wrong.json(&["key", "shred", "--now"]).refuses(1, &["it refused the PIN", "--retry-pin", "Nothing was lost"]);
    assert_eq!((refused.text("code").as_str(), refused.document()["retry"].as_bool()), ("KEYS", Some(false)));
    wrong.json(&["key", "shred", "--now"]).refuses(1, &["refused this PIN before", "--retry-pin"]).never_says("000000");
    wrong.run(&["key", "status", "--lang", "zh"]).ends(1).says(&["处理", "--retry-pin", "没有丢失任何数据"]);
    wrong.run(&["doctor"]).ends(5).says(&["refused this PIN before", "--retry-pin"]);
    assert_eq!(behind.count("LOGIN", INCORRECT), 1, "exactly one failed try");
    wrong.run(&["doctor", "--retry-pin"]).ends(5).says(&["it refused the PIN"]);
    assert_eq!(behind.count("LOGIN", INCORRECT), 2);

    program.run(&["doctor"]).says(&["root slot of class D"]).never_says("✗ keys");
    let done = program.json(&["key", "shred", "--now"]).ends(0);
    assert!(!done.list("shredded_runs").is_empty(), "{done}");
    program.json(&["key", "verify"]).ends(0);
}
