"""A page of documentation: a Markdown template filled with words and numbers."""

import textwrap
from pathlib import Path
from typing import Any


def page(template: Path, **words: Any) -> str:
    """The template with its ``{names}`` replaced, and its paragraphs filled to 100 characters."""
    blocks = template.read_text("utf-8").format(**words).split("\n\n")
    return "\n\n".join(map(_filled, blocks))


def _filled(block: str) -> str:
    """A paragraph in lines of 100 characters; lists, tables and code are left as they are."""
    if block.startswith(("#", "|", "!", "- ", " ")):
        return block
    end = "\n" if block.endswith("\n") else ""
    return textwrap.fill(block, 100, break_long_words=False, break_on_hyphens=False) + end
