"""Sequences of runs, compared with a model: no run loses a leg or marks an unread hour as read."""

import copy
import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from conftest import FakeClock, Run, run_tap
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import RunModel, bookmark_hours, key_and_times
from times import HOUR, MINUTE, Clocks, at, wall_time
from typing_extensions import override

from tap_noojee.errors import FailedHoursError, RequestError, StateError
from tap_noojee.hours import format_hour
from tap_noojee.simulator import Failure, Leg, Simulator

QUARTER = 15 * MINUTE
ZERO = timedelta()
PERIOD_LENGTH = 10 * HOUR
STARTS = {
    "Australia/Melbourne": "2021-04-03T12:00Z",
    "Australia/Lord_Howe": "2021-04-03T11:00Z",
    "Pacific/Chatham": "2021-04-03T10:00Z",
    "Australia/Adelaide": "2021-10-02T12:30Z",
    "America/Santiago": "2021-09-04T23:00Z",
}
"""Zones, each with an instant some hours before a clock change. Santiago skips midnight."""


class FailureCase(NamedTuple):
    """A failure of the PBX, and how many attempts the tap makes before it gives up."""

    failure: Failure
    attempts: float = float("inf")
    ends_run: bool = False


FAILURE_CASES = [
    *(FailureCase(Failure(kind)) for kind in ("rate", "cut", "reset")),
    FailureCase(Failure("status", status=403)),
    FailureCase(Failure("status", status=503, times=4)),
    FailureCase(Failure("body", body=b'[{"callend": "yesterday"}]', times=None), 1),
    FailureCase(Failure("cut-json", times=None), 5),
    FailureCase(Failure("html", times=None), 1, ends_run=True),
    FailureCase(Failure("status", status=403, times=None), 2, ends_run=True),
    FailureCase(Failure("status", status=503, times=None), 5, ends_run=True),
]


class Kill(NamedTuple):
    """Where a run is cut short, and how much of its output the target keeps."""

    at: float = 1  # the fraction of the messages that are written
    lost_states: int = 0  # how many of the last STATE messages the target does not print
    records_lost: bool = False  # whether the target also loses the records after its last STATE


KILLS = st.just(Kill()) | st.builds(Kill, st.floats(0, 1), st.integers(0, 1), st.booleans())

READ_ALL: dict[str, Any] = {
    "start": -4, "length": None, "newest_first": False, "limit": None, "lookback": 0,
    "interval": 0, "settle": 5,
}  # fmt: skip
RUNS = st.fixed_dictionaries(
    {
        "start": st.integers(0, 20),
        "length": st.none() | st.integers(1, 24),
        "newest_first": st.booleans(),
        "limit": st.none() | st.integers(1, 4),
        "lookback": st.integers(0, 3),
        "interval": st.sampled_from([0, 0, 60, 1500]),
        "settle": st.sampled_from([5, 5, 0, 70]),
    }
)
"""Settings of a run. `start` and `length` are in quarters of an hour."""


class RequestClock(FakeClock):
    """A fake clock that records the time of each request."""

    def __init__(self, now: str) -> None:
        super().__init__(now)
        self.requested: list[datetime] = []

    @override
    def run_in_thread(self, task: Callable[[], Any], timeout: float) -> Any:
        self.requested.append(self.now())
        assert len(self.requested) < 1000, "the run does not end"
        return super().run_in_thread(task, timeout)


@lru_cache
def clocks_for(zone: str) -> Clocks:
    first = at(STARTS[zone])
    return Clocks(ZoneInfo(zone), first - 4 * HOUR, first + 80 * HOUR)


class TapLifecycle(RuleBasedStateMachine):
    """A scheduled tap, its PBX, and a target that keeps the tap's records and state."""

    @initialize(zone=st.sampled_from(sorted(STARTS)))
    def set_up(self, zone: str) -> None:
        self.first, self.clocks = at(STARTS[zone]), clocks_for(zone)
        self.time = self.first + 5 * HOUR
        self.ahead = ZERO  # how far the tap's clock is ahead of the PBX's
        self.clock: RequestClock | None = None
        self.legs: list[Leg] = []
        for n in range(PERIOD_LENGTH // QUARTER):
            self.add_leg(self.first + n * QUARTER + n % 3 * 7 * MINUTE)
        self.hours_read: set[datetime] = set()
        self.late: set[str] = set()  # legs that arrived after their hour was read
        self.waived: set[datetime] = set()  # hours that an edited bookmark marks as read
        self.target: dict[str, dict[str, Any]] = {}
        self.bookmark: dict[str, Any] = {}
        self.bookmarks: list[dict[str, Any]] = [{}]
        self.pbx = Simulator(timezone=zone, legs=self.ended_legs, clock=self.now)
        self.pbx.__enter__()

    @override
    def teardown(self) -> None:
        if hasattr(self, "pbx"):
            try:
                if self.clock is None:  # otherwise a check failed in the last run
                    self.read_everything()
            finally:
                self.pbx.stop()

    # The PBX

    def now(self) -> datetime:
        """Return the time on the PBX's clock."""
        now = self.clock.now() - self.ahead if self.clock else self.time
        return datetime.fromtimestamp(now.timestamp(), UTC)

    def hour_of(self, instant: datetime) -> datetime:
        return wall_time(instant, self.clocks.zone).replace(minute=0, second=0, microsecond=0)

    def add_leg(self, end: datetime) -> None:
        self.legs.append(Leg(end - QUARTER, end, str(len(self.legs))))

    def ended_legs(self, start: datetime, end: datetime) -> list[Leg]:
        now = self.now()
        return [leg for leg in self.legs if start <= leg.callend < end and leg.callend <= now]

    # Events

    @rule(hours=st.integers(1, 3), minutes=st.sampled_from([0, 6, 31]))
    def time_passes(self, hours: int, minutes: int) -> None:
        if self.time < self.first + PERIOD_LENGTH:
            self.time += hours * HOUR + minutes * MINUTE

    @rule(minutes=st.integers(0, 300))
    def leg_arrives_late(self, minutes: int) -> None:
        self.add_leg((self.time - minutes * MINUTE).replace(second=0, microsecond=0))
        if self.hour_of(self.legs[-1].callend) in self.hours_read:
            self.late.add(self.legs[-1].call_record_id)

    @rule(back=st.integers(1, 5))
    def state_is_restored_from_a_backup(self, back: int) -> None:
        self.bookmark = copy.deepcopy(self.bookmarks[-min(back, len(self.bookmarks))])

    @precondition(lambda self: "replication_key_value" in self.bookmark)
    @rule(quarters=st.integers(1, 20))
    def value_is_set_back(self, quarters: int) -> None:
        value = datetime.fromisoformat(self.bookmark["replication_key_value"])
        self.bookmark["replication_key_value"] = (value - quarters * QUARTER).isoformat()

    @precondition(lambda self: "hours_read" in self.bookmark)
    @rule()
    def only_the_value_is_kept(self) -> None:
        del self.bookmark["hours_read"]

    @precondition(lambda self: {"hours_read", "replication_key_value"} <= self.bookmark.keys())
    @rule(number=st.integers(0, 10))
    def user_marks_an_hour_as_read(self, number: int) -> None:
        hour = self.hour_of(self.first + number * HOUR)
        item = {"from": hour.isoformat(), "to": (hour + HOUR).isoformat()}
        self.bookmark["hours_read"].append(item)
        self.waived.add(hour)

    @rule(config=RUNS, kill=KILLS, hours=st.integers(0, 3))
    def run_after_some_hours(self, config: dict[str, Any], kill: Kill, hours: int) -> None:
        self.time_passes(hours, 0)
        self.run_and_load(config, kill)

    @rule(config=RUNS, kill=KILLS, case=st.sampled_from(FAILURE_CASES), number=st.integers(-5, 10))
    def run_while_the_pbx_fails(
        self, config: dict[str, Any], kill: Kill, case: FailureCase, number: int
    ) -> None:
        """Run while the PBX fails for one hour or, if `number` is negative, for any hour."""
        hour = self.hour_of(self.first + number * HOUR)
        at_hour = (f"{hour:%Y-%m-%d}", hour.hour) if number >= 0 else None
        failure = dataclasses.replace(case.failure, at=at_hour)
        self.run_and_load(config, kill, case=case._replace(failure=failure))

    @rule(config=RUNS, kill=KILLS, minutes=st.sampled_from([20, 100, -100]))
    def run_with_a_wrong_clock(self, config: dict[str, Any], kill: Kill, minutes: int) -> None:
        self.run_and_load(config, kill, ahead=minutes * MINUTE)

    def run_and_load(self, config: dict[str, Any], kill: Kill, **others: Any) -> None:
        """Run the tap, and load the part of its output that the target keeps after `kill`."""
        messages = self.run(config, **others).messages
        messages = messages[: round(kill.at * len(messages))]
        states = [n for n, m in enumerate(messages, 1) if m["type"] == "STATE"]
        kept = [0, 0, *states][-kill.lost_states - 1]  # 0: no STATE
        later_records = [message for message in messages[kept:] if message["type"] == "RECORD"]
        self.load(messages[:kept] + ([] if kill.records_lost else later_records))

    # Checks

    def run(
        self, config: dict[str, Any], ahead: timedelta = ZERO, case: FailureCase | None = None
    ) -> Run:
        """Run the tap, and compare its requests and messages with the model's."""
        start, length, newest_first, limit, lookback, interval, settle = (
            config[name] for name in READ_ALL
        )
        lookback = lookback if limit is None else min(lookback, limit - 1)
        start_date = self.first + start * QUARTER
        end_date = None if length is None else start_date + length * QUARTER
        start_hour = self.hour_of(start_date)
        read = bookmark_hours(self.bookmark, self.clocks, start_hour)
        if "hours_read" not in self.bookmark:
            self.waived |= read
        self.ahead, self.clock = ahead, RequestClock((self.time + ahead).isoformat())
        model = RunModel(
            self.clocks, read, self.clock.now(), start_hour, end_date,
            settle * MINUTE, lookback, limit, newest_first,
        )  # fmt: skip
        unread = model.unread(self.clock.now())
        self.pbx.requests.clear()
        self.pbx.failures[:] = [case.failure] if case else []
        run = run_tap(
            self.pbx,
            state={"bookmarks": {"recordings": self.bookmark}} if self.bookmark else None,
            clock=self.clock,
            start_date=start_date.isoformat(),
            end_date=end_date and end_date.isoformat(),
            backfill_order="newest_first" if newest_first else "oldest_first",
            max_hours_per_run=limit,
            lookback_hours=lookback,
            request_interval=interval,
            settle_minutes=settle,
        )
        value = self.bookmark.get("replication_key_value")
        if value and datetime.fromisoformat(value) > self.time + ahead + HOUR:
            assert isinstance(run.error, StateError)
            assert not self.pbx.requests
            assert not run.output
        else:
            self.check_requests(model, run, case)
            self.check_messages(model, run)
            if run.error is None and unread and ahead <= ZERO:
                assert {*model.read_in_run} - model.read_before, "the run read no new hour"
        self.time, self.clock = self.now(), None
        return run

    def check_requests(self, model: RunModel, run: Run, case: FailureCase | None) -> None:
        """Check that each request is for the model's next hour, until the model has none."""
        assert self.clock
        attempts, hour, is_fatal = 0, None, False
        for request, now in zip(self.pbx.requests, self.clock.requested, strict=True):
            requested = datetime.fromisoformat(f"{request.date}T{request.hour:02}:00")
            assert not is_fatal, "the run continued after a fatal error"
            assert requested == (hour if attempts else model.next_hour(now))
            attempts, hour = attempts + 1, requested
            if request.failure:
                assert case
                if attempts < case.attempts:
                    continue
                is_fatal = case.ends_run
                if not is_fatal:
                    model.fail(hour)
            else:
                pbx_time = (now - self.ahead).replace(microsecond=0)
                legs = [leg for leg in self.legs if self.hour_of(leg.callend) == hour]
                model.handle_success(hour, legs, now, pbx_time)
            attempts = 0
        assert not attempts, "the run gave up too early"
        self.hours_read |= {*model.read_in_run}
        if is_fatal:
            assert isinstance(run.error, RequestError)
        else:
            assert model.next_hour(self.clock.now()) is None, "the run ended early"
            assert isinstance(run.error, FailedHoursError if model.failed else type(None))
            assert all(format_hour(hour) in str(run.error) for hour in model.failed)

    def check_messages(self, model: RunModel, run: Run) -> None:
        """Check that the records are complete and in order, and that each STATE is correct."""
        names, written = key_and_times(self.legs[0]), list[Any]()
        for message in run.messages:
            if message["type"] == "RECORD":
                written.append({name: message["record"][name] for name in names})
            elif message["type"] == "STATE":
                bookmark = message["value"]["bookmarks"]["recordings"]
                read = bookmark_hours(bookmark, self.clocks, min(self.clocks.by_hour))
                written.append(frozenset(read))
        # The SDK may repeat the last STATE at the end.
        expected = model.messages()
        assert written in (expected, [*expected, expected[-1]])

    def load(self, messages: list[dict[str, Any]]) -> None:
        """Load messages as a target does, and check that each STATE marks only loaded hours."""
        for message in messages:
            if message["type"] == "RECORD":
                self.target[message["record"]["CallRecordId"]] = message["record"]
            elif message["type"] == "STATE":
                self.bookmark = message["value"]["bookmarks"]["recordings"]
                self.bookmarks.append(copy.deepcopy(self.bookmark))
                marked = bookmark_hours(self.bookmark, self.clocks, min(self.clocks.by_hour))
                marked -= self.waived
                legs = (leg for leg in self.legs if self.hour_of(leg.callend) in marked)
                assert {leg.call_record_id for leg in legs} <= self.target.keys() | self.late

    def read_everything(self) -> None:
        """Check that a run reads the rest, the next reads nothing, and lookback rereads all."""
        self.time = max(self.time, self.first + PERIOD_LENGTH) + 3 * HOUR
        self.load(self.run(READ_ALL).messages)
        due = {
            hour for hour in self.clocks.by_hour if self.clocks.end(hour) <= self.time - 6 * MINUTE
        }
        start = self.hour_of(self.first - HOUR)
        marked = bookmark_hours(self.bookmark, self.clocks, start)
        assert {hour for hour in due if hour >= start} <= marked
        self.load(self.run(READ_ALL).messages)
        assert not self.pbx.requests, "hours were requested again"
        self.load(self.run(READ_ALL | {"lookback": 60}).messages)
        for leg in self.legs:
            if self.hour_of(leg.callend) in due:
                assert key_and_times(leg).items() <= self.target[leg.call_record_id].items()


@pytest.mark.parametrize(
    ("examples", "steps"), [(8, 12), pytest.param(40, 25, marks=pytest.mark.slow)]
)
def test_no_sequence_of_runs_loses_a_leg(examples: int, steps: int) -> None:
    profile = settings(
        deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck]
    )
    run_state_machine_as_test(
        TapLifecycle,
        settings=settings(profile, max_examples=examples, stateful_step_count=steps),
    )
