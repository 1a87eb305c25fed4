//! A look at everything that lies in the second place: whether the newest record and what it names are as they were stored, and
//! what no newer record needs any more.
//!
//! Nothing is removed here: the program has no right to delete, and needs none. What is unneeded stays so, because a record
//! names only parts of the record before it and new ones; whoever has a right of his own may remove it, at any time later.

use std::collections::HashSet;

use super::{Memory, SecondPlace, SecondPlaceError, fetch_record, fetch_root, root_names};
use crate::backup::object_store::{ListedObject, RepositoryError, get_verified};
use crate::backup::state_record::{PARTS, PartRef, PiecePlace, RECORDS, ROOTS, RecordName, RootName};
use crate::control::Control;
use crate::keyring::{Keyring, Result};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateCheck {
    /// The number of the newest record; none while there is none.
    pub record: Option<u64>,
    /// Objects that were read.
    pub objects_read: u64,
    /// What is wrong: the object, and what with it.
    pub problems: Vec<(String, String)>,
    /// Objects that nothing needs any more: earlier records, parts that the newest one does not name, wrapped roots of earlier
    /// generations. Those of earlier generations open nothing; the others open only what a newer record holds anyway.
    pub unneeded: Vec<ListedObject>,
}

impl StateCheck {
    /// The bytes of what is unneeded.
    #[must_use]
    pub fn unneeded_bytes(&self) -> u64 {
        self.unneeded.iter().map(|object| object.bytes).sum()
    }
}

impl Keyring {
    /// Reads the newest record and everything that it names, by digest, and finds what nothing names. Only for whoever holds the
    /// work lease: what another process is just storing would look unneeded. `None` without a second place.
    ///
    /// # Errors
    /// When control database, slot or bucket cannot be asked; what is wrong in the bucket is in the result.
    pub async fn check_state(&self, control: &Control) -> Result<Option<StateCheck>> {
        let Some(place) = self.second_place()? else { return Ok(None) };
        let mut check = StateCheck::default();
        let Some(head) = Memory::read(&mut control.read().await?).await?.head else { return Ok(Some(check)) };
        check.record = Some(head.number);
        let root = self.slot.open(head.generation).await?;
        let record = match fetch_record(place.store.as_ref(), &head, self.installation, &root).await {
            Ok(record) => record,
            Err(SecondPlaceError::Store(error)) if error.is_retryable() => {
                return Err(SecondPlaceError::Store(error).into());
            }
            Err(error) => {
                check.problems.push((head.text(), error.to_string()));
                return Ok(Some(check));
            }
        };
        check.objects_read += 1;
        let parts = record.pieces.iter().filter_map(|piece| match &piece.place {
            PiecePlace::Part(part) => Some(part),
            PiecePlace::Inline(_) => None,
        });
        let mut needed = HashSet::from([head.text()]);
        for part in parts {
            if needed.insert(part.name()) {
                place.check_part(part, &mut check).await?;
            }
        }
        if self.slot.wrapping().is_some() {
            self.check_roots(place, &head, &mut check).await?;
        }
        check.unneeded = place.unneeded(&head, &needed).await?;
        Ok(Some(check))
    }

    /// The wrapped root of the newest record must be there, if it has one. An attempt that was given up may have left another one of
    /// its number.
    async fn check_roots(&self, place: &SecondPlace, head: &RecordName, check: &mut StateCheck) -> Result<()> {
        let names = root_names(place.store.as_ref()).await?;
        let of_head: Vec<&RootName> = names.iter().filter(|name| name.generation == head.generation).collect();
        let own = self.own_root(head.generation).await?.map(|(name, _)| name);
        if of_head.is_empty() || own.is_some_and(|own| !names.contains(&own)) {
            let what = format!("the wrapped root of generation {} is not there", head.generation);
            check.problems.push((ROOTS.to_owned(), what));
        }
        for name in of_head {
            check.objects_read += 1;
            match fetch_root(place.store.as_ref(), name).await {
                Ok(_) => {}
                Err(SecondPlaceError::Store(error)) => note(check, &name.text(), error)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Enters what is wrong with an object; what may pass by itself ends the check.
fn note(check: &mut StateCheck, object: &str, error: RepositoryError) -> Result<(), SecondPlaceError> {
    if error.is_retryable() {
        return Err(error.into());
    }
    check.problems.push((object.to_owned(), error.to_string()));
    Ok(())
}

impl SecondPlace {
    /// By its digest alone: what is in it is not opened.
    async fn check_part(&self, part: &PartRef, check: &mut StateCheck) -> Result<(), SecondPlaceError> {
        check.objects_read += 1;
        match get_verified(self.store.as_ref(), &part.name(), &part.object, part.bytes as usize).await {
            Ok(_) => Ok(()),
            Err(error) => note(check, &part.name(), error),
        }
    }

    async fn unneeded(
        &self,
        head: &RecordName,
        needed: &HashSet<String>,
    ) -> Result<Vec<ListedObject>, SecondPlaceError> {
        let mut found = Vec::new();
        for object in self.store.list(RECORDS).await? {
            // One behind the head is being stored, or of another host: not for this look to judge.
            let is_earlier = RecordName::parse(&object.name).is_some_and(|name| name.number <= head.number);
            if is_earlier && !needed.contains(&object.name) {
                found.push(object);
            }
        }
        found.extend(self.store.list(PARTS).await?.into_iter().filter(|object| !needed.contains(&object.name)));
        for object in self.store.list(ROOTS).await? {
            if RootName::parse(&object.name).is_some_and(|name| name.generation < head.generation) {
                found.push(object);
            }
        }
        Ok(found)
    }
}
