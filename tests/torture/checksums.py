"""Every checksum of a store, made right again above a change, as a stranger could."""

import hashlib
import json
import random
import struct
from typing import Any

import google_crc32c
from mutations import canonical, deepened

Files = dict[str, bytes]


def journal_of(files: Files) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files["shards.jsonl"].splitlines()]


def chained(fingerprint: str, lines: list[Any], rng: random.Random) -> bytes:
    """A journal of these lines whose chain is in order."""
    chain, journal = fingerprint, b""
    for line in lines:
        bare = {k: v for k, v in line.items() if k != "chain"} if isinstance(line, dict) else line
        text = deepened(canonical(bare), rng)
        chain = hashlib.sha256(chain.encode("utf-8", "surrogatepass") + text).hexdigest()
        if isinstance(line, dict):
            text = deepened(canonical(bare | {"chain": chain}), rng)
        journal += text + b"\n"
    return journal


def recorded(files: Files, rng: random.Random) -> Files:
    """The same files with sizes and digests recorded as they are now."""
    lines = journal_of(files)
    for line in lines:
        for path in line["files"]:
            digest = hashlib.sha256(files[path]).hexdigest()
            line["files"][path] = {"bytes": len(files[path]), "sha256": digest}
    fingerprint = json.loads(files["manifest.json"])["fingerprint"]
    return files | {"shards.jsonl": chained(fingerprint, lines, rng)}


def with_crc(data: bytes) -> bytes:
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(4, "little")


def lookup3(data: bytes) -> int:
    """Bob Jenkins' checksum, which HDF5 puts on its own structures."""

    def turned(x: int, by: int) -> int:
        return (x << by | x >> (32 - by)) & 0xFFFFFFFF

    a = b = c = (0xDEADBEEF + len(data)) & 0xFFFFFFFF
    words = struct.unpack(
        f"<{-(-len(data) // 12) * 3}I", data.ljust(-(-len(data) // 12) * 12, b"\0")
    )
    for i in range(0, len(words), 3):
        a, b, c = ((x + y) & 0xFFFFFFFF for x, y in zip((a, b, c), words[i : i + 3], strict=True))
        if i + 3 < len(words):
            for by in (4, 6, 8, 16, 19, 4):
                mixed = ((a - c) & 0xFFFFFFFF) ^ turned(c, by)
                a, b, c = b, (c + b) & 0xFFFFFFFF, mixed
    for by in (14, 11, 25, 16, 4, 14, 24):
        mixed = ((c ^ b) - turned(b, by)) & 0xFFFFFFFF
        a, b, c = b, mixed, a
    return b
