"""What is written: whole lines, all of them, or an error, buffered by Python or not."""

from __future__ import annotations

import io
import json
import os
import resource
import select
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import Run, run_tap, truth
from processes import command, environment, last_line, until
from singer_sdk.singerlib import StateMessage
from typing_extensions import override

from tap_noojee.errors import OutputError
from tap_noojee.simulator import Leg
from tap_noojee.writer import LineWriter

if TYPE_CHECKING:
    from tap_noojee.simulator import Simulator

DAY: dict[str, Any] = {"start_date": "2021-09-14", "end_date": "2021-09-15"}
LONG = "x" * 10_000


@pytest.fixture(params=[{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment; in most images of containers, Python's output is not buffered."""
    return environment(**request.param)


@pytest.fixture
def long_lines(pbx: Simulator) -> Simulator:
    """A PBX with a tag now and then that makes a line longer than a pipe takes as a whole."""
    pbx.legs = [
        Leg(leg.start, leg.callend, str(k), tag=LONG if k % 50 == 0 else "")
        for k, leg in enumerate(truth(pbx, "2021-09-14", "2021-09-15"))
    ]
    return pbx


def test_output_is_written_in_whole_lines(
    long_lines: Simulator, tmp_path: Path, env: dict[str, str]
) -> None:
    """Each write to the pipe is of whole lines, and of no more than a pipe takes as a whole."""
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with reader, writer:
        process = subprocess.Popen(
            command(tmp_path, long_lines, **DAY),
            stdout=writer.fileno(),
            stderr=subprocess.DEVNULL,
            env=env,
        )
        writer.close()
        writes = []
        while write := reader.recv(1_000_000):
            writes.append(write)
        assert process.wait(60) == 0
    assert all(write.endswith(b"\n") for write in writes)
    assert all(len(write) <= select.PIPE_BUF or write.count(b"\n") == 1 for write in writes)
    assert any(write.count(b"\n") > 5 for write in writes)
    assert max(map(len, writes)) > len(LONG)


def test_a_full_pipe_that_does_not_block_gets_everything(
    long_lines: Simulator, tmp_path: Path, env: dict[str, str]
) -> None:
    """A pipe that takes a part, or nothing, gets the rest when there is room again."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen(
        command(tmp_path, long_lines, **DAY), stdout=writer, stderr=subprocess.DEVNULL, env=env
    )
    until(lambda: not select.select([], [writer], [], 0)[1])
    time.sleep(0.3)  # the tap finds it full
    os.close(writer)
    output = bytearray()
    while piece := os.read(reader, 1000):
        output += piece
    os.close(reader)
    assert process.wait(60) == 0
    run = Run(output.decode())
    assert len(run.records) == len(truth(long_lines, "2021-09-14", "2021-09-15"))
    assert run.bookmarks[-1] == "2021-09-14T14:00:00+00:00"


@pytest.mark.parametrize("bytes_left", [0, 1000, 50_000])
def test_a_file_that_cannot_grow_ends_the_run(
    pbx: Simulator, tmp_path: Path, env: dict[str, str], bytes_left: int
) -> None:
    """When a write takes only a part, the rest is an error, not a success with half a line."""
    size = len(run_tap(pbx, **DAY).output.encode()) - 1 - bytes_left

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    with Path(tmp_path, "out.jsonl").open("wb") as output:
        done = subprocess.run(
            command(tmp_path, pbx, **DAY),
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=env,
            preexec_fn=limit,
        )
    assert done.returncode == 1
    assert last_line(done.stderr) == "cannot write to the target: File too large"


def test_a_full_disk_is_reported(pbx: Simulator, tmp_path: Path, env: dict[str, str]) -> None:
    """Output that cannot be written ends the run with 1 and the reason."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command(tmp_path, pbx, **DAY),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=env,
        )
    assert done.returncode == 1
    assert last_line(done.stderr) == "cannot write to the target: No space left on device"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("lines", [1, 60])
def test_a_target_that_goes_away_ends_the_run(
    pbx: Simulator, tmp_path: Path, env: dict[str, str], lines: int
) -> None:
    """When nobody reads any more, the tap ends with 1 and a line, wherever it was."""
    with subprocess.Popen(
        command(tmp_path, pbx, **DAY),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        assert process.stdout
        assert process.stderr
        for _ in range(lines):
            assert json.loads(process.stdout.readline())
        process.stdout.close()
        log = process.stderr.read()
        assert process.wait(60) == 1
    assert log.splitlines()[-1].endswith("cannot write to the target: Broken pipe")
    assert "Traceback" not in log
    assert "Exception ignored" not in log


class Sink(io.RawIOBase):
    """A file that takes no byte, and does not say why."""

    @override
    def write(self, _: object) -> int:
        return 0

    @override
    def writable(self) -> bool:
        return True


def test_a_write_of_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that takes no byte, and does not say why, is reported."""
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BufferedWriter(Sink())))
    with pytest.raises(OutputError, match="cannot write to the target: nothing was written"):
        LineWriter().write_message(StateMessage({}))


def test_no_standard_output_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was started without a standard output is reported."""
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(OutputError, match="standard output is closed"):
        LineWriter().write_message(StateMessage({}))
