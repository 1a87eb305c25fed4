//! How the values of a row are made anonymous, so that the row may stay. Pure; random surrogates are made where rows are
//! changed.
//!
//! Invariants:
//! * What cannot be read as what it should be gives nothing: the caller then takes the whole value away.
//! * A coarser value of a coarser value is the same value.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mask;

/// What becomes of a field of an anonymised row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// It becomes NULL.
    Null,
    /// It shows no more than the strict mask of its kind.
    Mask,
    /// It becomes a random value of the same form, which says nothing about the old one.
    Surrogate,
    /// It becomes this value.
    Fixed(String),
    /// It becomes coarser.
    Generalise(Coarseness),
}

/// How coarse a generalised value becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Coarseness {
    /// A date or a place, to this level.
    Level(Level),
    /// A number, down to a multiple of this.
    Step(u64),
}

/// How much of a date or a place is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "CoarserLevel")]
pub enum Level {
    /// The first day of the month.
    Month,
    /// The first day of the quarter.
    Quarter,
    /// The first day of the year.
    Year,
    /// Province and city, or the first four digits of a postal code.
    City,
    /// The province, or the first two digits of a postal code.
    Province,
}

impl Level {
    /// Whether it is about places (otherwise about dates).
    #[must_use]
    pub fn is_place(self) -> bool {
        matches!(self, Self::City | Self::Province)
    }
}

/// What becomes of a row whose group is too small to hide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SmallGroups {
    /// It stays as it is, with that reason.
    #[default]
    Keep,
    /// It goes.
    Erase,
}

/// The smallest group that may be left, unless the policy wants larger ones; no policy may want smaller ones.
pub const SMALLEST_GROUP: u32 = 5;

/// The first day of the date's month, quarter or year, in the same form; a time becomes midnight.
#[must_use]
pub fn coarser_date(text: &str, level: Level) -> Option<String> {
    let (date, rest) = text.trim().split_at_checked(10)?;
    chrono::NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let month: u32 = date.get(5..7)?.parse().ok()?;
    let month = match level {
        Level::Month => month,
        Level::Quarter => (month - 1) / 3 * 3 + 1,
        Level::Year => 1,
        Level::City | Level::Province => return None,
    };
    let day = format!("{}-{month:02}-01", date.get(..4)?);
    let Some(separator) = rest.chars().next() else { return Some(day) };
    let time = rest.get(1..)?;
    if !matches!(separator, ' ' | 'T') || !time.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let zone = time.find(['+', '-', 'Z']).and_then(|at| time.get(at..)).unwrap_or_default();
    Some(format!("{day}{separator}00:00:00{zone}"))
}

/// The multiple of `step` at or below a decimal number.
#[must_use]
pub fn coarser_number(text: &str, step: u64) -> Option<String> {
    let text = text.trim();
    let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || step == 0 || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let whole: i128 = whole.parse().ok()?;
    let has_rest = fraction.bytes().any(|digit| digit != b'0');
    let floor = if is_negative { -whole - i128::from(has_rest) } else { whole };
    let step = i128::from(step);
    Some((floor.div_euclid(step).checked_mul(step)?).to_string())
}

/// The province, or province and city, of a Chinese address or postal code.
#[must_use]
pub fn coarser_place(text: &str, level: Level) -> Option<String> {
    let text = text.trim();
    let (kept, to_city) = match level {
        Level::Province => (2, false),
        Level::City => (4, true),
        _ => return None,
    };
    if text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(format!("{:0<6}", text.get(..kept)?));
    }
    mask::place(text, to_city)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_become_the_first_day_of_their_month_quarter_or_year() {
        for (text, level, expected) in [
            ("1990-05-17", Level::Month, Some("1990-05-01")),
            ("1990-05-17", Level::Quarter, Some("1990-04-01")),
            ("1990-12-31", Level::Quarter, Some("1990-10-01")),
            ("1990-05-17", Level::Year, Some("1990-01-01")),
            ("1990-05-17 23:59:59.123", Level::Month, Some("1990-05-01 00:00:00")),
            ("1990-05-17T23:59:59Z", Level::Year, Some("1990-01-01T00:00:00Z")),
            ("1990-05-17 23:59:59.5+08", Level::Year, Some("1990-01-01 00:00:00+08")),
            ("1990-02-30", Level::Year, None),
            ("17.05.1990", Level::Year, None),
            ("1990-05-17x", Level::Year, None),
            ("1990-05-17 noon", Level::Year, None),
            ("1990-05", Level::Month, None),
            ("出生于一九九零年五月", Level::Year, None),
            ("1990-05-17", Level::City, None),
        ] {
            let coarser = coarser_date(text, level);
            assert_eq!(coarser.as_deref(), expected, "{text}");
            assert!(coarser.is_none_or(|value| coarser_date(&value, level).as_ref() == Some(&value)), "{text}");
        }
    }

    #[test]
    fn numbers_go_down_to_a_multiple() {
        for (text, step, expected) in [
            ("12345", 1000, Some("12000")),
            ("999.99", 1000, Some("0")),
            ("-0.5", 10, Some("-10")),
            ("-20", 10, Some("-20")),
            ("-20.00", 10, Some("-20")),
            ("170141183460469231731687303715884105728", 10, None),
            ("1e3", 10, None),
            ("", 10, None),
            ("1", 0, None),
        ] {
            assert_eq!(coarser_number(text, step).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn places_keep_their_province_or_city() {
        for (text, level, expected) in [
            ("浙江省杭州市西湖区文三路1号", Level::City, Some("浙江省杭州市")),
            ("浙江省杭州市西湖区文三路1号", Level::Province, Some("浙江省")),
            ("北京市朝阳区建国路88号", Level::City, Some("北京市")),
            ("杭州市西湖区文三路1号", Level::City, Some("杭州市")),
            ("杭州市", Level::City, Some("杭州市")),
            ("杭州市西湖区文三路1号", Level::Province, None),
            ("310012", Level::City, Some("310000")),
            ("311215", Level::City, Some("311200")),
            ("311215", Level::Province, Some("310000")),
            ("1 High Street", Level::City, None),
            ("北京路夜市12号", Level::City, None),
        ] {
            let coarser = coarser_place(text, level);
            assert_eq!(coarser.as_deref(), expected, "{text}");
            assert!(coarser.is_none_or(|value| coarser_place(&value, level).as_ref() == Some(&value)), "{text}");
        }
    }

    #[test]
    fn methods_are_written_as_words_or_tables() {
        #[derive(Deserialize)]
        struct Rules {
            rule: Vec<Method>,
        }
        let text = r#"rule = ["null", "mask", "surrogate", {fixed = "-"}, {generalise = "year"}, {generalise = 1000}]"#;
        let rules: Rules = toml::from_str(text).unwrap();
        let coarse = |how| Method::Generalise(how);
        let fixed = Method::Fixed("-".to_owned());
        let (year, step) = (coarse(Coarseness::Level(Level::Year)), coarse(Coarseness::Step(1000)));
        assert_eq!(rules.rule, [Method::Null, Method::Mask, Method::Surrogate, fixed, year, step]);
        assert!(toml::from_str::<Rules>(r#"rule = [{generalise = "decade"}]"#).is_err());
    }
}
