"""Reports: what a latent takes on the disk, and how soon a browser shows the first page."""

import functools
import shutil
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from harness import demo
from harness.row import Bench, NotMeasured, Sides, Target, compared

from rkstore.dictionaries import save_dictionary
from rkstore.evaluation.report.page.write import write_report
from rkstore.evaluation.report.settings import ReportSettings
from rkstore.evaluation.samples.settings import SamplesSettings
from rkstore.evaluation.samples.write import write_samples

D_SAE = 24_576

# Files of a report that grow with its latents; the others grow with its text.
OF_LATENTS = ("data/latents/*", "data/index.js", "data/where.js")

# Milliseconds until the first paint with content: known some time after the rows exist.
PAINTED = """new Promise((then) => new PerformanceObserver((seen) => {
    const [paint] = seen.getEntriesByName("first-contentful-paint");
    if (paint) then(paint.startTime);
}).observe({ type: "paint", buffered: true }))"""


@functools.cache
def made(bench: Bench) -> tuple[str, Path, int]:
    """A store, a dictionary of random directions, and its latents."""
    d_sae = bench.size(D_SAE, 512)
    path = bench.work / "dictionary"
    path.mkdir()
    save_dictionary(demo.directions(d_sae), path, {"hook_name": demo.SITE, "model_name": "demo"})
    return demo.store(bench), path, d_sae


@functools.cache
def report(bench: Bench) -> Path:
    """The report of that dictionary."""
    store, path, _ = made(bench)
    return write_report([path], ReportSettings(store=store, out=str(bench.work / "report")))


def size(paths: Iterator[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


@compared(
    what="A latent of a report, with 45 samples asked for: its part, index and places in the text",
    against="The same samples as SAEDashboard's JSON, every token a string, every value a number",
    unit="B",
    target=Target("at most", 0.1),
    how="Counted, not timed: files that grow with the latents, divided by the latents. TopK, k = "
    "32, 24,576 random directions, on 8,192 rows of the demo model. Logits and text are on "
    "neither side.",
    floor="Row, activations and their places of 30 samples, deflated, in base64: about 500 bytes.",
    repetitions=1,
)
def report_bytes(bench: Bench) -> Iterator[Sides]:
    store, path, d_sae = made(bench)
    other = bench.work / "saedashboard"

    def ours() -> float:
        folder = report(bench).parent
        return sum(size(folder.glob(pattern)) for pattern in OF_LATENTS) / d_sae

    def theirs() -> float:
        write_samples(path, SamplesSettings(store=store, to="saedashboard", out=str(other)))
        return size(other.rglob("*.json")) / d_sae

    yield Sides(ours, theirs)


@compared(
    what="First paint of the list of 24,576 latents, opened from the disk in Chromium",
    against="Two seconds",
    unit="s",
    target=Target("at most", 1.0),
    how="The browser's own paint time, from the start of the navigation to file://. A new page "
    "each time, in a browser that is running.",
    floor="Reading 1 MB of scripts, and decoding the columns of all latents.",
)
def report_paint(bench: Bench) -> Iterator[Sides]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if find_spec("playwright") is None or chromium is None:
        raise NotMeasured("no Playwright and Chromium: 'make browser', 'apt-get install chromium'")
    playwright = import_module("playwright.sync_api")
    address = f"{report(bench).resolve().as_uri()}#/latents"
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def ours() -> float:
            page = browser.new_page()
            page.goto(address)
            page.wait_for_selector(".row")
            painted = float(page.evaluate(PAINTED)) / 1000
            page.close()
            return painted

        yield Sides(ours, lambda: 2.0)
        browser.close()
