"""The tap's clock, and its handling of signals."""

import os
import queue
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar, cast

import pendulum

from tap_noojee.errors import Interrupted

T = TypeVar("T")

REPEAT_WINDOW = 1
"""Ignore a second signal for this many seconds: under Meltano, Ctrl-C reaches the tap twice."""


class Clock:
    """The time, and waits that a signal interrupts.

    Every wait is on a SimpleQueue, which a signal handler can wake safely, so the handler never
    raises in the middle of other code.
    """

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._signum: int | None = None
        self._interrupted_at = 0.0

    def now(self) -> pendulum.DateTime:
        """Return the current time, in UTC."""
        return pendulum.now("UTC")

    def monotonic(self) -> float:
        """Return the time in seconds on a clock that never jumps."""
        return time.monotonic()

    def handle_signal(self, signum: int, _frame: FrameType | None = None) -> None:
        """Interrupt the run, or exit immediately on a later signal."""
        if self._signum is None:
            self._signum, self._interrupted_at = signum, self.monotonic()
            self._inbox.put(None)
        elif self.monotonic() - self._interrupted_at >= REPEAT_WINDOW:
            # The run may be stuck, for example in a write to a target that no longer reads.
            os._exit(128 + signum)

    def raise_if_interrupted(self) -> None:
        """Raise Interrupted if a signal has arrived."""
        if self._signum is not None:
            raise Interrupted(self._signum)

    def sleep(self, seconds: float) -> None:
        """Wait, or raise Interrupted as soon as a signal arrives."""
        # Use a new queue for each wait, so that a late item from an earlier one cannot end it.
        self._inbox = queue.SimpleQueue()
        self.raise_if_interrupted()
        try:
            self._inbox.get(timeout=max(0, seconds))
        except queue.Empty:
            return
        self.raise_if_interrupted()

    def run_in_thread(self, task: Callable[[], T], timeout: float) -> T:
        """Run a blocking task in a thread, and wait at most `timeout` seconds for it.

        Only a thread lets us abandon a DNS lookup. An abandoned thread runs on until its task or
        the process ends.

        Raises:
            TimeoutError: The task is still running.
            Interrupted: A signal arrived first.
            Exception: Whatever the task raised.
        """
        inbox = self._inbox = queue.SimpleQueue()
        self.raise_if_interrupted()

        def work() -> None:
            try:
                inbox.put((task(), None))
            except Exception as error:  # noqa: BLE001 - raised again in the waiting thread
                inbox.put((None, error))

        threading.Thread(target=work, daemon=True).start()
        try:
            item = inbox.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if item is None:
            self.raise_if_interrupted()
        result, error = item
        if error is not None:
            raise error
        return cast("T", result)
