//! How two sets of rules differ.

use super::super::rules::{Change, compare};
use super::*;

fn rule(key: &str, bound: LegalBound) -> StatuteRule {
    StatuteRule { key: key.to_owned(), bound, counts_from: StartRule::Event, status: Status::Partly }
}

#[test]
fn changes_are_named_by_what_they_do_to_records() {
    let years = |years| LegalBound::Minimum(Period::of_years(years));
    let confirmed = |rule: StatuteRule| StatuteRule { status: Status::Confirmed, ..rule };
    let fiscal = |rule: StatuteRule| StatuteRule { counts_from: StartRule::AfterFiscalYear, ..rule };
    let cases = [
        (Some(rule("a", years(3))), Some(rule("a", years(3))), None),
        (Some(rule("a", years(3))), Some(rule("a", years(5))), Some(Change::Stricter)),
        (Some(rule("a", years(5))), Some(rule("a", years(3))), Some(Change::Looser)),
        (Some(rule("a", years(3))), Some(fiscal(rule("a", years(3)))), Some(Change::Stricter)),
        (Some(fiscal(rule("a", years(3)))), Some(rule("a", years(3))), Some(Change::Looser)),
        (Some(rule("a", years(3))), Some(rule("a", LegalBound::Permanent)), Some(Change::Stricter)),
        (Some(rule("a", years(3))), Some(rule("a", LegalBound::Duty)), Some(Change::Looser)),
        (Some(rule("a", LegalBound::Duty)), Some(rule("a", years(3))), Some(Change::Stricter)),
        (Some(rule("a", years(3))), Some(confirmed(rule("a", years(3)))), Some(Change::Other)),
        (None, Some(rule("a", years(3))), Some(Change::Added)),
        (Some(rule("a", years(3))), None, Some(Change::Removed)),
        // Shorter for some days, longer for others: some records may go earlier.
        (
            Some(rule("a", LegalBound::Minimum(Period::of_months(1)))),
            Some(rule("a", LegalBound::Minimum(Period::of_days(30)))),
            Some(Change::Looser),
        ),
    ];
    for (from, to, expected) in cases {
        let found = compare(from.as_slice(), to.as_slice());
        assert_eq!(found.first().map(|change| change.change), expected, "{from:?} {to:?}");
        assert!(found.iter().all(|change| change.key == "a" && change.from == from && change.to == to));
    }
}

#[test]
fn rules_are_written_and_read_back() {
    let statutes = BOOK.statutes.clone();
    let rule = PolicyRule::of(&policy("3 years", &[]), &statutes);
    let text = serde_json::to_string(&rule).unwrap();
    assert_eq!(serde_json::from_str::<PolicyRule>(&text).unwrap(), rule);
    let named = policy("3 years", &["cn.ecl.31", "cn.gone.1"]);
    assert_eq!(PolicyRule::under(&named, &BOOK).statutes.len(), 1, "what a catalogue does not have does not bind");
}
