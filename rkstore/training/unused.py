"""Options that change nothing about a dictionary of the kind that was chosen."""

from collections.abc import Iterable

from rkstore.settings import flag_of, unread
from rkstore.training.inits import INITS
from rkstore.training.inits.mining import Mined
from rkstore.training.settings import TrainSettings


def unused(settings: TrainSettings, given: Iterable[str]) -> dict[str, str]:
    """For each of the options given that has no part in what is trained, a sentence."""
    without = {
        name: f"a {settings.dictionary} code" if family == "dictionary" else f"--init {settings.init}"
        for name, family in unread(settings).items()
    }
    if settings.init_bias == "quantile":
        without.pop("k", None)
    init = INITS[settings.init]
    if getattr(settings, "directions") is not None and issubclass(init, Mined):
        without |= dict.fromkeys(init.mining, "directions that are given")
    return {
        name: f"{flag_of(name)} has no part in {without[name]}" for name in given if name in without
    }
