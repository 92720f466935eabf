"""How far a run is, in the words of its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pendulum

if TYPE_CHECKING:
    from collections.abc import Mapping
    from zoneinfo import ZoneInfo

    from tap_noojee.waiting import Clock


class Progress:
    """Counts a run's hours and estimates when it is done."""

    def __init__(self, config: Mapping[str, Any], clock: Clock, zone: ZoneInfo) -> None:
        """Begin now."""
        self.hours_read = 0
        self._limit: int | None = config.get("max_hours_per_run")
        self._interval: int = config["request_interval"]
        self._of_history = config["backfill_order"] == "newest_first"
        self._clock = clock
        self._zone = zone
        self._began = clock.monotonic()

    @property
    def hours_left_in_run(self) -> float:
        """How many hours `max_hours_per_run` still allows."""
        return float("inf") if self._limit is None else self._limit - self.hours_read

    def outlook(self, left: int) -> str:
        """How many hours are left and how long they will take, at the pace so far."""
        if not left:
            return "nothing left to read"
        in_run = int(min(left, self.hours_left_in_run))
        elapsed = self._clock.monotonic() - self._began
        pace = max(self._interval, elapsed / self.hours_read if self.hours_read else 0)
        if not self.hours_read:
            text = f"{number(left, 'hour')} of history to read, about {in_words(left * pace)}"
            return text if in_run == left else f"{text}; {in_run:,} of them in this run"
        text = number(left, "hour") + (" of history" if self._of_history else "")
        if not in_run:
            return f"{text} left for later runs"
        text += " left" if in_run == left else f" left, {in_run:,} of them in this run"
        try:
            done = self._clock.now().add(seconds=in_run * pace).astimezone(self._zone)
        except OverflowError:  # not before the year 10,000
            return text
        return f"{text}, done at about {done:%Y-%m-%d %H:%M %Z}"


def number(count: int, thing: str) -> str:
    """A count of things, such as `8,760 hours`."""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def in_words(seconds: float) -> str:
    """A length of time in its largest units, such as `6 days 2 hours`."""
    minutes = max(1, round(seconds / 60))
    if minutes >= 24 * 60:
        minutes = round(minutes / 60) * 60
    return pendulum.duration(days=minutes // 1440, minutes=minutes % 1440).in_words(locale="en")
