"""The connection: TLS, proxies, broken responses and time limits."""

import gzip
import itertools
import json
import logging
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import requests_mock
import trustme
import urllib3
from commands import SAMPLE_HOUR
from conftest import FakeClock, run_tap
from servers import OK, at_once, endless, leaks, log_of, serving
from typing_extensions import override

from tap_noojee.errors import RequestError, TransientError
from tap_noojee.simulator import API_KEY, Simulator
from tap_noojee.transport import Transport

CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 x\r\n\r\n"


@pytest.fixture(autouse=True)
def _without_proxy_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    "flaw",
    ["", "unknown authority", "wrong host name", "expired"],
    ids=lambda flaw: flaw or "valid",
)
def test_only_a_server_with_a_valid_certificate_gets_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flaw: str
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    issuer = trustme.CA() if flaw == "unknown authority" else authority
    name = "pbx.example.com" if flaw == "wrong host name" else "localhost"
    end = datetime(2021, 1, 1, tzinfo=UTC) if flaw == "expired" else None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issuer.issue_cert(name, not_after=end).configure_cert(context)
    request_targets: list[str] = []
    with serving(at_once(NO_CONTENT, request_targets), context) as address:
        host = address.replace("127.0.0.1", "localhost")
        run = run_tap(Simulator(), api_url=f"https://{host}", **SAMPLE_HOUR)
    if flaw:
        assert f"certificate of {host}" in str(run.error)
        assert "REQUESTS_CA_BUNDLE" in str(run.error)
        assert "attempts" not in str(run.error)
        assert request_targets == []
    else:
        assert run.error is None
        (target,) = request_targets
        assert target.endswith(f"/retrieveMetaDataByHour?apiKey={API_KEY}&date=2021/09/14&hour=15")


PBX = "https://pbx.example.com"
PROXY_UNREACHABLE = "the proxy did not connect to pbx.example.com:443 (Connection refused)"

UNREACHABLE = [
    # Each entry has a URL, an environment variable, part of the error, and the number of attempts.
    ("http://127.0.0.1:9", "", "127.0.0.1:9: Connection refused", 5),
    ("https://SERVER", "", "no connection to 127.0.0.1:", 5),
    (PBX, "", "pbx.example.com:443: Name or service not known", 5),
    (f"{PBX}:8443/x", "", "pbx.example.com:8443: Name or service not known", 5),
    ("http://localhost", "", "localhost:80: Name or service not known", 5),
    (PBX, "ALL_PROXY=http://127.0.0.1:9", PROXY_UNREACHABLE, 5),
    (PBX, f"HTTPS_PROXY=http://me:{API_KEY}@127.0.0.1:9", PROXY_UNREACHABLE, 5),
    ("https://407.example.com", f"HTTPS_PROXY=http://{API_KEY}@SERVER", "com:443 (407 x)", 1),
    ("https://403.example.com", "HTTPS_PROXY=http://SERVER", "com:443 (403 x)", 1),
    ("https://503.example.com", "HTTPS_PROXY=http://SERVER", "com:443 (503 x)", 5),
    (PBX, "HTTPS_PROXY=socks5://127.0.0.1:9", "PySocks", 1),
    (PBX, f"HTTPS_PROXY=socks9://{API_KEY}", "HTTPS_PROXY", 1),
    (PBX, f"HTTPS_PROXY=http://{API_KEY}:{API_KEY}", "HTTPS_PROXY", 1),
    (PBX, "HTTPS_PROXY=http://", "HTTPS_PROXY", 1),
    (PBX, "ALL_PROXY=http://:80:80", "ALL_PROXY", 1),
    (PBX, "REQUESTS_CA_BUNDLE=/no/such/file", "REQUESTS_CA_BUNDLE", 1),
]  # fmt: skip


def test_connection_errors_name_the_cause_without_the_key(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    look_up = socket.getaddrinfo

    def look_up_loopback(host: str, *arguments: Any) -> Any:
        if host != "127.0.0.1":
            raise socket.gaierror(-2, "Name or service not known")
        return look_up(host, *arguments)

    def refuse(connection: socket.socket, target: str) -> None:
        """Refuse the tunnel, as a proxy does, with the status at the start of the host's name."""
        status = target[:3] if target.endswith(":443") else "400"
        connection.sendall(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())

    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(socket, "getaddrinfo", look_up_loopback)
    with serving(refuse) as server:
        for url, variable, detail, attempts in UNREACHABLE:
            with monkeypatch.context() as patch:
                if variable:
                    patch.setenv(*variable.replace("SERVER", server).split("=", 1))
                run = run_tap(Simulator(), api_url=url.replace("SERVER", server), **SAMPLE_HOUR)
            text = str(run.error)
            assert detail in text, (url, variable)
            assert ("HTTPS_PROXY" in text) is ("PROXY" in variable), (url, variable)
            assert text.endswith(f"({attempts} attempts)") is (attempts > 1), (url, variable)
            assert leaks(log_of(run, caplog), API_KEY) == [], (url, variable)
            caplog.clear()


def test_plain_http_never_uses_a_proxy(pbx: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    run = run_tap(pbx, **SAMPLE_HOUR)
    assert run.error is None
    assert len(run.records) == 4


def test_endpoint_and_key_are_added_to_any_url() -> None:
    paths = ["/./njadmin", "/x/../njadmin", "/a|b", "/ä", "/%7e/", "/x/retrieveMetaDataByHour"]
    request_targets: list[str] = []
    with serving(at_once(NO_CONTENT, request_targets)) as host:
        for path in paths:
            run = run_tap(Simulator(), api_url=f"http://{host}{path}", **SAMPLE_HOUR)
            assert run.error is None, path
    assert len(request_targets) == len(paths)
    for target in request_targets:
        assert target.count("/retrieveMetaDataByHour?") == 1
        assert f"?apiKey={API_KEY}&date=2021/09/14&hour=15" in target


class VeryImpatientClock(FakeClock):
    """A clock that ends each request after 0.1 s. The servers here never complete a response."""

    @override
    def run_in_thread(self, task: Callable[[], Any], timeout: float) -> Any:
        assert timeout == 11  # 10 s to connect, plus request_timeout
        return super().run_in_thread(task, 0.1)


LEG = {"callend": "Tue Sep 14 15:03:34 AEST 2021", "CallRecordId": "6468", "Leg": "1"}
GOOD = json.dumps([LEG]).encode()

BROKEN = [
    # Each entry has a response and part of the error.
    (b"", "was lost"),
    (OK + b"Content-Length: 9\r\n\r\n[", "truncated"),
    (CHUNKED + b"xyz\r\n", "truncated"),
    (CHUNKED + b"5\r\n[", "truncated"),
    (b"SSH-2.0-OpenSSH\r\n", "not valid HTTP"),
    (OK + b"X: y\r\n" * 100 + b"\r\n[]", "not valid HTTP (got more than 100 headers)"),
    (OK + b"X: " + b"y" * 70_000 + b"\r\n\r\n[]", "not valid HTTP"),
    (OK + b"Content-Encoding: gzip\r\n\r\n" + GOOD, "Content-Encoding"),
    (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n[]", "was lost"),
]


def test_broken_responses_are_retried(caplog: pytest.LogCaptureFixture) -> None:
    for response, detail in BROKEN:
        caplog.clear()
        with serving(at_once(response)) as host:
            run = run_tap(Simulator(), api_url=f"http://{host}", **SAMPLE_HOUR)
        errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        # A truncated response fails only its hour.
        error = errors[0] if detail == "truncated" else str(run.error)
        assert error.startswith("2021-09-14 15:00: "), detail
        assert detail in error
        assert host in error
        assert error.endswith("(5 attempts)")


UNUSUAL = [
    OK + b"X: y\r\n" * 99 + b"\r\n" + GOOD,
    OK + b"\r\n" + GOOD,
    OK + b"no colon\r\nContent-Length: 99\r\n\r\n" + GOOD,
    OK + b"Set-Cookie: \xff=;;\r\nDate: \xff\r\n\r\n" + GOOD,
    OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(GOOD),
    CHUNKED + b"1\r\n[\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD) - 1, GOOD[1:]),
    CONTINUE * 3 + OK + b"\r\n" + GOOD,
    b"HTTP/1.0 200 \r\n\r\n" + GOOD,
]


def test_unusual_responses_are_read() -> None:
    for response in UNUSUAL:
        with serving(at_once(response)) as host:
            run = run_tap(Simulator(), api_url=f"http://{host}", **SAMPLE_HOUR)
        assert run.error is None, response
        assert run.keys == [("6468", 1)]


ENDLESS = [
    # Each entry has the start of a response and the piece that then repeats forever.
    (OK + b"Content-Length: 99999\r\n\r\n[", b" "),
    (CHUNKED, b"1\r\n \r\n"),
    (CHUNKED, b"0"),
    (OK, b"X: y\r\n"),
    (b"", CONTINUE),
    (b"HTTP/1.1 500 x\r\n\r\n", b"x"),
    (b"", b""),
]


def test_response_that_never_completes_ends_at_the_time_limit() -> None:
    for start, piece in ENDLESS:
        with serving(endless(start, piece, pause=0.02)) as host:
            url, clock = f"http://{host}", VeryImpatientClock()
            run = run_tap(Simulator(), clock=clock, api_url=url, request_timeout=1, **SAMPLE_HOUR)
        assert isinstance(run.error, RequestError), (start, piece)
        assert f"no complete response from {host}" in str(run.error), (start, piece)
        assert "`request_timeout`" in str(run.error), (start, piece)
        assert str(run.error).endswith("(5 attempts)"), (start, piece)


def transport(monotonic: Callable[[], float] = lambda: 0.0) -> Transport:
    return Transport(PBX, api_key="KEY", user_agent="test", timeout=7, monotonic=monotonic)


def with_cause(error: Exception, cause: Exception, *, implicitly: bool = False) -> Exception:
    """Set the error's `__cause__`, or its `__context__` if `implicitly`, and return it."""
    setattr(error, "__context__" if implicitly else "__cause__", cause)
    return error


EXPIRED = ssl.SSLCertVerificationError("KEY")
EXPIRED.verify_message = "it has expired"
EXPIRED_TEXT = "certificate of pbx.example.com:443 is not valid (it has expired)"
LOOP = requests.ConnectionError("KEY")
LOOP.__cause__ = with_cause(ValueError("KEY"), LOOP)
POOL = urllib3.HTTPSConnectionPool("pbx.example.com")


def test_errors_name_the_cause_and_do_not_keep_the_url() -> None:
    for error, is_transient, text in [
        (requests.exceptions.SSLError(EXPIRED), False, EXPIRED_TEXT),
        (urllib3.exceptions.MaxRetryError(POOL, "/?apiKey=KEY", EXPIRED), False, EXPIRED_TEXT),
        (
            with_cause(requests.ConnectionError("KEY"), EXPIRED, implicitly=True),
            False,
            EXPIRED_TEXT,
        ),
        (requests.ConnectTimeout("KEY"), True, "no connection to pbx.example.com:443 within 10 s"),
        (requests.ReadTimeout("KEY"), True, "`request_timeout`"),
        (TimeoutError("KEY"), True, "`request_timeout`"),
        (ConnectionAbortedError(103, "Abort"), True, "was lost"),
        (BrokenPipeError(32, "Pipe"), True, "was lost"),
        (requests.ConnectionError("KEY"), True, "was lost"),
        (ValueError("KEY"), True, "(ValueError)"),
        (ConnectionError("KEY"), True, "(ConnectionError)"),
        (with_cause(ValueError("KEY"), with_cause(KeyError("KEY"), EXPIRED)), False, EXPIRED_TEXT),
        (LOOP, True, "was lost"),
    ]:
        with requests_mock.Mocker() as server:
            server.post(requests_mock.ANY, exc=error)
            with pytest.raises(RequestError) as raised:
                transport().post("method?hour=3")
        assert text in str(raised.value)
        assert "KEY" not in str(raised.value)
        assert isinstance(raised.value, TransientError) is is_transient, text
        assert raised.value.__cause__ is raised.value.__context__ is None


def test_successful_body_may_be_64_mib_and_error_bodies_are_cut_off() -> None:
    for status, size, read in [(200, 2**26, 2**26), (500, 2**16, 2**16), (201, 2**20, 2**17)]:
        with requests_mock.Mocker() as server:
            server.post(requests_mock.ANY, status_code=status, content=b" " * size)
            response = transport().post("method?hour=3")
        assert (response.status, len(response.body)) == (status, read)


def test_time_limit_covers_connecting_and_the_whole_response() -> None:
    for step in (8.5, 8.6):
        # The clock advances one step each time it is read.
        connection = transport(itertools.count(0, step).__next__)
        assert connection.time_limit == 17
        with requests_mock.Mocker() as server:
            server.post(requests_mock.ANY, content=b" " * 2**16)
            if step * 2 > 17:
                with pytest.raises(TransientError, match="no complete response"):
                    connection.post("method?hour=3")
            else:
                assert len(connection.post("method?hour=3").body) == 2**16


def test_requests_ignore_netrc_and_redirects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine pbx.example.com login somebody password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    with requests_mock.Mocker() as server:
        server.post(requests_mock.ANY, status_code=302, headers={"Location": "https://[KEY"})
        response = transport().post("method?hour=3")
        (request,) = server.request_history
    assert (response.status, response.headers["Location"]) == (302, "https://[KEY")
    assert request.url == "https://pbx.example.com/method?hour=3"
    assert "Authorization" not in request.headers
    assert request.stream
    assert str(request.timeout) == "(10, 7)"
