//! The record as it is written: the names and numbers of OCSF 1.8. Its schema is published.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Change, Outcome, Record, Resource};

/// The OCSF version the names are taken from.
const OCSF_VERSION: &str = "1.8.0";
/// Vendor and product.
const PRODUCT: &str = "wangchuan";

/// An entry of the operation log: who, when, from where, what kind, on which object and customer, before and after.
#[derive(Serialize, JsonSchema)]
pub struct OperationRecord<'r> {
    /// OCSF category: 3 identity and access, 6 application activity.
    category_uid: u32,
    /// OCSF class: 6005 Datastore Activity, 3004 Entity Management, 6003 API Activity, 3002 Authentication.
    class_uid: u32,
    /// Of the class.
    activity_id: u32,
    /// `Read`, `Create`, `Update`, `Write`, `Delete`, `Export`, `Logon`, `Other`, `Unknown`.
    activity_name: &'static str,
    /// Class times 100, plus the activity.
    type_uid: u32,
    /// 1 informational, 3 for what was refused or went wrong.
    severity_id: u32,
    /// 1 done, 2 refused or failed, 99 about to be done.
    status_id: u32,
    /// `intent` where it is about to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    /// A code of the outcome, or the reason given.
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<&'r str>,
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    time: i64,
    /// What wrote it.
    metadata: Metadata<'r>,
    /// Who.
    actor: ActorPart<'r>,
    /// On which host.
    device: Device<'r>,
    /// From where: an address, or the host where it was typed or scheduled. Never blank.
    src_endpoint: Endpoint<'r>,
    /// What exactly.
    api: Api<'r>,
    /// On what.
    resources: &'r [Resource],
    /// What OCSF has no name for.
    unmapped: Unmapped<'r>,
}

#[derive(Serialize, JsonSchema)]
struct Metadata<'r> {
    /// The version of OCSF.
    version: &'static str,
    /// The record's id.
    uid: &'r str,
    product: Product,
}

#[derive(Serialize, JsonSchema)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
    version: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct ActorPart<'r> {
    user: User<'r>,
}

#[derive(Serialize, JsonSchema)]
struct User<'r> {
    /// The login that ran the command or the agent; `unknown` for somebody over the network who showed nothing that is believed.
    uid: &'r str,
}

#[derive(Serialize, JsonSchema)]
struct Device<'r> {
    /// 0: unknown.
    type_id: u32,
    hostname: &'r str,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Endpoint<'r> {
    /// An address.
    Ip(&'r str),
    /// A host.
    Hostname(&'r str),
}

#[derive(Serialize, JsonSchema)]
struct Api<'r> {
    /// The command or step.
    operation: &'r str,
}

#[derive(Serialize, JsonSchema)]
struct Unmapped<'r> {
    /// The customer, by the log's pseudonym; null when it was about nobody or about many.
    customer: Option<&'r str>,
    /// How the data was reached: `direct`.
    access: &'static str,
    /// `R`, `W`, `M` or `D`: read, written, modified, deleted.
    operation: Letter,
    /// What changed; empty when no row was touched.
    changes: &'r [Change],
    /// Further identifiers and counts.
    references: BTreeMap<&'r str, &'r str>,
}

/// Read, write, modify or delete, as procedures for records want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Letter {
    /// Read, exported, or tried.
    R,
    /// Written.
    W,
    /// Modified, or not known.
    M,
    /// Deleted.
    D,
}

impl<'r> OperationRecord<'r> {
    /// As a record is written.
    #[must_use]
    pub fn of(record: &'r Record) -> Self {
        let (category_uid, class_uid, activity_id) = record.activity.ocsf();
        let (status_id, severity_id) = match record.outcome {
            Outcome::Success => (1, 1),
            Outcome::Failure => (2, 3),
            Outcome::Intent => (99, 1),
        };
        let host = record.host.as_str();
        Self {
            category_uid,
            class_uid,
            activity_id,
            activity_name: record.activity.name(),
            type_uid: class_uid * 100 + activity_id,
            severity_id,
            status_id,
            status: (record.outcome == Outcome::Intent).then_some("intent"),
            status_detail: record.detail.as_deref(),
            time: record.time.timestamp_millis(),
            metadata: Metadata {
                version: OCSF_VERSION,
                uid: &record.id,
                product: Product { name: PRODUCT, vendor_name: PRODUCT, version: env!("CARGO_PKG_VERSION") },
            },
            actor: ActorPart { user: User { uid: &record.actor.uid } },
            device: Device { type_id: 0, hostname: host },
            src_endpoint: record.ip.as_deref().map_or(Endpoint::Hostname(host), Endpoint::Ip),
            api: Api { operation: &record.operation },
            resources: &record.resources,
            unmapped: Unmapped {
                customer: record.customer.as_deref(),
                access: "direct",
                operation: record.activity.letter(),
                changes: &record.changes,
                references: record.references.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            },
        }
    }
}
