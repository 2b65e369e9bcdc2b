"""Splits of a dataset, and slices of them: ``train``, ``train[:1000]``, ``train+test``, ``all``."""

from collections.abc import Iterable
from typing import Any

from rkstore.errors import BadInput


def chosen(splits: Iterable[Any], name: str, split: str) -> list[str]:
    """The splits that ``train``, ``train[:4]``, ``train+test`` or ``all`` names.

    Raises:
        BadInput: the dataset ``name`` does not have one of them.
    """
    there = [str(known) for known in splits]
    whole = split.partition("[")[0]
    if whole == "all" and "all" not in there:
        return there
    names = [whole] if whole in there else [wanted.strip() for wanted in whole.split("+")]
    missing = [wanted for wanted in names if wanted not in there]
    if missing:
        raise BadInput(f"{name} has no split '{missing[0]}': it has {', '.join(there)}")
    return names


def counts_from_the_beginning(split: str) -> bool:
    """Whether a slice can be taken without knowing how many rows there are."""
    return not {"%", "-"} & set(split.partition("[")[2])


def sliced(split: str, rows: int) -> range:
    """The rows that ``train[100:200]`` means to ``datasets``.

    Raises:
        BadInput: it is not a slice.
    """
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
