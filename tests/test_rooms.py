"""Who may import whom: imports go down, from what is done to what lies on disk."""

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import rkstore

PACKAGE = Path(rkstore.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

MODULES = {file.stem for file in PACKAGE.glob("*.py")}
LOW = {"errors", "door", "settings", "store", "workers"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "door": set(),
    "settings": {"errors"},
    "workers": {"errors", "settings"},
    "store": {"errors", "door"},
    **dict.fromkeys(("harvest", "planted", "share", "rkcnn", "dictionaries"), LOW),
    "training": LOW | {"dictionaries", "rkcnn"},
    "evaluation": LOW | {"dictionaries", "rkcnn", "planted"},
}

# Inside store/: each may import what stands before it. These three do not know one another.
APART = ("batches", "places", "writing")
ORDER = (
    ("files", "sites", "statistics", "jsontext", "markdown", "natural", "recent"),
    ("massive", "formats", "attached"),
    ("apart", "descriptors"),
    ("codecs",),
    ("manifest", "readable"),
    ("journal", "checked", "rows", "words"),
    ("part", "piece"),
    ("contents",),
    ("shards", "finding", "tables"),
    ("lookup",),
    ("store",),
    ("pairing",),
    (*APART, "facts", "context", "paired"),
    ("verify", "open"),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}

ONE_ROOM_UP = {("evaluation/functional.py", "harvest")}
"""Functional evaluation also gives logits, and may load a model for that."""

BESIDE = {("store/writing/destination.py", "places"), ("store/writing/hub.py", "places")}
"""A URL that is written to is one that is read: pushing asks first what is there."""


def relative(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def place(file: Path) -> list[str]:
    """The parts of a file's path in the package: room, then what is inside it."""
    return list(file.relative_to(PACKAGE).with_suffix("").parts)


def imported(file: Path) -> Iterator[str]:
    """Every module of the package that a file names, also inside functions and in tables.

    Not those that only a type checker sees.
    """
    tree = ast.parse(file.read_text("utf-8"))
    unseen = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def of_package(file: Path) -> set[tuple[str, ...]]:
    """The modules of the package that a file imports, each as the parts of its path."""
    found = {tuple(name.split(".")[1:]) for name in imported(file) if name[:8] == "rkstore."}
    return {parts for parts in found if (PACKAGE / parts[0]).is_dir() or parts[0] in MODULES}


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_imports_go_down(file: Path) -> None:
    room = place(file)[0]
    if room in ("cli", "__init__", "__main__"):
        return
    for parts in of_package(file):
        other = parts[0]
        assert other == room or other in ALLOWED[room] or (relative(file), other) in ONE_ROOM_UP, (
            f"{relative(file)} may not import {'.'.join(parts)}"
        )


@pytest.mark.parametrize("file", [f for f in FILES if place(f)[0] == "store"], ids=relative)
def test_inside_the_store_imports_go_down_too(file: Path) -> None:
    inside = place(file)[1]
    if inside == "__init__":
        return
    for parts in of_package(file):
        if parts[0] != "store" or len(parts) < 2 or parts[1] == inside or parts[1] not in LEVEL:
            continue
        assert LEVEL[parts[1]] < LEVEL[inside] or (relative(file), parts[1]) in BESIDE, (
            f"{relative(file)} may not import {parts[1]}"
        )


def test_every_file_of_the_store_has_its_level() -> None:
    there = {place(file)[1] for file in FILES if place(file)[0] == "store"}
    assert there - {"__init__"} == set(LEVEL)


READING = {"google_crc32c", "h5py", "msgpack", "numcodecs", "numpy", "rkstore", "safetensors"}
"""What reading a store of either format may load, besides Python's own modules.

numcodecs loads msgpack where it is installed.
"""


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_opening_and_reading_a_store_loads_what_that_needs_alone(make_store, format: str) -> None:
    program = textwrap.dedent("""
        import sys
        before = set(sys.modules)
        import rkstore
        store = rkstore.open(sys.argv[1])
        store.chunk(store.hook_names[0], 0)
        print(*{name.partition(".")[0] for name in set(sys.modules) - before})
    """)
    store, _ = make_store(format=format)
    done = subprocess.run(
        [sys.executable, "-c", program, str(store.root)], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split()) - sys.stdlib_module_names - READING
    # What compiled modules bring along, the newer half of typing, and what numcodecs takes if Ray
    # has brought it.
    beside = {name for name in loaded if name.startswith(("_", "cython"))}
    beside |= {"typing_extensions", "msgpack"}
    assert loaded <= beside
