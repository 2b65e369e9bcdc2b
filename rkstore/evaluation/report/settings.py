"""Options of a report."""

from rkstore.evaluation.samples.settings import NAMES_HELP, LogitsSettings
from rkstore.settings import option


class ReportSettings(LogitsSettings):
    """Which rows a report is made from, and where it is written."""

    rows: int | None = option(
        2**20,
        "About how many rows the latents are looked at on, whole blocks spread evenly over the "
        "store; the default keeps the text of a report below 3 MB.",
        least=1,
    )
    names: str | None = option(None, NAMES_HELP, path=True)
    probe: str | None = option(
        None, "Directory of a probe of the same store, which then has its page.", path=True
    )
    out: str = option("results/report", "Directory of the report, new or empty.", path=True)
