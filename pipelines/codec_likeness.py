"""How much a codec changes a dictionary, and how much another seed does: tables and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from codec_study import REFERENCE, SEEDS

from rkstore.evaluation.record import Row, grouped
from rkstore.evaluation.report.figures import COLOURS, legend_below, panels
from rkstore.evaluation.report.tables import table

# The names of dequantised models say so beside every figure.
NAMES = {"demo": "demo", "smollm2": "SmolLM2 Q4", "gemma3": "Gemma Q4"}


def by_codec(dictionaries: Sequence[Row], codec: str) -> float:
    """How much the FVU of a dictionary changes with the codec alone, as a share of it."""
    fvu = {row["codec"]: row["fvu"] for row in dictionaries if row["seed"] == 0}
    return float(fvu[codec] / fvu[REFERENCE] - 1)


def by_seed(dictionaries: Sequence[Row]) -> list[float]:
    """How much it changes with the seed alone, for all ordered pairs of seeds."""
    fvu = [row["fvu"] for row in dictionaries if row["codec"] == REFERENCE]
    return [
        float(other / one - 1) for i, one in enumerate(fvu) for j, other in enumerate(fvu) if i != j
    ]


@dataclass(frozen=True)
class Likeness:
    """How similar dictionaries of one codec, or of other seeds, are to those from float32."""

    changes: list[float]
    """Of FVU as a share of it: one for a codec, one for each ordered pair of seeds."""
    cosine: float
    """Of latents with the same index; for other seeds, of the most similar ones."""
    correlation: float
    matched_cosine: float
    matched_correlation: float

    @property
    def change(self) -> float:
        """Mean size of the changes."""
        return float(np.mean(np.abs(self.changes)))


def likenesses(dictionaries: Sequence[Row], pairs: Sequence[Row]) -> dict[str, Likeness]:
    """Of one site: the likeness of each codec that can hold it, and of other seeds."""
    found = {}
    for between, rows in grouped(pairs, "between").items():
        seeds = between == SEEDS
        changes = by_seed(dictionaries) if seeds else [by_codec(dictionaries, between)]
        keys = ("cosine", "correlation", "matched_cosine", "matched_correlation")
        numbers = {key: float(np.mean([row[key] for row in rows])) for key in keys}
        if seeds:
            numbers |= {key: numbers[f"matched_{key}"] for key in keys[:2]}
        found[between] = Likeness(changes, **numbers)
    return found


class Study:
    """The dictionaries of each site, by its label, and how similar they are."""

    def __init__(self, document: Row) -> None:
        def place(row: Row) -> str:
            site = row["site"].removeprefix("blocks.")
            return f"{NAMES.get(row['model'], row['model'])} {site}"

        self.groups = [*document["codecs"], SEEDS]
        self.refused = document["refused"]
        self.dictionaries = grouped(document["dictionaries"], place)
        pairs = grouped(document["pairs"], place)
        self.sites = {
            label: likenesses(made, pairs.get(label, ()))
            for label, made in self.dictionaries.items()
        }

    def everywhere(self, between: str) -> list[Likeness]:
        """Of every site that a codec can hold."""
        return [found[between] for found in self.sites.values() if between in found]

    def mean(self, between: str, what: str) -> float:
        """Mean over the sites of one of the numbers of :class:`Likeness`."""
        return float(np.mean([getattr(like, what) for like in self.everywhere(between)]))

    def table(self) -> str:
        """Every dictionary, site by site."""
        lines = []
        for label, found in self.sites.items():
            first = {row["codec"]: row for row in self.dictionaries[label] if row["seed"] == 0}
            others = [row for row in self.dictionaries[label] if row["seed"]]
            base = first[REFERENCE]
            lines.append([label, REFERENCE, f"{base['fvu']:.4f}", "-", "-", str(base["dead"])])
            for between, like in found.items():
                matched = f"({like.matched_cosine:.4f})", f"({like.matched_correlation:.4f})"
                if between == SEEDS:
                    most = max(map(abs, like.changes))
                    cells = [f"{like.change:.2%}, at most {most:.2%}", *(f"- {m}" for m in matched)]
                    cells.append(", ".join(str(row["dead"]) for row in others))
                else:
                    same = zip((like.cosine, like.correlation), matched, strict=True)
                    cells = [f"{like.changes[0]:+.2%}", *(f"{value:.4f} {m}" for value, m in same)]
                    cells.append(str(first[between]["dead"]))
                lines.append(["", between, *cells])
        return table(("site", "trained from", "FVU", "cosine", "correlation", "dead"), lines)

    def verdict(self) -> str:
        """Means over the sites, and which codec cannot hold which model."""
        lines = []
        for between in self.groups:
            if found := self.everywhere(between):
                numbers = [f"{self.mean(between, what):.4f}" for what in ("cosine", "correlation")]
                change = f"{self.mean(between, 'change'):.2%}"
                lines.append([between, str(len(found)), change, *numbers])
        head = (
            "mean over the sites",
            "sites",
            "size of the change of FVU",
            "cosine",
            "correlation",
        )
        refused = [
            f"{NAMES.get(row['model'], row['model'])} has no {row['codec']}: {row['refused']}."
            for row in self.refused
        ]
        return "\n\n".join([table(head, lines), *refused])


def probes_table(rows: Sequence[Row]) -> str:
    """How much of a probe's result each codec leaves."""
    lines = []
    for codec, found in grouped(rows, "codec").items():
        overlap, cosine = (np.mean([row[key] for row in found]) for key in ("overlap", "cosine"))
        least = min(row["least_cosine"] for row in found)
        lines.append([codec, f"{overlap:.1%}", f"{cosine:.6f}", f"{least:.4f}"])
    return table(("codec", "top subsets kept", "mean cosine of directions", "least"), lines)


def figure(study: Study) -> Any:
    """What a codec changes in a dictionary, and what a seed does: FVU, and how similar latents are.

    A group for each codec, with a dot for each site. Latents are compared by index; those of
    another seed with the most similar ones.
    """
    drawn, axes = panels(12, 4, 3)
    titles = ("change of FVU, %", "cosine of decoder rows", "correlation of activations")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title)
        names = [group.replace(" ", "\n") for group in study.groups]
        axis.set_xticks(range(len(names)), names)
        axis.tick_params(axis="x", labelsize=8)
    axes[0].axhline(0, color="grey", linewidth=0.8)
    for i, (label, found) in enumerate(study.sites.items()):
        aside = 0.6 * ((i + 0.5) / len(study.sites) - 0.5)
        for place, between in enumerate(study.groups):
            if between not in found:
                continue
            like = found[between]
            percent = [100 * change for change in like.changes]
            named = {"label": label} if between == SEEDS else {}
            for axis, heights in zip(
                axes, (percent, [like.cosine], [like.correlation]), strict=True
            ):
                places = [place + aside] * len(heights)
                axis.plot(places, heights, "o", ms=4, color=COLOURS[i % len(COLOURS)], **named)
    legend_below(drawn, axes[0], 3, frameon=False)
    return drawn
