//! The wish to stop, and what must be brought to an end first.
//!
//! Every step of the program is durable or undone by the next start, so work may be dropped at any await. Some pieces are
//! better finished all the same — a batch with its outcome, a change of key generation — because somebody would have to
//! settle them later. Such a piece is [begun](Stop::begin) here: none begins once a stop was asked for, and whoever drops
//! the work waits until nothing is [in hand](InHand). Work that [runs out of time](Stop::within) is dropped in the same way.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

#[derive(Debug, Clone, Copy, Default)]
struct State {
    asked: bool,
    /// The time of the work is over.
    late: bool,
    in_hand: usize,
}

/// One switch for a process and everything that works in it. It is never switched back.
#[derive(Debug, Default)]
pub struct Stop {
    state: watch::Sender<State>,
}

/// Lets nothing begin, for as long as this lives.
struct Late<'s>(&'s Stop);

impl Drop for Late<'_> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.late = false);
    }
}

/// A piece of work that is not to be cut off, for as long as this lives.
#[derive(Debug)]
pub struct InHand {
    stop: Arc<Stop>,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.stop.state.send_modify(|state| state.in_hand -= 1);
    }
}

impl Stop {
    /// Asks for a stop.
    pub fn ask(&self) {
        self.state.send_modify(|state| state.asked = true);
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.state.borrow().asked
    }

    /// Begins a piece of work that is not to be cut off; `None` once a stop was asked for or the work is out of time.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Option<InHand> {
        let begun = self.state.send_if_modified(|state| {
            let may = !state.asked && !state.late;
            state.in_hand += usize::from(may);
            may
        });
        begun.then(|| InHand { stop: Arc::clone(self) })
    }

    /// Returns once a stop was asked for.
    pub async fn asked(&self) {
        let _ = self.state.subscribe().wait_for(|state| state.asked).await;
    }

    /// Returns once a stop was asked for and nothing is in hand: from then on all work may be dropped.
    pub async fn ready(&self) {
        let _ = self.state.subscribe().wait_for(|state| state.asked && state.in_hand == 0).await;
    }

    /// Works for so long; `None` when that was too short. What is in hand then is brought to its end before the work is dropped,
    /// and nothing new begins; it gets as long again, because a server that never answers must not keep everything else waiting.
    pub async fn within<T>(&self, time: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        if let Ok(done) = timeout(time, work.as_mut()).await {
            return Some(done);
        }
        self.state.send_modify(|state| state.late = true);
        let _late = Late(self);
        let nothing_in_hand = async {
            let _ = self.state.subscribe().wait_for(|state| state.in_hand == 0).await;
        };
        let ended = async {
            tokio::select! {
                biased;
                () = nothing_in_hand => {}
                _ = work => {}
            }
        };
        if timeout(time, ended).await.is_err() {
            tracing::warn!("a piece of work did not end in time, and is dropped");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn comes(wait: impl Future<Output = ()>) -> bool {
        tokio::time::timeout(Duration::from_millis(20), wait).await.is_ok()
    }

    #[tokio::test]
    async fn what_is_in_hand_ends_first_and_nothing_new_begins() {
        let stop = Arc::new(Stop::default());
        let first = stop.begin().unwrap();
        let second = stop.begin().unwrap();
        assert!(!comes(stop.asked()).await);
        stop.ask();
        assert!(stop.is_asked() && comes(stop.asked()).await);
        assert!(stop.begin().is_none(), "nothing begins any more");
        drop(first);
        assert!(!comes(stop.ready()).await, "one piece is still in hand");
        drop(second);
        assert!(comes(stop.ready()).await);
    }

    #[tokio::test]
    async fn what_is_in_hand_when_the_time_is_over_ends_and_nothing_new_begins() {
        let stop = Arc::new(Stop::default());
        let time = Duration::from_millis(200);
        assert_eq!(stop.within(time, async { 7 }).await, Some(7));
        let mut steps = Vec::new();
        let work = async {
            let piece = stop.begin().unwrap();
            tokio::time::sleep(time * 3 / 2).await;
            steps.push("ended");
            drop(piece);
            if stop.begin().is_some() {
                steps.push("begun again");
            }
            tokio::time::sleep(time).await;
            steps.push("not dropped");
        };
        assert_eq!(stop.within(time, work).await, None);
        assert_eq!(steps, ["ended"]);
        // One that never ends is dropped after as long again, and others begin again behind it.
        let endless = async {
            let _piece = stop.begin().unwrap();
            std::future::pending::<()>().await;
        };
        assert!(tokio::time::timeout(time * 50, stop.within(time, endless)).await.unwrap().is_none());
        stop.begin().unwrap();
        stop.ask();
        assert!(comes(stop.ready()).await, "nothing is in hand any more");
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let stop = Arc::new(Stop::default());
        let held = stop.begin().unwrap();
        let waiting = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move { stop.ready().await }
        });
        stop.ask();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    }
}
