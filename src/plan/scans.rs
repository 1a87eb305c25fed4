//! Which statements of a plan and its batches would read a large table from end to end because an index is missing: by the start
//! event, by the way to the owner, and by foreign keys, which the database itself follows for every parent that is deleted.

use std::collections::BTreeMap;

use super::model::{Collection, Model, Reach};
use crate::stores::{ColumnKind, Engine, TableFacts};

/// Why a table would be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScanFor {
    /// To find rows whose time is over.
    Start,
    /// To find the rows of a subject.
    Subject,
    /// To find the rows that refer to a row that goes.
    Reference,
}

/// A table that would be read from end to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The table.
    pub table: String,
    /// What an index would have to begin with; none when no index of this column's type can help.
    pub columns: Vec<String>,
    /// How many rows it has, as far as the database knows.
    pub rows: u64,
    /// Why it would be read.
    pub purpose: ScanFor,
    /// The statement that makes the index; none when none would help.
    pub index: Option<String>,
}

impl Scan {
    /// What is wrong, as one sentence.
    #[must_use]
    pub fn what(&self) -> String {
        let (table, columns, rows) = (&self.table, self.columns.join(", "), self.rows);
        let why = match self.purpose {
            ScanFor::Start => "every plan and every batch",
            ScanFor::Subject => "every request",
            ScanFor::Reference => "every row that is deleted above it",
        };
        format!(
            "table {table} has some {rows} rows or more and no index that begins with {columns}: {why} would read all of it"
        )
    }

    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> String {
        let allow = "allow it with `allow_scan = true` in the collection";
        match &self.index {
            Some(sql) => format!("{sql}; or {allow}"),
            None => format!("store the start event in a column of a date or time type and index that; or {allow}"),
        }
    }
}

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looking {
    /// Rows whose retention is over.
    Retention,
    /// Rows of one subject.
    Subject,
}

/// The tables of which the model's statements may have to read more than a few rows.
#[must_use]
pub fn tables_of(model: &Model) -> Vec<String> {
    let mut tables: Vec<String> = Vec::new();
    for collection in &model.collections {
        tables.push(collection.table.name.clone());
        tables.extend(collection.children.iter().map(|child| child.table.clone()));
    }
    tables.sort_unstable();
    tables.dedup();
    tables
}

/// The scans of tables larger than `most_rows` that nobody allowed, each once.
#[must_use]
pub fn scans(
    model: &Model,
    facts: &BTreeMap<String, TableFacts>,
    (engine, most_rows): (Engine, u64),
    looking: Looking,
) -> Vec<Scan> {
    let mut finder = Finder { facts, engine, most_rows, found: Vec::new() };
    for collection in &model.collections {
        let reach = match looking {
            Looking::Retention => collection.governed.as_ref().map(|governed| (&governed.start, ScanFor::Start)),
            Looking::Subject => collection.owner.as_ref().map(|owner| (owner, ScanFor::Subject)),
        };
        let Some((reach, purpose)) = reach else { continue };
        if !collection.spec.allow_scan {
            finder.by_reach(collection, reach, purpose);
        }
        for child in &collection.children {
            let registered = child.registered.and_then(|at| model.collections.get(at));
            let is_allowed = registered.map_or(collection.spec.allow_scan, |child| child.spec.allow_scan);
            if !is_allowed {
                finder.look(&child.table, &child.columns, ScanFor::Reference, true);
            }
        }
    }
    finder.found
}

struct Finder<'a> {
    facts: &'a BTreeMap<String, TableFacts>,
    engine: Engine,
    most_rows: u64,
    found: Vec<Scan>,
}

impl Finder<'_> {
    /// A column of its own, or the foreign key by which its rows hang on the parent that has it.
    fn by_reach(&mut self, collection: &Collection, reach: &Reach, purpose: ScanFor) {
        let table = &collection.table.name;
        if let Some(hop) = reach.path.first() {
            // The parent has a turn of its own.
            self.look(table, &hop.columns, purpose, true);
            return;
        }
        // A time in a text column is compared by its form, which only SQLite's statements let an index help.
        let is_usable = purpose != ScanFor::Start || self.engine == Engine::Sqlite || reach.kind != ColumnKind::Text;
        self.look(table, std::slice::from_ref(&reach.column.column), purpose, is_usable);
    }

    fn look(&mut self, table: &str, columns: &[String], purpose: ScanFor, is_usable: bool) {
        let Some(facts) = self.facts.get(table).filter(|facts| facts.rows > self.most_rows) else { return };
        if is_usable && facts.indexes.iter().any(|index| leads(index, columns)) {
            return;
        }
        if self.found.iter().any(|known| known.table == table && known.columns == columns) {
            return;
        }
        let index = is_usable.then(|| self.statement(table, columns, &facts.place));
        self.found.push(Scan { table: table.to_owned(), columns: columns.to_vec(), rows: facts.rows, purpose, index });
    }

    /// As the engine takes it; PostgreSQL builds it without keeping writers out.
    fn statement(&self, table: &str, columns: &[String], place: &str) -> String {
        let quote = |name: &str| match self.engine {
            Engine::Mysql => format!("`{}`", name.replace('`', "``")),
            _ => format!("\"{}\"", name.replace('"', "\"\"")),
        };
        let bare = table.rsplit('.').next().unwrap_or(table);
        let name = quote(&format!("{bare}_{}", columns.join("_")).chars().take(60).collect::<String>());
        let list: Vec<String> = columns.iter().map(|column| quote(column)).collect();
        let how = if self.engine == Engine::Postgres { "INDEX CONCURRENTLY" } else { "INDEX" };
        format!("CREATE {how} {name} ON {place} ({})", list.join(", "))
    }
}

/// Whether an index begins with these columns, in any order among them.
fn leads(index: &[String], columns: &[String]) -> bool {
    index.get(..columns.len()).is_some_and(|first| columns.iter().all(|column| first.contains(column)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn found(engine: Engine, indexes: &[&[&str]], rows: u64, columns: &[&str], is_usable: bool) -> Vec<Scan> {
        let indexes = indexes.iter().map(|index| names(index)).collect();
        let facts = TableFacts { rows, indexes, place: "\"lines\"".to_owned() };
        let facts = BTreeMap::from([("lines".to_owned(), facts)]);
        let mut finder = Finder { facts: &facts, engine, most_rows: 1000, found: Vec::new() };
        for _ in 0..2 {
            finder.look("lines", &names(columns), ScanFor::Reference, is_usable);
        }
        finder.look("elsewhere", &names(columns), ScanFor::Reference, true);
        finder.found
    }

    #[test]
    fn an_index_helps_when_it_begins_with_the_columns() {
        let lacks =
            |indexes: &[&[&str]], columns: &[&str]| !found(Engine::Postgres, indexes, 1001, columns, true).is_empty();
        assert!(lacks(&[], &["order_id"]));
        assert!(lacks(&[&["line", "order_id"], &[""]], &["order_id"]));
        assert!(!lacks(&[&["order_id", "line"]], &["order_id"]));
        assert!(!lacks(&[&["b", "a", "c"]], &["a", "b"]));
        assert!(lacks(&[&["b"], &["a"]], &["a", "b"]));
        assert!(found(Engine::Postgres, &[], 1000, &["a"], true).is_empty(), "a table of this size may be read");
        assert_eq!(found(Engine::Postgres, &[&["a"]], 2000, &["a"], false)[0].index, None);
    }

    #[test]
    fn the_statement_is_the_engines_own() {
        let statement = |engine| found(engine, &[], 5000, &["a", "b\"`c"], true)[0].index.clone().unwrap();
        assert_eq!(
            statement(Engine::Postgres),
            "CREATE INDEX CONCURRENTLY \"lines_a_b\"\"`c\" ON \"lines\" (\"a\", \"b\"\"`c\")"
        );
        assert_eq!(statement(Engine::Mysql), "CREATE INDEX `lines_a_b\"``c` ON \"lines\" (`a`, `b\"``c`)");
        assert_eq!(found(Engine::Sqlite, &[], 5000, &["a"], true).len(), 1, "each is named once");
    }
}
