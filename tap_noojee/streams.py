"""The stream of recordings, read hour by hour."""

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from http import HTTPStatus
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from msgspec.structs import asdict
from singer_sdk import Stream, Tap, metrics
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.helpers.types import Context, Record
from singer_sdk.mapper import RemoveRecordTransform
from singer_sdk.singerlib import StateMessage
from singer_sdk.singerlib.catalog import REPLICATION_INCREMENTAL
from typing_extensions import override

from tap_noojee.bookmarks import (
    MAX_FAILURE_STREAK,
    Backlog,
    HourSet,
    Pbx,
    load_bookmark,
    make_bookmark,
)
from tap_noojee.checks import check_hour
from tap_noojee.client import MAX_ATTEMPTS, Client
from tap_noojee.clock import Clock
from tap_noojee.dates import parse_instant
from tap_noojee.errors import CatalogError, FailedHoursError, HourError, TooEarlyError
from tap_noojee.hours import end_of, format_hour, hour_at, last_due
from tap_noojee.legs import SCHEMA, LegReader
from tap_noojee.settings import ENDPOINT, parse_zone
from tap_noojee.text import describe_plan, describe_progress, describe_result, pluralize

_FOREVER = datetime(9000, 1, 1)  # noqa: DTZ001 - an hour of the PBX's clock


class RecordingsStream(Stream):
    """Call legs, read hour by hour and sorted by end time within each hour."""

    name = "recordings"
    primary_keys = ("CallRecordId", "Leg")
    replication_key = "callend"
    schema: ClassVar[dict[str, Any]] = SCHEMA

    # The bookmark follows the hours, not the records, so we write each STATE ourselves.
    STATE_MSG_FREQUENCY = sys.maxsize
    # Declare the stream sorted: the SDK adds progress markers to an unsorted stream's bookmark.
    # Turn off the sort check, because records are sorted only within each hour.
    is_sorted = True
    check_sorted = False

    # LegReader has already converted the values.
    TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE

    def __init__(self, tap: Tap, clock: Clock) -> None:
        super().__init__(tap)
        self.forced_replication_method = REPLICATION_INCREMENTAL
        self._write_message = tap.write_message
        self._clock = clock
        self._clock_skew = timedelta()
        self._reported_topics: set[str] = set()
        self._hours_read = HourSet()

    @override
    def get_batch_config(self, config: Mapping[str, Any]) -> None:
        """No batches: a batch's STATE would come before its records."""

    @override
    def generate_child_contexts(
        self, record: Record, context: Context | None
    ) -> Iterable[Context | None]:
        """No child streams: by default, the SDK copies each record for them."""
        return ()

    @override
    def get_record_counter(self, **_: Any) -> metrics.Counter:
        # The SDK's interval would log a METRIC line for nearly every request.
        return metrics.record_counter(self.name, log_interval=float("inf"))

    @override
    def log(self, message: str, *args: Any, level: int = logging.INFO, **kwargs: Any) -> None:
        # Skip the SDK's "unhandled error" line: the command logs each error once.
        if level < logging.ERROR:
            super().log(message, *args, level=level, **kwargs)

    def restore_hours_read(self) -> None:
        """Load the state's bookmark into the set of hours already read.

        Raises:
            StateError: The state is unusable.
        """
        if bookmark := self.tap_state.get("bookmarks", {}).get(self.name):
            self._hours_read = load_bookmark(bookmark, self._pbx, self._first, self._clock.now())

    @override
    def get_records(self, context: Context | None) -> Iterable[Record]:
        if all(isinstance(stream_map, RemoveRecordTransform) for stream_map in self.stream_maps):
            raise CatalogError(
                f"stream_maps: {self.name!r} is removed, but it is the only stream: keep it"
            )
        self._emit_state(self._hours_read)
        # `--test` sets ABORT_AT_RECORD_COUNT.
        yield from self._read_pending() if self.ABORT_AT_RECORD_COUNT is None else self._read_one()
        self._clock.raise_if_interrupted()

    def _read_pending(self) -> Iterator[Record]:
        """Request each pending hour, and write STATE after each one that is read."""
        if self._parse(self.config["start_date"]) > self._clock.now():
            self.logger.warning("start_date is in the future: there is nothing to read yet")
        started = self._clock.monotonic()
        due = self._last_due()
        backlog = self._build_backlog()
        backlog.plan_reread(self.config["lookback_hours"], due)
        unread, reread = len(backlog.unread(due)), len(backlog.reread)
        interval = self.config["request_interval"]
        self.log(describe_plan(unread, reread, backlog.remaining, interval))
        leg_count = 0
        for hour in self._hours_to_request(backlog):
            try:
                legs = self._fetch(hour)
            except TooEarlyError as error:
                self._use_pbx_clock(hour, error)
                continue
            except HourError as error:
                self.logger.error(error)  # noqa: TRY400 - a traceback would not help
                backlog.mark_failed(hour)
                continue
            yield from map(asdict, legs)
            backlog.mark_read(hour)
            self._emit_state(backlog.hours_read)
            leg_count += len(legs)
            progress = self._describe_progress(backlog, started)
            self.log("%s: %s; %s", format_hour(hour), pluralize(len(legs), "leg"), progress)
        if request_count := self._client.request_count:
            left = len(backlog.pending(self._last_due()))
            self.log(describe_result(leg_count, backlog.read_count, request_count, left))
        if failed := backlog.failed:
            text = (
                f"{pluralize(len(failed), 'hour')} failed: {', '.join(map(format_hour, failed))}. "
                "The next run requests those that the state does not list as read."
            )
            if backlog.has_failure_streak:
                text += f" The run ended because {MAX_FAILURE_STREAK} hours in a row failed."
            raise FailedHoursError(text)

    def _build_backlog(self) -> Backlog:
        end = self.config.get("end_date")
        return Backlog(
            hours_read=self._hours_read,
            first=self._first,
            last=last_due(self._parse(end), timedelta(), self._zone) if end else _FOREVER,
            zone=self._zone,
            newest_first=self.config["backfill_order"] == "newest_first",
            limit=self.config.get("max_hours_per_run"),
        )

    def _hours_to_request(self, backlog: Backlog) -> Iterator[datetime]:
        """Yield each hour when its request may start, until the run is over."""
        while backlog.choose(self._last_due()):
            # Wait before choosing the hour, because a newer one may fall due meanwhile.
            self._client.wait_for_slot()
            if not (hour := backlog.choose(self._last_due())):  # the clock was set back
                return
            yield hour

    def _describe_progress(self, backlog: Backlog, started: float) -> str:
        elapsed = self._clock.monotonic() - started
        pace = max(self.config["request_interval"], elapsed / backlog.read_count)
        left = len(backlog.pending(self._last_due()))
        return describe_progress(
            left, backlog.remaining, pace, self._clock.now().astimezone(self._zone)
        )

    def _read_one(self) -> Iterator[Record]:
        """Test the connection with the newest due hour, regardless of the bookmark."""
        hour = self._last_due()
        try:
            legs = self._fetch(hour, max_attempts=1)
        except TooEarlyError as error:
            self._use_pbx_clock(hour, error)
            return
        hint = "" if legs else "; if calls ended in that hour, check `timezone`"
        self.log(
            "%s: %s; the connection works%s", format_hour(hour), pluralize(len(legs), "leg"), hint
        )
        yield from map(asdict, legs[:1])
        self._emit_state(self._hours_read)

    def _fetch(self, hour: datetime, max_attempts: int = MAX_ATTEMPTS) -> list[Any]:
        end = cast("datetime", end_of(hour, self._zone))  # only a skipped hour has none
        decoded = self._client.fetch(hour, end + self._settle, max_attempts)
        hour_legs = self._leg_reader.read(hour, decoded.legs)
        key = self.config["api_key"]
        for finding in check_hour(hour, decoded, hour_legs, self._zone, key):
            if finding.topic in self._reported_topics:
                continue
            self.logger.warning(finding.text)
            if finding.topic:
                self._reported_topics.add(finding.topic)
        return hour_legs.legs

    def _use_pbx_clock(self, hour: datetime, error: TooEarlyError) -> None:
        """Warn that an hour is not due by the PBX's clock, and use that clock from now on."""
        now = self._clock.now()
        # Plain subtraction would return pendulum's Interval.
        self._clock_skew = timedelta(seconds=now.timestamp() - error.date.timestamp())
        self.logger.warning(
            "%s: skipped for now, because it is not due by the PBX's clock (%s). This machine's "
            "clock is at %s: correct the clock that is wrong",
            format_hour(hour),
            error.date.isoformat(),
            now.isoformat(timespec="seconds"),
        )

    def _emit_state(self, read: HourSet) -> None:
        # The SDK moves the bookmark to each record's `callend`, so replace all of it.
        self.stream_state.clear()
        self.stream_state.update(make_bookmark(read, self._pbx, self.replication_key))
        # Bypass the SDK's StateWriter, which drops a STATE equal to the last one: target-jsonl
        # forgets its state at each RECORD, so it must get the STATE again.
        self._write_message(StateMessage(self.tap_state))

    def _record_metrics(self, status: int, seconds: float) -> None:
        """Log the SDK's request metric, but only at DEBUG: it would double the log's length."""
        if not self.metrics_logger.isEnabledFor(logging.DEBUG):
            return
        failed = status >= HTTPStatus.BAD_REQUEST
        tags: dict[str, Any] = {
            metrics.Tag.STREAM: self.name,
            metrics.Tag.ENDPOINT: ENDPOINT,
            metrics.Tag.HTTP_STATUS_CODE: status,
            metrics.Tag.STATUS: metrics.Status.FAILED if failed else metrics.Status.SUCCEEDED,
        }
        name = metrics.Metric.HTTP_REQUEST_DURATION
        metrics.log(self.metrics_logger, metrics.Point("timer", name, seconds, tags))

    def _last_due(self) -> datetime:
        return last_due(self._clock.now() - self._clock_skew, self._settle, self._zone)

    def _parse(self, date: str) -> datetime:
        return parse_instant(date, self._zone)

    # Discovery builds the stream without settings, so these are computed on first use.

    @cached_property
    def _zone(self) -> ZoneInfo:
        return parse_zone(self.config["timezone"])

    @cached_property
    def _pbx(self) -> Pbx:
        return Pbx(urlsplit(self.config["api_url"]).hostname or "", self._zone)

    @cached_property
    def _first(self) -> datetime:
        return hour_at(self._parse(self.config["start_date"]), self._zone)

    @cached_property
    def _settle(self) -> timedelta:
        return timedelta(minutes=self.config["settle_minutes"])

    @cached_property
    def _client(self) -> Client:
        return Client(self.config, self._clock, self.logger, self._record_metrics)

    @cached_property
    def _leg_reader(self) -> LegReader:
        return LegReader(self._zone, self.config["api_key"])
