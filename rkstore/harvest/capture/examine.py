"""What the hooks of a model give, found by passes over a few tokens.

And the check that the model computes the same with the hooks as without, whenever one is loaded.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rkstore.harvest.capture.base import SAME_LOGITS, Capture

# Length of the longer test texts; less if the model's context is shorter.
PROBE_TOKENS = 7


@dataclass(frozen=True)
class Measured:
    """What two passes over probe tokens say of hooks that give one row a token."""

    same: Mapping[str, str]
    """Each hook, and the first in the order of computation that gave the same numbers."""
    heads: Mapping[str, int]
    """The hooks that give ``(batch, position, head, d_head)``, and how many heads each has."""


def measure(capture: Capture, names: Iterable[str]) -> Measured:
    """Which hooks give the same numbers, and which have heads.

    Two hooks are the same if every bit of their rows is, for both batches of probe tokens. One
    whose numbers are all equal, such as all zero, is the same as no other: that would be chance.
    """
    names, counts = list(names), capture.heads
    digests: dict[str, tuple[str | None, ...]] = dict.fromkeys(names, ())
    shapes: dict[str, torch.Size] = {}
    for ids in probes(capture.plain):
        seen: dict[str, str | None] = {}

        # Digested at once: what a model computes later may change a tensor in place.
        def keep(x: torch.Tensor, name: str, seen: dict[str, str | None] = seen) -> None:
            shapes[name], seen[name] = x.shape, _digest(x)

        capture.run(ids, names, keep)
        digests = {name: (*digests[name], seen.get(name)) for name in names}
    first: dict[tuple[str | None, ...], str] = {}
    same = {
        name: name if None in digest else first.setdefault(digest, name)
        for name, digest in digests.items()
    }
    heads = {
        name: shape[2] for name, shape in shapes.items() if len(shape) == 4 and shape[2] in counts
    }
    return Measured(same, heads)


def _digest(x: torch.Tensor) -> str | None:
    """Of the rows as a store would get them, float32 ``(rows, d_in)``; None if they are one
    number.
    """
    rows = x.reshape(*x.shape[:2], -1).float().cpu().contiguous()
    if not (rows != rows.flatten()[0]).any():
        return None
    return hashlib.sha256(repr(rows.shape).encode() + rows.numpy().tobytes()).hexdigest()


def probes(plain: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches that differ in both sizes: 2 texts of 7 tokens and 3 of 6."""
    most = getattr(plain.config.get_text_config(), "max_position_embeddings", None)
    length = min(PROBE_TOKENS, most or PROBE_TOKENS)
    vocabulary = len(plain.get_input_embeddings().weight)
    ids = torch.arange(3 * length, device=plain.device) % vocabulary
    return ids[: 2 * length].reshape(2, -1), ids[: 3 * (length - 1)].reshape(3, -1)


@dataclass(frozen=True)
class Examined:
    """The hooks of a model that give one row a token."""

    widths: dict[str, int]
    """Width of every hook, in the order of computation."""
    repeated: frozenset[str]
    """Hooks that fire several times in one pass, because blocks are looped or shared."""


def examine(
    capture: Capture, expected: torch.Tensor, headless: Sequence[torch.nn.Parameter]
) -> Examined:
    """Run a model twice with all its hooks, and check their outputs.

    A hook gives one row a token if its shape is ``(batch, position, ...rest)`` for both probes,
    with the same rest: the number of heads may equal a length, but never both.

    Args:
        expected: the logits of the first probe without hooks.
        headless: weights that the checkpoint lacks. Whatever depends on them is not an
            activation of the model: they are set to NaN, which then shows.

    Raises:
        ValueError: hooks change the output of the model, or no hook gives rows.
    """
    one, other = probes(capture.plain)
    logits, first = capture.everything(one)
    if not logits.is_meta:
        _check_same(logits.float(), expected.float(), capture.dtype)
    for weight in headless:
        weight.data.fill_(torch.nan)
    fired: Counter[str] = Counter()
    second: dict[str, torch.Tensor] = {}

    def keep(x: torch.Tensor, name: str) -> None:
        fired[name] += 1
        second[name] = x

    capture.run(other, list(first), keep)
    widths = {
        name: math.prod(x.shape[2:])
        for name, x in first.items()
        if name in second
        and x.ndim > 2
        and (x.shape[:2], second[name].shape[:2]) == (one.shape, other.shape)
        and x.shape[2:] == second[name].shape[2:]
        and not (headless and second[name].isnan().any())
    }
    if not widths:
        raise ValueError("none of its hooks gives one row a token")
    return Examined(widths, frozenset(name for name in widths if fired[name] > 1))


def _check_same(logits: torch.Tensor, expected: torch.Tensor, dtype: str) -> None:
    """Raise ValueError unless two passes gave the same logits, where these are not NaN."""
    bound = SAME_LOGITS[dtype]
    finite = expected.isfinite()
    if (
        logits.shape != expected.shape
        or not (logits - expected)[finite].norm() <= bound * expected[finite].norm()
    ):
        raise ValueError("its output changes with the hooks")
