"""Wall-clock hours of the PBX: which exist, when each begins and ends, which are still unread.

The API is asked by wall-clock hour (`date=2021/09/14&hour=15`). Where clocks change, such an hour
may be missing, come twice, last 30 or 90 minutes, or come in two pieces with another hour between
them (Chatham: 02:00-03:00, 03:00-03:45, then 02:45-03:00 again).

Nothing here reads a clock. Instants are aware datetimes in UTC.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from zoneinfo import ZoneInfo

HOUR = timedelta(hours=1)
QUARTER = timedelta(minutes=15)
"""No zone has moved its clocks by less, or at another time, since 2014, but Casey in Antarctica,
which did at 00:01: there an `end_date` within a quarter of an hour of it would cut legs off."""

FOREVER = datetime.max.replace(tzinfo=UTC)
NEVER = datetime.min.replace(tzinfo=UTC)


def instants(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """The instants, none to two in order, at which clocks in the zone show this naive time."""
    passes = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(
        instant for instant in passes if instant.astimezone(zone).replace(tzinfo=None) == wall
    )


@lru_cache(maxsize=64)
def _quarters(wall: datetime, zone: ZoneInfo) -> tuple[list[datetime], ...]:
    return tuple(instants(wall + k * QUARTER, zone) for k in range(4))


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Hour:
    """An hour that clocks in the zone show, in all its passes. Ordered as the clocks show them.

    Each existing hour stands for the time from its `start` to the next hour's `start`, so that
    hours divide all time without gap or overlap even where their own passes interleave.
    """

    wall: datetime
    """The naive wall-clock time at which the hour begins, on the full hour."""
    zone: ZoneInfo = dataclasses.field(compare=False)

    @classmethod
    def showing(cls, instant: datetime, zone: ZoneInfo) -> Self:
        """The hour that clocks in the zone show at this instant."""
        wall = instant.astimezone(zone).replace(tzinfo=None)
        return cls(wall.replace(minute=0, second=0, microsecond=0, fold=0), zone)

    @classmethod
    def first_after(cls, instant: datetime, zone: ZoneInfo) -> Self:
        """The first hour with any part at or after this instant."""
        hour = cls.showing(instant, zone)
        # An hour that showed before may have its second pass still to come.
        while (earlier := hour.previous()).end > instant:
            hour = earlier
        return hour

    @classmethod
    def last_before(cls, instant: datetime, zone: ZoneInfo) -> Self:
        """The last hour that starts before this instant."""
        hour = cls.showing(instant, zone)
        while hour.next().start < instant:
            hour = hour.next()
        while hour.start >= instant:
            hour = hour.previous()
        return hour

    def __str__(self) -> str:
        """Tell the hour as users read it: `2021-09-14 15:00`."""
        return f"{self.wall:%Y-%m-%d %H:00}"

    @property
    def exists(self) -> bool:
        """Whether clocks ever show any part of it."""
        return any(_quarters(self.wall, self.zone))

    @property
    def start(self) -> datetime:
        """Its first instant."""
        return min(first for first, *_ in filter(None, _quarters(self.wall, self.zone)))

    @property
    def end(self) -> datetime:
        """The end of its last pass."""
        return max(q[-1] for q in _quarters(self.wall, self.zone) if q) + QUARTER

    @property
    def repeated(self) -> bool:
        """Whether clocks show any part of it twice."""
        return any(len(quarter) > 1 for quarter in _quarters(self.wall, self.zone))

    def next(self) -> Self:
        """The next hour that exists."""
        return self._step(HOUR)

    def previous(self) -> Self:
        """The last hour before it that exists."""
        return self._step(-HOUR)

    def _step(self, step: timedelta) -> Self:
        hour = dataclasses.replace(self, wall=self.wall + step)
        while not hour.exists:
            hour = dataclasses.replace(hour, wall=hour.wall + step)
        return hour


def last_due(now: datetime, settle: timedelta, zone: ZoneInfo) -> Hour:
    """The newest hour whose last pass has been over for the settling time."""
    hour = Hour.showing(now - settle, zone)
    while hour.end > now - settle:
        hour = hour.previous()
    return hour


Span = tuple[datetime, datetime]
"""From an instant up to, and without, another."""


def without(spans: Iterable[Span], gone: Span) -> list[Span]:
    """The spans less one stretch of time."""
    start, end = gone
    return [
        piece
        for s, e in spans
        for piece in ((s, min(e, start)), (max(s, end), e))
        if piece[0] < piece[1]
    ]


def within(spans: Iterable[Span], start: datetime, end: datetime = FOREVER) -> list[Span]:
    """The parts of the spans between two instants."""
    return [(max(s, start), min(e, end)) for s, e in spans if max(s, start) < min(e, end)]


def whole_hours(spans: Iterable[Span], zone: ZoneInfo) -> list[Span]:
    """The spans widened to the starts of hours, in order, those that meet joined."""
    joined: list[Span] = []
    for s, e in sorted(spans):
        start = s if Hour.showing(s, zone).start == s else Hour.first_after(s, zone).start
        end = e if e == FOREVER else Hour.last_before(e, zone).next().start
        while joined and start <= joined[-1][1]:
            before = joined.pop()
            start, end = min(start, before[0]), max(end, before[1])
        joined.append((start, end))
    return joined


class Backlog:
    """The time that is still to be read, by a bookmark and in one run."""

    def __init__(
        self,
        unread: Iterable[Span],
        *,
        start: datetime,
        end: datetime = FOREVER,
        lookback: int,
        zone: ZoneInfo,
    ) -> None:
        """Take what a bookmark leaves unread (nothing read yet: no spans), from `start` on.

        The last of the spans has no end; what is asked for in this run has one. `lookback` is how
        many finished hours to read again.
        """
        self._zone = zone
        first = Hour.first_after(start, zone).start
        self.unread = within(unread, first) or [(first, FOREVER)]
        """In order; what the bookmark says, so it need not begin or end on the hour."""
        again = Hour.showing(self.unread[-1][0], zone)
        for _ in range(lookback):
            if again.start <= first:
                break
            again = again.previous()
        spans = [*self.unread, (again.start, FOREVER)] if lookback else self.unread
        # Cut before it is widened: of an hour that was read up to the end, nothing is left.
        self._to_ask = within(whole_hours(within(spans, NEVER, end), zone), first)

    def to_ask(self, limit: datetime) -> list[Span]:
        """What this run has still to ask for before the limit, in order."""
        return within(self._to_ask, NEVER, limit)

    def finish(self, hour: Hour, limit: datetime) -> None:
        """Note that this hour was read, as far as it lies before the limit."""
        end = hour.next().start
        self._to_ask = without(self._to_ask, (hour.start, end))
        if hour.end > limit:
            # What is unread must not begin with the next hour, as if this one were done: its
            # second pass may lie after the next hour's start.
            end = min(end - timedelta.resolution, limit)
        self.unread = without(self.unread, (hour.start, end))


def count(spans: Iterable[Span], zone: ZoneInfo) -> int:
    """How many hours begin within spans that start on the hour and have an end."""
    return sum(
        _count(Hour.showing(s, zone).wall, Hour.last_before(e, zone).next().wall, zone)
        for s, e in spans
    )


def _count(first: datetime, stop: datetime, zone: ZoneInfo) -> int:
    """Count in days, for there are years: hours are missing only where a day changes offset."""
    midnight = first.replace(hour=0)
    missing = 0
    while midnight < stop:
        following = midnight + timedelta(days=1)
        if midnight.replace(tzinfo=zone).utcoffset() != following.replace(tzinfo=zone).utcoffset():
            walls = (midnight + k * HOUR for k in range(24))
            missing += sum(first <= w < stop and not Hour(w, zone).exists for w in walls)
        midnight = following
    return (stop - first) // HOUR - missing
