//! The published JSON Schema of the configuration file, for editors and for checks elsewhere.

use schemars::schema_for;

use super::RawConfiguration;

/// The schema as pretty-printed JSON with a final newline.
#[must_use]
pub fn configuration_schema() -> String {
    schema_text(&schema_for!(RawConfiguration))
}

/// A schema as it is published.
pub(crate) fn schema_text(schema: &schemars::Schema) -> String {
    format!("{:#}\n", schema.as_value())
}
