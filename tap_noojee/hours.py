"""Wall-clock hours of the PBX: which exist, when they show on its clock, which are due.

The API is asked by wall-clock hour (`date=2021/09/14&hour=15`). Where clocks change, such an hour
may not exist, come twice, last 30 or 90 minutes, or come in two pieces with another hour between
them (Chatham: 02:00-03:00, 03:00-03:45, then 02:45-03:00 again, then 03:00-04:00).

Nothing here reads a clock. Instants are aware datetimes in UTC.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Self, TypeAlias, cast

import pendulum

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

HOUR = timedelta(hours=1)
QUARTER = timedelta(minutes=15)
"""Since 2014 zones have moved their clocks by whole quarters, on the quarter. The exception is
Casey in Antarctica, which moved at 00:01: legs of that minute may be taken for the wrong hour."""

Span: TypeAlias = tuple[datetime, datetime]
"""The time from an instant until just before another."""


def instants(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """The instants, none to two in order, at which clocks in the zone show this naive time."""
    local = _plain(wall).replace(tzinfo=zone)
    passes = {local.replace(fold=fold).astimezone(UTC) for fold in (0, 1)}
    # A time that clocks skip comes back as another one.
    return sorted(
        instant for instant in passes if instant.astimezone(zone).replace(tzinfo=None) == wall
    )


def _plain(wall: datetime) -> datetime:
    """A wall-clock time without pendulum's arithmetic, which moves times that clocks skip."""
    return datetime.combine(wall, wall.time())


@lru_cache(maxsize=64)
def _passes(wall: datetime, zone: ZoneInfo) -> tuple[Span, ...]:
    starts = [t for k in range(4) for t in instants(wall + k * QUARTER, zone)]
    passes: list[Span] = []
    for quarter in sorted(starts):
        follows = passes and passes[-1][1] == quarter
        start = passes.pop()[0] if follows else quarter
        passes.append((start, quarter + QUARTER))
    return tuple(passes)


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Hour:
    """An hour that clocks in the zone show, in all its passes. Ordered as clocks show them."""

    wall: datetime
    """The naive wall-clock time at which the hour begins, on the full hour."""
    zone: ZoneInfo = dataclasses.field(compare=False)

    @classmethod
    def containing(cls, instant: datetime, zone: ZoneInfo) -> Self:
        """The hour that clocks in the zone show at this instant."""
        # Naive first: pendulum's `start_of` on an aware time of Chatham is an hour off.
        wall = instant.astimezone(zone).replace(tzinfo=None, fold=0)
        return cls(pendulum.instance(wall, tz=None).start_of("hour"), zone)

    @classmethod
    def first_after(cls, instant: datetime, zone: ZoneInfo) -> Self:
        """The first hour with any part at or after this instant."""
        hour = cls.containing(instant, zone)
        # An hour that showed before may have its second pass still to come.
        while (earlier := hour.previous()).end > instant:
            hour = earlier
        return hour

    @classmethod
    def last_before(cls, instant: datetime, zone: ZoneInfo) -> Self:
        """The last hour with any part before this instant."""
        hour = cls.containing(instant - timedelta.resolution, zone)
        # A later hour may have shown before the second pass of this one.
        while (later := hour.next()).start < instant:
            hour = later
        return hour

    @classmethod
    def last_due(cls, now: datetime, settle: timedelta, zone: ZoneInfo) -> Self:
        """The newest hour whose last pass has been over for the settling time."""
        hour = cls.containing(now - settle, zone)
        while hour.end > now - settle:
            hour = hour.previous()
        return hour

    def __str__(self) -> str:
        """Name the hour as users read it: `2021-09-14 15:00`."""
        return f"{self.wall:%Y-%m-%d %H:00}"

    @property
    def passes(self) -> tuple[Span, ...]:
        """When clocks show it, in order: twice for some hours, never for one that they skip."""
        return _passes(self.wall, self.zone)

    @property
    def exists(self) -> bool:
        """Whether clocks ever show any part of it."""
        return bool(self.passes)

    @property
    def start(self) -> datetime:
        """Its first instant."""
        return self.passes[0][0]

    @property
    def end(self) -> datetime:
        """The end of its last pass."""
        return self.passes[-1][1]

    @property
    def repeated(self) -> bool:
        """Whether clocks show any part of it twice."""
        return sum((end - start for start, end in self.passes), timedelta()) > HOUR

    def next(self) -> Self:
        """The next hour that exists."""
        return self._step(1)

    def previous(self) -> Self:
        """The last hour before it that exists."""
        return self._step(-1)

    def _step(self, hours: int) -> Self:
        wall = pendulum.instance(self.wall, tz=None).add(hours=hours)
        while not _passes(wall, self.zone):
            wall = wall.add(hours=hours)
        return dataclasses.replace(self, wall=wall)


def when_equal(span: Span, zone: ZoneInfo, other: ZoneInfo) -> Iterator[Span]:
    """The parts of a span in which clocks of both zones show the same, a quarter at the most."""
    start, end = span
    while start < end:
        quarter = start.replace(minute=start.minute // 15 * 15, second=0, microsecond=0)
        stop = min(quarter + QUARTER, end)
        if start.astimezone(zone).utcoffset() == start.astimezone(other).utcoffset():
            yield start, stop
        start = stop


def count_between(first: Hour, last: Hour) -> int:
    """How many hours exist from one to another, both included."""
    start, stop = _plain(first.wall), _plain(last.wall) + HOUR
    midnight = start.replace(hour=0)
    skipped = 0
    # By days, since there may be years: hours are skipped only where a day's offset changes.
    while midnight < stop:
        following = midnight + timedelta(days=1)
        if _offset(midnight, first.zone) != _offset(following, first.zone):
            walls = (midnight + k * HOUR for k in range(24))
            skipped += sum(start <= w < stop and not Hour(w, first.zone).exists for w in walls)
        midnight = following
    return (stop - start) // HOUR - skipped


def _offset(wall: datetime, zone: ZoneInfo) -> timedelta:
    return cast("timedelta", wall.replace(tzinfo=zone).utcoffset())
