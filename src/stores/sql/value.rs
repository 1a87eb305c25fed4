//! Values on their way in and out: casts, and the checks without which a cast would quietly change a value.

use super::{Argument, Builder, Output, Result, SqlError, is_bytes, quote};
use crate::stores::{Column, ColumnKind, Engine, Table};
use crate::value::Value;

/// MariaDB's types of geometry, which cross as their stored bytes: the spatial reference and the well-known binary form.
pub(in crate::stores) const GEOMETRY: [&str; 9] = [
    "geometry",
    "point",
    "linestring",
    "polygon",
    "multipoint",
    "multilinestring",
    "multipolygon",
    "geometrycollection",
    "geomcollection",
];

/// Whether MariaDB gives and takes a column as bytes.
pub(super) fn is_mysql_bytes(column: &Column) -> bool {
    is_bytes(column) || GEOMETRY.contains(&base_type(&column.type_name).as_str())
}

/// What a bound value is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::stores) enum Purpose {
    /// To be compared with a column.
    Compare,
    /// To be written into a column.
    Store,
}

/// The expression that returns a column's exact value, and how to read it.
pub(super) fn output(engine: Engine, table: &Table, column: &Column, prefix: &str) -> Result<(String, Output)> {
    let name = format!("{prefix}{}", quote(engine, &column.name));
    if engine == Engine::Sqlite {
        return Ok((name, Output::Native));
    }
    let Some(kind) = column.kind else {
        let (table, column, type_name) = (table.name.clone(), column.name.clone(), column.type_name.clone());
        return Err(SqlError::Unsupported { table, column, type_name });
    };
    if kind == ColumnKind::Bytes || engine == Engine::Mysql && is_mysql_bytes(column) {
        return Ok((name, Output::Bytes));
    }
    let expression = match (engine, base_type(&column.type_name).as_str()) {
        // A cast would take the blanks at the end, which belong to the value where the type has no length.
        (Engine::Postgres, "bpchar") if column.type_name == "bpchar" => format!("textin(bpcharout({name}))"),
        (Engine::Postgres, _) => format!("CAST({name} AS text)"),
        _ if kind == ColumnKind::Text => name,
        // A single float prints with six digits only; as a double it is exact.
        (_, "float") => format!("CAST(CAST({name} AS DOUBLE) AS CHAR)"),
        (_, "bit") => format!("CAST(CAST({name} AS UNSIGNED) AS CHAR)"),
        _ => format!("CAST({name} AS CHAR)"),
    };
    Ok((expression, Output::Text))
}

/// The first word of a MariaDB type in small letters: `decimal` of `decimal(10,2) unsigned`.
pub(super) fn base_type(type_name: &str) -> String {
    type_name
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        .collect::<String>()
        .to_lowercase()
}

impl Builder<'_> {
    /// A placeholder for the next argument.
    pub(super) fn place_argument(&mut self, argument: Argument) -> String {
        self.arguments.push(argument);
        match self.schema.engine {
            Engine::Postgres => format!("${}", self.arguments.len()),
            Engine::Sqlite | Engine::Mysql => "?".to_owned(),
        }
    }

    /// Appends a value for this column.
    pub(super) fn bind(&mut self, table: &Table, column: &Column, value: &Value, purpose: Purpose) -> Result<()> {
        let does_not_fit = || does_not_fit(table, column);
        let expression = match self.schema.engine {
            Engine::Sqlite => {
                let argument = native(value);
                self.place_argument(argument)
            }
            Engine::Postgres => {
                let argument = text_or_bytes(column, value).ok_or_else(does_not_fit)?;
                let cast = self.cast(table, column);
                let place = self.place_argument(argument);
                format!("CAST({place} AS {cast})")
            }
            Engine::Mysql => {
                let (argument, cast) = mysql_argument(column, value, purpose).ok_or_else(does_not_fit)?;
                let place = self.place_argument(argument);
                cast.map_or_else(|| place.clone(), |cast| format!("CAST({place} AS {cast})"))
            }
        };
        self.push(&expression);
        Ok(())
    }

    /// The type that a PostgreSQL cast names for this column.
    pub(super) fn cast(&self, table: &Table, column: &Column) -> String {
        let known = self.schema.casts.get(&(table.name.clone(), column.name.clone()));
        known.cloned().unwrap_or_else(|| column.type_name.clone())
    }
}

pub(super) fn does_not_fit(table: &Table, column: &Column) -> SqlError {
    let (table, column, type_name) = (table.name.clone(), column.name.clone(), column.type_name.clone());
    SqlError::DoesNotFit { table, column, type_name }
}

fn native(value: &Value) -> Argument {
    match value {
        Value::Null => Argument::Null,
        Value::Integer(number) => Argument::Integer(*number),
        Value::Real(number) => Argument::Real(*number),
        Value::Text(text) => Argument::Text(text.clone()),
        Value::Blob(bytes) => Argument::Bytes(bytes.clone()),
    }
}

/// The value as PostgreSQL takes it: bytes for bytea, text for everything else.
pub(in crate::stores) fn text_or_bytes(column: &Column, value: &Value) -> Option<Argument> {
    match (value, is_bytes(column)) {
        (Value::Null, true) => Some(Argument::NullBytes),
        (Value::Null, false) => Some(Argument::Null),
        (Value::Blob(bytes), true) => Some(Argument::Bytes(bytes.clone())),
        (Value::Integer(number), false) => Some(Argument::Text(number.to_string())),
        (Value::Real(number), false) => Some(Argument::Text(number.to_string())),
        // The server would take the bytes up to a NUL, or refuse with the text in its message.
        (Value::Text(text), false) if !text.contains('\0') => Some(Argument::Text(text.clone())),
        _ => None,
    }
}

/// The value as MariaDB takes it, and the type to cast it to.
///
/// MariaDB turns text that is no number into 0 and compares decimals with text as doubles; so numbers are parsed here,
/// and bound or cast as what the column holds.
fn mysql_argument(column: &Column, value: &Value, purpose: Purpose) -> Option<(Argument, Option<String>)> {
    let base = base_type(&column.type_name);
    let text = match value {
        Value::Null if is_mysql_bytes(column) => return Some((Argument::NullBytes, None)),
        Value::Null => return Some((Argument::Null, None)),
        Value::Blob(bytes) => return is_mysql_bytes(column).then(|| (Argument::Bytes(bytes.clone()), None)),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) if number.is_finite() => number.to_string(),
        Value::Real(_) => return None,
        Value::Text(text) => text.clone(),
    };
    let as_text = |cast: Option<&str>| {
        let cast = cast.filter(|_| purpose == Purpose::Compare).map(str::to_owned);
        Some((Argument::Text(text.clone()), cast))
    };
    match (column.kind?, base.as_str()) {
        _ if is_mysql_bytes(column) => None,
        (ColumnKind::Integer | ColumnKind::Boolean, _) | (_, "bit" | "year") => {
            let signed = text.parse().ok().map(Argument::Integer);
            Some((signed.or_else(|| text.parse().ok().map(Argument::Unsigned))?, None))
        }
        (ColumnKind::Decimal, _) => {
            let cast = format!("DECIMAL(65,{})", decimal_scale(&column.type_name));
            if is_decimal(&text) { as_text(Some(&cast)) } else { None }
        }
        (ColumnKind::Real, _) => {
            text.parse::<f64>().ok().filter(|real| real.is_finite()).map(|real| (Argument::Real(real), None))
        }
        (ColumnKind::Date, _) => as_text(Some("DATE")),
        (ColumnKind::LocalTime | ColumnKind::Instant, _) => as_text(Some("DATETIME(6)")),
        (_, "time") => as_text(Some("TIME(6)")),
        (_, "uuid" | "inet4" | "inet6") => as_text(Some(&base)),
        _ => as_text(None),
    }
}

/// Digits behind the point in `decimal(p,s)`.
fn decimal_scale(type_name: &str) -> u32 {
    let inside = type_name.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    inside.and_then(|(inside, _)| inside.split_once(',')).and_then(|(_, scale)| scale.trim().parse().ok()).unwrap_or(0)
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    all_digits(whole) && all_digits(fraction)
}
