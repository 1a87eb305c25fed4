//! How many rows a batch takes: as many as keep its transaction short, found out by measuring.
//!
//! Additive increase, multiplicative decrease: a full batch that stayed well below the aim lets the next one grow by a step (by a
//! quarter when it stayed far below), one that comes close to it takes an eighth off, one beyond it halves the size, and so does a lock
//! that could not be had. Before the first of these the size doubles. So batches take about half of what they may: a commit that waits
//! for the disk is to find room too. What a commit costs does not depend on the rows: a size follows the work before it, and what the
//! last commits leave of the aim for that. A halving that makes no batch shorter is taken back. Nothing here asks a clock: times are handed in.

use std::time::Duration;

/// Rows of the first batch.
pub const FIRST_ROWS: usize = 200;
/// No batch is made smaller than this: what a commit costs by itself would be all that is left.
pub const FEWEST_ROWS: usize = 10;
/// No batch is made larger than this, however fast the store is.
pub const MOST_ROWS: usize = super::chunk::CHUNK_ROWS;
/// By how many rows a batch grows; never by more than a quarter.
const STEP: usize = 25;
/// Up to so many percent of the aim a batch may grow: twice as much stays below the aim.
const ROOM_PERCENT: u32 = 45;
/// Below so many percent of it the next batch grows by a quarter: one slow moment of the disk is soon made good.
const FAR_PERCENT: u32 = 20;
/// Beyond so many percent of it the next batch is smaller.
const CLOSE_PERCENT: u32 = 75;
/// However long commits take, this part of the aim (a quarter) is for the work.
const LEAST_SHARE: u32 = 4;
/// When a halving made no batch shorter, so many batches are let be.
const IN_VAIN: u32 = 10;
/// A lock that cannot be had is tried so often, with ever smaller batches.
pub const LOCK_TRIES: u32 = 4;
/// The pause behind the first try.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// How long a transaction was open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    /// Until its commit.
    pub work: Duration,
    /// Its commit.
    pub commit: Duration,
}

impl Took {
    /// Of one that was open so long in all.
    #[must_use]
    pub fn new(whole: Duration, commit: Duration) -> Self {
        Self { work: whole.saturating_sub(commit), commit }
    }

    /// All of it.
    #[must_use]
    pub fn whole(self) -> Duration {
        self.work + self.commit
    }
}

/// The size of batches, and how it follows what they cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    aim: Duration,
    rows: usize,
    is_searching: bool,
    /// How long commits take, the last ones counting most.
    commit: Duration,
    /// The size and the time of the batch that was halved last.
    halved: Option<(usize, Duration)>,
    /// So many batches are not halved, because the last halving made none shorter.
    in_vain: u32,
}

impl Pace {
    /// A pace that aims at transactions of this length.
    #[must_use]
    pub fn new(aim: Duration) -> Self {
        Self { aim, rows: FIRST_ROWS, is_searching: true, commit: Duration::ZERO, halved: None, in_vain: 0 }
    }

    /// Rows of the next batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether a batch of so many rows is one that may go now.
    #[must_use]
    pub fn bears(&self, rows: usize) -> bool {
        pieces(rows, self.rows).len() == 1
    }

    /// Aims at another length from now on.
    pub fn aim_at(&mut self, aim: Duration) {
        self.aim = aim;
    }

    /// A batch of so many rows took so long.
    pub fn took(&mut self, rows: usize, Took { work: time, commit }: Took) {
        self.commit = (self.commit * 3 + commit) / 4;
        // On a disk that is slower than the aim no size is small enough; then it is the work that stays well below it.
        let aim = self.aim.saturating_sub(self.commit).max(self.aim / LEAST_SHARE);
        if time > aim {
            self.too_long(rows, time);
            return;
        }
        (self.halved, self.in_vain) = (None, 0);
        if time.saturating_mul(100) > aim.saturating_mul(CLOSE_PERCENT) {
            self.rows = (self.rows - self.rows / 8).max(FEWEST_ROWS);
            self.is_searching = false;
            return;
        }
        let is_full = rows.saturating_mul(4) >= self.rows.saturating_mul(3);
        let has_room = time.saturating_mul(100) <= aim.saturating_mul(ROOM_PERCENT);
        if is_full && has_room {
            let is_far = time.saturating_mul(100) <= aim.saturating_mul(FAR_PERCENT);
            let more = match (self.is_searching, is_far) {
                (true, _) => self.rows,
                (false, true) => (self.rows / 4).max(1),
                (false, false) => STEP.min(self.rows / 4).max(1),
            };
            self.rows = self.rows.saturating_add(more).min(MOST_ROWS);
        }
    }

    /// A batch took too long: the next is half as large, unless the last halving made none shorter. Then something else takes the time (the
    /// processors are taken, say), and fewer rows in a batch would only make the run longer.
    fn too_long(&mut self, rows: usize, time: Duration) {
        if self.in_vain > 0 {
            self.in_vain -= 1;
            return;
        }
        if let Some((before, longer)) = self.halved.take()
            && rows.saturating_mul(4) >= self.rows.saturating_mul(3)
            && rows.saturating_mul(4) <= before.saturating_mul(3)
            && time.saturating_mul(5) > longer.saturating_mul(4)
        {
            (self.rows, self.in_vain) = (before, IN_VAIN);
            return;
        }
        // A batch that was smaller than allowed says nothing good of a larger one.
        self.rows = self.rows.min(rows.max(1));
        self.halved = Some((self.rows, time));
        self.halve();
    }

    /// A batch could not have its locks, or ran into its statement's limit.
    pub fn blocked(&mut self) {
        self.halve();
    }

    fn halve(&mut self) {
        self.rows = (self.rows / 2).max(FEWEST_ROWS);
        self.is_searching = false;
    }
}

/// The pause behind the n-th try (from 1) that could not have its locks.
#[must_use]
pub fn lock_pause(attempt: u32) -> Duration {
    LOCK_PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(6))
}

/// The pause behind a batch so that no more than `limit` rows go in a second; none without a limit.
#[must_use]
pub fn rest(rows: usize, took: Duration, limit: Option<u32>) -> Duration {
    let Some(limit) = limit.filter(|limit| *limit > 0) else { return Duration::ZERO };
    let micros = (rows as u64).saturating_mul(1_000_000) / u64::from(limit);
    Duration::from_micros(micros).saturating_sub(took)
}

/// In which pieces a list is cut whose first piece is to have `size` rows: the rest in larger ones, cut again when their turn
/// comes, so that a row is sealed anew a few times and not once for every batch before it. One piece: it stays whole.
#[must_use]
pub fn pieces(rows: usize, size: usize) -> Vec<usize> {
    let size = size.max(1);
    // A little more than wanted is no reason to seal a list again.
    if rows <= size + size / 4 {
        return vec![rows];
    }
    let mut pieces = vec![size];
    let mut left = rows - size;
    while left > 0 {
        let piece = left.min(size.saturating_mul(4));
        pieces.push(piece);
        left -= piece;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AIM: Duration = Duration::from_millis(100);

    /// Runs batches whose time grows in a line with their rows; returns the times.
    fn run(pace: &mut Pace, batches: usize, (fixed, by_row): (u64, u64)) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..batches {
            let rows = pace.rows();
            let time = Duration::from_micros(fixed + by_row * rows as u64);
            pace.took(rows, Took::new(time, Duration::ZERO));
            times.push(time);
        }
        times
    }

    #[derive(Debug, Clone)]
    enum Event {
        Took(usize, u64),
        Blocked,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let took = (0_usize..5_000, 0_u64..10_000_000).prop_map(|(rows, micros)| Event::Took(rows, micros));
        prop::collection::vec(prop_oneof![4 => took, 1 => Just(Event::Blocked)], 0..200)
    }

    proptest! {
        #[test]
        fn whatever_happens_the_size_stays_in_its_bounds(events in events()) {
            let mut pace = Pace::new(AIM);
            for event in events {
                let (before, let_be) = (pace.rows(), pace.in_vain > 0);
                match event {
                    Event::Took(rows, micros) => {
                        pace.took(rows, Took::new(Duration::from_micros(micros), Duration::ZERO));
                        if Duration::from_micros(micros) > AIM {
                            let in_vain = if let_be { pace.rows() == before } else { pace.in_vain == IN_VAIN };
                            prop_assert!(pace.rows() < before || before == FEWEST_ROWS || in_vain);
                        }
                    }
                    Event::Blocked => {
                        pace.blocked();
                        prop_assert!(pace.rows() < before || before == FEWEST_ROWS);
                    }
                }
                prop_assert!((FEWEST_ROWS..=MOST_ROWS).contains(&pace.rows()));
            }
        }

        #[test]
        fn at_an_even_cost_it_comes_below_the_aim_and_stays_there(fixed in 0_u64..40_000, by_row in 1_u64..2_000) {
            // Ten rows fit into the aim with room.
            let times = run(&mut Pace::new(AIM), 600, (fixed, by_row));
            let first = times.iter().position(|time| *time <= AIM).unwrap();
            prop_assert!(first <= 5, "{first} batches were too long");
            let later = times[first..].iter().filter(|time| **time > AIM).count();
            prop_assert!(later <= 1, "{later} batches were too long after one was not");
            let room = AIM * ROOM_PERCENT / 100;
            let last = *times.last().unwrap();
            let most = Duration::from_micros(fixed + by_row * MOST_ROWS as u64);
            // It uses the room that there is.
            prop_assert!(last > room || last == most, "{last:?} of {AIM:?}");
        }

        #[test]
        fn when_a_row_costs_more_it_shrinks_in_a_few_batches(by_row in 1_u64..60, times_dearer in 2_u64..60) {
            let mut pace = Pace::new(AIM);
            run(&mut pace, 300, (1_000, by_row));
            let times = run(&mut pace, 12, (1_000, by_row * times_dearer));
            let limit = if by_row * times_dearer * FEWEST_ROWS as u64 + 1_000 <= 100_000 { AIM } else { Duration::MAX };
            prop_assert!(times[7..].iter().all(|time| *time <= limit), "{times:?}");
        }

        #[test]
        fn pieces_are_all_of_the_list_and_the_first_has_the_size(rows in 1_usize..10_000, size in 1_usize..3_000) {
            let pieces = pieces(rows, size);
            prop_assert_eq!(pieces.iter().sum::<usize>(), rows);
            prop_assert!(pieces.iter().all(|piece| *piece > 0));
            prop_assert!(pieces[0] <= size + size / 4);
            prop_assert!(pieces.len() > 1 || rows <= size + size / 4);
        }

        #[test]
        fn no_more_rows_go_in_a_second_than_allowed(rows in 1_usize..5_000, took in 0_u64..500_000, limit in 1_u32..100_000) {
            let took = Duration::from_micros(took);
            let whole = took + rest(rows, took, Some(limit));
            prop_assert!(whole.as_secs_f64() * f64::from(limit) >= rows as f64 - 0.2);
            prop_assert_eq!(rest(rows, took, None), Duration::ZERO);
        }
    }

    #[test]
    fn a_small_batch_lets_nothing_grow_and_a_long_one_shrinks_from_its_own_size() {
        let mut pace = Pace::new(AIM);
        let took = |pace: &mut Pace, rows, millis| {
            pace.took(rows, Took::new(Duration::from_millis(millis), Duration::ZERO));
        };
        took(&mut pace, 20, 1);
        assert_eq!(pace.rows(), FIRST_ROWS);
        took(&mut pace, 40, 101);
        assert_eq!(pace.rows(), 20);
        took(&mut pace, 20, 1);
        assert_eq!(pace.rows(), 25, "by a quarter, no more");
        pace.aim_at(Duration::from_millis(1));
        took(&mut pace, 25, 2);
        assert_eq!(pace.rows(), 12);
    }

    #[test]
    fn a_slow_disk_makes_no_batch_smaller_than_its_work_wants() {
        // 25 microseconds a row, and a commit that takes longer than the whole aim.
        let run = |pace: &mut Pace, commit: u64| {
            for _ in 0..200 {
                let work = Duration::from_micros(25 * pace.rows() as u64);
                let commit = Duration::from_millis(commit);
                pace.took(pace.rows(), Took { work, commit });
            }
            pace.rows()
        };
        let mut pace = Pace::new(AIM);
        let slow = run(&mut pace, 150);
        assert!((450..=750).contains(&slow), "{slow} rows are a quarter of the aim at most");
        let half = run(&mut pace, 50);
        assert!((900..=1_500).contains(&half), "{half} rows and a commit of 50 ms fill the aim at most");
        let quick = run(&mut pace, 1);
        assert!((1_700..=MOST_ROWS).contains(&quick), "{quick} rows are near half of the aim");
    }

    #[test]
    fn a_halving_that_makes_no_batch_shorter_is_taken_back() {
        // Whatever the rows, a batch waits 150 ms for something else.
        let mut pace = Pace::new(AIM);
        let mut sizes = Vec::new();
        for _ in 0..300 {
            pace.took(pace.rows(), Took::new(Duration::from_millis(150), Duration::ZERO));
            sizes.push(pace.rows());
        }
        assert!(sizes.iter().all(|rows| *rows >= FIRST_ROWS / 2), "{sizes:?}");
        assert!(sizes.iter().filter(|rows| **rows < FIRST_ROWS).count() < 40, "{sizes:?}");
        // As soon as it is the rows, the size follows them again.
        let times = run(&mut pace, 20, (1_000, 2_000));
        assert!(*times.last().unwrap() <= AIM, "{times:?}");
    }

    #[test]
    fn pauses_for_a_lock_grow() {
        let pauses: Vec<u128> = (1..=LOCK_TRIES).map(|attempt| lock_pause(attempt).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800]);
    }
}
