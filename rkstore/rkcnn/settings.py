"""Options of a probe."""

from rkstore.rkcnn.directions import DIRECTIONS
from rkstore.rkcnn.scores import SCORES
from rkstore.rkcnn.subsets import SUBSETS
from rkstore.settings import Settings, combined, option
from rkstore.store.sites import HOOK_HELP, LAYERS_HELP, PAIRED_HELP, STORE_HELP

SPECIAL_TOKENS_HELP = (
    "Also use the rows of special tokens, such as BOS; they are left out by default, because they "
    "are massive or all the same."
)
MAX_NORM_HELP = (
    "Leave out rows whose norm is more than this many times the site's median; 10 leaves out "
    "attention sinks that are not special tokens."
)


class SiteSettings(Settings):
    """Which site of which store."""

    store: str | None = option(None, STORE_HELP, path=True, identity=False)
    paired_with: str | None = option(None, PAIRED_HELP, path=True, identity=False)
    layer: str | None = option(None, LAYERS_HELP)
    hook: tuple[str, ...] | None = option(None, HOOK_HELP)
    special_tokens: bool = option(False, SPECIAL_TOKENS_HELP)
    max_norm: float | None = option(None, MAX_NORM_HELP, least=1.0)


@combined(subsets=SUBSETS, score=SCORES, directions=DIRECTIONS)
class ProbeSettings(SiteSettings):
    """How RkCNN finds directions."""

    layer: str | None = option(None, "Block of the site.", also="layers")
    m: int | None = option(
        None, "Dimensions in a subset; the square root of d_in by default.", least=1
    )
    h: int = option(600, "Random subsets.", least=1)
    r: int = option(200, "Subsets to keep.", least=1)
    subsets: str = option(
        "coordinates",
        "Random dimensions, random partitions of them, or columns of random rotations.",
        choices=SUBSETS,
    )
    score: str = option(
        "kurtosis", "How a subset is scored; projection_… score its direction.", choices=SCORES
    )
    directions: str = option(
        "principal", "How directions are found in a subset.", choices=DIRECTIONS
    )
    components: int = option(1, "Directions of a subset.", least=1)
    rounds: int = option(
        1, "Number of probes, each with the directions found before projected out.", least=1
    )
    max_cosine: float = option(
        1.0,
        "Of two directions with a larger |cosine| keep only the better; 0.9 drops near-duplicates.",
        least=0.0,
    )
    device: str = option("cpu", "Torch device on which rows are compared.")
    labels: str | None = option(
        None,
        "Column that labels the rows, for knn and separation; the next token of a block's last row "
        "is a separate class.",
        choices=("token_id", "document", "position", "next_token"),
    )
    sample_rows: int = option(
        2000,
        "Rows, spread over the store, for knn, separation, ica and scores of projections; the cost "
        "of knn grows with their square.",
        least=2,
    )
    seed: int = option(0, "Seed of the subsets.", least=0)
    out: str | None = option(
        None, "Directory of the result; results/probe/SITE by default.", path=True
    )
