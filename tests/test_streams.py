"""The stream's loop over hours: its requests, records, STATE messages and log lines."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from conftest import (
    FIELDS,
    FakeClock,
    Run,
    as_rows,
    drop_field_warnings,
    expected_legs,
    hours_read,
    requested_hours,
    run_tap,
    written_rows,
)
from times import legs_every, local
from typing_extensions import override

from tap_noojee.errors import FailedHoursError, RequestError, StateError, ZoneError
from tap_noojee.simulator import Failure, Simulator
from tap_noojee.tap import TapNoojee

MELBOURNE = ZoneInfo("Australia/Melbourne")
ORDERS = ("oldest_first", "newest_first")
MIDNIGHT = datetime(2021, 9, 14)  # noqa: DTZ001 - on the PBX's clock


def hour_text(hour: int) -> str:
    """Return an hour, counted from midnight of 2021-09-14, as text."""
    return (MIDNIGHT + timedelta(hours=hour)).isoformat(timespec="minutes")


def between(first: int, end: int) -> dict[str, Any]:
    """Return settings for the hours from `first` until just before `end`."""
    return {"start_date": hour_text(first), "end_date": hour_text(end)}


def clock(hour: int, minute: int = 6) -> FakeClock:
    """Return a clock at this time in Melbourne. `hour` is counted as in `hour_text`."""
    return FakeClock(
        (local(hour_text(hour), MELBOURNE.key) + timedelta(minutes=minute)).isoformat()
    )


def ranges(*hours: tuple[int, int]) -> list[tuple[str, str]]:
    """Return ranges of hours in the form of `hours_read`."""
    return [(hour_text(first), hour_text(end)) for first, end in hours]


def state(*hours: tuple[int, int]) -> dict[str, Any]:
    """Return the STATE of a run that has read these ranges of hours."""
    bookmark = {
        "replication_key": "callend",
        "replication_key_value": local(hour_text(hours[-1][1]), MELBOURNE.key).isoformat(),
        "hours_read": [{"from": first, "to": end} for first, end in ranges(*hours)],
        "pbx": "127.0.0.1",
        "timezone": MELBOURNE.key,
    }
    return {"bookmarks": {"recordings": bookmark}}


def take_hours(pbx: Simulator) -> list[int]:
    """Return the requested hours, counted from midnight of 2021-09-14, and clear the list."""
    times = [datetime.fromisoformat(f"{d}T{h:02}") for d, h in requested_hours(pbx)]
    del pbx.requests[:]
    return [(time - MIDNIGHT) // timedelta(hours=1) for time in times]


def rows(pbx: Simulator, first: int, end: int) -> list[tuple[str, int, str, str]]:
    """Return the rows expected for the hours from `first` until just before `end`."""
    return as_rows(expected_legs(pbx, hour_text(first), hour_text(end)))


def failures_at(*hours: int) -> list[Failure]:
    """Return failures that make these hours of 2021-09-14 unreadable."""
    return [Failure("body", body=b"[{}]", at=("2021-09-14", h), times=None) for h in hours]


def stream_log(caplog: pytest.LogCaptureFixture, level: str = "INFO") -> list[str]:
    """Return the stream's log messages at this level, without the SDK's."""
    lines = [
        record.getMessage()
        for record in caplog.records
        if record.name == "tap-noojee.recordings" and record.levelname == level
    ]
    return drop_field_warnings(
        line for line in lines if not line.startswith(("Beginning", "Starting"))
    )


NEWEST: dict[str, Any] = {"backfill_order": "newest_first"}
EACH_HALF_HOUR: dict[str, Any] = {"request_interval": 1800, "clock": (16, 6)}
GAPPED = [(2, 4), (6, 7)]
APART = [(0, 6), (10, 12), (20, 22)]
ODD_HOURS = [(k, k + 1) for k in range(5, 16, 2)]


class Plan(NamedTuple):
    """A run's settings, the hours it requests, and the hours read after and before it.

    The settings may contain the hour and minute of the run's clock.
    """

    config: dict[str, Any]
    requested: Iterable[int]
    after: list[tuple[int, int]]
    before: Sequence[tuple[int, int]] = ()
    failing: Sequence[int] = ()
    ends_early: bool = False


PLANS = {
    "all hours between the dates": Plan(between(0, 24), range(24), [(0, 24)]),
    "dates are rounded down": Plan(
        {"start_date": "2021-09-14T15:59:59", "end_date": "2021-09-14T17:59:59"}, [15, 16],
        [(15, 17)],
    ),
    "15:00 is not due at 16:04": Plan(between(14, 24) | {"clock": (16, 4)}, [14], [(14, 15)]),
    "15:00 is due at 16:05": Plan(between(14, 24) | {"clock": (16, 5)}, [14, 15], [(14, 16)]),
    "15:00 is due at 16:00 if settle_minutes is 0": Plan(
        between(14, 24) | {"clock": (16, 0), "settle_minutes": 0}, [14, 15], [(14, 16)],
    ),
    # With a request each half hour, a new hour falls due after every second request.
    "hours that fall due during the run": Plan(
        between(10, 24) | EACH_HALF_HOUR, range(10, 20), [(10, 20)],
    ),
    "hours that fall due, newest first": Plan(
        between(10, 24) | EACH_HALF_HOUR | NEWEST, [15, 14, 16, 13, 17, 12, 18, 11, 19, 10],
        [(10, 20)],
    ),
    "gaps": Plan(between(0, 9), [0, 1, 4, 5, 7, 8], [(0, 9)], GAPPED),
    "gaps, newest first": Plan(between(0, 9) | NEWEST, [8, 7, 5, 4, 1, 0], [(0, 9)], GAPPED),
    "limited run": Plan(
        between(0, 9) | {"max_hours_per_run": 2}, [0, 1], [(0, 4), (6, 7)], GAPPED,
    ),
    "limited run, newest first": Plan(
        between(0, 9) | NEWEST | {"max_hours_per_run": 2}, [8, 7], [(2, 4), (6, 9)], GAPPED,
    ),
    "hours outside the dates stay read": Plan(
        between(10, 12), [10, 11], APART, APART[::2],
    ),
    "earlier start_date": Plan(
        between(-2, 24), [-2, -1, *range(6, 10), *range(12, 20), 22, 23], [(-2, 24)], APART,
    ),
    "lookback": Plan(between(0, 17) | {"lookback_hours": 3}, range(12, 17), [(0, 17)], [(0, 15)]),
    "lookback, newest first": Plan(
        between(0, 17) | NEWEST | {"lookback_hours": 3}, range(16, 11, -1), [(0, 17)], [(0, 15)],
    ),
    "lookback ends at start_date": Plan(
        between(14, 16) | {"lookback_hours": 24}, [14, 15], [(0, 16)], [(0, 15)],
    ),
    "lookback skips hours read by the same run": Plan(
        between(10, 12) | {"lookback_hours": 5}, [10, 11], [(10, 12)],
    ),
    "limited run with lookback reads history": Plan(
        between(0, 17) | NEWEST | {"lookback_hours": 2, "max_hours_per_run": 3}, [16, 15, 3],
        [(3, 17)], [(4, 16)],
    ),
    # Four failures in a row do not end the run, and a successful hour resets the count.
    "five failed hours in a row end the run": Plan(
        between(5, 20), range(5, 16), [(5, 6), (10, 11)], [],
        [6, 7, 8, 9, 11, 12, 13, 14, 15],
        ends_early=True,
    ),
    "failed hours with read hours between them do not end the run": Plan(
        between(5, 20), [6, 8, 10, 12, 14, 16, 17, 18, 19], [*ODD_HOURS[:-1], (15, 20)],
        ODD_HOURS, [6, 8, 10, 12, 14],
    ),
    "failed hours count towards the limit": Plan(
        between(8, 20) | {"max_hours_per_run": 2}, [8, 9], [(8, 9)], [], [9],
    ),
    "limited run reads at least one hour": Plan(
        between(8, 20) | {"max_hours_per_run": 2}, [9, 10, 11], [(8, 9), (11, 12)], [(8, 9)],
        [9, 10],
    ),
    "hour stays read if rereading it fails": Plan(
        between(0, 17) | {"lookback_hours": 2}, range(13, 17), [(0, 17)], [(0, 15)], [14],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_run_requests_the_planned_hours(name: str, pbx: Simulator) -> None:
    """The run writes each leg of an hour once, in order of `callend`."""
    config, requested, after, before, failing, ends_early = PLANS[name]
    pbx.failures[:] = failures_at(*failing)
    config = config | {"clock": clock(*config.get("clock", [72]))}
    run = run_tap(pbx, state=state(*before) if before else None, **config)
    assert take_hours(pbx) == [*requested]
    assert run.states[-1] == state(*after)
    read = [hour for hour in requested if hour not in failing]
    assert written_rows(run) == [row for hour in read for row in rows(pbx, hour, hour + 1)]
    assert run.messages[0]["type"] == "SCHEMA"
    assert isinstance(run.error, FailedHoursError if failing else type(None))
    assert ("5 hours in a row" in str(run.error)) == ends_early


def test_documented_hour_is_written_with_its_values(pbx: Simulator) -> None:
    run = run_tap(pbx, **between(15, 16))
    assert tuple(run.records[0]) == FIELDS
    documented = {
        "callend": "2021-09-14T05:03:34+00:00", "CallRecordId": "6468", "DID": "7601",
        "Destination": "123", "Direction": "Inbound", "Duration": 4, "Leg": 1, "Source": "500",
        "Start": "2021-09-14T05:03:30+00:00", "Tag": "", "UniqueId": "1631595787.5",
        "Username": "NoojeeAdmin",
    }  # fmt: skip
    assert run.records[0] | documented == run.records[0]
    assert run.keys == [("6468", 1), ("6469", 1), ("6470", 1), ("6471", 1)]


def test_leg_returned_for_two_hours_is_written_twice() -> None:
    """The tap does not filter legs by their end: these end on another day."""
    start = local("2021-09-01", MELBOURNE.key)
    legs = legs_every(timedelta(hours=1), start, start + timedelta(hours=3))
    body = json.dumps([leg.record(MELBOURNE) for leg in legs]).encode()
    with Simulator(failures=[Failure("body", body=body, times=None)]) as pbx:
        run = run_tap(pbx, **between(4, 6))
    assert written_rows(run) == as_rows(legs) * 2
    assert hours_read(run) == ranges((4, 6))


def test_every_leg_is_written_once_across_clock_changes() -> None:
    """A repeated hour takes one request, and a skipped hour takes none."""
    for zone, start, count in (
        ("Australia/Melbourne", "2021-04-04", 24),
        ("Australia/Melbourne", "2021-10-03", 23),
        ("Australia/Lord_Howe", "2021-04-04", 24),
        ("Pacific/Chatham", "2021-04-04", 24),
        ("Europe/London", "2021-03-28", 23),
    ):
        end = (datetime.fromisoformat(start) + timedelta(days=1)).isoformat()
        legs = legs_every(timedelta(minutes=15), local(start, zone), local(end, zone))
        for order, dates in (("oldest_first", "java"), ("newest_first", "gmt")):
            with Simulator(timezone=zone, legs=legs, dates=dates) as pbx:  # type: ignore[arg-type]
                run = run_tap(pbx, start_date=start, end_date=end, backfill_order=order)
            assert run.error is None
            assert sorted(written_rows(run)) == sorted(as_rows(legs))
            assert len(requested_hours(pbx)) == len({*requested_hours(pbx)}) == count
            assert hours_read(run) == [(f"{start}T00:00", end[:16])]


def test_wrong_timezone_ends_the_run_before_the_first_record() -> None:
    with Simulator(timezone="Australia/Perth") as pbx:
        run = run_tap(pbx, **between(0, 24), timezone="Australia/Melbourne")
    assert isinstance(run.error, ZoneError)
    assert "AWST" in str(run.error)
    assert run.records == []


def test_run_with_nothing_to_read_keeps_its_state(
    pbx: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """The run warns if start_date is in the future."""
    caplog.set_level("INFO")
    for start, read, warned in (
        (hour_text(0), state((0, 16)), False),
        ("2021-09-14T16:06", None, False),
        ("2021-09-14T16:07", None, True),
    ):
        caplog.clear()
        run = run_tap(pbx, start_date=start, clock=clock(16), state=read)
        assert run.error is None
        assert take_hours(pbx) == []
        assert len(run.states) == 1
        assert hours_read(run) == (ranges((0, 16)) if read else [])
        assert stream_log(caplog) == ["Nothing left to read"]
        warnings = stream_log(caplog, "WARNING")
        assert len(warnings) == warned
        assert all("start_date" in line for line in warnings)


class JumpingClock(FakeClock):
    """A clock that is set back by two hours during the n-th wait."""

    def __init__(self, n: int) -> None:
        super().__init__(clock(15).instant.isoformat())
        self._n = n

    @override
    def monotonic(self) -> float:
        return sum(self.sleeps)

    @override
    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if len(self.sleeps) == self._n:
            self.instant = self.instant.subtract(hours=2)


def test_no_hour_is_lost_when_the_clock_is_set_back(pbx: Simulator) -> None:
    for order in ORDERS:
        for n in range(1, 6):
            config: dict[str, Any] = {"start_date": hour_text(11), "backfill_order": order}
            run = run_tap(pbx, clock=JumpingClock(n), request_interval=60, **config)
            assert run.error is None
            first = take_hours(pbx)
            assert {11, 12} <= {*first}
            assert len(first) == len({*first})
            run_tap(pbx, clock=clock(16), state=run.states[-1], **config)
            assert sorted(first + take_hours(pbx)) == [11, 12, 13, 14, 15]


def records_before_states(run: Run) -> list[int]:
    """Return the number of records before each STATE."""
    types = [message["type"] for message in run.messages]
    return [types[:k].count("RECORD") for k, kind in enumerate(types) if kind == "STATE"]


def test_state_follows_every_hour_after_the_first_record(pbx: Simulator) -> None:
    for order in ORDERS:
        run = run_tap(pbx, **between(0, 24), backfill_order=order)
        counts = [len(rows(pbx, hour, hour + 1)) for hour in range(24)]
        in_order = counts if order == "oldest_first" else counts[::-1]
        before = next(k for k, count in enumerate(in_order) if count)
        expected = [sum(in_order[: k + 1]) for k in range(before, 24)]
        # The SDK may repeat the last STATE.
        assert records_before_states(run)[: len(expected) + 1] == [0, *expected]
        assert run.messages[-1]["type"] == "STATE"
        for k, value in enumerate(run.states):
            read = min(before + k, 24)
            span = (0, read) if order == "oldest_first" else (24 - read, 24)
            assert value == state(span)


def test_state_from_the_future_ends_the_run_before_any_request(pbx: Simulator) -> None:
    run = run_tap(pbx, clock=clock(16), state=state((0, 18)))
    assert isinstance(run.error, StateError)
    assert [*run.messages, *take_hours(pbx)] == []


def test_state_follows_an_hour_that_is_read_again(pbx: Simulator) -> None:
    """target-jsonl drops its state at each RECORD, so an unchanged STATE is written again."""
    run = run_tap(pbx, **between(0, 18), state=state((0, 18)), lookback_hours=3)
    assert take_hours(pbx) == [15, 16, 17]
    counts = [len(rows(pbx, 15, end)) for end in (16, 17, 18)]
    assert records_before_states(run) == [0, *counts]
    assert run.states == [state((0, 18))] * 4


def test_last_message_is_state_however_the_run_ends(
    pbx: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """This STATE has exactly the hours before the one that ended the run."""
    pbx.failures[:] = [Failure("status", status=401, at=("2021-09-14", h)) for h in (6, 10)]
    without_records = run_tap(pbx, **between(4, 12))
    with_records = run_tap(pbx, **between(7, 12))
    maps = {"recordings": {"Tag": "str(1 / (int(UniqueId[-1]) - 7))"}}
    failing_map = run_tap(pbx, **between(8, 12), stream_maps=maps)
    for run, read in ((without_records, (4, 6)), (with_records, (7, 10))):
        assert isinstance(run.error, RequestError)
        assert run.states[-1] == state(read)
    assert isinstance(failing_map.error, ZeroDivisionError)
    assert failing_map.records
    assert failing_map.states[-1]["bookmarks"]["recordings"]["hours_read"] == []
    for run in (without_records, with_records, failing_map):
        assert run.messages[-1]["type"] == "STATE"
    # The command logs each error, so the stream does not.
    assert stream_log(caplog, "ERROR") == []


def test_bookmarks_of_other_streams_are_kept(pbx: Simulator) -> None:
    other = {"bookmarks": {"other": {"replication_key_value": 1}}}
    run = run_tap(pbx, **between(15, 16), state=other)
    assert run.states[-1] == {"bookmarks": other["bookmarks"] | state((15, 16))["bookmarks"]}


def test_failed_hour_is_requested_by_the_next_run(
    pbx: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    pbx.failures[:] = failures_at(9, 11)
    run = run_tap(pbx, **between(8, 13))
    assert isinstance(run.error, FailedHoursError)
    named = ["2021-09-14 09:00", "2021-09-14 11:00"]
    assert ", ".join(named) in str(run.error)
    assert [line[:16] for line in stream_log(caplog, "ERROR")] == named
    assert take_hours(pbx) == [8, 9, 10, 11, 12]
    assert hours_read(run) == ranges((8, 9), (10, 11), (12, 13))
    assert run.messages[-1]["type"] == "STATE"
    del pbx.failures[:]
    rest = run_tap(pbx, **between(8, 13), state=run.states[-1])
    assert rest.error is None
    assert take_hours(pbx) == [9, 11]
    assert sorted(written_rows(run) + written_rows(rest)) == sorted(rows(pbx, 8, 13))


def test_hour_that_is_not_over_on_the_pbx_is_read_later_in_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = clock(16)
    with Simulator(clock=lambda: fake.instant.subtract(minutes=31)) as pbx:
        run = run_tap(pbx, clock=fake, start_date=hour_text(12), request_interval=600, **NEWEST)
        assert run.error is None
        assert take_hours(pbx) == [15, 14, 13, 15, 12]
        assert sorted(written_rows(run)) == sorted(rows(pbx, 12, 16))
    assert hours_read(run) == ranges((12, 16))
    (warning,) = stream_log(caplog, "WARNING")
    assert warning.startswith("2021-09-14 15:00: ")
    assert "2021-09-14T05:35:" in warning
    assert "2021-09-14T06:06:" in warning


def connection_test(pbx: Simulator, **more: Any) -> Run:
    """Run the tap's connection test at 16:06."""
    return run_tap(
        pbx, clock=clock(16), request_interval=60, sync=TapNoojee.run_connection_test, **more
    )


@pytest.mark.parametrize("volume", [0, 1])
def test_connection_test_makes_one_request(volume: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with Simulator(volume=volume) as pbx:
        # The state and start_date do not matter.
        for more in ({}, {"state": state((0, 16))}, {"start_date": "2030-01-01"}):
            caplog.clear()
            run = connection_test(pbx, **more)
            assert run.error is None
            assert take_hours(pbx) == [15]
            assert len(run.records) == volume
            assert hours_read(run) == (ranges((0, 16)) if "state" in more else [])
            assert {*run.bookmark_values} == {
                "2021-09-14T06:00:00+00:00" if "state" in more else None
            }
            (line,) = stream_log(caplog)
            assert line.startswith(f"2021-09-14 15:00: {4 * volume} legs; the connection works")
            assert ("`timezone`" in line) == (not volume)


def test_connection_test_passes_if_the_hour_has_not_settled_on_the_pbx(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Simulator(clock=lambda: clock(16, 3).instant) as behind:
        run = connection_test(behind)
        assert take_hours(behind) == [15]
    assert (run.error, run.records) == (None, [])
    assert stream_log(caplog, "WARNING")[-1].startswith("2021-09-14 15:00: ")


def test_progress_names_the_hour_its_legs_and_the_hours_left(
    pbx: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config: dict[str, Any] = {"request_interval": 60, "lookback_hours": 1, "max_hours_per_run": 3}
    run_tap(pbx, **between(13, 18), **config, state=state((13, 15)), clock=clock(72))
    plan, *steps, summary = stream_log(caplog)
    assert "3 hours to read, 1 hour to read again" in plan
    counts = [len(rows(pbx, hour, hour + 1)) for hour in (14, 15, 16)]
    for hour, count, line, left in zip(
        (14, 15, 16), counts, steps, ("3 hours left", "2 hours left", "1 hour left"), strict=True
    ):
        assert line.startswith(f"2021-09-14 {hour}:00: {count} legs; {left}")
    assert summary.startswith(f"{sum(counts)} legs in 3 hours, 3 requests")
    pbx.failures[:] = [Failure("status", status=503), *failures_at(16)]
    run_tap(pbx, **between(15, 17))
    assert stream_log(caplog)[-1] == "4 legs in 1 hour, 3 requests"


def test_request_metrics_are_logged_at_debug(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for level, expected in (
        ("INFO", []),
        ("DEBUG", [(503, "failed"), (400, "failed"), (200, "succeeded")]),
    ):
        caplog.clear()
        monkeypatch.setenv("TAP_NOOJEE_LOGLEVEL", level)
        with Simulator(failures=[Failure("status", status=s) for s in (503, 400)]) as failing:
            assert run_tap(failing, **between(15, 16)).error is None
        parts = [line.partition("METRIC: ") for line in caplog.messages]
        points = [json.loads(text) for _, label, text in parts if label]
        requests = [point for point in points if point["metric"] == "http_request_duration"]
        tags = [point["tags"] for point in requests]
        assert [(tag["http_status_code"], tag["status"]) for tag in tags] == expected
        assert all(tag["endpoint"] == "retrieveMetaDataByHour" for tag in tags)
        assert all(point["value"] >= 0 for point in requests)
        # The SDK logs two other metrics in each run.
        assert len(points) - len(requests) == 2
