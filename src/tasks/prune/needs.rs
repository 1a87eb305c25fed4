//! What needs a chain, whatever the rules say: holds, pins, grace, runs that are not finished, readers, the newest drill.

use std::collections::BTreeSet;

use super::ChainVerdict;
use crate::control::{HoldRow, Tx};
use crate::installation::Installation;
use crate::policy::keep::Stays;
use crate::tasks::Result;

/// What needs each of these chains. They are all the chains of their stores.
///
/// # Errors
/// When the control database fails.
pub(super) async fn needs(
    installation: &Installation,
    tx: &mut Tx,
    chains: &[ChainVerdict],
) -> Result<Vec<BTreeSet<Stays>>> {
    let now = installation.clock.now();
    let mut needs = vec![BTreeSet::new(); chains.len()];
    for hold in tx.holds(true).await? {
        let covered = Covered::of(tx, &hold).await?;
        for (chain, needs) in chains.iter().zip(&mut needs) {
            if covered.store(&chain.store) {
                needs.insert(Stays::Hold);
            }
        }
    }
    for (store, number) in tx.last_seals_of_pinned_rows().await? {
        if let Some(at) = newest_until(chains, &store, number) {
            needs[at].insert(Stays::Pin);
        }
    }
    for run in tx.runs(None).await? {
        let why = match run.state.as_str() {
            "approved" | "deleted" | "verified" | "undoing" => Stays::OpenRun,
            "shred-pending" if run.grace_until.is_some_and(|until| until > now) => Stays::Grace,
            _ => continue,
        };
        for store in tx.stores_of_run(&run.id).await? {
            // From the newest one that was begun before the first row went, to the newest before the keys were marked: what the run took
            // lies there.
            let from = tx.snapshot_before_run(&run.id, &store).await?;
            let until = run.verified_snapshot.unwrap_or(i64::MAX);
            for (chain, needs) in chains.iter().zip(&mut needs).filter(|(chain, _)| chain.store == store) {
                let has = |wanted: &dyn Fn(i64) -> bool| chain.snapshots.iter().any(|row| wanted(row.number));
                if has(&|number| number >= from) && has(&|number| number <= until) {
                    needs.insert(why);
                }
            }
        }
    }
    for (chain, needs) in chains.iter().zip(&mut needs) {
        if tx.chain_is_in_use(chain.chain, now).await? {
            needs.insert(Stays::InUse);
        }
    }
    let passed: BTreeSet<String> =
        tx.drills().await?.into_iter().filter(|drill| drill.passed).map(|drill| drill.snapshot).collect();
    for store in chains.iter().map(|chain| &chain.store).collect::<BTreeSet<_>>() {
        let proven = chains
            .iter()
            .enumerate()
            .filter(|(_, chain)| chain.store == *store && chain.snapshots.iter().any(|row| passed.contains(&row.id)));
        if let Some((at, _)) = proven.max_by_key(|(_, chain)| chain.snapshots.last().map(|row| row.number)) {
            needs[at].insert(Stays::NewestProven);
        }
    }
    Ok(needs)
}

/// The chain of a store's newest committed snapshot up to a number.
fn newest_until(chains: &[ChainVerdict], store: &str, number: i64) -> Option<usize> {
    let of_store = chains.iter().enumerate().filter(|(_, chain)| chain.store == store);
    let newest = of_store.filter_map(|(at, chain)| {
        let until = chain.snapshots.iter().map(|row| row.number).filter(|found| *found <= number).max();
        until.map(|until| (until, at))
    });
    newest.max().map(|(_, at)| at)
}

/// The stores that a hold covers.
enum Covered {
    All,
    Stores(Vec<String>),
}

impl Covered {
    async fn of(tx: &mut Tx, hold: &HoldRow) -> Result<Self> {
        Ok(match (hold.scope.as_str(), &hold.store, &hold.subject) {
            ("store" | "collection", Some(store), _) => Self::Stores(vec![store.clone()]),
            ("subject", _, Some(lookup)) => Self::Stores(tx.stores_of_subject(lookup).await?),
            _ => Self::All,
        })
    }

    fn store(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Stores(stores) => stores.iter().any(|store| store == name),
        }
    }
}
