"""What something takes of memory, measured in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MIB = 2**20

where_it_is_counted = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is counted in /proc"
)

# Memory of its own (RssAnon), at its peak: a mapped file is resident too once it was read, but it
# is the system's cache, given back whenever someone needs room. A thread looks on meanwhile; what
# the program adds to ``seen`` counts if it comes too late.
AROUND = """
import json, sys, threading
from pathlib import Path


def own_memory():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def look_on():
    while not done.wait(0.002):
        seen.append(own_memory())


seen, done = [], threading.Event()
PROGRAM
# Once for what is imported and kept: tables, buffers, threads.
measured(sys.argv[1])
del seen[:]
before = own_memory()
threading.Thread(target=look_on, daemon=True).start()
found = measured(sys.argv[2])
done.set()
print(json.dumps([max(seen) - before, found]))
"""


def memory_of(program: str, small: Path, root: Path) -> tuple[int, Any]:
    """Bytes that ``measured(root)`` takes at most, and what it returns.

    Args:
        program: defines ``measured``, which takes a directory; it may call ``own_memory``.
        small: a directory for a first call, which is not counted.
    """
    words = [sys.executable, "-c", AROUND.replace("PROGRAM", program), str(small), str(root)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    taken, found = json.loads(done.stdout)
    return taken, found
