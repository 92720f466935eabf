"""The connection: TLS, proxies, and everything that breaks on the way."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import requests
import requests_mock
import trustme
import urllib3
from conftest import FakeClock, run_tap
from servers import OK, at_once, endless, serving
from typing_extensions import override

from tap_noojee.errors import FailedHoursError, RequestError, TransientError
from tap_noojee.simulator import API_KEY, Simulator
from tap_noojee.transport import MAX_RESPONSE_BYTES, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOUR: dict[str, Any] = {"start_date": "2021-09-14T15:00", "end_date": "2021-09-14T16:00"}
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PIECE = b" " * 2**16


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# --- TLS --------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving_tls(certificate: trustme.LeafCert) -> Iterator[tuple[str, list[str]]]:
    """Serve 204 over TLS; yields the host and the targets of requests."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    targets = []

    def respond(connection: socket.socket, target: str) -> None:
        targets.append(target)
        connection.sendall(b"HTTP/1.1 204 x\r\n\r\n")

    with serving(respond, context) as host:
        yield host.replace("127.0.0.1", "localhost"), targets


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that REQUESTS_CA_BUNDLE trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    return authority


def test_an_authority_of_ones_own_is_trusted(authority: trustme.CA) -> None:
    with serving_tls(authority.issue_cert("localhost")) as (host, targets):
        run = run_tap(Simulator(), api_url=f"https://{host}", **HOUR)
    assert run.error is None
    (target,) = targets
    assert target.endswith(f"/retrieveMetaDataByHour?apiKey={API_KEY}&date=2021/09/14&hour=15")


@pytest.mark.parametrize("flaw", ["unknown authority", "another name", "expired"])
def test_a_bad_certificate_ends_the_run_before_the_key_is_sent(
    authority: trustme.CA, flaw: str
) -> None:
    past = datetime(2021, 1, 1, tzinfo=UTC)
    certificate = {
        "unknown authority": trustme.CA().issue_cert("localhost"),
        "another name": authority.issue_cert("pbx.example.com"),
        "expired": authority.issue_cert("localhost", not_after=past),
    }[flaw]
    with serving_tls(certificate) as (host, targets):
        run = run_tap(Simulator(), api_url=f"https://{host}", **HOUR)
    assert f"certificate of {host}" in str(run.error)
    assert "REQUESTS_CA_BUNDLE" in str(run.error)
    assert "attempts" not in str(run.error)
    assert targets == []


def test_a_broken_handshake_is_retried() -> None:
    connections = []

    def hang_up(connection: socket.socket, _: str) -> None:
        connections.append(connection)

    with serving(hang_up) as host:
        run = run_tap(Simulator(), api_url=f"https://{host}", **HOUR)
    assert str(run.error).endswith("(5 attempts)")
    assert host in str(run.error)
    assert len(connections) == 5


# --- What does not connect --------------------------------------------------------------------


def test_a_refused_connection_names_host_and_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
    run = run_tap(Simulator(), api_url=f"http://{host}", **HOUR)
    assert f"{host}: Connection refused" in str(run.error)
    assert str(run.error).endswith("(5 attempts)")


def test_an_unknown_host_is_named_with_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    for url, host in {
        "https://pbx.example.com": "pbx.example.com:443",
        "https://pbx.example.com:8443/x": "pbx.example.com:8443",
        "http://localhost": "localhost:80",
    }.items():
        run = run_tap(Simulator(), api_url=url, **HOUR)
        assert f"{host}: Name or service not known" in str(run.error)


@pytest.mark.parametrize(
    ("status", "attempts"), [("407 Proxy Authentication Required", 1), ("403 No", 1), ("503 x", 5)]
)
def test_the_proxys_status_is_reported(
    monkeypatch: pytest.MonkeyPatch, status: str, attempts: int
) -> None:
    targets = []

    def refuse(connection: socket.socket, target: str) -> None:
        targets.append(target)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    with serving(refuse) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@{proxy}")
        run = run_tap(Simulator(), api_url="https://pbx.example.com", **HOUR)
    assert targets == ["pbx.example.com:443"] * attempts
    assert f"the proxy does not connect to pbx.example.com:443 ({status})" in str(run.error)
    assert "HTTPS_PROXY" in str(run.error)
    assert "secret" not in str(run.error)


def test_a_proxy_that_is_down_is_named_and_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    run = run_tap(Simulator(), api_url="https://pbx.example.com", **HOUR)
    assert "the proxy does not connect to pbx.example.com:443 (Connection refused)" in str(
        run.error
    )
    assert str(run.error).endswith("(5 attempts)")


def test_a_bad_environment_ends_the_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value, hint in [
        ("HTTPS_PROXY", "socks5://127.0.0.1:9", "PySocks"),
        ("HTTPS_PROXY", "socks9://127.0.0.1:9", "HTTPS_PROXY"),
        ("HTTPS_PROXY", "http://", "HTTPS_PROXY"),
        ("ALL_PROXY", "http://:80:80", "ALL_PROXY"),
        ("REQUESTS_CA_BUNDLE", "/no/such/file", "REQUESTS_CA_BUNDLE"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            run = run_tap(Simulator(), api_url="https://localhost:9", **HOUR)
        assert hint in str(run.error)
        assert "attempts" not in str(run.error)


def test_plain_http_never_uses_a_proxy(pbx: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    run = run_tap(pbx, **HOUR)
    assert run.error is None
    assert len(run.records) == 4


def test_a_thread_that_cannot_start_ends_the_run(
    pbx: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    class Limited(FakeClock):
        @override
        def run_in_thread(self, task: Callable[[], Any], timeout: float) -> Any:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", fail)
                return super().run_in_thread(task, timeout)

    run = run_tap(pbx, **HOUR, clock=Limited())
    assert isinstance(run.error, RequestError)
    assert "`ulimit -u`" in str(run.error)
    assert pbx.requests == []


def test_the_key_is_in_every_form_of_url() -> None:
    targets = []

    def respond(connection: socket.socket, target: str) -> None:
        targets.append(target)
        connection.sendall(b"HTTP/1.1 204 x\r\n\r\n")

    paths = [
        "/./njadmin/rest",
        "/x/../njadmin",
        "/a|b",
        "/ä",
        "/%7e/",
        "/x/retrieveMetaDataByHour",
    ]
    with serving(respond) as host:
        for path in paths:
            assert run_tap(Simulator(), api_url=f"http://{host}{path}", **HOUR).error is None
    assert len(targets) == len(paths)
    for target in targets:
        assert target.count("/retrieveMetaDataByHour?") == 1
        assert f"?apiKey={API_KEY}&date=2021/09/14&hour=15" in target


class VeryImpatientClock(FakeClock):
    """A clock that gives a request 0.1 s: enough to connect, and no response is complete."""

    @override
    def run_in_thread(self, task: Callable[[], Any], timeout: float) -> Any:
        assert timeout == 11
        return super().run_in_thread(task, 0.1)


# --- Responses that break the protocol --------------------------------------------------------

LEG = {"callend": "Tue Sep 14 15:03:34 AEST 2021", "CallRecordId": "6468", "Leg": "1"}
GOOD = json.dumps([LEG]).encode()


BROKEN = [
    (b"", "broke"),
    (OK + b"Content-Length: 9\r\n\r\n[", "broke"),
    (CHUNKED + b"xyz\r\n", "broke"),
    (CHUNKED + b"5\r\n[", "broke"),
    (b"SSH-2.0-OpenSSH\r\n", "not valid HTTP"),
    (OK + b"X: y\r\n" * 100 + b"\r\n[]", "not valid HTTP (got more than 100 headers)"),
    (OK + b"X: " + b"y" * 70_000 + b"\r\n\r\n[]", "not valid HTTP"),
    (OK + b"Content-Encoding: gzip\r\n\r\n" + GOOD, "Content-Encoding"),
    (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n[]", "broke"),
]


def test_broken_responses_are_retried() -> None:
    for response, detail in BROKEN:
        with serving(at_once(response)) as host:
            run = run_tap(Simulator(), api_url=f"http://{host}", **HOUR)
        assert str(run.error).startswith("2021-09-14 15:00: "), detail
        assert detail in str(run.error)
        assert host in str(run.error)
        assert str(run.error).endswith("(5 attempts)")


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
            run = run_tap(Simulator(), api_url=f"http://{host}", **HOUR)
        assert run.error is None, response
        assert run.keys == [("6468", 1)]


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (OK + b"Content-Length: 99999\r\n\r\n[", b" "),
        (CHUNKED, b"1\r\n \r\n"),
        (CHUNKED, b"0"),
        (OK, b"X: y\r\n"),
        (b"", CONTINUE),
        (b"HTTP/1.1 500 x\r\n\r\n", b"x"),
        (b"", b""),
    ],
    ids=["length", "chunks", "chunk size", "headers", "interim", "error", "nothing"],
)
def test_a_response_has_a_time_limit_however_slowly_it_arrives(start: bytes, piece: bytes) -> None:
    with serving(endless(start, piece, pause=0.02)) as host:
        run = run_tap(
            Simulator(),
            clock=VeryImpatientClock(),
            api_url=f"http://{host}",
            request_timeout=1,
            **HOUR,
        )
    assert isinstance(run.error, RequestError)
    assert f"no complete response from {host}" in str(run.error)
    assert "`request_timeout`" in str(run.error)
    assert str(run.error).endswith("(5 attempts)")


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (OK + b"\r\n[", PIECE),
        (OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(PIECE * 100)),
    ],
    ids=["body", "compressed"],
)
def test_an_endless_response_fails_its_hour(
    start: bytes, piece: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(endless(start, piece)) as host:
        run = run_tap(Simulator(), api_url=f"http://{host}", **HOUR)
    assert isinstance(run.error, FailedHoursError)
    assert "2021-09-14 15:00: the response is larger than 64 MiB" in caplog.messages


@pytest.mark.parametrize("status", ["302 x\r\nLocation: https://example.com", "500 x", "403 x"])
def test_little_is_read_of_an_endless_error(status: str) -> None:
    sent = 0

    def respond(connection: socket.socket, _target: str) -> None:
        nonlocal sent
        connection.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode())
        while sent < MAX_RESPONSE_BYTES:
            sent += connection.send(PIECE)

    with serving(respond) as host:
        run = run_tap(Simulator(), api_url=f"http://{host}", **HOUR)
    assert f"status {status[:3]}" in str(run.error)
    assert sent < MAX_RESPONSE_BYTES


# --- The transport alone ----------------------------------------------------------------------


def transport(now: Callable[[], float] = lambda: 0.0) -> Transport:
    """One that would send to a PBX."""
    return Transport(
        "https://pbx.example.com", api_key="KEY", user_agent="test", timeout=7, monotonic=now
    )


def caused(error: Exception, cause: Exception, *, implicitly: bool = False) -> Exception:
    """An exception with another as its cause or context."""
    setattr(error, "__context__" if implicitly else "__cause__", cause)
    return error


INVALID = ssl.SSLCertVerificationError("KEY")
INVALID.verify_message = "it has expired"
EXPIRED = "certificate of pbx.example.com:443 is not valid (it has expired)"
LOOP = requests.ConnectionError("KEY")
LOOP.__cause__ = caused(ValueError("KEY"), LOOP)
POOL = urllib3.HTTPSConnectionPool("pbx.example.com")


def test_failures_are_named_and_nothing_leads_to_their_url() -> None:
    for error, is_transient, text in [
        (requests.exceptions.SSLError(INVALID), False, EXPIRED),
        (urllib3.exceptions.MaxRetryError(POOL, "/?apiKey=KEY", INVALID), False, EXPIRED),
        (caused(requests.ConnectionError("KEY"), INVALID, implicitly=True), False, EXPIRED),
        (requests.exceptions.InvalidURL("KEY"), False, "HTTPS_PROXY"),
        (urllib3.exceptions.LocationValueError("KEY"), False, "HTTPS_PROXY"),
        (requests.ConnectTimeout("KEY"), True, "no connection to pbx.example.com:443 within 10 s"),
        (requests.ReadTimeout("KEY"), True, "`request_timeout`"),
        (TimeoutError("KEY"), True, "`request_timeout`"),
        (ConnectionAbortedError(103, "Abort"), True, "broke"),
        (BrokenPipeError(32, "Pipe"), True, "broke"),
        (requests.ConnectionError("KEY"), True, "broke"),
        (ValueError("KEY"), True, "(ValueError)"),
        (ConnectionError("KEY"), True, "(ConnectionError)"),
        (caused(ValueError("KEY"), caused(KeyError("KEY"), INVALID)), False, EXPIRED),
        (LOOP, True, "broke"),
    ]:
        with requests_mock.Mocker() as server:
            server.post(requests_mock.ANY, exc=error)
            with pytest.raises(RequestError) as raised:
                transport().post("method?hour=3")
        assert text in str(raised.value)
        assert "KEY" not in str(raised.value)
        assert isinstance(raised.value, TransientError) is is_transient, text
        assert raised.value.__cause__ is raised.value.__context__ is None


@pytest.mark.parametrize(
    ("status", "size", "read"),
    [(200, 2**26, 2**26), (500, 2**16, 2**16), (500, 2**20, 2**17), (201, 2**20, 2**17)],
)
def test_an_array_may_have_64_mib_and_an_error_is_cut_off(
    status: int, size: int, read: int
) -> None:
    with requests_mock.Mocker() as server:
        server.post(requests_mock.ANY, status_code=status, content=b" " * size)
        response = transport().post("method?hour=3")
    assert (response.status, len(response.body)) == (status, read)


@pytest.mark.parametrize(("pace", "times_out"), [(8.5, False), (8.6, True)])
def test_the_time_limit_is_for_connecting_and_the_whole_response(
    pace: float, *, times_out: bool
) -> None:
    times = iter(range(10))
    with requests_mock.Mocker() as server:
        server.post(requests_mock.ANY, content=b" " * 2**16)
        one = transport(lambda: next(times) * pace)
        assert one.time_limit == 17
        if times_out:
            with pytest.raises(TransientError, match="no complete response"):
                one.post("method?hour=3")
        else:
            assert len(one.post("method?hour=3").body) == 2**16


def test_a_request_carries_no_credentials_of_netrc(
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
