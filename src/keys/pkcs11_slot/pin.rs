//! PINs: a wrong one is tried once, not until the token locks itself.
//!
//! When a token refuses a PIN, that is noted in the slot's folder (`pin.refused`), and this PIN is not shown to this token again
//! by any process, until another PIN is configured or an operator allows another try. The note holds the token's serial number and
//! 16 bits of a keyed digest of the PIN: enough to tell that another one is configured now, and next to nothing about it. (One in
//! 65,536 other PINs is taken for the same; then the operator's word helps.)
//!
//! A process that is killed between the refusal and the note may cost one more try. Before that locks a token, the token says that
//! it is the last one, and then none is made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cryptoki::slot::TokenInfo;
use serde::{Deserialize, Serialize};

use crate::keys::slot::{PinTrouble, SlotError};
use crate::keys::slot_folder::{self, io_fault, read_at_most, sync_directory};
use crate::keys::suite::{Suite, mac};
use crate::keys::{InstallationId, Key};
use crate::policy::registry::SecretText;

type Result<T, E = SlotError> = std::result::Result<T, E>;

const NOTE: &str = "pin.refused";
const DRAFT: &str = "pin.new";
const FORMAT: u8 = 1;
/// No note comes near this size, in bytes.
const NOTE_LIMIT: usize = 1024;
/// Bytes of the digest that are kept.
const MARK_BYTES: usize = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    format: u8,
    /// The serial number of the token.
    token: String,
    /// The first bits of the PIN's digest, in hex.
    mark: String,
}

/// What keeps a PIN from being tried at all, as the token says it.
pub(super) fn trouble(info: &TokenInfo) -> Option<PinTrouble> {
    let said = [
        (info.user_pin_locked(), PinTrouble::Locked),
        (!info.user_pin_initialized(), PinTrouble::NotSet),
        (info.user_pin_to_be_changed(), PinTrouble::ToBeChanged),
        (info.user_pin_final_try(), PinTrouble::FinalTry),
    ];
    said.into_iter().find(|(is_so, _)| *is_so).map(|(_, trouble)| trouble)
}

/// What was noted about one token's PIN.
pub(super) struct Notes<'s> {
    pub(super) folder: &'s Path,
    pub(super) installation: &'s InstallationId,
    pub(super) pin: &'s SecretText,
}

impl Notes<'_> {
    /// Whether this PIN was refused by the token with this serial number. A note that cannot be read holds every PIN back.
    pub(super) fn hold_back(&self, serial: &str) -> Result<bool> {
        let path = self.path();
        let bytes = match read_at_most(&path, NOTE_LIMIT) {
            Ok(bytes) => bytes,
            Err(SlotError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let Ok(note) = serde_json::from_slice::<Note>(&bytes) else { return Ok(true) };
        Ok(note.format != FORMAT || (note.token == serial && note.mark == self.mark(serial)))
    }

    /// Notes that the token refused the PIN; durable when this returns.
    pub(super) fn write(&self, serial: &str) -> Result<()> {
        let note = Note { format: FORMAT, token: serial.to_owned(), mark: self.mark(serial) };
        let text = serde_json::to_vec(&note)
            .map_err(|_| SlotError::Damaged { path: self.path(), what: "it cannot be written as JSON" })?;
        slot_folder::put(self.folder, NOTE, DRAFT, &text)
    }

    /// Removes the note, if there is one.
    pub(super) fn forget(&self) -> Result<()> {
        let path = self.path();
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(self.folder),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(fault) => Err(io_fault("remove", &path)(fault)),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(NOTE)
    }

    fn mark(&self, serial: &str) -> String {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(self.installation);
        let key = Key::dangerous_from_bytes(&bytes);
        let parts: [&[u8]; 3] = [b"wangchuan pin", serial.as_bytes(), self.pin.dangerous_text().as_bytes()];
        hex::encode(&mac(Suite::Intl, &key, &parts)[..MARK_BYTES])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_pin_is_held_back_from_that_token_until_another_is_configured() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["1234", "1235"].map(|pin| SecretText::new(pin.to_owned()));
        let of = |pin| Notes { folder: folder.path(), installation: &[7; 16], pin };
        assert!(!of(&first).hold_back("a").unwrap());
        of(&first).write("a").unwrap();
        assert!(of(&first).hold_back("a").unwrap(), "the same again");
        assert!(!of(&second).hold_back("a").unwrap(), "another PIN");
        assert!(!of(&first).hold_back("b").unwrap(), "another token");
        let text = fs::read_to_string(folder.path().join(NOTE)).unwrap();
        assert!(text.len() < 60 && !text.contains("1234"), "{text}");
        fs::write(folder.path().join(NOTE), "?").unwrap();
        assert!(of(&second).hold_back("a").unwrap(), "rather none than one too many");
        of(&second).forget().unwrap();
        of(&second).forget().unwrap();
        assert!(!of(&first).hold_back("a").unwrap());
    }
}
