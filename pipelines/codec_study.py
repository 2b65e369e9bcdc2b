"""What a codec costs: in bits, in the values, in what a probe finds, in what a dictionary learns.

    python pipelines/codec_study.py

writes docs/codecs.json, docs/codecs.md and its picture, together, once all is measured.

The same tokens are stored with every codec. Each probe and each dictionary is then made
from each store with the same seed and the same order of rows, so that the stored numbers
are all that differs, and is compared with what another seed alone would change. Every
dictionary is evaluated on the float32 values.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from arms import as_in, directory
from results import Row, as_json, start, write_together
from tqdm import tqdm

from rkstore import harvest
from rkstore.cli import Command, options_of
from rkstore.codecs import CODECS, codec_named
from rkstore.evaluate import evaluate
from rkstore.formats import compression_for
from rkstore.manifest import COLUMNS
from rkstore.probe import probe
from rkstore.report import COLOURS, png
from rkstore.settings import (
    EvaluateSettings,
    HarvestSettings,
    ProbeSettings,
    Settings,
    TrainSettings,
    option,
    parse_layers,
)
from rkstore.store import Store
from rkstore.train import train
from rkstore.writer import StoreWriter

REFERENCE = "float32"


@dataclass(frozen=True, kw_only=True)
class CodecStudySettings(Settings):
    """What is stored, and how much is made of it."""

    model: str = as_in(HarvestSettings, "model", default="demo")
    dataset: str = as_in(HarvestSettings, "dataset", default="python")
    tokens: int = as_in(HarvestSettings, "tokens", default=65_536)
    layers: str = option("all", "Blocks for probes and dictionaries: 'all', or a list as 0-3,8.")
    steps: int = option(200, "Steps of each dictionary.", least=1)
    seeds: int = option(4, "Seeds of the float32 dictionaries.", least=2)
    out: str = directory("docs")


def recode(store: Store, codec: str, out: Path) -> Store:
    """Write the rows of a float32 store again with another codec."""
    compression = compression_for(store.manifest.format, codec_named(codec).dtype)
    manifest = dataclasses.replace(store.manifest, codec=codec, compression=compression)
    with StoreWriter(out, manifest) as writer:
        while writer.next_shard < manifest.shards:
            rows = manifest.rows_of_shard(writer.next_shard)
            writer.write_shard(
                {name: store.read(name, *rows) for name in manifest.hook_names},
                {name: store.column(name, *rows) for name in COLUMNS},
            )
    return Store(out)


def values(store: Store, layers: Sequence[int]) -> list[Row]:
    """Bits a value and error of each layer of one store."""
    rows = []
    for layer in layers:
        site = store.site(layer)
        bits = 8 * store.stored_bytes(site) / (store.rows * store.manifest.width(site))
        row = {"codec": store.manifest.codec, "layer": layer, "bits": bits}
        rows.append(row | {"fvu": store.codec_fvu(site)})
    return rows


def probes(stores: dict[str, Store], layer: int, work: Path) -> list[Row]:
    """How much of a probe's choice and directions each codec leaves as float32 has them.

    ``overlap`` is the share of the top subsets that both chose, ``cosine`` the mean cosine
    of the directions of those.
    """
    found = {}
    for name, store in stores.items():
        settings = ProbeSettings(store=str(store.root), layer=layer, out=str(work / "probe"))
        found[name] = probe(settings)[0]
    reference = _directions(found[REFERENCE])
    rows = []
    for name, result in found.items():
        directions = _directions(result)
        common = reference.keys() & directions.keys()
        # A principal direction has no sign of its own.
        cosines = [abs(float(reference[s] @ directions[s])) for s in common]
        overlap = len(common) / len(reference)
        row = {"codec": name, "layer": layer, "overlap": overlap}
        rows.append(row | {"cosine": float(np.mean(cosines)), "least_cosine": min(cosines)})
    return rows


def dictionaries(
    stores: dict[str, Store], layer: int, settings: CodecStudySettings, work: Path
) -> list[Row]:
    """FVU, L0 and dead latents of dictionaries trained from each store, and of other seeds."""
    runs = [(name, 0) for name in stores] + [(REFERENCE, seed) for seed in range(1, settings.seeds)]
    rows = []
    for codec, seed in tqdm(runs, desc=f"layer {layer}", unit="run", disable=None):
        path = train(
            TrainSettings(
                store=str(stores[codec].root),
                layer=layer,
                d_sae=1024,
                steps=settings.steps,
                seed=seed,
                name=f"{layer}-{codec}-{seed}",
                out=str(work),
            )
        )
        [result] = evaluate([path], EvaluateSettings(store=str(stores[REFERENCE].root)))
        row = {"codec": codec, "layer": layer, "seed": seed, "fvu": result.fvu}
        rows.append(row | {"l0": result.l0, "dead": result.dead, "rows": result.rows})
    return rows


def _directions(result: Any) -> dict[tuple[int, ...], np.ndarray]:
    pairs = zip(result.top_subsets.tolist(), result.top_directions.numpy(), strict=True)
    return {tuple(subset): direction for subset, direction in pairs}


def study(settings: CodecStudySettings) -> Row:
    """Everything that is measured, for JSON. The stores are removed."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        ready = harvest.prepare(
            HarvestSettings(
                model=settings.model,
                dataset=settings.dataset,
                tokens=settings.tokens,
                seed=1,
                codec=REFERENCE,
                out=str(work / REFERENCE),
            )
        )
        sites = len(ready.manifest.sites)
        layers = parse_layers(settings.layers, sites)
        stores = {REFERENCE: harvest.run(ready)}
        for codec in CODECS:
            if codec != REFERENCE:
                stores[codec] = recode(stores[REFERENCE], codec, work / codec)
        return {
            "store_fingerprint": stores[REFERENCE].manifest.fingerprint,
            "model": settings.model,
            "dataset": settings.dataset,
            "tokens": stores[REFERENCE].rows,
            "codecs": list(stores),
            "compressions": {name: store.manifest.compression for name, store in stores.items()},
            "layers": layers,
            "steps": settings.steps,
            "seeds": settings.seeds,
            "values": [row for store in stores.values() for row in values(store, range(sites))],
            "probes": [row for layer in layers for row in probes(stores, layer, work)],
            "dictionaries": [
                row for layer in layers for row in dictionaries(stores, layer, settings, work)
            ],
        }


def documents(study: Row, out: Path) -> dict[Path, bytes]:
    """What is written, by path: every number, the page, its picture."""
    return {
        out / "codecs.json": as_json(study),
        out / "codecs.md": page(study).encode(),
        out / "images" / "codecs.png": png(figure(study)),
    }


def page(study: Row) -> str:
    """The study in words and tables, as Markdown."""
    l0 = [row["l0"] for row in study["dictionaries"]]
    return TEXT.format(
        # Before they were recorded, they were the only ones.
        model=study.get("model", "demo"),
        sites=len({row["layer"] for row in study["values"]}),
        tokens=f"{study['tokens']:,}",
        layers=_span(study["layers"]),
        steps=study["steps"],
        seeds=study["seeds"],
        held_out=f"{study['dictionaries'][0]['rows']:,}",
        values=_values_table(study),
        probes=_probes_table(study),
        dictionaries=_dictionaries_table(study),
        l0=" to ".join(sorted({f"{min(l0):.1f}", f"{max(l0):.1f}"})),
        pairs=len(by_seed(study, study["layers"][0])),
        int8=_mean_change(study, "int8"),
        int6=_mean_change(study, "int6"),
        seed=_mean_change(study, None),
    )


def _span(layers: list[int]) -> str:
    if len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(str(layer) for layer in layers)


def _values_table(study: Row) -> str:
    lines = [
        "| codec | compression | bits/value | × float32 | FVU of the values |",
        "|---|---|---:|---:|---:|",
    ]
    for codec in study["codecs"]:
        rows = [row for row in study["values"] if row["codec"] == codec]
        bits, fvu = [row["bits"] for row in rows], [row["fvu"] for row in rows]
        compression = study["compressions"][codec]
        lines.append(
            f"| {codec} | {compression} "
            f"| {np.mean(bits):.2f} ({min(bits):.2f}-{max(bits):.2f}) "
            f"| {32 / np.mean(bits):.1f} | {np.mean(fvu):.1e} ({min(fvu):.1e}-{max(fvu):.1e}) |"
        )
    return "\n".join(lines)


def _probes_table(study: Row) -> str:
    lines = [
        "| codec | top subsets kept | mean cosine of directions | least |",
        "|---|---:|---:|---:|",
    ]
    for codec in study["codecs"]:
        rows = [row for row in study["probes"] if row["codec"] == codec]
        overlap, cosine = [r["overlap"] for r in rows], [r["cosine"] for r in rows]
        lines.append(
            f"| {codec} | {np.mean(overlap):.1%} | {np.mean(cosine):.6f} "
            f"| {min(r['least_cosine'] for r in rows):.4f} |"
        )
    return "\n".join(lines)


def _dictionaries_table(study: Row) -> str:
    codecs = [codec for codec in study["codecs"] if codec != REFERENCE]
    lines = [
        f"| layer | FVU | {' | '.join(codecs)} | two seeds | dead |",
        "|---:|---:|" + "---:|" * (len(codecs) + 2),
    ]
    for layer in study["layers"]:
        dead = [row["dead"] for row in study["dictionaries"] if row["layer"] == layer]
        seeds = [abs(change) for change in by_seed(study, layer)]
        cells = [f"{by_codec(study, layer, codec):+.2%}" for codec in codecs]
        cells += [f"{min(seeds):.2%} to {max(seeds):.2%}", f"{min(dead)} to {max(dead)}"]
        fvu = _fvu(study, layer, REFERENCE)[0]
        lines.append(f"| {layer} | {fvu:.4f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _fvu(study: Row, layer: int, codec: str) -> dict[int, float]:
    """FVU of the dictionaries of one layer and codec, by seed."""
    return {
        row["seed"]: row["fvu"]
        for row in study["dictionaries"]
        if (row["layer"], row["codec"]) == (layer, codec)
    }


def by_codec(study: Row, layer: int, codec: str) -> float:
    """How much the FVU of a dictionary changes with the codec alone, as a share of it."""
    return _fvu(study, layer, codec)[0] / _fvu(study, layer, REFERENCE)[0] - 1


def by_seed(study: Row, layer: int) -> list[float]:
    """How much it changes with the seed alone: every pair of seeds, the first as it was drawn."""
    fvu = _fvu(study, layer, REFERENCE)
    return [fvu[other] / fvu[one] - 1 for one, other in itertools.combinations(sorted(fvu), 2)]


def _mean_change(study: Row, codec: str | None) -> float:
    """Mean size, over layers, of the change by a codec; by another seed, without one."""
    changes = [
        by_seed(study, layer) if codec is None else [by_codec(study, layer, codec)]
        for layer in study["layers"]
    ]
    return float(np.mean([abs(change) for of_layer in changes for change in of_layer]))


def figure(study: Row) -> Any:
    """Change of a dictionary's FVU by codec, against the change by seed, for each layer."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 4), layout="constrained")
    axis: Any = drawn.subplots()
    codecs = [codec for codec in study["codecs"] if codec != REFERENCE]
    for i, layer in enumerate(study["layers"]):
        aside = 0.6 * ((i + 0.5) / len(study["layers"]) - 0.5)
        pairs = by_seed(study, layer)
        columns = [[by_codec(study, layer, codec)] for codec in codecs]
        # Neither of two seeds is the first.
        for place, changes in enumerate([*columns, pairs + [-change for change in pairs]]):
            percent = [100 * change for change in changes]
            axis.plot([place + aside] * len(percent), percent, "o", ms=4, color=COLOURS[0])
    axis.set_xticks(range(len(codecs) + 1), [*codecs, "another seed"])
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set(
        ylabel="change of FVU, %",
        title="Dictionaries from stored values, against float32; layers side by side",
    )
    axis.spines[["top", "right"]].set_visible(False)
    return drawn


@click.command("codec_study", cls=Command)
@options_of(CodecStudySettings)
def main(settings: CodecStudySettings) -> None:
    """Measure every codec, and write the page that says what it costs."""
    found = study(settings)
    write_together(documents(found, Path(settings.out)))
    click.echo(Path(settings.out) / "codecs.md")


TEXT = """# What a codec costs

Measured by `python pipelines/codec_study.py` on the {model} model: {tokens} tokens stored once with
every codec, from one run of the model ([codecs.json](codecs.json) has every number).

## Values

Zarr; mean over the {sites} layers, range in brackets; scales and offsets are counted. FVU is the
squared error of the stored values over the variance of the site.

{values}

## What a probe finds

RkCNN, kurtosis, 600 subsets of which 200 are kept, layers {layers}, the same seed for every
codec: how many of float32's top subsets are kept, and the cosine of their directions, up to sign,
with float32's.

{probes}

## What a dictionary learns

TopK dictionaries (1,024 latents, k = 32, {steps} steps), layers {layers}, trained from each
store with the same seed and the same order of rows, and from the float32 store with {seeds} seeds.
All are evaluated on the float32 values of the same {held_out} held-out tokens. FVU is that of the
dictionary from float32 with seed 0, then how much it changes with the codec alone; two seeds is how
far apart the seeds lie, from the nearest to the furthest of all {pairs} pairs; dead is the range of
latents that never fired over all of the row. L0 is {l0} in every run.

{dictionaries}

![Change of FVU by codec and by seed](images/codecs.png)

On average over the layers int8 changes the FVU of a dictionary by {int8:.2%}, int6 by {int6:.2%},
and another seed by {seed:.2%}. The dictionaries are small and trained briefly: what this shows is
whether a codec changes a result by more than another seed does.
"""


if __name__ == "__main__":
    start(main)
