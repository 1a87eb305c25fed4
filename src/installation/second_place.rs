//! The start check: is this control database the newest there is? Both the second place and the audit log are asked.
//!
//! Ahead by exactly the own open intent is adopted. Any other lead of theirs refuses the work: this is an old copy. Unreachable is
//! not behind: with either one confirming, the work goes on; with neither, nothing is destroyed.

use std::sync::PoisonError;

use chrono::TimeDelta;

use super::services::FORMER_AUDIT_KEYS;
use super::{
    BackupConnection, Installation, LEASE_SECONDS, Needs, WORK_LEASE, audit_log_key, settle_interrupted, state_folder,
    view_certificate_log,
};
use crate::audit::Looked;
use crate::backup::state_record::StateFile;
use crate::config::{AuditService, Configuration};
use crate::error::{Result, TaskError};
use crate::keyring::second_place::{Comparison, Second, SecondPlace, memory};
use crate::keyring::{Fence, KeyringError, Shredded, recover};
use crate::log::store::LeafStore as _;

/// The files of the state folder that travel with the state: without the first, where the signing key is in a file, nothing is signed; without
/// the second, the operation log cannot go on; the others are public keys.
const FILES: [&str; 4] = [super::signing::KEY_FILE, "operation-log-key.pem", "audit-log.vkey", FORMER_AUDIT_KEYS];
/// The name under which the public key of the embedded audit log travels.
pub(super) const EMBEDDED_AUDIT_KEY: &str = "audit-log-embedded.vkey";
/// `meta`: what showed that this control database is an old copy; not part of an image.
const FOUND_OLD: &str = "second_place.old_copy";
/// Certificates at the end of the audit log that are looked for in the control database.
const LAST_FILED: u64 = 1000;

/// Who said that this control database is the newest.
#[derive(PartialEq, Eq)]
enum Answered {
    /// The second place and the audit log.
    Both,
    /// Not both of them.
    NotAll,
}

/// Reads what travels.
fn travelling(installation: &Installation) -> Result<Vec<StateFile>> {
    let folder = state_folder(&installation.config);
    let mut files = Vec::new();
    for name in FILES {
        let path = folder.join(name);
        if path.exists() {
            let bytes = std::fs::read(&path).map_err(|error| super::cannot("read", &path, &error))?;
            files.push(StateFile { name: name.to_owned(), bytes: bytes.into() });
        }
    }
    if is_audit_embedded(&installation.config)
        && let Ok(key) = audit_log_key(installation)
    {
        let bytes = key.verifier_key().into_bytes().into();
        files.push(StateFile { name: EMBEDDED_AUDIT_KEY.to_owned(), bytes });
    }
    Ok(files)
}

pub(super) fn is_audit_embedded(config: &Configuration) -> bool {
    matches!(config.audit.service, AuditService::Embedded { .. })
}

impl Installation {
    /// Opens bucket and second place as far as needed; with the lease, makes sure that this control database is the newest
    /// before anything is settled.
    pub(super) async fn open_second_place(&mut self, needs: Needs) -> Result<()> {
        if self.config.backup.is_none() {
            if needs.lease {
                self.settle_keys().await?;
            }
            return Ok(());
        }
        self.keyring.set_second_place(Second::Closed);
        if !needs.backup {
            return Ok(());
        }
        match BackupConnection::open(self).await {
            Ok(connection) => {
                self.backup = connection;
                self.bucket_fault = None;
            }
            // Holds, requests and waiting certificates need no bucket.
            Err(TaskError::Repository(error)) if needs.lease && error.is_retryable() => {
                tracing::warn!(error = %error, "the bucket cannot be reached: no snapshot, certificate or shred until it can");
                self.keyring.set_second_place(Second::Unreachable(error.clone()));
                self.bucket_fault = Some(error);
            }
            Err(error) => return Err(error),
        }
        if let Some(connection) = &self.backup {
            let place = SecondPlace::new(connection.repository.clone(), travelling(self)?);
            self.keyring.set_second_place(Second::Open(Box::new(place)));
        }
        if !needs.lease {
            return Ok(());
        }
        self.confirm_state().await?;
        if self.doubt().is_some() {
            return Ok(());
        }
        self.settle_keys().await?;
        if let Some(connection) = &self.backup {
            settle_interrupted(&self.control, connection.repository.as_ref(), self.clock.now()).await?;
            self.mend_second_place().await?;
        }
        Ok(())
    }

    /// The lease as the keyring wants it shown before it destroys anything.
    #[must_use]
    pub fn fence(&self) -> Fence<'static> {
        Fence { lease: WORK_LEASE, token: self.token, lasts: TimeDelta::seconds(LEASE_SECONDS) }
    }

    /// Finishes, or undoes, a generation change that a crash or a failure left open, and destroys old roots that came back.
    /// To be called before anything is concluded from the generation in force.
    ///
    /// # Errors
    /// Without the lease; when root slot and control database do not fit together; when a root cannot be destroyed yet.
    pub async fn settle_keys(&self) -> Result<Option<Shredded>> {
        Ok(recover(&self.keyring, &self.control, &self.fence(), self.clock.as_ref()).await?)
    }

    /// Stores the state anew when the newest record is of a generation that is not in force.
    async fn mend_second_place(&self) -> Result<()> {
        let mut tx = self.control.read().await?;
        let generation = tx.tree_root().await?.map(|(generation, _)| generation);
        drop(tx);
        let head = memory(&self.control).await?.head;
        if head.is_some_and(|head| Some(head.generation) != generation) {
            self.keyring.seal_state(&self.control, self.clock.as_ref()).await?;
        }
        Ok(())
    }

    fn doubt(&self) -> Option<String> {
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the second place and the audit log whether they know more than this control database, and notes when one does: commands
    /// that do not ask them must know it too.
    ///
    /// # Errors
    /// [`TaskError::OldCopy`] when one of them does. That neither answers is no error; nothing is destroyed then.
    async fn confirm_state(&self) -> Result<()> {
        let asked = self.ask_about_state().await;
        let found = match &asked {
            Err(TaskError::OldCopy { what }) => Some(what.as_str()),
            Ok(Answered::Both) => None,
            // What was found once stands until whoever may have found it has been asked again.
            Ok(Answered::NotAll) => return self.refuse_old_copy().await,
            Err(_) => return asked.map(drop),
        };
        if let Err(error) = self.note_old_copy(found).await {
            tracing::warn!(error = %error, "whether this control database is an old copy could not be noted");
        }
        asked.map(drop)
    }

    async fn note_old_copy(&self, found: Option<&str>) -> Result<()> {
        if self.control.read().await?.meta(FOUND_OLD).await?.as_deref() == found {
            return Ok(());
        }
        let mut tx = self.control.begin().await?;
        match found {
            Some(what) => tx.set_meta(FOUND_OLD, what).await?,
            None => tx.clear_meta(FOUND_OLD).await?,
        }
        Ok(tx.commit().await?)
    }

    /// Refuses to go on with a control database that a command before has found to be an old copy.
    ///
    /// # Errors
    /// [`TaskError::OldCopy`] then.
    pub async fn refuse_old_copy(&self) -> Result<()> {
        match self.control.read().await?.meta(FOUND_OLD).await? {
            Some(what) => Err(TaskError::OldCopy { what }),
            None => Ok(()),
        }
    }

    async fn ask_about_state(&self) -> Result<Answered> {
        let second = match self.keyring.compare_state(&self.control).await {
            Ok(Comparison::Behind(head)) => {
                tracing::warn!(number = head.number, "the second place lost the newest state; it is stored again");
                self.keyring.seal_state(&self.control, self.clock.as_ref()).await?;
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(KeyringError::SecondPlace(error)) if error.is_old_copy() => {
                return Err(TaskError::OldCopy { what: error.to_string() });
            }
            Err(error) if error.is_retryable() => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let is_filed = self.compare_audit_log().await?;
        let answered = if second.is_ok() && is_filed { Answered::Both } else { Answered::NotAll };
        let doubt = second.err().filter(|_| !is_filed);
        *self.doubt.lock().unwrap_or_else(PoisonError::into_inner) = doubt;
        Ok(answered)
    }

    /// Whether the audit log could be compared, and holds nothing that this control database does not know. The embedded log is
    /// read; a service elsewhere is asked what the contract lets everybody ask: for the receipts of certificates.
    pub(super) async fn compare_audit_log(&self) -> Result<bool> {
        if !is_audit_embedded(&self.config) {
            return self.ask_audit_service().await;
        }
        let Some(view) = view_certificate_log(self).await? else { return Ok(false) };
        let proof = |error: crate::log::store::LeafStoreError| TaskError::Proof(error.to_string());
        let size = view.store.size().await.map_err(proof)?;
        let leaves = view.store.leaves(size.saturating_sub(LAST_FILED)..size).await.map_err(proof)?;
        view.store.close().await;
        let mut tx = self.control.read().await?;
        for leaf in leaves {
            if tx.certificate(&leaf.id).await?.is_none() {
                let what = format!(
                    "the audit log holds certificate {}, which this control database does not know: it is an old copy",
                    leaf.id
                );
                return Err(TaskError::OldCopy { what });
            }
        }
        Ok(true)
    }

    /// Asks an audit service elsewhere for the newest certificate that it should have, and for the next one, whose id is fixed
    /// already: if that is filed, another copy of this database has issued it. A service that was not opened by this command, or
    /// never gave a receipt, confirms nothing.
    async fn ask_audit_service(&self) -> Result<bool> {
        let Ok(audit) = self.audit() else { return Ok(false) };
        let mut tx = self.control.read().await?;
        let (newest, next) = (tx.newest_receipted().await?, tx.announced_certificate().await?);
        drop(tx);
        let (Some(newest), Some(next)) = (newest, next) else { return Ok(false) };
        match audit.sink.look(&next, None).await {
            Looked::NotFiled => {}
            Looked::Unanswered => return Ok(false),
            Looked::Filed => {
                let what = format!(
                    "the audit service holds certificate {next}, which this control database has not issued yet: it is an old copy"
                );
                return Err(TaskError::OldCopy { what });
            }
        }
        Ok(audit.sink.look(&newest.id, Some(&newest.envelope)).await == Looked::Filed)
    }

    /// Refuses destruction while neither the second place nor the audit log confirms this control database; asks them again.
    pub(super) async fn leave_no_doubt(&self) -> Result<()> {
        if self.doubt().is_none() {
            return Ok(());
        }
        self.confirm_state().await?;
        match self.doubt() {
            None => Ok(()),
            Some(reason) => Err(TaskError::refused(
                format!(
                    "neither the second place nor the audit log can confirm the agent's state, so nothing is destroyed: {reason}"
                ),
                "make the bucket reachable; `wangchuan doctor` looks at it",
            )),
        }
    }
}
