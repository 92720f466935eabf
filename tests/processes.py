"""The tap in another process.

Importing the SDK takes most of a short run's time. So this file is also a program: a process that
has imported the tap and forks for each run. Where it matters how Python starts, use `command`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from conftest import Run, settings

from tap_noojee.tap import TapNoojee

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tap_noojee.simulator import Simulator

TIMEOUT = 120
"""Longest time to wait for a run, in seconds."""


def environment(**more: str) -> dict[str, str]:
    """This environment without the tap's settings, and with these variables."""
    drop = ("TAP_NOOJEE_", "LOGLEVEL", "PYTHONUNBUFFERED")
    rest = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    return rest | more


def arguments(
    tmp_path: Path,
    simulator: Simulator,
    *options: str,
    state: dict[str, Any] | None = None,
    **config: Any,
) -> list[str]:
    """The tap's arguments for these settings and this state."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings(simulator, **config)))
    words = ["--config", str(path), *options]
    if state is not None:
        (tmp_path / "state.json").write_text(json.dumps(state))
        words += ["--state", str(tmp_path / "state.json")]
    return words


def command(*args: Any, **config: Any) -> list[str]:
    """The command that runs the tap in a new Python, with the arguments of `arguments`."""
    return [sys.executable, "-m", "tap_noojee", *arguments(*args, **config)]


class Process:
    """A run of the tap in a fork."""

    def __init__(
        self,
        words: Iterable[str],
        *,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        stdout: int | None = subprocess.PIPE,
    ) -> None:
        """Start the run. With stdout None, it has no standard output."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
        self.stdout: IO[bytes] | None = None
        writer = stdout
        if stdout == subprocess.PIPE:
            reader, writer = os.pipe()
            self.stdout = os.fdopen(reader, "rb")
        self._status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._status.settimeout(TIMEOUT)
        job = {"words": [*words], "env": env or environment(), "cwd": str(cwd or Path.cwd())}
        with theirs:
            files = [theirs.fileno(), self._log.fileno()]
            files += [] if writer is None else [writer]
            socket.send_fds(_forks(), [json.dumps(job).encode()], files)
        if writer is not None and self.stdout:
            os.close(writer)
        self.pid = int(self._status.recv(20))
        self.returncode: int | None = None

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def poll(self) -> int | None:
        """The exit code, or None while the run goes on."""
        return self.wait() if select.select([self._status], [], [], 0)[0] else self.returncode

    def wait(self) -> int:
        """Wait for the end of the run, and return its exit code."""
        if self.returncode is None:
            self.returncode = int(self._status.recv(20))
        return self.returncode

    @property
    def log(self) -> str:
        """The run's standard error."""
        return os.pread(self._log.fileno(), 100_000_000, 0).decode()

    @property
    def status(self) -> int:
        """The exit code as a shell gives it."""
        code = self.wait()
        return code if code >= 0 else 128 - code

    def end(self) -> tuple[Run, Process]:
        """Read the output until the run ends."""
        output = self.stdout.read() if self.stdout else b""
        self.wait()
        return Run(output.decode()), self


def finished(words: Iterable[str], **more: Any) -> tuple[Run, Process]:
    """Run the tap with these arguments until it ends."""
    return Process(words, **more).end()


def last_line(log: str) -> str:
    """The message of a log's last line."""
    return log.splitlines()[-1].split(" | ", 3)[-1]


def until(condition: Callable[[], object]) -> None:
    """Wait until something becomes true, for at most a minute."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")


# --- The program -----------------------------------------------------------------------------


@cache
def _forks() -> socket.socket:
    """Start the program. It ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment(),
        )
    return ours


def _serve(jobs: socket.socket) -> None:
    # Each run would import it otherwise.
    importlib.import_module("yaml")
    _ = TapNoojee.plugin_version
    # Otherwise each fork would collect the garbage of everything imported.
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        job, files, *_ = socket.recv_fds(jobs, 1_000_000, 3)
        if not job:
            return
        if not os.fork():
            jobs.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _supervise(json.loads(job), *files)
        for file in files:
            os.close(file)


def _supervise(job: dict[str, Any], status: int, *files: int) -> None:
    """Run a job in a fork, and report its process id and its exit code."""
    if pid := os.fork():
        os.write(status, f"{pid}".encode())
        _, ended = os.waitpid(pid, 0)
        os.write(status, f"{os.waitstatus_to_exitcode(ended)}".encode())
        os._exit(0)
    os.close(status)
    _become(job, *files)


def _become(job: dict[str, Any], log: int, output: int | None = None) -> NoReturn:
    """Turn this process into a run of the tap."""
    os.dup2(log, 2)
    os.close(log)
    if output is None:
        os.close(1)
        sys.stdout = None  # as Python does when it starts without one
    else:
        os.dup2(output, 1)
        os.close(output)
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.argv = ["tap-noojee", *job["words"]]
    TapNoojee.cli()
    raise AssertionError("click ends the process")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
