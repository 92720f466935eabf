"""Singer messages on standard output, in whole lines whenever the tap is killed."""

from __future__ import annotations

import select
import sys
from typing import TYPE_CHECKING

from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.singerlib import RecordMessage
from typing_extensions import override

from tap_noojee.errors import OutputError

if TYPE_CHECKING:
    from singer_sdk.singerlib import Message

PIPE_BUF = getattr(select, "PIPE_BUF", 512)
"""Bytes that are written to a pipe as a whole or not at all; POSIX grants 512."""


class LineWriter(MsgSpecWriter):
    """Gathers the lines of records up to what a pipe takes as a whole.

    A line cut short would make target-jsonl fail before it prints its state, and the whole run's
    progress would be lost.
    """

    def __init__(self) -> None:
        """Start with nothing gathered."""
        self._lines = bytearray()

    @override
    def write_message(self, message: Message) -> None:
        line = self.format_message(message)
        if len(self._lines) + len(line) > PIPE_BUF:
            self.flush()
        self._lines += line
        if not isinstance(message, RecordMessage):
            self.flush()

    def flush(self) -> None:
        """Write what was gathered.

        Raises:
            OutputError: it cannot be written.
        """
        lines, self._lines = self._lines, bytearray()
        if not lines:
            return
        if sys.stdout is None:
            raise OutputError("standard output is closed")
        try:
            _write(memoryview(lines))
        except OSError as error:
            reason = f"cannot write to the target: {error.strerror or error}"
        else:
            return
        raise OutputError(reason)


def _write(data: memoryview) -> None:
    """Write all of it to standard output, past Python's own buffer.

    With PYTHONUNBUFFERED there is none, and a raw file writes as much as it likes.
    """
    output = sys.stdout.buffer
    raw = getattr(output, "raw", output)
    while data:
        written = raw.write(data)
        if written is None:  # a full pipe that does not block
            select.select([], [raw], [])
        elif written:
            data = data[written:]
        else:
            raise OSError("nothing was written")
