"""The connection, over real TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import requests
import requests_mock
import trustme
import urllib3
from conftest import FakeClock, run_tap
from typing_extensions import override

from tap_noojee.errors import RequestError, TransientError
from tap_noojee.simulator import API_KEY, Simulator
from tap_noojee.transport import Attempt, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOUR: dict[str, Any] = {"start_date": "2021-09-14T15:00", "end_date": "2021-09-14T16:00"}


class TLSServer(ThreadingHTTPServer):
    """Answers with 204, by TLS; counts connections and notes what is requested."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        """Listen on a port of its own."""
        super().__init__(("127.0.0.1", 0), TLSHandler)
        self.connections = 0
        self.targets: list[str] = []
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self._context)

    @property
    def url(self) -> str:
        """Its address, by the name that good certificates are for."""
        return f"https://localhost:{self.server_port}"

    @override
    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        self.connections += 1
        # A client that does not trust the certificate goes away.
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            self._context.wrap_socket(request, server_side=True) as wrapped,
        ):
            super().finish_request(wrapped, client_address)


class TLSHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: TLSServer

    def do_POST(self) -> None:
        """Answer that there is nothing."""
        self.server.targets.append(self.path)
        self.send_response(204)
        self.end_headers()

    @override
    def log_message(self, format: str, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(certificate: trustme.LeafCert) -> Iterator[TLSServer]:
    """Serve with a certificate until the block ends."""
    with TLSServer(certificate) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """The authority that the environment says to trust."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return authority


def test_a_good_certificate_is_all_that_is_needed(authority: trustme.CA) -> None:
    """A PBX whose certificate is of a trusted authority, and for its name, gets the request."""
    with Simulator() as pbx, serving(authority.issue_cert("localhost")) as server:
        run = run_tap(pbx, api_url=server.url, **HOUR)
    assert run.error is None
    (target,) = server.targets
    assert target.endswith(f"/retrieveMetaDataByHour?apiKey={API_KEY}&date=2021/09/14&hour=15")


PAST = datetime(2021, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("flaw", ["unknown authority", "another name", "expired"])
def test_a_bad_certificate_ends_the_run_at_once(authority: trustme.CA, flaw: str) -> None:
    """With a certificate that is not valid, one connection is made and no key is sent."""
    certificate = {
        "unknown authority": trustme.CA().issue_cert("localhost"),
        "another name": authority.issue_cert("pbx.example.com"),
        "expired": authority.issue_cert("localhost", not_after=PAST),
    }[flaw]
    clock = FakeClock()
    with Simulator() as pbx, serving(certificate) as server:
        run = run_tap(pbx, clock=clock, api_url=server.url, request_interval=60, **HOUR)
    assert "the server's certificate is not valid" in str(run.error)
    assert "attempts" not in str(run.error)
    assert server.connections == 1
    assert server.targets == []
    assert run.records == []


def test_a_broken_handshake_is_tried_again() -> None:
    """A server that hangs up amid the handshake may be there again later."""
    connections = []

    def hang_up(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.recv(1000)
                connections.append(connection)
                connection.close()

    with Simulator() as pbx, socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hang_up, args=(listener,))
        thread.start()
        run = run_tap(pbx, api_url=f"https://localhost:{listener.getsockname()[1]}", **HOUR)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert str(run.error).endswith("(5 attempts)")
    assert len(connections) == 5


def transport(now: Callable[[], float] = lambda: 0.0) -> Transport:
    """Make one that would send to a PBX."""
    return Transport(
        "https://pbx.example.com", api_key="KEY", user_agent="test", timeout=7, monotonic=now
    )


def caused(error: Exception, cause: Exception) -> Exception:
    """Make one exception the cause of another."""
    error.__cause__ = cause
    return error


def amid(error: Exception, context: Exception) -> Exception:
    """Make an exception that was raised while another was handled."""
    error.__context__ = context
    return error


REFUSED = ConnectionRefusedError(111, "Connection refused")
INVALID = ssl.SSLCertVerificationError("KEY")
INVALID.verify_message = "it has expired"
INVALID_TEXT = "the server's certificate is not valid (it has expired)"
CHECK_PROXY = "the address of the proxy cannot be used: check HTTPS_PROXY and ALL_PROXY"
POOL = urllib3.HTTPSConnectionPool("pbx.example.com")


@pytest.mark.parametrize(
    ("error", "passes", "text"),
    [
        (requests.exceptions.SSLError(INVALID), False, INVALID_TEXT),
        (urllib3.exceptions.MaxRetryError(POOL, "/?apiKey=KEY", INVALID), False, INVALID_TEXT),
        (caused(requests.ConnectionError("KEY"), INVALID), False, INVALID_TEXT),
        (amid(requests.ConnectionError("KEY"), INVALID), False, INVALID_TEXT),
        (requests.exceptions.InvalidURL("KEY"), False, CHECK_PROXY),
        (requests.exceptions.InvalidSchema("KEY"), False, CHECK_PROXY),
        (urllib3.exceptions.ProxySchemeUnknown("KEY"), False, CHECK_PROXY),
        (urllib3.exceptions.LocationValueError("KEY"), False, CHECK_PROXY),
        (OSError("KEY"), False, "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE: the file does not exist"),
        (requests.ConnectTimeout("KEY"), True, "no connection within 10 s"),
        (requests.ReadTimeout("KEY"), True, "no complete response within 7 s"),
        (TimeoutError("KEY"), True, "no complete response within 7 s"),
        (requests.exceptions.ProxyError(REFUSED), True, "the proxy does not connect"),
        (requests.ConnectionError(REFUSED), True, "no connection: Connection refused"),
        (ConnectionResetError(104, "Reset"), True, "the connection broke off"),
        (ConnectionAbortedError(103, "Abort"), True, "the connection broke off"),
        (BrokenPipeError(32, "Pipe"), True, "the connection broke off"),
        (requests.ConnectionError("KEY"), True, "the connection broke off"),
        (requests.exceptions.ChunkedEncodingError("KEY"), True, "the connection broke off"),
        (ValueError("KEY"), True, "the request failed (ValueError)"),
        (ConnectionError("KEY"), True, "the request failed (ConnectionError)"),
    ],
)
def test_a_failure_is_named_without_its_own_words(
    error: Exception, *, passes: bool, text: str
) -> None:
    """Whatever the libraries raise is named in words of the tap's own, and nothing leads to it."""
    with requests_mock.Mocker() as server:
        server.post(requests_mock.ANY, exc=error)
        with pytest.raises(RequestError) as raised:
            transport().post("method?hour=3", Attempt())
    assert str(raised.value) == text
    assert isinstance(raised.value, TransientError) is passes
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_an_exception_that_is_its_own_cause_is_named() -> None:
    """Exceptions that refer to each other do not hold up the tap."""
    first, second = requests.ConnectionError("KEY"), ValueError("KEY")
    with requests_mock.Mocker() as server:
        server.post(requests_mock.ANY, exc=caused(first, caused(second, first)))
        with pytest.raises(TransientError, match="the connection broke off"):
            transport().post("method?hour=3", Attempt())


@pytest.mark.parametrize(
    ("status", "size", "read"),
    [(200, 2**26, 2**26), (200, 2**26 + 1, None), (500, 2**20, 2**16), (201, 2**20, 2**16)],
)
def test_no_more_is_read_than_can_be_meant(status: int, size: int, read: int | None) -> None:
    """An answer may have 64 MiB; of anything else, the first 64 KiB are read."""
    with requests_mock.Mocker() as server:
        server.post(requests_mock.ANY, status_code=status, content=b" " * size)
        if read is None:
            with pytest.raises(RequestError, match="the answer is larger than 64 MiB") as raised:
                transport().post("method?hour=3", Attempt())
            assert not isinstance(raised.value, TransientError)
        else:
            response = transport().post("method?hour=3", Attempt())
            assert (response.status, len(response.body)) == (status, read)


@pytest.mark.parametrize(("pace", "times_out"), [(8.5, False), (8.6, True)])
def test_a_response_that_trickles_has_an_end(pace: float, *, times_out: bool) -> None:
    """Connecting and answering may take 10 s and `request_timeout`, however slow the bytes."""
    times = iter(range(10))
    with requests_mock.Mocker() as server:
        server.post(requests_mock.ANY, content=b" " * 2 * 2**16)
        one = transport(lambda: next(times) * pace)
        assert one.time_limit == 17
        if times_out:
            with pytest.raises(TransientError, match="no complete response within 7 s"):
                one.post("method?hour=3", Attempt())
        else:
            assert len(one.post("method?hour=3", Attempt()).body) == 2 * 2**16


def test_what_is_sent_is_all_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request has neither the key nor a .netrc's credentials, and its connection is closed."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine pbx.example.com login somebody password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    with requests_mock.Mocker() as server:
        server.post(requests_mock.ANY, status_code=302, headers={"Location": "https://[KEY"})
        response = transport().post("method?hour=3", Attempt())
        (request,) = server.request_history
    assert response.status == 302
    assert response.headers["Location"] == "https://[KEY"
    assert request.url == "https://pbx.example.com/method?hour=3"
    assert request.headers["User-Agent"] == "test"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["Connection"] == "close"
    assert "Authorization" not in request.headers
    assert request.stream
    assert str(request.timeout) == "(10, 7)"
