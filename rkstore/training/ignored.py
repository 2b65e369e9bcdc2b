"""Options that have no effect on a dictionary of the chosen kind."""

from collections.abc import Iterable

from rkstore.settings import flag_of, options_in, unread
from rkstore.training.helpers import HELPERS
from rkstore.training.inits import INITS
from rkstore.training.inits.mining import Mined
from rkstore.training.settings import TrainSettings, directions_given


def unused(settings: TrainSettings, given: Iterable[str]) -> dict[str, str]:
    """For each of the options given that has no effect on what is trained, a sentence."""
    chosen = {
        "dictionary": f"a {settings.dictionary} code",
        "init": f"--init {settings.init}",
        "wiring": f"--wiring {settings.wiring}",
        "norm": f"--norm {settings.norm}",
    }
    if settings.from_ is not None:
        chosen["init"] = "--from"
    without = {name: chosen[family] for name, family in unread(settings).items()}
    if settings.from_ is not None:
        own = [name for name, of in settings.brought.items() if {f for f, _ in of} == {"init"}]
        begin = ("init", "center", "init_bias", "init_scale", *own)
        without |= dict.fromkeys(begin, chosen["init"])
    elif settings.init_bias == "quantile":
        without.pop("k", None)
    for helper in HELPERS.values():
        main, *others = options_in(helper)
        if not settings.options(helper).asked_for:
            without |= dict.fromkeys(others, f"{flag_of(main)} {getattr(settings, main):g}")
    init = INITS[settings.init]
    if issubclass(init, Mined) and directions_given(settings) is not None:
        without |= dict.fromkeys(init.mining, "directions that are given")
    return {
        name: f"{flag_of(name)} has no effect with {without[name]}"
        for name in given
        if name in without
    }
