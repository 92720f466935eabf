"""Servers that send any bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    Respond = Callable[[socket.socket, str], None]
    """Responds on a connection to a request with this target."""

OK = b"HTTP/1.1 200 OK\r\n"


@contextlib.contextmanager
def serving(respond: Respond, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve each connection in a thread until the block ends; yields `127.0.0.1:PORT`."""
    connections: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        # The client may hang up or not trust the certificate, or the block may end.
        with connection, contextlib.suppress(OSError):
            if context:
                connection = context.wrap_socket(connection, server_side=True)
            head = connection.recv(65536)
            _, target, *_ = [*head.split(b" "), b""]
            respond(connection, target.decode(errors="replace"))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threading.Thread(target=talk, args=(connection,)).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for some in [listener, *connections]:
                with contextlib.suppress(OSError):
                    some.shutdown(socket.SHUT_RDWR)
            thread.join()


def at_once(response: bytes) -> Respond:
    """Send a whole response."""
    return lambda connection, _: connection.sendall(response)


def endless(start: bytes, piece: bytes, pause: float = 0) -> Respond:
    """Send the start, and then the same piece forever."""

    def respond(connection: socket.socket, _target: str) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(pause)

    return respond
