"""What one writer writes: a whole store, or a piece of a harvest that is put together afterwards.

A piece has the files of some shards, at the paths that they have in the store, and its own
journal. It is no store: it has ``piece.json`` in place of a manifest, and every reader refuses it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rkstore.errors import DamagedStore
from rkstore.store.checked import parse_manifest
from rkstore.store.files import JOURNAL, LARGEST_MANIFEST, MANIFEST, PIECE, record_of
from rkstore.store.journal import Journal, largest_journal, parse_journal
from rkstore.store.jsontext import canonical
from rkstore.store.manifest import Manifest

# A piece.json has a manifest in it, and little else.
LARGEST_PIECE = LARGEST_MANIFEST + 2**16


@dataclass(frozen=True)
class Whole:
    """All shards of a store."""

    manifest: Manifest

    @property
    def head(self) -> str:
        """The file that says what is in the directory; it is written first."""
        return MANIFEST

    @property
    def shards(self) -> range:
        return range(self.manifest.shards)

    @property
    def chain(self) -> str:
        """What the first line of the journal follows."""
        return self.manifest.fingerprint

    def to_bytes(self) -> bytes:
        """The content of the head."""
        return self.manifest.to_bytes()

    def metadata(self, shards: int) -> dict[str, bytes]:
        """Files, by path, that follow from the shards before that one."""
        return self.manifest.metadata(self.manifest.rows_recorded(shards))

    def differences(self, other: "Whole") -> list[str]:
        """Differences to what is in a directory, as ``key: there, not here``."""
        return self.manifest.differences(other.manifest)


@dataclass(frozen=True)
class Piece(Whole):
    """A range of the shards of a store."""

    of_shards: range
    run: Mapping[str, Any]
    """What else may change the last bit of a value, and need be the same in all pieces."""

    @property
    def head(self) -> str:
        return PIECE

    @property
    def shards(self) -> range:
        return self.of_shards

    @property
    def chain(self) -> str:
        return record_of(self.to_bytes()).sha256[:16]

    @property
    def span(self) -> str:
        """Its shards, as they are asked for."""
        return f"{self.shards.start}:{self.shards.stop}"

    def to_bytes(self) -> bytes:
        stated = {
            "shards": [self.shards.start, self.shards.stop],
            "run": dict(self.run),
            "manifest": json.loads(self.manifest.to_bytes()),
        }
        return _text(stated)

    def metadata(self, shards: int) -> dict[str, bytes]:  # noqa: ARG002 - it has no arrays to open
        return {}

    def differences(self, other: Whole) -> list[str]:
        found = super().differences(other)
        if isinstance(other, Piece):
            if self.span != other.span:
                found.append(f"shards: {other.span} there, {self.span} here")
            if self.run != other.run:
                found.append(f"run: {canonical(other.run)} there, {canonical(self.run)} here")
        return found


def _text(stated: object) -> bytes:
    text = json.dumps(stated, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def parse_piece(raw: bytes, where: str) -> Piece:
    """The piece that a ``piece.json`` states.

    Args:
        raw: the bytes of the file.
        where: directory or URL of the piece, for errors.

    Raises:
        BadInput: it needs a newer rkstore.
        DamagedStore: it is not one that rkstore wrote.
    """
    wrong = DamagedStore(f"{where}/{PIECE} is not what rkstore wrote: harvest the piece again")
    if len(raw) > LARGEST_PIECE:
        raise wrong
    try:
        stated = json.loads(raw)
        manifest, (start, stop), run = stated["manifest"], stated["shards"], dict(stated["run"])
        rest = _text(manifest)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise wrong from None
    piece = Piece(parse_manifest(rest, where), range(start, stop), run)
    if piece.to_bytes() != raw or not 0 <= start < stop <= piece.manifest.shards:
        raise wrong
    return piece


def read_piece(
    read: Callable[[str, int], bytes | None], where: str
) -> tuple[Piece, Journal] | None:
    """A piece and the shards recorded in it; None if there is no piece.

    Args:
        read: see :data:`rkstore.store.contents.Read`.
        where: the directory or the URL, for errors.

    Raises:
        BadInput, DamagedStore: see :func:`parse_piece`; or its journal was changed.
    """
    raw = read(PIECE, LARGEST_PIECE)
    if raw is None:
        return None
    piece = parse_piece(raw, where)
    lines = read(JOURNAL, largest_journal(piece.manifest)) or b""
    return piece, parse_journal(
        lines, piece.manifest, where, shards=piece.shards, chain=piece.chain
    )
