//! Random values of the same form as others, and ids that nobody has.
//!
//! A surrogate has the length of the value that it replaces, and letters, digits and signs where that has them; nothing else of
//! it. Where numbers of people have a check digit, a surrogate's is wrong on purpose, so that it is no living person's number.

use super::EraseError;
use crate::plan::anonymise::NOBODY_LENGTH;
use crate::policy::classification::FieldKind;
use crate::policy::mask::{is_bank_card, is_id_card, is_mobile};
use crate::random::Random;

/// The first and the number of the Chinese characters that names are made of here.
const HAN: (u32, u32) = (0x4e00, 0x5000);

/// A random text of the same form. Text without letters and digits gives random digits of the same length.
///
/// # Errors
/// When there is no randomness.
pub fn surrogate_text(kind: Option<FieldKind>, old: &str, random: &dyn Random) -> Result<String, EraseError> {
    let has_form = old.chars().any(char::is_alphanumeric);
    let mut new = String::new();
    for letter in old.chars() {
        new.push(match letter {
            '0'..='9' => digit(random)?,
            'a'..='z' => pick(b'a', 26, random)?,
            'A'..='Z' => pick(b'A', 26, random)?,
            '\u{4e00}'..='\u{9fff}' => char::from_u32(HAN.0 + below(HAN.1, random)?).unwrap_or('某'),
            letter if letter.is_alphanumeric() => pick(b'a', 26, random)?,
            _ if !has_form => digit(random)?,
            sign => sign,
        });
    }
    Ok(no_real_number(kind, new))
}

/// A random whole number with as many digits.
///
/// # Errors
/// When there is no randomness.
pub fn surrogate_number(old: &str, random: &dyn Random) -> Result<String, EraseError> {
    let (sign, digits) = old.strip_prefix('-').map_or(("", old), |digits| ("-", digits));
    // Numbers of these lengths may just fit into their columns; a 1 in front always does.
    let first = match digits.len() {
        0 | 1 => digit(random)?,
        3 | 5 | 7 | 10 | 19 => '1',
        _ => pick(b'1', 9, random)?,
    };
    let mut new = format!("{sign}{first}");
    for place in 1..digits.len() {
        // 100 to 109 fit into a signed byte.
        new.push(if digits.len() == 3 && place == 1 { '0' } else { digit(random)? });
    }
    Ok(new)
}

/// An id that nobody has: a random word, or a random negative number.
///
/// # Errors
/// When there is no randomness.
pub fn nobody(is_number: bool, random: &dyn Random) -> Result<String, EraseError> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes)?;
    if is_number {
        let [a, b, c, d, ..] = bytes;
        return Ok((-i64::from(u32::from_be_bytes([a & 0x7f, b, c, d])) - 1).to_string());
    }
    let word = format!("nobody-{}", hex::encode(bytes));
    Ok(word.chars().take(NOBODY_LENGTH).collect())
}

fn digit(random: &dyn Random) -> Result<char, EraseError> {
    pick(b'0', 10, random)
}

fn pick(first: u8, count: u8, random: &dyn Random) -> Result<char, EraseError> {
    Ok(char::from(first + below(u32::from(count), random)? as u8))
}

/// A random number below `count`; its distance from an even choice is below one in a hundred thousand.
fn below(count: u32, random: &dyn Random) -> Result<u32, EraseError> {
    let mut bytes = [0; 4];
    random.fill(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes) % count)
}

/// Breaks what would be a valid identity, card or mobile number.
fn no_real_number(kind: Option<FieldKind>, text: String) -> String {
    let is_asked = |kinds: &[FieldKind]| kind.is_none_or(|kind| kinds.contains(&kind));
    let identity = is_asked(&[FieldKind::IdCard, FieldKind::Licence, FieldKind::SocialSecurity]);
    let is_valid = |text: &str| identity && is_id_card(text) || is_asked(&[FieldKind::BankCard]) && is_bank_card(text);
    if is_valid(&text) {
        // Either check has one right last digit, so of three one is wrong for both.
        let start = &text[..text.len() - 1];
        let others = ['0', '1', '2'].map(|last| format!("{start}{last}"));
        return others.into_iter().find(|other| !is_valid(other)).unwrap_or_default();
    }
    if is_asked(&[FieldKind::Mobile]) && is_mobile(&text) { format!("2{}", &text[1..]) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::testing::SeededRandom;

    #[test]
    fn a_surrogate_has_the_form_of_the_old_value_and_nothing_else_of_it() {
        let random = SeededRandom::new(3);
        for old in ["Zhang.San-88@example.com", "张三丰", "13812345678", "AB-1234 x", "÷÷"] {
            let new = surrogate_text(None, old, &random).unwrap();
            assert_eq!(new.chars().count(), old.chars().count(), "{old}");
            assert_ne!(new, old);
            let sign = |text: &str| text.char_indices().filter(|(_, c)| c.is_ascii_punctuation()).count();
            assert_eq!(sign(&new), sign(old), "{old} {new}");
            assert_ne!(new, surrogate_text(None, old, &random).unwrap(), "it is not derived from the value");
        }
        for (old, digits) in [("12345", 5), ("-77", 3), ("1", 1), ("9223372036854775807", 19), ("127", 3)] {
            for _ in 0..50 {
                let new = surrogate_number(old, &random).unwrap();
                assert_eq!((new.len(), new.parse::<i64>().is_ok()), (digits, true), "{old} {new}");
                assert!(old != "127" || new.parse::<i8>().is_ok());
            }
        }
    }

    #[test]
    fn no_surrogate_is_a_number_that_somebody_may_have() {
        let random = SeededRandom::new(4);
        for kind in [None, Some(FieldKind::IdCard), Some(FieldKind::BankCard), Some(FieldKind::Mobile)] {
            for old in ["110101199001011237", "6222021234567890123", "13812345678"] {
                for _ in 0..400 {
                    let new = surrogate_text(kind, old, &random).unwrap();
                    let is_real = match kind {
                        None => is_id_card(&new) || is_bank_card(&new) || is_mobile(&new),
                        Some(FieldKind::IdCard) => is_id_card(&new),
                        Some(FieldKind::BankCard) => is_bank_card(&new),
                        _ => is_mobile(&new),
                    };
                    assert!(!is_real, "{kind:?} {new}");
                }
            }
        }
        assert!(!is_id_card(&no_real_number(Some(FieldKind::IdCard), "110101199001011237".to_owned())));
        assert!(!is_bank_card(&no_real_number(None, "6222021234567890128".to_owned())));
        assert_eq!(no_real_number(Some(FieldKind::Mobile), "13812345678".to_owned()), "23812345678");
    }

    #[test]
    fn nobodys_ids_fit_and_are_negative_or_say_so() {
        let random = SeededRandom::new(5);
        for _ in 0..100 {
            let number: i32 = nobody(true, &random).unwrap().parse().unwrap();
            assert!(number < 0);
            let word = nobody(false, &random).unwrap();
            assert!(word.starts_with("nobody-") && word.len() == NOBODY_LENGTH);
        }
    }
}
