"""Which checkpoints belong to a store, their labels, and whether they fit its model."""

import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rkstore.dictionaries.disk import CHECKPOINTS, CONFIG
from rkstore.dictionaries.prefixes import ORDERS, WHOLE, Prefixes
from rkstore.errors import BadInput
from rkstore.store.files import named
from rkstore.store.readable import Readable

# Modules in which TransformerLens releases define model aliases.
NAME_LISTS = ("transformer_lens.supported_models", "transformer_lens.loading_from_pretrained")

# What a control arm does not share with the run that it is a control of.
OF_START = ("control", "init", "directions_sha256", "from_sha256", "mined")

# Options of a training that its checkpoint records, and what they are in Prefixes.
RECORDED_PREFIXES = {"prefixes": "shares", "prefix_order": "order", "prefix_draws": "draws"}


def newest(store: Readable, root: Path = Path(CHECKPOINTS)) -> list[Path]:
    """The last checkpoint of each run under ``root`` that was trained on this store.

    Raises:
        BadInput: there is none.
    """
    found: dict[Path, tuple[int, Path]] = {}
    for path in sorted(root.rglob(CONFIG)):
        # A directory whose name begins with a dot is still being written.
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
    """What a ``cfg.json`` records of its run; empty if another program wrote it."""
    try:
        run = json.loads(config.read_text("utf-8"))["metadata"]["rkstore"]
        return run if isinstance(run["step"], int) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def is_ours(path: Path) -> bool:
    """Whether a training of rkstore wrote a checkpoint."""
    return bool(_run(path / CONFIG))


def run_of(path: Path) -> dict[str, Any]:
    """What a checkpoint records of its run: its options, store and step.

    Raises:
        BadInput: it is no checkpoint of rkstore.
    """
    run = _run(path / CONFIG)
    if not run:
        raise BadInput(f"{path} is no checkpoint that 'rkstore train' wrote: give one")
    return run


def with_controls(paths: Sequence[Path]) -> list[Path]:
    """Checkpoints, each followed by the control arms that were trained with it.

    An arm is the same run but for its control and its start, and lies beside it.
    """
    known, found = {path.resolve() for path in paths}, []
    for path in paths:
        found.append(path)
        own = _run(path / CONFIG)
        if not own or "control" in own:
            continue
        for config in sorted(path.parent.glob(f"*_{own['step']}/{CONFIG}")):
            run, arm = _run(config), config.parent
            is_arm = "control" in run and _but_start(run) == _but_start(own)
            if is_arm and arm.resolve() not in known:
                found.append(arm)
                known.add(arm.resolve())
    return found


def _but_start(run: dict[str, Any]) -> dict[str, Any]:
    """The record of a run without its control and what belongs to its start."""
    return {key: value for key, value in run.items() if key not in OF_START}


def names(paths: Sequence[str | Path]) -> list[str]:
    """Labels of checkpoints: the shortest suffix of each path that no other path has.

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


def prefixes_of(path: str | Path, metadata: dict[str, Any]) -> Prefixes:
    """The prefixes that a dictionary was trained with; one of another program has none.

    Raises:
        BadInput: what its metadata says of them means nothing.
    """
    run = _object(metadata.get("rkstore"))
    shares, order, draws = (
        run.get(key, getattr(WHOLE, field)) for key, field in RECORDED_PREFIXES.items()
    )
    numbers = isinstance(shares, list | tuple) and all(type(s) in (int, float) for s in shares)
    if not numbers or order not in ORDERS or type(draws) is not int or draws < 0:
        raise BadInput(
            f"{path} records prefixes {shares}, order {order} and {draws} draws, which are not "
            "those of a training: restore the metadata of its cfg.json"
        )
    try:
        return Prefixes(tuple(map(float, shares)), order, draws)
    except BadInput as error:
        raise BadInput(f"cannot read the prefixes of {path}: {error.sentence}") from None


def mined_of(path: str | Path, metadata: dict[str, Any], d_sae: int) -> list[int]:
    """The latents that began as mined directions, by number, if its training recorded any.

    Raises:
        BadInput: what its metadata says of them means nothing.
    """
    spans = _object(metadata.get("rkstore")).get("mined", [])
    found: list[int] = []
    try:
        for first, stop in spans:
            least = found[-1] + 1 if found else 0
            if not type(first) is type(stop) is int or not least <= first < stop <= d_sae:
                raise ValueError
            found += range(first, stop)
    except (TypeError, ValueError):
        raise BadInput(
            f"{path} records mined latents {spans}, which are not those of a training: restore the "
            "metadata of its cfg.json"
        ) from None
    return found


def doubts(
    path: str | Path, metadata: dict[str, Any], store: Readable, *, any_model: bool = False
) -> list[str]:
    """Reasons to doubt that a dictionary can be measured on a store, one sentence each.

    The digest of the model's weights decides if both record it. A dictionary of another program
    records none: then only the names of the models are compared.

    Args:
        path: of its checkpoint.
        metadata: of its checkpoint.
        any_model: return another model as a doubt instead of refusing it.

    Raises:
        BadInput: it was trained on activations of another model.
    """
    run, source = _object(metadata.get("rkstore")), store.manifest.source
    if run.get("store_fingerprint") == store.manifest.fingerprint:
        return []
    theirs = {"name": metadata.get("model_name")} | _object(run.get("model"))
    ours = _object(source.get("model"))
    another, doubt = _of_model(theirs, ours)
    if another and not any_model:
        raise BadInput(
            f"{path} was {doubt} in {store.where}: give a store of its model, or --any-model to "
            "measure it anyway"
        )
    notes = [doubt, *_of_text(metadata, run, source), *_of_tokens(metadata, store)]
    return [note for note in notes if note]


def _of_model(theirs: dict[str, Any], ours: dict[str, Any]) -> tuple[bool, str]:
    """Whether two models are known to differ, and a sentence about them, if any."""
    digests = [_text(model.get("weights_sha256")) for model in (theirs, ours)]
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
        yield f"trained on {_named(theirs)}, measured on {_named(ours)}"
    elif run:
        yield "trained on another store"


def _of_tokens(metadata: dict[str, Any], store: Readable) -> Iterator[str]:
    ours = {
        "context_size": store.manifest.context_size,
        "prepend_bos": _object(store.manifest.source.get("tokens")).get("prepend_bos"),
    }
    for key, value in ours.items():
        if None not in (value, metadata.get(key)) and metadata[key] != value:
            yield f"trained with {key} {metadata[key]}, measured with {value}"


def _differ(one: Any, other: Any) -> bool:
    """Whether two names certainly mean different models."""
    if not one or not other:
        return False
    if _last(one) == _last(other):
        return False
    official = _official_names()
    return official is not None and official(one) != official(other)


def _official_names() -> Any:
    """A function from a model's alias in TransformerLens to its name; None without that library."""
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
    """A name on the Hub without its owner."""
    return str(name).rsplit("/", 1)[-1].lower()


def _named(text: dict[str, Any]) -> str:
    """A few words that name a text."""
    files = [str(_object(file).get("name")) for file in text.get("files") or ()]
    parts = [text.get("dataset"), text.get("config"), text.get("split")]
    name = " ".join(str(part) for part in parts if part) or ", ".join(files[:3])
    more = f" and {len(files) - 3} more files" if len(files) > 3 else ""
    return f"{name}{more}" if name else "a text that is not recorded"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return str(value) if value else ""
