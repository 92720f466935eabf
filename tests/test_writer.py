"""Standard output: whole lines, an error if any are lost, and STATE held back at first."""

import io
import json
import os
import resource
import select
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Run, expected_legs, hours_read, run_tap
from processes import Process, arguments, command, environment, last_line, run_to_end, wait_until
from singer_sdk.singerlib import RecordMessage, StateMessage
from typing_extensions import override

from tap_noojee.errors import NoojeeError
from tap_noojee.simulator import Leg, Simulator
from tap_noojee.writer import MAX_HELD_STATES, PIPE_BUF, LineWriter

DAY: dict[str, Any] = {"start_date": "2021-09-14", "end_date": "2021-09-15"}
LONG = "x" * 10_000


class Output(io.RawIOBase):
    """An unbuffered output that accepts at most `limit` bytes of each write, and keeps them."""

    def __init__(self, limit: int = 2**30) -> None:
        self.limit = limit
        self.writes: list[bytes] = []

    @override
    def write(self, data: Any) -> int:
        self.writes.append(bytes(data[: self.limit]))
        return len(self.writes[-1])

    @override
    def writable(self) -> bool:
        return True

    @property
    def messages(self) -> list[str]:
        """The value of each STATE, and `RECORD` for each RECORD, in order."""
        lines = map(json.loads, b"".join(self.writes).splitlines())
        return [str(line["value"]["k"]) if "value" in line else "RECORD" for line in lines]


@pytest.fixture(params=["buffered", "unbuffered"])
def output(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Output:
    """Standard output, with and without Python's buffer."""
    raw = Output()
    stream: Any = raw if request.param == "unbuffered" else io.BufferedWriter(raw)
    stdout = io.TextIOWrapper(stream, write_through=stream is raw)
    # Do not replace sys.stdout itself, because pytest does so after each fixture.
    monkeypatch.setattr("tap_noojee.writer.sys", SimpleNamespace(stdout=stdout))
    return raw


def state(value: object) -> StateMessage:
    return StateMessage({"k": value})


def record(size: int = 0) -> RecordMessage:
    """Build a RECORD message whose line has `size` bytes, or as few as possible."""
    overhead = len(LineWriter().format_message(RecordMessage("recordings", {"Tag": ""})))
    return RecordMessage("recordings", {"Tag": "x" * (size - overhead)})


RECORD = record()


def test_state_is_held_until_the_first_record(output: Output) -> None:
    writer = LineWriter()
    writer.write_message(state(1))
    writer.write_message(state(2))
    assert output.writes == []
    writer.write_message(RECORD)
    writer.write_message(RECORD)
    assert output.messages == ["2"]
    writer.write_message(state(3))
    assert output.messages == ["2", "RECORD", "RECORD", "3"]
    writer.write_message(state(4))
    assert output.messages[4:] == ["4"]
    writer.release_state()
    assert output.messages[4:] == ["4"]


def test_run_without_records_writes_one_state_in_52_and_the_last(output: Output) -> None:
    assert MAX_HELD_STATES == 2 + 50  # the state passed in, the run's own first one, and 50 hours
    writer = LineWriter()
    for number in range(1, 121):
        writer.write_message(state(number))
        assert output.messages == [str(k) for k in (52, 104) if k <= number]
    writer.release_state()
    assert output.messages == ["52", "104", "120"]
    writer.write_message(RECORD)
    writer.write_message(state(121))
    assert output.messages == ["52", "104", "120", "RECORD", "121"]


def test_run_that_ends_after_a_record_repeats_the_last_state(output: Output) -> None:
    """target-jsonl forgets its state at each RECORD."""
    writer = LineWriter()
    writer.write_message(state(1))
    writer.write_message(RECORD)
    writer.write_message(state(2))
    writer.write_message(RECORD)
    writer.release_state()
    writer.release_state()
    assert output.messages == ["1", "RECORD", "2", "RECORD", "2"]


def test_each_write_has_as_many_whole_lines_as_pipe_buf_allows(output: Output) -> None:
    for sizes, lines in (
        ([PIPE_BUF - 100, 100], [2]),
        ([PIPE_BUF - 100, 101], [1, 1]),
        ([PIPE_BUF], [1]),
        ([PIPE_BUF + 1, 100, 100], [1, 2]),
        ([100, PIPE_BUF + 1, 100], [1, 1, 1]),
        ([PIPE_BUF // 4] * 9, [4, 4, 1]),
    ):
        del output.writes[:]
        writer = LineWriter()
        for size in sizes:
            writer.write_message(record(size))
        writer.release_state()
        assert [write.count(b"\n") for write in output.writes] == lines
        assert sum(map(len, output.writes)) == sum(sizes)
        assert all(write.endswith(b"\n") for write in output.writes)


def test_partial_writes_are_completed(output: Output) -> None:
    output.limit = 7
    writer = LineWriter()
    writer.write_message(RECORD)
    writer.write_message(state("long" * 100))
    assert output.messages == ["RECORD", "long" * 100]


def test_nothing_is_written_after_a_failed_write(output: Output) -> None:
    writer = LineWriter()
    writer.write_message(state(1))
    writer.write_message(RECORD)
    del output.writes[:]
    output.limit = 0
    with pytest.raises(NoojeeError, match="nothing was written"):
        writer.write_message(record(PIPE_BUF))
    output.limit = 2**30
    writer.release_state()
    assert output.writes == [b""]


@pytest.fixture
def wordy_pbx(pbx: Simulator) -> Simulator:
    """A PBX with tags that make some lines longer than PIPE_BUF."""
    pbx.legs = [
        Leg(leg.start, leg.callend, str(k), tag=LONG if k % 50 == 0 else "")
        for k, leg in enumerate(expected_legs(pbx, "2021-09-14", "2021-09-15"))
    ]
    return pbx


def test_process_writes_whole_lines(wordy_pbx: Simulator, tmp_path: Path) -> None:
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps writes apart
    with reader, writer:
        process = Process(arguments(tmp_path, wordy_pbx, **DAY), stdout=writer.fileno())
        writer.close()
        writes = []
        while write := reader.recv(1_000_000):
            writes.append(write)
        assert process.wait() == 0
    assert all(write.endswith(b"\n") for write in writes)
    assert all(len(write) <= select.PIPE_BUF or write.count(b"\n") == 1 for write in writes)
    assert max(map(len, writes)) > len(LONG)
    assert len(Run(b"".join(writes).decode()).records) == 263


@pytest.mark.slow
def test_full_nonblocking_pipe_loses_nothing(wordy_pbx: Simulator, tmp_path: Path) -> None:
    """Python's buffer is off, as in many container images."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    argv = command(tmp_path, wordy_pbx, **DAY)
    env = environment(PYTHONUNBUFFERED="1")
    process = subprocess.Popen(argv, stdout=writer, stderr=subprocess.DEVNULL, env=env)
    wait_until(lambda: not select.select([], [writer], [], 0)[1])
    os.close(writer)
    with os.fdopen(reader) as output:
        run = Run(output.read())
    assert process.wait(60) == 0
    assert len(run.records) == 263
    assert hours_read(run) == [("2021-09-14T00:00", "2021-09-15T00:00")]


def test_unwritable_output_ends_the_run(pbx: Simulator, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        for stdout, reason in (
            (full.fileno(), "cannot write to the target: No space left on device"),
            (None, "cannot write messages: standard output is closed"),
        ):
            _, done = run_to_end(arguments(tmp_path, pbx, **DAY), stdout=stdout)
            assert done.returncode == 1
            assert last_line(done.log) == reason
            assert "Traceback" not in done.log


def test_file_that_cannot_grow_ends_the_run(pbx: Simulator, tmp_path: Path) -> None:
    """The file accepts only part of a write."""
    whole = run_tap(pbx, **DAY).output.encode()
    for missing in (1, 1000, 50_000):
        path = tmp_path / "out.jsonl"
        with path.open("wb") as file:
            process = Process(arguments(tmp_path, pbx, **DAY), stdout=file.fileno())
            size = len(whole) - missing
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))
            assert process.wait() == 1
        assert last_line(process.log) == "cannot write to the target: File too large"
        assert len(path.read_bytes()) == size
