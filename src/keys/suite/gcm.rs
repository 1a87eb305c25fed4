//! SM4 in Galois/counter mode (SP 800-38D with the cipher of GB/T 32907; RFC 8998), with 96-bit nonces and 128-bit tags.
//!
//! The hash key, the mask of the tag and the first counters go through the cipher together, so that a short message under a
//! fresh key costs one pass.

use ghash::GHash;
use ghash::universal_hash::UniversalHash as _;

use super::sm4::{BLOCK_BYTES, Block, Engine, Sm4, wipe};
use super::{SealError, TAG_BYTES};

/// The longest message: the counter has 32 bits, and two of its values are not for data (SP 800-38D, 5.2.1.1).
const MOST_BYTES: u64 = ((1 << 32) - 2) * BLOCK_BYTES as u64;
/// Blocks that go through the cipher before those of the message: for the hash key and for the tag.
const OWN_BLOCKS: usize = 2;
/// Blocks that go through the cipher at once, for messages that fit into one go and for others.
const FEW: usize = 16;
const MANY: usize = 128;

/// One message: a key, a nonce, a context.
pub struct Message<'m> {
    /// What carries SM4 out.
    pub engine: Engine,
    /// The key.
    pub key: &'m [u8; 16],
    /// The nonce; never twice with one key.
    pub nonce: [u8; 12],
    /// What is authenticated with the message and not sealed.
    pub aad: &'m [u8],
}

impl Message<'_> {
    /// Encrypts `text` in place and returns its tag.
    ///
    /// # Errors
    /// [`SealError::Refused`] for a text beyond the mode's limit.
    pub fn seal(&self, text: &mut [u8]) -> Result<[u8; TAG_BYTES], SealError> {
        if text.len() as u64 > MOST_BYTES {
            return Err(SealError::Refused);
        }
        if text.len() <= (FEW - OWN_BLOCKS) * BLOCK_BYTES {
            return Ok(self.seal_with::<FEW>(text));
        }
        Ok(self.seal_with::<MANY>(text))
    }

    /// Decrypts in place what [`Message::seal`] encrypted, if the tag is right; `text` stays as it is otherwise.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`].
    pub fn open(&self, text: &mut [u8], tag: &[u8; TAG_BYTES]) -> Result<(), SealError> {
        if text.len() as u64 > MOST_BYTES {
            return Err(SealError::DoesNotOpen);
        }
        if text.len() <= (FEW - OWN_BLOCKS) * BLOCK_BYTES {
            return self.open_with::<FEW>(text, tag);
        }
        self.open_with::<MANY>(text, tag)
    }

    #[inline(never)]
    fn seal_with<const BATCH: usize>(&self, text: &mut [u8]) -> [u8; TAG_BYTES] {
        let mut blocks = [[0; BLOCK_BYTES]; BATCH];
        let mut stream = Stream::begin(self, &mut blocks, text.len());
        let mask = stream.mask();
        let mut hash = self.hash(&stream);
        stream.add_to(text, &mut |done| hash.update_padded(done));
        finish(hash, self.aad, text.len(), mask)
    }

    #[inline(never)]
    fn open_with<const BATCH: usize>(&self, text: &mut [u8], tag: &[u8; TAG_BYTES]) -> Result<(), SealError> {
        let mut blocks = [[0; BLOCK_BYTES]; BATCH];
        let mut stream = Stream::begin(self, &mut blocks, text.len());
        let mut hash = self.hash(&stream);
        hash.update_padded(text);
        let expected = finish(hash, self.aad, text.len(), stream.mask());
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected, tag).map_err(|_| SealError::DoesNotOpen)?;
        stream.add_to(text, &mut |_| {});
        Ok(())
    }

    /// The hash after the context.
    fn hash(&self, stream: &Stream<'_>) -> GHash {
        let mut hash = GHash::new((&stream.blocks[0]).into());
        hash.update_padded(self.aad);
        hash
    }

    /// The block with this counter.
    fn counter_block(&self, counter: u32) -> Block {
        let mut block = [0; BLOCK_BYTES];
        block[..12].copy_from_slice(&self.nonce);
        block[12..].copy_from_slice(&counter.to_be_bytes());
        block
    }
}

/// The tag: the hash of everything, masked.
fn finish(mut hash: GHash, aad: &[u8], text_bytes: usize, mask: Block) -> [u8; TAG_BYTES] {
    let bits = ((aad.len() as u128 * 8) << 64) | (text_bytes as u128 * 8);
    hash.update(&[bits.to_be_bytes().into()]);
    let sum = u128::from_be_bytes(hash.finalize().into()) ^ u128::from_be_bytes(mask);
    sum.to_be_bytes()
}

/// The key stream, a batch at a time. Wiped on drop.
struct Stream<'m> {
    message: &'m Message<'m>,
    cipher: Sm4,
    /// Lent, so that it is never moved and leaves no copy behind.
    blocks: &'m mut [Block],
    /// Blocks that hold key stream, the first two of the first batch excepted.
    filled: usize,
    /// The counter of the next block to make.
    counter: u32,
}

impl<'m> Stream<'m> {
    /// Makes the hash key, the mask and the key stream for the first bytes. `blocks` are zero.
    fn begin(message: &'m Message<'m>, blocks: &'m mut [Block], text_bytes: usize) -> Self {
        let cipher = Sm4::new(message.engine, message.key);
        // Block 0 stays zero: its encryption is the hash key. Counter 1 makes the mask.
        let mut stream = Self { message, cipher, blocks, filled: 1, counter: 1 };
        stream.fill(1, text_bytes.div_ceil(BLOCK_BYTES) + 1);
        stream
    }

    /// Puts counters from block `first` on, at most `wanted`, and encrypts all blocks.
    fn fill(&mut self, first: usize, wanted: usize) {
        self.filled = self.blocks.len().min(first.saturating_add(wanted));
        for block in &mut self.blocks[first..self.filled] {
            *block = self.message.counter_block(self.counter);
            self.counter = self.counter.wrapping_add(1);
        }
        self.cipher.encrypt(&mut self.blocks[..self.filled]);
    }

    fn mask(&self) -> Block {
        self.blocks[1]
    }

    /// Adds the stream to a whole text, and shows each part when it is done. Every part but the last consists of whole blocks.
    fn add_to(&mut self, text: &mut [u8], done: &mut dyn FnMut(&[u8])) {
        let mut first = OWN_BLOCKS;
        let mut rest = text;
        while !rest.is_empty() {
            if first == self.filled {
                self.fill(0, rest.len().div_ceil(BLOCK_BYTES));
                first = 0;
            }
            let stream = self.blocks[first..self.filled].as_flattened();
            let (part, behind) = rest.split_at_mut(stream.len().min(rest.len()));
            for (byte, with) in part.iter_mut().zip(stream) {
                *byte ^= with;
            }
            done(part);
            first = self.filled;
            rest = behind;
        }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        wipe(self.blocks, [0; BLOCK_BYTES]);
    }
}
