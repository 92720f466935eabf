"""The API key is in no output: each failure, in each format of the log, at its most talkative."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import html
import json
import os
import re
import signal
import socket
import socketserver
import struct
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote

import pytest
from processes import Process, environment, until
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

UUID = "5f0c7a52-1c1e-4d6a-9f3b-6a1d2e8b7c90"
ODD = "k3y/wxyh+o0d=chqrs&m9rz%20"
"""A key whose every other character has to be encoded in a URL or a page."""

KEYS = {"uuid": UUID, "odd": ODD}

LOGS: dict[str, dict[str, str]] = {
    "uuid": {"TAP_NOOJEE_LOGLEVEL": "DEBUG"},
    "odd": {"SINGER_SDK_LOG_CONFIG": "structured-DEBUG.yaml", "LOGLEVEL": "DEBUG"},
}
"""The log of the runs with each key."""

LOG_CONFIG = """
version: 1
disable_existing_loggers: false
formatters: {structured: {(): singer_sdk.logging.StructuredFormatter}}
handlers: {stderr: {class: logging.StreamHandler, formatter: structured}}
root: {level: DEBUG, handlers: [stderr]}
"""

POOL = 6
"""Runs at a time, besides those that only wait."""

HANG = b"hang"
RESET = b"reset"


def http(body: str = "", status: str = "200 OK", *headers: str) -> bytes:
    """Make an answer."""
    content = body.encode()
    length = f"Content-Length: {len(content)}"
    head = (f"HTTP/1.1 {status}", length, "Connection: close", *headers, "\r\n")
    return "\r\n".join(head).encode() + content


def message(text: Any, status: str = "500 x", code: Any = -1) -> bytes:
    """Make a status as the vendor's API does."""
    return http(json.dumps({"Code": code, "Message": text}), status)


def leg(**changes: Any) -> bytes:
    """Make an answer of two legs, the second with changes."""
    good = {
        "callend": "Tue Sep 14 15:03:34 AEST 2021",
        "CallRecordId": "6468",
        "Duration": "4",
        "Leg": "1",
        "Start": "Tue Sep 14 15:03:30 AEST 2021",
    }
    return http(json.dumps([good, good | {"Leg": "2"} | changes]))


def lower_hex(text: str) -> str:
    """Encode for a URL, as some servers do."""
    return re.sub("%..", lambda match: match[0].lower(), quote(text, safe=""))


def b64(text: str, altchars: bytes = b"+/") -> str:
    """Encode as some servers do a header."""
    return base64.b64encode(text.encode(), altchars).decode()


def page(text: str) -> str:
    """Show a text on a page."""
    return f"<html><form action='{text}'>{text}</form></html>"


@dataclasses.dataclass(frozen=True)
class Case:
    """What goes wrong in a run, or right."""

    expected: str
    """What is in the output if it happened."""
    answer: Callable[[str, str], bytes] | None = None
    """What the server answers; it knows the key, and the request's target."""
    status: int = 1
    config: Callable[[str], Any] = lambda _key: {}
    """Changes to the settings; anything but a dictionary replaces the file."""
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    arguments: tuple[str, ...] = ("--config", "CONFIG")
    stdout: str = "file"
    stop: str = ""
    """The signal is sent when this is in the log, or when the request has come."""
    waits: bool = False
    """Whether the run mostly waits."""


def refused(text: Callable[[str, str], Any], status: str = "500 x") -> Case:
    """Let the server refuse the call in words of its own."""
    number = status.partition(" ")[0]
    return Case(f"(not shown: a part of the API key is in it)|status {number}",
                lambda key, target: message(text(key, target), status))  # fmt: skip


def odd(name: str, change: Callable[[str], Any]) -> Case:
    """Let one field of a record be odd."""
    return Case(f"record 2: {name}: ", lambda key, _: leg(**{name: change(key)}))


def setting(expected: str, config: Callable[[str], Any]) -> Case:
    """Let a setting be bad."""
    return Case(expected, config=config)


def key_as(name: str, **more: Any) -> Callable[[str], Any]:
    """Give the key for another setting."""
    return lambda key: {name: key, **more}


IN_A_MAP = "stream_maps: has the API key in it"


def key_in_map(name: str, expression: str) -> Callable[[str], Any]:
    """Give the key in a stream map's expression."""
    return lambda key: {"stream_maps": {"recordings": {name: expression.format(key)}}}


SETTINGS = [
    *("timezone", "start_date", "end_date", "backfill_order", "request_interval"),
    *("settle_minutes", "lookback_hours", "max_hours_per_run", "request_timeout"),
]

ECHOED = "(not shown: a part of the API key is in it)"
BROKEN_OFF = "the connection broke off"
ADDRESS = "give the address of the PBX"
JAVA = "Tue Sep 14 15:03:34 {} 2021"

CASES: dict[str, Case] = {
    # No connection.
    "refused connection": Case(
        "no connection: Connection refused", config=lambda _: {"api_url": "http://127.0.0.1:9"}
    ),
    "unknown host": Case(
        "no connection: ", config=lambda _: {"api_url": "https://no-such-host.invalid"}, waits=True
    ),
    "connection times out": Case(
        "no connection within 10 s",
        status=128 + signal.SIGTERM,
        config=lambda _: {"api_url": "http://FULL"},
        stop="asking again",
        waits=True,
    ),
    "no TLS": Case("no connection: ", config=lambda _: {"api_url": "https://SERVER/jobJOB"}),
    "proxy refuses connection": Case(
        "the proxy does not connect",
        config=lambda _: {"api_url": "https://pbx.example.com"},
        env={"HTTPS_PROXY": "http://127.0.0.1:9"},
    ),
    "proxy refuses tunnel": Case(
        "the proxy does not connect",
        config=lambda _: {"api_url": "https://pbx.example.com"},
        env={"HTTPS_PROXY": "http://SERVER"},
    ),
    "proxy for plain http": Case(
        "no connection: Connection refused",
        config=lambda _: {"api_url": "http://127.0.0.1:9/jobJOB"},
        env={"HTTP_PROXY": "http://SERVER"},
    ),
    "proxy with a password": Case(
        "the proxy does not connect|check HTTPS_PROXY",
        config=lambda _: {"api_url": "https://pbx.example.com"},
        env={"HTTPS_PROXY": "http://me:KEY@127.0.0.1:9"},
    ),
    "proxy with a password refuses tunnel": Case(
        "the proxy does not connect",
        config=lambda _: {"api_url": "https://pbx.example.com"},
        env={"HTTPS_PROXY": "http://KEY@SERVER"},
    ),
    "proxy of an unknown kind": Case(
        "check HTTPS_PROXY",
        config=lambda _: {"api_url": "https://pbx.example.com"},
        env={"HTTPS_PROXY": "socks9://127.0.0.1:9"},
    ),
    # No whole answer.
    "read times out": Case(
        "no complete response within 1 s",
        lambda _key, _target: HANG,
        config=lambda _: {"request_timeout": 1},
        waits=True,
    ),
    "reset": Case(BROKEN_OFF, lambda _key, _target: RESET),
    "nothing": Case(BROKEN_OFF, lambda _key, _target: b""),
    "cut": Case(BROKEN_OFF, lambda key, _: http(f'["{key}"')[:-9]),
    "cut JSON": Case("cut short", lambda key, _: http(f'["{key}"')),
    "garbled status line": Case(BROKEN_OFF, lambda key, _: f"{key}\r\n\r\n".encode()),
    "garbled header": Case(
        "status 500", lambda key, _: http("", "500 x", f"no colon {key}", "X-Key: " + key)
    ),
    "garbled chunk": Case(
        BROKEN_OFF,
        lambda key, _: f"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n{key}\r\n".encode(),
    ),
    "garbled compression": Case(
        BROKEN_OFF, lambda key, _: http(key, "200 x", "Content-Encoding: gzip")
    ),
    "garbled length": Case(
        BROKEN_OFF, lambda key, _: http("", "200 x", f"Content-Length: {len(key)}")
    ),
    # Refusals, with what was requested in them.
    **{
        f"status {status}": refused(lambda _, target: f"POST {target}", f"{status} x")
        for status in (400, 401, 403, 404, 405, 429, 500, 503)
    },
    "the key": refused(lambda key, _: key),
    "the key encoded": refused(lambda key, _: quote(key, safe="")),
    "the key encoded twice": refused(lambda key, _: quote(quote(key, safe=""), safe="")),
    "the key encoded as in a form": refused(lambda key, _: quote_plus(key)),
    "the key in lower hex": refused(lambda key, _: lower_hex(key)),
    "the key in upper case": refused(lambda key, _: key[:8].upper()),
    "the key escaped for HTML": refused(lambda key, _: html.escape(key)),
    "the key in HTML numbers": refused(lambda key, _: "".join(f"&#{ord(c)};" for c in key)),
    "the key in URL numbers": refused(lambda key, _: "".join(f"%{ord(c):02x}" for c in key)),
    "the key's first characters": refused(lambda key, _: f"key {key[:4]}... is unknown"),
    "the key's last characters": refused(lambda key, _: f"key ...{key[-4:]} is unknown"),
    "the key in the middle of much": refused(lambda key, _: "x" * 190 + key + "x" * 9000),
    "the key in an object": refused(lambda key, target: {"url": [target, {key: key}]}),
    "the key as Code": Case(ECHOED, lambda key, _: message("no", code=key)),
    "rate limit": Case(ECHOED, lambda key, _: message(f"wait a bit and retry {key}", "400 x")),
    "message with 200": Case(ECHOED, lambda key, _: message(f"{key} is not known", "200 OK")),
    "page with 500": Case("status 500", lambda _, target: http(page(target), "500 x")),
    "login page": Case("a web page", lambda _, target: http(page(html.escape(target)))),
    "the key in base64": refused(lambda key, _: b64(key)),
    "the key in base64, shifted": refused(lambda key, _: b64(f"x{key}")),
    "the key in base64, shifted by two": refused(lambda key, _: b64(f"xy{key}")),
    "the key in base64 for URLs": refused(lambda key, _: b64(f"?>~{key}", b"-_")),
    "a part of the key in base64": refused(lambda key, _: b64(key[5:14])),
    "page with the key in base64": Case(
        "status 500", lambda key, _: http(page(b64(key)), "500 x")
    ),
    "the key in base64, refused": refused(lambda key, _: {"key": [b64(f"xy{key}")]}, "403 x"),
    "a text": Case("something else", lambda key, _: http(json.dumps(key))),
    "reason phrase": Case("status 500", lambda key, _: http("", f"500 {key}")),
    "headers": Case(
        "status 500",
        lambda key, _: http("", "500 x", f"Retry-After: {key}", f"Set-Cookie: key={key}"),
    ),
    "redirect": Case(
        "redirects to", lambda _, target: http("", "302 x", f"Location: https://a.b{target}")
    ),
    "a header without a colon": Case(
        "2 legs",
        lambda key, target: leg().replace(b"\r\n", f"\r\nX {target} {key}\r\n".encode(), 1),
        status=0,
    ),
    "redirect to a host": Case(
        "redirects to", lambda key, _: http("", "302 x", f"Location: https://{key}.example.com/")
    ),
    "redirect to a host in base64": Case(
        "redirects to",
        lambda key, _: http("", "302 x", f"Location: https://{b64(key, b'-_')}.example.com/"),
    ),
    "redirect for a user": Case(
        "redirects to",
        lambda key, _: http("", "307 x", f"Location: https://{quote(key, safe='')}@example.com"),
    ),
    # Records that cannot be read.
    "odd Duration": odd("Duration", lambda key: key),
    "odd Duration encoded": odd("Duration", lambda key: f"4 {quote(key, safe='')}"),
    "odd Leg": odd("Leg", lambda key: [key]),
    "odd id": odd("CallRecordId", lambda key: {"key": {key: None}}),
    "long id": odd("CallRecordId", lambda key: key * 20),
    "odd Duration in base64": odd("Duration", b64),
    "odd id in base64": odd("CallRecordId", lambda key: {b64(f"x{key}"): b64(key, b"-_")}),
    "odd name": odd("Username", lambda key: [1, key]),
    "odd callend": odd("callend", lambda key: key),
    "odd Start": odd("Start", lambda key: JAVA.format("AEST") + key),
    "odd zone": odd("callend", JAVA.format),
    "odd part of a zone": odd("Start", lambda key: JAVA.format(key[:8].replace("/", "-"))),
    "odd record": Case("record 1: is not an object", lambda key, _: http(json.dumps([key]))),
    # Settings.
    "key in the address's query": setting(
        ADDRESS, lambda key: {"api_url": f"https://pbx.example.com/?apiKey={quote(key, safe='')}"}
    ),
    "key as the address's user": setting(
        ADDRESS, lambda key: {"api_url": f"https://{quote(key, safe='')}@pbx.example.com"}
    ),
    "key as address": setting(ADDRESS, lambda key: {"api_url": key}),
    "key in an address with http": setting(
        ADDRESS, lambda key: {"api_url": f"http://pbx.example.com/{key}"}
    ),
    "key as the address's port": setting(
        ADDRESS, lambda key: {"api_url": f"https://pbx.example.com:{key}"}
    ),
    "list for a key": setting("api_key: is not a string", lambda key: {"api_key": [key]}),
    "object for a key": setting("api_key: is not a string", lambda key: {"api_key": {key: key}}),
    "white space after the key": setting(
        "api_key: has white space", lambda key: {"api_key": key + "\n"}
    ),
    "another bad setting": setting("timezone: ", lambda _: {"timezone": "Mars"}),
    "broken config": setting("is not a file with a JSON", lambda key: f'{{"api_key": "{key}",}}'),
    "config of a list": Case("what was given is", config=lambda key: json.dumps(["api_key", key])),
    "config of a text": Case("what was given is", config=json.dumps),
    **{f"key as {name}": setting(f"{name}: ", key_as(name)) for name in SETTINGS},
    **{
        f"key as {name} alone": setting(f"{name}: ", key_as(name, api_key=None))
        for name in SETTINGS
    },
    "key and more as user_agent": setting("user_agent: ", lambda key: {"user_agent": f"{key}\n"}),
    "key as a setting of the SDK": setting(
        "(not shown", lambda key: {"flattening_max_depth": key}
    ),
    "key as a setting of the SDK alone": setting(
        "api_key: is missing", lambda key: {"flattening_max_depth": key, "api_key": None}
    ),
    "key as stream maps": setting(IN_A_MAP, key_as("stream_maps")),
    "key in a stream map that cannot be parsed": setting(IN_A_MAP, key_in_map("x", "'{}")),
    "key in a stream map that fails": setting(IN_A_MAP, key_in_map("x", "1/0 if '{}' else 1")),
    "key in a filter": setting(IN_A_MAP, key_in_map("__filter__", "Username != '{}'")),
    "a key alone": Case("api_url: is missing", config=lambda key: f'{{"api_key": "{key}"}}'),
    "bad number in the environment": Case(
        "request_interval: ",
        arguments=("--config", "ENV"),
        env={"TAP_NOOJEE_API_KEY": "KEY", "TAP_NOOJEE_REQUEST_INTERVAL": "soon"},
    ),
    # Runs that go well.
    "a field's name": Case(
        "the schema does not have, and that are left out: (not shown:",
        lambda key, _: leg(**{key: ""}),
        status=0,
    ),
    "success": Case("2 legs", lambda _key, _target: leg(), status=0),
    "--test": Case(
        "the connection works",
        lambda _key, _target: leg(),
        status=0,
        arguments=("--config", "CONFIG", "--test"),
    ),
    "--test refused": Case(
        ECHOED,
        lambda key, _: message(key, "403 x"),
        arguments=("--config", "CONFIG", "--test"),
    ),
    "--about": Case(
        "request_interval",
        status=0,
        arguments=("--config", "CONFIG", "--about"),
        env={"TAP_NOOJEE_API_KEY": "KEY"},
    ),
    "--about in JSON": Case(
        "request_interval",
        status=0,
        arguments=("--config", "CONFIG", "--about", "--format", "json"),
        env={"TAP_NOOJEE_API_KEY": "KEY"},
    ),
    "--discover": Case("CallRecordId", status=0, arguments=("--config", "CONFIG", "--discover")),
    # Ends of another kind.
    "stopped amid a call": Case(
        "Stopped",
        lambda _key, _target: HANG,
        status=128 + signal.SIGTERM,
        stop="request",
        waits=True,
    ),
    "no stdout": Case("", stdout="none"),
    "nobody reads": Case("cannot write to the target", stdout="broken"),
    "a stream map that crashes": Case(
        "stream_maps: recordings: '1/0' fails: ZeroDivisionError",
        lambda _key, _target: leg(),
        config=lambda _: {"stream_maps": {"recordings": {"x": "1/0"}}},
    ),
    "a stream map that fails on a record with the key": Case(
        "stream_maps: recordings: ",
        lambda key, _: leg(Username=key),
        config=lambda _: {"stream_maps": {"recordings": {"x": "int(Username or 0)"}}},
    ),
    "settings for a catalog": Case(
        "Skipping deselected", status=0, arguments=("--config", "CONFIG", "--catalog", "CONFIG")
    ),
    "settings for a state": Case(
        "state: has no `bookmarks`", arguments=("--config", "CONFIG", "--state", "CONFIG")
    ),
    "settings on the command line": Case(
        "config: the file does not exist", arguments=("--config", '{"api_key": "KEY"}')
    ),
    "a setting on the command line": Case(
        "config: the file does not exist", arguments=("--config", "api_key=KEY")
    ),
    "the key for a file": Case("config: ", arguments=("--config", "KEY")),
    "the key as an argument": Case(
        "an argument cannot be used", arguments=("--config", "CONFIG", "KEY")
    ),
    "the key as an option": Case(
        "an argument cannot be used", arguments=("--config", "CONFIG", "--KEY")
    ),
    "the key as an option's value": Case(
        "command line: ", arguments=("--config", "CONFIG", "--format", "KEY")
    ),
    "the key for a state": Case(
        "--state: what was given cannot be used",
        arguments=("--config", "CONFIG", "--state", '{"key": "KEY"}'),
    ),
    "the key for a catalog": Case(
        "--catalog: what was given cannot be used",
        arguments=("--config", "CONFIG", "--catalog", "KEY"),
    ),
    "a state with the key": Case(
        "state: the bookmark",
        arguments=("--config", "CONFIG", "--state", "STATE"),
    ),
}  # fmt: skip
"""By name. Of words with a | between, one is enough."""


def traces(key: str) -> set[str]:
    """Give what must not be seen, in lower case: the key and its pieces, in any encoding."""
    forms = {
        key,
        quote(key, safe=""),
        quote(key),
        quote_plus(key),
        html.escape(key),
        json.dumps(key)[1:-1],
    }
    groups = {group for group in re.split(r"[^0-9A-Za-z]", key) if len(group) >= 4}
    windows = {form[i : i + 6] for form in forms for i in range(len(form) - 5)}
    return {piece.lower() for piece in forms | groups | windows | {key[:4], key[-4:]}}


def seen(text: str, key: str) -> list[str]:
    """Tell the lines of a text in which there is anything of the key."""
    found = traces(key)
    return [
        line
        for line in text.splitlines()
        for forms in [f"{line}\n{unquote(line)}\n{html.unescape(line)}".lower()]
        if any(trace in forms for trace in found)
    ]


# --- The runs --------------------------------------------------------------------------------


@dataclasses.dataclass
class Done:
    """What became of a run."""

    key: str
    status: int
    text: str
    """All output."""
    sent: list[str]
    """The keys that came with its requests."""


class Server(socketserver.ThreadingTCPServer):
    """Answers the requests of each job as its case says."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        """Listen on a port of its own."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.answers: dict[int, Callable[[str], bytes]] = {}
        self.sent: dict[int, list[str]] = {}
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.words = {"SERVER": self.address}
        """What the words in capitals stand for, in settings and environments."""


class Handler(socketserver.BaseRequestHandler):
    """Answers one request."""

    @override
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        connection: socket.socket = self.request
        head = connection.recv(65536)
        match = re.match(rb"POST (\S*/job([0-9]+)/\S*) ", head)
        if not match:  # the beginning of TLS, or CONNECT
            connection.sendall(http("no", "403 x"))
            return
        target, job = match[1].decode(), int(match[2])
        sent = re.search("[?&]apiKey=([^&]*)", target)
        server.sent[job].append(unquote(sent[1]) if sent else "")
        answer = server.answers[job](target)
        if answer == HANG:
            while connection.recv(4096):
                pass
        elif answer == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Closed for good: the server would say a proper goodbye first.
            os.close(connection.detach())
        else:
            connection.sendall(answer)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Done]]:
    """Do all runs: each case with each key and each kind of log."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "structured-DEBUG.yaml").write_text(LOG_CONFIG)
    plans = [(name, key) for name in CASES for key in KEYS]
    # One place in the queue is taken, and none is ever left: further connections have to wait.
    with Server(folder) as server, socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())
        server.words["FULL"] = f"127.0.0.1:{full.getsockname()[1]}"
        with _serving(server), ThreadPoolExecutor() as pool, ThreadPoolExecutor(99) as waiting:
            done = [
                (waiting if CASES[name].waits else pool).submit(_run, server, number, name, key)
                for number, (name, key) in enumerate(plans)
            ]
    found: dict[str, list[Done]] = {name: [] for name in CASES}
    for (name, _), future in zip(plans, done, strict=True):
        found[name].append(future.result())
    return found


def _run(server: Server, number: int, name: str, key: str) -> Done:
    """Run the tap as a case says."""
    case = CASES[name]
    words = {
        **server.words,
        "CONFIG": f"{number}.json",
        "STATE": f"{number}.state.json",
        "JOB": str(number),
        "KEY": KEYS[key],
    }

    def fill(text: str) -> str:
        for word, value in words.items():
            text = text.replace(word, value)
        return text

    server.sent[number] = []
    if answer := case.answer:
        server.answers[number] = lambda target: answer(KEYS[key], target)
    config = case.config(KEYS[key])
    if isinstance(config, dict):
        good = {
            "api_url": f"http://{server.address}/job{number}",
            "api_key": KEYS[key],
            "start_date": "2021-09-14T15:00",
            "end_date": "2021-09-14T16:00",
            "request_interval": 0,
            "request_timeout": 60,
        }
        config = json.dumps(good | config)
    (server.folder / words["CONFIG"]).write_text(fill(config))
    state = {"bookmarks": {"recordings": {"replication_key_value": KEYS[key]}}}
    (server.folder / words["STATE"]).write_text(json.dumps(state))
    plain = {
        n: v
        for n, v in environment().items()
        if not n.startswith("SINGER_") and not n.lower().endswith("_proxy")
    }
    process = Process(
        map(fill, case.arguments),
        env=plain | {n: fill(v) for n, v in {**case.env, **LOGS[key]}.items()},
        cwd=server.folder,
        stdout=None if case.stdout == "none" else subprocess.PIPE,
    )
    if process.stdout and case.stdout == "broken":
        process.stdout.close()
        process.stdout = None
    if case.stop:
        until(lambda: server.sent[number] if case.stop == "request" else case.stop in process.log)
        process.send_signal(signal.SIGTERM)
    run, _ = process.end()
    return Done(KEYS[key], process.status, run.output + process.log, server.sent[number])


@contextlib.contextmanager
def _serving(server: Server) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", CASES)
def test_each_case_is_what_its_name_says(runs: dict[str, list[Done]], name: str) -> None:
    """A run ends as its case says, and the key was really sent."""
    case = CASES[name]
    for done in runs[name]:
        assert done.status == case.status, done.text
        assert any(expected in done.text for expected in case.expected.split("|")), done.text
        assert set(done.sent) == ({done.key} if case.answer else set())


@pytest.mark.parametrize("name", CASES)
def test_no_piece_of_the_key_is_in_any_output(runs: dict[str, list[Done]], name: str) -> None:
    """Whatever happens, neither the key nor a piece that tells of it is in any output."""
    for done in runs[name]:
        assert seen(done.text, done.key) == []


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_the_key_would_be_seen_in_any_encoding(key: str) -> None:
    """The search finds the key whole, encoded, escaped or in part, and nothing in other text."""
    encodings = [key, quote(key), quote(key, safe=""), quote_plus(key), lower_hex(key)]
    encodings += [html.escape(key), key.upper(), key[:4], key[-4:], key[5:11], repr(key)]
    encodings += ["".join(f"&#{ord(c)};" for c in key), "".join(f"%{ord(c):x}" for c in key)]
    for encoding in encodings:
        assert seen(f"one\n{encoding}\nthree", key) == [encoding]
    assert seen(http(page("apiKey=***")).decode(), key) == []
