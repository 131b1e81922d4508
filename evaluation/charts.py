"""Draws the report's pictures as inline SVG. Runs in the Evaluate step's processing container.

Colours come from the page's style sheet (classes), so that they follow light and dark mode. Every picture has a title
that says in words what it shows. Sizes are in the picture's own units; the page scales it to its width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from intervals import Estimate

WIDTH = 720
Point = tuple[float, float]


def bars(title: str, groups: Sequence[tuple[str, str, Sequence[tuple[str, str, Estimate]]]]) -> str:
    """Horizontal bars from 0 to 100% with intervals. `groups`: (label, note below it, [(class, model, estimate)])."""
    left, right, bar, gap, space = 190, 66, 16, 5, 20
    scale = WIDTH - left - right
    top, parts = 26.0, []
    height = top + sum(len(entries) * (bar + gap) + space for _, _, entries in groups)
    for tick in range(0, 101, 25):
        x = left + scale * tick / 100
        parts.append(_line("grid", x, 18, x, height - 12))
        parts.append(_text("tick", x, 11, f"{tick}%", "middle"))
    for label, note, entries in groups:
        middle = top + (len(entries) * (bar + gap) - gap) / 2
        parts.append(_text("label", left - 12, middle - (8 if note else 0), label, "end"))
        if note:
            parts.append(_text("tick", left - 12, middle + 9, note, "end"))
        for style, model, found in entries:
            low, value, high = (left + scale * _clip(found[key]) for key in ("low", "value", "high"))
            y, interval = top + bar / 2, f"{percent(found['low'])} to {percent(found['high'])}"
            tip = f"{model}: {label} {percent(found['value'])}, interval {interval}"
            whisker = f"M{low:.1f} {y:.1f}H{high:.1f}M{low:.1f} {y - 4:.1f}v8M{high:.1f} {y - 4:.1f}v8"
            parts.append("<g>" + _title(tip))
            size = f'height="{bar}" width="{max(value - left, 1.5):.1f}"'
            parts.append(f'<rect class="bar {style}" x="{left}" y="{top:.1f}" rx="2" {size}/>')
            parts += [f'<path class="{layer}" d="{whisker}"/>' for layer in ("halo", "whisker")]
            parts.append(_text("value", high + 7, y, percent(found["value"])) + "</g>")
            top += bar + gap
        top += space
    return _svg(title, WIDTH, height, parts)


def curves(title: str, series: Sequence[tuple[str, str, Sequence[Point]]], x_label: str, y_label: str) -> str:
    """Lines over steps. `series` holds (class, label, [(step, loss)]), at least one of them with points."""
    left, right, top, bottom, height = 56, 130, 14, 40, 280
    points = [point for _, _, line in series for point in line]
    x_end = max(x for x, _ in points) or 1
    y_ticks = ticks(min(0, *(y for _, y in points)), max(y for _, y in points), 5)
    y_start, y_end = y_ticks[0], y_ticks[-1]

    def place(point: Point) -> Point:
        x = left + (WIDTH - left - right) * point[0] / x_end
        return x, height - bottom - (height - top - bottom) * (point[1] - y_start) / (y_end - y_start)

    parts = []
    for tick in y_ticks:
        y = place((0, tick))[1]
        parts += [_line("grid", left, y, WIDTH - right, y), _text("tick", left - 8, y, number(tick), "end")]
    for tick in (tick for tick in ticks(0, x_end, 6) if tick <= x_end):
        parts.append(_text("tick", place((tick, 0))[0], height - bottom + 18, number(tick), "middle"))
    parts.append(_text("tick", (left + WIDTH - right) / 2, height - 8, x_label, "middle"))
    turned = f'<g transform="translate(13 {(height - bottom) / 2}) rotate(-90)">'
    parts.append(turned + _text("tick", 0, 0, y_label, "middle") + "</g>")
    ends: list[tuple[float, str, str]] = []
    for style, label, line in series:
        placed = [place(point) for point in line]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        parts.append(f'<path class="line {style}" d="{path}">{_title(label)}</path>')
        if len(placed) <= 40:
            parts += [f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in placed]
        ends.append((placed[-1][1], style, f"{label} {line[-1][1]:.3f}"))
    last = -math.inf
    for y, style, label in sorted(ends):
        last = max(y, last + 15)
        parts.append(_text(f"end {style}", WIDTH - right + 8, last, label))
    return _svg(title, WIDTH, height, parts)


def spread(title: str, entries: Sequence[tuple[str, Estimate]]) -> str:
    """A small line from 0 to 100% with a dot and an interval for each model: (class, estimate)."""
    width, height = 180, 9 * len(entries) + 5
    parts = [_line("grid", 2, height / 2, width - 2, height / 2)]
    for place, (style, found) in enumerate(entries):
        y = 7 + 9 * place
        low, value, high = (4 + (width - 8) * _clip(found[key]) for key in ("low", "value", "high"))
        parts.append(_line(f"range {style}", low, y, high, y))
        parts.append(f'<circle class="dot {style}" cx="{value:.1f}" cy="{y}" r="3.4"/>')
    return _svg(title, width, height, parts)


def _svg(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    opening = f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(title)}">'
    return f"{opening}{_title(title)}{''.join(parts)}</svg>"


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(style: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    """Text whose middle is at y."""
    place = f'x="{x:.1f}" y="{y:.1f}" dominant-baseline="middle" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(text)}</text>'


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def percent(value: float) -> str:
    """0.7604 -> 76.0%"""
    return f"{100 * value:.1f}%"


def number(value: Any) -> str:
    """A number as a person writes it: 1200, 0.25."""
    return f"{value:.10g}"


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `count` of them."""
    span = (high - low) or 1.0
    raw = span / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [round(place * step, 10) for place in range(first, max(last, first + 1) + 1)]
