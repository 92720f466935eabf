"""Bookmarks: the hours already read, and the hours that a run requests."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self, TypeAlias
from zoneinfo import ZoneInfo

from tap_noojee.dates import parse_instant
from tap_noojee.errors import DateError, StateError
from tap_noojee.hours import HOUR, end_of, last_due, next_hour, skipped_hours

Range: TypeAlias = tuple[datetime, datetime]
"""A range of hours, end exclusive. Both times are naive and on the full hour."""

MAX_FAILURE_STREAK = 5
"""End the run after this many failed hours without a read hour between them: more would probably
fail."""

MAX_AHEAD = timedelta(hours=1)
"""How far a state may be ahead of this machine's clock."""

_KEYS = {"replication_key", "replication_key_value", "hours_read", "pbx", "timezone"}
_SDK_KEYS = {"starting_replication_value", "replication_key_signpost", "progress_markers"}


@dataclasses.dataclass(frozen=True, slots=True)
class HourSet:
    """A set of hours, kept as sorted ranges that neither touch nor overlap."""

    ranges: tuple[Range, ...] = ()

    @classmethod
    def merge(cls, ranges: Iterable[Range]) -> Self:
        """Build the set from any ranges: unsorted, empty, inverted, touching or overlapping."""
        merged: list[Range] = []
        for start, end in sorted(ranges):
            if start >= end:
                continue
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, end))
        return cls(tuple(merged))

    @classmethod
    def single(cls, hour: datetime) -> Self:
        return cls(((hour, hour + HOUR),))

    def __iter__(self) -> Iterator[datetime]:
        for start, end in self.ranges:
            yield from (start + k * HOUR for k in range((end - start) // HOUR))

    def __len__(self) -> int:
        return sum((end - start) // HOUR for start, end in self.ranges)

    def __or__(self, other: Self) -> Self:
        return self.merge((*self.ranges, *other.ranges))

    def __sub__(self, other: Self) -> Self:
        kept: list[Range] = []
        cuts = iter((*other.ranges, (datetime.max, datetime.max)))  # noqa: DTZ901 - naive
        cut_start, cut_end = next(cuts)
        for start, end in self.ranges:
            rest_start = start
            # Both sides are sorted, so one pass is enough, however many gaps there are.
            while cut_start < end:
                kept.append((rest_start, cut_start))
                rest_start = max(rest_start, cut_end)
                if cut_end > end:  # it may also cut the next range
                    break
                cut_start, cut_end = next(cuts)
            kept.append((rest_start, end))
        # Drop the empty and inverted ranges.
        return self.merge(kept)

    def __and__(self, other: Self) -> Self:
        return self - (self - other)

    @property
    def first(self) -> datetime:
        return self.ranges[0][0]

    @property
    def last(self) -> datetime:
        return self.ranges[-1][1] - HOUR

    def newest(self, count: int) -> Self:
        """Return the latest `count` hours, or all if there are fewer."""
        picked: list[Range] = []
        for start, end in reversed(self.ranges):
            picked.append((max(start, end - count * HOUR), end))
            count -= (end - picked[-1][0]) // HOUR
        return self.merge(picked)


def hours_between(first: datetime, last: datetime, zone: ZoneInfo) -> HourSet:
    """Return the hours from `first` to `last` inclusive, except skipped ones."""
    skipped = ((hour, hour + HOUR) for hour in skipped_hours(first, last, zone))
    return HourSet.merge([(first, last + HOUR)]) - HourSet.merge(skipped)


class Pbx(NamedTuple):
    """The PBX that a state belongs to."""

    host: str
    zone: ZoneInfo


def load_bookmark(
    bookmark: Mapping[str, Any], pbx: Pbx, start: datetime, now: datetime
) -> HourSet:
    """Return the hours already read, according to a bookmark.

    Hours after `replication_key_value` are ignored, so setting it back rewinds the tap. Without
    `hours_read`, every hour from `start` up to that value counts as read.

    Raises:
        StateError: The bookmark is unreadable, more than MAX_AHEAD ahead of `now`, or for
            another PBX or time zone.
    """
    if unknown := bookmark.keys() - _KEYS - _SDK_KEYS:
        raise _unreadable(f"unknown key {min(unknown)!r}")
    for name, current, setting in (
        ("pbx", pbx.host, "api_url"),
        ("timezone", pbx.zone.key, "timezone"),
    ):
        if (previous := bookmark.get(name, current)) != current:
            raise StateError(
                f"state: written with {name} {previous!r}, but this run uses {current!r}: correct "
                f"`{setting}`, start over (`meltano state clear …`) or, if both are the same, "
                f"edit {name!r} in the state"
            )
    if not (value := bookmark.get("replication_key_value")):
        if bookmark.get("hours_read"):
            raise _unreadable("hours_read without replication_key_value")
        return HourSet()
    try:
        until = parse_instant(str(value), pbx.zone)
    except DateError as error:
        raise _unreadable(f"replication_key_value {error}") from None
    if until > now + MAX_AHEAD:
        raise StateError(
            f"state: replication_key_value is {until.isoformat()}, but this machine's clock is at "
            f"{now.isoformat(timespec='seconds')}: correct the clock, or set the value back"
        )
    # Hours from here on do not count as read.
    limit = next_hour(last_due(until, timedelta(), pbx.zone), pbx.zone)
    if "hours_read" not in bookmark:
        return HourSet.merge([(start, limit)])
    if not isinstance(bookmark["hours_read"], list):
        raise _unreadable("hours_read is not a list")
    ranges = [_parse_range(item) for item in bookmark["hours_read"]]
    return HourSet.merge((first, min(end, limit)) for first, end in ranges)


def make_bookmark(read: HourSet, pbx: Pbx, replication_key: str) -> dict[str, Any]:
    """Build the bookmark for these hours; the inverse of `load_bookmark`."""
    bookmark: dict[str, Any] = {"replication_key": replication_key}
    if read:
        newest = read.last
        # The newest may be a skipped hour: `mark_read` also adds skipped hours that follow.
        while (ended := end_of(newest, pbx.zone)) is None:
            newest -= HOUR
        bookmark["replication_key_value"] = ended.isoformat()
    bookmark["hours_read"] = [
        {"from": start.isoformat(timespec="minutes"), "to": end.isoformat(timespec="minutes")}
        for start, end in read.ranges
    ]
    return bookmark | {"pbx": pbx.host, "timezone": pbx.zone.key}


def _parse_range(item: Any) -> Range:  # noqa: ANN401 - any JSON value
    try:
        start, end = (datetime.fromisoformat(item[name]) for name in ("from", "to"))
    except (KeyError, TypeError, ValueError):
        raise _unreadable('hours_read has an item that is not {"from": …, "to": …}') from None
    for hour in (start, end):
        if hour.tzinfo or hour != hour.replace(minute=0, second=0, microsecond=0):
            raise _unreadable(
                f"hours_read: {hour.isoformat()} must be a full hour without an offset"
            )
    if start >= end:
        raise _unreadable(f"hours_read: {end.isoformat()} is not after {start.isoformat()}")
    return start, end


def _unreadable(reason: str) -> StateError:
    return StateError(
        f"state: the bookmark of `recordings` is unreadable: {reason}; correct it, or start over "
        "(`meltano state clear …`)"
    )


@dataclasses.dataclass(slots=True)
class Backlog:
    """The hours that a run has to request: unread ones, and those to read again."""

    hours_read: HourSet
    first: datetime
    """First hour to read."""
    last: datetime
    """Last hour to read."""
    zone: ZoneInfo
    newest_first: bool
    limit: int | None
    """Maximum number of hours to request in this run. Until one hour is read, failed hours do not
    use it up: see `remaining`."""
    read_count: int = 0
    """Number of hours that this run has read."""
    reread: HourSet = HourSet()
    """Hours still to read again."""
    failed: HourSet = HourSet()
    """Hours that failed in this run."""

    def plan_reread(self, count: int, newest_due: datetime) -> None:
        """Schedule another read of the newest `count` hours already read."""
        self.reread = (self._due(newest_due) & self.hours_read).newest(count)

    def unread(self, newest_due: datetime) -> HourSet:
        """Return the due hours that were never read and have not failed in this run."""
        return self._due(newest_due) - self.hours_read - self.failed

    def pending(self, newest_due: datetime) -> HourSet:
        """Return the due hours that this run still has to request."""
        return self.unread(newest_due) | (self.reread & self._due(newest_due))

    @property
    def remaining(self) -> float:
        """How many more hours this run may request.

        At least one until an hour has been read, so that failing hours cannot use up the limit of
        every run.
        """
        if self.limit is None:
            return math.inf
        left = self.limit - self.read_count - len(self.failed)
        return left if self.read_count else max(left, 1)

    def choose(self, newest_due: datetime) -> datetime | None:
        """Return the hour to request next, or None if the run is over."""
        if self.has_failure_streak or self.remaining <= 0:
            return None
        hours = self.pending(newest_due)
        # Save the last request for an unread hour. Otherwise, hours to read again and an hour
        # that always fails could use up the limit of every run.
        if self.remaining == 1:
            hours = self.unread(newest_due) or hours
        if not hours:
            return None
        return hours.last if self.newest_first else hours.first

    def mark_read(self, hour: datetime) -> None:
        """Mark the hour, and any skipped hours right after it, as read."""
        self.read_count += 1
        self.hours_read |= HourSet(((hour, next_hour(hour, self.zone)),))
        self.reread -= HourSet.single(hour)

    def mark_failed(self, hour: datetime) -> None:
        """Do not request the hour again in this run."""
        self.failed |= HourSet.single(hour)
        self.reread -= HourSet.single(hour)

    @property
    def has_failure_streak(self) -> bool:
        """Whether MAX_FAILURE_STREAK failed hours have no read hour between them."""
        if len(self.failed) < MAX_FAILURE_STREAK:
            return False
        # An hour read by any run breaks the streak. Otherwise, with `oldest_first`, old hours that
        # always fail would come first in every run and could block the rest.
        span = HourSet(((self.failed.first, self.failed.last + HOUR),))
        return any(
            # Check the length first, because it is cheap: scattered failures leave short ranges.
            end - start >= MAX_FAILURE_STREAK * HOUR
            and len(self.failed & HourSet(((start, end),))) >= MAX_FAILURE_STREAK
            for start, end in (span - (self.hours_read - self.failed)).ranges
        )

    def _due(self, newest_due: datetime) -> HourSet:
        return hours_between(self.first, min(self.last, newest_due), self.zone)
