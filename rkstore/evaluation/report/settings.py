"""Options of a report."""

from rkstore.evaluation.samples.settings import NAMES_HELP, CollectSettings
from rkstore.evaluation.settings import MODEL_HELP
from rkstore.settings import option


class ReportSettings(CollectSettings):
    """Which rows a report is made from, and where it is written."""

    rows: int | None = option(
        2**20,
        "About how many rows the latents are looked at on, whole blocks spread evenly over the "
        "store; the default keeps the text of a report below 3 MB.",
        least=1,
    )
    with_model: bool = option(
        False,
        "Also load the model of the store: the page of a latent then has the tokens whose logits "
        "it raises and lowers. It is found by the name in the store.",
    )
    model: tuple[str, ...] = option((), MODEL_HELP, path=True)
    names: str | None = option(None, NAMES_HELP, path=True)
    probe: str | None = option(
        None, "Directory of a probe of the same store, which then has its page.", path=True
    )
    out: str = option("results/report", "Directory of the report, new or empty.", path=True)

    @property
    def loads_model(self) -> bool:
        """Whether the model is loaded: ``--model`` asks for it as well."""
        return self.with_model or bool(self.model)
