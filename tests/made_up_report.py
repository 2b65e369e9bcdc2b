"""Reports of made-up samples: any number of latents and runs, without a store or a dictionary."""

from pathlib import Path
from typing import Any

import numpy as np

from rkstore.evaluation.measure import DENSITY_EDGES
from rkstore.evaluation.report.page.decoders import BankWires
from rkstore.evaluation.report.page.latents import PART, TELLING, Latents
from rkstore.evaluation.report.page.logits import TOKENS, Logits
from rkstore.evaluation.report.page.probe import ProbePage
from rkstore.evaluation.report.page.tally import Tally
from rkstore.evaluation.report.page.text import PART as TEXT_PART
from rkstore.evaluation.report.page.text import Text
from rkstore.evaluation.report.page.vocabulary import Vocabulary
from rkstore.evaluation.report.page.write import write_folder
from rkstore.evaluation.samples.samples import Samples, starts_of

BLOCK, REACH, BANDS, BINS = 128, 20, 5, 40

# What a stranger's tokenizer may hold, each one token.
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</textarea>",
    "</script><script>window.hacked = 2</script>",
    "<img src=x onerror='window.hacked = 3'>",
    "a\u202eb\u2066c",
    "\u0000",
    "e" + "\u0301" * 10_000,
    "\u2028\u2029",
    "__proto__",
    "${window.hacked = 4}",
    [0xE2, 0x80],
)

Made = tuple[Samples, Text, Vocabulary, Latents]


def made_up(latents: int, rows: int = 32_768, each: int = 31, seed: int = 0) -> Made:
    """Latents that fire on some tokens of a random text; one in twelve never fires.

    Args:
        each: samples drawn of each latent that fires, of the 45 that are asked for.
    """
    rng = np.random.default_rng(seed)
    words = [f" word{n}" for n in range(5_000)]
    pieces = ("<|start|>", *HOSTILE, *words)
    ids = np.minimum(rng.zipf(1.15, rows) + len(HOSTILE), len(pieces) - 1)
    hostile = rng.choice(rows, rows // 100, replace=False)
    ids[hostile] = 1 + np.arange(len(hostile)) % len(HOSTILE)
    ids[::BLOCK] = 0
    vocabulary = Vocabulary(np.arange(len(pieces)), pieces, (0,), 0)
    text = Text(((0, rows),), ids.astype(np.int64), BLOCK)
    samples = _samples(rng, latents, rows, each)
    tally = Tally(latents, len(pieces), rows)
    tally.add(ids, samples.row, samples.latent, samples.value)
    near = [[((i + k) % latents, 0.5 / k, k < 3) for k in range(1, 7)] for i in range(latents)]
    bank = BankWires(0, ["blocks.1.hook_x"], ["blocks.1.hook_x"], *np.ones((2, 1, latents)))
    own = Latents(
        samples=samples,
        text_rows=samples.row,
        tokens=tally.found(),
        together=near,
        near=near,
        banks=[bank],
        units=[[(1, 0.5), (2, -0.25), (3, 0.125)]] * latents,
        norms=np.ones(latents),
        cosines=np.full(latents, 0.5),
        logits=_logits(rng, latents, len(pieces)),
    )
    return samples, text, vocabulary, own


def _logits(rng: Any, latents: int, tokens: int) -> Logits:
    values = np.sort(rng.standard_normal((latents, TOKENS)) + 4)[:, ::-1]
    kinds = [(rng.integers(0, tokens, (latents, TOKENS)), sign * values) for sign in (1, -1, 1, -1)]
    return Logits(*kinds, following=rng.standard_normal(latents), path="made up")


def _samples(rng: Any, latents: int, rows: int, each: int) -> Samples:
    latent = np.repeat(np.flatnonzero(np.arange(latents) % 12 != 11), each).astype(np.int32)
    band = np.sort(rng.integers(0, BANDS + 1, (len(latent) // each, each)), axis=1)
    band[:, 0] = 0
    band = band.reshape(-1).astype(np.int8)
    value = ((BANDS + 0.9 - np.maximum(band, 1)) / BANDS * 3).astype(np.float32)
    row = rng.integers(0, rows // BLOCK, len(latent)) * BLOCK + rng.integers(1, BLOCK, len(latent))
    around = np.zeros((len(latent), 2 * REACH + 1), np.float32)
    fires = rng.random(around.shape) < 0.1
    around[fires] = 3 * rng.random(int(fires.sum()))
    place = np.arange(-REACH, REACH + 1)
    outside = (row[:, None] + place) // BLOCK != (row // BLOCK)[:, None]
    around[outside] = 0
    around[:, REACH] = value
    fired = np.zeros(latents, np.int64)
    alive = np.unique(latent)
    fired[alive] = rng.integers(each, 3_000, len(alive))
    histogram = np.zeros((latents, BINS), np.int64)
    histogram[alive] = rng.multinomial(200, np.full(BINS, 1 / BINS), len(alive))
    largest = np.where(fired > 0, 3.0, 0).astype(np.float32)
    return Samples(
        hook_name="blocks.1.hook_x",
        fingerprint="0123456789abcdef",
        rows=rows,
        before=REACH,
        after=REACH,
        bands=BANDS,
        latent=latent,
        band=band,
        row=row,
        value=value,
        around=around,
        starts=starts_of(latent, latents),
        fired=fired,
        blocks=np.minimum(fired, rows // BLOCK),
        largest=largest,
        mean=largest / 2,
        deviation=largest / 4,
        histogram=histogram,
        windows=fired[:, None],
        window_rows=np.array([rows]),
    )


def meta_of(made: Made, runs: int = 1) -> dict[str, Any]:
    """What the overview of such a report says."""
    samples, text, vocabulary, _ = made
    site = "blocks.1.hook_x"
    return {
        "title": "a model, blocks.1.hook_x",
        "lede": "Made up.",
        "where": "a model · blocks.1.hook_x",
        "made": "Made up.",
        "facts": [["Model", "a model"], ["Text", "<b>bold</b>"]],
        "held_out": 10_000,
        "edges": DENSITY_EDGES.tolist(),
        "special": list(vocabulary.special),
        "bos": vocabulary.bos,
        "wide": False,
        "part": PART,
        "text_part": TEXT_PART,
        "text_rows": len(text),
        "spans": [list(span) for span in text.spans],
        "block": BLOCK,
        "bands": BANDS,
        "telling": TELLING,
        "latents": {
            "dictionary": "run 0",
            "site": site,
            "lede": "Made up.",
            "blocks": text.blocks,
            "strongest": "Strongest, one a block",
            "wires": [{"reads": [site], "writes": [site]}],
            "whose": None,
            "no_logits": "No model was given.",
            "logits_warning": "The tokens that do follow are mostly not among these",
            "logits_path": "By a path that is made up.",
        },
        "probe": None,
        "figures": [],
        "runs": [_run(i, samples.d_sae) for i in range(runs)],
        "told": ["init", "seed"],
        "shown": 0,
        "runs_note": "Made up.",
        "cards": [0, 1],
        "cards_title": "Some latents",
        "cards_note": "Made up.",
    }


def _run(i: int, d_sae: int) -> dict[str, Any]:
    fvu = 0.3 + 0.02 * (i * 5 % 8)
    name = f"run {i}" if i != 3 else "<script>window.hacked = 5</script>"
    return {
        "name": name,
        "label": name,
        "told": [("random", "rkcnn")[i % 2], str(i)],
        "control": False,
        "d_sae": d_sae,
        "layer": 1,
        "fvu": fvu,
        "fvu_interval": [fvu - 0.01, fvu + 0.01],
        "difference": None if i == 0 else 0.01 * i,
        "difference_interval": None if i == 0 else [0.01 * i - 0.002, 0.01 * i + 0.002],
        "dead": d_sae // (i + 2),
        "l0": 32.0,
        "dense": i,
        "density": [1] * (len(DENSITY_EDGES) - 1),
        "sites": [],
        "prefixes": [],
        "norms": [],
        "curve": [[20 * k, 1 / (k + 1), k * 10] for k in range(1, 20)],
        "notes": [],
    }


def made_up_probe() -> ProbePage:
    """A probe whose chance is one bin, far below its scores, as it is of a real site."""
    rng = np.random.default_rng(0)
    drawn = np.histogram(rng.normal(35, 3, 600).clip(0, 42), 40, (0, 42))[0].tolist()
    scores = {
        "edges": np.linspace(0, 42, 41).tolist(),
        "drawn": drawn,
        "drawn_range": [25.0, 42.0],
        "chance": [600] + [0] * 39,
        "chance_range": [0.2, 0.7],
        "lowest_kept": 35.3,
        "said": ["Made up."],
    }
    some = [[row, 20, 41, [20, 255]] for row in (64, 192, 320)]
    shown = {"score": 40.0, "dimensions": [[7, 900], [3, -400]], "largest": 9.0, "mean": 4.0}
    directions = [{**shown, "tokens": [k, k + 1], "samples": some} for k in (1, 20)]
    meta = {"score": "kurtosis", "found": 8, "lede": "Made up.", "facts": [["Kept", "200"]]}
    return ProbePage(meta | {"chance": "Made up.", "note": "Made up."}, scores, directions)


def write_made_up(
    out: Path,
    latents: int,
    runs: int = 1,
    names: dict[str, str] | None = None,
    probed: bool = False,
    **how: Any,
) -> Made:
    """Write such a report; returns what it was written from."""
    made = made_up(latents, **how)
    _, text, vocabulary, own = made
    probe = made_up_probe() if probed else None
    meta = meta_of(made, runs) | {"probe": probe and probe.meta}
    write_folder(out, meta, names or {}, text, vocabulary, own, probe)
    return made
