//! What stands in the way of a store's work, in terms of the operator.

use super::Catalogue;

/// What a [`Finding`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindingKind {
    /// The table does not exist, or this login may not see it.
    MissingTable,
    /// The table has no key; the configuration may name one.
    NoKey,
    /// A right is missing.
    NoRight,
    /// Row security may hide rows.
    HiddenRows,
    /// A trigger fires on DELETE or UPDATE; the configuration may name it as harmless.
    Trigger(String),
    /// A column's type cannot be carried; rows of the table can be deleted, but neither backed up nor undone.
    Unsupported(String),
    /// The table's storage cannot do what is needed (no transactions, or old versions of deleted rows are kept).
    Storage,
}

/// A problem found by [`DataStore::check`](super::DataStore::check), in terms of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// The table concerned, if one.
    pub table: Option<String>,
    /// What is wrong, as one sentence.
    pub what: String,
    /// What to do, for example the exact GRANT statement.
    pub remedy: String,
}

/// What the catalogue alone tells about these tables.
pub(super) fn check_tables(catalogue: &Catalogue, tables: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in tables {
        let mut add = |kind: FindingKind, what: String, remedy: String| {
            findings.push(Finding { kind, table: Some(name.clone()), what, remedy });
        };
        let Some(table) = catalogue.table(name) else {
            let remedy = "correct the name in the configuration, or grant the login access to the table".to_owned();
            add(
                FindingKind::MissingTable,
                format!("table {name} does not exist, or this login may not see it"),
                remedy,
            );
            continue;
        };
        if table.key.is_empty() {
            let remedy = "add a primary key, or name unique columns as `key` of the collection".to_owned();
            add(FindingKind::NoKey, format!("table {name} has no key, so its rows cannot be told apart"), remedy);
        }
        if table.rows_may_be_hidden {
            let remedy = format!("let the agent's login own {name}, or give it the right to bypass row security");
            add(FindingKind::HiddenRows, format!("row security on {name} may hide rows from this login"), remedy);
        }
        for trigger in &table.triggers {
            let event = if trigger.on_delete { "DELETE" } else { "UPDATE" };
            let what = format!("trigger {} fires on {event} of {name} and may keep or copy rows", trigger.name);
            let remedy =
                "read the trigger; if it is harmless, list its name under `triggers` of the collection".to_owned();
            add(FindingKind::Trigger(trigger.name.clone()), what, remedy);
        }
        for column in table.columns.iter().filter(|column| column.kind.is_none() && !column.generated) {
            let what = format!(
                "column {name}.{} has the type {}, which cannot be carried exactly",
                column.name, column.type_name
            );
            let remedy =
                "change the column's type; until then the table can be neither backed up nor undone".to_owned();
            add(FindingKind::Unsupported(column.name.clone()), what, remedy);
        }
    }
    findings
}
