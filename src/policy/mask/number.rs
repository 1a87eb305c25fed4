//! Numbers with a known form: checks of the form, and masks that show part of what passes them.

use chrono::NaiveDate;

use super::ends;

/// Whether this is a resident identity number: 17 digits and a check character (GB 11643, ISO 7064 MOD 11-2). The check
/// character can be a capital X.
#[must_use]
pub fn is_id_card(text: &str) -> bool {
    // Weights of the first 17 digits: powers of two modulo eleven, as the standard lists them.
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    const CHECKS: &[u8; 11] = b"10X98765432";
    let bytes = text.as_bytes();
    let Some((check, digits)) = bytes.split_last().filter(|(_, digits)| digits.len() == 17) else { return false };
    if !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = digits.iter().zip(WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    CHECKS[(sum % 11) as usize] == *check
}

/// Whether this is a Chinese mobile number: eleven digits from 13 to 19.
#[must_use]
pub fn is_mobile(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 11 && all_digits(text) && bytes[0] == b'1' && (b'3'..=b'9').contains(&bytes[1])
}

/// Whether this is a Chinese landline number with its area code: `010-65551234`, `0531-7654321`, or without the hyphen.
#[must_use]
pub fn is_landline(text: &str) -> bool {
    split_landline(text).is_some()
}

/// Whether this is a bank card number: 12 to 19 digits with the Luhn check digit (ISO/IEC 7812-1).
#[must_use]
pub fn is_bank_card(text: &str) -> bool {
    (12..=19).contains(&text.len()) && all_digits(text) && has_luhn_digit(text)
}

/// Whether this is a customer id: a capital C, a date that exists as YYYYMMDD, six digits.
#[must_use]
pub fn is_customer_id(text: &str) -> bool {
    let Some(digits) = text.strip_prefix('C').filter(|digits| digits.len() == 14 && all_digits(digits)) else {
        return false;
    };
    let part = |from: usize, to: usize| digits[from..to].parse::<u32>().unwrap_or(0);
    NaiveDate::from_ymd_opt(part(0, 4) as i32, part(4, 6), part(6, 8)).is_some()
}

pub(super) fn id_card(text: &str, strict: bool) -> Option<String> {
    let (first, last) = if strict { (1, 1) } else { (6, 6) };
    is_id_card(text).then(|| ends(text, first, last))
}

/// `13812345678` → `138****5678`; a country code (`+86`, `0086`, `86`) stays in front as `+86`, separators go.
pub(super) fn mobile(text: &str, strict: bool) -> Option<String> {
    let digits = without_separators(text);
    let behind_code = ["+86", "0086", "86"].iter().find_map(|code| digits.strip_prefix(code));
    let (country, number) = match behind_code.filter(|number| is_mobile(number)) {
        Some(number) => ("+86 ", number),
        None => ("", digits.as_str()),
    };
    let (first, last) = if strict { (1, 1) } else { (3, 4) };
    is_mobile(number).then(|| format!("{country}{}", ends(number, first, last)))
}

/// `010-65551234` → `010-****1234`: the area code and the last four digits stay.
pub(super) fn landline(text: &str, strict: bool) -> Option<String> {
    let (area, local) = split_landline(text)?;
    if strict {
        return Some(ends(&format!("{area}{local}"), 1, 1));
    }
    Some(format!("{area}-{}", ends(local, 0, 4)))
}

/// The area code (010, 02x, or four digits from 03 to 09) and the local number of seven or eight digits.
fn split_landline(text: &str) -> Option<(&str, &str)> {
    let length = if text.starts_with("01") || text.starts_with("02") { 3 } else { 4 };
    let (area, rest) = text.split_at_checked(length)?;
    let local = rest.strip_prefix(['-', ' ']).unwrap_or(rest);
    let area_exists = area == "010" || matches!(area.as_bytes(), [b'0', b'2'..=b'9', ..]);
    let local_exists = matches!(local.len(), 7 | 8) && !local.starts_with(['0', '1']);
    (area_exists && local_exists && all_digits(area) && all_digits(local)).then_some((area, local))
}

/// `6222021234567890123` → `622************0123`. The check digit is not asked for: accounts have none.
pub(super) fn bank_card(text: &str, strict: bool) -> Option<String> {
    let digits = without_separators(text);
    let (first, last) = if strict { (1, 1) } else { (3, 4) };
    // Of a shorter number the seven digits shown would be most of it.
    ((12..=30).contains(&digits.len()) && all_digits(&digits)).then(|| ends(&digits, first, last))
}

/// Another identifier of letters and digits: two characters at each end of at least ten.
pub(super) fn identifier(text: &str, strict: bool) -> Option<String> {
    let shown = if strict { 1 } else { 2 };
    let plain = text.len() >= 10 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    plain.then(|| ends(text, shown, shown))
}

/// `1990-01-01` → `1990-**-**`.
pub(super) fn birth_date(text: &str) -> Option<String> {
    let date = text.get(..10).unwrap_or(text);
    NaiveDate::parse_from_str(date, "%Y-%m-%d").ok().filter(|_| date.len() == 10)?;
    Some(format!("{}-**-**", &date[..4]))
}

/// `192.0.2.7` → `192.0.*.*`; of an address of version 6 nothing is shown.
pub(super) fn ip_address(text: &str) -> Option<String> {
    let address: std::net::Ipv4Addr = text.parse().ok()?;
    let [first, second, ..] = address.octets();
    Some(format!("{first}.{second}.*.*"))
}

pub(super) fn has_luhn_digit(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let value = u32::from(digit - b'0') * if place % 2 == 1 { 2 } else { 1 };
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn without_separators(text: &str) -> String {
    text.chars().filter(|letter| !matches!(letter, ' ' | '-')).collect()
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
