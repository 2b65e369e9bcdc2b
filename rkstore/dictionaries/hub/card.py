"""The model card of a dictionary: what is on record of it, and how it is loaded.

Nothing is invented: what is not on record is said not to be.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.hub.evaluations import Result, shown
from rkstore.dictionaries.layouts import LAYOUTS
from rkstore.dictionaries.layouts.base import UNNAMED, UNNAMED_OUT
from rkstore.dictionaries.wirings import Wiring
from rkstore.errors import few, size
from rkstore.store.files import FileRecord
from rkstore.store.markdown import code, facts
from rkstore.store.places.hub import Repository
from rkstore.store.sites import Site

UNKNOWN = "not recorded"
NO_LICENCE = "unknown: none is on record, and those of the model and the text hold as well"

COMMIT = re.compile(r"[0-9a-f]{40}")

# How a program loads a directory of its own layout, ``{at}``.
PROGRAMS = {
    "saelens": ("SAELens", "from sae_lens import SAE", "sae = SAE.load_from_disk({at})"),
    "dictionary-learning": (
        "dictionary_learning",
        "from dictionary_learning.utils import load_dictionary",
        'dictionary, config = load_dictionary({at}, device="cpu")',
    ),
    "sparsify": (
        "sparsify",
        "from sparsify import SparseCoder",
        "SparseCoder.load_from_disk({at})",
    ),
}


def card(
    dictionary: Dictionary,
    metadata: dict[str, Any],
    place: Repository,
    *,
    layout: str,
    files: Mapping[str, FileRecord],
    license: str | None,
    results: list[Result],
) -> str:
    """What a dictionary is and how it is loaded, in Markdown; none of it is read as HTML.

    Args:
        place: where it is published.
        layout: the one of its files.
        files: their sizes and digests, by name.
        license: as the Hub names it, if it is known.
        results: of evaluations, as ``rkstore evaluate`` records them.
    """
    run = _object(metadata.get("rkstore"))
    model = {"name": metadata.get("model_name")} | _object(run.get("model"))
    head = {
        "license": license or "unknown",
        "library_name": "saelens" if layout == "saelens" else "rkstore",
        "tags": ["rkstore", kind(dictionary.wiring).lower().replace(" ", "-")],
    }
    if COMMIT.fullmatch(str(model.get("revision"))):  # only what came from the Hub has one
        head["base_model"] = str(model["name"])
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{mark(place)}",
        f"# {kind(dictionary.wiring)} of {code(model['name'] or 'a model that is not recorded')}",
        "Published with [rkstore](https://pypi.org/project/rkstore/).",
        facts(_facts(dictionary, metadata, run, model, layout, files, license)),
        *_settings(run),
        "## Evaluation",
        *shown(results),
        *_loading(dictionary, place, layout),
    ]
    return "\n\n".join(parts) + "\n"


def mark(place: Repository) -> str:
    """The line by which a card of ours is known, which the next push replaces."""
    of = f" of {place.under}" if place.under else ""
    return f"<!-- Written by rkstore push{of}, which replaces it: remove this line to edit it. -->"


def kind(wiring: Wiring) -> str:
    """What a dictionary of that wiring is called."""
    banks = wiring.banks
    if any(len(bank.reads) > 1 for bank in banks):
        return "Crosscoder"
    if all(bank.reads == bank.writes for bank in banks):
        return "Sparse autoencoder"
    if any(len(bank.writes) > 1 for bank in banks):
        return "Cross-layer transcoder"
    return "Transcoder" if len(banks) == 1 else "Transcoders"


def _facts(
    dictionary: Dictionary,
    metadata: dict[str, Any],
    run: dict[str, Any],
    model: dict[str, Any],
    layout: str,
    files: Mapping[str, FileRecord],
    license: str | None,
) -> dict[str, object]:
    wiring, rule = dictionary.wiring, dictionary.pools[0].rule
    options = ", ".join(f"{key} {value}" for key, value in rule if key not in rule.of_training)
    stored = size(sum(file.bytes for file in files.values()))
    tokens = (f"{key} {_known(metadata.get(key))}" for key in ("context_size", "prepend_bos"))
    return {
        "code": f"{rule.name}, {options}" if options else rule.name,
        "latents": f"{dictionary.d_sae:,}",
        "reads": _told(wiring.reads),
        "writes": "the same" if wiring.reads == wiring.writes else _told(wiring.writes),
        "size": f"{wiring.parameters:,} parameters, {stored} in the layout {layout}",
        **{f"SHA-256 of {name}": file.sha256 for name, file in list(files.items())[:3]},
        "model": f"{model['name'] or UNKNOWN}, revision {model.get('revision') or UNKNOWN}",
        "weights of the model": model.get("weights_sha256") or UNKNOWN,
        "text": _text(_object(run.get("text")), metadata),
        "tokens": ", ".join(tokens),
        "store": run.get("store_fingerprint") or UNKNOWN,
        "rows of the store": f"{_known(run.get('store_rows'))}, step {_known(run.get('step'))}",
        "licence": license or NO_LICENCE,
    }


def _told(sites: tuple[Site, ...]) -> str:
    named = [
        f"{UNKNOWN if site.hook_name in (UNNAMED, UNNAMED_OUT) else site.hook_name} "
        f"({site.width} wide)"
        for site in sites
    ]
    return few(named, 32)


def _text(text: dict[str, Any], metadata: dict[str, Any]) -> str:
    parts = [text.get(key) for key in ("dataset", "config", "split")]
    name = " ".join(str(part) for part in parts if part) or metadata.get("dataset_path")
    files = [str(_object(file).get("name")) for file in text.get("files") or ()]
    digest = f", SHA-256 {text['sha256']}" if text.get("sha256") else ""
    return f"{name or few(files, 8) or UNKNOWN}{digest}"


def _known(value: object) -> str:
    return UNKNOWN if value is None else str(value)


def _settings(run: dict[str, Any]) -> Iterator[str]:
    """The options of the training, as they were recorded."""
    yield "## Training"
    options = {
        key: value for key, value in run.items() if key not in ("model", "text") and value != {}
    }
    if not options:
        yield "The settings are not recorded."
        return
    text = json.dumps(options, indent=1, allow_nan=False).replace("`", "'")
    yield f"<details><summary>Settings</summary>\n\n```json\n{text}\n```\n\n</details>"


def _loading(dictionary: Dictionary, place: Repository, layout: str) -> Iterator[str]:
    """How the dictionary is loaded, in rkstore and in the programs whose layout can hold it."""
    more = f", {place.under!r}" if place.under else ""
    more += f", revision={place.revision!r}" if place.revision != "main" else ""
    yield "## Loading"
    yield _python(
        "from rkstore import Dictionary",
        f"dictionary = Dictionary.from_pretrained({place.name!r}{more})",
        "code = dictionary.encode(x)",
    )
    for name, (program, *lines) in PROGRAMS.items():
        if name not in LAYOUTS or LAYOUTS[name]().refuses(dictionary):
            continue
        yield f"In {program}:"
        if name == layout:
            yield _python(
                "from huggingface_hub import snapshot_download", *_at(lines, _here(place))
            )
        else:
            yield f"```\n{_convert(place, name)}\n```"
            yield _python(*_at(lines, repr(_out(place, name))))
    name = "circuit-tracer"
    if name in LAYOUTS and not LAYOUTS[name]().refuses(dictionary):
        yield "In circuit-tracer:"
        at = str(place).removeprefix("hf://")
        if name != layout:
            at = f"USER/{_out(place, name)}"
            push = f"rkstore push {_out(place, name)} hf://{at}"
            yield f"```\n{_convert(place, name)}\n{push}\n```"
        yield _python(
            "from circuit_tracer.utils.hf_utils import load_transcoder_from_hub",
            f"transcoders, config = load_transcoder_from_hub({at!r})",
        )


def _here(place: Repository) -> str:
    """The directory of the published files, as Python gets it."""
    revision = "" if place.revision == "main" else f", revision={place.revision!r}"
    under = f' + "/{place.under}"' if place.under else ""
    return f"snapshot_download({place.name!r}{revision}){under}"


def _out(place: Repository, layout: str) -> str:
    return f"{(place.under or place.name).rpartition('/')[2]}-{layout}"


def _convert(place: Repository, layout: str) -> str:
    return f"rkstore convert {place} --to {layout} --out {_out(place, layout)}"


def _at(lines: list[str], at: str) -> list[str]:
    return [line.replace("{at}", at) for line in lines]


def _python(*lines: str) -> str:
    """A block of Python: its imports, and an empty line below them."""
    imports = [line for line in lines if line.startswith("from ")]
    rest = [line for line in lines if not line.startswith("from ")]
    return "\n".join(["```python", *imports, "", *rest, "```"])


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
