//! What can stop a task: one enum over the parts, which says whether trying again helps. The command line turns it into what
//! people read; nothing else prints it.

use thiserror::Error;

use crate::backup::codec::Malformed;
use crate::backup::directory::DirectoryError;
use crate::backup::frame::FrameError;
use crate::backup::group::GroupError;
use crate::backup::manifest::ManifestError;
use crate::backup::object_store::RepositoryError;
use crate::backup::pack::PackError;
use crate::control::ControlError;
use crate::erase::EraseError;
use crate::keyring::KeyringError;
use crate::keys::signing::SigningError;
use crate::random::RandomUnavailable;
use crate::stores::StoreError;

/// What can stop a task.
#[derive(Debug, Error)]
pub enum TaskError {
    /// Planning or erasing failed.
    #[error(transparent)]
    Erase(#[from] EraseError),
    /// The control database failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A key is missing or damaged, or the root slot failed.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The signing key cannot be used.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// A store failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A manifest cannot be made or trusted.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A directory cannot be made or read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A frame cannot be made.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A pack cannot be made.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Rows cannot be grouped.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// An id or digest is malformed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// It must not be done now: held, doubtful clock, a cap, rows in the way.
    #[error("{what}")]
    Refused {
        /// Why.
        what: String,
        /// What to do.
        advice: String,
    },
    /// It names something that is not there.
    #[error("{what}")]
    Unknown {
        /// What.
        what: String,
        /// What to do.
        advice: String,
    },
    /// The second place or the audit log knows more than this control database: nothing but recovery may go on with it.
    #[error("{what}")]
    OldCopy {
        /// What they know.
        what: String,
    },
    /// The process was asked to stop; what was begun is finished by the next start.
    #[error("stopped before the next batch; the next start goes on")]
    Stopping,
    /// Somebody paused the run; it goes on when somebody resumes it.
    #[error("run {run} is paused; nothing more of it is erased until somebody resumes it")]
    Paused {
        /// The run.
        run: String,
    },
    /// A certificate could not be made or filed.
    #[error("{0}")]
    Proof(String),
    /// What is stored contradicts itself.
    #[error("{0}")]
    Inconsistent(String),
}

impl TaskError {
    /// A refusal.
    #[must_use]
    pub fn refused(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), advice: advice.into() }
    }

    /// What happened with its causes, in one line, for places that keep no more of it.
    #[must_use]
    pub fn with_causes(&self) -> String {
        with_causes(self)
    }

    /// Whether the same call may succeed later with nothing else done.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Erase(error) => error.is_retryable(),
            Self::Control(error) => error.is_retryable(),
            Self::Keyring(error) => error.is_retryable(),
            Self::Signing(error) => error.is_retryable(),
            Self::Store(error) => error.is_retryable(),
            Self::Repository(error) => error.is_retryable(),
            Self::Random(_) => true,
            _ => false,
        }
    }
}

impl TaskError {
    /// Whether it is the failure of one store, so that others can be gone on with.
    #[must_use]
    pub fn is_of_store(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Erase(EraseError::Store(_)))
    }
}

/// An error with its causes in one line; a cause that the text before it repeats is left out.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

/// What tasks return.
pub type Result<T, E = TaskError> = std::result::Result<T, E>;
