//! What is wrong with the configuration and the job files is said with file, line and what to do; nothing is begun.

use crate::scenario::small;
use crate::scenario::workplace::Workplace;

/// Breaks the configuration, sees it refused with exit code 2 and these words, mends it, and goes on.
#[track_caller]
fn is_refused(from: &str, to: &str, naming: &[&str]) {
    let (place, database) = small::installed();
    place.reconfigure(from, to);
    for command in [&["plan"][..], &["config", "check"], &["status"], &["agent", "--once"]] {
        let refused = place.program().json(command).ends(2);
        let refused = refused.says(naming).says(&["wangchuan.toml", "do: "]);
        assert!(refused.document()["result"].is_string(), "{refused}");
    }
    small::is_untouched(&database);
    place.reconfigure(to, from);
    small::goes_through(&place, &database);
}

#[test]
fn an_unknown_key_comes_with_the_key_that_was_meant() {
    is_refused("retention = \"3 years\"", "retension = \"3 years\"", &["retension", "retention"]);
}

#[test]
fn an_unknown_section_comes_with_the_section_that_was_meant() {
    is_refused("[audit]", "[audti]", &["audti", "audit"]);
}

#[test]
fn two_policies_on_one_collection() {
    let second = small::POLICY.replace("old-orders", "older-orders");
    is_refused("[[policy]]", &format!("{second}\n[[policy]]"), &["orders", "older-orders", "governed by"]);
}

#[test]
fn a_retention_shorter_than_a_statute_is_warned_about_and_does_not_count() {
    let (place, database) = small::installed();
    let shorter = "retention = \"1 day\"\nstatutes = [\"cn.ecl.31\"]";
    place.reconfigure("retention = \"3 years\"", shorter);
    let warned = place.good(&["config", "check"]);
    let warnings = warned.list("warnings");
    let says = |part: &str| warnings.iter().any(|warning| warning.as_str().is_some_and(|text| text.contains(part)));
    assert!(says("cn.ecl.31") && says("1 day") && says("lengthen the retention"), "{warned}");
    place.good(&["backup", "run"]);
    let plan = place.plan();
    assert_eq!((plan.number("due"), plan.number("kept")), (small::ORDERS, small::ORDERS - small::DUE), "{plan}");
    place.reconfigure(shorter, "retention = \"3 years\"");
    small::goes_through(&place, &database);
}

#[test]
fn a_retention_longer_than_a_statute_permits() {
    let longer = "retention = \"6 years\"\nstatutes = [\"cn.credit.16\"]";
    is_refused(
        "retention = \"3 years\"",
        longer,
        &["cn.credit.16", "6 years", "at most 5 years", "shorten `retention`"],
    );
}

#[test]
fn a_statute_that_nobody_knows() {
    let unknown = "retention = \"3 years\"\nstatutes = [\"cn.ecl.13\"]";
    is_refused("retention = \"3 years\"", unknown, &["cn.ecl.13"]);
}

#[test]
fn an_unknown_zone() {
    is_refused("timezone = \"UTC\"", "timezone = \"Asia/Shangai\"", &["Asia/Shangai", "Asia/Shanghai"]);
}

#[test]
fn a_policy_on_a_table_that_is_no_collection() {
    is_refused("collections = [\"orders\"]", "collections = [\"oders\"]", &["oders", "orders"]);
}

#[test]
fn a_secret_in_a_file_that_everybody_may_read() {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;
    let (place, database) = small::installed();
    place.reconfigure(
        "url = \"embedded\"\ndata = \"audit\"",
        "url = \"http://127.0.0.1:9\"\ntoken = \"S3cretBearerToken\"",
    );
    set_permissions(place.file("wangchuan.toml"), Permissions::from_mode(0o644)).unwrap();
    let refused = place.program().json(&["plan"]).refuses(2, &["wangchuan.toml", "token"]);
    refused.never_says("S3cretBearerToken");
    place.reconfigure(
        "url = \"http://127.0.0.1:9\"\ntoken = \"S3cretBearerToken\"",
        "url = \"embedded\"\ndata = \"audit\"",
    );
    small::goes_through(&place, &database);
}

#[test]
fn without_a_configuration_it_says_how_to_begin() {
    let place = Workplace::new();
    let program = place.program().with("XDG_CONFIG_HOME", place.path().to_str().unwrap());
    program.run(&["plan"]).refuses(2, &["wangchuan.toml", "quickstart", "init", "--config"]);
    program.run(&["--config", "elsewhere.toml", "plan"]).refuses(2, &["elsewhere.toml"]);
}

#[test]
fn before_init_it_says_so() {
    let place = Workplace::new();
    place.configure("");
    place.program().json(&["plan"]).refuses(2, &["wangchuan.db", "wangchuan init"]);
    place.install();
    place.good(&["plan"]);
}

/// Breaks a job file, sees it refused, mends it, and goes on.
#[track_caller]
fn job_is_refused(name: &str, text: &str, naming: &[&str]) {
    let (place, database) = small::installed();
    place.write_private(&format!("jobs/{name}"), text);
    for command in [&["job", "list"][..], &["job", "run", "shred"], &["config", "check"], &["agent"]] {
        let refused = place.program().json(command).ends(2).says(naming).says(&[name, "do: "]);
        assert!(refused.document()["result"].is_string(), "{refused}");
    }
    std::fs::remove_file(place.file(&format!("jobs/{name}"))).unwrap();
    small::goes_through(&place, &database);
}

#[test]
fn an_impossible_schedule() {
    job_is_refused("odd.toml", "task = \"shred\"\nschedule = \"61 * * * *\"\n", &["schedule", "crontab(5)"]);
}

#[test]
fn a_schedule_that_never_comes() {
    job_is_refused("odd.toml", "task = \"shred\"\nschedule = \"0 0 30 2 *\"\n", &["no time ever matches"]);
}

#[test]
fn a_job_in_an_unknown_zone() {
    let text = "task = \"shred\"\nschedule = \"@daily\"\ntimezone = \"Europe/Berln\"\n";
    job_is_refused("odd.toml", text, &["Europe/Berln", "Europe/Berlin"]);
}

#[test]
fn the_same_job_name_twice() {
    let text = "task = \"shred\"\nschedule = \"@daily\"\n";
    job_is_refused("Shred.toml", text, &["same name"]);
}

#[test]
fn a_job_about_a_store_that_is_not_there() {
    let text = "task = \"backup\"\nschedule = \"@daily\"\nstores = [\"shpo\"]\n";
    let (place, database) = small::installed();
    place.write_private("jobs/odd.toml", text);
    for command in [&["config", "check"][..], &["agent"]] {
        place.program().json(command).ends(2).says(&["shpo", "did you mean `shop`", "odd.toml"]);
    }
    std::fs::remove_file(place.file("jobs/odd.toml")).unwrap();
    small::goes_through(&place, &database);
}

#[test]
fn unknown_things_on_the_command_line() {
    let (place, database) = small::installed();
    place.program().json(&["erase", "--plan", "abcdef"]).refuses(2, &["abcdef", "wangchuan plan"]);
    place.program().json(&["erase", "--plan", "ab"]).refuses(2, &["ab", "six digits"]);
    place.program().json(&["request", "show", "7"]).refuses(2, &["request 7", "request list"]);
    place.program().json(&["request", "run", "7"]).refuses(2, &["request 7", "request list"]);
    place.program().json(&["hold", "release", "case-9"]).refuses(2, &["case-9", "hold list"]);
    place.program().json(&["job", "run", "shredd"]).refuses(2, &["shredd", "job list"]);
    place.program().json(&["run", "show", "0000"]).refuses(2, &["0000", "run list"]);
    place.program().json(&["explain", "shpo", "orders", "1"]).refuses(2, &["shpo", "store list"]);
    place.program().json(&["store", "check", "shpo"]).refuses(2, &["shpo", "shop"]);
    place.program().json(&["certificate", "show", "99"]).refuses(2, &["99", "certificate list"]);
    place.program().json(&["restore", "ffff", "--to", "sqlite://x.db"]).refuses(2, &["ffff", "backup list"]);
    place.program().run(&["pland"]).ends(2).says(&["pland", "plan"]);
    place.program().json(&["--at", "2030-01-01T00:00:00Z", "erase", "--plan", "abcdef"]).refuses(2, &["--at"]);
    small::is_untouched(&database);
    small::goes_through(&place, &database);
}

#[test]
fn a_csv_without_ids() {
    let (place, _database) = small::installed();
    place.write_private("ids.csv", "\n,,\n");
    place.program().json(&["request", "new", "--file", "ids.csv", "--yes"]).ends(2).says(&["ids.csv", "first column"]);
    let missing = place.program().json(&["request", "new", "--file", "nowhere.csv", "--yes"]).says(&["nowhere.csv"]);
    assert!([Some(1), Some(2)].contains(&missing.code()), "{missing}");
    assert_eq!(place.good(&["request", "list"]).list("requests").len(), 0);
}
