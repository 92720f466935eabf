"""Parse the dates of the PBX, the settings and the state.

The PBX prints its wall-clock time in the format of Java's `Date.toString()`
(`Tue Sep 14 15:03:34 AEST 2021`) or, on older servers, as `2014-02-13 17:06:52.0`. The zone's
abbreviation selects the pass of a repeated hour, and confirms or contradicts `timezone`.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from tap_noojee.errors import DateError, ZoneError
from tap_noojee.hours import resolve
from tap_noojee.zone_names import AMBIGUOUS_OFFSETS, OFFSETS


class Reading(msgspec.Struct, frozen=True):  # faster to create than a named tuple
    """A parsed date of the PBX."""

    iso: str
    """The instant in UTC, as ISO 8601. These strings sort in time order."""
    ambiguous: bool
    """Whether the date could be in either pass of a repeated hour."""
    ambiguous_abbreviation: str
    """The zone's abbreviation, if an old JVM prints it all year."""
    zone_confirmed: bool
    """Whether there is an abbreviation that belongs to the offset of `timezone` at that time."""


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# The seconds are at the same place in both formats, so `parse_date` cuts them out first.
_JAVA = re.compile(
    rf"({'|'.join(_DAYS)}) ({'|'.join(_MONTHS)}) ([0-9]{{2}}) ([0-9]{{2}}:[0-9]{{2}})"
    r" ([A-Za-z0-9+:-]+) ([0-9]{4})"
)
_TIMESTAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?")

_SECONDS = slice(16, 19)
_TWO_DIGITS = {f":{second:02}" for second in range(60)}

_OFFSET = re.compile(r"(?:GMT|UTC)?([+-])([0-9]{1,2}):?([0-9]{2})")

_FIRST_YEAR = 1971
"""Servers print a missing date as the epoch, which is in 1969 or 1970, depending on the zone."""

_LAST_YEAR = 8999
"""Keeps arithmetic in any time zone within the range of datetime."""

_SET_ZONE = "set `timezone` to the zone of the PBX's clock"


@lru_cache(maxsize=4096)  # A leg often starts when the one before it ends.
def parse_date(text: str, zone: ZoneInfo) -> Reading:
    """Parse a date printed by a PBX whose clock is in this zone.

    Raises:
        DateError: It is not a usable date.
        ZoneError: Its abbreviation contradicts the zone, or clocks in the zone skip this time.
    """
    seconds = text[_SECONDS]
    if seconds not in _TWO_DIGITS:
        raise DateError("is not a date")
    minute = _parse_minute(text[:16] + text[19:], zone)
    iso = f"{minute.iso[:16]}{seconds}{minute.iso[19:]}"
    return Reading(iso, minute.ambiguous, minute.ambiguous_abbreviation, minute.zone_confirmed)


@lru_cache(maxsize=512)  # An hour has thousands of legs, but only 60 minutes.
def _parse_minute(text: str, zone: ZoneInfo) -> Reading:
    """Parse a date without its seconds."""
    day_name, name, fraction = "", "", ""
    if match := _JAVA.fullmatch(text):
        day_name, month, day, minute, name, year = match.groups()
        wall_text = f"{year}-{_MONTHS.index(month) + 1:02}-{day} {minute}"
    elif match := _TIMESTAMP.fullmatch(text):
        wall_text, fraction = match.groups(default="")
    else:
        raise DateError("is not a date")
    try:
        wall = datetime.fromisoformat(wall_text)
    except ValueError:
        raise DateError("is not a date") from None
    if not _FIRST_YEAR <= wall.year <= _LAST_YEAR:
        raise DateError(f"is not a date between {_FIRST_YEAR} and {_LAST_YEAR}")
    if day_name not in {"", _DAYS[wall.weekday()]}:
        raise DateError(f"is not a date: its weekday is {_DAYS[wall.weekday()]}")
    instant, ambiguous, abbreviation = _choose_pass(wall, name, zone)
    if instant.second:
        raise DateError("is from a time when the zone's offset included seconds")
    # Java's fraction may have nine digits; a datetime has six.
    iso = (instant + timedelta(microseconds=int(fraction[:6].ljust(6, "0")))).isoformat()
    return Reading(iso, ambiguous, abbreviation, bool(name) and not abbreviation)


def _choose_pass(wall: datetime, name: str, zone: ZoneInfo) -> tuple[datetime, bool, str]:
    """Return the instant, whether it could be in either pass, and an ambiguous abbreviation."""
    passes = resolve(wall, zone)
    if not passes:
        # Without an abbreviation, nothing contradicts `timezone`.
        raise (ZoneError if name else DateError)(
            f"is a time that clocks in {zone.key} skip: {_SET_ZONE}"
        )
    named = [p for p in passes if not name or _matches(name, p.astimezone(zone))]
    if named:
        return named[0], len(named) > 1, ""
    if any(p.astimezone(zone).utcoffset() in AMBIGUOUS_OFFSETS.get(name, ()) for p in passes):
        return passes[0], len(passes) > 1, name
    if name in OFFSETS or _OFFSET.fullmatch(name):
        raise ZoneError(f"has the time zone {name}, which contradicts {zone.key}: {_SET_ZONE}")
    # Do not quote the name: it may be anything, even the API key.
    raise DateError("has an unknown time zone abbreviation")


def _matches(name: str, local: datetime) -> bool:
    """Whether a JVM may print this abbreviation for the zone's offset at this local time."""
    offset = local.utcoffset()
    if match := _OFFSET.fullmatch(name):
        sign, hours, minutes = match.groups()
        distance = timedelta(hours=int(hours), minutes=int(minutes))
        return offset == (-distance if sign == "-" else distance)
    return name == local.tzname() or offset in OFFSETS.get(name, ())


def parse_instant(text: str, zone: ZoneInfo) -> datetime:
    """Parse an ISO 8601 date or time from a setting or a state into UTC.

    Without an offset, it is in `zone`, and a repeated time means the first pass.

    Raises:
        DateError: It is not a date, or not between 1971 and 8999.
    """
    try:
        # Not pendulum's `parse`, which also accepts "15:00", "now" and "P1D".
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise DateError(
            "is not a date or time such as 2021-09-14 or 2021-09-14T15:00:00Z"
        ) from None
    if not _FIRST_YEAR <= instant.year <= _LAST_YEAR:
        raise DateError(f"is not between {_FIRST_YEAR} and {_LAST_YEAR}")
    return (instant if instant.tzinfo else instant.replace(tzinfo=zone)).astimezone(UTC)
