"""Reads a snapshot as a stranger would: from the specification in src/backup/mod.rs alone, with no code of the program.

Usage: read_backup.py FOLDER MANIFEST KEYS. FOLDER holds the objects under their names, MANIFEST is the name of the snapshot's
manifest, KEYS a JSON file: installation, chain_key and cell_secrets (hex), and perhaps signer, a PEM file with the public key.
Prints one JSON document: what the manifest and the schema say, the rows by table, and the digests of removed rows.
Uses the `cryptography` package for the ciphers and the system's libzstd for decompression.
"""

import base64
import ctypes
import hashlib
import hmac
import json
import struct
import sys
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_public_key

INTL, GM = 1, 2
MAX_CONTENT = 48 << 20


class Refused(Exception):
    """The bytes are not what the specification allows."""


def need(fits, what):
    if not fits:
        raise Refused(what)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        need(self.at + count <= len(self.data), f"cut short at byte {self.at}")
        piece = self.data[self.at : self.at + count]
        self.at += count
        return piece

    def number(self, width):
        return int.from_bytes(self.take(width), "big")

    def numbers(self, count):
        return list(struct.unpack(f">{count}I", self.take(4 * count)))

    def end(self):
        need(self.at == len(self.data), f"{len(self.data) - self.at} bytes too many")


# Keys


def mac(suite, key, *parts):
    framed = b"".join(struct.pack(">Q", len(part)) + part for part in parts)
    return hmac.new(key, framed, "sha256" if suite == INTL else "sm3").digest()


def xor(one, other):
    return bytes(a ^ b for a, b in zip(one, other))


def of_base(suite, base):
    """Encryption key and commitment."""
    return mac(suite, base, b"wangchuan.frame", b"encrypt"), mac(suite, base, b"wangchuan.frame", b"commit")


def frame_key(suite, secret, chain, frame):
    number = bytes([suite])
    cell = mac(suite, secret, b"wangchuan.frame", b"cell", number, frame)
    return of_base(suite, xor(cell, mac(suite, chain, b"wangchuan.frame", b"chain", number, frame)))


def directory_key(chain, part):
    return of_base(INTL, mac(INTL, chain, b"wangchuan.chain-part", bytes([INTL]), b"directory", part))


# Ciphers


def times(x, y):
    """The product in GCM's field (SP 800-38D, 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return product


def ghash(h, data):
    state = 0
    for at in range(0, len(data), 16):
        state = times(state ^ int.from_bytes(data[at : at + 16], "big"), h)
    return state.to_bytes(16, "big")


def padded(data):
    return data + bytes(-len(data) % 16)


def sm4_gcm_open(key, sealed, aad):
    """GCM by the book around SM4: a nonce of twelve zero bytes."""
    blocks = Cipher(algorithms.SM4(key[:16]), modes.ECB()).encryptor()
    h = int.from_bytes(blocks.update(bytes(16)), "big")
    text, tag = sealed[:-16], sealed[-16:]
    lengths = struct.pack(">QQ", 8 * len(aad), 8 * len(text))
    digest = ghash(h, padded(aad) + padded(text) + lengths)
    count = len(text) // 16 + 2
    stream = blocks.update(b"".join(bytes(12) + struct.pack(">I", number) for number in range(1, count + 1)))
    if not hmac.compare_digest(xor(digest, stream[:16]), tag):
        raise InvalidTag
    return xor(text, stream[16:])


def aead_open(suite, key, sealed, aad):
    try:
        if suite == INTL:
            return AESGCM(key).decrypt(bytes(12), sealed, aad)
        return sm4_gcm_open(key, sealed, aad)
    except InvalidTag:
        raise Refused("changed bytes, or another place") from None


ZSTD = ctypes.CDLL("libzstd.so.1")
ZSTD.ZSTD_decompress.restype = ctypes.c_size_t
ZSTD.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]


def decompressed(data, length):
    out = ctypes.create_string_buffer(length)
    need(ZSTD.ZSTD_decompress(out, length, data, len(data)) == length, "zstd refuses the content")
    return out.raw


# Formats


def padded_length(length):
    if length <= 64:
        return 64
    e = length.bit_length() - 1
    s = e.bit_length()
    step = max(64, 1 << (e - s))
    return -(-length // step) * step


def unwrapped(plain):
    reader = Reader(plain)
    compression, length, stored = reader.number(1), reader.number(4), reader.number(4)
    need(length <= MAX_CONTENT, "content longer than allowed")
    data = reader.take(stored)
    need(len(plain) == padded_length(9 + stored) and not any(plain[reader.at :]), "wrong padding")
    if compression == 0:
        need(length == stored, "two lengths")
        return data
    need(compression == 1 and stored < length, "unknown compression")
    return decompressed(data, length)


def envelope(reader, magic):
    """Header fields, the header's bytes, and what is sealed."""
    start = reader.at
    need(reader.take(4) == magic, "wrong magic")
    need(reader.number(1) == 1, "unknown version")
    suite = reader.number(1)
    need(suite in (INTL, GM), "unknown suite")
    need(reader.number(2) == 0, "reserved bytes")
    ident, commitment, length = reader.take(16), reader.take(32), reader.number(4)
    need(length >= 16, "shorter than a tag")
    header = reader.data[start : reader.at]
    return suite, ident, commitment, header, reader.take(length)


def opened(parsed, key, context):
    suite, _, commitment, header, sealed = parsed
    encryption, expected = key
    need(hmac.compare_digest(commitment, expected), "sealed under another key")
    return unwrapped(aead_open(suite, encryption, sealed, header + context))


def fetch(folder, name, sha256):
    data = (folder / name).read_bytes()
    need(hashlib.sha256(data).hexdigest() == sha256, f"{name}: another SHA-256")
    return data


MEMBERS = {
    "format_version", "installation", "store", "snapshot", "kind", "chain", "sequence", "previous", "ledger_position",
    "begun", "committed", "packs", "directory", "frames",
}


def read_manifest(folder, name, signer):
    data = fetch(folder, name, name[-64:])
    dsse = json.loads(data)
    need(set(dsse) == {"payloadType", "payload", "signatures"}, "no DSSE envelope")
    payload = base64.b64decode(dsse["payload"], validate=True)
    kind = dsse["payloadType"].encode()
    need(kind == b"application/vnd.wangchuan.manifest+json", "another payload")
    if signer:
        pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        signature = base64.b64decode(dsse["signatures"][0]["sig"], validate=True)
        load_pem_public_key(Path(signer).read_bytes()).verify(signature, pae, ec.ECDSA(hashes.SHA256()))
    manifest = json.loads(payload)
    increment = manifest["format_version"] == 2
    need(manifest["format_version"] in (1, 2), "unknown version")
    need(set(manifest) == MEMBERS | ({"parent"} if increment else set()), "other members")
    need(manifest["frames"] == sum(pack["frames"] for pack in manifest["packs"]), "another number of frames")
    stem = f"manifests/{manifest['store']}/{manifest['sequence']:010}-"
    need(name.startswith(stem), "another name")
    return manifest


FROM_BEFORE = ("pack", "position", "collection", "chunk")
COLUMNS = ("pack", "position", "offset", "length", "subject", "bucket", "pin", "collection", "chunk", "rows")


def read_directory_part(data, number, installation, snapshot, chain):
    reader = Reader(data)
    parsed = envelope(reader, b"WCDR")
    reader.end()
    need(parsed[0] == INTL, "a directory part is of suite 1")
    content = opened(parsed, directory_key(chain, parsed[1]), installation + snapshot + struct.pack(">I", number))
    reader = Reader(content)
    need(reader.take(16) == snapshot and reader.number(4) == number, "of another snapshot or place")
    last, count = reader.number(1), reader.number(4)
    need(last in (0, 1) and count <= 131_072, "no such part")
    columns = {name: reader.numbers(count) for name in COLUMNS}
    small = {name: list(reader.take(count)) for name in ("group", "suite", "flags")}
    entries, before = [], dict.fromkeys(COLUMNS, 0)
    for at in range(count):
        entry = {name: columns[name][at] for name in COLUMNS} | {name: small[name][at] for name in small}
        for name in FROM_BEFORE:
            entry[name] = (entry[name] + before[name]) % 2**32
        entry["offset"] = (entry["offset"] + before["offset"] + before["length"]) % 2**32
        entries.append(entry)
        before = entry
    end = None
    if last:
        end = {"parts": reader.number(4), "frames": reader.number(8)}
        end["schema"] = json.loads(reader.take(reader.number(4)))
    reader.end()
    return entries, end


def read_value(reader):
    kind = reader.number(1)
    if kind == 0:
        return None
    if kind == 1:
        return {"integer": int.from_bytes(reader.take(8), "big", signed=True)}
    if kind == 2:
        return {"real": reader.take(8).hex()}
    if kind == 3:
        return {"text": reader.take(reader.number(4)).decode()}
    need(kind == 4, "unknown value")
    return {"blob": reader.take(reader.number(4)).hex()}


def read_content(content, entry):
    reader = Reader(content)
    kind, collection, chunk, rows = reader.number(1), reader.number(4), reader.number(4), reader.number(4)
    expected = 2 if entry["flags"] & 4 else 1
    need(kind == expected, "another kind of frame")
    need((collection, chunk, rows) == (entry["collection"], entry["chunk"], entry["rows"]), "another frame than the directory says")
    need(1 <= rows <= 65_536, "no such number of rows")
    columns = [reader.number(2) for _ in range(reader.number(2))] if kind == 1 else []
    need(columns == sorted(set(columns)), "columns out of order")
    head = reader.at
    digest = reader.take(32)
    need(hashlib.sha256(content[:head] + content[head + 32 :]).digest() == digest, "another digest inside")
    if kind == 2:
        digests = [reader.take(16).hex() for _ in range(rows)]
        need(digests == sorted(set(digests)), "digests out of order")
        reader.end()
        return columns, digests
    values = [[read_value(reader) for _ in range(rows)] for _ in columns]
    reader.end()
    return columns, values


class Pack:
    def __init__(self, data):
        reader = Reader(data)
        need(reader.take(4) == b"WCPK" and reader.number(1) == 1 and reader.take(3) == bytes(3), "no pack")
        self.id, self.frames = reader.take(16), []
        while reader.at < len(data):
            start = reader.at
            self.frames.append((start, envelope(reader, b"WCFR")))
        self.length = len(data)

    def entry(self, entry):
        offset, parsed = self.frames[entry["position"]]
        length = 60 + len(parsed[4])
        need((offset, length, parsed[0]) == (entry["offset"], entry["length"], entry["suite"]), "not where the directory says")
        return parsed


def key_of(parsed, secrets, chain):
    """The commitment tells which cell's it is; none when its key is gone."""
    suite, ident, commitment = parsed[:3]
    for secret in secrets:
        key = frame_key(suite, secret, chain, ident)
        if hmac.compare_digest(key[1], commitment):
            return key
    return None


def main():
    folder, name = Path(sys.argv[1]), sys.argv[2]
    keys = json.loads(Path(sys.argv[3]).read_text())
    chain, secrets = bytes.fromhex(keys["chain_key"]), [bytes.fromhex(secret) for secret in keys["cell_secrets"]]
    manifest = read_manifest(folder, name, keys.get("signer"))
    installation = bytes.fromhex(manifest["installation"])
    need(manifest["installation"] == keys["installation"], "another installation")
    entries, end = [], None
    for number, part in enumerate(manifest["directory"]):
        need(end is None, "a part behind the last")
        data = fetch(folder, f"directories/{part['sha256']}", part["sha256"])
        more, end = read_directory_part(data, number, installation, bytes.fromhex(manifest["snapshot"]), chain)
        entries += more
    need(end and end["parts"] == len(manifest["directory"]), "parts are missing")
    need(end["frames"] == len(entries) == manifest["frames"], "entries are missing")
    packs = []
    for pack in manifest["packs"]:
        packs.append(Pack(fetch(folder, f"packs/{pack['sha256']}", pack["sha256"])))
        need((packs[-1].length, len(packs[-1].frames)) == (pack["bytes"], pack["frames"]), "another pack")
    chunks, removed, shut = {}, [], 0
    for entry in entries:
        pack = packs[entry["pack"]]
        parsed = pack.entry(entry)
        key = key_of(parsed, secrets, chain)
        if key is None:
            shut += 1
            continue
        content = opened(parsed, key, installation + pack.id + struct.pack(">I", entry["position"]))
        columns, values = read_content(content, entry)
        if entry["flags"] & 4:
            removed += values
        else:
            chunks.setdefault((entry["collection"], entry["chunk"]), []).append((columns, values))
    tables = {captured["number"]: captured["table"] for captured in end["schema"]["collections"]}
    rows = {table: [] for table in tables.values()}
    for (collection, _), groups in sorted(chunks.items()):
        need(len({len(values[0]) for _, values in groups}) == 1, "groups of different lengths")
        by_column = sorted((column, values) for columns, group in groups for column, values in zip(columns, group))
        rows[tables[collection]] += [list(row) for row in zip(*(values for _, values in by_column))]
    # `sorted` above compares columns; no two groups have one of the same number.
    columns = {table["name"]: [column["name"] for column in table["columns"]] for table in end["schema"]["tables"]}
    print(json.dumps({"kind": manifest["kind"], "frames": len(entries), "shut": shut, "columns": columns, "rows": rows, "removed": removed}))


try:
    main()
except Refused as error:
    print(f"refused: {error}", file=sys.stderr)
    sys.exit(3)
