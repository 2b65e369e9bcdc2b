"""Described latents as a page of Markdown, and as JSON.

The text of a store is a stranger's: whatever is in it, it stays text. Samples are a concordance,
one line each in a block of code, so nothing in them is markup.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rkstore.evaluation.report.tables import listed, number, table
from rkstore.evaluation.samples.describe import Described, Near
from rkstore.evaluation.samples.layouts import Found
from rkstore.store.lookup import MARK

# What means something within a line of Markdown, or ends a cell of a table.
MARKUP = re.compile(r"[\\`*_\[\]<>|~&]")

# Characters of a sample's line before and behind its token.
BEFORE, BEHIND = 56, 36

# Bars of a histogram, from none to the most.
BARS = " ▁▂▃▄▅▆▇█"

GROUPS_SHOWN, WORDS_SHOWN = 20, 5


def page(made: Described) -> str:
    """The page: one table of all latents, one section for each, and the groups."""
    found = made.found
    samples = found.samples
    dead = int((samples.fired == 0).sum())
    beginning = [
        f"# Latents of {text(found.name)}",
        f"{samples.d_sae:,} latents of {text(samples.hook_name)}, {dead:,} of which never fire, on "
        f"{samples.rows:,} rows of the store with fingerprint {samples.fingerprint}."
        + _choice(made),
        *(text(note) for note in made.notes),
        *_comparison(made),
        _overview(made),
    ]
    sections = [_section(made, i) for i in range(len(made.latents))]
    return "\n\n".join([*beginning, *sections, _groups(made)]) + "\n"


def as_dict(made: Described) -> dict[str, Any]:
    """The numbers of the page."""
    samples = made.found.samples
    return {
        "checkpoint": made.found.facts["checkpoint"],
        "store_fingerprint": samples.fingerprint,
        "rows": samples.rows,
        "drawn_from": made.drawn_from,
        "against": made.other.facts["checkpoint"] if made.other else None,
        "mean_max_cosine": made.mean_cosine,
        "groups": made.groups,
        "latents": [
            {
                "latent": latent,
                "count": int(samples.fired[latent]),
                "density": float(samples.fired[latent] / samples.rows),
                "max": float(samples.largest[latent]),
                "mean": float(samples.mean[latent]),
                "std": float(samples.deviation[latent]),
                "blocks": int(samples.blocks[latent]),
                "name": made.names.get(str(latent)),
                "words": [word for word, _ in words(made.found, latent)],
                "by_decoder": [vars(near) for near in made.by_decoder[i]],
                "by_firing": [vars(near) for near in made.by_firing[i]],
                **({"of_other": vars(made.of_other[i])} if made.other else {}),
            }
            for i, latent in enumerate(made.latents)
        ],
    }


def words(found: Found, latent: int) -> list[tuple[str, int]]:
    """The most frequent tokens among the samples of a latent, and how often each is."""
    some = slice(int(found.samples.starts[latent]), int(found.samples.starts[latent + 1]))
    counts = Counter(found.contexts.token[some].tolist())
    return [(found.words[id], count) for id, count in counts.most_common(WORDS_SHOWN)]


def one_line(string: str) -> str:
    """A text on one line; what is not to be seen in it, as its number."""
    shown = string.replace("\n", "↵").replace("\t", "⇥")
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in shown
    )


def text(string: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    return MARKUP.sub(r"\\\g<0>", one_line(string))


def _choice(made: Described) -> str:
    if made.drawn_from is None:
        return ""
    seed = made.found.facts["settings"]["seed"]
    return (
        f" The {len(made.latents)} below are drawn with seed {seed} from the {made.drawn_from:,} "
        "that fire."
    )


def _comparison(made: Described) -> Iterator[str]:
    if made.other is not None:
        mean = number(made.mean_cosine, ".3f")
        yield (
            f"Beside each is the latent of {text(made.other.name)} whose decoder is nearest; the "
            f"mean of this cosine over all latents that fire is {mean}."
        )


def _overview(made: Described) -> str:
    samples = made.found.samples
    head = ["latent", "density", "largest", "mean", "blocks", "words of its samples"]
    head += ["named by hand"] if made.names else []
    rows = []
    for latent in made.latents:
        most = ", ".join(f"{quoted(word)} {count}" for word, count in words(made.found, latent))
        rows.append(
            [
                str(latent),
                _density(made.found, latent),
                number(float(samples.largest[latent]), ".3g"),
                number(float(samples.mean[latent]), ".3g"),
                f"{samples.blocks[latent]:,}",
                most,
                *([text(made.names.get(str(latent), ""))] if made.names else []),
            ]
        )
    return table(head, rows)


def _section(made: Described, i: int) -> str:
    latent = made.latents[i]
    name = f": {text(made.names[str(latent)])}" if str(latent) in made.names else ""
    parts = [
        f"## Latent {latent}{name}",
        _statistics(made.found, latent),
        _samples(made.found, latent),
        f"Nearest by decoder: {_listed(made.by_decoder[i])}.",
        f"Fires together with: {_listed(made.by_firing[i])}.",
    ]
    if made.other is not None:
        near = made.of_other[i]
        parts += [
            f"Nearest in {text(made.other.name)}: latent {near.latent}, cosine {near.cosine:.2f}.",
            _statistics(made.other, near.latent),
            _samples(made.other, near.latent),
        ]
    return "\n\n".join(parts)


def _statistics(found: Found, latent: int) -> str:
    samples = found.samples
    if not samples.fired[latent]:
        return f"It fires on none of the {samples.rows:,} rows."
    most = samples.histogram[latent].max()
    bars = "".join(
        BARS[0 if not count else 1 + round(7 * (count / most) ** 0.5)]
        for count in samples.histogram[latent].tolist()
    )
    windows = " ".join(
        f"{100 * share:.2g}" for share in samples.windows[latent] / samples.window_rows
    )
    return (
        f"Fires on {samples.fired[latent]:,} of {samples.rows:,} rows "
        f"({_density(found, latent)}), in {samples.blocks[latent]:,} blocks; largest "
        f"{samples.largest[latent]:.3g}, mean {samples.mean[latent]:.3g} ± "
        f"{samples.deviation[latent]:.3g}. Per cent of the rows in each of "
        f"{len(samples.window_rows)} equal parts: {windows}.\n\n"
        f"`|{bars}|` from 0 to the largest; heights are square roots of counts."
    )


def _samples(found: Found, latent: int) -> str:
    """The samples as a concordance: activation, row, and the text with its token in one column."""
    samples, context = found.samples, found.contexts
    lines, last = list[str](), None
    for i in range(int(samples.starts[latent]), int(samples.starts[latent + 1])):
        band = int(samples.band[i])
        if band != last:
            low, high = samples.edges_of_band(latent, band) if band else (0, 0)
            lines.append(f"from {low:.3g} to {high:.3g}" if band else "strongest")
        last = band
        before, own, behind = map(one_line, found.store.words.around(context.ids(i), context.at(i)))
        shown = f"{before[-BEFORE:]:>{BEFORE}}{MARK[0]}{own}{MARK[1]}{behind[:BEHIND]}"
        lines.append(f"{samples.value[i]:9.3g} {samples.row[i]:>11,} {shown}".rstrip())
    if not lines:
        return "It has no samples."
    block = "\n".join(lines)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block)), default=0))
    return f"{fence}text\n{block}\n{fence}"


def _listed(near: Sequence[Near]) -> str:
    if not near:
        return "none"
    return listed([f"{one.latent} (cosine {one.cosine:.2f}, φ {one.phi or 0:.2f})" for one in near])


def _groups(made: Described) -> str:
    count = len(made.groups)
    if not count:
        return "## Groups\n\nNo two latents that fire have decoders that near."
    members = sum(map(len, made.groups))
    what = f"{count:,} groups" if count > 1 else "one group"
    lines = [
        f"## Groups\n\n{members:,} latents are in {what} that their decoders join"
        + (f"; the {GROUPS_SHOWN} largest:" if count > GROUPS_SHOWN else ":")
    ]
    for own in made.groups[:GROUPS_SHOWN]:
        shown = ", ".join(map(str, own[:40])) + (", …" if len(own) > 40 else "")
        common = Counter({word: n for latent in own[:40] for word, n in words(made.found, latent)})
        names = ", ".join(quoted(word) for word, _ in common.most_common(3))
        lines.append(f"- {len(own)}: {shown} ({names})")
    return lines[0] + "\n\n" + "\n".join(lines[1:])


def quoted(word: str) -> str:
    """A token among others, with a mark for the space that it begins with."""
    return text(word.replace(" ", "␣", 1) if word.startswith(" ") else word)


def _density(found: Found, latent: int) -> str:
    share = found.samples.fired[latent] / found.samples.rows
    return f"{share:.2%}" if share >= 0.001 else f"{share:.2g}"
