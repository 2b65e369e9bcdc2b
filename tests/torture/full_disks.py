"""A command's first write fails, or its second, …: wherever it writes, syncs, makes or renames.

The disk is full, or over its quota, or broken, for that moment or from then on. The command must
say so in one sentence and lose nothing, and run again it must finish with the files of one
undisturbed.
"""

import builtins
import errno
import io
import mmap
import os
import random
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
from tally import Tallies, Tally
from works import Work, differences

ERRORS = {"full": errno.ENOSPC, "over quota": errno.EDQUOT, "broken": errno.EIO}
CREATES = os.O_CREAT | os.O_WRONLY | os.O_RDWR


class Disk:
    """Where a child writes; it fails once, or from some write on."""

    def __init__(self, here: Path, number: int, code: int, stays: bool) -> None:
        self._here, self._number, self._code, self._stays = str(here), number, code, stays
        self._board = mmap.mmap(-1, 8)  # shared with the child
        self._open = io.open

    @property
    def writes(self) -> int:
        """How often it was written to."""
        count: int = struct.unpack("<Q", self._board[:8])[0]
        return count

    def install(self) -> None:
        """Make the writes of this process, a child, pass through here."""
        for name in ("mkdir", "rename", "replace", "fsync", "truncate"):
            setattr(os, name, self._failing(getattr(os, name)))
        os.open = self._failing(os.open, lambda _, flags, *__: bool(flags & CREATES))
        io.open = builtins.open = self._open_file
        writer: Any = safetensors.torch
        writer.serialize_file = partial(self._serialize, writer.serialize_file)

    def fails_now(self, where: Any) -> bool:
        """Count a write, and say whether it fails."""
        if not self._is_ours(where):
            return False
        count = self.writes + 1
        self._board[:8] = struct.pack("<Q", count)
        return count >= self._number if self._stays else count == self._number

    def error(self) -> OSError:
        return OSError(self._code, os.strerror(self._code))

    def _is_ours(self, where: Any) -> bool:
        path = f"/proc/self/fd/{where}" if isinstance(where, int) else os.fspath(where)
        return os.path.realpath(path).startswith(self._here)

    def _failing(
        self, real: Callable[..., Any], writes: Callable[..., bool] = lambda *_: True
    ) -> Callable[..., Any]:
        def work(where: Any, *given: Any, **options: Any) -> Any:
            within = next((v for k, v in options.items() if k.endswith("dir_fd")), where)
            if writes(where, *given) and self.fails_now(within):
                raise self.error()
            return real(where, *given, **options)

        return work

    def _open_file(self, file: Any, mode: str = "r", *given: Any, **options: Any) -> Any:
        """A file; to be written, one whose every write may fail, half done."""
        if not set(mode) & set("wax+") or not self._is_ours(file):
            return self._open(file, mode, *given, **options)
        binary = "".join(letter for letter in mode if letter not in "bt")
        raw = Failing(self, file, binary)
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, options.get("encoding") or "utf-8")

    def _serialize(self, real: Any, tensors: Any, path: Any, *given: Any, **options: Any) -> None:
        if self.fails_now(path):
            Path(path).write_bytes(b"half")
            text = f"I/O error: {os.strerror(self._code)} (os error {self._code})"
            raise safetensors.SafetensorError(text)
        real(tensors, path, *given, **options)


class Failing(io.FileIO):
    """A file on such a disk."""

    def __init__(self, disk: Disk, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self._disk = disk

    def write(self, content: Any, /) -> Any:
        if self._disk.fails_now(self.fileno()):
            super().write(bytes(content)[: len(content) // 2])
            raise self._disk.error()
        return super().write(content)


def full_disks(root: Path, works: Sequence[Work], wanted: int | None, seed: int = 0) -> Tallies:
    """Fail every write of each work, or that many of them drawn at random."""
    rng, found = random.Random(seed), {}
    for work in works:
        here = root / "disk"
        work.begin(here)
        undisturbed = Disk(here, 10**9, 0, False)
        assert work.start(here, undisturbed.install).wait() == 0, work.name
        assert undisturbed.writes, work.name
        cases = [
            (number, rng.choice(list(ERRORS)), rng.random() < 0.5)
            for number in range(1, undisturbed.writes + 1)
        ]
        tally = found[work.name] = Tally()
        for case in cases if wanted is None else rng.sample(cases, min(wanted, len(cases))):
            _fail(here, work, case, tally, rng)
    return found


def _fail(
    here: Path, work: Work, case: tuple[int, str, bool], tally: Tally, rng: random.Random
) -> None:
    """Fail one write; then perhaps one more, of what was left; then run undisturbed."""
    number, error, stays = case
    where = f"{work.name}, {error} at write {number}{' and after' * stays}"
    work.begin(here)
    before = work.left(here)
    said = True
    for attempt in (number, rng.randint(1, 2 * number)) if rng.random() < 0.3 else (number,):
        disk = Disk(here, attempt, ERRORS[error], stays)
        command = work.start(here, disk.install)
        status = command.wait()
        after = work.left(here)
        tally.wrong += [f"{where}: {path}" for path in work.wrong(after)]
        tally.lost += [f"{where}: {path}" for path in work.lost(before, after)]
        if status == 0 and after != work.expected:
            tally.wrong.append(f"{where}: it ended well with {differences(after, work.expected)}")
        if status and (complaint := command.complaint()):
            tally.unsaid.append(f"{where}: {complaint}")
        said, before = said and status == 0, after
    tally.tried += 1
    tally.survived += said
    tally.refused += not said
    if unfinished := work.finish(here):
        tally.lost.append(f"{where}: {unfinished}")
