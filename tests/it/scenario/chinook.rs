//! A music shop through a year of its life: retention, customers who leave, and backups that must not bring them back.

use serde_json::Value;
use wangchuan::clock::{Clock, SystemClock};
use wangchuan::stores::Engine;

use super::database::Database;
use super::music::{Names, load, owners_and_quarters, rows_as_text};
use super::workplace::Workplace;
use crate::support::program::Outcome;

stories! {
    sqlite Engine::Sqlite => [
        retention as invoices_whose_time_is_up_go,
        leaving_with_statute as who_must_be_kept_is_kept_in_part,
        leaving_without_statute as who_may_go_goes_entirely,
        coming_back as a_restore_brings_back_who_stayed_and_nobody_else,
        thinking_better as what_is_undone_within_grace_is_as_it_was,
    ];
    postgres Engine::Postgres => [
        retention as invoices_whose_time_is_up_go,
        leaving_with_statute as who_must_be_kept_is_kept_in_part,
        leaving_without_statute as who_may_go_goes_entirely,
        coming_back as a_restore_brings_back_who_stayed_and_nobody_else,
        thinking_better as what_is_undone_within_grace_is_as_it_was,
    ];
    mariadb Engine::Mysql => [
        retention as invoices_whose_time_is_up_go,
        leaving_with_statute as who_must_be_kept_is_kept_in_part,
        leaving_without_statute as who_may_go_goes_entirely,
        coming_back as a_restore_brings_back_who_stayed_and_nobody_else,
        thinking_better as what_is_undone_within_grace_is_as_it_was,
    ];
}

/// Installs with this policy and takes the first snapshot; returns its id.
fn begin(place: &Workplace, database: &Database, names: &Names, retention: &str, statutes: &str) -> String {
    place.configure(&format!("{}{}", names.store(&database.url()), names.policy(retention, statutes)));
    place.install();
    let taken = place.good(&["backup", "run"]);
    let registered: i64 = names.registered().iter().map(|(table, _)| database.rows(table)).sum();
    let snapshot = taken.list("snapshots").remove(0);
    assert_eq!(snapshot["rows"], registered, "{taken}");
    snapshot["snapshot"].as_str().unwrap().to_owned()
}

/// The barrier snapshot, the shred, and the proof of it.
fn finish(place: &Workplace) {
    place.good(&["backup", "run"]);
    let shredded = place.good(&["job", "run", "shred"]);
    let summary = shredded.text("summary");
    assert!(
        !summary.starts_with("0 keys destroyed") && summary.split(", ").any(|part| part == "0 waiting"),
        "{shredded}"
    );
    place.good(&["job", "run", "outbox"]);
    assert!(place.verify_certificates() > 0);
    let verified = place.good(&["backup", "verify"]);
    assert_eq!(verified.text("result"), "valid", "{verified}");
}

fn retention(place: &Workplace, database: &Database, names: &Names) {
    begin(place, database, names, "3 years", "[]");
    let plan = place.plan();
    let cutoff = plan.text("cutoff").parse().unwrap();
    let over = names.is_over(3, cutoff);
    let (due, due_lines) =
        (database.rows_where(names.invoice, &over), database.rows_where(names.line, &names.lines_of(&over)));
    assert!(due > 0 && due_lines > 0, "the shop has nothing that is due");
    let untouched = database.rows(names.invoice) - due;
    assert!(untouched > 0, "the shop has nothing that stays");
    let customers = rows_as_text(database, names.customer, names.customer_id, "1 = 1");
    let stays = format!("NOT ({over})");
    let invoices = rows_as_text(database, names.invoice, names.invoice_id, &stays);
    assert_eq!(plan.number("due"), due + due_lines, "{plan}");
    assert_eq!(of_collection(&plan, names.invoice, "erase"), due, "{plan}");
    assert_eq!(of_collection(&plan, names.line, "erase"), due_lines, "{plan}");

    let hash = plan.text("hash");
    let erased = place.good(&["erase", "--plan", &hash[..12]]);
    assert_eq!(erased.number("erased"), due + due_lines, "{erased}");
    assert_eq!(erased.number("kept") + erased.number("failed"), 0, "{erased}");
    assert_eq!(erased.text("code"), "KEY_SHRED_PENDING", "{erased}");
    assert_eq!(database.rows_where(names.invoice, &over), 0);
    assert_eq!(rows_as_text(database, names.invoice, names.invoice_id, "1 = 1"), invoices, "another invoice changed");
    assert_eq!(rows_as_text(database, names.customer, names.customer_id, "1 = 1"), customers, "a customer changed");
    let orphans = format!("{0} NOT IN (SELECT {0} FROM {1})", names.invoice_id, names.invoice);
    assert_eq!(database.rows_where(names.line, &orphans), 0);

    place.program().json(&["erase", "--plan", &hash[..12]]).refuses(3, &["executed already"]);
    assert_eq!(place.plan().number("due"), 0);
    finish(place);
}

/// The count of one collection in a plan.
fn of_collection(plan: &Outcome, collection: &str, what: &str) -> i64 {
    let rows = plan.list("collections");
    rows.iter().find(|row| row["collection"] == collection).and_then(|row| row[what].as_i64()).unwrap_or(-1)
}

/// Requests for these customers, carried out; the counts of all runs together: erased, kept, failed.
fn leave(place: &Workplace, customers: &[String]) -> [i64; 3] {
    let file = customers.iter().fold(String::new(), |file, id| file + &format!("{id},on paper\n"));
    place.write_private("ids.csv", &file);
    let recorded = place.good(&["request", "new", "--file", "ids.csv", "--yes"]);
    assert_eq!(recorded.list("requests").len(), customers.len(), "{recorded}");
    let done = place.good(&["request", "run"]);
    let runs = done.list("details");
    assert_eq!(runs.len(), customers.len(), "{done}");
    let sum = |name: &str| runs.iter().filter_map(|run: &Value| run[name].as_i64()).sum();
    [sum("erased"), sum("kept"), sum("failed")]
}

fn customer_ids(database: &Database, names: &Names) -> Vec<String> {
    let text = if database.engine() == Engine::Mysql { "CHAR" } else { "TEXT" };
    database.texts(&format!("SELECT CAST({0} AS {text}) FROM {1} ORDER BY {0}", names.customer_id, names.customer))
}

fn leaving_with_statute(place: &Workplace, database: &Database, names: &Names) {
    let first = begin(place, database, names, "5 years", r#"["cn.ecl.31"]"#);
    let bound = format!("NOT ({})", names.is_over(3, SystemClock.now()));
    let kept_invoices = rows_as_text(database, names.invoice, names.invoice_id, &bound);
    let kept_lines = rows_as_text(database, names.line, names.line_id, &names.lines_of(&bound));
    let kept_customers = database.rows_where(names.customer, &names.customers_with(&bound));
    let kept = (kept_invoices.len() + kept_lines.len()) as i64 + kept_customers;
    // A kept invoice whose old version shares its keys with an erased one lives on in the newest snapshot alone.
    let gone = owners_and_quarters(database, names, &format!("NOT ({bound})"));
    let shares = |cell: &String| gone.iter().any(|(other, _)| other == cell);
    let alone: Vec<String> = owners_and_quarters(database, names, &bound)
        .into_iter()
        .filter_map(|(cell, id)| (!shares(&cell)).then(|| format!("'{id}'")))
        .collect();
    let in_first = format!("{} IN ({})", names.invoice_id, alone.join(", "));
    let first_invoices = rows_as_text(database, names.invoice, names.invoice_id, &in_first);
    let first_lines = rows_as_text(database, names.line, names.line_id, &in_first);
    let before: i64 = names.registered().iter().map(|(table, _)| database.rows(table)).sum();
    assert!(kept_customers > 0 && before > kept, "the shop does not show both sides");

    let customers = customer_ids(database, names);
    assert_eq!(leave(place, &customers), [before - kept, kept, 0]);
    assert_eq!(rows_as_text(database, names.invoice, names.invoice_id, "1 = 1"), kept_invoices);
    assert_eq!(rows_as_text(database, names.line, names.line_id, "1 = 1"), kept_lines);
    let stripped = format!("{0} IS NULL OR {0} = ''", names.email);
    assert_eq!(database.rows(names.customer), kept_customers);
    assert_eq!(database.rows_where(names.customer, &stripped), kept_customers);
    finish(place);

    let newest = Database::create(database.engine(), place.path()).unwrap();
    let restored = place.good(&["restore", "--to", &newest.url()]);
    for (table, key) in names.registered() {
        let live = rows_as_text(database, table, key, "1 = 1");
        assert_eq!(rows_as_text(&newest, table, key, "1 = 1"), live, "{table}\n{restored}");
    }
    let oldest = Database::create(database.engine(), place.path()).unwrap();
    let restored = place.good(&["restore", &first, "--to", &oldest.url()]);
    assert_eq!(rows_as_text(&oldest, names.invoice, names.invoice_id, "1 = 1"), first_invoices, "{restored}");
    assert_eq!(rows_as_text(&oldest, names.line, names.line_id, "1 = 1"), first_lines, "{restored}");
    let shown = oldest.rows(names.customer) - oldest.rows_where(names.customer, &stripped);
    assert_eq!(shown, 0, "a stripped customer came back\n{restored}");
    let owners = format!("SELECT COUNT(DISTINCT {}) FROM {}", names.customer_id, names.invoice);
    assert_eq!(oldest.rows(names.customer), oldest.number(&owners), "{restored}");
}

fn leaving_without_statute(place: &Workplace, database: &Database, names: &Names) {
    let first = begin(place, database, names, "5 years", "[]");
    let before: i64 = names.registered().iter().map(|(table, _)| database.rows(table)).sum();
    let goods = database.rows(names.goods);
    let customers = customer_ids(database, names);
    assert_eq!(leave(place, &customers), [before, 0, 0]);
    for (table, _) in names.registered() {
        assert_eq!(database.rows(table), 0, "{table}");
    }
    assert_eq!(database.rows(names.goods), goods, "an unregistered table was touched");
    finish(place);

    let target = Database::create(database.engine(), place.path()).unwrap();
    let restored = place.good(&["restore", &first, "--to", &target.url()]);
    for (table, _) in names.registered() {
        assert_eq!(target.rows(table), 0, "{table}\n{restored}");
    }
    let sum = |name: &str| restored.list("collections").iter().filter_map(|row| row[name].as_i64()).sum::<i64>();
    assert_eq!(sum("shredded"), before, "{restored}");
    assert_eq!(sum("lost") + sum("corrupt") + sum("restored"), 0, "{restored}");
}

fn thinking_better(place: &Workplace, database: &Database, names: &Names) {
    let text = format!("{}{}", names.store(&database.url()), names.policy("5 years", r#"["cn.ecl.31"]"#));
    place.configure(&text.replace("grace = \"0\"", "grace = \"48 hours\""));
    place.install();
    let first = place.good(&["backup", "run"]).list("snapshots").remove(0)["snapshot"].as_str().unwrap().to_owned();
    let everything =
        |database: &Database| names.registered().map(|(table, key)| rows_as_text(database, table, key, "1 = 1"));
    let before = everything(database);
    let customers = customer_ids(database, names)[..6].to_vec();
    let [erased, kept, _] = leave(place, &customers);
    assert!(erased > 0 && kept > 0);
    place.good(&["backup", "run"]);
    let mut restored = 0;
    // The newest first: what went last comes back first.
    for number in (1..=customers.len()).rev() {
        let undone = place.good(&["request", "cancel", &number.to_string()]);
        assert_eq!(undone.number("superseded") + undone.number("refused"), 0, "{undone}");
        restored += undone.number("restored");
    }
    assert!(restored >= erased, "{restored} of {erased} and the stripped");
    assert_eq!(everything(database), before);
    let target = Database::create(database.engine(), place.path()).unwrap();
    place.good(&["restore", &first, "--to", &target.url()]);
    assert_eq!(everything(&target), before);
    place.good(&["job", "run", "outbox"]);
    assert!(place.verify_certificates() > 0);
    let number = customers.len().to_string();
    place.program().json(&["request", "cancel", &number]).refuses(3, &["undone already"]);
}

fn coming_back(place: &Workplace, database: &Database, names: &Names) {
    let first = begin(place, database, names, "5 years", "[]");
    let customers = customer_ids(database, names);
    let leavers: Vec<String> = customers.iter().step_by(3).cloned().collect();
    let quoted: Vec<String> = leavers.iter().map(|id| format!("'{id}'")).collect();
    let stays = format!("{} NOT IN ({})", names.customer_id, quoted.join(", "));
    let conditions = [names.lines_of(&stays), stays.clone(), stays];
    let expected: Vec<Vec<String>> = names
        .registered()
        .iter()
        .zip(&conditions)
        .map(|((table, key), condition)| rows_as_text(database, table, key, condition))
        .collect();
    leave(place, &leavers);
    finish(place);

    let empty = Database::create(database.engine(), place.path()).unwrap();
    let restored = place.good(&["restore", &first, "--to", &empty.url()]);
    assert!(
        restored.list("notes").iter().any(|note| note.as_str().unwrap().contains(names.goods)),
        "the foreign key to {} is not listed\n{restored}",
        names.goods
    );
    let loaded = Database::create(database.engine(), place.path()).unwrap();
    load(&loaded);
    for (table, _) in names.registered() {
        loaded.run(&format!("DELETE FROM {table}"));
    }
    let restored_beside = place.good(&["restore", &first, "--to", &loaded.url()]);
    for (target, outcome) in [(&empty, &restored), (&loaded, &restored_beside)] {
        for ((table, key), rows) in names.registered().iter().zip(&expected) {
            assert_eq!(&rows_as_text(target, table, key, "1 = 1"), rows, "{table}\n{outcome}");
        }
    }
    let again = place.program().json(&["restore", &first, "--to", &loaded.url()]);
    again.refuses(3, &["never writes over existing rows"]);
}
