"""Hours of the PBX's clock, compared with clocks sampled minute by minute."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from times import CHANGES, HOUR, MINUTE, Clocks, at, clocks_around, wall_time

from tap_noojee.bookmarks import hours_between
from tap_noojee.hours import (
    end_of,
    hour_at,
    is_repeated,
    last_due,
    next_hour,
    resolve,
    skipped_hours,
)

TICK = timedelta(microseconds=1)


def hour(text: str) -> datetime:
    return datetime.fromisoformat(text)


def check(clocks: Clocks) -> None:
    """Compare the results of each function with the sampled clocks."""
    zone, existing = clocks.zone, clocks.whole_hours()
    for wall in clocks.all_hours():
        exists = wall in clocks.by_hour
        assert end_of(wall, zone) == (clocks.end(wall) if exists else None), (clocks, wall)
        assert is_repeated(wall, zone) == clocks.is_repeated(wall), (clocks, wall)
        minutes = [wall + k * MINUTE for k in range(60)]
        for minute in minutes:
            assert resolve(minute, zone) == clocks.by_minute.get(minute, []), (clocks, minute)
    for before, after in itertools.pairwise(existing):
        assert next_hour(before, zone) == after, clocks
    for instant in clocks.instants[::5]:
        expected = wall_time(instant, zone).replace(minute=0)
        assert hour_at(instant, zone) == hour_at(instant + MINUTE - TICK, zone) == expected
    skipped = sorted({*clocks.all_hours()} - {*existing})
    assert list(skipped_hours(existing[0], existing[-1], zone)) == skipped, clocks
    assert len(hours_between(existing[0], existing[-1], zone)) == len(existing), clocks
    for settle in (0 * MINUTE, 5 * MINUTE, 200 * MINUTE):
        for previous, wall in itertools.pairwise(existing):
            due = clocks.end(wall) + settle
            assert last_due(due, settle, zone) == wall, (clocks, wall)
            assert last_due(due - TICK, settle, zone) == previous, (clocks, wall)


def test_hours_match_sampled_clocks_around_each_kind_of_change() -> None:
    for key, change in CHANGES:
        check(clocks_around(key, change))


@pytest.mark.slow
def test_hours_match_sampled_clocks_around_every_change_since_2014() -> None:
    """Check one day for each distinct sequence of quarter-hourly offsets, up to 2030."""
    first, last = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2014, 2031))
    kinds: dict[tuple[object, ...], Clocks] = {}
    # Leave out Casey, whose clocks changed at 00:01: the tap looks only at quarter-hours.
    for key in sorted(available_timezones() - {"Antarctica/Casey"}):
        zone = ZoneInfo(key)
        days = range(first, last, 86400)
        offsets = [datetime.fromtimestamp(day, zone).utcoffset() for day in days]
        for n, day in enumerate(days[:-1]):
            if offsets[n] != offsets[n + 1]:
                quarters = (datetime.fromtimestamp(day + 900 * k, zone) for k in range(97))
                start = datetime.fromtimestamp(day, UTC)
                kind = tuple(quarter.utcoffset() for quarter in quarters)
                if kind not in kinds:
                    kinds[kind] = Clocks(zone, start - 8 * HOUR, start + 32 * HOUR)
    assert len(kinds) > 50
    for clocks in kinds.values():
        check(clocks)


def test_hours_match_literal_values_around_clock_changes() -> None:
    """The sampled clocks could have the same bug as the tap."""
    cases = [
        ("Australia/Melbourne", "2021-09-14T15", "2021-09-14T16:00+10:00", False),
        ("Australia/Melbourne", "2021-04-04T02", "2021-04-04T03:00+10:00", True),
        ("Australia/Melbourne", "2021-10-03T02", None, False),
        ("Australia/Lord_Howe", "2021-04-04T01", "2021-04-04T02:00+10:30", True),
        ("Pacific/Chatham", "2021-04-04T03", "2021-04-04T04:00+12:45", True),
        ("Pacific/Chatham", "2021-09-26T03", "2021-09-26T04:00+13:45", False),
        ("America/Santiago", "2021-09-05T00", None, False),
        ("Pacific/Apia", "2011-12-30T23", None, False),
    ]
    for key, text, end, repeated in cases:
        zone = ZoneInfo(key)
        assert end_of(hour(text), zone) == (at(end) if end else None), (key, text)
        assert is_repeated(hour(text), zone) == repeated, (key, text)


def test_skipped_hours_are_found_in_every_year_within_the_bounds() -> None:
    zone = ZoneInfo("Australia/Melbourne")
    skipped = [hour(f"{day}T02") for day in ("2020-10-04", "2021-10-03", "2022-10-02")]
    assert list(skipped_hours(skipped[0], skipped[-1], zone)) == skipped
    inner = skipped_hours(skipped[0] + HOUR, skipped[-1] - HOUR, zone)
    assert list(inner) == skipped[1:2]
    assert not list(skipped_hours(skipped[-1], skipped[0], zone))
    # Kiritimati skipped the last day of 1994.
    zone = ZoneInfo("Pacific/Kiritimati")
    skipped = list(skipped_hours(hour("1994-01-01"), hour("1995-12-31T23"), zone))
    assert skipped == [hour("1994-12-31") + k * HOUR for k in range(24)]
