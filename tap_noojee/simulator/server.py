"""The HTTP server: a PBX on a loopback port, and its failures."""

import json
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import MAXYEAR, UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from itertools import chain, repeat
from threading import Event, Lock, Thread
from typing import Literal, Self, cast
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIEnvironment
from zoneinfo import ZoneInfo

from tap_noojee.simulator.calls import MELBOURNE, SAMPLE, DateFormat, Leg, LegSource, invent_legs
from tap_noojee.simulator.failures import TOO_SOON, Failure, Kind, Request, Response

# The Global API key gives access to all data. A User API key cannot read recordings.
API_KEY = "5f0c7a52-1c1e-4d6a-9f3b-6a1d2e8b7c90"
USER_KEY = "c2b7e916-80d4-4f35-8a6e-93f1d5027ab4"
BASES = ("/njadmin/rest/RecordingAPI", "/servicemanager/rest/RecordingAPI")
YEARS = range(1970, MAXYEAR)

Fold = Literal["both", "first", "second"]

QUARTER = timedelta(minutes=15)


@dataclass(kw_only=True, eq=False)
class Simulator:
    """A PBX on a loopback port. It serves inside a `with` block.

    `interval` is the rate limit in seconds, or 0 for none. It counts from the arrival of an
    accepted request or, if `counts_from` is "response", from the end of its response. `fold`
    selects which pass of a repeated hour to return. `clock` sets the `Date` header. Each request
    gets the first failure that matches it.
    """

    timezone: str = MELBOURNE
    api_key: str = API_KEY
    user_key: str = USER_KEY
    interval: float = 0
    counts_from: Literal["arrival", "response"] = "arrival"
    rate_limit_status: int = 429
    clock: Callable[[], datetime] | None = None
    fold: Fold = "both"
    dates: DateFormat = "java"
    volume: float = 1.0
    legs: Sequence[Leg] | LegSource | None = None
    latency: float = 0
    failures: list[Failure] = field(default_factory=list)
    port: int = 0
    url: str = field(init=False, default="")
    requests: list[Request] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.failures = list(self.failures)
        self._zone = ZoneInfo(self.timezone)
        self._lock = Lock()
        self._stopping = Event()
        self._sockets: set[socket.socket] = set()
        self._interval_start: float | None = None

    def __enter__(self) -> Self:
        # werkzeug is an optional extra. The command checks for it first.
        from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415

        sockets, clock = self._sockets, self.clock

        class Handler(WSGIRequestHandler):
            def setup(self) -> None:
                super().setup()
                sockets.add(self.connection)

            def finish(self) -> None:
                super().finish()
                sockets.discard(self.connection)

            def connection_dropped(self, *_: object) -> None:
                self.close_connection = True

            def date_time_string(self, _: object = None) -> str:
                now = clock() if clock else datetime.now(UTC)
                return format_datetime(now.astimezone(UTC), usegmt=True)

            def log(self, *_: object) -> None:
                """Log nothing: the request line contains the key."""

        self._server = make_server(
            "127.0.0.1", self.port, self._serve, threaded=True, request_handler=Handler
        )
        # `serve_forever` closes the server, which waits only for threads that are not daemons.
        self._server.daemon_threads = False  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Abort all responses and close all sockets."""
        self._stopping.set()
        self._server.shutdown()
        while self._thread.is_alive():
            for connection in list(self._sockets):
                with suppress(OSError):  # the client may have hung up first
                    connection.shutdown(socket.SHUT_RDWR)
            self._thread.join(0.01)

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        now = time.monotonic()
        query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
        wall = _parse_hour(query)
        hour = (f"{wall:%Y-%m-%d}", wall.hour) if wall else (None, None)
        failure = None
        with self._lock:
            response = self._rejection(environ, query, wall, now)
            accepted = response is None
            if accepted and (failure := self._next_failure(hour)):
                url = f"{self.url}{environ['REQUEST_URI']}"
                response = failure.response(url, self.rate_limit_status)
            kind = failure.kind if failure else None
            status: int | None = response.status if response else 200
            if kind in {"reset", "stall"}:
                status = None
            self.requests.append(Request(now, hour[0], hour[1], status, kind))
        self._pause(self.latency + (failure.delay if failure and kind == "slow" else 0))
        if response is None:
            ended = self._legs_ended_in(cast("datetime", wall))
            records = [leg.record(self._zone, self.dates) for leg in ended]
            response = Response(200, json.dumps(records, ensure_ascii=False).encode())
        _break_connection(kind, environ["werkzeug.socket"], response.body)
        headers = {"Content-Type": response.content_type, **response.headers}
        if kind != "endless" and response.status != HTTPStatus.NO_CONTENT:
            size = failure.size if failure and kind == "huge" else len(response.body)
            headers["Content-Length"] = str(size)
        start_response(response.status_line, list(headers.items()))
        return self._send(response, failure, accepted=accepted)

    def _rejection(
        self, environ: WSGIEnvironment, query: Mapping[str, str], wall: datetime | None, now: float
    ) -> Response | None:
        if environ["PATH_INFO"] not in {f"{base}/retrieveMetaDataByHour" for base in BASES}:
            return Response.page(404)
        if environ["REQUEST_METHOD"] != "POST":
            return Response.page(405, Allow="POST")
        if (key := query.get("apiKey")) != self.api_key:
            no_access = "this API key does not have access to this endpoint"
            return Response.message(403, no_access if key == self.user_key else "unknown API key")
        if wall is None:
            return Response.message(400, "date must be yyyy/MM/dd and hour 0 to 23")
        if self._interval_start is not None and now - self._interval_start < self.interval:
            return Response.message(self.rate_limit_status, TOO_SOON)
        self._interval_start = now
        return None

    def _next_failure(self, hour: tuple[str | int | None, ...]) -> Failure | None:
        for number, failure in enumerate(self.failures):
            if failure.at in {None, hour}:
                if failure.times == 1:
                    del self.failures[number]
                elif failure.times:
                    self.failures[number] = replace(failure, times=failure.times - 1)
                return failure
        return None

    def _legs_ended_in(self, wall: datetime) -> list[Leg]:
        """List the legs that ended in an hour of the PBX's clock."""
        quarters = self._quarters(wall)
        found = self._legs(quarters[0], quarters[-1] + QUARTER) if quarters else []
        return [leg for leg in found if any(q <= leg.callend < q + QUARTER for q in quarters)]

    def _quarters(self, wall: datetime) -> list[datetime]:
        """List an hour's quarters in UTC: four, or zero to eight when clocks change."""
        found = []
        near = wall.replace(tzinfo=self._zone).astimezone(UTC)
        for number in range(-3 * 4, 4 * 4):  # clocks go back by at most 3 hours
            local = (near + number * QUARTER).astimezone(self._zone)
            if local.replace(minute=0, tzinfo=None) == wall:
                repeated = local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset()
                if self.fold == "both" or not repeated or local.fold == (self.fold == "second"):
                    found.append(local.astimezone(UTC))
        return found

    def _legs(self, start: datetime, end: datetime) -> Iterable[Leg]:
        if callable(self.legs):
            return self.legs(start, end)
        if self.legs is not None:
            return [leg for leg in self.legs if start <= leg.callend < end]
        # Sorted by record, as a database might, so that a tap has to sort by end itself.
        found = invent_legs(start, end, zone=self._zone, volume=self.volume)
        return sorted(found, key=lambda leg: (int(leg.call_record_id), leg.leg))

    def _send(
        self, response: Response, failure: Failure | None, *, accepted: bool
    ) -> Iterator[bytes]:
        kind = failure.kind if failure else None
        parts: Iterable[bytes] = [response.body]
        pause = 0.0
        if kind == "cut":
            parts = [response.body[: len(response.body) // 2]]
        elif failure and kind == "huge":
            piece = response.body * (2**16 // len(response.body) + 1)
            pieces, rest = divmod(failure.size - len(b"[]") - len(response.body), len(piece))
            last = response.body[:-1].ljust(len(response.body) + rest)  # without the last comma
            parts = chain([b"["], repeat(piece, pieces), [last + b"]"])
        elif kind == "trickle":
            parts, pause = (bytes([byte]) for byte in response.body), 1
        elif kind == "endless":
            record = json.dumps(SAMPLE[0].record(self._zone, self.dates)).encode()
            parts, pause = chain([b"[" + record], repeat((b", " + record) * 100)), 0.001
        for part in parts:
            if accepted and self.counts_from == "response":
                # Set it before sending: the client may react to the last part at once.
                self._interval_start = time.monotonic()
            yield part
            self._pause(pause)

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise ConnectionAbortedError  # ends the request as if the client had hung up


def _parse_hour(query: Mapping[str, str]) -> datetime | None:
    """Read the requested hour of the wall clock, as a naive time."""
    text = f"{query.get('date')} {query.get('hour')}"
    match = re.fullmatch(r"(\d{4})/(\d\d)/(\d\d) (\d\d?)", text, re.ASCII)
    if match and int(match[1]) in YEARS:
        with suppress(ValueError):
            return datetime(*map(int, match.groups()))  # type: ignore[arg-type] # noqa: DTZ001
    return None


def _break_connection(kind: Kind | None, connection: socket.socket, body: bytes) -> None:
    if kind == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())  # otherwise the server shuts it down cleanly first
    elif kind == "stall":
        while connection.recv(4096):
            pass
    elif kind == "cut-json":
        # Bypass the server, which would use chunked encoding.
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
        connection.sendall(head + body[: len(body) // 2])
    else:
        return
    raise ConnectionAbortedError
