"""Verifies bundles with three Python packages that know nothing of this project.

Usage: bundles.py FOLDER. FOLDER holds trusted_root.json, signer.pem and *.sigstore.json.
Prints TOOL NAME accepted | TOOL NAME rejected REASON, one a line.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf.json_format import ParseDict
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope as SslibEnvelope
from securesystemslib.signer import SSlibKey
from sigstore._internal.trust import KeyringPurpose
from sigstore.dsse import Envelope, _verify
from sigstore.models import TransparencyLogEntry, TrustedRoot
from sigstore_models.rekor.v1 import TransparencyLogEntry as Entry


def securesystemslib(bundle: dict, pem: bytes, _folder: Path) -> None:
    key = SSlibKey.from_crypto(load_pem_public_key(pem), keyid=bundle["verificationMaterial"]["publicKey"]["hint"])
    SslibEnvelope.from_dict(bundle["dsseEnvelope"]).verify([key], 1)


def in_toto_attestation(bundle: dict, _pem: bytes, _folder: Path) -> None:
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    Statement.copy_from_pb(ParseDict(payload, statement_pb2.Statement())).validate()


def sigstore(bundle: dict, pem: bytes, folder: Path) -> None:
    key = load_pem_public_key(pem)
    envelope = Envelope._from_json(json.dumps(bundle["dsseEnvelope"]))
    _verify(key, envelope)
    root = TrustedRoot.from_file(str(folder / "trusted_root.json"))
    entry = TransparencyLogEntry(Entry.from_json(json.dumps(bundle["verificationMaterial"]["tlogEntries"][0])))
    entry._verify(root.rekor_keyring(KeyringPurpose.VERIFY))
    # What sigstore's own check of a hashedrekord 0.0.2 does, which it reaches only for certificates of Fulcio.
    spec = json.loads(entry._inner.canonicalized_body)["spec"]["hashedRekordV002"]
    if base64.b64decode(spec["data"]["digest"]) != hashlib.sha256(envelope.pae()).digest():
        raise ValueError("the log entry is about other bytes")
    if base64.b64decode(spec["signature"]["content"]) != envelope.signature:
        raise ValueError("the log entry is about another signature")


def main() -> None:
    folder = Path(sys.argv[1])
    pem = (folder / "signer.pem").read_bytes()
    for path in sorted(folder.glob("*.sigstore.json")):
        name = path.name.removesuffix(".sigstore.json")
        for tool in (securesystemslib, in_toto_attestation, sigstore):
            try:
                # Read anew for each: securesystemslib takes members out of what it is given.
                tool(json.loads(path.read_text()), pem, folder)
                print(tool.__name__, name, "accepted")
            except Exception as error:  # whatever a verifier raises is a rejection
                print(tool.__name__, name, "rejected", type(error).__name__, str(error).replace("\n", " ")[:200])


main()
