"""Checkpoints beside a store: which there are, what to call them, what is known of their model."""

import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rkstore.dictionaries.disk import CHECKPOINTS, CONFIG
from rkstore.errors import BadInput
from rkstore.store.files import named
from rkstore.store.store import Store

# Where releases of TransformerLens keep their list of other names of models.
NAME_LISTS = ("transformer_lens.supported_models", "transformer_lens.loading_from_pretrained")


def newest(store: Store, root: Path = Path(CHECKPOINTS)) -> list[Path]:
    """The last checkpoint of each run under a directory that was trained on this store.

    Raises:
        BadInput: there is none.
    """
    found: dict[Path, tuple[int, Path]] = {}
    for path in sorted(root.rglob(CONFIG)):
        # What has a dot in front is still being written.
        run = {} if path.parent.name.startswith(".") else _run(path)
        if run.get("store_fingerprint") == store.manifest.fingerprint:
            step = int(run["step"])
            name = path.parent.with_name(path.parent.name.removesuffix(f"_{step}"))
            found[name] = max(found.get(name, (-1, path.parent)), (step, path.parent))
    if not found:
        raise BadInput(
            f"no dictionary under {root}/ was trained on {store.where}: train one with "
            "'rkstore train', or name the checkpoints to evaluate"
        )
    return [path for _, path in found.values()]


def _run(config: Path) -> dict[str, Any]:
    """What a ``cfg.json`` records of the run that wrote it; nothing if rkstore did not."""
    try:
        run = json.loads(config.read_text("utf-8"))["metadata"]["rkstore"]
        return run if isinstance(run["step"], int) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def names(paths: Sequence[str | Path]) -> list[str]:
    """What to call checkpoints: of each path the shortest end that no other path has.

    Raises:
        BadInput: two are the same directory.
    """
    parts = [named(path).resolve().parts for path in paths]
    for i, own in enumerate(parts):
        if own in parts[:i]:
            raise BadInput(f"{paths[i]} is given twice: name each checkpoint once")

    def shortest(own: tuple[str, ...]) -> str:
        ends = (own[-n:] for n in range(1, len(own) + 1))
        return next(
            str(Path(*end)) for end in ends if sum(p[-len(end) :] == end for p in parts) == 1
        )

    return [shortest(own) for own in parts]


def doubts(
    path: str | Path, metadata: dict[str, Any], store: Store, *, any_model: bool = False
) -> list[str]:
    """What speaks against measuring a dictionary on a store, a sentence each.

    The digest of the weights decides where both record it; a dictionary of another program
    records none, so that only the name of its model can be compared.

    Args:
        path: of its checkpoint.
        metadata: as that has it.
        any_model: say of another model what is refused otherwise.

    Raises:
        BadInput: it was trained on the activations of another model.
    """
    run, source = _object(metadata.get("rkstore")), store.manifest.source
    if run.get("store_fingerprint") == store.manifest.fingerprint:
        return []
    theirs = {"name": metadata.get("model_name")} | _object(run.get("model"))
    ours = _object(source.get("model"))
    another, told = _of_model(theirs, ours)
    if another and not any_model:
        raise BadInput(
            f"{path} was {told} in {store.where}: give a store of its model, or --any-model to "
            "measure it anyhow"
        )
    notes = [told, *_of_text(metadata, run, source), *_of_tokens(metadata, store)]
    return [note for note in notes if note]


def _of_model(theirs: dict[str, Any], ours: dict[str, Any]) -> tuple[bool, str]:
    """Whether two models are known to differ, and what is to be said of them, if anything."""
    digests = [_said(model.get("weights_sha256")) for model in (theirs, ours)]
    known = all(digests)
    if digests[0] != digests[1] if known else _differ(theirs.get("name"), ours.get("name")):
        models = [
            f"{model.get('name')} ({f'weights {digest[:12]}' if digest else 'weights unknown'})"
            for model, digest in zip((theirs, ours), digests, strict=True)
        ]
        return True, f"trained on activations of {models[0]}, not on those of {models[1]}"
    if known:
        return False, ""
    whose = "the store" if digests[0] else "the checkpoint"
    return False, f"{whose} does not record the weights of its model: they are unverified"


def _of_text(
    metadata: dict[str, Any], run: dict[str, Any], source: dict[str, Any]
) -> Iterator[str]:
    theirs, ours = _object(run.get("text")), _object(source.get("text"))
    if theirs:
        same = theirs == ours
    else:
        theirs = {"dataset": metadata.get("dataset_path")}
        both = theirs["dataset"], ours.get("dataset")
        same = not all(both) or _last(both[0]) == _last(both[1])
    if not same:
        yield f"trained on {_told(theirs)}, measured on {_told(ours)}"
    elif run:
        yield "trained on another store"


def _of_tokens(metadata: dict[str, Any], store: Store) -> Iterator[str]:
    ours = {
        "context_size": store.manifest.context_size,
        "prepend_bos": _object(store.manifest.source.get("tokens")).get("prepend_bos"),
    }
    for key, value in ours.items():
        if None not in (value, metadata.get(key)) and metadata[key] != value:
            yield f"trained with {key} {metadata[key]}, measured with {value}"


def _differ(one: Any, other: Any) -> bool:
    """Whether two names of models are surely of two models."""
    if not one or not other:
        return False
    if _last(one) == _last(other):
        return False
    official = _official_names()
    return official is not None and official(one) != official(other)


def _official_names() -> Any:
    """What gives a model's name on the Hub for any that TransformerLens knows; None without it."""
    for module in NAME_LISTS:
        try:
            lookup = importlib.import_module(module).get_official_model_name
        except (ImportError, AttributeError):
            continue

        def official(name: Any, lookup: Any = lookup) -> str:
            try:
                return _last(lookup(str(name)))
            except ValueError:
                return _last(name)

        return official
    return None


def _last(name: Any) -> str:
    """A name of the Hub without its owner."""
    return str(name).rsplit("/", 1)[-1].lower()


def _told(text: dict[str, Any]) -> str:
    """A text in a few words."""
    files = [str(_object(file).get("name")) for file in text.get("files") or ()]
    parts = [text.get("dataset"), text.get("config"), text.get("split")]
    named = " ".join(str(part) for part in parts if part) or ", ".join(files[:3])
    more = f" and {len(files) - 3} more files" if len(files) > 3 else ""
    return f"{named}{more}" if named else "a text that is not recorded"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _said(value: Any) -> str:
    return str(value) if value else ""
