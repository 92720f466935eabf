"""Parse dates from the PBX, the settings and the state.

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


class ParsedDate(msgspec.Struct, frozen=True):  # faster to create than a named tuple
    """A parsed date from the PBX."""

    iso: str
    """The instant in UTC, as ISO 8601. These strings sort in time order."""
    ambiguous: bool
    """Whether the date could be in either pass of a repeated hour."""
    ambiguous_abbreviation: str
    """The zone's abbreviation, if an old JVM prints it all year."""
    zone_confirmed: bool
    """Whether the date has an abbreviation that matches `timezone` at that time."""


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# These patterns have no seconds: `parse_date` cuts them out first, so that `_parse_minute` can
# cache each minute. The seconds are at the same position in both formats and in ISO 8601.
_JAVA = re.compile(
    rf"({'|'.join(_DAYS)}) ({'|'.join(_MONTHS)}) ([0-9]{{2}}) ([0-9]{{2}}:[0-9]{{2}})"
    r" ([A-Za-z0-9+:-]+) ([0-9]{4})"
)
_TIMESTAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?")

_VALID_SECONDS = {f":{second:02}" for second in range(60)}

_OFFSET = re.compile(r"(?:GMT|UTC)?([+-])([0-9]{1,2}):?([0-9]{2})")

_FIRST_YEAR = 1971
"""A server may print a missing date as the epoch, which falls in 1969 or 1970."""

_LAST_YEAR = 8999
"""Keeps arithmetic in any time zone within the range of datetime."""

_SET_ZONE = "set `timezone` to the zone of the PBX's clock"


@lru_cache(maxsize=4096)  # A leg often starts when the one before it ends.
def parse_date(text: str, zone: ZoneInfo) -> ParsedDate:
    """Parse a date printed by a PBX whose clock is in this zone.

    Raises:
        DateError: It is not a usable date, or it is a skipped time without an abbreviation.
        ZoneError: Its abbreviation contradicts the zone, or it is a skipped time with one.
    """
    seconds = text[16:19]
    if seconds not in _VALID_SECONDS:
        raise DateError("is not a date")
    minute = _parse_minute(text[:16] + text[19:], zone)
    iso = f"{minute.iso[:16]}{seconds}{minute.iso[19:]}"
    return ParsedDate(iso, minute.ambiguous, minute.ambiguous_abbreviation, minute.zone_confirmed)


@lru_cache(maxsize=512)  # An hour has thousands of legs, but only 60 minutes.
def _parse_minute(text: str, zone: ZoneInfo) -> ParsedDate:
    """Parse a date without its seconds."""
    day_name, abbreviation, fraction = "", "", ""
    if match := _JAVA.fullmatch(text):
        day_name, month, day, minute, abbreviation, year = match.groups()
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
    instant, is_ambiguous, ambiguous_abbreviation = _choose_pass(wall, abbreviation, zone)
    if instant.second:
        raise DateError("is from a time when the zone's offset included seconds")
    # Java's fraction may have nine digits; a datetime has six.
    iso = (instant + timedelta(microseconds=int(fraction[:6].ljust(6, "0")))).isoformat()
    is_confirmed = bool(abbreviation) and not ambiguous_abbreviation
    return ParsedDate(iso, is_ambiguous, ambiguous_abbreviation, is_confirmed)


def _choose_pass(wall: datetime, abbreviation: str, zone: ZoneInfo) -> tuple[datetime, bool, str]:
    """Return the instant, whether it could be in either pass, and any ambiguous abbreviation."""
    passes = resolve(wall, zone)
    if not passes:
        problem = f"is a time that clocks in {zone.key} skip"
        if abbreviation:
            raise ZoneError(f"{problem}: {_SET_ZONE}")
        # This does not prove that `timezone` is wrong: older servers may print such times.
        raise DateError(f"{problem}: check `timezone`")
    matching = [
        p for p in passes if not abbreviation or _matches(abbreviation, p.astimezone(zone))
    ]
    if matching:
        return matching[0], len(matching) > 1, ""
    offsets = AMBIGUOUS_OFFSETS.get(abbreviation, ())
    if any(p.astimezone(zone).utcoffset() in offsets for p in passes):
        return passes[0], len(passes) > 1, abbreviation
    if abbreviation in OFFSETS or _OFFSET.fullmatch(abbreviation):
        raise ZoneError(
            f"has the time zone {abbreviation}, which contradicts {zone.key}: {_SET_ZONE}"
        )
    # Do not quote it: it may be anything, even the API key.
    raise DateError("has an unknown time zone abbreviation")


def _matches(abbreviation: str, local: datetime) -> bool:
    """Whether a JVM may print this abbreviation for the zone's offset at this local time."""
    offset = local.utcoffset()
    if match := _OFFSET.fullmatch(abbreviation):
        sign, hours, minutes = match.groups()
        distance = timedelta(hours=int(hours), minutes=int(minutes))
        return offset == (-distance if sign == "-" else distance)
    return abbreviation == local.tzname() or offset in OFFSETS.get(abbreviation, ())


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
