//! Who is ahead: the control database or the second place.

use super::{AT, GIVEN_UP, HEAD, INTENT, Memory, SecondPlace, SecondPlaceError};
use crate::backup::state_record::{RECORDS, RecordName, prefix_of};
use crate::control::{Control, Tx};
use crate::keyring::{Keyring, KeyringError, Result};

/// How the second place stands to the control database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// There is no second place.
    NotConfigured,
    /// Nothing was ever stored there.
    Empty,
    /// It holds the record that the control database knows as the newest.
    Same(RecordName),
    /// It held the one that was announced and not confirmed; that is the known one now.
    RolledForward(RecordName),
    /// The known record is not there any more. The control database is right; the next record holds everything again.
    Behind(RecordName),
}

impl Keyring {
    /// Compares the control database with the second place, and adopts the record of an own open intent.
    ///
    /// # Errors
    /// [`SecondPlaceError::Ahead`] and [`SecondPlaceError::Forked`] when this control database must not be worked with; what the
    /// second place answers when it cannot be asked.
    pub async fn compare_state(&self, control: &Control) -> Result<Comparison> {
        match self.second_place()? {
            None => Ok(Comparison::NotConfigured),
            Some(place) => place.compare(control).await,
        }
    }
}

impl SecondPlace {
    /// The records of one number, apart from those that were given up.
    pub(super) async fn records(
        &self,
        number: u64,
        memory: &Memory,
    ) -> std::result::Result<Vec<RecordName>, SecondPlaceError> {
        let listed = self.store.list(&prefix_of(number)).await?;
        let names = listed.iter().filter_map(|object| RecordName::parse(&object.name));
        Ok(names.filter(|name| !memory.given_up.contains(name)).collect())
    }

    pub(super) async fn compare(&self, control: &Control) -> Result<Comparison> {
        let memory = Memory::read(&mut control.read().await?).await?;
        let Some(head) = memory.head else { return self.compare_without_head(control, &memory).await };
        let there = self.records(head.number, &memory).await?;
        if there.iter().any(|name| *name != head) {
            return Err(SecondPlaceError::Forked { number: head.number }.into());
        }
        match self.adopt(control, &memory, head.number + 1).await? {
            Some(adopted) => Ok(Comparison::RolledForward(adopted)),
            None if there.is_empty() => Ok(Comparison::Behind(head)),
            None => Ok(Comparison::Same(head)),
        }
    }

    async fn compare_without_head(&self, control: &Control, memory: &Memory) -> Result<Comparison> {
        let listed = self.store.list(RECORDS).await.map_err(SecondPlaceError::from)?;
        let newest = listed.iter().filter_map(|object| RecordName::parse(&object.name)).map(|name| name.number).max();
        match newest {
            None => Ok(Comparison::Empty),
            Some(found) if found > 1 => Err(SecondPlaceError::Ahead { known: 0, found }.into()),
            Some(_) => match self.adopt(control, memory, 1).await? {
                Some(adopted) => Ok(Comparison::RolledForward(adopted)),
                None => Ok(Comparison::Empty),
            },
        }
    }

    /// Adopts the record of the open intent if it is there under `number` and is the newest.
    async fn adopt(&self, control: &Control, memory: &Memory, number: u64) -> Result<Option<RecordName>> {
        let known = number - 1;
        let next = self.records(number, memory).await?;
        let Some(first) = next.first().copied() else { return Ok(None) };
        if next.len() > 1 || memory.intent != Some(first) {
            return Err(SecondPlaceError::Ahead { known, found: number }.into());
        }
        if !self.records(number + 1, memory).await?.is_empty() {
            return Err(SecondPlaceError::Ahead { known: number, found: number + 1 }.into());
        }
        let mut tx = control.begin().await?;
        if Memory::read(&mut tx).await? != *memory {
            return Err(KeyringError::Overtaken("another process has stored the state"));
        }
        settle(&mut tx, &first, None).await?;
        tx.commit().await?;
        Ok(Some(first))
    }
}

/// Enters a record that is there as the known one.
pub(super) async fn settle(tx: &mut Tx, name: &RecordName, at: Option<&str>) -> Result<()> {
    tx.set_meta(HEAD, &name.text()).await?;
    match at {
        Some(at) => tx.set_meta(AT, at).await?,
        None => tx.clear_meta(AT).await?,
    }
    tx.clear_meta(INTENT).await?;
    Ok(())
}

/// Enters the record that is about to be stored. One that was announced before and did not arrive is given up.
pub(super) async fn announce(tx: &mut Tx, memory: &Memory, name: &RecordName) -> Result<()> {
    if let Some(lost) = memory.intent.filter(|lost| lost != name) {
        let mut all: Vec<String> = memory.given_up.iter().map(RecordName::text).collect();
        all.push(lost.text());
        tx.set_meta(GIVEN_UP, &all.join(" ")).await?;
    }
    tx.set_meta(INTENT, &name.text()).await?;
    Ok(())
}
