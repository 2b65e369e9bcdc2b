"""sparsify: ``cfg.json`` and ``sae.safetensors``, in a folder for each hookpoint of a run.

TopK of the ReLU. An autoencoder's encoder reads ``x - b_dec``, a transcoder's ``x``; a skip reads
``x`` in both.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.dictionaries.layouts.base import UNNAMED, UNNAMED_OUT, Layout
from rkstore.dictionaries.layouts.hooks import stated_site
from rkstore.dictionaries.layouts.keys import check_known, choice, part, size
from rkstore.dictionaries.layouts.tensors import open_safetensors, read_object, taken
from rkstore.errors import BadInput, few
from rkstore.store.sites import Site

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.dictionaries.layouts.filled import Filling
    from rkstore.dictionaries.wirings import Bank

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"

# Keys that change a value, or a size.
OBEYED: tuple[str, ...] = ("activation", "d_in", "expansion_factor", "k", "num_latents", "signed")
OBEYED += ("skip_connection", "transcode", "metadata")

# How it was trained: its output does not depend on these.
WITHOUT_EFFECT = ("normalize_decoder", "multi_topk")

# What a hookpoint is called: a path of modules with the number of the layer.
HOOKPOINT = re.compile(r"(?:[A-Za-z_]+\.)+([0-9]+)(?:\.[A-Za-z_0-9.]+)?")


Given = tuple[str | None, ...]


class Sparsify(Layout):
    """``sparsify.SparseCoder.load_from_disk`` loads what is written; what it saves is read.

    A run of several hookpoints is one dictionary with a bank for each, which
    ``SparseCoder.load_many`` loads.
    """

    name = "sparsify"
    files = (CONFIG, WEIGHTS)

    def found(self, directory: Path) -> bool:
        return bool(_folders(directory))

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        import torch

        from rkstore.dictionaries.layouts.filled import filled, topk
        from rkstore.dictionaries.wirings import Wiring

        folders = _folders(directory)
        given, several = (hook_name, hook_name_out), len(folders) > 1
        coders = [_Coder(folder, given, of_several=several) for folder in folders]
        first = coders[0]
        for coder in coders[1:]:
            if coder.kind != first.kind:
                raise BadInput(
                    f"{coder.folder.name} is of another kind than {first.folder.name} (k, "
                    "transcode or skip_connection): give one of the folders"
                )
        banks, parts, biases = [], [], {}
        for coder in coders:
            tensors = coder.tensors()
            bank = coder.bank()
            banks.append(bank)
            parts.append(coder.filling(tensors))
            biases[bank.writes[0].hook_name] = tensors["b_dec"]
        if len(biases) < len(banks):
            raise BadInput(f"its folders are of the same site: give one of {few(list(biases))}")
        wiring = Wiring(tuple(banks), first.centred, together=len(banks) == 1, skip=first.skip)
        b_dec = torch.cat(list(biases.values()))
        metadata = dict(first.metadata)
        if len(banks) > 1:  # of one of them
            metadata = {k: x for k, x in metadata.items() if not k.startswith("hook_name")}
        return filled(wiring, topk(first.k), parts, b_dec), metadata

    def refuses(self, dictionary: Dictionary) -> str | None:
        wiring = dictionary.wiring
        if dictionary.pools[0].rule.name != "topk":
            return "sparsify has only topk"
        if len(dictionary.pools) != len(wiring.banks) or wiring.norm != "none":
            return "in sparsify latents compete within their hookpoint, by pre-activations alone"
        if dictionary.row_norm != "none":
            return f"sparsify has no {dictionary.row_norm}"
        for bank in wiring.banks:
            if len(bank.reads) > 1 or len(bank.writes) > 1 or bank.d_in != bank.d_out:
                return "in sparsify each latent reads one site, and writes one of the same width"
            if (bank.reads == bank.writes) != wiring.centred:
                return "in sparsify an autoencoder reads x - b_dec, and a transcoder x"
        if len(set(wiring.writes)) < len(wiring.banks) or (wiring.centred and wiring.skip):
            return "in sparsify each hookpoint has a site of its own, and an autoencoder no skip"
        return None

    def write(self, dictionary: Dictionary, directory: Path, metadata: dict[str, Any]) -> None:
        from safetensors.torch import save_file

        biases = dict(zip(dictionary.wiring.writes, _biases(dictionary), strict=True))
        for i, (bank, weights) in enumerate(dictionary.banks):
            folder = directory
            if len(dictionary.wiring.banks) > 1:
                folder = directory / bank.writes[0].hook_name
                folder.mkdir()
            tensors = {
                "encoder.weight": weights.W_enc.T,
                "encoder.bias": weights.b_enc,
                "W_dec": weights.W_dec,
                "b_dec": biases[bank.writes[0]],
            }
            if dictionary.wiring.skip:
                tensors["W_skip"] = dictionary.skip(i)
            plain = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
            save_file(plain, folder / WEIGHTS)
            config = _config(dictionary, bank, plain["W_dec"], metadata)
            text = json.dumps(config, indent=2, allow_nan=False) + "\n"
            (folder / CONFIG).write_text(text, "utf-8")


class _Coder:
    """One folder: what its configuration says.

    Before February 2025 transcoders subtracted ``b_dec``, too, and did not say ``transcode``.
    """

    def __init__(self, folder: Path, given: Given, *, of_several: bool) -> None:
        self.folder = folder
        config = read_object(folder / CONFIG)
        check_known(config, (*OBEYED, *WITHOUT_EFFECT))
        choice(config, "activation", ("topk",))
        choice(config, "signed", (False,))
        self.skip: bool = choice(config, "skip_connection", (False, True))
        self.subtracts: bool = not choice(config, "transcode", (False, True))
        early = "transcode" not in config and (self.skip or given[1] is not None)
        self.transcodes = early or not self.subtracts
        self.k, self.d_in = size(config, "k"), size(config, "d_in")
        self.latents = config.get("num_latents") or self.d_in * size(config, "expansion_factor")
        size({"num_latents": self.latents}, "num_latents")
        self.metadata = part(config, "metadata")
        found = HOOKPOINT.fullmatch(folder.name)
        self.words = folder.name if found or of_several else None
        if of_several and found:
            given = tuple(name and f"blocks.{found[1]}.{name}" for name in given)
        self.given = given

    @property
    def kind(self) -> tuple[int, bool, bool, bool]:
        """What the folders of one dictionary share."""
        return self.k, self.skip, self.subtracts, self.transcodes

    @property
    def centred(self) -> bool:
        """Whether the encoder can read ``x - b_dec``; a skip would read it, too."""
        return self.subtracts and not self.transcodes and not self.skip

    def tensors(self) -> dict[str, Tensor]:
        due = {
            "encoder.weight": (self.latents, self.d_in),
            "encoder.bias": (self.latents,),
            "W_dec": (self.latents, self.d_in),
            "b_dec": (self.d_in,),
        }
        if self.skip:
            due["W_skip"] = (self.d_in, self.d_in)
        tensors = taken(open_safetensors(self.folder / WEIGHTS), due)
        return {name: tensor.double() for name, tensor in tensors.items()}

    def filling(self, w: dict[str, Tensor]) -> Filling:
        from rkstore.dictionaries.layouts.filled import Filling

        W_enc, b_enc = w["encoder.weight"].T, w["encoder.bias"]
        if self.subtracts and not self.centred:
            b_enc = b_enc - w["b_dec"] @ W_enc
        return Filling(W_enc, b_enc, w["W_dec"], w.get("W_skip"))

    def bank(self) -> Bank:
        """The latents, and the sites as the files or the folder's name say, or as given."""
        from rkstore.dictionaries.wirings import Bank

        given, given_out = self.given
        reads, writes = (self.metadata.get(key) for key in ("hook_name", "hook_name_out"))
        if not self.transcodes:
            if given_out is not None:
                raise BadInput(f"transcode in {CONFIG} is false: it writes what it reads")
            site = Site(stated_site(reads or self.words, given, UNNAMED), self.d_in)
            return Bank(self.latents, (site,), (site,))
        if self.words and not reads and not given:
            raise BadInput(
                f"it is of {self.words}, from its input to its output, and which hooks these are "
                "depends on the model: give both"
            )
        read = Site(stated_site(reads, given, UNNAMED), self.d_in)
        written = stated_site(writes or self.words, given_out, UNNAMED_OUT)
        return Bank(self.latents, (read,), (Site(written, self.d_in),))


def _folders(directory: Path) -> list[Path]:
    """The folders of the hookpoints, in the order of their layers: the directory itself, or those
    in it."""
    if _holds(directory):
        return [directory]
    if not directory.is_dir():
        return []
    found = [folder for folder in directory.iterdir() if folder.is_dir() and _holds(folder)]
    return sorted(found, key=lambda folder: [_number(x) for x in re.split(r"(\d+)", folder.name)])


def _number(piece: str) -> tuple[int, str]:
    return (int(piece), "") if piece.isdecimal() else (-1, piece)


def _holds(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def _biases(dictionary: Dictionary) -> list[Tensor]:
    from rkstore.dictionaries.rows import split

    return [part for _, part in split(dictionary.b_dec, dictionary.wiring.writes)]


def _config(
    dictionary: Dictionary, bank: Bank, W_dec: Tensor, metadata: dict[str, Any]
) -> dict[str, Any]:
    norms = W_dec.norm(dim=1)
    named = {"hook_name": bank.reads[0].hook_name}
    if bank.reads != bank.writes:
        named["hook_name_out"] = bank.writes[0].hook_name
    return {
        "activation": "topk",
        "expansion_factor": max(1, bank.latents // bank.d_in),
        "normalize_decoder": bool((norms - 1).abs().max() < 1e-5),
        "num_latents": bank.latents,
        "k": dict(dictionary.pools[0].rule)["k"],
        "multi_topk": False,
        "skip_connection": dictionary.wiring.skip,
        "transcode": not dictionary.wiring.centred,
        "d_in": bank.d_in,
        "metadata": metadata | named,
    }
