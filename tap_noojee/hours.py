"""The PBX's wall-clock hours: when each ends, and which are due.

The API identifies an hour by the PBX's wall clock (`date=2021/09/14&hour=15`), so an hour is a
naive datetime on the full hour. When clocks change, an hour may be skipped or repeated, may last
30 or 90 minutes (Lord Howe), or may come in two pieces with another hour between them (Chatham).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

QUARTER = timedelta(minutes=15)
"""The step in which we look for clock changes. Since 2014, every change has been by a multiple of
15 minutes and on a quarter-hour, except in Casey, Antarctica, at 00:01."""


def format_hour(hour: datetime) -> str:
    """Format an hour for the log: `2021-09-14 15:00`."""
    return f"{hour:%Y-%m-%d %H:%M}"


def resolve(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """Return the UTC instants of this wall time: none if clocks skip it, two if they repeat it."""
    found = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    # A skipped time does not survive the round trip.
    return sorted(t for t in found if _wall_time(t, zone) == wall)


def hour_at(instant: datetime, zone: ZoneInfo) -> datetime:
    """Return the wall-clock hour of this instant."""
    return _wall_time(instant, zone).replace(minute=0, second=0, microsecond=0)


@lru_cache(maxsize=256)
def end_of(hour: datetime, zone: ZoneInfo) -> datetime | None:
    """Return when the hour is over for good, in UTC, or None if clocks skip it."""
    quarters = (hour + k * QUARTER for k in range(4))
    return max((t + QUARTER for q in quarters for t in resolve(q, zone)), default=None)


def last_due(now: datetime, settle: timedelta, zone: ZoneInfo) -> datetime:
    """Return the newest hour that has been over for at least `settle`."""
    hour = hour_at(now - settle, zone)
    while (end := end_of(hour, zone)) is None or end > now - settle:
        hour -= HOUR
    return hour


def next_hour(hour: datetime, zone: ZoneInfo) -> datetime:
    """Return the next hour that clocks do not skip."""
    hour += HOUR
    while end_of(hour, zone) is None:
        hour += HOUR
    return hour


def is_repeated(hour: datetime, zone: ZoneInfo) -> bool:
    """Whether any part of the hour occurs twice."""
    return any(len(resolve(hour + k * QUARTER, zone)) > 1 for k in range(4))


def skipped_hours(first: datetime, last: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Yield the hours from `first` to `last` inclusive that clocks skip."""
    for year in range(first.year, last.year + 1):
        for hour in _skipped_in(year, zone):
            if first <= hour <= last:
                yield hour


@lru_cache(maxsize=256)
def _skipped_in(year: int, zone: ZoneInfo) -> tuple[datetime, ...]:
    days = [datetime(year, 1, 1) + k * DAY for k in range(366)]  # noqa: DTZ001 - wall-clock times
    # Clocks skip hours only on days whose offset changes.
    changed = [day for day in days if _offset(day, zone) != _offset(day + DAY, zone)]
    hours = (day + k * HOUR for day in changed for k in range(24))
    return tuple(hour for hour in hours if hour.year == year and end_of(hour, zone) is None)


def _offset(wall: datetime, zone: ZoneInfo) -> timedelta | None:
    return wall.replace(tzinfo=zone).utcoffset()


def _wall_time(instant: datetime, zone: ZoneInfo) -> datetime:
    local = instant.astimezone(zone)
    # Return a plain datetime, because pendulum's arithmetic moves skipped times.
    return datetime.combine(local.date(), local.time().replace(fold=0))
