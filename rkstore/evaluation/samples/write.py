"""A checkpoint × a store → a directory of samples."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rkstore.dictionaries.disk import load_dictionary
from rkstore.evaluation.checkpoints import doubts
from rkstore.evaluation.evaluate import check_site
from rkstore.evaluation.samples.codes import Codes
from rkstore.evaluation.samples.collect import check_room, choose
from rkstore.evaluation.samples.layouts import LAYOUTS, Found, Subject
from rkstore.evaluation.samples.looking import look
from rkstore.evaluation.samples.samples import Samples, check_new
from rkstore.evaluation.samples.settings import CollectSettings, SamplesSettings
from rkstore.settings import check_device, options_in
from rkstore.store.files import directory_aside, named, writing
from rkstore.store.open import open_readable
from rkstore.store.readable import Readable

DIRECTORY = Path("results/samples")

# What of the settings is no reason for other samples.
NO_REASON = {"store", "paired_with", "device", "any_model", "batch_size"}


def write_samples(
    checkpoint: str | Path, settings: SamplesSettings
) -> tuple[Samples, Path, list[str]]:
    """Write the samples of a checkpoint to a new directory; all of it, or nothing.

    Returns:
        The samples, the directory, and reasons to doubt that the store is the dictionary's own.

    Raises:
        BadInput: there is no dictionary, or it does not belong to the store; the store has no
            tokenizer; the directory is not empty; or as in :func:`collect`.
        DamagedStore: a chunk is not what was written.
        RkstoreError: the disk is full.
    """
    check_device(settings.device)
    check_room(settings)
    store = open_readable(settings.store, settings.paired_with)
    _ = store.words  # or there is nothing to look at
    out = named(settings.out) if settings.out else _directory(checkpoint, settings.to)
    check_new(out)
    subject, notes = subject_of(checkpoint, store, settings)
    settings.options(LAYOUTS[settings.to]).check(subject)
    return write_found(subject, settings, out), out, notes


def write_found(subject: Subject, settings: SamplesSettings, out: Path) -> Samples:
    """Collect the samples of a subject, and write them to a new directory."""
    layout = settings.options(LAYOUTS[settings.to])
    with (
        writing(out.parent, "nothing else was touched"),
        directory_aside(out, replaces=out.exists()) as at,
        collected(subject, settings, at) as found,
    ):
        layout.write(found, at)
        return found.samples


@contextmanager
def collected(subject: Subject, settings: CollectSettings, scratch: Path) -> Iterator[Found]:
    """The samples of a subject, and the codes of its rows while this lasts."""
    with tempfile.TemporaryFile(dir=scratch) as file:
        codes = Codes(file, scratch)
        samples = choose(subject.dictionary, subject.looking, settings, codes)
        yield Found(**vars(subject), samples=samples, codes=codes)


def _directory(checkpoint: str | Path, to: str) -> Path:
    name = named(checkpoint).resolve().name
    return DIRECTORY / (name if to == "parquet" else f"{name}-{to}")


def subject_of(
    checkpoint: str | Path, store: Readable, settings: CollectSettings
) -> tuple[Subject, list[str]]:
    """What is to be looked at, and the doubts; BadInput if one does not fit the other."""
    dictionary, metadata = load_dictionary(checkpoint)
    for site in dictionary.wiring.reads:
        check_site(checkpoint, site, metadata, store)
    notes = doubts(checkpoint, metadata, store, any_model=settings.any_model)
    facts: dict[str, Any] = {"checkpoint": str(checkpoint), "notes": notes}
    reasons = options_in(CollectSettings).keys() - NO_REASON
    facts["settings"] = {name: getattr(settings, name) for name in sorted(reasons)}
    name = named(checkpoint).resolve().name
    looking = look(dictionary, store, settings)
    return Subject(store, dictionary, metadata, name, looking, facts), notes
