"""Options that have no effect on a dictionary of the chosen kind."""

from collections.abc import Iterable

from rkstore.dictionaries.selects import SELECTS, Select
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
        "engine": f"--engine {settings.engine}",
    }
    without = {name: chosen[family] for name, family in unread(settings).items()}
    without |= _of_start(settings)
    select = SELECTS[settings.dictionary]
    helped = any(settings.options(helper).asked_for for helper in HELPERS.values())
    if select.losses is Select.losses and not helped:
        without["sparsity_warmup"] = chosen["dictionary"]
    if settings.init_bias == "quantile" and settings.from_ is None:
        without.pop("k", None)
    for helper in HELPERS.values():
        main, *others = options_in(helper)
        if not settings.options(helper).asked_for:
            without |= dict.fromkeys(others, f"{flag_of(main)} {getattr(settings, main):g}")
    return {
        name: f"{flag_of(name)} has no effect with {without[name]}"
        for name in given
        if name in without
    }


def _of_start(settings: TrainSettings) -> dict[str, str]:
    """The options of a start that another one overrides, and which that is."""
    init = INITS[settings.init]
    if settings.from_ is not None:
        of_inits = [
            name for name, by in settings.brought.items() if {of for of, _ in by} == {"init"}
        ]
        return dict.fromkeys(("init", "center", "init_bias", "init_scale", *of_inits), "--from")
    if issubclass(init, Mined) and directions_given(settings) is not None:
        return dict.fromkeys(init.mining, "directions that are given")
    return {}
