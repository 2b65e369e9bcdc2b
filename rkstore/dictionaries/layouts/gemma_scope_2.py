"""Gemma Scope 2: ``config.json`` with ``params.safetensors``, or with one file a layer.

JumpReLU; encoders read ``x``, not ``x - b_dec``. An ``affine_skip_connection`` is
``(d_in, d_out)``, within a layer. Each layer of a crosscoder or of a cross-layer transcoder has
latents of its own, whose ``w_dec (F, layers, d)`` may write all of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.dictionaries.layouts.base import UNNAMED, UNNAMED_OUT, Layout
from rkstore.dictionaries.layouts.hooks import stated_site
from rkstore.dictionaries.layouts.keys import check_known, choice
from rkstore.dictionaries.layouts.tensors import Opened, open_safetensors, read_object, taken
from rkstore.errors import BadInput
from rkstore.store.sites import Site

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary

WEIGHTS, BY_LAYER, CONFIG = "params.safetensors", "params_layer_{}.safetensors", "config.json"
READS, WRITES, SKIP = "hf_hook_point_in", "hf_hook_point_out", "affine_skip_connection"

OBEYED = ("architecture", READS, WRITES, "width", "affine_connection", "type")
METADATA = ("model_name", "l0")

# Layers in a name: all of them, or some.
LAYERS = re.compile(r"\{(all|[0-9]+(?:,[0-9]+)*)\}")


class GemmaScope2(Layout):
    """What Google published for Gemma 3: autoencoders, transcoders, crosscoders and cross-layer
    transcoders."""

    name = "gemma-scope-2"
    files = (CONFIG, f"{WEIGHTS}|{BY_LAYER.format('*')}")

    def found(self, directory: Path) -> bool:
        several = (directory / BY_LAYER.format(0)).is_file()
        return (directory / CONFIG).is_file() and (several or (directory / WEIGHTS).is_file())

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        config = read_object(directory / CONFIG)
        check_known(config, (*OBEYED, *METADATA))
        choice(config, "architecture", ("jump_relu",))
        skip = choice(config, "affine_connection", (False, True))
        kind = choice(config, "type", (None, "sae", "transcoder", "crosscoder", "clt"))
        metadata = {key: config[key] for key in METADATA if key in config}
        given = hook_name, hook_name_out
        if (directory / BY_LAYER.format(0)).is_file():
            if kind not in ("crosscoder", "clt") or (directory / WEIGHTS).is_file():
                raise BadInput(f"type is {kind!r}, and it has a file a layer")
            return _of_layers(directory, config, given, skip=skip), metadata
        dictionary = _of_one(directory, config, given, kind, skip=skip)
        stated = {"hook_name": dictionary.wiring.reads[0].hook_name}
        if dictionary.wiring.reads != dictionary.wiring.writes:
            stated["hook_name_out"] = dictionary.wiring.writes[0].hook_name
        return dictionary, metadata | stated


Given = tuple[str | None, str | None]


def _sizes(opened: Opened) -> tuple[int, int]:
    shape = opened.shapes.get("w_enc", ())
    if len(shape) != 2:
        raise BadInput(f"w_enc in {opened.name} is no matrix")
    return shape[0], shape[1]


def _check_width(config: dict[str, Any], latents: int) -> None:
    if config.get("width", latents) != latents:
        raise BadInput(f"width is {config['width']!r}, and it has {latents} latents")


def _of_one(
    directory: Path, config: dict[str, Any], given: Given, kind: str | None, *, skip: bool
) -> Dictionary:
    """An autoencoder or a transcoder."""
    from rkstore.dictionaries.layouts.filled import autoencoder, jumprelu, transcoder

    opened = open_safetensors(directory / WEIGHTS)
    d, latents = _sizes(opened)
    _check_width(config, latents)
    other = config.get(WRITES) not in (None, config.get(READS))
    if kind in ("crosscoder", "clt") or (kind is not None and other != (kind == "transcoder")):
        raise BadInput(
            f"type is {kind!r}, {READS} {config.get(READS)!r}, {WRITES} {config.get(WRITES)!r}"
        )
    d_out = opened.shapes.get("w_dec", (0, d))[-1] if other else d
    due = {
        "w_enc": (d, latents),
        "w_dec": (latents, d_out),
        "b_enc": (latents,),
        "b_dec": (d_out,),
        "threshold": (latents,),
    }
    w = taken(opened, due | ({SKIP: (d, d_out)} if skip else {}))
    ours = _renamed(w)
    reads = Site(stated_site(config.get(READS), given[0], UNNAMED), d)
    if not other and not skip:
        if given[1] is not None:
            raise BadInput("it writes what it reads: give one hook")
        return autoencoder(ours, jumprelu(w["threshold"]), reads, subtracts=False)
    writes = reads
    if other:
        writes = Site(stated_site(config.get(WRITES), given[1], UNNAMED_OUT), d_out)
    return transcoder(ours, jumprelu(w["threshold"]), reads, writes)


def _renamed(w: dict[str, Tensor]) -> dict[str, Tensor]:
    ours = {"W_enc": w["w_enc"], "b_enc": w["b_enc"], "W_dec": w["w_dec"], "b_dec": w["b_dec"]}
    return ours | ({"W_skip": w[SKIP].T} if SKIP in w else {})


def _of_layers(directory: Path, config: dict[str, Any], given: Given, *, skip: bool) -> Dictionary:
    """A crosscoder, or a cross-layer transcoder: a bank for each layer."""
    import torch

    from rkstore.dictionaries.layouts.filled import Filling, filled, jumprelu
    from rkstore.dictionaries.wirings import Bank, Wiring

    files = _files(directory)
    count, (d, latents) = len(files), _sizes(files[0])
    _check_width(config, latents * count)
    d_out = files[0].shapes.get("b_dec", (d,))[-1]
    reads = [Site(name, d) for name in _sites(config.get(READS), given[0], count)]
    writes = [Site(name, d_out) for name in _sites(config.get(WRITES), given[1], count)]
    banks, parts, biases, theta = [], [], [], []
    for s, file in enumerate(files):
        due = {
            "w_enc": (d, latents),
            "w_dec": (latents, count, d_out),
            "b_enc": (latents,),
            "b_dec": (d_out,),
            "threshold": (latents,),
        }
        w = taken(file, due | ({SKIP: (d, d_out)} if skip else {}))
        # What writes earlier layers is zero in a cross-layer transcoder, if it is causal.
        first = 0 if w["w_dec"][:, :s].any() else s
        target = tuple(writes[first:])
        W_skip = None
        if skip:
            W_skip = torch.zeros(len(target), d_out, d)
            W_skip[s - first] = w[SKIP].T
            W_skip = W_skip.flatten(0, 1)
        banks.append(Bank(latents, (reads[s],), target))
        parts.append(Filling(w["w_enc"], w["b_enc"], w["w_dec"][:, first:].flatten(1), W_skip))
        biases.append(w["b_dec"])
        theta.append(w["threshold"])
    wiring = Wiring(tuple(banks), skip=skip)
    return filled(wiring, jumprelu(torch.cat(theta)), parts, torch.cat(biases))


def _files(directory: Path) -> list[Opened]:
    """The files of all layers, which are numbered from 0 without a gap."""
    count = len(list(directory.glob(BY_LAYER.format("*"))))
    paths = [directory / BY_LAYER.format(s) for s in range(count)]
    if not all(path.is_file() for path in paths):
        raise BadInput(f"its files {BY_LAYER.format('*')} are not one for each layer from 0 on")
    return [open_safetensors(path) for path in paths]


def _sites(words: Any, given: str | None, count: int) -> list[str]:
    """The hook of each layer; in the words of the files ``model.layers.{5,9,12,15}.output``."""
    found = LAYERS.search(words) if isinstance(words, str) else None
    if found is None:
        raise BadInput(f"a hook of its configuration is {words!r}, which is not of several layers")
    layers = list(range(count)) if found[1] == "all" else [int(s) for s in found[1].split(",")]
    if len(set(layers)) != count:
        raise BadInput(f"{words} is of {len(layers)} layers, and it has {count} files")
    return [
        stated_site(words.replace(found[0], str(layer)), given and f"blocks.{layer}.{given}", "")
        for layer in layers
    ]
