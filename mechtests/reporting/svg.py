"""Small drawings as SVG text: elements, coordinates and scales, without colours.

Colours are the page's own: every element has a class, so that one drawing serves light,
dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from mechtests.reporting import wording


def at(value: float) -> str:
    """A coordinate to a tenth of a pixel, as short as it can be written."""
    text = f"{value:.1f}"
    text = text[:-2] if text.endswith(".0") else text
    return "0" if text == "-0" else text


def element(tag: str, *inside: str, **attributes: str | float) -> str:
    """An element; numbers become coordinates, ``class_`` is ``class``, ``a_b`` is ``a-b``."""
    said = "".join(
        f' {name.rstrip("_").replace("_", "-")}="'
        f'{escape(value) if isinstance(value, str) else at(value)}"'
        for name, value in attributes.items()
    )
    return f"<{tag}{said}>{''.join(inside)}</{tag}>" if inside else f"<{tag}{said}/>"


def drawing(width: float, height: float, *inside: str, label: str = "") -> str:
    """A drawing of its own; what it shows is its label, without one it is decoration."""
    said = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    box = f"0 0 {at(width)} {at(height)}"
    return element("svg", *inside, viewBox=box, width=width, height=height, **said)


def words(text: str, x: float, y: float, *, kind: str = "", anchor: str = "start") -> str:
    """A word in a drawing; ``anchor`` is start, middle or end."""
    more: dict[str, str | float] = {"class_": kind} if kind else {}
    if anchor != "start":
        more["text_anchor"] = anchor
    return element("text", escape(text, quote=False), x=x, y=y, **more)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return element("path", d=f"M{at(x1)} {at(y1)}L{at(x2)} {at(y2)}", class_=kind)


def rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A filled rectangle."""
    path = f"M{at(x)} {at(y)}h{at(width)}v{at(height)}h{at(-width)}z"
    return element("path", d=path, class_=kind)


def squares(corners: Iterable[tuple[float, float]], width: float, height: float, kind: str) -> str:
    """Many rectangles of one size and kind, as one element."""
    size = f"h{at(width)}v{at(height)}h{at(-width)}z"
    path = "".join(f"M{at(x)} {at(y)}{size}" for x, y in corners)
    return element("path", d=path, class_=kind) if path else ""


def circles(centres: Iterable[tuple[float, float]], radius: float, kind: str) -> str:
    """Many circles of one size and kind, as one element."""
    half = f"a{at(radius)} {at(radius)} 0 1 0 {at(2 * radius)} 0a{at(radius)} {at(radius)} 0 1 0 "
    path = "".join(f"M{at(x - radius)} {at(y)}{half}{at(-2 * radius)} 0" for x, y in centres)
    return element("path", d=path, class_=kind) if path else ""


def polyline(points: Sequence[tuple[float, float] | None], kind: str) -> str:
    """A line through points, broken where one is not known."""
    path, pen = "", "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        path += f"{pen}{at(point[0])} {at(point[1])}"
        pen = "L"
    return element("path", d=path, class_=kind) if path else ""


@dataclass(frozen=True)
class Scale:
    """From values to pixels, clipped to the ends.

    Attributes:
        low: The value at the start.
        high: The value at the end, above the low one.
        start: The pixel of the low value.
        end: The pixel of the high value.
    """

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(
        cls, values: Iterable[float | None], start: float, end: float, *, room: float = 0.06
    ) -> Scale:
        """A scale that shows all finite values, with some room beside them."""
        known = [value for value in values if value is not None and math.isfinite(value)]
        low, high = min(known, default=0.0), max(known, default=1.0)
        if not high - low > 1e-12 * max(abs(low), abs(high), 1e-300):
            wide = abs(high) / 2 or 0.5
            low, high = low - wide, high + wide
        more = room * (high - low)
        return cls(low - more, high + more, start, end)

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 4) -> list[float]:
        """Round values inside the scale, at most so many."""
        size = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        found: list[float] = []
        for step in (size * each for each in (1, 2, 2.5, 5, 10, 20)):
            first = math.ceil(self.low / step - 1e-9)
            last = math.floor(self.high / step + 1e-9)
            found = [round(each * step, 12) for each in range(first, last + 1)]
            if len(found) <= most:
                break
        return found


def known(values: Iterable[float | None]) -> list[float | None]:
    """Values, None where one is not known or not finite: a drawing has no place for it."""
    return [v if v is not None and math.isfinite(v) else None for v in values]


def numeral(value: float) -> str:
    """A number beside an axis, with a real minus."""
    return wording.number(value).replace("-", "−")
