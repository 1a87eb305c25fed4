//! A last look for personal data in what is about to be signed. Pure.
//!
//! Types and id rules already leave no room for free text; this catches the id that is a phone number. It looks for
//! shapes: e-mail address, mainland mobile number, 18- or 15-digit identity number, bank card. Names have no shape; the
//! rule that a string is an id in ASCII without spaces keeps them out. Random and hashed ids that our own formats
//! produce (UUID, hex digests, times) are skipped by their exact shape, because digits in them mean nothing.

use serde_json::Value;

use super::check::CheckError;
use crate::policy::mask::{is_bank_card, is_mobile};

/// Where the controller's public company number stands; a correct one may look like a card number.
const CONTROLLER: &str = "/predicate/issuer/controller";

/// What a string looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PersonalShape {
    /// Something@example.com.
    Email,
    /// 1 followed by 3–9 and nine digits, also with +86, spaces or hyphens.
    Mobile,
    /// A Chinese resident identity number: 17 digits and a digit or X, or the old 15 digits.
    IdentityNumber,
    /// 13 to 19 digits with a right check digit (ISO/IEC 7812, Luhn), also in groups.
    BankCard,
}

impl PersonalShape {
    /// The kind in words, for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Email => "an e-mail address",
            Self::Mobile => "a mobile number",
            Self::IdentityNumber => "an identity number",
            Self::BankCard => "a bank card number",
        }
    }
}

/// The first personal-data shape in a text.
#[must_use]
pub fn personal_shape(text: &str) -> Option<PersonalShape> {
    let text = normalise(text);
    if has_email(&text) {
        return Some(PersonalShape::Email);
    }
    digit_runs(&text).iter().find_map(|run| classify(run))
}

/// Refuses a JSON payload in which any string or member name is not an id, or looks like personal data.
pub fn check_payload(payload: &[u8]) -> Result<(), CheckError> {
    let value: Value = serde_json::from_slice(payload).map_err(|_| CheckError::new("/", "is not JSON"))?;
    walk(&value, &mut String::new())
}

fn walk(value: &Value, path: &mut String) -> Result<(), CheckError> {
    let length = path.len();
    match value {
        Value::String(text) => refuse(text, path),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(number, item)| {
            path.push_str(&format_path(&number.to_string()));
            let outcome = walk(item, path);
            path.truncate(length);
            outcome
        }),
        Value::Object(members) => members.iter().try_for_each(|(name, member)| {
            // The name itself goes into the path only after it was found harmless.
            refuse(name, path)?;
            path.push_str(&format_path(name));
            let outcome = walk(member, path);
            path.truncate(length);
            outcome
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn format_path(step: &str) -> String {
    format!("/{step}")
}

fn refuse(text: &str, path: &str) -> Result<(), CheckError> {
    if !super::check::is_id(text) {
        return Err(CheckError::new(path, "is not an id: ASCII letters, digits and . _ : / + - ( ) % { } * only"));
    }
    let is_company = path == CONTROLLER && (is_social_credit_code(text) || is_lei(text));
    if is_machine_made(text) || is_company {
        return Ok(());
    }
    match personal_shape(text) {
        Some(shape) => Err(CheckError::new(path, &format!("looks like {}", shape.name()))),
        None => Ok(()),
    }
}

/// Whether the text is, as a whole, one of our own random, hashed or time formats.
fn is_machine_made(text: &str) -> bool {
    let text = text.strip_prefix("evidence/").and_then(|rest| rest.strip_suffix(".ndjson")).unwrap_or(text);
    let is_time = chrono::DateTime::parse_from_rfc3339(text).is_ok();
    let keyed = text.strip_prefix("hmac-sha256:").and_then(|rest| rest.split_once(':'));
    let keyed = keyed.is_some_and(|(key, digest)| personal_shape(key).is_none() && super::check::is_sha256_hex(digest));
    let is_hex = text.len() >= 32
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && text.bytes().any(|byte| byte.is_ascii_alphabetic());
    is_time || keyed || is_hex || super::check::is_uuid(text)
}

/// Full-width forms as ASCII, percent-encoded bytes decoded: no disguise by writing.
fn normalise(text: &str) -> Vec<char> {
    let wide = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        '\u{3000}' => ' ',
        other => other,
    };
    let chars: Vec<char> = text.chars().map(wide).collect();
    let mut out = Vec::with_capacity(chars.len());
    let mut at = 0;
    while at < chars.len() {
        let byte = match chars.get(at..at + 3) {
            Some(['%', high, low]) => high.to_digit(16).zip(low.to_digit(16)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        if let Some(byte) = byte.and_then(|byte| u8::try_from(byte).ok()).filter(u8::is_ascii) {
            out.push(char::from(byte));
            at += 3;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

fn has_email(text: &[char]) -> bool {
    let local = |c: char| c.is_alphanumeric() || "._%+-".contains(c);
    text.iter().enumerate().filter(|(_, c)| **c == '@').any(|(at, _)| {
        let before = at > 0 && local(text[at - 1]);
        let domain: String = text[at + 1..].iter().take_while(|c| c.is_alphanumeric() || ".-".contains(**c)).collect();
        let dotted = domain.split_once('.').is_some_and(|(host, rest)| !host.is_empty() && rest.len() >= 2);
        before && dotted
    })
}

/// Digits (and a final X) that stand together; groups parted by single spaces or hyphens both each by itself and
/// joined.
fn digit_runs(text: &[char]) -> Vec<String> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if !text[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let mut joined = String::new();
        let mut groups = vec![String::new()];
        while let Some(c) = text.get(at) {
            let next_is_digit = text.get(at + 1).is_some_and(char::is_ascii_digit);
            if c.is_ascii_digit() || (matches!(c, 'X' | 'x') && joined.len() >= 17) {
                joined.push(*c);
                groups.iter_mut().last().into_iter().for_each(|group| group.push(*c));
            } else if matches!(c, ' ' | '-') && next_is_digit {
                groups.push(String::new());
            } else {
                break;
            }
            at += 1;
        }
        runs.append(&mut groups);
        runs.push(joined);
    }
    runs
}

fn classify(run: &str) -> Option<PersonalShape> {
    if is_mobile(run) || run.strip_prefix("86").is_some_and(is_mobile) {
        return Some(PersonalShape::Mobile);
    }
    if is_identity_number(run.as_bytes()) {
        return Some(PersonalShape::IdentityNumber);
    }
    let is_card = (13..=19).contains(&run.len()) && is_bank_card(run);
    is_card.then_some(PersonalShape::BankCard)
}

/// 18 characters whose 7th to 14th are a date of the 18th century or later, or 15 digits with a date of two-digit year.
/// The check digit is not asked for: a mistyped number is personal data too.
fn is_identity_number(digits: &[u8]) -> bool {
    let number = |range: std::ops::Range<usize>| {
        std::str::from_utf8(&digits[range]).ok().and_then(|text| text.parse::<u32>().ok())
    };
    let date = |month: Option<u32>, day: Option<u32>| {
        month.is_some_and(|month| (1..=12).contains(&month)) && day.is_some_and(|day| (1..=31).contains(&day))
    };
    match digits.len() {
        18 => {
            let year = number(6..10).is_some_and(|year| (1800..2200).contains(&year));
            digits[0] != b'0' && year && date(number(10..12), number(12..14))
        }
        15 => digits[0] != b'0' && digits.iter().all(u8::is_ascii_digit) && date(number(8..10), number(10..12)),
        _ => false,
    }
}

/// A unified social credit code with the right check character (GB 32100-2015).
fn is_social_credit_code(text: &str) -> bool {
    const ALPHABET: &[u8] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";
    let values: Option<Vec<usize>> =
        text.bytes().map(|byte| ALPHABET.iter().position(|letter| *letter == byte)).collect();
    let Some(values) = values.filter(|values| values.len() == 18) else { return false };
    let mut weight = 1;
    let mut sum = 0;
    for value in &values[..17] {
        sum += value * weight;
        weight = weight * 3 % 31;
    }
    (31 - sum % 31) % 31 == values[17]
}

/// A legal entity identifier with right check digits (ISO 17442, ISO/IEC 7064 MOD 97-10).
fn is_lei(text: &str) -> bool {
    let upper = text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    let remainder = text.chars().filter_map(|c| c.to_digit(36)).fold(0, |remainder, value| {
        let shifted = if value > 9 { remainder * 100 } else { remainder * 10 };
        (shifted + value) % 97
    });
    upper && remainder == 1
}
