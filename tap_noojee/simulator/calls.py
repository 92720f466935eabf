"""Invented calls, in the format of the API."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Literal, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

T = TypeVar("T")
DateFormat = Literal["java", "gmt", "timestamp", "old"]

MELBOURNE = "Australia/Melbourne"
HOUR = timedelta(hours=1)

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Standard and summer names of JDK 11 to 21, for zones with numeric names in the tz database.
_JAVA_NAMES = {
    "Australia/Eucla": ("ACWST", "ACWDT"), "Australia/Lord_Howe": ("LHST", "LHDT"),
    "Asia/Singapore": ("SGT", "SGT"), "Pacific/Chatham": ("CHAST", "CHADT"),
    "Pacific/Norfolk": ("NFT", "NFST"),
}  # fmt: skip
_OLD_NAMES = {10.0: "EST", 9.5: "CST", 8.0: "WST"}


def _zone_name(local: datetime, zone: ZoneInfo, dates: DateFormat) -> str:
    summer = local.dst() or timedelta()
    standard = ((local.utcoffset() or timedelta()) - summer) / HOUR
    if dates == "old" and (zone.key or "").startswith("Australia/") and standard in _OLD_NAMES:
        return _OLD_NAMES[standard]
    name = local.tzname() or ""
    if dates != "gmt" and name[:1] not in {"", "+", "-"}:
        return name
    if dates != "gmt" and zone.key in _JAVA_NAMES:
        return _JAVA_NAMES[zone.key][bool(summer)]
    return f"GMT{local.isoformat()[-6:]}"


def _print_date(moment: datetime, zone: ZoneInfo, dates: DateFormat) -> str:
    local = moment.astimezone(zone)
    if dates == "timestamp":
        return f"{local:%Y-%m-%d %H:%M:%S}.0"
    # %a and %b depend on the locale. Java's names do not.
    day = f"{_WEEKDAYS[local.weekday()]} {_MONTHS[local.month - 1]} {local:%d %H:%M:%S}"
    return f"{day} {_zone_name(local, zone, dates)} {local.year}"


@dataclass(frozen=True, slots=True)
class Leg:
    """One leg of a call, with its times in UTC."""

    start: datetime
    callend: datetime
    call_record_id: str
    leg: int = 1
    unique_id: str = ""
    direction: str = "Inbound"
    source: str = "500"
    destination: str = "123"
    did: str = "7601"
    username: str = "NoojeeAdmin"
    tag: str = ""

    def record(self, zone: ZoneInfo, dates: DateFormat = "java") -> dict[str, str]:
        """Return the leg in the API's form, for a PBX whose clock is in `zone`."""
        return {
            "callend": _print_date(self.callend, zone, dates),
            "CallRecordId": self.call_record_id,
            "DID": self.did,
            "Destination": self.destination,
            "Direction": self.direction,
            "Duration": str((self.callend - self.start) // timedelta(seconds=1)),
            "Leg": str(self.leg),
            "Source": self.source,
            "Start": _print_date(self.start, zone, dates),
            "Tag": self.tag,
            "UniqueId": self.unique_id,
            "Username": self.username,
        }


LegSource: TypeAlias = Callable[[datetime, datetime], Iterable[Leg]]

_SAMPLE_HOUR = datetime(2021, 9, 14, 5, tzinfo=UTC)  # 15:00 to 16:00 in Melbourne
# The legs of the vendor's documented example.
SAMPLE = tuple(
    Leg(_SAMPLE_HOUR + start, _SAMPLE_HOUR + start + timedelta(seconds=seconds), record, 1, unique)
    for record, unique, start, seconds in (
        ("6468", "1631595787.5", timedelta(minutes=3, seconds=30), 4),
        ("6469", "1631595818.8", timedelta(minutes=3, seconds=47), 4),
        ("6470", "1631595839.11", timedelta(minutes=4, seconds=7), 15),
        ("6471", "1631596145.14", timedelta(minutes=9, seconds=16), 68),
    )
)

_STAFF = (
    ("201", "Priya Raman"), ("202", "Zoë Nguyễn"), ("203", "Seán O’Brien"),  # noqa: RUF001
    ("204", "Jack Mitchell"), ("205", "Mere Tūhoe"), ("206", "Åsa Lindqvist"),
    ("207", "李小龍"), ("208", "Grace Papadopoulos"),
)  # fmt: skip
_TAGS = ("complaint", "sales", "Rückruf", "call back, see #4711", *("",) * 36)
_DIRECTIONS = (*("Inbound",) * 6, *("Outbound",) * 3, "Internal")
_DIDS = ("7601", "7602", "0355501000", "1300555010")
_QUEUES = ("8001", "8002")
_PREFIXES = ("0355501", "0255502", "0755503", "0491570")
# Calls created in each local hour. Clocks change on Sundays, so Sunday nights have calls.
_WEEKDAY = (*(0.05,) * 6, 0.5, 3, 9, 19, 21, 18, 9, 12, 17, 15, 12, 6, 2, 1, *(0.2,) * 4)
_SATURDAY = (*(0.02,) * 9, *(3,) * 4, *(0.02,) * 11)
_RATES = (*(_WEEKDAY,) * 5, _SATURDAY, (2,) * 24)
_LONGEST_CALL = 2  # hours; every call below is shorter


@lru_cache(maxsize=10_000)
def _calls_created_in(hour: int, zone: ZoneInfo, volume: float) -> tuple[Leg, ...]:
    """Invent the legs of the calls created in one hour. `hour` counts hours since 1970 in UTC."""
    # Each hour has its own seed. Only `random()` returns the same numbers in every version.
    draw = Random(f"noojee {hour}").random  # noqa: S311 - invented calls, not secrets
    local = datetime.fromtimestamp(hour * 3600, zone)
    rate = _RATES[local.weekday()][local.hour] * volume
    count = int(rate * (0.8 + 0.4 * draw()) + draw())
    moments = sorted(hour * 3600 + int(draw() * 3600) for _ in range(count))
    return tuple(
        leg
        for number, moment in enumerate(moments, 1)
        for leg in _call(draw, moment, str(hour * 100_000 + number), f"{moment}.{number}")
    )


def _call(draw: Callable[[], float], moment: int, record_id: str, unique_id: str) -> Iterator[Leg]:
    def pick(choices: Sequence[T]) -> T:
        return choices[int(draw() * len(choices))]

    def talk(longest: int) -> int:
        return int(longest * draw() ** 2)  # most are short

    number = f"{pick(_PREFIXES)}{pick(range(1000)):03}"
    extension, username = pick(_STAFF)
    tag = pick(_TAGS)
    direction = pick(_DIRECTIONS)
    # Each leg's destination, user name, tag and seconds.
    parts = [(number, username, tag, talk(1200))]
    source, did = extension, ""
    if direction == "Internal":
        parts = [(pick(_STAFF)[0], username, tag, talk(600))]
        did = "internal"
    elif direction == "Inbound":
        parts = [(pick(_QUEUES), "", "", talk(240))]
        if pick(range(8)):  # the rest hang up in the queue
            parts.append((extension, username, tag, 5 + talk(1500)))
            transfers = pick((0, 0, 0, 1, 2, 3))
            parts += [(*pick(_STAFF), "", 5 + talk(900)) for _ in range(transfers)]
        source, did = number, pick(_DIDS)

    end = datetime.fromtimestamp(moment + pick(range(25)), UTC)
    for leg, (destination, name, leg_tag, seconds) in enumerate(parts, 1):
        start, end = end, end + timedelta(seconds=seconds)
        ids = (record_id, leg, unique_id)
        yield Leg(start, end, *ids, direction, source, destination, did, name, leg_tag)


def invent_legs(
    start: datetime, end: datetime, *, zone: ZoneInfo, volume: float = 1.0
) -> list[Leg]:
    """Return invented legs that end in [`start`, `end`), sorted by end."""
    first = int(start.timestamp() // 3600) - _LONGEST_CALL
    hours = range(first, math.ceil(end.timestamp() / 3600))
    found = [leg for hour in hours for leg in _calls_created_in(hour, zone, volume)]
    if zone.key == MELBOURNE and volume:
        found = [leg for leg in found if not _SAMPLE_HOUR <= leg.callend < _SAMPLE_HOUR + HOUR]
        found += SAMPLE
    return sorted(
        (leg for leg in found if start <= leg.callend < end), key=lambda leg: leg.callend
    )
