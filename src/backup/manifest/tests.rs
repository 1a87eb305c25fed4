use super::*;
use proptest::prelude::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn manifest() -> Manifest {
    Manifest {
        format_version: 1,
        installation: Id128([1; 16]),
        store: Id128([2; 16]),
        snapshot: Id128([3; 16]),
        kind: SnapshotKind::Full,
        chain: 4,
        sequence: 1,
        previous: None,
        parent: None,
        ledger_position: 17,
        begun: at(0),
        committed: at(60),
        packs: vec![PackRef { sha256: Sha256([5; 32]), bytes: 1000, frames: 7 }],
        directory: vec![PartRef { sha256: Sha256([6; 32]), bytes: 500 }],
        frames: 7,
    }
}

/// Stands in for a signature: a digest that names the key.
#[expect(clippy::unnecessary_wraps, reason = "the signature that is asked for")]
fn sign(pae: &[u8]) -> Result<Vec<u8>, SignerError> {
    Ok(Sha256::of_parts(&[b"key 1", pae]).0.to_vec())
}

fn trust(key_id: &str, pae: &[u8], signature: &[u8]) -> bool {
    key_id == "key-1" && Sha256::of_parts(&[b"key 1", pae]).0 == *signature
}

#[test]
fn a_signed_manifest_opens_under_its_name() {
    let signed = manifest().sign("key-1", &sign).unwrap();
    assert_eq!(signed.name, format!("manifests/{}/0000000001-{}", Id128([2; 16]), Sha256::of(&signed.bytes)));
    assert_eq!(parse_manifest_name(&signed.name), Some((Id128([2; 16]), 1, signed.sha256)));
    let opened = Manifest::open(&signed.name, &signed.bytes, &trust).unwrap();
    assert_eq!(opened, manifest());
    assert_eq!(opened.stored_bytes(), 1500);
}

#[test]
fn the_signed_bytes_are_those_of_dsse() {
    assert_eq!(pre_authentication_encoding(b"hello"), b"DSSEv1 39 application/vnd.wangchuan.manifest+json 5 hello");
}

#[test]
fn an_untrusted_or_missing_signature_is_refused() {
    let signed = manifest().sign("key-2", &sign).unwrap();
    assert!(matches!(Manifest::open(&signed.name, &signed.bytes, &trust), Err(ManifestError::Untrusted)));
    let text = String::from_utf8(signed.bytes).unwrap();
    let none = format!("{}\"signatures\":[]}}", text.split("\"signatures\"").next().unwrap());
    let name = manifest_name(&Id128([2; 16]), 1, &Sha256::of(none.as_bytes()));
    assert!(matches!(Manifest::open(&name, none.as_bytes(), &trust), Err(ManifestError::Untrusted)));
}

#[test]
fn the_name_binds_store_sequence_and_digest() {
    let signed = manifest().sign("key-1", &sign).unwrap();
    let open = |name: &str| Manifest::open(name, &signed.bytes, &trust);
    let names = [manifest_name(&Id128([9; 16]), 1, &signed.sha256), manifest_name(&Id128([2; 16]), 2, &signed.sha256)];
    for name in names {
        assert!(matches!(open(&name), Err(ManifestError::Corrupt("its name says another store or sequence number"))));
    }
    let other = manifest_name(&Id128([2; 16]), 1, &Sha256([0; 32]));
    assert!(matches!(open(&other), Err(ManifestError::OtherDigest)));
    for name in ["manifests/x", "packs/00", "", "manifests/0/1-2"] {
        assert!(matches!(open(name), Err(ManifestError::Corrupt(_))));
        assert_eq!(parse_manifest_name(name), None);
    }
}

#[test]
fn contradictions_are_not_signed() {
    let wrong = [
        Manifest { sequence: 0, ..manifest() },
        Manifest { sequence: MAX_SEQUENCE + 1, previous: Some(Sha256([0; 32])), ..manifest() },
        Manifest { sequence: 2, ..manifest() },
        Manifest { previous: Some(Sha256([0; 32])), ..manifest() },
        Manifest { frames: 8, ..manifest() },
        Manifest { directory: Vec::new(), ..manifest() },
        Manifest { committed: at(-1), ..manifest() },
    ];
    for manifest in wrong {
        assert!(matches!(manifest.sign("key-1", &sign), Err(ManifestError::Corrupt(_))));
    }
}

#[test]
fn a_failing_signer_is_reported() {
    let failed = manifest().sign("key-1", &|_| Err("no key".into()));
    assert!(matches!(failed, Err(ManifestError::Signer(_))));
}

#[test]
fn a_newer_format_is_told_from_damage_and_unknown_members_are_refused() {
    let signed_payload = |payload: &str| {
        let signature = sign(&pre_authentication_encoding(payload.as_bytes())).unwrap();
        let envelope = Envelope {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: STANDARD.encode(payload),
            signatures: vec![Signature { keyid: "key-1".to_owned(), sig: STANDARD.encode(signature) }],
        };
        let bytes = serde_json::to_vec(&envelope).unwrap();
        let name = manifest_name(&Id128([2; 16]), 1, &Sha256::of(&bytes));
        Manifest::open(&name, &bytes, &trust)
    };
    assert!(matches!(signed_payload("{\"format_version\":3,\"new\":1}"), Err(ManifestError::UnknownVersion(3))));
    let known = serde_json::to_string(&manifest()).unwrap();
    assert!(signed_payload(&known).is_ok());
    assert!(matches!(signed_payload(&known.replacen('{', "{\"new\":1,", 1)), Err(ManifestError::Corrupt(_))));
}

#[test]
fn it_holds_numbers_and_hashes_only() {
    let json = serde_json::to_value(manifest()).unwrap();
    let members: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members.len(), 14);
    for member in ["table", "collection", "rows", "name", "subject", "engine"] {
        assert!(!serde_json::to_string(&json).unwrap().contains(member), "{member}");
    }
}

proptest! {
    #[test]
    fn any_changed_byte_is_found(index in any::<prop::sample::Index>(), with in 1u8..) {
        let signed = manifest().sign("key-1", &sign).unwrap();
        let mut bytes = signed.bytes.clone();
        let index = index.index(bytes.len());
        bytes[index] ^= with;
        prop_assert!(Manifest::open(&signed.name, &bytes, &trust).is_err());
        // Even under a name that fits the changed bytes, unless only the spelling of the envelope changed.
        let renamed = manifest_name(&Id128([2; 16]), 1, &Sha256::of(&bytes));
        if let Ok(opened) = Manifest::open(&renamed, &bytes, &trust) {
            prop_assert_eq!(opened, manifest());
        }
    }

    #[test]
    fn reading_random_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let name = manifest_name(&Id128([2; 16]), 1, &Sha256::of(&bytes));
        prop_assert!(Manifest::open(&name, &bytes, &trust).is_err());
        let _ = Manifest::parse(&bytes);
    }
}
