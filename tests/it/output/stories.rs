//! What an administrator types in the life of a small installation, every command of it with `--json`.

use chrono::SecondsFormat;
use serde_json::Value;
use wangchuan::clock::{Clock as _, SystemClock};

use super::normal::{Names, normal};
use super::snapshot::{check, check_shape, compare, fits_schema};
use crate::scenario::database::Database;
use crate::scenario::small;
use crate::scenario::workplace::Workplace;
use crate::support::bao::Bao;
use crate::support::program::{Outcome, Program};

/// An installation over the small shop, and what differs in it from run to run.
struct Stage {
    place: Workplace,
    database: Database,
}

impl Stage {
    fn set() -> Self {
        let (place, database) = small::installed();
        Self { place, database }
    }

    fn program(&self) -> Program {
        self.place.program().with("USER", "clerk").with("LOGNAME", "clerk")
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.program().json(arguments)
    }

    /// Runs a command, requires its exit code, and checks its document.
    #[track_caller]
    fn checked(&self, name: &str, code: i32, arguments: &[&str]) -> Outcome {
        let outcome = self.run(arguments).ends(code);
        self.check(name, &outcome);
        outcome
    }

    #[track_caller]
    fn check(&self, name: &str, outcome: &Outcome) {
        let folder = self.place.path().display().to_string();
        let names: &Names<'_> = &[(&folder, "‹folder›"), (self.database.name(), "‹database›")];
        check(name, outcome, names);
    }
}

/// A catalogue of one's own that lengthens a minimum.
const OWN_STATUTES: &str = r#"version = 2
[[statute]]
key = "cn.ecl.31"
jurisdiction = "CN"
applies_to = { en = "platforms", zh = "平台" }
bound = "minimum"
period = "30 years"
start_event = { en = "transaction completed", zh = "交易完成" }
cites = [{ en = "E-commerce Law", zh = "电子商务法", article = "31" }]
status = "partly"
"#;

#[test]
fn a_new_installation_and_what_is_configured() {
    let stage = Stage::set();
    stage.checked("init", 0, &["init", "--dir", ".", "--accept-host-loss"]);
    stage.checked("config-check", 0, &["config", "check"]);
    stage.checked("config-show", 0, &["config", "show"]);
    stage.checked("config-schema", 0, &["config", "schema", "output", "error"]);
    stage.checked("store-list", 0, &["store", "list"]);
    stage.checked("store-check", 0, &["store", "check"]);
    stage.checked("store-lint", 5, &["store", "lint"]);
    stage.checked("doctor", 0, &["doctor"]);
    stage.checked("job-list", 0, &["job", "list"]);
    stage.checked(
        "job-preview",
        0,
        &["job", "preview", "--from", "2026-03-01T00:00:00Z", "--days", "7", "--job", "backup-full"],
    );
    stage.checked("status.overdue", 5, &["status"]);
    stage.checked("statute-list", 0, &["statute", "list", "EU"]);
    stage.checked("statute-list.profile", 0, &["statute", "list", "--profile", "consulting"]);
    stage.checked("statute-diff.nothing", 0, &["statute", "diff"]);
    stage.place.reconfigure("grace = \"0\"", "grace = \"0\"\nstatutes = [\"cn.ecl.31\"]");
    stage.place.write_private("own.toml", OWN_STATUTES);
    stage.checked("statute-diff", 0, &["statute", "diff", "--from", "built-in", "--to", "own.toml"]);
    stage.place.reconfigure("grace = \"0\"\nstatutes = [\"cn.ecl.31\"]", "grace = \"0\"");
    stage.place.write_private("own.toml", "version = 1\n[[statute]]\nkey = \"cn.x\"\n");
    stage.checked("error.catalogue", 2, &["statute", "diff", "--to", "own.toml"]);
    stage.checked("completions", 0, &["completions", "bash"]);
    stage.checked("manual", 0, &["manual", "backup", "run"]);

    let tight = "name = \"shop\"\nbudget = { scan_rows = 2 }";
    stage.place.reconfigure("name = \"shop\"", tight);
    stage.checked("store-check.no-index", 3, &["store", "check"]);
    stage.checked("error.no-index", 3, &["plan"]);
    stage.place.reconfigure(tight, "name = \"shop\"");
    stage.place.reconfigure("timezone", "timezon");
    stage.checked("config-check.invalid", 2, &["config", "check"]);
    stage.checked("doctor.missing", 5, &["doctor"]);
    stage.place.reconfigure("timezon", "timezone");
    stage.database.run("DROP TABLE orders");
    stage.checked("store-check.refused", 3, &["store", "check"]);
}

#[test]
fn what_is_listed_while_nothing_has_happened() {
    let stage = Stage::set();
    for (name, command) in [
        ("backup-list.nothing", ["backup", "list"]),
        ("backup-verify.nothing", ["backup", "verify"]),
        ("backup-unneeded.nothing", ["backup", "unneeded"]),
        ("drill-list.nothing", ["drill", "list"]),
        ("drill-run.nothing", ["drill", "run"]),
        ("drill-verify.nothing", ["drill", "verify"]),
        ("certificate-list.nothing", ["certificate", "list"]),
        ("run-list.nothing", ["run", "list"]),
        ("request-list.nothing", ["request", "list"]),
        ("request-run.nothing", ["request", "run"]),
        ("hold-list.nothing", ["hold", "list"]),
        ("media-list.nothing", ["media", "list"]),
    ] {
        stage.checked(name, 0, &command);
    }
}

/// A run that was begun and not yet carried out.
fn begun(stage: &Stage) -> String {
    stage.run(&["backup", "run"]).ends(0);
    let hash = stage.run(&["plan"]).ends(0).text("hash");
    let killed = stage.program().with("WANGCHUAN_CRASH_AT", "run.added").json(&["erase", "--plan", &hash]);
    assert!(killed.was_killed(), "{killed}");
    stage.run(&["run", "list"]).list("runs")[0]["run"].as_str().unwrap().to_owned()
}

#[test]
fn a_run_that_is_paused_tuned_resumed_or_stopped() {
    let stage = Stage::set();
    let run = begun(&stage);
    stage.checked("run-pause", 0, &["run", "pause", &run]);
    stage.checked("run-tune", 0, &["run", "tune", &run, "--rows-per-second", "2000", "--transaction-ms", "50"]);
    stage.checked("run-show.paused", 0, &["run", "show", &run]);
    assert!(stage.run(&["status"]).ends(5).to_string().contains("run-paused"));
    // Nobody goes on with it by himself.
    stage.run(&["agent", "--once"]);
    assert_eq!(stage.run(&["run", "show", &run]).text("state"), "approved");
    stage.checked("run-resume", 0, &["run", "resume", &run]);
    stage.checked("error.run-is-done", 3, &["run", "pause", &run]);

    let stage = Stage::set();
    let run = begun(&stage);
    stage.checked("run-stop", 4, &["run", "stop", &run]);
    stage.checked("run-show.stopped", 0, &["run", "show", &run]);
    let again = stage.run(&["plan"]).ends(0);
    assert_eq!(again.number("due"), small::DUE, "the next plan has what stays");
}

fn signing_keys(stage: &Stage) {
    stage.checked("audit-key-rotate", 0, &["audit", "key", "rotate"]);
    let keys = stage.checked("audit-key-list", 0, &["audit", "key", "list"]);
    let retired = keys.list("signing_keys")[0]["key_id"].as_str().unwrap().to_owned();
    stage.checked("audit-key-revoke", 0, &["audit", "key", "revoke", &retired]);
}

#[test]
fn retention_with_a_hold_from_backup_to_proof() {
    let stage = Stage::set();
    stage.checked("backup-run", 0, &["backup", "run"]);
    stage.checked("backup-list", 0, &["backup", "list"]);
    stage.checked("backup-verify", 0, &["backup", "verify"]);
    let held = stage.program().reading("c-1002\n");
    let placed = held.json(&["hold", "place", "case-1", "--subject", "-", "--reason", "lawsuit"]).ends(0);
    stage.check("hold-place", &placed);
    stage.checked("hold-place.store", 0, &["hold", "place", "case-2", "--store", "shop", "--reason", "audit"]);
    stage.checked("hold-release", 0, &["hold", "release", "case-2"]);
    stage.checked("hold-list", 0, &["hold", "list"]);

    stage.checked("explain", 0, &["explain", "shop", "orders", "1"]);
    stage.checked("explain.ungoverned", 0, &["explain", "shop", "customers", "c-1001"]);
    let bound = "grace = \"0\"\nstatutes = [\"cn.credit.16\", \"cn.med.in\"]";
    stage.place.reconfigure("grace = \"0\"", bound);
    stage.checked("explain.restricted", 0, &["explain", "shop", "orders", "2"]);
    stage.place.reconfigure(bound, "grace = \"0\"");
    stage.checked("explain.nothing", 0, &["explain", "shop", "orders", "99"]);
    stage.checked("plan.preview", 0, &["plan", "--at", "2100-01-01T00:00:00Z"]);
    let plan = stage.checked("plan", 0, &["plan"]);
    let erased = stage.checked("erase", 0, &["erase", "--plan", &plan.text("hash")]);
    assert_eq!(erased.text("code"), "KEY_SHRED_PENDING", "{erased}");
    let filed = stage.run(&["certificate", "export", "1"]).ends(1);
    stage.check("error.failed", &filed);
    stage.checked("audit-flush", 0, &["audit", "flush"]);
    stage.checked("audit-flush.refused", 0, &["audit", "flush", "--refused"]);
    let run = erased.list("runs")[0].as_str().unwrap().to_owned();
    stage.checked("run-list", 0, &["run", "list"]);
    stage.checked("run-show", 0, &["run", "show", &run]);
    stage.checked("key-status", 0, &["key", "status"]);
    stage.checked("key-list", 0, &["key", "list"]);
    stage.checked("key-shred", 0, &["key", "shred", "--now"]);
    stage.checked("key-advice", 0, &["key", "advice"]);

    stage.checked("backup-run.increment", 0, &["backup", "run"]);
    stage.checked("job-run", 0, &["job", "run", "shred"]);
    stage.checked("key-verify", 0, &["key", "verify"]);
    stage.checked("run-show.shredded", 0, &["run", "show", &run]);
    stage.checked("verify-erased", 0, &["verify", "erased"]);
    stage.checked("verify-residue", 4, &["verify", "residue"]);
    stage.checked("store-settle", 0, &["store", "settle", "shop"]);
    stage.checked("audit-status", 0, &["audit", "status"]);
    stage.checked("audit-verify", 0, &["audit", "verify"]);
    stage.checked("audit-trust", 0, &["audit", "trust", "--output", "trust.json"]);
    stage.checked("audit-conformance", 0, &["audit", "conformance"]);
    stage.checked("certificate-list", 0, &["certificate", "list"]);
    stage.checked("certificate-show", 0, &["certificate", "show", "latest"]);
    stage.checked("certificate-trace", 0, &["certificate", "trace", "latest"]);
    stage.checked("certificate-verify", 0, &["certificate", "verify", "latest"]);
    stage.checked("certificate-export", 0, &["certificate", "export", "latest", "--output", "c.sigstore.json"]);
    stage.checked("log-verify", 0, &["log", "verify"]);
    stage.checked("log-query", 0, &["log", "query", "--operation", "run.begin"]);
    stage.checked("log-export", 0, &["log", "export", "--output", "operations.ndjson"]);
    stage.checked("log-prune.nothing", 0, &["log", "prune"]);
    evidence_pack(&stage);
    signing_keys(&stage);
    let port = crate::support::ports::free_port();
    let served = stage.program().start(&["audit", "serve", "--listen", &format!("127.0.0.1:{port}"), "--json"]);
    served.wait_for("verifier_key", std::time::Duration::from_secs(30));
    let (code, said) = served.signal("TERM", std::time::Duration::from_secs(30));
    assert_eq!(code, Some(0), "{said}");
    let document: Value = serde_json::from_str(&said[said.find('{').unwrap()..=said.rfind('}').unwrap()]).unwrap();
    fits_schema("audit-serve", &document);
    compare("audit-serve", &normal(&document, &[(&port.to_string(), "‹port›")]));

    comes_back(&stage);
    stage.checked("status", 0, &["status"]);
}

/// Everything for an inspection, and what is said of a pack in which something was changed and something is missing.
fn evidence_pack(stage: &Stage) {
    let today = SystemClock.now().date_naive();
    let [from, to] = [today - chrono::Days::new(1), today + chrono::Days::new(1)].map(|day| day.to_string());
    stage.checked("report-monthly", 0, &["report", "monthly", "--month", &today.format("%Y-%m").to_string()]);
    stage.checked("evidence-pack", 0, &["evidence-pack", "--from", &from, "--to", &to, "--output", "pack"]);
    stage.checked("evidence-pack-verify", 0, &["evidence-pack", "verify", "pack", "--trust", "trust.json"]);
    std::fs::write(stage.place.file("pack/holds.json"), "[]").unwrap();
    std::fs::remove_file(stage.place.file("pack/certificates/000001.sigstore.json")).unwrap();
    let verified = ["evidence-pack", "verify", "pack", "--trust", "trust.json"];
    stage.checked("evidence-pack-verify.invalid", 1, &verified);
}

#[test]
fn the_file_of_a_case() {
    let stage = Stage::set();
    stage.checked("incident-list.nothing", 0, &["incident", "list"]);
    stage.checked("incident-open", 0, &["incident", "open", "case-17"]);
    stage.place.write_private("cases/found", "found");
    let add = ["incident", "add", "case-17", "--part", "find", "--document", "cases/found"];
    stage.checked("incident-add", 0, &add);
    stage.checked("error.incomplete-file", 3, &["incident", "close", "case-17"]);
    for part in ["investigate", "notify", "fix", "evaluate"] {
        stage.place.write_private(part, part);
        stage.run(&["incident", "add", "case-17", "--part", part, "--document", part]).ends(0);
    }
    stage.checked("incident-close", 0, &["incident", "close", "case-17"]);
    stage.checked("incident-list", 0, &["incident", "list"]);
    stage.checked("incident-verify", 0, &["incident", "verify"]);
    stage.checked("incident-verify.invalid", 1, &["incident", "verify", "--documents", "cases"]);
}

/// What is told of restores.
fn comes_back(stage: &Stage) {
    stage.checked("recover", 0, &["recover", "--into", "look"]);
    stage.checked("drill-run", 0, &["drill", "run"]);
    stage.checked("drill-list", 0, &["drill", "list"]);
    stage.checked("drill-show", 0, &["drill", "show"]);
    stage.checked("drill-verify", 0, &["drill", "verify"]);
    stage.checked("restore", 0, &["restore", "--to", "sqlite://restored.db"]);
}

#[test]
fn snapshots_that_are_not_kept() {
    let stage = Stage::set();
    let rules = "[backup]\nkeep = { last = 1 }\nprune = \"delete\"\n";
    stage.place.reconfigure("[backup]\n", rules);
    stage.checked("backup-prune.nothing", 0, &["backup", "prune", "--now"]);
    stage.run(&["backup", "run", "--full"]).ends(0);
    stage.run(&["backup", "run", "--full"]).ends(0);
    let shown = stage.checked("backup-prune.preview", 0, &["backup", "prune"]);
    stage.checked("error.plan-changed", 3, &["backup", "prune", "--plan", "000000000000"]);
    stage.checked("backup-prune", 0, &["backup", "prune", "--plan", &shown.text("hash")[..12]]);
    stage.checked("backup-verify.pruned", 0, &["backup", "verify"]);
}

#[test]
fn two_operators_agree_to_a_first_backlog() {
    let stage = Stage::set();
    stage.run(&["backup", "run"]).ends(0);
    stage.place.reconfigure("max = { rows = 1000, percent = 100 }", "max = { rows = 1, percent = 100 }");
    let hash = stage.run(&["plan"]).ends(3).text("hash");
    stage.run(&["erase", "--plan", &hash]).ends(3);
    stage.place.reconfigure("rows = 1,", "rows = 2,");
    let hash = stage.checked("plan.diff", 3, &["plan", "--diff"]).text("hash");
    stage.checked("approve.first", 0, &["approve", &hash, "--as", "ann"]);
    stage.run(&["approve", &hash, "--as", "ann"]).ends(3);
    // Looking again takes nothing back of what was agreed to.
    stage.run(&["plan", "--store", "shop"]).ends(3);
    assert_eq!(stage.run(&["plan"]).ends(3).text("hash"), hash);
    stage.checked("approve", 0, &["approve", &hash, "--as", "bob"]);
    stage.run(&["erase", "--plan", &hash]).ends(0);
}

#[test]
fn customers_ask_and_withdraw() {
    let stage = Stage::set();
    stage.run(&["backup", "run"]).ends(0);
    let new = |id: &str| stage.program().reading(id).json(&["request", "new", "-", "--yes"]).ends(0);
    stage.check("request-new", &new("c-1001\n"));
    stage.check("request-new.unknown", &new("c-9999\n"));
    new("c-1003\n");
    stage.checked("request-cancel", 0, &["request", "cancel", "3"]);
    stage.checked("request-run", 0, &["request", "run", "1"]);
    new("c-1002\n");
    let several = stage.checked("request-run.several", 0, &["request", "run"]);
    let run = several.list("runs")[1].as_str().unwrap().to_owned();
    stage.checked("run-undo", 0, &["run", "undo", &run]);
    stage.checked("request-cancel.undone", 0, &["request", "cancel", "1"]);
    stage.checked("request-list", 0, &["request", "list"]);
    stage.checked("request-show", 0, &["request", "show", "1"]);
    let about = |id: &str| stage.program().reading(id).json(&["certificate", "about", "-"]).ends(0);
    stage.check("certificate-about", &about("c-1002\n"));
    stage.check("certificate-about.nothing", &about("c-9999\n"));
}

#[test]
fn the_agent_its_switch_and_one_pass() {
    let stage = Stage::set();
    stage.run(&["backup", "run"]).ends(0);
    stage.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    stage.checked("agent-hold", 0, &["agent", "hold"]);
    stage.checked("error.refused", 3, &["request", "run"]);
    stage.checked("agent-once.held", 4, &["agent", "--once"]);
    stage.checked("agent-resume", 0, &["agent", "resume"]);
    stage.checked("agent-once", 0, &["agent", "--once"]);

    std::fs::remove_dir_all(stage.place.file("jobs")).unwrap();
    stage.place.write_private("jobs/tick.toml", "task = \"outbox\"\nschedule = \"* * * * * *\"\nmissed = \"skip\"\n");
    let agent = stage.program().start(&["agent", "--json"]);
    let limit = std::time::Duration::from_secs(20);
    agent.wait_for("{\"result\"", limit);
    let (code, said) = agent.signal("TERM", limit);
    let line = said.lines().find(|line| line.starts_with('{')).unwrap();
    let item: serde_json::Value = serde_json::from_str(line).unwrap();
    fits_schema("agent", &item);
    compare("agent", &serde_json::json!({"command": "wangchuan agent --json", "exit": code, "document": item}));
}

#[test]
fn a_tape_is_destroyed() {
    let stage = Stage::set();
    let table = "[[store.collection]]\ntable = \"customers\"";
    let copy = "[[store.copy]]\nname = \"dump\"\nkind = \"dump\"\ndies = \"never\"\n\n";
    stage.place.reconfigure(table, &format!("{copy}{table}"));
    small::goes_through(&stage.place, &stage.database);
    let now = SystemClock.now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let medium = ["media", "record", "--kind", "tape", "--asset", "T-0042", "--model", "LTO-8", "--copy", "shop/dump"];
    std::fs::write(stage.place.file("pieces.jpg"), b"a tape in pieces").unwrap();
    let how = ["--method", "destroy", "--technique", "shred", "--when", &now, "--checked", "inspection"];
    let people = ["--by", "li.wei", "--witness", "wang.fang", "--witness", "chen.jie", "--evidence", "pieces.jpg"];
    let done = stage.checked("media-record", 0, &[&medium[..], &how, &people].concat());
    stage.checked("media-list", 0, &["media", "list"]);
    stage.checked("media-show", 0, &["media", "show"]);
    let own = done.list("certificates")[0].as_str().unwrap().to_owned();
    stage.checked("certificate-show.medium", 0, &["certificate", "show", &own]);
    let disk = ["media", "lost", "--kind", "hard-disk", "--asset", "D-17", "--backups-of", "shop", "--by", "li.wei"];
    stage.checked("media-lost", 4, &[&disk[..], &["--when", &now]].concat());
    stage.checked("status.lost-medium", 5, &["status"]);
    let done = stage.checked("media-lost.shredded", 0, &[&disk[..], &["--when", &now, "--shred"]].concat());
    let own = done.list("certificates")[0].as_str().unwrap().to_owned();
    stage.checked("certificate-show.lost-medium", 0, &["certificate", "show", &own]);
    stage.checked("media-show.lost", 0, &["media", "show"]);
}

#[test]
fn the_root_key_moves_to_another_slot() {
    let stage = Stage::set();
    let file = |path: &str| format!("kind = \"file\"\npath = \"{path}\"\naccept_host_loss = true\n");
    stage.place.reconfigure(&file("root"), &format!("{}\n[root.previous]\n{}", file("kept"), file("root")));
    stage.checked("key-move", 0, &["key", "move", "--to", "file"]);
}

/// Needs OpenBao; elsewhere the snapshots are only looked for.
#[test]
fn the_key_of_a_customer_is_registered_and_let_go() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(bao) = runtime.block_on(Bao::start()) else { return };
    let stage = Stage::set();
    let token = runtime.block_on(async {
        bao.make_key("email-key").await;
        bao.token(&["root"], "1h").await
    });
    let entry = format!(
        "\n[[outside_key]]\nname = \"emails\"\nkind = \"transit\"\naddress = \"{}\"\ntoken = \"{token}\"\n\
         snapshot_retention_days = 7\nsubjects = true\nfields = [\"customers.email\"]\nencrypted_since = \"2020-01-01\"\n\
         ever_in_clear = true\n",
        bao.address()
    );
    let text = std::fs::read_to_string(stage.place.file("wangchuan.toml")).unwrap();
    stage.place.write_private("wangchuan.toml", &format!("{text}{entry}"));
    let registered = stage.program().reading("c-1001\nemail-key\n").json(&["key", "register", "emails", "-"]).ends(0);
    stage.check("key-register", &registered);
    stage.checked("key-list.outside", 0, &["key", "list"]);
    stage.checked("key-unregister", 0, &["key", "unregister", &registered.text("outside_key")]);
}

#[test]
fn a_store_out_of_reach_leaves_a_part_undone() {
    let stage = Stage::set();
    let other = "\n[[store]]\nname = \"crm\"\nurl = \"sqlite://crm.db\"\nbackup = \"none\"\n\n[[store.collection]]\ntable = \"leads\"\nsubject = \"id\"\n";
    let text = std::fs::read_to_string(stage.place.file("wangchuan.toml")).unwrap();
    stage.place.write_private("wangchuan.toml", &format!("{text}{other}"));
    stage.run(&["backup", "run", "shop"]).ends(0);
    stage.checked("store-check.failed", 1, &["store", "check", "crm"]);
    let plan = stage.checked("plan.partial", 4, &["plan"]);
    stage.checked("erase.partial", 4, &["erase", "--plan", &plan.text("hash")]);
}

#[test]
fn a_changed_bucket_and_certificate_are_found() {
    let stage = Stage::set();
    small::goes_through(&stage.place, &stage.database);
    stage.run(&["certificate", "export", "1", "--output", "c.sigstore.json"]).ends(0);
    let bundle = std::fs::read_to_string(stage.place.file("c.sigstore.json")).unwrap();
    let at = bundle.find("\"payload\"").unwrap() + 40;
    let changed = if &bundle[at..=at] == "A" { "B" } else { "A" };
    stage.place.write_private("changed.json", &format!("{}{changed}{}", &bundle[..at], &bundle[at + 1..]));
    stage.checked("certificate-verify.invalid", 1, &["certificate", "verify", "changed.json"]);

    let pack = oldest_file_below(&stage.place.file("bucket"), "pack");
    let mut bytes = std::fs::read(&pack).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    stage.checked("backup-verify.invalid", 1, &["backup", "verify"]);
}

/// The oldest file whose path has this text in it.
fn oldest_file_below(folder: &std::path::Path, text: &str) -> std::path::PathBuf {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort_by_key(|path| std::fs::metadata(path).unwrap().modified().unwrap());
    found.into_iter().find(|path| path.to_string_lossy().contains(text)).unwrap()
}

#[test]
fn the_quickstart() {
    let place = Workplace::new();
    let done = place.program().json(&["quickstart", "--dir", "try", "--customers", "60"]).ends(0);
    // On the few days on which every quarter with erased rows is wholly due, nothing is pending.
    check_shape(if done.text("result") == "partial" { "quickstart" } else { "quickstart.complete" }, &done, &[]);
}
