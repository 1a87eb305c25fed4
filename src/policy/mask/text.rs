//! Running text: e-mail addresses and numbers that identify people are masked where they stand, the rest is left alone.
//!
//! Numbers of nine digits and more are masked whatever they are: those without a known form are hidden. Shorter ones stay
//! (dates, amounts, order numbers) unless several groups make up a known form together: `138 1234 5678`, `(010) 6555-1234`.

use super::number::{bank_card, has_luhn_digit, id_card, is_id_card, is_mobile, landline, mobile};
use super::{HIDDEN, ends};

/// From so many digits on, a number in running text counts as an identifier.
const IDENTIFIER_DIGITS: usize = 9;
/// The most groups that are tried together.
const MOST_GROUPS: usize = 6;

/// `somebody@example.com` → `s***@example.com`; `None` for what is no e-mail address.
pub(super) fn email(text: &str, strict: bool) -> Option<String> {
    let letters: Vec<char> = text.chars().collect();
    let (end, masked) = email_at(&letters, 0, strict)?;
    (end == letters.len()).then_some(masked)
}

/// Masks everything recognisable in a text.
pub(super) fn mask(text: &str, strict: bool) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let fresh_word = at == 0 || !is_local_part(letters[at - 1]);
        let found = if fresh_word { email_at(&letters, at, strict) } else { None };
        let found = found.or_else(|| digit(letters[at]).and_then(|_| number_at(&letters, at, strict)));
        if let Some((end, masked)) = found {
            out.push_str(&masked);
            at = end;
        } else {
            // An unremarkable number is copied whole, so that its tail is not looked at again.
            let run = if digit(letters[at]).is_some() { digits_at(&letters, at).len() } else { 1 };
            out.extend(&letters[at..at + run]);
            at += run;
        }
    }
    out
}

/// The end and the mask of the e-mail address that begins at `at`.
fn email_at(letters: &[char], at: usize, strict: bool) -> Option<(usize, String)> {
    let local = letters[at..].iter().take_while(|letter| is_local_part(**letter)).count();
    let sign = at + local;
    if local == 0 || letters.get(sign) != Some(&'@') {
        return None;
    }
    let domain = &letters[sign + 1..];
    let length =
        domain.iter().take_while(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.')).count();
    // A full stop behind the address belongs to the sentence.
    let length = domain[..length].iter().rposition(char::is_ascii_alphanumeric)? + 1;
    let domain: String = domain[..length].iter().collect();
    if !domain.contains('.') || domain.split('.').any(str::is_empty) {
        return None;
    }
    let masked = match (strict, local) {
        (true, _) => "***@***".to_owned(),
        (false, 1) => format!("***@{domain}"),
        (false, _) => format!("{}***@{domain}", letters[at]),
    };
    Some((sign + 1 + length, masked))
}

fn is_local_part(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '%' | '+' | '-')
}

/// The end and the mask of the number that begins at `at`, if it is one that must be masked.
fn number_at(letters: &[char], at: usize, strict: bool) -> Option<(usize, String)> {
    let first = digits_at(letters, at);
    if first.len() >= IDENTIFIER_DIGITS {
        let (digits, end) = with_check_letter(letters, first, at);
        return Some((end, long_number(&digits, strict)));
    }
    let before = at.checked_sub(1).map(|before| letters[before]);
    let groups = groups_at(letters, at, before == Some('(') || before == Some('（'));
    let abroad = matches!(before, Some('+' | '＋'));
    // The longest run of groups with a known form wins: an identity number is not cut down to a telephone number.
    (1..=groups.len()).rev().find_map(|count| {
        let chosen = &groups[..count];
        let digits: String = chosen.iter().map(|(_, digits)| digits.as_str()).collect();
        let lengths: Vec<usize> = chosen.iter().map(|(_, digits)| digits.len()).collect();
        let (digits, end) = with_check_letter(letters, digits, chosen.last()?.0);
        grouped_number(&digits, &lengths, abroad, strict).map(|masked| (end, masked))
    })
}

/// The digits with the X of an identity number behind the group at `last_group` if there is one, and where that ends.
fn with_check_letter(letters: &[char], digits: String, last_group: usize) -> (String, usize) {
    let end = last_group + digits_at(letters, last_group).len();
    let behind = letters.get(end + 1).is_some_and(char::is_ascii_alphanumeric);
    if digits.len() == 17 && matches!(letters.get(end), Some('X' | 'x' | 'Ｘ')) && !behind {
        return (digits + "X", end + 1);
    }
    (digits, end)
}

fn long_number(digits: &str, strict: bool) -> String {
    let masked = match digits.len() {
        11 | 12 if digits.starts_with('0') => landline(digits, strict),
        11 => mobile(digits, strict),
        13 | 15 if is_mobile_behind_country_code(digits) => {
            let (country, number) = digits.split_at(digits.len() - 11);
            mobile(number, strict).map(|masked| format!("{country}{masked}"))
        }
        15 => None,
        18 => id_card(digits, strict),
        12..=19 => bank_card(digits, strict),
        _ => None,
    };
    masked.unwrap_or_else(|| HIDDEN.to_owned())
}

fn is_mobile_behind_country_code(digits: &str) -> bool {
    digits.strip_prefix("0086").or_else(|| digits.strip_prefix("86")).is_some_and(is_mobile)
}

/// The mask of a number written in groups of these lengths, if it has a known form.
fn grouped_number(digits: &str, lengths: &[usize], abroad: bool, strict: bool) -> Option<String> {
    if abroad && digits.len() >= IDENTIFIER_DIGITS && !digits.starts_with("86") {
        return Some(HIDDEN.to_owned());
    }
    if lengths.len() < 2 {
        return None;
    }
    if lengths.len() <= 3 && is_mobile(digits) {
        return mobile(digits, strict);
    }
    if is_id_card(digits) {
        return id_card(digits, strict);
    }
    let is_area_code = matches!(lengths, [3 | 4, ..]) && digits.starts_with('0');
    if is_area_code
        && lengths.len() <= 3
        && let Some(masked) = landline(digits, strict)
    {
        return Some(masked);
    }
    let (last, others) = lengths.split_last()?;
    let in_fours = others.len() >= 2 && others.iter().all(|length| *length == 4) && *last <= 4;
    let card = match digits.len() {
        14..=19 if in_fours => true,
        12..=19 => lengths.iter().all(|length| *length >= 3) && has_luhn_digit(digits),
        _ => false,
    };
    card.then(|| if strict { ends(digits, 1, 1) } else { ends(digits, 3, 4) })
}

/// The groups of digits from `at` on that stand one separator apart, each with where it begins. Long ones stand for themselves.
fn groups_at(letters: &[char], at: usize, in_brackets: bool) -> Vec<(usize, String)> {
    let mut groups = Vec::new();
    let mut next = at;
    while groups.len() < MOST_GROUPS {
        let digits = digits_at(letters, next);
        if digits.is_empty() || digits.len() >= IDENTIFIER_DIGITS {
            break;
        }
        let end = next + digits.len();
        groups.push((next, digits));
        next = match letters.get(end) {
            Some(')' | '）') if in_brackets && groups.len() == 1 => {
                end + 1 + usize::from(matches!(letters.get(end + 1), Some(' ' | '-')))
            }
            Some(' ' | '-' | '－' | '‑' | '–') => end + 1,
            _ => break,
        };
    }
    groups
}

/// The run of digits at `at`, in ASCII.
fn digits_at(letters: &[char], at: usize) -> String {
    letters.get(at..).unwrap_or_default().iter().map_while(|letter| digit(*letter)).collect()
}

/// A digit, also one of full width, in ASCII.
fn digit(letter: char) -> Option<char> {
    match letter {
        '0'..='9' => Some(letter),
        '０'..='９' => char::from_digit(u32::from(letter) - u32::from('０'), 10),
        _ => None,
    }
}
