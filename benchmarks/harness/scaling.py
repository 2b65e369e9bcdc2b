"""What grows with a store: the table of ``make bench-scale``, and its arithmetic on paper."""

from typing import Any

from harness.page import figure
from rkstore.evaluation.report.tables import table

BEGINNING = """\
## Scale

`make bench-scale` harvests one layer of the demo model ({d_in} wide, `{site}`, default codec) and
reads it back in shuffled batches of {batch_rows:,} rows, each in its own process. Memory is the
peak of RssAnon in /proc/self/status: private memory, without mapped files.
"""

ON_PAPER = 1_000_000_000


def section(numbers: dict[str, Any]) -> str:
    """A table of all sizes, and what follows from its last two lines for a billion rows."""
    head = ["rows", "harvest tokens/s", "memory", "store", "batches rows/s", "memory"]
    lines = [
        [
            f"{size['rows']:,}",
            figure(size["harvest_per_second"]),
            f"{size['harvest_bytes'] / 2**20:,.0f} MiB",
            f"{size['store_bytes'] / 1e6:,.1f} MB",
            figure(size["read_per_second"]),
            f"{size['read_bytes'] / 2**20:,.0f} MiB",
        ]
        for size in numbers["sizes"]
    ]
    return "\n\n".join(
        [BEGINNING.format(**numbers).strip(), table(head, lines), _on_paper(numbers)]
    )


def _on_paper(numbers: dict[str, Any]) -> str:
    """Straight lines through the two largest sizes."""
    small, large = numbers["sizes"][-2:]
    more = ON_PAPER - large["rows"]

    def growth(key: str) -> float:
        return float((large[key] - small[key]) / (large["rows"] - small["rows"]))

    def at(key: str) -> str:
        return f"{(large[key] + more * growth(key)) / 1e9:,.1f} GB"

    def memory(key: str) -> str:
        """Whether it grew, and if so what a straight line would make of it."""
        if growth(key) <= 0:
            return "did not grow"
        return f"grew by {growth(key):,.1f} bytes a row, which would make {at(key)},"

    days = ON_PAPER / large["harvest_per_second"] / 86_400
    hours = ON_PAPER / large["read_per_second"] / 3600
    return (
        f"Extrapolated to a billion rows: the store grows by {growth('store_bytes'):,.0f} bytes a "
        f"row to {at('store_bytes')}; at {figure(large['harvest_per_second'])} tokens/s the "
        f"harvest takes {days:,.1f} days on this machine, and a shuffled pass at "
        f"{figure(large['read_per_second'])} rows/s {hours:,.1f} hours. Between the last two "
        f"sizes memory {memory('harvest_bytes')} while harvesting, and "
        f"{memory('read_bytes')} while reading."
    )
