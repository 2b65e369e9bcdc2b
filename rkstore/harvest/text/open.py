"""The text of a harvest: plain files, the rows of a dataset, or text that ships with Python."""

import hashlib
import sys
from pathlib import Path

from rkstore.errors import BadInput, RkstoreError, one_line, warn
from rkstore.harvest.ignored import OF_DATASETS, check_ignored, refuse
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.text.arrays import open_array
from rkstore.harvest.text.dataset import open_rows, public_name
from rkstore.harvest.text.documents import Text, shuffled
from rkstore.harvest.text.files import read_files, text_files
from rkstore.harvest.text.python import PYTHON_CORPUS, python_documents

# The default dataset, which has four configurations and no default among them.
WIKITEXT, WIKITEXT_CONFIG = "wikitext", "wikitext-103-raw-v1"


def open_text(settings: HarvestSettings) -> Text:
    """The requested text, or the first of the fallbacks that is available.

    Raises:
        BadInput: a file is missing, not plain text or not UTF-8, a dataset lacks the text column
            or the split, or a setting would be ignored.
        RkstoreError: no dataset of the list is available.
    """
    check_ignored(settings)
    if settings.text:
        return read_files(text_files(settings.text), settings.seed)
    asked = [_name_and_config(name) for name in settings.fallback]
    asked.insert(0, (settings.dataset, settings.dataset_config))
    tried: list[str] = []
    for name, config in asked:
        try:
            text = _open(name, config, settings)
        except BadInput:
            raise
        except Exception as error:  # for any reason, it is not available
            tried.append(f"{name}: {_reason(error)}")
            if len(asked) > 1:
                warn(f"{tried[-1]}; trying the next of --fallback")
            continue
        if len(asked) > 1:
            warn(f"reading {name}")
            text.source["asked"] = [_public(name, config) for name, config in asked]
        return text
    raise RkstoreError(
        f"cannot load the dataset ({'; '.join(tried)}): without a network use --text FILE, "
        "a local directory as --dataset, or 'rkstore demo'"
    )


def _open(name: str, config: str | None, settings: HarvestSettings) -> Text:
    if name == PYTHON_CORPUS:
        refuse(settings, OF_DATASETS[4:], name)  # as a fallback
        return _from_python(settings.seed)
    if name.lower().endswith(".npy") and Path(name).is_file():
        return open_array(Path(name), settings)
    return open_rows(name, config or _usual_config(name), settings)


def _reason(error: Exception) -> str:
    # The library's error if there is no first row or no first file.
    if isinstance(error, (StopIteration, IndexError)):
        return "it has no rows"
    return one_line(error, 200)


def _from_python(seed: int) -> Text:
    texts = [text for _, text in python_documents()]
    documents = shuffled(texts, seed)
    digest = hashlib.sha256()
    for _, text in documents:
        digest.update(text.encode("utf-8", "surrogatepass"))
    source = {
        "dataset": PYTHON_CORPUS,
        "python": sys.version.split()[0],
        "documents": len(documents),
        "sha256": digest.hexdigest(),
    }
    return Text(iter(documents), source)


def _name_and_config(text: str) -> tuple[str, str | None]:
    """A fallback: a path as it is, or ``NAME:CONFIG``."""
    if Path(text).exists():
        return text, None
    name, _, config = text.partition(":")
    return name, config or None


def _usual_config(name: str) -> str | None:
    # A directory of that name has no configurations.
    is_wikitext = name.split("/")[-1] == WIKITEXT and not Path(name).exists()
    return WIKITEXT_CONFIG if is_wikitext else None


def _public(name: str, config: str | None) -> str:
    """The requested dataset, without local paths."""
    return ":".join(part for part in (public_name(name), config) if part)
