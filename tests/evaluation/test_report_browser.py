"""A report in a real browser, opened from the disk: it works, keeps to itself, and runs nothing.

Needs Playwright, and a Chromium of the system: ``make browser``. Skipped where they are absent.
Nothing here depends on how fast the machine is: every step waits for what it needs.
"""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from made_up_report import HOSTILE, write_made_up

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

LATENTS = 24_576

# Seconds until something that never happens is given up; a busy machine needs many.
PATIENCE = 180


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The report of eight runs, one of which has 24,576 latents."""
    out = tmp_path_factory.mktemp("report") / "pages"
    names = {"3": "</textarea><b>bold</b>", "17": "rivers"}
    write_made_up(out, LATENTS, runs=8, names=names, probed=True, each=8)
    return out


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        started = p.chromium.launch(executable_path=CHROMIUM, args=options, timeout=1000 * PATIENCE)
        yield started
        started.close()


@pytest.fixture
def open_page(browser, folder):
    """Call it with a route for a page; nothing it does may complain, or leave the folder."""
    complaints, requests, pages = [], [], []

    def open_one(route="", *, width=1280, query=""):
        page = patient(browser.new_page(viewport={"width": width, "height": 900}))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{folder.as_uri()}/index.html{query}#/{route}")
        page.wait_for_selector("main > *")
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        assert page.evaluate("window.hacked") is None
        assert all(url.startswith((f"{folder.as_uri()}/", "data:,")) for url in requests)
        page.close()
    assert complaints == []


def patient(page):
    page.set_default_timeout(1000 * PATIENCE)
    return page


def until(page, condition):
    """Wait until JavaScript is true; Playwright's own way needs ``eval``, which a page forbids."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}; {page.url}")


def until_whole(page):
    """Wait until nothing of the page is still being loaded, and its fonts and layout are there."""
    until(page, "!document.querySelector('.skeleton') && document.fonts.status === 'loaded'")
    page.evaluate("new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(then)))")


def press_at_once(page, keys):
    """Press keys so fast that the browser has no time for anything in between."""
    page.evaluate(
        """keys => keys.forEach((key) => document.activeElement.dispatchEvent(
            new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true })))""",
        keys,
    )


def shown_ids(page):
    return [int(text) for text in page.locator(".row .id").all_inner_texts()]


def test_no_latent_is_loaded_before_one_is_looked_at(open_page):
    page = open_page("latents")
    page.wait_for_selector(".row")
    loaded = page.evaluate("Array.from(document.scripts, (script) => script.src)")
    assert len(loaded) == 7
    assert not any("latents/" in source or "text/" in source for source in loaded)


def test_a_latent_loads_its_own_part_and_the_text_around_its_samples(open_page):
    page = open_page("latent/12345")
    page.wait_for_selector(".kwic li")
    loaded = page.evaluate("Array.from(document.scripts, (script) => script.src)")
    assert [s.rpartition("/")[2] for s in loaded if "latents/" in s] == ["0192.js"]
    assert len(loaded) == 9


def test_the_table_of_runs_sorts_and_filters(open_page):
    page = open_page()
    runs = page.locator("table.runs tbody tr td:first-child")
    by_fvu = runs.all_inner_texts()
    page.get_by_role("button", name="seed").click()
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("seed")
    by_seed = runs.all_inner_texts()
    assert by_seed != by_fvu
    assert by_seed[:3] == ["run 0", "run 1", "run 2"]
    page.get_by_role("button", name="seed").click()
    assert runs.all_inner_texts() == by_seed[::-1]
    page.get_by_label("Filter runs").fill("rkcnn")
    assert len(runs.all_inner_texts()) == 4
    page.get_by_label("Filter runs").fill("nothing like it")
    assert "No run answers" in page.locator("table.runs").inner_text()


def test_a_search_finds_tokens_names_and_numbers(open_page):
    page = open_page("latents")
    everything = page.locator(".count").inner_text()
    page.get_by_label("Search").fill("rivers")
    until(page, "document.querySelectorAll('.row').length === 1")
    assert shown_ids(page) == [17]
    page.get_by_label("Search").fill("1234")
    until(page, "document.querySelector('.count').textContent.startsWith('11 ')")
    assert shown_ids(page)[:3] == [1234, 12340, 12341]
    page.get_by_label("Search").fill("")
    until(page, "document.querySelectorAll('.row').length > 20")
    word = page.locator(".row .chip").first.inner_text().lstrip("␣")
    page.get_by_label("Search").fill(word)
    until(page, "!document.querySelector('.count').textContent.startsWith('22,')")
    assert all(word in row for row in page.locator(".row").all_inner_texts())
    page.get_by_label("Search").fill("no such token anywhere")
    page.wait_for_selector("text=No latent answers to that.")
    page.get_by_role("button", name="Clear search and filters").click()
    assert page.locator(".count").inner_text() == everything


def test_words_in_quotes_are_looked_up_in_the_text_of_the_samples(open_page):
    page = open_page("latents")
    page.get_by_label("Search").fill('"word17 word0"')
    until(page, "!document.querySelector('.count').textContent.startsWith('22,')")
    [first, *_] = shown_ids(page)
    page.goto(page.url.partition("#")[0] + f"#/latent/{first}")
    page.wait_for_selector(".kwic li")
    marked = page.locator(".kwic .peak").all_inner_texts()
    assert {"word17", "word0"} & set(marked)


def test_filters_and_density_narrow_the_list(open_page):
    page = open_page("latents")
    page.get_by_role("button", name="Named").click()
    assert shown_ids(page) == [3, 17]
    page.get_by_role("button", name="Named").click()
    page.get_by_role("button", name="Dead").click()
    assert page.locator(".count").inner_text().startswith("2,048 of")
    page.get_by_role("button", name="Dead").click()
    before = page.locator(".count").inner_text()
    page.get_by_label("Least density").fill("-1.25")
    assert page.locator(".count").inner_text() != before
    page.get_by_role("button", name="Density").click()
    shares = page.locator(".row .density > :first-child").all_inner_texts()
    assert all(float(share.split()[0]) >= 5.6 for share in shares)


def test_rows_exist_only_near_the_view(open_page):
    page = open_page("latents")
    assert page.locator(".row").count() < 80
    page.evaluate("scrollTo(0, 400000)")
    until(page, "+document.querySelector('.row .id').textContent > 10000")
    assert page.locator(".row").count() < 80


def test_every_key_does_what_the_list_of_keys_says(open_page):
    page = open_page()
    hash_is, shown = "location.hash === '#/{}'", "document.querySelector('.title .id').textContent"
    page.keyboard.press("l")
    assert page.evaluate(hash_is.format("latents"))
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.locator(".row.cursor .id").inner_text() == "1"
    page.keyboard.press("Enter")
    assert page.evaluate(shown) == "1"
    page.keyboard.press("j")
    assert page.evaluate(shown) == "2"
    page.keyboard.press("k")
    assert page.evaluate(shown) == "1"
    page.keyboard.press("/")
    page.keyboard.type("t")
    assert page.evaluate("document.activeElement.value") == "t"
    assert page.evaluate("document.documentElement.dataset.theme") == "auto"
    page.keyboard.press("Escape")
    assert page.get_by_label("Search").input_value() == "t"
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("?")
    assert page.evaluate("document.querySelector('#keys').open")
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('#keys').open")
    page.keyboard.press("o")
    assert page.evaluate(hash_is.format(""))
    assert page.locator("table.runs").count() == 1


@pytest.mark.parametrize(
    ("start", "keys", "address"),
    [
        ("", "l j j j Enter", "latent/3"),
        ("", "l j j Enter j j k", "latent/3"),
        ("latent/2", "j j k l j Enter", "latent/1"),
        ("latent/2", "o l o", ""),
    ],
)
def test_a_key_acts_on_where_the_keys_before_it_lead(open_page, start, keys, address):
    page = open_page(start)
    press_at_once(page, keys.split())
    assert page.evaluate("location.hash") == f"#/{address}"
    words = address.split("/")
    if words[0] == "latent":
        assert page.locator(".title .id").inner_text() == words[1]
    page.wait_for_timeout(0)  # the browser tells of the addresses now; nothing comes of it
    assert page.evaluate("location.hash") == f"#/{address}"


@pytest.mark.parametrize("width", [1280, 900])
@pytest.mark.parametrize("start", ["", "latent/2", "latents"])
def test_what_is_typed_after_a_slash_is_searched_for(open_page, start, width):
    page = open_page(start, width=width)
    press_at_once(page, ["k", "j", "/"])
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("rivers")
    assert page.get_by_label("Search").input_value() == "rivers"
    page.keyboard.press("Escape")
    press_at_once(page, ["l", "Enter"])
    assert page.evaluate("location.hash") == "#/latent/17"


def test_enter_opens_what_is_searched_for_even_if_that_has_to_be_loaded(open_page):
    page = open_page("latents")
    page.get_by_label("Search").fill('"word17 word0"')
    until(page, "!document.querySelector('.count').textContent.startsWith('22,')")
    first, second, *_ = shown_ids(page)
    assert first > 1
    page = open_page("latents")
    page.get_by_label("Search").fill('"word17 word0"')
    page.keyboard.press("Escape")
    press_at_once(page, ["j", "Enter", "k"])
    until(page, f"location.hash === '#/latent/{first}'")
    page.go_back()
    until(page, f"location.hash === '#/latent/{second}'")


def test_steps_of_a_latent_follow_what_is_found_beside_it(open_page):
    page = open_page("latent/2")
    page.get_by_label("Search").fill("1234")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert page.evaluate("location.hash") == "#/latent/1234"
    page.keyboard.press("j")
    assert page.evaluate("location.hash") == "#/latent/12340"
    assert page.get_by_label("Search").input_value() == "1234"


def test_a_change_of_width_keeps_what_is_typed_focused_and_scrolled_to(open_page):
    page = open_page("latents")
    first = "document.elementFromPoint(640, 400).closest('.row').querySelector('.id').textContent"
    page.evaluate("scrollTo(0, 20000)")
    until(page, f"{first} > 500")
    before = int(page.evaluate(first))
    page.get_by_label("Search").focus(timeout=1000 * PATIENCE)
    page.evaluate("scrollTo(0, 20000)")
    page.set_viewport_size({"width": 700, "height": 900})
    until(page, "document.querySelector('.row').offsetHeight === 56")
    page.wait_for_selector(f".row[href='#/latent/{before}']")
    assert page.evaluate("document.activeElement.id") == "q"
    page = open_page()
    page.get_by_label("Filter runs").fill("rkcnn")
    drawn = "document.querySelector('figure svg').clientWidth"
    wide = page.evaluate(drawn)
    page.set_viewport_size({"width": 1000, "height": 900})
    until(page, f"{drawn} < {wide}")
    assert page.evaluate("document.activeElement.value") == "rkcnn"


def test_the_way_back_leads_to_where_the_list_was(open_page):
    page = open_page("latents")
    page.evaluate("scrollTo(0, 20000)")
    until(page, "+document.querySelector('.row .id').textContent > 500")
    page.locator(".row").nth(20).click()
    page.wait_for_selector(".kwic li")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    page.wait_for_selector(".row")
    assert page.evaluate("scrollY") == 20000
    page.reload()
    page.wait_for_selector(".row")
    assert page.evaluate("scrollY") == 20000


def test_the_way_back_leads_to_where_a_latent_was_once_it_is_loaded(open_page):
    page = open_page("latent/100")
    page.wait_for_selector(".kwic li")
    page.evaluate("scrollTo(0, 300)")
    page.keyboard.press("j")
    page.go_back()
    until(page, "scrollY === 300")
    assert page.locator(".title .id").inner_text() == "100"


def test_a_row_keeps_the_focus_while_the_list_scrolls(open_page):
    page = open_page("latents")
    page.locator(".row").nth(5).focus()
    for _ in range(60):
        page.keyboard.press("Tab")
    until(page, "scrollY > 0")
    page.evaluate("new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(then)))")
    assert page.evaluate("document.activeElement.className").startswith("row")


def test_the_skip_link_leads_to_the_content_of_the_same_page(open_page):
    page = open_page("latents")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.locator(".row").count() > 10


def test_dark_and_light_are_kept_and_an_address_decides(open_page):
    page = open_page()
    page.emulate_media(color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(19, 20, 23)"
    page.get_by_role("button", name="Theme").click()
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    page.reload()
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert open_page(query="?theme=dark").evaluate(paper) == "rgb(19, 20, 23)"


def test_a_line_opens_its_block_and_has_an_address(open_page):
    page = open_page("latent/3/2")
    page.wait_for_selector(".whole")
    line = page.locator(".kwic li").nth(2)
    assert line.get_by_role("button").first.get_attribute("aria-expanded") == "true"
    assert line.locator(".whole .t").count() > 100
    line.locator("button.kw").click()
    assert page.locator(".whole").count() == 0


def test_both_scales_of_the_logits_are_shown_and_say_what_they_are(open_page):
    page = open_page("latent/3")
    panel = page.locator(".side section", has_text="Writes toward")
    tokens = panel.locator("ol.rows li")
    until(page, "document.querySelectorAll('.side .two li').length === 14")
    per_token = tokens.all_inner_texts()
    panel.get_by_role("button", name="raw").click()
    assert panel.get_by_role("button", name="raw").get_attribute("aria-pressed") == "true"
    assert tokens.all_inner_texts() != per_token
    assert "By a path that is made up." in panel.inner_text()


def test_links_between_latents_lead_both_ways(open_page):
    page = open_page("latent/100")
    page.wait_for_selector(".side .rows a")
    page.locator(".side section", has_text="Nearest by decoder").get_by_role("link").first.click()
    until(page, "location.hash === '#/latent/101'")
    page.go_back()
    until(page, "document.querySelector('.title .id').textContent === '100'")


def test_scores_of_a_probe_and_of_chance_each_fill_their_row(open_page):
    page = open_page("probe")
    page.wait_for_selector("figure svg")
    heights = """Array.from(document.querySelectorAll('figure rect'), (bar) =>
        [Math.round(bar.getBoundingClientRect().bottom), +bar.getAttribute('height')])"""
    tallest: dict = {}
    for row, height in page.evaluate(heights):
        tallest[row] = max(height, tallest.get(row, 0))
    assert len(tallest) == 2
    assert len(set(tallest.values())) == 1
    assert "each row is as high as its own tallest bin" in page.locator("figure").inner_text()
    assert page.locator("figure rect.on").count() > 3
    assert page.locator(".card").count() == 2


def test_what_is_not_there_says_so(open_page):
    page = open_page("latent/24576")
    assert "Latent 24576 does not exist." in page.locator("main").inner_text()
    page.goto(page.url.replace("24576", "<b>x"))
    until(page, "!document.querySelector('main').textContent.includes('24576')")
    assert "does not exist" in page.locator("main").inner_text()
    page = open_page("latent/11")
    page.wait_for_selector("text=Dead: it fired on none")


def test_a_folder_with_a_missing_file_says_which(browser, tmp_path):
    write_made_up(tmp_path / "r", 70, each=4)
    (tmp_path / "r/data/latents/0001.js").unlink()
    (tmp_path / "r/data/where.js").unlink()
    page = patient(browser.new_page())
    page.goto(f"{(tmp_path / 'r').as_uri()}/index.html#/latent/65")
    page.wait_for_selector("text=A file of this report is missing.")
    assert "data/latents/0001.js" in page.locator("main").inner_text()
    page.keyboard.press("l")
    page.get_by_label("Search").fill('"word17 word0"')
    page.wait_for_selector("text=A file of this report is missing.")
    assert "data/where.js" in page.locator("main").inner_text()
    page.close()


def test_what_a_stranger_wrote_stays_text(open_page):
    page = open_page("latents")
    page.get_by_label("Search").fill("script")
    until(page, "!document.querySelector('.count').textContent.startsWith('22,')")
    assert "<script>" in page.locator(".virtual").inner_text()
    page.get_by_role("button", name="Named").click()
    page = open_page("latent/3")
    assert page.locator("h1").inner_text() == "</textarea><b>bold</b>"
    page = open_page()
    assert "<b>bold</b>" in page.locator("dl").first.inner_text()
    assert page.locator("main script, main b b, main img, main textarea").count() == 0


def test_hard_tokens_are_named_and_take_no_room(open_page):
    page = open_page("states")
    shown = page.locator("main").inner_text()
    for text in ("U+202E", "U+0000", "+9,996 marks", "E2 80", "</textarea>", "(empty)", "␣", "↵"):
        assert text in shown, text
    assert "\u202e" not in shown
    tallest = "Math.max(...Array.from(document.querySelectorAll('.chip'), (e) => e.offsetHeight))"
    assert page.evaluate(tallest) < 60


@pytest.mark.parametrize("width", [390, 900, 1440])
@pytest.mark.parametrize("route", ["", "latents", "latent/3", "probe", "states"])
def test_nothing_scrolls_sideways_at_any_width(open_page, route, width):
    page = open_page(route, width=width)
    until_whole(page)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("route", ["", "latents", "latent/3/1", "probe", "states"])
def test_axe_finds_nothing_serious(open_page, route, theme):
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    page = open_page(route, query=f"?theme={theme}")
    until_whole(page)
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text("utf-8"))
    found = page.evaluate("axe.run(document, {preload: false, resultTypes: ['violations']})")[
        "violations"
    ]
    serious = [f for f in found if f["impact"] in ("serious", "critical")]
    told = [[f["id"], [node["html"][:200] for node in f["nodes"][:3]]] for f in serious]
    assert told == [], json.dumps(told, indent=1)


def test_the_hostile_tokens_of_the_tests_are_those_that_are_feared():
    told = "".join(token for token in HOSTILE if isinstance(token, str))
    for feared in ("<script>", "</textarea>", "\u202e", "\u0000"):
        assert feared in told
    assert re.search("\u0301{10000}", told)
