//! A root on its way from one slot to another: new generations are made in the new slot, the old one is still opened, and
//! emptied by the destructions of the generation change as any other old root. A slot that destroys only at a date stays described
//! under `[root.previous]` until that date is past: nobody else can tell that its root is gone.
//!
//! So a move is nothing but a generation change, with its order, its checks and its recovery. As soon as the old slot is empty it
//! can be taken out of the configuration.

use std::sync::Arc;

use async_trait::async_trait;

use super::slot::{
    DestroyEvidence, DestroyStep, GoneCheck, GoneEvidence, Presence, PresentGeneration, RootSlot, Shortcoming,
    SlotAbilities, SlotClaim, SlotError,
};
use super::wrapped_root::{WrappedRoot, WrappingSlot};
use super::{Generation, Key};
use crate::random::Random;

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// Two slots as one.
pub struct MovingSlot {
    current: Arc<dyn RootSlot>,
    previous: Arc<dyn RootSlot>,
}

impl MovingSlot {
    /// New roots go to `current`; what still is in `previous` is opened and destroyed there.
    #[must_use]
    pub fn new(current: Arc<dyn RootSlot>, previous: Arc<dyn RootSlot>) -> Self {
        Self { current, previous }
    }
}

#[async_trait]
impl RootSlot for MovingSlot {
    fn claim(&self) -> SlotClaim {
        self.current.claim()
    }

    fn abilities(&self) -> SlotAbilities {
        let (current, previous) = (self.current.abilities(), self.previous.abilities());
        SlotAbilities { minimum_interval: current.minimum_interval.max(previous.minimum_interval), ..current }
    }

    async fn create(&self, generation: Generation, random: &dyn Random) -> Result<Key> {
        // A root that the old slot made for this very generation before it became the old one.
        match self.previous.open(generation).await {
            Err(SlotError::Missing { .. }) => self.current.create(generation, random).await,
            present => present,
        }
    }

    async fn open(&self, generation: Generation) -> Result<Key> {
        match self.current.open(generation).await {
            Err(SlotError::Missing { .. }) => self.previous.open(generation).await,
            found => found,
        }
    }

    async fn list(&self) -> Result<Vec<PresentGeneration>> {
        let mut found = self.current.list().await?;
        for present in self.previous.list().await? {
            if found.iter().all(|known| known.generation != present.generation) {
                found.push(present);
            }
        }
        found.sort_unstable_by_key(|present| present.generation);
        Ok(found)
    }

    async fn destroy(&self, generation: Generation) -> Result<DestroyEvidence> {
        let previous = self.previous.destroy(generation).await?;
        let current = self.current.destroy(generation).await?;
        // Where it was decides what its destruction is worth; where that cannot be told any more, the weaker one does.
        let by_service = [DestroyStep::ServiceDestroyed, DestroyStep::ServiceScheduled];
        let knew = |done: &DestroyEvidence| {
            done.was_present || done.irrevocable_at.is_some() || done.steps.iter().any(|step| by_service.contains(step))
        };
        let irrevocable_at = previous.irrevocable_at.max(current.irrevocable_at);
        let is_previous = match (knew(&previous), knew(&current)) {
            (true, false) => true,
            (false, true) => false,
            _ => previous.claim.class >= current.claim.class,
        };
        Ok(DestroyEvidence { irrevocable_at, ..if is_previous { previous } else { current } })
    }

    async fn verify_gone(&self, generation: Generation) -> Result<GoneEvidence> {
        let previous = self.previous.verify_gone(generation).await?;
        let current = self.current.verify_gone(generation).await?;
        let mut checks = previous.checks;
        let more: Vec<GoneCheck> = current.checks.into_iter().filter(|check| !checks.contains(check)).collect();
        checks.extend(more);
        let (read_back, token) = (previous.read_back.or(current.read_back), previous.token.or(current.token));
        Ok(GoneEvidence { generation, checks, read_back, token })
    }

    async fn left_behind(&self) -> Result<Vec<Generation>> {
        // What is doomed there was moved already; it only waits for its date.
        let usable = |present: &PresentGeneration| present.presence == Presence::Usable;
        let present = self.previous.list().await?.into_iter().filter(usable);
        Ok(present.map(|present| present.generation).collect())
    }

    fn wrapping(&self) -> Option<&dyn WrappingSlot> {
        if self.slots().any(|slot| slot.wrapping().is_some()) { Some(self) } else { None }
    }

    async fn allow_another_try(&self) -> Result<()> {
        self.current.allow_another_try().await?;
        self.previous.allow_another_try().await
    }

    async fn shortcomings(&self) -> Result<Vec<Shortcoming>> {
        self.current.shortcomings().await
    }
}

impl MovingSlot {
    fn slots(&self) -> impl Iterator<Item = &dyn RootSlot> {
        [self.current.as_ref(), self.previous.as_ref()].into_iter()
    }
}

/// Of two slots of which perhaps only one wraps: a root in the other has no wrapped form, and gets none.
#[async_trait]
impl WrappingSlot for MovingSlot {
    async fn wrapped(&self, generation: Generation) -> Result<Option<WrappedRoot>> {
        for slot in self.slots().filter_map(RootSlot::wrapping) {
            if let Some(wrapped) = slot.wrapped(generation).await? {
                return Ok(Some(wrapped));
            }
        }
        Ok(None)
    }

    async fn open_copy(&self, generation: Generation, copy: &[u8]) -> Result<Key> {
        let mut refused = None;
        for slot in self.slots().filter_map(RootSlot::wrapping) {
            match slot.open_copy(generation, copy).await {
                Ok(root) => return Ok(root),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or(SlotError::Missing { generation, place: "configured under [root]".to_owned() }))
    }

    async fn put_back(&self, generation: Generation, copy: &[u8]) -> Result<bool> {
        let mut refused = None;
        for slot in self.slots().filter_map(RootSlot::wrapping) {
            match slot.put_back(generation, copy).await {
                Err(SlotError::Damaged { path, what }) => refused = Some(SlotError::Damaged { path, what }),
                other => return other,
            }
        }
        refused.map_or(Ok(false), Err)
    }
}
