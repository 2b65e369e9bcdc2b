"""Loading a language model: from the Hub, a local directory, or the bundled one."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from rkstore.errors import BadInput, RkstoreError, one_line
from rkstore.harvest.hooks import hook
from rkstore.harvest.model import Model
from rkstore.settings import check_device, expanded
from rkstore.store.places import hub

# The name of the bundled small GPT-2 (see pipelines/demo_model.py).
EMBEDDED, EMBEDDED_PATH = "demo", Path(__file__).parents[1] / "assets" / "demo"

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "*.safetensors.index.json")

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")


def load_model(
    name: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    tokenizer: str | None = None,
) -> Model:
    """Load a model from the Hub, from a local directory, or the bundled one, ``demo``.

    Raises:
        BadInput: the directory has no model, no weights or no tokenizer; the device is unknown.
        RkstoreError: the Hub cannot be reached, or has no such model.
    """
    check_device(device)
    if name == EMBEDDED:
        name = str(EMBEDDED_PATH)
    name, tokenizer = expanded(name), tokenizer and expanded(tokenizer)
    local = Path(name).is_dir()
    if local:
        _check_directory(Path(name))
    elif Path(name).is_absolute() or name.startswith("."):
        raise BadInput(f"there is no directory {name}: give --model a directory or a Hub name")
    _quiet()
    words = load_tokenizer(tokenizer or name, None if tokenizer else revision)
    plain, headless = _load_plain(name, device, getattr(torch, dtype), revision)
    try:
        bridge, widths, repeated = hook(name, plain, words, headless)
    except Exception as error:  # TransformerLens raises errors of any type
        raise BadInput(
            f"TransformerLens cannot hook the model {name} ({type(plain).__name__}), and without "
            f"hooks there is nothing to harvest: {one_line(error)}"
        ) from None
    known = Path(name).resolve().name if local else name
    commit = None if local else hub.commit_of(name, revision)
    return Model(known, bridge, words, widths, repeated, commit)


def load_plain(name: str) -> tuple[Any, Any]:
    """The transformers model of a name, without hooks, in float32, and its tokenizer.

    Raises:
        BadInput, RkstoreError: as :func:`load_model`.
    """
    name = str(EMBEDDED_PATH) if name == EMBEDDED else expanded(name)
    if Path(name).is_dir():
        _check_directory(Path(name))
    _quiet()
    words = load_tokenizer(name, None)
    return _load_plain(name, "cpu", torch.float32, None)[0], words


def _quiet() -> None:
    """Let a Hub that cannot be reached fail at once, and transformers say only errors."""
    hub.fail_fast()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _load_plain(
    name: str, device: str, dtype: torch.dtype, revision: str | None
) -> tuple[Any, list[torch.nn.Parameter]]:
    """The transformers model, and weights of its head that the checkpoint lacks."""
    import transformers

    try:
        plain, loading = transformers.AutoModelForCausalLM.from_pretrained(
            name, revision=revision, dtype=dtype, output_loading_info=True
        )
        plain.to(device)
    except Exception as error:  # many libraries, many types of error, one meaning
        raise _cannot_load("model", name, error) from None
    headless = _without_head(plain, loading["missing_keys"], name)
    _fuse_activations(plain)
    return plain.eval(), headless


def load_tokenizer(name: str, revision: str | None) -> Any:
    """Load a tokenizer from the Hub, from a local directory, or that of ``demo``.

    Raises:
        BadInput: the directory has none.
        RkstoreError: the Hub cannot be reached, or has none of this name.
    """
    import transformers

    name = str(EMBEDDED_PATH) if name == EMBEDDED else name
    local = Path(name).is_dir()
    if local and not any((Path(name) / file).is_file() for file in TOKENIZER_FILES):
        raise BadInput(f"{name} has no tokenizer (no tokenizer.json): save one, or use --tokenizer")
    try:
        words = transformers.AutoTokenizer.from_pretrained(name, revision=revision)
        if not words("tokens", add_special_tokens=False)["input_ids"]:
            raise ValueError("it finds no token in a text")
    except Exception as error:
        raise _cannot_load("tokenizer", name, error) from None
    return words


def _without_head(plain: Any, missing: Collection[str], name: str) -> list[torch.nn.Parameter]:
    """The weights of the unembedding that a checkpoint lacks: no other activation depends on them.

    Raises:
        BadInput: it lacks others too. They would be random, and so would the stored activations.
    """
    if not missing:
        return []
    embedding, head = plain.get_input_embeddings(), plain.get_output_embeddings()
    tied = {id(weight) for weight in embedding.parameters()}
    own = {id(weight) for weight in head.parameters()} - tied if head else set()
    weights = dict(plain.named_parameters(remove_duplicate=False))
    lost = sorted(key for key in missing if id(weights.get(key)) not in own)
    if lost:
        raise BadInput(f"the model {name} lacks weights: {', '.join(lost[:3])}")
    return [weights[key] for key in missing]


def _fuse_activations(model: torch.nn.Module) -> None:
    """Compute GPT-2's GELU in one pass over memory.

    ``NewGELUActivation`` writes out the formula of torch's ``gelu(approximate="tanh")``
    (Hendrycks & Gimpel, 2016) step by step, which takes five times as long and a quarter of
    the whole forward pass. The two differ by rounding alone.
    """
    from transformers.activations import GELUTanh, NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELUTanh())


def _check_directory(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise BadInput(
            f"{path} contains no model (no config.json): give --model a model's directory"
        )
    if not any(file for pattern in WEIGHT_FILES for file in path.glob(pattern)):
        raise BadInput(
            f"{path} has no weights (no *.safetensors or pytorch_model.bin): "
            "save the model there with save_pretrained"
        )


def _cannot_load(what: str, name: str, error: Exception) -> RkstoreError:
    reason = one_line(error)
    if Path(name).is_dir():
        return BadInput(f"cannot load the {what} in {name}: {reason}")
    return RkstoreError(
        f"cannot load the {what} '{name}' from the Hub ({reason}): without a network use "
        "--model DIR with --text FILE, or try 'rkstore demo'"
    )
