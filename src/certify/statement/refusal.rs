//! What a certificate says about a customer's request of which nothing was carried out.

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RefusalReason, Timestamp};

object! {
    /// A customer asked, and nothing was erased. What stays, and by which law, stands in `retained`.
    Refusal {
        /// Version of these members: 1.
        version: u64,
        /// Why, each code once, in the order of the list of codes.
        reasons: Vec<RefusalReason>,
        /// When that was found or decided.
        decided_at: Timestamp,
        /// Pseudonym of who decided; absent where holds, statutes and other rules did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decided_by: Option<String>,
        /// Whether the request stays open, and is carried out by itself once what it waits for has come.
        waits: bool,
        /// The first day on which a statute that keeps rows of it ends; what keeps the others may end later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        looked_at_again: Option<NaiveDate>,
    }
}
