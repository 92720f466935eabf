"""Wall-clock hours, worked out without the tap's code."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import MAXYEAR, UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from zoneinfo import ZoneInfo


def parse_wall_hour(query: Mapping[str, str]) -> datetime | None:
    """Read what is asked for; the hour is on a wall clock, so it has no zone."""
    text = f"{query.get('date')} {query.get('hour')}"
    match = re.fullmatch(r"(\d{4})/(\d\d)/(\d\d) (\d\d?)", text, re.ASCII)
    # In the last year the arithmetic below could leave datetime's range.
    if match and 1970 <= int(match[1]) < MAXYEAR:  # noqa: PLR2004 - calls are counted from there
        with suppress(ValueError):
            return datetime(*map(int, match.groups()))  # type: ignore[arg-type] # noqa: DTZ001 - see above
    return None


def exists(wall: datetime, zone: ZoneInfo) -> bool:
    """Whether the clock shows any of an hour; zones move by quarters of one at the finest."""
    quarters = (wall.replace(minute=minute, tzinfo=zone) for minute in (0, 15, 30, 45))
    return any(
        quarter.astimezone(UTC).astimezone(zone).replace(tzinfo=None)
        == quarter.replace(tzinfo=None)
        for quarter in quarters
    )
