"""What each option of a training is worth, with three seeds: ``docs/training_<model>.json``.

    rkstore harvest --model demo --dataset python --seed 1 --layers 6 --tokens 120000 \\
        --out stores/demo-6
    python pipelines/training_study.py --store stores/demo-6 --layer 6
    python pipelines/training_study.py --store stores/smollm2 --layer 15 --hook hook_resid_post \\
        --max-norm 10 --record docs/training_smollm2.json

The second store is that of ``zoo_study.py``.

Every arm differs from its base in the options of its name alone, and has the base's seeds: the
initial weights and the order of the rows are theirs. A run that is on record is not made again.
``--page docs/training.md`` writes the table of all records beside the page.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from results import put, start
from tqdm import tqdm

from rkstore.cli.options import Command
from rkstore.errors import BadInput
from rkstore.evaluation.evaluate import evaluate
from rkstore.evaluation.paired import Arms, Small, small_sample
from rkstore.evaluation.record import Row, Runs
from rkstore.evaluation.report.tables import table
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.store.open import open_store
from rkstore.store.store import Store
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"

RECORDS = "training_*.json"


@dataclass(frozen=True)
class Arm:
    """A dictionary that differs from its base in some options.

    Args:
        base: the name of the arm that it is compared with; None for a base.
        options: those in which it differs from the base, or, of a base, from the defaults.
    """

    base: str | None
    options: Mapping[str, Any]


def arms(steps: int, l1: float) -> dict[str, Arm]:
    """All arms, by what the table calls them."""
    half = steps // 2
    topk: dict[str, dict[str, Any]] = {
        "--norm one": {"norm": "one"},
        "--norm none": {"norm": "none"},
        "--norm centre": {"norm": "centre"},
        "--norm standardise": {"norm": "standardise"},
        "--norm whiten": {"norm": "whiten"},
        "--auxk 256": {"auxk": 256},
        "--resample-every": {"resample_every": steps // 4},
        "--ghost-gradients": {"ghost_gradients": True},
        "--k-start 128": {"k_start": 128, "k_anneal_steps": half},
        "--lr-schedule constant": {"lr_schedule": "constant"},
        "--lr-schedule cosine --decay 1": {"lr_schedule": "cosine", "decay": 1.0},
        "--clip 1": {"clip": 1.0},
        "--lr 0.006": {"lr": 0.006},
        "--ema 0.999": {"ema": 0.999},
        "--ema 0.99 --lr-schedule constant": {"ema": 0.99, "lr_schedule": "constant"},
        "--center geometric-median": {"center": "geometric-median"},
        "--no-unit-decoder --code-norm sae": {"unit_decoder": False, "code_norm": "sae"},
        "--dtype bfloat16": {"dtype": "bfloat16"},
        "--order pairs": {"order": "pairs"},
        "--order pairs --temporal 0.1": {"order": "pairs", "temporal": 0.1},
        "--init tied": {"init": "tied"},
        "--control frozen-decoder": {"init": "tied", "control": "frozen-decoder"},
        "--control soft-frozen-decoder": {"init": "tied", "control": "soft-frozen-decoder"},
        "--control frozen-encoder": {"init": "tied", "control": "frozen-encoder"},
    }
    relu: dict[str, dict[str, Any]] = {
        "--p-end 0.2": {"p_end": 0.2, "anneal_steps": half},
        "--sparsity-warmup": {"sparsity_warmup": half},
        "--entropy 0.1": {"entropy": 0.1},
    }
    return (
        {"topk": Arm(None, {"dictionary": "topk", "k": 32})}
        | {name: Arm("topk", options) for name, options in topk.items()}
        | {"relu": Arm(None, {"dictionary": "relu", "l1": l1})}
        | {name: Arm("relu", options) for name, options in relu.items()}
    )


@click.command(cls=Command)
@click.option("--store", type=Path, help="Without it, only the page is written.")
@click.option("--layer", default=6, show_default=True)
@click.option("--hook", default="mlp.hook_post", show_default=True)
@click.option("--max-norm", type=float, help="As of 'rkstore train'.")
@click.option("--d-sae", default=2048, show_default=True)
@click.option("--steps", default=600, show_default=True)
@click.option("--batch-size", default=512, show_default=True)
@click.option("--l1", default=3.0, show_default=True, help="Of the relu base.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--out", type=Path, default="checkpoints", show_default=True)
@click.option("--record", type=Path, default="docs/training_demo.json", show_default=True)
@click.option("--page", type=Path, help="Page to write the table of all records beside it into.")
def main(
    store: Path | None,
    layer: int,
    hook: str,
    max_norm: float | None,
    d_sae: int,
    steps: int,
    batch_size: int,
    l1: float,
    seeds: int,
    out: Path,
    record: Path,
    page: Path | None,
) -> None:
    """Train, evaluate and record every arm with every seed."""
    if store is not None:
        opened = open_store(str(store))
        shared = {"d_sae": d_sae, "steps": steps, "batch_size": batch_size, "max_norm": max_norm}
        site = opened.site(layer, hook)
        of_store = {"model": opened.manifest.source["model"]["name"], "site": site}
        of_store |= {"store_fingerprint": opened.manifest.fingerprint, "rows": opened.rows}
        runs = Runs(record, of_store | shared | {"l1": l1})
        chosen = arms(steps, l1)
        wanted = [(arm, seed) for seed in range(seeds) for arm in chosen]
        for name, seed in tqdm(wanted, desc=of_store["model"], unit="run", disable=None):
            if not runs.find(arm=name, seed=seed):
                where = {"seed": seed, "layer": str(layer), "hook": hook}
                options = given(chosen, name) | shared | where
                runs.add([_run(name, seed, opened, options, out)])
    if page:
        fill(page)


def given(chosen: Mapping[str, Arm], name: str) -> dict[str, Any]:
    """The options of an arm: those of its base, and its own."""
    arm = chosen[name]
    base = chosen[arm.base].options if arm.base else {}
    return {**base, **arm.options}


def _run(name: str, seed: int, store: Store, options: Mapping[str, Any], out: Path) -> Row:
    """Train and evaluate one dictionary, which is then removed."""
    where = {"store": str(store.where), "name": f"{seed}/{name.replace(' ', '')}", "out": str(out)}
    checkpoint = train(TrainSettings(**options, **where))
    measure = EvaluateSettings(store=str(store.where), max_norm=options["max_norm"])
    (result,) = evaluate([checkpoint], measure)
    shutil.rmtree(checkpoint)
    numbers = {"fvu": result.fvu, "l0": result.l0, "dead_share": result.dead_share}
    return {"arm": name, "seed": seed, "layer": options["layer"]} | numbers


def records(directory: Path) -> list[Path]:
    """The records of all models."""
    return sorted(directory.glob(RECORDS))


def measured(documents: Sequence[Row]) -> str:
    """One table of all models: each arm's FVU and dead latents, less those of its base."""
    known = [Arms(document["runs"], arm="arm") for document in documents]
    head = ["options"]
    for document in documents:
        head += [f"{document['settings']['model']}: {of}" for of in ("FVU, %", "L0", "dead, %")]
    chosen = arms(documents[0]["settings"]["steps"], documents[0]["settings"]["l1"])
    rows = []
    for name, arm in chosen.items():
        row = [f"`{name}`" if arm.base else f"**{name}**"]
        for of_model in known:
            row += _cells(of_model, name, arm.base)
        rows.append(row)
    return table(head, rows)


def _cells(runs: Arms, name: str, base: str | None) -> list[str]:
    """FVU, L0 and dead latents of an arm in one model."""
    (layer,) = runs.layers
    l0 = small_sample(runs.values(name, layer, "l0")).mean
    cells = []
    for key in ("fvu", "dead_share"):
        if base is None:
            cells.append(f"{100 * small_sample(runs.values(name, layer, key)).mean:.2f}")
        else:
            cells.append(_signed(small_sample(runs.differences(name, base, key))))
    return [cells[0], f"{l0:.1f}", cells[1]]


def _signed(difference: Small) -> str:
    """A difference in points with half the width of its interval; bold if it excludes zero."""
    text = f"{100 * difference.mean:+.2f} ± {100 * difference.half:.2f}".replace("-", "−")
    return f"**{text}**" if abs(difference.mean) > difference.half else text


def fill(page: Path) -> None:
    """Write the table between the markers of the page."""
    documents = [json.loads(path.read_text("utf-8")) for path in records(page.parent)]
    if not documents:
        raise BadInput(f"there is no {RECORDS} beside {page}: make one with --store")
    put(page, BEGIN, END, measured(documents))


if __name__ == "__main__":
    start(main)
