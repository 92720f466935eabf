"""One call for one hour: its pace, and its attempts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tap_noojee.errors import (
    HourNotOverError,
    RateLimitError,
    RejectedError,
    RequestError,
    Stopped,
    TransientError,
)
from tap_noojee.settings import api_url
from tap_noojee.transport import Attempt, Transport

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from tap_noojee.answers import AnswerReader, Response
    from tap_noojee.hours import Hour
    from tap_noojee.waiting import Clock

METHOD = "retrieveMetaDataByHour"

MAX_ATTEMPTS = 5


class Client:
    """Calls `retrieveMetaDataByHour`, never sooner than an interval after the last call."""

    def __init__(
        self,
        config: Mapping[str, Any],
        reader: AnswerReader,
        clock: Clock,
        logger: logging.Logger | logging.LoggerAdapter[Any],
        meter: Callable[[int, float], None],
    ) -> None:
        """Take the tap's settings, and what makes records of a response.

        `meter` is called with the HTTP status of each response, and the seconds that it took.
        """
        self._transport = Transport(
            api_url(config["api_url"]),
            api_key=config["api_key"],
            user_agent=config["user_agent"],
            timeout=config["request_timeout"],
            monotonic=clock.monotonic,
        )
        self._interval: int = config["request_interval"]
        # The time from sending to arrival varies, and the PBX may count from the arrival.
        self._margin = min(self._interval * 0.015, 0.5)
        self._counts_from_end = False
        self._next_slot = clock.monotonic()
        self._reader = reader
        self._clock = clock
        self._logger = logger
        self._meter = meter

    def fetch(self, hour: Hour, max_attempts: int = MAX_ATTEMPTS) -> list[Any]:
        """The records of the legs that ended in this hour.

        Raises:
            RequestError: no answer came, or none that can be read.
            HourNotOverError: by the PBX's clock it is too early to ask.
            Stopped: the run was asked to end before there was an answer.
        """
        attempts = rejections = 0
        while True:
            attempts += 1
            self.wait_for_slot()
            try:
                return self._request(hour)
            except RequestError as raised:
                error = raised
            rejections += isinstance(error, RejectedError)
            if not isinstance(error, TransientError) or attempts == max_attempts:
                break
            # It may have been the limit's own error: once. If it stands, it means what it says.
            if rejections > 1:
                break
            # When the attempt arrived is not known, or whether it did: it counts from its end.
            wait = max(self._interval, error.retry_after)
            self._next_slot = self._clock.monotonic() + wait
            self._logger.warning(
                "%s: %s; asking again in %d s (attempt %d of %d)",
                *(hour, error, wait, attempts + 1, max_attempts),
            )
        after = f" ({attempts} attempts)" if attempts > 1 else ""
        raise RequestError(f"{hour}: {error}{after}")

    def wait_for_slot(self) -> None:
        """Wait until the next request may be sent, or raise Stopped."""
        self._clock.sleep(self._next_slot - self._clock.monotonic())

    def _request(self, hour: Hour) -> list[Any]:
        attempt = Attempt()
        try:
            response = self._send(hour, attempt)
            records = self._reader.read(response)
        except (RateLimitError, RejectedError):
            # Rejected although the interval was kept: the PBX may count from its answers.
            self._counts_from_end = True
            raise
        # The PBX is thought to count calls as they arrive, so that its own slowness costs nothing.
        began, margin = attempt.sent_at, self._margin
        if began is None or self._counts_from_end:
            began, margin = self._clock.monotonic(), 0
        self._next_slot = began + self._interval + margin
        if response.date and response.date < hour.end:
            raise HourNotOverError(self._clock.now().timestamp() - response.date.timestamp())
        return records

    def _send(self, hour: Hour, attempt: Attempt) -> Response:
        path = f"{METHOD}?date={hour.wall:%Y/%m/%d}&hour={hour.wall.hour}"
        began = self._clock.monotonic()
        try:
            response = self._clock.run(
                partial(self._transport.post, path, attempt), self._transport.time_limit
            )
        except TimeoutError:
            failure = self._transport.timed_out()
        except Stopped:
            attempt.abandoned = True
            raise
        else:
            self._meter(response.status, self._clock.monotonic() - began)
            return response
        attempt.abandoned = True
        raise failure
