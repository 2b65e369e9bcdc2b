"""What ``rkstore evaluate`` recorded of a dictionary, for its card."""

import json
from pathlib import Path
from typing import Any

from rkstore.errors import BadInput, one_line
from rkstore.store.files import named
from rkstore.store.markdown import code

# The record in the directory of a dictionary.
RECORD = Path("evaluation", "results.json")

# Head of a column, key of the result, form of the number.
COLUMNS = (
    ("rows", "rows", ",d"),
    ("L0", "l0", ".1f"),
    ("dead", "dead", ",d"),
    ("FVU", "fvu", ".4f"),
    ("MSE", "mse", ".4g"),
    ("cosine", "cosine", ".4f"),
)


def evaluations_of(directory: Path, given: str | Path | None = None) -> list[dict[str, Any]]:
    """The results of a dictionary: of the record in its directory, or of the file that is given.

    Raises:
        BadInput: the file is no record, has no result of this dictionary, or is older than it.
    """
    path = named(given) if given is not None else directory / RECORD
    if given is None and not path.is_file():
        return []
    try:
        document = json.loads(path.read_text("utf-8"))
        store = document.get("store_fingerprint")
        found = [{"store_fingerprint": store} | dict(result) for result in document["results"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"cannot read the evaluation {path} ({one_line(error)}): give a results.json of "
            "rkstore evaluate"
        ) from None
    if given is None:
        return found
    found = [one for one in found if _names(one.get("path"), directory)]
    if not found:
        raise BadInput(f"{path} has no result of {directory}: evaluate it, and give its record")
    newest = max(file.stat().st_mtime for file in directory.iterdir() if file.is_file())
    if path.stat().st_mtime < newest:
        raise BadInput(f"{path} is older than {directory}: evaluate the dictionary again")
    return found


def _names(path: object, directory: Path) -> bool:
    """Whether a path in a record is that directory."""
    if not isinstance(path, str) or not path:
        return False
    return named(path).is_dir() and named(path).samefile(directory)


def table(results: list[dict[str, Any]]) -> str:
    """The results as a Markdown table, and what was measured."""
    heads = ["store", "site", *(head for head, _, _ in COLUMNS)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * 2 + "---:|" * len(COLUMNS)]
    for result in results:
        numbers = (_number(result.get(key), form) for _, key, form in COLUMNS)
        names = (code(result.get(key)) for key in ("store_fingerprint", "hook_name"))
        lines.append(f"| {' | '.join([*names, *numbers])} |")
    said = (
        "Held-out rows. FVU is Σ‖y - ŷ‖² / Σ‖y - mean‖², MSE the mean of ‖y - ŷ‖², dead latents "
        "fired on none of the rows."
    )
    return "\n".join([*lines, "", said])


def _number(value: object, form: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-"
    return format(int(value) if form.endswith("d") else value, form)
