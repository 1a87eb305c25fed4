//! The primitives against the published vectors of their standards.

use proptest::prelude::*;
use sm3::{Digest, Sm3};

use super::*;
use crate::keys::testing::key_of;

fn bytes(hex_digits: &str) -> Vec<u8> {
    hex::decode(hex_digits).unwrap()
}

/// A key from fewer than 32 bytes: SM4 reads the first 16 only, and HMAC pads with zeros anyhow.
fn short_key(start: &[u8]) -> Key {
    let mut key = [0; 32];
    key[..start.len()].copy_from_slice(start);
    Key::dangerous_from_bytes(&key)
}

struct GcmVector {
    suite: Suite,
    key: &'static str,
    nonce: &'static str,
    aad: &'static str,
    plain: &'static str,
    sealed: &'static str,
    tag: &'static str,
}

const GCM_VECTORS: [GcmVector; 3] = [
    // RFC 8998, appendix A.1.
    GcmVector {
        suite: Suite::Gm,
        key: "0123456789abcdeffedcba9876543210",
        nonce: "00001234567800000000abcd",
        aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        plain: concat!(
            "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd",
            "eeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa"
        ),
        sealed: concat!(
            "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735",
            "d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d"
        ),
        tag: "83de3541e4c2b58177e065a9bf7b62ec",
    },
    // McGrew and Viega, The Galois/Counter Mode of Operation, test cases 16 and 13.
    GcmVector {
        suite: Suite::Intl,
        key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        nonce: "cafebabefacedbaddecaf888",
        aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        plain: concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ),
        sealed: concat!(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        ),
        tag: "76fc6ece0f4e1768cddf8853bb2d551b",
    },
    GcmVector {
        suite: Suite::Intl,
        key: "0000000000000000000000000000000000000000000000000000000000000000",
        nonce: "000000000000000000000000",
        aad: "",
        plain: "",
        sealed: "",
        tag: "530f8afbc74536b9a963b4f1c4cb738b",
    },
];

#[test]
fn both_ciphers_give_the_published_results() {
    for vector in GCM_VECTORS {
        let key = short_key(&bytes(vector.key));
        let nonce = bytes(vector.nonce).try_into().unwrap();
        let aad = bytes(vector.aad);
        let mut message = bytes(vector.plain);
        seal(vector.suite, &key, nonce, &aad, &mut message).unwrap();
        assert_eq!(hex::encode(&message), format!("{}{}", vector.sealed, vector.tag));
        open(vector.suite, &key, nonce, &aad, &mut message).unwrap();
        assert_eq!(hex::encode(&message), vector.plain);
    }
}

/// GB/T 32905-2016, appendix A, examples 1 and 2.
#[test]
fn sm3_gives_the_published_digests() {
    let short = "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0";
    let long = "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732";
    assert_eq!(hex::encode(Sm3::digest(b"abc")), short);
    assert_eq!(hex::encode(Sm3::digest(b"abcd".repeat(16))), long);
}

/// Keys and messages of RFC 4231, test cases 1 to 3. Its results for SHA-256; those for SM3, for which no standard at hand lists any,
/// come from an independent implementation (OpenSSL 3).
#[test]
fn hmac_gives_the_published_results() {
    let cases: [(&[u8], &[u8], &str, &str); 3] = [
        (
            &[0x0b; 20],
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            "51b00d1fb49832bfb01c3ce27848e59f871d9ba938dc563b338ca964755cce70",
        ),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            "2e87f1d16862e6d964b50a5200bf2b10b764faa9680a296a2405f24bec39f882",
        ),
        (
            &[0xaa; 20],
            &[0xdd; 50],
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            "dd9421e1c725bdf52ec1aa34edadb3c97f5951a83a2fa93f73a7902bc1dcc777",
        ),
    ];
    for (key, message, intl, gm) in cases {
        for (suite, expected) in [(Suite::Intl, intl), (Suite::Gm, gm)] {
            let (mut whole, mut in_pieces) = ([0; 32], [0; 32]);
            raw_mac(suite, &short_key(key), std::iter::once(message), &mut whole);
            assert_eq!(hex::encode(whole), expected);
            raw_mac(suite, &short_key(key), message.chunks(3), &mut in_pieces);
            assert_eq!(in_pieces, whole);
        }
    }
}

#[test]
fn parts_are_kept_apart() {
    for suite in [Suite::Intl, Suite::Gm] {
        let splits: [&[&[u8]]; 5] = [&[b"ab", b"c"], &[b"a", b"bc"], &[b"abc"], &[b"abc", b""], &[]];
        let macs = splits.map(|parts| mac(suite, &key_of(1), parts));
        for (at, one) in macs.iter().enumerate() {
            assert!(!macs[..at].contains(one));
        }
        assert_eq!(derive_key(suite, &key_of(1), &[b"ab", b"c"]).dangerous_bytes(), &macs[0]);
    }
}

#[test]
fn an_unknown_suite_is_named() {
    assert_eq!(Suite::try_from(1), Ok(Suite::Intl));
    assert_eq!(Suite::try_from(2), Ok(Suite::Gm));
    assert_eq!(Suite::try_from(3), Err(SealError::UnknownSuite(3)));
}

/// SM4-GCM of an independent implementation.
fn reference_seal(key: &[u8; 16], nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; TAG_BYTES] {
    use aes_gcm::aead::{AeadInOut, KeyInit, inout::InOutBuf};
    let cipher = aes_gcm::AesGcm::<::sm4::Sm4, aes_gcm::aes::cipher::consts::U12>::new(key.into());
    cipher.encrypt_inout_detached(&nonce.into(), aad, InOutBuf::from(text)).unwrap().into()
}

fn agrees(key: [u8; 16], nonce: [u8; 12], aad: &[u8], text: &[u8]) {
    let mut expected = text.to_vec();
    let tag = reference_seal(&key, nonce, aad, &mut expected);
    for engine in sm4::Engine::all() {
        let message = gcm::Message { engine, key: &key, nonce, aad };
        let mut found = text.to_vec();
        assert_eq!(message.seal(&mut found), Ok(tag), "{} bytes, {}", text.len(), engine.name());
        assert_eq!(found, expected, "{} bytes, {}", text.len(), engine.name());
        message.open(&mut found, &tag).unwrap();
        assert_eq!(found, text);
        for bit in [0, 63, 127] {
            let wrong = (u128::from_be_bytes(tag) ^ 1 << bit).to_be_bytes();
            assert_eq!(message.open(&mut found, &wrong), Err(SealError::DoesNotOpen));
        }
        assert_eq!(found, text, "what does not open is left as it is");
    }
}

/// Around the sizes at which a batch of the key stream begins or ends, for messages of one and of several batches.
#[test]
fn every_length_of_sm4_gcm_agrees_with_another_implementation() {
    let text: Vec<u8> = (0..5_000_u32).map(|at| (at * 7 % 251) as u8).collect();
    let edges = [14_usize, 15, 16, 126, 127, 128, 254, 255].map(|blocks| blocks * 16);
    let near = edges.into_iter().flat_map(|edge| [edge - 17, edge - 1, edge, edge + 1, edge + 17]);
    for length in (0..=48).chain(near).chain([5_000]) {
        agrees([0x3c; 16], [9; 12], &text[..length % 37], &text[..length]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_open_with_their_key_nonce_and_context_only(
        gm: bool,
        plain in proptest::collection::vec(any::<u8>(), 0..300),
        aad in proptest::collection::vec(any::<u8>(), 0..40),
        flip: proptest::sample::Index,
    ) {
        let suite = if gm { Suite::Gm } else { Suite::Intl };
        let mut sealed = plain.clone();
        seal(suite, &key_of(1), [2; 12], &aad, &mut sealed).unwrap();
        let opens = |key, nonce, aad: &[u8], message: &[u8]| {
            let mut message = message.to_vec();
            open(suite, &key_of(key), nonce, aad, &mut message).map(|()| message)
        };
        prop_assert_eq!(opens(1, [2; 12], &aad, &sealed), Ok(plain));
        let mut other_aad = aad.clone();
        other_aad.push(0);
        let mut changed = sealed.clone();
        changed[flip.index(sealed.len())] ^= 1;
        for refused in [
            opens(3, [2; 12], &aad, &sealed),
            opens(1, [3; 12], &aad, &sealed),
            opens(1, [2; 12], &other_aad, &sealed),
            opens(1, [2; 12], &aad, &changed),
            opens(1, [2; 12], &aad, &sealed[..sealed.len() - 1]),
        ] {
            prop_assert_eq!(refused, Err(SealError::DoesNotOpen));
        }
    }

    #[test]
    fn opening_never_panics(gm: bool, mut message in proptest::collection::vec(any::<u8>(), 0..64)) {
        let suite = if gm { Suite::Gm } else { Suite::Intl };
        prop_assert!(open(suite, &key_of(1), [0; 12], &[], &mut message).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sm4_gcm_agrees_with_another_implementation(
        key: [u8; 16],
        nonce: [u8; 12],
        aad in proptest::collection::vec(any::<u8>(), 0..100),
        text in proptest::collection::vec(any::<u8>(), 0..4096),
    ) {
        agrees(key, nonce, &aad, &text);
    }
}
