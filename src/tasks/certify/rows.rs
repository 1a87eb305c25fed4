//! The evidence file of a run: a line for each row that went, from the ledger.

use super::proof;
use crate::certify::check::location;
use crate::certify::codes::{Action, VerificationMethod};
use crate::certify::evidence::{After, EvidenceRow, EvidenceWriter};
use crate::certify::statement::Timestamp;
use crate::control::{DoneBlock, LedgerKind, Tx};
use crate::keys::Key;
use crate::keys::suite::{Suite, mac};
use crate::tasks::Result;

/// The evidence file in the making. Stripped rows stand in it as present: they are counted as retained, and the digest of what they
/// held before shows later what was taken from them.
#[derive(Default)]
pub(super) struct Evidence {
    writer: EvidenceWriter,
    file: String,
}

impl Evidence {
    /// Adds the rows of a block of the ledger.
    pub(super) fn add(
        &mut self,
        block: &DoneBlock,
        rows: &[([u8; 16], [u8; 32])],
        at: Timestamp,
        key: &Key,
    ) -> Result<()> {
        let (action, after) = match block.kind {
            LedgerKind::Erased => (Action::Delete, After::Absent),
            LedgerKind::Anonymised | LedgerKind::Stripped => (Action::Anonymize, After::Present),
        };
        let target_id = location(&block.store, &block.collection);
        for (row, content) in rows {
            let row = EvidenceRow {
                target_id: target_id.clone(),
                reference: hex::encode(mac(Suite::Intl, key, &[b"row", row])),
                content_before: hex::encode(content),
                action,
                at,
                after,
                check: VerificationMethod::FullReadback,
            };
            self.file.push_str(&self.writer.line(&row).map_err(proof)?);
        }
        Ok(())
    }

    /// The file and its digest.
    pub(super) fn finish(self) -> (String, String) {
        let (digest, _) = self.writer.finish();
        (self.file, digest)
    }
}

/// The evidence file of a run, and its digest.
pub(super) async fn evidence(tx: &mut Tx, run: &str, at: Timestamp, key: &Key) -> Result<(String, String)> {
    let mut evidence = Evidence::default();
    for block in tx.done_blocks(run).await? {
        let rows = tx.done_rows(run, &block).await?;
        evidence.add(&block, &rows, at, key)?;
    }
    Ok(evidence.finish())
}
