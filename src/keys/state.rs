//! The states of a key in the words of NIST SP 800-57 part 1 (rev. 5, section 7), mapped from what is recorded in one place.

use schemars::JsonSchema;
use serde::Serialize;

/// A state of SP 800-57.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// Its slot is given out and holds no key yet: a preserving pin before the generation change that fills it.
    PreActive,
    /// It seals new data.
    Active,
    /// It was to be destroyed, and a legal hold stops that.
    Suspended,
    /// It seals nothing new and still opens: the chain of a finished snapshot, a key that is marked for destruction, or one that is gone
    /// from the tree while an older root that leads to it could be brought back.
    Deactivated,
    /// Somebody else may know it. The program cannot see that by itself and enters this state nowhere.
    Compromised,
    /// It is gone from the key tree, within the limits of the root slot.
    Destroyed,
}

impl KeyState {
    /// All of them, in the order of a key's life.
    pub const ALL: [Self; 6] =
        [Self::PreActive, Self::Active, Self::Suspended, Self::Deactivated, Self::Compromised, Self::Destroyed];

    /// Its name, as SP 800-57 has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PreActive => "pre-active",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deactivated => "deactivated",
            Self::Compromised => "compromised",
            Self::Destroyed => "destroyed",
        }
    }
}

/// What the control database records of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four facts, each by itself")]
pub struct RecordedKey<'r> {
    /// `active`, `dying` or `destroyed`.
    pub state: &'r str,
    /// Whether the slot holds a key.
    pub is_filled: bool,
    /// Whether new data is sealed under it.
    pub seals: bool,
    /// Whether a hold stops its destruction.
    pub is_held: bool,
    /// Whether an older root that leads to it is not irrevocably gone yet.
    pub is_revocable: bool,
}

/// The state of a recorded key. What is recorded in an unknown word is not called destroyed.
#[must_use]
pub fn state_of(key: RecordedKey<'_>) -> KeyState {
    match key.state {
        "destroyed" if key.is_revocable => KeyState::Deactivated,
        "destroyed" => KeyState::Destroyed,
        _ if !key.is_filled => KeyState::PreActive,
        "active" if key.seals => KeyState::Active,
        "dying" if key.is_held => KeyState::Suspended,
        _ => KeyState::Deactivated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_states_are_mapped_in_the_words_of_sp_800_57() {
        let active = RecordedKey { state: "active", is_filled: true, seals: true, is_held: false, is_revocable: false };
        let dying = RecordedKey { state: "dying", ..active };
        let cases = [
            (active, KeyState::Active),
            (RecordedKey { seals: false, ..active }, KeyState::Deactivated),
            (RecordedKey { is_filled: false, ..active }, KeyState::PreActive),
            (dying, KeyState::Deactivated),
            (RecordedKey { is_held: true, ..dying }, KeyState::Suspended),
            (RecordedKey { state: "destroyed", is_filled: false, ..active }, KeyState::Destroyed),
            (RecordedKey { state: "destroyed", is_revocable: true, ..active }, KeyState::Deactivated),
            (RecordedKey { state: "unheard-of", ..active }, KeyState::Deactivated),
        ];
        for (key, state) in cases {
            assert_eq!(state_of(key), state, "{key:?}");
        }
    }

    #[test]
    fn every_state_is_written_as_it_is_named() {
        for state in KeyState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}
