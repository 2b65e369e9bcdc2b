"""Plain text files: which ones are meant, and the check that they are plain text.

The braces of JSON, the tags of a web page or the bytes of an archive would become tokens like any
others, and the store would be useless.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rkstore.errors import BadInput, few
from rkstore.harvest.text.documents import Text, shuffled
from rkstore.store.files import named
from rkstore.store.natural import natural

# Other than plain text, by suffix (of .jsonl.gz the first suffix counts) …
ENDS = {
    "rows": ("json", "jsonl", "ndjson", "csv", "tsv", "parquet", "arrow"),
    "packed": ("gz", "bz2", "xz", "zst", "lz4", "zip", "7z", "rar", "tar", "tgz"),
    "markup": ("html", "htm", "xhtml", "xml", "svg", "rtf"),
    "binary": ("pdf", "doc", "docx", "odt", "epub", "xls", "xlsx", "ppt", "pptx", "db", "sqlite"),
}

# … and by how the content begins. JSON is parsed; a zero byte also means binary.
SIGNS = {
    "rows": rb"PAR1|ARROW1",
    "packed": rb"\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18|PK\x03\x04|"
    rb"7z\xbc\xaf",
    "markup": rb"(?i:\s*(<!doctype html|<html|<\?xml)|{\\rtf)",
    "binary": rb"%PDF-",
}

WAYS = {
    "rows": "holds rows, not plain text: give it as --dataset {path}, which makes the 'text' of "
    "each row a document",
    "packed": "is compressed: unpack it first",
    "markup": "holds markup, whose tags would become tokens: take the text out of it first (or put "
    "it in the 'text' column of a dataset, if the tags are meant)",
    "binary": "is not text: take the text out of it first",
}

BYTE_ORDER_MARK = "\ufeff"
UTF_16 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def text_files(names: Sequence[str]) -> list[tuple[str, Path]]:
    """The files that ``--text`` names, and those of the directories it names.

    Returns:
        For each its name in the manifest, without the directory, and its path.

    Raises:
        BadInput: a directory contains no text files.
    """
    found: list[tuple[str, Path]] = []
    for path in (named(name) for name in names):
        if path.is_dir():
            found += [(file.relative_to(path).as_posix(), file) for file in _inside(path)]
        else:
            found.append((path.name, path))
    return found


def _inside(path: Path) -> list[Path]:
    there = visible_files(path)
    found = in_order(path, [file for file in there if file.suffix.lower() == ".txt"])
    if not found:
        raise BadInput(
            f"--text {path} is a directory without .txt files: name the files, or give it as "
            "--dataset if they hold rows"
        )
    say_left_out(path, len(there) - len(found), ".txt files")
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
    """Each file is one document. Empty ones are named on stderr and skipped.

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
        print(f"{few(empty, 3)} {_is(empty)} empty and skipped", file=sys.stderr)
    documents = [(first + number, text) for number, text in shuffled(texts, seed) if text.strip()]
    return Text(iter(documents), {"files": described})


def plain_text(raw: bytes, path: Path) -> str:
    """The text of a file, without a byte-order mark.

    Raises:
        BadInput: it is not UTF-8, or not plain text; says what to do.
    """
    if raw.startswith(UTF_16):
        raise BadInput(
            f"--text {path} is UTF-16: convert it, for example with 'iconv -f utf-16 -t utf-8'"
        )
    kind = _kind_of_name(path.name) or _kind_of_content(raw)
    if kind:
        raise BadInput(f"--text {path} {WAYS[kind].format(path=path)}")
    try:
        text = raw.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        raise BadInput(
            f"--text {path} is not UTF-8 (byte {error.start}): convert it, "
            f"for example with 'iconv -f latin1 -t utf-8 {path}'"
        ) from None
    if _is_json(text):
        raise BadInput(f"--text {path} {WAYS['rows'].format(path=path)}")
    return text


def say_left_out(path: Path, count: int, kind: str) -> None:
    """Report on stderr the files of a directory that are not read."""
    if count:
        print(f"{path}: read for its {kind}; {count} others are left out", file=sys.stderr)


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read --text {path}: {error.strerror}") from None


def _kind_of_name(name: str) -> str | None:
    *_, before, last = ["", "", *(suffix[1:] for suffix in Path(name.lower()).suffixes)]
    for kind, ends in ENDS.items():
        if last in ends or (last in ENDS["packed"] and before in ends):
            return kind
    return None


def _kind_of_content(raw: bytes) -> str | None:
    for kind, sign in SIGNS.items():
        if re.match(sign, raw):
            return kind
    return "binary" if b"\0" in raw else None


def _is_json(text: str) -> bool:
    """Whether a text begins with a JSON object, or a list of them."""
    try:
        value, _ = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    if isinstance(value, list):
        value = value[0] if value else None
    return isinstance(value, dict) and bool(value)
