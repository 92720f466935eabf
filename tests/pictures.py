"""Draws the pictures in docs/ from rows of the queries in docs/analysis.md."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    Rows = Sequence[dict[str, Any]]

LEFT, TOP, HEIGHT = 48, 44, 120
GREY, BLUE, ORANGE = "#808080", "#4c78a8", "#e07b00"
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def volume(rows: Rows) -> str:
    """Draw a bar for each hour, in order, with repeated hours in orange."""
    step, bottom = 4, TOP + HEIGHT
    hours = [datetime.fromisoformat(row["local_hour"]) for row in rows]
    most = max(row["calls"] for row in rows)
    lines = []
    for place, (hour, row) in enumerate(zip(hours, rows, strict=True)):
        x, repeated = LEFT + step * place, hours.count(hour) > 1
        lines.append(_bar(x, step - 1, row["calls"] / most, ORANGE if repeated else BLUE))
        if hour.hour == 0:
            lines.append(f'<path d="M{x - 0.5} {TOP}V{bottom + 6}" stroke="{GREY}"/>')
            lines.append(_text(x + 3, bottom + 14, f"{hour:%a} {hour.day} {hour:%b}"))
        if repeated and hours.index(hour) == place:
            lines.append(_text(x, TOP - 4, f"{hour:%H:%M} twice"))
    width = LEFT + step * len(rows) + 4
    axes = _axes(width, "hour of the PBX's clock", most)
    return _picture(width, bottom, "Calls that started in each hour of a week", [*axes, *lines])


def weekdays(rows: Rows) -> str:
    """Draw a square for each hour of the week: the darker, the more calls."""
    step, bottom, width = 20, TOP + 7 * 20, LEFT + 24 * 20 + 4
    most = max(row["average"] for row in rows)
    lines = [_text(LEFT - 6, TOP + step * n + 14, day, "end") for n, day in enumerate(DAYS)]
    for row in rows:
        x, y = LEFT + step * row["hour"], TOP + step * (row["weekday"] - 1)
        lines.append(
            f'<rect x="{x}" y="{y}" width="{step - 1}" height="{step - 1}" fill="{BLUE}"'
            f' fill-opacity="{0.04 + 0.96 * row["average"] / most:.2f}"/>'
        )
    hours = range(0, 24, 3)
    lines += [_text(LEFT + step * hour, bottom + 14, f"{hour:02}:00") for hour in hours]
    lines.append(_text(width // 2, bottom + 28, "hour of the PBX's clock", "middle"))
    title = f"Calls by weekday and hour (darkest: {round(most)} calls an hour on average)"
    return _picture(width, bottom, title, lines)


def lengths(rows: Rows) -> str:
    """Draw a bar for each band of lengths."""
    step, bottom = 56, TOP + HEIGHT
    most = max(row["calls"] for row in rows)
    lines = []
    for place, row in enumerate(rows):
        x, below = LEFT + step * place, row["below_seconds"]
        lines.append(_bar(x, step - 6, row["calls"] / most, BLUE))
        words = f"&lt; {_span(below)}" if below else f"≥ {_span(row['from_seconds'])}"
        lines.append(_text(x, bottom + 14, words))
    width = LEFT + step * len(rows)
    axes = _axes(width, "from the start of the first leg to the end of the last", most)
    return _picture(width, bottom, "How long calls last", [*axes, *lines])


def _axes(width: int, across: str, most: int) -> list[str]:
    return [
        _text(width // 2, TOP + HEIGHT + 28, across, "middle"),
        _text(4, TOP + HEIGHT // 2, "calls"),
        _text(LEFT - 4, TOP + 8, str(most), "end"),
        _text(LEFT - 4, TOP + HEIGHT, "0", "end"),
    ]


def _bar(x: int, width: int, share: float, colour: str) -> str:
    height = round(HEIGHT * share, 1)
    size = f'y="{TOP + HEIGHT - height:g}" width="{width}" height="{height:g}"'
    return f'<rect x="{x}" {size} fill="{colour}"/>'


def _span(seconds: int) -> str:
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 3600 else f"{seconds // 3600} h"


def _text(x: int, y: int, words: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{words}</text>'


def _picture(width: int, bottom: int, title: str, lines: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 36}">',
        f"<title>{title}</title>",
        f'<g font-family="sans-serif" font-size="10" fill="{GREY}">',
        f'<text x="{LEFT}" y="16" font-size="13">{title}</text>',
    )
    return "\n".join([*head, *lines, "</g></svg>", ""])
