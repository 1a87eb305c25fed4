//! The batches of a run, one after the other: each as large as the store bears it, none while a replica is behind, and between any
//! two a look at what somebody asked of the run.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::control::{ChunkCounts, ChunkRow, OrderRow, PaceRow, RunRow};
use crate::erase::batch::{ChunkOutcome, RunKeys, run_chunk, withhold_chunk};
use crate::erase::chunk::{cut, place_of};
use crate::erase::knot::run_knot;
use crate::erase::pace::{LOCK_TRIES, Pace, lock_pause, pieces, rest};
use crate::erase::survey::Target;
use crate::erase::throttle::{Room, Throttle};
use crate::erase::{EraseError, Ground, Site};
use crate::installation::Installation;
use crate::plan::PlanBody;
use crate::policy::registry::Budget;
use crate::stop::InHand;
use crate::stores::StoreError;

use super::super::{Result, TaskError};
use super::{RunBody, checks};

mod groups;

/// Between two looks at a replica that is behind, and at what was asked meanwhile.
const LOOK: Duration = Duration::from_millis(500);
/// While a run waits, the lease is renewed so often.
const LEASE: Duration = Duration::from_mins(1);
/// So often it is looked whether a lag is known that was not.
const UNKNOWN_TRIES: u32 = 3;
/// How fast a run goes is noted no more often than this.
const NOTE_AGE: Duration = Duration::from_secs(1);
/// Clock and lease are looked at no more often than this.
const ALLOWED_AGE: Duration = Duration::from_secs(1);
/// The note of rows that stay because their run was stopped.
const STOPPED: &str = "the run was stopped before these rows; the next plan has them again";

/// What a run works with.
pub(super) struct Work<'a> {
    pub(super) installation: &'a Installation,
    pub(super) ground: &'a Ground<'a>,
    pub(super) run: &'a RunRow,
    pub(super) planned: &'a PlanBody,
    pub(super) keys: &'a RunKeys,
    pub(super) target: &'a Target,
}

/// Carries out every chunk that is not done and adds up what became of all of them.
pub(super) async fn carry_out(work: &Work<'_>, chunks: Vec<ChunkRow>, body: &mut RunBody) -> Result<()> {
    let knots = chunks.iter().filter(|chunk| chunk.knot.is_some()).cloned().collect();
    let pace = work.installation.control.read().await?.pace(&work.run.id).await?;
    let left_out = body.skipped.clone();
    let mut batches = Batches {
        work,
        left_out,
        knots,
        knotted: HashMap::new(),
        stores: HashMap::new(),
        order: None,
        figures: PaceRow { waits_for: None, ..pace.unwrap_or_default() },
        noted: None,
        allowed: None,
    };
    batches.carry(VecDeque::from(chunks), body).await?;
    // Of an earlier start of this run too.
    let plan = work.run.plan.as_deref().unwrap_or_default();
    body.stopped = work.installation.control.read().await?.rows_kept_with_note(plan, STOPPED).await?;
    batches.figures.waits_for = None;
    batches.note(true).await
}

/// What became of a turn of a chunk.
enum Step {
    /// It is done.
    Done(ChunkCounts),
    /// These take its place.
    Again(Vec<ChunkRow>),
    /// It may go now.
    Go(ChunkRow, InHand),
}

/// How a store is worked on.
struct Handling {
    /// What its transactions aim at.
    aim: Duration,
    /// One for each collection: rows of one table cost what rows of another do not.
    paces: HashMap<String, Pace>,
    throttle: Throttle,
    /// How long its last transaction took.
    work: Duration,
    /// How often in a row a lock could not be had.
    blocked: u32,
    /// Whether the last look at it found that it has much to do.
    is_slowed: bool,
}

impl Handling {
    fn new(budget: &Budget) -> Self {
        let aim = Duration::from_millis(u64::from(budget.transaction_ms));
        Self {
            aim,
            paces: HashMap::new(),
            throttle: Throttle::default(),
            work: Duration::ZERO,
            blocked: 0,
            is_slowed: false,
        }
    }

    fn pace(&mut self, collection: &str) -> &mut Pace {
        let pace = self.paces.entry(collection.to_owned()).or_insert_with(|| Pace::new(self.aim));
        pace.aim_at(self.aim);
        pace
    }
}

struct Batches<'a> {
    work: &'a Work<'a>,
    /// Stores whose rows must stay, with the reason.
    left_out: Vec<(String, String)>,
    /// All chunks that are one transaction with others.
    knots: Vec<ChunkRow>,
    /// What became of those that were done together with an earlier one.
    knotted: HashMap<i64, ChunkCounts>,
    stores: HashMap<String, Handling>,
    order: Option<OrderRow>,
    figures: PaceRow,
    noted: Option<DateTime<Utc>>,
    /// When clock and lease were last looked at, by a clock that nobody sets.
    allowed: Option<Instant>,
}

impl Batches<'_> {
    /// Carries the chunks out in their order: children go before their parents.
    async fn carry(&mut self, mut queue: VecDeque<ChunkRow>, body: &mut RunBody) -> Result<()> {
        while let Some(chunk) = queue.pop_front() {
            let step = match (chunk.verdict.as_str(), chunk.state.as_str()) {
                ("settled", _) => Step::Done(ChunkCounts::default()),
                ("keep", _) => Step::Done(ChunkCounts { kept: chunk.rows, ..ChunkCounts::default() }),
                (_, "done") => Step::Done(chunk.counts),
                _ => match self.knotted.remove(&chunk.number) {
                    Some(counts) => Step::Done(counts),
                    None => self.prepare(chunk).await?,
                },
            };
            match step {
                Step::Done(counts) => body.add(counts),
                Step::Again(pieces) => pieces.into_iter().rev().for_each(|piece| queue.push_front(piece)),
                Step::Go(chunk, whole) if self.goes_in_groups(&chunk) => {
                    self.in_groups(chunk, whole, &mut queue, body).await?;
                }
                Step::Go(chunk, whole) => match self.batch(chunk, whole).await? {
                    Ok(counts) => body.add(counts),
                    Err(again) => queue.push_front(again),
                },
            }
        }
        Ok(())
    }

    /// Everything before a batch: what was asked, room in the store, whether rows may still be destroyed.
    async fn prepare(&mut self, chunk: ChunkRow) -> Result<Step> {
        self.look().await?;
        let Work { installation, ground, run, keys, .. } = *self.work;
        if let Some(outcome) = self.withheld(&chunk) {
            installation.may_destroy().await?;
            let _whole = installation.begin_piece()?;
            let done = withhold_chunk(ground, run, installation.token, &chunk, keys, outcome).await?;
            return Ok(Step::Done(done.counts));
        }
        let (site, _) = place_of(ground, &chunk)?;
        self.handling(&chunk.store, &site.model.spec.budget);
        if !self.goes_in_groups(&chunk)
            && let Some(cut) = self.cut(&chunk).await?
        {
            return Ok(Step::Again(cut));
        }
        if !self.wait_for_room(site, &chunk.store).await? {
            // Somebody asked something meanwhile.
            return Ok(Step::Again(vec![chunk]));
        }
        self.allowed().await?;
        Ok(Step::Go(chunk, installation.begin_piece()?))
    }

    /// One batch. Returns its counts; or the chunk, smaller, when somebody else holds a lock.
    async fn batch(&mut self, chunk: ChunkRow, whole: InHand) -> Result<std::result::Result<ChunkCounts, ChunkRow>> {
        let Work { installation, ground, run, keys, target, .. } = *self.work;
        let begun = installation.clock.now();
        let outcome = match chunk.knot {
            Some(_) => self.run_knot(&chunk).await,
            None => run_chunk(ground, run, installation.token, &chunk, keys, target).await,
        };
        let done = match outcome {
            Ok(done) => done,
            Err(EraseError::Store(error @ StoreError::Busy { .. })) => {
                let again = self.give_way(&chunk, error).await?;
                drop(whole);
                self.pause(lock_pause(self.blocked(&chunk.store)), Some("a lock that another session holds")).await?;
                return Ok(Err(again));
            }
            Err(error) => return Err(error.into()),
        };
        drop(whole);
        self.count(&chunk, &done, since(installation, begun)).await?;
        Ok(Ok(done.counts))
    }

    /// Reads what was asked of the run. A pause ends the work here; it goes on when that is asked.
    async fn look(&mut self) -> Result<()> {
        let Work { installation, run, .. } = *self.work;
        installation.goes_on()?;
        let order = installation.control.read().await?.order(&run.id).await?;
        if order.as_ref().is_some_and(|order| order.wish == "pause") {
            self.figures.waits_for = None;
            self.note(true).await?;
            return Err(TaskError::Paused { run: run.id.clone() });
        }
        self.order = order;
        Ok(())
    }

    /// Whether the next batch may be begun. Clock and lease are looked at now and then, the switch that holds all destruction each time.
    async fn allowed(&mut self) -> Result<()> {
        let installation = self.work.installation;
        if self.allowed.is_some_and(|allowed| allowed.elapsed() < ALLOWED_AGE) {
            return installation.may_still_destroy().await;
        }
        installation.may_destroy().await?;
        self.allowed = Some(Instant::now());
        Ok(())
    }

    /// What becomes of a chunk that must not be carried out.
    fn withheld(&self, chunk: &ChunkRow) -> Option<(ChunkCounts, String)> {
        let all = |kept, failed| ChunkCounts { kept, failed, ..ChunkCounts::default() };
        if let Some((_, why)) = self.left_out.iter().find(|(store, _)| *store == chunk.store) {
            return Some((all(0, chunk.rows), why.clone()));
        }
        if let Some(why) = checks::withheld(self.work.ground, self.work.planned, &chunk.store) {
            return Some((all(chunk.rows, 0), why));
        }
        let is_stopped = self.order.as_ref().is_some_and(|order| order.wish == "stop");
        is_stopped.then(|| (all(chunk.rows, 0), STOPPED.to_owned()))
    }

    fn handling(&mut self, store: &str, budget: &Budget) -> &mut Handling {
        let asked = self.order.as_ref().and_then(|order| order.transaction_ms);
        let asked = asked.and_then(|millis| u32::try_from(millis).ok());
        let handling = self.stores.entry(store.to_owned()).or_insert_with(|| Handling::new(budget));
        handling.aim = Duration::from_millis(u64::from(asked.unwrap_or(budget.transaction_ms)));
        handling
    }

    fn blocked(&self, store: &str) -> u32 {
        self.stores.get(store).map_or(1, |handling| handling.blocked)
    }

    /// At most so many rows in a second: what was asked, or what the budget says.
    fn rows_per_second(&self, store: &str) -> Option<u32> {
        let asked = self.order.as_ref().and_then(|order| order.rows_per_second);
        let budget = || self.work.ground.site(store).and_then(|site| site.model.spec.budget.rows_per_second);
        asked.and_then(|rows| u32::try_from(rows).ok()).or_else(budget)
    }

    /// Cuts a chunk that is larger than the store's pace allows. One that was begun is settled or done again as it is.
    async fn cut(&mut self, chunk: &ChunkRow) -> Result<Option<Vec<ChunkRow>>> {
        if chunk.knot.is_some() || chunk.state != "planned" {
            return Ok(None);
        }
        // No more at once than may go in a second.
        let limit = self.rows_per_second(&chunk.store).map_or(usize::MAX, |rows| rows as usize);
        let Some(handling) = self.stores.get_mut(&chunk.store) else { return Ok(None) };
        let sizes =
            pieces(usize::try_from(chunk.rows).unwrap_or(0), handling.pace(&chunk.collection).rows().min(limit));
        if sizes.len() < 2 {
            return Ok(None);
        }
        let Work { installation, ground, run, keys, .. } = *self.work;
        let plan = run.plan.as_deref().unwrap_or_default();
        let made = cut(&keys.plan, plan, chunk, &sizes, ground.random)?;
        let mut tx = installation.control.begin().await?;
        tx.cut_chunk(plan, chunk.number, &made).await?;
        tx.commit().await?;
        Ok(Some(made))
    }

    /// Waits until the store bears a batch; false when something was asked of the run meanwhile.
    async fn wait_for_room(&mut self, site: &Site, store: &str) -> Result<bool> {
        let Work { installation, run, .. } = *self.work;
        let begun = installation.clock.now();
        let patience = Duration::from_secs(u64::from(site.model.spec.budget.patience_s));
        let mut unknown = 0;
        let mut is_first = true;
        let mut renewed = begun;
        loop {
            if since(installation, renewed) >= LEASE {
                installation.renew_lease().await?;
                renewed = installation.clock.now();
            }
            let Some(handling) = self.stores.get_mut(store) else { return Ok(true) };
            let clock = installation.clock.as_ref();
            let room = handling.throttle.room(site, clock, handling.work, !is_first).await?;
            is_first = false;
            handling.is_slowed = room != Room::Free;
            let why = match room {
                Room::Free => {
                    self.figures.waits_for = None;
                    return Ok(true);
                }
                Room::Slow { pause, why } => {
                    self.pause(pause, Some(&why)).await?;
                    return Ok(true);
                }
                Room::Full { why } if since(installation, begun) < patience => why,
                Room::Unknown { why } if unknown + 1 < UNKNOWN_TRIES => {
                    unknown += 1;
                    why
                }
                Room::Full { why } | Room::Unknown { why } => {
                    self.figures.waits_for = Some(why.clone());
                    self.note(true).await?;
                    return Err(TaskError::refused(
                        format!("store {store}: {why}; run {} goes on later, nothing more is erased now", run.id),
                        format!(
                            "see to the replica, or take it out of the configuration; then `wangchuan run resume {}`, or \
                             the agent goes on by itself",
                            run.id
                        ),
                    ));
                }
            };
            self.pause(LOOK, Some(&why)).await?;
            let asked = self.order.clone();
            self.look().await?;
            if self.order != asked {
                return Ok(false);
            }
        }
    }

    async fn run_knot(&mut self, chunk: &ChunkRow) -> Result<ChunkOutcome, EraseError> {
        let Work { installation, ground, run, keys, target, .. } = *self.work;
        let together: Vec<&ChunkRow> = self.knots.iter().filter(|other| other.knot == chunk.knot).collect();
        let done = run_knot(ground, (run, installation.token), &together, keys, target).await?;
        let mut own = ChunkOutcome::default();
        for (number, outcome) in done {
            if number == chunk.number {
                own = outcome;
            } else {
                self.knotted.insert(number, outcome.counts);
            }
        }
        Ok(own)
    }

    /// A batch could not have its locks: its intent is taken back, so that nobody waits for it, and it comes back smaller. After
    /// some tries the run stops, to go on later. The intent of one that an earlier start of the run had begun stays: its transaction may
    /// still be committing somewhere.
    async fn give_way(&mut self, chunk: &ChunkRow, error: StoreError) -> Result<ChunkRow> {
        let Work { installation, ground, run, .. } = *self.work;
        let Some(handling) = self.stores.get_mut(&chunk.store) else { return Err(error.into()) };
        handling.blocked += 1;
        handling.pace(&chunk.collection).blocked();
        let is_last = handling.blocked > LOCK_TRIES;
        let (site, _) = place_of(ground, chunk)?;
        // What was committed after all is settled by its marker.
        if chunk.state == "running" || site.store.batch_outcome(&run.id, chunk.number).await?.is_some() {
            if is_last {
                return Err(error.into());
            }
            for other in self.knots.iter_mut().filter(|other| chunk.knot.is_some() && other.knot == chunk.knot) {
                "running".clone_into(&mut other.state);
            }
            return Ok(ChunkRow { state: "running".to_owned(), ..chunk.clone() });
        }
        let mut tx = installation.control.begin().await?;
        let together = self.knots.iter().filter(|other| chunk.knot.is_some() && other.knot == chunk.knot);
        for chunk in together.filter(|other| other.number != chunk.number).chain([chunk]) {
            tx.release_chunk(run, chunk).await?;
        }
        tx.commit().await?;
        if is_last {
            return Err(error.into());
        }
        tracing::info!(store = %chunk.store, error = %error, "a batch gives way, and comes back smaller");
        Ok(ChunkRow { state: "planned".to_owned(), ..chunk.clone() })
    }

    /// Counts a batch, lets the pace follow it, and rests as long as a limit of rows wants.
    async fn count(&mut self, chunk: &ChunkRow, done: &ChunkOutcome, whole: Duration) -> Result<()> {
        let rows = done.counts.gone() + done.counts.kept + done.counts.failed;
        let limit = self.rows_per_second(&chunk.store);
        self.figures.worked_ms += millis(whole);
        if let (Some(took), Some(handling)) = (done.took, self.stores.get_mut(&chunk.store)) {
            let rows = usize::try_from(rows).unwrap_or(0);
            let pace = handling.pace(&chunk.collection);
            pace.took(rows, took);
            self.figures.batch_rows = pace.rows() as i64;
            handling.work = took.whole();
            handling.blocked = 0;
            self.figures.batches += 1;
            self.figures.longest_ms = self.figures.longest_ms.max(millis(took.whole()));
        }
        self.figures.rows += rows;
        self.note(false).await?;
        let pause = rest(usize::try_from(rows).unwrap_or(0), whole, limit);
        self.pause(pause, None).await
    }

    /// Waits between batches, where the work may be dropped at any time. A reason is noted.
    async fn pause(&mut self, time: Duration, why: Option<&str>) -> Result<()> {
        if time.is_zero() {
            return Ok(());
        }
        let is_new = why.is_some() && self.figures.waits_for.as_deref() != why;
        if let Some(why) = why {
            self.figures.waits_for = Some(why.to_owned());
        }
        self.note(is_new).await?;
        let begun = self.work.installation.clock.now();
        let mut left = time;
        while !left.is_zero() {
            let part = left.min(LOOK);
            tokio::time::sleep(part).await;
            left -= part;
            let order = self.work.installation.control.read().await?.order(&self.work.run.id).await?;
            if order != self.order {
                // The next look acts on it.
                break;
            }
        }
        self.figures.paused_ms += millis(since(self.work.installation, begun));
        Ok(())
    }

    /// Stores how fast the run goes, when that was not done just before.
    async fn note(&mut self, now: bool) -> Result<()> {
        let Work { installation, run, .. } = *self.work;
        if !now && self.noted.is_some_and(|noted| since(installation, noted) < NOTE_AGE) {
            return Ok(());
        }
        self.noted = Some(installation.clock.now());
        let mut tx = installation.control.begin().await?;
        tx.set_pace(&run.id, &self.figures).await?;
        Ok(tx.commit().await?)
    }
}

/// How long it is since then; nothing when the clock was put back.
fn since(installation: &Installation, begun: DateTime<Utc>) -> Duration {
    (installation.clock.now() - begun).to_std().unwrap_or_default()
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
