"""Options of a training."""

from rkstore.dictionaries.selects import SELECTS
from rkstore.dictionaries.wirings import WIRINGS
from rkstore.rkcnn.settings import SiteSettings
from rkstore.settings import combined, option
from rkstore.training.helpers import HELPERS
from rkstore.training.inits import INITS
from rkstore.training.inits.rkcnn import RkCNN

TRAINED = tuple(name for name, select in SELECTS.items() if select.trained)


@combined(dictionary=SELECTS, init=INITS, wiring=WIRINGS, helpers=HELPERS)
class TrainSettings(SiteSettings):
    """One dictionary and how it is trained."""

    layers: str | None = option(
        None, "Train one dictionary a layer, one after the other: 'all', or a list such as 0-3,8."
    )
    dictionary: str = option("topk", "Kind of sparse code.", choices=TRAINED, also="select")
    wiring: str = option("sae", "Which sites the latents read and write.", choices=WIRINGS)
    init: str = option("datapoint", "How the latents are initialised.", choices=INITS)
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
    dead_after: int | None = option(
        None,
        "Tokens without firing after which a latent is dead; by default 10 million, or a "
        "twentieth of the tokens of the run if that is less.",
        least=1,
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
        "checkpoints", "Directory under which checkpoints are written.", path=True, identity=False
    )


def directions_given(settings: TrainSettings) -> str | None:
    """The result of a probe that latents are to begin at, for the inits that can."""
    return settings.options(RkCNN).directions
