"""After a crash, a signal or a closed pipe, the next run reads the rest."""

import contextlib
import signal
import time
from datetime import timedelta
from fcntl import ioctl
from pathlib import Path
from struct import unpack
from termios import FIONREAD
from typing import Any

import pytest
from conftest import (
    Run,
    as_rows,
    expected_legs,
    hours_read,
    requested_hours,
    run_tap,
    written_rows,
)
from processes import Process, arguments, last_line, wait_until
from times import legs_every, local

from tap_noojee.clock import REPEAT_WINDOW
from tap_noojee.simulator import Failure, Simulator
from tap_noojee.writer import PIPE_BUF

HOURS: dict[str, Any] = {"start_date": "2021-09-14T06:00", "end_date": "2021-09-14T10:00"}
ALL_HOURS = {("2021-09-14", hour) for hour in range(6, 10)}


def check_next_run(simulator: Simulator, first: Run, **config: Any) -> None:
    """Run again from the last STATE of a run, and check that the new run reads all other hours."""
    del simulator.requests[:]
    rest = run_tap(simulator, state=first.states[-1] if first.states else None, **config)
    assert rest.error is None
    expected = as_rows(expected_legs(simulator, HOURS["start_date"], HOURS["end_date"]))
    assert {*written_rows(first), *written_rows(rest)} == {*expected}
    read = {
        ("2021-09-14", hour)
        for start, end in (hours_read(first) if first.states else ())
        for hour in range(int(start[11:13]), int(end[11:13]))
    }
    requested = requested_hours(simulator)
    assert len(requested) == len(set(requested))
    assert set(requested) == ALL_HOURS - read
    # Only legs of the hour that was being written may be written twice.
    twice = {*written_rows(first)} & {*written_rows(rest)}
    assert len({callend[:13] for _, _, callend, _ in twice}) <= 1


@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
def test_crash_after_any_line_loses_no_leg(pbx: Simulator, order: str) -> None:
    config = HOURS | {"backfill_order": order}
    lines = run_tap(pbx, **config).output.splitlines(keepends=True)
    for count in range(len(lines) + 1):
        check_next_run(pbx, Run("".join(lines[:count])), **config)


@pytest.mark.parametrize(
    ("signum", "order"),
    [(signal.SIGKILL, "newest_first"), (signal.SIGTERM, "oldest_first")],
)
def test_signal_at_any_request_leaves_whole_lines(
    tmp_path: Path, signum: signal.Signals, order: str
) -> None:
    config = HOURS | {"backfill_order": order}
    path = tmp_path / "output.jsonl"
    for n in range(1, 5):
        with Simulator(latency=0.1) as pbx, path.open("wb") as file:
            process = Process(arguments(tmp_path, pbx, **config), stdout=file.fileno())
            wait_until(lambda: len(pbx.requests) >= n)  # noqa: B023 - called only here
            process.send_signal(signum)
            assert process.status == 128 + signum
            output = path.read_text()
            assert output[-1:] in {"", "\n"}
            run = Run(output)
            if signum != signal.SIGKILL:
                assert run.messages[-1]["type"] == "STATE"
            check_next_run(pbx, run, **config)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_any_wait_and_the_last_message_is_state(
    pbx: Simulator, tmp_path: Path, signum: signal.Signals
) -> None:
    """Without the signal, the pace or the server would make each run take minutes."""
    kinds: tuple[Any, ...] = (None, "stall", "trickle", "slow")
    for kind in kinds:
        del pbx.requests[:]
        failure = Failure(kind, delay=300, times=None, at=("2021-09-14", 8))
        pbx.failures[:] = [failure] if kind else []
        interval = 0 if kind else 600
        process = Process(arguments(tmp_path, pbx, **HOURS, request_interval=interval))
        last = ("2021-09-14", 8 if kind else 6)
        wait_until(lambda: last in requested_hours(pbx))  # noqa: B023 - called only here
        process.send_signal(signum)
        assert process.wait() == 128 + signum
        run = process.finish()
        assert signum.name in process.log
        assert "Traceback" not in process.log
        assert run.messages[-1]["type"] == "STATE"
        # Without a failure, the signal may come before or after the first response.
        assert hours_read(run) in (
            [[("2021-09-14T06:00", "2021-09-14T08:00")]]
            if kind
            else [[], [("2021-09-14T06:00", "2021-09-14T07:00")]]
        )


@pytest.fixture(params=["2021-09-14T07:00", "2021-09-14T08:00"])
def blocked_run(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A run of one or two hours, blocked in its first hour, because nothing reads its output."""
    start = local("2021-09-14T06:00", "Australia/Melbourne")
    legs = legs_every(timedelta(seconds=4), start, start + timedelta(hours=1))
    with Simulator(legs=legs) as pbx:
        config = HOURS | {"end_date": request.param}
        process = Process(arguments(tmp_path, pbx, **config))
        try:
            # Each write takes one of the pipe's 16 pages, and fills more than half of it.
            wait_until(lambda: unread_bytes(process) > 8 * PIPE_BUF)
            yield process, legs, pbx
        finally:
            process.finish()


def unread_bytes(process: Process) -> int:
    """Return the number of unread bytes in the pipe."""
    assert process.stdout
    (count,) = unpack("i", ioctl(process.stdout, FIONREAD, b"\0" * 4))
    return int(count)


def test_signal_in_mid_hour_lets_the_hour_finish(blocked_run: Any) -> None:
    process, legs, pbx = blocked_run
    # The tap ignores whichever signal it handles last: it comes within a second of the first.
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    run = process.finish()
    assert process.returncode in {128 + signal.SIGINT, 128 + signal.SIGTERM}
    assert written_rows(run) == as_rows(legs)
    assert hours_read(run) == [("2021-09-14T06:00", "2021-09-14T07:00")]
    assert run.messages[-1]["type"] == "STATE"
    assert len(pbx.requests) == 1


def test_second_signal_ends_the_process_in_mid_hour(blocked_run: Any) -> None:
    process, _, _ = blocked_run
    process.send_signal(signal.SIGTERM)
    time.sleep(REPEAT_WINDOW)

    def has_ended() -> bool:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        return process.poll() is not None

    wait_until(has_ended)
    assert process.returncode == 128 + signal.SIGINT


@pytest.mark.parametrize("lines", [1, 2, 60])
def test_closed_pipe_loses_no_leg(pbx: Simulator, tmp_path: Path, lines: int) -> None:
    pbx.volume = 8
    process = Process(arguments(tmp_path, pbx, **HOURS))
    assert process.stdout
    output = b"".join(process.stdout.readline() for _ in range(lines))
    process.stdout.close()
    assert process.wait() == 1
    assert last_line(process.log) == "cannot write to the target: Broken pipe"
    assert not any(text in process.log for text in ("Traceback", "Exception ignored"))
    check_next_run(pbx, Run(output.decode()), **HOURS)
