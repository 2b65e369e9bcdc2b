"""Options of the quality of latents."""

from rkstore.rkcnn.settings import MAX_NORM_HELP, SPECIAL_TOKENS_HELP
from rkstore.settings import Settings, option
from rkstore.store.sites import PAIRED_HELP, STORE_HELP


class QualitySettings(Settings):
    """On which rows and token classes the latents of dictionaries are judged."""

    store: str | None = option(None, STORE_HELP, path=True)
    paired_with: str | None = option(None, PAIRED_HELP, path=True)
    classes: str | None = option(
        None,
        "Token classes to probe for: of Python or of English text, or the parents of a planted "
        "store's features. By default what the store holds.",
        choices=("python", "english", "planted"),
    )
    k: tuple[int, ...] = option((1, 2, 5), "Latents that a sparse probe may read.", least=1)
    rows: int = option(
        20_000,
        "Held-out rows to use, about: whole documents, or contexts where these are few. Their "
        "activations are in memory at once.",
        least=1,
    )
    special_tokens: bool = option(False, SPECIAL_TOKENS_HELP)
    max_norm: float | None = option(None, MAX_NORM_HELP, least=1.0)
    any_model: bool = option(
        False, "Also judge dictionaries of another model, which are refused otherwise."
    )
    seed: int = option(
        0, "Seed of which documents are used, shuffled labels, and random dictionaries.", least=0
    )
    batch_size: int = option(4096, "Rows at a time.", least=1)
    device: str = option("cpu", "Torch device.")
    out: str = option("results/quality", "Directory of tables and JSON.", path=True)
