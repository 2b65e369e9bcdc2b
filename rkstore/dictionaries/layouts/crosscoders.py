"""Crosscoders of dictionary_learning's fork (Minder et al.), and those with dedicated features.

``model.safetensors`` with the arguments of the class in ``config.json``, as its ``push_to_hub``
writes them, or ``model_final.pt`` with the ``config.json`` of the training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.dictionaries.layouts.archives import open_pt
from rkstore.dictionaries.layouts.base import UNNAMED, Layout
from rkstore.dictionaries.layouts.dictionary_learning import BUFFER, WITHOUT_EFFECT
from rkstore.dictionaries.layouts.hooks import one_each
from rkstore.dictionaries.layouts.keys import check_known, choice, part
from rkstore.dictionaries.layouts.tensors import Opened, open_safetensors, read_object, taken
from rkstore.errors import BadInput
from rkstore.store.sites import Site

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.dictionaries.layouts.filled import Filling
    from rkstore.dictionaries.wirings import Bank

HUB, TRAINED, CONFIG = "model.safetensors", ("ae.pt", "model_final.pt"), "config.json"
PARTITION = "_partition_config"

# Code norms by the number that a file has for each.
NORM_IDS = {1: "crosscoder", 2: "sae", 3: "mixed", 4: "none", 5: "decoupled"}
CLASSES: tuple[str, ...] = ("CrossCoder", "BatchTopKCrossCoder", "DedicatedFeatureCrossCoder")
CLASSES += ("DedicatedFeatureBatchTopKCrossCoder",)

SIZES = ("activation_dim", "dict_size", "num_layers", "num_decoder_layers", "k")
OBEYED: tuple[str, ...] = (
    *SIZES,
    "dict_class",
    "code_normalization",
    "code_normalization_alpha_sae",
)
OBEYED += ("code_normalization_alpha_cc", "encoder_layers", "latent_processor")
OBEYED += ("model_a_exclusive_pct", "model_b_exclusive_pct", "dict_class_kwargs")
# At the start of a training, or of it.
INITIAL = ("same_init_for_all_layers", "norm_init_scale", "init_with_transpose", "target_rms")
ANNEALED = ("k_target", "k_initial", "k_annealing_steps")
OF_MODEL = ("layer", "lm_name", "submodule_name")

# What the class would take for an argument in its own file.
METADATA = "metadata.json"


class Crosscoders(Layout):
    """Classes ``CrossCoder`` and ``BatchTopKCrossCoder`` of the fork, and the same with dedicated
    features.

    The files do not name the sites: give one hook for each, with commas between them.
    """

    name = "crosscoder"
    files = (CONFIG, "|".join((HUB, *TRAINED)))
    beside = (METADATA,)

    def found(self, directory: Path) -> bool:
        try:
            config = read_object(directory / CONFIG)
        except (OSError, ValueError, BadInput):
            return False
        if (directory / HUB).is_file():
            return "num_layers" in config and "activation_dim" in config
        trainer = config.get("trainer")
        named = str(trainer.get("dict_class")) if isinstance(trainer, dict) else None
        return named in CLASSES and any((directory / name).is_file() for name in TRAINED)

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        import torch

        from rkstore.dictionaries.layouts.filled import filled
        from rkstore.dictionaries.layouts.standardised import for_rows, is_normalised
        from rkstore.dictionaries.wirings import Wiring

        if hook_name_out is not None:
            raise BadInput("it writes what it reads: give its hooks once")
        config, metadata = _config(directory)
        opened, plain = _opened(directory)
        layers, d, latents = _sizes(opened, config, plain)
        w = _tensors(opened, layers, d, latents)
        norm = _norm(config, w, opened.name)
        names = _hook_names(metadata, hook_name, layers)
        sites = [Site(name, d) for name in names]
        banks, parts = _banks(w, sites, _partition(config, plain, latents))
        if len(banks) > 1 and norm == "decoupled":
            raise BadInput("code_normalization is decoupled, which needs latents of all layers")
        wiring = Wiring(tuple(banks), norm=norm)
        # Without latents of the first site alone, the second comes first.
        biases = dict(zip(sites, w["decoder.bias"], strict=True))
        b_dec = torch.cat([biases[site] for site in wiring.writes])
        dictionary = filled(wiring, _rule(w, config, norm), parts, b_dec)
        if is_normalised(w):
            if norm == "decoupled":
                raise BadInput(
                    "it normalises rows and its code is decoupled, which dictionary_learning "
                    "normalises twice"
                )
            dictionary = for_rows(dictionary, w, names)
        return dictionary, metadata

    def refuses(self, dictionary: Dictionary) -> str | None:
        wiring = dictionary.wiring
        (bank, *others) = wiring.banks
        if others or bank.reads != bank.writes or len(bank.reads) < 2 or wiring.centred:
            return "dictionary_learning has only crosscoders whose latents are of all sites"
        if wiring.skip or len({site.width for site in bank.reads}) > 1:
            return "dictionary_learning's crosscoders have sites of one width, and no skip"
        if dictionary.row_norm != "none" or dictionary.pools[0].rule.name not in (
            "relu",
            "batchtopk",
        ):
            return "dictionary_learning's crosscoders have only relu and batchtopk"
        if wiring.norm != "none" and (dictionary.site_units != 1).any():
            return "its code norms are of rows as they were scaled for training"
        return None

    def write(self, dictionary: Dictionary, directory: Path, metadata: dict[str, Any]) -> None:
        import torch
        from safetensors.torch import save_file

        wiring = dictionary.wiring
        layers, d = len(wiring.reads), wiring.reads[0].width
        _, (W_enc, b_enc, W_dec) = dictionary.banks[0]
        number = next(i for i, name in NORM_IDS.items() if name == wiring.norm)
        tensors = {
            "encoder.weight": W_enc.reshape(layers, d, -1),
            "encoder.bias": b_enc,
            "decoder.weight": W_dec.reshape(-1, layers, d).transpose(0, 1),
            "decoder.bias": dictionary.b_dec.reshape(layers, d),
            "code_normalization_id": torch.tensor(number),
            "target_rms": torch.tensor(1.0),
            "activation_mean": torch.full((layers, d), torch.nan),
            "activation_std": torch.full((layers, d), torch.nan),
            "activation_global_scale": torch.tensor(1.0),
        }
        arguments = {
            "activation_dim": d,
            "dict_size": dictionary.d_sae,
            "num_layers": layers,
            "code_normalization": wiring.norm.upper(),
            "target_rms": 1.0,
        }
        rule = dictionary.pools[0].rule
        if rule.name == "batchtopk":
            theta = torch.stack([pool.get_buffer("threshold") for pool in dictionary.pools])
            arguments["k"] = dict(rule)["k"]
            tensors["k"] = torch.tensor(arguments["k"], dtype=torch.int32)
            tensors["threshold"] = theta if wiring.views > 1 else theta[0]
        save_file(
            {name: x.detach().cpu().contiguous() for name, x in tensors.items()}, directory / HUB
        )
        stated = metadata | {"hook_names": [site.hook_name for site in wiring.reads]}
        for file, said in ((CONFIG, arguments), (METADATA, stated)):
            text = json.dumps(said, indent=2, allow_nan=False) + "\n"
            (directory / file).write_text(text, "utf-8")


def _config(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of the class, and metadata under SAELens' names."""
    config = read_object(directory / CONFIG)
    metadata: dict[str, Any] = {}
    if (directory / METADATA).is_file():
        metadata = read_object(directory / METADATA)
    if "trainer" not in config:
        check_known(config, (*OBEYED, *INITIAL))
        return config, metadata
    check_known(config, ("trainer", "buffer"))
    trainer, buffer = part(config, "trainer"), part(config, "buffer")
    check_known(trainer, (*OBEYED, *INITIAL, *ANNEALED, *OF_MODEL, *WITHOUT_EFFECT), "trainer.")
    check_known(buffer, BUFFER, "buffer.")
    stated = {"model_name": trainer.get("lm_name"), "context_size": buffer.get("ctx_len")}
    return trainer, {key: x for key, x in stated.items() if x is not None} | metadata


def _hook_names(metadata: dict[str, Any], given: str | None, layers: int) -> list[str]:
    stated = metadata.get("hook_names")
    if stated is None:
        return one_each(given, layers, UNNAMED)
    if given is not None or not isinstance(stated, list) or len(stated) != layers:
        raise BadInput(f"{METADATA} names its sites: {stated!r}")
    return one_each(",".join(map(str, stated)), layers, UNNAMED)


def _opened(directory: Path) -> tuple[Opened, dict[str, Any]]:
    """The only file of tensors, and what in it is none."""
    files = [name for name in (HUB, *TRAINED) if (directory / name).is_file()]
    if len(files) > 1:
        raise BadInput(f"it has {' and '.join(files)}: remove all but one")
    if files[0] == HUB:
        return open_safetensors(directory / HUB), {}
    opened, plain = open_pt(directory / files[0])
    # So does torch.compile name what is in a module.
    prefix = "_orig_mod."
    if all(name.startswith(prefix) for name in opened.shapes):
        shapes = {name.removeprefix(prefix): shape for name, shape in opened.shapes.items()}
        load = opened.load
        opened = Opened(
            opened.name, shapes, lambda: {n.removeprefix(prefix): x for n, x in load().items()}
        )
    return opened, plain


def _sizes(opened: Opened, config: dict[str, Any], plain: dict[str, Any]) -> tuple[int, int, int]:
    """Sites, their width, and latents, by the header of the encoder."""
    shape = opened.shapes.get("encoder.weight", ())
    if len(shape) != 3:
        raise BadInput(f"encoder.weight in {opened.name} has not a matrix for each site")
    layers, d, latents = shape
    found = {"activation_dim": d, "dict_size": latents, "num_layers": layers}
    found["num_decoder_layers"] = layers
    for key, size in found.items():
        if config.get(key, size) not in (size, None):
            raise BadInput(f"{key} is {config[key]!r}, and {size} by its tensors")
    if config.get("encoder_layers") not in (None, list(range(layers))):
        raise BadInput(f"encoder_layers is {config['encoder_layers']!r}: rkstore reads all")
    choice(config, "latent_processor", (None,))
    for key, usual in (("sae", 1.0), ("cc", 0.1)):  # weights in the mixed norm
        choice(config, f"code_normalization_alpha_{key}", (usual, None))
    # The arguments of the class once more, as text.
    stated = config | found | (plain.get(PARTITION) or {})
    for key, said in part(config, "dict_class_kwargs").items():
        if key not in INITIAL and str(stated.get(key)) != said:
            raise BadInput(
                f"dict_class_kwargs.{key} is {said!r}, and {stated.get(key)!r} elsewhere"
            )
    return layers, d, latents


def _tensors(opened: Opened, layers: int, d: int, latents: int) -> dict[str, Tensor]:
    due: dict[str, tuple[int, ...]] = {
        "encoder.weight": (layers, d, latents),
        "encoder.bias": (latents,),
        "decoder.weight": (layers, latents, d),
        "decoder.bias": (layers, d),
    }
    more: dict[str, tuple[int, ...]] = {
        "code_normalization_id": (),
        "k": (),
        # One for each site if the code is decoupled.
        "threshold": (layers,) if opened.shapes.get("threshold") else (),
    }
    normaliser: dict[str, tuple[int, ...]] = {
        "activation_mean": (layers, d),
        "activation_std": (layers, d),
        # Later versions have one for each site.
        "activation_global_scale": (layers,)
        if opened.shapes.get("activation_global_scale")
        else (),
        "target_rms": (),
    }
    if normaliser.keys() & opened.shapes.keys():
        due |= normaliser
    if {"k", "threshold"} & opened.shapes.keys():
        due |= {name: more[name] for name in ("k", "threshold")}
    whole = ("code_normalization_id", "k")
    found = taken(opened, due, more, whole=whole, unset=tuple(normaliser))
    return {key: x.double() if x.is_floating_point() else x for key, x in found.items()}


def _norm(config: dict[str, Any], w: dict[str, Tensor], name: str) -> str:
    """The code norm: by its number among the tensors, and by its name, which must agree."""
    number = int(w["code_normalization_id"]) if "code_normalization_id" in w else None
    said = config.get("code_normalization")
    if number is None and said is None:
        raise BadInput(f"{name} has no code_normalization_id: say code_normalization in {CONFIG}")
    named = NORM_IDS.get(number) if number is not None else str(said).lower()
    if named not in NORM_IDS.values() or str(said or named).lower() != named:
        raise BadInput(f"code_normalization is {said!r}, and its number {number}")
    if "threshold" in w and bool(w["threshold"].dim()) != (named == "decoupled"):
        raise BadInput(f"code_normalization is {named}, and threshold is not of such a code")
    # Of a ReLU's code that is decoupled there is one all the same, weighed by the sum.
    return "crosscoder" if named == "decoupled" and "k" not in w else named


def _partition(config: dict[str, Any], plain: dict[str, Any], latents: int) -> list[int]:
    """How many latents are of the first site alone, of the second, and of all."""
    stated: dict[str, Any] = plain.pop(PARTITION, {}) or {}
    if plain:
        raise BadInput(f"{min(plain)} is no tensor, and its effect is not known")
    check_known(stated, ("dict_size", "model_a_exclusive_pct", "model_b_exclusive_pct"), PARTITION)
    shares: list[int] = []
    for key in ("model_a_exclusive_pct", "model_b_exclusive_pct"):
        said = [x[key] for x in (stated, config) if key in x]
        if said and (said[0] != said[-1] or isinstance(said[0], bool) or not 0 <= said[0] <= 1):
            raise BadInput(f"{key} is {said!r}, which is no share of the latents")
        shares.append(int(latents * said[0]) if said else 0)  # as FeaturePartition rounds
    if "Dedicated" in str(config.get("dict_class")) and not any(shares):
        raise BadInput(f"dict_class is {config['dict_class']}, and which latents these are is not")
    if sum(shares) > latents:
        raise BadInput(f"its partition is of {sum(shares)} latents, and it has {latents}")
    return [*shares, latents - sum(shares)]


def _banks(
    w: dict[str, Tensor], sites: list[Site], partition: list[int]
) -> tuple[list[Bank], list[Filling]]:
    """The banks of a partition; the weights that it forbids must be zero."""
    from rkstore.dictionaries.layouts.filled import Filling
    from rkstore.dictionaries.wirings import Bank

    if len(sites) != 2 and any(partition[:2]):
        raise BadInput(f"its partition is of two sites, and it has {len(sites)}")
    banks, parts, first = [], [], 0
    for own, latents in zip((sites[:1], sites[1:2], sites), partition, strict=True):
        if not latents:
            continue
        of = slice(first, first + latents)
        first += latents
        W_enc, W_dec = w["encoder.weight"][..., of], w["decoder.weight"][:, of]
        layers = [sites.index(site) for site in own]
        others = [i for i in range(len(sites)) if i not in layers]
        if W_enc[others].any() or W_dec[others].any():
            raise BadInput("latents of one site alone read or write the other")
        banks.append(Bank(latents, tuple(own), tuple(own)))
        decoder = W_dec[layers].transpose(0, 1).flatten(1)
        parts.append(Filling(W_enc[layers].flatten(0, 1), w["encoder.bias"][of], decoder))
    return banks, parts


def _rule(w: dict[str, Tensor], config: dict[str, Any], norm: str) -> Any:
    from rkstore.dictionaries.layouts.filled import batchtopk, relu

    if "k" not in w:
        return relu()
    k = int(w["k"])
    # The argument is the k at the start if it falls.
    if "trainer_class" in config and config.get("k", k) != k:
        raise BadInput(f"k is {config['k']!r}, and {k} among the tensors")
    theta = w["threshold"]
    return batchtopk(k, *(theta if norm == "decoupled" else [theta]))
