"""The PBX's date formats, and those of settings and STATE, as instants.

The PBX's dates are as Java's `Date.toString()` prints them in the server's zone
(`Tue Sep 14 15:03:34 AEST 2021`) or, from older servers, `2014-02-13 17:06:52.0`. In either format
the wall-clock time is the PBX's own; the zone's name only tells which pass of a repeated hour it
is, and whether the `timezone` setting is right.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from tap_noojee.errors import DateError
from tap_noojee.hours import instants
from tap_noojee.zone_names import LEGACY_OFFSETS, OFFSETS

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


class Reading(msgspec.Struct, frozen=True):  # quicker to make than a named tuple
    """What a date of the PBX says."""

    iso: str
    """The instant as ISO 8601 in UTC; such texts sort as the instants do."""
    ambiguous: bool = False
    """Whether it may just as well be in the second pass of a repeated hour."""
    legacy_name: str = ""
    """The zone's name, if it is one that an old JVM prints in summer and winter alike."""
    proven: bool = True
    """Whether the zone's name is of the offset that the zone has then."""


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# Without the seconds, which stand at the same place in all formats: _SECONDS.
_JAVA = re.compile(
    rf"({'|'.join(_DAYS)}) ({'|'.join(_MONTHS)}) ([0-9]{{2}}) ([0-9]{{2}}:[0-9]{{2}})"
    r" ([A-Za-z0-9+:-]+) ([0-9]{4})"
)
_TIMESTAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?")

_SECONDS = slice(16, 19)
_TWO_DIGITS = {f":{second:02}" for second in range(60)}

_OFFSET = re.compile(r"(?:GMT|UTC)?([+-])([0-9]{1,2}):?([0-9]{2})")

_FIRST_YEAR = 1970
"""Java's dates begin here."""

_LAST_YEAR = 9000
"""So that arithmetic in any zone stays within Python's range."""

_WRONG_ZONE = "set `timezone` to the zone of the PBX's own clock"


@lru_cache(maxsize=4096)  # A leg mostly starts when the one before it ended.
def parse_date(text: str, zone: ZoneInfo) -> Reading:
    """Read a date as the PBX in this zone prints it.

    Raises:
        DateError: not a date, not a time that the zone's clocks show, or the name of the zone
            stands for another offset than the zone has then.
    """
    seconds = text[_SECONDS]
    if seconds not in _TWO_DIGITS:
        raise DateError("is not a date")
    head, tail, ambiguous, legacy_name, proven = _parse_minute(text[:16], text[19:], zone)
    return Reading(f"{head}{seconds}{tail}", ambiguous, legacy_name, proven)


@lru_cache(maxsize=512)  # An hour has thousands of legs, but 60 minutes.
def _parse_minute(head: str, tail: str, zone: ZoneInfo) -> tuple[str, str, bool, str, bool]:
    """Read a date without its seconds; its ISO 8601 comes in two parts, around the seconds."""
    day_name, name, fraction = "", "", ""
    if match := _JAVA.fullmatch(head + tail):
        day_name, month, day, minute, name, year = match.groups()
        text = f"{year}-{_MONTHS.index(month) + 1:02}-{day} {minute}"
    elif match := _TIMESTAMP.fullmatch(head + tail):
        text, fraction = match.groups(default="")
    else:
        raise DateError("is not a date")
    try:
        wall = datetime.fromisoformat(text)
    except ValueError:
        raise DateError("is not a date") from None
    if day_name not in {"", _DAYS[wall.weekday()]}:
        raise DateError(f"is not a date: that day is a {_DAYS[wall.weekday()]}")
    instant, ambiguous, legacy_name = _place(wall, name, zone)
    if instant.second:
        raise DateError("is of a time when the zone had a sub-minute offset")
    # Java's fraction may have nine digits, a datetime has six.
    iso = (instant + timedelta(microseconds=int(fraction[:6].ljust(6, "0")))).isoformat()
    return iso[:16], iso[19:], ambiguous, legacy_name, name != legacy_name


def _place(wall: datetime, name: str, zone: ZoneInfo) -> tuple[datetime, bool, str]:
    """Find the instant of a wall-clock time; also, as in Reading, what is odd about it."""
    if not _FIRST_YEAR <= wall.year <= _LAST_YEAR:
        raise DateError("is not a date that a call can have")
    passes = instants(wall, zone)
    if not passes:
        raise DateError(f"is a time that the clocks of {zone.key} skip: {_WRONG_ZONE}")
    named = [p for p in passes if not name or _stands_for(name, p.astimezone(zone))]
    if named:
        return named[0], len(named) > 1, ""
    if any(p.astimezone(zone).utcoffset() in LEGACY_OFFSETS.get(name, ()) for p in passes):
        return passes[0], len(passes) > 1, name
    if name in OFFSETS or _OFFSET.fullmatch(name):
        what = f"has the time zone name {name}"
        raise DateError(f"{what}, which is not the time of {zone.key} then: {_WRONG_ZONE}")
    # Not repeated here: it may be anything, the API key included.
    raise DateError("has an unknown time zone name")


def _stands_for(name: str, local: datetime) -> bool:
    """Whether a JVM may print this name for the zone's offset at this local time."""
    offset = local.utcoffset()
    if match := _OFFSET.fullmatch(name):
        sign, hours, minutes = match.groups()
        distance = timedelta(hours=int(hours), minutes=int(minutes))
        return offset == (-distance if sign == "-" else distance)
    return name == local.tzname() or offset in OFFSETS.get(name, ())


def parse_instant(text: str, zone: ZoneInfo) -> datetime:
    """Read an ISO 8601 date or time of a setting or a STATE, in UTC.

    Without an offset it is a time of the zone; of a time that its clocks show twice, the first.

    Raises:
        DateError: it is not one, or out of the range of dates that calls can have.
    """
    try:
        # Not pendulum's `parse`, which also takes "15:00", "now" and "P1D".
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise DateError(
            "is not a date or time such as 2021-09-14 or 2021-09-14T15:00:00Z"
        ) from None
    if not _FIRST_YEAR < instant.year < _LAST_YEAR:
        raise DateError(f"is not between {_FIRST_YEAR + 1} and {_LAST_YEAR - 1}")
    return (instant if instant.tzinfo else instant.replace(tzinfo=zone)).astimezone(UTC)
