"""The stream of recordings, read hour by hour."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo

from msgspec.structs import asdict
from singer_sdk import SchemaDirectory, Stream, StreamSchema
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.singerlib import StateMessage
from singer_sdk.singerlib.catalog import REPLICATION_INCREMENTAL
from typing_extensions import override

from tap_noojee.client import Client, Clock, NoojeeError, Stopped
from tap_noojee.dates import DateError, read_instant
from tap_noojee.hours import FOREVER, NEVER, Backlog, Hour, Span, count, last_due, within
from tap_noojee.legs import AnswerDecoder, LegReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from singer_sdk import Tap
    from singer_sdk.helpers.types import Context, Record


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
    def get_records(self, context: Context | None) -> Iterable[Record]:
        # The SDK's marker of where a run began would else be in each STATE.
        self.stream_state.pop("starting_replication_value", None)
        self._bookmark = dict(self.stream_state)
        self._hours_read = 0
        self._zone = ZoneInfo(self.config["timezone"])
        agent = {"user_agent": f"{self.tap_name}/{self._tap.plugin_version}"}
        client = Client(
            agent | dict(self.config), AnswerDecoder(self.schema).decode, self._clock, self.logger
        )
        reader = LegReader(self.schema, self._zone, client.quote, self.logger)
        try:
            if self.ABORT_AT_RECORD_COUNT is None:
                yield from self._read_hours(client, reader)
            else:
                yield from self._test_connection(client, reader)
            self._clock.check()
        except Stopped:
            self.log("Stopped; the next run goes on from here")
        else:
            return
        if not self._hours_read:
            self._write_bookmark(self._bookmark)
        raise SystemExit(128 + (self._clock.stop_signal or 0))

    def _test_connection(self, client: Client[Any], reader: LegReader) -> Iterator[Record]:
        """Ask for the newest hour that is due, whatever the bookmark says, for one record."""
        hour = self._last_due()
        legs = reader.read(hour, client.fetch(hour))
        self.log("%s: %s; the connection works", hour, _number(len(legs), "leg"))
        yield from map(asdict, legs[:1])
        self._write_bookmark(self._bookmark)

    def _read_hours(self, client: Client[Any], reader: LegReader) -> Iterator[Record]:
        """Ask for each hour that is due and unread, and write STATE after it."""
        config = self.config
        start = read_instant(config["start_date"], self._zone)
        end = read_instant(config["end_date"], self._zone) if "end_date" in config else FOREVER
        incremental = self.replication_method == REPLICATION_INCREMENTAL
        backlog = Backlog(
            read_bookmark(self._bookmark) if incremental else [],
            start=start,
            end=end,
            lookback=config["lookback_hours"],
            zone=self._zone,
        )
        first, limit = start.isoformat(), end.isoformat()
        said = ""
        began = self._clock.monotonic()
        while True:
            left = count(self._due(backlog, end), self._zone)
            elapsed = self._clock.monotonic() - began
            self.log("%s%s", said, self._outlook(left, elapsed))
            if not left or self._hours_read == config.get("max_hours_per_run"):
                break
            client.keep_pace()
            # Looked up again after the wait: meanwhile a newer hour may have fallen due.
            due = self._due(backlog, end)
            if not due:  # the clock was put back
                continue
            if config["backfill_order"] == "newest_first":
                hour = Hour.last_before(due[-1][1], self._zone)
            else:
                hour = Hour.showing(due[0][0], self._zone)
            legs = reader.read(hour, client.fetch(hour))
            legs = [leg for leg in legs if first <= leg.callend < limit]
            yield from map(asdict, legs)
            backlog.finish(hour, end)
            self._write_bookmark(write_bookmark(backlog.unread) if incremental else self._bookmark)
            self._hours_read += 1
            said = f"{hour}: {_number(len(legs), 'leg')}; "

    def _due(self, backlog: Backlog, end: datetime) -> list[Span]:
        return backlog.to_ask(min(self._last_due().next().start, end))

    def _last_due(self) -> Hour:
        settle = timedelta(minutes=self.config["settle_minutes"])
        return last_due(self._clock.now(), settle, self._zone)

    def _outlook(self, left: int, elapsed: float) -> str:
        """Tell how many hours are left and when they will be read, at the pace so far."""
        if not left:
            return "nothing left to read"
        done = self._hours_read
        now = min(left, self.config.get("max_hours_per_run", done + left) - done)
        what = _number(left, "hour")
        if self.config["backfill_order"] == "newest_first":
            what += " of history"
        if not now:
            return f"{what} left for later runs"
        in_this_run = "" if now == left else f", {now} of them in this run"
        pace = max(self.config["request_interval"], elapsed / done if done else 0)
        at = self._clock.now() + timedelta(seconds=now * pace)
        return f"{what} left{in_this_run}, done at about {self._local(at)}"

    def _local(self, instant: datetime) -> str:
        return f"{instant.astimezone(self._zone):%Y-%m-%d %H:%M %Z}"

    def _write_bookmark(self, bookmark: dict[str, Any]) -> None:
        """Write STATE, even if it is the same as before: targets forget it at the next RECORD."""
        # With each record the SDK has moved the bookmark to the record's end.
        self.stream_state.clear()
        self.stream_state.update(bookmark)
        if bookmark == self._bookmark:
            self._tap.write_message(StateMessage(self.tap_state))
        else:
            self._tap.state_writer.write_state(self.tap_state)
        self._bookmark = bookmark


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count != 1)}"


def read_bookmark(bookmark: Mapping[str, Any]) -> list[Span]:
    """What a stream's bookmark leaves unread, in order; nothing for the bookmark of no run.

    `replication_key_value`: each leg that ended before has been read, but for those that ended in
    one of the intervals of `owed`.

    Raises:
        NoojeeError: the bookmark cannot be read.
    """
    try:
        if not bookmark.get("replication_key_value"):
            return []
        value = _instant(bookmark["replication_key_value"])
        owed = [
            (_instant(span["start"]), _instant(span["end"])) for span in bookmark.get("owed", [])
        ]
    except (DateError, AttributeError, TypeError, KeyError) as error:
        reason = f"state: the bookmark {bookmark!r} of recordings cannot be read: {error}"
    else:
        return [*within(sorted(owed), NEVER, value), (value, FOREVER)]
    raise NoojeeError(reason)


def _instant(text: str) -> datetime:
    return read_instant(text, ZoneInfo("UTC"))


def write_bookmark(unread: list[Span]) -> dict[str, Any]:
    """The bookmark that leaves this unread: the opposite of `read_bookmark`."""
    *owed, (value, _) = unread
    bookmark: dict[str, Any] = {
        "replication_key": RecordingsStream.replication_key,
        "replication_key_value": value.isoformat(),
    }
    if owed:
        bookmark["owed"] = [{"start": s.isoformat(), "end": e.isoformat()} for s, e in owed]
    return bookmark
