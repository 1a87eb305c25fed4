//! `key verify`: tries again whether what was destroyed stays destroyed, with everything that is still there.
//!
//! Roots of earlier generations are read back as gone; crowns that were put aside are tried with every root in the slot; slots
//! that are recorded as destroyed must be empty in the tree, and those in use must not be; shredded frames of every snapshot
//! are tried with every key that can be reached. Wrapped roots in the bucket and in the slot are tried at the slot as it is.
//! Services are asked again for outside keys that policies ended.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use crate::control::SlotTable;
use crate::installation::Installation;
use crate::keyring::KeyringError;
use crate::keyring::second_place::{fetch_root, root_names};
use crate::keys::slot::{Presence, RootSlot, SlotError, TokenError};
use crate::keys::tree::{KeyTree, NodeSet, Slot, Subtree, Survey};
use crate::keys::wrapped_root::WrappingSlot;
use crate::keys::{Generation, Key};

use super::doomed;
use super::drill::{reachable_secrets, try_shredded};
use super::read_snapshot::open;
use super::{Result, TaskError};

/// Living slots of each subtree that are looked at.
const LIVING_SLOTS: u32 = 256;

/// What was tried, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct KeyCheck {
    /// The generation in force.
    pub generation: Generation,
    /// Earlier generations whose roots were read back as gone.
    pub roots_gone: Vec<Generation>,
    /// When roots whose destruction is delayed are irrevocably gone (RFC 3339).
    pub irrevocable_at: Option<String>,
    /// Crowns of earlier generations that were tried with every root in the slot.
    pub crowns_tried: u64,
    /// Of them opened; any is a fault.
    pub crowns_opened: u64,
    /// Wrapped roots in the bucket and in the slot's own folder, each tried at the slot as it is; empty where the root itself
    /// lies in the slot. One of an earlier generation that opened is a fault.
    pub wrapped_roots: Vec<WrappedRootCheck>,
    /// Nodes of the present tree that opened.
    pub nodes_opened: u64,
    /// Nodes that lie in the control database and belong to no present key.
    pub nodes_left_over: u64,
    /// Nodes that are missing or do not open.
    pub nodes_damaged: u64,
    /// Slots recorded as destroyed that are empty.
    pub slots_empty: u64,
    /// Slots in use that hold a key.
    pub slots_living: u64,
    /// Outside keys that policies ended and that their services still do not have.
    pub outside_keys_gone: u64,
    /// Destroyed outside keys whose entries name other keys by now; they were not looked at.
    pub outside_keys_replaced: u64,
    /// Snapshots whose frames were looked at.
    #[serde(rename = "snapshots_read")]
    pub snapshots: u64,
    /// Shredded frames tried.
    pub frames_tried: u64,
    /// Keys tried on each of them.
    pub keys_tried: u64,
    /// Frames that opened; any is a fault.
    pub frames_opened: u64,
    /// What is wrong; empty when all is as it should be.
    pub problems: Vec<String>,
}

/// A wrapped root that was tried at the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WrappedRootCheck {
    /// Its generation.
    pub generation: Generation,
    /// Where its wrapped form lies.
    pub lies: WrappedRootPlace,
    /// Whether the slot opened it; otherwise what it was wrapped under is gone or cannot be used any more.
    pub opened: bool,
}

/// Where a wrapped root lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WrappedRootPlace {
    /// In the second place, `state-roots/`.
    Bucket,
    /// In the slot's folder on this host.
    Slot,
}

/// Tries everything.
///
/// # Errors
/// When slot, control database or bucket cannot be read; what is found is not an error.
pub async fn check_keys(installation: &Installation) -> Result<KeyCheck> {
    let mut check = KeyCheck::default();
    let mut tx = installation.control.read().await?;
    let (generation, _) = tx.tree_root().await?.ok_or(KeyringError::NoTree)?;
    let crowns = tx.old_crowns().await?;
    drop(tx);
    check.generation = generation;
    notice_called_off(installation, &mut check).await?;
    let slot = installation.keyring.slot();
    let roots = check_roots(slot, &crowns, &mut check).await.map_err(KeyringError::from)?;
    check_crowns(installation.id(), &crowns, &roots, &mut check);
    drop(roots);
    check_copies(installation, slot.as_ref(), &mut check).await?;
    check_tree(installation, &mut check).await?;
    let outside = super::outside::check_gone(installation).await?;
    (check.outside_keys_gone, check.outside_keys_replaced) = (outside.gone, outside.replaced);
    check.problems.extend(outside.problems);
    check_frames(installation, &mut check).await?;
    Ok(check)
}

/// Looks at the roots that are destroyed only at a date; one that was called off is begun again, where this process may, and is
/// a fault all the same.
async fn notice_called_off(installation: &Installation, check: &mut KeyCheck) -> Result<()> {
    if installation.token == 0 || installation.may_destroy().await.is_err() {
        return Ok(());
    }
    for (generation, at) in doomed::settle(installation).await?.called_off {
        check.problems.push(format!(
            "somebody called off the destruction of the root of generation {generation}; it was begun again and is irrevocable at {}",
            crate::control::time_text(at)
        ));
    }
    Ok(())
}

/// Reads back that earlier roots are gone; returns the roots that are there.
async fn check_roots(
    slot: &Arc<dyn RootSlot>,
    crowns: &[(Generation, Vec<u8>)],
    check: &mut KeyCheck,
) -> std::result::Result<Vec<(Generation, Key)>, SlotError> {
    let (mut roots, mut doomed): (Vec<(Generation, Key)>, Vec<DateTime<Utc>>) = (Vec::new(), Vec::new());
    for present in slot.list().await? {
        match present.presence {
            Presence::Usable => {
                if present.generation != check.generation {
                    check.problems.push(format!("the slot still holds the root of generation {}", present.generation));
                }
                match slot.open(present.generation).await {
                    Ok(root) => roots.push((present.generation, root)),
                    Err(error) if error.is_retryable() => return Err(error),
                    Err(error) => check.problems.push(error.to_string()),
                }
            }
            Presence::Doomed(at) => doomed.push(at),
        }
    }
    if !roots.iter().any(|(found, _)| *found == check.generation) {
        check.problems.push(format!("the slot lacks the root of generation {}, which is in force", check.generation));
    }
    check.irrevocable_at = doomed.into_iter().max().map(crate::control::time_text);
    let mut earlier: Vec<Generation> = crowns.iter().map(|(generation, _)| *generation).collect();
    earlier.extend((check.generation > 1).then_some(check.generation - 1));
    earlier.retain(|earlier| *earlier < check.generation);
    earlier.sort_unstable();
    earlier.dedup();
    for generation in earlier {
        match slot.verify_gone(generation).await {
            Ok(_) => check.roots_gone.push(generation),
            // Not gone for good yet, and the slot says when: no fault of what was promised.
            Err(SlotError::NotYet { .. }) => {}
            Err(error @ SlotError::StillThere { .. }) => check.problems.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok(roots)
}

/// Tries every kept crown with every root, as its own generation and as the one in force.
fn check_crowns(
    installation: [u8; 16],
    crowns: &[(Generation, Vec<u8>)],
    roots: &[(Generation, Key)],
    check: &mut KeyCheck,
) {
    for (generation, crown) in crowns.iter().filter(|(generation, _)| *generation < check.generation) {
        check.crowns_tried += 1;
        let opens = |(of, root): &(Generation, Key)| {
            [*generation, *of]
                .iter()
                .any(|as_of| KeyTree::open(installation, *as_of, root, crown, NodeSet::new()).is_ok())
        };
        if roots.iter().any(opens) {
            check.crowns_opened += 1;
            check.problems.push(format!("the crown of generation {generation} still opens"));
        }
    }
}

/// Tries every wrapped root that lies in the bucket or in the slot's folder.
async fn check_copies(installation: &Installation, slot: &dyn RootSlot, check: &mut KeyCheck) -> Result<()> {
    let Some(wrapping) = slot.wrapping() else { return Ok(()) };
    let store = installation.backup()?.repository.clone();
    for name in root_names(store.as_ref()).await.map_err(KeyringError::from)? {
        let place = WrappedRootPlace::Bucket;
        match fetch_root(store.as_ref(), &name).await {
            Ok(copy) => try_copy(wrapping, (copy.generation, place), &copy.bytes, check).await?,
            Err(error) if error.is_retryable() => return Err(KeyringError::from(error).into()),
            Err(error) => check.problems.push(format!("{} cannot be tried: {error}", name.text())),
        }
    }
    for generation in 1..=check.generation {
        match wrapping.wrapped(generation).await {
            Ok(Some(own)) => try_copy(wrapping, (generation, WrappedRootPlace::Slot), own.bytes(), check).await?,
            Ok(None) => {}
            Err(error) if error.is_retryable() => return Err(KeyringError::from(error).into()),
            Err(error) => check.problems.push(error.to_string()),
        }
    }
    Ok(())
}

async fn try_copy(
    wrapping: &dyn WrappingSlot,
    (generation, lies): (Generation, WrappedRootPlace),
    bytes: &[u8],
    check: &mut KeyCheck,
) -> Result<()> {
    let opened = match wrapping.open_copy(generation, bytes).await {
        Ok(_) => true,
        // The last is what a slot says of a copy from an attempt at the generation that was given up.
        Err(
            SlotError::VersionGone { .. }
            | SlotError::KeyUnusable { .. }
            | SlotError::Token(TokenError::KeyGone { .. })
            | SlotError::Damaged { .. },
        ) => false,
        Err(error) if error.is_retryable() => return Err(KeyringError::from(error).into()),
        Err(error) => {
            check.problems.push(format!("a wrapped root of generation {generation} cannot be tried: {error}"));
            return Ok(());
        }
    };
    check.wrapped_roots.push(WrappedRootCheck { generation, lies, opened });
    if opened && generation < check.generation {
        let place = match lies {
            WrappedRootPlace::Bucket => "in the bucket",
            WrappedRootPlace::Slot => "in the slot's folder",
        };
        check.problems.push(format!("the wrapped root of generation {generation} {place} still opens"));
    }
    Ok(())
}

async fn check_tree(installation: &Installation, check: &mut KeyCheck) -> Result<()> {
    let tables = [
        (SlotTable::Subject, Subtree::Subjects),
        (SlotTable::Bucket, Subtree::Buckets),
        (SlotTable::Chain, Subtree::Chains),
        (SlotTable::Pin, Subtree::Pins),
        (SlotTable::Work, Subtree::Work),
    ];
    let mut tx = installation.control.begin().await?;
    let (mut destroyed, mut living) = (Vec::new(), Vec::new());
    for (table, subtree) in tables {
        for number in tx.destroyed_slots(table).await? {
            destroyed.push(Slot::new(subtree, number).map_err(KeyringError::from)?);
        }
        // A pin without a key yet, and what was lost at another time, are told apart by `key list` and drills.
        if table != SlotTable::Pin {
            for number in tx.sample_slots(table, LIVING_SLOTS, check.generation).await? {
                living.push(Slot::new(subtree, number).map_err(KeyringError::from)?);
            }
        }
    }
    let look = |tree: &KeyTree| {
        let is_empty = |slot: &&Slot| matches!(tree.key(**slot), Ok(None));
        let empty = destroyed.iter().filter(is_empty).count();
        let held = living.iter().filter(|slot| matches!(tree.key(**slot), Ok(Some(_)))).count();
        (tree.survey(), empty, held)
    };
    let (survey, empty, held) = installation.keyring.with_whole_tree(&mut tx, look).await?;
    drop(tx);
    let Survey { opened, missing, corrupt, orphans, .. } = survey;
    (check.nodes_opened, check.nodes_left_over) = (opened.len() as u64, orphans.len() as u64);
    check.nodes_damaged = (missing.len() + corrupt.len()) as u64;
    (check.slots_empty, check.slots_living) = (empty as u64, held as u64);
    if empty < destroyed.len() {
        check.problems.push(format!("{} slots recorded as destroyed still hold a key", destroyed.len() - empty));
    }
    if held < living.len() {
        check.problems.push(format!("{} slots in use hold no key: they are lost", living.len() - held));
    }
    if check.nodes_damaged > 0 {
        check.problems.push(format!("{} key nodes are missing or do not open", check.nodes_damaged));
    }
    if check.nodes_left_over > 0 && check.nodes_damaged == 0 {
        check.problems.push(format!("{} key nodes belong to no present key", check.nodes_left_over));
    }
    Ok(())
}

async fn check_frames(installation: &Installation, check: &mut KeyCheck) -> Result<()> {
    let ground = installation.ground()?;
    let repository = installation.backup()?.repository.clone();
    let secrets = reachable_secrets(&ground).await?;
    let rows = installation.control.read().await?.snapshots(None).await?;
    for row in rows {
        let state = installation.control.read().await?.chain_state(row.chain).await?;
        if state.as_deref() == Some("destroyed") {
            continue;
        }
        let id = row.id.clone();
        let opened = match open(&ground, repository.as_ref(), &installation.signer, row).await {
            Ok(opened) => opened,
            Err(error @ (TaskError::Control(_) | TaskError::Keyring(_))) => return Err(error),
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => {
                check.problems.push(format!("snapshot {id} cannot be read: {error}"));
                continue;
            }
        };
        let ([frames, keys], found) = try_shredded(&opened, repository.as_ref(), &secrets).await?;
        check.snapshots += 1;
        check.frames_tried += frames;
        check.keys_tried = check.keys_tried.max(keys);
        check.frames_opened += found;
        if found > 0 {
            check.problems.push(format!("{found} shredded frames of snapshot {id} open"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::keys::wrapped_root::WrappedRoot;

    /// Opens what begins with `o`, has destroyed what begins with `g`, and cannot be reached for the rest.
    struct Service;

    #[async_trait]
    impl WrappingSlot for Service {
        async fn wrapped(&self, _: Generation) -> std::result::Result<Option<WrappedRoot>, SlotError> {
            Ok(None)
        }

        async fn open_copy(&self, generation: Generation, copy: &[u8]) -> std::result::Result<Key, SlotError> {
            let place = "here".to_owned();
            match copy[0] {
                b'o' => Ok(Key::dangerous_from_bytes(&[1; 32])),
                b'g' => Err(SlotError::VersionGone { generation, place, version: 1, lowest: 2 }),
                b'x' => Err(SlotError::Missing { generation, place }),
                _ => Err(SlotError::Sealed { place }),
            }
        }

        async fn put_back(&self, _: Generation, _: &[u8]) -> std::result::Result<bool, SlotError> {
            Ok(false)
        }
    }

    #[tokio::test]
    async fn an_old_wrapped_root_that_opens_is_a_fault_and_one_that_cannot_be_asked_about_is_an_error() {
        use WrappedRootPlace::{Bucket, Slot};
        let mut check = KeyCheck { generation: 3, ..KeyCheck::default() };
        for (generation, lies, copy) in [(1, Bucket, b"g"), (2, Bucket, b"g"), (3, Bucket, b"o"), (3, Slot, b"o")] {
            try_copy(&Service, (generation, lies), copy, &mut check).await.unwrap();
        }
        assert!(check.problems.is_empty(), "{check:?}");
        let opened: Vec<_> = check.wrapped_roots.iter().map(|root| (root.generation, root.opened)).collect();
        assert_eq!(opened, [(1, false), (2, false), (3, true), (3, true)]);

        try_copy(&Service, (2, Bucket), b"o", &mut check).await.unwrap();
        try_copy(&Service, (1, Slot), b"o", &mut check).await.unwrap();
        try_copy(&Service, (1, Bucket), b"x", &mut check).await.unwrap();
        assert_eq!(check.problems[0], "the wrapped root of generation 2 in the bucket still opens");
        assert_eq!(check.problems[1], "the wrapped root of generation 1 in the slot's folder still opens");
        assert!(check.problems[2].contains("cannot be tried"), "{check:?}");
        assert!(try_copy(&Service, (1, Bucket), b"?", &mut check).await.unwrap_err().is_retryable());
    }
}
