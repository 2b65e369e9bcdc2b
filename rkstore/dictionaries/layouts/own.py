"""rkstore's own layout: any wiring as JSON, with the banks' tensors under their names.

It has the file names of SAELens, and an ``architecture`` that SAELens refuses.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.dictionaries.layouts.base import Layout
from rkstore.dictionaries.layouts.saelens import CONFIG, WEIGHTS, WIRED, is_wired, write_files
from rkstore.dictionaries.layouts.tensors import check_finite, read_object
from rkstore.errors import BadInput

if TYPE_CHECKING:
    from rkstore.dictionaries.dictionary import Dictionary


class Own(Layout):
    """The layout of dictionaries that no other program has one for."""

    name = "rkstore"
    files = (CONFIG, WEIGHTS)

    def found(self, directory: Path) -> bool:
        return (directory / WEIGHTS).is_file() and is_wired(directory / CONFIG)

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        from safetensors.torch import load_file

        from rkstore.dictionaries.dictionary import Dictionary
        from rkstore.dictionaries.selects import select_named
        from rkstore.dictionaries.wirings import Wiring

        if hook_name or hook_name_out:
            raise BadInput("it names its sites itself: leave --hook-name out")
        document = read_object(directory / CONFIG)
        wiring, tensors = Wiring.from_dict(document["wiring"]), load_file(directory / WEIGHTS)
        kept = ("select", "units")  # what is no weight
        weights = [tensor.numel() for name, tensor in tensors.items() if not name.startswith(kept)]
        if sum(weights) != wiring.parameters:  # before memory is allocated
            raise BadInput("its tensors do not fit its wiring")
        check_finite(tensors)
        options = dict(document["select"])
        select = select_named(options.pop("name"), options)
        dictionary = Dictionary(wiring, select, document["normalize_activations"])
        if wiring.norm != "none" and tensors["units"].dim() == 2:  # one a latent: affine.py
            dictionary.register_buffer("units", dictionary.units_of_latents().clone())
        dictionary.load_state_dict(tensors)
        return dictionary, dict(document["metadata"])

    def refuses(self, dictionary: Dictionary) -> str | None:  # noqa: ARG002
        return None

    def write(self, dictionary: Dictionary, directory: Path, metadata: dict[str, Any]) -> None:
        rule = dictionary.pools[0].rule
        config = {
            "architecture": WIRED,
            "d_sae": dictionary.d_sae,
            "wiring": dictionary.wiring.as_dict(),
            "select": {"name": rule.name}
            | {key: value for key, value in rule if key not in rule.of_training},
            "normalize_activations": dictionary.row_norm,
        }
        write_files(directory, config, dictionary.state_dict(), metadata)
