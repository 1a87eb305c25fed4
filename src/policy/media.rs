//! Storage media: which way of sanitising one reaches what, in the terms of NIST SP 800-88, and what shows that it was done. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A closed list whose members have one name everywhere: in records, certificates and on the command line.
macro_rules! names {
    ($(#[$doc:meta])* $kind:ident { $($(#[$member_doc:meta])* $member:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum $kind { $($(#[$member_doc])* #[serde(rename = $name)] $member,)+ }

        impl $kind {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$member,)+];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$member => $name,)+ }
            }

            /// The one of a name.
            #[must_use]
            pub fn of_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.name() == name)
            }
        }
    };
}

names! {
    /// What a medium is.
    MediumKind {
        /// A magnetic disk.
        HardDisk = "hard-disk",
        /// A solid-state drive, whatever it is connected by.
        SolidState = "solid-state",
        /// A USB stick.
        UsbFlash = "usb-flash",
        /// A memory card.
        MemoryCard = "memory-card",
        /// A magnetic tape.
        Tape = "tape",
        /// A CD, DVD or Blu-ray disc.
        Optical = "optical",
        /// Paper or film.
        Paper = "paper",
    }
}

names! {
    /// What sanitising amounts to, the weakest first.
    Method {
        /// Nothing comes back through the ordinary interface.
        Clear = "clear",
        /// Nothing comes back in a laboratory either.
        Purge = "purge",
        /// Besides, the medium cannot be used any more.
        Destroy = "destroy",
    }
}

names! {
    /// How exactly.
    Technique {
        /// Written over through the ordinary interface.
        Overwrite = "overwrite",
        /// The drive's own command to erase itself.
        FirmwareErase = "firmware-erase",
        /// The drive's own command to erase every block of flash memory.
        BlockErase = "block-erase",
        /// The key is destroyed under which all of it was written.
        CryptoErase = "crypto-erase",
        /// A strong magnetic field.
        Degauss = "degauss",
        /// Cut to pieces.
        Shred = "shred",
        /// Taken apart to particles.
        Disintegrate = "disintegrate",
        /// Ground to powder.
        Pulverize = "pulverize",
        /// Molten.
        Melt = "melt",
        /// Burnt.
        Incinerate = "incinerate",
    }
}

names! {
    /// How it was looked whether that succeeded.
    Checked {
        /// People looked at what is left.
        Inspection = "inspection",
        /// All of it was read.
        FullRead = "full-read",
        /// Nobody looked.
        Nobody = "none",
    }
}

/// Why a record of a sanitised medium is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Misfit {
    /// The technique does nothing to such a medium.
    #[error("{technique} does not sanitise a medium of kind {kind}")]
    NoEffect {
        /// The technique.
        technique: &'static str,
        /// The medium.
        kind: &'static str,
    },
    /// The technique reaches less than is claimed.
    #[error("{technique} reaches {reached} on a medium of kind {kind}, not {claimed}")]
    Weaker {
        /// The technique.
        technique: &'static str,
        /// The medium.
        kind: &'static str,
        /// What it reaches.
        reached: &'static str,
        /// What was claimed.
        claimed: &'static str,
    },
    /// A key that dies takes only what was always written under it.
    #[error("crypto-erase leaves whatever was ever written in clear, and nothing says that all of it was encrypted")]
    OnceInClear,
    /// The look cannot show what the technique did.
    #[error("{checked} cannot show what {technique} did")]
    Blind {
        /// The look.
        checked: &'static str,
        /// The technique.
        technique: &'static str,
    },
    /// What is in pieces cannot be looked at again, so a file must show it.
    #[error(
        "a destroyed medium cannot be looked at again, and no file shows that it was; a photograph or a protocol (`--evidence FILE`) does"
    )]
    Unshown,
    /// Somebody else must have seen it.
    #[error("{method} needs {needed} different witnesses beside whoever did it, and {given} are named")]
    Witnesses {
        /// What was claimed.
        method: &'static str,
        /// How many are needed.
        needed: usize,
        /// How many different ones are named.
        given: usize,
    },
}

impl Method {
    /// How many people beside the one who did it must have seen it. What is cleared stays in the house and can be looked at again.
    #[must_use]
    pub fn witnesses(self) -> usize {
        if self == Self::Clear { 1 } else { 2 }
    }
}

/// The most that a technique reaches on a kind of medium (SP 800-88, appendix A); none when it does nothing to it.
#[must_use]
pub fn reaches(kind: MediumKind, technique: Technique) -> Option<Method> {
    use MediumKind::{HardDisk, MemoryCard, Optical, Paper, SolidState, Tape, UsbFlash};
    let electronic = !matches!(kind, Optical | Paper);
    match technique {
        Technique::Overwrite => electronic.then_some(Method::Clear),
        Technique::FirmwareErase => match kind {
            HardDisk => Some(Method::Purge),
            // It may leave blocks that are out of use.
            SolidState => Some(Method::Clear),
            _ => None,
        },
        Technique::BlockErase => (kind == SolidState).then_some(Method::Purge),
        Technique::CryptoErase => electronic.then_some(Method::Purge),
        Technique::Degauss => matches!(kind, HardDisk | Tape).then_some(Method::Purge),
        Technique::Shred | Technique::Disintegrate | Technique::Incinerate => Some(Method::Destroy),
        Technique::Pulverize => (kind != Tape).then_some(Method::Destroy),
        Technique::Melt => matches!(kind, HardDisk | SolidState | UsbFlash | MemoryCard).then_some(Method::Destroy),
    }
}

/// How a medium was sanitised, as it is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The medium.
    pub kind: MediumKind,
    /// What it is said to amount to.
    pub method: Method,
    /// How.
    pub technique: Technique,
    /// Whether all that was ever written to it was encrypted under the key that died.
    pub always_encrypted: bool,
    /// How it was looked.
    pub checked: Checked,
    /// How many people saw it, all different and none of them who did it.
    pub witnesses: usize,
    /// Whether the digest of a file is kept that shows it.
    pub has_evidence: bool,
}

impl Claim {
    /// Whether the claim can be so.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn judge(&self) -> Result<(), Misfit> {
        let (kind, technique) = (self.kind.name(), self.technique.name());
        let reached = reaches(self.kind, self.technique).ok_or(Misfit::NoEffect { technique, kind })?;
        if reached < self.method {
            let (reached, claimed) = (reached.name(), self.method.name());
            return Err(Misfit::Weaker { technique, kind, reached, claimed });
        }
        if self.technique == Technique::CryptoErase && !self.always_encrypted {
            return Err(Misfit::OnceInClear);
        }
        // What a command did cannot be seen; what is in pieces, or has lost its tracks, cannot be read.
        let is_logical = reached == Method::Clear || self.technique < Technique::Degauss;
        let is_blind = match self.checked {
            Checked::Inspection => is_logical,
            Checked::FullRead => !is_logical,
            Checked::Nobody => false,
        };
        if is_blind {
            return Err(Misfit::Blind { checked: self.checked.name(), technique });
        }
        let needed = self.method.witnesses();
        if self.witnesses < needed {
            return Err(Misfit::Witnesses { method: self.method.name(), needed, given: self.witnesses });
        }
        // Where nobody looked there is nothing to show, and no copy counts as gone.
        if self.method == Method::Destroy && self.checked != Checked::Nobody && !self.has_evidence {
            return Err(Misfit::Unshown);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tape() -> Claim {
        Claim {
            kind: MediumKind::Tape,
            method: Method::Destroy,
            technique: Technique::Shred,
            always_encrypted: false,
            checked: Checked::Inspection,
            witnesses: 2,
            has_evidence: true,
        }
    }

    #[test]
    fn a_technique_reaches_what_the_standard_says_on_each_kind() {
        use MediumKind::{HardDisk, MemoryCard, Optical, Paper, SolidState, Tape, UsbFlash};
        let none: [(MediumKind, Technique); 9] = [
            (SolidState, Technique::Degauss),
            (UsbFlash, Technique::Degauss),
            (UsbFlash, Technique::FirmwareErase),
            (MemoryCard, Technique::BlockErase),
            (HardDisk, Technique::BlockErase),
            (Optical, Technique::Overwrite),
            (Paper, Technique::CryptoErase),
            (Paper, Technique::Melt),
            (Tape, Technique::Pulverize),
        ];
        for (kind, technique) in none {
            assert_eq!(reaches(kind, technique), None, "{kind:?} {technique:?}");
        }
        assert_eq!(reaches(HardDisk, Technique::FirmwareErase), Some(Method::Purge));
        assert_eq!(reaches(SolidState, Technique::FirmwareErase), Some(Method::Clear));
        assert_eq!(reaches(SolidState, Technique::BlockErase), Some(Method::Purge));
        assert_eq!(reaches(Tape, Technique::Degauss), Some(Method::Purge));
        for kind in MediumKind::ALL {
            assert_eq!(reaches(*kind, Technique::Incinerate), Some(Method::Destroy), "{kind:?}");
        }
    }

    #[test]
    fn a_claim_must_fit_medium_look_and_witnesses() {
        assert_eq!(tape().judge(), Ok(()));
        let refused = [
            Claim { kind: MediumKind::SolidState, method: Method::Purge, technique: Technique::Degauss, ..tape() },
            Claim { technique: Technique::Degauss, ..tape() },
            Claim { method: Method::Purge, technique: Technique::CryptoErase, checked: Checked::FullRead, ..tape() },
            Claim { checked: Checked::FullRead, ..tape() },
            Claim { method: Method::Clear, technique: Technique::Overwrite, ..tape() },
            Claim { witnesses: 1, ..tape() },
            Claim { has_evidence: false, ..tape() },
        ];
        let why = refused.map(|claim| std::mem::discriminant(&claim.judge().unwrap_err()));
        assert_eq!(why[4], why[3], "both looks see nothing");
        let different: std::collections::HashSet<_> = why.into_iter().collect();
        assert_eq!(different.len(), 6);
        let unseen = Claim { checked: Checked::Nobody, has_evidence: false, ..tape() };
        assert_eq!(unseen.judge(), Ok(()), "it ends nothing, so it needs to show nothing");
        // One who looks on is enough for what stays in the house.
        let cleared = Claim {
            method: Method::Clear,
            technique: Technique::Overwrite,
            witnesses: 1,
            has_evidence: false,
            ..tape()
        };
        assert_eq!(Claim { checked: Checked::FullRead, ..cleared }.judge(), Ok(()));
        assert!(Claim { witnesses: 0, checked: Checked::Nobody, ..cleared }.judge().is_err());
        let keyed = Claim { technique: Technique::CryptoErase, method: Method::Purge, ..tape() };
        assert_eq!(Claim { always_encrypted: true, checked: Checked::FullRead, ..keyed }.judge(), Ok(()));
    }

    #[test]
    fn names_are_read_back() {
        for kind in MediumKind::ALL {
            assert_eq!(MediumKind::of_name(kind.name()), Some(*kind));
        }
        assert_eq!(Technique::of_name("magic"), None);
    }
}
