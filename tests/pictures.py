"""What a figure shows, and whether it can be read."""

import itertools
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def drawn(figure: Any, kind: Any = Text) -> dict[Any, Any]:
    """What a figure draws of a kind, and where, in pixels. Ticks outside of an axis are not."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        plain = kind.draw
        patch.setattr(kind, "draw", lambda one, renderer: found.update({one: plain(one, renderer)}))
        FigureCanvasAgg(figure).draw()
    return {one: one.get_window_extent() for one in found if one.get_visible()}


def legible_texts(figure: Any) -> list[str]:
    """What is written in a figure, checked to be on the canvas, and no two on each other."""
    boxes = {one: box for one, box in drawn(figure).items() if one.get_text()}
    for text, box in boxes.items():
        assert all(map(figure.bbox.contains, (box.x0, box.x1), (box.y0, box.y1))), text
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        assert not a.overlaps(b), f"{one} lies on {other}"
    return [text.get_text() for text in boxes]
