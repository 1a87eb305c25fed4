//! The written maps must be true: README and ARCHITECTURE name only what exists, and all of what they promise to name.

use std::collections::BTreeSet;
use std::process::Command;

use super::{assert_none, module_of};
use crate::support::source::{files_under, has_extension, read, root};

/// The documents at the root; without these two there is no map to check.
const MAPS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];

/// Folders whose names mark a text in backticks as a path of the repository.
const FOLDERS: [&str; 8] = ["src", "tests", "jobs", "config", "benches", "docs", "examples", ".ci"];

fn documents() -> Vec<(String, String)> {
    for map in MAPS {
        assert!(root().join(map).is_file(), "{map} is missing");
    }
    let all = files_under("").into_iter().filter(|path| !path.contains('/') && has_extension(path, "md"));
    all.map(|path| (path.clone(), read(&path))).collect()
}

/// The texts in backticks, and the lines of code blocks.
fn code_texts(markdown: &str) -> Vec<String> {
    let (mut found, mut block) = (Vec::new(), false);
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            block = !block;
        } else if block {
            found.push(line.trim().trim_start_matches("$ ").to_owned());
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The paths of the repository among the words of a text; a `*` stands for anything, so only what is before it counts.
fn paths_named(text: &str) -> Vec<String> {
    let within =
        |word: &&str| FOLDERS.iter().any(|folder| word.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')));
    let alone = |word: &&str| has_extension(word, "rs") && !word.contains(['*', '{', '<']);
    let words = text.split_whitespace().map(|word| word.trim_matches([',', ';', '(', ')', '"', '\'']));
    words
        .map(|word| word.trim_start_matches("./"))
        .filter(|word| within(word) || alone(word))
        .map(|word| {
            let fixed = word.split(['*', '{', '<']).next().unwrap_or_default();
            if fixed.len() < word.len() { fixed.rsplit_once('/').map_or("", |(folder, _)| folder) } else { fixed }
                .to_owned()
        })
        .collect()
}

/// A path may be given from the root or from `src`, a Rust file also by its name alone.
fn exists(path: &str) -> bool {
    let named_alone = || {
        let end = format!("/{path}");
        ["src", "tests"].iter().any(|folder| files_under(folder).iter().any(|file| file.ends_with(&end)))
    };
    root().join(path).exists() || root().join("src").join(path).exists() || (!path.is_empty() && named_alone())
}

/// The commands of a text that starts with the program's name: at most two lower-case words.
fn command_named(text: &str) -> Option<Vec<String>> {
    let mut words = text.split_whitespace().skip_while(|word| word.contains('='));
    words.next().filter(|program| *program == "wangchuan" || program.ends_with("/wangchuan"))?;
    let plain = |word: &&str| {
        word.starts_with(|letter: char| letter.is_ascii_lowercase()) && !word.contains(['.', '/', '=', ':', '@'])
    };
    let verbs: Vec<String> = words.take_while(plain).take(2).map(str::to_owned).collect();
    (!verbs.is_empty()).then_some(verbs)
}

/// `a/b/c` in documentation stands for three verbs.
fn spelled_out(verbs: &[String]) -> Vec<Vec<String>> {
    match verbs {
        [noun, several] => several.split('/').map(|verb| vec![noun.clone(), verb.to_owned()]).collect(),
        other => vec![other.to_vec()],
    }
}

/// Whether the program knows the command: it prints help for it.
fn is_known(verbs: &[String]) -> bool {
    let answer = Command::new(env!("CARGO_BIN_EXE_wangchuan")).args(verbs).arg("--help").output();
    answer.is_ok_and(|answer| answer.status.success() && !answer.stdout.is_empty())
}

#[test]
fn samples_are_read_as_meant() {
    let texts = code_texts("see `src/a.rs` and `x`\n```sh\n$ wangchuan plan --at X\n```\n");
    assert_eq!(texts, ["src/a.rs", "x", "wangchuan plan --at X"]);
    assert_eq!(
        paths_named("jobs/*.toml src/{a,b}.rs tests/run; value.rs s3://x/y"),
        ["jobs", "src", "tests/run", "value.rs"]
    );
    assert_eq!(
        command_named("WANGCHUAN_CONFIG=x ./target/release/wangchuan key status"),
        Some(vec!["key".into(), "status".into()])
    );
    assert_eq!(command_named("wangchuan erase --plan HASH"), Some(vec!["erase".into()]));
    assert_eq!(command_named("wangchuan --version"), None);
    assert_eq!(spelled_out(&["key".into(), "status/list".into()]).len(), 2);
    assert!(exists("src/lib.rs") && exists("stores/mod.rs") && exists("suites.rs") && exists("tests/run"));
    assert!(!exists("src/nowhere.rs") && !exists("nowhere.rs"));
}

#[test]
fn documents_name_only_files_that_exist() {
    let named = documents().into_iter().flat_map(|(document, text)| {
        let paths: BTreeSet<String> = code_texts(&text).iter().flat_map(|text| paths_named(text)).collect();
        paths.into_iter().map(move |path| (document.clone(), path))
    });
    let missing = named.filter(|(_, path)| !exists(path)).map(|(document, path)| format!("{document} names {path}"));
    assert_none(&missing.collect::<Vec<_>>());
}

#[test]
fn documents_name_only_commands_that_exist() {
    let named: BTreeSet<Vec<String>> = documents()
        .iter()
        .flat_map(|(_, text)| code_texts(text))
        .filter_map(|text| command_named(&text))
        .flat_map(|verbs| spelled_out(&verbs))
        .collect();
    let unknown = named.iter().filter(|verbs| !is_known(verbs)).map(|verbs| format!("wangchuan {}", verbs.join(" ")));
    assert_none(&unknown.collect::<Vec<_>>());
}

/// What people are advised to type must exist too.
#[test]
fn the_program_advises_only_commands_that_exist() {
    let sources = files_under("src").into_iter().chain(files_under("config")).chain(files_under("jobs"));
    let texts: Vec<String> = sources.map(|path| read(&path)).collect();
    let quoted = texts.iter().flat_map(|text| text.match_indices("`wangchuan ").map(|(at, _)| &text[at + 1..]));
    let named: BTreeSet<Vec<String>> = quoted
        .filter_map(|text| text.split(['`', '\n']).next().and_then(command_named))
        .flat_map(|verbs| spelled_out(&verbs))
        .collect();
    assert!(named.len() > 10, "{named:?}");
    let unknown = named.iter().filter(|verbs| !is_known(verbs)).map(|verbs| format!("wangchuan {}", verbs.join(" ")));
    assert_none(&unknown.collect::<Vec<_>>());
}

#[test]
fn the_architecture_names_every_module() {
    documents();
    let map = read("ARCHITECTURE.md");
    let paths = files_under("src");
    let modules: BTreeSet<&str> = paths.iter().filter_map(|path| module_of(path)).collect();
    let named = |module: &&str| map.contains(&format!("`{module}`")) || map.contains(&format!("src/{module}"));
    let missing = modules
        .into_iter()
        .filter(|module| !named(module))
        .map(|module| format!("ARCHITECTURE.md leaves out {module}"));
    assert_none(&missing.collect::<Vec<_>>());
}

#[test]
fn the_readme_lists_every_job() {
    documents();
    let readme = read("README.md");
    let jobs: Vec<String> = files_under("jobs").into_iter().filter(|path| has_extension(path, "toml")).collect();
    assert!(!jobs.is_empty(), "there are no jobs");
    let name = |path: &str| path.trim_start_matches("jobs/").trim_end_matches(".toml").to_owned();
    let missing =
        jobs.iter().filter(|path| !readme.contains(&format!("`{}`", name(path))) && !readme.contains(path.as_str()));
    assert_none(&missing.map(|path| format!("README.md leaves out {path}")).collect::<Vec<_>>());
}
