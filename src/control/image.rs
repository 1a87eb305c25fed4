//! The image: everything durable in the control database as a list of pieces, and a database made from such a list.
//!
//! Tables are found in the schema, not listed by hand, so a new one cannot be forgotten. An image says nothing of the engine: it
//! holds portable statements and rows in the order of their keys, so one taken from PostgreSQL makes an SQLite file, and the other
//! way round. What is not in the image:
//! * the change index, which can be made again by a full snapshot and is as large as all other tables together, and the packs of
//!   snapshots that are not committed;
//! * `lease` — who works is not state; only its fencing token is, and that stands in the heads;
//! * `meta` entries about the second place itself ([`OWN`]) and the last time seen ([`CLOCK`]), which change all the time;
//! * crowns of former generations.
//!
//! A piece is `u8` kind ‖ content. Kind 1, the schema: `u16` count ‖ statements, each `u32` length and text, tables first. Kind 2,
//! rows of a table: `u16` length and name ‖ `u16` columns, each `u16` length and name ‖ values as in frames, row by row.
//! Rows stand in the order of their key, and a piece ends where a row's digest says so: one changed row changes one piece,
//! whatever was inserted before it.

use std::path::Path;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::any::{AnyRow, AnyTypeInfoKind};
use sqlx::{AssertSqlSafe, Row as _, ValueRef as _};

use super::catalogue::{POSTGRES_SEQUENCES, SEQUENCES, SET_SEQUENCE, TableShape};
use super::engine::Engine;
use super::{Control, ControlError, Result, StateLocation, Tx};
use crate::backup::state_record::StateHeads;
use crate::value::{Value, decode_value, encode_value};

/// How names of `meta` entries begin that are about the second place and never part of an image.
pub const OWN: &str = "second_place.";
/// The `meta` entry with the last time seen.
pub const CLOCK: &str = "clock_seen";
/// Tables whose rows stay behind.
const LEFT_BEHIND: [&str; 5] = ["lease", "change_index", "change_base", "snapshot_pack", "read_back"];
/// A recovered lease begins so far behind the last known token: more takings than any host makes between two records.
const TOKEN_STEP: i64 = 1_000_000;

const SCHEMA: u8 = 1;
const ROWS: u8 = 2;
/// How long a piece is in the middle.
const PIECE_MEAN_BYTES: u64 = 64 << 10;
/// A piece ends behind a row that makes it longer than this; one in millions comes so far.
const PIECE_MOST_BYTES: usize = 1 << 20;
/// So many bytes of a row's end decide: most rows have no more, longer ones end in sealed bytes.
const DECIDING_BYTES: usize = 64;

/// A piece of an image.
pub struct ImagePiece {
    /// The table; none for the schema.
    pub table: Option<String>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Takes the pieces of an image as they come; the next one is not read before.
#[async_trait]
pub trait TakePieces: Send {
    /// Takes one.
    async fn take(&mut self, piece: ImagePiece);
}

#[async_trait]
impl<F: FnMut(ImagePiece) + Send> TakePieces for F {
    async fn take(&mut self, piece: ImagePiece) {
        self(piece);
    }
}

impl Tx {
    /// Takes the image, piece by piece; all of it is of one moment.
    pub async fn image(&mut self, taker: &mut dyn TakePieces) -> Result<StateHeads> {
        taker.take(ImagePiece { table: None, bytes: self.schema_piece().await? }).await;
        for shape in self.table_shapes().await? {
            if !LEFT_BEHIND.contains(&shape.name.as_str()) {
                self.table_pieces(&shape, taker).await?;
            }
        }
        let number = |found: Option<AnyRow>| found.map_or(Ok(0), |row| row.try_get::<i64, _>(0));
        let lease = sqlx::query("SELECT COALESCE(MAX(token), 0) FROM lease").fetch_optional(&mut *self.inner).await?;
        Ok(StateHeads {
            ledger: self.ledger_head().await?,
            snapshots: self.snapshot_head().await?,
            certificates: self.next_certificate().await?.0 - 1,
            lease_token: number(lease)?,
        })
    }

    async fn schema_piece(&mut self) -> Result<Vec<u8>> {
        let statements = self.statements().await?;
        let mut bytes = vec![SCHEMA];
        bytes.extend_from_slice(&short(statements.len())?.to_be_bytes());
        for text in statements {
            bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        Ok(bytes)
    }

    async fn table_pieces(&mut self, shape: &TableShape, taker: &mut dyn TakePieces) -> Result<()> {
        let head = rows_head(shape)?;
        let mut bytes = head.clone();
        {
            let query = sqlx::query(AssertSqlSafe(select(shape, self.engine)));
            let mut rows = query.fetch(&mut *self.inner);
            while let Some(row) = rows.try_next().await? {
                let start = bytes.len();
                for column in 0..shape.columns.len() {
                    encode_value(&value_at(&row, column)?, &mut bytes);
                }
                if ends_behind(&bytes[start..], bytes.len()) {
                    let full = std::mem::replace(&mut bytes, head.clone());
                    taker.take(ImagePiece { table: Some(shape.name.clone()), bytes: full }).await;
                }
            }
        }
        if bytes.len() > head.len() {
            taker.take(ImagePiece { table: Some(shape.name.clone()), bytes }).await;
        }
        Ok(())
    }
}

/// Whether a piece of `length` bytes ends behind this row. The row alone decides, more often the longer it is, and not what stands
/// before it: so a row that comes or goes changes its own piece and no other.
fn ends_behind(row: &[u8], length: usize) -> bool {
    length >= PIECE_MOST_BYTES || digest(row) % PIECE_MEAN_BYTES < row.len() as u64
}

/// A number from the end of a row, mixed as in splitmix64; it only has to spread.
fn digest(row: &[u8]) -> u64 {
    let end = &row[row.len().saturating_sub(DECIDING_BYTES)..];
    let words = end.chunks(8).map(|word| word.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)));
    let sum = words
        .fold(0x9e37_79b9_7f4a_7c15_u64, |sum, word| (sum ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(31));
    let mixed = (sum ^ (sum >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn short(length: usize) -> Result<u16> {
    u16::try_from(length).map_err(|_| ControlError::Inconsistent("too many tables or columns for an image".to_owned()))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn rows_head(shape: &TableShape) -> Result<Vec<u8>> {
    let mut head = vec![ROWS];
    let put = |head: &mut Vec<u8>, text: &str| -> Result<()> {
        head.extend_from_slice(&short(text.len())?.to_be_bytes());
        head.extend_from_slice(text.as_bytes());
        Ok(())
    };
    put(&mut head, &shape.name)?;
    head.extend_from_slice(&short(shape.columns.len())?.to_be_bytes());
    for column in &shape.columns {
        put(&mut head, column)?;
    }
    Ok(head)
}

fn select(shape: &TableShape, engine: Engine) -> String {
    if shape.name == SEQUENCES && engine == Engine::Postgres {
        return POSTGRES_SEQUENCES.to_owned();
    }
    let list = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let condition = match shape.name.as_str() {
        "meta" => format!(" WHERE name NOT LIKE '{OWN}%' AND name <> '{CLOCK}'"),
        "tree_root" => " WHERE generation = (SELECT MAX(generation) FROM tree_root)".to_owned(),
        _ => String::new(),
    };
    format!("SELECT {} FROM {}{condition} ORDER BY {}", list(&shape.columns), quoted(&shape.name), list(&shape.order))
}

fn value_at(row: &AnyRow, column: usize) -> Result<Value> {
    let raw = row.try_get_raw(column)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    // The value's own type, not the column's: SQLite does not enforce the latter.
    Ok(match raw.type_info().kind() {
        AnyTypeInfoKind::BigInt | AnyTypeInfoKind::Integer | AnyTypeInfoKind::SmallInt => {
            Value::Integer(row.try_get(column)?)
        }
        AnyTypeInfoKind::Double | AnyTypeInfoKind::Real => Value::Real(row.try_get(column)?),
        AnyTypeInfoKind::Text => Value::Text(row.try_get(column)?),
        AnyTypeInfoKind::Blob => Value::Blob(row.try_get(column)?),
        AnyTypeInfoKind::Bool | AnyTypeInfoKind::Null => {
            return Err(ControlError::Inconsistent("a column has a type that no image holds".to_owned()));
        }
    })
}

/// A control database that is being made from an image. It takes its name only when it is finished.
pub struct ImageLoad {
    control: Control,
    tx: Tx,
    rest: Vec<String>,
}

impl ImageLoad {
    /// Begins in a new file at `path`.
    pub async fn begin(path: &Path) -> Result<Self> {
        Self::begin_at(&StateLocation::Sqlite(path.to_owned())).await
    }

    /// Begins in a new file, or in a database of a server whose schema is empty. Nothing is there before [`Self::finish`].
    pub async fn begin_at(place: &StateLocation) -> Result<Self> {
        let control = Control::connect(place, true).await?;
        let mut tx = control.begin().await?;
        if tx.engine == Engine::Sqlite {
            sqlx::query("PRAGMA defer_foreign_keys = ON").execute(&mut *tx.inner).await?;
        }
        if tx.has_schema().await? {
            return Err(ControlError::Inconsistent(format!("{} is not empty", place.shown())));
        }
        Ok(Self { control, tx, rest: Vec::new() })
    }

    /// Takes the next piece; the schema is the first.
    pub async fn take(&mut self, piece: &[u8]) -> Result<()> {
        let mut at = 0;
        match bytes(piece, &mut at, 1)?[0] {
            SCHEMA => self.make_tables(piece, at).await,
            ROWS => self.insert(piece).await,
            _ => Err(malformed("a piece of the image is of an unknown kind")),
        }
    }

    async fn make_tables(&mut self, piece: &[u8], mut at: usize) -> Result<()> {
        let count = u16::from_be_bytes(array(piece, &mut at)?);
        for _ in 0..count {
            let length = u32::from_be_bytes(array(piece, &mut at)?) as usize;
            let statement = text(bytes(piece, &mut at, length)?)?;
            if statement.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("CREATE TABLE")) {
                self.tx.make(&[statement]).await?;
            } else {
                // Indexes and triggers come behind the rows.
                self.rest.push(statement);
            }
        }
        if at == piece.len() { Ok(()) } else { Err(malformed("bytes behind the schema")) }
    }

    async fn insert(&mut self, piece: &[u8]) -> Result<()> {
        let rows = ImageRows::of(piece)?.ok_or_else(|| malformed("a piece of an unknown kind"))?;
        if rows.table == SEQUENCES {
            return self.give_out(rows).await;
        }
        let columns: Vec<String> = rows.columns.iter().map(|name| quoted(name)).collect();
        let head = format!("INSERT INTO {} ({}) VALUES ", quoted(&rows.table), columns.join(", "));
        for row in rows {
            let row = row?;
            // A NULL has no type here, and a server wants to know that of a parameter.
            let mut places = Vec::with_capacity(row.len());
            let mut bound = 0;
            for value in &row {
                bound += i32::from(*value != Value::Null);
                places.push(if *value == Value::Null { "NULL".to_owned() } else { format!("${bound}") });
            }
            let mut query = sqlx::query(AssertSqlSafe(format!("{head}({})", places.join(", "))));
            for value in row {
                query = match value {
                    Value::Null => query,
                    Value::Integer(number) => query.bind(number),
                    Value::Real(number) => query.bind(number),
                    Value::Text(text) => query.bind(text),
                    Value::Blob(blob) => query.bind(blob),
                };
            }
            query.execute(&mut *self.tx.inner).await?;
        }
        Ok(())
    }

    /// Numbers that were given out are not given out again.
    async fn give_out(&mut self, rows: ImageRows<'_>) -> Result<()> {
        let sql = match self.tx.engine {
            Engine::Sqlite => {
                // The rows inserted so far have made entries of their own.
                sqlx::query("DELETE FROM sqlite_sequence").execute(&mut *self.tx.inner).await?;
                "INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)"
            }
            Engine::Postgres => SET_SEQUENCE,
        };
        for row in rows {
            let [Value::Text(table), Value::Integer(number)] = &row?[..] else {
                return Err(malformed("a number given out is none"));
            };
            sqlx::query(sql).bind(table).bind(number).execute(&mut *self.tx.inner).await?;
        }
        Ok(())
    }

    /// Makes indexes and triggers, gives the lease a token behind every one given out before, and sets `meta` entries
    /// that are to be there from the first moment.
    pub async fn finish(mut self, heads: &StateHeads, meta: &[(String, String)]) -> Result<Control> {
        let rest = std::mem::take(&mut self.rest);
        self.tx.make(&rest).await?;
        sqlx::query("INSERT INTO lease (name, holder, pid, token, expires_at) VALUES ('work', '', 0, $1, $2)")
            .bind(heads.lease_token + TOKEN_STEP)
            .bind(super::time_text(chrono::DateTime::UNIX_EPOCH))
            .execute(&mut *self.tx.inner)
            .await?;
        for (name, value) in meta {
            self.tx.set_meta(name, value).await?;
        }
        self.tx.commit().await?;
        Ok(self.control)
    }
}

/// The rows in a piece of an image, one after the other.
pub struct ImageRows<'p> {
    /// The table.
    pub table: String,
    /// Its columns.
    pub columns: Vec<String>,
    piece: &'p [u8],
    at: usize,
}

impl<'p> ImageRows<'p> {
    /// The rows of a piece; `None` when it holds the schema.
    pub fn of(piece: &'p [u8]) -> Result<Option<Self>> {
        let mut at = 0;
        if bytes(piece, &mut at, 1)?[0] != ROWS {
            return Ok(None);
        }
        let table = short_text(piece, &mut at)?;
        let count = usize::from(u16::from_be_bytes(array(piece, &mut at)?));
        let columns = (0..count).map(|_| short_text(piece, &mut at)).collect::<Result<Vec<_>>>()?;
        if columns.is_empty() {
            return Err(malformed("a table without columns"));
        }
        Ok(Some(Self { table, columns, piece, at }))
    }

    fn row(&mut self) -> Result<Vec<Value>> {
        let mut values = Vec::with_capacity(self.columns.len());
        for _ in 0..self.columns.len() {
            values.push(decode_value(self.piece, &mut self.at).map_err(|_| malformed("a row is cut short"))?);
        }
        Ok(values)
    }
}

impl Iterator for ImageRows<'_> {
    type Item = Result<Vec<Value>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.piece.len() {
            return None;
        }
        let row = self.row();
        if row.is_err() {
            self.at = self.piece.len();
        }
        Some(row)
    }
}

fn malformed(what: &str) -> ControlError {
    ControlError::Inconsistent(format!("the image of the control database cannot be read: {what}"))
}

fn bytes<'p>(piece: &'p [u8], at: &mut usize, length: usize) -> Result<&'p [u8]> {
    let end = at.checked_add(length).filter(|end| *end <= piece.len()).ok_or_else(|| malformed("cut short"))?;
    let found = &piece[*at..end];
    *at = end;
    Ok(found)
}

fn array<const N: usize>(piece: &[u8], at: &mut usize) -> Result<[u8; N]> {
    bytes(piece, at, N)?.try_into().map_err(|_| malformed("cut short"))
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("text is not UTF-8"))
}

fn short_text(piece: &[u8], at: &mut usize) -> Result<String> {
    let length = usize::from(u16::from_be_bytes(array(piece, at)?));
    text(bytes(piece, at, length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pieces(control: &Control) -> (Vec<ImagePiece>, StateHeads) {
        let mut found = Vec::new();
        let heads = control.read().await.unwrap().image(&mut |piece: ImagePiece| found.push(piece)).await.unwrap();
        (found, heads)
    }

    async fn run(control: &Control, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&control.database.pool).await.unwrap();
    }

    async fn filled(path: &Path) -> Control {
        let control = Control::create(path, [7; 16]).await.unwrap();
        control.log_store("operations").await.unwrap();
        // A table that nobody told the image about, with every kind of value.
        run(
            &control,
            "CREATE TABLE later (id INTEGER PRIMARY KEY AUTOINCREMENT, \"odd \"\"name\" TEXT, x REAL, y BLOB)",
        )
        .await;
        run(&control, "CREATE INDEX later_x ON later (x)").await;
        run(&control, "INSERT INTO later VALUES (5, '忘川', -0.5, x'00ff'), (9, NULL, NULL, NULL)").await;
        run(&control, "DELETE FROM later WHERE id = 9").await;
        run(&control, "INSERT INTO tree_root VALUES (1, x'01', 'a'), (2, x'02', 'b')").await;
        run(&control, "INSERT INTO lease VALUES ('work', 'me', 1, 41, 'now')").await;
        run(&control, "INSERT INTO meta VALUES ('second_place.head', 'x'), ('clock_seen', 'y'), ('agent_hold', 'z')")
            .await;
        run(
            &control,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
             INSERT INTO sealed_row SELECT randomblob(16), i, 1, 1 FROM n",
        )
        .await;
        run(&control, "INSERT INTO log_leaf VALUES ('operations', 0, 'a', x'01', x'02', NULL, x'03', 5)").await;
        control
    }

    #[tokio::test]
    async fn a_database_made_from_an_image_has_the_same_image() {
        let folder = tempfile::tempdir().unwrap();
        let control = filled(&folder.path().join("a.db")).await;
        let (found, heads) = pieces(&control).await;
        assert_eq!(heads.lease_token, 41);
        let mut load = ImageLoad::begin(&folder.path().join("b.db")).await.unwrap();
        for piece in &found {
            load.take(&piece.bytes).await.unwrap();
        }
        let made = load.finish(&heads, &[("second_place.head".to_owned(), "here".to_owned())]).await.unwrap();
        let again = pieces(&made).await.0;
        let bytes = |pieces: &[ImagePiece]| pieces.iter().map(|piece| piece.bytes.clone()).collect::<Vec<_>>();
        assert!(bytes(&found) == bytes(&again), "the images differ");

        let mut tx = made.begin().await.unwrap();
        assert_eq!(tx.meta("agent_hold").await.unwrap().as_deref(), Some("z"));
        assert_eq!(tx.meta("second_place.head").await.unwrap().as_deref(), Some("here"));
        assert_eq!(tx.meta("clock_seen").await.unwrap(), None);
        assert_eq!(tx.tree_root().await.unwrap().unwrap().0, 2);
        assert_eq!(tx.crown_of(1).await.unwrap(), None);
        let now = chrono::DateTime::UNIX_EPOCH;
        let taken = tx.take_lease("work", "other", now, now).await.unwrap();
        assert!(matches!(taken, super::super::Lease::Taken { token } if token > 41), "{taken:?}");
        tx.commit().await.unwrap();
        // Numbers given out are not given out again, and the log still refuses to forget.
        run(&made, "INSERT INTO later (x) VALUES (1)").await;
        let row = sqlx::query("SELECT MAX(id) FROM later").fetch_one(&made.database.pool).await.unwrap();
        assert_eq!(row.try_get::<i64, _>(0).unwrap(), 10);
        assert!(sqlx::raw_sql("DELETE FROM log_leaf").execute(&made.database.pool).await.is_err());
        made.close().await;
        Control::open(&folder.path().join("b.db")).await.unwrap();
    }

    #[tokio::test]
    async fn one_inserted_row_changes_few_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let control = filled(&folder.path().join("a.db")).await;
        for first in 0..32 {
            let before: std::collections::HashSet<_> =
                pieces(&control).await.0.into_iter().map(|piece| piece.bytes).collect();
            // One for each 64 KiB, in the middle.
            assert!((5..80).contains(&before.len()), "{}", before.len());
            let row = format!("INSERT INTO sealed_row VALUES (x'{}', {}, 1, 1)", "0".repeat(32), first * 600 + 1);
            run(&control, &row).await;
            let after = pieces(&control).await.0;
            let changed = after.iter().filter(|piece| !before.contains(&piece.bytes)).count();
            assert!((1..=2).contains(&changed), "{changed} pieces changed");
        }
    }

    #[tokio::test]
    async fn what_is_no_image_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (number, bad) in
            [&[][..], &[9], &[ROWS, 0, 1, b'x', 0, 0], &[SCHEMA, 0, 1, 0, 0], &[ROWS, 0]].into_iter().enumerate()
        {
            let mut load = ImageLoad::begin(&folder.path().join(format!("{number}.db"))).await.unwrap();
            assert!(load.take(bad).await.is_err(), "{bad:?}");
        }
    }
}
