//! What a certificate says of rows that were made anonymous.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AnonymizationTechnique;

object! {
    /// A field that was made anonymous.
    AnonymizedField {
        /// The field.
        field: String,
        /// How.
        how: AnonymizationTechnique,
    }
}

object! {
    /// What anonymisation did.
    Anonymization {
        /// What was changed.
        changed: Vec<AnonymizedField>,
        /// The smallest group of rows with the same values that is left; 0 when no fields were declared that could tell people apart.
        k_min: u64,
        /// Whether what the rows hold now can be turned back into what they held.
        reversible: bool,
    }
}
