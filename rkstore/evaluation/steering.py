"""Latents of two models, added to each: which one they move, and whether a map carries them over.

Two tests of whether a latent belongs to one model (arXiv 2602.11729). A latent that writes to one
model alone cannot move the other. And if the other lacks what it stands for, then an affine map
between the two models, learned from their rows, should not carry it over: the vector that the map
makes of it should not change the predictions of the other model as the latent changes those of its
own. Beside them stand random vectors of the same norm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from rkstore.dictionaries.rows import Rows
from rkstore.errors import BadInput
from rkstore.evaluation.evaluate import calibration_rows
from rkstore.evaluation.metrics.base import decoder_of
from rkstore.evaluation.metrics.decoders import relative_norms
from rkstore.evaluation.passes import Given
from rkstore.evaluation.predictions import Estimate, Reference, ratio
from rkstore.evaluation.splices import Add
from rkstore.store.statistics import Statistics

if TYPE_CHECKING:
    from rkstore.evaluation.functional import Functional, Loaded

# Relative decoder norms of the latents of the first model, of both, and of the second.
FIRST, SHARED, SECOND = (0.9, 1.0), (0.3, 0.7), (0.0, 0.1)

# Rows of the training chunks that the map is fitted to, and blocks that latents are added on.
MAP_ROWS, STEERED_BLOCKS = 16_384, 2

RANDOM_GROUP = "random"


@dataclass(frozen=True)
class SteeringEvaluation:
    """What the latents of one group do when they are added, each by itself, mean over them.

    Intervals are over the latents, if there are 20.
    """

    group: str
    """Whose they are: the name of one model, ``shared``, or ``random`` vectors."""
    latents: int
    moved: Mapping[str, Estimate | None]
    """By model: ``KL(clean ‖ with the latent)``, nats for each token; 0 where it does not write."""
    carried: Mapping[str, Estimate | None]
    """By model whose vector is mapped: cosine of what it changes in the log probabilities of its
    own model, and what its image changes in those of the other, mean over tokens."""

    def as_dict(self) -> dict[str, Any]:
        """Every number, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Affine:
    """The least-squares map ``y = x M + c`` from the rows of one site to those of another."""

    M: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> "Affine":
        """The map for rows ``(n, width)`` of the same tokens, in float64."""
        x, y = (rows.double() - rows.double().mean(dim=0) for rows in (x, y))
        # By the pseudo-inverse: rows may lie in fewer dimensions than they have.
        return cls((torch.linalg.pinv(x.T @ x, hermitian=True) @ (x.T @ y)).float())

    def of_vector(self, v: Tensor) -> Tensor:
        """What is added to a mapped row if ``v`` is added to the row."""
        return v @ self.M


@dataclass(frozen=True)
class _Latent:
    """A latent of a group, as the vector that it adds in each model that it writes to."""

    group: str
    vectors: Mapping[str, Tensor]
    """By prefix of the model."""


class Steering:
    """The latents of one dictionary of two models, ready to be added.

    Args:
        functional: with both models.
        given: the dictionary.

    Raises:
        BadInput: it is not of one site of each of two models.
    """

    def __init__(self, functional: "Functional", given: Given) -> None:
        self.functional, self.given = functional, given
        sites = [
            (loaded.prefix, [site for site in given.writes if site.startswith(loaded.prefix)])
            for loaded in functional.models
        ]
        if len(sites) != 2 or any(len(own) != 1 for _, own in sites):
            raise BadInput(
                f"--steer adds latents to two models, and {given.name} is not of one site of each: "
                "leave out --steer, or give the second store with --paired-with"
            )
        self.sites = {prefix: own[0] for prefix, own in sites}
        rows = calibration_rows(
            functional.store, tuple(given.sites), functional.settings, most=MAP_ROWS
        )
        first, second = self.sites
        a, b = (rows[site] for site in self.sites.values())
        self._maps = {first: (second, Affine.of(a, b)), second: (first, Affine.of(b, a))}
        self.latents = self._chosen(rows)

    def run(self) -> tuple[SteeringEvaluation, ...]:
        """Add each latent to both models, and what the maps make of it to the other one."""
        sums = [_Sums() for _ in self.latents]
        blocks = len(self.functional.blocks)
        several = np.linspace(0, blocks - 1, min(STEERED_BLOCKS, blocks)).round().astype(int)
        total = len(several) * len(self.latents)
        with tqdm(total=total, unit="latent", desc="steer", disable=None) as bar:
            for block in several:
                here = slice(int(block), int(block) + 1)
                tokens, batch, clean = self.functional.clean(here)
                chosen = batch.chosen(self.given)
                held_out = self.functional.blocks.held_out[here].reshape(-1)
                measured = torch.from_numpy(held_out).to(chosen.device) & chosen
                references = dict(zip(self.sites, clean, strict=True))
                for latent, found in zip(self.latents, sums, strict=True):
                    self._add(latent, found, tokens, references, chosen, measured)
                    bar.update()
        groups = dict.fromkeys(latent.group for latent in self.latents)
        return tuple(self._of_group(group, sums) for group in groups)

    def _add(
        self,
        latent: _Latent,
        found: "_Sums",
        tokens: NDArray[np.int64],
        references: Mapping[str, Reference],
        chosen: Tensor,
        measured: Tensor,
    ) -> None:
        """The passes of one latent over one block."""

        def changed(prefix: str, vector: Tensor) -> tuple[Tensor, Tensor]:
            site, loaded = self.sites[prefix], self._loaded(prefix)
            logits = loaded.logits(tokens, [site], Add(site, vector, chosen))
            kl = torch.from_numpy(references[prefix].compared(logits).kl)
            change = references[prefix].change(logits)
            return kl[measured.cpu()], (change - change.mean(dim=-1, keepdim=True))[measured]

        for prefix in self.sites:
            if prefix not in latent.vectors:
                found.moved.setdefault(prefix, []).append(0.0)
                continue
            kl, change = changed(prefix, latent.vectors[prefix])
            found.moved.setdefault(prefix, []).append(float(kl.mean()))
            other, by = self._maps[prefix]
            _, there = changed(other, by.of_vector(latent.vectors[prefix]))
            alike = F.cosine_similarity(change, there, dim=-1).double().mean().item()
            found.carried.setdefault(prefix, []).append(alike)

    def _loaded(self, prefix: str) -> "Loaded":
        return next(one for one in self.functional.models if one.prefix == prefix)

    def _chosen(self, rows: Rows) -> list[_Latent]:
        """Latents of each group that fire, drawn at random, and random vectors like them."""
        dictionary, settings = self.given.dictionary, self.functional.settings
        generator = torch.Generator().manual_seed(settings.seed)
        with torch.inference_mode():
            f = dictionary.encode(rows)
        f = f.amax(dim=0) if f.dim() > 2 else f
        often = (f != 0).sum(dim=0)
        strength = f.sum(dim=0) / often.clamp_min(1)
        statistics = {site: Statistics.of(rows[site].cpu().numpy()) for site in self.given.writes}
        share = torch.from_numpy(relative_norms(dictionary, statistics)).to(f.device)
        first, second = self.sites
        decoder = decoder_of(dictionary)
        found: list[_Latent] = []
        for group, (least, most) in ((first, FIRST), (second, SECOND), ("shared", SHARED)):
            fitting = ((share >= least) & (share <= most) & (often > 0)).nonzero()[:, 0].cpu()
            order = torch.randperm(len(fitting), generator=generator)
            for j in fitting[order[: settings.steer]].tolist():
                vectors = {
                    prefix: strength[j] * decoder[site][j]
                    for prefix, site in self.sites.items()
                    if decoder[site][j].any()
                }
                found.append(_Latent(group.rstrip(":"), vectors))
        return found + self._random(found, generator)

    def _random(self, found: Sequence[_Latent], generator: torch.Generator) -> list[_Latent]:
        """Random vectors, each with the norm that some latent has in that model."""
        made = []
        norms = {
            prefix: [one.vectors[prefix].norm() for one in found if prefix in one.vectors]
            for prefix in self.sites
        }
        for i in range(self.functional.settings.steer or 0):
            vectors = {}
            for prefix, site in self.sites.items():
                if norms[prefix]:
                    width = self.functional.store.manifest.width(site)
                    direction = F.normalize(torch.randn(width, generator=generator), dim=0)
                    norm = norms[prefix][i % len(norms[prefix])]
                    vectors[prefix] = direction.to(norm.device) * norm
            made.append(_Latent(RANDOM_GROUP, vectors))
        return made

    def _of_group(self, group: str, sums: Sequence["_Sums"]) -> SteeringEvaluation:
        own = [found for one, found in zip(self.latents, sums, strict=True) if one.group == group]

        def mean(part: str) -> dict[str, Estimate | None]:
            """Over the latents that have such a number, by the name of the model."""
            found: dict[str, Estimate | None] = {}
            for prefix in self.sites:
                of_latents = (getattr(one, part).get(prefix) for one in own)
                known = np.array([np.mean(blocks) for blocks in of_latents if blocks])
                if len(known):
                    one = np.ones(len(known))
                    found[prefix.rstrip(":")] = ratio(known, one, np.arange(len(known)))
            return found

        return SteeringEvaluation(group, len(own), mean("moved"), mean("carried"))


class _Sums:
    """What one latent did on each block, by prefix of the model."""

    def __init__(self) -> None:
        self.moved: dict[str, list[float]] = {}
        self.carried: dict[str, list[float]] = {}
