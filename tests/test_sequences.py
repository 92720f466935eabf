"""Sequences of runs against a model: what the PBX has, what the target has, what STATE says.

A scheduled tap lives through thousands of runs. Here a machine makes up such lives: runs with any
settings, legs that arrive late or change, kills, old and merged states, a PBX that fails or whose
clock is slow. Whatever happens, no STATE may claim what the target does not have, and in the end
everything is there.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
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

from tap_noojee.simulator import Failure, Leg, Simulator

if TYPE_CHECKING:
    from collections.abc import Sequence

HOUR = timedelta(hours=1)
STEP = timedelta(minutes=20)
LENGTH = 14 * HOUR
PLACES = {
    "Australia/Melbourne": "2021-04-03T12:00:00+00:00",
    "Pacific/Chatham": "2021-04-03T10:00:00+00:00",
    "Australia/Lord_Howe": "2021-04-03T11:00:00+00:00",
    "Australia/Adelaide": "2021-10-02T12:30:00+00:00",
}
"""Zones, and when to begin: some hours before their clocks change."""

FAILURES = [
    Failure("status", status=503, times=None),
    Failure("rate", times=1),
    Failure("status", status=403, times=None),
    Failure("cut", times=1),
    Failure("html"),
    Failure("body", body=b'[{"callend": "yesterday"}]'),
]
Key = tuple[str, int]


def merge(old: Any, new: Any) -> Any:
    """Merge two states as Meltano does: objects deeply, all else by the new one."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: merge(old.get(key), value) for key, value in new.items()}
    return new


class Life(RuleBasedStateMachine):
    """The life of a scheduled tap."""

    @initialize(zone=st.sampled_from(sorted(PLACES)))
    def begin(self, zone: str) -> None:
        """Install the tap, with a few hours of history on the PBX."""
        self.zone = ZoneInfo(zone)
        self.first = datetime.fromisoformat(PLACES[zone])
        self.now = self.first + 5 * HOUR
        self.legs = {
            (str(n), 1): Leg(self.first + n * STEP - STEP, self.first + n * STEP, str(n))
            for n in range(LENGTH // STEP)
        }
        self.changed: set[Key] = set()
        """Legs that arrived or changed after their hour could have been read."""
        self.target: dict[Key, dict[str, Any]] = {}
        self.states: list[dict[str, Any]] = []
        self.state: dict[str, Any] | None = None
        self.pbx = Simulator(
            timezone=zone,
            legs=self.ended,
            clock=self.pbx_now,
        )
        self.slow = timedelta()
        self.pbx.__enter__()

    def teardown(self) -> None:
        """See that at last everything is there, and stop the PBX."""
        if hasattr(self, "pbx"):
            try:
                self.read_everything()
            finally:
                self.pbx.stop()

    def pbx_now(self) -> datetime:
        """What the PBX's clock says."""
        return self.now - self.slow

    def ended(self, start: datetime, end: datetime) -> list[Leg]:
        """The legs that the PBX has by now."""
        end = min(end, self.pbx_now())
        return [leg for leg in self.legs.values() if start <= leg.callend < end]

    # What happens

    @rule(hours=st.integers(1, 3), minutes=st.sampled_from([0, 6, 31]))
    def time_passes(self, hours: int, minutes: int) -> None:
        """Time passes between two runs."""
        self.now = min(self.now + hours * HOUR + timedelta(minutes=minutes), self.first + LENGTH)

    @rule(slow=st.sampled_from([0, 0, 20, 100]))
    def the_pbx_has_a_clock_of_its_own(self, slow: int) -> None:
        """The PBX's clock is right, or some minutes slow."""
        self.slow = timedelta(minutes=slow)

    @rule(index=st.integers(0, LENGTH // STEP - 1), tag=st.text("abc", min_size=1, max_size=3))
    def a_leg_changes(self, index: int, tag: str) -> None:
        """A leg gets a tag, perhaps long after it ended."""
        key = (str(index), 1)
        leg = self.legs[key]
        self.legs[key] = Leg(leg.start, leg.callend, leg.call_record_id, tag=tag)
        self.changed.add(key)

    @rule(data=st.data())
    def a_run(self, data: st.DataObject) -> None:
        """A run with any settings, which may fail, or be killed at any point."""
        half_hour = timedelta(minutes=30)
        start = self.first + data.draw(st.integers(0, 10), "start") * half_hour
        end = start + data.draw(st.integers(1, 12), "length") * half_hour
        limit = data.draw(st.none() | st.integers(1, 4), "limit")
        lookback = data.draw(st.integers(0, 2), "lookback")
        if limit is not None and lookback >= limit:
            lookback = limit - 1
        failure = data.draw(st.none() | st.none() | st.sampled_from(FAILURES), "failure")
        self.pbx.failures[:] = [failure] if failure else []
        self.pbx._used.clear()  # noqa: SLF001 - each run has its own failure
        run = self.run(
            start_date=start.isoformat(),
            end_date=end.isoformat() if data.draw(st.booleans(), "with an end") else None,
            max_hours_per_run=limit,
            lookback_hours=lookback,
            backfill_order=data.draw(st.sampled_from(["oldest_first", "newest_first"]), "order"),
        )
        kill = data.draw(st.none() | st.integers(0, len(run.messages)), "killed after")
        self.load(run.messages if kill is None else run.messages[:kill])

    @precondition(lambda self: len(self.states) > 1)
    @rule(back=st.integers(1, 5))
    def the_state_is_rolled_back(self, back: int) -> None:
        """An older STATE is restored, as from a backup."""
        self.state = self.states[max(0, len(self.states) - 1 - back)]

    @precondition(lambda self: self.states)
    @rule(back=st.integers(1, 3))
    def two_states_are_merged(self, back: int) -> None:
        """Meltano merges the last STATE into an older one."""
        older = self.states[max(0, len(self.states) - 1 - back)]
        self.state = merge(copy.deepcopy(older), self.states[-1])

    # What follows

    def run(self, **config: Any) -> Run:
        """Run the tap on what there is."""
        self.pbx.requests.clear()
        clock = FakeClock(self.now.isoformat())
        # The interval is nothing, so that time stands still during a run.
        run = run_tap(self.pbx, state=self.state, clock=clock, request_interval=0, **config)
        served = [(r.date, r.hour) for r in self.pbx.requests if r.status == 200 and not r.failure]
        assert len(served) == len(set(served)), "an hour was read twice in a run"
        return run

    def load(self, messages: list[dict[str, Any]]) -> None:
        """Write what came, and keep the last STATE, as a target does."""
        for message in messages:
            if message["type"] == "RECORD":
                record = message["record"]
                self.target[record["CallRecordId"], record["Leg"]] = record
            elif message["type"] == "STATE":
                self.state = json.loads(json.dumps(message["value"]))
                self.check(self.state)
                if self.state["bookmarks"]["recordings"]:
                    self.states.append(self.state)

    def check(self, state: dict[str, Any]) -> None:
        """Hold what a STATE claims against what the target has."""
        bookmark = state["bookmarks"]["recordings"]
        if not bookmark:
            return
        assert {"since", "owed"} <= bookmark.keys()
        claimed = bookmark["since"], bookmark["replication_key_value"]
        for key, leg in self.legs.items():
            end = leg.callend.isoformat()
            owed = any(span["start"] <= end < span["end"] for span in bookmark["owed"])
            if claimed[0] <= end < claimed[1] and not owed:
                assert key in self.target, f"STATE claims {end}, which was not written"

    @invariant()
    def no_record_is_wrong(self) -> None:
        """Each record in the target is one that the PBX had."""
        for key, record in getattr(self, "target", {}).items():
            leg = self.legs[key]
            assert record["callend"] == leg.callend.astimezone(UTC).isoformat()
            assert key in self.changed or record["Tag"] == leg.tag

    def read_everything(self) -> None:
        """A run over all of history reads what no run has read, and the next one nothing."""
        self.slow = timedelta()
        self.pbx.failures.clear()
        start = self.first.isoformat()
        run = self.run(start_date=start)
        assert run.error is None
        self.load(run.messages)
        over = self.now - timedelta(minutes=5) - 2 * HOUR
        missing = [
            key for key, leg in self.legs.items() if leg.callend < over and key not in self.target
        ]
        assert missing == []
        again = self.run(start_date=start)
        assert not self.pbx.requests, "what had been read was requested again"
        self.load(again.messages)


def live(examples: int, steps: int, phases: Sequence[Phase] = tuple(Phase)) -> None:
    """Let the machine make up lives."""
    run_state_machine_as_test(
        Life,
        settings=settings(
            deadline=None,
            derandomize=True,
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            phases=phases,
        ),
    )


def test_any_sequence_of_runs_keeps_its_promises() -> None:
    """No STATE claims what was not written, nothing is read twice in vain, nothing is lost."""
    live(examples=25, steps=12)


PLANTED = sorted(Path(__file__).parent.glob("planted/*.diff"))


@pytest.mark.slow
@pytest.mark.parametrize("bug", PLANTED, ids=lambda path: path.stem)
def test_the_machine_finds_each_planted_bug(bug: Path, tmp_path: Path) -> None:
    """With a bug planted in a copy of the tap, the same machine finds that a promise is broken."""
    root = Path(__file__).parent.parent
    for name in ("tap_noojee", "schemas", "tests"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "tap_noojee").unlink()
    subprocess.run(["cp", "-r", root / "tap_noojee", tmp_path], check=True)
    subprocess.run(["cp", "-r", root / "schemas", tmp_path / "tap_noojee"], check=True)
    subprocess.run(["patch", "-s", "-p1", "-i", bug], cwd=tmp_path, check=True)
    # That it is found is enough here: the shortest life that shows it takes much longer.
    call = "live(examples=150, steps=14, phases=[Phase.generate])"
    code = f"from test_sequences import *; {call}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{root / 'tests'}", "LOGLEVEL": "CRITICAL"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 1
    assert "AssertionError" in done.stderr, done.stderr[-2000:]
