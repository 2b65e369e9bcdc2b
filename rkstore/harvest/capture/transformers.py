"""PyTorch's hooks on the modules of a plain model, for models that TransformerLens cannot hook.

The modules are found by the names that transformers gives them. What is added to the residual
stream is found by adding: on some models it is the output of the MLP, on others of a norm behind
it. Where nothing adds up, the hook is not offered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from typing import TYPE_CHECKING, Any

from rkstore.harvest.capture.base import SAME_LOGITS, At, Capture

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# How transformers names the parts of a block, and the last matrix of attention and of the MLP.
ATTENTION = ("self_attn", "attn", "attention", "self_attention")
MLP = ("mlp", "feed_forward", "ffn")
ATTENTION_OUT = ("o_proj", "c_proj", "out_proj", "dense")
MLP_OUT = ("down_proj", "c_proj", "dense_4h_to_h", "fc_out", "fc2")


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


class Transformers(Capture):
    """A model of transformers as it is."""

    name = "transformers"

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        self._modules: dict[str, torch.nn.Module] = dict(plain.named_modules())
        self._hooks = self._named()

    @classmethod
    def of(cls, name: str, plain: Any, words: Any) -> Transformers:  # noqa: ARG003
        return cls(plain)

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

    def _named(self) -> dict[str, Place]:
        """The hooks, by TransformerLens' names."""
        blocks = self._blocks()
        parts = [self._parts(block) for block in blocks]
        norms = [self._norms(block) for block in blocks]
        named_parts = [place for found in parts for place in found.values()]
        x, changed = self._seen({*named_parts, *chain.from_iterable(norms)})
        named: dict[str, Place] = {}
        for number, (found, near) in enumerate(zip(parts, norms, strict=True)):
            # On the meta device there is nothing to add.
            found |= self._added(found, near, x) if x else {}
            named |= {f"blocks.{number}.{part}": place for part, place in found.items()}
        if head := self.plain.get_output_embeddings():
            named["unembed.hook_in"] = Place(self._path(head), output=False)
        return {name: replace(place, changed=place in changed) for name, place in named.items()}

    def _blocks(self) -> list[str]:
        """The paths of the blocks, in order: the first list of as many modules as layers."""
        import torch

        layers = self._config.num_hidden_layers
        for path, module in self._modules.items():
            if isinstance(module, torch.nn.ModuleList) and len(module) == layers:
                return [f"{path}.{i}" for i in range(layers)]
        raise ValueError(f"it has no list of {layers} blocks")

    def _parts(self, block: str) -> dict[str, Place]:
        """The places in a block that names tell."""
        found = {"hook_resid_pre": Place(block, output=False)}
        attention, mlp = self._child(block, ATTENTION), self._child(block, MLP)
        for part, module in (("attn", attention), ("mlp", mlp)):
            if module:
                found[f"{part}.hook_in"] = Place(module, output=False)
                found[f"{part}.hook_out"] = Place(module, output=True)
        if attention and (out := self._child(attention, ATTENTION_OUT)):
            found["attn.hook_z"] = Place(out, output=False, heads=self._config.num_attention_heads)
        if out := self._child(mlp or block, MLP_OUT):
            found["mlp.hook_post"] = Place(out, output=False)
        return found | {"hook_resid_post": Place(block, output=True)}

    def _norms(self, block: str) -> list[Place]:
        """What the norms of a block read and give."""
        norms = [p for p in self._children(block) if "norm" in p or p.startswith("ln")]
        return [Place(f"{block}.{p}", output=side) for p in norms for side in (False, True)]

    def _added(
        self, parts: Mapping[str, Place], norms: list[Place], x: Mapping[Place, Tensor]
    ) -> dict[str, Place]:
        """What attention and MLP add to the residual stream, and the stream between them.

        Each is its module's output or, with a norm behind it, that norm's: whichever adds up.
        """
        if not {"attn.hook_out", "mlp.hook_out"} <= parts.keys():
            return {}
        bound = SAME_LOGITS[self.dtype]
        behind = [place for place in norms if place.output]
        before, after = (x[parts[name]] for name in ("hook_resid_pre", "hook_resid_post"))
        for attention, mlp in product(
            (parts["attn.hook_out"], *behind), (parts["mlp.hook_out"], *behind)
        ):
            if attention != mlp and _same(before, x[attention] + x[mlp], after, bound):
                break
        else:
            return {}
        added = {"hook_attn_out": attention, "hook_mlp_out": mlp}
        reading = (*(place for place in norms if not place.output), parts["mlp.hook_in"])
        between = (place for place in reading if _same(before, x[attention], x[place], bound))
        middle = next(between, None)
        return added | ({"hook_resid_mid": middle} if middle else {})

    def _seen(self, places: Iterable[Place]) -> tuple[dict[Place, Tensor], set[Place]]:
        """What a pass over probe tokens gives at some places, and where it is changed later."""
        import torch

        from rkstore.harvest.capture.examine import probes

        found: dict[Place, tuple[Tensor, Tensor]] = {}
        if self.device.type == "meta":
            return {}, set()

        def keep(place: Place, x: Tensor) -> None:
            found[place] = x, x.clone()

        with ExitStack() as hooked, torch.inference_mode():
            for place in places:
                handle = self._hook(replace(place, heads=0), partial(keep, place))
                hooked.callback(handle.remove)
            self.plain(probes(self.plain)[0], use_cache=False)
            changed = {place for place, (x, then) in found.items() if not torch.equal(x, then)}
        return {place: then.float().cpu() for place, (_, then) in found.items()}, changed

    def _child(self, path: str, names: Iterable[str]) -> str | None:
        """The path of the module of one of these names in another."""
        children = self._children(path)
        return next((f"{path}.{name}" for name in names if name in children), None)

    def _children(self, path: str) -> list[str]:
        return [name for name, _ in self._modules[path].named_children()]

    def _path(self, module: torch.nn.Module) -> str:
        return next(path for path, other in self._modules.items() if other is module)


def _named(at: At, name: str, x: Tensor) -> Tensor | None:
    return at(x, name)


def _same(before: Tensor, added: Tensor, after: Tensor, bound: float) -> bool:
    """Whether ``before + added`` is ``after``, for most tokens.

    Not for all: the first token of some models is so large that its rounding hides what is added.
    """
    if not before.shape == added.shape == after.shape:
        return False
    error, size = (x.norm(dim=-1) for x in (before + added - after, added))
    return bool((error / size.clamp_min(1e-30)).median() <= bound)
