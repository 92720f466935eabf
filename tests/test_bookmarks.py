"""Sets of hours, bookmarks, and the hours that a run wants."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from times import CHANGES, HOUR, at, watch

from tap_noojee.bookmarks import (
    Backlog,
    Hours,
    Source,
    load_bookmark,
    make_bookmark,
)
from tap_noojee.errors import StateError

quick = settings(deadline=None, derandomize=True, max_examples=100)

MELBOURNE = ZoneInfo("Australia/Melbourne")
SOURCE = Source("pbx.example.com", MELBOURNE)
DAY = datetime.fromisoformat("2021-09-14")
NOW = at("2021-09-15T00:00+10:00")
TICK = timedelta(microseconds=1)


def hour(number: int) -> datetime:
    """An hour of the day, or of a later one."""
    return DAY + number * HOUR


def spans(*bounds: tuple[int, int]) -> Hours:
    """Ranges of hours by their numbers, the second of each exclusive."""
    return Hours.merge((hour(first), hour(end)) for first, end in bounds)


def numbers(hours: Hours) -> set[int]:
    """The numbers of hours. Checks that the ranges are in order and do not touch."""
    flat = [bound for span in hours.ranges for bound in span]
    assert flat == sorted(set(flat))
    found = {(s + k * HOUR - DAY) // HOUR for s, e in hours.ranges for k in range((e - s) // HOUR)}
    assert len(hours) == len(found)
    return found


# Sets of hours

RANGES = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=5)


@quick
@given(RANGES, RANGES, st.integers(0, 25))
def test_hours_are_a_set(
    first: list[tuple[int, int]], second: list[tuple[int, int]], n: int
) -> None:
    a, b = spans(*first), spans(*second)
    left, right = ({n for span in bounds for n in range(*span)} for bounds in (first, second))
    assert numbers(a) == left
    assert bool(a) == bool(left)
    assert numbers(a | b) == left | right
    assert numbers(a & b) == left & right
    assert numbers(a - b) == left - right
    assert numbers(a.newest(n)) == set(sorted(left)[len(left) - min(n, len(left)) :])
    if left:
        assert (a.first, a.last) == (hour(min(left)), hour(max(left)))


# Bookmarks


def load(bookmark: dict[str, Any], start: int = 0, now: datetime = NOW) -> Hours:
    return load_bookmark(bookmark, SOURCE, hour(start), now)


def written(*bounds: tuple[int, int]) -> dict[str, Any]:
    """A bookmark as a state file has it."""
    return dict(json.loads(json.dumps(make_bookmark(spans(*bounds), SOURCE, "callend"))))


def test_bookmark_has_the_documented_form() -> None:
    assert written((0, 2), (3, 16)) == {
        "replication_key": "callend",
        "replication_key_value": "2021-09-14T06:00:00+00:00",
        "hours_read": [
            {"from": "2021-09-14T00:00", "to": "2021-09-14T02:00"},
            {"from": "2021-09-14T03:00", "to": "2021-09-14T16:00"},
        ],
        "pbx": "pbx.example.com",
        "timezone": "Australia/Melbourne",
    }
    assert "replication_key_value" not in written()


def test_bookmarks_are_read_as_they_were_written() -> None:
    for bounds in ([], [(0, 1)], [(0, 5), (7, 24)], [(-9000, 3)]):
        assert load(written(*bounds)) == spans(*bounds), bounds


def test_every_bookmark_near_a_change_is_read_as_it_was_written() -> None:
    """Also the hours that clocks skip after it, so that ranges join in the next run."""
    for key, change in CHANGES:
        clocks = watch(key, change)
        source = Source("pbx", clocks.zone)
        hours = clocks.whole_hours()
        for last in hours[1:]:
            backlog = Backlog(Hours(), hours[0], last, clocks.zone, newest_first=False)
            backlog.mark_read(last)
            bookmark = make_bookmark(backlog.read, source, "callend")
            assert bookmark["replication_key_value"] == clocks.end(last).isoformat()
            found = load_bookmark(bookmark, source, hours[0], clocks.end(last))
            assert found == backlog.read, (clocks, last)


def test_range_that_ends_with_a_skipped_hour_has_the_end_of_the_hour_before() -> None:
    """Someone may have edited the state."""
    start = datetime.fromisoformat("2021-10-03T00")
    bookmark = make_bookmark(Hours(((start, start + 3 * HOUR),)), SOURCE, "callend")
    assert at(bookmark["replication_key_value"]) == at("2021-10-03T02:00+10:00")


def test_value_alone_stands_for_all_hours_from_start_date() -> None:
    cases = [("2021-09-14T05:00:00+00:00", 15), ("2021-09-14T15:59:59+10:00", 15)]
    for value, end in [*cases, ("2021-09-14T16:00:00", 16), ("2021-09-14", 2)]:
        assert load({"replication_key_value": value}, start=2) == spans((2, end)), value
    assert not load({"replication_key_value": "2021-09-14T05:00:00+00:00"}, start=15)


def test_no_value_means_that_nothing_was_read() -> None:
    assert not load({"replication_key": "callend"})
    # Meltano merges the state of a full refresh into the one before.
    assert not load(written((0, 5)) | written())


def test_setting_the_value_back_rewinds() -> None:
    bookmark = written((0, 5), (7, 12))
    for value, expected in (
        ("2021-09-14T12:00+10:00", [(0, 5), (7, 12)]),
        ("2021-09-14T11:59:59+10:00", [(0, 5), (7, 11)]),
        ("2021-09-14T07:00+10:00", [(0, 5)]),
        ("2021-09-14T03:30+10:00", [(0, 3)]),
        ("2021-09-13T03:30+10:00", []),
        # Setting it ahead adds nothing.
        ("2021-09-15T00:00+10:00", [(0, 5), (7, 12)]),
    ):
        assert load(bookmark | {"replication_key_value": value}) == spans(*expected), value


def test_ranges_may_come_in_any_order_and_overlap() -> None:
    bookmark = written((0, 5), (7, 12))
    bookmark["hours_read"] = [*reversed(bookmark["hours_read"]), *written((4, 8))["hours_read"]]
    assert load(bookmark) == spans((0, 12))


def test_state_of_another_pbx_or_zone_is_rejected() -> None:
    for name, previous in (("pbx", "127.0.0.1"), ("timezone", "Australia/Perth"), ("pbx", None)):
        for bookmark in (written((0, 5)) | {name: previous}, written() | {name: previous}):
            with pytest.raises(StateError) as error:
                load(bookmark)
            current = {"pbx": "pbx.example.com", "timezone": "Australia/Melbourne"}[name]
            for part in (name, repr(previous), repr(current), "meltano state clear"):
                assert part in str(error.value), part


def test_missing_pbx_and_zone_and_keys_of_the_sdk_are_accepted() -> None:
    bookmark = written((0, 5)) | {"progress_markers": {"Note": ""}}
    bookmark |= dict.fromkeys(("starting_replication_value", "replication_key_signpost"), "x")
    del bookmark["pbx"], bookmark["timezone"]
    assert load(bookmark) == spans((0, 5))


def test_state_may_be_an_hour_ahead_of_the_clock() -> None:
    bookmark = written((0, 5))
    end = at("2021-09-14T05:00+10:00")
    assert load(bookmark, now=end - HOUR) == spans((0, 5))
    with pytest.raises(StateError) as error:
        load(bookmark, now=end - HOUR - TICK)
    for part in ("2021-09-13T19:00:00+00:00", "2021-09-13T17:59:59+00:00", "clock"):
        assert part in str(error.value)


UNREADABLE: list[dict[str, Any]] = [
    {"owed": [], "since": "2021-09-14T00:00:00+00:00"},
    {"since": "2021-09-14T00:00:00+00:00"},
    {"replication_key_value": None},
    {"replication_key_value": "yesterday"},
    {"replication_key_value": "1970-01-01T00:00:00+00:00"},
    *({"hours_read": None}, {"hours_read": {}}, {"hours_read": "2021-09-14"}),
    *({"hours_read": [item]} for item in (None, {}, "2021-09-14", 7, [1], {"from": "x"})),
    *({"hours_read": [{"from": first, "to": "2021-09-14T01:00"}]} for first in (None, 5, "noon")),
    *(
        {"hours_read": [{"from": f"2021-09-14T{first}", "to": f"2021-09-14T{end}"}]}
        for first, end in (
            *(("00:30", "01:00"), ("00:00", "01:00:01"), ("00:00", "01:00:00.000001")),
            *(("00:00+10:00", "01:00"), ("00:00", "01:00Z")),
            *(("01:00", "01:00"), ("02:00", "01:00")),
        )
    ),
]


def test_unreadable_bookmark_is_an_error_in_one_line() -> None:
    for change in UNREADABLE:
        with pytest.raises(StateError) as error:
            load(written((0, 5)) | change)
        for part in ("unreadable", min(change), "meltano state clear"):
            assert part in str(error.value), change
        assert "\n" not in str(error.value)


def test_any_value_of_any_key_is_either_read_or_rejected() -> None:
    values: list[Any] = [
        None,
        True,
        0,
        20210914,
        -1.5,
        "",
        "x",
        "2021-09-14",
        "\0",
        [],
        [[]],
        {},
        {"x": {}},
    ]
    for key in [*written((0, 5)), "progress_markers", "x"]:
        for value in values:
            try:
                read = load(written((0, 5)) | {key: value})
            except StateError:
                continue
            assert load(make_bookmark(read, SOURCE, "callend")) == read, (key, value)


# Backlog

LAST = hour(100)


def backlog(
    read: Hours, first: int = 0, last: int = 11, *, newest_first: bool = False, again: int = 0
) -> Backlog:
    made = Backlog(read, hour(first), hour(last), MELBOURNE, newest_first)
    made.look_back(again, LAST)
    return made


def request_all(made: Backlog, last_due: datetime = LAST, *, limit: int = 99) -> list[int]:
    """The numbers of the hours that a run requests, in order."""
    requested: list[int] = []
    while len(requested) < limit:
        one = made.next_hour(last_due, prefer_unread=len(requested) + 1 == limit)
        if one is None:
            assert not made.wanted(last_due)
            break
        before = len(made.wanted(last_due))
        made.mark_read(one)
        assert len(made.wanted(last_due)) == before - 1
        requested.append((one - DAY) // HOUR)
    return requested


def test_gaps_are_filled_in_either_order() -> None:
    read = spans((2, 4), (6, 8))
    gaps = [0, 1, 4, 5, 8, 9, 10, 11]
    assert request_all(backlog(read)) == gaps
    assert request_all(backlog(read, newest_first=True)) == gaps[::-1]


def test_hours_outside_the_bounds_are_not_wanted() -> None:
    assert request_all(backlog(Hours(), 3, 5)) == [3, 4, 5]
    assert request_all(backlog(spans((3, 5)), 3, 5)) == [5]
    assert request_all(backlog(spans((0, 20)), 3, 5)) == []
    assert request_all(backlog(Hours(), 5, 3)) == []


def test_only_hours_that_are_due_are_wanted() -> None:
    made = backlog(Hours())
    assert request_all(made, hour(3)) == [0, 1, 2, 3]
    assert made.next_hour(hour(3)) is None
    assert made.next_hour(hour(4)) == hour(4)
    made = backlog(spans((3, 4)), newest_first=True)
    assert [made.next_hour(hour(due)) for due in (3, 4)] == [hour(2), hour(4)]


def test_newest_hours_are_read_again_once() -> None:
    read = spans((0, 4), (6, 10))
    assert request_all(backlog(read, again=5)) == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert request_all(backlog(read, again=5, newest_first=True)) == [11, 10, 9, 8, 7, 6, 5, 4, 3]
    # Only hours that are due, between start_date and end_date.
    assert request_all(backlog(read, 2, 7, again=99)) == [2, 3, 4, 5, 6, 7]
    made = Backlog(read, hour(0), hour(11), MELBOURNE, newest_first=False)
    made.look_back(2, hour(7))
    assert made.again == spans((6, 8))
    assert not backlog(Hours(), again=3).again


def test_hour_to_read_again_must_be_due_as_well() -> None:
    """The PBX's clock may turn out to be behind; without this, the run would never end."""
    made = backlog(spans((0, 12)), again=3)
    assert request_all(made, hour(10)) == [9, 10]
    assert made.next_hour(hour(11)) == hour(11)


def test_last_hour_of_a_run_is_one_that_was_never_read() -> None:
    read = spans((3, 9))
    for newest_first, expected in ((False, [0, 1, 2]), (True, [8, 7, 2])):
        made = backlog(read, 0, 8, again=2, newest_first=newest_first)
        assert request_all(made, limit=3) == expected
    # Otherwise history would never be read if a new hour falls due before each run.
    made = backlog(read, 0, 9, again=2, newest_first=True)
    assert request_all(made, limit=3) == [9, 8, 2]


def test_failed_hours_are_left_for_a_later_run() -> None:
    made = backlog(spans((0, 9)), again=2)
    made.mark_failed(hour(7))
    made.mark_failed(hour(10))
    assert request_all(made) == [8, 9, 11]
    assert made.read == spans((0, 7), (8, 10), (11, 12))
    assert len(made.wanted(LAST)) == 0
    assert request_all(backlog(made.read)) == [7, 10]
