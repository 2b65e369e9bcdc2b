"""Forgeries of the files that say what a store is, and of which files it has."""

import hashlib
import json
import random
from typing import Any

from checksums import Files, chained, journal_of, recorded
from mutations import canonical, deepened, mutate, noise
from numcodecs.zstd import Zstd


def of_manifest(files: Files, rng: random.Random) -> Files:
    """A mutated manifest with its own fingerprint, and the journal bound to it."""
    document = json.loads(files["manifest.json"])
    for _ in range(rng.choice([1, 1, 2])):
        document = mutate(document, rng)
    if rng.random() < 0.1:
        return files | {"manifest.json": noise(files["manifest.json"], rng)}
    unnamed = ("fingerprint", "rkstore_schema" if document.get("rkstore_schema") == 1 else "")
    bare = {k: v for k, v in document.items() if k not in unnamed}
    fingerprint = hashlib.sha256(deepened(canonical(bare), rng)).hexdigest()[:16]
    document = {
        key: fingerprint if key == "fingerprint" and rng.random() < 0.95 else value
        for key, value in document.items()
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    raw = deepened(text.encode("utf-8", "surrogatepass"), rng)
    journal = chained(fingerprint, journal_of(files), rng)
    return files | {"manifest.json": raw, "shards.jsonl": journal}


def of_journal(files: Files, rng: random.Random) -> Files:
    """A mutated line, and the chain in order."""
    fingerprint = json.loads(files["manifest.json"])["fingerprint"]
    lines: list[Any] = mutate(journal_of(files), rng)
    journal = chained(fingerprint, lines, rng)
    return files | {"shards.jsonl": noise(journal, rng) if rng.random() < 0.1 else journal}


def of_statistics(files: Files, rng: random.Random) -> Files:
    """Mutated statistics: their header, or their bytes."""
    path = rng.choice([path for path in files if path.endswith(".safetensors")])
    return recorded(files | {path: _mutated_tensors(files[path], rng)}, rng)


def of_apart(files: Files, rng: random.Random) -> Files:
    """Mutated values that lie apart: the frame, or what is in it. Not every codec has any."""
    paths = [path for path in files if "/apart/" in path]
    if not paths:
        return of_statistics(files, rng)
    path = rng.choice(paths)
    if rng.random() < 0.2:
        forged = noise(files[path], rng)
    else:
        forged = bytes(Zstd().encode(_mutated_tensors(bytes(Zstd().decode(files[path])), rng)))
    return recorded(files | {path: forged}, rng)


def _mutated_tensors(raw: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(raw[:8], "little")
    header, numbers = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    if rng.random() < 0.6:
        if rng.random() < 0.4:
            kinds = ["F64", "I64", "F32", "BF16", "F16", "BOOL", "U8", "U64", "F8_E4M3", "C64"]
            header[rng.choice(sorted(header))]["dtype"] = rng.choice(kinds)
        else:
            header = mutate(header, rng)
        text = deepened(canonical(header), rng)
    else:
        text = raw[8 : 8 + size]
        numbers = noise(numbers, rng) if rng.random() < 0.7 else rng.randbytes(len(numbers))
    return len(text).to_bytes(8, "little") + text + numbers


def of_part(files: Files, rng: random.Random) -> Files:
    """A statement of which sites and shards are here, true or not."""
    stated: Any = {"sites": ["blocks.0.mlp.hook_post"], "shards": [0, rng.randrange(4)]}
    if rng.random() < 0.7:
        stated = mutate(stated, rng)
    text = json.dumps(stated, indent=2, ensure_ascii=False) + "\n"
    raw = deepened(text.encode("utf-8", "surrogatepass"), rng)
    kept = files if rng.random() < 0.5 else {p: b for p, b in files.items() if "00001" not in p}
    return kept | {"part.json": raw}


def of_metadata(files: Files, rng: random.Random) -> Files:
    """Anything else: a file that is changed and not recorded, lost, or put in another's place."""
    path = rng.choice(sorted(files))
    kind = rng.random()
    if kind < 0.2:
        return {name: raw for name, raw in files.items() if name != path}
    if kind < 0.5:
        forged = files | {path: files[rng.choice(sorted(files))]}
        return recorded(forged, rng) if path not in ("manifest.json", "shards.jsonl") else forged
    return files | {path: noise(files[path], rng)}
