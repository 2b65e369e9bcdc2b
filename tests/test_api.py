"""The reference of the Python interface: every public name, with what its docstring says."""

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import rkstore

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("api", ROOT / "docs/api.py")
api = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(api)

TAGS = """
    a blockquote body br button code dd div dl dt em footer h1 h2 h3 h4 h5 h6 head header hr html
    img input label li link main meta nav ol p path pre script section small span strong style sup
    svg table tbody td th thead title tr ul wbr
"""
VERBATIM = ("code", "pre", "script", "span", "style")
AS_TYPED = re.compile(r":(class|func|meth|mod|attr|data):|`|\n *Args:\n")


class Page(HTMLParser):
    """A page: its tags, its text outside of code, the names on it and those with a docstring."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.inside, self.html = set(), "", 0, html
        self.feed(html)
        sections = {part.partition('"')[0]: part for part in re.split(r'<section id="', html)[1:]}
        self.names = set(sections)
        docstring = '<div class="docstring">'
        self.documented = {name for name, part in sections.items() if docstring in part}

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        self.tags.add(tag)
        self.inside += tag in VERBATIM

    def handle_endtag(self, tag):
        self.inside -= tag in VERBATIM

    def handle_data(self, data):
        self.text += "" if self.inside else data


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The pages by module, and what was said while they were made."""
    out = tmp_path_factory.mktemp("api")
    words = [sys.executable, ROOT / "docs/api.py", out]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = {name: out / f"{name.replace('.', '/')}.html" for name in api.pages()}
    pages = {name: Page(file.read_text("utf-8")) for name, file in files.items()}
    return pages, done.stdout + done.stderr


def test_it_is_made_without_a_warning(built):
    assert built[1] == ""


def test_every_public_name_is_in_it_with_its_docstring(built):
    assert set(rkstore.__all__) <= built[0]["rkstore"].documented


@pytest.mark.parametrize("name", api.pages())
def test_every_class_and_function_of_a_page_has_a_docstring(built, name):
    page = built[0][name]
    tables = {one for one in page.names if one.isupper()}  # these have it where they are written
    assert {one for one in page.names - tables if "." not in one} <= page.documented


@pytest.mark.parametrize("name", api.pages())
def test_nothing_in_a_docstring_is_lost_or_left_as_it_was_typed(built, name):
    page = built[0][name]
    assert page.tags <= set(TAGS.split()), "<WORD> in a docstring became a tag"
    assert not AS_TYPED.search(page.text)
    assert "<code>~rkstore" not in page.html, "a role with ~ is not resolved"
