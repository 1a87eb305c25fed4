//! The engines against the standard, against each other and against an independent implementation.

use ::sm4::cipher::{BlockCipherEncrypt, KeyInit};
use proptest::prelude::*;

use super::*;

fn reference(key: &[u8; 16], blocks: &mut [Block]) {
    let cipher = ::sm4::Sm4::new(key.into());
    for block in blocks {
        let mut out = (*block).into();
        cipher.encrypt_block(&mut out);
        *block = out.into();
    }
}

/// GB/T 32907-2016, appendix A, example 1.
#[test]
fn the_published_block() {
    let start: Block = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128.to_be_bytes();
    for engine in Engine::all() {
        let cipher = Sm4::new(engine, &start);
        let mut blocks = [start];
        cipher.encrypt(&mut blocks);
        assert_eq!(hex::encode(blocks[0]), "681edf34d206965e86b3e94f536e4246", "{}", engine.name());
    }
}

/// The first and last round keys that GB/T 32907-2016, appendix A, prints.
#[test]
fn the_published_round_keys() {
    let key = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128.to_be_bytes();
    for engine in Engine::all() {
        let cipher = Sm4::new(engine, &key);
        assert_eq!((cipher.round_keys[0], cipher.round_keys[31]), (0xf121_86f9, 0x9124_a012), "{}", engine.name());
    }
}

/// Every byte value passes the S-box, in every place, and every number of blocks up to more than all engines take at once.
#[test]
fn every_byte_and_every_count() {
    let key = [0x5c; 16];
    let mut blocks: Vec<Block> = (0..=255).map(|byte| [byte; 16]).collect();
    let mut expected = blocks.clone();
    reference(&key, &mut expected);
    for engine in Engine::all() {
        let cipher = Sm4::new(engine, &key);
        for count in (0..=18).chain([31, 32, 33, 48, 63, 64, 65, 127, 128, 129, 192, 193, 256]) {
            for (block, byte) in blocks.iter_mut().zip(0..=255) {
                *block = [byte; 16];
            }
            cipher.encrypt(&mut blocks[..count]);
            assert_eq!(blocks[..count], expected[..count], "{} of {}", count, engine.name());
            assert!(blocks[count..].iter().zip(count as u8..=255).all(|(block, byte)| *block == [byte; 16]));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_blocks_agree(key: [u8; 16], blocks in proptest::collection::vec(any::<Block>(), 1..70)) {
        let mut expected = blocks.clone();
        reference(&key, &mut expected);
        for engine in Engine::all() {
            let mut found = blocks.clone();
            Sm4::new(engine, &key).encrypt(&mut found);
            prop_assert_eq!(&found, &expected, "{}", engine.name());
        }
    }
}
