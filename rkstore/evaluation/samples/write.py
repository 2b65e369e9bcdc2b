"""A checkpoint × a store → a directory of samples."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.settings import DictionarySettings
from rkstore.errors import BadInput
from rkstore.evaluation.checkpoints import doubts
from rkstore.evaluation.effects import effects_on_logits
from rkstore.evaluation.opened import opened
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
NO_REASON |= options_in(DictionarySettings).keys()


def write_samples(
    checkpoint: str | Path, settings: SamplesSettings
) -> tuple[Samples, Path, list[str]]:
    """Write the samples of a checkpoint to a new directory; all of it, or nothing.

    Returns:
        The samples, the directory, and reasons to doubt that the store is the dictionary's own.

    Raises:
        BadInput: there is no dictionary, or it does not belong to the store; the store has no
            tokenizer; the directory is not empty; the layout has no place for the logits that are
            asked for; or as in :func:`collect` and :func:`effects_on_logits`.
        DamagedStore: a chunk is not what was written.
        RkstoreError: the disk is full.
    """
    check_device(settings.device)
    check_room(settings)
    _check_logits(settings)
    store = open_readable(settings.store, settings.paired_with)
    _ = store.words  # or there is nothing to look at
    out = named(settings.out) if settings.out else _directory(checkpoint, settings.to)
    check_new(out)
    subject, notes = subject_of(checkpoint, store, settings)
    settings.options(LAYOUTS[settings.to]).check(subject)
    if settings.loads_model:
        effects = effects_on_logits(subject.dictionary, store, settings)
        subject, notes = replace(subject, effects=effects), [*notes, *effects.notes]
    return write_found(subject, settings, out), out, notes


def write_during(
    dictionary: Dictionary, store: Readable, settings: SamplesSettings, out: Path
) -> None:
    """Write the samples of a dictionary that is being trained, unless they are there already.

    Args:
        dictionary: for rows as they are stored.
        out: named after its checkpoint, as which an interrupted training may have written them.
    """
    if out.exists():
        return
    looking = look(dictionary, store, settings)
    facts = _facts(str(out), (), settings)
    write_found(Subject(store, dictionary, {}, out.name, looking, facts), settings, out)


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


def _check_logits(settings: SamplesSettings) -> None:
    """Raise BadInput if logits are asked for that the layout has no place for."""
    if settings.loads_model and not LAYOUTS[settings.to].has_logits:
        flag = "--with-model" if settings.with_model else "--model"
        others = [name for name, layout in LAYOUTS.items() if layout.has_logits]
        raise BadInput(
            f"--to {settings.to} has no place for logits: leave out {flag}, or write them with "
            f"--to {', '.join(others[:-1])} or {others[-1]}"
        )


def _directory(checkpoint: str | Path, to: str) -> Path:
    name = named(checkpoint).resolve().name
    return DIRECTORY / (name if to == "parquet" else f"{name}-{to}")


def subject_of(
    checkpoint: str | Path, store: Readable, settings: CollectSettings
) -> tuple[Subject, list[str]]:
    """What is to be looked at, and the doubts; BadInput if one does not fit the other."""
    dictionary, metadata = opened(checkpoint, store, settings, only_reads=True)
    notes = doubts(checkpoint, metadata, store, any_model=settings.any_model)
    facts = _facts(str(checkpoint), notes, settings)
    name = named(checkpoint).resolve().name
    looking = look(dictionary, store, settings)
    return Subject(store, dictionary, metadata, name, looking, facts), notes


def _facts(checkpoint: str, notes: Sequence[str], settings: CollectSettings) -> dict[str, Any]:
    """How samples are chosen, for JSON."""
    reasons = sorted(options_in(CollectSettings).keys() - NO_REASON)
    chosen = {name: getattr(settings, name) for name in reasons}
    return {"checkpoint": checkpoint, "notes": list(notes), "settings": chosen}
