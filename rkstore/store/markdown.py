"""Text in Markdown, of which nothing is read as a link or HTML."""

from collections.abc import Mapping


def code(text: object) -> str:
    """Text that Markdown shows as it is, on one line of a table."""
    plain = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return "`" + plain.replace("`", "'").replace("|", "/") + "`"


def facts(lines: Mapping[str, object]) -> str:
    """A table of two columns without heads: what, and its value as it is."""
    return "\n".join(["| | |", "|---|---|", *(f"| {k} | {code(v)} |" for k, v in lines.items())])
