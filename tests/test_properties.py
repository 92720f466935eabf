"""What holds in every zone and at every time, held against clocks looked at minute by minute."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from times import JDK_11_TO_21, java, reading

from tap_noojee.coverage import (
    BEGINNING,
    FOREVER,
    Backlog,
    Coverage,
    clip,
    count_hours,
    merge,
    subtract,
)
from tap_noojee.dates import parse_date, parse_instant
from tap_noojee.errors import DateError
from tap_noojee.hours import Hour, Span, instants

MINUTE = timedelta(minutes=1)
QUARTER = timedelta(minutes=15)
DAY = timedelta(days=1)
WATCH = timedelta(hours=6)
"""More than clocks ever move by."""

FIRST = datetime(2014, 1, 1, tzinfo=UTC)
LAST = datetime(2036, 1, 1, tzinfo=UTC)

ZONES = sorted(available_timezones())
WAYWARD = [
    *("Australia/Melbourne", "Australia/Adelaide", "Australia/Brisbane", "Pacific/Norfolk"),
    *("Pacific/Auckland", "America/Santiago", "America/Havana", "America/St_Johns"),
    *("America/Caracas", "Africa/Cairo", "Africa/Casablanca", "Asia/Pyongyang", "Asia/Chita"),
    *("Asia/Beirut", "Atlantic/Azores", "Europe/London", "Europe/Dublin"),
]
"""Zones whose clocks change at midnight, against the sun, for good, or not at all."""

ODD = ["Pacific/Chatham", "Australia/Lord_Howe", "Antarctica/Troll"]
"""Zones whose clocks do not change by an hour, or not on the hour."""

ANY = st.sampled_from(ODD) | st.sampled_from(WAYWARD) | st.sampled_from(ZONES)
ORDERS = st.sampled_from(["oldest_first", "newest_first"])

quick = settings(deadline=None, derandomize=True, max_examples=60)


# The oracle: what someone sees who looks at the clocks each minute


class Watch(NamedTuple):
    """Some hours of looking at the clocks."""

    hours: dict[datetime, list[datetime]]
    """Each hour that they show, and the minutes at which they do."""
    times: dict[datetime, list[datetime]]
    """Each minute that they show, and when they do."""
    by_quarters: bool
    """Whether they move from one quarter of an hour to another, or not at all."""


@lru_cache(maxsize=512)
def watch(key: str, number: int) -> Watch:
    """Look at the clocks each minute."""
    zone = ZoneInfo(key)
    start = int((FIRST + number * WATCH).timestamp())
    before = datetime.fromtimestamp(start - 60, zone).replace(tzinfo=None)
    watched = Watch({}, {}, by_quarters=True)
    for seconds in range(start, start + int(WATCH.total_seconds()), 60):
        instant = datetime.fromtimestamp(seconds, UTC)
        wall = datetime.fromtimestamp(seconds, zone).replace(tzinfo=None, fold=0)
        if wall - before != MINUTE and (instant.minute % 15 or wall.minute % 15):
            watched = watched._replace(by_quarters=False)
        watched.hours.setdefault(wall.replace(minute=0), []).append(instant)
        watched.times.setdefault(wall, []).append(instant)
        before = wall
    return watched


class Clocks(NamedTuple):
    """What clocks in a zone show around some time."""

    zone: ZoneInfo
    watches: list[Watch]
    hours: dict[datetime, list[datetime]]
    """Each hour that they show, in the order of its name, and the minutes at which they do."""

    def __repr__(self) -> str:
        """Tell where, not all that was seen."""
        return f"<clocks in {self.zone.key}>"

    def first(self, wall: datetime) -> datetime:
        """When the clocks first show this hour."""
        return self.hours[wall][0]

    def over(self, wall: datetime) -> datetime:
        """When the clocks have last shown this hour."""
        return self.hours[wall][-1] + MINUTE

    def shows(self, wall: datetime) -> list[datetime]:
        """When the clocks show this time, without its fraction of a minute."""
        return [when for watched in self.watches for when in watched.times.get(wall, [])]

    def minutes(self) -> list[datetime]:
        """Each minute at which they were looked at, in order."""
        return sorted(when for minutes in self.hours.values() for when in minutes)

    def whole(self) -> list[datetime]:
        """The hours that lie wholly inside the time that was looked at."""
        minutes = self.minutes()
        return [
            wall
            for wall in self.hours
            if minutes[0] < self.first(wall) and self.over(wall) <= minutes[-1]
        ]


def look(zone: ZoneInfo, start: datetime, end: datetime) -> Clocks:
    """Look at the clocks from well before to well after, where they move by quarters."""
    numbers = range((start - FIRST) // WATCH - 1, (end - FIRST) // WATCH + 2)
    watches = [watch(zone.key, number) for number in numbers]
    assume(all(watched.by_quarters for watched in watches))
    hours: dict[datetime, list[datetime]] = {}
    for watched in watches:
        for wall, minutes in watched.hours.items():
            hours[wall] = hours.get(wall, []) + minutes
    return Clocks(zone, watches, dict(sorted(hours.items())))


@lru_cache(maxsize=1024)
def changes(key: str) -> list[datetime]:
    """When clocks in the zone change."""
    zone = ZoneInfo(key)

    def offset(minute: int) -> timedelta | None:
        return (FIRST + minute * MINUTE).astimezone(zone).utcoffset()

    found = []
    before = offset(0)
    for midnight in range(0, (LAST - FIRST) // MINUTE, 1440):
        low, high = midnight, midnight + 1440
        if (after := offset(high)) != before:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == before else (low, middle)
            found.append(FIRST + high * MINUTE)
        before = after
    return [change for change in found if FIRST + DAY < change < LAST - DAY]


@lru_cache(maxsize=1024)
def kinds(key: str) -> list[datetime]:
    """When clocks in the zone change, one of each kind."""
    zone = ZoneInfo(key)
    found = {}
    for change in changes(key):
        before, after = ((change - back).astimezone(zone) for back in (MINUTE, 0 * MINUTE))
        found[before.utcoffset(), after.utcoffset(), after.time()] = change
    return list(found.values())


# Where to look


class Place(NamedTuple):
    """A zone, and a time at which its clocks may change."""

    zone: ZoneInfo
    time: datetime

    def near(self) -> st.SearchStrategy[datetime]:
        """Times around it; often on a quarter of an hour."""
        quarters = st.integers(-16, 16).map(lambda number: number * QUARTER)
        minutes = st.integers(-400, 400).map(lambda number: number * MINUTE)
        finest = st.timedeltas(timedelta(hours=-8), timedelta(hours=8))
        return (quarters | quarters | minutes | finest).map(lambda distance: self.time + distance)


@st.composite
def places(draw: st.DrawFn, keys: list[str] | None = None) -> Place:
    """Any time in any zone; most often one at which the clocks change."""
    key = draw(st.sampled_from(keys) if keys else ANY)
    hours = st.integers(24, (LAST - FIRST) // timedelta(hours=1) - 24)
    times: st.SearchStrategy[datetime]
    times = hours.map(lambda number: FIRST + number * timedelta(hours=1))
    if changes(key) and draw(st.integers(0, 4)) > 0:
        times = st.sampled_from(kinds(key)) | st.sampled_from(changes(key))
    return Place(ZoneInfo(key), draw(times))


@st.composite
def spans(draw: st.DrawFn) -> tuple[Clocks, datetime, datetime]:
    """Any span of time, and what clocks show around it."""
    place = draw(places())
    start, end = sorted([draw(place.near()), draw(place.near())])
    assume(start < end)
    return look(place.zone, start, end), start, end


# Hours


@quick
@given(spans())
def test_hours_are_what_clocks_show(span: tuple[Clocks, datetime, datetime]) -> None:
    """An hour exists, starts, ends and comes twice as clocks show it, and hours are in order."""
    clocks, *_ = span
    whole = clocks.whole()
    wall = whole[0]
    while wall <= whole[-1]:
        hour = Hour(wall, clocks.zone)
        assert hour.exists == (wall in clocks.hours)
        if hour.exists:
            assert (hour.start, hour.end) == (clocks.first(wall), clocks.over(wall))
            minutes = [(when, when + MINUTE) for when in clocks.hours[wall]]
            assert list(hour.passes) == merge(minutes)
            times = [wall + number * MINUTE for number in range(60)]
            assert hour.repeated == any(len(clocks.shows(time)) > 1 for time in times)
        wall += timedelta(hours=1)
    steps = [Hour(one, clocks.zone) for one in whole]
    assert [hour.next() for hour in steps[:-1]] == steps[1:]
    assert [hour.previous() for hour in steps[1:]] == steps[:-1]


@quick
@given(spans())
def test_a_time_has_all_the_instants_at_which_clocks_show_it(
    span: tuple[Clocks, datetime, datetime],
) -> None:
    """A wall-clock time stands for just those instants at which clocks show it, in order."""
    clocks, start, _ = span
    wall = start.astimezone(clocks.zone).replace(second=0, microsecond=0, tzinfo=None, fold=0)
    for _ in range(300):
        assert instants(wall, clocks.zone) == clocks.shows(wall)
        wall += MINUTE


@quick
@given(spans(), st.integers(0, 200))
def test_an_hour_is_due_as_soon_as_its_last_pass_has_settled(
    span: tuple[Clocks, datetime, datetime], settle_minutes: int
) -> None:
    """The newest hour that is due is the newest of those whose end has settled."""
    clocks, now, _ = span
    settle = settle_minutes * MINUTE
    due = [wall for wall in clocks.whole() if clocks.over(wall) + settle <= now]
    assert Hour.last_due(now, settle, clocks.zone).wall == due[-1]


def request(  # noqa: PLR0913 - a run's settings
    backlog: Backlog,
    clocks: Clocks,
    *,
    now: datetime,
    order: str = "oldest_first",
    limit: int | None = None,
    prefer_unread: bool = False,
) -> list[Hour]:
    """Request what is due and wanted, as a run does, and count along."""
    last_due = Hour.last_due(now, timedelta(), clocks.zone)
    requested: list[Hour] = []
    while len(requested) != limit:
        left = backlog.count(last_due)
        hour = backlog.next_hour(
            last_due, newest_first=order == "newest_first", prefer_unread=prefer_unread
        )
        if hour is None:
            assert not left
            break
        backlog.finish(hour)
        requested.append(hour)
        assert backlog.count(last_due) == left - 1
    return requested


def walls(requested: list[Hour]) -> list[datetime]:
    """The hours as clocks show them."""
    return [hour.wall for hour in requested]


def in_order(expected: list[datetime], order: str) -> list[datetime]:
    """Hours from the oldest on, put in the order of the setting."""
    return expected[::-1] if order == "newest_first" else expected


def first_run(clocks: Clocks, start: datetime, end: datetime = FOREVER) -> Backlog:
    """The backlog of a run before which nothing was read."""
    nothing = Coverage(start, start, [])
    return Backlog(nothing, start=start, end=end, lookback=0, zone=clocks.zone)


@quick
@given(spans(), ORDERS)
def test_every_hour_of_a_span_is_requested_once_in_order(
    span: tuple[Clocks, datetime, datetime], order: str
) -> None:
    """The hours that have any part in a span are requested once each, in order, and no others."""
    clocks, start, end = span
    now = clocks.minutes()[-1]
    requested = request(first_run(clocks, start, end), clocks, now=now, order=order)
    expected = [
        wall
        for wall, minutes in clocks.hours.items()
        if any(when < end and start < when + MINUTE for when in minutes)
    ]
    assert walls(requested) == in_order(expected, order)
    assert count_hours([(start, end)], clocks.zone) == len(expected)


@quick
@given(spans(), ORDERS)
def test_a_run_covers_just_the_passes_of_the_hours_that_it_requested(
    span: tuple[Clocks, datetime, datetime], order: str
) -> None:
    """After each hour, the bookmark claims what was requested, minute by minute, and no more."""
    clocks, start, end = span
    backlog = first_run(clocks, start, end)
    last_due = Hour.last_due(clocks.minutes()[-1], timedelta(), clocks.zone)
    read: list[Span] = []
    while hour := backlog.next_hour(last_due, newest_first=order == "newest_first"):
        backlog.finish(hour)
        minutes = clocks.hours[hour.wall]
        read += [(max(m, start), min(m + MINUTE, end)) for m in minutes]
        assert backlog.coverage.read == merge(read)
    assert backlog.coverage.read == [(start, end)]


@quick
@given(spans(), ORDERS)
def test_every_hour_that_is_due_is_requested_and_none_before(
    span: tuple[Clocks, datetime, datetime], order: str
) -> None:
    """A run requests the hours whose last instant is over, and all of them."""
    clocks, start, now = span
    requested = request(first_run(clocks, start), clocks, now=now, order=order)
    expected = [w for w in clocks.hours if start < clocks.over(w) <= now]
    assert sorted(walls(requested)) == expected


@settings(quick, max_examples=30)
@given(places(), st.integers(-500, 500), st.integers(1, 500), st.integers(0, 23))
def test_a_long_span_has_as_many_hours_as_clocks_show(
    place: Place, days_before: int, days: int, hour: int
) -> None:
    """Hours of months and years are counted as many as the clocks show."""
    zone = place.zone
    start = place.time + days_before * DAY + hour * timedelta(hours=1)
    end = start + days * DAY
    assume(all(time.minute % 15 == 0 for time in changes(zone.key)))
    first, stop = Hour.containing(start, zone), Hour.containing(end, zone)
    assume(not first.repeated and not stop.repeated)
    seconds = range(int(start.timestamp()) - 86400, int(end.timestamp()) + 86400, 900)
    shown = {
        datetime.fromtimestamp(s, zone).replace(minute=0, tzinfo=None, fold=0) for s in seconds
    }
    expected = sum(first.wall <= wall < stop.wall for wall in shown)
    assert count_hours([(first.start, stop.start)], zone) == expected


# Bookmarks


@st.composite
def coverages(draw: st.DrawFn) -> tuple[Clocks, Coverage, datetime, datetime]:
    """What any bookmark claims, a start, and an end."""
    place = draw(places())
    times = sorted(draw(st.lists(place.near(), min_size=2, max_size=6, unique=True)))
    start, end = sorted(draw(st.lists(place.near(), min_size=2, max_size=2, unique=True)))
    since, *inner, until = times
    owed = list(zip(inner[:-1:2], inner[1::2], strict=False))
    clocks = look(place.zone, min(since, start), max(until, end) + timedelta(hours=4))
    return clocks, Coverage(since, until, subtract([(since, until)], owed)), start, end


def has_part_in(clocks: Clocks, wall: datetime, wanted: list[Span]) -> bool:
    """Whether clocks show this hour at any time that is wanted."""
    return any(when < e and s < when + MINUTE for when in clocks.hours[wall] for s, e in wanted)


@settings(quick, max_examples=80)
@given(coverages(), ORDERS)
def test_resuming_from_any_bookmark_loses_nothing(
    case: tuple[Clocks, Coverage, datetime, datetime], order: str
) -> None:
    """From any bookmark the hours with an unread part are requested, once each, and no others."""
    clocks, coverage, start, end = case
    backlog = Backlog(coverage, start=start, end=end, lookback=0, zone=clocks.zone)
    unread = subtract([(start, end)], coverage.read)
    expected = [wall for wall in clocks.hours if has_part_in(clocks, wall, unread)]
    requested = request(backlog, clocks, now=clocks.minutes()[-1], order=order)
    assert walls(requested) == in_order(expected, order)
    assert merge(backlog.coverage.read) == merge([*coverage.read, (start, end)])


@quick
@given(coverages(), st.integers(1, 30), ORDERS)
def test_lookback_requests_that_many_finished_hours_more(
    case: tuple[Clocks, Coverage, datetime, datetime], lookback: int, order: str
) -> None:
    """Looking back adds the hours before that of the bookmark, none that is over before start."""
    clocks, coverage, start, end = case
    assume(coverage.read)
    newest = coverage.until.astimezone(clocks.zone).replace(minute=0, second=0, microsecond=0)
    bookmark = newest.replace(tzinfo=None, fold=0)
    finished: list[datetime] = []
    for wall in sorted(clocks.hours, reverse=True):
        if wall < bookmark and len(finished) < lookback:
            if clocks.over(wall) <= start:
                break
            finished.append(wall)
    unread = subtract([(start, end)], coverage.read)
    again = [wall for wall in finished if has_part_in(clocks, wall, [(start, end)])]
    expected = {*again, *(w for w in clocks.hours if has_part_in(clocks, w, unread))}
    backlog = Backlog(coverage, start=start, end=end, lookback=lookback, zone=clocks.zone)
    requested = request(backlog, clocks, now=clocks.minutes()[-1], order=order)
    assert walls(requested) == in_order(sorted(expected), order)


class Run(NamedTuple):
    """What may differ from one run to the next."""

    now: datetime
    pace: timedelta
    """How long a request takes."""
    start: datetime
    end: datetime
    order: str
    limit: int | None
    lookback: int
    killed: bool
    """Whether the bookmark of its last hour is lost."""


@st.composite
def histories(draw: st.DrawFn) -> tuple[Clocks, list[Run]]:
    """Some runs one after another, the last of which reads all that is left."""
    place = draw(places())
    starts = draw(st.lists(place.near(), min_size=1, max_size=3))
    ends = st.just(FOREVER) | place.near()
    runs = [
        Run(
            now=now,
            pace=draw(st.sampled_from([0, 1, 30])) * MINUTE,
            start=draw(st.sampled_from(starts)),
            end=draw(ends),
            order=draw(ORDERS),
            limit=draw(st.none() | st.integers(1, 2) | st.integers(1, 9)),
            lookback=draw(st.integers(0, 3)),
            killed=draw(st.booleans()),
        )
        # In any order: a clock may be put back.
        for now in draw(st.lists(place.near(), max_size=5))
    ]
    runs = [run for run in runs if run.start < run.end]
    now = place.time + timedelta(hours=9)
    last = Run(now, timedelta(), min(starts), FOREVER, draw(ORDERS), None, 0, killed=False)
    return look(place.zone, min(starts), now), [*runs, last]


def walls_before(clocks: Clocks, instant: datetime, number: int) -> list[datetime]:
    """The last hours, as clocks show them, before the one that they show at this instant."""
    wall = instant.astimezone(clocks.zone).replace(tzinfo=None, fold=0)
    return sorted(one for one in clocks.hours if one <= wall - timedelta(hours=1))[-number:]


@settings(quick, max_examples=150)
@given(histories())
def test_runs_one_after_another_read_everything_and_claim_nothing_else(
    history: tuple[Clocks, list[Run]],
) -> None:
    """However dates and clocks move and runs end, each bookmark claims what was read, no more.

    Nothing is requested without need, each run gets ahead, and in the end everything is read.
    """
    clocks, runs = history
    coverage = Coverage(runs[0].start, runs[0].start, [])
    read: list[Span] = []
    for run in runs:
        now = run.now
        bookmark = coverage.make_bookmark("callend", clocks.zone.key)
        coverage = Coverage.parse_bookmark(bookmark, run.start, clocks.zone)
        coverage = coverage.clipped(now, clocks.zone)
        again = walls_before(clocks, coverage.until, run.lookback) if run.lookback else []
        backlog = Backlog(
            coverage, start=run.start, end=run.end, lookback=run.lookback, zone=clocks.zone
        )
        requested: list[datetime] = []
        got_ahead = False
        while len(requested) != run.limit:
            last_due = Hour.last_due(now, timedelta(), clocks.zone)
            hour = backlog.next_hour(
                last_due,
                newest_first=run.order == "newest_first",
                prefer_unread=len(requested) + 1 == run.limit,
            )
            if hour is None:
                break
            unread = has_part_in(clocks, hour.wall, backlog.unread)
            assert unread or hour.wall in again
            assert hour.wall not in requested
            assert clocks.over(hour.wall) <= now
            requested.append(hour.wall)
            got_ahead |= unread
            before = backlog.coverage
            backlog.finish(hour)
            minutes = clocks.hours[hour.wall]
            read += [(max(m, run.start), min(m + MINUTE, run.end)) for m in minutes]
            read = merge(read)
            assert subtract(backlog.coverage.read, read) == []
            assert backlog.coverage.until >= before.until
            coverage = before if run.killed else backlog.coverage
            now = min(now + run.pace, runs[-1].now)
        assert got_ahead or not clip(backlog.unread, BEGINNING, last_due.end)
    due = [wall for wall in clocks.hours if clocks.over(wall) <= runs[-1].now]
    everything = [(m, m + MINUTE) for wall in due for m in clocks.hours[wall]]
    assert subtract([(max(s, runs[-1].start), e) for s, e in everything], read) == []


# Dates

NAMES = {
    zone: {january.replace(":", ""): one, july.replace(":", ""): other}
    for zone, january, one, july, other in JDK_11_TO_21
}
NAMES["Pacific/Norfolk"]["+1130"] = "NFT"  # until 2015
OLD_JVM = {
    **dict.fromkeys(["Melbourne", "Sydney", "Hobart", "Brisbane", "Lindeman"], "EST"),
    **dict.fromkeys(["Adelaide", "Broken_Hill", "Darwin"], "CST"),
}


def by_jdk_21(local: datetime, key: str) -> str:
    """Print as JDK 11 to 21 do."""
    return java(local, NAMES[key][f"{local:%z}"])


def by_jdk_25(local: datetime, _: str) -> str:
    """Print as JDK 25 does for many zones, and a JVM with CLDR names for all."""
    offset = f"{local:%z}"
    return java(local, "GMT" if offset == "+0000" else f"GMT{offset[:3]}:{offset[3:]}")


def by_offset(local: datetime, _: str) -> str:
    """Print the bare offset in place of a name."""
    return java(local, f"{local:%z}")


def by_old_jvm(local: datetime, key: str) -> str:
    """Print as a JVM from before 2014 does."""
    return java(local, OLD_JVM[key.removeprefix("Australia/")])


def as_timestamp(local: datetime, _: str) -> str:
    """Print a timestamp without a zone, as older servers do."""
    return f"{local:%Y-%m-%d %H:%M:%S}.0"


Printer = Callable[[datetime, str], str]

EVERYWHERE: list[Printer] = [by_jdk_25, by_offset, as_timestamp]


@st.composite
def prints(draw: st.DrawFn) -> tuple[Place, Printer]:
    """A zone, a time and a format that a server in the zone may use."""
    printer = draw(st.sampled_from([by_jdk_21] * 4 + [by_old_jvm, *EVERYWHERE]))
    if printer == by_jdk_21:
        return draw(places(sorted(NAMES))), printer
    if printer == by_old_jvm:
        return draw(places([f"Australia/{name}" for name in OLD_JVM])), printer
    return draw(places()), printer


def passes(clocks: Clocks, instant: datetime) -> list[datetime]:
    """The instants at which clocks show the same as at this one, from the first."""
    local = instant.astimezone(clocks.zone).replace(tzinfo=None, fold=0)
    minute = local.replace(second=0)
    return [when + (local - minute) for when in clocks.shows(minute)]


@settings(quick, max_examples=100)
@given(prints(), st.data())
def test_a_printed_instant_is_read_as_itself(
    case: tuple[Place, Printer], data: st.DataObject
) -> None:
    """What is printed in any format is read as its own instant, or as that of the first pass.

    It is ambiguous only where both passes of a repeated hour are printed alike.
    """
    place, print_date = case
    instant = data.draw(place.near()).replace(microsecond=0)
    zone = place.zone
    same = passes(look(zone, instant, instant), instant)
    text = print_date(instant.astimezone(zone), zone.key)
    alike = [one for one in same if print_date(one.astimezone(zone), zone.key) == text]
    legacy_name = text.split()[4] if print_date == by_old_jvm else ""
    assert instant in alike
    assert parse_date(text, zone) == reading(
        alike[0],
        ambiguous=len(alike) > 1,
        legacy_name=legacy_name,
        proven=print_date != as_timestamp,
    )


@quick
@given(places(), st.data())
def test_only_formats_without_an_offset_are_ambiguous(place: Place, data: st.DataObject) -> None:
    """In a repeated hour a timestamp is ambiguous and of the first pass; an offset is not."""
    zone = place.zone
    instant = data.draw(place.near()).replace(microsecond=0)
    same = passes(look(zone, instant, instant), instant)
    local = instant.astimezone(zone)
    assert parse_date(as_timestamp(local, zone.key), zone) == reading(
        same[0], ambiguous=len(same) > 1, proven=False
    )
    for print_date in (by_jdk_25, by_offset):
        assert parse_date(print_date(local, zone.key), zone) == reading(instant)


AMBIGUOUS = [
    # Zone, the instants of both passes, and the one text that is printed for them.
    ("Australia/Melbourne", "02:30:15+11:00", "02:30:15+10:00", "2021-04-04 02:30:15.0", ""),
    ("Australia/Lord_Howe", "01:45:15+11:00", "01:45:15+10:30", "2021-04-04 01:45:15.0", ""),
    ("Pacific/Chatham", "03:10:15+13:45", "03:10:15+12:45", "2021-04-04 03:10:15.0", ""),
    *(
        (
            f"Australia/{city}",
            f"02:30:15{dst}",
            f"02:30:15{std}",
            f"Sun Apr 04 02:30:15 {name} 2021",
            name,
        )
        for city, dst, std, name in [
            ("Melbourne", "+11:00", "+10:00", "EST"),
            ("Sydney", "+11:00", "+10:00", "EST"),
            ("Hobart", "+11:00", "+10:00", "EST"),
            ("Adelaide", "+10:30", "+09:30", "CST"),
            ("Broken_Hill", "+10:30", "+09:30", "CST"),
        ]
    ),
]


@pytest.mark.parametrize(("key", "first", "second", "text", "legacy_name"), AMBIGUOUS)
def test_a_format_that_both_passes_share_is_read_as_the_first(
    key: str, first: str, second: str, text: str, legacy_name: str
) -> None:
    """A repeated hour's timestamp, or old JVM's EST or CST, is the first pass, and ambiguous."""
    zone = ZoneInfo(key)
    print_date = by_old_jvm if legacy_name else as_timestamp
    instants_of_both = [datetime.fromisoformat(f"2021-04-04T{one}") for one in (first, second)]
    assert [print_date(one.astimezone(zone), key) for one in instants_of_both] == [text, text]
    expected = reading(instants_of_both[0], ambiguous=True, legacy_name=legacy_name, proven=False)
    assert parse_date(text, zone) == expected


@settings(quick, max_examples=80)
@given(places(), st.data())
def test_times_that_clocks_skip_are_refused_and_no_others(
    place: Place, data: st.DataObject
) -> None:
    """A timestamp is a time that clocks show, or else it is refused."""
    clocks = look(place.zone, place.time, place.time)
    distance = timedelta(minutes=data.draw(st.integers(-200, 200)))
    wall = place.time.astimezone(place.zone).replace(tzinfo=None, fold=0) + distance
    shown = clocks.shows(wall)
    text = as_timestamp(wall, place.zone.key)
    if shown:
        assert parse_date(text, place.zone).iso == shown[0].isoformat()
    else:
        with pytest.raises(DateError, match="skip"):
            parse_date(text, place.zone)


@settings(quick, max_examples=80)
@given(prints(), places(), st.data())
def test_a_wrong_setting_is_found_or_does_no_harm(
    case: tuple[Place, Printer], other: Place, data: st.DataObject
) -> None:
    """A date of another zone than the setting's is refused, if it says what offset it has.

    Where both zones have that offset then, it is read as the right instant.
    """
    place, print_date = case
    assume(print_date not in {as_timestamp, by_old_jvm})
    instant = data.draw(place.near()).replace(microsecond=0)
    text = print_date(instant.astimezone(place.zone), place.zone.key)
    # Norfolk Island kept one name as it changed its offset.
    assume("NFT" not in text)
    zone = data.draw(st.sampled_from([other.zone, *map(ZoneInfo, NAMES)]))
    if instant.astimezone(zone).utcoffset() == instant.astimezone(place.zone).utcoffset():
        assert parse_date(text, zone) == reading(instant)
    else:
        with pytest.raises(DateError, match="`timezone`"):
            parse_date(text, zone)


@quick
@given(places(), st.integers(0, 999_999_999), st.integers(1, 9))
def test_fractions_are_kept_to_the_microsecond(place: Place, nanos: int, digits: int) -> None:
    """A fraction of however many digits adds what it says, less what is finer than Python's."""
    fraction = f"{nanos:09}"[:digits]
    local = place.time.astimezone(place.zone)
    text = f"{local:%Y-%m-%d %H:%M:%S}"
    whole, finer = (
        datetime.fromisoformat(parse_date(one, place.zone).iso)
        for one in (text, f"{text}.{fraction}")
    )
    assert (finer - whole) // timedelta(microseconds=1) == int(f"{fraction:0<9}") // 1000


@quick
@given(places(), places(), st.data())
def test_an_instant_of_a_state_is_read_as_itself(
    place: Place, other: Place, data: st.DataObject
) -> None:
    """An ISO time with any offset is its own instant, whatever the zone of the setting."""
    instant = data.draw(place.near())
    assert parse_instant(instant.astimezone(place.zone).isoformat(), other.zone) == instant
    assert parse_instant(instant.isoformat().replace("+00:00", "Z"), other.zone) == instant


@quick
@given(places(), st.data())
def test_a_local_time_of_a_setting_is_its_first_pass(place: Place, data: st.DataObject) -> None:
    """An ISO time without an offset is the first instant at which clocks show it."""
    instant = data.draw(place.near()).replace(microsecond=0)
    text = instant.astimezone(place.zone).replace(tzinfo=None).isoformat()
    first = passes(look(place.zone, instant, instant), instant)[0]
    assert parse_instant(text, place.zone) == first
