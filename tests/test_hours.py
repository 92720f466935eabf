"""The hours that clocks show: how they follow, when they start and end, when they are due."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from times import at

from tap_noojee.hours import Hour, count_between, instants

MELBOURNE = ZoneInfo("Australia/Melbourne")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
CHATHAM = ZoneInfo("Pacific/Chatham")
TROLL = ZoneInfo("Antarctica/Troll")

TICK = timedelta(microseconds=1)


def hour(zone: ZoneInfo, text: str) -> Hour:
    """Name an hour as clocks show it."""
    return Hour(datetime.fromisoformat(text), zone)


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
    assert Hour.containing(at(instant), MELBOURNE) == hour(MELBOURNE, text)


@pytest.mark.parametrize(
    ("zone", "text", "passes"),
    [
        (MELBOURNE, "2021-09-14 15:00", [("2021-09-14 15:00+10:00", 60)]),
        (MELBOURNE, "2021-04-04 02:00", [("2021-04-04 02:00+11:00", 120)]),
        (MELBOURNE, "2021-10-03 02:00", []),
        (LORD_HOWE, "2021-04-04 01:00", [("2021-04-04 01:00+11:00", 90)]),
        (
            CHATHAM,
            "2021-04-04 02:00",
            [("2021-04-04 02:00+13:45", 60), ("2021-04-04 02:45+12:45", 15)],
        ),
        (
            CHATHAM,
            "2021-04-04 03:00",
            [("2021-04-04 03:00+13:45", 45), ("2021-04-04 03:00+12:45", 60)],
        ),
        (
            TROLL,
            "2021-10-31 01:00",
            [("2021-10-31 01:00+02:00", 60), ("2021-10-31 01:00+00:00", 60)],
        ),
    ],
)
def test_an_hour_has_the_passes_in_which_clocks_show_it(
    zone: ZoneInfo, text: str, passes: list[tuple[str, int]]
) -> None:
    """An hour's passes are the stretches of time in which clocks show it, in order."""
    found = hour(zone, text).passes
    assert list(found) == [
        (at(start), at(start) + timedelta(minutes=minutes)) for start, minutes in passes
    ]


def test_hours_of_two_passes_are_one_hour() -> None:
    """Both passes of a repeated hour give the same hour, as it is requested once."""
    passes = [at("2021-04-04 02:30+11:00"), at("2021-04-04 02:30+10:00")]
    assert len({Hour.containing(one, MELBOURNE) for one in passes}) == 1


def test_an_hour_is_named_by_its_date_and_time() -> None:
    """An hour's name has its date and its hour, with both digits."""
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
    assert Hour.last_due(at(now), timedelta(minutes=5), zone) == hour(zone, text)


def test_an_hour_is_due_at_its_end_if_nothing_has_to_settle() -> None:
    """Without a settling time an hour is due as it ends, and no sooner."""
    end = at("2021-09-14 16:00+10:00")
    assert Hour.last_due(end, timedelta(), MELBOURNE) == hour(MELBOURNE, "2021-09-14 15:00")
    assert Hour.last_due(end - TICK, timedelta(), MELBOURNE) == hour(MELBOURNE, "2021-09-14 14:00")


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
    year = hour(zone, "2021-01-01 00:00"), hour(zone, "2021-12-31 23:00")
    assert count_between(*year) == number


@pytest.mark.parametrize(
    ("key", "first", "last", "number"),
    [
        ("Australia/Melbourne", "2021-10-03 00:00", "2021-10-03 01:00", 2),
        ("Australia/Melbourne", "2021-10-03 03:00", "2021-10-03 04:00", 2),
        ("America/Santiago", "2021-09-04 22:00", "2021-09-04 23:00", 2),
        ("America/Santiago", "2021-09-05 01:00", "2021-09-05 02:00", 2),
    ],
)
def test_a_skipped_hour_next_to_a_span_is_not_taken_from_its_hours(
    key: str, first: str, last: str, number: int
) -> None:
    """Hours up to, or from, one that clocks skip are all counted."""
    zone = ZoneInfo(key)
    assert count_between(hour(zone, first), hour(zone, last)) == number


def test_a_skipped_day_has_no_hours() -> None:
    """Where clocks skip a day, its 24 hours are not counted."""
    apia = ZoneInfo("Pacific/Apia")
    first, last = hour(apia, "2011-12-29 00:00"), hour(apia, "2011-12-31 23:00")
    assert count_between(first, last) == 48


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
        assert count_between(some[0], hours[-1]) == len(some)
        some = hours[: len(hours) - skipped]
        assert count_between(first, some[-1]) == len(some)
