"""Helpers that run the tap in another process.

Importing the SDK takes most of a short run's time, so a server imports it once and forks for each
run. Tests that need a new interpreter use `command`.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from multiprocessing.reduction import DupFd
from operator import methodcaller
from pathlib import Path
from typing import IO, Any

from conftest import Run, settings
from typing_extensions import override

from tap_noojee.simulator import Simulator
from tap_noojee.tap import TapNoojee

TIMEOUT = 30
"""Longest time to wait for a run to end, in seconds."""


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without variables that change a run, plus `more`."""
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
    """Write the settings and state to files, and return the tap's arguments."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings(simulator, **config)))
    argv = ["--config", str(path), *options]
    if state is not None:
        (tmp_path / "state.json").write_text(json.dumps(state))
        argv += ["--state", str(tmp_path / "state.json")]
    return argv


def command(*args: Any, **config: Any) -> list[str]:
    """Return a command that runs the tap with `arguments` in a new interpreter."""
    return [sys.executable, "-m", "tap_noojee", *arguments(*args, **config)]


class Process:
    """A run of the tap in a forked process."""

    def __init__(
        self,
        argv: Iterable[str],
        *,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        stdout: int | None = subprocess.PIPE,
    ) -> None:
        """Start the run. If `stdout` is None, the run has no standard output."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
        self.stdout: IO[bytes] | None = None
        writer = stdout
        if stdout == subprocess.PIPE:
            reader, writer = os.pipe()
            self.stdout = os.fdopen(reader, "rb")
        output = None if writer is None else _Descriptor(writer)
        log = _Descriptor(self._log.fileno())
        args = [*argv], env or environment(), cwd or Path.cwd(), log, output
        self._process = _FORKS.Process(target=_run_tap, args=args, daemon=True)
        self._process.start()
        if writer is not None and self.stdout:
            os.close(writer)
        self.pid = self._process.pid or 0

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def poll(self) -> int | None:
        """Return the exit code (-N if signal N killed the run), or None while it is running."""
        return self._process.exitcode

    returncode = property(poll)

    def wait(self) -> int:
        self._process.join(TIMEOUT)
        assert self.returncode is not None, f"still running after {TIMEOUT} s"
        return int(self.returncode)

    @property
    def log(self) -> str:
        return os.pread(self._log.fileno(), 100_000_000, 0).decode()

    @property
    def status(self) -> int:
        """The exit code as a shell reports it: 128 + N if signal N killed the run."""
        code = self.wait()
        return code if code >= 0 else 128 - code

    def finish(self) -> Run:
        """Wait for the run to end, and return its output."""
        output = self.stdout.read() if self.stdout else b""
        self.wait()
        return Run(output.decode())


def run_to_end(argv: Iterable[str], **more: Any) -> tuple[Run, Process]:
    """Run the tap with these arguments, and return its output and the ended process."""
    process = Process(argv, **more)
    return process.finish(), process


def last_line(log: str) -> str:
    """Return the message of a log's last line."""
    return log.splitlines()[-1].split(" | ", 3)[-1]


def wait_until(condition: Callable[[], object], seconds: int = 20) -> None:
    """Wait until a condition holds, and fail after about `seconds`."""
    for _ in range(50 * seconds):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"the condition still does not hold after {seconds} seconds")


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tap_noojee.tap", "yaml", "pytest"])


class _Descriptor(int):
    """A file descriptor that pickling duplicates into the forked process."""

    @override
    def __reduce__(self) -> Any:
        return methodcaller("detach"), (DupFd(self),)


def _run_tap(
    argv: list[str], env: dict[str, str], cwd: Path, log: int, output: int | None
) -> None:
    """Turn this process into a run of the tap."""
    os.dup2(log, 2)
    if output is None:
        os.close(1)
        sys.stdout = None  # as Python does if standard output is closed
    else:
        os.dup2(output, 1)
        os.close(output)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = ["tap-noojee", *argv]
    TapNoojee.cli()
