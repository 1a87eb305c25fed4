//! Storing a record: only what changed since the record before is stored again.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use zeroize::Zeroizing;

use super::compare::{announce, settle};
use super::tree_pieces::TreePieces;
use super::{Memory, SecondPlace, SecondPlaceError, fetch_record};
use crate::backup::codec::{Id128, Sha256};
use crate::backup::object_store::ObjectStore;
use crate::backup::state_record::{
    INLINE_BYTES, PartRef, Piece, PiecePlace, RecordName, StateFile, StateHeads, StateRecord, seal_part,
};
use crate::clock::Clock;
use crate::control::{Control, ImagePiece, TakePieces, Tx, time_text};
use crate::crash_point;
use crate::keyring::{Keyring, KeyringError, Result, copy};
use crate::keys::slot::SlotError;
use crate::keys::{Generation, Key};
use crate::random::Random;

/// The table of job times: it changes every minute, and a change of it alone is not worth a record.
const JOB_TIMES: &str = "job_run";

/// What became of the wish to have the state in the second place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealing {
    /// There is no second place.
    NotConfigured,
    /// The newest record holds it already.
    Unchanged(RecordName),
    /// It was stored.
    Stored {
        /// The new record.
        name: RecordName,
        /// Objects stored.
        objects: u64,
        /// Their bytes.
        bytes: u64,
    },
}

/// What this process knows of the newest record.
pub(super) struct Known {
    name: RecordName,
    parts: HashMap<Sha256, PartRef>,
    counted: Sha256,
}

impl Known {
    fn of(name: RecordName, record: StateRecord) -> Self {
        let counted = record.counted;
        let parts = record.pieces.into_iter().filter_map(|piece| match piece.place {
            PiecePlace::Part(part) => Some((piece.digest, part)),
            PiecePlace::Inline(_) => None,
        });
        Self { name, parts: parts.collect(), counted }
    }
}

/// An image on its way. The bytes of pieces that the second place has already were let go.
pub(in crate::keyring) struct Image {
    heads: StateHeads,
    pieces: Vec<(Sha256, Content)>,
    counted: Sha256,
    tree: TreePieces,
    objects: u64,
    stored_bytes: u64,
}

/// What is held of a piece.
enum Content {
    /// Its bytes, which are to be stored.
    Held(Vec<u8>),
    /// Nothing: the second place has it already.
    There,
    /// Nothing: it was stored while the image was taken.
    Stored(PartRef),
}

/// Who stores parts.
#[derive(Clone, Copy)]
struct Storer<'s> {
    store: &'s dyn ObjectStore,
    home: Id128,
    random: &'s dyn Random,
}

impl Storer<'_> {
    /// Seals a piece and stores it; returns how many bytes that took, too.
    async fn store(&self, content: &[u8]) -> Result<(PartRef, u64), SecondPlaceError> {
        let (part, bytes) = seal_part(content, self.home, self.random)?;
        let length = bytes.len() as u64;
        self.store.put_if_absent(&part.name(), bytes).await?;
        Ok((part, length))
    }
}

/// Takes the pieces of an image. With a storer, what must be stored is stored at once, so that memory does not follow the database.
struct Gathering<'g> {
    known: Option<&'g Known>,
    storer: Option<Storer<'g>>,
    counted: Vec<Sha256>,
    image: Vec<(Sha256, Content)>,
    tree: TreePieces,
    objects: u64,
    stored_bytes: u64,
    failed: Option<SecondPlaceError>,
}

#[async_trait]
impl TakePieces for Gathering<'_> {
    async fn take(&mut self, piece: ImagePiece) {
        if self.failed.is_some() {
            return;
        }
        let digest = Sha256::of(&piece.bytes);
        let is_counted = piece.table.as_deref() != Some(JOB_TIMES);
        if is_counted {
            self.counted.push(digest);
        }
        let is_there = self.known.is_some_and(|known| known.parts.contains_key(&digest));
        self.tree.note(&piece, digest, !is_there);
        let mut content = if is_there { Content::There } else { Content::Held(piece.bytes) };
        // What alone makes no record is not stored before it is known that there will be one.
        if let (Content::Held(bytes), Some(storer), true) = (&content, self.storer, is_counted)
            && bytes.len() > INLINE_BYTES
        {
            match storer.store(bytes).await {
                Ok((part, length)) => {
                    self.objects += 1;
                    self.stored_bytes += length;
                    content = Content::Stored(part);
                }
                Err(error) => self.failed = Some(error),
            }
        }
        self.image.push((digest, content));
    }
}

impl Keyring {
    /// Seals the present state into the second place, unless the newest record there holds it already. To be called, and to have
    /// succeeded, before a manifest is stored, a certificate is signed or filed.
    ///
    /// # Errors
    /// When the second place cannot be reached, or shows that this control database is an old copy.
    pub async fn seal_state(&self, control: &Control, clock: &dyn Clock) -> Result<Sealing> {
        let Some(place) = self.second_place()? else { return Ok(Sealing::NotConfigured) };
        let mut known = place.known.lock().await;
        self.learn(place, control, &mut known).await?;
        let mut tx = control.read().await?;
        let (generation, _) = tx.tree_root().await?.ok_or(KeyringError::NoTree)?;
        self.keep_root(place, generation).await?;
        let at = clock.now();
        let storer =
            Storer { store: place.store.as_ref(), home: Id128(self.installation), random: self.random.as_ref() };
        let image = place.image(&mut tx, known.as_ref(), Some(storer)).await?;
        drop(tx);
        if let Some(same) =
            known.as_ref().filter(|known| known.name.generation == generation && known.counted == image.counted)
        {
            return Ok(Sealing::Unchanged(same.name));
        }
        let root = self.slot.open(generation).await?;
        let (sealing, _) = self.store_image(place, control, &mut known, (generation, &root), image, at).await?;
        Ok(sealing)
    }

    /// Seals the state again when the newest record is of a generation that was given up.
    pub(in crate::keyring) async fn replace_record_of(
        &self,
        control: &Control,
        given_up: Generation,
        clock: &dyn Clock,
    ) -> Result<()> {
        let Ok(Some(place)) = self.second_place() else { return Ok(()) };
        place.compare(control).await?;
        let head = Memory::read(&mut control.read().await?).await?.head;
        if head.is_some_and(|head| head.generation == given_up) {
            self.seal_state(control, clock).await?;
        }
        Ok(())
    }

    /// Seals the state that `tx` sees, which is not in force yet, as that of a new generation; returns the record as read
    /// back, and which of its pieces hold what of the key tree.
    pub(in crate::keyring) async fn seal_generation(
        &self,
        place: &SecondPlace,
        control: &Control,
        mut tx: Tx,
        next: (Generation, &Key),
        at: DateTime<Utc>,
    ) -> Result<(StateRecord, TreePieces)> {
        let mut known = place.known.lock().await;
        // The write lock is held by `tx`; what is learned here is only read from elsewhere.
        self.learn_parts(place, &mut tx, &mut known).await?;
        // Nothing is stored while others wait for the write lock; a shred changes few pieces.
        let image = place.image(&mut tx, known.as_ref(), None).await?;
        // Rolled back: nothing of it is in force here before it is there.
        drop(tx);
        let tree = image.tree.clone();
        let (_, stored) = self.store_image(place, control, &mut known, next, image, at).await?;
        Ok((stored, tree))
    }

    /// Makes sure that what this process knows is the newest record there is.
    async fn learn(&self, place: &SecondPlace, control: &Control, known: &mut Option<Known>) -> Result<()> {
        let memory = Memory::read(&mut control.read().await?).await?;
        if memory.intent.is_some() {
            place.compare(control).await?;
        }
        self.learn_parts(place, &mut control.read().await?, known).await
    }

    async fn learn_parts(&self, place: &SecondPlace, tx: &mut Tx, known: &mut Option<Known>) -> Result<()> {
        let Some(head) = Memory::read(tx).await?.head else {
            *known = None;
            return Ok(());
        };
        if known.as_ref().is_some_and(|known| known.name == head) {
            return Ok(());
        }
        *known = None;
        let root = match self.slot.open(head.generation).await {
            // Its change was given up; everything is stored anew.
            Err(SlotError::Missing { .. }) => return Ok(()),
            other => other?,
        };
        match fetch_record(place.store.as_ref(), &head, self.installation, &root).await {
            Ok(record) => *known = Some(Known::of(head, record)),
            Err(SecondPlaceError::Store(error)) if error.is_retryable() => {
                return Err(SecondPlaceError::Store(error).into());
            }
            Err(error) => {
                tracing::warn!(error = %error, "the newest state record cannot be read; everything is stored anew");
            }
        }
        Ok(())
    }

    /// Stores parts and record in their order; returns the record as read back.
    async fn store_image(
        &self,
        place: &SecondPlace,
        control: &Control,
        known: &mut Option<Known>,
        (generation, root): (Generation, &Key),
        image: Image,
        at: DateTime<Utc>,
    ) -> Result<(Sealing, StateRecord)> {
        let home = Id128(self.installation);
        self.keep_root(place, generation).await?;
        let memory = Memory::read(&mut control.read().await?).await?;
        let (pieces, objects, bytes) = self.store_parts(place, known.as_ref(), image.pieces).await?;
        let (mut objects, mut bytes) = (objects + image.objects, bytes + image.stored_bytes);
        let files = place.files.iter().map(|file| StateFile { name: file.name.clone(), bytes: file.bytes.clone() });
        let record = StateRecord {
            number: memory.head.map_or(1, |head| head.number + 1),
            generation,
            previous: memory.head.map(|head| head.sha256),
            at,
            heads: image.heads,
            counted: image.counted,
            files: files.collect(),
            pieces,
        };
        let sealed = record.seal(home, root, self.random.as_ref()).map_err(SecondPlaceError::from)?;
        let name = sealed.name;
        let mut tx = control.begin().await?;
        if Memory::read(&mut tx).await? != memory {
            return Err(KeyringError::Overtaken("another process has stored the state"));
        }
        announce(&mut tx, &memory, &name).await?;
        tx.commit().await?;
        crash_point::reached("state.announced");
        objects += 1;
        bytes += sealed.bytes.len() as u64;
        place.store.put_if_absent(&name.text(), sealed.bytes).await.map_err(SecondPlaceError::from)?;
        crash_point::reached("state.stored");
        let mut tx = control.read().await?;
        let memory = Memory::read(&mut tx).await?;
        drop(tx);
        if place.records(name.number, &memory).await? != [name] {
            return Err(SecondPlaceError::Forked { number: name.number }.into());
        }
        let stored = fetch_record(place.store.as_ref(), &name, self.installation, root).await?;
        let mut tx = control.begin().await?;
        settle(&mut tx, &name, Some(&time_text(at))).await?;
        tx.commit().await?;
        crash_point::reached("state.noted");
        *known = Some(Known::of(name, record));
        Ok((Sealing::Stored { name, objects, bytes }, stored))
    }

    async fn store_parts(
        &self,
        place: &SecondPlace,
        known: Option<&Known>,
        pieces: Vec<(Sha256, Content)>,
    ) -> Result<(Vec<Piece>, u64, u64)> {
        let storer =
            Storer { store: place.store.as_ref(), home: Id128(self.installation), random: self.random.as_ref() };
        let (mut made, mut objects, mut stored_bytes) = (Vec::with_capacity(pieces.len()), 0, 0);
        for (digest, content) in pieces {
            let place = match (content, known.and_then(|known| known.parts.get(&digest))) {
                (Content::Stored(part), _) => PiecePlace::Part(part),
                (Content::Held(content), _) if content.len() <= INLINE_BYTES => {
                    PiecePlace::Inline(Zeroizing::new(content))
                }
                (_, Some(part)) => PiecePlace::Part(PartRef { key: copy(&part.key), ..*part }),
                (Content::Held(content), None) => {
                    let (part, length) = storer.store(&content).await?;
                    objects += 1;
                    stored_bytes += length;
                    PiecePlace::Part(part)
                }
                (Content::There, None) => return Err(SecondPlaceError::NotWhole("a part was forgotten").into()),
            };
            made.push(Piece { digest, place });
        }
        Ok((made, objects, stored_bytes))
    }
}

impl SecondPlace {
    /// Takes the image of what `tx` sees; with a storer, new pieces are stored as they come.
    async fn image(&self, tx: &mut Tx, known: Option<&Known>, storer: Option<Storer<'_>>) -> Result<Image> {
        let counted: Vec<Sha256> =
            self.files.iter().flat_map(|file| [Sha256::of(file.name.as_bytes()), Sha256::of(&file.bytes)]).collect();
        let (image, tree, failed) = (Vec::new(), TreePieces::default(), None);
        let mut gathering = Gathering { known, storer, counted, image, tree, objects: 0, stored_bytes: 0, failed };
        let heads = tx.image(&mut gathering).await?;
        let Gathering { counted, image: pieces, tree, objects, stored_bytes, failed, .. } = gathering;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let parts: Vec<&[u8]> = counted.iter().map(|digest| &digest.0[..]).collect();
        let counted = Sha256::of_parts(&parts);
        Ok(Image { heads, pieces, counted, tree, objects, stored_bytes })
    }
}
