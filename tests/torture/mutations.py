"""Random changes of any JSON value and of any bytes."""

import copy
import json
import math
import random
import struct
from typing import Any

# Put in place of a list so deep that parsers and writers of JSON differ about it.
DEEP = "rkstore-torture-deep"
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 16, 2**24, 2**31, 2**32, 2**47, 2**48 - 1, 2**53 + 1),
    *(2**64, 10**400, 0.5, -0.0, 1e300, math.inf, -math.inf, math.nan, "", "x", "../x", "/etc"),
    *("\ud800", "\0", "a" * 5000, "zarr", "hdf5", "float16", "int8", "float32", DEEP),
    *([], {}, [[]], {"": {}}, [1, 2], {"bytes": 1}, {"hook_name": "x", "d_in": 2**31}),
]


def canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def deepened(text: bytes, rng: random.Random) -> bytes:
    depth = rng.choice([50, 200, 330, 500, 900, 5000, 200_000])
    return text.replace(f'"{DEEP}"'.encode(), b"[" * depth + b"]" * depth)


def mutate(value: Any, rng: random.Random) -> Any:
    """Change, copy or remove something anywhere in a JSON value."""
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, inner in list(items):
            places.append((node, key))
            if isinstance(inner, (dict, list)):
                visit(inner)

    value = copy.deepcopy(value)
    visit(value)
    node, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.1:
        del node[key]
    elif kind < 0.2 and isinstance(node, dict):
        node[rng.choice(["x", "", "\ud800", "../x"])] = node[key]
    elif kind < 0.25 and isinstance(node, list):
        node.append(copy.deepcopy(node[key]))
    elif kind < 0.4 and isinstance(node[key], int):
        node[key] = max(0, node[key] + rng.choice([-1, 1, node[key], 7 * node[key]]))
    else:
        node[key] = copy.deepcopy(rng.choice(ODD))
    return value


def noise(data: bytes, rng: random.Random) -> bytes:
    """Change a few bytes, or insert, remove, cut."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        if not changed:
            break
        at, kind = rng.randrange(len(changed)), rng.random()
        if kind < 0.5:
            changed[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif kind < 0.7:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind < 0.85:
            word = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)])
            changed[at : at + 4] = struct.pack("<I", word)[: len(changed) - at]
        elif kind < 0.9:
            del changed[at : at + rng.randrange(1, 16)]
        elif kind < 0.95:
            changed[at:at] = rng.randbytes(rng.randrange(1, 16))
        else:
            del changed[at:]
    return bytes(changed)
