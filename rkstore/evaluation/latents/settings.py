"""Options of the quality of latents."""

from rkstore.evaluation.settings import OnRowsSettings
from rkstore.settings import option


class QualitySettings(OnRowsSettings):
    """On which rows and token classes the latents of dictionaries are judged."""

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
    seed: int = option(
        0, "Seed of which documents are used, shuffled labels, and random dictionaries.", least=0
    )
    record: bool = option(True, "Add each result to evaluation/results.json in its checkpoint.")
    batch_size: int = option(4096, "Rows at a time.", least=1)
    out: str = option("results/quality", "Directory of tables and JSON.", path=True)
