"""crosslayer-transcoder: ``config.yaml`` and ``checkpoint.safetensors``.

The configuration says by class paths what the parts are; standardisers that were not folded into
the weights are folded here. A decoder's ``W_{t}`` has a matrix for each layer up to ``t``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.dictionaries.layouts.base import UNNAMED, UNNAMED_OUT, Layout
from rkstore.dictionaries.layouts.hooks import of_layers
from rkstore.dictionaries.layouts.keys import check_known, part, read_yaml, size
from rkstore.dictionaries.layouts.tensors import open_safetensors, taken
from rkstore.errors import BadInput
from rkstore.store.sites import Site

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.affine import Affine
    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.dictionaries.layouts.filled import Filling, Ruled
    from rkstore.dictionaries.wirings import Bank

WEIGHTS, CONFIG = "checkpoint.safetensors", "config.yaml"
MODULE = "crosslayer_transcoder.model."
MODEL = f"{MODULE}clt.CrossLayerTranscoder"
ENCODER, DECODERS = (
    f"{MODULE}clt.Encoder",
    (f"{MODULE}clt.CrosslayerDecoder", f"{MODULE}clt.Decoder"),
)

# Nonlinearities, with the arguments of each that change a value or not, and the shape of its
# tensors in letters: L layers, F latents in each.
RULES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "jumprelu.ReLU": ((), {}),
    "jumprelu.JumpReLU": (
        ("theta", "bandwidth", "n_layers", "d_features"),
        {"nonlinearity.theta": "1LF", "nonlinearity.bandwidth": ""},
    ),
    "topk.PerLayerTopK": (("k", "e", "n_layers"), {}),
    "topk.BatchTopK": (("k", "e", "n_layers"), {"nonlinearity.threshold": "1"}),
    "topk.PerLayerBatchTopK": (("k", "e", "n_layers"), {"nonlinearity.threshold": "L"}),
}
STANDARDISERS = {
    "standardize.Standardizer": ((), ""),
    "standardize.Dimensionwise{}Standardizer": (("n_layers", "activation_dim"), "Ld"),
    "standardize.Layerwise{}Standardizer": (("n_layers", "n_exclude"), "L"),
}
PARTS = ("encoder", "decoder", "nonlinearity", "input_standardizer", "output_standardizer")


class CrosslayerTranscoder(Layout):
    """A ``CrossLayerTranscoder``, or with a ``Decoder`` a transcoder for each layer.

    The files do not name the sites: give the part of each after the block.
    """

    name = "crosslayer-transcoder"
    files = (CONFIG, WEIGHTS)

    def found(self, directory: Path) -> bool:
        return (directory / WEIGHTS).is_file() and (directory / CONFIG).is_file()

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        from rkstore.dictionaries.affine import folded
        from rkstore.dictionaries.layouts.filled import filled
        from rkstore.dictionaries.wirings import Wiring

        said = _Said(read_yaml(directory / CONFIG))
        w = taken(open_safetensors(directory / WEIGHTS), said.shapes())
        w = {key: x.double() for key, x in w.items()}
        layers = range(said.layers)
        reads = [Site(name, said.d) for name in of_layers(hook_name, layers, UNNAMED)]
        writes = [Site(name, said.d) for name in of_layers(hook_name_out, layers, UNNAMED_OUT)]
        banks, parts = said.banks(w, reads, writes)
        wiring = Wiring(tuple(banks), together=said.together)
        dictionary = filled(wiring, said.rule(w), parts, w["decoder.b"].flatten())
        maps: dict[str, Affine] = {}
        for name, sites in (("input_standardizer", reads), ("output_standardizer", writes)):
            if f"{name}.mean" in w:
                maps |= _maps(w[f"{name}.mean"], w[f"{name}.std"], sites)
        return folded(dictionary, maps), {}


class _Said:
    """What a configuration says."""

    def __init__(self, config: dict[str, Any]) -> None:
        check_known(config, ("model",))
        model = part(config, "model")
        check_known(model, ("class_path", "init_args", "is_folded"), "model.")
        if model.get("class_path") != MODEL:
            raise BadInput(f"class_path is {model.get('class_path')!r}: rkstore reads {MODEL}")
        parts = part(model, "init_args")
        check_known(parts, PARTS, "init_args.")
        self.parts = {name: part(parts, name) for name in PARTS}
        for name, found in self.parts.items():
            check_known(found, ("class_path", "init_args"), f"{name}.")
        encoder = self._arguments("encoder", (ENCODER,), ("d_acts", "d_features", "n_layers"))
        self.d, self.latents = size(encoder, "d_acts"), size(encoder, "d_features")
        self.layers = size(encoder, "n_layers")
        self._arguments("decoder", DECODERS, ("d_acts", "d_features", "n_layers"))
        self.crosses = self.parts["decoder"]["class_path"] == DECODERS[0]
        path = str(self.parts["nonlinearity"].get("class_path"))
        self.kind = path.removeprefix(MODULE)
        if not path.startswith(MODULE) or self.kind not in RULES:
            raise BadInput(f"nonlinearity is {path}: rkstore reads {', '.join(RULES)}")
        self.options = self._arguments("nonlinearity", (path,), RULES[self.kind][0])
        folded = model.get("is_folded", False)
        standardised = any(self.parts[name] for name in PARTS[3:])
        if type(folded) is not bool or (folded and standardised):
            raise BadInput(f"is_folded is {folded!r}, and it has standardisers")

    def _arguments(
        self, name: str, paths: tuple[str, ...], known: tuple[str, ...]
    ) -> dict[str, Any]:
        """The arguments of a part, which agree with the sizes of the encoder."""
        found = self.parts[name]
        if found.get("class_path") not in paths:
            raise BadInput(f"{name} is {found.get('class_path')!r}: rkstore reads {paths[0]}")
        arguments = part(found, "init_args")
        check_known(arguments, known, f"{name}.")
        if name != "encoder":
            sizes = {"d_acts": self.d, "activation_dim": self.d, "d_features": self.latents}
            sizes["n_layers"] = self.layers
            for key in arguments.keys() & sizes.keys():
                if arguments[key] not in (sizes[key], None):
                    raise BadInput(
                        f"{key} of {name} is {arguments[key]!r}, and {sizes[key]} of the encoder"
                    )
        return arguments

    @property
    def together(self) -> bool:
        """Whether one select ranks the latents of all layers."""
        return not self.kind.startswith("topk.PerLayer")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors that there must be."""
        layers, d, latents = self.layers, self.d, self.latents
        due: dict[str, tuple[int, ...]] = {
            "encoder.W": (layers, d, latents),
            "encoder.b": (layers, latents),
            "decoder.b": (layers, d),
        }
        if self.crosses:
            due |= {f"decoder.W_{t}": (t + 1, latents, d) for t in range(layers)}
        else:
            due["decoder.W"] = (layers, latents, d)
        letters = dict(RULES[self.kind][1])
        for name in PARTS[3:]:
            if self.parts[name]:
                letters |= self._standardiser(name)
        sizes = {"L": layers, "d": d, "F": latents, "1": 1}
        return due | {key: tuple(sizes[x] for x in of) for key, of in letters.items()}

    def _standardiser(self, name: str) -> dict[str, str]:
        side = "Input" if name == "input_standardizer" else "Output"
        known = {MODULE + path.format(side): found for path, found in STANDARDISERS.items()}
        path = str(self.parts[name].get("class_path"))
        if path not in known:
            raise BadInput(f"{name} is {path}: rkstore reads {', '.join(known)}")
        arguments, of = known[path]
        self._arguments(name, (path,), arguments)
        return {f"{name}.mean": of, f"{name}.std": of} if of else {}

    def banks(
        self, w: dict[str, Tensor], reads: list[Site], writes: list[Site]
    ) -> tuple[list[Bank], list[Filling]]:
        import torch

        from rkstore.dictionaries.layouts.filled import Filling
        from rkstore.dictionaries.wirings import Bank

        banks, parts = [], []
        for s in range(self.layers):
            target, W_dec = writes[s : s + 1], None
            if self.crosses:
                target = writes[s:]
                W_dec = torch.cat([w[f"decoder.W_{t}"][s] for t in range(s, self.layers)], dim=1)
            else:
                W_dec = w["decoder.W"][s]
            banks.append(Bank(self.latents, (reads[s],), tuple(target)))
            parts.append(Filling(w["encoder.W"][s], w["encoder.b"][s], W_dec))
        return banks, parts

    def rule(self, w: dict[str, Tensor]) -> Ruled:
        from rkstore.dictionaries.layouts.filled import batchtopk, jumprelu, relu, topk

        if self.kind == "jumprelu.ReLU":
            return relu()
        if self.kind == "jumprelu.JumpReLU":
            return jumprelu(w["nonlinearity.theta"].flatten())
        k = size(self.options, "k")
        if self.kind == "topk.PerLayerTopK":
            return topk(k)
        theta = w["nonlinearity.threshold"]
        # Theirs counts in each layer, ours in all latents that are ranked together.
        return batchtopk(k * self.layers if self.together else k, *theta)


def _maps(mean: Tensor, std: Tensor, sites: list[Site]) -> dict[str, Affine]:
    """``z = (x - mean) / std`` of each layer."""
    from rkstore.dictionaries.affine import Affine

    if not (std > 0).all():
        raise BadInput("std of a standardiser is not positive")
    d = sites[0].width
    return {
        site.hook_name: Affine(mean[i].expand(d), 1 / std[i], std[i])
        for i, site in enumerate(sites)
    }
