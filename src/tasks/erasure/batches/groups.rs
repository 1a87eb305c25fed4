//! Batches in groups: the intents of a group are stored together with the outcomes of the one before, and where nothing else needs the control
//! database meanwhile, while that one is at work in the store. So it is not the control database's disk that a run waits for.
//!
//! Before each batch everything is asked that is asked before any: what somebody wants of the run, room in the store, whether rows may still be
//! destroyed. As soon as one of these says no, what ended is stored, the intents that were not begun are taken back, and the run goes on as
//! it would without groups.

use std::collections::VecDeque;

use tokio::join;

use super::super::super::{Result, TaskError};
use super::super::RunBody;
use super::{Batches, since};
use crate::control::ChunkRow;
use crate::erase::EraseError;
use crate::erase::chunk::{cut, place_of};
use crate::erase::group::{Ended, Entry, Intent, Turn, store, take_turn};
use crate::erase::pace::{lock_pause, pieces};
use crate::erase::throttle::Room;
use crate::stop::InHand;
use crate::stores::StoreError;

/// Chunks of a group at most: with two groups under way, a hold waits for the end of twice as many batches.
const GROUP: usize = 4;

/// Chunks whose intents are to be stored together.
#[derive(Default)]
struct Gathered {
    /// Chunks that were cut for it, and their pieces.
    cut: Vec<(i64, Vec<ChunkRow>)>,
    intents: Vec<Intent>,
}

/// Why a group does not go on.
enum Halt {
    /// Something is to be seen to before the next batch.
    Look,
    /// Another session holds a lock that this chunk needs.
    Busy(Box<ChunkRow>, StoreError),
    Error(TaskError),
}

impl Batches<'_> {
    /// Whether a chunk may share its intent with others. Changes of rows note in the control database what they leave, while their transaction
    /// is open; and where only so many rows may go in a second, there is time enough.
    pub(super) fn goes_in_groups(&self, chunk: &ChunkRow) -> bool {
        let is_plain = chunk.verdict == "erase" && chunk.state == "planned" && chunk.knot.is_none();
        is_plain && self.rows_per_second(&chunk.store).is_none()
    }

    /// Carries out a chunk for which there is room now, and those behind it, as long as nothing else is to be seen to.
    pub(super) async fn in_groups(
        &mut self,
        first: ChunkRow,
        whole: InHand,
        queue: &mut VecDeque<ChunkRow>,
        body: &mut RunBody,
    ) -> Result<()> {
        let (ground, run, keys) = (self.work.ground, self.work.run, self.work.keys);
        queue.push_front(first);
        // Batches store how rows were while their transaction is open, and must not wait for anybody then.
        let is_beside = keys.pre_images.is_none();
        let mut ended: Vec<Ended> = Vec::new();
        let mut now = self.gather(queue, 0)?;
        store(ground, run, Entry { cut: &now.cut, begun: &now.intents, ..Entry::default() }).await?;
        let mut is_looked = true;
        loop {
            let mut open: VecDeque<ChunkRow> = now.intents.into_iter().map(|intent| intent.chunk).collect();
            let ahead = if is_beside { self.gather(queue, open.len()) } else { Ok(Gathered::default()) };
            let (mut next, unread) = match ahead {
                Ok(next) => (next, None),
                Err(error) => (Gathered::default(), Some(error)),
            };
            let entry = Entry { ended: &ended, cut: &next.cut, begun: &next.intents, released: &[] };
            let mut done = Vec::new();
            let (halt, stored) = join!(self.turns(&mut open, &mut done, body, is_looked), store(ground, run, entry));
            // What could not be gathered is out of the queue: only another start finds it again.
            let mut halt = unread.map(Halt::Error).or(halt);
            match stored {
                Ok(()) => ended = done,
                Err(error) => {
                    ended.extend(done);
                    next = Gathered::default();
                    halt = Some(Halt::Error(error.into()));
                }
            }
            if halt.is_none() && !is_beside {
                match self.gather(queue, 0) {
                    Ok(gathered) => next = gathered,
                    Err(error) => halt = Some(Halt::Error(error)),
                }
                if halt.is_none() {
                    let entry = Entry { ended: &ended, cut: &next.cut, begun: &next.intents, released: &[] };
                    store(ground, run, entry).await?;
                    ended = Vec::new();
                }
            }
            if halt.is_some() || next.intents.is_empty() {
                open.extend(next.intents.into_iter().map(|intent| intent.chunk));
                return self.close_group(halt, (ended, open), whole, queue).await;
            }
            now = next;
            is_looked = false;
        }
    }

    /// Stores what ended and takes back what was not begun, which returns to the queue.
    async fn close_group(
        &mut self,
        halt: Option<Halt>,
        (ended, open): (Vec<Ended>, VecDeque<ChunkRow>),
        whole: InHand,
        queue: &mut VecDeque<ChunkRow>,
    ) -> Result<()> {
        let released = Vec::from(open);
        let entry = Entry { ended: &ended, released: &released, ..Entry::default() };
        let stored = store(self.work.ground, self.work.run, entry).await;
        for chunk in released.into_iter().rev() {
            queue.push_front(chunk);
        }
        drop(whole);
        match halt {
            // What could not be stored is settled by the markers when the run goes on.
            Some(Halt::Error(error)) => Err(error),
            None | Some(Halt::Look) => Ok(stored?),
            Some(Halt::Busy(chunk, error)) => {
                stored?;
                let again = self.give_way(&chunk, error).await?;
                self.pause(lock_pause(self.blocked(&chunk.store)), Some("a lock that another session holds")).await?;
                queue.push_front(again);
                Ok(())
            }
        }
    }

    /// Takes chunks from the front of the queue, cut to the sizes that they may have when their turn comes. `before` batches go before them.
    fn gather(&mut self, queue: &mut VecDeque<ChunkRow>, before: usize) -> Result<Gathered> {
        let (ground, run, keys) = (self.work.ground, self.work.run, self.work.keys);
        let plan = run.plan.as_deref().unwrap_or_default();
        let mut gathered = Gathered::default();
        let Some(store) = queue.front().map(|chunk| chunk.store.clone()) else { return Ok(gathered) };
        // Who is slowed goes one by one, and nobody waits for what does not go.
        let is_slowed = self.stores.get(&store).is_some_and(|handling| handling.is_slowed || handling.blocked > 0);
        let most = if is_slowed { usize::from(before == 0) } else { GROUP };
        while gathered.intents.len() < most {
            let fits =
                |chunk: &ChunkRow| chunk.store == store && self.goes_in_groups(chunk) && self.withheld(chunk).is_none();
            if queue.front().is_none_or(|chunk| !fits(chunk)) {
                break;
            }
            // A store at which nothing was looked yet: its first chunk stays in the queue until somebody did.
            let Some(handling) = self.stores.get_mut(&store) else { break };
            let Some(chunk) = queue.pop_front() else { break };
            // No more than was measured: after a crash an intent is carried out as it is.
            let rows = handling.pace(&chunk.collection).rows();
            let sizes = pieces(usize::try_from(chunk.rows).unwrap_or(0), rows);
            let mut chunk = chunk;
            if sizes.len() > 1 {
                let made = cut(&keys.plan, plan, &chunk, &sizes, ground.random)?;
                made.iter().skip(1).rev().for_each(|piece| queue.push_front(piece.clone()));
                let Some(own) = made.first().cloned() else { break };
                gathered.cut.push((chunk.number, made));
                chunk = own;
            }
            gathered.intents.push(Intent::of(run, keys, chunk)?);
        }
        Ok(gathered)
    }

    /// Carries chunks out whose intents are stored, one after the other.
    async fn turns(
        &mut self,
        open: &mut VecDeque<ChunkRow>,
        ended: &mut Vec<Ended>,
        body: &mut RunBody,
        mut is_looked: bool,
    ) -> Option<Halt> {
        let (installation, ground, keys) = (self.work.installation, self.work.ground, self.work.keys);
        while let Some(chunk) = open.front().cloned() {
            if !is_looked {
                match self.may_go(&chunk).await {
                    Ok(true) => {}
                    Ok(false) => return Some(Halt::Look),
                    Err(error) => return Some(Halt::Error(error)),
                }
            }
            // The first batch of all was let begin together with its intent.
            let whole = if is_looked { Ok(None) } else { installation.begin_piece().map(Some) };
            is_looked = false;
            let _whole = match whole {
                Ok(whole) => whole,
                Err(error) => return Some(Halt::Error(error)),
            };
            open.pop_front();
            let begun = installation.clock.now();
            let turn = take_turn(ground, (self.work.run, installation.token), &chunk, keys, self.work.target).await;
            let outcome = match turn {
                Ok(Turn::Ended(end)) => {
                    let outcome = end.outcome();
                    ended.push(*end);
                    outcome
                }
                Ok(Turn::Failed(outcome)) => outcome,
                Err(EraseError::Store(error @ StoreError::Busy { .. })) => {
                    return Some(Halt::Busy(Box::new(chunk), error));
                }
                Err(error) => return Some(Halt::Error(error.into())),
            };
            body.add(outcome.counts);
            if let Err(error) = self.count(&chunk, &outcome, since(installation, begun)).await {
                return Some(Halt::Error(error));
            }
        }
        None
    }

    /// Whether a chunk of a group may go now: nothing new is asked of the run, the store bears it at once, and rows may still be destroyed.
    async fn may_go(&mut self, chunk: &ChunkRow) -> Result<bool> {
        let asked = self.order.clone();
        self.look().await?;
        if self.order != asked || self.withheld(chunk).is_some() {
            return Ok(false);
        }
        let (site, _) = place_of(self.work.ground, chunk)?;
        let rows = usize::try_from(chunk.rows).unwrap_or(0);
        let clock = self.work.installation.clock.as_ref();
        let handling = self.handling(&chunk.store, &site.model.spec.budget);
        if !handling.pace(&chunk.collection).bears(rows) {
            return Ok(false);
        }
        let work = handling.work;
        if handling.throttle.room(site, clock, work, false).await? != Room::Free {
            return Ok(false);
        }
        self.allowed().await?;
        Ok(true)
    }
}
