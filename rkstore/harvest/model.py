"""A loaded language model: its sites and their widths, tokens → activations."""

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from rkstore.errors import BadInput, RkstoreError, few
from rkstore.harvest.capture import Capture, TransformerLens
from rkstore.harvest.capture.examine import Measured, measure
from rkstore.harvest.tokens import TokenBlocks
from rkstore.store.attached import TOKENIZER
from rkstore.store.sites import Among, Site, block_of, head_of, is_named, of_head
from rkstore.store.writing.encoder import Floats

# Similarity of two names, from 0 to 1, above which one may be a misspelling of the other.
LIKE = 0.5

# Hooks named in an error; a model has hundreds.
SHOWN = 4


class _AllFound(Exception):
    """Every site is computed: the rest of the forward pass is not needed."""


@dataclass
class Model:
    """A loaded model and the sites it has."""

    name: str
    capture: Capture
    tokenizer: Any
    widths: dict[str, int]
    """Width of every hook that gives one row a token, in the order of computation."""
    repeated: frozenset[str]
    """Hooks that fire several times in one pass, because blocks are looped or shared."""
    revision: str | None

    @cached_property
    def measured(self) -> Measured:
        """Which hooks give the same numbers, and which have heads; measured when first asked."""
        return measure(self.capture, self.widths)

    @property
    def bridge(self) -> Any:
        """TransformerLens' bridge around the model, with its modules by TransformerLens' names.

        Raises:
            BadInput: the hooks are another program's.
        """
        if not isinstance(self.capture, TransformerLens):
            raise BadInput(
                f"the modules of {self.name} have no names with --capture {self.capture.name}, "
                f"which its store was harvested with: that needs --capture {TransformerLens.name}"
            )
        return self.capture.bridge

    @property
    def layers(self) -> int:
        """One more than the largest block number."""
        return 1 + max(
            (n for name in self.widths if (n := block_of(name)[0]) is not None), default=-1
        )

    @property
    def device(self) -> str:
        """The device type: cpu, cuda, mps."""
        return self.capture.device.type

    @property
    def longest_context(self) -> int:
        return self.capture.context

    @property
    def parameter_bytes(self) -> int:
        """Memory that the weights take."""
        return sum(p.nbytes for p in self.capture.plain.parameters())

    @property
    def bos(self) -> int | None:
        """The token that starts a text: BOS, or EOS if the tokenizer has only that."""
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        chosen: int | None = bos if bos is not None else eos
        return chosen

    @property
    def special_tokens(self) -> list[int]:
        """Ids of the special tokens, ascending."""
        known = {*self.tokenizer.all_special_ids, self.bos}
        return sorted(int(id) for id in known if id is not None)

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens: a spelled-out one is ordinary text.

        Otherwise a text that mentions ``<|endoftext|>`` would end there, and the rest would be
        another document, missing from the columns.
        """
        encoded = self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def sites(self, hook: str | Sequence[str], layers: str) -> list[Site]:
        """Sites that one or several hooks name in some layers, in the order of computation.

        Args, and errors: see :meth:`Among.chosen`.
        """
        return [Site(name, self.widths[name]) for name in self._among(layers).chosen(layers, hook)]

    def apart(self, sites: Sequence[Site]) -> list[Site]:
        """The sites with each hook that has heads as one site a head; the others as they are.

        Raises:
            BadInput: none of them has heads.
        """
        heads = self.measured.heads
        if not any(site.hook_name in heads for site in sites):
            with_heads = list(dict.fromkeys(block_of(name)[1] for name in heads))
            raise BadInput(
                f"--heads apart needs a hook with heads: {self.name} has "
                f"{few(with_heads, SHOWN) or 'none'}"
            )
        return [
            one
            for site in sites
            for one in (
                [
                    Site(of_head(site.hook_name, head), site.width // heads[site.hook_name])
                    for head in range(heads[site.hook_name])
                ]
                if site.hook_name in heads
                else [site]
            )
        ]

    def once(self, sites: Sequence[Site]) -> tuple[list[Site], dict[str, str]]:
        """The sites without those that are the same numbers as an earlier one, and every alias.

        Returns:
            Of the sites that are the same, the first in the order of computation; and each other
            name of these, with the site that is stored.
        """
        same, counts = self.measured.same, self.measured.heads
        stored: dict[tuple[str, int | None], str] = {}
        kept: list[Site] = []
        for site in sites:
            hook, head = self.hook_of(site.hook_name)
            if stored.setdefault((same[hook], head), site.hook_name) == site.hook_name:
                kept.append(site)
        aliases: dict[str, str] = {}
        for (first, head), site_name in stored.items():
            for hook in (name for name, other in same.items() if other == first):
                # A hook of the same numbers may give them without an axis of heads.
                if head is None or counts.get(hook) == counts[self.hook_of(site_name)[0]]:
                    aliases[hook if head is None else of_head(hook, head)] = site_name
        return kept, {alias: name for alias, name in aliases.items() if alias != name}

    def hook_of(self, site: str) -> tuple[str, int | None]:
        """The hook of a site, and the number of the head if it is one head's."""
        return (site, None) if site in self.widths else head_of(site)

    def blocks(self, layers: str) -> dict[str, int]:
        """The blocks of these layers, such as ``blocks.8``, each with its number, in order.

        Raises:
            BadInput: see :meth:`Among.layers`.
        """
        chosen = self._among(layers).layers(layers)
        found = ((name, *block_of(name)) for name in self.widths)
        return {
            name.removesuffix(f".{part}"): number
            for name, number, part in found
            if number is not None and (chosen is None or number in chosen)
        }

    def hooks(self, layers: str) -> list[str]:
        """Every name that :meth:`sites` takes for these layers: parts and full names, no globs."""
        chosen = self._among(layers).layers(layers)
        blocks: dict[str, set[int | None]] = {}
        for name in self.widths:
            number, part = block_of(name)
            blocks.setdefault(part, set()).add(number)
        parts = [part for part, numbers in blocks.items() if numbers >= set(chosen or ())]
        return list(dict.fromkeys([*parts, *(self.widths if chosen is None else ())]))

    def activations(self, tokens: np.ndarray, sites: list[Site]) -> dict[str, np.ndarray]:
        """Run the model over blocks of tokens ``(batch, position)``.

        Returns:
            For each site float32 ``(batch * position, d_in)``, block after block.
        """
        found = self.computed(tokens, sites)
        return {name: x.float().cpu().numpy() for name, x in found.items()}

    def to_encode(self, tokens: np.ndarray, sites: list[Site]) -> Mapping[str, Floats]:
        """The same where they are to be encoded: on an accelerator that can, or in memory."""
        if self.device == "cuda":
            return self.computed(tokens, sites)
        return self.activations(tokens, sites)

    def computed(self, tokens: np.ndarray, sites: list[Site]) -> dict[str, torch.Tensor]:
        """The same as tensors where the model is, as it computed them.

        On an accelerator this returns before they are.

        Raises:
            BadInput: the memory of an accelerator is too small.
        """
        ids = torch.from_numpy(tokens.astype(np.int64)).to(self.capture.device)
        hook = {site.hook_name: self.hook_of(site.hook_name) for site in sites}
        names = list(dict.fromkeys(name for name, _ in hook.values()))
        found: dict[str, torch.Tensor] = {}
        # Nothing after the last site is computed, in particular not the unembedding, a third of
        # the time with GPT-2's shape. A hook that fires again keeps its last value.
        early = self.repeated.isdisjoint(names)

        def keep(x: torch.Tensor, name: str) -> None:
            found[name] = x
            if early and len(found) == len(names):
                raise _AllFound

        try:
            self.capture.run(ids, names, keep)
        except _AllFound:
            pass
        except torch.OutOfMemoryError:
            raise BadInput(
                f"a batch of {len(ids)} blocks does not fit the memory of --device {ids.device}: "
                "give a smaller --batch-size, or --dtype bfloat16"
            ) from None
        return {site.hook_name: _rows(found, site, hook[site.hook_name], ids) for site in sites}

    def unload(self) -> None:
        """Give back the memory of the weights: the model cannot be run again."""
        on = self.device
        self.capture.plain.to("meta")
        if on == "cuda":
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Wait until everything asked of an accelerator is computed."""
        if self.device == "cuda":
            torch.cuda.synchronize(self.capture.device)

    def describe(self) -> dict[str, Any]:
        """What a manifest records of model and tokenizer."""
        return {
            "model": {
                "name": self.name,
                "revision": self.revision,
                "architecture": type(self.capture.plain).__name__,
                "layers": self.layers,
                "dtype": self.capture.dtype,
                **self._captured(),
                "weights_sha256": self._weights_sha256(),
            },
            "tokenizer": {
                "sha256": tokenizer_sha256(self.tokenizer),
                "tokens": len(self.tokenizer),
                "bos_token_id": self.bos,
                "special_token_ids": self.special_tokens,
            },
        }

    def files(self) -> dict[str, bytes]:
        """What a store keeps of the tokenizer, by path, so that its tokens have words.

        Nothing for a slow tokenizer, which only transformers can read.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        return {} if backend is None else {TOKENIZER: plain_tokenizer(backend)}

    def check_tokens(self, blocks: TokenBlocks) -> None:
        """Raise BadInput if a token is not in the vocabulary of the model."""
        largest, vocabulary = int(blocks.ids.max()), self.capture.vocabulary
        if largest >= vocabulary:
            raise BadInput(
                f"the tokenizer gives token {largest}, the model {self.name} has {vocabulary}: "
                "give its own with --tokenizer DIR"
            )

    def _captured(self) -> dict[str, str]:
        """Whose hooks the rows are from: they differ in the last bits. Not said of the usual."""
        usual = self.capture.name == TransformerLens.name
        return {} if usual else {"capture": self.capture.name}

    def _weights_sha256(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self.capture.plain.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()

    def _among(self, layers: str) -> Among:
        return Among(list(self.widths), self.name, lambda asked: self._has(asked, layers))

    def _has(self, hook: str, layers: str) -> str:
        """The alternatives to a hook; to a layer, if that is ""."""
        if not hook:
            return f"has {few(list(self.widths), SHOWN)}"
        elsewhere = [name for name in self.widths if is_named(name, hook)]
        if elsewhere:
            return f"has it at {few(elsewhere, SHOWN)}"
        near = nearest(hook, self.hooks(layers))
        guesses = [name for name in near[:1] if _likeness(hook)(name) >= LIKE]
        meant = f"did you mean {guesses[0]}? There are also" if guesses else "it has"
        # Full names are shown only if a full name was started.
        others = [name for name in near if name not in guesses and block_of(name)[0] is None]
        return f"has no such hook with one row a token: {meant} {few(others, SHOWN)}"


def tokenizer_sha256(tokenizer: Any) -> str:
    """Digest of everything by which a tokenizer turns text into tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()


def plain_tokenizer(backend: Any) -> bytes:
    """A tokenizer of the library tokenizers as JSON, without the state of its last call."""
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return str(copy.to_str()).encode()


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """The names, those spelled most like ``name`` first."""
    return sorted(names, key=_likeness(name), reverse=True)


def _likeness(name: str) -> Callable[[str], float]:
    matcher = difflib.SequenceMatcher()
    matcher.set_seq2(name)  # the matcher caches its second text

    def ratio(other: str) -> float:
        matcher.set_seq1(other)
        return matcher.ratio()

    return ratio


def _rows(
    found: dict[str, torch.Tensor], site: Site, hook: tuple[str, int | None], ids: torch.Tensor
) -> torch.Tensor:
    """The output of a hook, or of one of its heads, one row a token."""
    name, head = hook
    x = found.get(name)
    if x is None or x.shape[:2] != ids.shape:
        gave = "nothing" if x is None else f"shape {tuple(x.shape)}"
        raise RkstoreError(
            f"{name} gives {gave} for tokens of shape {tuple(ids.shape)}, which is not "
            "one row a token: choose another --hook"
        )
    if head is not None:
        x = x[:, :, head]
    return x.reshape(-1, site.width)
