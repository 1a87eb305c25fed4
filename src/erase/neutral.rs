//! Values without meaning, for columns that must hold something although nothing is to be known of the row: those of a
//! stripped row, and those of a key-only stub.

use crate::stores::{Column, ColumnKind, Engine, Table};
use crate::value::Value;

/// NULL where the column allows it, else a value without meaning; none where the type has none that is sure to be accepted.
/// `distinct`, for columns in which every row must differ, becomes the value: 16 hex digits, so in text only.
#[must_use]
pub fn neutral_value(column: &Column, engine: Engine, distinct: Option<&[u8; 8]>) -> Option<Value> {
    if column.nullable {
        return Some(Value::Null);
    }
    match (column.kind?, distinct) {
        (ColumnKind::Text, Some(bytes)) => Some(Value::Text(hex::encode(bytes))),
        (_, Some(_)) => None,
        (kind, None) => neutral_of(kind, engine),
    }
}

/// The value without meaning of a kind of column.
#[must_use]
pub fn neutral_of(kind: ColumnKind, engine: Engine) -> Option<Value> {
    let number = || if engine == Engine::Sqlite { Value::Integer(0) } else { Value::Text("0".to_owned()) };
    match kind {
        ColumnKind::Text => Some(Value::Text(String::new())),
        ColumnKind::Boolean if engine == Engine::Postgres => Some(Value::Text("false".to_owned())),
        ColumnKind::Integer | ColumnKind::Real | ColumnKind::Decimal | ColumnKind::Boolean => Some(number()),
        ColumnKind::Bytes => Some(Value::Blob(Vec::new())),
        ColumnKind::Date => Some(Value::Text("1970-01-01".to_owned())),
        ColumnKind::LocalTime | ColumnKind::Instant => Some(Value::Text("1970-01-01 00:00:00".to_owned())),
        ColumnKind::Other => None,
    }
}

/// Whether the engine may refuse two rows with the same value there.
#[must_use]
pub fn is_unique(table: &Table, column: &Column) -> bool {
    table.key.contains(&column.name) || table.unique.iter().any(|columns| columns.contains(&column.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_differ_differs_and_what_may_be_null_is() {
        let column = |kind, nullable| Column {
            name: "c".to_owned(),
            type_name: "t".to_owned(),
            kind,
            nullable,
            default: None,
            generated: false,
            numbered: false,
        };
        let text = |nullable| column(Some(ColumnKind::Text), nullable);
        let digits = [0x0a; 8];
        assert_eq!(neutral_value(&text(true), Engine::Sqlite, Some(&digits)), Some(Value::Null));
        assert_eq!(neutral_value(&text(false), Engine::Sqlite, None), Some(Value::Text(String::new())));
        let distinct = Some(Value::Text("0a0a0a0a0a0a0a0a".to_owned()));
        assert_eq!(neutral_value(&text(false), Engine::Mysql, Some(&digits)), distinct);
        let number = column(Some(ColumnKind::Integer), false);
        assert_eq!(neutral_value(&number, Engine::Postgres, Some(&digits)), None);
        assert_eq!(neutral_value(&number, Engine::Postgres, None), Some(Value::Text("0".to_owned())));
        assert_eq!(neutral_value(&column(Some(ColumnKind::Other), false), Engine::Postgres, None), None);
        assert_eq!(neutral_value(&column(None, false), Engine::Sqlite, None), None);
    }
}
