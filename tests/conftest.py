"""Shared fixtures, and helpers that run the tap in this process with a fake clock."""

import contextlib
import copy
import dataclasses
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import pendulum
import pytest
from times import local
from typing_extensions import override

from tap_noojee.clock import Clock
from tap_noojee.legs import SCHEMA
from tap_noojee.simulator import Leg, Simulator, invent_legs
from tap_noojee.simulator.calls import SAMPLE
from tap_noojee.tap import TapNoojee

T = TypeVar("T")

FIELDS = tuple(SCHEMA["properties"])
DATE = "Tue Sep 14 15:03:34 AEST 2021"
RAW_LEG: dict[str, Any] = {
    name: "1" if "integer" in prop["type"] else DATE if "format" in prop else "x"
    for name, prop in SCHEMA["properties"].items()
}
"""A leg that the PBX could send, with all fields of the schema."""
UNSENT = set(FIELDS) - SAMPLE[0].record(ZoneInfo("UTC")).keys()
"""Fields of the schema that the simulator does not send: none, unless one is being added."""

_SLOWEST = ("test_new_project.py", "test_targets.py", "test_meltano.py", "test_analysis.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first, then those with the most tests, to keep all workers busy."""
    sizes = Counter(item.path for item in items)
    items.sort(
        key=lambda item: (
            _SLOWEST.index(item.path.name) if item.path.name in _SLOWEST else len(_SLOWEST),
            -sizes[item.path],
            item.path,
        )
    )


pytest.register_assert_rewrite("environments", "postgres", "projects", "views")

# Without .pyc files, each child process takes twice as long to start.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


class FakeClock(Clock):
    """A clock on which time passes only in `sleep`."""

    def __init__(self, now: str = "2022-06-01T00:00:00+00:00") -> None:
        super().__init__()
        self.started = self.instant = pendulum.instance(datetime.fromisoformat(now))
        self.sleeps: list[float] = []

    @override
    def now(self) -> pendulum.DateTime:
        return self.instant

    @override
    def monotonic(self) -> float:
        return (self.instant - self.started).total_seconds()

    @override
    def sleep(self, seconds: float) -> None:
        self.raise_if_interrupted()
        self.sleeps.append(max(0, seconds))
        self.instant = self.instant.add(seconds=self.sleeps[-1])


class ImpatientClock(FakeClock):
    """A clock that ends a stalled request after 0.3 s. Other requests need less time."""

    @override
    def run_in_thread(self, task: Callable[[], T], timeout: float) -> T:
        return super().run_in_thread(task, 0.3)


@dataclasses.dataclass
class Run:
    """The output of a run, and the error that ended it, if any."""

    output: str
    error: BaseException | None = None

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.splitlines()]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [m["record"] for m in self.messages if m["type"] == "RECORD"]

    @property
    def states(self) -> list[dict[str, Any]]:
        """The values of the STATE messages, in order."""
        return [m["value"] for m in self.messages if m["type"] == "STATE"]

    @property
    def bookmark_values(self) -> list[str | None]:
        """The `replication_key_value` of each STATE, or None if it has none."""
        return [s["bookmarks"]["recordings"].get("replication_key_value") for s in self.states]

    @property
    def keys(self) -> list[tuple[str, int]]:
        return [(r["CallRecordId"], r["Leg"]) for r in self.records]


def drop_field_warnings(lines: Iterable[str], fields: Iterable[str] = UNSENT) -> list[str]:
    """Drop the `no leg has the field …` warnings about these fields."""
    starts = tuple(f"no leg has the field {name};" for name in fields)
    return [line for line in lines if not line.partition(": ")[2].startswith(starts)]


def settings(simulator: Simulator, **changes: Any) -> dict[str, Any]:
    """Return settings for a simulator. Pass None to leave a setting out."""
    config = {
        "api_url": simulator.url,
        "api_key": simulator.api_key,
        "timezone": simulator.timezone,
        "start_date": "2021-09-14",
        "request_interval": 0,
    } | changes
    return {name: value for name, value in config.items() if value is not None}


def run_tap(
    simulator: Simulator,
    *,
    state: dict[str, Any] | None = None,
    clock: Clock | None = None,
    catalog: dict[str, Any] | None = None,
    sync: Callable[[TapNoojee], object] = TapNoojee.sync_all,
    **config: Any,
) -> Run:
    """Run the tap until it ends, and return its output and error."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    error: BaseException | None = None
    with contextlib.redirect_stdout(stdout):
        try:
            tap = TapNoojee(
                config=settings(simulator, **config),
                state=copy.deepcopy(state),
                catalog=catalog,
                clock=clock or FakeClock(),
            )
            try:
                sync(tap)
            finally:  # the command line does the same
                tap.message_writer.release_state()  # type: ignore[attr-defined]
        except (Exception, SystemExit) as raised:  # noqa: BLE001 - the tests check it
            error = raised
    stdout.seek(0)
    return Run(stdout.read(), error)


def expected_legs(simulator: Simulator, start: str, end: str) -> list[Leg]:
    """Return the simulator's legs that end between two wall-clock times."""
    first, last = (local(text, simulator.timezone) for text in (start, end))
    zone = ZoneInfo(simulator.timezone)
    return invent_legs(first, last, zone=zone, volume=simulator.volume)


def as_rows(all_legs: list[Leg]) -> list[tuple[str, int, str, str]]:
    """Return the key, end and start of each leg, as the tap should write them."""
    return [
        (leg.call_record_id, leg.leg, leg.callend.isoformat(), leg.start.isoformat())
        for leg in all_legs
    ]


def written_rows(run: Run) -> list[tuple[str, int, str, str]]:
    """Return the key, end and start of each record of a run."""
    return [(r["CallRecordId"], r["Leg"], r["callend"], r["Start"]) for r in run.records]


def requested_hours(simulator: Simulator) -> list[tuple[str | None, int | None]]:
    """Return the date and hour of each request, in order."""
    return [(request.date, request.hour) for request in simulator.requests]


def hours_read(run: Run) -> list[tuple[str, str]]:
    """Return the ranges of hours in the last STATE."""
    ranges = run.states[-1]["bookmarks"]["recordings"]["hours_read"]
    return [(item["from"], item["to"]) for item in ranges]


@pytest.fixture
def pbx() -> Iterator[Simulator]:
    """A simulated PBX in Melbourne."""
    with Simulator() as simulator:
        yield simulator
