"""What ``rkstore evaluate`` recorded of a dictionary, for its card."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from rkstore.errors import BadInput, one_line
from rkstore.store.files import named
from rkstore.store.markdown import code

# The record in the directory of a dictionary: a list of entries, each with the digest of the
# weights that were measured.
RECORD = Path("evaluation", "results.json")

# The kind of the entries that the store alone gives, and of all in a file of one evaluation.
USUAL = "reconstruction"

# Head of a column, key of the result, form of the number.
COLUMNS = (
    ("rows", "rows", ",d"),
    ("L0", "l0", ".1f"),
    ("dead", "dead", ",d"),
    ("FVU", "fvu", ".4f"),
    ("MSE", "mse", ".4g"),
    ("cosine", "cosine", ".4f"),
)

Result = Mapping[str, Any]


def evaluations_of(
    directory: Path, digests: Collection[str], given: str | Path | None = None
) -> list[Result]:
    """The results of a dictionary, each with its ``kind`` and ``store_fingerprint``.

    Args:
        digests: SHA-256 of its files.
        given: a record, or the ``results.json`` of one evaluation; None for the record in the
            directory, if there is one.

    Raises:
        BadInput: the file is neither, or has no result of this dictionary, or is older than it.
    """
    path = named(given) if given is not None else directory / RECORD
    if given is None and not path.is_file():
        return []
    try:
        document = json.loads(path.read_text("utf-8"))
        if isinstance(document, list):
            found = [_of_entry(entry) for entry in document if entry["weights_sha256"] in digests]
        else:
            found = list(_of_document(document, directory))
            _check_newer(path, directory)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"cannot read the evaluation {path} ({one_line(error)}): give a results.json of "
            "rkstore evaluate"
        ) from None
    if given is not None and not found:
        raise BadInput(f"{path} has no result of {directory}: evaluate it, and give its record")
    return found


def _of_entry(entry: dict[str, Any]) -> Result:
    own = {key: entry[key] for key in ("kind", "store_fingerprint")}
    return dict(entry["result"]) | own


def _of_document(document: dict[str, Any], directory: Path) -> Iterator[Result]:
    """The results of a directory in the file of one evaluation, which names it."""
    own = {"kind": USUAL, "store_fingerprint": document["store_fingerprint"]}
    for result in document["results"]:
        path = named(result["path"])
        if path.is_dir() and path.samefile(directory):
            yield dict(result) | own


def _check_newer(path: Path, directory: Path) -> None:
    """Raise BadInput if an evaluation that records no digest is older than the dictionary."""
    newest = max(file.stat().st_mtime for file in directory.iterdir() if file.is_file())
    if path.stat().st_mtime < newest:
        raise BadInput(f"{path} is older than {directory}: evaluate the dictionary again")


def shown(results: list[Result]) -> Iterator[str]:
    """The results in Markdown: a table of the usual ones, the others as they are."""
    if not results:
        yield "No evaluation is on record."
        return
    if usual := [result for result in results if result["kind"] == USUAL]:
        yield _table(usual)
    for result in results:
        if result["kind"] != USUAL:
            text = json.dumps(result, indent=1, allow_nan=False).replace("`", "'")
            head = f"<details><summary>{code(result['kind'])}</summary>"
            yield f"{head}\n\n```json\n{text}\n```\n\n</details>"


def _table(results: list[Result]) -> str:
    heads = ["store", "site", *(head for head, _, _ in COLUMNS)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * 2 + "---:|" * len(COLUMNS)]
    for result in results:
        numbers = (
            _number(result.get(key), form) + _reach(result, key, form) for _, key, form in COLUMNS
        )
        names = (code(result.get(key)) for key in ("store_fingerprint", "hook_name"))
        lines.append(f"| {' | '.join([*names, *numbers])} |")
    said = (
        "Held-out rows. FVU is Σ‖y - ŷ‖² / Σ‖y - mean‖², MSE the mean of ‖y - ŷ‖², dead latents "
        "fired on none of the rows."
    )
    if any("±" in line for line in lines):
        said += " ± is half of a 95 % interval, with documents as clusters."
    return "\n".join([*lines, "", said])


def _number(value: object, form: str) -> str:
    if not _is_number(value):
        return "-"
    return format(int(value) if form.endswith("d") else value, form)


def _reach(result: Result, key: str, form: str) -> str:
    """Half of the interval of a number, behind ±; nothing if none is recorded."""
    intervals = result.get("intervals")
    ends = intervals.get(key) if isinstance(intervals, Mapping) else None
    if not isinstance(ends, list) or len(ends) != 2 or not all(map(_is_number, ends)):
        return ""
    low, high = ends
    return f" ± {_number((high - low) / 2, form)}"


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
