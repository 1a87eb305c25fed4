//! The first ten minutes: the sample cycle, what it promises to work next, and that nobody's data is left lying about.

use std::collections::HashMap;

use wangchuan::clock::{Clock, SystemClock};
use wangchuan::quickstart::shop::{Settings, Shop};

use super::workplace::Workplace;
use crate::support::program::{Outcome, Program};

const CUSTOMERS: u32 = 200;

fn quickstart(place: &Workplace, more: &[&str]) -> Outcome {
    let customers = CUSTOMERS.to_string();
    place.program().run(&[&["quickstart", "--dir", "try", "--customers", &customers], more].concat())
}

#[test]
fn the_cycle_is_complete_and_says_so_in_json() {
    let place = Workplace::new();
    let done = quickstart(&place, &["--json"]).ends(0);
    assert_eq!(done.text("result"), "complete", "{done}");
    assert_eq!(done.text("drill_result"), "passed", "{done}");
    let sum = done.number("erased") + done.number("anonymised") + done.number("kept") + done.number("failed");
    assert_eq!(done.number("due"), sum, "{done}");
    assert_eq!(done.number("failed") + done.number("erased_reappeared"), 0, "{done}");
    assert!(done.number("keys_destroyed") > 0, "{done}");
    assert_eq!(done.list("runs").len(), 3, "{done}");
    assert_eq!(done.list("certificates").len(), 3, "{done}");
    assert_eq!(done.list("snapshots").len(), 2, "{done}");
}

#[test]
fn what_it_says_to_try_next_works() {
    let place = Workplace::new();
    let done = quickstart(&place, &[]).ends(0).says(&["Try next"]);
    let next = done.out.split("Try next").nth(1).unwrap();
    let commands: Vec<Vec<&str>> = next
        .lines()
        .filter_map(|line| line.trim().strip_prefix("wangchuan "))
        .map(|command| command.split_whitespace().collect())
        .collect();
    assert!(commands.len() >= 4, "{done}");
    assert!(next.contains("cd try"), "{done}");
    let within = Program::in_directory(&place.file("try"));
    for command in &commands {
        if command[..] == ["request", "new"] {
            // It asks on a terminal; without one it says how else to give the id.
            within.run(command).refuses(2, &["not a terminal", "`-`"]);
            let recorded = within.clone().reading("C20240101000001\n").run(&["request", "new", "-", "--yes"]).ends(0);
            assert!(!recorded.out.contains("C20240101000001"), "the id is repeated\n{recorded}");
            within.run(&["request", "run"]).ends(0);
        } else {
            let outcome = within.run(command).ends(0);
            assert!(!outcome.out.trim().is_empty(), "it says nothing\n{outcome}");
        }
    }
    assert!(place.file("try/restored.db").is_file(), "the restore made no file");
    within.run(&["agent", "--once"]).ends(0);
}

#[test]
fn a_second_one_in_the_same_directory_is_refused() {
    let place = Workplace::new();
    quickstart(&place, &["--json"]).ends(0);
    let before = place.bytes_under("try");
    let refused = quickstart(&place, &["--json"]).refuses(3, &["not empty", "try", "--dir"]);
    assert_eq!(refused.text("result"), "refused", "{refused}");
    assert!(before == place.bytes_under("try"), "the refused one changed something");
}

#[test]
fn it_speaks_chinese() {
    let place = Workplace::new();
    let done = quickstart(&place, &["--lang", "zh"]).ends(0);
    let chinese = |text: &str| text.chars().filter(|letter| ('\u{4e00}'..='\u{9fff}').contains(letter)).count();
    assert!(chinese(&done.out) > 100 && chinese(&done.err) > 50, "{done}");
    for english in ["What retention", "Try next", "rows due"] {
        assert!(!done.out.contains(english) && !done.err.contains(english), "`{english}`\n{done}");
    }
    let refused = quickstart(&place, &["--lang", "zh"]).ends(3);
    assert!(refused.err.contains("不为空"), "{refused}");
}

/// Finds any of many texts in bytes, in one pass: by their first bytes.
struct Search<'t> {
    by_beginning: HashMap<&'t [u8], Vec<&'t str>>,
}

/// The shortest text looked for: two Chinese letters.
const BEGINNING: usize = 6;

impl<'t> Search<'t> {
    fn of(texts: impl Iterator<Item = &'t str>) -> Self {
        let mut by_beginning: HashMap<&[u8], Vec<&str>> = HashMap::new();
        for text in texts.filter(|text| text.len() >= BEGINNING) {
            by_beginning.entry(&text.as_bytes()[..BEGINNING]).or_default().push(text);
        }
        Self { by_beginning }
    }

    fn hits(&self, bytes: &[u8]) -> Vec<&'t str> {
        let mut found: Vec<&str> = bytes
            .windows(BEGINNING)
            .enumerate()
            .filter_map(|(at, window)| self.by_beginning.get(window).map(|texts| (at, texts)))
            .flat_map(|(at, texts)| texts.iter().filter(move |text| bytes[at..].starts_with(text.as_bytes())))
            .copied()
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

#[test]
fn nothing_that_identifies_a_customer_leaves_the_shop() {
    let place = Workplace::new();
    let shop = Shop::generate(&Settings { customers: CUSTOMERS, ..Settings::standard(SystemClock.now()) });
    let canaries = Search::of(shop.canaries());
    let spoken = quickstart(&place, &[]).ends(0);
    let within = Program::in_directory(&place.file("try"));
    let later: Vec<Outcome> = [
        &["plan"][..],
        &["status"],
        &["agent", "--once"],
        &["request", "list"],
        &["hold", "list"],
        &["log", "query"],
        &["certificate", "show"],
        &["backup", "list"],
        &["run", "list", "--json"],
    ]
    .iter()
    .map(|command| within.run(command))
    .collect();

    // The search works, and the generated customers are those of the shop: most of them are found in the live database.
    let live = canaries.hits(&place.bytes_under("try/shop.db")).len();
    let all = shop.canaries().count();
    assert!(live * 10 > all * 7, "only {live} of {all} known texts are in the shop");

    for folder in ["try/state", "try/bucket", "try/audit", "try/root", "try/jobs", "try/wangchuan.toml"] {
        let bytes = place.bytes_under(folder);
        assert!(!bytes.is_empty(), "{folder} is empty");
        assert_eq!(canaries.hits(&bytes), Vec::<&str>::new(), "in {folder}");
    }
    for outcome in later.iter().chain([&spoken]) {
        let said = format!("{}{}", outcome.out, outcome.err);
        assert_eq!(canaries.hits(said.as_bytes()), Vec::<&str>::new(), "said by `{}`", outcome.command);
    }
    // And nothing of who was erased is left in the shop's own file.
    let gone = Search::of(shop.canaries_of(&shop.picks.leaver));
    assert_eq!(gone.hits(&place.bytes_under("try/shop.db")), Vec::<&str>::new(), "of an erased customer");
}
