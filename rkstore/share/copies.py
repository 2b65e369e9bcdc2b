"""Common code of push, pull and repair: one store, one history."""

from collections.abc import Sequence

from rkstore.errors import BadInput
from rkstore.store.journal import ShardRecord
from rkstore.store.manifest import Manifest


def check_same(there: Manifest, here: Manifest, url: str, root: str) -> None:
    """Raise BadInput, naming what differs, unless both are the manifest of one store."""
    if there.fingerprint != here.fingerprint:
        raise BadInput(
            f"{url} is another store than {root} ({there.fingerprint}, not {here.fingerprint}; "
            f"{'; '.join(here.differences(there)[:3])})"
        )


def check_one_history(
    here: Sequence[ShardRecord], there: Sequence[ShardRecord], root: str, url: str
) -> None:
    """Raise BadInput unless one journal begins with the other."""
    for mine, theirs in zip(here, there, strict=False):
        if mine.chain != theirs.chain:
            raise BadInput(
                f"shard {mine.shard} at {url} was written by another run than that of {root}: "
                "the two cannot be one store"
            )
