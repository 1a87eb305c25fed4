//! Bundles and their evidence, verified with the crate sigstore-verify, which was not written for this project.

use std::path::Path;

use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Bundle, DerPublicKey};
use sigstore_verify::{PublicKeyVerificationPolicy, Verifier};

use super::tools::Said;

/// What it says of the bundles in a folder that holds `trusted_root.json`, `signer.pem` and `*.sigstore.json`. The file that a bundle is about is
/// `NAME.evidence.ndjson`, or that of `genuine`, of which the others are tampered copies.
pub fn verdicts(folder: &Path) -> Said {
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let verifier = Verifier::new(&TrustedRoot::from_json(&text("trusted_root.json")).unwrap()).unwrap();
    // The key is ours whatever the bundle hints at.
    let policy = PublicKeyVerificationPolicy::new(DerPublicKey::from_pem(&text("signer.pem")).unwrap());
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = entries.filter_map(|name| name.strip_suffix(".sigstore.json").map(str::to_owned));
    let verdict = |name: String| {
        let own = folder.join(format!("{name}.evidence.ndjson"));
        let evidence = if own.exists() { own } else { folder.join("genuine.evidence.ndjson") };
        let evidence = std::fs::read(evidence).unwrap();
        let bundle = Bundle::from_json(&text(&format!("{name}.sigstore.json")));
        let verified = bundle.map_err(|error| error.to_string()).and_then(|bundle| {
            verifier.verify(evidence.as_slice(), &bundle, &policy).map_err(|error| error.to_string())
        });
        let said = match verified {
            Ok(result) if result.tlog_verified() => "accepted".to_owned(),
            Ok(_) => "rejected the log was not looked at".to_owned(),
            Err(error) => format!("rejected {error}"),
        };
        (name, said)
    };
    names.map(verdict).collect()
}
