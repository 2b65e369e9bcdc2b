"""The interface of layouts: the files of a dictionary, as one program has them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rkstore.errors import BadInput
from rkstore.settings import Settings

if TYPE_CHECKING:  # the names of layouts are known without torch
    from rkstore.dictionaries.dictionary import Dictionary

# The sites of a dictionary whose files name none: what it reads, and what a transcoder writes.
UNNAMED, UNNAMED_OUT = "x", "y"


class Layout(Settings, ABC):
    """The files of a dictionary in one program's layout. Its fields are its options."""

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    """Patterns of the names of its files, such as ``layer_*.safetensors``, or several with ``|``
    between them: each fits at least one. Of a repository only these are fetched, and only these
    are pushed."""
    beside: ClassVar[tuple[str, ...]] = ()
    """Patterns of files that it may also have."""

    @classmethod
    def fitting(cls, names: Iterable[str]) -> list[str]:
        """Those of the names in a directory that may be of this layout."""
        return sorted(name for name in names if any(_fits(name, form) for form in cls.forms()))

    @classmethod
    def files_of(cls, names: Iterable[str]) -> list[str]:
        """The same, if all that it needs is among them; else none."""
        found = cls.fitting(names)
        whole = all(any(_fits(name, form) for name in found) for form in cls.files)
        return found if whole else []

    @classmethod
    def forms(cls) -> list[str]:
        """The patterns of all its files."""
        return [form for forms in (*cls.files, *cls.beside) for form in forms.split("|")]

    @abstractmethod
    def found(self, directory: Path) -> bool:
        """Whether a directory has this layout: by its file names, and by a key of its
        configuration where another layout has the same."""

    @abstractmethod
    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        """The dictionary, and its metadata under SAELens' names.

        Its weights are float32, folded so that it takes the raw rows of its sites. Sizes are
        compared with the configuration before memory is taken.

        Args:
            hook_name: of the rows that it reads, where the files do not say it; for a dictionary
                of several layers the part after the block.
            hook_name_out: of those that a transcoder writes.

        Raises:
            BadInput, ValueError, KeyError, TypeError, AttributeError, RuntimeError: the files are
                not what they say, a key or a tensor is not known, a value is not finite, or the
                files name another site than is given.
        """

    def refuses(self, dictionary: Dictionary) -> str | None:  # noqa: ARG002
        """Why this layout cannot hold a dictionary, as the end of a sentence; None if it can."""
        return "rkstore only reads this layout"

    def write(self, dictionary: Dictionary, directory: Path, metadata: dict[str, Any]) -> None:
        """Write a dictionary that it can hold to an existing directory.

        Args:
            metadata: as :meth:`read` returns it.
        """


def _fits(name: str, forms: str) -> bool:
    return any(fnmatchcase(name, form) for form in forms.split("|"))


def site_of(stated: str | None, given: str | None, unnamed: str = UNNAMED) -> str:
    """The name of a site: as the files state it, or as given where they do not.

    Raises:
        BadInput: the two differ.
    """
    if stated and given and stated != given:
        raise BadInput(f"it is of {stated}, not of {given}: leave --hook-name out")
    return stated or given or unnamed
