"""Options of an evaluation, and of a comparison of recorded ones."""

from rkstore.dictionaries.settings import DictionarySettings
from rkstore.rkcnn.settings import MAX_NORM_HELP, SPECIAL_TOKENS_HELP
from rkstore.settings import Settings, option
from rkstore.store.sites import PAIRED_HELP, STORE_HELP

MODEL_HELP = (
    "Model of the store, for --with-model, if it is not found by its name: demo, a directory or a "
    "name on the Hub; for two stores, once for each."
)


class OnRowsSettings(DictionarySettings):
    """Dictionaries, and the rows of a store that they are given."""

    store: str | None = option(None, STORE_HELP, path=True)
    paired_with: str | None = option(None, PAIRED_HELP, path=True)
    special_tokens: bool = option(False, SPECIAL_TOKENS_HELP)
    max_norm: float | None = option(None, MAX_NORM_HELP, least=1.0)
    any_model: bool = option(
        False, "Also take dictionaries of another model, which are refused otherwise."
    )
    device: str = option("cpu", "Torch device.")


class EvaluateSettings(OnRowsSettings):
    """What to measure dictionaries on."""

    rows: int | None = option(None, "Held-out rows to use; all by default.", least=1)
    with_model: bool = option(
        False,
        "Also run the model of the store on held-out blocks, with reconstructions in the place of "
        "what it computes. It is found by the name in the store.",
    )
    model: tuple[str, ...] = option((), MODEL_HELP, path=True)
    blocks: int = option(
        64, "Blocks that the model runs on, evenly spread over the held-out ones.", least=1
    )
    each_site: bool = option(
        True,
        "Of a dictionary of several sites, splice also each site alone, not only all at once: that "
        "takes most of the passes.",
    )
    steer: int | None = option(
        None,
        "With the model, of a dictionary of two models: also add so many latents of the first, of "
        "the second and of both to each model; 20 give intervals.",
        least=1,
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
    out: str = option("results/evaluate", "Directory of table, JSON and picture.", path=True)

    @property
    def runs_model(self) -> bool:
        """Whether the model is run: ``--model`` asks for it as well."""
        return self.with_model or bool(self.model)


# What is compared unless something else is asked for, by kind of evaluation: of rows, and of what
# the model predicts with all sites spliced at once.
DEFAULT_METRICS = {
    "reconstruction": ("fvu", "chance.fvu", "l0", "dead", "cosine"),
    "model": ("increase", "chance.increase", "recovered_from_mean", "kl", "agreement"),
}


class CompareSettings(Settings):
    """Which recorded numbers to compare, and in which form."""

    kind: str = option(
        "reconstruction",
        "Kind of evaluation: of rows, or of what the model predicts (evaluate --with-model).",
        choices=tuple(DEFAULT_METRICS),
    )
    metric: tuple[str, ...] = option(
        (),
        "Number of the record, such as fvu, sparsity.l1 or planted.directions.mcc. May be "
        f"repeated; {', '.join(DEFAULT_METRICS['reconstruction'])} by default.",
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
