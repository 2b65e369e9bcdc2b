"""Decoder rows → logits: the direct path from where a latent writes to the unembedding.

What is added to the residual stream reaches the logits through the final norm and the unembedding.
The scale of the norm depends on the token and is left out: it is one positive number, and changes
no order. The rest is linear: ``(v - mean(v), if the norm centres) * gain @ W_U``. What later blocks
make of it is left out as well. (nostalgebraist 2020, "interpreting GPT: the logit lens"; Bricken et
al. 2023, "Towards Monosemanticity", *Feature Effects*.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.metrics.base import decoder_of
from rkstore.store.sites import block_of

if TYPE_CHECKING:
    from rkstore.evaluation.functional import Loaded

# Parts of names at which a row is the residual stream itself.
STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_in", "hook_out")

# Output matrices of the parts of a block: what is written before one goes through it.
OUTPUTS = {"mlp.out": "the output matrix of the MLP", "attn.o": "the output matrix of attention"}

# Relative difference up to which two vectors are one: bfloat16 has 8 significant bits.
SAME = 0.02

# The added vector, in norms of the rows that it is added to: their rounding then does not matter.
FAR = 10.0

LEAVE_OUT = "leave out --with-model"


@dataclass(frozen=True, eq=False)
class Unembedding:
    """The final norm of a model, without its scale, and its unembedding."""

    unembed: Callable[[Tensor], Tensor]
    gain: Tensor
    """``(d_model,)``."""
    centred: bool
    """Whether the norm takes the mean away, as LayerNorm does and RMSNorm does not."""
    vocabulary: int

    @classmethod
    def of(cls, loaded: "Loaded") -> "Unembedding":
        """Those of a loaded model, measured on what its norm does to some vectors.

        Raises:
            BadInput: the logits of the model are not its unembedding of its final norm.
        """
        bridge = loaded.model.bridge
        norm, width = getattr(bridge, "ln_final", None), int(bridge.cfg.d_model)
        own = BadInput(
            f"the logits of {loaded.model.name} are not those of an unembedding behind a norm, so "
            f"no direction has logits: {LEAVE_OUT}"
        )
        if norm is None:
            raise own
        like = {"device": bridge.cfg.device, "dtype": bridge.cfg.dtype}
        x = torch.where(torch.arange(width) % 2 == 0, 1.0, -1.0).to(**like)
        y = torch.randn(width, generator=torch.Generator().manual_seed(0)).to(**like)
        with torch.inference_mode():
            zero, of_x, of_y, moved = (
                norm(row[None, None])[0, 0].float() for row in (0 * x, x, y, y + 1)
            )
        centred = _same(moved, of_y)
        gain = (of_x - zero) / _centred(x.float(), centred)
        made = cls(bridge.unembed, gain, centred, int(bridge.cfg.d_vocab))
        scaled = gain * _centred(y.float(), centred)
        found = of_y - zero
        if not _same(found, scaled * (found @ scaled) / (scaled @ scaled)):
            raise own
        _check_logits(loaded, norm, own)
        return made

    def logits(self, rows: Tensor) -> Tensor:
        """What vectors of the residual stream ``(n, d_model)`` add to the logits, but for a
        positive factor; ``(n, vocabulary)``, float32.
        """
        folded = _centred(rows.to(self.gain), self.centred) * self.gain
        both = torch.cat([folded, torch.zeros_like(folded[:1])])
        with torch.inference_mode():
            found = self.unembed(both.to(_dtype_of(self.unembed))[None])[0].float()
        return found[:-1] - found[-1]


def directions(dictionary: Dictionary, loaded: "Loaded") -> Tensor:
    """What each latent writes to the residual stream, of norm 1 or 0, ``(d_sae, d_model)``.

    Of several sites that are added to the stream, the sum; of several that are the stream itself,
    the last that it writes, which has in it what came before.

    Raises:
        BadInput: it writes a site of which no path to the stream is known.
    """
    decoder = decoder_of(dictionary)
    streams = [is_stream(site) for site in decoder]
    if any(streams) and not all(streams):
        raise BadInput(
            f"the latents write the residual stream and what is added to it, so their logits would "
            f"count some of it twice: {LEAVE_OUT}"
        )
    found = torch.zeros(dictionary.d_sae, int(loaded.model.bridge.cfg.d_model))
    for site in loaded.order(decoder):
        rows = written(loaded, site, decoder[site]).cpu()
        if all(streams):
            writes = rows.any(dim=1)
            found[writes] = rows[writes]
        else:
            found += rows
    return torch.nn.functional.normalize(found, dim=1)


def is_stream(site: str) -> bool:
    """Whether the rows of a site are the residual stream, by its name."""
    return block_of(site.rpartition(":")[2])[1] in STREAM


def path_of(dictionary: Dictionary, loaded: "Loaded") -> str:
    """By which path the latents get to the logits, in words."""
    parts = {_output(loaded, site) for site in decoder_of(dictionary)}
    through = [OUTPUTS[part] for part in OUTPUTS if part in parts]
    return ", ".join([*through, "the gain of the final norm"]) + " and the unembedding"


def written(loaded: "Loaded", site: str, rows: Tensor) -> Tensor:
    """What rows ``(n, width)`` at a site add to the residual stream, ``(n, d_model)``, float32.

    Raises:
        BadInput: that is not known of this site.
    """
    part = _output(loaded, site)
    made = rows.float() if part is None else _through(_module(loaded, site, part), rows)
    assert made is not None
    return made


def _output(loaded: "Loaded", site: str) -> str | None:
    """The output matrix through which a site gets to the residual stream; None if it is there.

    It is measured: a vector is added at the site, and what then changes in the residual stream of
    its block must be that vector, or what the matrix makes of it.
    """
    if is_stream(site):
        return None
    change, vector = _added(loaded, site)
    for row in change:
        if row.shape == vector.shape and _same(row, vector):
            return None
        for part in OUTPUTS:
            made = _through(_module(loaded, site, part), vector[None])
            if made is not None and _same(row, made[0]):
                return part
    raise BadInput(
        f"what is written at {site} is not added to the residual stream of {loaded.model.name}, "
        f"neither as it is nor by an output matrix, so it has no direct logits: {LEAVE_OUT}"
    )


def _added(loaded: "Loaded", site: str) -> tuple[list[Tensor], Tensor]:
    """How a vector that is added at a site changes the residual stream behind attention, if the
    model has that as a hook, and at the end of the block; and the vector.
    """
    bare = loaded.bare(site)
    number, part = block_of(bare)
    if number is None:
        return [], torch.zeros(0)
    block = bare.removesuffix(part)
    streams = [f"{block}{name}" for name in ("hook_resid_mid", "hook_resid_post")]
    streams = [name for name in streams if name in loaded.model.widths]
    tokens = np.arange(1, 8)[None] % int(loaded.model.bridge.cfg.d_vocab)
    rows: dict[str, list[Tensor]] = {}
    vector = torch.zeros(0)

    def keep(name: str, x: Tensor) -> Tensor | None:
        rows.setdefault(loaded.bare(name), []).append(x)
        return x + vector if len(vector) and loaded.bare(name) == bare else None

    names = [loaded.prefix + name for name in dict.fromkeys([bare, *streams])]
    loaded.logits(tokens, names, keep)
    clean = rows[bare][0]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(clean.shape[1], generator=generator).to(clean)
    vector = drawn * (FAR * clean.norm(dim=1).median() / drawn.norm())
    loaded.logits(tokens, names, keep)
    # The last token has no massive activations, in which a difference would be lost.
    return [(rows[name][1] - rows[name][0])[-1] for name in streams], vector


def _module(loaded: "Loaded", site: str, part: str) -> Any:
    """A part of the block of a site; None if the model has no such part."""
    bare = loaded.bare(site)
    try:
        return loaded.model.bridge.get_submodule(bare.removesuffix(block_of(bare)[1]) + part)
    except AttributeError:
        return None


def _through(module: Any, rows: Tensor) -> Tensor | None:
    """A linear module without its bias; None if there is none, or it reads another width."""
    if module is None:
        return None
    both = torch.cat([rows, torch.zeros_like(rows[:1])]).to(_dtype_of(module))
    try:
        with torch.inference_mode():
            found: Tensor = module(both[None])[0].float()
    except RuntimeError:  # torch: the shapes do not fit
        return None
    return found[:-1] - found[-1]


def _check_logits(loaded: "Loaded", norm: Any, own: BadInput) -> None:
    """Raise the error unless norm and unembedding of the last rows are in line with the logits.

    Not equal: some models bound their logits.
    """
    last = max(
        (name for name in loaded.model.widths if block_of(name)[1] == "hook_resid_post"),
        key=lambda name: block_of(name)[0] or 0,
        default=None,
    )
    if last is None:
        raise own
    kept: list[Tensor] = []
    tokens = np.arange(1, 8)[None] % int(loaded.model.bridge.cfg.d_vocab)
    expected = loaded.logits(tokens, [loaded.prefix + last], lambda _, x: kept.append(x))
    with torch.inference_mode():
        rows = kept[0][None].to(loaded.model.bridge.cfg.dtype)
        found = loaded.model.bridge.unembed(norm(rows)).float()
    a, b = (x - x.mean(dim=-1, keepdim=True) for x in (expected[0], found[0]))
    if a.shape != b.shape or torch.cosine_similarity(a, b, dim=-1).min() < 1 - SAME:
        raise own


def _centred(rows: Tensor, centred: bool) -> Tensor:
    return rows - rows.mean(dim=-1, keepdim=True) if centred else rows


def _dtype_of(module: Any) -> torch.dtype:
    found: torch.dtype = next(module.parameters()).dtype
    return found


def _same(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= SAME * expected.norm())
