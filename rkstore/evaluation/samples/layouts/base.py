"""The interface of layouts, and what there is to write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from rkstore.settings import Settings

if TYPE_CHECKING:  # reading a layout's options must not import torch
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.evaluation.effects import Effects
    from rkstore.evaluation.samples.codes import Codes
    from rkstore.evaluation.samples.contexts import Contexts
    from rkstore.evaluation.samples.logits import Logits, OfLatent
    from rkstore.evaluation.samples.looking import Looking
    from rkstore.evaluation.samples.samples import Samples
    from rkstore.store.readable import Readable


@dataclass(frozen=True, eq=False)
class Subject:
    """A dictionary, and the rows of a store that are looked at."""

    store: Readable
    dictionary: Dictionary
    metadata: Mapping[str, Any]
    """Of the checkpoint."""
    name: str
    """Of the checkpoint, without its directories."""
    looking: Looking
    facts: Mapping[str, Any]
    """How samples are chosen, for JSON."""
    effects: Effects | None = field(default=None, kw_only=True)
    """On the logits, with the model."""

    @property
    def model_name(self) -> str:
        """The model of the store, as it is named on the Hub, without its owner."""
        model = self.store.manifest.source.get("model") or {}
        return str(model.get("name", "unknown")).rsplit("/", 1)[-1]


@dataclass(frozen=True, eq=False)
class Found(Subject):
    """The same, and what makes its latents fire."""

    samples: Samples
    codes: Codes
    """Of every row that was looked at."""

    @cached_property
    def contexts(self) -> Contexts:
        """The tokens around the samples."""
        from rkstore.evaluation.samples.contexts import contexts

        return contexts(self.store, self.samples)

    @cached_property
    def of_bands(self) -> NDArray[np.int64]:
        """See :attr:`Samples.of_bands`."""
        return self.samples.of_bands

    def logits_of(self, latent: int) -> OfLatent | None:
        """What a latent does to the logits; None without the model, or if it writes nothing."""
        return None if self._logits is None else self._logits.of_latent(latent)

    @cached_property
    def _logits(self) -> Logits | None:
        from rkstore.evaluation.samples.logits import Logits

        return None if self.effects is None else Logits.of(self.effects, self.store)

    @cached_property
    def words(self) -> dict[int, str]:
        """The words of the tokens around the samples, by ascending id."""
        from rkstore.evaluation.samples.contexts import words_of

        return words_of(self.store, self.contexts.tokens)

    @cached_property
    def pieces(self) -> dict[int, str | list[int]]:
        """The same tokens, a part of a character as its bytes."""
        return dict(zip(self.words, self.store.words.pieces(list(self.words)), strict=True))


class Layout(Settings, ABC):
    """Files in which samples are written. Its fields are its options."""

    name: ClassVar[str]
    has_logits: ClassVar[bool] = False
    """Whether it has a place for what latents do to the logits."""

    def check(self, subject: Subject) -> None:
        """Raise BadInput, before the pass, if such samples cannot be written so."""

    @abstractmethod
    def write(self, found: Found, out: Path) -> None:
        """Write to an empty directory.

        Raises:
            BadInput: something does not fit the layout.
        """
