"""dictionary_learning: ``ae.pt`` and ``config.json``; its fork names the first ``model_final.pt``.

Which class the tensors are of is ``dict_class`` in the configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.dictionaries.layouts.archives import open_pt
from rkstore.dictionaries.layouts.base import UNNAMED, Layout
from rkstore.dictionaries.layouts.hooks import stated_site
from rkstore.dictionaries.layouts.keys import check_known, choice, part, size
from rkstore.dictionaries.layouts.tensors import read_object, taken
from rkstore.errors import BadInput
from rkstore.store.sites import Site, block_of

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.dictionaries.layouts.filled import Ruled

WEIGHTS, CONFIG = ("ae.pt", "model_final.pt"), "config.json"

# Tensors by class, in letters: d is the width of the rows, F the number of latents.
LINEAR = {"encoder.weight": "Fd", "encoder.bias": "F", "decoder.weight": "dF"}
MATRICES = {"W_enc": "dF", "b_enc": "F", "W_dec": "Fd", "b_dec": "d"}
CLASSES = {
    "AutoEncoder": LINEAR | {"bias": "d"},
    "AutoEncoderNew": LINEAR | {"decoder.bias": "d"},
    "AutoEncoderTopK": LINEAR | {"b_dec": "d", "k": "", "threshold": ""},
    "BatchTopKSAE": LINEAR | {"b_dec": "d", "k": "", "threshold": ""},
    "GatedAutoEncoder": {"encoder.weight": "Fd", "decoder.weight": "dF", "decoder_bias": "d"}
    | {"r_mag": "F", "gate_bias": "F", "mag_bias": "F"},
    "JumpReluAutoEncoder": MATRICES | {"threshold": "F"},
    "MatryoshkaBatchTopKSAE": MATRICES | {"k": "", "threshold": "", "group_sizes": "g"},
}
# Those whose encoder reads x, not x - b_dec.
UNCENTRED = ("AutoEncoderNew", "JumpReluAutoEncoder")

# How the fork normalises rows: not at all where mean and deviation are NaN.
NORMALISER = {"activation_mean": "d", "activation_std": "d"}
NORMALISER |= {"activation_global_scale": "", "target_rms": ""}

OBEYED = ("dict_class", "activation_dim", "dict_size", "k", "group_sizes")
METADATA = ("layer", "lm_name", "submodule_name")
TRAINING_KEYS = """
    anneal_start auxk_alpha bandwidth decay_start device encoder_init_norm group_fractions
    group_weights k_anneal_steps l1_penalty lr n_sparsity_updates p_end p_start resample_steps seed
    sparsity_function sparsity_penalty sparsity_queue_length sparsity_warmup_steps steps target_l0
    target_rms threshold_beta threshold_start_step top_k_aux trainer_class use_mse_loss
    wandb_name warmup_steps
"""
WITHOUT_EFFECT = frozenset(TRAINING_KEYS.split())
BUFFER: tuple[str, ...] = (
    "ctx_len",
    "d_submodule",
    "device",
    "io",
    "layer",
    "n_ctxs",
    "out_batch_size",
)
BUFFER += ("refresh_batch_size",)


class DictionaryLearning(Layout):
    """``dictionary_learning.utils.load_dictionary`` loads what is written; what its trainings save
    is read.

    An ``AutoEncoder`` gets decoder rows of norm 1, and its code grows accordingly, as it does
    there: so one whose rows are otherwise is written as an ``AutoEncoderNew``.
    """

    name = "dictionary-learning"
    files = (CONFIG, "|".join(WEIGHTS))

    def found(self, directory: Path) -> bool:
        try:
            config = read_object(directory / CONFIG)
        except (OSError, ValueError, BadInput):
            return False
        trainer = config.get("trainer")
        named = str(trainer.get("dict_class")) if isinstance(trainer, dict) else None
        return named in CLASSES and any((directory / name).is_file() for name in WEIGHTS)

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        if hook_name_out is not None:
            raise BadInput("it writes what it reads: give one hook")
        config = read_object(directory / CONFIG)
        check_known(config, ("trainer", "buffer", "metadata"))
        trainer, buffer = part(config, "trainer"), part(config, "buffer")
        check_known(trainer, (*OBEYED, *METADATA, *WITHOUT_EFFECT), "trainer.")
        check_known(buffer, BUFFER, "buffer.")
        # Trained from the input of a module to its output, or on the input that its name is not of.
        choice(buffer, "io", ("out",))
        name = choice(trainer, "dict_class", tuple(CLASSES))
        d, latents = size(trainer, "activation_dim"), size(trainer, "dict_size")
        tensors = _tensors(directory, name, d, latents)
        site = Site(stated_site(trainer.get("submodule_name"), hook_name, UNNAMED), d)
        layer, stated = block_of(site.hook_name)[0], trainer.get("layer")
        if layer is not None and stated not in (None, layer):
            raise BadInput(f"layer is {stated!r}, and it is of {site.hook_name}")
        dictionary = _dictionary(name, tensors, trainer, site)
        return dictionary, part(config, "metadata") | _metadata(trainer, buffer, tensors, site)

    def refuses(self, dictionary: Dictionary) -> str | None:
        from rkstore.dictionaries.layouts.filled import at_inference

        wiring = dictionary.wiring
        if len(wiring.banks) > 1 or len(wiring.sites) > 1 or not wiring.centred or wiring.skip:
            return "dictionary_learning has only autoencoders of one site"
        if dictionary.row_norm != "none":
            return f"dictionary_learning has no {dictionary.row_norm}"
        try:
            ((select, _),) = at_inference(dictionary)
        except BadInput as error:
            return f"{error.sentence}, and dictionary_learning only by pre-activations"
        return None if select.name in _CLASS_OF else f"dictionary_learning has no {select.name}"

    def write(self, dictionary: Dictionary, directory: Path, metadata: dict[str, Any]) -> None:
        import torch

        name, tensors = _written(dictionary, metadata)
        plain = {key: x.detach().cpu().contiguous() for key, x in tensors.items()}
        (site,) = dictionary.wiring.sites
        layer, _ = block_of(site.hook_name)
        trainer = {
            "dict_class": name,
            "activation_dim": site.width,
            "dict_size": dictionary.d_sae,
            "layer": layer,
            "lm_name": metadata.get("model_name"),
            "submodule_name": site.hook_name,
        }
        if "k" in plain:
            trainer["k"] = int(plain["k"])
        if "group_sizes" in plain:
            trainer["group_sizes"] = plain["group_sizes"].tolist()
        buffer = {"ctx_len": metadata.get("context_size"), "io": "out"}
        config = {"trainer": trainer, "buffer": buffer, "metadata": metadata}
        torch.save(plain, directory / WEIGHTS[0])
        text = json.dumps(config, indent=2, allow_nan=False) + "\n"
        (directory / CONFIG).write_text(text, "utf-8")


# The class that a select is written as; relu and batchtopk may have another.
_CLASS_OF = {
    "relu": "AutoEncoder",
    "topk": "AutoEncoderTopK",
    "jumprelu": "JumpReluAutoEncoder",
    "gated": "GatedAutoEncoder",
}


def _tensors(directory: Path, name: str, d: int, latents: int) -> dict[str, Tensor]:
    """The tensors of that class, in float64 where they are not whole numbers."""
    files = [directory / weights for weights in WEIGHTS if (directory / weights).is_file()]
    if len(files) > 1:
        raise BadInput(f"it has {WEIGHTS[0]} and {WEIGHTS[1]}: remove one of them")
    opened, plain = open_pt(files[0])
    if plain:
        raise BadInput(f"{min(plain)} in {opened.name} is no tensor")
    groups = opened.shapes.get("group_sizes", (0,))
    sizes = {"d": d, "F": latents, "g": groups[0] if len(groups) == 1 else 0}

    def shapes(letters: dict[str, str]) -> dict[str, tuple[int, ...]]:
        return {key: tuple(sizes[letter] for letter in of) for key, of in letters.items()}

    normalised = name == "BatchTopKSAE" and any(key in opened.shapes for key in NORMALISER)
    due = shapes(CLASSES[name] | (NORMALISER if normalised else {}))
    unset = ("activation_mean", "activation_std", "activation_global_scale", "target_rms")
    found = taken(opened, due, whole=("k", "group_sizes"), unset=unset)
    return {key: x.double() if x.is_floating_point() else x for key, x in found.items()}


def _dictionary(name: str, w: dict[str, Tensor], trainer: dict[str, Any], site: Site) -> Dictionary:
    from rkstore.dictionaries.layouts.filled import autoencoder
    from rkstore.dictionaries.layouts.standardised import for_rows, is_normalised

    ours = _renamed(w)
    rule = _rule(name, w, ours, trainer)
    if name == "AutoEncoder":
        norms = ours["W_dec"].norm(dim=1)
        norms[norms == 0] = 1
        ours |= {"W_enc": ours["W_enc"] * norms, "b_enc": ours["b_enc"] * norms}
        ours["W_dec"] = ours["W_dec"] / norms.unsqueeze(1)
    dictionary = autoencoder(ours, rule, site, subtracts=name not in UNCENTRED)
    if not is_normalised(w):
        return dictionary
    return for_rows(dictionary, w, [site.hook_name])


def _renamed(w: dict[str, Tensor]) -> dict[str, Tensor]:
    """The matrices and the biases of linear maps under our names."""
    if "W_enc" in w:
        return {key: w[key] for key in MATRICES}
    b_dec = next(w[key] for key in ("b_dec", "bias", "decoder.bias", "decoder_bias") if key in w)
    b_enc = w["encoder.bias"] if "encoder.bias" in w else w["gate_bias"]
    return {
        "W_enc": w["encoder.weight"].T,
        "b_enc": b_enc,
        "W_dec": w["decoder.weight"].T,
        "b_dec": b_dec,
    }


def _rule(
    name: str, w: dict[str, Tensor], ours: dict[str, Tensor], trainer: dict[str, Any]
) -> Ruled:
    from rkstore.dictionaries.layouts.filled import Ruled, batchtopk, jumprelu, relu, topk
    from rkstore.dictionaries.selects import select_named

    if name == "GatedAutoEncoder":
        b = w["mag_bias"] - w["r_mag"].exp() * ours["b_enc"]
        return Ruled(select_named("gated", {}), [{"r_mag": w["r_mag"], "b": b}])
    if name == "JumpReluAutoEncoder":
        return jumprelu(w["threshold"])
    if "k" not in w:
        return relu()
    k = int(w["k"])
    if trainer.get("k", k) != k:
        raise BadInput(f"trainer.k is {trainer['k']!r}, and k is {k} among the tensors")
    return topk(k) if name == "AutoEncoderTopK" else batchtopk(k, w["threshold"])


def _metadata(
    trainer: dict[str, Any], buffer: dict[str, Any], w: dict[str, Tensor], site: Site
) -> dict[str, Any]:
    """What is stated, under SAELens' names."""
    found = {
        "model_name": trainer.get("lm_name"),
        "hook_name": None if site.hook_name == UNNAMED else site.hook_name,
        "context_size": buffer.get("ctx_len"),
    }
    if "group_sizes" in w:
        widths, stated = w["group_sizes"].tolist(), trainer.get("group_sizes")
        if min(widths, default=0) < 1 or sum(widths) != len(w["b_enc"]):
            raise BadInput(f"group_sizes are {widths}, which are not {len(w['b_enc'])} latents")
        if stated not in (None, widths):
            raise BadInput(f"trainer.group_sizes is {stated}, and {widths} among the tensors")
        found["training_architecture"] = "matryoshka_batchtopk"
        ends = [sum(widths[: i + 1]) for i in range(len(widths))]
        found["training_architecture_details"] = {"matryoshka_widths": ends}
    return {key: value for key, value in found.items() if value is not None}


def _written(dictionary: Dictionary, metadata: dict[str, Any]) -> tuple[str, dict[str, Tensor]]:
    """The class, and its tensors."""
    import torch

    from rkstore.dictionaries.layouts.filled import at_inference

    ((select, state),) = at_inference(dictionary)
    _, (W_enc, b_enc, W_dec) = dictionary.banks[0]
    b_dec, name = dictionary.b_dec, _CLASS_OF[select.name]
    linear: dict[str, Tensor] = {
        "encoder.weight": W_enc.T,
        "encoder.bias": b_enc,
        "decoder.weight": W_dec.T,
    }
    matrices: dict[str, Tensor] = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    rule, plain = dictionary.pools[0].rule, dictionary.wiring.norm == "none"
    if rule.name in ("topk", "batchtopk") and plain:
        k = torch.tensor(dict(rule)["k"], dtype=torch.int32)
        if rule.name == "topk":
            return name, linear | {"b_dec": b_dec, "k": k, "threshold": torch.tensor(-1.0)}
        threshold = dictionary.pools[0].get_buffer("threshold")
        widths = _widths(metadata, dictionary.d_sae)
        if widths is None:
            return "BatchTopKSAE", linear | {"b_dec": b_dec, "k": k, "threshold": threshold}
        more = {"k": k, "threshold": threshold, "group_sizes": torch.tensor(widths)}
        return "MatryoshkaBatchTopKSAE", matrices | more
    if name == "JumpReluAutoEncoder":
        unfolded = (b_enc.double() - b_dec.double() @ W_enc.double()).float()
        return name, matrices | {"b_enc": unfolded, "threshold": state["threshold"]}
    if name == "GatedAutoEncoder":
        w = select.to_saelens({"b_enc": b_enc} | state)
        gates = {"r_mag": w["r_mag"], "gate_bias": w["b_gate"], "mag_bias": w["b_mag"]}
        del linear["encoder.bias"]
        return name, linear | gates | {"decoder_bias": b_dec}
    if torch.allclose(W_dec.norm(dim=1), torch.ones(()), rtol=1e-5, atol=1e-6):
        return name, linear | {"bias": b_dec}
    unfolded = (b_enc.double() - b_dec.double() @ W_enc.double()).float()
    return "AutoEncoderNew", linear | {"encoder.bias": unfolded, "decoder.bias": b_dec}


def _widths(metadata: dict[str, Any], latents: int) -> list[int] | None:
    """The widths of a Matryoshka's groups, if its training is on record."""
    details = metadata.get("training_architecture_details") or {}
    ends = details.get("matryoshka_widths") if isinstance(details, dict) else None
    if not ends or ends[-1] != latents:
        return None
    return [b - a for a, b in zip([0, *ends], ends, strict=False)]
