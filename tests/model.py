"""A model of a run: plain sets of hours, from clocks looked at minute by minute."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from times import MINUTE

if TYPE_CHECKING:
    from times import Clocks

    from tap_noojee.simulator import Leg

MAX_FAILURES = 5


def content(leg: Leg) -> dict[str, Any]:
    """The fields of a record in which the legs of these tests differ."""
    return {
        "CallRecordId": leg.call_record_id,
        "Leg": leg.leg,
        "callend": leg.callend.isoformat(),
        "Start": leg.start.isoformat(),
    }


def hours_claimed(bookmark: dict[str, Any], clocks: Clocks, start: datetime) -> set[datetime]:
    """The hours that a bookmark counts as read; `start` is the first hour of interest."""
    if not (value := bookmark.get("replication_key_value")):
        return set()
    until = datetime.fromisoformat(value)
    over = {hour for hour in clocks.hours if clocks.end(hour) <= until}
    if "hours_read" not in bookmark:
        return {hour for hour in over if hour >= start}
    ranges = [
        [datetime.fromisoformat(item[name]) for name in ("from", "to")]
        for item in bookmark["hours_read"]
    ]
    return {hour for hour in over if any(first <= hour < end for first, end in ranges)}


class Step(NamedTuple):
    """An hour that was read or failed: its records, and all hours read by then."""

    records: list[dict[str, Any]]
    read: frozenset[datetime]


@dataclasses.dataclass
class RunModel:
    """What a run must request, write and count as read."""

    clocks: Clocks
    read: set[datetime]
    now: datetime
    start: datetime  # the first hour of interest
    end: datetime | None
    settle: timedelta
    lookback: int
    limit: int | None
    newest_first: bool

    def __post_init__(self) -> None:
        self.steps: list[Step] = []
        self.hours: list[datetime] = []
        self.read_before = frozenset(self.read)
        self.failed: list[datetime] = []
        self.failed_in_a_row = 0
        self.skew = timedelta()  # of the PBX's clock behind the tap's
        again = sorted(self.due(self.now) & self.read)
        self.again = set(again[len(again) - min(self.lookback, len(again)) :])

    def due(self, now: datetime) -> set[datetime]:
        """The hours within start_date and end_date that are due."""
        limit = now - self.skew - self.settle
        limit = min(limit, self.end or limit)
        found = (hour for hour in self.clocks.hours if self.clocks.end(hour) <= limit)
        return {hour for hour in found if hour >= self.start}

    def unread(self, now: datetime) -> set[datetime]:
        """The hours to read for the first time."""
        return self.due(now) - self.read - {*self.failed}

    def next_hour(self, now: datetime) -> datetime | None:
        """The hour to request next."""
        if len(self.hours) == self.limit or self.failed_in_a_row == MAX_FAILURES:
            return None
        wanted = unread = self.unread(now)
        # The last hour of a run is kept for history.
        if not unread or len(self.hours) + 1 != self.limit:
            wanted = unread | (self.again & self.due(now))
        return (max if self.newest_first else min)(wanted, default=None)

    def answer(self, hour: datetime, legs: list[Leg], now: datetime, date: datetime) -> None:
        """The PBX answers with the legs of an hour. `date` is the time by the PBX's clock."""
        if date < self.clocks.end(hour) + self.settle - MINUTE:
            self.skew = now - date
            return
        records = [content(leg) for leg in sorted(legs, key=lambda leg: leg.callend)]
        self.hours.append(hour)
        self.read.add(hour)
        self.again.discard(hour)
        self.failed_in_a_row = 0
        self.steps.append(Step(records, frozenset(self.read)))

    def fail(self, hour: datetime) -> None:
        """The response for an hour cannot be read."""
        adjacent = self.failed and abs(hour - self.failed[-1]) == timedelta(hours=1)
        self.failed_in_a_row = self.failed_in_a_row + 1 if adjacent else 1
        self.failed.append(hour)
        self.read.discard(hour)
        self.again.discard(hour)
        self.steps.append(Step([], frozenset(self.read)))

    def messages(self) -> list[Any]:
        """The records that the run must write, and as a STATE the hours that it must claim."""
        found: list[Any] = [self.read_before]
        for step in self.steps:
            found += [*step.records, step.read]
        # STATE is held back until the first record.
        first = next(
            (n for n, message in enumerate(found) if isinstance(message, dict)), len(found)
        )
        return found[first - 1 :]
