"""One dictionary of each wiring, plain and nested, from a store and a second model's store.

``rkstore demo --zoo`` trains them on the bundled model, ``pipelines/zoo_study.py`` on a real one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.cli.streams import echo

if TYPE_CHECKING:
    from rkstore.evaluation.measure import Evaluation

# Layers of the demo's dictionaries of several layers, and of the bundled model.
SEVERAL, ALL = 4, 12

# Steps of tuning that make the demo's second model: about a minute on two cores.
TUNED = 60

# Shares of the latents of the nested ones.
NESTED = (0.125, 0.25, 0.5, 1.0)

RESIDUAL = "hook_resid_post"


@dataclass(frozen=True)
class Kind:
    """One dictionary of the zoo.

    Args:
        title: for the table.
        options: of its training, besides those that all share.
        two_models: whether it is of both stores.
    """

    title: str
    options: Mapping[str, Any]
    two_models: bool = False


def kinds(layers: str, layer: int) -> dict[str, Kind]:
    """The dictionaries by name: over some layers, or of one."""
    one, residual = {"layer": layer}, {"layer": layer, "hook": RESIDUAL}
    return {
        "sae": Kind("SAE", {"wiring": "sae", **residual}),
        "transcoder": Kind("transcoder", {"wiring": "transcoder", **one}),
        "skip-transcoder": Kind("skip transcoder", {"wiring": "transcoder", "skip": True, **one}),
        "per-layer": Kind("per-layer transcoders", {"wiring": "per-layer", "layers": layers}),
        "clt": Kind("cross-layer transcoder", {"wiring": "clt", "layers": layers}),
        "crosscoder": Kind(
            "crosscoder of layers", {"wiring": "crosscoder", "layers": layers, "hook": RESIDUAL}
        ),
        "diff": Kind("crosscoder of models", {"wiring": "crosscoder", **residual}, True),
        "dfc": Kind("dedicated features", {"wiring": "dfc", **residual}, True),
    }


def run(out: Path, *, tokens: int, steps: int, layer: int) -> None:
    """Train one of each on the bundled model and a copy of it tuned on other text; compare them."""
    import time

    from rkstore.evaluation.evaluate import write_results
    from rkstore.store.open import open_store

    began = time.monotonic()
    first = max(0, min(layer - SEVERAL // 2, ALL - SEVERAL))
    layers = f"{first}-{first + SEVERAL - 1}"
    echo("[1/4] harvest: what the MLPs of four layers read and write, and the residual stream")
    base = out / "stores" / "demo-zoo"
    _harvest(base, layers=layers, pair="mlp", hook=RESIDUAL, tokens=tokens)
    echo("[2/4] a second model: a copy tuned on other text, run over the same tokens")
    second = _second(out, base, layer)
    echo("[3/4] train: one dictionary of each wiring, plain and nested")
    chosen = kinds(layers, layer)
    shared = {"dictionary": "batchtopk", "k": 16, "steps": steps, "batch_size": 512}
    shared |= {"expansion": 4, "out": str(out / "checkpoints")}
    paths = trained(chosen, base, second, shared)
    echo("[4/4] evaluate: on held-out rows\n")
    results = evaluated(chosen, paths, base, second)
    written = out / "results" / "zoo.json"
    of_all = [one for several in results.values() for one in several]
    write_results(of_all, open_store(str(base)), written)
    echo(table(chosen, results))
    echo(f"\nFinished in {time.monotonic() - began:.0f} s.\nresults   {written}")


def _harvest(out: Path, **options: Any) -> None:
    """A harvest of the demo's text, with the bundled model unless another is named."""
    from rkstore.harvest import run as harvest
    from rkstore.harvest.settings import HarvestSettings
    from rkstore.harvest.text.python import PYTHON_CORPUS

    if "paired_with" not in options:
        options |= {"model": "demo", "dataset": PYTHON_CORPUS, "seed": 1}
    harvest.run(harvest.prepare(HarvestSettings(out=str(out), **options)))


def _second(out: Path, base: Path, layer: int) -> Path:
    """The store of the second model, which is tuned if it is not there yet."""
    from rkstore.harvest.tuned import RECORD, readmes, tune

    model, store = out / "models" / "demo-tuned", out / "stores" / "demo-tuned"
    if not (model / RECORD).is_file():
        record = tune("demo", readmes(), model, steps=TUNED)
        echo(f"loss on its text {record['loss_before']:.2f} → {record['loss_after']:.2f} nats")
    _harvest(store, model=str(model), paired_with=str(base), layers=str(layer), hook=RESIDUAL)
    return store


def trained(
    chosen: Mapping[str, Kind], store: Path, second: Path, shared: Mapping[str, Any]
) -> dict[str, list[Path]]:
    """Train each kind plain and nested, and give the checkpoints of both, or resume them.

    Args:
        shared: options of every training.
    """
    from rkstore.training.settings import TrainSettings
    from rkstore.training.train import train

    found: dict[str, list[Path]] = {}
    for name, kind in chosen.items():
        paired = {"paired_with": str(second)} if kind.two_models else {}
        found[name] = [
            train(
                TrainSettings(
                    store=str(store),
                    name=f"{name}-{form}",
                    prefixes=prefixes,
                    **{**shared, **kind.options, **paired},
                )
            )
            for form, prefixes in (("plain", (1.0,)), ("nested", NESTED))
        ]
    return found


def evaluated(
    chosen: Mapping[str, Kind],
    paths: Mapping[str, Sequence[Path]],
    store: Path,
    second: Path,
    max_norm: float | None = None,
) -> dict[str, list["Evaluation"]]:
    """Each checkpoint on the held-out rows of its store, or of both."""
    from rkstore.evaluation.evaluate import evaluate
    from rkstore.evaluation.settings import EvaluateSettings

    found: dict[str, list[Evaluation]] = {}
    for two_models in (False, True):
        names = [name for name, kind in chosen.items() if kind.two_models == two_models]
        if not names:
            continue
        paired = {"paired_with": str(second)} if two_models else {}
        settings = EvaluateSettings(store=str(store), max_norm=max_norm, **paired)
        results = iter(evaluate([path for name in names for path in paths[name]], settings))
        found |= {name: [next(results) for _ in paths[name]] for name in names}
    return {name: found[name] for name in chosen}


def table(chosen: Mapping[str, Kind], results: Mapping[str, Sequence["Evaluation"]]) -> str:
    """The results in one Markdown table."""
    from rkstore.evaluation.report.tables import number
    from rkstore.evaluation.report.tables import table as as_table

    head = ["dictionary", "latents", "L0", "FVU", "by chance", "dead"]
    head.append(f"FVU of the first {NESTED[0]:.3g}")
    rows = []
    for name, kind in chosen.items():
        for form, result in zip(("", ", nested"), results[name], strict=True):
            first = next(iter(result.of_prefix), None) if form else None
            rows.append(
                [
                    kind.title + form,
                    f"{result.d_sae:,}",
                    number(result.l0, ".1f"),
                    number(result.fvu, ".3f"),
                    number(result.chance.fvu if result.chance else None, ".3f"),
                    number(100 * result.dead_share, ".1f") + " %",
                    number(first.fvu if first else None, ".3f"),
                ]
            )
    return as_table(head, rows)
