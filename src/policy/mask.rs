//! Masks: what may be shown of a value to people. Storage never masks; it encrypts.
//!
//! Invariants:
//! * A value that does not have the form of its kind is shown as [`HIDDEN`], whole: nothing of it, not even its length.
//! * Masking never fails and never returns the value itself, except for kinds that are no personal data on their own.
//! * The strict profile shows at most one character at each end, because the last digits of an identity number also serve to
//!   identify its owner on the telephone.

mod address;
mod name;
mod number;
#[cfg(test)]
mod tests;
mod text;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classification::{Category, FieldKind, classify};
use super::registry::FieldSpec;
use crate::value::Value;

pub use number::{is_bank_card, is_customer_id, is_id_card, is_landline, is_mobile};

/// How much of a field somebody sees who is about to verify a customer or to record a request. Of identity numbers, and of whatever
/// is sensitive, only the strict mask: an identity number's last digits are what the customer is asked for.
#[must_use]
pub fn on_card(field: &FieldSpec, configured: Profile) -> Profile {
    let is_secret = matches!(field.kind, FieldKind::IdCard | FieldKind::Licence | FieldKind::SocialSecurity);
    if is_secret || classify(field).category == Category::Sensitive { Profile::Strict } else { configured }
}

/// What stands for a value of which nothing may be shown.
pub const HIDDEN: &str = "******";

/// How much a mask shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// As much as people need to recognise a record they know.
    #[default]
    Standard,
    /// One character at each end at most.
    Strict,
}

/// The mask of a value of this kind. Blank text stays blank.
#[must_use]
pub fn mask(kind: FieldKind, value: &str, profile: Profile) -> String {
    let value = value.trim();
    if value.is_empty() {
        return String::new();
    }
    let strict = profile == Profile::Strict;
    let masked = match kind {
        FieldKind::Name | FieldKind::BirthDate | FieldKind::IpAddress if strict => None,
        FieldKind::Name => name::mask(value),
        FieldKind::IdCard => number::id_card(value, strict),
        FieldKind::Mobile => number::mobile(value, strict),
        FieldKind::Landline => number::landline(value, strict),
        FieldKind::BankCard => number::bank_card(value, strict),
        FieldKind::Licence | FieldKind::SocialSecurity => {
            number::id_card(value, strict).or_else(|| number::identifier(value, strict))
        }
        FieldKind::DeviceId => number::identifier(value, strict),
        FieldKind::Email => text::email(value, strict),
        FieldKind::Address => address::mask(value, strict),
        FieldKind::BirthDate => number::birth_date(value),
        FieldKind::IpAddress => number::ip_address(value),
        FieldKind::FreeText | FieldKind::Complaint | FieldKind::Preference | FieldKind::History => {
            Some(text::mask(value, strict))
        }
        FieldKind::CustomerId => Some(value.to_owned()).filter(|value| is_customer_id(value)),
        FieldKind::PurchaseFrequency => Some(value.to_owned()).filter(|value| is_plain_number(value)),
        FieldKind::Credit
        | FieldKind::Health
        | FieldKind::Biometric
        | FieldKind::Belief
        | FieldKind::Location
        | FieldKind::Password => None,
    };
    masked.unwrap_or_else(|| HIDDEN.to_owned())
}

/// The mask of a database value: numbers as their digits, bytes hidden, NULL blank.
#[must_use]
pub fn mask_value(kind: FieldKind, value: &Value, profile: Profile) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(number) => mask(kind, &number.to_string(), profile),
        Value::Text(text) => mask(kind, text, profile),
        Value::Real(_) | Value::Blob(_) => HIDDEN.to_owned(),
    }
}

/// Masks what can be recognised inside a text (telephone, identity and card numbers, e-mail addresses); the rest is unchanged.
/// Names and addresses in running text cannot be recognised.
#[must_use]
pub fn mask_text(value: &str, profile: Profile) -> String {
    text::mask(value, profile == Profile::Strict)
}

/// The province, or province and city, of a Chinese address; none when it does not certainly begin with one.
#[must_use]
pub fn place(address: &str, to_city: bool) -> Option<String> {
    address::place(address, to_city)
}

fn is_plain_number(value: &str) -> bool {
    value.len() <= 8 && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// The first and last characters with asterisks between them.
fn ends(value: &str, first: usize, last: usize) -> String {
    let length = value.chars().count();
    let middle = length.saturating_sub(first + last);
    let head = value.chars().take(first);
    head.chain(std::iter::repeat_n('*', middle)).chain(value.chars().skip(first + middle)).collect()
}
