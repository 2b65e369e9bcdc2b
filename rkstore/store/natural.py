"""Natural order: names that contain numbers, sorted by them."""

import re


def natural(name: str) -> tuple[list[int | str], str]:
    """A key that puts ``layer_2`` before ``layer_10``.

    Text and numbers alternate, so that two keys compare like with like; a number has at most
    eighteen digits, because an untrusted name may have any number of them.
    """
    parts = re.split(r"(\d{1,18})", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
