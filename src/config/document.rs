//! A TOML text with the place of every key and value, read section by section so that several faults show at once.

use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::diagnostic::{Fault, Showing, suggest};

/// A path to a key or an element, such as `store[0].url`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Place {
    /// A top-level key.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self::default().key(key)
    }

    /// A key of the table at this place.
    pub fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// An element of the array at this place, counted from 0.
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }
}

/// A parsed text.
#[derive(Debug)]
pub struct Document<'t> {
    file: &'t Path,
    text: &'t str,
    root: DeTable<'t>,
}

impl<'t> Document<'t> {
    /// Parses `text`.
    ///
    /// # Errors
    /// Every syntax error.
    pub fn parse(file: &'t Path, text: &'t str) -> Result<Self, Vec<Fault>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self { file, text, root: root.into_inner() });
        }
        let fault = |error: &toml::de::Error| {
            let span = error.span().unwrap_or(0..0);
            Fault::at(file, text, span, Showing::KnownKeyOnly, format!("not valid TOML: {}", error.message()))
                .advice("correct the line; text values stand in \"double quotes\"")
        };
        Err(errors.iter().map(fault).collect())
    }

    /// The file's path.
    #[must_use]
    pub fn file(&self) -> &'t Path {
        self.file
    }

    /// How many elements the array of tables `key` has; 0 when it is absent.
    #[must_use]
    pub fn count(&self, key: &str) -> usize {
        self.root.get(key).and_then(|value| value.get_ref().as_array()).map_or(0, |array| array.len())
    }

    /// Whether the key is there.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.root.contains_key(key)
    }

    /// Whether there is a value at the place.
    #[must_use]
    pub fn has_key(&self, place: &Place) -> bool {
        self.walk(place).0.is_some()
    }

    /// A fault at a value; the nearest thing that exists is pointed at.
    pub fn fault(&self, place: &Place, what: impl Into<String>) -> Fault {
        Fault::at(self.file, self.text, self.span(place), Showing::Value, what)
    }

    /// Top-level keys that are none of `known`.
    pub fn unknown_keys(&self, known: &[&str]) -> Vec<Fault> {
        let unknown = self.root.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        unknown.map(|key| self.unknown_key(key.span(), key.get_ref(), known)).collect()
    }

    /// Reads the whole text as one value.
    ///
    /// # Errors
    /// All unknown keys, and the first other fault.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Vec<Fault>> {
        self.read_value(Spanned::new(0..0, DeValue::Table(self.root.clone())))
    }

    /// Reads the value at a place that exists.
    ///
    /// # Errors
    /// All unknown keys in it, and the first other fault.
    pub fn section<T: DeserializeOwned>(&self, place: &Place) -> Result<T, Vec<Fault>> {
        if let (Some(value), _) = self.walk(place) {
            return self.read_value(value.clone());
        }
        let name = match place.0.last() {
            Some(Step::Key(key)) => key.as_str(),
            _ => "?",
        };
        let what = format!("the section [{name}] is missing");
        Err(vec![Fault::of_file(self.file, what).advice(format!("add a section [{name}]"))])
    }

    /// Reads every element of the array of tables `key`; none when it is absent.
    ///
    /// # Errors
    /// As [`Document::section`], for all elements.
    pub fn elements<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, Vec<Fault>> {
        let place = Place::of(key);
        if self.has(key) && self.count(key) == 0 {
            // Not an array, or an empty one: let the reader of lists say so.
            return self.section(&place);
        }
        let mut elements = Vec::new();
        let mut faults = Vec::new();
        for index in 0..self.count(key) {
            match self.section(&place.index(index)) {
                Ok(element) => elements.push(element),
                Err(more) => faults.extend(more),
            }
        }
        if faults.is_empty() { Ok(elements) } else { Err(faults) }
    }

    fn read_value<T: DeserializeOwned>(&self, value: Spanned<DeValue<'t>>) -> Result<T, Vec<Fault>> {
        let mut value = value;
        let mut faults = Vec::new();
        loop {
            match T::deserialize(ValueDeserializer::from(value.clone())) {
                Ok(read) if faults.is_empty() => return Ok(read),
                Ok(_) => return Err(faults),
                Err(error) => {
                    let span = error.span().unwrap_or_else(|| value.span());
                    let is_unknown_key = error.message().starts_with("unknown field");
                    faults.push(self.explain(span.clone(), error.message()));
                    // An unknown key hides nothing else: take it away and look further.
                    if !(is_unknown_key && remove_key(value.get_mut(), &span)) {
                        return Err(faults);
                    }
                }
            }
        }
    }

    fn unknown_key(&self, span: Range<usize>, key: &str, known: &[&str]) -> Fault {
        Fault::at(self.file, self.text, span, Showing::KeyOnly, format!("unknown key `{key}`"))
            .advice(suggest(key, known))
    }

    /// Puts serde's message into words of our own. Values of a wrong type are dropped: they may be secret.
    fn explain(&self, span: Range<usize>, message: &str) -> Fault {
        if let Some((key, known)) = quoted_after(message, "unknown field ") {
            return self.unknown_key(span, key, &known);
        }
        if let Some((value, known)) = quoted_after(message, "unknown variant ") {
            let key = self.key_of(&span).map_or(String::new(), |key| format!(" for `{key}`"));
            return Fault::at(self.file, self.text, span, Showing::Value, format!("`{value}` is no value{key}"))
                .advice(suggest(value, &known));
        }
        if let Some((key, _)) = quoted_after(message, "missing field ") {
            return Fault::at(self.file, self.text, span, Showing::KeyOnly, format!("the key `{key}` is missing"))
                .advice(format!("add `{key} = …` here"));
        }
        let wrong = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
        if let Some((found, expected)) = wrong.and_then(|rest| rest.rsplit_once(", expected ")) {
            let found = found.split(['`', '"']).next().unwrap_or_default().trim();
            let key = self.key_of(&span).map_or("the value".to_owned(), |key| format!("`{key}`"));
            let what = format!("{key} is of the wrong type: {found}");
            return Fault::at(self.file, self.text, span, Showing::KeyOnly, what).advice(format!("write {expected}"));
        }
        Fault::at(self.file, self.text, span, Showing::Value, message)
    }

    /// The last key on the way to the value with this span.
    fn key_of(&self, span: &Range<usize>) -> Option<String> {
        fn search(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
            table.iter().find_map(|(key, value)| {
                if value.span() == *span {
                    return Some(key.get_ref().to_string());
                }
                match value.get_ref() {
                    DeValue::Table(inner) => search(inner, span),
                    DeValue::Array(array) => array.iter().find_map(|element| match element.get_ref() {
                        DeValue::Table(inner) => search(inner, span),
                        _ => (element.span() == *span).then(|| key.get_ref().to_string()),
                    }),
                    _ => None,
                }
            })
        }
        search(&self.root, span)
    }

    fn span(&self, place: &Place) -> Range<usize> {
        self.walk(place).1
    }

    /// The value at a place, and the span of it or of the deepest ancestor that exists.
    fn walk(&self, place: &Place) -> (Option<&Spanned<DeValue<'t>>>, Range<usize>) {
        let mut table = Some(&self.root);
        let mut value: Option<&Spanned<DeValue<'t>>> = None;
        let mut span = 0..0;
        for step in &place.0 {
            let next = match step {
                Step::Key(key) => table.and_then(|table| table.get(key.as_str())),
                Step::Index(index) => {
                    value.and_then(|value| value.get_ref().as_array()).and_then(|array| array.get(*index))
                }
            };
            let Some(next) = next else { return (None, span) };
            span = next.span();
            table = next.get_ref().as_table();
            value = Some(next);
        }
        (value, span)
    }
}

/// Takes the key with this span out of the table or any table below it; says whether it was there.
fn remove_key(value: &mut DeValue<'_>, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => {
            let found = table.keys().find(|key| key.span() == *span).map(|key| key.get_ref().to_string());
            match found {
                Some(key) => table.remove(key.as_str()).is_some(),
                None => table.iter_mut().any(|(_, inner)| remove_key(inner.get_mut(), span)),
            }
        }
        DeValue::Array(array) => array.iter_mut().any(|inner| remove_key(inner.get_mut(), span)),
        _ => false,
    }
}

/// From ``unknown field `a`, expected `b` or `c` `` with the prefix `unknown field `: `a` and `[b, c]`.
fn quoted_after<'m>(message: &'m str, prefix: &str) -> Option<(&'m str, Vec<&'m str>)> {
    let rest = message.strip_prefix(prefix)?.strip_prefix('`')?;
    let (word, expected) = rest.split_once('`')?;
    let known = expected.split('`').skip(1).step_by(2).collect();
    Some((word, known))
}
