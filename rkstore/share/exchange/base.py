"""The interface of exchange formats: opening foreign files, writing them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from rkstore.settings import Settings
from rkstore.share.exchange.facts import Facts
from rkstore.share.exchange.outgoing import Outgoing
from rkstore.store.sites import Site

if TYPE_CHECKING:
    from rkstore.share.settings import ImportSettings

Floats = NDArray[np.float32]

Column = Callable[[int, int], np.ndarray]
"""First row and one past the last → integers ``(rows,)``."""


@dataclass(frozen=True)
class Source:
    """Rows in files of another program: opened and checked, not yet in memory."""

    sites: tuple[Site, ...]
    arrays: dict[str, str]
    """The name of each site in the files."""
    rows: int
    read: Callable[[int, int], dict[str, Floats]]
    """First row and one past the last → float32 ``(rows, d_in)`` of every site."""
    files: dict[str, Path]
    """Every source file of the rows and columns, by its recorded name."""
    dtype: str
    """The dtype in the files."""
    columns: dict[str, Column] = field(default_factory=dict)
    """The columns that the files have."""
    context_size: int | None = None
    """Rows in a block, if the files say so."""
    facts: Facts | None = None
    """Of the store that the files were exported from, if they were."""


class Importer(Settings, ABC):
    """Opens one format. Its fields are its options."""

    name: ClassVar[str]

    @abstractmethod
    def open(self, path: Path, settings: "ImportSettings") -> Source:
        """Open files without reading their rows.

        Raises:
            BadInput: they are not of this format, truncated, or have a shape or dtype that
            activations cannot have.
        """


class Exporter(Settings, ABC):
    """Writes one format. Its fields are its options."""

    name: ClassVar[str]
    reserved: ClassVar[tuple[str, ...]] = ()
    """Names that a site cannot have in this format."""

    @abstractmethod
    def write(self, outgoing: Outgoing, out: Path) -> None:
        """Write sites, columns and facts to an empty directory, in bounded memory.

        Raises:
            BadInput: a value does not fit the dtype.
        """
