"""Verifies the time stamps of bundles with rfc3161-client, which comes with sigstore and knows nothing of this project.

Usage: stamps.py FOLDER. FOLDER holds timestamp-roots.pem and *.sigstore.json.
Prints NAME accepted | NAME rejected REASON, one a line.
"""

import base64
import json
import sys
from importlib.metadata import version
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificates
from rfc3161_client import VerifierBuilder, decode_timestamp_response

# Another version may judge otherwise.
assert version("rfc3161-client") == "1.0.9", version("rfc3161-client")


def check(bundle: dict, folder: Path) -> None:
    stamps = bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"]
    response = decode_timestamp_response(base64.b64decode(stamps[0]["signedTimestamp"]))
    builder = VerifierBuilder()
    for root in load_pem_x509_certificates((folder / "timestamp-roots.pem").read_bytes()):
        builder = builder.add_root_certificate(root)
    signature = base64.b64decode(bundle["dsseEnvelope"]["signatures"][0]["sig"])
    builder.build().verify_message(response, signature)


def main() -> None:
    folder = Path(sys.argv[1])
    for path in sorted(folder.glob("*.sigstore.json")):
        name = path.name.removesuffix(".sigstore.json")
        try:
            check(json.loads(path.read_text()), folder)
            print(name, "accepted")
        except Exception as error:  # whatever a verifier raises is a rejection
            print(name, "rejected", type(error).__name__, str(error).replace("\n", " ")[:200])


main()
