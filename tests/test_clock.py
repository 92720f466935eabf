"""The clock: the time, and waits that a signal interrupts."""

import os
import signal
import threading
import time
from datetime import timedelta

import pytest
from conftest import FakeClock

from tap_noojee.clock import REPEAT_WINDOW, Clock
from tap_noojee.errors import Interrupted

LONG = 60
"""Longer than any test takes, in seconds."""


def test_now_is_the_current_time_in_utc() -> None:
    now = Clock().now()
    assert now.utcoffset() == timedelta()
    assert abs(now.timestamp() - time.time()) < LONG


def test_sleep_waits_for_the_given_time() -> None:
    clock = Clock()
    began = time.monotonic()
    clock.sleep(0.2)
    assert time.monotonic() - began >= 0.2
    for seconds in (0, -LONG):
        clock.sleep(seconds)  # returns at once


def test_signal_interrupts_every_wait() -> None:
    for wait in (
        lambda clock: clock.sleep(LONG),
        lambda clock: clock.run_in_thread(threading.Event().wait, LONG),
    ):
        clock = Clock()
        threading.Timer(0.1, clock.handle_signal, [signal.SIGTERM]).start()
        with pytest.raises(Interrupted) as interrupted:
            wait(clock)  # type: ignore[no-untyped-call]
        assert interrupted.value.signum == signal.SIGTERM


def test_no_wait_or_task_starts_after_a_signal() -> None:
    clock = Clock()
    clock.raise_if_interrupted()
    clock.handle_signal(signal.SIGINT)
    started = threading.Event()
    for action in (
        clock.raise_if_interrupted,
        lambda: clock.sleep(LONG),
        lambda: clock.sleep(-1),
        lambda: clock.run_in_thread(started.set, LONG),
    ):
        with pytest.raises(Interrupted):
            action()
    assert not started.is_set()


def test_second_signal_exits_unless_within_a_second_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    clock = FakeClock()
    clock.instant = clock.instant.add(seconds=LONG)  # away from 0, the initial value
    clock.handle_signal(signal.SIGINT)
    for seconds, expected in (
        (0, []),
        (REPEAT_WINDOW - 0.001, []),
        (REPEAT_WINDOW, [128 + signal.SIGTERM]),
    ):
        clock.instant = clock.started.add(seconds=LONG + seconds)
        clock.handle_signal(signal.SIGTERM)
        assert exits == expected
    with pytest.raises(Interrupted) as interrupted:
        clock.raise_if_interrupted()
    assert interrupted.value.signum == signal.SIGINT


def test_task_returns_its_result_or_raises_its_error() -> None:
    def fail() -> None:
        raise LookupError("no such host")

    clock = Clock()
    assert clock.run_in_thread(lambda: 7, LONG) == 7
    assert clock.run_in_thread(lambda: None, LONG) is None
    with pytest.raises(LookupError, match="no such host"):
        clock.run_in_thread(fail, LONG)


def test_abandoned_task_does_not_affect_later_waits() -> None:
    clock = Clock()
    release, finished = threading.Event(), threading.Event()

    def late_task() -> str:
        release.wait()
        finished.set()
        return "late"

    def next_task() -> str:
        release.set()
        finished.wait()
        time.sleep(0.1)  # give the late result time to arrive
        return "in time"

    with pytest.raises(TimeoutError):
        clock.run_in_thread(late_task, 0.05)
    assert clock.run_in_thread(next_task, LONG) == "in time"
    release.clear()
    with pytest.raises(TimeoutError):
        clock.run_in_thread(late_task, 0.05)
    threading.Timer(0.05, release.set).start()
    began = time.monotonic()
    clock.sleep(0.3)
    assert time.monotonic() - began >= 0.3


def test_abandoned_task_does_not_keep_the_process_alive() -> None:
    assert Clock().run_in_thread(lambda: threading.current_thread().daemon, LONG)
