"""The page of a probe: scores against chance, and what its directions are, in words.

A direction is shown as if it were a latent that fires on the few rows that lie farthest along it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.evaluation.report.page.scripts import compact, deflated, script
from rkstore.evaluation.report.page.tally import Tally
from rkstore.evaluation.report.page.text import Text
from rkstore.evaluation.report.page.vocabulary import Vocabulary
from rkstore.rkcnn.probe import RkCNNProbe
from rkstore.rkcnn.result import RkCNNResult
from rkstore.rkcnn.scores import SCORES
from rkstore.rkcnn.source import StoreSite
from rkstore.settings import member_named
from rkstore.store.batches.kept import LeftOut, left_out
from rkstore.store.readable import Readable

# Rows that directions are looked at on, and the share of them, farthest along one, that it is
# said to fire on.
ROWS, FARTHEST = 65_536, 0.005

# Directions on the page, and for each: tokens, lines, dimensions.
DIRECTIONS, TOKENS, LINES, DIMENSIONS = 60, 4, 3, 5

# Tokens shown on either side, and bins of the scores.
REACH, BINS = 20, 40

# Subsets of the same kind that say what chance scores.
CHANCE_SUBSETS = 600

Doubles = NDArray[np.float64]


def open_probe(path: str | Path, store: Readable) -> RkCNNResult:
    """A saved probe of a site of this store.

    Raises:
        BadInput: there is none, it has no directions, or it is of another store.
    """
    result = RkCNNResult.load(path)
    if result.source.get("store") != store.manifest.fingerprint:
        raise BadInput(
            f"the probe in {path} belongs to another store than {store.where}: probe this one"
        )
    if result.top_directions is None:
        raise BadInput(f"the probe in {path} has no directions: probe again")
    store.check_site(str(result.source.get("hook_name")))
    return result


@dataclass(frozen=True, eq=False)
class ProbePage:
    """A probe as its page shows it."""

    meta: dict[str, Any]
    scores: dict[str, Any]
    directions: list[dict[str, Any]]

    def script(self) -> bytes:
        """The file of the page."""
        shown = {"scores": self.scores, "directions": self.directions}
        return script("probe", deflated(compact(shown).encode()))


def probe_page(
    result: RkCNNResult, store: Readable, chunks: list[int], text: Text, vocabulary: Vocabulary
) -> ProbePage:
    """The page of a probe.

    Args:
        chunks: whose text the report has.
    """
    hook_name = result.source["hook_name"]
    every = max(1, -(-len(chunks) * store.manifest.chunk_rows // ROWS))
    some = chunks[::every]
    out = left_out(store, hook_name, some)
    chance = _chance(result, StoreSite(store, hook_name, some, out))
    assert result.top_directions is not None
    directions = result.top_directions[:DIRECTIONS].double().cpu().numpy()
    along = _along(StoreSite(store, hook_name, some, out), directions)
    shown = _directions(result, along, directions, _text_rows(store, some, out), text, vocabulary)
    return ProbePage(_meta(result, along, chance is not None), _scores(result, chance), shown)


def _meta(result: RkCNNResult, along: Doubles, chance: bool) -> dict[str, Any]:
    settings, summary = result.settings, result.summary()
    found = len(result.top_directions) if result.top_directions is not None else 0
    return {
        "score": str(settings.get("score_method")),
        "found": found,
        "lede": (
            f"{summary['subsets']:,} random subsets of {settings.get('m')} of "
            f"{settings.get('d_model'):,} dimensions of {result.source['hook_name']} were scored "
            f"by {settings.get('score_method')}, and directions found in the best "
            f"{summary['kept']:,}."
        ),
        "facts": [
            ["Site", str(result.source["hook_name"])],
            ["Subsets", f"{summary['subsets']:,} of {settings.get('m')} dimensions"],
            ["Kept", f"{summary['kept']:,}"],
            ["Directions", f"{found:,}"],
            ["Score", str(settings.get("score_method"))],
            ["Highest", f"{summary['highest']:.4g}"],
            ["Mean of all", f"{summary['mean']:.4g} ± {summary['standard_deviation']:.2g}"],
            ["Rows probed", f"{result.source.get('rows', 0):,}"],
        ],
        "chance": (
            "Chance: the same score of subsets of randomly rotated axes of the same rows. Where "
            "the two coincide, the axes of this site mean nothing that the score can see."
            if chance
            else "There is no chance level: subsets of this probe are of rotated axes already, or "
            "its score needs labels."
        ),
        "note": (
            f"Looked at on {len(along):,} rows. A direction is said to fire on the "
            f"{100 * FARTHEST:g} % of the rows that lie farthest along it; the words above it "
            "are the tokens that tell these rows from all."
        ),
    }


def _scores(result: RkCNNResult, chance: Doubles | None) -> dict[str, Any]:
    """Histograms of the scores of all subsets, and of chance, with the same edges.

    The last bin also holds what lies beyond it, so that one outlier does not flatten the rest.
    """
    scores = result.all_scores.double().cpu().numpy()
    scores = scores[np.isfinite(scores)]
    every = scores if chance is None else np.concatenate([scores, chance])
    low, high = np.quantile(every, [0, 0.995])
    edges = np.linspace(low, max(high, low + 1e-9), BINS + 1)

    def counts(some: Doubles) -> list[int]:
        found: list[int] = np.histogram(some.clip(edges[0], edges[-1]), edges)[0].tolist()
        return found

    def extent(some: Doubles) -> list[float]:
        return [float(f"{end:.5g}") for end in (some.min(), some.max())]

    return {
        "edges": [float(f"{edge:.5g}") for edge in edges],
        "drawn": counts(scores),
        "drawn_range": extent(scores),
        "chance": None if chance is None else counts(chance),
        "chance_range": None if chance is None else extent(chance),
        "lowest_kept": float(result.top_scores.min()),
        "said": list(_said(result, scores, chance, float(edges[-1]))),
    }


def _said(
    result: RkCNNResult, scores: Doubles, chance: Doubles | None, end: float
) -> Iterator[str]:
    """What the histograms show, in words."""
    if chance is not None:
        bound = np.quantile(chance, 0.95)
        yield (
            f"{(scores > bound).sum():,} of {len(scores):,} subsets score above {bound:.3g}: "
            "95 % of those of chance score less."
        )
    yield f"Kept, in blue: the best, from a score of {result.top_scores.min():.3g} on."
    if scores.max() > end:
        yield f"Scores beyond {end:.3g} ({(scores > end).sum():,}) are counted in the last bin."


def _chance(result: RkCNNResult, source: StoreSite) -> Doubles | None:
    """Scores of subsets of rotated axes; None if those of the probe are, or it needs labels."""
    settings = result.settings
    score = member_named("score", SCORES, str(settings["score_method"]), settings)
    if settings.get("subsets") == "bases" or score.needs_labels:
        return None
    m, d = int(settings["m"]), int(settings["d_model"])
    h = max(1, min(CHANCE_SUBSETS, len(result.all_scores)))
    probe = RkCNNProbe(d, m=m, h=h, r=1, score_method=score, subsets="bases", seed=settings["seed"])
    scores = probe.probe(source, show_progress=False).all_scores.double().numpy()
    found: Doubles = scores[np.isfinite(scores)]
    return found if len(found) else None


def _along(source: StoreSite, directions: Doubles) -> Doubles:
    """How far each row is along each direction, in deviations, ``(rows, directions)``."""
    parts = [part.astype(np.float64) @ directions.T for part in source.parts()]
    along = np.concatenate(parts)
    spread = along.std(axis=0)
    scaled: Doubles = (along - along.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return scaled


def _text_rows(store: Readable, chunks: list[int], out: LeftOut) -> NDArray[np.int64]:
    """The row of the text of each row that is looked at."""
    found = []
    for chunk in chunks:
        first, stop = store.rows_of_chunk(chunk)
        kept = out.kept(first, stop)
        found.append(store.in_text(first, stop)[1][kept - first])
    return np.concatenate(found)


def _directions(
    result: RkCNNResult,
    along: Doubles,
    directions: Doubles,
    rows: NDArray[np.int64],
    text: Text,
    vocabulary: Vocabulary,
) -> list[dict[str, Any]]:
    """What the page shows of each direction."""
    pages = text.places(rows)
    tokens = vocabulary.numbers(text.ids[pages])
    fires = along >= np.quantile(along, 1 - FARTHEST, axis=0)
    tally = Tally(len(directions), len(vocabulary), len(along))
    place, direction = fires.nonzero()
    tally.add(tokens, place, direction, along[place, direction])
    telling = tally.found().telling(TOKENS)
    parents = range(len(directions)) if result.parents is None else result.parents.tolist()
    found = []
    for i, weights in enumerate(directions):
        own = np.flatnonzero(fires[:, i])
        best = np.argsort(-np.abs(weights), kind="stable")[:DIMENSIONS]
        found.append(
            {
                "score": float(result.top_scores[parents[i]]),
                "tokens": [int(token) for token in telling[i] if token >= 0],
                "dimensions": [[int(k), round(1000 * float(weights[k]))] for k in best],
                "largest": float(f"{along[own, i].max():.4g}"),
                "mean": float(f"{along[own, i].mean():.4g}"),
                "samples": _lines(along[:, i], own, rows, pages, text),
            }
        )
    return found


def _lines(
    along: Doubles,
    fires: NDArray[np.int64],
    rows: NDArray[np.int64],
    pages: NDArray[np.int64],
    text: Text,
) -> list[list[Any]]:
    """The strongest rows, one a block, as the samples of a latent are written."""
    order = fires[np.argsort(-along[fires], kind="stable")]
    _, first = np.unique(rows[order] // text.block, return_index=True)
    chosen = order[np.sort(first)][:LINES]
    shade = {int(pages[k]): round(255 * along[k] / along[chosen[0]]) for k in fires}
    starts, ends = text.ends(rows[chosen])
    found = []
    for k, start, end in zip(chosen, starts, ends, strict=True):
        before = int(min(REACH, rows[k] - start))
        count = before + int(min(REACH + 1, end - rows[k]))
        first_page = int(pages[k]) - before
        around = [(n, shade.get(first_page + n, 0)) for n in range(count)]
        found.append(
            [int(pages[k]), before, count, [x for pair in around if pair[1] for x in pair]]
        )
    return found
