//! Whether the record of signing keys is the one that the operation log says.

use super::super::Result;
use super::super::oplog::{LoggedKeyRecords, logged_key_records};
use super::line;
use crate::installation::Installation;

/// How the newest record of signing keys stands beside the operation log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyRecord {
    /// It is the newest that was put into use.
    Logged,
    /// A newer one was put into use, of this number, and is gone; a revocation would be gone with it.
    Removed(u64),
    /// That it was to be was logged, and not that it is: the process ended in between.
    Announced,
    /// No entry is left, or was ever made, that names any: nothing says whether a newer one is gone. So it is with the first one of an
    /// installation, and years later.
    Unsaid,
    /// Others are logged, and this one, which is newer, is not: it came into the control database past this program.
    Unannounced,
}

impl KeyRecord {
    fn of(there: u64, logged: LoggedKeyRecords) -> Self {
        match logged {
            LoggedKeyRecords { used: Some(used), .. } if there < used => Self::Removed(used),
            LoggedKeyRecords { used: Some(used), .. } if there == used => Self::Logged,
            LoggedKeyRecords { announced: Some(announced), .. } if there <= announced => Self::Announced,
            LoggedKeyRecords { used: None, announced: None } => Self::Unsaid,
            _ => Self::Unannounced,
        }
    }
}

/// The record of signing keys is the one that the operation log says.
pub(super) async fn key_record(installation: &Installation) -> Result<Option<(String, bool, String)>> {
    let there = installation.signer.history().number;
    let stands = KeyRecord::of(there, logged_key_records(installation).await?);
    if there == 0 && matches!(stands, KeyRecord::Unsaid | KeyRecord::Announced) {
        return Ok(None);
    }
    let (good, said) = match stands {
        KeyRecord::Logged => (true, format!("record {there}, none that was logged is missing")),
        KeyRecord::Removed(used) => {
            (false, format!("record {there} is the newest, and record {used} was logged: it was removed"))
        }
        KeyRecord::Announced => (
            true,
            format!("record {there}; it was logged that it was to be, and nothing after: the change was interrupted"),
        ),
        KeyRecord::Unsaid => (
            true,
            format!("record {there}; no entry of the operation log names any, so nothing says whether one is missing"),
        ),
        KeyRecord::Unannounced => (false, format!("record {there} is there, and nobody logged that it was to be")),
    };
    Ok(Some(line("signing-keys", good, said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_signing_keys_stands_beside_the_log_in_one_of_five_ways() {
        let stands = |there, used, announced| KeyRecord::of(there, LoggedKeyRecords { used, announced });
        assert_eq!(stands(3, Some(3), Some(3)), KeyRecord::Logged);
        // Another one was to be, and failed.
        assert_eq!(stands(3, Some(3), Some(4)), KeyRecord::Logged);
        assert_eq!(stands(2, Some(3), Some(3)), KeyRecord::Removed(3));
        assert_eq!(stands(0, Some(1), Some(1)), KeyRecord::Removed(1));
        assert_eq!(stands(3, Some(2), Some(3)), KeyRecord::Announced);
        assert_eq!(stands(1, None, Some(1)), KeyRecord::Announced);
        assert_eq!(stands(1, None, None), KeyRecord::Unsaid);
        assert_eq!(stands(3, Some(2), Some(2)), KeyRecord::Unannounced);
        assert_eq!(stands(2, None, Some(1)), KeyRecord::Unannounced);
    }
}
