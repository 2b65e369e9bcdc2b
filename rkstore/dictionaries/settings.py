"""Options of reading a dictionary in any layout, and of converting it."""

from rkstore.dictionaries.layouts import LAYOUTS
from rkstore.settings import Settings, option

HOOK_NAME_HELP = (
    "Hook of the rows that it reads, if its files do not say it; for a dictionary of several "
    "layers the part after the block."
)
HOOK_NAME_OUT_HELP = "Hook of the rows that a transcoder writes, if its files do not say it."


class DictionarySettings(Settings):
    """What the files of dictionaries do not say."""

    layout: str | None = option(
        None, "Which of the layouts to read in a directory that has several.", choices=LAYOUTS
    )
    hook_name: str | None = option(None, HOOK_NAME_HELP)
    hook_name_out: str | None = option(None, HOOK_NAME_OUT_HELP)


class ConvertSettings(Settings):
    """How a dictionary is read, and what is written."""

    to: str | None = option(None, "What to write.", choices=LAYOUTS)
    from_: str | None = option(
        None,
        "What the files are, if they are not what they look like.",
        choices=LAYOUTS,
        also="layout",
    )
    hook_name: str | None = option(None, HOOK_NAME_HELP)
    hook_name_out: str | None = option(None, HOOK_NAME_OUT_HELP)
    out: str | None = option(None, "Directory to write; converted/NAME-TO by default.", path=True)
