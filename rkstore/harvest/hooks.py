"""TransformerLens' hooks on a model, and the check that it computes the same with them.

TransformerLens provides the hooks (``blocks.8.mlp.hook_post``) and nothing else of it is used:
no weight is folded or centred, so a stored value is what the plain ``transformers`` model
computes. That is checked whenever a model is loaded.
"""

import copy
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

# Length of the longer test texts; less if the model's context is shorter.
PROBE_TOKENS = 7

# Hooks change the order of some sums, and so the last bits of the logits. Anything larger is a
# different computation. Half precisions have eight or eleven significant bits.
SAME_LOGITS = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}


def hook(
    name: str, plain: Any, words: Any, headless: Sequence[torch.nn.Parameter]
) -> tuple[Any, dict[str, int], frozenset[str]]:
    """Add TransformerLens' hooks to a model, and check that its output stays the same.

    Returns:
        The hooked model, the width of each hook that gives one row a token, and the hooks that
        fire repeatedly.
    """
    from transformer_lens.model_bridge import TransformerBridge

    probes = _probes(plain)
    with torch.inference_mode():
        expected = plain(probes[0]).logits
    bridge = TransformerBridge.boot_transformers(
        name,
        device=str(plain.device),
        dtype=plain.dtype,
        # A copy: the bridge adds the special tokens that a tokenizer lacks.
        tokenizer=copy.deepcopy(words),
        hf_model=plain,
    )
    bridge.eval()
    return bridge, *_examine(bridge, probes, expected, headless)


@dataclass(frozen=True)
class Measured:
    """What two passes over probe tokens say of hooks that give one row a token."""

    same: Mapping[str, str]
    """Each hook, and the first in the order of computation that gave the same numbers."""
    heads: Mapping[str, int]
    """The hooks that give ``(batch, position, head, d_head)``, and how many heads each has."""


def measure(bridge: Any, names: Iterable[str]) -> Measured:
    """Which hooks give the same numbers, and which have heads.

    Two hooks are the same if every bit of their rows is, for both batches of probe tokens. One
    whose numbers are all equal, such as all zero, is the same as no other: that would be chance.
    """
    names, counts = list(names), _head_counts(bridge.cfg)
    digests: dict[str, tuple[str | None, ...]] = dict.fromkeys(names, ())
    shapes: dict[str, torch.Size] = {}
    for ids in _probes(bridge.original_model):
        seen: dict[str, str | None] = {}

        # Digested at once: what a model computes later may change a tensor in place.
        def keep(x: torch.Tensor, name: str, seen: dict[str, str | None] = seen) -> None:
            shapes[name], seen[name] = x.shape, _digest(x)

        run(bridge, ids, names, keep)
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


def _head_counts(cfg: Any) -> set[int]:
    """How many heads queries have, and keys and values."""
    counts = (getattr(cfg, name, None) for name in ("n_heads", "n_key_value_heads"))
    return {int(count) for count in counts if count}


def _probes(plain: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches that differ in both sizes: 2 texts of 7 tokens and 3 of 6."""
    most = getattr(plain.config.get_text_config(), "max_position_embeddings", None)
    length = min(PROBE_TOKENS, most or PROBE_TOKENS)
    vocabulary = len(plain.get_input_embeddings().weight)
    ids = torch.arange(3 * length, device=plain.device) % vocabulary
    return ids[: 2 * length].reshape(2, -1), ids[: 3 * (length - 1)].reshape(3, -1)


def _examine(
    bridge: Any,
    probes: tuple[torch.Tensor, torch.Tensor],
    expected: torch.Tensor,
    headless: Sequence[torch.nn.Parameter],
) -> tuple[dict[str, int], frozenset[str]]:
    """Run a model twice with all its hooks, and check their outputs.

    Args:
        probes: two batches of tokens that differ in both sizes. A hook gives one row a token iff
        its shape is ``(batch, position, ...rest)`` for both, with the same
            rest: the number of heads may equal a length, but never both.
        expected: the logits of the first without hooks.
        headless: weights that the checkpoint lacks. Whatever depends on them is not an
            activation of the model: they are set to NaN, which then shows.

    Returns:
        The width of each hook that gives one row a token, and the hooks that fire repeatedly.

    Raises:
        ValueError: hooks change the output of the model, or no hook gives rows.
    """
    with torch.inference_mode():
        logits, first = bridge.run_with_cache(probes[0])
    _check_same(logits.float(), expected.float(), bridge.cfg.dtype)
    for weight in headless:
        weight.data.fill_(torch.nan)
    fired: Counter[str] = Counter()
    second: dict[str, torch.Tensor] = {}

    def keep(x: torch.Tensor, name: str) -> None:
        fired[name] += 1
        second[name] = x

    run(bridge, probes[1], list(first), keep)
    widths = {
        name: math.prod(x.shape[2:])
        for name, x in first.items()
        if name in second
        and x.ndim > 2
        and (x.shape[:2], second[name].shape[:2]) == (probes[0].shape, probes[1].shape)
        and x.shape[2:] == second[name].shape[2:]
        and not (headless and second[name].isnan().any())
    }
    if not widths:
        raise ValueError("none of its hooks gives one row a token")
    return widths, frozenset(name for name in widths if fired[name] > 1)


def _check_same(logits: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """Raise ValueError unless two passes gave the same logits, where these are not NaN."""
    bound = SAME_LOGITS[str(dtype).removeprefix("torch.")]
    finite = expected.isfinite()
    if (
        logits.shape != expected.shape
        or not (logits - expected)[finite].norm() <= bound * expected[finite].norm()
    ):
        raise ValueError("its output changes with TransformerLens' hooks")


def run(
    bridge: Any, ids: torch.Tensor, names: Iterable[str], keep: Callable[[torch.Tensor, str], None]
) -> None:
    """One pass over ``ids``, ``(batch, position)``; ``keep`` gets the output of each hook."""

    # The bridge may use an alias of a hook.
    def named(name: str) -> Callable[..., None]:
        return lambda x, hook: keep(x[0] if isinstance(x, tuple) else x, name)  # noqa: ARG005

    hooks = [(name, named(name)) for name in names]
    with torch.inference_mode(), bridge.hooks(fwd_hooks=hooks):
        bridge(ids, return_type=None)
