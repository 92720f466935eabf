"""The clock, and waiting that a signal ends at once."""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pendulum

from tap_noojee.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Clock:
    """The time, and waiting that a signal ends at once.

    All waiting is on a queue. A signal handler may put into a queue, so that no exception is ever
    raised from within somebody else's code.
    """

    def __init__(self) -> None:
        """Start with nobody waiting."""
        self.stop_signal: int | None = None
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def now(self) -> pendulum.DateTime:
        """The present instant, in UTC."""
        return pendulum.now("UTC")

    def monotonic(self) -> float:
        """Seconds that do not change when the clock is set."""
        return time.monotonic()

    def stop(self, signum: int) -> None:
        """Ask the run to end; asked for the second time, end the process at once."""
        if self.stop_signal is not None:
            # Whatever holds up the run (a target that does not read, say) may hold it up for ever.
            os._exit(128 + signum)
        self.stop_signal = signum
        self._inbox.put(None)

    def raise_if_stopped(self) -> None:
        """Raise Stopped if the run was asked to end."""
        if self.stop_signal is not None:
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait, or raise Stopped at once."""
        # Each wait has a queue of its own, so that it is never ended by what another one got.
        self._inbox = queue.SimpleQueue()
        self.raise_if_stopped()
        try:
            self._inbox.get(timeout=max(0, seconds))
        except queue.Empty:
            return
        raise Stopped

    def run(self, task: Callable[[], T], timeout: float) -> T:
        """Run a blocking task for at most `timeout` seconds, or raise Stopped at once.

        The task gets a thread of its own, since some of what it does (looking up a host name)
        cannot be interrupted in any other way. Abandoned, it goes on until it ends or the process
        does.

        Raises:
            TimeoutError: the task has not ended yet.
            Exception: whatever the task raised.
        """
        # A task that was abandoned still puts its result into the queue that it began with.
        inbox = self._inbox = queue.SimpleQueue()
        self.raise_if_stopped()

        def work() -> None:
            try:
                inbox.put((task(), None))
            except Exception as error:  # noqa: BLE001 - raised again by the one who waits
                inbox.put((None, error))

        threading.Thread(target=work, daemon=True).start()
        try:
            item = inbox.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if item is None:
            raise Stopped
        result, error = item
        if error is not None:
            raise error
        return cast("T", result)
