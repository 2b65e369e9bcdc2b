"""What harvests take on 1, 8 and 1,000 machines, from measured rates: ``docs/machines.json``.

    python pipelines/machines.py --page docs/scale.md

A machine is one accelerator and the cores beside it. Its rates come from ``docs/benchmarks.json``:
the forward pass alone, and how many values a second a harvest encodes, compresses and writes. The
bits of a value come from the real model of ``docs/models.json``. What was not measured is an
option: which share of the accelerator's matrix products a large model reaches.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
from results import put, start

from rkstore.cli.options import Command
from rkstore.cli.terminal import duration
from rkstore.errors import BadInput, size
from rkstore.evaluation.record import as_json
from rkstore.evaluation.report.tables import table
from rkstore.harvest.outline import outline_of
from rkstore.harvest.settings import HarvestSettings
from rkstore.store.files import write_together

MACHINES = (1, 8, 1000)
DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- scale -->", "<!-- end of scale -->"

# Configurations by each model's config.json on the Hub.
GPT2 = {"model_type": "gpt2"}
LLAMA_70B = {
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Harvest:
    """What is harvested of which model."""

    name: str
    config: Mapping[str, Any]
    tokens: int
    sites: str
    layers: str
    hook: str
    measured: str | None
    """The row of the benchmark that ran it; None if none did."""


HARVESTS = (
    Harvest("GPT-2, 1B tokens", GPT2, 10**9, "`mlp.hook_post`, all 12", "all", "mlp.hook_post",
            "harvest_cuda_all"),
    Harvest("GPT-2, 1B tokens", GPT2, 10**9, "`mlp.hook_post`, 1 layer", "8", "mlp.hook_post",
            "harvest_cuda"),
    Harvest("70B, 10B tokens", LLAMA_70B, 10**10, "`mlp.hook_post`, all 80", "all",
            "mlp.hook_post", None),
    Harvest("70B, 10B tokens", LLAMA_70B, 10**10, "`hook_resid_post`, 4 layers", "20,40,60,79",
            "hook_resid_post", None),
)  # fmt: skip


@dataclass(frozen=True)
class Rates:
    """What one machine does in a second, and the bits of a value.

    Args:
        values: that a harvest encodes, compresses, checks and writes, at most.
        operations: of a large model's forward pass.
    """

    values: float
    operations: float
    bits: float


@dataclass(frozen=True)
class Cost:
    """A harvest on some machines."""

    harvest: str
    sites: str
    rows: int
    values_per_row: int
    bytes: float
    operations: float
    model_seconds: float
    """Of one machine, the forward pass alone."""
    writing_seconds: float
    """Of one machine, the harvest as it was measured, or what it takes to encode and write."""

    def seconds(self, machines: int) -> float:
        """Shards are independent, and the two overlap: the slower of them, shared out."""
        return max(self.model_seconds, self.writing_seconds) / machines


@click.command(cls=Command)
@click.option("--share", default=0.4, show_default=True, help="Of its products, in a large model.")
@click.option("--out", type=Path, default=DOCS / "machines.json", show_default="docs/machines.json")
@click.option("--page", type=Path, help="Page to write the table into.")
def main(share: float, out: Path, page: Path | None) -> None:
    """Work out what harvests take on 1, 8 and 1,000 machines."""
    bench = json.loads((DOCS / "benchmarks.json").read_text("utf-8"))["rows"]
    models = json.loads((DOCS / "models.json").read_text("utf-8"))["models"]
    rates = rates_of(bench, models, share)
    costs = [cost(one, rates, bench) for one in HARVESTS]
    record = {"rates": asdict(rates), "share": share, "costs": [asdict(one) for one in costs]}
    write_together({out: as_json(record)})
    shown = as_table(costs)
    click.echo(shown)
    if page:
        put(page, BEGIN, END, shown)


def rates_of(bench: Mapping[str, Any], models: Mapping[str, Any], share: float) -> Rates:
    """The rates that were measured.

    Raises:
        BadInput: the benchmark of a CUDA device is not on record.
    """
    whole = rate(bench, "harvest_cuda_all", "ours") * 12 * 3072
    products = bench["step_cuda_topk"]
    # Five products of 4,096 rows with 3,072 x 24,576 matrices, as the row describes them.
    operations = 5 * 2 * 4096 * 3072 * 24576 / median(products["theirs"])
    [real] = [h for h in models["smollm2"]["harvests"] if h["choice"] == "`--hook mlp.hook_post`"]
    return Rates(whole, share * operations, real["bits_per_value"])


def rate(bench: Mapping[str, Any], row: str, side: str) -> float:
    """The median rate of a row of the benchmark, tokens a second.

    Raises:
        BadInput: it is not on record.
    """
    if not bench.get(row, {}).get(side):
        raise BadInput(f"docs/benchmarks.json has no {row}: run make bench on a CUDA device first")
    return float(median(bench[row][side]))


def cost(harvest: Harvest, rates: Rates, bench: Mapping[str, Any]) -> Cost:
    """What a harvest takes on one machine."""
    settings = HarvestSettings(
        device="meta",
        dtype="bfloat16",
        tokens=harvest.tokens,
        layers=harvest.layers,
        hook=(harvest.hook,),
    )
    found = outline_of(harvest.config, harvest.name, settings)
    values = sum(site.width for site in found.sites)
    model, writing = found.operations / rates.operations, found.rows * values / rates.values
    if harvest.measured is not None:
        model, writing = (found.rows / rate(bench, harvest.measured, x) for x in ("theirs", "ours"))
    return Cost(
        harvest.name,
        harvest.sites,
        found.rows,
        values,
        found.rows * values * rates.bits / 8,
        found.operations,
        model,
        writing,
    )


def as_table(costs: list[Cost]) -> str:
    """The costs as Markdown."""
    head = ["harvest", "sites", "bytes", "model", "writing"]
    head += ["1 machine", "8", "1,000", "a machine sends"]
    rows = [
        [
            one.harvest,
            one.sites,
            size(one.bytes),
            duration(one.model_seconds),
            duration(one.writing_seconds),
            *(duration(one.seconds(n)) for n in MACHINES),
            f"{size(one.bytes / one.seconds(1))}/s",
        ]
        for one in costs
    ]
    return table(head, rows)


if __name__ == "__main__":
    start(main)
