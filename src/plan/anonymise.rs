//! What anonymising a row of a collection changes, checked against its table. Pure.
//!
//! Invariants:
//! * Every declared field that is about a person is changed, or the policy is refused with the field's name.
//! * The row's way to its subject is cut, unless the row that it leads over is anonymised with it.
//! * What rows are found, ordered or dated by (key, references, start event) is never changed.

use super::Technique;
use super::model::{Collection, Governed};
use crate::policy::anonymise::{Coarseness, Level, Method, SmallGroups};
use crate::policy::classification::FieldKind;
use crate::policy::registry::{Action, Policy, StoreSpec};
use crate::stores::{Column, ColumnKind};

/// What becomes of the rows of a collection whose policy anonymises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anonymise {
    /// What is changed, in the order of the table's columns.
    pub changes: Vec<Change>,
    /// The columns of a foreign key that is cut, because it led to the subject.
    pub cut: Vec<String>,
    /// Columns whose combinations of values must not be rare.
    pub quasi: Vec<String>,
    /// How often each must stand.
    pub k: u64,
    /// What becomes of rows whose combination is rarer.
    pub small_groups: SmallGroups,
}

/// What becomes of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The column.
    pub column: Column,
    /// How its value changes.
    pub how: How,
    /// Whether every row must have another value there.
    pub is_unique: bool,
}

/// How a value changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// To NULL.
    Null,
    /// To this.
    Fixed(String),
    /// To the strict mask of its kind.
    Mask(FieldKind),
    /// To the beginning of a period.
    Date(Level),
    /// To a province or city.
    Place(Level),
    /// To a multiple.
    Number(u64),
    /// To a random value of the same form.
    Surrogate(Option<FieldKind>),
    /// To an id that no subject has.
    Nobody,
}

impl How {
    /// Its kind.
    #[must_use]
    pub fn technique(&self) -> Technique {
        match self {
            Self::Null => Technique::Null,
            Self::Fixed(_) => Technique::Fixed,
            Self::Mask(_) => Technique::Mask,
            Self::Date(_) | Self::Place(_) | Self::Number(_) => Technique::Generalise,
            Self::Surrogate(_) | Self::Nobody => Technique::Surrogate,
        }
    }
}

impl Anonymise {
    /// The names of the changed columns.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        self.changes.iter().map(|change| change.column.name.clone()).collect()
    }

    /// The changed columns, and how each changes.
    #[must_use]
    pub fn techniques(&self) -> Vec<(String, Technique)> {
        self.changes.iter().map(|change| (change.column.name.clone(), change.how.technique())).collect()
    }

    /// What becomes of a column, if anything.
    #[must_use]
    pub fn change(&self, column: &str) -> Option<&Change> {
        self.changes.iter().find(|change| change.column.name == column)
    }
}

/// What becomes of the rows of a collection; none when its policy does not anonymise.
///
/// # Errors
/// What is missing or cannot be done, each as one sentence.
pub fn anonymise_of(store: &StoreSpec, collection: &Collection) -> Result<Option<Anonymise>, Vec<String>> {
    let Some(governed) = &collection.governed else { return Ok(None) };
    if governed.policy.action != Action::Anonymise {
        return Ok(None);
    }
    let mut made = Making { collection, governed, problems: Vec::new(), changes: Vec::new() };
    let cut = made.unlink();
    made.rules();
    made.missing();
    let quasi = made.quasi();
    let Making { problems, mut changes, .. } = made;
    if !problems.is_empty() {
        let at = format!("store {}, collection {}: policy {}", store.name, collection.table.name, governed.policy.id);
        return Err(problems.into_iter().map(|problem| format!("{at}: {problem}")).collect());
    }
    let place = |change: &Change| collection.table.columns.iter().position(|column| column.name == change.column.name);
    changes.sort_by_key(place);
    let Policy { k, small_groups, .. } = governed.policy;
    Ok(Some(Anonymise { changes, cut, quasi, k: u64::from(k), small_groups }))
}

/// Rules of anonymising policies that name a column which none of their collections in this store has, although the policy
/// has no collection elsewhere.
#[must_use]
pub fn rules_without_column(store: &StoreSpec, collections: &[Collection], policies: &[Policy]) -> Vec<String> {
    let mut problems = Vec::new();
    for policy in policies.iter().filter(|policy| policy.action == Action::Anonymise) {
        let is_here = |name: &String| {
            store.collections.iter().any(|own| *name == own.table || *name == format!("{}.{}", store.name, own.table))
        };
        if !policy.collections.iter().all(is_here) {
            continue;
        }
        let governs = |collection: &&Collection| {
            collection.governed.as_ref().is_some_and(|governed| governed.policy.id == policy.id)
        };
        let own: Vec<&Collection> = collections.iter().filter(governs).collect();
        let is_known = |field: &&String| {
            own.iter().any(|collection| collection.table.columns.iter().any(|column| column.name == **field))
        };
        for field in policy.anonymise.keys().chain(&policy.quasi).filter(|field| !is_known(field)) {
            problems.push(format!(
                "store {}: policy {}: none of its collections has a column `{field}`; correct its name",
                store.name, policy.id
            ));
        }
    }
    problems
}

/// The changes of one collection in the making.
struct Making<'m> {
    collection: &'m Collection,
    governed: &'m Governed,
    problems: Vec<String>,
    changes: Vec<Change>,
}

impl Making<'_> {
    fn column(&self, name: &str) -> Option<&Column> {
        self.collection.table.columns.iter().find(|column| column.name == name)
    }

    fn add(&mut self, column: Column, how: How) {
        let table = &self.collection.table;
        let is_unique = table.unique.iter().any(|columns| columns.contains(&column.name));
        self.changes.push(Change { column, how, is_unique });
    }

    /// Cuts the way to the subject; returns the columns of the foreign key that fell.
    fn unlink(&mut self) -> Vec<String> {
        let Some(owner) = &self.collection.owner else { return Vec::new() };
        if !owner.when.is_empty() {
            // The column of the id is others', too, and the rule would be carried out on all due rows.
            self.problems
                .push("rows are the customer's only where `subject_when` says so; delete them instead".to_owned());
            return Vec::new();
        }
        let Some(hop) = owner.path.first() else {
            let subject = owner.column.column.clone();
            self.forget_subject(&subject);
            return Vec::new();
        };
        if self.governed.follows.is_some() {
            // The row that it leads over belongs to the same policy and is anonymised in the same run, or this one stays too.
            return Vec::new();
        }
        let columns = hop.columns.clone();
        for name in &columns {
            let Some(column) = self.column(name).cloned() else { continue };
            if !column.nullable || self.collection.key.contains(name) {
                self.problems.push(format!(
                    "`{name}` leads to the subject over {} and cannot be emptied; let it be NULL, or anonymise both under one policy \
                     (a collection without a policy of its own follows the row that its `via` leads to)",
                    hop.parent
                ));
            } else {
                self.add(column, How::Null);
            }
        }
        columns
    }

    fn forget_subject(&mut self, name: &str) {
        let Some(column) = self.column(name).cloned() else { return };
        if let Some(why) = self.fixed_part(name, true) {
            self.problems.push(format!(
                "`{name}` holds the subject's id and {why}, so its rows would still lead to their subject; use `action = \"delete\"`, or \
                 keep the id in a column of its own"
            ));
            return;
        }
        let is_reference = self.is_reference(name);
        match self.governed.policy.anonymise.get(name) {
            Some(Method::Null) | None if column.nullable => self.add(column, How::Null),
            Some(Method::Null) => self.problems.push(format!("`{name}` is NOT NULL; write \"surrogate\", or allow NULL")),
            Some(Method::Surrogate) | None if is_reference => self.problems.push(format!(
                "`{name}` holds the subject's id, is part of a foreign key and NOT NULL, so it can neither be emptied nor replaced; \
                 allow NULL"
            )),
            Some(Method::Surrogate) | None if room_for_nobody(&column) => self.add(column, How::Nobody),
            Some(Method::Surrogate) | None => self.problems.push(format!(
                "`{name}` holds the subject's id and is NOT NULL, and its type {} has no room for an id that nobody has; allow NULL",
                column.type_name
            )),
            Some(_) => self.problems.push(format!(
                "`{name}` holds the subject's id: only \"null\" and \"surrogate\" keep the row from leading to its subject"
            )),
        }
    }

    fn is_reference(&self, name: &str) -> bool {
        self.collection.table.foreign_keys.iter().any(|key| key.columns.iter().any(|column| column == name))
    }

    /// Why a column cannot be changed, if so.
    fn fixed_part(&self, name: &str, is_subject: bool) -> Option<&'static str> {
        let collection = self.collection;
        let starts = self.governed.start.path.is_empty() && self.governed.start.column.column == name;
        let is_referred_to = |columns: &Vec<String>| columns.iter().any(|column| column == name);
        if collection.key.iter().chain(&collection.table.key).any(|column| column == name) {
            Some("is part of the key")
        } else if collection.children.iter().any(|child| is_referred_to(&child.parent_columns)) {
            Some("is referred to by other rows")
        } else if starts {
            Some("holds the start event")
        } else if self.column(name).is_some_and(|column| column.generated) {
            Some("is computed by the database")
        } else if !is_subject && self.is_reference(name) {
            Some("is part of a foreign key")
        } else {
            None
        }
    }

    fn rules(&mut self) {
        for (name, method) in &self.governed.policy.anonymise {
            let Some(column) = self.column(name).cloned() else { continue };
            if self.is_unlinked(name) {
                continue;
            }
            let kind = self.collection.spec.fields.get(name).map(|field| field.kind);
            let how = match self.fixed_part(name, false) {
                Some(why) => Err(format!("`{name}` {why} and cannot be changed")),
                None => how_of(&column, method, kind),
            };
            match how {
                Ok(how) => self.add(column, how),
                Err(problem) => self.problems.push(problem),
            }
        }
        let clashes =
            |change: &&Change| change.is_unique && !matches!(change.how, How::Null | How::Surrogate(_) | How::Nobody);
        let clashing: Vec<String> =
            self.changes.iter().filter(clashes).map(|change| change.column.name.clone()).collect();
        for name in clashing {
            self.problems
                .push(format!("`{name}` is unique, so only \"null\" and \"surrogate\" can be stored in every row"));
        }
    }

    /// Whether the way to the subject decides about the column, whether or not that could be done.
    fn is_unlinked(&self, name: &str) -> bool {
        self.collection.owner.as_ref().is_some_and(|owner| match owner.path.first() {
            None => owner.column.column == name,
            Some(hop) => self.governed.follows.is_none() && hop.columns.iter().any(|column| column == name),
        })
    }

    fn missing(&mut self) {
        let mut names: Vec<&str> = Vec::new();
        for (name, field) in &self.collection.spec.fields {
            let has_rule = self.governed.policy.anonymise.contains_key(name);
            if field.kind.is_personal() && !has_rule && !self.is_unlinked(name) {
                names.push(name);
            }
        }
        if !names.is_empty() {
            self.problems.push(format!(
                "`anonymise` says nothing of the declared fields {}, which are about a person; give each a rule",
                names.join(", ")
            ));
        }
    }

    fn quasi(&mut self) -> Vec<String> {
        let declared = &self.governed.policy.quasi;
        let own: Vec<String> = declared.iter().filter(|name| self.column(name).is_some()).cloned().collect();
        let random = |name: &&String| {
            self.changes
                .iter()
                .any(|change| change.column.name == **name && matches!(change.how, How::Surrogate(_) | How::Nobody))
        };
        let random: Vec<String> = own.iter().filter(random).cloned().collect();
        for name in random {
            self.problems.push(format!(
                "`{name}` is in `quasi` and becomes random, so no group of equal values is left; take it out"
            ));
        }
        own
    }
}

/// How a column changes by a rule.
fn how_of(column: &Column, method: &Method, kind: Option<FieldKind>) -> Result<How, String> {
    use ColumnKind::{Date, Decimal, Instant, Integer, LocalTime, Other, Real, Text};
    let name = &column.name;
    let wrong = |what: &str| Err(format!("`{name}` has type {}, which {what}", column.type_name));
    let Some(held) = column.kind else { return wrong("cannot be changed") };
    match method {
        Method::Null if column.nullable => Ok(How::Null),
        Method::Null => Err(format!("`{name}` is NOT NULL; write {{ fixed = \"…\" }}, or allow NULL")),
        Method::Fixed(text) => match held {
            Text => Ok(How::Fixed(text.clone())),
            Integer if text.parse::<i64>().is_ok() => Ok(How::Fixed(text.clone())),
            Real | Decimal if text.parse::<f64>().is_ok_and(f64::is_finite) => Ok(How::Fixed(text.clone())),
            _ => wrong("cannot hold that fixed value"),
        },
        Method::Mask => match kind {
            _ if held != Text => wrong("cannot hold a mask; write \"null\", \"surrogate\" or { generalise = … }"),
            None => Err(format!("`{name}` has no declared kind, which decides its mask; declare it under `fields`")),
            Some(FieldKind::CustomerId | FieldKind::PurchaseFrequency) => {
                Err(format!("`{name}` is of a kind that masks show whole; write \"null\" or \"surrogate\""))
            }
            // Of these a mask hides addresses of e-mail and numbers, and no name.
            Some(FieldKind::FreeText | FieldKind::Complaint | FieldKind::Preference | FieldKind::History) => {
                Err(format!("`{name}` holds text in which a mask leaves names; write \"null\" or {{ fixed = \"…\" }}"))
            }
            Some(kind) => Ok(How::Mask(kind)),
        },
        Method::Surrogate if matches!(held, Text | Integer) => Ok(How::Surrogate(kind)),
        Method::Surrogate => wrong("has no random value of the same form; write \"null\" or { generalise = … }"),
        Method::Generalise(Coarseness::Step(step)) if matches!(held, Integer | Real | Decimal) => {
            Ok(How::Number(*step))
        }
        Method::Generalise(Coarseness::Step(_)) => wrong("is no number"),
        Method::Generalise(Coarseness::Level(level)) if level.is_place() => match held {
            Text => Ok(How::Place(*level)),
            _ => wrong("holds no address"),
        },
        Method::Generalise(Coarseness::Level(level)) => match held {
            Date | LocalTime | Instant | Text | Other => Ok(How::Date(*level)),
            _ => wrong("is no date"),
        },
    }
}

/// Characters of a random id that nobody has.
pub const NOBODY_LENGTH: usize = 24;

/// Whether a column can hold an id that nobody has: text of some length, or a signed number of 32 bits or more.
fn room_for_nobody(column: &Column) -> bool {
    let declared = column.type_name.to_ascii_lowercase();
    match column.kind {
        Some(ColumnKind::Text) => {
            let length =
                declared.split_once('(').and_then(|(_, rest)| rest.split([')', ',']).next()?.trim().parse().ok());
            length.is_none_or(|length: usize| length >= NOBODY_LENGTH) && declared != "tinytext" && declared != "char"
        }
        Some(ColumnKind::Integer) => {
            !["unsigned", "small", "tiny", "medium", "int2"].iter().any(|narrow| declared.contains(narrow))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
