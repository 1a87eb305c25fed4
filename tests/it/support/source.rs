//! Reads Rust text just well enough for the house rules: what is code, what is test code, how long a function is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files under a folder of the repository, as paths from its root, sorted. What git keeps out of sight (its own folder,
/// what `.gitignore` names at the root) is left out.
pub fn files_under(folder: &str) -> Vec<String> {
    let ignored = read(".gitignore");
    let ignored: Vec<PathBuf> = ignored.lines().map(|line| root().join(line.trim_matches('/'))).collect();
    let mut found = Vec::new();
    collect(&root().join(folder), &ignored, &mut found);
    let mut names: Vec<String> = found
        .iter()
        .filter_map(|path| path.strip_prefix(root()).ok())
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn collect(folder: &Path, ignored: &[PathBuf], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name() == ".git" || ignored.contains(&path) {
            continue;
        }
        if path.is_dir() {
            collect(&path, ignored, found);
        } else {
            found.push(path);
        }
    }
}

/// Whether a path ends in this extension.
pub fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|ending| ending == extension)
}

/// A file of the repository as text; other bytes become replacement characters.
pub fn read(path: &str) -> String {
    let bytes = fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path} cannot be read: {error}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The same text with comments and the contents of strings and character literals blanked; lines stay where they are.
pub fn code_only(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let end = match (letters[at], letters.get(at + 1)) {
            ('/', Some('/')) => end_of_line(&letters, at),
            ('/', Some('*')) => end_of_comment(&letters, at),
            ('"', _) => end_of_string(&letters, at),
            ('\'', _) => end_of_letter(&letters, at),
            ('r', Some('"' | '#')) if !follows_word(&letters, at) => end_of_raw_string(&letters, at),
            _ => at + 1,
        };
        if end == at + 1 {
            out.push(letters[at]);
        } else {
            out.extend(letters[at..end].iter().map(|letter| if *letter == '\n' { '\n' } else { ' ' }));
        }
        at = end;
    }
    out
}

fn follows_word(letters: &[char], at: usize) -> bool {
    at > 0 && (letters[at - 1].is_alphanumeric() || letters[at - 1] == '_') && letters[at - 1] != 'b'
}

fn end_of_line(letters: &[char], at: usize) -> usize {
    letters[at..].iter().position(|letter| *letter == '\n').map_or(letters.len(), |length| at + length)
}

fn end_of_comment(letters: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < letters.len() {
        match (letters[at], letters.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn end_of_string(letters: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < letters.len() && letters[at] != '"' {
        at += if letters[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(letters.len())
}

/// A character literal, or only the quote of a lifetime.
fn end_of_letter(letters: &[char], at: usize) -> usize {
    match (letters.get(at + 1), letters.get(at + 2)) {
        (Some('\\'), Some(_)) => {
            let close = letters[at + 3..].iter().position(|letter| *letter == '\'');
            close.map_or(letters.len(), |length| at + 3 + length + 1)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

fn end_of_raw_string(letters: &[char], start: usize) -> usize {
    let hashes = letters[start + 1..].iter().take_while(|letter| **letter == '#').count();
    let open = start + 1 + hashes;
    if letters.get(open) != Some(&'"') {
        return start + 1;
    }
    let mut close = vec!['"'];
    close.extend(std::iter::repeat_n('#', hashes));
    let found = letters[open + 1..].windows(close.len()).position(|window| window == close);
    found.map_or(letters.len(), |length| open + 1 + length + close.len())
}

const TEST_ONLY: &str = "#[cfg(test)]";

/// Code (from [`code_only`]) with every item behind `#[cfg(test)]` blanked.
pub fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    let mut from = 0;
    while let Some(start) = out[from..].find(TEST_ONLY).map(|offset| from + offset) {
        let end = end_of_item(&out, start + TEST_ONLY.len());
        let blank: String = out[start..end].chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }).collect();
        from = start + blank.len();
        out.replace_range(start..end, &blank);
    }
    out
}

/// The byte after the item that begins at `start`: after its `;`, or after the bracket that closes its body. A `;` within
/// brackets, as in `[u8; 32]`, ends nothing.
fn end_of_item(code: &str, start: usize) -> usize {
    let mut depth = 0;
    for (offset, letter) in code[start..].char_indices() {
        match letter {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && (letter == ';' || letter == '}') {
            let end = start + offset + 1;
            let list = letter == '}' && code[end..].starts_with(';');
            return if list { end + 1 } else { end };
        }
    }
    code.len()
}

/// The files that exist for tests only: those declared by `#[cfg(test)] mod NAME;`.
pub fn test_files(sources: &[(String, String)]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, text) in sources {
        let code = code_only(text);
        for (start, _) in code.match_indices(TEST_ONLY) {
            let item = code[start + TEST_ONLY.len()..end_of_item(&code, start + TEST_ONLY.len())].trim();
            let Some(name) = item.strip_suffix(';').and_then(|item| item.split("mod ").nth(1)) else { continue };
            let base = module_folder(path);
            found.insert(format!("{base}/{}.rs", name.trim()));
            found.insert(format!("{base}/{}/mod.rs", name.trim()));
        }
    }
    found
}

/// The folder in which a file's own modules lie.
fn module_folder(path: &str) -> String {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    match file {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        file => format!("{folder}/{}", file.trim_end_matches(".rs")),
    }
}

/// A function with its first line and its length in lines.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// All functions with a body in code (from [`code_only`]).
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (start, word) in words(code) {
        if word != "fn" {
            continue;
        }
        let Some((_, name)) = words(&code[start + 2..]).into_iter().next() else { continue };
        // `fn(…)` is a type.
        if code[start + 2..].trim_start().starts_with('(') {
            continue;
        }
        let end = end_of_item(code, start);
        if code[..end].ends_with('}') {
            let line = 1 + code[..start].matches('\n').count();
            found.push(Function { name: name.to_owned(), line, lines: 1 + code[start..end].matches('\n').count() });
        }
    }
    found
}

/// All words (identifiers and keywords) with the byte they begin at.
pub fn words(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut start = None;
    for (at, letter) in code.char_indices().chain([(code.len(), ' ')]) {
        let within = letter.is_alphanumeric() || letter == '_';
        match start {
            None if within => start = Some(at),
            Some(begin) if !within => {
                found.push((begin, &code[begin..at]));
                start = None;
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        let text =
            "let a = \"x // y\\\"\"; // gone\n/* a /* b */ c */ let b = '\\''; let c: &'static str = r#\"q\"r\"#;";
        let code = code_only(text);
        assert_eq!(code.matches('\n').count(), 1);
        assert_eq!(
            code.split_whitespace().collect::<Vec<_>>().join(" "),
            "let a = ; let b = ; let c: &'static str = ;"
        );
    }

    #[test]
    fn test_items_are_blanked_to_their_end() {
        let code = "use a;\n#[cfg(test)]\nuse b::{c, d};\n#[cfg(test)]\nmod tests {\n fn f() { g() }\n}\nfn h() {}\n";
        assert_eq!(without_tests(code).split_whitespace().collect::<Vec<_>>(), ["use", "a;", "fn", "h()", "{}"]);
    }

    #[test]
    fn test_files_are_found_by_their_declaration() {
        let declared = |path: &str| {
            let sources = vec![(path.to_owned(), "#[cfg(test)]\npub(crate) mod tests;".to_owned())];
            test_files(&sources).into_iter().next().unwrap()
        };
        assert_eq!(declared("src/a/mod.rs"), "src/a/tests.rs");
        assert_eq!(declared("src/a/b.rs"), "src/a/b/tests.rs");
    }

    #[test]
    fn functions_are_measured_with_their_signature() {
        let code = "type F = fn(u8);\ntrait T { fn a(&self); }\npub fn b<T>(\n    x: [T; 2],\n) -> T {\n    { x }\n}\n";
        assert_eq!(functions(code), [Function { name: "b".to_owned(), line: 3, lines: 5 }]);
    }
}
