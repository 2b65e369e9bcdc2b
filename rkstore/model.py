"""The language model: load it, list its sites and their widths, tokens → activations.

TransformerLens names the hooks (``blocks.8.mlp.hook_post``) and nothing else of it
is used: no weight is folded or centred, so a stored value is what the plain
``transformers`` model computes.
"""

import contextlib
import copy
import difflib
import fnmatch
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rkstore import hub
from rkstore.device import check_device
from rkstore.errors import BadInput, RkstoreError
from rkstore.manifest import Site
from rkstore.settings import parse_layers
from rkstore.tokens import TokenBlocks

# The small GPT-2 that rkstore carries goes by this name (see pipelines/demo_model.py).
EMBEDDED, EMBEDDED_PATH = "demo", Path(__file__).parent / "assets" / "demo"

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "*.safetensors.index.json")

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")

# Two prime numbers that no head count or width is likely to equal: a hook gives one
# row a token exactly if its output begins with (batch, position).
PROBE_SHAPE = (2, 7)


class _AllFound(Exception):
    """Every site has been seen: the rest of the forward pass is of no use."""


@dataclass
class Model:
    """A loaded model and the sites it has."""

    name: str
    bridge: Any
    tokenizer: Any
    widths: dict[str, int]
    """Width of the activations of every hook that gives one row a token."""
    revision: str | None

    @property
    def layers(self) -> int:
        return int(self.bridge.cfg.n_layers)

    @property
    def device(self) -> str:
        """The kind of device that computes: cpu, cuda, mps."""
        return torch.device(self.bridge.cfg.device).type

    @property
    def longest_context(self) -> int:
        return int(self.bridge.cfg.n_ctx)

    @property
    def parameter_bytes(self) -> int:
        """Memory that the weights take."""
        return sum(p.nbytes for p in self.bridge.original_model.parameters())

    @property
    def bos(self) -> int | None:
        """The token that begins a text: BOS, or EOS where a tokenizer has only that."""
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        chosen: int | None = bos if bos is not None else eos
        return chosen

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens: one that is written out is text.

        Otherwise a text that speaks of ``<|endoftext|>`` would end there, and what is behind it
        would be another document that no column knows of.
        """
        encoded = self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def sites(self, hook: str, layers: str) -> list[Site]:
        """Sites that a hook names in some layers, in the order the model computes them.

        Args:
            hook: the part behind the block (``mlp.hook_post``), a full name, or a glob of
                either.
            layers: ``all`` or a list such as ``0-3,8``; for a full name, ``all``.

        Raises:
            BadInput: there is no such hook or layer; names what there is.
        """
        chosen = parse_layers(layers, self.layers)
        patterns = [f"blocks.{layer}.{hook}" for layer in chosen]
        if layers == "all":
            patterns.append(hook)
        names = [
            name
            for name in self.widths
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        ]
        if not names:
            raise BadInput(self._unknown(hook))
        return [Site(name, self.widths[name]) for name in names]

    def activations(self, tokens: np.ndarray, sites: list[Site]) -> dict[str, np.ndarray]:
        """Run the model over blocks of tokens ``(batch, position)``.

        Returns:
            For each site float32 ``(batch * position, d_in)``, block after block.
        """
        ids = torch.from_numpy(tokens.astype(np.int64)).to(self.bridge.cfg.device)
        found: dict[str, torch.Tensor] = {}

        def keep(x: torch.Tensor, name: str) -> None:
            found[name] = x
            # Nothing behind the last site is computed, the unembedding least of all: with
            # GPT-2's shape that alone is a third of the time.
            if len(found) == len(sites):
                raise _AllFound

        hooks = [(s.hook_name, _named(keep, s.hook_name)) for s in sites]
        with (
            torch.inference_mode(),
            contextlib.suppress(_AllFound),
            self.bridge.hooks(fwd_hooks=hooks),
        ):
            self.bridge(ids, return_type=None)
        return {
            site.hook_name: found[site.hook_name].reshape(-1, site.d_in).float().cpu().numpy()
            for site in sites
        }

    def describe(self) -> dict[str, Any]:
        """What a manifest says of model and tokenizer."""
        tokenizer = getattr(self.tokenizer, "backend_tokenizer", None)
        text = tokenizer.to_str() if tokenizer else repr(sorted(self.tokenizer.get_vocab().items()))
        return {
            "model": {
                "name": self.name,
                "revision": self.revision,
                "architecture": type(self.bridge.original_model).__name__,
                "layers": self.layers,
                "dtype": str(self.bridge.cfg.dtype).removeprefix("torch."),
                "weights_sha256": self._weights_sha256(),
            },
            "tokenizer": {
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
                "tokens": len(self.tokenizer),
                "bos_token_id": self.bos,
            },
        }

    def check_tokens(self, blocks: TokenBlocks) -> None:
        """Raise BadInput if a token is none of the model's."""
        largest, vocabulary = int(blocks.ids.max()), int(self.bridge.cfg.d_vocab)
        if largest >= vocabulary:
            raise BadInput(
                f"the tokenizer gives token {largest}, the model {self.name} has {vocabulary}: "
                "give its own with --tokenizer DIR"
            )

    def _weights_sha256(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self.bridge.original_model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()

    def _unknown(self, hook: str) -> str:
        block = [name.removeprefix("blocks.0.") for name in self.widths if "blocks.0." in name]
        near = difflib.get_close_matches(hook, block, 1, 0.5)
        guess = f" (did you mean {near[0]}?)" if near else ""
        outside = [name for name in self.widths if not name.startswith("blocks.")]
        return (
            f"{self.name} has no hook '{hook}' that gives one row a token{guess}: "
            f"each block has {', '.join(block)}; outside the blocks there are {', '.join(outside)}"
        )


def load_model(
    name: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    tokenizer: str | None = None,
) -> Model:
    """Load a model of the Hub, of a local directory, or the embedded one, ``demo``.

    Raises:
        BadInput: the directory has no model, no weights or no tokenizer; the device is unknown.
        RkstoreError: the Hub cannot be reached, or has no such model.
    """
    check_device(device)
    if name == EMBEDDED:
        name = str(EMBEDDED_PATH)
    local = Path(name).is_dir()
    if local:
        _check_directory(Path(name))
    elif Path(name).is_absolute() or name.startswith("."):
        raise BadInput(f"there is no directory {name}: give --model a directory or a Hub name")
    hub.fail_fast()
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    words = _load_tokenizer(tokenizer or name, None if tokenizer else revision)
    try:
        plain, loading = transformers.AutoModelForCausalLM.from_pretrained(
            name, revision=revision, dtype=getattr(torch, dtype), output_loading_info=True
        )
        # What is missing would be made up at random, and stored as if it were the model's.
        missing = sorted(str(key) for key in loading["missing_keys"])
        if missing:
            raise BadInput(f"the model {name} lacks weights: {', '.join(missing[:3])}")
        _fuse_activations(plain)
        bridge = TransformerBridge.boot_transformers(
            name,
            device=device,
            dtype=getattr(torch, dtype),
            # The bridge gives a tokenizer the special tokens it lacks: not to ours.
            tokenizer=copy.deepcopy(words),
            hf_model=plain,
        )
    except BadInput:
        raise
    except Exception as error:  # many libraries, many kinds of error, one meaning
        raise _cannot_load("model", name, error) from None
    bridge.eval()
    with torch.inference_mode():
        probe = torch.zeros(PROBE_SHAPE, dtype=torch.long, device=bridge.cfg.device)
        _, cache = bridge.run_with_cache(probe)
    widths = {
        hook: int(np.prod(value.shape[2:]))
        for hook, value in cache.items()
        if value.ndim > 2 and value.shape[:2] == PROBE_SHAPE
    }
    commit = None if local else hub.commit_of(name, revision)
    return Model(Path(name).resolve().name if local else name, bridge, words, widths, commit)


def _load_tokenizer(name: str, revision: str | None) -> Any:
    import transformers

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


def _named(keep: Callable[[torch.Tensor, str], None], name: str) -> Callable[..., None]:
    """A hook of the bridge; told by the bridge, a hook may have another of its names."""
    return lambda x, hook: keep(x, name)  # noqa: ARG005 - the bridge passes it by name


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
        raise BadInput(f"{path} holds no model (no config.json): give --model a model's directory")
    if not any(file for pattern in WEIGHT_FILES for file in path.glob(pattern)):
        raise BadInput(
            f"{path} has no weights (no *.safetensors or pytorch_model.bin): "
            "save the model there with save_pretrained"
        )


def _cannot_load(what: str, name: str, error: Exception) -> RkstoreError:
    reason = " ".join(str(error).split())[:300]
    if Path(name).is_dir():
        return BadInput(f"cannot load the {what} in {name}: {reason}")
    return RkstoreError(
        f"cannot load the {what} '{name}' from the Hub ({reason}): without a network use "
        "--model DIR with --text FILE, or try 'rkstore demo'"
    )
