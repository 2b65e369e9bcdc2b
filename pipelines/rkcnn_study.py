"""Does RkCNN's initialisation leave fewer dead latents? Paired arms, many seeds, every layer.

    python pipelines/rkcnn_study.py --config configs/rkcnn.yaml

For each layer and seed, all arms are trained on one reading of the store: the same random
base, the same rows in the same order; nothing differs but how they begin. They are evaluated
on a store of other text. Each layer and seed is recorded when it is done, so a study that was
stopped goes on with what is missing.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from lifetimes import Lifetimes
from tqdm import tqdm

from rkstore.batches import read_rows
from rkstore.dictionaries import load_dictionary
from rkstore.errors import BadInput, RkstoreError
from rkstore.evaluate import Measure
from rkstore.opening import open_store
from rkstore.settings import Settings, TrainSettings, from_yaml, option, parse_layers
from rkstore.store import Store
from rkstore.train import train_all

# What each arm changes of the settings that all share.
ARMS: dict[str, dict[str, Any]] = {
    "random": {"init": "random"},
    "random, another seed": {"init": "random", "seed": 1000},
    "tied": {"init": "tied"},
    "datapoint": {"init": "datapoint"},
    "subspace": {"init": "subspace"},
    "rkcnn-decoder": {"init": "rkcnn-decoder"},
    "rkcnn": {"init": "rkcnn"},
    "rkcnn-unscored": {"init": "rkcnn-unscored"},
    "sparse-random": {"init": "sparse-random"},
    "random + AuxK": {"init": "random", "auxk": 256},
    "rkcnn + AuxK": {"init": "rkcnn", "auxk": 256},
}


@dataclass(frozen=True, kw_only=True)
class StudySettings(Settings):
    """What is trained, on what, and how long it is watched."""

    store: str | None = option(None, "Store to train on.")
    held_out: str | None = option(None, "Store of other text to count dead latents on.")
    layers: str = option("all", "Blocks: 'all', or a list such as 0-3,8.")
    arms: tuple[str, ...] = option(tuple(ARMS), "Arms, of those in the pipeline.")
    seeds: int = option(8, "Seeds of each arm.", least=1)
    windows: tuple[str, ...] = option(
        ("10000", "100000", "1000000"), "Tokens in which a latent must fire to be alive."
    )
    fvu_rows: int = option(65_536, "Held-out rows for FVU and L0.", least=1)
    dictionary: str = option("topk", "Kind of sparse code.", choices=("topk", "relu"))
    d_sae: int = option(2048, "Latents.", least=1)
    k: int = option(32, "Active latents of a topk code.", least=1)
    l1: float = option(1.0, "Weight of the L1 penalty of a relu code.", least=0.0)
    steps: int = option(500, "Batches to train on.", least=1)
    batch_size: int = option(1024, "Rows in a batch.", least=1)
    lr: float = option(3e-3, "Peak learning rate of Adam.", least=0.0)
    warmup: int = option(100, "Steps over which the learning rate rises.", least=0)
    out: str = option("results/rkcnn_study.json", "JSON with every run.")


def study(settings: StudySettings) -> dict[str, Any]:
    """Run whatever is not recorded yet; return all there is."""
    train_store, held_out = open_store(settings.store), open_store(settings.held_out)
    _check(settings, train_store, held_out)
    document = _recorded(settings, train_store, held_out)
    done = {(run["layer"], run["seed"], run["arm"]) for run in document["runs"]}
    layers = parse_layers(settings.layers, len(train_store.hook_names))
    left = [
        (layer, seed, arms)
        for seed in range(settings.seeds)
        for layer in layers
        if (arms := [arm for arm in settings.arms if (layer, seed, arm) not in done])
    ]
    for layer, seed, arms in tqdm(left, unit="layer and seed", desc="study", disable=None):
        document["runs"] += _runs(settings, held_out, layer, seed, arms)
        _record(document, Path(settings.out))
    return document


def _runs(
    settings: StudySettings, held_out: Store, layer: int, seed: int, arms: list[str]
) -> list[dict[str, Any]]:
    """Train the arms of one layer and seed on one reading, and evaluate them on another."""
    with tempfile.TemporaryDirectory() as directory:
        chosen = [_train_settings(settings, layer, seed, arm, directory) for arm in arms]
        paths = train_all(chosen)
        dictionaries = [load_dictionary(path)[0] for path in paths]
    site = held_out.site(layer)
    lives = [Lifetimes(dictionary) for dictionary in dictionaries]
    measures = [Measure(dictionary) for dictionary in dictionaries]
    for x in _rows(held_out, site, max(_windows(settings))):
        for life, measure in zip(lives, measures, strict=True):
            if life.tokens < settings.fvu_rows:
                measure.add(x)
            life.add(x)
    runs = []
    for arm, trained, life, measure in zip(arms, chosen, lives, measures, strict=True):
        found = measure.result(arm, site, held_out.codec_fvu(site))
        mined = round(trained.d_sae * trained.rkcnn_fraction) if trained.d_sae else 0
        dead = {str(window): life.dead(window) for window in _windows(settings)}
        runs.append(
            {
                "layer": layer,
                "seed": seed,
                "arm": arm,
                "dead": {window: int(which.sum()) for window, which in dead.items()},
                "dead_first": {window: int(which[:mined].sum()) for window, which in dead.items()},
                "first": mined,
                "l0": found.l0,
                "fvu": found.fvu,
                "dense": found.dense,
            }
        )
    return runs


def _train_settings(
    settings: StudySettings, layer: int, seed: int, arm: str, out: str
) -> TrainSettings:
    change = dict(ARMS[arm])
    # Another seed for weights and subsets; the rows still come in the same order.
    weights = seed + change.pop("seed", 0)
    shared = ("dictionary", "d_sae", "k", "l1", "steps", "batch_size", "lr", "warmup")
    common = {name: getattr(settings, name) for name in shared}
    return TrainSettings(
        store=settings.store,
        layer=layer,
        seed=weights,
        data_seed=seed,
        name=arm,
        out=out,
        checkpoint_every=settings.steps,
        **(common | change),
    )


def _rows(store: Store, site: str, most: int) -> Iterator[torch.Tensor]:
    """The first rows of a site, some at a time, exactly ``most`` of them."""
    left = most
    for batch in read_rows(store, [site], store.chunk_range, 4096):
        x = torch.from_numpy(batch.x[site][:left])
        yield x
        left -= len(x)
        if not left:
            return


def _windows(settings: StudySettings) -> list[int]:
    return [int(window) for window in settings.windows]


def _check(settings: StudySettings, store: Store, held_out: Store) -> None:
    unknown = [arm for arm in settings.arms if arm not in ARMS]
    if unknown:
        raise BadInput(f"--arms has no '{unknown[0]}': choose of {', '.join(ARMS)}")
    if any(not window.isdigit() or int(window) < 1 for window in settings.windows):
        raise BadInput(f"--windows takes numbers of tokens, not {', '.join(settings.windows)}")
    needed, there = max(_windows(settings)), held_out.stop_row - held_out.first_row
    if there < needed:
        raise BadInput(
            f"the largest window is {needed:,} tokens and {held_out.where} has {there:,} rows: "
            "harvest more, or give smaller --windows"
        )
    if store.hook_names != held_out.hook_names:
        raise BadInput(f"{store.where} and {held_out.where} have not the same sites")


def _recorded(settings: StudySettings, store: Store, held_out: Store) -> dict[str, Any]:
    """The document to go on with: a new one, or the one of the same study that is there."""
    identity = {
        "settings": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(settings).items()
            # How much of a study is done may grow; where things lie is not part of it.
            if key not in ("store", "held_out", "out", "layers", "arms", "seeds")
        },
        "store_fingerprint": store.manifest.fingerprint,
        "store_rows": [store.first_row, store.stop_row],
        "held_out_fingerprint": held_out.manifest.fingerprint,
        "held_out_rows": [held_out.first_row, held_out.stop_row],
    }
    path = Path(settings.out)
    if not path.exists():
        return identity | {"runs": []}
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for key, value in identity.items():
        if document.get(key) != value:
            raise BadInput(f"{path} is of another study ({key} differs): choose another --out")
    return document


def _record(document: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    aside.replace(path)


@click.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--store", help="Store to train on, in place of the file's.")
@click.option("--held-out", help="Store to count dead latents on, in place of the file's.")
@click.option("--out", help="JSON with every run, in place of the file's.")
def main(config: Path, **given: str | None) -> None:
    """Train and evaluate what is not recorded yet."""
    try:
        chosen = {key: value for key, value in given.items() if value is not None}
        settings = from_yaml(StudySettings, config, chosen)
        runs = len(study(settings)["runs"])
    except RkstoreError as error:
        raise SystemExit(f"rkcnn_study: {error}") from None
    click.echo(f"{settings.out}: {runs} runs")


if __name__ == "__main__":
    main()
