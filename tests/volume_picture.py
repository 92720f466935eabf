"""Draws docs/volume.svg from the rows of the query of docs/analysis.md."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

BAR, HEIGHT, LEFT, TOP = 4, 120, 28, 16


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """A bar for each hour, in order; one that comes twice stands out."""
    hours = [datetime.fromisoformat(row["local_hour"]) for row in rows]
    times = Counter(hours)
    most = max(row["calls"] for row in rows)
    width, bottom = LEFT + BAR * len(rows) + 4, TOP + HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 22}">',
        '<g font-family="sans-serif" font-size="10" fill="#808080">',
        "<title>Calls that started in each hour of a week</title>",
        f'<text x="{LEFT - 4}" y="{TOP + 8}" text-anchor="end">{most}</text>',
        f'<text x="{LEFT - 4}" y="{bottom}" text-anchor="end">0</text>',
    ]
    for place, (hour, row) in enumerate(zip(hours, rows, strict=True)):
        x, height = LEFT + BAR * place, round(HEIGHT * row["calls"] / most, 1)
        colour = "#e07b00" if times[hour] > 1 else "#4c78a8"
        lines.append(
            f'<rect x="{x}" y="{bottom - height:g}" width="{BAR - 1}" height="{height:g}"'
            f' fill="{colour}"/>'
        )
        if hour.hour == 0:
            lines += [
                f'<path d="M{x - 0.5} {TOP}V{bottom + 6}" stroke="#808080" stroke-width=".5"/>',
                f'<text x="{x + 3}" y="{bottom + 14}">{hour:%a} {hour.day} {hour:%b}</text>',
            ]
        if times[hour] > 1 and hours.index(hour) == place:
            lines.append(f'<text x="{x}" y="{TOP - 4}">{hour:%H:%M} twice</text>')
    return "\n".join([*lines, "</g></svg>", ""])
