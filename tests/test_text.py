"""Counts, durations and the progress of a run in words."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from conftest import FakeClock

from tap_noojee.text import Progress, humanize, pluralize

MELBOURNE = ZoneInfo("Australia/Melbourne")
NOON = "2021-09-20T02:00:00+00:00"  # in Melbourne

DAY = 86400


def progress(clock: FakeClock, **config: Any) -> Progress:
    return Progress({"request_interval": 60} | config, clock, MELBOURNE)


def after(hours: int, *, seconds: float, **config: Any) -> Progress:
    """A run that has read some hours by noon, each in this many seconds."""
    clock = FakeClock(NOON)
    clock.instant = clock.started.subtract(seconds=hours * seconds)
    clock.started = clock.started.subtract(days=9)  # when the machine started, not the run
    run = progress(clock, **config)
    clock.sleep(hours * seconds)
    run.hours = hours
    return run


def test_pluralize() -> None:
    counts = [pluralize(count, "leg") for count in (0, 1, 2, 12345)]
    assert counts == ["0 legs", "1 leg", "2 legs", "12,345 legs"]


def test_humanize_uses_the_largest_units() -> None:
    cases = [
        (1, "1 second"),
        *((20.4, "20 seconds"), (59, "59 seconds"), (59.9, "1 minute"), (60, "1 minute")),
        *((89, "1 minute"), (91, "2 minutes"), (3599, "1 hour"), (3660, "1 hour 1 minute")),
        *((DAY - 60, "23 hours 59 minutes"), (DAY - 1, "1 day"), (DAY, "1 day")),
        *((DAY + 1799, "1 day"), (DAY + 1801, "1 day 1 hour"), (8760 * 60, "6 days 2 hours")),
    ]
    for seconds, text in cases:
        assert humanize(seconds) == text, seconds


def test_plan_counts_hours_and_estimates_by_the_interval() -> None:
    run = progress(FakeClock())
    assert run.plan(0, 0) == "Nothing left to read"
    assert run.plan(1, 0) == "1 hour to read; about 1 minute"
    assert run.plan(0, 3) == "3 hours to read again; about 3 minutes"
    assert run.plan(8757, 3) == "8,757 hours to read, 3 hours to read again; about 6 days 2 hours"
    assert progress(FakeClock(), request_interval=0).plan(9, 0).endswith("less than a minute")


def test_plan_of_a_limited_run_names_its_hours() -> None:
    assert progress(FakeClock()).allowed == float("inf")
    assert after(2, seconds=60, max_hours_per_run=3).allowed == 1
    run = progress(FakeClock(), max_hours_per_run=5)
    # The time is for all hours: more runs will follow.
    assert run.plan(4, 2).endswith("again; about 6 minutes; 5 of them in this run")
    assert "in this run" not in run.plan(4, 1)


def test_outlook_estimates_the_end_by_the_pace_so_far() -> None:
    """But never faster than the interval allows."""
    for hours, seconds, done in ((2, 60, "13:40"), (2, 10, "13:40"), (1, 180, "17:00")):
        left = after(hours, seconds=seconds).outlook(100)
        assert left == f"100 hours left, done at about 2021-09-20 {done} AEST"


def test_outlook_of_less_than_an_hour_is_a_duration() -> None:
    assert after(2, seconds=60).outlook(59) == "59 hours left, about 59 minutes"
    assert after(2, seconds=60).outlook(60) == "60 hours left, done at about 2021-09-20 13:00 AEST"
    assert after(2, seconds=0, request_interval=1).outlook(20) == "20 hours left, about 20 seconds"
    assert after(0, seconds=0, request_interval=0).outlook(1).endswith("less than a minute")


def test_outlook_of_a_limited_run_is_about_this_run() -> None:
    run = after(2, seconds=60, max_hours_per_run=92)
    assert run.outlook(100) == (
        "100 hours left, 90 of them in this run, done at about 2021-09-20 13:30 AEST"
    )
    assert "in this run" not in run.outlook(90)
    assert after(4, seconds=60, max_hours_per_run=4).outlook(1) == "1 hour left for later runs"
    for run in (after(3, seconds=60), after(4, seconds=60, max_hours_per_run=4)):
        assert run.outlook(0) == "nothing left to read"


def test_summary_has_the_counts_of_the_run() -> None:
    run = after(24, seconds=60)
    run.legs, run.requests = 263, 25
    assert run.summary(0) == "263 legs in 24 hours, 25 requests"
    assert run.summary(1) == "263 legs in 24 hours, 25 requests; 1 hour left for later runs"
