"""PyTorch's hooks on the modules of a plain model, wherever the hooks of a program are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rkstore.harvest.capture.base import SAME_LOGITS, At, Capture

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Place:
    """What goes into a module, or comes out of it."""

    module: str
    """Its path; "" is the model."""
    output: bool
    heads: int = 0
    """Of how many heads the last axis consists, if it does."""
    changed: bool = False
    """Whether the model changes the tensor in place later."""


class OnModules(Capture):
    """A model whose hooks are what goes into its modules, and what comes out of them."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        self._modules: dict[str, torch.nn.Module] = dict(plain.named_modules())
        places = self.places()
        changed = self._changed(places.values())
        self._hooks = {name: replace(p, changed=p in changed) for name, p in places.items()}

    @abstractmethod
    def places(self) -> dict[str, Place]:
        """Where the hooks are, by TransformerLens' names."""

    @property
    def hooks(self) -> Mapping[str, Place]:
        return self._hooks

    def run(
        self, ids: Tensor, names: Iterable[str], at: At, *, logits: bool = False
    ) -> Tensor | None:
        import torch

        with ExitStack() as hooked, torch.inference_mode():
            for name in names:
                handle = self._hook(self._hooks[name], partial(_named, at, name))
                hooked.callback(handle.remove)
            found: Tensor = self.plain(ids, use_cache=False).logits
        return found if logits else None

    def everything(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        found: dict[str, Tensor] = {}
        logits = self.run(ids, self._hooks, lambda x, name: found.update({name: x}), logits=True)
        assert logits is not None
        return logits, found

    def module(self, hook_name: str) -> str:
        return self._hooks[hook_name].module

    def _hook(self, place: Place, at: Callable[[Tensor], Tensor | None]) -> Any:
        """Hook into a place, and return what removes it."""
        module = self._modules[place.module]

        def changed(x: Tensor) -> Tensor:
            seen = x.clone() if place.changed else x
            new = at(seen.reshape(*x.shape[:-1], place.heads, -1) if place.heads else seen)
            return x if new is None else new.reshape(x.shape)

        def of_output(_: Any, __: Any, x: Any) -> Any:
            return (changed(x[0]), *x[1:]) if isinstance(x, tuple) else changed(x)

        def of_input(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if given:
                return (changed(given[0]), *given[1:]), named
            first = "hidden_states" if "hidden_states" in named else next(iter(named))
            return given, named | {first: changed(named[first])}

        if place.output:
            return module.register_forward_hook(of_output)
        return module.register_forward_pre_hook(of_input, with_kwargs=True)

    def _values(self, places: Iterable[Place]) -> dict[Place, Tensor]:
        """What a pass gives at some places, float32; on the meta device nothing."""
        found: dict[Place, Tensor] = {}
        # Copied at once: what a model computes later may change a tensor in place.
        self._pass(places, lambda place, x: found.update({place: x.float().cpu().clone()}))
        return found

    def _adds_up(self, before: Tensor, added: Sequence[Tensor], after: Tensor) -> bool:
        """Whether what is added to a stream makes what comes after, for most tokens.

        Not for all: the first token of some models is so large that its rounding hides the rest.
        """
        if any(x.shape != before.shape for x in (*added, after)):
            return False
        update = sum(added[1:], added[0])
        error, size = (x.norm(dim=-1) for x in (before + update - after, update))
        return bool((error / size.clamp_min(1e-30)).median() <= SAME_LOGITS[self.dtype])

    def _changed(self, places: Iterable[Place]) -> set[Place]:
        """Where a pass changes a tensor in place after it was there."""
        import torch

        seen: dict[Place, tuple[Tensor, Tensor]] = {}
        self._pass(places, lambda place, x: seen.update({place: (x, x.clone())}))
        return {place for place, (x, then) in seen.items() if not torch.equal(x, then)}

    def _pass(self, places: Iterable[Place], keep: Callable[[Place, Tensor], None]) -> None:
        """A pass over probe tokens; on the meta device, where there are no numbers, none."""
        import torch

        from rkstore.harvest.capture.examine import probes

        if self.device.type == "meta":
            return
        with ExitStack() as hooked, torch.inference_mode():
            for place in set(places):
                handle = self._hook(place, partial(keep, place))
                hooked.callback(handle.remove)
            self.plain(probes(self.plain)[0], use_cache=False)

    def _path(self, module: torch.nn.Module) -> str:
        return next(path for path, other in self._modules.items() if other is module)


def _named(at: At, name: str, x: Tensor) -> Tensor | None:
    return at(x, name)
