//! Has witnesses sign the log's head, after each group of filings and at least once an hour: the time under their signatures
//! tells how fresh a head is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::filing::chain;
use crate::audit::witness::{Witness, WitnessAnswer, Witnesses};
use crate::log::checkpoint::SignedCheckpoint;
use crate::log::cosignature::{WitnessKey, add_checkpoint, with_signatures};
use crate::log::proofs::ProofReader;
use crate::log::sequencer::Sequencer;

/// How often a head that does not grow is signed again.
pub(super) const HEARTBEAT: Duration = Duration::from_hours(1);

/// How long a witness that failed is not asked for filings, which would wait for it.
const PAUSE: Duration = Duration::from_mins(1);

/// The witnesses, and what they signed last.
pub(super) struct Cosigned {
    witnesses: Witnesses,
    last: Mutex<Last>,
    /// Held while they are asked, so that rounds come one after the other.
    peers: Mutex<Vec<Peer>>,
}

#[derive(Default)]
struct Last {
    /// The head's text with the log's own signature.
    note: String,
    lines: Vec<String>,
}

/// What is remembered of a witness.
#[derive(Clone, Copy, Default)]
struct Peer {
    /// The size that it knows.
    known: u64,
    /// When it failed last, unless it signed since.
    failed: Option<Instant>,
}

impl Cosigned {
    pub(super) fn new(witnesses: Witnesses) -> Self {
        let peers = vec![Peer::default(); witnesses.clients.len()];
        Self { witnesses, last: Mutex::new(Last::default()), peers: Mutex::new(peers) }
    }

    /// The head's note with all signatures of witnesses that are there.
    pub(super) async fn of(&self, head: &SignedCheckpoint) -> String {
        let last = self.last.lock().await;
        if last.note != head.note {
            return head.note.clone();
        }
        with_signatures(&head.note, &last.lines).unwrap_or_else(|_| head.note.clone())
    }

    /// The head with them.
    pub(super) async fn best(&self, head: SignedCheckpoint) -> SignedCheckpoint {
        SignedCheckpoint { note: self.of(&head).await, ..head }
    }

    /// Asks all witnesses at once, but for those that failed just now. One that is away or refuses is told in the log, and the
    /// head stays without it.
    pub(super) async fn ask(&self, sequencer: &Sequencer, head: &SignedCheckpoint) {
        if self.witnesses.clients.is_empty() {
            return;
        }
        let mut peers = self.peers.lock().await;
        let keys = self.witnesses.quorum.witnesses();
        let asked = self.witnesses.clients.iter().zip(keys).zip(&mut *peers).map(async |((client, key), peer)| {
            if peer.failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
                return None;
            }
            let line = ask_one(sequencer, head, client, key, peer.known).await;
            match &line {
                Some(_) => *peer = Peer { known: head.checkpoint.size, failed: None },
                None => peer.failed = Some(Instant::now()),
            }
            line
        });
        let lines: Vec<String> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        let mut last = self.last.lock().await;
        // An older signature of the same head is better than none.
        if last.note != head.note || lines.len() >= last.lines.len() {
            *last = Last { note: head.note.clone(), lines };
        }
    }
}

async fn ask_one(
    sequencer: &Sequencer,
    head: &SignedCheckpoint,
    client: &Arc<dyn Witness>,
    key: &WitnessKey,
    known: u64,
) -> Option<String> {
    let mut known = known;
    // The second time with the size that the witness itself named.
    for _ in 0..2 {
        let proof = ProofReader::new(&**sequencer.store()).consistency(known, head.checkpoint.size).await;
        let proof = match proof {
            Ok(Some(proof)) => proof,
            Ok(None) => {
                tracing::error!(witness = key.name(), known, "a witness knows this log larger than it is here");
                return None;
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "no proof for a witness could be made");
                return None;
            }
        };
        match client.add_checkpoint(add_checkpoint(known, &proof, &head.note)).await {
            Ok(WitnessAnswer::Signed(reply)) => match key.line_of_reply(&head.note, &reply) {
                Ok(line) => return Some(line),
                Err(error) => {
                    tracing::warn!(witness = key.name(), error = %error, "a witness's signature does not count");
                    return None;
                }
            },
            Ok(WitnessAnswer::Knows(size)) => known = size,
            Err(error) => {
                tracing::warn!(witness = key.name(), error = %error, "a witness did not sign");
                return None;
            }
        }
    }
    None
}

/// Asks again and again, until it is aborted.
pub(super) async fn beat(cosigned: Arc<Cosigned>, sequencer: Arc<Sequencer>) {
    loop {
        match sequencer.latest().await {
            Ok(head) => cosigned.ask(&sequencer, &head).await,
            Err(error) => tracing::error!(error = %chain(&error), "the audit log's head cannot be read"),
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}
