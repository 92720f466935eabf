"""The HTTP side: a PBX on a loopback port, and its misbehaviour."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, NoReturn, Self, cast
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

from tap_noojee.simulator.calls import HOUR, MELBOURNE, SAMPLE, Dates, Leg, LegSource, legs
from tap_noojee.simulator.failures import (
    Answer,
    Failure,
    Request,
    message,
    page,
    phrase,
    repeat_in_array,
)
from tap_noojee.simulator.wall import exists, parse_wall_hour

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from wsgiref.types import StartResponse, WSGIEnvironment

    from werkzeug.serving import BaseWSGIServer

API_KEY = "5f0c7a52-1c1e-4d6a-9f3b-6a1d2e8b7c90"
BASES = ("/njadmin/rest/RecordingAPI", "/servicemanager/rest/RecordingAPI")
TOO_SOON = "wait a bit and retry"

Fold = Literal["both", "first", "second"]
Gap = Literal["empty", "next"]

DAY = timedelta(days=1)


@dataclass(kw_only=True, eq=False)
class Simulator:
    """A PBX on a loopback port, for as long as the `with` block lasts.

    `interval` 0 means no limit; it counts from the arrival of the last accepted request, or from
    the end of its answer. `fold` and `gap` say which legs a repeated and a skipped hour return;
    the real server's behaviour is not known. `legs` replaces the invented calls, and `clock` the
    time in the `Date` header. Failures are served in order, each to the first request that
    matches; more may be added at any time.
    """

    timezone: str = MELBOURNE
    api_key: str = API_KEY
    interval: float = 0
    counts_from: Literal["arrival", "answer"] = "arrival"
    rate_limit_status: int = 429
    rate_limit_body: bytes | None = None
    rate_limit_content_type: str = "application/json"
    clock: Callable[[], datetime] | None = None
    fold: Fold = "both"
    gap: Gap = "empty"
    dates: Dates = "java"
    volume: float = 1.0
    legs: Sequence[Leg] | LegSource | None = None
    latency: float = 0
    failures: list[Failure] = field(default_factory=list)
    port: int = 0
    url: str = field(init=False, default="")
    requests: list[Request] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Resolve the zone, so that a wrong one is reported at once."""
        self._zone = ZoneInfo(self.timezone)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._used: Counter[int] = Counter()
        self._counted: float | None = None
        self._server: BaseWSGIServer | None = None

    def __enter__(self) -> Self:
        """Start to serve."""
        # An extra: only what serves needs it, and main() says so where it is missing.
        from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415

        sockets, stopping, clock = self._sockets, self._stopping, self.clock

        class Handler(WSGIRequestHandler):
            def setup(self) -> None:
                super().setup()
                sockets.add(self.connection)
                if stopping.is_set():  # accepted too late for stop() to see
                    _hang_up(self.connection)

            def finish(self) -> None:
                super().finish()
                sockets.discard(self.connection)

            def connection_dropped(self, *_: object) -> None:
                self.close_connection = True

            def date_time_string(self, timestamp: float | None = None) -> str:
                if clock is None:
                    return super().date_time_string(timestamp)
                return format_datetime(clock().astimezone(UTC), usegmt=True)

            def log(self, *_: object) -> None:
                """Say nothing: the request line holds the key."""

        self._server = make_server(
            "127.0.0.1", self.port, self._serve, threaded=True, request_handler=Handler
        )
        # Threads that are not daemons are waited for when the server closes, so that none is left.
        self._server.daemon_threads = False  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop to serve."""
        self.stop()

    def stop(self) -> None:
        """Break off whatever is being answered and close every socket."""
        if self._server is None:
            return
        self._stopping.set()
        self._server.shutdown()
        for connection in list(self._sockets):
            _hang_up(connection)
        self._thread.join()
        self._server = None

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        arrived = time.monotonic()
        query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
        wall = parse_wall_hour(query)
        with self._lock:
            answer = self._rejection(environ, query, wall, arrived)
            accepted = answer is None
            date, hour = (f"{wall:%Y-%m-%d}", wall.hour) if wall else (None, None)
            failure = self._next_failure((date, hour)) if accepted else None
            kind = failure.kind if failure else None
            if failure:
                target = f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}"
                too_soon = self._too_soon(failure.status)
                answer = failure.answer(self.url, target, too_soon=too_soon)
            status = None if kind in {"reset", "stall"} else answer.status if answer else 200
            self.requests.append(Request(arrived, date, hour, status, kind))
        self._pause(self.latency)
        if failure and kind == "slow":
            self._pause(failure.delay)
        if answer is None:
            found = self._ended(cast("datetime", wall))
            records = [leg.record(self._zone, self.dates) for leg in found]
            answer = Answer(200, json.dumps(records, ensure_ascii=False).encode())
        parts = self._send(answer, failure, environ["werkzeug.socket"], start_response)
        return self._count_from_end(parts) if self.counts_from == "answer" and accepted else parts

    def _count_from_end(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        for part in parts:
            # Before the part is sent: the client may make its next request as the last one comes.
            self._counted = time.monotonic()
            yield part

    def _rejection(
        self,
        environ: WSGIEnvironment,
        query: Mapping[str, str],
        wall: datetime | None,
        arrived: float,
    ) -> Answer | None:
        if environ["PATH_INFO"] not in {f"{base}/retrieveMetaDataByHour" for base in BASES}:
            return page(404)
        if environ["REQUEST_METHOD"] != "POST":
            return page(405, Allow="POST")
        if query.get("apiKey") != self.api_key:
            return message(403, "unknown API key")
        if wall is None:
            return message(400, "date must be yyyy/MM/dd and hour 0 to 23")
        if self._counted is not None and arrived - self._counted < self.interval:
            return self._too_soon()
        self._counted = arrived
        return None

    def _too_soon(self, status: int | None = None) -> Answer:
        answer = message(status or self.rate_limit_status, TOO_SOON)
        body = answer.body if self.rate_limit_body is None else self.rate_limit_body
        return replace(answer, body=body, content_type=self.rate_limit_content_type)

    def _next_failure(self, asked: tuple[str | None, int | None]) -> Failure | None:
        for number, failure in enumerate(self.failures):
            left = failure.times is None or self._used[number] < failure.times
            if left and failure.at in {None, asked}:
                self._used[number] += 1
                return failure
        return None

    def _ended(self, wall: datetime) -> list[Leg]:
        zone = self._zone
        while self.gap == "next" and not exists(wall, zone):
            wall += HOUR
        around = wall.replace(tzinfo=UTC)
        nearby = ((around + day).astimezone(zone) for day in (-DAY, DAY))
        offsets = [local.utcoffset() or timedelta() for local in nearby]
        found = self._legs(around - max(offsets), around - min(offsets) + HOUR)
        return [leg for leg in found if self._shown(leg.callend.astimezone(zone), wall)]

    def _shown(self, local: datetime, wall: datetime) -> bool:
        if local.replace(minute=0, second=0, microsecond=0, tzinfo=None) != wall:
            return False
        repeated = local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset()
        return self.fold == "both" or not repeated or local.fold == (self.fold == "second")

    def _legs(self, start: datetime, end: datetime) -> Iterable[Leg]:
        if callable(self.legs):
            return self.legs(start, end)
        if self.legs is not None:
            return [leg for leg in self.legs if start <= leg.callend < end]
        # By record, not by end: a database might, and a tap that does not sort is found out.
        found = legs(start, end, zone=self._zone, volume=self.volume)
        return sorted(found, key=lambda leg: (int(leg.call_record_id), leg.leg))

    def _send(
        self,
        answer: Answer,
        failure: Failure | None,
        connection: socket.socket,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        kind = failure.kind if failure else None
        half = answer.body[: len(answer.body) // 2]
        if kind == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(connection.detach())  # the server would say a proper goodbye first
            _drop()
        if kind == "stall":
            while connection.recv(4096):
                pass
            _drop()
        if kind == "cut-json":
            # By hand: the server would send it in chunks.
            head = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
            )
            connection.sendall(head + half)
            _drop()
        if kind == "early-hints":
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
        size = failure.size if failure and kind == "huge" else len(answer.body)
        headers = [("Content-Type", answer.content_type), *answer.headers.items()]
        if kind != "endless" and answer.status != HTTPStatus.NO_CONTENT:
            headers.append(("Content-Length", str(size)))
        start_response(f"{answer.status} {phrase(answer.status)}", headers)
        if kind == "huge":
            return repeat_in_array(answer.body, size)
        if kind == "endless":
            return self._endless()
        if kind == "trickle":
            return self._trickle(answer.body)
        return [half if kind == "cut" else answer.body]

    def _endless(self) -> Iterator[bytes]:
        record = json.dumps(SAMPLE[0].record(self._zone, self.dates)).encode()
        yield b"[" + record
        while True:
            self._pause(0.001)
            yield b", ".join([b""] + [record] * 100)

    def _trickle(self, body: bytes) -> Iterator[bytes]:
        for byte in body:
            yield bytes([byte])
            self._pause(1)

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            _drop()


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # the client was quicker
        connection.shutdown(socket.SHUT_RDWR)


def _drop() -> NoReturn:
    """End the connection here: werkzeug takes this for a client that has gone."""
    raise ConnectionAbortedError
