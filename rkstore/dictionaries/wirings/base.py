"""Banks, of which every dictionary consists.

A bank is a set of latents that read the same sites and write the same sites. An SAE is one bank
that writes what it reads, a transcoder one that does not, a crosscoder one over several sites; a
cross-layer transcoder has one bank per layer, which writes this and all later layers. Weights that
must not exist are in no bank, so nothing has to be masked.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rkstore.dictionaries.norms import NORMS
from rkstore.errors import BadInput, few
from rkstore.settings import Settings, option
from rkstore.store.sites import Site


@dataclass(frozen=True)
class Bank:
    """Latents that read the same sites and write the same sites.

    Its encoder is ``(d_in, latents)``, its decoder ``(latents, d_out)``, with the sites
    concatenated.
    """

    latents: int
    reads: tuple[Site, ...]
    writes: tuple[Site, ...]

    @property
    def d_in(self) -> int:
        """Width of all sites that it reads."""
        return sum(site.width for site in self.reads)

    @property
    def d_out(self) -> int:
        """Width of all sites that it writes."""
        return sum(site.width for site in self.writes)


@dataclass(frozen=True)
class Wiring:
    """The banks of a dictionary, in the order of its latents.

    Args:
        centred: whether encoders read ``x - b_dec``, so every site that is read must be written.
        together: whether one select ranks the latents of all banks, or each bank has its own.
        skip: whether each bank has also a linear map from what it reads to what it writes.
        norm: the decoder norms that pre-activations are ranked by, one of ``NORMS``.

    Raises:
        BadInput: there is no bank, a size is not positive, a site has two widths, or the norm
            does not fit the banks.
    """

    banks: tuple[Bank, ...]
    centred: bool = False
    together: bool = True
    skip: bool = False
    norm: str = "none"

    def __post_init__(self) -> None:
        for bank in self.banks:
            if min(bank.latents, bank.d_in, bank.d_out) < 1:
                raise BadInput(
                    f"a dictionary needs positive sizes, not d_in {bank.d_in}, d_sae {bank.latents}"
                )
        sites = {*self.reads, *self.writes}
        if not self.banks or len({site.hook_name for site in sites}) < len(sites):
            raise BadInput("a dictionary needs banks whose sites have one width each")
        if self.centred and not set(self.reads) <= set(self.writes):
            raise BadInput("only written sites have a decoder bias to centre by")
        if self.norm not in NORMS:
            raise BadInput(f"unknown norm '{self.norm}': choose one of {', '.join(NORMS)}")
        if self.norm == "decoupled" and len(self.banks) > 1:
            raise BadInput(
                "the norm decoupled needs latents that all write the same sites: choose another"
            )

    @property
    def views(self) -> int:
        """Codes of a token: one per written site if its norm is decoupled, else one."""
        return len(self.writes) if self.norm == "decoupled" else 1

    @property
    def parameters(self) -> int:
        """Numbers in all weights and biases."""
        banks = sum(bank.latents * (bank.d_in + bank.d_out + 1) for bank in self.banks)
        if self.skip:
            banks += sum(bank.d_in * bank.d_out for bank in self.banks)
        return banks + sum(site.width for site in self.writes)

    @property
    def latents(self) -> int:
        """Latents of all banks."""
        return sum(bank.latents for bank in self.banks)

    @property
    def reads(self) -> tuple[Site, ...]:
        """Every site that is read, once."""
        return tuple(dict.fromkeys(site for bank in self.banks for site in bank.reads))

    @property
    def writes(self) -> tuple[Site, ...]:
        """Every site that is written, once."""
        return tuple(dict.fromkeys(site for bank in self.banks for site in bank.writes))

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site that is read or written, once."""
        return tuple(dict.fromkeys((*self.reads, *self.writes)))

    def renamed(self, names: Mapping[str, str]) -> "Wiring":
        """The same with other names of some sites."""

        def of(sites: tuple[Site, ...]) -> tuple[Site, ...]:
            return tuple(Site(names.get(s.hook_name, s.hook_name), s.width) for s in sites)

        banks = [Bank(bank.latents, of(bank.reads), of(bank.writes)) for bank in self.banks]
        return replace(self, banks=tuple(banks))

    def as_dict(self) -> dict[str, Any]:
        """The wiring as JSON."""
        plain: dict[str, Any] = {
            "sites": {site.hook_name: site.width for site in self.sites},
            "banks": [
                {
                    "latents": bank.latents,
                    "reads": [site.hook_name for site in bank.reads],
                    "writes": [site.hook_name for site in bank.writes],
                }
                for bank in self.banks
            ],
            "centred": self.centred,
            "together": self.together,
        }
        # As files from before there were these.
        skip = {"skip": True} if self.skip else {}
        return plain | skip | ({} if self.norm == "none" else {"norm": self.norm})

    @classmethod
    def from_dict(cls, stated: Mapping[str, Any]) -> "Wiring":
        """The inverse of :meth:`as_dict`.

        Raises:
            BadInput, KeyError, TypeError: such a wiring is not possible.
        """
        sites = {name: Site(name, width) for name, width in stated["sites"].items()}
        banks = [
            Bank(
                bank["latents"],
                tuple(sites[name] for name in bank["reads"]),
                tuple(sites[name] for name in bank["writes"]),
            )
            for bank in stated["banks"]
        ]
        sizes = [*stated["sites"].values(), *(bank.latents for bank in banks)]
        if any(type(size) is not int for size in sizes):
            raise BadInput("a size of its wiring is not a whole number")
        more = {"skip": stated.get("skip", False) is True, "norm": stated.get("norm", "none")}
        return cls(tuple(banks), stated["centred"] is True, stated["together"] is True, **more)


class Wires(Settings, ABC):
    """A kind of dictionary: its banks over the sites of a run. Its fields are its options."""

    name: ClassVar[str]
    of_several: ClassVar[bool] = False
    """Whether one dictionary covers all requested sites, or each site gets its own."""
    paired: ClassVar[bool] = False
    """Whether it writes other sites than it reads: the second of each of the store's pairs."""

    @abstractmethod
    def over(self, reads: Sequence[Site], writes: Sequence[Site], latents: int) -> Wiring:
        """The wiring over these sites.

        Args:
            writes: for each site that is read, in the order of the layers, the one to be
                reconstructed: itself, or the second of its pair.
            latents: as many as ``--expansion`` or ``--d-sae`` says: in all, or, where each layer
                has a bank of its own, of each layer.

        Raises:
            BadInput: such a dictionary needs other sites, or more latents.
        """


class Paired(Wires):
    """A kind that learns what a part of the model computes: from what it reads, what it writes."""

    paired = True
    pair: str | None = option(
        None,
        "Which of the store's pairs of sites a transcoder reads and writes, such as mlp, if it "
        "has several kinds.",
        newer=True,
    )
    hook_out: tuple[str, ...] | None = option(
        None,
        "Hook that a transcoder writes, instead of a recorded pair; --hook is then the one it "
        "reads. May be repeated with it, in the same order.",
        newer=True,
    )


def check_sites(
    name: str, needs: str, sites: Sequence[Site], *, least: int, most: int | None = None
) -> None:
    """Raise BadInput unless a wiring can be made over so many sites."""
    if len(sites) < least or (most is not None and len(sites) > most):
        found = few([site.hook_name for site in sites])
        raise BadInput(
            f"--wiring {name} needs {needs}, not {len(sites)} ({found}): choose them with "
            "--layers and --hook"
        )
