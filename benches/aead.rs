//! Sealing and opening of one record under a key of its own: our suites, and the libraries beside them.
//!
//! Key set-up counts, because every record has another key. Each record has 40 bytes of context, as a frame has.

mod harness;

use std::hint::black_box;
use std::process::Command;

use aes_gcm::aead::{AeadInOut, KeyInit, inout::InOutBuf};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use harness::{Outcome, Row, Table};
use wangchuan::keys::Key;
use wangchuan::keys::suite::sm4::Engine;
use wangchuan::keys::suite::{self, Suite, TAG_BYTES, gcm};

const AAD: [u8; 40] = [5; 40];
const NONCE: [u8; 12] = [1; 12];
const SIZES: [usize; 3] = [200, 2048, 1 << 20];

/// Works on a message in place, under a key.
type Work = Box<dyn Fn(&[u8; 32], &mut Vec<u8>) -> Outcome>;

/// One way to seal and to open. Both work in place; a sealed message has its tag at the end.
struct Contender {
    name: String,
    seal: Work,
    open: Work,
}

fn ours(suite: Suite) -> Contender {
    Contender {
        name: format!("wangchuan {}", suite.cipher_name()),
        seal: Box::new(move |key, text| Ok(suite::seal(suite, &Key::dangerous_from_bytes(key), NONCE, &AAD, text)?)),
        open: Box::new(move |key, text| Ok(suite::open(suite, &Key::dangerous_from_bytes(key), NONCE, &AAD, text)?)),
    }
}

fn half(key: &[u8; 32]) -> &[u8; 16] {
    &key.as_chunks().0[0]
}

fn message(engine: Engine, key: &[u8; 32]) -> gcm::Message<'_> {
    gcm::Message { engine, key: half(key), nonce: NONCE, aad: &AAD }
}

fn engine(engine: Engine) -> Contender {
    Contender {
        name: format!("wangchuan SM4-GCM, {}", engine.name()),
        seal: Box::new(move |key, text| {
            let tag = message(engine, key).seal(text)?;
            text.extend_from_slice(&tag);
            Ok(())
        }),
        open: Box::new(move |key, text| {
            let (body, tag) = text.split_last_chunk_mut::<TAG_BYTES>().ok_or("too short")?;
            message(engine, key).open(body, tag)?;
            text.truncate(text.len() - TAG_BYTES);
            Ok(())
        }),
    }
}

fn aws_lc() -> Contender {
    let ready = |key: &[u8; 32]| UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new);
    Contender {
        name: "aws-lc-rs AES-256-GCM".to_owned(),
        seal: Box::new(move |key, text| {
            let nonce = Nonce::assume_unique_for_key(NONCE);
            Ok(ready(key)?.seal_in_place_append_tag(nonce, Aad::from(AAD), text)?)
        }),
        open: Box::new(move |key, text| {
            let nonce = Nonce::assume_unique_for_key(NONCE);
            let length = ready(key)?.open_in_place(nonce, Aad::from(AAD), text)?.len();
            text.truncate(length);
            Ok(())
        }),
    }
}

/// A cipher of RustCrypto in its GCM; `key_bytes` of the key are used.
fn rust_crypto<C: KeyInit + AeadInOut<NonceSize = aes_gcm::aead::consts::U12> + 'static>(
    name: &str,
    key_bytes: usize,
) -> Contender {
    Contender {
        name: name.to_owned(),
        seal: Box::new(move |key, text| {
            let cipher = C::new_from_slice(&key[..key_bytes])?;
            let tag = cipher.encrypt_inout_detached(&NONCE.into(), &AAD, InOutBuf::from(text.as_mut_slice()));
            text.extend_from_slice(&tag.map_err(|_| "refused")?);
            Ok(())
        }),
        open: Box::new(move |key, text| {
            let cipher = C::new_from_slice(&key[..key_bytes])?;
            let (body, tag) = text.split_last_chunk_mut::<TAG_BYTES>().ok_or("too short")?;
            let tag = tag.as_slice().try_into().map_err(|_| "a tag of another length")?;
            cipher.decrypt_inout_detached(&NONCE.into(), &AAD, InOutBuf::from(body), tag).map_err(|_| "refused")?;
            text.truncate(text.len() - TAG_BYTES);
            Ok(())
        }),
    }
}

/// A key that differs in every call.
fn fresh_key(number: u64) -> [u8; 32] {
    let mut key = [0x5c; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    key
}

fn measure(contender: &Contender, size: usize) -> Result<Row, Box<dyn std::error::Error>> {
    let plain: Vec<u8> = (0..size).map(|at| at as u8).collect();
    let mut text = Vec::with_capacity(size + TAG_BYTES);
    text.extend_from_slice(&plain);
    let seal = harness::nanoseconds(|number| {
        text.truncate(size);
        (contender.seal)(&fresh_key(number), black_box(&mut text))
    })?;
    let mut sealed = plain.clone();
    (contender.seal)(&fresh_key(0), &mut sealed)?;
    // The copy of the sealed message costs what a memory copy costs, the same for all.
    let open = harness::nanoseconds(|_| {
        text.clear();
        text.extend_from_slice(&sealed);
        (contender.open)(&fresh_key(0), black_box(&mut text))
    })?;
    if text != plain {
        return Err(format!("{} does not open what it sealed", contender.name).into());
    }
    let speed = |nanoseconds: f64| format!("{:.0}", size as f64 * 1000.0 / nanoseconds);
    let cells = vec![size.to_string(), format!("{seal:.0}"), speed(seal), format!("{open:.0}"), speed(open)];
    Ok(Row { name: contender.name.clone(), cells })
}

/// What a command of OpenSSL prints; none when there is no such program, or it fails.
fn openssl(arguments: &[&str]) -> Option<String> {
    let program = std::env::var("WANGCHUAN_BENCH_OPENSSL").unwrap_or_else(|_| "openssl".to_owned());
    let done = Command::new(program).args(arguments).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

/// SM4-GCM of the `openssl` program by its own measure, which is kind to it: one key for all records, no context, no tag.
fn openssl_row(version: &str, size: usize) -> Row {
    let bytes = size.to_string();
    let said = openssl(&["speed", "-evp", "sm4-gcm", "-bytes", &bytes, "-seconds", "1", "-mr"]);
    // `+F:NUMBER:NAME:BYTES A SECOND`.
    let line = said.as_deref().and_then(|text| text.lines().find(|line| line.starts_with("+F:")));
    let speed = line.and_then(|line| line.rsplit(':').next()?.parse::<f64>().ok());
    let none = || "–".to_owned();
    match speed {
        Some(speed) => {
            let cells =
                vec![bytes, format!("{:.0}", size as f64 * 1e9 / speed), format!("{:.0}", speed / 1e6), none(), none()];
            Row { name: format!("{version} SM4-GCM, one key"), cells }
        }
        None => Row { name: format!("{version}: no SM4-GCM"), cells: vec![bytes, none(), none(), none(), none()] },
    }
}

fn main() -> Outcome {
    let mut contenders = vec![ours(Suite::Intl), ours(Suite::Gm)];
    contenders.extend(Engine::all().into_iter().rev().map(engine));
    contenders.push(aws_lc());
    contenders.push(rust_crypto::<aes_gcm::Aes256Gcm>("RustCrypto aes-gcm AES-256-GCM", 32));
    contenders.push(rust_crypto::<aes_gcm::AesGcm<sm4::Sm4, aes_gcm::aead::consts::U12>>("RustCrypto sm4 SM4-GCM", 16));
    let mut table = Table::new("one record, fresh key", &["bytes", "seal ns", "MB/s", "open ns", "MB/s"]);
    let version = openssl(&["version"]);
    let version = version.as_deref().map(|text| text.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
    for size in SIZES {
        for contender in &contenders {
            table.push(measure(contender, size)?);
        }
        if let Some(version) = &version {
            table.push(openssl_row(version, size));
        }
    }
    table.print();
    Ok(())
}
