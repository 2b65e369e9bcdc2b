"""Samples as other programs read them, and these programs themselves, if they are installed."""

import gzip
import json
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-readers/bin/python"
needs_readers = pytest.mark.skipif(
    not PYTHON.exists(), reason="'make readers' installs the readers"
)


def ask(what, *words):
    """What a program of ``peers/`` prints, from JSON."""
    command = [PYTHON, ROOT / "tests/peers/samples_read.py", what, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lines(path):
    """The records of a compressed file of JSON lines."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def circuit_tracer_feature(folder, layer, index):
    """As the pages of circuit-tracer read it: a range of bytes, one too many."""
    listed = json.loads(gzip.decompress((folder / "index.json.gz").read_bytes()))[layer]
    first, last = listed["offsets"][index], listed["offsets"][index + 1]
    read = (folder / listed["filename"]).read_bytes()[first : last + 1]
    assert len(read) == last + 1 - first
    length = struct.unpack("<I", read[:4])[0]
    return json.loads(zlib.decompress(read[4 : 4 + length]))
