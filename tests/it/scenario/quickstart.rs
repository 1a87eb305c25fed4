//! The first ten minutes: the sample cycle, what it promises to work next, and that nobody's data is left lying about.

use std::collections::HashMap;

use wangchuan::clock::{Clock, SystemClock};
use wangchuan::quickstart::shop::{Settings, Shop};

use super::database::Database;
use super::music::rows_as_text;
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
    // Quarters that are not wholly due keep rows readable: that is told, and is no failure.
    let runs = Program::in_directory(&place.file("try")).json(&["run", "list"]).ends(0).list("runs");
    let is_pending = runs.iter().any(|run| run["state"] == "shred-pending");
    assert_eq!(done.text("result"), if is_pending { "partial" } else { "complete" }, "{done}");
    assert_eq!(done.document()["code"] == "KEY_SHRED_PENDING", is_pending, "{done}");
    assert_eq!(done.document()["pending"]["rows"].as_i64().is_some_and(|rows| rows > 0), is_pending, "{done}");
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
    let later = say_everything(&within, &shop);

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
    // And nothing is left in the shop's own file and journal of whoever left, nor of rows that retention erased or stripped.
    let database = Database::at(&place.file("try/shop.db"));
    let tables = ["customers", "orders", "order_lines", "complaints", "newsletter"];
    let living: String = tables.iter().flat_map(|table| rows_as_text(&database, table, "1", "1 = 1")).collect();
    let living = living.replace("''", "'");
    let erased: Vec<&str> = shop.canaries().filter(|text| text.len() >= BEGINNING && !living.contains(text)).collect();
    let own = shop.canaries_of(&shop.picks.leaver).count();
    assert!(erased.len() > own * 2, "only {} of {all} texts are gone, {own} of them the leaver's", erased.len());
    let gone = Search::of(shop.canaries_of(&shop.picks.leaver).chain(erased));
    for file in ["try/shop.db", "try/shop.db-wal", "try/shop.db-journal"] {
        assert_eq!(gone.hits(&place.bytes_under(file)), Vec::<&str>::new(), "of erased rows in {file}");
    }
}

/// Every command that shows something, in words and as JSON, each of which must end well.
fn say_everything(within: &Program, shop: &Shop) -> Vec<Outcome> {
    let run = within.json(&["run", "list"]).ends(0).list("runs")[0]["run"].as_str().unwrap().to_owned();
    let keeper = shop.picks.keeper.as_str();
    let commands = [
        &["plan"][..],
        &["status"],
        &["agent", "--once"],
        &["explain", "shop", "customers", keeper],
        &["request", "list"],
        &["request", "show", "1"],
        &["hold", "list"],
        &["run", "list"],
        &["run", "show", &run],
        &["job", "list"],
        &["job", "preview"],
        &["job", "run", "retention"],
        &["certificate", "list"],
        &["certificate", "show", "latest"],
        &["certificate", "verify", "latest"],
        &["log", "verify"],
        &["backup", "run"],
        &["backup", "list"],
        &["backup", "verify"],
        &["drill", "run"],
        &["drill", "list"],
        &["drill", "show"],
        &["key", "status"],
        &["key", "list"],
        &["key", "verify"],
        &["key", "advice"],
        &["key", "shred"],
        &["store", "list"],
        &["store", "check"],
        &["statute", "list"],
        &["config", "check"],
        &["config", "show"],
        &["doctor"],
    ];
    let mut said = Vec::new();
    for command in commands {
        said.push(within.run(command).ends(0));
        let shown = within.json(command).ends(0);
        assert!(shown.document()["result"].is_string(), "{shown}");
        said.push(shown);
    }
    // The keeper's request waits for a statute, and is asked again.
    for (id, number) in [(keeper, "2"), ("C20240101000001", "3")] {
        said.push(within.clone().reading(id).json(&["request", "new", "-", "--yes"]).ends(0));
        said.push(within.json(&["request", "run", number]).ends(0));
    }
    let plan = within.json(&["plan"]).ends(0);
    said.push(within.json(&["erase", "--plan", &plan.text("hash")]).ends(0));
    said.push(plan);
    said.push(within.json(&["restore", "--to", "sqlite://brought_back.db"]).ends(0));
    said
}
