"""Rows of a dataset as documents: from the Hub, from a directory, or from a file of rows.

The ``datasets`` library finds and reads them. Here a row also keeps its own number, however rows
are sliced, shuffled or skipped.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rkstore.errors import BadInput
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.text.documents import Document, Text
from rkstore.harvest.text.files import (
    in_order,
    read_files,
    say_left_out,
    visible_files,
)
from rkstore.harvest.text.plain import BYTE_ORDER_MARK
from rkstore.store.places import hub

# More rows than any dataset has: stands for the end of a streamed one.
ENDLESS = 2**62

# A row's number while it is streamed.
NUMBER = "rkstore_row"


def open_rows(name: str, config: str | None, settings: HarvestSettings) -> Text:
    """The rows of one split, or of a slice of it; a dataset of text files is read file by file.

    Raises:
        BadInput: the split is missing, or has no rows, or they have no text.
        Exception: whatever ``datasets`` raises if a dataset is not available.
    """
    hub.fail_fast()
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    path, split, seed = Path(name), settings.split, settings.seed
    source = {"dataset": public_name(name), "config": config, "split": split}
    if path.is_dir() and list(path.glob("dataset_*.json")):
        data = _saved(path, config, split)
        source["fingerprint"] = data._fingerprint
        return Text(_texts(name, _stored_rows(data, split, seed)), source)
    builder = _builder(name, config)
    if path.exists() and builder.name == "text":
        return _text_files(path, builder, split, seed, source)
    source["fingerprint"] = None
    # Streamed: a hundred thousand tokens of OpenWebText should not download its 40 GB. Local rows
    # can be shuffled globally, and counted from the end.
    if path.exists() and (seed or not _counts_from_the_beginning(split)):
        builder.download_and_prepare()
        rows = _stored_rows(_whole(builder.as_dataset(), name, split), split, seed)
    else:
        data = _whole(builder.as_streaming_dataset(), name, split)
        if _numbered_as_shuffled(data, split, seed):
            source["numbered"] = "as shuffled"
        rows = _streamed_rows(data, split, seed)
    return Text(_texts(name, rows), source)


def _saved(path: Path, config: str | None, split: str) -> Any:
    """A directory that ``save_to_disk`` wrote: splits by name, or one that may know its name."""
    import datasets

    _check_name(path, ("::",))
    if config is not None:
        raise BadInput(
            f"{path} was saved to disk and has no configurations: leave out --dataset-config"
        )
    saved = datasets.load_from_disk(str(path))
    if not isinstance(saved, dict):
        saved = {str(saved.split or "train").partition("[")[0]: saved}
    return _whole(saved, str(path), split)


def _check_name(path: Path, signs: tuple[str, ...]) -> None:
    """Refuse a path that ``datasets`` would read as a pattern or a file inside an archive."""
    where = str(path.resolve())
    found = [sign for sign in signs if sign in where]
    if found:
        raise BadInput(f"datasets reads {where} as a pattern: rename it without {found[0]}")


def _builder(name: str, config: str | None) -> Any:
    import datasets

    path, options = Path(name), {}
    if path.exists():
        _check_name(path, ("[", "]", "?", "*", "::"))
        name = str(path.resolve())
    if path.is_file():
        name, options = str(path.resolve().parent), {"data_files": path.resolve().name}
    builder = datasets.load_dataset_builder(name, config, **options)
    if builder.name == "text":  # one document a file, as with --text
        options["sample_by"] = "document"
        builder = datasets.load_dataset_builder(name, config, **options)
    if path.is_dir():
        used = sum(len(files) for files in (builder.config.data_files or {}).values())
        say_left_out(path, len(visible_files(path)) - used, f"{builder.name} files")
    return builder


def _chosen(splits: Iterable[Any], name: str, split: str) -> list[str]:
    """The splits that ``train``, ``train[:4]``, ``train+test`` or ``all`` names."""
    there = [str(known) for known in splits]
    whole = split.partition("[")[0]
    if whole == "all" and "all" not in there:
        return there
    names = [whole] if whole in there else [wanted.strip() for wanted in whole.split("+")]
    missing = [wanted for wanted in names if wanted not in there]
    if missing:
        raise BadInput(f"{name} has no split '{missing[0]}': it has {', '.join(there)}")
    return names


def _whole(splits: Any, name: str, split: str) -> Any:
    """All rows of the named splits, before slicing."""
    import datasets

    parts = [splits[wanted] for wanted in _chosen(splits, name, split)]
    return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _counts_from_the_beginning(split: str) -> bool:
    return not {"%", "-"} & set(split.partition("[")[2])


def _slice(split: str, rows: int) -> range:
    """The rows that ``train[100:200]`` means to ``datasets``."""
    import datasets

    if "[" not in split:
        return range(rows)
    name = split.partition("[")[0]
    try:
        (part,) = datasets.ReadInstruction.from_spec(split).to_absolute({name: rows})
    except ValueError:
        raise BadInput(
            f"--split is '{split}': give a split or a slice of one, such as train[:1000] or "
            "train[10%:20%]"
        ) from None
    return range(part.from_, part.to)


def _stored_rows(data: Any, split: str, seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Local rows, each with its number, in the order of the seed."""
    numbers = np.array(_slice(split, len(data)), np.int64)
    if seed:
        numbers = numbers[np.random.default_rng(seed).permutation(len(numbers))]
    return zip(numbers.tolist(), data.select(numbers), strict=True)


def _streamed_rows(data: Any, split: str, seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Streamed rows, each with its number.

    Under a seed ``datasets`` shuffles within a buffer and reads the files in another order. The
    number of rows in earlier files is then unknown, so the number is the index in the shuffled
    stream, which the same seed reproduces.
    """
    if not _counts_from_the_beginning(split):
        raise BadInput(
            f"--split is '{split}', and the number of rows of a streamed dataset is not known: "
            "count from its beginning, such as train[1000:2000], or give --dataset a directory"
        )
    if _numbered_as_shuffled(data, split, seed):
        return enumerate(data.shuffle(seed=seed))
    data = data.map(lambda _, number: {NUMBER: number}, with_indices=True)
    if "[" in split:
        cut = _slice(split, ENDLESS)
        data = data.skip(cut.start).take(len(cut))
    return ((row[NUMBER], row) for row in (data.shuffle(seed=seed) if seed else data))


def _numbered_as_shuffled(data: Any, split: str, seed: int) -> bool:
    # A slice is taken before shuffling, so its files are read in their order.
    return bool(seed) and data.num_shards > 1 and "[" not in split


def _texts(name: str, rows: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[Document]:
    """The text of each row; the first row is checked now."""
    first = next(rows, None)
    if first is None:
        raise BadInput(f"the dataset {name} has no rows there")
    if "text" not in first[1]:
        columns = ", ".join(column for column in first[1] if column != NUMBER)
        raise BadInput(f"the dataset {name} has no 'text' column (it has {columns})")
    return _checked(name, itertools.chain([first], rows))


def _checked(name: str, rows: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[Document]:
    for number, row in rows:
        text = row["text"]
        if text is None:  # an empty row
            continue
        if not isinstance(text, str):
            raise BadInput(f"the 'text' column of {name} holds {type(text).__name__}, not texts")
        yield number, text.removeprefix(BYTE_ORDER_MARK)


def _text_files(path: Path, builder: Any, split: str, seed: int, source: dict[str, Any]) -> Text:
    """Text files as ``--text`` reads them; ``datasets`` says which of them are in which split."""
    root = path.resolve() if path.is_dir() else path.resolve().parent
    splits = {str(name): files for name, files in builder.config.data_files.items()}
    chosen = _chosen(splits, str(path), split)
    files = [file for of in chosen for file in in_order(root, [Path(f) for f in splits[of]])]
    cut = _slice(split, len(files))
    named = [(str(files[number].relative_to(root)), files[number]) for number in cut]
    if not named:
        raise BadInput(f"the dataset {path} has no rows there")
    text = read_files(named, seed, cut.start)
    return Text(text.documents, source | text.source)


def public_name(name: str) -> str:
    """The requested dataset, without local paths."""
    return Path(name).resolve().name if Path(name).exists() else name
