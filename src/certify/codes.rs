//! Every code a certificate can contain: closed lists, so that there is nothing to interpret. Pure.
//!
//! A code once published keeps its meaning; a reader that meets one it does not know refuses the certificate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Codes: an enum whose members are written in kebab case (or as given).
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident, $case:literal { $($(#[$member_doc:meta])* $member:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = $case)]
        pub enum $name { $($(#[$member_doc])* $member,)+ }

        impl $name {
            /// Every code, in the order of the definition.
            pub const ALL: &'static [Self] = &[$(Self::$member,)+];
        }
    };
}

codes! {
    /// How the whole erasure ended.
    ErasureResult, "kebab-case" {
        /// Everything due is gone, keys included.
        Complete,
        /// Something is still to come or was left; the limitations say what.
        Partial,
        /// Nothing was due.
        NothingFound,
        /// It was refused: nothing was destroyed.
        Refused,
        /// It went wrong.
        Failed,
    }
}

codes! {
    /// Why it was erased.
    TriggerKind, "kebab-case" {
        /// The retention period ended.
        RetentionExpiry,
        /// The person asked.
        SubjectRequest,
        /// Consent was withdrawn.
        ConsentWithdrawn,
        /// The service ended.
        ServiceEnd,
        /// A contract ended.
        ContractEnd,
        /// An authority ordered it.
        AuthorityOrder,
        /// A hold was released.
        HoldRelease,
        /// An operator decided it.
        Manual,
    }
}

impl TriggerKind {
    /// Why a customer's data may be asked to go: what a request can name.
    pub const OF_REQUESTS: [Self; 6] = [
        Self::SubjectRequest,
        Self::ConsentWithdrawn,
        Self::ServiceEnd,
        Self::ContractEnd,
        Self::AuthorityOrder,
        Self::Manual,
    ];

    /// Its name, as certificates have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RetentionExpiry => "retention-expiry",
            Self::SubjectRequest => "subject-request",
            Self::ConsentWithdrawn => "consent-withdrawn",
            Self::ServiceEnd => "service-end",
            Self::ContractEnd => "contract-end",
            Self::AuthorityOrder => "authority-order",
            Self::HoldRelease => "hold-release",
            Self::Manual => "manual",
        }
    }

    /// The reason of a request by its name; without one the person asked.
    #[must_use]
    pub fn of_request(name: Option<&str>) -> Option<Self> {
        let name = name.unwrap_or(Self::SubjectRequest.name());
        Self::OF_REQUESTS.into_iter().find(|reason| reason.name() == name)
    }
}

codes! {
    /// What was done to a target.
    Action, "kebab-case" {
        /// Rows deleted.
        Delete,
        /// Rows made anonymous.
        Anonymize,
        /// Keys destroyed.
        CryptoShred,
        /// Storage overwritten.
        Overwrite,
        /// A snapshot removed at its end.
        ExpireSnapshot,
        /// Processing stopped, data kept.
        Restrict,
        /// A storage medium sanitised, as the target's sanitization and technique say.
        SanitizeMedium,
    }
}

codes! {
    /// What the action amounts to, in the terms of NIST SP 800-88 Rev. 2.
    Sanitization, "kebab-case" {
        /// Not recoverable by the ordinary interface.
        Clear,
        /// Not recoverable by laboratory means.
        Purge,
        /// The medium is destroyed.
        Destroy,
        /// None.
        None,
    }
}

codes! {
    /// What kind of system a target is.
    System, "lowercase" {
        /// PostgreSQL.
        Postgresql,
        /// MySQL or MariaDB.
        Mysql,
        /// SQLite.
        Sqlite,
        /// S3 objects.
        S3,
        /// Files.
        File,
        /// A key service or the key tree.
        Kms,
        /// A storage medium.
        Media,
        /// A system reached over HTTP.
        Http,
    }
}

codes! {
    /// How absence was checked.
    VerificationMethod, "kebab-case" {
        /// A query that did not do the deleting.
        Requery,
        /// Everything read back.
        FullReadback,
        /// A sample read back.
        Sample,
        /// The keys do not exist any more.
        KeyAbsence,
        /// Snapshots searched.
        SnapshotScan,
        /// People looked at what is left of a medium.
        Inspection,
        /// Not checked.
        None,
    }
}

codes! {
    /// What holds for the backups of a target.
    BackupState, "kebab-case" {
        /// Unreadable: the keys are destroyed.
        Erased,
        /// Readable until they expire.
        Expires,
        /// Readable until the snapshots that hold them are removed; no date is known, and none is promised.
        Chain,
        /// Readable; erased again by the ledger at every restore.
        ReplayedOnRestore,
        /// There are none.
        None,
    }
}

codes! {
    /// What holds for a declared further copy.
    CopyState, "kebab-case" {
        /// Looked at, and the records are not in it. Of a replica: it shows what its store wrote behind their deletion; the records were not looked for
        /// there one by one.
        Absent,
        /// Not looked at; dies by its date.
        Expires,
        /// Not looked at, or it could not be read; it may never die.
        Unread,
        /// Its medium was destroyed behind the erasure, as the record says that it names.
        Destroyed,
    }
}

codes! {
    /// How values were made anonymous.
    AnonymizationTechnique, "kebab-case" {
        /// Set to NULL.
        Null,
        /// Replaced by one value, the same in every row.
        Fixed,
        /// All but what the strict mask shows is gone.
        Mask,
        /// Replaced by a coarser value.
        Generalize,
        /// Replaced by a random value.
        Random,
    }
}

codes! {
    /// Why something was kept.
    RetainedReason, "kebab-case" {
        /// Tax law.
        Tax,
        /// A lawsuit or other hold.
        Litigation,
        /// Another statutory period.
        StatutoryPeriod,
        /// Deletion is technically hard (PIPL 47 para. 2).
        TechnicallyHard,
        /// A living row needs it.
        Referenced,
        /// Another owner stays.
        SharedOwner,
        /// The start of its period is unknown or still to come.
        StartUnknown,
        /// Changed or renewed after the plan was made.
        Renewed,
        /// Put back within grace, because the erasure was undone.
        Undone,
        /// Too few anonymised rows have the same values for it to be lost among them.
        SmallGroup,
        /// Its policy was edited lately: a first share of the rows goes before the rest.
        PolicyEdited,
    }
}

codes! {
    /// Why nothing of what was asked for was erased. The first six are found by rules, the others are somebody's decision.
    RefusalReason, "kebab-case" {
        /// A legal hold covers it.
        Hold,
        /// A statute keeps it until its period ends.
        Statute,
        /// Rows of somebody else need it.
        Needed,
        /// The start of its period is unknown or still to come.
        StartUnknown,
        /// Too few rows have the same values for it to be lost among them.
        SmallGroup,
        /// Its policy was edited lately.
        PolicyEdited,
        /// Whoever asked withdrew the request.
        Withdrawn,
        /// Nobody could tell who asked.
        NotIdentified,
        /// The request is manifestly unfounded or excessive (GDPR Art. 12(5)).
        Unfounded,
        /// An exception of the law lets the company keep the data (GDPR Art. 17(3), PIPL Art. 47 para. 2).
        Exempt,
        /// The same was asked for before.
        Duplicate,
    }
}

impl RefusalReason {
    /// Why a request can be withdrawn or turned down by somebody.
    pub const DECISIONS: [Self; 5] =
        [Self::Withdrawn, Self::NotIdentified, Self::Unfounded, Self::Exempt, Self::Duplicate];

    /// Why rows that were kept for this reason stay; none where that is no answer to what was asked for.
    #[must_use]
    pub fn of_kept(kept: RetainedReason) -> Option<Self> {
        match kept {
            RetainedReason::Litigation => Some(Self::Hold),
            RetainedReason::Tax | RetainedReason::StatutoryPeriod | RetainedReason::TechnicallyHard => {
                Some(Self::Statute)
            }
            RetainedReason::Referenced | RetainedReason::SharedOwner => Some(Self::Needed),
            RetainedReason::StartUnknown => Some(Self::StartUnknown),
            RetainedReason::SmallGroup => Some(Self::SmallGroup),
            RetainedReason::PolicyEdited => Some(Self::PolicyEdited),
            RetainedReason::Renewed | RetainedReason::Undone => None,
        }
    }

    /// Its name, as certificates have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Statute => "statute",
            Self::Needed => "needed",
            Self::StartUnknown => "start-unknown",
            Self::SmallGroup => "small-group",
            Self::PolicyEdited => "policy-edited",
            Self::Withdrawn => "withdrawn",
            Self::NotIdentified => "not-identified",
            Self::Unfounded => "unfounded",
            Self::Exempt => "exempt",
            Self::Duplicate => "duplicate",
        }
    }
}

codes! {
    /// What became of the notice to a recipient (GDPR Art. 19).
    RecipientStatus, "kebab-case" {
        /// They confirmed.
        Confirmed,
        /// It was sent.
        Sent,
        /// It could not be sent.
        Failed,
        /// It would take a disproportionate effort.
        Disproportionate,
    }
}

codes! {
    /// Whose time ended an outside key.
    OutsideBinding, "kebab-case" {
        /// A policy's.
        Policy,
        /// A subject's.
        Subject,
    }
}

codes! {
    /// Why a certificate replaces an earlier one.
    SupersedesReason, "kebab-case" {
        /// The earlier one was wrong.
        Correction,
        /// Absence was checked again.
        Recheck,
        /// What was pending is done.
        Completion,
        /// The erasure was undone within its grace.
        Undone,
    }
}

codes! {
    /// The class of the root slot (how surely an old generation is gone), best first.
    SlotClass, "UPPERCASE" {
        /// Hardware that erases, and shows it.
        A,
        /// A service that destroys, and answers for it.
        B,
        /// Destruction by several parties or with a delay.
        C,
        /// A file: holds only while no copy of the host exists.
        D,
    }
}

codes! {
    /// What a certificate does not claim. A closed list.
    Limitation, "SCREAMING_SNAKE_CASE" {
        /// Rows are deleted, the keys of their backups die later (by the residual date).
        KeyShredPending,
        /// The root slot is a file: the shred holds only while no copy of the host exists.
        RootSlotClassD,
        /// The root slot is a service with backups: an older copy of it, with its unseal keys, could bring the key back until
        /// `reopenableUntil`.
        RootSlotClassB,
        /// The root slot destroys only at a date: before `irrevocableAt` the key cannot be used, but its destruction can be called off;
        /// afterwards the provider's word is all there is.
        RootSlotClassC,
        /// The root slot is a device without backups, as its operator declares; that no key leaves it is its maker's word.
        RootSlotClassA,
        /// Backups lie on the same site as the store.
        NotOffSite,
        /// The identity of the person who asked was not checked.
        IdentityNotChecked,
        /// Deleted rows may still stand in the database's own log or free pages.
        ResidualInDatabaseLog,
        /// Deleted rows still stand in the database's own files because something there keeps them, a reader or an old transaction; it
        /// passes, and another certificate says so.
        ResiduePending,
        /// A declared further copy dies by its own date.
        CopyDeclared,
        /// Rows were kept, with reasons.
        RowsRetained,
        /// The log is run by the audited party itself, without witness.
        SelfHostedUnwitnessed,
        /// A declared copy or replica was not read.
        CopyUnread,
        /// A read replica may lag behind.
        ReadReplicaLag,
        /// There are backups that the program did not make and cannot reach.
        BackupNotCovered,
        /// Some rows failed and are still there.
        RowsFailed,
        /// Some targets were not reached.
        TargetsUnreached,
        /// It is sent to a webhook, which gives no receipt: nothing proves that it was filed, or when.
        FiledWithoutReceipt,
        /// It is sent to a webhook that acknowledges it under a signature and keeps no log: when it was filed is the signer's word, and
        /// nobody else can see it there.
        FiledWithoutLog,
        /// Whoever holds old copies of the control database and the current root can confirm that an id was known.
        LookupKeyNotRotated,
        /// No backup is configured for the store.
        NoBackup,
        /// The clock was not compared with another source.
        ClockUnverified,
        /// Absence was checked through the same session that deleted.
        VerificationNotIndependent,
        /// The erasure was undone within its grace: what is counted as kept lives again.
        ErasureUndone,
        /// The outside key was in a service with backups: an older copy of it, with its unseal keys, could bring it back until
        /// `reopenableUntil`.
        OutsideKeyClassB,
        /// A cloud provider deleted the outside key at a date, until which that could be called off: its word is all there is.
        OutsideKeyClassC,
        /// The end of the outside key is a logical removal only: it may lie outside of the service.
        OutsideKeyClassD,
        /// That the fields were sealed under this key alone, and since when, is declared by the operator; the program never
        /// opened them.
        OutsideKeyDeclared,
        /// Somebody else had destroyed the outside key before the agent did.
        OutsideKeyGoneBefore,
        /// The fields were once stored in clear: the end of their key does not erase what was stored then.
        FieldOnceInClear,
        /// A later look found rows again that had been erased, as `residualFound` counts them.
        FoundAgain,
        /// Tables of the store seem to hold data of customers and are not registered: nothing was erased from them.
        TablesNotRegistered,
        /// What lay on the medium, and that it was sanitised so, is the word of the people named; the program has not seen it.
        MediumDeclared,
        /// Nobody looked whether the medium holds nothing any more.
        MediumUnverified,
    }
}
