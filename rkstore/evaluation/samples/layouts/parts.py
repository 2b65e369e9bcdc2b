"""The latents of each layer: other programs know no dictionary of several."""

from __future__ import annotations

from dataclasses import dataclass

from rkstore.errors import BadInput
from rkstore.evaluation.samples.layouts.base import Subject
from rkstore.store.sites import block_of


@dataclass(frozen=True)
class Part:
    """The latents that read one site: a bank of a dictionary, or all of it."""

    hook_name: str
    """Without the name of a store, if the site is of one of two."""
    layer: int
    first: int
    stop: int
    """Its latents, counted in the dictionary."""

    @property
    def hook(self) -> str:
        """Its hook, without the block."""
        return block_of(self.hook_name)[1]


def parts_of(subject: Subject, program: str) -> list[Part]:
    """The banks of a dictionary, by layer.

    Raises:
        BadInput: one reads several sites, or a site outside of the blocks, or two read one layer.
    """
    found: list[Part] = []
    first = 0
    for bank in subject.dictionary.wiring.banks:
        names = [site.hook_name.rpartition(":")[2] for site in bank.reads]
        layer = block_of(names[0])[0]
        if len(names) > 1 or layer is None:
            raise BadInput(
                f"{subject.name} reads {', '.join(names)}, and {program} wants latents that read "
                "one site of one layer: write these samples with --to parquet"
            )
        if layer in {part.layer for part in found}:
            raise BadInput(
                f"two banks of {subject.name} read layer {layer}, and {program} has one a layer: "
                "write these samples with --to parquet"
            )
        found.append(Part(names[0], layer, first, first := first + bank.latents))
    return sorted(found, key=lambda part: part.layer)
