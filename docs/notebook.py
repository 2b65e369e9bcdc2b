"""Run the notebooks of the documentation, and keep what their cells print and draw.

    python docs/notebook.py docs/notebooks/first_latent.ipynb

A notebook runs in an empty directory. No time, no path and no machine is kept in it.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient


def run(path: Path, directory: Path) -> Any:
    """The notebook with the outputs it has now.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        record_timing=False,
        resources={"metadata": {"path": str(directory)}},
        extra_arguments=["--log-level=ERROR"],
    )
    # Bars are text here: without widgets tqdm warns, and the warning names its file.
    client.execute(env=os.environ | {"PYTHONWARNINGS": "ignore:IProgress not found"})
    notebook.metadata.pop("language_info", None)  # the version of whoever ran it
    return notebook


def printed(cell: Any) -> str:
    """What a cell printed, on both streams, and the text of its values and pictures."""
    outputs = cell.get("outputs", ())
    return "".join(out.get("text") or out.get("data", {}).get("text/plain", "") for out in outputs)


def main(paths: list[str]) -> None:
    """Rewrite the outputs of some notebooks."""
    for path in map(Path, paths):
        with tempfile.TemporaryDirectory() as directory:
            nbformat.write(run(path, Path(directory)), path)


if __name__ == "__main__":
    main(sys.argv[1:])
