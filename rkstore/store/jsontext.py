"""JSON that every reader accepts: a missing number is null, never NaN or Infinity."""

import json
import math
from typing import Any


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON of dicts, lists and plain values, in which ``nan`` and ``inf`` are ``null``.

    For reports, whose readers see what is missing. What is read back as a setting or a
    weight must exist: there ``json.dumps(..., allow_nan=False)`` refuses to write it.
    """
    return json.dumps(existing(value), indent=indent, allow_nan=False)


def existing(value: Any) -> Any:
    """The value with None for each number in it that is not finite."""
    if isinstance(value, dict):
        return {key: existing(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [existing(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def canonical(value: Any) -> str:
    """The one JSON text of a value, for a digest: keys sorted, no spaces."""
    compact = (",", ":")
    return json.dumps(
        value, sort_keys=True, separators=compact, ensure_ascii=False, allow_nan=False
    )
