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
import trustme
from conftest import FakeClock, run_tap
from typing_extensions import override

from tap_noojee.simulator import API_KEY, Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
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
