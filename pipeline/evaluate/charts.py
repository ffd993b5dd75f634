"""Charts as inline SVG, without any library: quality against speed, and curves over training.

Colours are CSS classes of the page (`c0` … `c5` are the series), so charts follow its light and dark themes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

SERIES = 6  # colours that the page defines


@dataclass(frozen=True)
class Bubble:
    """A point of the scatter plot; `size` is shown as the area of its circle."""

    label: str
    x: float
    y: float
    size: float | None
    color: int
    title: str
    on_front: bool = False  # of those that no other beats in x without losing in y


@dataclass(frozen=True)
class Line:
    """A curve; `points` are (x, y) by rising x, `best` the one to mark."""

    label: str
    points: Sequence[tuple[float, float]]
    color: int
    best: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Axes:
    """Maps values to pixels inside the margins of a chart."""

    width: int
    height: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log_x: bool = False
    left: int = 52
    right: int = 16
    top: int = 16
    bottom: int = 44

    def x(self, value: float) -> float:
        low, high = self.x_range
        if self.log_x:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)

    def draw(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str) -> list[str]:
        """Grid lines, ticks and axis labels."""
        end_x, end_y = self.width - self.right, self.height - self.bottom
        parts = []
        for tick in y_ticks:
            y = self.y(tick)
            parts.append(f'<line class="grid" x1="{self.left}" y1="{y:.1f}" x2="{end_x}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick end" x="{self.left - 8}" y="{y + 4:.1f}">{tick_label(tick)}</text>')
        for tick in x_ticks:
            x = self.x(tick)
            parts.append(f'<line class="axis" x1="{x:.1f}" y1="{end_y}" x2="{x:.1f}" y2="{end_y + 4}"/>')
            parts.append(f'<text class="tick mid" x="{x:.1f}" y="{end_y + 17}">{tick_label(tick)}</text>')
        parts.append(f'<line class="axis" x1="{self.left}" y1="{end_y}" x2="{end_x}" y2="{end_y}"/>')
        parts.append(f'<text class="label end" x="{end_x}" y="{self.height - 6}">{escape(x_label)}</text>')
        middle = (self.top + end_y) / 2
        parts.append(
            f'<text class="label mid" transform="translate(12 {middle:.1f}) rotate(-90)">{escape(y_label)}</text>'
        )
        return parts


def scatter_chart(bubbles: Sequence[Bubble], x_label: str, y_label: str, title: str) -> str:
    """Bubbles over a logarithmic x axis; those without a positive x must have been left out."""
    x_range = _log_range([bubble.x for bubble in bubbles])
    y_range = nice_range([bubble.y for bubble in bubbles], pad=0.25)
    axes = _Axes(720, 340, x_range, y_range, log_x=True, right=32)
    parts = axes.draw(log_ticks(*x_range), nice_ticks(*y_range), x_label, y_label)
    largest = max((bubble.size or 0 for bubble in bubbles), default=0)
    front = sorted((axes.x(bubble.x), axes.y(bubble.y)) for bubble in bubbles if bubble.on_front)
    if len(front) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in front)
        parts.append(f'<polyline class="front" points="{path}"/>')
    placed: list[tuple[float, float, float]] = []  # labels: left edge, right edge, baseline
    for bubble in sorted(bubbles, key=lambda bubble: -(bubble.size or 0)):
        x, y = axes.x(bubble.x), axes.y(bubble.y)
        radius = max(5.0, 34 * math.sqrt((bubble.size or 0) / largest)) if largest else 7.0
        parts.append(
            f'<g class="c{bubble.color % SERIES}"><title>{escape(bubble.title)}</title>'
            f'<circle class="bubble" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/></g>'
        )
    for bubble in sorted(bubbles, key=lambda bubble: -bubble.y):
        x, y = axes.x(bubble.x), axes.y(bubble.y)
        radius = max(5.0, 34 * math.sqrt((bubble.size or 0) / largest)) if largest else 7.0
        width = 7.2 * len(bubble.label)
        left = x + radius + 6 if x + radius + 6 + width < axes.width else x - radius - 6 - width
        baseline = y + 4
        while any(left < end and start < left + width and abs(baseline - line) < 15 for start, end, line in placed):
            baseline += 15
        placed.append((left, left + width, baseline))
        color = f"c{bubble.color % SERIES}"
        parts.append(f'<text class="point {color}" x="{left:.1f}" y="{baseline:.1f}">{escape(bubble.label)}</text>')
    return _svg(axes, title, parts)


def line_chart(lines: Sequence[Line], x_label: str, y_label: str, title: str) -> str:
    """Curves over a linear x axis from zero, with their legend above."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    x_range = (0.0, max(max(xs, default=1.0), 1e-9))
    y_range = nice_range(ys, pad=0.06)
    axes = _Axes(460, 260, x_range, y_range, top=30, right=18)
    parts = axes.draw(nice_ticks(*x_range, count=4), nice_ticks(*y_range, count=4), x_label, y_label)
    legend = float(axes.left)
    for line in lines:
        color = f"c{line.color % SERIES}"
        path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline class="curve {color}" points="{path}"/>')
        if len(line.points) == 1:
            x, y = line.points[0]
            parts.append(f'<circle class="dot {color}" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3"/>')
        parts.append(f'<line class="curve {color}" x1="{legend:.0f}" y1="10" x2="{legend + 16:.0f}" y2="10"/>')
        parts.append(f'<text class="tick" x="{legend + 21:.0f}" y="14">{escape(line.label)}</text>')
        legend += 36 + 6.6 * len(line.label)
        if line.best:
            parts.append(_best_mark(axes, line.best, color))
    return _svg(axes, title, parts)


def _best_mark(axes: _Axes, best: tuple[float, float], color: str) -> str:
    x, y = axes.x(best[0]), axes.y(best[1])
    text = f"{best[1]:.4g}"
    anchor = "end" if x > axes.width / 2 else "start"
    offset = -9 if anchor == "end" else 9
    line = y - 9 if y - 18 > axes.top else y + 18
    return (
        f'<g class="{color}"><title>best model: {text} at {best[0]:,.0f}</title>'
        f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
        f'<text class="mark {anchor}" x="{x + offset:.1f}" y="{line:.1f}">{text}</text></g>'
    )


def _svg(axes: _Axes, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="w{axes.width}" viewBox="0 0 {axes.width} {axes.height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values from low to high: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    raw = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def nice_range(values: Sequence[float], pad: float) -> tuple[float, float]:
    """A range around the values with a share of their span on both sides; never empty, and not below 0 without need."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = (high - low) * pad or abs(high) * 0.1 or 1.0
    return (max(0.0, low - margin) if low >= 0 else low - margin, high + margin)


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between low and high; powers of ten alone when the range spans many."""
    factors = (1, 2, 5) if high / low < 2000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]


def _log_range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=1.0), max(values, default=10.0)
    margin = max((high / low) ** 0.25, 1.6)
    return (low / margin, high * margin)


def tick_label(value: float) -> str:
    """A number as an axis shows it: 1.5k, 12M, 0.02."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.4g}"
