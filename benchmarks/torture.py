"""What a store must stand before it is trusted: kills, flipped bits, and forgery.

    make torture
    python benchmarks/torture.py --kills 50 --flips 200 --minutes 10

Kills: ``rkstore harvest`` is killed with ``kill -9`` at random instants and run again,
until its files can be compared with those of a harvest that nobody disturbed.

Flips: one random bit of one file is changed. ``verify`` must find it, and no reader may
return a wrong number.

Forgeries: parts of a store are changed and every checksum above them is made right again,
as a stranger could. Whatever is read must be refused in rkstore's own words or have the
shape that was asked for: no other exception, no crash, no hang, no memory out of bounds.
"""

import contextlib
import copy
import functools
import hashlib
import io
import json
import math
import mmap
import os
import random
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import google_crc32c
import h5py
import numpy as np
from numcodecs.fletcher32 import Fletcher32

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from conftest import make_manifest, make_values, tree, write_model, write_store, write_text

from rkstore.errors import RkstoreError
from rkstore.manifest import COLUMNS
from rkstore.store import Store, verify

# ---- Processes ---------------------------------------------------------------------


def in_child(work: Callable[[], object]) -> int:
    """Start the work in a copy of this process, which has imported everything already."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait_for(child: int) -> int:
    """The exit status of a child; negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ---- Kills -------------------------------------------------------------------------

# What a writer does to a disk, as Python's audit events name it.
MOMENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


@dataclass(frozen=True)
class Kill:
    """Where a harvest was when it died."""

    shards: int
    """Shards that were recorded."""
    moment: int
    """Files opened to write, renamed, removed or cut by then."""
    doing: str
    """The last of them."""


@dataclass
class Kills:
    """What became of the harvests that were killed."""

    landed: list[Kill] = field(default_factory=list)
    too_late: int = 0
    """Harvests that were done before their kill."""
    finished: int = 0
    """Stores that were finished after their kills and compared."""
    different: list[str] = field(default_factory=list)
    """Files that were not those of an undisturbed harvest."""

    @property
    def by_shard(self) -> dict[int, int]:
        """Kills by the number of shards recorded at that instant."""
        return dict(sorted(Counter(kill.shards for kill in self.landed).items()))


class Watched:
    """A harvest in a child, which tells what it is doing to its store, and can be killed."""

    def __init__(self, arguments: list[str], out: Path, call_at: int) -> None:
        self.out = out
        self._board = mmap.mmap(-1, 4096)  # shared with the child
        self._bell, ring = os.pipe()
        self.child = in_child(lambda: self._harvest(arguments, call_at, ring))
        os.close(ring)

    def _harvest(self, arguments: list[str], call_at: int, ring: int) -> None:
        os.close(self._bell)
        count, inside = 0, str(self.out)

        def watch(event: str, given: tuple[Any, ...]) -> None:
            nonlocal count
            writes = event == "open" and bool(given[2] & (os.O_WRONLY | os.O_RDWR))
            if not (writes or event in MOMENTS) or not str(given[0]).startswith(inside):
                return
            count += 1
            doing = f"{event} {str(given[0]).removeprefix(inside)}".encode()[:4000]
            self._board[: 8 + len(doing)] = struct.pack("<II", count, len(doing)) + doing
            if count == call_at:
                os.write(ring, b".")

        sys.addaudithook(watch)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        from rkstore.cli import cli

        cli(arguments, standalone_mode=False)

    def kill(self, delay: float) -> bool:
        """Wait for its call, then that many seconds, and kill it; whether it was still alive."""
        select.select([self._bell], [], [])
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL)
        return self.finish() == -signal.SIGKILL

    def finish(self) -> int:
        """Its exit status."""
        status = wait_for(self.child)
        os.close(self._bell)
        return status

    def state(self) -> Kill:
        """How far it came."""
        moment, length = struct.unpack("<II", self._board[:8])
        journal = self.out / "shards.jsonl"
        shards = journal.read_bytes().count(b"\n") if journal.exists() else 0
        return Kill(shards, moment, self._board[8 : 8 + length].decode(errors="replace"))


def kills(root: Path, wanted: int, seed: int = 0, **options: Any) -> Kills:
    """Kill harvests of a tiny model until that many kills have landed.

    Each attempt is the same command on what the one before left. When a store is complete,
    it is compared and the next attempt begins another. Call it in a process without threads.
    """
    import torch  # noqa: F401  # here once, and not in every child
    import transformer_lens.model_bridge  # noqa: F401
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401

    import rkstore.harvest  # noqa: F401

    text, model = root / "story.txt", root / "model"
    write_text(text)
    assert wait_for(in_child(lambda: write_model(model, text.read_text("utf-8")))) == 0
    usual = {"model": model, "text": text, "layers": "all", "tokens": 384, "context_size": 16}
    usual |= {"shard_rows": 64, "batch_size": 3, "codec": "int8"}
    arguments = ["harvest"]
    for name, value in (usual | options).items():
        arguments += ["--" + name.replace("_", "-"), str(value)]

    def harvest(out: Path, call_at: int = 0) -> Watched:
        return Watched([*arguments, "--out", str(out)], out, call_at)

    whole = harvest(root / "whole")
    started = time.monotonic()
    assert whole.finish() == 0, "the harvest fails undisturbed"
    moments, expected = whole.state().moment, tree(root / "whole")
    rng, found = random.Random(seed), Kills()
    # Time between two moments, were they evenly spread.
    pace = (time.monotonic() - started) / moments

    def compare(out: Path) -> None:
        files = tree(out)
        names = sorted(files.keys() | expected.keys())
        found.different += [
            f"{out.name}/{name}" for name in names if files.get(name) != expected.get(name)
        ]
        found.finished += 1
        shutil.rmtree(out)

    while len(found.landed) < wanted:
        out = root / f"killed-{found.finished}"
        attempt = harvest(out, rng.randint(1, max(1, moments // 3)))
        if attempt.kill(rng.random() * pace):
            found.landed.append(attempt.state())
        else:
            found.too_late += 1
            compare(out)
    out = root / f"killed-{found.finished}"
    assert harvest(out).finish() == 0, f"{out} cannot be finished"
    compare(out)
    return found


# ---- Readers -----------------------------------------------------------------------

# Chunks that are read of an array: a forged store may claim any number of them.
READ_CHUNKS = 32


def readings(store: Store) -> dict[str, Callable[[], np.ndarray]]:
    """Everything that can be read of a store in bounded memory, by a name for it."""
    asked: dict[str, Callable[[], np.ndarray]] = {}
    chunks = [*range(min(store.chunks, READ_CHUNKS))]
    if store.chunks > READ_CHUNKS:
        chunks.append(store.chunks - 1)
    names = store.manifest.hook_names[:READ_CHUNKS]
    for chunk in chunks:
        first, last = store.rows_of_chunk(chunk)
        for name in names:
            asked[f"{name} {first}:{last}"] = functools.partial(store.chunk, name, chunk)
        for name in COLUMNS:
            asked[f"{name} {first}:{last}"] = functools.partial(store.column, name, first, last)
    for name in names if store.rows else ():
        asked[f"statistics {name} {store.rows}"] = functools.partial(_statistics, store, name)
        asked[f"fvu {name} {store.rows}"] = functools.partial(_codec_fvu, store, name)
    return asked


def _statistics(store: Store, name: str) -> np.ndarray:
    return np.concatenate([np.ravel(a) for a in store.statistics(name).as_arrays().values()])


def _codec_fvu(store: Store, name: str) -> np.ndarray:
    return np.array([store.codec_fvu(name)])


def expected_shape(store: Store, asked: str) -> tuple[int, ...]:
    """The shape that an answer must have whatever the store's numbers are."""
    kind, name, *_ = asked.split(" ")
    if kind == "fvu":
        return (1,)
    if kind == "statistics":
        return (1 + 5 * store.manifest.width(name),)
    first, last = name.split(":")
    tail = () if kind in COLUMNS else (store.manifest.width(kind),)
    return (int(last) - int(first), *tail)


# Format, codec, compression: every reader of bytes is met.
Kind = tuple[str, str, str]
KINDS: list[Kind] = [
    ("zarr", "int8", "zstd"),
    ("hdf5", "int8", "deflate"),
    ("zarr", "float16", "blosc-zstd"),
    ("hdf5", "float16", "deflate"),
    ("zarr", "float32", "none"),
    ("hdf5", "float32", "none"),
]


def truth(root: Path, kind: Kind) -> dict[str, np.ndarray]:
    """Every answer of a good store, finished or not: a lost line of the journal is no lie."""
    answers: dict[str, np.ndarray] = {}
    for shards in (1, 2):
        at = root / f"truth-{'-'.join(kind)}-{shards}"
        small_store(at, kind, shards)
        answers |= {asked: read() for asked, read in readings(Store(at)).items()}
    return answers


@dataclass
class Outcome:
    """What happened to one store that is not as it was written."""

    found: bool = False
    """Whether opening or verifying it says so."""
    refused: int = 0
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    """Answers that are not the good store's, or have the wrong shape."""
    other: str | None = None
    """An exception that is not rkstore's own."""


def examine(root: Path, right: dict[str, np.ndarray] | None) -> Outcome:
    """Open, verify and read a store; without right answers, only their shapes count."""
    outcome = Outcome()
    try:
        try:
            store = Store(root)
        except RkstoreError:
            return Outcome(found=True)
        try:
            outcome.found = any(True for _ in verify(store))
        except RkstoreError:
            outcome.found = True
        _ = store.stored_bytes(), store.complete
        for asked, read in readings(store).items():
            try:
                answer = read()
            except RkstoreError:
                outcome.refused += 1
                continue
            outcome.answered += 1
            if right is None:
                good = answer.shape == expected_shape(store, asked)
            else:
                good = asked in right and np.array_equal(answer, right[asked])
            if not good:
                outcome.wrong.append(asked)
    except Exception as error:
        outcome.other = f"{type(error).__name__}: {str(error)[:200]}"
    return outcome


def small_store(root: Path, kind: Kind, shards: int = 2) -> None:
    """Two shards, or one of them; the second is part filled. One site."""
    format, codec, compression = kind
    manifest = make_manifest(
        format=format,
        codec=codec,
        compression=compression,
        rows=40,
        shard_rows=32,
        sites={"blocks.0.mlp.hook_post": 6},
    )
    write_store(root, manifest, make_values(manifest), shards)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that libraries cannot take for the one they had open under its name."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# ---- Flips -------------------------------------------------------------------------


@dataclass
class Flips:
    """Bits that were changed, one at a time, and what became of them."""

    done: int = 0
    files: int = 0
    """Files that were met."""
    refused: int = 0
    """Readings that were refused; the others had nothing to do with the bit."""
    answered: int = 0
    missed: list[str] = field(default_factory=list)
    """Flips that neither opening nor verifying noticed."""
    wrong: list[str] = field(default_factory=list)
    """Flips behind which a reader returned another number, or an exception of another kind."""


def flips(root: Path, wanted: int, seed: int = 0) -> Flips:
    """Flip single random bits of stores of every kind; every file is as likely as another."""
    rng, found = random.Random(seed), Flips()
    met = set()
    stores = []
    for kind in KINDS:
        at = root / f"flips-{'-'.join(kind)}"
        small_store(at, kind)
        stores.append((at, tree(at), truth(root, kind)))
    for n in range(wanted):
        at, files, right = stores[n % len(stores)]
        path = rng.choice(sorted(files))
        bit = rng.randrange(8 * len(files[path]))
        changed = bytearray(files[path])
        changed[bit // 8] ^= 1 << bit % 8
        replace_file(at / path, bytes(changed))
        outcome = examine(at, right)
        replace_file(at / path, files[path])
        met.add((at, path))
        where = f"{at.name}/{path}, bit {bit}"
        if not outcome.found:
            found.missed.append(where)
        if outcome.other or outcome.wrong:
            found.wrong.append(f"{where}: {outcome.other or outcome.wrong}")
        found.refused += outcome.refused
        found.answered += outcome.answered
        found.done += 1
    found.files = len(met)
    return found


# ---- Forgeries ---------------------------------------------------------------------

# Put in place of a list so deep that parsers and writers of JSON differ about it.
DEEP = "rkstore-torture-deep"
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 16, 2**24, 2**31, 2**32, 2**47, 2**48 - 1, 2**53 + 1),
    *(2**64, 10**400, 0.5, -0.0, 1e300, math.inf, -math.inf, math.nan, "", "x", "../x", "/etc"),
    *("\ud800", "\0", "a" * 5000, "zarr", "hdf5", "float16", "int8", "float32", DEEP),
    *([], {}, [[]], {"": {}}, [1, 2], {"bytes": 1}, {"hook_name": "x", "d_in": 2**31}),
]
Files = dict[str, bytes]


def canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def deepened(text: bytes, rng: random.Random) -> bytes:
    depth = rng.choice([50, 200, 330, 500, 900, 5000, 200_000])
    return text.replace(f'"{DEEP}"'.encode(), b"[" * depth + b"]" * depth)


def mutate(value: Any, rng: random.Random) -> Any:
    """Change, copy or remove something anywhere in a JSON value."""
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, inner in list(items):
            places.append((node, key))
            if isinstance(inner, (dict, list)):
                visit(inner)

    value = copy.deepcopy(value)
    visit(value)
    node, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.1:
        del node[key]
    elif kind < 0.2 and isinstance(node, dict):
        node[rng.choice(["x", "", "\ud800", "../x"])] = node[key]
    elif kind < 0.25 and isinstance(node, list):
        node.append(copy.deepcopy(node[key]))
    elif kind < 0.4 and isinstance(node[key], int):
        node[key] = max(0, node[key] + rng.choice([-1, 1, node[key], 7 * node[key]]))
    else:
        node[key] = copy.deepcopy(rng.choice(ODD))
    return value


def noise(data: bytes, rng: random.Random) -> bytes:
    """Change a few bytes, or insert, remove, cut."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        if not changed:
            break
        at, kind = rng.randrange(len(changed)), rng.random()
        if kind < 0.5:
            changed[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif kind < 0.7:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind < 0.85:
            word = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)])
            changed[at : at + 4] = struct.pack("<I", word)[: len(changed) - at]
        elif kind < 0.9:
            del changed[at : at + rng.randrange(1, 16)]
        elif kind < 0.95:
            changed[at:at] = rng.randbytes(rng.randrange(1, 16))
        else:
            del changed[at:]
    return bytes(changed)


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


def of_manifest(files: Files, rng: random.Random) -> Files:
    """A mutated manifest with its own fingerprint, and the journal bound to it."""
    document = json.loads(files["manifest.json"])
    for _ in range(rng.choice([1, 1, 2])):
        document = mutate(document, rng)
    if rng.random() < 0.1:
        return files | {"manifest.json": noise(files["manifest.json"], rng)}
    bare = {k: v for k, v in document.items() if k not in ("rkstore_schema", "fingerprint")}
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
    raw = files[path]
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
    forged = len(text).to_bytes(8, "little") + text + numbers
    return recorded(files | {path: forged}, rng)


def with_crc(data: bytes) -> bytes:
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(4, "little")


def of_zarr(files: Files, rng: random.Random) -> Files:
    """A mutated index or chunk of a Zarr shard, with its CRC right."""
    path = rng.choice([path for path in files if "/c/" in path])
    size = 20 if ".scale/" in path or ".offset/" in path else 36
    body, index = files[path][:-size], bytearray(files[path][-size:-4])
    if rng.random() < 0.3:
        at = 8 * rng.randrange(len(index) // 8)
        word = rng.choice([0, 1, 4, 2**31, 2**63, 2**64 - 1, 2**64 - 4, rng.randrange(len(body))])
        index[at : at + 8] = struct.pack("<Q", word)
        forged = body
    else:
        offset, length = struct.unpack("<QQ", index[:16])
        chunk = noise(body[offset : offset + length - 4], rng)
        forged = with_crc(chunk) + body[offset + length :]
        grown = len(forged) - len(body)
        for i in range(0, len(index), 16):
            start, long = struct.unpack("<QQ", index[i : i + 16])
            if start != 2**64 - 1:
                moved = (start, long + grown) if i == 0 else (start + grown, long)
                index[i : i + 16] = struct.pack("<QQ", *moved)
    return recorded(files | {path: forged + with_crc(bytes(index))}, rng)


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


# The structures of HDF5 that end in their checksum.
SIGNATURES = (b"\x89HDF\r\n\x1a\n", b"OHDR", b"OCHK", b"FADB", b"FAHD", b"BTHD", b"BTLF", b"FRHP")


@functools.cache
def sealed(raw: bytes) -> list[tuple[int, int]]:
    """Where the checksummed structures of an HDF5 file lie, their checksums left out."""
    found = []
    for signature in SIGNATURES:
        start = raw.find(signature)
        while start >= 0:
            for length in range(len(signature), min(600, len(raw) - start - 4)):
                stated = int.from_bytes(raw[start + length : start + length + 4], "little")
                if stated == lookup3(raw[start : start + length]):
                    found.append((start, length))
                    break
            start = raw.find(signature, start + 1)
    return found


def of_hdf5(files: Files, rng: random.Random) -> Files:
    """A mutated structure or chunk of an HDF5 file, with its checksum right."""
    path = rng.choice([path for path in files if path.endswith(".h5")])
    raw, kind = files[path], rng.random()
    if kind < 0.7:
        start, length = rng.choice(sealed(raw))
        block = noise(raw[start : start + length], rng)[:length].ljust(length, b"\0")
        sum_of_block = lookup3(block).to_bytes(4, "little")
        raw = raw[:start] + block + sum_of_block + raw[start + length + 4 :]
    elif kind < 0.9:
        with h5py.File(io.BytesIO(raw), "r") as file:
            chunk = file["values"].id.get_chunk_info(0)
        end = chunk.byte_offset + chunk.size
        body = raw[chunk.byte_offset : end - 4]
        body = noise(body, rng)[: len(body)].ljust(len(body), b"\0")
        raw = raw[: chunk.byte_offset] + bytes(Fletcher32().encode(body)) + raw[end:]
    else:
        raw = noise(raw, rng)
    return recorded(files | {path: raw}, rng)


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


# The format's own files are where most can go wrong, so they are met twice as often.
ANYWHERE = (of_manifest, of_journal, of_statistics, of_part, of_metadata)
FORGERIES: dict[str, tuple[Callable[[Files, random.Random], Files], ...]] = {
    "zarr": (*ANYWHERE, of_zarr, of_zarr),
    "hdf5": (*ANYWHERE, of_hdf5, of_hdf5),
}


@dataclass
class Forgeries:
    """Forged stores and what became of them."""

    done: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    """Stores that opening or verifying found fault with."""
    answered: int = 0
    """Readings that were answered in spite of it."""
    peak_bytes: int = 0
    """The most memory that any of them took, beyond what the process had."""
    bad: list[str] = field(default_factory=list)
    """Exceptions that are not rkstore's, crashes, hangs, wrong shapes, and how to make each."""


# What one forged store may cost. The stores hold a few kilobytes.
SECONDS, BYTES = 10, 256 * 2**20
# Address space is bounded as well, so that a bound that fails does not take the machine along.
ADDRESS_SPACE = 4 * 2**30
BATCH = 50


def forge(files: Files, format: str, seed: int) -> tuple[str, Files]:
    """The forgery of that number: its kind, and the files."""
    rng = random.Random(seed)
    make = rng.choice(FORGERIES[format])
    return make.__name__.removeprefix("of_"), make(files, rng)


def lay_out(root: Path, files: Files, before: Files) -> None:
    """Turn a directory of some files into one of others."""
    for path in before.keys() - files.keys():
        (root / path).unlink()
    for path, raw in files.items():
        if before.get(path) != raw:
            replace_file(root / path, raw)


def forgeries(
    root: Path, seconds: float = math.inf, wanted: float = math.inf, seed: int = 0
) -> Forgeries:
    """Forge stores until the time is over or that many are done."""
    stores = []
    for kind in KINDS:
        at = root / f"forged-{'-'.join(kind)}"
        small_store(at, kind)
        stores.append((at, kind[0], tree(at)))
    found, until = Forgeries(), time.monotonic() + seconds
    log = root / "forgeries.jsonl"
    batch = 0
    while sum(found.done.values()) < wanted and time.monotonic() < until:
        at, format, good = stores[batch % len(stores)]
        size = int(min(BATCH, wanted - sum(found.done.values())))
        numbers = range(seed + batch * BATCH, seed + batch * BATCH + size)
        log.write_bytes(b"")
        work = functools.partial(_examine_forgeries, at, format, good, numbers, log)
        status = wait_for(in_child(work))
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        if status:
            reason = "hung" if status == -signal.SIGALRM else f"ended with {status}"
            found.bad.append(f"{at.name} {entries[-1]['number']}: {reason}")
        for entry in entries:
            kind = entry.get("kind")
            if kind is None:
                continue  # its beginning
            found.done[kind] = found.done.get(kind, 0) + 1
            found.refused += entry["found"]
            found.answered += entry["answered"]
            found.peak_bytes = max(found.peak_bytes, entry["bytes"])
            where = f"{at.name} {entry['number']} ({kind})"
            if entry["other"] or entry["wrong"]:
                found.bad.append(f"{where}: {entry['other'] or entry['wrong']}")
            if entry["bytes"] > BYTES:
                found.bad.append(f"{where}: took {entry['bytes'] >> 20} MiB")
        shutil.rmtree(at)
        lay_out(at, good, {})
        batch += 1
    return found


def _examine_forgeries(at: Path, format: str, good: Files, numbers: range, log: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, inside C code too
    there = good
    with log.open("a") as told:
        for number in numbers:
            print(json.dumps({"number": number}), file=told, flush=True)
            kind, files = forge(good, format, number)
            lay_out(at, files, there)
            there = files
            before = _peak_bytes()
            signal.alarm(SECONDS)
            # A stranger's numbers may overflow: what is asked here is that nothing breaks.
            with warnings.catch_warnings(action="ignore"):
                outcome = examine(at, None)
            signal.alarm(0)
            entry = asdict(outcome) | {"number": number, "kind": kind}
            print(json.dumps(entry | {"bytes": _peak_bytes() - before}), file=told, flush=True)


def _peak_bytes() -> int:
    """The most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---- The command -------------------------------------------------------------------


@click.command()
@click.option("--kills", "kill_count", default=50, show_default=True, help="Kills that must land.")
@click.option("--flips", "flip_count", default=200, show_default=True, help="Bits to flip.")
@click.option("--minutes", default=10.0, show_default=True, help="How long to forge stores.")
@click.option("--forgeries", "forged", type=int, help="Forge that many stores instead.")
@click.option("--seed", default=0, show_default=True, help="Of every random choice.")
@click.option("--json", "as_json", is_flag=True, help="Print the report for a program.")
def main(
    kill_count: int, flip_count: int, minutes: float, forged: int | None, seed: int, as_json: bool
) -> None:
    """Kill harvests, flip bits and forge stores, and say what became of them."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rkstore-torture-") as name:
        root = Path(name)
        if kill_count:
            killed = kills(root, kill_count, seed)
            report["kills"] = asdict(killed) | {"by_shard": killed.by_shard}
        if flip_count:
            report["flips"] = asdict(flips(root, flip_count, seed))
        if forged is not None:
            report["forgeries"] = asdict(forgeries(root, wanted=forged, seed=seed))
        elif minutes:
            report["forgeries"] = asdict(forgeries(root, seconds=60 * minutes, seed=seed))
    if as_json:
        click.echo(json.dumps(report))
    else:
        for line in _sentences(report):
            click.echo(line)
    bad = [report.get(part, {}).get(key) for part, key in BAD]
    sys.exit(1 if any(bad) else 0)


# Where a report says that something failed.
BAD = [("kills", "different"), ("flips", "missed"), ("flips", "wrong"), ("forgeries", "bad")]


def _sentences(report: dict[str, Any]) -> Iterator[str]:
    if "kills" in report:
        part = report["kills"]
        spread = ", ".join(f"{n} with {shards}" for shards, n in part["by_shard"].items())
        yield f"kills      {len(part['landed'])} landed: {spread} shards recorded"
        yield f"           {part['finished']} stores finished, each compared with one undisturbed"
    if "flips" in report:
        part = report["flips"]
        missed = len(part["missed"])
        yield f"flips      {part['done']} in {part['files']} files, {missed} not noticed"
        yield f"           readings: {part['refused']:,} refused, {part['answered']:,} right"
    if "forgeries" in report:
        part = report["forgeries"]
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(part["done"].items()))
        yield f"forgeries  {sum(part['done'].values()):,} ({kinds}), {part['refused']:,} refused"
        yield f"           at most {part['peak_bytes'] / 2**20:.0f} MiB of memory for one"
    for part_name, key in BAD:
        for line in report.get(part_name, {}).get(key, ()):
            yield f"{part_name}, {key}: {line}"


if __name__ == "__main__":
    main()
