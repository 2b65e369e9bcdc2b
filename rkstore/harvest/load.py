"""Loading a language model: from the Hub, a local directory, or the bundled one."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from rkstore.errors import BadInput, RkstoreError, few, one_line
from rkstore.harvest.capture import CAPTURES, TransformerLens
from rkstore.harvest.capture.examine import examine, probes
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
    capture: str = TransformerLens.name,
    device_map: str | None = None,
) -> Model:
    """Load a model from the Hub, from a local directory, or the bundled one, ``demo``.

    Args:
        capture: whose hooks give its activations, one of ``CAPTURES``.
        device_map: how Accelerate spreads a model over devices that is too large for one.

    Raises:
        BadInput: the directory has no model, no weights or no tokenizer; the device is unknown;
            the model cannot be hooked.
        RkstoreError: the Hub cannot be reached, or has no such model.
    """
    _check_devices(device, device_map)
    name, tokenizer = model_name(name), tokenizer and expanded(tokenizer)
    local = Path(name).is_dir()
    _check_there(name)
    if local:
        _check_directory(Path(name))
    _quiet()
    words = load_tokenizer(tokenizer or name, None if tokenizer else revision)
    plain, headless = _load_plain(name, device, getattr(torch, dtype), revision, device_map)
    try:
        with torch.inference_mode():
            expected = plain(probes(plain)[0]).logits
        hooked = CAPTURES[capture].of(name, plain, words)
        found = examine(hooked, expected, headless)
    except BadInput:
        raise
    except Exception as error:  # the libraries raise errors of any type
        others = few([f"--capture {other}" for other in CAPTURES if other != capture])
        raise BadInput(
            f"{capture} cannot hook the model {name} ({type(plain).__name__}), and without hooks "
            f"there is nothing to harvest; {others} may: {one_line(error)}"
        ) from None
    commit = None if local else hub.commit_of(name, revision)
    return Model(known_as(name), hooked, words, found.widths, found.repeated, commit)


def config_of(name: str, revision: str | None = None) -> Any:
    """The configuration of a model, as transformers has it.

    Raises:
        BadInput: the directory has none.
        RkstoreError: the Hub cannot be reached, or has no such model.
    """
    import transformers

    name = model_name(name)
    _check_there(name)
    if Path(name).is_dir():
        _check_configured(Path(name))
    _quiet()
    try:
        return transformers.AutoConfig.from_pretrained(name, revision=revision)
    except Exception as error:  # as in _load_plain
        raise _cannot_load("model", name, error) from None


def shaped(config: Any, dtype: str) -> Any:
    """The transformers model of a configuration, or of its fields, on the meta device.

    There, tensors have shapes and no numbers.

    Raises:
        BadInput: there is no such model.
    """
    import transformers

    try:
        if isinstance(config, Mapping):
            config = transformers.AutoConfig.for_model(**config)
        with torch.device("meta"):
            plain = transformers.AutoModelForCausalLM.from_config(
                config, dtype=getattr(torch, dtype)
            )
    except Exception as error:  # as in _load_plain
        raise BadInput(f"there is no model of that configuration: {one_line(error)}") from None
    return plain.eval()


def model_name(name: str) -> str:
    """A Hub name or a directory, of what is given as a model."""
    return expanded(str(EMBEDDED_PATH) if name == EMBEDDED else name)


def known_as(name: str) -> str:
    """What a store calls the model: its Hub name, or the name of its directory."""
    name = model_name(name)
    return Path(name).resolve().name if Path(name).is_dir() else name


def load_plain(name: str) -> tuple[Any, Any]:
    """The transformers model of a name, without hooks, in float32, and its tokenizer.

    Raises:
        BadInput, RkstoreError: as :func:`load_model`.
    """
    name = model_name(name)
    if Path(name).is_dir():
        _check_directory(Path(name))
    _quiet()
    words = load_tokenizer(name, None)
    return _load_plain(name, "cpu", torch.float32)[0], words


def _quiet() -> None:
    """Let a Hub that cannot be reached fail at once, and transformers say only errors."""
    hub.fail_fast()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _load_plain(
    name: str,
    device: str,
    dtype: torch.dtype,
    revision: str | None = None,
    device_map: str | None = None,
) -> tuple[Any, list[torch.nn.Parameter]]:
    """The transformers model, and weights of its head that the checkpoint lacks."""
    import transformers

    try:
        plain, loading = transformers.AutoModelForCausalLM.from_pretrained(
            name, revision=revision, dtype=dtype, device_map=device_map, output_loading_info=True
        )
        if device_map is None:
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


def _check_devices(device: str, device_map: str | None) -> None:
    check_device(device)
    if device_map is not None and device != "cpu":
        raise BadInput(f"--device-map {device_map} chooses the devices: leave out --device")


def _check_there(name: str) -> None:
    """Raise BadInput if the name is that of a directory which is not there."""
    if not Path(name).is_dir() and (Path(name).is_absolute() or name.startswith(".")):
        raise BadInput(f"there is no directory {name}: give --model a directory or a Hub name")


def check_revision(name: str, revision: str | None) -> None:
    """Raise BadInput if a revision is given of a directory, where it would be ignored."""
    if revision is not None and Path(model_name(name)).is_dir():
        raise BadInput(
            f"--revision is {revision}, and {name}, which is not from the Hub, has none: leave it "
            "out"
        )


def _check_configured(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise BadInput(
            f"{path} contains no model (no config.json): give --model a model's directory"
        )


def _check_directory(path: Path) -> None:
    _check_configured(path)
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
