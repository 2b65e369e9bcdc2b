"""JSON that every reader accepts: a missing number is null, never NaN or Infinity."""

import json
import math
from typing import Any


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON of dicts, lists and plain values, in which ``nan`` and ``inf`` are ``null``.

    For reports only. Settings and weights must be finite: there use ``json.dumps(...,
    allow_nan=False)``.
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
    """The canonical JSON text of a value, for a digest: keys sorted, no spaces."""
    compact = (",", ":")
    return json.dumps(
        value, sort_keys=True, separators=compact, ensure_ascii=False, allow_nan=False
    )
