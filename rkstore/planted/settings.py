"""Options of a planted store."""

from typing import NamedTuple

from rkstore.errors import BadInput
from rkstore.settings import Settings, flag_of, option, replace
from rkstore.store.codecs import CODECS
from rkstore.store.formats import COMPRESSION_HELP, COMPRESSIONS, FORMATS

KINDS = ("sae", "transcoder", "layers", "crosscoder", "models")


# Of the correlations, as in SynthSAEBench-16k.
RANK = 25

# The largest number of a document.
INT32 = 2**31 - 1


class Usual(NamedTuple):
    """What ``--easy`` changes: statistics of the features."""

    features: int
    p_max: float
    p_min: float
    zipf: float
    roots: int
    correlation: float


# As in SynthSAEBench-16k (arXiv 2602.14687), with 1/32 of its features; roots are 1/128 of them.
BENCHMARK = Usual(512, 0.4, 5e-4, 0.5, 4, 0.1)

# Independent features, all about as frequent, 1.5 for each dimension.
EASY = Usual(96, 0.04, 0.03, 0.5, 0, 0.0)


class PlantSettings(Settings):
    """The features, the sites they are planted at, and how to store the rows."""

    kind: str = option(
        "sae",
        "What is planted: one site (sae); what an MLP reads and writes (transcoder); the same in "
        "each layer, written by the features of that and all earlier layers (layers); several "
        "sites of one model (crosscoder); a store for each of two models (models).",
        choices=KINDS,
    )
    easy: bool = option(
        False,
        "Features that a good dictionary recovers: fewer, equally frequent, without hierarchy and "
        "correlations. Options override this.",
    )
    features: int | None = option(None, "Features; by default 512, or 96 if --easy.", least=1)
    d_in: tuple[int, ...] = option(
        (64,), "Width of the sites: one for all, or one for each site (or model).", least=2
    )
    layers: int | None = option(
        None, "Layers of layers, sites of crosscoder; by default 3.", least=2
    )
    exclusive: float | None = option(
        None,
        "Fraction of the features that are missing at some site (crosscoder) or in one of the "
        "models (models); by default 0.25.",
        least=0.0,
    )
    p_max: float | None = option(
        None,
        "Probability that the most frequent feature fires; by default 0.4, or 0.04 if --easy.",
        least=0.0,
    )
    p_min: float | None = option(
        None,
        "Probability that the rarest feature fires; by default 0.0005, or 0.03 if --easy.",
        least=0.0,
    )
    zipf: float | None = option(
        None,
        "Exponent of Zipf's law, by which probabilities fall with the rank; by default 0.5.",
        least=0.0,
    )
    roots: int | None = option(
        None,
        "Trees of features; by default 1 for each 128 features, or none if --easy.",
        least=0,
    )
    branching: int | None = option(
        None, "Children of a feature in a tree, of which at most one fires; by default 4.", least=1
    )
    depth: int | None = option(None, "Levels of a tree below its root; by default 3.", least=1)
    correlation: float | None = option(
        None,
        "Standard deviation of the loadings by which the firing of features outside the trees, and "
        "of roots, correlates; by default 0.1, or 0 if --easy.",
        least=0.0,
    )
    rank: int | None = option(None, "Rank of these correlations; by default 25.", least=1)
    overlap: float | None = option(
        None,
        "Mean over the features of the largest |cosine| with another; by default what random "
        "directions have.",
        least=0.0,
    )
    magnitude_first: float = option(
        5.0, "Mean magnitude of the most frequent feature when it fires.", least=0.0
    )
    magnitude_last: float = option(
        4.0, "The same of the rarest feature; linear in the rank between.", least=0.0
    )
    spread: float = option(
        0.5,
        "Standard deviations of magnitudes are |normal|, with this mean and standard deviation.",
        least=0.0,
    )
    bias: float = option(0.5, "Norm of the constant that is added at each site.", least=0.0)
    noise: float = option(
        0.0, "Standard deviation of Gaussian noise in each dimension of each site.", least=0.0
    )
    rows: int = option(65_536, "Rows to store, rounded down to whole contexts.", least=1)
    context_size: int = option(128, "Rows in one context, which is one document.", least=1)
    codec: str = option("float16", "Codec of the stored values.", choices=CODECS)
    format: str = option("zarr", "Files.", choices=FORMATS)
    compression: str = option("auto", COMPRESSION_HELP, choices=COMPRESSIONS)
    shard_rows: int = option(8192, "About how many rows per file.", least=1)
    seed: int = option(0, "Seed of the features and of the rows.", least=0)
    out: str = option(
        "stores/planted",
        "Directory of the store; for models, of the stores base and chat.",
        path=True,
        identity=False,
    )

    @property
    def usual(self) -> Usual:
        """The statistics that ``--easy`` changes, as given or by default."""
        default = EASY if self.easy else BENCHMARK
        features = default.features if self.features is None else self.features
        if not self.easy:
            default = default._replace(roots=features // 128)
        given = {name: getattr(self, name) for name in Usual._fields}
        return default._replace(**{k: v for k, v in given.items() if v is not None})


def resolved(settings: PlantSettings) -> PlantSettings:
    """The same settings with every default filled in, so that a manifest says all.

    Options that have no effect stay None.

    Raises:
        BadInput: options that contradict each other, or have no effect.
    """
    kind, usual = settings.kind, settings.usual
    _check_statistics(settings, usual)
    _check_rows(settings)
    found: dict[str, object] = {**usual._asdict()}
    trees, shared = "trees (--roots)", "a --correlation above 0"
    for name, default, used, needed in (
        ("layers", 3, kind in ("layers", "crosscoder"), "--kind layers or crosscoder"),
        ("exclusive", 0.25, kind in ("crosscoder", "models"), "--kind crosscoder or models"),
        ("branching", 4, usual.roots > 0, trees),
        ("depth", 3, usual.roots > 0, trees),
        ("rank", RANK, usual.correlation > 0, shared),
    ):
        given = getattr(settings, name)
        if given is not None and not used:
            raise BadInput(f"{flag_of(name)} has no effect without {needed}: leave it out")
        if used:
            found[name] = default if given is None else given
    return replace(settings, **found)


def _check_statistics(settings: PlantSettings, usual: Usual) -> None:
    """Raise BadInput unless features can have these statistics."""
    if usual.p_max > 1 or not 0 < usual.p_min <= usual.p_max:
        raise BadInput(
            f"--p-max is {usual.p_max} and --p-min {usual.p_min}: probabilities are above 0 and at "
            "most 1, and the most frequent feature has the larger"
        )
    if settings.exclusive is not None and settings.exclusive > 1:
        raise BadInput(f"--exclusive is {settings.exclusive}: it is a fraction, at most 1")
    if settings.overlap is not None and settings.overlap >= 1:
        raise BadInput(f"--overlap is {settings.overlap}: it is a cosine, below 1")
    rank = settings.rank or RANK
    if rank * usual.correlation**2 > 0.5:
        raise BadInput(
            f"--correlation is {usual.correlation} with --rank {rank}: its square times the rank, "
            "the share of a feature's variance that is common, is at most 0.5"
        )
    if not settings.magnitude_first or not settings.magnitude_last:
        raise BadInput("--magnitude-first and --magnitude-last are above 0: what fires is not zero")
    if usual.roots > usual.features:
        raise BadInput(f"--roots is {usual.roots}: there are {usual.features} features")


def _check_rows(settings: PlantSettings) -> None:
    """Raise BadInput unless the rows are whole contexts that can be numbered."""
    rows, size = settings.rows, settings.context_size
    if rows < size:
        raise BadInput(
            f"--rows is {rows}: it must be at least one context of {size} rows (--context-size)"
        )
    if rows // size > INT32:
        raise BadInput(
            f"--rows is {rows}: in contexts of {size} rows these are more than {INT32:,} "
            "documents: give a larger --context-size"
        )
