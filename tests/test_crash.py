"""However and whenever the tap ends, the next run completes what it wrote."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from conftest import FakeClock, Run, as_records, emitted, requested, run_tap, settings, truth
from processes import command, environment
from typing_extensions import override

from tap_noojee.simulator import Simulator
from tap_noojee.tap import TapNoojee

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

HOURS: dict[str, Any] = {"start_date": "2021-09-14T06:00", "end_date": "2021-09-14T14:00"}
ORDERS = ["oldest_first", "newest_first"]


class EndError(BaseException):
    """The end of the process, as nothing in it can see it coming."""


class DyingClock(FakeClock):
    """Ends the process in its n-th wait, or before or after its n-th request."""

    def __init__(self, point: str, n: int) -> None:
        """Choose the point."""
        super().__init__()
        self.point = point
        self.n = n

    def _pass(self, point: str) -> None:
        self.n -= point == self.point
        if self.n < 0:
            raise EndError

    @override
    def sleep(self, seconds: float) -> None:
        self._pass("wait")
        super().sleep(seconds)

    @override
    def run(self, task: Callable[[], Any], timeout: float) -> Any:
        self._pass("request")
        result = super().run(task, timeout)
        self._pass("answer")
        return result


class DyingFile(io.BytesIO):
    """Ends the process at its n-th write; what was written before stays."""

    def __init__(self, n: int) -> None:
        """Choose the write."""
        super().__init__()
        self.n = n

    @override
    def write(self, data: Any) -> int:
        if self.n == 0:
            raise EndError
        self.n -= 1
        return super().write(data)


def run_until(
    simulator: Simulator,
    *,
    clock: FakeClock | None = None,
    writes: int = -1,
    **config: Any,
) -> tuple[Run, bool]:
    """Run the tap until it dies; return what it wrote, and whether it died."""
    file = DyingFile(writes)
    died = False
    with contextlib.redirect_stdout(io.TextIOWrapper(file, encoding="utf-8")):
        try:
            TapNoojee(config=settings(simulator, **config), clock=clock or FakeClock()).sync_all()
        except EndError:
            died = True
        written = file.getvalue().decode()
    return Run(written), died


def completes(pbx: Simulator, written: Run, **config: Any) -> None:
    """Check that a run resumed from the last STATE completes what was written."""
    before = len(pbx.requests)
    finished = len({json.dumps(v) for v in written.states if v["bookmarks"]["recordings"]})
    state = written.states[-1] if written.states else None
    rest = run_tap(pbx, state=state, **config)
    assert rest.error is None
    true_legs = truth(pbx, HOURS["start_date"], HOURS["end_date"])
    assert sorted(set(emitted(written) + emitted(rest))) == sorted(as_records(true_legs))
    # No finished hour is requested again, and no more than the hour in hand is emitted again.
    again = requested(pbx)[before:]
    assert len(again) == len(set(again)) == 8 - finished
    repeated = set(emitted(written)) & set(emitted(rest))
    assert len({callend[:13] for _, _, callend, _ in repeated}) <= 1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("point", ["wait", "request", "answer", "write"])
def test_ended_at_any_point_the_next_run_completes_it(
    pbx: Simulator, point: str, order: str
) -> None:
    """Ended in any wait, before or after any request, at any write, nothing is lost."""
    config = HOURS | {"backfill_order": order}
    for n in range(1000):
        if point == "write":
            written, died = run_until(pbx, writes=n, **config)
        else:
            written, died = run_until(pbx, clock=DyingClock(point, n), **config)
        completes(pbx, written, **config)
        if not died:
            break
    assert n >= 8


def whole_lines(output: bytes) -> Run:
    """The whole lines of an output."""
    return Run(output[: output.rfind(b"\n") + 1].decode())


@pytest.mark.parametrize(
    ("signum", "order"),
    [
        (signal.SIGKILL, "oldest_first"),
        (signal.SIGKILL, "newest_first"),
        (signal.SIGTERM, "oldest_first"),
        (signal.SIGINT, "newest_first"),
    ],
)
def test_killed_at_any_request_the_next_run_completes_it(
    tmp_path: Path, signum: signal.Signals, order: str
) -> None:
    """Killed as the PBX gets its n-th request, it leaves whole lines, and nothing is lost."""
    config = HOURS | {"backfill_order": order}
    for n in range(1, 9):
        path = tmp_path / f"{n}.jsonl"
        with Simulator(latency=0.02) as pbx, path.open("wb") as file:
            process = subprocess.Popen(
                command(tmp_path, pbx, **config),
                stdout=file,
                stderr=subprocess.DEVNULL,
                env=environment(),
            )
            while len(pbx.requests) < n and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signum)
            process.wait(60)
            output = path.read_bytes()
            assert output == b"" or output.endswith(b"\n")
            completes(pbx, whole_lines(output), **config)


@pytest.mark.parametrize("lines", [1, 2, 10, 60, 100])
@pytest.mark.parametrize("way", ["closed", "full"])
def test_cut_off_from_its_target_the_next_run_completes_it(
    pbx: Simulator, tmp_path: Path, lines: int, way: str
) -> None:
    """Whether the pipe is closed, or full and the tap killed, nothing that was read is lost."""
    pbx.volume = 8
    process = subprocess.Popen(
        command(tmp_path, pbx, **HOURS),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    assert process.stdout
    output = b"".join(process.stdout.readline() for _ in range(lines))
    if way == "full":
        process.kill()
        output += process.stdout.read()
    process.stdout.close()
    process.wait(60)
    assert output.endswith(b"\n")
    completes(pbx, whole_lines(output), **HOURS)


def test_a_state_of_an_older_release_is_read(pbx: Simulator) -> None:
    """A STATE with markers of the SDK's, or with nothing but the value, resumes as any other."""
    value = {"replication_key_value": "2021-09-14T02:00:00Z"}
    for more in ({}, {"replication_key": "callend", "starting_replication_value": "2021-09-01"}):
        del pbx.requests[:]
        run = run_tap(pbx, **HOURS, state={"bookmarks": {"recordings": value | more}})
        assert [hour for _, hour in requested(pbx)] == [12, 13]
        assert run.states[-1]["bookmarks"]["recordings"].keys() == {
            "since",
            "owed",
            "timezone",
            "replication_key",
            "replication_key_value",
        }
