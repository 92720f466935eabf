"""The API key appears in no output, whatever fails and however much is logged."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote

import pytest
import requests
from conftest import run_tap, settings
from servers import OK, serving
from singer_sdk.logging import StructuredFormatter

from tap_noojee.redaction import REDACTED, KeyAdapter, contains_key, safe_excerpt
from tap_noojee.simulator import Simulator
from tap_noojee.tap import TapNoojee

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

UUID = "5f0c7a52-1c1e-4d6a-9f3b-6a1d2e8b7c90"
ODD = "k3y/wxyh+o0d=chqrs&m9rz%20"
"""A key with characters that URLs and pages encode."""

HOUR: dict[str, Any] = {"start_date": "2021-09-14T15:00", "end_date": "2021-09-14T16:00"}


def leaks(text: str, key: str) -> list[str]:
    """The lines with eight characters in a row of the key, plain or percent-encoded."""
    parts = {key[i : i + 8].lower() for i in range(len(key) - 7)}
    forms = ((line, f"{line}\n{unquote(line)}\n{unquote(unquote(line))}".lower())
             for line in text.splitlines())  # fmt: skip
    return [line for line, form in forms if any(part in form for part in parts)]


# --- Excerpts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "excerpt"),
    [
        ("as it came", "as it came"),
        ("one\ntwo\x00three\u2028", "one two three "),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 200 + "…"),
        ("x" * 200 + UUID, "x" * 200 + "…"),
        ("x" * 193 + UUID, "x" * 193 + UUID[:7] + "…"),
        ("x" * 192 + UUID, REDACTED),
        ("", ""),
        (UUID[:7], UUID[:7]),
        (UUID[:8], REDACTED),
        (UUID[-8:], REDACTED),
        (UUID[-7:], UUID[-7:]),
        (f"no: {UUID[9:20].upper()}!", REDACTED),
        ("%35%66%30c7a52", REDACTED),
        ("%2535f0c7a52", REDACTED),
        ("%252535f0c7a5", "%252535f0c7a5"),
    ],
)
def test_excerpts_have_one_line_of_200_characters_without_the_key(text: str, excerpt: str) -> None:
    assert safe_excerpt(text, UUID) == excerpt


def test_a_short_key_counts_as_a_whole() -> None:
    for key in ("abc", "ABC", "é c", "+/=", "1234567", "12345678"):
        assert contains_key(f"x{key.lower()}x", key)
        assert contains_key(quote(key, safe=""), key)
        assert not contains_key(f"x{key[:-1]}x", key)
    assert not contains_key("a text", "")


def test_the_adapter_adds_the_encoded_key_once() -> None:
    request = requests.Request("POST", "https://pbx.example.com/api?date=2021/09/14&q=?").prepare()
    url = KeyAdapter("a/b&c?").request_url(request, None)
    assert url == "/api?apiKey=a%2Fb%26c%3F&date=2021/09/14&q=?"
    assert "a%2Fb" not in str(request.url)


@pytest.mark.parametrize("name", ["urllib3.connectionpool", "urllib3.util.retry"])
def test_log_lines_of_urllib3_lose_the_key_and_the_cause(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        logger = logging.getLogger(name)
        logger.debug("%s /api?apiKey=%s&hour=3", "POST", UUID, exc_info=ValueError(UUID))
    assert caplog.messages == ["POST /api?apiKey=***&hour=3"]
    assert UUID not in caplog.text


# --- Runs -------------------------------------------------------------------------------------


def http(body: str = "", status: str = "200 OK", *headers: str) -> bytes:
    """A response."""
    content = body.encode()
    head = (f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers, "\r\n")
    return "\r\n".join(head).encode() + content


def message(text: Any, status: str = "500 x", code: Any = -1) -> bytes:
    """A status object."""
    return http(json.dumps({"Code": code, "Message": text}), status)


def legs(**changes: Any) -> bytes:
    """Two legs, the second with changes."""
    good = {
        "callend": "Tue Sep 14 15:03:34 AEST 2021",
        "CallRecordId": "6468",
        "UniqueId": "1.1",
        "Leg": "1",
        "Start": "Tue Sep 14 15:03:30 AEST 2021",
    }
    return http(json.dumps([good, good | {"Leg": "2"} | changes]))


JAVA = "Tue Sep 14 15:03:34 {} 2021"

RESPONSES: dict[str, tuple[str, Callable[[str, str], bytes]]] = {
    # Each with a part of the log, and the response for a key and a target.
    "plain": (REDACTED, lambda key, _: message(key)),
    "encoded": (REDACTED, lambda key, _: message(quote(key, safe=""))),
    "encoded twice": (REDACTED, lambda key, _: message(quote(quote(key, safe=""), safe=""))),
    "as in a form": (REDACTED, lambda key, _: message(quote_plus(key))),
    "upper case": (REDACTED, lambda key, _: message(key[:8].upper())),
    "all encoded": (REDACTED, lambda key, _: message("".join(f"%{ord(c):02x}" for c in key))),
    "first characters": (REDACTED, lambda key, _: message(f"key {key[:8]}... is unknown")),
    "last characters": (REDACTED, lambda key, _: message(f"key ...{key[-8:]} is unknown")),
    "in much text": ("status 500", lambda key, _: message("x" * 180 + key + "x" * 9000)),
    "in an object": (REDACTED, lambda key, target: message({"url": [target, {key: key}]})),
    "as Code": (REDACTED, lambda key, _: message("no", code=key)),
    "rate limit": (REDACTED, lambda key, _: message(f"wait a bit and retry {key}", "400 x")),
    "with 200": (REDACTED, lambda key, _: message(f"{key} is not known", "200 OK")),
    "page": ("status 500", lambda key, target: http(f"<html>{target} {key}", "500 x")),
    "login page": ("a web page", lambda key, target: http(f"<html>{target} {key}")),
    "a JSON string": ("not a list of legs", lambda key, _: http(json.dumps(key))),
    "not JSON": ("not JSON", lambda key, _: http(f'["{key}", {key}, 1]')),
    "truncated": ("truncated", lambda key, _: http(f'["{key}"')),
    "reason phrase": ("status 500", lambda key, _: http("", f"500 {key}")),
    "not HTTP": ("not valid HTTP", lambda key, _: f"{key}\r\n\r\n".encode()),
    "no status": ("not valid HTTP", lambda key, _: f"HTTP/1.1 {key}\r\n\r\n".encode()),
    "nothing": ("broke", lambda _key, _target: b""),
    "chunk": ("broke", lambda key, _: OK + (
        f"Transfer-Encoding: chunked\r\n\r\n{key}\r\n".encode())),
    "compression": ("Content-Encoding", lambda key, _: http(
        key, "200 x", "Content-Encoding: gzip")),
    "length": ("0 legs", lambda key, _: OK + f"Content-Length: {key}\r\n\r\n[]".encode()),
    "two lengths": ("broke", lambda key, _: http(key, "200 x", "Content-Length: 1")),
    "charset": ("windows-1252", lambda key, _: legs(Tag="TAG").replace(
        b"TAG", b"\xeb" * 3).replace(
        b"OK", f"OK\r\nContent-Type: a/b; charset={quote(key)}".encode())),
    "headers": ("status 500", lambda key, _: http(
        "", "500 x", f"Retry-After: {key}", f"Set-Cookie: k={key}", f"Date: {key}")),
    "header without a colon": ("2 legs", lambda key, target: legs().replace(
        b"\r\n", f"\r\nX {target} {key}\r\n".encode(), 1)),
    "redirect": ("redirects to a.b", lambda _, target: http(
        "", "302 x", f"Location: https://a.b{target}")),
    "redirect to a host": ("redirects to", lambda key, _: http(
        "", "302 x", f"Location: https://{key}.example.com/")),
    "redirect with a user": ("redirects to", lambda key, _: http(
        "", "307 x", f"Location: https://{quote(key, safe='')}@example.com")),
    "number": ("record 2: Duration", lambda key, _: legs(Duration=key)),
    "encoded number": ("record 2: Duration", lambda key, _: legs(Duration=f"4 {quote(key)}")),
    "Leg": ("record 2: Leg", lambda key, _: legs(Leg=[key])),
    "long id": ("record 2: CallRecordId", lambda key, _: legs(CallRecordId=key * 20)),
    "object": ("record 2: Tag", lambda key, _: legs(Tag={key: key})),
    "callend": ("record 2: callend", lambda key, _: legs(callend=key)),
    "zone": ("record 2: callend", lambda key, _: legs(callend=JAVA.format(key))),
    "part of a zone": ("record 2: Start", lambda key, _: legs(Start=JAVA.format(key[:8]))),
    "record": ("record 1 is not", lambda key, _: http(json.dumps([key]))),
    "field": ("not in the schema", lambda key, _: legs(**{key: "", quote(key): ""})),
    "shared key": ("different UniqueIds", lambda key, _: http(json.dumps([
        {"callend": JAVA.format("AEST"), "CallRecordId": key, "Leg": "1", "UniqueId": unique_id}
        for unique_id in (key, "2")]))),
}  # fmt: skip
for _status in (400, 401, 403, 404, 429, 500, 503):
    RESPONSES[f"status {_status}"] = (
        f"status {_status}",
        partial(lambda status, _, target: message(target, f"{status} x"), _status),
    )


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> Callable[[Any], str]:
    """The log at DEBUG in two formats, and the tracebacks of a run's error."""
    caplog.set_level(logging.DEBUG)

    def text(run: Any) -> str:
        structured = StructuredFormatter()
        lines = [caplog.text, *(structured.format(record) for record in caplog.records)]
        if run.error:
            lines += traceback.format_exception(run.error)
        return "\n".join(lines)

    return text


@pytest.mark.parametrize("key", [UUID, pytest.param(ODD, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", RESPONSES)
def test_no_response_makes_the_tap_log_the_key(
    name: str, key: str, everything: Callable[[Any], str]
) -> None:
    expected, response = RESPONSES[name]
    sent = []

    def respond(connection: socket.socket, target: str) -> None:
        sent.append(target)
        connection.sendall(response(key, target))

    with serving(respond) as host:
        run = run_tap(Simulator(api_key=key), api_url=f"http://{host}", **HOUR)
    log = everything(run)
    assert expected in log
    assert leaks(log, key) == []
    assert all(f"apiKey={quote(key, safe='')}&" in target for target in sent)
    assert sent


def test_no_failed_connection_makes_the_tap_log_the_key(
    everything: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    log = ""
    with serving(lambda connection, _: connection.sendall(http("no", "403 x"))) as host:
        for url, proxy, expected in [
            ("http://127.0.0.1:9", "", "Connection refused"),
            (f"https://{host}", "", f"no connection to {host}"),
            ("https://pbx.example.com", "http://127.0.0.1:9", "proxy does not connect"),
            ("https://pbx.example.com", f"http://{host}", "(403 x)"),
            ("https://pbx.example.com", f"http://{UUID}@{host}", "(403 x)"),
            ("https://pbx.example.com", f"http://me:{UUID}@127.0.0.1:9", "proxy does not connect"),
            ("https://pbx.example.com", f"socks9://{UUID}", "HTTPS_PROXY"),
            ("https://pbx.example.com", f"http://{UUID}:{UUID}", "HTTPS_PROXY"),
        ]:
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            run = run_tap(Simulator(api_key=UUID), api_url=url, **HOUR)
            assert expected in str(run.error)
            log += everything(run)
    assert leaks(log, UUID) == []


def test_connection_test_does_not_log_the_key(everything: Callable[[Any], str]) -> None:
    with serving(lambda connection, target: connection.sendall(message(target, "403 x"))) as host:
        simulator = Simulator(api_key=UUID)
        run = run_tap(simulator, api_url=f"http://{host}", sync=TapNoojee.run_connection_test)
    assert leaks(everything(run), UUID) == []
    assert REDACTED in str(run.error)


@pytest.mark.slow
def test_the_command_prints_no_key_at_debug(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    env = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    env |= {"TAP_NOOJEE_LOGLEVEL": "DEBUG", "TAP_NOOJEE_API_KEY": UUID}

    def respond(connection: socket.socket, target: str) -> None:
        connection.sendall(message(f"rate limit for {target}", "403 x"))

    with serving(respond) as host:
        config.write_text(json.dumps(settings(Simulator(), api_url=f"http://{host}", **HOUR)))
        for arguments, status in ((["--config", str(config)], 1), (["--about"], 0)):
            done = subprocess.run(
                [sys.executable, "-m", "tap_noojee", *arguments, "--config", "ENV"],
                env=env,
                check=False,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == status, done.stderr
            assert leaks(done.stdout + done.stderr, UUID) == []
            assert ("apiKey=***" in done.stderr) is (status == 1)


@pytest.mark.parametrize("key", [UUID, ODD], ids=["uuid", "odd"])
def test_leaks_would_be_found(key: str) -> None:
    forms = [key, quote(key), quote(key, safe=""), quote(quote(key)), key.upper(), key[5:13]]
    for form in forms:
        assert leaks(f"one\nx{form}x\nthree", key) == [f"x{form}x"]
    assert leaks(f"apiKey=*** {key[:7]} {key[8:15]}", key) == []
