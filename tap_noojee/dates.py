"""The PBX's spellings of a date, read as instants.

Dates come as Java's `Date.toString()` prints them in the server's zone
(`Tue Sep 14 15:03:34 AEST 2021`) and, from older servers, as `2014-02-13 17:06:52.0`. Either way
the wall-clock time is the PBX's own; the zone's name only tells which pass of a repeated hour it
is, and whether the `timezone` setting is right.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from tap_noojee.hours import instants

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


class DateError(ValueError):
    """A text that is no date of the PBX, or no time of its zone. Says what is wrong with it."""


class Reading(NamedTuple):
    """What a date says."""

    instant: datetime
    """In UTC."""
    vague: bool = False
    """Whether it may as well mean the second pass of a repeated hour."""
    old_name: str = ""
    """The zone's name, if it is one that an old JVM prints in summer and winter alike."""


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_JAVA = re.compile(
    rf"({'|'.join(_DAYS)}) ({'|'.join(_MONTHS)}) ([0-9]{{2}}) ([0-9]{{2}}:[0-9]{{2}})"
    r" ([A-Za-z0-9+:-]+) ([0-9]{4})"
)
"""Without the seconds, as the next."""

_TIMESTAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?")

_OFFSET = re.compile(r"(?:GMT|UTC)?([+-])([0-9]{1,2}):?([0-9]{2})")

_NAMES = {
    -660: "NUT SST",
    -600: "CKT HAST HST TAHT",
    -570: "MART",
    -540: "AKST GAMT HADT",
    -480: "AKDT PST",
    -420: "MST PDT",
    -360: "CST EAST GALT MDT",
    -300: "ACT CDT COT EASST ECT EST PET",
    -270: "VET",
    -240: "AMT AST BOT CLT EDT GYT PYT VET",
    -210: "NST",
    -180: "ADT AMST ART BRT CLST CLT FKT GFT PMST PYST PYT ROTT SRT UYT WGT",
    -150: "NDT",
    -120: "BRST FNT GST PMDT UYST WGST WGT",
    -60: "AZOT CVT EGT WGST",
    0: "AZOST EGST GMT UTC WET",
    60: "BST CET IST MET WAT WEST",
    120: "CAT CEST EET IST MEST SAST",
    180: "AST EAT EEST IDT MSK SYOT TRST TRT",
    210: "IRST",
    240: "AMT AZT GET GST MUT RET SAMT SCT",
    270: "AFT IRDT",
    300: "ALMT AQTT AZST MAWT MVT ORAT PKT QOST QYZT TFT TJT TMT UZT VOST YEKT",
    330: "IST",
    345: "NPT",
    360: "ALMT BDT BTT IOT KGT NOVT OMST QOST QYZT XJT YEKT",
    390: "CCT MMT",
    420: "CXT DAVT HOVT ICT KRAT NOVT OMST VOST WIB",
    480: "AWST BNT CHOT HKT HOVST IRKT KRAT MYT PST SGT ULAT WITA WST YAKT",
    525: "ACWST",
    540: "CHOST IRKT JST KST PWT TLT ULAST WIT YAKT",
    570: "ACST",
    600: "AEST CHUT ChST DDUT MAGT PGT SAKT VLAT YAKT",
    630: "ACDT LHST",
    660: "AEDT KOST LHDT MAGT NCT NFT PONT SAKT SBT SRET VLAT VUT",
    690: "NFT",
    720: "ANAT FJT GILT MAGT MHT NFST NRT NZST PETT SRET TVT WAKT WFT",
    765: "CHAST",
    780: "FJST NZDT PHOT TKT TOT WSST",
    825: "CHADT",
    840: "LINT TOST WSDT",
}
"""Minutes east of UTC, and the short names that JDK 11 to 21 print for it (seen on JDK 17, all its
zones, 2014 to 2026; of the names with several meanings, those of places with the most people).
Python has no names for many of these zones. WST is Perth's name in a JVM older than 2014."""

_OFFSETS: dict[str, set[timedelta]] = {}
for _minutes, _names in _NAMES.items():
    for _name in _names.split():
        _OFFSETS.setdefault(_name, set()).add(timedelta(minutes=_minutes))

OLD_NAMES = {
    "EST": {timedelta(hours=10), timedelta(hours=11)},
    "CST": {timedelta(hours=9, minutes=30), timedelta(hours=10, minutes=30)},
}
"""What a JVM with zone tables older than 2014 prints for eastern and central Australia, in summer
and in winter alike."""


def read_date(text: str, zone: ZoneInfo) -> Reading:
    """Read a date as the PBX in this zone prints it.

    Raises:
        DateError: not a date, not a time that the zone's clocks show, or the name of the zone
            stands for another offset than the zone has then.
    """
    # The seconds stand at the same place in all spellings.
    seconds = _SECONDS.get(text[16:19])
    if seconds is None:
        raise DateError("is not a date")
    instant, vague, old_name = _read_minute(text[:16], text[19:], zone)
    return Reading(instant + seconds, vague, old_name)


_SECONDS = {f":{second:02}": timedelta(seconds=second) for second in range(60)}


def read_date_as_iso(text: str, zone: ZoneInfo) -> tuple[str, bool, str]:
    """Read a date as `read_date` does, its instant as ISO 8601 in UTC, which sorts as text.

    It is quick where many dates are of the same few minutes.

    Raises:
        DateError: as `read_date`.
    """
    seconds = text[16:19]
    if seconds not in _SECONDS:
        raise DateError("is not a date")
    head, tail, vague, old_name = _minute_as_iso(text[:16], text[19:], zone)
    return f"{head}{seconds}{tail}", vague, old_name


@lru_cache(maxsize=512)  # An hour has thousands of legs, but 60 minutes.
def _minute_as_iso(head: str, tail: str, zone: ZoneInfo) -> tuple[str, str, bool, str]:
    """What stands before and after the seconds, which ISO 8601 has at the same place."""
    instant, vague, old_name = read_date(f"{head}:00{tail}", zone)
    if instant.second:
        raise DateError("is of a time when the zone's offset had odd seconds")
    iso = instant.isoformat()
    return iso[:16], iso[19:], vague, old_name


def _read_minute(head: str, tail: str, zone: ZoneInfo) -> Reading:
    name, fraction = "", ""
    if match := _JAVA.fullmatch(head + tail):
        day_name, month, day, minute, name, year = match.groups()
        text = f"{year}-{_MONTHS.index(month) + 1:02}-{day} {minute}"
    elif match := _TIMESTAMP.fullmatch(head + tail):
        day_name, (text, fraction) = "", match.groups(default="")
    else:
        raise DateError("is not a date")
    try:
        wall = datetime.fromisoformat(text)
    except ValueError:
        raise DateError("is not a date") from None
    if day_name not in {"", _DAYS[wall.weekday()]}:
        raise DateError(f"is not a date: that day is a {_DAYS[wall.weekday()]}")
    instant, vague, old_name = _place(wall, name, zone)
    # It may have nine digits, a datetime has six.
    micros = int(fraction[:6].ljust(6, "0"))
    return Reading(instant + timedelta(microseconds=micros), vague, old_name)


def _place(wall: datetime, name: str, zone: ZoneInfo) -> Reading:
    if not _FIRST_YEAR <= wall.year <= _LAST_YEAR:
        raise DateError("is not a date that a call can have")
    passes = instants(wall, zone)
    if not passes:
        raise DateError(f"is a time that the clocks of {zone.key} skip: {_WRONG_ZONE}")
    named = [p for p in passes if not name or _means(name, p.astimezone(zone))]
    if named:
        return Reading(named[0], vague=len(named) > 1)
    if any(p.astimezone(zone).utcoffset() in OLD_NAMES.get(name, ()) for p in passes):
        return Reading(passes[0], vague=len(passes) > 1, old_name=name)
    if name in _OFFSETS or name in OLD_NAMES or _OFFSET.fullmatch(name):
        what = f"has the time zone name {name}"
        raise DateError(f"{what}, which is not the time of {zone.key} then: {_WRONG_ZONE}")
    # Not repeated here: it may be anything.
    raise DateError("has a time zone name that is not known")


_FIRST_YEAR = 1970
"""Java's dates begin here; earlier ones may have offsets of odd seconds."""

_LAST_YEAR = 9000
"""So that arithmetic in any zone stays within Python's range."""

_WRONG_ZONE = "set `timezone` to the zone of the PBX's own clock"


def _means(name: str, local: datetime) -> bool:
    """Whether a JVM may print this name for the zone's offset at this local time."""
    offset = local.utcoffset()
    if match := _OFFSET.fullmatch(name):
        sign, hours, minutes = match.groups()
        distance = timedelta(hours=int(hours), minutes=int(minutes))
        return offset == (-distance if sign == "-" else distance)
    return name == local.tzname() or offset in _OFFSETS.get(name, ())


def read_instant(text: str, zone: ZoneInfo) -> datetime:
    """Read an ISO 8601 date or time of a setting or a state.

    Without an offset it is the zone's, and one that its clocks show twice is the first.

    Raises:
        DateError: it is none, or out of the range of dates that calls can have.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise DateError(
            "is not a date or time such as 2021-09-14 or 2021-09-14T15:00:00Z"
        ) from None
    if not _FIRST_YEAR < instant.year < _LAST_YEAR:
        raise DateError(f"is not between {_FIRST_YEAR + 1} and {_LAST_YEAR - 1}")
    return (instant if instant.tzinfo else instant.replace(tzinfo=zone)).astimezone(UTC)
