"""Conversions of times, evenly spaced legs, and wall clocks sampled minute by minute."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from tap_noojee.simulator import Leg

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

CHANGES = [
    # Clocks go back, and repeat part of an hour, an hour, or two hours.
    ("Australia/Melbourne", "2021-04-03T16:00Z"),
    ("Australia/Lord_Howe", "2021-04-03T15:00Z"),  # by half an hour
    ("Pacific/Chatham", "2021-04-03T14:00Z"),  # at 3:45, so two hours interleave
    ("America/Santiago", "2021-04-04T03:00Z"),  # at midnight
    ("America/Havana", "2021-11-07T05:00Z"),  # the first hour of a day
    ("Antarctica/Troll", "2021-10-31T01:00Z"),  # by two hours
    ("America/Caracas", "2007-12-09T07:00Z"),  # by half an hour, permanently
    # Clocks go forward, and skip part of an hour, an hour, or more.
    ("Australia/Adelaide", "2021-10-02T16:30Z"),
    ("Australia/Lord_Howe", "2021-10-02T15:30Z"),
    ("Pacific/Chatham", "2021-09-25T14:00Z"),
    ("America/Santiago", "2021-09-05T04:00Z"),
    ("Africa/Cairo", "2023-04-27T22:00Z"),
    ("Antarctica/Troll", "2021-03-28T01:00Z"),
    ("Asia/Pyongyang", "2018-05-04T15:00Z"),  # 23:30 to midnight
    ("Pacific/Apia", "2011-12-30T10:00Z"),  # a whole day
    # Clocks never change.
    ("Australia/Brisbane", "2022-01-01T00:00Z"),
]
"""A zone and an instant for each kind of clock change."""


def at(text: str) -> datetime:
    """Parse a time with an offset, and return it in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def local(text: str, zone: str) -> datetime:
    """Parse a wall-clock time of the zone, and return it in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def wall_time(instant: datetime, zone: ZoneInfo) -> datetime:
    """Return the naive wall-clock time of an instant in the zone."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def legs_every(step: timedelta, start: datetime, end: datetime) -> list[Leg]:
    """Return 40-second legs that end one step apart, from `start` until just before `end`."""
    ends = [start + k * step for k in range((end - start) // step)]
    return [Leg(end - timedelta(seconds=40), end, str(k)) for k, end in enumerate(ends)]


class Clocks:
    """The clocks of a zone, sampled each minute from `first` until just before `last`."""

    def __init__(self, zone: ZoneInfo, first: datetime, last: datetime) -> None:
        self.zone = zone
        self.instants = [first + k * MINUTE for k in range((last - first) // MINUTE)]
        # Map each wall-clock minute and hour to its instants.
        self.by_minute: dict[datetime, list[datetime]] = {}
        self.by_hour: dict[datetime, list[datetime]] = {}
        for instant in self.instants:
            minute = wall_time(instant, zone)
            self.by_minute.setdefault(minute, []).append(instant)
            self.by_hour.setdefault(minute.replace(minute=0), []).append(instant)
        self.by_hour = dict(sorted(self.by_hour.items()))

    def __repr__(self) -> str:
        return f"{self.zone.key} from {self.instants[0]:%Y-%m-%d %H:%M}Z"

    def end(self, hour: datetime) -> datetime:
        """Return the instant at which the hour is over for good."""
        return self.by_hour[hour][-1] + MINUTE

    def is_repeated(self, hour: datetime) -> bool:
        """Whether any minute of the hour occurs twice."""
        return any(len(self.by_minute.get(hour + k * MINUTE, ())) > 1 for k in range(60))

    def all_hours(self) -> list[datetime]:
        """Return the hours from the first whole one to the last, including skipped ones."""
        first, *_, last = self.whole_hours()
        return [first + k * HOUR for k in range((last - first) // HOUR + 1)]

    def whole_hours(self) -> list[datetime]:
        """Return the existing hours that lie entirely within the sampled time, in order."""
        found = list(self.by_hour)
        first = wall_time(self.instants[0], self.zone).replace(minute=0)
        return found[found.index(first) + 1 : -1]


@lru_cache(maxsize=64)
def clocks_around(key: str, change: str) -> Clocks:
    """Return the clocks from ten hours before a change until ten hours after it."""
    return Clocks(ZoneInfo(key), at(change) - 10 * HOUR, at(change) + 10 * HOUR)
