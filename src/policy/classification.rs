//! Classification of fields.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// placeholder
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// A person's name.
    Name,
}

/// Category of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// Business records: orders, preferences, complaints.
    Business,
    /// Basic information: name, contact.
    Basic,
    /// Sensitive information: bank, credit, health, biometrics.
    Sensitive,
}

/// Confidentiality level of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// General.
    General,
    /// Internal.
    Internal,
    /// Confidential.
    Confidential,
}
