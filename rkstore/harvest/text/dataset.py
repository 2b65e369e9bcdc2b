"""Rows of a dataset as documents: from the Hub, from a directory, or from a file of rows.

The ``datasets`` library finds and reads them. Here a row also keeps its own number, however rows
are sliced, shuffled or skipped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rkstore.errors import BadInput
from rkstore.harvest.ignored import OF_ROWS, OF_STREAMS, refuse
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.text.columns import read_column
from rkstore.harvest.text.documents import Text, reading_order
from rkstore.harvest.text.files import in_order, read_files, say_left_out, visible_files
from rkstore.harvest.text.plain import is_json, unpacked
from rkstore.harvest.text.saelens import read_sae_lens
from rkstore.harvest.text.splits import chosen, counts_from_the_beginning, sliced
from rkstore.store.places import hub

# More rows than any dataset has: stands for the end of a streamed one.
ENDLESS = 2**62

# A row's number while it is streamed.
NUMBER = "rkstore_row"


def open_rows(name: str, config: str | None, settings: HarvestSettings) -> Text:
    """The rows of one split, or of a slice of it; a dataset of text files is read file by file.

    Raises:
        BadInput: the split is missing, or has no rows, or they have no such column.
        Exception: whatever ``datasets`` raises if a dataset is not available.
    """
    hub.fail_fast()
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    path, split, seed = Path(name), settings.split, settings.seed
    source: dict[str, Any] = {"dataset": public_name(name), "config": config, "split": split}
    if path.is_dir() and list(path.glob("dataset_*.json")):
        refuse(settings, OF_STREAMS, f"{path}, which is shuffled as a whole")
        data = _saved(path, config, split)
        source["fingerprint"] = data._fingerprint
        return _read(name, _stored_rows(data, split, seed), source, settings)
    builder = _builder(name, config)
    if path.exists() and builder.name == "text":
        refuse(settings, (*OF_ROWS, *OF_STREAMS), f"{path}, which holds text files")
        return _text_files(path, builder, split, seed, source)
    source["fingerprint"] = None
    # Streamed: a hundred thousand tokens of OpenWebText should not download its 40 GB. Local rows
    # can be shuffled globally, and counted from the end.
    buffer = settings.shuffle_buffer
    whole = seed and buffer is None
    if path.exists() and (whole or not counts_from_the_beginning(split)):
        builder.download_and_prepare()
        rows = _stored_rows(_whole(builder.as_dataset(), name, split), split, seed)
    else:
        data = _whole(builder.as_streaming_dataset(), name, split)
        if buffer is not None:
            source["shuffle_buffer"] = buffer
        if _numbered_as_shuffled(data, split, seed):
            source["numbered"] = "as shuffled"
        rows = _streamed_rows(data, split, seed, buffer)
    return _read(name, rows, source, settings)


def _read(
    name: str,
    rows: Iterator[tuple[int, dict[str, Any]]],
    source: dict[str, Any],
    settings: HarvestSettings,
) -> Text:
    """The column of the rows that the settings ask for, and whether SAELens tokenised it."""
    sae_lens = {} if settings.tokenized_by is None else read_sae_lens(name)
    ids: dict[int, str | int] = {}
    column, documents = read_column(name, rows, settings, ids)
    # Written only where it is unusual, so that older stores keep their bytes.
    source |= {} if column == "text" else {"column": column}
    source |= {} if settings.id_column is None else {"id_column": settings.id_column}
    return Text(documents, source, sae_lens, ids)


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
    if path.is_file() and Path(path.name.removesuffix(".gz")).suffix:
        name, options = str(path.resolve().parent), {"data_files": path.resolve().name}
    elif path.is_file():
        name, options = _module_of(path), {"data_files": str(path.resolve())}
    builder = datasets.load_dataset_builder(name, config, **options)
    if builder.name == "text":  # one document a file, as with --text
        options["sample_by"] = "document"
        builder = datasets.load_dataset_builder(name, config, **options)
    if path.is_dir():
        used = sum(len(files) for files in (builder.config.data_files or {}).values())
        say_left_out(path, len(visible_files(path)) - used, f"{builder.name} files")
    return builder


def _module_of(path: Path) -> str:
    """What reads a file whose name does not say what it is, such as ``corpus.gz``."""
    raw = path.read_bytes()
    raw = unpacked(raw, path) if path.suffix == ".gz" else raw
    if raw.startswith(b"PAR1"):
        return "parquet"
    return "json" if is_json(raw.decode("utf-8-sig", "replace")) else "text"


def _whole(splits: Any, name: str, split: str) -> Any:
    """All rows of the named splits, before slicing."""
    import datasets

    parts = [splits[wanted] for wanted in chosen(splits, name, split)]
    return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _stored_rows(data: Any, split: str, seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Local rows, each with its number, in the order of the seed."""
    numbers = reading_order(sliced(split, len(data)), seed)
    # As lists, also where they were saved to be read as tensors.
    return zip(numbers.tolist(), data.with_format(None).select(numbers), strict=True)


def _streamed_rows(
    data: Any, split: str, seed: int, buffer: int | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Streamed rows, each with its number.

    Under a seed ``datasets`` shuffles within a buffer and reads the files in another order. The
    number of rows in earlier files is then unknown, so the number is the index in the shuffled
    stream, which the same seed reproduces.
    """
    if not counts_from_the_beginning(split):
        raise BadInput(
            f"--split is '{split}', and the number of rows of a streamed dataset is not known: "
            "count from its beginning, such as train[1000:2000], or give --dataset a directory"
        )
    if _numbered_as_shuffled(data, split, seed):
        return enumerate(_shuffled(data, seed, buffer))
    data = data.map(lambda _, number: {NUMBER: number}, with_indices=True)
    if "[" in split:
        cut = sliced(split, ENDLESS)
        data = data.skip(cut.start).take(len(cut))
    return ((row.pop(NUMBER), row) for row in (_shuffled(data, seed, buffer) if seed else data))


def _shuffled(data: Any, seed: int, buffer: int | None) -> Any:
    """Streamed rows in the order of a seed; ``datasets`` has a buffer of a thousand rows."""
    return data.shuffle(seed=seed, **({} if buffer is None else {"buffer_size": buffer}))


def _numbered_as_shuffled(data: Any, split: str, seed: int) -> bool:
    # A slice is taken before shuffling, so its files are read in their order.
    return bool(seed) and data.num_shards > 1 and "[" not in split


def _text_files(path: Path, builder: Any, split: str, seed: int, source: dict[str, Any]) -> Text:
    """Text files as ``--text`` reads them; ``datasets`` says which of them are in which split."""
    root = path.resolve() if path.is_dir() else path.resolve().parent
    splits = {str(name): files for name, files in builder.config.data_files.items()}
    parts = [splits[wanted] for wanted in chosen(splits, str(path), split)]
    files = [file for part in parts for file in in_order(root, [Path(name) for name in part])]
    cut = sliced(split, len(files))
    named = [(str(files[number].relative_to(root)), files[number]) for number in cut]
    if not named:
        raise BadInput(f"the dataset {path} has no rows there")
    text = read_files(named, seed, cut.start)
    return Text(text.documents, source | text.source)


def public_name(name: str) -> str:
    """The requested dataset, without local paths."""
    return Path(name).resolve().name if Path(name).exists() else name
