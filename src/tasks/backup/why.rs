//! Whether a snapshot can continue the newest chain of its store, and why not.

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::Serialize;

use super::seal::suites;
use crate::backup::codec::Sha256;
use crate::backup::directory::{CapturedCollection, CapturedSchema};
use crate::backup::object_store::{ObjectStore, RepositoryError};
use crate::config::ChainBounds;
use crate::control::{ChangeBase, Control, SnapshotRow};
use crate::erase::{Ground, Site};
use crate::plan::model::{Collection, Reach};
use crate::stores::Definitions;
use crate::tasks::media::condemned;
use crate::tasks::{Result, TaskError};

/// Why a full snapshot is taken where an increment was asked for: a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhyFull {
    /// The store has no snapshot yet.
    First,
    /// The registered tables are not what they were: columns, keys, indexes, triggers.
    SchemaChanged,
    /// Collections, policies, bucket widths, ciphers, owner or start-event paths, or the time zone are not what they were.
    LayoutChanged,
    /// The change index is missing or does not belong to the newest snapshot, as behind a recovery.
    IndexLost,
    /// The chain's key is to be destroyed, or is gone.
    ChainEnding,
    /// A snapshot of the chain is not in the bucket any more.
    ChainMissing,
    /// A frame of the chain was found lost or damaged.
    ChainDamaged,
    /// The chain has as many snapshots as the configuration allows.
    ChainLong,
    /// The chain is as old as the configuration allows.
    ChainOld,
}

impl WhyFull {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::First,
        Self::SchemaChanged,
        Self::LayoutChanged,
        Self::IndexLost,
        Self::ChainEnding,
        Self::ChainMissing,
        Self::ChainDamaged,
        Self::ChainLong,
        Self::ChainOld,
    ];

    /// The code in the control database and in output.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::SchemaChanged => "schema-changed",
            Self::LayoutChanged => "layout-changed",
            Self::IndexLost => "index-lost",
            Self::ChainEnding => "chain-ending",
            Self::ChainMissing => "chain-missing",
            Self::ChainDamaged => "chain-damaged",
            Self::ChainLong => "chain-long",
            Self::ChainOld => "chain-old",
        }
    }

    /// Reads a code.
    #[must_use]
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.code() == code)
    }
}

/// The name of the `meta` entry that says that a chain is damaged.
fn damage_entry(chain: u32) -> String {
    format!("chain_damaged.{chain}")
}

/// Notes that frames of a chain are lost or damaged: the next snapshot of the store is a full one.
///
/// # Errors
/// When the control database fails.
pub async fn note_damage(control: &Control, chain: u32) -> Result<()> {
    let mut tx = control.begin().await?;
    tx.set_meta(&damage_entry(chain), "1").await?;
    Ok(tx.commit().await?)
}

/// Whether an error says that something of a chain is missing or damaged in the bucket, and not that it cannot be asked for now.
#[must_use]
pub fn is_damage(error: &TaskError) -> bool {
    matches!(
        error,
        TaskError::Manifest(_)
            | TaskError::Directory(_)
            | TaskError::Pack(_)
            | TaskError::Frame(_)
            | TaskError::Malformed(_)
            | TaskError::Inconsistent(_)
            | TaskError::Repository(RepositoryError::NotFound { .. })
    )
}

/// What a snapshot of this store is taken with today; `snapshot` is not known yet.
///
/// # Errors
/// When the schema cannot be written as JSON.
pub(super) fn base_of(site: &Site) -> Result<ChangeBase> {
    let captured = |(number, collection): (usize, &Collection)| CapturedCollection {
        number: number as u32,
        table: collection.table.name.clone(),
        rows: 0,
    };
    let schema = CapturedSchema {
        engine: site.store.engine(),
        server_version: String::new(),
        tables: site.model.collections.iter().map(super::captured_table).collect(),
        collections: site.model.collections.iter().enumerate().map(captured).collect(),
        // A definition that changed needs no full snapshot: a restore takes those of the newest.
        definitions: Definitions::default(),
    };
    let schema = schema.to_json().map_err(|error| TaskError::Inconsistent(error.to_string()))?;
    let mut layout = format!("{}\n", site.model.spec.timezone);
    for collection in &site.model.collections {
        layout.push_str(&layout_of(collection));
    }
    let (schema, layout) = (Sha256::of(&schema).to_string(), Sha256::of(layout.as_bytes()).to_string());
    Ok(ChangeBase { snapshot: 0, schema, layout })
}

/// Everything besides the tables that decides in which cell and under which cipher a row is sealed. Names only.
fn layout_of(collection: &Collection) -> String {
    let path = |reach: &Reach| format!("{:?} {:?}", reach.path, reach.column);
    let governed = collection.governed.as_ref().map(|governed| {
        let (policy, start) = (&governed.policy, &governed.start);
        format!("{} {:?} {} {:?}", policy.id, policy.bucket, path(start), start.kind)
    });
    let when = |owner: &Reach| match &owner.when[..] {
        [] => String::new(),
        when => format!(" {when:?}"),
    };
    let owner = collection.owner.as_ref().map(|owner| path(owner) + &when(owner));
    format!("{} {:?} {:?} {owner:?} {governed:?}\n", collection.table.name, collection.key, suites(collection))
}

/// The snapshot that an increment can continue, or why a full one must be taken.
///
/// # Errors
/// When the control database or the bucket fails.
pub(super) async fn continued(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    store: &str,
    today: &ChangeBase,
    bounds: ChainBounds,
) -> Result<Result<SnapshotRow, WhyFull>> {
    let mut tx = ground.control.read().await?;
    let Some(last) = tx.snapshots(Some(store)).await?.pop() else { return Ok(Err(WhyFull::First)) };
    let chain = tx.chain_of(&last).await?;
    let state = tx.chain_state(last.chain).await?;
    let base = tx.change_base(store).await?;
    let is_damaged = tx.meta(&damage_entry(last.chain)).await?.is_some();
    let is_condemned = condemned(&mut tx).await?.contains(&last.chain);
    drop(tx);
    if let Some(why) = obstacle(ground, &chain, base.as_ref(), today, bounds) {
        return Ok(Err(why));
    }
    if is_condemned || state.as_deref() != Some("active") {
        return Ok(Err(WhyFull::ChainEnding));
    }
    if is_damaged {
        return Ok(Err(WhyFull::ChainDamaged));
    }
    for row in &chain {
        let stored = match &row.manifest {
            Some(name) => repository.head(name).await?.is_some(),
            None => false,
        };
        if !stored {
            return Ok(Err(WhyFull::ChainMissing));
        }
    }
    Ok(Ok(last))
}

/// What can be said without asking anybody.
fn obstacle(
    ground: &Ground<'_>,
    chain: &[SnapshotRow],
    base: Option<&ChangeBase>,
    today: &ChangeBase,
    bounds: ChainBounds,
) -> Option<WhyFull> {
    let (Some(first), Some(last)) = (chain.first(), chain.last()) else { return Some(WhyFull::First) };
    let Some(base) = base.filter(|base| base.snapshot == last.number && first.kind == "full") else {
        return Some(WhyFull::IndexLost);
    };
    if base.schema != today.schema {
        return Some(WhyFull::SchemaChanged);
    }
    if base.layout != today.layout {
        return Some(WhyFull::LayoutChanged);
    }
    if chain.len() >= bounds.snapshots.get() as usize {
        return Some(WhyFull::ChainLong);
    }
    let age = ground.clock.now() - first.begun_at;
    (age >= TimeDelta::days(i64::from(bounds.days.get()))).then_some(WhyFull::ChainOld)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_documents() {
        for why in WhyFull::ALL {
            assert_eq!(serde_json::to_value(why).unwrap(), why.code());
            assert_eq!(WhyFull::of_code(why.code()), Some(why));
        }
        assert_eq!(WhyFull::of_code("none"), None);
    }
}
