//! The hash of a plan and the keyed digests of its rows.

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::{Decision, PlanBody, Verdict};
use crate::keys::Key;
use crate::keys::suite::{Suite, mac};
use crate::stores::Catalogue;
use crate::value::{Row, RowKey, encode_value, encode_values};

/// The keyed digest of a row's identity: the same under all of ledger, sealing history and plans. 128 bits.
#[must_use]
pub fn row_mac(suppression: &Key, store: &str, collection: &str, key: &RowKey) -> [u8; 16] {
    let full =
        mac(Suite::Intl, suppression, &[b"row", store.as_bytes(), collection.as_bytes(), &encode_values(&key.0)]);
    let mut short = [0; 16];
    short.copy_from_slice(&full[..16]);
    short
}

/// SHA-256 over the keyed digests of decided rows: row, start event and verdict.
#[must_use]
pub fn rows_digest(suppression: &Key, store: &str, names: &[String], decisions: &[Decision]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for decision in decisions {
        let mut content: Row = decision.row.key.0.clone();
        content.extend(decision.row.start.clone());
        let verdict = match &decision.verdict {
            Verdict::Erase => "erase".to_owned(),
            Verdict::Strip(reason) => format!("strip {}", reason.code()),
            Verdict::Keep(reason) => format!("keep {}", reason.code()),
        };
        let name = names.get(decision.collection).map_or("", String::as_str);
        context.update(&mac(
            Suite::Intl,
            suppression,
            &[b"planned", store.as_bytes(), name.as_bytes(), &encode_values(&content), verdict.as_bytes()],
        ));
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
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
        encode_value(&crate::value::Value::Text(text.to_owned()), &mut bytes);
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
        }
        for trigger in &table.triggers {
            put(&format!("{trigger:?}"));
        }
    }
    hex::encode(context.finish())
}
