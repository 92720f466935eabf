"""The API key appears in no output, whatever fails, at any log level."""

import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from commands import SAMPLE_HOUR
from conftest import run_tap
from processes import arguments, environment, run_to_end
from servers import OK, at_once, leaks, log_of, serving

from tap_noojee.redaction import REDACTED, KeyAdapter, contains_key, safe_excerpt
from tap_noojee.simulator import Simulator

UUID = "5f0c7a52-1c1e-4d6a-9f3b-6a1d2e8b7c90"
SPECIAL = "k3y/wxyh+o0d=chqrs&m9rz%20"
"""A key with characters that URLs and pages encode."""


def test_excerpt_is_one_line_of_at_most_200_characters_without_the_key() -> None:
    for text, excerpt in {
        "short text": "short text",
        "one\ntwo\x00three\u2028": "one two three ",
        "x" * 200: "x" * 200,
        "x" * 201: "x" * 200 + "…",
        "x" * 200 + UUID: "x" * 200 + "…",
        "x" * 193 + UUID: "x" * 193 + UUID[:7] + "…",
        "x" * 192 + UUID: REDACTED,
        "": "",
        UUID[:7]: UUID[:7],
        UUID[:8]: REDACTED,
        UUID[-8:]: REDACTED,
        UUID[-7:]: UUID[-7:],
        f"no: {UUID[9:20].upper()}!": REDACTED,
        "%35%66%30c7a52": REDACTED,
        "%2535%2566%2530c7a52": REDACTED,
        "%252535f0c7a5": "%252535f0c7a5",
    }.items():
        assert safe_excerpt(text, UUID) == excerpt, text


def test_short_key_is_found_only_as_a_whole() -> None:
    for key in ("abc", "ABC", "é c", "+/=", "1234567", "12345678"):
        assert contains_key(f"x{key.lower()}x", key)
        assert contains_key(quote(key, safe=""), key)
        assert not contains_key(f"x{key[:-1]}x", key)
    assert not contains_key("a text", "")


def test_adapter_adds_the_encoded_key_once() -> None:
    request = requests.Request("POST", "https://pbx.example.com/api?date=2021/09/14&q=?").prepare()
    url = KeyAdapter("a/b&c?").request_url(request, None)
    assert url == "/api?apiKey=a%2Fb%26c%3F&date=2021/09/14&q=?"
    assert "a%2Fb" not in str(request.url)


def test_urllib3_logs_no_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logger = logging.getLogger(name)
        logger.debug("%s /api?apiKey=%s&hour=3", "POST", UUID)
    assert caplog.messages == ["POST /api?apiKey=***&hour=3"] * 2
    assert UUID not in caplog.text


def http_response(body: str = "", status: str = "200 OK", *headers: str) -> bytes:
    content = body.encode()
    head = (f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers, "", "")
    return "\r\n".join(head).encode() + content


def status_response(text: Any, status: str = "500 x", code: Any = -1) -> bytes:
    """Return a response whose body is the vendor's status object."""
    return http_response(json.dumps({"Code": code, "Message": text}), status)


DATE = "Tue Sep 14 15:03:34 {} 2021"
GOOD = {"callend": DATE.format("AEST"), "CallRecordId": "6468", "Leg": "1", "UniqueId": "1.1"}


def two_legs(**changes: Any) -> bytes:
    """Return a response with two legs, with these changes to the second."""
    return http_response(json.dumps([GOOD, GOOD | {"Leg": "2"} | changes]))


RESPONSES: dict[str, Callable[[str, str], bytes]] = {
    # Each entry maps a part of the log to a response, made from the key and the request's target.
    "status 400": lambda key, _: status_response(quote(key, safe=""), "400 x"),
    "status 401": lambda key, _: status_response(key, "401 x", code=key),
    "status 403": lambda _, target: status_response(target, "403 x"),
    "status 404": lambda key, target: status_response({"url": [target, {key: key}]}, "404 x"),
    "status 429": lambda key, _: status_response(key[-8:], "429 x"),
    "no more requests": lambda key, _: status_response(f"wait a bit and retry {key}", "400 x"),
    "status 200": lambda key, _: status_response(f"{key} is not known", "200 OK"),
    "status 500": lambda key, target: http_response(f"<html>{target} {key}", f"500 {key}"),
    "status 503": lambda key, _: http_response(
        "", "503 x", f"Retry-After: {key}", f"Set-Cookie: k={key}", f"Date: {key}"),
    "a web page": lambda key, target: http_response(f"<html>{target} {key}"),
    "not a list of legs": lambda key, _: http_response(json.dumps(key)),
    "not JSON": lambda key, _: http_response(f'["{key}", {key}, 1]'),
    "truncated": lambda key, _: http_response(f'["{key}"'),
    "not valid HTTP": lambda key, _: f"{key}\r\n\r\n".encode(),
    "not valid HTTP ((not shown": lambda key, _: f"HTTP/1.1 {key}\r\n\r\n".encode(),
    "is truncated": lambda key, _: OK + f"Transfer-Encoding: chunked\r\n\r\n{key}\r\n".encode(),
    "Content-Encoding": lambda key, _: http_response(key, "200 x", "Content-Encoding: gzip"),
    "0 legs": lambda key, _: OK + f"Content-Length: {key}\r\n\r\n[]".encode(),
    "windows-1252": lambda key, _: two_legs(Tag="TAG").replace(b"TAG", b"\xeb" * 3).replace(
        b"OK", f"OK\r\nContent-Type: a/b; charset={quote(key)}".encode()),
    # The additional header has no colon.
    "2 legs": lambda key, target: two_legs().replace(
        b"\r\n", f"\r\nX {target} {key}\r\n".encode(), 1),
    "redirects to https://a.b": lambda _, target: http_response("", "302 x", f"Location: https://a.b{target}"),
    "redirects to (not shown": lambda key, _: http_response(
        "", "307 x", f"Location: https://{quote(key, safe='')}@example.com"),
    "record 2: Duration": lambda key, _: two_legs(Duration=f"4 {quote(key)}"),
    "record 2: Leg": lambda key, _: two_legs(Leg=[key]),
    "record 2: CallRecordId": lambda key, _: two_legs(CallRecordId=key * 20),
    "record 2: Tag": lambda key, _: two_legs(Tag={key: key}),
    "record 2: callend": lambda key, _: two_legs(callend=DATE.format(key)),
    "record 2: Start": lambda key, _: two_legs(Start=DATE.format(key[:8])),
    "record 1 is not": lambda key, _: http_response(json.dumps([key])),
    "not in the schema": lambda key, _: two_legs(**{key: "", quote(key): ""}),
    "different UniqueIds": lambda key, _: http_response(json.dumps(
        [GOOD | {"CallRecordId": key, "UniqueId": name} for name in (key, "2")])),
}  # fmt: skip


@pytest.mark.parametrize("key", [UUID, pytest.param(SPECIAL, marks=pytest.mark.slow)])
@pytest.mark.parametrize("expected", RESPONSES)
def test_no_response_makes_the_tap_log_the_key(
    expected: str, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    targets = []

    def respond(connection: socket.socket, target: str) -> None:
        targets.append(target)
        connection.sendall(RESPONSES[expected](key, target))

    with serving(respond) as host:
        run = run_tap(Simulator(api_key=key), api_url=f"http://{host}", **SAMPLE_HOUR)
    log = log_of(run, caplog)
    assert expected in log
    assert leaks(log, key) == []
    assert all(f"apiKey={quote(key, safe='')}&" in target for target in targets)
    assert targets


def test_command_prints_no_key_at_debug_level(tmp_path: Path) -> None:
    env = environment(TAP_NOOJEE_LOGLEVEL="DEBUG", TAP_NOOJEE_API_KEY=UUID)
    with serving(at_once(status_response(f"rejected: {UUID}", "403 x"))) as host:
        config = SAMPLE_HOUR | {"api_url": f"http://{host}"}
        argv = arguments(tmp_path, Simulator(), "--config=ENV", **config)
        for options, status in ((["--test"], 1), (["--about"], 0)):
            run, done = run_to_end([*argv, *options], env=env)
            assert done.returncode == status, done.log
            assert leaks(run.output + done.log, UUID) == []
            assert ("apiKey=***" in done.log) is (status == 1)


def test_leaks_finds_every_form_of_the_key() -> None:
    for key in (UUID, SPECIAL):
        encoded = [quote(key), quote(key, safe=""), quote(quote(key))]
        for form in (key, key.upper(), key[5:13], *encoded):
            assert leaks(f"one\nx{form}x\nthree", key) == [f"x{form}x"]
        assert leaks(f"apiKey=*** {key[:7]} {key[8:15]}", key) == []
