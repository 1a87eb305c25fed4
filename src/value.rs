//! Rows as the program carries them: values without loss, whose content never reaches a log.
//!
//! A store adapter turns its engine's types into [`Value`] and back, exactly or not at all.
//! `Debug` shows only the kind and length of a value, because values are customer data.

use std::fmt;

/// One value of one column.
#[derive(Clone)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A 64-bit integer, as SQLite stores it.
    Integer(i64),
    /// A double, compared by its bits.
    Real(f64),
    /// Text; for PostgreSQL and MariaDB also the server's exact text form of any non-binary type.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Blob(a), Self::Blob(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Integer(_) => f.write_str("Integer(…)"),
            Self::Real(_) => f.write_str("Real(…)"),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Blob(bytes) => write!(f, "Blob({} bytes)", bytes.len()),
        }
    }
}

/// The values of one row, in the order of the columns that were asked for.
pub type Row = Vec<Value>;

/// The values of a row's key columns, in key order.
#[derive(Clone, PartialEq, Eq)]
pub struct RowKey(pub Vec<Value>);

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowKey({} values)", self.0.len())
    }
}

/// Bytes that are not an encoding made by [`encode_values`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("malformed row encoding at byte {at}: {what}")]
pub struct MalformedValues {
    /// Where reading stopped.
    pub at: usize,
    /// What was wrong there.
    pub what: &'static str,
}

const NULL: u8 = 0;
const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;

/// The canonical, injective encoding of a list of values: a tag byte each, then 8 big-endian bytes for numbers,
/// or a big-endian `u32` length and the bytes. Used for keyed digests and inside frames.
#[must_use]
pub fn encode_values(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        encode_value(value, &mut out);
    }
    out
}

/// Appends one value in the encoding of [`encode_values`].
pub fn encode_value(value: &Value, out: &mut Vec<u8>) {
    let mut bytes = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        Value::Null => out.push(NULL),
        Value::Integer(number) => {
            out.push(INTEGER);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Real(number) => {
            out.push(REAL);
            out.extend_from_slice(&number.to_bits().to_be_bytes());
        }
        Value::Text(text) => bytes(TEXT, text.as_bytes()),
        Value::Blob(blob) => bytes(BLOB, blob),
    }
}

/// Reads values until the end of `bytes`.
///
/// # Errors
/// When `bytes` is not what [`encode_values`] makes.
pub fn decode_values(bytes: &[u8]) -> Result<Vec<Value>, MalformedValues> {
    let mut at = 0;
    let mut values = Vec::new();
    while at < bytes.len() {
        values.push(decode_value(bytes, &mut at)?);
    }
    Ok(values)
}

/// Reads one value at `*at` and moves `*at` behind it.
///
/// # Errors
/// When there is no well-formed value at `*at`.
pub fn decode_value(bytes: &[u8], at: &mut usize) -> Result<Value, MalformedValues> {
    let tag = *take(bytes, at, 1)?.first().ok_or(MalformedValues { at: *at, what: "no tag" })?;
    match tag {
        NULL => Ok(Value::Null),
        INTEGER => Ok(Value::Integer(i64::from_be_bytes(array(bytes, at)?))),
        REAL => Ok(Value::Real(f64::from_bits(u64::from_be_bytes(array(bytes, at)?)))),
        TEXT | BLOB => {
            let length = u32::from_be_bytes(array(bytes, at)?) as usize;
            let content = take(bytes, at, length)?.to_vec();
            if tag == BLOB {
                return Ok(Value::Blob(content));
            }
            let text =
                String::from_utf8(content).map_err(|_| MalformedValues { at: *at, what: "text is not UTF-8" })?;
            Ok(Value::Text(text))
        }
        _ => Err(MalformedValues { at: *at - 1, what: "unknown tag" }),
    }
}

fn take<'a>(bytes: &'a [u8], at: &mut usize, length: usize) -> Result<&'a [u8], MalformedValues> {
    let end = at.checked_add(length).filter(|end| *end <= bytes.len());
    let end = end.ok_or(MalformedValues { at: *at, what: "cut short" })?;
    let slice = &bytes[*at..end];
    *at = end;
    Ok(slice)
}

fn array<const N: usize>(bytes: &[u8], at: &mut usize) -> Result<[u8; N], MalformedValues> {
    let slice = take(bytes, at, N)?;
    slice.try_into().map_err(|_| MalformedValues { at: *at, what: "cut short" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            any::<u64>().prop_map(|bits| Value::Real(f64::from_bits(bits))),
            ".*".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..64).prop_map(Value::Blob),
        ]
    }

    proptest! {
        #[test]
        fn encoding_round_trips(values in proptest::collection::vec(any_value(), 0..8)) {
            prop_assert_eq!(decode_values(&encode_values(&values)).unwrap(), values);
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_values(&bytes);
        }
    }

    #[test]
    fn debug_shows_no_content() {
        let shown = format!("{:?}", vec![Value::Text("张三".into()), Value::Integer(42), Value::Blob(vec![7])]);
        assert_eq!(shown, "[Text(6 bytes), Integer(…), Blob(1 bytes)]");
    }
}
