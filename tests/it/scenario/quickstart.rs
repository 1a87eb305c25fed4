//! The first ten minutes: the sample cycle, what it promises to work next, and that nobody's data is left lying about.

use std::collections::BTreeSet;
use std::path::Path;

use wangchuan::clock::{Clock, SystemClock};
use wangchuan::quickstart::shop::{Settings, Shop};

use super::database::Database;
use super::music::rows_as_text;
use super::workplace::Workplace;
use crate::support::program::{Outcome, Program};
use crate::support::search::{BEGINNING, Search};

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

    let folders = ["try/state", "try/bucket", "try/audit", "try/root", "try/jobs", "try/wangchuan.toml", "try/taken"];
    for folder in folders {
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

const MEDIUM: &[&str] = &[
    "media",
    "record",
    "--kind",
    "tape",
    "--asset",
    "T-1",
    "--store",
    "shop",
    "--method",
    "destroy",
    "--technique",
    "shred",
    "--checked",
    "inspection",
    "--evidence",
    "wangchuan.toml",
    "--when",
    "2026-01-01",
    "--by",
    "li.wei",
    "--witness",
    "wang.fang",
    "--witness",
    "chen.jie",
];

const LOST: &[&str] = &[
    "media",
    "lost",
    "--kind",
    "hard-disk",
    "--asset",
    "D-1",
    "--backups-of",
    "shop",
    "--when",
    "2026-01-01",
    "--by",
    "li.wei",
];

/// Commands that say something of the shop or of what is kept of it: in words and as JSON, with how they must end. `RUN` is a run, `ID`
/// a customer's id.
const SPOKEN: [(&[&str], i32); 74] = [
    (&["plan"], 0),
    (&["status"], 0),
    (&["agent", "--once"], 0),
    (&["agent", "hold"], 0),
    (&["agent", "resume"], 0),
    (&["explain", "shop", "customers", "ID"], 0),
    (&["request", "list"], 0),
    (&["request", "show", "1"], 0),
    (&["request", "cancel", "1"], 3),
    (&["hold", "place", "case-1", "--store", "shop", "--collection", "orders", "--reason", "lawsuit"], 0),
    (&["hold", "list"], 0),
    (&["hold", "release", "case-1"], 0),
    (&["incident", "open", "case-FORM"], 0),
    (&["incident", "add", "case-FORM", "--part", "find", "--document", "wangchuan.toml"], 0),
    (&["incident", "close", "case-FORM"], 3),
    (&["incident", "list"], 0),
    (&["incident", "verify"], 0),
    (&["run", "list"], 0),
    (&["run", "show", "RUN"], 0),
    (&["run", "pause", "RUN"], 3),
    (&["run", "resume", "RUN"], 3),
    (&["run", "stop", "RUN"], 3),
    (&["run", "tune", "RUN", "--reset"], 3),
    (&["run", "undo", "RUN"], 3),
    (&["job", "list"], 0),
    (&["job", "preview"], 0),
    (&["job", "run", "retention"], 0),
    (&["certificate", "list"], 0),
    (&["certificate", "show", "latest"], 0),
    (&["certificate", "trace", "latest"], 0),
    (&["certificate", "verify", "latest"], 0),
    (&["certificate", "export", "1", "--format", "bundle", "--output", "taken/FORM.1.json"], 0),
    (&["certificate", "export", "1", "--format", "proof", "--output", "taken/FORM.2.txt"], 0),
    (&["certificate", "export", "1", "--format", "envelope", "--output", "taken/FORM.3.json"], 0),
    (&["certificate", "export", "1", "--format", "html", "--output", "taken/FORM.4.html"], 0),
    (&["audit", "status"], 0),
    (&["audit", "verify"], 0),
    (&["audit", "trust", "--output", "taken/FORM.trust.json", "--parts", "taken/FORM.parts"], 0),
    (&["audit", "flush", "--again"], 0),
    (&["audit", "key", "list"], 0),
    (&["log", "verify"], 0),
    (&["log", "query"], 0),
    (&["log", "export", "--output", "taken/FORM.log.json"], 0),
    (&["log", "prune"], 0),
    (&["evidence-pack", "--from", "2020-01-01", "--to", "2099-12-31", "--output", "taken/FORM.pack"], 0),
    (&["report", "monthly"], 0),
    (&["evidence-pack", "verify", "taken/FORM.pack"], 0),
    (&["verify", "erased"], 0),
    (&["backup", "run"], 0),
    (&["backup", "list"], 0),
    (&["backup", "verify"], 0),
    (&["backup", "prune"], 0),
    (&["backup", "unneeded"], 0),
    (&["drill", "run"], 0),
    (&["drill", "list"], 0),
    (&["drill", "show"], 0),
    (&["drill", "verify"], 0),
    (&["key", "status"], 0),
    (&["key", "list"], 0),
    (&["key", "verify"], 0),
    (&["key", "advice"], 0),
    (&["key", "shred"], 0),
    (MEDIUM, 0),
    (LOST, 0),
    (&["media", "list"], 0),
    (&["media", "show"], 0),
    (&["store", "list"], 0),
    (&["store", "check"], 0),
    (&["store", "lint"], 5),
    (&["store", "settle", "shop"], 0),
    (&["verify", "residue"], 4),
    (&["config", "check"], 0),
    (&["config", "show"], 0),
    (&["doctor"], 0),
];

/// Commands that [`say_everything`] runs one after the other, because each needs what the one before made.
const IN_ORDER: [&str; 11] = [
    "certificate about",
    "request new",
    "request run",
    "approve",
    "run undo",
    "plan",
    "erase",
    "restore",
    "statute list",
    "statute diff",
    "quickstart",
];

/// Commands that are left out, and why.
const LEFT_OUT: [(&str, &str); 13] = [
    ("error", "not a command: refusals are among what is said"),
    ("agent", "runs until it is stopped; a pass of it is `agent --once`"),
    ("audit serve", "serves what `audit flush` files, until it is stopped"),
    ("audit conformance", "speaks with a service, and knows no installation"),
    ("audit key rotate", "tells the ids and dates of signing keys, and of no row"),
    ("audit key revoke", "the same"),
    ("init", "writes a configuration before there is a shop"),
    ("recover", "ends with what `status` says, in an empty folder"),
    ("key move", "needs a second root slot; moves keys and no rows"),
    ("key register", "needs a key service; the slots' own suites look at it"),
    ("key unregister", "the same"),
    ("completions", "the same text everywhere"),
    ("manual", "the same text everywhere"),
];

/// The same text everywhere, made without an installation.
const SCHEMA: &str = "config schema";

#[test]
fn every_command_is_searched_for_customers_or_named_as_left_out() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schema/output");
    let documents = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let slug = |command: &str| command.replace(" --", "-").replace(' ', "-");
    let named: Vec<String> = SPOKEN
        .iter()
        .flat_map(|(words, _)| (1..=words.len().min(3)).map(|count| words[..count].join(" ")))
        .chain(IN_ORDER.map(ToOwned::to_owned))
        .chain(LEFT_OUT.map(|(command, _)| command.to_owned()))
        .chain([SCHEMA.to_owned()])
        .collect();
    let known: BTreeSet<String> = named.iter().map(|command| slug(command)).collect();
    let missing: Vec<String> =
        documents.map(|name| name.trim_end_matches(".json").to_owned()).filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty(), "nobody looks whether these tell a customer's data: {missing:?}");
    for (command, why) in LEFT_OUT {
        let is_spoken = SPOKEN.iter().any(|(words, _)| words.join(" ") == command);
        assert!(!is_spoken && why.len() > 5, "{command} is left out for no reason");
    }
}

/// Every command that shows something, in words and as JSON, each of which must end as it should. What is written goes to `taken`.
fn say_everything(within: &Program, shop: &Shop) -> Vec<Outcome> {
    std::fs::create_dir(within.file("taken")).unwrap();
    let run = within.json(&["run", "list"]).ends(0).list("runs")[0]["run"].as_str().unwrap().to_owned();
    let keeper = shop.picks.keeper.as_str();
    let mut said = Vec::new();
    for (words, exit) in SPOKEN {
        for form in ["words", "json"] {
            let meant = |word: &&str| word.replace("RUN", &run).replace("FORM", form).replace("ID", keeper);
            let words: Vec<String> = words.iter().map(meant).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if form == "words" {
                said.push(within.run(&words).ends(exit));
                continue;
            }
            let shown = within.json(&words);
            // A hold that there was has its id for good, and was released once; a medium ends once.
            let shown = match words[..2.min(words.len())] {
                ["hold", "place"] | ["media", "record"] => shown.ends(3),
                ["hold", "release"] => shown.ends(2),
                _ => shown.ends(exit),
            };
            assert!(shown.document()["result"].is_string(), "{shown}");
            said.push(shown);
        }
    }
    said.push(within.clone().reading(keeper).json(&["log", "query", "--customer", "-"]).ends(0));
    for id in [keeper, shop.picks.leaver.as_str()] {
        said.push(within.clone().reading(id).json(&["certificate", "about", "-"]).ends(0));
        said.push(within.clone().reading(id).run(&["certificate", "about", "-"]).ends(0));
    }
    let subject = ["hold", "place", "case-2", "--subject", "-", "--reason", "lawsuit"];
    said.push(within.clone().reading(keeper).json(&subject).ends(0));
    said.push(within.json(&["hold", "list"]).ends(0));
    said.push(within.json(&["hold", "release", "case-2"]).ends(0));
    // The keeper's request waits for a statute, and is asked again.
    for (id, number) in [(keeper, "2"), ("C20240101000001", "3")] {
        said.push(within.clone().reading(id).json(&["request", "new", "-", "--yes"]).ends(0));
        said.push(within.json(&["request", "run", number]).ends(0));
    }
    let plan = within.json(&["plan"]).ends(0);
    said.push(within.json(&["erase", "--plan", &plan.text("hash")]).ends(0));
    said.push(plan);
    said.push(within.json(&["restore", "--to", "sqlite://brought_back.db"]).ends(0));
    said.push(within.run(&["statute", "list"]).ends(0));
    said.push(within.run(&["statute", "diff"]).ends(0));
    said.extend(agreed_and_undone(within, shop));
    said
}

/// Somebody agrees to the plan of a request; it is carried out, and taken back within its grace.
fn agreed_and_undone(within: &Program, shop: &Shop) -> Vec<Outcome> {
    let file = within.file("wangchuan.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("grace = \"0\"", "grace = \"3 days\"\napproval = \"one\"")).unwrap();
    // The newest first: of them most is left.
    let living = shop.rows_of("customers").iter().rev().filter_map(|row| match &row[0] {
        wangchuan::value::Value::Text(id) => Some(id.as_str()),
        _ => None,
    });
    let somebody = living.filter(|id| ![shop.picks.keeper.as_str(), shop.picks.leaver.as_str()].contains(id));
    let mut said = Vec::new();
    for id in somebody.take(60) {
        let asked = within.clone().reading(id).json(&["request", "new", "-", "--yes"]).ends(0);
        let number = asked.number("request").to_string();
        let again = within.clone().reading(id).run(&["request", "new", "-", "--yes"]).ends(0);
        let refused = within.json(&["request", "run", &number]);
        said.extend([asked, again, refused.clone()]);
        let Some(hash) = refused.err.split("approve ").nth(1).and_then(|rest| rest.split_whitespace().next()) else {
            continue;
        };
        said.push(within.run(&["approve", hash, "--as", "ann"]).ends(0));
        let done = within.json(&["request", "run", &number]).ends(0);
        let run = done.list("runs")[0].as_str().unwrap().to_owned();
        said.push(done);
        said.push(within.run(&["run", "undo", &run]).ends(0));
        return said;
    }
    panic!("nobody's request needed an approval: {said:?}");
}
