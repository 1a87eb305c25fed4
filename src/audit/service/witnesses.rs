//! Has witnesses sign the log's head, after each group of filings and at least once an hour: the time under their signatures
//! tells how fresh a head is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::filing::chain;
use crate::audit::witness::{Witness, WitnessAnswer, WitnessFailed, Witnesses, Witnessing};
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
    /// The head's size.
    size: u64,
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
        let notes = &self.witnesses.notes;
        let asked = self.witnesses.clients.iter().zip(keys).zip(&mut *peers).map(async |((client, key), peer)| {
            // One that signed a later head meanwhile has nothing to say of this one.
            if peer.known > head.checkpoint.size || peer.failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
                return None;
            }
            let asked = ask_one(sequencer, head, client, key, peer.known).await?;
            let (line, found) = match asked {
                Ok(line) => {
                    *peer = Peer { known: head.checkpoint.size, failed: None };
                    let signed_at = with_signatures(&head.note, std::slice::from_ref(&line)).ok();
                    let signed_at = signed_at.and_then(|note| key.signed_at(&note));
                    (Some(line), signed_at.map_or(Witnessing::Failed(WitnessFailed::BadSignature), Witnessing::Signed))
                }
                Err(failed) => {
                    tracing::warn!(witness = key.name(), error = %failed, "a witness did not sign");
                    peer.failed = Some(Instant::now());
                    (None, Witnessing::Failed(failed))
                }
            };
            if let Some(notes) = notes {
                notes.note(key.name(), found).await;
            }
            line
        });
        let lines: Vec<String> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        let mut last = self.last.lock().await;
        let size = head.checkpoint.size;
        // A larger head keeps what it has. An older signature of the same head is better than none.
        let is_other = size > last.size || (size == last.size && last.note != head.note);
        if is_other || (last.note == head.note && lines.len() >= last.lines.len()) {
            *last = Last { size, note: head.note.clone(), lines };
        }
    }
}

/// A witness's signature line; none when nothing can be said of it, because this log's own head is not there to be proved.
async fn ask_one(
    sequencer: &Sequencer,
    head: &SignedCheckpoint,
    client: &Arc<dyn Witness>,
    key: &WitnessKey,
    known: u64,
) -> Option<Result<String, WitnessFailed>> {
    let mut known = known;
    // The second time with the size that the witness itself named.
    for _ in 0..2 {
        let proof = ProofReader::new(&**sequencer.store()).consistency(known, head.checkpoint.size).await;
        let proof = match proof {
            Ok(Some(proof)) => proof,
            Ok(None) => return is_beyond(sequencer, known).await.then_some(Err(WitnessFailed::OtherHistory)),
            Err(error) => {
                tracing::error!(error = %chain(&error), "no proof for a witness could be made");
                return None;
            }
        };
        match client.add_checkpoint(add_checkpoint(known, &proof, &head.note)).await {
            Ok(WitnessAnswer::Signed(reply)) => {
                return Some(key.line_of_reply(&head.note, &reply).map_err(|_| WitnessFailed::BadSignature));
            }
            // It knows this very size, and refuses the head: it has another root there.
            Ok(WitnessAnswer::Knows(size)) if size == known && size == head.checkpoint.size => {
                return Some(Err(WitnessFailed::OtherHistory));
            }
            Ok(WitnessAnswer::Knows(size)) => known = size,
            Err(error) => return Some(Err(error)),
        }
    }
    // It names one size after the other, and signs none.
    Some(Err(WitnessFailed::Unreachable))
}

/// Whether a size lies beyond this log, also as it is by now: then somebody saw more of it than there is.
async fn is_beyond(sequencer: &Sequencer, size: u64) -> bool {
    sequencer.latest().await.is_ok_and(|head| head.checkpoint.size < size)
}

/// Asks again and again with such pauses, also while nothing is filed, until it is aborted.
pub(super) async fn beat(cosigned: Arc<Cosigned>, sequencer: Arc<Sequencer>, every: Duration) {
    loop {
        match sequencer.latest().await {
            Ok(head) => cosigned.ask(&sequencer, &head).await,
            Err(error) => tracing::error!(error = %chain(&error), "the audit log's head cannot be read"),
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex as StdMutex;

    use async_trait::async_trait;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::audit::witness::WitnessNotes;
    use crate::control::log_store::SqlLogStore;
    use crate::log::cosignature::{Quorum, cosign};
    use crate::log::key_file::create_checkpoint_key;
    use crate::log::store::NewLeaf;
    use crate::random::SystemRandom;

    /// A witness whose clock goes on a second with every signature.
    struct Counting {
        pair: Ed25519KeyPair,
        key: WitnessKey,
        seconds: StdMutex<u64>,
    }

    #[async_trait]
    impl Witness for Counting {
        async fn add_checkpoint(&self, body: String) -> Result<WitnessAnswer, WitnessFailed> {
            let mut seconds = self.seconds.lock().unwrap();
            *seconds += 1;
            let note = body.split_once("\n\n").unwrap().1;
            Ok(WitnessAnswer::Signed(cosign(&self.pair, &self.key, note, *seconds)))
        }
    }

    /// Keeps what was noted.
    #[derive(Default)]
    struct Noted(StdMutex<Vec<Witnessing>>);

    #[async_trait]
    impl WitnessNotes for Noted {
        async fn note(&self, _: &str, found: Witnessing) {
            self.0.lock().unwrap().push(found);
        }
    }

    /// A witness that signs nothing and knows the log at this size.
    struct Knowing(u64);

    #[async_trait]
    impl Witness for Knowing {
        async fn add_checkpoint(&self, _: String) -> Result<WitnessAnswer, WitnessFailed> {
            Ok(WitnessAnswer::Knows(self.0))
        }
    }

    async fn log_in(folder: &Path) -> Arc<Sequencer> {
        let signer = create_checkpoint_key(&folder.join("key.pem"), "log.example/one", &SystemRandom).unwrap();
        let store = SqlLogStore::open(&folder.join("log.db"), "certificates").await.unwrap();
        Arc::new(Sequencer::open(Arc::new(store), signer, None).await.unwrap())
    }

    async fn append(sequencer: &Sequencer) -> SignedCheckpoint {
        let (entry, content) = (b"entry".to_vec(), Vec::new());
        let leaf = NewLeaf { id: "one".to_owned(), entry, salt: None, content, time_ms: 0 };
        sequencer.append(&[leaf]).await.unwrap();
        sequencer.latest().await.unwrap()
    }

    fn counting() -> (Counting, WitnessKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        let key = WitnessKey::new("witness.example/one", public).unwrap();
        (Counting { pair, key: key.clone(), seconds: StdMutex::new(1_000) }, key)
    }

    fn witnessed(client: Arc<dyn Witness>, key: &WitnessKey, notes: &Arc<Noted>) -> Arc<Cosigned> {
        let quorum = Quorum::new(vec![key.clone()], 1).unwrap();
        Arc::new(Cosigned::new(Witnesses { quorum, clients: vec![client], notes: Some(notes.clone()) }))
    }

    #[tokio::test]
    async fn an_older_head_takes_no_signature_from_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let sequencer = log_in(folder.path()).await;
        let (client, key) = counting();
        let cosigned = witnessed(Arc::new(client), &key, &Arc::default());
        let older = sequencer.latest().await.unwrap();
        let newer = append(&sequencer).await;
        for head in [&newer, &older] {
            cosigned.ask(&sequencer, head).await;
            assert!(key.signed_at(&cosigned.of(&newer).await).is_some());
        }
        assert_eq!(cosigned.of(&older).await, older.note);
    }

    #[tokio::test]
    async fn a_witness_that_knows_the_size_by_another_root_saw_another_history() {
        let folder = tempfile::tempdir().unwrap();
        let sequencer = log_in(folder.path()).await;
        let head = append(&sequencer).await;
        let notes = Arc::new(Noted::default());
        let cosigned = witnessed(Arc::new(Knowing(head.checkpoint.size)), &counting().1, &notes);
        cosigned.ask(&sequencer, &head).await;
        assert_eq!(*notes.0.lock().unwrap(), [Witnessing::Failed(WitnessFailed::OtherHistory)]);
    }

    #[tokio::test]
    async fn a_log_to_which_nothing_is_added_is_signed_anew() {
        let folder = tempfile::tempdir().unwrap();
        let sequencer = log_in(folder.path()).await;
        let (client, key) = counting();
        let notes = Arc::new(Noted::default());
        let cosigned = witnessed(Arc::new(client), &key, &notes);
        let beating = tokio::spawn(beat(cosigned.clone(), sequencer.clone(), Duration::from_millis(5)));
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let head = sequencer.latest().await.unwrap();
            assert_eq!(head.checkpoint.size, 0);
            let at = key.signed_at(&cosigned.of(&head).await);
            seen.extend(at.filter(|at| seen.last() != Some(at)));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        beating.abort();
        assert!(seen.is_sorted(), "{seen:?}");
        let signed: Vec<_> = notes.0.lock().unwrap().iter().copied().take(3).collect();
        let times = (1_001..).filter_map(|at| chrono::DateTime::from_timestamp(at, 0)).take(3);
        assert_eq!(signed, times.map(Witnessing::Signed).collect::<Vec<_>>());
    }
}
