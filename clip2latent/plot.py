"""Plots as SVG: panels of lines with error bars, over an axis of numbers or of their logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, TOP, GAP = 350, 250, 60, 40, 80
COLOURS = ("#1f5fbf", "#c2410c", "#15803d", "#7e22ce", "#52525b", "#be185d", "#0e7490")


class Point(NamedTuple):
    """A place in a panel, and how far its error bar goes up and down."""

    x: float
    y: float
    error: float = 0.0


class Panel(NamedTuple):
    """A panel: its title, the name of its horizontal axis, and its lines, by name.

    Attributes:
        title: above it.
        axis: below it.
        lines: name -> points from left to right; a name has the same colour in all panels.
        logarithmic: horizontal distances are ratios.
    """

    title: str
    axis: str
    lines: dict[str, list[Point]]
    logarithmic: bool = False


def svg(title: str, panels: Sequence[Panel]) -> str:
    """Returns a picture of panels side by side, with one legend below them."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    width, columns = len(panels) * (WIDTH + GAP), 2 * len(panels)
    height = TOP + HEIGHT + 72 + 24 * math.ceil(len(names) / columns)
    parts = [_panel(panel, colours, LEFT + index * (WIDTH + GAP)) for index, panel in enumerate(panels)]
    for index, name in enumerate(names):
        x, y = LEFT + (WIDTH + GAP) / 2 * (index % columns), TOP + HEIGHT + 68 + 24 * (index // columns)
        parts.append(_line([(x, y), (x + 34, y)], colours[name]) + _text(x + 42, y + 4, name, "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' font-family="sans-serif" font-size="13"><title>{escape(title)}</title>'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def ticks(low: float, high: float) -> list[float]:
    """Returns four to nine round numbers at equal distances, of which the outer ones enclose both."""
    span = max(high - low, 1e-3)
    unit = 10 ** math.floor(math.log10(span / 4))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if span / (factor * unit) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def _panel(panel: Panel, colours: dict[str, str], left: int) -> str:
    points = [point for line in panel.lines.values() for point in line]
    if not points:
        return _text(left + WIDTH / 2, TOP + HEIGHT / 2, f"no {panel.title}", "middle")
    rows = ticks(min(y - error for _, y, error in points), max(y + error for _, y, error in points))
    along = math.log10 if panel.logarithmic else float
    # Over logarithms the marks are the points' own places: steps are few and chosen.
    columns = sorted({x for x, _, _ in points}) if panel.logarithmic else ticks(*_ends([x for x, _, _ in points]))
    first, last = along(columns[0]), along(columns[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (along(x) - first) / (last - first) if last > first else 0.5
        return left + WIDTH * across, TOP + HEIGHT * (1 - (y - rows[0]) / (rows[-1] - rows[0]))

    parts = [_text(left + WIDTH / 2, TOP - 16, panel.title, "middle", 15)]
    for row in rows:
        y = place(columns[0], row)[1]
        parts.append(_line([(left, y), (left + WIDTH, y)], "#e2e2e6") + _text(left - 8, y + 4, f"{row:.4g}", "end"))
    parts += [_text(place(x, rows[0])[0], TOP + HEIGHT + 20, f"{x:g}", "middle") for x in columns]
    parts.append(_text(left + WIDTH / 2, TOP + HEIGHT + 40, panel.axis, "middle"))
    for number, (name, line) in enumerate(panel.lines.items()):
        aside, colour = 3 * (number - (len(panel.lines) - 1) / 2), colours[name]  # error bars stand beside each other
        parts.append(_line([(x + aside, y) for x, y in (place(point.x, point.y) for point in line)], colour))
        for point in line:
            x, y = place(point.x, point.y)
            ends = [(x + aside, place(point.x, point.y + sign * point.error)[1]) for sign in (-1, 1)]
            parts.append(_line(ends, colour, 1))
            parts.append(f'<circle cx="{x + aside:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
    return "".join(parts)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _line(points: Sequence[tuple[float, float]], colour: str, width: float = 1.6) -> str:
    if len(points) < 2:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str, size: int = 13) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#14141a">{escape(text)}</text>'
    )
