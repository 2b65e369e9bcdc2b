"""Pieces of a harvest → the store that one machine would have written, byte for byte."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rkstore.errors import BadInput, few
from rkstore.store.files import FileRecord, writing
from rkstore.store.journal import Journal
from rkstore.store.jsontext import canonical
from rkstore.store.open import open_store
from rkstore.store.piece import Piece, read_piece
from rkstore.store.places.fetch import fetched, receive
from rkstore.store.places.several import each
from rkstore.store.places.url import Location
from rkstore.store.store import Store
from rkstore.store.writing.base import Writer
from rkstore.store.writing.whole import rows_bar, writer_at

Say = Callable[[str], object]


@dataclass(frozen=True)
class _Found:
    """A piece in a directory or at a URL."""

    location: Location
    piece: Piece
    records: Journal

    @property
    def url(self) -> str:
        return self.location.url

    @property
    def shards(self) -> range:
        return self.piece.shards


def merge(pieces: Sequence[str | Path], out: str | Path, say: Say = lambda _: None) -> Store:
    """Put the pieces of a harvest together; they stay as they are.

    Shards that an interrupted merge has recorded are not copied again.

    Args:
        pieces: directories or URLs, in any order.
        out: directory or URL of the store.
        say: called with a sentence if the pieces may differ from a run on one machine.

    Raises:
        BadInput: a shard is in none of the pieces, or in two; a piece is not finished, or is of
            another harvest; or something else is at ``out``. Nothing was written.
        DamagedStore: a file of a piece is not what was recorded; what came before it is merged.
        RkstoreError: a disk is full, or a connection failed; run again, it continues.
    """
    found = sorted(map(_open, pieces), key=lambda one: (one.shards.start, one.url))
    if not found:
        raise BadInput("give the pieces of a harvest, as 'rkstore harvest --shards' wrote them")
    _check_same(found, say)
    _check_whole(found)
    manifest, first = found[0].piece.manifest, found[0].location
    files = {path: fetched(first, path, recorded) for path, recorded in manifest.files.items()}
    with writer_at(out, manifest, files) as writer, rows_bar(writer, "merge") as advance:
        for one in found:
            for record in one.records[max(0, writer.next_shard - one.shards.start) :]:
                _copy(one.location, record.files, writer)
                writer.record(replace(record, chain=""))
                first_row, last_row = manifest.rows_of_shard(record.shard)
                advance(last_row - first_row)
    return open_store(out)


def _open(path: str | Path) -> _Found:
    location = Location(path)
    found = location.until_whole(lambda: read_piece(location.read_if_there, location.url))
    if found is None:
        raise BadInput(
            f"{location.url} is no piece of a harvest: 'rkstore harvest --shards' writes one"
        )
    return _Found(location, *found)


def _check_same(found: Sequence[_Found], say: Say) -> None:
    """Raise BadInput unless all pieces are of one harvest."""
    first = found[0]
    for other in found[1:]:
        if different := first.piece.manifest.differences(other.piece.manifest):
            raise BadInput(
                f"{other.url} is a piece of another harvest than {first.url} "
                f"({'; '.join(different[:3])})"
            )
        if other.piece.run != first.piece.run:
            say(
                f"{first.url} was computed with {canonical(first.piece.run)} and {other.url} with "
                f"{canonical(other.piece.run)}: their last bits may differ from those of one run; "
                "with --threads they cannot"
            )


def _check_whole(found: Sequence[_Found]) -> None:
    """Raise BadInput unless every shard is there exactly once."""
    manifest, before = found[0].piece.manifest, found[0]
    missing: list[str] = []
    expected = 0
    for one in found:
        start, stop = one.shards.start, one.shards.stop
        if start < expected:
            twice = f"{start}:{min(expected, stop)}"
            raise BadInput(
                f"shards {twice} are in {before.url} and in {one.url}: leave one of them out"
            )
        if len(one.records) < len(one.shards):
            raise BadInput(
                f"{one.url} lacks shards {start + len(one.records)}:{stop}: run its harvest again, "
                "which continues"
            )
        missing += [f"{expected}:{start}"] if start > expected else []
        expected, before = stop, one
    missing += [f"{expected}:{manifest.shards}"] if expected < manifest.shards else []
    if missing:
        raise BadInput(
            f"shards {few(missing)} are in none of the pieces: harvest them with "
            f"--shards {missing[0]}"
        )


def _copy(location: Location, files: dict[str, FileRecord], writer: Writer) -> None:
    """Copy the files of a shard to where the writer takes them from, each checked."""

    def copy(path: str) -> None:
        def again() -> None:
            with writing(writer.disk), writer.aside(path).open("wb") as file:
                receive(location, path, files[path], file)

        location.until_whole(again)

    each(copy, files, location.at_once)
