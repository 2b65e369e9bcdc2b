"""Options of samples."""

from rkstore.evaluation.samples.layouts import LAYOUTS
from rkstore.evaluation.settings import MODEL_HELP, OnRowsSettings
from rkstore.settings import combined, option

NAMES_HELP = 'JSON file of names given by hand, such as {"2081": "streams and canyons"}.'


class CollectSettings(OnRowsSettings):
    """Which rows to look at, and which samples of a latent to keep."""

    rows: int | None = option(
        None,
        "About how many rows to look at, whole blocks spread evenly over the store; all by "
        "default, those trained on and those held out.",
        least=1,
    )
    max_samples_per_feature: int = option(
        45, "Most samples of a latent; the strongest are what the quantiles leave.", least=1
    )
    quantiles: int = option(
        5,
        "Bands of equal width, from 0 to the largest activation of a latent, from which samples "
        "are drawn at random besides the strongest.",
        least=0,
    )
    samples_per_quantile: int = option(5, "Samples from each of these bands.", least=1)
    distinct_blocks: bool = option(
        True,
        "Take at most one of the strongest samples from each block of the text, and one of each "
        "band: neighbouring tokens tell the same.",
    )
    sample_context_size: int = option(
        20, "Tokens kept on either side of a sample, of the same block.", least=0
    )
    sample_activation_threshold: float = option(
        0.0,
        "Activations up to this size count as zero; 0 by default, because their unit is that of "
        "the site.",
        least=0.0,
    )
    seed: int = option(0, "Seed of the samples drawn from the bands.", least=0)
    batch_size: int = option(1024, "Rows encoded at a time.", least=1)

    @property
    def strongest(self) -> int:
        """How many of the strongest samples are kept; below 0 there is no room for any."""
        return self.max_samples_per_feature - self.quantiles * self.samples_per_quantile


class LogitsSettings(CollectSettings):
    """The same, and whether to say what latents do to the logits of the model."""

    with_model: bool = option(
        False,
        "Also load the model of the store, for the tokens whose logits a latent raises and lowers. "
        "It is found by the name in the store.",
    )
    model: tuple[str, ...] = option((), MODEL_HELP, path=True)

    @property
    def loads_model(self) -> bool:
        """Whether the model is loaded: ``--model`` asks for it as well."""
        return self.with_model or bool(self.model)


@combined(to=LAYOUTS)
class SamplesSettings(LogitsSettings):
    """The same, and what to write."""

    to: str = option("parquet", "Layout of the files.", choices=LAYOUTS)
    out: str | None = option(
        None,
        "New directory; by default results/samples/NAME, the checkpoint's, with -TO for another "
        "program.",
        path=True,
    )


class LatentsSettings(CollectSettings):
    """Which latents to describe, and what to compare them with."""

    max_samples_per_feature: int = option(
        20, "Most samples of a latent; the strongest are what the quantiles leave.", least=1
    )
    samples_per_quantile: int = option(2, "Samples from each of these bands.", least=1)
    latent: tuple[int, ...] = option((), "Latents to describe, such as 7,12.", least=0)
    draw: int = option(
        20, "Without --latent, as many as this, drawn with --seed from those that fire.", least=1
    )
    nearest: int = option(6, "Nearest latents that are named with each.", least=1)
    same_group: float = option(
        0.7,
        "Latents are in one group if a chain of decoder cosines of at least this joins them.",
        least=0.0,
    )
    against: str | None = option(
        None,
        "Another dictionary of the same sites, whose nearest latent is shown beside each.",
        path=True,
    )
    names: str | None = option(None, NAMES_HELP, path=True)
    out: str | None = option(
        None, "New directory of the report; results/latents/NAME by default.", path=True
    )
