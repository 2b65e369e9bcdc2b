"""Text → token blocks: documents end to end, cut into blocks the model sees one at a time."""

import hashlib
import itertools
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rkstore import hub
from rkstore.corpus import python_documents
from rkstore.errors import BadInput, RkstoreError
from rkstore.settings import HarvestSettings

Encode = Callable[[list[str]], list[list[int]]]

# How much text goes to the tokenizer at once: enough to keep its threads busy.
DOCUMENTS_AT_ONCE = 1000

# wikitext has four configurations and no default.
WIKITEXT, WIKITEXT_CONFIG = "wikitext", "wikitext-103-raw-v1"

# The corpus every Python carries goes by this name in place of a dataset's.
PYTHON_CORPUS = "python"


@dataclass(frozen=True)
class Text:
    """Documents in order, and what a manifest says of where they came from."""

    documents: Iterator[str]
    source: dict[str, Any]


@dataclass(frozen=True)
class TokenBlocks:
    """What the model reads.

    ``ids`` and ``document`` are int32 of shape ``(blocks, context_size)``: the token
    and the number of the document it came from. A BOS token counts to the document
    of the token behind it.
    """

    ids: NDArray[np.int32]
    document: NDArray[np.int32]

    @property
    def rows(self) -> int:
        return self.ids.size

    @property
    def sha256(self) -> str:
        """Digest of the token ids."""
        return hashlib.sha256(self.ids.astype("<i4").tobytes()).hexdigest()


def open_text(settings: HarvestSettings) -> Text:
    """The text that the settings ask for, or the first of their fallbacks that can be had.

    Raises:
        BadInput: a file is missing, empty or not UTF-8, or a dataset has no text column.
        RkstoreError: no dataset of the list can be had.
    """
    if settings.text:
        return _from_files([Path(name) for name in settings.text], settings.seed)
    if settings.dataset == PYTHON_CORPUS:
        return _from_python(settings.seed)
    asked = [_name_and_config(name) for name in settings.fallback]
    asked.insert(0, (settings.dataset, settings.dataset_config))
    tried: list[str] = []
    for name, config in asked:
        config = config or (WIKITEXT_CONFIG if name.split("/")[-1] == WIKITEXT else None)
        try:
            text = _from_dataset(name, config, settings)
        except BadInput:
            raise
        except Exception as error:  # whatever goes wrong over there, it cannot be had
            tried.append(f"{name}: {' '.join(str(error).split())[:200]}")
            if len(asked) > 1:
                print(f"{tried[-1]}; trying the next of --fallback", file=sys.stderr)
            continue
        if len(asked) > 1:
            print(f"reading {name}", file=sys.stderr)
            text.source["asked"] = [_public(name, config) for name, config in asked]
        return text
    raise RkstoreError(
        f"cannot load the dataset ({'; '.join(tried)}): without a network use --text FILE, "
        "a local directory as --dataset, or 'rkstore demo'"
    )


def token_blocks(
    documents: Iterator[str],
    encode: Encode,
    *,
    separator: int | None,
    context_size: int,
    prepend_bos: bool,
    tokens: int,
) -> TokenBlocks:
    """Cut documents into as many whole blocks as ``tokens`` has, or as the text has.

    Documents follow one another with one ``separator`` between two of them, as in
    GPT-2's own training. What is left at the end is shorter than a block and dropped.

    Args:
        encode: texts → token ids without special tokens.
        separator: id of the BOS token; also begins each block if ``prepend_bos``.

    Raises:
        BadInput: the text has fewer tokens than one block.
    """
    own = context_size - prepend_bos
    wanted = max(1, tokens // context_size) * own
    ids: list[NDArray[np.int32]] = []
    owners: list[NDArray[np.int32]] = []
    found = number = 0
    with tqdm(total=wanted, unit="tok", unit_scale=True, desc="tokens", disable=None) as bar:
        for texts in _groups(documents):
            for encoded in encode(texts):
                if separator is not None and number:
                    encoded = [separator, *encoded]
                ids.append(np.array(encoded, np.int32))
                owners.append(np.full(len(encoded), number, np.int32))
                found += len(encoded)
                number += 1
            bar.update(min(found, wanted) - bar.n)
            if found >= wanted:
                break
    blocks = min(found, wanted) // own
    if not blocks:
        raise BadInput(
            f"the text has {found} tokens, fewer than one block of {own}: "
            "give more text, or a smaller --context-size"
        )
    stream = np.concatenate(ids)[: blocks * own].reshape(blocks, own)
    owner = np.concatenate(owners)[: blocks * own].reshape(blocks, own)
    if prepend_bos:
        stream = np.concatenate([np.full((blocks, 1), separator, np.int32), stream], axis=1)
        owner = np.concatenate([owner[:, :1], owner], axis=1)
    return TokenBlocks(stream, owner)


def _groups(documents: Iterator[str]) -> Iterator[list[str]]:
    group: list[str] = []
    for text in documents:
        if text.strip():
            group.append(text)
        if len(group) == DOCUMENTS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _from_files(paths: list[Path], seed: int) -> Text:
    texts, files = [], []
    for path in _shuffled(paths, seed):
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise BadInput(f"cannot read --text {path}: {error.strerror}") from None
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(
                f"--text {path} is not UTF-8 (byte {error.start}): convert it, "
                f"for example with 'iconv -f latin1 -t utf-8 {path}'"
            ) from None
        if not text.strip():
            raise BadInput(f"--text {path} is empty: give a file with text in it")
        texts.append(text)
        digest = hashlib.sha256(raw).hexdigest()
        # A name may hold bytes that are no text, which JSON could not hold.
        name = os.fsencode(path.name).decode("utf-8", "backslashreplace")
        files.append({"name": name, "bytes": len(raw), "sha256": digest})
    return Text(iter(texts), {"files": files})


def _from_python(seed: int) -> Text:
    documents = _shuffled(list(python_documents()), seed)
    digest = hashlib.sha256()
    for _, text in documents:
        digest.update(text.encode("utf-8", "surrogatepass"))
    source = {
        "dataset": PYTHON_CORPUS,
        "python": sys.version.split()[0],
        "documents": len(documents),
        "sha256": digest.hexdigest(),
    }
    return Text((text for _, text in documents), source)


def _shuffled(items: list[Any], seed: int) -> list[Any]:
    return random.Random(seed).sample(items, len(items)) if seed else items


def _from_dataset(name: str, config: str | None, settings: HarvestSettings) -> Text:
    hub.fail_fast()
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    data: Any
    if Path(name).is_dir() and list(Path(name).glob("dataset_*.json")):
        data = datasets.load_from_disk(name)
        if isinstance(data, dict):
            if settings.split not in data:
                raise BadInput(f"{name} has no split '{settings.split}': it has {', '.join(data)}")
            data = data[settings.split]
    else:
        # Streamed: a hundred thousand tokens of OpenWebText should not cost its 40 GB.
        data = datasets.load_dataset(name, config, split=settings.split, streaming=True)
    if settings.seed:
        data = data.shuffle(seed=settings.seed)
    rows = iter(data)
    first = next(rows, None)
    if first is None or "text" not in first:
        columns = ", ".join(first or ()) or "no rows"
        raise BadInput(f"the dataset {name} has no 'text' column (it has {columns})")
    source = {
        "dataset": Path(name).name if Path(name).is_dir() else name,
        "config": config,
        "split": settings.split,
        "fingerprint": getattr(data, "_fingerprint", None),
    }
    return Text(_texts(name, itertools.chain([first], rows)), source)


def _texts(name: str, rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        text = row["text"]
        if text is None:  # an empty row
            continue
        if not isinstance(text, str):
            raise BadInput(f"the 'text' column of {name} holds {type(text).__name__}, not texts")
        yield text


def _name_and_config(text: str) -> tuple[str, str | None]:
    name, _, config = text.partition(":")
    return name, config or None


def _public(name: str, config: str | None) -> str:
    """A dataset as it was asked for, without the paths of one machine."""
    return ":".join(
        part for part in (Path(name).name if Path(name).is_dir() else name, config) if part
    )
