"""Plain text files: which ones are meant, and each as one document."""

import glob
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rkstore.errors import BadInput, few, warn
from rkstore.harvest.text.documents import Text, shuffled
from rkstore.harvest.text.plain import plain_text
from rkstore.store.files import named
from rkstore.store.natural import natural

# Where standard input lies, which is given as "-".
STDIN = Path("/dev/stdin")

# A pattern for several files, such as data/**/*.txt.
PATTERN = re.compile(r"[*?\[]")


def text_files(names: Sequence[str]) -> list[tuple[str, Path]]:
    """The files that ``--text`` names: files, ``-``, directories and patterns.

    A name that exists is never a pattern.

    Returns:
        For each its name in the manifest, without the directory, and its path.

    Raises:
        BadInput: a directory contains no text files, no file fits a pattern, or ``-`` is given
            twice.
    """
    paths = [STDIN if name == "-" else named(name) for name in names]
    if paths.count(STDIN) > 1:
        raise BadInput("--text - is given twice: standard input can be read once")
    found: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_dir():
            found += _relative(path, _inside(path))
        elif PATTERN.search(str(path)) and not path.exists():
            root = _root_of(path)
            found += _relative(root, _fitting(root, path))
        else:
            found.append((path.name, path))
    return found


def _relative(root: Path, files: Sequence[Path]) -> list[tuple[str, Path]]:
    return [(file.relative_to(root).as_posix(), file) for file in files]


def _inside(path: Path) -> list[Path]:
    """The .txt files of a directory; if there are none, its .txt.gz files."""
    there = visible_files(path)
    for end in (".txt", ".txt.gz"):
        found = in_order(path, [file for file in there if file.name.lower().endswith(end)])
        if found:
            say_left_out(path, len(there) - len(found), f"{end} files")
            return found
    raise BadInput(
        f"--text {path} is a directory without .txt files: name the files, or give it as "
        "--dataset if they hold rows"
    )


def _root_of(pattern: Path) -> Path:
    """The directory above the first part that is a pattern."""
    parts = pattern.parts
    first = next(number for number, part in enumerate(parts) if PATTERN.search(part))
    return Path(*parts[:first])


def _fitting(root: Path, pattern: Path) -> list[Path]:
    below = str(pattern.relative_to(root))
    there = [root / name for name in glob.glob(below, root_dir=root, recursive=True)]  # noqa: PTH207 - Path's ** means directories alone
    found = in_order(root, [path for path in there if path.is_file()])
    if not found:
        raise BadInput(f"no file fits --text '{pattern}': see what is there with 'ls {root}'")
    if "**" not in below:
        say_left_out(pattern, len(there) - len(found), "files")
    return found


def visible_files(path: Path) -> list[Path]:
    """All files below a directory except hidden ones."""
    return [file for file in path.rglob("[!.]*") if file.is_file()]


def in_order(root: Path, files: Sequence[Path]) -> list[Path]:
    """Files below a directory in natural order."""

    def key(file: Path) -> tuple[Any, ...]:
        parts = file.relative_to(root).parts
        return [natural(part) for part in parts], parts  # 01 and 1 are one number

    return sorted(files, key=key)


def read_files(named: Sequence[tuple[str, Path]], seed: int, first: int = 0) -> Text:
    """Each file is one document. Empty ones are named in the log and skipped.

    Args:
        named: the name of each file in the manifest, and its path.
        first: number of the first of them.

    Raises:
        BadInput: a file cannot be read, is not UTF-8 or not plain text; all files are empty.
    """
    texts, described, empty = [], [], []
    for name, path in named:
        raw = _bytes_of(path)
        text = plain_text(raw, path)
        # A name may contain bytes that are not text, which JSON cannot represent.
        name = os.fsencode(name).decode("utf-8", "backslashreplace")
        about: dict[str, Any] = {"name": name, "bytes": len(raw)}
        about["sha256"] = hashlib.sha256(raw).hexdigest()
        if not text.strip():
            about["empty"] = True
            empty.append(name)
        texts.append(text)
        described.append(about)
    if len(empty) == len(named):
        raise BadInput(f"{few(empty, 3)} {_is(empty)} empty: give a file with text in it")
    if empty:
        warn(f"{few(empty, 3)} {_is(empty)} empty and skipped")
    documents = [(first + number, text) for number, text in shuffled(texts, seed) if text.strip()]
    return Text(iter(documents), {"files": described})


def say_left_out(path: Path, count: int, kind: str) -> None:
    """Say how many files of a directory are not read."""
    if count:
        warn(f"{path}: read for its {kind}; {count} others are left out")


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _bytes_of(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read --text {path}: {error.strerror}") from None
