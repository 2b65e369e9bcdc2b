"""What a codec costs: in bits, in the values, in what a probe finds, in what a dictionary learns.

    python pipelines/codec_study.py    # writes docs/codecs.json, docs/codecs.md, the figure

The same tokens are stored with every codec. Each probe and each dictionary is then made
from each store with the same seed and the same order of rows, so that the stored numbers
are all that differs, and is compared with what another seed alone would change. Every
dictionary is evaluated on the float32 values.
"""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from rkstore import harvest
from rkstore.cli import Command
from rkstore.codecs import CODECS, codec_named
from rkstore.evaluate import evaluate
from rkstore.formats import compression_for
from rkstore.manifest import COLUMNS
from rkstore.probe import probe
from rkstore.report import COLOURS
from rkstore.settings import EvaluateSettings, HarvestSettings, ProbeSettings, TrainSettings
from rkstore.store import Store
from rkstore.train import train
from rkstore.writer import StoreWriter

REFERENCE = "float32"


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


def values(store: Store, layers: list[int]) -> list[dict[str, Any]]:
    """Bits a value and error of each layer of one store."""
    rows = []
    for layer in layers:
        site = store.site(layer)
        bits = 8 * store.stored_bytes(site) / (store.rows * store.manifest.width(site))
        row = {"codec": store.manifest.codec, "layer": layer, "bits": bits}
        rows.append(row | {"fvu": store.codec_fvu(site)})
    return rows


def probes(stores: dict[str, Store], layer: int, work: Path) -> list[dict[str, Any]]:
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
    stores: dict[str, Store], layer: int, seeds: int, steps: int, work: Path
) -> list[dict[str, Any]]:
    """FVU, L0 and dead latents of dictionaries trained from each store, and of other seeds."""
    runs = [(name, 0) for name in stores] + [(REFERENCE, seed) for seed in range(1, seeds)]
    rows = []
    for codec, seed in tqdm(runs, desc=f"layer {layer}", unit="run", disable=None):
        path = train(
            TrainSettings(
                store=str(stores[codec].root),
                layer=layer,
                d_sae=1024,
                steps=steps,
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


def page(study: dict[str, Any]) -> str:
    """The study in words and tables, as Markdown."""
    l0 = [row["l0"] for row in study["dictionaries"]]
    return TEXT.format(
        tokens=f"{study['tokens']:,}",
        layers=_span(study["layers"]),
        steps=study["steps"],
        seeds=study["seeds"],
        held_out=f"{study['dictionaries'][0]['rows']:,}",
        values=_values_table(study),
        probes=_probes_table(study),
        dictionaries=_dictionaries_table(study),
        l0=" to ".join(sorted({f"{min(l0):.1f}", f"{max(l0):.1f}"})),
        int8=_spread(study, "int8")[0],
        int6=_spread(study, "int6")[0],
        seed=_spread(study, "int8")[1],
    )


def _span(layers: list[int]) -> str:
    if len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(str(layer) for layer in layers)


def _values_table(study: dict[str, Any]) -> str:
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


def _probes_table(study: dict[str, Any]) -> str:
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


def _dictionaries_table(study: dict[str, Any]) -> str:
    codecs = [codec for codec in study["codecs"] if codec != REFERENCE]
    lines = [
        f"| layer | FVU | {' | '.join(codecs)} | other seeds | dead |",
        "|---:|---:|" + "---:|" * (len(codecs) + 2),
    ]
    for layer in study["layers"]:
        rows = [row for row in study["dictionaries"] if row["layer"] == layer]
        [base] = [r["fvu"] for r in rows if (r["codec"], r["seed"]) == (REFERENCE, 0)]
        change = {r["codec"]: r["fvu"] / base - 1 for r in rows if r["seed"] == 0}
        seeds = [r["fvu"] / base - 1 for r in rows if r["seed"]]
        dead = [row["dead"] for row in rows]
        cells = [f"{change[codec]:+.2%}" for codec in codecs]
        cells += [f"{min(seeds):+.2%} to {max(seeds):+.2%}", f"{min(dead)} to {max(dead)}"]
        lines.append(f"| {layer} | {base:.4f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(study: dict[str, Any], codec: str) -> tuple[float, float]:
    """Mean over layers of the size of the change of FVU by the codec, and by other seeds."""
    by_codec, by_seed = [], []
    for layer in study["layers"]:
        rows = [row for row in study["dictionaries"] if row["layer"] == layer]
        [base] = [r["fvu"] for r in rows if (r["codec"], r["seed"]) == (REFERENCE, 0)]
        by_seed += [abs(r["fvu"] / base - 1) for r in rows if r["seed"]]
        by_codec += [
            abs(r["fvu"] / base - 1) for r in rows if r["codec"] == codec and not r["seed"]
        ]
    return float(np.mean(by_codec)), float(np.mean(by_seed))


def figure(study: dict[str, Any], path: Path) -> None:
    """Change of a dictionary's FVU by codec, against the change by seed, for each layer."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 4), layout="constrained")
    axis: Any = drawn.subplots()
    names = [*study["codecs"], "another seed"]
    for i, layer in enumerate(study["layers"]):
        rows = [row for row in study["dictionaries"] if row["layer"] == layer]
        [base] = [r["fvu"] for r in rows if (r["codec"], r["seed"]) == (REFERENCE, 0)]
        places = [names.index(r["codec"] if r["seed"] == 0 else names[-1]) for r in rows]
        across = np.array(places) + 0.6 * ((i + 0.5) / len(study["layers"]) - 0.5)
        axis.plot(across, [100 * (r["fvu"] / base - 1) for r in rows], "o", ms=4, color=COLOURS[0])
    axis.set_xticks(range(len(names)), names)
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set(
        ylabel="change of FVU, %",
        title="Dictionaries from stored values, against float32; layers side by side",
    )
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=110, metadata={"Software": None})


@click.command(cls=Command)
@click.option("--model", default="demo", show_default=True)
@click.option("--dataset", default="python", show_default=True)
@click.option("--tokens", default=65_536, show_default=True)
@click.option(
    "--layers",
    default="0,1,2,3,4,5,6,7,8,9,10,11",
    show_default=True,
    help="For probes and dictionaries.",
)
@click.option("--steps", default=200, show_default=True, help="Steps of each dictionary.")
@click.option("--seeds", default=4, show_default=True, help="Seeds of the float32 dictionaries.")
@click.option("--out", type=Path, default=Path("docs"), show_default=True)
def main(
    model: str, dataset: str, tokens: int, layers: str, steps: int, seeds: int, out: Path
) -> None:
    """Measure every codec, and write the page that says what it costs."""
    chosen = [int(layer) for layer in layers.split(",")]
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        settings = HarvestSettings(
            model=model,
            dataset=dataset,
            tokens=tokens,
            seed=1,
            codec=REFERENCE,
            out=str(work / REFERENCE),
        )
        stores = {REFERENCE: harvest.run(harvest.prepare(settings))}
        for codec in CODECS:
            if codec != REFERENCE:
                stores[codec] = recode(stores[REFERENCE], codec, work / codec)
        every = list(range(len(stores[REFERENCE].manifest.sites)))
        study: dict[str, Any] = {
            "store_fingerprint": stores[REFERENCE].manifest.fingerprint,
            "tokens": stores[REFERENCE].rows,
            "codecs": list(stores),
            "compressions": {name: store.manifest.compression for name, store in stores.items()},
            "layers": chosen,
            "steps": steps,
            "seeds": seeds,
            "values": [row for store in stores.values() for row in values(store, every)],
            "probes": [row for layer in chosen for row in probes(stores, layer, work)],
            "dictionaries": [
                row for layer in chosen for row in dictionaries(stores, layer, seeds, steps, work)
            ],
        }
    (out / "codecs.json").write_text(json.dumps(study, indent=1) + "\n", "utf-8")
    (out / "codecs.md").write_text(page(study), "utf-8")
    figure(study, out / "images" / "codecs.png")
    click.echo(out / "codecs.md")


TEXT = """# What a codec costs

Measured by `python pipelines/codec_study.py` on the demo model: {tokens} tokens stored once with
every codec, from one run of the model ([codecs.json](codecs.json) has every number).

## Values

Zarr; mean over the 12 layers, range in brackets; scales and offsets are counted. FVU is the squared
error of the stored values over the variance of the site.

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
dictionary from float32, then how much it changes with the codec alone and with the seed alone; dead
is the range of latents that never fired over all of the row. L0 is {l0} in every run.

{dictionaries}

![Change of FVU by codec and by seed](images/codecs.png)

On average over the layers int8 changes the FVU of a dictionary by {int8:.2%}, int6 by {int6:.2%},
and another seed by {seed:.2%}. The dictionaries are small and trained briefly: what this shows is
whether a codec changes a result by more than another seed does.
"""


if __name__ == "__main__":
    main()
