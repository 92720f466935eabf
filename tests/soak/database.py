"""A PostgreSQL server that is killed, and started again as the same cluster."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT
from typing import TYPE_CHECKING, Any

from postgres import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from signal import Signals

    from postgres import Postgres

SECONDS_TO_START = 60


class Database:
    """A server with the means to kill it."""

    def __init__(self, server: Postgres) -> None:
        """Take a server that is up."""
        self.server = server
        ((folder,),) = server.query("SHOW data_directory")
        self._data = Path(folder)
        self._pid = int((self._data / "postmaster.pid").read_text().split()[0])
        # What started it the first time has the first process.
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def kill(self, signum: Signals) -> None:
        """Kill it: at once or, by SIGTERM, as soon as its last session has ended."""
        self._killed = True
        os.kill(self._pid, signum)

    def restart_if_killed(self) -> None:
        """Wait for its end if it was killed, and start it again."""
        if not self._killed:
            return
        self._reap()
        deadline = time.monotonic() + SECONDS_TO_START
        self._process = self._start()
        while not self.server.is_up():
            assert time.monotonic() < deadline, "PostgreSQL does not start again"
            # After a SIGKILL its last sessions may still hold the shared memory.
            if self._process.poll() is not None:
                self._process = self._start()
            time.sleep(0.1)
        self._pid = self._process.pid
        self._killed = False

    def stop(self) -> None:
        """End what was started here."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(SIGINT)
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        # The server keeps its own command line there.
        command = shlex.split((self._data / "postmaster.opts").read_text())
        options: dict[str, Any] = {"cwd": self._data.parent}
        if os.geteuid() == 0:  # PostgreSQL refuses to be run by root
            owner = self._data.stat()
            options |= {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        with (self._data.parent / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, **options)

    def _reap(self) -> None:
        # As long as it is a zombie, its lock file counts.
        if self._process:
            self._process.wait()
        else:
            os.waitpid(self._pid, 0)


@contextmanager
def serve_to_be_killed(timezone: str) -> Iterator[Database]:
    """A new, empty server with this time zone for its sessions."""
    with serve(timezone) as server:
        database = Database(server)
        try:
            yield database
        finally:
            database.stop()
