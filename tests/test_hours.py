"""The hours that clocks show, and which of them are still to be asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from tap_noojee.hours import (
    FOREVER,
    NEVER,
    Backlog,
    Hour,
    Span,
    count,
    instants,
    last_due,
    whole_hours,
    within,
    without,
)

MELBOURNE = ZoneInfo("Australia/Melbourne")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
CHATHAM = ZoneInfo("Pacific/Chatham")
TROLL = ZoneInfo("Antarctica/Troll")

TICK = timedelta(microseconds=1)


def at(text: str) -> datetime:
    """Read a time with an offset."""
    return datetime.fromisoformat(text).astimezone(UTC)


def hour(zone: ZoneInfo, text: str) -> Hour:
    """Name an hour as clocks show it."""
    return Hour(datetime.fromisoformat(text), zone)


def span(start: str, end: str) -> Span:
    """Name the time between two times with an offset."""
    return at(start), at(end)


def hours_between(first: Hour, stop: Hour) -> list[Hour]:
    """Step from one hour to another, which is left out."""
    steps = []
    while first < stop:
        steps.append(first)
        first = first.next()
    return steps


class Shown(NamedTuple):
    """An hour as someone who watches the clocks would note it."""

    start: str
    """When it first shows; on the clocks, and their offset."""
    minutes: int
    """Until it is over, in all its passes."""
    twice: bool = False


WATCHED = {
    "Melbourne back": (
        "Australia/Melbourne",
        Shown("2021-04-04 00:00+11:00", 60),
        Shown("2021-04-04 01:00+11:00", 60),
        Shown("2021-04-04 02:00+11:00", 120, twice=True),
        Shown("2021-04-04 03:00+10:00", 60),
    ),
    "Melbourne forward": (
        "Australia/Melbourne",
        Shown("2021-10-03 00:00+10:00", 60),
        Shown("2021-10-03 01:00+10:00", 60),
        Shown("2021-10-03 03:00+11:00", 60),
    ),
    "Adelaide back": (
        "Australia/Adelaide",
        Shown("2021-04-04 01:00+10:30", 60),
        Shown("2021-04-04 02:00+10:30", 120, twice=True),
        Shown("2021-04-04 03:00+09:30", 60),
    ),
    "Adelaide forward": (
        "Australia/Adelaide",
        Shown("2021-10-03 01:00+09:30", 60),
        Shown("2021-10-03 03:00+10:30", 60),
    ),
    "Auckland back": (
        "Pacific/Auckland",
        Shown("2021-04-04 01:00+13:00", 60),
        Shown("2021-04-04 02:00+13:00", 120, twice=True),
        Shown("2021-04-04 03:00+12:00", 60),
    ),
    "Auckland forward": (
        "Pacific/Auckland",
        Shown("2021-09-26 01:00+12:00", 60),
        Shown("2021-09-26 03:00+13:00", 60),
    ),
    "London back": (
        "Europe/London",
        Shown("2021-10-31 00:00+01:00", 60),
        Shown("2021-10-31 01:00+01:00", 120, twice=True),
        Shown("2021-10-31 02:00+00:00", 60),
    ),
    "London forward": (
        "Europe/London",
        Shown("2021-03-28 00:00+00:00", 60),
        Shown("2021-03-28 02:00+01:00", 60),
    ),
    "Lord Howe back, half an hour: 01:30 to 02:00 twice": (
        "Australia/Lord_Howe",
        Shown("2021-04-04 00:00+11:00", 60),
        Shown("2021-04-04 01:00+11:00", 90, twice=True),
        Shown("2021-04-04 02:00+10:30", 60),
    ),
    "Lord Howe forward, half an hour: 02:30 after 01:59": (
        "Australia/Lord_Howe",
        Shown("2021-10-03 01:00+10:30", 60),
        Shown("2021-10-03 02:30+11:00", 30),
        Shown("2021-10-03 03:00+11:00", 60),
    ),
    "Chatham back at 03:45 to 02:45: two hours that interleave": (
        "Pacific/Chatham",
        Shown("2021-04-04 01:00+13:45", 60),
        Shown("2021-04-04 02:00+13:45", 120, twice=True),
        Shown("2021-04-04 03:00+13:45", 120, twice=True),
        Shown("2021-04-04 04:00+12:45", 60),
    ),
    "Chatham forward at 02:45 to 03:45: two short hours": (
        "Pacific/Chatham",
        Shown("2021-09-26 01:00+12:45", 60),
        Shown("2021-09-26 02:00+12:45", 45),
        Shown("2021-09-26 03:45+13:45", 15),
        Shown("2021-09-26 04:00+13:45", 60),
    ),
    "Santiago back at midnight": (
        "America/Santiago",
        Shown("2021-04-03 22:00-03:00", 60),
        Shown("2021-04-03 23:00-03:00", 120, twice=True),
        Shown("2021-04-04 00:00-04:00", 60),
    ),
    "Santiago forward at midnight": (
        "America/Santiago",
        Shown("2021-09-04 23:00-04:00", 60),
        Shown("2021-09-05 01:00-03:00", 60),
    ),
    "Cairo forward at midnight": (
        "Africa/Cairo",
        Shown("2023-04-27 23:00+02:00", 60),
        Shown("2023-04-28 01:00+03:00", 60),
    ),
    "Troll back two hours": (
        "Antarctica/Troll",
        Shown("2021-10-31 00:00+02:00", 60),
        Shown("2021-10-31 01:00+02:00", 180, twice=True),
        Shown("2021-10-31 02:00+02:00", 180, twice=True),
        Shown("2021-10-31 03:00+00:00", 60),
    ),
    "Troll forward two hours": (
        "Antarctica/Troll",
        Shown("2021-03-28 00:00+00:00", 60),
        Shown("2021-03-28 03:00+02:00", 60),
    ),
    "Apia forward a whole day": (
        "Pacific/Apia",
        Shown("2011-12-29 23:00-10:00", 60),
        Shown("2011-12-31 00:00+14:00", 60),
    ),
}

Watched = tuple[ZoneInfo, list[Shown], list[Hour]]


@pytest.fixture(params=list(WATCHED.values()), ids=list(WATCHED))
def watched(request: pytest.FixtureRequest) -> Watched:
    """Hours in a row where clocks change, and what is known of them."""
    key, *shown = request.param
    zone = ZoneInfo(key)
    return zone, shown, [hour(zone, f"{one.start[:13]}:00") for one in shown]


# What an hour is


def test_the_next_hour_is_the_next_that_clocks_show(watched: Watched) -> None:
    """Stepping forward meets each hour that clocks show, in order, and no other."""
    _, _, hours = watched
    assert [one.next() for one in hours[:-1]] == hours[1:]


def test_the_previous_hour_is_the_last_that_clocks_showed(watched: Watched) -> None:
    """Stepping back meets each hour that clocks show, in order, and no other."""
    _, _, hours = watched
    assert [one.previous() for one in hours[1:]] == hours[:-1]


def test_an_hour_starts_when_clocks_first_show_a_part_of_it(watched: Watched) -> None:
    """An hour's start is the first instant of its first pass."""
    _, shown, hours = watched
    assert [one.start for one in hours] == [at(one.start) for one in shown]


def test_an_hour_ends_when_clocks_have_last_shown_it(watched: Watched) -> None:
    """An hour's end is the end of its last pass."""
    _, shown, hours = watched
    ends = [at(one.start) + timedelta(minutes=one.minutes) for one in shown]
    assert [one.end for one in hours] == ends


def test_an_hour_is_repeated_if_clocks_show_any_part_of_it_twice(watched: Watched) -> None:
    """Only hours of which some part comes twice are repeated."""
    _, shown, hours = watched
    assert [one.repeated for one in hours] == [one.twice for one in shown]


def test_an_hour_exists_if_clocks_show_any_part_of_it(watched: Watched) -> None:
    """An hour exists even where clocks show a quarter of it alone."""
    _, _, hours = watched
    assert [one.exists for one in hours] == [True] * len(hours)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("Australia/Melbourne", "2021-10-03 02:00"),
        ("Australia/Adelaide", "2021-10-03 02:00"),
        ("Pacific/Auckland", "2021-09-26 02:00"),
        ("Europe/London", "2021-03-28 01:00"),
        ("America/Santiago", "2021-09-05 00:00"),
        ("Africa/Cairo", "2023-04-28 00:00"),
        ("Antarctica/Troll", "2021-03-28 01:00"),
        ("Antarctica/Troll", "2021-03-28 02:00"),
        ("Pacific/Apia", "2011-12-30 12:00"),
    ],
)
def test_an_hour_that_clocks_skip_does_not_exist(key: str, text: str) -> None:
    """An hour of which clocks show nothing does not exist."""
    assert not hour(ZoneInfo(key), text).exists


@pytest.mark.parametrize(
    ("first", "stop", "number"),
    [
        ("2021-04-03 00:00", "2021-04-06 00:00", 72),
        ("2021-10-02 00:00", "2021-10-05 00:00", 71),
    ],
    ids=["back", "forward"],
)
def test_days_around_a_change_of_clocks_have_each_hour_once(
    first: str, stop: str, number: int
) -> None:
    """A day has 24 hours where clocks go back, the repeated one once, and 23 where they go on."""
    hours = hours_between(hour(MELBOURNE, first), hour(MELBOURNE, stop))
    assert len(hours) == number
    assert hours == sorted(set(hours))


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        ("2021-04-04 02:59:59.999999+11:00", "2021-04-04 02:00"),
        ("2021-04-04 02:00+10:00", "2021-04-04 02:00"),
        ("2021-04-04 03:00+10:00", "2021-04-04 03:00"),
        ("2021-10-02 15:59:59+00:00", "2021-10-03 01:00"),
        ("2021-10-02 16:00+00:00", "2021-10-03 03:00"),
    ],
)
def test_an_instant_belongs_to_the_hour_that_clocks_show(instant: str, text: str) -> None:
    """The hour of an instant is what clocks show then, in either pass."""
    assert Hour.showing(at(instant), MELBOURNE) == hour(MELBOURNE, text)


def test_hours_of_two_passes_are_one_hour() -> None:
    """Both passes of a repeated hour give the same hour, as the API is asked for it once."""
    passes = [at("2021-04-04 02:30+11:00"), at("2021-04-04 02:30+10:00")]
    assert len({Hour.showing(one, MELBOURNE) for one in passes}) == 1


def test_an_hour_tells_its_date_and_time_as_users_read_them() -> None:
    """An hour is told by date and hour, with both digits."""
    assert str(hour(MELBOURNE, "2021-09-04 03:00")) == "2021-09-04 03:00"


@pytest.mark.parametrize(
    ("zone", "wall", "found"),
    [
        (MELBOURNE, "2021-09-14 15:03:34", ["2021-09-14 15:03:34+10:00"]),
        (MELBOURNE, "2021-04-04 02:30", ["2021-04-04 02:30+11:00", "2021-04-04 02:30+10:00"]),
        (MELBOURNE, "2021-10-03 02:30", []),
        (LORD_HOWE, "2021-04-04 01:45", ["2021-04-04 01:45+11:00", "2021-04-04 01:45+10:30"]),
        (LORD_HOWE, "2021-04-04 01:15", ["2021-04-04 01:15+11:00"]),
        (CHATHAM, "2021-09-26 03:44:59", []),
        (CHATHAM, "2021-09-26 03:45", ["2021-09-26 03:45+13:45"]),
    ],
)
def test_a_time_has_the_instants_at_which_clocks_show_it(
    zone: ZoneInfo, wall: str, found: list[str]
) -> None:
    """A wall-clock time stands for no instant, one, or two in order."""
    assert instants(datetime.fromisoformat(wall), zone) == [at(one) for one in found]


# The first and the last of a span


@pytest.mark.parametrize(
    ("zone", "instant", "text"),
    [
        (MELBOURNE, "2021-09-14 15:00+10:00", "2021-09-14 15:00"),
        (MELBOURNE, "2021-09-14 15:59:59.999999+10:00", "2021-09-14 15:00"),
        (MELBOURNE, "2021-04-04 02:30+10:00", "2021-04-04 02:00"),
        (MELBOURNE, "2021-10-03 03:00+11:00", "2021-10-03 03:00"),
        (CHATHAM, "2021-04-04 02:59+13:45", "2021-04-04 02:00"),
        (CHATHAM, "2021-04-04 03:00+13:45", "2021-04-04 02:00"),
        (CHATHAM, "2021-04-04 03:10+13:45", "2021-04-04 02:00"),
        (CHATHAM, "2021-04-04 02:59+12:45", "2021-04-04 02:00"),
        (CHATHAM, "2021-04-04 03:00+12:45", "2021-04-04 03:00"),
        (CHATHAM, "2021-09-26 03:50+13:45", "2021-09-26 03:00"),
        (TROLL, "2021-10-31 02:30+02:00", "2021-10-31 01:00"),
        (TROLL, "2021-10-31 02:30+00:00", "2021-10-31 02:00"),
    ],
)
def test_the_first_hour_after_an_instant_may_have_shown_before(
    zone: ZoneInfo, instant: str, text: str
) -> None:
    """The first hour after an instant is the first with any part, or second pass, to come."""
    assert Hour.first_after(at(instant), zone) == hour(zone, text)


@pytest.mark.parametrize(
    ("zone", "instant", "text"),
    [
        (MELBOURNE, "2021-09-14 15:00+10:00", "2021-09-14 14:00"),
        (MELBOURNE, "2021-09-14 15:00:00.000001+10:00", "2021-09-14 15:00"),
        (MELBOURNE, "2021-04-04 02:00+10:00", "2021-04-04 02:00"),
        (MELBOURNE, "2021-10-03 03:00+11:00", "2021-10-03 01:00"),
        (CHATHAM, "2021-04-04 03:00+13:45", "2021-04-04 02:00"),
        (CHATHAM, "2021-04-04 03:10+13:45", "2021-04-04 03:00"),
        (CHATHAM, "2021-04-04 02:50+12:45", "2021-04-04 03:00"),
        (CHATHAM, "2021-04-04 04:00+12:45", "2021-04-04 03:00"),
        (CHATHAM, "2021-09-26 03:45+13:45", "2021-09-26 02:00"),
        (TROLL, "2021-10-31 01:30+00:00", "2021-10-31 02:00"),
    ],
)
def test_the_last_hour_before_an_instant_starts_before_it(
    zone: ZoneInfo, instant: str, text: str
) -> None:
    """The last hour before an instant is the last to start before it, even if another shows."""
    assert Hour.last_before(at(instant), zone) == hour(zone, text)


# When an hour is due


@pytest.mark.parametrize(
    ("zone", "now", "text"),
    [
        (MELBOURNE, "2021-09-14 16:03+10:00", "2021-09-14 14:00"),
        (MELBOURNE, "2021-09-14 16:04:59.999999+10:00", "2021-09-14 14:00"),
        (MELBOURNE, "2021-09-14 16:05+10:00", "2021-09-14 15:00"),
        (MELBOURNE, "2021-09-14 16:06+10:00", "2021-09-14 15:00"),
        # Between the passes, and in the second.
        (MELBOURNE, "2021-04-04 02:30+10:00", "2021-04-04 01:00"),
        (MELBOURNE, "2021-04-04 03:04+10:00", "2021-04-04 01:00"),
        (MELBOURNE, "2021-04-04 03:05+10:00", "2021-04-04 02:00"),
        (MELBOURNE, "2021-10-03 03:04+11:00", "2021-10-03 00:00"),
        (MELBOURNE, "2021-10-03 03:05+11:00", "2021-10-03 01:00"),
        (LORD_HOWE, "2021-04-04 01:45+10:30", "2021-04-04 00:00"),
        (LORD_HOWE, "2021-04-04 02:05+10:30", "2021-04-04 01:00"),
        (CHATHAM, "2021-04-04 03:30+13:45", "2021-04-04 01:00"),
        (CHATHAM, "2021-04-04 03:04+12:45", "2021-04-04 01:00"),
        (CHATHAM, "2021-04-04 03:05+12:45", "2021-04-04 02:00"),
        (CHATHAM, "2021-04-04 04:04+12:45", "2021-04-04 02:00"),
        (CHATHAM, "2021-04-04 04:05+12:45", "2021-04-04 03:00"),
        (CHATHAM, "2021-09-26 03:49+13:45", "2021-09-26 01:00"),
        (CHATHAM, "2021-09-26 03:50+13:45", "2021-09-26 02:00"),
        (CHATHAM, "2021-09-26 04:05+13:45", "2021-09-26 03:00"),
    ],
)
def test_an_hour_is_due_when_its_last_pass_has_settled(
    zone: ZoneInfo, now: str, text: str
) -> None:
    """An hour is due once the settling time has passed since the end of its last pass."""
    assert last_due(at(now), timedelta(minutes=5), zone) == hour(zone, text)


def test_an_hour_is_due_at_its_end_if_nothing_has_to_settle() -> None:
    """Without a settling time an hour is due as it ends, and no sooner."""
    end = at("2021-09-14 16:00+10:00")
    assert last_due(end, timedelta(), MELBOURNE) == hour(MELBOURNE, "2021-09-14 15:00")
    assert last_due(end - TICK, timedelta(), MELBOURNE) == hour(MELBOURNE, "2021-09-14 14:00")


# Spans of time

A, B, C, D, E = (at(f"2021-09-14 {hh}:00+10:00") for hh in range(10, 15))


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ((B, C), [(A, B), (C, D)]),
        ((A, B), [(B, D)]),
        ((C, D), [(A, C)]),
        ((A, D), []),
        ((NEVER, FOREVER), []),
        ((D, E), [(A, D)]),
        ((E, FOREVER), [(A, D)]),
        ((NEVER, A), [(A, D)]),
        ((NEVER, A - TICK), [(A, D)]),
        ((B, B), [(A, B), (B, D)]),
    ],
)
def test_time_taken_from_a_span_leaves_what_lies_before_and_after(
    gone: Span, left: list[Span]
) -> None:
    """What is left of a span is its parts outside the time that is taken away."""
    assert without([(A, D)], gone) == left


def test_time_is_taken_from_each_span() -> None:
    """Time taken away may end in one span and begin in another."""
    assert without([(A, C), (D, FOREVER)], (B, E)) == [(A, B), (E, FOREVER)]


def test_only_what_lies_between_the_bounds_is_within() -> None:
    """Spans are cut at the bounds, and those outside or at a bound's far side are dropped."""
    assert within([(NEVER, B), (B, C), (C, FOREVER)], B, D) == [(B, C), (C, D)]


def test_spans_have_no_bound_above_unless_one_is_given() -> None:
    """Without a second bound the spans go on as before."""
    assert within([(A, FOREVER)], C) == [(C, FOREVER)]


def test_spans_are_widened_to_whole_hours() -> None:
    """A span that begins or ends in the middle of an hour takes in all of that hour."""
    ragged = span("2021-09-14 10:20+10:00", "2021-09-14 12:00:01+10:00")
    assert whole_hours([ragged], MELBOURNE) == [(A, D)]


def test_spans_on_the_hour_are_not_widened() -> None:
    """A span that begins and ends on the hour stays as it is."""
    assert whole_hours([(A, B), (C, D)], MELBOURNE) == [(A, B), (C, D)]


def test_a_span_without_an_end_stays_without_one() -> None:
    """Only the start of a span without an end is widened."""
    assert whole_hours([(A + TICK, FOREVER)], MELBOURNE) == [(A, FOREVER)]


def test_widened_spans_that_meet_are_joined() -> None:
    """Spans that come to share an hour, or to touch, become one, so no hour is asked twice."""
    ragged = [(A, A + TICK), (A + 2 * TICK, B), (B, B + TICK), (D, E)]
    assert whole_hours(ragged, MELBOURNE) == [(A, C), (D, E)]


def test_a_span_within_another_does_not_shorten_it() -> None:
    """Of two spans that overlap the later end counts."""
    assert whole_hours([(A, FOREVER), (B, C)], MELBOURNE) == [(A, FOREVER)]


def test_whole_hours_come_in_order() -> None:
    """Spans are put in order of time."""
    assert whole_hours([(C, D), (A, B)], MELBOURNE) == [(A, B), (C, D)]


def test_a_span_inside_interleaved_hours_takes_in_the_earlier_one() -> None:
    """From within the later of two interleaved hours the earlier is whole too: it comes again."""
    ragged = span("2021-04-04 03:10+13:45", "2021-04-04 04:00+12:45")
    whole = span("2021-04-04 02:00+13:45", "2021-04-04 04:00+12:45")
    assert whole_hours([ragged], CHATHAM) == [whole]


def test_a_span_that_is_widened_past_another_takes_it_in() -> None:
    """A span that begins later may be widened to an earlier hour, and keeps that start."""
    read_in_part = span("2021-04-04 03:00+13:45", "2021-04-04 03:10+13:45")
    ragged = span("2021-04-04 02:50+12:45", "2021-04-04 04:00+12:45")
    whole = span("2021-04-04 02:00+13:45", "2021-04-04 04:00+12:45")
    assert whole_hours([read_in_part, ragged], CHATHAM) == [whole]


# Counting


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("Australia/Brisbane", 8760),
        ("Australia/Melbourne", 8759),
        ("Europe/London", 8759),
        ("America/Santiago", 8759),
        ("Australia/Lord_Howe", 8760),
        ("Pacific/Chatham", 8760),
        ("Antarctica/Troll", 8758),
    ],
)
def test_a_year_has_the_hours_that_its_clocks_show(key: str, number: int) -> None:
    """A year has 8760 hours less those that clocks skip whole; a repeated one counts once."""
    zone = ZoneInfo(key)
    year = hour(zone, "2021-01-01 00:00").start, hour(zone, "2022-01-01 00:00").start
    assert count([year], zone) == number


def test_a_skipped_day_has_no_hours() -> None:
    """Where clocks skip a day, its 24 hours are not counted."""
    days = span("2011-12-29 00:00-10:00", "2012-01-01 00:00+14:00")
    assert count([days], ZoneInfo("Pacific/Apia")) == 48


@pytest.mark.parametrize(
    ("key", "days"),
    [
        (key, days)
        for key in ("Australia/Melbourne", "Australia/Lord_Howe", "America/Santiago")
        for days in (("2021-04-02", "2021-04-06"), ("2021-09-03", "2021-10-06"))
    ]
    + [
        ("Pacific/Chatham", ("2021-09-24", "2021-09-28")),
        ("Africa/Cairo", ("2023-04-01", "2023-05-01")),
    ]
    + [("Antarctica/Troll", ("2021-03-26", "2021-11-02"))],
)
def test_counting_and_stepping_agree(key: str, days: tuple[str, str]) -> None:
    """Hours are counted as many as stepping meets, from whatever hour to whatever hour."""
    zone = ZoneInfo(key)
    first, stop = (hour(zone, day) for day in days)
    hours = hours_between(first, stop)
    for skipped in (0, 1, 20, 49, 50, 51, 52, 70, 71):
        some = hours[skipped:]
        assert count([(some[0].start, stop.start)], zone) == len(some)
        some = hours[: len(hours) - skipped]
        assert count([(first.start, some[-1].next().start)], zone) == len(some)


def test_an_hour_that_is_begun_counts() -> None:
    """A span that ends in the middle of an hour has that hour too."""
    assert count([(A, B + TICK)], MELBOURNE) == 2


def test_counts_of_several_spans_are_added() -> None:
    """Several spans have the hours of all of them, and no spans have none."""
    assert count([(A, B), (C, E)], MELBOURNE) == 3
    assert count([], MELBOURNE) == 0


# What is left to ask

START = at("2021-09-14 10:00+10:00")


def backlog(
    *unread: Span, start: datetime = START, lookback: int = 0, zone: ZoneInfo = MELBOURNE
) -> Backlog:
    """What is left to ask by this bookmark."""
    return Backlog(unread, start=start, lookback=lookback, zone=zone)


def test_a_first_run_asks_from_the_hour_of_the_start() -> None:
    """Without a bookmark all is unread from the start of the hour in which `start` lies."""
    assert backlog(start=A + 30 * TICK).to_ask(D) == [(A, D)]


def test_a_first_run_takes_in_an_hour_whose_second_pass_is_to_come() -> None:
    """A start within the later of two interleaved hours begins with the earlier."""
    start, limit = span("2021-04-04 03:10+13:45", "2021-04-04 05:00+12:45")
    expected = [(at("2021-04-04 02:00+13:45"), limit)]
    assert backlog(start=start, zone=CHATHAM).to_ask(limit) == expected


def test_a_bookmark_on_the_hour_goes_on_with_that_hour() -> None:
    """A bookmark on the hour does not ask for the hour before again."""
    assert backlog((C, FOREVER)).to_ask(E) == [(C, E)]


def test_a_bookmark_within_an_hour_goes_on_at_its_start() -> None:
    """A bookmark in the middle of an hour asks for all of that hour."""
    assert backlog((C + TICK, FOREVER)).to_ask(E) == [(C, E)]


def test_a_bookmark_within_a_second_pass_goes_on_at_the_start_of_the_first() -> None:
    """A bookmark in the second pass of an hour asks for all of that hour."""
    bookmark, limit = span("2021-04-04 02:30+10:00", "2021-04-04 04:00+10:00")
    start = at("2021-04-01 00:00+11:00")
    expected = [(at("2021-04-04 02:00+11:00"), limit)]
    assert backlog((bookmark, FOREVER), start=start).to_ask(limit) == expected


@pytest.mark.parametrize(
    ("bookmark", "first"),
    [
        ("03:00+13:45", "03:00+13:45"),
        ("03:10+13:45", "02:00+13:45"),
        ("02:45+12:45", "02:00+13:45"),
        ("03:00+12:45", "03:00+13:45"),
        ("03:30+12:45", "03:00+13:45"),
        ("04:00+12:45", "04:00+12:45"),
    ],
)
def test_a_bookmark_where_hours_interleave_tells_which_of_them_is_read(
    bookmark: str, first: str
) -> None:
    """A bookmark at an hour's very start has read the hour before, second pass and all."""
    start, limit = span("2021-04-01 00:00+13:45", "2021-04-04 06:00+12:45")
    work = backlog((at(f"2021-04-04 {bookmark}"), FOREVER), start=start, zone=CHATHAM)
    assert work.to_ask(limit) == [(at(f"2021-04-04 {first}"), limit)]


def test_nothing_before_the_start_is_asked() -> None:
    """A bookmark before the start does not bring back what lies before the start."""
    work = backlog((A, B), (C, FOREVER), start=D)
    assert work.to_ask(E) == [(D, E)]
    assert work.unread == [(D, FOREVER)]


def test_a_bookmark_after_the_start_is_followed() -> None:
    """A start before the bookmark does not ask again for what was read."""
    assert backlog((D, FOREVER), start=A).to_ask(E) == [(D, E)]


def test_nothing_at_or_after_the_limit_is_asked() -> None:
    """Where the limit is at or before what is unread there is nothing to ask."""
    assert backlog((C, FOREVER)).to_ask(C) == []
    assert backlog((C, FOREVER)).to_ask(B) == []


def test_intervals_that_are_owed_are_asked_in_order() -> None:
    """What is owed is asked for as well as what is new, in whole hours."""
    work = backlog((A + TICK, B - TICK), (D, FOREVER))
    assert work.to_ask(E) == [(A, B), (D, E)]


def test_owed_intervals_in_one_hour_are_asked_once() -> None:
    """Two owed parts of one hour are one hour to ask."""
    work = backlog((A, A + TICK), (B - TICK, B), (D, FOREVER))
    assert work.to_ask(D) == [(A, B)]


def test_lookback_asks_again_for_the_last_finished_hours() -> None:
    """Looking back reads as many finished hours again as it is told, and what is new."""
    assert backlog((D, FOREVER), lookback=2).to_ask(E) == [(B, E)]


def test_lookback_does_not_go_before_the_start() -> None:
    """Looking back ends at the start."""
    assert backlog((C, FOREVER), start=B, lookback=9).to_ask(E) == [(B, E)]


def test_lookback_counts_from_the_hour_of_the_bookmark() -> None:
    """An hour that is partly read does not count as one of the finished hours."""
    assert backlog((D + TICK, FOREVER), lookback=1).to_ask(E) == [(C, E)]


def test_lookback_counts_the_hours_that_exist() -> None:
    """Looking back over an hour that clocks skipped goes one further."""
    bookmark, limit = span("2021-10-03 04:00+11:00", "2021-10-03 05:00+11:00")
    work = backlog((bookmark, FOREVER), lookback=2)
    assert work.to_ask(limit) == [(at("2021-10-03 01:00+10:00"), limit)]


def test_lookback_keeps_what_is_owed() -> None:
    """Looking back from the newest bookmark asks for owed intervals too, no hour twice."""
    work = backlog((A, B), (D, FOREVER), lookback=1)
    assert work.to_ask(E) == [(A, B), (C, E)]


def test_lookback_does_not_take_the_bookmark_back() -> None:
    """What is read again was read before: it does not become unread."""
    work = backlog((D, FOREVER), lookback=2)
    assert work.unread == [(D, FOREVER)]
    work.finish(Hour.showing(B, MELBOURNE), FOREVER)
    assert work.unread == [(D, FOREVER)]


def test_a_finished_hour_is_neither_asked_nor_unread() -> None:
    """Finishing the oldest hour moves the bookmark to the start of the next."""
    work = backlog((A, FOREVER))
    work.finish(Hour.showing(A, MELBOURNE), FOREVER)
    assert work.to_ask(D) == [(B, D)]
    assert work.unread == [(B, FOREVER)]


def test_finishing_a_newer_hour_leaves_the_older_ones_owed() -> None:
    """Finishing an hour out of order leaves what lies before and what lies after."""
    work = backlog((A, FOREVER))
    work.finish(Hour.showing(C, MELBOURNE), FOREVER)
    assert work.unread == [(A, C), (D, FOREVER)]
    assert work.to_ask(E) == [(A, C), (D, E)]


def test_finishing_what_is_owed_leaves_the_newest_bookmark_alone() -> None:
    """Owed hours that are finished vanish, and the last span stays without an end."""
    work = backlog((A, B), (D, FOREVER))
    work.finish(Hour.showing(A, MELBOURNE), FOREVER)
    assert work.unread == [(D, FOREVER)]


def test_an_hour_before_one_that_is_skipped_is_finished_up_to_the_next_that_exists() -> None:
    """Finishing the hour before a gap moves the bookmark to the hour after the gap."""
    start, after = span("2021-10-03 01:00+10:00", "2021-10-03 03:00+11:00")
    work = backlog(start=start)
    work.finish(Hour.showing(start, MELBOURNE), FOREVER)
    assert work.unread == [(after, FOREVER)]
    assert after.astimezone(MELBOURNE).hour == 3


def test_a_limit_within_an_hour_leaves_the_rest_of_it_unread() -> None:
    """An hour that was read up to a limit is unread from there on, and not asked again now."""
    work = backlog((A, FOREVER))
    limit = A + timedelta(minutes=20)
    work.finish(Hour.showing(A, MELBOURNE), limit)
    assert work.unread == [(limit, FOREVER)]
    assert work.to_ask(limit) == []


def test_the_rest_of_an_hour_is_asked_by_the_next_run() -> None:
    """A bookmark that a limit left within an hour asks for that hour again."""
    work = backlog((A, FOREVER))
    work.finish(Hour.showing(A, MELBOURNE), A + timedelta(minutes=20))
    assert backlog(*work.unread).to_ask(C) == [(A, C)]


@pytest.mark.parametrize(
    ("zone", "hours", "limit", "second_pass"),
    [
        (MELBOURNE, ["02:00+11:00"], "02:00+10:00", "02:30+10:00"),
        (CHATHAM, ["02:00+13:45", "03:00+13:45"], "03:30+13:45", "02:50+12:45"),
        (CHATHAM, ["02:00+13:45"], "03:00+13:45", "02:50+12:45"),
    ],
    ids=["Melbourne, between the passes", "Chatham, within an hour", "Chatham, on the hour"],
)
def test_a_limit_before_a_second_pass_leaves_that_pass_unread(
    zone: ZoneInfo, hours: list[str], limit: str, second_pass: str
) -> None:
    """Legs of a second pass after the limit were left out, so the next run asks for them."""
    day = "2021-04-04"
    starts = [at(f"{day} {one}") for one in hours]
    work = backlog(start=starts[0], zone=zone)
    for one in starts:
        work.finish(Hour.showing(one, zone), at(f"{day} {limit}"))
    later = backlog(*work.unread, start=starts[0], zone=zone)
    (asked,) = later.to_ask(at(f"{day} 06:00+10:00"))
    left_out = Hour.showing(at(f"{day} {second_pass}"), zone)
    assert asked[0] <= left_out.start


def test_hours_divide_all_time_even_where_they_interleave() -> None:
    """Finishing hours one by one, newest or oldest first, uses up exactly their time."""
    start, limit = span("2021-04-04 00:00+13:45", "2021-04-04 06:00+12:45")
    hours = [Hour.showing(start, CHATHAM)]
    while hours[-1].next().start < limit:
        hours.append(hours[-1].next())
    for one, following in pairwise(hours):
        work = backlog(start=start, zone=CHATHAM)
        work.finish(one, FOREVER)
        rest = [(start, one.start), (following.start, FOREVER)]
        assert work.unread == [piece for piece in rest if piece[0] < piece[1]]
