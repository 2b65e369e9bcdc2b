"""TransformerLens' hooks (``blocks.8.mlp.hook_post``); nothing else of it is used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rkstore.harvest.capture.base import At, Capture

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TransformerLens(Capture):
    """A TransformerBridge around the model."""

    name = "transformer-lens"

    def __init__(self, bridge: Any) -> None:
        self.bridge = bridge
        self.plain = bridge.original_model

    @classmethod
    def of(cls, name: str, plain: Any, words: Any) -> TransformerLens:
        from transformer_lens.model_bridge import TransformerBridge

        spread = getattr(plain, "hf_device_map", None) is not None
        bridge = TransformerBridge.boot_transformers(
            name,
            device=None if spread else str(plain.device),
            dtype=plain.dtype,
            # A copy: the bridge adds the special tokens that a tokenizer lacks.
            tokenizer=copy.deepcopy(words),
            hf_model=plain,
        )
        bridge.eval()
        return cls(bridge)

    def run(
        self, ids: Tensor, names: Iterable[str], at: At, *, logits: bool = False
    ) -> Tensor | None:
        import torch

        # The bridge may use an alias of a hook.
        def named(name: str) -> Callable[..., Any]:
            def apply(x: Any, hook: Any) -> Any:  # noqa: ARG001 - named by the library
                if not isinstance(x, tuple):
                    return at(x, name)
                new = at(x[0], name)
                return None if new is None else (new, *x[1:])

            return apply

        hooks = [(name, named(name)) for name in names]
        with torch.inference_mode(), self.bridge.hooks(fwd_hooks=hooks):
            found: Tensor | None = self.bridge(ids, return_type="logits" if logits else None)
        return found

    def everything(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        with torch.inference_mode():
            logits, cache = self.bridge.run_with_cache(ids)
        return logits, dict(cache.items())

    @property
    def hooks(self) -> Mapping[str, object]:
        found: Mapping[str, object] = self.bridge.hook_dict
        return found

    def module(self, hook_name: str) -> str:
        owner = hook_name.rpartition(".")[0]
        component = self.bridge.get_submodule(owner)
        component = getattr(component, "original_component", None) or component
        paths = {id(module): path for path, module in self.plain.named_modules()}
        # The bridge puts itself around a module, and the module under this name.
        path: str = paths.get(id(component), owner)
        return path.replace("._original_component", "")

    @property
    def device(self) -> torch.device:
        import torch

        return torch.device(self.bridge.cfg.device)

    @property
    def dtype(self) -> str:
        return str(self.bridge.cfg.dtype).removeprefix("torch.")

    @property
    def context(self) -> int:
        return int(self.bridge.cfg.n_ctx)

    @property
    def vocabulary(self) -> int:
        return int(self.bridge.cfg.d_vocab)

    @property
    def heads(self) -> set[int]:
        counts = (getattr(self.bridge.cfg, n, None) for n in ("n_heads", "n_key_value_heads"))
        return {int(count) for count in counts if count}
