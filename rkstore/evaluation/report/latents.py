"""The quality of latents as Markdown tables."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from rkstore.evaluation.latents.absorption import Absorption
from rkstore.evaluation.latents.probing import Accuracy, ClassProbe
from rkstore.evaluation.latents.quality import Judged, Quality
from rkstore.evaluation.report.tables import number, table

One = TypeVar("One", ClassProbe, Absorption)

# Classes of which the tables have the mean alone; the JSON has each.
TOGETHER = ("first letter",)


def quality_tables(judged: Judged) -> str:
    """Every table, each with a sentence that says what its numbers are."""
    spread = _spread(judged.qualities)
    note = (
        f"{judged.rows:,} held-out rows in {judged.groups:,} {judged.unit}. Entropy in bits, top "
        "10 the share of the ten largest;\nin brackets with the tokens of the rows permuted."
    )
    parts = [spread, note]
    for quality in judged.qualities:
        if quality.probes:
            parts += ["", _probes(quality)]
        if quality.absorption:
            parts += ["", _absorption(quality)]
    if judged.qualities and any(quality.probes for quality in judged.qualities):
        parts += ["", *_about_probes()]
    if judged.pairs:
        parts += ["", *_pairs(judged)]
    return "\n".join(parts)


def _spread(qualities: Sequence[Quality]) -> str:
    head = ["dictionary", "L0", "on", "entropy over tokens", "top 10", "over latents", "top 10"]
    rows = [
        [
            quality.name,
            number(quality.l0, ".1f"),
            str(quality.spreads.latents),
            _with(quality.spreads.of_latents.entropy, quality.spreads.of_latents_chance.entropy),
            _with(
                quality.spreads.of_latents.concentration,
                quality.spreads.of_latents_chance.concentration,
            ),
            number(quality.spreads.of_tokens.entropy, ".2f"),
            number(quality.spreads.of_tokens.concentration, ".2f"),
        ]
        for quality in qualities
    ]
    lines = [table(head, rows)]
    for quality in qualities:
        if (of := quality.mined) is not None:
            lines.append(
                f"{quality.name}: mean activation when active {of.mined:.3f} of {of.mined_latents} "
                f"mined latents, {of.rest:.3f} of the other {of.rest_latents}; difference "
                f"{of.mined - of.rest:+.3f} [{of.low:+.3f}, {of.high:+.3f}]"
            )
    return "\n".join(lines)


def _with(value: float, chance: float) -> str:
    """A number and its chance level."""
    return f"{number(value, '.2f')} ({number(chance, '.2f')})"


def _probes(quality: Quality) -> str:
    """Accuracies of the probes of one dictionary, by class."""
    kinds = [kind for kind in quality.probes[0].accuracy if kind != "latents"]
    ks = list(quality.probes[0].accuracy["latents"])
    shown = [f"k={k}" for k in ks]
    shown[-1] += " [95 %]"
    head = [f"probes of {quality.name}", "tokens", *shown, *kinds, "shuffled", "all dimensions"]
    rows = []
    for name, probes in _together(quality.probes):
        rows.append(
            [
                name,
                str(sum(probe.test for probe in probes)),
                *(_mean([probe.accuracy["latents"][k] for probe in probes]) for k in ks[:-1]),
                _with_interval([probe.accuracy["latents"][ks[-1]] for probe in probes]),
                *(_mean([probe.accuracy[kind][ks[-1]] for probe in probes]) for kind in kinds),
                _shuffled([probe.accuracy["latents"][ks[-1]] for probe in probes]),
                _mean([probe.dense for probe in probes]),
            ]
        )
    return table(head, rows)


def _about_probes() -> list[str]:
    return [
        "Probes: accuracy on held-out tokens, half of them of the class, so chance is 0.5. Other",
        "features are as many as the largest k; shuffled is with shuffled labels. Absorption: in",
        "brackets with the decoders of the other latents permuted.",
    ]


def _absorption(quality: Quality) -> str:
    head = [f"absorption of {quality.name}", "tokens", "probe F1", "main latents", "their F1"]
    head += ["silent", "absorbed", "fraction"]
    rows = []
    for name, found in _together(quality.absorption):
        rows.append(
            [
                name,
                str(sum(one.tokens for one in found)),
                number(float(np.mean([one.probe_f1 for one in found])), ".2f"),
                number(float(np.mean([len(one.main) for one in found])), ".3g"),
                number(float(np.mean([one.f1[len(one.main) - 1] for one in found])), ".2f"),
                number(float(np.mean([one.silent for one in found])), ".3f"),
                _with(*(float(np.mean(of)) for of in zip(*map(_absorbed, found), strict=True))),
                _with(*(float(np.mean(of)) for of in zip(*map(_fraction, found), strict=True))),
            ]
        )
    return table(head, rows)


def _absorbed(one: Absorption) -> tuple[float, float]:
    return one.absorbed, one.absorbed_chance


def _fraction(one: Absorption) -> tuple[float, float]:
    return one.fraction, one.fraction_chance


def _pairs(judged: Judged) -> Iterator[str]:
    head = ["seeds", "side", "MMCS", "matched cosine", "at least 0.7", "same by both"]
    rows = []
    for pair in judged.pairs:
        of = pair.stability
        for side, found, chance in (
            ("decoder", of.decoder, of.decoder_chance),
            ("encoder", of.encoder, of.encoder_chance),
        ):
            rows.append(
                [
                    f"{pair.one}, {pair.other}",
                    side,
                    _with(found.mmcs, chance.mmcs),
                    _with(found.matched, chance.matched),
                    _with(found.same, chance.same),
                    number(of.agree, ".2f"),
                ]
            )
    yield table(head, rows)
    yield "In brackets of random directions, as many and as wide."


def _together(found: Sequence[One]) -> Iterator[tuple[str, list[One]]]:
    """Classes by the names under which the tables have them."""
    by_name: dict[str, list[One]] = {}
    for one in found:
        name = next((begin for begin in TOGETHER if one.name.startswith(begin)), one.name)
        by_name.setdefault(name, []).append(one)
    for name, ones in by_name.items():
        yield (f"{name} (mean of {len(ones)})" if name in TOGETHER else name), ones


def _mean(found: Sequence[Accuracy]) -> str:
    return number(float(np.mean([one.value for one in found])), ".2f")


def _with_interval(found: Sequence[Accuracy]) -> str:
    """Of one class with its interval; the mean of several without."""
    if len(found) > 1:
        return _mean(found)
    return f"{found[0].value:.2f} [{found[0].low:.2f}, {found[0].high:.2f}]"


def _shuffled(found: Sequence[Accuracy]) -> str:
    return number(float(np.mean([one.shuffled for one in found])), ".2f")
