"""Sequences of runs against a model: what the PBX has, what the target has, what STATE says.

A scheduled tap lives through thousands of runs. Here a machine makes up such lives: runs with any
settings, legs that arrive late or change, kills, old and merged states, a PBX that fails, and
clocks that are wrong. Whatever happens, no STATE may claim what the target does not have, nothing
is requested in vain, and in the end everything is there.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from conftest import FakeClock, Run, run_tap
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import QUARTER, Calendar, Key, RunModel, content
from typing_extensions import override

from tap_noojee.simulator import Failure, Leg, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
LENGTH = 10 * HOUR
MAX_REQUESTS = 100
"""In a run; far more than there are hours."""
PLACES = {
    "Australia/Melbourne": "2021-04-03T12:00:00+00:00",
    "Pacific/Chatham": "2021-04-03T10:00:00+00:00",
    "Australia/Lord_Howe": "2021-04-03T11:00:00+00:00",
    "Australia/Adelaide": "2021-10-02T12:30:00+00:00",
}
"""Zones, and when to begin: some hours before their clocks change."""

PASSING = [
    Failure("rate"),
    Failure("cut"),
    Failure("reset"),
    Failure("stall"),
    Failure("status", status=403),
    Failure("status", status=503, times=4),
]
LASTING = [
    Failure("html"),
    Failure("stall", times=None),
    Failure("status", status=403, times=None),
    Failure("status", status=503, times=None),
    Failure("body", body=b'[{"callend": "yesterday"}]'),
    Failure("code", times=None),
]


def merge(source: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
    """Merge states as Meltano does: objects deeply, all else replaced."""
    for key, value in source.items():
        if isinstance(value, dict):
            merge(value, target.setdefault(key, {}))
        else:
            target[key] = value
    return target


class Kill(NamedTuple):
    """How a run is cut short: its output, and what the target makes of it."""

    at: float = 1
    """How much of the output there is."""
    states_lost: int = 0
    """How many of the last STATEs the target has not handed over."""
    records_lost: bool = False
    """Whether it has not written the records after the STATE that it did hand over."""


KILLS = st.just(Kill()) | st.builds(Kill, st.floats(0, 1), st.integers(0, 2), st.booleans())

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
"""Settings of a run, `start` and `length` in quarters of an hour."""


class StallClock(FakeClock):
    """A fake clock for which a stalled request is over as soon as it stalls."""

    def __init__(self, now: str) -> None:
        """Begin at an instant."""
        super().__init__(now)
        self.events: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()

    def stall(self) -> None:
        """End the wait for the present request."""

        def fail() -> None:
            raise TimeoutError

        self.events.put(fail)

    @override
    def run(self, task: Callable[[], Any], timeout: float) -> Any:
        events = self.events = queue.SimpleQueue()

        def work() -> None:
            future: Future[Any] = Future()
            try:
                future.set_result(task())
            except Exception as error:  # noqa: BLE001 - raised again by the one who waits
                future.set_exception(error)
            events.put(future.result)

        threading.Thread(target=work, daemon=True).start()
        return events.get()()


class Life(RuleBasedStateMachine):
    """The life of a scheduled tap."""

    @initialize(zone=st.sampled_from(sorted(PLACES)))
    def begin(self, zone: str) -> None:
        """Install the tap, with a few hours of history on the PBX."""
        self.zone = ZoneInfo(zone)
        self.first = datetime.fromisoformat(PLACES[zone])
        self.calendar = Calendar(self.zone, self.first - 4 * HOUR, days=4)
        self.time = self.first + 5 * HOUR
        self.legs: dict[Key, Leg] = {}
        for n in range(LENGTH // QUARTER):
            # Some end just at the beginning of an hour, or of what a run reads.
            self.add_leg(self.first + n * QUARTER + n % 3 * 7 * MINUTE)
        self.late: set[Key] = set()
        """Legs that came into an hour after it had been read."""
        self.hours_read: set[datetime] = set()
        self.target: dict[Key, dict[str, Any]] = {}
        self.states: list[dict[str, Any]] = []
        self.state: dict[str, Any] = {}
        self.clock: StallClock | None = None
        self.pbx = Simulator(timezone=zone, legs=self.answer, clock=self.now)
        self.pbx.__enter__()

    def teardown(self) -> None:
        """See that at last everything is there, and stop the PBX."""
        if hasattr(self, "pbx"):
            try:
                self.read_everything()
            finally:
                self.pbx.stop()

    # The PBX

    def now(self) -> datetime:
        """What the time really is, as the PBX's clock says."""
        if not self.clock:
            return self.time
        return datetime.fromtimestamp(self.clock.now().timestamp(), UTC) - self.ahead

    def add_leg(self, end: datetime) -> None:
        """Let there be another leg."""
        leg = Leg(end - QUARTER, end, str(len(self.legs)))
        self.legs[leg.call_record_id, leg.leg] = leg

    def change_leg(self, keys: Collection[Key], index: int, tag: str, later: timedelta) -> None:
        """Let one of these legs change, if it has ended."""
        if not keys:
            return
        key = list(keys)[index % len(keys)]
        leg = self.legs[key]
        if leg.callend + later < self.now():
            leg = dataclasses.replace(leg, tag=tag, callend=leg.callend + later)
            self.legs[key] = leg
            self.note_late(key)

    def note_late(self, key: Key) -> None:
        """Note whether a leg has come into an hour that had been read."""
        if self.calendar.hour(self.legs[key].callend) in self.hours_read:
            self.late.add(key)

    def answer(self, start: datetime, end: datetime) -> list[Leg]:
        """The legs that the PBX has by now, for the request that has just come."""
        assert self.clock
        request = self.pbx.requests[-1]
        if request.failure == "stall":
            self.clock.stall()
        if self.change and len(self.pbx.requests) == self.change[0]:
            self.change_leg(self.model.seen, *self.change[1:])
        now = self.now()
        found = [leg for leg in self.legs.values() if leg.callend <= now]
        hour = datetime.fromisoformat(f"{request.date}T{request.hour:02}:00")
        # The PBX fails then, and so does the run, which would else never end.
        assert len(self.requested) < MAX_REQUESTS
        self.requested.append((hour, self.model.next_hour(self.clock.now())))
        if not request.failure and self.calendar.over(hour) <= now:
            self.hours_read.add(hour)
            self.model.read(hour, [x for x in found if self.calendar.hour(x.callend) == hour])
        return [leg for leg in found if start <= leg.callend < end]

    # What happens

    @rule(hours=st.integers(1, 3), minutes=st.sampled_from([0, 6, 31]))
    def time_passes(self, hours: int, minutes: int) -> None:
        """Time passes between two runs."""
        if self.time < self.first + LENGTH:
            self.time += hours * HOUR + minutes * MINUTE

    @rule(minutes=st.integers(0, 300))
    def a_leg_arrives_late(self, minutes: int) -> None:
        """A leg appears some time after it ended."""
        self.add_leg((self.time - minutes * MINUTE).replace(second=0, microsecond=0))
        self.note_late(list(self.legs)[-1])

    @rule(
        index=st.integers(0, 50),
        tag=st.sampled_from(["a", "b"]),
        later=st.sampled_from([0, 7, 60, 90]).map(lambda minutes: minutes * MINUTE),
    )
    def a_leg_changes(self, index: int, tag: str, later: timedelta) -> None:
        """A leg gets a tag or a later end, perhaps long after it ended."""
        self.change_leg(self.legs, index, tag, later)

    @precondition(lambda self: self.states)
    @rule(back=st.integers(1, 5))
    def the_state_is_rolled_back(self, back: int) -> None:
        """An older STATE is restored, as from a backup; or there is none."""
        self.state = copy.deepcopy(([{}] * 6 + self.states)[-1 - back])

    @precondition(lambda self: len(self.states) > 1)
    @rule(source=st.integers(0, 3), into=st.integers(0, 3))
    def two_states_are_merged(self, source: int, into: int) -> None:
        """Meltano merges a STATE into another one."""
        recent = self.states[-4:]
        into_state = copy.deepcopy(recent[into % len(recent)])
        self.state = copy.deepcopy(merge(recent[source % len(recent)], into_state))

    @precondition(lambda self: "since" in self.bookmark)
    @rule()
    def the_tap_is_upgraded(self) -> None:
        """It was the release 0.1 that wrote the STATE."""
        old = copy.deepcopy(self.bookmark)
        self.since = datetime.fromisoformat(old.pop("since"))
        if not old["owed"]:
            del old["owed"]
        self.state = {"bookmarks": {"recordings": old}}

    @rule(config=RUNS, kill=KILLS)
    def a_run(self, config: dict[str, Any], kill: Kill) -> None:
        """A run with any settings, which may be killed at any point."""
        self.run_and_load(config, kill)

    @rule(config=RUNS, kill=KILLS, hours=st.integers(0, 3))
    def a_run_after_some_hours(self, config: dict[str, Any], kill: Kill, hours: int) -> None:
        """Time passes, and there is another run."""
        self.time_passes(hours, 0)
        self.run_and_load(config, kill)

    @rule(
        config=RUNS,
        kill=KILLS,
        failure=st.sampled_from(PASSING + LASTING),
        at=st.none() | st.integers(0, 10),
    )
    def a_run_of_a_pbx_that_fails(
        self, config: dict[str, Any], kill: Kill, failure: Failure, at: int | None
    ) -> None:
        """The PBX fails, at one hour or at any."""
        if at is not None:
            hour = self.calendar.hour(self.first + at * HOUR)
            failure = dataclasses.replace(failure, at=(f"{hour:%Y-%m-%d}", hour.hour))
        self.run_and_load(config, kill, failure=failure)

    @rule(config=RUNS, kill=KILLS, minutes=st.sampled_from([20, 100, -100]))
    def a_run_with_a_wrong_clock(self, config: dict[str, Any], kill: Kill, minutes: int) -> None:
        """The clock of the tap is ahead of the PBX's, or behind it."""
        self.run_and_load(config, kill, ahead=minutes * MINUTE)

    @rule(
        config=RUNS,
        kill=KILLS,
        number=st.integers(2, 4),
        index=st.integers(0, 40),
        minutes=st.sampled_from([0, 60]),
    )
    def a_run_while_a_leg_changes(
        self, config: dict[str, Any], kill: Kill, number: int, index: int, minutes: int
    ) -> None:
        """A leg that has been read changes, just before another request."""
        self.run_and_load(config, kill, change=(number, index, "c", minutes * MINUTE))

    def run_and_load(self, config: dict[str, Any], kill: Kill, **what: Any) -> None:
        """Run the tap, kill it, and let the target have what it has written by then."""
        config = dict(config)
        start = self.first + config.pop("start") * QUARTER
        if "since" not in self.bookmark and self.bookmark:
            start = max(start, self.since)  # else release 0.1's STATE claims what it did not read
        length, limit, lookback = (config.pop(name) for name in ("length", "limit", "lookback"))
        run = self.run(
            start=start,
            end=None if length is None else start + length * QUARTER,
            limit=limit,
            lookback=lookback if limit is None else min(lookback, limit - 1),
            **config,
            **what,
        )
        output = run.output[: int(kill.at * len(run.output))]
        messages = [json.loads(line) for line in output.split("\n")[:-1]]
        # The target may not have handed over the last STATE, nor written the records after it.
        places = [0] * 3 + [n for n, m in enumerate(messages, 1) if m["type"] == "STATE"]
        kept = places[-kill.states_lost - 1] if kill.states_lost else len(messages)
        records = [message for message in messages[kept:] if message["type"] == "RECORD"]
        self.load(messages[:kept] + ([] if kill.records_lost else records))

    # What follows

    @property
    def bookmark(self) -> dict[str, Any]:
        """The bookmark of the present STATE, empty at first."""
        bookmarks: dict[str, Any] = self.state.get("bookmarks", {})
        bookmark: dict[str, Any] = bookmarks.get("recordings", {})
        return bookmark

    def run(  # noqa: PLR0913 - all that may be different about a run
        self,
        *,
        start: datetime,
        end: datetime | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        lookback: int = 0,
        interval: int = 0,
        settle: int = 5,
        ahead: timedelta = timedelta(),
        failure: Failure | None = None,
        change: tuple[int, int, str, timedelta] | None = None,
    ) -> Run:
        """Run the tap, and hold what it does against the model."""
        self.ahead, self.change = ahead, change
        self.requested: list[tuple[datetime, datetime | None]] = []
        clock = self.clock = StallClock((self.time + ahead).isoformat())
        claims_before = clock.now()
        model = self.model = RunModel(
            calendar=self.calendar,
            bookmark=self.bookmark,
            now=claims_before,
            start=start,
            end=end,
            lookback=lookback,
            limit=limit,
            newest_first=newest_first,
            settle=settle * MINUTE,
        )
        unread = self.reliably_due(model.unread)
        claims = model.claims
        self.pbx.requests.clear()
        self.pbx.failures[:] = [failure] if failure else []
        self.pbx._used.clear()  # noqa: SLF001 - each run has its own failure
        run = run_tap(
            self.pbx,
            state=self.state or None,
            clock=clock,
            start_date=start.isoformat(),
            end_date=end and end.isoformat(),
            backfill_order="newest_first" if newest_first else "oldest_first",
            max_hours_per_run=limit,
            lookback_hours=lookback,
            request_interval=interval,
            settle_minutes=settle,
        )
        self.check_output(run, claims)
        self.check_requests(run, failure)
        if run.error is None:
            full = limit is not None and len(model.steps) == limit
            left = self.reliably_due(model.unread | (model.again if limit is None else set()))
            assert full or not left, "the run ended early"
            assert not unread or any(step.news for step in model.steps), "no history was read"
        self.time, self.clock = self.now(), None
        return run

    def reliably_due(self, quarters: set[datetime]) -> set[datetime]:
        """The hours of these quarters that are due by the clocks of both sides."""
        assert self.clock
        # The PBX's clock is known to the second.
        by = min(self.now(), self.clock.now()) - self.model.settle - timedelta(seconds=2)
        hours = {self.calendar.hour(quarter) for quarter in quarters}
        return {hour for hour in hours if self.calendar.over(hour) <= by}

    def check_output(self, run: Run, claims: set[datetime]) -> None:
        """Each hour's records come whole, and STATE after each hour claims just what was read."""
        steps = list(self.model.steps)
        pending: list[dict[str, Any]] = []
        began = False
        for message in run.messages:
            if message["type"] == "SCHEMA":
                began = True  # before it, the SDK repeats the STATE that it was given
            elif message["type"] == "RECORD":
                record = message["record"]
                pending.append({name: record[name] for name in content(self.legs["0", 1])})
            else:
                bookmark = message["value"]["bookmarks"]["recordings"]
                if bookmark:
                    assert {"since", "owed"} <= bookmark.keys()
                if began and steps and (pending or self.claims(bookmark) == steps[0].claims):
                    step = steps.pop(0)
                    assert pending == step.records, f"{step.hour}: not the records that were due"
                    claims, pending = step.claims, []
                assert not pending, "records came of an hour that was not read"
                assert self.claims(bookmark) == claims, "STATE claims more or less than was read"
        assert not pending, "the last message is a record"
        assert not steps, "an hour was read, but STATE does not follow"

    def claims(self, bookmark: dict[str, Any]) -> set[datetime]:
        """What a bookmark of this release claims."""
        return self.calendar.claimed(bookmark) if bookmark else set()

    def check_requests(self, run: Run, failure: Failure | None) -> None:
        """Nothing was requested in vain or out of order, and only what lasts ends the run."""
        hours = [step.hour for step in self.model.steps]
        assert len(hours) == len(set(hours)), "an hour was read twice in a run"
        assert self.model.limit is None or len(hours) <= self.model.limit
        failed = [request for request in self.pbx.requests if request.failure]
        if not failed and self.ahead <= timedelta():
            for hour, expected in self.requested:
                assert hour == expected
        if self.ahead <= timedelta():
            assert len(self.requested) - len(hours) <= len(failed), "an hour was not over"
        # A failure for each attempt is one that lasts.
        lasts = bool(failed) and failure is not None and failure in self.lasting(failure)
        assert (run.error is not None) == lasts, run.error

    @staticmethod
    def lasting(failure: Failure) -> list[Failure]:
        """The failures that end a run, for the same hour as this one."""
        return [dataclasses.replace(lasting, at=failure.at) for lasting in LASTING]

    def load(self, messages: list[dict[str, Any]]) -> None:
        """Write what came, and keep the last STATE, as a target does."""
        for message in messages:
            if message["type"] == "RECORD":
                record = message["record"]
                self.target[record["CallRecordId"], record["Leg"]] = record
            elif message["type"] == "STATE":
                self.state = message["value"]
                self.no_state_claims_what_the_target_does_not_have()
                if self.bookmark:
                    self.states.append(copy.deepcopy(self.state))

    @invariant()
    def no_state_claims_what_the_target_does_not_have(self) -> None:
        """Hold what STATE claims against what the target has."""
        if not getattr(self, "state", None) or not self.bookmark:
            return
        since = self.since if "since" not in self.bookmark else None
        claimed = self.calendar.claimed(self.bookmark, since)
        missing = [
            leg
            for key, leg in self.legs.items()
            if self.calendar.quarter(leg.callend) in claimed
            and key not in self.target
            and key not in self.late
        ]
        assert not missing, "STATE claims what the target does not have"

    def read_everything(self) -> None:
        """A run over all of history reads what no run has read, and the next one nothing."""
        self.time = max(self.time, self.first + LENGTH) + 3 * HOUR
        if "since" not in self.bookmark:
            self.state = {}
        start = self.first - HOUR
        run = self.run(start=start)
        self.load(run.messages)
        assert self.legs.keys() - self.late <= self.target.keys()
        self.load(self.run(start=start).messages)
        assert not self.pbx.requests, "what had been read was requested again"
        # With lookback, whatever arrived late or changed is read, too.
        self.load(self.run(start=start, lookback=60).messages)
        for key, leg in self.legs.items():
            if self.calendar.over(self.calendar.hour(leg.callend)) < self.time - HOUR:
                assert content(leg).items() <= self.target[key].items()


def live(examples: int, steps: int, phases: Sequence[Phase] | None = None) -> None:
    """Let the machine make up lives."""
    run_state_machine_as_test(
        Life,
        settings=settings(
            deadline=None,
            derandomize=True,
            database=None,
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            phases=phases or settings().phases,
        ),
    )


def test_any_sequence_of_runs_keeps_its_promises() -> None:
    """No STATE claims what was not written, nothing is read in vain, nothing is lost."""
    live(examples=12, steps=15)


PLANTED = sorted(Path(__file__).parent.glob("planted/*.diff"))


@pytest.mark.slow
@pytest.mark.parametrize("bug", PLANTED, ids=lambda path: path.stem)
def test_the_machine_finds_each_planted_bug(bug: Path, tmp_path: Path) -> None:
    """With a bug planted in a copy of the tap, the same machine finds that a promise is broken."""
    root = Path(__file__).parent.parent
    shutil.copytree(root / "tap_noojee", tmp_path / "tap_noojee")
    shutil.copytree(root / "schemas", tmp_path / "tap_noojee" / "schemas")
    subprocess.run(["git", "apply", bug], cwd=tmp_path, check=True)
    # That it is found is enough here: the shortest life that shows it takes much longer.
    call = "live(examples=200, steps=15, phases=[Phase.generate])"
    imports = "import tap_noojee; from test_sequences import *; print(tap_noojee.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}; {call}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{root / 'tests'}", "LOGLEVEL": "CRITICAL"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.stdout.startswith(str(tmp_path)), "the copy was not imported"
    assert done.returncode == 1, "the bug was not found"
    assert "AssertionError" in done.stderr, done.stderr[-2000:]
