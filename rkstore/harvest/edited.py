"""A pass of the model in which the rows of some sites are replaced: tokens → logits."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rkstore.errors import BadInput
from rkstore.harvest.capture.base import SAME_LOGITS
from rkstore.harvest.model import Model
from rkstore.store.sites import block_of

# Called with a site and its rows, float32 (batch * position, width), in the order of computation;
# gives the rows to go on with, or None for those that are there.
Edit = Callable[[str, Tensor], Tensor | None]


def logits(model: Model, tokens: NDArray[Any], sites: Sequence[str], edit: Edit) -> Tensor:
    """Logits ``(batch, position, vocabulary)``, float32, on the device of the model.

    Args:
        tokens: ``(batch, position)``.
        sites: those that ``edit`` is called with. Several may be heads of one hook.
    """
    ids = torch.from_numpy(tokens.astype(np.int64)).to(model.capture.device)
    by_hook: dict[str, list[tuple[str, int | None]]] = {}
    for site in sites:
        hook, head = model.hook_of(site)
        by_hook.setdefault(hook, []).append((site, head))

    found = model.capture.run(
        ids, by_hook, lambda x, hook: _edited(x, by_hook[hook], edit), logits=True
    )
    assert found is not None
    return found.float()


def _edited(x: Tensor, sites: Sequence[tuple[str, int | None]], edit: Edit) -> Tensor:
    """The output of a hook, ``(batch, position, ...)``, with the rows of its sites replaced."""
    kept = x
    for site, head in sites:
        here = kept if head is None else kept[:, :, head]
        rows = edit(site, here.reshape(here.shape[0] * here.shape[1], -1).float())
        if rows is None:
            continue
        new = rows.to(x.dtype).reshape(here.shape)
        if head is None:
            kept = new
        else:
            kept = kept.clone() if kept is x else kept
            kept[:, :, head] = new
    return kept


def check_logits(model: Model) -> None:
    """Raise BadInput unless the model predicts tokens: some checkpoints lack the unembedding."""
    if not logits(model, _texts(model), (), _nothing).isfinite().all():
        raise BadInput(
            f"the model {model.name} has no unembedding, so it predicts no token: give --model one "
            "that has"
        )


def check_has(model: Model, site: str) -> None:
    """Raise BadInput unless the model gives the rows of a site, once in a pass."""
    hook, _ = model.hook_of(site)
    if hook not in model.widths:
        raise BadInput(f"the model {model.name} has no {hook} with one row a token")
    if hook in model.repeated:
        raise BadInput(
            f"{hook} fires several times in a pass of {model.name}, of which a store has the last: "
            "nothing can take its place, choose another site"
        )


def check_replaceable(model: Model, site: str) -> None:
    """Raise BadInput unless replacing the rows of a site replaces all that is read of them.

    On many models the hook between attention and MLP (``hook_resid_mid``) is on what the norm
    reads, and the residual stream goes past it. So a hook of the residual stream is tried: with
    the rows of another text in it, the model must predict what it does of that text.
    """
    hook, _ = model.hook_of(site)
    tokens = _texts(model)

    def swapped(_: str, rows: Tensor) -> Tensor:
        return rows.reshape(len(tokens), -1, rows.shape[-1]).flip(0).reshape(rows.shape)

    clean, found = logits(model, tokens, (), _nothing), logits(model, tokens, (site,), swapped)
    expected = clean.flip(0)
    bound = SAME_LOGITS[model.capture.dtype]
    whole = (found - expected).norm() <= bound * expected.norm()
    stream = block_of(hook)[1].startswith("hook_resid")
    if (stream and not whole) or torch.equal(found, clean):
        raise BadInput(
            f"replacing the rows of {hook} does not replace all that {model.name} goes on with: "
            "choose another site to splice, such as hook_resid_post"
        )


def _texts(model: Model) -> NDArray[np.int64]:
    """Two short texts of different tokens, ``(2, position)``."""
    length = max(1, min(7, model.longest_context))
    return (np.arange(2 * length) % model.capture.vocabulary).reshape(2, length)


def _nothing(site: str, rows: Tensor) -> None:
    """The edit that leaves every row."""
