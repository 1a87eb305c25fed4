//! What is in the control database, as its engine's own catalogue tells it: statements, tables, keys, numbers given out.

use sqlx::Row as _;

use super::engine::Engine;
use super::{ControlError, Result, Tx};

/// The table in which SQLite keeps the numbers given out. On PostgreSQL the rows of this name are made of its sequences.
pub(super) const SEQUENCES: &str = "sqlite_sequence";

/// Of the present schema: `c` is one of its relations.
macro_rules! in_schema {
    ($select:literal, $more:literal) => {
        concat!(
            $select,
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema() ",
            $more
        )
    };
}

/// The statement that made it is the comment of each object.
const POSTGRES_STATEMENTS: &str = concat!(
    in_schema!(
        "SELECT CASE c.relkind WHEN 'i' THEN 1 ELSE 0 END AS kind, c.relname::text COLLATE \"C\" AS name, d.description",
        "JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0 \
         WHERE c.relkind IN ('r', 'i') AND d.description LIKE 'CREATE %'"
    ),
    " UNION ALL ",
    in_schema!(
        "SELECT 1, t.tgname::text COLLATE \"C\", d.description",
        "JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal \
         JOIN pg_description d ON d.objoid = t.oid AND d.classoid = 'pg_trigger'::regclass \
         WHERE d.description LIKE 'CREATE %'"
    ),
    " ORDER BY 1, 2"
);
const SQLITE_STATEMENTS: &str = "SELECT CASE type WHEN 'table' THEN 0 ELSE 1 END, name, sql FROM sqlite_master \
     WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1, 2";

const SQLITE_TABLES: &str = "SELECT name, 1 FROM sqlite_master WHERE type = 'table' \
     AND (name NOT LIKE 'sqlite\\_%' ESCAPE '\\' OR name = 'sqlite_sequence') ORDER BY name";
const POSTGRES_TABLES: &str = in_schema!(
    "SELECT c.relname::text COLLATE \"C\", CASE WHEN obj_description(c.oid, 'pg_class') LIKE 'CREATE %' THEN 1 ELSE 0 END",
    "WHERE c.relkind IN ('r', 'p') ORDER BY 1"
);

/// Columns, and their places in the primary key, 0 outside it.
const SQLITE_COLUMNS: &str = "SELECT name, pk FROM pragma_table_info($1) ORDER BY cid";
const POSTGRES_COLUMNS: &str = in_schema!(
    "SELECT a.attname::text, COALESCE(array_position(i.indkey::int2[], a.attnum) + 1, 0)::bigint",
    "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
     LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary WHERE c.relname = $1::text ORDER BY a.attnum"
);

/// The numbers given out, in the form of SQLite's table.
pub(super) const POSTGRES_SEQUENCES: &str = concat!(
    "SELECT given.name, given.seq FROM (",
    in_schema!(
        "SELECT c.relname::text COLLATE \"C\" AS name, \
         pg_sequence_last_value(pg_get_serial_sequence(quote_ident(c.relname), a.attname)::regclass) AS seq",
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attidentity <> '' WHERE c.relkind = 'r'"
    ),
    ") AS given WHERE given.seq IS NOT NULL ORDER BY given.name"
);
/// Gives the sequence of table `$1` the last number `$2`.
pub(super) const SET_SEQUENCE: &str = in_schema!(
    "SELECT setval(pg_get_serial_sequence(quote_ident(c.relname), a.attname)::regclass, $2)",
    "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attidentity <> '' WHERE c.relname = $1::text"
);

/// A table as its rows are read and written.
pub(super) struct TableShape {
    pub(super) name: String,
    pub(super) columns: Vec<String>,
    /// The columns of its key; of all of them when it has none.
    pub(super) order: Vec<String>,
}

impl Tx {
    /// The portable statements that make this database, tables first.
    pub(super) async fn statements(&mut self) -> Result<Vec<String>> {
        let sql = match self.engine {
            Engine::Sqlite => SQLITE_STATEMENTS,
            Engine::Postgres => POSTGRES_STATEMENTS,
        };
        let rows = sqlx::query(sql).fetch_all(&mut *self.inner).await?;
        rows.iter().map(|row| Ok(row.try_get(2)?)).collect()
    }

    /// All tables, by name, with the one of numbers given out.
    pub(super) async fn table_shapes(&mut self) -> Result<Vec<TableShape>> {
        let sql = match self.engine {
            Engine::Sqlite => SQLITE_TABLES,
            Engine::Postgres => POSTGRES_TABLES,
        };
        let mut names: Vec<String> = Vec::new();
        for row in sqlx::query(sql).fetch_all(&mut *self.inner).await? {
            let name: String = row.try_get(0)?;
            if row.try_get::<i64, _>(1)? == 0 {
                return Err(ControlError::Inconsistent(format!(
                    "the table {name} is not the agent's: the control database must have a schema, or a database, of its own"
                )));
            }
            names.push(name);
        }
        if self.engine == Engine::Postgres {
            names.push(SEQUENCES.to_owned());
            names.sort();
        }
        let mut shapes = Vec::with_capacity(names.len());
        for name in names {
            shapes.push(self.shape_of(name).await?);
        }
        Ok(shapes)
    }

    async fn shape_of(&mut self, name: String) -> Result<TableShape> {
        if name == SEQUENCES {
            let columns = vec!["name".to_owned(), "seq".to_owned()];
            return Ok(TableShape { name, columns, order: vec!["name".to_owned()] });
        }
        let sql = match self.engine {
            Engine::Sqlite => SQLITE_COLUMNS,
            Engine::Postgres => POSTGRES_COLUMNS,
        };
        let (mut columns, mut order) = (Vec::new(), Vec::new());
        for row in sqlx::query(sql).bind(&name).fetch_all(&mut *self.inner).await? {
            let column: String = row.try_get(0)?;
            let place: i64 = row.try_get(1)?;
            if place > 0 {
                order.push((place, column.clone()));
            }
            columns.push(column);
        }
        order.sort();
        let order: Vec<String> = order.into_iter().map(|(_, column)| column).collect();
        let order = if order.is_empty() { columns.clone() } else { order };
        Ok(TableShape { name, columns, order })
    }
}
