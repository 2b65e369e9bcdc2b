"""SAELens: ``cfg.json`` and ``sae_weights.safetensors``, of version 6.54 and of earlier ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.dictionaries.layouts.base import UNNAMED, UNNAMED_OUT, Layout, site_of
from rkstore.dictionaries.layouts.hooks import stated_site
from rkstore.dictionaries.layouts.saelens_config import (
    SCALER,
    WHITENING,
    Config,
    read_config,
    since_6,
)
from rkstore.dictionaries.layouts.saelens_record import of_bank, of_sites, record_of_training
from rkstore.dictionaries.layouts.tensors import open_safetensors, read_object, taken
from rkstore.dictionaries.rownorm import OF_INPUT
from rkstore.dictionaries.wirings.base import Bank, Wiring
from rkstore.errors import BadInput, few
from rkstore.store.sites import Site, of_head

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

# Since this version SAELens keeps everything not needed to run a dictionary in "metadata".
SAE_LENS_VERSION = "6.0.0"

# The architecture of a dictionary whose wiring only rkstore writes, under the same file names.
WIRED = "rkstore"

# The selects of transcoders, by SAELens' names.
OF_TRANSCODERS = {"standard": "", "jumprelu": "jumprelu_"}


class SAELens(Layout):
    """``sae_lens.SAE.load_from_disk`` loads what is written; what it saves is read.

    A dictionary of one bank a layer becomes a directory for each, named by what it reads.
    """

    name = "saelens"
    files = (CONFIG, WEIGHTS)
    beside = (SCALER, WHITENING)

    def found(self, directory: Path) -> bool:
        files = directory / CONFIG, directory / WEIGHTS
        return all(file.is_file() for file in files) and not is_wired(directory / CONFIG)

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        from rkstore.dictionaries.dictionary import Dictionary
        from rkstore.dictionaries.layouts.saelens_weights import fold, shapes_of
        from rkstore.dictionaries.selects import select_named

        config = read_config(read_object(directory / CONFIG))
        wiring = _wiring(config, hook_name, hook_name_out)
        opened = open_safetensors(directory / WEIGHTS)
        tensors = fold(taken(opened, *shapes_of(config)), config, directory)
        select = select_named(config.architecture.select, config.options)
        dictionary = Dictionary(wiring, select, config.row_norm)
        kept = dictionary.pools[0].state_dict()
        # On disk the select's state is next to the weights: SAELens has one flat list.
        named = {f"select.{k}" if k in kept else k: tensor for k, tensor in tensors.items()}
        dictionary.load_state_dict(named)
        return dictionary, config.metadata

    def refuses(self, dictionary: Dictionary) -> str | None:
        wiring = dictionary.wiring
        sites = [site for bank in wiring.banks for site in bank.writes]
        if any(len(bank.reads) > 1 for bank in wiring.banks):
            return "its latents read several sites, and SAELens has no crosscoders"
        if any(len(bank.writes) > 1 for bank in wiring.banks) or len({*sites}) < len(sites):
            return "its latents write several sites, and SAELens has no cross-layer transcoders"
        if wiring.together and len(wiring.banks) > 1:
            return "its banks share one select, and SAELens would take each for itself"
        if dictionary.row_norm == OF_INPUT:
            return f"SAELens has no {OF_INPUT}"
        if wiring.centred and wiring.skip:
            return "its encoder reads x - b_dec, and that of a transcoder in SAELens reads x"
        pool = dictionary.pools[0]
        select, _ = pool.rule.at_inference(pool, pool.latents)
        if select.architecture is None:
            return f"SAELens has no {select.name}"
        if wiring.norm != "none" and not select.by_latent:
            return (
                f"{select.name} ranks by decoder norms and keeps activations as they are, where "
                "SAELens multiplies them by the norms"
            )
        transcodes = any(_transcodes(dictionary, bank) for bank in wiring.banks)
        if transcodes and select.architecture not in OF_TRANSCODERS:
            return (
                f"SAELens has no transcoder with {select.name}, only with relu, jumprelu and "
                "batchtopk, which becomes jumprelu"
            )
        names = [bank.reads[0].hook_name for bank in wiring.banks]
        if len(names) > 1 and any("/" in name or name.startswith(".") for name in names):
            return f"of {few(names)} some cannot be names of directories"
        return None

    def write(self, dictionary: Dictionary, directory: Path, metadata: dict[str, Any]) -> None:
        from rkstore.dictionaries.layouts.apart import apart

        parts, first = apart(dictionary), 0
        for part in parts:
            bank = part.wiring.banks[0]
            at = directory / bank.reads[0].hook_name if len(parts) > 1 else directory
            at.mkdir(exist_ok=True)
            own = of_bank(metadata, first, bank.latents) if len(parts) > 1 else metadata
            said = {
                "sae_lens_training_version": None,
                **record_of_training(metadata, bank.latents),
                **own,
                **of_sites(bank, transcodes=_transcodes(part, bank)),
            }
            write_files(at, *config_and_tensors(part), said)
            first += bank.latents


def is_wired(config: Path) -> bool:
    """Whether a ``cfg.json`` has a wiring, which only rkstore writes."""
    try:
        return read_object(config).get("architecture") == WIRED
    except (OSError, ValueError, RecursionError):
        return False


def write_files(
    directory: Path, config: dict[str, Any], tensors: dict[str, Tensor], metadata: dict[str, Any]
) -> None:
    """Write the two files, of this layout or of rkstore's own."""
    from safetensors.torch import save_file

    config["metadata"] = {"sae_lens_version": SAE_LENS_VERSION} | metadata
    if not since_6(metadata):
        config["metadata"]["sae_lens_version"] = SAE_LENS_VERSION
    save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, directory / WEIGHTS)
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    (directory / CONFIG).write_text(text, "utf-8")


def config_and_tensors(dictionary: Dictionary) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What SAELens has for a dictionary of one bank: the configuration, and the tensors."""
    from rkstore.dictionaries.layouts.filled import at_inference

    wiring, (bank,) = dictionary.wiring, dictionary.wiring.banks
    ((select, kept),) = at_inference(dictionary)
    config: dict[str, Any] = {
        "architecture": select.architecture,
        "d_in": bank.d_in,
        "d_sae": bank.latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": wiring.centred,
        "normalize_activations": dictionary.row_norm,
        "reshape_activations": "none",
        **select.config(),
    }
    weights = {"b_dec": dictionary.b_dec} | dictionary.banks[0][1]._asdict()
    if _transcodes(dictionary, bank):
        skip = "skip_" if wiring.skip else ""
        config["architecture"] = f"{OF_TRANSCODERS[str(select.architecture)]}{skip}transcoder"
        config["d_out"] = bank.d_out
        weights |= {"W_skip": dictionary.skip(0)} if wiring.skip else {}
    return config, select.to_saelens(weights | kept)


def _transcodes(dictionary: Dictionary, bank: Bank) -> bool:
    """Whether a bank is a transcoder in SAELens: normalised rows are not undone there, either."""
    plain = dictionary.wiring.centred or dictionary.row_norm == "none"
    return bank.reads != bank.writes or dictionary.wiring.skip or not plain


def _wiring(config: Config, hook_name: str | None, hook_name_out: str | None) -> Wiring:
    """The bank of a file, which has one."""
    reads = (Site(_site(config.metadata, "", hook_name, UNNAMED), config.d_in),)
    if not config.architecture.transcoder:
        if hook_name_out:
            raise BadInput("it writes what it reads: leave --hook-name-out out")
        return Wiring((Bank(config.d_sae, reads, reads),), centred=True)
    writes = (Site(_site(config.metadata, "_out", hook_name_out, UNNAMED_OUT), config.d_out),)
    return Wiring((Bank(config.d_sae, reads, writes),), skip=config.architecture.skip)


def _site(metadata: dict[str, Any], end: str, given: str | None, unnamed: str) -> str:
    """A site: that of one head of a hook, if SAELens' ``hook_head_index`` says so.

    Args:
        end: of the keys: ``_out`` for what a transcoder writes.
    """
    hook_name, head = (metadata.get(f"{key}{end}") for key in ("hook_name", "hook_head_index"))
    module = metadata.get(f"hf_hook_name{end}")
    for key, name in ((f"hook_name{end}", hook_name), (f"hf_hook_name{end}", module)):
        if name is not None and not isinstance(name, str):
            raise BadInput(f"{key} is {name!r}, not the name of a hook")
    site = site_of(hook_name, given, unnamed) if hook_name else stated_site(module, given, unnamed)
    if head is None:
        return site
    if type(head) is not int or head < 0 or site == unnamed:
        raise BadInput(f"hook_head_index{end} is {head!r} of {site}, which is no head of a hook")
    return of_head(site, head)
