"""A program that hooks into a model, and gives activations under TransformerLens' names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Hooks change the order of some sums, and so the last bits of the logits. Anything larger is a
# different computation. Half precisions have eight or eleven significant bits.
SAME_LOGITS = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}

# Called with the output of a hook, ``(batch, position, ...)``, and its name, in the order of
# computation; gives what the model goes on with, or None for what is there.
At = Callable[["Tensor", str], "Tensor | None"]


class Capture(ABC):
    """A model of transformers with the hooks of one program.

    Whatever the program calls them, a hook has TransformerLens' name and gives its numbers. No
    weight is folded or centred, so a stored value is what the plain model computes.
    """

    name: ClassVar[str]

    libraries: ClassVar[tuple[str, ...]] = ()
    """Packages that it needs besides those of every harvest: a store records their versions."""

    plain: Any
    """The model of transformers."""

    @classmethod
    @abstractmethod
    def of(cls, name: str, plain: Any, words: Any) -> Capture:
        """The hooks of this program on a model.

        Args:
            name: of the model, on the Hub or a directory.
            words: its tokenizer.

        Raises:
            Exception: of any type, if the program cannot hook the model.
        """

    @abstractmethod
    def run(
        self, ids: Tensor, names: Iterable[str], at: At, *, logits: bool = False
    ) -> Tensor | None:
        """One pass over ``ids``, ``(batch, position)``, with ``at`` at each of the hooks.

        Returns:
            The logits ``(batch, position, vocabulary)`` if they are asked for.
        """

    @abstractmethod
    def everything(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and the output of every hook, in the order of computation."""

    @property
    @abstractmethod
    def hooks(self) -> Mapping[str, object]:
        """Every hook by name; two names of one hook have the same object."""

    @abstractmethod
    def module(self, hook_name: str) -> str:
        """The module of transformers that a hook is on, by its path; "" is the model."""

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        device: torch.device = self.plain.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> str:
        """Of the model: float32, bfloat16, float16."""
        return str(self.plain.dtype).removeprefix("torch.")

    @property
    def context(self) -> int:
        """The most tokens that the model sees at once; a model without such a bound says 2^31."""
        return int(getattr(self._config, "max_position_embeddings", None) or 2**31)

    @property
    def vocabulary(self) -> int:
        """Token ids that the model knows."""
        return int(self._config.vocab_size)

    @property
    def heads(self) -> set[int]:
        """How many heads queries have, and keys and values."""
        names = ("num_attention_heads", "num_key_value_heads")
        return {int(count) for name in names if (count := getattr(self._config, name, None))}

    @property
    def _config(self) -> Any:
        return self.plain.config.get_text_config()
