"""What a dictionary scores on rows: sums over batches, and the metrics they give."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.prefixes import WHOLE, Prefixes, by_activation
from rkstore.dictionaries.rows import Rows
from rkstore.errors import BadInput
from rkstore.store.jsontext import existing
from rkstore.store.statistics import Statistics

# Edges of the histogram of firing frequency: log10 of the fraction of tokens.
DENSITY_EDGES = np.arange(-6.0, 0.25, 0.25)

# Edges of the histogram of relative decoder norms.
NORM_EDGES = np.arange(11) / 10

# What is measured of a dictionary whose prefixes were drawn anew for each batch.
OF_DRAWN = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True)
class SiteEvaluation:
    """Metrics of the reconstruction of one site, as in :class:`Evaluation`."""

    fvu: float
    mse: float
    cosine: float
    norm_ratio: float
    codec_fvu: float


@dataclass(frozen=True)
class PrefixEvaluation:
    """What a part of the code reconstructs by itself."""

    share: float
    """Of the latents of each bank, or of those that are on (``--prefix-order``)."""
    l0: float
    """Latents of the part that are on, mean over tokens."""
    fvu: float


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
    left_out: int = 0
    """Held-out rows not measured: of special tokens, or with a norm above ``--max-norm``."""
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
        numbers = asdict(self) | {
            "explained_variance": self.explained_variance,
            "dead_share": self.dead_share,
        }
        for key in ("hook_name_out", "sites", "of_prefix", "relative_norms"):
            if not numbers[key]:
                del numbers[key]
        if self.dead_mined is None:
            del numbers["dead_mined"]
        found: dict[str, Any] = existing(numbers)
        return found


class _Compared(NamedTuple):
    """Some rows and their reconstructions: ``Σ‖y - ŷ‖²``, and for each row, float64 ``(n,)``,
    ``y · ŷ``, ``‖y‖`` and ``‖ŷ‖``."""

    squared_error: float
    products: Tensor
    norms: Tensor
    found: Tensor

    @classmethod
    def of(cls, y: Tensor, found: Tensor) -> "_Compared":
        y64, found64 = y.double(), found.double()
        error = (found64 - y64).square().sum().item()
        return cls(error, (y64 * found64).sum(dim=-1), y64.norm(dim=-1), found64.norm(dim=-1))

    @classmethod
    def together(cls, parts: Sequence["_Compared"]) -> "_Compared":
        """The same of several sites side by side."""
        if len(parts) == 1:
            return parts[0]
        norms = torch.stack([part.norms for part in parts]).norm(dim=0)
        found = torch.stack([part.found for part in parts]).norm(dim=0)
        products = torch.stack([part.products for part in parts]).sum(dim=0)
        return cls(sum(part.squared_error for part in parts), products, norms, found)


class _Sums:
    """Sums over rows of how a reconstruction compares with them."""

    def __init__(self) -> None:
        self.squared_error = self.cosine = self.norm_ratio = 0.0
        self.with_norm = 0

    def add(self, rows: _Compared) -> None:
        self.squared_error += rows.squared_error
        self.with_norm += int((rows.norms > 0).sum())
        # A row with y = 0 has neither number: it adds zero to both sums and is not counted.
        ratio = torch.where(rows.norms > 0, rows.found / rows.norms, 0)
        self.norm_ratio += ratio.sum().item()
        along = rows.products / (rows.norms * rows.found)
        self.cosine += torch.where((rows.norms > 0) & (ratio > 0), along, 0).sum().item()

    def result(self, rows: int, variation: float, codec_fvu: float) -> SiteEvaluation:
        """The metrics over ``rows`` rows whose ``Σ‖y - μ‖²`` is ``variation``."""
        return SiteEvaluation(
            self.squared_error / variation,
            self.squared_error / rows,
            self.cosine / self.with_norm,
            self.norm_ratio / self.with_norm,
            codec_fvu,
        )


class Measure:
    """The sums over batches behind an :class:`Evaluation`, in float64.

    Rows and reconstructions come from the same batch, so they cannot be mispaired: comparing
    shuffled reconstructions with unshuffled inputs once turned an explained variance of +0.90
    into -0.90.

    Args:
        prefixes: those that the dictionary was trained with.

    Raises:
        BadInput: it has prefixes, and normalises its rows.
    """

    def __init__(self, dictionary: Dictionary, prefixes: Prefixes = WHOLE) -> None:
        if not prefixes.whole and dictionary.row_norm != "none":
            raise BadInput(
                f"prefixes of a dictionary of rows under {dictionary.row_norm} cannot be measured"
            )
        self.dictionary, self.prefixes = dictionary, prefixes
        self.shares = OF_DRAWN if prefixes.draws else prefixes.shares
        self.fired = torch.zeros(dictionary.d_sae, dtype=torch.int64)
        """Tokens that each latent fired on."""
        self.whole = _Sums()
        self.by_site = {site.hook_name: _Sums() for site in dictionary.wiring.writes}
        self.statistics: dict[str, Statistics] = {}
        self._prefix_errors = np.zeros(len(self.shares))
        self._prefix_fired = np.zeros(len(self.shares), np.int64)

    @torch.no_grad()
    def add(self, x: Tensor | Rows) -> None:
        """Measure one batch: activations ``(n, d_in)``, by name of all sites read and written.

        A tensor stands for the only site of an autoencoder.
        """
        wiring = self.dictionary.wiring
        rows = {wiring.sites[0].hook_name: x} if isinstance(x, Tensor) else x
        for site in wiring.writes:
            if site.hook_name not in rows:
                raise BadInput(f"the dictionary writes {site.hook_name}, which is missing")
        f, decoded = self._reconstruct(rows)
        self.fired += fires(f).sum(dim=0).cpu()
        compared = []
        for name, sums in self.by_site.items():
            compared.append(_Compared.of(rows[name], decoded[name]))
            sums.add(compared[-1])
            here = Statistics.of(rows[name].cpu().numpy())
            before = self.statistics.get(name)
            self.statistics[name] = before.merge(here) if before else here
        self.whole.add(_Compared.together(compared))

    def _reconstruct(self, rows: Rows) -> tuple[Tensor, Rows]:
        """Code and reconstruction; what each prefix does is added to the sums."""
        if self.prefixes.whole:
            return self.dictionary.reconstruct(rows)
        f = self.dictionary.encode(rows)
        levels = self.prefixes.decodings(self.dictionary, f, rows, self.shares)
        for i, level in enumerate(levels):
            for name, found in level.items():
                error = (found.double() - rows[name].double()).square().sum()
                self._prefix_errors[i] += error.item()
        if self.prefixes.order == "activations":
            on = torch.zeros_like(fires(f))
            for i, part in enumerate(by_activation(f, self.shares)):
                on |= fires(part)
                self._prefix_fired[i] += int(on.sum())
        return f, levels[-1]

    def result(self, name: str, codec_fvu: Mapping[str, float]) -> Evaluation:
        """The metrics over all rows added so far.

        Args:
            codec_fvu: of the written sites.

        Raises:
            BadInput: all rows of a written site are identical.
        """
        wiring, n = self.dictionary.wiring, self.rows
        reads, writes = (
            ",".join(site.hook_name for site in sites) for sites in (wiring.reads, wiring.writes)
        )
        variations = {site: self._variation(site) for site in self.by_site}
        variation = sum(variations.values())
        by_site = {
            site: sums.result(n, variations[site], codec_fvu[site])
            for site, sums in self.by_site.items()
        }
        several = len(by_site) > 1
        lost = sum(codec_fvu[site] * part for site, part in variations.items())
        whole = self.whole.result(n, variation, lost / variation) if several else by_site[writes]
        fired = self.fired.numpy()
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
            fvu=whole.fvu,
            mse=whole.mse,
            cosine=whole.cosine,
            norm_ratio=whole.norm_ratio,
            codec_fvu=whole.codec_fvu,
            density=_density(fired, n),
            zero_rows=n - self.whole.with_norm,
            sites=by_site if several else {},
            of_prefix=self._of_prefix(variation),
            relative_norms=self._relative_norms() if len(by_site) == 2 else (),
        )

    @property
    def rows(self) -> int:
        """Rows added so far."""
        return next(iter(self.statistics.values())).count

    def _variation(self, hook_name: str) -> float:
        """``Σ‖y - μ‖²`` of a written site, above zero."""
        variation = float(self.statistics[hook_name].m2.sum())
        if variation == 0:
            raise BadInput(f"{hook_name} is constant over the held-out rows: FVU has no meaning")
        return variation

    def _of_prefix(self, variation: float) -> tuple[PrefixEvaluation, ...]:
        if self.prefixes.whole:
            return ()
        fired = self._prefix_fired
        if self.prefixes.order == "latents":
            banks = torch.split(self.fired, [bank.latents for bank, _ in self.dictionary.banks])
            fired = np.array(
                [
                    sum(int(bank[: round(len(bank) * share)].sum()) for bank in banks)
                    for share in self.shares
                ]
            )
        return tuple(
            PrefixEvaluation(share, float(on / self.rows), float(error / variation))
            for share, on, error in zip(self.shares, fired, self._prefix_errors, strict=True)
        )

    def _relative_norms(self) -> tuple[int, ...]:
        """The histogram of ``Evaluation.relative_norms``."""
        names = list(self.by_site)
        norms = np.zeros((2, self.dictionary.d_sae))
        first = 0
        for bank, weights in self.dictionary.banks:
            latents = slice(first, first := first + bank.latents)
            parts = torch.split(weights.W_dec.detach(), [site.width for site in bank.writes], dim=1)
            for site, part in zip(bank.writes, parts, strict=True):
                usual = self.statistics[site.hook_name].mean_square_norm ** 0.5
                own = part.double().norm(dim=1).cpu().numpy()
                norms[names.index(site.hook_name), latents] = own / usual
        total = norms.sum(axis=0)
        share = norms[0, total > 0] / total[total > 0]
        return tuple(int(count) for count in np.histogram(share, NORM_EDGES)[0])


def fires(f: Tensor) -> Tensor:
    """Which latents are on at which token, bool ``(n, d_sae)``; with a code per site, at any."""
    on = f != 0
    return on.any(dim=0) if on.dim() > 2 else on


def _density(fired: NDArray[np.int64], rows: int) -> tuple[int, ...]:
    """The histogram of ``Evaluation.density``."""
    share = np.log10(fired[fired > 0] / rows).clip(DENSITY_EDGES[0], -1e-9)
    histogram = np.histogram(share, DENSITY_EDGES)[0]
    return int((fired == 0).sum()), *(int(count) for count in histogram)
