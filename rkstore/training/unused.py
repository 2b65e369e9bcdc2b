"""Options that change nothing about a dictionary of the kind that was chosen."""

from collections.abc import Iterable

from rkstore.dictionaries.selects import SELECTS
from rkstore.settings import flag_of
from rkstore.training.inits import INIT_OPTIONS
from rkstore.training.inits.mining import MINING_OPTIONS
from rkstore.training.settings import TrainSettings


def unused(settings: TrainSettings, given: Iterable[str]) -> dict[str, str]:
    """For each of the options given that has no part in what is trained, a sentence."""
    select_options = {name: select.options for name, select in SELECTS.items()}
    without = {
        **_of_others(select_options, settings.dictionary, f"a {settings.dictionary} code"),
        **_of_others(INIT_OPTIONS, settings.init, f"--init {settings.init}"),
    }
    if settings.init_bias == "quantile":
        without.pop("k", None)
    if settings.directions is not None:
        without |= dict.fromkeys(MINING_OPTIONS, "directions that are given")
    return {
        name: f"{flag_of(name)} has no part in {without[name]}" for name in given if name in without
    }


def _of_others(family: dict[str, tuple[str, ...]], chosen: str, what: str) -> dict[str, str]:
    """The options of a family that the member chosen has not, each with what it has no part in."""
    options = {option for member in family.values() for option in member}
    return dict.fromkeys(options - set(family[chosen]), what)
