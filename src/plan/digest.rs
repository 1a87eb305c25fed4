//! The hash of a plan and the keyed digests of its rows.

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::{PlanBody, PlannedRow};
use crate::keys::Key;
use crate::keys::suite::{Suite, mac};
use crate::stores::Catalogue;
use crate::value::{Row, RowKey, Value, encode_value, encode_values};

/// The keyed digest of a row's identity: the same under all of ledger, sealing history and plans. 128 bits.
#[must_use]
pub fn row_mac(suppression: &Key, store: &str, collection: &str, key: &RowKey) -> [u8; 16] {
    let full =
        mac(Suite::Intl, suppression, &[b"row", store.as_bytes(), collection.as_bytes(), &encode_values(&key.0)]);
    let mut short = [0; 16];
    short.copy_from_slice(&full[..16]);
    short
}

/// The keyed digest of a row's content, for the change index. 128 bits.
#[must_use]
pub fn content_mac(index_key: &Key, row: &[u8; 16], content: &[Value]) -> [u8; 16] {
    let full = mac(Suite::Intl, index_key, &[b"content", row, &encode_values(content)]);
    let mut short = [0; 16];
    short.copy_from_slice(&full[..16]);
    short
}

/// The keyed digest of a whole row, just before it was erased or changed, or as that left it: for ledger, certificate and log.
#[must_use]
pub fn erased_content_mac(certificate: &Key, content: &[Value]) -> [u8; 32] {
    mac(Suite::Intl, certificate, &[b"content", &encode_values(content)])
}

/// The keyed digest of what the changed columns of an anonymised row hold since, for the ledger.
#[must_use]
pub fn left_mac(certificate: &Key, columns: &[String], values: &[Value]) -> [u8; 32] {
    let names: Row = columns.iter().map(|name| Value::Text(name.clone())).collect();
    mac(Suite::Intl, certificate, &[b"left", &encode_values(&names), &encode_values(values)])
}

/// SHA-256 over the keyed digests of a plan's rows, in the order of its lists: row, subject, start event, period, verdict
/// and reason. Made from the lists themselves, so that it can be made again from the stored ones before anything is done.
pub struct RowsDigest<'k> {
    suppression: &'k Key,
    context: Context,
}

impl<'k> RowsDigest<'k> {
    /// The digest of no rows.
    #[must_use]
    pub fn new(suppression: &'k Key) -> Self {
        Self { suppression, context: Context::new(&SHA256) }
    }

    /// Adds a row of a list with its verdict (`erase`, `anonymise`, `strip`, `keep`, `settled`) and the reason's code.
    pub fn add(&mut self, store: &str, collection: &str, verdict: &str, reason: Option<&str>, row: &PlannedRow) {
        let mut content: Row = vec![Value::Integer(row.key.0.len() as i64)];
        content.extend(row.key.0.iter().cloned());
        content.push(row.subject.as_ref().map_or(Value::Null, |id| Value::Text(id.dangerous_text().to_owned())));
        content.push(Value::Integer(i64::from(row.start.is_some())));
        content.push(row.start.clone().unwrap_or(Value::Null));
        content.push(Value::Text(row.period.clone()));
        content.push(reason.map_or(Value::Null, |reason| Value::Text(reason.to_owned())));
        let parts: [&[u8]; 5] =
            [b"planned", store.as_bytes(), collection.as_bytes(), verdict.as_bytes(), &encode_values(&content)];
        self.context.update(&mac(Suite::Intl, self.suppression, &parts));
    }

    /// The digest, hex.
    #[must_use]
    pub fn finish(self) -> String {
        hex::encode(self.context.finish())
    }
}

/// The plan's hash: SHA-256 of its public body, which holds the salt and the digest of the rows. Hex.
///
/// # Errors
/// When the body cannot be written as JSON.
pub fn plan_hash(body: &PlanBody) -> Result<String, serde_json::Error> {
    Ok(hex::encode(digest(&SHA256, &serde_json::to_vec(body)?)))
}

/// A fingerprint of the schema of a store: every column, key, foreign key and trigger counts. Hex.
#[must_use]
pub fn schema_digest(catalogue: &Catalogue) -> String {
    let mut context = Context::new(&SHA256);
    let mut put = |text: &str| {
        let mut bytes = Vec::new();
        encode_value(&Value::Text(text.to_owned()), &mut bytes);
        context.update(&bytes);
    };
    for table in &catalogue.tables {
        put(&table.name);
        for column in &table.columns {
            put(&column.name);
            put(&column.type_name);
            put(if column.nullable { "null" } else { "not null" });
        }
        put(&table.key.join("\u{1f}"));
        for key in &table.foreign_keys {
            put(&format!("{:?}", (&key.columns, &key.parent, &key.parent_columns, key.on_delete)));
            let is_late = catalogue.deferrable.contains(&(table.name.clone(), key.columns.clone()));
            put(if is_late { "late" } else { "at once" });
        }
        for trigger in &table.triggers {
            put(&format!("{trigger:?}"));
        }
    }
    hex::encode(context.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Subject;

    #[test]
    fn every_part_of_a_row_and_its_verdict_counts() {
        let key = Key::dangerous_from_bytes(&[7; 32]);
        let row = PlannedRow {
            key: RowKey(vec![Value::Integer(1)]),
            subject: Some(Subject::new("C1")),
            start: Some(Value::Text("2001-01-01".to_owned())),
            period: "2001Q1".to_owned(),
        };
        let of = |store: &str, collection: &str, verdict: &str, reason: Option<&str>, row: &PlannedRow| {
            let mut digest = RowsDigest::new(&key);
            digest.add(store, collection, verdict, reason, row);
            digest.finish()
        };
        let first = of("shop", "orders", "erase", None, &row);
        assert_eq!(first, of("shop", "orders", "erase", None, &row));
        let others = [
            of("shop2", "orders", "erase", None, &row),
            of("shop", "lines", "erase", None, &row),
            of("shop", "orders", "keep", None, &row),
            of("shop", "orders", "erase", Some("x"), &row),
            of("shop", "orders", "erase", None, &PlannedRow { key: RowKey(vec![Value::Integer(2)]), ..row.clone() }),
            of("shop", "orders", "erase", None, &PlannedRow { subject: None, ..row.clone() }),
            of("shop", "orders", "erase", None, &PlannedRow { start: None, ..row.clone() }),
            of("shop", "orders", "erase", None, &PlannedRow { period: "open".to_owned(), ..row.clone() }),
            RowsDigest::new(&key).finish(),
        ];
        for other in others {
            assert_ne!(first, other);
        }
    }
}
