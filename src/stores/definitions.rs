//! What a table is besides its columns, in the engine's own words: captured together with the rows, and run again where a
//! restore finds the table missing.
//!
//! These statements stand in snapshots, so no member is ever renamed or given another meaning. What they name without a
//! schema lies in the first schema of the search path, there and here.

use serde::{Deserialize, Serialize};

use super::ForeignKey;

/// The definitions of some tables and of what they need.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definitions {
    /// What tables refer to: types, sequences, functions, in the order in which they were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectDefinition>,
    /// The tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableDefinition>,
    /// Where the numbering of rows stood when the rows had been read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub positions: Vec<Position>,
}

impl Definitions {
    /// Whether there are none, as in snapshots that were taken before they were captured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The definition of a table.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&TableDefinition> {
        self.tables.iter().find(|table| table.table == name)
    }

    /// What these tables refer to, themselves or through something else that they refer to. Told by names in the statements, so
    /// it may be more than what is needed, never less.
    #[must_use]
    pub fn objects_for(&self, tables: &[&TableDefinition]) -> Vec<&ObjectDefinition> {
        let mut text: String = tables.iter().flat_map(|table| table.statements()).fold(String::new(), joined);
        let mut wanted = vec![false; self.objects.len()];
        loop {
            let known = wanted.clone();
            for (object, wanted) in self.objects.iter().zip(&mut wanted) {
                if !*wanted && !tables.is_empty() && object.is_named_in(&text) {
                    *wanted = true;
                    text = joined(text, &object.statement);
                }
            }
            if wanted == known {
                return self
                    .objects
                    .iter()
                    .zip(wanted)
                    .filter(|(_, wanted)| *wanted)
                    .map(|(object, _)| object)
                    .collect();
            }
        }
    }
}

fn joined(text: String, more: &str) -> String {
    text + more + "\n"
}

/// What kind of thing a definition makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A schema.
    Schema,
    /// An extension.
    Extension,
    /// A type: enum, domain, composite, range.
    Type,
    /// A sequence.
    Sequence,
    /// A function that a constraint, a default or an index calls.
    Function,
}

impl ObjectKind {
    /// As people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Extension => "extension",
            Self::Type => "type",
            Self::Sequence => "sequence",
            Self::Function => "function",
        }
    }
}

/// Something that tables refer to. What is there already under this name is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectDefinition {
    /// What it is.
    pub kind: ObjectKind,
    /// Its name as SQL; of a function with the types of its arguments.
    pub name: String,
    /// The statement that makes it.
    pub statement: String,
}

impl ObjectDefinition {
    fn is_named_in(&self, text: &str) -> bool {
        match self.kind {
            // What an extension brings has other names than its own.
            ObjectKind::Extension => true,
            ObjectKind::Schema => text.contains(&format!("{}.", self.name)),
            ObjectKind::Function => text.contains(self.name.split('(').next().unwrap_or(&self.name)),
            ObjectKind::Type | ObjectKind::Sequence => text.contains(&self.name),
        }
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableDefinition {
    /// Its name, as in the catalogue.
    pub table: String,
    /// The statements that make it, before any row: CREATE TABLE, and those of its partitions.
    pub create: Vec<CreateTable>,
    /// What comes after the rows: keys, indexes, checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartDefinition>,
    /// Its foreign keys, last of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<ReferenceDefinition>,
}

impl TableDefinition {
    fn statements(&self) -> impl Iterator<Item = &str> {
        let create = self.create.iter().map(|create| create.statement.as_str());
        let parts = self.parts.iter().map(|part| part.statement.as_str());
        create.chain(parts).chain(self.references.iter().map(|reference| reference.statement.as_str()))
    }
}

/// A statement that makes a table or a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTable {
    /// The statement.
    pub statement: String,
    /// Whether rows lie in it, and not only in its partitions.
    pub holds_rows: bool,
}

/// What kind of part of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// Primary key, unique or exclusion constraint, unique index: rows that violate it cannot stay.
    Unique,
    /// An index that only makes things faster.
    Index,
    /// A check of each row.
    Check,
    /// Something else that belongs to it, such as whose sequence it is.
    Other,
}

/// A part of a table that is made when its rows are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartDefinition {
    /// What it is.
    pub kind: PartKind,
    /// Its name, as SQL.
    pub name: String,
    /// The statement that makes it.
    pub statement: String,
    /// Of a check: the condition, as SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceDefinition {
    /// Columns of the child table.
    pub columns: Vec<String>,
    /// The parent table, as in the catalogue.
    pub parent: String,
    /// Columns of the parent, in the same order.
    pub parent_columns: Vec<String>,
    /// The statement that puts it in force.
    pub statement: String,
}

impl ReferenceDefinition {
    /// Whether it is of these columns to this parent.
    #[must_use]
    pub fn is_of(&self, key: &ForeignKey) -> bool {
        self.columns == key.columns && self.parent == key.parent && self.parent_columns == key.parent_columns
    }
}

/// Where a sequence, or the numbering of a table, stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The sequence's name as SQL; for SQLite the table's.
    pub sequence: String,
    /// The table whose rows it numbers.
    pub table: String,
    /// The number.
    pub last: i64,
    /// Whether that number was given out; otherwise it is the next one.
    pub is_used: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: ObjectKind, name: &str, statement: &str) -> ObjectDefinition {
        ObjectDefinition { kind, name: name.to_owned(), statement: statement.to_owned() }
    }

    fn table(name: &str, statement: &str) -> TableDefinition {
        let create = vec![CreateTable { statement: statement.to_owned(), holds_rows: true }];
        TableDefinition { table: name.to_owned(), create, parts: Vec::new(), references: Vec::new() }
    }

    #[test]
    fn a_table_brings_what_it_refers_to_through_others_and_nothing_else() {
        let definitions = Definitions {
            objects: vec![
                object(ObjectKind::Schema, "\"S\"", "CREATE SCHEMA"),
                object(ObjectKind::Schema, "other", "CREATE SCHEMA"),
                object(ObjectKind::Function, "even(integer)", "CREATE FUNCTION even"),
                object(ObjectKind::Type, "\"S\".num", "CREATE DOMAIN \"S\".num CHECK (even(VALUE))"),
                object(ObjectKind::Type, "mood", "CREATE TYPE mood"),
                object(ObjectKind::Sequence, "seq", "CREATE SEQUENCE seq"),
            ],
            tables: vec![
                table("a", "CREATE TABLE a (n \"S\".num)"),
                table("b", "CREATE TABLE b (m mood DEFAULT nextval('seq'))"),
            ],
            positions: Vec::new(),
        };
        let names = |table: &str| -> Vec<&str> {
            let tables = [definitions.table(table).unwrap()];
            definitions.objects_for(&tables).into_iter().map(|object| object.name.as_str()).collect()
        };
        assert_eq!(names("a"), ["\"S\"", "even(integer)", "\"S\".num"]);
        assert_eq!(names("b"), ["mood", "seq"]);
        assert!(definitions.objects_for(&[]).is_empty());
    }
}
