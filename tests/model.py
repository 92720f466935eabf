"""A model of a run, built only from sets of hours and sampled clocks."""

import dataclasses
import math
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from times import MINUTE, Clocks

from tap_noojee.simulator import Leg

MAX_FAILURE_STREAK = 5


def key_and_times(leg: Leg) -> dict[str, Any]:
    """Return the key and the times of a leg, as the tap should write them."""
    return {
        "CallRecordId": leg.call_record_id,
        "Leg": leg.leg,
        "callend": leg.callend.isoformat(),
        "Start": leg.start.isoformat(),
    }


def bookmark_hours(bookmark: dict[str, Any], clocks: Clocks, start: datetime) -> set[datetime]:
    """Return the hours that a bookmark marks as read. Without ranges, they begin at `start`."""
    if not (value := bookmark.get("replication_key_value")):
        return set()
    until = datetime.fromisoformat(value)
    ended = {hour for hour in clocks.by_hour if clocks.end(hour) <= until}
    if "hours_read" not in bookmark:
        return {hour for hour in ended if hour >= start}
    ranges = [
        [datetime.fromisoformat(item[name]) for name in ("from", "to")]
        for item in bookmark["hours_read"]
    ]
    return {hour for hour in ended if any(first <= hour < end for first, end in ranges)}


def has_failure_streak(read: set[Any], failed: set[Any]) -> bool:
    """Whether five failed hours have no read hour between them."""
    marks = "".join("x" if hour in failed else "." for hour in sorted(read | failed))
    return "x" * MAX_FAILURE_STREAK in marks


class Step(NamedTuple):
    """The records of an hour that was read, and all hours read so far."""

    records: list[dict[str, Any]]
    read: frozenset[datetime]


@dataclasses.dataclass
class RunModel:
    """The hours that a run must request, and the messages that it must write."""

    clocks: Clocks
    read: set[datetime]
    now: datetime
    start: datetime  # the hour of start_date
    end: datetime | None
    settle: timedelta
    lookback: int
    limit: int | None
    newest_first: bool

    def __post_init__(self) -> None:
        self.steps: list[Step] = []
        self.read_in_run: list[datetime] = []
        self.read_before = frozenset(self.read)
        self.failed: set[datetime] = set()
        self.skew = timedelta()  # how far the PBX's clock is behind the tap's
        done = sorted(self.due(self.now) & self.read)
        self.reread = set(done[max(0, len(done) - self.lookback) :])

    def due(self, now: datetime) -> set[datetime]:
        """Return the hours between start_date and end_date that are due."""
        until = now - self.skew - self.settle
        until = min(until, self.end or until)
        ended = (hour for hour in self.clocks.by_hour if self.clocks.end(hour) <= until)
        return {hour for hour in ended if hour >= self.start}

    def unread(self, now: datetime) -> set[datetime]:
        """Return the hours to read for the first time."""
        return self.due(now) - self.read - self.failed

    def next_hour(self, now: datetime) -> datetime | None:
        done = len(self.read_in_run) + len(self.failed)
        left = math.inf if self.limit is None else self.limit - done
        if not self.read_in_run:  # failed hours alone never use up the limit
            left = max(left, 1)
        if left <= 0 or has_failure_streak(self.read, self.failed):
            return None
        wanted = self.unread(now)
        if left > 1 or not wanted:  # a limited run saves its last request for an unread hour
            wanted |= self.reread & self.due(now)
        return (max if self.newest_first else min)(wanted, default=None)

    def handle_success(
        self, hour: datetime, legs: list[Leg], now: datetime, pbx_time: datetime
    ) -> None:
        """Mark an hour as read or, if it was not due by the PBX's clock, go by that clock."""
        if pbx_time < self.clocks.end(hour) + self.settle - MINUTE:  # the tap's tolerance
            self.skew = now - pbx_time
            return
        records = [key_and_times(leg) for leg in sorted(legs, key=lambda leg: leg.callend)]
        self.read_in_run.append(hour)
        self.read.add(hour)
        self.reread.discard(hour)
        self.steps.append(Step(records, frozenset(self.read)))

    def fail(self, hour: datetime) -> None:
        self.failed.add(hour)
        self.reread.discard(hour)

    def messages(self) -> list[Any]:
        """Return each expected record as a dict, and each expected STATE as a set of hours."""
        found: list[Any] = [self.read_before]
        for step in self.steps:
            found += [*step.records, step.read]
        # The tap holds STATE back until the first record, and then writes only the latest one.
        first = next(
            (n for n, message in enumerate(found) if isinstance(message, dict)), len(found)
        )
        return found[first - 1 :]
