"""The language model: load it, list its sites and their widths, tokens → activations.

TransformerLens names the hooks (``blocks.8.mlp.hook_post``) and nothing else of it
is used: no weight is folded or centred, so a stored value is what the plain
``transformers`` model computes. That is tried when a model is loaded.
"""

import contextlib
import copy
import difflib
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rkstore.errors import BadInput, RkstoreError, few
from rkstore.harvest.tokens import TokenBlocks
from rkstore.settings import check_device, expanded
from rkstore.store.places import hub
from rkstore.store.sites import Site, block_of, is_named, parse_layers

# The small GPT-2 that rkstore carries goes by this name (see pipelines/demo_model.py).
EMBEDDED, EMBEDDED_PATH = "demo", Path(__file__).parents[1] / "assets" / "demo"

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "*.safetensors.index.json")

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")

# The longest of the two texts that a model is tried on; shorter if it sees fewer tokens.
PROBE_TOKENS = 7

# Hooks move the order of some sums, and so the last bits of the logits. Anything larger is
# another computation. The half precisions have eight bits or eleven to a number.
SAME_LOGITS = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}

# How alike two names are, of 1, if one may be a slip for the other.
LIKE = 0.5

# Hooks that a sentence names; a model has hundreds.
SHOWN = 4


class _AllFound(Exception):
    """Every site has been seen: the rest of the forward pass is of no use."""


@dataclass
class Model:
    """A loaded model and the sites it has."""

    name: str
    bridge: Any
    tokenizer: Any
    widths: dict[str, int]
    """Width of the activations of every hook that gives one row a token, in the order that the
    model computes them."""
    repeated: frozenset[str]
    """Hooks that fire several times in one pass, because blocks are looped or shared."""
    revision: str | None

    @property
    def layers(self) -> int:
        """One more than the largest number of a block."""
        return 1 + max(
            (n for name in self.widths if (n := block_of(name)[0]) is not None), default=-1
        )

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

    @property
    def special_tokens(self) -> list[int]:
        """Ids of the tokens that stand for no text, ascending."""
        known = {*self.tokenizer.all_special_ids, self.bos}
        return sorted(int(id) for id in known if id is not None)

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

    def sites(self, hook: str | Sequence[str], layers: str) -> list[Site]:
        """Sites that one hook or several name in some layers, in the order they are computed.

        Args:
            hook: the part behind the block (``mlp.hook_post``), a full name, or a glob of
                either; several of them for all that any of them names.
            layers: numbers of blocks, ``all`` or a list such as ``0-3,8``, whatever the model calls
                its blocks; for a hook outside of them, ``all``.

        Raises:
            BadInput: one of the hooks is not in each of the layers; names what there is.
        """
        chosen = self._chosen(layers)
        wanted: set[str] = set()
        for pattern in [hook] if isinstance(hook, str) else hook:
            everywhere = [name for name in self.widths if is_named(name, pattern)]
            named = [name for name in everywhere if chosen is None or block_of(name)[0] in chosen]
            if not everywhere:
                raise BadInput(self._unknown(pattern, layers))
            if not named or (chosen and chosen - {block_of(name)[0] for name in named}):
                raise BadInput(
                    f"--layers is '{layers}', and not each of these has the hook '{pattern}': "
                    f"with --layers all, {self.name} has {few(everywhere, SHOWN)}"
                )
            wanted.update(named)
        return [Site(name, width) for name, width in self.widths.items() if name in wanted]

    def hooks(self, layers: str) -> list[str]:
        """Every name that :meth:`sites` takes for these layers: parts and full names, no globs."""
        chosen = self._chosen(layers)
        blocks: dict[str, set[int | None]] = {}
        for name in self.widths:
            number, part = block_of(name)
            blocks.setdefault(part, set()).add(number)
        parts = [part for part, numbers in blocks.items() if chosen is None or numbers >= chosen]
        return list(dict.fromkeys([*parts, *(self.widths if chosen is None else ())]))

    def activations(self, tokens: np.ndarray, sites: list[Site]) -> dict[str, np.ndarray]:
        """Run the model over blocks of tokens ``(batch, position)``.

        Returns:
            For each site float32 ``(batch * position, d_in)``, block after block.
        """
        ids = torch.from_numpy(tokens.astype(np.int64)).to(self.bridge.cfg.device)
        names = [site.hook_name for site in sites]
        found: dict[str, torch.Tensor] = {}
        # Nothing behind the last site is computed, the unembedding least of all: with GPT-2's
        # shape that alone is a third of the time. A hook that fires again has its last value.
        early = self.repeated.isdisjoint(names)

        def keep(x: torch.Tensor, name: str) -> None:
            found[name] = x
            if early and len(found) == len(names):
                raise _AllFound

        with contextlib.suppress(_AllFound):
            _run(self.bridge, ids, names, keep)
        return {site.hook_name: _rows(found, site, ids) for site in sites}

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
                "special_token_ids": self.special_tokens,
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

    def _chosen(self, layers: str) -> set[int] | None:
        return None if layers == "all" else set(parse_layers(layers, self.layers))

    def _unknown(self, hook: str, layers: str) -> str:
        near = nearest(hook, self.hooks(layers))
        guesses = [name for name in near[:1] if _likeness(hook)(name) >= LIKE]
        meant = f"did you mean {guesses[0]}? There are also" if guesses else "it has"
        # A full name is of use to who began to write one.
        others = [name for name in near if name not in guesses and block_of(name)[0] is None]
        return (
            f"{self.name} has no hook '{hook}' that gives one row a token: "
            f"{meant} {few(others, SHOWN)}"
        )


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """The names, those that are spelled most like one of them first."""
    return sorted(names, key=_likeness(name), reverse=True)


def _likeness(name: str) -> Callable[[str], float]:
    matcher = difflib.SequenceMatcher()
    matcher.set_seq2(name)  # the matcher remembers its second text

    def ratio(other: str) -> float:
        matcher.set_seq1(other)
        return matcher.ratio()

    return ratio


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
    name, tokenizer = expanded(name), tokenizer and expanded(tokenizer)
    local = Path(name).is_dir()
    if local:
        _check_directory(Path(name))
    elif Path(name).is_absolute() or name.startswith("."):
        raise BadInput(f"there is no directory {name}: give --model a directory or a Hub name")
    hub.fail_fast()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    words = _load_tokenizer(tokenizer or name, None if tokenizer else revision)
    plain, headless = _load_plain(name, device, getattr(torch, dtype), revision)
    try:
        bridge, widths, repeated = _hook(name, plain, words, headless)
    except Exception as error:  # what TransformerLens raises is no kind of its own
        raise BadInput(
            f"TransformerLens cannot hook the model {name} ({type(plain).__name__}), and without "
            f"hooks there is nothing to harvest: {_in_one_line(error)}"
        ) from None
    known = Path(name).resolve().name if local else name
    commit = None if local else hub.commit_of(name, revision)
    return Model(known, bridge, words, widths, repeated, commit)


def _load_plain(
    name: str, device: str, dtype: torch.dtype, revision: str | None
) -> tuple[Any, list[torch.nn.Parameter]]:
    """The model as transformers has it, and weights of its head that the checkpoint lacks."""
    import transformers

    try:
        plain, loading = transformers.AutoModelForCausalLM.from_pretrained(
            name, revision=revision, dtype=dtype, output_loading_info=True
        )
        plain.to(device)
    except Exception as error:  # many libraries, many kinds of error, one meaning
        raise _cannot_load("model", name, error) from None
    headless = _without_head(plain, loading["missing_keys"], name)
    _fuse_activations(plain)
    return plain.eval(), headless


def _hook(
    name: str, plain: Any, words: Any, headless: Sequence[torch.nn.Parameter]
) -> tuple[Any, dict[str, int], frozenset[str]]:
    """Give a model TransformerLens' hooks, and see that it computes the same with them."""
    from transformer_lens.model_bridge import TransformerBridge

    probes = _probes(plain)
    with torch.inference_mode():
        expected = plain(probes[0]).logits
    bridge = TransformerBridge.boot_transformers(
        name,
        device=str(plain.device),
        dtype=plain.dtype,
        # The bridge gives a tokenizer the special tokens it lacks: not to ours.
        tokenizer=copy.deepcopy(words),
        hf_model=plain,
    )
    bridge.eval()
    return bridge, *_examine(bridge, probes, expected, headless)


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


def _without_head(plain: Any, missing: Collection[str], name: str) -> list[torch.nn.Parameter]:
    """The weights of the unembedding that a checkpoint lacks: no other activation needs them.

    Raises:
        BadInput: it lacks others too. They would be made up at random, and all that is
            computed of them stored as if it were the model's.
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


def _probes(plain: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Two texts, of another number and another length: 2 of 7 tokens and 3 of 6."""
    most = getattr(plain.config.get_text_config(), "max_position_embeddings", None)
    length = min(PROBE_TOKENS, most or PROBE_TOKENS)
    vocabulary = len(plain.get_input_embeddings().weight)
    ids = torch.arange(3 * length, device=plain.device) % vocabulary
    return ids[: 2 * length].reshape(2, -1), ids[: 3 * (length - 1)].reshape(3, -1)


def _examine(
    bridge: Any,
    probes: tuple[torch.Tensor, torch.Tensor],
    expected: torch.Tensor,
    headless: Sequence[torch.nn.Parameter],
) -> tuple[dict[str, int], frozenset[str]]:
    """Run a model twice with all its hooks, and see what they give.

    Args:
        probes: two texts of another number and another length. A hook gives one row a token
            exactly if its shape is ``(batch, position, ...rest)`` for both, with the same
            rest: the number of heads may equal a length, but never both.
        expected: what the model computes of the first without a hook.
        headless: weights that the checkpoint lacks. What is computed of them is no activation
            of the model: with NaN for them, it shows.

    Returns:
        The width of each hook that gives one row a token, and the hooks that fire repeatedly.

    Raises:
        ValueError: with hooks, the model computes something else; or no hook gives rows.
    """
    with torch.inference_mode():
        logits, first = bridge.run_with_cache(probes[0])
    _check_same(logits.float(), expected.float(), bridge.cfg.dtype)
    for weight in headless:
        weight.data.fill_(torch.nan)
    fired: Counter[str] = Counter()
    second: dict[str, torch.Tensor] = {}

    def keep(x: torch.Tensor, name: str) -> None:
        fired[name] += 1
        second[name] = x

    _run(bridge, probes[1], list(first), keep)
    widths = {
        name: math.prod(x.shape[2:])
        for name, x in first.items()
        if name in second
        and x.ndim > 2
        and (x.shape[:2], second[name].shape[:2]) == (probes[0].shape, probes[1].shape)
        and x.shape[2:] == second[name].shape[2:]
        and not (headless and second[name].isnan().any())
    }
    if not widths:
        raise ValueError("none of its hooks gives one row a token")
    return widths, frozenset(name for name in widths if fired[name] > 1)


def _check_same(logits: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """Raise ValueError unless two passes gave the same logits, where these are numbers at all."""
    bound = SAME_LOGITS[str(dtype).removeprefix("torch.")]
    finite = expected.isfinite()
    if (
        logits.shape != expected.shape
        or not (logits - expected)[finite].norm() <= bound * expected[finite].norm()
    ):
        raise ValueError("with TransformerLens' hooks it computes something else than without")


def _run(
    bridge: Any, ids: torch.Tensor, names: Iterable[str], keep: Callable[[torch.Tensor, str], None]
) -> None:
    """One pass over ``ids`` of shape ``(batch, position)``; ``keep`` is told what hooks give."""

    # Told by the bridge, a hook may have another of its names.
    def named(name: str) -> Callable[..., None]:
        return lambda x, hook: keep(x[0] if isinstance(x, tuple) else x, name)  # noqa: ARG005

    hooks = [(name, named(name)) for name in names]
    with torch.inference_mode(), bridge.hooks(fwd_hooks=hooks):
        bridge(ids, return_type=None)


def _rows(found: dict[str, torch.Tensor], site: Site, ids: torch.Tensor) -> np.ndarray:
    """What a hook gave, one row a token."""
    x = found.get(site.hook_name)
    if x is None or x.shape[:2] != ids.shape:
        gave = "nothing" if x is None else f"shape {tuple(x.shape)}"
        raise RkstoreError(
            f"{site.hook_name} gives {gave} for tokens of shape {tuple(ids.shape)}, which is not "
            "one row a token: choose another --hook"
        )
    return x.reshape(-1, site.width).float().cpu().numpy()


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
    reason = _in_one_line(error)
    if Path(name).is_dir():
        return BadInput(f"cannot load the {what} in {name}: {reason}")
    return RkstoreError(
        f"cannot load the {what} '{name}' from the Hub ({reason}): without a network use "
        "--model DIR with --text FILE, or try 'rkstore demo'"
    )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
