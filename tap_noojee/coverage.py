"""What has been read and what is still owed: STATE to intervals and back; a run's backlog.

STATE claims that every leg that ended in the time it covers has been emitted. So an hour covers
just the instants at which clocks show it (both passes of a repeated hour), and no more.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from zoneinfo import ZoneInfo

from tap_noojee.dates import parse_instant
from tap_noojee.errors import DateError, StateError
from tap_noojee.hours import Hour, Span, count_between, when_equal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BEGINNING = datetime.min.replace(tzinfo=UTC)
_MAX_YEARS_AHEAD = 10

FOREVER = datetime.max.replace(tzinfo=UTC)


def merge(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, those that meet or overlap joined, empty ones left out."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def clip(spans: Iterable[Span], start: datetime, end: datetime = FOREVER) -> list[Span]:
    """The parts of the spans between two instants."""
    return [(max(s, start), min(e, end)) for s, e in spans if max(s, start) < min(e, end)]


def subtract(spans: Iterable[Span], gone: Iterable[Span]) -> list[Span]:
    """The parts of the spans that lie in none of the others."""
    left = list(spans)
    for start, end in gone:
        left = [
            piece
            for s, e in left
            for piece in ((s, min(e, start)), (max(s, end), e))
            if piece[0] < piece[1]
        ]
    return left


def count_hours(spans: Iterable[Span], zone: ZoneInfo, last: Hour | None = None) -> int:
    """How many hours have any part in spans that have an end, up to the last one given."""
    total, counted = 0, None
    for start, end in spans:
        first, final = Hour.first_after(start, zone), Hour.last_before(end, zone)
        # Where passes interleave, an hour's end may lie after the span, its start before it.
        while not clip(first.passes, start, end):
            first = first.next()
        while not clip(final.passes, start, end):
            final = final.previous()
        first = max(first, counted.next()) if counted else first
        final = min(final, last) if last else final
        if first <= final:
            total += count_between(first, final)
            counted = final
    return total


@dataclasses.dataclass(frozen=True, slots=True)
class Coverage:
    """What STATE claims: each leg that ended in the spans of `read` has been emitted."""

    since: datetime
    until: datetime
    read: list[Span]
    """In order, within `since` and `until`."""

    @classmethod
    def parse_bookmark(cls, bookmark: Mapping[str, Any], start: datetime, zone: ZoneInfo) -> Self:
        """Read a stream's bookmark.

        Args:
            bookmark: The stream's part of a STATE.
            start: The run's `start_date`: all that a bookmark without a value, or one of
                release 0.1, says of where it begins.
            zone: The zone of the PBX's clock.

        Raises:
            StateError: it cannot be read.
        """
        try:
            if not bookmark.get("replication_key_value"):
                return cls(start, start, [])
            until = _instant(bookmark["replication_key_value"])
            owed = [_interval(owed["start"], owed["end"]) for owed in bookmark.get("owed") or []]
            if bookmark.get("since"):
                since = _instant(bookmark["since"])
            else:
                # Not written by this release, so not exact: the run resumes with the whole hour.
                until = Hour.containing(until, zone).start
                since = min(start, until)
        except (DateError, AttributeError, TypeError, KeyError) as error:
            reason = f"state: the bookmark of recordings cannot be read: {error}"
        else:
            read = merge([(since, until)])  # nothing, where `since` is later
            return cls(since, until, subtract(read, merge(owed)))
        raise StateError(reason)

    def make_bookmark(self, replication_key: str, timezone: str) -> dict[str, Any]:
        """The bookmark that claims this: the opposite of `parse_bookmark`.

        It names the time zone by whose clock the hours were requested. `owed` is there even if it
        is empty: where Meltano merges two states, it would else keep the older one's.
        """
        owed = subtract(merge([(self.since, self.until)]), self.read)
        return {
            "replication_key": replication_key,
            "replication_key_value": self.until.isoformat(),
            "since": self.since.isoformat(),
            "owed": [{"start": s.isoformat(), "end": e.isoformat()} for s, e in owed],
            "timezone": timezone,
        }

    def with_read(self, start: datetime, spans: Iterable[Span]) -> Self:
        """This, after a run from `start` has read some more."""
        read = merge([*self.read, *spans])
        until = max(self.until, read[-1][1]) if read else self.until
        return dataclasses.replace(self, since=min(self.since, start), until=until, read=read)

    def moved(self, before: ZoneInfo, zone: ZoneInfo) -> Self:
        """This, as far as what was requested by one zone's clock was right by another's.

        Where the clocks differ, other hours were requested, and perhaps before they began.
        """
        spans = [span for one in self.read for span in when_equal(one, before, zone)]
        return dataclasses.replace(self, read=merge(spans))

    def clipped(self, now: datetime, zone: ZoneInfo) -> Self:
        """This, without claims of hours that are not over.

        Such a claim was made under a clock that was ahead; what it claims was never read.

        Raises:
            StateError: it is so late that no clock can have been that far ahead.
        """
        if self.until.year > now.year + _MAX_YEARS_AHEAD:
            until = self.until.isoformat()
            raise StateError(f"state: the bookmark {until} is years later than now")
        # Where it is the present clock that is wrong, long ago, nothing is due and nothing lost.
        if self.until <= now or now <= self.since:
            return self
        limit = Hour.containing(now, zone).start
        return dataclasses.replace(self, until=limit, read=clip(self.read, BEGINNING, limit))


def _interval(start: str, end: str) -> Span:
    interval = _instant(start), _instant(end)
    if interval[0] > interval[1]:
        raise DateError("an interval of `owed` ends before it starts")
    return interval


def _instant(text: str) -> datetime:
    return parse_instant(text, ZoneInfo("UTC"))


class Backlog:
    """The hours that a run still has to request, and what it has covered so far."""

    def __init__(
        self,
        coverage: Coverage,
        *,
        start: datetime,
        end: datetime,
        lookback: int,
        zone: ZoneInfo,
    ) -> None:
        """Take what earlier runs have covered, and what is to be covered in the end.

        Args:
            coverage: What STATE claims.
            start: Earliest end of a leg.
            end: Latest end of a leg, exclusive.
            lookback: How many hours before the bookmark to read again.
            zone: The zone of the PBX's clock.
        """
        self.coverage = coverage
        self._start, self._end, self._zone = start, end, zone
        self._again: list[Span] = []
        hour = Hour.containing(coverage.until, zone)
        for _ in range(lookback):
            hour = hour.previous()
            if hour.end <= start:  # not its start: its second pass may come after
                break
            self._again += clip(hour.passes, start, end)

    @property
    def unread(self) -> list[Span]:
        """What has never been read, in order."""
        return subtract([(self._start, self._end)], self.coverage.read)

    @property
    def wanted(self) -> list[Span]:
        """What this run has still to read, in order: what is unread, and what is read again."""
        return merge(self.unread + self._again)

    @property
    def left_out(self) -> list[Span]:
        """What an earlier run owed, but lies outside this run's dates."""
        claimed = (min(self.coverage.since, self._start), max(self.coverage.until, self._start))
        owed = subtract([claimed], self.coverage.read)
        return subtract(owed, [(self._start, self._end)])

    def next_hour(
        self, last_due: Hour, *, newest_first: bool, prefer_unread: bool = False
    ) -> Hour | None:
        """The hour to request next, of those up to the last that is due; None if there is none."""
        spans = clip(self.unread, BEGINNING, last_due.end) if prefer_unread else []
        spans = spans or clip(self.wanted, BEGINNING, last_due.end)
        if not spans:
            return None
        # Where passes interleave, the hour that shows at either end of the time that is wanted
        # need not be the first or the last with a part in it.
        if newest_first:
            hour = min(Hour.last_before(spans[-1][1], self._zone), last_due)
            while not _meets(hour, spans):
                hour = hour.previous()
                if hour.end <= spans[0][0]:
                    return None
            return hour
        hour = Hour.first_after(spans[0][0], self._zone)
        while not _meets(hour, spans):
            hour = hour.next()
        return hour if hour <= last_due else None

    def count(self, last_due: Hour) -> int:
        """How many hours this run has still to request, of those up to the last that is due."""
        spans = clip(self.wanted, BEGINNING, last_due.end)
        return count_hours(spans, self._zone, last_due)

    def excluded(self, hour: Hour) -> list[Span]:
        """The parts of an hour whose legs are not to be emitted: read before, or out of range."""
        return subtract(hour.passes, self.wanted)

    def finish(self, hour: Hour) -> None:
        """Note that this hour has been read, as far as it lies within the run's dates."""
        spans = clip(hour.passes, self._start, self._end)
        self._again = subtract(self._again, spans)
        self.coverage = self.coverage.with_read(self._start, spans)


def _meets(hour: Hour, spans: list[Span]) -> bool:
    return any(clip(spans, *one) for one in hour.passes)
