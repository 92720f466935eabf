"""A model of the tap for tests: sets of quarters of an hour, and no arithmetic of intervals.

Zones move their clocks on the quarter, and the tests choose their dates on it. So a set of
quarters says exactly what STATE claims, and a list of them which hours there are.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from zoneinfo import ZoneInfo

    from tap_noojee.simulator import Leg

QUARTER = timedelta(minutes=15)

Key = tuple[str, int]


def content(leg: Leg) -> dict[str, Any]:
    """What a record says of a leg, as far as the legs of these tests differ."""
    return {
        "CallRecordId": leg.call_record_id,
        "Leg": leg.leg,
        "callend": leg.callend.isoformat(),
        "Start": leg.start.isoformat(),
        "Tag": leg.tag,
    }


class Calendar:
    """Some days of a zone, in quarters of an hour."""

    def __init__(self, zone: ZoneInfo, first: datetime, days: int) -> None:
        """Begin at an instant on the full quarter."""
        self.zone = zone
        self.quarters = [first + k * QUARTER for k in range(days * 96)]
        self.hours: dict[datetime, list[datetime]] = {}
        for quarter in self.quarters:
            self.hours.setdefault(self.hour(quarter), []).append(quarter)

    def hour(self, instant: datetime) -> datetime:
        """The wall-clock hour that clocks show."""
        local = instant.astimezone(self.zone)
        return datetime(local.year, local.month, local.day, local.hour)  # noqa: DTZ001 - a wall clock's

    def quarter(self, instant: datetime) -> datetime:
        """The quarter of an hour that an instant is in."""
        return self.quarters[(instant - self.quarters[0]) // QUARTER]

    def over(self, hour: datetime) -> datetime:
        """When clocks have shown the last of an hour."""
        return self.hours[hour][-1] + QUARTER

    def between(self, start: datetime, end: datetime) -> set[datetime]:
        """The quarters from one instant until before another."""
        return {quarter for quarter in self.quarters if start <= quarter < end}

    def claimed(self, bookmark: dict[str, Any], since: datetime | None = None) -> set[datetime]:
        """The quarters that a bookmark claims; without `since`, from the given instant."""
        if "since" in bookmark:
            since = datetime.fromisoformat(bookmark["since"])
        assert since
        claimed = self.between(since, datetime.fromisoformat(bookmark["replication_key_value"]))
        for span in bookmark.get("owed", ()):
            start, end = (datetime.fromisoformat(span[name]) for name in ("start", "end"))
            assert {self.quarter(start), self.quarter(end)} == {start, end}
            claimed -= self.between(start, end)
        return claimed


class Step(NamedTuple):
    """An hour that was read: the records that it gives, and what STATE claims after it."""

    hour: datetime
    records: list[dict[str, Any]]
    claims: set[datetime]
    news: bool


@dataclasses.dataclass
class RunModel:
    """What a run has to request, to emit and to claim."""

    calendar: Calendar
    bookmark: dict[str, Any]
    now: datetime
    start: datetime
    end: datetime | None
    lookback: int
    limit: int | None
    newest_first: bool
    settle: timedelta
    steps: list[Step] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        """Find out what is unread, and what is to be read again."""
        calendar = self.calendar
        self.dates = calendar.between(self.start, self.end or calendar.quarters[-1])
        self.claims, again = set[datetime](), set[datetime]()
        if self.bookmark:
            until = datetime.fromisoformat(self.bookmark["replication_key_value"])
            since = datetime.fromisoformat(self.bookmark.get("since", self.start.isoformat()))
            if "since" not in self.bookmark:  # an older release's: that hour as a whole again
                until = calendar.hours[calendar.hour(until)][0]
            self.claims = calendar.claimed(
                self.bookmark | {"replication_key_value": until.isoformat()}, since
            )
            if since < self.now < until:
                # Claims of hours that are not over are void.
                until = calendar.hours[calendar.hour(self.now)][0]
                self.claims &= calendar.between(calendar.quarters[0], until)
            if self.claims:
                before = [hour for hour in calendar.hours if hour < calendar.hour(until)]
                hours = sorted(before)[len(before) - min(self.lookback, len(before)) :]
                again = {quarter for hour in hours for quarter in calendar.hours[hour]}
        self.unread = self.dates - self.claims
        self.again = again & self.dates
        self.seen: dict[Key, dict[str, Any]] = {}

    def next_hour(self, now: datetime) -> datetime | None:
        """The hour to request next."""
        # The last hour of a run is kept for what was never read.
        is_last = self.limit is not None and self.limit - len(self.steps) == 1
        wanted = self.unread if is_last else self.unread | self.again
        hours = {self.calendar.hour(quarter) for quarter in wanted}
        due = [hour for hour in hours if self.calendar.over(hour) <= now - self.settle]
        return (max if self.newest_first else min)(due, default=None)

    def read(self, hour: datetime, legs: Iterable[Leg]) -> None:
        """Take an answer with the legs of an hour."""
        quarters = set(self.calendar.hours[hour])
        wanted = quarters & (self.unread | self.again)
        records = []
        for leg in sorted(legs, key=lambda leg: leg.callend):
            key, record = (leg.call_record_id, leg.leg), content(leg)
            if self.seen.get(key) != record and self.calendar.quarter(leg.callend) in wanted:
                records.append(record)
            self.seen[key] = record
        self.claims = self.claims | (quarters & self.dates)
        self.steps.append(Step(hour, records, self.claims, bool(quarters & self.unread)))
        self.unread = self.unread - quarters
        self.again = self.again - quarters
