"""Options of a training."""

from rkstore.rkcnn.scores import SCORES
from rkstore.rkcnn.settings import SiteSettings
from rkstore.settings import option

INITS = (
    "random",
    "tied",
    "datapoint",
    "subspace",
    "rkcnn",
    "rkcnn-decoder",
    "rkcnn-unscored",
    "sparse-random",
)


class TrainSettings(SiteSettings):
    """One dictionary and how it is trained."""

    layers: str | None = option(
        None,
        "Train one dictionary a layer, one after the other: 'all', or a list such as 0-3,8.",
    )
    dictionary: str = option(
        "topk", "Kind of sparse code.", choices=("relu", "topk", "batchtopk"), also="select"
    )
    init: str = option("datapoint", "How the latents begin.", choices=INITS)
    center: str | None = option(
        None,
        "Where b_dec begins: at the store's mean, at the geometric median of a sample of rows, or "
        "at zero (none). By default at zero for random and rkcnn-decoder, whose encoders know "
        "nothing of the data, and at the mean for all others.",
        choices=("mean", "geometric-median", "none"),
    )
    init_bias: str = option(
        "zero",
        "Encoder biases to begin with; quantile makes each latent's pre-activation positive on a "
        "share of k / d_sae of a sample of rows.",
        choices=("zero", "quantile"),
    )
    init_scale: str | None = option(
        None,
        "Encoder's scale to begin with: reconstruction makes the first reconstructions of a "
        "sample of rows as long as the rows, both relative to b_dec; none leaves the init's own. "
        "By default reconstruction for the inits that begin at rows of the data (datapoint and "
        "the rkcnn inits but rkcnn-decoder) and none for all others.",
        choices=("none", "reconstruction"),
    )
    expansion: float = option(8.0, "Latents for each input dimension.", least=0.0)
    d_sae: int | None = option(None, "Latents; overrides --expansion.", least=1)
    k: int = option(32, "Active latents of a topk code; of a batchtopk code on average.", least=1)
    l1: float = option(
        1.0,
        "Weight of the L1 penalty of a relu code, per token, with inputs scaled as --norm says.",
        least=0.0,
    )
    norm: str = option(
        "d_in",
        "Mean of ‖x‖² that inputs are scaled to for training: the number of dimensions, one, or "
        "none for values as they are stored. A dictionary is written for unscaled inputs.",
        choices=("d_in", "one", "none"),
    )
    steps: int = option(2000, "Batches to train on.", least=1)
    batch_size: int = option(1024, "Rows in a batch.", least=1)
    lr: float = option(3e-3, "Peak learning rate of Adam.", least=0.0)
    warmup: int = option(100, "Steps over which the learning rate (and l1) rises.", least=0)
    auxk: int = option(
        0,
        "Dead latents of a token that learn to reconstruct what the living leave over, the "
        "auxiliary loss of Gao et al.; 0 is off.",
        least=0,
    )
    resample_every: int = option(
        0,
        "Steps between resamplings, at which dead latents begin again as rows that are "
        "reconstructed badly (Bricken et al.); none while the learning rate falls. 0 is off.",
        least=0,
    )
    dead_after: int | None = option(
        None,
        "Tokens without firing after which a latent is dead; by default 10 million, or a "
        "twentieth of the tokens of the run if that is less.",
        least=1,
    )
    datapoint_share: float | None = option(
        None,
        "How much of a latent is a row of the data, the rest being a direction that is random or "
        "mined. By default 0.8 for --init datapoint, 0.5 for the rkcnn inits but rkcnn-decoder, "
        "which has none.",
        least=0.0,
    )
    subspace_dim: int | None = option(
        None,
        "Dimensions of --init subspace; as many as hold 99 % of the variance by default.",
        least=1,
    )
    rkcnn_fraction: float = option(
        0.5, "Share of the latents that the rkcnn inits take from the probe.", least=0.0
    )
    rkcnn_h: int = option(
        600, "Subsets that --init rkcnn-decoder draws; it mines no more latents.", least=1
    )
    rkcnn_oversample: float = option(
        4.0,
        "Subsets that --init rkcnn draws for each one kept: below 1 there is nothing to select.",
        least=1.0,
    )
    rkcnn_m: int | None = option(
        None, "Dimensions in a subset; the root of d_in by default.", least=1
    )
    rkcnn_score: str = option(
        "kurtosis",
        "How the rkcnn inits score a subset: any score that needs no labels.",
        choices=tuple(name for name, score in SCORES.items() if not score.needs_labels),
    )
    directions: str | None = option(
        None,
        "Result of a probe of this site, whose directions --init rkcnn and rkcnn-decoder begin at, "
        "the best first, in place of mining their own: as many latents as it has directions, at "
        "most --rkcnn-fraction of them.",
        path=True,
    )
    checkpoint_every: int = option(1000, "Steps between checkpoints.", least=1, identity=False)
    seed: int = option(0, "Seed of weights, subsets and the order of the rows.", least=0)
    data_seed: int | None = option(
        None, "Seed of the order of the rows; --seed by default.", least=0
    )
    dtype: str = option(
        "float32",
        "Numbers of the matrix products; weights are float32 in either case.",
        choices=("float32", "bfloat16"),
    )
    device: str = option("cpu", "Torch device.", identity=False)
    name: str | None = option(
        None,
        "Name of the run, with / for directories; made of site, kind and init by default.",
        identity=False,
    )
    out: str = option(
        "checkpoints",
        "Directory under which checkpoints are written.",
        path=True,
        identity=False,
    )
