"""Makes the golden vectors of the key formats with an implementation of their own.

Nothing here is shared with the program: the formats are written down a second time from their documentation, with Python's
hashlib and hmac and the `cryptography` package. Run it in the repository's root; the files must not change, unless a
format got a new version.
"""

import hashlib
import hmac
import json
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FOLDER = Path(__file__).parent
INTL, GM = 1, 2
INNER, LEAF, CROWN = 1, 2, 4


def made_up(name, length):
    """Bytes that the name determines."""
    blocks = (hashlib.sha256(f"{name}:{i}".encode()).digest() for i in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def mac(suite, key, parts):
    framed = b"".join(struct.pack(">Q", len(part)) + part for part in parts)
    return hmac.new(key, framed, "sha256" if suite == INTL else "sm3").digest()


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def write(name, vectors):
    (FOLDER / name).write_text(json.dumps(vectors, indent=2) + "\n")


INSTALLATION = made_up("installation", 16)


def cell(at, subject, bucket):
    subject_key, bucket_key, chain_key = (made_up(f"cell{at}{which}", 32) for which in "sbc")
    frame = made_up(f"frame{at}", 16)
    owner = bytes(5) if subject == 0 else b"\x01" + struct.pack(">I", subject)
    ids = [owner, struct.pack(">I", bucket)]
    secret = mac(INTL, bucket_key, [b"wangchuan.cell", b"bucket", *ids])
    if subject:
        secret = xor(secret, mac(INTL, subject_key, [b"wangchuan.cell", b"subject", *ids]))
    vector = {
        "subject": subject,
        "bucket": bucket,
        "subject_key": subject_key.hex(),
        "bucket_key": bucket_key.hex(),
        "chain_key": chain_key.hex(),
        "frame_id": frame.hex(),
        "cell_secret": secret.hex(),
    }
    for suite, name in ((INTL, "intl"), (GM, "gm")):
        number = bytes([suite])
        frame_base = xor(
            mac(suite, secret, [b"wangchuan.frame", b"cell", number, frame]),
            mac(suite, chain_key, [b"wangchuan.frame", b"chain", number, frame]),
        )
        part_base = mac(suite, chain_key, [b"wangchuan.chain-part", number, b"directory", frame])
        for base, prefix in ((frame_base, name), (part_base, f"{name}_directory")):
            vector[f"{prefix}_encryption"] = mac(suite, base, [b"wangchuan.frame", b"encrypt"]).hex()
            vector[f"{prefix}_commitment"] = mac(suite, base, [b"wangchuan.frame", b"commit"]).hex()
    vector["pseudonym"] = mac(INTL, chain_key, [b"wangchuan.pseudonym", b"suppression", b"a", b"bc"]).hex()
    return vector


def column(at, context, plain):
    key, nonce = made_up(f"col{at}", 32), made_up(f"coln{at}", 12)
    cipher_key = mac(INTL, key, [b"wangchuan.column", *context])
    aad = b"\x01" + b"".join(struct.pack(">Q", len(part)) + part for part in context)
    padded = plain + b"\x80"
    padded += bytes(-len(padded) % 32)
    return {
        "key": key.hex(),
        "context": [{"part": part.hex()} for part in context],
        "plain": plain.hex(),
        "nonce": nonce.hex(),
        "sealed": (b"\x01" + nonce + AESGCM(cipher_key).encrypt(nonce, padded, aad)).hex(),
    }


def sealed_entries(kind, key, nonce, entries, aad):
    bitmap = sum(1 << position for position, _, _ in entries)
    content = struct.pack(">Q", bitmap)
    for _, child, version in entries:
        content += child if kind == LEAF else child + struct.pack(">q", version)
    return (bytes([1, kind]) + nonce + AESGCM(key).encrypt(nonce, content, aad)).hex()


def shown(entries):
    return [{"position": position, "key": key.hex(), "version": version} for position, key, version in entries]


def node(at, kind, subtree, level, index, version, children):
    key, nonce = made_up(f"node{at}", 32), made_up(f"noden{at}", 12)
    entries = [(position, made_up(f"node{at}child{position}", 32), child) for position, child in children]
    aad = b"wangchuan.node" + bytes([1, kind]) + INSTALLATION + bytes([subtree, level])
    aad += struct.pack(">Iq", index, version)
    return {
        "kind": kind,
        "subtree": subtree,
        "level": level,
        "index": index,
        "version": version,
        "installation": INSTALLATION.hex(),
        "key": key.hex(),
        "nonce": nonce.hex(),
        "entries": shown(entries),
        "sealed": sealed_entries(kind, key, nonce, entries, aad),
    }


def crown(at, generation):
    key, nonce = made_up(f"root{at}", 32), made_up(f"rootn{at}", 12)
    entries = [(p, made_up(f"root{at}child{p}", 32), max(1, generation - p % 2)) for p in range(5)]
    aad = b"wangchuan.crown" + bytes([1, CROWN]) + INSTALLATION + struct.pack(">q", generation)
    return {
        "generation": generation,
        "installation": INSTALLATION.hex(),
        "key": key.hex(),
        "nonce": nonce.hex(),
        "entries": shown(entries),
        "sealed": sealed_entries(CROWN, key, nonce, entries, aad),
    }


def root_file(at, generation):
    key = made_up(f"file{at}", 32)
    body = b"wangroot" + b"\x01" + struct.pack(">q", generation) + INSTALLATION + key
    return {
        "generation": generation,
        "installation": INSTALLATION.hex(),
        "key": key.hex(),
        "file": (body + hashlib.sha256(body).digest()).hex(),
    }


write("cell.json", [cell(0, 4097, 12), cell(1, 0, 12), cell(2, (1 << 30) - 1, (1 << 30) - 1)])
write(
    "column.json",
    [
        column(0, [b"request", b"subject", b"17"], b"C-10042"),
        column(1, [], b""),
        column(2, [b"plan"], made_up("p", 31)),
        column(3, [b"plan", b""], made_up("p", 96)),
    ],
)
write(
    "node.json",
    [
        node(0, LEAF, 1, 4, 64, 1, [(0, 0), (5, 0), (63, 0)]),
        node(1, LEAF, 3, 4, (1 << 24) - 1, 9, []),
        node(2, INNER, 2, 2, 4095, 300, [(1, 2), (62, 300)]),
        node(3, INNER, 5, 0, 0, 1, []),
        node(4, LEAF, 4, 4, 1, 2, [(position, 0) for position in range(64)]),
    ],
)
write("crown.json", [crown(0, 1), crown(1, 77)])
write("root_file.json", [root_file(0, 1), root_file(1, 123456789)])
