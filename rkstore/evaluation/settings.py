"""Options of an evaluation."""

from rkstore.dictionaries.layouts import LAYOUTS
from rkstore.dictionaries.settings import HOOK_NAME_HELP, HOOK_NAME_OUT_HELP
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
    layout: str | None = option(
        None, "Which of the layouts to read in a directory that has several.", choices=LAYOUTS
    )
    hook_name: str | None = option(None, HOOK_NAME_HELP)
    hook_name_out: str | None = option(None, HOOK_NAME_OUT_HELP)
    batch_size: int = option(4096, "Rows at a time.", least=1)
    device: str = option("cpu", "Torch device.")
    out: str = option("results/evaluate", "Directory of table, JSON and picture.", path=True)
