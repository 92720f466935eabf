"""What the tests share: the tap run in this process, with a clock of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo

import pendulum
import pytest
from typing_extensions import override

from tap_noojee.simulator import Simulator, legs
from tap_noojee.tap import TapNoojee
from tap_noojee.waiting import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tap_noojee.simulator import Leg

T = TypeVar("T")

# Where Python may not keep what it compiles, each of the many processes takes twice as long.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


class FakeClock(Clock):
    """A clock that only waiting moves."""

    def __init__(self, now: str = "2022-06-01T00:00:00+00:00") -> None:
        """Begin at an instant."""
        super().__init__()
        self.began = self.instant = pendulum.instance(datetime.fromisoformat(now))
        self.sleeps: list[float] = []

    @override
    def now(self) -> pendulum.DateTime:
        return self.instant

    @override
    def monotonic(self) -> float:
        return (self.instant - self.began).total_seconds()

    @override
    def sleep(self, seconds: float) -> None:
        self.raise_if_stopped()
        self.sleeps.append(max(0, seconds))
        self.instant = self.instant.add(seconds=self.sleeps[-1])


class Hasty(FakeClock):
    """A clock for which a task's time is over sooner: five attempts take 1.5 s."""

    @override
    def run(self, task: Callable[[], T], timeout: float) -> T:
        assert timeout == 11
        return super().run(task, 0.3)  # more than an answer takes on a busy machine


@dataclasses.dataclass
class Run:
    """What a run of the tap did."""

    output: str
    error: BaseException | None = None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages."""
        return [json.loads(line) for line in self.output.splitlines()]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records, in order."""
        return [m["record"] for m in self.messages if m["type"] == "RECORD"]

    @property
    def states(self) -> list[dict[str, Any]]:
        """The values of STATE, in order."""
        return [m["value"] for m in self.messages if m["type"] == "STATE"]

    @property
    def bookmarks(self) -> list[str]:
        """The bookmark's value in each STATE."""
        return [s["bookmarks"]["recordings"]["replication_key_value"] for s in self.states]

    @property
    def keys(self) -> list[tuple[str, int]]:
        """The keys of the records, in order."""
        return [(r["CallRecordId"], r["Leg"]) for r in self.records]


def settings(simulator: Simulator, **changes: Any) -> dict[str, Any]:
    """Settings for a simulator; None takes one out."""
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
    """Run the tap to its end, whatever that is."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    error: BaseException | None = None
    with contextlib.redirect_stdout(stdout):
        try:
            sync(
                TapNoojee(
                    config=settings(simulator, **config),
                    state=json.loads(json.dumps(state)),
                    catalog=catalog,
                    clock=clock or FakeClock(),
                )
            )
        except (Exception, SystemExit) as raised:  # noqa: BLE001 - handed to the test
            error = raised
    stdout.seek(0)
    return Run(stdout.read(), error)


def truth(simulator: Simulator, start: str, end: str) -> list[Leg]:
    """The legs that ended between two times of the simulator's own clock."""
    zone = ZoneInfo(simulator.timezone)
    first, last = (
        datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC) for text in (start, end)
    )
    return legs(first, last, zone=zone, volume=simulator.volume)


def as_records(true_legs: list[Leg]) -> list[tuple[str, int, str, str]]:
    """Legs by key, end and start as the tap should emit them."""
    return [
        (leg.call_record_id, leg.leg, leg.callend.isoformat(), leg.start.isoformat())
        for leg in true_legs
    ]


def emitted(run: Run) -> list[tuple[str, int, str, str]]:
    """The same of the records of a run."""
    return [(r["CallRecordId"], r["Leg"], r["callend"], r["Start"]) for r in run.records]


def requested(simulator: Simulator) -> list[tuple[str | None, int | None]]:
    """The hours that requested of the simulator, in order."""
    return [(request.date, request.hour) for request in simulator.requests]


@pytest.fixture
def pbx() -> Iterator[Simulator]:
    """A simulator of a PBX in Melbourne."""
    with Simulator() as simulator:
        yield simulator
