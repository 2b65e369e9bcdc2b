"""PyTorch's hooks on the modules of a plain model, for models that TransformerLens cannot hook.

The modules are found by the names that transformers gives them. What is added to the residual
stream is found by adding: on some models it is the output of the MLP, on others of a norm behind
it. Where nothing adds up, the hook is not offered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, product
from typing import TYPE_CHECKING, Any

from rkstore.harvest.capture.modules import OnModules, Place

if TYPE_CHECKING:
    from torch import Tensor

# How transformers names the parts of a block, and the last matrix of attention and of the MLP.
ATTENTION = ("self_attn", "attn", "attention", "self_attention")
MLP = ("mlp", "feed_forward", "ffn")
ATTENTION_OUT = ("o_proj", "c_proj", "out_proj", "dense")
MLP_OUT = ("down_proj", "c_proj", "dense_4h_to_h", "fc_out", "fc2")


class Transformers(OnModules):
    """A model of transformers as it is."""

    name = "transformers"

    @classmethod
    def of(cls, name: str, plain: Any, words: Any) -> Transformers:  # noqa: ARG003
        return cls(plain)

    def places(self) -> dict[str, Place]:
        blocks = self._blocks()
        parts = [self._parts(block) for block in blocks]
        norms = [self._norms(block) for block in blocks]
        x = self._values(chain(*(found.values() for found in parts), *norms))
        named: dict[str, Place] = {}
        for number, (found, near) in enumerate(zip(parts, norms, strict=True)):
            # On the meta device there is nothing to add.
            found |= self._added(found, near, x) if x else {}
            named |= {f"blocks.{number}.{part}": place for part, place in found.items()}
        if head := self.plain.get_output_embeddings():
            named["unembed.hook_in"] = Place(self._path(head), output=False)
        return named

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
        behind = [place for place in norms if place.output]
        before, after = (x[parts[name]] for name in ("hook_resid_pre", "hook_resid_post"))
        for attention, mlp in product(
            (parts["attn.hook_out"], *behind), (parts["mlp.hook_out"], *behind)
        ):
            if attention != mlp and self._adds_up(before, [x[attention], x[mlp]], after):
                break
        else:
            return {}
        added = {"hook_attn_out": attention, "hook_mlp_out": mlp}
        reading = (*(place for place in norms if not place.output), parts["mlp.hook_in"])
        between = (place for place in reading if self._adds_up(before, [x[attention]], x[place]))
        middle = next(between, None)
        return added | ({"hook_resid_mid": middle} if middle else {})

    def _child(self, path: str, names: Iterable[str]) -> str | None:
        """The path of the module of one of these names in another."""
        children = self._children(path)
        return next((f"{path}.{name}" for name in names if name in children), None)

    def _children(self, path: str) -> list[str]:
        return [name for name, _ in self._modules[path].named_children()]
