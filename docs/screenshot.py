"""A picture of a page of a report: ``docs/images/latent.png``.

    python docs/screenshot.py results/report/index.html '#/latent/1254' docs/images/latent.png

Needs ``make browser``, and a Chromium of the system.
"""

import argparse
import io
import shutil
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("report", type=Path, help="its index.html")
    parser.add_argument("route", help="such as '#/latent/7'")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1240)
    parser.add_argument("--height", type=int, default=800, help="0 for all of the page")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    given = parser.parse_args()

    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": given.width, "height": given.height or 900})
        page.goto(f"{given.report.resolve().as_uri()}?theme={given.theme}{given.route}")
        page.wait_for_selector("main > *")
        page.locator(".skeleton").first.wait_for(state="detached")
        picture = page.screenshot(full_page=not given.height)
        browser.close()
    # 256 colours: a quarter of the bytes, and nothing that one would see.
    found = Image.open(io.BytesIO(picture)).convert("RGB")
    found.quantize(256, Image.Quantize.MAXCOVERAGE).save(given.out, optimize=True)


if __name__ == "__main__":
    main()
