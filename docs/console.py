"""Run the commands that the documentation shows, and put what they print below them.

    python docs/console.py README.md        # rewrite the outputs
    python docs/console.py --check README.md
    python docs/console.py docs/models.md --given models --given valid.txt

A ```console block holds commands after ``$`` and what they printed; a ```python block is run as
a program. All blocks of a page run one after another in one empty directory. A picture with a
comment below it, ``<!-- drawn: PATH -->``, is the file that the commands left there. What the
commands need of the present directory is linked into the empty one by ``--given``.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

BLOCK = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)
PICTURE = re.compile(r"!\[[^\]]*\]\((\S+)\)\n<!-- drawn: (\S+) -->")


def blocks(page: str) -> Iterator[re.Match[str]]:
    """The blocks of a page that can be run; group 1 is the language, group 2 the text."""
    return BLOCK.finditer(page)


def run(language: str, text: str, directory: Path) -> str:
    """What a block looks like after running it: commands, each with what it prints now.

    Raises:
        RuntimeError: a command failed.
    """
    if language == "python":
        _output([sys.executable, "-c", text], directory)
        return text
    commands = [line for line in text.splitlines() if line.startswith("$ ")]
    parts = []
    for command in commands:
        out = _output(["bash", "-c", command[2:]], directory)
        parts.append(f"{command}\n{out}" if out else f"{command}\n")
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def shape(text: str) -> str:
    """A text without its numbers and hashes: what must be the same on every machine."""
    text = re.sub(r"\b[0-9a-f]{6,}\b", "#", text)
    text = re.sub(r"[\d.,]*\d(e[+-]?\d+)?", "#", text)
    return re.sub(r"[ \t-]+", " ", text)


def _output(command: list[str], directory: Path) -> str:
    binaries = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main(arguments: list[str]) -> None:
    """Rewrite the pages named, or with ``--check`` say where they differ in shape."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pages", nargs="+")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--given", action="append", default=[])
    asked = parser.parse_args(arguments)
    for name in asked.pages:
        page = Path(name).read_text("utf-8")
        with tempfile.TemporaryDirectory() as directory:
            for path in map(Path, asked.given):
                (Path(directory) / path.name).symlink_to(path.absolute())
            for block in list(blocks(page)):
                found = run(block[1], block[2], Path(directory))
                if asked.check and shape(found) != shape(block[2]):
                    sys.exit(f"{name} shows\n{block[2]}\nbut the commands print\n{found}")
                page = page.replace(block[0], f"```{block[1]}\n{found}```", 1)
            for picture in PICTURE.finditer(page):
                shown, drawn = Path(name).parent / picture[1], Path(directory) / picture[2]
                if asked.check and not (shown.is_file() and drawn.is_file()):
                    sys.exit(f"{name} shows {shown}, and the commands draw {drawn}: one is missing")
                if not asked.check:
                    shutil.copy(drawn, shown)
        if not asked.check:
            Path(name).write_text(page, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
