"""Fetch an hour's legs, at the allowed pace and with retries."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from tap_noojee.clock import Clock
from tap_noojee.decoding import DecodedBody
from tap_noojee.errors import (
    HourError,
    NoojeeError,
    PossibleRateLimitError,
    RateLimitError,
    RequestError,
    TooEarlyError,
    TransientError,
)
from tap_noojee.hours import format_hour
from tap_noojee.responses import parse_response
from tap_noojee.settings import ENDPOINT, build_api_url
from tap_noojee.transport import Transport

MAX_ATTEMPTS = 5

CLOCK_TOLERANCE = timedelta(minutes=1)
"""How much earlier than the due time the `Date` header may be."""

MAX_CLOCK_SKEW = timedelta(hours=12)
"""How far the PBX's clock may be behind this machine's."""


class Client:
    """Calls `retrieveMetaDataByHour`, no more often than `request_interval` allows.

    `on_response` gets each response's HTTP status and duration in seconds.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        clock: Clock,
        logger: logging.Logger | logging.LoggerAdapter[Any],
        on_response: Callable[[int, float], None],
    ) -> None:
        self._api_key: str = config["api_key"]
        self._transport = Transport(
            build_api_url(config["api_url"]),
            api_key=self._api_key,
            user_agent=config["user_agent"],
            timeout=config["request_timeout"],
            monotonic=clock.monotonic,
        )
        self.request_count = 0
        self._interval: int = config["request_interval"]
        # Latency varies, and the PBX may count from a request's arrival, so wait slightly longer.
        self._margin = min(self._interval * 0.015, 0.5)
        self._counts_from_end = False
        self._next_slot = clock.monotonic()
        self._clock = clock
        self._logger = logger
        self._on_response = on_response

    def fetch(
        self, hour: datetime, due: datetime, max_attempts: int = MAX_ATTEMPTS
    ) -> DecodedBody:
        """Fetch the raw legs that ended in this hour. `due` is when it may first be requested.

        Raises:
            HourError: The response cannot be read, or the PBX fails on this hour.
            RequestError: No complete response arrived, or the response is an error.
            TooEarlyError: By the PBX's clock, the hour is not due.
            NoojeeError: The PBX's clock is too far behind this machine's.
            Interrupted: A signal arrived first.
        """
        attempt = 0
        was_rejected = False
        while True:
            attempt += 1
            self.wait_for_slot()
            try:
                return self._request(hour, due)
            except RequestError as error:
                # The request may have arrived at any time until now, so wait a full interval.
                wait = max(self._interval, error.retry_after)
                self._next_slot = self._clock.monotonic() + wait
                # A rejection may be the rate limit in disguise, so retry it, but only once.
                is_rejection = isinstance(error, PossibleRateLimitError)
                is_final = attempt >= max_attempts or (is_rejection and was_rejected)
                if is_final or not isinstance(error, TransientError):
                    # Raise a plain error: a TransientError would suggest retrying.
                    kind = HourError if isinstance(error, HourError) else RequestError
                    attempts = f" ({attempt} attempts)" if attempt > 1 else ""
                    raise kind(f"{format_hour(hour)}: {error}{attempts}") from None
                was_rejected |= is_rejection
                last_attempt = attempt + 1 if is_rejection else max_attempts
                retry = f"attempt {attempt + 1} of {last_attempt}"
                self._logger.warning(
                    "%s: %s; retrying in %d s (%s)", format_hour(hour), error, wait, retry
                )

    def wait_for_slot(self) -> None:
        """Wait until the next request may start, or raise Interrupted."""
        self._clock.sleep(self._next_slot - self._clock.monotonic())

    def _request(self, hour: datetime, due: datetime) -> DecodedBody:
        self.request_count += 1
        started = self._clock.monotonic()
        path = f"{ENDPOINT}?date={hour:%Y/%m/%d}&hour={hour.hour}"
        try:
            response = self._clock.run_in_thread(
                partial(self._transport.post, path), self._transport.time_limit
            )
        except TimeoutError:
            raise self._transport.timeout_error() from None
        self._on_response(response.status, self._clock.monotonic() - started)
        try:
            decoded = parse_response(response, self._api_key, self._clock.now())
        except (RateLimitError, PossibleRateLimitError):
            # We kept the interval, so the PBX may count from the end of its responses.
            self._counts_from_end = True
            raise
        if self._counts_from_end:
            self._next_slot = self._clock.monotonic() + self._interval
        else:
            # Count from the request's start, so that a slow PBX costs no time.
            self._next_slot = response.started + self._interval + self._margin
        if response.date:
            self._check_clocks(response.date, due)
        return decoded

    def _check_clocks(self, date: datetime, due: datetime) -> None:
        now = self._clock.now()
        if date < now - MAX_CLOCK_SKEW:
            raise NoojeeError(
                f"the PBX's `Date` header is {date.isoformat()}, but this machine's clock is at "
                f"{now.isoformat(timespec='seconds')}: correct the clock that is wrong"
            )
        if date < due - CLOCK_TOLERANCE:
            raise TooEarlyError(date)
