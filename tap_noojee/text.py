"""Counts, durations and the progress of a run, in words for the log."""

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

import pendulum

from tap_noojee.clock import Clock

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def pluralize(count: int, noun: str) -> str:
    """Format a count with its noun, such as `8,760 hours`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def humanize(seconds: float) -> str:
    """Format a duration in its largest units, such as `6 days 2 hours`."""
    unit = 1 if seconds < _MINUTE else _MINUTE if seconds < _DAY else _HOUR
    rounded = round(seconds / unit) * unit
    return pendulum.duration(days=rounded // _DAY, seconds=rounded % _DAY).in_words(locale="en")


def _estimate(seconds: float) -> str:
    return f"about {humanize(seconds)}" if seconds >= 1 else "less than a minute"


class Progress:
    """Counts what a run has done, and estimates when it ends."""

    def __init__(self, config: Mapping[str, Any], clock: Clock, zone: ZoneInfo) -> None:
        self.hours = self.failed = self.legs = self.requests = 0
        self._limit: int | None = config.get("max_hours_per_run")
        self._interval: int = config["request_interval"]
        self._clock = clock
        self._zone = zone
        self._started = clock.monotonic()

    @property
    def allowed(self) -> float:
        """How many more hours `max_hours_per_run` allows: one at least, until one was read."""
        if self._limit is None:
            return float("inf")
        left = self._limit - self.hours - self.failed
        return left if self.hours else max(left, 1)

    def plan(self, unread: int, again: int) -> str:
        """Describe the hours to read, and how long they take."""
        if not unread + again:
            return "Nothing left to read"
        parts = [f"{pluralize(unread, 'hour')} to read"] if unread else []
        parts += [f"{pluralize(again, 'hour')} to read again"] if again else []
        text = f"{', '.join(parts)}; {_estimate((unread + again) * self._interval)}"
        limited = unread + again > self.allowed
        return f"{text}; {int(self.allowed):,} of them in this run" if limited else text

    def outlook(self, left: int) -> str:
        """Describe the hours left, and when they are done at the current pace."""
        in_run = int(min(left, self.allowed))
        if not in_run:
            return self._left_over(left) or "nothing left to read"
        elapsed = self._clock.monotonic() - self._started
        seconds = in_run * max(self._interval, elapsed / max(1, self.hours))
        text = f"{pluralize(left, 'hour')} left"
        text += f", {in_run:,} of them in this run" if in_run < left else ""
        if seconds < _HOUR:
            return f"{text}, {_estimate(seconds)}"
        done = self._clock.now().add(seconds=seconds).astimezone(self._zone)
        return f"{text}, done at about {done:%Y-%m-%d %H:%M %Z}"

    def summary(self, left: int) -> str:
        """Sum up the run on one line, such as `263 legs in 24 hours, 24 requests`."""
        counts = f"{pluralize(self.legs, 'leg')} in {pluralize(self.hours, 'hour')}"
        text = f"{counts}, {pluralize(self.requests, 'request')}"
        return f"{text}; {self._left_over(left)}" if left else text

    def _left_over(self, left: int) -> str:
        return f"{pluralize(left, 'hour')} left for later runs" if left else ""
