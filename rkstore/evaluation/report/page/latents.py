"""What the page shows of latents: columns of all of them, and parts that are loaded one by one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkstore.evaluation.report.page.decoders import BankWires
from rkstore.evaluation.report.page.logits import Logits
from rkstore.evaluation.report.page.scripts import column, compact, deflated, script
from rkstore.evaluation.report.page.tally import Tokens
from rkstore.evaluation.report.page.text import Text
from rkstore.evaluation.report.page.vocabulary import Vocabulary
from rkstore.evaluation.samples.samples import Samples

# Latents in one file: 45 kB.
PART = 64

# Tokens that tell a latent from the rest, tokens it fires on, neighbours, dimensions.
TELLING, FIRES_ON, NEIGHBOURS, UNITS = 6, 8, 6, 3

# Steps in which an activation is written, of the largest of its latent.
STEPS = 255

# In the column of a crosscoder's relative norms: steps from 0 to 1, and what is no share.
SHARES, NO_SHARE = 250, 255

# Decoder norms that differ by less are all the same.
SAME_NORM = 0.01

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Latents:
    """All that the page shows of a dictionary's latents."""

    samples: Samples
    text_rows: NDArray[np.int64]
    """The row of the text of each sample."""
    tokens: Tokens
    """By the page's numbers of tokens."""
    together: list[list[tuple[int, float, bool]]]
    """Those that fire together with each, with φ, and whether that is mutual."""
    near: list[list[tuple[int, float, bool]]]
    """The nearest by decoder, with the cosine, and whether that is mutual."""
    banks: list[BankWires]
    units: list[list[tuple[int, float]]]
    norms: Doubles
    cosines: Doubles | None = None
    shares: Doubles | None = None
    logits: Logits | None = None

    def files(self, text: Text, vocabulary: Vocabulary) -> Iterator[tuple[str, bytes]]:
        """The files of the page, by path, one at a time."""
        yield "data/index.js", script("index", self._index(vocabulary))
        yield "data/where.js", script("where", deflated(self._where(text)))
        for first in range(0, self.samples.d_sae, PART):
            packed = deflated(compact(self._part(first, text, vocabulary)).encode())
            part = first // PART
            yield f"data/latents/{part:04}.js", script("latents", part, packed)

    def _index(self, vocabulary: Vocabulary) -> dict[str, Any]:
        samples, shares = self.samples, self.shares
        even = np.ptp(self.norms) <= SAME_NORM * self.norms.max()
        whose = None
        if shares is not None:
            whose = np.where(np.isnan(shares), NO_SHARE, np.round(SHARES * np.nan_to_num(shares)))
        following = None if self.logits is None else self.logits.following
        return {
            "count": samples.d_sae,
            "rows": samples.rows,
            "fired": column(samples.fired, "u4"),
            "largest": column(samples.largest, "f4"),
            # One more than the number of a token: 0 is none.
            "telling": column(self.tokens.telling(TELLING) + 1, vocabulary.kind),
            "share": column(np.round(STEPS * self.tokens.strongest_share()), "u1"),
            "norm": None if even else column(self.norms, "f4"),
            "whose": None if whose is None else column(whose, "u1"),
            "next": None if following is None else column(_twentieths(following), "i1"),
        }

    def _where(self, text: Text) -> bytes:
        """The page's row of every sample, as differences, and then its latent.

        All lowest bytes first, and so on: the others are nearly all 0, and deflate well.
        """
        rows = text.places(self.text_rows)
        order = np.lexsort((self.samples.latent, rows))
        steps = np.diff(rows[order], prepend=0)
        numbers = np.concatenate([steps, self.samples.latent[order]]).astype("<u4")
        return numbers.view("u1").reshape(-1, 4).T.tobytes()

    def _part(self, first: int, text: Text, vocabulary: Vocabulary) -> list[dict[str, Any]]:
        """What is written of the latents of one part."""
        samples = self.samples
        stop = min(first + PART, samples.d_sae)
        some = slice(int(samples.starts[first]), int(samples.starts[stop]))
        written = _written(samples, some, self.text_rows[some], text)
        groups: list[dict[int, list[Any]]] = [{} for _ in range(first, stop)]
        where = zip(samples.latent[some].tolist(), samples.band[some].tolist(), strict=True)
        for (latent, band), sample in zip(where, written, strict=True):
            groups[latent - first].setdefault(band, []).append(sample)
        return [self._latent(i, groups[i - first], vocabulary) for i in range(first, stop)]

    def _latent(
        self, i: int, groups: dict[int, list[Any]], vocabulary: Vocabulary
    ) -> dict[str, Any]:
        samples = self.samples
        number = next(n for n, bank in enumerate(self.banks) if i < bank.first + bank.latents)
        bank = self.banks[number]
        own = {
            "bank": number,
            "reads": _percents(bank.read_norms[:, i - bank.first]),
            "writes": _percents(bank.write_norms[:, i - bank.first]),
            "units": _thousandths(self.units[i]),
            "near": _thousandths(self.near[i]),
        }
        if self.cosines is not None:
            own["cosine"] = round(1000 * float(self.cosines[i]))
        if not samples.fired[i]:
            return own | {"groups": []}
        own |= {
            "mean": _short(samples.mean[i]),
            "deviation": _short(samples.deviation[i]),
            "blocks": int(samples.blocks[i]),
            "distinct": int(self.tokens.distinct[i]),
            "histogram": samples.histogram[i].tolist(),
            "tokens": [[t, n, round(1000 * s)] for t, n, s in self.tokens.of(i, FIRES_ON)],
            "together": _thousandths(self.together[i]),
            "groups": [[b, groups[b], self._tokens_of_band(i, b)] for b in sorted(groups)],
        }
        return own | (self.logits.of(i, vocabulary.numbers) if self.logits else {})

    def _tokens_of_band(self, latent: int, band: int) -> int | None:
        """On how many tokens its activation lies in a band; None if the histogram cannot tell."""
        histogram, bands = self.samples.histogram[latent], self.samples.bands
        if not band or len(histogram) % bands:
            return None
        return int(histogram.reshape(bands, -1)[bands - band].sum())


def _written(
    samples: Samples, some: slice, text_rows: NDArray[np.int64], text: Text
) -> list[list[Any]]:
    """Samples as ``[row, tokens before, tokens, [offset, activation, …]]``, within their block."""
    largest = samples.largest[samples.latent[some]]
    steps = STEPS * samples.around[some].astype(np.float64) / largest[:, None]
    # What fires stays above zero.
    values = (np.sign(steps) * np.maximum(np.abs(steps).round(), steps != 0)).astype(np.int64)
    start, end = text.ends(text_rows)
    before = np.minimum(samples.before, text_rows - start)
    tokens = before + np.minimum(samples.after + 1, end - text_rows)
    sample, place = values.nonzero()
    pairs = np.stack([place - samples.before + before[sample], values[sample, place]], axis=1)
    inside = (pairs[:, 0] >= 0) & (pairs[:, 0] < tokens[sample])
    sample, pairs = sample[inside], pairs[inside]
    bounds = np.searchsorted(sample, np.arange(len(values) + 1))
    flat = pairs.reshape(-1).tolist()
    head = np.stack([text.places(text_rows), before, tokens], axis=1).tolist()
    return [[*head[k], flat[2 * bounds[k] : 2 * bounds[k + 1]]] for k in range(len(values))]


def _percents(norms: Doubles) -> list[int]:
    """Norms in per cent of the largest."""
    most = norms.max()
    return [round(100 * float(norm / most)) if most else 0 for norm in norms]


def _thousandths(found: Any) -> list[list[int]]:
    """Numbers of something, each with its value in thousandths, and what else there is of it."""
    return [[one, round(1000 * value), *map(int, more)] for one, value, *more in found]


def _twentieths(sigmas: Doubles) -> Doubles:
    """Standard deviations in twentieths, as far as a byte reaches."""
    return np.clip(np.round(20 * sigmas), -127, 127)


def _short(value: Any) -> float:
    """Four significant digits."""
    return float(f"{float(value):.4g}")
