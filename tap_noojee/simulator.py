"""A stand-in PBX, to try the tap without one and to test it against.

It shares no code with the tap: hours and dates are worked out here a second time, so that a
mistake in the tap cannot hide behind the same mistake in its tests.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import MAXYEAR, UTC, datetime, timedelta
from functools import lru_cache
from http import HTTPStatus
from importlib.util import find_spec
from random import Random
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, Self, TypeVar, cast, get_args
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

import click

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from werkzeug.serving import BaseWSGIServer

API_KEY = "5f0c7a52-1c1e-4d6a-9f3b-6a1d2e8b7c90"
BASES = ("/njadmin/rest/RecordingAPI", "/servicemanager/rest/RecordingAPI")
MELBOURNE = "Australia/Melbourne"
TOO_SOON = "wait a bit and retry"

Dates = Literal["java", "gmt", "timestamp", "old"]
Fold = Literal["both", "first", "second"]
Gap = Literal["empty", "next"]
Kind = Literal[
    "status", "cut", "cut-json", "reset", "slow", "stall", "trickle", "endless",
    "html", "code", "null", "empty", "redirect", "rate", "204", "body",
]  # fmt: skip

T = TypeVar("T")

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)

# --- Dates ---------------------------------------------------------------------------------------

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# What JDK 11 to 21 print, standard and summer, where the zone database has numbers only.
_JAVA_NAMES = {
    "Australia/Eucla": ("ACWST", "ACWDT"),
    "Australia/Lord_Howe": ("LHST", "LHDT"),
    "Asia/Singapore": ("SGT", "SGT"),
    "Pacific/Chatham": ("CHAST", "CHADT"),
    "Pacific/Norfolk": ("NFT", "NFST"),
}
_OLD_NAMES = {10.0: "EST", 9.5: "CST", 8.0: "WST"}


def _zone_name(local: datetime, zone: ZoneInfo, dates: Dates) -> str:
    summer = local.dst() or timedelta()
    standard = ((local.utcoffset() or timedelta()) - summer) / _HOUR
    if dates == "old" and (zone.key or "").startswith("Australia/") and standard in _OLD_NAMES:
        return _OLD_NAMES[standard]
    name = local.tzname() or ""
    if dates != "gmt" and name[:1] not in {"", "+", "-"}:
        return name
    if dates != "gmt" and zone.key in _JAVA_NAMES:
        return _JAVA_NAMES[zone.key][bool(summer)]
    return f"GMT{local.isoformat()[-6:]}"


def _spell(moment: datetime, zone: ZoneInfo, dates: Dates) -> str:
    local = moment.astimezone(zone)
    if dates == "timestamp":
        return f"{local:%Y-%m-%d %H:%M:%S}.0"
    # Not %a and %b: those follow the locale, Java's names never do.
    day = f"{_WEEKDAYS[local.weekday()]} {_MONTHS[local.month - 1]} {local:%d %H:%M:%S}"
    return f"{day} {_zone_name(local, zone, dates)} {local.year}"


# --- Calls ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leg:
    """One leg of a call, as it really was: its times are aware and in UTC."""

    start: datetime
    callend: datetime
    call_record_id: str
    leg: int = 1
    unique_id: str = ""
    direction: str = "Inbound"
    source: str = "500"
    destination: str = "123"
    did: str = "7601"
    username: str = "NoojeeAdmin"
    tag: str = ""

    def record(self, zone: ZoneInfo, dates: Dates = "java") -> dict[str, str]:
        """Give what the API says of the leg when the PBX's clock is in `zone`."""
        return {
            "callend": _spell(self.callend, zone, dates),
            "CallRecordId": self.call_record_id,
            "DID": self.did,
            "Destination": self.destination,
            "Direction": self.direction,
            "Duration": str((self.callend - self.start) // timedelta(seconds=1)),
            "Leg": str(self.leg),
            "Source": self.source,
            "Start": _spell(self.start, zone, dates),
            "Tag": self.tag,
            "UniqueId": self.unique_id,
            "Username": self.username,
        }


Source = Callable[[datetime, datetime], Iterable[Leg]]

_SAMPLE_HOUR = datetime(2021, 9, 14, 5, tzinfo=UTC)  # 15:00 to 16:00 in Melbourne
# The legs of the vendor's documented example. The published page could not be read to its end: of
# the fourth only the duration and 15:10 are known, its UniqueId and its exact times are filled in.
_SAMPLE = tuple(
    Leg(
        start=_SAMPLE_HOUR + timedelta(seconds=started),
        callend=_SAMPLE_HOUR + timedelta(seconds=started + seconds),
        call_record_id=record_id,
        unique_id=unique_id,
    )
    for unique_id, record_id, started, seconds in (
        ("1631595787.5", "6468", 3 * 60 + 30, 4),
        ("1631595818.8", "6469", 3 * 60 + 47, 4),
        ("1631595839.11", "6470", 4 * 60 + 7, 15),
        ("1631596138.14", "6471", 9 * 60 + 6, 68),
    )
)

_STAFF = (
    ("201", "Priya Raman"),
    ("202", "Zoë Nguyễn"),
    ("203", "Seán O’Brien"),  # noqa: RUF001 - the apostrophe is how the name is written
    ("204", "Jack Mitchell"),
    ("205", "Mere Tūhoe"),
    ("206", "Åsa Lindqvist"),
    ("207", "李小龍"),
    ("208", "Grace Papadopoulos"),
)
_TAGS = ("complaint", "sales", "Rückruf", "call back, see #4711", *("",) * 36)
_DIRECTIONS = (*("Inbound",) * 6, *("Outbound",) * 3, "Internal")
_DIDS = ("7601", "7602", "0355501000", "1300555010")
_QUEUES = ("8001", "8002")
_PREFIXES = ("0355501", "0255502", "0755503", "0491570")
# Calls created in each hour of a weekday's local clock.
_RATES = (*(0.05,) * 6, 0.5, 3, 9, 19, 21, 18, 9, 12, 17, 15, 12, 6, 2, 1, *(0.2,) * 4)
_SATURDAY, _SUNDAY = 5, 6
_SATURDAY_HOURS = range(9, 13)
# In whole hours, more than a call can last: see the longest legs below.
_LONGEST_CALL = 2


def _rate(local: datetime) -> float:
    if local.weekday() == _SUNDAY:
        return 0
    if local.weekday() == _SATURDAY:
        return 3 if local.hour in _SATURDAY_HOURS else 0.02
    return _RATES[local.hour]


@lru_cache(maxsize=10_000)
def _created(hour: int, zone: ZoneInfo, volume: float) -> tuple[Leg, ...]:
    """Invent the legs of all calls created in one hour, counted in UTC from 1970.

    Each hour has its own seed, so it is the same whichever hours were asked before, and only
    `random()` is drawn from: of Random's methods, the one that is the same in every Python.
    """
    draw = Random(f"noojee {hour}").random  # noqa: S311 - invented calls, not secrets
    rate = _rate(datetime.fromtimestamp(hour * 3600, zone)) * volume
    count = int(rate * (0.8 + 0.4 * draw()) + draw())
    moments = sorted(hour * 3600 + int(draw() * 3600) for _ in range(count))
    return tuple(
        leg
        for number, moment in enumerate(moments, 1)
        for leg in _call(draw, moment, str(hour * 100_000 + number), f"{moment}.{number}")
    )


def _call(draw: Callable[[], float], moment: int, record_id: str, unique_id: str) -> Iterator[Leg]:
    def pick(choices: Sequence[T]) -> T:
        return choices[int(draw() * len(choices))]

    def talk(longest: int) -> int:
        return int(longest * draw() ** 2)  # mostly short

    number = f"{pick(_PREFIXES)}{pick(range(1000)):03}"
    extension, username = pick(_STAFF)
    tag = pick(_TAGS)
    direction = pick(_DIRECTIONS)
    # Each leg's destination, user name, tag and seconds.
    parts = [(number, username, tag, talk(1200))]
    source, did = extension, ""
    if direction == "Internal":
        parts = [(pick(_STAFF)[0], username, tag, talk(600))]
        did = "internal"
    elif direction == "Inbound":
        parts = [(pick(_QUEUES), "", "", talk(240))]
        if pick(range(8)):  # the others hang up in the queue
            parts.append((extension, username, tag, 5 + talk(1500)))
            transfers = pick((0, 0, 0, 1, 2, 3))
            parts += [(*pick(_STAFF), "", 5 + talk(900)) for _ in range(transfers)]
        source, did = number, pick(_DIDS)

    end = datetime.fromtimestamp(moment + pick(range(25)), UTC)
    for leg, (destination, name, note, seconds) in enumerate(parts, 1):
        start, end = end, end + timedelta(seconds=seconds)
        ids = (record_id, leg, unique_id)
        yield Leg(start, end, *ids, direction, source, destination, did, name, note)


def legs(start: datetime, end: datetime, *, zone: ZoneInfo, volume: float = 1.0) -> list[Leg]:
    """Tell the truth: every leg that ends from `start` until before `end`, in order of its end."""
    first = int(start.timestamp() // 3600) - _LONGEST_CALL
    hours = range(first, math.ceil(end.timestamp() / 3600))
    found = [leg for hour in hours for leg in _created(hour, zone, volume)]
    if zone.key == MELBOURNE and volume:
        found = [leg for leg in found if not _SAMPLE_HOUR <= leg.callend < _SAMPLE_HOUR + _HOUR]
        found += _SAMPLE
    found = [leg for leg in found if start <= leg.callend < end]
    return sorted(found, key=lambda leg: leg.callend)


# --- Answers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """Something to go wrong, `times` times (None: for ever), at one hour or (None) at any."""

    kind: Kind
    at: tuple[str, int] | None = None
    times: int | None = 1
    status: int | None = None
    retry_after: int | str | None = None
    body: bytes | None = None
    echo: bool = False
    delay: float = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `kind[=value][@2021-09-14T15][*times]`; a bare `*` is for ever."""
        form = r"([a-z0-9-]+)(?:=(.*?))?(?:@(\d{4}-\d\d-\d\d)T(\d\d?))?(?:\*(\d*))?"
        match = re.fullmatch(form, text)
        if not match or match[1] not in get_args(Kind):
            raise ValueError(text)
        kind, value, date, hour, times = match.groups()
        fault = cls(
            cast("Kind", kind),
            at=(date, int(hour)) if date else None,
            times=1 if times is None else int(times) if times else None,
        )
        match kind, value:
            case _, None:
                return fault
            case "status" | "rate", _:
                return replace(fault, status=int(value))
            case "slow", _:
                return replace(fault, delay=float(value))
            case "body", _:
                return replace(fault, body=value.encode())
        raise ValueError(text)


class Request(NamedTuple):
    """One request as it came; `status` is None where no answer was sent."""

    time: float
    date: str | None
    hour: int | None
    status: int | None
    fault: Kind | None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def _message(status: int, text: str) -> _Answer:
    return _Answer(status, json.dumps({"Code": -1, "Message": text}).encode())


def _phrase(status: int) -> str:
    with suppress(ValueError):
        return HTTPStatus(status).phrase
    return "Unknown"


def _page(status: int, extra: str = "", **headers: str) -> _Answer:
    title = f"HTTP Status {status} - {_phrase(status)}"
    html = f"<!doctype html><title>{title}</title><h1>{title}</h1>{extra}".encode()
    return _Answer(status, html, "text/html;charset=utf-8", headers)


def _wall_hour(query: Mapping[str, str]) -> datetime | None:
    """Read the question; the hour is on a wall clock, so it has no zone."""
    text = f"{query.get('date')} {query.get('hour')}"
    match = re.fullmatch(r"(\d{4})/(\d\d)/(\d\d) (\d\d?)", text, re.ASCII)
    # In the last year the arithmetic below could leave datetime's range.
    if match and 1970 <= int(match[1]) < MAXYEAR:  # noqa: PLR2004 - calls are counted from there
        with suppress(ValueError):
            return datetime(*map(int, match.groups()))  # type: ignore[arg-type] # noqa: DTZ001 - see above
    return None


def _exists(wall: datetime, zone: ZoneInfo) -> bool:
    """Tell whether the clock shows any of an hour; zones move by quarters of one at the finest."""
    quarters = (wall.replace(minute=minute, tzinfo=zone) for minute in (0, 15, 30, 45))
    return any(
        quarter.astimezone(UTC).astimezone(zone).replace(tzinfo=None)
        == quarter.replace(tzinfo=None)
        for quarter in quarters
    )


# --- The server ----------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class Simulator:
    """A PBX on a loopback port, for as long as the `with` block lasts.

    `interval` 0 is no limit. `fold` and `gap` say what a repeated and a skipped hour answer with;
    the real server's way is not known. `legs` stands in for the invented calls. Faults are served
    in order, each to the first request that fits; more may be added at any time.
    """

    timezone: str = MELBOURNE
    api_key: str = API_KEY
    interval: float = 0
    rate_limit_status: int = 429
    fold: Fold = "both"
    gap: Gap = "empty"
    dates: Dates = "java"
    volume: float = 1.0
    legs: Sequence[Leg] | Source | None = None
    latency: float = 0
    faults: list[Fault] = field(default_factory=list)
    port: int = 0
    url: str = field(init=False, default="")
    requests: list[Request] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Resolve the zone, so that a wrong one is told at once."""
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

        sockets, stopping = self._sockets, self._stopping

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

            def log(self, *_: object) -> None:
                """Say nothing: the request line holds the key."""

        self._server = make_server(
            "127.0.0.1", self.port, self._serve, threaded=True, request_handler=Handler
        )
        # Threads that are not daemons are waited for when the server closes, so that none is left.
        self._server.daemon_threads = False  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
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
        wall = _wall_hour(query)
        with self._lock:
            answer = self._refusal(environ, query, wall, arrived)
            date, hour = (f"{wall:%Y-%m-%d}", wall.hour) if wall else (None, None)
            fault = None if answer else self._fault((date, hour))
            kind = fault.kind if fault else None
            if fault:
                answer = self._wrong(fault, environ)
            status = None if kind in {"reset", "stall"} else answer.status if answer else 200
            self.requests.append(Request(arrived, date, hour, status, kind))
        self._pause(self.latency)
        if fault and kind == "slow":
            self._pause(fault.delay)
        if answer is None:
            found = self._ended(cast("datetime", wall))
            records = [leg.record(self._zone, self.dates) for leg in found]
            answer = _Answer(200, json.dumps(records, ensure_ascii=False).encode())
        return self._send(answer, kind, environ["werkzeug.socket"], start_response)

    def _refusal(
        self,
        environ: WSGIEnvironment,
        query: Mapping[str, str],
        wall: datetime | None,
        arrived: float,
    ) -> _Answer | None:
        if environ["PATH_INFO"] not in {f"{base}/retrieveMetaDataByHour" for base in BASES}:
            return _page(404)
        if environ["REQUEST_METHOD"] != "POST":
            return _page(405, Allow="POST")
        if query.get("apiKey") != self.api_key:
            return _message(403, "unknown API key")
        if wall is None:
            return _message(400, "date must be yyyy/MM/dd and hour 0 to 23")
        if self._counted is not None and arrived - self._counted < self.interval:
            return _message(self.rate_limit_status, TOO_SOON)
        self._counted = arrived
        return None

    def _fault(self, asked: tuple[str | None, int | None]) -> Fault | None:
        for number, fault in enumerate(self.faults):
            left = fault.times is None or self._used[number] < fault.times
            if left and fault.at in {None, asked}:
                self._used[number] += 1
                return fault
        return None

    def _wrong(self, fault: Fault, environ: WSGIEnvironment) -> _Answer | None:
        """Give the wrong answer, or None where the right one goes wrong on its way."""
        query = environ["QUERY_STRING"]
        url = f"{self.url}{environ['PATH_INFO']}?{query}"
        error = _page(fault.status or 503, f"<p>{url}</p>" if fault.echo else "")
        if fault.body is not None:
            error = replace(error, body=fault.body + (url.encode() if fault.echo else b""))
        if fault.retry_after is not None:
            error = replace(error, headers={"Retry-After": str(fault.retry_after)})
        soon = _message(fault.status or self.rate_limit_status, TOO_SOON)
        return {
            "status": error,
            "html": _page(200, "<form action='login'>Please log in</form>"),
            "code": _message(200, "the recording service is not available"),
            "null": _Answer(200, b"null"),
            "empty": _Answer(200),
            "redirect": _Answer(302, headers={"Location": f"{self.url}/login?{query}"}),
            "rate": replace(soon, headers=error.headers),
            "204": _Answer(204),
            "body": _Answer(200, fault.body or b""),
        }.get(fault.kind)

    def _ended(self, wall: datetime) -> list[Leg]:
        zone = self._zone
        while self.gap == "next" and not _exists(wall, zone):
            wall += _HOUR
        around = wall.replace(tzinfo=UTC)
        nearby = ((around + day).astimezone(zone) for day in (-_DAY, _DAY))
        offsets = [local.utcoffset() or timedelta() for local in nearby]
        found = self._legs(around - max(offsets), around - min(offsets) + _HOUR)
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
        answer: _Answer,
        kind: Kind | None,
        connection: socket.socket,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
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
            head = (
                "HTTP/1.1 200 OK",
                "Content-Type: application/json",
                "Connection: close",
                "\r\n",
            )
            # By hand: the server would send it in chunks.
            connection.sendall("\r\n".join(head).encode() + half)
            _drop()
        headers = [("Content-Type", answer.content_type), *answer.headers.items()]
        if kind != "endless" and answer.status != HTTPStatus.NO_CONTENT:
            headers.append(("Content-Length", str(len(answer.body))))
        start_response(f"{answer.status} {_phrase(answer.status)}", headers)
        if kind == "endless":
            return self._endless()
        if kind == "trickle":
            return self._trickle(answer.body)
        return [half if kind == "cut" else answer.body]

    def _endless(self) -> Iterator[bytes]:
        record = json.dumps(_SAMPLE[0].record(self._zone, self.dates)).encode()
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


# --- The command line ----------------------------------------------------------------------------

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _wrapped_environment(simulator: Simulator, day: datetime) -> dict[str, str]:
    env = dict(os.environ)
    env |= {
        "TAP_NOOJEE_API_URL": simulator.url,
        "TAP_NOOJEE_API_KEY": simulator.api_key,
        "TAP_NOOJEE_TIMEZONE": simulator.timezone,
        "TAP_NOOJEE_REQUEST_INTERVAL": str(math.ceil(simulator.interval)),
    }
    if "TAP_NOOJEE_START_DATE" not in env:
        env["TAP_NOOJEE_START_DATE"] = f"{day:%Y-%m-%d}"
        env["TAP_NOOJEE_END_DATE"] = f"{day + _DAY:%Y-%m-%d}"
    # Clients differ in which spelling they read first: set both, and lose no host of either.
    for name, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        hosts = os.environ.get(name) or os.environ.get(other)
        env[name] = ",".join(filter(None, [hosts, "127.0.0.1,localhost"]))
    return env


def _reaches_all() -> bool:
    """Tell whether a Ctrl-C goes to the wrapped command, too, as part of the foreground group."""
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False


def _run(command: tuple[str, ...], env: dict[str, str]) -> int:
    """Run the command, hand on signals, and give its exit status as a shell would."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def hand_on(number: int, _: object) -> None:
        # A second SIGINT would be taken for impatience.
        if number == signal.SIGINT and _reaches_all():
            return
        (child.send_signal if child else early.append)(number)

    before = {number: signal.signal(number, hand_on) for number in _SIGNALS}
    try:
        child = subprocess.Popen(command, env=env)  # noqa: S603 - what the user asked for
        for number in early:
            child.send_signal(number)
        status = child.wait()
    except OSError as error:
        click.echo(f"noojee-simulator: {command[0]}: {error.strerror}", err=True)
        return 127 if isinstance(error, FileNotFoundError) else 126
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def _read_zone(_: object, __: object, name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError) as error:
        message = f"{name!r} is not an IANA zone"
        raise click.BadParameter(message) from error


@click.command(context_settings={"allow_interspersed_args": False, "show_default": True})
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: a free one.")
@click.option("--timezone", default=MELBOURNE, callback=_read_zone, help="The PBX's own zone.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0),
    show_default="60; with a COMMAND 1",
    help="Least seconds between two requests.",
)
@click.option("--api-key", default=API_KEY, help="The key to ask for.")
@click.option(
    "--dates", type=click.Choice(get_args(Dates)), default="java", help="Their spelling."
)
@click.option(
    "--fold", type=click.Choice(get_args(Fold)), default="both", help="Of a repeated hour."
)
@click.option("--volume", type=click.FloatRange(min=0), default=1.0, help="0: no calls at all.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    type=Fault.parse,
    metavar="KIND[=VALUE][@HOUR][*TIMES]",
    help="Go wrong, for example: reset, status=503@2021-09-14T15, slow=5*3; a bare * is for ever."
    f" Kinds: {', '.join(get_args(Kind))}.",
)
@click.option(
    "--day",
    type=click.DateTime(["%Y-%m-%d"]),
    default="2021-09-14",
    help="What the COMMAND is to read, unless TAP_NOOJEE_START_DATE is set.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def main(
    command: tuple[str, ...],
    day: datetime,
    interval: float | None,
    **options: Any,  # noqa: ANN401 - Simulator's own, checked by the options above
) -> None:
    """Play a Noojee Contact PBX with invented calls, on this machine only.

    With a COMMAND (best after a --), run it with tap-noojee's settings for this PBX in its
    environment, and end as it ends.
    """
    if find_spec("werkzeug") is None:
        needs = "noojee-simulator needs its extra: pip install 'tap-noojee[simulator]'"
        click.echo(needs, err=True)
        sys.exit(1)
    if interval is None:
        interval = 1 if command else 60
    if not command:
        # Before the first thread starts, so that all inherit it and only sigwait gets them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    status = 0
    with Simulator(interval=interval, **options) as pbx:
        if command:
            status = _run(command, _wrapped_environment(pbx, day))
        else:
            ready = f"{pbx.url} with the key {pbx.api_key}; Ctrl-C stops it"
            click.echo(f"noojee-simulator: {ready}", err=True)
            signal.sigwait(_SIGNALS)
    faulty = sum(request.fault is not None for request in pbx.requests)
    served = sum(request.status == HTTPStatus.OK and not request.fault for request in pbx.requests)
    rejected = len(pbx.requests) - served - faulty
    counts = f"{served} requests served, {rejected} rejected, {faulty} with a fault"
    click.echo(f"noojee-simulator: {counts}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
