"""Servers that send arbitrary bytes, and a search for the key in the log."""

import contextlib
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import pytest
from conftest import Run
from singer_sdk.logging import StructuredFormatter

Respond = Callable[[socket.socket, str], None]
"""A function that takes a connection and the target of its request, and sends a response."""

OK = b"HTTP/1.1 200 OK\r\n"


@contextlib.contextmanager
def serving(respond: Respond, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve each connection in a thread until the block ends, and yield `127.0.0.1:PORT`."""
    connections: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        # The client may hang up or reject the certificate, or the block may end.
        with connection, contextlib.suppress(OSError):
            if context:
                connection = context.wrap_socket(connection, server_side=True)
            head = connection.recv(65536)
            target = head.partition(b" ")[2].partition(b" ")[0]
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
            for sock in [listener, *connections]:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            thread.join()


def at_once(response: bytes, targets: list[str] | None = None) -> Respond:
    """Return a responder that adds the target to `targets` and sends the whole response."""

    def respond(connection: socket.socket, target: str) -> None:
        if targets is not None:
            targets.append(target)
        connection.sendall(response)

    return respond


def endless(start: bytes, piece: bytes, pause: float = 0) -> Respond:
    """Return a responder that sends `start`, then `piece` forever."""

    def respond(connection: socket.socket, _target: str) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(pause)

    return respond


def log_of(run: Run, caplog: pytest.LogCaptureFixture) -> str:
    """Return the log in two formats, and the tracebacks of the run's error."""
    structured = StructuredFormatter()
    lines = [caplog.text, *(structured.format(record) for record in caplog.records)]
    if run.error:
        lines += traceback.format_exception(run.error)
    return "\n".join(lines)


def leaks(text: str, key: str) -> list[str]:
    """Return the lines with eight consecutive characters of the key, plain or percent-encoded."""
    parts = {key[i : i + 8].lower() for i in range(len(key) - 7)}
    forms = ((line, f"{line}\n{unquote(line)}\n{unquote(unquote(line))}".lower())
             for line in text.splitlines())  # fmt: skip
    return [line for line, form in forms if any(part in form for part in parts)]
