//! Reading objects: whole answers in time, and once more when something was lost on the way.
//!
//! The SDK tries again what fails before an answer begins. What breaks off, stalls or changes behind that is for us: most names
//! hold the digest of their object, so damage on the way is told from damage in the bucket by reading again.

use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use tokio::time::timeout;

use super::{RepositoryError, Result, S3Repository, classify, corrupt};
use crate::backup::codec::Sha256;
use crate::random::{Random as _, SystemRandom};

/// Before the second try; it doubles with each, and a random part of it is waited.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// What came of one try.
enum Read {
    Whole(Vec<u8>),
    /// The answer ended before its end, or nothing came any more.
    BrokenOff(&'static str),
    /// More bytes than there can be: another answer than to this question, perhaps.
    TooLong,
}

impl S3Repository {
    /// Fetches an object, or a range of one, of at most `limit` bytes. Tries again while answers break off; a whole object that is
    /// not what its name says, and a range of another length, is read again too, and given as it is when it stays so.
    pub(super) async fn fetch(&self, name: &str, range: Option<&str>, limit: usize) -> Result<Vec<u8>> {
        let digest = digest_in(name).filter(|_| range.is_none());
        let is_good = |bytes: &[u8]| match range {
            Some(_) => bytes.len() == limit,
            None => digest.is_none_or(|digest| Sha256::of(bytes) == digest),
        };
        for tried in 1.. {
            let read = timeout(self.patience.attempt, self.read_once(name, range, limit)).await;
            let is_last = tried >= self.patience.attempts;
            match read.unwrap_or(Ok(Read::BrokenOff("the answer did not end in time")))? {
                Read::Whole(bytes) if is_last || is_good(&bytes) => return Ok(bytes),
                Read::TooLong if is_last => return Err(corrupt(name, "longer than expected")),
                Read::BrokenOff(detail) if is_last => {
                    return Err(RepositoryError::Unreachable { operation: "get", detail: detail.to_owned() });
                }
                Read::Whole(_) | Read::BrokenOff(_) | Read::TooLong => pause(tried).await,
            }
        }
        Err(corrupt(name, "never read"))
    }

    async fn read_once(&self, name: &str, range: Option<&str>, limit: usize) -> Result<Read> {
        let get = self.client.get_object().bucket(&self.bucket).key(self.key(name));
        let sent = get.set_range(range.map(str::to_owned)).send();
        let answer: GetObjectOutput = sent.await.map_err(|error| classify("get", name, &self.bucket, &error))?;
        let stated = answer.content_length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        if stated > limit {
            return Ok(Read::TooLong);
        }
        let mut bytes = Vec::with_capacity(stated);
        let mut body = answer.body;
        while let Some(piece) = body.next().await {
            let Ok(piece) = piece else { return Ok(Read::BrokenOff("the answer broke off")) };
            if bytes.len() + piece.len() > limit {
                return Ok(Read::TooLong);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Read::Whole(bytes))
    }
}

impl S3Repository {
    /// A page of a listing, read again while it is not whole: the SDK takes a listing that ends early for a short one.
    pub(super) async fn list_page(&self, prefix: &str, from: Option<&str>) -> Result<ListObjectsV2Output> {
        for tried in 1.. {
            let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(self.key(prefix));
            let sent = list.set_continuation_token(from.map(str::to_owned)).send();
            let page = sent.await.map_err(|error| classify("list", prefix, &self.bucket, &error))?;
            if is_whole(&page) {
                return Ok(page);
            }
            if tried >= self.patience.attempts {
                break;
            }
            pause(tried).await;
        }
        Err(RepositoryError::Unreachable { operation: "list", detail: "the listing broke off".to_owned() })
    }
}

/// Whether a page has as many objects as it says. A server that does not say so must at least say whether there are more.
fn is_whole(page: &ListObjectsV2Output) -> bool {
    let there = page.contents().len() + page.common_prefixes().len();
    match page.key_count {
        Some(stated) => usize::try_from(stated) == Ok(there),
        None => page.is_truncated.is_some(),
    }
}

/// The digest that a name ends with, if it does.
fn digest_in(name: &str) -> Option<Sha256> {
    Sha256::parse(name.rsplit(['/', '-']).next()?)
}

/// Waits before the try after this one (counted from 1): up to twice as long each time, a random part of it, so that many agents do
/// not come back together.
pub(super) async fn pause(tried: u32) {
    let most = FIRST_PAUSE.saturating_mul(1 << tried.saturating_sub(1).min(6));
    let mut part = [0; 2];
    // Without randomness the whole of it is waited.
    let part = SystemRandom.fill(&mut part).map_or(u16::MAX, |()| u16::from_be_bytes(part));
    tokio::time::sleep(most.mul_f64(f64::from(part) / f64::from(u16::MAX))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_with_digests_or_do_not() {
        let digest = Sha256::of(b"x");
        for name in
            [format!("packs/{digest}"), format!("state/7-2-{digest}"), format!("manifests/ab/0000000001-{digest}")]
        {
            assert_eq!(digest_in(&name), Some(digest), "{name}");
        }
        for name in ["installation.json", "probes/00112233445566778899aabbccddeeff", ""] {
            assert_eq!(digest_in(name), None, "{name}");
        }
    }
}
