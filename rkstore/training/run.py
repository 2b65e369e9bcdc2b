"""The state of a training run, and how it is prepared."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.prefixes import Prefixes
from rkstore.dictionaries.selects import SELECTS, Select
from rkstore.dictionaries.wirings import WIRINGS, Wiring
from rkstore.dictionaries.world import ALONE, World
from rkstore.errors import BadInput
from rkstore.rkcnn.mine import probed
from rkstore.settings import check_device, identity_of
from rkstore.store.batches.kept import at_any, left_out
from rkstore.store.batches.plan import BatchPlan, split_chunks
from rkstore.store.open import open_readable
from rkstore.store.readable import Readable
from rkstore.store.sites import Site
from rkstore.training.average import check_average, start_average
from rkstore.training.controls import CONTROLS, PLAIN, Control, check_control
from rkstore.training.dead import dead_after
from rkstore.training.fast import Scratch
from rkstore.training.from_trained import begin_at
from rkstore.training.helpers import HELPERS, Helper
from rkstore.training.helpers.auxk import AuxK
from rkstore.training.inits import initialise
from rkstore.training.naming import (
    check_name,
    checkpoint_of,
    default_name,
    parent_of,
    tree_of,
)
from rkstore.training.objective import Objective
from rkstore.training.optim import Adam, check_clip
from rkstore.training.reading import Reading, normalised
from rkstore.training.schedules import check_schedules
from rkstore.training.settings import TrainSettings, directions_given
from rkstore.training.sitenorms import SITE_NORMS
from rkstore.training.sites import Sites, sites_of

# Settings that the identity replaces by their result: the sites, and digests.
RESOLVED = ("layer", "layers", "hook", "hook_out", "pair", "directions", "from_")


@dataclass(eq=False)
class Run:
    """A training run between two steps: everything that the next step depends on."""

    settings: TrainSettings
    reading: Reading
    dictionary: Dictionary
    objective: Objective
    optimizer: Adam
    step: int = 0
    idle: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Tokens since each latent last fired, ``(d_sae,)`` int64."""
    history: list[dict[str, Any]] = field(default_factory=list)
    scratch: Scratch = field(default_factory=Scratch)
    held: dict[str, Tensor] = field(default_factory=dict)
    """What else the next step depends on: the average of the weights, where a control began."""
    directions: str | None = None
    """Digest of the directions of a probe that it was initialised with."""
    begun: str | None = None
    """Digest of the trained dictionary that it started from."""
    world: World = ALONE
    """The processes that train it."""
    whole: "Run | None" = None
    """The run of all latents, if this one has some of them and is of the first process."""
    mined: list[tuple[int, int]] = field(default_factory=list)
    """Latents that began as mined directions, see :func:`initialise`."""

    @property
    def trained(self) -> list[tuple[str, Parameter]]:
        """The parameters that learn, by name."""
        return [(name, p) for name, p in self.dictionary.named_parameters() if p.requires_grad]

    @property
    def control(self) -> Control:
        """Which control arm it is."""
        return CONTROLS.get(self.settings.control, PLAIN)

    @property
    def by_latent(self) -> bool:
        """Whether each process has some of the latents, and not some of the rows."""
        return self.settings.shard_latents and self.world.size > 1

    @property
    def over_rows(self) -> World:
        """The processes that the rows of a batch are spread over."""
        return ALONE if self.by_latent else self.world

    @property
    def across(self) -> World:
        """The processes that the latents are spread over."""
        return self.world if self.by_latent else ALONE

    def constrain(self, dictionary: Dictionary) -> None:
        """Bring weights of this run back to what is allowed, after a step."""
        # What is frozen must not change, not even by a rounding.
        kept = dictionary is self.dictionary and self.optimizer.keeps_unit
        if self.settings.unit_decoder and self.control.frozen != "W_dec" and not kept:
            dictionary.normalise_decoder()
        self.control.constrain(dictionary, self.held)
        for pool in dictionary.pools:
            pool.constrain()

    @property
    def store(self) -> Readable:
        """The store that it reads."""
        return self.reading.store

    @property
    def hook_name(self) -> str:
        """The site, or the sites, that it reads."""
        return _joined(self.dictionary.wiring.reads)

    @property
    def hook_name_out(self) -> str | None:
        """The site, or the sites, that it writes; None if it writes what it reads."""
        wiring = self.dictionary.wiring
        return None if wiring.writes == wiring.reads else _joined(wiring.writes)

    @property
    def dead_after(self) -> int:
        """Tokens without firing after which a latent is dead."""
        return dead_after(self.settings.dead_after, self._tokens)

    @cached_property
    def _tokens(self) -> int:
        return self.plan.rows_before(self.settings.steps)

    @property
    def plan(self) -> BatchPlan:
        """Which rows the run sees at which step."""
        return self.reading.plan(self.settings.batch_size, self.data_seed)

    @property
    def shares(self) -> tuple[float, ...]:
        """The prefixes of the batch of this step."""
        return self.objective.prefixes.at(self.step, self.settings.seed)

    @cached_property
    def select(self) -> Select:
        """The select as its options say; at a step its dictionary has that of ``Select.at``."""
        return self.settings.options(SELECTS[self.settings.dictionary])

    @cached_property
    def name(self) -> str:
        """Its name, with / for directories."""
        return self.settings.name or default_name(self.identity)

    @property
    def finished(self) -> bool:
        """Whether it has made its last step."""
        return self.step == self.settings.steps

    @property
    def data_seed(self) -> int:
        """The seed that the order of the rows depends on."""
        chosen = self.settings.data_seed
        return self.settings.seed if chosen is None else chosen

    @property
    def identity(self) -> dict[str, Any]:
        """The options that identify the run."""
        chosen = {
            key: list(value) if isinstance(value, tuple) else value  # as JSON gives it back
            for key, value in identity_of(self.settings).items()
            if key not in RESOLVED
        }
        if chosen["wiring"] == "sae":  # as in runs from before there were others
            del chosen["wiring"]
        rows = [self.store.first_row, self.store.stop_row]
        given = {"directions_sha256": self.directions} if self.directions else {}
        given |= {"init": "from", "from_sha256": self.begun} if self.begun else {}
        given |= {"hook_out": self.hook_name_out} if self.hook_name_out else {}
        return (chosen | given) | {
            "hook": self.hook_name,
            "store_fingerprint": self.store.manifest.fingerprint,
            # A part with all rows of the site gives the same training as the whole store.
            "store_rows": self.store.rows if rows == [0, self.store.rows] else rows,
        }

    def directory(self, step: int) -> Path:
        """Where the checkpoint of a step is written."""
        return checkpoint_of(self.parent, self.name, step)

    @property
    def parent(self) -> Path:
        """The directory of this model's runs."""
        tree = tree_of(WIRINGS[self.settings.wiring])
        return parent_of(self.settings.out, self.model["name"], tree)

    @property
    def model(self) -> dict[str, Any]:
        """The model of the activations: name, and digest of the weights if known."""
        found = self.store.manifest.source.get("model", {})
        return {key: found.get(key) for key in ("name", "weights_sha256")}


def prepare(settings: TrainSettings) -> Run:
    """Open the store and make the dictionary, initialised, at step 0.

    Raises:
        BadInput: a setting does not fit the store.
    """
    check_device(settings.device)
    if settings.name is not None:
        check_name(settings.name)
    store = open_readable(settings.store, settings.paired_with)
    given = directions_given(settings)
    found = None if given is None else probed(given, store)
    reads, writes = sites_of(settings, store, found)
    wiring = _wiring(settings, reads, writes)
    reading = replace(_reading(settings, store, wiring.sites), order=settings.order)
    prefixes = Prefixes(settings.prefixes, settings.prefix_order, settings.prefix_draws)
    select = settings.options(SELECTS[settings.dictionary])
    helpers = [settings.options(helper) for helper in HELPERS.values()]
    for helper in helpers:
        helper.check(wiring)
    asked_for = [helper for helper in helpers if helper.asked_for]
    _check_together(settings, select, asked_for)
    dictionary = Dictionary(wiring, select)
    begun, mined = None, list[tuple[int, int]]()
    if settings.from_ is None:
        given_directions = None if found is None else found.directions
        mined = initialise(dictionary, reading, settings, given_directions)
    else:
        begun = begin_at(settings.from_, dictionary, reading, unit_decoder=settings.unit_decoder)
    dictionary.to(settings.device)
    control = CONTROLS.get(settings.control, PLAIN)
    control.freeze(dictionary)
    return Run(
        settings,
        reading,
        dictionary,
        Objective(prefixes, asked_for),
        Adam(
            [p for p in dictionary.parameters() if p.requires_grad],
            settings.lr,
            [weights.W_dec for _, weights in dictionary.banks] if settings.unit_decoder else (),
        ),
        idle=torch.zeros(wiring.latents, dtype=torch.int64, device=settings.device),
        held=control.start(dictionary)
        | ({} if settings.ema is None else start_average(dictionary)),
        directions=None if found is None else found.sha256,
        begun=begun,
        mined=mined,
    )


def _check_together(settings: TrainSettings, select: Select, helpers: Sequence[Helper]) -> None:
    """Raise BadInput if two options defeat each other, or one does not fit the steps."""
    check_schedules(settings)
    select.check_run(settings.steps)
    check_clip(settings.clip)
    check_average(settings)
    check_control(settings)
    if settings.from_ is not None and directions_given(settings) is not None:
        raise BadInput("--from takes the place of an --init: leave out --directions")
    penalised = [f"the penalty of a {settings.dictionary} code"] if select.penalised else []
    penalised += [f"--{helper.name}" for helper in helpers if helper.penalised]
    if penalised and not settings.unit_decoder and settings.code_norm == "none":
        raise BadInput(
            f"{penalised[0]} could be evaded by a small code and a "
            "large decoder: with --no-unit-decoder give a --code-norm, such as sae"
        )
    for helper in helpers:
        if helper.order not in (None, settings.order):
            raise BadInput(
                f"--{helper.name} compares rows that are beside each other, which they are only in "
                f"batches of {helper.order}: add --order {helper.order}"
            )
    if settings.options(AuxK).auxk_levels and settings.prefix_order != "latents":
        raise BadInput(
            "--auxk-levels needs prefixes that are slices of the latents: leave out --prefix-order"
        )


def _wiring(settings: TrainSettings, reads: Sites, writes: Sites) -> Wiring:
    """The banks over these sites."""
    width = max(site.width for site in reads)
    latents = settings.d_sae or int(width * settings.expansion)
    wiring = settings.options(WIRINGS[settings.wiring]).over(reads, writes, latents)
    return replace(wiring, norm=settings.code_norm)


def _reading(settings: TrainSettings, store: Readable, sites: tuple[Site, ...]) -> Reading:
    """The data of the run, normalised as ``--norm`` says."""
    chunks, _ = split_chunks(store)
    rows = [
        left_out(
            store,
            site.hook_name,
            chunks,
            special_tokens=settings.special_tokens,
            max_norm=settings.max_norm,
        )
        for site in sites
    ]
    reading = Reading(store, sites, chunks, left_out=at_any(rows))
    return normalised(reading, settings.options(SITE_NORMS[settings.norm]))


def _joined(sites: Sites) -> str:
    return ",".join(site.hook_name for site in sites)
