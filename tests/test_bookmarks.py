"""Sets of hours, bookmarks, and the backlog of a run."""

import json
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model import has_failure_streak
from times import CHANGES, HOUR, at, clocks_around

from tap_noojee.bookmarks import Backlog, HourSet, Pbx, load_bookmark, make_bookmark
from tap_noojee.errors import StateError
from tap_noojee.hours import next_hour

quick = settings(deadline=None, derandomize=True, max_examples=100)

MELBOURNE = ZoneInfo("Australia/Melbourne")
SOURCE = Pbx("pbx.example.com", MELBOURNE)
DAY = datetime.fromisoformat("2021-09-14")
NOW = at("2021-09-15T00:00+10:00")
TICK = timedelta(microseconds=1)


def hour(number: int) -> datetime:
    """Return the hour with this number, counted from the start of the day."""
    return DAY + number * HOUR


def spans(*bounds: tuple[int, int]) -> HourSet:
    """Return the hours in these ranges of numbers, whose ends are exclusive."""
    return HourSet.merge((hour(first), hour(end)) for first, end in bounds)


def numbers(hours: HourSet) -> set[int]:
    """Return the numbers of the hours, and check that the ranges are in order and do not touch."""
    flat = [bound for span in hours.ranges for bound in span]
    assert flat == sorted(set(flat))
    found = {(hour - DAY) // HOUR for hour in hours}
    assert len(hours) == len(found)
    return found


RANGES = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=5)


def members(bounds: list[tuple[int, int]]) -> set[int]:
    return {n for span in bounds for n in range(*span)}


@quick
@given(RANGES, RANGES, st.integers(0, 25))
def test_hours_behave_like_a_set(
    first: list[tuple[int, int]], second: list[tuple[int, int]], n: int
) -> None:
    a, b = spans(*first), spans(*second)
    left, right = (members(bounds) for bounds in (first, second))
    assert numbers(a) == left
    assert bool(a) == bool(left)
    assert numbers(a | b) == left | right
    assert numbers(a & b) == left & right
    assert numbers(a - b) == left - right
    assert numbers(a.newest(n)) == {*sorted(left, reverse=True)[:n]}
    if left:
        assert (a.first, a.last) == (hour(min(left)), hour(max(left)))


def load(bookmark: dict[str, Any], start: int = 0, now: datetime = NOW) -> HourSet:
    return load_bookmark(bookmark, SOURCE, hour(start), now)


def saved(*bounds: tuple[int, int]) -> dict[str, Any]:
    """Return the bookmark for these hours, as a state file stores it."""
    return dict(json.loads(json.dumps(make_bookmark(spans(*bounds), SOURCE, "callend"))))


def test_bookmark_has_the_documented_form() -> None:
    assert saved((0, 2), (3, 16)) == {
        "replication_key": "callend",
        "replication_key_value": "2021-09-14T06:00:00+00:00",
        "hours_read": [
            {"from": "2021-09-14T00:00", "to": "2021-09-14T02:00"},
            {"from": "2021-09-14T03:00", "to": "2021-09-14T16:00"},
        ],
        "pbx": "pbx.example.com",
        "timezone": "Australia/Melbourne",
    }
    assert "replication_key_value" not in saved()


def test_bookmarks_near_clock_changes_survive_a_round_trip() -> None:
    """Skipped hours right after a read hour are marked as read, so that they leave no gap."""
    for key, change in CHANGES:
        clocks = clocks_around(key, change)
        source = Pbx("pbx", clocks.zone)
        hours = clocks.whole_hours()
        for last in hours[1:]:
            backlog = Backlog(
                HourSet(), hours[0], last, clocks.zone, newest_first=False, limit=None
            )
            backlog.mark_read(last)
            assert backlog.hours_read.last + HOUR == next_hour(last, clocks.zone)
            bookmark = make_bookmark(backlog.hours_read, source, "callend")
            assert bookmark["replication_key_value"] == clocks.end(last).isoformat()
            found = load_bookmark(bookmark, source, hours[0], clocks.end(last))
            assert found == backlog.hours_read, (clocks, last)


def test_skipped_hour_at_the_end_of_a_range_does_not_move_the_value() -> None:
    start = datetime.fromisoformat("2021-10-03T00")
    bookmark = make_bookmark(HourSet(((start, start + 3 * HOUR),)), SOURCE, "callend")
    assert at(bookmark["replication_key_value"]) == at("2021-10-03T02:00+10:00")


def test_value_without_ranges_means_all_hours_from_start_date() -> None:
    for value, end in (
        ("2021-09-14T05:00:00+00:00", 15),
        ("2021-09-14T15:59:59+10:00", 15),
        ("2021-09-14T16:00:00", 16),
        ("2021-09-14", 2),
    ):
        assert load({"replication_key_value": value}, start=2) == spans((2, end)), value
    assert not load({"replication_key_value": "2021-09-14T05:00:00+00:00"}, start=15)


def test_bookmark_without_value_means_no_hour_was_read() -> None:
    assert not load({"replication_key": "callend"})
    # Meltano merges the state of a full refresh into the previous state.
    assert not load(saved((0, 5)) | saved())


def test_setting_the_value_back_rewinds_the_tap() -> None:
    bookmark = saved((0, 5), (7, 12))
    for value, expected in (
        ("2021-09-14T12:00+10:00", [(0, 5), (7, 12)]),
        ("2021-09-14T11:59:59+10:00", [(0, 5), (7, 11)]),
        ("2021-09-14T07:00+10:00", [(0, 5)]),
        ("2021-09-14T03:30+10:00", [(0, 3)]),
        ("2021-09-13T03:30+10:00", []),
        # Setting the value ahead adds nothing.
        ("2021-09-15T00:00+10:00", [(0, 5), (7, 12)]),
    ):
        assert load(bookmark | {"replication_key_value": value}) == spans(*expected), value


def test_ranges_may_come_in_any_order_and_overlap() -> None:
    bookmark = saved((0, 5), (7, 12))
    bookmark["hours_read"] = [*reversed(bookmark["hours_read"]), *saved((4, 8))["hours_read"]]
    assert load(bookmark) == spans((0, 12))


def test_state_of_another_pbx_or_zone_is_rejected() -> None:
    for name, previous in (("pbx", "127.0.0.1"), ("timezone", "Australia/Perth"), ("pbx", None)):
        for bookmark in (saved((0, 5)) | {name: previous}, saved() | {name: previous}):
            with pytest.raises(StateError) as error:
                load(bookmark)
            current = {"pbx": "pbx.example.com", "timezone": "Australia/Melbourne"}[name]
            for part in (name, repr(previous), repr(current), "meltano state clear"):
                assert part in str(error.value), part


def test_pbx_and_zone_may_be_missing_and_sdk_keys_are_ignored() -> None:
    bookmark = saved((0, 5)) | {"progress_markers": {"Note": ""}}
    bookmark |= dict.fromkeys(("starting_replication_value", "replication_key_signpost"), "x")
    del bookmark["pbx"], bookmark["timezone"]
    assert load(bookmark) == spans((0, 5))


def test_state_may_be_at_most_an_hour_ahead_of_the_clock() -> None:
    bookmark = saved((0, 5))
    end = at("2021-09-14T05:00+10:00")
    assert load(bookmark, now=end - HOUR) == spans((0, 5))
    with pytest.raises(StateError) as error:
        load(bookmark, now=end - HOUR - TICK)
    for part in ("2021-09-13T19:00:00+00:00", "2021-09-13T17:59:59+00:00", "clock"):
        assert part in str(error.value)


UNREADABLE: list[dict[str, Any]] = [
    {"unknown": [], "x": 1},
    {"unknown": 1},
    {"replication_key_value": None},
    {"replication_key_value": "yesterday"},
    {"replication_key_value": "1970-01-01T00:00:00+00:00"},
    {"hours_read": None},
    {"hours_read": {}},
    {"hours_read": "2021-09-14"},
    *({"hours_read": [item]} for item in (None, {}, "2021-09-14", 7, [1], {"from": "x"})),
    *({"hours_read": [{"from": first, "to": "2021-09-14T01:00"}]} for first in (None, 5, "noon")),
    *(
        {"hours_read": [{"from": f"2021-09-14T{first}", "to": f"2021-09-14T{end}"}]}
        for first, end in (
            ("00:30", "01:00"), ("00:00", "01:00:01"), ("00:00", "01:00:00.000001"),
            ("00:00+10:00", "01:00"), ("00:00", "01:00Z"), ("01:00", "01:00"), ("02:00", "01:00"),
        )
    ),
]  # fmt: skip


def test_unreadable_bookmark_raises_a_one_line_error() -> None:
    for change in UNREADABLE:
        with pytest.raises(StateError) as error:
            load(saved((0, 5)) | change)
        first_key = min(change)  # the first unknown key, or the only key
        for part in ("unreadable", first_key, "meltano state clear"):
            assert part in str(error.value), change
        assert "\n" not in str(error.value)


def test_any_value_of_any_key_is_either_read_or_rejected() -> None:
    texts: list[Any] = ["", "x", "2021-09-14", "\0"]
    for key in [*saved((0, 5)), "progress_markers", "x"]:
        for value in (*texts, None, True, 0, 20210914, -1.5, [], [[]], {}, {"x": {}}):
            try:
                read = load(saved((0, 5)) | {key: value})
            except StateError:
                continue
            assert load(make_bookmark(read, SOURCE, "callend")) == read, (key, value)


@quick
@given(st.data())
def test_run_requests_each_wanted_hour_once(data: st.DataObject) -> None:
    """A limited run saves its last request for an unread hour, so lookback cannot fill every run.

    During a run, the newest due hour may move in either direction, because of the PBX's clock.
    """
    read, failing = data.draw(RANGES), data.draw(st.sets(st.integers(0, 20), max_size=8))
    first, last, due_at_start, newest_due = (data.draw(st.integers(0, 20)) for _ in range(4))
    lookback, limit = data.draw(st.integers(0, 6)), data.draw(st.integers(1, 22))
    newest_first = data.draw(st.booleans())
    before, done, failed = members(read), set[int](), set[int]()
    backlog = Backlog(spans(*read), hour(first), hour(last), MELBOURNE, newest_first, limit)
    backlog.plan_reread(lookback, hour(due_at_start))
    at_start = before & {*range(first, min(last, due_at_start) + 1)}
    inside = {*range(first, min(last, newest_due) + 1)}
    reread = {*sorted(at_start, reverse=True)[:lookback]} & inside
    while True:
        rest = ((inside - before) | reread) - done - failed
        unread = rest - before
        assert numbers(backlog.unread(hour(newest_due))) == unread
        assert numbers(backlog.pending(hour(newest_due))) == rest
        allowed = max(limit - len(done | failed), 0 if done else 1)
        is_over = has_failure_streak(before | done, failed) or not allowed
        chosen = backlog.choose(hour(newest_due))
        if is_over or not rest:
            break
        expected = (max if newest_first else min)((allowed == 1 and unread) or rest)
        assert chosen == hour(expected)
        if expected in failing:
            failed.add(expected)
            backlog.mark_failed(hour(expected))
        else:
            done.add(expected)
            backlog.mark_read(hour(expected))
    assert chosen is None
    assert numbers(backlog.hours_read) == before | done


def test_failures_end_the_run_even_if_newer_hours_fall_due() -> None:
    backlog = Backlog(HourSet(), hour(0), hour(20), MELBOURNE, newest_first=True, limit=None)
    for n in (10, 12, 14, 16, 18):
        assert backlog.choose(hour(n)) == hour(n)
        backlog.mark_failed(hour(n))
    assert backlog.choose(hour(20)) is None


def test_wide_gap_with_few_failures_does_not_end_the_run() -> None:
    read = spans((2, 3), (4, 5), (6, 7), (8, 9))
    backlog = Backlog(read, hour(0), hour(20), MELBOURNE, newest_first=True, limit=None)
    for n in (1, 3, 5, 7, 14):
        backlog.mark_failed(hour(n))
    assert backlog.choose(hour(14)) == hour(13)
