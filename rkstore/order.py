"""The order in which people count: layer_2 before layer_10."""

import re


def natural(name: str) -> list[tuple[int, str]]:
    """A key for ``sorted`` that takes the digits of a name as numbers."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]
