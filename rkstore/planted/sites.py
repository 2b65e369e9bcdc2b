"""At which sites each feature lies, for every kind of planted store."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.planted.settings import PlantSettings
from rkstore.store.sites import Pair

Flags = NDArray[np.bool_]

# What an MLP reads and writes, and the residual stream after a block, in TransformerLens's names.
READS, WRITES = "blocks.{}.mlp.hook_in", "blocks.{}.hook_mlp_out"
STREAM = "blocks.{}.hook_resid_post"

# The two models of the kind ``models``, by their stores' directories.
MODELS = ("base", "chat")


@dataclass(frozen=True, eq=False)
class PlantedSite:
    """A site, and the features that are part of its rows."""

    hook_name: str
    width: int
    has: Flags
    """``(F,)``"""
    model: str = ""
    """``base`` or ``chat`` if there are two models, else empty."""

    @property
    def name(self) -> str:
        """Its name among the sites of both models: ``base:blocks.0.hook_resid_post``."""
        return f"{self.model}:{self.hook_name}" if self.model else self.hook_name


def planted_sites(
    settings: PlantSettings, features: int, generator: np.random.Generator
) -> tuple[PlantedSite, ...]:
    """The sites of a kind; for ``layers``, each layer's input before its output.

    Raises:
        BadInput: ``d_in`` lists neither one width nor one for each site; or a site has no
            feature.
    """
    named = _names(settings)
    widths = settings.d_in * len(named) if len(settings.d_in) == 1 else settings.d_in
    if len(widths) != len(named):
        raise BadInput(
            f"--d-in is given {len(widths)} times: give it once, or once for each of the "
            f"{len(named)} sites of --kind {settings.kind}"
        )
    has = _membership(settings, features, generator)
    for (hook_name, model), flags in zip(named, has, strict=True):
        if not flags.any():
            name = f"{model}:{hook_name}" if model else hook_name
            raise BadInput(f"--features is {features}, of which {name} has none: give more")
    return tuple(
        PlantedSite(hook_name, width, flags, model)
        for (hook_name, model), width, flags in zip(named, widths, has, strict=True)
    )


def pairs_of(settings: PlantSettings) -> tuple[Pair, ...]:
    """Which site each MLP reads and which it writes."""
    layers = {"transcoder": 1, "layers": settings.layers or 0}.get(settings.kind, 0)
    return tuple(Pair("mlp", n, READS.format(n), WRITES.format(n)) for n in range(layers))


def _names(settings: PlantSettings) -> list[tuple[str, str]]:
    """Hook and model of every site."""
    if settings.kind == "models":
        return [(STREAM.format(0), model) for model in MODELS]
    if settings.kind in ("transcoder", "layers"):
        pairs = pairs_of(settings)
        return [(hook_name, "") for pair in pairs for hook_name in (pair.reads, pair.writes)]
    return [(STREAM.format(n), "") for n in range(settings.layers or 1)]


def _membership(
    settings: PlantSettings, features: int, generator: np.random.Generator
) -> list[Flags]:
    """For every site, which features are part of its rows."""
    everywhere = np.ones(features, bool)
    if settings.kind == "layers":
        layers = settings.layers or 0
        begins = generator.permutation(np.arange(features) % layers)  # equally many in each
        return [flags for n in range(layers) for flags in (begins == n, begins <= n)]
    if settings.exclusive is None:
        return [everywhere] * len(_names(settings))
    return list(_spans(len(_names(settings)), features, settings.exclusive, generator))


def _spans(
    sites: int, features: int, exclusive: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """``(sites, F)``: each exclusive feature lies at adjacent sites, not all; others at all."""
    spans = [(a, b) for a in range(sites) for b in range(a + 1, sites + 1) if b - a < sites]
    has = np.ones((sites, features), bool)
    count = round(exclusive * features)
    for feature, span in zip(
        generator.permutation(features)[:count],
        generator.permutation(np.arange(count) % len(spans)),
        strict=True,
    ):
        first, last = spans[span]
        has[:, feature] = False
        has[first:last, feature] = True
    return has
