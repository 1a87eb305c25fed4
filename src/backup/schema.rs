//! The captured schema as it stands in a directory: a JSON mirror of [`crate::stores::Table`], so that the port may change
//! without changing what old backups mean. Pure.

use serde::{Deserialize, Serialize};

use crate::stores::{Column, ColumnKind, Definitions, Engine, ForeignKey, OnDelete, Table, Trigger};

/// The last section of a directory: what the snapshot's tables looked like and how much of them it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedSchema {
    /// The engine.
    pub engine: Engine,
    /// The database server's version, as it states it.
    pub server_version: String,
    /// The tables at the time of the snapshot; column ordinals in frames count their columns from 0.
    pub tables: Vec<Table>,
    /// The collections in the snapshot.
    pub collections: Vec<CapturedCollection>,
    /// How the tables are defined; empty in snapshots that were taken before that was captured.
    pub definitions: Definitions,
}

/// One collection of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapturedCollection {
    /// Its number in this snapshot's frames.
    pub number: u32,
    /// Its table.
    pub table: String,
    /// How many rows the snapshot holds of it.
    pub rows: u64,
}

impl CapturedSchema {
    /// The JSON of a directory's last part.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn to_json(self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&SchemaJson::from(self))
    }
}

/// The JSON form. Unknown members are refused: they would be silently lost at a restore.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SchemaJson {
    engine: EngineJson,
    server_version: String,
    tables: Vec<TableJson>,
    collections: Vec<CapturedCollection>,
    #[serde(default, skip_serializing_if = "Definitions::is_empty")]
    definitions: Definitions,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EngineJson {
    Sqlite,
    Postgres,
    Mysql,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindJson {
    Integer,
    Real,
    Decimal,
    Boolean,
    Text,
    Bytes,
    Date,
    LocalTime,
    Instant,
    Other,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnDeleteJson {
    Refuse,
    Cascade,
    Unset,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableJson {
    name: String,
    columns: Vec<ColumnJson>,
    key: Vec<String>,
    unique: Vec<Vec<String>>,
    foreign_keys: Vec<ForeignKeyJson>,
    triggers: Vec<TriggerJson>,
    rows_may_be_hidden: bool,
    index_statements: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnJson {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    kind: Option<KindJson>,
    nullable: bool,
    default: Option<String>,
    generated: bool,
    numbered: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForeignKeyJson {
    columns: Vec<String>,
    parent: String,
    parent_columns: Vec<String>,
    on_delete: OnDeleteJson,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerJson {
    name: String,
    on_delete: bool,
}

/// Both directions of the conversion between an enum of the port and its mirror.
macro_rules! mirror {
    ($port:ident, $json:ident, $($variant:ident),+) => {
        impl From<$port> for $json {
            fn from(port: $port) -> Self {
                match port { $($port::$variant => Self::$variant),+ }
            }
        }

        impl From<$json> for $port {
            fn from(json: $json) -> Self {
                match json { $($json::$variant => Self::$variant),+ }
            }
        }
    };
}

mirror!(Engine, EngineJson, Sqlite, Postgres, Mysql);
mirror!(ColumnKind, KindJson, Integer, Real, Decimal, Boolean, Text, Bytes, Date, LocalTime, Instant, Other);
mirror!(OnDelete, OnDeleteJson, Refuse, Cascade, Unset);

/// Both directions for a struct whose members convert one by one.
macro_rules! mirror_struct {
    ($port:ident, $json:ident { $($plain:ident),* ; $($single:ident),* ; $($optional:ident),* ; $($list:ident),* }) => {
        mirror_struct!(@one $port, $json { $($plain),* ; $($single),* ; $($optional),* ; $($list),* });
        mirror_struct!(@one $json, $port { $($plain),* ; $($single),* ; $($optional),* ; $($list),* });
    };
    (@one $from:ident, $to:ident { $($plain:ident),* ; $($single:ident),* ; $($optional:ident),* ; $($list:ident),* }) => {
        impl From<$from> for $to {
            fn from(from: $from) -> Self {
                Self {
                    $($plain: from.$plain,)*
                    $($single: from.$single.into(),)*
                    $($optional: from.$optional.map(Into::into),)*
                    $($list: from.$list.into_iter().map(Into::into).collect(),)*
                }
            }
        }
    };
}

mirror_struct!(Column, ColumnJson { name, type_name, nullable, default, generated, numbered ; ; kind ; });
mirror_struct!(ForeignKey, ForeignKeyJson { columns, parent, parent_columns ; on_delete ; ; });
mirror_struct!(Trigger, TriggerJson { name, on_delete ; ; ; });
mirror_struct!(Table, TableJson {
    name, key, unique, rows_may_be_hidden, index_statements ; ; ; columns, foreign_keys, triggers
});
mirror_struct!(CapturedSchema, SchemaJson { server_version, collections, definitions ; engine ; ; tables });
