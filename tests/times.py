"""Times, dates as Java prints them, and legs at times, for several tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from tap_noojee.dates import Reading
from tap_noojee.simulator import Leg

DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

JDK_11_TO_21 = [
    # Zone, then offset and name at JDK 11 to 21 in January and in July.
    ("Australia/Melbourne", "+11:00", "AEDT", "+10:00", "AEST"),
    ("Australia/Sydney", "+11:00", "AEDT", "+10:00", "AEST"),
    ("Australia/Hobart", "+11:00", "AEDT", "+10:00", "AEST"),
    ("Australia/Brisbane", "+10:00", "AEST", "+10:00", "AEST"),
    ("Australia/Lindeman", "+10:00", "AEST", "+10:00", "AEST"),
    ("Australia/Adelaide", "+10:30", "ACDT", "+09:30", "ACST"),
    ("Australia/Broken_Hill", "+10:30", "ACDT", "+09:30", "ACST"),
    ("Australia/Darwin", "+09:30", "ACST", "+09:30", "ACST"),
    ("Australia/Perth", "+08:00", "AWST", "+08:00", "AWST"),
    ("Australia/Lord_Howe", "+11:00", "LHDT", "+10:30", "LHST"),
    ("Australia/Eucla", "+08:45", "ACWST", "+08:45", "ACWST"),
    ("Pacific/Norfolk", "+12:00", "NFST", "+11:00", "NFT"),
    ("Pacific/Auckland", "+13:00", "NZDT", "+12:00", "NZST"),
    ("Pacific/Chatham", "+13:45", "CHADT", "+12:45", "CHAST"),
    ("Asia/Singapore", "+08:00", "SGT", "+08:00", "SGT"),
    ("Europe/London", "+00:00", "GMT", "+01:00", "BST"),
    ("UTC", "+00:00", "UTC", "+00:00", "UTC"),
    ("Etc/GMT-10", "+10:00", "GMT+10:00", "+10:00", "GMT+10:00"),
]
"""Zone, then offset and name that JDK 11 to 21 print in January and in July."""


def at(text: str) -> datetime:
    """Read a time with an offset."""
    return datetime.fromisoformat(text).astimezone(UTC)


def reading(
    instant: datetime, *, ambiguous: bool = False, legacy_name: str = "", proven: bool = True
) -> Reading:
    """What is read of a date at this instant; an old JVM's name proves nothing."""
    iso = instant.astimezone(UTC).isoformat()
    return Reading(iso, ambiguous, legacy_name, proven and not legacy_name)


def local(text: str, zone: str) -> datetime:
    """An instant in UTC, of a zone's wall-clock time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def every(step: timedelta, start: datetime, end: datetime) -> list[Leg]:
    """A leg that ends at each step of time."""
    ends = [start + k * step for k in range((end - start) // step)]
    return [Leg(end - timedelta(seconds=40), end, str(k)) for k, end in enumerate(ends)]


def java(wall: datetime, name: str) -> str:
    """Print a date as Java does."""
    day, month = DAYS[wall.weekday()], MONTHS[wall.month - 1]
    return f"{day} {month} {wall:%d %H:%M:%S} {name} {wall:%Y}"
