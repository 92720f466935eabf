"""The clock: what it waits for, and what ends a wait."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta

import pytest

from tap_noojee.errors import Stopped
from tap_noojee.waiting import Clock

LONG = 30
"""Seconds that no test takes."""


def stop_soon(clock: Clock) -> None:
    """Ask the run to end while it waits."""
    threading.Timer(0.1, clock.stop, [signal.SIGTERM]).start()


def test_the_clock_tells_the_present_in_utc() -> None:
    """The present is that of this machine, in UTC."""
    now = Clock().now()
    assert now.utcoffset() == timedelta()
    assert abs(now.timestamp() - time.time()) < LONG


def test_a_wait_lasts_as_long_as_it_should() -> None:
    """A wait ends after its time; one whose time has passed already ends at once."""
    clock = Clock()
    began = clock.monotonic()
    clock.sleep(0.1)
    assert 0.1 <= clock.monotonic() - began < LONG
    began = clock.monotonic()
    clock.sleep(-LONG)
    assert clock.monotonic() - began < 1


def test_a_signal_ends_a_wait_at_once() -> None:
    """A run that is asked to end does not wait to the end, and knows the signal."""
    clock = Clock()
    stop_soon(clock)
    began = time.monotonic()
    with pytest.raises(Stopped):
        clock.sleep(LONG)
    assert time.monotonic() - began < LONG
    assert clock.stop_signal == signal.SIGTERM


def test_a_signal_ends_the_wait_for_a_task_at_once() -> None:
    """A task that cannot be interrupted does not hold up the end of a run."""
    clock = Clock()
    stop_soon(clock)
    began = time.monotonic()
    with pytest.raises(Stopped):
        clock.run(threading.Event().wait, LONG)
    assert time.monotonic() - began < LONG


def test_after_a_signal_nothing_is_begun() -> None:
    """A run that was asked to end waits for nothing more, and begins no task."""
    clock = Clock()
    clock.raise_if_stopped()
    clock.stop(signal.SIGINT)
    begun = threading.Event()
    with pytest.raises(Stopped):
        clock.raise_if_stopped()
    with pytest.raises(Stopped):
        clock.sleep(LONG)
    with pytest.raises(Stopped):
        clock.run(begun.set, LONG)
    assert not begun.is_set()


def test_a_second_signal_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to end for the second time, the process ends at once, with the signal's status."""
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    clock = Clock()
    clock.stop(signal.SIGINT)
    assert exits == []
    clock.stop(signal.SIGTERM)
    assert exits == [128 + signal.SIGTERM]


def test_a_task_brings_its_result_or_its_error() -> None:
    """What a task returns is returned, even None; what it raises is raised."""

    def fail() -> None:
        raise LookupError("no such host")

    clock = Clock()
    assert clock.run(lambda: 7, LONG) == 7
    assert clock.run(lambda: None, LONG) is None
    with pytest.raises(LookupError, match="no such host"):
        clock.run(fail, LONG)


def test_a_task_that_takes_too_long_is_abandoned() -> None:
    """After its time a task is not waited for, and what it brings is not taken for another's."""
    clock = Clock()
    late, done = threading.Event(), threading.Event()

    def be_late() -> str:
        late.wait()
        return "late"

    def come_after() -> str:
        late.set()
        done.wait(0.2)
        return "in time"

    with pytest.raises(TimeoutError):
        clock.run(be_late, 0.1)
    assert clock.run(come_after, LONG) == "in time"


def test_what_an_abandoned_task_brings_ends_no_wait() -> None:
    """A task that ends after its time neither shortens a wait nor ends the run."""
    clock = Clock()
    late, finished = threading.Event(), threading.Event()

    def be_late() -> None:
        late.wait()
        finished.set()

    with pytest.raises(TimeoutError):
        clock.run(be_late, 0.1)
    late.set()
    finished.wait()
    began = clock.monotonic()
    clock.sleep(0.3)
    assert clock.monotonic() - began >= 0.3


def test_an_abandoned_task_does_not_keep_the_process() -> None:
    """A task runs in a thread that ends with the process."""
    daemons: list[bool] = []
    clock = Clock()
    clock.run(lambda: daemons.append(threading.current_thread().daemon), LONG)
    assert daemons == [True]
