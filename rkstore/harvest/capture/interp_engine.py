"""interp-engine's table of where each activation is, over the architectures that it knows.

Its eager points alone: a model that vLLM runs has no modules of transformers to hook into. The
names are mapped by interp-engine's own mapper to TransformerLens' (version 1.14).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rkstore.errors import BadInput
from rkstore.harvest.capture.modules import OnModules, Place
from rkstore.store.sites import block_of

if TYPE_CHECKING:
    from torch import Tensor

# Its points with one row a token; the rest are of pairs of tokens, or several tensors in one.
POINTS = (
    *("resid_pre", "attn_in", "z", "attn_out", "attn_out_post", "resid_mid", "mlp_in", "mlp_pre"),
    *("mlp_pre_linear", "mlp_act", "mlp_out", "mlp_out_post", "resid_post"),
)

WHOLE = ("attn.hook_out", "mlp.hook_out")
ADDED = ("hook_attn_out", "hook_mlp_out")


class InterpEngine(OnModules):
    """A model of transformers, with the places that interp-engine finds."""

    name = "interp-engine"
    libraries = ("interp-engine",)

    def __init__(self, plain: Any, engine: Any) -> None:
        self._engine = engine
        super().__init__(plain)

    @classmethod
    def of(cls, name: str, plain: Any, words: Any) -> InterpEngine:
        try:
            from interp_engine.model import EagerModel
        except ImportError:
            raise BadInput(
                "--capture interp-engine needs a package: pip install 'rkstore[interp-engine]'"
            ) from None
        return cls(plain, EagerModel(name, hf_model=plain, tokenizer=words))

    def places(self) -> dict[str, Place]:
        from interp_engine.mappers import point_to_tlens_hook

        blocks: list[dict[str, Place]] = []
        for layer in range(self._engine.n_layers):
            blocks.append({})
            for point in POINTS:
                if self._engine.refuses(point, layer) is None:
                    module, side = self._engine.resolve_point(point, layer)
                    heads = self._config.num_attention_heads if point == "z" else 0
                    part = block_of(point_to_tlens_hook(point, layer))[1]
                    blocks[-1][part] = Place(self._path(module), side == "output", heads)
        x = self._values(place for block in blocks for place in block.values())
        return {
            f"blocks.{layer}.{part}": place
            for layer, block in enumerate(blocks)
            for part, place in block.items()
            if self._is_named(part, block, x)
        }

    def _is_named(self, part: str, block: dict[str, Place], x: dict[Place, Tensor]) -> bool:
        """Whether TransformerLens calls that place by that name.

        Its ``attn.hook_out`` is the output of the module, which on BLOOM has the residual in it.
        """
        if part in ADDED:
            return self._added(block, x)
        inside = block[part].module.removeprefix(f"{block['hook_resid_pre'].module}.")
        return part not in WHOLE or "." not in inside

    def _added(self, block: dict[str, Place], x: dict[Place, Tensor]) -> bool:
        """Whether what the names say is added to the residual stream is: not on Granite."""
        names = ("hook_resid_pre", *ADDED, "hook_resid_post")
        if not block.keys() >= set(names):
            return False
        before, attention, mlp, after = (x[block[name]] for name in names)
        return self._adds_up(before, [attention, mlp], after)
