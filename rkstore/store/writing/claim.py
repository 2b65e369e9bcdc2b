"""One writer at a time where the kernel's lock does not reach: a claim, created exclusively.

The claim is a small file at the destination. It states the store and a mark, which only one
process on this machine can use at a time. So a claim with our own mark was left by a process that
died, and is taken over; any other claim is respected.
"""

import hashlib
import platform
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rkstore.errors import BadInput
from rkstore.store.files import LOCK, sync
from rkstore.store.writing.lock import take_lock, unlock

MARK = re.compile(r"[\w.-]*/[0-9a-f]{32}", re.ASCII)
CLAIM = re.compile(rf"([0-9a-f]{{16}}) ({MARK.pattern})\n", re.ASCII)
LARGEST_CLAIM = 1000


@contextmanager
def claim_for(url: str, store: str, marks: Path) -> Iterator[bytes]:
    """The claim to a URL for the store of that fingerprint; nobody else here has it meanwhile.

    Args:
        marks: a local directory where the marks of this user are kept.

    Raises:
        BadInput: another process on this machine writes there.
    """
    here = marks / hashlib.sha256(url.encode()).hexdigest()[:16]
    here.mkdir(parents=True, exist_ok=True)
    try:
        lock = take_lock(here)
    except BadInput:
        raise BadInput(
            f"{url} is being written by another process on this machine: wait for it or stop it"
        ) from None
    try:
        file = here / "mark"
        mark = file.read_text() if file.is_file() else ""
        if not MARK.fullmatch(mark):
            host = re.sub(r"[^\w.-]", "", platform.node(), flags=re.ASCII)[:100]
            mark = f"{host}/{uuid.uuid4().hex}"
            file.write_text(mark)
            sync(file)  # whoever loses the mark cannot take over the claim
        yield f"{store} {mark}\n".encode()
    finally:
        unlock(lock, here)


def check_claim(found: bytes, ours: bytes, url: str) -> None:
    """Raise BadInput, saying whose it is, unless the claim that was found is ours."""
    if found == ours:
        return
    stated = CLAIM.fullmatch(found.decode(errors="replace"))
    holder = "another process"
    if stated:
        machine = stated[2].partition("/")[0] or "another machine"
        holder = f"a push or harvest of {stated[1]} from {machine}"
    raise BadInput(
        f"{url} is being written by {holder}: wait for it; if it died, run it again there, "
        f"or remove {url}/{LOCK}"
    )
