"""circuit-tracer: ``config.yaml``, and a file or two for each layer.

A set of transcoders is a ``layer_{i}.safetensors`` for each, a cross-layer transcoder a
``W_enc_{i}.safetensors`` and a ``W_dec_{i}.safetensors``. The code is ReLU, or JumpReLU where there
are thresholds, so a BatchTopK code is written with the thresholds that it has after training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.dictionaries.layouts.base import Layout, site_of
from rkstore.dictionaries.layouts.keys import check_known, choice, read_yaml
from rkstore.dictionaries.layouts.tensors import Opened, open_safetensors, taken
from rkstore.errors import BadInput
from rkstore.store.sites import Site, block_of

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.dictionaries.layouts.filled import Filling

CONFIG = "config.yaml"
SET, CLT = "transcoder_set", "cross_layer_transcoder"
LAYER, ENCODER, DECODER = "layer_{}.safetensors", "W_enc_{}.safetensors", "W_dec_{}.safetensors"
THRESHOLD = "activation_function.threshold"

OBEYED: tuple[str, ...] = ("model_kind", "feature_input_hook", "feature_output_hook")
OBEYED += ("activation", "k", "transcoders")
# Of the model and of the pages that show it; the rest is where it was downloaded from.
METADATA = ("model_name", "scan", "repo_id", "revision", "subfolder")

Names = tuple[str, str]


class CircuitTracer(Layout):
    """``load_transcoder_set`` and ``load_clt`` of circuit_tracer load what is written, and what
    their ``to_safetensors`` saves is read.

    A set must have every layer from 0 on; a single transcoder may be of any.
    """

    name = "circuit-tracer"
    files = (CONFIG, f"{LAYER.format('*')}|{ENCODER.format('*')}")
    beside = (DECODER.format("*"),)

    def found(self, directory: Path) -> bool:
        one = any(directory.glob(LAYER.format("*"))) or any(directory.glob(ENCODER.format("*")))
        return one and (directory / CONFIG).is_file()

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        config = read_yaml(directory / CONFIG)
        check_known(config, (*OBEYED, *METADATA))
        kind = config.get("model_kind")
        if kind not in (SET, CLT):
            raise BadInput(f"model_kind is {kind!r}: rkstore reads {SET}, {CLT}")
        if config.get("activation") == "topk" or config.get("k") is not None:
            raise BadInput(
                "activation is topk, which there keeps the k largest even where they are negative, "
                "and rkstore's does not"
            )
        choice(config, "activation", (None, "relu", "jump_relu"))
        names = (
            _hook(config, "feature_input_hook", hook_name),
            _hook(config, "feature_output_hook", hook_name_out),
        )
        read = _read_clt if kind == CLT else _read_set
        layers = _layers(directory, ENCODER if kind == CLT else LAYER)
        listed = config.get("transcoders")
        if listed is not None and listed != [LAYER.format(layer) for layer in layers]:
            raise BadInput(
                f"transcoders in {CONFIG} is {listed!r}: put these files here as "
                f"{LAYER.format(0)} and so on, and remove the key"
            )
        dictionary = read(directory, layers, names)
        named = [*dictionary.wiring.reads, *dictionary.wiring.writes]
        metadata = {key: config[key] for key in METADATA if config.get(key) is not None}
        if len(named) == 2:
            metadata |= {"hook_name": named[0].hook_name, "hook_name_out": named[1].hook_name}
        return dictionary, metadata

    def refuses(self, dictionary: Dictionary) -> str | None:
        from rkstore.dictionaries.layouts.filled import thresholds

        wiring = dictionary.wiring
        reads = [block_of(bank.reads[0].hook_name) for bank in wiring.banks]
        count, set_or_clt = len(reads), _is_set(dictionary) or _is_clt(dictionary)
        if not set_or_clt or set(wiring.reads) & set(wiring.writes) or wiring.centred:
            return "circuit-tracer has only transcoders, one for each layer or cross-layer"
        if wiring.skip and not _is_set(dictionary):
            return "circuit-tracer writes no skip of a cross-layer transcoder"
        if len({site.width for site in wiring.sites}) > 1:
            return "in circuit-tracer what is read is as wide as what is written"
        writes = [block_of(site.hook_name) for site in wiring.writes]
        expected = list(range(count)) if count > 1 else [reads[0][0]]
        layers = [[layer for layer, _ in part] for part in (reads, writes)]
        if layers != [expected, expected] or None in expected:
            return "circuit-tracer wants a transcoder for every layer from 0 on, or one alone"
        if max(len({rest for _, rest in part}) for part in (reads, writes)) > 1:
            return "in circuit-tracer all layers read the same hook, and write the same"
        if len({bank.latents for bank in wiring.banks}) > 1:
            return "in circuit-tracer all layers have as many latents"
        if dictionary.row_norm != "none":
            return f"circuit-tracer has no {dictionary.row_norm}"
        try:
            thresholds(dictionary)
        except BadInput as error:
            return f"circuit-tracer has only relu and jumprelu, and {error.sentence}"
        return None

    def write(self, dictionary: Dictionary, directory: Path, metadata: dict[str, Any]) -> None:
        import yaml

        wiring = dictionary.wiring
        (read, written) = (
            block_of(sites[0].hook_name)[1] for sites in (wiring.reads, wiring.writes)
        )
        config = {
            "model_name": metadata.get("model_name"),
            "model_kind": SET if _is_set(dictionary) else CLT,
            "feature_input_hook": read,
            "feature_output_hook": written,
        }
        (directory / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        _write_set(dictionary, directory) if _is_set(dictionary) else _write_clt(
            dictionary, directory
        )


def _hook(config: dict[str, Any], key: str, given: str | None) -> str:
    """The hook of every layer, the part after the block."""
    if not isinstance(config.get(key), str) or not config[key]:
        raise BadInput(f"{key} is {config.get(key)!r}, not the name of a hook")
    return site_of(config[key], given)


def _layers(directory: Path, form: str) -> list[int]:
    """The layers that have a file: all from 0 on, or one."""
    begin, end = form.split("{}")
    found = [path.name[len(begin) : -len(end)] for path in directory.glob(form.format("*"))]
    layers = sorted(int(layer) for layer in found if layer.isdecimal() and layer == str(int(layer)))
    if len(layers) != len(found) or (layers != list(range(len(layers))) and len(layers) > 1):
        raise BadInput(f"its files {form.format('*')} are not one for each layer from 0 on")
    return layers


def _sites(layers: list[int], names: Names, width: int) -> list[tuple[Site, Site]]:
    """What each layer reads and writes."""
    return [
        (Site(f"blocks.{layer}.{names[0]}", width), Site(f"blocks.{layer}.{names[1]}", width))
        for layer in layers
    ]


def _sizes(opened: Opened, name: str) -> tuple[int, int]:
    """Latents and width, by the header of an encoder."""
    shape = opened.shapes.get(name, ())
    if len(shape) != 2:
        raise BadInput(f"{name} in {opened.name} is no matrix")
    return shape[0], shape[1]


def _read_set(directory: Path, layers: list[int], names: Names) -> Dictionary:
    import torch

    from rkstore.dictionaries.layouts.filled import Filling, filled
    from rkstore.dictionaries.wirings import Bank, Wiring

    files = [open_safetensors(directory / LAYER.format(layer)) for layer in layers]
    latents, width = _sizes(files[0], "W_enc")
    due = {
        "W_enc": (latents, width),
        "W_dec": (latents, width),
        "b_enc": (latents,),
        "b_dec": (width,),
    }
    # What one layer has, all have.
    more = {"W_skip": (width, width), THRESHOLD: (latents,)}
    due |= {name: shape for name, shape in more.items() if name in files[0].shapes}
    read = [taken(file, due) for file in files]
    parts = [Filling(w["W_enc"].T, w["b_enc"], w["W_dec"], w.get("W_skip")) for w in read]
    banks = [Bank(latents, (x,), (y,)) for x, y in _sites(layers, names, width)]
    wiring = Wiring(tuple(banks), together=len(banks) == 1, skip="W_skip" in due)
    rule = _rule([w[THRESHOLD] for w in read] if THRESHOLD in due else [])
    return filled(wiring, rule, parts, torch.cat([w["b_dec"] for w in read]))


def _read_clt(directory: Path, layers: list[int], names: Names) -> Dictionary:
    import torch

    from rkstore.dictionaries.layouts.filled import Filling, filled
    from rkstore.dictionaries.wirings import Bank, Wiring

    if layers[0] != 0 or len(list(directory.glob(DECODER.format("*")))) != len(layers):
        raise BadInput(f"it has not a {ENCODER.format('*')} and a {DECODER.format('*')} a layer")
    files = [open_safetensors(directory / ENCODER.format(layer)) for layer in layers]
    latents, width = _sizes(files[0], "W_enc_0")
    sites = _sites(layers, names, width)
    parts: list[Filling] = []
    biases, theta, banks = [], [], []
    for s, file in zip(layers, files, strict=True):
        due = {f"W_enc_{s}": (latents, width), f"b_enc_{s}": (latents,), f"b_dec_{s}": (width,)}
        if "threshold_0" in files[0].shapes:
            due[f"threshold_{s}"] = (latents,)
        w = taken(file, due)
        shape = (latents, len(layers) - s, width)
        decoder = open_safetensors(directory / DECODER.format(s))
        W_dec = taken(decoder, {f"W_dec_{s}": shape})[f"W_dec_{s}"].flatten(1)
        parts.append(Filling(w[f"W_enc_{s}"].T, w[f"b_enc_{s}"], W_dec))
        banks.append(Bank(latents, (sites[s][0],), tuple(y for _, y in sites[s:])))
        biases.append(w[f"b_dec_{s}"])
        theta += [w[f"threshold_{s}"]] if f"threshold_{s}" in due else []
    rule = _rule([torch.cat(theta)] if theta else [])
    return filled(Wiring(tuple(banks)), rule, parts, torch.cat(biases))


def _rule(theta: list[Tensor]) -> Any:
    """ReLU, or JumpReLU; there one below 0 would keep negative values."""
    from rkstore.dictionaries.layouts.filled import jumprelu, relu

    if any((found < 0).any() for found in theta):
        raise BadInput("a threshold is below 0, where circuit-tracer has negative activations")
    return jumprelu(*theta) if theta else relu()


def _is_set(dictionary: Dictionary) -> bool:
    """Whether each bank reads one site and writes one of its own."""
    banks = dictionary.wiring.banks
    alone = all(len(bank.reads) == len(bank.writes) == 1 for bank in banks)
    return alone and len(dictionary.wiring.reads) == len(dictionary.wiring.writes) == len(banks)


def _is_clt(dictionary: Dictionary) -> bool:
    """Whether each bank reads one site, and writes one site less than the bank before it."""
    banks, writes = dictionary.wiring.banks, dictionary.wiring.writes
    return len(banks) == len(writes) and all(
        len(bank.reads) == 1 and bank.writes == writes[s:] for s, bank in enumerate(banks)
    )


def _weights(dictionary: Dictionary) -> list[dict[str, Tensor]]:
    """The tensors of each bank under the names of a transcoder."""
    import torch

    from rkstore.dictionaries.layouts.filled import thresholds
    from rkstore.dictionaries.rows import split

    pools = thresholds(dictionary)
    theta = None if pools[0] is None else torch.cat([pool for pool in pools if pool is not None])
    biases = [part for _, part in split(dictionary.b_dec, dictionary.wiring.writes)]
    found: list[dict[str, Tensor]] = []
    first = 0
    for i, (bank, w) in enumerate(dictionary.banks):
        tensors = {"W_enc": w.W_enc.T, "W_dec": w.W_dec, "b_enc": w.b_enc, "b_dec": biases[i]}
        if theta is not None:
            tensors[THRESHOLD] = theta[first : first + bank.latents]
        if dictionary.wiring.skip:
            tensors["W_skip"] = dictionary.skip(i)
        found.append({name: x.detach().cpu().contiguous() for name, x in tensors.items()})
        first += bank.latents
    return found


def _write_set(dictionary: Dictionary, directory: Path) -> None:
    from safetensors.torch import save_file

    banks = dictionary.wiring.banks
    for bank, tensors in zip(banks, _weights(dictionary), strict=True):
        layer, _ = block_of(bank.reads[0].hook_name)
        save_file(tensors, directory / LAYER.format(layer))


def _write_clt(dictionary: Dictionary, directory: Path) -> None:
    from safetensors.torch import save_file

    width = dictionary.wiring.writes[0].width
    for s, w in enumerate(_weights(dictionary)):
        renamed = {f"W_enc_{s}": w["W_enc"], f"b_enc_{s}": w["b_enc"], f"b_dec_{s}": w["b_dec"]}
        if THRESHOLD in w:
            renamed[f"threshold_{s}"] = w[THRESHOLD]
        save_file(renamed, directory / ENCODER.format(s))
        by_layer = w["W_dec"].reshape(len(w["b_enc"]), -1, width)
        save_file({f"W_dec_{s}": by_layer}, directory / DECODER.format(s))
