//! Tries without the right token, counted by peer until somebody takes them: so that nobody fills a log by trying again and again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

/// Peers that are told apart until the counts are taken; the tries of all others count together, under the address that is nobody's.
const PEERS: usize = 8;

/// How often which peer was refused.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<IpAddr, u64>>);

impl Refusals {
    /// Counts tries of a peer.
    pub fn add(&self, peer: IpAddr, tries: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_told = counts.contains_key(&peer) || counts.len() < PEERS;
        let peer = if is_told { peer } else { Ipv6Addr::UNSPECIFIED.into() };
        let count = counts.entry(peer).or_default();
        *count = count.saturating_add(tries);
    }

    /// The counts since they were last taken.
    #[must_use]
    pub fn take(&self) -> BTreeMap<IpAddr, u64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_tries_from_many_addresses_is_counted_under_few() {
        let refusals = Refusals::default();
        let peer = |number: u32| IpAddr::V4(number.into());
        refusals.add(peer(1), 1);
        (0..1_000).for_each(|number| refusals.add(peer(number), 1));
        let counts = refusals.take();
        assert_eq!((counts.len(), counts.values().sum::<u64>()), (PEERS + 1, 1_001));
        assert_eq!((counts[&peer(1)], counts[&Ipv6Addr::UNSPECIFIED.into()]), (2, 992));
        assert!(refusals.take().is_empty());
    }
}
