"""Selects: which latents of a pre-activation stay on. One file each.

To add one, write its file and add it to ``SELECTS``.
"""

from collections.abc import Mapping
from typing import Any

from rkstore.dictionaries.selects.abstopk import AbsTopK
from rkstore.dictionaries.selects.base import Select
from rkstore.dictionaries.selects.batchtopk import BatchTopK
from rkstore.dictionaries.selects.gated import Gated
from rkstore.dictionaries.selects.jumprelu import JumpReLU
from rkstore.dictionaries.selects.relu import ReLU
from rkstore.dictionaries.selects.topk import TopK
from rkstore.settings import member_named

SELECTS: dict[str, type[Select]] = {
    select.name: select for select in (ReLU, TopK, BatchTopK, JumpReLU, Gated, AbsTopK)
}
"""What ``--select`` offers, by name."""


def select_named(name: str, options: Mapping[str, Any]) -> Select:
    """The select of that name, with its options: :func:`member_named`."""
    return member_named("dictionary", SELECTS, name, options)


__all__ = ["SELECTS", "Select", "select_named"]
