//! Statutes in force: a minimum that grows keeps what was planned, contradictions keep, profiles bind, and the program says why.

use wangchuan::stores::Engine;

use super::database::Database;
use super::small::{self, CUSTOMERS, DUE, ORDERS};
use super::workplace::Workplace;

/// A catalogue of the installation's own, in which platforms keep their orders for thirty years.
const THIRTY_YEARS: &str = r#"version = 3

[[statute]]
key = "cn.ecl.31"
jurisdiction = "CN"
applies_to = { en = "platforms", zh = "平台" }
bound = "minimum"
period = "30 years"
start_event = { en = "transaction completed", zh = "交易完成" }
cites = [{ en = "E-commerce Law", zh = "电子商务法", article = "31" }]
status = "unconfirmed"
"#;

/// The small shop, its policy bound by these statutes.
fn bound_by(statutes: &str) -> (Workplace, Database) {
    let (place, database) = small::installed();
    place.reconfigure("basis = \"contract\"", &format!("basis = \"contract\"\nstatutes = {statutes}"));
    place.good(&["backup", "run"]);
    (place, database)
}

/// From now on the catalogue of the installation's own counts.
fn lengthen(place: &Workplace) {
    place.write_private("statutes.toml", THIRTY_YEARS);
    place.reconfigure("timezone = \"UTC\"", "timezone = \"UTC\"\nstatutes = \"statutes.toml\"");
}

#[test]
fn a_minimum_that_grows_after_the_plan_keeps_what_was_planned() {
    let (place, database) = bound_by("[\"cn.ecl.31\"]");
    let planned = place.plan();
    assert_eq!((planned.number("due"), planned.number("kept")), (DUE, 0), "{planned}");

    place.write_private("statutes.toml", THIRTY_YEARS);
    let before = place.good(&["statute", "diff", "--to", "statutes.toml"]);
    assert_eq!((before.number("back_to_kept"), before.number("newly_due")), (DUE, 0), "{before}");
    lengthen(&place);
    let since = place.good(&["statute", "diff"]);
    assert_eq!(since.number("back_to_kept"), DUE, "{since}");
    assert_eq!(since.document()["policies"][0]["policy"], "old-orders", "{since}");
    assert_eq!(since.document()["statutes"][0]["change"], "stricter", "{since}");

    place
        .program()
        .json(&["erase", "--plan", &planned.text("hash")])
        .refuses(3, &["policies", "void", "wangchuan plan"]);
    small::is_untouched(&database);
    let again = place.plan();
    assert_eq!((again.number("due"), again.number("kept")), (DUE, DUE), "{again}");
    assert_eq!(again.document()["collections"][0]["reasons"][0]["reason"], "statute:cn.ecl.31", "{again}");
    let nothing = place.good(&["statute", "diff"]);
    assert_eq!(nothing.text("result"), "nothing-found", "{nothing}");
    let kept = place.good(&["erase", "--plan", &again.text("hash")]);
    assert_eq!((kept.number("erased"), kept.number("kept")), (0, DUE), "{kept}");
    small::is_untouched(&database);

    // The other way round it is a looser law: the rows are due again, and the plan that kept them is void.
    place.reconfigure("statutes = \"statutes.toml\"\n", "");
    let looser = place.good(&["statute", "diff"]);
    assert_eq!((looser.number("back_to_kept"), looser.number("newly_due")), (0, DUE), "{looser}");
    small::goes_through(&place, &database);
}

#[test]
fn a_minimum_that_grows_under_a_run_keeps_what_is_left_of_it() {
    let (place, database) = bound_by("[\"cn.ecl.31\"]");
    let hash = place.plan().text("hash");
    let killed = place.program().with("WANGCHUAN_CRASH_AT", "batch.intended").json(&["erase", "--plan", &hash]);
    assert!(killed.was_killed(), "{killed}");
    lengthen(&place);
    place.program().json(&["agent", "--once"]);
    small::is_untouched(&database);
    let runs = place.good(&["run", "list"]);
    let run = runs.list("runs").into_iter().find(|run| run["kind"] == "retention").unwrap();
    assert_eq!(
        (run["due"].as_i64(), run["erased"].as_i64(), run["kept"].as_i64()),
        (Some(DUE), Some(0), Some(DUE)),
        "{runs}"
    );

    // What a crash hid stays done: a batch that was committed before the law changed is counted, not undone.
    let (place, database) = bound_by("[\"cn.ecl.31\"]");
    let hash = place.plan().text("hash");
    let killed = place.program().with("WANGCHUAN_CRASH_AT", "batch.committed").json(&["erase", "--plan", &hash]);
    assert!(killed.was_killed(), "{killed}");
    lengthen(&place);
    place.program().json(&["agent", "--once"]);
    assert_eq!(database.rows("orders"), ORDERS - DUE);
    let runs = place.good(&["run", "list"]);
    let run = runs.list("runs").into_iter().find(|run| run["kind"] == "retention").unwrap();
    assert_eq!(run["erased"].as_i64(), Some(DUE), "{runs}");
}

#[test]
fn statutes_that_contradict_each_other_keep_the_rows_and_say_both() {
    let (place, database) = bound_by("[\"cn.credit.16\", \"cn.med.in\"]");
    let warned = place.good(&["config", "check"]);
    assert!(warned.list("warnings").iter().any(|line| line.as_str().unwrap().contains("restricted")), "{warned}");
    let plan = place.plan();
    assert_eq!((plan.number("due"), plan.number("kept")), (DUE, DUE), "{plan}");
    let kept = &plan.document()["collections"][0]["reasons"][0];
    assert_eq!((&kept["reason"], &kept["rows"]), (&"restricted:cn.med.in:cn.credit.16".into(), &DUE.into()), "{plan}");
    let words = place.program().run(&["plan"]).ends(0);
    words.says(&["cn.med.in", "Medical Records Rules", "cn.credit.16", "Credit Reporting Industry Regulations 16"]);

    let explained = place.good(&["explain", "shop", "orders", "1"]);
    assert_eq!((explained.text("verdict"), explained.text("due_at")), ("restrict".to_owned(), time("2045-03-01")));
    assert_eq!(explained.text("latest_at"), time("2020-03-01"), "{explained}");
    let bounds = explained.list("bounds");
    let of = |key: &str| bounds.iter().find(|bound| bound["statute"] == key).unwrap();
    assert_eq!((&of("cn.credit.16")["decides"], &of("cn.med.in")["decides"]), (&true.into(), &true.into()));
    assert_eq!(of("cn.credit.16")["source"], "Credit Reporting Industry Regulations 16");
    let chinese = place.program().run(&["--lang", "zh", "explain", "shop", "orders", "1"]).ends(0);
    chinese.says(&["限制处理", "征信业管理条例 16", "医疗机构病历管理规定", "2045-03-01", "2020-03-01", "至多 5 年"]);

    let kept = place.good(&["erase", "--plan", &place.plan().text("hash")]);
    assert_eq!((kept.number("erased"), kept.number("kept")), (0, DUE), "{kept}");
    small::is_untouched(&database);
}

fn time(day: &str) -> String {
    format!("{day}T00:00:00.000Z")
}

#[test]
fn an_explanation_cites_the_law_and_the_hold() {
    let (place, _database) = bound_by("[\"cn.ecl.31\", \"cn.pipl.19\"]");
    let free = place.good(&["explain", "shop", "orders", "1"]);
    assert_eq!((free.text("verdict"), free.text("due_at")), ("may-erase".to_owned(), time("2018-03-01")), "{free}");
    assert_eq!(free.document()["hold"], serde_json::Value::Null);
    let bounds = free.list("bounds");
    let statutes: Vec<&serde_json::Value> = bounds.iter().map(|bound| &bound["statute"]).collect();
    assert_eq!(statutes, [&serde_json::Value::Null, &"cn.ecl.31".into(), &"cn.pipl.19".into()]);
    assert_eq!((&bounds[1]["source"], &bounds[1]["at"]), (&"E-commerce Law 31".into(), &time("2018-03-01").into()));
    assert_eq!((&bounds[2]["at"], &bounds[2]["binds"]), (&serde_json::Value::Null, &false.into()));
    let held = place.program().reading(&format!("{}\n", CUSTOMERS[0]));
    held.json(&["hold", "place", "case-7", "--subject", "-", "--reason", "lawsuit"]).ends(0);
    let kept = place.good(&["explain", "shop", "orders", "1"]);
    assert_eq!((kept.text("hold"), kept.text("verdict")), ("case-7".to_owned(), "may-erase".to_owned()), "{kept}");
    let other = place.good(&["explain", "shop", "orders", "2"]);
    assert_eq!(other.document()["hold"], serde_json::Value::Null, "{other}");
    place.program().run(&["explain", "shop", "orders", "1"]).ends(0).says(&["case-7", "E-commerce Law 31"]);
}

#[test]
fn a_record_is_explained_in_the_zone_of_its_own_store() {
    let place = Workplace::new();
    let (first, second) = (place.path().join("a"), place.path().join("b"));
    std::fs::create_dir_all(&first).unwrap();
    std::fs::create_dir_all(&second).unwrap();
    let (one, two) =
        (Database::create(Engine::Sqlite, &first).unwrap(), Database::create(Engine::Sqlite, &second).unwrap());
    small::fill(&one);
    small::fill(&two);
    let shop = small::store(&one.url());
    let china = small::store(&two.url()).replace("name = \"shop\"", "name = \"china\"\ntimezone = \"Asia/Shanghai\"");
    let policy = small::POLICY.replace("[\"orders\"]", "[\"shop.orders\", \"china.orders\"]");
    place.configure(&format!("{shop}{china}{policy}"));
    place.install();
    let due = |store: &str| place.good(&["explain", store, "orders", "1"]).text("due_at");
    assert_eq!(due("shop"), time("2018-03-01"));
    assert_eq!(due("china"), "2018-02-28T16:00:00.000Z");
}

#[test]
fn a_zone_that_changes_between_plan_and_erase_voids_the_plan() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let hash = place.plan().text("hash");
    place.reconfigure("url = \"sqlite", "timezone = \"Asia/Shanghai\"\nurl = \"sqlite");
    place.program().json(&["erase", "--plan", &hash]).refuses(3, &["void", "wangchuan plan"]);
    small::is_untouched(&database);
}

#[test]
fn a_profile_binds_the_records_that_a_policy_names() {
    let (place, database) = small::installed();
    database.run("INSERT INTO orders VALUES (9, 'c-1001', '2023-05-10 14:30:00', 19.50)");
    place.reconfigure("basis = \"contract\"", "basis = \"contract\"\nrecords = \"order\"");
    let planned = |profile: &str, at: &str| {
        let set = format!("timezone = \"UTC\"\nprofile = \"{profile}\"");
        place.reconfigure("timezone = \"UTC\"", &set);
        let plan = place.good(&["plan", "--at", at]);
        place.reconfigure(&set, "timezone = \"UTC\"");
        (plan.number("due"), plan.number("kept"))
    };
    // Completed on 2023-05-10 in a shop: kept through 2026-05-09, due on 2026-05-10.
    assert_eq!(planned("ecommerce", "2026-05-09T23:59:59Z"), (DUE, 0));
    assert_eq!(planned("ecommerce", "2026-05-10T00:00:00Z"), (DUE + 1, 0));
    // In finance ten years: of 2015, 2016, 2017, 2018 and 2023 only the first is over.
    assert_eq!(planned("finance", "2026-05-10T00:00:00Z"), (DUE + 1, DUE));
    place.program().json(&["plan"]).refuses(2, &["records", "profile"]);
    let listed = place.good(&["statute", "list", "--profile", "finance"]);
    assert_eq!(listed.document()["profiles"][0]["masks"], "strict", "{listed}");
    place.program().json(&["statute", "list", "--profile", "banking"]).refuses(2, &["banking", "ecommerce"]);
}

#[test]
fn the_catalogue_speaks_both_languages_and_needs_no_configuration() {
    let place = Workplace::new();
    place.program().run(&["statute", "list"]).ends(0).says(&["E-commerce Law 31", "at least 3 years", "72 hours"]);
    let chinese = place.program().run(&["--lang", "zh", "statute", "list", "CN"]).ends(0);
    chinese.says(&["电子商务法 31", "至少 3 年", "交易完成", "15 个工作日", "未核实", "不构成法律意见"]);
    place.program().run(&["--lang", "zh", "statute", "list", "--profile", "medical"]).says(&["住院病历", "至少 30 年"]);
    // An unknown statute in the configuration must not hide the catalogue that has the known ones.
    let (place, _database) = small::installed();
    place.reconfigure("basis = \"contract\"", "basis = \"contract\"\nstatutes = [\"cn.ecl.13\"]");
    place.program().json(&["statute", "list"]).ends(0).says(&["cn.ecl.31", "config check"]);
}

#[test]
fn an_own_catalogue_that_is_wrong_stops_everything_with_its_line() {
    let (place, database) = small::installed();
    place.write_private("statutes.toml", &THIRTY_YEARS.replace("period", "priod"));
    place.reconfigure("timezone = \"UTC\"", "timezone = \"UTC\"\nstatutes = \"statutes.toml\"");
    for command in [&["plan"][..], &["config", "check"], &["agent", "--once"]] {
        place.program().json(command).ends(2).says(&["statutes.toml", "did you mean `period`"]);
    }
    place.write_private("statutes.toml", &THIRTY_YEARS.replace("30 years", "1 year"));
    place.program().json(&["plan"]).refuses(2, &["cn.ecl.31", "only a confirmed entry"]);
    place.program().json(&["statute", "diff", "--to", "statutes.toml"]).refuses(2, &["only a confirmed entry"]);
    place.write_private("statutes.toml", THIRTY_YEARS);
    small::goes_through(&place, &database);
}

#[test]
fn the_card_shows_as_much_as_the_masks_permit() {
    let (place, _database) = small::installed();
    let card = || {
        let asked = place.program().reading("c-1001\n").run(&["request", "new", "-", "--yes"]).ends(0);
        asked.never_says("Canary").to_string()
    };
    assert!(card().contains("z***@canary.example, Z*** C***"), "{}", card());
    place.reconfigure("timezone = \"UTC\"", "timezone = \"UTC\"\nmasks = \"strict\"");
    let strict = card();
    assert!(strict.contains("***@***, ******") && !strict.contains("Z***"), "{strict}");
}
