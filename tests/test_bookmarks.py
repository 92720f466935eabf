"""Intervals, bookmarks, and what a run has still to request."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from times import at

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
from tap_noojee.errors import StateError
from tap_noojee.hours import Hour, Span

MELBOURNE = ZoneInfo("Australia/Melbourne")
CHATHAM = ZoneInfo("Pacific/Chatham")

TICK = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)


def span(start: str, end: str) -> Span:
    """Name the time between two times with an offset."""
    return at(start), at(end)


A, B, C, D, E = (at(f"2021-09-14 {hh}:00+10:00") for hh in range(10, 15))


# Intervals


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ([(B, C)], [(A, B), (C, D)]),
        ([(A, B)], [(B, D)]),
        ([(C, D)], [(A, C)]),
        ([(A, D)], []),
        ([(BEGINNING, FOREVER)], []),
        ([(D, E)], [(A, D)]),
        ([(BEGINNING, A)], [(A, D)]),
        ([(BEGINNING, A - TICK)], [(A, D)]),
        ([(A, B), (C, E)], [(B, C)]),
        ([(C, E), (A, B)], [(B, C)]),
        ([], [(A, D)]),
    ],
)
def test_what_is_subtracted_is_gone_and_nothing_else(gone: list[Span], left: list[Span]) -> None:
    """What is left of a span is its parts outside all that is subtracted, in any order."""
    assert subtract([(A, D)], gone) == left


def test_spans_are_clipped_at_both_bounds() -> None:
    """Spans are cut at the bounds; those outside, or at a bound's far side, are dropped."""
    assert clip([(BEGINNING, B), (B, C), (C, FOREVER)], B, D) == [(B, C), (C, D)]
    assert clip([(A, FOREVER)], C) == [(C, FOREVER)]


def test_spans_that_meet_or_overlap_are_merged() -> None:
    """Merged spans are in order, joined where they touch, and never empty."""
    assert merge([(C, D), (A, B), (B, B), (B, C)]) == [(A, D)]
    assert merge([(A, FOREVER), (B, C)]) == [(A, FOREVER)]
    assert merge([(D, E), (A, B), (C, B)]) == [(A, B), (D, E)]


def test_hours_are_counted_that_have_any_part_in_a_span() -> None:
    """An hour of which a part lies in the spans counts, and counts once."""
    assert count_hours([(A, B + TICK)], MELBOURNE) == 2
    assert count_hours([(A, B), (C, E)], MELBOURNE) == 3
    assert count_hours([(A, A + MINUTE), (B - MINUTE, C)], MELBOURNE) == 2
    assert count_hours([(A, E)], MELBOURNE, last=Hour.containing(B, MELBOURNE)) == 2
    assert count_hours([], MELBOURNE) == 0


def test_two_parts_of_the_hour_before_a_skipped_one_count_once() -> None:
    """An hour with two parts in the spans is one, also where clocks skip the next."""
    parts = [
        span("2021-10-03 01:00+10:00", "2021-10-03 01:10+10:00"),
        span("2021-10-03 01:50+10:00", "2021-10-03 02:00+10:00"),
    ]
    assert count_hours(parts, MELBOURNE) == 1


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [
        ("03:10+13:45", "03:20+13:45", 1),
        ("03:10+13:45", "02:50+12:45", 2),
        ("03:10+13:45", "04:00+12:45", 2),
        ("02:00+13:45", "04:00+12:45", 2),
        ("02:50+12:45", "03:00+12:45", 1),
        ("02:50+12:45", "03:10+12:45", 2),
    ],
)
def test_interleaved_hours_are_counted_as_clocks_show_them(
    start: str, end: str, hours: int
) -> None:
    """Of Chatham's interleaved hours, just those with a part in the span count."""
    part = span(f"2021-04-04 {start}", f"2021-04-04 {end}")
    assert count_hours([part], CHATHAM) == hours


# Bookmarks


def bookmark(value: datetime, since: datetime | None = None, *owed: Span) -> dict[str, Any]:
    """A bookmark; without `since`, as release 0.1 wrote it."""
    written: dict[str, Any] = {"replication_key_value": value.isoformat()}
    if since:
        written["since"] = since.isoformat()
    written["owed"] = [{"start": s.isoformat(), "end": e.isoformat()} for s, e in owed]
    return written


def parse(written: dict[str, Any], start: datetime = A) -> Coverage:
    """Read a bookmark in Melbourne."""
    return Coverage.parse_bookmark(written, start, MELBOURNE)


def test_a_bookmark_claims_all_but_what_it_owes() -> None:
    """What ended since `since` until the value has been emitted, but for what is owed."""
    assert parse(bookmark(D, A, (B, C))) == Coverage(A, D, [(A, B), (C, D)])


def test_owed_intervals_may_come_in_any_order_and_overlap() -> None:
    """Owed intervals need not be sorted, may overlap, and may lie outside what is claimed."""
    owed = [(C, D), (A, B), (A, B + TICK), (E, FOREVER - timedelta(days=400_000))]
    assert parse(bookmark(E, A, *owed)) == Coverage(A, E, [(B + TICK, C), (D, E)])


def test_a_bookmark_without_a_value_claims_nothing() -> None:
    """Without a value nothing has been read, and history begins at the run's start_date."""
    for written in ({}, {"replication_key": "callend"}, {"replication_key_value": None}):
        assert parse(written, B) == Coverage(B, B, [])


def test_a_bookmark_without_since_reads_from_the_start_date_in_whole_hours() -> None:
    """A bookmark of release 0.1 claims the time since start_date, up to a full hour."""
    assert parse(bookmark(D + MINUTE), A) == Coverage(A, D, [(A, D)])


def test_a_bookmark_without_since_before_the_start_date_claims_nothing() -> None:
    """A start_date after the bookmark of release 0.1 leaves a gap, which is not claimed."""
    coverage = parse(bookmark(B), D)
    assert coverage == Coverage(B, B, [])
    later = coverage.with_read(D, [(D, E)])
    assert later.make_bookmark("callend", "Australia/Melbourne")["owed"] == [
        {"start": B.isoformat(), "end": D.isoformat()}
    ]


def test_a_bookmark_is_read_as_it_was_written() -> None:
    """Written and read again, a bookmark claims the same; `owed` is there even if it is empty."""
    for coverage in (
        Coverage(A, D, [(A, D)]),
        Coverage(A, E, [(A, B), (C, D)]),
        Coverage(A, D, [(B, D)]),
        Coverage(B, B, []),
    ):
        written = coverage.make_bookmark("callend", "Australia/Melbourne")
        assert written["replication_key"] == "callend"
        assert isinstance(written["owed"], list)
        assert parse(json.loads(json.dumps(written)), E) == coverage


@pytest.mark.parametrize(
    "written",
    [
        {"replication_key_value": 5},
        {"replication_key_value": "yesterday"},
        bookmark(C) | {"since": 5},
        bookmark(C) | {"since": "never"},
        bookmark(C, A) | {"owed": "all"},
        bookmark(C, A, (C, B)),
        bookmark(C, A) | {"owed": [{"start": A.isoformat()}]},
        bookmark(C, A) | {"owed": [A.isoformat()]},
    ],
)
def test_a_bookmark_that_cannot_be_read_is_an_error(written: dict[str, Any]) -> None:
    """A bookmark that cannot be read is an error that names the state."""
    with pytest.raises(StateError, match=r"^state: the bookmark of recordings cannot be read: "):
        parse(written)


def test_a_later_read_never_takes_back_since_or_value() -> None:
    """What is read adds to the claim: `since` goes no later, the value no earlier."""
    coverage = Coverage(B, D, [(B, C)])
    assert coverage.with_read(C, [(C, D)]) == Coverage(B, D, [(B, D)])
    assert coverage.with_read(A, [(A, B)]) == Coverage(A, D, [(A, C)])
    assert coverage.with_read(B, [(D, E)]) == Coverage(B, E, [(B, C), (D, E)])


@pytest.mark.parametrize(
    ("now", "until"),
    [(D, D), (E, D), (D - TICK, C), (C + MINUTE, C), (C, C), (A, D), (A - MINUTE, D)],
)
def test_what_is_not_over_is_not_claimed(now: datetime, until: datetime) -> None:
    """A bookmark later than now is set back to the hour in hand, but not before all it claims."""
    coverage = Coverage(A, D, [(A, D)]).clipped(now, MELBOURNE)
    assert coverage == Coverage(A, until, [(A, until)])


def test_a_bookmark_of_another_age_is_an_error() -> None:
    """A bookmark so late that no clock can have been wrong by as much is an error."""
    assert Coverage(A, at("2031-12-31 00:00+00:00"), []).clipped(E, MELBOURNE).until == E
    with pytest.raises(StateError, match="is years later than now"):
        Coverage(A, at("2032-01-01 00:00+00:00"), []).clipped(E, MELBOURNE)


# What a run has still to request


def backlog(
    coverage: Coverage | None = None,
    *,
    start: datetime = A,
    end: datetime = FOREVER,
    lookback: int = 0,
    zone: ZoneInfo = MELBOURNE,
) -> Backlog:
    """What a run has to request after others have covered some of it."""
    return Backlog(
        coverage or Coverage(start, start, []), start=start, end=end, lookback=lookback, zone=zone
    )


def requested(work: Backlog, last: datetime, order: str = "oldest_first") -> list[Hour]:
    """The hours that a run requests, the last of which contains this instant, and count them."""
    zone = work._zone  # noqa: SLF001 - a helper for the tests of this class
    last_due = Hour.containing(last, zone)
    hours = []
    while hour := work.next_hour(last_due, newest_first=order == "newest_first"):
        left = work.count(last_due)
        hours.append(hour)
        work.finish(hour)
        assert work.count(last_due) == left - 1
    return hours


def walls(hours: list[Hour]) -> list[str]:
    """The hours as clocks show them."""
    return [f"{hour.wall:%H:%M}" for hour in hours]


def test_a_first_run_begins_with_the_hour_of_the_start_date() -> None:
    """Without a bookmark every hour with a part after start_date is requested."""
    assert walls(requested(backlog(start=A + MINUTE), C)) == ["10:00", "11:00", "12:00"]


def test_a_first_run_takes_in_an_hour_whose_second_pass_is_to_come() -> None:
    """A start within the later of two interleaved hours begins with the earlier."""
    start = at("2021-04-04 03:10+13:45")
    work = backlog(start=start, zone=CHATHAM)
    assert walls(requested(work, at("2021-04-04 04:30+12:45"))) == ["02:00", "03:00", "04:00"]


def test_what_is_owed_or_lies_after_the_bookmark_is_requested_in_order() -> None:
    """Owed hours and new ones are requested from the oldest on, or from the newest."""
    coverage = Coverage(A, D, [(A, B), (C, D)])
    assert walls(requested(backlog(coverage), E)) == ["11:00", "13:00", "14:00"]
    newest = requested(backlog(coverage), E, "newest_first")
    assert walls(newest) == ["14:00", "13:00", "11:00"]


def test_an_hour_of_which_a_part_is_owed_is_requested_whole_and_once() -> None:
    """Two owed parts of an hour are one request."""
    coverage = Coverage(A, C, [(A + MINUTE, B - MINUTE), (B, C)])
    assert walls(requested(backlog(coverage), B)) == ["10:00"]


def test_an_earlier_start_brings_just_the_missing_hours() -> None:
    """Moved to an earlier time, start_date adds the hours before `since`, and no others."""
    coverage = Coverage(C, D, [(C, D)])
    work = backlog(coverage, start=A)
    assert walls(requested(work, C)) == ["10:00", "11:00"]
    assert work.coverage == Coverage(A, D, [(A, D)])


def test_a_later_start_leaves_hours_out_and_claims_none_of_them() -> None:
    """Moved to a later time, start_date leaves hours out, which stay owed."""
    coverage = Coverage(A, C, [(A, B)])
    work = backlog(coverage, start=D)
    assert work.left_out == [(B, D)]
    assert walls(requested(work, D)) == ["13:00"]
    assert work.coverage == Coverage(A, E, [(A, B), (D, E)])
    back = backlog(work.coverage, start=A)
    assert back.left_out == []
    assert walls(requested(back, D)) == ["11:00", "12:00"]


def test_an_earlier_end_leaves_owed_hours_out() -> None:
    """What is owed after end_date is left alone, and stays owed."""
    coverage = Coverage(A, E, [(B, C), (D, E)])
    work = backlog(coverage, end=B + MINUTE)
    assert work.left_out == [(C, D)]
    assert walls(requested(work, E)) == ["10:00"]
    assert work.coverage == Coverage(A, E, [(A, C), (D, E)])


def test_hours_that_are_not_due_are_not_requested() -> None:
    """Nothing after the last hour that is due is requested, nor anything after end_date."""
    assert requested(backlog(Coverage(A, C, [(A, C)])), B) == []
    assert requested(backlog(Coverage(A, C, [(A, C)]), end=C), E) == []
    assert backlog().next_hour(Hour.containing(A - MINUTE, MELBOURNE), newest_first=True) is None


@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
def test_an_hour_that_interleaves_with_one_that_is_due_is_not_due_itself(order: str) -> None:
    """Of interleaved hours, the later is not requested before its own last pass is over."""
    work = backlog(start=at("2021-04-04 00:00+13:45"), zone=CHATHAM)
    hours = requested(work, at("2021-04-04 02:50+12:45"), order)
    assert sorted(walls(hours)) == ["00:00", "01:00", "02:00"]


@pytest.mark.parametrize(
    ("coverage", "lookback", "hours"),
    [
        (Coverage(A, D, [(A, D)]), 2, ["11:00", "12:00", "13:00", "14:00"]),
        (Coverage(A, D, [(A, D)]), 9, ["10:00", "11:00", "12:00", "13:00", "14:00"]),
        (Coverage(A, D + MINUTE, [(A, D + MINUTE)]), 1, ["12:00", "13:00", "14:00"]),
        (Coverage(A, D, [(B, D)]), 1, ["10:00", "12:00", "13:00", "14:00"]),
        (Coverage(A, A, []), 3, ["10:00", "11:00", "12:00", "13:00", "14:00"]),
    ],
)
def test_lookback_requests_the_hours_before_the_bookmark_again(
    coverage: Coverage, lookback: int, hours: list[str]
) -> None:
    """That many finished hours before the bookmark are read again, none before start_date."""
    work = backlog(coverage, lookback=lookback)
    assert walls(requested(work, E)) == hours
    assert work.coverage.until == E + timedelta(hours=1)


def test_lookback_counts_the_hours_that_exist() -> None:
    """Looking back over an hour that clocks skipped goes one further."""
    start, until = span("2021-10-01 00:00+10:00", "2021-10-03 04:00+11:00")
    work = backlog(Coverage(start, until, [(start, until)]), start=start, lookback=2)
    assert walls(requested(work, until - MINUTE)) == ["01:00", "03:00"]


def test_lookback_takes_in_an_earlier_hour_whose_second_pass_is_after_the_start() -> None:
    """Of interleaved hours, the one before start_date's own is read again in its second pass."""
    start, until = at("2021-04-03T14:00+00:00"), at("2021-04-03T14:15+00:00")
    since, owed = at("2021-04-03T12:15+00:00"), at("2021-04-03T13:15+00:00")
    coverage = Coverage(since, until, [(since, owed), (start, until)])
    work = backlog(coverage, start=start, lookback=1, zone=CHATHAM)
    assert clip(work.wanted, start, until) == [(start, until)]


def test_hours_never_read_may_be_preferred() -> None:
    """With `prefer_unread`, hours that are read again come only if there are no others."""
    work = backlog(Coverage(A, D, [(B, D)]), lookback=2)
    last_due = Hour.containing(C, MELBOURNE)
    assert work.next_hour(last_due, newest_first=True) == last_due
    first = Hour.containing(A, MELBOURNE)
    assert work.next_hour(last_due, newest_first=True, prefer_unread=True) == first
    work.finish(first)
    assert work.next_hour(last_due, newest_first=True, prefer_unread=True) == last_due


def test_what_was_read_before_is_excluded_from_an_hour() -> None:
    """Of an hour that is read for its rest, the legs that were emitted are excluded."""
    coverage = Coverage(A, C, [(A, A + MINUTE), (B, C)])
    hour = Hour.containing(A, MELBOURNE)
    assert backlog(coverage).excluded(hour) == [(A, A + MINUTE)]
    assert backlog(coverage, lookback=9).excluded(hour) == []
    assert backlog(start=A + MINUTE, end=B - MINUTE).excluded(hour) == [
        (A, A + MINUTE),
        (B - MINUTE, B),
    ]


@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
def test_no_bookmark_claims_a_pass_that_was_not_read(order: str) -> None:
    """Where passes interleave, an hour covers its own passes only, in either order."""
    start = at("2021-04-04 00:00+13:45")
    work = backlog(start=start, zone=CHATHAM)
    last = Hour.containing(at("2021-04-04 05:00+12:45"), CHATHAM)
    read: list[Span] = []
    while hour := work.next_hour(last, newest_first=order == "newest_first"):
        work.finish(hour)
        read = merge([*read, *hour.passes])
        assert work.coverage.read == read
    assert read == [(start, last.end)]


def test_an_end_before_a_second_pass_leaves_that_pass_owed() -> None:
    """Legs of a second pass after end_date are left for the run whose end_date is later."""
    start, first_end = span("2021-04-04 02:00+13:45", "2021-04-04 03:30+13:45")
    last = at("2021-04-04 04:30+12:45")
    work = backlog(start=start, end=first_end, zone=CHATHAM)
    assert walls(requested(work, last)) == ["02:00", "03:00"]
    later = backlog(work.coverage, start=start, zone=CHATHAM)
    assert walls(requested(later, last)) == ["02:00", "03:00", "04:00"]


BEFORE, AFTER = at("2021-09-01 00:07:00+00:00"), at("2022-05-01 00:00:00.5+00:00")


@pytest.mark.parametrize(
    ("zone", "other", "same"),
    [
        ("Australia/Melbourne", "Australia/Victoria", [(BEFORE, AFTER)]),
        ("Australia/Melbourne", "Pacific/Auckland", []),
        (
            "Australia/Melbourne",
            "Australia/Brisbane",
            [(BEFORE, at("2021-10-02 16:00Z")), (at("2022-04-02 16:00Z"), AFTER)],
        ),
        (
            "Australia/Lord_Howe",
            "Australia/Melbourne",
            [(at("2021-10-02 16:00Z"), at("2022-04-02 15:00Z"))],
        ),
    ],
)
def test_a_claim_by_another_clock_holds_where_both_show_the_same(
    zone: str, other: str, same: list[Span]
) -> None:
    """What was requested by one zone's clock was right by another's where they show the same."""
    coverage = Coverage(A, AFTER, [(BEFORE, AFTER)])
    for one, two in ((zone, other), (other, zone)):
        moved = coverage.moved(ZoneInfo(one), ZoneInfo(two))
        assert moved == Coverage(A, AFTER, same)


def test_each_part_of_a_claim_is_held_against_the_other_clock() -> None:
    """What was not read is not claimed by another clock, either."""
    coverage = Coverage(A, E, [(A, B), (C, D)])
    assert coverage.moved(MELBOURNE, ZoneInfo("Australia/Sydney")) == coverage
