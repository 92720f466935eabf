"""The stream of recordings, read hour by hour."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec.structs import asdict
from singer_sdk import SchemaDirectory, Stream, StreamSchema, metrics
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.mapper import RemoveRecordTransform
from singer_sdk.singerlib import StateMessage
from singer_sdk.singerlib.catalog import REPLICATION_FULL_TABLE, REPLICATION_INCREMENTAL
from typing_extensions import override

from tap_noojee.answers import AnswerReader
from tap_noojee.client import METHOD, Client
from tap_noojee.coverage import FOREVER, Backlog, Coverage, count_hours, subtract
from tap_noojee.errors import HourNotOverError, NoojeeError, Stopped
from tap_noojee.hours import Hour
from tap_noojee.legs import LegReader, iso_spans
from tap_noojee.progress import Progress, in_words, number
from tap_noojee.settings import date, time_zone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from singer_sdk import Tap
    from singer_sdk.helpers.types import Context, Record
    from singer_sdk.singerlib import Catalog

    from tap_noojee.waiting import Clock


class RecordingsStream(Stream):
    """Legs of recorded calls, hour by hour; each hour's in order of their end."""

    name = "recordings"
    primary_keys = ("CallRecordId", "Leg")
    replication_key = "callend"
    schema: ClassVar[StreamSchema] = StreamSchema(SchemaDirectory(files("tap_noojee.schemas")))

    # The bookmark follows the hours, not the records: STATE is written after each hour only.
    is_sorted = True
    check_sorted = False
    STATE_MSG_FREQUENCY = sys.maxsize

    # The records are made to fit the schema as they are read.
    TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE

    def __init__(self, tap: Tap, clock: Clock) -> None:
        """Take the time from this clock, and stop when it says so."""
        super().__init__(tap)
        self._clock = clock
        # How far the PBX's clock is behind, where that has been seen.
        self._pbx_behind = timedelta()

    @override
    def get_batch_config(self, config: Mapping[str, Any]) -> None:
        """None: a batch's STATE would be handed over before its records."""

    @override
    def get_replication_key_signpost(self, context: Context | None = None) -> None:
        """None: no bookmark is ever later than the hours that were read."""

    @override
    def generate_child_contexts(
        self, record: Record, context: Context | None
    ) -> Iterable[Context | None]:
        """None: there are no child streams, and the SDK would copy each record for them."""
        return ()

    @override
    def log(self, message: str, *args: Any, level: int = logging.INFO, **kwargs: Any) -> None:
        # The SDK calls every error unhandled before it is handled: in one line, at the end.
        if level < logging.ERROR:
            super().log(message, *args, level=level, **kwargs)

    @override
    def apply_catalog(self, catalog: Catalog) -> None:
        super().apply_catalog(catalog)
        if not self.selected:
            return
        if self.replication_key != type(self).replication_key:
            raise NoojeeError(f"catalog: replication_key: is not {type(self).replication_key}")
        if self.replication_method == REPLICATION_FULL_TABLE:
            if "max_hours_per_run" in self.config:
                raise NoojeeError(
                    "max_hours_per_run: cannot be used with FULL_TABLE: each run would read the "
                    "same hours"
                )
        elif self.replication_method != REPLICATION_INCREMENTAL:
            raise NoojeeError("catalog: replication_method: is not INCREMENTAL or FULL_TABLE")
        for field in self.schema["required"]:
            if not self.mask[("properties", field)]:
                raise NoojeeError(f"catalog: {field}: is excluded, but needed in each record")

    @override
    def get_records(self, context: Context | None) -> Iterable[Record]:
        if all(isinstance(stream_map, RemoveRecordTransform) for stream_map in self.stream_maps):
            # All would be requested and claimed, and nothing written.
            raise NoojeeError("stream_maps: recordings: is left out, and there is nothing else")
        # The SDK's marker of where a run began would else be in each STATE.
        self.stream_state.pop("starting_replication_value", None)
        self._bookmark = dict(self.stream_state)
        self._state_emitted = False
        self._zone = time_zone(self.config["timezone"])
        reader = LegReader(self.schema, self._zone, self.config["api_key"], self.logger)
        agent = {"user_agent": f"{self.tap_name}/{self._tap.plugin_version}"}
        with metrics.http_request_counter(self.name, METHOD) as self._request_counter:
            client = Client(
                agent | dict(self.config),
                AnswerReader(
                    reader.leg_type, self.config["api_key"], self._clock.now, self.logger
                ),
                self._clock,
                self.logger,
                self._count_request,
            )
            read = self._read_hours if self.ABORT_AT_RECORD_COUNT is None else self._read_one
            try:
                yield from read(client, reader)
                self._clock.raise_if_stopped()
            except Stopped:
                self.log("Stopped after the last STATE that was written")
            else:
                return
        if not self._state_emitted:  # The last message is a STATE, even if no hour has been read.
            self._emit_state(self._bookmark)
        raise SystemExit(128 + (self._clock.stop_signal or 0))

    def _read_one(self, client: Client, reader: LegReader) -> Iterator[Record]:
        """Test the connection with the newest hour that is due, whatever the bookmark says."""
        hour = self._last_due()
        try:
            legs = reader.read(hour, client.fetch(hour, max_attempts=1))
        except HourNotOverError as error:
            self._leave_for_later(hour, error)
            legs = []
        hint = "" if legs else "; if calls ended in that hour, check `timezone`"
        self.log("%s: %s; the connection works%s", hour, number(len(legs), "leg"), hint)
        yield from map(asdict, legs[:1])
        self._emit_state(self._bookmark)

    def _read_hours(self, client: Client, reader: LegReader) -> Iterator[Record]:
        """Request each hour that is due and wanted, and write STATE after it."""
        incremental = self.replication_method == REPLICATION_INCREMENTAL
        start, end = self._dates()
        first, last = start.isoformat(), end.isoformat()
        backlog = self._backlog(start, end, self._bookmark if incremental else {})
        progress = Progress(self.config, self._clock, self._zone)
        self.log(progress.outlook(backlog.count(self._last_due())))
        while progress.hours_left_in_run and self._next_hour(backlog, progress):
            client.wait_for_slot()
            # Chosen after the wait: meanwhile a newer hour may have fallen due.
            hour = self._next_hour(backlog, progress)
            if hour is None:  # the clock was put back
                break
            try:
                legs = reader.read(hour, client.fetch(hour))
            except HourNotOverError as error:
                self._leave_for_later(hour, error)
                continue
            excluded = iso_spans(backlog.excluded(hour))
            legs = [leg for leg in legs if first <= leg.callend < last]
            for s, e in excluded:
                legs = [leg for leg in legs if not s <= leg.callend < e]
            yield from map(asdict, legs)
            backlog.finish(hour)
            self._emit_state(
                backlog.coverage.make_bookmark(self.replication_key, self._zone.key)
                if incremental
                else self._bookmark
            )
            progress.hours_read += 1
            outlook = progress.outlook(backlog.count(self._last_due()))
            self.log("%s: %s; %s", hour, number(len(legs), "leg"), outlook)

    def _dates(self) -> tuple[datetime, datetime]:
        """The earliest and the latest end of a leg."""
        start = date(self.config["start_date"], self._zone)
        if "end_date" not in self.config:
            return start, FOREVER
        return start, date(self.config["end_date"], self._zone)

    def _backlog(self, start: datetime, end: datetime, bookmark: dict[str, Any]) -> Backlog:
        """What there is to read, by the dates of this run and the bookmark of earlier ones."""
        coverage = self._moved(Coverage.parse_bookmark(bookmark, start, self._zone), bookmark)
        earlier = subtract([(start, min(coverage.since, end))], coverage.read)
        if coverage.read and earlier:
            self.log(
                "History goes back further than before: %s to read",
                number(count_hours(earlier, self._zone), "hour"),
            )
        backlog = Backlog(
            coverage,
            start=start,
            end=end,
            lookback=self.config["lookback_hours"],
            zone=self._zone,
        )
        if left_out := backlog.left_out:
            self.log(
                "%s left out of this run by start_date or end_date, and not claimed by STATE",
                number(count_hours(left_out, self._zone), "hour"),
            )
        return backlog

    def _moved(self, coverage: Coverage, bookmark: dict[str, Any]) -> Coverage:
        """What a bookmark claims, as far as it holds if the PBX's clock is as the settings say.

        STATE goes on claiming all of it until an hour has been read by this clock: it may be the
        settings that are wrong.
        """
        name = bookmark.get("timezone", self._zone.key)
        if name == self._zone.key:
            return coverage
        moved = coverage.moved(time_zone(name), self._zone)
        if lost := subtract(coverage.read, moved.read):
            self.logger.warning(
                "STATE was written with `timezone` %s, not %s: %s to read again",
                *(name, self._zone.key, number(count_hours(lost, self._zone), "hour")),
            )
        return moved

    def _next_hour(self, backlog: Backlog, progress: Progress) -> Hour | None:
        return backlog.next_hour(
            self._last_due(),
            newest_first=self.config["backfill_order"] == "newest_first",
            # Else `lookback_hours` could take up every run, and history would never be read.
            prefer_unread=progress.hours_left_in_run == 1,
        )

    def _last_due(self) -> Hour:
        settle = timedelta(minutes=self.config["settle_minutes"])
        return Hour.last_due(self._clock.now() - self._pbx_behind, settle, self._zone)

    def _leave_for_later(self, hour: Hour, error: HourNotOverError) -> None:
        self._pbx_behind = timedelta(seconds=error.seconds_behind)
        self.logger.warning(
            "%s: the clock of this machine is %s ahead of the PBX's, where this hour is not over: "
            "it is left for later. Set the clock",
            *(hour, in_words(error.seconds_behind)),
        )

    def _count_request(self, status: int, seconds: float) -> None:
        """Measure a request in the way of the SDK's own HTTP streams."""
        self._request_counter.increment()
        failed = status >= HTTPStatus.BAD_REQUEST
        tags: dict[str, Any] = {
            metrics.Tag.STREAM: self.name,
            metrics.Tag.ENDPOINT: METHOD,
            metrics.Tag.HTTP_STATUS_CODE: status,
            metrics.Tag.STATUS: metrics.Status.FAILED if failed else metrics.Status.SUCCEEDED,
        }
        duration = metrics.Metric.HTTP_REQUEST_DURATION
        self._log_metric(metrics.Point("timer", metric=duration, value=seconds, tags=tags))

    def _emit_state(self, bookmark: dict[str, Any]) -> None:
        """Write STATE, even if it is the same as before: targets forget it at the next RECORD."""
        # With each record the SDK has moved the bookmark to the record's end.
        self.stream_state.clear()
        self.stream_state.update(bookmark)
        if bookmark == self._bookmark:
            # `write_state` drops a STATE that equals the last one.
            self._tap.write_message(StateMessage(self.tap_state))
        else:
            self._tap.state_writer.write_state(self.tap_state)
        self._bookmark = bookmark
        self._state_emitted = True
