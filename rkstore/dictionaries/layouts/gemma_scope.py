"""Gemma Scope: ``params.npz``, of JumpReLU autoencoders and transcoders of Gemma 2.

The encoder reads ``x``, not ``x - b_dec``. No file says what the rows are; the names of Google's
repositories do.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.dictionaries.layouts.archives import open_npz
from rkstore.dictionaries.layouts.base import UNNAMED, Layout, site_of
from rkstore.dictionaries.layouts.tensors import taken
from rkstore.errors import BadInput
from rkstore.store.sites import Site

if TYPE_CHECKING:
    from rkstore.dictionaries.dictionary import Dictionary

WEIGHTS = "params.npz"
REPOSITORY = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)")
LAYER = re.compile(r"layer_(0|[1-9][0-9]*)")
HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}


class GemmaScope(Layout):
    """``params.npz``. With ``hook_name_out`` it is read as a transcoder."""

    name = "gemma-scope"
    files = (WEIGHTS,)

    def found(self, directory: Path) -> bool:
        return (directory / WEIGHTS).is_file()

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        from rkstore.dictionaries.layouts.filled import autoencoder, jumprelu, transcoder

        opened = open_npz(directory / WEIGHTS)
        shape = opened.shapes.get("W_enc", ())
        if len(shape) != 2:
            raise BadInput(f"W_enc in {WEIGHTS} is no matrix")
        d, latents = shape
        due = {"W_enc": (d, latents), "W_dec": (latents, d), "b_enc": (latents,), "b_dec": (d,)}
        w = taken(opened, due | {"threshold": (latents,)}, {"scaling_factor": (latents,)})
        if "scaling_factor" in w and (w["scaling_factor"] != 1).any():
            raise BadInput(
                f"scaling_factor in {WEIGHTS} is not 1: multiply the rows of W_dec by it"
            )
        stated, metadata = _stated(directory, is_transcoder=hook_name_out is not None)
        rule, name = jumprelu(w["threshold"]), site_of(stated, hook_name)
        metadata |= {"hook_name": name} if name != UNNAMED else {}
        if hook_name_out is None:
            return autoencoder(w, rule, Site(name, d), subtracts=False), metadata
        made = transcoder(w, rule, Site(name, d), Site(hook_name_out, d))
        return made, metadata | {"hook_name_out": hook_name_out}


def _stated(directory: Path, *, is_transcoder: bool) -> tuple[str | None, dict[str, Any]]:
    """The hook and the model, if the path has the names of Google's repositories.

    Raises:
        BadInput: it is a transcoder, or of the embedding, by these names.
    """
    path = directory.absolute().as_posix()
    repository = next(reversed(list(REPOSITORY.finditer(path))), None)
    if repository is None:
        return None, {}
    size, tuned, kind = repository.groups()
    metadata = {"model_name": f"gemma-2-{size}{'-it' if tuned == 'it' else ''}"}
    inside = path[repository.end() :]
    if kind == "transcoders":
        if not is_transcoder:
            raise BadInput("it is a transcoder: give the hook that it reads and the one it writes")
        return None, metadata
    if "embedding" in inside:
        raise BadInput("it is of embeddings before they are scaled, which no hook gives")
    layer = LAYER.search(inside)
    return f"blocks.{layer[1]}.{HOOKS[kind]}" if layer else None, metadata
