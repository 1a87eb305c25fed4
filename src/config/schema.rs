//! The published JSON Schema of the configuration file, for editors and for checks elsewhere.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, schema_for};

use super::RawConfiguration;
use crate::certify::statement::{RollUpStatement, Statement};
use crate::log::record::OperationRecord;
use crate::policy::statute::CatalogueFile;

/// The schema as pretty-printed JSON with a final newline.
#[must_use]
pub fn configuration_schema() -> String {
    schema_text(&schema_for!(RawConfiguration))
}

/// The schema of a catalogue of statutes, in the same way.
#[must_use]
pub fn catalogue_schema() -> String {
    schema_text(&schema_for!(CatalogueFile))
}

/// The schema of what a certificate says: the in-toto statement that stands in its envelope, as the program writes it.
#[must_use]
pub fn certificate_schema() -> String {
    schema_text(&written::<Statement>())
}

/// The schema of a roll-up, in the same way.
#[must_use]
pub fn roll_up_schema() -> String {
    schema_text(&written::<RollUpStatement>())
}

/// The schema of an entry of the operation log, in the same way.
#[must_use]
pub fn operation_schema() -> String {
    schema_text(&written::<OperationRecord<'_>>())
}

/// Of what is written: a member that is always there is required.
fn written<T: JsonSchema>() -> schemars::Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

/// A schema as it is published.
pub(crate) fn schema_text(schema: &schemars::Schema) -> String {
    format!("{:#}\n", schema.as_value())
}

/// Compares a schema with the published file, or renews the file when `WANGCHUAN_UPDATE_SCHEMAS` is set.
#[cfg(test)]
pub(crate) fn check_published(name: &str, schema: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schema").join(name);
    if std::env::var_os("WANGCHUAN_UPDATE_SCHEMAS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, schema).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(published == schema, "config/schema/{name} is out of date; renew it with WANGCHUAN_UPDATE_SCHEMAS=1");
}

#[cfg(test)]
mod tests {
    #[test]
    fn schema_is_published() {
        super::check_published("wangchuan.schema.json", &super::configuration_schema());
        super::check_published("statutes.schema.json", &super::catalogue_schema());
        super::check_published("certificate.schema.json", &super::certificate_schema());
        super::check_published("roll-up.schema.json", &super::roll_up_schema());
        super::check_published("operation.schema.json", &super::operation_schema());
    }
}
