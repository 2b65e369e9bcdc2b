"""How options are declared, checked and read from YAML: each has one name everywhere.

The command line makes its options from the same classes that a YAML file is checked against.
"""

from rkstore.settings.base import Settings, identity_of, options_in, replace
from rkstore.settings.checks import check_device, check_distinct
from rkstore.settings.members import combined, member_named, unread
from rkstore.settings.options import KINDS, Option, flag_of, option
from rkstore.settings.values import expanded, read_as
from rkstore.settings.written import from_yaml

__all__ = [
    "KINDS",
    "Option",
    "Settings",
    "check_device",
    "check_distinct",
    "combined",
    "expanded",
    "flag_of",
    "from_yaml",
    "identity_of",
    "member_named",
    "option",
    "options_in",
    "read_as",
    "replace",
    "unread",
]
