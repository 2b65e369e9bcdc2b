"""The check that the bytes of a file are plain text.

The braces of JSON, the tags of a web page or the bytes of an archive would become tokens like any
others, and the store would be useless.
"""

import gzip
import json
import re
import zlib
from pathlib import Path

from rkstore.errors import BadInput

# Other than plain text, by suffix (of .jsonl.gz the first suffix counts) …
ENDS = {
    "rows": ("json", "jsonl", "ndjson", "csv", "tsv", "parquet", "arrow"),
    "ids": ("npy",),
    "packed": ("bz2", "xz", "zst", "lz4", "zip", "7z", "rar", "tar", "tgz"),
    "markup": ("html", "htm", "xhtml", "xml", "svg", "rtf"),
    "binary": ("pdf", "doc", "docx", "odt", "epub", "xls", "xlsx", "ppt", "pptx", "db", "sqlite"),
}

# … and by how the content begins. JSON is parsed; a zero byte also means binary.
SIGNS = {
    "rows": rb"PAR1|ARROW1",
    "ids": rb"\x93NUMPY",
    "packed": rb"\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18|PK\x03\x04|"
    rb"7z\xbc\xaf",
    "markup": rb"(?i:\s*(<!doctype html|<html|<\?xml)|{\\rtf)",
    "binary": rb"%PDF-",
}

WAYS = {
    "rows": "holds rows, not plain text: give it as --dataset {path}, which makes the 'text' of "
    "each row a document",
    "ids": "holds numbers, not text: if they are token ids, give it as --dataset {path} with "
    "--tokenized-by",
    "packed": "is compressed: unpack it first, or pack it with gzip as {path}.gz",
    "markup": "holds markup, whose tags would become tokens: take the text out of it first (or put "
    "it in the 'text' column of a dataset, if the tags are meant)",
    "binary": "is not text: take the text out of it first",
}

BYTE_ORDER_MARK = "\ufeff"
UTF_16 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def plain_text(raw: bytes, path: Path) -> str:
    """The text of a file, without a byte-order mark; a file named ``.gz`` is unpacked.

    Raises:
        BadInput: it is not UTF-8, or not plain text; says what to do.
    """
    kind = kind_of_name(path.name)
    if kind is None and path.suffix.lower() == ".gz":
        raw = unpacked(raw, path)
    if raw.startswith(UTF_16):
        raise BadInput(
            f"--text {path} is UTF-16: convert it, for example with 'iconv -f utf-16 -t utf-8'"
        )
    kind = kind or _kind_of_content(raw)
    if kind:
        raise BadInput(f"--text {path} {WAYS[kind].format(path=path)}")
    try:
        text = raw.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        raise BadInput(
            f"--text {path} is not UTF-8 (byte {error.start}): convert it, "
            f"for example with 'iconv -f latin1 -t utf-8 {path}'"
        ) from None
    if is_json(text):
        raise BadInput(f"--text {path} {WAYS['rows'].format(path=path)}")
    return text


def unpacked(raw: bytes, path: Path) -> bytes:
    """The content of a gzip file.

    Raises:
        BadInput: it is not gzip, or damaged.
    """
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(
            f"{path} is named .gz and cannot be unpacked ({error}): copy it again, or rename it "
            "if it is not compressed"
        ) from None


def kind_of_name(name: str) -> str | None:
    """What the suffix of a name says that a file is, if that is not plain text."""
    *_, last = ["", *(suffix[1:] for suffix in Path(name.lower().removesuffix(".gz")).suffixes)]
    return next((kind for kind, ends in ENDS.items() if last in ends), None)


def _kind_of_content(raw: bytes) -> str | None:
    for kind, sign in SIGNS.items():
        if re.match(sign, raw):
            return kind
    return "binary" if b"\0" in raw else None


def is_json(text: str) -> bool:
    """Whether a text begins with a JSON object, or a list of them."""
    try:
        value, _ = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    if isinstance(value, list):
        value = value[0] if value else None
    return isinstance(value, dict) and bool(value)
