"""Runs as results tell them apart: what their checkpoints record, and what to call them."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkstore.dictionaries.disk import TRAINING
from rkstore.evaluation.measure import Evaluation
from rkstore.evaluation.report.results import sites_of
from rkstore.store.sites import briefly

# In place of a setting that a run does not record.
NOTHING = "–"


@dataclass(frozen=True)
class Training:
    """What a checkpoint records of its training."""

    identity: dict[str, Any]
    """Its settings."""
    history: list[dict[str, Any]]
    """What was reported: ``step``, ``fvu``, ``l0``, ``dead`` and others."""


def training_of(checkpoint: Path) -> Training | None:
    """What a checkpoint records; None if it records nothing.

    What cannot be read is not recorded: the numbers of the dictionary do not depend on it.
    """
    try:
        report = json.loads((checkpoint / TRAINING).read_text("utf-8"))
        history = [dict(entry) for entry in report["history"]]
        for entry in history:
            entry["step"], entry["fvu"]
        return Training(dict(report["identity"]), history)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def labels(results: Sequence[Evaluation], checkpoints: Sequence[Path]) -> list[str]:
    """What distinguishes the dictionaries: the settings they differ in, or else their names."""
    by_settings = _differences([training_of(checkpoint) for checkpoint in checkpoints])
    if all(by_settings) and len(set(by_settings)) == len(results) > 1:
        return by_settings
    several = len({sites_of(result) for result in results}) > 1
    return [
        f"{result.name}, {sites_of(result)}"
        if several and sites_of(result) not in result.name
        else result.name
        for result in results
    ]


def settings_that_differ(
    found: Sequence[Training | None],
) -> tuple[list[str], list[list[str]]]:
    """The settings in which runs differ, and those of each run as texts.

    None of either if one is not recorded, or of another wiring: those differ in too much. Options
    newer than a run are in no record, and then a dash.
    """
    identities = [training.identity for training in found if training is not None]
    if len(identities) < len(found) or len({i.get("wiring") for i in identities}) > 1:
        return [], [[] for _ in found]
    # The name of the hook contains the layer.
    keys = [key for key in dict.fromkeys(itertools.chain(*identities)) if key != "layer"]
    differing = [key for key in keys if len({str(i.get(key)) for i in identities}) > 1]
    return differing, [
        [_text(key, i[key]) if key in i else NOTHING for key in differing] for i in identities
    ]


def _differences(found: Sequence[Training | None]) -> list[str]:
    """The settings in which each run differs from others, in a line; none if unknown."""
    keys, values = settings_that_differ(found)
    alone = ("dictionary", "init", "hook")
    return [
        ", ".join(
            text if key in alone else f"{key} {text}"
            for key, text in zip(keys, texts, strict=True)
            if text != NOTHING
        )
        for texts in values
        if keys
    ]


def _text(key: str, value: Any) -> str:
    return briefly(str(value).split(",")) if key == "hook" else str(value)
