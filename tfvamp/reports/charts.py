"""Charts as SVG inside a page, in the colours of its style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.ticker
import numpy as np

from tfvamp.reports.html import Html, joined, tag

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 8, 36  # margins, in the same unit
MOST_POINTS = 400  # maximum number of points of a line
MOST_BINS = 60
COLOURS = 8  # c0 to c7 of the style sheet


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
      name: name in the legend.
      x, y: its points.
      colour: 0 to 7.
      errors: errors of y; None if there are none.
      dashed: whether the line is dashed.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: int
    errors: Sequence[float] | None = None
    dashed: bool = False


def lines(
    title: str,
    series: Sequence[Line],
    label: str,
    low: float | None = None,
    mark: float | None = None,
    log_x: bool = False,
) -> Html:
    """Returns a figure of lines.

    Args:
      title: the quantity on the vertical axis, with its unit.
      series: the lines.
      label: label of the horizontal axis.
      low: lower limit of the vertical axis; what lies below is cut off.
      mark: a place on the horizontal axis that is marked by a dotted line.
      log_x: whether the horizontal axis is logarithmic; its ticks are then at the points.
    """
    horizontal = np.concatenate([_scaled(line.x, log_x) for line in series])
    vertical = np.concatenate([bound for line in series for bound in _bounds(line)])
    bottom = float(vertical.min()) if low is None else max(low, float(vertical.min()))
    box = _Box(_range(horizontal.min(), horizontal.max(), 0.0), _range(bottom, float(vertical.max()), 0.04))
    ticks = (
        sorted({float(x) for line in series for x in line.x})
        if log_x
        else box.ticks(0, whole=label == "epoch")
    )
    inside = [] if mark is None else [box.line((mark, box.y[0]), (mark, box.y[1]), "mark")]
    for line in series:
        kind = f"c{line.colour % COLOURS}"
        x, y = _scaled(line.x, log_x), np.asarray(line.y, np.float64)
        inside.append(box.path(x, y, f"line {kind} dashed" if line.dashed else f"line {kind}"))
        if log_x or len(x) == 1:
            inside += [box.dot(*point, kind) for point in zip(x, y, strict=True)]
        for at, middle, error in zip(x, y, () if line.errors is None else line.errors, strict=False):
            inside.append(box.line((at, middle - error), (at, middle + error), f"bar {kind}"))
    places = _scaled(ticks, log_x)
    names = [f"{tick:g}" for tick in ticks]
    return _figure(title, box, inside, list(zip(places, names, strict=True)), label, series)


def histogram(title: str, values: dict[str, np.ndarray], label: str) -> Html:
    """Returns a figure of the distributions of arrays [N], and their means as dotted lines."""
    arrays = {name: np.asarray(of, np.float64) for name, of in values.items()}
    low, high = min(map(np.min, arrays.values())), max(map(np.max, arrays.values()))
    bins = min(MOST_BINS, 4 + int(2 * max(map(len, arrays.values())) ** 0.5))
    edges = np.linspace(*_range(float(low), float(high), 0.0), bins + 1)
    counts = {name: np.histogram(of, edges)[0] for name, of in arrays.items()}
    most = max(int(of.max()) for of in counts.values())
    box = _Box((edges[0], edges[-1]), (0.0, 1.05 * max(most, 1)))
    inside = []
    for colour, (name, of) in enumerate(counts.items()):
        x = np.repeat(edges, 2)
        y = np.concatenate([[0.0], np.repeat(of, 2), [0.0]])
        inside.append(box.path(x, y, f"area c{colour}", whole=True))
        mean = float(arrays[name].mean())
        inside.append(box.line((mean, 0.0), (mean, box.y[1]), f"mean c{colour}"))
    ticks = [(tick, f"{tick:g}") for tick in box.ticks(0)]
    legend = [Line(f"{name}, mean {of.mean():.2f}", (), (), i) for i, (name, of) in enumerate(arrays.items())]
    return _figure(title, box, inside, ticks, label, legend)


class _Box(NamedTuple):
    """The ranges of the two axes, and drawing in them."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Returns places in the drawing, which is cut off at its edges; far outside them, any place will do."""
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        across = width * (np.asarray(x, np.float64) - self.x[0]) / (self.x[1] - self.x[0])
        down = height * (self.y[1] - np.asarray(y, np.float64)) / (self.y[1] - self.y[0])
        return np.clip(across, -WIDTH, 2 * WIDTH), np.clip(down, -HEIGHT, 2 * HEIGHT)

    def ticks(self, axis: int, whole: bool = False) -> list[float]:
        low, high = self[axis]
        places = matplotlib.ticker.MaxNLocator(5, integer=whole).tick_values(low, high)
        return [float(place) for place in places if low <= place <= high]

    def path(self, x, y, kind: str, whole: bool = False) -> Html:
        chosen = np.arange(len(x))
        if len(x) > MOST_POINTS and not whole:
            chosen = np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int))
        across, down = self.at(np.asarray(x)[chosen], np.asarray(y)[chosen])
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
        return tag("polyline", points=Html(points), class_=kind)

    def line(self, start: tuple[float, float], end: tuple[float, float], kind: str) -> Html:
        (x1, x2), (y1, y2) = self.at((start[0], end[0]), (start[1], end[1]))
        return tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)

    def dot(self, x: float, y: float, kind: str) -> Html:
        across, down = self.at(x, y)
        return tag("circle", cx=f"{across:.1f}", cy=f"{down:.1f}", r="2.5", class_=f"dot {kind}")


def _figure(title: str, box: _Box, inside, ticks, label: str, series: Sequence[Line]) -> Html:
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    grid, words = [], []
    for tick in box.ticks(1):
        _, down = box.at(0.0, tick)
        grid.append(tag("line", x1="0", y1=f"{down:.1f}", x2=str(width), y2=f"{down:.1f}", class_="grid"))
        words.append(tag("text", f"{tick:g}", x=str(LEFT - 6), y=f"{TOP + down + 3.5:.1f}", class_="end"))
    for tick, name in ticks:
        across, _ = box.at(tick, 0.0)
        grid.append(
            tag("line", x1=f"{across:.1f}", y1="0", x2=f"{across:.1f}", y2=str(height), class_="grid")
        )
        words.append(tag("text", name, x=f"{LEFT + across:.1f}", y=str(TOP + height + 14), class_="middle"))
    words.append(tag("text", label, x=f"{LEFT + width / 2:.1f}", y=str(HEIGHT - 5), class_="middle"))
    # The inner svg cuts off what lies outside the axes.
    plot = tag("svg", *grid, *inside, x=str(LEFT), y=str(TOP), width=str(width), height=str(height))
    names = ", ".join(line.name for line in series)
    drawing = tag("svg", *words, plot, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title}: {names}")  # fmt: skip
    keys = [
        tag("span", line.name, class_=f"key c{line.colour % COLOURS}" + (" dashed" if line.dashed else ""))
        for line in series
    ]
    return tag(
        "figure", tag("figcaption", tag("b", title), Html(" "), joined(*keys)), drawing, class_="chart"
    )


def _scaled(x, log: bool) -> np.ndarray:
    values = np.asarray(x, np.float64)
    return np.log10(values) if log else values


def _bounds(line: Line) -> list[np.ndarray]:
    y = np.asarray(line.y, np.float64)
    errors = np.zeros_like(y) if line.errors is None else np.asarray(line.errors, np.float64)
    return [y - errors, y + errors]


def _range(low: float, high: float, margin: float) -> tuple[float, float]:
    """Returns an interval that is not empty, widened at both ends by a share of its length."""
    size = high - low
    if size <= 1e-9 * max(abs(low), abs(high)) or size <= 0.0:
        size = max(abs(low), 1.0) * 0.1
        return float(low - size), float(high + size)
    return float(low - margin * size), float(high + margin * size)
