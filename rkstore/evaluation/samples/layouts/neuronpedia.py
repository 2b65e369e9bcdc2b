"""Neuronpedia's bulk import: JSON lines for each source, as SAEDashboard's exporter makes them.

The lines have the fields of that program's ``neuronpedia_export.py``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from rkstore.errors import BadInput
from rkstore.evaluation.samples.layouts.base import Found, Subject
from rkstore.evaluation.samples.layouts.dashboard import Dashboard, batches, dataset_of, feature
from rkstore.evaluation.samples.layouts.parts import Part, parts_of
from rkstore.settings import option

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# What an address on Neuronpedia is made of.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

# Its default for the creator of what is imported.
CREATOR = "clkht01d40000jv08hvalcvly"

# Fields of a dashboard's feature that are those of a feature here.
SAME = re.compile("neuron_align|correlated|neg_|pos_|frac_|freq_|logits_|decoder_")


class Neuronpedia(Dashboard):
    """A folder for each layer, MODEL/LAYER-SET, ready for Neuronpedia's import."""

    name = "neuronpedia"
    model_id: str | None = option(
        None, "The model's name on Neuronpedia; by default that of the store, without its owner."
    )
    creator_id: str = option(CREATOR, "Id on Neuronpedia of whoever made the dictionary.")
    creator_name: str = option("rkstore", "Their name.")
    release: str = option("rkstore", "Name of the release that the dictionary is of.")
    created_at: str = option(
        "1970-01-01T00:00:00",
        "Date of the upload, in ISO form. The default is none: equal samples have equal bytes.",
    )

    def check(self, subject: Subject) -> None:
        parts_of(subject, "Neuronpedia")
        for flag, name in (("--model-id", self._model(subject)), ("--source-set", self.source_set)):
            if not NAME.fullmatch(name):
                raise BadInput(
                    f"{flag} is '{name}', which is no part of an address: use letters, digits, "
                    "_, - and ."
                )

    def write(self, found: Found, out: Path) -> None:
        model = self._model(found)
        for part in parts_of(found, "Neuronpedia"):
            source = f"{part.layer}-{self.source_set}"
            folder = out / model / source
            (folder / "features").mkdir(parents=True)
            (folder / "activations").mkdir()
            for name, line in self._about(found, part, model, source).items():
                (folder / f"{name}.jsonl").write_bytes(_lines([line]))
            for number, latents in enumerate(batches(part)):
                own = {"modelId": model, "layer": source, "creatorId": self.creator_id}
                own["createdAt"] = self.created_at
                made = [feature(found, part, latent, vector=self.vectors) for latent in latents]
                for kind, lines in (
                    ("features", (_feature(one, part, own, self.source_set) for one in made)),
                    ("activations", _activations(found, made, own)),
                ):
                    content = gzip.compress(_lines(lines), compresslevel=5, mtime=0)
                    (folder / kind / f"batch-{number}.jsonl.gz").write_bytes(content)

    def _model(self, subject: Subject) -> str:
        return self.model_id or subject.model_name

    def _about(self, found: Found, part: Part, model: str, source: str) -> dict[str, Any]:
        """The lines of the release, the model, the set and the source, by file."""
        by = {"creatorId": self.creator_id, "createdAt": self.created_at}
        metadata = found.metadata
        return {
            "release": by
            | {
                "name": self.release,
                "description": self.release,
                "descriptionShort": self.release,
                "creatorName": self.creator_name,
                "creatorNameShort": self.creator_name,
                "urls": [],
                "visibility": "PUBLIC",
            },
            "model": by
            | {
                "id": model,
                "instruct": model.endswith(("-it", "-Instruct")),
                "displayName": model,
                "displayNameShort": model,
                "tlensId": metadata.get("model_name"),
                "updatedAt": self.created_at,
                "visibility": "PUBLIC",
            },
            "sourceset": by
            | {
                "modelId": model,
                "name": self.source_set,
                "description": f"{found.dictionary.pools[0].rule.name} of {part.hook}",
                "creatorName": self.creator_name,
                "releaseName": self.release,
                "hasDashboards": True,
                "visibility": "PUBLIC",
            },
            "source": by
            | {
                "id": source,
                "modelId": model,
                "setName": self.source_set,
                "hasDashboards": True,
                "dataset": dataset_of(found),
                "num_prompts": -(-found.samples.rows // found.looking.context_size),
                "num_tokens_in_prompt": found.looking.context_size,
                "notes": f"fingerprint of the store {found.samples.fingerprint}",
                "visibility": "PUBLIC",
            },
        }


def _feature(
    made: dict[str, Any], part: Part, own: dict[str, Any], source_set: str
) -> dict[str, Any]:
    """The line of a latent."""
    largest = max((max(one["values"]) for one in made["activations"]), default=0.0)
    steered = bool(made["vector"])
    return (
        own
        | {name: value for name, value in made.items() if SAME.match(name)}
        | {
            "index": str(made["feature_index"]),
            "maxActApprox": largest,
            "hasVector": steered,
            "vector": made["vector"],
            "vectorLabel": None,
            "vectorDefaultSteerStrength": largest if steered else 10,
            "hookName": part.hook_name if steered else None,
            "topkCosSimIndices": [],
            "topkCosSimValues": [],
            "sourceSetName": source_set,
        }
    )


def _activations(
    found: Found, made: list[dict[str, Any]], own: dict[str, Any]
) -> Iterable[dict[str, Any]]:
    """The lines of all samples of some latents."""
    place = f"{found.samples.fingerprint} {found.name} {own['modelId']} {own['layer']}"
    for one in made:
        for number, sample in enumerate(one["activations"]):
            values = sample["values"]
            unique = f"{place} {one['feature_index']} {number}"
            yield own | {
                "id": "c" + hashlib.sha256(unique.encode()).hexdigest()[:24],
                "index": str(one["feature_index"]),
                "tokens": sample["tokens"],
                "values": values,
                "maxValue": max(values),
                "maxValueTokenIndex": values.index(max(values)),
                "minValue": min(values),
                "binMin": sample["bin_min"],
                "binMax": sample["bin_max"],
                "binContains": sample["bin_contains"],
                "qualifyingTokenIndex": sample["qualifying_token_index"],
                "dataIndex": None,
                "dataSource": None,
                "dfaValues": [],
                "dfaTargetIndex": None,
                "dfaMaxValue": None,
                "lossValues": [],
                "logitContributions": None,
                "zIndices": None,
                "zValues": None,
            }


def _lines(lines: Iterable[dict[str, Any]]) -> bytes:
    """JSON lines."""
    dumped = (json.dumps(line, ensure_ascii=False, allow_nan=False) for line in lines)
    return "".join(line + "\n" for line in dumped).encode()
