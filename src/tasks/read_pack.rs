//! The frames of one pack: all of it, whose digest is checked, or only the ranges in which wanted frames lie. What is read in ranges
//! is vouched for by the frames' own seals, which name pack and place.

use std::collections::HashMap;

use crate::backup::codec::{Id128, Sha256};
use crate::backup::directory::FrameEntry;
use crate::backup::frame::frame_header;
use crate::backup::manifest::PackRef;
use crate::backup::object_store::{ObjectStore, RepositoryError, get_verified};
use crate::backup::pack::{PACK_HEADER_BYTES, max_pack_bytes, pack_id, pack_name, read_pack};

/// So many unwanted bytes between two frames are read along rather than asked around: what a second request costs.
const GAP_BYTES: u64 = 32 << 10;

/// What was read of a pack.
pub(super) enum PackBytes {
    /// The whole object, not looked at yet.
    Whole(Vec<u8>),
    /// Its id, and frames by their position.
    Some(Id128, HashMap<u32, Vec<u8>>),
}

/// The id of a pack, and a frame of it with its id.
pub(super) type FoundFrame<'p> = (&'p [u8], Id128);

impl PackBytes {
    /// Reads a whole pack; none when it is missing or damaged for good.
    pub(super) async fn whole(store: &dyn ObjectStore, pack: &PackRef) -> Result<Option<Self>, RepositoryError> {
        let name = pack_name(&pack.sha256);
        lasting(get_verified(store, &name, &pack.sha256, max_pack_bytes()).await.map(Self::Whole))
    }

    /// Reads these frames of a pack and as little else as pays; none when they are missing or damaged for good.
    pub(super) async fn some(
        store: &dyn ObjectStore,
        pack: &PackRef,
        wanted: &[&FrameEntry],
    ) -> Result<Option<(Self, u64)>, RepositoryError> {
        lasting(Self::ranges(store, pack, wanted).await)
    }

    async fn ranges(
        store: &dyn ObjectStore,
        pack: &PackRef,
        wanted: &[&FrameEntry],
    ) -> Result<(Self, u64), RepositoryError> {
        let name = pack_name(&pack.sha256);
        let (mut id, mut frames, mut read) = (None, HashMap::new(), 0);
        for (start, end) in ranges(wanted) {
            let bytes = store.get_range(&name, start, (end - start) as u32).await?;
            read += bytes.len() as u64;
            if start == 0 {
                id = pack_id(&bytes).ok();
            }
            for entry in wanted {
                let from = u64::from(entry.offset).checked_sub(start).map(|from| from as usize);
                let part = from.and_then(|from| bytes.get(from..from + entry.length as usize));
                frames.extend(part.map(|part| (entry.ordinal, part.to_vec())));
            }
        }
        let what = "the pack's first bytes are none of a pack".to_owned();
        Ok((Self::Some(id.ok_or(RepositoryError::Corrupt { name, what })?, frames), read))
    }

    /// How many bytes it holds.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Some(_, frames) => frames.values().map(Vec::len).sum(),
        }
    }

    /// The pack's id, and its frames by their positions; nothing when it is damaged.
    pub(super) fn parsed(&self, sha256: &Sha256) -> Option<(Id128, Vec<(u32, FoundFrame<'_>)>)> {
        match self {
            Self::Whole(bytes) => {
                let (id, frames) = read_pack(bytes, sha256).ok()?;
                let found = frames.into_iter().map(|frame| (frame.place.ordinal, (frame.bytes, frame.header.id)));
                Some((id, found.collect()))
            }
            Self::Some(id, frames) => {
                let found = frames.iter().filter_map(|(ordinal, bytes)| {
                    let header = frame_header(bytes).ok().filter(|header| header.envelope_bytes() == bytes.len())?;
                    Some((*ordinal, (bytes.as_slice(), header.id)))
                });
                Some((*id, found.collect()))
            }
        }
    }
}

/// Nothing for what trying again does not mend.
fn lasting<T>(found: Result<T, RepositoryError>) -> Result<Option<T>, RepositoryError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_retryable() => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether so few bytes of a pack are wanted that ranges pay.
pub(super) fn pays(wanted: &[&FrameEntry], pack_bytes: u64) -> bool {
    ranges(wanted).iter().map(|(start, end)| end - start).sum::<u64>() * 2 < pack_bytes
}

/// What to read for these frames: the pack's header, and the frames, those together that lie close.
fn ranges(wanted: &[&FrameEntry]) -> Vec<(u64, u64)> {
    let mut places: Vec<(u64, u64)> = wanted
        .iter()
        .map(|entry| (u64::from(entry.offset), u64::from(entry.offset) + u64::from(entry.length)))
        .collect();
    places.sort_unstable();
    let mut ranges = vec![(0, PACK_HEADER_BYTES as u64)];
    for (start, end) in places {
        match ranges.last_mut() {
            Some(last) if start <= last.1 + GAP_BYTES => last.1 = last.1.max(end),
            _ => ranges.push((start, end)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::directory::CellRef;
    use crate::keys::suite::Suite;

    fn entry(offset: u32, length: u32) -> FrameEntry {
        let cell = CellRef { subject: None, bucket: 1, pin: None };
        let (suite, removed) = (Suite::Intl, false);
        FrameEntry {
            pack: 0,
            ordinal: 0,
            offset,
            length,
            cell,
            collection: 1,
            chunk: 0,
            group: 0,
            suite,
            rows: 1,
            removed,
        }
    }

    fn ranges_of(places: &[(u32, u32)]) -> Vec<(u64, u64)> {
        let entries: Vec<FrameEntry> = places.iter().map(|(offset, length)| entry(*offset, *length)).collect();
        ranges(&entries.iter().collect::<Vec<_>>())
    }

    #[test]
    fn what_lies_close_is_read_at_once_and_what_lies_far_is_asked_for() {
        let gap = GAP_BYTES as u32;
        assert_eq!(ranges_of(&[]), [(0, 24)]);
        assert_eq!(ranges_of(&[(24, 100)]), [(0, 124)]);
        assert_eq!(ranges_of(&[(24 + gap, 100)]), [(0, u64::from(124 + gap))]);
        assert_eq!(ranges_of(&[(25 + gap, 100)]), [(0, 24), (u64::from(25 + gap), u64::from(125 + gap))]);
        // In any order, and one inside another's range.
        let far = 1_000_000;
        let expected = [(0, 24), (u64::from(far), u64::from(far) + 300)];
        assert_eq!(ranges_of(&[(far + 200, 100), (far, 250), (far + 10, 5)]), expected);
    }

    #[test]
    fn ranges_pay_when_they_are_less_than_half() {
        let wanted = entry(500_000, 1_000);
        assert!(pays(&[&wanted], 2 * 1_024 + 1));
        assert!(!pays(&[&wanted], 2 * 1_024));
    }
}
