//! `[root]` with `kind = "aws-kms"`.

use std::path::PathBuf;
use std::time::Duration;

use super::Place;
use super::secret::SecretValue;
use super::section::Reading;
use crate::keys::kms_slot::{DELETION_WINDOW_DAYS, KmsSetup};
use crate::policy::registry::SecretText;

/// The least time between two generations, unless something else is said, in hours.
const INTERVAL_HOURS: u32 = 24;
/// A year: longer, and nothing is erased in time. In hours.
const LONGEST_INTERVAL_HOURS: u32 = 366 * 24;
/// The pause before an answer that may be old is asked for again, the first of a row that doubles to some six seconds.
const STALE_PAUSE: Duration = Duration::from_millis(200);

/// What is written there.
pub(super) struct RawKms<'r> {
    pub(super) region: Option<&'r str>,
    pub(super) endpoint: Option<&'r str>,
    pub(super) access_key_id: Option<&'r SecretValue>,
    pub(super) secret_access_key: Option<&'r SecretValue>,
    pub(super) deletion_window_days: Option<u8>,
    pub(super) minimum_interval_hours: Option<u32>,
}

impl RawKms<'_> {
    pub(super) fn check(&self, place: &Place, folder: Option<PathBuf>, reading: &mut Reading<'_>) -> Option<KmsSetup> {
        let region = self.region(place, reading);
        let endpoint = match self.endpoint {
            Some(endpoint) => Some(reading.endpoint(&place.key("endpoint"), endpoint)?),
            None => None,
        };
        let keys = self.keys(place, reading)?;
        let days = self.deletion_window_days.unwrap_or(*DELETION_WINDOW_DAYS.start());
        if !DELETION_WINDOW_DAYS.contains(&days) {
            let (least, most) = DELETION_WINDOW_DAYS.into_inner();
            let what = format!("the service waits {least} to {most} days");
            reading.fault(&place.key("deletion_window_days"), what, format!("write {least} unless you want it later"));
            return None;
        }
        let hours = self.minimum_interval_hours.unwrap_or(INTERVAL_HOURS);
        if hours > LONGEST_INTERVAL_HOURS {
            let what = format!("at most {LONGEST_INTERVAL_HOURS} hours");
            reading.fault(&place.key("minimum_interval_hours"), what, "nothing is erased before a generation changes");
            return None;
        }
        Some(KmsSetup {
            region: region?,
            endpoint,
            keys,
            folder: folder?,
            deletion_window_days: days,
            minimum_interval: Duration::from_hours(u64::from(hours)),
            timeout: None,
            stale_pause: STALE_PAUSE,
        })
    }

    fn region(&self, place: &Place, reading: &mut Reading<'_>) -> Option<String> {
        let is_name = |text: &str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            !text.is_empty() && text.chars().all(plain)
        };
        match self.region {
            Some(region) if is_name(region) => Some(region.to_owned()),
            Some(_) => {
                reading.fault(&place.key("region"), "not the name of a region", "write `eu-west-1`, or the like");
                None
            }
            None => {
                let advice = "add `region = \"eu-west-1\"` here: the region in which the keys are made";
                reading.fault(place, "the key `region` is missing", advice);
                None
            }
        }
    }

    /// The outer `None` after a fault, the inner one when the default chain decides.
    #[expect(clippy::option_option, reason = "a fault is told from keys that are not given")]
    fn keys(&self, place: &Place, reading: &mut Reading<'_>) -> Option<Option<(SecretText, SecretText)>> {
        match (self.access_key_id, self.secret_access_key) {
            (None, None) => Some(None),
            (Some(id), Some(secret)) => {
                let id = reading.secret(&place.key("access_key_id"), id);
                let secret = reading.secret(&place.key("secret_access_key"), secret);
                Some(Some((id?, secret?)))
            }
            (id, _) => {
                let (there, missing) = match id {
                    Some(_) => ("access_key_id", "secret_access_key"),
                    None => ("secret_access_key", "access_key_id"),
                };
                let what = format!("`{there}` without `{missing}`");
                reading.fault(&place.key(there), what, "give both, or neither for the AWS default chain");
                None
            }
        }
    }
}
