"""Token ids in a NumPy file: a document is a row of two dimensions, or the only one."""

from pathlib import Path
from typing import Any

import numpy as np

from rkstore.errors import BadInput, one_line
from rkstore.harvest.ignored import refuse
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.text.documents import Text, reading_order
from rkstore.harvest.text.splits import chosen, sliced
from rkstore.store.files import sha256


def open_array(path: Path, settings: HarvestSettings) -> Text:
    """The rows of a ``.npy`` file, as a dataset with one split, ``train``.

    Raises:
        BadInput: it cannot be read, does not hold whole numbers in one or two dimensions, or no
            tokenizer is given.
    """
    refuse(
        settings,
        ("dataset_config", "ids_column", "id_column", "shuffle_buffer"),
        f"--dataset {path}",
    )
    if settings.tokenized_by is None:
        raise BadInput(f"{path} holds numbers: give --tokenized-by with the tokenizer of the ids")
    try:
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"cannot read {path}: {one_line(error)}") from None
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        raise BadInput(
            f"{path} holds {array.dtype} of shape {array.shape}: token ids are whole numbers, in "
            "one dimension or in rows"
        )
    rows = np.atleast_2d(array)
    chosen(["train"], str(path), settings.split)
    numbers = reading_order(sliced(settings.split, len(rows)), settings.seed).tolist()
    if not numbers or not rows.shape[1]:
        raise BadInput(f"the dataset {path} has no rows there")
    source = {
        "dataset": path.resolve().name,
        "split": settings.split,
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
    }
    return Text(((number, np.array(rows[number])) for number in numbers), source)
