//! The house rules as a test. Each rule is a function from text to findings, tried on a sample that breaks it and then on
//! the repository.

mod documents;
mod operations;

use std::collections::BTreeSet;

use crate::support::source::{
    code_only, files_under, functions, has_extension, read, test_files, without_tests, words,
};

/// The modules in the order in which data flows. A module may use those of the rows above its own, and nothing else of this
/// crate. `main` and `lib` may use everything.
const LAYERS: &[&[&str]] = &[
    &["value", "clock", "random", "memory", "crash_point", "stop", "telemetry", "build"],
    &["policy"],
    &["keys"],
    &["stores"],
    &["log"],
    &["certify"],
    &["backup"],
    &["control"],
    &["audit"],
    &["plan"],
    &["keyring"],
    &["erase"],
    &["config"],
    &["error"],
    &["installation"],
    &["tasks"],
    &["schedule"],
    &["agent"],
    &["quickstart"],
    &["cli"],
];

/// Crates that only some places may name, so that what they do can be replaced and reviewed there. A place is how a path
/// begins: a file with the folder of its parts, or a whole module.
const CONFINED: &[(&str, &[&str])] = &[
    ("sqlx", &["src/control/", "src/stores/"]),
    ("aws_config", &["src/backup/repository", "src/keys/kms_slot/client"]),
    ("aws_credential_types", &["src/keys/kms_slot/client"]),
    ("aws_sigv4", &["src/keys/kms_slot/client"]),
    ("aws_smithy_http_client", &["src/backup/repository"]),
    ("aws_sdk_s3", &["src/backup/repository"]),
    ("s3s", &["src/backup/embedded"]),
    ("s3s_fs", &["src/backup/embedded"]),
    ("reqwest", &["src/audit/client", "src/keys/kms_slot/client", "src/keys/transit_slot/client"]),
    ("cryptoki", &["src/keys/pkcs11_slot"]),
    ("axum", &["src/audit/service"]),
    ("cms", &["src/audit/stamp"]),
    ("webpki", &["src/audit/stamp"]),
    ("x509_cert", &["src/audit/stamp"]),
    ("tokio_cron_scheduler", &["src/schedule/waker"]),
    ("anyhow", SPEAKERS),
    ("clap", SPEAKERS),
    ("comfy_table", SPEAKERS),
    ("indicatif", SPEAKERS),
];

/// The only places that speak to people.
const SPEAKERS: &[&str] = &["src/cli/", "src/main.rs", "src/build.rs"];

const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

const MOST_LINES_OF_A_FILE: usize = 600;
const MOST_LINES_OF_A_FUNCTION: usize = 70;

/// The Rust files of a folder with their text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let rust = files_under(folder).into_iter().filter(|path| has_extension(path, "rs"));
    rust.map(|path| (path.clone(), read(&path))).collect()
}

/// The program's files, without test code, as code only.
fn program() -> Vec<(String, String)> {
    let all = sources("src");
    let tests = test_files(&all);
    let program = all.into_iter().filter(|(path, _)| !tests.contains(path));
    program.map(|(path, text)| (path, without_tests(&code_only(&text)))).collect()
}

/// The Rust files of a folder, tests included, as code only.
fn sources_as_code(folder: &str) -> Vec<(String, String)> {
    sources(folder).into_iter().map(|(path, text)| (path, code_only(&text))).collect()
}

fn findings(files: &[(String, String)], rule: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    files
        .iter()
        .flat_map(|(path, text)| rule(path, text).into_iter().map(move |what| format!("{path}: {what}")))
        .collect()
}

fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n  {}", findings.len(), findings.join("\n  "));
}

/// The top-level module a file belongs to; `None` for `main` and `lib`.
fn module_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("src/")?.split('/').next()?.trim_end_matches(".rs");
    (name != "main" && name != "lib").then_some(name)
}

fn row_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The top-level modules that code names: `crate::a`, `crate::{a, b::c}`, or through as many `super` as lead to the root.
fn modules_named(path: &str, code: &str) -> BTreeSet<String> {
    let file = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = file.split('/').count();
    let mut found = BTreeSet::new();
    for (start, word) in words(code) {
        let rest = &code[start + word.len()..];
        let Some(rest) = rest.trim_start().strip_prefix("::") else { continue };
        let preceded = code[..start].trim_end().ends_with("::");
        match word {
            "crate" => found.extend(first_names(rest)),
            "super" if !preceded => {
                let chain = format!("super::{}", rest.trim_start());
                let supers = chain.split("::").take_while(|part| part.trim() == "super").count();
                if supers >= depth {
                    found.extend(first_names(&chain[supers * "super::".len()..]));
                }
            }
            _ => {}
        }
    }
    found
}

/// The first name of a path, or of each path of a `{…}` group.
fn first_names(rest: &str) -> Vec<String> {
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        return words(rest)
            .first()
            .filter(|(at, _)| *at == 0)
            .map(|(_, word)| (*word).to_owned())
            .into_iter()
            .collect();
    };
    let (mut names, mut depth, mut expecting) = (Vec::new(), 0, true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expecting = true,
            letter if expecting && !letter.is_whitespace() => {
                names.extend(words(&group[at..]).first().map(|(_, word)| (*word).to_owned()));
                expecting = false;
            }
            _ => {}
        }
    }
    names
}

fn layering(path: &str, code: &str) -> Vec<String> {
    let Some(module) = module_of(path) else { return Vec::new() };
    let Some(row) = row_of(module) else { return vec![format!("module {module} has no row in LAYERS")] };
    let known = |name: &String| row_of(name).is_some_and(|other| other >= row) && name != module;
    modules_named(path, code).into_iter().filter(known).map(|name| format!("{module} must not use {name}")).collect()
}

fn confinement(path: &str, code: &str) -> Vec<String> {
    let named: BTreeSet<&str> = words(code).into_iter().map(|(_, word)| word).collect();
    let strayed =
        |(name, places): &&(&str, &[&str])| named.contains(name) && !places.iter().any(|place| path.starts_with(place));
    CONFINED.iter().filter(strayed).map(|(name, places)| format!("names {name}, which belongs to {places:?}")).collect()
}

/// The one file that may contain unsafe code, and the one that declares it.
const UNSAFE: &str = "src/keys/suite/sm4/x86.rs";
const DECLARES_UNSAFE: &str = "src/keys/suite/sm4.rs";

fn unsafe_code(path: &str, code: &str) -> Vec<String> {
    let has = |name: &str| words(code).iter().any(|(_, word)| *word == name);
    let mut found = Vec::new();
    if has("unsafe") && path != UNSAFE {
        found.push(format!("has unsafe code, which belongs to {UNSAFE}"));
    }
    if has("unsafe_code") && path != DECLARES_UNSAFE {
        found.push(format!("permits unsafe code, which only {DECLARES_UNSAFE} may"));
    }
    found
}

/// Each `unsafe` says why it is sound, in the comment before it.
fn unexplained_unsafe(path: &str, text: &str) -> Vec<String> {
    if path != UNSAFE {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    let explained = |at: usize| lines[at.saturating_sub(4)..=at].iter().any(|line| line.contains("// SAFETY: "));
    let code = lines.iter().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let bare = code.filter(|(at, line)| words(line).iter().any(|(_, word)| *word == "unsafe") && !explained(*at));
    bare.map(|(at, _)| format!("line {}: unsafe without a reason", at + 1)).collect()
}

fn printing(path: &str, code: &str) -> Vec<String> {
    if SPEAKERS.iter().any(|place| path.starts_with(place)) {
        return Vec::new();
    }
    let prints = |(start, word): &(usize, &str)| PRINTING.contains(word) && code[start + word.len()..].starts_with('!');
    words(code).into_iter().filter(prints).map(|(_, word)| format!("prints with {word}!")).collect()
}

fn panicking(_: &str, code: &str) -> Vec<String> {
    let calls = |pattern: &str| code.matches(pattern).count() - code.matches(&format!("self{pattern}")).count();
    let found = [".unwrap()", ".expect("].into_iter().filter(|pattern| calls(pattern) > 0);
    found.map(|pattern| format!("calls {pattern} outside of tests")).collect()
}

fn unfinished(_: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    // Written apart, so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")]
        .into_iter()
        .filter(|mark| words(text).iter().any(|(_, word)| word == mark));
    let macros = [
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("#[", "allow"),
        concat!("#![", "allow"),
        concat!("#[", "ignore"),
    ]
    .into_iter()
    .filter(|call| code.contains(call));
    marks.chain(macros).map(|what| format!("has {what}")).collect()
}

fn file_length(_: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines <= MOST_LINES_OF_A_FILE {
        Vec::new()
    } else {
        vec![format!("{lines} lines, at most {MOST_LINES_OF_A_FILE}")]
    }
}

fn function_length(_: &str, text: &str) -> Vec<String> {
    let long = functions(&code_only(text)).into_iter().filter(|function| function.lines > MOST_LINES_OF_A_FUNCTION);
    long.map(|function| format!("line {}: fn {} has {} lines", function.line, function.name, function.lines)).collect()
}

/// Paths of somebody's machine.
fn machine_paths(_: &str, text: &str) -> Vec<String> {
    let places = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let starts =
        |at: usize| !text[..at].ends_with(|letter: char| letter.is_alphanumeric() || "._-*}>".contains(letter));
    let found = places.into_iter().filter(|place| text.match_indices(place).any(|(at, _)| starts(at)));
    found.map(|place| format!("has a path under {place}")).collect()
}

#[test]
fn data_flows_one_way() {
    let module = |path: &str, code: &str| layering(path, code).len();
    assert_eq!(module("src/policy/hold.rs", "use crate::{value::{self, Row}, stores::Table, cli};"), 2);
    assert_eq!(module("src/policy/hold.rs", "use super::super::stores::Table; use super::mask;"), 1);
    assert_eq!(module("src/policy/hold.rs", "fn f() { crate::keys::x() }"), 1);
    assert_eq!(module("src/clock.rs", "use super::random;"), 1);
    assert_eq!(module("src/unheard_of.rs", ""), 1);
    assert_eq!(module("src/cli/mod.rs", "use crate::stores; use crate::cli::output; use super::output;"), 0);
    assert_none(&findings(&program(), layering));
}

#[test]
fn crates_stay_where_they_belong() {
    assert_eq!(confinement("src/plan/mod.rs", "use sqlx::Row; use aws_sdk_s3::Client;").len(), 2);
    assert_eq!(confinement("src/stores/sqlite.rs", "use sqlx::Row;").len(), 0);
    assert_none(&findings(&program(), confinement));
}

#[test]
fn unsafe_code_stays_in_one_file_and_is_explained() {
    assert_eq!(unsafe_code("src/plan/mod.rs", "#![expect(unsafe_code)] fn f() { unsafe { g() } }").len(), 2);
    assert_eq!(unsafe_code("src/plan/mod.rs", "fn f(unsafely: u8) {}").len(), 0);
    assert_none(&findings(&sources_as_code("src"), unsafe_code));
    assert_none(&findings(&sources_as_code("benches"), unsafe_code));
    assert_eq!(unexplained_unsafe(UNSAFE, "fn f() { unsafe { g() } }").len(), 1);
    assert_eq!(unexplained_unsafe(UNSAFE, "// SAFETY: it is.\nfn f() { unsafe { g() } }").len(), 0);
    assert_none(&findings(&sources("src"), unexplained_unsafe));
}

#[test]
fn only_the_command_line_prints() {
    assert_eq!(printing("src/plan/mod.rs", "fn f() { println!(); eprint!() }").len(), 2);
    assert_eq!(printing("src/cli/mod.rs", "fn f() { println!() }").len(), 0);
    assert_none(&findings(&program(), printing));
}

#[test]
fn nothing_panics_on_purpose() {
    assert_eq!(panicking("", "a.unwrap(); b.expect(   )").len(), 2);
    assert_eq!(panicking("", "self.expect(b); a.unwrap_or(1)").len(), 0);
    assert_none(&findings(&program(), panicking));
}

#[test]
fn nothing_is_left_unfinished_or_silenced() {
    let sample = [concat!("// TO", "DO: later"), concat!("fn f() { to", "do!() }"), "#[allow(dead_code)]"].join("\n");
    assert_eq!(unfinished("", &sample).len(), 3);
    assert_none(&[findings(&sources("src"), unfinished), findings(&sources("tests"), unfinished)].concat());
}

#[test]
fn files_and_functions_stay_short() {
    assert_eq!(file_length("", &"\n".repeat(MOST_LINES_OF_A_FILE + 1)).len(), 1);
    let long = format!("fn f() {{{}}}", "\n".repeat(MOST_LINES_OF_A_FUNCTION));
    assert_eq!(function_length("", &long).len(), 1);
    for folder in ["src", "tests"] {
        assert_none(&findings(&sources(folder), file_length));
        assert_none(&findings(&sources(folder), function_length));
    }
}

#[test]
fn no_path_of_somebodys_machine_is_written_down() {
    assert_eq!(machine_paths("", concat!("see /wo", "rk/x and \"/ro", "ot/.cargo\"")).len(), 2);
    assert_eq!(machine_paths("", concat!("src/ro", "ot/mod.rs")).len(), 0);
    let text = files_under("").into_iter().filter(|path| !has_extension(path, "bin"));
    let all: Vec<(String, String)> = text.map(|path| (path.clone(), read(&path))).collect();
    assert!(all.len() > 20, "the walk found {} files only", all.len());
    assert_none(&findings(&all, machine_paths));
}
