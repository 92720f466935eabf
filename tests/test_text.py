"""Counts, durations and the progress of a run in words."""

from math import inf

import pendulum

from tap_noojee.text import describe_plan, describe_progress, describe_result, humanize, pluralize

NOON = pendulum.datetime(2021, 9, 20, 12, tz="Australia/Melbourne")
DAY = 86400


def test_pluralize() -> None:
    counts = [pluralize(count, "leg") for count in (0, 1, 2, 12345)]
    assert counts == ["0 legs", "1 leg", "2 legs", "12,345 legs"]


def test_humanize_rounds_to_at_most_two_units() -> None:
    cases = [
        (1, "1 second"), (20.4, "20 seconds"), (59, "59 seconds"), (59.9, "1 minute"),
        (60, "1 minute"), (89, "1 minute"), (91, "2 minutes"), (3599, "1 hour"),
        (3660, "1 hour 1 minute"), (DAY - 60, "23 hours 59 minutes"), (DAY - 1, "1 day"),
        (DAY, "1 day"), (DAY + 1799, "1 day"), (DAY + 1801, "1 day 1 hour"),
        (8760 * 60, "6 days 2 hours"),
    ]  # fmt: skip
    for seconds, text in cases:
        assert humanize(seconds) == text, seconds


def test_plan_counts_hours_and_estimates_the_duration() -> None:
    assert describe_plan(0, 0, inf, 60) == "Nothing left to read"
    assert describe_plan(1, 0, inf, 60) == "1 hour to read; about 1 minute in all"
    assert describe_plan(0, 3, inf, 60) == "3 hours to read again; about 3 minutes in all"
    text = "8,757 hours to read, 3 hours to read again; about 6 days 2 hours in all"
    assert describe_plan(8757, 3, inf, 60) == text
    assert describe_plan(9, 0, inf, 0) == "9 hours to read"


def test_plan_of_a_limited_run_counts_its_hours() -> None:
    # The estimate covers all hours, including those of later runs.
    text = "4 hours to read, 2 hours to read again, 5 of them in this run; about 6 minutes in all"
    assert describe_plan(4, 2, 5, 60) == text
    assert "in this run" not in describe_plan(4, 1, 5, 60)


def test_progress_estimates_the_end_from_the_pace() -> None:
    for pace, end in ((60, "13:40 AEST"), (180, "17:00 AEST")):
        text = f"100 hours left, done at about 2021-09-20 {end}"
        assert describe_progress(100, inf, pace, NOON) == text
    # Clocks change on 3 October.
    assert describe_progress(400, inf, 3600, NOON).endswith("2021-10-07 05:00 AEDT")


def test_progress_under_an_hour_is_a_duration() -> None:
    assert describe_progress(59, inf, 60, NOON) == "59 hours left, about 59 minutes"
    text = "60 hours left, done at about 2021-09-20 13:00 AEST"
    assert describe_progress(60, inf, 60, NOON) == text
    assert describe_progress(20, inf, 1, NOON) == "20 hours left, about 20 seconds"
    assert describe_progress(1, inf, 0, NOON) == "1 hour left, less than a second"


def test_progress_of_a_limited_run_covers_this_run() -> None:
    text = "100 hours left, 90 of them in this run, done at about 2021-09-20 13:30 AEST"
    assert describe_progress(100, 90, 60, NOON) == text
    assert "in this run" not in describe_progress(90, 90, 60, NOON)
    assert describe_progress(1, 0, 60, NOON) == "1 hour left for later runs"
    for allowed in (0, inf):
        assert describe_progress(0, allowed, 60, NOON) == "nothing left to read"


def test_result_counts_legs_hours_and_requests() -> None:
    assert describe_result(263, 24, 25, 0) == "263 legs in 24 hours, 25 requests"
    text = "263 legs in 24 hours, 25 requests; 1 hour left for later runs"
    assert describe_result(263, 24, 25, 1) == text
