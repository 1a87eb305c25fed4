//! The data-store port: what the agent may ask of a database that holds customer data.
//!
//! One adapter per engine ([`sqlite`], [`postgres`], [`mysql`]), one contract suite for all of them.
//! Callers build engine-neutral queries ([`RowQuery`], [`Filter`]); only adapters speak SQL.
//!
//! Invariants:
//! * Reading uses a read-only session. Writing happens only in a [`Batch`], one transaction that also writes its marker,
//!   so that its outcome is known after a crash.
//! * A value is carried exactly or its column type is refused by name; nothing is ever rounded or re-encoded.
//! * No error text contains a value or a password.

mod definitions;
mod facts;
mod findings;
mod load;
mod open;
mod physical;
mod scratch;
mod session;
mod transport;

pub mod mysql;
pub mod postgres;
pub mod sql;
pub mod sqlite;

pub use definitions::{
    CreateTable, Definitions, ObjectDefinition, ObjectKind, PartDefinition, PartKind, Position, ReferenceDefinition,
    TableDefinition,
};
pub use facts::TableFacts;
pub use findings::{Finding, FindingKind};
pub use load::Load;
pub use open::{Limits, StoreAddress, open};
pub use physical::{
    FileKind, FileMap, FileSearch, PhysicalStage, PhysicalState, Residue, ResidueCode, Settling, TextEncoding,
};
pub use scratch::{SCRATCH_PREFIX, ScratchServer, open_scratch};
pub use sql::MAX_BOUND_VALUES;
pub use transport::{Transport, transport};

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDateTime, Utc};
use thiserror::Error;

use crate::value::{Row, RowKey, Value};

/// A database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// SQLite 3.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// MariaDB, and MySQL (untested).
    Mysql,
}

/// What a column can hold, as far as the program must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// Whole numbers.
    Integer,
    /// Binary floating point.
    Real,
    /// Exact decimals.
    Decimal,
    /// Truth values.
    Boolean,
    /// Characters.
    Text,
    /// Bytes.
    Bytes,
    /// A calendar date without a time.
    Date,
    /// A date and time without a zone; read in the store's declared zone.
    LocalTime,
    /// An instant.
    Instant,
    /// Anything else that is carried exactly in the server's own text form (uuid, json, enum, time of day, …).
    Other,
}

/// A column, from the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type exactly as a CREATE TABLE of the same engine would write it.
    pub type_name: String,
    /// What it holds; `None` when this version cannot carry the type without loss, and so refuses it by name.
    pub kind: Option<ColumnKind>,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// The DEFAULT expression, if any, as the engine prints it.
    pub default: Option<String>,
    /// Whether the engine computes it (generated columns are read for nothing and never written).
    pub generated: bool,
    /// Whether the engine numbers it (AUTOINCREMENT, identity, serial, `AUTO_INCREMENT`).
    pub numbered: bool,
}

/// What happens to children when a parent row is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// The delete is refused (NO ACTION, RESTRICT).
    Refuse,
    /// The children are deleted too.
    Cascade,
    /// The children's columns become NULL or their default.
    Unset,
}

/// A foreign key, from the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// Columns of the child table.
    pub columns: Vec<String>,
    /// The parent table.
    pub parent: String,
    /// Columns of the parent table, in the same order.
    pub parent_columns: Vec<String>,
    /// What deleting a parent does.
    pub on_delete: OnDelete,
}

/// A trigger that fires on DELETE or UPDATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// Whether it fires on DELETE (otherwise on UPDATE).
    pub on_delete: bool,
}

/// A table, from the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name; `schema.table` for PostgreSQL outside the search path's first schema.
    pub name: String,
    /// All columns in table order.
    pub columns: Vec<Column>,
    /// The primary key's columns, or those of a unique key without nullable columns; empty when there is none.
    pub key: Vec<String>,
    /// Column lists of all unique constraints and unique indexes besides `key`.
    pub unique: Vec<Vec<String>>,
    /// Foreign keys from this table.
    pub foreign_keys: Vec<ForeignKey>,
    /// Triggers on DELETE and UPDATE.
    pub triggers: Vec<Trigger>,
    /// Whether row security (or a view) may hide rows from this session.
    pub rows_may_be_hidden: bool,
    /// Statements that recreate further parts after the rows are back (secondary indexes), as the engine prints them.
    pub index_statements: Vec<String>,
}

/// All base tables of a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalogue {
    /// Sorted by name.
    pub tables: Vec<Table>,
    /// Foreign keys, by table and columns, that the engine can be asked to check only when a transaction commits.
    pub deferrable: BTreeSet<(String, Vec<String>)>,
    /// What cannot be a collection although it looks like a table, by name, with the reason.
    pub refused: BTreeMap<String, String>,
}

/// Why a view is no collection.
const IS_VIEW: &str =
    "is a view, through which rows cannot be erased for certain; register the tables behind it instead";

impl Catalogue {
    /// The table with this name.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }
}

/// One step from a child row to its parent row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Columns of the row we come from.
    pub columns: Vec<String>,
    /// The table we go to.
    pub parent: String,
    /// Columns there, in the same order.
    pub parent_columns: Vec<String>,
}

/// A column of the queried table (`hop` 0) or of its n-th ancestor on the query's path (`hop` n).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnRef {
    /// How many hops up the path.
    pub hop: usize,
    /// The column's name there.
    pub column: String,
}

impl ColumnRef {
    /// A column of the queried table itself.
    #[must_use]
    pub fn own(column: &str) -> Self {
        Self { hop: 0, column: column.to_owned() }
    }
}

/// A start-event bound, in every form an engine may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// As an instant, for columns with a zone and for Unix seconds.
    pub instant: DateTime<Utc>,
    /// As local time of the store's zone, for columns without a zone.
    pub local: NaiveDateTime,
}

/// A condition on rows. Compiled to the same SQL for planning, counting, deleting and reading back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Every row.
    All,
    /// The column equals the value; never true for NULL.
    Equals(ColumnRef, Value),
    /// The column is NULL.
    IsNull(ColumnRef),
    /// The column is not NULL.
    IsNotNull(ColumnRef),
    /// The column equals the value, NULL equal to NULL (for "unchanged since the plan").
    Same(ColumnRef, Value),
    /// The start event in the column is a well-formed time before the threshold (the engine may err on the side of "not
    /// before"; callers parse the value themselves too). Never true for NULL or what the engine cannot read as a time.
    Before(ColumnRef, Threshold),
    /// The date, time or whole number in the column is one that [`Filter::Before`] does not take for a start event before the threshold. Never
    /// true for NULL, and for none of MariaDB's dates without a month or day. Texts, and all of SQLite's columns, are not asked so.
    NotBefore(ColumnRef, Threshold),
    /// The columns (of the queried table) equal one of the tuples. At most [`MAX_BOUND_VALUES`] values in all.
    In(Vec<String>, Vec<RowKey>),
    /// The same of the n-th ancestor on the query's path.
    AncestorIn(usize, Vec<String>, Vec<RowKey>),
    /// All of them.
    And(Vec<Filter>),
    /// At least one of them.
    Or(Vec<Filter>),
}

/// A page of rows, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowQuery {
    /// The table.
    pub table: String,
    /// Parents to join (left outer), nearest first.
    pub path: Vec<Hop>,
    /// The columns to return, in this order.
    pub columns: Vec<ColumnRef>,
    /// Which rows.
    pub filter: Filter,
    /// The key columns that order the page (and make `after` meaningful); never empty.
    pub key: Vec<String>,
    /// Only rows whose key is greater than this.
    pub after: Option<RowKey>,
    /// At most so many rows.
    pub limit: u32,
}

/// Identifies one batch for ever: a run, a chunk of it, and the fencing token of the lease it ran under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchMarker {
    /// The run's id.
    pub run: String,
    /// The chunk's number within the run.
    pub chunk: i64,
    /// The fencing token.
    pub token: i64,
    /// Rows deleted.
    pub erased: i64,
    /// Rows changed.
    pub changed: i64,
}

/// What a store answers when it cannot do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The server cannot be reached or went away. Worth retrying.
    #[error("store {store}: the database cannot be reached: {detail}")]
    Unreachable {
        /// The store's name.
        store: String,
        /// The driver's message, without secrets.
        detail: String,
    },
    /// The server refused the user or the password.
    #[error("store {store}: the database refused the login: {detail}")]
    Login {
        /// The store's name.
        store: String,
        /// The driver's message, without secrets.
        detail: String,
    },
    /// A table, column or right is missing, or a type is not supported. Retrying does not help.
    #[error("store {store}: {what}")]
    Refused {
        /// The store's name.
        store: String,
        /// What is missing.
        what: String,
    },
    /// The database waited too long for a lock or a statement ran too long. Worth retrying.
    #[error("store {store}: {what}")]
    Busy {
        /// The store's name.
        store: String,
        /// What it waited for.
        what: String,
    },
    /// The database's own rules forbid it: foreign key, unique, not null, check, trigger. Retrying the same does not
    /// help.
    #[error("store {store}: {what}")]
    Constraint {
        /// The store's name.
        store: String,
        /// The rule, without values.
        what: String,
    },
    /// Anything else the database reported.
    #[error("store {store}: {what}")]
    Failed {
        /// The store's name.
        store: String,
        /// The driver's message, without values.
        what: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. })
    }

    /// The store's name.
    #[must_use]
    pub fn store(&self) -> &str {
        match self {
            Self::Unreachable { store, .. }
            | Self::Login { store, .. }
            | Self::Refused { store, .. }
            | Self::Busy { store, .. }
            | Self::Constraint { store, .. }
            | Self::Failed { store, .. } => store,
        }
    }
}

/// What adapters return.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A registered data store.
#[async_trait]
pub trait DataStore: Send + Sync {
    /// The store's registered name.
    fn name(&self) -> &str;

    /// Its engine.
    fn engine(&self) -> Engine;

    /// The database server's clock.
    async fn server_time(&self) -> Result<DateTime<Utc>>;

    /// The server's version, as it states it; empty when the engine does not tell.
    async fn server_version(&self) -> Result<String> {
        Ok(String::new())
    }

    /// All base tables with keys, foreign keys and triggers.
    async fn catalogue(&self) -> Result<Catalogue>;

    /// Checks that rows of these tables can be read, deleted and updated for real: rights, row security, triggers, the
    /// marker table. An empty list means ready. Read-only apart from creating nothing.
    async fn check(&self, tables: &[String]) -> Result<Vec<Finding>>;

    /// Opens one consistent, read-only view of the whole store.
    async fn open_snapshot(&self) -> Result<Box<dyn Snapshot>>;

    /// Begins a write transaction. Creates the marker table `wangchuan_batch` first if it is missing.
    async fn begin_batch(&self) -> Result<Box<dyn Batch>>;

    /// The marker that a committed batch left, if it was committed. `None` while a batch of a process that is gone may
    /// still be committed by the server; doing the chunk again is safe all the same, because a run and chunk commit
    /// only once: the later one waits for the earlier and then fails with [`StoreError::Constraint`].
    async fn batch_outcome(&self, run: &str, chunk: i64) -> Result<Option<BatchMarker>>;

    /// Sizes and indexes of these tables, without those that are not there. An engine that must count does so no further than behind
    /// `up_to`.
    async fn table_facts(&self, tables: &[String], up_to: u64) -> Result<BTreeMap<String, TableFacts>>;

    /// How busy the server is. An engine without a server says nothing.
    async fn load(&self) -> Result<Load> {
        Ok(Load::default())
    }

    /// Writes a heartbeat, which replicas get like any other row, and returns it: the server's time in microseconds. None for an
    /// engine that has no replicas.
    async fn beat(&self) -> Result<Option<i64>> {
        Ok(None)
    }

    /// The newest heartbeat that can be read here, of a replica too; none when none has arrived yet.
    async fn last_beat(&self) -> Result<Option<i64>> {
        Ok(None)
    }

    /// Removes markers of a finished run.
    async fn forget_markers(&self, run: &str) -> Result<()>;

    /// Makes deleted rows unreadable in the store's own files as far as the engine can without disturbing others, and tells what is
    /// left. Tables that are gone are passed over.
    async fn settle(&self, asked: &Settling<'_>) -> Result<PhysicalState>;

    /// Where the files lie that may hold rows of these tables. `data` is the server's data folder as somebody declared it; otherwise the
    /// server is asked, which may need a right.
    async fn file_map(&self, tables: &[String], data: Option<&Path>) -> Result<FileMap>;

    /// Begins putting rows back. Tables that are missing and listed in `tables` are created first, with keys and with
    /// those foreign keys whose parent exists or is in the list; the other foreign keys are returned as sentences. Rows
    /// may come in any order of tables that are in the list. A restore that is dropped leaves nothing behind, except
    /// that MariaDB, which cannot take definitions back, keeps the new tables, empty.
    async fn begin_restore(&self, tables: &[Table]) -> Result<(Box<dyn Restore>, Vec<String>)> {
        self.begin_restore_as(tables, &Definitions::default()).await
    }

    /// The same, with tables made as they were defined, as far as definitions are there; what of them cannot be carried out
    /// is returned as sentences, and the table made of its columns.
    async fn begin_restore_as(
        &self,
        tables: &[Table],
        definitions: &Definitions,
    ) -> Result<(Box<dyn Restore>, Vec<String>)>;
}

/// A consistent read-only view.
#[async_trait]
pub trait Snapshot: Send {
    /// One page of rows in key order; fewer than `limit` rows means the end.
    async fn read(&mut self, query: &RowQuery) -> Result<Vec<Row>>;

    /// The next rows of a query that takes all: where the engine can, those with the same value of `group` one behind the other,
    /// otherwise in key order. It begins anew when the query has no `after`; the key of the last row goes there for the next call. Fewer
    /// than `limit` rows means the end.
    async fn read_grouped(&mut self, query: &RowQuery, group: Option<&ColumnRef>) -> Result<Vec<Row>>;

    /// Whether the engine can do that.
    fn is_grouping(&self) -> bool;

    /// How many rows match (`columns`, `after` and `limit` are ignored).
    async fn count(&mut self, query: &RowQuery) -> Result<u64>;

    /// The same, but no more than `most` are looked for.
    async fn count_up_to(&mut self, query: &RowQuery, most: u64) -> Result<u64>;

    /// How these tables, and what they need, are defined; and where the numbering of their rows stands now, so it is asked
    /// when the rows have been read.
    async fn definitions(&mut self, tables: &[String]) -> Result<Definitions>;

    /// Ends the view.
    async fn close(self: Box<Self>) -> Result<()>;
}

/// A write transaction.
#[async_trait]
pub trait Batch: Send {
    /// Reads and locks rows for writing.
    async fn read_for_update(&mut self, query: &RowQuery) -> Result<Vec<Row>>;

    /// How many rows match now.
    async fn count(&mut self, query: &RowQuery) -> Result<u64>;

    /// Reads rows as they are now, without locking them.
    async fn read(&mut self, query: &RowQuery) -> Result<Vec<Row>>;

    /// Deletes the rows that match and returns of each the columns asked for, as they were then, in no order and without regard to
    /// `after` and `limit`. `None`, with nothing deleted, where the engine has no statement that does (MySQL, SQLite), and for columns of
    /// ancestors.
    async fn take(&mut self, query: &RowQuery) -> Result<Option<Vec<Row>>>;

    /// Deletes rows matching `filter` (which may use `path`); returns how many the engine deleted.
    async fn delete(&mut self, table: &str, path: &[Hop], filter: &Filter) -> Result<u64>;

    /// Sets columns of rows matching `filter`; returns how many rows matched.
    async fn update(&mut self, table: &str, set: &[(String, Value)], filter: &Filter) -> Result<u64>;

    /// Inserts a row (for undo).
    async fn insert(&mut self, table: &str, columns: &[String], row: &Row) -> Result<()>;

    /// Lets the engine check foreign keys at the commit, where it and they allow that.
    async fn put_off_checks(&mut self) -> Result<()>;

    /// Writes a further marker, for a transaction that is several batches at once.
    async fn mark(&mut self, marker: &BatchMarker) -> Result<()>;

    /// Writes the marker and commits. After an error the outcome is unknown until [`DataStore::batch_outcome`] tells.
    async fn commit(self: Box<Self>, marker: &BatchMarker) -> Result<()>;

    /// Gives up.
    async fn roll_back(self: Box<Self>) -> Result<()>;
}

/// Rows on their way back into a store, in one transaction.
#[async_trait]
pub trait Restore: Send {
    /// How many rows the table holds now.
    async fn count(&mut self, table: &str) -> Result<u64>;

    /// Inserts rows.
    async fn insert(&mut self, table: &str, columns: &[String], rows: &[Row]) -> Result<()>;

    /// Values of a foreign key of `table` that no row of the parent has now, each once, at most `limit`; none with a NULL.
    async fn missing_parents(&mut self, table: &str, key: &ForeignKey, limit: u32) -> Result<Vec<Row>>;

    /// When all rows are there: makes the keys, indexes and checks of created tables. Returns sentences about what could not
    /// be put in force, or for new rows only.
    async fn complete(&mut self) -> Result<Vec<String>>;

    /// Completes what is not complete yet, sets sequences, checks foreign keys; returns violations as sentences without values. With
    /// those, only what `accept_violations` may be committed.
    async fn check(&mut self, accept_violations: bool) -> Result<Vec<String>>;

    /// Commits what was checked. Nothing that takes long is left to it.
    async fn commit(self: Box<Self>) -> Result<()>;

    /// Checks, and commits only when there is no violation, or when `accept_violations`.
    async fn finish(mut self: Box<Self>, accept_violations: bool) -> Result<Vec<String>> {
        let violations = self.check(accept_violations).await?;
        if violations.is_empty() || accept_violations {
            self.commit().await?;
        } else {
            self.roll_back().await?;
        }
        Ok(violations)
    }

    /// Gives up; nothing was restored.
    async fn roll_back(self: Box<Self>) -> Result<()>;
}
