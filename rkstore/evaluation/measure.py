"""What a dictionary scores on rows: sums over batches, and the metrics they give."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.prefixes import WHOLE, Prefixes
from rkstore.dictionaries.rows import Rows
from rkstore.errors import BadInput
from rkstore.evaluation.metrics.base import Given, Integers, Metric, Seen, Totals, fires
from rkstore.evaluation.metrics.decoders import norm_histogram, relative_norms
from rkstore.evaluation.metrics.prefixes import PrefixEvaluation, PrefixSums
from rkstore.evaluation.metrics.reconstruction import ReconstructionSums, SiteEvaluation
from rkstore.evaluation.metrics.sparsity import DENSITY_EDGES, density_of
from rkstore.store.jsontext import existing
from rkstore.store.statistics import Statistics

__all__ = ["DENSITY_EDGES", "Evaluation", "Measure", "PrefixEvaluation", "SiteEvaluation", "fires"]


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one dictionary on held-out rows of the sites that it reads and writes.

    ``y`` is what is to be reconstructed: the input of an autoencoder, the target of a transcoder.
    Several written sites are one vector, side by side, so the FVU is ``Σ errors / Σ variations``
    and sites of large activations decide it; ``sites`` has each by itself.
    """

    name: str
    """The shortest suffix of the checkpoint's path that no other checkpoint has."""
    hook_name: str
    """The site that is read; several are joined by commas."""
    rows: int
    d_in: int
    """Width of all sites that are read."""
    d_sae: int
    l0: float
    """Latents that are on, mean over tokens; with a code per site, on at any of them."""
    dead: int
    """Latents that fired on none of the ``rows`` tokens, which are the window."""
    dense: int
    """Latents that fired on more than a tenth of the tokens."""
    fvu: float
    """Σ‖y - ŷ‖² / Σ‖y - μ‖², with μ the mean of all rows evaluated."""
    mse: float
    """Mean over tokens of ‖y - ŷ‖²."""
    cosine: float
    """Mean cosine of y and ŷ over the tokens with y ≠ 0; the cosine is 0 where ŷ = 0."""
    norm_ratio: float
    """Mean of ‖ŷ‖ / ‖y‖ over the same tokens; below 1 the dictionary shrinks what it writes."""
    codec_fvu: float
    """FVU of the stored values themselves, which limits the accuracy of ``fvu``."""
    density: tuple[int, ...]
    """Latents that never fired, then the latents in each bin of ``DENSITY_EDGES`` (log10 of the
    fraction of tokens; the first bin includes everything rarer).
    """
    zero_rows: int
    """Tokens with y = 0, which ``cosine`` and ``norm_ratio`` leave out."""
    codec_mse: float = 0.0
    """MSE of the stored values themselves."""
    bias: float = 1.0
    """``E‖ŷ‖² / E⟨y, ŷ⟩``, the relative reconstruction bias: below 1 the dictionary shrinks what it
    writes (Rajamanoharan et al. 2024, arXiv 2404.16014, eq. 10)."""
    left_out: int = 0
    """Held-out rows not measured: of special tokens, or with a norm above ``--max-norm``."""
    rows_sha256: str = ""
    """SHA-256 of the numbers of the rows measured, int64, little-endian."""
    dead_mined: int | None = None
    """Of the dead latents, those that began as mined directions; None if none is recorded."""
    path: str = ""
    """The checkpoint, as the caller named it."""
    notes: tuple[str, ...] = ()
    """Reasons to doubt the comparison: another text, weights that are not verified."""
    hook_name_out: str = ""
    """The site that is written, or several, if they are not those that are read."""
    sites: Mapping[str, SiteEvaluation] = field(default_factory=dict)
    """Each written site, if there are several."""
    of_prefix: tuple[PrefixEvaluation, ...] = ()
    """Each prefix of a nested dictionary (Matryoshka), from the shortest; the last is all of it."""
    relative_norms: tuple[int, ...] = ()
    """If two sites are written: latents by ``a / (a + b)``, in bins of a tenth, with ``a`` and
    ``b`` the norms of a latent's decoder rows at the first and at the second site, each divided
    by the root mean square norm of the site's rows. 0.5 is a latent of both, 1 one of the first.
    Latents that write to neither are in no bin. (Lindsey et al. 2024, "Sparse Crosscoders";
    Minder et al. 2025, arXiv 2504.02922.)
    """
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """The numbers of each of :data:`rkstore.evaluation.metrics.METRICS`, by its name."""
    chance: "Evaluation | None" = None
    """What a random dictionary of the same shape scores (``chance.py``)."""

    @property
    def explained_variance(self) -> float:
        """1 - FVU: 1 for the identity, 0 for the mean of all rows."""
        return 1 - self.fvu

    @property
    def dead_share(self) -> float:
        return self.dead / self.d_sae

    def as_dict(self) -> dict[str, Any]:
        """Every metric, for JSON; None for one that is not finite.

        What an autoencoder of one site does not have is left out.
        """
        # Not those of the metrics, each of which has a key of its own.
        numbers = asdict(replace(self, metrics={}, chance=None)) | {
            "explained_variance": self.explained_variance,
            "dead_share": self.dead_share,
        }
        for key in ("hook_name_out", "sites", "of_prefix", "relative_norms", "metrics"):
            if not numbers[key]:
                del numbers[key]
        for key in ("dead_mined", "chance"):
            if numbers[key] is None:
                del numbers[key]
        numbers |= {name: asdict(found) for name, found in self.metrics.items()}
        if self.chance:
            numbers["chance"] = self.chance.as_dict()
        found: dict[str, Any] = existing(numbers)
        return found


class Measure:
    """The sums over batches behind an :class:`Evaluation`, in float64.

    Rows and reconstructions come from the same batch, so they cannot be mispaired: comparing
    shuffled reconstructions with unshuffled inputs once turned an explained variance of +0.90
    into -0.90.

    Args:
        prefixes: those that the dictionary was trained with.
        metrics: what to measure besides reconstruction and firing; each that applies.
        given: what these metrics may know; by default the dictionary alone.

    Raises:
        BadInput: it has prefixes, and normalises its rows.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        prefixes: Prefixes = WHOLE,
        metrics: Sequence[type[Metric]] = (),
        given: Given | None = None,
    ) -> None:
        if not prefixes.whole and dictionary.row_norm != "none":
            raise BadInput(
                f"prefixes of a dictionary of rows under {dictionary.row_norm} cannot be measured"
            )
        self.dictionary = dictionary
        self.prefixes = PrefixSums(dictionary, prefixes)
        self.fired = torch.zeros(dictionary.d_sae, dtype=torch.int64)
        """Tokens that each latent fired on."""
        self.whole = ReconstructionSums()
        self.by_site = {site.hook_name: ReconstructionSums() for site in dictionary.wiring.writes}
        self.statistics: dict[str, Statistics] = {}
        given = given or Given(dictionary)
        self.metrics = [metric(given) for metric in metrics if metric.applies(given)]

    @torch.no_grad()
    def add(
        self,
        x: Tensor | Rows,
        *,
        first: int | None = None,
        numbers: Integers | None = None,
        documents: Integers | None = None,
    ) -> None:
        """Measure one batch: activations ``(n, d_in)``, by name of all sites read and written.

        A tensor stands for the only site of an autoencoder.

        Args:
            first: how many of the rows evaluated are before the first of these, in the order of
                the store; by default those added so far.
            numbers: row numbers in the store, ``(n,)``.
            documents: of each row, ``(n,)``.
        """
        wiring = self.dictionary.wiring
        rows = {wiring.sites[0].hook_name: x} if isinstance(x, Tensor) else x
        for site in wiring.writes:
            if site.hook_name not in rows:
                raise BadInput(f"the dictionary writes {site.hook_name}, which is missing")
        f, decoded = self.prefixes.reconstruct(rows)
        decoded = {name: decoded[name] for name in self.by_site}
        first = self.rows if first is None else first
        seen = Seen(self.dictionary, rows, f, decoded, first, numbers, documents)
        self.fired += seen.fired.cpu()
        for name, sums in self.by_site.items():
            sums.add(seen.compared[name])
            self._count(name, Statistics.of(rows[name].cpu().numpy()))
        self.whole.add(seen.together)
        for metric in self.metrics:
            metric.add(seen)

    def _count(self, hook_name: str, here: Statistics) -> None:
        before = self.statistics.get(hook_name)
        self.statistics[hook_name] = before.merge(here) if before else here

    def merge(self, other: "Measure") -> None:
        """Add the sums over other rows, by the same dictionary."""
        self.fired += other.fired
        self.whole.merge(other.whole)
        self.prefixes.merge(other.prefixes)
        for name, sums in other.by_site.items():
            self.by_site[name].merge(sums)
        for name, here in other.statistics.items():
            self._count(name, here)
        for mine, theirs in zip(self.metrics, other.metrics, strict=True):
            mine.merge(theirs)

    @torch.no_grad()
    def result(self, name: str, codec_fvu: Mapping[str, float]) -> Evaluation:
        """The metrics over all rows added so far.

        Args:
            codec_fvu: of the written sites.

        Raises:
            BadInput: all rows of a written site are identical.
        """
        wiring, n, fired = self.dictionary.wiring, self.rows, self.fired.numpy()
        reads, writes = (
            ",".join(site.hook_name for site in sites) for sites in (wiring.reads, wiring.writes)
        )
        totals = Totals(n, fired, self.statistics, codec_fvu)
        variations = {site: self._variation(site) for site in self.by_site}
        variation = sum(variations.values())
        by_site = {
            site: sums.result(n, variations[site], codec_fvu[site])
            for site, sums in self.by_site.items()
        }
        several = len(by_site) > 1
        lost = sum(codec_fvu[site] * part for site, part in variations.items())
        whole = self.whole.result(n, variation, lost / variation) if several else by_site[writes]
        found = {metric.name: metric.result(totals) for metric in self.metrics}
        return Evaluation(
            name=name,
            hook_name=reads,
            hook_name_out="" if writes == reads else writes,
            rows=n,
            d_in=self.dictionary.d_in,
            d_sae=self.dictionary.d_sae,
            l0=float(fired.sum() / n),
            dead=int((fired == 0).sum()),
            dense=int((fired > n / 10).sum()),
            **vars(whole),
            density=density_of(fired, n),
            zero_rows=n - self.whole.with_norm,
            sites=by_site if several else {},
            of_prefix=self.prefixes.result(n, fired, variation),
            relative_norms=self._relative_norms() if len(by_site) == 2 else (),
            metrics={key: numbers for key, numbers in found.items() if numbers is not None},
        )

    @property
    def rows(self) -> int:
        """Rows added so far."""
        return next(iter(self.statistics.values())).count if self.statistics else 0

    def _variation(self, hook_name: str) -> float:
        """``Σ‖y - μ‖²`` of a written site, above zero."""
        variation = float(self.statistics[hook_name].m2.sum())
        if variation == 0:
            raise BadInput(f"{hook_name} is constant over the held-out rows: FVU has no meaning")
        return variation

    def _relative_norms(self) -> tuple[int, ...]:
        """The histogram of ``Evaluation.relative_norms``."""
        return norm_histogram(relative_norms(self.dictionary, self.statistics))
