"""Options of an evaluation, and of a comparison of recorded ones."""

from rkstore.rkcnn.settings import MAX_NORM_HELP, SPECIAL_TOKENS_HELP
from rkstore.settings import Settings, option
from rkstore.store.sites import PAIRED_HELP, STORE_HELP


class EvaluateSettings(Settings):
    """What to measure dictionaries on."""

    store: str | None = option(None, STORE_HELP, path=True)
    paired_with: str | None = option(None, PAIRED_HELP, path=True)
    rows: int | None = option(None, "Held-out rows to use; all by default.", least=1)
    special_tokens: bool = option(False, SPECIAL_TOKENS_HELP)
    max_norm: float | None = option(None, MAX_NORM_HELP, least=1.0)
    any_model: bool = option(
        False, "Also measure dictionaries of another model, which are refused otherwise."
    )
    intervals: bool = option(
        False,
        "Refuse held-out rows of too few documents for intervals; by default they then have none.",
    )
    chance: bool = option(True, "Measure beside each a random dictionary of the same shape.")
    seed: int = option(0, "Seed of the random dictionaries.", least=0)
    controls: bool = option(
        True, "Measure with each dictionary the control arms that train --controls made of it."
    )
    record: bool = option(True, "Add each result to evaluation/results.json in its checkpoint.")
    batch_size: int = option(4096, "Rows at a time.", least=1)
    device: str = option("cpu", "Torch device.")
    out: str = option("results/evaluate", "Directory of table, JSON and picture.", path=True)


# What is compared unless something else is asked for.
DEFAULT_METRICS = ("fvu", "chance.fvu", "l0", "dead", "cosine")


class CompareSettings(Settings):
    """Which recorded numbers to compare, and in which form."""

    metric: tuple[str, ...] = option(
        (),
        "Number of the record, such as fvu, sparsity.l1 or planted.directions.mcc. May be "
        "repeated; "
        f"{', '.join(DEFAULT_METRICS)} by default.",
    )
    store: str | None = option(
        None, "Store of the evaluation, if the records have several.", path=True
    )
    paired_with: str | None = option(None, PAIRED_HELP, path=True)
    rows: int | None = option(None, "Rows of the evaluation, if the records have several.", least=1)
    format: str = option(
        "terminal", "Form of the table.", choices=("terminal", "markdown", "csv", "json")
    )
    out: str | None = option(None, "File for the table; printed by default.", path=True)
