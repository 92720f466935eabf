"""How far a run is: what the log says is left, and when it will be done."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from conftest import FakeClock

from tap_noojee.progress import Progress, number

MELBOURNE = ZoneInfo("Australia/Melbourne")
NOON = "2021-09-20T02:00:00+00:00"
"""Noon in Melbourne."""


def progress(clock: FakeClock, **config: Any) -> Progress:
    """Begin a run with these settings."""
    defaults = {"request_interval": 60, "backfill_order": "oldest_first"}
    return Progress(defaults | config, clock, MELBOURNE)


def after(hours: int, *, seconds: float, **config: Any) -> Progress:
    """A run that has read some hours, each in so many seconds, until noon."""
    clock = FakeClock(NOON)
    clock.instant = clock.began.subtract(seconds=hours * seconds)
    clock.began = clock.began.subtract(days=9)  # it is the machine's, and not of this run
    run = progress(clock, **config)
    clock.sleep(hours * seconds)
    run.hours_read = hours
    return run


def test_nothing_left_is_said_so() -> None:
    """Where no hour is left there is no estimate, before the first request or after the last."""
    assert progress(FakeClock()).outlook(0) == "nothing left to read"
    assert after(3, seconds=60).outlook(0) == "nothing left to read"


@pytest.mark.parametrize(
    ("hours", "length"),
    [
        (1, "1 minute"),
        (59, "59 minutes"),
        (61, "1 hour 1 minute"),
        (24 * 60 - 1, "23 hours 59 minutes"),
        (24 * 60, "1 day"),
        # Of days, minutes say nothing.
        (24 * 60 + 20, "1 day"),
        (26 * 60 + 29, "1 day 2 hours"),
        (26 * 60 + 31, "1 day 3 hours"),
        (8760, "6 days 2 hours"),
    ],
)
def test_before_the_first_request_the_interval_tells_how_long_it_takes(
    hours: int, length: str
) -> None:
    """A run of an hour a minute takes as many minutes, told in the largest units."""
    assert progress(FakeClock()).outlook(hours).endswith(f" to read, about {length}")


def test_the_shortest_time_is_a_minute() -> None:
    """Where nothing has to be waited for, the estimate is still a minute."""
    run = progress(FakeClock(), request_interval=0)
    assert run.outlook(100) == "100 hours of history to read, about 1 minute"


@pytest.mark.parametrize(
    ("seconds", "done"),
    [(60, "12:10"), (10, "12:10"), (180, "12:30")],
    ids=["as the interval", "at once", "slower"],
)
def test_the_end_is_estimated_by_the_pace_so_far(seconds: float, done: str) -> None:
    """A run goes on at the pace so far, but never faster than the interval allows."""
    left = after(2, seconds=seconds).outlook(10)
    assert left == f"10 hours left, done at about 2021-09-20 {done} AEST"


def test_newest_first_reads_history() -> None:
    """What is left of a run that began with the newest hour is history."""
    run = after(1, seconds=60, backfill_order="newest_first")
    assert run.outlook(2).startswith("2 hours of history left")


def test_a_limited_run_tells_what_it_will_read() -> None:
    """With `max_hours_per_run` the estimate is of this run, and says of how many hours."""
    run = progress(FakeClock(), max_hours_per_run=2000)
    assert run.hours_left_in_run == 2000
    left = run.outlook(8760)
    # The time is that of all of it: more runs will follow.
    assert (
        left == "8,760 hours of history to read, about 6 days 2 hours; 2,000 of them in this run"
    )
    assert run.outlook(2000) == "2,000 hours of history to read, about 1 day 9 hours"

    run = after(2, seconds=60, max_hours_per_run=4)
    assert run.hours_left_in_run == 2
    left = run.outlook(10)
    assert left == "10 hours left, 2 of them in this run, done at about 2021-09-20 12:02 AEST"
    assert run.outlook(2) == "2 hours left, done at about 2021-09-20 12:02 AEST"


def test_what_a_limited_run_leaves_is_for_later_runs() -> None:
    """When the limit is reached, what is left has no end to estimate."""
    run = after(4, seconds=60, max_hours_per_run=4)
    assert run.outlook(1) == "1 hour left for later runs"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 legs"), (1, "1 leg"), (2, "2 legs"), (12345, "12,345 legs")]
)
def test_one_thing_is_no_plural(count: int, text: str) -> None:
    """A count comes with its thing, in the plural unless it is one, and with commas."""
    assert number(count, "leg") == text


def test_what_takes_thousands_of_years_has_no_time_of_finishing() -> None:
    """Where the end is beyond the calendar, the log says what is left, and the run goes on."""
    run = after(1, seconds=1, request_interval=1_000_000)
    assert run.outlook(1_000_000) == "1,000,000 hours left"
    limited = after(1, seconds=1, request_interval=1_000_000, max_hours_per_run=900_001)
    assert limited.outlook(1_000_000) == "1,000,000 hours left, 900,000 of them in this run"
