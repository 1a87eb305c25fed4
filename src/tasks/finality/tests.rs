use chrono::Days;

use super::*;

fn day(offset: u64) -> NaiveDate {
    "2026-03-15".parse::<NaiveDate>().unwrap() + Days::new(offset)
}

fn dated(offset: u64) -> Residual {
    Residual::until(ResidualCode::DeclaredCopy, None, day(offset))
}

#[test]
fn a_copy_that_was_destroyed_has_no_date_left_and_others_keep_theirs() {
    let (shop, mill) = (Some("shop"), Some("mill"));
    let mut dates = CopyDates::default();
    dates.declared(shop, "dump", None);
    dates.declared(mill, "dump", Some(day(5)));
    dates.certified(shop, "dump", Some(day(30)));
    dates.certified(None, "tape", Some(day(9)));
    dates.destroyed(shop, "dump");
    dates.destroyed(shop, "tape");
    let left: Vec<String> = copies(dates).into_iter().map(|(_, of, _)| of).collect();
    assert_eq!(left, ["mill/dump", "tape"]);
}

#[test]
fn every_mixture_of_dates_is_past_only_after_its_last_day() {
    // Every set of up to three residuals, each without a date or with one of five, looked at on each of seven days.
    let choices: Vec<Option<Residual>> = std::iter::once(Some(Residual::undated(ResidualCode::UndatedCopy, None)))
        .chain((0..5).map(|offset| Some(dated(offset))))
        .chain(std::iter::once(None))
        .collect();
    for first in &choices {
        for second in &choices {
            for third in &choices {
                let set: Vec<Residual> = [first, second, third].into_iter().flatten().cloned().collect();
                let is_dated = set.iter().all(|residual| residual.until.is_some());
                for today in (0..7).map(day) {
                    let expected = is_dated && set.iter().all(|residual| residual.until.unwrap() < today);
                    assert_eq!(are_past(&set, today), expected, "{set:?} on {today}");
                    match last_date(&set) {
                        // What is told as the last date is what decides.
                        Some(last) => assert_eq!(are_past(&set, today), last < today, "{set:?} on {today}"),
                        None => assert_eq!(are_past(&set, today), set.is_empty(), "{set:?}"),
                    }
                }
            }
        }
    }
}

fn copies(dates: CopyDates) -> Vec<(ResidualCode, String, Option<NaiveDate>)> {
    dates.residuals().map(|residual| (residual.code, residual.of.unwrap(), residual.until)).collect()
}

#[test]
fn a_declaration_that_was_taken_back_or_shortened_still_counts() {
    let shop = Some("shop");
    let mut dates = CopyDates::default();
    dates.declared(shop, "dump", Some(day(3)));
    dates.certified(shop, "dump", Some(day(30)));
    dates.certified(shop, "gone", Some(day(20)));
    dates.certified(shop, "tape", None);
    let (declared, undated) = (ResidualCode::DeclaredCopy, ResidualCode::UndatedCopy);
    let expected = [
        (declared, "shop/dump".to_owned(), Some(day(30))),
        (declared, "shop/gone".to_owned(), Some(day(20))),
        (undated, "shop/tape".to_owned(), None),
    ];
    assert_eq!(copies(dates), expected);
}

#[test]
fn a_copy_without_a_date_gets_one_only_by_being_declared_with_one() {
    let (shop, mill) = (Some("shop"), Some("mill"));
    let mut dates = CopyDates::default();
    dates.declared(shop, "tape", Some(day(9)));
    dates.declared(mill, "tape", None);
    // Said of the shop's, of the mill's, and of several stores summed up.
    for store in [shop, mill, None] {
        dates.certified(store, "tape", None);
    }
    dates.certified(None, "disk", None);
    let expected = [
        (ResidualCode::DeclaredCopy, "shop/tape".to_owned(), Some(day(9))),
        (ResidualCode::UndatedCopy, "mill/tape".to_owned(), None),
        (ResidualCode::UndatedCopy, "disk".to_owned(), None),
    ];
    assert_eq!(copies(dates), expected);
    // The one that the certificates summed up was declared for another store only: nobody knows that it is the same.
    let mut dates = CopyDates::default();
    dates.certified(mill, "tape", None);
    dates.declared(shop, "tape", Some(day(9)));
    assert!(copies(dates).iter().any(|(code, of, _)| *code == ResidualCode::UndatedCopy && of == "mill/tape"));
}

#[test]
fn a_run_is_looked_at_again_only_when_that_can_change_something() {
    let body = |residuals: Option<Vec<Residual>>| RunBody {
        certified: Some(SHREDDED.to_owned()),
        residuals,
        ..RunBody::default()
    };
    assert!(is_worth_a_look(&body(None), day(0)));
    assert!(is_worth_a_look(&body(Some(vec![])), day(0)));
    assert!(!is_worth_a_look(&body(Some(vec![dated(0)])), day(0)));
    assert!(is_worth_a_look(&body(Some(vec![dated(0)])), day(1)));
    let hold = Residual::undated(ResidualCode::Hold, None);
    assert!(is_worth_a_look(&body(Some(vec![dated(0), hold.clone()])), day(1)));
    assert!(!is_worth_a_look(&body(Some(vec![dated(5), hold])), day(1)));
    let file = Residual::undated(ResidualCode::HostCopies, None);
    assert!(!is_worth_a_look(&body(Some(vec![dated(0), file])), day(9)));
    // The certificate of the shred comes first.
    assert!(!is_worth_a_look(&RunBody { certified: None, ..body(None) }, day(9)));
    assert!(!is_worth_a_look(&RunBody { certified: Some("shredded-unproven".to_owned()), ..body(None) }, day(9)));
}
