"""Everything that can be read of a store, and what comes of reading one that is not as written."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from small_stores import Kind, small_store

from rkstore.errors import RkstoreError
from rkstore.store.manifest import COLUMNS
from rkstore.store.store import Store
from rkstore.store.verify import verify

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
            _ = store.stored_bytes(), store.complete
        except RkstoreError:
            outcome.found = True
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
