"""The result of a probe."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from rkstore.errors import BadInput
from rkstore.store.files import named, write_together
from rkstore.store.jsontext import existing

TENSORS, DESCRIPTION = "probe.safetensors", "probe.json"
NAMES = ("top_subsets", "top_scores", "all_subsets", "all_scores", "top_directions", "parents")


@dataclass(frozen=True, eq=False)
class RkCNNResult:
    """Subsets of dimensions, their scores, and the directions of the best of them."""

    top_subsets: torch.Tensor
    """``(r, m)`` int64: the subsets kept, best first; several rounds are concatenated.

    Dimensions, or columns of rotations as :func:`rkstore.rkcnn.basis_of` reads them."""
    top_scores: torch.Tensor
    """``(r,)`` float32."""
    all_subsets: torch.Tensor
    """``(h, m)`` int64, in the order in which they were drawn."""
    all_scores: torch.Tensor
    """``(h,)`` float32; NaN where the score of a subset is undefined."""
    top_directions: torch.Tensor | None = None
    """``(r, d_model)`` float32, of norm 1; None if not requested."""
    parents: torch.Tensor | None = None
    """int64: for each direction the row of ``top_subsets`` it comes from; None if it is its own."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The settings of the probe."""
    source: dict[str, Any] = field(default_factory=dict)
    """Which rows were probed: fingerprint and hook name if they come from a store."""

    def get_top_k(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The best ``k`` subsets, ``(k, m)``, and their scores, ``(k,)``; at most ``r``."""
        return self.top_subsets[:k], self.top_scores[:k]

    def summary(self) -> dict[str, Any]:
        """The distribution of the scores, and the threshold of the selection."""
        scores = self.all_scores.double()
        defined = scores[~scores.isnan()]
        return {
            "subsets": len(scores),
            "undefined": len(scores) - len(defined),
            "kept": len(self.top_scores),
            "highest": float(self.top_scores.max()),
            "lowest_kept": float(self.top_scores.min()),
            "mean": float(defined.mean()),
            "standard_deviation": float(defined.std(correction=0)),
            "lowest": float(defined.min()),
        }

    def save(self, path: str | Path) -> None:
        """Write ``probe.safetensors`` and then ``probe.json`` into a directory.

        Each is written to a temporary name and renamed, so neither is ever incomplete; the same
        result gives the same bytes.

        Raises:
            BadInput: the path is a file.
            RkstoreError: the disk is full or failed.
        """
        path = named(path)
        if path.exists() and not path.is_dir():
            raise BadInput(f"{path} is a file: choose a directory for the result")
        found = {name: getattr(self, name) for name in NAMES}
        tensors = save({name: t.cpu().contiguous() for name, t in found.items() if t is not None})
        described = {
            "settings": self.settings,
            "source": self.source,
            "scores": existing(self.summary()),
            "sha256": _sha256(tensors),
        }
        text = json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_together({path / TENSORS: tensors, path / DESCRIPTION: text.encode()})

    @classmethod
    def load(cls, path: str | Path) -> "RkCNNResult":
        """Read what :meth:`save` wrote.

        Raises:
            BadInput: there is no complete result in that directory.
        """
        path = named(path)
        if not (path / TENSORS).is_file() or not (path / DESCRIPTION).is_file():
            raise BadInput(
                f"{path} holds no probe ({DESCRIPTION} and {TENSORS}): "
                "give a directory that 'rkstore probe' wrote"
            )
        try:
            raw = (path / TENSORS).read_bytes()
            described = json.loads((path / DESCRIPTION).read_text("utf-8"))
            # Results of version 0.1 have no digest.
            if described.get("sha256", _sha256(raw)) != _sha256(raw):
                raise ValueError(f"{TENSORS} is not the one that {DESCRIPTION} was written with")
            tensors = load(raw)
            return cls(
                **{name: tensors[name] for name in NAMES if name in tensors},
                settings=described["settings"],
                source=described["source"],
            )
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise BadInput(f"cannot read the probe in {path} ({error}): probe again") from None


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
