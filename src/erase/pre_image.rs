//! Pre-images: the rows of a chunk as they were just before it ran, sealed, so that an erasure can be undone within grace.
//!
//! ```text
//! part = sealed column of: 1 | number of columns | their names | for each row: number of key values | key | one value a column
//! ```
//! all in the encoding of [`crate::value`]. A chunk has several parts when its rows are large.

use super::EraseError;
use crate::keys::Key;
use crate::keys::sealed::{open_column, seal_column};
use crate::random::Random;
use crate::value::{MalformedValues, RowKey, Value, decode_value, encode_value};

/// The version of the form that this program writes.
const FORMAT: i64 = 1;
/// Plain bytes after which a new part is begun.
const PART_BYTES: usize = 4 << 20;

/// A row as it was.
#[derive(Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// Its key.
    pub key: RowKey,
    /// Its values, one for each of the image's columns.
    pub values: Vec<Value>,
}

/// Rows of one collection as they were.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PreImage {
    /// The stored columns of the collection at that time.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<ImageRow>,
}

/// Seals an image in parts, for this run and chunk only.
///
/// # Errors
/// When no randomness is to be had, or a single row is too large to be sealed.
pub fn seal_image(
    key: &Key,
    (run, chunk): (&str, i64),
    image: &PreImage,
    random: &dyn Random,
) -> Result<Vec<Vec<u8>>, EraseError> {
    let mut parts = Vec::new();
    let mut seal = |plain: &[u8]| -> Result<(), EraseError> {
        let part = (parts.len() as i64).to_be_bytes();
        let context: [&[u8]; 4] = [b"pre-image", run.as_bytes(), &chunk.to_be_bytes(), &part];
        parts.push(seal_column(key, &context, plain, random)?);
        Ok(())
    };
    let head = encode_head(&image.columns);
    let mut plain = head.clone();
    for row in &image.rows {
        encode_row(row, &mut plain);
        if plain.len() >= PART_BYTES {
            seal(&plain)?;
            plain.clone_from(&head);
        }
    }
    if plain.len() > head.len() {
        seal(&plain)?;
    }
    Ok(parts)
}

/// Opens what [`seal_image`] made.
///
/// # Errors
/// When a part was changed, belongs elsewhere, or its key is gone.
pub fn open_image(key: &Key, (run, chunk): (&str, i64), parts: &[Vec<u8>]) -> Result<PreImage, EraseError> {
    let mut image = PreImage::default();
    for (number, sealed) in parts.iter().enumerate() {
        let part = (number as i64).to_be_bytes();
        let context: [&[u8]; 4] = [b"pre-image", run.as_bytes(), &chunk.to_be_bytes(), &part];
        decode_part(&open_column(key, &context, sealed)?, &mut image)?;
    }
    Ok(image)
}

fn encode_head(columns: &[String]) -> Vec<u8> {
    let mut head = Vec::new();
    encode_value(&Value::Integer(FORMAT), &mut head);
    encode_value(&Value::Integer(columns.len() as i64), &mut head);
    for column in columns {
        encode_value(&Value::Text(column.clone()), &mut head);
    }
    head
}

fn encode_row(row: &ImageRow, out: &mut Vec<u8>) {
    encode_value(&Value::Integer(row.key.0.len() as i64), out);
    for value in row.key.0.iter().chain(&row.values) {
        encode_value(value, out);
    }
}

fn decode_part(bytes: &[u8], image: &mut PreImage) -> Result<(), MalformedValues> {
    let mut at = 0;
    let wrong = |at: usize, what: &'static str| MalformedValues { at, what };
    if decode_value(bytes, &mut at)? != Value::Integer(FORMAT) {
        return Err(wrong(at, "another format"));
    }
    let count = decode_count(bytes, &mut at)?;
    let mut columns = Vec::new();
    for _ in 0..count {
        let Value::Text(name) = decode_value(bytes, &mut at)? else { return Err(wrong(at, "no column name")) };
        columns.push(name);
    }
    if !image.columns.is_empty() && image.columns != columns {
        return Err(wrong(at, "other columns than the part before"));
    }
    image.columns = columns;
    while at < bytes.len() {
        let length = decode_count(bytes, &mut at)?;
        let key = decode_row(bytes, &mut at, length)?;
        let values = decode_row(bytes, &mut at, image.columns.len())?;
        image.rows.push(ImageRow { key: RowKey(key), values });
    }
    Ok(())
}

fn decode_count(bytes: &[u8], at: &mut usize) -> Result<usize, MalformedValues> {
    match decode_value(bytes, at)? {
        Value::Integer(count @ 0..=0xffff) => Ok(count as usize),
        _ => Err(MalformedValues { at: *at, what: "no count" }),
    }
}

fn decode_row(bytes: &[u8], at: &mut usize, length: usize) -> Result<Vec<Value>, MalformedValues> {
    (0..length).map(|_| decode_value(bytes, at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::testing::{SeededRandom, key_of};

    fn image(rows: i64, bytes: usize) -> PreImage {
        let row = |n| ImageRow {
            key: RowKey(vec![Value::Integer(n)]),
            values: vec![Value::Integer(n), Value::Null, Value::Blob(vec![7; bytes])],
        };
        PreImage { columns: ["id", "note", "body"].map(str::to_owned).to_vec(), rows: (0..rows).map(row).collect() }
    }

    #[test]
    fn images_round_trip_in_one_part_or_many() {
        for (rows, bytes, parts) in [(0, 0, 0), (3, 10, 1), (5, 2 << 20, 3)] {
            let image = image(rows, bytes);
            let sealed = seal_image(&key_of(1), ("r", 4), &image, &SeededRandom::new(1)).unwrap();
            assert_eq!(sealed.len(), parts);
            assert!(open_image(&key_of(1), ("r", 4), &sealed).unwrap().rows == image.rows);
        }
    }

    #[test]
    fn a_part_opens_only_in_its_place() {
        let sealed = seal_image(&key_of(1), ("r", 4), &image(5, 2 << 20), &SeededRandom::new(1)).unwrap();
        assert!(open_image(&key_of(2), ("r", 4), &sealed).is_err());
        assert!(open_image(&key_of(1), ("r", 5), &sealed).is_err());
        assert!(open_image(&key_of(1), ("s", 4), &sealed).is_err());
        assert!(open_image(&key_of(1), ("r", 4), &sealed[1..]).is_err(), "parts cannot be shifted");
    }

    #[test]
    fn decoding_never_panics_when_cut() {
        let mut plain = encode_head(&image(1, 1).columns);
        encode_row(&image(1, 3).rows[0], &mut plain);
        for end in 0..plain.len() {
            let mut read = PreImage::default();
            assert!(decode_part(&plain[..end], &mut read).map_or(true, |()| read.rows.is_empty()));
        }
    }
}
